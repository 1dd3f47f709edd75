/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How eager a worker is; see pace.c.
 */
#ifndef _VHOST_IOVM_PACE_H
#define _VHOST_IOVM_PACE_H

#include <linux/types.h>

struct viovm_vq;

/**
 * struct viovm_pace - of one worker; all fields are its thread's alone
 * @patient: it is SCHED_BATCH now
 * @free: while patient: nobody else wanted the CPU when it came to run
 * @crowding: turns that ended while others wanted the CPU, weighed; less those that did not
 * @fund: while patient: requests found by turns whose CPU was not free, less what makes waiting for
 *	them worth while
 * @shift: how often it was patient for a short while only, since it was for a long one
 * @since: jiffies when it became patient
 * @eager_until: jiffies before which it does not try to be patient
 */
struct viovm_pace {
	bool patient;
	bool free;
	u8 crowding;
	int fund;
	int shift;
	unsigned long since;
	unsigned long eager_until;
};

void viovm_pace_begin(struct viovm_pace *p);
void viovm_pace_end(struct viovm_pace *p, const struct viovm_vq *vq);

#endif /* _VHOST_IOVM_PACE_H */
