/* SPDX-License-Identifier: GPL-2.0 */
/*
 * sendmsg() takes pages as they are from 6.5 on (7da0dde68486, "tcp: Support MSG_SPLICE_PAGES").
 * Later 6.1 kernels define the flag, and do not know it: they copy, and kTLS refuses it.
 */
#ifndef _COMPAT_LINUX_SOCKET_H
#define _COMPAT_LINUX_SOCKET_H

#include <linux/version.h>
#include_next <linux/socket.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#undef MSG_SPLICE_PAGES
#define MSG_SPLICE_PAGES	0
#endif

#endif /* _COMPAT_LINUX_SOCKET_H */
