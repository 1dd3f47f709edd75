// SPDX-License-Identifier: GPL-2.0-or-later
/* Rings of a hostile guest: a request fails or its queue is broken; nothing else suffers. */
#include "fix.h"

#include <string.h>

#define MB 16

static void start(u64 features)
{
	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 2);
	fix_open_mem(0, features | BIT64(VIRTIO_BLK_F_MQ), 2, 64, 32 * MiB, 0);
}

#define BROKEN	1u
#define IOERR	2u
#define OK	4u
#define UNSUPP	8u
#define NOSTATUS 16u		/* completed, but no status could be written */

static u64 h_gpa, d_gpa, s_gpa, i_gpa;
static char tok;

static void desc(struct vq *q, u16 i, u64 addr, u32 len, u16 flags, u16 next)
{
	q->ring.desc[i] = (struct vring_desc){ .addr = addr, .len = len, .flags = flags, .next = next };
}

static struct vring_desc *itab(void)
{
	return gmem_ptr(&F[0].mem, i_gpa);
}

#define NEXT	VRING_DESC_F_NEXT
#define WRITE	VRING_DESC_F_WRITE
#define INDIR	VRING_DESC_F_INDIRECT

static void good_chain(struct vq *q)
{
	desc(q, 0, h_gpa, 16, NEXT, 1);
	desc(q, 1, d_gpa, 512, NEXT | WRITE, 2);
	desc(q, 2, s_gpa, 1, WRITE, 0);
}

static void b_self_loop(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].next = 1;
}

static void b_loop(struct vq *q)
{
	good_chain(q);
	q->ring.desc[2].flags |= NEXT;
	q->ring.desc[2].next = 0;
}

static void b_next_range(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].next = q->num;
}

static void b_next_max(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].next = 0xffff;
}

static void b_data_addr(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].addr = 1ull << 40;
}

static void b_data_wraps(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].addr = ~0ull - 100;
}

static void b_data_end(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].addr = 32 * MiB - 256;
}

static void b_hdr_addr(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].addr = 1ull << 45;
}

static void b_status_addr(struct vq *q)
{
	good_chain(q);
	q->ring.desc[2].addr = 1ull << 45;
}

static void b_zero_len(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].len = 0;
}

static void b_zero_status(struct vq *q)
{
	good_chain(q);
	q->ring.desc[2].len = 0;
}

static void b_huge_len(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].len = 0xfffffe00;
}

static void b_short_header(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].len = 15;
}

static void b_no_header(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].flags |= WRITE;
}

static void b_no_status(struct vq *q)
{
	desc(q, 0, h_gpa, 16, NEXT, 1);
	desc(q, 1, d_gpa, 512, 0, 0);
}

static void b_ro_status(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].flags = NEXT;
	q->ring.desc[2].flags = 0;
}

static void b_header_only(struct vq *q)
{
	desc(q, 0, h_gpa, 16, 0, 0);
}

static void b_status_only(struct vq *q)
{
	desc(q, 0, s_gpa, 1, WRITE, 0);
}

static void b_order(struct vq *q)
{
	/* device-writable before device-readable */
	desc(q, 0, d_gpa, 512, NEXT | WRITE, 1);
	desc(q, 1, h_gpa, 16, NEXT, 2);
	desc(q, 2, s_gpa, 1, WRITE, 0);
}

static void b_ind(struct vq *q, u32 len, u16 flags)
{
	struct vring_desc *t = itab();

	memset(t, 0, 16 * 2048);
	t[0] = (struct vring_desc){ h_gpa, 16, NEXT, 1 };
	t[1] = (struct vring_desc){ d_gpa, 512, NEXT | WRITE, 2 };
	t[2] = (struct vring_desc){ s_gpa, 1, WRITE, 0 };
	desc(q, 0, i_gpa, len, INDIR | flags, 1);
}

static void b_ind_good(struct vq *q)
{
	b_ind(q, 48, 0);
}

static void b_ind_next(struct vq *q)
{
	b_ind(q, 48, NEXT);
}

static void b_ind_nested(struct vq *q)
{
	b_ind(q, 48, 0);
	itab()[0] = (struct vring_desc){ i_gpa, 48, INDIR, 0 };
}

static void b_ind_odd(struct vq *q)
{
	b_ind(q, 40, 0);
}

static void b_ind_empty(struct vq *q)
{
	b_ind(q, 0, 0);
}

static void b_ind_huge(struct vq *q)
{
	b_ind(q, 0xfffffff0, 0);
}

static void b_ind_outside(struct vq *q)
{
	b_ind(q, 48, 0);
	q->ring.desc[0].addr = 1ull << 44;
}

static void b_ind_loop(struct vq *q)
{
	b_ind(q, 48, 0);
	itab()[1].next = 0;
}

static void b_ind_next_range(struct vq *q)
{
	b_ind(q, 48, 0);
	itab()[1].next = 3;
}

