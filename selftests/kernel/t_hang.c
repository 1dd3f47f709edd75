// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Disks that do not answer: suspect, failed, taken back, fenced, released late.
 *
 *	                      ┌─ iovmt-a (suspended) ─ path a ─┐
 *	null_blk (in memory) ─┤                                ├─ kt-0
 *	                      └─ iovmt-b ───────────── path b ─┘
 *
 * A suspended dm device keeps every bio and sends it later, when it is resumed: what no fence stops still lands. A fence is
 * played by an error table that takes the linear one's place before the resume.
 */
#include "fix.h"
#include "one.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MB 32
#define SECTORS (MB * 2048ull)
#define IO_TIMEOUT_MS 800
#define LOADED_TIMEOUT_MS (2000 * ktap_slowness())	/* a busy machine must not be taken for a hung disk */
#define POISON 0xdb

static struct ctl_events ev;
static struct vload L;
static char a_node[64], b_node[64];
static bool loading;

static void cleanup(void)
{
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	dm_suspend("iovmt-a", false);
	dm_suspend("iovmt-b", false);
	if (loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	ctl_events_close(&ev);
	fix_cleanup();
}

static void add(const char *path, const char *node, u32 fence, u32 io_timeout_ms)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .fence = fence, .io_timeout_ms = io_timeout_ms };
	int r = ctl_path_add_arg("kt-0", path, node, &a);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
}

static void create(u32 flags, unsigned int queues)
{
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, "kt-0", SECTORS, queues);
	c.flags = flags;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
}

/* kt-0 with paths a and b on the same store, which is there, open; the time-out is a's. */
static void two_on_store(u32 dev_flags, u32 fence, unsigned int queues, u32 io_timeout_ms)
{
	fix_two_paths(a_node, b_node);
	create(dev_flags, queues);
	add("a", a_node, fence, io_timeout_ms);
	add("b", b_node, 0, IOVM_NO_TIMEOUT);
	fix_open_mem(0, ALL_FEATURES, queues, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
}

static void two(u32 dev_flags, u32 fence, unsigned int queues, u32 io_timeout_ms)
{
	fix_store_make(MB, 512);
	two_on_store(dev_flags, fence, queues, io_timeout_ms);
}

static void load(struct vload_cfg c)
{
	int r;

	c.mem_idx = -1;
	c.indirect = true;
	r = vload_start(&L, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
	T_REQUIRE(vload_progress(&L, 100, 20000), "no progress at the start");
}

static void end_load(void)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!ev.gap, "event sequence has a gap");
	T_CHECK(vload_check_node(&L, fix_store) == 0, "wrong data");
	vload_finish(&L, "load");
}

static void hang(const char *name)
{
	int r = dm_suspend(name, true);

	T_REQUIRE(!r, "suspend %s: %s", name, strerror(-r));
}

static void release(const char *name)
{
	int r = dm_suspend(name, false);

	T_REQUIRE(!r, "resume %s: %s", name, strerror(-r));
}

/* What hangs on a ends with an error when it is released: it will not land. */
static void fence_a(void)
{
	int r = dm_load("iovmt-a", dm_error(SECTORS));

	T_REQUIRE(!r, "error table: %s", strerror(-r));
}

/* Waits until a has ended everything. */
static void all_back(void)
{
	struct iovm_path_info p;
	int r = ctl_wait_path_idle("kt-0", "a", &p, 10000);

	T_REQUIRE(!r && !p.inflight, "%llu still in flight on a", (unsigned long long)p.inflight);
}

/* Suspect, then failed, both for ETIMEDOUT, and rerouted when it was suspect. */
static void expect_hang(int at)
{
	int s, f, r;

	T_CHECK(ctl_events_wait(&ev, at, IOVM_EV_OVERDUE, "kt-0", "a", 5000 * ktap_slowness()) >= 0, "no OVERDUE");
	s = ctl_events_wait_state(&ev, at, "kt-0", "a", IOVM_PATH_SUSPECT, 5000 * ktap_slowness());
	T_REQUIRE(s >= 0, "a is not suspect");
	r = ctl_events_wait(&ev, s, IOVM_EV_REROUTED, "kt-0", "b", 5000);
	T_REQUIRE(r >= 0, "not rerouted");
	f = ctl_events_wait_state(&ev, s, "kt-0", "a", IOVM_PATH_FAILED, 5000 * ktap_slowness());
	T_REQUIRE(f >= 0, "a has not failed");
	T_CHECK(r < f, "rerouted only after a had failed");
	T_CHECK(ev.seen[s].error == -ETIMEDOUT && ev.seen[f].error == -ETIMEDOUT, "errors %d and %d", ev.seen[s].error,
		ev.seen[f].error);
}

