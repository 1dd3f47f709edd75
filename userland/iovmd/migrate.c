// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source's side of a live migration. See migrate.h: migrate_out() at the end of this file is the story, from top to bottom.
 *
 * A step returns 0, or -1 when the migration is to be given up: then the sentence is in migration.why. Whether QEMU is still there
 * is looked at once, in migrate_give_up().
 */
#include <poll.h>
#include <stdarg.h>
#include <string.h>

#include "migrate_step.h"
#include "stream_key.h"

#define LOOK_MS		1000
#define HELD_BANDWIDTH	40960		/* bytes/s: QEMU grants a tenth of it, one page, ten times a second */
#define HELD_DOWNTIME	1		/* ms: and does not stop the guest while two pages are left */
#define HELD_THROTTLE	1		/* per cent */

const char *const migrate_outcome_text[] = {
	[MIGRATE_DONE] = "migrated",
	[MIGRATE_ROLLED_BACK] = "rolled back",
	[MIGRATE_REFUSED] = "refused",
	[MIGRATE_BUSY] = "busy",
	[MIGRATE_LOST] = "lost",
	[MIGRATE_UNCLEAR] = "unclear",
};

static void fill_in(struct migrate_job *job)
{
	job->downtime_ms = job->downtime_ms ?: 300;
	job->answer_ms = job->answer_ms ?: 10000;
	job->setup_ms = job->setup_ms ?: 30000;
	job->converge_ms = job->converge_ms ?: 30 * 60000;
	job->hold_ms = job->hold_ms ?: 10 * 60000;
	job->silent_ms = job->silent_ms ?: 330000;
	job->switch_ms = job->switch_ms ?: 60000;
	job->cancel_ms = job->cancel_ms ?: 30000;
	job->quit_ms = job->quit_ms ?: 10000;
}

void migrate_init(struct migration *o, const struct migrate_job *job, const struct migrate_ops *ops, void *ctx, char *why, size_t n)
{
	memset(o, 0, sizeof(*o));
	o->job = *job;
	fill_in(&o->job);
	o->ops = ops;
	o->ctx = ctx;
	o->why = why;
	o->n = n;
	*why = 0;
}

int migrate_fail(struct migration *o, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(o->why, o->n, fmt, ap);
	va_end(ap);
	return -1;
}

void migrate_add(struct migration *o, const char *fmt, ...)
{
	size_t len = strnlen(o->why, o->n);
	va_list ap;

	va_start(ap, fmt);
	if (len < o->n)
		vsnprintf(o->why + len, o->n - len, fmt, ap);
	va_end(ap);
}

void migrate_wait(struct migration *o, unsigned int ms)
{
	static const char *const names[] = { "MIGRATION", NULL };
	struct json_node *event;
	char why[QMP_WHY];

	if (!qmp_wait_event(&o->q, names, ms, &event, why, sizeof(why)))
		json_free(event);
}

/* ---- looking and waiting ---- */

static bool cancel_wanted(const struct migration *o)
{
	struct pollfd p = { o->job.cancel_fd, POLLIN, 0 };

	if (o->job.cancel_fd >= 0 && poll(&p, 1, 0) > 0)
		return true;
	return o->ops->cancelled && o->ops->cancelled(o->ctx);
}

static void tell(struct migration *o, const struct qemu_migration *m, bool held)
{
	struct migrate_progress p = {
		.phase = held && is(m->status, "active") ? "held" : m->status,
		.transferred = m->transferred, .remaining = m->remaining, .total = m->total, .dirty_rate = m->dirty_rate,
		.expected_downtime = m->expected_downtime, .downtime = m->downtime, .total_ms = m->total_ms, .throttle = m->throttle,
	};
	uint64_t now = ms_now();

	if (o->last_ms && now > o->last_ms && m->transferred > o->last_transferred)
		p.rate = (m->transferred - o->last_transferred) * 1000 / (now - o->last_ms);
	if (m->transferred) {
		o->last_ms = now;
		o->last_transferred = m->transferred;
	}
	if (o->ops->progress)
		o->ops->progress(o->ctx, &p);
}

