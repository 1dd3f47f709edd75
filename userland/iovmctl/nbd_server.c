// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD, the server's side of the handshake. Each read is of exactly what is due, so that nothing of the transmission phase is
 * taken away from the kernel.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "nbd_server.h"

#define MAGIC		0x4e42444d41474943ULL	/* NBDMAGIC */
#define OPT_MAGIC	0x49484156454f5054ULL	/* IHAVEOPT */
#define REP_MAGIC	0x0003e889045565a9ULL

enum { FIXED_NEWSTYLE = 1, NO_ZEROES = 2 };
enum { OPT_EXPORT_NAME = 1, OPT_ABORT = 2, OPT_LIST = 3, OPT_INFO = 6, OPT_GO = 7 };
enum { INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE };

#define REP_ACK		1u
#define REP_SERVER	2u
#define REP_INFO	3u
#define ERR_UNSUP	(1u << 31 | 1)
#define ERR_INVALID	(1u << 31 | 3)
#define ERR_UNKNOWN	(1u << 31 | 6)
#define ERR_TOO_BIG	(1u << 31 | 9)

#define MAX_OPTIONS	64
#define MAX_DATA	8192u		/* of an option: a name of 4096 bytes and what is asked of it */
#define MAX_SKIP	(1u << 20)

struct hand {
	int fd;
	const struct nbds_export *all, *ex;
	uint64_t end_ms;
	bool no_zeroes;
	char *why;
	size_t n;
};

static uint64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int bad(struct hand *h, const char *what)
{
	snprintf(h->why, h->n, "%s", what);
	return -1;
}

static int wait_for(struct hand *h, short events)
{
	struct pollfd p = { .fd = h->fd, .events = events };
	uint64_t now = clock_ms();
	int r;

	do
		r = now < h->end_ms ? poll(&p, 1, (int)(h->end_ms - now)) : 0;
	while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : bad(h, "it was too slow");
}

static int get(struct hand *h, void *buf, size_t n)
{
	ssize_t r;

	while (n) {
		if (wait_for(h, POLLIN))
			return -1;
		r = recv(h->fd, buf, n, MSG_DONTWAIT);
		if (r < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r <= 0)
			return bad(h, "it hung up during the handshake");
		buf = (char *)buf + r;
		n -= (size_t)r;
	}
	return 0;
}

static int put(struct hand *h, const void *buf, size_t n)
{
	ssize_t r;

	while (n) {
		if (wait_for(h, POLLOUT))
			return -1;
		r = send(h->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r < 0)
			return bad(h, "it hung up during the handshake");
		buf = (const char *)buf + r;
		n -= (size_t)r;
	}
	return 0;
}

static int skip(struct hand *h, uint32_t n)
{
	char buf[512];

	while (n) {
		uint32_t k = n < sizeof(buf) ? n : (uint32_t)sizeof(buf);

		if (get(h, buf, k))
			return -1;
		n -= k;
	}
	return 0;
}

static uint16_t be16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

