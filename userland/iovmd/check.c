// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is a guest ready to be rerouted and migrated? Now and then, and when iovmctl asks, each guest that runs here is looked at: by a worker,
 * which asks its QEMU, and then by the peer that it would go to. What changes goes to the log as "ready=no, because ...".
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kept.h"
#include "../iovmctl/iovmctl.h"

#define FIRST_MS	10000	/* after the start */
#define PEER_MS		10000

/* Somebody who waits for the result */
struct waiter {
	struct line *line;
	uint64_t id;
	struct waiter *next;
};

/**
 * struct check - of a guest
 * @state: what came of the last one
 * @at_ms: when that was, clock_ms()
 * @last: what it found; @now: what the one under way has found so far
 * @why: the bad ones in one sentence, as it was logged
 * @child: the worker of one under way
 * @asked: the number of what the peer was asked; 0 nothing
 * @peer: which
 */
struct check {
	const struct config_guest *conf;
	enum { CHECK_NONE, CHECK_READY, CHECK_NOT_READY } state;
	uint64_t at_ms;
	struct findings last, now;
	char why[WHY_MAX];
	struct child *child;
	struct line *line;
	uint64_t asked;
	char peer[IOVM_NAME_MAX];
	struct waiter *waiters;
	struct check *next;
};

static struct check *checks;
static sd_event_source *timer;

static struct check *check_of(const struct config_guest *conf)
{
	struct check *c;

	for (c = checks; c && c->conf != conf; c = c->next)
		;
	return c;
}

void check_json(struct json *j, const struct config_guest *conf)
{
	const struct check *c = check_of(conf);

	if (!c || c->state == CHECK_NONE) {
		json_null(j, "ready");
		return;
	}
	json_bool(j, "ready", c->state == CHECK_READY);
	json_u64(j, "checked_ms_ago", clock_ms() - c->at_ms);
	findings_json(j, "findings", &c->last);
}

int check_is_ready(const struct config_guest *conf)
{
	const struct check *c = check_of(conf);

	return !c || c->state == CHECK_NONE ? -1 : c->state == CHECK_READY;
}

static void answer(struct check *c, const char *error)
{
	struct waiter *w;
	struct msg m;

	while ((w = c->waiters)) {
		c->waiters = w->next;
		if (error) {
			answer_error(w->line, w->id, error);
		} else {
			answer_begin(&m, w->id);
			guest_json(&m.j, "guest", c->conf);
			msg_send(&m, w->line);
		}
		free(w);
	}
}

static void done(struct check *c)
{
	int state = CHECK_READY;
	char why[WHY_MAX] = "";
	unsigned int i;
	size_t n;

	for (i = 0; i < c->now.nr; i++) {
		if (c->now.f[i].level != FINDING_BAD)
			continue;
		state = CHECK_NOT_READY;
		n = strlen(why);
		snprintf(why + n, sizeof(why) - n, "%s%s", n ? "; " : "", c->now.f[i].text);
	}
	if (state != (int)c->state || strcmp(why, c->why)) {
		if (state == CHECK_READY)
			info("guest '%s': ready=yes", c->conf->name);
		else
			warning("guest '%s': ready=no, because %s", c->conf->name, why);
	}
	c->state = state;
	c->at_ms = clock_ms();
	c->last = c->now;
	strcpy(c->why, why);
	answer(c, NULL);
}

static void on_peer(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct check *c = data;

	(void)text;
	c->asked = 0;
	if (why)
		found(&c->now, FINDING_BAD, "peer", "'%.63s' says: %.130s", c->peer, why);
	else
		findings_take(&c->now, json_member(o, "findings"));
	done(c);
}

static void ask_peer(struct check *c, const struct json_node *needs)
{
	const struct config_peer *to = c->conf->destination;
	const char *why;
	struct msg m;
	char *text;
	size_t n;

	if (!to)
		found(&c->now, FINDING_BAD, "peer", "it has no 'destination'");
	else if (!peer_is_up(to, &why))
		found(&c->now, FINDING_BAD, "peer", "'%s' is not connected: %.120s", to->name, why);
	if (!to || !peer_is_up(to, NULL)) {
		done(c);
		return;
	}
	msg_begin(&m);
	json_str(&m.j, "op", "ready");
	json_str(&m.j, "guest", c->conf->name);
	json_str(&m.j, "release", IOVM_RELEASE);
	json_str(&m.j, "kernel_release", mux_version.release);
	json_u64(&m.j, "memory", member_u64(needs, "memory"));
	json_str(&m.j, "cpu", member_str(needs, "cpu"));
	json_str(&m.j, "flags", member_str(needs, "flags"));
	text = msg_end(&m, &n);
	text[n - 1] = 0;
	strcpy(c->peer, to->name);
	c->asked = peer_ask(to, text, PEER_MS, on_peer, c);
	free(text);
}