/* How the migration is now. QEMU does not answer while its devices stop, so it gets more time. */
static int look(struct migration *o, struct qemu_migration *m)
{
	uint64_t end = ms_now() + o->job.silent_ms;
	enum qmp_result r;

	while ((r = qemu_migration(&o->q, o->job.answer_ms, m, o->why, o->n))) {
		if (r != QMP_TIMEOUT || ms_now() >= end)
			return -1;
		strcpy(m->status, "silent");
		tell(o, m, false);
	}
	if (is(m->status, "failed"))
		return migrate_fail(o, "QEMU says that the migration failed: %s",
				    *m->error ? m->error : "no reason given, see its log here and there");
	if (is(m->status, "cancelled") || !*m->status)
		return migrate_fail(o, "somebody cancelled the migration");
	return 0;
}

/* ---- 1: may it begin? ---- */

static enum migrate_outcome begin(struct migration *o)
{
	enum guest_at at;

	if (qmp_open(&o->q, o->job.qmp, o->job.answer_ms, o->why, o->n))
		return MIGRATE_REFUSED;
	o->q.wake_fd = o->job.cancel_fd;
	at = qemu_guest_at(&o->q, o->job.answer_ms, o->why, o->n);
	switch (at) {
	case GUEST_RUNS:
		return MIGRATE_DONE;
	case GUEST_SILENT:
		return MIGRATE_REFUSED;
	case GUEST_LEAVING:
	case GUEST_STOPPED:
		migrate_fail(o, "the guest %s: wait until that has ended, or cancel it", guest_at_text[at]);
		return MIGRATE_BUSY;
	default:
		migrate_fail(o, "the guest %s: only a guest that runs is migrated", guest_at_text[at]);
		return MIGRATE_REFUSED;
	}
}

/* ---- 2: settings ---- */

/* Slow it down so far that it does not converge, but not the guest's CPUs; or let it go. */
static int hold(struct migration *o, bool held)
{
	struct qemu_settings s = { 0 };

	qemu_wish_num(&s, NUM_BANDWIDTH, HELD_BANDWIDTH);
	qemu_wish_num(&s, NUM_DOWNTIME, HELD_DOWNTIME);
	if (o->job.converge) {
		qemu_wish_num(&s, NUM_THROTTLE_FIRST, HELD_THROTTLE);
		qemu_wish_num(&s, NUM_THROTTLE_STEP, HELD_THROTTLE);
		qemu_wish_num(&s, NUM_THROTTLE_MAX, HELD_THROTTLE);
	}
	if (qemu_apply(&o->q, o->job.silent_ms, held ? &s : &o->unheld, held ? &o->unheld : NULL, o->why, o->n))
		return -1;
	if (held)
		o->held_since = ms_now();
	else
		o->held_ms += ms_now() - o->held_since;
	o->held = held;
	return 0;
}