static u64 retakes(void)
{
	struct iovm_dev_stats s;

	return ctl_dev_stats("kt-0", &s) ? ~0ull : s.retakes;
}

/* Reads that land in the kernel's pages go on as soon as the path is suspect, and what lands late lands nowhere. */
static void bounced_reads(void)
{
	static struct one o[40];
	unsigned int i;
	u8 buf[4096];

	two(IOVM_DEV_F_BOUNCE_READS, 0, 1, IO_TIMEOUT_MS);
	memset(buf, 0x11, sizeof(buf));
	for (i = 0; i < 40; i++)
		T_REQUIRE(!stor_pwrite(fix_store, buf, sizeof(buf), i * 4096), "fill");
	hang("iovmt-a");
	for (i = 0; i < 40; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_IN, i * 8, 4096, 0);
	for (i = 0; i < 40; i++) {
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "read %u: %s, status %u", i, o[i].done ? "ended" : "hangs",
			one_status(&o[i]));
		T_CHECK(all_bytes(gmem_ptr(&F[0].mem, o[i].data), 4096, 0x11), "read %u: wrong data", i);
		memset(gmem_ptr(&F[0].mem, o[i].data), POISON, 4096);
	}
	expect_hang(0);
	T_CHECK(retakes() == 40, "%llu requests were taken back", (unsigned long long)retakes());
	release("iovmt-a");
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 15000), "a did not come back");
	for (i = 0; i < 40; i++)
		T_CHECK(all_bytes(gmem_ptr(&F[0].mem, o[i].data), 4096, POISON), "the old read %u landed in the guest", i);
	T_CHECK(F[0].d.vqs[0].bad_used == 0, "completed twice");
}

/* The guest's own pages belong to the disk until it gives them back. */
static void plain_reads_wait(void)
{
	struct one o;
	u8 buf[4096];

	two(0, 0, 1, IO_TIMEOUT_MS);
	memset(buf, 0x22, sizeof(buf));
	T_REQUIRE(!stor_pwrite(fix_store, buf, sizeof(buf), 0), "fill");
	hang("iovmt-a");
	one_start(&o, 0, VIRTIO_BLK_T_IN, 0, 4096, 0);
	expect_hang(0);
	T_CHECK(!one_wait(&o, 3 * IO_TIMEOUT_MS), "a read into the guest's pages ended although its bio hangs");
	release("iovmt-a");
	T_CHECK(one_wait(&o, 5000) && one_status(&o) == 0, "the read did not end with its bio");
	T_CHECK(all_bytes(gmem_ptr(&F[0].mem, o.data), 4096, 0x22), "wrong data");
	T_CHECK(retakes() == 0, "%llu requests were taken back", (unsigned long long)retakes());
}

/* Writes wait for the fence, go elsewhere behind it, and the old ones do not count any more. */
static void writes_wait_for_fence(void)
{
	static struct one o[20], w;
	struct iovm_path_info p;
	unsigned int i;
	u8 buf[4096];
	int r;

	two(0, IOVM_FENCE_NONE, 1, IO_TIMEOUT_MS);
	hang("iovmt-a");
	for (i = 0; i < 20; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_OUT, i * 8, i & 1 ? 4096 : 512, 0x30 + i);
	expect_hang(0);
	/* new ones go on */
	one_start(&w, 0, VIRTIO_BLK_T_OUT, 8000, 4096, 0x77);
	T_CHECK(one_wait(&w, 5000) && one_status(&w) == 0, "a new write does not go on");
	for (i = 0; i < 20; i++)
		T_CHECK(!one_wait(&o[i], 5), "write %u was issued elsewhere without a fence", i);
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.inflight >= 20 && p.oldest_ms >= IO_TIMEOUT_MS, "in flight %llu, oldest %llu ms",
		(unsigned long long)p.inflight, (unsigned long long)p.oldest_ms);

	fence_a();
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	for (i = 0; i < 20; i++)
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "write %u does not go on behind the fence", i);
	T_CHECK(retakes() == 20, "%llu requests were taken back", (unsigned long long)retakes());
	/* overwritten by the guest: an old write that landed now would be seen */
	for (i = 0; i < 20; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_OUT, i * 8, 4096, 0x60 + i);
	for (i = 0; i < 20; i++)
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "second write %u", i);
	release("iovmt-a");
	all_back();
	for (i = 0; i < 20; i++) {
		T_REQUIRE(!stor_pread(fix_store, buf, sizeof(buf), i * 4096), "read");
		T_CHECK(all_bytes(buf, 4096, 0x60 + i), "block %u: %02x", i, buf[0]);
	}
	T_CHECK(F[0].d.vqs[0].bad_used == 0, "completed twice");
}

