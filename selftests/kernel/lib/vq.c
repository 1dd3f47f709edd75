// SPDX-License-Identifier: GPL-2.0-or-later
/* The driver's side of a split virtqueue: see vdrv.h. */
#include "vdrv.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define LOST_AFTER_MS	300

u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

void sleep_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, (ms % 1000) * 1000000l };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

u64 rnd64(u64 *state)
{
	u64 x = (*state += 0x9e3779b97f4a7c15ull);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

int vq_init(struct vq *q, struct vdev *d, unsigned int idx, unsigned int num, unsigned int ind_max)
{
	struct gmem *g = d->mem;
	unsigned int i;

	memset(q, 0, sizeof(*q));
	q->kick = q->call = q->err = -1;
	q->d = d;
	q->idx = idx;
	q->num = num;
	q->event_idx = d->features & BIT64(VIRTIO_RING_F_EVENT_IDX);
	q->desc_gpa = gmem_alloc(g, -1, 16 * num, 16);
	q->avail_gpa = gmem_alloc(g, -1, 6 + 2 * num, 2);
	q->used_gpa = gmem_alloc(g, -1, 6 + 8 * num, 4);
	q->ind_gpa = ind_max ? gmem_alloc(g, -1, 16ull * ind_max * num, 16) : GMEM_NONE;
	q->ind_max = ind_max;
	if (q->desc_gpa == GMEM_NONE || q->avail_gpa == GMEM_NONE || q->used_gpa == GMEM_NONE ||
	    (ind_max && q->ind_gpa == GMEM_NONE))
		return -ENOMEM;
	q->ring.num = num;
	q->ring.desc = gmem_ptr(g, q->desc_gpa);
	q->ring.avail = gmem_ptr(g, q->avail_gpa);
	q->ring.used = gmem_ptr(g, q->used_gpa);
	memset(q->ring.desc, 0, 16 * num);
	memset(q->ring.avail, 0, 6 + 2 * num);
	memset(q->ring.used, 0, 6 + 8 * num);
	q->chain = calloc(num, sizeof(*q->chain));
	q->token = calloc(num, sizeof(*q->token));
	q->kick = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->call = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->err = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!q->chain || !q->token || q->kick < 0 || q->call < 0 || q->err < 0)
		return -ENOMEM;
	for (i = 0; i < num; i++)
		q->ring.desc[i].next = i + 1;
	q->nr_free = num;
	return 0;
}

void vq_free(struct vq *q)
{
	free(q->chain);
	free(q->token);
	if (q->kick >= 0)
		close(q->kick);
	if (q->call >= 0)
		close(q->call);
	if (q->err >= 0)
		close(q->err);
	memset(q, 0, sizeof(*q));
}

int vq_start_addr(struct vq *q, bool log)
{
	struct vhost_vring_addr a = {
		.index = q->idx,
		.flags = log ? 1u << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = (uintptr_t)q->ring.desc,
		.avail_user_addr = (uintptr_t)q->ring.avail,
		.used_user_addr = (uintptr_t)q->ring.used,
		.log_guest_addr = q->used_gpa,
	};

	q->log = log;
	return q->d->tp->set_addr(q->d, &a);
}

int vq_start(struct vq *q)
{
	const struct vtp_ops *tp = q->d->tp;
	int r;

	r = tp->set_num(q->d, q->idx, q->num);
	if (r >= 0)
		r = tp->set_base(q->d, q->idx, q->base);
	if (r >= 0)
		r = vq_start_addr(q, q->log);
	if (r >= 0)
		r = tp->set_fd(q->d, VDEV_ERR, q->idx, q->err);
	if (r >= 0)
		r = tp->set_fd(q->d, VDEV_CALL, q->idx, q->call);
	if (r >= 0)
		r = tp->set_fd(q->d, VDEV_KICK, q->idx, q->kick);
	if (r >= 0)
		r = tp->enable(q->d, q->idx, true);
	if (r < 0)
		return r;
	q->running = true;
	return 0;
}

int vq_stop(struct vq *q)
{
	unsigned int base;
	int r;

	r = q->d->tp->enable(q->d, q->idx, false);
	if (r >= 0)
		r = q->d->tp->get_base(q->d, q->idx, &base);
	if (r < 0)
		return r;
	q->base = base;
	q->running = false;
	return 0;
}

void vq_rewind(struct vq *q, u16 idx)
{
	q->avail_idx = q->published = q->kick_from = q->last_used = q->base = idx;
	q->ring.avail->idx = q->ring.used->idx = idx;
	if (q->event_idx) {
		vring_used_event(&q->ring) = idx;
		vring_avail_event(&q->ring) = idx;
	}
}

