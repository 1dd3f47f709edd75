/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device's node in user space, for the tests of iovm-vhost-user: the test program includes this, then the program's
 * sources, whose open(), ioctl(), mmap() and munmap() come here.
 *
 * It keeps the node's rules (order, EBUSY, EPERM), writes down every call in fake.log, and checks what the
 * kernel cannot check for itself: that every address it was given stays mapped as long as it may use it. With
 * fake.disk it serves requests as well (vu_fake_disk.h).
 */
#ifndef VU_FAKE_H
#define VU_FAKE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/vhost.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "vhost_iovm.h"

#define FAKE_NODE	"/dev/null"	/* a character device that is always there */
#define FAKE_QUEUES	4
#define FAKE_RING_MAX	1024
#define FAKE_MAPS	1024
#define FAKE_F_LOG_ALL	(1ull << VHOST_F_LOG_ALL)
#define FAKE_FEATURES	(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_F_ANY_LAYOUT | \
			 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_FLUSH | \
			 1ull << VIRTIO_BLK_F_MQ | FAKE_F_LOG_ALL)

struct fake_queue {
	uint32_t num;
	uint32_t base;
	struct vhost_vring_addr addr;
	bool have_addr;
	struct vhost_iovm_inflight inflight;
	bool running;
	int kick;
	int call;
	int err;
	int stop;
	pthread_t thread;
	bool has_thread;
};

struct fake_map {
	uintptr_t start;
	uintptr_t end;
};

static struct {
	int fd;				/* the open node, -1 */
	bool owned;
	uint64_t features;
	struct vhost_memory *table;
	uint64_t log_base;
	int config_call;
	int lent;			/* the socket to the front end, -1 */
	struct fake_queue q[FAKE_QUEUES];
	struct fake_map map[FAKE_MAPS];
	uint32_t nr_maps;
	pthread_mutex_t lock;

	/* For the test to set. */
	uint64_t capacity;		/* sectors */
	int busy_opens;			/* this many opens fail with EBUSY; -1: all */
	volatile int *busy;		/* while not zero, opens fail with this; may be in shared memory */
	unsigned long fail_cmd;		/* this ioctl fails ... */
	int fail_errno;			/* ... with this */
	bool destroyed;			/* ioctls fail with ENODEV */
	int hold_fd;			/* GET_VRING_BASE waits until this eventfd is readable, -1 */
	int (*start)(uint32_t i);	/* what serves a queue, NULL: nothing */
	void (*stop)(uint32_t i);

	/* For the test to read. */
	char log[1 << 16];
	size_t log_len;
	int opens;
	int violations;
} fake = { .fd = -1, .lent = -1, .hold_fd = -1, .config_call = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .capacity = 2048 };

static void fake_note(const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(fake.log + fake.log_len, sizeof(fake.log) - fake.log_len, fmt, ap);
	va_end(ap);
	if (n > 0 && fake.log_len + n < sizeof(fake.log))
		fake.log_len += n;
}

static void fake_violation(const char *what)
{
	fake.violations++;
	fprintf(stderr, "# the kernel was misled: %s\n", what);
}

/* Whether [start, start + len) lies in one mapping that the program made. */
static bool fake_mapped(uint64_t start, uint64_t len)
{
	for (uint32_t i = 0; i < fake.nr_maps; i++) {
		if (start >= fake.map[i].start && start + len <= fake.map[i].end)
			return true;
	}
	return false;
}

static bool fake_running(void)
{
	for (int i = 0; i < FAKE_QUEUES; i++) {
		if (fake.q[i].running)
			return true;
	}
	return false;
}

/* Everything the kernel might touch now must be mapped, and the log long enough. */
static void fake_audit(const char *when)
{
	uint64_t top = 0;

	if (fake.fd < 0)
		return;
	for (uint32_t i = 0; fake.table && i < fake.table->nregions; i++) {
		struct vhost_memory_region *r = &fake.table->regions[i];

		if (!fake_mapped(r->userspace_addr, r->memory_size)) {
			fprintf(stderr, "# after %s: region %u\n", when, i);
			fake_violation("a region of the memory table is not mapped");
		}
		if (r->guest_phys_addr + r->memory_size > top)
			top = r->guest_phys_addr + r->memory_size;
	}
	if (fake.features & FAKE_F_LOG_ALL && fake_running()) {
		if (!fake.log_base || (top && !fake_mapped(fake.log_base, (top - 1) / 4096 / 8 + 1)))
			fake_violation("the log is not mapped as far as memory goes");
		for (int i = 0; i < FAKE_QUEUES; i++) {
			struct fake_queue *q = &fake.q[i];

			if (q->running && q->addr.flags && fake.log_base &&
			    !fake_mapped(fake.log_base + q->addr.log_guest_addr / 4096 / 8, 1))
				fake_violation("a used ring is logged beyond the log");
		}
	}
}

