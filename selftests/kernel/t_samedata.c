// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is it the same data? Identities of paths, at their addition and whenever they are connected again; and whether what was
 * acknowledged is still there after a path was lost with its cache, or was taken away and the cache is lost then.
 */
#include "fix.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 16
#define SECTORS (MB * 2048ull)
#define X "wwn:naa.6000000000000001"
#define Y "wwn:naa.6000000000000002"

static struct nbdsrv srv;
static char a_node[64], b_node[64];

static void cleanup(void)
{
	fix_close(0);
	srv.hold = false;
	if (*a_node)
		dm_suspend("iovmt-a", false);
	*a_node = 0;
	ctl_destroy_all("kt-");
	nbdsrv_free(&srv);
	fix_cleanup();
}

static void two_nodes(void)
{
	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
}

static void create(const char *identity)
{
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, "kt-0", SECTORS, 1);
	if (identity)
		snprintf(c.identity, sizeof(c.identity), "%s", identity);
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
}

static void taken(const char *path, const char *node, u32 flags, const char *id)
{
	int r = ctl_path_add_bdev_id("kt-0", path, node, flags, 0, id);

	T_CHECK(!r, "path %s with %s: %s: %s", path, id ? id : "nothing", strerror(-r), ctl_msg);
}

/* ... and the sentence names all of @words. */
static void refused(const char *path, const char *node, const char *id, const char *word, const char *word2)
{
	int r = ctl_path_add_bdev_id("kt-0", path, node, 0, 0, id);

	T_CHECK(r == -EMEDIUMTYPE, "path %s with %s: %s", path, id ? id : "nothing", strerror(-r));
	T_CHECK(strstr(ctl_msg, word) && strstr(ctl_msg, word2), "it says: %s", ctl_msg);
	ktap_note("%s", ctl_msg);
}

static void removed(const char *path)
{
	int r = ctl_path_remove("kt-0", path, 0);

	T_CHECK(!r, "remove %s: %s: %s", path, strerror(-r), ctl_msg);
}

static void device_is(const char *id)
{
	struct iovm_dev_info i;
	int r = ctl_dev_get("kt-0", &i);

	T_CHECK(!r && !strcmp(i.identity, id), "the device's data is %s, not %s", i.identity, id);
}

static void path_is(const char *path, const char *id, bool assumed)
{
	struct iovm_path_info i;
	int r = ctl_path_get("kt-0", path, &i);

	T_CHECK(!r && !strcmp(i.identity, id) && !!(i.flags & IOVM_PATH_F_ASSUME_SAME) == assumed, "path %s: %s, flags %u", path,
		i.identity, i.flags);
}

static void shown(void)
{
	two_nodes();
	create(NULL);
	device_is("");
	taken("a", a_node, 0, X);
	device_is(X);
	refused("b", b_node, Y, X, Y);
	refused("b", b_node, NULL, X, "no identity");
	taken("b", b_node, 0, X);
	path_is("b", X, false);
	removed("b");
	taken("b", b_node, IOVM_PATH_F_ASSUME_SAME, Y);
	path_is("b", Y, true);
	device_is(X);
	/* what the guest has stays what it is when its paths go */
	removed("a");
	removed("b");
	device_is(X);
	refused("b", b_node, Y, X, Y);
	taken("b", b_node, 0, X);
}

static void unknown(void)
{
	two_nodes();
	create(NULL);
	/* one path needs none */
	taken("a", a_node, 0, NULL);
	refused("b", b_node, NULL, "path a", "no identity");
	refused("b", b_node, X, "path a", "no identity");
	removed("a");
	taken("b", b_node, 0, NULL);
	removed("b");
	taken("a", a_node, 0, NULL);
	taken("b", b_node, IOVM_PATH_F_ASSUME_SAME, NULL);
	path_is("a", "", false);
	path_is("b", "", true);
	device_is("");
}

static void stated(void)
{
	struct iovm_dev_create c;
	static const char *const bad[] = { "x", ":x", "id:", "id:a b", "ID:x", "id:\x01" };
	unsigned int i;
	int r;

	two_nodes();
	create(X);
	device_is(X);
	refused("a", a_node, NULL, X, "no identity");
	refused("a", a_node, Y, X, Y);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		r = ctl_path_add_bdev_id("kt-0", "a", a_node, 0, 0, bad[i]);
		T_CHECK(r == -EINVAL && ctl_msg[0], "identity '%s': %s", bad[i], strerror(-r));
	}
	r = ctl_path_add_bdev_id("kt-0", "a", a_node, IOVM_PATH_F_IDENTITY_GIVEN, 0, NULL);
	T_CHECK(r == -EINVAL, "given, but none: %s", strerror(-r));
	taken("a", a_node, IOVM_PATH_F_IDENTITY_GIVEN, X);
	ctl_dev_defaults(&c, "kt-1", SECTORS, 1);
	memset(c.identity, 'x', sizeof(c.identity));
	c.identity[2] = ':';
	r = ctl_dev_create(&c);
	T_CHECK(r == -EINVAL && ctl_msg[0], "an identity without an end: %s", strerror(-r));
}

