/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Class target: a block device of the mux whose front end are NBD clients.
 *
 *	tgt.c        the device: its sessions, and what waits for a route
 *	tgt_conn.c   a connection: a thread that receives commands, another that replies
 *
 *	receiver		mux, back end			sender
 *	header, data -> command
 *	iovm_req_route(), issue ------------------->
 *				viovm_tgt_complete() ------->	header, data -> socket
 *								the command is free again
 *
 * User space listens, shakes hands, decides who may do what, and gives a session its sockets. A
 * session lives until all its connections have ended; a connection until the peer says goodbye or
 * something breaks, and then until every command that it had taken has ended: nothing that a client
 * had issued lands after its session is gone.
 *
 * Data are received straight into the pages that are written, and sent from the pages that were
 * read: the socket is lent those of a READ of VTGT_LEND bytes or more, and they are used again when
 * it has given them back. What a connection holds is bounded: VTGT_COMMANDS commands and VTGT_BYTES
 * of data; when they are in use, nothing is received. A READ or WRITE that is longer than VTGT_PART
 * goes piece by piece. A READ whose later piece fails ends the connection, since its reply has
 * begun.
 *
 * Locks, outermost first: dev->mutex; viovm_tgt.mutex (the sessions; sleeping); viovm_tgt.lock and
 * viovm_tgt_conn.lock (irqsave, taken by completions; never both).
 */
#ifndef _VHOST_IOVM_BLK_TGT_H
#define _VHOST_IOVM_BLK_TGT_H

#include <linux/sched.h>
#include <linux/sizes.h>

#include "blk.h"
#include "nbd_proto.h"
#include "nbd_sock.h"

#define VTGT_COMMANDS		128		/* of a connection */
#define VTGT_BYTES		SZ_8M		/* of data, of a connection */
#define VTGT_PART		VIOVM_BLK_PART_BYTES
#define VTGT_INLINE_BVECS	32		/* of a command: data up to 128 KiB */
#define VTGT_TX_BVECS		64		/* of one gathered send */
#define VTGT_RX_BVECS		64		/* of one receive, and one more for the stage */
#define VTGT_LOOK_AT_KEYS	64	/* after so many commands each, of 2048 records at most */
#define VTGT_STAGE		(32 * VNBD_REQUEST_SIZE)
#define VTGT_CACHE		(SZ_2M / PAGE_SIZE) /* pages kept; a power of 2 */
#define VTGT_LEND		SZ_16K		/* below, copying is cheaper than one more send */
#define VTGT_DEAD_MS		60000		/* a host that is silent for so long is gone */

struct viovm_tgt_conn;
struct viovm_tgt_sess;

/**
 * struct viovm_tgt_cmd - a command that a client sent
 * @io: as mux and back ends see it
 * @conn: constant
 * @node: in conn->free or conn->done; conn->lock
 * @cmd: as it came
 * @part_end: bytes of it that have ended, or are under way: where the next piece begins
 * @error: VNBD_E* for the reply, or 0
 * @sync: somebody waits for the piece under way in conn->wait: it sends no reply by itself
 * @ended: it has ended; with @sync, conn->lock
 * @at_path: it is routed: @io.req.path and issue_ns say since when; read by viovm_tgt_oldest()
 * @bv: inline_bv or big
 * @big: VIOVM_BLK_PART_PAGES entries, NULL until the first that needs them; then kept
 * @inline_bv: for short commands
 *
 * Owned by the receiver until it is issued, then by the back end, then by the sender.
 */
struct viovm_tgt_cmd {
	struct viovm_io io;
	struct viovm_tgt_conn *conn;
	struct list_head node;
	struct viovm_nbd_command cmd;
	u32 part_end;
	u32 error;
	bool sync;
	bool ended;
	bool at_path;
	struct bio_vec *big;
	struct bio_vec inline_bv[VTGT_INLINE_BVECS];
};

/**
 * struct viovm_tgt_conn - a connection
 * @sess: constant
 * @s: the socket; constant until both threads have stopped
 * @lock: see the fields; irqsave
 * @free: commands; @lock
 * @done: commands to be answered; @lock
 * @nr_busy: commands that are not free; @lock
 * @bytes: of data that they hold; @lock
 * @dying: takes nothing more: what waits for a route is thrown away; set once, @lock for writing
 * @shut: by the operator
 * @broken: nothing can be sent any more; negative errno. The sender's
 * @error: why the receiver has ended: negative errno, -ESHUTDOWN when the client said so; its own
 * @wait: the receiver waits for a command or for room, and whoever for a piece of a long one
 * @tx_wait: the sender sleeps here
 * @rx_task: receives
 * @tx_task: sends
 * @stage: what was received and not looked at yet; the receiver's, as all down to @rx_bv
 * @stage_pos: bytes of it that were consumed
 * @stage_end: bytes in it
 * @data_follows: the last command was a WRITE: do not receive more than a header
 * @rx_bv: where the next bytes go
 * @nr_rx: commands received
 * @hdr_page: headers of replies, one for each command; the sender's, like the next ones
 * @tx_bv: what is gathered
 * @commands: statistics, as all down to @written_bytes
 * @errors: likewise
 * @read_bytes: likewise
 * @written_bytes: likewise
 * @nr_cached: entries of @cache; @lock
 * @nr_lent: entries of @lent; @lock
 * @first_lent: the oldest of them; @lock
 * @nr_pages: pages that there are, cached, lent or in use; @lock
 * @cache: free pages; @lock
 * @lent: pages that are free as soon as the socket has given them back, oldest first; @lock
 * @cmds: VTGT_COMMANDS of them; constant
 */