static int prepare(struct migration *o)
{
	const struct migrate_job *job = &o->job;
	struct qemu_settings s = { 0 };

	qemu_wish_cap(&s, CAP_PAUSE, WISH, true);
	qemu_wish_cap(&s, CAP_RETURN_PATH, WISH, true);
	qemu_wish_cap(&s, CAP_EVENTS, WISH_IF_KNOWN, true);
	qemu_wish_cap(&s, CAP_MULTIFD, WISH, job->multifd);
	qemu_wish_cap(&s, CAP_CONVERGE, WISH, job->converge);
	qemu_wish_num(&s, NUM_BANDWIDTH, job->bandwidth);
	qemu_wish_num(&s, NUM_DOWNTIME, job->downtime_ms);
	if (job->multifd)
		qemu_wish_num(&s, NUM_CHANNELS, job->multifd);
	if (job->throttle_first)
		qemu_wish_num(&s, NUM_THROTTLE_FIRST, job->throttle_first);
	if (job->throttle_step)
		qemu_wish_num(&s, NUM_THROTTLE_STEP, job->throttle_step);
	if (job->throttle_max)
		qemu_wish_num(&s, NUM_THROTTLE_MAX, job->throttle_max);
	if (job->key && stream_key_give(&o->q, job->answer_ms, job->key_dir, job->key, false, o->why, o->n))
		return -1;
	qemu_wish_text(&s, TEXT_TLS_CREDS, job->key ? STREAM_KEY_ID : job->tls_creds ?: "");
	qemu_wish_text(&s, TEXT_TLS_HOSTNAME, job->tls_hostname ?: "");
	if (qemu_apply(&o->q, job->answer_ms, &s, &o->old, o->why, o->n))
		return -1;
	if (o->ops->may_switch && !o->ops->may_switch(o->ctx))
		return hold(o, true);
	return 0;
}

/* ---- 3: memory ---- */

static int start(struct migration *o)
{
	enum qmp_result r;

	if (cancel_wanted(o))
		return migrate_fail(o, "cancelled");
	json_str(qmp_command(&o->q, "migrate"), "uri", o->job.uri);
	r = qmp_run(&o->q, o->job.answer_ms, NULL, o->why, o->n);
	o->begun = r != QMP_ERROR;	/* without an answer it may have begun */
	return r ? -1 : 0;
}

/* While the memory is sent: is there still time, and may the guest be stopped? */
static int steer(struct migration *o, uint64_t active_since)
{
	bool may = !o->ops->may_switch || o->ops->may_switch(o->ctx);
	uint64_t now;

	if (may == o->held && hold(o, !may))
		return -1;
	now = ms_now();
	if (o->held && now - o->held_since + o->held_ms > o->job.hold_ms)
		return migrate_fail(o, "no live path for the guest's devices within %u ms, so it was not stopped", o->job.hold_ms);
	if (!o->held && now > active_since + o->held_ms + o->job.converge_ms)
		return migrate_fail(o, "the guest's memory did not converge within %u ms: "
				    "more bandwidth, a longer downtime or auto-converge would help", o->job.converge_ms);
	return 0;
}

/* Until the guest is stopped */
static int converge(struct migration *o)
{
	uint64_t since = ms_now(), active_since = 0;
	struct qemu_migration m;

	for (;;) {
		if (look(o, &m))
			return -1;
		tell(o, &m, o->held);
		if (is(m.status, "pre-switchover") || is(m.status, "completed"))
			return 0;
		if (cancel_wanted(o))
			return migrate_fail(o, "cancelled");
		if (is(m.status, "active")) {
			active_since = active_since ?: ms_now();
			if (steer(o, active_since))
				return -1;
		} else if (!active_since && ms_now() - since > o->job.setup_ms) {
			return migrate_fail(o, "no connection to the destination's QEMU at %s within %u ms", o->job.uri, o->job.setup_ms);
		}
		migrate_wait(o, LOOK_MS);
	}
}

/* ---- 4: the guest is stopped ---- */

static int switch_over(struct migration *o)
{
	if (cancel_wanted(o))
		return migrate_fail(o, "cancelled");
	if (o->ops->switchover && o->ops->switchover(o->ctx, o->why, o->n))
		return -1;
	if (cancel_wanted(o))
		return migrate_fail(o, "cancelled");
	return 0;
}

/* ---- 5: the rest ---- */

/* It is "completed" a little before QEMU is done with it, and knows how long it took. */
static int settle(struct migration *o)
{
	uint64_t end = ms_now() + RESTART_MS;
	struct qemu_migration m;
	char state[QEMU_WORD];

	do {
		if (qemu_run_state(&o->q, o->job.silent_ms, state, o->why, o->n))
			return -1;
	} while (is(state, "finish-migrate") && ms_now() < end && !poll(NULL, 0, RETRY_MS));
	if (look(o, &m))
		return -1;
	tell(o, &m, false);
	return 0;
}

