// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The fault campaign: random faults from a seed, under a load that knows every write (model.h, guest.h).
 *
 *	t_torture				KTAP: some seconds on each bed
 *	t_torture --seed N [--bed NAME] [--block 512|4096] [--queues N] [--faults N] [--seconds N] [--first N]
 *		  [--io-timeout MS] [--bounce] [--record] [--latency US] [--tempo PERCENT] [--kind NAME]... [--json FILE]
 *		  [--stop FILE]
 *	t_torture --socket PATH --image FILE	the load alone, on a vhost-user-blk back end: checks the checker
 *
 * The schedule - which fault, on what, for how long - follows from the seed and the fault's number alone; --first begins with
 * that one. Exit: 0 no breach, 1 breaches, 4 nothing could be run.
 */
#include "hosts.h"
#include "ktap.h"
#include "migrate.h"
#include "net.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SECTORS		(8 * 2048ull)
#define KINDS		64
#define PAUSES		4096
#define CHECK_EVERY	25		/* faults between two looks at the storage */
#define WAIT_MS		60000		/* after which a request that nothing prevents is taken for lost */
#define STOP_EVERY	8		/* faults between two looks for the file that ends the campaign */
#define MAX_ONLY	16

struct campaign {
	enum bed_kind bed;
	u32 block;
	unsigned int queues, depth;
	struct bed_opts opts;
	bool record;
	u64 seed;
	u64 first, faults;		/* faults 0: until the time is up */
	double seconds;			/* 0: until all faults are done */
	const char *stop;		/* or until this file is there */
	const char *only[MAX_ONLY];
	unsigned int nr_only;
};

/* What a campaign does */
enum phase {
	PHASE_SETUP, PHASE_BEGIN, PHASE_HOLD, PHASE_END, PHASE_HEAL, PHASE_MOVE, PHASE_COMMAND, PHASE_SETTLE, PHASE_LOOK, PHASE_FINISH,
	PHASES
};

static const char *const phase_name[PHASES] = {
	"set-up", "begin", "hold", "end", "heal", "migrate", "queues and memory", "settle", "look at storage", "finish",
};

/* What became of a kind */
struct tally {
	const struct fault_kind *kind;
	u64 done, failed, not_here;
	u64 ns;				/* that its faults took, those with another one on top too */
	char why[64];
	unsigned int nr_pauses, nr_waits;
	u32 pause_us[PAUSES];		/* error to the first completion elsewhere */
	u32 wait_us[PAUSES];		/* of the request that waited longest */
	unsigned int nr_stops;
	u32 stop_us[PAUSES];		/* while it was moved the guest stood still, without another fault */
};

static struct tally tally[KINDS];
static unsigned int nr_kinds;
static struct bed bed;
static struct guest guest;
static struct model *model;
static const char *no_net;
static u64 phase_ns[PHASES], phase_from;

/* What has passed since the last call was this. */
static void lap(enum phase what)
{
	u64 now = now_ns();

	phase_ns[what] += now - phase_from;
	phase_from = now;
}

/* --- kinds --- */

static void find_kinds(void)
{
	const struct fault_kind *const all[] = { fault_path_kinds, fault_nbd_kinds, fault_host_kinds, fault_move_kinds };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		const struct fault_kind *k;

		for (k = all[i]; k->name && nr_kinds < KINDS; k++)
			tally[nr_kinds++].kind = k;
	}
}

static bool wanted(const struct campaign *c, const struct fault_kind *k, unsigned int without)
{
	unsigned int i;

	if (!(k->beds & FAULT_B(c->bed)) || k->is & without)
		return false;
	if (k->is & (c->record ? FAULT_NO_RECORD : FAULT_RECORD))
		return false;
	for (i = 0; i < c->nr_only && strcmp(c->only[i], k->name); i++)
		;
	return !c->nr_only || i < c->nr_only;
}

/* By weight; NULL: there is none */
static struct tally *choose_kind(const struct campaign *c, u64 *rnd, unsigned int without)
{
	unsigned int sum = 0, i, at;

