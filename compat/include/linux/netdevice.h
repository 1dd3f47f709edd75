/* SPDX-License-Identifier: GPL-2.0 */
/*
 * net_device.pcpu_stat_type came with 6.7 (34d21de99cea, "net: Move {l,t,d}stats allocation to
 * core and convert veth & vrf"); before, what the pointer means was the driver's secret.
 */
#ifndef _COMPAT_LINUX_NETDEVICE_H
#define _COMPAT_LINUX_NETDEVICE_H

#include <linux/version.h>
#include_next <linux/netdevice.h>

/* Does a device of this kind, which has tstats if it has any per-CPU statistics, have them? */
static inline bool viovm_compat_netdev_has_tstats(const struct net_device *dev)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	return dev->tstats;
#else
	return dev->pcpu_stat_type == NETDEV_PCPU_STAT_TSTATS && dev->tstats;
#endif
}

#endif /* _COMPAT_LINUX_NETDEVICE_H */
