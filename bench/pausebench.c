// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long a guest's I/O pauses when its path fails and a remote path stands by.
 *
 *	pausebench error|remove|hang|cut [COUNT [DEPTH]]	prints one JSON object
 *
 * The remote path is NBD over TCP on the loopback, served by this program from the same data. A round: random 4 KiB reads and
 * writes at DEPTH on path a, then its fault:
 *
 *	error	device-mapper's error target	remove	a disk of scsi_debug is pulled
 *	hang	a suspended dm device		cut	path a is NBD too, and its network loses every packet
 *
 * The pause after an error is taken from the events, FIRST_ERROR to FIRST_COMPLETION; what a request waits before it (device-mapper
 * changes its table, the disk's driver is unbound) and behind it is told beside. A hang and a cut make no error, and are
 * noticed by time; there the load has flushes too, and the pause is the longest wait of what may go elsewhere, from when the guest
 * made it to when the guest found it complete:
 *
 *	reads		made before the requests went elsewhere (REROUTED)
 *	new requests	reads and writes made since then
 *	flushes		whenever made
 *
 * What was written before waits for the fence, which is confirmed as soon as the path has failed; of these the time from there on
 * is told. The remote path's own time for one request, measured in this run, is subtracted from all but guest_longest. Then path a
 * is repaired, and it is the route again.
 *
 * A round whose fault did nothing, or whose pause began before it, ends the run: there is no result then.
 */
#include "fix.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MB	32
#define SECTORS	(MB * 2048ull)
#define MAX	1000
#define SEEN	(1u << 18)
#define BIN_MS	10		/* of the histogram of a fault that is found by time; else microseconds that double */

#define IO_TIMEOUT_MS	1000	/* of a path that hangs */
#define DEAD_MS		1000	/* of a path that is cut; as many heartbeats in it as by default */
#define HEARTBEAT_MS	(DEAD_MS / 5)
#define THINK_MS	20	/* between a request and the next in its place, where seconds pass: they cost what is done in them */

struct fault {
	const char *name;		/* on the command line */
	const char *what;		/* that happens to path a */
	unsigned int bound_ms;		/* p99 is to be below */
	unsigned int by_time_ms;	/* no error tells: failed after so long without an answer; 0: an error does */
	void (*make)(void);		/* the device with path a, and the server of the remote one */
	int (*begin)(void);
	int (*fence)(void);		/* by_time: nothing lands any more */
	void (*mend)(void);		/* path a is live again */
};

/* One number a round, ms */
struct series {
	double ms[MAX];
	unsigned int n;
};

/* Found by time: what may go elsewhere, then what may not. After an error: what the guest waits for beside the pause. */
enum { READS, FLUSHES, NEW, FENCED, BEFORE, REST, PARTS };
static const char *const part_name[] = {
	"reads", "flushes", "new requests", "writes, from the fence on",
	"from the fault to the first error", "from the first completion until all have completed that were made before the error",
};

static struct ctl_events ev;
static struct nbdsrv srv, far;		/* of the remote path; of path a, where it is cut */
static char disk[1][64];
static struct series pauses, longest, parts[PARTS];
static struct vload load;
static bool loading;

/* What the load has done; its thread appends */
static struct {
	u32 type;
	u64 begin, end;
} seen[SEEN];
static u64 nr_seen;

static void ended(u32 type, u64 begin_ns, u64 end_ns)
{
	u64 n = nr_seen;

	seen[n % SEEN].type = type;
	seen[n % SEEN].begin = begin_ns;
	seen[n % SEEN].end = end_ns;
	__atomic_store_n(&nr_seen, n + 1, __ATOMIC_RELEASE);
}

static u64 seen_now(void)
{
	return __atomic_load_n(&nr_seen, __ATOMIC_ACQUIRE);
}

static void add(struct series *s, double ms)
{
	s->ms[s->n++] = ms > 0 ? ms : 0;
}

/* --- the faults --- */

static void create(const char *node, u32 flags, u32 fence, u32 io_timeout_ms)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .fence = fence, .io_timeout_ms = io_timeout_ms };
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, "kt-0", SECTORS, 2);
	c.flags = flags;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
	if (!node)
		return;
	r = ctl_path_add_arg("kt-0", "a", node, &a);
	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);
}

