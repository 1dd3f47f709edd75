// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The dirty log, page by page against what was written: guest memory is compared with a copy from before, and every
 * page that changed, or that a completed request wrote, must be in the log. While it is off, nothing is. Pages that no request may
 * write must never be there.
 */
#include "fix.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MB	16
#define SIZE	(24 * MiB)

static struct vlog lg;
static u8 *snap[4];

static void snapshot(struct gmem *m)
{
	int i;

	for (i = 0; i < m->nr; i++) {
		if (!snap[i])
			snap[i] = malloc(m->r[i].size);
		memcpy(snap[i], m->r[i].hva, m->r[i].size);
	}
}

static void drop(void)
{
	unsigned int i;

	dm_suspend("iovmt-a", false);
	for (i = 0; i < ARRAY_SIZE(snap); i++) {
		free(snap[i]);
		snap[i] = NULL;
	}
	fix_cleanup();
	vlog_free(&lg);
}

/* A page that only the device writes: not the driver's own pages (descriptors, headers, avail ring). */
struct span {
	u64 gpa, len;
	bool must;		/* all its pages must be dirty; else: those that differ */
};

static void compare(struct gmem *m, const struct span *dev, unsigned int n, const char *what)
{
	unsigned int missing = 0, extra = 0, dirty = 0;
	unsigned int k;
	u64 at;
	int i;

	for (i = 0; i < m->nr; i++) {
		for (at = 0; at < m->r[i].size; at += 4096) {
			u64 gpa = m->r[i].gpa + at;
			bool in_log = vlog_test(&lg, gpa), owned = false, must = false;

			dirty += in_log;
			for (k = 0; k < n; k++) {
				if (gpa + 4096 <= dev[k].gpa || gpa >= dev[k].gpa + dev[k].len)
					continue;
				owned = true;
				if (dev[k].must || memcmp(snap[i] + at, m->r[i].hva + at, 4096))
					must = true;
			}
			if (must && !in_log && missing++ < 5)
				ktap_note("%s: page %llx was written and is not in the log", what, (unsigned long long)gpa);
			if (in_log && !owned && extra++ < 5)
				ktap_note("%s: page %llx is in the log, nobody wrote it", what, (unsigned long long)gpa);
		}
	}
	T_CHECK(!missing, "%s: %u pages missing", what, missing);
	T_CHECK(!extra, "%s: %u pages too many", what, extra);
	T_CHECK(dirty > 0 || !n, "%s: log is empty", what);
}

static bool log_empty(void)
{
	u64 i;

	for (i = 0; i < lg.bytes / 8; i++)
		if (lg.bits[i])
			return false;
	return true;
}

static u64 hdr, st, data, stray;

/* Regions: 24 MiB at 0 (memfd), 8 MiB at 4 GiB (anonymous). Each thing on pages of its own. */
static void start_on(const char *store, u32 mb)
{
	int r;

	fix_create(0, store, mb * 2048, 1);
	fix_open_mem(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_FLUSH), 1, 256, SIZE, 8 * MiB);
	hdr = gmem_alloc(&F[0].mem, 0, 4096, 4096);
	st = gmem_alloc(&F[0].mem, 1, 8192, 4096);
	data = gmem_alloc(&F[0].mem, 1, 2 * MiB, 4096);
	stray = gmem_alloc(&F[0].mem, 0, 4096, 4096);
	T_REQUIRE(stray != GMEM_NONE, "no room");
	r = vlog_alloc(&lg, &F[0].mem);
	T_REQUIRE(!r, "log");
}

static void start(void)
{
	fix_store_make(MB, 512);
	start_on(fix_store, MB);
}

static int io(u32 type, u64 sector, u64 gpa, u32 len, u64 status)
{
	struct virtio_blk_outhdr *h = gmem_ptr(&F[0].mem, hdr);
	struct vseg s[3] = { { hdr, 16, false }, { gpa, len, type == VIRTIO_BLK_T_IN }, { status, 1, true } };

	h->type = type;
	h->sector = sector;
	if (!len)
		s[1] = s[2];
	return vblk_do(&F[0].d.vqs[0], s, len ? 3 : 2, 0, gmem_ptr(&F[0].mem, status), NULL);
}

