// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Decisions that need nothing but what they are told. See rules.h.
 */
#include <stdio.h>
#include <string.h>

#include "rules.h"
#include "../common/parse.h"

/* --- bandwidth --- */

uint64_t rule_migration_bytes(uint64_t bits, uint64_t bytes)
{
	uint64_t rate = bits / 8;

	return rate && (!bytes || rate < bytes) ? rate : bytes;
}

uint16_t rule_port(const char *uri)
{
	const char *colon = strncmp(uri, "tcp:", 4) ? NULL : strrchr(uri, ':');
	uint16_t port = 0;

	return colon && !parse_port(colon + 1, &port) ? port : 0;
}

/* --- where a guest goes --- */

void rule_uri(const char *uri, const char *address, char *to, size_t n)
{
	static const char *const all[] = { "tcp:0.0.0.0:", "tcp:[::]:", "tcp::" };
	bool v6 = strchr(address, ':');
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!strncmp(uri, all[i], strlen(all[i])))
			break;
	if (i < sizeof(all) / sizeof(*all))
		snprintf(to, n, "tcp:%s%s%s:%s", v6 ? "[" : "", address, v6 ? "]" : "", uri + strlen(all[i]));
	else
		snprintf(to, n, "%s", uri);
}

/* --- paths that fail again and again --- */

_Static_assert(FLAPS_KEPT > 30, "more than 'flaps' may be");

void rule_flap_look(struct flaps *f, uint64_t now_ms, bool failed, uint64_t since_ms)
{
	/* failed, or failed again since the last look */
	if (failed && (!f->failed || since_ms < f->since_ms)) {
		if (f->nr == FLAPS_KEPT)
			memmove(&f->at_ms[0], &f->at_ms[1], sizeof(f->at_ms[0]) * --f->nr);
		f->at_ms[f->nr++] = now_ms;
	}
	f->failed = failed;
	f->since_ms = since_ms;
}

unsigned int rule_flap_count(const struct flaps *f, uint64_t now_ms, uint64_t window_ms)
{
	unsigned int i = 0;

	while (i < f->nr && now_ms - f->at_ms[i] >= window_ms)
		i++;
	return f->nr - i;
}

uint64_t rule_flap_pause(const struct flaps *f, uint64_t now_ms, unsigned int max, uint64_t window_ms)
{
	unsigned int count = rule_flap_count(f, now_ms, window_ms);

	if (!max || count <= max)
		return 0;
	/* the one that has to be out of the window */
	return f->at_ms[f->nr - max - 1] + window_ms - now_ms;
}

/* --- which guest is next --- */

static bool has_begun(const struct turn_of *list, unsigned int nr, const void *group)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (group && list[i].group == group && (list[i].turn == TURN_RUNS || list[i].turn == TURN_OVER))
			return true;
	return false;
}

int rule_next(const struct turn_of *list, unsigned int nr, unsigned int at_once)
{
	unsigned int running = 0, i;
	int first = -1;

	for (i = 0; i < nr; i++)
		running += list[i].turn == TURN_RUNS;
	for (i = 0; i < nr && running < at_once; i++) {
		if (list[i].turn != TURN_WAITS)
			continue;
		if (has_begun(list, nr, list[i].group))
			return (int)i;
		if (first < 0)
			first = (int)i;
	}
	return first;
}
