// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * path add, set, remove, list, fail, retry, fence, fenced.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "iovmctl.h"

static struct {
	struct opt_u64 connections, heartbeat, dead, timeout, io_timeout, fence_after;
	const char *cache, *fence, *identity, *fence_by, *fence_command, *pr_key, *tls_dir, *tls_peer;
	bool offline, assume, shared, tls;
} o;

#define OPT_FENCE_COMMAND								\
	{ "fence-command", 0, OPT_STR, &o.fence_command, "PROGRAM",			\
	  "The program to run then: it exits with status 0 once\nnothing sent to this path can land any more.", 0, 0 }
#define OPT_FENCE_AFTER									\
	{ "fence-after", 0, OPT_TIME, &o.fence_after, "TIME",				\
	  "Fence once the path has been failed for so long. Default\n3s.", 0, 0 }

static const struct opt add_opts[] = {
	{ "connections", 'c', OPT_NUM, &o.connections, "N",
	  "nbd: connections to make, 1 to 16. Default 4, or 1 when\nthe server does not allow several.", 1, IOVM_MAX_SOCKETS },
	{ "cache", 0, OPT_STR, &o.cache, "survives|dies",
	  "Do acknowledged writes survive the loss of this path?\nIf they die with it, every write is sent as FUA.\n"
	  "Default: bdev survives, nbd dies.", 0, 0 },
	{ "fence", 0, OPT_STR, &o.fence, "local-error|none|epoch",
	  "What proves that a write that failed here will not land\nlater: the error itself (a directly attached disk), or\n"
	  "nothing (writes wait for this path to return, or for\n'path fenced'), or a target device that drains what came\n"
	  "before ('path connect --drained'). Default: bdev\nlocal-error, nbd none.", 0, 0 },
	{ "fence-by", 0, OPT_STR, &o.fence_by, "hand|command|offline|reservation",
	  "Who makes sure of that once writes wait: you, by 'path\nfenced', which is the default; or 'path watch', by the\n"
	  "fence command, or by having the disk's driver give back\nwhat it has (SCSI, NVMe; with --fence local-error); or\n"
	  "the kernel, by a reservation (SCSI, NVMe) through another\npath that has one.", 0, 0 },
	{ "pr-key", 0, OPT_STR, &o.pr_key, "KEY",
	  "The reservation key of this path, 0x... or decimal; each\nway to the medium needs one of its own.", 0, 0 },
	OPT_FENCE_COMMAND,
	OPT_FENCE_AFTER,
	{ "identity", 0, OPT_STR, &o.identity, "ID",
	  "What data it is, as SCHEME:TEXT, where nothing shows it.", 0, 0 },
	{ "assume-same-data", 0, OPT_FLAG, &o.assume, NULL,
	  "Take the path although nothing shows that its data is\nthe device's. If it is not, the guest's data is lost.", 0, 0 },
	{ "shared", 0, OPT_FLAG, &o.shared, NULL,
	  "bdev: other devices' paths that have this too may use the\nsame disk (one for a guest and a target, say). Nothing\n"
	  "keeps them from writing at the same time: you must. Not\nwith a reservation.", 0, 0 },
	{ "io-timeout", 0, OPT_TIME, &o.io_timeout, "TIME",
	  "How long a request may take. After half of it the path\nis suspect, after all of it failed. Default 10s; 0 or\n'never': for ever.",
	  0, 0 },
	{ "heartbeat", 0, OPT_TIME_MS, &o.heartbeat, "MS", "nbd: probe an idle connection this often. Default 1000.",
	  1, 3600000 },
	{ "dead", 0, OPT_TIME_MS, &o.dead, "MS", "nbd: no answer for this long fails the path. Default 5000.", 1, 3600000 },
	{ "timeout", 0, OPT_TIME, &o.timeout, "TIME", "nbd: time limit for connecting. Default 10s.", 0, 0 },
	{ "tls", 0, OPT_FLAG, &o.tls, NULL, "nbd: with TLS, as an address nbds:// says.", 0, 0 },
	{ "tls-peer", 0, OPT_STR, &o.tls_peer, "NAME",
	  "Who the server must be, by the name of its file in peers/.\nDefault: the host in the address.", 0, 0 },
	{ "tls-dir", 0, OPT_STR, &o.tls_dir, "DIR",
	  "Where host.crt, host.key and peers/NAME.crt are. Default\n" TLS_DIR ".", 0, 0 },
	{ "pace", 0, OPT_RATE, &nbd_pace, "RATE", "nbd: The most that a connection sends. Default: no limit.", 0, 0 },
	{ "offline", 0, OPT_FLAG, &o.offline, NULL,
	  "nbd: add the path even when the server cannot be reached\nnow; 'path connect' connects it later.", 0, 0 },
	{ 0 }
};

