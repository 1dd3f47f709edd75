/* SPDX-License-Identifier: GPL-2.0 */
/* eventfd_signal() lost its count in 6.8 (3652117f8548, "eventfd: simplify eventfd_signal()") */
#ifndef _COMPAT_LINUX_EVENTFD_H
#define _COMPAT_LINUX_EVENTFD_H

#include <linux/version.h>
#include_next <linux/eventfd.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
static inline void viovm_compat_eventfd_signal(struct eventfd_ctx *ctx)
{
	eventfd_signal(ctx, 1);
}

#define eventfd_signal(ctx)	viovm_compat_eventfd_signal(ctx)
#endif

#endif /* _COMPAT_LINUX_EVENTFD_H */
