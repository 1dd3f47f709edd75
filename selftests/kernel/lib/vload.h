/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A load that verifies itself: a thread a queue keeps `depth` requests in flight, reads and writes of 1..max_blocks
 * blocks at random places of its own part of the disk. Every 512-byte sector written carries seed, sector number and a
 * generation, the rest of it derived from them; a read must bring what was written last. No two requests in flight overlap, but
 * everything else may go in any order. A block whose write failed may hold either generation.
 *
 * The threads only touch rings and eventfds, so queues may be stopped and started under them.
 */
#ifndef VLOAD_H
#define VLOAD_H

#include <pthread.h>
#include "vdrv.h"

struct vload_cfg {
	unsigned int depth;		/* 0 = 16 */
	u32 block;			/* bytes; 0 = 4096 */
	u32 max_blocks;			/* of a request; 0 = 4 */
	u64 first, nr;			/* sectors; nr 0 = to the end */
	u64 seed;
	unsigned int write_pct;		/* 0 = 50 */
	unsigned int flush_pct;
	unsigned int zero_pct;		/* WRITE_ZEROES */
	bool indirect;
	bool may_fail;			/* IOERR is counted, not a failure of the test */
	int mem_idx;			/* region for buffers, -1 any */
	u64 max_ios;			/* 0 = until stopped */
	unsigned int queues;		/* 0 = all */
	unsigned int think_ms;		/* from a request's end to the next one in its place */
	/* told of each request by its queue's thread: its type, and when it was made and found complete */
	void (*ended)(u32 type, u64 begin_ns, u64 end_ns);
};

struct vload_blk {
	u32 gen;			/* 0 = never written: not checked; 0x80000000: zeroes */
	u32 alt;			/* with unsure: what it may hold instead */
	bool unsure;
	bool busy;
};

struct vload_thread {
	struct vload *l;
	struct vq *q;
	pthread_t thread;
	u64 rnd;
	u64 first;			/* block */
	u64 nr;
	u64 slots_gpa;
	u64 oldest;			/* when its oldest request in flight was made */
};

struct vload {
	struct vload_cfg c;
	struct vdev *d;
	struct vload_thread *t;
	unsigned int nt;
	struct vload_blk *blk;
	u64 nblk;
	volatile bool stop;
	volatile bool abandon;		/* the device is gone: leave without draining */
	/* results; may be read while it runs */
	u64 ios;			/* completed */
	u64 reads, writes;
	u64 errors;			/* status other than OK */
	u64 mismatches;
	u64 stuck;			/* requests that never came back at stop */
};

int vload_start(struct vload *l, struct vdev *d, const struct vload_cfg *c);
void vload_wait(struct vload *l);		/* with max_ios: until done */
void vload_stop(struct vload *l);		/* drains; then the counts are final */
/* Waits until @n more requests were completed; false at time-out. */
bool vload_progress(struct vload *l, u64 n, int timeout_ms);
/* Waits until all that is in flight now has completed. */
bool vload_turnover(struct vload *l, int timeout_ms);
/* Reads all through the device by queue 0 (load stopped): number of bad blocks, or negative. */
long vload_check_dev(struct vload *l);
/* The same from a block device, O_DIRECT. */
long vload_check_node(struct vload *l, const char *node);
void vload_free(struct vload *l);
/* Stop, T_CHECK everything that must hold, free. */
void vload_finish(struct vload *l, const char *what);

/* One sector's content */
#define GEN_ZERO	0x80000000u	/* the generation of zeroes */
void pat_fill(void *buf, u64 seed, u64 sector, u32 gen);	/* 512 bytes */
bool pat_ok(const void *buf, u64 seed, u64 sector, u32 gen);
u32 pat_gen(const void *buf);

#endif /* VLOAD_H */
