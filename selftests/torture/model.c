// SPDX-License-Identifier: GPL-2.0-or-later
#include "model.h"
#include "vload.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PRINTED_BREACHES	6
#define PRINTED_EVENTS		150
#define CHUNK			(128 * 1024u)

static const char *const kind_name[] = { "free", "write", "zeroes", "discard" };
static const char *const state_name[] = { "in flight", "acknowledged", "lost" };

static void lock(struct model *m)
{
	/* Its owner was killed: what it was about to change is whole, entry by entry. */
	if (pthread_mutex_lock(&m->lock) == EOWNERDEAD)
		pthread_mutex_consistent(&m->lock);
}

static void unlock(struct model *m)
{
	pthread_mutex_unlock(&m->lock);
}

struct model *model_new(u64 seed, u64 nsect, bool volatile_cache)
{
	u64 bytes = sizeof(struct model) + nsect * sizeof(struct model_sector), i;
	pthread_mutexattr_t a;
	struct model *m;

	m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return NULL;
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&m->lock, &a);
	m->bytes = bytes;
	m->seed = seed;
	m->nsect = nsect;
	m->volatile_cache = volatile_cache;
	m->clock = m->durable_before = 1;
	/* new storage is zeroed */
	for (i = 0; i < nsect; i++)
		m->s[i].e[0] = (struct model_entry){ .kind = MODEL_ZERO, .state = MODEL_ACKED };
	return m;
}

void model_free(struct model *m)
{
	munmap(m, m->bytes);
}

/* --- history --- */

static struct model_event *event(struct model *m)
{
	struct model_event *v = &m->event[m->nr_events++ % MODEL_HISTORY];

	memset(v, 0, sizeof(*v));
	v->ns = now_ns();
	return v;
}

static void note(struct model *m, u8 op, u64 sector, u32 nr, u32 gen, unsigned int queue, bool ended, u8 status)
{
	struct model_event *v = event(m);

	v->sector = sector;
	v->nr = nr;
	v->gen = gen;
	v->op = op;
	v->queue = queue;
	v->ended = ended;
	v->status = status;
}

void model_mark(struct model *m, const char *fmt, ...)
{
	va_list ap;

	lock(m);
	va_start(ap, fmt);
	vsnprintf(event(m)->text, MODEL_TEXT, fmt, ap);
	va_end(ap);
	unlock(m);
}

static const char *op_name(u8 op)
{
	switch (op) {
	case VIRTIO_BLK_T_IN:
		return "read";
	case VIRTIO_BLK_T_OUT:
		return "write";
	case VIRTIO_BLK_T_FLUSH:
		return "flush";
	case VIRTIO_BLK_T_DISCARD:
		return "discard";
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return "zeroes";
	default:
		return "?";
	}
}

static bool touches(const struct model *m, const struct model_event *v, u64 sector)
{
	if (!v->nr || sector == ~0ull)
		return true;
	if (v->op == VIRTIO_BLK_T_FLUSH)
		return m->volatile_cache;
	return sector >= v->sector && sector < v->sector + v->nr;
}

static void print_history(struct model *m, FILE *f, u64 sector)
{
	u64 first = m->nr_events > MODEL_HISTORY ? m->nr_events - MODEL_HISTORY : 0, i, from = m->nr_events, n = 0;
	u64 now = now_ns();

	for (; from > first && n < PRINTED_EVENTS; from--) {
		struct model_event *v = &m->event[(from - 1) % MODEL_HISTORY];

		n += touches(m, v, sector);
	}
	for (i = from; i < m->nr_events; i++) {
		struct model_event *v = &m->event[i % MODEL_HISTORY];
		bool flush = v->op == VIRTIO_BLK_T_FLUSH;

		if (!touches(m, v, sector))
			continue;
		fprintf(f, "#   %+12.3f ms  ", ((double)v->ns - (double)now) / 1e6);
		if (!v->nr) {
			fprintf(f, "-- %s\n", v->text);
			continue;
		}
		fprintf(f, "queue %u %s %s", v->queue, op_name(v->op), v->ended ? "ended" : "begun");
		if (!flush)
			fprintf(f, ", sectors %llu+%u", (unsigned long long)v->sector, v->nr);
		if (v->gen)
			fprintf(f, ", generation %u", v->gen);
		if (v->ended)
			fprintf(f, ", status %u", v->status);
		fprintf(f, "\n");
	}
}

