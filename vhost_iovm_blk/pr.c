// SPDX-License-Identifier: GPL-2.0
/*
 * Persistent reservations (SCSI-3, NVMe) as the fence of bdev paths.
 *
 * Every path that is to be fenced like this registers a key of its own, and all hold one
 * reservation together: write exclusive, all registrants. When a path has failed, another one
 * preempts its key and aborts its commands: the medium has forgotten what it had from there, and
 * refuses what still comes, whoever kept it: the block layer, a suspended device-mapper device, a
 * switch. The path registers anew when it is probed, which the mux does only when nothing of its
 * past is under way any more.
 *
 * A driver returns a negative errno, or a positive status of the device: that of SCSI in its lowest
 * byte, to which newer kernels translate that of NVMe, or that of NVMe.
 */
#include <linux/blkdev.h>
#include <linux/nvme.h>
#include <linux/pr.h>
#include <scsi/scsi_proto.h>

#include "blk.h"
#include "pr.h"

#define VIOVM_PR_TYPE	PR_WRITE_EXCLUSIVE_ALL_REGS

static int viovm_pr_errno(int err)
{
	u32 nvme = err & 0x7ff;

	if (err <= 0)
		return err;
	if ((err & 0xff) == SAM_STAT_RESERVATION_CONFLICT || nvme == NVME_SC_RESERVATION_CONFLICT)
		return -EBADE;
	return nvme == NVME_SC_INVALID_OPCODE ? -EINVAL : -EIO;
}

/**
 * viovm_pr_register - register a path's key, and share in the reservation
 * @bdev: the path's device
 * @key: its key
 *
 * Process context; may take as long as the device likes.
 * Return: 0; -EOPNOTSUPP the device has no reservations; -EBADE somebody else has another one;
 * another negative errno.
 */
int viovm_pr_register(struct block_device *bdev, u64 key)
{
	const struct pr_ops *ops = bdev->bd_disk->fops->pr_ops;
	int err;

	if (!ops || !ops->pr_register || !ops->pr_reserve || !ops->pr_preempt)
		return -EOPNOTSUPP;
	err = viovm_pr_errno(ops->pr_register(bdev, 0, key, PR_FL_IGNORE_KEY));
	if (err)
		/* the command is not known: no fault of who calls */
		return err == -EINVAL ? -EOPNOTSUPP : err;
	err = viovm_pr_errno(ops->pr_reserve(bdev, key, VIOVM_PR_TYPE, 0));
	if (err)
		viovm_pr_unregister(bdev, key);
	return err;
}

/**
 * viovm_pr_unregister - take a path's key away, and with the last one the reservation
 * @bdev: the path's device, which answers
 * @key: its key
 *
 * Process context.
 */
void viovm_pr_unregister(struct block_device *bdev, u64 key)
{
	bdev->bd_disk->fops->pr_ops->pr_register(bdev, key, 0, 0);
}

/**
 * viovm_pr_preempt - end what was sent with another key
 * @bdev: device of a path that is registered with @key
 * @key: that one
 * @victim: the other one
 *
 * Process context; may take as long as the device likes.
 * Return: 0 when nothing sent with @victim can land any more, or a negative errno.
 */
int viovm_pr_preempt(struct block_device *bdev, u64 key, u64 victim)
{
	/* to the drivers the first one is the caller's own, whatever they call it */
	return viovm_pr_errno(bdev->bd_disk->fops->pr_ops->pr_preempt(bdev, key, victim,
								      VIOVM_PR_TYPE, true));
}