static int finish(struct migration *o)
{
	uint64_t since = ms_now();
	struct qemu_migration m;

	o->continued = true;
	json_str(qmp_command(&o->q, "migrate-continue"), "state", "pre-switchover");
	if (qmp_run(&o->q, o->job.silent_ms, NULL, o->why, o->n))
		return -1;
	for (;;) {
		if (look(o, &m))
			return -1;
		if (is(m.status, "completed"))
			return settle(o);
		tell(o, &m, false);
		if (cancel_wanted(o))
			return migrate_fail(o, "cancelled");
		if (ms_now() - since > o->job.switch_ms)
			return migrate_fail(o, "the guest was not switched over within %u ms", o->job.switch_ms);
		migrate_wait(o, LOOK_MS);
	}
}

/* ---- 6 and 7: it is there ---- */

/* QEMU has ended when nobody listens on its monitor's socket any more. */
static void quit(struct migration *o)
{
	static const char *const none[] = { NULL };
	struct json_node *event;
	pid_t pid = o->q.pid;
	enum qmp_result r;

	r = qmp_execute(&o->q, "quit", o->job.answer_ms, NULL, o->why, o->n);
	if (!r)
		r = qmp_wait_event(&o->q, none, o->job.quit_ms, &event, o->why, o->n);
	if (r == QMP_CLOSED && migrate_reconnect(o) == QMP_CLOSED)
		*o->why = 0;
	else if (r == QMP_TIMEOUT || r == QMP_CLOSED)
		migrate_fail(o, "the guest has been migrated, but its QEMU here (pid %d) has not ended", (int)pid);
}

static enum migrate_taken hand_over(struct migration *o)
{
	enum migrate_taken taken = o->ops->completed ? o->ops->completed(o->ctx, o->why, o->n) : MIGRATE_TAKEN;

	if (taken == MIGRATE_TAKEN)
		*o->why = 0;
	return taken;
}

/* ---- the whole ---- */

enum migrate_outcome migrate_out(const struct migrate_job *job, const struct migrate_ops *ops, void *ctx, char *why, size_t n)
{
	enum migrate_outcome outcome;
	struct migration o;

	migrate_init(&o, job, ops, ctx, why, n);
	outcome = begin(&o);
	if (outcome)
		goto out;
	if (prepare(&o) || start(&o) || converge(&o) || switch_over(&o) || finish(&o)) {
		outcome = migrate_give_up(&o);
		goto out;
	}
	switch (hand_over(&o)) {
	case MIGRATE_TAKEN:
		if (o.job.quit)
			quit(&o);
		break;
	case MIGRATE_NOT_TAKEN:
		o.continued = false;
		outcome = migrate_give_up(&o);
		break;
	default:
		outcome = MIGRATE_UNCLEAR;
	}
out:
	qmp_close(&o.q);
	return outcome;
}

int migrate_quit(const struct migrate_job *job, char *why, size_t n)
{
	const struct migrate_ops none = { 0 };
	enum guest_at at;
	struct migration o;

	migrate_init(&o, job, &none, NULL, why, n);
	switch (qmp_open(&o.q, job->qmp, o.job.answer_ms, why, n)) {
	case QMP_OK:
		break;
	case QMP_CLOSED:
		*why = 0;
		return 0;
	default:
		return -1;
	}
	at = qemu_guest_at(&o.q, o.job.answer_ms, why, n);
	if (at == GUEST_LEFT)
		quit(&o);
	else if (at != GUEST_SILENT)
		migrate_fail(&o, "the guest %s: its QEMU is not ended", guest_at_text[at]);
	qmp_close(&o.q);
	return *why ? -1 : 0;
}
