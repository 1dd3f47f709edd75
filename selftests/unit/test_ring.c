// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device side of the split ring (vhost_iovm/ring.c), driven by a small guest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ktap.h"
#include "../../vhost_iovm/ring.c"

#define NUM 8

static struct vring_desc desc[NUM], table[VIOVM_MAX_CHAIN];
static struct vring_desc guest_table[VIOVM_MAX_CHAIN + 1];
static uint16_t avail_mem[3 + 1024], used_mem[4 + 4 * 1024];
static struct viovm_seg segs[VIOVM_MAX_CHAIN];
static struct viovm_ring ring;
static uint16_t guest_avail;

/* "Guest memory" of an indirect table: an address is an offset into guest_table */
static int fetch(void *ctx, void *to, u64 gpa, u32 len)
{
	(void)ctx;
	if (gpa > sizeof(guest_table) || len > sizeof(guest_table) - gpa)
		return -EFAULT;
	memcpy(to, (char *)guest_table + gpa, len);
	return 0;
}

static void reset(u16 base, bool event_idx)
{
	memset(desc, 0, sizeof(desc));
	memset(guest_table, 0, sizeof(guest_table));
	memset(avail_mem, 0, sizeof(avail_mem));
	memset(used_mem, 0, sizeof(used_mem));
	ring.desc = desc;
	ring.avail = (void *)avail_mem;
	ring.used = (void *)used_mem;
	guest_avail = base;
	avail_mem[1] = base;
	used_mem[1] = base;
	viovm_ring_init(&ring, NUM, base, event_idx);
}

static void guest_add(u16 head)
{
	avail_mem[2 + guest_avail % NUM] = head;
	avail_mem[1] = ++guest_avail;
}

static void guest_want(u16 event)
{
	avail_mem[2 + NUM] = event;
}

static int walk(u16 head, struct viovm_chain *c)
{
	*c = (struct viovm_chain) { .segs = segs, .max = VIOVM_MAX_CHAIN, .table = table, .fetch = fetch };
	return viovm_ring_walk(&ring, head, c);
}

static void set(struct vring_desc *d, u64 addr, u32 len, u16 flags, u16 next)
{
	*d = (struct vring_desc) { .addr = addr, .len = len, .flags = flags, .next = next };
}

static void init_refuses(void)
{
	struct viovm_ring r = { .used = (void *)used_mem };

	CHECK(viovm_ring_init(&r, 0, 0, false) == -EINVAL);
	CHECK(viovm_ring_init(&r, 3, 0, false) == -EINVAL);
	CHECK(viovm_ring_init(&r, 1, 0, false) == 0);
}

static void peek_take_wrap(void)
{
	u16 head;
	int i;

	reset(65530, false);
	CHECK(viovm_ring_peek(&ring, &head) == 0);
	for (i = 0; i < 20; i++) {
		guest_add(i % NUM);
		CHECK(viovm_ring_peek(&ring, &head) == 1 && head == i % NUM);
		CHECK(viovm_ring_peek(&ring, &head) == 1 && head == i % NUM);
		viovm_ring_take(&ring);
		CHECK(viovm_ring_peek(&ring, &head) == 0);
	}
}

static void peek_refuses(void)
{
	u16 head;

	reset(0, false);
	guest_add(NUM);
	CHECK(viovm_ring_peek(&ring, &head) == -ERANGE);
	reset(0, false);
	avail_mem[1] = NUM + 1;
	CHECK(viovm_ring_peek(&ring, &head) == -EOVERFLOW);
	reset(5, false);
	avail_mem[1] = 4;
	CHECK(viovm_ring_peek(&ring, &head) == -EOVERFLOW);
	reset(0, false);
	avail_mem[1] = NUM;
	CHECK(viovm_ring_peek(&ring, &head) == 1);
}

