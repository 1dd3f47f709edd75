// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hosts that cannot be asked: a guest waits here for its epoch, and a peer that may have it does not answer. Whether that peer is
 * dead nobody can tell from here; its "fence-command" makes sure. It is run when the peer could not be asked for "fence-after",
 * and each time anew when it failed. A peer counts as fenced until it is connected again: once it was off it writes only with an
 * epoch that it has asked for.
 *
 * A connection that the peer has made to us shows that it lives as well as one of ours to it does: then nothing is fenced.
 *
 * That a peer is fenced is remembered for the next iovmd (a mark: "fenced"). While no iovmd runs here nobody sees that the peer is
 * back, and by the operator's word it may take an epoch then: so the mark is kept fresh, and one that is older than MARK_OLD_S is
 * not believed. Nor is any after this host was started anew: its peers may have fenced it, and gone on.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "iovmd.h"
#include "kept.h"

#define LAST_TRY_MS	10000	/* so long before the command it is connected once more */
#define COMMAND_MS	120000	/* so long the command may take */
#define AGAIN_MS	30000	/* after so long a command that failed is run again */
#define MARK		"fenced"	/* its text: when, in seconds since 1970 */
#define MARK_FRESH_MS	60000
#define MARK_OLD_S	600
#define LAPSE_MS	120000	/* who waits asks more often than that: see LAST_PAUSE_MS in epoch_take.c */

/**
 * struct fence - of a peer
 * @fenced: it was, and was not connected since
 * @at: then it was, in seconds since 1970
 * @fresh: then the mark is refreshed
 * @since_ms: it is wanted since then; 0 it is not
 * @asked_ms: somebody wanted it then, for the last time
 * @child: the command
 * @timer: for what comes next: it is connected once more, the command is run, the command is ended
 * @tried: it has been connected once more
 * @late: the command was ended for the time that it took
 * @stale: it was connected while the command ran, and that may have been before it took effect
 * @failed_ms: then the command had failed; 0 it has not
 * @why: as it was answered
 */
struct fence {
	const struct config_peer *conf;
	bool fenced, tried, late, stale;
	int64_t at;
	sd_event_source *fresh;
	uint64_t since_ms, asked_ms, failed_ms;
	struct child *child;
	sd_event_source *timer;
	char why[WHY_MAX];
	struct fence *next;
};

static struct fence *fences;

static struct fence *fence_of(const struct config_peer *conf)
{
	struct fence *f;

	for (f = fences; f && f->conf != conf; f = f->next)
		;
	return f;
}

/* --- the mark --- */

static void refresh(void *data)
{
	struct fence *f = data;

	timer_clear(&f->fresh);
	mark_refresh(MARK, f->conf->name);
	timer_set(&f->fresh, MARK_FRESH_MS, refresh, f);
}

static void fenced_now(struct fence *f)
{
	char text[32];

	f->fenced = true;
	f->at = time(NULL);
	snprintf(text, sizeof(text), "%" PRId64, f->at);
	mark_set(MARK, f->conf->name, text);
	timer_set(&f->fresh, MARK_FRESH_MS, refresh, f);
}

static void not_fenced(struct fence *f)
{
	f->fenced = false;
	timer_clear(&f->fresh);
	mark_clear(MARK, f->conf->name);
}

/* What the last iovmd knew */
static void recall(struct fence *f)
{
	int64_t age = mark_age_s(MARK, f->conf->name);
	char text[32];

	if (!mark_get(MARK, f->conf->name, text, sizeof(text)))
		return;
	if (age < 0 || age > MARK_OLD_S) {
		info("peer '%s': it was fenced, but no iovmd has looked for it for too long: it does not count as fenced", f->conf->name);
		not_fenced(f);
		return;
	}
	f->fenced = true;
	f->at = strtoll(text, NULL, 10);
	info("peer '%s': it was fenced before this iovmd was started, and counts as fenced until it is connected", f->conf->name);
	refresh(f);
}

/* --- the command --- */

static void too_long(void *data)
{
	struct fence *f = data;

	timer_clear(&f->timer);
	f->late = true;
	child_kill(f->child, SIGKILL);
}

static void on_end(struct child *c, int status, const char *output, void *data)
{
	struct fence *f = data;
	char why[WHY_MAX];

	(void)c;
	f->child = NULL;
	timer_clear(&f->timer);
	if (f->stale) {
		info("peer '%s': it was connected while its fence-command ran: it does not count as fenced", f->conf->name);
	} else if (!status) {
		fenced_now(f);
		f->failed_ms = 0;
		f->why[0] = 0;
		info("peer '%s': its fence-command has succeeded: it counts as fenced until it is connected", f->conf->name);
	} else {
		if (f->late)
			snprintf(why, sizeof(why), "it took longer than %d s", COMMAND_MS / 1000);
		else
			child_reason(status, output, why);
		f->failed_ms = clock_ms();
		snprintf(f->why, sizeof(f->why), "its fence-command failed: %.400s", why);
		warning("peer '%s': %s", f->conf->name, f->why);
	}
	epoch_again();
}

