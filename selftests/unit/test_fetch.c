// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Ring and in-flight record are memory that somebody else may change between any two instructions: what is checked must be
 * what is used, so that no field is read twice (vhost_iovm/ring.c), or no harm comes of it (vhost_iovm/inflight.c).
 *
 * This file is compiled for ThreadSanitizer, without optimisation and without its runtime: a call comes before every read
 * of the source, atomic or not, and the hooks below are what it finds. No thread has to hit the moment.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ktap.h"
#include "../../vhost_iovm/ring.c"
#include "../../vhost_iovm/inflight.c"

#define HOOK		__attribute__((no_sanitize_thread))
#define MAX		64u
#define ROUNDS		30000
#define TABLES		(64u * sizeof(struct vring_desc))

/* What others can change */
static struct {
	struct vring_desc desc[MAX];
	u16 avail[3 + MAX];
	u16 used[4 + 4 * MAX];
	u8 tables[TABLES];		/* "guest memory" of indirect tables; an address is an offset here */
	union {
		struct vhost_iovm_inflight_record r;
		char bytes[VHOST_IOVM_INFLIGHT_BYTES(MAX)];
	} rec;
} shared;

static u8 seen[sizeof(shared)];
static long twice_at;			/* offset of the first byte that was read once more; -1: none */
static bool bend;			/* who reads a byte once more finds another one */
static bool watching;

static u64 rnd = 1;

static HOOK u32 below(u32 n)
{
	rnd ^= rnd << 13;
	rnd ^= rnd >> 7;
	rnd ^= rnd << 17;
	return (rnd >> 20) % n;
}

static HOOK void touch(const void *p, size_t n)
{
	size_t at = (const u8 *)p - (const u8 *)&shared, i;
	bool clear = bend && below(2);

	if (!watching || at >= sizeof(shared))
		return;
	for (i = at; i < at + n; i++) {
		if (seen[i] && twice_at < 0)
			twice_at = i;
		if (seen[i] && bend)
			((u8 *)&shared)[i] = clear ? 0 : ~((u8 *)&shared)[i];
		seen[i] = 1;
	}
}

/* What the compiler calls, as it declares it */
#define PLAIN_HOOKS(n) \
	HOOK void __tsan_read##n(void *p) { touch(p, n); } \
	HOOK void __tsan_unaligned_read##n(void *p) { touch(p, n); } \
	HOOK void __tsan_write##n(void *p) { (void)p; } \
	HOOK void __tsan_unaligned_write##n(void *p) { (void)p; }
PLAIN_HOOKS(1)
PLAIN_HOOKS(2)
PLAIN_HOOKS(4)
PLAIN_HOOKS(8)
PLAIN_HOOKS(16)

