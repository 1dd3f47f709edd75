// SPDX-License-Identifier: GPL-2.0
/*
 * When may what a failed path had be issued elsewhere?
 *
 * As soon as nothing issued there can land any more. Until somebody has made sure of that, writes
 * wait: those that came back with an error on a path whose errors prove nothing, those that did not
 * come back. Whoever it is - the operator, or user space, which runs the path's fence command or
 * takes its disk offline - confirms it by IOVM_PATH_CTL_FENCED, and tells by
 * IOVM_PATH_CTL_FENCE_FAILED when he could not. The kernel keeps what there is to know for that:
 * how it is to be done, for how many writes, how it went. So nobody in user space has to be alive
 * for the guest's sake, and whoever is restarted goes on where his predecessor was.
 *
 * No write is issued on a failed path, and each time a path is live again it has another
 * generation: what was made sure of while the path had failed in a generation holds for that
 * generation, whenever it is confirmed.
 */
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/wait.h>

#include "internal.h"

#define IOVM_FENCE_AFTER_MS	3000
#define IOVM_FENCE_RETRY_MS	1000ull

/**
 * iovm_fence_check - the fence of a new path
 * @arg: with its fence resolved; fills in the default
 *
 * Return: 0 or -EINVAL.
 */
int iovm_fence_check(struct iovm_path_add *arg)
{
	char *command = arg->fence_command;

	if (arg->fence_by > IOVM_FENCE_BY_RESERVATION)
		return iovm_refuse(-EINVAL, arg->msg, "unknown fence");
	if (!memchr(command, 0, sizeof(arg->fence_command)))
		return iovm_refuse(-EINVAL, arg->msg, "the fence command is too long");
	if (arg->fence_by == IOVM_FENCE_BY_COMMAND ? command[0] != '/' : command[0])
		return iovm_refuse(-EINVAL, arg->msg,
				   "a fence by command, and no other, has an absolute file name");
	memset(command + strlen(command), 0, sizeof(arg->fence_command) - strlen(command));
	if (arg->fence_by == IOVM_FENCE_BY_OFFLINE &&
	    (arg->type != IOVM_PATH_BDEV || arg->fence != IOVM_FENCE_LOCAL_ERROR))
		return iovm_refuse(-EINVAL, arg->msg,
				   "offlining ends requests with errors: only for fence local-error");
	if (arg->fence_by == IOVM_FENCE_BY_RESERVATION ? !arg->pr_key : arg->pr_key)
		return iovm_refuse(-EINVAL, arg->msg,
				   "a fence by reservation, and no other, has a key");
	if (arg->pr_key && arg->type == IOVM_PATH_NBD)
		return iovm_refuse(-EINVAL, arg->msg, "an NBD server knows no reservations");
	if (arg->fence_after_ms > IOVM_MS_MAX)
		return iovm_refuse(-EINVAL, arg->msg, "the fence begins within an hour");
	if (!arg->fence_after_ms)
		arg->fence_after_ms = arg->pr_key ? 1 : IOVM_FENCE_AFTER_MS;
	return 0;
}

/*
 * Nothing issued on @path before can land any more: its held writes go on elsewhere; those that a
 * back end still has are taken back. dev->lock.
 */
static void iovm_path_set_fenced(struct iovm_path *path, struct iovm_todo *todo)
{
	struct iovm_dev *dev = path->dev;
	u32 n = path->nr_bound;

	lockdep_assert_held(&dev->lock);
	path->fenced = true;
	path->in_doubt = false;
	path->fence_tries = 0;
	path->fence_status = 0;
	n += iovm_held_release(path, false, todo);
	iovm_event_emit(dev, path, IOVM_EV_FENCED, 0, 0, 0, n);
	iovm_retake_changed(dev, todo);
	wake_up(&dev->wait);
}

/* @path could not be fenced. dev->lock. */
static void iovm_fence_count(struct iovm_path *path, int status)
{
	lockdep_assert_held(&path->dev->lock);
	path->fence_status = status;
	if (is_power_of_2(++path->fence_tries))
		iovm_event_emit(path->dev, path, IOVM_EV_FENCE_FAILED, 0, 0, min(status, 0),
				max(status, 0));
}

/* Is what @arg tells about @path as it is now? dev->lock. */
static int iovm_fence_fits(const struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg)
{
	lockdep_assert_held(&path->dev->lock);
	if (arg->generation && (arg->id != path->id || arg->generation != path->generation))
		return iovm_refuse(-ESTALE, msg,
				   "path %s has been live again since, or is another one",
				   path->name);
	if (path->in_connect ||
	    (path->state != IOVM_PATH_FAILED && path->state != IOVM_PATH_CONNECTING))
		return iovm_refuse(-EBUSY, msg,
				   "path %s is in use: a fence is confirmed for a failed one",
				   path->name);
	return 0;
}

