// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * restore: make what save wrote. It goes on behind what it cannot do, names it, and can be run again for the rest: what is
 * there as the file says is left alone, and what is there but differs is named and left alone too.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf.h"

static bool opt_dry, opt_hand_over;
static struct opt_u64 opt_timeout;

static const struct opt restore_opts[] = {
	{ "dry-run", 'n', OPT_FLAG, &opt_dry, NULL, "Only check the file, and tell what would be done.", 0, 0 },
	{ "hand-over", 0, OPT_FLAG, &opt_hand_over, NULL,
	  "A device that held an epoch takes it again. Only between\n'save' and 'restore' of an upgrade, in the same boot: when\n"
	  "no other host can have taken one since.", 0, 0 },
	{ "timeout", 0, OPT_TIME, &opt_timeout, "TIME", "nbd: time limit for connecting each path. Default 10s.", 0, 0 },
	{ 0 }
};

/**
 * struct outcome - what became of a device
 * @created: it was not there
 * @changed: something was made
 * @usable: a guest that used it before can go on: it is what it was, whatever became of some path
 * @added: paths
 * @code: of the first thing that failed
 */
struct outcome {
	bool created, changed, usable;
	unsigned int added;
	int code;
};

/* Keep the first exit code that says something. */
static void note(struct outcome *o, int code)
{
	if (!o->code)
		o->code = code;
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;

	if (opt_json)
		return;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static int read_all(const char *what, FILE *f, char **text, size_t *n)
{
	size_t room = 0;
	char *more;

	*text = NULL;
	*n = 0;
	do {
		if (*n == room) {
			room = room ? room * 2 : 65536;
			more = room > 2 * CONF_MAX_BYTES ? NULL : realloc(*text, room);
			if (!more)
				return fail(EX_REFUSED, NULL, "%s is too large", what);
			*text = more;
		}
		*n += fread(*text + *n, 1, room - *n, f);
	} while (!feof(f) && !ferror(f));
	return ferror(f) ? mux_fail(errno, NULL, NULL, "cannot read %s", what) : EX_DONE;
}

static int read_file(const char *file, struct conf_dev **devs, size_t *nr)
{
	bool from_stdin = !strcmp(file, "-");
	const char *what = from_stdin ? "standard input" : file;
	FILE *f = from_stdin ? stdin : fopen(file, "re");
	char *text = NULL;
	size_t n;
	int err;

	*devs = NULL;
	if (!f)
		return mux_fail(errno, NULL, NULL, "cannot open '%s'", file);
	err = read_all(what, f, &text, &n);
	if (!err)
		err = conf_read(what, text, n, devs, nr);
	free(text);
	if (!from_stdin)
		fclose(f);
	return err;
}

/* Did it hold its epoch in this boot, and shall it again? */
static bool may_hold(const struct conf_dev *d)
{
	char boot[CONF_BOOT_ID];

	conf_boot_id(boot);
	return opt_hand_over && *boot && !strcmp(d->epoch_boot, boot);
}

static void fill_create(const struct conf_dev *d, struct iovm_dev_create *c)
{
	IOVM_INIT(c);
	strcpy(c->name, d->name);
	c->class = d->class;
	c->flags = d->flags;
	c->mode = d->mode;
	c->uid = d->uid;
	c->gid = d->gid;
	c->no_path_timeout_ms = d->no_path_timeout_ms;
	c->no_space_timeout_ms = d->no_space_timeout_ms;
	c->failback_after_ms = d->failback_after_ms;
	c->slow_factor = d->slow_factor;
	c->leave_slow_after_ms = d->leave_slow_after_ms;
	c->iops = d->iops;
	c->bps = d->bps;
	c->blk = d->blk;
	/* what is taken again must be newer */
	if (!may_hold(d))
		c->epoch = d->epoch;
	/* it got its identity from a later path, whose data was assumed to be that of the first: so again */
	if (!d->nr_paths || *d->paths[0].identity || d->paths[0].flags & IOVM_PATH_F_ASSUME_SAME)
		strcpy(c->identity, d->identity);
}

static int create_dev(const struct conf_dev *d)
{
	struct iovm_dev_create c;
	int err;

	fill_create(d, &c);
	err = mux_ioctl(IOVM_DEV_CREATE, &c);
	return err ? mux_fail(err, c.msg, NULL, "cannot create device '%s'", d->name) : EX_DONE;
}

static int dev_ctl(const char *name, uint32_t op, const char *path, uint64_t value, const char *what)
{
	struct iovm_dev_ctl c;
	int err;

	IOVM_INIT(&c);
	c.op = op;
	c.value = value;
	strcpy(c.name, name);
	strcpy(c.path, path);
	err = mux_ioctl(IOVM_DEV_CTL, &c);
	return err ? mux_fail(err, c.msg, NULL, "cannot %s '%s'", what, name) : EX_DONE;
}

/*
 * Its epoch: who holds one may have changed since the file was written, except in an upgrade. A device that is there already and
 * has another one is left alone.
 */
static int hold(const struct conf_dev *d, const struct conf_dev *is)
{
	if (!*d->epoch_boot || *is->epoch_boot)
		return EX_DONE;
	if (may_hold(d))
		return dev_ctl(d->name, IOVM_DEV_EPOCH_TAKE, "", d->epoch, "restore the epoch of");
	if (opt_hand_over)
		return fail(EX_REFUSED, "ask the other host, then 'iovmctl epoch take' with a new one",
			    "%s: it held epoch %" PRIu64 " in another boot: that may not be restored", d->name, d->epoch);
	say("%s: it held epoch %" PRIu64 ", and does not any more: 'iovmctl epoch take' gives it a new one", d->name, d->epoch);
	return EX_DONE;
}

static int settle(const struct conf_path *p, const char *found, struct iovm_path_add *a)
{
	const char *given = p->flags & IOVM_PATH_F_IDENTITY_GIVEN ? p->identity : NULL;

	if (*found)
		a->flags &= ~IOVM_PATH_F_IDENTITY_GIVEN;
	return identity_settle(&cmd_restore, a->addr, given, found, a->identity);
}

static int add(struct iovm_path_add *a)
{
	int err = mux_ioctl(IOVM_PATH_ADD, a);

	return err ? mux_fail(err, a->msg, path_add_hint(err), "cannot add path '%s' to '%s'", a->name, a->dev) : EX_DONE;
}

static int add_bdev(const struct conf_dev *d, const struct conf_path *p, struct iovm_path_add *a)
{
	char found[IOVM_IDENTITY_MAX];
	int code;

	code = open_bdev(p->addr, d->flags & IOVM_DEV_F_RDONLY, &a->fd);
	if (code)
		return code;
	identity_of_bdev(a->fd, found);
	code = settle(p, found, a);
	if (!code && !*a->identity)
		warn("%s: nothing shows that %s leads to the same data as before", d->name, p->addr);
	if (!code)
		code = add(a);
	close(a->fd);
	return code;
}

/*
 * A server that is not there now may be there later: its path keeps its place, and what it has to show.
 * One that was failed by hand is left without a connection, as it was.
 */
static int add_nbd(const struct conf_path *p, struct iovm_path_add *a)
{
	struct nbd_export ex = { .nr = 0 };
	int code, err;

	if (p->failed) {
		strcpy(a->identity, p->identity);
		return add(a);
	}
	code = nbd_open_export(p->addr, p->connections, false, opt_timeout.v, &ex);
	if (code)
		strcpy(a->identity, p->identity);
	else
		code = settle(p, ex.identity, a);
	err = add(a);
	if (!err && !code) {
		code = connect_path(a->dev, a->name, &ex, a->identity);
	} else if (!err) {
		warn("path '%s' of '%s' was added all the same; 'iovmctl path connect %s %s' connects it", a->name, a->dev, a->dev,
		     a->name);
		/* as it was before */
		if (!p->connections)
			code = EX_DONE;
	}
	nbd_close_export(&ex);
	return err ? err : code;
}

static int fail_path(const char *dev, const char *name)
{
	struct iovm_path_ctl c;
	int err;

	IOVM_INIT(&c);
	c.op = IOVM_PATH_CTL_FAIL;
	strcpy(c.dev, dev);
	strcpy(c.name, name);
	err = mux_ioctl(IOVM_PATH_CTL, &c);
	return err ? mux_fail(err, c.msg, NULL, "cannot fail path '%s' of '%s'", name, dev) : EX_DONE;
}

static int add_path(const struct conf_dev *d, const struct conf_path *p)
{
	struct iovm_path_add a;
	int code;

	IOVM_INIT(&a);
	a.fd = -1;
	strcpy(a.dev, d->name);
	strcpy(a.name, p->name);
	strcpy(a.addr, p->addr);
	a.type = p->type;
	a.flags = p->flags;
	a.fence = p->fence;
	a.fence_by = p->fence_by;
	a.fence_after_ms = p->fence_after_ms;
	a.pr_key = p->pr_key;
	strcpy(a.fence_command, p->fence_command);
	a.heartbeat_ms = p->heartbeat_ms;
	a.dead_ms = p->dead_ms;
	a.io_timeout_ms = p->io_timeout_ms;
	code = p->type == IOVM_PATH_BDEV ? add_bdev(d, p, &a) : add_nbd(p, &a);
	if (!code && p->failed)
		code = fail_path(d->name, p->name);
	return code;
}

/* A path that is there, but was added without a connection */
static int connect_again(const struct conf_dev *d, const struct conf_path *p)
{
	struct iovm_path_info pi;
	struct nbd_export ex;
	int code;

	code = get_path(d->name, p->name, &pi);
	if (code || pi.type != IOVM_PATH_NBD || pi.state != IOVM_PATH_CONNECTING || !p->connections)
		return code;
	code = nbd_open_export(pi.addr, p->connections, false, opt_timeout.v, &ex);
	if (code)
		return code;
	code = reconnect_path(&pi, &ex);
	nbd_close_export(&ex);
	return code;
}

static int complain(const char *dev, const char *path, const char *key, const char *is, const char *file)
{
	return fail(EX_REFUSED, "it was left as it is: change it, or destroy the device and restore it",
		    "%s: %s%s%s%s is %s, in the file it is %s", dev, *path ? "path '" : "", path, *path ? "': " : "", key, is, file);
}

/*
 * Feature bits may be more than they were, not less: a running guest uses those that it has negotiated, and its VMM cannot
 * connect where they are not offered.
 */
static int check_features(const struct conf_dev *is, const struct conf_dev *file)
{
	uint64_t lost = file->features & ~is->features;

	if (!lost)
		return EX_DONE;
	return fail(EX_REFUSED, "load modules that offer them, or shut the guest down before it uses this device",
		    "%s: virtio features 0x%" PRIx64 ", which a running guest may use, are not offered any more", file->name, lost);
}

static bool differs(const struct conf_dev *is, const struct conf_dev *file, struct outcome *o)
{
	char is_text[CONF_TEXT], file_text[CONF_TEXT];
	unsigned int at = 0;
	const char *key;
	int code = 0;

	while ((key = conf_dev_differs(is, file, &at, is_text, file_text)))
		code = complain(file->name, "", key, is_text, file_text);
	code = check_features(is, file) ?: code;
	note(o, code);
	return code;
}

static const struct conf_path *path_of(const struct conf_dev *d, const char *name)
{
	unsigned int i;

	for (i = 0; i < d->nr_paths; i++)
		if (!strcmp(d->paths[i].name, name))
			return &d->paths[i];
	return NULL;
}

static void compare_path(const struct conf_dev *is, const struct conf_dev *file, const struct conf_path *p, struct outcome *o)
{
	char is_text[CONF_TEXT], file_text[CONF_TEXT];
	const struct conf_path *there = path_of(is, p->name);
	unsigned int at = 0;
	const char *key;

	while ((key = conf_path_differs(there, p, &at, is_text, file_text)))
		note(o, complain(file->name, p->name, key, is_text, file_text));
}

/* In the file's order, those it has? A path that could not be added at first is last. */
static void compare_order(const struct conf_dev *is, const struct conf_dev *file, struct outcome *o)
{
	const struct conf_path *last = is->paths, *p;
	unsigned int i;

	for (i = 0; i < file->nr_paths; i++) {
		p = path_of(is, file->paths[i].name);
		if (!p)
			continue;
		if (p < last)
			warn("%s: path '%s' is not in the file's order, in which paths are preferred", file->name, p->name);
		else
			last = p;
	}
	for (i = 0; i < is->nr_paths; i++)
		if (!path_of(file, is->paths[i].name))
			note(o, complain(file->name, is->paths[i].name, "it", "there", "not"));
}

/* What it did: before a front end opens it, so that no request takes another way first */
static void set_state(const struct conf_dev *d, struct outcome *o)
{
	struct iovm_dev_info info;
	struct iovm_path_info route;
	int code;

	code = get_dev(d->name, &info);
	if (!code && *d->route) {
		/* what is not by hand goes back by itself anyway; what is chosen here is by hand and would not */
		code = get_path(d->name, d->route, &route);
		if (!code && (d->by_hand || (info.route_id != route.id && !d->failback_after_ms)))
			code = dev_ctl(d->name, IOVM_DEV_FAILOVER, d->route, 0, "route as before the requests of");
	}
	note(o, code);
	if (d->suspended)
		note(o, dev_ctl(d->name, IOVM_DEV_SUSPEND, "", 0, "suspend"));
}

static void would(const struct conf_dev *d, const struct conf_dev *is, bool there, struct outcome *o)
{
	unsigned int i;

	if (there)
		differs(is, d, o);
	else
		say("%s: would be created", d->name);
	for (i = 0; i < d->nr_paths; i++) {
		if (there && path_of(is, d->paths[i].name))
			compare_path(is, d, &d->paths[i], o);
		else
			say("%s: path '%s' (%s) would be added", d->name, d->paths[i].name, d->paths[i].addr);
	}
	if (there)
		compare_order(is, d, o);
}

static void restore_paths(const struct conf_dev *d, const struct conf_dev *is, struct outcome *o)
{
	unsigned int i;
	int code;

	for (i = 0; i < d->nr_paths; i++) {
		if (path_of(is, d->paths[i].name)) {
			note(o, connect_again(d, &d->paths[i]));
			continue;
		}
		code = add_path(d, &d->paths[i]);
		if (!code)
			o->added++;
		note(o, code);
		o->changed = true;
	}
}

static void restore_dev(const struct conf_dev *d, struct conf_dev *is, struct outcome *o)
{
	bool there;
	unsigned int i;
	int code;

	code = conf_load_name(d->name, is);
	if (code > 0) {
		note(o, code);
		return;
	}
	there = !code;
	if (opt_dry) {
		would(d, is, there, o);
		return;
	}
	if (!there) {
		memset(is, 0, sizeof(*is));
		code = create_dev(d);
		if (code) {
			note(o, code);
			return;
		}
		o->created = o->changed = true;
	}
	note(o, hold(d, is));
	restore_paths(d, is, o);
	if (o->changed)
		set_state(d, o);
	code = conf_load_name(d->name, is);
	if (code) {
		note(o, code > 0 ? code : fail(EX_NOT_FOUND, NULL, "device '%s' is gone again", d->name));
		return;
	}
	o->usable = !differs(is, d, o);
	for (i = 0; i < d->nr_paths; i++)
		if (path_of(is, d->paths[i].name))
			compare_path(is, d, &d->paths[i], o);
	compare_order(is, d, o);
}

static void report(struct json *j, const struct conf_dev *d, const struct outcome *o)
{
	if (opt_json) {
		json_open(j, NULL, '{');
		json_str(j, "device", d->name);
		json_bool(j, "created", o->created);
		json_u64(j, "paths_added", o->added);
		json_bool(j, "complete", !o->code);
		json_bool(j, "usable", o->usable);
		json_close(j);
	} else if (o->created) {
		say("%s: created, %u of %u paths added%s", d->name, o->added, d->nr_paths, o->code ? "; not as it was" : "");
	} else if (o->added) {
		say("%s: %u paths added%s", d->name, o->added, o->code ? "; not as it was" : "");
	} else if (!opt_dry || !o->code) {
		say("%s: %s", d->name, o->code ? "not as in the file" : opt_dry ? "checked" : "is there already");
	}
}

static int restore(const struct conf_dev *devs, size_t nr)
{
	struct conf_dev *is = malloc(sizeof(*is));
	size_t i, incomplete = 0;
	struct json j;
	int code = 0;

	if (!is)
		return mux_fail(ENOMEM, NULL, NULL, "cannot restore");
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '[');
	}
	for (i = 0; i < nr; i++) {
		struct outcome o = { .code = 0 };

		restore_dev(&devs[i], is, &o);
		report(&j, &devs[i], &o);
		incomplete += !!o.code;
		if (!code)
			code = o.code;
	}
	if (opt_json)
		json_close(&j);
	free(is);
	if (!code)
		return EX_DONE;
	return fail(code, opt_dry ? NULL : "run it again when the reasons are gone: what is there stays as it is",
		    "%zu of %zu devices %s as the file says; the reasons are above", incomplete, nr,
		    incomplete == 1 ? "is not" : "are not");
}

static int run_restore(int argc, char **argv)
{
	struct conf_dev *devs;
	size_t nr = 0;
	int err;

	(void)argc;
	err = read_file(argv[0], &devs, &nr);
	if (!err)
		err = mux_open();
	if (!err)
		err = restore(devs, nr);
	free(devs);
	return err;
}

const struct cmd cmd_restore = {
	.name = "restore", .args = "FILE", .summary = "Make the devices and paths that 'save' wrote; '-' is standard input.",
	.detail =
	"The whole file is checked first. A device or path that is there already and is as in the file is left alone; one\n"
	"that differs is named and left alone too. What cannot be made is named, the rest is made, and the exit status is\n"
	"not 0; run it again for what is missing. An NBD server that does not answer now leaves its path connecting.\n"
	"A path must show the data identity it had.\n",
	.opts = restore_opts, .min_args = 1, .max_args = 1, .run = run_restore,
};
