// SPDX-License-Identifier: GPL-2.0-or-later
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLACK		4096u
#define GUARD		64u		/* bytes of poison before and behind the data */
#define HDR_BYTES	320u		/* header and status */
#define SEGS_MAX	16		/* of a request */
#define FRONT_GRACE_NS	5000000000ull
#define WAIT_MS		100		/* for completions */
#define WAIT_MOVABLE_MS	10		/* of who may have to stand still */

static void push(struct list *l, struct slot *s)
{
	s->next = NULL;
	*l->last = s;
	l->last = &s->next;
}

static struct slot *pop(struct list *l)
{
	struct slot *s = l->first;

	if (s) {
		l->first = s->next;
		if (!l->first)
			l->last = &l->first;
	}
	return s;
}

static void fill(u8 *p, u32 len, u64 word)
{
	u64 *w = (u64 *)p;
	u32 i;

	for (i = 0; i < len / 8; i++)
		w[i] = word;
}

/* Offset of the first byte that is not poison, or -1. */
static long look(const u8 *p, u32 len, u64 word)
{
	const u64 *w = (const u64 *)p;
	u32 i;

	for (i = 0; i < len / 8; i++)
		if (w[i] != word)
			return 8l * i;
	return -1;
}

/* What the data of the last use lay in, with its guard, in whole words */
static void extent(const struct slot *s, u32 *from, u32 *len)
{
	u32 to = (s->off + s->len + GUARD + 7) & ~7u;

	*from = (s->off > GUARD ? s->off - GUARD : 0) & ~7u;
	if (to > s->room + SLACK)
		to = s->room + SLACK;
	*len = to - *from;
}

/* The driver's own pages, for who copies them: after they were written. */
static void wrote(struct child *c, u64 gpa, u64 len)
{
	u64 page, last = (gpa + len - 1) / 4096;

	for (page = gpa / 4096; c->move.wrote && page <= last; page++)
		__atomic_or_fetch(&c->move.wrote[page / 64], 1ull << page % 64, __ATOMIC_SEQ_CST);
}

static void wrote_slot(struct child *c, const struct slot *s)
{
	u32 from, len;

	extent(s, &from, &len);
	wrote(c, s->gpa, HDR_BYTES);
	wrote(c, s->gpa + 4096 + from, len);
}

void load_put_poison(struct slot *s)
{
	u32 from, len;

	s->poison = 0xb0150000deadbeefull ^ (u64)s->id << 32;
	extent(s, &from, &len);
	fill(s->mem, HDR_BYTES, s->poison);
	fill(s->mem + 4096 + from, len, s->poison);
}

void load_look_at_poison(struct worker *w, struct slot *s, bool all)
{
	struct model *m = w->c->g->m;
	u32 from = 0, len = s->room + SLACK;
	long at;

	if (!s->poison)
		return;
	if (!all)
		extent(s, &from, &len);
	__atomic_add_fetch(&w->c->g->s->poison_looks, 1, __ATOMIC_RELAXED);
	at = look(s->mem, HDR_BYTES, s->poison);
	if (at >= 0)
		model_breach(m, ~0ull, "queue %u: byte %ld of a completed request's header page was written later: %016llx", w->idx,
			     at, *(unsigned long long *)(s->mem + at));
	at = look(s->mem + 4096 + from, len, s->poison);
	if (at >= 0)
		model_breach(m, s->type == VIRTIO_BLK_T_IN ? s->sector : ~0ull,
			     "queue %u: byte %ld of a completed %s's buffer (data at %u+%u) was written later: %016llx", w->idx,
			     at + from, s->type == VIRTIO_BLK_T_IN ? "read" : "request", s->off, s->len,
			     *(unsigned long long *)(s->mem + 4096 + from + at));
	/* told once */
	if (at >= 0)
		fill(s->mem + 4096 + from, len, s->poison);
}

static void expect_dirty(struct child *c, u64 gpa, u64 len)
{
	u64 page, last = (gpa + len - 1) / 4096;

	for (page = gpa / 4096; page <= last; page++)
		__atomic_or_fetch(&c->expect[page / 64], 1ull << page % 64, __ATOMIC_RELAXED);
}

