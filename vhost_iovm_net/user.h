/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Frames between the kernel and the guest, copied as __copy_from_user() and __copy_to_user() do,
 * but for the hardened user copy's look at what kind of memory the kernel's end is: it takes
 * longer than the copy of a small frame. It guards against lengths that are more than the memory
 * holds. Here each length is bounded by that just before the copy: for frames, and for them
 * alone; all else goes by the ordinary functions.
 *
 * The user's end needs no access_ok(): it comes from viovm_translate(), and so lies in a region
 * that viovm_mem_set() has asked that of.
 */
#ifndef _VHOST_IOVM_NET_USER_H
#define _VHOST_IOVM_NET_USER_H

#include <linux/fault-inject-usercopy.h>
#include <linux/instrumented.h>
#include <linux/uaccess.h>

/**
 * viovm_net_from_user - copy from where viovm_translate() says
 * @to: room for @len bytes, known to the caller
 * @from: in the owner's address space
 * @len: bytes, no more than viovm_translate() returned
 *
 * Return: bytes that were not copied.
 */
static inline unsigned long viovm_net_from_user(void *to, const void __user *from, u32 len)
{
	unsigned long left;

	might_fault();
	instrument_copy_from_user_before(to, from, len);
	if (should_fail_usercopy())
		return len;
	left = raw_copy_from_user(to, from, len);
	instrument_copy_from_user_after(to, from, len, left);
	return left;
}

/**
 * viovm_net_to_user - copy to where viovm_translate() says
 * @to: in the owner's address space
 * @from: @len bytes, known to the caller
 * @len: no more than viovm_translate() returned
 *
 * Return: bytes that were not copied.
 */
static inline unsigned long viovm_net_to_user(void __user *to, const void *from, u32 len)
{
	might_fault();
	if (should_fail_usercopy())
		return len;
	instrument_copy_to_user(to, from, len);
	return raw_copy_to_user(to, from, len);
}

#endif /* _VHOST_IOVM_NET_USER_H */
