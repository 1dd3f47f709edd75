// SPDX-License-Identifier: GPL-2.0
/*
 * A block device: configuration space and features, fixed at creation, and the callbacks for the
 * mux and the vhost core.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "blk.h"

/**
 * viovm_blk_config - a device's configuration, to check a path against
 * @dev: device of either class; dev->mutex held
 */
const struct iovm_blk_config *viovm_blk_config(struct iovm_dev *dev)
{
	return dev->fe;
}

/**
 * viovm_blk_capacity - a device's size now, in sectors
 * @dev: device; any context
 */
u64 viovm_blk_capacity(struct iovm_dev *dev)
{
	return READ_ONCE(viovm_blk_config(dev)->capacity);
}

static u64 viovm_blk_features(const struct viovm_blk *blk)
{
	u64 f = BIT_ULL(VIRTIO_BLK_F_SEG_MAX) | BIT_ULL(VIRTIO_BLK_F_BLK_SIZE) |
		BIT_ULL(VIRTIO_BLK_F_FLUSH) | BIT_ULL(VIRTIO_BLK_F_TOPOLOGY) |
		BIT_ULL(VIRTIO_BLK_F_MQ);

	if (blk->dev->flags & IOVM_DEV_F_RDONLY)
		f |= BIT_ULL(VIRTIO_BLK_F_RO);
	if (blk->cfg.max_discard_sectors)
		f |= BIT_ULL(VIRTIO_BLK_F_DISCARD);
	if (blk->cfg.max_write_zeroes_sectors)
		f |= BIT_ULL(VIRTIO_BLK_F_WRITE_ZEROES);
	return f;
}

static void viovm_blk_fill_config(struct viovm_blk *blk)
{
	const struct iovm_blk_config *cfg = &blk->cfg;
	struct virtio_blk_config *c = &blk->config;
	u32 granularity = max(cfg->discard_granularity, cfg->block_size) >> SECTOR_SHIFT;

	c->capacity = __cpu_to_virtio64(true, cfg->capacity);
	c->seg_max = __cpu_to_virtio32(true, cfg->seg_max);
	c->blk_size = __cpu_to_virtio32(true, cfg->block_size);
	c->physical_block_exp = ilog2(cfg->physical_block_size / cfg->block_size);
	c->min_io_size = __cpu_to_virtio16(true, cfg->physical_block_size / cfg->block_size);
	c->opt_io_size = __cpu_to_virtio32(true, cfg->opt_io_size / cfg->block_size);
	c->wce = 1;
	c->num_queues = __cpu_to_virtio16(true, cfg->num_queues);
	c->max_discard_sectors = __cpu_to_virtio32(true, cfg->max_discard_sectors);
	c->max_discard_seg = __cpu_to_virtio32(true, cfg->max_discard_sectors ? 1 : 0);
	c->discard_sector_alignment = __cpu_to_virtio32(true, granularity);
	c->max_write_zeroes_sectors = __cpu_to_virtio32(true, cfg->max_write_zeroes_sectors);
	c->max_write_zeroes_seg = __cpu_to_virtio32(true, cfg->max_write_zeroes_sectors ? 1 : 0);
	c->write_zeroes_may_unmap = !!cfg->max_write_zeroes_sectors;
}

int viovm_blk_bad(char *msg, const char *what)
{
	scnprintf(msg, IOVM_MSG_MAX, "%s", what);
	return -EINVAL;
}

#define VIOVM_MAX_SECTORS	((U32_MAX >> SECTOR_SHIFT) & ~7u)

/* Can a device with blocks of this size have so many sectors? */
bool viovm_blk_capacity_ok(const struct iovm_blk_config *c, u64 sectors)
{
	return sectors && IS_ALIGNED(sectors, c->block_size >> SECTOR_SHIFT) &&
	       sectors <= (u64)S64_MAX >> SECTOR_SHIFT;
}