	for (i = 0; i < nr_kinds; i++)
		sum += wanted(c, tally[i].kind, without) ? tally[i].kind->weight : 0;
	if (!sum)
		return NULL;
	at = rnd64(rnd) % sum;
	for (i = 0; ; i++) {
		if (!wanted(c, tally[i].kind, without))
			continue;
		if (at < tally[i].kind->weight)
			return &tally[i];
		at -= tally[i].kind->weight;
	}
}

static bool fits(enum fault_on on, const struct bed_path *p)
{
	switch (on) {
	case FAULT_ON_BDEV:
		return !p->nbd;
	case FAULT_ON_NBD:
		return p->nbd && !p->target;
	case FAULT_ON_TARGET:
		return p->target;
	case FAULT_ON_REMOTE:
		return p->nbd;
	default:
		return true;
	}
}

static struct bed_path *choose_path(enum fault_on on, u64 *rnd, const struct bed_path *not)
{
	struct bed_path *fit[BED_PATHS];
	unsigned int i, n = 0;

	for (i = 0; i < bed.nr; i++) {
		struct bed_path *p = &bed.path[i];

		if (p != not && fits(on, p))
			fit[n++] = p;
	}
	return n ? fit[rnd64(rnd) % n] : NULL;
}

/* --- one fault --- */

static void fault_draw(struct fault *f, struct tally *t, u64 nr, u64 *rnd, const struct bed_path *not)
{
	memset(f, 0, sizeof(*f));
	f->b = &bed;
	f->g = &guest;
	f->kind = t->kind;
	f->nr = nr;
	f->rnd = rnd64(rnd);
	if (t->kind->on != FAULT_ON_NONE)
		f->p = choose_path(t->kind->on, rnd, not);
	f->hold_ms = bed_time(&bed, rnd64(rnd) % 60);
}

static bool fault_begin(struct fault *f, struct tally *t, bool route)
{
	int r;

	if (route && f->p)
		ctl_dev_ctl(f->p->dev, IOVM_DEV_FAILOVER, f->p->name, 0);
	model_mark(model, "fault %u: %s %s begins", f->nr, f->kind->name, f->p ? f->p->name : "");
	r = f->kind->begin(f);
	if (!r) {
		t->done++;
	} else if (r == -EOPNOTSUPP) {
		t->not_here++;
		snprintf(t->why, sizeof(t->why), "%s", f->what);
	} else {
		t->failed++;
		snprintf(t->why, sizeof(t->why), "%s", strerror(-r));
		model_mark(model, "fault %u: %s: %s", f->nr, f->kind->name, strerror(-r));
	}
	return !r;
}

static void fault_end(struct fault *f)
{
	int r = f->kind->end ? f->kind->end(f) : 0;

	model_mark(model, "fault %u: %s %s ends%s%s", f->nr, f->kind->name, f->p ? f->p->name : "", r ? ": " : "",
		   r ? strerror(-r) : "");
}

static void hold(unsigned int ms)
{
	u64 end = now_ns() + ms * 1000000ull, now;

	while ((now = now_ns()) < end)
		bed_events(&bed, (end - now) / 1000000 + 1);
}

static void describe(char *to, size_t n, struct fault *f, bool ok)
{
	snprintf(to, n, "%s%s%s%s%s%s", f->kind->name, f->p ? " " : "", f->p ? f->p->name : "", f->what[0] ? ", " : "", f->what,
		 ok ? "" : " (not done)");
}

/* What is in the way of the guest, for the history */
static void explain_stuck(void)
{
	struct iovm_dev_info d;
	unsigned int i;

	if (!ctl_dev_get(bed.dev, &d))
		model_mark(model, "state %u route %u in flight %llu requeued %llu held %llu no space %llu", d.state, d.route_id,
			   (unsigned long long)d.inflight, (unsigned long long)d.requeued, (unsigned long long)d.held,
			   (unsigned long long)d.no_space);
	for (i = 0; i < bed.nr; i++) {
		struct iovm_path_info p;

		if (!ctl_path_get(bed.dev, bed.path[i].name, &p))
			model_mark(model, "path %s state %u for %llu ms in flight %llu held %llu error %d", p.name, p.state,
				   (unsigned long long)p.state_since_ms, (unsigned long long)p.inflight,
				   (unsigned long long)p.held, p.last_error);
	}
	for (i = 0; i < guest.c.queues; i++) {
		struct guest_oldest o = guest.s->oldest[i];

		model_mark(model, "queue %u: %u in flight, the oldest for %.0f ms: type %u sectors %llu+%u", i, o.flying,
			   ((double)now_ns() - (double)o.t0) / 1e6, o.type, (unsigned long long)o.sector, o.nr);
	}
}

