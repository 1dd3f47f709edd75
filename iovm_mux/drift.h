/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Is a path slower than it used to be? Decided from its latency histograms alone, without anything
 * of the kernel, so that it is unit-tested on the build host (selftests/unit/test_drift.c). How it
 * is decided, and why so, is at the top of drift.c.
 */
#ifndef _IOVM_DRIFT_H
#define _IOVM_DRIFT_H

#include <linux/types.h>
#ifndef __KERNEL__
#include <stdbool.h>
#endif

#include "iovm.h"		/* uapi/ */

#define IOVM_DRIFT_KINDS	2	/* reads, writes */
#define IOVM_DRIFT_LATS		3	/* histograms: of reads, writes, all else */
#define IOVM_DRIFT_QUANTILES	2	/* the median, and what nine of ten stay below */
#define IOVM_DRIFT_MIXES	2	/* alone, or mixed with what may hold it up */
#define IOVM_DRIFT_DEPTHS	8	/* in flight on average: up to 1, 2, 4, ... and above 64 */
#define IOVM_DRIFT_SIZES	4	/* bytes on average: up to 16 KiB, 64 KiB, 256 KiB, above */

#define IOVM_SLOW_FACTOR	4	/* default of iovm_dev_create.slow_factor */
#define IOVM_SLOW_FACTOR_MIN	2
#define IOVM_SLOW_FACTOR_MAX	1000
#define IOVM_SLOW_FLOOR_NS	1000000	/* a median that grew by less is not worth a word */
#define IOVM_SLOW_WINDOWS	3	/* in a row, until it is slow, or no longer */
#define IOVM_SLOW_ANSWERS	30	/* good, of a path not in use, until it is over */
#define IOVM_SLOW_ANSWER_COSTS	3u	/* good answers that a bad one undoes */

/**
 * struct iovm_drift_sum - a path's counters, since it was added
 * @lat: iovm_path_pcpu.lat_ns, summed over CPUs
 * @bytes: of reads and writes
 */
struct iovm_drift_sum {
	__u64 lat[IOVM_DRIFT_LATS][IOVM_HIST_BUCKETS];
	__u64 bytes[IOVM_DRIFT_KINDS];
};

/**
 * struct iovm_drift_cell - what is usual under one kind of load
 * @ns: latency quantiles
 * @windows: how many it was learned from; stays at its maximum
 */
struct iovm_drift_cell {
	__u64 ns[IOVM_DRIFT_QUANTILES];
	__u32 windows;
};

/**
 * struct iovm_drift_load - under which load a window was
 * @mix: index of struct iovm_drift.cells, as all
 * @depth: likewise
 * @size: likewise
 */
struct iovm_drift_load {
	unsigned int mix, depth, size;
};

/**
 * struct iovm_drift - a path's past, and the window that is being looked at
 * @now: filled in by the caller before iovm_drift_step()
 * @start: the counters when the window began
 * @start_ns: when that was; 0 there is no window yet
 * @cells: what is usual
 * @seen: sum of what iovm_drift_sample() was told in this window
 * @seen_sq: and of the squares
 * @nr_seen: how often
 * @bad: windows in a row that were slow
 * @good: and that were not
 * @lat_ns: newest window: that quantile which is furthest above what is usual, 0 before the first
 * @usual_ns: what is usual for it under that load, 0 not known yet
 * @op: of which kind: IOVM_OP_READ or IOVM_OP_WRITE
 *
 * The caller's, who serialises.
 */
struct iovm_drift {
	struct iovm_drift_sum now;
	struct iovm_drift_sum start;
	__u64 start_ns;
	struct iovm_drift_cell cells[IOVM_DRIFT_KINDS][IOVM_DRIFT_MIXES][IOVM_DRIFT_DEPTHS]
				    [IOVM_DRIFT_SIZES];
	__u64 seen, seen_sq;
	unsigned int nr_seen;
	unsigned int bad, good;
	__u64 lat_ns, usual_ns;
	__u32 op;
};

/**
 * enum iovm_drift_news - what a step has found
 * @IOVM_DRIFT_NONE: nothing new
 * @IOVM_DRIFT_SLOW: the path has become slow
 * @IOVM_DRIFT_OVER: it is as usual again
 */
enum iovm_drift_news {
	IOVM_DRIFT_NONE,
	IOVM_DRIFT_SLOW,
	IOVM_DRIFT_OVER,
};

/**
 * struct iovm_rival - a path, as iovm_choose_rival() looks at it
 * @state: of the path
 * @slow: it is slow itself, or was left for that
 * @rtt_ns: what a small read takes there when nothing else is on; 0 it has not answered lately
 * @usual_ns: what it took itself under the least load that it has had, 0 not known
 */
struct iovm_rival {
	enum iovm_path_state state;
	bool slow;
	__u64 rtt_ns;
	__u64 usual_ns;
};

void iovm_drift_sample(struct iovm_drift *d, __u64 inflight);
enum iovm_drift_news iovm_drift_step(struct iovm_drift *d, __u64 now_ns, __u32 factor, bool slow);
void iovm_drift_forget(struct iovm_drift *d);
__u64 iovm_drift_typical(const struct iovm_drift *d, __u32 op);
int iovm_choose_rival(const struct iovm_rival *path, int n, int cur, __u64 lat_ns, __u32 factor);

#endif /* _IOVM_DRIFT_H */
