// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The channel to a peer and from it. Each connection has a process of its own, which does the handshakes and then carries lines between
 * the connection and the main process; what a stranger sends is read here first. Its first line to the main process says who the other
 * side is ("hello"), or why there is no channel ("error").
 *
 * With TLS, a peer is who its certificate says: the one that is known for [peer NAME] here. Certificates are read anew for every
 * connection, and a channel ends when the other's expires. Then the handshake, inside of TLS: whoever connects sends {"iovmd":1,
 * "host":ITS NAME,"to":THE OTHER'S,"release":...}, the other answers in kind, or with {"error":...}.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/net.h"
#include "../common/tls_cert.h"

#define PROTOCOL	1
#define HELLO_MS	5000
#define DEAD_MS		10000
#define TLS_HANDSHAKE	22	/* the first byte of a record of TLS that begins a session */

/**
 * struct chan - a connection
 * @tls: NULL: plain TCP
 * @cert: what the other side has shown, with TLS
 * @in: what came and was not taken yet
 */
struct chan {
	int fd;
	struct tls *tls;
	struct tls_cert cert;
	struct line_buf in;
};

static bool plain(void)
{
	return agent.config->host.plain_tcp;
}

/* --- writing and reading --- */

static bool put(struct chan *c, const char *text, size_t n)
{
	return c->tls ? !tls_write(c->tls, text, n, DEAD_MS) : send_all(c->fd, text, n);
}

static bool put_msg(struct chan *c, struct msg *m)
{
	size_t n;
	char *text = msg_end(m, &n);
	bool good = put(c, text, n);

	free(text);
	return good;
}

static ssize_t get(void *from, void *buf, size_t n, uint64_t timeout_ms)
{
	struct chan *c = from;

	return c->tls ? tls_read(c->tls, buf, n, timeout_ms) : line_get_fd(&c->fd, buf, n, timeout_ms);
}

static void tell(struct chan *c, const char *key, const char *text)
{
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, key, text);
	put_msg(c, &m);
}

/* To the main process */
static int give_up(int sock, const char *why)
{
	struct chan c = { .fd = sock };

	tell(&c, "error", why);
	return 1;
}

static int refused(int sock, const char *who, const char *why)
{
	struct msg m;

	msg_begin(&m);
	json_str(&m.j, "error", why);
	json_str(&m.j, "from", who);
	msg_write(&m, sock);
	return 1;
}

/* --- hello --- */

static bool send_hello(struct chan *c, const char *to)
{
	struct msg m;

	msg_begin(&m);
	json_u64(&m.j, "iovmd", PROTOCOL);
	json_str(&m.j, "host", agent.config->host.name);
	json_str(&m.j, "to", to);
	json_str(&m.j, "release", IOVM_RELEASE);
	return put_msg(c, &m);
}

/* NULL and why: it is not what it should be. */
static struct json_node *take_hello(struct chan *c, char why[WHY_MAX])
{
	struct json_node *o = line_get(get, c, &c->in, LINE_MAX_BYTES, HELLO_MS);
	const char *error;

