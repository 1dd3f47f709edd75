// SPDX-License-Identifier: GPL-2.0-or-later
#include "hosts.h"
#include "ktap.h"
#include "net.h"

#include <errno.h>
#include <glob.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NULLB		"iovmt0"
#define RTO_MIN_MS	200
#define RTTS_MAX	10
#define WATCH_EVERY_MS	100
#define WATCH_AFTER_MS	1000

const char *const bed_name[BED_KINDS] = { "dm", "scsi", "array", "array-fua", "hosts" };

static int path_bdev(struct bed_path *p, const char *name, const char *node)
{
	snprintf(p->name, sizeof(p->name), "%s", name);
	snprintf(p->node, sizeof(p->node), "%s", node);
	return 0;
}

u32 bed_time(const struct bed *b, u32 time)
{
	u64 t = (u64)time * (b->opts.tempo ?: 100) / 100;

	return time && !t ? 1 : t;
}

/* What it takes to send a request of a megabyte while TCP's window opens: eight times there and back, and the disk. */
static u32 window_ms(const struct bed *b)
{
	return RTTS_MAX * 2 * b->opts.latency_us / 1000;
}

void bed_path_nbd(struct bed *b, struct bed_path *p, const char *name, u32 flags)
{
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->nbd = true;
	p->net = net_is_up();
	p->sockets = 2;
	p->flags = flags;
	p->heartbeat_ms = bed_time(b, 100 * ktap_slowness());
	p->dead_ms = bed_time(b, 400 * ktap_slowness());
}

static int make_dm(struct bed *b)
{
	struct nullb_opts o = { .size_mb = b->sectors / 2048, .block_size = b->block, .memory_backed = true, .discard = true,
				.completion_nsec = b->opts.latency_us * 1000ull };
	unsigned int i;
	int r;

	r = nullb_create(NULLB, &o, b->store);
	for (i = 0; i < 2 && !r; i++) {
		struct bed_path *p = &b->path[i];

		snprintf(p->dm, sizeof(p->dm), "iovmt-%c", 'a' + i);
		r = dm_create(p->dm, dm_linear(b->store, b->sectors), p->node);
		snprintf(p->name, sizeof(p->name), "%c", 'a' + i);
	}
	bed_path_nbd(b, &b->path[2], "r", 0);
	return r ? r : nbdsrv_init(&b->path[2].srv, b->store, 0);
}

static int make_scsi(struct bed *b)
{
	char nodes[3][64], params[64];
	int r;

	snprintf(params, sizeof(params), "lbpu=1 lbpws=1 ndelay=%u", b->opts.latency_us * 1000);
	r = scsi_debug_load(3, b->sectors / 2048, b->block, params, nodes);
	if (r)
		return r;
	path_bdev(&b->path[0], "a", nodes[0]);
	path_bdev(&b->path[1], "b", nodes[1]);
	snprintf(b->store, sizeof(b->store), "%s", nodes[2]);
	bed_path_nbd(b, &b->path[2], "r", 0);
	return nbdsrv_init(&b->path[2].srv, b->store, 0);
}

static int make_array(struct bed *b)
{
	unsigned int i;
	int r = array_init(&b->array, b->sectors * 512);

	for (i = 0; i < 2 && !r; i++) {
		bed_path_nbd(b, &b->path[i], i ? "b" : "a",
			 b->kind == BED_ARRAY ? IOVM_PATH_F_CACHE_SURVIVES : IOVM_PATH_F_CACHE_DIES);
		r = array_serve(&b->array, i, &b->path[i].srv);
	}
	b->nr = 2;
	return r;
}

static int make_device(struct bed *b, struct bed_host *h)
{
	struct iovm_dev_create c;
	unsigned int i;
	int r;

	ctl_dev_defaults(&c, h->dev, b->sectors, b->queues);
	c.blk.block_size = b->block;
	c.no_path_timeout_ms = 0;
	c.flags = (b->opts.bounce ? IOVM_DEV_F_BOUNCE_READS : 0) | (b->epochs ? IOVM_DEV_F_EPOCH : 0);
	r = ctl_dev_create(&c);
	for (i = 0; i < b->nr && !r; i++)
		r = bed_path_add(b, &h->path[i]);
	return r;
}

