// SPDX-License-Identifier: GPL-2.0-or-later
/* SET_MEM_TABLE while queues run: memory grows, is used, shrinks; wrong tables are refused and change nothing. */
#include "fix.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define MB 16

static void start(void)
{
	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 2);
	fix_open_mem(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), 2, 128, 32 * MiB, 0);
}

static int io_at(u64 gpa, u32 type)
{
	struct fix *f = &F[0];
	struct virtio_blk_outhdr *h = gmem_ptr(&f->mem, f->s.hdr_gpa);
	struct vseg s[3] = { { f->s.hdr_gpa, 16, false }, { gpa, 4096, type == VIRTIO_BLK_T_IN }, { f->s.status_gpa, 1, true } };

	h->type = type;
	h->sector = MB * 2048 - 8;
	return vblk_do(&f->d.vqs[1], s, 3, 0, gmem_ptr(&f->mem, f->s.status_gpa), NULL);
}

/* DIMMs of 2 MiB come and go while queue 0 is loaded, and queue 1 does I/O to the newest. */
static void grow_shrink(void)
{
	struct vload_cfg c = { .depth = 16, .queues = 1, .mem_idx = 0, .indirect = true, .nr = MB * 1024 };
	struct gmem *m = &F[0].mem;
	struct vload l;
	unsigned int round, i;
	int r;

	start();
	r = vload_start(&l, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	for (round = 0; round < 10 && !ktap_failed(); round++) {
		for (i = 0; i < 8; i++) {
			u64 gpa = 8 * GiB + i * 16 * MiB;

			r = gmem_add(m, gpa, 2 * MiB, i % 2 ? GMEM_ANON : GMEM_MEMFD);
			T_REQUIRE(r >= 0, "memory");
			r = vdev_set_mem(&F[0].d, m);
			T_CHECK(!r, "grow to %d regions: %s", m->nr, strerror(-r));
			pat_fill(gmem_ptr(m, gpa), 1, 2, round * 8 + i);
			r = io_at(gpa, VIRTIO_BLK_T_OUT);
			T_CHECK(r == 0, "write from region %u: %d", i, r);
			r = io_at(gpa + MiB, VIRTIO_BLK_T_IN);
			T_CHECK(r == 0 && pat_ok(gmem_ptr(m, gpa + MiB), 1, 2, round * 8 + i), "read to region %u: %d", i, r);
		}
		while (m->nr > 1) {
			/* the VMM's order: the table first, then the memory itself */
			struct gmem less = *m;

			less.nr--;
			r = vdev_set_mem(&F[0].d, &less);
			T_CHECK(!r, "shrink to %d regions: %s", less.nr, strerror(-r));
			gmem_del(m, m->nr - 1);
		}
	}
	T_CHECK(vload_progress(&l, 50, 10000), "no progress behind the changes");
	vload_stop(&l);
	T_CHECK(vload_check_node(&l, fix_store) == 0, "wrong data at rest");
	vload_finish(&l, "load");
}

/* A request into memory that went away fails; the queue goes on. */
static void gone(void)
{
	struct gmem *m = &F[0].mem, less;
	int r;

	start();
	r = gmem_add(m, 8 * GiB, 2 * MiB, GMEM_MEMFD);
	T_REQUIRE(r >= 0, "memory");
	T_REQUIRE(!vdev_set_mem(&F[0].d, m), "grow");
	T_CHECK(io_at(8 * GiB, VIRTIO_BLK_T_IN) == 0, "read");
	less = *m;
	less.nr--;
	T_REQUIRE(!vdev_set_mem(&F[0].d, &less), "shrink");
	vblk_timeout_ms = 500;
	r = io_at(8 * GiB, VIRTIO_BLK_T_IN);
	vblk_timeout_ms = 10000;
	if (r == -ETIMEDOUT) {
		/* the other right answer: a ring that names no memory is broken */
		T_CHECK(vq_err_signalled(&F[0].d.vqs[1], 1000), "neither failed nor broken");
	} else {
		T_CHECK(r == VIRTIO_BLK_S_IOERR, "read into removed memory: %d", r);
		T_REQUIRE(!vdev_set_mem(&F[0].d, m), "grow again");
		r = io_at(8 * GiB, VIRTIO_BLK_T_IN);
		T_CHECK(r == 0, "read into memory that is back: %d", r);
	}
}

/* Memory that is unmapped behind the table's back: pinning fails, the request fails. */
static void unmapped(void)
{
	struct gmem *m = &F[0].mem;
	int r;

	start();
	r = gmem_add(m, 8 * GiB, 2 * MiB, GMEM_ANON);
	T_REQUIRE(r >= 0, "memory");
	T_REQUIRE(!vdev_set_mem(&F[0].d, m), "grow");
	T_CHECK(io_at(8 * GiB, VIRTIO_BLK_T_IN) == 0, "read");
	munmap(m->r[1].hva, m->r[1].size);
	r = io_at(8 * GiB, VIRTIO_BLK_T_IN);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "read into unmapped memory: %d", r);
	r = io_at(8 * GiB, VIRTIO_BLK_T_OUT);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "write from unmapped memory: %d", r);
	m->nr = 1;
	r = io_at(F[0].s.data_gpa, VIRTIO_BLK_T_IN);
	T_CHECK(r == 0, "read behind it: %d", r);
}

