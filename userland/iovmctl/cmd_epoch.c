// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * epoch take, epoch give: which host may write. By hand only what an agent on both hosts does else.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "iovmctl.h"

static const char *hint_of(int err, uint32_t op)
{
	switch (err) {
	case ENOENT:
		return "'iovmctl list' shows the devices";
	case ESTALE:
		return "'iovmctl show' tells its epoch; one that is taken must be greater than all that either host has had";
	case EBUSY:
		return op == IOVM_DEV_EPOCH_GIVE ? "stop the guest first ('iovmctl show' names the pid)" :
						   "wait until it has been given up";
	case EIO:
		return "once that path is live again, or has been removed, try again";
	case EOPNOTSUPP:
		return op == IOVM_DEV_EPOCH_GIVE ? "'iovmctl create --epoch' makes a guest's device that needs one" :
						   "'iovmctl create --epoch' makes a device that needs one";
	default:
		return NULL;
	}
}

static int run(const struct cmd *cmd, uint32_t op, char **argv)
{
	bool take = op == IOVM_DEV_EPOCH_TAKE;
	char text[128], what[160];
	struct iovm_dev_ctl c;
	uint64_t v;
	const char *bad;
	int err;

	IOVM_INIT(&c);
	c.op = op;
	err = take_name(cmd, "device", c.name, argv[0]);
	if (err)
		return err;
	bad = parse_count(argv[1], &v);
	if (bad || !v)
		return usage_error(cmd, "'%s' %s", argv[1], bad ?: "is no epoch: they begin at 1");
	c.value = v;
	err = mux_open();
	if (err)
		return err;
	snprintf(what, sizeof(what), "%s epoch %" PRIu64 " of %s", take ? "taking" : "giving up", v, c.name);
	err = mux_ioctl_wait(IOVM_DEV_CTL, &c, what, c.name, NULL);
	if (err)
		return mux_fail(err, c.msg, hint_of(err, op), "cannot %s epoch %" PRIu64 " of '%s'", take ? "take" : "give up", v,
				c.name);
	snprintf(text, sizeof(text), take ? "holds epoch %" PRIu64 : "has given up epoch %" PRIu64, v);
	return report_dev(c.name, text);
}

static int run_take(int argc, char **argv)
{
	(void)argc;
	return run(&cmd_epoch_take, IOVM_DEV_EPOCH_TAKE, argv);
}

const struct cmd cmd_epoch_take = {
	.name = "epoch take", .args = "NAME N", .summary = "Let a device of 'create --epoch' write.",
	.detail =
	"N is greater than every epoch that the disk has had, on any host, and no other host may hold one: its guest has stopped,\n"
	"and 'iovmctl epoch give' has succeeded there; or that host is off. Nothing here can check that: if two hosts write, the data\n"
	"are lost. The requests that wait go on.\n"
	"\n"
	"A target device: sessions with an older epoch end; returns when all that they had issued has ended, and admits only\n"
	"sessions of epoch N from then on. After Ctrl-C it admits nobody until it is called again.\n",
	.min_args = 2, .max_args = 2, .run = run_take,
};

static int run_give(int argc, char **argv)
{
	(void)argc;
	return run(&cmd_epoch_give, IOVM_DEV_EPOCH_GIVE, argv);
}

const struct cmd cmd_epoch_give = {
	.name = "epoch give", .args = "NAME N", .summary = "Have a device write no more, so that another host may.",
	.detail =
	"N is the epoch that it holds. Refused while a guest uses it. Returns when nothing that it has issued can land any more,\n"
	"and what it acknowledged is stable; shows on a terminal how many requests are left. A path that failed with writes whose\n"
	"end nobody knows must be fenced first. After Ctrl-C the device holds it still. A guest that starts afterwards waits.\n",
	.min_args = 2, .max_args = 2, .run = run_give,
};
