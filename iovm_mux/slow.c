// SPDX-License-Identifier: GPL-2.0
/*
 * Paths that are slower than they used to be: told, and by policy left before they die.
 *
 * Nothing on the data path takes part in this. A work looks once a second at the histograms that
 * each path keeps anyway, and has drift.c say whether that is still what is usual. A path that is
 * not keeps its state; it is marked slow, and IOVM_EV_SLOW says by how much.
 *
 * With dev->leave_slow_ms the route is switched when the path that is the route has been slow for
 * so long, another one is live, and that one is clearly better (iovm_choose_rival()): a heartbeat,
 * a small read that nobody asked for, says so. nbd paths that carry nothing have heartbeats always;
 * for types that can be asked (ops->measure) this work makes one a second, as long as somebody
 * wants to know. The switch is the same as one by hand: what is in flight ends where it is, and so
 * no fence is needed.
 *
 * A device does not go to and fro. The path that was left stays marked; it is no rival, and no
 * automatic failback goes to it, until it has answered IOVM_SLOW_ANSWERS heartbeats as it should
 * (one that takes longer undoes IOVM_SLOW_ANSWER_COSTS: a busy host delays one now and then), or
 * was failed and is live again. Between two such switches, and after one by hand,
 * IOVM_SLOW_HOLDOFF_MS must pass. Nothing goes back by itself but by the automatic failback.
 */
#include <linux/jiffies.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

#define IOVM_SLOW_LOOK_MS	1000		/* between two looks */
#define IOVM_SLOW_SAMPLE_MS	50		/* while a path is under suspicion */
#define IOVM_SLOW_HOLDOFF_MS	(600 * 1000ull)
#define IOVM_SLOW_STALE_MS	5000		/* and three heartbeats: an answer is too old */

struct iovm_drift *iovm_slow_alloc(void)
{
	return kzalloc(sizeof(struct iovm_drift), GFP_KERNEL_ACCOUNT);
}

int iovm_slow_check(u64 factor, char *msg)
{
	if (!factor || factor == IOVM_SLOW_OFF ||
	    (factor >= IOVM_SLOW_FACTOR_MIN && factor <= IOVM_SLOW_FACTOR_MAX))
		return 0;
	return iovm_refuse(-EINVAL, msg, "the factor at which a path is slow is %u to %u, or off",
			   IOVM_SLOW_FACTOR_MIN, IOVM_SLOW_FACTOR_MAX);
}

/**
 * iovm_slow_arm - keep looking
 * @dev: with the paths it has now; dev->lock is held
 */
void iovm_slow_arm(struct iovm_dev *dev)
{
	lockdep_assert_held(&dev->lock);
	/* not on iovm_wq: it takes dev->mutex, under which fail_work is waited for */
	if (!dev->dead && dev->slow_factor != IOVM_SLOW_OFF && dev->nr_paths)
		queue_delayed_work(system_unbound_wq, &dev->slow_work,
				   msecs_to_jiffies(IOVM_SLOW_LOOK_MS));
}

/* ---- marks ---- */

/* @path is slow from now on, or no longer. dev->lock. */
static void iovm_slow_mark(struct iovm_path *path, bool slow)
{
	struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->lock);
	WRITE_ONCE(path->slow, slow);
	path->slow_ns = ktime_get_ns();
	path->good_answers = 0;
	if (!slow)
		iovm_failback_arm(dev);
}

/**
 * iovm_slow_failed - a path has failed: how slow it was does not matter any more
 * @path: whose; dev->lock is held
 */
void iovm_slow_failed(struct iovm_path *path)
{
	lockdep_assert_held(&path->dev->lock);
	if (path->slow)
		iovm_slow_mark(path, false);
	path->rtt_ns = 0;
}

void iovm_path_answered(struct iovm_path *path, u64 rtt_ns)
{
	struct iovm_dev *dev = path->dev;
	unsigned long flags;

	spin_lock_irqsave(&dev->lock, flags);
	rtt_ns = max(rtt_ns, 1ull);
	/* the last few: one answer that was held up says nothing, neither does a quick one */
	path->rtt_ns = path->rtt_ns ? path->rtt_ns - path->rtt_ns / 4 + rtt_ns / 4 : rtt_ns;
	path->rtt_at_ns = ktime_get_ns();
	if (path->slow && rcu_access_pointer(dev->route) != path) {
		if (rtt_ns > max_t(u64, path->slow_usual_ns, IOVM_SLOW_FLOOR_NS))
			path->good_answers -= min(path->good_answers, IOVM_SLOW_ANSWER_COSTS);
		else
			path->good_answers++;
		if (path->good_answers >= IOVM_SLOW_ANSWERS) {
			iovm_slow_mark(path, false);
			iovm_event_emit_slow(path, IOVM_EV_SLOW_OVER, IOVM_OP_READ, path->rtt_ns,
					     path->slow_usual_ns);
		}
	}
	spin_unlock_irqrestore(&dev->lock, flags);
}
EXPORT_SYMBOL_GPL(iovm_path_answered);

