// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults of local disks, and what an operator does to paths. */
#include "fault.h"
#include "ktap.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

u32 fault_rnd(struct fault *f, u32 from, u32 to)
{
	return from + rnd64(&f->rnd) % (to - from + 1);
}

u32 fault_time(struct fault *f, u32 from, u32 to)
{
	return bed_time(f->b, fault_rnd(f, from, to));
}

static int good(struct fault *f)
{
	return dm_swap(f->p->dm, dm_linear(f->b->store, f->b->sectors), false);
}

static int bad(struct fault *f)
{
	return dm_swap(f->p->dm, dm_error(f->b->sectors), false);
}

static int error_begin(struct fault *f)
{
	return bad(f);
}

static int flap_begin(struct fault *f)
{
	unsigned int n = fault_rnd(f, 2, 6), i;
	int r = 0;

	snprintf(f->what, sizeof(f->what), "%u times", n);
	for (i = 0; i < n && !r; i++) {
		r = bad(f);
		sleep_ms(fault_time(f, 0, 8));
		if (!r)
			r = good(f);
		ctl_path_ctl(f->p->dev, f->p->name, IOVM_PATH_CTL_RETRY);
		sleep_ms(fault_time(f, 0, 8));
		ctl_dev_ctl(f->p->dev, IOVM_DEV_FAILOVER, f->p->name, 0);
	}
	return r;
}

static int stripes_begin(struct fault *f)
{
	u32 unit = f->b->block / 512 * 8, i, n = fault_rnd(f, 2, 12), at = 0;
	u64 each = f->b->sectors / n / unit * unit;
	char table[4096];

	snprintf(f->what, sizeof(f->what), "%u bad places", n);
	for (i = 0; i < n; i++) {
		u64 first = i * each, len = i + 1 < n ? each : f->b->sectors - first;

		at += snprintf(table + at, sizeof(table) - at, "%llu %llu linear %s %llu\n%llu %u error\n",
			       (unsigned long long)first, (unsigned long long)len - unit, f->b->store, (unsigned long long)first,
			       (unsigned long long)(first + len - unit), unit);
	}
	return dm_swap(f->p->dm, table, false);
}

static int flakey_begin(struct fault *f)
{
	char table[128];

	f->hold_ms = fault_rnd(f, 1200, 2500);
	stor_modprobe("dm-flakey", NULL);
	snprintf(table, sizeof(table), "0 %llu flakey %s 0 1 1", (unsigned long long)f->b->sectors, f->b->store);
	return dm_swap(f->p->dm, table, false);
}

static int slow_begin(struct fault *f)
{
	u32 ms = fault_time(f, 1, 60);
	char table[128];

	snprintf(f->what, sizeof(f->what), "by %u ms", ms);
	stor_modprobe("dm-delay", NULL);
	snprintf(table, sizeof(table), "0 %llu delay %s 0 %u", (unsigned long long)f->b->sectors, f->b->store, ms);
	return dm_swap(f->p->dm, table, false);
}

/* What was issued stays in the kernel, and goes to the medium when the device is resumed. */
static int hang_begin(struct fault *f)
{
	u32 ms = f->b->opts.io_timeout_ms;
	bool longer = ms && fault_rnd(f, 0, 1);

	/* where there is a time-out, often for longer */
	f->hold_ms = longer ? fault_rnd(f, bed_time(f->b, 20), 2 * ms) : fault_time(f, 20, 500);
	return dm_suspend(f->p->dm, true);
}

static int hang_end(struct fault *f)
{
	return dm_suspend(f->p->dm, false);
}

/* --- a disk is pulled --- */

static int pulled_begin(struct fault *f)
{
	int r = bed_scsi_pull(f->p, f->address);

	snprintf(f->what, sizeof(f->what), "%.50s", f->address);
	f->undo = !r;
	return r;
}

