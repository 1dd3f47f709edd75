/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kinds of fault. One is begun, lasts a while, and is ended; then the campaign heals the paths. What a fault does is
 * drawn from its own random number, so that fault N of a seed is the same whatever came before it.
 */
#ifndef FAULT_H
#define FAULT_H

#include "bed.h"
#include "guest.h"

#define FAULT_B(kind)	(1u << (kind))
#define FAULT_ANY	(~0u)

/* What it wants to be done to; fault_kind.on. REMOTE: over the network, to whatever serves there */
enum fault_on { FAULT_ON_NONE, FAULT_ON_BDEV, FAULT_ON_NBD, FAULT_ON_TARGET, FAULT_ON_REMOTE, FAULT_ON_PATH };

/* fault_kind.is */
#define FAULT_ERRS	1u	/* bare I/O errors: another path must be whole meanwhile, or the guest is told */
#define FAULT_ALONE	2u	/* no other fault at the same time */
#define FAULT_SLOW	4u	/* takes long: seldom */
#define FAULT_RECORD	8u	/* wants the in-flight record */
#define FAULT_NO_RECORD	16u	/* cannot be done with it */
#define FAULT_MOVES	32u	/* the guest leaves its host, or tries to: migrate.h */

struct fault {
	struct bed *b;
	struct guest *g;
	const struct fault_kind *kind;
	unsigned int nr;
	u64 rnd;
	struct bed_path *p;
	unsigned int hold_ms;
	char what[64];		/* details for the line */
	char address[64];
	bool undo;		/* something is left for end() */
	u64 pid;
	u64 stopped_ns;		/* FAULT_MOVES: from when the guest stood still until it went on; 0 it was not moved */
};

struct fault_kind {
	const char *name;
	unsigned int beds;	/* FAULT_B() */
	enum fault_on on;
	unsigned int is;
	unsigned int weight;
	/* 0; -EOPNOTSUPP: cannot be done here, f->what says why; or another errno: it did not work */
	int (*begin)(struct fault *f);
	int (*end)(struct fault *f);	/* may be NULL */
};

/* end with a NULL name */
extern const struct fault_kind fault_path_kinds[], fault_nbd_kinds[], fault_host_kinds[], fault_move_kinds[];

u32 fault_rnd(struct fault *f, u32 from, u32 to);	/* from..to */
u32 fault_time(struct fault *f, u32 from, u32 to);	/* the same at the bed's tempo */
pid_t fault_fork(void);					/* fork(), for what may be killed at any time */

#endif /* FAULT_H */
