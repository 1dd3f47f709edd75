// SPDX-License-Identifier: GPL-2.0-or-later
#include "ctl.h"
#include "ktap.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

char ctl_msg[IOVM_MSG_MAX];
static int mux = -1;

static const char *const modules[] = { "vhost_iovm", "iovm_mux", "vhost_iovm_blk" };

int ctl_module_refcnt(const char *name)
{
	char path[128];
	FILE *f;
	int n = -1;

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%d", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

static int insmod(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
	close(fd);
	return r;
}

int ctl_load_modules(void)
{
	const char *dir = getenv("IOVM_MODULES");
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(modules); i++) {
		char buf[512];
		int r;

		if (ctl_module_refcnt(modules[i]) >= 0)
			continue;
		if (!dir) {
			snprintf(buf, sizeof(buf), "modprobe %s 2>/dev/null", modules[i]);
			if (system(buf))
				return -ENOENT;
			continue;
		}
		snprintf(buf, sizeof(buf), "%s/%s.ko", dir, modules[i]);
		r = insmod(buf);
		if (r == -ENOENT && access(buf, F_OK)) {
			snprintf(buf, sizeof(buf), "%s/%s/%s.ko", dir, modules[i], modules[i]);
			r = insmod(buf);
		}
		if (r && r != -EEXIST) {
			fprintf(stderr, "# insmod %s: %s\n", buf, strerror(-r));
			return r;
		}
	}
	return 0;
}

int ctl_unload_module(const char *name)
{
	return syscall(SYS_delete_module, name, O_NONBLOCK) ? -errno : 0;
}

const char *ctl_setup_keep(void)
{
	int i;

	if (mux >= 0)
		return NULL;

	if (geteuid())
		return "not root";
	if (ctl_load_modules())
		return "modules cannot be loaded";
	for (i = 0; i < 100; i++) {
		mux = open(VHOST_IOVM_MUX_NODE, O_RDWR | O_CLOEXEC);
		if (mux >= 0)
			return NULL;
		sleep_ms(20);
	}
	return "no " VHOST_IOVM_MUX_NODE;
}

const char *ctl_setup(void)
{
	const char *why;

	mux = -1;
	why = ctl_setup_keep();
	/* what an earlier program left behind when it was ended */
	if (!why)
		ctl_destroy_all("kt-");
	return why;
}

int ctl_fd(void)
{
	return mux;
}

int ctl_ioctl(unsigned long req, void *arg)
{
	return ioctl(mux, req, arg) < 0 ? -errno : 0;
}

#define CALL(req, arg) ({					\
	int r_;							\
	(arg)->size = sizeof(*(arg));				\
	r_ = ctl_ioctl(req, arg);				\
	memcpy(ctl_msg, (arg)->msg, sizeof(ctl_msg));		\
	ctl_msg[sizeof(ctl_msg) - 1] = 0;			\
	r_; })

static void put(char *to, const char *s, size_t n)
{
	if (s) {
		strncpy(to, s, n - 1);
		to[n - 1] = 0;
	}
}
#define PUT(f, s)	put(f, s, sizeof(f))

void ctl_dev_defaults(struct iovm_dev_create *c, const char *name, u64 sectors, unsigned int queues)
{
	memset(c, 0, sizeof(*c));
	c->class = IOVM_CLASS_BLK;
	PUT(c->name, name);
	c->mode = 0660;
	c->blk.capacity = sectors;
	c->blk.block_size = 512;
	c->blk.num_queues = queues;
	c->blk.queue_size = 256;
	c->blk.max_discard_sectors = 65536;
	c->blk.max_write_zeroes_sectors = 65536;
	memcpy(c->blk.serial, "serial-0123456789abc", IOVM_SERIAL_MAX);
	c->no_path_timeout_ms = 60000;
}

int ctl_dev_create(struct iovm_dev_create *c)
{
	return CALL(IOVM_DEV_CREATE, c);
}

void ctl_must_create(const char *name, u64 sectors, unsigned int queues)
{
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, name, sectors, queues);
	r = ctl_dev_create(&c);
	T_REQUIRE(r == 0, "create %s: %s: %s", name, strerror(-r), ctl_msg);
}

