// SPDX-License-Identifier: GPL-2.0
/*
 * The split virtqueue, device side. See ring.h.
 */
#include "ring.h"

#ifdef __KERNEL__
#define viovm_le16(x)	le16_to_cpu((__force __le16)(x))
#define viovm_le32(x)	le32_to_cpu((__force __le32)(x))
#define viovm_le64(x)	le64_to_cpu((__force __le64)(x))
#define viovm_to16(x)	((__force __virtio16)cpu_to_le16(x))
#define viovm_to32(x)	((__force __virtio32)cpu_to_le32(x))
#else
#define viovm_le16(x)	le16_to_cpu(x)
#define viovm_le32(x)	le32_to_cpu(x)
#define viovm_le64(x)	le64_to_cpu(x)
#define viovm_to16(x)	cpu_to_le16(x)
#define viovm_to32(x)	cpu_to_le32(x)
#endif

/* avail->ring[num] is used_event, used->ring[num] is avail_event */
static __virtio16 *viovm_used_event(const struct viovm_ring *r)
{
	return (__virtio16 *)((u8 *)r->avail + sizeof(u16) * (2 + r->num));
}

static __virtio16 *viovm_avail_event(const struct viovm_ring *r)
{
	return (__virtio16 *)((u8 *)r->used + viovm_ring_avail_event_off(r));
}

static __virtio16 *viovm_avail_slot(const struct viovm_ring *r, u16 idx)
{
	return (__virtio16 *)((u8 *)r->avail + sizeof(u16) * (2 + (idx & (r->num - 1))));
}

/**
 * viovm_ring_init - set the indices of a ring that is about to start
 * @r: with desc, avail and used set
 * @num: descriptors
 * @base: next available index
 * @event_idx: was negotiated
 *
 * The used index is read from guest memory, as vhost does.
 * Return: 0, or -EINVAL when @num is not a power of two.
 */
int viovm_ring_init(struct viovm_ring *r, u16 num, u16 base, bool event_idx)
{
	if (!num || (num & (num - 1)))
		return -EINVAL;
	r->num = num;
	r->event_idx = event_idx;
	r->last_avail = base;
	r->avail_idx = base;
	r->used_idx = viovm_le16(READ_ONCE(r->used->idx));
	r->signalled_used = r->used_idx;
	r->signalled_valid = false;
	return 0;
}

/**
 * viovm_ring_avail_idx - the guest's available index as it is now
 * @r: ring
 */
u16 viovm_ring_avail_idx(const struct viovm_ring *r)
{
	return viovm_le16(READ_ONCE(r->avail->idx));
}

/**
 * viovm_ring_peek - the next available head, not yet taken
 * @r: ring
 * @head: out
 *
 * Worker only.
 * Return: 1 with @head set; 0 when the ring is empty; -EOVERFLOW when the guest's index ran away
 * by more than the ring's size; -ERANGE when the head is no descriptor of this ring.
 */
int viovm_ring_peek(struct viovm_ring *r, u16 *head)
{
	u16 h;

	if (r->avail_idx == r->last_avail) {
		/* pairs with the guest's write barrier between entry and index */
		r->avail_idx = viovm_le16(smp_load_acquire(&r->avail->idx));
		if (r->avail_idx == r->last_avail)
			return 0;
		if ((u16)(r->avail_idx - r->last_avail) > r->num) {
			/* nothing of it is known: who comes again looks again */
			r->avail_idx = r->last_avail;
			return -EOVERFLOW;
		}
	}
	h = viovm_le16(READ_ONCE(*viovm_avail_slot(r, r->last_avail)));
	if (h >= r->num)
		return -ERANGE;
	*head = h;
	return 1;
}
EXPORT_SYMBOL_GPL(viovm_ring_peek);

