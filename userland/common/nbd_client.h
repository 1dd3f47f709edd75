/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD, the client's side of the handshake over TLS (fixed newstyle, STARTTLS, GO). libnbd, which does it for plain connections, keeps
 * the keys of a session to itself.
 */
#ifndef IOVM_NBD_CLIENT_H
#define IOVM_NBD_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "tls.h"

#define NBDC_NAME_MAX		4096
#define NBDC_DESCRIPTION_MAX	4096

/**
 * struct nbdc_ask - what is wanted
 * @creds: NULL: without TLS
 * @peer: the server's name
 * @name: of the export
 * @only_ask: take leave as soon as all is known
 * @timeout_ms: for all of it
 */
struct nbdc_ask {
	const struct tls_creds *creds;
	const char *peer;
	const char *name;
	bool only_ask;
	uint64_t timeout_ms;
};

/**
 * struct nbdc_export - what the server says
 * @bytes: size
 * @flags: transmission flags
 * @min_block: bytes; 0: not said, like the next two
 * @pref_block: bytes
 * @max_payload: bytes
 * @structured: structured replies were agreed upon
 * @description: "" none
 */
struct nbdc_export {
	uint64_t bytes;
	uint16_t flags;
	uint32_t min_block, pref_block, max_payload;
	bool structured;
	char description[NBDC_DESCRIPTION_MAX + 1];
};

enum nbdc_end {
	NBDC_GO,		/* transmission phase; with TLS, the kernel has the keys */
	NBDC_ASKED,		/* all is known, and the server left (only_ask) */
	NBDC_NO_EXPORT,		/* the server has no such export */
	NBDC_BAD,		/* anything else */
};

/* Shakes hands on a connected socket. Unless it is NBDC_GO, the socket is of no use any more. why: n bytes, after the server's name. */
enum nbdc_end nbdc_handshake(int fd, const struct nbdc_ask *ask, struct nbdc_export *ex, char *why, size_t n);

#endif
