// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the fault campaign's checker (selftests/torture/model.c): what it must take, and what it must call a breach.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ktap.h"
#include "../torture/model.c"
#include "../kernel/lib/pat.c"

#define NSECT	64
#define SEED	7

u64 now_ns(void)
{
	static u64 t;

	return t += 1000;
}

static struct model *m;
static u8 disk[NSECT * 512];

static void begin(bool volatile_cache)
{
	m = model_new(SEED, NSECT, volatile_cache);
	memset(disk, 0, sizeof(disk));
}

/* Breaches are expected: they are not for this program's output. */
static u64 breaches(void)
{
	return m->breaches;
}

static void quiet(bool on)
{
	static int out = -1;

	fflush(stdout);
	if (on) {
		out = dup(1);
		if (!freopen("/dev/null", "w", stdout))
			abort();
	} else {
		dup2(out, 1);
		close(out);
		clearerr(stdout);
	}
}

static void put(u64 sector, u32 gen)
{
	pat_fill(disk + 512 * sector, SEED, sector, gen);
}

static u32 start(u64 sector, u32 nr)
{
	u32 gen = model_write_begin(m, sector, nr, MODEL_DATA, 0);

	CHECK(gen != 0);
	return gen;
}

static void end(u64 sector, u32 nr, u32 gen)
{
	model_write_end(m, sector, nr, gen, 0, VIRTIO_BLK_S_OK);
}

static u32 write_all(u64 sector, u32 nr)
{
	u32 gen = start(sector, nr), i;

	for (i = 0; i < nr; i++)
		put(sector + i, gen);
	end(sector, nr, gen);
	return gen;
}

/* Breaches that a read of this sector, all of it now, makes. */
static u64 read_now(u64 sector)
{
	u64 before = breaches();

	quiet(true);
	model_read_begin(m, 0, sector, 1, 0);
	model_read_end(m, 0, sector, 1, disk + 512 * sector, 0, VIRTIO_BLK_S_OK);
	quiet(false);
	return breaches() - before;
}

static int rd(void *ctx, void *buf, size_t len, u64 off)
{
	(void)ctx;
	memcpy(buf, disk + off, len);
	return 0;
}

static u64 at_rest(void)
{
	u64 before = breaches();

	quiet(true);
	model_check(m, rd, NULL);
	quiet(false);
	return breaches() - before;
}

static void test_last_write(void)
{
	u32 g1, g2;

	begin(false);
	CHECK(!read_now(3));
	g1 = write_all(3, 2);
	CHECK(!read_now(3) && !read_now(4) && !at_rest());
	g2 = write_all(3, 1);
	CHECK(!read_now(3));
	put(3, g1);
	CHECK(read_now(3) == 1 && at_rest() == 1, "an old content was taken");
	put(3, g2);
	memset(disk + 4 * 512, 0, 512);
	CHECK(read_now(4) == 1, "a lost write was taken");
	model_free(m);
}

static void test_misplaced(void)
{
	u32 g;

	begin(false);
	g = write_all(3, 2);
	pat_fill(disk + 3 * 512, SEED, 4, g);
	CHECK(read_now(3) == 1, "another sector's content was taken");
	put(3, g);
	disk[3 * 512 + 511] ^= 1;
	CHECK(read_now(3) == 1, "a changed byte was taken");
	model_free(m);
}

/* In flight: either; and what a read may bring that began before the end of the write */
static void test_in_flight(void)
{
	u64 before;
	u32 g1, g2;

	begin(false);
	g1 = write_all(3, 1);
	g2 = start(3, 1);
	CHECK(!read_now(3));
	put(3, g2);
	CHECK(!read_now(3));
	put(3, g1);
	model_read_begin(m, 1, 3, 1, 0);
	end(3, 1, g2);
	before = breaches();
	model_read_end(m, 1, 3, 1, disk + 3 * 512, 0, VIRTIO_BLK_S_OK);
	CHECK(breaches() == before, "a read that began before the acknowledgement may bring what was there");
	CHECK(read_now(3) == 1);
	model_free(m);
}

static void test_torn(void)
{
	u32 g1, g2;

	begin(false);
	g1 = write_all(3, 1);
	g2 = start(3, 1);
	put(3, g2);
	pat_fill(disk + 5 * 512, SEED, 3, g1);
	memcpy(disk + 3 * 512 + 256, disk + 5 * 512 + 256, 256);
	CHECK(!read_now(3) && m->mixed == 1, "half of a write in flight");
	end(3, 1, g2);
	CHECK(read_now(3) == 1, "half of an acknowledged write was taken");
	model_free(m);
}

/* Two writes at once: either may be the last; a third one ends that. */
static void test_overlap(void)
{
	u32 g1, g2;

	begin(false);
	g1 = start(3, 1);
	g2 = start(3, 1);
	end(3, 1, g2);
	end(3, 1, g1);
	put(3, g2);
	CHECK(!read_now(3));
	put(3, g1);
	CHECK(!read_now(3));
	write_all(3, 1);
	put(3, g1);
	CHECK(read_now(3) == 1);
	model_free(m);
}