static int viovm_chain_add(struct viovm_chain *c, u64 addr, u32 len, u16 flags)
{
	struct viovm_seg *s;
	bool write = flags & VRING_DESC_F_WRITE;

	if (!len)
		return -ENODATA;
	if (addr + len - 1 < addr)
		return -EFAULT;
	if (!write && c->nr_out != c->nr)
		return -EBADMSG;
	if (c->nr >= c->max)
		return -E2BIG;
	s = &c->segs[c->nr++];
	s->gpa = addr;
	s->len = len;
	s->write = write;
	if (!write)
		c->nr_out++;
	return 0;
}

/* One table: the ring's own, or an indirect one. Sets *ind to an indirect descriptor's copy. */
static int viovm_walk_table(const struct vring_desc *table, u32 num, u32 i, struct viovm_chain *c,
			    bool indirect, u64 *ind_addr, u32 *ind_len)
{
	u32 seen = 0;

	for (;;) {
		const struct vring_desc *d = &table[i];
		u64 addr = viovm_le64(READ_ONCE(d->addr));
		u32 len = viovm_le32(READ_ONCE(d->len));
		u16 flags = viovm_le16(READ_ONCE(d->flags));
		u16 next = viovm_le16(READ_ONCE(d->next));
		int err;

		if (++seen > num)
			return -ELOOP;
		if (flags & VRING_DESC_F_INDIRECT) {
			if (indirect || (flags & VRING_DESC_F_NEXT))
				return -EBADMSG;
			*ind_addr = addr;
			*ind_len = len;
			return 1;
		}
		err = viovm_chain_add(c, addr, len, flags);
		if (err)
			return err;
		if (!(flags & VRING_DESC_F_NEXT))
			return 0;
		if (next >= num)
			return -ERANGE;
		i = next;
	}
}

/**
 * viovm_ring_walk - copy a descriptor chain
 * @r: ring
 * @head: from viovm_ring_peek()
 * @c: where to
 *
 * Worker only; @c->fetch may sleep.
 * Return: 0; -ELOOP the chain loops; -ERANGE next is out of range; -EBADMSG an indirect table in
 * an indirect table or followed by a descriptor, or a readable segment behind a writable one;
 * -ENODATA a segment of no bytes; -EFAULT an address wraps; -E2BIG too many segments; -EINVAL an
 * indirect table of no or of half a descriptor; or what @c->fetch returned.
 */
int viovm_ring_walk(const struct viovm_ring *r, u16 head, struct viovm_chain *c)
{
	u64 addr = 0;
	u32 len = 0;
	int err;

	c->nr = 0;
	c->nr_out = 0;
	err = viovm_walk_table(r->desc, r->num, head, c, false, &addr, &len);
	if (err <= 0)
		return err;

	if (!len || len % sizeof(struct vring_desc))
		return -EINVAL;
	if (len / sizeof(struct vring_desc) > VIOVM_MAX_CHAIN)
		return -E2BIG;
	if (addr + len - 1 < addr)
		return -EFAULT;
	err = c->fetch(c->ctx, c->table, addr, len);
	if (err)
		return err;
	return viovm_walk_table(c->table, len / sizeof(struct vring_desc), 0, c, true, &addr, &len);
}
EXPORT_SYMBOL_GPL(viovm_ring_walk);

/**
 * viovm_ring_push - give a head back to the guest
 * @r: ring
 * @head: taken before
 * @len: bytes the device wrote
 *
 * Completion lock held.
 */
void viovm_ring_push(struct viovm_ring *r, u16 head, u32 len)
{
	struct vring_used_elem *e = (struct vring_used_elem *)
		((u8 *)r->used + sizeof(u16) * 2 + sizeof(*e) * (r->used_idx & (r->num - 1)));

	WRITE_ONCE(e->id, viovm_to32((u32)head));
	WRITE_ONCE(e->len, viovm_to32(len));
	r->used_idx++;
	/* the guest must see the element before the index */
	smp_store_release(&r->used->idx, viovm_to16(r->used_idx));
	/* 2^16 entries without a decision: the old mark could look new again */
	if (r->used_idx == r->signalled_used)
		r->signalled_valid = false;
}