int bed_make(struct bed *b, enum bed_kind kind, const struct bed_opts *opts, u32 block, unsigned int queues, u64 sectors,
	     struct model *m)
{
	unsigned int h, i;
	int r;

	memset(b, 0, sizeof(*b));
	b->kind = kind;
	b->opts = *opts;
	if (opts->io_timeout_ms)
		b->opts.io_timeout_ms = bed_time(b, opts->io_timeout_ms * ktap_slowness()) + window_ms(b);
	b->block = block;
	b->queues = queues;
	b->sectors = sectors;
	b->m = m;
	b->nr = 3;
	b->hosts = 1;
	b->made = true;
	b->ev.fd = -1;
	hosts_guest_at(b, 0);
	for (h = 0; h < BED_HOSTS_MAX; h++) {
		snprintf(b->host[h].dev, sizeof(b->host[h].dev), "kt-%u", h);
		for (i = 0; i < BED_PATHS; i++) {
			b->host[h].path[i].nr = i;
			b->host[h].path[i].host = h;
			strcpy(b->host[h].path[i].dev, b->host[h].dev);
		}
	}
	if (net_is_up()) {
		r = net_tune(b->opts.latency_us, bed_time(b, RTO_MIN_MS));
		if (r)
			return r;
	}
	r = kind == BED_DM ? make_dm(b) : kind == BED_SCSI ? make_scsi(b) : kind == BED_HOSTS ? hosts_make(b) : make_array(b);
	if (r)
		return r;
	r = ctl_events_open(&b->ev);
	if (r)
		return r;
	for (h = 0; h < b->hosts && !r; h++)
		r = make_device(b, &b->host[h]);
	if (!r && b->epochs)
		r = hosts_up(b);
	return r ? r : bed_heal(b, 10000);
}

void bed_free(struct bed *b)
{
	unsigned int h, i;

	if (!b->made)
		return;
	dm_suspend("iovmt-a", false);
	dm_suspend("iovmt-b", false);
	hosts_free(b);
	ctl_destroy_all("kt-");
	ctl_events_close(&b->ev);
	for (h = 0; h < b->hosts; h++)
		for (i = 0; i < BED_PATHS; i++)
			if (b->host[h].path[i].nbd && !b->host[h].path[i].target)
				nbdsrv_free(&b->host[h].path[i].srv);
	if (b->array.medium)
		array_free(&b->array);
	stor_cleanup();
	b->made = false;
}

/* Writes wait for the fault, not for a throttle that takes the delay for a slow disk. */
static void no_throttle(const struct bed_path *p)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/block/%s/queue/wbt_lat_usec", p->node + strlen("/dev/"));
	stor_write_file(path, "0");
}

int bed_path_add(struct bed *b, struct bed_path *p)
{
	struct iovm_path_add a = {
		.flags = p->flags | IOVM_PATH_F_ASSUME_SAME, .fence = p->fence, .heartbeat_ms = p->heartbeat_ms,
		.dead_ms = p->dead_ms, .io_timeout_ms = b->opts.io_timeout_ms,
	};
	int r;

	if (b->kind == BED_SCSI && !p->nbd)
		no_throttle(p);
	if (p->nbd)
		r = ctl_path_add_nbd_arg(p->dev, p->name, &a);
	else
		r = ctl_path_add_arg(p->dev, p->name, p->node, &a);
	if (r)
		model_mark(b->m, "add %s: %s: %s", p->name, strerror(-r), ctl_msg);
	return r;
}

int bed_path_state(struct bed *b, struct bed_path *p)
{
	struct iovm_path_info i;
	int r = ctl_path_get(p->dev, p->name, &i);

	(void)b;
	return r ? r : (int)i.state;
}

