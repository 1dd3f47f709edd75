// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What iovmctl asks, on a unix socket that is root's: one request a connection, answers as peers give them. The kernel says who asks.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "iovmd.h"

#define MAX_CLIENTS	32
#define PEER_STATUS_MS	3000

/**
 * struct client - a connection of iovmctl's
 * @id: of its request
 * @waits: for so many peers' answers
 * @said: what they said, in the order of the configuration when they were asked
 */
struct client {
	struct line *line;
	uint64_t id;
	unsigned int waits, nr;
	struct peer_said {
		struct client *c;
		char name[IOVM_NAME_MAX];
		uint64_t number;
		char *text;
	} *said;
	struct client *next;
};

static struct client *clients;
static unsigned int nr_clients;

static void drop(struct client *c)
{
	struct client **at;
	unsigned int i;

	for (at = &clients; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	for (i = 0; i < c->nr; i++) {
		peer_forget(c->said[i].number);
		free(c->said[i].text);
	}
	free(c->said);
	free(c);
	nr_clients--;
}

/* --- status: first every peer is asked how it sees things --- */

static void send_status(struct client *c)
{
	unsigned int i;
	struct msg m;

	answer_begin(&m, c->id);
	status_json(&m.j, "status", NULL);
	json_open(&m.j, "peers_say", '{');
	for (i = 0; i < c->nr; i++)
		if (c->said[i].text)
			json_raw(&m.j, c->said[i].name, c->said[i].text);
	json_close(&m.j);
	msg_send(&m, c->line);
}

static void peer_said(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct peer_said *said = data;
	struct client *c = said->c;

	(void)o;
	said->number = 0;
	if (!why)
		said->text = strdup(text);
	if (!--c->waits)
		send_status(c);
}

static void ask_status(struct client *c)
{
	const struct config_peer *p;
	unsigned int i;

	for (p = agent.config->peers; p; p = p->next)
		c->nr++;
	c->said = calloc(c->nr + 1, sizeof(*c->said));
	if (!c->said) {
		c->nr = 0;
		answer_error(c->line, c->id, "out of memory");
		return;
	}
	c->waits = 1;		/* so that the first answer is not the last */
	for (p = agent.config->peers, i = 0; p; p = p->next, i++) {
		c->said[i].c = c;
		strcpy(c->said[i].name, p->name);
		if (!peer_is_up(p, NULL))
			continue;
		c->waits++;
		c->said[i].number = peer_ask(p, "{\"op\":\"status\"}", PEER_STATUS_MS, peer_said, &c->said[i]);
	}
	if (!--c->waits)
		send_status(c);
}

/* --- the others --- */

static void metrics(struct client *c)
{
	struct msg m;
	size_t n = 0;
	char *text = NULL;
	FILE *f = open_memstream(&text, &n);

	if (!f) {
		answer_error(c->line, c->id, "out of memory");
		return;
	}
	status_metrics(f);
	fclose(f);
	answer_begin(&m, c->id);
	json_str(&m.j, "text", text);
	msg_send(&m, c->line);
	free(text);
}

static void migrate(struct client *c, const struct json_node *o, bool cancel)
{
	const char *name = member_str(o, "guest"), *to = member_str(o, "to");
	struct config_guest *g = name ? config_guest(agent.config, name) : NULL;
	struct config_peer *p = to ? config_peer(agent.config, to) : NULL;
	char why[WHY_MAX];
	struct msg m;

	if (!g)
		snprintf(why, sizeof(why), "guest '%s' is not configured", name ?: "?");
	else if (to && !p)
		snprintf(why, sizeof(why), "host '%s' is not configured as a peer", to);
	else if (cancel ? guest_cancel(g, why) : guest_migrate(g, p, "iovmctl", why))
		goto good;
	answer_error(c->line, c->id, why);
	return;
good:
	if (!cancel) {
		guest_watch(g, c->line, c->id);
		return;
	}
	answer_begin(&m, c->id);
	msg_send(&m, c->line);
}

static void peers(struct client *c)
{
	struct msg m;

	answer_begin(&m, c->id);
	status_peers(&m.j, "peers");
	msg_send(&m, c->line);
}

static void again(struct client *c, const struct json_node *o)
{
	const char *name = member_str(o, "peer");
	struct config_peer *p = name ? config_peer(agent.config, name) : NULL;
	const struct config_device *d;
	char why[WHY_MAX];
	struct msg m;

	if (!p) {
		snprintf(why, sizeof(why), "host '%s' is not configured as a peer", name ?: "?");
		answer_error(c->line, c->id, why);
		return;
	}
	peer_again(p);
	for (d = member_bool(o, "forgotten") ? agent.config->devices : NULL; d; d = d->next)
		data_end(d, p);
	answer_begin(&m, c->id);
	msg_send(&m, c->line);
}

static void drain(struct client *c, const struct json_node *o)
{
	const char *to = member_str(o, "to");
	struct config_peer *p = to ? config_peer(agent.config, to) : NULL;
	char why[WHY_MAX];
	struct msg m;

	if (to && !p)
		snprintf(why, sizeof(why), "host '%s' is not configured as a peer", to);
	else if (member_bool(o, "cancel") ? policy_drain_cancel(why) : policy_drain(p, c->line, c->id, why))
		goto good;
	answer_error(c->line, c->id, why);
	return;
good:
	if (!member_bool(o, "cancel"))
		return;
	answer_begin(&m, c->id);
	msg_send(&m, c->line);
}

static void check(struct client *c, const struct json_node *o)
{
	const char *name = member_str(o, "guest");
	const struct config_guest *g = name ? config_guest(agent.config, name) : NULL;
	char why[WHY_MAX];

	if (!g)
		snprintf(why, sizeof(why), "guest '%s' is not configured", name ?: "?");
	else if (check_guest(g, c->line, c->id, why))
		return;
	answer_error(c->line, c->id, why);
}

static void request(struct client *c, const struct json_node *o)
{
	const char *op = member_str(o, "op");
	char why[WHY_MAX];
	struct msg m;

	c->id = member_u64(o, "id");
	if (c->nr) {
		answer_error(c->line, c->id, "one request a connection");
	} else if (op && !strcmp(op, "status")) {
		ask_status(c);
	} else if (op && !strcmp(op, "metrics")) {
		metrics(c);
	} else if (op && !strcmp(op, "migrate")) {
		migrate(c, o, false);
	} else if (op && !strcmp(op, "cancel")) {
		migrate(c, o, true);
	} else if (op && !strcmp(op, "peers")) {
		peers(c);
	} else if (op && !strcmp(op, "peer-again")) {
		again(c, o);
	} else if (op && !strcmp(op, "exports")) {
		answer_begin(&m, c->id);
		exports_json(&m.j, "exports");
		msg_send(&m, c->line);
	} else if (op && !strcmp(op, "certificate")) {
		cert_tell(c->line, c->id, member_str(o, "certificate") ?: "");
	} else if (op && !strcmp(op, "config-reload")) {
		reload(c->line, c->id);
	} else if (op && !strcmp(op, "check")) {
		check(c, o);
	} else if (op && !strcmp(op, "drain-host")) {
		drain(c, o);
	} else {
		snprintf(why, sizeof(why), "'%s' is not known to this iovmd: does iovmctl belong to the same release?", op ?: "?");
		answer_error(c->line, c->id, why);
	}
}

static void on_line(struct line *l, char *text, void *data)
{
	struct client *c = data;
	char error[JSON_READ_ERROR];
	struct json_node *o = text ? json_read(text, strlen(text), error) : NULL;

	if (o && o->type == JSON_OBJECT) {
		request(c, o);
	} else {
		guest_unwatch(l);
		drop(c);
		if (text)
			line_close(l);
	}
	json_free(o);
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *data)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	socklen_t len = sizeof(struct ucred);
	struct ucred cred;
	struct client *c;

	(void)source;
	(void)events;
	(void)data;
	if (fd < 0)
		return 0;
	/* the socket's mode says so too; who was passed one says nothing for himself */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) || (cred.uid && cred.uid != geteuid()) || nr_clients >= MAX_CLIENTS) {
		close(fd);
		return 0;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return 0;
	}
	c->line = line_new(fd, on_line, c);
	if (!c->line) {
		free(c);
		return 0;
	}
	c->next = clients;
	clients = c;
	nr_clients++;
	return 0;
}

int control_start(char why[WHY_MAX])
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, probe;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s/iovmd.sock", agent.run_dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		goto fail;
	/* one that was killed leaves its socket; one that runs answers at it */
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (probe >= 0 && !connect(probe, (void *)&a, sizeof(a))) {
		close(probe);
		close(fd);
		snprintf(why, WHY_MAX, "another iovmd runs: it answers at %s", a.sun_path);
		return -1;
	}
	if (probe >= 0)
		close(probe);
	unlink(a.sun_path);
	if (fchmod(fd, 0600) || bind(fd, (void *)&a, sizeof(a)) || listen(fd, 16) ||
	    sd_event_add_io(agent.loop, NULL, fd, EPOLLIN, on_accept, NULL) < 0)
		goto fail;
	return 0;
fail:
	snprintf(why, WHY_MAX, "cannot listen on %s: %s", a.sun_path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}