void vq_reset(struct vq *q)
{
	unsigned int i;

	memset(q->ring.desc, 0, 16 * q->num);
	memset(q->ring.avail, 0, 6 + 2 * q->num);
	memset(q->ring.used, 0, 6 + 8 * q->num);
	memset(q->token, 0, q->num * sizeof(*q->token));
	for (i = 0; i < q->num; i++)
		q->ring.desc[i].next = i + 1;
	q->free_head = 0;
	q->nr_free = q->num;
	vq_rewind(q, 0);
}

static void fill(struct vring_desc *t, const struct vseg *s, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		t[i].addr = s[i].gpa;
		t[i].len = s[i].len;
		t[i].flags = (s[i].in ? VRING_DESC_F_WRITE : 0) | (i + 1 < n ? VRING_DESC_F_NEXT : 0);
		t[i].next = i + 1 < n ? i + 1 : 0;
	}
}

int vq_add(struct vq *q, const struct vseg *s, unsigned int n, void *token, unsigned int flags)
{
	struct vring_desc *desc = q->ring.desc;
	u16 head = q->free_head, i = head;
	unsigned int k;

	if (flags & VQ_F_INDIRECT) {
		u64 gpa = q->ind_gpa + 16ull * q->ind_max * head;

		if (!q->nr_free || n > q->ind_max)
			return -ENOSPC;
		fill(gmem_ptr(q->d->mem, gpa), s, n);
		q->free_head = desc[head].next;
		desc[head].addr = gpa;
		desc[head].len = 16 * n;
		desc[head].flags = VRING_DESC_F_INDIRECT;
		q->nr_free--;
		q->chain[head] = 1;
	} else {
		if (n > q->nr_free)
			return -ENOSPC;
		for (k = 0; k < n; k++) {
			desc[i].addr = s[k].gpa;
			desc[i].len = s[k].len;
			desc[i].flags = (s[k].in ? VRING_DESC_F_WRITE : 0) | (k + 1 < n ? VRING_DESC_F_NEXT : 0);
			i = desc[i].next;
		}
		q->free_head = i;
		q->nr_free -= n;
		q->chain[head] = n;
	}
	q->token[head] = token;
	q->ring.avail->ring[q->avail_idx++ & (q->num - 1)] = head;
	return head;
}

void vq_add_raw(struct vq *q, u16 head, void *token)
{
	q->token[head] = token;
	q->chain[head] = 0;
	q->ring.avail->ring[q->avail_idx++ & (q->num - 1)] = head;
}

void vq_publish(struct vq *q)
{
	__atomic_store_n(&q->ring.avail->idx, q->avail_idx, __ATOMIC_RELEASE);
	q->published = q->avail_idx;
}

bool vq_wants_kick(struct vq *q)
{
	u16 old = q->kick_from, new = q->published;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->kick_from = new;
	if (q->event_idx) {
		u16 event = __atomic_load_n(&vring_avail_event(&q->ring), __ATOMIC_RELAXED);

		return vring_need_event(event, new, old);
	}
	return !(__atomic_load_n(&q->ring.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
}

void vq_kick(struct vq *q)
{
	u64 one = 1;

	q->kicks++;
	if (write(q->kick, &one, sizeof(one)) < 0 && errno != EAGAIN)
		perror("kick");
}

void vq_submit(struct vq *q)
{
	vq_publish(q);
	if (vq_wants_kick(q))
		vq_kick(q);
	else
		q->kicks_saved++;
}

bool vq_has_used(struct vq *q)
{
	return __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE) != q->last_used;
}

unsigned int vq_outstanding(const struct vq *q)
{
	return (u16)(q->published - q->last_used);
}

void *vq_pop(struct vq *q, u32 *len)
{
	u16 idx = __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE);
	struct vring_used_elem *e;
	void *token;
	u16 i, last;

	if (idx == q->last_used)
		return NULL;
	if ((u16)(idx - q->last_used) > vq_outstanding(q)) {
		q->bad_used++;
		q->last_used = idx;
		return NULL;
	}
	e = &q->ring.used->ring[q->last_used++ & (q->num - 1)];
	if (e->id >= q->num || !q->token[e->id]) {
		q->bad_used++;
		return NULL;
	}
	token = q->token[e->id];
	q->token[e->id] = NULL;
	if (len)
		*len = e->len;
	if (q->chain[e->id]) {
		last = e->id;
		for (i = 1; i < q->chain[e->id]; i++)
			last = q->ring.desc[last].next;
		q->ring.desc[last].next = q->free_head;
		q->free_head = e->id;
		q->nr_free += q->chain[e->id];
	}
	return token;
}