static void on_line(struct line *l, char *text, void *data)
{
	struct check *c = data;
	char error[JSON_READ_ERROR];
	struct json_node *o;

	if (!text) {
		c->line = NULL;
		return;
	}
	o = json_read(text, strlen(text), error);
	line_close(l);
	c->line = NULL;
	child_forget(c->child);
	c->child = NULL;
	if (o)
		findings_take(&c->now, json_member(o, "findings"));
	ask_peer(c, o);
	json_free(o);
}

static void on_end(struct child *child, int status, const char *output, void *data)
{
	struct check *c = data;
	char why[WHY_MAX];

	(void)child;
	child_reason(status, output, why);
	c->child = NULL;
	answer(c, why);
}

/* In a child. */
static int look(int sock, void *data)
{
	static struct findings fs;
	static struct check_needs needs;
	struct msg m;

	if (!kernel_in_child())
		return 1;
	check_here(data, &fs, &needs);
	msg_begin(&m);
	findings_json(&m.j, "findings", &fs);
	json_u64(&m.j, "memory", needs.memory);
	json_str(&m.j, "cpu", needs.cpu);
	json_str(&m.j, "flags", needs.flags);
	return !msg_write(&m, sock);
}

static bool begin(struct check *c, char why[WHY_MAX])
{
	if (c->child || c->asked)
		return true;
	if (guest_is_migrating(c->conf)) {
		snprintf(why, WHY_MAX, "guest '%s' is being migrated", c->conf->name);
		return false;
	}
	c->now.nr = 0;
	c->child = child_worker(look, (void *)(uintptr_t)c->conf, -1, true, &c->line, on_line, on_end, c);
	if (!c->child)
		snprintf(why, WHY_MAX, "no process could be started");
	return c->child;
}

bool check_guest(const struct config_guest *conf, struct line *l, uint64_t id, char why[WHY_MAX])
{
	struct check *c = check_of(conf);
	struct waiter *w;

	if (!guest_is_here(conf)) {
		snprintf(why, WHY_MAX, "guest '%s' does not run here", conf->name);
		return false;
	}
	if (!begin(c, why))
		return false;
	w = calloc(1, sizeof(*w));
	if (!w)
		abort();
	w->line = l;
	w->id = id;
	w->next = c->waiters;
	c->waiters = w;
	return true;
}

void check_unwatch(struct line *l)
{
	struct waiter **at, *w;
	struct check *c;

	for (c = checks; c; c = c->next)
		for (at = &c->waiters; (w = *at);)
			if (w->line == l) {
				*at = w->next;
				free(w);
			} else {
				at = &w->next;
			}
}

static void look_at_all(void *data)
{
	char why[WHY_MAX];
	struct check *c;

	(void)data;
	for (c = checks; c; c = c->next) {
		if (guest_is_here(c->conf))
			begin(c, why);
		else
			c->state = CHECK_NONE;
	}
	timer_set(&timer, agent.config->host.check_interval_ms, look_at_all, NULL);
}

/* What is under way for a guest that is not configured any more ends. */
static void check_free(struct check *c)
{
	if (c->line)
		line_close(c->line);
	if (c->child) {
		child_kill(c->child, SIGKILL);
		child_forget(c->child);
	}
	peer_forget(c->asked);
	answer(c, "the guest is not configured any more");
	free(c);
}

void check_reload(void)
{
	static uint64_t interval_ms;	/* as the timer has it */
	uint64_t ms = agent.config->host.check_interval_ms;
	struct check *c, *old = checks, **end = &checks;
	const struct config_guest *conf;

	checks = NULL;
	for (conf = agent.config->guests; conf; conf = conf->next) {
		c = kept_take(old, next, conf, conf);
		c->conf = conf;
		*end = c;
		end = &c->next;
	}
	while ((c = old)) {
		old = c->next;
		check_free(c);
	}
	if (!checks || !ms)
		timer_clear(&timer);
	else if (!timer || ms != interval_ms)
		timer_set(&timer, ms < FIRST_MS ? ms : FIRST_MS, look_at_all, NULL);
	interval_ms = ms;
}

/* --- a peer asks whether one of its guests could come here --- */

void check_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o)
{
	const char *name = member_str(o, "guest"), *release = member_str(o, "kernel_release");
	const struct config_guest *g = name ? config_guest(agent.config, name) : NULL;
	static struct check_needs needs;
	static struct findings fs;
	struct msg m;

	fs.nr = 0;
	needs.memory = member_u64(o, "memory");
	snprintf(needs.cpu, sizeof(needs.cpu), "%s", member_str(o, "cpu") ?: "");
	snprintf(needs.flags, sizeof(needs.flags), "%s", member_str(o, "flags") ?: "");
	if (!g)
		found(&fs, FINDING_BAD, "peer", "there is no [guest %.60s] on host '%s'", name ?: "?", agent.config->host.name);
	else
		check_there(g, from, &needs, &fs);
	if (!release || strcmp(release, mux_version.release))
		found(&fs, FINDING_NOTE, "module", "the modules on '%s' are of release %s, those here of %.32s", agent.config->host.name,
		      mux_version.release, release ?: "?");
	answer_begin(&m, id);
	findings_json(&m.j, "findings", &fs);
	msg_send(&m, l);
}