/* One connection for a server that says so of its data: the errno. */
static int attach(const char *path, const char *id)
{
	snprintf(srv.identity, sizeof(srv.identity), "%s", id);
	return nbdsrv_attach(&srv, "kt-0", path, 1, false);
}

static void nbd(void)
{
	struct iovm_path_info i;
	int r;

	two_nodes();
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	create(NULL);
	taken("a", a_node, 0, X);
	r = ctl_path_add_nbd_id("kt-0", "n", 0, 0, 0, 0, Y);
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, X) && strstr(ctl_msg, Y), "added with another identity: %s: %s", strerror(-r),
		ctl_msg);
	/* not known before it is connected: that decides */
	r = ctl_path_add_nbd_id("kt-0", "n", 0, 0, 0, 0, NULL);
	T_REQUIRE(!r, "path n: %s: %s", strerror(-r), ctl_msg);
	r = attach("n", "");
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, X), "connected without an identity: %s: %s", strerror(-r), ctl_msg);
	r = attach("n", Y);
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, Y), "connected with another: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_get("kt-0", "n", &i);
	T_CHECK(!r && i.state == IOVM_PATH_CONNECTING && !i.identity[0], "state %u, %s", i.state, i.identity);
	r = attach("n", X);
	T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	path_is("n", X, false);

	/* the server comes back, with other data */
	nbdsrv_kill(&srv);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "the path has not failed");
	r = attach("n", Y);
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, X) && strstr(ctl_msg, Y), "back with other data: %s: %s", strerror(-r), ctl_msg);
	ktap_note("%s", ctl_msg);
	r = attach("n", "");
	T_CHECK(r == -EMEDIUMTYPE && strstr(ctl_msg, X), "back without an identity: %s: %s", strerror(-r), ctl_msg);
	ktap_note("%s", ctl_msg);
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 0), "the path is not failed any more");
	r = attach("n", X);
	T_CHECK(!r, "back: %s: %s", strerror(-r), ctl_msg);
}

/* The reference of an assumption may be connected again as it was. */
static void nbd_unknown(void)
{
	int r;

	two_nodes();
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	create(NULL);
	r = ctl_path_add_nbd_id("kt-0", "n", 0, 0, 0, 0, NULL);
	T_REQUIRE(!r, "path n: %s: %s", strerror(-r), ctl_msg);
	r = attach("n", "");
	T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	taken("b", b_node, IOVM_PATH_F_ASSUME_SAME, NULL);
	nbdsrv_kill(&srv);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "the path has not failed");
	r = attach("n", "");
	T_CHECK(!r, "back: %s: %s", strerror(-r), ctl_msg);
}

static void write_64(void)
{
	unsigned int i;
	u8 buf[512];
	int r;

	fix_open_mem(0, ALL_FEATURES, 1, 64, 16 * MiB, 0);
	for (i = 0; i < 64; i++) {
		pat_fill(buf, 1, i * 8, 1);
		r = vblk_write(&F[0].s, &F[0].d.vqs[0], i * 8, buf, 512);
		T_REQUIRE(!r, "write: %d", r);
	}
}

/* 64 sectors are written to a server with a volatile cache, and acknowledged. */
static void write_to_cache(u32 flags, u32 dead_ms)
{
	int r;

	T_REQUIRE(!nbdsrv_init(&srv, NULL, MB * MiB) && !nbdsrv_cache(&srv), "server");
	create(NULL);
	r = ctl_path_add_nbd_id("kt-0", "n", flags, 0, dead_ms, dead_ms, NULL);
	T_REQUIRE(!r, "path n: %s: %s", strerror(-r), ctl_msg);
	r = attach("n", "");
	T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	write_64();
}