void vq_calls_off(struct vq *q)
{
	if (q->event_idx)		/* as far away as it gets */
		__atomic_store_n(&vring_used_event(&q->ring), (u16)(q->last_used - 1), __ATOMIC_RELAXED);
	else
		__atomic_store_n(&q->ring.avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

bool vq_calls_on(struct vq *q)
{
	if (q->event_idx)
		__atomic_store_n(&vring_used_event(&q->ring), q->last_used, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&q->ring.avail->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !vq_has_used(q);
}

int vq_wait(struct vq *q, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull, v;

	for (;;) {
		struct pollfd p = { .fd = q->call, .events = POLLIN };
		u64 now = now_ns();
		int left;

		if (!vq_calls_on(q))
			return 1;
		if (now >= end && timeout_ms >= 0)
			return 0;
		left = timeout_ms < 0 ? LOST_AFTER_MS : (int)((end - now + 999999) / 1000000);
		if (left > LOST_AFTER_MS)
			left = LOST_AFTER_MS;
		if (poll(&p, 1, left) > 0) {
			if (read(q->call, &v, sizeof(v)) == sizeof(v))
				q->calls += v;
		} else if (vq_has_used(q)) {
			/* It may just have come: a call that is only late is not lost. */
			if (poll(&p, 1, LOST_AFTER_MS) == 0)
				q->lost_calls++;
			return 1;
		}
	}
}

bool vq_err_signalled(struct vq *q, int timeout_ms)
{
	struct pollfd p = { .fd = q->err, .events = POLLIN };
	u64 v;

	return poll(&p, 1, timeout_ms) > 0 && read(q->err, &v, sizeof(v)) == sizeof(v);
}

/* --- one request at a time --- */

int vblk_timeout_ms = 10000;

int vblk_sync_init(struct vblk_sync *s, struct vdev *d, u32 data_max)
{
	memset(s, 0, sizeof(*s));
	s->d = d;
	s->hdr_gpa = gmem_alloc(d->mem, -1, 16, 16);
	s->status_gpa = gmem_alloc(d->mem, -1, 1, 1);
	s->data_gpa = gmem_alloc(d->mem, -1, data_max, 4096);
	s->data_max = data_max;
	if (s->hdr_gpa == GMEM_NONE || s->status_gpa == GMEM_NONE || s->data_gpa == GMEM_NONE)
		return -ENOMEM;
	return 0;
}

int vblk_do(struct vq *q, const struct vseg *segs, unsigned int n, unsigned int flags, const u8 *status, u32 *used)
{
	static char token;
	int r;

	*(volatile u8 *)status = 0xaa;
	r = vq_add(q, segs, n, &token, flags);
	if (r < 0)
		return r;
	vq_submit(q);
	if (!vq_wait(q, vblk_timeout_ms))
		return -ETIMEDOUT;
	if (vq_pop(q, used) != &token)
		return -EPROTO;
	return *(volatile u8 *)status;
}

int vblk_io(struct vblk_sync *s, struct vq *q, u32 type, u64 sector, u32 len)
{
	struct virtio_blk_outhdr *h = gmem_ptr(s->d->mem, s->hdr_gpa);
	struct vseg segs[3] = {
		{ s->hdr_gpa, 16, false },
		{ s->data_gpa, len, type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID },
		{ s->status_gpa, 1, true },
	};

	h->type = type;
	h->ioprio = 0;
	h->sector = sector;
	if (!len)
		segs[1] = segs[2];
	return vblk_do(q, segs, len ? 3 : 2, 0, gmem_ptr(s->d->mem, s->status_gpa), NULL);
}

int vblk_read(struct vblk_sync *s, struct vq *q, u64 sector, void *buf, u32 len)
{
	int r = len > s->data_max ? -EINVAL : vblk_io(s, q, VIRTIO_BLK_T_IN, sector, len);

	if (!r)
		memcpy(buf, gmem_ptr(s->d->mem, s->data_gpa), len);
	return r;
}

int vblk_write(struct vblk_sync *s, struct vq *q, u64 sector, const void *buf, u32 len)
{
	if (len > s->data_max)
		return -EINVAL;
	memcpy(gmem_ptr(s->d->mem, s->data_gpa), buf, len);
	return vblk_io(s, q, VIRTIO_BLK_T_OUT, sector, len);
}
