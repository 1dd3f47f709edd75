// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair.h"
#include "ktap.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LINES	8192
#define AHEAD	40		/* lines that one of them may have more than the other */

struct line {
	char key[96];
	char text[160];
};

/* Shared with children. */
static struct record {
	unsigned int nr;
	struct line line[LINES];
} *records;			/* two */

static struct record *now;
static char at[48];

void rec_at(const char *fmt, ...)
{
	va_list ap;

	at[0] = 0;
	if (!fmt)
		return;
	va_start(ap, fmt);
	vsnprintf(at, sizeof(at) - 2, fmt, ap);
	va_end(ap);
	strcat(at, ": ");
}

void rec(const char *key, const char *fmt, ...)
{
	struct line *l;
	unsigned int i;
	va_list ap;

	i = __atomic_fetch_add(&now->nr, 1, __ATOMIC_RELAXED);
	if (i >= LINES) {
		T_CHECK(i > LINES, "more than %u lines", LINES);
		return;
	}
	l = &now->line[i];
	snprintf(l->key, sizeof(l->key), "%s%s", at, key);
	va_start(ap, fmt);
	vsnprintf(l->text, sizeof(l->text), fmt, ap);
	va_end(ap);
}

long rec_ret(const char *key, long r)
{
	if (r == -1)
		rec(key, "%s", strerrorname_np(errno));
	else
		rec(key, "%ld", r);
	return r;
}

static bool matches(const char *pattern, const char *text)
{
	return !fnmatch(pattern, text, 0);
}

/* NULL for a line that one of them does not have */
static bool excepted(struct pair_except *ex, size_t nex, const char *script, const struct line *a, const struct line *b)
{
	size_t i;

	for (i = 0; i < nex; i++) {
		struct pair_except *e = &ex[i];

		if (!matches(e->script, script) || !matches(e->key, a ? a->key : b->key))
			continue;
		if (!a != !e->first || !b != !e->second)
			continue;
		if ((a && !matches(e->first, a->text)) || (b && !matches(e->second, b->text)))
			continue;
		e->used++;
		return true;
	}
	return false;
}

static void lonely(struct pair_except *ex, size_t nex, const char *script, const char *node, const struct line *a,
		   const struct line *b)
{
	const struct line *l = a ? a : b;

	if (!excepted(ex, nex, script, a, b))
		T_CHECK(false, "%s: only %s has a line \"%s = %s\"", script, node, l->key, l->text);
}

static void compare(const char *script, const char *const node[2], struct pair_except *ex, size_t nex)
{
	const struct record *r = records, *s = records + 1;
	unsigned int i = 0, j = 0, k, n;

	while (i < r->nr || j < s->nr) {
		const struct line *a = i < r->nr ? &r->line[i] : NULL, *b = j < s->nr ? &s->line[j] : NULL;

		if (a && b && !strcmp(a->key, b->key)) {
			if (strcmp(a->text, b->text) && !excepted(ex, nex, script, a, b))
				T_CHECK(false, "%s: %s: %s says \"%s\", %s says \"%s\"", script, a->key, node[0], a->text,
					node[1], b->text);
			i++;
			j++;
			continue;
		}
		/* where do they meet again? */
		for (n = 1; n <= AHEAD; n++) {
			for (k = 0; k <= n; k++)
				if (i + k < r->nr && j + n - k < s->nr &&
				    !strcmp(r->line[i + k].key, s->line[j + n - k].key))
					break;
			if (k <= n)
				break;
		}
		if (n > AHEAD) {
			k = r->nr - i;
			n = k + s->nr - j;
		}
		for (n -= k; k; k--)
			lonely(ex, nex, script, node[0], &r->line[i++], NULL);
		for (; n; n--)
			lonely(ex, nex, script, node[1], NULL, &s->line[j++]);
	}
}

void pair_run(const char *name, const char *const node[2], void (*script)(const char *node), void (*cleanup)(void),
	      struct pair_except *ex, size_t nex)
{
	unsigned int i, k;

	if (!records) {
		records = mmap(NULL, 2 * sizeof(*records), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		T_REQUIRE(records != MAP_FAILED, "mmap: %s", strerror(errno));
	}
	for (i = 0; i < 2; i++) {
		now = &records[i];
		now->nr = 0;
		rec_at(NULL);
		script(node[i]);
		cleanup();
		if (getenv("PAIR_SHOW") && *getenv("PAIR_SHOW"))
			for (k = 0; k < now->nr; k++)
				ktap_note("%s: %s: %s = %s", node[i], name, now->line[k].key, now->line[k].text);
	}
	/* a script that sees nothing compares nothing */
	T_CHECK(records[0].nr, "%s: nothing was written down", name);
	compare(name, node, ex, nex);
}