static int take_fence_by(const struct cmd *cmd, struct iovm_path_add *a)
{
	const char *by = o.fence_by ?: o.fence_command ? "command" : o.pr_key ? "reservation" : "hand", *bad;
	char *end;

	while (fence_by_names[a->fence_by] && strcmp(fence_by_names[a->fence_by], by))
		a->fence_by++;
	if (!fence_by_names[a->fence_by])
		return usage_error(cmd, "--fence-by: '%s' is none of hand, command, offline, reservation", by);
	if ((a->fence_by == IOVM_FENCE_BY_COMMAND) != !!o.fence_command)
		return usage_error(cmd, "--fence-by command and --fence-command belong together");
	if ((a->fence_by == IOVM_FENCE_BY_RESERVATION) != !!o.pr_key)
		return usage_error(cmd, "--fence-by reservation and --pr-key belong together");
	if (o.pr_key) {
		errno = 0;
		a->pr_key = strtoull(o.pr_key, &end, 0);
		if (errno || *end || !a->pr_key || !strchr("0123456789", *o.pr_key))
			return usage_error(cmd, "--pr-key: '%s' is not a number from 1 to 0xffffffffffffffff", o.pr_key);
	}
	if (o.fence_after.set && a->fence_by == IOVM_FENCE_BY_HAND)
		return usage_error(cmd, "--fence-after is for what others than you do: see --fence-by");
	if (o.fence_after.v > 3600000)
		return usage_error(cmd, "--fence-after: at most 1h");
	a->fence_after_ms = o.fence_after.set && !o.fence_after.v ? 1 : (uint32_t)o.fence_after.v;
	if (!o.fence_command)
		return EX_DONE;
	bad = fence_program_bad(o.fence_command);
	if (bad)
		return fail(EX_REFUSED, "name a program of root's by its full path; it is run without arguments, see iovmctl(8)",
			    "--fence-command: '%s' %s", o.fence_command, bad);
	strcpy(a->fence_command, o.fence_command);
	return EX_DONE;
}

