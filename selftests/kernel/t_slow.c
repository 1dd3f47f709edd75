// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Disks that become slow: reported, left if the device is told so, and not mistaken for a load that changes.
 *
 *	                      ┌─ iovmt-a (dm-delay) ─ path a ─┐
 *	null_blk (in memory) ─┤                               ├─ kt-0 ─ queues ─ load
 *	                      └─ iovmt-b, or nbdsrv ─ path b ─┘
 *
 * Also the healthy disk is given a delay: what it takes is then not what the machine under the test happens to take.
 */
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)
#define USUAL_MS 10
#define LEAVE_MS 1500

static struct ctl_events ev;
static struct vload L;
static struct nbdsrv srv;
static char a_node[64], b_node[64];
static bool loading, serving;

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
	ctl_destroy_all("kt-");
	if (serving)
		nbdsrv_free(&srv);
	serving = false;
	fix_cleanup();
}

static void delay(const char *name, u64 ms)
{
	char table[160];
	int r;

	snprintf(table, sizeof(table), "0 %llu delay %s 0 %llu\n", (unsigned long long)SECTORS, fix_store, (unsigned long long)ms);
	r = dm_swap(name, table, true);
	T_REQUIRE(!r, "dm-delay of %llu ms: %s", (unsigned long long)ms, strerror(-r));
}

static void add(const char *path, const char *node)
{
	int r = ctl_path_add_bdev("kt-0", path, node, 0, 0);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
}

static void two(u64 leave_ms, u64 failback_ms)
{
	struct iovm_dev_create c;
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	delay("iovmt-a", USUAL_MS);
	delay("iovmt-b", USUAL_MS);
	ctl_dev_defaults(&c, "kt-0", SECTORS, 2);
	c.leave_slow_after_ms = leave_ms;
	c.failback_after_ms = failback_ms;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
	add("a", a_node);
	fix_open_mem(0, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
}

static void load(struct vload_cfg c)
{
	int r;

	c.mem_idx = -1;
	c.indirect = true;
	r = vload_start(&L, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
}

static void end_load(void)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!ev.gap, "event sequence has a gap");
	T_CHECK(vload_check_node(&L, fix_store) == 0, "wrong data");
	vload_finish(&L, "load");
}

static struct iovm_path_info info(const char *path)
{
	struct iovm_path_info p;
	int r = ctl_path_get("kt-0", path, &p);

	T_REQUIRE(!r, "path %s: %s", path, strerror(-r));
	return p;
}

/* Waits until the mux knows what is usual on a; ms. */
static u64 learned(void)
{
	struct iovm_path_info p;
	unsigned int i;

	for (i = 0; i < 600; i++) {
		p = info("a");
		if (p.usual_ns)
			break;
		sleep_ms(100);
	}
	T_REQUIRE(p.usual_ns, "nothing was learned in a minute; a read takes %llu ns", (unsigned long long)p.lat_ns);
	T_CHECK(p.usual_ns >= USUAL_MS * 500000ull, "%llu ns are usual on a disk that takes %u ms",
		(unsigned long long)p.usual_ns, USUAL_MS);
	T_CHECK(!p.slow, "slow from the beginning");
	return p.usual_ns / 1000000 + 1;
}

/* a takes ten times of what is usual, until it is reported: the event's index. */
static int slow_a(void)
{
	u64 usual = learned();
	struct iovm_path_info p;
	int at;

	delay("iovmt-a", usual * 10);
	at = ctl_events_wait(&ev, 0, IOVM_EV_SLOW, "kt-0", "a", 60000);
	T_REQUIRE(at >= 0, "not reported");
	T_CHECK(ev.seen[at].value >= 4 * ev.seen[at].value2, "%llu ns reported where %llu are usual",
		(unsigned long long)ev.seen[at].value, (unsigned long long)ev.seen[at].value2);
	T_CHECK(ev.seen[at].value >= usual * 5000000, "%llu ns reported on a disk that takes %llu ms",
		(unsigned long long)ev.seen[at].value, (unsigned long long)usual * 10);
	p = info("a");
	T_CHECK(p.slow && p.slow_ms, "path_info does not say so");
	return at;
}

static void reported(void)
{
	struct iovm_dev_info d;
	int over;

	two(0, 0);
	add("b", b_node);
	T_CHECK(!ctl_dev_get("kt-0", &d) && d.slow_factor == 4 && !d.leave_slow_after_ms, "defaults: %u, %llu", d.slow_factor,
		(unsigned long long)d.leave_slow_after_ms);
	load((struct vload_cfg){ .depth = 8 });
	slow_a();
	delay("iovmt-a", USUAL_MS);
	over = ctl_events_wait(&ev, 0, IOVM_EV_SLOW_OVER, "kt-0", "a", 60000);
	T_CHECK(over >= 0, "it is over, and not reported");
	T_CHECK(!info("a").slow, "path_info does not say that it is over");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_SLOW, "kt-0") == 1, "reported more than once");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_REROUTED, "kt-0") == 0, "left, although only to be reported");
	end_load();
}

