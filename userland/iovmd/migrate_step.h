/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A migration as its steps see it: shared by migrate.c, where it goes forward, and migrate_back.c, where it is given up.
 */
#ifndef IOVMD_MIGRATE_STEP_H
#define IOVMD_MIGRATE_STEP_H

#include <string.h>

#include "migrate.h"
#include "qemu.h"

#define RETRY_MS	50
#define RESTART_MS	5000	/* QEMU is done with a guest that it stopped */

/**
 * struct migration - a migration under way
 * @job: with the defaults filled in
 * @ops: the caller's
 * @ctx: the caller's
 * @q: the connection to QEMU; give_up() may have another one
 * @old: the settings that are to be restored
 * @unheld: those that it goes on with after @held
 * @begun: `migrate` was sent, perhaps
 * @continued: `migrate-continue` was sent, perhaps: the destination may have all of the guest
 * @undone: undo() was called
 * @held: it is slowed down, for may_switch() said no
 * @shut_down: QEMU said that it was going to end
 * @held_since: when @held was set, ms
 * @held_ms: for how long it was held before
 * @last_ms: when progress() was told @last_transferred
 * @last_transferred: bytes
 * @why: the caller's, for the sentence
 * @n: its size
 */
struct migration {
	struct migrate_job job;
	const struct migrate_ops *ops;
	void *ctx;
	struct qmp q;
	struct qemu_settings old, unheld;
	bool begun, continued, undone, held, shut_down;
	uint64_t held_since, held_ms;
	uint64_t last_ms, last_transferred;
	char *why;
	size_t n;
};

void migrate_init(struct migration *o, const struct migrate_job *job, const struct migrate_ops *ops, void *ctx,
		  char *why, size_t n);

/* The sentence of a step that failed; -1. And what came of it, behind that. */
int migrate_fail(struct migration *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void migrate_add(struct migration *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Until the migration's state changes, or for a while. Why it ended does not matter: the caller looks. */
void migrate_wait(struct migration *o, unsigned int ms);

/* Whoever closed the connection: is QEMU still there? QMP_CLOSED: nobody listens any more. */
enum qmp_result migrate_reconnect(struct migration *o);

/* Roll back, from wherever it is; the outcome. */
enum migrate_outcome migrate_give_up(struct migration *o);

static inline bool is(const char *a, const char *b)
{
	return !strcmp(a, b);
}

#endif
