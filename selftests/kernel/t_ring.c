// SPDX-License-Identifier: GPL-2.0-or-later
/* Split rings: wrap, sizes, indirect, EVENT_IDX and its absence, kick and call suppression, many queues and devices. */
#include "fix.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MB 32

static void run_load(int i, struct vload_cfg c, const char *what)
{
	struct vload l;
	unsigned int k;
	long bad;
	int r;

	r = vload_start(&l, &F[i].d, &c);
	T_REQUIRE(!r, "%s: load: %s", what, strerror(-r));
	vload_wait(&l);
	bad = vload_check_node(&l, fix_store);
	T_CHECK(bad == 0, "%s: %ld blocks wrong at rest", what, bad);
	T_CHECK(l.ios == c.max_ios / l.nt * l.nt, "%s: %llu of %llu", what, (unsigned long long)l.ios,
		(unsigned long long)c.max_ios);
	vload_finish(&l, what);
	for (k = 0; k < F[i].d.nvqs; k++) {
		struct vq *q = &F[i].d.vqs[k];

		r = vq_stop(q);
		T_CHECK(!r, "%s: stop: %s", what, strerror(-r));
		T_CHECK(q->base == q->avail_idx, "%s: queue %u: base %u, avail %u", what, k, q->base, q->avail_idx);
	}
}

static void wrap(u64 features, bool indirect)
{
	struct vload_cfg c = { .max_ios = 3000, .depth = 24, .indirect = indirect, .mem_idx = -1, .flush_pct = 1 };
	u16 from = 65536 - 1000;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	fix_open_stopped(0, features, 1, 128, 48 * MiB, 0);
	vq_rewind(&F[0].d.vqs[0], from);
	T_REQUIRE(!vdev_start(&F[0].d), "start");
	run_load(0, c, "wrap");
	T_CHECK(F[0].d.vqs[0].avail_idx == (u16)(from + 3000), "index %u", F[0].d.vqs[0].avail_idx);
}

static void wrap_event_idx(void)
{
	wrap(RING_FEATURES, true);
}

static void wrap_no_event_idx(void)
{
	wrap(BIT64(VIRTIO_RING_F_INDIRECT_DESC), true);
}

static void wrap_direct(void)
{
	wrap(0, false);
}

/* Once round 16 bits for real. */
static void full_round(void)
{
	struct vload_cfg c = { .max_ios = 66000, .depth = 32, .max_blocks = 1, .block = 512, .mem_idx = -1 };

	fix_all(MB, 1, 64, RING_FEATURES);
	F[0].s.d = NULL;
	c.depth = 20;
	run_load(0, c, "full round");
}

static void sizes(void)
{
	static const unsigned int num[] = { 2, 4, 8, 16, 64, 256, 512, 1024 };
	unsigned int i;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	for (i = 0; i < ARRAY_SIZE(num); i++) {
		struct vload_cfg c = {
			.max_ios = num[i] * 2 + 50, .depth = num[i] < 8 ? 1 : num[i] / 8, .indirect = true, .mem_idx = -1,
			.max_blocks = 2,
		};
		char what[32];

		snprintf(what, sizeof(what), "size %u", num[i]);
		if (num[i] < 8) {
			/* a chain does not fit: indirect ones only */
			struct vblk_sync s;
			unsigned int k;

			fix_open_mem(0, RING_FEATURES, 1, num[i], 32 * MiB, 0);
			s = F[0].s;
			for (k = 0; k < 50; k++) {
				struct virtio_blk_outhdr *h = gmem_ptr(&F[0].mem, s.hdr_gpa);
				struct vseg seg[3] = {
					{ s.hdr_gpa, 16, false }, { s.data_gpa, 4096, k % 2 }, { s.status_gpa, 1, true },
				};
				int r;

				h->type = k % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
				h->sector = 8 * (k / 2);
				r = vblk_do(&F[0].d.vqs[0], seg, 3, VQ_F_INDIRECT, gmem_ptr(&F[0].mem, s.status_gpa), NULL);
				T_CHECK(r == 0, "%s: request %u: %d", what, k, r);
			}
		} else {
			fix_open_mem(0, RING_FEATURES, 1, num[i], 48 * MiB, 0);
			run_load(0, c, what);
		}
		fix_close(0);
	}
}

