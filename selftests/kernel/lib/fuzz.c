// SPDX-License-Identifier: GPL-2.0-or-later
/* Seeds and values of the fuzzers: see fuzz.h. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

u64 fuzz_seed(void)
{
	const char *s = getenv("FUZZ_SEED");
	u64 x = now_ns() ^ (u64)getpid() << 32, seed = s ? strtoull(s, NULL, 0) : rnd64(&x) % 1000000000;

	ktap_note("FUZZ_SEED=%llu", (unsigned long long)seed);
	return seed;
}

unsigned int fuzz_seconds(unsigned int seconds)
{
	const char *s = getenv("FUZZ_SECONDS");

	return s && atoi(s) > 0 ? (unsigned int)atoi(s) : seconds;
}

u64 fuzz_below(u64 *rnd, u64 n)
{
	return rnd64(rnd) % n;
}

bool fuzz_one_in(u64 *rnd, unsigned int n)
{
	return !fuzz_below(rnd, n);
}

u64 fuzz_value(u64 *rnd)
{
	static const u64 values[] = {
		0, 1, 2, 3, 7, 8, 16, 64, 65, 127, 128, 255, 256, 511, 512, 513, 1023, 1024, 1025, 4095, 4096, 4097, 0x7fff,
		0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff, 0x100000000, 0x7fffffffffffffff,
		0x8000000000000000, 0xfffffffffffff000, 0xffffffffffffffff,
	};

	switch (fuzz_below(rnd, 8)) {
	case 0:
		return rnd64(rnd);
	case 1:
		return fuzz_below(rnd, 64);
	case 2:
		return (1ull << fuzz_below(rnd, 64)) + fuzz_below(rnd, 3) - 1;
	default:
		return values[fuzz_below(rnd, ARRAY_SIZE(values))];
	}
}

void fuzz_mutate(u64 *rnd, void *buf, size_t len)
{
	static const unsigned int widths[] = { 1, 2, 4, 4, 4, 8, 8 };
	unsigned int n = 1 + fuzz_below(rnd, 3);
	u8 *p = buf;

	while (n--) {
		unsigned int w = widths[fuzz_below(rnd, ARRAY_SIZE(widths))];
		u64 v = fuzz_value(rnd);
		size_t at;

		if (len < 8)
			w = 1;
		at = fuzz_below(rnd, len / w) * w;
		switch (fuzz_below(rnd, 8)) {
		case 0:
			p[at] ^= 1u << fuzz_below(rnd, 8);
			break;
		case 1:
			w = 1 + fuzz_below(rnd, len - at);
			memset(p + at, v, w);
			break;
		default:
			memcpy(p + at, &v, w);
		}
	}
}
