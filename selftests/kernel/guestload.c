// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest for shell tests: opens /dev/vhost-iovm/NAME, works its queues with a load that verifies what it reads, and obeys
 * commands from standard input, one a line. Each is answered by one line: "ok ..." or "bad ...".
 *
 *	guestload NAME [DEPTH]		the load runs at once, and until "stop"
 *	  progress N MS			waits until N more requests completed, MS milliseconds at most
 *	  turnover MS			waits until all that is in flight now has completed
 *	  idle MS			nothing completes for so long
 *	  mark				notes what every block holds
 *	  manifest FILE			which blocks have not been touched since mark, and what they hold
 *	  stop				drains; "ok" if there was no error and no wrong block; mark is made
 *	  check				after stop: reads all through the device
 *	  quit, end of input
 *
 *	guestload --image RAW MANIFEST	does that image hold what the manifest says, and nothing that is no sector of the load
 *
 * Exit status: 0 every answer was "ok", 1 one was not, 2 it could not start.
 */
#include "fix.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED	0x5eed0001
#define BLOCK	4096u
#define SECTORS	(BLOCK / 512)
#define ZEROES	0x80000000u	/* a generation of the load; 0 of a manifest means the same */

static struct vload L;
static struct vload_blk *marked;
static bool stopped, any_bad;

