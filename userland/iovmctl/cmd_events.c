// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * events: follow what the mux reports.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "iovmctl.h"

#define BUFFER	(64 * 1024)

static const char *const event_names[] = {
	[IOVM_EV_LOST] = "lost",
	[IOVM_EV_DEV_CREATED] = "dev-created",
	[IOVM_EV_DEV_DESTROYED] = "dev-destroyed",
	[IOVM_EV_DEV_OPENED] = "dev-opened",
	[IOVM_EV_DEV_CLOSED] = "dev-closed",
	[IOVM_EV_PATH_ADDED] = "path-added",
	[IOVM_EV_PATH_STATE] = "path-state",
	[IOVM_EV_PATH_REMOVED] = "path-removed",
	[IOVM_EV_FIRST_ERROR] = "first-error",
	[IOVM_EV_REROUTED] = "rerouted",
	[IOVM_EV_FIRST_COMPLETION] = "first-completion",
	[IOVM_EV_PARKED] = "parked",
	[IOVM_EV_TIMEOUT] = "timeout",
	[IOVM_EV_SUSPENDED] = "suspended",
	[IOVM_EV_RESUMED] = "resumed",
	[IOVM_EV_HELD] = "held",
	[IOVM_EV_FENCED] = "fenced",
	[IOVM_EV_RESIZED] = "resized",
	[IOVM_EV_QUEUE_BROKEN] = "queue-broken",
	[IOVM_EV_FAIL_PARKED] = "fail-parked",
	[IOVM_EV_NO_SPACE] = "no-space",
	[IOVM_EV_SPACE] = "space",
	[IOVM_EV_MEDIUM_ERROR] = "medium-error",
	[IOVM_EV_OVERDUE] = "overdue",
	[IOVM_EV_SLOW] = "slow",
	[IOVM_EV_SLOW_OVER] = "slow-over",
	[IOVM_EV_SLOW_LEFT] = "slow-left",
	[IOVM_EV_FENCE_FAILED] = "fence-failed",
	[IOVM_EV_SESSION_BEGUN] = "session-begun",
	[IOVM_EV_SESSION_ENDED] = "session-ended",
	[IOVM_EV_SESSION_ENDED + 1] = "reserved",
	[IOVM_EV_SESSION_ENDED + 2] = "reserved",
	[IOVM_EV_EPOCH_WANTED] = "epoch-wanted",
	[IOVM_EV_EPOCH_TAKEN] = "epoch-taken",
	[IOVM_EV_EPOCH_GIVEN] = "epoch-given",
	[IOVM_EV_KEYS_OLD] = "keys-old",
	[IOVM_EV_REPLACED] = "replaced",
	NULL
};

static struct {
	struct opt_u64 since, count, timeout;
	const char *device, *wait;
	bool no_follow;
} o;

static const struct opt events_opts[] = {
	{ "since", 's', OPT_COUNT, &o.since, "SEQ", "Start at this sequence number; 0: the oldest kept.", 0, 0 },
	{ "no-follow", 0, OPT_FLAG, &o.no_follow, NULL, "Show what there is (all that is kept, or from --since),\nthen exit.", 0, 0 },
	{ "device", 'd', OPT_STR, &o.device, "NAME", "Only this device's.", 0, 0 },
	{ "count", 'n', OPT_NUM, &o.count, "N", "Exit after N events.", 1, UINT32_MAX },
	{ "wait", 'w', OPT_STR, &o.wait, "TYPE", "Exit after an event of this type (of this device, with\n--device).", 0, 0 },
	{ "timeout", 't', OPT_TIME, &o.timeout, "TIME", "Exit with status 1 after this time.", 0, 0 },
	{ 0 }
};

struct event_view {
	struct iovm_event e;
	char time[40];
};

#define E(m)	offsetof(struct event_view, m)
static const struct field event_fields[] = {
	{ "seq", NULL, F_U64, E(e.seq) },
	{ "time", NULL, F_STR, E(time) },
	{ "real_ns", NULL, F_U64, E(e.real_ns) },
	{ "mono_ns", NULL, F_U64, E(e.mono_ns) },
	{ "type", NULL, F_ENUM, E(e.type), .names = event_names },
	{ "type_id", NULL, F_U32, E(e.type) },
	{ "device", NULL, F_STR, E(e.dev) },
	{ "path", NULL, F_STR, E(e.path) },
	{ "error", NULL, F_ERR, E(e.error) },
	{ "value", NULL, F_U64, E(e.value) },
	{ 0 }
};

