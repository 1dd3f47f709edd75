// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD, the client's side of the handshake. See nbd_client.h.
 *
 * A server that is asked for TLS and does not offer it is left: nothing is sent in the clear but the wish for TLS.
 */
#include <endian.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "nbd_client.h"
#include "nbd_io.h"

#define MAX_REPLIES	64		/* to one option */
#define MAX_DATA	8192u		/* of one reply */

struct hand {
	struct nbd_io io;
	const struct nbdc_ask *ask;
	struct nbdc_export *ex;
	bool got_export;
};

struct reply {
	uint32_t type, len;
	unsigned char data[MAX_DATA];
};

static int bad(struct hand *h, const char *what)
{
	return nbd_io_bad(&h->io, "%s", what);
}

static int send_option(struct hand *h, uint32_t opt, const void *data, uint32_t len)
{
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t opt, len;
		unsigned char data[4 + NBDC_NAME_MAX + 2 + 3 * 2];
	} o = { .magic = htobe64(NBD_OPT_MAGIC), .opt = htobe32(opt), .len = htobe32(len) };

	if (len)
		memcpy(o.data, data, len);
	return nbd_io_put(&h->io, &o, 16 + len);
}

static int get_reply(struct hand *h, uint32_t opt, struct reply *r)
{
	unsigned char head[20];

	if (nbd_io_get(&h->io, head, sizeof(head)))
		return -1;
	if (nbd_be64(head) != NBD_REP_MAGIC || nbd_be32(head + 8) != opt)
		return bad(h, "it does not speak NBD (a reply is out of order)");
	r->type = nbd_be32(head + 12);
	r->len = nbd_be32(head + 16);
	if (r->len > MAX_DATA)
		return bad(h, "it sent a reply of more than 8 KiB");
	return nbd_io_get(&h->io, r->data, r->len);
}

/* What the server says with an error, or what the error is */
static int refused(struct hand *h, const char *what, const struct reply *r)
{
	static const char *const names[] = { [1] = "not supported", "forbidden", "invalid", "not on this platform", "TLS is required",
					     "unknown", "shutting down", "block sizes are required", "too big" };
	uint32_t e = r->type & ~NBD_REP_ERR, i, n = r->len < 120 ? r->len : 120;
	char text[121];

	for (i = 0; i < n; i++)
		text[i] = r->data[i] < ' ' || r->data[i] > '~' ? '?' : (char)r->data[i];
	text[n] = 0;
	return nbd_io_bad(&h->io, "%s: %s%s%s", what, e < sizeof(names) / sizeof(*names) && names[e] ? names[e] : "error",
			  n ? ": " : "", text);
}

static int start_tls(struct hand *h)
{
	struct reply r;

	if (send_option(h, NBD_OPT_STARTTLS, NULL, 0) || get_reply(h, NBD_OPT_STARTTLS, &r))
		return -1;
	if (r.type == NBD_REP_ERR_UNSUP || r.type == NBD_REP_ERR_POLICY)
		return bad(h, "it does not offer TLS");
	if (r.type & NBD_REP_ERR)
		return refused(h, "it refused TLS", &r);
	if (r.type != NBD_REP_ACK || r.len)
		return bad(h, "it does not speak NBD (a reply to STARTTLS)");
	h->io.tls = tls_client(h->ask->creds, h->io.fd, h->ask->peer, nbd_io_left(&h->io), h->io.why, h->io.n);
	return h->io.tls ? 0 : -1;
}

static int structured(struct hand *h)
{
	struct reply r;

	if (send_option(h, NBD_OPT_STRUCTURED_REPLY, NULL, 0) || get_reply(h, NBD_OPT_STRUCTURED_REPLY, &r))
		return -1;
	h->ex->structured = r.type == NBD_REP_ACK;
	return 0;
}