/* What path a, if it is a dm device, and the server read and write; without a cache no FLUSH gets to the disk. */
static void store(char node[64], u32 cache_mb)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true, .discard = true, .cache_mb = cache_mb };
	int r = nullb_create("iovmtp", &o, fix_store);

	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	if (!node)
		return;
	r = dm_create("iovmt-a", dm_linear(fix_store, SECTORS), node);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
}

static void error_make(void)
{
	char node[64];

	store(node, 0);
	create(node, 0, 0, 0);
}

static int error_begin(void)
{
	return dm_swap("iovmt-a", dm_error(SECTORS), false);
}

static void dm_mend(void)
{
	int r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);

	T_REQUIRE(!r, "dm: %s", strerror(-r));
	ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
}

static void remove_make(void)
{
	int r = scsi_debug_load(1, MB, 512, "", disk);

	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	/* scsi_debug's disks share one store, but a pulled one cannot be the server's: memory of its own */
	T_REQUIRE(!nbdsrv_init(&srv, NULL, MB * MiB), "server");
	create(disk[0], 0, 0, 0);
}

static int remove_begin(void)
{
	return scsi_remove(disk[0]);
}

static void remove_mend(void)
{
	int r = ctl_path_remove("kt-0", "a", IOVM_PATH_REMOVE_F_FORCE);

	T_REQUIRE(!r, "path remove: %s: %s", strerror(-r), ctl_msg);
	r = scsi_debug_rescan(1, disk);
	T_REQUIRE(!r, "rescan: %s", strerror(-r));
	r = ctl_path_add_bdev("kt-0", "a", disk[0], 0, 0);
	T_REQUIRE(!r, "path add: %s: %s", strerror(-r), ctl_msg);
}

static void hang_make(void)
{
	char node[64];

	store(node, MB);
	create(node, IOVM_DEV_F_BOUNCE_READS, IOVM_FENCE_NONE, IO_TIMEOUT_MS);
}

static int hang_begin(void)
{
	return dm_suspend("iovmt-a", true);
}

/* What hangs ends with an error when it is released. */
static int hang_fence(void)
{
	return dm_load("iovmt-a", dm_error(SECTORS));
}

static void hang_mend(void)
{
	struct iovm_path_info p;
	int r = dm_suspend("iovmt-a", false);

	T_REQUIRE(!r, "resume: %s", strerror(-r));
	/* what the error table has not ended yet would land by the linear one */
	r = ctl_wait_path_idle("kt-0", "a", &p, 10000);
	T_REQUIRE(!r && !p.inflight, "%llu still in flight on a", (unsigned long long)p.inflight);
	dm_mend();
}

static void cut_connect(void)
{
	int r = nbdsrv_attach(&far, "kt-0", "a", 2, true);

	T_REQUIRE(!r, "connect a: %s: %s", strerror(-r), ctl_msg);
}

static void cut_make(void)
{
	const char *why = net_up();
	int r;

	T_REQUIRE(!why, "%s", why);
	store(NULL, 0);
	T_REQUIRE(!nbdsrv_init(&far, fix_store, 0), "server");
	far.pair = net_pair;
	create(NULL, 0, 0, 0);
	r = ctl_path_add_nbd("kt-0", "a", IOVM_PATH_F_CACHE_SURVIVES, IOVM_FENCE_NONE, HEARTBEAT_MS, DEAD_MS);
	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);
	cut_connect();
}

static int cut_begin(void)
{
	static const struct net_shape cut = { .loss_pct = 100 };

	return net_shape(&cut, &cut);
}

