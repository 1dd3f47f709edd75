// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that need space which a thin-provisioned store has not got: the guest waits, the
 * operator hears of it, and what waits is tried again by and by until there is space.
 *
 * A request is counted in dev->nr_nospc from the first time it finds no space until it ends, and
 * in between it is on dev->nospc, on its way, or held for a path like any other. There are at most
 * as many as the front end has requests: the guest's rings bound them.
 */
#include <linux/jiffies.h>
#include <linux/log2.h>

#include "internal.h"

/* between two tries: doubles from the first to the second, and begins anew when one succeeds */
#define IOVM_NOSPC_MIN_MS	250
#define IOVM_NOSPC_MAX_MS	5000

/* What is left of the time that requests may wait; U64_MAX when that is for ever. dev->lock. */
static u64 iovm_nospc_left_ms(struct iovm_dev *dev)
{
	u64 gone = div_u64(ktime_get_ns() - dev->nospc_ns, NSEC_PER_MSEC);

	lockdep_assert_held(&dev->lock);
	if (!dev->no_space_timeout_ms)
		return U64_MAX;
	return gone < dev->no_space_timeout_ms ? dev->no_space_timeout_ms - gone : 0;
}

/* Has dev->nospc_work come in time for what is in dev->nospc. dev->lock. */
void iovm_nospc_arm(struct iovm_dev *dev)
{
	u64 left = iovm_nospc_left_ms(dev);

	lockdep_assert_held(&dev->lock);
	if (list_empty(&dev->nospc))
		return;
	if (left < jiffies_to_msecs(dev->nospc_wait))
		mod_delayed_work(iovm_wq, &dev->nospc_work, msecs_to_jiffies(left));
	else
		queue_delayed_work(iovm_wq, &dev->nospc_work, dev->nospc_wait);
}

/**
 * iovm_nospc_hold - a request found no space
 * @path: where; dev->lock is held
 * @req: whose back end has ended it; waits from now on
 * @bind: it may go to @path only, since what it wrote there may still land
 */
void iovm_nospc_hold(struct iovm_path *path, struct iovm_req *req, bool bind)
{
	struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->lock);
	if (!(req->flags & IOVM_REQ_NOSPC)) {
		req->flags |= IOVM_REQ_NOSPC;
		if (!dev->nr_nospc++) {
			dev->nospc_ns = ktime_get_ns();
			dev->nospc_wait = msecs_to_jiffies(IOVM_NOSPC_MIN_MS);
		}
		/* one event for the first, and few for many */
		if (is_power_of_2(dev->nr_nospc))
			iovm_event_emit(dev, path, IOVM_EV_NO_SPACE, 0, 0, -ENOSPC, dev->nr_nospc);
	}
	if (bind)
		iovm_req_bind(path, req);
	else
		req->flags &= ~IOVM_REQ_BOUND;
	iovm_req_wait(dev, req);
	list_add_tail(&req->node, &dev->nospc);
	iovm_nospc_arm(dev);
}

/**
 * iovm_nospc_end - a request has ended, perhaps one that found no space
 * @req: not waiting; dev->lock is held
 * @served: without an error
 */
void iovm_nospc_end(struct iovm_req *req, bool served)
{
	struct iovm_dev *dev = req->dev;

	lockdep_assert_held(&dev->lock);
	if (!(req->flags & IOVM_REQ_NOSPC))
		return;
	req->flags &= ~IOVM_REQ_NOSPC;
	if (served)
		dev->nospc_wait = msecs_to_jiffies(IOVM_NOSPC_MIN_MS);
	if (--dev->nr_nospc)
		return;
	if (served)
		iovm_event_emit(dev, NULL, IOVM_EV_SPACE, 0, 0, 0,
				div_u64(ktime_get_ns() - dev->nospc_ns, NSEC_PER_MSEC));
	dev->nospc_ns = 0;
}

/**
 * iovm_nospc_end_all - what waits for space does not any more
 * @dev: whose; dev->lock is held
 * @todo: gets it in todo->complete
 *
 * Return: how many.
 */
u32 iovm_nospc_end_all(struct iovm_dev *dev, struct iovm_todo *todo)
{
	struct iovm_req *req;
	u32 n = 0;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(req, &dev->nospc, node) {
		iovm_req_unbind(dev, req);
		iovm_req_unwait(dev, req);
		iovm_nospc_end(req, false);
		n++;
	}
	list_splice_tail_init(&dev->nospc, &todo->complete);
	return n;
}

/* The operator says that there is space. dev->lock. */
void iovm_nospc_kick(struct iovm_dev *dev)
{
	lockdep_assert_held(&dev->lock);
	if (!list_empty(&dev->nospc))
		mod_delayed_work(iovm_wq, &dev->nospc_work, 0);
}

void iovm_nospc_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, nospc_work);
	struct iovm_todo todo;
	unsigned long flags;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	if (list_empty(&dev->nospc)) {
		/* ended meanwhile */
	} else if (!iovm_nospc_left_ms(dev)) {
		iovm_event_emit(dev, NULL, IOVM_EV_TIMEOUT, 0, 0, -ENOSPC, dev->nr_nospc);
		iovm_nospc_end_all(dev, &todo);
	} else {
		list_splice_init(&dev->nospc, &todo.requeue);
		dev->nospc_wait = min(2 * dev->nospc_wait, msecs_to_jiffies(IOVM_NOSPC_MAX_MS));
	}
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}
