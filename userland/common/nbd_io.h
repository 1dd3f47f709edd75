/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD handshakes, of either end: numbers of the protocol, and reading and writing within a time limit, plain or through TLS. Each read
 * is of exactly what is due, so that nothing of the transmission phase is taken away from the kernel.
 */
#ifndef IOVM_NBD_IO_H
#define IOVM_NBD_IO_H

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "tls.h"

#define NBD_MAGIC	0x4e42444d41474943ULL	/* NBDMAGIC */
#define NBD_OPT_MAGIC	0x49484156454f5054ULL	/* IHAVEOPT */
#define NBD_REP_MAGIC	0x0003e889045565a9ULL

enum { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };
enum {
	NBD_OPT_EXPORT_NAME = 1, NBD_OPT_ABORT = 2, NBD_OPT_LIST = 3, NBD_OPT_STARTTLS = 5, NBD_OPT_INFO = 6, NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
};
enum { NBD_INFO_EXPORT, NBD_INFO_NAME, NBD_INFO_DESCRIPTION, NBD_INFO_BLOCK_SIZE };

#define NBD_REP_ACK		1u
#define NBD_REP_SERVER		2u
#define NBD_REP_INFO		3u
#define NBD_REP_ERR		(1u << 31)
#define NBD_REP_ERR_UNSUP	(NBD_REP_ERR | 1)
#define NBD_REP_ERR_POLICY	(NBD_REP_ERR | 2)
#define NBD_REP_ERR_INVALID	(NBD_REP_ERR | 3)
#define NBD_REP_ERR_TLS_REQD	(NBD_REP_ERR | 5)
#define NBD_REP_ERR_UNKNOWN	(NBD_REP_ERR | 6)
#define NBD_REP_ERR_TOO_BIG	(NBD_REP_ERR | 9)

/**
 * struct nbd_io - a handshake under way
 * @fd: blocking or not
 * @tls: NULL: plain
 * @end_ms: CLOCK_MONOTONIC
 * @why: what went wrong, for people
 * @n: bytes of it
 */
struct nbd_io {
	int fd;
	struct tls *tls;
	uint64_t end_ms;
	char *why;
	size_t n;
};

uint64_t nbd_io_left(const struct nbd_io *io);		/* ms */

/* Sets why; -1, as all below when they fail. */
int nbd_io_bad(struct nbd_io *io, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int nbd_io_get(struct nbd_io *io, void *buf, size_t n);
int nbd_io_put(struct nbd_io *io, const void *buf, size_t n);
int nbd_io_skip(struct nbd_io *io, uint32_t n);

static inline uint16_t nbd_be16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t nbd_be32(const unsigned char *p)
{
	return (uint32_t)nbd_be16(p) << 16 | nbd_be16(p + 2);
}

static inline uint64_t nbd_be64(const unsigned char *p)
{
	return (uint64_t)nbd_be32(p) << 32 | nbd_be32(p + 4);
}

#endif