static struct span used_ring(void)
{
	struct vq *q = &F[0].d.vqs[0];

	return (struct span){ q->used_gpa, 6 + 8 * q->num, false };
}

/* One request at a time, each log exact. */
static void exact(void)
{
	struct gmem *m = &F[0].mem;
	struct span sp[4];
	u64 rnd = 7;
	int i, r;

	start();
	T_CHECK(io(VIRTIO_BLK_T_IN, 0, data, 65536, st) == 0 && log_empty(), "logged while off");
	r = vdev_log_on(&F[0].d, &lg);
	T_REQUIRE(!r, "log on: %s", strerror(-r));
	for (i = 0; i < 40; i++) {
		u32 len = 512 * (1 + rnd64(&rnd) % 64);
		u64 off = rnd64(&rnd) % 8192, at = data + off;
		u32 type = i % 4 == 3 ? VIRTIO_BLK_T_OUT : i % 8 == 5 ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_IN;
		u64 status = i % 2 ? st : st + 4095;
		unsigned int n = 0;

		if (type == VIRTIO_BLK_T_FLUSH)
			len = 0;
		vlog_clear(&lg);
		snapshot(m);
		r = io(type, rnd64(&rnd) % 1000, at, len, status);
		T_CHECK(r == 0, "request %d: %d", i, r);
		usleep(2000);
		/*
		 * The worker may write the log out a moment after the completion: GET_VRING_BASE is what makes it
		 * whole. Stop, look, go on.
		 */
		r = vq_stop(&F[0].d.vqs[0]);
		T_REQUIRE(!r, "stop: %s", strerror(-r));
		if (type == VIRTIO_BLK_T_IN)
			sp[n++] = (struct span){ at, len, true };
		sp[n++] = (struct span){ status, 1, true };
		sp[n] = used_ring();
		sp[n].must = false;
		n++;
		compare(m, sp, n, "exact");
		/* the page of used->idx must be there, whatever its content compares to */
		T_CHECK(vlog_test(&lg, F[0].d.vqs[0].used_gpa + 2), "used->idx is not in the log");
		r = vq_start(&F[0].d.vqs[0]);
		T_REQUIRE(!r, "start: %s", strerror(-r));
		r = vq_start_addr(&F[0].d.vqs[0], true);
		T_REQUIRE(!r, "F_LOG: %s", strerror(-r));
		if (ktap_failed())
			break;
	}
	T_CHECK(!vlog_test(&lg, stray), "a page nobody wrote is in the log");
	r = vdev_log_off(&F[0].d);
	T_CHECK(!r, "log off: %s", strerror(-r));
	vlog_clear(&lg);
	r = io(VIRTIO_BLK_T_IN, 0, data, 65536, st);
	T_CHECK(r == 0, "read after log off: %d", r);
	vq_stop(&F[0].d.vqs[0]);
	T_CHECK(log_empty(), "logged after it was switched off");
}

/* A request of @n segments between header and status; exactly what @sp says is in the log, and the used ring. */
static void exact_one(u32 type, u64 sector, struct vseg *s, unsigned int n, int status, const struct span *sp, const char *what)
{
	struct virtio_blk_outhdr *h = gmem_ptr(&F[0].mem, hdr);
	struct vq *q = &F[0].d.vqs[0];
	struct span all[3] = { { st, 1, true }, used_ring() };
	int r;

	if (sp)
		all[2] = *sp;
	s[0] = (struct vseg){ hdr, 16, false };
	s[n + 1] = (struct vseg){ st, 1, true };
	h->type = type;
	h->sector = sector;
	vlog_clear(&lg);
	snapshot(&F[0].mem);
	r = vblk_do(q, s, n + 2, 0, gmem_ptr(&F[0].mem, st), NULL);
	T_CHECK(r == status, "%s: %d", what, r);
	T_REQUIRE(!vq_stop(q), "stop");
	compare(&F[0].mem, all, sp ? 3 : 2, what);
	T_REQUIRE(!vq_start(q) && !vq_start_addr(q, true), "start");
}