static int pulled_end(struct fault *f)
{
	int r;

	if (!f->undo)
		return 0;
	/* kernels before 6.5 tell nobody that a disk is gone: its next request finds it */
	if (!ctl_wait_path_state(f->p->dev, f->p->name, IOVM_PATH_FAILED, bed_time(f->b, 300)))
		ctl_dev_ctl(f->p->dev, IOVM_DEV_FAILOVER, f->p->name, 0);
	if (!ctl_wait_path_state(f->p->dev, f->p->name, IOVM_PATH_FAILED, 10000)) {
		model_breach(f->b->m, ~0ull, "path %s has not failed although its disk is gone", f->p->name);
		return -ETIMEDOUT;
	}
	r = ctl_path_remove(f->p->dev, f->p->name, IOVM_PATH_REMOVE_F_FORCE);
	if (!r)
		r = bed_scsi_plug(f->p, f->address);
	return r ? r : bed_path_add(f->b, f->p);
}

/* --- by hand --- */

static int failover_begin(struct fault *f)
{
	unsigned int n = fault_rnd(f, 1, 8), i;

	snprintf(f->what, sizeof(f->what), "%u times", n);
	for (i = 0; i < n; i++) {
		ctl_dev_ctl(f->b->dev, i % 2 ? IOVM_DEV_FAILBACK : IOVM_DEV_FAILOVER, NULL, 0);
		sleep_ms(fault_time(f, 0, 6));
	}
	return 0;
}

static int suspend_begin(struct fault *f)
{
	(void)f;
	return ctl_dev_ctl(f->b->dev, IOVM_DEV_SUSPEND, NULL, 0);
}

static int suspend_end(struct fault *f)
{
	(void)f;
	return ctl_dev_ctl(f->b->dev, IOVM_DEV_RESUME, NULL, 0);
}

static int fail_begin(struct fault *f)
{
	return ctl_path_ctl(f->p->dev, f->p->name, IOVM_PATH_CTL_FAIL);
}

/* Drained, gone, and back as the last one. */
static int readd_begin(struct fault *f)
{
	int r = ctl_path_remove(f->p->dev, f->p->name, 0);

	/* a path that fails while it drains is not removed; an nbd one may */
	if (r && f->p->nbd)
		r = 0;
	return r;
}

/* The server is dead for certain, and the operator says so: what was held goes on elsewhere. */
static int fenced_begin(struct fault *f)
{
	int r;

	f->p->srv.hang = true;
	sleep_ms(fault_time(f, 1, 30));
	f->p->srv.hang = false;
	bed_kill_server(f->b, f->p);
	if (!ctl_wait_path_state(f->p->dev, f->p->name, IOVM_PATH_FAILED, 10000))
		return -ETIMEDOUT;
	r = ctl_path_ctl(f->p->dev, f->p->name, IOVM_PATH_CTL_FENCED);
	if (!r && !guest_turnover(f->g, 30000))
		model_breach(f->b->m, ~0ull, "requests wait although path %s is fenced", f->p->name);
	return r;
}

/* --- the array --- */

/* All caches are lost while the guest has nothing in flight: what it had flushed is there. */
static int crash_begin(struct fault *f)
{
	u64 lost = f->b->array.lost;
	long bad;
	int r;

	r = guest_command(f->g, GUEST_DRAIN, 0, 70000);
	if (r)
		return r;
	/* one that has failed was destaged when its host was lost to it, but only its reconnection tells us: see bed_heal() */
	r = bed_heal(f->b, 20000);
	if (!r) {
		model_mark(f->b->m, "all caches of the array are lost");
		array_lose(&f->b->array, -1);
		model_crash(f->b->m);
		bad = model_check(f->b->m, bed_storage_read, f->b);
		r = bad < 0 ? bad : 0;
	}
	snprintf(f->what, sizeof(f->what), "%llu sectors", (unsigned long long)(f->b->array.lost - lost));
	return guest_command(f->g, GUEST_GO, 0, 10000) ?: r;
}

static void power_fails(void *arg)
{
	struct fault *f = arg;
	unsigned int i;

	/* in this order: a FLUSH that ends because a connection does ends behind the crash */
	model_mark(f->b->m, "the array's power fails");
	model_crash(f->b->m);
	for (i = 0; i < f->b->nr; i++)
		nbdsrv_cut(&f->b->path[i].srv);
}

