// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The worker that migrates a guest away, or finds out what became of a migration that nobody looks after any more. It asks the peer
 * through the main process: a line with "op" goes there, the answer comes back. Others that it writes: "phase" and figures, and last of
 * all "outcome".
 *
 * The peer lets the guest run there only when it is told so ("accept"), and that is said only once QEMU here has sent everything and will
 * not go on by itself. So a peer that cannot be reached is no reason to keep the guest from running here, as long as that was not said.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"
#include "command.h"
#include "libvirt.h"
#include "migrate.h"
#include "qemu.h"
#include "rules.h"
#include "stream_key.h"
#include "unit.h"
#include "../iovmctl/iovmctl.h"

#define ASK_MS		130000	/* longer than the main process waits for the peer */
#define AGAIN_MS	1000
#define ACCEPT_MS	600000	/* for so long the peer is asked to take a guest that is all there */
#define ABORT_MS	15000
#define QMP_MS		10000
#define UNIT_MS		30000	/* what is left of a unit whose QEMU has ended is stopped */

/**
 * struct source - a migration
 * @sock: to the main process
 * @in: what came from there
 * @alone: it has gone
 * @cancelled: somebody wants it to end
 * @until: clock_ms() at which it is given up; 0 never
 * @late: it was
 * @said: the peer was told to take the guest, which may have been heard
 * @gone: there is no QEMU of it here any more
 * @never: the peer has no QEMU of it, and has never let it run
 * @lost: nor has it any more, but it may have run there
 */
struct source {
	const struct source_job *job;
	int sock;
	struct line_buf in;
	bool alone, cancelled, said, gone, never, lost, late;
	uint64_t until;
};

static void begin(struct msg *m, const struct source *s, const char *op)
{
	msg_begin(m);
	json_str(&m->j, "op", op);
	json_str(&m->j, "guest", s->job->guest->name);
}

/* The answer, for json_free(); NULL and why. */
static struct json_node *ask(struct source *s, struct msg *m, char *why, size_t n)
{
	struct json_node *o = NULL;

	snprintf(why, n, "iovmd has ended here");
	if (!msg_write(m, s->sock))
		s->alone = true;
	while (!s->alone) {
		o = line_read(s->sock, &s->in, ASK_MS);
		if (!o) {
			s->alone = true;
		} else if (member_bool(o, "cancel")) {
			s->cancelled = true;
			json_free(o);
		} else {
			break;
		}
	}
	if (s->alone)
		return NULL;
	if (member_bool(o, "ok"))
		return o;
	snprintf(why, n, "%s", member_str(o, "error") ?: "no reason given");
	json_free(o);
	return NULL;
}

/*
 * Asked again and again, since the connection may be cut for a while. Without a QEMU here, the peer is told so: what it has not got
 * of the guest by now is lost.
 */
static bool ask_until(struct source *s, const char *op, uint64_t ms, char *why, size_t n)
{
	uint64_t end = clock_ms() + ms;
	const char *said;
	struct json_node *o;
	struct msg m;

	for (;;) {
		begin(&m, s, op);
		json_bool(&m.j, "gone", s->gone);
		o = ask(s, &m, why, n);
		if (o || s->alone || clock_ms() >= end)
			break;
		poll(NULL, 0, AGAIN_MS);
	}
	said = o ? member_str(json_member(o, "answer"), "never") : NULL;
	s->lost = said && !strcmp(said, "lost");
	s->never = said && !s->lost;
	json_free(o);
	return o;
}

static void phase(struct source *s, const char *what)
{
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, "phase", what);
	msg_write(&m, s->sock);
}

/* A phase, and what it means for bandwidth. */
static void tell_bandwidth(struct source *s, const char *what, const char *text)
{
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, "phase", what);
	json_str(&m.j, "bandwidth", text);
	msg_write(&m, s->sock);
}

/* --- what migrate_out() asks --- */

static void progress(void *ctx, const struct migrate_progress *p)
{
	struct source *s = ctx;
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, "phase", p->phase);
	json_u64(&m.j, "rate", p->rate);
	json_u64(&m.j, "transferred", p->transferred);
	json_u64(&m.j, "remaining", p->remaining);
	json_u64(&m.j, "total", p->total);
	json_u64(&m.j, "dirty_rate", p->dirty_rate);
	json_u64(&m.j, "expected_downtime_ms", p->expected_downtime);
	json_u64(&m.j, "downtime_ms", p->downtime);
	json_u64(&m.j, "total_ms", p->total_ms);
	json_u64(&m.j, "throttle_percent", p->throttle);
	msg_write(&m, s->sock);
}

