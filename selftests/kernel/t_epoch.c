// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Epochs of a guest's device: nothing is issued without one, and one is given up when nothing can land any more. Those of targets
 * are in t_target.
 *
 *	                      ┌─ iovmt-a ─ path a ─┐                    store, which  ┌─ kt-0
 *	null_blk (in memory) ─┤                    ├─ kt-0      in pair: records its ─┤
 *	                      └─ iovmt-b ─ path b ─┘                       writers    └─ kt-1
 */
#include "fix.h"
#include "one.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)
#define ROUNDS 100		/* of a hand-over */
#define RACES 300

static struct ctl_events ev;
static struct vload L[2];
static bool loading[2];
static char a_node[64], b_node[64];
static struct nbdsrv S[2];
static pid_t giver;

static void cleanup(void)
{
	int i;

	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (giver > 0) {
		kill(giver, SIGKILL);
		waitpid(giver, NULL, 0);
	}
	giver = 0;
	dm_suspend("iovmt-a", false);
	dm_suspend("iovmt-b", false);
	for (i = 0; i < 2; i++) {
		if (!loading[i])
			continue;
		ctl_dev_destroy(F[i].name, IOVM_DESTROY_F_FORCE);
		L[i].abandon = true;
		vload_stop(&L[i]);
		loading[i] = false;
	}
	ctl_events_close(&ev);
	fix_cleanup();
	for (i = 0; i < 2; i++) {
		if (S[i].bytes)
			nbdsrv_free(&S[i]);
		memset(&S[i], 0, sizeof(S[i]));
	}
}

static void create(int i, u32 flags, u64 epoch, u64 no_path_ms)
{
	struct iovm_dev_create c;
	char name[8];
	int r;

	snprintf(name, sizeof(name), "kt-%d", i);
	ctl_dev_defaults(&c, name, SECTORS, 2);
	c.flags = IOVM_DEV_F_EPOCH | flags;
	c.epoch = epoch;
	c.no_path_timeout_ms = no_path_ms;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[i].name, name);
	if (ev.fd < 0)
		T_REQUIRE(!ctl_events_open(&ev), "events");
}

static void add(const char *path, const char *node, u32 io_timeout_ms)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .io_timeout_ms = io_timeout_ms };
	int r = ctl_path_add_arg("kt-0", path, node, &a);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
}

/* kt-0 with path a, which is a null_blk; not open */
static void plain(u64 no_path_ms)
{
	fix_store_make(MB, 512);
	create(0, 0, 0, no_path_ms);
	add("a", fix_store, IOVM_NO_TIMEOUT);
}

