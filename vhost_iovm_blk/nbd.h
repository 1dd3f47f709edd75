/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Path type nbd: what its files share.
 *
 *	nbd_path.c   the ops of the path type; a request becomes a command of a connection
 *	nbd_sess.c   a session: the connections of one generation; its start, its watchdog, its end
 *	nbd_replace.c  another session for a live path, while the one before finishes what it has
 *	nbd_conn.c   a connection: slots, the thread that sends, the thread that receives
 *	nbd_sock.c   a socket from user space: taking it over, sending, receiving, TLS records
 *	nbd_proto.c  framing, pure code
 *
 * A path has one session that takes requests, and perhaps the one before, if that was replaced
 * while the path was live, until what it has was answered. Each time user space hands sockets over
 * a new session, with the next generation number, is made; unless it replaces the one before, that
 * has been torn down completely by then. A session works until something breaks
 * (viovm_nbd_sess_fail(), once), then its work item ends it:
 *
 *	1. the connections are marked dead: they take no request any more
 *	2. the sockets are shut down, which wakes whoever sleeps in them
 *	3. both threads of each connection are stopped: nobody touches a page of a request any more
 *	4. every request left is ended, as unsent if none of its bytes can have left
 *	5. the sockets are closed, what they had not sent is discarded
 *
 * The shell of a dead session stays until the next one takes its place or the path is removed.
 *
 * Locks: viovm_nbd_conn.lock and viovm_nbd_sess.lock are plain spinlocks, taken in process context
 * only, never nested, and not held over a call into the mux. viovm_nbd_path.mutex is taken inside
 * of dev->mutex and outside of all others.
 */
#ifndef _VHOST_IOVM_BLK_NBD_H
#define _VHOST_IOVM_BLK_NBD_H

#include <linux/atomic.h>
#include <linux/bvec.h>
#include <linux/completion.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "blk.h"
#include "nbd_proto.h"
#include "nbd_sock.h"

#define VNBD_SLOTS	128		/* requests on the wire of one connection */
#define VNBD_HEARTBEAT	VNBD_SLOTS	/* index of the slot for heartbeats */
#define VNBD_SYNC	(VNBD_SLOTS + 1) /* and for the path's own FLUSH */
#define VNBD_ALL_SLOTS	(VNBD_SLOTS + 2)
#define VNBD_BATCH	16		/* commands gathered for one turn of the sender */
#define VNBD_TX_BVECS	64		/* of one gathered send */
#define VNBD_RX_BVECS	32		/* of one receive, and one more for the stage */
#define VNBD_STAGE_TAIL	64		/* bytes of framing received along behind a READ's data */
#define VNBD_PART_MAX	SZ_1M		/* the most a READ or WRITE carries */
#define VNBD_BYE	(HZ / 5)	/* for a goodbye to be sent, while somebody waits */
#define VNBD_ZERO_PAGES	(VNBD_PART_MAX / PAGE_SIZE)

struct viovm_nbd_conn;
struct viovm_nbd_sess;

/**
 * enum viovm_nbd_job - what a slot does
 * @VNBD_JOB_FREE: nothing, it is in conn->free
 * @VNBD_JOB_CMD: the request itself
 * @VNBD_JOB_ZEROES: a WRITE of zeroes, piece by piece, for a server without WRITE_ZEROES
 * @VNBD_JOB_FLUSH: a FLUSH behind the write, for a server without FUA
 * @VNBD_JOB_HEARTBEAT: a READ nobody asked for
 * @VNBD_JOB_SYNC: the path's own FLUSH
 */
enum viovm_nbd_job {
	VNBD_JOB_FREE,
	VNBD_JOB_CMD,
	VNBD_JOB_ZEROES,
	VNBD_JOB_FLUSH,
	VNBD_JOB_HEARTBEAT,
	VNBD_JOB_SYNC,
};

/**
 * struct viovm_nbd_slot - a command on the wire
 * @wire: as the parser sees it; the cookie is 0 unless a reply is expected. Cookie: conn->lock; the
 *	rest is written under conn->lock before the cookie is set and is the receiver's from then on
 * @node: in conn->free or conn->again; conn->lock
 * @req: whose; NULL for the path's own commands. Set while the slot is not free, by the sender
 * @bv: data, valid until the request is done
 * @nr_bv: entries
 * @flags: VNBD_CMD_F_*
 * @job: enum viovm_nbd_job; written under conn->lock
 * @flush_after: a write that the server must be told to make stable
 * @started: a byte of it may have left; the sender's, then the teardown's
 * @pending: sender and receiver both hold the slot; who lets go last ends the command
 * @seq: how often the slot was used, part of the cookie; conn->lock
 * @done: JOB_ZEROES: bytes written
 * @since: jiffies when the command was given to the slot; conn->lock
 * @tx_start: the sender's: bytes before it in the gathered send
 */