static int take_add(struct iovm_path_add *a, char **argv, enum addr_kind *kind, const char **rest)
{
	char addr[IOVM_ADDR_MAX];
	const char *bad;
	int err;

	err = take_name(&cmd_path_add, "device", a->dev, argv[0]);
	if (!err)
		err = take_name(&cmd_path_add, "path", a->name, argv[1]);
	if (err)
		return err;
	bad = parse_addr(argv[2], kind, rest);
	if (bad)
		return usage_error(&cmd_path_add, "'%s' %s", argv[2], bad);
	if (o.tls || o.tls_dir || o.tls_peer) {
		if (*kind != ADDR_NBD_TLS && (*kind != ADDR_NBD_TCP || !o.tls))
			return usage_error(&cmd_path_add, "--tls is for addresses nbd:// and nbds://, --tls-dir and --tls-peer go with it");
		nbd_tls_addr(argv[2], o.tls_dir, o.tls_peer, addr, sizeof(addr));
		*rest = addr;
		bad = *addr ? parse_addr(addr, kind, rest) : NULL;
		if (bad)
			return usage_error(&cmd_path_add, "'%s' %s", addr, bad);
		if (!*addr)
			return usage_error(&cmd_path_add, "the address with what --tls adds is longer than %d bytes", IOVM_ADDR_MAX - 1);
	}
	if (strlen(*rest) >= IOVM_ADDR_MAX)
		return usage_error(&cmd_path_add, "the address is longer than %d bytes", IOVM_ADDR_MAX - 1);
	strcpy(a->addr, *rest);
	if (*kind != ADDR_BDEV)
		*rest = a->addr;
	if (*kind == ADDR_BDEV && (o.connections.set || o.heartbeat.set || o.dead.set || o.timeout.set || nbd_pace.set || o.offline))
		return usage_error(&cmd_path_add,
				   "--connections, --heartbeat, --dead, --timeout, --pace and --offline are for nbd paths");
	if (*kind != ADDR_BDEV && o.shared)
		return usage_error(&cmd_path_add, "--shared is for bdev paths");
	if (o.shared && o.pr_key)
		return usage_error(&cmd_path_add, "--shared: one host has one reservation key at a disk; no --pr-key with it");
	if (o.shared)
		a->flags |= IOVM_PATH_F_SHARED;
	if (o.cache && !strcmp(o.cache, "survives"))
		a->flags |= IOVM_PATH_F_CACHE_SURVIVES;
	else if (o.cache && !strcmp(o.cache, "dies"))
		a->flags |= IOVM_PATH_F_CACHE_DIES;
	else if (o.cache)
		return usage_error(&cmd_path_add, "--cache: '%s' is neither survives nor dies", o.cache);
	if (o.fence && !strcmp(o.fence, "local-error"))
		a->fence = IOVM_FENCE_LOCAL_ERROR;
	else if (o.fence && !strcmp(o.fence, "none"))
		a->fence = IOVM_FENCE_NONE;
	else if (o.fence && !strcmp(o.fence, "epoch"))
		a->fence = IOVM_FENCE_EPOCH;
	else if (o.fence)
		return usage_error(&cmd_path_add, "--fence: '%s' is neither local-error nor none nor epoch", o.fence);
	err = take_fence_by(&cmd_path_add, a);
	if (err)
		return err;
	bad = o.identity ? parse_identity(o.identity) : NULL;
	if (bad)
		return usage_error(&cmd_path_add, "--identity: '%s' %s", o.identity, bad);
	if (o.assume)
		a->flags |= IOVM_PATH_F_ASSUME_SAME;
	if (o.io_timeout.set && o.io_timeout.v && (o.io_timeout.v < 20 || o.io_timeout.v > 3600000))
		return usage_error(&cmd_path_add, "--io-timeout: between 20ms and 1h, or never");
	if (o.io_timeout.set)
		a->io_timeout_ms = o.io_timeout.v ? (uint32_t)o.io_timeout.v : IOVM_NO_TIMEOUT;
	return EX_DONE;
}

static int not_bdev(const char *file)
{
	return fail(EX_REFUSED, "for an image file, set up a loop device: losetup -f --show --direct-io=on FILE",
		    "'%s' is not a block device", file);
}

