// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Devices that grow under load, whatever their paths are and in whatever order those grow.
 *
 *	                      ┌─ iovmt-a (linear, half) ─ path a ─┐
 *	null_blk (in memory) ─┤                                   ├─ kt-0 ─ queue 0 load, queue 1 the test
 *	                      └─ nbdsrv (half) ────────── path b ─┘
 */
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)
#define HALF (SECTORS / 2)
#define ID "id:one"

static struct ctl_events ev;
static struct vload L;
static struct nbdsrv srv;
static char a_node[64];
static bool loading, serving;
static int config_fd = -1;

static void cleanup(void)
{
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	ctl_events_close(&ev);
	ctl_destroy_all("kt-");
	if (serving)
		nbdsrv_free(&srv);
	serving = false;
	if (config_fd >= 0)
		close(config_fd);
	config_fd = -1;
	fix_cleanup();
}

static void create(void)
{
	struct iovm_dev_create c;
	int r;

	fix_store_make(MB, 512);
	r = dm_create("iovmt-a", dm_linear(fix_store, HALF), a_node);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	ctl_dev_defaults(&c, "kt-0", HALF, 2);
	strcpy(c.identity, ID);
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
}

static void add_a(void)
{
	int r = ctl_path_add_bdev_id("kt-0", "a", a_node, 0, 0, ID);

	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);
}

static void serve(u64 sectors)
{
	int r;

	if (serving)
		nbdsrv_free(&srv);
	r = nbdsrv_init(&srv, fix_store, 0);
	T_REQUIRE(!r, "server: %s", strerror(-r));
	serving = true;
	srv.bytes = sectors * 512;
	strcpy(srv.identity, ID);
}

static void add_b(void)
{
	int r;

	serve(HALF);
	r = ctl_path_add_nbd_id("kt-0", "b", 0, 0, 200, 5000, ID);
	T_REQUIRE(!r, "path b: %s: %s", strerror(-r), ctl_msg);
	r = nbdsrv_attach(&srv, "kt-0", "b", 1, false);
	T_REQUIRE(!r, "attach: %s: %s", strerror(-r), ctl_msg);
}

static void begin(void)
{
	int r, fd;

	fix_open_mem(0, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	config_fd = eventfd(0, EFD_NONBLOCK);
	fd = config_fd;
	T_REQUIRE(!ioctl(F[0].d.fd, VHOST_VDPA_SET_CONFIG_CALL, &fd), "config call: %s", strerror(errno));
	r = vload_start(&L, &F[0].d, &(struct vload_cfg){ .depth = 16, .mem_idx = -1, .queues = 1, .nr = HALF, .flush_pct = 3 });
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
	T_REQUIRE(vload_progress(&L, 100, 20000), "no progress at the start");
}

static void end(void)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!ev.gap, "event sequence has a gap");
	T_CHECK(vload_check_node(&L, fix_store) == 0, "wrong data");
	vload_finish(&L, "load");
}

static u64 capacity(void)
{
	struct virtio_blk_config c;
	int r = F[0].d.tp->get_config(&F[0].d, 0, &c, 60);

	T_REQUIRE(!r, "config: %s", strerror(-r));
	return c.capacity;
}

static void grow_a(void)
{
	int r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), true);

	T_REQUIRE(!r, "dm: %s", strerror(-r));
}

/* The server goes and comes back with the larger export. Nothing is in flight there. */
static void grow_b(void)
{
	int r;

	T_REQUIRE(!ctl_path_ctl("kt-0", "b", IOVM_PATH_CTL_FAIL), "fail b: %s", ctl_msg);
	serve(SECTORS);
	r = nbdsrv_attach(&srv, "kt-0", "b", 1, false);
	T_REQUIRE(!r, "a larger export is refused: %s: %s", strerror(-r), ctl_msg);
}

