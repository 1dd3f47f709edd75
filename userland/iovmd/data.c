// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Takes in the NBD connections of peers: a child process for each shakes hands and hands the socket to the kernel, which serves it from
 * then on. A peer is offered the data of the devices that name it among their peers, and nothing else.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/net.h"
#include "../common/reserve.h"
#include "../iovmctl/offer.h"

#define HANDSHAKE_MS	10000
#define MAX_HANDSHAKES	64

/**
 * struct handshake - that is under way
 * @number: later ones have greater ones
 */
struct handshake {
	struct child *child;
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

static int client(int sock, void *data)
{
	const struct config_peer *p;
	const struct nbds_export *ex;
	int fd = *(int *)data, err;
	struct iovm_session_add s;
	char why[128], text[128];
	struct offer *offers;

	(void)sock;
	IOVM_INIT(&s);
	net_peer_text(fd, text, sizeof(text));
	p = peer_by_address(fd);
	if (!p) {
		warning("an NBD client at %s was refused: no [peer] has this address", text);
		return 1;
	}
	snprintf(s.peer, sizeof(s.peer), "%s, %s", p->name, text);
	if (!kernel_in_child())
		return 1;
	ex = offers_for(p, &offers);
	/* no news: its paths try now and then, and it gets in once it holds an epoch */
	if (!ex)
		return 1;
	switch (nbds_handshake(fd, &ex, HANDSHAKE_MS, why, sizeof(why))) {
	case NBDS_LEFT:
		return 0;
	case NBDS_BAD:
		warning("%s was refused: %s", s.peer, why);
		return 1;
	case NBDS_GO:
		break;
	}
	net_keepalive(fd, HANDSHAKE_MS);
	reserve_mark(fd, 0, agent.config->host.io_rate);
	err = offer_taken((const struct offer *)((const char *)ex - offsetof(struct offer, ex)), fd, &s);
	if (err)
		warning("%s cannot be served: %s", s.peer, *s.msg ? s.msg : strerror(err));
	return !!err;
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

static void no_lines(struct line *l, char *text, void *data)
{
	(void)data;
	if (text)
		line_close(l);
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
	h = nr_handshakes < MAX_HANDSHAKES ? calloc(1, sizeof(*h)) : NULL;
	if (h)
		h->child = child_worker(client, &fd, fd, true, &line, no_lines, ended, h);
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

int data_listen(char why[WHY_MAX])
{
	return listen_at(agent.config->host.data_port, on_accept, why);
}
