// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A migration that is given up: the guest is to run here again, and nowhere else. See migrate.h, and migrate_give_up() here.
 */
#include <poll.h>
#include <string.h>

#include "migrate_step.h"

#define TRIES		3	/* over one connection after the other */

enum qmp_result migrate_reconnect(struct migration *o)
{
	static const char *const shutdown[] = { "SHUTDOWN", NULL };
	uint64_t end = ms_now() + o->job.answer_ms;
	struct json_node *event;
	enum qmp_result r;
	char why[QMP_WHY];

	if (!qmp_wait_event(&o->q, shutdown, 0, &event, why, sizeof(why))) {
		o->shut_down = true;
		json_free(event);
	}
	qmp_close(&o->q);
	for (;;) {
		r = qmp_open(&o->q, o->job.qmp, o->job.answer_ms, why, sizeof(why));
		/* QEMU that is about to end may still take a connection */
		if ((r != QMP_CLOSED || !o->q.pid) || ms_now() >= end)
			break;
		poll(NULL, 0, RETRY_MS);
	}
	o->q.wake_fd = -1;
	if (r && r != QMP_CLOSED)
		migrate_add(o, "; %s", why);
	return r;
}

/* Have QEMU end the migration, whichever way. */
static int call_off(struct migration *o)
{
	uint64_t end = ms_now() + o->job.cancel_ms;
	struct qemu_migration m;
	char why[QMP_WHY];

	o->q.wake_fd = -1;
	for (;;) {
		if (qemu_migration(&o->q, o->job.silent_ms, &m, why, sizeof(why)))
			break;
		if (!qemu_under_way(m.status))
			return 0;
		if (!is(m.status, "cancelling") &&
		    qmp_execute(&o->q, "migrate_cancel", o->job.silent_ms, NULL, why, sizeof(why)))
			break;
		if (ms_now() >= end) {
			snprintf(why, sizeof(why), "QEMU has not ended the cancelled migration within %u ms (%s)", o->job.cancel_ms, m.status);
			/* as long as it tries to connect; nothing but an end can come of it */
			if (!is(m.status, "cancelling"))
				break;
			migrate_add(o, "; %s", why);
			return 0;
		}
		migrate_wait(o, RETRY_MS);
	}
	migrate_add(o, "; %s", why);
	return -1;
}

/* The guest may run here, and nowhere else: see that it does. */
static int let_run(struct migration *o)
{
	uint64_t end = ms_now() + RESTART_MS;
	char state[QEMU_WORD], why[QMP_WHY];

	for (;;) {
		if (qemu_run_state(&o->q, o->job.silent_ms, state, why, sizeof(why)))
			break;
		if (is(state, "running"))
			return 0;
		snprintf(why, sizeof(why), "the guest does not run here, its state is '%s'", state);
		if (is(state, "postmigrate") && qmp_execute(&o->q, "cont", o->job.silent_ms, NULL, why, sizeof(why)))
			break;
		if (ms_now() >= end)
			break;
		poll(NULL, 0, RETRY_MS);
	}
	migrate_add(o, "; %s", why);
	return -1;
}

/* The guest runs, so it is a failure only if QEMU should have ended. */
static int restore(struct migration *o)
{
	char why[QMP_WHY];

	if ((o->held && qemu_apply(&o->q, o->job.answer_ms, &o->unheld, NULL, why, sizeof(why))) ||
	    qemu_apply(&o->q, o->job.answer_ms, &o->old, NULL, why, sizeof(why)))
		migrate_add(o, "; the migration's settings could not be restored: %s", why);
	return o->q.broken ? -1 : 0;
}

static int undo(struct migration *o)
{
	char why[QMP_WHY] = "no reason given";

	if (o->undone || !o->ops->undo)
		return 0;
	o->undone = true;
	if (!o->ops->undo(o->ctx, why, sizeof(why)))
		return 0;
	migrate_add(o, "; and it could not be undone: %s", why);
	return -1;
}

/* QEMU has ended here. If all was sent, the guest may be whole there. */
static enum migrate_outcome lost(struct migration *o)
{
	char why[QMP_WHY] = "no reason given";
	enum migrate_taken taken = MIGRATE_NOT_TAKEN;

	migrate_add(o, o->shut_down ? "; the guest or its QEMU was shut down here" : "; QEMU has ended here");
	if (o->continued && !o->undone && o->ops->completed)
		taken = o->ops->completed(o->ctx, why, sizeof(why));
	if (taken == MIGRATE_TAKEN) {
		*o->why = 0;
		return MIGRATE_DONE;
	}
	if (taken == MIGRATE_TAKEN_UNKNOWN) {
		migrate_add(o, "; whether the guest runs at the destination is not known: %s", why);
		return MIGRATE_UNCLEAR;
	}
	undo(o);
	return MIGRATE_LOST;
}

enum migrate_outcome migrate_give_up(struct migration *o)
{
	enum qmp_result r;
	unsigned int i;

	for (i = 0; i < TRIES; i++) {
		if (o->q.broken) {
			r = migrate_reconnect(o);
			if (r == QMP_CLOSED)
				return lost(o);
			if (r)
				break;
		}
		if (!(o->begun && call_off(o)) && !undo(o) && !let_run(o) && !restore(o)) {
			if (o->ops->rolled_back)
				o->ops->rolled_back(o->ctx);
			return MIGRATE_ROLLED_BACK;
		}
		/* with another connection it may go better */
		if (!o->q.broken)
			break;
	}
	migrate_add(o, "; see where the guest is: query-status at %s, and at the destination", o->job.qmp);
	return MIGRATE_UNCLEAR;
}

enum migrate_outcome migrate_back(const struct migrate_job *job, const struct migrate_ops *ops, void *ctx, char *why, size_t n)
{
	enum migrate_outcome outcome = MIGRATE_UNCLEAR;
	struct migration o;

	migrate_init(&o, job, ops, ctx, why, n);
	/* as far as it may have come */
	o.begun = true;
	o.continued = true;
	switch (qmp_open(&o.q, job->qmp, o.job.answer_ms, why, n)) {
	case QMP_OK:
		migrate_fail(&o, "the migration is rolled back");
		qemu_wish_cap(&o.old, CAP_PAUSE, WISH, false);
		outcome = migrate_give_up(&o);
		break;
	case QMP_CLOSED:
		outcome = lost(&o);
		break;
	default:
		break;
	}
	qmp_close(&o.q);
	return outcome;
}