static void open_it(int i)
{
	fix_open_mem(i, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
}

static int take(int i, u64 epoch)
{
	return ctl_dev_ctl(F[i].name, IOVM_DEV_EPOCH_TAKE, NULL, epoch);
}

static int give(int i, u64 epoch)
{
	return ctl_dev_ctl(F[i].name, IOVM_DEV_EPOCH_GIVE, NULL, epoch);
}

/* In another process, for what waits. */
static void give_elsewhere(u64 epoch)
{
	giver = fork();
	T_REQUIRE(giver >= 0, "fork");
	if (!giver)
		_exit(-give(0, epoch));
}

/* How that ended: 0 or an errno; -1 it goes on, -2 it was killed. */
static int given(int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	int status;

	do {
		if (waitpid(giver, &status, WNOHANG) == giver) {
			giver = 0;
			return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
		}
		sleep_ms(5);
	} while (now_ns() < end);
	return -1;
}

static bool is(int i, u64 epoch, bool holds)
{
	struct iovm_dev_info d;
	int r = ctl_dev_get(F[i].name, &d);

	return T_CHECK(!r && d.epoch == epoch && !!d.epoch_held == holds && !d.epoch_waits && d.flags & IOVM_DEV_F_EPOCH,
		       "%s: epoch %llu, %sheld%s, not %llu, %sheld", F[i].name, (unsigned long long)d.epoch,
		       d.epoch_held ? "" : "not ", d.epoch_waits ? ", waits" : "", (unsigned long long)epoch, holds ? "" : "not ");
}

static u64 issued(const char *path)
{
	struct iovm_path_stats s;
	unsigned int i;
	u64 n = 0;

	T_REQUIRE(!ctl_path_stats("kt-0", path, &s), "stats");
	for (i = 0; i < IOVM_OP_MAX; i++)
		n += s.issued[i];
	return n;
}

static int event(int at, u32 type, const char *dev, u64 value)
{
	int i = ctl_events_wait(&ev, at, type, dev, NULL, 5000);

	T_CHECK(i >= 0 && ev.seen[i].value == value, "no event %u of %llu", type, (unsigned long long)value);
	return i;
}

/* --- cases --- */

static void parks(void)
{
	struct iovm_dev_info d;
	struct one o[3];
	unsigned int i;
	int e;

	plain(200);
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_NO_EPOCH, 0), "state before the queues start");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_EPOCH_WANTED, "kt-0") == 0, "wanted by nobody");
	open_it(0);
	e = event(0, IOVM_EV_EPOCH_WANTED, "kt-0", 0);
	one_start(&o[0], 0, VIRTIO_BLK_T_IN, 0, 4096, 0);
	one_start(&o[1], 1, VIRTIO_BLK_T_OUT, 8, 4096, 0x33);
	one_start(&o[2], 0, VIRTIO_BLK_T_OUT, 16, 4096, 0x34);
	/* also much longer than the no-path time-out, which is about paths */
	sleep_ms(700);
	for (i = 0; i < 3; i++)
		T_CHECK(!one_wait(&o[i], 5), "request %u ends without an epoch, status %u", i, one_status(&o[i]));
	T_CHECK(issued("a") == 0, "%llu requests issued without an epoch", (unsigned long long)issued("a"));
	T_CHECK(!ctl_dev_get("kt-0", &d) && d.state == IOVM_DEV_NO_EPOCH && d.route_id == IOVM_NO_ID && d.queues_running == 2 &&
		d.parked_ms >= 700, "state %u, parked for %llu ms", d.state, (unsigned long long)d.parked_ms);
	T_CHECK(!take(0, 5), "take: %s", ctl_msg);
	for (i = 0; i < 3; i++)
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == 0, "request %u with an epoch: status %u", i,
			one_status(&o[i]));
	is(0, 5, true);
	event(e, IOVM_EV_EPOCH_TAKEN, "kt-0", 5);
	T_CHECK(ctl_events_count(&ev, IOVM_EV_EPOCH_WANTED, "kt-0") == 1, "wanted once for two queues");
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_ROUTED, 0), "state with an epoch");
}

/* The state goes by: suspended, no epoch, no path; and each limit counts from its own beginning. */
static void states(void)
{
	struct one o;
	int r;

	fix_store_make(MB, 512);
	create(0, 0, 0, 700);
	open_it(0);
	one_start(&o, 0, VIRTIO_BLK_T_IN, 0, 4096, 0);
	sleep_ms(1000);
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SUSPEND, NULL, 0) && ctl_wait_dev_state("kt-0", IOVM_DEV_SUSPENDED, 0), "suspended");
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0) && ctl_wait_dev_state("kt-0", IOVM_DEV_NO_EPOCH, 0), "resumed");
	r = take(0, 1);
	T_CHECK(!r && ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 0), "without a path it is parked: %d", r);
	T_CHECK(!one_wait(&o, 300), "the no-path time-out counts from before the epoch");
	T_CHECK(one_wait(&o, 5000) && one_status(&o) == VIRTIO_BLK_S_IOERR, "the no-path time-out does not pass");
	T_CHECK(!vdev_stop(&F[0].d) && !give(0, 1) && ctl_wait_dev_state("kt-0", IOVM_DEV_NO_EPOCH, 0), "given: %s", ctl_msg);
	T_CHECK(!vdev_start(&F[0].d), "start");
	one_start(&o, 0, VIRTIO_BLK_T_IN, 0, 4096, 0);
	T_CHECK(!one_wait(&o, 300), "fails without an epoch");
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0), "fail-parked");
}

