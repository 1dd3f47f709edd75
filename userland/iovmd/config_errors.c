// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reading the configuration: its memory, what is said of mistakes, and guesses at what was meant. See config_file.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config_file.h"
#include "../common/json.h"

/* --- memory --- */

void *config_chunk(void **memory, size_t n)
{
	struct config_chunk *c = calloc(1, sizeof(*c) + n);

	if (!c)
		return NULL;
	c->next = *memory;
	*memory = c;
	return c->data;
}

void *config_alloc(struct reader *r, size_t n)
{
	void *p = config_chunk(&r->c->memory, n);

	if (!p)
		config_wrong(r, (struct config_at){ .file = r->root }, "", "there is not enough memory to read the configuration");
	return p;
}

char *config_copy(struct reader *r, const char *s, size_t n)
{
	char *copy = config_alloc(r, n + 1);

	if (copy)
		memcpy(copy, s, n);
	return copy;
}

static void free_chunks(void *memory)
{
	struct config_chunk *c = memory, *next;

	for (; c; c = next) {
		next = c->next;
		free(c);
	}
}

void config_free(struct config *c)
{
	if (!c)
		return;
	free_chunks(c->memory);
	free(c);
}

void config_errors_free(struct config_errors *errs)
{
	free_chunks(errs->memory);
	memset(errs, 0, sizeof(*errs));
}

/* --- errors --- */

void config_wrong(struct reader *r, struct config_at at, const char *remedy, const char *fmt, ...)
{
	struct config_error *e;
	va_list ap;

	if (r->errs->nr++ >= CONFIG_MAX_ERRORS)
		return;
	e = &r->errs->e[r->errs->nr - 1];
	e->at = at;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	snprintf(e->remedy, sizeof(e->remedy), "%s", remedy);
}

void config_bad(struct reader *r, struct config_at at, const char *subject, const char *sentence)
{
	const char *paren = strstr(sentence, " (");
	size_t len = strlen(sentence);
	char remedy[256] = "";

	if (paren && sentence[len - 1] == ')') {
		snprintf(remedy, sizeof(remedy), "%.*s", (int)(len - 1 - (size_t)(paren + 2 - sentence)), paren + 2);
		len = (size_t)(paren - sentence);
	}
	config_wrong(r, at, remedy, "%s %.*s", subject, (int)len, sentence);
}

const char *config_quote(const char *s)
{
	static char bufs[4][72];
	static unsigned int turn;
	char *buf = bufs[turn++ % 4];
	size_t len = strlen(s), n = 0, one;

	if (len < sizeof(bufs[0]))
		return strcpy(buf, s);
	while ((one = json_utf8_len(s + n, len - n) ?: 1) + n <= sizeof(bufs[0]) - 4)
		n += one;
	memcpy(buf, s, n);
	strcpy(buf + n, "...");
	return buf;
}

/* How many letters are to be changed, left out, put in or swapped with the next; large when a text is long */
unsigned int config_distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b), i, k;
	unsigned char d[65][65];
	unsigned int v;

	if (la > 64 || lb > 64)
		return 64;
	for (i = 0; i <= la; i++)
		d[i][0] = (unsigned char)i;
	for (k = 0; k <= lb; k++)
		d[0][k] = (unsigned char)k;
	for (i = 1; i <= la; i++)
		for (k = 1; k <= lb; k++) {
			v = d[i - 1][k - 1] + !!strncasecmp(&a[i - 1], &b[k - 1], 1);
			if (v > d[i - 1][k] + 1u)
				v = d[i - 1][k] + 1u;
			if (v > d[i][k - 1] + 1u)
				v = d[i][k - 1] + 1u;
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] && v > d[i - 2][k - 2] + 1u)
				v = d[i - 2][k - 2] + 1u;
			d[i][k] = (unsigned char)v;
		}
	return d[la][lb];
}

const char *config_nearest(const char *s, const char *const *names)
{
	unsigned int best = 1 + (unsigned int)strlen(s) / 3, d;
	const char *found = NULL;

	if (best > 3)
		best = 3;
	for (; *names; names++) {
		d = config_distance(s, *names);
		if (d <= best && (!found || d < best)) {
			best = d;
			found = *names;
		}
	}
	return found;
}
