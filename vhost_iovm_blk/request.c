// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio-blk request: header and layout checks, splitting into parts, and its end. Source:
 * virtio 1.2, section 5.2.6.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "blk.h"
#include "direct.h"

static struct kmem_cache *viovm_part_cache;
static struct kmem_cache *viovm_rq_cache;

/*
 * What completions leave for process context. Our own: the last step of a work may be to let the
 * device go, and so the module, and nothing else waits for its end.
 */
struct workqueue_struct *viovm_blk_wq;

/* The most that one request marks in the dirty log with interrupts off */
#define VIOVM_BLK_LOG_BYTES	SZ_16M

/* rq->op of a request that no path sees: the worker has its answer */
#define VIOVM_OP_NONE	IOVM_OP_MAX

/* Every byte of every segment is guest memory? vq->mutex held. */
static int viovm_blk_check_segs(struct viovm_vq *vq, const struct viovm_chain *chain)
{
	u32 i;

	for (i = 0; i < chain->nr; i++) {
		const struct viovm_seg *s = &chain->segs[i];
		u32 done = 0;
		u64 uaddr;

		while (done < s->len) {
			long n = viovm_translate(vq, s->gpa + done, s->len - done, s->write,
						 &uaddr);

			if (n < 0)
				return n;
			done += n;
		}
	}
	return 0;
}

static u64 viovm_segs_bytes(const struct viovm_seg *s, u32 nr)
{
	u64 bytes = 0;

	while (nr--)
		bytes += (s++)->len;
	return bytes;
}

static void viovm_blk_answer(struct viovm_blk_rq *rq, u8 status)
{
	rq->op = VIOVM_OP_NONE;
	rq->status = status;
}

/* [offset, offset + len) on the device, whole blocks? */
static bool viovm_blk_range_ok(const struct viovm_blk *blk, u64 sector, u64 len)
{
	u64 capacity = READ_ONCE(blk->cfg.capacity);
	u64 sectors = len >> SECTOR_SHIFT;

	return !((sector << SECTOR_SHIFT | len) & (blk->cfg.block_size - 1)) &&
	       sectors <= capacity && sector <= capacity - sectors;
}

static void viovm_blk_parse_rw(struct viovm_blk_rq *rq, u64 sector, bool write)
{
	const struct viovm_blk *blk = rq->queue->blk;

	if (!viovm_blk_range_ok(blk, sector, rq->data_len) ||
	    (write && (blk->dev->flags & IOVM_DEV_F_RDONLY)))
		return viovm_blk_answer(rq, VIRTIO_BLK_S_IOERR);
	if (!rq->data_len)
		return viovm_blk_answer(rq, VIRTIO_BLK_S_OK);
	rq->op = write ? IOVM_OP_WRITE : IOVM_OP_READ;
	if (write && rq->queue->write_through)
		rq->req_flags = IOVM_REQ_FUA;
	rq->offset = sector << SECTOR_SHIFT;
}

/* DISCARD and WRITE_ZEROES carry segments; one is offered, as in QEMU */
static int viovm_blk_parse_dwz(struct viovm_blk_rq *rq, bool discard)
{
	const struct viovm_blk *blk = rq->queue->blk;
	u32 max = discard ? blk->cfg.max_discard_sectors : blk->cfg.max_write_zeroes_sectors;
	struct virtio_blk_discard_write_zeroes seg;
	u32 sectors, flags;
	u64 sector;
	int err;

	if (!max || rq->data_len != sizeof(seg)) {
		viovm_blk_answer(rq, VIRTIO_BLK_S_UNSUPP);
		return 0;
	}
	err = viovm_blk_copy_out(rq, &seg, sizeof(seg));
	if (err)
		return err;
	sector = le64_to_cpu(seg.sector);
	sectors = le32_to_cpu(seg.num_sectors);
	flags = le32_to_cpu(seg.flags);
	if (flags & ~(discard ? 0 : VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)) {
		viovm_blk_answer(rq, VIRTIO_BLK_S_UNSUPP);
		return 0;
	}
	rq->data_len = 0;
	if (sectors > max || !viovm_blk_range_ok(blk, sector, (u64)sectors << SECTOR_SHIFT) ||
	    (blk->dev->flags & IOVM_DEV_F_RDONLY)) {
		viovm_blk_answer(rq, VIRTIO_BLK_S_IOERR);
		return 0;
	}
	if (!sectors) {
		viovm_blk_answer(rq, VIRTIO_BLK_S_OK);
		return 0;
	}
	rq->op = discard ? IOVM_OP_DISCARD : IOVM_OP_WRITE_ZEROES;
	if (!discard && !(flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP))
		rq->req_flags = IOVM_REQ_NOUNMAP;
	if (rq->queue->write_through)
		rq->req_flags |= IOVM_REQ_FUA;
	rq->offset = sector << SECTOR_SHIFT;
	rq->data_len = sectors << SECTOR_SHIFT;
	return 0;
}

