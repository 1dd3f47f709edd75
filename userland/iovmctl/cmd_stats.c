// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stats: counters and histograms of a device and its paths.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "iovmctl.h"

static const char *only_path;
static bool no_hist;

static const struct opt stats_opts[] = {
	{ "path", 'p', OPT_STR, &only_path, "PATH", "Only this path.", 0, 0 },
	{ "no-hist", 0, OPT_FLAG, &no_hist, NULL, "Leave out the pictures of the histograms (text only).", 0, 0 },
	{ 0 }
};

static const char *const lat_names[3] = { "read", "write", "other" };

#define D(m)	offsetof(struct iovm_dev_stats, m)
static const struct field dev_stat_fields[] = {
	{ "requests", "requests", F_U64, D(requests) },
	{ "errors", "errors to the guest", F_U64, D(errors) },
	{ "requeues", "requeued", F_U64, D(requeues) },
	{ "retakes", "taken back from a hung path", F_U64, D(retakes) },
	{ "reroutes", "times rerouted", F_U64, D(reroutes) },
	{ "parks", "times without a route", F_U64, D(parks) },
	{ "fails", "failed for want of a path", F_U64, D(fails) },
	{ "throttled", "delayed by a limit", F_U64, D(throttled) },
	{ "pause_max_ns", "longest pause", F_NS, D(pause_max_ns), .zero = "-" },
	{ 0 }
};

#define P(m)	offsetof(struct iovm_path_stats, m)
static const struct field path_stat_fields[] = {
	{ "request_errors", "request errors", F_U64, P(request_errors) },
	{ "path_errors", "path errors", F_U64, P(path_errors) },
	{ "retries", "retries", F_U64, P(retries) },
	{ "media_errors", "medium errors", F_U64, P(media_errors) },
	{ "no_space", "found no space", F_U64, P(no_space) },
	{ "stale_replies", "stale replies", F_U64, P(stale_replies) },
	{ "heartbeats", "heartbeats", F_U64, P(heartbeats) },
	{ 0 }
};

struct op_view {
	char op[16];
	uint64_t issued, done, bytes;
};

#define O(m)	offsetof(struct op_view, m)
static const struct field op_fields[] = {
	{ "op", "op", F_STR, O(op), .col = "OP" },
	{ "issued", "issued", F_U64, O(issued), .col = "ISSUED" },
	{ "done", "done", F_U64, O(done), .col = "DONE" },
	{ "bytes", "bytes", F_SIZE, O(bytes), .col = "BYTES" },
	{ 0 }
};

static unsigned int load_ops(const struct iovm_path_stats *s, struct op_view *ops)
{
	unsigned int i;

	for (i = 0; i < IOVM_OP_MAX && op_names[i]; i++) {
		snprintf(ops[i].op, sizeof(ops[i].op), "%s", op_names[i]);
		ops[i].issued = s->issued[i];
		ops[i].done = s->done[i];
		ops[i].bytes = s->bytes[i];
	}
	return i;
}

static void path_json(struct json *j, const struct path_view *p, const struct iovm_path_stats *s)
{
	struct op_view ops[IOVM_OP_MAX];
	unsigned int nr = load_ops(s, ops), i;

	json_open(j, NULL, '{');
	json_str(j, "name", p->i.name);
	json_str(j, "state", name_of(path_state_names, p->i.state));
	fields_json_array(j, "ops", op_fields, ops, nr, sizeof(*ops));
	fields_json(j, path_stat_fields, s);
	json_open(j, "latency", '{');
	for (i = 0; i < 3; i++)
		hist_json(j, lat_names[i], s->lat_ns[i]);
	json_close(j);
	json_close(j);
}

static void path_text(const struct path_view *p, const struct iovm_path_stats *s)
{
	struct op_view ops[IOVM_OP_MAX];
	unsigned int nr = load_ops(s, ops), i;
	char line[160], title[32];

	printf("\npath %s (%s, %s)\n", p->i.name, name_of(path_state_names, p->i.state) ?: "?", p->i.addr);
	fields_table(op_fields, ops, nr, sizeof(*ops));
	fields_text(path_stat_fields, s, 2);
	for (i = 0; i < 3; i++) {
		if (!no_hist && hist_total(s->lat_ns[i])) {
			snprintf(title, sizeof(title), "%s latency", lat_names[i]);
			hist_text(title, s->lat_ns[i], 2);
			continue;
		}
		hist_line(line, sizeof(line), s->lat_ns[i]);
		printf("  %s latency: %" PRIu64 "  %s\n", lat_names[i], hist_total(s->lat_ns[i]), line);
	}
}

