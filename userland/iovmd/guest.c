// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest: is it to be migrated, how far is that, and who wants to know. The migration itself is done by a worker (source.c); what it
 * asks of the peer goes through here.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "iovmd.h"

#define FIRST_PAUSE_MS	10000
#define LAST_PAUSE_MS	600000
#define AT_ONCE		2		/* migrations */
#define ASK_MS		120000		/* a QEMU is started meanwhile */
#define LEAVING		"leaving"	/* the mark of a guest that is being migrated: where to */
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

static const char *const state_names[] = { "idle", "waiting", "migrating", "migrated", "rolled-back", "lost", "unclear" };

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
 * @steps: what has happened since it was begun, and when
 * @look: then is to be looked again
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
	struct {
		uint64_t ms;
		char what[64];
	} steps[NR_STEPS];
	unsigned int nr_steps;
	uint64_t begun_ms;
	sd_event_source *look;
	uint64_t pause_ms, not_before_ms;
	struct watcher *watchers;
	struct guest *next;
};

static struct guest *guests;

static struct guest *guest_of(const struct config_guest *conf)
{
	struct guest *g;

	for (g = guests; g && g->conf != conf; g = g->next)
		;
	return g;
}

static void note(struct guest *g, const char *what)
{
	if (g->nr_steps && !strcmp(g->steps[g->nr_steps - 1].what, what))
		return;
	info("guest '%s': %s", g->conf->name, what);
	if (g->nr_steps == NR_STEPS)
		memmove(&g->steps[0], &g->steps[1], sizeof(g->steps[0]) * --g->nr_steps);
	g->steps[g->nr_steps].ms = clock_ms();
	snprintf(g->steps[g->nr_steps++].what, sizeof(g->steps[0].what), "%s", what);
}

/* --- who wants to know --- */

void guest_watch(struct config_guest *conf, struct line *l, uint64_t id)
{
	struct guest *g = guest_of(conf);
	struct watcher *w = calloc(1, sizeof(*w));

	if (!g || !w) {
		free(w);
		return;
	}
	w->line = l;
	w->id = id;
	w->next = g->watchers;
	g->watchers = w;
}

void guest_unwatch(struct line *l)
{
	struct watcher **at, *w;
	struct guest *g;

	for (g = guests; g; g = g->next)
		for (at = &g->watchers; (w = *at);)
			if (w->line == l) {
				*at = w->next;
				free(w);
			} else {
				at = &w->next;
			}
	arrival_unwatch(l);
	epoch_unwatch(l);
	drain_unwatch(l);
}

/* end: it is the last that they hear. */
static void tell_watchers(struct guest *g, bool end)
{
	struct watcher *w, *next;
	struct msg m;

	for (w = g->watchers; w; w = next) {
		next = w->next;
		msg_begin(&m);
		json_u64(&m.j, "id", w->id);
		if (end)
			json_bool(&m.j, "ok", g->state == GUEST_MIGRATED);
		if (end && g->state != GUEST_MIGRATED)
			json_str(&m.j, "error", g->why);
		guest_json(&m.j, "guest", g->conf);
		msg_send(&m, w->line);
		if (end)
			free(w);
	}
	if (end)
		g->watchers = NULL;
}

void guest_json(struct json *j, const char *key, const struct config_guest *conf)
{
	struct guest *g = guest_of(conf);
	unsigned int i;

	json_open(j, key, '{');
	json_str(j, "name", conf->name);
	json_open(j, "devices", '[');
	for (i = 0; i < conf->nr_devices; i++)
		json_str(j, NULL, conf->devices[i]->name);
	json_close(j);
	json_str(j, "state", state_names[g->state]);
	json_str(j, "why", *g->why ? g->why : NULL);
	json_str(j, "to", g->to ? g->to->name : NULL);
	json_str(j, "by", g->state == GUEST_IDLE ? NULL : g->by);
	if (g->state == GUEST_MIGRATING)
		json_u64(j, "for_ms", clock_ms() - g->begun_ms);
	json_str(j, "bandwidth", *g->bandwidth ? g->bandwidth : NULL);
	if (g->progress)
		json_raw(j, "progress", g->progress);
	json_open(j, "steps", '[');
	for (i = 0; i < g->nr_steps; i++) {
		json_open(j, NULL, '{');
		json_u64(j, "mono_ms", g->steps[i].ms);
		json_str(j, "what", g->steps[i].what);
		json_close(j);
	}
	json_close(j);
	arrival_json(j, "arrival", conf);
	json_close(j);
}

/* --- the worker --- */

static const char *const outcomes[] = {
	[GUEST_MIGRATED] = "migrated", [GUEST_ROLLED_BACK] = "rolled-back", [GUEST_LOST] = "lost", [GUEST_UNCLEAR] = "unclear",
};