static void rules(void)
{
	static const struct {
		u32 op;
		u64 epoch;
		int error;
		u64 has;
		bool holds;
	} t[] = {
		{ IOVM_DEV_EPOCH_GIVE, 1, -ESTALE, 0, false },
		{ IOVM_DEV_EPOCH_GIVE, 0, -EINVAL, 0, false },
		{ IOVM_DEV_EPOCH_TAKE, 0, -EINVAL, 0, false },
		{ IOVM_DEV_EPOCH_TAKE, 5, 0, 5, true },
		{ IOVM_DEV_EPOCH_TAKE, 5, 0, 5, true },
		{ IOVM_DEV_EPOCH_TAKE, 4, -ESTALE, 5, true },
		{ IOVM_DEV_EPOCH_TAKE, 7, 0, 7, true },
		{ IOVM_DEV_EPOCH_GIVE, 5, -ESTALE, 7, true },
		{ IOVM_DEV_EPOCH_GIVE, 8, -ESTALE, 7, true },
		{ IOVM_DEV_EPOCH_GIVE, 7, 0, 7, false },
		{ IOVM_DEV_EPOCH_GIVE, 7, 0, 7, false },
		{ IOVM_DEV_EPOCH_GIVE, 6, -ESTALE, 7, false },
		{ IOVM_DEV_EPOCH_TAKE, 7, -ESTALE, 7, false },
		{ IOVM_DEV_EPOCH_TAKE, 6, -ESTALE, 7, false },
		{ IOVM_DEV_EPOCH_TAKE, 8, 0, 8, true },
		{ IOVM_DEV_EPOCH_TAKE, ~0ull, 0, ~0ull, true },
		{ IOVM_DEV_EPOCH_GIVE, ~0ull, 0, ~0ull, false },
		{ IOVM_DEV_EPOCH_TAKE, ~0ull, -ESTALE, ~0ull, false },
	};
	struct iovm_dev_create c;
	unsigned int i;
	int r;

	plain(0);
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		r = ctl_dev_ctl("kt-0", t[i].op, NULL, t[i].epoch);
		T_CHECK(r == t[i].error && !!ctl_msg[0] == !!r, "step %u: %d, not %d: %s", i, r, t[i].error, ctl_msg);
		is(0, t[i].has, t[i].holds);
	}
	/* what it says names both */
	create(1, 0, 10, 0);
	is(1, 10, false);
	r = take(1, 10);
	T_CHECK(r == -ESTALE && strstr(ctl_msg, "10"), "the one that it had, by its making: %d: %s", r, ctl_msg);
	r = take(1, 9);
	T_CHECK(r == -ESTALE && strstr(ctl_msg, "10") && strstr(ctl_msg, "9"), "an older one: %d: %s", r, ctl_msg);
	T_CHECK(!take(1, 11), "a newer one: %s", ctl_msg);
	r = ctl_dev_ctl("kt-1", IOVM_DEV_EPOCH_TAKE, "a", 12);
	T_CHECK(r == -EINVAL, "with a path: %d", r);
	/* devices that need none */
	ctl_must_create("kt-2", SECTORS, 1);
	strcpy(F[2].name, "kt-2");
	r = take(2, 1);
	T_CHECK(r == -EOPNOTSUPP && ctl_msg[0], "take where none is needed: %d", r);
	r = give(2, 1);
	T_CHECK(r == -EOPNOTSUPP && ctl_msg[0], "give where none is needed: %d", r);
	ctl_dev_defaults(&c, "kt-3", SECTORS, 1);
	c.epoch = 1;
	r = ctl_dev_create(&c);
	T_CHECK(r == -EINVAL && ctl_msg[0], "made with an epoch that it does not need: %d", r);
	r = ctl_dev_ctl("kt-none", IOVM_DEV_EPOCH_TAKE, NULL, 1);
	T_CHECK(r == -ENOENT, "no such device: %d", r);
}

static void busy(void)
{
	struct one o;
	int e, r;

	plain(0);
	T_CHECK(!take(0, 3), "take");
	open_it(0);
	r = give(0, 3);
	T_CHECK(r == -EBUSY && ctl_msg[0], "give while queues run: %d", r);
	T_CHECK(!vq_stop(&F[0].d.vqs[0]), "stop");
	r = give(0, 3);
	T_CHECK(r == -EBUSY, "give while one queue runs: %d", r);
	one_start(&o, 1, VIRTIO_BLK_T_OUT, 0, 4096, 1);
	T_CHECK(one_wait(&o, 5000) && one_status(&o) == 0, "a refused give stops requests");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_EPOCH_WANTED, "kt-0") == 0, "wanted although held");
	T_CHECK(!vdev_stop(&F[0].d), "stop");
	r = give(0, 3);
	T_CHECK(!r, "give: %s", ctl_msg);
	e = event(0, IOVM_EV_EPOCH_GIVEN, "kt-0", 3);
	T_CHECK(!vdev_start(&F[0].d), "start");
	event(e, IOVM_EV_EPOCH_WANTED, "kt-0", 3);
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, 4096, 1);
	T_CHECK(!one_wait(&o, 300), "a queue that starts behind a give does not park");
	T_CHECK(!take(0, 4) && one_wait(&o, 5000) && one_status(&o) == 0, "taken again: %s", ctl_msg);
}