/* Under the lock. One write(2), so that lines of several processes do not mix. */
static void breach(struct model *m, u64 sector, const char *what)
{
	size_t size = 0, done = 0;
	char *text = NULL;
	unsigned int i;
	FILE *f;

	if (m->breaches++ >= PRINTED_BREACHES)
		return;
	f = open_memstream(&text, &size);
	if (!f)
		return;
	fprintf(f, "# BREACH seed %llu", (unsigned long long)m->seed);
	if (sector != ~0ull)
		fprintf(f, " sector %llu", (unsigned long long)sector);
	fprintf(f, ": %s\n", what);
	for (i = 0; sector != ~0ull && i < MODEL_ENTRIES; i++) {
		struct model_entry *e = &m->s[sector].e[i];

		if (e->kind != MODEL_FREE)
			fprintf(f, "#   %s of generation %u, %s, ticks %llu to %llu, superseded at %llu\n", kind_name[e->kind],
				e->gen, state_name[e->state], (unsigned long long)e->t0, (unsigned long long)e->t1,
				(unsigned long long)e->dead);
	}
	fprintf(f, "#   now is tick %llu; durable is what ended before %llu\n", (unsigned long long)m->clock,
		(unsigned long long)m->durable_before);
	print_history(m, f, sector);
	fclose(f);
	while (done < size) {
		ssize_t n = write(1, text + done, size - done);

		if (n <= 0)
			break;
		done += n;
	}
	free(text);
}

void model_breach(struct model *m, u64 sector, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	lock(m);
	breach(m, sector, text);
	unlock(m);
}

/* --- contents --- */

/* Is there a write behind @e that no crash takes back? */
static bool buried(const struct model *m, const struct model_sector *s, const struct model_entry *e)
{
	unsigned int i;

	if (!m->volatile_cache)
		return true;
	for (i = 0; i < MODEL_ENTRIES; i++) {
		const struct model_entry *w = &s->e[i];

		if ((w->kind == MODEL_DATA || w->kind == MODEL_ZERO) && w->state == MODEL_ACKED && w->t0 > e->t1 &&
		    w->t1 < m->durable_before)
			return true;
	}
	return false;
}

/* When the oldest read in flight began, or later than everything: none may bring what was superseded before. */
static u64 oldest_read(const struct model *m)
{
	u64 oldest = m->clock + 1;
	unsigned int i;

	for (i = 0; i < m->nr_reads; i++)
		if (m->read_t0[i] && m->read_t0[i] < oldest)
			oldest = m->read_t0[i];
	return oldest;
}

static struct model_entry *room(struct model *m, struct model_sector *s, u64 oldest)
{
	unsigned int i;

	for (i = 0; i < MODEL_ENTRIES; i++)
		if (s->e[i].kind == MODEL_FREE)
			return &s->e[i];
	for (i = 0; i < MODEL_ENTRIES; i++) {
		struct model_entry *e = &s->e[i];

		if (e->dead && e->dead < oldest && e->state != MODEL_FLYING && buried(m, s, e)) {
			e->kind = MODEL_FREE;
			return e;
		}
	}
	return NULL;
}

u32 model_write_begin(struct model *m, u64 sector, u32 nr, enum model_kind kind, unsigned int queue)
{
	static const u8 op[] = { 0, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD };
	u32 gen = 0, i;
	u64 oldest;

	lock(m);
	oldest = oldest_read(m);
	for (i = 0; i < nr; i++)
		if (!room(m, &m->s[sector + i], oldest))
			goto out;
	gen = ++m->last_gen;
	m->clock++;
	for (i = 0; i < nr; i++) {
		struct model_entry *e = room(m, &m->s[sector + i], oldest);

		e->t0 = m->clock;
		e->t1 = e->dead = 0;
		e->gen = gen;
		e->state = MODEL_FLYING;
		e->kind = kind;
	}
	note(m, op[kind], sector, nr, gen, queue, false, 0);
out:
	unlock(m);
	return gen;
}