static void breach_request(struct worker *w, struct slot *s, const char *what, u64 got, u64 want)
{
	model_breach(w->c->g->m, s->nr ? s->sector : ~0ull, "queue %u, type %u: %s %llu, not %llu", w->idx, s->type, what,
		     (unsigned long long)got, (unsigned long long)want);
}

static void ended(struct worker *w, struct slot *s, u32 used)
{
	struct child *c = w->c;
	struct guest *g = c->g;
	u8 *data = s->mem + 4096 + s->off, status = *(volatile u8 *)(s->mem + LOAD_STATUS_AT);
	bool in = s->type == VIRTIO_BLK_T_IN || s->type == VIRTIO_BLK_T_GET_ID;
	u64 lat = now_ns() - s->t0, old = __atomic_load_n(&g->s->max_lat_ns, __ATOMIC_RELAXED);
	u32 want = in && status == VIRTIO_BLK_S_OK ? s->len + 1 : 1;

	while (lat > old && !__atomic_compare_exchange_n(&g->s->max_lat_ns, &old, lat, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	if (used != want)
		breach_request(w, s, "used length", used, want);
	if (status != VIRTIO_BLK_S_OK) {
		__atomic_add_fetch(&g->s->errors, 1, __ATOMIC_RELAXED);
		breach_request(w, s, "status", status, VIRTIO_BLK_S_OK);
	}
	switch (s->type) {
	case VIRTIO_BLK_T_IN:
		/* aligned, for the comparison by words */
		if ((uintptr_t)data % 8)
			memmove(data - (uintptr_t)data % 8, data, s->len);
		model_read_end(g->m, s->id, s->sector, s->nr, data - (uintptr_t)data % 8, w->idx, status);
		break;
	case VIRTIO_BLK_T_FLUSH:
		model_flush_end(g->m, s->tick, w->idx, status);
		break;
	case VIRTIO_BLK_T_GET_ID:
		if (g->c.serial && memcmp(data, g->c.serial, 20))
			breach_request(w, s, "wrong serial number beginning with byte", data[0], g->c.serial[0]);
		break;
	default:
		model_write_end(g->m, s->sector, s->nr, s->gen, w->idx, status);
	}
	if (s->logged && c->expect) {
		if (in && status == VIRTIO_BLK_S_OK)
			expect_dirty(c, s->gpa + 4096 + s->off, s->len);
		expect_dirty(c, s->gpa + LOAD_STATUS_AT, 1);
		expect_dirty(c, w->q->used_gpa + 2, 2);
		expect_dirty(c, w->q->used_gpa + 4 + 8 * ((u16)(w->q->last_used - 1) & (w->q->num - 1)), 8);
	}
	load_put_poison(s);
	wrote_slot(c, s);
	__atomic_add_fetch(&g->s->ops[s->type & 15], 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&g->s->ios, 1, __ATOMIC_RELAXED);
	s->used = false;
	w->flying--;
	push(s->room == LOAD_SMALL ? &w->small : &w->large, s);
}

static u32 choose_type(struct worker *w)
{
	u32 pct = rnd64(&w->rnd) % 100;

	return pct < 42 ? VIRTIO_BLK_T_OUT : pct < 84 ? VIRTIO_BLK_T_IN : pct < 89 ? VIRTIO_BLK_T_FLUSH :
	       pct < 93 ? VIRTIO_BLK_T_DISCARD : pct < 98 ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_GET_ID;
}

static u32 choose_blocks(struct worker *w, bool large, u32 max)
{
	u32 how = rnd64(&w->rnd) % 10, n;

	if (large)
		n = max - rnd64(&w->rnd) % (max / 8);
	else
		n = how < 5 ? 1 : how < 9 ? 1 + rnd64(&w->rnd) % 8 : 1 + rnd64(&w->rnd) % max;
	return n < max ? n : max;
}

/* Half of it goes to a sixteenth of the disk, so that places are written again soon. */
static u64 choose_place(struct worker *w, u32 nr)
{
	struct guest_cfg *c = &w->c->g->c;
	u32 spb = c->block / 512;
	u64 room = c->nsect / spb - nr / spb + 1, hot = c->nsect / spb / 16;

	if (rnd64(&w->rnd) % 2 && hot < room)
		room = hot;
	return rnd64(&w->rnd) % room * spb;
}

/* Cuts [gpa, gpa + len) into up to @max pieces; at sectors, or anywhere. */
static unsigned int cut(struct worker *w, struct vseg *seg, u64 gpa, u32 len, bool in, unsigned int max, bool odd)
{
	u32 unit = odd ? 1 : 512, at = 0;
	unsigned int n = 0;

	while (at < len) {
		u32 left = len - at, piece = left;

		if (n + 1 < max && left > unit && rnd64(&w->rnd) % 2)
			piece = unit * (1 + rnd64(&w->rnd) % (left / unit));
		seg[n++] = (struct vseg){ gpa + at, piece, in };
		at += piece;
	}
	return n;
}

static bool begin(struct worker *w, bool large)
{
	struct child *c = w->c;
	struct guest *g = c->g;
	struct list *from = large ? &w->large : &w->small;
	struct slot *s = w->q->nr_free >= SEGS_MAX ? pop(from) : NULL;
	struct virtio_blk_outhdr *h;
	struct vseg seg[SEGS_MAX];
	u32 spb = g->c.block / 512, how, i;
	unsigned int n = 0, flags;
	int head;
	bool odd;

	if (!s)
		return false;
	load_look_at_poison(w, s, rnd64(&w->rnd) % 64 == 0);
	s->type = large ? (rnd64(&w->rnd) % 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN) : choose_type(w);
	how = rnd64(&w->rnd) % 10;
	s->off = how < 7 ? 512 * (rnd64(&w->rnd) % 7) : how < 9 ? 4 * (rnd64(&w->rnd) % 900) : rnd64(&w->rnd) % 3800;
	odd = s->off % 512;
	s->off += GUARD * 2;
	if (!odd)
		s->off = (s->off + 511) & ~511u;
	s->nr = s->len = 0;
	if (s->type == VIRTIO_BLK_T_GET_ID) {
		s->len = 20;
	} else if (s->type != VIRTIO_BLK_T_FLUSH) {
		s->nr = choose_blocks(w, large, (s->room - SLACK) / g->c.block) * spb;
		s->sector = choose_place(w, s->nr);
		s->len = s->type == VIRTIO_BLK_T_OUT || s->type == VIRTIO_BLK_T_IN ? s->nr * 512 : 16;
	}

	h = (void *)s->mem;
	memset(h, 0, sizeof(*h));
	h->type = s->type;
	if (s->type == VIRTIO_BLK_T_OUT || s->type == VIRTIO_BLK_T_IN)
		h->sector = s->sector;
	*(volatile u8 *)(s->mem + LOAD_STATUS_AT) = 0xaa;
	switch (s->type) {
	case VIRTIO_BLK_T_OUT:
	case VIRTIO_BLK_T_WRITE_ZEROES:
	case VIRTIO_BLK_T_DISCARD:
		s->gen = model_write_begin(g->m, s->sector, s->nr, s->type == VIRTIO_BLK_T_OUT ? MODEL_DATA :
					   s->type == VIRTIO_BLK_T_DISCARD ? MODEL_DISCARD : MODEL_ZERO, w->idx);
		if (!s->gen)
			goto back;
		break;
	case VIRTIO_BLK_T_IN:
		model_read_begin(g->m, s->id, s->sector, s->nr, w->idx);
		break;
	case VIRTIO_BLK_T_FLUSH:
		s->tick = model_flush_begin(g->m, w->idx);
		break;
	}
	if (s->type == VIRTIO_BLK_T_OUT) {
		u64 sector[64];

		for (i = 0; i < s->nr; i++) {
			pat_fill(sector, g->m->seed, s->sector + i, s->gen);
			memcpy(s->mem + 4096 + s->off + 512 * i, sector, 512);
		}
	} else if (s->len == 16) {
		struct virtio_blk_discard_write_zeroes z = { .sector = s->sector, .num_sectors = s->nr };

		if (s->type == VIRTIO_BLK_T_WRITE_ZEROES)
			z.flags = rnd64(&w->rnd) % 2;
		memcpy(s->mem + 4096 + s->off, &z, 16);
	}

	seg[n++] = (struct vseg){ s->gpa, 16, false };
	if (s->len)
		n += cut(w, seg + n, s->gpa + 4096 + s->off, s->len,
			 s->type == VIRTIO_BLK_T_IN || s->type == VIRTIO_BLK_T_GET_ID, 1 + rnd64(&w->rnd) % (SEGS_MAX - 3), odd);
	seg[n++] = (struct vseg){ s->gpa + LOAD_STATUS_AT, 1, true };
	flags = w->q->ind_max && rnd64(&w->rnd) % 2 ? VQ_F_INDIRECT : 0;
	s->t0 = now_ns();
	s->logged = c->logging;
	s->used = true;
	wrote_slot(c, s);
	head = vq_add(w->q, seg, n, s, flags);
	if (head < 0) {
		/* no room in the ring: it never was */
		if (s->type == VIRTIO_BLK_T_IN)
			model_read_end(g->m, s->id, s->sector, 0, NULL, w->idx, 255);
		else if (s->gen && s->nr)
			model_write_end(g->m, s->sector, s->nr, s->gen, w->idx, 255);
		s->used = false;
		goto back;
	}
	if (flags == VQ_F_INDIRECT)
		wrote(c, w->q->ind_gpa + 16ull * w->q->ind_max * head, 16 * n);
	w->flying++;
	__atomic_add_fetch(&g->s->multi, large, __ATOMIC_RELAXED);
	__atomic_add_fetch(&g->s->indirect, flags == VQ_F_INDIRECT, __ATOMIC_RELAXED);
	__atomic_add_fetch(&g->s->odd, odd, __ATOMIC_RELAXED);
	return true;
back:
	if (!s->used) {
		load_put_poison(s);
		wrote_slot(c, s);
	}
	push(from, s);
	return false;
}

static void tell_oldest(struct worker *w)
{
	struct guest_oldest *o = &w->c->g->s->oldest[w->idx];
	u64 t0 = now_ns();
	unsigned int i;

	o->flying = w->flying;
	for (i = 0; i < w->nslots; i++) {
		struct slot *s = &w->slots[i];

		if (!s->used || s->t0 >= t0)
			continue;
		t0 = s->t0;
		o->type = s->type;
		o->sector = s->sector;
		o->nr = s->nr;
	}
	__atomic_store_n(&o->t0, t0, __ATOMIC_RELAXED);
}

/* Descriptors, available ring and event index are written all the time. */
static void stand_still(struct worker *w)
{
	struct child *c = w->c;
	struct vq *q = w->q;

	wrote(c, q->desc_gpa, 16 * q->num);
	wrote(c, q->avail_gpa, 6 + 2 * q->num);
	__atomic_or_fetch(&c->stands, 1ull << w->idx, __ATOMIC_RELEASE);
	while (__atomic_load_n(&c->still, __ATOMIC_ACQUIRE))
		sleep_ms(1);
	__atomic_and_fetch(&c->stands, ~(1ull << w->idx), __ATOMIC_RELEASE);
}

void *load_work(void *arg)
{
	struct worker *w = arg;
	struct child *c = w->c;
	struct guest_shared *sh = c->g->s;

	for (;;) {
		bool drain = __atomic_load_n(&sh->drain, __ATOMIC_ACQUIRE), added = false;
		struct slot *s;
		u32 used;

		if (__atomic_load_n(&c->still, __ATOMIC_ACQUIRE))
			stand_still(w);
		while (!drain && w->flying < c->g->c.depth && begin(w, w->large.first && rnd64(&w->rnd) % 400 == 0))
			added = true;
		if (added)
			vq_submit(w->q);
		if (drain && !w->flying) {
			__atomic_store_n(&sh->oldest[w->idx].t0, now_ns(), __ATOMIC_RELAXED);
			__atomic_or_fetch(&c->idle, 1ull << w->idx, __ATOMIC_RELEASE);
			sleep_ms(2);
			continue;
		}
		if (!drain)
			__atomic_and_fetch(&c->idle, ~(1ull << w->idx), __ATOMIC_RELEASE);
		vq_wait(w->q, c->move.wrote ? WAIT_MOVABLE_MS : WAIT_MS);
		vq_calls_off(w->q);
		while ((s = vq_pop(w->q, &used)))
			ended(w, s, used);
		if (w->q->bad_used) {
			model_breach(c->g->m, ~0ull, "queue %u: %llu completions of heads that were not outstanding", w->idx,
				     (unsigned long long)w->q->bad_used);
			w->q->bad_used = 0;
		}
		/* one may die between the used ring and the call; its successor makes up for it, when it is there */
		if (w->q->lost_calls && now_ns() < __atomic_load_n(&c->front_ns, __ATOMIC_RELAXED) + FRONT_GRACE_NS)
			w->q->lost_calls = 0;
		if (w->q->lost_calls) {
			model_breach(c->g->m, ~0ull, "queue %u: a completion without the call that was asked for", w->idx);
			w->q->lost_calls = 0;
		}
		tell_oldest(w);
	}
	return NULL;
}

bool load_drain(struct child *c)
{
	u64 all = (1ull << c->g->c.queues) - 1, end = now_ns() + LOAD_DRAIN_S * 1000000000ull;

	__atomic_store_n(&c->g->s->drain, true, __ATOMIC_RELEASE);
	while ((__atomic_load_n(&c->idle, __ATOMIC_ACQUIRE) & all) != all) {
		if (now_ns() > end)
			return false;
		sleep_ms(2);
	}
	return true;
}

bool load_still(struct child *c, bool on)
{
	u64 want = on ? (1ull << c->g->c.queues) - 1 : 0, end = now_ns() + LOAD_DRAIN_S * 1000000000ull;

	__atomic_store_n(&c->still, on, __ATOMIC_RELEASE);
	while (__atomic_load_n(&c->stands, __ATOMIC_ACQUIRE) != want) {
		if (now_ns() > end)
			return false;
		usleep(200);
	}
	return true;
}

void load_moved(struct child *c)
{
	unsigned int i, k;

	for (i = 0; i < c->g->c.queues; i++) {
		struct worker *w = &c->w[i];

		w->q->ring.desc = gmem_ptr(&c->mem, w->q->desc_gpa);
		w->q->ring.avail = gmem_ptr(&c->mem, w->q->avail_gpa);
		w->q->ring.used = gmem_ptr(&c->mem, w->q->used_gpa);
		for (k = 0; k < w->nslots; k++)
			w->slots[k].mem = gmem_ptr(&c->mem, w->slots[k].gpa);
	}
}

void load_go_on(struct child *c)
{
	__atomic_and_fetch(&c->idle, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&c->g->s->drain, false, __ATOMIC_RELEASE);
}

int load_slots(struct child *c, struct worker *w)
{
	unsigned int small = 2 * c->g->c.depth + 4, i;

	w->nslots = small + 1;
	w->slots = calloc(w->nslots, sizeof(*w->slots));
	w->small.last = &w->small.first;
	w->large.last = &w->large.first;
	if (!w->slots)
		return -ENOMEM;
	for (i = 0; i < w->nslots; i++) {
		struct slot *s = &w->slots[i];

		s->room = i < small ? LOAD_SMALL : LOAD_LARGE;
		s->gpa = gmem_alloc(&c->mem, -1, 4096 + s->room + SLACK, 4096);
		if (s->gpa == GMEM_NONE)
			return -ENOSPC;
		s->mem = gmem_ptr(&c->mem, s->gpa);
		s->id = w->idx * w->nslots + i;
		s->len = s->room + SLACK;
		load_put_poison(s);
		s->len = 0;
		push(i < small ? &w->small : &w->large, s);
	}
	return 0;
}