static void one_fault(const struct campaign *c, u64 nr)
{
	u64 rnd = c->seed * 0x9e3779b97f4a7c15ull + nr, wait, t0 = now_ns();
	struct tally *t = choose_kind(c, &rnd, 0), *t2 = NULL;
	char a[160], b[160] = "";
	struct fault f, f2;
	bool ok, ok2 = false, route, second_first, settled;
	unsigned int i;
	int r;

	if (rnd64(&rnd) % 2 && t->kind->is & FAULT_SLOW)
		t = choose_kind(c, &rnd, FAULT_SLOW) ?: t;
	fault_draw(&f, t, nr, &rnd, NULL);
	route = rnd64(&rnd) % 4;
	if (rnd64(&rnd) % (t->kind->is & FAULT_MOVES ? 2 : 4) == 0 && !(t->kind->is & FAULT_ALONE)) {
		t2 = choose_kind(c, &rnd, FAULT_ALONE | FAULT_SLOW | (t->kind->is & (FAULT_ERRS | FAULT_MOVES)));
		if (t2) {
			fault_draw(&f2, t2, nr, &rnd, f.p);
			/* of its kind once at a time, and never both on the same path */
			if (t2 == t || (t2->kind->on != FAULT_ON_NONE && !f2.p))
				t2 = NULL;
		}
	}

	bed.nr_pauses = 0;
	__atomic_store_n(&guest.s->max_lat_ns, 0, __ATOMIC_RELAXED);
	ok = fault_begin(&f, t, route);
	lap(PHASE_BEGIN);
	if (t2) {
		hold(f.hold_ms / 2);
		lap(PHASE_HOLD);
		ok2 = fault_begin(&f2, t2, false);
		lap(PHASE_BEGIN);
	}
	hold(f.hold_ms);
	lap(PHASE_HOLD);
	second_first = rnd64(&rnd) % 2;
	if (t2 && second_first)
		fault_end(&f2);
	fault_end(&f);
	lap(PHASE_END);
	if (t2 && !second_first) {
		hold(f2.hold_ms);
		lap(PHASE_HOLD);
		fault_end(&f2);
		lap(PHASE_END);
	}

	if (!guest_alive(&guest))
		model_breach(model, ~0ull, "the front end is dead");
	r = bed_heal(&bed, WAIT_MS);
	if (r) {
		explain_stuck();
		model_breach(model, ~0ull, "a path does not come back: %s", strerror(-r));
	}
	lap(PHASE_HEAL);
	r = migrate_finish(WAIT_MS);
	if (r) {
		explain_stuck();
		model_breach(model, ~0ull, "a migration does not end: %s", strerror(-r));
	}
	hosts_look(&bed);
	lap(PHASE_MOVE);
	r = guest_wait(&guest, WAIT_MS);
	if (r) {
		explain_stuck();
		model_breach(model, ~0ull, "stopping and starting queues, or changing memory: %s", strerror(-r));
	}
	lap(PHASE_COMMAND);
	/* half the time nothing new comes, which could make up for a wake-up that was lost */
	guest_hush(&guest, rnd64(&rnd) % 2);
	settled = guest_turnover(&guest, WAIT_MS);
	guest_hush(&guest, false);
	if (!settled || !guest_progress(&guest, 4 * c->queues, WAIT_MS)) {
		explain_stuck();
		model_breach(model, ~0ull, "requests wait although all paths are live");
	}
	bed_events(&bed, 0);
	wait = __atomic_load_n(&guest.s->max_lat_ns, __ATOMIC_RELAXED);
	if (ok && !t2) {
		/* those of a migration are of another kind */
		if (f.stopped_ns && t->nr_stops < PAUSES)
			t->stop_us[t->nr_stops++] = f.stopped_ns / 1000;
		for (i = 0; i < bed.nr_pauses && t->nr_pauses < PAUSES && !(t->kind->is & FAULT_MOVES); i++)
			t->pause_us[t->nr_pauses++] = bed.pause_ns[i] / 1000;
		if (t->nr_waits < PAUSES)
			t->wait_us[t->nr_waits++] = wait / 1000;
	}
	lap(PHASE_SETTLE);
	t->ns += now_ns() - t0;
	describe(a, sizeof(a), &f, ok);
	if (t2)
		describe(b, sizeof(b), &f2, ok2);
	printf("# fault %llu: %s%s%s; %.0f ms, longest wait %.1f ms\n", (unsigned long long)nr, a, t2 ? " + " : "", b,
	       (now_ns() - t0) / 1e6, wait / 1e6);
	fflush(stdout);
}

