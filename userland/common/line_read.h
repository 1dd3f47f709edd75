/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON objects, one a line, from a socket or a TLS session, blocking.
 */
#ifndef IOVM_LINE_READ_H
#define IOVM_LINE_READ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "json_read.h"

/* What came and was not taken yet; begins as { 0 }. */
struct line_buf {
	char *text;
	size_t n, size;
};

/* Up to n bytes, within timeout_ms (UINT64_MAX: no limit); 0 or -1: no more will come, or not in time. */
typedef ssize_t (*line_get_fn)(void *from, void *buf, size_t n, uint64_t timeout_ms);

/*
 * The next line within timeout_ms (0: no limit), for json_free(); NULL: there is none in time, it is longer than max bytes (some more are
 * let pass), or no JSON.
 */
struct json_node *line_get(line_get_fn get, void *from, struct line_buf *b, size_t max, uint64_t timeout_ms);

/* A line_get_fn; from points to the descriptor. */
ssize_t line_get_fd(void *from, void *buf, size_t n, uint64_t timeout_ms);

#endif
