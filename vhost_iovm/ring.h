/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The split virtqueue, device side, on plain pointers.
 *
 * The three parts of the ring are guest memory that the guest may change at any moment: every
 * field is read once, copied and then checked. No function here sleeps, allocates or takes a
 * lock. Source: virtio 1.2, section 2.7.
 *
 * Rings are little endian (VIRTIO_F_VERSION_1, or a legacy guest on a little-endian host).
 */
#ifndef _VHOST_IOVM_RING_H
#define _VHOST_IOVM_RING_H

#include "ring_port.h"

/* Longest chain served, descriptors; also the longest indirect table */
#define VIOVM_MAX_CHAIN		1024

/**
 * struct viovm_seg - one descriptor's buffer, copied from the ring
 * @gpa: guest physical address
 * @len: bytes, never 0
 * @write: the device writes it
 */
struct viovm_seg {
	u64 gpa;
	u32 len;
	bool write;
};

/**
 * struct viovm_used - a head that is given back
 * @head: taken before
 * @len: bytes the device wrote
 */
struct viovm_used {
	u16 head;
	u32 len;
};

/**
 * struct viovm_ring - a split ring
 * @num: descriptors, a power of two
 * @event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated
 * @desc: descriptor table, guest memory
 * @avail: guest memory
 * @used: guest memory
 * @last_avail: next index of the available ring to take; worker
 * @avail_idx: the guest's index as last read; worker
 * @used_idx: next index of the used ring to write; completion lock
 * @signalled_used: @used_idx at the last interrupt decision; completion lock
 * @signalled_valid: @signalled_used means something; completion lock
 *
 * Fields of the fetching side are the worker's alone, those of the completing side are under the
 * caller's lock. The two sides share nothing but guest memory.
 */
struct viovm_ring {
	u16 num;
	bool event_idx;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;

	u16 last_avail;
	u16 avail_idx;

	u16 used_idx;
	u16 signalled_used;
	bool signalled_valid;
};

/**
 * struct viovm_chain - where viovm_ring_walk() puts what it finds
 * @segs: caller's, room for @max
 * @max: entries
 * @nr: out: segments, readable ones first
 * @nr_out: out: how many of them the device reads
 * @table: scratch for an indirect table, VIOVM_MAX_CHAIN entries
 * @fetch: copy an indirect table from guest memory: 0 or a negative errno
 * @ctx: for @fetch
 */
struct viovm_chain {
	struct viovm_seg *segs;
	u32 max;
	u32 nr;
	u32 nr_out;
	struct vring_desc *table;
	int (*fetch)(void *ctx, void *to, u64 gpa, u32 len);
	void *ctx;
};

static inline size_t viovm_ring_desc_bytes(u32 num)
{
	return sizeof(struct vring_desc) * num;
}

static inline size_t viovm_ring_avail_bytes(u32 num)
{
	return sizeof(u16) * (3 + num);
}

static inline size_t viovm_ring_used_bytes(u32 num)
{
	return sizeof(u16) * 3 + sizeof(struct vring_used_elem) * num;
}

int viovm_ring_init(struct viovm_ring *r, u16 num, u16 base, bool event_idx);
u16 viovm_ring_avail_idx(const struct viovm_ring *r);
int viovm_ring_peek(struct viovm_ring *r, u16 *head);
int viovm_ring_walk(const struct viovm_ring *r, u16 head, struct viovm_chain *c);
void viovm_ring_push(struct viovm_ring *r, u16 head, u32 len);
void viovm_ring_push_n(struct viovm_ring *r, const struct viovm_used *used, u32 n);
bool viovm_ring_should_signal(struct viovm_ring *r);
void viovm_ring_kick_off(struct viovm_ring *r);
bool viovm_ring_kick_on(struct viovm_ring *r);
u16 viovm_ring_unseen(const struct viovm_ring *r);

/* Requests that were available when the guest's index was last read; 0: read it again */
static inline u16 viovm_ring_known(const struct viovm_ring *r)
{
	return r->avail_idx - r->last_avail;
}

/* Take what viovm_ring_peek() found */
static inline void viovm_ring_take(struct viovm_ring *r)
{
	r->last_avail++;
}

/* Put the last @n that were taken back. Nothing of the fetching side's was changed since. */
static inline void viovm_ring_untake(struct viovm_ring *r, u16 n)
{
	r->last_avail -= n;
}

/* Offset in the used ring of the element that viovm_ring_push() just wrote, for the dirty log */
static inline size_t viovm_ring_used_off(const struct viovm_ring *r)
{
	u16 slot = (r->used_idx - 1) & (r->num - 1);

	return sizeof(u16) * 2 + sizeof(struct vring_used_elem) * slot;
}

/* Offset of avail_event in the used ring */
static inline size_t viovm_ring_avail_event_off(const struct viovm_ring *r)
{
	return sizeof(u16) * 2 + sizeof(struct vring_used_elem) * r->num;
}

#endif /* _VHOST_IOVM_RING_H */
