// SPDX-License-Identifier: GPL-2.0
/*
 * A virtqueue's life: start, kick, complete, break, stop, and the end with its owner.
 */
#include <linux/file.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "plant.h"
#include "vhost_iovm.h"

/**
 * viovm_vq_init - prepare a queue of a new front end
 * @dev: front end
 * @vq: zeroed
 * @index: its number
 */
void viovm_vq_init(struct viovm_dev *dev, struct viovm_vq *vq, u32 index)
{
	vq->dev = dev;
	vq->index = index;
	mutex_init(&vq->mutex);
	spin_lock_init(&vq->lock);
	init_waitqueue_head(&vq->drain);
}

/**
 * viovm_vq_kick - have the worker look at a queue
 * @vq: queue
 *
 * Any context, also a wake-up callback; takes no lock. Nothing happens when the queue has no
 * worker (any more).
 */
void viovm_vq_kick(struct viovm_vq *vq)
{
	struct viovm_worker *w;

	/* viovm_worker_drop() and viovm_workers_stop() wait for readers before a worker goes */
	rcu_read_lock();
	w = READ_ONCE(vq->worker);
	if (w)
		viovm_worker_queue(w, vq);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(viovm_vq_kick);

/* In the kick eventfd's wait queue, its lock held, interrupts off */
static int viovm_kick_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct viovm_vq *vq = container_of(wait, struct viovm_vq, kick_wait);

	if (key_to_poll(key) & EPOLLIN)
		viovm_vq_kick(vq);
	return 0;
}

static void viovm_kick_queue_proc(struct file *file, wait_queue_head_t *wqh, poll_table *pt)
{
	struct viovm_vq *vq = container_of(pt, struct viovm_vq, kick_pt);

	vq->kick_wqh = wqh;
	add_wait_queue(wqh, &vq->kick_wait);
}

static void viovm_kick_attach(struct viovm_vq *vq, struct file *kick)
{
	lockdep_assert_held(&vq->dev->mutex);
	vq->kick = kick;
	vq->kick_wqh = NULL;
	init_waitqueue_func_entry(&vq->kick_wait, viovm_kick_wake);
	init_poll_funcptr(&vq->kick_pt, viovm_kick_queue_proc);
	vfs_poll(kick, &vq->kick_pt);
}

static void viovm_kick_detach(struct viovm_vq *vq)
{
	if (!vq->kick)
		return;
	if (vq->kick_wqh)
		remove_wait_queue(vq->kick_wqh, &vq->kick_wait);
	fput(vq->kick);
	vq->kick = NULL;
}

static void viovm_vq_unmap(struct viovm_vq *vq)
{
	viovm_unmap(vq->dev, &vq->desc_map);
	viovm_unmap(vq->dev, &vq->avail_map);
	viovm_unmap(vq->dev, &vq->used_map);
	vq->inflight.record = NULL;
	viovm_unmap(vq->dev, &vq->record_map);
	kvfree(vq->resubmit);
	vq->resubmit = NULL;
	vq->nr_resubmit = 0;
}

/*
 * Take over the in-flight record. dev->mutex held, in the owner's process; the ring is initialised.
 * Return: as viovm_inflight_start(), 0 without a record; -ENOMEM; an errno of viovm_map().
 */
static int viovm_vq_recover(struct viovm_vq *vq)
{
	const struct vhost_iovm_inflight *rec = &vq->record;
	int err;

	lockdep_assert_held(&vq->dev->mutex);
	if (!rec->addr)
		return 0;
	vq->resubmit = kvmalloc_array(vq->num, sizeof(*vq->resubmit), GFP_KERNEL_ACCOUNT);
	if (!vq->resubmit)
		return -ENOMEM;
	err = viovm_map(vq->dev, rec->addr, VHOST_IOVM_INFLIGHT_BYTES(rec->desc_num),
			&vq->record_map);
	if (err)
		return err;
	err = viovm_inflight_start(&vq->inflight, vq->record_map.addr, rec->desc_num, &vq->ring,
				   vq->resubmit, &vq->nr_resubmit);
	if (err)
		pr_debug("%s: queue %u: in-flight record: %d, %u to serve again\n",
			 vq->dev->node->name, vq->index, err, vq->nr_resubmit);
	return err;
}

