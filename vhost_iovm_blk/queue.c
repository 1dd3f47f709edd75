// SPDX-License-Identifier: GPL-2.0
/*
 * A virtqueue's worker: what came back is routed again first, then new requests are fetched as
 * long as there is a route.
 */
#include <linux/blkdev.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "blk.h"

/* Requests fetched in one turn: other queues may share the worker, and ioctls wait for vq->mutex */
#define VIOVM_BLK_QUOTA		64
/* How much of its allowance a device may save up while idle */
#define VIOVM_BLK_BURST_NS	(20 * NSEC_PER_MSEC)

static enum hrtimer_restart viovm_blk_timer(struct hrtimer *timer)
{
	struct viovm_blk_queue *q = container_of(timer, struct viovm_blk_queue, timer);

	viovm_vq_kick(q->vq);
	return HRTIMER_NORESTART;
}

/**
 * viovm_blk_wake_in - have the worker come back after a while
 * @q: queue
 * @ns: nanoseconds; sooner, if it was to come sooner for something else
 *
 * Worker.
 */
void viovm_blk_wake_in(struct viovm_blk_queue *q, u64 ns)
{
	if (hrtimer_is_queued(&q->timer) &&
	    ktime_to_ns(hrtimer_get_remaining(&q->timer)) <= (s64)ns)
		return;
	hrtimer_start(&q->timer, ns_to_ktime(ns), HRTIMER_MODE_REL);
}

/**
 * viovm_blk_vq_start - class callback: memory that a queue needs before its first request
 * @vq: queue; vq->mutex held
 *
 * The array of requests is made by the first of them.
 * Return: 0 or -ENOMEM.
 */
int viovm_blk_vq_start(struct viovm_vq *vq)
{
	struct viovm_blk_queue *q = kzalloc(sizeof(*q), GFP_KERNEL_ACCOUNT);

	if (!q)
		return -ENOMEM;
	q->vq = vq;
	q->blk = vq->dev->node->priv;
	q->write_through = !(vq->dev->acked & BIT_ULL(VIRTIO_BLK_F_FLUSH));
	spin_lock_init(&q->lock);
	INIT_LIST_HEAD(&q->requeued);
	INIT_LIST_HEAD(&q->returned);
	INIT_LIST_HEAD(&q->bigs);
	q->retake_seq = READ_ONCE(q->blk->dev->retake_seq);
	hrtimer_setup(&q->timer, viovm_blk_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL);
	vq->priv = q;
	mutex_lock(&q->blk->queues_lock);
	list_add_tail(&q->node, &q->blk->queues);
	mutex_unlock(&q->blk->queues_lock);
	iovm_fe_begin(q->blk->dev);
	return 0;
}

static size_t viovm_blk_queue_bytes(const struct viovm_blk_queue *q)
{
	return sizeof(*q) + q->nr_rqs * sizeof(*q->rqs) +
	       VIOVM_MAX_CHAIN * (sizeof(*q->segs) + sizeof(*q->table)) +
	       VIOVM_BLK_PART_PAGES * sizeof(*q->pages);
}

static void viovm_blk_queue_free(struct viovm_blk_queue *q)
{
	u32 i;

	if (q->rqs)
		atomic64_sub(viovm_blk_queue_bytes(q), &q->blk->mem_bytes);
	for (i = 0; i < q->nr_rqs; i++) {
		if (q->rqs[i]) {
			atomic64_sub(sizeof(*q->rqs[i]), &q->blk->mem_bytes);
			viovm_blk_rq_free(q->rqs[i]);
		}
	}
	kvfree(q->rqs);
	kvfree(q->segs);
	kvfree(q->table);
	kfree(q->pages);
	kfree(q);
}