static bool cancelled(void *ctx)
{
	struct source *s = ctx;
	struct pollfd p = { .fd = s->sock, .events = POLLIN };
	struct json_node *o;

	while (!s->alone && poll(&p, 1, 0) > 0) {
		o = line_read(s->sock, &s->in, 1000);
		if (!o)
			s->alone = true;
		s->cancelled |= o && member_bool(o, "cancel");
		json_free(o);
	}
	if (s->until && clock_ms() >= s->until)
		s->late = true;
	/* who would tell the peer? */
	return s->cancelled || s->alone || s->late;
}

static bool may_switch(void *ctx)
{
	struct source *s = ctx;
	const struct config_guest *g = s->job->guest;
	struct iovm_dev_info di;
	unsigned int i;

	for (i = 0; i < g->nr_devices; i++)
		if (!kernel_has_device(g->devices[i]->name, &di) || di.state != IOVM_DEV_ROUTED)
			return false;
	return true;
}

static int switchover(void *ctx, char *why, size_t n)
{
	struct source *s = ctx;
	const struct config_guest *g = s->job->guest;
	struct json_node *o;
	struct msg m;
	unsigned int i;

	phase(s, "guest is stopped here");
	/* the peer asks ours to give them up */
	for (i = 0; i < g->nr_devices; i++) {
		if (!epoch_needed(g->devices[i]))
			continue;
		begin(&m, s, "epoch-ready");
		json_str(&m.j, "device", g->devices[i]->name);
		o = ask(s, &m, why, n);
		json_free(o);
		if (!o)
			return -1;
	}
	phase(s, "the peer may write");
	return 0;
}

static enum migrate_taken completed(void *ctx, char *why, size_t n)
{
	struct source *s = ctx;

	phase(s, "all of it is there");
	s->said = true;
	if (!ask_until(s, "accept", ACCEPT_MS, why, n))
		return MIGRATE_TAKEN_UNKNOWN;
	if (s->never) {
		s->said = false;
		snprintf(why, n, "'%s' has lost it before it ran there", s->job->to->name);
		return MIGRATE_NOT_TAKEN;
	}
	/* lost: what is here is older than what may have run there */
	if (!s->lost)
		phase(s, "guest runs there");
	return MIGRATE_TAKEN;
}

static int undo(void *ctx, char *why, size_t n)
{
	struct source *s = ctx;

	phase(s, "is taken back");
	if (ask_until(s, "abort", ABORT_MS, why, n))
		return 0;
	/* it waits there to be told, and will be told as soon as it can be */
	return s->said ? -1 : 0;
}

static const struct migrate_ops ops = {
	.progress = progress, .cancelled = cancelled, .may_switch = may_switch, .switchover = switchover, .completed = completed, .undo = undo,
};

static int tell_outcome(struct source *s, enum migrate_outcome outcome, const char *why)
{
	static const char *const words[] = {
		[MIGRATE_DONE] = "migrated", [MIGRATE_ROLLED_BACK] = "rolled-back", [MIGRATE_REFUSED] = "rolled-back",
		[MIGRATE_BUSY] = "rolled-back", [MIGRATE_LOST] = "lost", [MIGRATE_UNCLEAR] = "unclear",
	};
	const char *unit = s->job->guest->unit;
	char left[WHY_MAX], text[WHY_MAX];
	struct msg m;

	/* it runs there: what its QEMU was here is over, with whatever else the unit has */
	if (outcome == MIGRATE_DONE && *unit && unit_stop(unit, UNIT_MS, left, sizeof(left))) {
		snprintf(text, sizeof(text), "%.200s%s%.300s", why, *why ? "; " : "", left);
		why = text;
	}
	msg_begin(&m);
	json_str(&m.j, "outcome", words[outcome]);
	json_str(&m.j, "why", why);
	msg_write(&m, s->sock);
	return 0;
}

static void job_of(const struct config_guest *g, const char *uri, struct migrate_job *job)
{
	*job = (struct migrate_job){
		.qmp = g->qmp, .uri = uri, .bandwidth = bandwidth_of_migration(g), .downtime_ms = (unsigned int)g->max_downtime_ms,
		.multifd = g->channels, .converge = g->auto_converge, .quit = true, .cancel_fd = -1,
		.converge_ms = (unsigned int)g->timeout_ms,
	};
}

static enum migrate_outcome lost_there(const struct source *s, char *why, size_t n)
{
	snprintf(why, n, "it was let run on '%s', and its QEMU has ended there: start it again, on either host", s->job->to->name);
	return MIGRATE_LOST;
}

