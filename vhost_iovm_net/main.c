// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/vhost-iovm-net: plain vhost-net. Each open() is a front end of its own, for one pair of
 * queues.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/virtio_ids.h>

#include "net.h"

static int viovm_net_opened(struct viovm_node *node, struct viovm_dev *dev)
{
	struct viovm_net *net = node->priv;
	u32 i;

	for (i = 0; i < VIOVM_NET_QUEUES; i++) {
		struct viovm_net_queue *q = &net->queues[i];

		q->net = net;
		q->vq = &dev->vqs[i];
		q->events = i == VIOVM_NET_RX ? EPOLLIN : EPOLLOUT;
	}
	viovm_net_set_headers(net, 0);
	return 0;
}

static void viovm_net_closed(struct viovm_node *node)
{
	kfree(node->priv);
}

static bool viovm_net_vq_run(struct viovm_vq *vq)
{
	struct viovm_net_queue *q = viovm_net_queue(vq);

	return vq->index == VIOVM_NET_RX ? viovm_net_rx(q) : viovm_net_tx(q);
}

static const struct viovm_class viovm_net_class = {
	.owner		= THIS_MODULE,
	.device_id	= VIRTIO_ID_NET,
	.num_vqs	= VIOVM_NET_QUEUES,
	.ring_max	= 32768,
	.ring_size	= 256,
	.features	= BIT_ULL(VIRTIO_F_NOTIFY_ON_EMPTY) | BIT_ULL(VHOST_NET_F_VIRTIO_NET_HDR) |
			  BIT_ULL(VIRTIO_NET_F_MRG_RXBUF) | BIT_ULL(VIRTIO_F_IN_ORDER) |
			  VIOVM_COMPAT_VHOST_NET_RESET,
	.live_setup	= true,
	.one_worker	= true,
	.eager		= true,
	.ioctl		= viovm_net_ioctl,
	.opened		= viovm_net_opened,
	.closed		= viovm_net_closed,
	.vq_start	= viovm_net_vq_start,
	.vq_stop	= viovm_net_vq_stop,
	.vq_run		= viovm_net_vq_run,
	.vq_drop	= viovm_net_vq_drop,
};

static int viovm_net_open(struct inode *inode, struct file *file)
{
	struct viovm_net *net = kzalloc(sizeof(*net), GFP_KERNEL_ACCOUNT);
	struct viovm_dev *dev;

	if (!net)
		return -ENOMEM;
	dev = viovm_dev_open_alone("vhost-iovm-net", &viovm_net_class, net);
	if (IS_ERR(dev)) {
		kfree(net);
		return PTR_ERR(dev);
	}
	file->private_data = dev;
	return 0;
}

static int viovm_net_release(struct inode *inode, struct file *file)
{
	viovm_dev_close(file->private_data);
	return 0;
}

static long viovm_net_file_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return viovm_dev_ioctl(file->private_data, cmd, arg);
}

static const struct file_operations viovm_net_fops = {
	.owner		= THIS_MODULE,
	.open		= viovm_net_open,
	.release	= viovm_net_release,
	.unlocked_ioctl	= viovm_net_file_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static struct miscdevice viovm_net_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "vhost-iovm-net",
	.fops	= &viovm_net_fops,
};
module_misc_device(viovm_net_misc);

MODULE_DESCRIPTION("virtio-net back end, in place of vhost_net");
MODULE_AUTHOR("vhost-iovm maintainers");
MODULE_LICENSE("GPL");