/* --- a campaign --- */

/* What has reached the storage while the guest waits */
static void look_at_storage(void)
{
	long bad;
	int r = ctl_dev_ctl(bed.dev, IOVM_DEV_SUSPEND, NULL, 0);

	if (r) {
		model_breach(model, ~0ull, "suspend: %s: %s", strerror(-r), ctl_msg);
		return;
	}
	bad = model_check(model, bed_storage_read, &bed);
	if (bad < 0)
		model_breach(model, ~0ull, "the storage cannot be read: %s", strerror(-bad));
	ctl_dev_ctl(bed.dev, IOVM_DEV_RESUME, NULL, 0);
	lap(PHASE_LOOK);
}

static void clear(void)
{
	/* whatever a broken campaign left must not keep the rest from going */
	if (net_is_up())
		net_shape(NULL, NULL);
	if (guest.s)
		guest_free(&guest);
	bed_free(&bed);
	if (model)
		model_free(model);
	model = NULL;
}

static u64 total_done(void)
{
	u64 n = 0;
	unsigned int i;

	for (i = 0; i < nr_kinds; i++)
		n += tally[i].done;
	return n;
}

/* As they are given by hand */
static void describe_opts(const struct campaign *c, char *to, size_t n)
{
	char ms[32] = "", us[32] = "", pct[32] = "";

	if (c->opts.io_timeout_ms)
		snprintf(ms, sizeof(ms), " --io-timeout %u", c->opts.io_timeout_ms);
	if (c->opts.latency_us)
		snprintf(us, sizeof(us), " --latency %u", c->opts.latency_us);
	if (c->opts.tempo)
		snprintf(pct, sizeof(pct), " --tempo %u", c->opts.tempo);
	snprintf(to, n, " --depth %u%s%s%s%s%s", c->depth, ms, us, pct, c->opts.bounce ? " --bounce" : "",
		 c->record ? " --record" : "");
}