static void run(struct fence *f)
{
	char name[sizeof("IOVM_PEER=") + IOVM_NAME_MAX], address[sizeof("IOVM_PEER_ADDRESS=") + CONFIG_HOST_MAX];
	const char *const argv[] = { "env", name, address, "/bin/sh", "-c", f->conf->fence_command, NULL };

	timer_clear(&f->timer);
	snprintf(name, sizeof(name), "IOVM_PEER=%s", f->conf->name);
	snprintf(address, sizeof(address), "IOVM_PEER_ADDRESS=%s", f->conf->address);
	warning("peer '%s' could not be asked for %llu s while a guest waits for its epoch here: its fence-command is run", f->conf->name,
		(unsigned long long)(clock_ms() - f->since_ms) / 1000);
	f->late = false;
	f->stale = false;
	f->child = child_program(argv, true, on_end, f);
	if (f->child) {
		timer_set(&f->timer, COMMAND_MS, too_long, f);
		snprintf(f->why, sizeof(f->why), "its fence-command runs");
	} else {
		f->failed_ms = clock_ms();
		snprintf(f->why, sizeof(f->why), "its fence-command could not be started");
	}
}

static void on_time(void *data);

/* What is next, and when. */
static void go_on(struct fence *f)
{
	uint64_t now = clock_ms(), due = f->since_ms + f->conf->fence_after_ms;

	if (f->failed_ms && f->failed_ms + AGAIN_MS > due)
		due = f->failed_ms + AGAIN_MS;
	if (now >= due) {
		run(f);
		return;
	}
	if (!f->tried && due > now + LAST_TRY_MS)
		due -= LAST_TRY_MS;
	if (!f->timer)
		timer_set(&f->timer, due - now, on_time, f);
	if (!f->failed_ms)
		snprintf(f->why, sizeof(f->why), "its fence-command is run when that lasts longer than %llu s",
			 (unsigned long long)f->conf->fence_after_ms / 1000);
}

/* Whoever waits asks again, and then the command is run; nobody does when nobody waits any more. */
static void on_time(void *data)
{
	struct fence *f = data;

	timer_clear(&f->timer);
	if (!f->tried) {
		/* it may be there, and the next attempt to connect it be far off */
		f->tried = true;
		peer_again(f->conf);
	}
	epoch_again();
}

bool fence_host(const struct config_peer *conf, char why[WHY_MAX])
{
	struct fence *f = fence_of(conf);
	uint64_t now = clock_ms();

	if (f && f->fenced)
		return true;
	if (!f || !*conf->fence_command) {
		*why = 0;
		return false;
	}
	if (!f->since_ms || now > f->asked_ms + LAPSE_MS) {
		f->since_ms = now;
		f->failed_ms = 0;
		f->tried = f->conf->fence_after_ms <= LAST_TRY_MS;
	}
	f->asked_ms = now;
	if (!f->child)
		go_on(f);
	snprintf(why, WHY_MAX, "%s", f->why);
	return false;
}

bool fence_host_done(const struct config_peer *conf)
{
	struct fence *f = fence_of(conf);

	return f && f->fenced;
}

void fence_host_up(const struct config_peer *conf)
{
	struct fence *f = fence_of(conf);

	if (!f)
		return;
	if (f->child)
		f->stale = true;
	else
		timer_clear(&f->timer);
	if (f->fenced) {
		info("peer '%s': it is there again, and does not count as fenced any more", conf->name);
		not_fenced(f);
	}
	f->since_ms = 0;
}

void fence_host_json(struct json *j, const struct config_peer *conf)
{
	struct fence *f = fence_of(conf);

	json_bool(j, "fenced", f && f->fenced);
	if (f && f->fenced)
		json_u64(j, "fenced_at", (uint64_t)f->at);
	else
		json_null(j, "fenced_at");
}

void fence_host_reload(void)
{
	struct fence *f, *old = fences, **end = &fences;
	const struct config_peer *conf;

	fences = NULL;
	for (conf = agent.config->peers; conf; conf = conf->next) {
		f = kept_take(old, next, conf, conf);
		if (!f->conf) {
			f->conf = conf;
			recall(f);
		}
		*end = f;
		end = &f->next;
	}
	while ((f = old)) {
		old = f->next;
		/* a command that runs goes on, and nobody asks what came of it */
		child_forget(f->child);
		timer_clear(&f->timer);
		/* nobody sees any more that it is back */
		not_fenced(f);
		free(f);
	}
}
