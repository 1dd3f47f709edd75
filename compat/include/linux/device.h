/* SPDX-License-Identifier: GPL-2.0 */
/*
 * device_type.devnode takes a const device from 6.3 on (a9b12f8b4bd8, "driver core: make struct
 * device_type.devnode() take a const *")
 */
#ifndef _COMPAT_LINUX_DEVICE_H
#define _COMPAT_LINUX_DEVICE_H

#include <linux/version.h>
#include_next <linux/device.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define VIOVM_DEVNODE_CONST
#else
#define VIOVM_DEVNODE_CONST	const
#endif

#endif /* _COMPAT_LINUX_DEVICE_H */
