// SPDX-License-Identifier: GPL-2.0
/*
 * How eager a worker is.
 *
 * A kick wakes the worker. Where it shares a CPU with the guest that kicks, because there is no
 * other, a woken worker takes the CPU from the guest at once: a guest that has many requests under
 * way gets to make one or two more before the next kick, and pays an exit, an interrupt and two
 * switches for each, where it could have made them all. So a worker that keeps finding itself in
 * this place becomes patient (SCHED_BATCH: it does not preempt when it is woken) and runs when the
 * guest sleeps, or at the end of its time slice.
 *
 * How many requests the guest would make cannot be seen before it may make them: so it is tried.
 * If the worker does not find many at a time then, because the guest waits for the few it has, it
 * is eager again, and tries after a while.
 *
 * Where the worker runs on a CPU of its own, nothing of this happens.
 */
#include <linux/jiffies.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>
#include <uapi/linux/sched/types.h>

#include "pace.h"
#include "vhost_iovm.h"

#define VIOVM_PACE_DEEP		8	/* requests at a time that make waiting worth while */
#define VIOVM_PACE_ENTER	32	/* turns */
#define VIOVM_PACE_ROOMY	4	/* turns */
#define VIOVM_PACE_AGAIN	HZ	/* jiffies until the next try */

static void viovm_pace_set(struct viovm_pace *p, bool patient)
{
	struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = patient ? SCHED_BATCH : SCHED_NORMAL,
		.sched_nice = task_nice(current),
	};

	p->crowding = 0;
	p->roomy = 0;
	p->eager_until = jiffies + VIOVM_PACE_AGAIN;
	p->patient = false;
	/* not a policy that somebody else has chosen */
	if (current->policy == (patient ? SCHED_NORMAL : SCHED_BATCH) &&
	    !sched_setattr_nocheck(current, &attr))
		p->patient = patient;
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
		if (viovm_ring_unseen(&vq->ring) < VIOVM_PACE_DEEP)
			p->roomy++;
		else if (p->roomy)
			p->roomy--;
		if (p->roomy >= VIOVM_PACE_ROOMY)
			viovm_pace_set(p, false);
		return;
	}
	/* alone, or the guest is elsewhere: it is not kept from anything */
	if (READ_ONCE(vq->kick_cpu) != raw_smp_processor_id() || single_task_running()) {
		if (p->crowding)
			p->crowding--;
		return;
	}
	if (p->crowding < VIOVM_PACE_ENTER)
		p->crowding++;
	else if (!time_before(jiffies, p->eager_until))
		viovm_pace_set(p, true);
}
