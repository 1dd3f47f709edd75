// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * resize: every path has the new size, then the device has.
 *
 * A block device tells its size at any time. An NBD server tells it in the handshake, and need not serve on an old connection
 * what it has grown since. So paths whose size is not enough are connected again, one after the other, without an error for
 * the guest: nothing is in flight on a path while its connections change. The path that requests go to is left for another
 * one meanwhile; the only one there is while the device is suspended.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "iovmctl.h"

#define IDLE_MS	30000

static struct opt_u64 opt_timeout;
static bool opt_no_connect;

static const struct opt resize_opts[] = {
	{ "no-connect", 0, OPT_FLAG, &opt_no_connect, NULL, "Do not connect nbd paths again that are too small.", 0, 0 },
	{ "timeout", 0, OPT_TIME, &opt_timeout, "TIME", "Time limit for connecting. Default 10s.", 0, 0 },
	{ 0 }
};

/* What happens, on stderr. */
__attribute__((format(printf, 1, 2)))
static void say(const char *fmt, ...)
{
	va_list ap;

	if (opt_json)
		return;
	fputs("iovmctl: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static int dev_ctl(const char *dev, uint32_t op, const char *path, uint64_t value, const char *what, const char *hint)
{
	struct iovm_dev_ctl c;
	char doing[128];
	int err;

	IOVM_INIT(&c);
	c.op = op;
	c.value = value;
	snprintf(c.name, sizeof(c.name), "%s", dev);
	snprintf(c.path, sizeof(c.path), "%s", path);
	snprintf(doing, sizeof(doing), "waiting to %s %s", what, dev);
	err = op == IOVM_DEV_SUSPEND ? mux_ioctl_wait(IOVM_DEV_CTL, &c, doing, dev, NULL) : mux_ioctl(IOVM_DEV_CTL, &c);
	return err ? mux_fail(err, c.msg, hint, "cannot %s '%s'", what, dev) : EX_DONE;
}

/* Another path that is live: its name, or NULL. */
static const char *other_live(const struct path_view *paths, unsigned int nr, const struct path_view *but)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (&paths[i] != but && paths[i].i.state == IOVM_PATH_LIVE)
			return paths[i].i.name;
	return NULL;
}

/* Until nothing is in flight on a path that takes nothing new. */
static int wait_idle(const struct iovm_path_info *p)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	uint64_t end = now_ms() + IDLE_MS;
	struct iovm_path_info pi;
	int err;

	for (;;) {
		err = get_path(p->dev, p->name, &pi);
		if (err || !pi.inflight)
			return err;
		if (now_ms() >= end)
			return fail(EX_FAILED, "'iovmctl show' tells how old the oldest request is",
				    "path '%s' of '%s' still has %llu requests in flight", p->name, p->dev,
				    (unsigned long long)pi.inflight);
		nanosleep(&pause, NULL);
	}
}

/* New connections for the old ones of a path that carries nothing. */
static int exchange(const struct iovm_path_info *p, const struct nbd_export *ex)
{
	struct iovm_path_ctl c;
	int err;

	err = wait_idle(p);
	if (err)
		return err;
	IOVM_INIT(&c);
	c.op = IOVM_PATH_CTL_FAIL;
	memcpy(c.dev, p->dev, sizeof(c.dev));
	memcpy(c.name, p->name, sizeof(c.name));
	err = mux_ioctl(IOVM_PATH_CTL, &c);
	if (err)
		return mux_fail(err, c.msg, NULL, "cannot disconnect path '%s' of '%s'", p->name, p->dev);
	return reconnect_path(p, ex);
}

/* Leave the path, exchange its connections, return. The new ones are there before anything is done. */
static int exchange_safely(const struct path_view *paths, unsigned int nr, const struct path_view *v,
			   const struct nbd_export *ex)
{
	const struct iovm_path_info *p = &v->i;
	const char *other;
	int err, back = EX_DONE;

	if (!v->routed)
		return exchange(p, ex);
	other = other_live(paths, nr, v);
	if (other) {
		say("path '%s' takes requests: they go to '%s' meanwhile", p->name, other);
		err = dev_ctl(p->dev, IOVM_DEV_FAILOVER, other, 0, "fail over", NULL);
		if (err)
			return err;
		err = exchange(p, ex);
		if (!err && !p->order)
			back = dev_ctl(p->dev, IOVM_DEV_FAILBACK, "", 0, "fail back", NULL);
		else if (!err)
			back = dev_ctl(p->dev, IOVM_DEV_FAILOVER, p->name, 0, "fail over", NULL);
	} else {
		say("path '%s' is the only one: '%s' is suspended meanwhile", p->name, p->dev);
		err = dev_ctl(p->dev, IOVM_DEV_SUSPEND, "", 0, "suspend", NULL);
		if (!err)
			err = exchange(p, ex);
		back = dev_ctl(p->dev, IOVM_DEV_RESUME, "", 0, "resume", "'iovmctl resume' lets the guest go on");
	}
	return err ? err : back;
}

