// SPDX-License-Identifier: GPL-2.0
/*
 * Requests taken back from a path that hangs.
 *
 * No bio can be cancelled. What may go elsewhere although its path still has it
 * (iovm_req_may_retake()) is made anew: the head gets another struct viovm_blk_rq, which starts
 * from the beginning, and the old one, with its parts, their bios and pages, is left to the path.
 * Whoever ends a part of it finds VIOVM_BLK_TAKEN and throws it away, without a look at the queue,
 * which may be gone by then.
 *
 * A request is taken as a whole, and only while all its parts that have not ended are at a back
 * end: rq->issued counts those, rq->parts all; VIOVM_BLK_TAKEN is set by a compare-and-exchange on
 * the former. So whoever is past the decrement of rq->issued keeps the request from being taken.
 */
#include <linux/slab.h>

#include "blk.h"

static u64 viovm_older(u64 a, u64 b)
{
	if (!a || !b)
		return a ?: b;
	return min(a, b);
}

/*
 * When was a part given to @path? 0: it was not; counted in *@writes if it modifies. May be asked
 * about a part that just ends.
 */
static u64 viovm_blk_part_since(const struct viovm_blk_part *part, const struct iovm_path *path,
				u32 *writes)
{
	u64 since = READ_ONCE(part->io.req.issue_ns);

	/* one that has ended still names its path */
	if (!since || READ_ONCE(part->io.req.path) != path)
		return 0;
	*writes += iovm_op_modifies(READ_ONCE(part->io.req.op));
	return since;
}

static u64 viovm_blk_queue_oldest(struct viovm_blk_queue *q, const struct iovm_path *path,
				  u32 *writes)
{
	/* pairs with viovm_blk_queue_alloc(): nr_rqs is set before */
	struct viovm_blk_rq **rqs = smp_load_acquire(&q->rqs);
	const struct viovm_blk_part *part;
	u64 oldest = 0;
	u32 i;

	if (!rqs)
		return 0;
	/* requests that are taken back meanwhile */
	rcu_read_lock();
	for (i = 0; i < q->nr_rqs; i++) {
		const struct viovm_blk_rq *rq = READ_ONCE(rqs[i]);

		if (rq && READ_ONCE(rq->active) && READ_ONCE(rq->part_used))
			oldest = viovm_older(oldest, viovm_blk_part_since(&rq->part, path, writes));
	}
	rcu_read_unlock();

	spin_lock_irq(&q->lock);
	list_for_each_entry(part, &q->bigs, big_node)
		oldest = viovm_older(oldest, viovm_blk_part_since(part, path, writes));
	spin_unlock_irq(&q->lock);
	return oldest;
}

/**
 * viovm_blk_oldest - class callback: since when has a path had its oldest request?
 * @dev: device
 * @path: to compare with
 * @writes: how many requests that modify it has; may be NULL
 *
 * Process context. Requests that were taken back do not count.
 */
u64 viovm_blk_oldest(struct iovm_dev *dev, const struct iovm_path *path, u32 *writes)
{
	struct viovm_blk *blk = dev->fe;
	struct viovm_blk_queue *q;
	u64 oldest = 0;
	u32 n = 0;

	mutex_lock(&blk->queues_lock);
	list_for_each_entry(q, &blk->queues, node)
		oldest = viovm_older(oldest, viovm_blk_queue_oldest(q, path, &n));
	mutex_unlock(&blk->queues_lock);
	if (writes)
		*writes = n;
	return oldest;
}

static void viovm_blk_discard_work(struct work_struct *work)
{
	struct viovm_blk_rq *rq = container_of(work, struct viovm_blk_rq, part.io.work);

	viovm_blk_unpin_status(rq, true);
	viovm_blk_rq_free_rcu(rq);
}

/* A part that is not mapped any more, of a request that was taken back. Any context. */
static void viovm_blk_thrown(struct viovm_blk_part *part)
{
	struct viovm_blk_rq *rq = part->rq;

	if (part->big)
		viovm_blk_part_free(part);
	if (!atomic_dec_and_test(&rq->parts))
		return;
	if (viovm_blk_unpin_status(rq, false)) {
		viovm_blk_rq_free_rcu(rq);
		return;
	}
	INIT_WORK(&rq->part.io.work, viovm_blk_discard_work);
	queue_work(viovm_blk_wq, &rq->part.io.work);
}

static void viovm_blk_throw_work(struct work_struct *work)
{
	struct viovm_blk_part *part = container_of(work, struct viovm_blk_part, io.work);

	viovm_blk_unmap(part, true);
	viovm_blk_thrown(part);
}

/**
 * viovm_blk_throw_away - a part came back whose request was taken back before
 * @part: not to be touched afterwards
 *
 * Any context.
 */
void viovm_blk_throw_away(struct viovm_blk_part *part)
{
	if (viovm_blk_unmap(part, false)) {
		viovm_blk_thrown(part);
		return;
	}
	INIT_WORK(&part->io.work, viovm_blk_throw_work);
	queue_work(viovm_blk_wq, &part->io.work);
}

/*
 * May all @issued parts of a request go elsewhere? Collects the allocated ones. q->lock held.
 * Return: when the oldest was issued; 0 they may not.
 */