/* The parts of a ring, pinned and mapped */
struct viovm_ring_maps {
	struct viovm_mapping desc, avail, used;
};

static void viovm_ring_maps_free(struct viovm_dev *dev, struct viovm_ring_maps *m)
{
	viovm_unmap(dev, &m->desc);
	viovm_unmap(dev, &m->avail);
	viovm_unmap(dev, &m->used);
}

/* Return: as viovm_map(). */
static int viovm_ring_map(struct viovm_vq *vq, const struct vhost_vring_addr *a,
			  struct viovm_ring_maps *m)
{
	struct viovm_dev *dev = vq->dev;
	int err;

	memset(m, 0, sizeof(*m));
	err = viovm_map(dev, a->desc_user_addr, viovm_ring_desc_bytes(vq->num), &m->desc);
	if (!err)
		err = viovm_map(dev, a->avail_user_addr, viovm_ring_avail_bytes(vq->num),
				&m->avail);
	if (!err)
		err = viovm_map(dev, a->used_user_addr, viovm_ring_used_bytes(vq->num), &m->used);
	if (err)
		viovm_ring_maps_free(dev, m);
	return err;
}

/* The ring is there from now on. The queue does not run, or vq->mutex and vq->lock are held. */
static void viovm_ring_use(struct viovm_vq *vq, struct viovm_ring_maps *m)
{
	swap(vq->desc_map, m->desc);
	swap(vq->avail_map, m->avail);
	swap(vq->used_map, m->used);
	vq->ring.desc = vq->desc_map.addr;
	vq->ring.avail = vq->avail_map.addr;
	vq->ring.used = vq->used_map.addr;
}

/* Have the guest look at the used ring. */
static void viovm_vq_signal(struct viovm_vq *vq)
{
	struct viovm_call *call;

	rcu_read_lock();
	call = rcu_dereference(vq->call);
	if (call)
		eventfd_signal(call->ctx);
	rcu_read_unlock();
}

/**
 * viovm_vq_set_kick - VHOST_SET_VRING_KICK
 * @vq: queue; dev->mutex held
 * @kick: eventfd's file, taken over; NULL: none
 */
void viovm_vq_set_kick(struct viovm_vq *vq, struct file *kick)
{
	viovm_kick_detach(vq);
	if (!kick)
		return;
	viovm_kick_attach(vq, kick);
	/* requests may have been there before the kick fd was */
	viovm_vq_kick(vq);
}
EXPORT_SYMBOL_GPL(viovm_vq_set_kick);

/**
 * viovm_vq_set_addr - where a queue's ring is, checked, and whether its log wants to be written
 * @vq: queue; dev->mutex held, in the owner's process
 * @addr: place
 *
 * Return: 0; -EFAULT an address is no kernel pointer's width; a running queue's ring is somewhere
 * else: -EBUSY, or with class.live_setup an errno of viovm_map().
 */
int viovm_vq_set_addr(struct viovm_vq *vq, const struct vhost_vring_addr *addr)
{
	bool moved = addr->desc_user_addr != vq->addr.desc_user_addr ||
		     addr->avail_user_addr != vq->addr.avail_user_addr ||
		     addr->used_user_addr != vq->addr.used_user_addr;
	struct viovm_ring_maps maps = {};
	int err;

	lockdep_assert_held(&vq->dev->mutex);
	if ((u64)(unsigned long)addr->desc_user_addr != addr->desc_user_addr ||
	    (u64)(unsigned long)addr->avail_user_addr != addr->avail_user_addr ||
	    (u64)(unsigned long)addr->used_user_addr != addr->used_user_addr)
		return -EFAULT;
	moved = moved && vq->running;
	if (moved) {
		if (!vq->dev->node->class.live_setup)
			return -EBUSY;
		err = viovm_ring_map(vq, addr, &maps);
		if (err)
			return err;
	}
	mutex_lock(&vq->mutex);
	spin_lock_irq(&vq->lock);
	if (moved)
		viovm_ring_use(vq, &maps);
	vq->addr = *addr;
	WRITE_ONCE(vq->log_used, addr->flags & BIT(VHOST_VRING_F_LOG));
	WRITE_ONCE(vq->log_addr, addr->log_guest_addr);
	spin_unlock_irq(&vq->lock);
	mutex_unlock(&vq->mutex);
	viovm_ring_maps_free(vq->dev, &maps);
	return 0;
}
EXPORT_SYMBOL_GPL(viovm_vq_set_addr);