/* Left for b, which is as it should be; not gone back to; gone back to when it is as it was: the index of that event. */
static int leave_a(void)
{
	int slow, left, to, back, route;

	slow = slow_a();
	left = ctl_events_wait(&ev, slow, IOVM_EV_SLOW_LEFT, "kt-0", "a", 60000);
	T_REQUIRE(left >= 0, "not left");
	T_CHECK(ev.seen[left].mono_ns - ev.seen[slow].mono_ns >= LEAVE_MS * 1000000ull, "left after %llu ms, not %u",
		(unsigned long long)(ev.seen[left].mono_ns - ev.seen[slow].mono_ns) / 1000000, LEAVE_MS);
	T_CHECK(ev.seen[left].value2 && ev.seen[left].value2 * 4 <= ev.seen[left].value, "a heartbeat of %llu ns for %llu",
		(unsigned long long)ev.seen[left].value2, (unsigned long long)ev.seen[left].value);
	to = ctl_events_wait(&ev, left, IOVM_EV_REROUTED, "kt-0", "b", 5000);
	T_REQUIRE(to >= 0, "not rerouted");
	T_CHECK(ctl_events_wait(&ev, to, IOVM_EV_FIRST_COMPLETION, "kt-0", "b", 20000) >= 0, "nothing completes on b");
	T_CHECK(info("a").state == IOVM_PATH_LIVE && info("a").slow, "a is in state %u, slow %u", info("a").state,
		info("a").slow);
	/* automatic failback is due, but a is slow, and answers no better */
	T_CHECK(ctl_events_wait(&ev, to + 1, IOVM_EV_REROUTED, "kt-0", NULL, 5000) < 0, "to and fro");
	T_CHECK(vload_progress(&L, 200, 30000), "no progress on b");
	delay("iovmt-a", 1);
	back = ctl_events_wait(&ev, to, IOVM_EV_SLOW_OVER, "kt-0", "a", 150000);
	T_REQUIRE(back >= 0, "a has recovered, and nobody says so");
	route = ctl_events_wait(&ev, back, IOVM_EV_REROUTED, "kt-0", "a", 10000);
	T_REQUIRE(route >= 0, "no automatic failback");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_FIRST_ERROR, "kt-0") == 0, "an error");
	return route;
}

/* a is slow, and b is better, but the route changed not long ago. @slow: that event. */
static void held_off(int slow)
{
	struct iovm_path_info a, b;

	T_CHECK(ctl_events_wait(&ev, slow, IOVM_EV_SLOW_LEFT, "kt-0", NULL, LEAVE_MS + 6000) < 0, "left although it was changed lately");
	a = info("a");
	b = info("b");
	T_CHECK(a.slow && a.slow_ms > LEAVE_MS && !b.slow && b.rtt_ns && b.rtt_ns * 4 <= a.lat_ns,
		"and nothing else held it: a %u, %llu ns, b %u, %llu ns", a.slow, (unsigned long long)a.lat_ns, b.slow,
		(unsigned long long)b.rtt_ns);
}

static void left_for_bdev(void)
{
	int again;

	two(LEAVE_MS, 1000);
	add("b", b_node);
	load((struct vload_cfg){ .depth = 8, .flush_pct = 2 });
	again = leave_a();
	/* slow again at once: said, and left to it */
	delay("iovmt-a", info("a").usual_ns / 100000);
	again = ctl_events_wait(&ev, again, IOVM_EV_SLOW, "kt-0", "a", 60000);
	T_REQUIRE(again >= 0, "not reported the second time");
	held_off(again);
	end_load();
}

static void left_for_nbd(void)
{
	int r;

	two(LEAVE_MS, 1000);
	r = nbdsrv_init(&srv, fix_store, 0);
	T_REQUIRE(!r, "server: %s", strerror(-r));
	serving = true;
	r = ctl_path_add_nbd("kt-0", "b", 0, 0, 200, 10000);
	T_REQUIRE(!r, "nbd path: %s: %s", strerror(-r), ctl_msg);
	r = nbdsrv_attach(&srv, "kt-0", "b", 1, false);
	T_REQUIRE(!r, "attach: %s: %s", strerror(-r), ctl_msg);
	load((struct vload_cfg){ .depth = 8 });
	leave_a();
	end_load();
}

/* Where the operator put it, it stays for the same time. */
static void chosen_by_hand(void)
{
	two(LEAVE_MS, 0);
	add("b", b_node);
	load((struct vload_cfg){ .depth = 8 });
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0), "failover: %s", ctl_msg);
	held_off(slow_a());
	end_load();
}