static u64 viovm_blk_parts_may(struct viovm_blk_rq *rq, int issued, struct list_head *bigs)
{
	struct viovm_blk_queue *q = rq->queue;
	struct viovm_blk_part *part, *next;
	u64 oldest = 0;

	lockdep_assert_held(&q->lock);
	list_for_each_entry_safe(part, next, &q->bigs, big_node) {
		if (part->rq != rq)
			continue;
		if (!iovm_req_may_retake(&part->io.req, part->bounce))
			return 0;
		oldest = viovm_older(oldest, READ_ONCE(part->io.req.issue_ns));
		list_move_tail(&part->big_node, bigs);
		issued--;
	}
	/* what is left can only be the inline one */
	if (issued > 1 || issued < 0)
		return 0;
	if (issued) {
		if (!rq->part_used || !iovm_req_may_retake(&rq->part.io.req, rq->part.bounce))
			return 0;
		oldest = viovm_older(oldest, READ_ONCE(rq->part.io.req.issue_ns));
	}
	return oldest;
}

/* Leave @rq to its path, if that is possible now. Worker. */
static bool viovm_blk_rq_take(struct viovm_blk_rq *rq, u64 *oldest)
{
	struct viovm_blk_queue *q = rq->queue;
	const struct viovm_blk_part *part;
	LIST_HEAD(bigs);
	bool taken = false;
	u32 nr_big = 0;
	int issued;

	spin_lock_irq(&q->lock);
	/*
	 * Here, not before: a path goes a grace period after its last request was counted off, so
	 * that those of the parts that are at one now stay to the end of this section.
	 */
	issued = atomic_read(&rq->issued);
	if (!issued || !rq->made_all || atomic_read(&rq->parts) != issued)
		goto out;
	*oldest = viovm_blk_parts_may(rq, issued, &bigs);
	list_for_each_entry(part, &bigs, big_node)
		nr_big += part->counted;
	if (*oldest)
		taken = atomic_cmpxchg(&rq->issued, issued, issued | VIOVM_BLK_TAKEN) == issued;
	if (taken)
		/* from here on they end without this lock, and are not to be touched */
		q->nr_big -= nr_big;
	else
		list_splice(&bigs, &q->bigs);
out:
	spin_unlock_irq(&q->lock);
	return taken;
}

/* The same request, as far as it is known from the ring. */
static void viovm_blk_rq_copy(struct viovm_blk_rq *to, const struct viovm_blk_rq *from)
{
	to->op = from->op;
	to->req_flags = from->req_flags;
	to->nr_segs = from->nr_segs;
	to->nr_out = from->nr_out;
	to->first = from->first;
	to->first_off = from->first_off;
	to->data_len = from->data_len;
	to->offset = from->offset;
	to->segs = from->segs;
	if (from->segs == from->inline_segs) {
		memcpy(to->inline_segs, from->inline_segs, sizeof(to->inline_segs));
		to->segs = to->inline_segs;
	}
}

/* Parts that a hung path keeps are not those that others wait for. Worker. */
static void viovm_blk_uncount(struct viovm_blk_queue *q)
{
	struct viovm_blk_part *part;

	/* as in viovm_blk_rq_take(): the path of a part that has not come back here stays */
	spin_lock_irq(&q->lock);
	list_for_each_entry(part, &q->bigs, big_node) {
		if (part->counted && READ_ONCE(part->io.req.issue_ns) &&
		    iovm_req_hangs(&part->io.req)) {
			part->counted = false;
			q->nr_big--;
		}
	}
	spin_unlock_irq(&q->lock);
}

/**
 * viovm_blk_retake - take back what may go elsewhere
 * @q: queue
 *
 * Worker, vq->mutex held.
 * Return: 0; -EINTR the owner is dying.
 */
int viovm_blk_retake(struct viovm_blk_queue *q)
{
	struct iovm_dev *dev = q->blk->dev;
	u32 seq = READ_ONCE(dev->retake_seq);
	u32 i;

	viovm_blk_uncount(q);
	for (i = 0; i < q->nr_rqs; i++) {
		struct viovm_blk_rq *rq = q->rqs[i], *new;
		u64 oldest;
		int err;

		if (!rq || !READ_ONCE(rq->active) || !atomic_read(&rq->issued))
			continue;
		new = viovm_blk_rq_alloc(q, rq->head);
		if (!new) {
			viovm_blk_wake_in(q, 10 * NSEC_PER_MSEC);
			return 0;
		}
		viovm_blk_rq_copy(new, rq);
		if (!viovm_blk_rq_take(rq, &oldest)) {
			atomic64_sub(sizeof(*new), &q->blk->mem_bytes);
			viovm_blk_rq_free(new);
			continue;
		}
		/* rq may be gone */
		atomic64_sub(sizeof(*new), &q->blk->mem_bytes);
		viovm_blk_rq_restart(new);
		new->error_ns = oldest;
		new->active = true;
		/* viovm_blk_oldest() finds it complete */
		smp_store_release(&q->rqs[i], new);
		atomic64_inc(&dev->retakes);
		err = viovm_blk_rq_go(new);
		if (err && !new->made_all)
			viovm_blk_stall(new);
		if (err == -EINTR)
			return err;
	}
	q->retake_seq = seq;
	return 0;
}
