// SPDX-License-Identifier: GPL-2.0
/*
 * The data path when a request came back: what becomes of it, where it waits, who lets it go on.
 *
 *	with the class	requeued, or told -EAGAIN: until route_changed() (IOVM_REQ_COUNTED,
 *			IOVM_REQ_STAMPED)
 *	path->held	a write that may still land on a failed path: until that path is live
 *			again, or its fence is confirmed
 *	dev->retry	ended for want of a resource: some milliseconds
 *	dev->nospc	found no space: see nospace.c
 *
 * A write that was held and goes back to its path stays bound to it (IOVM_REQ_BOUND) to its end,
 * since its first issue may still land whatever becomes of the second. path->nr_bound counts those
 * that wait with the class.
 */
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/module.h>

#include "internal.h"
#include "../vhost_iovm/plant.h"
#include "trace.h"

#define IOVM_RETRY_SHIFT_MAX	5	/* at most 32 jiffies between two tries */

static struct iovm_path *iovm_path_by_id(struct iovm_dev *dev, u32 id)
{
	struct iovm_path *path;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(path, &dev->paths, node)
		if (path->id == id)
			return path;
	return NULL;
}

static bool iovm_req_bound_write(const struct iovm_req *req)
{
	return req->flags & IOVM_REQ_BOUND && iovm_op_modifies(req->op);
}

/* @req waits from now on. dev->lock. */
void iovm_req_wait(struct iovm_dev *dev, struct iovm_req *req)
{
	lockdep_assert_held(&dev->lock);
	req->flags |= IOVM_REQ_REQUEUED | IOVM_REQ_COUNTED | IOVM_REQ_STAMPED;
	req->fail_parked = dev->fail_parked;
	atomic_inc(&dev->nr_requeued);
}

/* @req does not wait any more. */
void iovm_req_unwait(struct iovm_dev *dev, struct iovm_req *req)
{
	if (req->flags & IOVM_REQ_COUNTED)
		atomic_dec(&dev->nr_requeued);
	req->flags &= ~(IOVM_REQ_COUNTED | IOVM_REQ_STAMPED);
}

/* @req may only go to @path again. dev->lock. */
void iovm_req_bind(struct iovm_path *path, struct iovm_req *req)
{
	lockdep_assert_held(&path->dev->lock);
	req->flags |= IOVM_REQ_BOUND;
	req->bound_id = path->id;
	path->nr_bound++;
}

/* @req will not be issued again: its path need not wait for it any more. dev->lock. */
void iovm_req_unbind(struct iovm_dev *dev, struct iovm_req *req)
{
	struct iovm_path *path;

	lockdep_assert_held(&dev->lock);
	if (iovm_req_bound_write(req)) {
		path = iovm_path_by_id(dev, req->bound_id);
		if (path)
			path->nr_bound--;
	}
	req->flags &= ~IOVM_REQ_BOUND;
}

static void iovm_req_account_pause(struct iovm_dev *dev, struct iovm_req *req)
{
	u64 pause = ktime_get_ns() - req->error_ns;

	lockdep_assert_held(&dev->lock);
	dev->pause_ns[iovm_hist_bucket(pause)]++;
	dev->pause_max_ns = max(dev->pause_max_ns, pause);
}

/* The rare part of iovm_req_finish(): the request has been back before. */
void iovm_req_settle(struct iovm_req *req, int error)
{
	struct iovm_dev *dev = req->dev;
	unsigned long flags;

	spin_lock_irqsave(&dev->lock, flags);
	iovm_req_unwait(dev, req);
	req->flags &= ~IOVM_REQ_BOUND;
	iovm_nospc_end(req, !error);
	if (req->error_ns)
		iovm_req_account_pause(dev, req);
	spin_unlock_irqrestore(&dev->lock, flags);
}

/**
 * iovm_todo_run - what a change under dev->lock left to do
 * @dev: whose; no lock is held
 * @todo: what
 *
 * The requests come last: while the mux has one of them, the front end, and so the device, cannot
 * go.
 */
