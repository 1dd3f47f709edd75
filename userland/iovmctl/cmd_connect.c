// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * path connect: shake hands with an NBD server and hand the sockets to the kernel.
 */
#include <errno.h>
#include <string.h>

#include "iovmctl.h"

static struct opt_u64 opt_connections, opt_timeout;
static bool opt_drained, opt_replace;

static const struct opt connect_opts[] = {
	{ "connections", 'c', OPT_NUM, &opt_connections, "N",
	  "Connections to make, 1 to 16. Default 4, or 1 when the\nserver does not allow several.", 1, IOVM_MAX_SOCKETS },
	{ "drained", 0, OPT_FLAG, &opt_drained, NULL,
	  "The server has ended the path's earlier sessions, and all\nthat they had issued has ended: held writes go on. For a\n"
	  "path with --fence epoch; you must know.", 0, 0 },
	{ "replace", 0, OPT_FLAG, &opt_replace, NULL,
	  "The path is live, and stays live: new requests go to the new\nconnections; those before end when they have answered.", 0, 0 },
	{ "timeout", 0, OPT_TIME, &opt_timeout, "TIME", "Time limit for connecting. Default 10s.", 0, 0 },
	{ "pace", 0, OPT_RATE, &nbd_pace, "RATE", "The most that a connection sends. Default: no limit.", 0, 0 },
	{ 0 }
};

/* Is it what somebody wants who is told that it cannot be connected any more? */
static bool is_connected(const char *dev, const char *name)
{
	struct iovm_path_info pi;

	IOVM_INIT(&pi);
	snprintf(pi.dev, sizeof(pi.dev), "%s", dev);
	snprintf(pi.name, sizeof(pi.name), "%s", name);
	return !mux_ioctl(IOVM_PATH_GET, &pi) && (pi.state == IOVM_PATH_LIVE || pi.state == IOVM_PATH_SUSPECT);
}

int connect_path(const char *dev, const char *name, const struct nbd_export *ex, const char *id)
{
	struct iovm_path_connect c;
	const char *hint = NULL;
	unsigned int i;
	int err;

	IOVM_INIT(&c);
	snprintf(c.dev, sizeof(c.dev), "%s", dev);
	snprintf(c.name, sizeof(c.name), "%s", name);
	c.nr_fds = ex->nr;
	for (i = 0; i < IOVM_MAX_SOCKETS; i++)
		c.fds[i] = i < ex->nr ? ex->fds[i] : 0;
	c.export_bytes = ex->bytes;
	c.nbd_flags = ex->flags;
	c.flags = (ex->structured ? IOVM_NBD_F_STRUCTURED : 0) | (ex->drained ? IOVM_NBD_F_DRAINED : 0) |
		  (ex->tls ? IOVM_NBD_F_TLS : 0) | (ex->replace ? IOVM_NBD_F_REPLACE : 0);
	c.min_block = ex->min_block;
	c.max_payload = ex->max_payload;
	snprintf(c.identity, sizeof(c.identity), "%s", id);
	err = mux_ioctl(IOVM_PATH_CONNECT, &c);
	/* another process was quicker: a watcher sees a path as soon as it is added */
	if (err == EBUSY && !ex->replace && is_connected(dev, name))
		return EX_DONE;
	if (err == EMEDIUMTYPE)
		hint = "every path must have the size, a block size and the data of its device: see 'iovmctl show'";
	else if (err == EOPNOTSUPP && ex->replace)
		hint = "'iovmctl path fail', then 'path connect' without --replace: another path takes over meanwhile";
	else if (err == EBUSY && !ex->replace)
		hint = "it has its connections; 'iovmctl path fail' drops them";
	else if (err == ENOENT)
		hint = "'iovmctl path list' shows the paths";
	if (err)
		return mux_fail(err, c.msg, hint, "cannot connect path '%s' of '%s'", name, dev);
	return EX_DONE;
}

int reconnect_path(const struct iovm_path_info *pi, const struct nbd_export *ex)
{
	const char *id = ex->identity;

	if (!*id && pi->flags & IOVM_PATH_F_IDENTITY_GIVEN)
		id = pi->identity;
	return connect_path(pi->dev, pi->name, ex, id);
}

static int run_connect(int argc, char **argv)
{
	struct iovm_path_info pi;
	struct nbd_export ex;
	bool usable;
	int err;

	(void)argc;
	err = take_path(&cmd_path_connect, argv, &pi);
	if (err)
		return err;
	if (pi.type != IOVM_PATH_NBD)
		return fail(EX_REFUSED, "a failed bdev path is brought back by 'iovmctl path retry'",
			    "path '%s' of '%s' is not an nbd path", pi.name, pi.dev);
	if (opt_replace && opt_drained)
		return usage_error(&cmd_path_connect, "--drained is for a path that has failed, --replace for one that is live");
	usable = pi.state == IOVM_PATH_LIVE || pi.state == IOVM_PATH_SUSPECT;
	if (opt_replace ? !usable : pi.state != IOVM_PATH_CONNECTING && pi.state != IOVM_PATH_FAILED)
		return fail(EX_REFUSED, opt_replace ? "without --replace it is connected" :
			    "it has its connections; --replace makes others, 'iovmctl path fail' drops them", "path '%s' of '%s' is %s",
			    pi.name, pi.dev, name_of(path_state_names, pi.state) ?: "in an unknown state");
	err = nbd_open_export(pi.addr, opt_connections.set || !opt_replace ? (unsigned int)opt_connections.v : pi.nr_sockets, false,
			      opt_timeout.v, &ex);
	if (err)
		return err;
	ex.drained = opt_drained;
	ex.replace = opt_replace;
	err = reconnect_path(&pi, &ex);
	nbd_close_export(&ex);
	return err ? err : report_path(pi.dev, pi.name);
}

const struct cmd cmd_path_connect = {
	.name = "path connect", .args = "DEV PATH", .summary = "Connect, or connect again, an nbd path.",
	.detail =
	"The address is the one the path was added with. The path must be connecting or failed, or live with --replace, which\n"
	"is how TLS keys and certificates are renewed. 'path reconnect' is the same command.\n",
	.opts = connect_opts, .min_args = 2, .max_args = 2, .run = run_connect,
};
