// SPDX-License-Identifier: GPL-2.0
/*
 * The ioctls of /dev/vhost-net, where they are not the core's: a queue starts and stops with
 * NET_SET_BACKEND, and most of it may change while it runs.
 */
#include <linux/file.h>
#include <linux/uaccess.h>

#include "net.h"

/**
 * viovm_net_set_headers - what virtio-net header the guest and the socket have
 * @net: front end; dev->mutex and both vq->mutex held, or nobody else has it yet
 * @features: negotiated
 *
 * Source: virtio 1.2, 5.1.6; VHOST_NET_F_VIRTIO_NET_HDR: linux/vhost.h.
 */
void viovm_net_set_headers(struct viovm_net *net, u64 features)
{
	u32 len = features & (BIT_ULL(VIRTIO_NET_F_MRG_RXBUF) | BIT_ULL(VIRTIO_F_VERSION_1)) ?
		  sizeof(struct virtio_net_hdr_mrg_rxbuf) : sizeof(struct virtio_net_hdr);
	bool ours = features & BIT_ULL(VHOST_NET_F_VIRTIO_NET_HDR);

	net->hdr_guest = ours ? len : 0;
	net->hdr_sock = ours ? 0 : len;
}

static int viovm_net_set_features(struct viovm_dev *dev, u64 features)
{
	struct viovm_net *net = dev->node->priv;
	bool owner = dev->mm == current->mm;
	u32 i;
	int err;

	lockdep_assert_held(&dev->mutex);
	if (features & ~viovm_dev_features(dev))
		return -EOPNOTSUPP;
	/* what the log still holds is written where the caller's log is */
	if (!owner && (dev->acked & ~features & BIT_ULL(VHOST_F_LOG_ALL)))
		return -EPERM;
	err = viovm_log_enable(dev, features & BIT_ULL(VHOST_F_LOG_ALL));
	if (err)
		return err;
	for (i = 0; i < dev->nvqs; i++)
		mutex_lock_nested(&dev->vqs[i].mutex, i);
	dev->acked = features;
	viovm_net_set_headers(net, features);
	for (i = 0; i < dev->nvqs; i++) {
		struct viovm_vq *vq = &dev->vqs[i];

		spin_lock_irq(&vq->lock);
		vq->ring.event_idx = features & BIT_ULL(VIRTIO_RING_F_EVENT_IDX);
		spin_unlock_irq(&vq->lock);
	}
	for (i = dev->nvqs; i--;)
		mutex_unlock(&dev->vqs[i].mutex);
	return 0;
}

/* Serve with this socket, taken over on success. dev->mutex held, by the owner. */
static int viovm_net_start(struct viovm_net_queue *q, struct socket *sock, bool tap)
{
	const struct vhost_vring_addr *a = &q->vq->addr;
	int err;

	/* a ring that was not set up */
	if (!q->vq->num || !a->desc_user_addr || !a->avail_user_addr || !a->used_user_addr)
		return -EFAULT;
	q->next = sock;
	q->next_tap = tap;
	err = viovm_vq_start(q->vq);
	q->next = NULL;
	return err;
}

static int viovm_net_set_backend(struct viovm_net_queue *q, int fd)
{
	struct socket *sock, *old = NULL;
	bool tap, old_tap = false;
	struct viovm_vq *vq = q->vq;
	int err;

	lockdep_assert_held(&vq->dev->mutex);
	if (fd == -1)
		return viovm_vq_stop(vq);
	sock = viovm_net_socket(fd, &tap);
	if (IS_ERR(sock))
		return PTR_ERR(sock);
	err = 0;
	if (vq->running) {
		if (sock == q->sock)
			goto put;
		old = q->sock;
		old_tap = q->tap;
		get_file(old->file);
		err = viovm_vq_stop(vq);
		if (err)
			goto put;
	}
	err = viovm_net_start(q, sock, tap);
	if (!err)
		sock = NULL;
	else if (old && !viovm_net_start(q, old, old_tap))
		old = NULL;
put:
	if (sock)
		sockfd_put(sock);
	if (old)
		sockfd_put(old);
	return err;
}