void model_write_end(struct model *m, u64 sector, u32 nr, u32 gen, unsigned int queue, u8 status)
{
	u8 op = VIRTIO_BLK_T_OUT;
	u32 i, k;

	lock(m);
	m->clock++;
	for (i = 0; i < nr; i++) {
		struct model_sector *s = &m->s[sector + i];
		struct model_entry *w = NULL;

		for (k = 0; k < MODEL_ENTRIES && !w; k++)
			if (s->e[k].kind != MODEL_FREE && s->e[k].gen == gen)
				w = &s->e[k];
		if (!w)
			continue;
		op = w->kind == MODEL_DATA ? VIRTIO_BLK_T_OUT :
		     w->kind == MODEL_ZERO ? VIRTIO_BLK_T_WRITE_ZEROES : VIRTIO_BLK_T_DISCARD;
		w->t1 = m->clock;
		w->state = status == VIRTIO_BLK_S_OK && w->t0 >= m->crashed ? MODEL_ACKED : MODEL_MAYBE;
		if (w->state == MODEL_MAYBE || w->kind == MODEL_DISCARD)
			continue;
		for (k = 0; k < MODEL_ENTRIES; k++) {
			struct model_entry *e = &s->e[k];

			if (e->kind != MODEL_FREE && e->state != MODEL_FLYING && !e->dead && e->t1 < w->t0)
				e->dead = m->clock;
		}
	}
	note(m, op, sector, nr, gen, queue, true, status);
	unlock(m);
}

static bool all_zero(const u64 *w)
{
	unsigned int i;

	for (i = 0; i < 64; i++)
		if (w[i])
			return false;
	return true;
}

/* Made up word by word of contents that were there meanwhile, one of them being written, or two written at the same time? */
static bool mixture(struct model *m, u64 sector, const u64 *w, u64 since)
{
	u64 want[64];
	u64 left = ~0ull;
	bool flying = false;
	unsigned int i, k, acked = 0;

	for (i = 0; i < MODEL_ENTRIES; i++) {
		struct model_entry *e = &m->s[sector].e[i];

		if (e->kind == MODEL_FREE || (e->dead && e->dead < since))
			continue;
		/* two that are the last are two that overlapped */
		if (e->state == MODEL_ACKED && !e->dead && e->kind != MODEL_DISCARD)
			flying = flying || ++acked > 1;
		flying = flying || e->state == MODEL_FLYING || e->t1 > since;
		if (e->kind == MODEL_DATA)
			pat_fill(want, m->seed, sector, e->gen);
		else
			memset(want, 0, sizeof(want));
		for (k = 0; k < 64; k++)
			if (w[k] == want[k])
				left &= ~(1ull << k);
	}
	return flying && !left;
}

/* Under the lock. @since: nothing that was superseded before that tick may be seen. */
static bool content_ok(struct model *m, u64 sector, const u8 *data, u64 since)
{
	bool zero = all_zero((const u64 *)data);
	char text[200];
	unsigned int i;
	u32 gen = pat_gen(data);

	m->sectors_checked++;
	for (i = 0; i < MODEL_ENTRIES; i++) {
		struct model_entry *e = &m->s[sector].e[i];

		if (e->kind == MODEL_FREE || (e->dead && e->dead < since))
			continue;
		if (e->kind == MODEL_DATA ? e->gen == gen && pat_ok(data, m->seed, sector, gen) : zero)
			return true;
	}
	if (mixture(m, sector, (const u64 *)data, since)) {
		m->mixed++;
		return true;
	}
	if (zero)
		snprintf(text, sizeof(text), "holds zeroes, since tick %llu it may not", (unsigned long long)since);
	else if (pat_ok(data, m->seed, sector, gen))
		snprintf(text, sizeof(text), "holds generation %u whole, since tick %llu it may not", gen,
			 (unsigned long long)since);
	else
		snprintf(text, sizeof(text), "torn, misplaced or foreign: words seed %llx sector %llu generation %llu, %016llx",
			 (unsigned long long)((const u64 *)data)[0], (unsigned long long)((const u64 *)data)[1],
			 (unsigned long long)((const u64 *)data)[2], (unsigned long long)((const u64 *)data)[63]);
	breach(m, sector, text);
	return false;
}

