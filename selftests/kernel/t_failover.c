// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Failures under a verifying load, asserted from events and from what the guest saw.
 *
 *	                      ┌─ iovmt-a ─ path a ─┐
 *	null_blk (in memory) ─┤                    ├─ kt-0 ─ queues ─ load
 *	                      └─ iovmt-b ─ path b ─┘
 *	scsi_debug store ─ sdX, sdY: the same, but a disk can be pulled
 */
#include "fix.h"
#include "one.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)

static struct ctl_events ev;
static struct vload L;
static char a_node[64], b_node[64];
static bool loading;
static pid_t hog;
static cpu_set_t all_cpus;

static void end_hog(void)
{
	if (hog > 0) {
		kill(hog, SIGKILL);
		waitpid(hog, NULL, 0);
		stor_write_file("/proc/sys/kernel/sched_rt_runtime_us", "950000");
	}
	hog = 0;
	sched_setaffinity(0, sizeof(all_cpus), &all_cpus);
}

static void cleanup(void)
{
	end_hog();
	/* what a failed case left suspended must not block the rest */
	dm_suspend("iovmt-a", false);
	dm_suspend("iovmt-b", false);
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	ctl_events_close(&ev);
	fix_cleanup();
}

static void add(const char *path, const char *node)
{
	int r = ctl_path_add_bdev("kt-0", path, node, 0, 0);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
}

static void begin(struct vload_cfg c)
{
	int r;

	fix_open_mem(0, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
	r = ctl_events_open(&ev);
	T_REQUIRE(!r, "events: %s", strerror(-r));
	c.mem_idx = -1;
	c.indirect = true;
	r = vload_start(&L, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
	T_REQUIRE(vload_progress(&L, 100, 20000), "no progress at the start");
}

static void end(const char *node)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!ev.gap, "event sequence has a gap");
	if (node)
		T_CHECK(vload_check_node(&L, node) == 0, "wrong data on %s", node);
	vload_finish(&L, "load");
}

static void two_dm(void)
{
	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	ctl_must_create("kt-0", SECTORS, 2);
	strcpy(F[0].name, "kt-0");
	add("a", a_node);
	add("b", b_node);
}

static char disks[2][64];

static void two_scsi(void)
{
	int r = scsi_debug_load(2, MB, 512, "", disks);

	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	ctl_must_create("kt-0", SECTORS, 2);
	strcpy(F[0].name, "kt-0");
	add("a", disks[0]);
	add("b", disks[1]);
}

/* Both disks pulled; another with the same data comes as path c. */
static void pull_both(void)
{
	T_REQUIRE(!scsi_remove(disks[0]) && !scsi_remove(disks[1]), "remove");
}

static void plug_c(void)
{
	int r = scsi_debug_rescan(1, disks);

	T_REQUIRE(!r, "rescan: %s", strerror(-r));
	add("c", disks[0]);
}

/* Behind a failure of @from: FIRST_ERROR, the path's state, REROUTED to @to, FIRST_COMPLETION, in this order of numbers. */
static int expect_failover(int at, const char *from, const char *to)
{
	int e1, e2, e3, e4;

	e1 = ctl_events_wait(&ev, at, IOVM_EV_FIRST_ERROR, "kt-0", from, 10000);
	if (!T_CHECK(e1 >= 0, "no FIRST_ERROR of %s", from))
		return -1;
	e2 = ctl_events_wait_state(&ev, at, "kt-0", from, IOVM_PATH_FAILED, 10000);
	T_CHECK(e2 >= 0, "%s not failed", from);
	e3 = ctl_events_wait(&ev, e1, IOVM_EV_REROUTED, "kt-0", to, 10000);
	if (!T_CHECK(e3 >= 0, "not rerouted to %s", to))
		return -1;
	e4 = ctl_events_wait(&ev, e3, IOVM_EV_FIRST_COMPLETION, "kt-0", to, 10000);
	if (!T_CHECK(e4 >= 0, "no FIRST_COMPLETION on %s", to))
		return -1;
	T_CHECK(ev.seen[e1].error < 0, "FIRST_ERROR without an error");
	T_CHECK(ev.seen[e4].value >= ev.seen[e3].value, "completion %llu ns behind the error, rerouted %llu",
		(unsigned long long)ev.seen[e4].value, (unsigned long long)ev.seen[e3].value);
	return e4;
}

static void note_pause(int e)
{
	struct iovm_dev_stats s;

	if (e < 0 || ctl_dev_stats("kt-0", &s))
		return;
	ktap_note("first completion %.2f ms behind the first error; longest pause of a request %.2f ms", ev.seen[e].value / 1e6,
		  s.pause_max_ns / 1e6);
}

