// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Epochs: who may write a device's data. Whoever holds the epoch of a device may; the kernel issues nothing without, and the targets of
 * the other hosts admit nobody else. An epoch follows the queues of a guest, not a migration: whoever's queues start takes it, whoever
 * started the guest.
 *
 * To take one: every peer of the device is asked to give up what it holds ("epoch-give"), which the kernel there grants once its own
 * queues have stopped and nothing that it sent can land any more. The new epoch, one more than all have known, is written to stable
 * storage here, then told to every peer ("epoch-raised"), which writes it down too and ends the sessions of older ones. Only then
 * is it used.
 *
 * What may wait, for the disk or for what is in flight, is done by workers.
 */
#include <stdlib.h>
#include <string.h>

#include "epoch.h"
#include "kept.h"

static struct epoch *epochs;

static struct epoch *epoch_of(const struct config_device *d)
{
	struct epoch *e;

	for (e = epochs; e && e->d != d; e = e->link)
		;
	return e;
}

static const char *self(void)
{
	return agent.config->host.name;
}

static bool mine(const struct epoch_record *r)
{
	return !strcmp(r->holder, self());
}

bool epoch_needed(const struct config_device *d)
{
	return d->nr_peers && *d->disk;
}

static void on_result(struct line *l, char *text, void *data);
static void on_worker_end(struct child *c, int status, const char *output, void *data);

bool epoch_job(struct epoch *e, int what, const struct epoch_record *r, bool holds)
{
	e->job.what = what;
	e->job.d = e->d;
	e->job.record = *r;
	e->job.holds = holds;
	e->worker = child_worker(epoch_work, &e->job, -1, true, &e->line, on_result, on_worker_end, e);
	return e->worker;
}

/* --- peers hear of it --- */

static void on_told(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct asked *a = data;

	(void)o;
	(void)text;
	a->number = 0;
	if (!why)
		apply_connect(a->e->d, a->p);
	else
		warning("device '%s': '%s' does not accept that its epoch is held here: %s", a->e->d->name, a->p->name, why);
}

/* It hears that the epoch is held here, if it is. */
static void tell(struct epoch *e, const struct config_peer *p)
{
	int i = config_peer_of(e->d, p);
	struct iovm_dev_info di;
	char request[256];

	if (i < 0 || !mine(&e->known) || !kernel_has_device(e->d->name, &di) || !di.epoch_held)
		return;
	peer_forget(e->told[i].number);
	e->told[i].e = e;
	e->told[i].p = p;
	snprintf(request, sizeof(request), "{\"op\":\"epoch-raised\",\"device\":\"%s\",\"epoch\":%llu}", e->d->name,
		 (unsigned long long)di.epoch);
	e->told[i].number = peer_ask(p, request, EPOCH_RAISE_MS, on_told, &e->told[i]);
}

/* Nobody was asked for it: those who are there hear of it now, the others when they are (epoch_peer_up()). */
static void adopted(struct epoch *e)
{
	unsigned int i;

	e->known = e->job.record;
	for (i = 0; i < e->d->nr_peers; i++)
		if (peer_is_up(e->d->peers[i], NULL))
			tell(e, e->d->peers[i]);
}

/* --- what the worker has done --- */

static void gave(struct epoch *e, const char *error)
{
	struct msg m;

	if (!error)
		e->known = e->job.record;
	if (!error && e->job.what == EPOCH_JOB_GIVE)
		info("device '%s': epoch %llu was given up, for '%s'", e->d->name, (unsigned long long)e->known.epoch, e->known.holder);
	if (e->giver && error) {
		answer_error(e->giver, e->giver_id, error);
	} else if (e->giver) {
		answer_begin(&m, e->giver_id);
		json_u64(&m.j, "epoch", e->known.epoch);
		if (e->job.what == EPOCH_JOB_GIVE)
			json_bool(&m.j, "held", e->job.holds);
		msg_send(&m, e->giver);
	}
	e->giver = NULL;
}

