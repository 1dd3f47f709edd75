// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest: is it to be migrated, how far is that, and who wants to know. The migration itself is done by a worker (source.c); what it
 * asks of the peer goes through here.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"
#include "kept.h"

#define ASK_MS		120000		/* a QEMU is started meanwhile */
#define LEAVING		"leaving"	/* the mark of a guest that is being migrated: where to */

static const char *const state_names[] = { "idle", "waiting", "migrating", "migrated", "rolled-back", "lost", "unclear" };

static const char *const turn_names[] = { [TURN_WAITS] = "waits", [TURN_RUNS] = "moves", [TURN_OVER] = "over" };

struct guest *guests;

struct guest *guest_of(const struct config_guest *conf)
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
	policy_unwatch(l);
	check_unwatch(l);
	cert_unwatch(l);
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
	else
		policy_told(g);
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
	json_str(j, "kept", *conf->kept ? conf->kept : NULL);
	json_str(j, "state", state_names[g->state]);
	json_str(j, "why", *g->why ? g->why : NULL);
	json_str(j, "to", g->to && g->state != GUEST_IDLE ? g->to->name : NULL);
	json_str(j, "by", g->state == GUEST_IDLE ? NULL : g->by);
	if (g->state == GUEST_MIGRATING)
		json_u64(j, "for_ms", clock_ms() - g->begun_ms);
	/* of a migrate-command nothing is known */
	if (config_way(conf) != WAY_COMMAND)
		json_bool(j, "memory_encrypted", config_way(conf) == WAY_LIBVIRT ? conf->libvirt_tls : !agent.config->host.plain_tcp);
	json_str(j, "output", *g->output ? g->output : NULL);
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
	check_json(j, conf);
	if (g->drain) {
		json_str(j, "drain", turn_names[g->drain]);
		json_str(j, "drain_why", *g->drain_why ? g->drain_why : NULL);
	}
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
	g->ended_ms = clock_ms();
	snprintf(g->why, sizeof(g->why), "%s", why);
	note(g, state_names[state]);
	if (state == GUEST_MIGRATED) {
		info("guest '%s': migrated to '%s' in %llu ms", g->conf->name, g->to->name, (unsigned long long)(clock_ms() - g->begun_ms));
		g->pause_ms = 0;
		mark_clear(LEAVING, g->conf->name);
	} else {
		warning("guest '%s': not migrated to '%s' (%s): %s", g->conf->name, g->to->name, state_names[state], why);
		g->not_before_ms = clock_ms() + next_pause(&g->pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS);
		if (state != GUEST_UNCLEAR)
			mark_clear(LEAVING, g->conf->name);
	}
	tell_watchers(g, true);
	policy_ended(g);
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
	} else if (o && member_str(o, "output")) {
		info("guest '%s': its migrate-command: %s", g->conf->name, member_str(o, "output"));
		snprintf(g->output, sizeof(g->output), "%s", member_str(o, "output"));
		tell_watchers(g, false);
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
	policy_look_later(g, 0);
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
	g->output[0] = 0;
	g->nr_steps = 0;
	g->why[0] = 0;
	mark_set(LEAVING, g->conf->name, to->name);
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

/* --- begin --- */

/* A migration that was under way when the last iovmd was killed. */
static void take_up(struct guest *g)
{
	const struct config_peer *to;
	char name[IOVM_NAME_MAX];

	if (!mark_get(LEAVING, g->conf->name, name, sizeof(name)))
		return;
	to = config_peer(agent.config, name) ?: g->conf->destination;
	if (to)
		guest_settle(g->conf->name, to);
}

/* What was counted of other devices is not its devices'. */
static void take_devices(struct guest *g)
{
	const struct config_device *is[CONFIG_MAX_DEVICES] = { NULL };

	memcpy(is, g->conf->devices, sizeof(is[0]) * g->conf->nr_devices);
	if (memcmp(is, g->devices, sizeof(is)))
		memset(g->flaps, 0, sizeof(g->flaps));
	memcpy(g->devices, is, sizeof(is));
}

static void guest_free(struct guest *g)
{
	timer_clear(&g->look);
	line_close(g->line);
	free(g->progress);
	free(g);
}

const struct config_peer *guest_goes_to(const struct config_guest *conf)
{
	struct guest *g = guest_of(conf);

	return g && g->child ? g->to : NULL;
}

void guest_reload(void)
{
	const struct config_guest *conf;
	struct guest *g, *old = guests, **end = &guests;

	guests = NULL;
	for (conf = agent.config->guests; conf; conf = conf->next) {
		g = kept_take(old, next, conf, conf);
		*end = g;
		end = &g->next;
		g->drain_to = NULL;
		if (g->to)
			config_use_peer(g->to);
		if (!g->conf) {
			g->conf = conf;
			take_up(g);
		}
		take_devices(g);
	}
	/* one that is migrated is kept: see reload.c */
	while ((g = old)) {
		old = g->next;
		guest_free(g);
	}
	guest_look();
}
