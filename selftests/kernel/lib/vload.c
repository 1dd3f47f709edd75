// SPDX-License-Identifier: GPL-2.0-or-later
#include "vload.h"
#include "ktap.h"
#include "stor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_MS	30000

/* --- one request --- */

struct slot {
	u64 gpa;		/* header, status, then data at +4096 */
	struct virtio_blk_outhdr *hdr;
	volatile u8 *status;
	u8 *data;
	u64 blk;
	u32 nr;
	u32 type;
	u32 gen;
	u64 t0;
	u64 rest_ns;		/* no other request in its place before */
	bool used;
};

static bool pick(struct vload_thread *t, u64 *blk, u32 nr)
{
	struct vload *l = t->l;
	unsigned int tries;
	u32 i;

	for (tries = 0; tries < 64; tries++) {
		*blk = t->first + rnd64(&t->rnd) % (t->nr - nr + 1);
		for (i = 0; i < nr && !l->blk[*blk + i].busy; i++)
			;
		if (i == nr)
			return true;
	}
	return false;
}

static void check_read(struct vload *l, struct slot *s)
{
	u32 spb = l->c.block / 512, i, k;

	for (i = 0; i < s->nr; i++) {
		struct vload_blk *b = &l->blk[s->blk + i];
		u64 sector = l->c.first + (s->blk + i) * spb;

		if (!b->gen && !b->unsure)
			continue;
		for (k = 0; k < spb; k++) {
			const u8 *p = s->data + i * l->c.block + k * 512;

			if (pat_ok(p, l->c.seed, sector + k, b->gen))
				continue;
			if (b->unsure && (!b->alt || pat_ok(p, l->c.seed, sector + k, b->alt) || !b->gen))
				continue;
			if (__atomic_add_fetch(&l->mismatches, 1, __ATOMIC_RELAXED) <= 5)
				ktap_note("sector %llu: gen %u wanted (%sunsure, %u), found seed %llx sector %llu gen %llu",
					  (unsigned long long)sector + k, b->gen, b->unsure ? "" : "not ", b->alt,
					  (unsigned long long)((u64 *)p)[0], (unsigned long long)((u64 *)p)[1],
					  (unsigned long long)((u64 *)p)[2]);
			break;
		}
	}
}

static void done(struct vload *l, struct slot *s)
{
	u8 status = *s->status;
	u64 now = now_ns();
	u32 i;

	if (l->c.ended)
		l->c.ended(s->type, s->t0, now);
	if (status != VIRTIO_BLK_S_OK)
		__atomic_add_fetch(&l->errors, 1, __ATOMIC_RELAXED);
	if (s->type == VIRTIO_BLK_T_IN) {
		if (status == VIRTIO_BLK_S_OK)
			check_read(l, s);
		__atomic_add_fetch(&l->reads, 1, __ATOMIC_RELAXED);
	} else if (s->type != VIRTIO_BLK_T_FLUSH) {
		__atomic_add_fetch(&l->writes, 1, __ATOMIC_RELAXED);
	}
	for (i = 0; i < s->nr; i++) {
		struct vload_blk *b = &l->blk[s->blk + i];

		if (s->type == VIRTIO_BLK_T_OUT || s->type == VIRTIO_BLK_T_WRITE_ZEROES) {
			if (status == VIRTIO_BLK_S_OK) {
				b->gen = s->gen;
				b->unsure = false;
			} else if (b->unsure) {
				b->gen = b->alt = 0;	/* three or more candidates: unknown */
			} else {
				b->unsure = true;
				b->alt = s->gen;
			}
		}
		b->busy = false;
	}
	s->used = false;
	s->rest_ns = now + l->c.think_ms * 1000000ull;
	__atomic_add_fetch(&l->ios, 1, __ATOMIC_RELAXED);
}

