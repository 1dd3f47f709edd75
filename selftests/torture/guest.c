// SPDX-License-Identifier: GPL-2.0-or-later
#include "guest.h"
#include "ctl.h"
#include "vload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SMALL		(64 * 1024u)	/* data room of most slots */
#define LARGE		(1280 * 1024u)	/* of one a queue: several parts */
#define SLACK		4096u
#define GUARD		64u		/* bytes of poison before and behind the data */
#define HDR_BYTES	320u		/* header at 0, status at 256 */
#define STATUS_AT	256u
#define DRAIN_S		60
#define SEGS_MAX	16	/* of a request */
#define OPEN_TRIES	6000	/* of a node that is still busy, 10 ms apart */
#define RECORD_BYTES	8192u	/* room for a queue's */
#define FRONT_GRACE_NS	5000000000ull

/* --- the child's side --- */

struct slot {
	struct slot *next;	/* free list, longest free first */
	u64 gpa;		/* a page: header and status; then room + SLACK bytes of data */
	u8 *mem;
	u32 room;
	unsigned int id;	/* of the model's reads */
	u64 poison;
	u32 type;
	u64 sector;
	u32 nr;			/* sectors */
	u32 gen;
	u64 tick;		/* of a flush */
	u64 t0;
	u32 off, len;		/* of the data in it */
	bool logged;		/* made visible after the log was on */
	bool used;
};

struct list {
	struct slot *first, **last;
};

struct worker {
	struct child *c;
	struct vq *q;
	unsigned int idx;
	pthread_t thread;
	u64 rnd;
	struct list small, large;
	struct slot *slots;
	unsigned int nslots, flying;
};

struct child {
	struct guest *g;
	struct gmem mem;
	struct vdev d;
	struct worker w[GUEST_QUEUES];
	volatile bool logging;
	u64 *expect;		/* a bit a page: must be in the log */
	struct vlog log;
	u64 idle;		/* mask of queues that have drained */
	/* with an in-flight record */
	u8 *records;		/* of all queues, shared with the front end */
	pid_t front;
	int front_sock;
	u64 front_ns;		/* when there was none last */
};

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

static void put_poison(struct slot *s)
{
	u32 from, len;

	s->poison = 0xb0150000deadbeefull ^ (u64)s->id << 32;
	extent(s, &from, &len);
	fill(s->mem, HDR_BYTES, s->poison);
	fill(s->mem + 4096 + from, len, s->poison);
}

static void look_at_poison(struct worker *w, struct slot *s, bool all)
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
	u8 *data = s->mem + 4096 + s->off, status = *(volatile u8 *)(s->mem + STATUS_AT);
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
		expect_dirty(c, s->gpa + STATUS_AT, 1);
		expect_dirty(c, w->q->used_gpa + 2, 2);
		expect_dirty(c, w->q->used_gpa + 4 + 8 * ((u16)(w->q->last_used - 1) & (w->q->num - 1)), 8);
	}
	put_poison(s);
	__atomic_add_fetch(&g->s->ops[s->type & 15], 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&g->s->ios, 1, __ATOMIC_RELAXED);
	s->used = false;
	w->flying--;
	push(s->room == SMALL ? &w->small : &w->large, s);
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
	bool odd;

	if (!s)
		return false;
	look_at_poison(w, s, rnd64(&w->rnd) % 64 == 0);
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
	*(volatile u8 *)(s->mem + STATUS_AT) = 0xaa;
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
	seg[n++] = (struct vseg){ s->gpa + STATUS_AT, 1, true };
	flags = w->q->ind_max && rnd64(&w->rnd) % 2 ? VQ_F_INDIRECT : 0;
	s->t0 = now_ns();
	s->logged = c->logging;
	s->used = true;
	if (vq_add(w->q, seg, n, s, flags) < 0) {
		/* no room in the ring: it never was */
		if (s->type == VIRTIO_BLK_T_IN)
			model_read_end(g->m, s->id, s->sector, 0, NULL, w->idx, 255);
		else if (s->gen && s->nr)
			model_write_end(g->m, s->sector, s->nr, s->gen, w->idx, 255);
		s->used = false;
		put_poison(s);
		goto back;
	}
	w->flying++;
	__atomic_add_fetch(&g->s->multi, large, __ATOMIC_RELAXED);
	__atomic_add_fetch(&g->s->indirect, flags == VQ_F_INDIRECT, __ATOMIC_RELAXED);
	__atomic_add_fetch(&g->s->odd, odd, __ATOMIC_RELAXED);
	return true;
