// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that serve queues, in the owner's address space and cgroups.
 *
 * A queue that has work is put on its worker's lock-free list; the bit viovm_vq.queued keeps it
 * from being there twice.
 */
#include <linux/delay.h>
#include <linux/sched/vhost_task.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "pace.h"
#include "vhost_iovm.h"

/**
 * struct viovm_worker - a thread
 * @task: the thread
 * @dev: whose
 * @list: queues with work
 * @id: in dev->workers, or VIOVM_WORKER_OWN for a queue's own
 * @users: queues it is attached to or that run on it; dev->mutex
 * @listed: made by VHOST_NEW_WORKER; dev->mutex
 * @pace: how eager it is; the thread's own
 * @killed: the thread has left its loop: its process is being killed
 */
struct viovm_worker {
	struct vhost_task *task;
	struct viovm_dev *dev;
	struct llist_head list;
	u32 id;
	u32 users;
	bool listed;
	struct viovm_pace pace;
	bool killed;
};

#define VIOVM_WORKER_OWN	U32_MAX

/* A queue's turn ends when this says so; what is left is queued again */
static bool viovm_worker_fn(void *data)
{
	struct viovm_worker *w = data;
	struct llist_node *node = llist_del_all(&w->list);
	struct viovm_vq *vq, *next;

	if (!node)
		return false;
	__set_current_state(TASK_RUNNING);
	viovm_pace_begin(&w->pace);
	node = llist_reverse_order(node);
	llist_for_each_entry_safe(vq, next, node, work) {
		bool again = false;

		/* from here on it may be on the list again: its next was read before */
		clear_bit_unlock(0, &vq->queued);
		/* what is queued from here on is seen below or runs again */
		smp_mb__after_atomic();
		mutex_lock(&vq->mutex);
		if (vq->running && READ_ONCE(vq->worker) == w)
			again = vq->dev->node->class.vq_run(vq);
		mutex_unlock(&vq->mutex);
		if (again && !fatal_signal_pending(current))
			viovm_worker_queue(w, vq);
		cond_resched();
	}
	return true;
}

/**
 * viovm_worker_idle - a queue is empty and its guest was asked for a kick
 * @vq: queue; vq->mutex held, from its worker
 */
void viovm_worker_idle(struct viovm_vq *vq)
{
	/* viovm_workers_stop() may take it away any moment, and then waits for this thread */
	struct viovm_worker *w = READ_ONCE(vq->worker);

	if (likely(w))
		viovm_pace_end(&w->pace, vq);
}

/**
 * viovm_worker_wanted - does another queue, or this one again, wait for a queue's worker?
 * @vq: queue; vq->mutex held, from its worker
 */
bool viovm_worker_wanted(const struct viovm_vq *vq)
{
	const struct viovm_worker *w = READ_ONCE(vq->worker);

	return !w || !llist_empty(&w->list);
}
EXPORT_SYMBOL_GPL(viovm_worker_wanted);

/* The owner is being killed: its files' release ends the queues */
static void viovm_worker_killed(void *data)
{
	struct viovm_worker *w = data;

	WRITE_ONCE(w->killed, true);
}

static struct viovm_worker *viovm_worker_create(struct viovm_dev *dev)
{
	struct viovm_worker *w = kzalloc(sizeof(*w), GFP_KERNEL_ACCOUNT);
	char name[TASK_COMM_LEN];

	if (!w)
		return ERR_PTR(-ENOMEM);
	w->dev = dev;
	w->pace.eager_until = jiffies;
	w->id = VIOVM_WORKER_OWN;
	init_llist_head(&w->list);
	snprintf(name, sizeof(name), "iovm-%d", task_tgid_nr(current));
	w->task = vhost_task_create(viovm_worker_fn, viovm_worker_killed, w, name);
	if (IS_ERR_OR_NULL(w->task)) {
		int err = w->task ? PTR_ERR(w->task) : -ENOMEM;

		kfree(w);
		return ERR_PTR(err);
	}
	vhost_task_start(w->task);
	return w;
}

static void viovm_worker_destroy(struct viovm_worker *w)
{
	struct viovm_vq *vq, *next;

	vhost_task_stop(w->task);
	/* a killed thread leaves its list behind */
	llist_for_each_entry_safe(vq, next, llist_del_all(&w->list), work)
		clear_bit(0, &vq->queued);
	kfree(w);
}

/**
 * viovm_worker_queue - have a queue served
 * @w: its worker
 * @vq: queue
 *
 * Any context, also a wake-up callback; takes no lock of ours. The caller knows that @w cannot go
 * away meanwhile.
 */
void viovm_worker_queue(struct viovm_worker *w, struct viovm_vq *vq)
{
	if (test_and_set_bit(0, &vq->queued))
		return;
	llist_add(&vq->work, &w->list);
	vhost_task_wake(w->task);
}

/**
 * viovm_worker_get - give a queue that starts its worker
 * @vq: queue; dev->mutex held, in the owner's process
 *
 * Return: 0, or the errno of a thread that could not be made.
 */
int viovm_worker_get(struct viovm_vq *vq)
{
	struct viovm_worker *w = vq->attached;

	lockdep_assert_held(&vq->dev->mutex);
	if (!w) {
		w = viovm_worker_create(vq->dev);
		if (IS_ERR(w))
			return PTR_ERR(w);
	}
	w->users++;
	/* who finds it, by viovm_node_kick_all() perhaps, finds it complete */
	smp_store_release(&vq->worker, w);
	return 0;
}

