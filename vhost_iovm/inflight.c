// SPDX-License-Identifier: GPL-2.0
/*
 * The in-flight record of a split ring. See inflight.h.
 */
#include "inflight.h"

/* A record that nobody has used: nothing is in flight, whatever its entries say. */
static void viovm_inflight_init(struct vhost_iovm_inflight_record *record, u16 desc_num,
				u16 used_idx)
{
	u32 i;

	for (i = 0; i < desc_num; i++)
		WRITE_ONCE(record->desc[i].inflight, 0);
	WRITE_ONCE(record->desc_num, desc_num);
	WRITE_ONCE(record->last_batch_head, 0);
	WRITE_ONCE(record->used_idx, used_idx);
	/* last: until then it is begun anew */
	smp_store_release(&record->version, VHOST_IOVM_INFLIGHT_VERSION);
}

/* How many heads are in flight, or what is wrong with their marks. */
static int viovm_inflight_count(const struct vhost_iovm_inflight_record *record, u16 desc_num,
				u16 num)
{
	int n = 0;
	u32 i;

	for (i = 0; i < desc_num; i++) {
		u8 mark = READ_ONCE(record->desc[i].inflight);

		if (mark > 1)
			return -EINVAL;
		if (mark && i >= num)
			return -ERANGE;
		n += mark;
	}
	return n;
}

/* The last @batch heads given back are in the used ring; their marks may not say so yet. */
static int viovm_inflight_settle(struct vhost_iovm_inflight_record *record, u16 desc_num,
				 u16 head, u16 batch)
{
	while (batch--) {
		if (head >= desc_num)
			return -ERANGE;
		WRITE_ONCE(record->desc[head].inflight, 0);
		head = READ_ONCE(record->desc[head].next);
	}
	return 0;
}

/*
 * The heads in flight, newest first, so that the caller takes them from the end. The record may
 * change under our eyes: what is copied here is what counts.
 * Return: how many, at most @num; -EEXIST two of them were taken at the same time; -EOVERFLOW no
 * number is left for the next one.
 */
static int viovm_inflight_collect(const struct vhost_iovm_inflight_record *record, u16 num,
				  struct viovm_inflight_item *items)
{
	int n = 0, k;
	u32 i;

	for (i = 0; i < num; i++) {
		u64 counter;

		if (!READ_ONCE(record->desc[i].inflight))
			continue;
		counter = READ_ONCE(record->desc[i].counter);
		if (counter == (u64)-1)
			return -EOVERFLOW;
		for (k = n; k > 0 && items[k - 1].counter < counter; k--)
			items[k] = items[k - 1];
		if (k > 0 && items[k - 1].counter == counter)
			return -EEXIST;
		items[k].counter = counter;
		items[k].head = i;
		n++;
	}
	return n;
}

/**
 * viovm_inflight_start - take over a record when its queue starts
 * @f: filled in on success and on -ESTALE
 * @record: with @desc_num entries, mapped
 * @desc_num: entries
 * @ring: initialised; where it goes on is set by what the record says
 * @items: out: the heads to be served again before new ones, newest first; room for ring->num
 * @nr: out: how many
 *
 * Before the queue's first request. A record of version 0 is begun: @ring stays as it is.
 * Return: 1 the record was another's, 0 it is new; -EOPNOTSUPP its version or features are not
 * known; -EINVAL it has another size than @desc_num, fewer entries than the ring, or a mark that
 * is none; -ERANGE a head beyond the ring; -EEXIST two heads with the same counter; -EOVERFLOW the
 * counters are used up; -ESTALE it does not belong to this ring: fewer requests are outstanding
 * there. The guest can bring that about, the others only the VMM.
 */
int viovm_inflight_start(struct viovm_inflight *f, struct vhost_iovm_inflight_record *record,
			 u16 desc_num, struct viovm_ring *ring, struct viovm_inflight_item *items,
			 u16 *nr)
{
	u16 version = READ_ONCE(record->version);
	u16 last = READ_ONCE(record->last_batch_head);
	u16 batch = ring->used_idx - READ_ONCE(record->used_idx);
	u16 outstanding = viovm_ring_avail_idx(ring) - ring->used_idx;
	int n, err;

	*nr = 0;
	if (ring->num > desc_num)
		return -EINVAL;
	if (version > VHOST_IOVM_INFLIGHT_VERSION || READ_ONCE(record->features))
		return -EOPNOTSUPP;
	if (!version) {
		viovm_inflight_init(record, desc_num, ring->used_idx);
		f->record = record;
		f->counter = 0;
		f->last_batch_head = 0;
		return 0;
	}
	if (READ_ONCE(record->desc_num) != desc_num)
		return -EINVAL;
	if (last >= desc_num)
		return -ERANGE;
	n = viovm_inflight_count(record, desc_num, ring->num);
	if (n < 0)
		return n;
	/* where nothing is in flight, the ring may have been begun anew */
	if (n && batch <= ring->num) {
		err = viovm_inflight_settle(record, desc_num, last, batch);
		if (err)
			return err;
	}
	n = viovm_inflight_collect(record, ring->num, items);
	if (n < 0)
		return n;

	f->record = record;
	f->counter = n ? items[0].counter + 1 : 0;
	f->last_batch_head = last;
	if (n && (batch > ring->num || outstanding > ring->num || n > outstanding))
		return -ESTALE;
	/* what was left to do above is done: from here on the ring's index is the record's */
	smp_store_release(&record->used_idx, ring->used_idx);
	/* each head taken has come back or is in the record */
	ring->last_avail = ring->used_idx + n;
	ring->avail_idx = ring->last_avail;
	*nr = n;
	return 1;
}

/**
 * viovm_inflight_push - viovm_ring_push() of a queue with a record
 * @f: the record
 * @ring: its ring
 * @head: taken before
 * @len: bytes the device wrote
 *
 * Completion lock held.
 */
void viovm_inflight_push(struct viovm_inflight *f, struct viovm_ring *ring, u16 head, u32 len)
{
	struct vhost_iovm_inflight_record *record = f->record;

	WRITE_ONCE(record->desc[head].next, f->last_batch_head);
	/* all of this is visible before the used index, which is stored with release semantics */
	WRITE_ONCE(record->last_batch_head, head);
	f->last_batch_head = head;
	viovm_ring_push(ring, head, len);
	/* the used index before the mark goes: else a cut here would lose the request */
	smp_store_release(&record->desc[head].inflight, 0);
	/* the mark before the index: else a cut here would serve it again */
	smp_store_release(&record->used_idx, ring->used_idx);
}
