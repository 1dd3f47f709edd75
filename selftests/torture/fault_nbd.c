// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults of NBD servers and of the network to them. */
#include "fault.h"
#include "net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int killed_begin(struct fault *f)
{
	bed_kill_server(f->b, f->p);
	return 0;
}

/* For those after which the sessions are of no use any more */
static int killed_end(struct fault *f)
{
	f->p->srv.hang = f->p->srv.stash = false;
	f->p->srv.delay_us = 0;
	bed_kill_server(f->b, f->p);
	return 0;
}

static int silent_begin(struct fault *f)
{
	f->hold_ms = fault_rnd(f, f->p->dead_ms / 8, 2 * f->p->dead_ms);
	f->p->srv.hang = true;
	return 0;
}

/*
 * The server takes writes and does nothing, until it is given up; the guest goes on elsewhere; then these writes land, and then
 * the server dies. Without a fence none of them may have been issued elsewhere meanwhile.
 */
static int late_begin(struct fault *f)
{
	f->hold_ms = fault_time(f, 30, 200);
	f->p->srv.stash = true;
	if (ctl_wait_path_state(f->p->dev, f->p->name, IOVM_PATH_FAILED, 5 * f->p->dead_ms))
		snprintf(f->what, sizeof(f->what), "given up");
	return 0;
}

static int late_end(struct fault *f)
{
	unsigned int n;

	f->p->srv.stash = false;
	n = nbdsrv_land(&f->p->srv, false);
	model_mark(f->b->m, "%u writes land late on %s", n, f->p->name);
	bed_kill_server(f->b, f->p);
	return 0;
}

static int slow_begin(struct fault *f)
{
	f->p->srv.delay_us = fault_time(f, 200, 20000);
	snprintf(f->what, sizeof(f->what), "by %u us", f->p->srv.delay_us);
	return 0;
}

static int slow_end(struct fault *f)
{
	f->p->srv.delay_us = 0;
	return 0;
}

static int disorder_begin(struct fault *f)
{
	f->p->srv.batch = fault_rnd(f, 2, 16);
	return 0;
}

static int disorder_end(struct fault *f)
{
	f->p->srv.batch = 0;
	return 0;
}

/* What the server has no room for waits, and goes on when there is some. */
static int full_begin(struct fault *f)
{
	f->hold_ms = fault_time(f, 20, 600);
	f->p->srv.full = true;
	return 0;
}

static int full_end(struct fault *f)
{
	f->p->srv.full = false;
	/* by itself it would be tried again some time later: both have to do */
	if (fault_rnd(f, 0, 1))
		ctl_dev_ctl(f->b->dev, IOVM_DEV_RESUME, NULL, 0);
	return 0;
}

/* One reply is wrong; without requests on this path there is none. */
static int corrupt(struct fault *f, u32 how)
{
	f->p->srv.corrupt = how;
	return 0;
}

static int cookie_begin(struct fault *f)
{
	return corrupt(f, NBDSRV_BAD_COOKIE);
}

static int magic_begin(struct fault *f)
{
	return corrupt(f, NBDSRV_BAD_MAGIC);
}

static int truncated_begin(struct fault *f)
{
	return corrupt(f, NBDSRV_CUT_SHORT);
}

static int eio_begin(struct fault *f)
{
	return corrupt(f, NBDSRV_SAYS_EIO);
}

static int corrupt_end(struct fault *f)
{
	f->p->srv.corrupt = NBDSRV_FINE;
	return 0;
}

static int size_begin(struct fault *f)
{
	int r;

	bed_kill_server(f->b, f->p);
	if (!ctl_wait_path_state(f->p->dev, f->p->name, IOVM_PATH_FAILED, 10000))
		return -ETIMEDOUT;
	r = bed_connect(f->b, f->p, f->p->srv.bytes - 4096);
	if (r != -EMEDIUMTYPE)
		model_breach(f->b->m, ~0ull, "an export of another size: %s", r ? strerror(-r) : "taken");
	return 0;
}

/* --- a target of ours, as the server --- */

static int target_hangs_begin(struct fault *f)
{
	f->hold_ms = fault_rnd(f, f->p->dead_ms / 8, 2 * f->p->dead_ms);
	return dm_suspend(f->p->target->target_dm, true);
}

static int target_hangs_end(struct fault *f)
{
	return dm_suspend(f->p->target->target_dm, false);
}

static int target_errors_begin(struct fault *f)
{
	return dm_swap(f->p->target->target_dm, dm_error(f->b->sectors), false);
}

static int target_errors_end(struct fault *f)
{
	int r = dm_swap(f->p->target->target_dm, dm_linear(f->b->store, f->b->sectors), false);

	ctl_path_ctl(f->p->target->target, "a", IOVM_PATH_CTL_RETRY);
	return r;
}

