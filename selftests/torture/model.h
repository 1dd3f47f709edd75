/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a disk may hold: every write that was ever acknowledged or is in flight, by sector.
 *
 * A sector is a register of 512 bytes. Each write has a generation of its own. After a write was acknowledged, no read that
 * begins later may bring what was there before that write began; a read may bring anything that was the sector's content, or
 * was being written, at some time during the read. Times are ticks of a logical clock, taken by the guest: before a request is
 * made visible to the device, and after its completion was seen.
 *
 *	write        its content supersedes what ended before it began, once it is acknowledged
 *	write zeroes the same; the content is zeroes
 *	discard      zeroes, or what was there: adds a content, supersedes nothing
 *	lost write   failed, or its front end died: it may have landed; later writes supersede it
 *
 * With a volatile cache, what an acknowledged FLUSH does not cover may go back to an earlier content when the cache is lost
 * (model_crash()); with a cache that is written through, it may not.
 *
 * It lies in memory that processes share, since front ends are killed: the lock is a robust one. All functions take it.
 */
#ifndef MODEL_H
#define MODEL_H

#include <pthread.h>
#include "vdrv.h"

#define MODEL_ENTRIES	12		/* contents that a sector may have at the same time */
#define MODEL_READS	2048		/* reads in flight */
#define MODEL_HISTORY	16384		/* events that are remembered */
#define MODEL_TEXT	72

enum model_kind { MODEL_FREE, MODEL_DATA, MODEL_ZERO, MODEL_DISCARD };
enum model_state { MODEL_FLYING, MODEL_ACKED, MODEL_MAYBE };

/**
 * struct model_entry - one content that a sector has, may have, or had
 * @t0: when its write began
 * @t1: when it ended; 0 while in flight
 * @dead: when it was superseded; 0 it was not
 * @gen: generation
 * @kind: enum model_kind
 * @state: enum model_state
 */
struct model_entry {
	u64 t0, t1, dead;
	u32 gen;
	u8 kind;
	u8 state;
};

struct model_sector {
	struct model_entry e[MODEL_ENTRIES];
};

/* An event: of requests, or a line of text about a fault */
struct model_event {
	u64 ns;
	u64 sector;
	u32 nr;			/* sectors; 0: text */
	u32 gen;
	u8 op;
	u8 queue;
	u8 ended;
	u8 status;
	char text[MODEL_TEXT];
};

struct model {
	pthread_mutex_t lock;
	u64 bytes;		/* of the whole mapping */
	u64 seed;
	u64 nsect;
	bool volatile_cache;	/* acknowledged is durable only after a FLUSH */
	u64 clock;
	u32 last_gen;
	u64 durable_before;	/* writes that ended before this tick survive a crash */
	u64 crashed;		/* when the last one was: what was in flight then is not known to be durable by its end */
	unsigned int nr_reads;	/* slots of read_t0[] that were ever used */
	u64 read_t0[MODEL_READS];
	/* results */
	u64 breaches;
	u64 mixed;		/* sectors read that were a mixture of writes in flight */
	u64 sectors_checked;
	u64 nr_events;
	struct model_event event[MODEL_HISTORY];
	struct model_sector s[];
};

struct model *model_new(u64 seed, u64 nsect, bool volatile_cache);
void model_free(struct model *m);

/* A write begins: its generation; 0 when one of its sectors has no room for another content: choose another place. */
u32 model_write_begin(struct model *m, u64 sector, u32 nr, enum model_kind kind, unsigned int queue);
void model_write_end(struct model *m, u64 sector, u32 nr, u32 gen, unsigned int queue, u8 status);
/* Every read in flight has a slot of its own, 0..MODEL_READS-1. */
void model_read_begin(struct model *m, unsigned int slot, u64 sector, u32 nr, unsigned int queue);
void model_read_end(struct model *m, unsigned int slot, u64 sector, u32 nr, const u8 *data, unsigned int queue, u8 status);
u64 model_flush_begin(struct model *m, unsigned int queue);
void model_flush_end(struct model *m, u64 t0, unsigned int queue, u8 status);

/* The front end is dead and its successor has begun: nothing of it is in flight any more. */
void model_lost(struct model *m);
/*
 * The cache was lost, and nothing that the storage took before is acknowledged by it any more. What was in flight counts as lost,
 * whatever its end says: it may have been in the cache.
 */
void model_crash(struct model *m);
/* The whole storage, read by @rd, while no request of the guest's reaches it. Negative errno, or the number of breaches. */
long model_check(struct model *m, int (*rd)(void *ctx, void *buf, size_t len, u64 off), void *ctx);

/* A line in the history. */
void model_mark(struct model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Something is wrong. With a sector: its contents and history are printed; ~0: the newest events. */
void model_breach(struct model *m, u64 sector, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif /* MODEL_H */
