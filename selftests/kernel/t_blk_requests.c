// SPDX-License-Identifier: GPL-2.0-or-later
/* Every virtio-blk request and layout, compared with what the block device holds. */
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define DISK_MB	64
#define SEED	0xb10cull

static struct vq *q;
static u64 area;		/* split_io()'s, of the guest that runs */

static void start(u64 features)
{
	area = 0;
	fix_all(DISK_MB, 1, 256, features);
	q = &F[0].d.vqs[0];
}

/* A device "kt-0" that is not the usual one, on fix_store */
static void start_created(struct iovm_dev_create *c)
{
	int r;

	r = ctl_dev_create(c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
	r = ctl_path_add_bdev("kt-0", "a", fix_store, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	area = 0;
	fix_open(0, ALL_FEATURES, 1, 128);
	q = &F[0].d.vqs[0];
}

static u64 galloc(u64 size, u64 align)
{
	u64 a = gmem_alloc(&F[0].mem, -1, size, align);

	T_REQUIRE(a != GMEM_NONE, "guest memory is full");
	return a;
}

static void *gp(u64 gpa)
{
	return gmem_ptr(&F[0].mem, gpa);
}

static void pattern(void *buf, u64 sector, u32 n, u32 gen)
{
	u32 i;

	for (i = 0; i < n; i++)
		pat_fill((u8 *)buf + 512 * i, SEED, sector + i, gen);
}

static bool pattern_ok(const void *buf, u64 sector, u32 n, u32 gen)
{
	u32 i;

	for (i = 0; i < n; i++)
		if (!pat_ok((const u8 *)buf + 512 * i, SEED, sector + i, gen))
			return false;
	return true;
}

/* What the bdev holds in @n sectors from @sector must be generation @gen (0: zeroes). */
static bool on_disk(u64 sector, u32 n, u32 gen)
{
	u8 *buf = malloc(n * 512 + 8192);
	u64 first = sector & ~7ull;
	u32 i, len = ((sector + n + 7) & ~7ull) - first;
	bool ok = true;
	static const u8 zero[512];
	int r;

	r = stor_pread(fix_store, buf, len * 512, first * 512);
	T_CHECK(!r, "pread: %s", strerror(-r));
	for (i = 0; i < n && ok; i++) {
		const u8 *p = buf + (sector - first + i) * 512;

		ok = gen ? pat_ok(p, SEED, sector + i, gen) : !memcmp(p, zero, 512);
	}
	free(buf);
	return ok && !r;
}

/*
 * One request whose header, data and status lie where @cut says: the readable part (header, and data of a write) is cut at
 * the offsets of rcut[], the writable part (data of a read, status) at those of wcut[]. Each piece is put at an address of its own,
 * with a gap to the next.
 */
struct cut {
	const u32 *at;
	unsigned int n;
};

static int split_io(u32 type, u64 sector, u32 len, struct cut rcut, struct cut wcut, u64 off, unsigned int flags, u32 gen,
		    u32 *used, u8 *out)
{
	struct virtio_blk_outhdr h = { .type = type, .sector = sector };
	bool write = type == VIRTIO_BLK_T_OUT;
	u32 rlen = 16 + (write ? len : 0), wlen = (write ? 0 : len) + 1, at, i;
	u8 *rbuf = malloc(rlen), *wbuf = malloc(wlen);
	struct vseg seg[600];
	unsigned int n = 0;
	u64 gpa;
	int r;
	static u8 token;

	if (!area)
		area = galloc(2 * MiB, 4096);
	memcpy(rbuf, &h, 16);
	if (write)
		pattern(rbuf + 16, sector, len / 512, gen);
	gpa = area + off;
	for (at = 0, i = 0; at < rlen; i++) {
		u32 end = i < rcut.n && rcut.at[i] < rlen ? rcut.at[i] : rlen;

		if (end <= at)
			continue;
		memcpy(gp(gpa), rbuf + at, end - at);
		seg[n++] = (struct vseg){ gpa, end - at, false };
		gpa += end - at + 24;
		at = end;
	}
	for (at = 0, i = 0; at < wlen; i++) {
		u32 end = i < wcut.n && wcut.at[i] < wlen ? wcut.at[i] : wlen;

		if (end <= at)
			continue;
		memset(gp(gpa), 0xaa, end - at + 8);
		seg[n++] = (struct vseg){ gpa, end - at, true };
		gpa += end - at + 24;
		at = end;
	}
	T_REQUIRE(gpa < area + 2 * MiB, "test area too small");
	r = vq_add(q, seg, n, &token, flags);
	if (r >= 0) {
		vq_submit(q);
		if (!vq_wait(q, 10000))
			r = -ETIMEDOUT;
		else if (vq_pop(q, used) != &token)
			r = -EPROTO;
	}
	if (r >= 0) {
		for (at = 0, i = 0; i < n; i++) {
			if (!seg[i].in)
				continue;
			memcpy(wbuf + at, gp(seg[i].gpa), seg[i].len);
			/* nothing beyond the piece may have been touched */
			T_CHECK(*(u8 *)gp(seg[i].gpa + seg[i].len) == 0xaa, "written behind segment %u", i);
			at += seg[i].len;
		}
		r = wbuf[wlen - 1];
		if (out)
			memcpy(out, wbuf, wlen - 1);
	}
	free(rbuf);
	free(wbuf);
	return r;
}

static const struct cut none;

/* --- cases --- */

static void config(void)
{
	struct virtio_blk_config *c = &F[0].d.cfg;
	u64 want = BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_BLK_SIZE) |
		BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES) |
		BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VHOST_F_LOG_ALL);
	u32 id = 0, size = 0, vqs = 0;
	u16 num = 0;

	fix_all(DISK_MB, 4, 256, ALL_FEATURES);
	T_CHECK((F[0].d.offered & want) == want, "features %llx lack %llx", (unsigned long long)F[0].d.offered,
		(unsigned long long)(want & ~F[0].d.offered));
	T_CHECK(F[0].d.offered & BIT64(VIRTIO_BLK_F_MQ), "four queues, no MQ");
	T_CHECK(!(F[0].d.offered & BIT64(VIRTIO_BLK_F_RO)), "RO offered");
	T_CHECK(c->capacity == DISK_MB * 2048, "capacity %llu", (unsigned long long)c->capacity);
	T_CHECK(c->blk_size == 512, "blk_size %u", c->blk_size);
	T_CHECK(c->num_queues == 4, "num_queues %u", c->num_queues);
	T_CHECK(c->seg_max == 254, "seg_max %u", c->seg_max);
	T_CHECK(c->max_discard_sectors == 65536, "max_discard_sectors %u", c->max_discard_sectors);
	T_CHECK(c->max_write_zeroes_sectors == 65536, "max_write_zeroes_sectors %u", c->max_write_zeroes_sectors);
	T_CHECK(!ioctl(F[0].d.fd, VHOST_VDPA_GET_DEVICE_ID, &id) && id == 2, "device id %u", id);
	T_CHECK(!ioctl(F[0].d.fd, VHOST_VDPA_GET_CONFIG_SIZE, &size) && size >= 60 && size <= 256, "config size %u", size);
	T_CHECK(!ioctl(F[0].d.fd, VHOST_VDPA_GET_VQS_COUNT, &vqs) && vqs == 4, "vqs %u", vqs);
	T_CHECK(!ioctl(F[0].d.fd, VHOST_VDPA_GET_VRING_NUM, &num) && num == 256,
		"vring num %u", num);
}