/* --- the network --- */

static const struct net_shape cut = { .loss_pct = 100 };

static int shape(struct fault *f, const struct net_shape *here, const struct net_shape *there)
{
	if (!f->p->net) {
		snprintf(f->what, sizeof(f->what), "no network to cut");
		return -EOPNOTSUPP;
	}
	return net_shape(here, there);
}

static int shape_end(struct fault *f)
{
	return f->p->net ? net_shape(NULL, NULL) : 0;
}

static int cut_begin(struct fault *f)
{
	f->hold_ms = fault_rnd(f, f->p->dead_ms / 8, 2 * f->p->dead_ms);
	return shape(f, &cut, &cut);
}

static int one_way_begin(struct fault *f)
{
	bool here = fault_rnd(f, 0, 1);

	f->hold_ms = fault_rnd(f, f->p->dead_ms / 8, 2 * f->p->dead_ms);
	snprintf(f->what, sizeof(f->what), "%s", here ? "requests" : "replies");
	return shape(f, here ? &cut : NULL, here ? NULL : &cut);
}

/* The server's end is gone, and nobody hears of it. */
static int half_open_begin(struct fault *f)
{
	int r = shape(f, &cut, &cut);

	if (r)
		return r;
	bed_kill_server(f->b, f->p);
	f->hold_ms = fault_rnd(f, f->p->dead_ms / 8, 2 * f->p->dead_ms);
	return 0;
}

static int lossy_begin(struct fault *f)
{
	struct net_shape lossy = { .loss_pct = fault_rnd(f, 1, 25) };

	f->hold_ms = fault_time(f, 100, 800);
	snprintf(f->what, sizeof(f->what), "%u %%", lossy.loss_pct);
	return shape(f, &lossy, &lossy);
}

static int net_slow_begin(struct fault *f)
{
	struct net_shape slow = { .delay_us = fault_time(f, 1000, 60000) };

	f->hold_ms = fault_time(f, 50, 300);
	snprintf(f->what, sizeof(f->what), "by %u us", slow.delay_us);
	return shape(f, &slow, &slow);
}

const struct fault_kind fault_nbd_kinds[] = {
	{ "nbd-killed", FAULT_ANY, FAULT_ON_REMOTE, 0, 8, killed_begin, NULL },
	{ "nbd-silent", FAULT_ANY, FAULT_ON_NBD, 0, 4, silent_begin, killed_end },
	{ "nbd-late", FAULT_ANY, FAULT_ON_NBD, 0, 8, late_begin, late_end },
	{ "nbd-slow", FAULT_ANY, FAULT_ON_NBD, 0, 3, slow_begin, slow_end },
	{ "nbd-disorder", FAULT_ANY, FAULT_ON_NBD, 0, 3, disorder_begin, disorder_end },
	{ "nbd-full", FAULT_ANY, FAULT_ON_NBD, 0, 5, full_begin, full_end },
	{ "nbd-wrong-cookie", FAULT_ANY, FAULT_ON_NBD, 0, 4, cookie_begin, corrupt_end },
	{ "nbd-bad-magic", FAULT_ANY, FAULT_ON_NBD, 0, 4, magic_begin, corrupt_end },
	{ "nbd-truncated", FAULT_ANY, FAULT_ON_NBD, 0, 4, truncated_begin, corrupt_end },
	{ "nbd-eio", FAULT_ANY, FAULT_ON_NBD, FAULT_ERRS, 3, eio_begin, corrupt_end },
	{ "nbd-wrong-size", FAULT_ANY, FAULT_ON_NBD, 0, 3, size_begin, NULL },
	{ "target-hangs", FAULT_B(BED_HOSTS), FAULT_ON_TARGET, 0, 6, target_hangs_begin, target_hangs_end },
	{ "target-errors", FAULT_B(BED_HOSTS), FAULT_ON_TARGET, FAULT_ERRS, 4, target_errors_begin, target_errors_end },
	{ "net-cut", FAULT_ANY, FAULT_ON_REMOTE, FAULT_ALONE, 4, cut_begin, shape_end },
	{ "net-one-way", FAULT_ANY, FAULT_ON_REMOTE, FAULT_ALONE, 3, one_way_begin, shape_end },
	{ "net-half-open", FAULT_ANY, FAULT_ON_REMOTE, FAULT_ALONE, 3, half_open_begin, shape_end },
	{ "net-lossy", FAULT_ANY, FAULT_ON_REMOTE, FAULT_ALONE, 3, lossy_begin, shape_end },
	{ "net-slow", FAULT_ANY, FAULT_ON_REMOTE, FAULT_ALONE, 3, net_slow_begin, shape_end },
	{},
};
