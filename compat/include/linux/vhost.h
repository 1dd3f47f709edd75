/* SPDX-License-Identifier: GPL-2.0 */
/* The worker ioctls came with 6.5 (c1ecd8e95007, "vhost: allow userspace to create workers") */
#ifndef _COMPAT_LINUX_VHOST_H
#define _COMPAT_LINUX_VHOST_H

#include <linux/version.h>
#include_next <linux/vhost.h>

#ifndef VHOST_NEW_WORKER
struct vhost_worker_state {
	unsigned int worker_id;
};

struct vhost_vring_worker {
	unsigned int index;
	unsigned int worker_id;
};

#define VHOST_NEW_WORKER		_IOR(VHOST_VIRTIO, 0x8, struct vhost_worker_state)
#define VHOST_FREE_WORKER		_IOW(VHOST_VIRTIO, 0x9, struct vhost_worker_state)
#define VHOST_ATTACH_VRING_WORKER	_IOW(VHOST_VIRTIO, 0x15, struct vhost_vring_worker)
#define VHOST_GET_VRING_WORKER		_IOWR(VHOST_VIRTIO, 0x16, struct vhost_vring_worker)
#endif

/* VIRTIO_F_RING_RESET is offered by vhost_net from 6.2 on */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define VIOVM_COMPAT_VHOST_NET_RESET	BIT_ULL(VIRTIO_F_RING_RESET)
#else
#define VIOVM_COMPAT_VHOST_NET_RESET	0
#endif

#endif /* _COMPAT_LINUX_VHOST_H */
