// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Queues. In the kernel a queue starts with its kick fd and is stopped by GET_VRING_BASE; in the protocol it also has
 * to be enabled. So what a front end says is kept here until the queue is to run, and then said in the
 * kernel's order. Disabling stops it in the kernel and keeps its base; enabling starts it again from there.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "vu.h"

void vu_rings_init(struct vu_session *s)
{
	uint32_t i;

	for (i = 0; i < VU_MAX_QUEUES; i++)
		s->ring[i] = (struct vu_ring){ .kick = -1, .call = -1, .err = -1 };
}

static struct vu_ring *get(struct vu_session *s, uint32_t i)
{
	if (i < s->nr_queues)
		return &s->ring[i];
	vu_fail(s, -ENOBUFS, "queue %u of a device with %u", i, s->nr_queues);
	return NULL;
}

bool vu_any_running(const struct vu_session *s)
{
	uint32_t i;

	for (i = 0; i < s->nr_queues; i++) {
		if (s->ring[i].running)
			return true;
	}
	return false;
}

/* Why the kernel would not start a queue, for whoever set up the VM. */
static const char *start_hint(const struct vu_session *s, int err)
{
	switch (err) {
	case -EOPNOTSUPP:
		return " (guest memory must be memfd, shmem or hugetlb and shared: memory-backend-memfd,share=on)";
	case -ENOMEM:
		return " (locked-memory limit? see LimitMEMLOCK, ulimit -l)";
	case -ENODEV:
		return " (the device was destroyed)";
	case -EINVAL:
	case -ERANGE:
	case -EEXIST:
	case -EOVERFLOW:
		return s->inflight.map ? " (a damaged in-flight record?)" : "";
	default:
		return "";
	}
}

static int step(struct vu_session *s, uint32_t i, const char *what, int ret)
{
	if (ret)
		vu_fail(s, ret, "queue %u: %s: %s%s", i, what, strerror(-ret), start_hint(s, ret));
	return ret;
}

/* The ring's addresses in this process; the queue's size is known. */
static int translate(struct vu_session *s, uint32_t i, const struct vu_wire_addr *a, struct vu_wire_addr *t)
{
	uint64_t num = s->ring[i].num;

	*t = *a;
	if (vu_mem_translate(&s->mem, a->desc, 16 * num, &t->desc) ||
	    vu_mem_translate(&s->mem, a->avail, 6 + 2 * num, &t->avail) ||
	    vu_mem_translate(&s->mem, a->used, 6 + 8 * num, &t->used))
		return vu_fail(s, -EFAULT, "queue %u: rings at 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64
			       " do not lie in guest memory", i, a->desc, a->avail, a->used);
	return vu_log_check_ring(s, i, a, &s->log);
}

static int start(struct vu_session *s, uint32_t i)
{
	bool first = !vu_any_running(s);
	struct vu_ring *r = &s->ring[i];
	struct vu_wire_addr t;
	int ret;

	if (r->running || !r->enabled || r->kick < 0)
		return 0;
	if (!r->num || !r->have_addr)
		return vu_fail(s, -EINVAL, "queue %u is to start without its %s", i, r->num ? "addresses" : "size");
	ret = translate(s, i, &r->addr, &t);
	if (ret)
		return ret;
	r->running = true;	/* as vu_log_check() shall see it */
	ret = vu_log_check(s, s->features, &s->mem, &s->log);
	if (!ret)
		ret = step(s, i, "VHOST_SET_VRING_NUM", vuk_set_vring_num(s->node, i, r->num));
	if (!ret)
		ret = step(s, i, "VHOST_SET_VRING_BASE", vuk_set_vring_base(s->node, i, r->base));
	if (!ret)
		ret = step(s, i, "VHOST_SET_VRING_ADDR", vuk_set_vring_addr(s->node, &t));
	if (!ret)
		ret = step(s, i, "VHOST_IOVM_SET_INFLIGHT", vu_inflight_tell(s, i));
	if (!ret)
		ret = step(s, i, "VHOST_SET_VRING_CALL", vuk_set_vring_call(s->node, i, r->call));
	if (!ret)
		ret = step(s, i, "VHOST_SET_VRING_ERR", vuk_set_vring_err(s->node, i, r->err));
	if (!ret)
		ret = step(s, i, "VHOST_SET_VRING_KICK", vuk_set_vring_kick(s->node, i, r->kick));
	r->running = !ret;
	/*
	 * The configuration may have changed while nobody was connected, or while the device was stopped: QEMU asks for it
	 * once in its life, and QEMU 10 does not hear of a change to a stopped device.
	 */
	if (!ret && first)
		s->config_pending = true;
	if (!ret)
		vu_trace("queue %u runs: %u descriptors, base %u", i, r->num, r->base);
	return ret;
}

static void busy(struct vu_session *s, uint32_t i)
{
	uint64_t one = 1;

	if (!s->shared)
		return;
	s->shared->busy_queue = i;
	s->shared->busy_since_ms = vu_now_ms();
	if (s->shared->wake >= 0 && write(s->shared->wake, &one, sizeof(one)) < 0)
		vu_trace("supervisor not woken: %s", strerror(errno));
}

static int stop(struct vu_session *s, uint32_t i)
{
	struct vu_ring *r = &s->ring[i];
	uint32_t base = 0;
	int ret;

	if (!r->running)
		return 0;
	busy(s, i);
	ret = vuk_get_vring_base(s->node, i, &base);
	if (s->shared)
		s->shared->busy_since_ms = 0;
	if (ret)
		return vu_fail(s, ret, "queue %u: VHOST_GET_VRING_BASE: %s", i, strerror(-ret));
	r->running = false;
	r->base = base;
	vu_trace("queue %u stopped at %u", i, base);
	return 0;
}

