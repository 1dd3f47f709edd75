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

#endif /* IOVMD_RULES_H */
