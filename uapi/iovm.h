/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The control ABI of iovm_mux: every ioctl and record of /dev/iovm-mux.
 *
 *   /dev/iovm-mux
 *     IOVM_GET_VERSION             what this kernel side speaks
 *     IOVM_DEV_CREATE              make a device and its node /dev/vhost-iovm/NAME
 *     IOVM_DEV_DESTROY             the reverse
 *     IOVM_DEV_GET                 one device, or the next one after an id
 *     IOVM_DEV_CTL                 failover, failback, suspend, resume, ...
 *     IOVM_DEV_STATS               counters and the pause histogram
 *     IOVM_PATH_ADD                append a path to a device
 *     IOVM_PATH_REMOVE             drain and remove a path
 *     IOVM_PATH_GET                one path, or the next one after an id
 *     IOVM_PATH_CONNECT            hand established sockets to a path
 *     IOVM_PATH_CTL                fail, retry, confirm a fence
 *     IOVM_PATH_STATS              counters and latency histograms
 *     IOVM_SESSION_ADD             hand a client's sockets to a target device
 *     IOVM_SESSION_REMOVE          begin to end a session
 *     IOVM_SESSION_GET             one session, or the next one after an id
 *     IOVM_EVENTS_FROM             where this file's next read() starts
 *     read()/poll()                a stream of struct iovm_event
 *
 * Every argument is a pointer to a struct that begins with `__u32 size`, set by the caller to
 * the sizeof() it was built with. Structs only ever grow at their end. A kernel that knows a
 * shorter struct accepts a longer one if the rest is zero (else E2BIG); one that knows a longer
 * struct takes what is missing as zero. Fields named pad or rsvd must be zero (EINVAL). A result
 * is written back up to the caller's size, and `size` is set to what the kernel filled in.
 *
 * `msg` is output: on an error it holds a sentence in plain ASCII that names what is wrong; it is
 * empty on success.
 *
 * All integers are in native byte order. Times are nanoseconds (_ns) or milliseconds (_ms).
 * The node is for CAP_NET_ADMIN in the initial user namespace (EPERM).
 */
#ifndef _UAPI_IOVM_H
#define _UAPI_IOVM_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define IOVM_ABI_VERSION	1

/* with the closing NUL; [A-Za-z0-9._-], not starting with '.' or '-' */
#define IOVM_NAME_MAX		64
#define IOVM_MSG_MAX		192
/* what a path leads to, for people: "/dev/sdb", "nbd://b:10809/x" */
#define IOVM_ADDR_MAX		256
/* with the closing NUL; SCHEME:TEXT, printable ASCII without spaces */
#define IOVM_IDENTITY_MAX	128
#define IOVM_SERIAL_MAX		20	/* VIRTIO_BLK_ID_BYTES: NUL padded, may fill all 20 */
#define IOVM_MAX_PATHS		8	/* of one device */
#define IOVM_MAX_DEVS		1024
#define IOVM_MAX_QUEUES		64
#define IOVM_MAX_SOCKETS	16	/* of one nbd path, of one session */
#define IOVM_MAX_SESSIONS	64	/* of one target device */
/* bucket i counts durations in [2^i, 2^(i+1)) ns; the last is open */
#define IOVM_HIST_BUCKETS	40

#define IOVM_NO_ID		0xffffffffu

/* Device classes: iovm_dev_create.class */
#define IOVM_CLASS_BLK		1
#define IOVM_CLASS_NET		2	/* reserved */
/* like BLK, but its front end are NBD clients: it has no node, and sessions instead */
#define IOVM_CLASS_TARGET	3

/* Path types: iovm_path_add.type */
#define IOVM_PATH_BDEV		1	/* any block device of this host */
#define IOVM_PATH_NBD		2	/* an NBD server, over sockets in the transmission phase */

/**
 * enum iovm_path_state - the states of a path
 * @IOVM_PATH_CONNECTING: configured, not usable yet: no socket or no open device
 * @IOVM_PATH_LIVE: may take requests
 * @IOVM_PATH_SUSPECT: overdue; new requests go elsewhere while anything else is live
 * @IOVM_PATH_FAILED: a path error was seen, or device or peer is gone
 * @IOVM_PATH_DRAINING: administratively leaving; takes nothing new, finishes what it has
 * @IOVM_PATH_REMOVED: the last reference is being dropped
 */
enum iovm_path_state {
	IOVM_PATH_CONNECTING = 0,
	IOVM_PATH_LIVE = 1,
	IOVM_PATH_SUSPECT = 2,
	IOVM_PATH_FAILED = 3,
	IOVM_PATH_DRAINING = 4,
	IOVM_PATH_REMOVED = 5,
};