/* What a heartbeat takes, 0 when there was none lately. dev->lock. */
static u64 iovm_slow_rtt(const struct iovm_path *path)
{
	u64 ms = IOVM_SLOW_STALE_MS + 3ull * path->heartbeat_ms;

	lockdep_assert_held(&path->dev->lock);
	if (!path->rtt_ns || ktime_get_ns() - path->rtt_at_ns > ms * NSEC_PER_MSEC)
		return 0;
	return path->rtt_ns;
}

/* ---- looking ---- */

/* Sum a path's counters, unless nothing has ended since the last time. dev->mutex. */
static void iovm_slow_sum(struct iovm_path *path)
{
	struct iovm_drift *d = path->drift;
	u64 ended = 0;
	int cpu, i, k;

	BUILD_BUG_ON(IOVM_DRIFT_LATS != ARRAY_SIZE(((struct iovm_path_pcpu *)0)->lat_ns));
	lockdep_assert_held(&path->dev->mutex);
	for_each_possible_cpu(cpu)
		ended += READ_ONCE(per_cpu_ptr(path->pcpu, cpu)->ended);
	if (ended == path->slow_ended)
		return;
	path->slow_ended = ended;

	memset(&d->now, 0, sizeof(d->now));
	for_each_possible_cpu(cpu) {
		const struct iovm_path_pcpu *p = per_cpu_ptr(path->pcpu, cpu);

		for (i = 0; i < IOVM_DRIFT_LATS; i++)
			for (k = 0; k < IOVM_HIST_BUCKETS; k++)
				d->now.lat[i][k] += READ_ONCE(p->lat_ns[i][k]);
		for (i = 0; i < IOVM_DRIFT_KINDS; i++)
			d->now.bytes[i] += READ_ONCE(p->bytes[i]);
	}
}

static void iovm_slow_look(struct iovm_path *path, u32 factor)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_drift *d = path->drift;
	enum iovm_drift_news news;

	lockdep_assert_held(&dev->mutex);
	iovm_slow_sum(path);
	news = iovm_drift_step(d, ktime_get_ns(), factor, READ_ONCE(path->slow));
	if (news == IOVM_DRIFT_NONE)
		return;

	spin_lock_irq(&dev->lock);
	if (news == IOVM_DRIFT_SLOW && !path->slow && iovm_state_usable(path->state)) {
		iovm_slow_mark(path, true);
		path->slow_usual_ns = d->usual_ns;
		iovm_event_emit_slow(path, IOVM_EV_SLOW, d->op, d->lat_ns, d->usual_ns);
	} else if (news == IOVM_DRIFT_OVER && path->slow) {
		iovm_slow_mark(path, false);
		iovm_event_emit_slow(path, IOVM_EV_SLOW_OVER, d->op, d->lat_ns, d->usual_ns);
	}
	spin_unlock_irq(&dev->lock);
}

/* May the route be left for being slow, as far as time goes? dev->lock. */
static bool iovm_slow_due(struct iovm_dev *dev, struct iovm_path *route)
{
	u64 now = ktime_get_ns(), holdoff = IOVM_SLOW_HOLDOFF_MS * NSEC_PER_MSEC;

	lockdep_assert_held(&dev->lock);
	if (!dev->leave_slow_ms || !route || !route->slow)
		return false;
	if (now - route->slow_ns < dev->leave_slow_ms * NSEC_PER_MSEC)
		return false;
	if (dev->slow_left_ns && now - dev->slow_left_ns < holdoff)
		return false;
	return !dev->pinned || now - dev->route_ns >= holdoff;
}

/* Leave the route, if it is slow and another path is better. dev->mutex. */
static void iovm_slow_leave(struct iovm_dev *dev, u32 factor)
{
	enum iovm_path_state state[IOVM_MAX_PATHS];
	struct iovm_path *paths[IOVM_MAX_PATHS];
	struct iovm_rival rival[IOVM_MAX_PATHS];
	struct iovm_path *route;
	struct iovm_todo todo;
	int n, cur, i;

	lockdep_assert_held(&dev->mutex);
	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	route = rcu_dereference_protected(dev->route, lockdep_is_held(&dev->lock));
	/* that it was slow once is not enough: it must be so in its newest window */
	if (!iovm_slow_due(dev, route) || !route->drift->bad)
		goto out;
	n = iovm_path_states(dev, state, paths, route, &cur);
	for (i = 0; i < n; i++)
		rival[i] = (struct iovm_rival) {
			.state = state[i],
			.slow = paths[i]->slow,
			.rtt_ns = iovm_slow_rtt(paths[i]),
			.usual_ns = iovm_drift_typical(paths[i]->drift, route->drift->op),
		};
	i = iovm_choose_rival(rival, n, cur, route->drift->lat_ns, factor);
	if (i < 0)
		goto out;
	dev->slow_left_ns = ktime_get_ns();
	iovm_event_emit_slow(route, IOVM_EV_SLOW_LEFT, route->drift->op, route->drift->lat_ns,
			     rival[i].rtt_ns);
	iovm_route_switch(dev, paths[i], false, &todo);
out:
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
}