void iovm_todo_run(struct iovm_dev *dev, struct iovm_todo *todo)
{
	const struct iovm_class *class = dev->class;
	struct iovm_req *req, *next;

	if (todo->wake)
		class->route_changed(dev);
	list_for_each_entry_safe(req, next, &todo->requeue, node) {
		list_del_init(&req->node);
		class->requeue(req);
	}
	list_for_each_entry_safe(req, next, &todo->complete, node) {
		list_del_init(&req->node);
		if (todo->error == -ECANCELED)
			class->complete(req, -ECANCELED);
		else
			iovm_req_finish(req, todo->error);
	}
}

/*
 * The first live path in order on which @req has had no medium error, other than @but; NULL when
 * there is none. dev->lock.
 */
static struct iovm_path *iovm_req_elsewhere(struct iovm_dev *dev, const struct iovm_req *req,
					    const struct iovm_path *but)
{
	struct iovm_path *path;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(path, &dev->paths, node)
		if (path != but && path->state == IOVM_PATH_LIVE &&
		    !(req->media & BIT(path->slot)))
			return path;
	return NULL;
}

/*
 * A path for @req that is reachable and takes it, or NULL; settles what it is bound to. dev->lock.
 */
static struct iovm_path *iovm_req_pick(struct iovm_dev *dev, struct iovm_req *req,
				       struct iovm_path *bound)
{
	struct iovm_path *route = rcu_dereference_protected(dev->route,
							    lockdep_is_held(&dev->lock));

	if (dev->suspended || iovm_dev_lacks_epoch(dev))
		return NULL;
	if (iovm_req_bound_write(req)) {
		if (!bound)
			return NULL;
		if (!bound->fenced) {
			if (!iovm_path_take(bound, req))
				return NULL;
			bound->nr_bound--;
			return bound;
		}
		bound->nr_bound--;
	} else if (bound && iovm_path_take(bound, req)) {
		return bound;
	} else if (req->flags & IOVM_REQ_ELSEWHERE) {
		struct iovm_path *other = iovm_req_elsewhere(dev, req, NULL);

		if (other && iovm_path_take(other, req))
			return other;
		/* it went meanwhile: the error comes once more, and is reported */
		req->flags &= ~IOVM_REQ_ELSEWHERE;
	}
	/* fenced, or the rest of a flush for a path that is not usable: goes where all go */
	req->flags &= ~IOVM_REQ_BOUND;
	return route && iovm_path_take(route, req) ? route : NULL;
}

/* iovm_req_route() for what has waited, is bound, or finds no route. */
int iovm_req_route_slow(struct iovm_req *req)
{
	struct iovm_dev *dev = req->dev;
	struct iovm_path *bound = NULL;
	unsigned long flags;
	bool fail;

	spin_lock_irqsave(&dev->lock, flags);
	if (req->flags & IOVM_REQ_BOUND)
		bound = iovm_path_by_id(dev, req->bound_id);
	if (iovm_req_pick(dev, req, bound)) {
		iovm_req_unwait(dev, req);
		spin_unlock_irqrestore(&dev->lock, flags);
		return 0;
	}

	fail = dev->failing ||
	       (req->flags & IOVM_REQ_STAMPED && req->fail_parked != dev->fail_parked) ||
	       (iovm_req_bound_write(req) && !bound);	/* its path was removed by force */
	if (!fail) {
		if (!(req->flags & IOVM_REQ_STAMPED)) {
			req->flags |= IOVM_REQ_STAMPED;
			req->fail_parked = dev->fail_parked;
		}
		spin_unlock_irqrestore(&dev->lock, flags);
		return -EAGAIN;
	}

	iovm_req_unbind(dev, req);
	iovm_req_unwait(dev, req);
	iovm_nospc_end(req, false);
	if (req->error_ns)
		iovm_req_account_pause(dev, req);
	dev->fails++;
	this_cpu_inc(dev->pcpu->requests);
	this_cpu_inc(dev->pcpu->errors);
	spin_unlock_irqrestore(&dev->lock, flags);
	return -EIO;
}