static void *fake_mmap(void *at, size_t len, int prot, int flags, int fd, off_t off)
{
	void *p = mmap(at, len, prot, flags, fd, off);

	if (p != MAP_FAILED && fd >= 0) {
		pthread_mutex_lock(&fake.lock);
		if (fake.nr_maps == FAKE_MAPS)
			abort();
		fake.map[fake.nr_maps++] = (struct fake_map){ (uintptr_t)p, (uintptr_t)p + len };
		pthread_mutex_unlock(&fake.lock);
	}
	return p;
}

static int fake_munmap(void *at, size_t len)
{
	pthread_mutex_lock(&fake.lock);
	for (uint32_t i = 0; i < fake.nr_maps; i++) {
		if (fake.map[i].start == (uintptr_t)at) {
			fake.map[i] = fake.map[--fake.nr_maps];
			break;
		}
	}
	fake_audit("munmap");
	pthread_mutex_unlock(&fake.lock);
	return munmap(at, len);
}

static int fake_err(int err)
{
	errno = err;
	return -1;
}

static int fake_open(const char *path, int flags)
{
	if (strcmp(path, FAKE_NODE))
		return open(path, flags);
	fake.opens++;
	if (fake.busy_opens) {
		if (fake.busy_opens > 0)
			fake.busy_opens--;
		return fake_err(EBUSY);
	}
	if (fake.busy && *fake.busy)
		return fake_err(*fake.busy);
	if (fake.fd >= 0)
		return fake_err(EBUSY);
	fake.fd = open(path, flags);
	for (int i = 0; i < FAKE_QUEUES; i++)
		fake.q[i] = (struct fake_queue){ .kick = -1, .call = -1, .err = -1 };
	return fake.fd;
}

static void fake_set_fd(int *slot, int fd)
{
	if (*slot >= 0 && fd >= 0) {	/* in one step: a queue may be signalling it */
		dup3(fd, *slot, O_CLOEXEC);
		return;
	}
	if (*slot >= 0)
		close(*slot);
	*slot = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);	/* the kernel has a reference of its own */
}

static void fake_stop_queue(uint32_t i)
{
	struct fake_queue *q = &fake.q[i];

	if (q->running && fake.stop)
		fake.stop(i);
	q->running = false;
	fake_set_fd(&q->kick, -1);
}

static void fake_release(void)
{
	fake_note("CLOSE ");
	for (int i = 0; i < FAKE_QUEUES; i++) {
		fake_stop_queue(i);
		fake_set_fd(&fake.q[i].call, -1);
		fake_set_fd(&fake.q[i].err, -1);
	}
	fake_set_fd(&fake.config_call, -1);
	fake_set_fd(&fake.lent, -1);
	free(fake.table);
	fake.table = NULL;
	fake.owned = false;
	fake.features = 0;
	fake.log_base = 0;
	close(fake.fd);
	fake.fd = -1;
}

static int fake_close(int fd)
{
	if (fd != fake.fd || fd < 0)
		return close(fd);
	fake_release();
	return 0;
}

static bool fake_is_eventfd(int fd)
{
	char link[64], name[64] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	return readlink(link, name, sizeof(name) - 1) > 0 && strstr(name, "eventfd");
}