static int viovm_blk_parse_id(struct viovm_blk_rq *rq)
{
	if (rq->data_len < VIRTIO_BLK_ID_BYTES) {
		viovm_blk_answer(rq, VIRTIO_BLK_S_IOERR);
		rq->data_len = 0;
		return 0;
	}
	rq->data_len = VIRTIO_BLK_ID_BYTES;
	viovm_blk_answer(rq, VIRTIO_BLK_S_OK);
	return viovm_blk_copy_in(rq, rq->queue->blk->cfg.serial, VIRTIO_BLK_ID_BYTES);
}

static int viovm_blk_parse_header(struct viovm_blk_rq *rq, u64 out_bytes, u64 in_bytes)
{
	struct virtio_blk_outhdr hdr;
	u64 sector;
	int err;
	u32 type;

	rq->first = 0;
	rq->first_off = 0;
	err = viovm_blk_copy_out(rq, &hdr, sizeof(hdr));
	if (err)
		return err;
	type = le32_to_cpu((__force __le32)hdr.type);
	sector = le64_to_cpu((__force __le64)hdr.sector);

	/* data begins behind the header, or with what the device writes */
	rq->first_off = sizeof(hdr);
	rq->data_len = out_bytes - sizeof(hdr);
	if (type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID) {
		rq->first = rq->nr_out;
		rq->first_off = 0;
		rq->data_len = in_bytes - 1;
	}
	/* sectors are at most 2^55, whatever the guest says */
	if (sector >> (64 - SECTOR_SHIFT))
		sector = U64_MAX >> SECTOR_SHIFT;

	switch (type) {
	case VIRTIO_BLK_T_IN:
		viovm_blk_parse_rw(rq, sector, false);
		return 0;
	case VIRTIO_BLK_T_OUT:
		viovm_blk_parse_rw(rq, sector, true);
		return 0;
	case VIRTIO_BLK_T_FLUSH:
		rq->op = IOVM_OP_FLUSH;
		rq->data_len = 0;
		rq->offset = 0;
		return 0;
	case VIRTIO_BLK_T_GET_ID:
		return viovm_blk_parse_id(rq);
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return viovm_blk_parse_dwz(rq, type == VIRTIO_BLK_T_DISCARD);
	}
	viovm_blk_answer(rq, VIRTIO_BLK_S_UNSUPP);
	rq->data_len = 0;
	return 0;
}

/**
 * viovm_blk_rq_alloc - make the request of a head
 * @q: queue
 * @head: its head
 *
 * Worker. Return: NULL when memory is short.
 */
struct viovm_blk_rq *viovm_blk_rq_alloc(struct viovm_blk_queue *q, u16 head)
{
	struct viovm_blk_rq *rq;

	rq = kmem_cache_zalloc(viovm_rq_cache, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!rq)
		return NULL;
	rq->queue = q;
	rq->head = head;
	atomic64_add(sizeof(*rq), &q->blk->mem_bytes);
	return rq;
}

/**
 * viovm_blk_rq_free - the reverse; the caller has taken it out of mem_bytes
 * @rq: not active
 */
