// SPDX-License-Identifier: GPL-2.0-or-later
/* What a sector holds that the test wrote: see vload.h. */
#include "vload.h"

#include <string.h>

void pat_fill(void *buf, u64 seed, u64 sector, u32 gen)
{
	u64 *w = buf, x = (seed ^ (sector * 0x9e3779b97f4a7c15ull)) + gen * 0xd6e8feb86659fd93ull;
	unsigned int i;

	w[0] = seed;
	w[1] = sector;
	w[2] = gen;
	for (i = 3; i < 64; i++) {
		x += 0xa0761d6478bd642full;
		w[i] = x ^ (x >> 29);
	}
}

bool pat_ok(const void *buf, u64 seed, u64 sector, u32 gen)
{
	u64 want[64];

	if (gen == GEN_ZERO)
		memset(want, 0, sizeof(want));
	else
		pat_fill(want, seed, sector, gen);
	return !memcmp(buf, want, 512);
}

u32 pat_gen(const void *buf)
{
	return ((const u64 *)buf)[2];
}