static int refresh(const struct path_view *paths, unsigned int nr, const struct path_view *v, uint64_t sectors)
{
	char now[32], want[32];
	struct nbd_export ex;
	int err;

	text_size(want, sizeof(want), sectors * 512);
	say("path '%s': asking the server for its size", v->i.name);
	err = nbd_open_export(v->i.addr, v->i.nr_sockets, false, opt_timeout.v, &ex);
	if (err)
		return err;
	if (ex.bytes / 512 < sectors) {
		text_size(now, sizeof(now), ex.bytes);
		err = fail(EX_REFUSED, "grow the export; most servers must be restarted for it",
			   "the server of path '%s' exports %s, not %s", v->i.name, now, want);
	} else {
		err = exchange_safely(paths, nr, v, &ex);
	}
	nbd_close_export(&ex);
	if (!err)
		say("path '%s' is connected again, with the new size", v->i.name);
	return err;
}

static bool in_use(const struct iovm_path_info *p)
{
	return p->state != IOVM_PATH_CONNECTING && p->state != IOVM_PATH_FAILED;
}

static int run_resize(int argc, char **argv)
{
	struct path_view paths[IOVM_MAX_PATHS];
	char text[64], size[32], is[32];
	unsigned int nr, i;
	struct dev_view v;
	const char *bad;
	uint64_t bytes;
	int err;

	(void)argc;
	bad = parse_size(argv[1], &bytes);
	if (bad)
		return usage_error(&cmd_resize, "'%s' %s", argv[1], bad);
	if (!bytes || bytes % 512)
		return usage_error(&cmd_resize, "'%s' is not a multiple of 512 bytes", argv[1]);
	err = take_paths(&cmd_resize, argv[0], &v, paths, &nr);
	if (err)
		return err;
	text_size(size, sizeof(size), bytes);

	/* what cannot be helped, before anything is done */
	for (i = 0; i < nr; i++) {
		if (!in_use(&paths[i].i) || paths[i].i.type == IOVM_PATH_NBD || paths[i].i.capacity >= bytes / 512)
			continue;
		text_size(is, sizeof(is), paths[i].i.capacity * 512);
		return fail(EX_REFUSED, "grow what every path leads to first",
			    "cannot resize '%s': path '%s' (%s) has %s, or %llu sectors, not %s", v.i.name, paths[i].i.name,
			    paths[i].i.addr, is, (unsigned long long)paths[i].i.capacity, size);
	}
	for (i = 0; i < nr && !opt_no_connect; i++) {
		if (!in_use(&paths[i].i) || paths[i].i.type != IOVM_PATH_NBD || paths[i].i.capacity >= bytes / 512)
			continue;
		err = refresh(paths, nr, &paths[i], bytes / 512);
		if (err)
			return err;
	}
	err = dev_ctl(v.i.name, IOVM_DEV_RESIZE, "", bytes / 512, "resize", "grow what every path leads to first");
	if (err)
		return err;
	for (i = 0; i < nr; i++)
		if (!in_use(&paths[i].i) && paths[i].i.capacity < bytes / 512)
			warn("path '%s' is %s: it can only come back with the new size", paths[i].i.name,
			     name_of(path_state_names, paths[i].i.state) ?: "not in use");
	snprintf(text, sizeof(text), "the size is now %s", size);
	return report_dev(v.i.name, text);
}

const struct cmd cmd_resize = {
	.name = "resize", .args = "NAME SIZE", .summary = "Change the size of a device; the guest is told.",
	.detail =
	"Grow what every path leads to first. nbd paths whose connections are older than that are connected again, one\n"
	"after the other; the guest sees no error. Paths that failed are not waited for, but come back only with the new\n"
	"size. A device is made smaller only while no front end has its node open. SIZE as in 'iovmctl create'.\n",
	.opts = resize_opts, .min_args = 2, .max_args = 2, .run = run_resize,
};
