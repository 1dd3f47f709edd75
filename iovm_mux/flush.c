// SPDX-License-Identifier: GPL-2.0
/*
 * What was acknowledged is made stable before its path goes, with it or with its device.
 *
 * A path's own FLUSH is no request of the front end's, but counts as one in flight: so it keeps the
 * path, and whoever waits for it waits as for requests: without dev->mutex, until he is killed.
 */
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "internal.h"

/**
 * iovm_path_flush - begin to make stable what a path acknowledged
 * @path: which; dev->mutex is held
 *
 * It is in flight until iovm_flush_done().
 *
 * Return: false when there is nothing to do, or this path cannot do it, or it has begun before.
 */
bool iovm_path_flush(struct iovm_path *path)
{
	struct iovm_dev *dev = path->dev;
	bool begin;

	lockdep_assert_held(&dev->mutex);
	spin_lock_irq(&dev->lock);
	begin = path->ops->flush && !path->in_flush && READ_ONCE(path->unflushed) &&
		(iovm_state_usable(path->state) || path->state == IOVM_PATH_DRAINING);
	if (begin) {
		path->in_flush = true;
		path->flush_error = 0;
		this_cpu_inc(path->pcpu->issued[IOVM_OP_FLUSH]);
		atomic_inc(&path->flushing);
		/* pairs with the barrier in iovm_path_flushed() */
		smp_mb__after_atomic();
		WRITE_ONCE(path->unflushed, false);
	}
	spin_unlock_irq(&dev->lock);
	if (begin)
		path->ops->flush(path);
	return begin;
}

void iovm_flush_done(struct iovm_path *path, int error)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_todo todo;
	unsigned long flags;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	path->in_flush = false;
	path->flush_error = error;
	if (error) {
		this_cpu_inc(path->pcpu->path_errors);
		WRITE_ONCE(path->unflushed, true);
	} else {
		this_cpu_inc(path->pcpu->done[IOVM_OP_FLUSH]);
	}
	atomic_dec(&path->flushing);
	if (error)
		iovm_path_error(path, error, &todo);
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);

	/* last, as in iovm_req_done() */
	rcu_read_lock_sched();
	this_cpu_inc(path->pcpu->ended);
	iovm_path_count_end(dev);
}
EXPORT_SYMBOL_GPL(iovm_flush_done);

/**
 * iovm_path_flush_failed - has a path's own FLUSH failed, and nobody was told?
 * @path: which; dev->mutex is held
 * @msg: says so
 *
 * Return: 0 or -EIO.
 */
int iovm_path_flush_failed(struct iovm_path *path, char *msg)
{
	int error;

	lockdep_assert_held(&path->dev->mutex);
	spin_lock_irq(&path->dev->lock);
	error = path->flush_error;
	path->flush_error = 0;
	spin_unlock_irq(&path->dev->lock);
	if (!error)
		return 0;
	return iovm_refuse(-EIO, msg, "the flush of path %s failed (error %d), and so it has",
			   path->name, error);
}

static bool iovm_dev_in_flush(struct iovm_dev *dev)
{
	struct iovm_path *path;
	bool in_flush = false;

	spin_lock_irq(&dev->lock);
	list_for_each_entry(path, &dev->paths, node)
		in_flush |= path->in_flush;
	spin_unlock_irq(&dev->lock);
	return in_flush;
}

/* 1 when a front end has the node open, and a FLUSH is its own affair; 0, or a negative errno. */
static int iovm_dev_in_use(struct iovm_dev *dev)
{
	struct iovm_dev_info *info = kzalloc(sizeof(*info), GFP_KERNEL);
	int in_use;

	if (!info)
		return -ENOMEM;
	dev->class->info(dev, info);
	in_use = !!info->in_use;
	kfree(info);
	return in_use;
}

/**
 * iovm_dev_flush_paths - make stable what was acknowledged on any path
 * @dev: which; a reference is held, and dev->mutex, which is dropped while it waits
 * @msg: why not
 *
 * A path that has failed is left out; but that a flush did it is told, once.
 *
 * Return: 0 when there was nothing to do, and the mutex has been held all the time; -EAGAIN when it
 * is done, and everything may have changed meanwhile; -EINTR killed; -EIO a flush failed, and its
 * path has; -ENODEV the device was destroyed meanwhile.
 */
int iovm_dev_flush_paths(struct iovm_dev *dev, char *msg)
{
	struct iovm_path *path;
	bool waited = false;
	int err = 0;

	list_for_each_entry(path, &dev->paths, node)
		waited |= iovm_path_flush(path);
	waited |= iovm_dev_in_flush(dev);
	if (waited) {
		mutex_unlock(&dev->mutex);
		atomic_inc(&dev->drainers);
		err = wait_event_killable(dev->wait, !iovm_dev_in_flush(dev));
		atomic_dec(&dev->drainers);
		mutex_lock(&dev->mutex);
		if (err)
			return iovm_refuse(-EINTR, msg, "interrupted; the device stays");
		if (dev->dead)
			return iovm_refuse(-ENODEV, msg, "the device was destroyed meanwhile");
	}
	list_for_each_entry(path, &dev->paths, node)
		err = iovm_path_flush_failed(path, msg) ?: err;
	if (err)
		return err;
	return waited ? -EAGAIN : 0;
}

/**
 * iovm_dev_flush - likewise, if there is no front end any more
 * @dev: as for iovm_dev_flush_paths()
 * @msg: why not
 *
 * Return: as iovm_dev_flush_paths(); 0 also when there is a front end; -ENOMEM.
 */
int iovm_dev_flush(struct iovm_dev *dev, char *msg)
{
	int err = iovm_dev_in_use(dev);

	return err ? min(err, 0) : iovm_dev_flush_paths(dev, msg);
}