/* Wrong tables while running: refused, and the old one stays. */
static void refused(void)
{
	struct gmem *m = &F[0].mem, bad;
	int r;

	start();
	bad = *m;
	bad.r[1] = bad.r[0];
	bad.r[1].gpa = bad.r[0].gpa + bad.r[0].size - 4096;	/* overlaps */
	bad.nr = 2;
	/* overlapping ones are no danger: taken (as by vhost-net) or refused */
	r = vdev_set_mem(&F[0].d, &bad);
	ktap_note("overlapping regions: %s", r ? strerror(-r) : "taken");
	bad.r[1].gpa = ~0ull - 4095;
	bad.r[1].size = 8192;					/* wraps */
	r = vdev_set_mem(&F[0].d, &bad);
	T_CHECK(r < 0, "wrapping region taken");
	T_CHECK(io_at(F[0].s.data_gpa, VIRTIO_BLK_T_IN) == 0, "the old table is gone");
}

/* The table loses the region that holds the rings, as a VMM may do just before it stops the queue. */
static void ring_region(void)
{
	struct gmem none = {};
	unsigned int i;
	int r;

	start();
	T_CHECK(io_at(F[0].s.data_gpa, VIRTIO_BLK_T_IN) == 0, "read");
	r = vdev_set_mem(&F[0].d, &none);
	T_CHECK(!r || r == -EBUSY || r == -EINVAL || r == -EFAULT, "empty table: %s", strerror(-r));
	for (i = 0; i < 2; i++) {
		r = vq_stop(&F[0].d.vqs[i]);
		T_CHECK(!r, "stop: %s", strerror(-r));
	}
	r = vdev_set_mem(&F[0].d, &F[0].mem);
	T_CHECK(!r, "table: %s", strerror(-r));
	r = vdev_start(&F[0].d);
	T_CHECK(!r, "start: %s", strerror(-r));
	T_CHECK(io_at(F[0].s.data_gpa, VIRTIO_BLK_T_IN) == 0, "read");
}

/* Many regions, as a VM with many DIMMs has. */
static void many_regions(void)
{
	struct gmem *m = &F[0].mem;
	int i, r;

	start();
	for (i = 0; i < GMEM_MAX_REGIONS - 1; i++)
		T_REQUIRE(gmem_add(m, 8 * GiB + i * MiB, 64 * KiB, GMEM_ANON) >= 0, "memory");
	r = vdev_set_mem(&F[0].d, m);
	T_REQUIRE(!r, "%d regions: %s", m->nr, strerror(-r));
	for (i = 0; i < GMEM_MAX_REGIONS - 1; i += 7) {
		r = io_at(8 * GiB + i * MiB, VIRTIO_BLK_T_IN);
		T_CHECK(r == 0, "read to region %d: %d", i, r);
	}
}

static const struct ktap_case cases[] = {
	{ "grow_shrink", grow_shrink },
	{ "gone", gone },
	{ "unmapped", unmapped },
	{ "refused", refused },
	{ "ring_region", ring_region },
	{ "many_regions", many_regions },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