/**
 * enum iovm_dev_state - what happens to a device's requests, derived from its paths and policy
 * @IOVM_DEV_ROUTED: requests go to iovm_dev_info.route_id
 * @IOVM_DEV_PARKED: no usable path; the guest waits, at most no_path_timeout_ms
 * @IOVM_DEV_SUSPENDED: parked by the operator
 * @IOVM_DEV_FAILING: no_path_timeout_ms has passed; requests are failed until a path is live
 * @IOVM_DEV_NO_EPOCH: it needs an epoch and holds none: the guest waits, without a limit
 */
enum iovm_dev_state {
	IOVM_DEV_ROUTED = 0,
	IOVM_DEV_PARKED = 1,
	IOVM_DEV_SUSPENDED = 2,
	IOVM_DEV_FAILING = 3,
	IOVM_DEV_NO_EPOCH = 4,
};

/* What ends an earlier issue of a request on a failed path: iovm_path_add.fence */
#define IOVM_FENCE_DEFAULT	0	/* bdev: LOCAL_ERROR, nbd: NONE */
/* directly attached: an errored request will not land later */
#define IOVM_FENCE_LOCAL_ERROR	1
/* nothing: writes wait for the same path or for IOVM_PATH_CTL_FENCED */
#define IOVM_FENCE_NONE		2
/*
 * nbd: the server is a target of ours. As NONE; and whoever connects the path again may say that
 * its earlier sessions were drained: IOVM_NBD_F_DRAINED
 */
#define IOVM_FENCE_EPOCH	3

/*
 * Who sees to it, once writes wait for a failed path, that nothing issued there lands any more:
 * iovm_path_add.fence_by. COMMAND and OFFLINE are done by user space (iovmctl path watch),
 * RESERVATION by the kernel.
 */
#define IOVM_FENCE_BY_HAND	0	/* nobody but the operator */
#define IOVM_FENCE_BY_COMMAND	1	/* fence_command, a program, must exit with status 0 */
/* bdev with LOCAL_ERROR: the disk's driver is made to end what it has */
#define IOVM_FENCE_BY_OFFLINE	2
/* bdev: another path with such a fence preempts pr_key, and aborts what was sent with it */
#define IOVM_FENCE_BY_RESERVATION	3

#define IOVM_NO_TIMEOUT		0xffffffffu	/* iovm_path_add.io_timeout_ms */
#define IOVM_SLOW_OFF		0xffffffffu	/* iovm_dev_create.slow_factor */

struct iovm_version {
	__u32 size;
	__u32 abi;		/* out: IOVM_ABI_VERSION */
	__u64 classes;		/* out: 1 << IOVM_CLASS_*, those whose module is loaded */
	__u64 path_types;	/* out: 1 << IOVM_PATH_* likewise */
	char  release[32];	/* out: the project's release, "0.1.0" */
};

/* iovm_dev_create.flags */
#define IOVM_DEV_F_RDONLY		(1u << 0)
/* reads land in pages of the kernel's and are copied: one that hangs can go elsewhere */
#define IOVM_DEV_F_BOUNCE_READS		(1u << 1)
/* it needs an epoch: a guest's device to issue anything, a target to admit sessions */
#define IOVM_DEV_F_EPOCH		(1u << 2)
#define IOVM_DEV_F_ALL			(IOVM_DEV_F_RDONLY | IOVM_DEV_F_BOUNCE_READS | \
					 IOVM_DEV_F_EPOCH)

/* The part of a block device's configuration that is fixed at creation. */
struct iovm_blk_config {
	__u64 capacity;			/* 512-byte sectors, > 0, a multiple of block_size */
	__u32 block_size;		/* logical block: 512 or 4096 */
	__u32 physical_block_size;	/* >= block_size, a power of two <= 1 MiB; 0 = block_size */
	__u32 opt_io_size;		/* bytes; 0 = not stated */
	__u32 num_queues;		/* 1..IOVM_MAX_QUEUES */
	__u32 queue_size;		/* advice to the VMM: a power of two, 2..1024; 0 = 128 */
	__u32 seg_max;			/* data segments a request may have; 0 = queue_size - 2 */
	__u32 max_discard_sectors;	/* 0 = DISCARD is not offered */
	__u32 discard_granularity;	/* bytes; 0 = block_size */
	__u32 max_write_zeroes_sectors;	/* 0 = WRITE_ZEROES is not offered */
	__u32 pad;
	char  serial[IOVM_SERIAL_MAX];
	__u32 pad2;
};

/*
 * IOVM_DEV_CREATE. EEXIST name taken; EINVAL bad name or configuration; ENOSPC IOVM_MAX_DEVS;
 * ENODEV the class's module is not loaded.
 */