/**
 * viovm_vq_start - pin the ring, make worker and class state, serve
 * @vq: queue, not running; dev->mutex held, in the owner's process
 *
 * Return: 0; -EINVAL num or addresses are not set; an errno of viovm_map(), of the worker, of the
 * class or of viovm_inflight_start().
 */
int viovm_vq_start(struct viovm_vq *vq)
{
	const struct vhost_vring_addr *a = &vq->addr;
	struct viovm_dev *dev = vq->dev;
	struct viovm_ring *r = &vq->ring;
	struct viovm_ring_maps maps;
	int err, record;

	lockdep_assert_held(&dev->mutex);
	if (!vq->num || !a->desc_user_addr || !a->avail_user_addr || !a->used_user_addr)
		return -EINVAL;
	/* nobody migrates this guest */
	if (!rcu_access_pointer(dev->log.map))
		viovm_log_drop_left(dev->node);

	err = viovm_ring_map(vq, a, &maps);
	if (err)
		return err;
	viovm_ring_use(vq, &maps);
	err = viovm_ring_init(r, vq->num, vq->base, dev->acked & BIT_ULL(VIRTIO_RING_F_EVENT_IDX));
	if (err)
		goto unmap;
	record = viovm_vq_recover(vq);
	if (record < 0 && record != -ESTALE) {
		err = record;
		goto unmap;
	}
	err = viovm_worker_get(vq);
	if (err)
		goto unmap;

	mutex_lock(&vq->mutex);
	vq->broken = false;
	vq->stopping = false;
	vq->fetched = 0;
	spin_lock_irq(&vq->lock);
	vq->completed = 0;
	spin_unlock_irq(&vq->lock);
	err = dev->node->class.vq_start(vq);
	if (!err)
		WRITE_ONCE(vq->running, true);
	if (!err && record == -ESTALE)
		viovm_vq_break(vq, record);
	mutex_unlock(&vq->mutex);
	if (err)
		goto drop_worker;
	/* the predecessor may have died between the used ring and the call */
	if (record > 0)
		viovm_vq_signal(vq);
	/* a kick may have come before there was somebody to hear it */
	viovm_vq_kick(vq);
	return 0;

drop_worker:
	viovm_worker_drop(vq);
unmap:
	viovm_vq_unmap(vq);
	return err;
}
EXPORT_SYMBOL_GPL(viovm_vq_start);

static bool viovm_vq_drained(struct viovm_vq *vq)
{
	bool drained;

	/* under the lock, so that the completion that was last has left it */
	spin_lock_irq(&vq->lock);
	drained = vq->completed == READ_ONCE(vq->fetched) &&
		  (!vq->nr_resubmit || READ_ONCE(vq->broken) || vq->dead);
	spin_unlock_irq(&vq->lock);
	return drained;
}

static void viovm_vq_set_stopping(struct viovm_vq *vq, bool stopping)
{
	mutex_lock(&vq->mutex);
	spin_lock_irq(&vq->lock);
	vq->stopping = stopping;
	spin_unlock_irq(&vq->lock);
	mutex_unlock(&vq->mutex);
}

/**
 * viovm_vq_stop - take nothing new, wait for what is in flight, let go of the ring
 * @vq: queue; dev->mutex held
 *
 * vq->base is the next head to serve afterwards.
 * Return: 0; -EINTR when the wait was killed: the queue goes on; -ENODEV the device is being
 * destroyed.
 */
