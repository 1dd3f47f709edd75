// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of what a slow path is (iovm_mux/drift.c): a path is played second by second, by a model of what a device
 * takes under a load, and drift.c must say slow when the device is, and nothing when only the load changes.
 */
#include <stdlib.h>
#include <string.h>

#include "ktap.h"
#include "../../iovm_mux/policy.h"
#include "../../iovm_mux/drift.c"

#define SEC 1000000000ull
#define US 1000ull
#define MS 1000000ull
#define FACTOR IOVM_SLOW_FACTOR

static struct iovm_drift d;
static __u64 now;
static bool slow;
static int begins, overs;

static void fresh(void)
{
	memset(&d, 0, sizeof(d));
	now = 5 * SEC;
	slow = false;
	begins = 0;
	overs = 0;
	srand(1);
}

static void count(int lat, __u64 ns, __u64 n, __u64 bytes)
{
	d.now.lat[lat][iovm_hist_bucket(ns)] += n;
	if (lat < 2)
		d.now.bytes[lat] += n * bytes;
}

/* Half of it to one and a half times, as devices do. */
static __u64 spread(__u64 ns)
{
	return ns / 2 + (__u64)rand() % (ns + 1);
}

static void step(void)
{
	enum iovm_drift_news news;

	now += SEC;
	news = iovm_drift_step(&d, now, FACTOR, slow);
	if (news == IOVM_DRIFT_SLOW) {
		CHECK(!slow);
		slow = true;
		begins++;
	} else if (news == IOVM_DRIFT_OVER) {
		CHECK(slow);
		slow = false;
		overs++;
	}
}

/*
 * A second of a closed loop: @depth requests of @bytes always in flight, @write_pct of them writes. The device takes @ns for
 * one of 4 KiB, serves @lanes at once, and others wait; bandwidth is a lane's.
 */
static void loop(int secs, unsigned int depth, __u64 bytes, unsigned int write_pct, __u64 ns, unsigned int lanes)
{
	__u64 service = ns * (bytes > 16384 ? bytes / 16384 : 1);
	__u64 lat = depth > lanes ? service * depth / lanes : service;
	__u64 n = SEC * depth / lat;

	while (secs--) {
		for (__u64 i = 0; i < n; i++)
			count((__u64)rand() % 100 < write_pct, spread(lat), 1, bytes);
		step();
	}
}

/* A second of requests at a fixed rate, whatever they take. */
static void rate(int secs, __u64 n, __u64 ns)
{
	while (secs--) {
		for (__u64 i = 0; i < n; i++)
			count(0, spread(ns), 1, 4096);
		step();
	}
}

static void idle(int secs)
{
	while (secs--)
		step();
}

static void test_slower(void)
{
	/* ten times slower, at the same depth: after a few seconds, once; and over when it is */
	for (unsigned int depth = 1; depth <= 128; depth *= 4) {
		fresh();
		loop(30, depth, 4096, 30, 500 * US, 8);
		CHECK(!begins, "depth %u: slow although nothing happened", depth);
		loop(IOVM_SLOW_WINDOWS + 1, depth, 4096, 30, 5000 * US, 8);
		CHECK(begins == 1 && slow, "depth %u: not noticed", depth);
		CHECK(d.lat_ns > 4 * d.usual_ns, "depth %u: %llu where %llu is usual", depth, d.lat_ns, d.usual_ns);
		loop(600, depth, 4096, 30, 5000 * US, 8);
		CHECK(begins == 1 && slow && !overs, "depth %u: the slow phase was learned", depth);
		loop(IOVM_SLOW_WINDOWS + 1, depth, 4096, 30, 500 * US, 8);
		CHECK(overs == 1 && !slow, "depth %u: not over", depth);
	}
}

static void test_little(void)
{
	/* less than the factor, or less than the floor */
	fresh();
	loop(30, 4, 4096, 30, 2 * MS, 8);
	loop(60, 4, 4096, 30, 5 * MS, 8);
	CHECK(!begins, "2.5 times");
	fresh();
	loop(30, 4, 4096, 30, 20 * US, 8);
	loop(60, 4, 4096, 30, 200 * US, 8);
	CHECK(!begins, "ten times, but of microseconds");
}