/* Only a change of state has these. */
static const struct field state_fields[] = {
	{ "old_state", NULL, F_ENUM, E(e.old_state), .names = path_state_names },
	{ "new_state", NULL, F_ENUM, E(e.new_state), .names = path_state_names },
	{ 0 }
};

/* Only events about slow paths have these. */
static const struct field slow_fields[] = {
	{ "op", NULL, F_ENUM, E(e.op), .names = op_names },
	{ "value2", NULL, F_U64, E(e.value2) },
	{ 0 }
};

static bool about_slow(const struct iovm_event *e)
{
	return e->type == IOVM_EV_SLOW || e->type == IOVM_EV_SLOW_OVER || e->type == IOVM_EV_SLOW_LEFT;
}

static void sentence(const struct iovm_event *e, char *buf, size_t n)
{
	static const struct field error = { "error", "error", F_ERR, offsetof(struct iovm_event, error) };
	char t[40], t2[40], err[128];
	const char *op = name_of(op_names, e->op) ?: "request";

	field_text(&error, e, err, sizeof(err));
	text_ns(t, sizeof(t), e->value);
	text_ns(t2, sizeof(t2), e->value2);
	switch (e->type) {
	case IOVM_EV_LOST:
		snprintf(buf, n, "%llu events lost: this reader was too slow", e->value);
		break;
	case IOVM_EV_DEV_CREATED:
		snprintf(buf, n, "created");
		break;
	case IOVM_EV_DEV_DESTROYED:
		snprintf(buf, n, "destroyed");
		break;
	case IOVM_EV_DEV_OPENED:
		snprintf(buf, n, "opened by pid %llu", e->value);
		break;
	case IOVM_EV_DEV_CLOSED:
		snprintf(buf, n, "closed");
		break;
	case IOVM_EV_PATH_ADDED:
		snprintf(buf, n, "path %s: added", e->path);
		break;
	case IOVM_EV_PATH_STATE:
		snprintf(buf, n, "path %s: %s -> %s%s%s", e->path, name_of(path_state_names, e->old_state) ?: "?",
			 name_of(path_state_names, e->new_state) ?: "?", e->error ? ": " : "", e->error ? err : "");
		break;
	case IOVM_EV_PATH_REMOVED:
		snprintf(buf, n, "path %s: removed", e->path);
		break;
	case IOVM_EV_FIRST_ERROR:
		snprintf(buf, n, "path %s: first error: %s", e->path, err);
		break;
	case IOVM_EV_REROUTED:
		snprintf(buf, n, "requests go to path %s%s%s%s", e->path, e->value ? ", " : "", e->value ? t : "",
			 e->value ? " after the first error" : "");
		break;
	case IOVM_EV_FIRST_COMPLETION:
		snprintf(buf, n, "path %s: first completion, after %s", e->path, t);
		break;
	case IOVM_EV_PARKED:
		snprintf(buf, n, "no usable path: requests wait");
		break;
	case IOVM_EV_TIMEOUT:
		snprintf(buf, n, "%s in time: requests are failed", e->error == -ENOSPC ? "no space came" : "no path came");
		break;
	case IOVM_EV_SESSION_BEGUN:
		snprintf(buf, n, "session %llu begins", e->value);
		break;
	case IOVM_EV_SESSION_ENDED:
		snprintf(buf, n, "session %llu has ended%s%s", e->value, e->error ? ": " : "", e->error ? err : "");
		break;
	case IOVM_EV_EPOCH_WANTED:
		snprintf(buf, n, "wants an epoch: its queues have started, and their requests wait; the last was %llu", e->value);
		break;
	case IOVM_EV_EPOCH_TAKEN:
		snprintf(buf, n, "holds epoch %llu", e->value);
		break;
	case IOVM_EV_EPOCH_GIVEN:
		snprintf(buf, n, "has given up epoch %llu", e->value);
		break;
	case IOVM_EV_KEYS_OLD:
		snprintf(buf, n, "path %s: %llu TLS records with the same keys: new connections are due", e->path, e->value);
		break;
	case IOVM_EV_REPLACED:
		snprintf(buf, n, "path %s: new connections have replaced those before", e->path);
		break;
	case IOVM_EV_SUSPENDED:
		snprintf(buf, n, "suspended, nothing is in flight");
		break;
	case IOVM_EV_RESUMED:
		snprintf(buf, n, "resumed");
		break;
	case IOVM_EV_HELD:
		snprintf(buf, n, "path %s: %llu writes wait for a fence", e->path, e->value);
		break;
	case IOVM_EV_FENCED:
		snprintf(buf, n, "path %s: fence confirmed, %llu writes go on", e->path, e->value);
		break;
	case IOVM_EV_OVERDUE:
		snprintf(buf, n, "path %s: a request is overdue, under way for %llu ms", e->path, e->value);
		break;
	case IOVM_EV_SLOW:
		snprintf(buf, n, "path %s: slow, a %s takes %s where %s is usual", e->path, op, t, t2);
		break;
	case IOVM_EV_SLOW_OVER:
		snprintf(buf, n, "path %s: no longer slow, a %s takes %s where %s is usual", e->path, op, t, t2);
		break;
	case IOVM_EV_SLOW_LEFT:
		snprintf(buf, n, "path %s: left because it is slow, a %s takes %s; another path answers in %s", e->path, op,
			 t, t2);
		break;
	case IOVM_EV_FENCE_FAILED:
		fence_status_text(err, sizeof(err), e->error ?: (int)e->value);
		snprintf(buf, n, "path %s: cannot be fenced: %s", e->path, err);
		break;
	case IOVM_EV_RESIZED:
		text_size(t, sizeof(t), e->value * 512);
		snprintf(buf, n, "the size is now %s", t);
		break;
	case IOVM_EV_QUEUE_BROKEN:
		snprintf(buf, n, "queue %llu is broken: %s", e->value, err);
		break;
	case IOVM_EV_FAIL_PARKED:
		snprintf(buf, n, "what waited was failed by the operator");
		break;
	case IOVM_EV_NO_SPACE:
		snprintf(buf, n, "path %s: the store is full, %llu writes wait", e->path, e->value);
		break;
	case IOVM_EV_SPACE:
		text_ms(t, sizeof(t), e->value);
		snprintf(buf, n, "there is space again, after %s", t);
		break;
	case IOVM_EV_MEDIUM_ERROR:
		snprintf(buf, n, "path %s: medium error number %llu: %s", e->path, e->value, err);
		break;
	default:
		snprintf(buf, n, "event %u: value %llu", e->type, e->value);
	}
}

