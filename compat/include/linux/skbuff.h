/* SPDX-License-Identifier: GPL-2.0 */
/* page_frag_cache_drain() came with 6.9 (a0727489ac22, "net: introduce page_frag_cache_drain()") */
#ifndef _COMPAT_LINUX_SKBUFF_H
#define _COMPAT_LINUX_SKBUFF_H

#include <linux/version.h>
#include_next <linux/skbuff.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
static inline void page_frag_cache_drain(struct page_frag_cache *nc)
{
	if (!nc->va)
		return;
	__page_frag_cache_drain(virt_to_head_page(nc->va), nc->pagecnt_bias);
	memset(nc, 0, sizeof(*nc));
}
#endif

#endif /* _COMPAT_LINUX_SKBUFF_H */