/* Fill in defaults and refuse what cannot be */
int viovm_blk_check_config(struct iovm_blk_config *c, char *msg)
{
	u32 bs = c->block_size;

	if (c->pad || c->pad2)
		return viovm_blk_bad(msg, "padding in the block configuration is not zero");
	if (bs != 512 && bs != 4096)
		return viovm_blk_bad(msg, "block_size must be 512 or 4096");
	if (!viovm_blk_capacity_ok(c, c->capacity))
		return viovm_blk_bad(msg, VIOVM_BAD_CAPACITY);
	if (!c->physical_block_size)
		c->physical_block_size = bs;
	if (c->physical_block_size < bs || c->physical_block_size > SZ_1M ||
	    !is_power_of_2(c->physical_block_size))
		return viovm_blk_bad(msg,
				     "physical_block_size must be a power of two, block_size to 1 MiB");
	if (c->opt_io_size % bs)
		return viovm_blk_bad(msg, "opt_io_size must be a multiple of block_size");
	if (!c->num_queues || c->num_queues > IOVM_MAX_QUEUES)
		return viovm_blk_bad(msg, "num_queues must be 1 to 64");
	if (!c->queue_size)
		c->queue_size = 128;
	if (c->queue_size < 2 || c->queue_size > VHOST_IOVM_MAX_RING ||
	    !is_power_of_2(c->queue_size))
		return viovm_blk_bad(msg, "queue_size must be a power of two from 2 to 1024");
	if (!c->seg_max)
		c->seg_max = c->queue_size > 2 ? c->queue_size - 2 : 1;
	if (c->seg_max > VIOVM_MAX_CHAIN - 2)
		return viovm_blk_bad(msg, "seg_max must be at most 1022");
	if (!c->discard_granularity)
		c->discard_granularity = bs;
	if (c->discard_granularity % bs)
		return viovm_blk_bad(msg, "discard_granularity must be a multiple of block_size");
	/* what one request moves is counted in 32 bits of bytes */
	c->max_discard_sectors = min_t(u32, c->max_discard_sectors, VIOVM_MAX_SECTORS);
	c->max_write_zeroes_sectors = min_t(u32, c->max_write_zeroes_sectors, VIOVM_MAX_SECTORS);
	return 0;
}

/* ---- for the vhost core ---- */

static void viovm_blk_get_config(struct viovm_node *node, u32 off, void *buf, u32 len)
{
	struct viovm_blk *blk = node->priv;

	spin_lock(&blk->config_lock);
	memcpy(buf, (u8 *)&blk->config + off, len);
	spin_unlock(&blk->config_lock);
}

static int viovm_blk_opened(struct viovm_node *node, struct viovm_dev *dev)
{
	struct viovm_blk *blk = node->priv;

	iovm_event_emit(blk->dev, NULL, IOVM_EV_DEV_OPENED, 0, 0, 0, task_tgid_nr(current));
	return 0;
}

static void viovm_blk_closed(struct viovm_node *node)
{
	struct viovm_blk *blk = node->priv;

	iovm_event_emit(blk->dev, NULL, IOVM_EV_DEV_CLOSED, 0, 0, 0, 0);
}

static void viovm_blk_vq_broken(struct viovm_vq *vq, int error)
{
	struct viovm_blk *blk = vq->dev->node->priv;

	iovm_event_emit(blk->dev, NULL, IOVM_EV_QUEUE_BROKEN, 0, 0, error, vq->index);
}

/* ---- for the mux ---- */