static void read_write(void)
{
	static u8 buf[64 * 512];
	static const u32 lens[] = { 1, 2, 7, 8, 9, 64 };
	unsigned int i;
	u64 sector = 1;
	int r;

	start(ALL_FEATURES);
	for (i = 0; i < ARRAY_SIZE(lens); i++, sector += 131) {
		pattern(buf, sector, lens[i], i + 1);
		r = vblk_write(&F[0].s, q, sector, buf, lens[i] * 512);
		T_CHECK(r == 0, "write of %u sectors: %d", lens[i], r);
		T_CHECK(on_disk(sector, lens[i], i + 1), "%u sectors at %llu are not on the disk", lens[i],
			(unsigned long long)sector);
		memset(buf, 0, sizeof(buf));
		r = vblk_read(&F[0].s, q, sector, buf, lens[i] * 512);
		T_CHECK(r == 0, "read of %u sectors: %d", lens[i], r);
		T_CHECK(pattern_ok(buf, sector, lens[i], i + 1), "read of %u sectors differs", lens[i]);
	}
	/* the first and the last sector; what was written by others */
	pattern(buf, 0, 8, 77);
	T_CHECK(!stor_pwrite(fix_store, buf, 4096, 0), "pwrite");
	r = vblk_read(&F[0].s, q, 0, buf, 512);
	T_CHECK(r == 0 && pattern_ok(buf, 0, 1, 77), "sector 0: %d", r);
	sector = DISK_MB * 2048 - 1;
	pattern(buf, sector, 1, 78);
	r = vblk_write(&F[0].s, q, sector, buf, 512);
	T_CHECK(r == 0 && on_disk(sector, 1, 78), "last sector: %d", r);
}

