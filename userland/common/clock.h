/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef IOVM_CLOCK_H
#define IOVM_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC, ms */
static inline uint64_t ms_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#endif
