/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _VIOVM_PR_H
#define _VIOVM_PR_H

#include <linux/types.h>

struct block_device;

/* pr.c */
int viovm_pr_register(struct block_device *bdev, u64 key);
void viovm_pr_unregister(struct block_device *bdev, u64 key);
int viovm_pr_preempt(struct block_device *bdev, u64 key, u64 victim);
const char *viovm_pr_why(int err);

#endif /* _VIOVM_PR_H */
