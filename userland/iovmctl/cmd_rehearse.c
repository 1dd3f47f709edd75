// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * rehearse: send a device's requests to another path for a while, and back, and tell how long it took. The kernel does
 * all of it; if this process is killed meanwhile, the requests stay where they are, until 'failback'.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "../common/parse.h"

#define DEVICES_MAX	16	/* of a guest */
#define FIRST_MS	5000	/* for a first request: a guest that is idle makes none */
#define DWELL_MS	5000

static const char *opt_path;
static struct opt_u64 opt_for;

static const struct opt rehearse_opts[] = {
	{ "path", 'p', OPT_STR, &opt_path, "PATH", "The path to go to. Default: the next live one.", 0, 0 },
	{ "for", 0, OPT_TIME, &opt_for, "TIME", "How long to stay there. Default 5s.", 0, 0 },
	OPT_AGENT_SOCKET,
	{ 0 }
};

/**
 * struct rehearsal - of one device
 * @from: path that its requests take, and are to take again
 * @to: path that they go to meanwhile
 * @pinned: @from had been chosen by hand
 * @away_ns: until the first request was done there; 0: none came
 * @back_ns: likewise, of the way back
 * @requests: that were done meanwhile, with the first ones on the way back
 * @errors: of those, with an error
 */
struct rehearsal {
	char dev[IOVM_NAME_MAX], from[IOVM_NAME_MAX], to[IOVM_NAME_MAX];
	bool pinned;
	uint64_t away_ns, back_ns, requests, errors, requeues;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* --- may it be? --- */

static int may_not(const char *dev, const char *why)
{
	return fail(EX_REFUSED, "'iovmctl show' tells how things are; a rehearsal takes a path that works and one more", "%s: %s", dev, why);
}

/* A path that requests may go to at any time */
static bool good(const struct iovm_path_info *p)
{
	return p->state == IOVM_PATH_LIVE && !p->slow && !p->held && !p->unsettled && !p->in_doubt;
}

static int choose(struct rehearsal *r)
{
	struct path_view paths[IOVM_MAX_PATHS];
	const struct iovm_path_info *to = NULL;
	unsigned int nr, i, from;
	struct dev_view v;
	char why[160];
	int err;

	err = load_paths(r->dev, &v, paths, &nr);
	if (err)
		return err;
	if (v.i.state != IOVM_DEV_ROUTED)
		return may_not(r->dev, "its requests have no path at the moment");
	for (from = 0; from < nr && !paths[from].routed; from++)
		;
	if (v.i.held || from == nr || !good(&paths[from].i))
		return may_not(r->dev, "the path that it uses is not well, or writes wait for a fence");
	for (i = 1; i < nr && !to; i++) {
		const struct iovm_path_info *p = &paths[(from + i) % nr].i;

		if (opt_path ? !strcmp(p->name, opt_path) : good(p))
			to = p;
	}
	if (!to && opt_path) {
		snprintf(why, sizeof(why), "it has no path '%s' besides the one that it uses", opt_path);
		return may_not(r->dev, why);
	}
	if (!to)
		return may_not(r->dev, "no other path is live");
	if (!good(to)) {
		snprintf(why, sizeof(why), "its path '%s' is %s, or not well", to->name, name_of(path_state_names, to->state) ?: "?");
		return may_not(r->dev, why);
	}
	strcpy(r->from, paths[from].i.name);
	strcpy(r->to, to->name);
	r->pinned = v.i.pinned;
	return EX_DONE;
}

/* --- what happens --- */

/* What an event says of path: 1 its first request is done (*ns), -1 it is lost, 0 nothing. */
static int look_at(const struct rehearsal *r, const char *path, const struct iovm_event *e, uint64_t *ns)
{
	if (strncmp(e->dev, r->dev, sizeof(e->dev)) || strncmp(e->path, path, sizeof(e->path)))
		return 0;
	if (e->type == IOVM_EV_PATH_STATE && e->new_state != IOVM_PATH_LIVE)
		return -1;
	if (!ns || e->type != IOVM_EV_FIRST_COMPLETION)
		return 0;
	*ns = e->value ?: 1;
	return 1;
}

static int read_events(const struct rehearsal *r, const char *path, uint64_t *ns)
{
	static char buf[64 * 1024];
	struct iovm_event e;
	uint32_t size;
	ssize_t n;
	size_t at;
	int what = 0;

	n = read(mux_fd, buf, sizeof(buf));
	for (at = 0; !what && n > 0 && (size_t)n - at >= sizeof(size); at += size) {
		memcpy(&size, buf + at, sizeof(size));
		if (size < offsetof(struct iovm_event, dev) || size > (size_t)n - at)
			break;
		memset(&e, 0, sizeof(e));
		memcpy(&e, buf + at, size < sizeof(e) ? size : sizeof(e));
		what = look_at(r, path, &e, ns);
	}
	return what;
}

/* For ms, or until the first request on path is done, if that is wanted; false: path was lost. */
static bool watch(const struct rehearsal *r, const char *path, uint64_t ms, uint64_t *ns)
{
	struct pollfd p = { .fd = mux_fd, .events = POLLIN };
	uint64_t end = now_ms() + ms, now;
	int what = 0;

	while (!what && !interrupted && (now = now_ms()) < end)
		if (poll(&p, 1, (int)(end - now)) > 0)
			what = read_events(r, path, ns);
	return what >= 0;
}

static int go(const char *dev, uint32_t op, const char *path)
{
	struct iovm_dev_ctl c;
	int err;

	IOVM_INIT(&c);
	c.op = op;
	strcpy(c.name, dev);
	strcpy(c.path, path);
	err = mux_ioctl(IOVM_DEV_CTL, &c);
	return err ? mux_fail(err, c.msg, NULL, "cannot send the requests of '%s' to '%s'", dev, path) : EX_DONE;
}

static void count(const char *dev, struct iovm_dev_stats *s)
{
	IOVM_INIT(s);
	strcpy(s->name, dev);
	if (mux_ioctl(IOVM_DEV_STATS, s))
		memset(s, 0, sizeof(*s));
}

static int lost(const struct rehearsal *r, const char *path)
{
	return fail(EX_FAILED, "'iovmctl show' tells how things are now", "%s: path '%s' failed in the rehearsal", r->dev, path);
}

static int go_back(struct rehearsal *r)
{
	/* a choice that was made by hand stays one */
	int err = r->pinned ? go(r->dev, IOVM_DEV_FAILOVER, r->from) : go(r->dev, IOVM_DEV_FAILBACK, "");

	interrupted = 0;
	if (!err && !watch(r, r->from, FIRST_MS, &r->back_ns))
		err = lost(r, r->from);
	return err;
}

static int rehearse(struct rehearsal *r)
{
	struct iovm_dev_stats before, after;
	bool stopped;
	int err;

	count(r->dev, &before);
	err = go(r->dev, IOVM_DEV_FAILOVER, r->to);
	if (err)
		return err;
	if (!watch(r, r->to, FIRST_MS, &r->away_ns) || !watch(r, r->to, opt_for.set ? opt_for.v : DWELL_MS, NULL))
		err = lost(r, r->to);
	stopped = interrupted;
	if (go_back(r))
		return EX_FAILED;
	count(r->dev, &after);
	r->requests = after.requests - before.requests;
	r->errors = after.errors - before.errors;
	r->requeues = after.requeues - before.requeues;
	if (!err && stopped)
		err = fail(EX_FAILED, NULL, "%s: interrupted; its requests go to '%s' again", r->dev, r->from);
	if (!err && r->errors)
		err = fail(EX_FAILED, "'iovmctl events --no-follow' tells more", "%s: %llu requests had errors", r->dev,
			   (unsigned long long)r->errors);
	return err;
}

/* --- what is said --- */

static void show(const struct rehearsal *r)
{
	char away[32] = "no request came", back[32] = "no request came";
	struct json j;

	if (opt_json) {
		json_init(&j, stdout, false);
		json_open(&j, NULL, '{');
		json_str(&j, "device", r->dev);
		json_str(&j, "from", r->from);
		json_str(&j, "to", r->to);
		if (r->away_ns)
			json_u64(&j, "away_ns", r->away_ns);
		else
			json_null(&j, "away_ns");
		if (r->back_ns)
			json_u64(&j, "back_ns", r->back_ns);
		else
			json_null(&j, "back_ns");
		json_u64(&j, "requests", r->requests);
		json_u64(&j, "errors", r->errors);
		json_u64(&j, "requeues", r->requeues);
		json_close(&j);
		return;
	}
	if (r->away_ns)
		text_ns(away, sizeof(away), r->away_ns);
	if (r->back_ns)
		text_ns(back, sizeof(back), r->back_ns);
	printf("%s: from '%s' to '%s' and back\n", r->dev, r->from, r->to);
	printf("  until the first request there:  %s\n", away);
	printf("  until the first request here:   %s\n", back);
	printf("  requests meanwhile:             %llu, %llu with errors\n", (unsigned long long)r->requests, (unsigned long long)r->errors);
}

/* --- the devices of a guest --- */

static int devices_of(const char *guest, char names[DEVICES_MAX][IOVM_NAME_MAX], unsigned int *nr)
{
	const struct json_node *g, *d;
	struct agent_talk t;
	struct json_node *o;
	int code;

	*nr = 0;
	code = agent_ask(&t, "status", NULL);
	if (code)
		return code;
	o = agent_answer(&t, NULL, &code);
	g = o ? json_member(o, "status") : NULL;
	g = g ? json_member(g, "guests") : NULL;
	for (g = g ? g->first : NULL; g && strcmp(get_str(g, "name"), guest);)
		g = g->next;
	d = g ? json_member(g, "devices") : NULL;
	for (d = d ? d->first : NULL; d && *nr < DEVICES_MAX; d = d->next)
		if (d->type == JSON_STRING && !parse_name(d->str))
			strcpy(names[(*nr)++], d->str);
	json_free(o);
	agent_end(&t);
	if (!code && !*nr)
		code = fail(EX_NOT_FOUND, "'iovmctl list' shows devices, 'iovmctl status' guests", "there is no device or guest '%s'", guest);
	return code;
}

static int run_rehearse(int argc, char **argv)
{
	char names[DEVICES_MAX][IOVM_NAME_MAX];
	struct rehearsal r[DEVICES_MAX];
	struct iovm_dev_info di;
	unsigned int nr = 1, i;
	int err;

	(void)argc;
	memset(r, 0, sizeof(r));
	err = take_name(&cmd_rehearse, "device or guest", names[0], argv[0]);
	if (!err)
		err = mux_open();
	if (err)
		return err;
	IOVM_INIT(&di);
	strcpy(di.name, names[0]);
	if (mux_ioctl(IOVM_DEV_GET, &di))
		err = devices_of(argv[0], names, &nr);
	/* all of a guest's devices, or none */
	for (i = 0; i < nr && !err; i++) {
		strcpy(r[i].dev, names[i]);
		err = choose(&r[i]);
	}
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	signal(SIGHUP, on_signal);
	for (i = 0; i < nr && !err; i++) {
		err = rehearse(&r[i]);
		if (!err)
			show(&r[i]);
	}
	return err;
}

const struct cmd cmd_rehearse = {
	.name = "rehearse", .args = "DEVICE|GUEST", .summary = "Reroute to another path and fail back, and say how long it took.",
	.detail =
	"Sends the requests of a device, or of each device of a guest of iovmd's, to another live path for some seconds and\n"
	"back. Nothing is failed for it: the guest's requests go on. Refused when no other path is live, or when something is\n"
	"not well already. Ended by Ctrl-C, it fails back first. Exit status 1: a path failed meanwhile, or a request had an\n"
	"error. With --json an object a device.\n",
	.opts = rehearse_opts, .min_args = 1, .max_args = 1, .run = run_rehearse,
};
