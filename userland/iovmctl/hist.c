// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Log2 histograms: bucket i counts durations from 2^i to 2^(i+1) ns. A percentile can therefore only be bounded: what is shown
 * is the upper edge of the bucket that holds it ("below"), at most twice the true value.
 */
#include <inttypes.h>
#include <string.h>

#include "iovmctl.h"

#define BAR	40

uint64_t hist_total(const __u64 *h)
{
	uint64_t sum = 0;
	int i;

	for (i = 0; i < IOVM_HIST_BUCKETS; i++)
		sum += h[i];
	return sum;
}

uint64_t hist_below(const __u64 *h, unsigned int permille)
{
	uint64_t total = hist_total(h), seen = 0, rank;
	int i;

	if (!total)
		return 0;
	/* The rank-th smallest, rank = ceil(total * permille / 1000) */
	rank = (uint64_t)(((unsigned __int128)total * permille + 999) / 1000);
	if (!rank)
		rank = 1;
	for (i = 0; i < IOVM_HIST_BUCKETS - 1; i++) {
		seen += h[i];
		if (seen >= rank)
			return 2ULL << i;
	}
	return UINT64_MAX;
}

void hist_bound(char *buf, size_t n, uint64_t below)
{
	char t[32];

	if (!below) {
		snprintf(buf, n, "-");
	} else if (below == UINT64_MAX) {
		text_ns(t, sizeof(t), 1ULL << (IOVM_HIST_BUCKETS - 1));
		snprintf(buf, n, ">=%s", t);
	} else {
		text_ns(t, sizeof(t), below);
		snprintf(buf, n, "<%s", t);
	}
}

void hist_line(char *buf, size_t n, const __u64 *h)
{
	char p50[40], p99[40], p999[40];

	hist_bound(p50, sizeof(p50), hist_below(h, 500));
	hist_bound(p99, sizeof(p99), hist_below(h, 990));
	hist_bound(p999, sizeof(p999), hist_below(h, 999));
	snprintf(buf, n, "p50 %s  p99 %s  p99.9 %s", p50, p99, p999);
}

static void below_json(struct json *j, const char *key, uint64_t below)
{
	if (!below || below == UINT64_MAX)
		json_null(j, key);
	else
		json_u64(j, key, below);
}

void hist_json(struct json *j, const char *key, const __u64 *h)
{
	int i;

	json_open(j, key, '{');
	json_u64(j, "count", hist_total(h));
	below_json(j, "p50_below_ns", hist_below(h, 500));
	below_json(j, "p99_below_ns", hist_below(h, 990));
	below_json(j, "p999_below_ns", hist_below(h, 999));
	json_open(j, "buckets", '[');
	for (i = 0; i < IOVM_HIST_BUCKETS; i++) {
		if (!h[i])
			continue;
		json_open(j, NULL, '{');
		json_u64(j, "from_ns", i ? 1ULL << i : 0);
		if (i < IOVM_HIST_BUCKETS - 1)
			json_u64(j, "below_ns", 2ULL << i);
		else
			json_null(j, "below_ns");
		json_u64(j, "count", h[i]);
		json_close(j);
	}
	json_close(j);
	json_close(j);
}

void hist_text(const char *title, const __u64 *h, unsigned int indent)
{
	uint64_t total = hist_total(h), most = 0;
	int i, lo = -1, hi = -1, len;
	char line[160], from[32];

	hist_line(line, sizeof(line), h);
	printf("%*s%s: %" PRIu64 "%s%s\n", (int)indent, "", title, total, total ? "  " : "", total ? line : "");
	for (i = 0; i < IOVM_HIST_BUCKETS; i++) {
		if (!h[i])
			continue;
		lo = lo < 0 ? i : lo;
		hi = i;
		most = h[i] > most ? h[i] : most;
	}
	for (i = lo; i >= 0 && i <= hi; i++) {
		if (i + 2 <= hi && !h[i] && !h[i + 1] && !h[i + 2]) {
			printf("%*s    ...\n", (int)indent + 2, "");
			while (!h[i + 1])
				i++;
			continue;
		}
		text_ns(from, sizeof(from), i ? 1ULL << i : 0);
		len = (int)((unsigned __int128)h[i] * BAR / most);
		if (h[i] && !len)
			len = 1;
		printf("%*s%7s.. %10llu |%.*s\n", (int)indent + 2, "", from, h[i], len,
		       "########################################");
	}
}
