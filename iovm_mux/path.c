// SPDX-License-Identifier: GPL-2.0
/*
 * The states of paths, and what follows from them: the device's state, its route, its timers.
 *
 * iovm_path_set_state() is the only place that changes a path's state, iovm_route_update() the
 * only one that changes the route and the device's state. Both run under dev->lock, in any
 * context, and leave what needs the class's callbacks in a struct iovm_todo, for iovm_todo_run()
 * after the lock.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/rculist.h>

#include "internal.h"
#include "trace.h"

#define IOVM_ARM_MAX_MS	(3600 * 1000ull)	/* timers look again at least this often */

/*
 * (Re)arms a timer that is @ms away. The work itself decides whether its time has come. dev->lock.
 */
void iovm_arm(struct iovm_dev *dev, struct delayed_work *work, u64 ms)
{
	if (!dev->dead)
		mod_delayed_work(iovm_wq, work, msecs_to_jiffies(min(ms, IOVM_ARM_MAX_MS)));
}

static u64 iovm_left_ms(u64 since_ns, u64 ms)
{
	u64 gone = div_u64(ktime_get_ns() - since_ns, NSEC_PER_MSEC);

	return gone < ms ? ms - gone : 0;
}

void iovm_no_path_arm(struct iovm_dev *dev)
{
	lockdep_assert_held(&dev->lock);
	if (dev->state == IOVM_DEV_PARKED && dev->no_path_timeout_ms)
		iovm_arm(dev, &dev->no_path_work, iovm_left_ms(dev->parked_ns,
							       dev->no_path_timeout_ms));
}

void iovm_probe_arm(struct iovm_dev *dev)
{
	lockdep_assert_held(&dev->lock);
	/*
	 * not mod_delayed_work(): one failing path must not put off the probe of another.
	 * Not on iovm_wq: it takes dev->mutex, under which fail_work is waited for
	 */
	if (!dev->dead)
		queue_delayed_work(system_unbound_wq, &dev->probe_work,
				   msecs_to_jiffies(IOVM_PROBE_MS));
}

/*
 * The states in order, for policy.c; and the paths themselves when @paths is not NULL. *@cur_index
 * is that of @cur, -1 when it is none of them. dev->lock.
 */
int iovm_path_states(struct iovm_dev *dev, enum iovm_path_state *state, struct iovm_path **paths,
		     const struct iovm_path *cur, int *cur_index)
{
	struct iovm_path *path;
	int n = 0;

	lockdep_assert_held(&dev->lock);
	*cur_index = -1;
	list_for_each_entry(path, &dev->paths, node) {
		state[n] = path->state;
		paths[n] = path;
		if (path == cur)
			*cur_index = n;
		n++;
	}
	return n;
}

/*
 * The earliest path before the route that has been live long enough, or when to look again
 * (*@left_ms, 0 = never).
 */
static struct iovm_path *iovm_failback_due(struct iovm_dev *dev, u64 *left_ms)
{
	struct iovm_path *route = rcu_dereference_protected(dev->route,
							    lockdep_is_held(&dev->lock));
	struct iovm_path *path;
	u64 left, since;

	*left_ms = 0;
	if (!route || !dev->failback_after_ms || dev->pinned)
		return NULL;
	list_for_each_entry(path, &dev->paths, node) {
		if (path == route)
			break;
		if (path->state != IOVM_PATH_LIVE || path->slow)
			continue;
		/* as it should be since then */
		since = max(path->state_ns, path->slow_ns);
		left = iovm_left_ms(since, dev->failback_after_ms);
		if (!left)
			return path;
		if (!*left_ms || left < *left_ms)
			*left_ms = left;
	}
	return NULL;
}

void iovm_failback_arm(struct iovm_dev *dev)
{
	struct iovm_path *path;
	u64 left;

	lockdep_assert_held(&dev->lock);
	path = iovm_failback_due(dev, &left);
	if (path || left)
		iovm_arm(dev, &dev->failback_work, left);
}

