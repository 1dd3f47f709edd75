// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD: resolve, connect and shake hands with libnbd, then take the sockets away from it.
 *
 * The kernel starts where the handshake ends, so nothing may be read ahead or sent after it: libnbd reads a socket by exact
 * lengths and only when it is polled, which is never again after NBD_OPT_GO; and nbd_close() closes its
 * descriptor without NBD_CMD_DISC (only nbd_shutdown() sends that). The socket lives on in the dup() taken before.
 * What it does with TLS stays its own: nbd_tls.c does that.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "iovmctl.h"
#include "../common/reserve.h"

#define EXPORTS_SHOWN	5
#define TLS_WANTED	"use TLS: 'path add --tls', or an address nbds://"

struct opt_u64 nbd_pace;

struct deadline {
	uint64_t end_ms;
	uint64_t all_ms;
};

/* Let libnbd work until it is no longer connecting. Returns false when time is up. */
static bool pump(struct nbd_handle *h, const struct deadline *d)
{
	while (nbd_aio_is_connecting(h) > 0) {
		uint64_t now = now_ms();

		if (now >= d->end_ms)
			return false;
		if (nbd_poll(h, (int)(d->end_ms - now)) < 0 && nbd_aio_is_connecting(h) > 0)
			break;
	}
	return true;
}

/* libnbd prefixes its messages with the function's name, which says nothing to an operator. */
static const char *nbd_reason(void)
{
	const char *msg = nbd_get_error(), *p;

	if (!msg)
		return "no reason given";
	p = strstr(msg, ": ");
	return !strncmp(msg, "nbd_", 4) && p ? p + 2 : msg;
}

struct export_list {
	char text[256];
	unsigned int nr;
};

static int list_export(void *data, const char *name, const char *description)
{
	struct export_list *l = data;
	size_t n = strlen(l->text);

	(void)description;
	if (l->nr++ < EXPORTS_SHOWN)
		snprintf(l->text + n, sizeof(l->text) - n, "%s'%s'", n ? ", " : "", name);
	return 0;
}

static int no_such_export(struct nbd_handle *h, const char *uri)
{
	struct export_list list = { "", 0 };
	char hint[320] = "", why[512];

	snprintf(why, sizeof(why), "%s", nbd_reason());
	if (strstr(why, "requires TLS"))
		return fail(EX_FAILED, TLS_WANTED, "%s: the server insists on TLS", uri);
	if (nbd_aio_is_negotiating(h) > 0 &&
	    nbd_opt_list(h, (nbd_list_callback){ .callback = list_export, .user_data = &list }) >= 0 && list.nr)
		snprintf(hint, sizeof(hint), "the server offers %s%s", list.text, list.nr > EXPORTS_SHOWN ? ", ..." : "");
	return fail(EX_NOT_FOUND, *hint ? hint : NULL, "%s: the server does not give out this export: %s", uri, why);
}

static int connect_failed(const char *uri)
{
	const char *why = nbd_reason(), *hint = NULL;
	int err = nbd_get_errno();

	if (strstr(why, "TLS") || strstr(why, "tls"))
		hint = TLS_WANTED;
	else if (err == ECONNREFUSED || err == ENOENT)
		hint = "is the NBD server running, and at this address?";
	else if (err == EHOSTUNREACH || err == ENETUNREACH)
		hint = "check the route and the firewall to the server";
	return fail(EX_FAILED, hint, "%s: cannot connect: %s", uri, why);
}

static int timed_out(const char *uri, const struct deadline *d)
{
	char t[32];

	text_ms(t, sizeof(t), d->all_ms);
	return fail(EX_FAILED, "--timeout gives it more time", "%s: the server did not finish the handshake in %s", uri, t);
}

static struct nbd_handle *new_handle(void)
{
	struct nbd_handle *h = nbd_create();

	if (!h)
		return NULL;
	if (nbd_set_opt_mode(h, true) < 0 || nbd_set_tls(h, LIBNBD_TLS_DISABLE) < 0 ||
	    nbd_set_uri_allow_tls(h, LIBNBD_TLS_DISABLE) < 0 ||
	    nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
	    nbd_set_request_structured_replies(h, true) < 0 ||
#ifdef LIBNBD_HAVE_NBD_SET_REQUEST_META_CONTEXT
	    nbd_set_request_meta_context(h, false) < 0 ||
#endif
#ifdef LIBNBD_HAVE_NBD_SET_REQUEST_EXTENDED_HEADERS
	    nbd_set_request_extended_headers(h, false) < 0 ||
#endif
	    nbd_set_request_block_size(h, true) < 0 || nbd_set_full_info(h, true) < 0) {
		nbd_close(h);
		return NULL;
	}
	return h;
}

/* Returns a handle in the transmission phase, or NULL and *code after having said why. */
static struct nbd_handle *shake_hands(const char *uri, const struct deadline *d, int *code)
{
	struct nbd_handle *h = new_handle();

	if (!h) {
		*code = fail(EX_FAILED, NULL, "%s: libnbd: %s", uri, nbd_reason());
		return NULL;
	}
	if (nbd_aio_connect_uri(h, uri) < 0) {
		*code = connect_failed(uri);
	} else if (!pump(h, d)) {
		*code = timed_out(uri, d);
	} else if (nbd_aio_is_negotiating(h) > 0) {
		if (nbd_aio_opt_go(h, NBD_NULL_COMPLETION) < 0)
			*code = connect_failed(uri);
		else if (!pump(h, d))
			*code = timed_out(uri, d);
		else if (nbd_aio_is_negotiating(h) > 0)
			*code = no_such_export(h, uri);
		else if (nbd_aio_is_ready(h) > 0)
			return h;
		else
			*code = connect_failed(uri);
	} else if (nbd_aio_is_ready(h) > 0) {
		return h;		/* an old server without options */
	} else {
		*code = connect_failed(uri);
	}
	nbd_close(h);
	return NULL;
}