static void dm_errors(void)
{
	struct iovm_path_info p;
	struct iovm_dev_stats s;
	int e, r;

	two_dm();
	begin((struct vload_cfg){ .flush_pct = 2, .zero_pct = 2 });
	r = dm_swap("iovmt-a", dm_error(SECTORS), false);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	e = expect_failover(0, "a", "b");
	note_pause(e);
	T_CHECK(vload_progress(&L, 300, 20000), "no progress on b");
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.state == IOVM_PATH_FAILED && p.last_error < 0, "a: state %u, error %d", p.state, p.last_error);
	r = ctl_dev_stats("kt-0", &s);
	T_CHECK(!r && s.errors == 0 && s.requeues > 0 && s.reroutes == 1, "errors %llu, requeues %llu, reroutes %llu",
		(unsigned long long)s.errors, (unsigned long long)s.requeues, (unsigned long long)s.reroutes);
	/* it does not come back by itself while it errors */
	sleep_ms(300);
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_FAILED, 0), "an erroring path came back");
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	T_CHECK(r < 0 || !ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 0), "retry of an erroring path: %s", strerror(-r));
	/* repaired: probed, live, failed back to */
	r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	/* the mux's own probe may be under way, or have been */
	T_CHECK((!r || r == -EBUSY) && ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 5000), "retry: %s", strerror(-r));
	e = ev.nr_seen;
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILBACK, NULL, 0);
	T_CHECK(!r, "failback: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(ctl_events_wait(&ev, e, IOVM_EV_REROUTED, "kt-0", "a", 5000) >= 0, "not rerouted back");
	T_CHECK(vload_progress(&L, 200, 20000), "no progress on a");
	end(fix_store);
}

/* A disk is pulled: queue depth 32 and more in flight. */
static void disk_removed(void)
{
	char nodes[2][64];
	int e, r;

	r = scsi_debug_load(2, MB, 512, "", nodes);
	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	ctl_must_create("kt-0", SECTORS, 2);
	strcpy(F[0].name, "kt-0");
	add("a", nodes[0]);
	add("b", nodes[1]);
	begin((struct vload_cfg){ .depth = 32 });
	r = scsi_remove(nodes[0]);
	T_REQUIRE(!r, "remove: %s", strerror(-r));
	T_CHECK(ctl_events_wait_state(&ev, 0, "kt-0", "a", IOVM_PATH_FAILED, 10000) >= 0, "a not failed");
	e = ctl_events_wait(&ev, 0, IOVM_EV_REROUTED, "kt-0", "b", 10000);
	T_CHECK(e >= 0, "not rerouted");
	e = ctl_events_wait(&ev, 0, IOVM_EV_FIRST_COMPLETION, "kt-0", "b", 10000);
	T_CHECK(e >= 0, "no completion on b");
	note_pause(e);
	T_CHECK(vload_progress(&L, 300, 20000), "no progress on b");
	/* the dead path can be removed and another disk takes its place */
	r = ctl_path_remove("kt-0", "a", IOVM_PATH_REMOVE_F_FORCE);
	T_CHECK(!r, "path remove: %s: %s", strerror(-r), ctl_msg);
	r = scsi_debug_rescan(1, nodes);
	T_CHECK(!r, "rescan: %s", strerror(-r));
	add("a", nodes[0]);
	e = ev.nr_seen;
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0);
	T_CHECK(!r && ctl_events_wait(&ev, e, IOVM_EV_REROUTED, "kt-0", "a", 5000) >= 0, "failover by name: %s", strerror(-r));
	T_CHECK(vload_progress(&L, 300, 20000), "no progress on the new disk");
	end(nodes[0]);
}

/* Pulled while idle: the next request must not even see it fail. */
static void removed_idle(void)
{
	char nodes[2][64];
	int r;

	r = scsi_debug_load(2, MB, 512, "", nodes);
	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	fix_create(0, nodes[0], SECTORS, 1);
	add("b", nodes[1]);
	fix_open(0, ALL_FEATURES, 1, 64);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	T_CHECK(vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, 0, 4096) == 0, "write");
	r = scsi_remove(nodes[0]);
	T_REQUIRE(!r, "remove: %s", strerror(-r));
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, 8, 4096);
	T_CHECK(r == 0, "write behind the removal: %d", r);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_REROUTED, "kt-0", "b", 5000) >= 0, "not rerouted");
}