static void beyond_end(void)
{
	u64 end = DISK_MB * 2048;
	static u8 buf[4096];
	static const struct { long off; u32 n; } at[] = {
		{ 0, 1 }, { -1, 2 }, { 1, 1 }, { -7, 8 }, { 1l << 40, 1 },
	};
	unsigned int i;
	int r;

	start(ALL_FEATURES);
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, end + at[i].off, at[i].n * 512);
		T_CHECK(r == VIRTIO_BLK_S_IOERR, "read of %u at end%+ld: %d", at[i].n, at[i].off, r);
		r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, end + at[i].off, at[i].n * 512);
		T_CHECK(r == VIRTIO_BLK_S_IOERR, "write of %u at end%+ld: %d", at[i].n, at[i].off, r);
	}
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, ~0ull, 512);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "read at 2^64 - 1: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, ~0ull / 512 - 1, 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "read where bytes wrap: %d", r);
	/* not whole sectors, and none */
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 511);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "read of 511 bytes: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, 0, 513);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "write of 513 bytes: %d", r);
	/* the queue goes on, and so does the path */
	r = vblk_read(&F[0].s, q, 0, buf, 4096);
	T_CHECK(r == 0, "read after errors: %d", r);
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 0), "a guest's mistake failed the path");
}

static void no_data(void)
{
	int r;

	start(ALL_FEATURES);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 0);
	T_CHECK(r == VIRTIO_BLK_S_OK || r == VIRTIO_BLK_S_IOERR, "read of nothing: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, 0, 0);
	T_CHECK(r == VIRTIO_BLK_S_OK || r == VIRTIO_BLK_S_IOERR, "write of nothing: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 512);
	T_CHECK(r == 0, "read behind it: %d", r);
}

static void used_length(void)
{
	u32 used = 0;
	int r;

	start(ALL_FEATURES);
	r = split_io(VIRTIO_BLK_T_IN, 0, 4096, none, none, 0, 0, 0, &used, NULL);
	T_CHECK(r == 0 && used == 4097, "read: %d, used length %u", r, used);
	r = split_io(VIRTIO_BLK_T_OUT, 0, 4096, none, none, 0, 0, 1, &used, NULL);
	T_CHECK(r == 0 && used == 1, "write: %d, used length %u", r, used);
	r = split_io(VIRTIO_BLK_T_FLUSH, 0, 0, none, none, 0, 0, 0, &used, NULL);
	T_CHECK(r == 0 && used == 1, "flush: %d, used length %u", r, used);
}

/* Header, data and status cut at every interesting point, direct and indirect. */
static void splits(void)
{
	static const u32 points[] = { 1, 4, 8, 15, 16, 17, 24, 16 + 511, 16 + 512, 16 + 513, 16 + 4095, 16 + 4096 };
	static const u32 wpoints[] = { 1, 3, 511, 512, 513, 1024, 4095, 4096 };
	static u8 buf[8192];
	unsigned int i, j, n = 0;
	u32 used;
	int r;

	start(ALL_FEATURES);
	for (i = 0; i < ARRAY_SIZE(points); i++) {
		for (j = i; j < ARRAY_SIZE(points); j++) {
			u32 at[2] = { points[i], points[j] };
			struct cut c = { at, 2 };
			u64 sector = 8 * n;
			u32 fl = n % 2 ? VQ_F_INDIRECT : 0;

			r = split_io(VIRTIO_BLK_T_OUT, sector, 4096, c, none, n % 5, fl, n + 1, &used, NULL);
			T_CHECK(r == 0, "write cut at %u, %u: %d", at[0], at[1], r);
			T_CHECK(on_disk(sector, 8, n + 1), "write cut at %u, %u: not on the disk", at[0], at[1]);
			n++;
		}
	}
	for (i = 0; i < ARRAY_SIZE(wpoints); i++) {
		for (j = i; j < ARRAY_SIZE(wpoints); j++) {
			static const u32 hat[] = { 3, 9 };
			u32 at[2] = { wpoints[i], wpoints[j] };
			struct cut c = { at, 2 }, h = { hat, (i + j) % 3 };
			u64 sector = 8 * (i + j);
			u32 fl = j % 2 ? VQ_F_INDIRECT : 0;

			r = split_io(VIRTIO_BLK_T_IN, sector, 4096, h, c, j, fl, 0, &used, buf);
			T_CHECK(r == 0, "read cut at %u, %u: %d", at[0], at[1], r);
			T_CHECK(r || pattern_ok(buf, sector, 8, i + j + 1), "read cut at %u, %u: differs", at[0], at[1]);
			T_CHECK(r || used == 4097, "read cut at %u, %u: used length %u", at[0], at[1], used);
		}
	}
}

/* Random pieces, byte-sized ones too, at every offset. */
static void random_splits(void)
{
	u64 rnd = 42;
	static u8 buf[65536];
	unsigned int n, i;
	int r;

	start(ALL_FEATURES);
	for (n = 0; n < 150; n++) {
		u32 at[40], k = rnd64(&rnd) % 20, len = 512 * (1 + rnd64(&rnd) % 100), top = len + 16;
		struct cut c = { at, k };
		u64 sector = rnd64(&rnd) % 4000, off = rnd64(&rnd) % 600;
		u32 fl = rnd64(&rnd) % 2 ? VQ_F_INDIRECT : 0;

		for (i = 0; i < k; i++)
			at[i] = 1 + rnd64(&rnd) % top;
		for (i = 0; i + 1 < k; i++) {		/* in order */
			unsigned int j;

			for (j = i + 1; j < k; j++)
				if (at[j] < at[i]) {
					u32 t = at[i];

					at[i] = at[j];
					at[j] = t;
				}
		}
		r = split_io(VIRTIO_BLK_T_OUT, sector, len, c, none, off, fl, n + 1, NULL, NULL);
		T_CHECK(r == 0 && on_disk(sector, len / 512, n + 1), "write %u of %u bytes: %d", n, len, r);
		memset(buf, 0, len);
		r = split_io(VIRTIO_BLK_T_IN, sector, len, none, c, off, fl, 0, NULL, buf);
		T_CHECK(r == 0 && pattern_ok(buf, sector, len / 512, n + 1), "read %u of %u bytes: %d", n, len, r);
	}
}

/* Data at every alignment modulo 16 and around a page's end, one segment. */
static void unaligned(void)
{
	static const u32 offs[] = { 1, 2, 3, 4, 7, 8, 9, 16, 100, 256, 511, 512, 513, 1024, 4000, 4095 };
	u64 area, hdr;
	unsigned int i;
	int r;

	start(ALL_FEATURES);
	area = galloc(64 * KiB, 4096);
	hdr = galloc(64, 16);
	for (i = 0; i < ARRAY_SIZE(offs); i++) {
		struct virtio_blk_outhdr *h = gp(hdr);
		struct vseg s[3] = { { hdr, 16, false }, { area + offs[i], 8192, false }, { hdr + 32, 1, true } };

		h->type = VIRTIO_BLK_T_OUT;
		h->sector = 100 + 16 * i;
		pattern(gp(area + offs[i]), h->sector, 16, i + 1);
		r = vblk_do(q, s, 3, 0, gp(hdr + 32), NULL);
		T_CHECK(r == 0 && on_disk(h->sector, 16, i + 1), "write from offset %u: %d", offs[i], r);
		memset(gp(area), 0x55, 16384);
		h->type = VIRTIO_BLK_T_IN;
		s[1].in = true;
		r = vblk_do(q, s, 3, 0, gp(hdr + 32), NULL);
		T_CHECK(r == 0 && pattern_ok(gp(area + offs[i]), h->sector, 16, i + 1), "read to offset %u: %d", offs[i], r);
		T_CHECK(*(u8 *)gp(area + offs[i] - 1) == 0x55 && *(u8 *)gp(area + offs[i] + 8192) == 0x55,
			"read to offset %u wrote beside it", offs[i]);
	}
}

/* Segments that cross the border of two regions of guest memory. */
static void crosses_regions(void)
{
	struct gmem *m = &F[0].mem;
	struct virtio_blk_outhdr *h;
	u64 hdr, edge;
	int r;

	fix_store_make(DISK_MB, 512);
	fix_create(0, fix_store, DISK_MB * 2048, 1);
	fix_open_stopped(0, ALL_FEATURES, 1, 128, 16 * MiB, 0);
	r = gmem_add(m, 16 * MiB, 4 * MiB, GMEM_ANON);
	T_REQUIRE(r >= 0, "memory");
	r = vdev_set_mem(&F[0].d, m);
	T_REQUIRE(!r, "memory table: %s", strerror(-r));
	r = vdev_start(&F[0].d);
	T_REQUIRE(!r, "start: %s", strerror(-r));
	q = &F[0].d.vqs[0];
	hdr = galloc(64, 16);
	edge = 16 * MiB;
	h = gp(hdr);
	{
		struct vseg s[3] = { { hdr, 16, false }, { edge - 1536, 4096, false }, { hdr + 32, 1, true } };
		u8 buf[4096];

		h->type = VIRTIO_BLK_T_OUT;
		h->sector = 5;
		pattern(buf, 5, 8, 3);
		memcpy(gp(edge - 1536), buf, 1536);
		memcpy(gp(edge), buf + 1536, 4096 - 1536);
		r = vblk_do(q, s, 3, 0, gp(hdr + 32), NULL);
		T_CHECK(r == 0 && on_disk(5, 8, 3), "write across regions: %d", r);
		memset(gp(edge - 1536), 0, 1536);
		memset(gp(edge), 0, 4096 - 1536);
		h->type = VIRTIO_BLK_T_IN;
		s[1].in = true;
		r = vblk_do(q, s, 3, 0, gp(hdr + 32), NULL);
		memcpy(buf, gp(edge - 1536), 1536);
		memcpy(buf + 1536, gp(edge), 4096 - 1536);
		T_CHECK(r == 0 && pattern_ok(buf, 5, 8, 3), "read across regions: %d", r);
		/* a header across the border */
		memcpy(gp(edge - 5), h, 5);
		memcpy(gp(edge), (u8 *)h + 5, 11);
		s[0].gpa = edge - 5;
		s[1].gpa = edge + 8192;
		r = vblk_do(q, s, 3, 0, gp(hdr + 32), NULL);
		T_CHECK(r == 0 && pattern_ok(gp(edge + 8192), 5, 8, 3), "header across regions: %d", r);
	}
}

static void large(void)
{
	u32 len = 8 * MiB, i, n;
	u64 area, hdr;
	struct vseg *s = calloc(300, sizeof(*s));
	int r;

	fix_store_make(DISK_MB, 512);
	fix_create(0, fix_store, DISK_MB * 2048, 1);
	fix_open(0, ALL_FEATURES, 1, 256);
	q = &F[0].d.vqs[0];
	area = galloc(len + 64 * KiB, 4096);
	hdr = galloc(64, 16);
	for (n = 1; n <= 254; n = n == 1 ? 3 : n == 3 ? 100 : n == 100 ? 254 : 255) {
		struct virtio_blk_outhdr *h = gp(hdr);
		u32 each = len / n / 512 * 512;
		unsigned int k, fl = n > 3 ? VQ_F_INDIRECT : 0;

		for (k = 0; k < 2; k++) {
			u32 at = 0;

			s[0] = (struct vseg){ hdr, 16, false };
			for (i = 0; i < n; i++) {
				u32 l = i + 1 < n ? each : len - at;

				s[1 + i] = (struct vseg){ area + at, l, k };
				at += l;
			}
			s[1 + n] = (struct vseg){ hdr + 32, 1, true };
			h->type = k ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT;
			h->sector = 8 * n;
			if (!k)
				pattern(gp(area), h->sector, len / 512, n);
			else
				memset(gp(area), 0, len);
			r = vblk_do(q, s, n + 2, fl, gp(hdr + 32), NULL);
			T_CHECK(r == 0, "%s of 8 MiB in %u segments: %d", k ? "read" : "write", n, r);
			if (!k)
				T_CHECK(on_disk(h->sector, len / 512, n), "8 MiB in %u segments: not on the disk", n);
			else
				T_CHECK(pattern_ok(gp(area), h->sector, len / 512, n), "8 MiB in %u: differs", n);
		}
	}
	/* one page twice and in odd order: a scatter list may name memory more than once */
	{
		struct virtio_blk_outhdr *h = gp(hdr);

		pattern(gp(area), 0, 8, 9);
		s[0] = (struct vseg){ hdr, 16, false };
		for (i = 0; i < 8; i++)
			s[1 + i] = (struct vseg){ area + 512 * (7 - i), 512, false };
		s[9] = (struct vseg){ area, 4096, false };
		s[10] = (struct vseg){ hdr + 32, 1, true };
		h->type = VIRTIO_BLK_T_OUT;
		h->sector = 1000;
		r = vblk_do(q, s, 11, 0, gp(hdr + 32), NULL);
		T_CHECK(r == 0, "memory named twice: %d", r);
		{
			u8 buf[8192];

			T_CHECK(!stor_pread(fix_store, buf, 8192, 512000), "pread");
			for (i = 0; i < 8; i++)
				T_CHECK(pat_ok(buf + 512 * i, SEED, 7 - i, 9), "segment %u", i);
			T_CHECK(pattern_ok(buf + 4096, 0, 8, 9), "second naming");
		}
	}
	free(s);
}

static void flush(void)
{
	struct iovm_path_stats st;
	int r;

	start(ALL_FEATURES);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, 0, 4096);
	T_CHECK(r == 0, "write: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_FLUSH, 0, 0);
	T_CHECK(r == 0, "flush: %d", r);
	r = ctl_path_stats("kt-0", "a", &st);
	T_CHECK(!r && st.done[IOVM_OP_FLUSH] >= 1, "%d, flushes %llu", r, (unsigned long long)st.done[IOVM_OP_FLUSH]);
	T_CHECK(!r && st.done[IOVM_OP_WRITE] == 1 && st.bytes[IOVM_OP_WRITE] == 4096, "writes %llu, bytes %llu",
		(unsigned long long)st.done[IOVM_OP_WRITE], (unsigned long long)st.bytes[IOVM_OP_WRITE]);
	/* a flush with a sector: ignored */
	((struct virtio_blk_outhdr *)gp(F[0].s.hdr_gpa))->sector = 77;
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_FLUSH, 77, 0);
	T_CHECK(r == 0, "flush with a sector: %d", r);
}

