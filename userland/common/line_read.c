// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * JSON objects, one a line. See line_read.h.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "line_read.h"

#define CHUNK	4096

/* Takes the first line out of b, if there is a whole one. */
static struct json_node *take_line(struct line_buf *b, int *found)
{
	char error[JSON_READ_ERROR];
	char *eol = b->n ? memchr(b->text, '\n', b->n) : NULL;
	struct json_node *o;

	*found = eol != NULL;
	if (!eol)
		return NULL;
	o = json_read(b->text, (size_t)(eol - b->text), error);
	b->n -= (size_t)(eol + 1 - b->text);
	memmove(b->text, eol + 1, b->n);
	return o;
}

struct json_node *line_get(line_get_fn get, void *from, struct line_buf *b, size_t max, uint64_t timeout_ms)
{
	uint64_t end_ms = ms_now() + timeout_ms, now;
	struct json_node *o;
	size_t size;
	char *more;
	int found;
	ssize_t n;

	for (;;) {
		o = take_line(b, &found);
		if (found)
			return o;
		now = ms_now();
		if (timeout_ms && now >= end_ms)
			return NULL;
		if (b->size - b->n < CHUNK) {
			size = b->size ? b->size * 2 : 2 * CHUNK;
			more = b->n <= max ? realloc(b->text, size) : NULL;
			if (!more)
				return NULL;
			b->text = more;
			b->size = size;
		}
		n = get(from, b->text + b->n, b->size - b->n, timeout_ms ? end_ms - now : UINT64_MAX);
		if (n <= 0)
			return NULL;
		b->n += (size_t)n;
	}
}

ssize_t line_get_fd(void *from, void *buf, size_t n, uint64_t timeout_ms)
{
	struct pollfd p = { .fd = *(int *)from, .events = POLLIN };
	uint64_t end_ms = ms_now() + timeout_ms, now;
	ssize_t r;
	int left;

	for (;;) {
		now = ms_now();
		left = timeout_ms == UINT64_MAX ? -1 : now >= end_ms ? 0 : end_ms - now > INT_MAX ? INT_MAX : (int)(end_ms - now);
		r = poll(&p, 1, left);
		if (!r || (r < 0 && errno != EINTR))
			return -1;
		if (r < 0)
			continue;
		r = recv(p.fd, buf, n, MSG_DONTWAIT);
		if (r >= 0 || (errno != EAGAIN && errno != EINTR))
			return r;
	}
}
