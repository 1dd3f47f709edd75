// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of how iovmctl shows things: the JSON writer, numbers as text, percentiles of a histogram.
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "ktap.h"
#include "../../userland/common/json.c"
#include "../../userland/common/parse.c"
#include "../../userland/iovmctl/out.c"
#include "../../userland/iovmctl/hist.c"

/* What the writer makes of one string */
static char *json_of(const char *s, size_t n)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	struct json j;

	json_init(&j, f, false);
	json_strn(&j, NULL, s, n);
	fclose(f);
	return text;
}

static void escapes(void)
{
	static const struct {
		const char *in, *out;
	} table[] = {
		{ "", "\"\"" },
		{ "plain", "\"plain\"" },
		{ "a\"b\\c", "\"a\\\"b\\\\c\"" },
		{ "\n\t\r\x01\x1f\x7f", "\"\\n\\t\\u000d\\u0001\\u001f\\u007f\"" },
		{ "\xc3\xa4", "\"\xc3\xa4\"" },			/* U+00E4 */
		{ "\xe2\x82\xac", "\"\xe2\x82\xac\"" },		/* U+20AC */
		{ "\xf0\x9f\x92\xbe", "\"\xf0\x9f\x92\xbe\"" },	/* U+1F4BE */
		{ "\xff", "\"\\ufffd\"" },
		{ "a\xc3", "\"a\\ufffd\"" },			/* cut off */
		{ "\xc3(", "\"\\ufffd(\"" },
		{ "\xc0\x80", "\"\\ufffd\\ufffd\"" },		/* overlong NUL */
		{ "\xed\xa0\x80", "\"\\ufffd\\ufffd\\ufffd\"" },	/* a surrogate */
		{ "\xf4\x90\x80\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\"" },	/* beyond U+10FFFF */
		{ "\x80", "\"\\ufffd\"" },
	};
	unsigned int i;
	char *got;

	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		got = json_of(table[i].in, strlen(table[i].in));
		CHECK(!strcmp(got, table[i].out), "case %u gives %s, not %s", i, got, table[i].out);
		free(got);
	}
}

/* A field that fills its array has no NUL: nothing beyond it may be looked at (ASan), not even to finish a character. */
static void bounded(void)
{
	char *s = malloc(3), *got;

	memcpy(s, "ab\xc3", 3);
	got = json_of(s, 3);
	CHECK(!strcmp(got, "\"ab\\ufffd\""), "%s", got);
	free(got);
	got = json_of(s, 2);
	CHECK(!strcmp(got, "\"ab\""), "%s", got);
	free(got);
	free(s);
}

static void structure(void)
{
	static const char *const want[2] = {
		"{\"a\":1,\"b\":[true,null,{}],\"c\":-5,\"d\":[]}\n",
		"{\n  \"a\": 1,\n  \"b\": [\n    true,\n    null,\n    {}\n  ],\n  \"c\": -5,\n  \"d\": []\n}\n",
	};
	char *text = NULL;
	struct json j;
	size_t len;
	FILE *f;
	int i;

	for (i = 0; i < 2; i++) {
		f = open_memstream(&text, &len);
		json_init(&j, f, i);
		json_open(&j, NULL, '{');
		json_u64(&j, "a", 1);
		json_open(&j, "b", '[');
		json_bool(&j, NULL, true);
		json_str(&j, NULL, NULL);
		json_open(&j, NULL, '{');
		json_close(&j);
		json_close(&j);
		json_s64(&j, "c", -5);
		json_open(&j, "d", '[');
		json_close(&j);
		json_close(&j);
		fclose(f);
		CHECK(!strcmp(text, want[i]), "%s", text);
		free(text);
	}
}

static void numbers(void)
{
	static const struct {
		void (*show)(char *, size_t, uint64_t);
		uint64_t v;
		const char *want;
	} table[] = {
		{ text_size, 0, "0B" }, { text_size, 512, "512B" }, { text_size, 1024, "1K" }, { text_size, 1536, "1.5K" },
		{ text_size, 10ULL << 30, "10G" }, { text_size, 3ULL << 39, "1.5T" }, { text_size, UINT64_MAX, "16E" },
		{ text_size, 100ULL << 20, "100M" }, { text_size, 1000ULL << 20, "1000M" },
		{ text_ms, 0, "0ms" }, { text_ms, 999, "999ms" }, { text_ms, 1000, "1s" }, { text_ms, 1500, "1.5s" },
		{ text_ms, 60000, "1min" }, { text_ms, 90000, "1min30s" }, { text_ms, 300000, "5min" },
		{ text_ms, 3600000, "1h" }, { text_ms, 5400000, "1h30min" },
		{ text_ns, 0, "0ns" }, { text_ns, 999, "999ns" }, { text_ns, 1500, "1.5us" }, { text_ns, 7900000, "7.9ms" },
		{ text_ns, 131072, "131us" }, { text_ns, 12345678901ULL, "12.3s" },
	};
	unsigned int i;
	char got[64];

	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		table[i].show(got, sizeof(got), table[i].v);
		CHECK(!strcmp(got, table[i].want), "%llu gives %s, not %s", (unsigned long long)table[i].v, got, table[i].want);
	}
}

/* Against sorted samples: the bound is above the true percentile, and at most twice as high. */
static void percentiles(void)
{
	static const unsigned int permille[] = { 1, 500, 900, 990, 999, 1000 };
	__u64 h[IOVM_HIST_BUCKETS];
	uint64_t sample[500], t, below;
	unsigned int n, i, k, seed = 1, rank;

	memset(h, 0, sizeof(h));
	CHECK(hist_below(h, 990) == 0, "an empty histogram");
	for (n = 1; n <= 500; n += 7) {
		memset(h, 0, sizeof(h));
		for (i = 0; i < n; i++) {
			seed = seed * 1664525u + 1013904223u;
			sample[i] = 1 + (seed >> (8 + seed % 20));
			h[63 - __builtin_clzll(sample[i])]++;
		}
		for (i = 0; i < n; i++)
			for (k = i + 1; k < n; k++)
				if (sample[k] < sample[i]) {
					t = sample[i];
					sample[i] = sample[k];
					sample[k] = t;
				}
		for (k = 0; k < sizeof(permille) / sizeof(*permille); k++) {
			rank = (n * permille[k] + 999) / 1000;
			t = sample[rank - 1];
			below = hist_below(h, permille[k]);
			CHECK(below > t && below <= 2 * t, "%u permille of %u: %llu, bound %llu", permille[k], n,
			      (unsigned long long)t, (unsigned long long)below);
		}
	}
	memset(h, 0, sizeof(h));
	h[IOVM_HIST_BUCKETS - 1] = 1;
	CHECK(hist_below(h, 500) == UINT64_MAX, "the last bucket is open");
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "JSON strings", escapes },
		{ "strings without a NUL", bounded },
		{ "JSON structure", structure },
		{ "numbers as text", numbers },
		{ "percentiles", percentiles },
	};

	return KTAP_RUN(cases);
}