struct iovm_dev_create {
	__u32 size;
	__u32 class;			/* IOVM_CLASS_* */
	char  name[IOVM_NAME_MAX];
	__u32 flags;			/* IOVM_DEV_F_* */
	__u32 mode;			/* of the node, permission bits */
	__u32 uid;			/* of the node */
	__u32 gid;
	__u64 no_path_timeout_ms;	/* 0 = wait for ever */
	/* automatic failback once an earlier path has been live this long; 0 = by hand */
	__u64 failback_after_ms;
	__u64 iops;			/* limits; 0 = none */
	__u64 bps;			/* bytes per second */
	struct iovm_blk_config blk;	/* IOVM_CLASS_BLK, IOVM_CLASS_TARGET */
	__u32 id;			/* out */
	__u32 pad;
	char  msg[IOVM_MSG_MAX];	/* out */
	/* of the data; "" = that of the first path that has one */
	char  identity[IOVM_IDENTITY_MAX];
	__u64 no_space_timeout_ms;	/* how long a write waits for space; 0 = for ever */
	/*
	 * a path is slow when its requests take so many times what is usual; 0 = 4, else 2..1000,
	 * or IOVM_SLOW_OFF
	 */
	__u32 slow_factor;
	__u32 pad2;
	/* leave a path that has been slow for so long, if another one is better; 0 = only report */
	__u64 leave_slow_after_ms;
	__u64 epoch;			/* the last one that it had, and does not hold; 0 none */
};

/*
 * IOVM_DEV_DESTROY. ENOENT; EBUSY a front end is open. Paths are flushed before: EIO one could not
 * be, EINTR killed meanwhile; the device stays. FORCE: nothing is flushed, the front end's queues
 * stop, its file answers ENODEV.
 */
#define IOVM_DESTROY_F_FORCE	(1u << 0)
struct iovm_dev_destroy {
	__u32 size;
	__u32 flags;
	char  name[IOVM_NAME_MAX];
	char  msg[IOVM_MSG_MAX];
};

/*
 * IOVM_DEV_GET. By name when name is not empty (ENOENT), else the device with the lowest id that is
 * >= id (ENOENT when there is none): start at 0, go on with id + 1.
 */
struct iovm_dev_info {
	__u32 size;
	__u32 id;
	char  name[IOVM_NAME_MAX];
	__u32 class;
	__u32 flags;
	__u32 state;			/* enum iovm_dev_state */
	__u32 route_id;			/* path id, IOVM_NO_ID when none */
	__u32 nr_paths;
	__u32 in_use;			/* a front end has the node open */
	/* of that front end, in the caller's pid namespace, 0 when none */
	__u32 owner_pid;
	__u32 queues_running;
	__u64 inflight;			/* requests issued to a path and not finished */
	__u64 requeued;			/* requests that came back from a path and wait */
	__u64 held;			/* writes that wait for a fence */
	__u64 no_path_timeout_ms;
	__u64 failback_after_ms;
	__u64 iops;
	__u64 bps;
	__u64 parked_ms;		/* since when there is no route, 0 when there is one */
	struct iovm_blk_config blk;
	__u64 features;			/* virtio feature bits offered */
	__u64 mem_bytes;		/* kernel memory this device holds beyond its code */
	char  identity[IOVM_IDENTITY_MAX];	/* of the data; "" = not known */
	__u64 no_space_timeout_ms;
	__u64 no_space;			/* requests that wait for space */
	__u64 no_space_ms;		/* since when there are such, 0 when there are none */
	__u32 slow_factor;		/* IOVM_SLOW_OFF: latencies are not watched */
	__u32 pad;
	__u64 leave_slow_after_ms;	/* 0 = only reported */
	/* path that takes requests if it is usable and the device not suspended; or IOVM_NO_ID */
	__u32 preferred_id;
	__u32 pinned;			/* IOVM_DEV_FAILOVER chose it: no automatic failback */
	__u64 epoch;			/* the one that it holds, or had last; 0 none yet */
	__u32 epoch_held;		/* it holds it; a target: it admits sessions of it */
	__u32 epoch_waits;		/* EPOCH_GIVE, or EPOCH_TAKE of a target, waits */
};

/* IOVM_DEV_CTL ops */
/* to the live path after the current one, or to `path` if named; ENOLINK none */
#define IOVM_DEV_FAILOVER	1
#define IOVM_DEV_FAILBACK	2	/* to the first live path */
#define IOVM_DEV_SUSPEND	3	/* park; returns when nothing is in flight (killable) */
#define IOVM_DEV_RESUME		4	/* and tries at once what waits for space */
#define IOVM_DEV_FAIL_PARKED	5	/* fail what waits, once, with an error to the guest */
/* capacity becomes value (sectors): every path must have it */
#define IOVM_DEV_RESIZE		6
#define IOVM_DEV_SET_NO_PATH_TIMEOUT 7	/* value: ms */
#define IOVM_DEV_SET_FAILBACK_AFTER 8	/* value: ms */
#define IOVM_DEV_SET_IOPS	9	/* value */
#define IOVM_DEV_SET_BPS	10	/* value */
#define IOVM_DEV_SET_NO_SPACE_TIMEOUT 11	/* value: ms */
/* value: as iovm_dev_create.slow_factor; what is usual is learned anew */
#define IOVM_DEV_SET_SLOW_FACTOR 12
#define IOVM_DEV_SET_LEAVE_SLOW_AFTER 13	/* value: ms; 0 = only report */
/*
 * The device holds the epoch value from now on. ESTALE it is not newer than the last it had (the
 * one that it holds: 0); EBUSY an EPOCH_GIVE waits; EOPNOTSUPP it needs none. A target: all its
 * sessions have an older one, and end; returns when they have, and nothing that they issued can
 * land any more, and admits none before (EINTR killed: once more to go on waiting)
 */