static void get_id(void)
{
	static u8 out[64];
	u32 used = 0, at[] = { 5, 7, 20 };
	struct cut c = { at, 3 };
	int r;

	start(ALL_FEATURES);
	r = split_io(VIRTIO_BLK_T_GET_ID, 0, 20, none, none, 0, 0, 0, &used, out);
	T_CHECK(r == 0 && !memcmp(out, "serial-0123456789abc", 20) && used == 21, "%d, used %u, id %.20s", r, used, out);
	memset(out, 0, sizeof(out));
	r = split_io(VIRTIO_BLK_T_GET_ID, 0, 20, none, c, 3, 0, 0, &used, out);
	T_CHECK(r == 0 && !memcmp(out, "serial-0123456789abc", 20), "in pieces: %d, id %.20s", r, out);
	r = split_io(VIRTIO_BLK_T_GET_ID, 0, 10, none, none, 0, 0, 0, &used, out);
	T_CHECK(r == VIRTIO_BLK_S_IOERR || r == VIRTIO_BLK_S_UNSUPP || r == 0, "10 bytes: %d", r);
	r = split_io(VIRTIO_BLK_T_GET_ID, 0, 64, none, none, 0, 0, 0, &used, NULL);
	T_CHECK(r >= 0 && r <= 2, "64 bytes: %d", r);
}

