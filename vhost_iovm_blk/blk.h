/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The block class: map of the data path.
 *
 *	main.c     module, registration
 *	node.c     the device: configuration space, features (fixed at creation), the
 *	class's callbacks for mux and core
 *	queue.c    a virtqueue's worker: fetch, limits, requeue list
 *	request.c  a virtio-blk request: header and layout checks, splitting into parts, completion
 *	retake.c   requests taken back from a path that hangs
 *	map.c      a part's guest memory: pin, bounce, copy back, unpin
 *	bdev.c     path type bdev: a bio per part
 *	share.c    which paths have which block device
 *	nbd*.c     path type nbd: transmission phase on sockets from user space
 *	tgt*.c     class target: the other end of it (tgt.h)
 *
 *	kick -> viovm_blk_vq_run() -> viovm_blk_fetch() -> viovm_blk_rq_go() -> parts
 *	part -> iovm_req_route() -> viovm_blk_map() -> iovm_req_issue() -> back end
 *	back end -> iovm_req_done() -> viovm_blk_complete() -> last part: status byte,
 *	used ring, call eventfd
 *	                            -> viovm_blk_requeue() -> worker: unmap, route again
 *
 * One virtio-blk request (struct viovm_blk_rq, one per head, kept for the next) becomes one or more
 * parts of at most VIOVM_BLK_PART_BYTES; a part is what the mux routes (struct iovm_req is
 * embedded). A small request's only part lies inline in the request; further parts are allocated,
 * a bounded number per queue.
 *
 * Who may touch a request: the worker until its parts are issued; then whoever ends a part, and
 * the last one ends the request. Requests that come back wait on lists under viovm_blk_queue.lock
 * (irqsave; completions and worker; retake.c takes iovm_dev.lock inside it, nobody the reverse).
 */
#ifndef _VHOST_IOVM_BLK_H
#define _VHOST_IOVM_BLK_H

#include <linux/bio.h>
#include <linux/bvec.h>
#include <linux/hrtimer.h>
#include <linux/virtio_blk.h>

#include "../iovm_mux/mux.h"
#include "../vhost_iovm/vhost_iovm.h"

#define VIOVM_BLK_PART_PAGES	256
#define VIOVM_BLK_PART_BYTES	(VIOVM_BLK_PART_PAGES * PAGE_SIZE)
#define VIOVM_BLK_INLINE_BVECS	4
#define VIOVM_BLK_INLINE_SEGS	6	/* header, four of data, status */
#define VIOVM_BLK_MAX_BIG	64	/* allocated parts per queue, and per hung path */
#define VIOVM_BLK_STAMP		16	/* parts that share a reading of the clock */

struct viovm_blk_rq;
struct viovm_blk_queue;

/**
 * struct viovm_io - a request as the back ends see it, of whichever front end
 * @req: as the mux sees it; op, offset, len, flags
 * @bv: data, one entry a page fragment, req.len bytes in all (READ, WRITE); valid from
 *	issue to iovm_req_done()
 * @nr_bv: entries in use, 0 when not mapped
 * @max_bv: entries there are
 * @bio: the bdev back end's
 * @work: bdev: discard and zeroes. The front end's while not issued
 */
struct viovm_io {
	struct iovm_req req;
	struct bio_vec *bv;
	u16 nr_bv;
	u16 max_bv;
	struct bio bio;
	struct work_struct work;
};

static inline struct viovm_io *viovm_io(struct iovm_req *req)
{
	return container_of(req, struct viovm_io, req);
}

/**
 * struct viovm_blk_part - what is issued to a path at once
 * @io: as the back ends see it; its work unpins in process context as well (map)
 * @rq: the virtio request it belongs to
 * @bounce: the pages in @bv are the kernel's; else they are the guest's, pinned
 * @big: allocated, and in queue->bigs; else inline in @rq
 * @counted: in queue->nr_big; queue->lock
 * @big_node: in queue->bigs; queue->lock
 * @error: of a part that the worker ends
 * @data_off: bytes of the request's data before this part
 * @inline_bv: storage of @bv for an inline part
 */
struct viovm_blk_part {
	struct viovm_io io;
	struct viovm_blk_rq *rq;
	bool bounce;
	bool big;
	bool counted;
	struct list_head big_node;
	int error;
	u32 data_off;
	struct bio_vec inline_bv[VIOVM_BLK_INLINE_BVECS];
};

/* viovm_blk_rq.issued: the request was taken back; whoever ends a part of it throws it away */
#define VIOVM_BLK_TAKEN		BIT(30)

