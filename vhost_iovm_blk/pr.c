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
#include <linux/slab.h>
#include <scsi/scsi_proto.h>

#include "blk.h"
#include "pr.h"

#define VIOVM_PR_TYPE	PR_WRITE_EXCLUSIVE_ALL_REGS
#define VIOVM_PR_KEYS	32		/* room for so many at first */
#define VIOVM_PR_KEYS_MAX	4096

static int viovm_pr_errno(int err)
{
	u32 nvme = err & 0x7ff;

	if (err <= 0)
		return err;
	if ((err & 0xff) == SAM_STAT_RESERVATION_CONFLICT || nvme == NVME_SC_RESERVATION_CONFLICT)
		return -EBADE;
	return nvme == NVME_SC_INVALID_OPCODE ? -EINVAL : -EIO;
}

/*
 * Is the reservation there one that all who are registered hold? Some targets know one holder even
 * then, and refuse it to the next one; Linux's for NVMe does. False where that cannot be read.
 */
static bool viovm_pr_is_shared(struct block_device *bdev)
{
	struct pr_held_reservation rsv = {};

	return !viovm_compat_pr_read_reservation(bdev, &rsv) && rsv.type == VIOVM_PR_TYPE;
}

/* Is somebody registered with a key? False where that cannot be read. */
static bool viovm_pr_has_key(struct block_device *bdev, u64 key)
{
	struct pr_keys *keys = NULL;
	u32 i, n, room = VIOVM_PR_KEYS;
	bool has = false;

	for (;;) {
		keys = kzalloc(struct_size(keys, keys, room), GFP_KERNEL);
		if (!keys)
			return false;
		keys->num_keys = room;
		if (viovm_compat_pr_read_keys(bdev, keys))
			break;
		n = keys->num_keys;
		if (n <= room) {
			for (i = 0; i < n && !has; i++)
				has = keys->keys[i] == key;
			break;
		}
		kfree(keys);
		if (n > VIOVM_PR_KEYS_MAX)
			return false;
		room = n;
	}
	kfree(keys);
	return has;
}

/* Drivers of NVMe cannot take a registration away before they can read them: see below. */
static bool viovm_pr_is_one_way(struct block_device *bdev)
{
	struct pr_held_reservation rsv;

	return viovm_compat_pr_read_reservation(bdev, &rsv) == -EOPNOTSUPP &&
	       bdev->bd_disk->fops->owner &&
	       !strcmp(module_name(bdev->bd_disk->fops->owner), "nvme_core");
}

/**
 * viovm_pr_register - register a path's key, and share in the reservation
 * @bdev: the path's device
 * @key: its key
 *
 * Process context; may take as long as the device likes.
 * Return: 0; -EOPNOTSUPP the device has no reservations, or its driver too little for them; -EBADE
 * somebody else has another one; another negative errno.
 */
int viovm_pr_register(struct block_device *bdev, u64 key)
{
	const struct pr_ops *ops = bdev->bd_disk->fops->pr_ops;
	int err;

	if (!ops || !ops->pr_register || !ops->pr_reserve || !ops->pr_preempt ||
	    viovm_pr_is_one_way(bdev))
		return -EOPNOTSUPP;
	err = viovm_pr_errno(ops->pr_register(bdev, 0, key, PR_FL_IGNORE_KEY));
	/* to NVMe, another key in the place of one of before is something else */
	if (err == -EBADE)
		err = viovm_pr_errno(ops->pr_register(bdev, key, key, PR_FL_IGNORE_KEY));
	if (err)
		/* the command is not known: no fault of who calls */
		return err == -EINVAL ? -EOPNOTSUPP : err;
	err = viovm_pr_errno(ops->pr_reserve(bdev, key, VIOVM_PR_TYPE, 0));
	if (err == -EBADE && viovm_pr_is_shared(bdev))
		err = 0;
	if (err)
		viovm_pr_unregister(bdev, key);
	return err;
}

/**
 * viovm_pr_why - why a path could not register
 * @err: from viovm_pr_register()
 *
 * Return: in words.
 */
const char *viovm_pr_why(int err)
{
	switch (err) {
	case -EOPNOTSUPP:
		return "the device has none, or its driver (NVMe before Linux 6.4) too little";
	case -EBADE:
		return "somebody has another one";
	}
	return "the device has none, or refuses";
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
	const struct pr_ops *ops = bdev->bd_disk->fops->pr_ops;

	ops->pr_register(bdev, key, 0, 0);
	if (!viovm_pr_has_key(bdev, 0))
		return;
	/*
	 * Linux's driver for NVMe (6.12) has put the key 0 in its place, which is one as any other:
	 * the path's again, which a preemption then takes away.
	 */
	ops->pr_register(bdev, key, key, PR_FL_IGNORE_KEY);
	ops->pr_preempt(bdev, key, key, VIOVM_PR_TYPE, false);
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