void model_read_begin(struct model *m, unsigned int slot, u64 sector, u32 nr, unsigned int queue)
{
	lock(m);
	m->read_t0[slot] = ++m->clock;
	if (slot >= m->nr_reads)
		m->nr_reads = slot + 1;
	note(m, VIRTIO_BLK_T_IN, sector, nr, 0, queue, false, 0);
	unlock(m);
}

void model_read_end(struct model *m, unsigned int slot, u64 sector, u32 nr, const u8 *data, unsigned int queue, u8 status)
{
	u32 i;

	lock(m);
	m->clock++;
	note(m, VIRTIO_BLK_T_IN, sector, nr, 0, queue, true, status);
	for (i = 0; i < nr && status == VIRTIO_BLK_S_OK; i++)
		if (!content_ok(m, sector + i, data + 512 * (u64)i, m->read_t0[slot]))
			break;
	m->read_t0[slot] = 0;
	unlock(m);
}

u64 model_flush_begin(struct model *m, unsigned int queue)
{
	u64 t0;

	lock(m);
	t0 = ++m->clock;
	note(m, VIRTIO_BLK_T_FLUSH, 0, 1, 0, queue, false, 0);
	unlock(m);
	return t0;
}

void model_flush_end(struct model *m, u64 t0, unsigned int queue, u8 status)
{
	lock(m);
	m->clock++;
	if (status == VIRTIO_BLK_S_OK && t0 > m->durable_before && t0 >= m->crashed)
		m->durable_before = t0;
	note(m, VIRTIO_BLK_T_FLUSH, 0, 1, 0, queue, true, status);
	unlock(m);
}

void model_lost(struct model *m)
{
	unsigned int k;
	u64 i;

	lock(m);
	m->clock++;
	memset(m->read_t0, 0, sizeof(m->read_t0));
	for (i = 0; i < m->nsect; i++)
		for (k = 0; k < MODEL_ENTRIES; k++) {
			struct model_entry *e = &m->s[i].e[k];

			if (e->kind != MODEL_FREE && e->state == MODEL_FLYING) {
				e->state = MODEL_MAYBE;
				e->t1 = m->clock;
			}
		}
	unlock(m);
}

void model_crash(struct model *m)
{
	unsigned int k;
	u64 i;

	lock(m);
	m->clock++;
	if (m->volatile_cache)
		m->crashed = m->clock;
	for (i = 0; m->volatile_cache && i < m->nsect; i++) {
		struct model_sector *s = &m->s[i];
		u32 lost = 0;

		/*
		 * What is acknowledged, flushed and not superseded stays what it is; so does what that has superseded, which a
		 * read that is in flight may still bring.
		 */
		for (k = 0; k < MODEL_ENTRIES; k++) {
			if (s->e[k].kind == MODEL_FREE || s->e[k].state == MODEL_FLYING)
				continue;
			if (!buried(m, s, &s->e[k]) && (s->e[k].dead || s->e[k].t1 >= m->durable_before))
				lost |= 1u << k;
		}
		for (k = 0; k < MODEL_ENTRIES; k++) {
			struct model_entry *e = &s->e[k];

			if (!(lost & 1u << k))
				continue;
			e->dead = 0;
			e->state = MODEL_MAYBE;
			e->t1 = m->clock;
		}
	}
	unlock(m);
}

long model_check(struct model *m, int (*rd)(void *ctx, void *buf, size_t len, u64 off), void *ctx)
{
	u64 at, i, before;
	void *buf;
	int r = 0;

	if (posix_memalign(&buf, 4096, CHUNK))
		return -ENOMEM;
	before = m->breaches;
	for (at = 0; at < m->nsect && !r; at += CHUNK / 512) {
		u64 n = m->nsect - at < CHUNK / 512 ? m->nsect - at : CHUNK / 512;

		r = rd(ctx, buf, n * 512, at * 512);
		if (r)
			break;
		lock(m);
		for (i = 0; i < n && m->breaches - before < 20; i++)
			content_ok(m, at + i, (u8 *)buf + 512 * i, m->clock + 1);
		unlock(m);
	}
	free(buf);
	return r ? r : (long)(m->breaches - before);
}
