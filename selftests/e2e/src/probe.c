// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * probe - measures a guest's I/O pauses: one small O_DIRECT request after another, the time of each kept.
 *
 *   probe FILE SECONDS STOPFILE
 *
 * Each round writes a stamped 4 KiB block to FILE and reads it back, with 1 ms of sleep between rounds, until SECONDS are over or STOPFILE
 * exists. A pause is the time from the submission of a request to its completion. Printed at the end, as JSON: the number of requests, errors and
 * mismatches, and the longest pauses with their start on CLOCK_MONOTONIC, all in ns. Memory is locked, so that a stalled disk
 * cannot stop the program by a page fault.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK	4096
#define BLOCKS	256
#define KEEP	12

struct pause {
	int64_t start, length;
};

static struct pause worst[KEEP];

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void note(int64_t start, int64_t length)
{
	int i = KEEP - 1;

	if (length <= worst[i].length)
		return;
	for (; i > 0 && worst[i - 1].length < length; i--)
		worst[i] = worst[i - 1];
	worst[i].start = start;
	worst[i].length = length;
}

static void fill(uint64_t *block, uint64_t seed)
{
	unsigned int i;

	for (i = 0; i < BLOCK / sizeof(*block); i++)
		block[i] = seed * 0x9e3779b97f4a7c15ULL + i;
}

int main(int argc, char **argv)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	uint64_t *out, *in, round, errors = 0, mismatches = 0, requests = 0;
	int64_t end, t, t2, first = 0, last = 0;
	int fd, i, n = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: probe FILE SECONDS STOPFILE\n");
		return 2;
	}
	fd = open(argv[1], O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0 || posix_memalign((void **)&out, BLOCK, BLOCK) || posix_memalign((void **)&in, BLOCK, BLOCK)) {
		perror(argv[1]);
		return 1;
	}
	/* Blocks are laid out first, so that the measured writes do not allocate. */
	for (i = 0; i < BLOCKS; i++) {
		fill(out, 0);
		if (pwrite(fd, out, BLOCK, (off_t)i * BLOCK) != BLOCK)
			errors++;
	}
	fsync(fd);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	end = now() + strtoll(argv[2], NULL, 10) * 1000000000LL;
	for (round = 1; ; round++) {
		off_t at = (off_t)(round % BLOCKS) * BLOCK;

		fill(out, round);
		t = now();
		if (!first)
			first = t;
		if (t > end || (round % 64 == 0 && !access(argv[3], F_OK)))
			break;
		if (pwrite(fd, out, BLOCK, at) != BLOCK)
			errors++;
		t2 = now();
		note(t, t2 - t);
		memset(in, 0, BLOCK);
		if (pread(fd, in, BLOCK, at) != BLOCK)
			errors++;
		else if (memcmp(in, out, BLOCK))
			mismatches++;
		last = now();
		note(t2, last - t2);
		requests += 2;
		nanosleep(&nap, NULL);
	}
	printf("{\"requests\": %llu, \"errors\": %llu, \"mismatches\": %llu, \"first_ns\": %lld, \"last_ns\": %lld, \"pauses\": [",
	       (unsigned long long)requests, (unsigned long long)errors, (unsigned long long)mismatches,
	       (long long)first, (long long)last);
	for (i = 0; i < KEEP; i++)
		if (worst[i].length)
			printf("%s{\"start_ns\": %lld, \"length_ns\": %lld}", n++ ? ", " : "", (long long)worst[i].start,
			       (long long)worst[i].length);
	printf("]}\n");
	return errors || mismatches;
}