/* What was acknowledged is stable before: the store's cache is emptied. */
static void flushes(void)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true, .cache_mb = 8 };
	struct iovm_path_info p;
	struct one w;

	T_REQUIRE(!nullb_create("iovmt9", &o, a_node), "null_blk");
	create(0, 0, 0, 0);
	add("a", a_node, IOVM_NO_TIMEOUT);
	T_CHECK(!take(0, 1), "take");
	open_it(0);
	one_start(&w, 0, VIRTIO_BLK_T_OUT, 0, 4096, 1);
	T_CHECK(one_wait(&w, 5000) && !one_status(&w), "write");
	T_CHECK(!ctl_path_get("kt-0", "a", &p) && p.unflushed, "nothing is unflushed");
	/* the front end has the node open still */
	T_CHECK(!vdev_stop(&F[0].d) && !give(0, 1), "give: %s", ctl_msg);
	T_CHECK(!ctl_path_get("kt-0", "a", &p) && !p.unflushed && p.state == IOVM_PATH_LIVE, "unflushed writes are left");
}

/* A read that hung on a was taken back and served by b: its queue has stopped, and a has it still. */
static void hung_on_a(void)
{
	struct one o;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	create(0, IOVM_DEV_F_BOUNCE_READS, 0, 0);
	add("a", a_node, 500);
	add("b", b_node, IOVM_NO_TIMEOUT);
	T_CHECK(!take(0, 1), "take");
	open_it(0);
	T_REQUIRE(!dm_suspend("iovmt-a", true), "dm");
	one_start(&o, 0, VIRTIO_BLK_T_IN, 0, 4096, 0);
	T_REQUIRE(one_wait(&o, 10000) && !one_status(&o), "the read is not taken back");
	T_REQUIRE(ctl_wait_path_state("kt-0", "a", IOVM_PATH_FAILED, 5000), "a has not failed");
	T_REQUIRE(!vdev_stop(&F[0].d), "stop");
}

static void waits(void)
{
	struct iovm_dev_info d;
	int r;

	hung_on_a();
	give_elsewhere(1);
	T_CHECK(given(500) == -1, "given although a request hangs");
	T_CHECK(!ctl_dev_get("kt-0", &d) && d.epoch_waits && d.epoch_held && d.state == IOVM_DEV_NO_EPOCH, "it does not show");
	r = give(0, 1);
	T_CHECK(r == -EBUSY, "given twice at a time: %d", r);
	r = take(0, 2);
	T_CHECK(r == -EBUSY, "taken while it is given: %d", r);
	kill(giver, SIGKILL);
	r = given(5000);
	T_CHECK(r == -2, "not to be killed: %d", r);
	is(0, 1, true);
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_ROUTED, 0), "its route is not back");
	give_elsewhere(1);
	T_CHECK(given(300) == -1, "given although a request hangs");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	r = given(5000);
	T_CHECK(r == 0, "not given although nothing hangs: %d", r);
	is(0, 1, false);
}

/* The same, and it never ends; but nothing of it can land any more. */
static void fenced(void)
{
	int r;

	hung_on_a();
	give_elsewhere(1);
	T_CHECK(given(300) == -1, "given although a request hangs");
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s", ctl_msg);
	r = given(5000);
	T_CHECK(r == 0, "not given although the path is fenced: %d", r);
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SET_IOPS, NULL, 0), "it is busy");
	is(0, 1, false);
}

/* Destroyed while it waits; and queues that start: the give has lost. */
static void loses(void)
{
	struct one o;
	int r;

	hung_on_a();
	give_elsewhere(1);
	T_CHECK(given(300) == -1, "given although a request hangs");
	T_CHECK(!vdev_start(&F[0].d), "start");
	r = given(5000);
	T_CHECK(r == EBUSY, "given although queues have started: %d", r);
	is(0, 1, true);
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, 4096, 1);
	T_CHECK(one_wait(&o, 5000) && !one_status(&o), "requests do not go on");
	T_CHECK(!vdev_stop(&F[0].d), "stop");
	give_elsewhere(1);
	T_CHECK(given(300) == -1, "given although a request hangs");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	r = given(5000);
	T_CHECK(!r, "give: %d", r);
}