#define IOVM_DEV_EPOCH_TAKE	14
/*
 * The device gives up the epoch value: returns when nothing that it issued can land any more, and
 * what it acknowledged is stable. 0 also if it has given up that one before. ESTALE it holds
 * another one; EBUSY queues of its front end run, or start meanwhile; EINTR killed, EIO a flush
 * failed: it holds it still; EOPNOTSUPP it needs none, or is a target
 */
#define IOVM_DEV_EPOCH_GIVE	15
struct iovm_dev_ctl {
	__u32 size;
	__u32 op;
	char  name[IOVM_NAME_MAX];
	char  path[IOVM_NAME_MAX];
	__u64 value;
	char  msg[IOVM_MSG_MAX];
};

/* iovm_path_add.flags */
/* acknowledged writes survive the loss of this path */
#define IOVM_PATH_F_CACHE_SURVIVES	(1u << 0)
#define IOVM_PATH_F_CACHE_DIES		(1u << 1)	/* they may not: every write is FUA */
					/* neither: bdev survives, nbd dies */
/* the operator says that it is the same data, whatever the identities say */
#define IOVM_PATH_F_ASSUME_SAME		(1u << 2)
/* its identity is the operator's word: nothing else shows it. For user space to go by */
#define IOVM_PATH_F_IDENTITY_GIVEN	(1u << 3)
/*
 * bdev: other devices' paths that have this too may use the same block device. Nothing keeps them
 * from writing at the same time. Not with IOVM_FENCE_BY_RESERVATION
 */
#define IOVM_PATH_F_SHARED		(1u << 4)
#define IOVM_PATH_F_ALL			(IOVM_PATH_F_CACHE_SURVIVES | IOVM_PATH_F_CACHE_DIES | \
					 IOVM_PATH_F_ASSUME_SAME | IOVM_PATH_F_IDENTITY_GIVEN | \
					 IOVM_PATH_F_SHARED)

/*
 * IOVM_PATH_ADD. The new path is last in order. ENOENT no such device; EEXIST name taken; ENOSPC
 * IOVM_MAX_PATHS; EBUSY bdev in use, and not shared by all; ENXIO/ENOTBLK bad device; EMEDIUMTYPE
 * size or block size differ, or the identity of the data does or is missing (msg says how). A bdev
 * path is live on return. An nbd path is `connecting` until IOVM_PATH_CONNECT.
 */
struct iovm_path_add {
	__u32 size;
	__u32 type;			/* IOVM_PATH_* */
	char  dev[IOVM_NAME_MAX];
	char  name[IOVM_NAME_MAX];
	char  addr[IOVM_ADDR_MAX];	/* for people; for nbd also what user space reconnects to */
	__u32 flags;			/* IOVM_PATH_F_* */
	__u32 fence;			/* IOVM_FENCE_* */
	/* bdev: an open fd of the block device; its device number is taken. Else -1 */
	__s32 fd;
	__u32 heartbeat_ms;		/* nbd: an idle connection is probed this often; 0 = 1000 */
	/* nbd: no answer for this long fails the path, also TCP_USER_TIMEOUT; 0 = 5000 */
	__u32 dead_ms;
	__u32 id;			/* out */
	char  msg[IOVM_MSG_MAX];
	/*
	 * a request that is under way for half of this makes the path suspect, for all of it
	 * failed (ETIMEDOUT); 0 = 10000, else 20..3600000, or IOVM_NO_TIMEOUT
	 */
	__u32 io_timeout_ms;
	__u32 fence_by;			/* IOVM_FENCE_BY_* */
	char  identity[IOVM_IDENTITY_MAX];	/* of its data; "" = it shows none */
	/* not before the path has been failed for so long; 0 = 3000, RESERVATION 1 */
	__u32 fence_after_ms;
	__u32 pad;
	/* of IOVM_FENCE_BY_COMMAND: absolute, without arguments; else "" */
	char  fence_command[IOVM_ADDR_MAX];
	/* of IOVM_FENCE_BY_RESERVATION: one of its own for each path to the medium; else 0 */
	__u64 pr_key;
};

/*
 * IOVM_PATH_REMOVE. Waits for what the path has in flight (killable); with FORCE fails the path
 * first.
 */
#define IOVM_PATH_REMOVE_F_FORCE	(1u << 0)
struct iovm_path_remove {
	__u32 size;
	__u32 flags;
	char  dev[IOVM_NAME_MAX];
	char  name[IOVM_NAME_MAX];
	char  msg[IOVM_MSG_MAX];
};