struct range {
	u64 sector;
	u32 n;
	u32 flags;
};

static int ranges(u32 type, const struct range *rg, unsigned int n, u32 len)
{
	struct virtio_blk_discard_write_zeroes *z = gp(F[0].s.data_gpa);
	unsigned int i;

	for (i = 0; i < n; i++)
		z[i] = (struct virtio_blk_discard_write_zeroes){ .sector = rg[i].sector, .num_sectors = rg[i].n,
								 .flags = rg[i].flags };
	return vblk_io(&F[0].s, q, type, 0, len ? len : n * 16);
}

static void fill_disk(u64 sector, u32 n, u32 gen)
{
	u8 *buf = malloc(n * 512);

	pattern(buf, sector, n, gen);
	T_REQUIRE(!stor_pwrite(fix_store, buf, n * 512, sector * 512), "pwrite");
	free(buf);
}

static void write_zeroes(void)
{
	struct range r1 = { 64, 200, 0 }, r2 = { 1003, 5, 0 }, r3 = { 2000, 64, 1 }, bad = { 0, 8, 2 };
	struct range end = { DISK_MB * 2048 - 1, 2, 0 }, wrap = { ~0ull, 8, 0 }, huge = { 0, 65537, 0 }, two[2] = { r1, r2 };
	struct range big = { 4096, 65536, 0 };
	int r;

	start(ALL_FEATURES);
	fill_disk(0, 4096, 5);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r1, 1, 0);
	T_CHECK(r == 0, "aligned: %d", r);
	T_CHECK(on_disk(64, 200, 0), "not zero");
	T_CHECK(on_disk(0, 64, 5) && on_disk(264, 100, 5), "zeroed beside it");
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r2, 1, 0);
	T_CHECK(r == 0 && on_disk(1003, 5, 0) && on_disk(1000, 3, 5) && on_disk(1008, 8, 5), "odd sectors: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r3, 1, 0);
	T_CHECK(r == 0 && on_disk(2000, 64, 0), "with unmap: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &bad, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_UNSUPP && on_disk(0, 8, 5), "unknown flag: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &end, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "beyond the end: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &wrap, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "wraps: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &huge, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR && on_disk(0, 8, 5), "more than max_write_zeroes_sectors: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, two, 2, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR || r == VIRTIO_BLK_S_UNSUPP, "two segments where one is allowed: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r1, 1, 12);
	T_CHECK(r == VIRTIO_BLK_S_IOERR || r == VIRTIO_BLK_S_UNSUPP, "12 bytes of segment: %d", r);
	fill_disk(4096, 65536, 6);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &big, 1, 0);
	T_CHECK(r == 0, "32 MiB: %d", r);
	T_CHECK(on_disk(4096, 65536, 0), "32 MiB: not zero");
	r = ranges(VIRTIO_BLK_T_IN, &r1, 0, 512);
	T_CHECK(r == 0, "a read behind it all: %d", r);
}