/**
 * viovm_worker_drop - a stopped queue gives its worker back
 * @vq: queue; dev->mutex held; not running, nobody queues it any more
 *
 * Process context. Waits until the worker has let go of the queue.
 */
void viovm_worker_drop(struct viovm_vq *vq)
{
	struct viovm_worker *w = vq->worker;

	lockdep_assert_held(&vq->dev->mutex);
	if (!w)
		return;
	WRITE_ONCE(vq->worker, NULL);
	w->users--;
	/* viovm_vq_kick() may have found it just before */
	synchronize_rcu_expedited();
	if (!w->listed) {
		viovm_worker_destroy(w);
		return;
	}
	while (test_bit(0, &vq->queued) && !READ_ONCE(w->killed))
		usleep_range(50, 200);
	/* it may be between the bit and the look at vq->running */
	mutex_lock(&vq->mutex);
	mutex_unlock(&vq->mutex);
}

/**
 * viovm_workers_stop - end all threads of a front end
 * @dev: front end; dev->mutex held; all queues are dead or stopped
 *
 * Process context. Afterwards no vq_run() is or will be running.
 */
void viovm_workers_stop(struct viovm_dev *dev)
{
	struct viovm_worker *w;
	unsigned long id;
	u32 i;

	lockdep_assert_held(&dev->mutex);
	for (i = 0; i < dev->nvqs; i++) {
		struct viovm_vq *vq = &dev->vqs[i];

		vq->attached = NULL;
		w = vq->worker;
		WRITE_ONCE(vq->worker, NULL);
		/* keep own workers reachable until nobody can queue on them any more */
		if (w && !w->listed)
			xa_store(&dev->workers, dev->nvqs + i, w, GFP_KERNEL | __GFP_NOFAIL);
	}
	synchronize_rcu_expedited();
	xa_for_each(&dev->workers, id, w) {
		xa_erase(&dev->workers, id);
		viovm_worker_destroy(w);
	}
}

/* A worker that is there until the front end lets go of it. Return: 0 or a negative errno. */
static int viovm_worker_new(struct viovm_dev *dev, struct viovm_worker **worker)
{
	struct viovm_worker *w = viovm_worker_create(dev);
	int err;

	lockdep_assert_held(&dev->mutex);
	if (IS_ERR(w))
		return PTR_ERR(w);
	w->listed = true;
	err = xa_alloc(&dev->workers, &w->id, w, XA_LIMIT(0, dev->nvqs - 1), GFP_KERNEL);
	if (err)
		viovm_worker_destroy(w);
	*worker = w;
	return err;
}

/**
 * viovm_worker_share - make a worker for all queues of a front end
 * @dev: front end without workers; dev->mutex held, in the owner's process
 *
 * Return: 0, or the errno of a thread that could not be made.
 */
int viovm_worker_share(struct viovm_dev *dev)
{
	struct viovm_worker *w;
	int err = viovm_worker_new(dev, &w);
	u32 i;

	if (err)
		return err;
	for (i = 0; i < dev->nvqs; i++) {
		dev->vqs[i].attached = w;
		w->users++;
	}
	return 0;
}

/**
 * viovm_worker_ioctl - VHOST_NEW_WORKER, VHOST_FREE_WORKER, VHOST_ATTACH_VRING_WORKER,
 * VHOST_GET_VRING_WORKER
 * @dev: front end; dev->mutex held, in the owner's process
 * @cmd: which
 * @argp: the caller's argument
 *
 * Return: 0; -EFAULT; -ENODEV no such worker; -EBUSY in use, or the queue runs; -ENOBUFS no such
 * queue.
 */
int viovm_worker_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp)
{
	struct vhost_vring_worker ring;
	struct vhost_worker_state state;
	struct viovm_worker *w;
	struct viovm_vq *vq;
	int err;

	lockdep_assert_held(&dev->mutex);
	if (cmd == VHOST_NEW_WORKER) {
		err = viovm_worker_new(dev, &w);
		if (err)
			return err;
		state.worker_id = w->id;
		if (copy_to_user(argp, &state, sizeof(state))) {
			xa_erase(&dev->workers, w->id);
			viovm_worker_destroy(w);
			return -EFAULT;
		}
		return 0;
	}
	if (cmd == VHOST_FREE_WORKER) {
		if (copy_from_user(&state, argp, sizeof(state)))
			return -EFAULT;
		w = xa_load(&dev->workers, state.worker_id);
		if (!w)
			return -ENODEV;
		if (w->users)
			return -EBUSY;
		xa_erase(&dev->workers, state.worker_id);
		viovm_worker_destroy(w);
		return 0;
	}

	if (copy_from_user(&ring, argp, sizeof(ring)))
		return -EFAULT;
	if (ring.index >= dev->nvqs)
		return -ENOBUFS;
	vq = &dev->vqs[ring.index];
	if (cmd == VHOST_GET_VRING_WORKER) {
		w = vq->attached ?: vq->worker;
		ring.worker_id = w ? w->id : VIOVM_WORKER_OWN;
		return copy_to_user(argp, &ring, sizeof(ring)) ? -EFAULT : 0;
	}
	w = xa_load(&dev->workers, ring.worker_id);
	if (!w)
		return -ENODEV;
	if (vq->running)
		return -EBUSY;
	if (vq->attached)
		vq->attached->users--;
	vq->attached = w;
	w->users++;
	return 0;
}
