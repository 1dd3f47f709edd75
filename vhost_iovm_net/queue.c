// SPDX-License-Identifier: GPL-2.0
/*
 * What the two queues have in common: memory, descriptors, heads given back, polling.
 */
#include <linux/sched/clock.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "net.h"

/**
 * viovm_net_vq_start - class callback: a queue gets its socket
 * @vq: queue; dev->mutex and vq->mutex held
 *
 * Return: 0, -ENOMEM, or an errno of viovm_net_attach(); the socket is taken over only on 0.
 */
int viovm_net_vq_start(struct viovm_vq *vq)
{
	struct viovm_net_queue *q = viovm_net_queue(vq);
	int err;

	q->b = kvmalloc(sizeof(*q->b), GFP_KERNEL_ACCOUNT);
	if (!q->b)
		return -ENOMEM;
	q->nr_used = 0;
	q->nr_xdp = 0;
	q->frame = 0;
	q->nr_frames = 0;
	err = viovm_net_attach(q, q->next, q->next_tap);
	if (err) {
		kvfree(q->b);
		q->b = NULL;
	}
	return err;
}

/**
 * viovm_net_vq_stop - class callback: the queue has stopped, no worker comes
 * @vq: queue
 */
void viovm_net_vq_stop(struct viovm_vq *vq)
{
	struct viovm_net_queue *q = viovm_net_queue(vq);

	viovm_net_rx_return(q);
	viovm_net_detach(q);
	page_frag_cache_drain(&q->frags);
	kvfree(q->b);
	q->b = NULL;
}

/**
 * viovm_net_vq_drop - class callback: the owner is dead
 * @vq: queue
 *
 * The worker has ended its last turn, and with it everything it had taken.
 */
void viovm_net_vq_drop(struct viovm_vq *vq)
{
}

static int viovm_net_fetch_table(void *ctx, void *to, u64 gpa, u32 len)
{
	struct viovm_net_queue *q = ctx;

	return viovm_copy_from_guest(q->vq, to, gpa, len);
}

/**
 * viovm_net_walk - copy a chain into a queue's segments
 * @q: queue; vq->mutex held, from the worker
 * @head: of the chain
 * @from: how many segments there are already
 * @chain: out: nr and nr_out of this chain alone
 *
 * Return: as viovm_ring_walk().
 */
int viovm_net_walk(struct viovm_net_queue *q, u16 head, u32 from, struct viovm_chain *chain)
{
	chain->segs = q->b->segs + from;
	chain->max = VIOVM_MAX_CHAIN - from;
	chain->table = q->b->table;
	chain->fetch = viovm_net_fetch_table;
	chain->ctx = q;
	return viovm_ring_walk(&q->vq->ring, head, chain);
}

/**
 * viovm_net_map - where a queue's segments are in the owner's address space: fill its iov
 * @q: queue; vq->mutex held, from the worker
 * @nr: segments
 * @len: bytes wanted of them, or more than they have
 *
 * Return: entries; -EFAULT not guest memory; -ENOBUFS in too many pieces.
 */
int viovm_net_map(struct viovm_net_queue *q, u32 nr, u64 len)
{
	struct iovec *iov = q->b->iov;
	u32 i, n = 0;

	for (i = 0; i < nr && len; i++) {
		const struct viovm_seg *s = &q->b->segs[i];
		u64 left = min_t(u64, s->len, len), gpa = s->gpa;

		len -= left;
		while (left) {
			u64 uaddr;
			long part = viovm_translate(q->vq, gpa, left, s->write, &uaddr);

			if (part < 0)
				return part;
			if (n == VIOVM_NET_IOVS)
				return -ENOBUFS;
			iov[n].iov_base = (void __user *)(unsigned long)uaddr;
			iov[n].iov_len = part;
			n++;
			gpa += part;
			left -= part;
		}
	}
	return n;
}

/**
 * viovm_net_done - a head is done; the guest hears of it with others
 * @q: queue; vq->mutex held, from the worker
 * @head: taken from the ring
 * @len: bytes written for the guest
 */
void viovm_net_done(struct viovm_net_queue *q, u16 head, u32 len)
{
	q->b->used[q->nr_used].head = head;
	q->b->used[q->nr_used].len = len;
	q->nr_used++;
}

/**
 * viovm_net_flush_used - tell the guest of the heads that are done
 * @q: queue; vq->mutex held, from the worker
 */
void viovm_net_flush_used(struct viovm_net_queue *q)
{
	viovm_vq_complete_n(q->vq, q->b->used, q->nr_used);
	q->nr_used = 0;
}

/**
 * viovm_net_busy - look for work for as long as the VMM has set, instead of sleeping
 * @q: queue; vq->mutex held, from the worker
 * @ready: is there something to do for it?
 *
 * Return: what @ready said last.
 */
bool viovm_net_busy(struct viovm_net_queue *q, bool (*ready)(struct viovm_net_queue *q))
{
	u32 us = READ_ONCE(q->busy_us);
	bool found = false;
	u64 end;

	if (likely(!us))
		return false;
	preempt_disable();
	end = local_clock() + (u64)us * NSEC_PER_USEC;
	while (!need_resched() && !signal_pending(current) && local_clock() < end) {
		found = ready(q);
		if (found || viovm_worker_wanted(q->vq))
			break;
		cpu_relax();
	}
	preempt_enable();
	return found;
}