static void print_event(const struct iovm_event *e)
{
	time_t sec = (time_t)(e->real_ns / 1000000000);
	unsigned int ms = (unsigned int)(e->real_ns % 1000000000 / 1000000);
	struct event_view v = { .e = *e };
	char zone[16], text[320];
	struct json j;
	struct tm tm;
	size_t len;

	localtime_r(&sec, &tm);
	len = strftime(v.time, sizeof(v.time), opt_json ? "%FT%T" : "%F %T", &tm);
	snprintf(v.time + len, sizeof(v.time) - len, ".%03u", ms);
	if (opt_json) {
		strftime(zone, sizeof(zone), "%z", &tm);
		len = strlen(v.time);
		snprintf(v.time + len, sizeof(v.time) - len, "%.3s:%.2s", zone, zone + 3);
		json_init(&j, stdout, false);
		json_open(&j, NULL, '{');
		fields_json(&j, event_fields, &v);
		if (e->type == IOVM_EV_PATH_STATE)
			fields_json(&j, state_fields, &v);
		if (about_slow(e))
			fields_json(&j, slow_fields, &v);
		json_close(&j);
	} else {
		sentence(e, text, sizeof(text));
		printf("%s  %6llu  %-12s  %s\n", v.time, e->seq, *e->dev ? e->dev : "-", text);
	}
	fflush(stdout);
}

enum verdict { GO_ON, ENOUGH };

/* One record of whatever size the kernel knows. */
static enum verdict take_event(const char *rec, uint32_t size)
{
	static uint64_t shown;
	struct iovm_event e;

	memset(&e, 0, sizeof(e));
	memcpy(&e, rec, size < sizeof(e) ? size : sizeof(e));
	e.dev[sizeof(e.dev) - 1] = 0;
	e.path[sizeof(e.path) - 1] = 0;
	if (o.device && e.type != IOVM_EV_LOST && strcmp(e.dev, o.device))
		return GO_ON;
	print_event(&e);
	shown++;
	if (o.count.set && shown >= o.count.v)
		return ENOUGH;
	if (o.wait && name_of(event_names, e.type) && !strcmp(event_names[e.type], o.wait))
		return ENOUGH;
	return GO_ON;
}