/* A single window, or two, that are slow: a controller that cleans up, a host that was busy. */
static void test_hiccups(void)
{
	fresh();
	loop(30, 8, 4096, 30, 500 * US, 8);
	for (int i = 0; i < 20; i++) {
		loop(IOVM_SLOW_WINDOWS - 1, 8, 4096, 30, 20 * MS, 8);
		loop(2, 8, 4096, 30, 500 * US, 8);
	}
	CHECK(!begins);
	/* a request in ten that takes a second says more than a bad median */
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 1000; k++)
			count(0, k % 7 ? 500 * US : SEC, 1, 4096);
		step();
	}
	CHECK(begins == 1, "every seventh read takes a second");
}

/* The device stays as it is; the guest does what it likes. */
static void test_loads(void)
{
	static const unsigned int depths[] = { 1, 2, 32, 4, 128, 1, 64, 16 };
	static const __u64 sizes[] = { 4096, 1 << 20, 16384, 131072, 65536 };

	for (unsigned int lanes = 1; lanes <= 32; lanes *= 4) {
		fresh();
		for (int i = 0; i < 400; i++)
			loop(1 + rand() % 12, depths[rand() % 8], sizes[rand() % 5], rand() % 3 * 50, 300 * US, lanes);
		CHECK(!begins, "%u at once", lanes);
		/* one after the other, each until it is known */
		fresh();
		for (unsigned int i = 0; i < 40; i++)
			loop(20, depths[i % 8], sizes[i / 8], 0, 300 * US, lanes);
		for (int i = 0; i < 100; i++)
			loop(5, depths[rand() % 8], sizes[rand() % 5], 0, 300 * US, lanes);
		CHECK(!begins, "%u at once, known", lanes);
	}
}

/* A tenth of the time 32 requests at once wait for each other: the same on average as three all the time. */
static void test_bursts(void)
{
	fresh();
	loop(30, 3, 4096, 0, 2 * MS, 1);
	for (int i = 0; i < 100; i++) {
		for (int k = 0; k < 20; k++) {
			bool burst = k % 10 == 0;

			/* seen often only while under suspicion, as the work does */
			if (d.bad || !k)
				iovm_drift_sample(&d, burst ? 32 : 0);
		}
		for (int k = 0; k < 64; k++)
			count(0, spread(64 * MS), 1, 4096);
		step();
	}
	CHECK(!begins);
	/* and a device that has become slow is so with the same average */
	fresh();
	loop(30, 3, 4096, 0, 2 * MS, 1);
	for (int i = 0; i < 10; i++) {
		for (int k = 0; k < 20; k++)
			iovm_drift_sample(&d, 3);
		for (int k = 0; k < 64; k++)
			count(0, spread(60 * MS), 1, 4096);
		step();
	}
	CHECK(begins == 1);
}

static void test_idle(void)
{
	/* a few slow ones after a pause: caches are cold, the disk spins up */
	fresh();
	loop(30, 4, 4096, 30, 500 * US, 8);
	for (int i = 0; i < 20; i++) {
		idle(100);
		count(0, 3 * SEC, 1, 4096);
		count(0, 20 * MS, 10, 4096);
		step();
		idle(10);
		loop(1, 4, 4096, 0, 10 * MS, 8);
	}
	CHECK(!begins);
	/* slow windows with pauses between are not in a row */
	for (int i = 0; i < 20; i++) {
		idle(20);
		loop(2, 4, 4096, 30, 20 * MS, 8);
	}
	idle(20);
	CHECK(!begins);
	/* but few requests because each takes so long, that is not a pause */
	rate(60, 2, 600 * MS);
	CHECK(begins == 1, "two reads a second, of 600 ms each");
}

static void test_rates(void)
{
	/* a rate that does not depend on the disk */
	fresh();
	rate(30, 200, 300 * US);
	CHECK(!begins);
	rate(6, 200, 30 * MS);
	CHECK(begins == 1, "a hundred times slower");
}

/* What creeps up is not taken for usual as long as it does so within hours. */
static void test_creep(void)
{
	__u64 ns = 2 * MS;

	fresh();
	loop(100, 4, 4096, 0, ns, 8);
	for (int i = 0; i < 60 && !begins; i++) {
		ns += ns / 16;
		loop(10, 4, 4096, 0, ns, 8);
	}
	CHECK(begins == 1 && ns < 2 * MS * 12, "at %llu", ns);
}