/* Is it of interest how a path answers that carries nothing? dev->lock. */
static bool iovm_slow_wants_answer(struct iovm_path *path)
{
	struct iovm_dev *dev = path->dev;
	const struct iovm_path *route = rcu_dereference_protected(dev->route,
								  lockdep_is_held(&dev->lock));

	if (dev->dead || !path->ops->measure || path->state != IOVM_PATH_LIVE || path == route)
		return false;
	return path->slow || (route && route->slow && dev->leave_slow_ms);
}

/*
 * Ask a path for a heartbeat, if it is of interest and its type can. dev->mutex is held and dropped
 * meanwhile: the answer may take as long as the device likes. As in iovm_path_probe(), ->probing
 * keeps path and device.
 */
static void iovm_slow_measure(struct iovm_path *path)
{
	struct iovm_dev *dev = path->dev;
	bool go;
	u64 ns;

	lockdep_assert_held(&dev->mutex);
	spin_lock_irq(&dev->lock);
	go = !path->probing && !path->removing && !path->in_connect && iovm_slow_wants_answer(path);
	if (go)
		iovm_probing_begin(path);
	spin_unlock_irq(&dev->lock);
	if (!go)
		return;

	mutex_unlock(&dev->mutex);
	ns = ktime_get_ns();
	if (!path->ops->measure(path))
		iovm_path_answered(path, ktime_get_ns() - ns);
	spin_lock_irq(&dev->lock);
	iovm_probing_end(path);
	spin_unlock_irq(&dev->lock);
	mutex_lock(&dev->mutex);
}

void iovm_slow_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, slow_work);
	u32 factor = READ_ONCE(dev->slow_factor), id = 0;
	bool suspicion = false;
	struct iovm_path *path;

	mutex_lock(&dev->mutex);
	if (dev->dead || factor == IOVM_SLOW_OFF)
		goto out;
	list_for_each_entry(path, &dev->paths, node)
		iovm_drift_sample(path->drift, iovm_path_inflight(path));
	if (ktime_get_ns() - dev->slow_look_ns >= (IOVM_SLOW_LOOK_MS - 10) * NSEC_PER_MSEC) {
		dev->slow_look_ns = ktime_get_ns();
		list_for_each_entry(path, &dev->paths, node)
			iovm_slow_look(path, factor);
		iovm_slow_leave(dev, factor);
		/* by id, since the mutex is dropped in between */
		while (!dev->dead && (path = iovm_path_find(dev, "", id))) {
			id = path->id + 1;
			iovm_slow_measure(path);
		}
	}
	list_for_each_entry(path, &dev->paths, node)
		suspicion |= path->drift->bad && !READ_ONCE(path->slow);
	spin_lock_irq(&dev->lock);
	if (suspicion && !dev->dead)
		queue_delayed_work(system_unbound_wq, &dev->slow_work,
				   msecs_to_jiffies(IOVM_SLOW_SAMPLE_MS));
	else
		iovm_slow_arm(dev);
	spin_unlock_irq(&dev->lock);
out:
	mutex_unlock(&dev->mutex);
}

/* ---- for the operator ---- */

/* Also the way to have learned anew what is usual. dev->mutex. */
void iovm_slow_set_factor(struct iovm_dev *dev, u32 factor)
{
	struct iovm_path *path;

	lockdep_assert_held(&dev->mutex);
	list_for_each_entry(path, &dev->paths, node)
		iovm_drift_forget(path->drift);
	spin_lock_irq(&dev->lock);
	WRITE_ONCE(dev->slow_factor, factor ?: IOVM_SLOW_FACTOR);
	dev->slow_left_ns = 0;
	list_for_each_entry(path, &dev->paths, node)
		if (path->slow)
			iovm_slow_mark(path, false);
	iovm_slow_arm(dev);
	spin_unlock_irq(&dev->lock);
}

/* dev->mutex and dev->lock. */
void iovm_slow_info(struct iovm_path *path, struct iovm_path_info *info)
{
	lockdep_assert_held(&path->dev->mutex);
	lockdep_assert_held(&path->dev->lock);
	info->slow = path->slow;
	if (path->slow)
		info->slow_ms = max(div_u64(ktime_get_ns() - path->slow_ns, NSEC_PER_MSEC), 1ull);
	info->lat_ns = path->drift->lat_ns;
	info->usual_ns = path->drift->usual_ns;
	info->rtt_ns = iovm_slow_rtt(path);
}
