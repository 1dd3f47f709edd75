// SPDX-License-Identifier: GPL-2.0
/*
 * What was acknowledged is made stable before its path goes.
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
