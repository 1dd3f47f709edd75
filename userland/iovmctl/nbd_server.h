/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD, the server's side of the handshake (fixed newstyle, simple replies, STARTTLS). It needs nothing else of iovmctl's.
 */
#ifndef NBD_SERVER_H
#define NBD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/tls.h"

#define NBDS_DEFAULT_PORT	"10809"
#define NBDS_MAX_PAYLOAD	(32u << 20)	/* what the kernel takes of a READ or WRITE */

/**
 * struct nbds_export - what is offered
 * @name: at most 4096 bytes; a client that names none gets the first one
 * @description: for LIST and INFO
 * @bytes: size
 * @min_block: bytes
 * @pref_block: bytes
 * @flags: transmission flags
 * @next: what else is offered
 */
struct nbds_export {
	const char *name;
	const char *description;
	uint64_t bytes;
	uint32_t min_block;
	uint32_t pref_block;
	uint16_t flags;
	const struct nbds_export *next;
};

/**
 * struct nbds_tls - TLS is offered
 * @creds: the certificates
 * @required: a client that does not start TLS gets nothing
 * @granted: may be NULL; else called once it is known who the client is: what is offered then, in place of what was until then
 * @data: for @granted
 * @peer: out: who the client is; "" when it did not start TLS
 * @missed: out: the name that it asked for last and that there is none by, cut and fit to print; ""
 */
struct nbds_tls {
	const struct tls_creds *creds;
	bool required;
	const struct nbds_export *(*granted)(const char *peer, void *data);
	void *data;
	char peer[256];
	char missed[72];
};

enum nbds_end {
	NBDS_GO,		/* the socket is in the transmission phase, and nothing of it was read */
	NBDS_LEFT,		/* the client has left, as it may */
	NBDS_BAD,		/* it broke the protocol, was too slow, or cannot be served: why says how */
};

/* Shakes hands on a blocking socket, within timeout_ms. Of *ex and what follows, *ex becomes the one chosen. why: n bytes, for people. */
enum nbds_end nbds_handshake(int fd, const struct nbds_export **ex, unsigned int timeout_ms, char *why, size_t n);
/* The same, with TLS on offer (tls may be NULL); if the client started it, the kernel has the keys when it is NBDS_GO. */
enum nbds_end nbds_handshake_tls(int fd, const struct nbds_export **ex, struct nbds_tls *tls, unsigned int timeout_ms, char *why,
				 size_t n);

#endif /* NBD_SERVER_H */