static int fake_ring_ioctl(unsigned long cmd, void *arg)
{
	struct vhost_vring_state *st = arg;
	struct vhost_vring_file *f = arg;
	struct vhost_vring_addr *a = arg;
	uint32_t i = *(uint32_t *)arg;
	struct fake_queue *q;

	if (i >= FAKE_QUEUES)
		return fake_err(ENOBUFS);
	q = &fake.q[i];
	switch (cmd) {
	case VHOST_SET_VRING_NUM:
		if (q->running)
			return fake_err(EBUSY);
		if (!st->num || st->num & (st->num - 1) || st->num > FAKE_RING_MAX)
			return fake_err(EINVAL);
		fake_note("NUM%u=%u ", i, st->num);
		q->num = st->num;
		return 0;
	case VHOST_SET_VRING_BASE:
		if (q->running)
			return fake_err(EBUSY);
		fake_note("BASE%u=%u ", i, st->num);
		q->base = st->num;
		return 0;
	case VHOST_SET_VRING_ADDR:
		if (a->flags & ~1u)
			return fake_err(EOPNOTSUPP);
		fake_note("ADDR%u%s ", i, a->flags ? "+log" : "");
		q->addr = *a;
		q->have_addr = true;
		fake_audit("SET_VRING_ADDR");
		return 0;
	case VHOST_SET_VRING_KICK:
		if (f->fd < 0)
			return fake_err(q->running ? EBUSY : EINVAL);
		if (!fake_is_eventfd(f->fd))
			return fake_err(EINVAL);
		if (!q->running && (!q->num || !q->have_addr))
			return fake_err(EINVAL);
		if (!q->running && (!fake_mapped(q->addr.desc_user_addr, 16 * q->num) ||
				    !fake_mapped(q->addr.avail_user_addr, 6 + 2 * q->num) ||
				    !fake_mapped(q->addr.used_user_addr, 6 + 8 * q->num) ||
				    (q->inflight.addr && !fake_mapped(q->inflight.addr, q->inflight.size))))
			return fake_err(EFAULT);
		if (!q->running && q->inflight.addr && q->num > q->inflight.desc_num)
			return fake_err(EINVAL);
		fake_note("KICK%u ", i);
		fake_set_fd(&q->kick, f->fd);
		if (q->running)
			return 0;
		q->running = true;
		fake_audit("SET_VRING_KICK");
		return fake.start && fake.start(i) ? fake_err(ENOMEM) : 0;
	case VHOST_IOVM_SET_INFLIGHT:
		if (q->running)
			return fake_err(EBUSY);
		q->inflight = *(struct vhost_iovm_inflight *)arg;
		if (q->inflight.addr && (q->inflight.addr % 8 ||
					 q->inflight.size < VHOST_IOVM_INFLIGHT_BYTES(q->inflight.desc_num)))
			return fake_err(EINVAL);
		fake_note("INFLIGHT%u=%u ", i, q->inflight.desc_num);
		return 0;
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
		if (f->fd >= 0 && !fake_is_eventfd(f->fd))
			return fake_err(EINVAL);
		fake_note("%s%u%s ", cmd == VHOST_SET_VRING_CALL ? "CALL" : "ERR", i, f->fd < 0 ? "-" : "");
		fake_set_fd(cmd == VHOST_SET_VRING_CALL ? &q->call : &q->err, f->fd);
		return 0;
	case VHOST_GET_VRING_BASE:
		if (fake.hold_fd >= 0) {
			uint64_t n;

			pthread_mutex_unlock(&fake.lock);
			if (read(fake.hold_fd, &n, sizeof(n)) < 0)
				fake_violation("hold_fd");
			pthread_mutex_lock(&fake.lock);
		}
		pthread_mutex_unlock(&fake.lock);	/* what serves the queue may want it */
		fake_stop_queue(i);
		pthread_mutex_lock(&fake.lock);
		st->num = q->base;
		fake_note("GET_BASE%u=%u ", i, st->num);
		return 0;
	}
	return fake_err(ENOTTY);
}

static int fake_get_config(struct vhost_vdpa_config *c)
{
	struct virtio_blk_config bc = {
		.capacity = fake.capacity, .seg_max = 126, .blk_size = 512, .num_queues = FAKE_QUEUES,
	};

	if (c->off > sizeof(bc) || c->len > sizeof(bc) - c->off)
		return fake_err(E2BIG);
	memcpy(c->buf, (char *)&bc + c->off, c->len);
	return 0;
}

static int fake_set_table(const struct vhost_memory *m)
{
	size_t size = sizeof(*m) + m->nregions * sizeof(m->regions[0]);
	struct vhost_memory *copy;

	if (m->padding)
		return fake_err(EOPNOTSUPP);
	copy = malloc(size);
	memcpy(copy, m, size);
	free(fake.table);
	fake.table = copy;
	fake_note("MEM(%u) ", m->nregions);
	fake_audit("SET_MEM_TABLE");
	return 0;
}

