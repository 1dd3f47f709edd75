// SPDX-License-Identifier: GPL-2.0
/*
 * Epochs: which host may write a disk's data.
 *
 * Each time another host is to write, user space raises the disk's epoch, and sees to it, together
 * with the other host's, that one device at a time holds it. Here is enforced what that means for a
 * device that was made with IOVM_DEV_F_EPOCH:
 *
 *	a guest's device	has no route unless it holds an epoch (iovm_dev_lacks_epoch()), so
 *				that its requests wait, and gives it up when its queues do not run
 *				and nothing that it has issued can land any more
 *	a target		admits sessions of the epoch that it holds only, and holds a newer
 *				one when those of older ones have ended, and what they had issued
 *
 * What can still land on a path is what is in flight there (iovm_path_inflight()), and what came
 * back in a way that proves nothing (iovm_path.in_doubt): until the path is fenced. That the path
 * serves again proves nothing either: a server may work off what an earlier connection brought.
 *
 * The path types' own I/O - heartbeats, probes, measurements - only reads, and goes on without.
 */
#include <linux/module.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>

#include "internal.h"
#include "../vhost_iovm/plant.h"

static bool iovm_dev_needs_epoch(const struct iovm_dev *dev)
{
	return dev->flags & IOVM_DEV_F_EPOCH;
}

/* Is its front end sessions, and none of them the medium's only writer? */
static bool iovm_dev_is_target(const struct iovm_dev *dev)
{
	return dev->class->session_expire;
}

/**
 * iovm_dev_lacks_epoch - may a device issue nothing for want of an epoch?
 * @dev: which; dev->lock is held
 *
 * What a target issues was admitted with its session.
 *
 * Return: whether that is so.
 */
bool iovm_dev_lacks_epoch(const struct iovm_dev *dev)
{
	lockdep_assert_held(&dev->lock);
	return iovm_dev_needs_epoch(dev) && !iovm_dev_is_target(dev) &&
	       (!dev->epoch_held || dev->epoch_giving);
}

/**
 * iovm_epoch_check - the epoch of a new device
 * @arg: of IOVM_DEV_CREATE
 * @msg: why not
 *
 * Return: 0 or -EINVAL.
 */
int iovm_epoch_check(const struct iovm_dev_create *arg, char *msg)
{
	if (arg->epoch && !(arg->flags & IOVM_DEV_F_EPOCH))
		return iovm_refuse(-EINVAL, msg, "an epoch is for a device that needs one");
	return 0;
}

/*
 * Can nothing land any more of what was issued before? Exact while nothing new is routed. dev->lock
 */
static bool iovm_dev_settled(struct iovm_dev *dev)
{
	struct iovm_path *path;

	lockdep_assert_held(&dev->lock);
	if (viovm_planted(VIOVM_PLANT_GIVE))
		return true;
	list_for_each_entry(path, &dev->paths, node) {
		/* what a hung device still has does not matter then */
		if (path->state == IOVM_PATH_FAILED && path->fenced)
			continue;
		if (path->in_doubt || iovm_path_inflight(path))
			return false;
	}
	return true;
}

/* Is there no point in waiting for that any longer? @giving: else a target is raised to @epoch. */
static bool iovm_epoch_over(struct iovm_dev *dev, u64 epoch, bool giving)
{
	bool over;

	spin_lock_irq(&dev->lock);
	over = dev->dead || dev->epoch != epoch ||
	       (giving ? !dev->epoch_giving : dev->epoch_held) ||
	       (!dev->nr_fe && iovm_dev_settled(dev));
	spin_unlock_irq(&dev->lock);
	return over;
}

/*
 * Waits until then. dev->mutex is held, and dropped meanwhile: what is waited for must be visible,
 * and a path can be fenced.
 */
static int iovm_epoch_wait(struct iovm_dev *dev, u64 epoch, bool giving, char *msg)
{
	int err;

	lockdep_assert_held(&dev->mutex);
	dev->epoch_waiters++;
	mutex_unlock(&dev->mutex);
	atomic_inc(&dev->drainers);
	/* as in iovm_dev_drain() */
	synchronize_rcu();
	err = wait_event_killable(dev->wait, iovm_epoch_over(dev, epoch, giving));
	atomic_dec(&dev->drainers);
	mutex_lock(&dev->mutex);
	dev->epoch_waiters--;
	if (dev->dead)
		return iovm_refuse(-ENODEV, msg, "the device was destroyed meanwhile");
	if (err)
		return iovm_refuse(-EINTR, msg, giving ?
				   "interrupted; %s holds epoch %llu still" :
				   "interrupted; %s admits nobody until epoch %llu is taken again",
				   dev->name, epoch);
	return 0;
}