/* Requests go to @route now, and did not before. dev->lock. */
static void iovm_route_taken(struct iovm_dev *dev, struct iovm_path *route, enum iovm_dev_state old)
{
	u64 now = ktime_get_ns();
	bool first = dev->last_route_id == IOVM_NO_ID;
	bool other = dev->last_route_id != route->id;

	dev->route_ns = now;
	dev->preferred = route;
	dev->last_route_id = route->id;
	if (first || (!other && (old == IOVM_DEV_SUSPENDED || old == IOVM_DEV_NO_EPOCH)))
		return;
	if (!dev->switch_ns)
		WRITE_ONCE(dev->switch_ns, now);
	dev->reroutes++;
	iovm_event_emit(dev, route, IOVM_EV_REROUTED, 0, 0, 0,
			dev->error_ns ? now - dev->error_ns : 0);
}

/**
 * iovm_route_update - derive route and state of a device anew
 * @dev: after a change of path states, preferred path, suspended, failing or epoch
 * @todo: what to do after the lock
 */
void iovm_route_update(struct iovm_dev *dev, struct iovm_todo *todo)
{
	struct iovm_path *old = rcu_dereference_protected(dev->route, lockdep_is_held(&dev->lock));
	enum iovm_dev_state old_state = dev->state;
	enum iovm_path_state state[IOVM_MAX_PATHS];
	struct iovm_path *paths[IOVM_MAX_PATHS];
	struct iovm_path *route;
	int n, cur, best;
	bool no_epoch;

	lockdep_assert_held(&dev->lock);
	n = iovm_path_states(dev, state, paths, dev->preferred, &cur);
	best = iovm_choose(state, n, cur);
	if (best != cur)
		dev->pinned = false;
	no_epoch = iovm_dev_lacks_epoch(dev);
	route = best < 0 || dev->suspended || no_epoch || dev->dead ? NULL : paths[best];

	rcu_assign_pointer(dev->route, route);
	if (route || no_epoch)
		WRITE_ONCE(dev->failing, false);
	dev->state = iovm_derive_state(route, dev->suspended, no_epoch, dev->failing);

	if (route && route != old) {
		iovm_route_taken(dev, route, old_state);
		todo->wake = true;
	}
	if (route)
		dev->parked_ns = 0;
	else if (old || (dev->state != old_state && (old_state == IOVM_DEV_SUSPENDED ||
						     old_state == IOVM_DEV_NO_EPOCH)))
		dev->parked_ns = ktime_get_ns();
	if (dev->dead)
		return;

	if (dev->state != old_state) {
		switch (dev->state) {
		case IOVM_DEV_PARKED:
			dev->parks++;
			iovm_event_emit(dev, NULL, IOVM_EV_PARKED, 0, 0, 0, 0);
			iovm_no_path_arm(dev);
			break;
		case IOVM_DEV_FAILING:
			iovm_event_emit(dev, NULL, IOVM_EV_TIMEOUT, 0, 0, 0, 0);
			todo->wake = true;
			break;
		default:
			break;
		}
	}
	iovm_failback_arm(dev);
}

/**
 * iovm_route_switch - a live path becomes the current one by decision, not by failure
 * @dev: device
 * @path: one of its paths, live
 * @pin: no automatic failback from it while it is live
 * @todo: what to do after the lock
 *
 * What is in flight on the old path finishes there.
 */
void iovm_route_switch(struct iovm_dev *dev, struct iovm_path *path, bool pin,
		       struct iovm_todo *todo)
{
	lockdep_assert_held(&dev->lock);
	dev->preferred = path;
	dev->pinned = pin;
	iovm_route_update(dev, todo);
}

/**
 * iovm_path_set_state - change the state of a path
 * @path: whose; dev->lock is held
 * @state: the new state
 * @error: why, negative errno, or 0
 * @todo: what to do after the lock
 *
 * Emits the event, starts what the new state needs, derives the route anew and wakes who waits for
 * states.
 *
 * Return: false when there is no such transition; nothing has happened then.
 */
bool iovm_path_set_state(struct iovm_path *path, enum iovm_path_state state, int error,
			 struct iovm_todo *todo)
{
	struct iovm_dev *dev = path->dev;
	enum iovm_path_state old = path->state;

	lockdep_assert_held(&dev->lock);
	if (!iovm_state_may(old, state))
		return false;

	WRITE_ONCE(path->state, state);
	if (state != IOVM_PATH_SUSPECT)
		path->suspects = 0;
	path->state_ns = ktime_get_ns();
	if (error)
		path->last_error = error;
	trace_iovm_path_state(path, old, state, error);
	iovm_event_emit(dev, path, IOVM_EV_PATH_STATE, old, state, error, 0);