/* A front end that is killed: what it had issued keeps its queues, and so the epoch. */
static void dies(void)
{
	struct one o;
	unsigned int i;
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	create(0, 0, 0, 0);
	add("a", a_node, IOVM_NO_TIMEOUT);
	T_CHECK(!take(0, 1), "take");
	open_it(0);
	T_REQUIRE(!dm_suspend("iovmt-a", true), "dm");
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, 4096, 0x44);
	sleep_ms(100);
	fix_close(0);
	r = give(0, 1);
	T_CHECK(r == -EBUSY, "given although a dead front end's write is under way: %d", r);
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	for (i = 0; i < 250 && r == -EBUSY; i++) {
		sleep_ms(20);
		r = give(0, 1);
	}
	T_CHECK(!r, "give: %d: %s", r, ctl_msg);
}

static void nbd_path(u32 fence)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .fence = fence, .io_timeout_ms = IOVM_NO_TIMEOUT };
	int r;

	T_REQUIRE(!nbdsrv_init(&S[0], fix_store, 0), "server");
	r = ctl_path_add_nbd_arg("kt-0", "n", &a);
	T_REQUIRE(!r, "path n: %s: %s", strerror(-r), ctl_msg);
	r = nbdsrv_attach(&S[0], "kt-0", "n", 1, true);
	T_REQUIRE(!r, "connect: %s", ctl_msg);
}

/* Sends a write that the server keeps, of a front end that goes without an in-flight record; the connection breaks. */
static void left_in_doubt(void)
{
	struct iovm_path_info p;
	struct iovm_dev_info d;
	unsigned int i;
	struct one o;

	S[0].stash = true;
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, 4096, 0x55);
	sleep_ms(200);
	nbdsrv_kill(&S[0]);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 5000), "n has not failed");
	fix_close(0);
	/* its queues have gone when it was taken from it */
	for (i = 0; i < 250 && !ctl_dev_get("kt-0", &d) && d.in_use; i++)
		sleep_ms(20);
	T_CHECK(!ctl_wait_path_idle("kt-0", "n", &p, 5000) && p.in_doubt && p.unsettled == 1 && !p.held,
		"in doubt %u, unsettled %llu, held %llu", p.in_doubt, (unsigned long long)p.unsettled, (unsigned long long)p.held);
}

static void in_doubt(void)
{
	struct iovm_path_info p;
	int r;

	fix_store_make(MB, 512);
	create(0, 0, 0, 0);
	nbd_path(IOVM_FENCE_NONE);
	T_CHECK(!take(0, 1), "take");
	open_it(0);
	left_in_doubt();
	give_elsewhere(1);
	T_CHECK(given(400) == -1, "given although a write may land, that nobody waits for");
	S[0].stash = false;
	r = nbdsrv_attach(&S[0], "kt-0", "n", 1, true);
	T_CHECK(!r && ctl_wait_path_state("kt-0", "n", IOVM_PATH_LIVE, 5000), "connect: %s", ctl_msg);
	T_CHECK(given(400) == -1, "given although a write may land that came by an earlier connection");
	T_CHECK(!ctl_path_get("kt-0", "n", &p) && p.in_doubt, "in doubt");
	r = ctl_path_remove("kt-0", "n", 0);
	T_CHECK(r == -EBUSY && ctl_msg[0], "what is known of it goes with the path: %d", r);
	T_CHECK(nbdsrv_land(&S[0], false) == 1, "the write was not kept");
	T_CHECK(!ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FAIL) && !ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FENCED), "fence: %s",
		ctl_msg);
	r = given(5000);
	T_CHECK(!r, "not given: %d", r);
	r = ctl_path_remove("kt-0", "n", 0);
	T_CHECK(!r, "remove: %s", ctl_msg);
}

static int connect_drained(u32 flags)
{
	int fd = nbdsrv_connect(&S[0], true), r;

	T_REQUIRE(fd >= 0, "socket");
	r = ctl_path_connect("kt-0", "n", &fd, 1, S[0].bytes, NBDSRV_FLAGS, flags);
	close(fd);
	return r;
}