/* Worker, before the first request */
static int viovm_blk_queue_alloc(struct viovm_blk_queue *q)
{
	struct viovm_blk_rq **rqs;

	if (!q->segs)
		q->segs = kvmalloc_array(VIOVM_MAX_CHAIN, sizeof(*q->segs),
					 GFP_KERNEL_ACCOUNT);
	if (!q->table)
		q->table = kvmalloc_array(VIOVM_MAX_CHAIN, sizeof(*q->table),
					  GFP_KERNEL_ACCOUNT);
	if (!q->pages)
		q->pages = kmalloc_array(VIOVM_BLK_PART_PAGES, sizeof(*q->pages),
					 GFP_KERNEL_ACCOUNT);
	if (!q->segs || !q->table || !q->pages)
		return -ENOMEM;
	rqs = kvcalloc(q->vq->num, sizeof(*rqs), GFP_KERNEL_ACCOUNT);
	if (!rqs)
		return -ENOMEM;
	q->nr_rqs = q->vq->num;
	/* viovm_blk_oldest() reads both */
	smp_store_release(&q->rqs, rqs);
	atomic64_add(viovm_blk_queue_bytes(q), &q->blk->mem_bytes);
	return 0;
}

/**
 * viovm_blk_vq_stop - class callback: free a queue; nothing is in flight and no worker comes
 * @vq: queue
 */
void viovm_blk_vq_stop(struct viovm_vq *vq)
{
	struct viovm_blk_queue *q = vq->priv;
	struct iovm_dev *dev = q->blk->dev;

	hrtimer_cancel(&q->timer);
	mutex_lock(&q->blk->queues_lock);
	list_del(&q->node);
	mutex_unlock(&q->blk->queues_lock);
	vq->priv = NULL;
	viovm_blk_queue_free(q);
	iovm_fe_end(dev);
}

/**
 * viovm_blk_wait - a part waits for a route or for memory
 * @part: neither mapped nor routed
 *
 * Worker.
 */
void viovm_blk_wait(struct viovm_blk_part *part)
{
	struct viovm_blk_queue *q = part->rq->queue;

	spin_lock_irq(&q->lock);
	list_add_tail(&part->io.req.node, &q->requeued);
	spin_unlock_irq(&q->lock);
}

/**
 * viovm_blk_stall - a request waits until more of its parts can be made
 * @rq: not all of them were made
 *
 * Worker.
 */
void viovm_blk_stall(struct viovm_blk_rq *rq)
{
	struct viovm_blk_queue *q = rq->queue;

	rq->next_stalled = q->stalled;
	q->stalled = rq;
}

/* The next one that waits so, which does not any more; or NULL. */
static struct viovm_blk_rq *viovm_blk_unstall(struct viovm_blk_queue *q)
{
	struct viovm_blk_rq *rq = q->stalled;

	if (rq)
		q->stalled = rq->next_stalled;
	return rq;
}

/* Unmap and end where one may sleep */
static void viovm_blk_end_work(struct work_struct *work)
{
	struct viovm_blk_part *part = container_of(work, struct viovm_blk_part, io.work);

	viovm_blk_unmap(part, true);
	viovm_blk_part_end(part, part->error, false);
}

/* Let go of a dead front end's part. Any context. */
static void viovm_blk_drop(struct viovm_blk_part *part)
{
	part->error = -EIO;
	if (viovm_blk_unmap(part, false)) {
		viovm_blk_part_end(part, -EIO, false);
		return;
	}
	INIT_WORK(&part->io.work, viovm_blk_end_work);
	queue_work(viovm_blk_wq, &part->io.work);
}

/* Give a part to the worker, or drop it when the front end is dead. Any context. */
static void viovm_blk_to_worker(struct viovm_blk_part *part, struct list_head *list)
{
	struct viovm_blk_queue *q = part->rq->queue;
	unsigned long flags;
	bool dead;

	/*
	 * viovm_blk_vq_drop() empties the lists after dead was set: what is not dead here is
	 * found there
	 */
	spin_lock_irqsave(&q->lock, flags);
	dead = viovm_vq_dead(q->vq);
	if (!dead) {
		list_add_tail(&part->io.req.node, list);
		/*
		 * inside the lock: the queue cannot be stopped while a request is in flight, but
		 * it may end right after
		 */
		viovm_vq_kick(q->vq);
	}
	spin_unlock_irqrestore(&q->lock, flags);
	if (dead) {
		if (list == &q->requeued)
			iovm_req_drop(&part->io.req);
		viovm_blk_drop(part);
	}
}