	switch (state) {
	case IOVM_PATH_LIVE:
		if (old == IOVM_PATH_SUSPECT)
			break;
		path->overdue_ms = 0;
		path->live_ns = path->state_ns;
		WRITE_ONCE(path->generation, path->generation + 1);
		path->replaced = 0;
		path->had_error = false;
		path->fenced = false;
		path->fence_tries = 0;
		path->fence_status = 0;
		path->flush_error = 0;
		path->by_hand = false;
		/* nothing came to it since it failed: what was taken back from it has ended too */
		if (!iovm_path_inflight(path))
			path->retaken = false;
		iovm_held_release(path, true, todo);
		/* bound requests wait for this path whatever the route is */
		todo->wake = true;
		break;
	case IOVM_PATH_SUSPECT:
		iovm_retake_changed(dev, todo);
		break;
	case IOVM_PATH_FAILED:
		iovm_slow_failed(path);
		queue_work(iovm_wq, &path->fail_work);
		iovm_retake_changed(dev, todo);
		if (path->ops->probe && !path->by_hand)
			iovm_probe_arm(dev);
		if (path->pr_key)
			iovm_fence_arm(dev, path->fence_after_ms);
		break;
	case IOVM_PATH_REMOVED:
		list_del(&path->node);
		WRITE_ONCE(dev->nr_paths, dev->nr_paths - 1);
		if (dev->preferred == path)
			dev->preferred = NULL;
		break;
	default:
		break;
	}
	iovm_route_update(dev, todo);
	wake_up(&dev->wait);
	return true;
}

/**
 * iovm_path_error - a path has failed
 * @path: whose; dev->lock is held
 * @error: negative errno; 0 when the operator said so
 * @todo: what to do after the lock
 *
 * Without effect when it has failed before.
 */
void iovm_path_error(struct iovm_path *path, int error, struct iovm_todo *todo)
{
	struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->lock);
	if (!iovm_state_may(path->state, IOVM_PATH_FAILED))
		return;
	if (rcu_access_pointer(dev->route) == path) {
		u64 now = ktime_get_ns();

		/*
		 * the pause began with the first error, even if the next path fails too before
		 * anything completes
		 */
		if (!dev->switch_ns)
			WRITE_ONCE(dev->switch_ns, now);
		if (error && !dev->error_ns)
			dev->error_ns = now;
	}
	if (error && !path->had_error && path->state != IOVM_PATH_CONNECTING) {
		path->had_error = true;
		iovm_event_emit(dev, path, IOVM_EV_FIRST_ERROR, 0, 0, error, 0);
	}
	iovm_path_set_state(path, IOVM_PATH_FAILED, error, todo);
}

void iovm_path_fail(struct iovm_path *path, int error)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_todo todo;
	unsigned long flags;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	if (path->in_connect)
		path->connect_error = error ?: -ECONNABORTED;
	else
		iovm_path_error(path, error ?: -EIO, &todo);
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}
EXPORT_SYMBOL_GPL(iovm_path_fail);

/*
 * Tells the path type, in a context in which it may sleep. Flushed before connect, probe and
 * remove.
 */
void iovm_fail_work(struct work_struct *work)
{
	struct iovm_path *path = container_of(work, struct iovm_path, fail_work);

	if (path->ops->fail)
		path->ops->fail(path);
}

/* No path came in time: what waits is failed until one does. */
void iovm_no_path_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, no_path_work);
	struct iovm_todo todo;
	unsigned long flags;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	if (dev->state == IOVM_DEV_PARKED && dev->no_path_timeout_ms) {
		if (iovm_left_ms(dev->parked_ns, dev->no_path_timeout_ms)) {
			iovm_no_path_arm(dev);
		} else {
			WRITE_ONCE(dev->failing, true);
			iovm_route_update(dev, &todo);
			iovm_held_fail(dev, NULL, &todo);
		}
	}
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}

/*
 * Back to an earlier path, if one has been live for long enough; iovm_route_update() arms it again
 * if one will have been.
 */
void iovm_failback_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, failback_work);
	struct iovm_todo todo;
	struct iovm_path *path;
	unsigned long flags;
	u64 left;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	path = iovm_failback_due(dev, &left);
	if (path)
		iovm_route_switch(dev, path, false, &todo);
	else if (left)
		iovm_arm(dev, &dev->failback_work, left);
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}
