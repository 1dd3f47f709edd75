/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the machine did meanwhile, measured from outside: two looks, and the difference.
 *
 * Where time counts instructions (selftests/env/vm --icount) a nanosecond is one of them.
 */
#ifndef COST_H
#define COST_H

#include "vdrv.h"

struct cost {			/* all of the machine */
	u64 begin, end;		/* of the look, ns: it takes time too */
	u64 idle;		/* ns, of all CPUs together */
	u64 ctxt;		/* context switches */
};

struct usage {			/* some tasks */
	u64 ns;			/* on a CPU */
	u64 ctxt;
};

/* Looks. True: idle is in ns (/proc/timer_list); false: in ticks (/proc/stat), converted. */
bool cost_now(struct cost *c);
/* ns between two looks */
u64 cost_wall(const struct cost *from, const struct cost *to);
/* ns of all CPUs together that were not idle */
u64 cost_busy(const struct cost *from, const struct cost *to, unsigned int cpus);
/*
 * Adds up the tasks below @dir (/proc, /proc/PID/task); only those whose name begins with @prefix, if given. It takes time: it is
 * done outside of what is measured.
 */
void cost_tasks(const char *dir, const char *prefix, struct usage *u);

#endif /* COST_H */