int open_bdev(const char *file, bool rdonly, int *fd)
{
	const char *hint = NULL;
	struct stat st;
	int err;

	if (!stat(file, &st) && !S_ISBLK(st.st_mode))
		return not_bdev(file);
	*fd = open(file, (rdonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0) {
		err = errno;
		if (err == EROFS || err == EACCES)
			hint = "it can serve a device that was created with --readonly";
		return mux_fail(err, NULL, hint, "cannot open '%s'%s", file, rdonly ? "" : " for writing");
	}
	if (!fstat(*fd, &st) && S_ISBLK(st.st_mode))
		return EX_DONE;
	close(*fd);
	return not_bdev(file);
}

const char *path_add_hint(int err)
{
	switch (err) {
	case EBUSY:
		return "'lsblk' and 'fuser -v' tell what uses the device: a mount, LVM, dm? Or another path: paths of several devices "
		       "may use it if all have --shared";
	case EMEDIUMTYPE:
		return "every path must have the size, a block size and the data of its device: see 'iovmctl show', and "
		       "'iovmctl path add --help' on --identity and --assume-same-data";
	case EEXIST:
		return "'iovmctl path list' shows the names in use";
	case ENOSPC:
		return "remove a path that is no longer needed";
	default:
		return NULL;
	}
}

static int take_identity(struct iovm_path_add *a, const char *found)
{
	if (o.identity && !*found)
		a->flags |= IOVM_PATH_F_IDENTITY_GIVEN;
	return identity_settle(&cmd_path_add, a->addr, o.identity, found, a->identity);
}

/* Connect first, so that a server that is not there leaves nothing behind; then add; then hand the sockets over. */
static int add_nbd(struct iovm_path_add *a)
{
	struct nbd_export ex = { .nr = 0 };
	struct iovm_path_remove r;
	int err, code;

	code = nbd_open_export(a->addr, (unsigned int)o.connections.v, false, o.timeout.v, &ex);
	if (code && !o.offline)
		return code;
	err = take_identity(a, code ? "" : ex.identity);
	if (err) {
		nbd_close_export(&ex);
		return err;
	}
	err = mux_ioctl(IOVM_PATH_ADD, a);
	if (err) {
		nbd_close_export(&ex);
		return mux_fail(err, a->msg, path_add_hint(err), "cannot add path '%s' to '%s'", a->name, a->dev);
	}
	if (code) {
		warn("the path was added all the same; 'iovmctl path connect %s %s' connects it", a->dev, a->name);
		return EX_DONE;
	}
	code = connect_path(a->dev, a->name, &ex, a->identity);
	nbd_close_export(&ex);
	if (!code)
		return EX_DONE;
	IOVM_INIT(&r);
	strcpy(r.dev, a->dev);
	strcpy(r.name, a->name);
	/* not by force: a watcher may have connected it meanwhile */
	err = mux_ioctl(IOVM_PATH_REMOVE, &r);
	if (err)
		warn("path '%s' of '%s' is left over: %s", a->name, a->dev, *r.msg ? r.msg : strerror(err));
	return code;
}

static int check_offline(const struct iovm_path_add *a, dev_t devt)
{
	if (a->fence_by != IOVM_FENCE_BY_OFFLINE || offline_knows(devt))
		return EX_DONE;
	return fail(EX_REFUSED, "a partition, dm, storage behind a network and anything else has no way of its own; use --fence-command",
		    "'%s' is no whole, directly attached SCSI or NVMe disk, which could be taken offline", a->addr);
}

static int run_add(int argc, char **argv)
{
	char found[IOVM_IDENTITY_MAX];
	struct iovm_dev_info info;
	struct iovm_path_add a;
	enum addr_kind kind;
	const char *rest;
	struct stat st;
	int err;

	(void)argc;
	IOVM_INIT(&a);
	a.fd = -1;
	err = take_add(&a, argv, &kind, &rest);
	if (!err)
		err = mux_open();
	if (!err)
		err = get_dev(a.dev, &info);
	if (err)
		return err;
	a.heartbeat_ms = (uint32_t)o.heartbeat.v;
	a.dead_ms = (uint32_t)o.dead.v;
	if (kind == ADDR_BDEV) {
		a.type = IOVM_PATH_BDEV;
		err = open_bdev(rest, info.flags & IOVM_DEV_F_RDONLY, &a.fd);
		if (err)
			return err;
		err = fstat(a.fd, &st) ? mux_fail(errno, NULL, NULL, "'%s'", rest) : check_offline(&a, st.st_rdev);
		if (err) {
			close(a.fd);
			return err;
		}
		identity_of_bdev(a.fd, found);
		err = take_identity(&a, found);
		if (err) {
			close(a.fd);
			return err;
		}
		err = mux_ioctl(IOVM_PATH_ADD, &a);
		close(a.fd);
		if (err)
			return mux_fail(err, a.msg, path_add_hint(err), "cannot add path '%s' to '%s'", a.name, a.dev);
	} else {
		a.type = IOVM_PATH_NBD;
		err = add_nbd(&a);
		if (err)
			return err;
	}
	return report_path(a.dev, a.name);
}

const struct cmd cmd_path_add = {
	.name = "path add", .args = "DEV NAME ADDR", .summary = "Give a device another path; it is last in order.",
	.detail =
	"ADDR is where the data is:\n"
	"  bdev:/dev/sdX, or /dev/sdX             a block device of this host: disk, partition, LVM, dm, loop\n"
	"  nbd://HOST[:PORT][/EXPORT]             an NBD server over TCP (port 10809)\n"
	"  nbd+unix:///[EXPORT]?socket=/PATH      an NBD server on a unix socket\n"
	"Every path must lead to the same data, and show it: by a name that the disk has (SCSI NAA or EUI, NVMe, dm or md\n"
	"UUID), or the server gives in the description of the export ('iovm-id=ID', see 'iovmctl identify'), or you give by\n"
	"--identity. The first path of a device need not.\n"
	"A server must bypass its page cache (qemu-nbd --cache=none), or it answers with old data after a failover; that\n"
	"cannot be seen from here, but for some servers on a unix socket. With TLS\n"
	"(--tls, or nbds://), the kernel encrypts; see iovmctl(8) on certificates.\n"
	"\n"
	"A name is resolved, the server asked and the sockets connected here; the kernel gets them ready for use.\n"
	"If that fails, nothing is added, unless --offline is given.\n"
	"\n"
	"Examples:\n"
	"  iovmctl path add vm1 local /dev/sdb\n"
	"  iovmctl path add vm1 hostb nbd://hostb:10809/vm1\n",
	.opts = add_opts, .min_args = 3, .max_args = 3, .run = run_add,
};

static const struct opt set_opts[] = {
	{ "fence-by", 0, OPT_STR, &o.fence_by, "hand|command|offline", "Who fences it from now on, see 'path add'.", 0, 0 },
	OPT_FENCE_COMMAND,
	OPT_FENCE_AFTER,
	{ 0 }
};

/* What no option says stays as it is. */
static void keep_fence(const struct iovm_path_info *pi)
{
	if (!o.fence_by && !o.fence_command)
		o.fence_by = name_of(fence_by_names, pi->fence_by);
	if (!o.fence_command && !strcmp(o.fence_by, "command") && *pi->fence_command)
		o.fence_command = pi->fence_command;
	if (!o.fence_after.set && pi->fence_by != IOVM_FENCE_BY_HAND && (!o.fence_by || strcmp(o.fence_by, "hand")))
		o.fence_after = (struct opt_u64){ .set = true, .v = pi->fence_after_ms };
}

static int run_path_set(int argc, char **argv)
{
	struct iovm_path_info pi;
	struct iovm_path_add a;
	struct iovm_path_ctl c;
	int err;

	(void)argc;
	if (!o.fence_by && !o.fence_command && !o.fence_after.set)
		return usage_error(&cmd_path_set, "nothing to set: give at least one option");
	err = take_path(&cmd_path_set, argv, &pi);
	if (err)
		return err;
	if (pi.fence_by == IOVM_FENCE_BY_RESERVATION || (o.fence_by && !strcmp(o.fence_by, "reservation")))
		return fail(EX_REFUSED, "'iovmctl path remove', then 'path add'", "a reservation is made and given up with its path '%s'",
			    pi.name);
	keep_fence(&pi);
	IOVM_INIT(&a);
	strcpy(a.addr, pi.addr);
	err = take_fence_by(&cmd_path_set, &a);
	if (!err)
		err = check_offline(&a, pi.type == IOVM_PATH_BDEV ? makedev(pi.bdev_major, pi.bdev_minor) : 0);
	if (err)
		return err;
	IOVM_INIT(&c);
	c.op = IOVM_PATH_CTL_SET_FENCE;
	strcpy(c.dev, pi.dev);
	strcpy(c.name, pi.name);
	c.fence_by = a.fence_by;
	c.fence_after_ms = a.fence_after_ms;
	strcpy(c.fence_command, a.fence_command);
	err = mux_ioctl(IOVM_PATH_CTL, &c);
	if (err)
		return mux_fail(err, c.msg, NULL, "cannot change path '%s' of '%s'", c.name, c.dev);
	return report_path(c.dev, c.name);
}

const struct cmd cmd_path_set = {
	.name = "path set", .args = "DEV PATH", .summary = "Change how a path is fenced.",
	.detail =
	"Also while it is failed and writes wait for it: 'path watch' goes by what is said last. Not from or to a reservation.\n",
	.opts = set_opts, .min_args = 2, .max_args = 2, .run = run_path_set,
};

static bool remove_force;

static const struct opt remove_opts[] = {
	{ "force", 'f', OPT_FLAG, &remove_force, NULL, "Fail the path first instead of waiting for what it has\nin flight.", 0, 0 },
	{ 0 }
};

static int run_remove(int argc, char **argv)
{
	struct iovm_path_remove r;
	char what[192];
	struct json j;
	int err;

	(void)argc;
	IOVM_INIT(&r);
	err = take_name(&cmd_path_remove, "device", r.dev, argv[0]);
	if (!err)
		err = take_name(&cmd_path_remove, "path", r.name, argv[1]);
	if (!err)
		err = mux_open();
	if (err)
		return err;
	r.flags = remove_force ? IOVM_PATH_REMOVE_F_FORCE : 0;
	snprintf(what, sizeof(what), "removing path %s of %s", r.name, r.dev);
	err = mux_ioctl_wait(IOVM_PATH_REMOVE, &r, what, r.dev, r.name);
	if (err)
		return mux_fail(err, r.msg, err == ENOENT ? "'iovmctl path list' shows the paths" : NULL,
				"cannot remove path '%s' of '%s'", r.name, r.dev);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "device", r.dev);
		json_str(&j, "removed", r.name);
		json_close(&j);
	} else {
		printf("%s: path '%s' removed\n", r.dev, r.name);
	}
	return EX_DONE;
}

