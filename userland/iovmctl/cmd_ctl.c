// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What one IOVM_DEV_CTL does: failover, failback, suspend, resume, fail-parked, set.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "iovmctl.h"

/* Fill a request from the command line and open the kernel side. */
static int prepare(const struct cmd *cmd, struct iovm_dev_ctl *c, uint32_t op, const char *name)
{
	int err;

	IOVM_INIT(c);
	c->op = op;
	err = take_name(cmd, "device", c->name, name);
	return err ? err : mux_open();
}

static const char *ctl_hint(int err, uint32_t op)
{
	switch (err) {
	case ENOENT:
		return op == IOVM_DEV_FAILOVER ? "'iovmctl list' shows the devices, 'iovmctl path list NAME' the paths" :
						 "'iovmctl list' shows the devices";
	case ENOLINK:
		return "'iovmctl path list NAME' shows the state of each path; 'path retry' and 'path connect' bring one back";
	default:
		return NULL;
	}
}

static int ctl(struct iovm_dev_ctl *c, const char *what)
{
	int err = mux_ioctl(IOVM_DEV_CTL, c);

	return err ? mux_fail(err, c->msg, ctl_hint(err, c->op), "cannot %s '%s'", what, c->name) : EX_DONE;
}

static int run_failover(int argc, char **argv)
{
	struct iovm_dev_ctl c;
	int err;

	err = prepare(&cmd_failover, &c, IOVM_DEV_FAILOVER, argv[0]);
	if (!err && argc > 1)
		err = take_name(&cmd_failover, "path", c.path, argv[1]);
	if (!err)
		err = ctl(&c, "fail over");
	return err ? err : report_dev(c.name, NULL);
}

const struct cmd cmd_failover = {
	.name = "failover", .args = "NAME [PATH]", .summary = "Route a device's requests to another path.",
	.detail =
	"To PATH, or else to the live path after the present one. The path left stays as it is; 'failback' returns to\n"
	"the first live path.\n",
	.min_args = 1, .max_args = 2, .run = run_failover,
};

static int run_failback(int argc, char **argv)
{
	struct iovm_dev_ctl c;
	int err;

	(void)argc;
	err = prepare(&cmd_failback, &c, IOVM_DEV_FAILBACK, argv[0]);
	if (!err)
		err = ctl(&c, "fail back");
	return err ? err : report_dev(c.name, NULL);
}

const struct cmd cmd_failback = {
	.name = "failback", .args = "NAME", .summary = "Route a device's requests to its first live path again.",
	.min_args = 1, .max_args = 1, .run = run_failback,
};

static int run_suspend(int argc, char **argv)
{
	struct iovm_dev_ctl c;
	char what[128];
	int err;

	(void)argc;
	err = prepare(&cmd_suspend, &c, IOVM_DEV_SUSPEND, argv[0]);
	if (err)
		return err;
	snprintf(what, sizeof(what), "suspending %s", c.name);
	err = mux_ioctl_wait(IOVM_DEV_CTL, &c, what, c.name, NULL);
	if (err)
		return mux_fail(err, c.msg, ctl_hint(err, c.op), "cannot suspend '%s'", c.name);
	return report_dev(c.name, "suspended, nothing is in flight");
}

const struct cmd cmd_suspend = {
	.name = "suspend", .args = "NAME", .summary = "Hold back a device's requests.",
	.detail =
	"The guest waits until 'iovmctl resume'. Returns when no request is in flight any more, and shows on a terminal\n"
	"how many are left. Ctrl-C stops the waiting.\n",
	.min_args = 1, .max_args = 1, .run = run_suspend,
};

static int run_resume(int argc, char **argv)
{
	struct iovm_dev_ctl c;
	int err;

	(void)argc;
	err = prepare(&cmd_resume, &c, IOVM_DEV_RESUME, argv[0]);
	if (!err)
		err = ctl(&c, "resume");
	return err ? err : report_dev(c.name, NULL);
}

const struct cmd cmd_resume = {
	.name = "resume", .args = "NAME", .summary = "Let a suspended device's requests go on.",
	.detail = "Writes that wait for space on a full store are tried again at once, too.\n",
	.min_args = 1, .max_args = 1, .run = run_resume,
};

