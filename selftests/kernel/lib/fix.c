// SPDX-License-Identifier: GPL-2.0-or-later
#include "fix.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct fix F[FIX_MAX];
char fix_store[64];

void fix_store_make(u32 size_mb, u32 block_size)
{
	static int nr;
	struct nullb_opts o = { .size_mb = size_mb, .block_size = block_size, .memory_backed = true, .discard = true };
	char name[32];
	int r;

	snprintf(name, sizeof(name), "iovmt%d", nr++);
	r = nullb_create(name, &o, fix_store);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
}

void fix_two_paths(char a[64], char b[64])
{
	u64 n = stor_sectors(fix_store);
	int r;

	r = dm_create("iovmt-a", dm_linear(fix_store, n), a);
	T_REQUIRE(!r, "dm a: %s", strerror(-r));
	r = dm_create("iovmt-b", dm_linear(fix_store, n), b);
	T_REQUIRE(!r, "dm b: %s", strerror(-r));
}

void fix_create(int i, const char *bdev, u64 sectors, unsigned int queues)
{
	int r;

	snprintf(F[i].name, sizeof(F[i].name), "kt-%d", i);
	ctl_must_create(F[i].name, sectors, queues);
	if (bdev) {
		r = ctl_path_add_bdev(F[i].name, "a", bdev, 0, 0);
		T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	}
}

void fix_open_stopped(int i, u64 features, unsigned int nq, unsigned int num, u64 low, u64 high)
{
	struct fix *f = &F[i];
	int r;

	memset(&f->mem, 0, sizeof(f->mem));
	r = gmem_add(&f->mem, 0, low, GMEM_MEMFD);
	T_REQUIRE(r >= 0, "memory: %s", strerror(-r));
	if (high) {
		r = gmem_add(&f->mem, 4 * GiB, high, GMEM_ANON);
		T_REQUIRE(r >= 0, "memory: %s", strerror(-r));
	}
	/* address 0 is a fine one, but not for what looks at it */
	f->mem.r[0].used = 4096;
	r = vdev_open_node(&f->d, ctl_node(f->name));
	T_REQUIRE(!r, "open %s: %s", f->name, strerror(-r));
	f->is_open = true;
	r = vdev_setup(&f->d, &f->mem, features, nq, num);
	T_REQUIRE(!r, "set-up of %s: %s", f->name, strerror(-r));
}

void fix_open_mem(int i, u64 features, unsigned int nq, unsigned int num, u64 low, u64 high)
{
	int r;

	fix_open_stopped(i, features, nq, num, low, high);
	r = vblk_sync_init(&F[i].s, &F[i].d, 2 * MiB);
	T_REQUIRE(!r, "no room in guest memory");
	r = vdev_start(&F[i].d);
	T_REQUIRE(!r, "start of %s: %s", F[i].name, strerror(-r));
}

void fix_open(int i, u64 features, unsigned int nq, unsigned int num)
{
	fix_open_mem(i, features, nq, num, 48 * MiB, 16 * MiB);
}

void fix_close(int i)
{
	if (!F[i].is_open)
		return;
	vdev_close(&F[i].d);
	gmem_free(&F[i].mem);
	F[i].is_open = false;
}

void fix_cleanup(void)
{
	int i;

	for (i = 0; i < FIX_MAX; i++)
		fix_close(i);
	ctl_destroy_all("kt-");
	stor_cleanup();
}

void fix_all(u32 size_mb, unsigned int nq, unsigned int num, u64 features)
{
	fix_store_make(size_mb, 512);
	fix_create(0, fix_store, size_mb * 2048ull, nq);
	fix_open(0, features, nq, num);
}