/**
 * iovm_path_fenced - somebody states that nothing issued on a path before can land any more
 * @path: which; dev->mutex is held
 * @arg: of IOVM_PATH_CTL_FENCED
 * @msg: why not
 *
 * Return: 0; -EBUSY it is in use; -ESTALE it is not the one, or has been live since.
 */
int iovm_path_fenced(struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_todo todo;
	int err;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	err = iovm_fence_fits(path, arg, msg);
	if (!err)
		iovm_path_set_fenced(path, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	return err;
}

/**
 * iovm_path_drained - its server has ended and drained the path's earlier sessions
 * @path: which, just being connected: what it had in flight has come back; dev->mutex is held
 */
void iovm_path_drained(struct iovm_path *path)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_todo todo;

	lockdep_assert_held(&dev->mutex);
	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (!path->fenced)
		iovm_path_set_fenced(path, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
}

/**
 * iovm_path_fence_failed - somebody could not make sure of that
 * @path: which; dev->mutex is held
 * @arg: of IOVM_PATH_CTL_FENCE_FAILED
 * @msg: why not
 *
 * Return: 0; -EINVAL no failure; -EBUSY it is in use; -ESTALE it is not the one, or has been live
 * since.
 */
int iovm_path_fence_failed(struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg)
{
	struct iovm_dev *dev = path->dev;
	int status = arg->status;
	int err;

	if (!status || status < -MAX_ERRNO || status >= 2 * IOVM_FENCE_STATUS_SIGNAL)
		return iovm_refuse(-EINVAL, msg, "%d is no status of a fence that failed", status);
	spin_lock_irq(&dev->lock);
	err = iovm_fence_fits(path, arg, msg);
	if (!err && !path->fenced)
		iovm_fence_count(path, status);
	spin_unlock_irq(&dev->lock);
	return err;
}

/**
 * iovm_path_set_fence - it is to be fenced in another way from now on
 * @path: which; dev->mutex is held
 * @arg: of IOVM_PATH_CTL_SET_FENCE
 * @msg: why not
 *
 * An attempt that is under way, in the way it had, counts as before. A reservation is the medium's
 * affair too, and stays.
 *
 * Return: 0; -EINVAL; -EOPNOTSUPP it would come from or to a reservation; -ENOMEM.
 */
int iovm_path_set_fence(struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_path_add *add;
	int err;

	lockdep_assert_held(&dev->mutex);
	if (path->pr_key || arg->fence_by == IOVM_FENCE_BY_RESERVATION)
		return iovm_refuse(-EOPNOTSUPP, msg,
				   "a reservation is made and given up with its path: add %s anew",
				   path->name);
	add = kzalloc(sizeof(*add), GFP_KERNEL);
	if (!add)
		return -ENOMEM;
	add->type = path->ops->type;
	add->fence = path->fence;
	add->fence_by = arg->fence_by;
	add->fence_after_ms = arg->fence_after_ms;
	memcpy(add->fence_command, arg->fence_command, sizeof(add->fence_command));
	err = iovm_fence_check(add);
	if (err) {
		memcpy(msg, add->msg, IOVM_MSG_MAX);
		goto free;
	}
	spin_lock_irq(&dev->lock);
	path->fence_by = add->fence_by;
	path->fence_after_ms = add->fence_after_ms;
	memcpy(path->fence_command, add->fence_command, sizeof(path->fence_command));
	path->fence_tries = 0;
	path->fence_status = 0;
	spin_unlock_irq(&dev->lock);
free:
	kfree(add);
	return err;
}

/**
 * iovm_fence_arm - fence by reservation what has failed
 * @dev: with a failed path that has a pr_key; dev->lock is held
 * @ms: look in so many milliseconds at the latest
 */
void iovm_fence_arm(struct iovm_dev *dev, u64 ms)
{
	unsigned long at = jiffies + msecs_to_jiffies(ms);

	lockdep_assert_held(&dev->lock);
	/* one path must not put off the fence of another; not on iovm_wq: see iovm_probe_arm() */
	if (dev->dead ||
	    (delayed_work_pending(&dev->fence_work) && !time_before(at, dev->fence_at)))
		return;
	dev->fence_at = at;
	mod_delayed_work(system_unbound_wq, &dev->fence_work, msecs_to_jiffies(ms));
}

/**
 * iovm_path_is_fencing - is a path just being fenced, or another one by it?
 * @path: which; dev->lock is held
 *
 * Return: whether it is so, and the path has to stay as it is.
 */
bool iovm_path_is_fencing(const struct iovm_path *path)
{
	lockdep_assert_held(&path->dev->lock);
	return path->dev->fencing[0] == path || path->dev->fencing[1] == path;
}

/*
 * Does something wait that a reservation would settle? *@left_ms: for how long not yet. dev->mutex.
 */
static bool iovm_path_wants_fence(struct iovm_path *path, u64 *left_ms)
{
	u64 failed_ms;
	bool wants;

	spin_lock_irq(&path->dev->lock);
	wants = path->pr_key && path->ops->fence && path->state == IOVM_PATH_FAILED &&
		!path->fenced && !path->removing &&
		(path->nr_held || path->nr_bound || path->in_doubt || iovm_path_inflight(path));
	failed_ms = div_u64(ktime_get_ns() - path->state_ns, NSEC_PER_MSEC);
	*left_ms = path->fence_after_ms > failed_ms ? path->fence_after_ms - failed_ms : 0;
	spin_unlock_irq(&path->dev->lock);
	return wants;
}

/*
 * Preempts the key of a failed path through a live one. dev->mutex is held, and dropped for the
 * command itself; a removal of the two paths waits for it.
 */
static void iovm_path_fence(struct iovm_path *victim)
{
	struct iovm_dev *dev = victim->dev;
	struct iovm_path *path, *route, *by = NULL;
	struct iovm_todo todo;
	u32 generation;
	bool other;
	int err;

	lockdep_assert_held(&dev->mutex);
	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	route = rcu_dereference_protected(dev->route, lockdep_is_held(&dev->lock));
	/* the route is known to answer; but every other time another one is tried */
	other = victim->fence_tries & 1;
	list_for_each_entry(path, &dev->paths, node)
		if (path->pr_key && path->ops == victim->ops && path->state == IOVM_PATH_LIVE &&
		    !path->removing && (!by || (other ? path != route : path == route)))
			by = path;
	if (!by || victim->probing || victim->state != IOVM_PATH_FAILED) {
		/* later, if at all */
		spin_unlock_irq(&dev->lock);
		return;
	}
	generation = victim->generation;
	dev->fencing[0] = by;
	dev->fencing[1] = victim;
	spin_unlock_irq(&dev->lock);
	mutex_unlock(&dev->mutex);

	err = victim->ops->fence(by, victim);

	spin_lock_irq(&dev->lock);
	if (victim->state == IOVM_PATH_FAILED && victim->generation == generation &&
	    !victim->fenced) {
		if (err)
			iovm_fence_count(victim, err);
		else
			iovm_path_set_fenced(victim, &todo);
	}
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	/* until here ->fencing keeps both paths; from here on they may go */
	spin_lock_irq(&dev->lock);
	dev->fencing[0] = NULL;
	dev->fencing[1] = NULL;
	spin_unlock_irq(&dev->lock);
	wake_up(&dev->wait);
	mutex_lock(&dev->mutex);
}

void iovm_fence_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, fence_work);
	u64 next_ms = U64_MAX, left_ms;
	struct iovm_path *path;
	u32 id = 0;

	mutex_lock(&dev->mutex);
	/* by id, since the mutex is dropped in between */
	while (!dev->dead && (path = iovm_path_find(dev, "", id))) {
		id = path->id + 1;
		if (!iovm_path_wants_fence(path, &left_ms))
			continue;
		if (!left_ms)
			iovm_path_fence(path);
		next_ms = min(next_ms, left_ms ?: IOVM_FENCE_RETRY_MS);
	}
	if (next_ms != U64_MAX) {
		spin_lock_irq(&dev->lock);
		iovm_fence_arm(dev, next_ms);
		spin_unlock_irq(&dev->lock);
	}
	mutex_unlock(&dev->mutex);
}

/**
 * iovm_fence_info - the part of IOVM_PATH_GET that is about the fence
 * @path: which; dev->lock is held
 * @writes: how many requests that modify its back end still has
 * @info: to be filled
 */
void iovm_fence_info(struct iovm_path *path, u32 writes, struct iovm_path_info *info)
{
	lockdep_assert_held(&path->dev->lock);
	if (path->state == IOVM_PATH_FAILED && !path->fenced) {
		info->unsettled = path->nr_held + path->nr_bound + writes;
		/* its front end waits for it no more, but a successor elsewhere would */
		if (!info->unsettled && path->dev->flags & IOVM_DEV_F_EPOCH)
			info->unsettled = path->in_doubt;
	}
	info->fence_by = path->fence_by;
	info->fence_after_ms = path->fence_after_ms;
	info->pr_key = path->pr_key;
	info->fence_tries = path->fence_tries;
	info->fence_status = path->fence_status;
	memcpy(info->fence_command, path->fence_command, sizeof(info->fence_command));
}