/* Breaches, or a negative errno when it could not even begin. */
static long run(const struct campaign *c, u64 *faults)
{
	struct guest_cfg gc = {
		.dev = { BED_DEV, c->bed == BED_HOSTS ? "kt-1" : NULL }, .queues = c->queues, .ring = 128, .depth = c->depth,
		.block = c->block, .nsect = SECTORS, .seed = c->seed, .serial = "serial-0123456789abc", .record = c->record,
	};
	u64 nr = c->first, before = total_done(), end;
	const char *step = "storage";
	char opts[160];
	struct guest_shared *s;
	long breaches;
	unsigned int i;
	int r;

	model = model_new(c->seed, SECTORS, c->bed == BED_ARRAY);
	if (!model)
		return -ENOMEM;
	memset(phase_ns, 0, sizeof(phase_ns));
	phase_from = now_ns();
	r = bed_make(&bed, c->bed, &c->opts, c->block, c->queues, SECTORS, model);
	if (!r) {
		step = "guest";
		r = guest_init(&guest, model, &gc);
		guest.idle = bed_watch;
		guest.idle_arg = &bed;
		r = r ?: guest_start(&guest);
	}
	if (r) {
		printf("# bed %s, block %u, queues %u: %s: %s: %s\n", bed_name[c->bed], c->block, c->queues, step, strerror(-r),
		       ctl_msg);
		clear();
		return r;
	}
	s = guest.s;
	describe_opts(c, opts, sizeof(opts));
	printf("# seed %llu bed %s block %u queues %u%s, network: %s\n", (unsigned long long)c->seed, bed_name[c->bed], c->block,
	       c->queues, opts, no_net ? no_net : "veth and netem");
	if (!guest_progress(&guest, 50, WAIT_MS))
		model_breach(model, ~0ull, "no progress before the first fault");
	lap(PHASE_SETUP);
	end = c->seconds ? now_ns() + c->seconds * 1e9 : ~0ull;
	while (!model->breaches && (!c->faults || nr < c->first + c->faults) && now_ns() < end) {
		if (c->stop && nr % STOP_EVERY == 0 && !access(c->stop, F_OK))
			break;
		one_fault(c, nr++);
		if (nr % CHECK_EVERY == 0 && !model->breaches)
			look_at_storage();
	}
	if (!model->breaches) {
		look_at_storage();
		r = guest_command(&guest, GUEST_SWEEP, 0, 2 * WAIT_MS);
		if (!r)
			r = guest_quit(&guest, 2 * WAIT_MS);
		if (r)
			model_breach(model, ~0ull, "the end of the load: %s", strerror(-r));
		/* at rest */
		if (!r && model_check(model, bed_storage_read, &bed) < 0)
			model_breach(model, ~0ull, "the storage cannot be read");
	}
	lap(PHASE_FINISH);
	breaches = model->breaches;
	*faults = total_done() - before;
	printf("# %llu faults, %ld breaches; %llu requests (%llu in parts, %llu indirect, %llu not aligned), %llu read, %llu written, "
	       "%llu flushes, %llu discards, %llu zeroes\n", (unsigned long long)*faults, breaches, (unsigned long long)s->ios,
	       (unsigned long long)s->multi, (unsigned long long)s->indirect, (unsigned long long)s->odd,
	       (unsigned long long)s->ops[VIRTIO_BLK_T_IN], (unsigned long long)s->ops[VIRTIO_BLK_T_OUT],
	       (unsigned long long)s->ops[VIRTIO_BLK_T_FLUSH], (unsigned long long)s->ops[VIRTIO_BLK_T_DISCARD],
	       (unsigned long long)s->ops[VIRTIO_BLK_T_WRITE_ZEROES]);
	printf("# %llu sectors compared (%llu mixed), %llu looks at poison, %llu pages looked up in dirty logs, %llu sectors lost with "
	       "caches, %llu pages copied because a dirty log named them\n", (unsigned long long)model->sectors_checked,
	       (unsigned long long)model->mixed, (unsigned long long)s->poison_looks, (unsigned long long)s->log_pages,
	       (unsigned long long)bed.array.lost, (unsigned long long)s->moved_pages);
	printf("# seconds:");
	for (i = 0; i < PHASES; i++)
		printf(" %s %.1f%s", phase_name[i], phase_ns[i] / 1e9, i + 1 < PHASES ? "," : "\n");
	if (breaches)
		printf("# to see it again: t_torture --seed %llu --bed %s --block %u --queues %u%s --faults %llu\n",
		       (unsigned long long)c->seed, bed_name[c->bed], c->block, c->queues, opts, (unsigned long long)nr);
	fflush(stdout);
	clear();
	return breaches;
}

static int image_read(void *file, void *buf, size_t len, u64 off)
{
	return stor_pread(file, buf, len, off);
}

