// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A stand-in for /dev/iovm-mux, preloaded into iovmctl by test_iovmctl_cli.sh.
 *
 *   vm1        two paths: local (bdev, live, routed), hostb (nbd, live)
 *   vm-2.data  parked; one path, a (nbd, failed), whose address needs escaping; its socket path is $IOVM_FAKE_ADDR if set, and
 *              $IOVM_FAKE_IDENTITY what the operator said of its data
 *
 * What a process creates, it also sees. Nothing outlives the process. Settings from the environment:
 *
 *   IOVM_FAKE_LOG=FILE      requests are appended there, a line each
 *   IOVM_FAKE_FAIL=NR:ERRNO[:MSG]   the ioctl with this number fails
 *   IOVM_FAKE_ABI=N         the version reported
 *   IOVM_FAKE_DELAY=MS      suspend and path removal take this long
 *   IOVM_FAKE_OPEN=ERRNO    the node cannot be opened
 *   IOVM_FAKE_FENCE=PROGRAM a of vm-2.data is to be fenced by this program; what became of it is kept in the file
 *   IOVM_FAKE_FENCED=FILE   so that all processes see it
 *   IOVM_FAKE_FENCE_AFTER=MS   not before; the path has been failed for 90000
 *   IOVM_FAKE_BY_HAND=FILE  while it is there, a of vm-2.data was failed by hand, after its error
 *   IOVM_FAKE_QUICKER=1     another process has always just connected what is to be connected
 *   IOVM_FAKE_ONLY=NAME     of the devices above there is this one alone
 *   IOVM_FAKE_FEATURES=N    what devices that are created offer
 *
 * IOVM_PATH_CONNECT reads a block from every socket it gets, as the kernel would.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "iovm.h"

#define NR(ioc)	((ioc) & 0xff)
#define MS	1000000ULL

static int fake_fd = -1, feed_fd = -1;
static struct iovm_dev_info devs[4];
static struct iovm_path_info paths[8];
static struct {
	uint32_t mode, uid, gid;
} nodes[4];
static unsigned int nr_devs, nr_paths;

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
	const char *file = getenv("IOVM_FAKE_LOG");
	FILE *f = file ? fopen(file, "a") : NULL;
	va_list ap;

	if (!f)
		return;
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fputc('\n', f);
	fclose(f);
}

static struct iovm_path_info *add_path(const char *dev, const char *name, uint32_t type, uint32_t state)
{
	struct iovm_path_info *p = &paths[nr_paths];

	p->id = nr_paths++;
	strcpy(p->dev, dev);
	strcpy(p->name, name);
	p->type = type;
	p->state = state;
	p->fence = type == IOVM_PATH_NBD ? IOVM_FENCE_NONE : IOVM_FENCE_LOCAL_ERROR;
	p->flags = type == IOVM_PATH_NBD ? IOVM_PATH_F_CACHE_DIES : IOVM_PATH_F_CACHE_SURVIVES;
	p->io_timeout_ms = 10000;
	p->capacity = 1 << 20;
	p->block_size = 512;
	p->state_since_ms = 90000;
	return p;
}

static struct iovm_dev_info *add_dev(uint32_t id, const char *name)
{
	struct iovm_dev_info *d = &devs[nr_devs];

	nodes[nr_devs].mode = 0640;
	nodes[nr_devs].uid = 12;
	nodes[nr_devs++].gid = 34;
	d->id = id;
	strcpy(d->name, name);
	d->class = IOVM_CLASS_BLK;
	d->route_id = d->preferred_id = IOVM_NO_ID;
	d->state = IOVM_DEV_PARKED;
	d->blk.capacity = 1 << 20;
	d->blk.block_size = 512;
	d->blk.physical_block_size = 4096;
	d->blk.num_queues = 4;
	d->blk.queue_size = 128;
	d->no_path_timeout_ms = 300000;
	d->mem_bytes = 70000;
	return d;
}