static void walk_direct(void)
{
	struct viovm_chain c;

	reset(0, false);
	set(&desc[3], 0x1000, 16, VRING_DESC_F_NEXT, 5);
	set(&desc[5], 0x2000, 4096, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	set(&desc[1], 0x3000, 1, VRING_DESC_F_WRITE, 7);
	CHECK(walk(3, &c) == 0);
	CHECK(c.nr == 3 && c.nr_out == 1);
	CHECK(segs[0].gpa == 0x1000 && segs[0].len == 16 && !segs[0].write);
	CHECK(segs[1].gpa == 0x2000 && segs[1].len == 4096 && segs[1].write);
	CHECK(segs[2].gpa == 0x3000 && segs[2].len == 1 && segs[2].write);
}

static void walk_refuses(void)
{
	struct viovm_chain c;

	reset(0, false);
	set(&desc[0], 0x1000, 16, VRING_DESC_F_NEXT, 1);
	set(&desc[1], 0x1000, 16, VRING_DESC_F_NEXT, 0);
	CHECK(walk(0, &c) == -ELOOP);
	set(&desc[1], 0x1000, 16, VRING_DESC_F_NEXT, NUM);
	CHECK(walk(0, &c) == -ERANGE);
	set(&desc[1], 0x1000, 0, 0, 0);
	CHECK(walk(0, &c) == -ENODATA);
	set(&desc[1], ~0ull - 3, 5, 0, 0);
	CHECK(walk(0, &c) == -EFAULT);
	set(&desc[1], ~0ull - 3, 4, 0, 0);
	CHECK(walk(0, &c) == 0);
	set(&desc[0], 0x1000, 16, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	set(&desc[1], 0x1000, 16, 0, 0);
	CHECK(walk(0, &c) == -EBADMSG);
}

static void walk_indirect(void)
{
	struct viovm_chain c;
	int i;

	reset(0, false);
	for (i = 0; i < 100; i++)
		set(&guest_table[i], i * 4096, 4096, (i < 99 ? VRING_DESC_F_NEXT : 0) |
		    (i >= 40 ? VRING_DESC_F_WRITE : 0), i + 1);
	set(&desc[2], 0, 100 * 16, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(2, &c) == 0);
	CHECK(c.nr == 100 && c.nr_out == 40 && segs[99].gpa == 99 * 4096);

	/* a descriptor before the table counts */
	set(&desc[0], 0x9000, 16, VRING_DESC_F_NEXT, 2);
	CHECK(walk(0, &c) == 0 && c.nr == 101 && c.nr_out == 41);
}

static void walk_indirect_refuses(void)
{
	struct viovm_chain c;
	int i;

	reset(0, false);
	set(&guest_table[0], 0x1000, 16, 0, 0);
	set(&desc[0], 0, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
	CHECK(walk(0, &c) == -EBADMSG);
	set(&desc[0], 0, 0, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(0, &c) == -EINVAL);
	set(&desc[0], 0, 17, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(0, &c) == -EINVAL);
	set(&desc[0], 0, (VIOVM_MAX_CHAIN + 1) * 16, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(0, &c) == -E2BIG);
	set(&desc[0], ~0ull - 15, 32, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(0, &c) == -EFAULT);
	set(&desc[0], 1 << 30, 16, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(0, &c) == -EFAULT);
	set(&desc[0], 0, 16, VRING_DESC_F_INDIRECT, 0);
	set(&guest_table[0], 0, 16, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(0, &c) == -EBADMSG);
	/* next beyond the table, though within the ring */
	set(&guest_table[0], 0x1000, 16, VRING_DESC_F_NEXT, 1);
	CHECK(walk(0, &c) == -ERANGE);
	/* the chain as a whole is bounded */
	for (i = 0; i < VIOVM_MAX_CHAIN; i++)
		set(&guest_table[i], 0x1000, 1, i < VIOVM_MAX_CHAIN - 1 ? VRING_DESC_F_NEXT : 0, i + 1);
	set(&desc[1], 0, VIOVM_MAX_CHAIN * 16, VRING_DESC_F_INDIRECT, 0);
	CHECK(walk(1, &c) == 0 && c.nr == VIOVM_MAX_CHAIN);
	set(&desc[0], 0x1000, 1, VRING_DESC_F_NEXT, 1);
	CHECK(walk(0, &c) == -E2BIG);
}

static void push_writes(void)
{
	u32 *elem;

	reset(65535, false);
	viovm_ring_push(&ring, 5, 4097);
	elem = (u32 *)&used_mem[2] + 2 * (65535 % NUM);
	CHECK(elem[0] == 5 && elem[1] == 4097 && used_mem[1] == 0);
	CHECK(viovm_ring_used_off(&ring) == 4 + 8 * (65535 % NUM));
	viovm_ring_push(&ring, 6, 1);
	CHECK(((u32 *)&used_mem[2])[0] == 6 && used_mem[1] == 1);
	CHECK(viovm_ring_used_off(&ring) == 4);
}

/* Several at once: the guest finds what single ones would have left, and the decisions are the same. */
static void push_n_writes(void)
{
	static uint16_t single[4 + 4 * NUM];
	struct viovm_used used[NUM];
	unsigned int n, i;

	for (n = 1; n <= NUM; n++) {
		for (i = 0; i < n; i++)
			used[i] = (struct viovm_used){ .head = (NUM - 1 - i), .len = 100 + i };
		reset(65533, true);
		for (i = 0; i < n; i++)
			viovm_ring_push(&ring, used[i].head, used[i].len);
		memcpy(single, used_mem, sizeof(single));
		reset(65533, true);
		viovm_ring_push_n(&ring, used, n);
		CHECK(!memcmp(single, used_mem, sizeof(single)));
		CHECK(ring.used_idx == (u16)(65533 + n) && used_mem[1] == ring.used_idx);
	}
	reset(0, true);
	guest_want(100);
	CHECK(viovm_ring_should_signal(&ring));
	for (i = 0; i < 65536 / NUM - 1; i++)
		viovm_ring_push_n(&ring, used, NUM);
	CHECK(ring.signalled_valid);
	/* the mark is passed, by the last one or by more */
	viovm_ring_push_n(&ring, used, NUM);
	CHECK(!ring.signalled_valid);
	reset(0, true);
	CHECK(viovm_ring_should_signal(&ring));
	for (i = 0; i < 65536 / NUM - 1; i++)
		viovm_ring_push_n(&ring, used, NUM);
	viovm_ring_push_n(&ring, used, NUM - 1);
	CHECK(ring.signalled_valid);
	viovm_ring_push_n(&ring, used, 3);
	CHECK(!ring.signalled_valid);
}

static void untake(void)
{
	u16 head;

	reset(65534, false);
	guest_add(3);
	guest_add(4);
	guest_add(5);
	CHECK(viovm_ring_peek(&ring, &head) == 1 && head == 3);
	viovm_ring_take(&ring);
	viovm_ring_take(&ring);
	viovm_ring_take(&ring);
	CHECK(viovm_ring_peek(&ring, &head) == 0);
	viovm_ring_untake(&ring, 2);
	CHECK(viovm_ring_known(&ring) == 2);
	CHECK(viovm_ring_peek(&ring, &head) == 1 && head == 4);
}

static void signal_flags(void)
{
	reset(0, false);
	viovm_ring_push(&ring, 0, 0);
	CHECK(viovm_ring_should_signal(&ring));
	avail_mem[0] = VRING_AVAIL_F_NO_INTERRUPT;
	viovm_ring_push(&ring, 0, 0);
	CHECK(!viovm_ring_should_signal(&ring));
}

static void signal_event_idx(void)
{
	int i;

	reset(65534, true);
	/* the first decision after a start is always yes */
	guest_want(100);
	viovm_ring_push(&ring, 0, 0);
	CHECK(viovm_ring_should_signal(&ring));
	viovm_ring_push(&ring, 0, 0);
	CHECK(!viovm_ring_should_signal(&ring));
	/* wanted at index 2: after the push that makes it 3, and not again */
	guest_want(2);
	for (i = 0; i < 2; i++) {
		viovm_ring_push(&ring, 0, 0);
		CHECK(!viovm_ring_should_signal(&ring));
	}
	viovm_ring_push(&ring, 0, 0);
	CHECK(viovm_ring_should_signal(&ring));
	viovm_ring_push(&ring, 0, 0);
	CHECK(!viovm_ring_should_signal(&ring));
	/* several pushes at once: crossed in the middle */
	guest_want(6);
	for (i = 0; i < 6; i++)
		viovm_ring_push(&ring, 0, 0);
	CHECK(viovm_ring_should_signal(&ring));
	/* 2^16 pushes without a decision: nothing is known any more */
	for (i = 0; i < 65536; i++)
		viovm_ring_push(&ring, 0, 0);
	guest_want(ring.used_idx + 100);
	CHECK(viovm_ring_should_signal(&ring));
}

static void unseen(void)
{
	reset(0xfffe, true);
	guest_want(0xfffe);
	CHECK(viovm_ring_unseen(&ring) == 0);
	ring.last_avail = 3;
	CHECK(viovm_ring_unseen(&ring) == 5);
	guest_want(3);
	CHECK(viovm_ring_unseen(&ring) == 0);
	/* more than fit into the ring: nonsense, or an interrupt wanted much later */
	guest_want(4);
	CHECK(viovm_ring_unseen(&ring) == 0);
	ring.last_avail = 4 + NUM;
	CHECK(viovm_ring_unseen(&ring) == NUM);
	reset(0, false);
	ring.last_avail = 5;
	CHECK(viovm_ring_unseen(&ring) == 0);
}

static void kicks(void)
{
	u16 head;

	reset(0, false);
	viovm_ring_kick_off(&ring);
	CHECK(used_mem[0] == VRING_USED_F_NO_NOTIFY);
	CHECK(!viovm_ring_kick_on(&ring));
	CHECK(used_mem[0] == 0);
	guest_add(1);
	CHECK(viovm_ring_kick_on(&ring));

	reset(0, true);
	guest_add(1);
	CHECK(viovm_ring_peek(&ring, &head) == 1);
	viovm_ring_take(&ring);
	viovm_ring_kick_off(&ring);
	CHECK(used_mem[0] == 0);
	CHECK(!viovm_ring_kick_on(&ring));
	/* avail_event is the index whose addition kicks */
	CHECK(used_mem[viovm_ring_avail_event_off(&ring) / 2] == 1);
}

/* Who needs more than there is leaves what there is, and waits for the next. */
static void kicks_behind_untaken(void)
{
	u16 head;
	int i;

	for (i = 0; i < 2; i++) {
		reset(0, i);
		guest_add(1);
		guest_add(2);
		CHECK(viovm_ring_peek(&ring, &head) == 1);
		viovm_ring_take(&ring);
		CHECK(viovm_ring_peek(&ring, &head) == 1);
		viovm_ring_take(&ring);
		CHECK(viovm_ring_peek(&ring, &head) == 0);
		viovm_ring_untake(&ring, 2);
		CHECK(!viovm_ring_kick_on(&ring));
		if (i)
			CHECK(used_mem[viovm_ring_avail_event_off(&ring) / 2] == 2);
		guest_add(3);
		CHECK(viovm_ring_kick_on(&ring));
		CHECK(viovm_ring_peek(&ring, &head) == 1 && head == 1);
	}
}

/* An index that ran away is looked at again when the worker comes again. */
static void runs_away_twice(void)
{
	u16 head;

	reset(0, false);
	avail_mem[1] = NUM + 1;
	CHECK(viovm_ring_peek(&ring, &head) == -EOVERFLOW);
	CHECK(viovm_ring_peek(&ring, &head) == -EOVERFLOW);
	avail_mem[1] = 0;
	CHECK(viovm_ring_peek(&ring, &head) == 0);
}

static const struct ktap_case cases[] = {
	{ "init_refuses", init_refuses },
	{ "peek_take_wrap", peek_take_wrap },
	{ "peek_refuses", peek_refuses },
	{ "walk_direct", walk_direct },
	{ "walk_refuses", walk_refuses },
	{ "walk_indirect", walk_indirect },
	{ "walk_indirect_refuses", walk_indirect_refuses },
	{ "push_writes", push_writes },
	{ "push_n_writes", push_n_writes },
	{ "untake", untake },
	{ "signal_flags", signal_flags },
	{ "signal_event_idx", signal_event_idx },
	{ "kicks", kicks },
	{ "kicks_behind_untaken", kicks_behind_untaken },
	{ "runs_away_twice", runs_away_twice },
	{ "unseen", unseen },
};

int main(void)
{
	return KTAP_RUN(cases);
}
