// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The in-flight record (vhost_iovm/inflight.c): a back end that is cut off at any single store, and its successor, serve
 * each request, and tell the guest of each once.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ktap.h"
#include "ring_user.h"

/* Every store of the code under test counts; the one at which the back end dies is not made. */
static long stores, cut_at;
static jmp_buf cut;

static void store(void)
{
	if (stores++ == cut_at)
		longjmp(cut, 1);
}

#undef WRITE_ONCE
#undef smp_store_release
#define WRITE_ONCE(x, v)	(store(), __atomic_store_n(&(x), (v), __ATOMIC_RELAXED))
#define smp_store_release(p, v)	(store(), __atomic_store_n((p), (v), __ATOMIC_RELEASE))

#include "../../vhost_iovm/ring.c"
#include "../../vhost_iovm/inflight.c"

#define NUM	8
#define MAX	1024

/* What outlives a back end: ring and record. */
static struct vring_desc desc[MAX];
static uint16_t avail_mem[3 + MAX], used_mem[4 + 4 * MAX];
static union {
	struct vhost_iovm_inflight_record r;
	char bytes[VHOST_IOVM_INFLIGHT_BYTES(MAX)];
} rec;

/* A back end. */
static struct viovm_ring ring;
static struct viovm_inflight inf;
static struct viovm_inflight_item items[MAX];
static u16 nr_items;

/* The guest: which heads it has given and not got back, when, and how often each request was told of. */
static u16 avail_idx, last_used;
static bool out[MAX];
static unsigned int given_at[MAX], clock_now;
static unsigned int given, told;

static void guest_give(u16 head)
{
	if (out[head])
		abort();
	out[head] = true;
	given_at[head] = ++clock_now;
	given++;
	avail_mem[2 + avail_idx % NUM] = head;
	avail_mem[1] = ++avail_idx;
}

static void guest_take(void)
{
	while (last_used != used_mem[1]) {
		u32 *elem = (u32 *)&used_mem[2] + 2 * (last_used++ % NUM);

		CHECK(elem[0] < NUM && out[elem[0]], "head %u told of twice", elem[0]);
		if (elem[0] < NUM)
			out[elem[0]] = false;
		told++;
	}
}

static void reset(u16 base)
{
	memset(&rec, 0, sizeof(rec));
	memset(avail_mem, 0, sizeof(avail_mem));
	memset(used_mem, 0, sizeof(used_mem));
	memset(out, 0, sizeof(out));
	avail_idx = last_used = base;
	avail_mem[1] = used_mem[1] = base;
	given = told = 0;
	ring.desc = desc;
	ring.avail = (void *)avail_mem;
	ring.used = (void *)used_mem;
	cut_at = -1;
	stores = 0;
}

/* A back end starts; what QEMU says its base is, after one that was killed: the used index. */
static int begin(u16 num)
{
	viovm_ring_init(&ring, num, used_mem[1], false);
	nr_items = 0;
	return viovm_inflight_start(&inf, &rec.r, num, &ring, items, &nr_items);
}

static unsigned int taken[NUM], nr_taken;

static bool take(void)
{
	u16 head;

	if (nr_items) {
		head = items[--nr_items].head;
		CHECK(nr_taken == 0 || given_at[head] > given_at[taken[nr_taken - 1]], "head %u out of order", head);
	} else if (viovm_ring_peek(&ring, &head) == 1) {
		viovm_ring_take(&ring);
		viovm_inflight_take(&inf, head);
	} else {
		return false;
	}
	for (unsigned int i = 0; i < nr_taken; i++)
		CHECK(taken[i] != head, "head %u served twice at a time", head);
	CHECK(out[head], "head %u served and not given", head);
	taken[nr_taken++] = head;
	return true;
}

static void complete(unsigned int i)
{
	u16 head = taken[i];

	taken[i] = taken[--nr_taken];
	viovm_inflight_push(&inf, &ring, head, 1);
	guest_take();
}

static void work(unsigned int seed, unsigned int steps)
{
	unsigned int r = seed;

	CHECK(begin(NUM) >= 0);
	while (steps--) {
		r = r * 1103515245 + 12345;
		if (r >> 16 & 1) {
			for (u16 h = 0; h < NUM; h++) {
				if (!out[h]) {
					guest_give(h);
					break;
				}
			}
		}
		if (r >> 17 & 1)
			take();
		/* what is served again ends in any order, but begins in the old one */
		if (!nr_items && nr_taken && r >> 18 & 1)
			complete((r >> 20) % nr_taken);
	}
}