/**
 * viovm_blk_return - have the worker end a part
 * @part: with the result in @part->error, mapped or not
 *
 * Any context.
 */
void viovm_blk_return(struct viovm_blk_part *part)
{
	viovm_blk_to_worker(part, &part->rq->queue->returned);
}

/* A part is back. True: its request was taken back meanwhile, and goes on without it. */
static bool viovm_blk_back(struct viovm_blk_part *part)
{
	/* viovm_blk_oldest() reads it */
	WRITE_ONCE(part->io.req.issue_ns, 0);
	return atomic_dec_return(&part->rq->issued) & VIOVM_BLK_TAKEN;
}

/**
 * viovm_blk_complete - class callback: a part has ended
 * @req: the part's
 * @error: 0 or a negative errno for the guest
 *
 * Any context, hard irq too. The common case ends the request here, without the worker.
 */
void viovm_blk_complete(struct iovm_req *req, int error)
{
	struct viovm_blk_part *part = viovm_blk_part(req);

	if (unlikely(viovm_blk_back(part))) {
		viovm_blk_throw_away(part);
		return;
	}
	part->error = error;
	if (unlikely(part->bounce && req->op == IOVM_OP_READ && !error)) {
		viovm_blk_return(part);
		return;
	}
	if (likely(viovm_blk_unmap(part, false))) {
		viovm_blk_part_end(part, error, false);
		return;
	}
	INIT_WORK(&part->io.work, viovm_blk_end_work);
	queue_work(viovm_blk_wq, &part->io.work);
}

/**
 * viovm_blk_requeue - class callback: a part came back from a path
 * @req: the part's
 *
 * Any context, hard irq too.
 */
void viovm_blk_requeue(struct iovm_req *req)
{
	struct viovm_blk_part *part = viovm_blk_part(req);

	if (unlikely(viovm_blk_back(part))) {
		iovm_req_drop(req);
		viovm_blk_throw_away(part);
		return;
	}
	viovm_blk_to_worker(part, &part->rq->queue->requeued);
}

/* What waited. Worker. Return: 0, or -EINTR the owner is dying. */
static int viovm_blk_run_lists(struct viovm_blk_queue *q)
{
	struct viovm_blk_part *part, *next;
	LIST_HEAD(requeued);
	LIST_HEAD(returned);
	int err = 0;

	spin_lock_irq(&q->lock);
	list_splice_init(&q->returned, &returned);
	list_splice_init(&q->requeued, &requeued);
	/* those that a hung path has given back count again */
	list_for_each_entry(part, &requeued, io.req.node) {
		q->nr_big += part->big && !part->counted;
		part->counted = part->big;
	}
	spin_unlock_irq(&q->lock);

	list_for_each_entry_safe(part, next, &returned, io.req.node) {
		int error = viovm_blk_copy_back(part);

		list_del_init(&part->io.req.node);
		/* that is the owner's end and not the request's: it waits to be dropped */
		if (error && fatal_signal_pending(current)) {
			err = -EINTR;
			viovm_blk_return(part);
			continue;
		}
		viovm_blk_unmap(part, true);
		viovm_blk_part_end(part, error ? -EIO : part->error, true);
	}
	list_for_each_entry_safe(part, next, &requeued, io.req.node) {
		list_del_init(&part->io.req.node);
		viovm_blk_unmap(part, true);
		if (err)
			viovm_blk_wait(part);
		else
			err = viovm_blk_part_issue(part);
	}
	return err;
}

