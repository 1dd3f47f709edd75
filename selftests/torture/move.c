// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's side of a migration, inside its process: its memory is copied, as a VMM does it, and its queues go on at the
 * device of the other host, on the copy.
 *
 *	GUEST_MOVE_LIVE		the device is opened there; the dirty log is on; everything is copied, then again and again what the
 *				log names, and what the driver says that it wrote, which a VMM hears from KVM
 *	GUEST_MOVE_STOP		the driver's threads stand still, and what they wrote is copied; GET_VRING_BASE of all queues; then
 *				what the log names now: what requests that were in flight have written. The two memories are the same then, or
 *				the log has missed something
 *	GUEST_MOVE_THERE	SET_VRING_BASE there. The memory that is left is filled with poison, which must stay
 *
 * The driver keeps its state (what a VMM finds in the rings), and its eventfds, so that no interrupt is lost that was under way.
 */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POISON	0x5eafa11e5eafa11eull
#define PASS_MS	3			/* between two passes */

int move_init(struct child *c)
{
	int r = vlog_alloc(&c->move.log, &c->mem);

	c->move.wrote = calloc(1, c->move.log.bytes);
	c->move.named = calloc(1, c->move.log.bytes);
	c->move.expect = calloc(1, c->move.log.bytes);
	return r ? r : c->move.wrote && c->move.named && c->move.expect ? 0 : -ENOMEM;
}

/* --- what the process does that has the node --- */

int move_device(struct child *c, enum guest_cmd cmd)
{
	switch (cmd) {
	case GUEST_MOVE_LIVE:
		return vdev_log_on(&c->d, &c->move.log);
	case GUEST_MOVE_STOP:
		return vdev_stop(&c->d);
	default:
		return vdev_log_off(&c->d) ?: c->d.vqs[0].running ? 0 : vdev_start(&c->d);
	}
}

static int device(struct child *c, enum guest_cmd cmd)
{
	return c->g->c.record ? child_front(c, cmd, 0) : move_device(c, cmd);
}

/* --- memory --- */

static int memory_like(struct gmem *to, const struct gmem *from)
{
	int i, r;

	for (i = 0; i < from->nr; i++) {
		r = gmem_add(to, from->r[i].gpa, from->r[i].size, from->r[i].fd < 0 ? GMEM_ANON : GMEM_MEMFD);
		if (r < 0)
			return r;
		to->r[i].used = from->r[i].used;
	}
	return 0;
}

static void copy_all(struct child *c)
{
	int i;

	for (i = 0; i < c->mem.nr; i++)
		memcpy(c->move.to.r[i].hva, c->mem.r[i].hva, c->mem.r[i].size);
}

/* What the log names, and with @driver what the driver wrote. Who sees a bit copies the page as it is now, or later. */
static void copy_named(struct child *c, bool driver)
{
	struct move *m = &c->move;
	u64 i, bits, pages = 0;

	for (i = 0; i < m->log.bytes / 8; i++) {
		bits = __atomic_exchange_n(&m->log.bits[i], 0, __ATOMIC_SEQ_CST);
		pages += __builtin_popcountll(bits);
		m->named[i] |= bits;
		if (driver)
			bits |= __atomic_exchange_n(&m->wrote[i], 0, __ATOMIC_SEQ_CST);
		for (; bits; bits &= bits - 1) {
			u64 gpa = (64 * i + __builtin_ctzll(bits)) * 4096;
			void *from = gmem_ptr(&c->mem, gpa), *to = gmem_ptr(&m->to, gpa);

			if (from && to)
				memcpy(to, from, 4096);
			else
				model_breach(c->g->m, ~0ull, "page %llx is in the dirty log, and is not the guest's",
					     (unsigned long long)gpa);
		}
	}
	__atomic_add_fetch(&c->g->s->moved_pages, pages, __ATOMIC_RELAXED);
}

static void compare(struct child *c)
{
	unsigned int bad = 0;
	u64 at, first = 0;
	int i;

	for (i = 0; i < c->mem.nr; i++)
		for (at = 0; at < c->mem.r[i].size; at += 4096)
			if (memcmp(c->mem.r[i].hva + at, c->move.to.r[i].hva + at, 4096) && !bad++)
				first = c->mem.r[i].gpa + at;
	if (bad)
		model_breach(c->g->m, ~0ull, "%u pages are not what they are at the source, the first is %llx: "
			     "it was written and is not in the dirty log", bad, (unsigned long long)first);
}

/* What completed requests wrote, even where the driver has written since, and so the page was copied. */
static void check_log(struct child *c)
{
	struct move *m = &c->move;
	u64 i, missing = 0, first = 0, pages = 0;

	for (i = 0; i < m->log.bytes / 8; i++) {
		u64 gone = m->expect[i] & ~m->named[i];

		pages += __builtin_popcountll(m->expect[i]);
		if (gone && !missing)
			first = (64 * i + __builtin_ctzll(gone)) * 4096;
		missing += __builtin_popcountll(gone);
	}
	__atomic_add_fetch(&c->g->s->log_pages, pages, __ATOMIC_RELAXED);
	if (missing)
		model_breach(c->g->m, ~0ull, "%llu pages, the first is %llx, were written during a migration and are not in the "
			     "dirty log", (unsigned long long)missing, (unsigned long long)first);
}

/* Nobody has written to the memory that it left. */
static void look_at_left(struct child *c)
{
	struct gmem *g = &c->move.left;
	unsigned int bad = 0;
	u64 at, first = 0;
	int i;

	for (i = 0; i < g->nr; i++)
		for (at = 0; at < g->r[i].size; at += 8)
			if (*(u64 *)(g->r[i].hva + at) != POISON && !bad++)
				first = g->r[i].gpa + at;
	if (bad)
		model_breach(c->g->m, ~0ull, "memory that was left by a migration was written later, %u words from %llx on", bad,
			     (unsigned long long)first);
	gmem_free(g);
}