static void discard(void)
{
	struct range r1 = { 64, 200, 0 }, unmap = { 0, 8, 1 }, bad = { 0, 8, 4 }, end = { DISK_MB * 2048, 8, 0 };
	struct range odd = { 301, 3, 0 }, huge = { 0, 65537, 0 };
	int r;

	start(ALL_FEATURES);
	fill_disk(0, 4096, 7);
	r = ranges(VIRTIO_BLK_T_DISCARD, &r1, 1, 0);
	T_CHECK(r == 0, "discard: %d", r);
	T_CHECK(on_disk(0, 64, 7) && on_disk(264, 100, 7), "discarded beside it");
	r = ranges(VIRTIO_BLK_T_DISCARD, &odd, 1, 0);
	T_CHECK(r == 0 && on_disk(264, 37, 7) && on_disk(304, 16, 7), "odd sectors: %d", r);
	r = ranges(VIRTIO_BLK_T_DISCARD, &unmap, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_UNSUPP && on_disk(0, 8, 7), "unmap flag: %d", r);
	r = ranges(VIRTIO_BLK_T_DISCARD, &bad, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_UNSUPP && on_disk(0, 8, 7), "unknown flag: %d", r);
	r = ranges(VIRTIO_BLK_T_DISCARD, &end, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "beyond the end: %d", r);
	r = ranges(VIRTIO_BLK_T_DISCARD, &huge, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR && on_disk(0, 8, 7), "more than max_discard_sectors: %d", r);
}