static void answer(bool good, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void answer(bool good, const char *fmt, ...)
{
	va_list ap;

	any_bad |= !good;
	printf(good ? "ok " : "bad ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

/*
 * busy is read first: a block that is idle then and has the generation it had at the mark was not touched, as a request
 * changes the generation before it lets go of the block.
 */
static struct vload_blk look(u64 i)
{
	volatile struct vload_blk *b = &L.blk[i];
	struct vload_blk v = { .busy = b->busy };

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	v.gen = b->gen;
	v.unsure = b->unsure;
	return v;
}

static void mark(void)
{
	u64 i;

	for (i = 0; i < L.nblk; i++)
		marked[i] = look(i);
}

static void manifest(const char *file)
{
	FILE *f = fopen(file, "we");
	unsigned long n = 0;
	u64 i;

	if (!f) {
		answer(false, "%s: %s", file, strerror(errno));
		return;
	}
	for (i = 0; i < L.nblk; i++) {
		struct vload_blk now = look(i), *then = &marked[i];

		if (now.busy || now.unsure || then->busy || then->unsure || now.gen != then->gen)
			continue;
		fprintf(f, "%llu %u\n", (unsigned long long)i, now.gen);
		n++;
	}
	if (fclose(f))
		answer(false, "%s: %s", file, strerror(errno));
	else
		answer(true, "%lu of %llu blocks", n, (unsigned long long)L.nblk);
}

static void stop(void)
{
	unsigned long bad_used = 0, lost_calls = 0;
	unsigned int i;

	vload_stop(&L);
	stopped = true;
	mark();
	for (i = 0; i < L.nt; i++) {
		bad_used += L.t[i].q->bad_used;
		lost_calls += L.t[i].q->lost_calls;
	}
	answer(!L.errors && !L.mismatches && !L.stuck && !bad_used && !lost_calls && L.reads && L.writes,
	       "%llu reads, %llu writes, %llu errors, %llu wrong blocks, %llu never completed, %lu wrong completions, %lu lost calls, longest %llu ms",
	       (unsigned long long)L.reads, (unsigned long long)L.writes, (unsigned long long)L.errors,
	       (unsigned long long)L.mismatches, (unsigned long long)L.stuck, bad_used, lost_calls,
	       (unsigned long long)L.max_lat_ns / 1000000);
}

static void command(const char *line)
{
	char file[256];
	unsigned long n;
	long bad;
	int ms;

	if (sscanf(line, "progress %lu %d", &n, &ms) == 2) {
		answer(vload_progress(&L, n, ms), "%lu more", n);
	} else if (sscanf(line, "turnover %d", &ms) == 1) {
		answer(vload_turnover(&L, ms), "turnover");
	} else if (sscanf(line, "idle %d", &ms) == 1) {
		answer(!vload_progress(&L, 1, ms), "nothing completed");
	} else if (!strcmp(line, "mark")) {
		mark();
		answer(true, "marked");
	} else if (sscanf(line, "manifest %255s", file) == 1) {
		manifest(file);
	} else if (!strcmp(line, "stop") && !stopped) {
		stop();
	} else if (!strcmp(line, "check") && stopped) {
		bad = vload_check_dev(&L);
		answer(!bad, "%ld blocks wrong at rest", bad);
	} else {
		answer(false, "what is '%s'?", line);
	}
}

static int image(const char *raw, const char *list)
{
	unsigned long wrong = 0, foreign = 0, listed = 0;
	unsigned long long blk;
	u32 gen, k, *want = NULL;
	u64 i, n;
	u8 buf[BLOCK];
	bool *given = NULL;
	FILE *f = fopen(raw, "re"), *m = fopen(list, "re");

	if (!f || !m || fseek(f, 0, SEEK_END)) {
		fprintf(stderr, "%s, %s: %s\n", raw, list, strerror(errno));
		return 2;
	}
	n = ftell(f) / BLOCK;
	rewind(f);
	want = calloc(n + 1, sizeof(*want));
	given = calloc(n + 1, sizeof(*given));
	if (!want || !given)
		return 2;
	while (fscanf(m, "%llu %u", &blk, &gen) == 2) {
		if (blk >= n) {
			fprintf(stderr, "%s: block %llu of %llu\n", list, blk, (unsigned long long)n);
			return 2;
		}
		want[blk] = gen ? gen : ZEROES;
		given[blk] = true;
		listed++;
	}
	for (i = 0; i < n; i++) {
		bool bad = false, strange = false;

		if (fread(buf, BLOCK, 1, f) != 1)
			return 2;
		for (k = 0; k < SECTORS; k++) {
			const u8 *p = buf + k * 512;
			u64 sector = i * SECTORS + k;

			bad |= given[i] && !pat_ok(p, SEED, sector, want[i]);
			strange |= !pat_ok(p, SEED, sector, ZEROES) && !pat_ok(p, SEED, sector, pat_gen(p));
		}
		wrong += bad;
		foreign += strange;
	}
	any_bad = wrong || foreign || !listed;
	answer(!any_bad, "%lu listed, %lu wrong, %lu no block of the load", listed, wrong, foreign);
	fclose(f);
	fclose(m);
	return any_bad;
}

static void guest(const char *name, unsigned int depth)
{
	struct vload_cfg c = {
		.depth = depth, .block = BLOCK, .seed = SEED, .flush_pct = 3, .zero_pct = 3, .mem_idx = -1, .indirect = true,
	};
	struct vdev *d = &F[0].d;
	int r;

	r = gmem_add(&F[0].mem, 0, 48 * MiB, GMEM_MEMFD);
	if (r < 0)
		goto out;
	F[0].mem.r[0].used = 4096;
	r = vdev_open_node(d, ctl_node(name));
	if (r)
		goto out;
	r = vdev_setup(d, &F[0].mem, ALL_FEATURES, d->cfg.num_queues, 128);
	if (!r)
		r = vdev_start(d);
	if (!r)
		r = vload_start(&L, d, &c);
	if (!r)
		marked = calloc(L.nblk, sizeof(*marked));
	if (!r && !marked)
		r = -ENOMEM;
out:
	if (r < 0) {
		printf("bad %s: %s\n", name, strerror(-r));
		exit(2);
	}
}

int main(int argc, char **argv)
{
	char line[512];

	if (argc == 4 && !strcmp(argv[1], "--image"))
		return image(argv[2], argv[3]);
	if (argc < 2 || argc > 3 || argv[1][0] == '-') {
		fprintf(stderr, "usage: guestload NAME [DEPTH], guestload --image RAW MANIFEST\n");
		return 2;
	}
	guest(argv[1], argc > 2 ? atoi(argv[2]) : 0);
	answer(true, "%u queues", L.nt);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		if (!strcmp(line, "quit"))
			break;
		command(line);
	}
	if (!stopped)
		stop();
	vdev_close(&F[0].d);
	return any_bad;
}