/* The ring as full as it gets, kicked once. */
static void full_ring(void)
{
	unsigned int num = 1024, n = 0, got = 0;
	struct virtio_blk_outhdr *h;
	struct vq *q;
	u64 hdr, st, data;

	fix_all(MB, 1, num, RING_FEATURES);
	q = &F[0].d.vqs[0];
	hdr = gmem_alloc(&F[0].mem, -1, 16 * num, 16);
	st = gmem_alloc(&F[0].mem, -1, num, 1);
	data = gmem_alloc(&F[0].mem, -1, 4096 * num, 4096);
	for (n = 0; n < num; n++) {
		struct vseg s[3] = { { hdr + 16 * n, 16, false }, { data + 4096 * n, 4096, true }, { st + n, 1, true } };

		h = gmem_ptr(&F[0].mem, hdr + 16 * n);
		h->type = VIRTIO_BLK_T_IN;
		h->sector = 8 * n % (MB * 2048);
		*(u8 *)gmem_ptr(&F[0].mem, st + n) = 0xaa;
		T_REQUIRE(vq_add(q, s, 3, h, VQ_F_INDIRECT) >= 0, "entry %u", n);
	}
	vq_publish(q);
	vq_kick(q);
	while (got < num && vq_wait(q, 10000))
		while (vq_pop(q, NULL))
			got++;
	T_CHECK(got == num, "%u of %u", got, num);
	for (n = 0; n < num; n++)
		if (!T_CHECK(*(u8 *)gmem_ptr(&F[0].mem, st + n) == 0, "status %u", n))
			break;
	T_CHECK(!q->bad_used, "wrong completions");
}

static void one(struct vq *q)
{
	static char token;
	struct fix *f = &F[0];
	struct virtio_blk_outhdr *h = gmem_ptr(&f->mem, f->s.hdr_gpa);
	struct vseg seg[3] = { { f->s.hdr_gpa, 16, false }, { f->s.data_gpa, 512, true }, { f->s.status_gpa, 1, true } };

	h->type = VIRTIO_BLK_T_IN;
	h->sector = 0;
	T_REQUIRE(vq_add(q, seg, 3, &token, 0) >= 0, "ring full");
	vq_publish(q);
}

static bool wait_used(struct vq *q, int ms)
{
	u64 end = now_ns() + ms * 1000000ull;

	while (!vq_has_used(q)) {
		if (now_ns() > end)
			return false;
		sleep_ms(1);
	}
	return true;
}

static bool called(struct vq *q, int ms)
{
	struct pollfd p = { .fd = q->call, .events = POLLIN };
	u64 v;

	return poll(&p, 1, ms) > 0 && read(q->call, &v, 8) == 8;
}

/* A call only when asked for; a kick is asked for once the queue is idle. */
static void suppression(u64 features)
{
	struct vq *q;
	u64 v;
	int i;

	fix_all(MB, 1, 64, features);
	q = &F[0].d.vqs[0];
	/* a queue that has just started may tell of its first completion unasked */
	one(q);
	vq_kick(q);
	T_CHECK(wait_used(q, 5000), "not completed");
	vq_pop(q, NULL);
	sleep_ms(20);
	if (read(q->call, &v, 8) < 0)
		ktap_note("first completion: not called");

	/* calls off: the request is done, nobody is told */
	vq_calls_off(q);
	one(q);
	vq_kick(q);
	T_CHECK(wait_used(q, 5000), "not completed");
	T_CHECK(!called(q, 100), "called although no call was wanted");
	vq_pop(q, NULL);

	/* calls on: told */
	T_CHECK(vq_calls_on(q), "something is there");
	one(q);
	vq_kick(q);
	T_CHECK(called(q, 5000), "not called");
	T_CHECK(wait_used(q, 0), "called, nothing there");
	vq_pop(q, NULL);

	if (q->event_idx) {
		/* only at the third completion */
		vring_used_event(&q->ring) = q->last_used + 2;
		for (i = 0; i < 2; i++) {
			one(q);
			vq_kick(q);
			T_CHECK(wait_used(q, 5000), "not completed");
			vq_pop(q, NULL);
		}
		T_CHECK(!called(q, 100), "called before used_event");
		one(q);
		vq_kick(q);
		T_CHECK(called(q, 5000), "not called at used_event");
		vq_pop(q, NULL);
	}

	/* the idle queue asks for a kick, every time */
	for (i = 0; i < 20; i++) {
		u64 end = now_ns() + 5000000000ull;
		bool wants;

		one(q);
		/* it may still be awake for an instant, and then must look by itself */
		wants = vq_wants_kick(q);
		if (wants)
			vq_kick(q);
		while (!vq_has_used(q) && now_ns() < end)
			sleep_ms(1);
		if (!T_CHECK(vq_has_used(q), "request %d never seen (%s)", i, wants ? "kicked" : "no kick wanted"))
			return;
		vq_pop(q, NULL);
		if (i % 2)
			sleep_ms(20);
	}
	sleep_ms(50);
	one(q);
	T_CHECK(vq_wants_kick(q), "an idle queue wants no kick");
	vq_kick(q);
	T_CHECK(wait_used(q, 5000), "not completed");
	vq_pop(q, NULL);
}

static void suppress_event_idx(void)
{
	suppression(RING_FEATURES);
}

static void suppress_flags(void)
{
	suppression(BIT64(VIRTIO_RING_F_INDIRECT_DESC));
}