static int get_stats(const char *dev, const char *path, struct iovm_dev_stats *ds, struct iovm_path_stats *ps)
{
	int err;

	if (ds) {
		IOVM_INIT(ds);
		snprintf(ds->name, sizeof(ds->name), "%s", dev);
		err = mux_ioctl(IOVM_DEV_STATS, ds);
		return err ? mux_fail(err, NULL, NULL, "cannot read the statistics of '%s'", dev) : EX_DONE;
	}
	IOVM_INIT(ps);
	snprintf(ps->dev, sizeof(ps->dev), "%s", dev);
	snprintf(ps->name, sizeof(ps->name), "%s", path);
	err = mux_ioctl(IOVM_PATH_STATS, ps);
	return err ? mux_fail(err, NULL, NULL, "cannot read the statistics of path '%s' of '%s'", path, dev) : EX_DONE;
}

static void print_all(const char *name, const struct iovm_dev_stats *ds, const struct path_view *paths,
		      const struct iovm_path_stats *ps, unsigned int nr)
{
	struct json j;
	unsigned int i;

	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "name", name);
		fields_json(&j, dev_stat_fields, ds);
		hist_json(&j, "pause", ds->pause_ns);
		json_open(&j, "paths", '[');
		for (i = 0; i < nr; i++)
			path_json(&j, &paths[i], &ps[i]);
		json_close(&j);
		json_close(&j);
		return;
	}
	printf("device %s\n", name);
	fields_text(dev_stat_fields, ds, 2);
	if (hist_total(ds->pause_ns) && !no_hist) {
		hist_text("pauses (first path error to completion, per requeued request)", ds->pause_ns, 2);
	} else if (hist_total(ds->pause_ns)) {
		char line[160];

		hist_line(line, sizeof(line), ds->pause_ns);
		printf("  pauses: %" PRIu64 "  %s\n", hist_total(ds->pause_ns), line);
	}
	for (i = 0; i < nr; i++)
		path_text(&paths[i], &ps[i]);
}

static int run_stats(int argc, char **argv)
{
	struct path_view paths[IOVM_MAX_PATHS];
	struct iovm_path_stats ps[IOVM_MAX_PATHS];
	char name[IOVM_NAME_MAX], path[IOVM_NAME_MAX];
	struct iovm_path_info pi;
	struct iovm_dev_stats ds;
	struct dev_view v;
	unsigned int nr, i, kept = 0;
	int err;

	(void)argc;
	err = take_name(&cmd_stats, "device", name, argv[0]);
	if (!err && only_path)
		err = take_name(&cmd_stats, "path", path, only_path);
	if (!err)
		err = mux_open();
	if (!err && only_path)
		err = get_path(name, path, &pi);
	if (!err)
		err = load_paths(name, &v, paths, &nr);
	if (!err)
		err = get_stats(name, NULL, &ds, NULL);
	if (err)
		return err;
	for (i = 0; i < nr && !err; i++) {
		if (only_path && strcmp(paths[i].i.name, path))
			continue;
		paths[kept] = paths[i];
		err = get_stats(name, paths[i].i.name, NULL, &ps[kept]);
		kept++;
	}
	if (err)
		return err;
	print_all(name, &ds, paths, ps, kept);
	return EX_DONE;
}

const struct cmd cmd_stats = {
	.name = "stats", .args = "NAME", .summary = "Show a device's counters, pauses and latencies.",
	.detail =
	"Latencies and pauses are kept as histograms whose buckets double in width. A percentile is therefore shown as\n"
	"the upper bound of its bucket: 'p99 <524us' says that 99 % took less than 524 us; the true value is at least half\n"
	"of that. A pause is the time from a request's first path error to its completion.\n",
	.opts = stats_opts, .min_args = 1, .max_args = 1, .run = run_stats,
};