/* Every Nth request on path a fails (SCSI aborts, no retries): failed over and back again and again. */
static void every_nth(void)
{
	char nodes[2][64], path[256];
	unsigned int i, fails = 0;
	int r;

	/* requests with no delay at all are never made to fail */
	r = scsi_debug_load(2, MB, 512, "ndelay=20000", nodes);
	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	snprintf(path, sizeof(path), "for f in /sys/block/%s/device/scsi_disk/*/max_retries; do echo 0 >$f; done",
		 nodes[0] + 5);
	T_REQUIRE(!system(path), "max_retries");
	ctl_must_create("kt-0", SECTORS, 2);
	strcpy(F[0].name, "kt-0");
	add("a", nodes[0]);
	add("b", nodes[1]);
	/* before anything is under way: its store writes a flag that commands read in two steps, and UBSAN sees the first */
	T_REQUIRE(!scsi_debug_param("opts", "0x10"), "scsi_debug parameters");
	begin((struct vload_cfg){ .depth = 16 });
	/* both disks see it: b keeps its retries and is none the wiser */
	T_REQUIRE(!scsi_debug_param("every_nth", "40"), "scsi_debug parameters");
	for (i = 0; i < 15 && !ktap_failed(); i++) {
		int at = ev.nr_seen, e;

		e = ctl_events_wait(&ev, at, IOVM_EV_REROUTED, "kt-0", "b", 10000);
		if (!T_CHECK(e >= 0, "round %u: path a never failed", i))
			break;
		fails++;
		do {
			r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
		} while (!ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 200));
		ctl_dev_ctl("kt-0", IOVM_DEV_FAILBACK, NULL, 0);
	}
	T_CHECK(!scsi_debug_param("every_nth", "0"), "every_nth");
	ktap_note("path a failed %u times", fails);
	T_CHECK(vload_progress(&L, 100, 20000), "no progress");
	end(nodes[1]);
}

/* Bad places on path a, good ones on path b: the errors are the path's, the guest sees none. */
static void bad_ranges(void)
{
	char table[8192];
	unsigned int i, n = 0;
	u64 at = 0;
	int r;

	two_dm();
	for (i = 0; i < 16; i++) {
		u64 len = SECTORS / 16;

		n += snprintf(table + n, sizeof(table) - n, "%llu %llu linear %s %llu\n%llu 8 error\n", (unsigned long long)at,
			      (unsigned long long)len - 8, fix_store, (unsigned long long)at,
			      (unsigned long long)(at + len - 8));
		at += len;
	}
	begin((struct vload_cfg){ .depth = 16 });
	r = dm_swap("iovmt-a", table, false);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	expect_failover(0, "a", "b");
	for (i = 0; i < 10 && !ktap_failed(); i++) {
		int e;

		ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
		ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 1000);
		e = ev.nr_seen;
		ctl_dev_ctl("kt-0", IOVM_DEV_FAILBACK, NULL, 0);
		/* whether it fails again soon is chance; that the guest goes on is not */
		T_CHECK(vload_progress(&L, 100, 20000), "no progress, round %u", i);
		(void)e;
	}
	end(fix_store);
}

/* The same bad place on both paths: then it is the request's error, the guest is told, and a path stays. */
static void medium_error(void)
{
	char table[512];
	struct iovm_dev_info di;
	unsigned int i;
	int r;

	two_dm();
	snprintf(table, sizeof(table), "0 1000 linear %s 0\n1000 8 error\n1008 %llu linear %s 1008", fix_store, SECTORS - 1008,
		 fix_store);
	fix_open(0, ALL_FEATURES, 1, 64);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	for (i = 0; i < 2; i++) {
		r = dm_swap(i ? "iovmt-b" : "iovmt-a", table, false);
		T_REQUIRE(!r, "dm: %s", strerror(-r));
	}
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, 1000, 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "read of the bad sector: %d", r);
	for (i = 0; i < 5; i++) {
		r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, 8 * i, 4096);
		T_CHECK(r == 0, "read of a good sector: %d", r);
	}
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, 1000, 4096);
	T_CHECK(r == VIRTIO_BLK_S_IOERR, "again: %d", r);
	r = ctl_dev_get("kt-0", &di);
	T_CHECK(!r && di.state == IOVM_DEV_ROUTED, "device state %u", di.state);
}