static bool start_one(struct vload_thread *t, struct slot *s)
{
	struct vload *l = t->l;
	u32 pct = rnd64(&t->rnd) % 100, i, k, spb = l->c.block / 512;
	struct virtio_blk_discard_write_zeroes *z = (void *)s->data;
	struct vseg seg[8];
	unsigned int n = 0;
	u32 left, at;

	s->nr = 1 + rnd64(&t->rnd) % l->c.max_blocks;
	if (pct < l->c.flush_pct) {
		s->type = VIRTIO_BLK_T_FLUSH;
		s->nr = 0;
	} else if (pct < l->c.flush_pct + l->c.zero_pct) {
		s->type = VIRTIO_BLK_T_WRITE_ZEROES;
	} else {
		s->type = rnd64(&t->rnd) % 100 < l->c.write_pct ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	}
	if (s->nr && !pick(t, &s->blk, s->nr))
		return false;
	s->hdr->type = s->type;
	s->hdr->ioprio = 0;
	s->hdr->sector = s->nr ? l->c.first + s->blk * spb : 0;
	*s->status = 0xaa;
	for (i = 0; i < s->nr; i++) {
		l->blk[s->blk + i].busy = true;
		if (s->type != VIRTIO_BLK_T_OUT)
			continue;
		/* one generation for the request: above all of its blocks' */
		if (i == 0) {
			s->gen = rnd64(&t->rnd) & 0x7fffffff;
			s->gen |= 1;
		}
		for (k = 0; k < spb; k++)
			pat_fill(s->data + i * l->c.block + k * 512, l->c.seed,
				 l->c.first + (s->blk + i) * spb + k, s->gen);
	}
	seg[n++] = (struct vseg){ s->gpa, 16, false };
	if (s->type == VIRTIO_BLK_T_WRITE_ZEROES) {
		s->gen = GEN_ZERO;
		z->sector = s->hdr->sector;
		z->num_sectors = s->nr * spb;
		z->flags = 0;
		s->hdr->sector = 0;
		seg[n++] = (struct vseg){ s->gpa + 4096, 16, false };
	} else if (s->nr) {
		/* whole, or cut into up to four pieces */
		left = s->nr * l->c.block;
		at = 0;
		while (left) {
			u32 len = n == 5 || rnd64(&t->rnd) % 2 ? left : 512 * (1 + rnd64(&t->rnd) % (left / 512));

			seg[n++] = (struct vseg){ s->gpa + 4096 + at, len, s->type == VIRTIO_BLK_T_IN };
			at += len;
			left -= len;
		}
	}
	seg[n++] = (struct vseg){ s->gpa + 16, 1, true };
	s->t0 = now_ns();
	if (vq_add(t->q, seg, n, s, l->c.indirect && rnd64(&t->rnd) % 2 ? VQ_F_INDIRECT : 0) < 0) {
		for (i = 0; i < s->nr; i++)
			l->blk[s->blk + i].busy = false;
		return false;
	}
	s->used = true;
	return true;
}

static void *run(void *arg)
{
	struct vload_thread *t = arg;
	struct vload *l = t->l;
	u64 issued = 0, drain = 0, oldest, each = l->c.max_ios / l->nt, slot_size = 4096 + (u64)l->c.max_blocks * l->c.block;
	struct slot *slots = calloc(l->c.depth, sizeof(*slots)), *s;
	unsigned int i, flying = 0;

	for (i = 0; i < l->c.depth; i++) {
		s = &slots[i];
		s->gpa = t->slots_gpa + i * slot_size;
		s->hdr = gmem_ptr(l->d->mem, s->gpa);
		s->status = (u8 *)s->hdr + 16;
		s->data = (u8 *)s->hdr + 4096;
	}
	for (;;) {
		bool stop = l->stop || (each && issued >= each), added = false;
		u64 now = now_ns();

		for (i = 0; i < l->c.depth && !stop; i++) {
			if (slots[i].used || slots[i].rest_ns > now || !start_one(t, &slots[i]))
				continue;
			flying++;
			issued++;
			added = true;
			if (each && issued >= each)
				break;
		}
		if (added)
			vq_submit(t->q);
		if ((!flying && (stop || !l->c.think_ms)) || l->abandon)
			break;
		if (stop && !drain)
			drain = now_ns() + DRAIN_MS * 1000000ull;
		vq_wait(t->q, l->c.think_ms ? 1 : 200);
		vq_calls_off(t->q);
		while ((s = vq_pop(t->q, NULL))) {
			done(l, s);
			flying--;
			drain = drain ? now_ns() + DRAIN_MS * 1000000ull : 0;
		}
		oldest = now_ns();
		for (i = 0; i < l->c.depth; i++)
			if (slots[i].used && slots[i].t0 < oldest)
				oldest = slots[i].t0;
		__atomic_store_n(&t->oldest, oldest, __ATOMIC_RELAXED);
		if (drain && now_ns() > drain) {
			__atomic_add_fetch(&l->stuck, flying, __ATOMIC_RELAXED);
			break;
		}
	}
	free(slots);
	return NULL;
}

int vload_start(struct vload *l, struct vdev *d, const struct vload_cfg *c)
{
	u64 slot_size;
	unsigned int i;

	memset(l, 0, sizeof(*l));
	l->c = *c;
	l->d = d;
	if (!l->c.depth)
		l->c.depth = 16;
	if (!l->c.block)
		l->c.block = 4096;
	if (!l->c.max_blocks)
		l->c.max_blocks = 4;
	if (!l->c.write_pct)
		l->c.write_pct = 50;
	if (!l->c.seed)
		l->c.seed = 0x1234567;
	if (!l->c.nr)
		l->c.nr = d->cfg.capacity - l->c.first;
	l->nt = c->queues ? c->queues : d->nvqs;
	l->nblk = l->c.nr / (l->c.block / 512);
	l->blk = calloc(l->nblk, sizeof(*l->blk));
	l->t = calloc(l->nt, sizeof(*l->t));
	if (!l->blk || !l->t)
		return -ENOMEM;
	slot_size = 4096 + (u64)l->c.max_blocks * l->c.block;
	for (i = 0; i < l->nt; i++) {
		struct vload_thread *t = &l->t[i];

		t->l = l;
		t->q = &d->vqs[i];
		t->rnd = l->c.seed * 31 + i;
		t->nr = l->nblk / l->nt;
		t->first = t->nr * i;
		t->slots_gpa = gmem_alloc(d->mem, l->c.mem_idx, slot_size * l->c.depth, 4096);
		if (t->slots_gpa == GMEM_NONE)
			return -ENOSPC;
	}
	for (i = 0; i < l->nt; i++)
		if (pthread_create(&l->t[i].thread, NULL, run, &l->t[i]))
			return -EAGAIN;
	return 0;
}