static void ended(struct guest *g, enum guest_state state, const char *why)
{
	g->state = state;
	snprintf(g->why, sizeof(g->why), "%s", why);
	note(g, state_names[state]);
	if (state == GUEST_MIGRATED) {
		info("guest '%s': migrated to '%s' in %llu ms", g->conf->name, g->to->name, (unsigned long long)(clock_ms() - g->begun_ms));
		g->pause_ms = 0;
		mark_clear(LEAVING, g->conf);
	} else {
		warning("guest '%s': not migrated to '%s' (%s): %s", g->conf->name, g->to->name, state_names[state], why);
		g->not_before_ms = clock_ms() + next_pause(&g->pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS);
		if (state != GUEST_UNCLEAR)
			mark_clear(LEAVING, g->conf);
	}
	tell_watchers(g, true);
}

/* What the worker asked of the peer is answered. */
static void on_answer(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct guest *g = data;
	struct msg m;

	(void)o;
	g->asked = 0;
	if (!g->line)
		return;
	msg_begin(&m);
	json_bool(&m.j, "ok", !why);
	if (why)
		json_str(&m.j, "error", why);
	else
		json_raw(&m.j, "answer", text);
	msg_send(&m, g->line);
}

/* Why nothing is reserved is news once, not with every guest and every try. */
static void take_bandwidth(struct guest *g, const struct json_node *o)
{
	static char told[WHY_MAX];
	const char *text = member_str(o, "bandwidth") ?: "";

	snprintf(g->bandwidth, sizeof(g->bandwidth), "%s", text);
	if (strcmp(member_str(o, "phase"), "no bandwidth reserved") || !strcmp(told, text))
		return;
	strcpy(told, g->bandwidth);
	info("no bandwidth is reserved for migrations: %s", text);
}

static void on_line(struct line *l, char *text, void *data)
{
	struct guest *g = data;
	char error[JSON_READ_ERROR];
	struct json_node *o;
	const char *outcome;
	size_t i;

	(void)l;
	if (!text) {
		g->line = NULL;
		peer_forget(g->asked);
		g->asked = 0;
		return;
	}
	o = json_read(text, strlen(text), error);
	outcome = member_str(o, "outcome");
	if (o && member_str(o, "op")) {
		g->asked = peer_ask(g->to, text, ASK_MS, on_answer, g);
	} else if (o && outcome) {
		for (i = 0; i < sizeof(outcomes) / sizeof(*outcomes); i++)
			if (outcomes[i] && !strcmp(outcomes[i], outcome))
				ended(g, (enum guest_state)i, member_str(o, "why") ?: "");
	} else if (o && member_str(o, "phase")) {
		note(g, member_str(o, "phase"));
		if (json_member(o, "bandwidth"))
			take_bandwidth(g, o);
		if (json_member(o, "total")) {
			free(g->progress);
			g->progress = strdup(text);
		}
		tell_watchers(g, false);
	}
	json_free(o);
}

static void look_later(void *data)
{
	struct guest *g = data;

	timer_clear(&g->look);
	guest_look();
}

static void worker_ended(struct child *c, int status, const char *output, void *data)
{
	struct guest *g = data;
	char why[WHY_MAX];

	(void)c;
	g->child = NULL;
	if (agent.ending)
		return;
	if (g->state == GUEST_MIGRATING) {
		child_reason(status, output, why);
		ended(g, GUEST_UNCLEAR, why);
	}
	timer_set(&g->look, 0, look_later, g);
}

static unsigned int nr_migrating(void)
{
	unsigned int n = 0;
	struct guest *g;

	for (g = guests; g; g = g->next)
		n += !!g->child;
	return n;
}

static bool start(struct guest *g, const struct config_peer *to, const char *by, const char *what, char why[WHY_MAX])
{
	struct source_job job = { .guest = g->conf, .to = to, .what = what };
	const char *peer_why;

	if (g->child) {
		snprintf(why, WHY_MAX, "guest '%s' is being migrated already", g->conf->name);
		return false;
	}
	if (!strcmp(what, "migrate") && !peer_is_up(to, &peer_why)) {
		snprintf(why, WHY_MAX, "peer '%s' is not connected: %s", to->name, peer_why);
		return false;
	}
	g->to = to;
	snprintf(g->by, sizeof(g->by), "%s", by);
	g->begun_ms = clock_ms();
	free(g->progress);
	g->progress = NULL;
	g->bandwidth[0] = 0;
	g->nr_steps = 0;
	g->why[0] = 0;
	mark_set(LEAVING, g->conf, to->name);
	g->child = child_worker(source_run, &job, -1, false, &g->line, on_line, worker_ended, g);
	if (!g->child) {
		snprintf(why, WHY_MAX, "no process could be started");
		return false;
	}
	g->state = GUEST_MIGRATING;
	timer_clear(&g->look);
	info("guest '%s': %s '%s', by %s", g->conf->name, !strcmp(what, "migrate") ? "is being migrated to" : "is looked after at", to->name, by);
	return true;
}