/* A server that has drained the earlier session: what waits goes on, and nothing is in doubt. */
static void drained(void)
{
	struct iovm_path_info p;
	struct one o;
	int r;

	fix_store_make(MB, 512);
	create(0, 0, 0, 0);
	nbd_path(IOVM_FENCE_EPOCH);
	add("b", fix_store, IOVM_NO_TIMEOUT);
	T_CHECK(!take(0, 1), "take");
	open_it(0);
	S[0].stash = true;
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, 4096, 0x66);
	sleep_ms(200);
	nbdsrv_kill(&S[0]);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 5000), "n has not failed");
	T_CHECK(!one_wait(&o, 300), "issued elsewhere without a fence");
	nbdsrv_land(&S[0], false);
	S[0].stash = false;
	r = connect_drained(IOVM_NBD_F_DRAINED);
	T_CHECK(!r, "connect: %s", ctl_msg);
	T_CHECK(one_wait(&o, 5000) && !one_status(&o), "the write does not go on");
	T_CHECK(!ctl_path_get("kt-0", "n", &p) && !p.in_doubt && p.state == IOVM_PATH_LIVE, "in doubt");
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_FENCED, "kt-0", "n", 1000) >= 0, "no event");
	T_CHECK(!vdev_stop(&F[0].d) && !give(0, 1), "give: %s", ctl_msg);
	/* only where somebody drains */
	T_CHECK(!ctl_path_remove("kt-0", "n", 0), "remove: %s", ctl_msg);
	nbdsrv_free(&S[0]);
	memset(&S[0], 0, sizeof(S[0]));
	nbd_path(IOVM_FENCE_NONE);
	T_CHECK(!ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FAIL), "fail");
	r = connect_drained(IOVM_NBD_F_DRAINED);
	T_CHECK(r == -EINVAL && ctl_msg[0], "drained without such a fence: %d", r);
	r = ctl_path_add_bdev("kt-0", "c", fix_store, 0, IOVM_FENCE_EPOCH);
	T_CHECK(r == -EINVAL && ctl_msg[0], "a disk with such a fence: %d", r);
}

/* --- two hosts, as it were --- */

static volatile int holder;	/* who may write; -1 nobody */
static u64 foreign[2], own[2];	/* writes of each, by the store */

static int store_io(struct nbdsrv *s, u16 type, bool fua, void *buf, u32 len, u64 off)
{
	int me = s - S;

	(void)fua;
	if (type == 1 || type == 4 || type == 6) {	/* WRITE, TRIM, WRITE_ZEROES */
		__atomic_add_fetch(holder == me ? &own[me] : &foreign[me], 1, __ATOMIC_RELAXED);
		/* it lands late */
		usleep(500);
		if (holder != me)
			__atomic_add_fetch(&foreign[me], 1, __ATOMIC_RELAXED);
	}
	if (type == 0)
		return stor_pread(fix_store, buf, len, off) ? 5 : 0;
	if (type == 1)
		return stor_pwrite(fix_store, buf, len, off) ? 5 : 0;
	return 0;
}

static void host(int i)
{
	struct vload_cfg c = { .depth = 8, .mem_idx = -1, .first = i * SECTORS / 2, .nr = SECTORS / 2, .seed = 7 + i,
			       .write_pct = 80, .max_blocks = 2 };
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .io_timeout_ms = IOVM_NO_TIMEOUT };
	int r;

	create(i, 0, 0, 0);
	T_REQUIRE(!nbdsrv_init(&S[i], fix_store, 0), "server");
	S[i].io = store_io;
	r = ctl_path_add_nbd_arg(F[i].name, "n", &a);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	r = nbdsrv_attach(&S[i], F[i].name, "n", 2, true);
	T_REQUIRE(!r, "connect: %s", ctl_msg);
	open_it(i);
	r = vload_start(&L[i], &F[i].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading[i] = true;
}