/*
 * One life of a back end: it takes over, and works until it is cut off at store @at (-1: never) or @steps are done. All it
 * knows is lost then, and the guest looks at its ring. What comes and goes is made from @seed; the guest reuses heads
 * at once.
 */
static void life(unsigned int seed, unsigned int steps, long at)
{
	nr_taken = 0;
	stores = 0;
	cut_at = at;
	if (!setjmp(cut))
		work(seed, steps);
	cut_at = -1;
	guest_take();
}

static void drain(void)
{
	life(1, 0, -1);
	while (take())
		;
	while (nr_taken)
		complete(0);
}

/* Nothing is lost, and nothing was told twice (guest_take() sees to that). */
static void all_told(unsigned int seed, long at, const char *which)
{
	drain();
	CHECK(told == given, "seed %u, %s cut at store %ld: told of %u of %u", seed, which, at, told, given);
	for (u16 h = 0; h < NUM; h++)
		CHECK(!out[h] && !rec.r.desc[h].inflight, "head %u is still out", h);
}

/* Each store of a life; then each store of the recovery and of the life behind it. */
static void cut_everywhere(void)
{
	for (unsigned int seed = 1; seed <= 20 && !case_failed; seed++) {
		long end, at;

		reset(65530);
		life(seed, 60, -1);
		end = stores;
		for (at = 0; at < end && !case_failed; at++) {
			reset(65530);
			life(seed, 60, at);
			all_told(seed, at, "first");
		}
		for (at = 0; at < 40 && !case_failed; at++) {
			reset(65530);
			life(seed, 60, end - 1 - seed % 7);
			life(seed + 1, 20, at);
			all_told(seed, at, "second");
		}
	}
}

static void push_cut_at(u16 head, long at)
{
	stores = 0;
	cut_at = at;
	if (!setjmp(cut))
		viovm_inflight_push(&inf, &ring, head, 1);
	cut_at = -1;
	guest_take();
}

/* A guest that was told of a request gives the head again before the successor is there. */
static void reused_before_recovery(void)
{
	for (long at = 0; at < 10; at++) {
		reset(0);
		guest_give(3);
		guest_give(5);
		life(1, 0, -1);
		CHECK(take() && take());
		push_cut_at(3, at);
		if (!out[3])
			guest_give(3);
		all_told(0, at, "a");
	}
	CHECK(given == 3);
}

static void order_and_wrap(void)
{
	reset(65534);
	for (u16 i = 0; i < 5; i++)
		guest_give((i * 3 + 1) % NUM);		/* 1 4 7 2 5 */
	life(1, 0, -1);
	for (int i = 0; i < 5; i++)
		CHECK(take());
	complete(1);					/* 4 */
	nr_taken = 0;
	CHECK(begin(NUM) == 1 && nr_items == 4);
	CHECK(items[3].head == 1 && items[2].head == 7 && items[1].head == 2 && items[0].head == 5);
	CHECK(ring.last_avail == (u16)(65534 + 5) && ring.used_idx == 65535);
	/* the next one taken is younger than all of these */
	CHECK(inf.counter > items[0].counter);
}

/* A batch of a back end that writes the used index once for several heads. */
static void batch_of_another(void)
{
	reset(0);
	for (u16 i = 0; i < 4; i++)
		guest_give(i);
	life(1, 0, -1);
	while (take())
		;
	rec.r.desc[2].next = rec.r.last_batch_head;
	rec.r.desc[0].next = 2;
	rec.r.last_batch_head = 0;
	for (u16 i = 0; i < 2; i++)
		((u32 *)&used_mem[2])[2 * i] = i ? 0 : 2;
	used_mem[1] = 2;
	CHECK(begin(NUM) == 1 && nr_items == 2);
	CHECK(items[1].head == 1 && items[0].head == 3);
	CHECK(rec.r.used_idx == 2 && !rec.r.desc[0].inflight && !rec.r.desc[2].inflight);
}

static void fresh(void)
{
	reset(7);
	memset(rec.r.desc, 0xff, NUM * sizeof(rec.r.desc[0]));
	CHECK(begin(NUM) == 0 && nr_items == 0);
	CHECK(rec.r.version == 1 && rec.r.desc_num == NUM && rec.r.used_idx == 7);
	CHECK(ring.last_avail == 7);
	CHECK(begin(NUM) == 1 && nr_items == 0 && ring.last_avail == 7);
	/* the guest has made its ring anew and nothing was in flight */
	avail_mem[1] = used_mem[1] = 0;
	CHECK(begin(NUM) == 1 && nr_items == 0 && ring.last_avail == 0 && rec.r.used_idx == 0);
}

