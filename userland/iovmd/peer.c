// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What peers ask of each other. Each host keeps a connection to each peer, for what it asks; what it is asked comes by the peer's
 * (peer_in.c). Requests are {"id":N,"op":...}, answers {"id":N,"ok":true,...} or {"id":N,"ok":false,"error":...}, in any order.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "iovmd.h"
#include "kept.h"

#define FIRST_PAUSE_MS	500
#define LAST_PAUSE_MS	30000
#define ARRIVALS_MS	10000

/**
 * struct peer - the connection to a peer
 * @address: where it was configured to be when that was read; @port: likewise
 * @line: of the process that keeps it
 * @up: it has said who it is
 * @since_ms: then it did
 * @fingerprint: of the certificate that it has shown last; "" none
 * @expires: and when that does, in seconds since 1970
 * @why: it is not up
 * @pause: then it is tried again
 */
struct peer {
	const struct config_peer *conf;
	char address[CONFIG_HOST_MAX];
	uint16_t port;
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

static struct peer *peers;
static struct ask *asks;
static uint64_t last_number;

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
	return !incoming_from(conf) && !peer_is_up(conf, NULL);
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
	/* as last seen, also when that was a while ago */
	json_str(j, "fingerprint", p && *p->fingerprint ? p->fingerprint : NULL);
	if (p && p->expires)
		json_u64(j, "expires", p->expires);
	else
		json_null(j, "expires");
	cert_json(j, conf);
	fence_host_json(j, conf);
}

uint64_t peer_cert_until(const struct config_peer *conf)
{
	struct peer *p = peer_of(conf);

	return p ? p->expires : 0;
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
	cert_seen(p->conf, p->fingerprint);
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

/* --- a peer that was enrolled or is to be forgotten --- */

void peer_again(const struct config_peer *conf)
{
	struct peer *p = peer_of(conf);

	incoming_end(conf);
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

/* --- the configuration --- */

/* Nobody has a pointer to it afterwards. */
static void peer_free(struct peer *p)
{
	incoming_end(p->conf);
	p->up = false;
	fail_all(p, "the peer is not configured any more");
	line_close(p->line);
	if (p->child)
		child_kill(p->child, SIGKILL);
	child_forget(p->child);
	timer_clear(&p->pause);
	info("peer '%s': is not configured any more", p->conf->name);
	free(p);
}

static void take_address(struct peer *p)
{
	strcpy(p->address, p->conf->address);
	p->port = p->conf->peer_port;
}

void peer_reload(void)
{
	const struct config_peer *conf;
	struct peer *p, *old = peers, **end = &peers;

	peers = NULL;
	for (conf = agent.config->peers; conf; conf = conf->next) {
		p = kept_take(old, next, conf, conf);
		if (!p->conf) {
			p->conf = conf;
			snprintf(p->why, sizeof(p->why), "not connected yet");
		}
		*end = p;
		end = &p->next;
	}
	while ((p = old)) {
		old = p->next;
		peer_free(p);
	}
	for (p = peers; p; p = p->next) {
		bool known = *p->address;

		if (known && !strcmp(p->address, p->conf->address) && p->port == p->conf->peer_port)
			continue;
		take_address(p);
		if (known)
			peer_again(p->conf);
		else
			connect_again(p);
	}
}
