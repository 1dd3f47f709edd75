// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The fields of devices and paths, each defined once for text and JSON, and how the views are filled.
 */
#include <errno.h>
#include <string.h>

#include "iovmctl.h"

const char *const dev_state_names[] = { "routed", "parked", "suspended", "failing", "no-epoch", NULL };
const char *const path_state_names[] = { "connecting", "live", "suspect", "failed", "draining", "removed", NULL };
const char *const path_type_names[] = { "none", "bdev", "nbd", NULL };
const char *const class_names[] = { "none", "blk", "net", "target", NULL };
const char *const op_names[] = { "read", "write", "flush", "discard", "write-zeroes", NULL };
const char *const nbd_flag_names[16] = {
	[NBD_READ_ONLY] = "read-only",
	[NBD_SEND_FLUSH] = "flush",
	[NBD_SEND_FUA] = "fua",
	[NBD_ROTATIONAL] = "rotational",
	[NBD_SEND_TRIM] = "trim",
	[NBD_SEND_WRITE_ZEROES] = "write-zeroes",
	[NBD_SEND_DF] = "df",
	[NBD_CAN_MULTI_CONN] = "multi-conn",
	[NBD_SEND_RESIZE] = "resize",
	[NBD_SEND_CACHE] = "cache",
	[NBD_SEND_FAST_ZERO] = "fast-zero",
};

static const char *const fence_names[] = { "default", "local-error", "none", "epoch", NULL };

#define D(m)	offsetof(struct dev_view, m)
const struct field dev_fields[] = {
	{ "name", "name", F_STR, D(i.name), .col = "NAME" },
	{ "id", "id", F_U32, D(i.id) },
	{ "class", "class", F_ENUM, D(i.class), .names = class_names },
	{ "state", "state", F_ENUM, D(i.state), .col = "STATE", .names = dev_state_names },
	{ "route", "route", F_STR, D(route), .col = "ROUTE", .zero = "none" },
	{ "route_by_hand", "route by hand", F_BOOL32, D(i.pinned) },
	{ NULL, "paths live", F_STR, D(paths), .col = "PATHS" },
	{ "paths_total", NULL, F_U32, D(i.nr_paths) },
	{ "paths_live", NULL, F_U32, D(live_paths) },
	{ NULL, "queues running", F_STR, D(queues), .col = "QUEUES" },
	{ "queues", NULL, F_U32, D(i.blk.num_queues) },
	{ "queues_running", NULL, F_U32, D(i.queues_running) },
	{ "size_bytes", "size", F_SECTORS, D(i.blk.capacity), .col = "SIZE" },
	{ NULL, "in use", F_STR, D(use), .col = "IN-USE" },
	{ "in_use", NULL, F_BOOL32, D(i.in_use) },
	{ "owner_pid", NULL, F_U32, D(i.owner_pid) },
	{ "node", "node", F_STR, D(node) },
	{ "identity", "data identity", F_STR, D(i.identity), .zero = "not known" },
	{ "read_only", "read only", F_BOOL32, D(rdonly) },
	{ "bounce_reads", "bounce reads", F_BOOL32, D(bounce_reads) },
	{ "needs_epoch", "needs an epoch", F_BOOL32, D(needs_epoch) },
	{ "epoch", "epoch", F_U64, D(i.epoch), .zero = "none" },
	{ "epoch_held", "epoch held", F_BOOL32, D(i.epoch_held) },
	{ "epoch_waits", "epoch just changes", F_BOOL32, D(i.epoch_waits) },
	{ "serial", "serial", F_SERIAL, D(i.blk.serial) },
	{ "block_size", "block size", F_U32, D(i.blk.block_size) },
	{ "physical_block_size", "physical block size", F_U32, D(i.blk.physical_block_size) },
	{ "opt_io_size", "optimal I/O size", F_SIZE32, D(i.blk.opt_io_size), .zero = "not stated" },
	{ "queue_size", "queue size", F_U32, D(i.blk.queue_size) },
	{ "seg_max", "segments", F_U32, D(i.blk.seg_max) },
	{ "max_discard_bytes", "discard up to", F_SECTORS32, D(i.blk.max_discard_sectors), .zero = "not offered" },
	{ "discard_granularity", "discard granularity", F_SIZE32, D(i.blk.discard_granularity), .zero = "not stated" },
	{ "max_write_zeroes_bytes", "write zeroes up to", F_SECTORS32, D(i.blk.max_write_zeroes_sectors),
	  .zero = "not offered" },
	{ "features", "virtio features", F_HEX64, D(i.features) },
	{ "inflight", "requests in flight", F_U64, D(i.inflight) },
	{ "requeued", "requests requeued", F_U64, D(i.requeued) },
	{ "held", "writes held for a fence", F_U64, D(i.held) },
	{ "no_space", "writes waiting for space", F_U64, D(i.no_space) },
	{ "no_space_ms", "without space for", F_MS, D(i.no_space_ms), .zero = "-" },
	{ "parked_ms", "without a route for", F_MS, D(i.parked_ms), .zero = "-" },
	{ "no_path_timeout_ms", "no-path timeout", F_MS, D(i.no_path_timeout_ms), .zero = "never" },
	{ "no_space_timeout_ms", "no-space timeout", F_MS, D(i.no_space_timeout_ms), .zero = "never" },
	{ "failback_after_ms", "failback after", F_MS, D(i.failback_after_ms), .zero = "by hand" },
	{ "slow_factor", "slow from times usual", F_U32, D(i.slow_factor), .zero = "off" },
	{ "leave_slow_after_ms", "slow paths left after", F_MS, D(i.leave_slow_after_ms), .zero = "never" },
	{ "iops", "IOPS limit", F_U64, D(i.iops), .zero = "none" },
	{ "bps", "bytes/s limit", F_SIZE, D(i.bps), .zero = "none" },
	{ "mem_bytes", "kernel memory", F_SIZE, D(i.mem_bytes) },
	{ 0 }
};

