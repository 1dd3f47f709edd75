// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Errors that are not the path's: blocks that the medium does not give or take, and a thin-provisioned store that is full.
 *
 *	path a: fix_store, but for BAD sectors, which are a scsi_debug disk's with medium errors there
 *	path b: fix_store
 */
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MB 16
#define SECTORS (MB * 2048ull)
#define BAD 8192		/* first bad sector; 16 of them */
#define POOL_SMALL 8192ull	/* sectors of the pool before and after it was extended */
#define POOL_LARGE (24 * 2048ull)

static struct ctl_events ev;
static struct nbdsrv srv;
static struct vload L;
static bool loading;
static char a_node[64], b_node[64], sd_node[1][64];

static void cleanup(void)
{
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (loading) {
		ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0);
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	ctl_events_close(&ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	nbdsrv_free(&srv);
	/* in this order: each lies on the next */
	dm_remove("iovmt-thin");
	dm_remove("iovmt-pool");
	fix_cleanup();
}

static void create(void)
{
	ctl_must_create("kt-0", SECTORS, 1);
	strcpy(F[0].name, "kt-0");
	T_REQUIRE(!ctl_events_open(&ev), "events");
}

static void add(const char *path, const char *node, u32 fence)
{
	int r = ctl_path_add_bdev("kt-0", path, node, 0, fence);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
}

/* fix_store with a hole that leads to the same place of the scsi_debug disk */
static void with_bad(const char *name, char node[64])
{
	char table[512];
	int r;

	snprintf(table, sizeof(table), "0 %u linear %s 0\n%u 16 linear %s %u\n%u %llu linear %s %u", BAD, fix_store, BAD, sd_node[0],
		 BAD, BAD + 16, SECTORS - BAD - 16, fix_store, BAD + 16);
	r = dm_create(name, table, node);
	T_REQUIRE(!r, "dm %s: %s", name, strerror(-r));
}

static void begin(u32 fence)
{
	char params[64];
	int r;

	fix_store_make(MB, 512);
	snprintf(params, sizeof(params), "opts=2 medium_error_start=%u medium_error_count=16", BAD);
	r = scsi_debug_load(1, MB, 512, params, sd_node);
	if (r)
		ktap_skip("no scsi_debug: %s", strerror(-r));
	with_bad("iovmt-a", a_node);
	r = dm_create("iovmt-b", dm_linear(fix_store, SECTORS), b_node);
	T_REQUIRE(!r, "dm b: %s", strerror(-r));
	create();
	add("a", a_node, fence);
	add("b", b_node, 0);
	fix_open_mem(0, ALL_FEATURES, 1, 64, 16 * MiB, 0);
}

static int read_at(u64 sector, u32 gen)
{
	u8 buf[512];
	int r = vblk_read(&F[0].s, &F[0].d.vqs[0], sector, buf, 512);

	if (!r)
		T_CHECK(pat_ok(buf, 1, sector, gen), "sector %llu: wrong data", (unsigned long long)sector);
	return r;
}

static int write_at(u64 sector, u32 gen)
{
	u8 buf[512];

	pat_fill(buf, 1, sector, gen);
	return vblk_write(&F[0].s, &F[0].d.vqs[0], sector, buf, 512);
}

/* Both paths are live, a takes the requests, and a has had @n medium errors of which @told were reported there. */
static void paths_stand(u64 n, u64 told)
{
	struct iovm_path_info a, b;
	struct iovm_path_stats s;
	struct iovm_dev_info d;

	T_CHECK(!ctl_path_get("kt-0", "a", &a) && a.state == IOVM_PATH_LIVE, "path a is in state %u", a.state);
	T_CHECK(ctl_path_get("kt-0", "b", &b) || b.state == IOVM_PATH_LIVE, "path b is in state %u", b.state);
	T_CHECK(!ctl_dev_get("kt-0", &d) && d.route_id == a.id, "the route is %u", d.route_id);
	T_CHECK(!ctl_path_stats("kt-0", "a", &s) && s.media_errors == n && s.request_errors == told && !s.path_errors,
		"a: %llu medium errors, %llu reported, %llu path errors", (unsigned long long)s.media_errors,
		(unsigned long long)s.request_errors, (unsigned long long)s.path_errors);
}

static void bad_read(void)
{
	u8 buf[512];
	int i, r;

	begin(0);
	/* what b has there */
	for (i = 0; i < 16; i++) {
		pat_fill(buf, 1, BAD + i, 1);
		T_REQUIRE(!stor_pwrite(fix_store, buf, 512, (BAD + i) * 512ull), "write");
	}
	for (i = 0; i < 16; i++) {
		r = read_at(BAD + i, 1);
		T_CHECK(r == 0, "sector %d that b can read: status %d", i, r);
	}
	paths_stand(16, 0);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_MEDIUM_ERROR, "kt-0", "a", 1000) >= 0, "no event");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_MEDIUM_ERROR, "kt-0") == 5, "%u events for 16 errors: 1, 2, 4, 8, 16",
		ctl_events_count(&ev, IOVM_EV_MEDIUM_ERROR, "kt-0"));
	T_CHECK(ctl_events_count(&ev, IOVM_EV_REROUTED, "kt-0") == 0, "it was rerouted");
	/* a request over good and bad sectors */
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, BAD - 8, 32 * 512);
	T_CHECK(r == 0, "good and bad sectors in one: status %d", r);
	paths_stand(17, 0);
}