int ctl_session_add_arg(const char *dev, const int *fds, unsigned int nfds, struct iovm_session_add *a)
{
	PUT(a->dev, dev);
	a->nr_fds = nfds;
	memcpy(a->fds, fds, sizeof(*fds) * (nfds < IOVM_MAX_SOCKETS ? nfds : IOVM_MAX_SOCKETS));
	return CALL(IOVM_SESSION_ADD, a);
}

int ctl_session_add(const char *dev, const int *fds, unsigned int nfds, u32 flags, const char *peer, u32 *id)
{
	struct iovm_session_add a = { .flags = flags };
	int r;

	PUT(a.peer, peer);
	r = ctl_session_add_arg(dev, fds, nfds, &a);
	if (id)
		*id = a.id;
	return r;
}

int ctl_session_remove(const char *dev, u32 id)
{
	struct iovm_session_remove a = { .id = id };

	PUT(a.dev, dev);
	return CALL(IOVM_SESSION_REMOVE, &a);
}

int ctl_session_get(const char *dev, u32 id, struct iovm_session_info *i)
{
	memset(i, 0, sizeof(*i));
	i->size = sizeof(*i);
	i->id = id;
	PUT(i->dev, dev);
	return ctl_ioctl(IOVM_SESSION_GET, i);
}

int ctl_dev_destroy(const char *name, u32 flags)
{
	struct iovm_dev_destroy d = { .flags = flags };

	PUT(d.name, name);
	return CALL(IOVM_DEV_DESTROY, &d);
}

int ctl_dev_get(const char *name, struct iovm_dev_info *i)
{
	memset(i, 0, sizeof(*i));
	i->size = sizeof(*i);
	PUT(i->name, name);
	return ctl_ioctl(IOVM_DEV_GET, i);
}

int ctl_dev_ctl(const char *name, u32 op, const char *path, u64 value)
{
	struct iovm_dev_ctl c = { .op = op, .value = value };

	PUT(c.name, name);
	PUT(c.path, path);
	return CALL(IOVM_DEV_CTL, &c);
}

int ctl_dev_stats(const char *name, struct iovm_dev_stats *s)
{
	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	PUT(s->name, name);
	return ctl_ioctl(IOVM_DEV_STATS, s);
}

int ctl_path_add_arg(const char *dev, const char *path, const char *node, struct iovm_path_add *a)
{
	int r;

	a->type = IOVM_PATH_BDEV;
	PUT(a->dev, dev);
	PUT(a->name, path);
	PUT(a->addr, node);
	a->fd = open(node, O_RDWR | O_CLOEXEC);
	if (a->fd < 0 && errno == EACCES)
		a->fd = open(node, O_RDONLY | O_CLOEXEC);
	if (a->fd < 0)
		return -errno;
	r = CALL(IOVM_PATH_ADD, a);
	close(a->fd);
	return r;
}

int ctl_path_add_bdev(const char *dev, const char *path, const char *node, u32 flags, u32 fence)
{
	return ctl_path_add_bdev_id(dev, path, node, flags | IOVM_PATH_F_ASSUME_SAME, fence, NULL);
}

int ctl_path_add_bdev_id(const char *dev, const char *path, const char *node, u32 flags, u32 fence, const char *identity)
{
	struct iovm_path_add a = { .flags = flags, .fence = fence };

	PUT(a.identity, identity);
	return ctl_path_add_arg(dev, path, node, &a);
}

int ctl_path_add_nbd(const char *dev, const char *path, u32 flags, u32 fence, u32 heartbeat_ms, u32 dead_ms)
{
	return ctl_path_add_nbd_id(dev, path, flags | IOVM_PATH_F_ASSUME_SAME, fence, heartbeat_ms, dead_ms, NULL);
}

int ctl_path_add_nbd_id(const char *dev, const char *path, u32 flags, u32 fence, u32 heartbeat_ms, u32 dead_ms,
			const char *identity)
{
	struct iovm_path_add a = { .flags = flags, .fence = fence, .heartbeat_ms = heartbeat_ms, .dead_ms = dead_ms };

	PUT(a.identity, identity);
	return ctl_path_add_nbd_arg(dev, path, &a);
}

int ctl_path_add_nbd_arg(const char *dev, const char *path, struct iovm_path_add *a)
{
	a->type = IOVM_PATH_NBD;
	a->fd = -1;
	PUT(a->dev, dev);
	PUT(a->name, path);
	PUT(a->addr, "test");
	return CALL(IOVM_PATH_ADD, a);
}

