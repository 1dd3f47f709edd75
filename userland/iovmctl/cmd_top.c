// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * top: rates and latencies per path, again and again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "iovmctl.h"

static struct opt_u64 opt_count, opt_interval;
static bool opt_once;

static const struct opt top_opts[] = {
	{ "count", 'n', OPT_NUM, &opt_count, "N", "Exit after N refreshes.", 1, UINT32_MAX },
	{ "once", '1', OPT_FLAG, &opt_once, NULL, "The same as --count 1.", 0, 0 },
	{ "interval", 'i', OPT_TIME, &opt_interval, "TIME", "Time between refreshes. Default 1s.", 100, 3600000 },
	{ 0 }
};

/* One path at one moment */
struct sample {
	struct path_view v;
	struct iovm_path_stats s;
	uint64_t at_ns;
};

struct samples {
	struct sample *v;
	size_t nr, room;
};

/* What is shown of a path: the difference of two samples */
struct row {
	char dev[IOVM_NAME_MAX], path[IOVM_NAME_MAX];
	uint32_t state, routed;
	uint64_t iops, read_bps, write_bps, errors, inflight;
	char p50[24], p99[24];
	uint64_t p50_below, p99_below;
};

#define R(m)	offsetof(struct row, m)
static const struct field row_fields[] = {
	{ "device", "device", F_STR, R(dev), .col = "DEVICE" },
	{ "path", "path", F_STR, R(path), .col = "PATH" },
	{ "state", "state", F_ENUM, R(state), .col = "STATE", .names = path_state_names },
	{ "routed", "routed", F_BOOL32, R(routed), .col = "ROUTED" },
	{ "iops", "IOPS", F_U64, R(iops), .col = "IOPS" },
	{ "read_bytes_per_s", "read/s", F_SIZE, R(read_bps), .col = "READ/S" },
	{ "write_bytes_per_s", "write/s", F_SIZE, R(write_bps), .col = "WRITE/S" },
	{ NULL, "p50", F_STR, R(p50), .col = "P50" },
	{ NULL, "p99", F_STR, R(p99), .col = "P99" },
	{ "p50_below_ns", NULL, F_U64, R(p50_below) },
	{ "p99_below_ns", NULL, F_U64, R(p99_below) },
	{ "inflight", "in flight", F_U64, R(inflight), .col = "INFLIGHT" },
	{ "errors", "errors", F_U64, R(errors), .col = "ERRORS" },
	{ 0 }
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int add_sample(struct samples *all, const struct path_view *v)
{
	struct sample *more, *s;
	int err;

	if (all->nr == all->room) {
		all->room = all->room ? all->room * 2 : 16;
		more = realloc(all->v, all->room * sizeof(*more));
		if (!more)
			return ENOMEM;
		all->v = more;
	}
	s = &all->v[all->nr];
	s->v = *v;
	IOVM_INIT(&s->s);
	strcpy(s->s.dev, v->i.dev);
	strcpy(s->s.name, v->i.name);
	err = mux_ioctl(IOVM_PATH_STATS, &s->s);
	if (err == ENOENT)
		return 0;		/* it has just gone */
	s->at_ns = now_ns();
	all->nr += !err;
	return err;
}

static int sample_dev(struct samples *all, const struct iovm_dev_info *info)
{
	struct path_view paths[IOVM_MAX_PATHS];
	struct dev_view v;
	unsigned int nr, i;
	int err;

	err = load_dev(info, &v, paths, &nr);
	for (i = 0; i < nr && !err; i++)
		err = add_sample(all, &paths[i]);
	return err;
}

static int sample_all(struct samples *all, const char *only)
{
	struct iovm_dev_info info = { .id = 0 };
	int err;

	all->nr = 0;
	if (only) {
		err = get_dev(only, &info);
		if (err)
			return err;
		err = sample_dev(all, &info);
	} else {
		while (!(err = next_dev(&info))) {
			err = sample_dev(all, &info);
			if (err || info.id++ == IOVM_NO_ID - 1)
				break;
		}
		if (err == ENOENT)
			err = 0;
	}
	return err ? mux_fail(err, NULL, NULL, "cannot read the statistics") : EX_DONE;
}

static const struct sample *same_path(const struct samples *all, const struct sample *s)
{
	size_t i;

	for (i = 0; i < all->nr; i++)
		if (all->v[i].v.i.id == s->v.i.id && !strcmp(all->v[i].s.dev, s->s.dev) &&
		    !strcmp(all->v[i].s.name, s->s.name))
			return &all->v[i];
	return NULL;
}

static uint64_t rate(uint64_t n, uint64_t ns)
{
	return ns ? (uint64_t)((unsigned __int128)n * 1000000000 / ns) : 0;
}

static void difference(const struct sample *a, const struct sample *b, struct row *r)
{
	__u64 h[IOVM_HIST_BUCKETS] = { 0 };
	uint64_t ns, done = 0;
	int i, k;

	memset(r, 0, sizeof(*r));
	strcpy(r->dev, b->s.dev);
	strcpy(r->path, b->s.name);
	r->state = b->v.i.state;
	r->routed = b->v.routed;
	r->inflight = b->v.i.inflight;
	if (a) {
		ns = b->at_ns - a->at_ns;
		for (i = 0; i < IOVM_OP_MAX; i++)
			done += b->s.done[i] - a->s.done[i];
		for (k = 0; k < 3; k++)
			for (i = 0; i < IOVM_HIST_BUCKETS; i++)
				h[i] += b->s.lat_ns[k][i] - a->s.lat_ns[k][i];
		r->iops = rate(done, ns);
		r->read_bps = rate(b->s.bytes[IOVM_OP_READ] - a->s.bytes[IOVM_OP_READ], ns);
		r->write_bps = rate(b->s.bytes[IOVM_OP_WRITE] - a->s.bytes[IOVM_OP_WRITE], ns);
		r->errors = b->s.path_errors + b->s.request_errors - a->s.path_errors - a->s.request_errors;
	}
	r->p50_below = hist_below(h, 500);
	r->p99_below = hist_below(h, 990);
	hist_bound(r->p50, sizeof(r->p50), r->p50_below);
	hist_bound(r->p99, sizeof(r->p99), r->p99_below);
	if (r->p50_below == UINT64_MAX)
		r->p50_below = 0;
	if (r->p99_below == UINT64_MAX)
		r->p99_below = 0;
}

static int print_rows(const struct samples *a, const struct samples *b, bool clear)
{
	struct row *rows = calloc(b->nr + 1, sizeof(*rows));
	struct json j;
	size_t i;

	if (!rows)
		return mux_fail(ENOMEM, NULL, NULL, "cannot show the statistics");
	for (i = 0; i < b->nr; i++)
		difference(same_path(a, &b->v[i]), &b->v[i], &rows[i]);
	if (opt_json) {
		json_init(&j, stdout, false);
		fields_json_array(&j, NULL, row_fields, rows, b->nr, sizeof(*rows));
	} else {
		if (clear)
			fputs("\033[H\033[J", stdout);
		fields_table(row_fields, rows, b->nr, sizeof(*rows));
		if (!clear)
			putchar('\n');
	}
	fflush(stdout);
	free(rows);
	return EX_DONE;
}

static int run_top(int argc, char **argv)
{
	uint64_t ms = opt_interval.set ? opt_interval.v : 1000, turns = opt_once ? 1 : opt_count.v, turn;
	bool clear = isatty(STDOUT_FILENO) && !opt_json && turns != 1;
	struct timespec ts = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
	struct samples s[2] = { { NULL, 0, 0 }, { NULL, 0, 0 } };
	char name[IOVM_NAME_MAX];
	int err = EX_DONE;

	if (argc)
		err = take_name(&cmd_top, "device", name, argv[0]);
	if (!err)
		err = mux_open();
	if (!err)
		err = sample_all(&s[0], argc ? name : NULL);
	for (turn = 1; !err; turn++) {
		nanosleep(&ts, NULL);
		err = sample_all(&s[turn & 1], argc ? name : NULL);
		if (!err)
			err = print_rows(&s[!(turn & 1)], &s[turn & 1], clear);
		if (turns && turn == turns)
			break;
	}
	free(s[0].v);
	free(s[1].v);
	return err;
}

const struct cmd cmd_top = {
	.name = "top", .args = "[NAME]", .summary = "Show IOPS, throughput and latency per path, refreshed.",
	.detail =
	"Each refresh shows the interval before it. P50 and P99 are upper bounds, as in 'iovmctl stats'. With --json one\n"
	"array per line; ERRORS are those of the interval.\n",
	.opts = top_opts, .max_args = 1, .run = run_top,
};
