/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operator's migrate-command. See command.c.
 */
#ifndef IOVMD_COMMAND_H
#define IOVMD_COMMAND_H

#include "iovmd.h"

/**
 * struct command_job - what to run
 * @guest: its migrate_command and timeout_ms
 * @to: where it is to go
 * @cancelled: asked twice a second: is it to be ended?
 * @said: a line of its output
 */
struct command_job {
	const struct config_guest *guest;
	const struct config_peer *to;
	bool (*cancelled)(void *ctx);
	void (*said)(void *ctx, const char *line);
	void *ctx;
};

/* Whether it ended with 0 and the guest's queues have stopped here; else why. Blocks: for a worker. */
bool command_run(const struct command_job *job, char why[WHY_MAX]);

#endif /* IOVMD_COMMAND_H */
