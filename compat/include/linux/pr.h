/* SPDX-License-Identifier: GPL-2.0 */
/*
 * pr_ops.pr_read_keys and pr_read_reservation came with 6.4 (7907ad748bdb, "Use block pr_ops in
 * LIO").
 */
#ifndef _COMPAT_LINUX_PR_H
#define _COMPAT_LINUX_PR_H

#include <linux/blkdev.h>
#include <linux/version.h>
#include_next <linux/pr.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
struct pr_keys {
	u32 generation;
	u32 num_keys;
	u64 keys[];
};

struct pr_held_reservation {
	u64 key;
	u32 generation;
	enum pr_type type;
};

static inline int viovm_compat_pr_read_keys(struct block_device *bdev, struct pr_keys *keys)
{
	return -EOPNOTSUPP;
}

static inline int viovm_compat_pr_read_reservation(struct block_device *bdev,
						   struct pr_held_reservation *rsv)
{
	return -EOPNOTSUPP;
}
#else
static inline int viovm_compat_pr_read_keys(struct block_device *bdev, struct pr_keys *keys)
{
	const struct pr_ops *ops = bdev->bd_disk->fops->pr_ops;

	return ops->pr_read_keys ? ops->pr_read_keys(bdev, keys) : -EOPNOTSUPP;
}

static inline int viovm_compat_pr_read_reservation(struct block_device *bdev,
						   struct pr_held_reservation *rsv)
{
	const struct pr_ops *ops = bdev->bd_disk->fops->pr_ops;

	return ops->pr_read_reservation ? ops->pr_read_reservation(bdev, rsv) : -EOPNOTSUPP;
}
#endif

#endif /* _COMPAT_LINUX_PR_H */