static int viovm_blk_create(struct iovm_dev *dev, const struct iovm_dev_create *arg, char *msg)
{
	struct viovm_class class = {
		.owner		= THIS_MODULE,
		.device_id	= VIRTIO_ID_BLOCK,
		.ring_max	= VHOST_IOVM_MAX_RING,
		.config_size	= sizeof(struct virtio_blk_config),
		.get_config	= viovm_blk_get_config,
		.opened		= viovm_blk_opened,
		.closed		= viovm_blk_closed,
		.vq_start	= viovm_blk_vq_start,
		.vq_stop	= viovm_blk_vq_stop,
		.vq_run		= viovm_blk_vq_run,
		.vq_drop	= viovm_blk_vq_drop,
		.vq_broken	= viovm_blk_vq_broken,
	};
	struct viovm_blk *blk;
	int err;

	blk = kzalloc(sizeof(*blk), GFP_KERNEL);
	if (!blk)
		return -ENOMEM;
	blk->dev = dev;
	blk->cfg = arg->blk;
	spin_lock_init(&blk->config_lock);
	mutex_init(&blk->queues_lock);
	INIT_LIST_HEAD(&blk->queues);
	err = viovm_blk_check_config(&blk->cfg, msg);
	if (err)
		goto free;
	viovm_blk_fill_config(blk);
	class.num_vqs = blk->cfg.num_queues;
	class.ring_size = blk->cfg.queue_size;
	class.features = viovm_blk_features(blk);
	dev->fe = blk;
	blk->node = viovm_node_create(dev->name, arg->mode, make_kuid(&init_user_ns, arg->uid),
				      make_kgid(&init_user_ns, arg->gid), &class, blk);
	if (IS_ERR(blk->node)) {
		err = PTR_ERR(blk->node);
		scnprintf(msg, IOVM_MSG_MAX, "the node /dev/vhost-iovm/%s cannot be made: error %d",
			  dev->name, err);
		goto free;
	}
	return 0;
free:
	dev->fe = NULL;
	kfree(blk);
	return err;
}

static int viovm_blk_destroy_prepare(struct iovm_dev *dev, bool force, char *msg)
{
	struct viovm_blk *blk = dev->fe;
	int err = viovm_node_retire(blk->node, force);

	if (err)
		scnprintf(msg, IOVM_MSG_MAX, "a front end has /dev/vhost-iovm/%s open", dev->name);
	return err;
}

static void viovm_blk_destroy(struct iovm_dev *dev)
{
	struct viovm_blk *blk = dev->fe;

	dev->fe = NULL;
	viovm_node_destroy(blk->node);
	kfree(blk);
}

static int viovm_blk_resize(struct iovm_dev *dev, u64 sectors, char *msg)
{
	struct viovm_blk *blk = dev->fe;
	u32 in_use, pid, running;

	if (!viovm_blk_capacity_ok(&blk->cfg, sectors))
		return viovm_blk_bad(msg, VIOVM_BAD_CAPACITY);
	if (sectors < blk->cfg.capacity) {
		viovm_node_owner(blk->node, &in_use, &pid, &running);
		if (in_use) {
			scnprintf(msg, IOVM_MSG_MAX,
				  "%s has %llu sectors: it can only be made smaller while no front end has it open",
				  dev->name, blk->cfg.capacity);
			return -EBUSY;
		}
	}
	WRITE_ONCE(blk->cfg.capacity, sectors);
	spin_lock(&blk->config_lock);
	blk->config.capacity = __cpu_to_virtio64(true, sectors);
	spin_unlock(&blk->config_lock);
	viovm_node_config_changed(blk->node);
	return 0;
}

static void viovm_blk_info(struct iovm_dev *dev, struct iovm_dev_info *info)
{
	struct viovm_blk *blk = dev->fe;

	info->blk = blk->cfg;
	info->features = viovm_blk_features(blk) | VIOVM_RING_FEATURES;
	info->mem_bytes = atomic64_read(&blk->mem_bytes) + sizeof(*blk) + sizeof(*blk->node);
	viovm_node_owner(blk->node, &info->in_use, &info->owner_pid, &info->queues_running);
}

static void viovm_blk_route_changed(struct iovm_dev *dev)
{
	struct viovm_blk *blk = READ_ONCE(dev->fe);

	if (blk)
		viovm_node_kick_all(blk->node);
}

const struct iovm_class viovm_blk_class = {
	.id			= IOVM_CLASS_BLK,
	.paths			= IOVM_CLASS_BLK,
	.name			= "blk",
	.owner			= THIS_MODULE,
	.create			= viovm_blk_create,
	.destroy_prepare	= viovm_blk_destroy_prepare,
	.destroy		= viovm_blk_destroy,
	.resize			= viovm_blk_resize,
	.info			= viovm_blk_info,
	.complete		= viovm_blk_complete,
	.requeue		= viovm_blk_requeue,
	.route_changed		= viovm_blk_route_changed,
	.oldest			= viovm_blk_oldest,
};