#define P(m)	offsetof(struct path_view, m)
const struct field path_fields[] = {
	{ "device", NULL, F_STR, P(i.dev) },
	{ "name", "path", F_STR, P(i.name), .col = "PATH" },
	{ "id", "id", F_U32, P(i.id) },
	{ "order", "order", F_U32, P(i.order), .col = "ORDER", .zero = "0" },
	{ "type", "type", F_ENUM, P(i.type), .col = "TYPE", .names = path_type_names },
	{ "state", "state", F_ENUM, P(i.state), .col = "STATE", .names = path_state_names },
	{ "state_since_ms", "for", F_MS, P(i.state_since_ms), .col = "SINCE" },
	{ "routed", "routed", F_BOOL32, P(routed), .col = "ROUTED" },
	{ "last_error", "last error", F_ERR, P(i.last_error) },
	{ "inflight", "requests in flight", F_U64, P(i.inflight), .col = "INFLIGHT" },
	{ "held", "writes held for a fence", F_U64, P(i.held), .col = "HELD" },
	{ "sockets", "sockets", F_U32, P(i.nr_sockets), .zero = "-" },
	{ "encrypted", "encrypted", F_BOOL32, P(i.tls) },
	{ "tls_records", "TLS records", F_U64, P(i.tls_records), .zero = "-" },
	{ "keys_old", "TLS keys old", F_BOOL32, P(i.keys_old) },
	{ "replaced", "sockets replaced", F_U32, P(i.replaced), .zero = "-" },
	{ "generation", "times connected", F_U32, P(i.generation) },
	{ "identity", "data identity", F_STR, P(i.identity), .zero = "none" },
	{ "same_data", "same data", F_STR, P(same_data), .col = "DATA" },
	{ "shared", "disk shared", F_BOOL32, P(shared) },
	{ "cache", "cache", F_STR, P(cache) },
	{ "fence", "fence", F_ENUM, P(i.fence), .names = fence_names },
	{ "fenced", "fenced", F_BOOL32, P(i.fenced) },
	{ "unsettled", "writes unsettled", F_U64, P(i.unsettled) },
	{ "in_doubt", "writes in doubt", F_BOOL32, P(i.in_doubt) },
	{ "fence_by", "to be fenced by", F_ENUM, P(i.fence_by), .names = fence_by_names },
	{ "fence_command", "fence command", F_STR, P(i.fence_command) },
	{ "pr_key", "reservation key", F_HEX64, P(i.pr_key), .zero = "none" },
	{ "fence_after_ms", "fence after", F_MS32, P(i.fence_after_ms), .zero = "-" },
	{ "fence_tries", "fences failed", F_U32, P(i.fence_tries) },
	{ "fence_status", "last fence", F_STR, P(fence_status) },
	{ "failed_by_hand", "failed by hand", F_BOOL32, P(i.by_hand) },
	{ "unflushed", "unflushed writes", F_BOOL32, P(i.unflushed) },
	{ "io_timeout_ms", "I/O timeout", F_MS32, P(i.io_timeout_ms), .zero = "never" },
	{ "oldest_ms", "oldest request", F_MS, P(i.oldest_ms), .zero = "-" },
	{ "slow", "slow", F_BOOL32, P(i.slow) },
	{ "slow_ms", "slow for", F_MS, P(i.slow_ms), .zero = "-" },
	{ "latency_ns", "latency", F_NS, P(i.lat_ns), .zero = "not known" },
	{ "usual_ns", "usual latency", F_NS, P(i.usual_ns), .zero = "not known yet" },
	{ "heartbeat_rtt_ns", "heartbeat takes", F_NS, P(i.rtt_ns), .zero = "-" },
	{ "size_bytes", "size", F_SECTORS, P(i.capacity), .zero = "not known yet" },
	{ "block_size", "block size", F_U32, P(i.block_size), .zero = "not known yet" },
	{ "heartbeat_ms", "heartbeat", F_MS32, P(i.heartbeat_ms), .zero = "-" },
	{ "dead_ms", "dead after", F_MS32, P(i.dead_ms), .zero = "-" },
	{ "nbd_flags", "NBD flags", F_STR, P(nbd_flags) },
	{ "addr", "address", F_STR, P(i.addr), .col = "ADDRESS" },
	{ 0 }
};

