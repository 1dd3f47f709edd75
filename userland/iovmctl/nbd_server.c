// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD, the server's side of the handshake. See nbd_server.h.
 */
#include <endian.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../common/nbd_io.h"
#include "nbd_server.h"

#define MAX_OPTIONS	64
#define MAX_DATA	8192u		/* of an option: a name of 4096 bytes and what is asked of it */
#define MAX_SKIP	(1u << 20)

struct hand {
	struct nbd_io io;
	const struct nbds_export *all, *ex;
	struct nbds_tls *tls;		/* NULL: there is none */
	bool no_zeroes;
	bool plain;			/* TLS is required, and it tried without */
};

static int bad(struct hand *h, const char *what)
{
	return nbd_io_bad(&h->io, "%s", what);
}

/* @len bytes at @data, and @len2 behind them */
static int answer2(struct hand *h, uint32_t opt, uint32_t type, const void *data, size_t len, const void *data2, size_t len2)
{
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t opt, type, len;
	} r = { htobe64(NBD_REP_MAGIC), htobe32(opt), htobe32(type), htobe32((uint32_t)(len + len2)) };

	return nbd_io_put(&h->io, &r, sizeof(r)) || nbd_io_put(&h->io, data, len) || nbd_io_put(&h->io, data2, len2) ? -1 : 0;
}

static int answer(struct hand *h, uint32_t opt, uint32_t type, const void *data, size_t len)
{
	return answer2(h, opt, type, data, len, NULL, 0);
}

static int refuse(struct hand *h, uint32_t opt, uint32_t type, const char *text)
{
	return answer(h, opt, type, text, strlen(text));
}

/* By its name in full, or the first by none at all; NULL: there is no such export. */
static const struct nbds_export *find(struct hand *h, const unsigned char *name, uint32_t len)
{
	const struct nbds_export *ex = h->all;
	size_t i;

	while (ex && len && (len != strlen(ex->name) || memcmp(name, ex->name, len)))
		ex = ex->next;
	if (!ex && h->tls) {
		snprintf(h->tls->missed, sizeof(h->tls->missed), "%.*s", (int)(len < 4096 ? len : 4096), (const char *)name);
		for (i = 0; h->tls->missed[i]; i++)
			if (h->tls->missed[i] < ' ' || h->tls->missed[i] > '~')
				h->tls->missed[i] = '?';
	}
	return ex;
}

static int export_name(struct hand *h, const unsigned char *name, uint32_t len)
{
	struct __attribute__((packed)) {
		uint64_t bytes;
		uint16_t flags;
		char zeroes[124];
	} r = { 0 };

	h->ex = find(h, name, len);
	/* there is no other way to say so */
	if (!h->ex)
		return bad(h, "it asked for another export");
	r.bytes = htobe64(h->ex->bytes);
	r.flags = htobe16(h->ex->flags);
	return nbd_io_put(&h->io, &r, h->no_zeroes ? 10 : sizeof(r));
}

static int list_one(struct hand *h, const struct nbds_export *ex)
{
	size_t n = strlen(ex->name);
	uint32_t head = htobe32((uint32_t)n);
	char both[4 + 4096];

	if (n > 4096)
		n = 4096;
	memcpy(both, &head, 4);
	memcpy(both + 4, ex->name, n);
	return answer2(h, NBD_OPT_LIST, NBD_REP_SERVER, both, 4 + n, ex->description, strlen(ex->description));
}