static void result(struct epoch *e, const char *error)
{
	if (e->job.what == EPOCH_JOB_GIVE || e->job.what == EPOCH_JOB_RAISE) {
		gave(e, error);
	} else if (error) {
		epoch_failed(e, error);
	} else if (e->phase == PHASE_STORING) {
		/* known to this host from here on, whatever becomes of it */
		e->known.epoch = e->next.epoch;
		epoch_raise(e);
	} else if (e->phase == PHASE_TAKING) {
		epoch_taken(e);
	} else {
		adopted(e);
	}
}

static void on_result(struct line *l, char *text, void *data)
{
	struct epoch *e = data;
	char error[JSON_READ_ERROR];
	struct json_node *o;

	if (!text) {
		e->line = NULL;
		return;
	}
	o = json_read(text, strlen(text), error);
	/* the next step may be another worker's */
	line_close(l);
	e->line = NULL;
	child_forget(e->worker);
	e->worker = NULL;
	result(e, member_bool(o, "ok") ? NULL : member_str(o, "error") ?: "its worker said nothing");
	json_free(o);
}

static void on_worker_end(struct child *c, int status, const char *output, void *data)
{
	struct epoch *e = data;
	char why[WHY_MAX];

	(void)c;
	child_reason(status, output, why);
	e->worker = NULL;
	result(e, why);
}

/* What has failed may be tried again at once. */
static void end_pause(struct epoch *e)
{
	timer_clear(&e->pause);
	e->pause_ms = 0;
}

/* --- what is asked of us --- */

void epoch_unwatch(struct line *l)
{
	struct waiter **at, *w;
	struct epoch *e;

	for (e = epochs; e; e = e->link) {
		if (e->giver == l)
			e->giver = NULL;
		for (at = &e->waiters; (w = *at);)
			if (w->line == l) {
				*at = w->next;
				free(w);
			} else {
				at = &w->next;
			}
	}
}

/* "epoch-give": 0, or why not. */
static bool give(struct epoch *e, const struct config_peer *from, char why[WHY_MAX])
{
	struct iovm_dev_info di;
	struct epoch_record r = e->known;
	bool holds = kernel_has_device(e->d->name, &di) && di.epoch_held;

	if (holds && di.queues_running) {
		snprintf(why, WHY_MAX, "a guest runs on it on '%s'", self());
		return false;
	}
	if (holds)
		r.epoch = di.epoch;
	if (holds || mine(&r))
		snprintf(r.holder, sizeof(r.holder), "%s", from->name);
	if (!epoch_job(e, EPOCH_JOB_GIVE, &r, holds))
		return false;
	doubt_look();
	return true;
}

bool epoch_giving(const struct config_device *d)
{
	struct epoch *e = epoch_of(d);

	return e && e->worker && e->job.what == EPOCH_JOB_GIVE && e->job.holds;
}

/* "epoch-raised" */
static bool raise_to(struct epoch *e, const struct config_peer *from, uint64_t epoch, char why[WHY_MAX])
{
	struct iovm_dev_info di;
	struct epoch_record r = { .epoch = epoch };

	if (kernel_has_device(e->d->name, &di) && di.epoch_held) {
		snprintf(why, WHY_MAX, "'%s' holds epoch %llu of it", self(), (unsigned long long)di.epoch);
		return false;
	}
	if (epoch < e->known.epoch || (epoch == e->known.epoch && *e->known.holder && strcmp(e->known.holder, from->name))) {
		snprintf(why, WHY_MAX, "'%s' knows of epoch %llu, held by '%s'", self(), (unsigned long long)e->known.epoch,
			 *e->known.holder ? e->known.holder : "nobody");
		return false;
	}
	snprintf(r.holder, sizeof(r.holder), "%s", from->name);
	return epoch_job(e, EPOCH_JOB_RAISE, &r, false);
}