/* IOVM_PATH_GET. dev by name; path by name when not empty, else the lowest id >= id. */
struct iovm_path_info {
	__u32 size;
	__u32 id;
	char  dev[IOVM_NAME_MAX];
	char  name[IOVM_NAME_MAX];
	char  addr[IOVM_ADDR_MAX];
	__u32 type;
	__u32 flags;
	__u32 fence;
	__u32 state;			/* enum iovm_path_state */
	__u32 order;			/* 0 = preferred */
	__s32 last_error;		/* negative errno of the last path error, 0 when none */
	__u32 nr_sockets;
	__u32 generation;		/* how often it was connected */
	__u64 state_since_ms;		/* ago */
	__u64 inflight;
	__u64 held;
	__u64 capacity;			/* sectors; 0 not known yet */
	__u32 block_size;
	__u32 heartbeat_ms;
	__u32 dead_ms;
	__u32 nbd_flags;		/* transmission flags as negotiated */
	__u32 io_timeout_ms;		/* IOVM_NO_TIMEOUT none */
	__u32 fenced;			/* confirmed since it was last live */
	__u64 oldest_ms;		/* since when the oldest request is under way, 0 none */
	char  identity[IOVM_IDENTITY_MAX];	/* of its data; "" = it shows none */
	__u32 slow;			/* slower than usual, or was left for that */
	__u32 pad;
	__u64 slow_ms;			/* since when, 0 when it is not */
	__u64 lat_ns;			/* what its requests take; 0 not known */
	__u64 usual_ns;			/* what is usual under such a load; 0 not known */
	__u64 rtt_ns;			/* what a heartbeat takes; 0 there was none */
	__u64 unsettled;		/* writes that wait until a failed path is live or fenced */
	__u32 fence_by;			/* IOVM_FENCE_BY_* */
	__u32 fence_after_ms;
	__u32 fence_tries;		/* failed tries to fence it since it was last live */
	__s32 fence_status;		/* of the last one, as in struct iovm_path_ctl; 0 none */
	char  fence_command[IOVM_ADDR_MAX];
	__u32 bdev_major;		/* bdev: its device number */
	__u32 bdev_minor;
	__u64 pr_key;
	__u32 by_hand;			/* failed, and by IOVM_PATH_CTL_FAIL */
	__u32 unflushed;		/* holds acknowledged writes no FLUSH has covered */
	/* a write that came back may still land; until it is fenced no epoch is given up */
	__u32 in_doubt;
	__u32 tls;			/* nbd: its sockets have TLS keys in both directions */
	__u32 keys_old;			/* IOVM_EV_KEYS_OLD was sent for them */
	__u32 replaced;			/* its sockets, so often since it was last connected */
	__u64 tls_records;		/* the most that one of them sent or received */
};

/*
 * IOVM_PATH_CONNECT. Established stream sockets, handshake done, nothing unread in user space.
 * Allowed in state connecting or failed (EBUSY else), or see IOVM_NBD_F_REPLACE. EMEDIUMTYPE the
 * export or the identity of its data differs from the device; ENOTSOCK, EPROTOTYPE bad socket;
 * EINVAL several sockets without CAN_MULTI_CONN. The kernel holds its own references: close yours.
 */
/* structured replies were negotiated on every socket */
#define IOVM_NBD_F_STRUCTURED	(1u << 0)
/*
 * path with IOVM_FENCE_EPOCH: the server has ended and drained all earlier sessions of this path,
 * which confirms its fence before it is live
 */
#define IOVM_NBD_F_DRAINED	(1u << 1)
/* the sockets must be TCP with TLS keys in both directions (kTLS), else EINVAL */
#define IOVM_NBD_F_TLS		(1u << 2)
/*
 * The path is live, or suspect (ENOTCONN else), and stays that: new requests go to these sockets;
 * those before end when what they have is answered. On an error all is as it was: EMEDIUMTYPE it is
 * not the same export (size, flags, identity); EOPNOTSUPP no CAN_MULTI_CONN; EINVAL no TLS keys,
 * where the path has such; EBUSY the sockets replaced before have not ended yet; ECONNABORTED the
 * path has failed meanwhile; others: these sockets do not answer a READ
 */
#define IOVM_NBD_F_REPLACE	(1u << 3)
struct iovm_path_connect {
	__u32 size;
	__u32 nr_fds;			/* 1..IOVM_MAX_SOCKETS */
	char  dev[IOVM_NAME_MAX];
	char  name[IOVM_NAME_MAX];
	__s32 fds[IOVM_MAX_SOCKETS];
	__u64 export_bytes;
	__u32 nbd_flags;		/* transmission flags of the export (16 bits) */
	__u32 flags;			/* IOVM_NBD_F_* */
	__u32 min_block;		/* bytes; 0 = not stated (1) */
	__u32 max_payload;		/* bytes; 0 = 32 MiB */
	char  msg[IOVM_MSG_MAX];
	/* of the data that the server has now; "" = it shows none */
	char  identity[IOVM_IDENTITY_MAX];
};