static uint32_t block_size(struct nbd_handle *h, int which)
{
	int64_t v = nbd_get_block_size(h, which);

	return v > 0 && v <= UINT32_MAX ? (uint32_t)v : 0;
}

static void describe(struct nbd_handle *h, struct nbd_export *ex)
{
	static int (*const ask[16])(struct nbd_handle *) = {
		[NBD_READ_ONLY] = nbd_is_read_only,
		[NBD_SEND_FLUSH] = nbd_can_flush,
		[NBD_SEND_FUA] = nbd_can_fua,
		[NBD_ROTATIONAL] = nbd_is_rotational,
		[NBD_SEND_TRIM] = nbd_can_trim,
		[NBD_SEND_WRITE_ZEROES] = nbd_can_zero,
		[NBD_SEND_DF] = nbd_can_df,
		[NBD_CAN_MULTI_CONN] = nbd_can_multi_conn,
		[NBD_SEND_CACHE] = nbd_can_cache,
		[NBD_SEND_FAST_ZERO] = nbd_can_fast_zero,
	};
	int64_t bytes = nbd_get_size(h);
	char *description;
	int i;

	memset(ex, 0, sizeof(*ex));
	ex->bytes = bytes > 0 ? (uint64_t)bytes : 0;
	ex->flags = 1u << NBD_HAS_FLAGS;
	for (i = 0; i < 16; i++)
		if (ask[i] && ask[i](h) > 0)
			ex->flags |= 1u << i;
	ex->min_block = block_size(h, LIBNBD_SIZE_MINIMUM);
	ex->pref_block = block_size(h, LIBNBD_SIZE_PREFERRED);
	ex->max_payload = block_size(h, LIBNBD_SIZE_MAXIMUM);
	ex->structured = nbd_get_structured_replies_negotiated(h) > 0;
	description = nbd_get_export_description(h);
	identity_of_description(description, ex->identity);
	free(description);
}

static bool same(const struct nbd_export *a, const struct nbd_export *b)
{
	return a->bytes == b->bytes && a->flags == b->flags && a->min_block == b->min_block &&
	       a->max_payload == b->max_payload && a->structured == b->structured && !strcmp(a->identity, b->identity);
}

/* The socket of a handle as a descriptor of our own, blocking, with nothing unread; -1 and errno. */
static int take_socket(struct nbd_handle *h)
{
	int fd = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 3), fl, err;

	if (fd < 0)
		return -1;
	fl = fcntl(fd, F_GETFL);
	if (fl < 0 || fcntl(fd, F_SETFL, fl & ~O_NONBLOCK) < 0) {
		close(fd);
		return -1;
	}
	/* for good: nobody can set it any more once the kernel has it */
	err = nbd_pace.v ? reserve_mark(fd, 0, nbd_pace.v) : 0;
	if (err)
		warn("a connection could not be paced: %s", strerror(err));
	return fd;
}

static int connect_one(const char *uri, bool only_ask, const struct deadline *d, struct nbd_export *ex, int *fd)
{
	struct nbd_handle *h;
	int code = EX_DONE;

	if (!strncasecmp(uri, "nbds:", 5)) {
		uint64_t now = now_ms();

		return now < d->end_ms ? nbd_connect_tls(uri, only_ask, d->end_ms - now, ex, fd) : timed_out(uri, d);
	}
	h = shake_hands(uri, d, &code);
	if (!h)
		return code;
	describe(h, ex);
	if (only_ask) {
		nbd_shutdown(h, 0);
	} else {
		*fd = take_socket(h);
		if (*fd < 0)
			code = fail(EX_FAILED, NULL, "%s: cannot take over the socket: %s", uri, strerror(errno));
	}
	nbd_close(h);
	return code;
}

void nbd_close_export(struct nbd_export *ex)
{
	while (ex->nr)
		close(ex->fds[--ex->nr]);
}

int nbd_open_export(const char *uri, unsigned int want, bool only_ask, uint64_t timeout_ms, struct nbd_export *ex)
{
	struct deadline d = { .all_ms = timeout_ms ? timeout_ms : NBD_CONNECT_MS };
	struct nbd_export other;
	const char *what;
	int code, fd = -1;

	if (d.all_ms > 3600000)
		d.all_ms = 3600000;
	d.end_ms = now_ms() + d.all_ms;
	code = connect_one(uri, only_ask, &d, ex, &fd);
	if (code || only_ask)
		return code;
	ex->fds[ex->nr++] = fd;
	what = peer_buffers(fd);
	if (what)
		warn("%s: the server is %s, which answers from the page cache: after a failover the guest may read old data", uri, what);
	if (!(ex->flags & 1u << NBD_CAN_MULTI_CONN)) {
		if (want > 1)
			warn("%s: the server does not allow several connections to this export; using one", uri);
		return EX_DONE;
	}
	if (!want)
		want = NBD_DEFAULT_CONNECTIONS;
	while (ex->nr < want && ex->nr < IOVM_MAX_SOCKETS) {
		code = connect_one(uri, false, &d, &other, &fd);
		if (code)
			break;
		ex->fds[ex->nr++] = fd;
		if (!same(ex, &other)) {
			code = fail(EX_REFUSED, "is there more than one server behind this address?",
				    "%s: two connections were told different sizes or features", uri);
			break;
		}
	}
	if (code)
		nbd_close_export(ex);
	return code;
}
