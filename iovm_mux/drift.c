// SPDX-License-Identifier: GPL-2.0
/*
 * Is a path slower than it used to be?
 *
 * Latency alone does not tell. It grows with the number of requests in flight, with their size,
 * and with what else is on; a guest that begins to copy its disk is no reason for an alarm. So a
 * path is compared with itself under the same load, and where it has not seen such a load, with
 * the most that the load can explain.
 *
 * A *window* is the difference of the path's counters between two looks a second or more apart,
 * long enough for WINDOW_MIN reads or writes. One that has not got so many in WINDOW_MAX_NS tells
 * nothing (the guest is idle, and a few requests after a pause find cold caches and sleeping
 * disks), unless requests were under way for half of the time: then they are few because they are
 * slow.
 *
 * Its *load*: the average number in flight, by Little's law (the sum of all latencies over the
 * time), the average size, and whether there was much that holds up others: writes and flushes for
 * reads, flushes and discards for writes. Each in a few classes, as logarithms: a cell. For each
 * cell the path remembers what is usual: the median, and the 90th percentile.
 *
 * The average says little of a load that comes in bursts: a request in a burst of 32 waits for 31
 * others, although there are 3 on average. So while a path is under suspicion what it has in flight
 * is looked at often (iovm_drift_sample()), and the depth is, if that is more, what an average
 * request found in front of it.
 *
 * What is *expected* under a load: what is usual in its cell. Where that is not known, the least
 * that other cells allow, since a device that is healthy takes, with twice as many in flight, at
 * most twice as long for each (a queue served one by one), and with requests four times as large
 * at most four times as long. A lower load than the cell's takes no longer. Only a mixed load is
 * never judged by one that was not.
 *
 * A window is *slow* when its median is `factor` times what is expected and at least
 * IOVM_SLOW_FLOOR_NS above it, or its 90th percentile is twice `factor` times that and four times
 * the floor above: quantiles are not moved by a few requests that took long. The default factor of
 * 4 is two buckets of the histogram; inside a bucket the quantile is interpolated, which is wrong
 * by less than a factor of 2. A path is slow after IOVM_SLOW_WINDOWS such windows without another
 * or a pause between, and no longer so after as many below half of the factor.
 *
 * The past is *learned* quickly from a cell's first windows, then slowly in both directions, and
 * not at all from windows at half of the factor or beyond: a slow phase is never taken for usual,
 * however long. What is not noticed: a path that gets slower over weeks, and one that was slow from
 * the first minute; and with fixed request rates, the part of a slow-down that looks like a deeper
 * queue.
 */
#include "drift.h"

#ifdef __KERNEL__
#include <linux/limits.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/string.h>
#else
#include <string.h>
#define div64_u64(a, b)	((a) / (b))
#define ilog2(n)	(63 - __builtin_clzll(n))
#define U64_MAX		(~0ull)
#endif

#define WINDOW_MIN	64			/* requests */
#define WINDOW_MIN_KIND	32			/* of a kind, in one that has enough of another */
#define WINDOW_MIN_BUSY	4			/* of a kind, in a window that was long and busy */
#define WINDOW_MAX_NS	(8 * 1000000000ull)
#define SEEN_MIN	10			/* samples that say something */
#define USUAL_MAX_NS	0x10000000000000ull	/* keeps products within 64 bits */
#define CELL_KNOWN	4			/* windows until it is compared with */
#define CELL_YOUNG	64			/* windows that teach quickly */

static __u64 lesser(__u64 a, __u64 b)
{
	return a < b ? a : b;
}