void viovm_blk_rq_free(struct viovm_blk_rq *rq)
{
	kmem_cache_free(viovm_rq_cache, rq);
}

static void viovm_blk_rq_free_cb(struct rcu_head *head)
{
	viovm_blk_rq_free(container_of(head, struct viovm_blk_rq, rcu));
}

/**
 * viovm_blk_rq_free_rcu - the same for one that was taken back
 * @rq: all its parts have ended
 *
 * Any context.
 */
void viovm_blk_rq_free_rcu(struct viovm_blk_rq *rq)
{
	call_rcu(&rq->rcu, viovm_blk_rq_free_cb);
}

/**
 * viovm_blk_rq_restart - no part of a request has been made yet
 * @rq: active, or about to be
 */
void viovm_blk_rq_restart(struct viovm_blk_rq *rq)
{
	rq->status = VIRTIO_BLK_S_OK;
	rq->issued_off = 0;
	WRITE_ONCE(rq->part_used, false);
	rq->made_all = false;
	rq->status_page = NULL;
	atomic_set(&rq->parts, 1);
	atomic_set(&rq->issued, 0);
}

/**
 * viovm_blk_rq_parse - take over a chain and understand it
 * @rq: not active
 * @chain: copied descriptors
 *
 * Worker, vq->mutex held.
 * Return: 0; -ENOMEM try again later; -EINVAL no header or no status byte; -EFAULT outside of
 * guest memory. All but -ENOMEM break the ring.
 */