back:
	if (!s->used)
		put_poison(s);
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

static void *work(void *arg)
{
	struct worker *w = arg;
	struct child *c = w->c;
	struct guest_shared *sh = c->g->s;

	for (;;) {
		bool drain = __atomic_load_n(&sh->drain, __ATOMIC_ACQUIRE), added = false;
		struct slot *s;
		u32 used;

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
		vq_wait(w->q, 100);
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

static bool drain(struct child *c)
{
	u64 all = (1ull << c->g->c.queues) - 1, end = now_ns() + DRAIN_S * 1000000000ull;

	__atomic_store_n(&c->g->s->drain, true, __ATOMIC_RELEASE);
	while ((__atomic_load_n(&c->idle, __ATOMIC_ACQUIRE) & all) != all) {
		if (now_ns() > end)
			return false;
		sleep_ms(2);
	}
	return true;
}

static void go_on(struct child *c)
{
	__atomic_and_fetch(&c->idle, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&c->g->s->drain, false, __ATOMIC_RELEASE);
}

/* Everything, through the device, with nothing else in flight. */
static int sweep(struct child *c)
{
	struct guest *g = c->g;
	struct vblk_sync s = { .d = &c->d };
	struct slot *big;
	u64 at;
	int r = 0;

	if (!drain(c))
		return -ETIMEDOUT;
	vblk_timeout_ms = DRAIN_S * 1000;
	big = c->w[0].large.first;
	s.hdr_gpa = big->gpa;
	s.status_gpa = big->gpa + STATUS_AT;
	s.data_gpa = big->gpa + 4096;
	for (at = 0; at < g->c.nsect && !r; at += 256) {
		u32 n = g->c.nsect - at < 256 ? g->c.nsect - at : 256;

		model_read_begin(g->m, big->id, at, n, 0);
		r = vblk_io(&s, &c->d.vqs[0], VIRTIO_BLK_T_IN, at, n * 512);
		model_read_end(g->m, big->id, at, n, big->mem + 4096, 0, r);
	}
	big->off = 0;
	big->len = 256 * 512;
	put_poison(big);
	if (r)
		model_breach(g->m, at, "read of the sweep: %d", r);
	go_on(c);
	return 0;
}

static int restart(struct child *c, unsigned int q)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < c->g->c.queues && !r; i++) {
		if (q < c->g->c.queues && i != q)
			continue;
		r = vq_stop(&c->d.vqs[i]);
		if (!r)
			r = vq_start(&c->d.vqs[i]);
	}
	return r;
}

static int hotplug(struct child *c)
{
	int idx, r;

	idx = gmem_add(&c->mem, 64 * GiB, 4 * MiB, GMEM_MEMFD);
	if (idx < 0)
		return idx;
	r = vdev_set_mem(&c->d, &c->mem);
	sleep_ms(10);
	gmem_del(&c->mem, idx);
	return vdev_set_mem(&c->d, &c->mem) ?: r;
}

/* --- the front end as a process of its own: it has the node, not the rings' other side --- */

/* A killed predecessor's last requests may still be on their way. */
static int open_node(struct child *c)
{
	struct guest_cfg *g = &c->g->c;
	int tries, r = -EBUSY;

	for (tries = 0; tries < OPEN_TRIES && r == -EBUSY; tries++) {
		if (tries)
			sleep_ms(10);
		r = g->socket ? vdev_open_user(&c->d, g->socket) : vdev_open_node(&c->d, ctl_node(g->dev));
	}
	return r;
}

static int front_attach(struct child *c)
{
	struct vdev d = c->d;
	unsigned int i;
	int r;

	r = open_node(c);
	if (r)
		return r;
	d.fd = c->d.fd;
	c->d = d;
	r = d.tp->set_features(&c->d, d.features);
	if (!r)
		r = vdev_set_mem(&c->d, &c->mem);
	for (i = 0; i < d.nvqs && !r; i++) {
		struct vhost_iovm_inflight rec = {
			.index = i, .desc_num = c->g->c.ring, .addr = (uintptr_t)c->records + i * RECORD_BYTES,
			.size = RECORD_BYTES,
		};

		if (ioctl(c->d.fd, VHOST_IOVM_SET_INFLIGHT, &rec))
			r = -errno;
		/* counts for a new record only */
		c->d.vqs[i].base = __atomic_load_n(&c->d.vqs[i].ring.used->idx, __ATOMIC_ACQUIRE);
		if (!r)
			r = vq_start(&c->d.vqs[i]);
	}
	return r;
}

