// SPDX-License-Identifier: GPL-2.0-or-later
/* The driver library against any vhost-user-blk back end: selfcheck SOCKET (64 MiB or more, 4 queues). */
#include "ktap.h"
#include "vdrv.h"
#include "vload.h"

#include <stdio.h>
#include <string.h>

static const char *path;
static struct gmem mem;
static struct vdev d;

static void open_dev(u64 features, unsigned int nq, unsigned int num)
{
	int r;

	memset(&mem, 0, sizeof(mem));
	T_REQUIRE(gmem_add(&mem, 0, 32 * MiB, GMEM_MEMFD) >= 0, "memory");
	T_REQUIRE(gmem_add(&mem, 4 * GiB, 32 * MiB, GMEM_MEMFD) >= 0, "memory");
	r = vdev_open_user(&d, path);
	T_REQUIRE(!r, "open: %d", r);
	r = vdev_setup(&d, &mem, features, nq, num);
	T_REQUIRE(!r, "set-up: %d", r);
	r = vdev_start(&d);
	T_REQUIRE(!r, "start: %d", r);
}

static void cleanup(void)
{
	vdev_close(&d);
	gmem_free(&mem);
}

static void load(u64 features, unsigned int nq, unsigned int num, bool indirect, u64 ios)
{
	struct vload_cfg c = { .max_ios = ios, .indirect = indirect, .mem_idx = -1, .flush_pct = 2, .zero_pct = 2 };
	struct vload l;
	long bad;
	int r;

	open_dev(features, nq, num);
	r = vload_start(&l, &d, &c);
	T_REQUIRE(!r, "load: %d", r);
	vload_wait(&l);
	bad = vload_check_dev(&l);
	T_CHECK(bad == 0, "%ld blocks wrong at rest", bad);
	T_CHECK(l.ios >= ios / nq * nq, "%llu of %llu", (unsigned long long)l.ios, (unsigned long long)ios);
	ktap_note("%llu kicks, %llu saved, %llu calls in queue 0", (unsigned long long)d.vqs[0].kicks,
		  (unsigned long long)d.vqs[0].kicks_saved, (unsigned long long)d.vqs[0].calls);
	vload_finish(&l, "load");
	r = vdev_stop(&d);
	T_CHECK(!r, "stop: %d", r);
	T_CHECK(d.vqs[0].base == d.vqs[0].avail_idx, "base %u, avail %u", d.vqs[0].base, d.vqs[0].avail_idx);
}

static void plain(void)
{
	load(0, 1, 128, false, 4000);
}

static void event_idx(void)
{
	load(BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES), 1, 128, false, 4000);
}

static void wrap_indirect(void)
{
	load(BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_RING_F_INDIRECT_DESC), 1, 64, true, 70000);
}

static void four_queues(void)
{
	load(BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_BLK_F_MQ), 4, 256, true, 8000);
}

static const struct ktap_case cases[] = {
	{ "plain", plain }, { "event_idx", event_idx }, { "wrap_indirect", wrap_indirect }, { "four_queues", four_queues },
};

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: selfcheck SOCKET [CASE...]\n");
		return 1;
	}
	path = argv[1];
	argv[1] = argv[0];
	ktap_set_cleanup(cleanup);
	d.fd = -1;
	return ktap_main(argc - 1, argv + 1, cases, ARRAY_SIZE(cases), NULL, NULL);
}