	if ((!o || o->type != JSON_OBJECT) && c->tls && *tls_error(c->tls)) {
		snprintf(why, WHY_MAX, "%s", tls_error(c->tls));
		goto bad;
	}
	if (!o || o->type != JSON_OBJECT) {
		snprintf(why, WHY_MAX, "it did not say in %d s who it is: is that iovmd%s", HELLO_MS / 1000,
			 plain() ? ", and does it also use 'transport = plain-tcp'?" : "?");
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

/* --- TLS --- */

/* What a connection begins with, before anything is made for it; -1: nothing came in time. */
static int first_byte(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	unsigned char b;

	return poll(&p, 1, HELLO_MS) > 0 && recv(fd, &b, 1, MSG_PEEK) == 1 ? b : -1;
}

/* Does it look like what is spoken here? Whoever speaks something else is refused cheaply, and told why if it understands that. */
static bool same_transport(struct chan *c, char why[WHY_MAX])
{
	int b = first_byte(c->fd);

	if (b < 0)
		snprintf(why, WHY_MAX, "it said nothing in %d s", HELLO_MS / 1000);
	else if (plain() && b == TLS_HANDSHAKE)
		snprintf(why, WHY_MAX, "it uses TLS, and host '%s' has 'transport = plain-tcp'", agent.config->host.name);
	else if (!plain() && b == '{')
		snprintf(why, WHY_MAX, "host '%s' takes TLS only, and it has 'transport = plain-tcp'", agent.config->host.name);
	else if (!plain() && b != TLS_HANDSHAKE)
		snprintf(why, WHY_MAX, "it does not speak TLS");
	else
		return true;
	if (b == '{')
		tell(c, "error", why);
	return false;
}

static struct tls_creds *certificates(char why[WHY_MAX])
{
	struct tls_creds *creds;
	char text[WHY_MAX / 2];

	creds = tls_load(agent.config->host.tls_dir, text, sizeof(text));
	if (!creds)
		snprintf(why, WHY_MAX, "%s ('iovmctl peers enrol' makes this host's certificate)", text);
	return creds;
}

/* Was it made known here? */
static bool is_known(const struct config_peer *p, char why[WHY_MAX])
{
	char file[IOVM_ADDR_MAX + IOVM_NAME_MAX + 16], text[WHY_MAX / 2];
	const char *trouble;
	struct tls_cert cert;
	int r;

	snprintf(file, sizeof(file), "%s/peers/%s.crt", agent.config->host.tls_dir, p->name);
	r = tls_cert_read(file, &cert, text, sizeof(text));
	trouble = r ? NULL : tls_cert_trouble(&cert);
	if (r > 0)
		snprintf(why, WHY_MAX, "it is not known here: 'iovmctl peers enrol %s' makes the two hosts known to each other", p->name);
	else if (r)
		snprintf(why, WHY_MAX, "%s", text);
	else if (trouble)
		snprintf(why, WHY_MAX, "its certificate %s: 'iovmctl peers enrol %s' takes a new one", trouble, p->name);
	return !r && !trouble;
}

static bool start_client(struct chan *c, const struct config_peer *p, char why[WHY_MAX])
{
	struct tls_creds *creds = certificates(why);

	if (!creds)
		return false;
	c->tls = tls_client(creds, c->fd, p->name, HELLO_MS, why, WHY_MAX);
	if (c->tls)
		tls_cert_of_peer(c->tls, &c->cert);
	else if (strstr(why, "does not speak TLS") || strstr(why, "hung up"))
		strcat(why, ": does it have 'transport = plain-tcp'?");
	return c->tls;
}

static bool start_server(struct chan *c, char why[WHY_MAX])
{
	struct tls_creds *creds = certificates(why);

	if (!creds)
		return false;
	c->tls = tls_server(creds, c->fd, HELLO_MS, why, WHY_MAX);
	if (c->tls)
		tls_cert_of_peer(c->tls, &c->cert);
	return c->tls;
}

/* --- carrying --- */

static bool to_peer(int sock, struct chan *c)
{
	char buf[16384];
	ssize_t n = recv(sock, buf, sizeof(buf), 0);

	return n < 0 ? errno == EINTR : n && put(c, buf, (size_t)n);
}

static bool from_peer(struct chan *c, int sock)
{
	char buf[16384];
	ssize_t n;

	do {
		n = c->tls ? tls_read(c->tls, buf, sizeof(buf), 0) : recv(c->fd, buf, sizeof(buf), 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return true;
		if (n <= 0 || !send_all(sock, buf, (size_t)n))
			return false;
	} while (c->tls && tls_pending(c->tls));
	return true;
}

/* For poll(): until the other's certificate expires; it has, 0. */
static int time_left(const struct chan *c)
{
	time_t now = time(NULL);

	if (!c->tls)
		return -1;
	if (now > c->cert.until)
		return 0;
	return c->cert.until - now > INT_MAX / 1000 - 1 ? INT_MAX : (int)(c->cert.until - now + 1) * 1000;
}

static int carry_all(int sock, struct chan *c)
{
	struct pollfd p[2] = { { .fd = sock, .events = POLLIN }, { .fd = c->fd, .events = POLLIN } };
	int left;

	if (c->in.n && !send_all(sock, c->in.text, c->in.n))
		return 0;
	if (c->tls && tls_pending(c->tls) && !from_peer(c, sock))
		return 0;
	for (;;) {
		left = time_left(c);
		if (!left)
			return 0;
		if (poll(p, 2, left) < 0 && errno != EINTR)
			return 1;
		if (p[0].revents && !to_peer(sock, c))
			return 0;
		if (p[1].revents && !from_peer(c, sock))
			return 0;
	}
}

static int serve(int sock, struct chan *c, const struct json_node *o)
{
	struct msg m;
	int r;

	msg_begin(&m);
	json_str(&m.j, "hello", member_str(o, "host"));
	json_str(&m.j, "release", member_str(o, "release"));
	if (c->tls) {
		json_str(&m.j, "fingerprint", c->cert.fingerprint);
		json_u64(&m.j, "expires", (uint64_t)c->cert.until);
	}
	msg_write(&m, sock);
	r = carry_all(sock, c);
	tls_close(c->tls);
	return r;
}

int link_out(int sock, void *data)
{
	const struct config_peer *p = data;
	char why[WHY_MAX], net_why[NET_WHY];
	struct chan c = { 0 };
	struct json_node *o;

	if (!plain() && !is_known(p, why))
		return give_up(sock, why);
	c.fd = net_connect(p->address, p->peer_port, HELLO_MS, net_why);
	if (c.fd < 0)
		return give_up(sock, net_why);
	net_keepalive(c.fd, DEAD_MS);
	if (!plain() && !start_client(&c, p, why))
		return give_up(sock, why);
	if (!send_hello(&c, p->name))
		return give_up(sock, "it hung up at once");
	o = take_hello(&c, why);
	if (!o)
		return give_up(sock, why);
	if (strcmp(member_str(o, "host"), p->name)) {
		snprintf(why, sizeof(why), "at '%s' is host '%s', not '%s': see [peer %s]", p->address, member_str(o, "host"), p->name,
			 p->name);
		return give_up(sock, why);
	}
	return serve(sock, &c, o);
}

/* NULL and why: it is none of the peers, as far as it shows. */
static const struct config_peer *who(struct chan *c, const struct json_node *o, char why[WHY_MAX])
{
	const char *name = member_str(o, "host"), *to = member_str(o, "to");
	const struct config_peer *p = config_peer(agent.config, name);

	if (!to || strcmp(to, agent.config->host.name))
		snprintf(why, WHY_MAX, "this is host '%s', not '%s'", agent.config->host.name, to ?: "?");
	else if (c->tls && strcmp(tls_peer(c->tls), name))
		snprintf(why, WHY_MAX, "it says that it is host '%s', and shows the certificate that host '%s' knows '%s' by", name,
			 agent.config->host.name, tls_peer(c->tls));
	else if (!p)
		snprintf(why, WHY_MAX, "host '%s' has no [peer %s]", agent.config->host.name, name);
	else if (!c->tls && !net_peer_is(c->fd, p->address))
		snprintf(why, WHY_MAX, "host '%s' expects '%s' at '%s'; connections are plain TCP, a peer is known by its address",
			 agent.config->host.name, name, p->address);
	else
		return p;
	return NULL;
}

int link_in(int sock, void *data)
{
	struct chan c = { .fd = *(int *)data };
	char why[WHY_MAX], peer[128];
	struct json_node *o;

	net_keepalive(c.fd, DEAD_MS);
	net_peer_text(c.fd, peer, sizeof(peer));
	if (!same_transport(&c, why) || (!plain() && !start_server(&c, why)))
		return refused(sock, peer, why);
	o = take_hello(&c, why);
	if (!o)
		return refused(sock, peer, why);
	if (!who(&c, o, why)) {
		tell(&c, "error", why);
		tls_close(c.tls);
		return refused(sock, peer, why);
	}
	if (!send_hello(&c, member_str(o, "host")))
		return 1;
	return serve(sock, &c, o);
}