/* The load on somebody else's back end, which is taken to be right, so that a breach is the checker's fault. */
static long run_socket(const struct campaign *c, const char *socket, const char *image)
{
	struct guest_cfg gc = {
		.socket = socket, .queues = c->queues, .ring = 128, .depth = c->depth, .block = c->block, .nsect = SECTORS,
		.seed = c->seed,
	};
	long breaches;
	int r;

	model = model_new(c->seed, SECTORS, false);
	r = model ? guest_init(&guest, model, &gc) ?: guest_start(&guest) : -ENOMEM;
	if (r) {
		printf("# %s: %s\n", socket, strerror(-r));
		return r;
	}
	sleep_ms(c->seconds * 1000);
	r = guest_command(&guest, GUEST_SWEEP, 0, WAIT_MS) ?: guest_quit(&guest, WAIT_MS);
	if (r || model_check(model, image_read, (void *)image) < 0)
		model_breach(model, ~0ull, "the end: %s", strerror(-r));
	breaches = model->breaches;
	printf("# %llu requests, %llu sectors compared (%llu mixed), %llu looks at poison, %ld breaches\n",
	       (unsigned long long)guest.s->ios, (unsigned long long)model->sectors_checked, (unsigned long long)model->mixed,
	       (unsigned long long)guest.s->poison_looks, breaches);
	return breaches;
}

/* --- results --- */

