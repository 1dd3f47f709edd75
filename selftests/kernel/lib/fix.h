/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What most cases need: a device "kt-N" on storage in memory, opened, with its queues running. Every step ends the case
 * when it fails. fix_cleanup() (the default after each case) takes everything away again.
 */
#ifndef FIX_H
#define FIX_H

#include "ctl.h"
#include "ktap.h"
#include "nbdsrv.h"
#include "stor.h"
#include "vdrv.h"
#include "vload.h"

#define FIX_MAX		64
#define ALL_FEATURES	(~0ull & ~BIT64(VHOST_F_LOG_ALL))
#define RING_FEATURES	(BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_RING_F_EVENT_IDX))

struct fix {
	char name[IOVM_NAME_MAX];	/* of the device */
	struct gmem mem;
	struct vdev d;
	struct vblk_sync s;
	bool is_open;
};

extern struct fix F[FIX_MAX];
extern char fix_store[64];		/* node of the null_blk that fix_store_make() made */

/* A memory-backed null_blk "iovmtN" in fix_store. */
void fix_store_make(u32 size_mb, u32 block_size);
/* Two dm devices on fix_store: "iovmt-a" and "iovmt-b"; their nodes. */
void fix_two_paths(char a[64], char b[64]);
/* Device i named kt-i on a bdev (NULL: no path yet). */
void fix_create(int i, const char *bdev, u64 sectors, unsigned int queues);
/* 48 MiB at 0 and @more at 4 GiB; features & offered; queues running; f->s ready with 2 MiB. */
void fix_open(int i, u64 features, unsigned int nq, unsigned int num);
void fix_open_mem(int i, u64 features, unsigned int nq, unsigned int num, u64 low, u64 high);
void fix_open_stopped(int i, u64 features, unsigned int nq, unsigned int num, u64 low, u64 high);
void fix_close(int i);
void fix_cleanup(void);
/* All of it: null_blk of size_mb, device, path "a", open. */
void fix_all(u32 size_mb, unsigned int nq, unsigned int num, u64 features);

#endif /* FIX_H */