/* @len bytes at @data, and @len2 behind them */
static int answer2(struct hand *h, uint32_t opt, uint32_t type, const void *data, size_t len, const void *data2, size_t len2)
{
	struct __attribute__((packed)) {
		uint64_t magic;
		uint32_t opt, type, len;
	} r = { htobe64(REP_MAGIC), htobe32(opt), htobe32(type), htobe32((uint32_t)(len + len2)) };

	return put(h, &r, sizeof(r)) || put(h, data, len) || put(h, data2, len2) ? -1 : 0;
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
static const struct nbds_export *find(const struct hand *h, const unsigned char *name, uint32_t len)
{
	const struct nbds_export *ex = h->all;

	while (ex && len && (len != strlen(ex->name) || memcmp(name, ex->name, len)))
		ex = ex->next;
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
	return put(h, &r, h->no_zeroes ? 10 : sizeof(r));
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
	return answer2(h, OPT_LIST, REP_SERVER, both, 4 + n, ex->description, strlen(ex->description));
}

static int list(struct hand *h, uint32_t len)
{
	const struct nbds_export *ex;

	if (len)
		return refuse(h, OPT_LIST, ERR_INVALID, "LIST has no data");
	for (ex = h->all; ex; ex = ex->next)
		if (list_one(h, ex))
			return -1;
	return answer(h, OPT_LIST, REP_ACK, NULL, 0);
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
	case INFO_EXPORT:
		return answer(h, opt, REP_INFO, &export, sizeof(export));
	case INFO_BLOCK_SIZE:
		return answer(h, opt, REP_INFO, &block, sizeof(block));
	case INFO_NAME:
		return answer2(h, opt, REP_INFO, &head, 2, ex->name, strlen(ex->name));
	case INFO_DESCRIPTION:
		return answer2(h, opt, REP_INFO, &head, 2, ex->description, strlen(ex->description));
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
		return refuse(h, opt, ERR_INVALID, "too short");
	name_len = be32(data);
	if (name_len > len - 6)
		return refuse(h, opt, ERR_INVALID, "the name is longer than the option");
	nr = be16(data + 4 + name_len);
	if (len != 6 + name_len + 2u * nr)
		return refuse(h, opt, ERR_INVALID, "its length does not fit what it holds");
	h->ex = find(h, data + 4, name_len);
	if (!h->ex)
		return refuse(h, opt, ERR_UNKNOWN, "there is no such export");
	/* the size of blocks is said unasked, too: requests that do not keep to it are refused */
	if (tell(h, opt, INFO_EXPORT) || tell(h, opt, INFO_BLOCK_SIZE))
		return -1;
	for (i = 0; i < nr; i++) {
		uint16_t what = be16(data + 6 + name_len + 2 * i);

		if ((what == INFO_NAME || what == INFO_DESCRIPTION) && tell(h, opt, what))
			return -1;
	}
	if (answer(h, opt, REP_ACK, NULL, 0))
		return -1;
	return opt == OPT_GO;
}

/* One option: 0 the next one, 1 the transmission phase begins, 2 the client leaves, -1 the end. */
static int option(struct hand *h)
{
	unsigned char head[16], data[MAX_DATA];
	static const uint64_t magic = OPT_MAGIC;
	uint64_t be = htobe64(magic);
	uint32_t opt, len;

	if (get(h, head, sizeof(head)))
		return -1;
	if (memcmp(head, &be, 8))
		return bad(h, "it does not speak NBD");
	opt = be32(head + 8);
	len = be32(head + 12);
	if (len > MAX_SKIP)
		return bad(h, "an option of more than a megabyte");
	if (len > MAX_DATA) {
		if (skip(h, len))
			return -1;
		return opt == OPT_EXPORT_NAME ? bad(h, "it asked for another export") :
						refuse(h, opt, ERR_TOO_BIG, "too long");
	}
	if (get(h, data, len))
		return -1;
	switch (opt) {
	case OPT_EXPORT_NAME:
		return export_name(h, data, len) ? -1 : 1;
	case OPT_ABORT:
		answer(h, opt, REP_ACK, NULL, 0);
		return 2;
	case OPT_LIST:
		return list(h, len);
	case OPT_INFO:
	case OPT_GO:
		return info(h, opt, data, len);
	default:
		return refuse(h, opt, ERR_UNSUP, "");
	}
}

enum nbds_end nbds_handshake(int fd, const struct nbds_export **ex, unsigned int timeout_ms, char *why, size_t n)
{
	struct hand h = { .fd = fd, .all = *ex, .end_ms = clock_ms() + timeout_ms, .why = why, .n = n };
	struct __attribute__((packed)) {
		uint64_t magic, opts;
		uint16_t flags;
	} hello = { htobe64(MAGIC), htobe64(OPT_MAGIC), htobe16(FIXED_NEWSTYLE | NO_ZEROES) };
	unsigned char flags[4];
	int i, r;

	snprintf(why, n, "%s", "");
	if (put(&h, &hello, sizeof(hello)) || get(&h, flags, 4))
		return NBDS_BAD;
	if (be32(flags) & ~(uint32_t)(FIXED_NEWSTYLE | NO_ZEROES)) {
		bad(&h, "it has flags that are not known");
		return NBDS_BAD;
	}
	h.no_zeroes = be32(flags) & NO_ZEROES;
	for (i = 0; i < MAX_OPTIONS; i++) {
		r = option(&h);
		if (r == 1)
			*ex = h.ex;
		if (r)
			return r == 1 ? NBDS_GO : r == 2 ? NBDS_LEFT : NBDS_BAD;
	}
	bad(&h, "it haggled for too long");
	return NBDS_BAD;
}