int bed_sockets(struct bed_path *p, int fds[], unsigned int n)
{
	unsigned int i;
	int sv[2], r;

	for (i = 0; i < n; i++) {
		if (p->net) {
			r = net_pair(sv);
			fds[i] = sv[0];
			if (!r)
				r = nbdsrv_adopt(&p->srv, sv[1]);
		} else {
			fds[i] = nbdsrv_connect(&p->srv, true);
			r = fds[i] < 0 ? fds[i] : 0;
		}
		if (r) {
			while (i--)
				close(fds[i]);
			return r;
		}
	}
	return 0;
}

int bed_connect(struct bed *b, struct bed_path *p, u64 bytes)
{
	int fds[IOVM_MAX_SOCKETS], r;
	unsigned int i;

	r = p->target ? hosts_sockets(b, p, fds) : bed_sockets(p, fds, p->sockets);
	if (r) {
		model_mark(b->m, "sockets for %s: %s", p->name, strerror(-r));
		return r;
	}
	/* who connects with such a fence has seen to it: heal_path() */
	r = ctl_path_connect(p->dev, p->name, fds, p->sockets, bytes, NBDSRV_FLAGS,
			     p->fence == IOVM_FENCE_EPOCH ? IOVM_NBD_F_DRAINED : 0);
	for (i = 0; i < p->sockets; i++)
		close(fds[i]);
	if (r)
		model_mark(b->m, "connect %s: %s: %s", p->name, strerror(-r), ctl_msg);
	return r;
}

void bed_kill_server(struct bed *b, struct bed_path *p)
{
	if (p->target)
		hosts_end_sessions(p);
	else
		nbdsrv_kill(&p->srv);
	/* nothing has a connection now: a controller that lost its host writes back, or its cache was in that server */
	if (b->kind == BED_ARRAY)
		array_destage(&b->array, p->nr);
	else if (b->kind == BED_ARRAY_FUA)
		array_lose(&b->array, p->nr);
}

static int heal_path(struct bed *b, struct bed_path *p)
{
	int state = bed_path_state(b, p);

	switch (state) {
	case -ENOENT:
		return bed_path_add(b, p);
	case IOVM_PATH_FAILED:
	case IOVM_PATH_CONNECTING:
		if (!p->nbd)
			return ctl_path_ctl(p->dev, p->name, IOVM_PATH_CTL_RETRY);
		/* what the old session has taken lands before there is a new one */
		bed_kill_server(b, p);
		if (!p->target)
			nbdsrv_land(&p->srv, false);
		else if (hosts_has_sessions(p->target->target, ~0ull))
			return -EBUSY;
		return bed_connect(b, p, b->sectors * 512);
	default:
		return 0;
	}
}

int bed_heal(struct bed *b, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	unsigned int i, bad;
	int r, last = 0;

	for (;;) {
		bad = 0;
		for (i = 0; i < b->nr * b->hosts; i++) {
			struct bed_path *p = &b->host[i / b->nr].path[i % b->nr];

			if (!hosts_wants(b, p) || bed_path_state(b, p) == IOVM_PATH_LIVE)
				continue;
			bad++;
			r = heal_path(b, p);
			if (r)
				last = r;
		}
		bed_events(b, 0);
		if (!bad)
			return 0;
		if (now_ns() > end)
			return last ? last : -ETIMEDOUT;
		sleep_ms(2);
	}
}

void bed_watch(void *bed)
{
	struct bed *b = bed;
	struct iovm_path_info i;
	unsigned int k;

	if (now_ns() < b->watched_ns + bed_time(b, WATCH_EVERY_MS) * 1000000ull)
		return;
	for (k = 0; k < b->nr; k++)
		if (b->path[k].nbd && hosts_wants(b, &b->path[k]) && !ctl_path_get(b->dev, b->path[k].name, &i) &&
		    i.state == IOVM_PATH_FAILED && i.state_since_ms >= bed_time(b, WATCH_AFTER_MS))
			heal_path(b, &b->path[k]);
	bed_events(b, 0);
	b->watched_ns = now_ns();
}

