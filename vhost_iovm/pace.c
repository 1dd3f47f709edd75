// SPDX-License-Identifier: GPL-2.0
/*
 * How eager a worker is.
 *
 * A kick wakes the worker. Where it shares a CPU with a guest, because there is no other, a woken
 * worker takes the CPU from the guest at once: a guest that has many requests under way gets to
 * make one or two more before the next kick, and pays an exit, an interrupt and two switches for
 * each, where it could have made them all. With as many virtual CPUs as there are CPUs it need not
 * be the CPU that kicked: two workers can keep each other's guest from it. So a worker that keeps
 * finding itself in this place becomes patient (SCHED_BATCH: it does not preempt when it is woken)
 * and runs when the CPU is free, or at the end of a time slice.
 *
 * How many requests the guest would make cannot be seen before it may make them: so it is tried.
 * Being patient costs nothing as long as the worker finds the CPU free when it comes to run, and
 * pays where it finds many requests at a time. If it finds neither, because the guest computes
 * while it waits for the few it has, the worker is eager again, and tries after a while that gets
 * longer with each try that ends soon.
 *
 * Where the worker runs on a CPU of its own, nothing of this happens.
 */
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <uapi/linux/sched/types.h>

#include "pace.h"
#include "vhost_iovm.h"

#define VIOVM_PACE_DEEP		4	/* requests at a time that are worth it, in the mean */
#define VIOVM_PACE_FUND		16	/* requests that a try may fall short of that */
#define VIOVM_PACE_FUND_MAX	64	/* the most that good turns add up to */
#define VIOVM_PACE_ENTER	32	/* what crowded turns add up to, */
#define VIOVM_PACE_CROWDED	4	/* each with so much */
#define VIOVM_PACE_AGAIN	HZ	/* jiffies until the next try, and of a good one */
#define VIOVM_PACE_SHIFT_MAX	2	/* at the most so much longer, as a power of two */

static void viovm_pace_set(struct viovm_pace *p, bool patient)
{
	struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = patient ? SCHED_BATCH : SCHED_NORMAL,
		.sched_nice = task_nice(current),
	};

	p->crowding = 0;
	p->fund = VIOVM_PACE_FUND;
	if (patient)
		p->since = jiffies;
	else if (time_after(jiffies, p->since + VIOVM_PACE_AGAIN))
		p->shift = 0;
	else
		p->shift = min(p->shift + 1, VIOVM_PACE_SHIFT_MAX);
	p->eager_until = jiffies + (VIOVM_PACE_AGAIN << p->shift);
	p->patient = false;
	/* not a policy that somebody else has chosen */
	if (current->policy == (patient ? SCHED_NORMAL : SCHED_BATCH) &&
	    !sched_setattr_nocheck(current, &attr))
		p->patient = patient;
}

/**
 * viovm_pace_begin - a worker comes to run
 * @p: its
 */
void viovm_pace_begin(struct viovm_pace *p)
{
	if (p->patient)
		p->free = single_task_running();
}

/**
 * viovm_pace_end - a worker has emptied a queue and asked for a kick
 * @p: its
 * @vq: the queue; vq->mutex held
 */
void viovm_pace_end(struct viovm_pace *p, const struct viovm_vq *vq)
{
	lockdep_assert_held(&vq->mutex);
	if (p->patient) {
		if (p->free)
			return;
		p->fund += viovm_ring_unseen(&vq->ring) - VIOVM_PACE_DEEP;
		if (p->fund < 0)
			viovm_pace_set(p, false);
		else
			p->fund = min(p->fund, VIOVM_PACE_FUND_MAX);
		return;
	}
	/* nobody is kept from anything */
	if (single_task_running()) {
		if (p->crowding)
			p->crowding--;
		return;
	}
	if (p->crowding < VIOVM_PACE_ENTER)
		p->crowding += VIOVM_PACE_CROWDED;
	else if (!time_before(jiffies, p->eager_until))
		viovm_pace_set(p, true);
}
