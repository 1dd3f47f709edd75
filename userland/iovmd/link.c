// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel to a peer and from it. Each connection has a process of its own, which does the handshake and then carries lines between
 * the connection and the main process; what a stranger sends is read here first. Its first line to the main process says who the other
 * side is ("hello"), or why there is no channel ("error").
 *
 * The handshake: whoever connects sends {"iovmd":1,"host":ITS NAME,"to":THE OTHER'S,"release":...}, the other answers in kind, or with
 * {"error":...}.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/net.h"

#define PROTOCOL	1
#define HELLO_MS	5000
#define DEAD_MS		10000

static void tell(int sock, const char *key, const char *text)
{
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, key, text);
	msg_write(&m, sock);
}

static int give_up(int sock, const char *why)
{
	tell(sock, "error", why);
	return 1;
}

static bool send_hello(int fd, const char *to)
{
	struct msg m;

	msg_begin(&m);
	json_u64(&m.j, "iovmd", PROTOCOL);
	json_str(&m.j, "host", agent.config->host.name);
	json_str(&m.j, "to", to);
	json_str(&m.j, "release", IOVM_RELEASE);
	return msg_write(&m, fd);
}

/* NULL and why: it is not what it should be. */
static struct json_node *take_hello(int fd, struct line_buf *b, char why[WHY_MAX])
{
	struct json_node *o = line_read(fd, b, HELLO_MS);
	const char *error;

	if (!o || o->type != JSON_OBJECT) {
		snprintf(why, WHY_MAX, "it did not say in %d s who it is: is that iovmd, and does it also use '%s'?", HELLO_MS / 1000,
			 agent.config->host.plain_tcp ? "transport = plain-tcp" : "transport = tls");
		goto bad;
	}
	error = member_str(o, "error");
	if (error) {
		snprintf(why, WHY_MAX, "it refused: %s", error);
		goto bad;
	}
	if (member_u64(o, "iovmd") != PROTOCOL || !member_str(o, "host")) {
		snprintf(why, WHY_MAX, "it speaks version %llu of the protocol, this one %d: install the same release on both hosts",
			 (unsigned long long)member_u64(o, "iovmd"), PROTOCOL);
		goto bad;
	}
	return o;
bad:
	json_free(o);
	return NULL;
}

/* One direction: what is read here is written there; false: it has ended. */
static bool carry(int from, int to)
{
	char buf[16384];
	ssize_t n = recv(from, buf, sizeof(buf), 0), r;
	size_t at = 0;

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	while (at < (size_t)n) {
		r = send(to, buf + at, (size_t)n - at, MSG_NOSIGNAL);
		if (r < 0 && errno != EINTR)
			return false;
		if (r > 0)
			at += (size_t)r;
	}
	return true;
}

static int carry_all(int sock, int fd, const struct line_buf *b)
{
	struct pollfd p[2] = { { .fd = sock, .events = POLLIN }, { .fd = fd, .events = POLLIN } };

	if (b->n && send(sock, b->text, b->n, MSG_NOSIGNAL) < 0)
		return 0;
	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (p[0].revents && !carry(sock, fd))
			return 0;
		if (p[1].revents && !carry(fd, sock))
			return 0;
	}
}

static void hello_to_main(int sock, const struct json_node *o)
{
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, "hello", member_str(o, "host"));
	json_str(&m.j, "release", member_str(o, "release"));
	msg_write(&m, sock);
}

int link_out(int sock, void *data)
{
	const struct config_peer *p = data;
	char why[WHY_MAX], net_why[NET_WHY];
	struct line_buf b = { 0 };
	struct json_node *o;
	int fd;

	fd = net_connect(p->address, p->peer_port, HELLO_MS, net_why);
	if (fd < 0)
		return give_up(sock, net_why);
	net_keepalive(fd, DEAD_MS);
	if (!send_hello(fd, p->name))
		return give_up(sock, "it hung up at once");
	o = take_hello(fd, &b, why);
	if (!o)
		return give_up(sock, why);
	if (strcmp(member_str(o, "host"), p->name)) {
		snprintf(why, sizeof(why), "at '%s' is host '%s', not '%s': see [peer %s]", p->address, member_str(o, "host"), p->name,
			 p->name);
		return give_up(sock, why);
	}
	hello_to_main(sock, o);
	return carry_all(sock, fd, &b);
}

static const struct config_peer *who(int fd, const struct json_node *o, char why[WHY_MAX])
{
	const char *name = member_str(o, "host"), *to = member_str(o, "to");
	const struct config_peer *p = config_peer(agent.config, name);

	if (!to || strcmp(to, agent.config->host.name))
		snprintf(why, WHY_MAX, "this is host '%s', not '%s'", agent.config->host.name, to ?: "?");
	else if (!p)
		snprintf(why, WHY_MAX, "host '%s' has no [peer %s]", agent.config->host.name, name);
	else if (!net_peer_is(fd, p->address))
		snprintf(why, WHY_MAX, "host '%s' expects '%s' at '%s'; connections are plain TCP, a peer is known by its address",
			 agent.config->host.name, name, p->address);
	else
		return p;
	return NULL;
}

int link_in(int sock, void *data)
{
	int fd = *(int *)data;
	char why[WHY_MAX], peer[128];
	struct line_buf b = { 0 };
	struct json_node *o;

	net_keepalive(fd, DEAD_MS);
	net_peer_text(fd, peer, sizeof(peer));
	o = take_hello(fd, &b, why);
	if (o && !who(fd, o, why)) {
		tell(fd, "error", why);
		o = NULL;
	}
	if (!o) {
		warning("a connection from %s was refused: %s", peer, why);
		return 1;
	}
	if (!send_hello(fd, member_str(o, "host")))
		return 1;
	hello_to_main(sock, o);
	return carry_all(sock, fd, &b);
}