int viovm_vq_stop(struct viovm_vq *vq)
{
	int err;

	lockdep_assert_held(&vq->dev->mutex);
	if (!vq->running)
		return 0;
	viovm_vq_set_stopping(vq, true);
	err = wait_event_killable(vq->drain, viovm_vq_drained(vq) || READ_ONCE(vq->dev->abort));
	if (err || !viovm_vq_drained(vq)) {
		viovm_vq_set_stopping(vq, false);
		viovm_vq_kick(vq);
		return err ? -EINTR : -ENODEV;
	}
	/* with live_setup it is the VMM's to take away */
	if (!vq->dev->node->class.live_setup)
		viovm_kick_detach(vq);
	mutex_lock(&vq->mutex);
	WRITE_ONCE(vq->running, false);
	vq->base = vq->ring.last_avail;
	mutex_unlock(&vq->mutex);
	viovm_worker_drop(vq);
	vq->dev->node->class.vq_stop(vq);
	viovm_vq_unmap(vq);
	return 0;
}
EXPORT_SYMBOL_GPL(viovm_vq_stop);

/**
 * viovm_vq_kill - the owner is gone: no more kicks, nothing more to the guest
 * @vq: queue; dev->mutex held
 */
void viovm_vq_kill(struct viovm_vq *vq)
{
	lockdep_assert_held(&vq->dev->mutex);
	viovm_kick_detach(vq);
	spin_lock_irq(&vq->lock);
	WRITE_ONCE(vq->dead, true);
	spin_unlock_irq(&vq->lock);
}

/**
 * viovm_vq_wait_dead - wait a while for what a dead queue has in flight
 * @vq: queue; dev->mutex held
 * @timeout: jiffies
 *
 * Return: true when nothing is left.
 */
bool viovm_vq_wait_dead(struct viovm_vq *vq, long timeout)
{
	return !vq->running || wait_event_timeout(vq->drain, viovm_vq_drained(vq), timeout);
}

/**
 * viovm_vq_finish - a killed and dropped queue: wait for what is in flight, free
 * @vq: queue; dev->mutex held
 *
 * Process context. Waits as long as the slowest back end: its pages belong to the guest.
 */
void viovm_vq_finish(struct viovm_vq *vq)
{
	const struct viovm_class *class = &vq->dev->node->class;

	lockdep_assert_held(&vq->dev->mutex);
	if (!vq->running)
		return;
	/* the class may get requests back that wait for something else than a device */
	while (!wait_event_timeout(vq->drain, viovm_vq_drained(vq), HZ / 10)) {
		mutex_lock(&vq->mutex);
		class->vq_drop(vq);
		mutex_unlock(&vq->mutex);
	}
	mutex_lock(&vq->mutex);
	WRITE_ONCE(vq->running, false);
	vq->base = vq->ring.last_avail;
	mutex_unlock(&vq->mutex);
	class->vq_stop(vq);
	viovm_vq_unmap(vq);
}

/* vq->lock held: one request less */
static void viovm_vq_count(struct viovm_vq *vq)
{
	lockdep_assert_held(&vq->lock);
	vq->completed++;
	/* inside the lock: who waits frees the queue only after taking it once more */
	if (unlikely(vq->stopping || vq->dead) && vq->completed == READ_ONCE(vq->fetched))
		wake_up(&vq->drain);
}

/**
 * viovm_vq_log - record in the dirty log that guest memory was written
 * @vq: queue
 * @gpa: guest physical address
 * @len: bytes; nothing when 0
 *
 * Any context, after the data was written and before viovm_vq_complete(). Needed only where
 * viovm_vq_logs() says so.
 */