static void refused(const char *path)
{
	u64 v;
	int r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, SECTORS);
	char want[16];

	snprintf(want, sizeof(want), "path %s ", path);
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, want), "resize although %s is too small: %s: %s", path, strerror(-r), ctl_msg);
	T_CHECK(capacity() == HALF, "and yet it has %llu sectors", (unsigned long long)capacity());
	T_CHECK(read(config_fd, &v, 8) < 0, "and yet the front end was told");
}

static void resize(void)
{
	u64 v;
	int r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, SECTORS), at;

	T_CHECK(!r, "resize: %s: %s", strerror(-r), ctl_msg);
	at = ctl_events_wait(&ev, 0, IOVM_EV_RESIZED, "kt-0", NULL, 5000);
	T_CHECK(at >= 0 && ev.seen[at].value == SECTORS, "no event");
	T_CHECK(read(config_fd, &v, 8) == 8, "the front end was not told");
	T_CHECK(capacity() == SECTORS, "capacity %llu", (unsigned long long)capacity());
}

/* The last block of the new area can be written and read, the first one behind it cannot. */
static void use_new_area(const char *path)
{
	struct vq *q = &F[0].d.vqs[1];
	static u8 salt;
	u8 w[4096], rd[4096];
	struct iovm_path_stats s0, s1;
	int r;

	memset(w, ++salt, sizeof(w));
	ctl_path_stats("kt-0", path, &s0);
	r = vblk_write(&F[0].s, q, SECTORS - 8, w, 4096);
	T_CHECK(r == 0, "write to the new end by %s: %d", path, r);
	r = vblk_read(&F[0].s, q, SECTORS - 8, rd, 4096);
	T_CHECK(r == 0 && !memcmp(w, rd, 4096), "read of the new end by %s: %d", path, r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, HALF - 4, 4096);
	T_CHECK(r == 0, "read across the old end by %s: %d", path, r);
	r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, SECTORS, 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "read behind the new end by %s: %d", path, r);
	ctl_path_stats("kt-0", path, &s1);
	T_CHECK(s1.done[IOVM_OP_WRITE] > s0.done[IOVM_OP_WRITE], "that was not by %s", path);
}

static void failover(const char *path)
{
	int r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, path, 0);

	T_REQUIRE(!r, "failover to %s: %s: %s", path, strerror(-r), ctl_msg);
	T_CHECK(vload_turnover(&L, 20000) && vload_progress(&L, 100, 20000), "no progress on %s", path);
}

static void both(bool b_first)
{
	create();
	add_a();
	add_b();
	begin();
	refused("a");
	if (b_first)
		grow_b();
	else
		grow_a();
	refused(b_first ? "a" : "b");
	T_CHECK(vload_progress(&L, 100, 20000), "no progress while one has grown");
	if (b_first)
		grow_a();
	else
		grow_b();
	resize();
	T_CHECK(vload_progress(&L, 100, 20000), "no progress behind the resize");
	use_new_area("a");
	failover("b");
	use_new_area("b");
	failover("a");
	use_new_area("a");
	/* and when a is lost, not only left */
	T_CHECK(!ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FAIL), "fail a: %s", ctl_msg);
	T_CHECK(vload_progress(&L, 100, 20000), "no progress on b");
	use_new_area("b");
	T_CHECK(!ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY), "retry a: %s", ctl_msg);
	end();
}

static void bdev_first(void)
{
	both(false);
}

static void nbd_first(void)
{
	both(true);
}

/* The only path is nbd: the guest waits while its connections are exchanged, as iovmctl resize does it. */
static void nbd_only(void)
{
	create();
	add_b();
	begin();
	refused("b");
	T_REQUIRE(!ctl_dev_ctl("kt-0", IOVM_DEV_SUSPEND, NULL, 0), "suspend: %s", ctl_msg);
	grow_b();
	T_REQUIRE(!ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0), "resume: %s", ctl_msg);
	T_CHECK(vload_progress(&L, 100, 20000), "no progress on the new connection");
	resize();
	use_new_area("b");
	end();
}