/* Both gone; one back in time: the guest waits and sees no error. */
static void parked_and_back(void)
{
	struct iovm_dev_info di;
	u64 before;
	int r, e;

	two_scsi();
	begin((struct vload_cfg){ .depth = 16 });
	pull_both();
	e = ctl_events_wait(&ev, 0, IOVM_EV_PARKED, "kt-0", NULL, 10000);
	T_CHECK(e >= 0, "no PARKED");
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 1000), "not parked");
	sleep_ms(100);
	before = L.ios;
	sleep_ms(500);
	T_CHECK(L.ios == before, "%llu requests completed while parked", (unsigned long long)(L.ios - before));
	r = ctl_dev_get("kt-0", &di);
	T_CHECK(!r && di.parked_ms > 0 && di.route_id == IOVM_NO_ID, "parked since %llu ms, route %u",
		(unsigned long long)di.parked_ms, di.route_id);
	plug_c();
	T_CHECK(ctl_events_wait(&ev, e, IOVM_EV_REROUTED, "kt-0", "c", 10000) >= 0, "not rerouted");
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	end(disks[0]);
}

/*
 * The same by bare I/O errors of both paths at once: those are no proof that the paths are gone. A request that fails on both is
 * the guest's to know; the others wait and are served.
 */
static void both_error(void)
{
	u64 errors;

	two_dm();
	begin((struct vload_cfg){ .depth = 16, .may_fail = true });
	dm_swap("iovmt-a", dm_error(SECTORS), false);
	dm_swap("iovmt-b", dm_error(SECTORS), false);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_REROUTED, "kt-0", "b", 10000) >= 0, "not rerouted");
	sleep_ms(500);
	dm_swap("iovmt-b", dm_linear(fix_store, SECTORS), false);
	ctl_path_ctl("kt-0", "b", IOVM_PATH_CTL_RETRY);
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	errors = L.errors;
	T_CHECK(vload_progress(&L, 300, 20000) && L.errors == errors, "errors although a path is live");
	ktap_note("%llu requests failed on both", (unsigned long long)errors);
	end(fix_store);
}

/* By itself: a path that answers again is found by the mux's own probing. */
static void probed(void)
{
	int e;

	two_dm();
	begin((struct vload_cfg){ .depth = 16 });
	dm_swap("iovmt-a", dm_error(SECTORS), false);
	expect_failover(0, "a", "b");
	e = ev.nr_seen;
	dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
	T_CHECK(ctl_events_wait_state(&ev, e, "kt-0", "a", IOVM_PATH_LIVE, 30000) >= 0, "never probed");
	end(fix_store);
}

/* Too late: errors from no_path_timeout on, and service again when a path comes. */
static void no_path_timeout(void)
{
	struct iovm_dev_stats s;
	u64 t0, errors;
	int r, e;

	two_scsi();
	r = ctl_dev_ctl("kt-0", IOVM_DEV_SET_NO_PATH_TIMEOUT, NULL, 700);
	T_REQUIRE(!r, "timeout: %s", strerror(-r));
	begin((struct vload_cfg){ .depth = 16, .may_fail = true });
	t0 = now_ns();
	pull_both();
	e = ctl_events_wait(&ev, 0, IOVM_EV_PARKED, "kt-0", NULL, 10000);
	T_CHECK(e >= 0, "no PARKED");
	T_CHECK(L.errors == 0, "errors before the time was up");
	r = ctl_events_wait(&ev, 0, IOVM_EV_TIMEOUT, "kt-0", NULL, 10000);
	T_CHECK(r >= 0, "no TIMEOUT");
	if (e >= 0 && r >= 0) {
		u64 ms = (ev.seen[r].mono_ns - ev.seen[e].mono_ns) / 1000000;

		T_CHECK(ms >= 690 && ms < 4000, "%llu ms between PARKED and TIMEOUT", (unsigned long long)ms);
	}
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_FAILING, 1000), "not failing");
	T_CHECK(vload_progress(&L, 50, 10000), "requests are not failed");
	T_CHECK(L.errors > 0, "no errors");
	e = ev.nr_seen;
	plug_c();
	T_CHECK(ctl_events_wait(&ev, e, IOVM_EV_REROUTED, "kt-0", "c", 10000) >= 0, "not rerouted");
	sleep_ms(200);
	errors = L.errors;
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	T_CHECK(L.errors == errors, "errors although a path is live");
	r = ctl_dev_stats("kt-0", &s);
	T_CHECK(!r && s.fails > 0 && s.parks >= 1, "fails %llu, parks %llu", (unsigned long long)s.fails,
		(unsigned long long)s.parks);
	ktap_note("%llu requests failed, back after %llu ms", (unsigned long long)L.errors,
		  (unsigned long long)((now_ns() - t0) / 1000000));
	end(disks[0]);
}