void iovm_req_drop(struct iovm_req *req)
{
	struct iovm_dev *dev = req->dev;
	unsigned long flags;

	spin_lock_irqsave(&dev->lock, flags);
	iovm_req_unbind(dev, req);
	iovm_req_unwait(dev, req);
	iovm_nospc_end(req, false);
	spin_unlock_irqrestore(&dev->lock, flags);
}
EXPORT_SYMBOL_GPL(iovm_req_drop);

/* Once more on the same path, in a while that grows as long as resources stay short. dev->lock. */
static void iovm_req_retry(struct iovm_dev *dev, struct iovm_path *path, struct iovm_req *req)
{
	u64 now = ktime_get_ns();

	lockdep_assert_held(&dev->lock);
	if (now - dev->retry_ns > NSEC_PER_SEC)
		dev->retry_shift = 0;
	dev->retry_ns = now;
	if (iovm_req_bound_write(req))
		path->nr_bound++;
	iovm_req_wait(dev, req);
	list_add_tail(&req->node, &dev->retry);
	if (queue_delayed_work(iovm_wq, &dev->retry_work, 1ul << dev->retry_shift) &&
	    dev->retry_shift < IOVM_RETRY_SHIFT_MAX)
		dev->retry_shift++;
}

void iovm_retry_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, retry_work);
	struct iovm_todo todo;
	unsigned long flags;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	list_splice_init(&dev->retry, &todo.requeue);
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}

/* A write that may still land on its failed path: kept until that is settled. dev->lock. */
static void iovm_req_hold(struct iovm_path *path, struct iovm_req *req, struct iovm_todo *todo)
{
	struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->lock);
	if (dev->failing) {
		dev->fails++;
		list_add_tail(&req->node, &todo->complete);
		return;
	}
	list_add_tail(&req->node, &path->held);
	path->nr_held++;
	/* one event for the first, and few for many */
	if (is_power_of_2(path->nr_held))
		iovm_event_emit(dev, path, IOVM_EV_HELD, 0, 0, 0, path->nr_held);
}

/*
 * The paths that this request is known to fail on. One that is usable again was repaired since:
 * what it said then says nothing about the request. dev->lock held.
 */
static u8 iovm_req_tried(struct iovm_dev *dev, const struct iovm_req *req)
{
	struct iovm_path *path;
	u8 tried = req->tried;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(path, &dev->paths, node)
		if (path != req->path && iovm_state_usable(path->state))
			tried &= ~BIT(path->slot);
	return tried;
}

/* What a medium error or a full store adds to statistics and events. dev->lock held. */
static void iovm_req_count(struct iovm_path *path, enum iovm_result res, int error)
{
	lockdep_assert_held(&path->dev->lock);
	if (res == IOVM_RES_NOSPC)
		this_cpu_inc(path->pcpu->no_space);
	if (res != IOVM_RES_MEDIA)
		return;
	this_cpu_inc(path->pcpu->media_errors);
	/* a guest may read a bad block for ever */
	if (is_power_of_2(++path->nr_media))
		iovm_event_emit(path->dev, path, IOVM_EV_MEDIUM_ERROR, 0, 0, error, path->nr_media);
}