struct viovm_tgt_conn {
	struct viovm_tgt_sess *sess;
	struct viovm_nbd_sock s;
	spinlock_t lock;		/* see the fields */
	struct list_head free;
	struct list_head done;
	u32 nr_busy;
	u32 bytes;
	bool dying;
	bool shut;
	int broken;
	int error;
	wait_queue_head_t wait;
	wait_queue_head_t tx_wait;
	struct task_struct *rx_task;
	struct task_struct *tx_task;
	struct page *stage;
	u32 stage_pos;
	u32 stage_end;
	bool data_follows;
	struct bio_vec rx_bv[VTGT_RX_BVECS + 1];
	u32 nr_rx;
	struct page *hdr_page;
	struct bio_vec tx_bv[VTGT_TX_BVECS];
	u64 commands;
	u64 errors;
	u64 read_bytes;
	u64 written_bytes;
	u32 nr_cached;
	u32 nr_lent;
	u32 first_lent;
	u32 nr_pages;
	struct page *cache[VTGT_CACHE];
	struct page *lent[VTGT_CACHE];
	struct viovm_tgt_cmd *cmds;
};

/**
 * struct viovm_tgt_sess - a client
 * @tgt: constant, like all down to @epoch
 * @id: unique in the device
 * @rdonly: it may not modify
 * @peer: for people
 * @since: ktime_get_ns() when it began
 * @epoch: of the client, 0 none
 * @expired: an older one than the device's: nothing of it is issued or answered any more; set once
 * @running: connections that have not ended
 * @end_work: when there are none
 * @node: in tgt->sessions; tgt->mutex
 * @nr_conns: entries of @conns; constant
 * @conns: constant
 */
struct viovm_tgt_sess {
	struct viovm_tgt *tgt;
	u32 id;
	bool rdonly;
	char peer[IOVM_ADDR_MAX];
	u64 since;
	u64 epoch;
	bool expired;
	atomic_t running;
	struct work_struct end_work;
	struct list_head node;
	u32 nr_conns;
	struct viovm_tgt_conn *conns[] __counted_by(nr_conns);
};

/**
 * struct viovm_tgt - a target device
 * @cfg: as created; capacity changes under dev->mutex. First, see viovm_blk_config()
 * @dev: the mux's, constant
 * @mutex: protects @sessions and what is in them from going; sleeping
 * @sessions: by id
 * @nr_sessions: those that have not ended; @mutex for writing
 * @next_id: @mutex
 * @closing: takes no session any more; @mutex
 * @wait: woken when a session has ended
 * @lock: protects @waiting; irqsave
 * @waiting: struct iovm_req.node: commands that wait for a route
 * @work: tries them again
 */
struct viovm_tgt {
	struct iovm_blk_config cfg;
	struct iovm_dev *dev;
	struct mutex mutex;		/* see the fields */
	struct list_head sessions;
	u32 nr_sessions;
	u32 next_id;
	bool closing;
	wait_queue_head_t wait;
	spinlock_t lock;		/* protects @waiting */
	struct list_head waiting;
	struct work_struct work;
};

static inline struct viovm_tgt_cmd *viovm_tgt_cmd(struct iovm_req *req)
{
	return container_of(viovm_io(req), struct viovm_tgt_cmd, io);
}

/* tgt.c */
extern struct workqueue_struct *viovm_tgt_wq;
void viovm_tgt_go(struct viovm_tgt_cmd *cmd);
void viovm_tgt_kick(struct viovm_tgt *tgt);
void viovm_tgt_conn_ended(struct viovm_tgt_conn *conn);

/* tgt_conn.c */
struct viovm_tgt_conn *viovm_tgt_conn_new(struct viovm_tgt_sess *sess, int fd, char *msg);
int viovm_tgt_conn_start(struct viovm_tgt_conn *conn);
void viovm_tgt_conn_shut(struct viovm_tgt_conn *conn);
void viovm_tgt_conn_stop(struct viovm_tgt_conn *conn);
void viovm_tgt_conn_free(struct viovm_tgt_conn *conn);
void viovm_tgt_cmd_ended(struct viovm_tgt_cmd *cmd, int error);

#endif /* _VHOST_IOVM_BLK_TGT_H */