static void set_up(void)
{
	const char *addr = getenv("IOVM_FAKE_ADDR"), *identity = getenv("IOVM_FAKE_IDENTITY"), *only = getenv("IOVM_FAKE_ONLY");
	struct iovm_dev_info *d;
	struct iovm_path_info *p;

	if (only && !strcmp(only, "vm-2.data"))
		goto second;
	d = add_dev(0, "vm1");
	d->state = IOVM_DEV_ROUTED;
	d->in_use = 1;
	d->owner_pid = 4711;
	d->queues_running = 4;
	d->inflight = 12;
	d->features = 0x130001e54ULL;
	memcpy(d->blk.serial, "12345678901234567890", IOVM_SERIAL_MAX);	/* no room for a NUL */
	p = add_path("vm1", "local", IOVM_PATH_BDEV, IOVM_PATH_LIVE);
	d->route_id = d->preferred_id = p->id;
	strcpy(p->addr, "/dev/sdb");
	p = add_path("vm1", "hostb", IOVM_PATH_NBD, IOVM_PATH_LIVE);
	p->order = 1;
	p->nr_sockets = 4;
	p->nbd_flags = 0x16d;
	strcpy(p->addr, "nbd://hostb:10809/vm1");

	if (only)
		return;
second:
	d = add_dev(3, "vm-2.data");
	d->parked_ms = 61000;
	d->held = 3;
	p = add_path("vm-2.data", "a", IOVM_PATH_NBD, IOVM_PATH_FAILED);
	p->last_error = -ECONNRESET;
	p->held = 3;
	p->generation = 5;
	if (getenv("IOVM_FAKE_FENCE")) {
		p->fence_by = IOVM_FENCE_BY_COMMAND;
		p->fence_after_ms = getenv("IOVM_FAKE_FENCE_AFTER") ? (uint32_t)atoi(getenv("IOVM_FAKE_FENCE_AFTER")) : 3000;
		snprintf(p->fence_command, sizeof(p->fence_command), "%s", getenv("IOVM_FAKE_FENCE"));
	}
	if (identity) {
		snprintf(p->identity, sizeof(p->identity), "%s", identity);
		p->flags |= IOVM_PATH_F_IDENTITY_GIVEN;
	}
	snprintf(p->addr, sizeof(p->addr), "%s", addr ? addr : "nbd://h/quote\"back\\slash\x01\xff");
}

static void feed_event(uint64_t seq, uint32_t type, const char *path, uint32_t old, uint32_t new, int error, uint64_t value)
{
	struct iovm_event e = { .size = sizeof(e), .type = type, .seq = seq, .mono_ns = seq * MS,
				.real_ns = 1700000000000000000ULL + seq * MS, .old_state = old, .new_state = new,
				.error = error, .value = value, .dev = "vm1" };

	strcpy(e.path, path);
	if (write(feed_fd, &e, sizeof(e)) != sizeof(e))
		abort();
}

/* A record from a newer kernel: longer, of a type nobody here knows */
static void feed_unknown(uint64_t seq)
{
	struct {
		struct iovm_event e;
		char more[32];
	} r = { .e = { .size = sizeof(r), .type = 999, .seq = seq, .value = 5, .dev = "vm1" } };

	if (write(feed_fd, &r, sizeof(r)) != sizeof(r))
		abort();
}

static void feed_all(void)
{
	feed_event(41, IOVM_EV_FIRST_ERROR, "local", 0, 0, -EIO, 0);
	feed_event(42, IOVM_EV_PATH_STATE, "local", IOVM_PATH_LIVE, IOVM_PATH_FAILED, -EIO, 0);
	feed_unknown(43);
	feed_event(44, IOVM_EV_REROUTED, "hostb", 0, 0, 0, 1500000);
	feed_event(45, IOVM_EV_FIRST_COMPLETION, "hostb", 0, 0, 0, 2500000);
}

/* How often a could not be fenced, how the last one ended; 0 0 when it was. */
static void fence_state(struct iovm_path_info *p)
{
	const char *file = getenv("IOVM_FAKE_FENCED");
	FILE *f = file ? fopen(file, "r") : NULL;

	p->unsettled = 3;
	if (!f)
		return;
	if (fscanf(f, "%u %d", &p->fence_tries, &p->fence_status) == 2 && !p->fence_tries) {
		p->fenced = 1;
		p->unsettled = 0;
	}
	fclose(f);
}

static void fence_ended(const struct iovm_path_info *p, int status)
{
	const char *file = getenv("IOVM_FAKE_FENCED");
	FILE *f = file ? fopen(file, "w") : NULL;

	if (!f)
		return;
	fprintf(f, "%u %d\n", status ? p->fence_tries + 1 : 0, status);
	fclose(f);
}