/* a table far longer than any queue */
static void b_ind_long(struct vq *q)
{
	struct vring_desc *t;
	unsigned int i;

	b_ind(q, 16 * 2048, 0);
	t = itab();
	for (i = 1; i < 2047; i++)
		t[i] = (struct vring_desc){ d_gpa, 512, NEXT | WRITE, i + 1 };
	t[2047] = (struct vring_desc){ s_gpa, 1, WRITE, 0 };
}

static void b_head_range(struct vq *q)
{
	good_chain(q);
	q->ring.avail->ring[0] = q->num + 5;
}

static void b_avail_jump(struct vq *q)
{
	good_chain(q);
	q->avail_idx = q->num + 7;
}

static void b_avail_back(struct vq *q)
{
	good_chain(q);
	q->avail_idx = 0xfff0;
}

static const struct bad {
	const char *name;
	void (*build)(struct vq *q);
	unsigned int ok;		/* what may come of it */
} bads[] = {
	{ "descriptor points to itself", b_self_loop, BROKEN },
	{ "loop of descriptors", b_loop, BROKEN },
	{ "next out of range", b_next_range, BROKEN },
	{ "next is 0xffff", b_next_max, BROKEN },
	{ "head out of range", b_head_range, BROKEN },
	{ "data outside of memory", b_data_addr, BROKEN | IOERR },
	{ "data at the end of 64 bits", b_data_wraps, BROKEN | IOERR },
	{ "data beyond the end of memory", b_data_end, BROKEN | IOERR },
	{ "header outside of memory", b_hdr_addr, BROKEN | IOERR },
	{ "status outside of memory", b_status_addr, BROKEN | NOSTATUS },
	{ "data of length zero", b_zero_len, BROKEN | IOERR | OK },
	{ "status of length zero", b_zero_status, BROKEN | IOERR | NOSTATUS },
	{ "data of 4 GiB", b_huge_len, BROKEN | IOERR },
	{ "header of 15 bytes", b_short_header, BROKEN | IOERR },
	{ "no readable part", b_no_header, BROKEN | IOERR },
	{ "no writable part", b_no_status, BROKEN | NOSTATUS },
	{ "status that may not be written", b_ro_status, BROKEN | NOSTATUS },
	{ "header alone", b_header_only, BROKEN | NOSTATUS },
	{ "status alone", b_status_only, BROKEN | IOERR },
	{ "writable before readable", b_order, BROKEN | IOERR },
	{ "indirect, a good one", b_ind_good, OK },
	{ "indirect with next", b_ind_next, BROKEN },
	{ "indirect in indirect", b_ind_nested, BROKEN },
	{ "indirect of 40 bytes", b_ind_odd, BROKEN },
	{ "indirect of no bytes", b_ind_empty, BROKEN },
	{ "indirect of 4 GiB", b_ind_huge, BROKEN },
	{ "indirect outside of memory", b_ind_outside, BROKEN },
	{ "loop in indirect", b_ind_loop, BROKEN },
	{ "next out of range in indirect", b_ind_next_range, BROKEN },
	{ "indirect of 2048 entries", b_ind_long, BROKEN | IOERR },
	{ "avail index jumps ahead", b_avail_jump, BROKEN },
	{ "avail index jumps back", b_avail_back, BROKEN },
};

static void bad_rings(void)
{
	struct ctl_events ev;
	struct vq *q;
	unsigned int i, nr_broken = 0;

	start(RING_FEATURES);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	q = &F[0].d.vqs[0];
	h_gpa = gmem_alloc(&F[0].mem, -1, 16, 16);
	d_gpa = gmem_alloc(&F[0].mem, -1, 4096, 4096);
	i_gpa = gmem_alloc(&F[0].mem, -1, 16 * 2048, 4096);
	s_gpa = gmem_alloc(&F[0].mem, -1, 1, 1);
	for (i = 0; i < ARRAY_SIZE(bads) && !ktap_failed(); i++) {
		struct virtio_blk_outhdr *h = gmem_ptr(&F[0].mem, h_gpa);
		volatile u8 *st = gmem_ptr(&F[0].mem, s_gpa);
		u64 end = now_ns() + 3000000000ull;
		unsigned int got = 0;
		u16 base;
		int r;

		*h = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
		*st = 0xaa;
		q->nr_free = 0;
		q->avail_idx = 0;
		vq_add_raw(q, 0, &tok);
		bads[i].build(q);
		vq_publish(q);
		q->published = 1;
		vq_kick(q);
		while (!got && now_ns() < end) {
			if (vq_err_signalled(q, 2))
				got = BROKEN;
			else if (vq_has_used(q))
				got = *st == 0 ? OK : *st == 1 ? IOERR : *st == 2 ? UNSUPP : NOSTATUS;
		}
		T_CHECK(got, "%s: nothing happened", bads[i].name);
		T_CHECK(!got || (got & bads[i].ok), "%s: %s", bads[i].name, got == BROKEN ? "ring is broken" : got == OK ? "OK" :
			got == IOERR ? "IOERR" : got == UNSUPP ? "UNSUPP" : "completed without a status");
		if (got == BROKEN) {
			nr_broken++;
			T_CHECK(ctl_events_wait(&ev, ev.nr_seen, IOVM_EV_QUEUE_BROKEN, "kt-0", NULL, 0) >= 0 ||
				ctl_events_count(&ev, IOVM_EV_QUEUE_BROKEN, "kt-0") == nr_broken,
				"%s: no event", bads[i].name);
			/* it is stopped: a good request is not served */
			T_CHECK(!vq_has_used(q), "%s: broken and completed", bads[i].name);
		}
		/* nothing else is harmed */
		r = vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_IN, 0, 4096);
		T_CHECK(r == 0, "%s: the other queue: %d", bads[i].name, r);
		/* and the queue works again once it was set up anew */
		base = q->base;
		r = vq_stop(q);
		T_CHECK(!r, "%s: stop: %s", bads[i].name, strerror(-r));
		if (got == BROKEN)
			T_CHECK(q->base == base || q->base == (u16)(base + 1), "%s: base %u", bads[i].name, q->base);
		vq_reset(q);
		r = vq_start(q);
		T_CHECK(!r, "%s: start: %s", bads[i].name, strerror(-r));
		r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 4096);
		T_CHECK(r == 0, "%s: the queue afterwards: %d", bads[i].name, r);
		vq_err_signalled(q, 0);
		vq_stop(q);
		vq_reset(q);
		T_CHECK(!vq_start(q), "start");
	}
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 0), "a guest's ring failed the path");
	ctl_events_close(&ev);
}