void viovm_vq_log(struct viovm_vq *vq, u64 gpa, u64 len)
{
	struct viovm_log_map *map;

	rcu_read_lock();
	map = rcu_dereference(vq->dev->log.map);
	if (map)
		viovm_log_mark(&vq->dev->log, map, gpa, len);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(viovm_vq_log);

/**
 * viovm_vq_complete - give a request back to the guest
 * @vq: queue
 * @head: its head
 * @written: bytes written for the guest, for the used ring
 *
 * Any context, hard irq too. Data and status were written, and told to viovm_vq_log(), before.
 * Every request counted in vq->fetched ends here or in viovm_vq_drop_one(), once.
 */
void viovm_vq_complete(struct viovm_vq *vq, u16 head, u32 written)
{
	struct viovm_log *log = &vq->dev->log;
	struct viovm_log_map *map;
	struct viovm_call *call;
	bool signal = false;
	unsigned long flags;

	/* spans the signal: SET_VRING_CALL and the end of the front end wait for readers */
	rcu_read_lock();
	spin_lock_irqsave(&vq->lock, flags);
	if (likely(!vq->dead)) {
		if (vq->inflight.record)
			viovm_inflight_push(&vq->inflight, &vq->ring, head, written);
		else
			viovm_ring_push(&vq->ring, head, written);
		if (viovm_planted_nth(VIOVM_PLANT_TWICE, 64))
			viovm_ring_push(&vq->ring, head, written);
		map = rcu_dereference(log->map);
		if (unlikely(map && vq->log_used)) {
			viovm_log_mark(log, map, vq->log_addr + viovm_ring_used_off(&vq->ring),
				       sizeof(struct vring_used_elem));
			viovm_log_mark(log, map, vq->log_addr, sizeof(u16) * 2);
		}
		signal = viovm_ring_should_signal(&vq->ring);
	}
	viovm_vq_count(vq);
	call = rcu_dereference(vq->call);
	spin_unlock_irqrestore(&vq->lock, flags);
	if (signal && call)
		eventfd_signal(call->ctx);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(viovm_vq_complete);

/* Log the used ring's elements from index @first on, and its index. vq->lock held, and RCU. */
static void viovm_vq_log_elems(struct viovm_vq *vq, struct viovm_log_map *map, u16 first, u32 n)
{
	struct viovm_log *log = &vq->dev->log;
	u32 slot = first & (vq->ring.num - 1);
	u32 part = min(n, vq->ring.num - slot);
	const size_t elem = sizeof(struct vring_used_elem), head = sizeof(u16) * 2;

	lockdep_assert_held(&vq->lock);
	viovm_log_mark(log, map, vq->log_addr + head + elem * slot, elem * part);
	viovm_log_mark(log, map, vq->log_addr + head, elem * (n - part));
	viovm_log_mark(log, map, vq->log_addr, head);
}

/* vq->lock held, from the worker: is the guest to be told that its ring is empty? */
static bool viovm_vq_notify_on_empty(const struct viovm_vq *vq)
{
	return (vq->dev->acked & BIT_ULL(VIRTIO_F_NOTIFY_ON_EMPTY)) &&
	       !viovm_ring_known(&vq->ring);
}

/**
 * viovm_vq_complete_n - give several requests back to the guest, with one interrupt at the most
 * @vq: queue without an in-flight record; vq->mutex held, from the worker
 * @used: what, in this order
 * @n: how many; nothing is done when 0
 *
 * As viovm_vq_complete() otherwise.
 */
void viovm_vq_complete_n(struct viovm_vq *vq, const struct viovm_used *used, u32 n)
{
	struct viovm_log_map *map;
	struct viovm_call *call;
	bool signal = false;
	u16 first;

	lockdep_assert_held(&vq->mutex);
	if (!n)
		return;
	rcu_read_lock();
	spin_lock_irq(&vq->lock);
	if (likely(!vq->dead)) {
		first = vq->ring.used_idx;
		viovm_ring_push_n(&vq->ring, used, n);
		map = rcu_dereference(vq->dev->log.map);
		if (unlikely(map && vq->log_used))
			viovm_vq_log_elems(vq, map, first, n);
		signal = viovm_vq_notify_on_empty(vq) || viovm_ring_should_signal(&vq->ring);
	}
	vq->completed += n - 1;
	viovm_vq_count(vq);
	call = rcu_dereference(vq->call);
	spin_unlock_irq(&vq->lock);
	if (signal && call)
		eventfd_signal(call->ctx);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(viovm_vq_complete_n);

/**
 * viovm_vq_drop_one - end a request of a dead front end without telling the guest
 * @vq: queue, dead
 *
 * Any context. Its mark in the in-flight record stays: a successor serves it again.
 */
void viovm_vq_drop_one(struct viovm_vq *vq)
{
	unsigned long flags;

	rcu_read_lock();
	spin_lock_irqsave(&vq->lock, flags);
	WARN_ON_ONCE(!vq->dead);
	viovm_vq_count(vq);
	spin_unlock_irqrestore(&vq->lock, flags);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(viovm_vq_drop_one);

/**
 * viovm_vq_set_call - VHOST_SET_VRING_CALL
 * @vq: queue; dev->mutex held
 * @ctx: eventfd, taken over; NULL for none
 *
 * After return nothing signals the old eventfd: a VMM that masks an interrupt looks at it then.
 * Return: 0 or -ENOMEM.
 */
int viovm_vq_set_call(struct viovm_vq *vq, struct eventfd_ctx *ctx)
{
	struct viovm_call *new = NULL, *old;

	lockdep_assert_held(&vq->dev->mutex);
	if (ctx) {
		new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
		if (!new)
			return -ENOMEM;
		new->ctx = ctx;
	}
	old = rcu_replace_pointer(vq->call, new, lockdep_is_held(&vq->dev->mutex));
	if (old) {
		if (vq->running)
			synchronize_rcu_expedited();
		eventfd_ctx_put(old->ctx);
		kfree(old);
	}
	return 0;
}

/**
 * viovm_vq_break - the guest broke the ring
 * @vq: queue; vq->mutex held, from the worker or before it serves
 * @error: what was wrong, negative errno
 *
 * The queue takes nothing more; what is in flight completes; the err eventfd is signalled. A stop
 * and a start repair it. With class.live_setup the guest may have repaired it at the next kick.
 */
void viovm_vq_break(struct viovm_vq *vq, int error)
{
	lockdep_assert_held(&vq->mutex);
	if (vq->broken)
		return;
	WRITE_ONCE(vq->broken, !vq->dev->node->class.live_setup);
	/* what a predecessor had taken is not served any more */
	wake_up(&vq->drain);
	pr_debug("%s: queue %u is broken at available index %u: %d\n", vq->dev->node->name,
		 vq->index, vq->ring.last_avail, error);
	/* the event first: who is woken by the eventfd finds it */
	if (vq->dev->node->class.vq_broken)
		vq->dev->node->class.vq_broken(vq, error);
	if (vq->err)
		eventfd_signal(vq->err);
}
EXPORT_SYMBOL_GPL(viovm_vq_break);

static void viovm_vq_log_used(struct viovm_vq *vq, size_t off)
{
	struct viovm_log_map *map;

	rcu_read_lock();
	map = rcu_dereference(vq->dev->log.map);
	if (unlikely(map && READ_ONCE(vq->log_used)))
		viovm_log_mark(&vq->dev->log, map, READ_ONCE(vq->log_addr) + off, sizeof(u16));
	rcu_read_unlock();
}

/**
 * viovm_vq_kick_on - ask the guest for a kick at its next request
 * @vq: queue; vq->mutex held, from the worker
 *
 * Return: true when a request has come meanwhile: serve it.
 */
bool viovm_vq_kick_on(struct viovm_vq *vq)
{
	bool more;

	lockdep_assert_held(&vq->mutex);
	more = viovm_ring_kick_on(&vq->ring);
	viovm_vq_log_used(vq, vq->ring.event_idx ? viovm_ring_avail_event_off(&vq->ring) : 0);
	if (!more && !vq->dev->node->class.eager)
		viovm_worker_idle(vq);
	return more;
}
EXPORT_SYMBOL_GPL(viovm_vq_kick_on);

/**
 * viovm_vq_kick_off - tell the guest that kicks are not needed
 * @vq: queue; vq->mutex held, from the worker
 */
void viovm_vq_kick_off(struct viovm_vq *vq)
{
	lockdep_assert_held(&vq->mutex);
	if (vq->ring.event_idx)
		return;
	viovm_ring_kick_off(&vq->ring);
	viovm_vq_log_used(vq, 0);
}
EXPORT_SYMBOL_GPL(viovm_vq_kick_off);