static int restart(struct child *c, unsigned int q);
static int hotplug(struct child *c);

struct front_cmd {
	int cmd;
	u64 arg;
};

static void front_main(struct child *c, int sock)
{
	struct front_cmd cmd;
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = front_attach(c);
	while (write(sock, &r, sizeof(r)) == sizeof(r) && read(sock, &cmd, sizeof(cmd)) == sizeof(cmd))
		r = cmd.cmd == GUEST_RESTART ? restart(c, cmd.arg) : hotplug(c);
	_exit(0);
}

static int front_answer(struct child *c)
{
	int r;

	return read(c->front_sock, &r, sizeof(r)) == sizeof(r) ? r : -ESRCH;
}

static int front_start(struct child *c)
{
	int sv[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return -errno;
	c->front = fork();
	if (!c->front)
		front_main(c, sv[1]);
	close(sv[1]);
	c->front_sock = sv[0];
	if (c->front < 0)
		return -errno;
	c->g->s->owner = c->front;
	r = front_answer(c);
	__atomic_store_n(&c->front_ns, now_ns(), __ATOMIC_RELAXED);
	return r;
}

static int front_kill(struct child *c)
{
	/* for ever, until the successor is there */
	__atomic_store_n(&c->front_ns, ~0ull >> 1, __ATOMIC_RELAXED);
	kill(c->front, SIGKILL);
	waitpid(c->front, NULL, 0);
	close(c->front_sock);
	return front_start(c);
}

static int front_command(struct child *c, int cmd, u64 arg)
{
	struct front_cmd f = { cmd, arg };

	return write(c->front_sock, &f, sizeof(f)) == sizeof(f) ? front_answer(c) : -ESRCH;
}

/* As a live migration: what was written while the log was on must be in it once the queues have stopped. */
static int log_check(struct child *c, u64 ms)
{
	struct guest *g = c->g;
	u64 i, missing = 0, words, pages = 0;
	int r;

	r = vlog_alloc(&c->log, &c->mem);
	if (r)
		return r;
	words = c->log.bytes / 8;
	c->expect = calloc(words, 8);
	r = c->expect ? vdev_log_on(&c->d, &c->log) : -ENOMEM;
	if (r)
		goto out;
	c->logging = true;
	sleep_ms(ms);
	for (i = 0; i < g->c.queues && !r; i++)
		r = vq_stop(&c->d.vqs[i]);
	if (r)
		goto out;
	/* what is taken from the rings from here on was written, and logged, before the stop */
	for (i = 0; i < words; i++) {
		u64 want = __atomic_load_n(&c->expect[i], __ATOMIC_RELAXED);
		u64 gone = want & ~__atomic_load_n(&c->log.bits[i], __ATOMIC_ACQUIRE);

		pages += __builtin_popcountll(want);
		if (gone && !missing)
			model_breach(g->m, ~0ull, "page %llx was written and is not in the dirty log",
				     (unsigned long long)(64 * i + __builtin_ctzll(gone)) * 4096);
		missing += __builtin_popcountll(gone);
	}
	__atomic_add_fetch(&g->s->log_pages, pages, __ATOMIC_RELAXED);
	c->logging = false;
	r = c->d.tp->set_features(&c->d, c->d.features);
	for (i = 0; i < g->c.queues && !r; i++)
		r = vq_start(&c->d.vqs[i]);
out:
	if (c->logging) {
		c->logging = false;
		vdev_log_off(&c->d);
	}
	/* requests that were begun with the log on must have ended before the bits go; else these stay */
	if (drain(c))
		free(c->expect);
	c->expect = NULL;
	go_on(c);
	vlog_free(&c->log);
	return r;
}

static int slots(struct child *c, struct worker *w)
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

		s->room = i < small ? SMALL : LARGE;
		s->gpa = gmem_alloc(&c->mem, -1, 4096 + s->room + SLACK, 4096);
		if (s->gpa == GMEM_NONE)
			return -ENOSPC;
		s->mem = gmem_ptr(&c->mem, s->gpa);
		s->id = w->idx * w->nslots + i;
		s->len = s->room + SLACK;
		put_poison(s);
		s->len = 0;
		push(i < small ? &w->small : &w->large, s);
	}
	return 0;
}