/* What the server has taken is done with when this returns. */
static int cut_fence(void)
{
	nbdsrv_kill(&far);
	return 0;
}

static void cut_mend(void)
{
	int r = net_shape(NULL, NULL);

	T_REQUIRE(!r, "net: %s", strerror(-r));
	cut_connect();
}

static const struct fault faults[] = {
	{ "error", "erroring", 10, 0, error_make, error_begin, NULL, dm_mend },
	{ "remove", "removed", 10, 0, remove_make, remove_begin, NULL, remove_mend },
	{ "hang", "hanging", IO_TIMEOUT_MS + 50, IO_TIMEOUT_MS, hang_make, hang_begin, hang_fence, hang_mend },
	/* noticed when the watchdog looks, four times a heartbeat */
	{ "cut", "cut off", DEAD_MS + HEARTBEAT_MS / 4 + 50, DEAD_MS, cut_make, cut_begin, cut_fence, cut_mend },
};

/* --- a round --- */

static int up(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double round_trip_ms(void)
{
	struct iovm_path_stats before, after;
	double t[101];
	unsigned int i;

	T_REQUIRE(!ctl_path_stats("kt-0", "remote", &before), "stats");

	for (i = 0; i < 101; i++) {
		u64 t0 = now_ns();
		int r = vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_IN, SECTORS - 8, 4096);

		T_REQUIRE(r == 0, "remote read: %d", r);
		t[i] = (now_ns() - t0) / 1e6;
	}
	T_REQUIRE(!ctl_path_stats("kt-0", "remote", &after) && after.done[IOVM_OP_READ] >= before.done[IOVM_OP_READ] + 101,
		  "not the remote path's round trip");
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

/* Waits until path a has failed, and fences it; when that was. */
static u64 fence(const struct fault *f, int at)
{
	u64 now;
	int r;

	T_REQUIRE(ctl_events_wait_state(&ev, at, "kt-0", "a", IOVM_PATH_FAILED, 20000) >= 0, "a has not failed");
	r = f->fence();
	T_REQUIRE(!r, "fence: %s", strerror(-r));
	now = now_ns();
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FENCED);
	T_REQUIRE(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	return now;
}

/* Requests made now, on the other queue, since all of the load may wait by now: the longest takes so many ms. */
static double ask(void)
{
	double most = 0, t;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		u64 begin = now_ns();
		int r = vblk_io(&F[0].s, &F[0].d.vqs[1], i & 1 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, SECTORS - 8, 4096);

		T_REQUIRE(!r, "new request: %d", r);
		t = (now_ns() - begin) / 1e6;
		if (t > most)
			most = t;
	}
	return most;
}

/* The first error's pause, in ms: FIRST_COMPLETION is event number @e. With what was before and behind it. */
static double pause_of_error(int at, int e, u64 begun, u64 from, u64 to)
{
	const struct iovm_event *done = &ev.seen[e], *error;
	int k = ctl_events_wait(&ev, at, IOVM_EV_FIRST_ERROR, "kt-0", "a", 0);
	u64 ns, i, last = done->mono_ns;

	T_REQUIRE(k >= 0 && k < e, "the remote path serves, but a has had no error");
	error = &ev.seen[k];
	T_REQUIRE(error->mono_ns >= begun && done->mono_ns - done->value >= begun, "the pause began before the fault");
	add(&parts[BEFORE], (error->mono_ns - begun) / 1e6);
	for (i = from; i < to; i++)
		if (seen[i % SEEN].begin < error->mono_ns && seen[i % SEEN].end > last)
			last = seen[i % SEEN].end;
	add(&parts[REST], (last - done->mono_ns) / 1e6);
	/* the same but for what was between reading the clock and the event */
	ns = done->mono_ns - error->mono_ns;
	return (ns > done->value ? ns : done->value) / 1e6;
}