/* The server dies, and comes back without its cache. How many acknowledged sectors are gone. */
static unsigned int lost(u32 flags, bool flush)
{
	unsigned int i, gone = 0;
	u8 buf[512];
	int r;

	write_to_cache(flags, 0);
	if (flush)
		T_CHECK(!vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_FLUSH, 0, 0), "flush");
	nbdsrv_kill(&srv);
	nbdsrv_drop_cache(&srv);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "the path has not failed");
	r = attach("n", "");
	T_REQUIRE(!r, "connect again: %s: %s", strerror(-r), ctl_msg);
	for (i = 0; i < 64; i++) {
		r = vblk_read(&F[0].s, &F[0].d.vqs[0], i * 8, buf, 512);
		T_REQUIRE(!r, "read: %d", r);
		if (!pat_ok(buf, 1, i * 8, 1))
			gone++;
	}
	ktap_note("%u of 64 acknowledged writes are gone", gone);
	return gone;
}

static void cache_dies(void)
{
	T_CHECK(lost(0, false) == 0, "acknowledged writes are lost");
}

/* What the case before would look like if writes were not FUA. */
static void cache_declared_wrongly(void)
{
	T_CHECK(lost(IOVM_PATH_F_CACHE_SURVIVES, false) == 64, "the server did not lose its cache: this test sees nothing");
}

static void cache_flushed(void)
{
	T_CHECK(lost(IOVM_PATH_F_CACHE_SURVIVES, true) == 0, "a FLUSH that succeeded did not make them stable");
}

/* The guest has gone without a FLUSH, and then the server loses its cache. How many acknowledged sectors are gone. */
static unsigned int gone(void)
{
	unsigned int i, n = 0;

	nbdsrv_kill(&srv);
	nbdsrv_drop_cache(&srv);
	for (i = 0; i < 64; i++)
		n += !pat_ok(srv.mem + i * 8 * 512, 1, i * 8, 1);
	ktap_note("%u of 64 acknowledged writes are gone", n);
	return n;
}

static void remove_flushes(void)
{
	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 0);
	fix_close(0);
	removed("n");
	T_CHECK(gone() == 0, "the removal of the path did not make them stable");
}

static void destroyed(u32 flags, int error)
{
	int r = ctl_dev_destroy("kt-0", flags);

	T_CHECK(r == error, "destroy: %s: %s", strerror(-r), ctl_msg);
	if (r)
		ktap_note("%s", ctl_msg);
}

static void destroy_flushes(void)
{
	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 0);
	destroyed(0, -EBUSY);
	T_CHECK(!srv.flushes, "the guest that is there was flushed");
	fix_close(0);
	destroyed(0, 0);
	T_CHECK(gone() == 0, "the end of the device did not make them stable");
	T_CHECK(srv.flushes == 1, "%llu flushes", (unsigned long long)srv.flushes);
}

/* What the case before would look like without a flush. */
static void destroy_by_force(void)
{
	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 0);
	destroyed(IOVM_DESTROY_F_FORCE, 0);
	T_CHECK(gone() == 64, "the server did not lose its cache: this test sees nothing");
}

static void flush_fails(void)
{
	struct iovm_path_info p;
	int r;

	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 60000);
	fix_close(0);
	srv.fail_every = 1;
	destroyed(0, -EIO);
	/* its end is counted last */
	r = ctl_wait_path_idle("kt-0", "n", &p, 1000);
	T_CHECK(!r && p.state == IOVM_PATH_FAILED && p.unflushed && !p.inflight, "%s, state %u, unflushed %u, %llu in flight",
		strerror(-r), p.state, p.unflushed, (unsigned long long)p.inflight);
	/* the operator has been told */
	destroyed(0, 0);
}

/* Starts a process that removes @path, or destroys the device when @whole, and waits until it waits for the flush of @path. */
static pid_t ender(const char *path, bool whole)
{
	struct iovm_path_info p = {};
	pid_t pid = fork();
	unsigned int i;

	T_REQUIRE(pid >= 0, "fork");
	if (!pid)
		_exit((whole ? ctl_dev_destroy("kt-0", 0) : ctl_path_remove("kt-0", path, 0)) ? 1 : 0);
	for (i = 0; i < 1000 && (ctl_path_get("kt-0", path, &p) || !p.inflight); i++)
		sleep_ms(10);
	T_CHECK(p.inflight == 1, "there is no flush to be waited for");
	sleep_ms(200);
	T_CHECK(!waitpid(pid, NULL, WNOHANG), "it is not waited for");
	return pid;
}