/* Bad everywhere: one look at each, then that request fails, and nothing else. */
static void bad_everywhere(void)
{
	struct iovm_path_stats s;
	char c_node[64];
	int r;

	begin(0);
	with_bad("iovmt-c", c_node);
	r = ctl_path_remove("kt-0", "b", 0);
	T_REQUIRE(!r, "remove b: %s: %s", strerror(-r), ctl_msg);
	/* the only path */
	r = read_at(BAD, 1);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "on the only path: status %d", r);
	paths_stand(1, 1);
	add("c", c_node, 0);
	r = read_at(BAD + 1, 1);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "on both paths: status %d", r);
	paths_stand(2, 1);
	T_CHECK(!ctl_path_stats("kt-0", "c", &s) && s.media_errors == 1 && s.request_errors == 1 && s.issued[IOVM_OP_READ] == 1,
		"c: %llu medium errors, %llu reads", (unsigned long long)s.media_errors, (unsigned long long)s.issued[IOVM_OP_READ]);
	T_CHECK(!write_at(16, 1) && !read_at(16, 1), "elsewhere all is well");
}

/* Every write to the disk ends with a wrong checksum (a protection error), although it has landed. @fence of the path to it */
static void bad_write(u32 fence, int want)
{
	int r;

	begin(fence);
	r = scsi_debug_param("opts", "0x20");
	if (!r)
		r = scsi_debug_param("every_nth", "1");
	T_REQUIRE(!r, "injection: %s", strerror(-r));
	r = write_at(BAD, 1);
	T_CHECK(r == want, "status %d", r);
	paths_stand(1, want ? 1 : 0);
	if (!want)
		T_CHECK(!read_at(BAD, 1), "it cannot be read");
}

static void bad_write_elsewhere(void)
{
	bad_write(IOVM_FENCE_LOCAL_ERROR, 0);
}

/* Nothing says that the first one will not land later. */
static void bad_write_without_fence(void)
{
	bad_write(IOVM_FENCE_NONE, VIRTIO_BLK_S_IOERR);
}

/* --- no space --- */

static void load(unsigned int depth)
{
	int r = vload_start(&L, &F[0].d, &(struct vload_cfg){ .depth = depth, .mem_idx = -1, .write_pct = 70, .flush_pct = 2,
							      .zero_pct = 2 });

	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
}

static void finish(const char *node)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!L.stuck && vload_check_dev(&L) == 0, "wrong data, read through the device");
	if (node)
		T_CHECK(vload_check_node(&L, node) == 0, "wrong data on %s", node);
	vload_finish(&L, "load");
}