static int list(struct hand *h, uint32_t len)
{
	const struct nbds_export *ex;

	if (len)
		return refuse(h, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST has no data");
	for (ex = h->all; ex; ex = ex->next)
		if (list_one(h, ex))
			return -1;
	return answer(h, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static int tell(struct hand *h, uint32_t opt, uint16_t what)
{
	const struct nbds_export *ex = h->ex;
	uint16_t head = htobe16(what);
	struct __attribute__((packed)) {
		uint16_t info;
		uint64_t bytes;
		uint16_t flags;
	} export = { head, htobe64(ex->bytes), htobe16(ex->flags) };
	struct __attribute__((packed)) {
		uint16_t info;
		uint32_t min, pref, max;
	} block = { head, htobe32(ex->min_block), htobe32(ex->pref_block), htobe32(NBDS_MAX_PAYLOAD) };

	switch (what) {
	case NBD_INFO_EXPORT:
		return answer(h, opt, NBD_REP_INFO, &export, sizeof(export));
	case NBD_INFO_BLOCK_SIZE:
		return answer(h, opt, NBD_REP_INFO, &block, sizeof(block));
	case NBD_INFO_NAME:
		return answer2(h, opt, NBD_REP_INFO, &head, 2, ex->name, strlen(ex->name));
	case NBD_INFO_DESCRIPTION:
		return answer2(h, opt, NBD_REP_INFO, &head, 2, ex->description, strlen(ex->description));
	default:
		return 0;	/* not known: may be left out */
	}
}

/* INFO and GO; 1: the transmission phase begins. */
static int info(struct hand *h, uint32_t opt, const unsigned char *data, uint32_t len)
{
	uint32_t name_len, i;
	uint16_t nr;

	if (len < 6)
		return refuse(h, opt, NBD_REP_ERR_INVALID, "too short");
	name_len = nbd_be32(data);
	if (name_len > len - 6)
		return refuse(h, opt, NBD_REP_ERR_INVALID, "the name is longer than the option");
	nr = nbd_be16(data + 4 + name_len);
	if (len != 6 + name_len + 2u * nr)
		return refuse(h, opt, NBD_REP_ERR_INVALID, "its length does not fit what it holds");
	h->ex = find(h, data + 4, name_len);
	if (!h->ex)
		return refuse(h, opt, NBD_REP_ERR_UNKNOWN, "there is no such export");
	/* the size of blocks is said unasked, too: requests that do not keep to it are refused */
	if (tell(h, opt, NBD_INFO_EXPORT) || tell(h, opt, NBD_INFO_BLOCK_SIZE))
		return -1;
	for (i = 0; i < nr; i++) {
		uint16_t what = nbd_be16(data + 6 + name_len + 2 * i);

		if ((what == NBD_INFO_NAME || what == NBD_INFO_DESCRIPTION) && tell(h, opt, what))
			return -1;
	}
	if (answer(h, opt, NBD_REP_ACK, NULL, 0))
		return -1;
	return opt == NBD_OPT_GO;
}

static int start_tls(struct hand *h, uint32_t len)
{
	if (!h->tls)
		return refuse(h, NBD_OPT_STARTTLS, NBD_REP_ERR_UNSUP, "this server has no certificate");
	if (h->io.tls || len)
		return refuse(h, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, h->io.tls ? "TLS is on already" : "STARTTLS has no data");
	if (answer(h, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0))
		return -1;
	h->io.tls = tls_server(h->tls->creds, h->io.fd, nbd_io_left(&h->io), h->io.why, h->io.n);
	if (!h->io.tls)
		return -1;
	snprintf(h->tls->peer, sizeof(h->tls->peer), "%s", tls_peer(h->io.tls));
	if (h->tls->granted)
		h->all = h->tls->granted(h->tls->peer, h->tls->data);
	return 0;
}

/* What a client may do that has not started TLS where it must */
static int without_tls(struct hand *h, uint32_t opt)
{
	switch (opt) {
	case NBD_OPT_ABORT:
	case NBD_OPT_STARTTLS:
		return 0;
	case NBD_OPT_EXPORT_NAME:
		return bad(h, "it wants a plain connection; TLS is required here");
	default:
		h->plain = true;
		return refuse(h, opt, NBD_REP_ERR_TLS_REQD, "this server requires TLS") ? -1 : 1;
	}
}

/* One option: 0 the next one, 1 the transmission phase begins, 2 the client leaves, -1 the end. */
static int option(struct hand *h)
{
	unsigned char head[16], data[MAX_DATA];
	static const uint64_t magic = NBD_OPT_MAGIC;
	uint64_t be = htobe64(magic);
	uint32_t opt, len;
	int r;

	if (nbd_io_get(&h->io, head, sizeof(head)))
		return -1;
	if (memcmp(head, &be, 8))
		return bad(h, "it does not speak NBD");
	opt = nbd_be32(head + 8);
	len = nbd_be32(head + 12);
	if (len > MAX_SKIP)
		return bad(h, "an option of more than a megabyte");
	if (len > MAX_DATA) {
		if (nbd_io_skip(&h->io, len))
			return -1;
		return opt == NBD_OPT_EXPORT_NAME ? bad(h, "it asked for another export") :
						refuse(h, opt, NBD_REP_ERR_TOO_BIG, "too long");
	}
	if (nbd_io_get(&h->io, data, len))
		return -1;
	if (h->tls && h->tls->required && !h->io.tls) {
		r = without_tls(h, opt);
		if (r)
			return r < 0 ? -1 : 0;
	}
	switch (opt) {
	case NBD_OPT_STARTTLS:
		return start_tls(h, len);
	case NBD_OPT_EXPORT_NAME:
		return export_name(h, data, len) ? -1 : 1;
	case NBD_OPT_ABORT:
		answer(h, opt, NBD_REP_ACK, NULL, 0);
		return 2;
	case NBD_OPT_LIST:
		return list(h, len);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return info(h, opt, data, len);
	default:
		return refuse(h, opt, NBD_REP_ERR_UNSUP, "");
	}
}

static enum nbds_end handshake(struct hand *h)
{
	struct __attribute__((packed)) {
		uint64_t magic, opts;
		uint16_t flags;
	} hello = { htobe64(NBD_MAGIC), htobe64(NBD_OPT_MAGIC), htobe16(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES) };
	unsigned char flags[4];
	int i, r;

	if (nbd_io_put(&h->io, &hello, sizeof(hello)) || nbd_io_get(&h->io, flags, 4))
		return NBDS_BAD;
	if (nbd_be32(flags) & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)) {
		bad(h, "it has flags that are not known");
		return NBDS_BAD;
	}
	h->no_zeroes = nbd_be32(flags) & NBD_NO_ZEROES;
	for (i = 0; i < MAX_OPTIONS; i++) {
		r = option(h);
		if (r)
			return r == 1 ? NBDS_GO : r == 2 ? NBDS_LEFT : NBDS_BAD;
	}
	bad(h, "it haggled for too long");
	return NBDS_BAD;
}

enum nbds_end nbds_handshake_tls(int fd, const struct nbds_export **ex, struct nbds_tls *tls, unsigned int timeout_ms, char *why,
				 size_t n)
{
	struct hand h = { .io = { .fd = fd, .end_ms = ms_now() + timeout_ms, .why = why, .n = n }, .all = *ex, .tls = tls };
	enum nbds_end end;

	snprintf(why, n, "%s", "");
	if (tls)
		*tls->peer = *tls->missed = 0;
	end = handshake(&h);
	if (end == NBDS_GO)
		*ex = h.ex;
	if (!h.io.tls) {
		if (end == NBDS_BAD && h.plain)
			bad(&h, "it did not start TLS, which is required here");
		return end;
	}
	if (end == NBDS_GO)
		return tls_to_kernel(h.io.tls, why, n) ? NBDS_BAD : NBDS_GO;
	tls_close(h.io.tls);
	return end;
}

enum nbds_end nbds_handshake(int fd, const struct nbds_export **ex, unsigned int timeout_ms, char *why, size_t n)
{
	return nbds_handshake_tls(fd, ex, NULL, timeout_ms, why, n);
}