struct viovm_nbd_slot {
	struct viovm_nbd_wire wire;
	struct list_head node;
	struct iovm_req *req;
	const struct bio_vec *bv;
	u16 nr_bv;
	u16 flags;
	u8 job;
	bool flush_after;
	bool started;
	atomic_t pending;
	u32 seq;
	u32 done;
	unsigned long since;
	u32 tx_start;
};

/* Why a connection is suspect */
#define VNBD_SUSPECT_QUIET	BIT(0)	/* nothing came for half of dead_ms, though due */
#define VNBD_SUSPECT_SLOW	BIT(1)	/* a request is older than dead_ms */
#define VNBD_SUSPECT_ERROR	BIT(2)	/* the last heartbeat was answered with an error */

/**
 * struct viovm_nbd_conn - one socket and its two threads
 * @sess: the session it belongs to; constant
 * @s: the socket; @lock for dropping it
 * @index: in sess->conns; constant
 * @lock: see the fields
 * @queue: struct iovm_req.node: requests that have no slot yet; @lock
 * @free: slots; @lock
 * @again: slots with a command to be sent, before anything in @queue; @lock
 * @nr_queued: requests in @queue; @lock, read without it as a hint
 * @nr_busy: slots that are not free, the path's own too; @lock, read without it as a hint
 * @dead: takes nothing any more; @lock
 * @bye: the sender shall say goodbye (DISC) when it is idle; @lock
 * @busy_since: jiffies when the last idle period ended; @lock
 * @heartbeat_at: jiffies of the last heartbeat; the watchdog's
 * @heartbeat_ns: ktime_get_ns() of the last heartbeat; written under @lock while there is none
 * @last_rx: jiffies when bytes came last; written by the receiver
 * @moved_at: jiffies when the peer was last seen to take bytes of a long command; the watchdog's
 * @suspect: VNBD_SUSPECT_*; sess->lock, read without it as a hint
 * @said_bye: completed by the sender
 * @tx_wait: the sender sleeps here
 * @tx_task: sends; from creation to teardown
 * @rx_task: receives
 * @hdr_page: request headers, one for each slot; the sender's
 * @tx_bv: the sender's
 * @stage: a page of the stream that was received and is not parsed yet; the receiver's, as all that
 *	follows
 * @stage_pos: bytes of it that were consumed
 * @stage_end: bytes in it
 * @rx_bv: where the next bytes go
 * @cur_idx: @cur_bv entry at which the payload at hand goes on
 * @cur_off: bytes of that entry that are filled
 * @reply: the parser
 * @heartbeat_page: where heartbeats read to
 * @heartbeat_bv: the same
 * @slots: all of them; the last ones are the path's own
 */
struct viovm_nbd_conn {
	struct viovm_nbd_sess *sess;
	struct viovm_nbd_sock s;
	u8 index;

	spinlock_t lock;		/* see the fields */
	struct list_head queue;
	struct list_head free;
	struct list_head again;
	u32 nr_queued;
	u32 nr_busy;
	bool dead;
	bool bye;
	unsigned long busy_since;
	unsigned long heartbeat_at;
	u64 heartbeat_ns;
	unsigned long last_rx;
	unsigned long moved_at;
	unsigned long suspect;

	struct completion said_bye;
	wait_queue_head_t tx_wait;
	struct task_struct *tx_task;
	struct task_struct *rx_task;

	struct page *hdr_page;
	struct bio_vec tx_bv[VNBD_TX_BVECS];

	struct page *stage;
	u32 stage_pos;
	u32 stage_end;
	struct bio_vec rx_bv[VNBD_RX_BVECS + 1];
	u32 cur_idx;
	u32 cur_off;
	struct viovm_nbd_reply reply;

	struct page *heartbeat_page;
	struct bio_vec heartbeat_bv;
	struct viovm_nbd_slot slots[VNBD_ALL_SLOTS];
};

/**
 * struct viovm_nbd_path - iovm_path.priv of a path of type nbd
 * @path: whose
 * @sess: the newest session, NULL before the first; written under dev->mutex and, if the path may
 *	fail meanwhile, @mutex; read under RCU
 * @generation: of the newest session; dev->mutex
 * @mutex: keeps @sess and @retiring from going while they are failed
 * @retiring: the session that @sess has replaced, NULL when it has ended; @mutex for writing
 * @retire_work: ends it when it has nothing in flight; queued while @retiring is set
 * @stale: replies to commands nobody waits for
 * @heartbeats: sent
 */