static int bring_up(struct child *c)
{
	struct guest_cfg *g = &c->g->c;
	u64 rnd = g->seed * 77 + c->g->started, features = ~BIT64(VHOST_F_LOG_ALL), bytes;
	unsigned int i;
	int r;

	/* either of the rings' features may be missing, as with old drivers */
	if (rnd64(&rnd) % 4 == 0)
		features &= ~BIT64(VIRTIO_RING_F_EVENT_IDX);
	if (rnd64(&rnd) % 4 == 0)
		features &= ~BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	bytes = g->queues * ((2 * g->depth + 4) * (8192ull + SMALL + 4096) + LARGE + 64 * KiB + g->ring * (g->ring + 64) * 16ull);
	r = gmem_add(&c->mem, 0, (bytes / 2 + 4 * MiB) & ~4095ull, GMEM_MEMFD);
	if (r >= 0)
		r = gmem_add(&c->mem, 4 * GiB, (bytes / 2 + 4 * MiB) & ~4095ull, g->socket || g->record ? GMEM_MEMFD : GMEM_ANON);
	if (r < 0)
		return r;
	c->mem.r[0].used = 4096;
	r = open_node(c);
	if (r)
		return r;
	model_lost(c->g->m);
	r = vdev_setup(&c->d, &c->mem, features, g->queues, g->ring);
	for (i = 0; i < g->queues && !r; i++) {
		c->w[i].c = c;
		c->w[i].q = &c->d.vqs[i];
		c->w[i].idx = i;
		c->w[i].rnd = rnd64(&rnd);
		r = slots(c, &c->w[i]);
	}
	if (!r && g->record) {
		close(c->d.fd);
		c->d.fd = -1;
		c->records = mmap(NULL, g->queues * RECORD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		r = c->records == MAP_FAILED ? -ENOMEM : front_start(c);
	} else if (!r) {
		c->g->s->owner = getpid();
		r = vdev_start(&c->d);
	}
	for (i = 0; i < g->queues && !r; i++)
		r = -pthread_create(&c->w[i].thread, NULL, work, &c->w[i]);
	return r;
}

static void child_main(struct guest *g)
{
	static struct child c;
	struct guest_shared *s = g->s;
	unsigned int i, k;
	int r;

	c.g = g;
	r = bring_up(&c);
	s->why = r;
	s->up = !r;
	sem_post(&s->done_sem);
	if (r)
		_exit(1);
	for (;;) {
		int cmd;

		while (sem_wait(&s->cmd_sem) && errno == EINTR)
			;
		cmd = s->cmd;
		switch (cmd) {
		case GUEST_QUIT:
			if (!drain(&c)) {
				r = -ETIMEDOUT;
				break;
			}
			r = 0;
			for (i = 0; i < g->c.queues; i++)
				for (k = 0; k < c.w[i].nslots; k++)
					look_at_poison(&c.w[i], &c.w[i].slots[k], true);
			break;
		case GUEST_DRAIN:
			r = drain(&c) ? 0 : -ETIMEDOUT;
			break;
		case GUEST_GO:
			go_on(&c);
			r = 0;
			break;
		case GUEST_SWEEP:
			r = sweep(&c);
			break;
		case GUEST_RESTART:
			r = g->c.record ? front_command(&c, cmd, s->arg) : restart(&c, s->arg);
			break;
		case GUEST_HOTPLUG:
			r = g->c.record ? front_command(&c, cmd, 0) : hotplug(&c);
			break;
		case GUEST_LOG:
			r = g->c.record ? -EOPNOTSUPP : log_check(&c, s->arg);
			break;
		case GUEST_FRONT_KILL:
			r = front_kill(&c);
			break;
		default:
			r = -EINVAL;
		}
		s->result = r;
		sem_post(&s->done_sem);
		if (cmd == GUEST_QUIT && !r)
			_exit(0);
	}
}

/* --- the parent's side --- */

int guest_init(struct guest *g, struct model *m, const struct guest_cfg *c)
{
	memset(g, 0, sizeof(*g));
	g->c = *c;
	g->m = m;
	g->s = mmap(NULL, sizeof(*g->s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->s == MAP_FAILED)
		return -ENOMEM;
	sem_init(&g->s->cmd_sem, 1, 0);
	sem_init(&g->s->done_sem, 1, 0);
	return 0;
}

static void idle(struct guest *g)
{
	if (g->idle)
		g->idle(g->idle_arg);
}

static int wait_done(struct guest *g, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;

	for (;;) {
		struct timespec ts;

		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 50 * 1000000l;
		if (ts.tv_nsec >= 1000000000l) {
			ts.tv_nsec -= 1000000000l;
			ts.tv_sec++;
		}
		if (!sem_timedwait(&g->s->done_sem, &ts))
			return 0;
		/* it may have ended as it was told to */
		if (!guest_alive(g))
			return sem_trywait(&g->s->done_sem) ? -ESRCH : 0;
		idle(g);
		if (now_ns() > end)
			return -ETIMEDOUT;
	}
}

int guest_start(struct guest *g)
{
	struct guest_shared *s = g->s;
	unsigned int i;
	pid_t pid;
	int r;

	s->up = s->drain = false;
	g->started++;
	for (i = 0; i < GUEST_QUEUES; i++)
		s->oldest[i].t0 = now_ns();
	sem_destroy(&s->cmd_sem);
	sem_destroy(&s->done_sem);
	sem_init(&s->cmd_sem, 1, 0);
	sem_init(&s->done_sem, 1, 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(0);
		/* A socket of a server's that lives on here would keep its connection up. */
		for (i = 3; i < 1024; i++)
			close(i);
		child_main(g);
	}
	if (pid < 0)
		return -errno;
	s->pid = pid;
	r = wait_done(g, 70000);
	return r ? r : s->why;
}

bool guest_alive(struct guest *g)
{
	int status;

	if (g->s->pid <= 0)
		return false;
	if (waitpid(g->s->pid, &status, WNOHANG) != g->s->pid)
		return true;
	model_mark(g->m, "the front end ended by itself: %x", status);
	g->s->pid = 0;
	return false;
}

int guest_post(struct guest *g, enum guest_cmd cmd, u64 arg, int timeout_ms)
{
	int r = guest_wait(g, timeout_ms);

	if (r)
		return r;
	if (!guest_alive(g))
		return -ESRCH;
	g->s->cmd = cmd;
	g->s->arg = arg;
	g->pending = true;
	sem_post(&g->s->cmd_sem);
	return 0;
}

int guest_wait(struct guest *g, int timeout_ms)
{
	int r;

	if (!g->pending)
		return 0;
	r = wait_done(g, timeout_ms);
	if (r == -ETIMEDOUT)
		return r;
	g->pending = false;
	return r ? r : g->s->result;
}

int guest_command(struct guest *g, enum guest_cmd cmd, u64 arg, int timeout_ms)
{
	return guest_post(g, cmd, arg, timeout_ms) ?: guest_wait(g, timeout_ms);
}

void guest_kill(struct guest *g)
{
	if (g->s->pid <= 0)
		return;
	kill(g->s->pid, SIGKILL);
	waitpid(g->s->pid, NULL, 0);
	g->s->pid = 0;
	g->pending = false;
}

int guest_quit(struct guest *g, int timeout_ms)
{
	int r = guest_command(g, GUEST_QUIT, 0, timeout_ms);

	if (!r && g->s->pid > 0) {
		waitpid(g->s->pid, NULL, 0);
		g->s->pid = 0;
	}
	return r;
}

bool guest_progress(struct guest *g, u64 n, int timeout_ms)
{
	u64 want = __atomic_load_n(&g->s->ios, __ATOMIC_RELAXED) + n, end = now_ns() + timeout_ms * 1000000ull;

	while (__atomic_load_n(&g->s->ios, __ATOMIC_RELAXED) < want) {
		if (now_ns() > end || !guest_alive(g))
			return false;
		idle(g);
		sleep_ms(1);
	}
	return true;
}

bool guest_turnover(struct guest *g, int timeout_ms)
{
	u64 from = now_ns();
	unsigned int i;

	for (i = 0; i < g->c.queues; i++)
		while (__atomic_load_n(&g->s->oldest[i].t0, __ATOMIC_RELAXED) <= from) {
			if (now_ns() > from + timeout_ms * 1000000ull || !guest_alive(g))
				return false;
			idle(g);
			sleep_ms(1);
		}
	return true;
}

void guest_free(struct guest *g)
{
	guest_kill(g);
	munmap(g->s, sizeof(*g->s));
	g->s = NULL;
}