static int info(struct hand *h, const unsigned char *data, uint32_t len)
{
	struct nbdc_export *ex = h->ex;

	if (len < 2)
		return bad(h, "it sent information without a type");
	switch (nbd_be16(data)) {
	case NBD_INFO_EXPORT:
		if (len != 12)
			return bad(h, "it sent a size that is none");
		ex->bytes = nbd_be64(data + 2);
		ex->flags = nbd_be16(data + 10);
		if (ex->bytes > INT64_MAX)
			return bad(h, "its export is larger than can be");
		h->got_export = true;
		return 0;
	case NBD_INFO_BLOCK_SIZE:
		if (len != 14)
			return bad(h, "it sent block sizes that are none");
		ex->min_block = nbd_be32(data + 2);
		ex->pref_block = nbd_be32(data + 6);
		ex->max_payload = nbd_be32(data + 10);
		if (!ex->min_block || ex->min_block & (ex->min_block - 1) || ex->min_block > 65536)
			return nbd_io_bad(&h->io, "its smallest block, %u bytes, is no power of two up to 64 KiB", ex->min_block);
		return 0;
	case NBD_INFO_DESCRIPTION:
		if (len - 2 > NBDC_DESCRIPTION_MAX)
			return bad(h, "its description is longer than 4096 bytes");
		memcpy(ex->description, data + 2, len - 2);
		ex->description[len - 2] = 0;
		return 0;
	default:
		return 0;
	}
}

/* INFO or GO: 0, 1 the server has no such export, -1 */
static int go(struct hand *h, uint32_t opt)
{
	uint32_t n = (uint32_t)strlen(h->ask->name), be = htobe32(n);
	unsigned char data[4 + NBDC_NAME_MAX + 2 + 3 * 2], *p = data + 4 + n;
	struct reply r;
	int i;

	memcpy(data, &be, 4);
	memcpy(data + 4, h->ask->name, n);
	/* asked for: whoever asks for block sizes must keep to them, and we do */
	memcpy(p, (const unsigned char[]){ 0, 2, 0, NBD_INFO_DESCRIPTION, 0, NBD_INFO_BLOCK_SIZE }, 6);
	if (send_option(h, opt, data, 4 + n + 6))
		return -1;
	for (i = 0; i < MAX_REPLIES; i++) {
		if (get_reply(h, opt, &r))
			return -1;
		if (r.type == NBD_REP_INFO) {
			if (info(h, r.data, r.len))
				return -1;
			continue;
		}
		if (r.type == NBD_REP_ACK)
			return h->got_export ? 0 : bad(h, "it did not say how large the export is");
		if (r.type == NBD_REP_ERR_UNKNOWN) {
			refused(h, "it does not give out this export", &r);
			return 1;
		}
		if (r.type == NBD_REP_ERR_TLS_REQD)
			return bad(h, "it insists on TLS");
		if (r.type & NBD_REP_ERR)
			return refused(h, "it refused the export", &r);
		return bad(h, "it does not speak NBD (a reply to GO)");
	}
	return bad(h, "it sent too much information");
}

static int hello(struct hand *h)
{
	unsigned char head[18];
	uint32_t flags;

	if (nbd_io_get(&h->io, head, sizeof(head)))
		return -1;
	if (nbd_be64(head) != NBD_MAGIC)
		return bad(h, "it does not speak NBD");
	if (nbd_be64(head + 8) != NBD_OPT_MAGIC || !(nbd_be16(head + 16) & NBD_FIXED_NEWSTYLE))
		return bad(h, "it speaks an old form of NBD, without options");
	flags = htobe32((uint32_t)nbd_be16(head + 16) & (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES));
	return nbd_io_put(&h->io, &flags, 4);
}

enum nbdc_end nbdc_handshake(int fd, const struct nbdc_ask *ask, struct nbdc_export *ex, char *why, size_t n)
{
	struct hand h = { .io = { .fd = fd, .end_ms = ms_now() + ask->timeout_ms, .why = why, .n = n }, .ask = ask, .ex = ex };
	int r;

	memset(ex, 0, sizeof(*ex));
	snprintf(why, n, "%s", "");
	if (strlen(ask->name) > NBDC_NAME_MAX) {
		bad(&h, "the name of an export has at most 4096 bytes");
		return NBDC_BAD;
	}
	r = hello(&h);
	if (!r && ask->creds)
		r = start_tls(&h);
	if (!r)
		r = structured(&h);
	if (!r)
		r = go(&h, ask->only_ask ? NBD_OPT_INFO : NBD_OPT_GO);
	if (!r && !ask->only_ask) {
		if (!h.io.tls)
			return NBDC_GO;
		return tls_to_kernel(h.io.tls, why, n) ? NBDC_BAD : NBDC_GO;
	}
	if (!r)
		send_option(&h, NBD_OPT_ABORT, NULL, 0);
	tls_close(h.io.tls);
	return r > 0 ? NBDC_NO_EXPORT : r ? NBDC_BAD : NBDC_ASKED;
}
