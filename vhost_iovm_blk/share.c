// SPDX-License-Identifier: GPL-2.0
/*
 * Who of our paths has which block device. The block layer knows one holder of a device: that is a
 * struct viovm_share, and the paths that have the device through it are its claims. One path, or
 * several that all have IOVM_PATH_F_SHARED: a device for a guest and a target, say. Nothing here
 * keeps them from writing at the same time.
 *
 * Paths of different devices may come and go at the same time, each under its dev->mutex. Locks:
 *
 *	dev->mutex -> share->open_lock -> those that the block layer takes to open and close
 *	                               -> share->lock
 *	bd_holder_lock of the block layer, when a disk goes -> share->lock -> dev->lock
 *
 * viovm_shares_lock is held for a look at the list only: a device that hangs when it is opened
 * stops nobody who wants another one.
 */
#include <linux/blkdev.h>
#include <linux/mutex.h>
#include <linux/slab.h>

#include "blk.h"
#include "share.h"

/**
 * struct viovm_share - a block device that paths of ours have, or are about to open or close
 * @devt: its number; constant
 * @node: in viovm_shares; viovm_shares_lock
 * @refs: claims, and who is about to make or end one; viovm_shares_lock
 * @open_lock: sleeping; held while it is opened, closed, joined and left
 * @shared: all its paths have IOVM_PATH_F_SHARED, else it has one path; @open_lock
 * @ro: it is open for reading only; @open_lock
 * @open: the block layer's part, while there are claims; @open_lock
 * @lock: sleeping, inside the block layer's lock of the holder
 * @claims: those that are to hear of its end; changed under @open_lock and @lock
 * @dead: the disk has gone; its number may be another one's. Never false again; @lock to write
 */
struct viovm_share {
	dev_t devt;
	struct list_head node;
	unsigned int refs;
	struct mutex open_lock;
	bool shared;
	bool ro;
	struct viovm_bdev_open open;
	struct mutex lock;
	struct list_head claims;
	bool dead;
};

static DEFINE_MUTEX(viovm_shares_lock);
static LIST_HEAD(viovm_shares);

/* The one of @devt whose disk is not known to be gone; a new one if there is none. */
static struct viovm_share *viovm_share_find(dev_t devt)
{
	struct viovm_share *s;

	mutex_lock(&viovm_shares_lock);
	list_for_each_entry(s, &viovm_shares, node)
		if (s->devt == devt && !READ_ONCE(s->dead))
			goto found;
	s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	if (!s)
		goto out;
	s->devt = devt;
	mutex_init(&s->open_lock);
	mutex_init(&s->lock);
	INIT_LIST_HEAD(&s->claims);
	list_add(&s->node, &viovm_shares);
found:
	s->refs++;
out:
	mutex_unlock(&viovm_shares_lock);
	return s;
}

static void viovm_share_put(struct viovm_share *s)
{
	mutex_lock(&viovm_shares_lock);
	if (--s->refs)
		s = NULL;
	else
		list_del(&s->node);
	mutex_unlock(&viovm_shares_lock);
	kfree(s);
}

/* The disk goes. The block layer holds the holder's lock. */
static void viovm_share_dead(void *holder)
{
	struct viovm_share *s = holder;
	struct viovm_claim *c;

	mutex_lock(&s->lock);
	WRITE_ONCE(s->dead, true);
	list_for_each_entry(c, &s->claims, node)
		iovm_path_fail(c->path, -ENODEV);
	mutex_unlock(&s->lock);
}

/* Where nobody is told of a disk's end, it is seen here: no new path is to join what has gone. */
static bool viovm_share_gone(struct viovm_share *s)
{
	bool dead;

	lockdep_assert_held(&s->open_lock);
	mutex_lock(&s->lock);
	if (!list_empty(&s->claims) && test_bit(GD_DEAD, &s->open.bdev->bd_disk->state))
		WRITE_ONCE(s->dead, true);
	dead = s->dead;
	mutex_unlock(&s->lock);
	return dead;
}

static bool viovm_path_ro(const struct iovm_path *path)
{
	return path->dev->flags & IOVM_DEV_F_RDONLY;
}