static int viovm_net_set_addr(struct viovm_vq *vq, const struct vhost_vring_addr *a)
{
	int err;

	if (a->flags & ~BIT(VHOST_VRING_F_LOG))
		return -EOPNOTSUPP;
	if (!IS_ALIGNED(a->avail_user_addr, VRING_AVAIL_ALIGN_SIZE) ||
	    !IS_ALIGNED(a->used_user_addr, VRING_USED_ALIGN_SIZE) ||
	    !IS_ALIGNED(a->log_guest_addr, VRING_USED_ALIGN_SIZE))
		return -EINVAL;
	err = viovm_vq_set_addr(vq, a);
	/* what vhost_net says to a running queue's ring that is not there */
	return vq->running && err == -EFAULT ? -EINVAL : err;
}

static int viovm_net_set_kick(struct viovm_vq *vq, int fd)
{
	struct file *file = NULL;

	if (fd != -1) {
		file = eventfd_fget(fd);
		if (IS_ERR(file))
			return PTR_ERR(file);
	}
	viovm_vq_set_kick(vq, file);
	return 0;
}

/* The next head to serve. A queue that runs goes on. */
static u32 viovm_net_get_base(struct viovm_vq *vq)
{
	u32 base;

	/* who has stopped the device copies next what the log names */
	viovm_log_flush(vq->dev);
	mutex_lock(&vq->mutex);
	base = vq->running ? vq->ring.last_avail : vq->base;
	mutex_unlock(&vq->mutex);
	return base;
}

static long viovm_net_vring_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp)
{
	union {
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct vhost_vring_file file;
	} a;
	struct viovm_net_queue *q;
	u32 index;

	if (get_user(index, (u32 __user *)argp))
		return -EFAULT;
	if (index >= dev->nvqs)
		return -ENOBUFS;
	q = viovm_net_queue(&dev->vqs[index]);
	switch (cmd) {
	case VHOST_NET_SET_BACKEND:
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_ADDR:
	case VHOST_GET_VRING_BASE:
	case VHOST_SET_VRING_BUSYLOOP_TIMEOUT:
	case VHOST_GET_VRING_BUSYLOOP_TIMEOUT:
		break;
	default:
		return -ENOTTY;
	}
	if (copy_from_user(&a, argp, _IOC_SIZE(cmd)))
		return -EFAULT;
	switch (cmd) {
	case VHOST_NET_SET_BACKEND:
		return viovm_net_set_backend(q, a.file.fd);
	case VHOST_SET_VRING_KICK:
		return viovm_net_set_kick(q->vq, a.file.fd);
	case VHOST_SET_VRING_ADDR:
		return viovm_net_set_addr(q->vq, &a.addr);
	case VHOST_SET_VRING_BUSYLOOP_TIMEOUT:
		WRITE_ONCE(q->busy_us, a.state.num);
		return 0;
	case VHOST_GET_VRING_BASE:
		a.state.num = viovm_net_get_base(q->vq);
		break;
	case VHOST_GET_VRING_BUSYLOOP_TIMEOUT:
		a.state.num = q->busy_us;
		break;
	}
	a.state.index = index;
	return copy_to_user(argp, &a, _IOC_SIZE(cmd)) ? -EFAULT : 0;
}

/**
 * viovm_net_ioctl - class callback: any ioctl
 * @dev: front end; dev->mutex held
 * @cmd: number
 * @argp: user pointer
 *
 * Return: as vhost_net answers; -ENOIOCTLCMD: the core answers as vhost_net does.
 */
long viovm_net_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp)
{
	struct vhost_vring_file file;
	u64 features;

	switch (cmd) {
	case VHOST_GET_FEATURES:
	case VHOST_GET_BACKEND_FEATURES:
	case VHOST_SET_BACKEND_FEATURES:
	case VHOST_SET_OWNER:
		return -ENOIOCTLCMD;
	case VHOST_SET_FEATURES:
		if (copy_from_user(&features, argp, sizeof(features)))
			return -EFAULT;
		return viovm_net_set_features(dev, features);
	case VHOST_NET_SET_BACKEND:
		/* looked at before the owner, as in vhost_net */
		if (copy_from_user(&file, argp, sizeof(file)))
			return -EFAULT;
		break;
	}
	if (!dev->mm || dev->mm != current->mm)
		return -EPERM;
	switch (cmd) {
	case VHOST_RESET_OWNER:
	case VHOST_SET_MEM_TABLE:
	case VHOST_SET_LOG_BASE:
	case VHOST_SET_LOG_FD:
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
		return -ENOIOCTLCMD;
	}
	return viovm_net_vring_ioctl(dev, cmd, argp);
}