void epoch_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o)
{
	const char *name = member_str(o, "device");
	const struct config_device *d = name ? config_device(agent.config, name) : NULL;
	struct epoch *e = d ? epoch_of(d) : NULL;
	char why[WHY_MAX] = "no process could be started";
	bool is_give = !strcmp(member_str(o, "op"), "epoch-give"), good;

	if (!e || config_peer_of(d, from) < 0) {
		snprintf(why, sizeof(why), "there is no [device %s] with '%s' among its peers on '%s'", name ?: "?", from->name, self());
		answer_error(l, id, why);
		return;
	}
	/* both want it: one has to give way */
	if (e->phase != PHASE_IDLE && !e->worker && strcmp(self(), from->name) > 0)
		epoch_failed(e, "another host takes it");
	if (e->phase != PHASE_IDLE || e->worker) {
		answer_error(l, id, "it is being taken or given up at the moment");
		return;
	}
	good = is_give ? give(e, from, why) : raise_to(e, from, member_u64(o, "epoch"), why);
	if (good) {
		e->giver = l;
		e->giver_id = id;
	} else {
		answer_error(l, id, why);
	}
}

/* "epoch-ready": the guest is about to come: its devices' epochs are taken before its queues start. */
void epoch_ready(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o)
{
	const char *name = member_str(o, "guest"), *device = member_str(o, "device");
	struct config_guest *g = name ? config_guest(agent.config, name) : NULL;
	struct iovm_dev_info di;
	struct epoch *e = NULL;
	struct waiter *w;
	unsigned int i;
	struct msg m;

	for (i = 0; g && device && i < g->nr_devices; i++)
		if (!strcmp(g->devices[i]->name, device))
			e = epoch_of(g->devices[i]);
	if (!e || config_peer_of(e->d, from) < 0) {
		answer_error(l, id, "there is no such guest and device, shared with you, here");
		return;
	}
	if (kernel_has_device(e->d->name, &di) && di.epoch_held) {
		answer_begin(&m, id);
		json_u64(&m.j, "epoch", di.epoch);
		msg_send(&m, l);
		return;
	}
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	w->line = l;
	w->id = id;
	w->next = e->waiters;
	e->waiters = w;
	end_pause(e);
	epoch_take(e);
}

uint64_t epoch_for_peer(const struct config_device *d, const struct config_peer *p)
{
	struct epoch *e = epoch_of(d);

	return e && !strcmp(e->known.holder, p->name) ? e->known.epoch : 0;
}

bool epoch_held(const struct config_device *d)
{
	struct iovm_dev_info di;

	return !epoch_needed(d) || (kernel_has_device(d->name, &di) && di.epoch_held);
}

void epoch_json(struct json *j, const struct config_device *d)
{
	struct epoch *e = epoch_of(d);

	if (!e)
		return;
	json_u64(j, "epoch", e->known.epoch);
	json_str(j, "epoch_holder", *e->known.holder ? e->known.holder : NULL);
	json_str(j, "epoch_why", *e->why ? e->why : NULL);
}

/* --- looking --- */

/* A peer that was not there when the epoch was taken, or was started anew. */
void epoch_peer_up(const struct config_peer *p)
{
	struct epoch *e;

	for (e = epochs; e; e = e->link) {
		if (config_peer_of(e->d, p) < 0)
			continue;
		end_pause(e);
		tell(e, p);
	}
	epoch_look();
}

