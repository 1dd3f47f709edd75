// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Takes in the NBD connections of peers: a child process for each shakes hands and hands the socket to the kernel, which serves it from
 * then on. A peer is known by its certificate, or by its address when connections are plain TCP. It is offered the data of the devices
 * that name it among their peers, and nothing else.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/net.h"
#include "../common/reserve.h"
#include "../iovmctl/offer.h"

#define HANDSHAKE_MS	10000
#define MAX_HANDSHAKES	64	/* then the oldest is ended for each that comes; twice as many until they have */

/**
 * struct handshake - that is under way
 * @number: later ones have greater ones
 * @dropped: it has been ended
 */
struct handshake {
	struct child *child;
	bool dropped;
	uint64_t number;
	struct handshake *next;
};

static struct handshake *handshakes;
static unsigned int nr_handshakes;
static uint64_t last_handshake;

/* The epoch as which it may; 0: not at all. */
static uint64_t may_have(const struct config_device *d, const struct config_peer *p)
{
	return *d->disk && config_peer_of(d, p) >= 0 && !drain_refuses(d, p) ? epoch_for_peer(d, p) : 0;
}

/* Which peer has this address; NULL: none. */
static struct config_peer *peer_by_address(int fd)
{
	struct config_peer *p;

	for (p = agent.config->peers; p; p = p->next)
		if (net_peer_is(fd, p->address))
			return p;
	return NULL;
}

/* What is there of what a peer may have, as a list; *offers for free(). */
static const struct nbds_export *offers_for(const struct config_peer *p, struct offer **offers)
{
	uint64_t epoch;
	const struct nbds_export *first = NULL;
	const struct config_device *d;
	struct iovm_dev_info di;
	char name[IOVM_NAME_MAX];
	unsigned int n = 0;

	for (d = agent.config->devices; d; d = d->next)
		n++;
	*offers = calloc(n + 1, sizeof(**offers));
	for (n = 0, d = agent.config->devices; d && *offers; d = d->next) {
		export_name(d, name);
		epoch = may_have(d, p);
		if (!epoch || !kernel_has_device(name, &di) || di.class != IOVM_CLASS_TARGET || !di.nr_paths)
			continue;
		offer_device(&(*offers)[n], &di, d->name, false);
		(*offers)[n].epoch = epoch;
		(*offers)[n].ex.next = first;
		first = &(*offers)[n++].ex;
	}
	return first;
}

/**
 * struct visit - a connection that is taken in
 * @fd: its socket
 * @sock: to the main process
 * @from: its address, for people
 * @p: the peer; NULL: not known yet
 * @offers: what it is offered
 */
struct visit {
	int fd, sock;
	char from[128];
	const struct config_peer *p;
	struct offer *offers;
};