static void kill_ender(pid_t pid, const char *path, enum iovm_path_state state)
{
	struct iovm_path_info p;
	int status, r;

	kill(pid, SIGKILL);
	T_CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "who was killed: status %x", status);
	r = ctl_path_get("kt-0", path, &p);
	T_CHECK(!r && p.state == state && p.inflight == 1, "%s, state %u, %llu in flight", strerror(-r), p.state,
		(unsigned long long)p.inflight);
}

static void kill_destroyer(const char *path)
{
	kill_ender(ender(path, true), path, IOVM_PATH_LIVE);
}

/* A server that does not answer: whoever waits for it can be killed. */
static void remove_is_killed(void)
{
	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 60000);
	fix_close(0);
	srv.hold = true;
	kill_ender(ender("n", false), "n", IOVM_PATH_DRAINING);
	srv.hold = false;
	removed("n");
	T_CHECK(gone() == 0, "the removal of the path did not make them stable");
	T_CHECK(srv.flushes == 1, "%llu flushes", (unsigned long long)srv.flushes);
}

/* And the device is as it was. */
static void destroy_is_killed(void)
{
	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 60000);
	fix_close(0);
	srv.hold = true;
	kill_destroyer("n");
	/* the flush goes on, and another destroyer waits for that one */
	kill_destroyer("n");
	srv.hold = false;
	destroyed(0, 0);
	T_CHECK(gone() == 0, "the end of the device did not make them stable");
	T_CHECK(srv.flushes == 1, "%llu flushes", (unsigned long long)srv.flushes);
}

/* The flush fails when nobody waits for it any more. */
static void told_later(void)
{
	write_to_cache(IOVM_PATH_F_CACHE_SURVIVES, 60000);
	fix_close(0);
	srv.fail_every = 1;
	srv.hold = true;
	kill_destroyer("n");
	srv.hold = false;
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "the flush did not fail");
	destroyed(0, -EIO);
	destroyed(0, 0);
}

static u64 disk_flushes(void)
{
	char file[96];
	u64 n = 0;
	FILE *f;

	snprintf(file, sizeof(file), "/sys/block/%s/stat", fix_store + 5);
	f = fopen(file, "r");
	T_REQUIRE(f && fscanf(f, "%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %llu", (unsigned long long *)&n) == 1,
		  "%s", file);
	fclose(f);
	return n;
}

static void disk_with_cache(void)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true, .cache_mb = 1 };
	int r = nullb_create("iovmtc", &o, fix_store);

	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	create(NULL);
	r = dm_create("iovmt-a", dm_linear(fix_store, SECTORS), a_node);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	taken("a", a_node, 0, NULL);
	write_64();
	fix_close(0);
}

static void disk_is_flushed(void)
{
	u64 before;

	disk_with_cache();
	before = disk_flushes();
	removed("a");
	T_CHECK(disk_flushes() == before + 1, "%llu flushes by the removal", (unsigned long long)(disk_flushes() - before));
	taken("a", a_node, 0, NULL);
	removed("a");
	T_CHECK(disk_flushes() == before + 1, "a path without writes was flushed");
	taken("a", a_node, 0, NULL);
	write_64();
	fix_close(0);
	destroyed(0, 0);
	T_CHECK(disk_flushes() == before + 2, "%llu flushes by the end", (unsigned long long)(disk_flushes() - before - 1));
}

static void hung_disk(void)
{
	u64 before;

	disk_with_cache();
	before = disk_flushes();
	T_REQUIRE(!dm_suspend("iovmt-a", true), "suspend");
	kill_destroyer("a");
	T_CHECK(disk_flushes() == before, "the disk does not hang: this test sees nothing");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "resume");
	destroyed(0, 0);
	T_CHECK(disk_flushes() == before + 1, "%llu flushes", (unsigned long long)(disk_flushes() - before));
}

static const struct ktap_case cases[] = {
	{ "shown", shown },
	{ "unknown", unknown },
	{ "stated", stated },
	{ "nbd", nbd },
	{ "nbd_unknown", nbd_unknown },
	{ "cache_dies", cache_dies },
	{ "cache_declared_wrongly", cache_declared_wrongly },
	{ "cache_flushed", cache_flushed },
	{ "remove_flushes", remove_flushes },
	{ "destroy_flushes", destroy_flushes },
	{ "destroy_by_force", destroy_by_force },
	{ "flush_fails", flush_fails },
	{ "remove_is_killed", remove_is_killed },
	{ "destroy_is_killed", destroy_is_killed },
	{ "told_later", told_later },
	{ "disk_is_flushed", disk_is_flushed },
	{ "hung_disk", hung_disk },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