/* Requests of several parts: taken back as a whole. */
static void large_requests(void)
{
	static struct one o[6];
	unsigned int i;
	u8 *buf;
	int r;

	two(IOVM_DEV_F_BOUNCE_READS, IOVM_FENCE_NONE, 1, IO_TIMEOUT_MS);
	buf = aligned_alloc(4096, 4 * MiB);
	memset(buf, 0x41, 4 * MiB);
	T_REQUIRE(!stor_pwrite(fix_store, buf, 4 * MiB, 0), "fill");
	hang("iovmt-a");
	for (i = 0; i < 3; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_IN, i * 8, (1u << 20) * (i + 1) / 2 + 4096, 0);
	for (; i < 6; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_OUT, 16384 + i * 4096, (1u << 20) * (i - 2) / 2 + 4096, 0x50 + i);
	for (i = 0; i < 3; i++) {
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "read %u does not go on", i);
		T_CHECK(all_bytes(gmem_ptr(&F[0].mem, o[i].data), o[i].len, 0x41), "read %u: wrong data", i);
	}
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_FAILED, 5000), "a has not failed");
	fence_a();
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s", strerror(-r));
	for (i = 3; i < 6; i++) {
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "write %u does not go on", i);
		T_REQUIRE(!stor_pread(fix_store, buf, o[i].len, (16384 + i * 4096) * 512ull), "read");
		T_CHECK(all_bytes(buf, o[i].len, 0x50 + i), "write %u: wrong data", i);
	}
	free(buf);
}

