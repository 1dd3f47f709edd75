// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD over TLS: resolve, connect, shake hands (userland/common/nbd_client.c); the kernel gets the keys with the socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/nbd_client.h"
#include "iovmctl.h"

/* A connected, blocking socket, or -1 and errno. */
static int connect_within(const struct addrinfo *a, uint64_t end_ms)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(err);
	uint64_t now;

	if (fd < 0)
		return -1;
	if (connect(fd, a->ai_addr, a->ai_addrlen)) {
		now = now_ms();
		err = errno;
		if (err == EINPROGRESS) {
			if (poll(&p, 1, now < end_ms ? (int)(end_ms - now) : 0) <= 0)
				err = ETIMEDOUT;
			else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
				err = errno;
		}
	}
	if (!err && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK))
		err = errno;
	if (!err)
		return fd;
	close(fd);
	errno = err;
	return -1;
}

static int dial(const char *uri, const struct addr_tls *addr, uint64_t end_ms, int *fd)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM }, *all, *a;
	int err = getaddrinfo(addr->host, addr->port, &hint, &all);

	if (err)
		return fail(EX_FAILED, NULL, "%s: cannot find '%s': %s", uri, addr->host, gai_strerror(err));
	*fd = -1;
	for (a = all; a && *fd < 0; a = a->ai_next)
		*fd = connect_within(a, end_ms);
	err = errno;
	freeaddrinfo(all);
	if (*fd >= 0)
		return EX_DONE;
	return fail(EX_FAILED, err == ECONNREFUSED ? "is the NBD server running, and at this address?" :
		    "check the route and the firewall to the server", "%s: cannot connect: %s", uri, strerror(err));
}

static void take_over(const struct nbdc_export *from, struct nbd_export *ex)
{
	memset(ex, 0, sizeof(*ex));
	ex->bytes = from->bytes;
	ex->flags = from->flags;
	ex->min_block = from->min_block;
	ex->pref_block = from->pref_block;
	ex->max_payload = from->max_payload;
	ex->structured = from->structured;
	ex->tls = true;
	identity_of_description(from->description, ex->identity);
}

int nbd_connect_tls(const char *uri, bool only_ask, uint64_t timeout_ms, struct nbd_export *ex, int *fd)
{
	uint64_t end_ms = now_ms() + timeout_ms, now;
	static struct nbdc_export found;
	struct nbdc_ask ask = { .only_ask = only_ask };
	struct tls_creds *creds;
	struct addr_tls addr;
	const char *bad;
	enum nbdc_end end;
	char why[512];
	int code;

	*fd = -1;
	bad = parse_addr_tls(uri, &addr);
	if (bad)
		return usage_error(NULL, "'%s' %s", uri, bad);
	creds = tls_load(*addr.dir ? addr.dir : TLS_DIR, why, sizeof(why));
	if (!creds)
		return fail(EX_FAILED, TLS_HINT, "%s: %s", uri, why);
	code = only_ask || !tls_kernel_ready(why, sizeof(why)) ? EX_DONE : fail(EX_NO_ACCESS, NULL, "%s", why);
	if (!code)
		code = dial(uri, &addr, end_ms, fd);
	if (code)
		goto out;
	now = now_ms();
	ask.creds = creds;
	ask.peer = addr.peer;
	ask.name = addr.export;
	ask.timeout_ms = now < end_ms ? end_ms - now : 0;
	end = nbdc_handshake(*fd, &ask, &found, why, sizeof(why));
	if (end == NBDC_GO || end == NBDC_ASKED)
		take_over(&found, ex);
	else
		code = fail(end == NBDC_NO_EXPORT ? EX_NOT_FOUND : EX_FAILED, NULL, "%s: %s", uri, why);
	if (end != NBDC_GO) {
		close(*fd);
		*fd = -1;
	}
out:
	tls_unload(creds);
	return code;
}

/* Appends text, with what a URI does not take written as %xx; false when it does not fit. */
static bool append(char *buf, size_t n, const char *text)
{
	size_t k = strlen(buf);

	for (; *text; text++, k += strlen(buf + k)) {
		bool plain = strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:", *text);

		if (n - k < 4)
			return false;
		snprintf(buf + k, n - k, plain ? "%c" : "%%%02X", (unsigned char)*text);
	}
	return true;
}

void nbd_tls_addr(const char *addr, const char *dir, const char *peer, char *buf, size_t n)
{
	const char *rest = strncasecmp(addr, "nbd://", 6) ? addr : addr + 6;
	bool fits = (size_t)snprintf(buf, n, "%s%s", rest == addr ? "" : "nbds://", rest) < n, query = strchr(addr, '?');

	if (fits && peer) {
		fits = strlen(buf) + 15 < n;
		if (fits)
			strcat(buf, query ? "&tls-hostname=" : "?tls-hostname=");
		fits = fits && append(buf, n, peer);
		query = true;
	}
	if (fits && dir) {
		fits = strlen(buf) + 19 < n;
		if (fits)
			strcat(buf, query ? "&tls-certificates=" : "?tls-certificates=");
		fits = fits && append(buf, n, dir);
	}
	if (!fits)
		*buf = 0;
}
