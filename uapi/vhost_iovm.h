/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The ABI of a device's node, /dev/vhost-iovm/NAME: the vhost ioctls of <linux/vhost.h>, as a VMM
 * uses them on /dev/vhost-net, and a few that it has for vDPA, with the same numbers and structs.
 *
 * One front end at a time: open() fails with EBUSY while another file is open, with ENODEV once
 * the device is destroyed. All ioctls but GET_FEATURES and the ones marked (*) need
 * VHOST_SET_OWNER first and the owner's address space (EPERM).
 *
 *   VHOST_SET_OWNER, VHOST_RESET_OWNER
 *   VHOST_GET_FEATURES (*)
 *	device type's bits, the ring's bits, VHOST_F_LOG_ALL
 *   VHOST_SET_FEATURES
 *	unknown bit: EOPNOTSUPP; while a queue runs only VHOST_F_LOG_ALL may change (EBUSY)
 *   VHOST_GET/SET_BACKEND_FEATURES (*)
 *	none is offered: 0; unknown bit: EOPNOTSUPP
 *   VHOST_SET_MEM_TABLE
 *	also while queues run (memory hotplug)
 *   VHOST_SET_LOG_BASE
 *	user address of the dirty bitmap: one bit per 4096 bytes of guest physical memory
 *   VHOST_SET_LOG_FD
 *	signalled after the log was written
 *   VHOST_SET_VRING_NUM/ADDR/BASE/KICK/CALL/ERR, VHOST_GET_VRING_BASE
 *   VHOST_SET_VRING_ENDIAN/GET_VRING_ENDIAN
 *	little endian only
 *   VHOST_IOVM_SET_INFLIGHT
 *	where the VMM wants a queue's in-flight record, before the queue starts (EBUSY while it
 *	runs); addr 0: nowhere. EINVAL: addr is not a multiple of 8, or size is less than
 *	VHOST_IOVM_INFLIGHT_BYTES(desc_num)
 *   VHOST_IOVM_LEND_SOCKET
 *	fd of the socket to the VMM, -1 gives it back (ENOTSOCK, EBADF): while it is lent the VMM
 *	sees no end of the connection before the node can be opened again
 *   VHOST_NEW_WORKER/FREE_WORKER/ATTACH_VRING_WORKER/GET_VRING_WORKER
 *	a queue has a worker of its own unless attached
 *   VHOST_VDPA_GET_DEVICE_ID (*)
 *	2: block
 *   VHOST_VDPA_GET_CONFIG (*), VHOST_VDPA_GET_CONFIG_SIZE (*), VHOST_VDPA_GET_VQS_COUNT (*)
 *   VHOST_VDPA_GET_VRING_NUM (*)
 *	the ring size that is suggested, not the largest
 *   VHOST_VDPA_SET_CONFIG_CALL
 *	eventfd signalled when the configuration space changes, and when the device was
 *	destroyed (then all ioctls answer ENODEV); -1 unbinds
 *
 * Life of a queue: NUM, BASE, ADDR, CALL, then KICK: with the kick fd the queue starts. Its ring
 * is pinned and mapped (EFAULT: not mapped; EOPNOTSUPP: memory that is neither anonymous, shmem
 * nor hugetlb; ENOMEM: over the locked-memory limit). GET_VRING_BASE stops it: takes nothing new,
 * waits (killable) for what is in flight, and returns the next head to serve. Setting KICK to -1
 * while it runs is EBUSY.
 *
 * In-flight record: with one, the queue starts with the requests that it names, oldest first, and
 * BASE counts only when the record is new (version 0). It is pinned with the ring. EOPNOTSUPP:
 * features or version unknown; EINVAL: desc_num is less than NUM or not the record's, or a mark is
 * neither 0 nor 1; ERANGE: a head beyond the ring; EEXIST: two heads with the same counter;
 * EOVERFLOW: the last counter is in use. A record that does not fit the guest's ring breaks the
 * queue (ESTALE in the event). What a front end that dies or closes the node has not told
 * the guest stays marked; the node is free (EBUSY before) when all that was issued has ended.
 */
#ifndef _UAPI_VHOST_IOVM_H
#define _UAPI_VHOST_IOVM_H

#include <linux/vhost.h>

#define VHOST_IOVM_NODE_DIR	"/dev/vhost-iovm"
#define VHOST_IOVM_MUX_NODE	"/dev/iovm-mux"

#define VHOST_IOVM_MAX_REGIONS	509	/* of a memory table: E2BIG */
#define VHOST_IOVM_MAX_RING	1024	/* descriptors: EINVAL */

/* of the vhost-user protocol's in-flight region, split ring; in native byte order */
#define VHOST_IOVM_INFLIGHT_VERSION	1

/**
 * struct vhost_iovm_inflight_desc - a head's entry
 * @inflight: 1 from the moment it is taken until it is in the used ring
 * @pad: unused
 * @next: the head given back before this one
 * @counter: grows with every head taken
 */
struct vhost_iovm_inflight_desc {
	__u8 inflight;
	__u8 pad[5];
	__u16 next;
	__u64 counter;
};

/**
 * struct vhost_iovm_inflight_record - a queue's record
 * @features: 0
 * @version: VHOST_IOVM_INFLIGHT_VERSION; 0: not in use yet
 * @desc_num: entries
 * @last_batch_head: given back last
 * @used_idx: the used ring's index when all above it was in order
 * @desc: by head
 */
struct vhost_iovm_inflight_record {
	__u64 features;
	__u16 version;
	__u16 desc_num;
	__u16 last_batch_head;
	__u16 used_idx;
	struct vhost_iovm_inflight_desc desc[];
};

#define VHOST_IOVM_INFLIGHT_BYTES(desc_num)	(16ull + 16ull * (desc_num))

/**
 * struct vhost_iovm_inflight - argument of VHOST_IOVM_SET_INFLIGHT
 * @index: queue
 * @desc_num: entries of the record, at most 65535
 * @addr: user address of struct vhost_iovm_inflight_record; 0: no record
 * @size: bytes there
 */
struct vhost_iovm_inflight {
	__u32 index;
	__u32 desc_num;
	__u64 addr;
	__u64 size;
};

#define VHOST_IOVM_SET_INFLIGHT		_IOW(0xB9, 0x80, struct vhost_iovm_inflight)
#define VHOST_IOVM_LEND_SOCKET		_IOW(0xB9, 0x81, int)

#endif /* _UAPI_VHOST_IOVM_H */