int viovm_blk_rq_parse(struct viovm_blk_rq *rq, const struct viovm_chain *chain)
{
	struct viovm_vq *vq = rq->queue->vq;
	u64 out_bytes = viovm_segs_bytes(chain->segs, chain->nr_out);
	u64 in_bytes = viovm_segs_bytes(chain->segs + chain->nr_out, chain->nr - chain->nr_out);
	int err;

	if (out_bytes < sizeof(struct virtio_blk_outhdr) || !in_bytes)
		return -EINVAL;
	/* one request moves less than 4 GiB */
	if (out_bytes > U32_MAX || in_bytes > U32_MAX)
		return -E2BIG;
	err = viovm_blk_check_segs(vq, chain);
	if (err)
		return err;

	rq->segs = rq->inline_segs;
	if (chain->nr > VIOVM_BLK_INLINE_SEGS) {
		rq->segs = kmalloc_array(chain->nr, sizeof(*rq->segs),
					 GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
		if (!rq->segs)
			return -ENOMEM;
	}
	memcpy(rq->segs, chain->segs, chain->nr * sizeof(*rq->segs));
	rq->nr_segs = chain->nr;
	rq->nr_out = chain->nr_out;
	rq->req_flags = 0;
	rq->error_ns = 0;
	viovm_blk_rq_restart(rq);
	err = viovm_blk_parse_header(rq, out_bytes, in_bytes);
	if (err && rq->segs != rq->inline_segs)
		kfree(rq->segs);
	return err;
}

/* Bytes written for the guest, the status byte included */
static u32 viovm_blk_written(const struct viovm_blk_rq *rq)
{
	bool reads = rq->op == IOVM_OP_READ || (rq->op == VIOVM_OP_NONE && rq->first == rq->nr_out);

	return reads && rq->status == VIRTIO_BLK_S_OK ? rq->data_len + 1 : 1;
}

/* All parts have ended, and only the worker can write the status: its inline part goes there. */
static void viovm_blk_rq_return(struct viovm_blk_rq *rq)
{
	struct viovm_blk_part *part = &rq->part;

	iovm_req_init(&part->io.req, rq->queue->blk->dev, IOVM_OP_FLUSH, 0, 0, 0);
	part->rq = rq;
	part->io.nr_bv = 0;
	part->bounce = false;
	part->big = false;
	part->error = 0;
	atomic_set(&rq->parts, 1);
	viovm_blk_return(part);
}

/* Into the dirty log: after it was written, before the guest is told. */
static void viovm_blk_log(const struct viovm_blk_rq *rq)
{
	/* a read that failed may have written any of it */
	u32 left = rq->op == IOVM_OP_READ ? rq->data_len : viovm_blk_written(rq) - 1, i, n;
	struct viovm_vq *vq = rq->queue->vq;

	for (i = rq->nr_out; left; i++, left -= n) {
		n = min(rq->segs[i].len, left);
		viovm_vq_log(vq, rq->segs[i].gpa, n);
	}
	viovm_vq_log(vq, viovm_blk_status_gpa(rq), 1);
}

static void viovm_blk_finish_work(struct work_struct *work);

/* All parts have ended: the rest where one may sleep, with interrupts on. Any context. */
static void viovm_blk_finish_later(struct viovm_blk_rq *rq)
{
	INIT_WORK(&rq->part.io.work, viovm_blk_finish_work);
	queue_work(viovm_blk_wq, &rq->part.io.work);
}

/*
 * All parts have ended and the status byte can be written. Any context, if not @may_sleep; the
 * worker when nothing is pinned.
 */
static void viovm_blk_rq_finish(struct viovm_blk_rq *rq, bool may_sleep)
{
	struct viovm_vq *vq = rq->queue->vq;
	struct viovm_seg *big = rq->segs != rq->inline_segs ? rq->segs : NULL;
	u32 written = viovm_blk_written(rq);
	bool dead = viovm_vq_dead(vq);
	u8 status = rq->status;

	if (rq->status_page) {
		if (!dead) {
			u8 *kaddr = kmap_local_page(rq->status_page);

			kaddr[rq->status_off] = status;
			kunmap_local(kaddr);
		}
		if (!viovm_blk_unpin_status(rq, may_sleep)) {
			viovm_blk_finish_later(rq);
			return;
		}
	} else if (!dead && viovm_copy_to_guest(vq, viovm_blk_status_gpa(rq), &status, 1)) {
		/* not from rq: its slab has no part that may be copied to user space */
		if (fatal_signal_pending(current)) {
			/* the owner is dying, the guest is not: it waits to be dropped */
			viovm_blk_rq_return(rq);
			return;
		}
		/* the guest took its memory away: it will not look there either */
		written = 0;
	}
	if (dead) {
		kfree(big);
		WRITE_ONCE(rq->active, false);
		viovm_vq_drop_one(vq);
		return;
	}
	if (unlikely(viovm_vq_logs(vq)))
		viovm_blk_log(rq);
	/*
	 * The head may be used again as soon as it is in the used ring. A guest may do so before:
	 * from here on the request is the worker's.
	 */
	smp_store_release(&rq->active, false);
	viovm_vq_complete(vq, rq->head, written);
	kfree(big);
}

static void viovm_blk_finish_work(struct work_struct *work)
{
	/* not by way of part.rq: the request may have used other parts only */
	viovm_blk_rq_finish(container_of(work, struct viovm_blk_rq, part.io.work), true);
}

/* One part less; @worker: called by the queue's worker, vq->mutex held. */
static void viovm_blk_rq_put(struct viovm_blk_rq *rq, bool worker)
{
	const struct viovm_vq *vq = rq->queue->vq;

	if (!atomic_dec_and_test(&rq->parts))
		return;
	/*
	 * The worker lets go of the page when no part is at a back end. One that has come from
	 * there may still be on its way here, while the others wait, and fail.
	 */
	if (unlikely(!rq->status_page && !worker && !viovm_vq_dead(vq)))
		viovm_blk_rq_return(rq);
	/* a million pages of the dirty log take long with interrupts off */
	else if (unlikely(viovm_vq_logs(vq) && rq->op == IOVM_OP_READ &&
			  rq->data_len > VIOVM_BLK_LOG_BYTES && !in_task()))
		viovm_blk_finish_later(rq);
	else
		viovm_blk_rq_finish(rq, false);
}

/**
 * viovm_blk_part_end - a part has its result and is not mapped any more
 * @part: not to be touched afterwards
 * @error: 0 or a negative errno: -EOPNOTSUPP becomes UNSUPP, all else IOERR
 * @worker: called by the queue's worker, vq->mutex held; else any context
 */
void viovm_blk_part_end(struct viovm_blk_part *part, int error, bool worker)
{
	struct viovm_blk_rq *rq = part->rq;
	struct viovm_blk_queue *q = rq->queue;

	if (error)
		WRITE_ONCE(rq->status,
			   error == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
	if (part->big) {
		unsigned long flags;
		bool kick;

		spin_lock_irqsave(&q->lock, flags);
		list_del(&part->big_node);
		q->nr_big -= part->counted;
		kick = q->want_big;
		spin_unlock_irqrestore(&q->lock, flags);
		viovm_blk_part_free(part);
		if (kick)
			viovm_vq_kick(q->vq);
	}
	viovm_blk_rq_put(rq, worker);
}

/**
 * viovm_blk_part_free - give the memory of an allocated part back
 * @part: in no list
 *
 * Any context.
 */
void viovm_blk_part_free(struct viovm_blk_part *part)
{
	kmem_cache_free(viovm_part_cache, part);
}

/*
 * The inline part if the data fits, else an allocated one. NULL: later; the worker will be woken.
 */
static struct viovm_blk_part *viovm_blk_part_get(struct viovm_blk_rq *rq, u32 len)
{
	struct viovm_blk_queue *q = rq->queue;
	struct viovm_blk_part *part;
	bool data = rq->op == IOVM_OP_READ || rq->op == IOVM_OP_WRITE;

	if (!rq->part_used && (!data || len <= (VIOVM_BLK_INLINE_BVECS - 1) * PAGE_SIZE)) {
		WRITE_ONCE(rq->part_used, true);
		part = &rq->part;
		part->io.bv = part->inline_bv;
		part->io.max_bv = VIOVM_BLK_INLINE_BVECS;
		part->big = false;
	} else {
		part = kmem_cache_alloc(viovm_part_cache, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
		if (!part) {
			viovm_blk_wake_in(q, 10 * NSEC_PER_MSEC);
			return NULL;
		}
		part->io.req.issue_ns = 0;
		part->io.req.path = NULL;
		part->rq = rq;
		spin_lock_irq(&q->lock);
		q->want_big = q->nr_big >= VIOVM_BLK_MAX_BIG;
		if (!q->want_big) {
			q->nr_big++;
			part->counted = true;
			list_add_tail(&part->big_node, &q->bigs);
		}
		spin_unlock_irq(&q->lock);
		if (q->want_big) {
			viovm_blk_part_free(part);
			return NULL;
		}
		part->io.bv = (struct bio_vec *)(part + 1);
		part->io.max_bv = VIOVM_BLK_PART_PAGES;
		part->big = true;
	}
	part->rq = rq;
	part->io.nr_bv = 0;
	part->bounce = false;
	part->error = 0;
	return part;
}

/* The time, read once for some requests of a turn. Worker. */
static u64 viovm_blk_now(struct viovm_blk_queue *q)
{
	if (!(q->issued_in_turn++ % VIOVM_BLK_STAMP))
		q->now_ns = ktime_get_ns();
	return q->now_ns;
}

/**
 * viovm_blk_part_issue - route a part, map its data, give it to its path
 * @part: not mapped; not to be touched afterwards
 *
 * Worker, vq->mutex held. What cannot go now waits on the queue's list.
 * Return: 0; -EINTR the owner is dying: the part waits to be dropped.
 */
int viovm_blk_part_issue(struct viovm_blk_part *part)
{
	struct viovm_blk_rq *rq = part->rq;
	int err;

	err = viovm_route(&part->io.req);
	if (err == -EAGAIN) {
		/* what waits holds no page of the guest's */
		if (!atomic_read(&rq->issued))
			viovm_blk_unpin_status(rq, true);
		viovm_blk_wait(part);
		return 0;
	}
	if (err)
		goto fail;
	err = viovm_blk_pin_status(rq);
	if (!err)
		err = viovm_blk_map(part);
	if (!err) {
		atomic_inc(&rq->issued);
		viovm_issue(&part->io.req, viovm_blk_now(rq->queue));
		return 0;
	}
	viovm_unroute(&part->io.req);
	if (err == -ENOMEM || err == -EAGAIN) {
		viovm_blk_wait(part);
		viovm_blk_wake_in(rq->queue, 10 * NSEC_PER_MSEC);
		return 0;
	}
	if (fatal_signal_pending(current)) {
		viovm_blk_wait(part);
		return -EINTR;
	}
fail:
	iovm_req_drop(&part->io.req);
	viovm_blk_part_end(part, -EIO, true);
	return 0;
}

/**
 * viovm_blk_rq_go - make a request's parts and issue them
 * @rq: parsed; continues where it stopped
 *
 * Worker, vq->mutex held.
 * Return: 0 all parts are made; -EAGAIN call again later (the worker will be woken); -EINTR the
 * owner is dying.
 */
int viovm_blk_rq_go(struct viovm_blk_rq *rq)
{
	struct viovm_blk *blk = rq->queue->blk;
	bool data = rq->op == IOVM_OP_READ || rq->op == IOVM_OP_WRITE;
	int err = 0;

	while (!err && !rq->made_all && rq->op != VIOVM_OP_NONE) {
		u32 left = rq->data_len - rq->issued_off;
		u32 len = data ? min_t(u32, left, VIOVM_BLK_PART_BYTES) : left;
		struct viovm_blk_part *part = viovm_blk_part_get(rq, len);

		if (!part)
			return -EAGAIN;
		iovm_req_init(&part->io.req, blk->dev, rq->op, rq->req_flags,
			      rq->offset + rq->issued_off, len);
		part->io.req.error_ns = rq->error_ns;
		part->data_off = rq->issued_off;
		rq->issued_off += len;
		rq->made_all = rq->issued_off == rq->data_len;
		atomic_inc(&rq->parts);
		err = viovm_blk_part_issue(part);
	}
	/* dying in the middle: the bias is dropped with the queue */
	if (err && !rq->made_all && rq->op != VIOVM_OP_NONE)
		return err;
	viovm_blk_rq_put(rq, true);
	return err;
}

/**
 * viovm_blk_rq_abandon - no more parts will be made for a request of a dead front end
 * @rq: with parts left to make
 *
 * Process context.
 */
void viovm_blk_rq_abandon(struct viovm_blk_rq *rq)
{
	viovm_blk_rq_put(rq, false);
}

/**
 * viovm_blk_requests_init - module load
 *
 * Return: 0 or -ENOMEM.
 */
int viovm_blk_requests_init(void)
{
	size_t size = sizeof(struct viovm_blk_part) + VIOVM_BLK_PART_PAGES * sizeof(struct bio_vec);

	viovm_part_cache = kmem_cache_create("viovm_blk_part", size, 0, 0, NULL);
	if (!viovm_part_cache)
		return -ENOMEM;
	viovm_rq_cache = kmem_cache_create("viovm_blk_rq", sizeof(struct viovm_blk_rq), 0, 0, NULL);
	if (!viovm_rq_cache)
		goto destroy_parts;
	viovm_blk_wq = alloc_workqueue("viovm_blk", WQ_HIGHPRI, 0);
	if (!viovm_blk_wq)
		goto destroy_rqs;
	return 0;

destroy_rqs:
	kmem_cache_destroy(viovm_rq_cache);
destroy_parts:
	kmem_cache_destroy(viovm_part_cache);
	return -ENOMEM;
}

/**
 * viovm_blk_requests_exit - module unload
 */
void viovm_blk_requests_exit(void)
{
	destroy_workqueue(viovm_blk_wq);
	/* viovm_blk_rq_free_rcu() */
	rcu_barrier();
	kmem_cache_destroy(viovm_rq_cache);
	kmem_cache_destroy(viovm_part_cache);
}
