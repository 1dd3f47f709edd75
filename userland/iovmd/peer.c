// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What peers ask of each other. Each host keeps a connection to each peer, for what it asks; what it is asked comes by the peer's.
 * Requests are {"id":N,"op":...}, answers {"id":N,"ok":true,...} or {"id":N,"ok":false,"error":...}, in any order.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iovmd.h"

#define FIRST_PAUSE_MS	500
#define LAST_PAUSE_MS	30000
#define MAX_INCOMING	64
#define MAX_CHILDREN	192	/* of all kinds: those that make room end later than others come */
#define ARRIVALS_MS	10000

/**
 * struct peer - the connection to a peer
 * @line: of the process that keeps it
 * @up: it has said who it is
 * @since_ms: then it did
 * @fingerprint: of the certificate that it has shown; "" none
 * @expires: and when that does, in seconds since 1970
 * @why: it is not up
 * @pause: then it is tried again
 */
struct peer {
	const struct config_peer *conf;
	struct line *line;
	struct child *child;
	bool up;
	uint64_t since_ms, expires;
	char fingerprint[72];
	char why[WHY_MAX];
	sd_event_source *pause;
	uint64_t pause_ms;
	struct peer *next;
};

/* What was asked and is not answered yet */
struct ask {
	uint64_t number;
	struct peer *peer;
	reply_fn reply;
	void *data;
	sd_event_source *limit;
	struct ask *next;
};

/* A connection of a peer; from is NULL until it has said who it is. The newest is first. */
struct incoming {
	struct line *line;
	struct child *child;
	const struct config_peer *from;
	struct incoming *next;
};

static struct peer *peers;
static struct ask *asks;
static uint64_t last_number;
static struct incoming *incomings;
static unsigned int nr_incoming;

static struct peer *peer_of(const struct config_peer *conf)
{
	struct peer *p;

	for (p = peers; p && p->conf != conf; p = p->next)
		;
	return p;
}

bool peer_is_up(const struct config_peer *conf, const char **why)
{
	struct peer *p = peer_of(conf);

	if (why)
		*why = p ? p->why : "";
	return p && p->up;
}

bool peer_is_gone(const struct config_peer *conf)
{
	struct incoming *in;

	for (in = incomings; in && in->from != conf; in = in->next)
		;
	return !in && !peer_is_up(conf, NULL);
}

void peer_json(struct json *j, const struct config_peer *conf)
{
	struct peer *p = peer_of(conf);
	bool up = p && p->up;

	json_bool(j, "connected", up);
	json_str(j, "why", !up && p && *p->why ? p->why : NULL);
	if (up)
		json_u64(j, "since_ms", clock_ms() - p->since_ms);
	else
		json_null(j, "since_ms");
	json_str(j, "fingerprint", up && *p->fingerprint ? p->fingerprint : NULL);
	if (up && p->expires)
		json_u64(j, "expires", p->expires);
	else
		json_null(j, "expires");
	json_bool(j, "fenced", fence_host_done(conf));
}

/* --- asking --- */

static void answered(struct ask *a, const struct json_node *o, const char *text, const char *why)
{
	struct ask **at;

	for (at = &asks; *at != a; at = &(*at)->next)
		;
	*at = a->next;
	timer_clear(&a->limit);
	a->reply(o, text, why, a->data);
	free(a);
}

static void too_late(void *data)
{
	struct ask *a = data;

	answered(a, NULL, NULL, "the peer did not answer in time");
}

static void fail_all(struct peer *p, const char *why)
{
	struct ask *a;
	bool again;

	do {
		again = false;
		for (a = asks; a; a = a->next)
			if (a->peer == p) {
				answered(a, NULL, NULL, why);
				again = true;
				break;
			}
	} while (again);
}

uint64_t peer_ask(const struct config_peer *conf, const char *request, uint64_t timeout_ms, reply_fn reply, void *data)
{
	struct peer *p = peer_of(conf);
	struct ask *a;
	struct msg m;

	if (!p || !p->up) {
		char why[WHY_MAX + 128];

		snprintf(why, sizeof(why), "peer '%s' is not connected: %s", conf->name, p ? p->why : "");
		reply(NULL, NULL, why, data);
		return 0;
	}
	a = calloc(1, sizeof(*a));
	if (!a) {
		reply(NULL, NULL, "out of memory", data);
		return 0;
	}
	a->number = ++last_number;
	a->peer = p;
	a->reply = reply;
	a->data = data;
	a->next = asks;
	asks = a;
	timer_set(&a->limit, timeout_ms, too_late, a);
	msg_begin(&m);
	json_u64(&m.j, "id", a->number);
	/* the members of the request behind the first */
	fprintf(m.f, ",%.*s", (int)strlen(request) - 2, request + 1);
	msg_send(&m, p->line);
	return a->number;
}