/**
 * struct viovm_blk_rq - a virtio-blk request, one per head
 * @queue: constant; not to be followed once VIOVM_BLK_TAKEN was seen
 * @head: constant
 * @status: VIRTIO_BLK_S_*: the worst of its parts; written by whoever ends a part with an error
 * @op: IOVM_OP_*
 * @req_flags: IOVM_REQ_* of its parts
 * @active: taken from the ring and not given back (a guest may not reuse a head meanwhile)
 * @part_used: the inline part is taken; worker
 * @made_all: parts were made for all of the data; worker
 * @nr_segs: copied descriptors; @segs[nr_out..] are the device's to write
 * @nr_out: how many of them the device reads
 * @segs: inline_segs, or allocated
 * @first: segment in which the data begins
 * @first_off: bytes of it before the data
 * @data_len: bytes
 * @issued_off: bytes of the data that parts were made for; worker
 * @offset: bytes on the device
 * @parts: parts not ended, plus one while the worker makes more
 * @issued: parts at a back end (or kept by the mux); and VIOVM_BLK_TAKEN
 * @error_ns: of the request that this one was made in place of: when that was issued; else 0
 * @next_stalled: in queue->stalled; worker
 * @rcu: viovm_blk_oldest() may look at a request that was taken back
 * @status_page: page of the status byte, pinned while a part is issued; worker until then,
 *	who ends the last part then. May be NULL again before a part that ended has let go
 * @status_off: of the status byte in it
 * @part: the inline part
 * @inline_segs: storage of @segs for a small request
 */
struct viovm_blk_rq {
	struct viovm_blk_queue *queue;
	u16 head;
	u8 status;
	u8 op;
	u8 req_flags;
	bool active;
	bool part_used;
	bool made_all;
	u16 nr_segs;
	u16 nr_out;
	u16 first;
	u32 first_off;
	u32 data_len;
	u32 issued_off;
	u64 offset;
	struct viovm_seg *segs;
	atomic_t parts;
	atomic_t issued;
	u64 error_ns;
	struct viovm_blk_rq *next_stalled;
	struct rcu_head rcu;
	struct page *status_page;
	u32 status_off;
	struct viovm_blk_part part;
	struct viovm_seg inline_segs[VIOVM_BLK_INLINE_SEGS];
};

/**
 * struct viovm_blk_queue - a virtqueue of a block device
 * @vq: constant
 * @blk: constant
 * @rqs: one per head; the array is made by the first request, an entry by the first of its head;
 *	the worker writes, viovm_blk_oldest() reads
 * @nr_rqs: entries
 * @segs: scratch for a chain, VIOVM_MAX_CHAIN entries; worker
 * @table: scratch for an indirect table; worker
 * @pages: scratch for pinning; worker
 * @stalled: requests that wait for memory or for an allocated part: the one fetched last, and
 *	those made anew; worker
 * @issued_in_turn: parts issued since the worker's turn began; worker
 * @now_ns: the time of the newest reading in this turn; worker
 * @timer: wakes the worker: limits, shortage of memory
 * @nr_big: allocated parts that count: those in @bigs, but for what a hung path keeps; @lock for
 *	writing
 * @bigs: allocated parts but for those of requests taken back; @lock
 * @retake_seq: dev->retake_seq when the worker last looked what to take back; worker
 * @node: in blk->queues; blk->queues_lock
 * @want_big: the worker waits for one
 * @write_through: no FLUSH was negotiated: every write is stable; constant while running
 * @lock: irqsave; protects @requeued, @returned and @bigs
 * @requeued: parts to be routed again
 * @returned: parts that the worker ends: bounced reads, and those that stand for a request whose
 *	status only the worker can write
 */
struct viovm_blk_queue {
	struct viovm_vq *vq;
	struct viovm_blk *blk;
	struct viovm_blk_rq **rqs;
	u32 nr_rqs;
	struct viovm_seg *segs;
	struct vring_desc *table;
	struct page **pages;
	struct viovm_blk_rq *stalled;
	u32 issued_in_turn;
	u64 now_ns;
	struct hrtimer timer;
	u32 nr_big;
	struct list_head bigs;
	u32 retake_seq;
	struct list_head node;
	bool want_big;
	bool write_through;
	spinlock_t lock;
	struct list_head requeued;
	struct list_head returned;
};

/**
 * struct viovm_blk - a block device
 * @cfg: as created; capacity changes under dev->mutex. First, see viovm_blk_config()
 * @dev: the mux's, constant
 * @node: constant between create and destroy
 * @config: configuration space; @config_lock
 * @config_lock: protects @config
 * @next_io_ns: when the iops limit allows the next request
 * @next_byte_ns: when the bps limit does
 * @mem_bytes: kernel memory held by running queues
 * @queues_lock: protects @queues; sleeping, inside vq->mutex
 * @queues: those that run
 */
