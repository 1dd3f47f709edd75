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

static const struct ktap_case cases[] = {
	{ "what a migration may send, and where to", bandwidth },
};

int main(void)
{
	return KTAP_RUN(cases);
}