const struct cmd cmd_path_remove = {
	.name = "path remove", .args = "DEV PATH", .summary = "Drain and remove a path.",
	.detail = "New requests go elsewhere at once; what the path has in flight is waited for.\n",
	.opts = remove_opts, .min_args = 2, .max_args = 2, .run = run_remove,
};

static int run_path_list(int argc, char **argv)
{
	struct path_view paths[IOVM_MAX_PATHS];
	struct dev_view v;
	unsigned int nr;
	struct json j;
	int err;

	(void)argc;
	err = take_paths(&cmd_path_list, argv[0], &v, paths, &nr);
	if (err)
		return err;
	if (opt_json) {
		json_init(&j, stdout, true);
		fields_json_array(&j, NULL, path_fields, paths, nr, sizeof(*paths));
	} else {
		fields_table(path_fields, paths, nr, sizeof(*paths));
	}
	return EX_DONE;
}

const struct cmd cmd_path_list = {
	.name = "path list", .args = "DEV", .summary = "List the paths of a device, in order of preference.",
	.min_args = 1, .max_args = 1, .run = run_path_list,
};

static int path_ctl(const struct cmd *cmd, uint32_t op, char **argv)
{
	struct iovm_path_ctl c;
	const char *hint = NULL;
	int err;

	IOVM_INIT(&c);
	c.op = op;
	err = take_name(cmd, "device", c.dev, argv[0]);
	if (!err)
		err = take_name(cmd, "path", c.name, argv[1]);
	if (!err)
		err = mux_open();
	if (err)
		return err;
	err = mux_ioctl(IOVM_PATH_CTL, &c);
	if (err == ENOENT)
		hint = "'iovmctl path list' shows the paths";
	else if (err && op == IOVM_PATH_CTL_RETRY)
		hint = "an nbd path is brought back by 'iovmctl path connect'";
	if (err)
		return mux_fail(err, c.msg, hint, "%s '%s' of '%s'", cmd->name, c.name, c.dev);
	return report_path(c.dev, c.name);
}