int ctl_path_connect(const char *dev, const char *path, const int *fds, unsigned int nfds, u64 bytes, u32 nbd_flags,
		     u32 flags)
{
	return ctl_path_connect_id(dev, path, fds, nfds, bytes, nbd_flags, flags, NULL);
}

int ctl_path_connect_id(const char *dev, const char *path, const int *fds, unsigned int nfds, u64 bytes, u32 nbd_flags,
			u32 flags, const char *identity)
{
	struct iovm_path_connect c = {
		.nr_fds = nfds, .export_bytes = bytes, .nbd_flags = nbd_flags, .flags = flags,
	};
	unsigned int i;

	PUT(c.dev, dev);
	PUT(c.name, path);
	PUT(c.identity, identity);
	for (i = 0; i < nfds && i < IOVM_MAX_SOCKETS; i++)
		c.fds[i] = fds[i];
	return CALL(IOVM_PATH_CONNECT, &c);
}

int ctl_path_remove(const char *dev, const char *path, u32 flags)
{
	struct iovm_path_remove p = { .flags = flags };

	PUT(p.dev, dev);
	PUT(p.name, path);
	return CALL(IOVM_PATH_REMOVE, &p);
}

int ctl_path_get(const char *dev, const char *path, struct iovm_path_info *i)
{
	memset(i, 0, sizeof(*i));
	i->size = sizeof(*i);
	PUT(i->dev, dev);
	PUT(i->name, path);
	return ctl_ioctl(IOVM_PATH_GET, i);
}

int ctl_path_ctl(const char *dev, const char *path, u32 op)
{
	struct iovm_path_ctl c = { .op = op };

	PUT(c.dev, dev);
	PUT(c.name, path);
	return CALL(IOVM_PATH_CTL, &c);
}

int ctl_path_stats(const char *dev, const char *path, struct iovm_path_stats *s)
{
	memset(s, 0, sizeof(*s));
	s->size = sizeof(*s);
	PUT(s->dev, dev);
	PUT(s->name, path);
	return ctl_ioctl(IOVM_PATH_STATS, s);
}

void ctl_destroy_all(const char *prefix)
{
	struct iovm_dev_info i;
	u32 id = 0;

	for (;;) {
		memset(&i, 0, sizeof(i));
		i.size = sizeof(i);
		i.id = id;
		if (ctl_ioctl(IOVM_DEV_GET, &i))
			return;
		id = i.id + 1;
		if (!strncmp(i.name, prefix, strlen(prefix)))
			ctl_dev_destroy(i.name, IOVM_DESTROY_F_FORCE);
	}
}

bool ctl_wait_path_state(const char *dev, const char *path, u32 state, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	struct iovm_path_info i;

	do {
		if (!ctl_path_get(dev, path, &i) && i.state == state)
			return true;
		sleep_ms(5);
	} while (now_ns() < end);
	return false;
}

int ctl_wait_path_idle(const char *dev, const char *path, struct iovm_path_info *i, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	int r;

	for (;;) {
		r = ctl_path_get(dev, path, i);
		if (r || !i->inflight || now_ns() >= end)
			return r;
		sleep_ms(10);
	}
}

bool ctl_wait_dev_state(const char *dev, u32 state, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	struct iovm_dev_info i;

	do {
		if (!ctl_dev_get(dev, &i) && i.state == state)
			return true;
		sleep_ms(5);
	} while (now_ns() < end);
	return false;
}

char *ctl_node(const char *dev)
{
	static char path[128];
	int i;

	snprintf(path, sizeof(path), "%s/%s", VHOST_IOVM_NODE_DIR, dev);
	for (i = 0; i < 200 && access(path, F_OK); i++)
		sleep_ms(10);
	return path;
}

/* --- events --- */

