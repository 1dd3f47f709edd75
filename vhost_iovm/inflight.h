/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The in-flight record of a split ring: which heads the device has taken and not given back, in
 * memory that outlives the back end, so that its successor serves them again, each once.
 *
 * The layout (struct vhost_iovm_inflight_record) and the order of the writes are those of the
 * vhost-user protocol, version 1. The record is shared with the VMM: it is read when a queue
 * starts, field by field, copied and checked, and only written afterwards. No function here
 * sleeps, allocates or takes a lock.
 *
 *	taken:		counter; inflight = 1
 *	given back:	next = last_batch_head; last_batch_head = head; used ring, used index;
 *			inflight = 0; used_idx = used index
 *	recovery:	used_idx is not the ring's: the last steps of the last batch are missing,
 *			and are made good; what is in flight then is served again, by counter
 */
#ifndef _VHOST_IOVM_INFLIGHT_H
#define _VHOST_IOVM_INFLIGHT_H

#include "ring.h"
#include "../uapi/vhost_iovm.h"

/**
 * struct viovm_inflight_item - a head to be served again
 * @counter: when it was taken
 * @head: the head
 */
struct viovm_inflight_item {
	u64 counter;
	u16 head;
};

/**
 * struct viovm_inflight - the record of a running queue
 * @record: shared memory; NULL when the queue has none; constant while it runs
 * @counter: of the next head taken; worker
 * @last_batch_head: what the record says; completion lock
 */
struct viovm_inflight {
	struct vhost_iovm_inflight_record *record;
	u64 counter;
	u16 last_batch_head;
};

int viovm_inflight_start(struct viovm_inflight *f, struct vhost_iovm_inflight_record *record,
			 u16 desc_num, struct viovm_ring *ring, struct viovm_inflight_item *items,
			 u16 *nr);
void viovm_inflight_push(struct viovm_inflight *f, struct viovm_ring *ring, u16 head, u32 len);

/* A head was taken from the ring and is about to be served. Worker. */
static inline void viovm_inflight_take(struct viovm_inflight *f, u16 head)
{
	struct vhost_iovm_inflight_desc *d = &f->record->desc[head];

	WRITE_ONCE(d->counter, f->counter++);
	/* who finds the mark finds the counter */
	smp_store_release(&d->inflight, 1);
}

#endif /* _VHOST_IOVM_INFLIGHT_H */