/* May @path have the device beside those that have it? */
static int viovm_share_may_join(struct viovm_share *s, const struct iovm_path *path, char *msg)
{
	bool shared = path->flags & IOVM_PATH_F_SHARED;
	const struct viovm_claim *c;

	lockdep_assert_held(&s->open_lock);
	c = list_first_entry(&s->claims, struct viovm_claim, node);
	if (!shared || !s->shared) {
		scnprintf(msg, IOVM_MSG_MAX,
			  "%s is in use on this host by path %s of device %s: %s shared",
			  path->addr, c->path->name, c->path->dev->name,
			  shared ? "that one is not" :
			  s->shared ? "this one is not" : "neither is");
		return -EBUSY;
	}
	if (s->ro && !viovm_path_ro(path)) {
		scnprintf(msg, IOVM_MSG_MAX,
			  "%s is in use for reading only by path %s of device %s: add this one first",
			  path->addr, c->path->name, c->path->dev->name);
		return -EBUSY;
	}
	list_for_each_entry(c, &s->claims, node) {
		if (c->path->dev != path->dev)
			continue;
		scnprintf(msg, IOVM_MSG_MAX, "%s is in use by path %s of the same device",
			  path->addr, c->path->name);
		return -EBUSY;
	}
	return 0;
}

static int viovm_share_open(struct viovm_share *s, const struct iovm_path *path, char *msg)
{
	int err;

	lockdep_assert_held(&s->open_lock);
	s->shared = path->flags & IOVM_PATH_F_SHARED;
	s->ro = viovm_path_ro(path);
	err = viovm_bdev_open(&s->open, s->devt, s->ro, s, viovm_share_dead);
	if (err)
		scnprintf(msg, IOVM_MSG_MAX, "%s cannot be opened: %s", path->addr,
			  err == -EBUSY ? "it is in use on this host" : "see the error code");
	return err;
}

/* Closed by the last one. */
static void viovm_share_close(struct viovm_share *s)
{
	lockdep_assert_held(&s->open_lock);
	if (list_empty(&s->claims))
		viovm_bdev_close(&s->open);
}

/**
 * viovm_claim_get - open a block device for a path
 * @c: the path's claim, out
 * @path: the path; its flags, and those of its device, say how
 * @devt: number of the device
 * @msg: of IOVM_MSG_MAX bytes: why not
 *
 * Process context, dev->mutex is held. From here on until viovm_claim_put() iovm_path_fail() may be
 * called for @path, when the disk goes.
 * Return: 0; -EBUSY somebody has it who does not share it; what opening it gave; -ENOMEM.
 */
int viovm_claim_get(struct viovm_claim *c, struct iovm_path *path, dev_t devt, char *msg)
{
	struct viovm_share *s;
	int err;

	for (;;) {
		s = viovm_share_find(devt);
		if (!s)
			return -ENOMEM;
		mutex_lock(&s->open_lock);
		if (!viovm_share_gone(s))
			break;
		mutex_unlock(&s->open_lock);
		viovm_share_put(s);
	}
	if (list_empty(&s->claims))
		err = viovm_share_open(s, path, msg);
	else
		err = viovm_share_may_join(s, path, msg);
	if (err)
		goto put;

	c->bdev = s->open.bdev;
	c->path = path;
	c->share = s;
	mutex_lock(&s->lock);
	if (s->dead)
		err = -ENXIO;
	else
		list_add_tail(&c->node, &s->claims);
	mutex_unlock(&s->lock);
	if (!err) {
		mutex_unlock(&s->open_lock);
		return 0;
	}
	scnprintf(msg, IOVM_MSG_MAX, "%s has just gone", path->addr);
	viovm_share_close(s);
put:
	mutex_unlock(&s->open_lock);
	viovm_share_put(s);
	return err;
}

/**
 * viovm_claim_put - a path lets go of its device; the last one closes it
 * @c: the claim
 *
 * Process context, dev->mutex is held. Nothing of the path is at the device any more. After this
 * nobody tells the path that the disk has gone.
 */
void viovm_claim_put(struct viovm_claim *c)
{
	struct viovm_share *s = c->share;

	mutex_lock(&s->open_lock);
	mutex_lock(&s->lock);
	list_del(&c->node);
	mutex_unlock(&s->lock);
	viovm_share_close(s);
	mutex_unlock(&s->open_lock);
	viovm_share_put(s);
}
