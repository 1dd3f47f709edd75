// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long a guest's I/O pauses when its disk fails and a remote path stands by.
 *
 *	pausebench error|remove [COUNT [DEPTH]]      prints one JSON object
 *
 * The remote path is NBD over TCP on the loopback, served by this program from the same data. A round: random 4 KiB reads and
 * writes at DEPTH on the local path; the path errors (device-mapper's error target) or its disk is pulled (scsi_debug);
 * the pause is taken from the events, FIRST_ERROR to FIRST_COMPLETION, and the remote path's own time for one request, measured in
 * this run, is subtracted. Then the local path is repaired, and it is the route again.
 */
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MB	32
#define SECTORS	(MB * 2048ull)
#define MAX	1000

static struct ctl_events ev;
static struct nbdsrv srv;
static char disk[1][64];
static double pause_ms[MAX], guest_ms[MAX];

static int up(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double round_trip_ms(void)
{
	double t[101];
	unsigned int i;

	for (i = 0; i < 101; i++) {
		u64 t0 = now_ns();
		int r = vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_IN, SECTORS - 8, 4096);

		T_REQUIRE(r == 0, "remote read: %d", r);
		t[i] = (now_ns() - t0) / 1e6;
	}
	qsort(t, 101, sizeof(t[0]), up);
	return t[50];
}

static void switch_to(const char *path)
{
	int at = ev.nr_seen, r;

	ctl_events_poll(&ev, 0);
	at = ev.nr_seen;
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, path, 0);
	T_REQUIRE(!r, "failover to %s: %s: %s", path, strerror(-r), ctl_msg);
	T_REQUIRE(ctl_events_wait(&ev, at, IOVM_EV_FIRST_COMPLETION, "kt-0", path, 10000) >= 0, "no completion on %s", path);
}