static void test_zeroes_and_discard(void)
{
	u32 g, z;

	begin(false);
	g = write_all(3, 1);
	z = model_write_begin(m, 3, 1, MODEL_DISCARD, 0);
	model_write_end(m, 3, 1, z, 0, VIRTIO_BLK_S_OK);
	CHECK(!read_now(3));
	memset(disk + 3 * 512, 0, 512);
	CHECK(!read_now(3));
	z = model_write_begin(m, 3, 1, MODEL_ZERO, 0);
	model_write_end(m, 3, 1, z, 0, VIRTIO_BLK_S_OK);
	CHECK(!read_now(3));
	put(3, g);
	CHECK(read_now(3) == 1, "what was zeroed is back");
	model_free(m);
}

/* Of a killed front end */
static void test_lost(void)
{
	u32 g1, g2;

	begin(false);
	g1 = write_all(3, 1);
	g2 = start(3, 1);
	model_lost(m);
	CHECK(!at_rest());
	put(3, g2);
	CHECK(!at_rest());
	write_all(3, 1);
	CHECK(!at_rest());
	put(3, g2);
	CHECK(at_rest() == 1, "a lost write landed behind a later one");
	put(3, g1);
	CHECK(at_rest() == 1);
	model_free(m);
}

static void test_crash(void)
{
	u32 g1, g2, g3;
	u64 t;

	begin(true);
	g1 = write_all(3, 1);
	t = model_flush_begin(m, 0);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_OK);
	g2 = write_all(3, 1);
	put(3, g1);
	CHECK(read_now(3) == 1, "without a crash nothing is lost");
	model_crash(m);
	CHECK(!read_now(3), "not flushed: it may be gone");
	memset(disk + 3 * 512, 0, 512);
	CHECK(read_now(3) == 1, "what was flushed may not be gone");
	put(3, g2);
	CHECK(!read_now(3));
	t = model_flush_begin(m, 0);
	g3 = write_all(3, 1);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_OK);
	model_crash(m);
	put(3, g2);
	CHECK(!read_now(3), "a write that ended after the flush began is not covered by it");
	put(3, g3);
	t = model_flush_begin(m, 0);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_IOERR);
	model_crash(m);
	put(3, g2);
	CHECK(!read_now(3), "a flush that failed covers nothing");
	g3 = write_all(3, 1);
	t = model_flush_begin(m, 0);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_OK);
	model_crash(m);
	CHECK(!read_now(3));
	put(3, g2);
	CHECK(read_now(3) == 1, "a flushed write was lost");
	model_free(m);

	/* with a cache that is written through a crash takes nothing */
	begin(false);
	g1 = write_all(3, 1);
	write_all(3, 1);
	model_crash(m);
	put(3, g1);
	CHECK(read_now(3) == 1);
	model_free(m);
}

/* What is in flight when the caches are lost is not durable by a flush that was in flight too; a later one makes it so. */
static void test_crash_in_flight(void)
{
	u32 g1, g2, g3;
	u64 t, before;

	begin(true);
	g1 = write_all(3, 1);
	t = model_flush_begin(m, 0);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_OK);
	g2 = start(3, 1);
	t = model_flush_begin(m, 0);
	model_crash(m);
	end(3, 1, g2);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_OK);
	put(3, g1);
	CHECK(!read_now(3));
	put(3, g2);
	CHECK(!read_now(3));
	memset(disk + 3 * 512, 0, 512);
	CHECK(read_now(3) == 1, "what was flushed before is gone");
	model_read_begin(m, 1, 3, 1, 0);
	g3 = write_all(3, 1);
	t = model_flush_begin(m, 0);
	model_flush_end(m, t, 0, VIRTIO_BLK_S_OK);
	model_crash(m);
	CHECK(!read_now(3));
	put(3, g2);
	CHECK(read_now(3) == 1, "generation %u, flushed, was lost", g3);
	before = breaches();
	model_read_end(m, 1, 3, 1, disk + 3 * 512, 0, VIRTIO_BLK_S_OK);
	CHECK(breaches() == before, "a read from before the write may bring what was there");
	model_free(m);
}

/* A sector written again and again: the room of dead contents is used again, that of others is not. */
static void test_room(void)
{
	u32 i, n, first;

	begin(false);
	for (i = 0; i < 1000; i++)
		CHECK(write_all(3, 1));
	first = write_all(4, 1);
	model_read_begin(m, 9, 4, 1, 0);
	for (n = 0; n < 100; n++) {
		u32 gen = model_write_begin(m, 4, 1, MODEL_DATA, 0);

		if (!gen)
			break;
		put(4, gen);
		end(4, 1, gen);
	}
	CHECK(n < 100 && n >= MODEL_ENTRIES - 3, "%u writes during a read", n);
	put(4, first);
	model_read_end(m, 9, 4, 1, disk + 4 * 512, 0, VIRTIO_BLK_S_OK);
	CHECK(!breaches());
	CHECK(write_all(4, 1));
	model_free(m);
}

static const struct ktap_case cases[] = {
	{ "the last write counts", test_last_write },
	{ "misplaced and changed contents", test_misplaced },
	{ "writes in flight", test_in_flight },
	{ "torn sectors", test_torn },
	{ "writes at the same time", test_overlap },
	{ "zeroes and discards", test_zeroes_and_discard },
	{ "writes of a killed front end", test_lost },
	{ "a lost cache", test_crash },
	{ "a lost cache with requests in flight", test_crash_in_flight },
	{ "room", test_room },
};

int main(void)
{
	return KTAP_RUN(cases);
}