static int fake_open(void)
{
	const char *err = getenv("IOVM_FAKE_OPEN");
	int p[2];

	if (err) {
		errno = atoi(err);
		return -1;
	}
	if (pipe2(p, O_CLOEXEC))
		return -1;
	fake_fd = p[0];
	feed_fd = p[1];
	set_up();
	return fake_fd;
}

int open(const char *file, int flags, ...)
{
	int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	mode_t mode;
	va_list ap;

	/* a second time it is opened for a lock */
	if (!strcmp(file, "/dev/iovm-mux") && fake_fd >= 0)
		return real(getenv("IOVM_FAKE_LOG"), O_RDWR | O_CLOEXEC);
	if (!strcmp(file, "/dev/iovm-mux"))
		return fake_open();
	va_start(ap, flags);
	mode = va_arg(ap, mode_t);
	va_end(ap);
	return real(file, flags, mode);
}

static struct iovm_dev_info *dev_named(const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_devs; i++)
		if (!strcmp(devs[i].name, name))
			return &devs[i];
	return NULL;
}

/* The nodes of devices are there, for whoever asks whose they are. */
int stat(const char *file, struct stat *st)
{
	int (*real)(const char *, struct stat *) = (int (*)(const char *, struct stat *))dlsym(RTLD_NEXT, "stat");
	const char dir[] = "/dev/vhost-iovm/";
	struct iovm_dev_info *d = NULL;

	if (strncmp(file, dir, strlen(dir)))
		return real(file, st);
	d = dev_named(file + strlen(dir));
	if (!d) {
		errno = ENOENT;
		return -1;
	}
	memset(st, 0, sizeof(*st));
	st->st_mode = S_IFCHR | nodes[d - devs].mode;
	st->st_uid = nodes[d - devs].uid;
	st->st_gid = nodes[d - devs].gid;
	return 0;
}

static struct iovm_path_info *path_named(const char *dev, const char *name)
{
	unsigned int i;

	for (i = 0; i < nr_paths; i++)
		if (!strcmp(paths[i].dev, dev) && !strcmp(paths[i].name, name))
			return &paths[i];
	return NULL;
}

static int dev_get(struct iovm_dev_info *arg)
{
	struct iovm_dev_info *d = NULL;
	unsigned int i;

	if (*arg->name)
		d = dev_named(arg->name);
	else
		for (i = 0; i < nr_devs && !d; i++)
			if (devs[i].id >= arg->id)
				d = &devs[i];
	if (!d)
		return ENOENT;
	*arg = *d;
	arg->size = sizeof(*d);
	return 0;
}

static int path_get(struct iovm_path_info *arg)
{
	struct iovm_path_info *p = NULL;
	unsigned int i;

	if (*arg->name)
		p = path_named(arg->dev, arg->name);
	else
		for (i = 0; i < nr_paths && !p; i++)
			if (!strcmp(paths[i].dev, arg->dev) && paths[i].id >= arg->id)
				p = &paths[i];
	if (!p)
		return ENOENT;
	if (p->fence_by)
		fence_state(p);
	if (!strcmp(p->name, "a") && getenv("IOVM_FAKE_BY_HAND"))
		p->by_hand = !access(getenv("IOVM_FAKE_BY_HAND"), F_OK);
	*arg = *p;
	arg->size = sizeof(*p);
	return 0;
}

static int path_ctl(struct iovm_path_ctl *c)
{
	struct iovm_path_info *p = path_named(c->dev, c->name);

	note("path-ctl %s op=%u", c->name, c->op);
	if (!p)
		return ENOENT;
	if (c->op < IOVM_PATH_CTL_FENCED)
		return 0;
	if (c->op == IOVM_PATH_CTL_SET_FENCE) {
		note("path-set fence-by=%u after=%u command=%s", c->fence_by, c->fence_after_ms, c->fence_command);
		return 0;
	}
	note("path-ctl id=%u generation=%u status=%d", c->id, c->generation, c->status);
	fence_ended(p, c->status);
	return 0;
}

