// SPDX-License-Identifier: GPL-2.0
/*
 * The data path as long as all is well: an RCU read, a few per-cpu counters, two time stamps.
 *
 * A request is counted in path->pcpu->issued when it is routed, inside the RCU read section that
 * found the route, and in ->ended as the very last thing done for it on this path, inside another.
 * So once a path is not the route any more and a grace period is over, nothing new is counted
 * (what is bound to it is routed under dev->lock), and once the sums are equal and another grace
 * period is over, nobody touches it any more. iovm_dev_drain() and iovm_path_destroy() rely on
 * this. The sections disable preemption instead of calling rcu_read_lock(): synchronize_rcu() waits
 * for them just as well, and they cost two instructions instead of two calls.
 */
#include <linux/ktime.h>
#include <linux/module.h>

#include "internal.h"
#include "trace.h"

/* Flags with which a request cannot simply take the route. */
#define IOVM_REQ_SPECIAL	(IOVM_REQ_BOUND | IOVM_REQ_COUNTED | IOVM_REQ_STAMPED | \
				 IOVM_REQ_ELSEWHERE)

int iovm_req_route(struct iovm_req *req)
{
	struct iovm_dev *dev = req->dev;
	struct iovm_path *path;

	if (unlikely(req->flags & IOVM_REQ_SPECIAL))
		return iovm_req_route_slow(req);

	rcu_read_lock_sched();
	path = rcu_dereference_sched(dev->route);
	if (likely(path)) {
		this_cpu_inc(path->pcpu->issued[req->op]);
		rcu_read_unlock_sched();
		WRITE_ONCE(req->path, path);
		return 0;
	}
	rcu_read_unlock_sched();
	return iovm_req_route_slow(req);
}
EXPORT_SYMBOL_GPL(iovm_req_route);

void iovm_req_issue(struct iovm_req *req, u64 now_ns)
{
	struct iovm_path *path = req->path;

	WRITE_ONCE(req->issue_ns, now_ns);
	trace_iovm_submit(req);
	if (req->op == IOVM_OP_FLUSH) {
		atomic_inc(&path->flushing);
		/* pairs with the barrier in iovm_path_flushed() */
		smp_mb__after_atomic();
	}
	/* What is routed but not issued when its path fails never leaves: it needs no fence. */
	if (unlikely(READ_ONCE(path->state) == IOVM_PATH_FAILED)) {
		iovm_req_done(req, IOVM_RES_UNSENT, -ENOLINK);
		return;
	}
	/*
	 * Writes that completed before this point are covered; those that complete later set it
	 * again.
	 */
	if (req->op == IOVM_OP_FLUSH)
		WRITE_ONCE(path->unflushed, false);
	path->ops->submit(path, req);
}
EXPORT_SYMBOL_GPL(iovm_req_issue);

static __always_inline void iovm_req_finish_inline(struct iovm_req *req, int error)
{
	struct iovm_dev *dev = req->dev;

	this_cpu_inc(dev->pcpu->requests);
	if (unlikely(error))
		this_cpu_inc(dev->pcpu->errors);
	if (unlikely(req->error_ns || req->flags & (IOVM_REQ_BOUND | IOVM_REQ_NOSPC)))
		iovm_req_settle(req, error);
	dev->class->complete(req, error);
}

/* Hands a request back to its front end for good. */
void iovm_req_finish(struct iovm_req *req, int error)
{
	iovm_req_finish_inline(req, error);
}

/* Was this write acknowledged although it may be in a volatile cache that FLUSH empties? */
static inline bool iovm_req_unflushed(const struct iovm_req *req, const struct iovm_path *path)
{
	return iovm_op_modifies(req->op) && !(req->flags & IOVM_REQ_FUA) &&
	       !(path->flags & IOVM_PATH_F_CACHE_DIES);
}

static __always_inline void iovm_req_served(struct iovm_req *req, struct iovm_path *path)
{
	/* first, so that nothing else has to be kept while the clock is read */
	u64 now = ktime_get_ns(), issue_ns = req->issue_ns;
	struct iovm_path_pcpu __percpu *pcpu = path->pcpu;
	unsigned int op = req->op, lat = min(op, 2u);

	this_cpu_inc(pcpu->done[op]);
	this_cpu_add(pcpu->bytes[op], req->len);
	this_cpu_inc(pcpu->lat_ns[lat][iovm_hist_bucket(now - issue_ns)]);
	if (iovm_req_unflushed(req, path) && !READ_ONCE(path->unflushed))
		WRITE_ONCE(path->unflushed, true);
	if (unlikely(READ_ONCE(path->dev->switch_ns)))
		iovm_first_completion(path, issue_ns);
	if (unlikely(op == IOVM_OP_FLUSH)) {
		atomic_dec(&path->flushing);
		if (iovm_req_flush_rest(req))
			return;
	}
	iovm_req_finish_inline(req, 0);
}

void iovm_req_done(struct iovm_req *req, enum iovm_result res, int error)
{
	struct iovm_path *path = req->path;

	if (likely(res == IOVM_RES_OK)) {
		trace_iovm_complete(req, IOVM_RES_OK, 0);
		iovm_req_served(req, path);
	} else {
		trace_iovm_complete(req, res, error);
		iovm_req_error(req, res, error);
	}

	/* last: until here the path keeps the device, and the device its class */
	rcu_read_lock_sched();
	this_cpu_inc(path->pcpu->ended);
	iovm_path_count_end(path->dev);
}
EXPORT_SYMBOL_GPL(iovm_req_done);

void iovm_req_unroute(struct iovm_req *req)
{
	struct iovm_path *path = req->path;
	struct iovm_dev *dev = path->dev;
	unsigned long flags;

	if (req->flags & IOVM_REQ_BOUND && iovm_op_modifies(req->op)) {
		spin_lock_irqsave(&dev->lock, flags);
		path->nr_bound++;
		spin_unlock_irqrestore(&dev->lock, flags);
	}
	WRITE_ONCE(req->path, NULL);
	rcu_read_lock_sched();
	this_cpu_dec(path->pcpu->issued[req->op]);
	iovm_path_count_end(dev);
}
EXPORT_SYMBOL_GPL(iovm_req_unroute);

/*
 * Counts @req as issued to @path, which is reachable and under dev->lock; false when it takes
 * nothing any more.
 */
bool iovm_path_take(struct iovm_path *path, struct iovm_req *req)
{
	lockdep_assert_held(&path->dev->lock);
	if (!iovm_state_usable(path->state) && path->state != IOVM_PATH_DRAINING)
		return false;
	this_cpu_inc(path->pcpu->issued[req->op]);
	WRITE_ONCE(req->path, path);
	return true;
}