static void load_path(const struct iovm_path_info *info, uint32_t route_id, struct path_view *v)
{
	unsigned int i;
	size_t n = 0;

	memset(v, 0, sizeof(*v));
	v->i = *info;
	if (info->type != IOVM_PATH_NBD)
		v->i.heartbeat_ms = v->i.dead_ms = 0;	/* mean nothing there */
	if (info->fence_by == IOVM_FENCE_BY_HAND)
		v->i.fence_after_ms = 0;
	fence_status_text(v->fence_status, sizeof(v->fence_status), info->fence_status);
	if (info->io_timeout_ms == IOVM_NO_TIMEOUT)
		v->i.io_timeout_ms = 0;
	v->routed = route_id != IOVM_NO_ID && info->id == route_id;
	v->shared = !!(info->flags & IOVM_PATH_F_SHARED);
	if (info->flags & IOVM_PATH_F_CACHE_SURVIVES)
		strcpy(v->cache, "survives");
	else if (info->flags & IOVM_PATH_F_CACHE_DIES)
		strcpy(v->cache, "dies");
	if (info->flags & IOVM_PATH_F_ASSUME_SAME)
		strcpy(v->same_data, "assumed");
	else if (info->flags & IOVM_PATH_F_IDENTITY_GIVEN)
		strcpy(v->same_data, "stated");
	else
		strcpy(v->same_data, *info->identity ? "shown" : "unknown");
	for (i = 0; i < 16; i++)
		if (info->nbd_flags & 1u << i && nbd_flag_names[i])
			n += (size_t)snprintf(v->nbd_flags + n, sizeof(v->nbd_flags) - n, "%s%s", n ? " " : "",
					      nbd_flag_names[i]);
}

int load_dev(const struct iovm_dev_info *info, struct dev_view *v, struct path_view *paths, unsigned int *nr)
{
	struct iovm_path_info pi = { .id = 0 };
	unsigned int total = 0;
	int err;

	memset(v, 0, sizeof(*v));
	v->i = *info;
	if (info->slow_factor == IOVM_SLOW_OFF)
		v->i.slow_factor = 0;
	while (!(err = next_path(info->name, &pi))) {
		if (pi.id == info->route_id)
			snprintf(v->route, sizeof(v->route), "%s", pi.name);
		if (pi.state == IOVM_PATH_LIVE)
			v->live_paths++;
		if (paths && total < IOVM_MAX_PATHS)
			load_path(&pi, info->route_id, &paths[total]);
		total++;
		if (pi.id++ == IOVM_NO_ID - 1)
			break;
	}
	if (err && err != ENOENT)
		return err;
	if (nr)
		*nr = total < IOVM_MAX_PATHS ? total : IOVM_MAX_PATHS;
	v->i.nr_paths = total;
	v->rdonly = !!(info->flags & IOVM_DEV_F_RDONLY);
	v->bounce_reads = !!(info->flags & IOVM_DEV_F_BOUNCE_READS);
	v->needs_epoch = !!(info->flags & IOVM_DEV_F_EPOCH);
	snprintf(v->paths, sizeof(v->paths), "%u/%u", v->live_paths, total);
	snprintf(v->queues, sizeof(v->queues), "%u/%u", info->queues_running, info->blk.num_queues);
	if (info->class == IOVM_CLASS_TARGET)
		snprintf(v->use, sizeof(v->use), "%u session%s", info->in_use, info->in_use == 1 ? "" : "s");
	else if (info->in_use && info->owner_pid)
		snprintf(v->use, sizeof(v->use), "pid %u", info->owner_pid);
	else
		snprintf(v->use, sizeof(v->use), "%s", info->in_use ? "yes" : "no");
	if (info->class != IOVM_CLASS_TARGET)
		snprintf(v->node, sizeof(v->node), NODE_DIR "/%.*s", IOVM_NAME_MAX - 1, info->name);
	return 0;
}

int load_paths(const char *name, struct dev_view *v, struct path_view *paths, unsigned int *nr)
{
	struct iovm_dev_info info;
	int err;

	err = get_dev(name, &info);
	if (err)
		return err;
	err = load_dev(&info, v, paths, nr);
	return err ? mux_fail(err, NULL, NULL, "cannot read the paths of '%s'", name) : EX_DONE;
}

int take_paths(const struct cmd *cmd, const char *arg, struct dev_view *v, struct path_view *paths, unsigned int *nr)
{
	char name[IOVM_NAME_MAX];
	int err;

	err = take_name(cmd, "device", name, arg);
	if (!err)
		err = mux_open();
	return err ? err : load_paths(name, v, paths, nr);
}
