/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a campaign works on: storage, the device kt-0, its paths.
 *
 *	dm	a, b: dm devices on a null_blk in memory; r: an NBD server on it, by way of a network if there is one
 *	scsi	a, b: disks of scsi_debug, which share a store; r: an NBD server on a third one
 *	array	a, b: NBD servers, the controllers of an array with volatile caches (array.h); the paths' caches are said to
 *		survive their loss, so that FLUSH matters
 *	array-fua	the same array, but the paths' caches die with them: every write has to be FUA
 *	hosts	two hosts between which the guest is migrated: see hosts.h
 */
#ifndef BED_H
#define BED_H

#include "array.h"
#include "ctl.h"
#include "model.h"
#include "stor.h"

#define BED_DEV		"kt-0"
#define BED_PATHS	3
#define BED_HOSTS_MAX	2

enum bed_kind { BED_DM, BED_SCSI, BED_ARRAY, BED_ARRAY_FUA, BED_HOSTS, BED_KINDS };

struct bed_path {
	char dev[8];			/* whose path it is */
	char name[8];
	char node[64];			/* of a bdev path */
	char dm[16];			/* its dm name; empty: not one */
	bool nbd;
	bool net;			/* by way of the network */
	unsigned int nr;		/* in bed.path */
	unsigned int host;		/* in bed.host */
	struct nbdsrv srv;
	struct bed_host *target;	/* whose target serves it, instead of srv; or NULL */
	unsigned int sockets;
	u32 flags, fence, heartbeat_ms, dead_ms;
};

/* How the device and its paths are set up */
struct bed_opts {
	bool bounce;			/* IOVM_DEV_F_BOUNCE_READS */
	u32 io_timeout_ms;		/* of every path; 0: default, which no fault here lasts for */
	u32 latency_us;			/* of storage and network, so that requests are in flight when something happens */
	u32 tempo;			/* percent of all times: how long faults last, when paths are given up; 0: 100 */
};

/* Where a guest can be */
struct bed_host {
	char dev[8];
	struct bed_path path[BED_PATHS];
	/* bed hosts: what it serves its disk to the other one with */
	char target[8];
	char target_dm[16], target_node[64];
};

struct bed {
	enum bed_kind kind;
	struct bed_opts opts;
	u32 block;
	u64 sectors;
	unsigned int queues;
	char store[64];			/* the storage side; empty: the array */
	struct array array;
	struct bed_host host[BED_HOSTS_MAX];
	unsigned int hosts;
	unsigned int at;		/* where the guest is */
	const char *dev;		/* its device there, */
	struct bed_path *path;		/* the paths of that, */
	unsigned int nr;		/* and how many */
	struct hosts *epochs;		/* bed hosts */
	struct ctl_events ev;
	struct model *m;
	/* pauses since nr_pauses was cleared: error to first completion elsewhere */
	u64 pause_ns[64];
	unsigned int nr_pauses;
	u64 watched_ns;
	bool made;
};

extern const char *const bed_name[BED_KINDS];

int bed_make(struct bed *b, enum bed_kind kind, const struct bed_opts *opts, u32 block, unsigned int queues, u64 sectors,
	     struct model *m);
void bed_free(struct bed *b);
u32 bed_time(const struct bed *b, u32 time);		/* at this bed's tempo */
void bed_path_nbd(struct bed *b, struct bed_path *p, const char *name, u32 flags);	/* fills it in */
int bed_path_add(struct bed *b, struct bed_path *p);
int bed_path_state(struct bed *b, struct bed_path *p);		/* enum iovm_path_state, or negative: there is none */
int bed_sockets(struct bed_path *p, int fds[], unsigned int n);
int bed_connect(struct bed *b, struct bed_path *p, u64 bytes);
/* Ends the server's connections; its cache fares as the bed says. */
void bed_kill_server(struct bed *b, struct bed_path *p);
/* Makes every path live again: 0, or why one does not come back. */
int bed_heal(struct bed *b, int timeout_ms);
/* What a watcher does: connects again what has failed a while ago. For guest.idle. */
void bed_watch(void *bed);
void bed_events(struct bed *b, int timeout_ms);			/* takes them in */
/* For storage as the storage side sees it */
int bed_storage_read(void *bed, void *buf, size_t len, u64 off);

/* scsi: pulls a disk; finds it again, under whatever name */
int bed_scsi_pull(struct bed_path *p, char address[64]);
int bed_scsi_plug(struct bed_path *p, const char *address);

#endif /* BED_H */