static int migrate(struct source *s)
{
	const struct config_guest *g = s->job->guest;
	enum migrate_outcome outcome;
	char why[WHY_MAX] = "", peer_why[WHY_MAX], text[WHY_MAX], uri[QEMU_URI + CONFIG_HOST_MAX], key[STREAM_KEY] = "", key_dir[128];
	struct migrate_job job;
	struct json_node *o;
	enum guest_at at;
	struct msg m;

	s->until = g->timeout_ms ? clock_ms() + g->timeout_ms : 0;
	/* the channel on which the peer is told it is encrypted */
	if (!agent.config->host.plain_tcp && stream_key_new(key))
		return tell_outcome(s, MIGRATE_REFUSED, "there are no random numbers for its key");
	at = qemu_find(g->qmp, QMP_MS, why, sizeof(why));
	if (at != GUEST_RUNS) {
		snprintf(peer_why, sizeof(peer_why), "its QEMU at '%s': %s%s%s", g->qmp, guest_at_text[at], *why ? ": " : "", why);
		return tell_outcome(s, MIGRATE_REFUSED, peer_why);
	}
	phase(s, "the peer prepares");
	begin(&m, s, "prepare");
	json_bool(&m.j, "auto_converge", g->auto_converge);
	json_u64(&m.j, "channels", g->channels);
	if (*key)
		json_str(&m.j, "key", key);
	o = ask(s, &m, peer_why, sizeof(peer_why));
	if (!o || !member_str(json_member(o, "answer"), "uri")) {
		snprintf(why, sizeof(why), "'%s' cannot take it: %.400s", s->job->to->name, o ? "it named no address" : peer_why);
		json_free(o);
		return tell_outcome(s, MIGRATE_REFUSED, why);
	}
	phase(s, "the peer is ready");
	rule_uri(member_str(json_member(o, "answer"), "uri"), s->job->to->address, uri, sizeof(uri));
	job_of(g, uri, &job);
	snprintf(key_dir, sizeof(key_dir), "%.50s/%s.key", agent.run_dir, g->name);
	job.key = *key ? key : NULL;
	job.key_dir = key_dir;
	if (bandwidth_reserve(g, s->job->to, job.uri, text))
		tell_bandwidth(s, "reserved", text);
	else
		tell_bandwidth(s, "no bandwidth reserved", text);
	outcome = migrate_out(&job, &ops, s, why, sizeof(why));
	if (bandwidth_release(g))
		tell_bandwidth(s, "released", NULL);
	if (outcome == MIGRATE_DONE && s->lost)
		outcome = lost_there(s, why, sizeof(why));
	if (s->late && outcome != MIGRATE_DONE) {
		strcpy(peer_why, why);
		snprintf(why, sizeof(why), "it was not done within 'timeout': %.440s", peer_why);
	}
	if (outcome == MIGRATE_REFUSED || outcome == MIGRATE_BUSY)
		ask_until(s, "abort", ABORT_MS, peer_why, sizeof(peer_why));
	json_free(o);
	return tell_outcome(s, outcome, why);
}

/* --- the operator's command instead of QMP --- */

/* It is his: it goes on when nobody is there to be told any more. */
static bool command_cancelled(void *ctx)
{
	struct source *s = ctx;

	cancelled(ctx);
	return s->cancelled;
}

static void command_said(void *ctx, const char *line)
{
	struct source *s = ctx;
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, "output", line);
	msg_write(&m, s->sock);
}

/* Who knows which port the migration takes? */
static void reserve_any_port(struct source *s)
{
	char text[WHY_MAX];

	if (bandwidth_reserve(s->job->guest, s->job->to, "", text))
		tell_bandwidth(s, "reserved", text);
	else
		tell_bandwidth(s, "no bandwidth reserved", text);
}

static int by_command(struct source *s)
{
	const struct config_guest *g = s->job->guest;
	const struct command_job job = {
		.guest = g, .to = s->job->to, .cancelled = command_cancelled, .said = command_said, .ctx = s,
	};
	char why[WHY_MAX] = "";
	bool good;

	if (strcmp(s->job->what, "migrate"))
		return tell_outcome(s, guest_is_here(g) ? MIGRATE_ROLLED_BACK : MIGRATE_DONE, "iovmd was started anew meanwhile");
	reserve_any_port(s);
	phase(s, "the command runs");
	good = command_run(&job, why);
	if (bandwidth_release(g))
		tell_bandwidth(s, "released", NULL);
	return tell_outcome(s, good ? MIGRATE_DONE : MIGRATE_ROLLED_BACK, good ? "" : why);
}