/* iovm_req_done() with anything but success. */
void iovm_req_error(struct iovm_req *req, enum iovm_result res, int error)
{
	struct iovm_path *path = req->path;
	struct iovm_dev *dev = path->dev;
	struct iovm_todo todo;
	struct iovm_end end;
	enum iovm_fate fate;
	unsigned long flags;
	bool others = false;
	bool fail;

	iovm_todo_init(&todo);
	if (error >= 0)
		error = -EIO;

	spin_lock_irqsave(&dev->lock, flags);
	req->tried = iovm_req_tried(dev, req);
	/* the operator has given up on it while it looked for space */
	if (res == IOVM_RES_NOSPC && req->flags & IOVM_REQ_NOSPC &&
	    req->fail_parked != dev->fail_parked)
		res = IOVM_RES_REQUEST;
	if (res == IOVM_RES_MEDIA || res == IOVM_RES_IO)
		others = iovm_req_elsewhere(dev, req, path);
	iovm_req_count(path, res, error);
	end = (struct iovm_end) {
		.res = res,
		.state = path->state,
		.op = req->op,
		.fence = viovm_planted(VIOVM_PLANT_FENCE) ? IOVM_FENCE_LOCAL_ERROR : path->fence,
		.slot = path->slot,
		.tried = req->tried,
		.io_errors = req->io_errors,
		.media = req->media,
		.others = others,
		.bound = req->flags & IOVM_REQ_BOUND,
		.stale = req->issue_ns < path->live_ns,
		.fenced = path->fenced,
	};
	fate = iovm_judge(&end, &fail);
	path->in_doubt |= iovm_in_doubt(&end);
	if (res == IOVM_RES_IO) {
		req->tried |= BIT(path->slot);
		req->io_errors++;
	} else if (res == IOVM_RES_MEDIA) {
		req->media |= BIT(path->slot);
	}
	if (req->op == IOVM_OP_FLUSH) {
		WRITE_ONCE(path->unflushed, true);
		atomic_dec(&path->flushing);
	}
	if (fail)
		iovm_path_error(path, error, &todo);

	if (fate == IOVM_FATE_REPORT) {
		this_cpu_inc(path->pcpu->request_errors);
		spin_unlock_irqrestore(&dev->lock, flags);
		iovm_todo_run(dev, &todo);
		iovm_req_finish(req, error);
		return;
	}

	trace_iovm_requeue(req, res, error, fate);
	WRITE_ONCE(req->path, NULL);
	if (fate == IOVM_FATE_RETRY) {
		this_cpu_inc(path->pcpu->retries);
		iovm_req_retry(dev, path, req);
	} else if (fate == IOVM_FATE_NOSPC || fate == IOVM_FATE_NOSPC_BIND) {
		iovm_nospc_hold(path, req, fate == IOVM_FATE_NOSPC_BIND);
	} else if (fate == IOVM_FATE_ELSEWHERE) {
		dev->requeues++;
		req->flags |= IOVM_REQ_ELSEWHERE;
		iovm_req_wait(dev, req);
		list_add_tail(&req->node, &todo.requeue);
	} else {
		this_cpu_inc(path->pcpu->path_errors);
		dev->requeues++;
		if (!req->error_ns)
			req->error_ns = ktime_get_ns();
		if (fate == IOVM_FATE_HOLD) {
			iovm_req_hold(path, req, &todo);
		} else {
			if (fate == IOVM_FATE_BIND)
				iovm_req_bind(path, req);
			else
				req->flags &= ~IOVM_REQ_BOUND;
			iovm_req_wait(dev, req);
			list_add_tail(&req->node, &todo.requeue);
		}
	}
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}

/*
 * Is everything that was acknowledged on @path stable? Not while another FLUSH is still on its way
 * there: it has taken @unflushed with it. dev->lock.
 */
static bool iovm_path_flushed(struct iovm_path *path)
{
	lockdep_assert_held(&path->dev->lock);
	if (READ_ONCE(path->unflushed))
		return false;
	/* pairs with the barrier in iovm_req_issue() */
	smp_rmb();
	return !atomic_read(&path->flushing);
}

/*
 * A FLUSH has succeeded: is there another path with acknowledged writes that it has to cover? Then
 * it goes there next. Each path once: writes that complete meanwhile are a later flush's.
 */