void peer_forget(uint64_t number)
{
	struct ask **at, *a;

	for (at = &asks; (a = *at); at = &a->next)
		if (a->number == number) {
			*at = a->next;
			timer_clear(&a->limit);
			free(a);
			return;
		}
}

/* --- the connection to a peer --- */

static void connect_again(void *data);

static void down(struct peer *p, const char *why)
{
	bool was = p->up;

	if (was || strcmp(p->why, why))
		warning("peer '%s': %s%s", p->conf->name, was ? "lost: " : "", why);
	p->up = false;
	p->line = NULL;
	snprintf(p->why, sizeof(p->why), "%s", why);
	fail_all(p, why);
	if (was)
		p->pause_ms = 0;
	timer_set(&p->pause, next_pause(&p->pause_ms, FIRST_PAUSE_MS, LAST_PAUSE_MS), connect_again, p);
	guest_look();
	arrival_look();
}

/* The guests that came from here and wait there for our word; those that are being migrated get it from their workers. */
static void on_arrivals(const struct json_node *o, const char *text, const char *why, void *data)
{
	const struct json_node *g = o ? json_member(o, "guests") : NULL;
	struct peer *p = data;

	(void)text;
	(void)why;
	for (g = g && g->type == JSON_ARRAY ? g->first : NULL; g; g = g->next)
		if (g->type == JSON_STRING)
			guest_settle(g->str, p->conf);
}

static void take_first(struct peer *p, const struct json_node *o)
{
	const char *error = member_str(o, "error");

	if (error) {
		line_close(p->line);
		down(p, error);
		return;
	}
	p->up = true;
	p->why[0] = 0;
	p->pause_ms = 0;
	p->since_ms = clock_ms();
	p->expires = member_u64(o, "expires");
	snprintf(p->fingerprint, sizeof(p->fingerprint), "%s", member_str(o, "fingerprint") ?: "");
	info("peer '%s' is connected%s%s, release %s", p->conf->name, *p->fingerprint ? ", its certificate is " : "", p->fingerprint,
	     member_str(o, "release") ?: "?");
	peer_ask(p->conf, "{\"op\":\"arrivals\"}", ARRIVALS_MS, on_arrivals, p);
	fence_host_up(p->conf);
	epoch_peer_up(p->conf);
	doubt_peer_up(p->conf);
	guest_look();
	arrival_look();
}

static void on_line(struct line *l, char *text, void *data)
{
	struct peer *p = data;
	char error[JSON_READ_ERROR];
	struct json_node *o;
	struct ask *a;
	uint64_t id;

	(void)l;
	if (!text) {
		down(p, p->up ? "the connection has ended" : "its process has ended");
		return;
	}
	o = json_read(text, strlen(text), error);
	if (!o || o->type != JSON_OBJECT) {
		line_close(p->line);
		down(p, "it sent something that is not of the protocol");
	} else if (!p->up) {
		take_first(p, o);
	} else {
		id = member_u64(o, "id");
		for (a = asks; a && (a->number != id || a->peer != p); a = a->next)
			;
		if (a && member_bool(o, "ok"))
			answered(a, o, text, NULL);
		else if (a)
			answered(a, NULL, NULL, member_str(o, "error") ?: "it refused without a reason");
	}
	json_free(o);
}

static void link_ended(struct child *c, int status, const char *output, void *data)
{
	struct peer *p = data;

	(void)c;
	(void)status;
	(void)output;
	p->child = NULL;	/* its line has told or tells the rest */
}

static void connect_again(void *data)
{
	struct peer *p = data;

	timer_clear(&p->pause);
	if (agent.ending)
		return;
	child_forget(p->child);
	p->child = child_worker(link_out, (void *)(uintptr_t)p->conf, -1, true, &p->line, on_line, link_ended, p);
	if (!p->child)
		timer_set(&p->pause, LAST_PAUSE_MS, connect_again, p);
}

void peer_start(void)
{
	const struct config_peer *conf;
	struct peer *p, **end = &peers;

	for (conf = agent.config->peers; conf; conf = conf->next) {
		p = calloc(1, sizeof(*p));
		if (!p)
			return;
		p->conf = conf;
		snprintf(p->why, sizeof(p->why), "not connected yet");
		*end = p;
		end = &p->next;
		connect_again(p);
	}
}

/* --- connections of peers --- */

void answer_error(struct line *l, uint64_t id, const char *why)
{
	struct msg m;

	msg_begin(&m);
	json_u64(&m.j, "id", id);
	json_bool(&m.j, "ok", false);
	json_str(&m.j, "error", why);
	msg_send(&m, l);
}