static void pair(void)
{
	u64 epoch = 0, since;
	int i, round, r;

	fix_store_make(MB, 512);
	holder = -1;
	memset(foreign, 0, sizeof(foreign));
	memset(own, 0, sizeof(own));
	host(0);
	host(1);
	since = now_ns();
	for (round = 0; round <= ROUNDS && !ktap_failed(); round++) {
		i = round % 2;
		holder = i;
		r = take(i, ++epoch);
		T_CHECK(!r, "round %d: take: %s", round, ctl_msg);
		T_CHECK(vload_progress(&L[i], 10, 20000), "round %d: no progress of the holder", round);
		r = give(i, epoch);
		T_CHECK(r == -EBUSY, "round %d: given while queues run: %d", round, r);
		/* its guest stops; and as soon as it has given, it starts again and would write */
		r = vdev_stop(&F[i].d);
		T_CHECK(!r, "round %d: stop: %d", round, r);
		r = give(i, epoch);
		T_CHECK(!r, "round %d: give: %s", round, ctl_msg);
		holder = -1;
		T_CHECK(!vdev_start(&F[i].d), "round %d: start", round);
	}
	ktap_note("%d hand-overs in %llu ms; %llu and %llu writes, %llu and %llu without the epoch", ROUNDS,
		  (unsigned long long)(now_ns() - since) / 1000000, (unsigned long long)own[0], (unsigned long long)own[1],
		  (unsigned long long)foreign[0], (unsigned long long)foreign[1]);
	T_CHECK(own[0] && own[1], "one of them has never written");
	/* both to their end, one after the other */
	for (i = 0; i < 2; i++) {
		holder = i;
		T_CHECK(!take(i, ++epoch), "take: %s", ctl_msg);
		vload_stop(&L[i]);
		loading[i] = false;
		T_CHECK(vload_check_dev(&L[i]) == 0, "wrong data");
		T_CHECK(!vdev_stop(&F[i].d) && !give(i, epoch), "give: %s", ctl_msg);
		holder = -1;
	}
	T_CHECK(!foreign[0] && !foreign[1], "%llu and %llu writes without the epoch", (unsigned long long)foreign[0],
		(unsigned long long)foreign[1]);
	for (i = 0; i < 2; i++)
		vload_finish(&L[i], F[i].name);
}

/* --- queues that start while it is given --- */

static pthread_barrier_t gate;
static u32 start_us, give_us;
static bool racing;

static void *starter(void *arg)
{
	(void)arg;
	for (;;) {
		pthread_barrier_wait(&gate);
		if (!racing)
			return NULL;
		usleep(start_us);
		vdev_start(&F[0].d);
		pthread_barrier_wait(&gate);
	}
}

static void race(void)
{
	/* what a give takes, as found out: the queues start about when it ends */
	u32 span_us = 20000;
	unsigned int won = 0, lost = 0, i;
	u64 epoch = 1, rnd = 1;
	pthread_t thread;
	struct one o;
	int r;

	plain(0);
	T_CHECK(!take(0, epoch), "take");
	open_it(0);
	pthread_barrier_init(&gate, NULL, 2);
	racing = true;
	T_REQUIRE(!pthread_create(&thread, NULL, starter, NULL), "thread");
	for (i = 0; i < RACES && !ktap_failed(); i++) {
		bool ended;

		if (!T_CHECK(!vdev_stop(&F[0].d), "stop"))
			break;
		start_us = span_us / 2 + rnd64(&rnd) % span_us;
		give_us = rnd64(&rnd) % 1000;
		pthread_barrier_wait(&gate);
		usleep(give_us);
		r = give(0, epoch);
		pthread_barrier_wait(&gate);
		T_CHECK(!r || r == -EBUSY, "give: %d: %s", r, ctl_msg);
		is(0, epoch, r);
		one_start(&o, i % 2, VIRTIO_BLK_T_OUT, 0, 4096, i);
		ended = one_wait(&o, r ? 5000 : 20);
		T_CHECK(ended == !!r, "round %u: give %s, and the request %s", i, r ? "lost" : "won", ended ? "ends" : "waits");
		if (r) {
			lost++;
			span_us += span_us / 8;
			continue;
		}
		won++;
		span_us -= span_us / 8;
		T_CHECK(!take(0, ++epoch) && one_wait(&o, 5000), "take: %s", ctl_msg);
	}
	racing = false;
	pthread_barrier_wait(&gate);
	pthread_join(thread, NULL);
	ktap_note("%u gives won, %u lost", won, lost);
	T_CHECK(ktap_failed() || (won > RACES / 10 && lost > RACES / 10), "no race");
}

static const struct ktap_case cases[] = {
	{ "parks", parks },
	{ "states", states },
	{ "rules", rules },
	{ "busy", busy },
	{ "flushes", flushes },
	{ "waits", waits },
	{ "fenced", fenced },
	{ "loses", loses },
	{ "dies", dies },
	{ "in_doubt", in_doubt },
	{ "drained", drained },
	{ "pair", pair, .limit_s = 180 },
	{ "race", race, .limit_s = 120 },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