/* IOVM_PATH_CTL ops */
#define IOVM_PATH_CTL_FAIL	1	/* mark failed now */
#define IOVM_PATH_CTL_RETRY	2	/* probe a failed bdev path now: live again if it answers */
/* the operator states that nothing issued there before can land any more */
#define IOVM_PATH_CTL_FENCED	3
/* an attempt to make sure of that has failed: status says how. For show and the events */
#define IOVM_PATH_CTL_FENCE_FAILED	4
/* how it is to be fenced from now on: the last fields, as in struct iovm_path_add */
#define IOVM_PATH_CTL_SET_FENCE	5
#define IOVM_FENCE_STATUS_SIGNAL	256	/* iovm_path_ctl.status: plus the signal's number */
struct iovm_path_ctl {
	__u32 size;
	__u32 op;
	char  dev[IOVM_NAME_MAX];
	char  name[IOVM_NAME_MAX];
	char  msg[IOVM_MSG_MAX];
	/*
	 * FENCED, FENCE_FAILED: what was fenced, by IOVM_PATH_GET. ESTALE when it is another path
	 * by now, or has been live again. generation 0: whatever it is
	 */
	__u32 id;
	__u32 generation;
	/*
	 * FENCE_FAILED: negative errno, or the command's exit status, or IOVM_FENCE_STATUS_SIGNAL
	 * plus the signal that ended it
	 */
	__s32 status;
	__u32 pad;
	/* SET_FENCE: not from or to IOVM_FENCE_BY_RESERVATION */
	__u32 fence_by;
	__u32 fence_after_ms;
	char  fence_command[IOVM_ADDR_MAX];
};

/*
 * IOVM_SESSION_ADD. A client of a target device: stream sockets in the transmission phase (simple
 * replies), the handshake done, nothing unread in user space. ENOENT no such device; EOPNOTSUPP it
 * is no target; ENOSPC IOVM_MAX_SESSIONS; EROFS the device is read-only, the session not;
 * ENOTSOCK, EPROTOTYPE, ENOTCONN bad socket. The kernel holds its own references: close yours. A
 * session ends when all its connections have, and what they had in flight. A device with
 * IOVM_DEV_F_EPOCH: ESTALE the session has an older epoch than the device, or none; ERANGE it has a
 * newer one: raise the device's first; EBUSY it does not hold it yet: older sessions are ending.
 */
#define IOVM_SESSION_F_RDONLY	(1u << 0)
/* the sockets must have TLS keys in both directions, else EINVAL; in session_info: they have */
#define IOVM_SESSION_F_TLS	(1u << 1)
struct iovm_session_add {
	__u32 size;
	__u32 flags;			/* IOVM_SESSION_F_* */
	char  dev[IOVM_NAME_MAX];
	__s32 fds[IOVM_MAX_SOCKETS];
	__u32 nr_fds;			/* 1..IOVM_MAX_SOCKETS */
	__u32 id;			/* out */
	char  peer[IOVM_ADDR_MAX];	/* for people: who it is */
	char  msg[IOVM_MSG_MAX];
	__u64 epoch;			/* of the client; 0 = none */
};

/*
 * IOVM_SESSION_REMOVE. Its sockets are shut down: it takes nothing more. It has ended, and
 * IOVM_SESSION_GET does not find it any more, when what it has in flight has. ENOENT.
 */
struct iovm_session_remove {
	__u32 size;
	__u32 id;			/* IOVM_NO_ID: all that there are */
	char  dev[IOVM_NAME_MAX];
	char  msg[IOVM_MSG_MAX];
};

/* IOVM_SESSION_GET. The session with the lowest id that is >= id (ENOENT when there is none). */
struct iovm_session_info {
	__u32 size;
	__u32 id;
	char  dev[IOVM_NAME_MAX];
	char  peer[IOVM_ADDR_MAX];
	__u32 flags;
	__u32 nr_sockets;		/* that still take requests */
	__u32 inflight;			/* commands taken and not answered */
	__u32 pad;
	__u64 since_ms;			/* ago */
	__u64 commands;			/* answered */
	__u64 errors;			/* of those, with an error */
	__u64 read_bytes;
	__u64 written_bytes;
	__u64 mem_bytes;		/* kernel memory that it holds now */
	__u64 epoch;			/* 0 = none */
};

/* Indices of the per-operation counters */
#define IOVM_OP_READ		0
#define IOVM_OP_WRITE		1
#define IOVM_OP_FLUSH		2
#define IOVM_OP_DISCARD		3
#define IOVM_OP_WRITE_ZEROES	4
#define IOVM_OP_MAX		8

