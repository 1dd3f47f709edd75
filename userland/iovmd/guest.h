/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest as guest.c has it, which migrates it and tells of that, and policy.c, which decides that it is to be migrated.
 */
#ifndef IOVMD_GUEST_H
#define IOVMD_GUEST_H

#include "iovmd.h"
#include "rules.h"

#define FIRST_PAUSE_MS	10000
#define LAST_PAUSE_MS	600000
#define NR_STEPS	32		/* that are remembered of a migration */

enum guest_state {
	GUEST_IDLE,
	GUEST_WAITING,		/* it is to be migrated, but not yet: why */
	GUEST_MIGRATING,
	GUEST_MIGRATED,		/* to @to */
	GUEST_ROLLED_BACK,	/* it runs here: why; again later if the policy says so */
	GUEST_LOST,		/* its QEMU has ended here: why */
	GUEST_UNCLEAR,		/* a person has to look: why */
};

/* Somebody who wants to hear of a migration */
struct watcher {
	struct line *line;
	uint64_t id;
	struct watcher *next;
};

/**
 * struct guest - what is known of a guest
 * @to: where it goes or went
 * @by: who wanted it
 * @child: the worker
 * @line: to it; NULL when there is none
 * @asked: the number of what it asked of the peer, 0 nothing
 * @progress: its last line about that, a JSON object; NULL none
 * @bandwidth: what is reserved for it, or why nothing is; "" it is not being migrated
 * @output: the last line of its migrate-command
 * @steps: what has happened since it was begun, and when
 * @look: then is to be looked again
 * @flaps: of its devices' own disks, by their place in conf->devices, which were @devices
 * @drain: its part in a drain of this host
 * @drain_to: where it is to go then; NULL: to its destination
 * @drain_why: it stayed here; "" it did not
 * @ended_ms: when the last migration ended, 0 none has
 * @pause_ms: see next_pause()
 * @not_before_ms: no try of its own accord before
 */
struct guest {
	const struct config_guest *conf;
	enum guest_state state;
	char why[WHY_MAX];
	const struct config_peer *to;
	char by[32];
	struct child *child;
	struct line *line;
	uint64_t asked;
	char *progress;
	char bandwidth[WHY_MAX];
	char output[256];
	struct {
		uint64_t ms;
		char what[64];
	} steps[NR_STEPS];
	unsigned int nr_steps;
	uint64_t begun_ms;
	sd_event_source *look;
	struct flaps flaps[CONFIG_MAX_DEVICES];
	const struct config_device *devices[CONFIG_MAX_DEVICES];
	enum turn drain;
	const struct config_peer *drain_to;
	char drain_why[WHY_MAX];
	uint64_t ended_ms;
	uint64_t pause_ms, not_before_ms;
	struct watcher *watchers;
	struct guest *next;
};

extern struct guest *guests;	/* in the order of the configuration */

struct guest *guest_of(const struct config_guest *conf);

/* ---- policy.c ---- */

/* Look at it again after ms. */
void policy_look_later(struct guest *g, uint64_t ms);
/* Its migration has ended. */
void policy_ended(struct guest *g);
/* Something has changed that those who wait for a drain want to hear. */
void policy_told(struct guest *g);

#endif /* IOVMD_GUEST_H */
