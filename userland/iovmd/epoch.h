/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The epoch of a device, between the files that deal with it: epoch.c, epoch_take.c.
 */
#ifndef IOVMD_EPOCH_H
#define IOVMD_EPOCH_H

#include "iovmd.h"
#include "epoch_store.h"

#define EPOCH_RAISE_MS	60000	/* a peer that is told of one has so long to end the sessions of older ones */

enum epoch_phase {
	PHASE_IDLE,
	PHASE_ASKING,	/* the peers, to give it up */
	PHASE_STORING,
	PHASE_RAISING,	/* the peers are told */
	PHASE_TAKING,
};

/* Somebody who wants to hear when it is held here */
struct waiter {
	struct line *line;
	uint64_t id;
	struct waiter *next;
};

/**
 * struct epoch - of a device
 * @known: as it is on disk
 * @next: what is being taken
 * @phase: how far that is
 * @asked: the peers, as they were asked: one answer is awaited of each
 * @nr_asked: so many of them
 * @told: those that were told that it is held here, for they were not there when it was taken
 * @peers: those of the device when the configuration was read; @nr_peers: so many
 * @waits: for so many answers
 * @gone: those that could not be asked, a bit each, by their place in @asked; @gone_why: of the first
 * @handed: a peer had it until it was asked
 * @worker: what is being done; one at a time
 * @line: to it
 * @giver: who is answered when the worker has given it up or raised it; NULL nobody
 * @giver_id: of that request
 * @job: what the worker does
 * @why: it could not be taken; "" it could
 */
struct epoch {
	const struct config_device *d;
	struct asked {
		struct epoch *e;
		const struct config_peer *p;
		uint64_t number;	/* of peer_ask(); 0 answered */
	} asked[CONFIG_MAX_PEERS], told[CONFIG_MAX_PEERS];
	unsigned int nr_asked, nr_peers;
	const struct config_peer *peers[CONFIG_MAX_PEERS];
	struct epoch_record known, next;
	enum epoch_phase phase;
	unsigned int waits, gone;
	char gone_why[WHY_MAX];
	bool handed;
	struct child *worker;
	struct line *line;
	struct line *giver;
	uint64_t giver_id;
	struct epoch_job job;
	char why[WHY_MAX];
	sd_event_source *pause;
	uint64_t pause_ms;
	struct waiter *waiters;
	struct epoch *link;
};

/* Has a worker do something; its result comes to epoch.c. False: no process could be started. */
bool epoch_job(struct epoch *e, int what, const struct epoch_record *r, bool holds);

/* --- taking it (epoch_take.c) --- */

/* Asks the peers for it, unless that is under way, or it is not yet time to try again. */
void epoch_take(struct epoch *e);
/* It is written down: the peers are told. */
void epoch_raise(struct epoch *e);
/* The kernel has it. */
void epoch_taken(struct epoch *e);
/* Whoever waits is told, and it is tried again after a while. */
void epoch_failed(struct epoch *e, const char *why);
/* Are the device's peers others than those that were asked, and are still to answer? */
bool epoch_asks_others(const struct epoch *e);

#endif /* IOVMD_EPOCH_H */
