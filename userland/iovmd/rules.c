// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Decisions that need nothing but what they are told. See rules.h.
 */
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
