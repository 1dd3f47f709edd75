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
 */
#ifndef _UAPI_VHOST_IOVM_H
#define _UAPI_VHOST_IOVM_H

#include <linux/vhost.h>

#define VHOST_IOVM_NODE_DIR	"/dev/vhost-iovm"
#define VHOST_IOVM_MUX_NODE	"/dev/iovm-mux"

#define VHOST_IOVM_MAX_REGIONS	509	/* of a memory table: E2BIG */
#define VHOST_IOVM_MAX_RING	1024	/* descriptors: EINVAL */

#endif /* _UAPI_VHOST_IOVM_H */
