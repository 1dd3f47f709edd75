/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest: a process of its own, so that it can be killed, with a load on every queue. A thread a queue keeps requests of
 * all kinds and sizes in flight, and tells the model. What a completed request used is filled with poison and looked at again
 * before it is used next: nobody may write there meanwhile.
 */
#ifndef GUEST_H
#define GUEST_H

#include <semaphore.h>
#include <sys/types.h>
#include "model.h"

#define GUEST_QUEUES	16

enum guest_cmd {
	GUEST_QUIT = 1,		/* drain, look at all poison */
	GUEST_DRAIN,		/* nothing in flight, and nothing new until GUEST_GO */
	GUEST_GO,
	GUEST_SWEEP,		/* drain, read the whole disk, go on */
	GUEST_RESTART,		/* GET_VRING_BASE and start, arg: queue, or all; the load goes on */
	GUEST_HOTPLUG,		/* memory comes, is read into, and goes */
	GUEST_LOG,		/* dirty log on for arg ms, then compared with what was written */
	GUEST_FRONT_KILL,	/* with a record: signal 9 for the front end, a successor takes over; the load goes on */
	/* a migration, in this order: see move.c */
	GUEST_MOVE_LIVE,	/* its memory is copied for arg ms, while the load goes on */
	GUEST_MOVE_STOP,	/* the load stands still; GET_VRING_BASE of all queues, and what is left is copied */
	GUEST_MOVE_TRY,		/* queues start at the other device, and the load does not go on */
	GUEST_MOVE_THERE,	/* it goes on at the other device */
	GUEST_MOVE_BACK,	/* after any of these but the last: it goes on where it was */
};

struct guest_cfg {
	const char *dev[2];	/* the second: that of another host, which it can be moved to */
	unsigned int at;	/* which of them it is at */
	const char *socket;	/* instead of dev: of a vhost-user-blk back end */
	unsigned int queues;
	unsigned int ring;	/* entries */
	unsigned int depth;	/* of a queue */
	u32 block;
	u64 nsect;
	u64 seed;
	const char *serial;
	bool record;		/* the front end is a process of its own, with an in-flight record */
};

/* The oldest request of a queue */
struct guest_oldest {
	u64 t0;			/* when it was begun, ns; now when there is none */
	u32 flying;		/* how many there are */
	u32 type;
	u64 sector;
	u32 nr;
};

/* Shared by the processes */
struct guest_shared {
	sem_t cmd_sem, done_sem;
	int cmd;
	u64 arg;
	int result;
	bool up;		/* queues run */
	int why;		/* of not coming up */
	bool drain;		/* start nothing new: set by its process, and by guest_hush() while that does nothing */
	u64 ops[16];		/* completed, by type */
	u64 ios;
	u64 errors;		/* status other than OK */
	u64 multi, indirect, odd;	/* more than one part; in tables; not aligned */
	u64 poison_looks;	/* extents looked at */
	u64 log_pages;		/* pages that had to be in a dirty log, and were looked up */
	u64 moved_pages;	/* copied because the dirty log named them */
	u64 still_ns;		/* when the load stood still last, for a move */
	u64 max_lat_ns;		/* longest since the reader cleared it */
	struct guest_oldest oldest[GUEST_QUEUES];
	pid_t pid;
	pid_t owner;		/* of the node: the process or its front end */
};

struct guest {
	struct guest_cfg c;
	struct model *m;
	struct guest_shared *s;
	unsigned int started;	/* how many front ends there were */
	bool pending;		/* a command was posted and not waited for */
	void (*idle)(void *arg);	/* called now and then while something is waited for */
	void *idle_arg;
};

int guest_init(struct guest *g, struct model *m, const struct guest_cfg *c);
int guest_start(struct guest *g);		/* waits until its queues run */
int guest_command(struct guest *g, enum guest_cmd cmd, u64 arg, int timeout_ms);	/* 0, or what it says; -ETIMEDOUT */
/* In two steps, since a queue's stop waits for what is in flight. A command waits for what was posted before. */
int guest_post(struct guest *g, enum guest_cmd cmd, u64 arg, int timeout_ms);
int guest_wait(struct guest *g, int timeout_ms);
void guest_kill(struct guest *g);		/* -9, waits for its end */
int guest_quit(struct guest *g, int timeout_ms);
bool guest_alive(struct guest *g);
/* Waits until @n more requests were completed; until all that is in flight has been; calls idle(). */
bool guest_progress(struct guest *g, u64 n, int timeout_ms);
void guest_hush(struct guest *g, bool on);			/* start nothing new, while no command is under way; off: go on */
bool guest_turnover(struct guest *g, int timeout_ms);
void guest_free(struct guest *g);

#endif /* GUEST_H */