struct iovm_path_stats {
	__u32 size;
	__u32 pad;
	char  dev[IOVM_NAME_MAX];
	char  name[IOVM_NAME_MAX];
	__u64 issued[IOVM_OP_MAX];
	__u64 done[IOVM_OP_MAX];	/* successfully */
	__u64 bytes[IOVM_OP_MAX];	/* of those */
	__u64 request_errors;		/* reported to the guest */
	__u64 path_errors;		/* sent to the requeue list instead */
	__u64 retries;			/* resource shortage, issued again on the same path */
	__u64 stale_replies;		/* nbd: replies to requests nobody waits for */
	__u64 heartbeats;
	__u64 lat_ns[3][IOVM_HIST_BUCKETS];	/* read, write, all else: issue to completion */
	__u64 media_errors;		/* medium errors: tried elsewhere, or reported */
	__u64 no_space;			/* requests that found no space, each time they did */
};

struct iovm_dev_stats {
	__u32 size;
	__u32 pad;
	char  name[IOVM_NAME_MAX];
	__u64 requests;			/* completed to the guest */
	__u64 errors;			/* of those, with an error */
	__u64 requeues;
	__u64 reroutes;
	__u64 parks;			/* times the device had no route */
	__u64 fails;			/* requests failed because no path came */
	__u64 throttled;		/* requests delayed by a limit */
	/* per requeued request: first path error to final completion */
	__u64 pause_ns[IOVM_HIST_BUCKETS];
	__u64 pause_max_ns;
	__u64 retakes;			/* requests taken back from a path that hung */
};

/**
 * enum iovm_event_type - what an event record tells
 * @IOVM_EV_LOST: this reader was too slow: value events before seq are gone
 * @IOVM_EV_DEV_CREATED: a device appeared
 * @IOVM_EV_DEV_DESTROYED: and went
 * @IOVM_EV_DEV_OPENED: a front end opened the node; value = its pid
 * @IOVM_EV_DEV_CLOSED: and closed it
 * @IOVM_EV_PATH_ADDED: a path appeared
 * @IOVM_EV_PATH_STATE: path: old_state to new_state, error = why (negative errno) or 0
 * @IOVM_EV_PATH_REMOVED: a path went
 * @IOVM_EV_FIRST_ERROR: the first path error since the path was live: error
 * @IOVM_EV_REROUTED: the device's requests now go to path; value = ns since the first
 *	error, 0 when there was none
 * @IOVM_EV_FIRST_COMPLETION: first success on the new path; value = ns since the first
 *	error (or the switch)
 * @IOVM_EV_PARKED: no usable path: the guest waits
 * @IOVM_EV_TIMEOUT: no_path_timeout has passed: requests are failed
 * @IOVM_EV_SUSPENDED: by the operator, nothing is in flight
 * @IOVM_EV_RESUMED: by the operator
 * @IOVM_EV_HELD: writes wait for a fence of path; value = how many
 * @IOVM_EV_FENCED: the fence of path was confirmed; value = how many writes went on
 * @IOVM_EV_RESIZED: value = sectors
 * @IOVM_EV_QUEUE_BROKEN: a front end's ring is broken; value = queue index, error = why
 * @IOVM_EV_FAIL_PARKED: the operator failed what waited
 * @IOVM_EV_NO_SPACE: writes wait because the store of path is full; value = how many
 * @IOVM_EV_SPACE: they go on; value = ms since the first of them found no space
 * @IOVM_EV_MEDIUM_ERROR: path does not give or take some block; value = how many such errors it has
 *	had
 * @IOVM_EV_OVERDUE: a request on path is overdue; value = for how many ms it is under way
 * @IOVM_EV_SLOW: path is slow: its requests (op) take value ns, where value2 ns are usual
 * @IOVM_EV_SLOW_OVER: it is not any more: value ns; value2 as before
 * @IOVM_EV_SLOW_LEFT: path is left because it is slow: value ns; value2 = a heartbeat of the path
 *	that REROUTED names next, ns
 * @IOVM_EV_FENCE_FAILED: path could not be fenced: error = why (negative errno), or value = how the
 *	fence command ended, see struct iovm_path_ctl; for the 1st, 2nd, 4th, ... time
 * @IOVM_EV_SESSION_BEGUN: a target device has a session more; value = its id
 * @IOVM_EV_SESSION_ENDED: and one less, with nothing in flight; value = its id, error = why
 * @IOVM_EV_EPOCH_WANTED: the first queue of a device that holds no epoch has started; value = the
 *	last one that it had
 * @IOVM_EV_EPOCH_TAKEN: the device holds an epoch; value = which
 * @IOVM_EV_EPOCH_GIVEN: it has given it up; value = which
 * @IOVM_EV_KEYS_OLD: a connection of path has sent or received value TLS records: it should be
 *	replaced before its keys are worn out
 * @IOVM_EV_REPLACED: the sockets of path were replaced while it was live; value = how often since
 *	it was last connected
 */