void bed_events(struct bed *b, int timeout_ms)
{
	static const char *const name[] = {
		"LOST", "DEV_CREATED", "DEV_DESTROYED", "DEV_OPENED", "DEV_CLOSED", "PATH_ADDED", "PATH_STATE",
		"PATH_REMOVED", "FIRST_ERROR", "REROUTED", "FIRST_COMPLETION", "PARKED", "TIMEOUT", "SUSPENDED", "RESUMED",
		"HELD", "FENCED", "RESIZED", "QUEUE_BROKEN", "FAIL_PARKED", [IOVM_EV_EPOCH_WANTED] = "EPOCH_WANTED",
		[IOVM_EV_EPOCH_TAKEN] = "EPOCH_TAKEN", [IOVM_EV_EPOCH_GIVEN] = "EPOCH_GIVEN",
	};
	unsigned int i;

	ctl_events_poll(&b->ev, timeout_ms);
	for (i = 0; i < b->ev.nr_seen; i++) {
		struct iovm_event *v = &b->ev.seen[i];

		if (strncmp(v->dev, "kt-", 3) || (!b->epochs && strcmp(v->dev, b->dev)))
			continue;
		model_mark(b->m, "%s%s%s %s %u->%u error %d value %llu at %.3f", b->epochs ? v->dev : "", b->epochs ? " " : "",
			   v->type < ARRAY_SIZE(name) && name[v->type] ? name[v->type] : "?", v->path, v->old_state, v->new_state, v->error,
			   (unsigned long long)v->value, ((double)v->mono_ns - (double)now_ns()) / 1e6);
		if (v->type == IOVM_EV_FIRST_COMPLETION && !strcmp(v->dev, b->dev) && b->nr_pauses < ARRAY_SIZE(b->pause_ns))
			b->pause_ns[b->nr_pauses++] = v->value;
		if (v->type == IOVM_EV_QUEUE_BROKEN)
			model_breach(b->m, ~0ull, "queue %llu is said to be broken: %s", (unsigned long long)v->value,
				     strerror(-v->error));
		if (v->type == IOVM_EV_TIMEOUT)
			model_breach(b->m, ~0ull, "requests were failed although they may wait for ever");
	}
	b->ev.nr_seen = 0;
}

int bed_storage_read(void *bed, void *buf, size_t len, u64 off)
{
	struct bed *b = bed;

	if (!b->store[0])
		return array_read(&b->array, buf, len, off);
	return stor_pread(b->store, buf, len, off);
}

/* --- SCSI --- */

int bed_scsi_pull(struct bed_path *p, char address[64])
{
	char link[128], target[256];
	ssize_t n;

	snprintf(link, sizeof(link), "/sys/block/%s/device", basename(p->node));
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = 0;
	snprintf(address, 64, "%.60s", basename(target));
	return scsi_remove(p->node);
}

int bed_scsi_plug(struct bed_path *p, const char *address)
{
	char path[160];
	int i, r;

	snprintf(path, sizeof(path), "/sys/class/scsi_host/host%d/scan", atoi(address));
	r = stor_write_file(path, "- - -");
	if (r)
		return r;
	snprintf(path, sizeof(path), "/sys/class/scsi_device/%s/device/block/*", address);
	for (i = 0; i < 500; i++) {
		glob_t g = {};

		if (!glob(path, 0, NULL, &g) && g.gl_pathc) {
			snprintf(p->node, sizeof(p->node), "/dev/%.50s", basename(g.gl_pathv[0]));
			globfree(&g);
			if (!access(p->node, F_OK) && stor_sectors(p->node))
				return 0;
		} else {
			globfree(&g);
		}
		sleep_ms(10);
	}
	return -ENODEV;
}