static void look_at(struct epoch *e)
{
	char export[IOVM_NAME_MAX];
	struct iovm_dev_info di;
	struct epoch_record r;

	if (e->phase != PHASE_IDLE || e->worker || !kernel_has_device(e->d->name, &di))
		return;
	if (di.epoch_held && (di.epoch != e->known.epoch || !mine(&e->known))) {
		/* the operator took it, or what was on disk is lost */
		r.epoch = di.epoch;
		snprintf(r.holder, sizeof(r.holder), "%s", self());
		info("device '%s': epoch %llu is held here, as the kernel says", e->d->name, (unsigned long long)di.epoch);
		epoch_job(e, EPOCH_JOB_STORE, &r, false);
	} else if (!di.epoch_held && (di.queues_running || e->waiters)) {
		epoch_take(e);
	} else if (!di.epoch_held && *e->known.holder && !mine(&e->known)) {
		/* an export that was made after its epoch was known */
		export_name(e->d, export);
		if (kernel_has_device(export, &di) && di.flags & IOVM_DEV_F_EPOCH && di.epoch < e->known.epoch)
			epoch_job(e, EPOCH_JOB_RAISE, &e->known, false);
	}
}

void epoch_again(void)
{
	struct epoch *e;

	for (e = epochs; e; e = e->link)
		end_pause(e);
	epoch_look();
}

void epoch_look(void)
{
	struct epoch *e;

	if (agent.ending)
		return;
	for (e = epochs; e; e = e->link)
		look_at(e);
}

/* --- the configuration --- */

static bool epoch_is_busy(const struct epoch *e)
{
	return e->worker || e->phase != PHASE_IDLE || e->waiters;
}

bool epoch_busy(const struct config_device *d)
{
	struct epoch *e = epoch_of(d);

	return e && epoch_is_busy(e);
}

static void forget_told(struct epoch *e)
{
	unsigned int i;

	for (i = 0; i < CONFIG_MAX_PEERS; i++) {
		peer_forget(e->told[i].number);
		e->told[i].number = 0;
	}
}

/* Its peers may be others: those that are new and are there hear of it, and nobody else is waited for. */
static void look_at_peers(struct epoch *e)
{
	const struct config_peer *had[CONFIG_MAX_PEERS];
	unsigned int nr = e->nr_peers, i, k;

	if (nr == e->d->nr_peers && !memcmp(e->peers, e->d->peers, sizeof(e->peers[0]) * nr))
		return;
	memcpy(had, e->peers, sizeof(had));
	e->nr_peers = e->d->nr_peers;
	memcpy(e->peers, e->d->peers, sizeof(e->peers));
	forget_told(e);
	if (epoch_asks_others(e))
		epoch_failed(e, "its peers are others now");
	for (i = 0; i < e->nr_peers; i++) {
		for (k = 0; k < nr && had[k] != e->peers[i];)
			k++;
		if (k == nr && peer_is_up(e->peers[i], NULL)) {
			end_pause(e);
			tell(e, e->peers[i]);
		}
	}
}

/* An epoch for each device that needs one; what is left of others stays until nothing of it is under way. */
static void take_config(void)
{
	struct epoch *e, *old = epochs, **at, **end = &epochs;
	const struct config_device *d;

	epochs = NULL;
	for (d = agent.config->devices; d; d = d->next) {
		if (!epoch_needed(d))
			continue;
		e = kept_take(old, link, d, d);
		if (!e->d) {
			e->d = d;
			epoch_load(d, &e->known);
		}
		*end = e;
		end = &e->link;
	}
	for (at = &old; (e = *at);) {
		if (epoch_is_busy(e)) {
			config_use_device(e->d);
			at = &e->link;
			continue;
		}
		*at = e->link;
		forget_told(e);
		timer_clear(&e->pause);
		free(e);
	}
	*end = old;
}

void epoch_reload(void)
{
	struct epoch *e;

	take_config();
	for (e = epochs; e; e = e->link)
		look_at_peers(e);
	epoch_look();
}

int epoch_start(char why[WHY_MAX])
{
	struct epoch *e;

	if (epoch_dir(why))
		return -1;
	take_config();
	for (e = epochs; e; e = e->link) {
		e->nr_peers = e->d->nr_peers;
		memcpy(e->peers, e->d->peers, sizeof(e->peers));
	}
	return 0;
}