static void nbd_device(u32 fence)
{
	int r;

	T_REQUIRE(!nbdsrv_init(&srv, NULL, MB * MiB), "server");
	create();
	r = ctl_path_add_nbd("kt-0", "a", 0, fence, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	r = nbdsrv_attach(&srv, "kt-0", "a", 1, false);
	T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	fix_open_mem(0, ALL_FEATURES, 1, 64, 16 * MiB, 0);
}

/* Waits until @n requests wait for space. */
static bool waiting(u64 n)
{
	struct iovm_dev_info i = { 0 };
	int tries;

	for (tries = 0; tries < 2000; tries++) {
		if (!ctl_dev_get("kt-0", &i) && i.no_space >= n)
			return true;
		sleep_ms(5);
	}
	ktap_note("%llu wait for space", (unsigned long long)i.no_space);
	return false;
}

static void full_server(void)
{
	struct iovm_path_info p;
	struct iovm_dev_info i;
	unsigned int round;
	int e;

	nbd_device(0);
	load(16);
	T_REQUIRE(vload_progress(&L, 200, 20000), "no progress");
	for (round = 0; round < 2; round++) {
		int from = ev.nr_seen;

		srv.full = true;
		T_REQUIRE(ctl_events_wait(&ev, from, IOVM_EV_NO_SPACE, "kt-0", "a", 20000) >= 0, "the operator does not hear of it");
		T_CHECK(waiting(4), "nobody waits");
		T_CHECK(!ctl_dev_get("kt-0", &i) && i.state == IOVM_DEV_ROUTED, "state %u", i.state);
		T_CHECK(!ctl_path_get("kt-0", "a", &p) && p.state == IOVM_PATH_LIVE, "the path is in state %u", p.state);
		srv.full = false;
		/* once by itself, once because the operator says so */
		if (round)
			T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0), "resume: %s", ctl_msg);
		e = ctl_events_wait(&ev, from, IOVM_EV_SPACE, "kt-0", NULL, 20000);
		T_REQUIRE(e >= 0, "it does not go on");
		ktap_note("%llu ms without space", (unsigned long long)ev.seen[e].value);
		T_CHECK(vload_progress(&L, 200, 20000), "no progress behind round %u", round);
	}
	T_CHECK(!ctl_dev_get("kt-0", &i) && !i.no_space && !i.requeued && !i.no_space_ms, "%llu still wait",
		(unsigned long long)i.no_space);
	finish(NULL);
}

static void full_time_limit(void)
{
	struct iovm_dev_stats s;
	int r, e;

	nbd_device(0);
	srv.full = true;
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SET_NO_SPACE_TIMEOUT, NULL, 300), "set: %s", ctl_msg);
	r = write_at(0, 1);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "status %d", r);
	e = ctl_events_wait(&ev, 0, IOVM_EV_TIMEOUT, "kt-0", NULL, 1000);
	T_CHECK(e >= 0 && ev.seen[e].error == -ENOSPC, "no event");
	srv.full = false;
	T_CHECK(!write_at(0, 2) && !read_at(0, 2), "it does not go on");
	T_CHECK(!ctl_dev_stats("kt-0", &s) && s.errors == 1, "%llu errors", (unsigned long long)s.errors);
}

/* What waits is failed by the operator; what waits when the front end goes is given up. */
static void full_given_up(void)
{
	struct iovm_dev_info i;

	nbd_device(0);
	srv.full = true;
	load(16);
	T_CHECK(waiting(4), "nobody waits");
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0), "fail parked: %s", ctl_msg);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_FAIL_PARKED, "kt-0", NULL, 1000) >= 0, "no event");
	T_CHECK(waiting(4), "what came later does not wait");
	L.abandon = true;
	vload_stop(&L);
	loading = false;
	T_CHECK(L.errors >= 4, "%llu were failed", (unsigned long long)L.errors);
	fix_close(0);
	T_CHECK(!ctl_dev_get("kt-0", &i) && !i.no_space && !i.requeued && !i.inflight, "%llu still wait",
		(unsigned long long)i.no_space);
	vload_free(&L);
}