static int iovm_epoch_refuse_stale(const struct iovm_dev *dev, u64 epoch, char *msg)
{
	return iovm_refuse(-ESTALE, msg, "epoch %llu is not newer than %llu, which %s %s", epoch,
			   dev->epoch, dev->name, dev->epoch_held ? "holds" : "had last");
}

/* @dev holds its epoch from now on. dev->lock. */
static void iovm_epoch_hold(struct iovm_dev *dev, u64 epoch, struct iovm_todo *todo)
{
	lockdep_assert_held(&dev->lock);
	dev->epoch = epoch;
	dev->epoch_held = true;
	iovm_event_emit(dev, NULL, IOVM_EV_EPOCH_TAKEN, 0, 0, 0, epoch);
	iovm_route_update(dev, todo);
	/* also what is bound to a path that is not the route */
	todo->wake = true;
}

/* A target's: sessions of an older one end, and all that they have issued, before it holds it. */
static int iovm_epoch_raise(struct iovm_dev *dev, u64 epoch, char *msg)
{
	struct iovm_todo todo;
	int err = 0;

	lockdep_assert_held(&dev->mutex);
	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (epoch < dev->epoch)
		err = iovm_epoch_refuse_stale(dev, epoch, msg);
	dev->epoch_held &= epoch <= dev->epoch;
	dev->epoch = max(dev->epoch, epoch);
	/* who waits for an older one does not any more */
	wake_up(&dev->wait);
	spin_unlock_irq(&dev->lock);
	if (err || dev->epoch_held)
		return err;

	dev->class->session_expire(dev);
	do {
		err = iovm_epoch_wait(dev, epoch, false, msg);
		if (err)
			return err;
		spin_lock_irq(&dev->lock);
		if (dev->epoch != epoch)
			err = iovm_refuse(-ESTALE, msg, "%s was raised to epoch %llu meanwhile",
					  dev->name, dev->epoch);
		/* held: another one has waited for the same, and there may be sessions */
		else if (!dev->epoch_held && (dev->nr_fe || !iovm_dev_settled(dev)))
			err = -EAGAIN;
		else if (!dev->epoch_held)
			iovm_epoch_hold(dev, epoch, &todo);
		spin_unlock_irq(&dev->lock);
	} while (err == -EAGAIN);
	iovm_todo_run(dev, &todo);
	return err;
}

/* Has it to do with epochs, and is this one? */
static int iovm_epoch_valid(const struct iovm_dev *dev, u64 epoch, char *msg)
{
	if (!iovm_dev_needs_epoch(dev))
		return iovm_refuse(-EOPNOTSUPP, msg, "%s was made without the need of an epoch",
				   dev->name);
	if (!epoch)
		return iovm_refuse(-EINVAL, msg, "an epoch is greater than 0");
	return 0;
}

/**
 * iovm_epoch_take - a device is to hold an epoch
 * @dev: which; a reference is held, and dev->mutex, which is dropped while a target waits
 * @epoch: which, newer than the last it had
 * @msg: why not
 *
 * Return: see IOVM_DEV_EPOCH_TAKE.
 */