static void indirect_not_negotiated(void)
{
	struct vq *q;

	start(0);
	q = &F[0].d.vqs[0];
	h_gpa = gmem_alloc(&F[0].mem, -1, 16, 16);
	d_gpa = gmem_alloc(&F[0].mem, -1, 4096, 4096);
	i_gpa = gmem_alloc(&F[0].mem, -1, 16 * 2048, 4096);
	s_gpa = gmem_alloc(&F[0].mem, -1, 1, 1);
	memset(gmem_ptr(&F[0].mem, h_gpa), 0, 16);
	vq_add_raw(q, 0, &tok);
	b_ind(q, 48, 0);
	vq_publish(q);
	vq_kick(q);
	/* a driver that breaks the rules: served all the same, or broken; never ignored */
	T_CHECK(vq_err_signalled(q, 1000) || vq_has_used(q), "an indirect table that was not negotiated: nothing happened");
}

/* Random rings, seeded: nothing may hang or crash; the other queue is served throughout. */
static void fuzz(void)
{
	u64 rnd = 0xfadedull;
	struct vq *q;
	unsigned int n, i;

	start(RING_FEATURES);
	q = &F[0].d.vqs[0];
	i_gpa = gmem_alloc(&F[0].mem, -1, 65536, 4096);
	for (n = 0; n < 150 && !ktap_failed(); n++) {
		static const u32 lens[] = { 0, 1, 15, 16, 17, 512, 4096, 65536, 1 << 20, 0x7fffffff, 0xffffffff };
		struct vring_desc *t = itab();
		int r;

		for (i = 0; i < q->num + 256; i++) {
			struct vring_desc *e = i < q->num ? &q->ring.desc[i] : &t[i - q->num];
			u32 k = rnd64(&rnd) % 8;

			e->addr = k < 5 ? rnd64(&rnd) % (32 * MiB) : k == 5 ? i_gpa : k == 6 ? rnd64(&rnd) : 32 * MiB - 8;
			/* never over the rings: the driver itself needs them */
			if (e->addr < MiB)
				e->addr += 8 * MiB;
			e->len = lens[rnd64(&rnd) % ARRAY_SIZE(lens)];
			e->flags = rnd64(&rnd) % 8;
			if (e->flags & WRITE && e->len > 4096)
				e->len = 512;
			e->next = rnd64(&rnd) % (rnd64(&rnd) % 4 ? 64 : 65536);
		}
		for (i = 0; i < 8; i++)
			q->ring.avail->ring[i] = rnd64(&rnd) % (rnd64(&rnd) % 8 ? 64 : 65536);
		__atomic_store_n(&q->ring.avail->idx, 1 + rnd64(&rnd) % 8, __ATOMIC_RELEASE);
		vq_kick(q);
		sleep_ms(3);
		r = vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_FLUSH, 0, 0);
		T_CHECK(r == 0 || r == VIRTIO_BLK_S_UNSUPP, "round %u: the other queue: %d", n, r);
		r = vq_stop(q);
		T_CHECK(!r, "round %u: stop: %s", n, strerror(-r));
		vq_reset(q);
		vq_err_signalled(q, 0);
		r = vq_start(q);
		T_CHECK(!r, "round %u: start: %s", n, strerror(-r));
	}
	T_CHECK(vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "a good request afterwards");
}

static const struct ktap_case cases[] = {
	{ "bad_rings", bad_rings },
	{ "indirect_not_negotiated", indirect_not_negotiated },
	{ "fuzz", fuzz },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