/* The operator's word ends the wait once. */
static void fail_parked(void)
{
	int r;

	two_scsi();
	begin((struct vload_cfg){ .depth = 16, .may_fail = true });
	pull_both();
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_PARKED, "kt-0", NULL, 10000) >= 0, "no PARKED");
	sleep_ms(200);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0);
	T_CHECK(!r, "fail parked: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_FAIL_PARKED, "kt-0", NULL, 5000) >= 0, "no event");
	sleep_ms(300);
	T_CHECK(L.errors > 0, "nothing was failed");
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 0), "once, not for good");
	/* stopping a queue waits for what is parked: failing it ends the wait */
	ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0);
	plug_c();
	T_CHECK(vload_progress(&L, 200, 20000), "no progress");
	end(disks[0]);
}

static bool on_cpu(pid_t tid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(tid, sizeof(set), &set);
}

/* The thread that serves our queue: one of ours, or before 6.4 the kernel's. */
static pid_t worker(void)
{
	static const char *const dirs[] = { "/proc/self/task", "/proc" };
	char want[32], path[300], comm[32];
	unsigned int i;
	pid_t tid = 0;

	snprintf(want, sizeof(want), "iovm-%d\n", getpid());
	for (i = 0; i < ARRAY_SIZE(dirs) && !tid; i++) {
		DIR *d = opendir(dirs[i]);
		struct dirent *e;

		while (d && !tid && (e = readdir(d))) {
			FILE *f;

			snprintf(path, sizeof(path), "%s/%s/comm", dirs[i], e->d_name);
			f = fopen(path, "r");
			if (f && fgets(comm, sizeof(comm), f) && !strcmp(comm, want))
				tid = atoi(e->d_name);
			if (f)
				fclose(f);
		}
		if (d)
			closedir(d);
	}
	return tid;
}

/* Nothing but interrupts runs on CPU 0 from now on. */
static void hog_cpu0(void)
{
	struct sched_param p = { .sched_priority = 10 };
	int go[2];
	char c;

	stor_write_file("/proc/sys/kernel/sched_rt_runtime_us", "-1");
	T_REQUIRE(!pipe(go), "pipe");
	hog = fork();
	if (!hog) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!on_cpu(0, 0) || sched_setscheduler(0, SCHED_FIFO, &p) || write(go[1], "g", 1) != 1)
			_exit(1);
		for (;;)
			;
	}
	close(go[1]);
	T_REQUIRE(read(go[0], &c, 1) == 1, "no SCHED_FIFO");
	close(go[0]);
}

/*
 * The first half of a read comes back where the rest of its end has to wait for a CPU; the other half failed, finds no
 * route, and is failed by the operator meanwhile. So the first is the last, and what it needs has been let go of.
 */
static void late_part(void)
{
	struct nullb_opts opts = { .size_mb = MB, .completion_nsec = 600000000, .hw_queues = 2 };
	u64 end_ns = now_ns() + 10000000000ull;
	struct iovm_path_info p;
	char slow[64], table[256];
	static struct one o;
	pid_t tid;
	int r;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		ktap_skip("needs two CPUs");
	r = nullb_create("iovmtslow", &opts, slow);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	snprintf(table, sizeof(table), "0 2048 linear %s 0\n2048 %llu error\n", slow, SECTORS - 2048);
	T_REQUIRE(!dm_create("iovmt-a", table, a_node), "dm");
	fix_create(0, a_node, SECTORS, 1);
	fix_open_mem(0, ALL_FEATURES, 1, 128, 48 * MiB, 8 * MiB);
	tid = worker();
	T_REQUIRE(tid && on_cpu(tid, 0) && on_cpu(0, 1), "the worker is %d: %s", tid, strerror(errno));

	one_start(&o, 0, VIRTIO_BLK_T_IN, 0, 2 * MiB, 0x11);
	T_REQUIRE(ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 5000), "not parked");
	ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FAIL);	/* else it is probed */
	T_REQUIRE(on_cpu(tid, 1), "worker: %s", strerror(errno));
	hog_cpu0();
	do {
		sleep_ms(5);
		r = ctl_path_get("kt-0", "a", &p);
	} while (!r && p.inflight && now_ns() < end_ns);
	T_REQUIRE(!r && !p.inflight, "%llu in flight", (unsigned long long)p.inflight);
	/* look for a route once more */
	vq_kick(&F[0].d.vqs[0]);
	sleep_ms(100);
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0), "fail parked: %s", ctl_msg);
	sleep_ms(100);
	T_CHECK(!one_wait(&o, 0), "the first half was not held up");
	end_hog();
	T_CHECK(one_wait(&o, 5000) && one_status(&o) == VIRTIO_BLK_S_IOERR, "%s, status %u", o.done ? "ended" : "not ended",
		one_status(&o));
}

