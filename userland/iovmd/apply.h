/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is done so that a device is as it is configured, between the files that do it: apply.c makes what is not there,
 * apply_change.c changes and removes what was made by a configuration that is no longer in force.
 */
#ifndef IOVMD_APPLY_H
#define IOVMD_APPLY_H

#include "iovmd.h"

#define MAX_STEP	(CONFIG_MAX_ARGS + 16)
#define MAX_GONE	(2 * CONFIG_MAX_PEERS)

/* What is to be changed where it is there: bits of struct work.todo */
#define TODO_SET	1u		/* the device's limits and times */
#define TODO_LOCAL	2u		/* how its path to the disk is fenced */
#define TODO_EXPORT	4u		/* likewise, of its export */
#define TODO_REMOTE(i)	(8u << (i))	/* how the path to a peer is, by its place in d->peers */
#define TODO_REMOTES	(8u * ((1u << CONFIG_MAX_PEERS) - 1))

/**
 * struct work - a configured device and what is being done for it
 * @child: the step under way
 * @doing: what of @todo that is
 * @todo: what was changed and is not yet so
 * @anew: device and export are to be destroyed, and made as they are configured now
 * @leaving: they are to be destroyed, and are not configured any more
 * @gone: paths that are to be removed; those of peers that are still there are made anew then
 * @pause: ends, then the step that failed is tried again
 * @why: it failed
 */
struct work {
	const struct config_device *d;
	unsigned int doing, todo;
	bool anew, leaving;
	char gone[MAX_GONE][IOVM_NAME_MAX];
	unsigned int nr_gone;
	struct child *child;
	sd_event_source *pause;
	uint64_t pause_ms;
	char why[WHY_MAX];
	struct work *next;
};

/**
 * struct step - a command of iovmctl's
 * @todo: what of struct work.todo is done by it
 * @text: what some of its arguments point to
 */
struct step {
	const char *arg[MAX_STEP + 1];
	unsigned int nr, todo;
	char text[3][2 * IOVM_ADDR_MAX + 2 * IOVM_NAME_MAX + 64];
};

void step_add(struct step *s, const char *arg);
struct work *work_of(const struct config_device *d);	/* NULL: none */

/* --- apply_change.c --- */

void remove_step(struct step *s, const struct config_device *d, const char *path);
/* The first of what is to be changed, to be removed, or, for the device as a whole, to go; false: there is nothing. */
bool change_step(struct work *w, struct step *s);
bool gone_step(struct work *w, const struct iovm_dev_info *di, struct step *s);
bool leave_step(struct work *w, struct step *s);

#endif /* IOVMD_APPLY_H */
