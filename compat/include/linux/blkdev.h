/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Opening a block device from the kernel: a block_device with a mode before 6.5, a file from 6.9
 * on (f3a608827d1f, "bdev: open block device as files"). Being told of its end: blk_holder_ops
 * from 6.5 on (0718afd47f70, "block: introduce holder ops"); before, only I/O errors tell.
 */
#ifndef _COMPAT_LINUX_BLKDEV_H
#define _COMPAT_LINUX_BLKDEV_H

#include <linux/version.h>
#include_next <linux/blkdev.h>

/**
 * struct viovm_bdev_open - a block device opened exclusively
 * @bdev: the device
 * @holder: whose claim it is
 * @dead: called with @holder when the device goes, in process context
 * @file: what holds it open, from 6.9 on
 * @mode: how it was opened, before
 */
struct viovm_bdev_open {
	struct block_device *bdev;
	void *holder;
	void (*dead)(void *holder);
	struct file *file;
	unsigned int mode;
};

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)

/* The block layer holds bd_holder_lock; the callback lets go of it */
static inline void viovm_compat_mark_dead(struct block_device *bdev, bool surprise)
{
	struct viovm_bdev_open *o = bdev->bd_holder;

	o->dead(o->holder);
	mutex_unlock(&bdev->bd_holder_lock);
}

static const struct blk_holder_ops viovm_compat_holder_ops __maybe_unused = {
	.mark_dead = viovm_compat_mark_dead,
};

static inline int viovm_bdev_open(struct viovm_bdev_open *o, dev_t dev, bool ro, void *holder,
				  void (*dead)(void *))
{
	struct file *file;

	o->holder = holder;
	o->dead = dead;
	file = bdev_file_open_by_dev(dev, BLK_OPEN_READ | (ro ? 0 : BLK_OPEN_WRITE), o,
				     &viovm_compat_holder_ops);
	if (IS_ERR(file))
		return PTR_ERR(file);
	o->file = file;
	o->bdev = file_bdev(file);
	return 0;
}

static inline void viovm_bdev_close(struct viovm_bdev_open *o)
{
	bdev_fput(o->file);
}

#else

static inline int viovm_bdev_open(struct viovm_bdev_open *o, dev_t dev, bool ro, void *holder,
				  void (*dead)(void *))
{
	struct block_device *bdev;

	o->holder = holder;
	o->dead = dead;
	o->mode = (__force unsigned int)(FMODE_READ | FMODE_EXCL | (ro ? 0 : FMODE_WRITE));
	bdev = blkdev_get_by_dev(dev, (__force fmode_t)o->mode, o);
	if (IS_ERR(bdev))
		return PTR_ERR(bdev);
	o->bdev = bdev;
	return 0;
}

static inline void viovm_bdev_close(struct viovm_bdev_open *o)
{
	blkdev_put(o->bdev, (__force fmode_t)o->mode);
}

#endif

#endif /* _COMPAT_LINUX_BLKDEV_H */