/* More large requests than a queue has parts for: all go on, and so does what came behind them. */
static void many_large_requests(void)
{
	static struct one o[80], w;
	struct iovm_path_info p;
	unsigned int i;
	u8 *buf;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	create(IOVM_DEV_F_BOUNCE_READS, 1);
	add("a", a_node, 0, LOADED_TIMEOUT_MS);
	add("b", b_node, 0, IOVM_NO_TIMEOUT);
	fix_open_mem(0, ALL_FEATURES, 1, 512, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	buf = aligned_alloc(4096, 8 * MiB);
	memset(buf, 0x42, 8 * MiB);
	T_REQUIRE(!stor_pwrite(fix_store, buf, 8 * MiB, 0), "fill");
	free(buf);
	hang("iovmt-a");
	for (i = 0; i < 80; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_IN, i * 128, 65536, 0);
	one_start(&w, 0, VIRTIO_BLK_T_OUT, 32768, 4096, 0x43);
	for (i = 0; i < 50 && !ctl_path_get("kt-0", "a", &p) && p.inflight < 64; i++)
		sleep_ms(10);
	T_REQUIRE(p.inflight == 64 && p.state == IOVM_PATH_LIVE, "%llu in flight on a, in state %u",
		  (unsigned long long)p.inflight, p.state);
	expect_hang(0);
	for (i = 0; i < 80; i++) {
		T_CHECK(one_wait(&o[i], 2000) && one_status(&o[i]) == 0, "read %u does not go on", i);
		T_CHECK(all_bytes(gmem_ptr(&F[0].mem, o[i].data), 65536, 0x42), "read %u: wrong data", i);
	}
	T_CHECK(one_wait(&w, 2000) && one_status(&w) == 0, "what came behind them does not go on");
	T_CHECK(F[0].d.vqs[0].bad_used == 0, "completed twice");
	release("iovmt-a");
	all_back();
}

/* A flush goes elsewhere, once, and then waits for the path that holds writes: until that has failed. */
static void flush_waits_for_writes(void)
{
	struct iovm_path_info p;
	struct one w, f;
	int r;

	/* without a cache, the block layer would answer a flush by itself */
	r = nullb_create("iovmtf", &(struct nullb_opts){ .size_mb = MB, .memory_backed = true, .cache_mb = 4 }, fix_store);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	two_on_store(0, 0, 1, LOADED_TIMEOUT_MS);
	one_start(&w, 0, VIRTIO_BLK_T_OUT, 0, 4096, 0x21);
	T_REQUIRE(one_wait(&w, 5000) && one_status(&w) == 0, "write");
	hang("iovmt-a");
	one_start(&f, 0, VIRTIO_BLK_T_FLUSH, 0, 512, 0);
	T_REQUIRE(ctl_wait_path_state("kt-0", "a", IOVM_PATH_SUSPECT, 2 * LOADED_TIMEOUT_MS), "a is not suspect");
	/* a busy machine may have seen the one state when it is the other already */
	T_CHECK(!one_wait(&f, LOADED_TIMEOUT_MS / 4) || (!ctl_path_get("kt-0", "a", &p) && p.state == IOVM_PATH_FAILED),
		"flushed, although a holds a write");
	T_REQUIRE(ctl_wait_path_state("kt-0", "a", IOVM_PATH_FAILED, 2 * LOADED_TIMEOUT_MS), "a has not failed");
	T_CHECK(one_wait(&f, 5000) && one_status(&f) == 0, "the flush does not go on");
	T_CHECK(retakes() == 2, "%llu times taken back", (unsigned long long)retakes());
	release("iovmt-a");
	all_back();
}

/* The same where nothing can be taken back: what came behind goes on, the rest when the path gives it back. */
static void all_parts_stuck(void)
{
	static struct one o[80], w;
	unsigned int i;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	create(0, 1);
	/* all are to be under way before a is suspect */
	add("a", a_node, 0, 2 * LOADED_TIMEOUT_MS);
	add("b", b_node, 0, IOVM_NO_TIMEOUT);
	fix_open_mem(0, ALL_FEATURES, 1, 512, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	hang("iovmt-a");
	for (i = 0; i < 80; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_IN, i * 64, 32768, 0xee);
	one_start(&w, 0, VIRTIO_BLK_T_OUT, 8000, 4096, 0x44);
	T_CHECK(one_wait(&w, 15000 * ktap_slowness()) && one_status(&w) == 0, "a new write waits for what hangs");
	for (i = 64; i < 80; i++)
		T_CHECK(one_wait(&o[i], 5000 * ktap_slowness()) && one_status(&o[i]) == 0, "read %u waits for what hangs", i);
	for (i = 0; i < 64; i++)
		T_CHECK(!o[i].done, "read %u ended, the test proves nothing", i);
	release("iovmt-a");
	for (i = 0; i < 64; i++)
		T_CHECK(one_wait(&o[i], 15000 * ktap_slowness()) && one_status(&o[i]) == 0, "read %u does not end", i);
	T_CHECK(F[0].d.vqs[0].bad_used == 0, "completed twice");
}

/* The only path: the guest waits, and goes on when the disk does. */
static void only_path(void)
{
	int at;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	create(0, 2);
	add("a", a_node, 0, LOADED_TIMEOUT_MS);
	fix_open_mem(0, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	load((struct vload_cfg){ .depth = 16, .flush_pct = 2, .zero_pct = 2 });
	hang("iovmt-a");
	at = ctl_events_wait_state(&ev, 0, "kt-0", "a", IOVM_PATH_FAILED, 5000 * ktap_slowness());
	T_CHECK(at >= 0, "a has not failed");
	T_CHECK(ctl_events_wait(&ev, at, IOVM_EV_PARKED, "kt-0", NULL, 5000) >= 0, "not parked");
	release("iovmt-a");
	T_CHECK(ctl_events_wait_state(&ev, at, "kt-0", "a", IOVM_PATH_LIVE, 15000) >= 0, "a did not come back");
	T_CHECK(vload_progress(&L, 200, 20000), "no progress");
	T_CHECK(L.errors == 0, "%llu errors", (unsigned long long)L.errors);
	end_load();
}

/* What was taken back from a path, and has ended, does not count when it is live again, however busy it is from then on. */
static void back_under_load(void)
{
	struct iovm_path_info p;
	unsigned int i;
	int at, r;

	two(IOVM_DEV_F_BOUNCE_READS, 0, 2, LOADED_TIMEOUT_MS);
	load((struct vload_cfg){ .depth = 16 });
	hang("iovmt-a");
	expect_hang(0);
	T_REQUIRE(retakes() > 0, "nothing was taken back");
	at = ev.nr_seen;
	release("iovmt-a");
	all_back();
	/* soon: it is looked at every sixteenth of the time */
	for (i = 0; i < 1000; i++) {
		if (!ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY) ||
		    (!ctl_path_get("kt-0", "a", &p) && p.state == IOVM_PATH_LIVE))
			break;
		sleep_ms(1);
	}
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0);
	T_REQUIRE(!r, "failover: %s", strerror(-r));
	sleep_ms(LOADED_TIMEOUT_MS);
	T_CHECK(vload_progress(&L, 50, 10000), "no progress");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_OVERDUE, "kt-0") == 1, "overdue again");
	T_CHECK(ctl_events_wait_state(&ev, at, "kt-0", "a", IOVM_PATH_SUSPECT, 0) < 0, "suspect again");
	end_load();
}

