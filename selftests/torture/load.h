/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside the guest's process: child.c brings it up and does what it is told (guest.h); load.c has a thread a queue that keeps
 * requests in flight and looks at what comes back.
 */
#ifndef LOAD_H
#define LOAD_H

#include <pthread.h>
#include "guest.h"
#include "vload.h"

#define LOAD_SMALL	(64 * 1024u)	/* data room of most slots */
#define LOAD_LARGE	(1280 * 1024u)	/* of one a queue: several parts */
#define LOAD_STATUS_AT	256u		/* in a slot's header page; the header is at 0 */
#define LOAD_DRAIN_S	60

struct slot {
	struct slot *next;	/* free list, longest free first */
	u64 gpa;		/* a page: header and status; then room + SLACK bytes of data */
	u8 *mem;
	u32 room;
	unsigned int id;	/* of the model's reads */
	u64 poison;
	u32 type;
	u64 sector;
	u32 nr;			/* sectors */
	u32 gen;
	u64 tick;		/* of a flush */
	u64 t0;
	u32 off, len;		/* of the data in it */
	bool logged;		/* made visible after the log was on */
	bool used;
};

struct list {
	struct slot *first, **last;
};

struct worker {
	struct child *c;
	struct vq *q;
	unsigned int idx;
	pthread_t thread;
	u64 rnd;
	struct list small, large;
	struct slot *slots;
	unsigned int nslots, flying;
};

/* A move of the guest: move.c */
struct move {
	bool on;		/* its memory is logged and copied */
	bool stopped;		/* and its queues stand */
	struct gmem to;		/* the copy */
	struct vdev d;		/* the device there, without a record */
	struct vlog log;	/* shared with the front end */
	/* a bit a page: what the driver wrote since it was last copied, NULL: it never moves; what was in the log */
	u64 *wrote, *named;
	u64 *expect;		/* for child.expect */
	struct gmem left;	/* what it had before the last move, with poison in it */
};

struct child {
	struct guest *g;
	struct gmem mem;
	struct vdev d;
	struct worker w[GUEST_QUEUES];
	volatile bool logging;
	u64 *expect;		/* a bit a page: must be in the log */
	struct vlog log;
	u64 idle;		/* mask of queues that have drained */
	bool still;		/* the threads have to stand still, */
	u64 stands;		/* those of these queues do */
	struct move move;
	/* with an in-flight record */
	u8 *records;		/* of all queues, shared with the front end */
	size_t records_bytes;
	pid_t front;
	int front_sock;
	u64 front_ns;		/* when there was none last */
};

int load_slots(struct child *c, struct worker *w);	/* makes them; 0 or a negative errno */
void *load_work(void *worker);				/* a queue's thread */
bool load_drain(struct child *c);			/* nothing in flight, nothing new; false: not in LOAD_DRAIN_S */
void load_go_on(struct child *c);
bool load_still(struct child *c, bool on);		/* nothing touches the guest's memory, requests stay in flight */
void load_moved(struct child *c);			/* c->mem is elsewhere */
void load_put_poison(struct slot *s);			/* where its last use was */
void load_look_at_poison(struct worker *w, struct slot *s, bool all);

void child_main(struct guest *g);			/* does not return */
int child_open(struct child *c, struct vdev *d, unsigned int host);	/* the device's node there */
int child_front(struct child *c, int cmd, u64 arg);	/* with a record: the front end does it */
int child_front_new(struct child *c);			/* it is killed; a successor, at c->g->c.at, takes over */

int move_init(struct child *c);
int move_command(struct child *c, enum guest_cmd cmd, u64 arg);
int move_device(struct child *c, enum guest_cmd cmd);	/* its part of the process that has the node */

#endif /* LOAD_H */