static int fake_device_ioctl(unsigned long cmd, void *arg)
{
	switch (cmd) {
	case VHOST_GET_FEATURES:
		*(__u64 *)arg = FAKE_FEATURES;
		return 0;
	case VHOST_VDPA_GET_DEVICE_ID:
		*(__u32 *)arg = 2;
		return 0;
	case VHOST_VDPA_GET_VQS_COUNT:
		*(__u32 *)arg = FAKE_QUEUES;
		return 0;
	case VHOST_VDPA_GET_VRING_NUM:
		*(__u16 *)arg = FAKE_RING_MAX;
		return 0;
	case VHOST_VDPA_GET_CONFIG_SIZE:
		*(__u32 *)arg = sizeof(struct virtio_blk_config);
		return 0;
	case VHOST_VDPA_GET_CONFIG:
		return fake_get_config(arg);
	case VHOST_SET_OWNER:
		if (fake.owned)
			return fake_err(EBUSY);
		fake_note("OWNER ");
		fake.owned = true;
		return 0;
	}
	if (!fake.owned)
		return fake_err(EPERM);
	switch (cmd) {
	case VHOST_SET_FEATURES:
		if (*(__u64 *)arg & ~FAKE_FEATURES)
			return fake_err(EOPNOTSUPP);
		if (fake_running() && (*(__u64 *)arg ^ fake.features) & ~FAKE_F_LOG_ALL)
			return fake_err(EBUSY);
		fake.features = *(__u64 *)arg;
		fake_note("FEATURES%s ", fake.features & FAKE_F_LOG_ALL ? "+log" : "");
		fake_audit("SET_FEATURES");
		return 0;
	case VHOST_SET_MEM_TABLE:
		return fake_set_table(arg);
	case VHOST_SET_LOG_BASE:
		fake.log_base = *(__u64 *)arg;
		fake_note("LOG ");
		fake_audit("SET_LOG_BASE");
		return 0;
	case VHOST_SET_LOG_FD:
		fake_note("LOG_FD ");
		return 0;
	case VHOST_IOVM_LEND_SOCKET:
		fake_set_fd(&fake.lent, *(int *)arg);
		return 0;
	case VHOST_VDPA_SET_CONFIG_CALL:
		fake_set_fd(&fake.config_call, *(int *)arg);
		return 0;
	}
	return fake_ring_ioctl(cmd, arg);
}

static int fake_ioctl(int fd, unsigned long cmd, void *arg)
{
	int ret;

	if (fd < 0 || fd != fake.fd)
		return fake_err(EBADF);
	if (fake.destroyed)
		return fake_err(ENODEV);
	pthread_mutex_lock(&fake.lock);
	ret = cmd == fake.fail_cmd && fake.fail_errno ? fake_err(fake.fail_errno) : fake_device_ioctl(cmd, arg);
	pthread_mutex_unlock(&fake.lock);
	return ret;
}

/* The capacity changes and the node says so. */
static __attribute__((unused)) void fake_resize(uint64_t sectors)
{
	uint64_t one = 1;

	fake.capacity = sectors;
	if (fake.config_call >= 0 && write(fake.config_call, &one, sizeof(one)) < 0)
		fake_violation("config call");
}

/* The sources of the program, with the calls above in place of the system's. */
#define open(...)	fake_open(__VA_ARGS__)
#define ioctl(...)	fake_ioctl(__VA_ARGS__)
#define close(fd)	fake_close(fd)
#define mmap(...)	fake_mmap(__VA_ARGS__)
#define munmap(...)	fake_munmap(__VA_ARGS__)
#include "../../userland/iovm-vhost-user/log.c"
#include "../../userland/iovm-vhost-user/kernel.c"
#include "../../userland/iovm-vhost-user/memory.c"
#include "../../userland/iovm-vhost-user/inflight.c"
#include "../../userland/iovm-vhost-user/vring.c"
#include "../../userland/iovm-vhost-user/vu_msg.c"
#include "../../userland/iovm-vhost-user/vu_proto.c"
#include "../../userland/iovm-vhost-user/session.c"
#undef open
#undef ioctl
#undef close
#undef mmap
#undef munmap

#endif /* VU_FAKE_H */