static int create(struct iovm_dev_create *c)
{
	struct iovm_dev_info *d;

	note("create %s flags=%u mode=%o uid=%u gid=%u no_path=%llu failback=%llu iops=%llu bps=%llu capacity=%llu bs=%u pbs=%u "
	     "queues=%u qsize=%u seg=%u discard=%u zeroes=%u serial=%.20s", c->name, c->flags, c->mode, c->uid, c->gid,
	     c->no_path_timeout_ms, c->failback_after_ms, c->iops, c->bps, c->blk.capacity, c->blk.block_size,
	     c->blk.physical_block_size, c->blk.num_queues, c->blk.queue_size, c->blk.seg_max, c->blk.max_discard_sectors,
	     c->blk.max_write_zeroes_sectors, c->blk.serial);
	if (*c->identity || c->no_space_timeout_ms)
		note("create identity=%s no_space=%llu", c->identity, c->no_space_timeout_ms);
	if (c->epoch)
		note("create epoch=%llu", c->epoch);
	if (dev_named(c->name)) {
		snprintf(c->msg, sizeof(c->msg), "the name '%s' is taken", c->name);
		return EEXIST;
	}
	if (nr_devs == 4)
		return ENOSPC;
	d = add_dev(7 + nr_devs, c->name);
	d->blk = c->blk;
	d->flags = c->flags;
	d->epoch = c->epoch;
	d->no_path_timeout_ms = c->no_path_timeout_ms;
	d->no_space_timeout_ms = c->no_space_timeout_ms;
	d->failback_after_ms = c->failback_after_ms;
	d->iops = c->iops;
	d->bps = c->bps;
	d->features = getenv("IOVM_FAKE_FEATURES") ? strtoull(getenv("IOVM_FAKE_FEATURES"), NULL, 0) : 0x130001e54ULL;
	strcpy(d->identity, c->identity);
	nodes[d - devs].mode = c->mode;
	nodes[d - devs].uid = c->uid;
	nodes[d - devs].gid = c->gid;
	return 0;
}

/* One READ of 512 bytes as the kernel would send it: 0 when a good reply comes and nothing else. */
static int read_block(int fd, bool structured)
{
	unsigned char req[28] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 0, 'c', 'o', 'o', 'k', 'i', 'e', '!', '!' };
	static const unsigned char end[] = { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0 }, none[4];
	size_t want = structured ? 20 + 8 + 512 : 16 + 512;
	unsigned char rep[20 + 8 + 512];
	struct timeval limit = { .tv_sec = 10 };
	uint32_t magic;

	req[26] = 2;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (fcntl(fd, F_GETFL) & O_NONBLOCK)
		return EAGAIN;
	if (send(fd, req, sizeof(req), MSG_NOSIGNAL) != sizeof(req))
		return EPIPE;
	if (recv(fd, rep, want, MSG_WAITALL) != (ssize_t)want)
		return EPROTO;
	memcpy(&magic, rep, 4);
	if (ntohl(magic) != (structured ? 0x668e33efu : 0x67446698u) || memcmp(rep + 8, req + 8, 8))
		return EPROTO;
	/* nbd-server 3.26 says in a chunk of its own, of type 0 and without data, that it was all */
	if (structured && !(rep[5] & 1) && (recv(fd, rep, 20, MSG_WAITALL) != 20 || memcmp(rep, end, sizeof(end)) || memcmp(rep + 8, req + 8, 8) ||
					    memcmp(rep + 16, none, sizeof(none))))
		return EPROTO;
	if (recv(fd, rep, 1, MSG_DONTWAIT) != -1 || errno != EAGAIN)
		return EPROTO;
	return 0;
}

static int path_connect(struct iovm_path_connect *c)
{
	struct iovm_path_info *p = path_named(c->dev, c->name);
	unsigned int i;
	int err;

	note("connect %s %s fds=%u bytes=%llu flags=%#x %s min=%u max=%u", c->dev, c->name, c->nr_fds, c->export_bytes,
	     c->nbd_flags, c->flags & IOVM_NBD_F_STRUCTURED ? "structured" : "simple", c->min_block, c->max_payload);
	if (*c->identity)
		note("connect identity=%s", c->identity);
	if (!p)
		return ENOENT;
	if (getenv("IOVM_FAKE_QUICKER")) {
		p->state = IOVM_PATH_LIVE;
		return EBUSY;
	}
	for (i = 0; i < c->nr_fds; i++) {
		err = read_block(c->fds[i], c->flags & IOVM_NBD_F_STRUCTURED);
		note("socket %u: %s", i, err ? strerror(err) : "read ok");
		if (err)
			return err;
	}
	p->state = IOVM_PATH_LIVE;
	p->nr_sockets = c->nr_fds;
	p->nbd_flags = c->nbd_flags;
	return 0;
}

