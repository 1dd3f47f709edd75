/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that move the guest to the other host, on the bed "hosts" (fault_move_kinds). A migration is under way from begin() on, so
 * that another fault may come on top; it goes on in end(), and what that other fault held up ends in migrate_finish().
 */
#ifndef MIGRATE_H
#define MIGRATE_H

#include "fault.h"

/* When all paths are live again: 0, also if there is none; or why it does not end. */
int migrate_finish(int timeout_ms);

#endif /* MIGRATE_H */