#define ATOMIC_HOOKS(bits) \
	HOOK uint##bits##_t __tsan_atomic##bits##_load(const volatile void *p, int order) \
	{ \
		(void)order; \
		touch((const void *)p, bits / 8); \
		return *(const volatile uint##bits##_t *)p; \
	} \
	HOOK void __tsan_atomic##bits##_store(volatile void *p, uint##bits##_t v, int order) \
	{ \
		(void)order; \
		*(volatile uint##bits##_t *)p = v; \
	}
ATOMIC_HOOKS(8)
ATOMIC_HOOKS(16)
ATOMIC_HOOKS(32)
ATOMIC_HOOKS(64)

HOOK void __tsan_read_range(void *p, long n) { touch(p, n); }
HOOK void __tsan_write_range(void *p, long n) { (void)p; (void)n; }
HOOK void __tsan_atomic_thread_fence(int order) { (void)order; }
HOOK void __tsan_func_entry(void *pc) { (void)pc; }
HOOK void __tsan_func_exit(void *pc) { (void)pc; }
HOOK void __tsan_init(void) { }

static void watch(bool bent)
{
	memset(seen, 0, sizeof(seen));
	twice_at = -1;
	bend = bent;
	watching = true;
}

static const char *unwatch(void)
{
	static char what[64];
	long at = twice_at;

	watching = false;
	if (at < 0)
		return NULL;
	if (at < (long)sizeof(shared.desc))
		snprintf(what, sizeof(what), "byte %ld of descriptor %ld", at % 16, at / 16);
	else if (at < (long)offsetof(__typeof__(shared), used))
		snprintf(what, sizeof(what), "byte %ld of the available ring", at - (long)sizeof(shared.desc));
	else
		snprintf(what, sizeof(what), "byte %ld of what is shared", at);
	return what;
}

/* --- the hooks --- */

static u32 checked_twice(const struct vring_desc *d)
{
	if (READ_ONCE(d->len) > 16)
		return 0;
	return READ_ONCE(d->len);
}

static u32 plain_twice(const struct vring_desc *d)
{
	return d->len > 16 ? 0 : d->len;
}

static u32 checked_once(const struct vring_desc *d)
{
	u32 len = READ_ONCE(d->len);

	return len > 16 ? 0 : len;
}

static void sees_it(void)
{
	shared.desc[3].len = 7;
	watch(false);
	CHECK(checked_once(&shared.desc[3]) == 7);
	CHECK(!unwatch());
	watch(false);
	CHECK(checked_twice(&shared.desc[3]) == 7);
	CHECK(unwatch());
	watch(false);
	CHECK(plain_twice(&shared.desc[3]) == 7);
	CHECK(unwatch());
	/* and the reader finds something else */
	watch(true);
	CHECK(checked_twice(&shared.desc[3]) != 7);
	CHECK(unwatch());
}

/* --- rings --- */

static struct viovm_seg segs[VIOVM_MAX_CHAIN];
static struct vring_desc table[VIOVM_MAX_CHAIN];

static int fetch(void *ctx, void *to, u64 gpa, u32 len)
{
	(void)ctx;
	if (gpa > TABLES || len > TABLES - gpa)
		return -EFAULT;
	touch(shared.tables + gpa, len);
	memcpy(to, shared.tables + gpa, len);
	return 0;
}

static void some_descs(struct vring_desc *d, u32 num, bool may_indirect)
{
	u32 i;

	for (i = 0; i < num; i++) {
		d[i] = (struct vring_desc) {
			.addr = below(8) ? below(1u << 20) : ~0ull - below(64),
			.len = below(16) ? 1 + below(4096) : below(2) * ~0u,
			/* mostly a chain that ends somewhere, readable before writable */
			.flags = (below(6) ? VRING_DESC_F_NEXT : 0) | (i > num / 2 ? VRING_DESC_F_WRITE : 0),
			.next = below(8) ? i + 1 : below(num + 1),
		};
		if (may_indirect && !below(4)) {
			d[i].flags = VRING_DESC_F_INDIRECT | (below(8) ? 0 : below(8));
			d[i].addr = 16 * below(64);
			d[i].len = below(8) ? 16 * (1 + below(32)) : below(1u << 16);
		}
	}
}

/* Does the chain come to a descriptor once more? Then that is read again, as what it is then. */
static bool revisits(u32 num, u32 i)
{
	bool was[MAX] = {};

	for (; i < num; i = shared.desc[i].next) {
		if (was[i])
			return true;
		was[i] = true;
		if (!(shared.desc[i].flags & VRING_DESC_F_NEXT) || shared.desc[i].flags & VRING_DESC_F_INDIRECT)
			break;
	}
	return false;
}

static void rings(void)
{
	unsigned int round, walked = 0;

	for (round = 0; round < ROUNDS && !case_failed; round++) {
		struct viovm_chain c = { .segs = segs, .max = VIOVM_MAX_CHAIN, .table = table, .fetch = fetch };
		struct viovm_ring r = { .desc = shared.desc, .avail = (void *)shared.avail, .used = (void *)shared.used };
		u32 num = 1u << below(7), i;
		u16 base = below(0x10000), head;
		const char *what;

		some_descs(shared.desc, num, true);
		some_descs((void *)shared.tables, TABLES / 16, !below(8));
		for (i = 0; i < num; i++)
			shared.avail[2 + i] = below(64) ? below(num) : below(0x10000);
		shared.avail[0] = below(2);
		shared.avail[1] = base + 1 + below(num);
		shared.avail[2 + num] = below(0x10000);
		shared.used[1] = below(0x10000);

		watch(false);
		CHECK(!viovm_ring_init(&r, num, base, below(2)));
		what = unwatch();
		CHECK(!what, "round %u: init reads %s twice", round, what);
		for (i = 0; i <= num; i++) {
			bool loops = false, more;

			watch(false);
			more = viovm_ring_peek(&r, &head) == 1;
			watching = false;
			if (more)
				loops = revisits(num, head);
			watching = true;
			if (!more)
				break;
			viovm_ring_take(&r);
			walked += !viovm_ring_walk(&r, head, &c);
			viovm_ring_push(&r, head, 1);
			viovm_ring_should_signal(&r);
			what = unwatch();
			CHECK(!what || loops, "round %u: %s is read twice", round, what);
		}
		what = unwatch();
		CHECK(!what, "round %u: peek reads %s twice", round, what);
		watch(false);
		viovm_ring_kick_off(&r);
		viovm_ring_kick_on(&r);
		viovm_ring_unseen(&r);
		what = unwatch();
		CHECK(!what, "round %u: %s is read twice", round, what);
	}
	CHECK(walked > ROUNDS / 4, "only %u chains were good", walked);
}

/* --- the record --- */

/* Marks are read to be checked and once more to be taken: what the second look finds is what counts. */
static void record(void)
{
	unsigned int round, taken = 0;

	for (round = 0; round < ROUNDS && !case_failed; round++) {
		struct viovm_ring r = { .desc = shared.desc, .avail = (void *)shared.avail, .used = (void *)shared.used };
		struct vhost_iovm_inflight_record *rec = &shared.rec.r;
		struct viovm_inflight_item items[MAX + 1];
		struct viovm_inflight f = {};
		u32 num = 1u << below(6), size = num + below(MAX - num + 1), i;
		u16 nr = 0xaaaa, used = below(0x10000);
		bool was[MAX] = {};
		int ret;

		memset(&shared, 0, sizeof(shared));
		memset(items, 0xee, sizeof(items));
		shared.used[1] = used;
		shared.avail[1] = used + below(num + 2);
		rec->version = below(32) ? VHOST_IOVM_INFLIGHT_VERSION : below(3);
		rec->desc_num = below(32) ? size : below(MAX);
		rec->used_idx = used - below(3);
		rec->last_batch_head = below(size + !below(32));
		for (i = 0; i < size; i++) {
			rec->desc[i].inflight = i < num && !below(3);
			rec->desc[i].counter = below(8) ? i * 7 % size : below(size);
			rec->desc[i].next = below(size + !below(64));
		}
		viovm_ring_init(&r, num, used, false);

		watch(true);
		ret = viovm_inflight_start(&f, rec, size, &r, items, &nr);
		unwatch();
		CHECK(nr <= num && (ret == 1 || !nr), "round %u: %u of %u heads, %d", round, nr, num, ret);
		if (ret != 1)
			continue;
		taken += nr > 0;
		CHECK(r.last_avail == (u16)(used + nr) && r.avail_idx == r.last_avail, "round %u: goes on at %u", round, r.last_avail);
		for (i = 0; i < nr && !case_failed; i++) {
			CHECK(items[i].head < num && !was[items[i].head], "round %u: head %u", round, items[i].head);
			was[items[i].head % MAX] = true;
			CHECK(!i || items[i].counter < items[i - 1].counter, "round %u: order", round);
		}
		CHECK(items[num].head == 0xeeee, "round %u: more than there is room for", round);
	}
	CHECK(taken > ROUNDS / 50, "only %u records were good", taken);
}

static const struct ktap_case cases[] = {
	{ "sees_it", sees_it },
	{ "rings", rings },
	{ "record", record },
};

int main(void)
{
	return KTAP_RUN(cases);
}