static __u64 larger(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

struct window {
	__u64 n[IOVM_DRIFT_LATS];
	__u64 lat_sum_ns;
	__u64 ns;
};

static const unsigned int quantile_pct[IOVM_DRIFT_QUANTILES] = { 50, 90 };

static __u64 bucket_count(const struct iovm_drift *d, int lat, int i)
{
	return d->now.lat[lat][i] - d->start.lat[lat][i];
}

static void window_sum(const struct iovm_drift *d, __u64 now_ns, struct window *w)
{
	int lat, i;

	memset(w, 0, sizeof(*w));
	w->ns = now_ns - d->start_ns;
	for (lat = 0; lat < IOVM_DRIFT_LATS; lat++) {
		for (i = 0; i < IOVM_HIST_BUCKETS; i++) {
			__u64 n = bucket_count(d, lat, i);

			w->n[lat] += n;
			/* the middle of the bucket */
			w->lat_sum_ns += n * ((3ull << i) / 2);
		}
	}
}

/* Of the @n requests of a kind in the window. */
static __u64 window_quantile(const struct iovm_drift *d, int lat, __u64 n, unsigned int pct)
{
	__u64 rank = div64_u64(n * pct + 99, 100), seen = 0;
	int i;

	for (i = 0; i < IOVM_HIST_BUCKETS; i++) {
		__u64 in = bucket_count(d, lat, i);

		if (in && seen + in >= rank)
			return (1ull << i) +
			       (((1ull << i) * div64_u64((rank - seen) << 16, in)) >> 16);
		seen += in;
	}
	return 0;
}

static void window_load(const struct iovm_drift *d, const struct window *w, int kind,
			struct iovm_drift_load *load)
{
	__u64 depth = larger(div64_u64(w->lat_sum_ns, w->ns), 1);
	__u64 size = div64_u64(d->now.bytes[kind] - d->start.bytes[kind], w->n[kind]);

	if (d->nr_seen >= SEEN_MIN && d->seen)
		depth = larger(div64_u64(d->seen_sq, d->seen), depth);
	load->depth = lesser(ilog2(depth), IOVM_DRIFT_DEPTHS - 1);
	for (load->size = 0; load->size < IOVM_DRIFT_SIZES - 1; load->size++)
		if (size <= 16384ull << 2 * load->size)
			break;
	if (kind == 0)
		load->mix = (w->n[1] + w->n[2]) * 16 > w->n[0];
	else
		load->mix = w->n[2] * 64 > w->n[1];
}

/*
 * The most that a quantile may be under this load on a path that is as usual; 0 when nothing is
 * known that it could be compared with.
 */
static __u64 expected(const struct iovm_drift *d, int kind, const struct iovm_drift_load *load,
		      int quantile)
{
	const struct iovm_drift_cell *cell = &d->cells[kind][load->mix][load->depth][load->size];
	unsigned int mix, depth, size;
	__u64 best = U64_MAX;

	if (cell->windows >= CELL_KNOWN)
		return cell->ns[quantile];
	for (mix = load->mix; mix < IOVM_DRIFT_MIXES; mix++) {
		for (depth = 0; depth < IOVM_DRIFT_DEPTHS; depth++) {
			for (size = 0; size < IOVM_DRIFT_SIZES; size++) {
				unsigned int shift = 0;

				cell = &d->cells[kind][mix][depth][size];
				if (cell->windows < CELL_KNOWN)
					continue;
				if (load->depth > depth)
					shift += load->depth - depth;
				if (load->size > size)
					shift += 2 * (load->size - size);
				best = lesser(best, cell->ns[quantile] << shift);
			}
		}
	}
	return best == U64_MAX ? 0 : lesser(best, USUAL_MAX_NS);
}

/* @ns moves towards @to by 1/2^@shift of the difference. */
static __u64 towards(__u64 ns, __u64 to, unsigned int shift)
{
	return to > ns ? ns + ((to - ns) >> shift) : ns - ((ns - to) >> shift);
}

static void learn(struct iovm_drift_cell *cell, const __u64 *ns)
{
	int q;

	for (q = 0; q < IOVM_DRIFT_QUANTILES; q++) {
		if (!cell->windows)
			cell->ns[q] = ns[q];
		else if (cell->windows < CELL_YOUNG)
			/* rather the slower ones of what is usual */
			cell->ns[q] = towards(cell->ns[q], ns[q], ns[q] > cell->ns[q] ? 2 : 4);
		else
			cell->ns[q] = towards(cell->ns[q], ns[q], 10);
	}
	if (cell->windows < CELL_YOUNG)
		cell->windows++;
}

/* How a kind did in a window. */
struct verdict {
	bool known;	/* there was something to compare with */
	bool slow;
	bool high;	/* not slow perhaps, but not usual either */
	__u64 lat_ns, usual_ns;
};

static void judge(struct iovm_drift *d, const struct window *w, int kind, __u32 factor,
		  struct verdict *v)
{
	__u64 ns[IOVM_DRIFT_QUANTILES], usual, worst = 0, ratio;
	struct iovm_drift_load load;
	int q;

	memset(v, 0, sizeof(*v));
	window_load(d, w, kind, &load);
	for (q = 0; q < IOVM_DRIFT_QUANTILES; q++) {
		/* the rarer ones vary more */
		__u64 times = (__u64)factor << q, floor = (__u64)IOVM_SLOW_FLOOR_NS << 2 * q;

		ns[q] = window_quantile(d, kind, w->n[kind], quantile_pct[q]);
		usual = expected(d, kind, &load, q);
		if (!usual) {
			if (!q)
				v->lat_ns = ns[q];
			continue;
		}
		v->known = true;
		if (ns[q] >= usual + floor) {
			v->slow |= ns[q] >= usual * times;
			v->high |= ns[q] * 2 >= usual * times;
		}
		ratio = div64_u64(ns[q] << 8, usual * times);
		if (!q || ratio > worst) {
			worst = ratio;
			v->lat_ns = ns[q];
			v->usual_ns = usual;
		}
	}
	if (!v->high)
		learn(&d->cells[kind][load.mix][load.depth][load.size], ns);
}

static void window_begin(struct iovm_drift *d, __u64 now_ns)
{
	d->start = d->now;
	d->start_ns = now_ns;
	d->seen = 0;
	d->seen_sq = 0;
	d->nr_seen = 0;
}

/**
 * iovm_drift_sample - how much a path has in flight
 * @d: whose
 * @inflight: requests, now
 */
void iovm_drift_sample(struct iovm_drift *d, __u64 inflight)
{
	inflight = lesser(inflight, 1 << 20);
	d->seen += inflight;
	d->seen_sq += inflight * inflight;
	d->nr_seen++;
}

/**
 * iovm_drift_step - look at a path's counters
 * @d: with @d->now as it is now
 * @now_ns: any clock that does not jump; a second or so after the last call
 * @factor: slow is so many times what is usual
 * @slow: what was found before is that the path is slow
 *
 * Return: whether that changes.
 */
enum iovm_drift_news iovm_drift_step(struct iovm_drift *d, __u64 now_ns, __u32 factor, bool slow)
{
	bool enough, high = false, bad = false, judged = false;
	struct verdict v;
	struct window w;
	int kind;

	if (!d->start_ns || now_ns <= d->start_ns) {
		window_begin(d, now_ns);
		return IOVM_DRIFT_NONE;
	}
	window_sum(d, now_ns, &w);
	enough = w.n[0] >= WINDOW_MIN || w.n[1] >= WINDOW_MIN;
	if (!enough && w.ns < WINDOW_MAX_NS)
		return IOVM_DRIFT_NONE;

	for (kind = 0; kind < IOVM_DRIFT_KINDS; kind++) {
		if (w.n[kind] < (enough ? WINDOW_MIN_KIND : WINDOW_MIN_BUSY))
			continue;
		if (!enough && w.lat_sum_ns < w.ns / 2)
			continue;
		judge(d, &w, kind, factor, &v);
		/* of two kinds, the one that is slow; else the first */
		if (!judged || v.slow > bad || (v.slow == bad && v.high > high)) {
			d->lat_ns = v.lat_ns;
			d->usual_ns = v.usual_ns;
			d->op = kind ? IOVM_OP_WRITE : IOVM_OP_READ;
		}
		judged |= v.known;
		bad |= v.slow;
		high |= v.high;
	}
	window_begin(d, now_ns);
	if (!judged) {
		d->bad = 0;
		d->good = 0;
		return IOVM_DRIFT_NONE;
	}
	d->bad = bad ? d->bad + 1 : 0;
	d->good = high ? 0 : d->good + 1;
	if (!slow && d->bad >= IOVM_SLOW_WINDOWS)
		return IOVM_DRIFT_SLOW;
	if (slow && d->good >= IOVM_SLOW_WINDOWS)
		return IOVM_DRIFT_OVER;
	return IOVM_DRIFT_NONE;
}

/**
 * iovm_drift_forget - what is usual is learned anew
 * @d: whose
 */
void iovm_drift_forget(struct iovm_drift *d)
{
	memset(d->cells, 0, sizeof(d->cells));
	d->start_ns = 0;
	d->bad = 0;
	d->good = 0;
	d->lat_ns = 0;
	d->usual_ns = 0;
}

/**
 * iovm_drift_typical - what a path takes under the least load that it knows
 * @d: whose
 * @op: IOVM_OP_READ or IOVM_OP_WRITE
 *
 * Return: the least of the medians, 0 when none is known.
 */
__u64 iovm_drift_typical(const struct iovm_drift *d, __u32 op)
{
	const struct iovm_drift_cell *cell = &d->cells[op == IOVM_OP_WRITE][0][0][0];
	__u64 best = U64_MAX;
	unsigned int i;

	for (i = 0; i < IOVM_DRIFT_MIXES * IOVM_DRIFT_DEPTHS * IOVM_DRIFT_SIZES; i++)
		if (cell[i].windows >= CELL_KNOWN)
			best = lesser(best, cell[i].ns[0]);
	return best == U64_MAX ? 0 : best;
}

/**
 * iovm_choose_rival - where a slow path is left for
 * @path: all of a device's, in order
 * @n: how many
 * @cur: index of the slow one, which is the route
 * @lat_ns: what a request takes there now
 * @factor: as in iovm_drift_step()
 *
 * A rival is live and not slow itself, has answered lately, and is clearly better: both its answer
 * to a small read and, where it has a past, what requests took there are below @lat_ns by @factor,
 * the past by half of it.
 *
 * Return: index of the one that answers fastest, -1 when there is none.
 */
int iovm_choose_rival(const struct iovm_rival *path, int n, int cur, __u64 lat_ns, __u32 factor)
{
	int i, best = -1;

	for (i = 0; i < n; i++) {
		if (i == cur || path[i].state != IOVM_PATH_LIVE || path[i].slow)
			continue;
		if (!path[i].rtt_ns || path[i].rtt_ns * factor > lat_ns)
			continue;
		if (path[i].usual_ns * factor / 2 > lat_ns)
			continue;
		if (best < 0 || path[i].rtt_ns < path[best].rtt_ns)
			best = i;
	}
	return best;
}