static void unknown_types(void)
{
	static const u32 types[] = { 2, 3, 5, 9, 10, 14, 15, 0x80000001, 0xffffffff };
	unsigned int i;
	int r;

	start(ALL_FEATURES);
	fill_disk(0, 8, 3);
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		r = vblk_io(&F[0].s, q, types[i], 0, 0);
		T_CHECK(r == VIRTIO_BLK_S_UNSUPP, "type %u without data: %d", types[i], r);
		r = vblk_io(&F[0].s, q, types[i], 0, 512);
		T_CHECK(r == VIRTIO_BLK_S_UNSUPP, "type %u with data: %d", types[i], r);
	}
	T_CHECK(on_disk(0, 8, 3), "an unknown request wrote");
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 512);
	T_CHECK(r == 0, "read behind it: %d", r);
}

/* Not negotiated: what the guest may not use. */
static void not_negotiated(void)
{
	struct range r1 = { 64, 8, 0 };
	int r;

	start(0);
	T_CHECK(!(F[0].d.features & BIT64(VIRTIO_BLK_F_FLUSH)), "flush negotiated");
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, 0, 4096);
	T_CHECK(r == 0, "write-through write: %d", r);
	r = ranges(VIRTIO_BLK_T_DISCARD, &r1, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_UNSUPP || r == 0, "discard: %d", r);
}

static void block_4096(void)
{
	static u8 buf[16384];
	struct iovm_dev_create c;
	int r;

	fix_store_make(DISK_MB, 4096);
	ctl_dev_defaults(&c, "kt-0", DISK_MB * 2048, 1);
	c.blk.block_size = 4096;
	start_created(&c);
	T_CHECK(F[0].d.cfg.blk_size == 4096, "blk_size %u", F[0].d.cfg.blk_size);
	pattern(buf, 16, 32, 1);
	r = vblk_write(&F[0].s, q, 16, buf, 16384);
	T_CHECK(r == 0 && on_disk(16, 32, 1), "write: %d", r);
	r = vblk_read(&F[0].s, q, 24, buf, 4096);
	T_CHECK(r == 0 && pattern_ok(buf, 24, 8, 1), "read: %d", r);
	/* less than a block, or not on its border */
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 16, 512);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "512 bytes: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, 17, 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR && on_disk(16, 32, 1), "write at sector 17: %d", r);
	{
		static const u32 at[] = { 16 + 512, 16 + 700, 16 + 4096 + 1 };
		struct cut cut = { at, 3 };

		r = split_io(VIRTIO_BLK_T_OUT, 64, 8192, cut, none, 3, 0, 4, NULL, NULL);
		T_CHECK(r == 0 && on_disk(64, 16, 4), "in odd pieces: %d", r);
	}
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 0), "a guest's mistake failed the path");
}