/* All records of one read(); -1 when they make no sense. */
static int take_events(const char *buf, size_t len)
{
	uint32_t size;

	while (len) {
		if (len < sizeof(size))
			return -1;
		memcpy(&size, buf, sizeof(size));
		if (size < offsetof(struct iovm_event, dev) || size > len)
			return -1;
		if (take_event(buf, size) == ENOUGH)
			return 1;
		buf += size;
		len -= size;
	}
	return 0;
}

/* 1: something to read, 0: no more (--no-follow, or nobody reads our output), else 2 + exit code. */
static int wait_readable(uint64_t end_ms)
{
	struct pollfd p[2] = { { .fd = mux_fd, .events = POLLIN }, { .fd = STDOUT_FILENO } };
	uint64_t now, left;
	int n, ms;

	for (;;) {
		ms = -1;
		if (o.no_follow) {
			ms = 0;
		} else if (end_ms) {
			now = now_ms();
			left = now < end_ms ? end_ms - now : 0;
			ms = left > 1000000 ? 1000000 : (int)left;
		}
		n = poll(p, 2, ms);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return 2 + mux_fail(errno, NULL, NULL, "cannot wait for events");
		if (p[0].revents & POLLIN)
			return 1;
		if (p[0].revents)
			return 2 + fail(EX_FAILED, NULL, "the event stream ended");
		if (n || o.no_follow)
			return 0;
		if (end_ms && now_ms() >= end_ms)
			return 2 + fail(EX_FAILED, NULL, o.wait ? "no event '%s' came in time" : "time is up", o.wait);
	}
}

static int follow(char *buf)
{
	uint64_t end_ms = o.timeout.set ? now_ms() + o.timeout.v : 0;
	ssize_t len;
	int ret;

	for (;;) {
		ret = wait_readable(end_ms);
		if (ret == 0)
			return EX_DONE;
		if (ret > 1)
			return ret - 2;
		len = read(mux_fd, buf, BUFFER);
		if (len < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (len < 0)
			return mux_fail(errno, NULL, NULL, "cannot read events");
		if (!len)
			return fail(EX_FAILED, NULL, "the event stream ended");
		ret = take_events(buf, (size_t)len);
		if (ret < 0)
			return fail(EX_FAILED, NULL, "the kernel sent an event record that makes no sense");
		if (ret)
			return EX_DONE;
	}
}

static bool known_type(const char *type)
{
	int i;

	for (i = 0; event_names[i]; i++)
		if (!strcmp(event_names[i], type))
			return true;
	return false;
}

static int run_events(int argc, char **argv)
{
	struct iovm_events_from from;
	char *buf;
	int err;

	(void)argc;
	(void)argv;
	if (o.wait && !known_type(o.wait))
		return usage_error(&cmd_events, "--wait: '%s' is not a type of event", o.wait);
	if (o.device && parse_name(o.device))
		return usage_error(&cmd_events, "--device: '%s' %s", o.device, parse_name(o.device));
	err = mux_open();
	if (err)
		return err;
	if (fcntl(mux_fd, F_SETFL, fcntl(mux_fd, F_GETFL) | O_NONBLOCK))
		return mux_fail(errno, NULL, NULL, "cannot set up reading events");
	if (o.since.set || o.no_follow) {
		IOVM_INIT(&from);
		from.seq = o.since.v;
		err = mux_ioctl(IOVM_EVENTS_FROM, &from);
		if (err)
			return mux_fail(err, NULL, NULL, "cannot start at event %llu", from.seq);
	}
	buf = malloc(BUFFER);
	if (!buf)
		return mux_fail(ENOMEM, NULL, NULL, "cannot read events");
	err = follow(buf);
	free(buf);
	return err;
}

const struct cmd cmd_events = {
	.name = "events", .args = "", .summary = "Follow events, one line each.",
	.detail =
	"Starts with what happens from now on, unless --since or --no-follow is given. Shows time, sequence number, device\n"
	"and what happened; with --json one object per line.\n"
	"\n"
	"Types: dev-created dev-destroyed dev-opened dev-closed path-added path-state path-removed first-error rerouted\n"
	"first-completion parked timeout suspended resumed held fenced resized queue-broken fail-parked no-space\n"
	"space medium-error overdue fence-failed slow slow-over slow-left session-begun session-ended\n"
	"epoch-wanted epoch-taken epoch-given keys-old replaced lost\n"
	"\n"
	"Example: wait until vm1 has been rerouted, a minute at most:\n"
	"  iovmctl events --device vm1 --wait rerouted --timeout 1min\n",
	.opts = events_opts, .max_args = 0, .run = run_events,
};