/* Without a call fd the guest polls; a later one works at once. */
static void call_fd_changes(void)
{
	struct vq *q;
	int r;

	fix_all(MB, 1, 64, RING_FEATURES);
	q = &F[0].d.vqs[0];
	r = F[0].d.tp->set_fd(&F[0].d, VDEV_CALL, 0, -1);
	T_CHECK(!r, "unbind: %s", strerror(-r));
	vq_calls_on(q);
	one(q);
	vq_kick(q);
	T_CHECK(wait_used(q, 5000), "not completed");
	T_CHECK(!called(q, 50), "called through an unbound fd");
	vq_pop(q, NULL);
	r = F[0].d.tp->set_fd(&F[0].d, VDEV_CALL, 0, q->call);
	T_CHECK(!r, "bind: %s", strerror(-r));
	called(q, 20);		/* binding may signal */
	vq_calls_on(q);
	one(q);
	vq_kick(q);
	T_CHECK(called(q, 5000), "not called after binding");
	vq_pop(q, NULL);
}

static void queues_64(void)
{
	struct vload_cfg c = { .max_ios = 64 * 60, .depth = 8, .indirect = true, .mem_idx = -1, .max_blocks = 2 };

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 64);
	fix_open_mem(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), 64, 128, 96 * MiB, 0);
	run_load(0, c, "64 queues");
}

/* Three queues on one worker, one on another; workers come and go. */
static void shared_worker(void)
{
	struct vload_cfg c = { .max_ios = 2000, .depth = 8, .mem_idx = -1 };
	struct vhost_worker_state w = {};
	unsigned int i;
	int r;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 4);
	fix_open_stopped(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), 4, 128, 48 * MiB, 0);
	r = ioctl(F[0].d.fd, VHOST_NEW_WORKER, &w);
	T_REQUIRE(!r, "NEW_WORKER: %s", strerror(errno));
	for (i = 0; i < 3; i++) {
		struct vhost_vring_worker v = { .index = i, .worker_id = w.worker_id };

		T_CHECK(!ioctl(F[0].d.fd, VHOST_ATTACH_VRING_WORKER, &v), "attach %u: %s", i, strerror(errno));
		v.worker_id = 0xffff;
		T_CHECK(!ioctl(F[0].d.fd, VHOST_GET_VRING_WORKER, &v) && v.worker_id == w.worker_id, "queue %u has worker %u",
			i, v.worker_id);
	}
	T_ERRNO(ioctl(F[0].d.fd, VHOST_FREE_WORKER, &w), EBUSY);
	T_REQUIRE(!vdev_start(&F[0].d), "start");
	run_load(0, c, "shared worker");
}

static void many_devices(void)
{
	struct vload l[8];
	unsigned int i, nr = 8;
	char node[64];
	int r;

	fix_store_make(MB, 512);
	for (i = 0; i < nr; i++) {
		struct vload_cfg c = { .max_ios = 600, .depth = 8, .mem_idx = -1, .seed = 100 + i };
		char name[32], table[128];

		snprintf(name, sizeof(name), "iovmt-d%u", i);
		snprintf(table, sizeof(table), "0 %u linear %s %u", MB * 2048 / nr, fix_store, MB * 2048 / nr * i);
		r = dm_create(name, table, node);
		T_REQUIRE(!r, "dm: %s", strerror(-r));
		fix_create(i, node, MB * 2048 / nr, 2);
		fix_open_mem(i, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), 2, 128, 8 * MiB, 0);
		r = vload_start(&l[i], &F[i].d, &c);
		T_REQUIRE(!r, "load: %s", strerror(-r));
	}
	for (i = 0; i < nr; i++) {
		char what[32];
		long bad;

		vload_wait(&l[i]);
		bad = vload_check_dev(&l[i]);
		T_CHECK(bad == 0, "device %u: %ld blocks wrong", i, bad);
		snprintf(what, sizeof(what), "device %u", i);
		vload_finish(&l[i], what);
	}
}

/* FLUSH is not reordered before a write's completion; here: completions in any order, each once. */
static void deep_mix(void)
{
	struct vload_cfg c = { .max_ios = 4000, .depth = 128, .indirect = true, .mem_idx = -1, .max_blocks = 8, .flush_pct = 5,
			       .zero_pct = 5, .block = 512 };

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 2);
	fix_open_stopped(0, ALL_FEATURES, 2, 1024, 96 * MiB, 0);
	T_REQUIRE(!vdev_start(&F[0].d), "start");
	run_load(0, c, "deep mix");
}

static const struct ktap_case cases[] = {
	{ "wrap_event_idx", wrap_event_idx },
	{ "wrap_no_event_idx", wrap_no_event_idx },
	{ "wrap_direct", wrap_direct },
	{ "full_round", full_round },
	{ "sizes", sizes },
	{ "full_ring", full_ring },
	{ "suppress_event_idx", suppress_event_idx },
	{ "suppress_flags", suppress_flags },
	{ "call_fd_changes", call_fd_changes },
	{ "queues_64", queues_64 },
	{ "shared_worker", shared_worker },
	{ "many_devices", many_devices },
	{ "deep_mix", deep_mix },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