static void poison_left(struct child *c)
{
	struct gmem *g = &c->move.left;
	u64 at;
	int i;

	for (i = 0; i < g->nr; i++)
		for (at = 0; at < g->r[i].size; at += 8)
			*(u64 *)(g->r[i].hva + at) = POISON;
}

/* --- steps --- */

static int open_there(struct child *c)
{
	struct vdev *d = &c->move.d;
	int r = child_open(c, d, 1 - c->g->c.at);

	if (r)
		return r;
	if (d->offered != c->d.offered || memcmp(&d->cfg, &c->d.cfg, sizeof(d->cfg)))
		model_breach(c->g->m, ~0ull, "the device is another one there: features %llx, not %llx, or its configuration",
			     (unsigned long long)d->offered, (unsigned long long)c->d.offered);
	return d->tp->set_features(d, c->d.features) ?: vdev_set_mem(d, &c->move.to);
}

static int live(struct child *c, u64 ms)
{
	struct move *m = &c->move;
	u64 end = now_ns() + ms * 1000000ull;
	int r;

	look_at_left(c);
	m->d.fd = -1;
	r = memory_like(&m->to, &c->mem);
	if (!r && !c->g->c.record)
		r = open_there(c);
	vlog_clear(&m->log);
	memset(m->named, 0, m->log.bytes);
	memset(m->expect, 0, m->log.bytes);
	r = r ?: device(c, GUEST_MOVE_LIVE);
	if (r)
		return r;
	m->on = true;
	c->expect = m->expect;
	__atomic_store_n(&c->logging, true, __ATOMIC_RELEASE);
	copy_all(c);
	while (now_ns() < end) {
		sleep_ms(PASS_MS);
		copy_named(c, true);
	}
	return 0;
}

/* What the rings say, and where the device says that it stopped. */
static void check_bases(struct child *c)
{
	unsigned int i;

	for (i = 0; i < c->d.nvqs && !c->g->c.record; i++) {
		struct vq *q = &c->d.vqs[i];
		u16 used = __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE);

		if (q->base != used)
			model_breach(c->g->m, ~0ull, "queue %u stopped at %u, and its used ring is at %u", i, q->base, used);
	}
}

static int stop(struct child *c)
{
	int r;

	if (!c->move.on)
		return -EINVAL;
	c->g->s->still_ns = now_ns();
	if (!load_still(c, true))
		return -ETIME;
	copy_named(c, true);
	r = device(c, GUEST_MOVE_STOP);
	if (r)
		return r;
	copy_named(c, false);
	compare(c);
	check_log(c);
	check_bases(c);
	c->move.stopped = true;
	return 0;
}

/* The threads stand still. */
static void end_log(struct child *c)
{
	c->logging = false;
	c->expect = NULL;
	c->move.on = c->move.stopped = false;
}

static void use_copy(struct child *c)
{
	struct move *m = &c->move;

	m->left = c->mem;
	c->mem = m->to;
	memset(&m->to, 0, sizeof(m->to));
	load_moved(c);
}

/* Its queues, on the copy. */
static int start_there(struct child *c)
{
	unsigned int i;

	for (i = 0; i < c->d.nvqs; i++)
		c->d.vqs[i].log = false;
	c->g->c.at = 1 - c->g->c.at;
	end_log(c);
	if (c->g->c.record) {
		/* half of the time the record comes along, as it was left */
		if (c->g->started++ % 2)
			memset(c->records, 0, c->records_bytes);
		return child_front_new(c);
	}
	close(c->d.fd);
	c->d.fd = c->move.d.fd;
	c->move.d.fd = -1;
	return vdev_start(&c->d);
}

static int there(struct child *c)
{
	int r;

	if (!c->move.stopped)
		return -EINVAL;
	use_copy(c);
	r = start_there(c);
	if (r)
		return r;
	poison_left(c);
	return load_still(c, false) ? 0 : -ETIME;
}

/* They start there, on a copy of the driver's side, which is not used again. */
static int try(struct child *c)
{
	struct vdev *d = &c->move.d;
	unsigned int i;
	int r = 0;

	for (i = 0; i < c->d.nvqs && !r && !c->g->c.record; i++) {
		struct vq q = c->d.vqs[i];

		q.d = d;
		q.log = false;
		q.ring.desc = gmem_ptr(&c->move.to, q.desc_gpa);
		q.ring.avail = gmem_ptr(&c->move.to, q.avail_gpa);
		q.ring.used = gmem_ptr(&c->move.to, q.used_gpa);
		r = vq_start(&q);
	}
	return r;
}

static int back(struct child *c)
{
	int r;

	if (!c->move.on)
		return -EINVAL;
	if (!load_still(c, true))
		return -ETIME;
	/* as a VMM that is ended */
	if (c->move.d.fd >= 0)
		close(c->move.d.fd);
	c->move.d.fd = -1;
	gmem_free(&c->move.to);
	end_log(c);
	r = device(c, GUEST_MOVE_BACK);
	return r ? r : load_still(c, false) ? 0 : -ETIME;
}

int move_command(struct child *c, enum guest_cmd cmd, u64 arg)
{
	if (!c->move.wrote)
		return -EOPNOTSUPP;
	switch (cmd) {
	case GUEST_MOVE_LIVE:
		return live(c, arg);
	case GUEST_MOVE_STOP:
		return stop(c);
	case GUEST_MOVE_TRY:
		return try(c);
	case GUEST_MOVE_THERE:
		return there(c);
	default:
		return back(c);
	}
}