/* The peer has a QEMU that waits to be told what is with the guest. */
static int settle(struct source *s)
{
	const struct config_guest *g = s->job->guest;
	char why[WHY_MAX] = "", rest[WHY_MAX];
	struct migrate_job job;
	enum migrate_taken taken;
	enum guest_at at;

	job_of(g, "", &job);
	at = qemu_find(g->qmp, QMP_MS, why, sizeof(why));
	switch (at) {
	case GUEST_RUNS:
	case GUEST_PAUSED:
	case GUEST_BROKEN:
		if (!ask_until(s, "abort", ABORT_MS, why, sizeof(why)))
			return tell_outcome(s, MIGRATE_UNCLEAR, why);
		return tell_outcome(s, MIGRATE_ROLLED_BACK, "iovmd was started anew meanwhile, or the peer was not reached");
	case GUEST_LEAVING:
	case GUEST_STOPPED:
		return tell_outcome(s, migrate_back(&job, &ops, s, why, sizeof(why)), why);
	case GUEST_LEFT:
	case GUEST_GONE:
		s->gone = at == GUEST_GONE;
		taken = completed(s, why, sizeof(why));
		if (taken == MIGRATE_NOT_TAKEN && at == GUEST_GONE)
			return tell_outcome(s, MIGRATE_LOST, "its QEMU here ended before all of it was sent: start it again, on either host");
		if (taken == MIGRATE_NOT_TAKEN)
			return tell_outcome(s, migrate_back(&job, &ops, s, why, sizeof(why)), why);
		if (taken != MIGRATE_TAKEN)
			return tell_outcome(s, at == GUEST_GONE ? MIGRATE_LOST : MIGRATE_UNCLEAR, why);
		rest[0] = 0;
		if (at == GUEST_LEFT)
			migrate_quit(&job, rest, sizeof(rest));
		if (s->lost)
			return tell_outcome(s, lost_there(s, rest, sizeof(rest)), rest);
		return tell_outcome(s, MIGRATE_DONE, rest);
	default:
		snprintf(rest, sizeof(rest), "its QEMU at '%s': %s%s%s", g->qmp, guest_at_text[at], *why ? ": " : "", why);
		return tell_outcome(s, MIGRATE_UNCLEAR, rest);
	}
}

/* --- libvirt instead of QMP --- */

/* It is between two libvirts: it goes on when nobody is there to be told any more. */
static bool libvirt_cancelled(void *ctx)
{
	struct source *s = ctx;

	cancelled(ctx);
	return s->cancelled;
}

/* What has stopped need not be held up. */
static bool libvirt_may_switch(void *ctx)
{
	const struct source *s = ctx;
	const struct config_guest *g = s->job->guest;
	struct iovm_dev_info di;
	unsigned int i;

	for (i = 0; i < g->nr_devices; i++)
		if (kernel_has_device(g->devices[i]->name, &di) && di.queues_running && di.state != IOVM_DEV_ROUTED)
			return false;
	return true;
}

static const struct migrate_ops libvirt_ops = {
	.progress = progress, .cancelled = libvirt_cancelled, .may_switch = libvirt_may_switch,
};

/* Is the other host's device ready, and the guest known there? Nothing is begun. */
static bool fits_there(struct source *s, char *why, size_t n)
{
	char peer_why[WHY_MAX];
	struct json_node *o;
	struct msg m;

	phase(s, "the peer is asked");
	begin(&m, s, "prepare");
	json_bool(&m.j, "libvirt", true);
	o = ask(s, &m, peer_why, sizeof(peer_why));
	if (!o)
		snprintf(why, n, "'%s' cannot take it: %.400s", s->job->to->name, peer_why);
	json_free(o);
	return o;
}

static int by_libvirt(struct source *s)
{
	const struct config_guest *g = s->job->guest;
	bool settles = strcmp(s->job->what, "migrate");
	enum migrate_outcome outcome;
	char why[WHY_MAX] = "";

	if (!settles && !fits_there(s, why, sizeof(why)))
		return tell_outcome(s, MIGRATE_REFUSED, why);
	if (!settles)
		reserve_any_port(s);
	outcome = libvirt_out(g, s->job->to, settles, &libvirt_ops, s, why, sizeof(why));
	if (bandwidth_release(g))
		tell_bandwidth(s, "released", NULL);
	return tell_outcome(s, outcome, why);
}

int source_run(int sock, void *data)
{
	struct source s = { .job = data, .sock = sock };

	if (!kernel_in_child())
		return tell_outcome(&s, MIGRATE_REFUSED, "the kernel side cannot be reached");
	if (config_way(s.job->guest) == WAY_COMMAND)
		return by_command(&s);
	if (config_way(s.job->guest) == WAY_LIBVIRT)
		return by_libvirt(&s);
	return strcmp(s.job->what, "migrate") ? settle(&s) : migrate(&s);
}
