// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * For t_iovmd_ops.sh: a guest that runs on a device and reads one sector after the other, until SIGTERM.
 *
 *	iovmd_guest DEVICE		prints "running", and at its end "REQUESTS requests, ERRORS errors, MS ms at most"
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "vdrv.h"

#define PAUSE_MS	5

static volatile sig_atomic_t over;

static void on_term(int sig)
{
	(void)sig;
	over = 1;
}

static int failed(const char *what, int err)
{
	fprintf(stderr, "%s: %s\n", what, strerror(-err));
	return 1;
}

int main(int argc, char **argv)
{
	static struct gmem mem;
	static struct vdev d;
	struct vblk_sync s;
	unsigned long n = 0, errors = 0;
	u64 begun, took, longest = 0;
	char node[256], data[512];
	int r;

	if (argc != 2)
		return 2;
	signal(SIGTERM, on_term);
	vblk_timeout_ms = 600000;
	snprintf(node, sizeof(node), "/dev/vhost-iovm/%s", argv[1]);
	r = gmem_add(&mem, 0, 16 * MiB, GMEM_MEMFD);
	if (r < 0)
		return failed("memory", r);
	r = vdev_open_node(&d, node);
	if (!r)
		r = vdev_setup(&d, &mem, 0, 1, 64);
	if (!r)
		r = vdev_start(&d);
	if (!r)
		r = vblk_sync_init(&s, &d, 4096);
	if (r)
		return failed(node, r);
	puts("running");
	fflush(stdout);
	while (!over) {
		begun = now_ns();
		errors += !!vblk_read(&s, &d.vqs[0], n % 1024, data, sizeof(data));
		took = now_ns() - begun;
		if (took > longest)
			longest = took;
		n++;
		sleep_ms(PAUSE_MS);
	}
	vdev_stop(&d);
	vdev_close(&d);
	printf("%lu requests, %lu errors, %llu ms at most\n", n, errors, (unsigned long long)(longest / 1000000));
	return 0;
}