enum iovm_event_type {
	IOVM_EV_LOST = 0,
	IOVM_EV_DEV_CREATED = 1,
	IOVM_EV_DEV_DESTROYED = 2,
	IOVM_EV_DEV_OPENED = 3,
	IOVM_EV_DEV_CLOSED = 4,
	IOVM_EV_PATH_ADDED = 5,
	IOVM_EV_PATH_STATE = 6,
	IOVM_EV_PATH_REMOVED = 7,
	IOVM_EV_FIRST_ERROR = 8,
	IOVM_EV_REROUTED = 9,
	IOVM_EV_FIRST_COMPLETION = 10,
	IOVM_EV_PARKED = 11,
	IOVM_EV_TIMEOUT = 12,
	IOVM_EV_SUSPENDED = 13,
	IOVM_EV_RESUMED = 14,
	IOVM_EV_HELD = 15,
	IOVM_EV_FENCED = 16,
	IOVM_EV_RESIZED = 17,
	IOVM_EV_QUEUE_BROKEN = 18,
	IOVM_EV_FAIL_PARKED = 19,
	IOVM_EV_NO_SPACE = 20,
	IOVM_EV_SPACE = 21,
	IOVM_EV_MEDIUM_ERROR = 22,
	IOVM_EV_OVERDUE = 23,
	IOVM_EV_SLOW = 24,
	IOVM_EV_SLOW_OVER = 25,
	IOVM_EV_SLOW_LEFT = 26,
	IOVM_EV_FENCE_FAILED = 27,
	IOVM_EV_SESSION_BEGUN = 28,
	IOVM_EV_SESSION_ENDED = 29,
	IOVM_EV_EPOCH_WANTED = 32,
	IOVM_EV_EPOCH_TAKEN = 33,
	IOVM_EV_EPOCH_GIVEN = 34,
	IOVM_EV_KEYS_OLD = 35,
	IOVM_EV_REPLACED = 36,
};

/*
 * read() on /dev/iovm-mux: whole records only (EINVAL when the buffer holds none); blocks, or
 * EAGAIN with O_NONBLOCK; poll() says POLLIN. Each open file has its own position, which starts
 * behind the newest event at the time of open(). The kernel keeps the last 4096; a reader that
 * falls further behind gets one IOVM_EV_LOST. seq is 1, 2, 3, ... without a gap since the module
 * was loaded.
 */
struct iovm_event {
	__u32 size;			/* of this record: the next one starts there */
	__u32 type;			/* enum iovm_event_type */
	__u64 seq;
	__u64 mono_ns;			/* CLOCK_MONOTONIC */
	__u64 real_ns;			/* CLOCK_REALTIME */
	__u32 dev_id;
	__u32 path_id;			/* IOVM_NO_ID when none */
	__u32 old_state;
	__u32 new_state;
	__s32 error;
	__u32 op;			/* IOVM_OP_*, IOVM_EV_SLOW* only */
	__u64 value;
	char  dev[IOVM_NAME_MAX];
	char  path[IOVM_NAME_MAX];
	__u64 value2;			/* IOVM_EV_SLOW* only */
};

/*
 * IOVM_EVENTS_FROM: the next read() starts at seq (0 = the oldest kept); out: the oldest kept and
 * the newest.
 */
struct iovm_events_from {
	__u32 size;
	__u32 pad;
	__u64 seq;
	__u64 oldest;
	__u64 newest;
};

#define IOVM_IOC_TYPE		0xB9
#define IOVM_GET_VERSION	_IO(IOVM_IOC_TYPE, 0x00)
#define IOVM_DEV_CREATE		_IO(IOVM_IOC_TYPE, 0x01)
#define IOVM_DEV_DESTROY	_IO(IOVM_IOC_TYPE, 0x02)
#define IOVM_DEV_GET		_IO(IOVM_IOC_TYPE, 0x03)
#define IOVM_DEV_CTL		_IO(IOVM_IOC_TYPE, 0x04)
#define IOVM_DEV_STATS		_IO(IOVM_IOC_TYPE, 0x05)
#define IOVM_PATH_ADD		_IO(IOVM_IOC_TYPE, 0x10)
#define IOVM_PATH_REMOVE	_IO(IOVM_IOC_TYPE, 0x11)
#define IOVM_PATH_GET		_IO(IOVM_IOC_TYPE, 0x12)
#define IOVM_PATH_CONNECT	_IO(IOVM_IOC_TYPE, 0x13)
#define IOVM_PATH_CTL		_IO(IOVM_IOC_TYPE, 0x14)
#define IOVM_PATH_STATS		_IO(IOVM_IOC_TYPE, 0x15)
#define IOVM_SESSION_ADD	_IO(IOVM_IOC_TYPE, 0x18)
#define IOVM_SESSION_REMOVE	_IO(IOVM_IOC_TYPE, 0x19)
#define IOVM_SESSION_GET	_IO(IOVM_IOC_TYPE, 0x1a)
#define IOVM_EVENTS_FROM	_IO(IOVM_IOC_TYPE, 0x20)

#endif /* _UAPI_IOVM_H */