int iovm_epoch_take(struct iovm_dev *dev, u64 epoch, char *msg)
{
	struct iovm_todo todo;
	int err;

	lockdep_assert_held(&dev->mutex);
	err = iovm_epoch_valid(dev, epoch, msg);
	if (err)
		return err;
	if (iovm_dev_is_target(dev))
		return iovm_epoch_raise(dev, epoch, msg);

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (dev->epoch_giving)
		err = iovm_refuse(-EBUSY, msg, "%s is just giving up epoch %llu", dev->name,
				  dev->epoch);
	else if (epoch < dev->epoch || (epoch == dev->epoch && !dev->epoch_held))
		err = iovm_epoch_refuse_stale(dev, epoch, msg);
	else if (epoch > dev->epoch)
		iovm_epoch_hold(dev, epoch, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	return err;
}

/* The first step: nothing is issued from here on. 1: it has been given up before. */
static int iovm_epoch_give_begin(struct iovm_dev *dev, u64 epoch, char *msg)
{
	struct iovm_todo todo;
	int err = 0;

	lockdep_assert_held(&dev->mutex);
	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (epoch != dev->epoch)
		err = iovm_refuse(-ESTALE, msg, "%s %s epoch %llu, not %llu", dev->name,
				  dev->epoch_held ? "holds" : "had last", dev->epoch, epoch);
	else if (!dev->epoch_held)
		err = 1;
	else if (dev->epoch_giving)
		err = iovm_refuse(-EBUSY, msg, "%s is just giving it up", dev->name);
	else if (dev->nr_fe)
		err = iovm_refuse(-EBUSY, msg, "%u queues of %s run: a guest uses it", dev->nr_fe,
				  dev->name);
	else
		dev->epoch_giving = true;
	if (!err)
		iovm_route_update(dev, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	return err;
}

/* The last one, if the queues are still stopped and all is settled. 0; -EAGAIN it is not; -EBUSY */
static int iovm_epoch_give_end(struct iovm_dev *dev, char *msg)
{
	int err = 0;

	lockdep_assert_held(&dev->mutex);
	spin_lock_irq(&dev->lock);
	if (!dev->epoch_giving) {
		err = iovm_refuse(-EBUSY, msg, "queues of %s have started meanwhile: it keeps it",
				  dev->name);
	} else if (!iovm_dev_settled(dev)) {
		err = -EAGAIN;
	} else {
		dev->epoch_giving = false;
		dev->epoch_held = false;
		iovm_event_emit(dev, NULL, IOVM_EV_EPOCH_GIVEN, 0, 0, 0, dev->epoch);
	}
	spin_unlock_irq(&dev->lock);
	return err;
}

/* It holds it as before. dev->lock. */
static void iovm_epoch_keep(struct iovm_dev *dev, struct iovm_todo *todo)
{
	lockdep_assert_held(&dev->lock);
	dev->epoch_giving = false;
	iovm_route_update(dev, todo);
	todo->wake = true;
	wake_up(&dev->wait);
}

/**
 * iovm_epoch_give - a device is to give up its epoch
 * @dev: which; a reference is held, and dev->mutex, which is dropped while it waits
 * @epoch: which it holds
 * @msg: why not
 *
 * Return: see IOVM_DEV_EPOCH_GIVE.
 */
int iovm_epoch_give(struct iovm_dev *dev, u64 epoch, char *msg)
{
	struct iovm_todo todo;
	int err;

	lockdep_assert_held(&dev->mutex);
	err = iovm_epoch_valid(dev, epoch, msg);
	if (err)
		return err;
	if (iovm_dev_is_target(dev))
		return iovm_refuse(-EOPNOTSUPP, msg, "%s is a target: its epoch is only raised",
				   dev->name);
	err = iovm_epoch_give_begin(dev, epoch, msg);
	if (err)
		return min(err, 0);
	do {
		err = iovm_epoch_wait(dev, epoch, true, msg);
		if (!err && dev->epoch_giving)
			err = iovm_dev_flush_paths(dev, msg);
		if (!err)
			err = iovm_epoch_give_end(dev, msg);
	} while (err == -EAGAIN);
	if (!err)
		return 0;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (dev->epoch_giving)
		iovm_epoch_keep(dev, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	return err;
}

/**
 * iovm_epoch_admits - may a session begin?
 * @dev: a target; dev->mutex is held
 * @epoch: of the session, 0 none
 * @msg: why not
 *
 * Return: 0; -EINVAL it needs none; -ESTALE older, or none; -ERANGE newer; -EBUSY not yet.
 */
int iovm_epoch_admits(struct iovm_dev *dev, u64 epoch, char *msg)
{
	int err = 0;

	lockdep_assert_held(&dev->mutex);
	if (!iovm_dev_needs_epoch(dev) && epoch)
		return iovm_refuse(-EINVAL, msg, "%s was made without the need of an epoch",
				   dev->name);
	if (!iovm_dev_needs_epoch(dev))
		return 0;
	spin_lock_irq(&dev->lock);
	if (!epoch)
		err = iovm_refuse(-ESTALE, msg, "%s admits no session without an epoch", dev->name);
	else if (epoch < dev->epoch)
		err = iovm_refuse(-ESTALE, msg, "the session's epoch %llu is older than %llu of %s",
				  epoch, dev->epoch, dev->name);
	else if (epoch > dev->epoch)
		err = iovm_refuse(-ERANGE, msg,
				  "the session's epoch %llu is newer than %llu of %s: raise that",
				  epoch, dev->epoch, dev->name);
	else if (!dev->epoch_held)
		err = iovm_refuse(-EBUSY, msg,
				  "%s does not hold epoch %llu: take it; older sessions may be ending",
				  dev->name, epoch);
	spin_unlock_irq(&dev->lock);
	return err;
}

void iovm_fe_begin(struct iovm_dev *dev)
{
	struct iovm_todo todo;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (!dev->nr_fe++ && iovm_dev_lacks_epoch(dev)) {
		if (dev->epoch_giving)
			iovm_epoch_keep(dev, &todo);
		else
			iovm_event_emit(dev, NULL, IOVM_EV_EPOCH_WANTED, 0, 0, 0, dev->epoch);
	}
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
}
EXPORT_SYMBOL_GPL(iovm_fe_begin);

void iovm_fe_end(struct iovm_dev *dev)
{
	spin_lock_irq(&dev->lock);
	dev->nr_fe--;
	wake_up(&dev->wait);
	spin_unlock_irq(&dev->lock);
}
EXPORT_SYMBOL_GPL(iovm_fe_end);
