/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Storage to test on: null_blk, brd, scsi_debug, loop and device-mapper devices, made and taken away by the caller.
 * Functions return 0 or a negative errno; stor_cleanup() removes whatever of it is left.
 *
 *	                    ┌── dm "a" (linear, error, bad ranges) ── path a
 *	null_blk (in memory)┤
 *	                    ├── dm "b" ─────────────────────────────── path b
 *	                    └── O_DIRECT reads of the test, nbdsrv
 *
 *	scsi_debug: every disk of the module shares one store; one can be pulled
 */
#ifndef STOR_H
#define STOR_H

#include "vdrv.h"

struct nullb_opts {
	u32 size_mb;
	u32 block_size;		/* 0 = 512 */
	bool memory_backed;
	bool discard;
	u32 cache_mb;		/* volatile, emptied by a flush; needs memory_backed; 0 = none */
	u32 completion_nsec;	/* 0: complete at once */
	u32 hw_queues;		/* 0 = 1 */
	u32 queue_depth;	/* requests at a time; 0 = 64 */
	const char *badblocks;	/* "+FIRST-LAST" sectors */
};
int nullb_create(const char *name, const struct nullb_opts *o, char node[64]);
int nullb_destroy(const char *name);

int brd_load(unsigned int nr, unsigned int size_mb);	/* /dev/ram0.. */
int brd_unload(void);

/* @nr disks sharing one store; nodes[] and the names in /sys/block. */
int scsi_debug_load(unsigned int nr, unsigned int size_mb, unsigned int block_size, const char *params, char nodes[][64]);
int scsi_debug_unload(void);
int scsi_remove(const char *node);		/* pulls the disk */
int scsi_debug_param(const char *name, const char *value);
int scsi_debug_rescan(unsigned int nr, char nodes[][64]);	/* adds @nr hosts; nodes of the new disks */

int loop_create(u64 bytes, unsigned int block_size, bool read_only, char node[64]);	/* on a file in /dev/shm or /tmp */
int loop_destroy(const char *node);

/* device-mapper by ioctl; a table is lines "START LEN TARGET PARAMS\n" */
int dm_create(const char *name, const char *table, char node[64]);
int dm_swap(const char *name, const char *table, bool flush);	/* suspend, load, resume */
int dm_load(const char *name, const char *table);	/* the next resume takes it */
int dm_suspend(const char *name, bool suspend);
int dm_remove(const char *name);
int dm_message(const char *name, const char *text);	/* to the target at sector 0 */
char *dm_linear(const char *under, u64 sectors);	/* "0 N linear UNDER 0": static buffer */
char *dm_error(u64 sectors);				/* another static buffer */

void stor_cleanup(void);
int stor_write_file(const char *path, const char *text);
u64 stor_sectors(const char *node);
int stor_modprobe(const char *module, const char *params);

/* O_DIRECT access, any alignment of @buf; @off and @len multiples of 4096 (or of the block size) */
int stor_pread(const char *node, void *buf, size_t len, u64 off);
int stor_pwrite(const char *node, const void *buf, size_t len, u64 off);

#endif /* STOR_H */