/* There is nothing better: b is as slow, b is not live, b is not there. */
static void stays(void)
{
	int slow;

	two(LEAVE_MS, 0);
	load((struct vload_cfg){ .depth = 8 });
	slow = slow_a();
	T_CHECK(ctl_events_wait(&ev, slow, IOVM_EV_SLOW_LEFT, "kt-0", NULL, LEAVE_MS + 3000) < 0, "left for nothing");
	delay("iovmt-b", info("a").lat_ns / 1000000);
	add("b", b_node);
	T_CHECK(ctl_events_wait(&ev, slow, IOVM_EV_SLOW_LEFT, "kt-0", NULL, 5000) < 0, "left for one that is no better");
	T_CHECK(info("b").rtt_ns, "b was not asked");
	T_CHECK(!ctl_path_ctl("kt-0", "b", IOVM_PATH_CTL_FAIL), "fail: %s", ctl_msg);
	delay("iovmt-b", 1);
	T_CHECK(ctl_events_wait(&ev, slow, IOVM_EV_SLOW_LEFT, "kt-0", NULL, 4000) < 0, "left for one that has failed");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_REROUTED, "kt-0") == 0, "rerouted");
	/* and once there is something better, it goes there */
	T_CHECK(!ctl_path_ctl("kt-0", "b", IOVM_PATH_CTL_RETRY), "retry: %s", ctl_msg);
	T_CHECK(ctl_events_wait(&ev, slow, IOVM_EV_SLOW_LEFT, "kt-0", "a", 60000) >= 0, "not left");
	T_CHECK(ctl_events_wait(&ev, slow, IOVM_EV_REROUTED, "kt-0", "b", 5000) >= 0, "not rerouted");
	end_load();
}

/* What a healthy disk has to do varies: no alarm. */
static void healthy(void)
{
	static const struct vload_cfg cfg[] = {
		{ .depth = 1 }, { .depth = 32 }, { .depth = 4, .max_blocks = 64 }, { .depth = 16, .write_pct = 100 },
		{ .depth = 16, .flush_pct = 10 }, { .depth = 1, .max_blocks = 128 }, { .depth = 64, .max_blocks = 1 },
	};
	unsigned int i, round;

	two(LEAVE_MS, 0);
	add("b", b_node);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < ARRAY_SIZE(cfg); i++) {
			load(cfg[i]);
			T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_SLOW, "kt-0", NULL, 2000 + round * 1500) < 0, "slow, load %u", i);
			end_load();
		}
		/* a pause: the next ones come after it */
		T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_SLOW, "kt-0", NULL, 3000) < 0, "slow in a pause");
	}
	T_CHECK(info("a").usual_ns, "nothing was learned");
	T_CHECK(ctl_events_count(&ev, IOVM_EV_REROUTED, "kt-0") == 0, "rerouted");
}

static void settings(void)
{
	struct iovm_dev_info d;

	two(0, 0);
	T_CHECK(ctl_dev_ctl("kt-0", IOVM_DEV_SET_SLOW_FACTOR, NULL, 1) == -EINVAL, "not refused");
	T_CHECK(ctl_msg[0], "no message");
	T_CHECK(ctl_dev_ctl("kt-0", IOVM_DEV_SET_SLOW_FACTOR, NULL, 1001) == -EINVAL, "not refused");
	T_CHECK(ctl_dev_ctl("kt-0", IOVM_DEV_SET_SLOW_FACTOR, NULL, (u64)IOVM_SLOW_OFF + 1) == -EINVAL, "not refused");
	T_CHECK(ctl_dev_ctl("kt-0", IOVM_DEV_SET_LEAVE_SLOW_AFTER, NULL, ~0ull) == -EINVAL, "not refused");
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SET_LEAVE_SLOW_AFTER, NULL, 5000), "leave: %s", ctl_msg);
	load((struct vload_cfg){ .depth = 8 });
	learned();
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SET_SLOW_FACTOR, NULL, IOVM_SLOW_OFF), "off: %s", ctl_msg);
	T_CHECK(!ctl_dev_get("kt-0", &d) && d.slow_factor == IOVM_SLOW_OFF && d.leave_slow_after_ms == 5000, "info");
	T_CHECK(!info("a").usual_ns, "not forgotten");
	delay("iovmt-a", 10 * USUAL_MS);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_SLOW, "kt-0", NULL, 6000) < 0, "reported although it is off");
	T_CHECK(!info("a").lat_ns, "looked at although it is off");
	/* on again: what is so now is usual */
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SET_SLOW_FACTOR, NULL, 0), "on: %s", ctl_msg);
	learned();
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_SLOW, "kt-0", NULL, 5000) < 0, "reported although it is usual");
	end_load();
}

static const struct ktap_case cases[] = {
	{ "settings", settings, .limit_s = 240 },
	{ "reported", reported, .limit_s = 240 },
	{ "left_for_bdev", left_for_bdev, .limit_s = 240 },
	{ "left_for_nbd", left_for_nbd, .limit_s = 240 },
	{ "chosen_by_hand", chosen_by_hand, .limit_s = 240 },
	{ "stays", stays, .limit_s = 240 },
	{ "healthy", healthy, .limit_s = 240 },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
