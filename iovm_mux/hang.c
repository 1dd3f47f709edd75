// SPDX-License-Identifier: GPL-2.0
/*
 * Requests that do not come back.
 *
 * Nothing on the data path takes part in this: a work looks now and then how long the oldest
 * request of each path has been under way (the class knows its requests). At half of the path's
 * time-out the path is suspect: new requests go elsewhere, if anything else is live, and so does
 * what may (iovm_req_may_retake()). At the whole it has failed. What the block layer has not given
 * back by then may still land, or still write to guest memory: it waits until it ends, or until the
 * path was fenced, which the operator confirms (IOVM_PATH_CTL_FENCED).
 *
 * What may go elsewhere shall be there within io_timeout, and a FLUSH needs the whole of it: until
 * the path has failed it must reach what was acknowledged there. So the work does not only look at
 * regular intervals, but also when the oldest request it has seen comes to half and to all of its
 * time.
 *
 * A failed path that still owes requests is not probed: it would answer and hang again.
 */
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/module.h>

#include "internal.h"

#define IOVM_HANG_MIN_MS	5	/* between two looks */
#define IOVM_HANG_MAX_MS	1000

/* One path of a device, as the work looks at it without the lock. */
struct iovm_hang_look {
	const struct iovm_path *path;	/* to compare with */
	u32 id;
	u32 generation;
	bool busy;
	u64 oldest_ns;
};

/*
 * When to look again if nothing is about to be overdue: soon enough to see each request before half
 * of its time is over. 0: there is nothing to look for.
 */
static u64 iovm_hang_period(struct iovm_dev *dev)
{
	struct iovm_path *path;
	u64 ms = 0;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(path, &dev->paths, node)
		if (path->io_timeout_ms != IOVM_NO_TIMEOUT && (!ms || path->io_timeout_ms < ms))
			ms = path->io_timeout_ms;
	return ms ? clamp_t(u64, ms / 16, IOVM_HANG_MIN_MS, IOVM_HANG_MAX_MS) : 0;
}

/* Keep looking, and do so when something will be overdue, in @due_ms. dev->lock. */
static void iovm_hang_arm_due(struct iovm_dev *dev, u64 due_ms)
{
	u64 ms = iovm_hang_period(dev);

	lockdep_assert_held(&dev->lock);
	/* a timer is late by up to an eighth: that is left for the next one */
	if (ms)
		iovm_arm(dev, &dev->hang_work, min(ms, due_ms - due_ms / 8));
}

/**
 * iovm_hang_arm - keep looking
 * @dev: with the paths it has now; dev->lock is held
 */
void iovm_hang_arm(struct iovm_dev *dev)
{
	iovm_hang_arm_due(dev, U64_MAX);
}

/**
 * iovm_path_set_suspect - there is, or is no longer, a reason to suspect a path
 * @path: whose; dev->lock is held
 * @why: IOVM_SUSPECT_*
 * @suspect: which of both
 * @todo: what to do after the lock
 *
 * Without effect on a path that is neither live nor suspect.
 */
void iovm_path_set_suspect(struct iovm_path *path, u8 why, bool suspect, struct iovm_todo *todo)
{
	lockdep_assert_held(&path->dev->lock);
	if (suspect && iovm_state_usable(path->state)) {
		if (path->state == IOVM_PATH_LIVE)
			iovm_path_set_state(path, IOVM_PATH_SUSPECT,
					    why & IOVM_SUSPECT_OVERDUE ? -ETIMEDOUT : 0, todo);
		path->suspects |= why;
	} else if (!suspect && path->state == IOVM_PATH_SUSPECT) {
		path->suspects &= ~why;
		if (!path->suspects)
			iovm_path_set_state(path, IOVM_PATH_LIVE, 0, todo);
	}
}

void iovm_path_suspect(struct iovm_path *path, bool suspect)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_todo todo;
	unsigned long flags;

	iovm_todo_init(&todo);
	spin_lock_irqsave(&dev->lock, flags);
	iovm_path_set_suspect(path, IOVM_SUSPECT_SILENT, suspect, &todo);
	spin_unlock_irqrestore(&dev->lock, flags);
	iovm_todo_run(dev, &todo);
}
EXPORT_SYMBOL_GPL(iovm_path_suspect);

/**
 * iovm_retake_changed - have the front end look again what it may take back
 * @dev: whose; dev->lock is held
 * @todo: what to do after the lock
 */
void iovm_retake_changed(struct iovm_dev *dev, struct iovm_todo *todo)
{
	lockdep_assert_held(&dev->lock);
	WRITE_ONCE(dev->retake_seq, dev->retake_seq + 1);
	todo->wake = true;
}

/*
 * What the age of its oldest request says about a path. dev->lock.
 * Return: in how many ms it will say more.
 */