static int by_size(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

static void json_list(FILE *f, const char *name, const u32 *v, unsigned int n)
{
	unsigned int i;

	fprintf(f, ", \"%s\": [", name);
	for (i = 0; i < n; i++)
		fprintf(f, "%s%u", i ? "," : "", v[i]);
	fprintf(f, "]");
}

/* One line, so that the portions of a long campaign can be put one behind the other. */
static void write_json(const char *file, const struct campaign *c, long breaches)
{
	FILE *f = fopen(file, "a");
	struct utsname u;
	unsigned int i;
	bool first = true;

	if (!f) {
		perror(file);
		return;
	}
	uname(&u);
	fprintf(f, "{\"kernel\": \"%s\", \"seed\": %llu, \"bed\": \"%s\", \"block\": %u, \"queues\": %u, \"breaches\": %ld, \"kinds\": {",
		u.release, (unsigned long long)c->seed, bed_name[c->bed], c->block, c->queues, breaches);
	for (i = 0; i < nr_kinds; i++) {
		struct tally *t = &tally[i];

		if (!t->done && !t->failed && !t->not_here)
			continue;
		fprintf(f, "%s\"%s\": {\"done\": %llu, \"failed\": %llu, \"not_here\": %llu, \"why\": \"%s\"", first ? "" : ", ",
			t->kind->name, (unsigned long long)t->done, (unsigned long long)t->failed, (unsigned long long)t->not_here,
			t->why);
		json_list(f, "pause_us", t->pause_us, t->nr_pauses);
		json_list(f, "wait_us", t->wait_us, t->nr_waits);
		json_list(f, "stop_us", t->stop_us, t->nr_stops);
		fprintf(f, "}");
		first = false;
	}
	fprintf(f, "}}\n");
	fclose(f);
}

/* How long the guest stood still when it was moved */
static void print_stops(void)
{
	unsigned int i, n;
	bool first = true;

	for (i = 0; i < nr_kinds; i++) {
		struct tally *t = &tally[i];

		n = t->nr_stops;
		if (!n)
			continue;
		if (first)
			printf("# %-22s %s\n", "the guest was stopped", "p50/p99/max ms (n)");
		first = false;
		qsort(t->stop_us, n, sizeof(u32), by_size);
		printf("# %-22s %7.2f %7.2f %7.2f (%u)\n", t->kind->name, t->stop_us[n / 2] / 1e3, t->stop_us[n - 1 - n / 100] / 1e3,
		       t->stop_us[n - 1] / 1e3, n);
	}
}

static void print_table(void)
{
	unsigned int i;

	printf("# %-22s %6s %6s %6s  %-26s  %-26s\n", "fault", "done", "failed", "ms", "pause p50/p99/max ms (n)",
	       "longest wait p50/p99/max ms");
	for (i = 0; i < nr_kinds; i++) {
		struct tally *t = &tally[i];
		unsigned int n = t->nr_pauses, w = t->nr_waits;

		if (!t->done && !t->failed && !t->not_here)
			continue;
		qsort(t->pause_us, n, sizeof(u32), by_size);
		qsort(t->wait_us, w, sizeof(u32), by_size);
		printf("# %-22s %6llu %6llu %6.0f", t->kind->name, (unsigned long long)t->done, (unsigned long long)t->failed,
		       t->ns / 1e6 / (t->done + t->failed + t->not_here));
		if (n)
			printf("  %7.2f %7.2f %7.2f (%u)", t->pause_us[n / 2] / 1e3, t->pause_us[n - 1 - n / 100] / 1e3,
			       t->pause_us[n - 1] / 1e3, n);
		else
			printf("  %-26s", "-");
		if (w)
			printf("  %7.1f %7.1f %7.1f", t->wait_us[w / 2] / 1e3, t->wait_us[w - 1 - w / 100] / 1e3,
			       t->wait_us[w - 1] / 1e3);
		printf("%s%s\n", t->why[0] ? "  " : "", t->why);
	}
}

/* --- KTAP --- */

static void check_mode(enum bed_kind kind, u32 block, unsigned int queues, unsigned int depth, struct bed_opts opts, bool record)
{
	struct campaign c = {
		.bed = kind, .block = block, .queues = queues, .depth = depth, .seconds = 15, .opts = opts, .record = record,
	};
	/* a migration takes as long as several other faults */
	u64 faults = 0, least = (kind == BED_HOSTS ? 3 : 10) / ktap_slowness();
	const char *seed = getenv("TORTURE_SEED");
	long r;

	c.seed = seed ? strtoull(seed, NULL, 0) : 1;
	r = run(&c, &faults);
	T_CHECK(r >= 0, "the campaign could not begin: %s", strerror(-r));
	T_CHECK(r <= 0, "%ld breaches", r);
	T_CHECK(r < 0 || faults >= (least ?: 1), "only %llu faults", (unsigned long long)faults);
}

static void check(enum bed_kind kind, u32 block, unsigned int queues, unsigned int depth)
{
	check_mode(kind, block, queues, depth, (struct bed_opts){}, false);
}

static void dm_512(void)
{
	check(BED_DM, 512, 2, 16);
}

static void dm_4096(void)
{
	check(BED_DM, 4096, 1, 32);
}

static void scsi_512(void)
{
	check(BED_SCSI, 512, 1, 16);
}

static void scsi_4096(void)
{
	check(BED_SCSI, 4096, 2, 8);
}

static void array_512(void)
{
	check(BED_ARRAY, 512, 16, 4);
}

static void array_fua_512(void)
{
	check(BED_ARRAY_FUA, 512, 2, 16);
}

static void dm_512_hangs(void)
{
	check_mode(BED_DM, 512, 2, 16, (struct bed_opts){ .bounce = true, .io_timeout_ms = 1000 }, false);
}

static void hosts_512(void)
{
	check(BED_HOSTS, 512, 2, 8);
}

static void hosts_4096_record(void)
{
	check_mode(BED_HOSTS, 4096, 1, 16, (struct bed_opts){}, true);
}

static void dm_512_record(void)
{
	check_mode(BED_DM, 512, 2, 16, (struct bed_opts){}, true);
}

static const struct ktap_case cases[] = {
	{ "dm_512", dm_512, .limit_s = 300 },
	{ "dm_4096", dm_4096, .limit_s = 300 },
	{ "scsi_512", scsi_512, .limit_s = 300 },
	{ "scsi_4096", scsi_4096, .limit_s = 300 },
	{ "array_512", array_512, .limit_s = 300 },
	{ "array_fua_512", array_fua_512, .limit_s = 300 },
	{ "hangs_dm_512", dm_512_hangs, .limit_s = 300 },
	{ "record_dm_512", dm_512_record, .limit_s = 300 },
	{ "hosts_512", hosts_512, .limit_s = 300 },
	{ "record_hosts_4096", hosts_4096_record, .limit_s = 300 },
};

static const char *setup(void)
{
	const char *why = ctl_setup();

	find_kinds();
	no_net = why ? why : net_up();
	return why;
}

static void teardown(void)
{
	print_table();
	print_stops();
	net_down();
}

/* --- by hand --- */

static int usage(void)
{
	fprintf(stderr, "usage: t_torture --seed N [--bed dm|scsi|array|array-fua|hosts] [--block 512|4096] [--queues N] [--depth N]\n"
		"       [--io-timeout MS] [--bounce] [--record] [--latency US] [--tempo PERCENT] [--faults N] [--seconds N]\n"
		"       [--first N] [--kind NAME]... [--json FILE] [--stop FILE]\n"
		"       t_torture [CASE...]\n");
	return 2;
}

static int by_hand(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "bed", required_argument, NULL, 'b' },
		{ "block", required_argument, NULL, 'B' }, { "queues", required_argument, NULL, 'q' },
		{ "depth", required_argument, NULL, 'd' }, { "faults", required_argument, NULL, 'f' },
		{ "seconds", required_argument, NULL, 't' }, { "first", required_argument, NULL, 'F' },
		{ "kind", required_argument, NULL, 'k' }, { "json", required_argument, NULL, 'j' },
		{ "io-timeout", required_argument, NULL, 'o' }, { "bounce", no_argument, NULL, 'n' },
		{ "record", no_argument, NULL, 'r' }, { "latency", required_argument, NULL, 'l' },
		{ "tempo", required_argument, NULL, 'T' }, { "stop", required_argument, NULL, 'x' },
		{ "socket", required_argument, NULL, 'S' }, { "image", required_argument, NULL, 'I' }, {},
	};
	struct campaign c = { .block = 512, .queues = 2, .depth = 16, .seed = 1 };
	const char *json = NULL, *socket = NULL, *image = NULL, *why;
	u64 faults = 0;
	long r;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (o) {
		case 's':
			c.seed = strtoull(optarg, NULL, 0);
			break;
		case 'b':
			for (c.bed = 0; c.bed < BED_KINDS && strcmp(optarg, bed_name[c.bed]); c.bed++)
				;
			break;
		case 'B':
			c.block = atoi(optarg);
			break;
		case 'q':
			c.queues = atoi(optarg);
			break;
		case 'd':
			c.depth = atoi(optarg);
			break;
		case 'f':
			c.faults = strtoull(optarg, NULL, 0);
			break;
		case 't':
			c.seconds = atof(optarg);
			break;
		case 'F':
			c.first = strtoull(optarg, NULL, 0);
			break;
		case 'k':
			if (c.nr_only < MAX_ONLY)
				c.only[c.nr_only++] = optarg;
			break;
		case 'j':
			json = optarg;
			break;
		case 'o':
			c.opts.io_timeout_ms = atoi(optarg);
			break;
		case 'n':
			c.opts.bounce = true;
			break;
		case 'r':
			c.record = true;
			break;
		case 'l':
			c.opts.latency_us = atoi(optarg);
			break;
		case 'T':
			c.opts.tempo = atoi(optarg);
			break;
		case 'x':
			c.stop = optarg;
			break;
		case 'S':
			socket = optarg;
			break;
		case 'I':
			image = optarg;
			break;
		default:
			return usage();
		}
	}
	if (optind < argc || c.bed == BED_KINDS || (c.block != 512 && c.block != 4096) || !c.queues || c.queues > GUEST_QUEUES ||
	    !c.depth || c.depth > 64)
		return usage();
	if (!c.faults && !c.seconds && !c.stop)
		c.seconds = 60;
	if (socket && image)
		return run_socket(&c, socket, image) ? KTAP_FAIL : KTAP_PASS;
	why = setup();
	if (why) {
		printf("# %s\n", why);
		return KTAP_SKIP;
	}
	r = run(&c, &faults);
	if (json)
		write_json(json, &c, r);
	teardown();
	return r < 0 ? KTAP_SKIP : r ? KTAP_FAIL : KTAP_PASS;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && !strncmp(argv[1], "--", 2))
		return by_hand(argc, argv);
	ktap_set_cleanup(clear);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, teardown);
}