/* Slow, but not too slow: nothing happens. */
static void slow_is_not_hung(void)
{
	char table[128];
	int r;

	two(0, 0, 2, LOADED_TIMEOUT_MS);
	load((struct vload_cfg){ .depth = 8 });
	snprintf(table, sizeof(table), "0 %llu delay %s 0 %u", (unsigned long long)SECTORS, fix_store, 50);
	stor_modprobe("dm-delay", NULL);
	r = dm_swap("iovmt-a", table, true);
	T_REQUIRE(!r, "dm-delay: %s", strerror(-r));
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_OVERDUE, "kt-0") == 0, "a slow path was taken for a hung one");
	r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), true);
	T_REQUIRE(!r, "dm-linear: %s", strerror(-r));
	end_load();
}

/* A device that has no request left to give away stops nobody: the next ones go elsewhere. */
static void device_full(void)
{
	static struct one o[8], w;
	char slow[64], good[64];
	unsigned int i;
	int r;

	/* two requests at a time, each takes three seconds */
	r = nullb_create("iovmts", &(struct nullb_opts){ .size_mb = MB, .completion_nsec = 3000000000u, .queue_depth = 2 }, slow);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	r = nullb_create("iovmtg", &(struct nullb_opts){ .size_mb = MB, .memory_backed = true }, good);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	create(IOVM_DEV_F_BOUNCE_READS, 1);
	add("a", slow, 0, IO_TIMEOUT_MS);
	add("b", good, 0, IOVM_NO_TIMEOUT);
	fix_open_mem(0, ALL_FEATURES, 1, 512, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	for (i = 0; i < 8; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_IN, i * 8, 4096, 0);
	expect_hang(0);
	one_start(&w, 0, VIRTIO_BLK_T_OUT, 8000, 4096, 0x66);
	T_CHECK(one_wait(&w, 1500) && one_status(&w) == 0, "a new request waits for the full device");
	for (i = 0; i < 8; i++)
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "read %u does not go on", i);
}

/* Has the driver of this disk a write? */
static bool has_write(const char *node)
{
	char path[96];
	unsigned int reads, writes = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%.60s/inflight", strrchr(node, '/') + 1);
	f = fopen(path, "r");
	T_REQUIRE(f, "%s: %s", path, strerror(errno));
	if (fscanf(f, "%u %u", &reads, &writes) != 2)
		writes = 0;
	fclose(f);
	return writes;
}

/* A write of which a piece was sent, when the device had no room for the next, is not one that was not sent. */
static void cut_in_pieces(void)
{
	char slow[64], good[64], limit[96];
	struct iovm_path_info p;
	struct one o;
	int r, i;

	/* two requests, of one page each: one waits for the other, which takes some time and fails */
	r = nullb_create("iovmts", &(struct nullb_opts){ .size_mb = MB, .completion_nsec = 1500000000u, .queue_depth = 1,
			 .badblocks = "+40000-40007" }, slow);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	snprintf(limit, sizeof(limit), "/sys/block/%s/queue/max_sectors_kb", strrchr(slow, '/') + 1);
	r = stor_write_file(limit, "4");
	T_REQUIRE(!r, "%s: %s", limit, strerror(-r));
	r = nullb_create("iovmtg", &(struct nullb_opts){ .size_mb = MB, .memory_backed = true }, good);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	create(0, 1);
	add("a", slow, IOVM_FENCE_NONE, IOVM_NO_TIMEOUT);
	add("b", good, 0, IOVM_NO_TIMEOUT);
	fix_open_mem(0, ALL_FEATURES, 1, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 40000, 16384, 0x44);
	/* what has not been sent when the path fails needs no fence */
	for (i = 0; i < 5000 && !has_write(slow); i++)
		sleep_ms(1);
	T_REQUIRE(i < 5000, "the disk got no write");
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FAIL);
	T_REQUIRE(!r, "fail: %s", strerror(-r));
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_HELD, "kt-0", "a", 10000) >= 0, "not held");
	T_CHECK(!one_wait(&o, 500), "it was issued elsewhere without a fence");
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.held == 1, "%llu held", (unsigned long long)p.held);
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(one_wait(&o, 5000) && one_status(&o) == 0, "the write does not go on behind the fence");
}