static int refuse(const struct visit *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The main process tells it. */
static int refuse(const struct visit *v, const char *fmt, ...)
{
	char who[sizeof(v->from) + IOVM_NAME_MAX + 8], why[WHY_MAX];
	struct msg m;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	snprintf(who, sizeof(who), "%s%s%s", v->p ? v->p->name : "", v->p ? ", " : "", v->from);
	msg_begin(&m);
	json_str(&m.j, "error", why);
	json_str(&m.j, "from", who);
	msg_write(&m, v->sock);
	return 1;
}

/* With TLS: it is known who it is. */
static const struct nbds_export *granted(const char *peer, void *data)
{
	struct visit *v = data;

	v->p = config_peer(agent.config, peer);
	return v->p ? offers_for(v->p, &v->offers) : NULL;
}

static int shake_plain(struct visit *v, const struct nbds_export **ex)
{
	char why[256];

	v->p = peer_by_address(v->fd);
	if (!v->p)
		return refuse(v, "no [peer] has this address");
	*ex = offers_for(v->p, &v->offers);
	/* no news: its paths try now and then, and it gets in once it holds an epoch */
	if (!*ex)
		return 1;
	switch (nbds_handshake(v->fd, ex, HANDSHAKE_MS, why, sizeof(why))) {
	case NBDS_GO:
		return 0;
	case NBDS_LEFT:
		return 1;
	default:
		return refuse(v, "%s", why);
	}
}

static int shake_tls(struct visit *v, const struct nbds_export **ex)
{
	struct nbds_tls tls = { .required = true, .granted = granted, .data = v };
	const struct config_device *d;
	enum nbds_end end;
	char why[WHY_MAX / 2];

	tls.creds = tls_load(agent.config->host.tls_dir, why, sizeof(why));
	if (!tls.creds)
		return refuse(v, "%s ('iovmctl peers enrol' makes this host's certificate)", why);
	if (tls_kernel_ready(why, sizeof(why)))
		return refuse(v, "%s", why);
	*ex = NULL;
	end = nbds_handshake_tls(v->fd, ex, &tls, HANDSHAKE_MS, why, sizeof(why));
	if (end == NBDS_GO)
		return 0;
	if (*tls.peer && !v->p)
		return refuse(v, "its certificate is that of '%s', and there is no [peer %s]", tls.peer, tls.peer);
	if (*tls.missed) {
		d = config_device(agent.config, tls.missed);
		if (!d || config_peer_of(d, v->p) < 0)
			return refuse(v, "'%s' is not granted to it: %s", tls.missed,
				      d ? "its [device] does not name it in 'peers'" : "there is no such [device]");
		return 1;	/* no news, as above */
	}
	return end == NBDS_LEFT ? 1 : refuse(v, "%s", why);
}

static int client(int sock, void *data)
{
	struct visit v = { .fd = *(int *)data, .sock = sock };
	const struct nbds_export *ex;
	struct offer *offer;
	struct iovm_session_add s;
	bool plain = agent.config->host.plain_tcp;
	int err;

	net_peer_text(v.fd, v.from, sizeof(v.from));
	if (!kernel_in_child())
		return 1;
	if (plain ? shake_plain(&v, &ex) : shake_tls(&v, &ex))
		return 1;
	net_keepalive(v.fd, HANDSHAKE_MS);
	reserve_mark(v.fd, 0, agent.config->host.io_rate);
	IOVM_INIT(&s);
	snprintf(s.peer, sizeof(s.peer), "%s, %s", v.p->name, v.from);
	offer = (struct offer *)((char *)(uintptr_t)ex - offsetof(struct offer, ex));
	offer->tls = !plain;
	err = offer_taken(offer, v.fd, &s);
	if (err)
		return refuse(&v, "it cannot be served: %s", *s.msg ? s.msg : strerror(err));
	return 0;
}

static void ended(struct child *c, int status, const char *output, void *data)
{
	struct handshake **at, *h = data;

	(void)c;
	(void)status;
	(void)output;
	for (at = &handshakes; *at != h; at = &(*at)->next)
		;
	*at = h->next;
	free(h);
	nr_handshakes--;
	drain_look();
}

uint64_t data_cut(void)
{
	struct handshake *h;

	for (h = handshakes; h; h = h->next)
		child_kill(h->child, SIGKILL);
	return last_handshake;
}

bool data_is_cut(uint64_t upto)
{
	struct handshake *h;

	for (h = handshakes; h && h->number > upto; h = h->next)
		;
	return !h;
}

/* All that a child has to tell is why it refused. */
static void on_line(struct line *l, char *text, void *data)
{
	char error[JSON_READ_ERROR];
	struct json_node *o = text ? json_read(text, strlen(text), error) : NULL;

	(void)data;
	if (member_str(o, "error"))
		refusal(member_str(o, "from") ?: "?", member_str(o, "error"), "data");
	json_free(o);
	if (text)
		line_close(l);
}

/* A stranger may say nothing for as long as it may; peers are quick. */
static void make_room(void)
{
	struct handshake *h, *oldest = NULL;

	for (h = handshakes; h; h = h->next)
		if (!h->dropped)
			oldest = h;
	if (oldest) {
		oldest->dropped = true;
		child_kill(oldest->child, SIGKILL);
	}
}

static int on_accept(sd_event_source *source, int listener, uint32_t events, void *data)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct handshake *h;
	struct line *line;

	(void)source;
	(void)events;
	(void)data;
	if (fd < 0)
		return 0;
	if (nr_handshakes >= MAX_HANDSHAKES)
		make_room();
	h = nr_handshakes < 2 * MAX_HANDSHAKES ? calloc(1, sizeof(*h)) : NULL;
	if (h)
		h->child = child_worker(client, &fd, fd, true, &line, on_line, ended, h);
	if (h && h->child) {
		h->number = ++last_handshake;
		h->next = handshakes;
		handshakes = h;
		nr_handshakes++;
	} else {
		free(h);
	}
	close(fd);
	return 0;
}

bool data_next_session(const struct config_device *d, const struct config_peer *p, uint32_t *id)
{
	struct iovm_session_info i;
	size_t n = strlen(p->name);

	IOVM_INIT(&i);
	export_name(d, i.dev);
	for (i.id = *id; !mux_ioctl(IOVM_SESSION_GET, &i); i.id++) {
		*id = i.id;
		if (!strncmp(i.peer, p->name, n) && !strncmp(i.peer + n, ", ", 2))
			return true;
	}
	return false;
}

void data_end(const struct config_device *d, const struct config_peer *p)
{
	struct iovm_session_remove r;
	uint32_t id;

	for (id = 0; data_next_session(d, p, &id); id++) {
		IOVM_INIT(&r);
		export_name(d, r.dev);
		r.id = id;
		mux_ioctl(IOVM_SESSION_REMOVE, &r);
	}
}

int data_listen(char why[WHY_MAX])
{
	return listen_at(agent.config->host.data_port, on_accept, why);
}