static void measure(bool pull, unsigned int count, unsigned int depth)
{
	unsigned int i, k, hist[24] = {};
	char node[64];
	struct vload l;
	double rtt;
	int r;

	if (pull) {
		r = scsi_debug_load(1, MB, 512, "", disk);
		T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
		strcpy(fix_store, disk[0]);
		/* scsi_debug's disks share one store, but a pulled one cannot be the server's: memory of its own */
		T_REQUIRE(!nbdsrv_init(&srv, NULL, MB * MiB), "server");
	} else {
		fix_store_make(MB, 512);
		r = dm_create("iovmt-a", dm_linear(fix_store, SECTORS), node);
		T_REQUIRE(!r, "dm: %s", strerror(-r));
		T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	}
	fix_create(0, pull ? disk[0] : node, SECTORS, 2);
	r = ctl_path_add_nbd("kt-0", "remote", IOVM_PATH_F_CACHE_SURVIVES, 0, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	r = nbdsrv_attach(&srv, "kt-0", "remote", 2, true);
	T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	fix_open(0, ALL_FEATURES, 2, 256);
	T_REQUIRE(!ctl_events_open(&ev), "events");

	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "remote", 0);
	T_REQUIRE(!r, "failover: %s: %s", strerror(-r), ctl_msg);
	rtt = round_trip_ms();
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0);
	T_REQUIRE(!r, "failover: %s: %s", strerror(-r), ctl_msg);

	/* pulled: two stores that differ, so reads are not compared: unwritten blocks of a write-only load never are */
	r = vload_start(&l, &F[0].d, &(struct vload_cfg){ .depth = depth, .mem_idx = -1, .queues = 1, .max_blocks = 1,
							  .nr = SECTORS / 2, .write_pct = pull ? 100 : 50 });
	T_REQUIRE(!r, "load: %s", strerror(-r));
	for (i = 0; i < count && !ktap_failed(); i++) {
		int at, e;

		T_CHECK(vload_progress(&l, 2 * depth, 20000), "no progress");
		ctl_events_poll(&ev, 0);
		at = ev.nr_seen;
		__atomic_store_n(&l.max_lat_ns, 0, __ATOMIC_RELAXED);
		r = pull ? scsi_remove(disk[0]) : dm_swap("iovmt-a", dm_error(SECTORS), false);
		T_CHECK(!r, "fault: %s", strerror(-r));
		e = ctl_events_wait(&ev, at, IOVM_EV_FIRST_COMPLETION, "kt-0", "remote", 20000);
		if (!T_CHECK(e >= 0, "round %u: no completion on the remote path", i))
			break;
		pause_ms[i] = ev.seen[e].value / 1e6 - rtt;
		if (pause_ms[i] < 0)
			pause_ms[i] = 0;
		vload_progress(&l, 2 * depth, 20000);
		guest_ms[i] = l.max_lat_ns / 1e6;
		if (pull) {
			r = ctl_path_remove("kt-0", "a", IOVM_PATH_REMOVE_F_FORCE);
			T_CHECK(!r, "path remove: %s: %s", strerror(-r), ctl_msg);
			r = scsi_debug_rescan(1, disk);
			T_CHECK(!r, "rescan: %s", strerror(-r));
			r = ctl_path_add_bdev("kt-0", "a", disk[0], 0, 0);
			T_CHECK(!r, "path add: %s: %s", strerror(-r), ctl_msg);
		} else {
			dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
			ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
			T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 5000), "a is not live again");
		}
		if (!ktap_failed())
			switch_to("a");
	}
	vload_stop(&l);
	T_CHECK(!l.errors && !l.stuck && (pull || !l.mismatches), "guest: %llu errors, %llu lost, %llu wrong",
		(unsigned long long)l.errors, (unsigned long long)l.stuck, (unsigned long long)l.mismatches);
	vload_free(&l);
	if (!i)
		return;
	for (k = 0; k < i; k++) {
		unsigned int b = 0;

		while (b < 23 && pause_ms[k] * 1000 >= (1u << b))
			b++;
		hist[b]++;
	}
	qsort(pause_ms, i, sizeof(pause_ms[0]), up);
	qsort(guest_ms, i, sizeof(guest_ms[0]), up);
	printf("{\"fault\": \"%s\", \"count\": %u, \"depth\": %u, \"remote_round_trip_ms\": %.3f, \"p50_ms\": %.3f, "
	       "\"p90_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"guest_longest_p50_ms\": %.3f, "
	       "\"guest_longest_max_ms\": %.3f, \"histogram_us\": {", pull ? "removed" : "erroring", i, depth, rtt,
	       pause_ms[i / 2], pause_ms[i * 9 / 10], pause_ms[i * 99 / 100 < i ? i * 99 / 100 : i - 1], pause_ms[i - 1],
	       guest_ms[i / 2], guest_ms[i - 1]);
	for (k = 0, r = 0; k < 24; k++)
		if (hist[k])
			printf("%s\"<%u\": %u", r++ ? ", " : "", 1u << k, hist[k]);
	printf("}}\n");
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 2 ? strtoul(argv[2], NULL, 0) : 100, depth = argc > 3 ? strtoul(argv[3], NULL, 0) : 32;
	const char *why;

	if (argc < 2 || (strcmp(argv[1], "error") && strcmp(argv[1], "remove")) || !count || count > MAX) {
		fprintf(stderr, "usage: pausebench error|remove [COUNT [DEPTH]]\n");
		return 1;
	}
	ev.fd = -1;
	why = ctl_setup();
	if (why) {
		fprintf(stderr, "pausebench: %s\n", why);
		return 1;
	}
	if (!setjmp(ktap_env))
		measure(!strcmp(argv[1], "remove"), count, depth);
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen < 60)
		ctl_events_dump(&ev);
	fflush(stdout);
	ctl_events_close(&ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	nbdsrv_free(&srv);
	fix_cleanup();
	return ktap_failed();
}