bool guest_migrate(struct config_guest *conf, struct config_peer *to, const char *by, char why[WHY_MAX])
{
	struct guest *g = guest_of(conf);
	unsigned int i;

	if (!to)
		to = conf->destination;
	if (!to) {
		snprintf(why, WHY_MAX, "guest '%s' has no destination: name a host, or set 'destination'", conf->name);
		return false;
	}
	for (i = 0; i < conf->nr_devices; i++) {
		const struct config_device *d = conf->devices[i];

		if (config_peer_of(d, to) < 0) {
			snprintf(why, WHY_MAX, "its device '%s' is not at '%s': see 'peers' in [device %s]", d->name, to->name, d->name);
			return false;
		}
	}
	return start(g, to, by, "migrate", why);
}

bool guest_is_migrating(const struct config_guest *conf)
{
	return guest_of(conf)->child;
}

void guest_settle(const char *name, const struct config_peer *at)
{
	struct config_guest *conf = config_guest(agent.config, name);
	struct guest *g = conf ? guest_of(conf) : NULL;
	char why[WHY_MAX];

	if (g && !g->child && !start(g, at, "iovmd", "settle", why))
		warning("guest '%s': %s", name, why);
}

bool guest_cancel(struct config_guest *conf, char why[WHY_MAX])
{
	struct guest *g = guest_of(conf);
	struct msg m;

	if (!g->child || !g->line) {
		snprintf(why, WHY_MAX, "guest '%s' is not being migrated", conf->name);
		return false;
	}
	msg_begin(&m);
	json_bool(&m.j, "cancel", true);
	msg_send(&m, g->line);
	return true;
}

/* --- is it to be migrated? --- */

/* For how long the disk of a device that is in use has been lost here, ms; 0 it is not. */
static uint64_t lost_for(const struct config_device *d, bool *here)
{
	struct iovm_dev_info di;
	struct iovm_path_info pi;

	if (!kernel_has_device(d->name, &di) || !di.queues_running)
		return 0;
	*here = true;
	if (!*d->disk || !kernel_has_path(d->name, "local", &pi) || pi.state != IOVM_PATH_FAILED)
		return 0;
	return pi.state_since_ms + 1;
}

static void wait_for(struct guest *g, const char *why, uint64_t ms)
{
	if (g->state != GUEST_WAITING || strcmp(g->why, why)) {
		info("guest '%s': waits: %s", g->conf->name, why);
		snprintf(g->why, sizeof(g->why), "%s", why);
	}
	g->state = GUEST_WAITING;
	if (ms)
		timer_set(&g->look, ms, look_later, g);
}

static void look_at(struct guest *g)
{
	const struct config_guest *conf = g->conf;
	uint64_t lost = 0, ms, now = clock_ms();
	char why[WHY_MAX], first[WHY_MAX] = "";
	bool here = false;
	unsigned int i;

	if (g->child)
		return;
	for (i = 0; i < conf->nr_devices; i++) {
		ms = lost_for(conf->devices[i], &here);
		if (ms > lost) {
			lost = ms;
			snprintf(first, sizeof(first), "'%s' has lost its disk", conf->devices[i]->name);
		}
	}
	if (g->state == GUEST_MIGRATED && here)
		g->state = GUEST_IDLE;
	if (g->state == GUEST_UNCLEAR || g->state == GUEST_LOST)
		return;
	if (conf->policy != POLICY_ON_FAILURE || !lost) {
		if (g->state == GUEST_WAITING)
			g->state = GUEST_IDLE;
		if (g->state == GUEST_IDLE)
			g->why[0] = 0;
		return;
	}
	if (lost < conf->settle_ms) {
		snprintf(why, sizeof(why), "%s, for not long enough yet ('settle')", first);
		wait_for(g, why, conf->settle_ms - lost + 1);
	} else if (now < g->not_before_ms) {
		timer_set(&g->look, g->not_before_ms - now + 1, look_later, g);
	} else if (nr_migrating() >= AT_ONCE) {
		snprintf(why, sizeof(why), "%s, and others are being migrated", first);
		wait_for(g, why, 0);
	} else if (!guest_migrate((struct config_guest *)(uintptr_t)conf, NULL, "policy", why)) {
		/* the peer's connection, when it is up, has us look again */
		wait_for(g, why, LAST_PAUSE_MS);
	}
}

void guest_look(void)
{
	struct guest *g;

	if (agent.ending)
		return;
	for (g = guests; g; g = g->next)
		look_at(g);
}

/* A migration that was under way when the last iovmd was killed. */
static void take_up(struct guest *g)
{
	const struct config_peer *to;
	char name[IOVM_NAME_MAX];

	if (!mark_get(LEAVING, g->conf, name, sizeof(name)))
		return;
	to = config_peer(agent.config, name) ?: g->conf->destination;
	if (to)
		guest_settle(g->conf->name, to);
}

void guest_start(void)
{
	const struct config_guest *conf;
	struct guest *g, **end = &guests;

	for (conf = agent.config->guests; conf; conf = conf->next) {
		g = calloc(1, sizeof(*g));
		if (!g)
			return;
		g->conf = conf;
		*end = g;
		end = &g->next;
		take_up(g);
	}
	guest_look();
}