static void hundred_times(void)
{
	unsigned int i;
	struct iovm_dev_stats s;
	int r;

	two_dm();
	begin((struct vload_cfg){ .depth = 16, .flush_pct = 2 });
	for (i = 0; i < 100 && !ktap_failed(); i++) {
		const char *to = i % 2 ? "a" : "b";
		int at = ev.nr_seen;

		r = ctl_dev_ctl("kt-0", i % 2 ? IOVM_DEV_FAILBACK : IOVM_DEV_FAILOVER, NULL, 0);
		T_CHECK(!r, "round %u: %s: %s", i, strerror(-r), ctl_msg);
		T_CHECK(ctl_events_wait(&ev, at, IOVM_EV_REROUTED, "kt-0", to, 5000) >= 0, "round %u: not rerouted", i);
		T_CHECK(vload_progress(&L, 5, 10000), "round %u: no progress", i);
	}
	r = ctl_dev_stats("kt-0", &s);
	T_CHECK(!r && s.reroutes >= 100 && s.errors == 0, "reroutes %llu, errors %llu", (unsigned long long)s.reroutes,
		(unsigned long long)s.errors);
	end(fix_store);
}

/* By errors, not by hand: fifty rounds of fail, repair, fail the other. */
static void fifty_faults(void)
{
	unsigned int i;

	two_dm();
	begin((struct vload_cfg){ .depth = 32 });
	for (i = 0; i < 50 && !ktap_failed(); i++) {
		const char *from = i % 2 ? "b" : "a", *to = i % 2 ? "a" : "b", *dm = i % 2 ? "iovmt-b" : "iovmt-a";
		int at = ev.nr_seen, r;

		r = dm_swap(dm, dm_error(SECTORS), false);
		T_CHECK(!r, "dm: %s", strerror(-r));
		expect_failover(at, from, to);
		/* what failed here must be done before the other path fails: an error of both is the guest's */
		T_CHECK(vload_turnover(&L, 20000), "round %u: requests are stuck", i);
		r = dm_swap(dm, dm_linear(fix_store, SECTORS), false);
		T_CHECK(!r, "dm: %s", strerror(-r));
		ctl_path_ctl("kt-0", from, IOVM_PATH_CTL_RETRY);
		T_CHECK(ctl_wait_path_state("kt-0", from, IOVM_PATH_LIVE, 5000), "round %u: %s is not live again", i, from);
	}
	end(fix_store);
}

/* Automatic failback once the first path has been live long enough. */
static void auto_failback(void)
{
	int at, e, l, r;

	two_dm();
	r = ctl_dev_ctl("kt-0", IOVM_DEV_SET_FAILBACK_AFTER, NULL, 500);
	T_REQUIRE(!r, "failback after: %s", strerror(-r));
	begin((struct vload_cfg){ .depth = 8 });
	dm_swap("iovmt-a", dm_error(SECTORS), false);
	expect_failover(0, "a", "b");
	at = ev.nr_seen;
	dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
	ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	l = ctl_events_wait_state(&ev, at, "kt-0", "a", IOVM_PATH_LIVE, 30000);
	T_CHECK(l >= 0, "a is not live again");
	e = ctl_events_wait(&ev, at, IOVM_EV_REROUTED, "kt-0", "a", 10000);
	T_CHECK(e >= 0, "no failback");
	if (l >= 0 && e >= 0) {
		u64 ms = (ev.seen[e].mono_ns - ev.seen[l].mono_ns) / 1000000;

		T_CHECK(ms >= 490 && ms < 5000, "failback %llu ms behind live", (unsigned long long)ms);
	}
	end(fix_store);
}

