/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _VIOVM_SHARE_H
#define _VIOVM_SHARE_H

#include <linux/list.h>
#include <linux/types.h>

struct block_device;
struct iovm_path;
struct viovm_share;

/**
 * struct viovm_claim - a path's part in the claim of a block device
 * @bdev: the opened device; constant while the claim is held
 * @path: whose claim it is; constant
 * @share: the device's one claim
 * @node: in share->claims
 */
struct viovm_claim {
	struct block_device *bdev;
	struct iovm_path *path;
	struct viovm_share *share;
	struct list_head node;
};

/* share.c */
int viovm_claim_get(struct viovm_claim *c, struct iovm_path *path, dev_t devt, char *msg);
void viovm_claim_put(struct viovm_claim *c);

#endif /* _VIOVM_SHARE_H */