void vload_wait(struct vload *l)
{
	unsigned int i;

	for (i = 0; i < l->nt; i++)
		if (l->t[i].thread)
			pthread_join(l->t[i].thread, NULL);
	for (i = 0; i < l->nt; i++)
		l->t[i].thread = 0;
}

void vload_stop(struct vload *l)
{
	l->stop = true;
	vload_wait(l);
}

bool vload_progress(struct vload *l, u64 n, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull, want = __atomic_load_n(&l->ios, __ATOMIC_RELAXED) + n;

	while (__atomic_load_n(&l->ios, __ATOMIC_RELAXED) < want) {
		if (now_ns() > end)
			return false;
		sleep_ms(1);
	}
	return true;
}

bool vload_turnover(struct vload *l, int timeout_ms)
{
	u64 from = now_ns();
	unsigned int i;

	for (i = 0; i < l->nt; i++)
		while (__atomic_load_n(&l->t[i].oldest, __ATOMIC_RELAXED) <= from) {
			if (now_ns() > from + timeout_ms * 1000000ull)
				return false;
			sleep_ms(1);
		}
	return true;
}

static bool block_bad(struct vload *l, const u8 *p, u64 blk)
{
	const struct vload_blk *b = &l->blk[blk];
	u32 spb = l->c.block / 512, k;

	if (!b->gen)		/* never written, or unknown */
		return false;
	for (k = 0; k < spb; k++) {
		u64 sector = l->c.first + blk * spb + k;

		if (!pat_ok(p + k * 512, l->c.seed, sector, b->gen) &&
		    !(b->unsure && (!b->alt || pat_ok(p + k * 512, l->c.seed, sector, b->alt)))) {
			ktap_note("at rest: sector %llu: gen %u wanted, found seed %llx sector %llu gen %u",
				  (unsigned long long)sector, b->gen, (unsigned long long)((u64 *)(p + k * 512))[0],
				  (unsigned long long)((u64 *)(p + k * 512))[1], pat_gen(p + k * 512));
			return true;
		}
	}
	return false;
}

#define CHECK_CHUNK	(256 * 1024u)

static long check(struct vload *l, const char *node, struct vblk_sync *s)
{
	u32 per = CHECK_CHUNK / l->c.block;
	void *buf;
	u64 b, i;
	long bad = 0;

	if (posix_memalign(&buf, 4096, CHECK_CHUNK))
		return -ENOMEM;
	for (b = 0; b < l->nblk; b += per) {
		u32 n = l->nblk - b < per ? l->nblk - b : per;
		u64 sector = l->c.first + b * (l->c.block / 512);
		int r;

		for (i = 0; i < n && !l->blk[b + i].gen; i++)
			;
		if (i == n)
			continue;
		r = node ? stor_pread(node, buf, n * l->c.block, sector * 512) :
		    vblk_read(s, &l->d->vqs[0], sector, buf, n * l->c.block);
		if (r) {
			ktap_note("at rest: read of sector %llu: %d", (unsigned long long)sector, r);
			bad = r < 0 ? r : -EIO;
			break;
		}
		for (i = 0; i < n && bad < 10; i++)
			bad += block_bad(l, (u8 *)buf + i * l->c.block, b + i);
	}
	free(buf);
	return bad;
}

long vload_check_dev(struct vload *l)
{
	struct vblk_sync s;
	int r = vblk_sync_init(&s, l->d, CHECK_CHUNK);

	return r ? r : check(l, NULL, &s);
}

long vload_check_node(struct vload *l, const char *node)
{
	return check(l, node, NULL);
}

void vload_free(struct vload *l)
{
	free(l->blk);
	free(l->t);
	l->blk = NULL;
	l->t = NULL;
}

void vload_finish(struct vload *l, const char *what)
{
	unsigned int i;

	vload_stop(l);
	T_CHECK(!l->mismatches, "%s: %llu blocks differ", what, (unsigned long long)l->mismatches);
	T_CHECK(!l->stuck, "%s: %llu requests never completed", what, (unsigned long long)l->stuck);
	T_CHECK(l->c.may_fail || !l->errors, "%s: %llu requests failed", what, (unsigned long long)l->errors);
	T_CHECK(l->ios > 0, "%s: nothing was done", what);
	for (i = 0; i < l->nt; i++) {
		T_CHECK(!l->t[i].q->bad_used, "%s: queue %u: %llu wrong completions", what, i,
			(unsigned long long)l->t[i].q->bad_used);
		T_CHECK(!l->t[i].q->lost_calls, "%s: queue %u: %llu calls lost", what, i,
			(unsigned long long)l->t[i].q->lost_calls);
	}
	vload_free(l);
}