static void suspend_resume(void)
{
	struct iovm_dev_info di;
	unsigned int i, settling = 0;
	u64 before;
	int r;

	two_dm();
	begin((struct vload_cfg){ .depth = 32 });
	for (i = 0; i < 20 && !ktap_failed(); i++) {
		r = ctl_dev_ctl("kt-0", IOVM_DEV_SUSPEND, NULL, 0);
		T_CHECK(!r, "suspend: %s: %s", strerror(-r), ctl_msg);
		r = ctl_dev_get("kt-0", &di);
		T_CHECK(!r && di.state == IOVM_DEV_SUSPENDED && di.inflight == 0, "state %u, %llu in flight", di.state,
			(unsigned long long)di.inflight);
		/* the load may still be counting what had ended */
		do {
			before = __atomic_load_n(&L.ios, __ATOMIC_RELAXED);
			sleep_ms(50);
		} while (__atomic_load_n(&L.ios, __ATOMIC_RELAXED) - before > 0 && ++settling < 100);
		sleep_ms(i ? 20 : 300);
		T_CHECK(L.ios == before, "%llu requests completed while suspended", (unsigned long long)(L.ios - before));
		if (i % 3 == 1) {
			r = ctl_dev_ctl("kt-0", i % 2 ? IOVM_DEV_FAILOVER : IOVM_DEV_FAILBACK, NULL, 0);
			T_CHECK(!r, "switch while suspended: %s: %s", strerror(-r), ctl_msg);
		}
		r = ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0);
		T_CHECK(!r, "resume: %s: %s", strerror(-r), ctl_msg);
		T_CHECK(vload_progress(&L, 20, 10000), "round %u: no progress", i);
	}
	T_CHECK(ctl_events_count(&ev, IOVM_EV_SUSPENDED, "kt-0") == i && ctl_events_count(&ev, IOVM_EV_RESUMED, "kt-0") == i,
		"%u suspended, %u resumed, %u rounds", ctl_events_count(&ev, IOVM_EV_SUSPENDED, "kt-0"),
		ctl_events_count(&ev, IOVM_EV_RESUMED, "kt-0"), i);
	end(fix_store);
}

/* Queues stopped and started while the paths change. */
static void restart_meanwhile(void)
{
	unsigned int i, k;
	int r;

	two_dm();
	begin((struct vload_cfg){ .depth = 16 });
	for (i = 0; i < 40 && !ktap_failed(); i++) {
		ctl_dev_ctl("kt-0", i % 2 ? IOVM_DEV_FAILBACK : IOVM_DEV_FAILOVER, NULL, 0);
		for (k = 0; k < 2; k++) {
			struct vq *q = &F[0].d.vqs[k];

			r = vq_stop(q);
			T_CHECK(!r, "stop: %s", strerror(-r));
			T_CHECK(q->base == __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE), "base %u, used %u", q->base,
				q->ring.used->idx);
		}
		r = vdev_start(&F[0].d);
		T_CHECK(!r, "start: %s", strerror(-r));
		T_CHECK(vload_progress(&L, 10, 10000), "no progress");
	}
	end(fix_store);
}

static void paths_come_and_go(void)
{
	unsigned int i;
	int r;

	two_dm();
	begin((struct vload_cfg){ .depth = 16 });
	for (i = 0; i < 30 && !ktap_failed(); i++) {
		const char *go = i % 2 ? "b" : "a", *node = i % 2 ? b_node : a_node;

		r = ctl_path_remove("kt-0", go, i % 4 < 2 ? 0 : IOVM_PATH_REMOVE_F_FORCE);
		T_CHECK(!r, "remove %s: %s: %s", go, strerror(-r), ctl_msg);
		T_CHECK(vload_progress(&L, 10, 10000), "no progress on one path");
		r = ctl_path_add_bdev("kt-0", go, node, 0, 0);
		T_CHECK(!r, "add %s: %s: %s", go, strerror(-r), ctl_msg);
		T_CHECK(vload_progress(&L, 10, 10000), "no progress on two paths");
	}
	end(fix_store);
}

/* The last path is removed: parked; another comes. */
static void last_path_goes(void)
{
	int r;

	two_dm();
	begin((struct vload_cfg){ .depth = 16 });
	r = ctl_path_remove("kt-0", "b", 0);
	T_CHECK(!r, "remove b: %s", strerror(-r));
	r = ctl_path_remove("kt-0", "a", 0);
	T_CHECK(!r, "remove a: %s", strerror(-r));
	T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 5000), "not parked");
	add("c", a_node);
	T_CHECK(vload_progress(&L, 100, 10000), "no progress");
	end(fix_store);
}

/* A dm device that is suspended hangs what is sent to it; nothing may be reissued elsewhere meanwhile. */
static void hung_disk(void)
{
	u64 before;
	int r;

	two_dm();
	begin((struct vload_cfg){ .depth = 16 });
	r = dm_suspend("iovmt-a", true);
	T_REQUIRE(!r, "dm suspend: %s", strerror(-r));
	sleep_ms(200);
	before = L.ios;
	sleep_ms(500);
	/* no error, no proof: what hangs stays where it is */
	T_CHECK(L.ios - before <= 32, "%llu requests completed although the disk hangs", (unsigned long long)(L.ios - before));
	r = dm_suspend("iovmt-a", false);
	T_REQUIRE(!r, "dm resume: %s", strerror(-r));
	T_CHECK(vload_progress(&L, 100, 20000), "no progress behind the hang");
	end(fix_store);
}