struct viovm_nbd_path {
	struct iovm_path *path;
	struct viovm_nbd_sess __rcu *sess;
	u32 generation;
	struct mutex mutex;		/* see the fields */
	struct viovm_nbd_sess *retiring;
	struct work_struct retire_work;
	atomic64_t stale;
	atomic64_t heartbeats;
};

/**
 * enum viovm_nbd_role - what a session is to its path
 * @VNBD_ROLE_CURRENT: what befalls it befalls the path
 * @VNBD_ROLE_NEW: it is tried out, before it replaces the current one
 * @VNBD_ROLE_OLD: it was replaced; the path needs it only as long as it has requests
 */
enum viovm_nbd_role {
	VNBD_ROLE_CURRENT,
	VNBD_ROLE_NEW,
	VNBD_ROLE_OLD,
};

/**
 * struct viovm_nbd_sess - the connections of one generation
 * @np: the path
 * @generation: part of every cookie; constant, as all up to @lock
 * @export_flags: VNBD_F_*
 * @heartbeat_size: bytes that a heartbeat reads
 * @structured: structured replies were negotiated
 * @heartbeat: jiffies
 * @dead: jiffies
 * @lock: see the fields
 * @nr_suspect: connections with a reason to be suspect; @lock, read without it as a hint
 * @error: negative errno, why the session broke; set once, 0 while it works
 * @closing: it is being closed in order: a connection that breaks is no path error
 * @role: enum viovm_nbd_role; written by who makes and replaces sessions, read without a lock
 * @end_work: teardown; queued once, by who set @error
 * @ended: teardown is complete
 * @keys_old: its TLS keys are to be replaced, which was told; the watchdog's
 * @watchdog: heartbeats and timeouts, from start until the session is freed
 * @nr_conns: entries of @conns
 * @conns: constant
 */
struct viovm_nbd_sess {
	struct viovm_nbd_path *np;
	u32 generation;
	u16 export_flags;
	u16 heartbeat_size;
	bool structured;
	unsigned long heartbeat;
	unsigned long dead;

	spinlock_t lock;		/* see the fields */
	u32 nr_suspect;
	int error;
	bool closing;
	u8 role;
	bool keys_old;
	struct work_struct end_work;
	struct completion ended;
	struct delayed_work watchdog;

	u32 nr_conns;
	struct viovm_nbd_conn *conns[] __counted_by(nr_conns);
};

/* nbd_path.c */
extern const struct bio_vec *viovm_nbd_zero_bv;
extern struct workqueue_struct *viovm_nbd_wq;

/* nbd_sess.c: process context */
struct viovm_nbd_sess *viovm_nbd_sess_start(struct viovm_nbd_path *np,
					    const struct iovm_path_connect *arg,
					    enum viovm_nbd_role role, char *msg);
bool viovm_nbd_sess_idle(struct viovm_nbd_sess *sess);
bool viovm_nbd_sess_is_tls(const struct viovm_nbd_sess *sess);
u64 viovm_nbd_sess_records(const struct viovm_nbd_sess *sess);
void viovm_nbd_sess_watch(struct viovm_nbd_sess *sess);
void viovm_nbd_sess_fail(struct viovm_nbd_sess *sess, int error);
void viovm_nbd_sess_close(struct viovm_nbd_sess *sess, unsigned long patience);
void viovm_nbd_sess_free(struct viovm_nbd_sess *sess);
void viovm_nbd_suspect(struct viovm_nbd_conn *conn, unsigned long why, bool on);

/* nbd_replace.c: process context */
int viovm_nbd_replace(struct viovm_nbd_path *np, struct viovm_nbd_sess *old,
		      const struct iovm_path_connect *arg, char *msg);
void viovm_nbd_retire_work(struct work_struct *work);
void viovm_nbd_retire_now(struct viovm_nbd_path *np);

/* nbd_conn.c: process context */
struct viovm_nbd_conn *viovm_nbd_conn_new(struct viovm_nbd_sess *sess, u8 index);
int viovm_nbd_conn_start(struct viovm_nbd_conn *conn);
bool viovm_nbd_conn_queue(struct viovm_nbd_conn *conn, struct iovm_req *req);
void viovm_nbd_conn_heartbeat(struct viovm_nbd_conn *conn);
bool viovm_nbd_conn_flush(struct viovm_nbd_conn *conn);
void viovm_nbd_conn_kill(struct viovm_nbd_conn *conn);
void viovm_nbd_conn_stop(struct viovm_nbd_conn *conn);
void viovm_nbd_conn_free(struct viovm_nbd_conn *conn);

#endif /* _VHOST_IOVM_BLK_NBD_H */
