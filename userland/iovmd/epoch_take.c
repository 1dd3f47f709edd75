// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Taking an epoch: the peers are asked to give up what they hold, then told of the new one; and what it means when some cannot be asked. See
 * epoch.c, which says how it goes.
 *
 * A peer that cannot be asked may have it. It has not, if another one's kernel had it until just now, and gave it up; and it does not matter
 * once the host is fenced (fence_host.c). Else the guest waits: status says for whom, and the operator's 'iovmctl epoch take' settles
 * it. A peer that was not told hears of it when it is there again (epoch_peer_up()); until then nothing of an older writer is under way
 * there, for that writer has given up or, like that peer, is fenced.
 */
#include <stdlib.h>
#include <string.h>

#include "epoch.h"

#define GIVE_MS		60000
#define FIRST_PAUSE_MS	200
#define LAST_PAUSE_MS	30000
#define UNHEARD		65536	/* so many epochs a host that was fenced may have written down without telling anybody */

static void try_again(void *data)
{
	struct epoch *e = data;

	timer_clear(&e->pause);
	epoch_look();
}

static void tell_waiters(struct epoch *e, const char *why)
{
	struct waiter *w;
	struct msg m;

	while ((w = e->waiters)) {
		e->waiters = w->next;
		if (why) {
			answer_error(w->line, w->id, why);
		} else {
			answer_begin(&m, w->id);
			json_u64(&m.j, "epoch", e->known.epoch);
			msg_send(&m, w->line);
		}
		free(w);
	}
}

static void stop_asking(struct epoch *e)
{
	unsigned int i;

	for (i = 0; i < CONFIG_MAX_PEERS; i++) {
		peer_forget(e->asked[i].number);
		e->asked[i].number = 0;
	}
	e->waits = 0;
}

void epoch_failed(struct epoch *e, const char *why)
{
	stop_asking(e);
	if (strcmp(e->why, why))
		warning("device '%s': its epoch cannot be had: %s", e->d->name, why);
	snprintf(e->why, sizeof(e->why), "%s", why);
	e->phase = PHASE_IDLE;
	tell_waiters(e, why);
	timer_set(&e->pause, next_pause(&e->pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS), try_again, e);
}

void epoch_taken(struct epoch *e)
{
	unsigned int i;

	e->known = e->next;
	e->phase = PHASE_IDLE;
	e->why[0] = 0;
	e->pause_ms = 0;
	info("device '%s': epoch %llu is held here", e->d->name, (unsigned long long)e->known.epoch);
	tell_waiters(e, NULL);
	for (i = 0; i < e->d->nr_peers; i++)
		apply_connect(e->d, e->d->peers[i]);
}

/* Asks each peer; answer() comes once for each. */
static void ask_all(struct epoch *e, const char *op, uint64_t epoch, uint64_t limit_ms, reply_fn answer)
{
	char request[256];
	unsigned int i;

	if (epoch)
		snprintf(request, sizeof(request), "{\"op\":\"%s\",\"device\":\"%s\",\"epoch\":%llu}", op, e->d->name, (unsigned long long)epoch);
	else
		snprintf(request, sizeof(request), "{\"op\":\"%s\",\"device\":\"%s\"}", op, e->d->name);
	e->waits = e->d->nr_peers;
	e->nr_asked = e->d->nr_peers;
	for (i = 0; i < e->d->nr_peers && e->waits; i++) {
		e->asked[i].e = e;
		e->asked[i].p = e->d->peers[i];
		e->asked[i].number = peer_ask(e->d->peers[i], request, limit_ms, answer, &e->asked[i]);
	}
}

bool epoch_asks_others(const struct epoch *e)
{
	unsigned int i;

	if (e->phase != PHASE_ASKING && e->phase != PHASE_RAISING)
		return false;
	for (i = 0; i < e->nr_asked && i < e->d->nr_peers && e->asked[i].p == e->d->peers[i];)
		i++;
	return i < e->nr_asked || i < e->d->nr_peers;
}

/* May the epoch be used although that peer does not know of it? */
static bool need_not_hear(const struct epoch *e, const struct config_peer *p)
{
	return peer_is_gone(p) && (e->handed || fence_host_done(p));
}

static void on_raised(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct asked *a = data;
	struct epoch *e = a->e;
	char said[WHY_MAX + 128];

	(void)o;
	(void)text;
	a->number = 0;
	if (why)
		snprintf(said, sizeof(said), "'%s' was not told: %.500s", a->p->name, why);
	if (e->phase != PHASE_RAISING)
		return;
	if (why && !need_not_hear(e, a->p)) {
		epoch_failed(e, said);
	} else if (!--e->waits) {
		e->phase = PHASE_TAKING;
		if (!epoch_job(e, EPOCH_JOB_TAKE, &e->next, false))
			epoch_failed(e, "no process could be started");
	}
}

void epoch_raise(struct epoch *e)
{
	e->phase = PHASE_RAISING;
	ask_all(e, "epoch-raised", e->next.epoch, EPOCH_RAISE_MS, on_raised);
}

/* Those that could not be asked do not matter: true. Else the guest waits for the first that does, and is told so. */
static bool gone_settled(struct epoch *e)
{
	char why[WHY_MAX], said[WHY_MAX * 2];
	const struct config_peer *p;
	unsigned int i;

	for (i = 0; i < e->nr_asked && !e->handed; i++) {
		p = e->asked[i].p;
		if (!(e->gone & 1u << i))
			continue;
		if (!fence_host(p, why)) {
			if (*why)
				snprintf(said, sizeof(said), "'%s' may have it and cannot be asked: %.400s", p->name, why);
			else
				snprintf(said, sizeof(said), "%s", e->gone_why);
			epoch_failed(e, said);
			return false;
		}
		e->next.epoch += UNHEARD;
	}
	return true;
}

/* All have answered, as far as they can. */
static void store(struct epoch *e)
{
	if (!gone_settled(e))
		return;
	e->phase = PHASE_STORING;
	if (!epoch_job(e, EPOCH_JOB_STORE, &e->next, false))
		epoch_failed(e, "no process could be started");
}

static void on_given(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct asked *a = data;
	struct epoch *e = a->e;
	const struct config_peer *p = a->p;
	char said[WHY_MAX + 400];
	uint64_t epoch;

	(void)text;
	a->number = 0;
	if (e->phase != PHASE_ASKING)
		return;
	if (why) {
		snprintf(said, sizeof(said), "'%s' may have it: %.400s", p->name, why);
		if (!peer_is_gone(p)) {
			epoch_failed(e, said);
			return;
		}
		if (!e->gone)
			snprintf(e->gone_why, sizeof(e->gone_why), "%.*s", WHY_MAX - 1, said);
		e->gone |= 1u << (a - e->asked);
	} else {
		epoch = member_u64(o, "epoch");
		if (epoch >= e->next.epoch)
			e->next.epoch = epoch + 1;
		e->handed |= member_bool(o, "held");
	}
	if (!--e->waits)
		store(e);
}

void epoch_take(struct epoch *e)
{
	if (e->phase != PHASE_IDLE || e->worker || e->pause)
		return;
	e->phase = PHASE_ASKING;
	e->gone = 0;
	e->handed = false;
	e->next.epoch = e->known.epoch + 1;
	snprintf(e->next.holder, sizeof(e->next.holder), "%s", agent.config->host.name);
	ask_all(e, "epoch-give", 0, GIVE_MS, on_given);
}
