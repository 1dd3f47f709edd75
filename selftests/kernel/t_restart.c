// SPDX-License-Identifier: GPL-2.0-or-later
/* Queues stopped and started under load from the reported base: nothing lost, nothing doubled. */
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define MB 32

static void check_idle_base(struct vq *q, unsigned int round)
{
	u16 used = __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE);

	/* design, invariant 6: all that was taken has completed, and the value is the next head to serve */
	T_CHECK(q->base == used, "round %u: queue %u: base %u, used %u", round, q->idx, q->base, used);
}

/*
 * @rounds stops and starts of every queue while the guest goes on adding to its rings. The store has a
 * latency, so that there is something in flight at every stop.
 */
static void restart(unsigned int nq, unsigned int rounds, u32 latency_ns, u64 features, bool owner)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true, .completion_nsec = latency_ns };
	struct vload_cfg c = { .depth = 32, .mem_idx = -1, .indirect = true, .flush_pct = 1 };
	unsigned int i, k, waited = 0;
	struct vload l;
	int r;

	r = nullb_create("iovmtrs", &o, fix_store);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	fix_create(0, fix_store, MB * 2048, nq);
	fix_open_stopped(0, features, nq, 128, 48 * MiB, 8 * MiB);
	/* the index wraps on the way */
	for (i = 0; i < nq; i++)
		vq_rewind(&F[0].d.vqs[i], 65536 - 300 * (i + 1));
	T_REQUIRE(!vdev_start(&F[0].d), "start");
	r = vload_start(&l, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	T_CHECK(vload_progress(&l, 100, 20000), "no progress before the first stop");
	for (i = 0; i < rounds && !ktap_failed(); i++) {
		for (k = 0; k < nq; k++) {
			r = vq_stop(&F[0].d.vqs[k]);
			T_CHECK(!r, "round %u: stop: %s", i, strerror(-r));
			check_idle_base(&F[0].d.vqs[k], i);
			waited += vq_outstanding(&F[0].d.vqs[k]) > 0;
		}
		if (owner && i % 10 == 9) {
			/* the VMM starts over on the same file */
			r = ioctl(F[0].d.fd, VHOST_RESET_OWNER, NULL) ? -errno : 0;
			T_CHECK(!r, "RESET_OWNER: %s", strerror(-r));
			r = F[0].d.tp->set_owner(&F[0].d);
			T_CHECK(!r, "SET_OWNER: %s", strerror(-r));
			r = F[0].d.tp->set_features(&F[0].d, F[0].d.features);
			T_CHECK(!r, "SET_FEATURES: %s", strerror(-r));
			r = vdev_set_mem(&F[0].d, &F[0].mem);
			T_CHECK(!r, "SET_MEM_TABLE: %s", strerror(-r));
		}
		r = vdev_start(&F[0].d);
		T_CHECK(!r, "round %u: start: %s", i, strerror(-r));
		/* A stopped queue's kick may have been read by nobody: the start itself must look at the ring. */
		if (i % 20 == 0)
			T_CHECK(vload_progress(&l, 32, 20000), "round %u: no progress behind the start", i);
	}
	T_CHECK(vload_progress(&l, 32, 20000), "no progress behind the last start");
	ktap_note("%u of %u stops left requests waiting in the ring, %llu requests served", waited, rounds * nq,
		  (unsigned long long)l.ios);
	vload_stop(&l);
	T_CHECK(vload_check_dev(&l) == 0, "wrong data at rest");
	vload_finish(&l, "restart");
}

static void under_load(void)
{
	restart(1, 200, 0, RING_FEATURES, false);
}

static void latency(void)
{
	restart(2, 100, 3000000, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), false);
}

static void no_event_idx(void)
{
	restart(1, 50, 500000, BIT64(VIRTIO_RING_F_INDIRECT_DESC), false);
}

static void reset_owner(void)
{
	restart(2, 50, 0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), true);
}

/* The front end closes the node and another opens it, from the base that the used ring tells: as a restarted VMM does. */
static void reopen(void)
{
	struct vload_cfg c = { .depth = 16, .mem_idx = -1, .max_ios = 300, .seed = 99 };
	unsigned int i;
	struct vload l;
	int r;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	for (i = 0; i < 10; i++) {
		fix_open_stopped(0, RING_FEATURES, 1, 64, 32 * MiB, 0);
		T_REQUIRE(!vdev_start(&F[0].d), "start");
		r = vload_start(&l, &F[0].d, &c);
		T_REQUIRE(!r, "load: %s", strerror(-r));
		vload_wait(&l);
		T_CHECK(vload_check_node(&l, fix_store) == 0, "wrong data at rest");
		vload_finish(&l, "reopen");
		fix_close(0);
	}
}

static const struct ktap_case cases[] = {
	{ "under_load", under_load, 120 },
	{ "latency", latency, 120 },
	{ "no_event_idx", no_event_idx },
	{ "reset_owner", reset_owner },
	{ "reopen", reopen },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