/* Hang, fence, release, again and again under a load that verifies; the front end goes while old requests still hang. */
static void rounds(void)
{
	unsigned int i;
	int r;

	two(IOVM_DEV_F_BOUNCE_READS, IOVM_FENCE_NONE, 4, LOADED_TIMEOUT_MS);
	load((struct vload_cfg){ .depth = 16, .flush_pct = 2, .zero_pct = 2, .max_blocks = 64 });
	for (i = 0; i < 8 && !ktap_failed(); i++) {
		int at = ev.nr_seen;

		hang("iovmt-a");
		expect_hang(at);
		fence_a();
		r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FENCED);
		T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
		T_CHECK(vload_turnover(&L, 10000), "round %u: what was in flight does not go on", i);
		release("iovmt-a");
		/* what the error table has not ended yet would land by the linear one */
		all_back();
		r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
		T_REQUIRE(!r, "dm: %s", strerror(-r));
		T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 15000), "round %u: a did not come back", i);
		r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILBACK, NULL, 0);
		T_CHECK(!r, "failback: %s: %s", strerror(-r), ctl_msg);
		T_CHECK(vload_progress(&L, 50, 10000), "round %u: no progress", i);
	}
	T_CHECK(retakes() > 0, "nothing was taken back");
	end_load();

	/* the queues stop, and the front end goes, while a still has what was taken back */
	hang("iovmt-a");
	for (i = 0; i < 4; i++) {
		static struct one o[4];

		one_start(&o[i], i, VIRTIO_BLK_T_IN, i * 8, 65536, 0);
		T_CHECK(one_wait(&o[i], 5000 * ktap_slowness()) && one_status(&o[i]) == 0, "read %u does not go on", i);
	}
	fix_close(0);
	release("iovmt-a");
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 15000), "a did not come back");
}

static void bad_arguments(void)
{
	struct iovm_path_add a;
	int r;

	fix_store_make(MB, 512);
	create(0, 1);
	a = (struct iovm_path_add){ .io_timeout_ms = 1 };
	r = ctl_path_add_arg("kt-0", "a", fix_store, &a);
	T_CHECK(r == -EINVAL && strstr(ctl_msg, "time-out"), "1 ms: %s: %s", strerror(-r), ctl_msg);
	a = (struct iovm_path_add){ .io_timeout_ms = IOVM_NO_TIMEOUT - 1 };
	r = ctl_path_add_arg("kt-0", "a", fix_store, &a);
	T_CHECK(r == -EINVAL, "49 days: %s", strerror(-r));
	a = (struct iovm_path_add){ .fence = IOVM_FENCE_EPOCH + 1 };
	r = ctl_path_add_arg("kt-0", "a", fix_store, &a);
	T_CHECK(r == -EINVAL, "unknown fence: %s", strerror(-r));
}

static const struct ktap_case cases[] = {
	{ "bad_arguments", bad_arguments },
	{ "bounced_reads", bounced_reads },
	{ "plain_reads_wait", plain_reads_wait },
	{ "writes_wait_for_fence", writes_wait_for_fence },
	{ "large_requests", large_requests },
	{ "many_large_requests", many_large_requests },
	{ "all_parts_stuck", all_parts_stuck },
	{ "flush_waits_for_writes", flush_waits_for_writes },
	{ "only_path", only_path },
	{ "back_under_load", back_under_load, .limit_s = 60 },
	{ "slow_is_not_hung", slow_is_not_hung },
	{ "device_full", device_full },
	{ "cut_in_pieces", cut_in_pieces },
	{ "rounds", rounds, .limit_s = 120 },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
