// SPDX-License-Identifier: GPL-2.0
/*
 * Sums over CPUs, and the records that GET and STATS return.
 */
#include <linux/percpu.h>

#include "internal.h"

/**
 * iovm_path_inflight - requests routed to a path and not ended
 * @path: which stays
 *
 * Exact while nothing new is routed to it, never too low then (see route.c); else a good guess.
 */
u64 iovm_path_inflight(struct iovm_path *path)
{
	s64 n = 0;
	int cpu, op;

	for_each_possible_cpu(cpu) {
		const struct iovm_path_pcpu *p = per_cpu_ptr(path->pcpu, cpu);

		for (op = 0; op < IOVM_OP_MAX; op++)
			n += READ_ONCE(p->issued[op]);
	}
	for_each_possible_cpu(cpu)
		n -= READ_ONCE(per_cpu_ptr(path->pcpu, cpu)->ended);
	return max(n, 0ll);
}

static u64 iovm_ago_ms(u64 ns)
{
	return div_u64(ktime_get_ns() - ns, NSEC_PER_MSEC);
}

static size_t iovm_dev_size(struct iovm_dev *dev)
{
	size_t cpus = num_possible_cpus();
	size_t path = sizeof(struct iovm_path) + sizeof(struct iovm_drift) +
		      sizeof(struct iovm_path_pcpu) * cpus;

	return sizeof(*dev) + sizeof(*dev->pcpu) * cpus + dev->nr_paths * path;
}

void iovm_dev_info_fill(struct iovm_dev *dev, struct iovm_dev_info *info)
{
	struct iovm_path *route, *path;
	u32 size = info->size;

	lockdep_assert_held(&dev->mutex);
	memset(info, 0, sizeof(*info));
	dev->class->info(dev, info);
	info->size = size;
	info->id = dev->id;
	memcpy(info->name, dev->name, sizeof(info->name));
	info->class = dev->class->id;
	info->flags = dev->flags;
	info->iops = dev->iops;
	info->bps = dev->bps;
	info->mem_bytes += iovm_dev_size(dev);
	info->requeued = max(atomic_read(&dev->nr_requeued), 0);
	memcpy(info->identity, dev->identity, sizeof(info->identity));

	spin_lock_irq(&dev->lock);
	info->state = dev->state;
	route = rcu_dereference_protected(dev->route, lockdep_is_held(&dev->lock));
	info->route_id = route ? route->id : IOVM_NO_ID;
	info->preferred_id = dev->preferred ? dev->preferred->id : IOVM_NO_ID;
	info->pinned = dev->pinned;
	info->nr_paths = dev->nr_paths;
	list_for_each_entry(path, &dev->paths, node) {
		info->inflight += iovm_path_inflight(path);
		info->held += path->nr_held;
	}
	info->no_path_timeout_ms = dev->no_path_timeout_ms;
	info->failback_after_ms = dev->failback_after_ms;
	if (!route)
		info->parked_ms = iovm_ago_ms(dev->parked_ns);
	info->epoch = dev->epoch;
	info->epoch_held = dev->epoch_held;
	info->epoch_waits = !!dev->epoch_waiters;
	info->slow_factor = dev->slow_factor;
	info->leave_slow_after_ms = dev->leave_slow_ms;
	info->no_space_timeout_ms = dev->no_space_timeout_ms;
	info->no_space = dev->nr_nospc;
	if (dev->nr_nospc)
		info->no_space_ms = iovm_ago_ms(dev->nospc_ns);
	spin_unlock_irq(&dev->lock);
}

