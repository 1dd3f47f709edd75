// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Connections of peers, and what they ask here. See peer.c.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iovmd.h"

#define MAX_INCOMING	64
#define MAX_CHILDREN	192	/* of all kinds: those that make room end later than others come */

/*
 * A connection of a peer; from is NULL until it has said who it is, by the certificate with this fingerprint, "" none. The
 * newest is first.
 */
struct incoming {
	struct line *line;
	struct child *child;
	const struct config_peer *from;
	char fingerprint[72];
	struct incoming *next;
};

static struct incoming *incomings;
static unsigned int nr_incoming;

/* --- requests --- */

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

/* The fingerprint of the certificate that was shown on it */
static const char *shown_by(const struct line *l)
{
	struct incoming *in;

	for (in = incomings; in && in->line != l; in = in->next)
		;
	return in ? in->fingerprint : "";
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
	} else if (!strcmp(op, "certificate")) {
		cert_request(l, id, from, shown_by(l), o);
	} else if (!strcmp(op, "ready")) {
		check_request(l, id, from, o);
	} else if (!strcmp(op, "prepare") || !strcmp(op, "accept") || !strcmp(op, "abort")) {
		arrival_request(l, id, from, o);
	} else {
		snprintf(why, sizeof(why), "'%s' is not known here: install the same release on both hosts", op);
		answer_error(l, id, why);
	}
}

/* --- connections --- */

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
	if (!in->from)
		return false;
	snprintf(in->fingerprint, sizeof(in->fingerprint), "%s", member_str(o, "fingerprint") ?: "");
	cert_seen(in->from, in->fingerprint);
	fence_host_up(in->from);
	return true;
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

static void end(struct incoming *in)
{
	if (in->child)
		child_kill(in->child, SIGKILL);
	line_close(in->line);
	drop(in);
}

/* There are as many as there may be: the oldest that has not said who it is goes. */
static void make_room(void)
{
	struct incoming *in, *oldest = NULL;

	for (in = incomings; in; in = in->next)
		if (!in->from)
			oldest = in;
	if (oldest && oldest->child)
		end(oldest);
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

bool incoming_from(const struct config_peer *conf)
{
	struct incoming *in;

	for (in = incomings; in && in->from != conf; in = in->next)
		;
	return in;
}

void incoming_end(const struct config_peer *conf)
{
	struct incoming *in, *next;

	for (in = incomings; in; in = next) {
		next = in->next;
		if (in->from == conf)
			end(in);
	}
}


int peer_listen(char why[WHY_MAX])
{
	return listen_at(agent.config->host.peer_port, on_accept, why);
}