struct viovm_blk {
	struct iovm_blk_config cfg;
	struct iovm_dev *dev;
	struct viovm_node *node;
	struct virtio_blk_config config;
	spinlock_t config_lock;
	atomic64_t next_io_ns;
	atomic64_t next_byte_ns;
	atomic64_t mem_bytes;
	struct mutex queues_lock;
	struct list_head queues;
};

static inline struct viovm_blk_part *viovm_blk_part(struct iovm_req *req)
{
	return container_of(viovm_io(req), struct viovm_blk_part, io);
}

/**
 * viovm_blk_req_fua - must this write be stable before it is completed?
 *
 * The guest asked for write-through, or the path's cache may die with it (design, invariant 7).
 */
static inline bool viovm_blk_req_fua(const struct iovm_req *req)
{
	return (req->flags & IOVM_REQ_FUA) || (req->path->flags & IOVM_PATH_F_CACHE_DIES);
}

/* node.c */
#define VIOVM_BAD_CAPACITY \
	"the capacity must be a multiple of the block size, above 0 and below 2^63 bytes"
int viovm_blk_bad(char *msg, const char *what);
int viovm_blk_check_config(struct iovm_blk_config *c, char *msg);
bool viovm_blk_capacity_ok(const struct iovm_blk_config *c, u64 sectors);
const struct iovm_blk_config *viovm_blk_config(struct iovm_dev *dev);
u64 viovm_blk_capacity(struct iovm_dev *dev);
extern const struct iovm_class viovm_blk_class;

/* queue.c */
int viovm_blk_vq_start(struct viovm_vq *vq);
void viovm_blk_vq_stop(struct viovm_vq *vq);
bool viovm_blk_vq_run(struct viovm_vq *vq);
void viovm_blk_vq_drop(struct viovm_vq *vq);
void viovm_blk_complete(struct iovm_req *req, int error);
void viovm_blk_requeue(struct iovm_req *req);
void viovm_blk_wait(struct viovm_blk_part *part);
void viovm_blk_stall(struct viovm_blk_rq *rq);
void viovm_blk_return(struct viovm_blk_part *part);
void viovm_blk_wake_in(struct viovm_blk_queue *q, u64 ns);

/* retake.c */
u64 viovm_blk_oldest(struct iovm_dev *dev, const struct iovm_path *path, u32 *writes);
int viovm_blk_retake(struct viovm_blk_queue *q);
void viovm_blk_throw_away(struct viovm_blk_part *part);

/* request.c */
extern struct workqueue_struct *viovm_blk_wq;
struct viovm_blk_rq *viovm_blk_rq_alloc(struct viovm_blk_queue *q, u16 head);
void viovm_blk_rq_free(struct viovm_blk_rq *rq);
void viovm_blk_rq_free_rcu(struct viovm_blk_rq *rq);
void viovm_blk_rq_restart(struct viovm_blk_rq *rq);
void viovm_blk_part_free(struct viovm_blk_part *part);
int viovm_blk_rq_parse(struct viovm_blk_rq *rq, const struct viovm_chain *chain);
int viovm_blk_rq_go(struct viovm_blk_rq *rq);
int viovm_blk_part_issue(struct viovm_blk_part *part);
void viovm_blk_part_end(struct viovm_blk_part *part, int error, bool worker);
void viovm_blk_rq_abandon(struct viovm_blk_rq *rq);
int viovm_blk_requests_init(void);
void viovm_blk_requests_exit(void);

/* map.c */
int viovm_blk_map(struct viovm_blk_part *part);
bool viovm_blk_unmap(struct viovm_blk_part *part, bool may_sleep);
int viovm_blk_copy_back(struct viovm_blk_part *part);
int viovm_blk_copy_out(struct viovm_blk_rq *rq, void *to, u32 len);
int viovm_blk_copy_in(struct viovm_blk_rq *rq, const void *from, u32 len);
int viovm_blk_pin_status(struct viovm_blk_rq *rq);
bool viovm_blk_unpin_status(struct viovm_blk_rq *rq, bool may_sleep);
u64 viovm_blk_status_gpa(const struct viovm_blk_rq *rq);

/* tgt.c */
extern const struct iovm_class viovm_tgt_class;
int viovm_tgt_init(void);
void viovm_tgt_exit(void);

/* bdev.c, nbd_path.c */
extern const struct iovm_path_ops viovm_bdev_ops;
extern const struct iovm_path_ops viovm_nbd_ops;

/* nbd: caches and threads shared by all nbd paths. Process context. */
int viovm_nbd_init(void);
void viovm_nbd_exit(void);

#endif /* _VHOST_IOVM_BLK_H */