/*
 * The same in the middle of things: the array's power fails, and with it its connections. A little before that the route is changed
 * and flushes are slow, so that one is on its way to the controller that was left. What is in flight is issued again; what a FLUSH
 * that has ended covers is there.
 */
static int power_begin(struct fault *f)
{
	u64 lost = f->b->array.lost;
	unsigned int i;

	f->b->array.flush_us = fault_time(f, 2000, 40000);
	ctl_dev_ctl(f->b->dev, IOVM_DEV_FAILOVER, NULL, 0);
	usleep(fault_time(f, 1000, 60000));
	/* a cache survives the loss of its path alone: see bed_kill_server() */
	for (i = 0; i < f->b->nr; i++)
		if (bed_path_state(f->b, &f->b->path[i]) != IOVM_PATH_LIVE)
			array_destage(&f->b->array, i);
	array_power_fail(&f->b->array, power_fails, f);
	for (i = 0; i < f->b->nr; i++)
		nbdsrv_kill(&f->b->path[i].srv);
	/* what a request that was begun has put there since */
	array_lose(&f->b->array, -1);
	f->b->array.flush_us = 0;
	snprintf(f->what, sizeof(f->what), "%llu sectors", (unsigned long long)(f->b->array.lost - lost));
	return 0;
}

static int power_end(struct fault *f)
{
	long bad;
	int r;

	r = bed_heal(f->b, 20000) ?: guest_command(f->g, GUEST_DRAIN, 0, 70000);
	if (r)
		return r;
	bad = model_check(f->b->m, bed_storage_read, f->b);
	return guest_command(f->g, GUEST_GO, 0, 10000) ?: bad < 0 ? bad : 0;
}

static int slow_flush_begin(struct fault *f)
{
	f->b->array.flush_us = fault_time(f, 1000, 20000);
	return 0;
}

static int slow_flush_end(struct fault *f)
{
	f->b->array.flush_us = 0;
	return 0;
}

#define DM	(FAULT_B(BED_DM) | FAULT_B(BED_HOSTS))
#define SCSI	FAULT_B(BED_SCSI)
#define ARRAYS	(FAULT_B(BED_ARRAY) | FAULT_B(BED_ARRAY_FUA))

const struct fault_kind fault_path_kinds[] = {
	{ "error", DM, FAULT_ON_BDEV, FAULT_ERRS, 12, error_begin, good },
	{ "flap", DM, FAULT_ON_BDEV, FAULT_ERRS, 6, flap_begin, good },
	{ "bad-places", DM, FAULT_ON_BDEV, FAULT_ERRS, 5, stripes_begin, good },
	{ "flakey", DM, FAULT_ON_BDEV, FAULT_ERRS | FAULT_SLOW, 1, flakey_begin, good },
	{ "slow", DM, FAULT_ON_BDEV, 0, 5, slow_begin, good },
	{ "hang", DM, FAULT_ON_BDEV, 0, 8, hang_begin, hang_end },
	{ "removed", SCSI, FAULT_ON_BDEV, 0, 40, pulled_begin, pulled_end },
	{ "failover", FAULT_ANY, FAULT_ON_NONE, 0, 6, failover_begin, NULL },
	{ "suspend", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 4, suspend_begin, suspend_end },
	{ "failed-by-hand", FAULT_ANY, FAULT_ON_PATH, 0, 5, fail_begin, NULL },
	{ "path-readded", FAULT_ANY, FAULT_ON_PATH, FAULT_ALONE, 5, readd_begin, NULL },
	{ "fenced", FAULT_ANY, FAULT_ON_NBD, FAULT_ALONE, 4, fenced_begin, NULL },
	{ "cache-lost", ARRAYS, FAULT_ON_NONE, FAULT_ALONE, 20, crash_begin, NULL },
	{ "power-cut", FAULT_B(BED_ARRAY), FAULT_ON_NONE, FAULT_ALONE, 20, power_begin, power_end },
	{ "slow-flush", ARRAYS, FAULT_ON_NONE, 0, 8, slow_flush_begin, slow_flush_end },
	{},
};