bool iovm_req_flush_rest(struct iovm_req *req)
{
	struct iovm_path *done = req->path, *path;
	struct iovm_dev *dev = done->dev;
	struct iovm_todo todo;
	unsigned long flags;
	bool more = false;

	iovm_todo_init(&todo);
	if (likely(READ_ONCE(dev->nr_paths) < 2) || viovm_planted(VIOVM_PLANT_FLUSH))
		return false;
	spin_lock_irqsave(&dev->lock, flags);
	req->flushed |= BIT(done->slot);
	list_for_each_entry(path, &dev->paths, node) {
		if (req->flushed & BIT(path->slot) || iovm_path_flushed(path))
			continue;
		if (!iovm_state_usable(path->state) && path->state != IOVM_PATH_DRAINING)
			continue;
		req->flags |= IOVM_REQ_BOUND;
		req->bound_id = path->id;
		WRITE_ONCE(req->path, NULL);
		iovm_req_wait(dev, req);
		list_add_tail(&req->node, &todo.requeue);
		more = true;
		break;
	}
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
	return more;
}

/* A request that was issued to the new route has succeeded: the switch is over. */
void iovm_first_completion(struct iovm_path *path, u64 issue_ns)
{
	struct iovm_dev *dev = path->dev;
	unsigned long flags;

	if (rcu_access_pointer(dev->route) != path)
		return;
	spin_lock_irqsave(&dev->lock, flags);
	if (dev->switch_ns && rcu_access_pointer(dev->route) == path && issue_ns >= dev->route_ns) {
		iovm_event_emit(dev, path, IOVM_EV_FIRST_COMPLETION, 0, 0, 0,
				ktime_get_ns() - dev->switch_ns);
		WRITE_ONCE(dev->switch_ns, 0);
		dev->error_ns = 0;
	}
	spin_unlock_irqrestore(&dev->lock, flags);
}

/**
 * iovm_held_release - what was held on a path goes on
 * @path: whose; dev->lock is held
 * @bind: back to this path only; else to any
 * @todo: what to do after the lock
 *
 * Return: how many.
 */
u32 iovm_held_release(struct iovm_path *path, bool bind, struct iovm_todo *todo)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_req *req;
	u32 n = path->nr_held;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(req, &path->held, node) {
		if (bind)
			iovm_req_bind(path, req);
		else
			req->flags &= ~IOVM_REQ_BOUND;
		iovm_req_wait(dev, req);
	}
	list_splice_tail_init(&path->held, &todo->requeue);
	path->nr_held = 0;
	return n;
}

/**
 * iovm_held_fail - what was held is failed to the guest
 * @dev: whose; dev->lock is held
 * @only: on this path only; NULL for all
 * @todo: what to do after the lock
 *
 * Return: how many.
 */
u32 iovm_held_fail(struct iovm_dev *dev, struct iovm_path *only, struct iovm_todo *todo)
{
	struct iovm_path *path;
	u32 n = 0;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(path, &dev->paths, node) {
		if (only && path != only)
			continue;
		list_splice_tail_init(&path->held, &todo->complete);
		n += path->nr_held;
		path->nr_held = 0;
	}
	dev->fails += n;
	return n;
}

void iovm_dev_cancel(struct iovm_dev *dev, bool held)
{
	struct iovm_todo todo;
	struct iovm_path *path;
	struct iovm_req *req;
	unsigned long flags;

	iovm_todo_init(&todo);
	todo.error = -ECANCELED;
	spin_lock_irqsave(&dev->lock, flags);
	list_for_each_entry(req, &dev->retry, node) {
		iovm_req_unbind(dev, req);
		iovm_req_unwait(dev, req);
		iovm_nospc_end(req, false);
	}
	list_splice_init(&dev->retry, &todo.complete);
	iovm_nospc_end_all(dev, &todo);
	list_for_each_entry(path, &dev->paths, node) {
		if (!held)	/* they wait for what the operator or the path does */
			continue;
		list_for_each_entry(req, &path->held, node) {
			req->flags &= ~IOVM_REQ_BOUND;
			iovm_nospc_end(req, false);
		}
		list_splice_tail_init(&path->held, &todo.complete);
		path->nr_held = 0;
	}
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}
EXPORT_SYMBOL_GPL(iovm_dev_cancel);