static int path_add(struct iovm_path_add *a)
{
	struct iovm_path_info *p;
	struct stat st;

	note("path-add %s %s type=%u addr=%s flags=%u fence=%u fd=%s heartbeat=%u dead=%u", a->dev, a->name, a->type, a->addr,
	     a->flags, a->fence, a->fd < 0 ? "none" : fstat(a->fd, &st) ? "bad" : "ok", a->heartbeat_ms, a->dead_ms);
	if (nr_paths == sizeof(paths) / sizeof(*paths))
		return ENOSPC;
	p = add_path(a->dev, a->name, a->type, a->type == IOVM_PATH_NBD ? IOVM_PATH_CONNECTING : IOVM_PATH_LIVE);
	strcpy(p->addr, a->addr);
	strcpy(p->identity, a->identity);
	if (a->flags & (IOVM_PATH_F_CACHE_SURVIVES | IOVM_PATH_F_CACHE_DIES))
		p->flags = a->flags;
	else
		p->flags |= a->flags;
	if (a->fence)
		p->fence = a->fence;
	if (a->io_timeout_ms)
		p->io_timeout_ms = a->io_timeout_ms;
	p->heartbeat_ms = a->heartbeat_ms;
	p->dead_ms = a->dead_ms;
	if (*a->identity)
		note("path-add identity=%s", a->identity);
	if (a->fence_by)
		note("path-add fence-by=%u after=%u command=%s", a->fence_by, a->fence_after_ms, a->fence_command);
	return 0;
}

static void delay(void)
{
	const char *ms = getenv("IOVM_FAKE_DELAY");

	if (ms)
		usleep((useconds_t)atoi(ms) * 1000);
}

static int path_stats(struct iovm_path_stats *s)
{
	static unsigned int calls;

	if (!path_named(s->dev, s->name))
		return ENOENT;
	calls++;
	s->issued[IOVM_OP_READ] = 1000 * calls;
	s->done[IOVM_OP_READ] = 1000 * calls;
	s->bytes[IOVM_OP_READ] = 4096000ULL * calls;
	s->path_errors = 2;
	/* 990 of 1000 in [65536, 131072), 9 in the next bucket, one beyond every bucket */
	s->lat_ns[0][16] = 990 * calls;
	s->lat_ns[0][17] = 9 * calls;
	s->lat_ns[0][39] = calls;
	return 0;
}

static int dev_stats(struct iovm_dev_stats *s)
{
	if (!dev_named(s->name))
		return ENOENT;
	s->requests = 5000;
	s->requeues = 32;
	s->pause_ns[22] = 32;
	s->pause_max_ns = 7900000;
	return 0;
}

static int dev_ctl(struct iovm_dev_ctl *c)
{
	struct iovm_dev_info *d = dev_named(c->name);

	note("ctl %s op=%u path=%s value=%llu", c->name, c->op, c->path, c->value);
	if (!d)
		return ENOENT;
	if (c->op == IOVM_DEV_FAILOVER)
		d->route_id = d->preferred_id = 1;
	if (c->op == IOVM_DEV_SUSPEND)
		delay();
	if ((c->op == IOVM_DEV_EPOCH_TAKE || c->op == IOVM_DEV_EPOCH_GIVE) && !(d->flags & IOVM_DEV_F_EPOCH))
		return EOPNOTSUPP;
	if (c->op == IOVM_DEV_EPOCH_TAKE) {
		if (c->value <= d->epoch)
			return ESTALE;
		d->epoch = c->value;
		d->epoch_held = 1;
	} else if (c->op == IOVM_DEV_EPOCH_GIVE) {
		if (c->value != d->epoch)
			return ESTALE;
		d->epoch_held = 0;
	}
	return 0;
}

static int events_from(struct iovm_events_from *f)
{
	f->oldest = 41;
	f->newest = 45;
	return 0;
}

static int version(struct iovm_version *v)
{
	const char *abi = getenv("IOVM_FAKE_ABI");

	v->abi = abi ? (uint32_t)atoi(abi) : IOVM_ABI_VERSION;
	v->classes = 1 << IOVM_CLASS_BLK;
	v->path_types = 1 << IOVM_PATH_BDEV | 1 << IOVM_PATH_NBD;
	strcpy(v->release, "9.9.9");
	return 0;
}