void answer_begin(struct msg *m, uint64_t id)
{
	msg_begin(m);
	json_u64(&m->j, "id", id);
	json_bool(&m->j, "ok", true);
}

void peer_request(struct line *l, const struct config_peer *from, const struct json_node *o)
{
	const char *op = member_str(o, "op");
	uint64_t id = member_u64(o, "id");
	char why[WHY_MAX];
	struct msg m;

	if (!op) {
		answer_error(l, id, "a request without 'op'");
	} else if (!strcmp(op, "status")) {
		answer_begin(&m, id);
		status_json(&m.j, "status", from);
		msg_send(&m, l);
	} else if (!strcmp(op, "arrivals")) {
		answer_begin(&m, id);
		arrival_list(&m.j, "guests", from);
		msg_send(&m, l);
	} else if (!strcmp(op, "epoch-give") || !strcmp(op, "epoch-raised")) {
		epoch_request(l, id, from, o);
	} else if (!strcmp(op, "epoch-ready")) {
		epoch_ready(l, id, from, o);
	} else if (!strcmp(op, "drain")) {
		drain_request(l, id, from, o);
	} else if (!strcmp(op, "ready")) {
		check_request(l, id, from, o);
	} else if (!strcmp(op, "prepare") || !strcmp(op, "accept") || !strcmp(op, "abort")) {
		arrival_request(l, id, from, o);
	} else {
		snprintf(why, sizeof(why), "'%s' is not known here: install the same release on both hosts", op);
		answer_error(l, id, why);
	}
}

static void drop(struct incoming *in)
{
	struct incoming **at;

	for (at = &incomings; *at != in; at = &(*at)->next)
		;
	*at = in->next;
	guest_unwatch(in->line);
	child_forget(in->child);
	free(in);
	nr_incoming--;
}

static bool first_line(struct incoming *in, const struct json_node *o)
{
	const char *error = member_str(o, "error");

	if (error)
		refusal(member_str(o, "from") ?: "?", error, "peers");
	in->from = config_peer(agent.config, member_str(o, "hello") ?: "");
	if (in->from)
		fence_host_up(in->from);
	return in->from;
}

static void on_incoming(struct line *l, char *text, void *data)
{
	struct incoming *in = data;
	char error[JSON_READ_ERROR];
	struct json_node *o = text ? json_read(text, strlen(text), error) : NULL;

	if (o && o->type == JSON_OBJECT && in->from) {
		peer_request(l, in->from, o);
	} else if (!o || o->type != JSON_OBJECT || !first_line(in, o)) {
		drop(in);
		if (text)
			line_close(l);
	}
	json_free(o);
}

static void incoming_ended(struct child *c, int status, const char *output, void *data)
{
	struct incoming *in = data;

	(void)c;
	(void)status;
	(void)output;
	in->child = NULL;	/* its line has told or tells the rest */
}

/* There are as many as there may be: the oldest that has not said who it is goes. */
static void make_room(void)
{
	struct incoming *in, *oldest = NULL;

	for (in = incomings; in; in = in->next)
		if (!in->from)
			oldest = in;
	if (oldest && oldest->child) {
		child_kill(oldest->child, SIGKILL);
		line_close(oldest->line);
		drop(oldest);
	}
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *data)
{
	struct incoming *in = NULL;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	(void)source;
	(void)events;
	(void)data;
	if (fd < 0)
		return 0;
	if (nr_incoming >= MAX_INCOMING)
		make_room();
	if (nr_incoming < MAX_INCOMING && child_nr() < MAX_CHILDREN)
		in = calloc(1, sizeof(*in));
	if (in)
		in->child = child_worker(link_in, &fd, fd, true, &in->line, on_incoming, incoming_ended, in);
	if (in && in->child) {
		in->next = incomings;
		incomings = in;
		nr_incoming++;
	} else {
		free(in);
	}
	close(fd);
	return 0;
}

/* --- a peer that was enrolled or is to be forgotten --- */

void peer_again(const struct config_peer *conf)
{
	struct peer *p = peer_of(conf);
	struct incoming *in;

	/* those end, and their lines tell */
	for (in = incomings; in; in = in->next)
		if (in->from == conf && in->child)
			child_kill(in->child, SIGKILL);
	if (!p)
		return;
	if (p->line) {
		line_close(p->line);
		down(p, "connected anew");
		if (p->child)
			child_kill(p->child, SIGKILL);
	}
	p->pause_ms = 0;
	connect_again(p);
}

int peer_listen(char why[WHY_MAX])
{
	return listen_at(agent.config->host.peer_port, on_accept, why);
}