static int run_fail(int argc, char **argv)
{
	(void)argc;
	return path_ctl(&cmd_path_fail, IOVM_PATH_CTL_FAIL, argv);
}

const struct cmd cmd_path_fail = {
	.name = "path fail", .args = "DEV PATH", .summary = "Mark a path as failed now.",
	.detail = "What it has in flight goes elsewhere, as after a real error.\n",
	.min_args = 2, .max_args = 2, .run = run_fail,
};

static int run_retry(int argc, char **argv)
{
	(void)argc;
	return path_ctl(&cmd_path_retry, IOVM_PATH_CTL_RETRY, argv);
}

const struct cmd cmd_path_retry = {
	.name = "path retry", .args = "DEV PATH", .summary = "Probe a failed bdev path; it is live again if it answers.",
	.min_args = 2, .max_args = 2, .run = run_retry,
};

static int run_fenced(int argc, char **argv)
{
	(void)argc;
	return path_ctl(&cmd_path_fenced, IOVM_PATH_CTL_FENCED, argv);
}

const struct cmd cmd_path_fenced = {
	.name = "path fenced", .args = "DEV PATH", .summary = "State that nothing sent to a failed path can land any more.",
	.detail =
	"The writes that wait for it then go to another path. Only say so when it is true: the server is stopped or cut off\n"
	"from the data, its host is off. A write that still lands there later overwrites newer data.\n",
	.min_args = 2, .max_args = 2, .run = run_fenced,
};