static int run_fail_parked(int argc, char **argv)
{
	struct iovm_dev_ctl c;
	int err;

	(void)argc;
	err = prepare(&cmd_fail_parked, &c, IOVM_DEV_FAIL_PARKED, argv[0]);
	if (!err)
		err = ctl(&c, "fail what waits in");
	return err ? err : report_dev(c.name, "what waited was failed with an error to the guest");
}

const struct cmd cmd_fail_parked = {
	.name = "fail-parked", .args = "NAME", .summary = "Fail the requests that wait for a path or for space, once.",
	.detail =
	"The guest sees I/O errors. It is the way out when no path will come back and something (a VMM that is to stop)\n"
	"waits for the requests. Requests made later wait again.\n",
	.min_args = 1, .max_args = 1, .run = run_fail_parked,
};

static struct opt_u64 set_no_path, set_failback, set_iops, set_bps, set_no_space, set_slow_factor, set_leave_slow;

static const struct opt set_opts[] = {
	{ "no-path-timeout", 0, OPT_TIME, &set_no_path, "TIME",
	  "How long the guest waits while no path is usable;\n0 or 'never': for ever.", 0, 0 },
	{ "no-space-timeout", 0, OPT_TIME, &set_no_space, "TIME",
	  "How long a write waits for space; 0 or 'never': for\never.", 0, 0 },
	{ "failback-after", 0, OPT_TIME, &set_failback, "TIME",
	  "Go back to an earlier path by itself once it has been\nlive this long; 0: only by 'failback'.", 0, 0 },
	{ "slow-factor", 0, OPT_FACTOR, &set_slow_factor, "N",
	  "A path is reported as slow when requests take N times\nwhat is usual, or 'off'. What is usual is learned anew.",
	  2, 1000 },
	{ "leave-slow", 0, OPT_TIME, &set_leave_slow, "TIME",
	  "Leave a path that has been slow for this long, if\nanother one is clearly better; 0 or 'never': only say so.", 0, 0 },
	{ "iops", 0, OPT_COUNT, &set_iops, "N", "Requests per second at most; 0: no limit.", 0, 0 },
	{ "bps", 0, OPT_SIZE, &set_bps, "SIZE", "Bytes per second at most; 0: no limit.", 0, 0 },
	{ 0 }
};

static int run_set(int argc, char **argv)
{
	static const struct {
		const struct opt_u64 *opt;
		uint32_t op;
		const char *what;
	} sets[] = {
		{ &set_no_path, IOVM_DEV_SET_NO_PATH_TIMEOUT, "set the no-path timeout of" },
		{ &set_failback, IOVM_DEV_SET_FAILBACK_AFTER, "set the failback time of" },
		{ &set_no_space, IOVM_DEV_SET_NO_SPACE_TIMEOUT, "set the no-space timeout of" },
		{ &set_slow_factor, IOVM_DEV_SET_SLOW_FACTOR, "set the slow factor of" },
		{ &set_leave_slow, IOVM_DEV_SET_LEAVE_SLOW_AFTER, "set when to leave slow paths of" },
		{ &set_iops, IOVM_DEV_SET_IOPS, "set the IOPS limit of" },
		{ &set_bps, IOVM_DEV_SET_BPS, "set the bandwidth limit of" },
	};
	struct iovm_dev_ctl c;
	bool some = false;
	unsigned int i;
	int err;

	(void)argc;
	for (i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
		if (!sets[i].opt->set)
			continue;
		some = true;
		err = prepare(&cmd_set, &c, sets[i].op, argv[0]);
		c.value = sets[i].opt->v;
		if (!err)
			err = ctl(&c, sets[i].what);
		if (err)
			return err;
	}
	if (!some)
		return usage_error(&cmd_set, "nothing to set");
	return report_dev(c.name, "changed");
}

const struct cmd cmd_set = {
	.name = "set", .args = "NAME", .summary = "Change a device's time limits and rate limits.",
	.opts = set_opts, .min_args = 1, .max_args = 1, .run = run_set,
};