static void set_msg(unsigned long req, void *arg, const char *msg)
{
	switch (req) {
	case IOVM_DEV_CREATE:
		strcpy(((struct iovm_dev_create *)arg)->msg, msg);
		break;
	case IOVM_DEV_CTL:
		strcpy(((struct iovm_dev_ctl *)arg)->msg, msg);
		break;
	case IOVM_DEV_DESTROY:
		strcpy(((struct iovm_dev_destroy *)arg)->msg, msg);
		break;
	case IOVM_PATH_CONNECT:
		strcpy(((struct iovm_path_connect *)arg)->msg, msg);
		break;
	case IOVM_PATH_CTL:
		strcpy(((struct iovm_path_ctl *)arg)->msg, msg);
		break;
	}
}

static int dispatch(unsigned long req, void *arg)
{
	switch (req) {
	case IOVM_GET_VERSION:
		return version(arg);
	case IOVM_DEV_CREATE:
		return create(arg);
	case IOVM_DEV_DESTROY:
		note("destroy %s flags=%u", ((struct iovm_dev_destroy *)arg)->name, ((struct iovm_dev_destroy *)arg)->flags);
		return dev_named(((struct iovm_dev_destroy *)arg)->name) ? 0 : ENOENT;
	case IOVM_DEV_GET:
		return dev_get(arg);
	case IOVM_DEV_CTL:
		return dev_ctl(arg);
	case IOVM_DEV_STATS:
		return dev_stats(arg);
	case IOVM_PATH_ADD:
		return path_add(arg);
	case IOVM_PATH_REMOVE:
		note("path-remove %s flags=%u", ((struct iovm_path_remove *)arg)->name, ((struct iovm_path_remove *)arg)->flags);
		delay();
		return 0;
	case IOVM_PATH_GET:
		return path_get(arg);
	case IOVM_PATH_CONNECT:
		return path_connect(arg);
	case IOVM_PATH_CTL:
		return path_ctl(arg);
	case IOVM_PATH_STATS:
		return path_stats(arg);
	case IOVM_EVENTS_FROM:
		return events_from(arg);
	default:
		return ENOTTY;
	}
}

/* A caller's size must be that of the struct, and a result must say so. */
static bool size_ok(unsigned long req, const void *arg)
{
	static const uint32_t sizes[256] = {
		[NR(IOVM_GET_VERSION)] = sizeof(struct iovm_version),
		[NR(IOVM_DEV_CREATE)] = sizeof(struct iovm_dev_create),
		[NR(IOVM_DEV_DESTROY)] = sizeof(struct iovm_dev_destroy),
		[NR(IOVM_DEV_GET)] = sizeof(struct iovm_dev_info),
		[NR(IOVM_DEV_CTL)] = sizeof(struct iovm_dev_ctl),
		[NR(IOVM_DEV_STATS)] = sizeof(struct iovm_dev_stats),
		[NR(IOVM_PATH_ADD)] = sizeof(struct iovm_path_add),
		[NR(IOVM_PATH_REMOVE)] = sizeof(struct iovm_path_remove),
		[NR(IOVM_PATH_GET)] = sizeof(struct iovm_path_info),
		[NR(IOVM_PATH_CONNECT)] = sizeof(struct iovm_path_connect),
		[NR(IOVM_PATH_CTL)] = sizeof(struct iovm_path_ctl),
		[NR(IOVM_PATH_STATS)] = sizeof(struct iovm_path_stats),
		[NR(IOVM_EVENTS_FROM)] = sizeof(struct iovm_events_from),
	};

	return *(const uint32_t *)arg == sizes[NR(req)];
}

int ioctl(int fd, unsigned long req, ...)
{
	int (*real)(int, unsigned long, ...) = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
	const char *rule = getenv("IOVM_FAKE_FAIL"), *msg;
	static bool fed;
	va_list ap;
	void *arg;
	int err;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (fd != fake_fd)
		return real(fd, req, arg);
	if (!fed)
		feed_all();
	fed = true;
	if (!size_ok(req, arg)) {
		err = EINVAL;
	} else if (rule && (unsigned long)strtol(rule, NULL, 0) == NR(req)) {
		rule = strchr(rule, ':') + 1;
		msg = strchr(rule, ':');
		if (msg)
			set_msg(req, arg, msg + 1);
		err = atoi(rule);
	} else {
		err = dispatch(req, arg);
	}
	errno = err;
	return err ? -1 : 0;
}