/* Sorts what ended since @from into the parts; the longest wait of what may go elsewhere, @asked too. */
static double sort_out(const struct fault *f, u64 from, u64 to, u64 begun, u64 rerouted, u64 fenced, double asked, double rtt)
{
	double ms[] = { -1, -1, asked, -1 }, all = -1;
	u64 i;
	int k;

	for (i = from; i < to; i++) {
		u64 begin = seen[i % SEEN].begin, end = seen[i % SEEN].end;
		u32 type = seen[i % SEEN].type;
		double t;

		if (end < begun)
			continue;
		if (type == VIRTIO_BLK_T_FLUSH)
			k = FLUSHES;
		else if (begin > rerouted)
			k = NEW;
		else if (type == VIRTIO_BLK_T_IN)
			k = READS;
		else if (end > fenced)
			k = FENCED;
		else
			continue;
		t = (end - (k == FENCED ? fenced : begin)) / 1e6;
		if (t > ms[k])
			ms[k] = t;
	}
	/* what was made just before the fault waits until the path is suspect, after half of the time */
	T_REQUIRE(rerouted >= begun && ms[READS] >= f->by_time_ms / 4 && ms[FENCED] >= 0,
		  "nothing hung: reads waited for %.1f ms, writes for %.1f ms after the fence", ms[READS], ms[FENCED]);
	for (k = 0; k < (int)ARRAY_SIZE(ms); k++) {
		if (ms[k] < 0)
			continue;
		add(&parts[k], ms[k] - rtt);
		if (k != FENCED && ms[k] > all)
			all = ms[k];
	}
	return all;
}

static void one_round(const struct fault *f, double rtt)
{
	u64 from, to, begun, i, fenced = 0, most = 0;
	double asked = 0;
	int at, e, r;

	ctl_events_poll(&ev, 0);
	at = ev.nr_seen;
	from = seen_now();
	begun = now_ns();
	r = f->begin();
	T_REQUIRE(!r, "fault: %s", strerror(-r));
	if (f->by_time_ms) {
		e = ctl_events_wait(&ev, at, IOVM_EV_REROUTED, "kt-0", "remote", 20000);
		T_REQUIRE(e >= 0, "not rerouted");
		asked = ask();
		fenced = fence(f, at);
	} else {
		e = ctl_events_wait(&ev, at, IOVM_EV_FIRST_COMPLETION, "kt-0", "remote", 20000);
		T_REQUIRE(e >= 0, "no completion on the remote path");
	}
	T_REQUIRE(vload_turnover(&load, 20000), "what was in flight does not go on");
	to = seen_now();
	T_REQUIRE(to - from < SEEN, "too many requests to remember");
	if (f->by_time_ms)
		add(&pauses, sort_out(f, from, to, begun, ev.seen[e].mono_ns, fenced, asked, rtt) - rtt);
	else
		add(&pauses, pause_of_error(at, e, begun, from, to) - rtt);
	for (i = from; i < to; i++)
		if (seen[i % SEEN].end - seen[i % SEEN].begin > most)
			most = seen[i % SEEN].end - seen[i % SEEN].begin;
	add(&longest, most / 1e6);

	f->mend();
	T_REQUIRE(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 20000), "a is not live again");
	switch_to("a");
}

/* --- results --- */

static void print_quantiles(const char *before, const char *name, struct series *s)
{
	qsort(s->ms, s->n, sizeof(s->ms[0]), up);
	printf("%s\"%s\": {\"n\": %u, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"max\": %.3f}", before, name, s->n,
	       s->ms[s->n / 2], s->ms[s->n * 9 / 10], s->ms[s->n * 99 / 100], s->ms[s->n - 1]);
}

/* Sorted by print_quantiles() */
static void print_histogram(const struct fault *f, const struct series *s)
{
	unsigned int i = 0, k, bound, n, first = 1;

	printf(", \"histogram\": {");
	for (k = 0; i < s->n; k++) {
		double limit = f->by_time_ms ? (k + 1) * BIN_MS : (1u << k) / 1e3;

		for (n = 0; i < s->n && s->ms[i] < limit; i++)
			n++;
		bound = f->by_time_ms ? (k + 1) * BIN_MS : 1u << k;
		if (n)
			printf("%s\"<%u %s\": %u", first ? "" : ", ", bound, f->by_time_ms ? "ms" : "us", n);
		first &= !n;
	}
	printf("}");
}