void iovm_dev_stats_fill(struct iovm_dev *dev, struct iovm_dev_stats *stats)
{
	u32 size = stats->size;
	int cpu;

	memset(stats, 0, sizeof(*stats));
	stats->size = size;
	memcpy(stats->name, dev->name, sizeof(stats->name));
	for_each_possible_cpu(cpu) {
		const struct iovm_dev_pcpu *p = per_cpu_ptr(dev->pcpu, cpu);

		stats->requests += READ_ONCE(p->requests);
		stats->errors += READ_ONCE(p->errors);
		stats->throttled += READ_ONCE(p->throttled);
	}
	spin_lock_irq(&dev->lock);
	stats->requeues = dev->requeues;
	stats->reroutes = dev->reroutes;
	stats->parks = dev->parks;
	stats->fails = dev->fails;
	memcpy(stats->pause_ns, dev->pause_ns, sizeof(stats->pause_ns));
	stats->pause_max_ns = dev->pause_max_ns;
	stats->retakes = atomic64_read(&dev->retakes);
	spin_unlock_irq(&dev->lock);
}

void iovm_path_info_fill(struct iovm_path *path, struct iovm_path_info *info)
{
	struct iovm_dev *dev = path->dev;
	struct iovm_path *other;
	u32 size = info->size;
	u32 writes = 0;
	u64 oldest;

	lockdep_assert_held(&dev->mutex);
	memset(info, 0, sizeof(*info));
	info->capacity = path->capacity;
	info->block_size = path->block_size;
	if (path->ops->info)
		path->ops->info(path, info);
	info->size = size;
	info->id = path->id;
	memcpy(info->dev, dev->name, sizeof(info->dev));
	memcpy(info->name, path->name, sizeof(info->name));
	memcpy(info->addr, path->addr, sizeof(info->addr));
	info->type = path->ops->type;
	info->flags = path->flags;
	info->fence = path->fence;
	info->heartbeat_ms = path->heartbeat_ms;
	info->dead_ms = path->dead_ms;
	memcpy(info->identity, path->identity, sizeof(info->identity));
	info->io_timeout_ms = path->io_timeout_ms;
	oldest = dev->class->oldest ? dev->class->oldest(dev, path, &writes) : 0;
	if (oldest)
		info->oldest_ms = iovm_ago_ms(oldest);

	spin_lock_irq(&dev->lock);
	info->state = path->state;
	info->state_since_ms = iovm_ago_ms(path->state_ns);
	info->last_error = path->last_error;
	info->generation = path->generation;
	info->replaced = path->replaced;
	info->inflight = iovm_path_inflight(path);
	info->held = path->nr_held;
	info->fenced = path->fenced;
	info->in_doubt = path->in_doubt;
	iovm_slow_info(path, info);
	iovm_fence_info(path, writes, info);
	info->by_hand = path->state == IOVM_PATH_FAILED && path->by_hand;
	info->unflushed = READ_ONCE(path->unflushed);
	list_for_each_entry(other, &dev->paths, node) {
		if (other == path)
			break;
		info->order++;
	}
	spin_unlock_irq(&dev->lock);
}

void iovm_path_stats_fill(struct iovm_path *path, struct iovm_path_stats *stats)
{
	u32 size = stats->size;
	unsigned int i, k;
	int cpu;

	memset(stats, 0, sizeof(*stats));
	for_each_possible_cpu(cpu) {
		const struct iovm_path_pcpu *p = per_cpu_ptr(path->pcpu, cpu);

		for (i = 0; i < IOVM_OP_MAX; i++) {
			stats->issued[i] += READ_ONCE(p->issued[i]);
			stats->done[i] += READ_ONCE(p->done[i]);
			stats->bytes[i] += READ_ONCE(p->bytes[i]);
		}
		stats->request_errors += READ_ONCE(p->request_errors);
		stats->path_errors += READ_ONCE(p->path_errors);
		stats->retries += READ_ONCE(p->retries);
		stats->media_errors += READ_ONCE(p->media_errors);
		stats->no_space += READ_ONCE(p->no_space);
		for (i = 0; i < ARRAY_SIZE(p->lat_ns); i++)
			for (k = 0; k < IOVM_HIST_BUCKETS; k++)
				stats->lat_ns[i][k] += READ_ONCE(p->lat_ns[i][k]);
	}
	if (path->ops->stats)
		path->ops->stats(path, stats);
	stats->size = size;
	memcpy(stats->dev, path->dev->name, sizeof(stats->dev));
	memcpy(stats->name, path->name, sizeof(stats->name));
}
