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
 * @crowding: turns that ended where the guest had kicked, and others wanted the CPU; less those
 *	that did not
 * @roomy: likewise, while patient: that found few requests
 * @eager_until: jiffies before which it does not try to be patient
 */
struct viovm_pace {
	bool patient;
	u8 crowding;
	u8 roomy;
	unsigned long eager_until;
};

void viovm_pace_end(struct viovm_pace *p, const struct viovm_vq *vq);

#endif /* _VHOST_IOVM_PACE_H */