static struct opt_u64 fence_timeout;

static const struct opt fence_opts[] = {
	{ "timeout", 't', OPT_TIME, &fence_timeout, "TIME", "Time limit. Default 1min.", 0, 0 },
	{ 0 }
};

static int run_fence(int argc, char **argv)
{
	char hint[224];
	struct iovm_path_info pi;
	int err;

	(void)argc;
	err = take_path(&cmd_path_fence, argv, &pi);
	if (err)
		return err;
	if (pi.fence_by == IOVM_FENCE_BY_RESERVATION)
		return fail(EX_REFUSED, "'iovmctl show' says how it went", "path '%s' of '%s' is fenced by the kernel, at once",
			    pi.name, pi.dev);
	if (pi.fence_by == IOVM_FENCE_BY_HAND) {
		snprintf(hint, sizeof(hint), "make sure yourself, then 'iovmctl path fenced %s %s'; 'path set' has --fence-command", pi.dev,
			 pi.name);
		return fail(EX_REFUSED, hint, "path '%s' of '%s' says of no way to fence it", pi.name, pi.dev);
	}
	if (pi.state != IOVM_PATH_FAILED)
		return fail(EX_REFUSED, "only what has failed is fenced: 'iovmctl path fail' first", "path '%s' of '%s' is %s", pi.name,
			    pi.dev, name_of(path_state_names, pi.state) ?: "in use");
	err = fence_path(&pi, fence_timeout.v, true);
	return err != FENCE_BUSY ? err :
	       fail(EX_REFUSED, NULL, "path '%s' of '%s' is just being fenced by another process", pi.name, pi.dev);
}

const struct cmd cmd_path_fence = {
	.name = "path fence", .args = "DEV PATH", .summary = "Fence a failed path now, in the way that it says.",
	.detail =
	"What 'path watch' does by itself for a path with --fence-by command or offline, as long as writes wait: see there.\n"
	"On success the writes that wait go to another path.\n",
	.opts = fence_opts, .min_args = 2, .max_args = 2, .run = run_fence,
};