static void limits(void)
{
	struct iovm_dev_stats s;
	u64 t0, n0, ms, n;
	int r;

	two_dm();
	r = ctl_dev_ctl("kt-0", IOVM_DEV_SET_IOPS, NULL, 200);
	T_REQUIRE(!r, "iops: %s", strerror(-r));
	fix_open_mem(0, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	r = vload_start(&L, &F[0].d, &(struct vload_cfg){ .depth = 16, .mem_idx = -1 });
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
	sleep_ms(1500);		/* a burst may come first */
	t0 = now_ns();
	n0 = L.ios;
	sleep_ms(2000);
	n = L.ios - n0;
	ms = (now_ns() - t0) / 1000000;
	T_CHECK(n * 1000 / ms > 100 && n * 1000 / ms < 320, "%llu per second where 200 are allowed",
		(unsigned long long)(n * 1000 / ms));
	r = ctl_dev_stats("kt-0", &s);
	T_CHECK(!r && s.throttled > 0, "throttled %llu", (unsigned long long)s.throttled);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_SET_IOPS, NULL, 0);
	T_CHECK(!r, "no limit: %s", strerror(-r));
	T_CHECK(vload_progress(&L, 500, 10000), "no progress without a limit");
	r = ctl_dev_ctl("kt-0", IOVM_DEV_SET_BPS, NULL, 1 << 20);
	T_CHECK(!r, "bps: %s", strerror(-r));
	sleep_ms(1500);
	t0 = now_ns();
	n0 = L.ios;
	sleep_ms(2000);
	n = (L.ios - n0) * 10240;	/* a request has 2.5 blocks on average */
	ms = (now_ns() - t0) / 1000000;
	T_CHECK(n * 1000 / ms > (1 << 19) && n * 1000 / ms < (1 << 21), "about %llu bytes per second where 2^20 are allowed",
		(unsigned long long)(n * 1000 / ms));
	ctl_dev_ctl("kt-0", IOVM_DEV_SET_BPS, NULL, 0);
	end(fix_store);
}

static void resize(void)
{
	u64 v = 0;
	int r, efd;
	struct virtio_blk_config c;
	char node[64];

	/* a device smaller than its disk may not be: so the disk grows */
	fix_store_make(MB, 512);
	r = dm_create("iovmt-a", dm_linear(fix_store, SECTORS / 2), node);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	fix_create(0, node, SECTORS / 2, 1);
	fix_open(0, ALL_FEATURES, 1, 64);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	efd = dup(F[0].d.vqs[0].err);
	T_CHECK(!ioctl(F[0].d.fd, VHOST_VDPA_SET_CONFIG_CALL, &efd), "config call: %s", strerror(errno));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, SECTORS);
	T_CHECK(r < 0 && ctl_msg[0], "resize beyond the disk: %s", strerror(-r));
	r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), true);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, SECTORS);
	T_CHECK(!r, "resize: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_RESIZED, "kt-0", NULL, 5000) >= 0, "no event");
	T_CHECK(read(efd, &v, 8) == 8, "no config call");
	r = F[0].d.tp->get_config(&F[0].d, 0, &c, 60);
	T_CHECK(!r && c.capacity == SECTORS, "capacity %llu", (unsigned long long)c.capacity);
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, SECTORS - 8, 4096);
	T_CHECK(r == 0, "write to the new end: %d", r);
	close(efd);
}

static const struct ktap_case cases[] = {
	{ "dm_errors", dm_errors },
	{ "disk_removed", disk_removed },
	{ "removed_idle", removed_idle },
	{ "every_nth", every_nth },
	{ "bad_ranges", bad_ranges },
	{ "medium_error", medium_error },
	{ "parked_and_back", parked_and_back },
	{ "both_error", both_error },
	{ "probed", probed },
	{ "no_path_timeout", no_path_timeout },
	{ "fail_parked", fail_parked },
	{ "late_part", late_part },
	{ "hundred_times", hundred_times },
	{ "fifty_faults", fifty_faults },
	{ "auto_failback", auto_failback },
	{ "suspend_resume", suspend_resume },
	{ "restart_meanwhile", restart_meanwhile },
	{ "paths_come_and_go", paths_come_and_go },
	{ "last_path_goes", last_path_goes },
	{ "hung_disk", hung_disk },
	{ "limits", limits },
	{ "resize", resize },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	sched_getaffinity(0, sizeof(all_cpus), &all_cpus);
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