static void print(const struct fault *f, unsigned int depth, double rtt)
{
	bool first = true;
	unsigned int k;

	printf("{\"fault\": \"%s\", \"bound_ms\": %u, \"depth\": %u, \"remote_round_trip_ms\": %.3f", f->what, f->bound_ms, depth,
	       rtt);
	print_quantiles(", ", "pause_ms", &pauses);
	print_quantiles(", ", "guest_longest_ms", &longest);
	printf(", \"parts_ms\": {");
	for (k = 0; k < PARTS; k++) {
		if (!parts[k].n)
			continue;
		print_quantiles(first ? "" : ", ", part_name[k], &parts[k]);
		first = false;
	}
	printf("}");
	print_histogram(f, &pauses);
	printf("}\n");
}

static void measure(const struct fault *f, unsigned int count, unsigned int depth)
{
	struct vload_cfg c = { .depth = depth, .mem_idx = -1, .queues = 1, .max_blocks = 1, .nr = SECTORS / 2, .ended = ended };
	bool same = f->begin != remove_begin;
	unsigned int i;
	double rtt;
	int r;

	f->make();
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

	/* two stores that differ: reads are not compared, since unwritten blocks of a write-only load never are */
	c.write_pct = same ? 50 : 100;
	if (f->by_time_ms) {
		c.flush_pct = 10;
		c.think_ms = THINK_MS;
	}
	r = vload_start(&load, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
	for (i = 0; i < count; i++) {
		T_REQUIRE(vload_progress(&load, 2 * depth, 20000), "round %u: no progress", i);
		one_round(f, rtt);
	}
	vload_stop(&load);
	loading = false;
	T_CHECK(!load.errors && !load.stuck && (!same || !load.mismatches), "guest: %llu errors, %llu lost, %llu wrong",
		(unsigned long long)load.errors, (unsigned long long)load.stuck, (unsigned long long)load.mismatches);
	vload_free(&load);
	T_CHECK(!ev.gap, "event sequence has a gap");
	T_CHECK(!f->by_time_ms || parts[FLUSHES].n >= count / 2, "%u rounds with a flush", parts[FLUSHES].n);
	if (!ktap_failed())
		print(f, depth, rtt);
}

static const struct fault *find(const char *name)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(faults); i++)
		if (name && !strcmp(name, faults[i].name))
			return &faults[i];
	return NULL;
}

int main(int argc, char **argv)
{
	unsigned int count = argc > 2 ? strtoul(argv[2], NULL, 0) : 100, depth = argc > 3 ? strtoul(argv[3], NULL, 0) : 32;
	const struct fault *const f = find(argv[1]);
	const char *why;

	if (!f || !count || count > MAX || !depth) {
		fprintf(stderr, "usage: pausebench error|remove|hang|cut [COUNT [DEPTH]]\n");
		return 1;
	}
	/* read now: where time leaps while nothing runs, a path would be dead before a page is here */
	if (mlockall(MCL_CURRENT))
		perror("mlockall");
	ev.fd = -1;
	why = ctl_setup();
	if (why) {
		fprintf(stderr, "pausebench: %s\n", why);
		return 1;
	}
	if (!setjmp(ktap_env))
		measure(f, count, depth);
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen < 60)
		ctl_events_dump(&ev);
	fflush(stdout);
	/* or the device would not go */
	dm_suspend("iovmt-a", false);
	if (loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		load.abandon = true;
		vload_stop(&load);
	}
	ctl_events_close(&ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	nbdsrv_free(&srv);
	nbdsrv_free(&far);
	net_down();
	fix_cleanup();
	return ktap_failed();
}
