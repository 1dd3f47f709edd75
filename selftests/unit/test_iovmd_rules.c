// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of what iovmd decides (userland/iovmd/rules.c).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include "ktap.h"
#include "../../userland/common/parse.c"
#include "../../userland/iovmd/rules.c"

static void bandwidth(void)
{
	static const struct {
		uint64_t bits, bytes, want;
	} rates[] = {
		{ 0, 0, 0 }, { 8000, 0, 1000 }, { 0, 500, 500 }, { 8000, 500, 500 }, { 8000, 2000, 1000 }, { 7, 0, 0 }, { 7, 3, 3 },
	};
	static const struct {
		const char *uri;
		uint16_t want;
	} uris[] = {
		{ "tcp:10.0.0.2:49152", 49152 }, { "tcp:[fd00::2]:1", 1 }, { "tcp:[fd00::2]", 0 }, { "unix:/run/x:7", 0 }, { "tcp:", 0 },
		{ "tcp:h:", 0 }, { "tcp:h:0", 0 }, { "tcp:h:65536", 0 }, { "tcp:h:7x", 0 }, { "", 0 }, { "tcp", 0 },
	};
	size_t i;

	for (i = 0; i < sizeof(rates) / sizeof(*rates); i++)
		CHECK(rule_migration_bytes(rates[i].bits, rates[i].bytes) == rates[i].want, "%llu bits, %llu bytes: %llu",
		      (unsigned long long)rates[i].bits, (unsigned long long)rates[i].bytes,
		      (unsigned long long)rule_migration_bytes(rates[i].bits, rates[i].bytes));
	for (i = 0; i < sizeof(uris) / sizeof(*uris); i++)
		CHECK(rule_port(uris[i].uri) == uris[i].want, "%s: port %u", uris[i].uri, rule_port(uris[i].uri));
}

static void uris(void)
{
	static const struct {
		const char *uri, *address, *want;
	} cases[] = {
		{ "tcp:10.0.0.2:7", "b", "tcp:10.0.0.2:7" }, { "tcp:0.0.0.0:7", "10.0.0.2", "tcp:10.0.0.2:7" },
		{ "tcp:[::]:7", "fd00::2", "tcp:[fd00::2]:7" }, { "tcp:[::1]:7", "b", "tcp:[::1]:7" }, { "tcp::7", "b", "tcp:b:7" },
		{ "unix:/run/x", "b", "unix:/run/x" },
	};
	char to[64];
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		rule_uri(cases[i].uri, cases[i].address, to, sizeof(to));
		CHECK(!strcmp(to, cases[i].want), "%s at %s: %s", cases[i].uri, cases[i].address, to);
	}
	rule_uri("tcp:[::]:7", "fd00::2", to, 8);
	CHECK(!strcmp(to, "tcp:[fd"), "%s", to);
}

static void flapping(void)
{
	struct flaps f = { .nr = 0 };
	unsigned int i;

	rule_flap_look(&f, 1000, false, 0);
	CHECK(!rule_flap_count(&f, 1000, 10000) && !rule_flap_pause(&f, 1000, 1, 10000), "never failed");
	rule_flap_look(&f, 2000, true, 5);
	rule_flap_look(&f, 3000, true, 1005);
	CHECK(rule_flap_count(&f, 3000, 10000) == 1, "failed once, looked at twice: %u", rule_flap_count(&f, 3000, 10000));
	rule_flap_look(&f, 4000, false, 0);
	rule_flap_look(&f, 5000, true, 1);
	CHECK(rule_flap_count(&f, 5000, 10000) == 2, "again");
	/* it came back and failed between two looks */
	rule_flap_look(&f, 6000, true, 0);
	CHECK(rule_flap_count(&f, 6000, 10000) == 3, "and between two looks: %u", rule_flap_count(&f, 6000, 10000));
	CHECK(!rule_flap_pause(&f, 6000, 3, 10000), "three may be");
	CHECK(rule_flap_pause(&f, 6000, 2, 10000) == 6000, "two may be: %llu", (unsigned long long)rule_flap_pause(&f, 6000, 2, 10000));
	CHECK(!rule_flap_pause(&f, 12000, 2, 10000), "the first is too long ago");
	CHECK(rule_flap_count(&f, 12000, 10000) == 2, "%u", rule_flap_count(&f, 12000, 10000));
	CHECK(!rule_flap_pause(&f, 6000, 0, 10000), "however often");
	for (i = 0; i < 100; i++) {
		rule_flap_look(&f, 20000 + i, false, 0);
		rule_flap_look(&f, 20000 + i, true, 0);
	}
	CHECK(f.nr == FLAPS_KEPT && rule_flap_pause(&f, 20100, 30, 10000), "a hundred times: %u", f.nr);
	CHECK(rule_flap_pause(&f, 20099, 3, 10000) == 20096 + 10000 - 20099, "%llu", (unsigned long long)rule_flap_pause(&f, 20099, 3, 10000));
}

static void turns(void)
{
	static const char x[] = "x", y[] = "y";
	struct turn_of list[] = {
		{ TURN_NONE, NULL }, { TURN_WAITS, x }, { TURN_WAITS, y }, { TURN_WAITS, NULL }, { TURN_WAITS, x }, { TURN_WAITS, NULL },
	};
	const int order[] = { 1, 4, 2, 3, 5, -1 };
	unsigned int nr = sizeof(list) / sizeof(*list), i;

	CHECK(rule_next(list, nr, 0) == -1 && rule_next(list, 0, 1) == -1 && rule_next(list, 1, 1) == -1, "nobody");
	for (i = 0; i < sizeof(order) / sizeof(*order); i++) {
		int next = rule_next(list, nr, 1);

		CHECK(next == order[i], "%u: %d, not %d", i, next, order[i]);
		if (next < 0)
			break;
		list[next].turn = TURN_RUNS;
		CHECK(rule_next(list, nr, 1) == -1, "one at a time");
		list[next].turn = TURN_OVER;
	}
	list[1].turn = TURN_RUNS;
	list[4].turn = list[2].turn = TURN_WAITS;
	CHECK(rule_next(list, nr, 2) == 4, "two at a time: those of a group");
	list[4].turn = TURN_RUNS;
	CHECK(rule_next(list, nr, 2) == -1 && rule_next(list, nr, 3) == 2, "and no more");
}

static const struct ktap_case cases[] = {
	{ "what a migration may send, and where to", bandwidth },
	{ "where a QEMU is reached that listens everywhere", uris },
	{ "a path that fails again and again", flapping },
	{ "which guest is next", turns },
};

int main(void)
{
	return KTAP_RUN(cases);
}