/* New connections right behind the end of the old ones, whose teardown may not even have begun: that is no error of theirs. */
static void exchanged_at_once(void)
{
	unsigned int i;
	int fd, r = 0;

	create();
	add_b();
	for (i = 0; i < 40 && !r; i++) {
		fd = nbdsrv_connect(&srv, false);
		T_REQUIRE(fd >= 0, "connect: %s", strerror(-fd));
		T_REQUIRE(!ctl_path_ctl("kt-0", "b", IOVM_PATH_CTL_FAIL), "fail b: %s", ctl_msg);
		r = ctl_path_connect_id("kt-0", "b", &fd, 1, srv.bytes, NBDSRV_FLAGS, 0, ID);
		close(fd);
	}
	T_CHECK(!r, "round %u: %s: %s", i, strerror(-r), ctl_msg);
}

/* Paths that are out of use do not stop a resize, and do not come back too small. */
static void out_of_use(void)
{
	int r;

	create();
	add_b();
	add_a();
	begin();
	failover("b");
	T_REQUIRE(!ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FAIL), "fail a: %s", ctl_msg);
	T_REQUIRE(!ctl_dev_ctl("kt-0", IOVM_DEV_SUSPEND, NULL, 0), "suspend: %s", ctl_msg);
	grow_b();
	T_REQUIRE(!ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0), "resume: %s", ctl_msg);
	resize();
	use_new_area("b");
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	T_CHECK(r == -EMEDIUMTYPE, "a is back, although too small: %s", strerror(-r));
	grow_a();
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	T_CHECK(!r, "a does not come back: %s: %s", strerror(-r), ctl_msg);
	failover("a");
	use_new_area("a");
	T_REQUIRE(!ctl_path_ctl("kt-0", "b", IOVM_PATH_CTL_FAIL), "fail b: %s", ctl_msg);
	serve(HALF);
	r = nbdsrv_attach(&srv, "kt-0", "b", 1, false);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "b is back, although too small: %s", strerror(-r));
	end();
}

/* Only what is known to be the same data may be larger. */
static void larger(void)
{
	char node[64], other[64];
	int r;

	create();
	r = dm_create("iovmt-b", dm_linear(fix_store, SECTORS), node);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_path_add_bdev_id("kt-0", "b", node, 0, 0, ID);
	T_CHECK(!r, "larger, with the device's identity: %s: %s", strerror(-r), ctl_msg);
	r = dm_create("iovmt-c", dm_linear(fix_store, HALF / 2), other);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_path_add_bdev_id("kt-0", "c", other, 0, 0, ID);
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, "sectors"), "smaller, with the device's identity: %s: %s", strerror(-r),
		ctl_msg);
	ctl_must_create("kt-1", HALF, 1);
	T_REQUIRE(!ctl_path_remove("kt-0", "b", 0), "remove: %s", ctl_msg);
	r = ctl_path_add_bdev_id("kt-1", "b", node, 0, 0, NULL);
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, "sectors"), "larger, without an identity: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev("kt-1", "b", node, 0, 0);
	T_CHECK(!r, "larger, on the operator's word: %s: %s", strerror(-r), ctl_msg);
}

static void smaller(void)
{
	int r;

	create();
	add_a();
	fix_open(0, ALL_FEATURES, 1, 64);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, HALF / 2);
	T_CHECK(r == -EBUSY && ctl_msg[0], "made smaller below a guest: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(capacity() == HALF, "capacity %llu", (unsigned long long)capacity());
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, HALF);
	T_CHECK(!r, "the size that it has: %s", strerror(-r));
	fix_close(0);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, HALF / 2);
	T_CHECK(!r, "made smaller while nobody is there: %s: %s", strerror(-r), ctl_msg);
}

static const struct ktap_case cases[] = {
	{ "bdev_first", bdev_first },
	{ "nbd_first", nbd_first },
	{ "nbd_only", nbd_only },
	{ "exchanged_at_once", exchanged_at_once },
	{ "out_of_use", out_of_use },
	{ "larger", larger },
	{ "smaller", smaller },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