/* A ring of @num heads of which three are in flight, in a good record. */
static void three(void)
{
	reset(0);
	for (u16 i = 0; i < 3; i++)
		guest_give(i);
	life(1, 0, -1);
	while (take())
		;
	nr_taken = 0;
}

static int bad(void)
{
	int ret = begin(NUM);

	CHECK(ret > 0 || !nr_items);
	return ret;
}

static void refuses(void)
{
	three();
	CHECK(bad() == 1 && nr_items == 3);
	rec.r.version = 2;
	CHECK(bad() == -EOPNOTSUPP);
	three();
	rec.r.features = 1;
	CHECK(bad() == -EOPNOTSUPP);
	three();
	rec.r.desc_num = NUM * 2;
	CHECK(bad() == -EINVAL);
	three();
	CHECK(begin(NUM * 2) == -EINVAL);
	three();
	rec.r.desc[1].inflight = 2;
	CHECK(bad() == -EINVAL);
	three();
	rec.r.last_batch_head = NUM;
	CHECK(bad() == -ERANGE);
	three();
	rec.r.used_idx = 65534;
	rec.r.desc[0].next = NUM;
	CHECK(bad() == -ERANGE);
	three();
	rec.r.desc[2].counter = rec.r.desc[0].counter;
	CHECK(bad() == -EEXIST);
	three();
	rec.r.desc[2].counter = ~0ull;
	CHECK(bad() == -EOVERFLOW);
	rec.r.desc[2].counter = ~0ull - 1;
	CHECK(bad() == 1 && inf.counter == ~0ull);
	/* more than the ring has outstanding */
	three();
	avail_mem[1] = 2;
	CHECK(bad() == -ESTALE);
	three();
	avail_mem[1] = 60000;
	CHECK(bad() == -ESTALE);
	/* further back than a ring is long */
	three();
	rec.r.used_idx = 60000;
	CHECK(bad() == -ESTALE);
	CHECK(rec.r.desc[0].inflight && rec.r.used_idx == 60000);
}

/* A record with more entries than the ring: those behind it must not be in flight. */
static void larger_than_the_ring(void)
{
	reset(0);
	viovm_ring_init(&ring, NUM, 0, false);
	CHECK(viovm_inflight_start(&inf, &rec.r, MAX, &ring, items, &nr_items) == 0 && rec.r.desc_num == MAX);
	CHECK(viovm_inflight_start(&inf, &rec.r, MAX, &ring, items, &nr_items) == 1);
	rec.r.desc[MAX - 1].inflight = 1;
	CHECK(viovm_inflight_start(&inf, &rec.r, MAX, &ring, items, &nr_items) == -ERANGE);
}

/* Anything at all in the record: an error or a bounded answer; the sanitizers look on. */
static void noise(void)
{
	unsigned int r = 42, good = 0;

	for (int round = 0; round < 20000; round++) {
		bool seen[NUM] = { 0 };
		u8 *p = (u8 *)&rec;

		three();
		for (int i = 0; i < 4; i++) {
			r = r * 1103515245 + 12345;
			p[(r >> 8) % VHOST_IOVM_INFLIGHT_BYTES(NUM)] = (r >> 24) % 3 ? r >> 16 & 3 : r >> 16;
		}
		if (begin(NUM) < 0)
			continue;
		good++;
		CHECK(nr_items <= NUM);
		for (u16 i = 0; i < nr_items && !case_failed; i++) {
			CHECK(items[i].head < NUM && !seen[items[i].head]);
			CHECK(i == 0 || items[i - 1].counter > items[i].counter);
			seen[items[i].head] = true;
		}
		if (case_failed)
			return;
	}
	CHECK(good > 0 && good < 20000);
}

static const struct ktap_case cases[] = {
	{ "cut_everywhere", cut_everywhere },
	{ "reused_before_recovery", reused_before_recovery },
	{ "order_and_wrap", order_and_wrap },
	{ "batch_of_another", batch_of_another },
	{ "fresh", fresh },
	{ "refuses", refuses },
	{ "larger_than_the_ring", larger_than_the_ring },
	{ "noise", noise },
};

int main(void)
{
	_Static_assert(sizeof(struct vhost_iovm_inflight_desc) == 16, "an entry");
	_Static_assert(sizeof(struct vhost_iovm_inflight_record) == 16, "the header");
	return KTAP_RUN(cases);
}