static u64 iovm_hang_judge(struct iovm_path *path, const struct iovm_hang_look *look,
			   struct iovm_todo *todo)
{
	u64 oldest_ns = look->oldest_ns, age_ms = 0, half_ms = path->io_timeout_ms / 2;
	struct iovm_dev *dev = path->dev;
	bool overdue;

	lockdep_assert_held(&dev->lock);
	/*
	 * The class does not know of what it has taken back. Nothing new comes while the path is
	 * suspect: once nothing is left, those have ended too.
	 */
	if (path->retaken && !look->busy)
		path->retaken = false;
	if (path->retaken && (!oldest_ns || oldest_ns > path->hung_ns))
		oldest_ns = path->hung_ns;
	if (oldest_ns)
		age_ms = div_u64(ktime_get_ns() - oldest_ns, NSEC_PER_MSEC);
	overdue = age_ms >= half_ms;
	if (overdue && !path->retaken)
		path->hung_ns = oldest_ns;
	if (overdue && !path->overdue_ms)
		iovm_event_emit(dev, path, IOVM_EV_OVERDUE, 0, 0, 0, age_ms);
	path->overdue_ms = overdue ? age_ms : 0;
	iovm_path_set_suspect(path, IOVM_SUSPECT_OVERDUE, overdue, todo);
	if (!overdue)
		return oldest_ns ? half_ms - age_ms : U64_MAX;
	if (age_ms >= path->io_timeout_ms && path->state != IOVM_PATH_DRAINING)
		iovm_path_error(path, -ETIMEDOUT, todo);
	/* those that could not be taken back the last time */
	iovm_retake_changed(dev, todo);
	return age_ms < path->io_timeout_ms ? path->io_timeout_ms - age_ms : U64_MAX;
}

void iovm_hang_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, hang_work);
	struct iovm_hang_look look[IOVM_MAX_PATHS];
	struct iovm_path *path;
	struct iovm_todo todo;
	u64 due_ms = U64_MAX;
	int n = 0, i;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	list_for_each_entry(path, &dev->paths, node) {
		if (path->io_timeout_ms == IOVM_NO_TIMEOUT)
			continue;
		look[n++] = (struct iovm_hang_look) {
			.path = path,
			.id = path->id,
			.generation = path->generation,
			.busy = iovm_path_inflight(path),
		};
	}
	spin_unlock_irq(&dev->lock);

	for (i = 0; i < n; i++)
		if (look[i].busy && dev->class->oldest)
			look[i].oldest_ns = dev->class->oldest(dev, look[i].path, NULL);

	spin_lock_irq(&dev->lock);
	list_for_each_entry(path, &dev->paths, node)
		for (i = 0; i < n; i++)
			/* what was seen of its past says nothing of a path that is live again */
			if (look[i].path == path && look[i].id == path->id &&
			    look[i].generation == path->generation)
				due_ms = min(due_ms, iovm_hang_judge(path, &look[i], &todo));
	iovm_hang_arm_due(dev, due_ms);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
}

/* The path that owes @req for too long, while another is the route; or NULL. dev->lock. */
static struct iovm_path *iovm_req_hung_on(const struct iovm_req *req)
{
	struct iovm_dev *dev = req->dev;
	struct iovm_path *path, *route;

	lockdep_assert_held(&dev->lock);
	/* NULL: it is the mux's, and comes back by itself */
	path = READ_ONCE(req->path);
	route = rcu_dereference_protected(dev->route, lockdep_is_held(&dev->lock));
	if (!path || !route || route == path)
		return NULL;
	if (path->state != IOVM_PATH_FAILED && !(path->suspects & IOVM_SUSPECT_OVERDUE))
		return NULL;
	return path;
}

bool iovm_req_hangs(const struct iovm_req *req)
{
	struct iovm_dev *dev = req->dev;
	unsigned long flags;
	bool hangs;

	spin_lock_irqsave(&dev->lock, flags);
	hangs = iovm_req_hung_on(req);
	spin_unlock_irqrestore(&dev->lock, flags);
	return hangs;
}
EXPORT_SYMBOL_GPL(iovm_req_hangs);

bool iovm_req_may_retake(struct iovm_req *req, bool bounced)
{
	struct iovm_dev *dev = req->dev;
	struct iovm_path *path;
	unsigned long flags;
	bool may = false;

	spin_lock_irqsave(&dev->lock, flags);
	path = iovm_req_hung_on(req);
	if (path) {
		bool failed = path->state == IOVM_PATH_FAILED;

		if (req->op == IOVM_OP_READ && bounced)
			may = true;
		else if (req->op == IOVM_OP_FLUSH)
			/* the rest of one has to come back here as long as the path is usable */
			may = failed || !(req->flags & IOVM_REQ_BOUND);
		else if (iovm_op_modifies(req->op))
			may = failed && path->fenced;
		if (may)
			path->retaken = true;
	}
	spin_unlock_irqrestore(&dev->lock, flags);
	return may;
}
EXPORT_SYMBOL_GPL(iovm_req_may_retake);