int ctl_events_open(struct ctl_events *e)
{
	memset(e, 0, sizeof(*e));
	e->fd = open(VHOST_IOVM_MUX_NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	return e->fd < 0 ? -errno : 0;
}

void ctl_events_close(struct ctl_events *e)
{
	if (e->fd >= 0)
		close(e->fd);
	free(e->seen);
	memset(e, 0, sizeof(*e));
	e->fd = -1;
}

int ctl_events_poll(struct ctl_events *e, int timeout_ms)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	char buf[16384] __attribute__((aligned(8)));
	int nr = 0;

	if (poll(&p, 1, timeout_ms) <= 0)
		return 0;
	for (;;) {
		ssize_t n = read(e->fd, buf, sizeof(buf)), at = 0;

		if (n <= 0)
			return nr ? nr : n < 0 ? -errno : -EIO;
		while (at < n) {
			struct iovm_event *v = (void *)(buf + at);

			if (v->size < sizeof(*v) || at + (ssize_t)v->size > n)
				return -EPROTO;
			if (e->nr_seen == e->max_seen) {
				void *p2;

				e->max_seen = e->max_seen ? 2 * e->max_seen : 256;
				p2 = realloc(e->seen, e->max_seen * sizeof(*e->seen));
				if (!p2)
					return -ENOMEM;
				e->seen = p2;
			}
			if (v->type != IOVM_EV_LOST) {
				if (e->next_seq && v->seq != e->next_seq)
					e->gap = true;
				e->next_seq = v->seq + 1;
			} else {
				e->next_seq = v->seq;
			}
			e->seen[e->nr_seen++] = *v;
			at += v->size;
			nr++;
		}
	}
}

static int find(struct ctl_events *e, int from, u32 type, const char *dev, const char *path, int new_state,
		int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	unsigned int i = from;

	for (;;) {
		u64 now;

		ctl_events_poll(e, 0);
		for (; i < e->nr_seen; i++) {
			struct iovm_event *v = &e->seen[i];

			if (v->type == type && (!dev || !strcmp(v->dev, dev)) && (!path || !strcmp(v->path, path)) &&
			    (new_state < 0 || v->new_state == (u32)new_state))
				return i;
		}
		now = now_ns();
		if (now >= end)
			return -1;
		ctl_events_poll(e, (end - now) / 1000000 + 1);
	}
}

int ctl_events_wait(struct ctl_events *e, int from, u32 type, const char *dev, const char *path, int timeout_ms)
{
	return find(e, from, type, dev, path, -1, timeout_ms);
}

int ctl_events_wait_state(struct ctl_events *e, int from, const char *dev, const char *path, u32 new_state, int timeout_ms)
{
	return find(e, from, IOVM_EV_PATH_STATE, dev, path, new_state, timeout_ms);
}

unsigned int ctl_events_count(struct ctl_events *e, u32 type, const char *dev)
{
	unsigned int i, n = 0;

	ctl_events_poll(e, 0);
	for (i = 0; i < e->nr_seen; i++)
		if (e->seen[i].type == type && (!dev || !strcmp(e->seen[i].dev, dev)))
			n++;
	return n;
}

void ctl_events_dump(struct ctl_events *e)
{
	static const char *const name[] = {
		"LOST", "DEV_CREATED", "DEV_DESTROYED", "DEV_OPENED", "DEV_CLOSED", "PATH_ADDED", "PATH_STATE",
		"PATH_REMOVED", "FIRST_ERROR", "REROUTED", "FIRST_COMPLETION", "PARKED", "TIMEOUT", "SUSPENDED", "RESUMED",
		"HELD", "FENCED", "RESIZED", "QUEUE_BROKEN", "FAIL_PARKED", "NO_SPACE", "SPACE", "MEDIUM_ERROR",
		"OVERDUE", "SLOW", "SLOW_OVER", "SLOW_LEFT", "FENCE_FAILED", "SESSION_BEGUN", "SESSION_ENDED",
		[IOVM_EV_EPOCH_WANTED] = "EPOCH_WANTED", "EPOCH_TAKEN", "EPOCH_GIVEN", "KEYS_OLD", "REPLACED",
	};
	unsigned int i;

	ctl_events_poll(e, 0);
	for (i = 0; i < e->nr_seen; i++) {
		struct iovm_event *v = &e->seen[i];

		ktap_note("event %llu +%.3f ms %s %s/%s %u->%u error %d value %llu", (unsigned long long)v->seq,
			  (v->mono_ns - e->seen[0].mono_ns) / 1e6, v->type < ARRAY_SIZE(name) ? name[v->type] ?: "?" : "?", v->dev,
			  v->path, v->old_state, v->new_state, v->error, (unsigned long long)v->value);
	}
}