/* Many pages at once; and segments that the guest offers although nothing is written there. */
static void large(void)
{
	struct nullb_opts o = { .size_mb = 128, .completion_nsec = 200000 };
	struct vseg s[20];
	struct span sp;
	unsigned int i;
	u64 big, four;
	char node[64];
	int r;

	r = nullb_create("iovmtlarge", &o, node);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	start_on(node, 128);
	/* across a multiple of 16 MiB */
	gmem_alloc(&F[0].mem, 0, 6 * MiB, 4096);
	big = gmem_alloc(&F[0].mem, 0, 14 * MiB + 4096, 4096);
	four = gmem_alloc(&F[0].mem, 1, 4 * MiB, 4096);
	T_REQUIRE(big != GMEM_NONE && big < 16 * MiB && big + 14 * MiB > 16 * MiB && four != GMEM_NONE, "no room");
	T_REQUIRE(!vdev_log_on(&F[0].d, &lg), "log on");

	sp = (struct span){ big + 612, 14 * MiB - 1024, true };
	s[1] = (struct vseg){ sp.gpa, sp.len, true };
	exact_one(VIRTIO_BLK_T_IN, 0, s, 1, VIRTIO_BLK_S_OK, &sp, "14 MiB");
	sp = (struct span){ big + 5 * 4096, 512, true };
	s[1] = (struct vseg){ sp.gpa, sp.len, true };
	exact_one(VIRTIO_BLK_T_IN, 0, s, 1, VIRTIO_BLK_S_OK, &sp, "one page");
	sp = (struct span){ four, 4 * MiB, true };
	for (i = 1; i <= 17; i++)
		s[i] = (struct vseg){ sp.gpa, sp.len, true };
	exact_one(VIRTIO_BLK_T_IN, 0, s, 17, VIRTIO_BLK_S_OK, &sp, "68 MiB");

	exact_one(VIRTIO_BLK_T_FLUSH, 0, s, 17, VIRTIO_BLK_S_OK, NULL, "flush");
	exact_one(0x7777, 0, s, 17, VIRTIO_BLK_S_UNSUPP, NULL, "unknown type");
	exact_one(VIRTIO_BLK_T_IN, 127 * 2048, s, 17, VIRTIO_BLK_S_IOERR, NULL, "beyond the end");
	sp.len = 20;
	exact_one(VIRTIO_BLK_T_GET_ID, 0, s, 17, VIRTIO_BLK_S_OK, &sp, "serial number");
}

/* GET_ID, error statuses: every kind of write. */
static void small_writes(void)
{
	struct span sp[3];
	int r;

	start();
	r = vdev_log_on(&F[0].d, &lg);
	T_REQUIRE(!r, "log on: %s", strerror(-r));
	snapshot(&F[0].mem);
	{
		struct virtio_blk_outhdr *h = gmem_ptr(&F[0].mem, hdr);
		struct vseg s[3] = { { hdr, 16, false }, { data + 4090, 20, true }, { st, 1, true } };

		h->type = VIRTIO_BLK_T_GET_ID;
		r = vblk_do(&F[0].d.vqs[0], s, 3, 0, gmem_ptr(&F[0].mem, st), NULL);
		T_CHECK(r == 0, "GET_ID: %d", r);
	}
	r = io(VIRTIO_BLK_T_OUT, ~0ull >> 10, data, 512, st + 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "write beyond the end: %d", r);
	vq_stop(&F[0].d.vqs[0]);
	sp[0] = (struct span){ data + 4090, 20, true };
	sp[1] = (struct span){ st, 4097, true };
	sp[2] = used_ring();
	compare(&F[0].mem, sp, 3, "small writes");
}