int vu_ring_set_num(struct vu_session *s, uint32_t i, uint32_t num)
{
	struct vu_ring *r = get(s, i);

	if (!r)
		return -ENOBUFS;
	if (r->running)
		return vu_fail(s, -EBUSY, "queue %u: SET_VRING_NUM while it runs", i);
	if (!num || (num & (num - 1)) || num > VU_MAX_RING)
		return vu_fail(s, -EINVAL, "queue %u: a size of %u (a power of two, at most %u)", i, num, VU_MAX_RING);
	r->num = num;
	return 0;
}

int vu_ring_set_base(struct vu_session *s, uint32_t i, uint32_t base)
{
	struct vu_ring *r = get(s, i);

	if (!r)
		return -ENOBUFS;
	if (r->running)
		return vu_fail(s, -EBUSY, "queue %u: SET_VRING_BASE while it runs", i);
	if (base > 0xffff)
		return vu_fail(s, -EINVAL, "queue %u: a base of %u", i, base);
	r->base = base;
	return 0;
}

int vu_ring_set_addr(struct vu_session *s, const struct vu_wire_addr *a)
{
	struct vu_ring *r = get(s, a->index);
	struct vu_wire_addr t;
	int ret;

	if (!r)
		return -ENOBUFS;
	if (a->flags & ~VU_ADDR_F_LOG)
		return vu_fail(s, -EOPNOTSUPP, "queue %u: SET_VRING_ADDR with flags 0x%x", a->index, a->flags);
	if (a->desc % 16 || a->avail % 2 || a->used % 4)
		return vu_fail(s, -EINVAL, "queue %u: rings at 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 " are misaligned",
			       a->index, a->desc, a->avail, a->used);
	if (!r->running) {
		r->addr = *a;
		r->have_addr = true;
		return 0;
	}
	/* The kernel has the ring pinned: while it runs only its logging may change. */
	if (a->desc != r->addr.desc || a->avail != r->addr.avail || a->used != r->addr.used)
		return vu_fail(s, -EBUSY, "queue %u: its rings cannot move while it runs", a->index);
	ret = translate(s, a->index, a, &t);
	if (!ret)
		ret = step(s, a->index, "VHOST_SET_VRING_ADDR", vuk_set_vring_addr(s->node, &t));
	if (!ret)
		r->addr = *a;
	return ret;
}

static void replace(int *slot, int fd)
{
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

/* The three below own @fd, also when they fail. */
int vu_ring_set_kick(struct vu_session *s, uint32_t i, int fd)
{
	struct vu_ring *r = get(s, i);
	int ret = 0;

	if (!r)
		ret = -ENOBUFS;
	else if (fd < 0)
		return vu_fail(s, -EOPNOTSUPP, "queue %u: a kick without a file descriptor: polling is not supported", i);
	else if (r->running)
		ret = step(s, i, "VHOST_SET_VRING_KICK", vuk_set_vring_kick(s->node, i, fd));
	if (ret) {
		close(fd);
		return ret;
	}
	replace(&r->kick, fd);
	return start(s, i);
}

static int set_file(struct vu_session *s, uint32_t i, int fd, int *slot, const char *what,
		    int (*set)(int node, uint32_t i, int fd))
{
	int ret = 0;

	if (s->ring[i].running)
		ret = step(s, i, what, set(s->node, i, fd));
	if (!ret)
		replace(slot, fd);
	else if (fd >= 0)
		close(fd);
	return ret;
}

int vu_ring_set_call(struct vu_session *s, uint32_t i, int fd)
{
	struct vu_ring *r = get(s, i);

	if (r)
		return set_file(s, i, fd, &r->call, "VHOST_SET_VRING_CALL", vuk_set_vring_call);
	if (fd >= 0)
		close(fd);
	return -ENOBUFS;
}

int vu_ring_set_err(struct vu_session *s, uint32_t i, int fd)
{
	struct vu_ring *r = get(s, i);

	if (r)
		return set_file(s, i, fd, &r->err, "VHOST_SET_VRING_ERR", vuk_set_vring_err);
	if (fd >= 0)
		close(fd);
	return -ENOBUFS;
}

int vu_ring_enable(struct vu_session *s, uint32_t i, bool on)
{
	struct vu_ring *r = get(s, i);

	if (!r)
		return -ENOBUFS;
	r->enabled = on;
	return on ? start(s, i) : stop(s, i);
}

/* A front end that did not acknowledge VHOST_USER_F_PROTOCOL_FEATURES has queues that are enabled from the start. */
int vu_ring_enable_all(struct vu_session *s)
{
	uint32_t i;
	int ret = 0;

	for (i = 0; i < s->nr_queues && !ret; i++)
		ret = vu_ring_enable(s, i, true);
	return ret;
}

/* Stops the queue; it takes a new kick fd to start it again. */
int vu_ring_get_base(struct vu_session *s, uint32_t i, uint32_t *base)
{
	struct vu_ring *r = get(s, i);
	int ret;

	if (!r)
		return -ENOBUFS;
	ret = stop(s, i);
	if (ret)
		return ret;
	replace(&r->kick, -1);
	*base = r->base;
	return 0;
}

/* Stop all queues so that no request is in flight when the front end sees the connection end. */
void vu_rings_drain(struct vu_session *s)
{
	uint32_t i;

	for (i = 0; i < s->nr_queues; i++) {
		if (stop(s, i))
			vu_say("%s", s->error);
	}
}

void vu_rings_close(struct vu_session *s)
{
	uint32_t i;

	for (i = 0; i < VU_MAX_QUEUES; i++) {
		replace(&s->ring[i].kick, -1);
		replace(&s->ring[i].call, -1);
		replace(&s->ring[i].err, -1);
	}
	vu_rings_init(s);
}
