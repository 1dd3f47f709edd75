/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzzers of the live modules share: a seed that is printed and can be given, a time that can be lengthened, values that
 * are more likely to hurt than random ones.
 *
 *	FUZZ_SEED=N FUZZ_SECONDS=N t_fuzz_ring [CASE]
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "ktap.h"
#include "vdrv.h"

/* $FUZZ_SEED, else a new one at each run; printed. */
u64 fuzz_seed(void);
/* $FUZZ_SECONDS, else @seconds; of each case. */
unsigned int fuzz_seconds(unsigned int seconds);
/* One chance in @n */
bool fuzz_one_in(u64 *rnd, unsigned int n);
u64 fuzz_below(u64 *rnd, u64 n);		/* 0..n-1 */
/* Bounds of types, powers of two and their neighbours, small numbers; seldom anything. */
u64 fuzz_value(u64 *rnd);
/* Changes some bytes, fields or a stretch of @len bytes. */
void fuzz_mutate(u64 *rnd, void *buf, size_t len);

#endif /* FUZZ_H */
