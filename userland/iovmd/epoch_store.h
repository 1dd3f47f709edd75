/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What of an epoch may wait: stable storage and the kernel. See epoch.c.
 */
#ifndef IOVMD_EPOCH_STORE_H
#define IOVMD_EPOCH_STORE_H

#include "iovmd.h"

/**
 * struct epoch_record - what is on stable storage
 * @epoch: the newest that is known
 * @holder: host that has it; "" nobody
 */
struct epoch_record {
	uint64_t epoch;
	char holder[IOVM_NAME_MAX];
};

/**
 * struct epoch_job - what a worker does; it answers with "ok" and "error"
 * @what: GIVE: this host's device gives it up, if it holds it; RAISE: this host's target admits nobody older; TAKE: both devices
 *	take it; each, but TAKE, writes @record down: GIVE after the kernel's part, since nothing may be relied on before
 * @holds: GIVE: the device holds it
 */
struct epoch_job {
	enum { EPOCH_JOB_GIVE, EPOCH_JOB_RAISE, EPOCH_JOB_STORE, EPOCH_JOB_TAKE } what;
	const struct config_device *d;
	struct epoch_record record;
	bool holds;
};

/* Where they are kept: 0, or -1 and why. */
int epoch_dir(char why[WHY_MAX]);
/* *r is all zero when there is none. */
void epoch_load(const struct config_device *d, struct epoch_record *r);
/* In a child: does the job. */
int epoch_work(int sock, void *job);

#endif /* IOVMD_EPOCH_STORE_H */