/**
 * viovm_ring_push_n - give several heads back to the guest, who sees all of them at once
 * @r: ring
 * @used: what
 * @n: how many, 1 to the ring's size
 *
 * Completion lock held.
 */
void viovm_ring_push_n(struct viovm_ring *r, const struct viovm_used *used, u32 n)
{
	u16 old = r->used_idx;
	u32 i;

	for (i = 0; i < n; i++) {
		struct vring_used_elem *e = (struct vring_used_elem *)
			((u8 *)r->used + sizeof(u16) * 2 +
			 sizeof(*e) * ((u16)(old + i) & (r->num - 1)));

		WRITE_ONCE(e->id, viovm_to32((u32)used[i].head));
		WRITE_ONCE(e->len, viovm_to32(used[i].len));
	}
	r->used_idx = old + n;
	/* the guest must see the elements before the index */
	smp_store_release(&r->used->idx, viovm_to16(r->used_idx));
	/* 2^16 entries without a decision: the old mark could look new again */
	if ((u16)(r->used_idx - r->signalled_used) < n)
		r->signalled_valid = false;
}

/**
 * viovm_ring_should_signal - does the guest want to be told of what was pushed?
 * @r: ring
 *
 * Completion lock held. Decides for everything pushed since the last call.
 */
bool viovm_ring_should_signal(struct viovm_ring *r)
{
	u16 old, new, event;
	bool valid;

	/* the used index must be visible before the guest's wish is read: virtio 1.2, 2.7.7.2 */
	smp_mb();
	if (!r->event_idx)
		return !(viovm_le16(READ_ONCE(r->avail->flags)) & VRING_AVAIL_F_NO_INTERRUPT);

	old = r->signalled_used;
	valid = r->signalled_valid;
	new = r->used_idx;
	r->signalled_used = new;
	r->signalled_valid = true;
	if (!valid)
		return true;
	event = viovm_le16(READ_ONCE(*viovm_used_event(r)));
	return vring_need_event(event, new, old);
}

/**
 * viovm_ring_kick_off - tell the guest that kicks are not needed
 * @r: ring
 *
 * Worker only. A hint; with EVENT_IDX an index that is not moved has the same effect.
 */
void viovm_ring_kick_off(struct viovm_ring *r)
{
	if (!r->event_idx)
		WRITE_ONCE(r->used->flags, viovm_to16(VRING_USED_F_NO_NOTIFY));
}

/**
 * viovm_ring_kick_on - ask for a kick at the next request
 * @r: ring
 *
 * Worker only. The next one is the one behind those that viovm_ring_peek() knows of, taken or not:
 * who needs several at once may have left some.
 * Return: true when a request has come in the meantime: serve it, no kick will come.
 */
bool viovm_ring_kick_on(struct viovm_ring *r)
{
	if (r->event_idx)
		WRITE_ONCE(*viovm_avail_event(r), viovm_to16(r->avail_idx));
	else
		WRITE_ONCE(r->used->flags, viovm_to16(0));
	/* the wish must be visible before the index is read again */
	smp_mb();
	return viovm_le16(READ_ONCE(r->avail->idx)) != r->avail_idx;
}

/**
 * viovm_ring_unseen - how many requests does the guest still wait for?
 * @r: ring
 *
 * Worker only. Counts what was taken and what the guest has not looked at since it ended, going by
 * where it wants its next interrupt. A guest that lies only cheats itself.
 * Return: 0 without EVENT_IDX.
 */
u16 viovm_ring_unseen(const struct viovm_ring *r)
{
	u16 n;

	if (!r->event_idx)
		return 0;
	n = r->last_avail - viovm_le16(READ_ONCE(*viovm_used_event(r)));
	return n <= r->num ? n : 0;
}
