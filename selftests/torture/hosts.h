/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bed "hosts": two hosts, of which either can have the guest, and storage that both reach.
 *
 *	the device of host 0, and its ways                                 that of host 1
 *	┌─ a: dm iovmt-a ── store                              store ── dm iovmt-b :a ─┐
 *	kt-0  r: ─ TCP ─ target kt-t1 ── dm iovmt-d ── store   store ── dm iovmt-c ── target kt-t0 ─ TCP ─ :r  kt-1
 *	└─ s: ─ TCP ─ an NBD server ── store                   store ── an NBD server ─ TCP ─ :s ─┘
 *
 * A guest's device issues what it does by the disk of its host, by the target of the other one, and by an NBD server of a third
 * one. It needs an epoch for it, and so do the target's sessions. Each of these six ways to the storage belongs to one of the
 * guest's devices; the storage's side counts the writes on each, and none may come by the ways of a device that holds no epoch.
 *
 * Who agrees on epochs is the campaign (migrate.c), in the order in which two iovmd do: given up; the target of the other host
 * raised, then that of the taker's own; taken.
 */
#ifndef HOSTS_H
#define HOSTS_H

#include "bed.h"

struct hosts_way {
	const char *name;
	unsigned int host;		/* whose device's */
	char stat[64];			/* of its dm device; else */
	struct nbdsrv *srv;
	u64 seen;			/* writes, when that device gave up its epoch */
};

struct hosts {
	u64 epoch;
	int holder;			/* a host; -1 nobody may write */
	pid_t asked;			/* waits for an answer of the kernel's */
	struct hosts_way way[3 * BED_HOSTS_MAX];
};

int hosts_make(struct bed *b);		/* storage and servers */
int hosts_up(struct bed *b);		/* the devices are there: targets, and the first epoch */
void hosts_free(struct bed *b);
void hosts_guest_at(struct bed *b, unsigned int host);
bool hosts_wants(const struct bed *b, const struct bed_path *p);	/* is this path to be live at present? */

/* Sessions of a path's server, where that is a target */
int hosts_sockets(struct bed *b, struct bed_path *p, int fds[]);
void hosts_end_sessions(struct bed_path *p);
bool hosts_has_sessions(const char *target, u64 older_than);

/* IOVM_DEV_EPOCH_GIVE or _TAKE, by a process of its own since it may wait; again and again while it is busy. */
int hosts_ask(struct bed *b, const char *dev, u32 op, u64 epoch);
int hosts_answer(struct bed *b, int timeout_ms);	/* what became of it; -ETIMEDOUT: it waits still */

/* What these mean at the storage */
void hosts_given(struct bed *b);
void hosts_taken(struct bed *b, unsigned int host);	/* just before it is */
void hosts_look(struct bed *b);				/* a breach, if somebody has written who may not */
void hosts_refuse_old(struct bed *b);			/* a breach, if a target has or admits a session of an older epoch */

#endif /* HOSTS_H */