/* Is the device over a limit? Then have the worker come back when it is not. */
static bool viovm_blk_throttled(struct viovm_blk_queue *q)
{
	struct iovm_dev *dev = q->blk->dev;
	u64 now, next = 0;

	if (likely(!READ_ONCE(dev->iops) && !READ_ONCE(dev->bps)))
		return false;
	if (READ_ONCE(dev->iops))
		next = atomic64_read(&q->blk->next_io_ns);
	if (READ_ONCE(dev->bps))
		next = max_t(u64, next, atomic64_read(&q->blk->next_byte_ns));
	now = ktime_get_ns();
	if (next <= now)
		return false;
	this_cpu_inc(dev->pcpu->throttled);
	viovm_blk_wake_in(q, next - now);
	return true;
}

static void viovm_blk_charge_one(atomic64_t *next_ns, u64 now, u64 cost)
{
	s64 old = atomic64_read(next_ns);
	u64 base;

	do {
		base = max_t(u64, old, now - VIOVM_BLK_BURST_NS);
	} while (!atomic64_try_cmpxchg(next_ns, &old, base + cost));
}

static void viovm_blk_charge(struct viovm_blk_queue *q, u32 bytes)
{
	u64 iops = READ_ONCE(q->blk->dev->iops);
	u64 bps = READ_ONCE(q->blk->dev->bps);
	u64 now;

	if (likely(!iops && !bps))
		return;
	now = ktime_get_ns();
	if (iops)
		viovm_blk_charge_one(&q->blk->next_io_ns, now, div64_u64(NSEC_PER_SEC, iops));
	if (bps && bytes)
		viovm_blk_charge_one(&q->blk->next_byte_ns, now,
				     div64_u64((u64)bytes * NSEC_PER_SEC, bps));
}

static int viovm_blk_fetch_table(void *ctx, void *to, u64 gpa, u32 len)
{
	struct viovm_blk_queue *q = ctx;

	return viovm_copy_from_guest(q->vq, to, gpa, len);
}

/*
 * One request from the ring.
 * Return: 1 taken; 0 the ring is empty; -EAGAIN later, the worker will be woken; -EINTR; anything
 * else breaks the ring.
 */
static int viovm_blk_fetch(struct viovm_blk_queue *q)
{
	struct viovm_vq *vq = q->vq;
	struct viovm_chain chain;
	struct viovm_blk_rq *rq;
	u16 head;
	int err;

	err = viovm_vq_peek(vq, &head);
	if (err <= 0)
		return err;
	if (viovm_blk_throttled(q))
		return -EAGAIN;
	if (unlikely(!q->rqs)) {
		err = viovm_blk_queue_alloc(q);
		if (err)
			goto later;
	}
	rq = q->rqs[head];
	if (unlikely(!rq)) {
		rq = viovm_blk_rq_alloc(q, head);
		if (!rq)
			goto later;
		/* viovm_blk_oldest() finds it complete */
		smp_store_release(&q->rqs[head], rq);
	}
	/* pairs with the release in viovm_blk_rq_finish() */
	if (smp_load_acquire(&rq->active))
		return -EEXIST;
	chain.segs = q->segs;
	chain.max = VIOVM_MAX_CHAIN;
	chain.table = q->table;
	chain.fetch = viovm_blk_fetch_table;
	chain.ctx = q;
	err = viovm_ring_walk(&vq->ring, head, &chain);
	if (!err)
		err = viovm_blk_rq_parse(rq, &chain);
	if (err == -ENOMEM)
		goto later;
	if (err)
		return fatal_signal_pending(current) ? -EINTR : err;

	WRITE_ONCE(rq->active, true);
	viovm_vq_take(vq, head);
	viovm_blk_charge(q, rq->data_len);
	err = viovm_blk_rq_go(rq);
	if (err && !rq->made_all) {
		viovm_blk_stall(rq);
		return err;
	}
	return err ?: 1;

later:
	viovm_blk_wake_in(q, 10 * NSEC_PER_MSEC);
	return -EAGAIN;
}

