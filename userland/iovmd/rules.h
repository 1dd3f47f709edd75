/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decisions that need nothing but what they are told: neither the kernel nor QEMU, nor what the other files know. See
 * selftests/unit/test_iovmd_rules.c.
 */
#ifndef IOVMD_RULES_H
#define IOVMD_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- bandwidth --- */

/* What QEMU may send, bytes per second, 0 no limit: the lower of the host's rate (bits) and the guest's limit (bytes). */
uint64_t rule_migration_bytes(uint64_t bits, uint64_t bytes);
/* The port behind the last colon, as in "tcp:[::1]:49152"; 0: there is none. */
uint16_t rule_port(const char *uri);

/* --- where a guest goes --- */

/* What QEMU there listens at, as it is reached from here: all addresses of that host are its own one. to has n bytes. */
void rule_uri(const char *uri, const char *address, char *to, size_t n);

/* --- paths that fail again and again --- */

#define FLAPS_KEPT	32

/**
 * struct flaps - when a path failed
 * @at_ms: the last times, the oldest first; whenever it was seen to have failed anew
 * @failed: it was failed at the last look
 * @since_ms: for so long, then
 */
struct flaps {
	uint64_t at_ms[FLAPS_KEPT];
	unsigned int nr;
	bool failed;
	uint64_t since_ms;
};

/* A look at the path: is it failed, and if so for how long? */
void rule_flap_look(struct flaps *f, uint64_t now_ms, bool failed, uint64_t since_ms);
/* How often it failed within the last window. */
unsigned int rule_flap_count(const struct flaps *f, uint64_t now_ms, uint64_t window_ms);
/* In how many ms that is no more than max times, if it fails no more; 0: it is now, or max is 0. */
uint64_t rule_flap_pause(const struct flaps *f, uint64_t now_ms, unsigned int max, uint64_t window_ms);

/* --- which guest is next --- */

enum turn {
	TURN_NONE,	/* it has no part in this */
	TURN_WAITS,
	TURN_RUNS,
	TURN_OVER,
};

/* One of those that are to be migrated; of the same group, not NULL, are moved one after the other */
struct turn_of {
	enum turn turn;
	const void *group;
};

/* Whose turn it is when at most so many run: one whose group has begun, else the first that waits; -1: nobody's. */
int rule_next(const struct turn_of *list, unsigned int nr, unsigned int at_once);

#endif /* IOVMD_RULES_H */