static void test_from_the_start(void)
{
	/* nothing to compare with */
	fresh();
	loop(100, 4, 4096, 30, 50 * MS, 8);
	CHECK(!begins && d.lat_ns);
	iovm_drift_forget(&d);
	CHECK(!d.lat_ns && !d.usual_ns && !iovm_drift_typical(&d, IOVM_OP_READ));
	loop(1, 4, 4096, 30, 500 * US, 8);
	CHECK(!d.usual_ns);
	loop(20, 4, 4096, 30, 500 * US, 8);
	CHECK(d.usual_ns && iovm_drift_typical(&d, IOVM_OP_READ));
	loop(10, 4, 4096, 30, 50 * MS, 8);
	CHECK(begins == 1, "after it was learned anew");
}

/* Writes that become slow among reads that do not. */
static void test_kinds(void)
{
	fresh();
	for (int i = 0; i < 60; i++) {
		for (int k = 0; k < 100; k++) {
			count(0, spread(500 * US), 1, 4096);
			count(1, spread(i < 30 ? MS : 20 * MS), 1, 4096);
		}
		step();
	}
	CHECK(begins == 1 && slow);
	CHECK(d.op == IOVM_OP_WRITE);
	/* counters and clocks at their ends do no harm */
	memset(&d, 0xff, sizeof(d));
	iovm_drift_step(&d, ~0ull, IOVM_SLOW_FACTOR_MAX, false);
	iovm_drift_forget(&d);
	for (int i = 0; i < 40; i++) {
		count(0, ~0ull, 1ull << 20, 1 << 20);
		step();
	}
	CHECK(d.usual_ns <= 1ull << 52);
}

static void test_rival(void)
{
	static const struct iovm_rival good = { IOVM_PATH_LIVE, false, MS, 0 };
	struct iovm_rival p[3] = { { IOVM_PATH_LIVE, true, 0, 0 }, good, good };

	CHECK(iovm_choose_rival(p, 3, 0, 100 * MS, FACTOR) == 1);
	p[2].rtt_ns = MS / 2;
	CHECK(iovm_choose_rival(p, 3, 0, 100 * MS, FACTOR) == 2, "the faster one");
	CHECK(iovm_choose_rival(p, 3, 2, 100 * MS, FACTOR) == 1, "not itself");
	CHECK(iovm_choose_rival(p, 1, 0, 100 * MS, FACTOR) == -1, "alone");
	for (int state = 0; state < IOVM_PATH_REMOVED; state++) {
		p[1] = good;
		p[1].state = state;
		CHECK((iovm_choose_rival(p, 2, 0, 100 * MS, FACTOR) == 1) == (state == IOVM_PATH_LIVE), "state %d", state);
	}
	p[1] = good;
	p[1].slow = true;
	CHECK(iovm_choose_rival(p, 2, 0, 100 * MS, FACTOR) == -1, "slow itself");
	p[1] = good;
	p[1].rtt_ns = 0;
	CHECK(iovm_choose_rival(p, 2, 0, 100 * MS, FACTOR) == -1, "has not answered");
	p[1].rtt_ns = 26 * MS;
	CHECK(iovm_choose_rival(p, 2, 0, 100 * MS, FACTOR) == -1, "not clearly better");
	p[1].rtt_ns = 25 * MS;
	CHECK(iovm_choose_rival(p, 2, 0, 100 * MS, FACTOR) == 1);
	p[1].usual_ns = 51 * MS;
	CHECK(iovm_choose_rival(p, 2, 0, 100 * MS, FACTOR) == -1, "was no better under load");
}

static const struct ktap_case cases[] = {
	{ "slower", test_slower },
	{ "a little slower", test_little },
	{ "hiccups", test_hiccups },
	{ "loads that vary", test_loads },
	{ "bursts", test_bursts },
	{ "idle", test_idle },
	{ "fixed rates", test_rates },
	{ "creeping", test_creep },
	{ "slow from the start", test_from_the_start },
	{ "kinds", test_kinds },
	{ "rivals", test_rival },
};

int main(void)
{
	return KTAP_RUN(cases);
}