/* A write that found no space on a path without a fence goes to no other. */
static void full_bound(void)
{
	struct iovm_path_stats s;
	int r;

	nbd_device(0);
	fix_store_make(MB, 512);
	add("b", fix_store, 0);
	srv.full = true;
	load(8);
	T_CHECK(waiting(2), "nobody waits");
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "b", 0);
	T_CHECK(!r, "failover: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(ctl_path_remove("kt-0", "a", 0) == -EBUSY, "a path that writes are bound to is removed");
	sleep_ms(700);		/* it is tried again meanwhile, on a */
	T_CHECK(waiting(2), "they went elsewhere");
	T_CHECK(!ctl_path_stats("kt-0", "a", &s) && s.no_space > 8, "%llu tries", (unsigned long long)s.no_space);
	srv.full = false;
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_SPACE, "kt-0", NULL, 20000) >= 0, "it does not go on");
	/* a and b are not the same data here: only that all came back counts */
	L.abandon = true;
	vload_stop(&L);
	loading = false;
	vload_free(&L);
}

static void pool_table(char *table, size_t n, u64 sectors, const char *meta, const char *data)
{
	snprintf(table, n, "0 %llu thin-pool %s %s 128 0 2 skip_block_zeroing error_if_no_space", (unsigned long long)sectors, meta,
		 data);
}

/* The real thing: a pool that fills up, and is extended under the guest. */
static void thin_pool(void)
{
	char store[2][64], meta[64], data[64], pool[64], thin[64], table[512];
	int r, i, e;

	if (stor_modprobe("dm_thin_pool", NULL))
		ktap_skip("no dm-thin-pool");
	for (i = 0; i < 2; i++) {
		fix_store_make(32, 512);
		strcpy(store[i], fix_store);
	}
	snprintf(table, sizeof(table), "0 8192 linear %s 0", store[0]);
	r = dm_create("iovmt-x-meta", table, meta);
	snprintf(table, sizeof(table), "0 %llu linear %s 0", POOL_SMALL, store[1]);
	r = r ? r : dm_create("iovmt-x-data", table, data);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	pool_table(table, sizeof(table), POOL_SMALL, meta, data);
	r = dm_create("iovmt-pool", table, pool);
	T_REQUIRE(!r, "pool: %s", strerror(-r));
	r = dm_message("iovmt-pool", "create_thin 0");
	T_REQUIRE(!r, "create_thin: %s", strerror(-r));
	snprintf(table, sizeof(table), "0 %llu thin %s 0", SECTORS, pool);
	r = dm_create("iovmt-thin", table, thin);
	T_REQUIRE(!r, "thin: %s", strerror(-r));

	create();
	add("a", thin, 0);
	fix_open_mem(0, ALL_FEATURES, 1, 64, 16 * MiB, 0);
	load(16);
	T_REQUIRE(ctl_events_wait(&ev, 0, IOVM_EV_NO_SPACE, "kt-0", "a", 30000) >= 0, "the pool does not fill up, or nobody hears");
	T_CHECK(waiting(1), "nobody waits");
	snprintf(table, sizeof(table), "0 %llu linear %s 0", POOL_LARGE, store[1]);
	r = dm_swap("iovmt-x-data", table, false);
	T_REQUIRE(!r, "extending: %s", strerror(-r));
	pool_table(table, sizeof(table), POOL_LARGE, meta, data);
	r = dm_swap("iovmt-pool", table, false);
	T_REQUIRE(!r, "extending the pool: %s", strerror(-r));
	e = ctl_events_wait(&ev, 0, IOVM_EV_SPACE, "kt-0", NULL, 20000);
	T_REQUIRE(e >= 0, "it does not go on");
	ktap_note("%llu ms without space", (unsigned long long)ev.seen[e].value);
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	finish(NULL);
}

static const struct ktap_case cases[] = {
	{ "bad_read", bad_read },
	{ "bad_everywhere", bad_everywhere },
	{ "bad_write_elsewhere", bad_write_elsewhere },
	{ "bad_write_without_fence", bad_write_without_fence },
	{ "full_server", full_server, 90 },
	{ "full_time_limit", full_time_limit },
	{ "full_given_up", full_given_up },
	{ "full_bound", full_bound },
	{ "thin_pool", thin_pool, 120 },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