static void read_only(void)
{
	static u8 buf[4096];
	struct iovm_dev_create c;
	struct range r1 = { 0, 8, 0 };
	int r;

	fix_store_make(DISK_MB, 512);
	fill_disk(0, 64, 9);
	ctl_dev_defaults(&c, "kt-0", DISK_MB * 2048, 1);
	c.flags = IOVM_DEV_F_RDONLY;
	start_created(&c);
	T_CHECK(F[0].d.offered & BIT64(VIRTIO_BLK_F_RO), "RO is not offered");
	r = vblk_read(&F[0].s, q, 0, buf, 4096);
	T_CHECK(r == 0 && pattern_ok(buf, 0, 8, 9), "read: %d", r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_OUT, 0, 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "write: %d", r);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r1, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR || r == VIRTIO_BLK_S_UNSUPP, "write zeroes: %d", r);
	r = ranges(VIRTIO_BLK_T_DISCARD, &r1, 1, 0);
	T_CHECK(r == VIRTIO_BLK_S_IOERR || r == VIRTIO_BLK_S_UNSUPP, "discard: %d", r);
	T_CHECK(on_disk(0, 64, 9), "a read-only disk changed");
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_FLUSH, 0, 0);
	T_CHECK(r == 0, "flush: %d", r);
}

/* A path that has neither discard nor write zeroes, and a logical block of its own queue limits. */
static void poor_path(void)
{
	struct range r1 = { 64, 20000, 0 }, r2 = { 64, 200, 0 };
	struct nullb_opts o = { .size_mb = DISK_MB, .memory_backed = true };
	int r;

	r = nullb_create("iovmtpoor", &o, fix_store);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	fix_create(0, fix_store, DISK_MB * 2048, 1);
	area = 0;
	fix_open(0, ALL_FEATURES, 1, 128);
	q = &F[0].d.vqs[0];
	fill_disk(0, 32768, 2);
	r = ranges(VIRTIO_BLK_T_WRITE_ZEROES, &r1, 1, 0);
	T_CHECK(r == 0 && on_disk(64, 20000, 0), "write zeroes: %d", r);
	T_CHECK(on_disk(20064, 64, 2) && on_disk(0, 64, 2), "zeroed beside it");
	r = ranges(VIRTIO_BLK_T_DISCARD, &r2, 1, 0);
	T_CHECK(r == 0, "discard: %d", r);
}

/* A loop device on a file, through the same mill. */
static void loop_path(void)
{
	static u8 buf[4096];
	char node[64];
	int r;

	r = loop_create(16 * MiB, 512, false, node);
	T_REQUIRE(!r, "loop: %s", strerror(-r));
	strcpy(fix_store, node);
	fix_create(0, node, 16 * 2048, 1);
	area = 0;
	fix_open(0, ALL_FEATURES, 1, 128);
	q = &F[0].d.vqs[0];
	pattern(buf, 9, 8, 1);
	r = vblk_write(&F[0].s, q, 9, buf, 4096);
	T_CHECK(r == 0 && on_disk(9, 8, 1), "write: %d", r);
	r = vblk_read(&F[0].s, q, 9, buf, 4096);
	T_CHECK(r == 0 && pattern_ok(buf, 9, 8, 1), "read: %d", r);
	fix_close(0);
	r = ctl_dev_destroy("kt-0", 0);
	T_CHECK(!r, "destroy: %s: %s", strerror(-r), ctl_msg);
	r = loop_destroy(node);
	T_CHECK(!r, "loop is still held: %s", strerror(-r));
}

static const struct ktap_case cases[] = {
	{ "config", config },
	{ "read_write", read_write },
	{ "beyond_end", beyond_end },
	{ "no_data", no_data },
	{ "used_length", used_length },
	{ "splits", splits },
	{ "random_splits", random_splits },
	{ "unaligned", unaligned },
	{ "crosses_regions", crosses_regions },
	{ "large", large },
	{ "flush", flush },
	{ "get_id", get_id },
	{ "write_zeroes", write_zeroes },
	{ "discard", discard },
	{ "unknown_types", unknown_types },
	{ "not_negotiated", not_negotiated },
	{ "block_4096", block_4096 },
	{ "read_only", read_only },
	{ "poor_path", poor_path },
	{ "loop_path", loop_path },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