/*
 * Under load, as live migration does it: rounds of "take the log, copy what is dirty" until the queue is stopped; then the
 * copy must equal the memory wherever the device writes.
 */
static void migrate(bool toggle)
{
	struct vload_cfg c = { .depth = 32, .mem_idx = 1, .indirect = true, .write_pct = 20, .max_blocks = 4 };
	struct gmem *m;
	struct vload l;
	u64 at, slot = 4096 + 4 * 4096, i;
	unsigned int wrong = 0, rounds;
	struct vq *q;
	int r;

	start();
	m = &F[0].mem;
	q = &F[0].d.vqs[0];
	r = vload_start(&l, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	T_CHECK(vload_progress(&l, 500, 20000), "no progress");
	if (toggle) {
		for (i = 0; i < 20; i++) {
			r = vdev_log_on(&F[0].d, &lg);
			T_CHECK(!r, "log on: %s", strerror(-r));
			vload_progress(&l, 5, 5000);
			r = vdev_log_off(&F[0].d);
			T_CHECK(!r, "log off: %s", strerror(-r));
			vlog_clear(&lg);
			vload_progress(&l, 20, 5000);
			if (!T_CHECK(log_empty(), "logged while off, round %llu", (unsigned long long)i))
				break;
		}
	}
	r = vdev_log_on(&F[0].d, &lg);
	T_REQUIRE(!r, "log on: %s", strerror(-r));
	snapshot(m);		/* as racy as a first pass over the memory is */
	for (rounds = 0; rounds < 10; rounds++) {
		u64 w;

		vload_progress(&l, 60, 5000);
		for (w = 0; w < lg.bytes / 8; w++) {
			u64 bits = __atomic_exchange_n(&lg.bits[w], 0, __ATOMIC_ACQ_REL);

			for (; bits; bits &= bits - 1) {
				u64 gpa = (w * 64 + __builtin_ctzll(bits)) * 4096;
				int k;

				for (k = 0; k < m->nr; k++)
					if (gpa >= m->r[k].gpa && gpa < m->r[k].gpa + m->r[k].size)
						memcpy(snap[k] + (gpa - m->r[k].gpa), gmem_ptr(m, gpa), 4096);
				if (!gmem_ptr(m, gpa))
					T_CHECK(0, "log has page %llx outside of memory", (unsigned long long)gpa);
			}
		}
	}
	/* the guest is stopped, then the device: what it writes from here on must be in the log */
	vload_stop(&l);
	r = vq_stop(q);
	T_CHECK(!r, "stop: %s", strerror(-r));
	/* the load's slots: data and status of all that were reads, and the used ring */
	for (at = l.t[0].slots_gpa; at < l.t[0].slots_gpa + slot * 32; at += 4096) {
		u8 *now = gmem_ptr(m, at), *old = snap[1] + (at - m->r[1].gpa);
		bool data_page = (at - l.t[0].slots_gpa) % slot != 0;

		/* data pages of writes are the guest's doing: only those that hold a header of a read count */
		if (data_page) {
			u64 s = l.t[0].slots_gpa + (at - l.t[0].slots_gpa) / slot * slot;
			struct virtio_blk_outhdr *h = gmem_ptr(m, s);

			if (h->type != VIRTIO_BLK_T_IN)
				continue;
			if (memcmp(now, old, 4096) && !vlog_test(&lg, at)) {
				/* a write before that read may have left the difference behind what the read filled */
				u32 off = at - s - 4096, spb;
				bool filled = false;

				for (spb = 0; spb < 8; spb++)
					if (memcmp(now + spb * 512, old + spb * 512, 512) &&
					    ((u64 *)(now + spb * 512))[1] == h->sector + off / 512 + spb)
						filled = true;
				if (filled && wrong++ < 5)
					ktap_note("page %llx differs from the copy and is not in the log",
						  (unsigned long long)at);
			}
		} else if (now[16] != old[16] && !vlog_test(&lg, at) && wrong++ < 5) {
			/* 0xaa is the driver's own mark */
			if (now[16] == 0xaa)
				wrong--;
			else
				ktap_note("status page %llx differs and is not in the log", (unsigned long long)at);
		}
	}
	for (at = q->used_gpa & ~4095ull; at < q->used_gpa + 6 + 8 * q->num; at += 4096) {
		u64 from = at < q->used_gpa ? q->used_gpa : at, to = at + 4096;

		if (to > q->used_gpa + 4 + 8 * q->num)
			to = q->used_gpa + 4 + 8 * q->num;
		if (from < to && memcmp(gmem_ptr(m, from), snap[0] + from, to - from) && !vlog_test(&lg, at) && wrong++ < 5)
			ktap_note("used ring page %llx differs and is not in the log", (unsigned long long)at);
	}
	T_CHECK(!wrong, "%u pages lost", wrong);
	vload_finish(&l, "migrate");
}

static void under_load(void)
{
	migrate(false);
}

static void toggled(void)
{
	migrate(true);
}

/* Another log in place of the first while running: from then on only the new one is written. */
static void new_base(void)
{
	struct vlog other = {};
	struct vlog old;
	int r;

	start();
	r = vlog_alloc(&other, &F[0].mem);
	T_REQUIRE(!r, "log");
	r = vdev_log_on(&F[0].d, &lg);
	T_REQUIRE(!r, "log on: %s", strerror(-r));
	T_CHECK(io(VIRTIO_BLK_T_IN, 0, data, 4096, st) == 0, "read");
	r = vdev_log_on(&F[0].d, &other);
	T_CHECK(!r, "second log: %s", strerror(-r));
	T_CHECK(vlog_test(&lg, data), "first log has not what came before the switch");
	vlog_clear(&lg);
	T_CHECK(io(VIRTIO_BLK_T_IN, 0, data + 65536, 4096, st) == 0, "read");
	vq_stop(&F[0].d.vqs[0]);
	T_CHECK(log_empty(), "first log still written");
	old = lg;
	lg = other;
	T_CHECK(vlog_test(&lg, data + 65536) && vlog_test(&lg, st), "second log not written");
	vlog_free(&old);
}

/* What cannot be written to the log for a while is in it when it can. */
static void not_writable(void)
{
	struct span sp[3];
	int i, r;

	start();
	T_REQUIRE(!vdev_log_on(&F[0].d, &lg), "log on");
	snapshot(&F[0].mem);
	T_REQUIRE(!mprotect(lg.bits, lg.bytes, PROT_READ), "mprotect");
	for (i = 0; i < 3; i++) {
		r = io(VIRTIO_BLK_T_IN, 0, data + i * 128 * 1024, 65536, st);
		T_CHECK(r == 0, "read: %d", r);
		sleep_ms(100);	/* until it was tried */
	}
	T_CHECK(log_empty(), "the log was written although it is read-only");
	T_REQUIRE(!mprotect(lg.bits, lg.bytes, PROT_READ | PROT_WRITE), "mprotect");
	T_REQUIRE(!vq_stop(&F[0].d.vqs[0]), "stop");
	sp[0] = (struct span){ data, 2 * 128 * 1024 + 65536, false };
	sp[1] = (struct span){ st, 1, true };
	sp[2] = used_ring();
	compare(&F[0].mem, sp, 3, "not writable");
	for (i = 0; i < 3; i++)
		T_CHECK(vlog_test(&lg, data + i * 128 * 1024 + 65535), "read %d is missing", i);
}

/*
 * A region goes while a read into it is in flight, and the VMM's log shrinks: nothing may be written behind it. The region
 * comes back: what was written there is in the log.
 */
static void shrunk(void)
{
	struct virtio_blk_outhdr *h;
	struct gmem small;
	struct iovm_path_info p;
	struct vseg s[3];
	static char token;
	char node[64];
	struct vq *q;
	u64 base, i, end = now_ns() + 5000000000ull;
	int r;

	fix_store_make(MB, 512);
	T_REQUIRE(!dm_create("iovmt-a", dm_linear(fix_store, MB * 2048), node), "dm");
	start_on(node, MB);
	q = &F[0].d.vqs[0];
	h = gmem_ptr(&F[0].mem, hdr);
	T_REQUIRE(!vdev_log_on(&F[0].d, &lg), "log on");
	T_REQUIRE(!dm_suspend("iovmt-a", true), "suspend");
	*h = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
	s[0] = (struct vseg){ hdr, 16, false };
	s[1] = (struct vseg){ data, 65536, true };
	s[2] = (struct vseg){ st, 1, true };
	T_REQUIRE(vq_add(q, s, 3, &token, 0) >= 0, "ring full");
	vq_submit(q);
	do {
		sleep_ms(5);
		r = ctl_path_get("kt-0", "a", &p);
	} while (!r && p.inflight != 1 && now_ns() < end);
	T_REQUIRE(!r && p.inflight == 1, "the read is not in flight");

	small = F[0].mem;
	small.nr = 1;
	T_REQUIRE(!vdev_set_mem(&F[0].d, &small), "smaller table: %s", strerror(errno));
	vlog_clear(&lg);
	/* the beginning of it is the log now, what follows is not */
	base = (uintptr_t)lg.bits;
	T_REQUIRE(!ioctl(F[0].d.fd, VHOST_SET_LOG_BASE, &base), "log base: %s", strerror(errno));
	T_REQUIRE(!dm_suspend("iovmt-a", false), "resume");
	T_REQUIRE(vq_wait(q, 10000) == 1 && vq_pop(q, NULL) == &token, "the read does not end");
	sleep_ms(200);
	T_REQUIRE(!vq_stop(q), "stop");
	T_CHECK(vlog_test(&lg, q->used_gpa), "the used ring is not in the log");
	for (i = SIZE / 4096 / 64; i < lg.bytes / 8; i++)
		if (!T_CHECK(!lg.bits[i], "written at %llu behind the log's end", (unsigned long long)(i - SIZE / 4096 / 64) * 8))
			break;

	T_REQUIRE(!vdev_set_mem(&F[0].d, &F[0].mem), "larger table: %s", strerror(errno));
	T_REQUIRE(!vq_start(q) && !vq_stop(q), "start and stop");
	for (i = 0; i < 65536; i += 4096)
		T_CHECK(vlog_test(&lg, data + i), "page %llu of the region that came back is missing", (unsigned long long)i / 4096);
	T_CHECK(vlog_test(&lg, st), "its status is missing");
}

/* LOG_FD is signalled when there is something new. */
static void log_fd(void)
{
	int fd, r;
	struct vq *q;
	u64 v;

	start();
	q = &F[0].d.vqs[0];
	fd = dup(q->err);
	r = ioctl(F[0].d.fd, VHOST_SET_LOG_FD, &fd);
	T_CHECK(!r, "SET_LOG_FD: %s", strerror(errno));
	r = vdev_log_on(&F[0].d, &lg);
	T_REQUIRE(!r, "log on: %s", strerror(-r));
	T_CHECK(io(VIRTIO_BLK_T_IN, 0, data, 4096, st) == 0, "read");
	vq_stop(q);
	T_CHECK(read(fd, &v, 8) == 8, "not signalled");
	close(fd);
	fd = -1;
	r = ioctl(F[0].d.fd, VHOST_SET_LOG_FD, &fd);
	T_CHECK(!r, "unbind: %s", strerror(errno));
}

static const struct ktap_case cases[] = {
	{ "exact", exact },
	{ "small_writes", small_writes },
	{ "large", large },
	{ "under_load", under_load },
	{ "toggled", toggled },
	{ "new_base", new_base },
	{ "not_writable", not_writable },
	{ "shrunk", shrunk },
	{ "log_fd", log_fd },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(drop);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
