/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the ring code needs of its surroundings, for the kernel and for user space (unit tests,
 * fuzzers).
 */
#ifndef _VHOST_IOVM_RING_PORT_H
#define _VHOST_IOVM_RING_PORT_H

#ifdef __KERNEL__
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/export.h>
#include <linux/types.h>
#include <asm/barrier.h>
#include <asm/byteorder.h>
#include <linux/virtio_ring.h>
#else
#include "../selftests/unit/ring_user.h"
#endif

#endif /* _VHOST_IOVM_RING_PORT_H */