/*
 * Does it make sense to take a request? One that a predecessor had taken already, always: without a
 * route it waits as what was requeued does, and ends when the operator fails what is parked.
 */
static bool viovm_blk_may_fetch(struct viovm_blk_queue *q)
{
	return viovm_vq_may_fetch(q->vq) &&
	       (q->vq->nr_resubmit || iovm_dev_may_fetch(q->blk->dev));
}

/*
 * Fetch until the ring is empty, the quota is used up or something is short. True: come again at
 * once.
 */
static bool viovm_blk_fetch_all(struct viovm_blk_queue *q, struct blk_plug *plug)
{
	struct viovm_vq *vq = q->vq;
	int quota = VIOVM_BLK_QUOTA;
	int err;

	while (viovm_blk_may_fetch(q)) {
		if (!quota--)
			return true;
		err = viovm_blk_fetch(q);
		if (err > 0) {
			/* a lone request gains nothing from a plug */
			if (!current->plug && viovm_ring_known(&vq->ring) > 1)
				blk_start_plug(plug);
			continue;
		}
		if (!err) {
			/* empty: ask for a kick, unless something came meanwhile */
			if (!viovm_vq_kick_on(vq))
				return false;
			viovm_vq_kick_off(vq);
			continue;
		}
		if (err != -EAGAIN && err != -EINTR)
			viovm_vq_break(vq, err);
		return false;
	}
	/* no route, or stopping: route_changed() or the next start brings the worker back */
	return false;
}

/**
 * viovm_blk_vq_run - class callback: serve a queue
 * @vq: running; vq->mutex held
 *
 * Worker. Return: true when there is more to do at once.
 */
bool viovm_blk_vq_run(struct viovm_vq *vq)
{
	struct viovm_blk_queue *q = vq->priv;
	struct viovm_blk_rq *rq;
	struct blk_plug plug;
	bool again = false;
	int err = 0;

	q->issued_in_turn = 0;
	if (unlikely(READ_ONCE(q->blk->dev->retake_seq) != q->retake_seq))
		err = viovm_blk_retake(q);
	/* whoever adds to them kicks behind it */
	if (!err && (!list_empty(&q->requeued) || !list_empty(&q->returned))) {
		blk_start_plug(&plug);
		err = viovm_blk_run_lists(q);
	}
	/* out of the list first: with all parts made, the request may end in the call */
	while (!err && (rq = viovm_blk_unstall(q))) {
		err = viovm_blk_rq_go(rq);
		if (err && !rq->made_all)
			viovm_blk_stall(rq);
	}
	if (!err)
		again = viovm_blk_fetch_all(q, &plug);
	if (current->plug)
		blk_finish_plug(&plug);
	return again;
}

/**
 * viovm_blk_vq_drop - class callback: the owner is dead: end what waits, without the guest
 * @vq: dead; vq->mutex held; the worker is gone
 *
 * Process context; called again while requests are still at a path.
 */
void viovm_blk_vq_drop(struct viovm_vq *vq)
{
	struct viovm_blk_queue *q = vq->priv;
	struct viovm_blk_part *part, *next;
	struct viovm_blk_rq *rq;
	LIST_HEAD(list);

	spin_lock_irq(&q->lock);
	list_splice_init(&q->requeued, &list);
	list_splice_tail_init(&q->returned, &list);
	spin_unlock_irq(&q->lock);
	list_for_each_entry_safe(part, next, &list, io.req.node) {
		list_del_init(&part->io.req.node);
		iovm_req_drop(&part->io.req);
		viovm_blk_drop(part);
	}
	while ((rq = viovm_blk_unstall(q)))
		viovm_blk_rq_abandon(rq);
	/* a write that may still land keeps the successor away, who would issue it again */
	iovm_dev_cancel(q->blk->dev, !vq->inflight.record || READ_ONCE(vq->dev->abort));
}
