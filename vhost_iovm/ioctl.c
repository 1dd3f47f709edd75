// SPDX-License-Identifier: GPL-2.0
/*
 * The vhost ioctl ABI of a device's node. See uapi/vhost_iovm.h.
 */
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/log2.h>
#include <linux/net.h>
#include <linux/pid.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vhost_iovm.h"

/**
 * viovm_dev_features - what a front end may negotiate
 * @dev: front end
 */
u64 viovm_dev_features(const struct viovm_dev *dev)
{
	return dev->node->class.features | VIOVM_RING_FEATURES;
}
EXPORT_SYMBOL_GPL(viovm_dev_features);

/**
 * viovm_dev_running - does any queue of a front end run?
 * @dev: front end; dev->mutex held
 */
bool viovm_dev_running(struct viovm_dev *dev)
{
	u32 i;

	lockdep_assert_held(&dev->mutex);
	for (i = 0; i < dev->nvqs; i++)
		if (dev->vqs[i].running)
			return true;
	return false;
}

static int viovm_set_owner(struct viovm_dev *dev)
{
	if (dev->mm)
		return -EBUSY;
	if (!current->mm)
		return -EINVAL;
	if (dev->node->class.one_worker) {
		int err = viovm_worker_share(dev);

		if (err)
			return err;
	}
	mmgrab(current->mm);
	dev->mm = current->mm;
	dev->owner_pid = get_pid(task_tgid(current));
	return 0;
}

static int viovm_lend_socket(struct viovm_dev *dev, int fd)
{
	struct file *file = NULL;

	if (fd != -1) {
		file = fget(fd);
		if (!file)
			return -EBADF;
		if (!sock_from_file(file)) {
			fput(file);
			return -ENOTSOCK;
		}
	}
	file = viovm_dev_lend(dev, file);
	if (file)
		fput(file);
	return 0;
}

/* Stop every queue and forget everything that was set. dev->mutex held, by the owner. */
static int viovm_reset_owner(struct viovm_dev *dev)
{
	u32 i;
	int err;

	for (i = 0; i < dev->nvqs; i++) {
		err = viovm_vq_stop(&dev->vqs[i]);
		if (err)
			return err;
	}
	viovm_log_enable(dev, false);
	viovm_workers_stop(dev);
	viovm_log_free(dev);
	viovm_lend_socket(dev, -1);
	for (i = 0; i < dev->nvqs; i++) {
		struct viovm_vq *vq = &dev->vqs[i];

		viovm_vq_set_kick(vq, NULL);
		viovm_vq_set_call(vq, NULL);
		mutex_lock(&vq->mutex);
		if (vq->err)
			eventfd_ctx_put(vq->err);
		vq->err = NULL;
		vq->mem = NULL;
		vq->map_cache = NULL;
		mutex_unlock(&vq->mutex);
		vq->num = 0;
		vq->base = 0;
		memset(&vq->addr, 0, sizeof(vq->addr));
		memset(&vq->record, 0, sizeof(vq->record));
		vq->log_used = false;
	}
	if (dev->mem)
		vhost_iotlb_free(dev->mem);
	dev->mem = NULL;
	dev->acked = 0;
	put_pid(dev->owner_pid);
	dev->owner_pid = NULL;
	mmdrop(dev->mm);
	dev->mm = NULL;
	return 0;
}

static int viovm_set_features(struct viovm_dev *dev, u64 features)
{
	int err;

	if (features & ~viovm_dev_features(dev))
		return -EOPNOTSUPP;
	if (viovm_dev_running(dev) && ((features ^ dev->acked) & ~BIT_ULL(VHOST_F_LOG_ALL)))
		return -EBUSY;
	err = viovm_log_enable(dev, features & BIT_ULL(VHOST_F_LOG_ALL));
	if (err)
		return err;
	dev->acked = features;
	return 0;
}

static int viovm_get_config(struct viovm_dev *dev, struct vhost_vdpa_config __user *arg)
{
	const struct viovm_class *class = &dev->node->class;
	struct vhost_vdpa_config head;
	u8 buf[256];

	if (copy_from_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (!head.len || head.len > class->config_size || head.len > sizeof(buf) ||
	    head.off > class->config_size - head.len)
		return -EINVAL;
	class->get_config(dev->node, head.off, buf, head.len);
	return copy_to_user(arg->buf, buf, head.len) ? -EFAULT : 0;
}

static int viovm_set_config_call(struct viovm_dev *dev, int fd)
{
	struct eventfd_ctx *ctx = NULL;

	if (fd != -1) {
		ctx = eventfd_ctx_fdget(fd);
		if (IS_ERR(ctx))
			return PTR_ERR(ctx);
	}
	viovm_dev_config_call(dev, ctx);
	return 0;
}

static int viovm_set_vring_addr(struct viovm_vq *vq, const struct vhost_vring_addr *a)
{
	bool log = a->flags & BIT(VHOST_VRING_F_LOG);

	if (a->flags & ~BIT(VHOST_VRING_F_LOG))
		return -EOPNOTSUPP;
	if (!IS_ALIGNED(a->desc_user_addr, VRING_DESC_ALIGN_SIZE) ||
	    !IS_ALIGNED(a->avail_user_addr, VRING_AVAIL_ALIGN_SIZE) ||
	    !IS_ALIGNED(a->used_user_addr, VRING_USED_ALIGN_SIZE) ||
	    (log && !IS_ALIGNED(a->log_guest_addr, VRING_USED_ALIGN_SIZE)))
		return -EINVAL;
	return viovm_vq_set_addr(vq, a);
}

static int viovm_set_inflight(struct viovm_vq *vq, const struct vhost_iovm_inflight *rec)
{
	if (vq->running)
		return -EBUSY;
	if (rec->addr && (!rec->desc_num || rec->desc_num > U16_MAX || !IS_ALIGNED(rec->addr, 8) ||
			  rec->size < VHOST_IOVM_INFLIGHT_BYTES(rec->desc_num)))
		return -EINVAL;
	if ((u64)(unsigned long)rec->addr != rec->addr)
		return -EFAULT;
	vq->record = *rec;
	return 0;
}

static int viovm_set_kick(struct viovm_vq *vq, int fd)
{
	struct file *file;
	int err;

	if (fd == -1)
		return vq->running ? -EBUSY : 0;
	file = eventfd_fget(fd);
	if (IS_ERR(file))
		return PTR_ERR(file);
	if (!vq->running) {
		err = viovm_vq_start(vq);
		if (err) {
			fput(file);
			return err;
		}
	}
	viovm_vq_set_kick(vq, file);
	return 0;
}

static int viovm_set_call_err(struct viovm_vq *vq, unsigned int cmd, int fd)
{
	struct eventfd_ctx *ctx = NULL;
	int err;

	if (fd != -1) {
		ctx = eventfd_ctx_fdget(fd);
		if (IS_ERR(ctx))
			return PTR_ERR(ctx);
	}
	if (cmd == VHOST_SET_VRING_CALL) {
		err = viovm_vq_set_call(vq, ctx);
		if (err && ctx)
			eventfd_ctx_put(ctx);
		return err;
	}
	mutex_lock(&vq->mutex);
	swap(ctx, vq->err);
	mutex_unlock(&vq->mutex);
	if (ctx)
		eventfd_ctx_put(ctx);
	return 0;
}

static int viovm_get_base(struct viovm_dev *dev, struct viovm_vq *vq, struct vhost_vring_state *s)
{
	int err = viovm_vq_stop(vq);

	if (err)
		return err;
	/* who has stopped the device copies next what the log names */
	while (viovm_log_flush(dev) == -ENOMEM && !fatal_signal_pending(current) &&
	       !READ_ONCE(dev->abort))
		msleep(20);
	s->num = vq->base;
	return 0;
}

/* Every ioctl of one queue begins its argument with the queue's index */
static int viovm_vring_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp)
{
	union {
		struct vhost_vring_state state;
		struct vhost_vring_addr addr;
		struct vhost_vring_file file;
		struct vhost_iovm_inflight inflight;
	} a;
	size_t size = _IOC_SIZE(cmd);
	struct viovm_vq *vq;
	int err;

	if (size > sizeof(a) || copy_from_user(&a, argp, size))
		return -EFAULT;
	if (a.state.index >= dev->nvqs)
		return -ENOBUFS;
	vq = &dev->vqs[a.state.index];

	switch (cmd) {
	case VHOST_SET_VRING_NUM:
		if (vq->running)
			return -EBUSY;
		if (!is_power_of_2(a.state.num) || a.state.num > dev->node->class.ring_max)
			return -EINVAL;
		vq->num = a.state.num;
		return 0;
	case VHOST_SET_VRING_BASE:
		if (vq->running)
			return -EBUSY;
		if (a.state.num > 0xffff)
			return -EINVAL;
		vq->base = a.state.num;
		return 0;
	case VHOST_GET_VRING_BASE:
		err = viovm_get_base(dev, vq, &a.state);
		break;
	case VHOST_SET_VRING_ENDIAN:
		if (vq->running)
			return -EBUSY;
		return a.state.num == VHOST_VRING_LITTLE_ENDIAN ? 0 : -EINVAL;
	case VHOST_GET_VRING_ENDIAN:
		a.state.num = VHOST_VRING_LITTLE_ENDIAN;
		err = 0;
		break;
	case VHOST_SET_VRING_ADDR:
		return viovm_set_vring_addr(vq, &a.addr);
	case VHOST_SET_VRING_KICK:
		return viovm_set_kick(vq, a.file.fd);
	case VHOST_IOVM_SET_INFLIGHT:
		return viovm_set_inflight(vq, &a.inflight);
	default:
		return viovm_set_call_err(vq, cmd, a.file.fd);
	}
	if (!err && copy_to_user(argp, &a, size))
		err = -EFAULT;
	return err;
}

/* What anybody who has the node open may ask. -ENOIOCTLCMD: not one of these. */
static long viovm_open_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp)
{
	const struct viovm_class *class = &dev->node->class;
	long err;
	u64 v64;

	if (class->ioctl) {
		err = class->ioctl(dev, cmd, argp);
		if (err != -ENOIOCTLCMD)
			return err;
	}
	switch (cmd) {
	case VHOST_GET_FEATURES:
		v64 = viovm_dev_features(dev);
		return copy_to_user(argp, &v64, sizeof(v64)) ? -EFAULT : 0;
	case VHOST_GET_BACKEND_FEATURES:
		v64 = 0;
		return copy_to_user(argp, &v64, sizeof(v64)) ? -EFAULT : 0;
	case VHOST_SET_BACKEND_FEATURES:
		if (copy_from_user(&v64, argp, sizeof(v64)))
			return -EFAULT;
		return v64 ? -EOPNOTSUPP : 0;
	case VHOST_VDPA_GET_DEVICE_ID:
		return put_user(class->device_id, (u32 __user *)argp);
	case VHOST_VDPA_GET_CONFIG_SIZE:
		return put_user(class->config_size, (u32 __user *)argp);
	case VHOST_VDPA_GET_CONFIG:
		return viovm_get_config(dev, argp);
	case VHOST_VDPA_GET_VRING_NUM:
		return put_user((u16)class->ring_size, (u16 __user *)argp);
	case VHOST_VDPA_GET_VQS_COUNT:
		return put_user(class->num_vqs, (u32 __user *)argp);
	case VHOST_SET_OWNER:
		return viovm_set_owner(dev);
	}
	return -ENOIOCTLCMD;
}

static long viovm_owner_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp)
{
	u64 v64;
	int fd;

	switch (cmd) {
	case VHOST_RESET_OWNER:
		return viovm_reset_owner(dev);
	case VHOST_SET_FEATURES:
		if (copy_from_user(&v64, argp, sizeof(v64)))
			return -EFAULT;
		return viovm_set_features(dev, v64);
	case VHOST_SET_MEM_TABLE:
		return viovm_mem_set(dev, argp);
	case VHOST_SET_LOG_BASE:
		if (copy_from_user(&v64, argp, sizeof(v64)))
			return -EFAULT;
		return viovm_log_set_base(dev, v64);
	case VHOST_SET_LOG_FD:
		if (copy_from_user(&fd, argp, sizeof(fd)))
			return -EFAULT;
		return viovm_log_set_fd(dev, fd);
	case VHOST_VDPA_SET_CONFIG_CALL:
		if (copy_from_user(&fd, argp, sizeof(fd)))
			return -EFAULT;
		return viovm_set_config_call(dev, fd);
	case VHOST_IOVM_LEND_SOCKET:
		if (copy_from_user(&fd, argp, sizeof(fd)))
			return -EFAULT;
		return viovm_lend_socket(dev, fd);
	case VHOST_NEW_WORKER:
	case VHOST_FREE_WORKER:
	case VHOST_ATTACH_VRING_WORKER:
	case VHOST_GET_VRING_WORKER:
		return viovm_worker_ioctl(dev, cmd, argp);
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
	case VHOST_GET_VRING_BASE:
	case VHOST_SET_VRING_ENDIAN:
	case VHOST_GET_VRING_ENDIAN:
	case VHOST_SET_VRING_ADDR:
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
	case VHOST_IOVM_SET_INFLIGHT:
		return viovm_vring_ioctl(dev, cmd, argp);
	}
	return -ENOTTY;
}

/**
 * viovm_dev_ioctl - any ioctl on the node
 * @dev: front end
 * @cmd: number
 * @arg: user pointer
 *
 * Process context; killable while another ioctl runs.
 * Return: see uapi/vhost_iovm.h.
 */
long viovm_dev_ioctl(struct viovm_dev *dev, unsigned int cmd, unsigned long arg)
{
	void __user *argp = (void __user *)arg;
	long err;

	if (mutex_lock_killable(&dev->mutex))
		return -EINTR;
	if (dev->shut) {
		err = -ENODEV;
		goto out;
	}
	err = viovm_open_ioctl(dev, cmd, argp);
	if (err != -ENOIOCTLCMD)
		goto out;
	err = -EPERM;
	if (dev->mm && dev->mm == current->mm)
		err = viovm_owner_ioctl(dev, cmd, argp);
out:
	mutex_unlock(&dev->mutex);
	return err;
}
EXPORT_SYMBOL_GPL(viovm_dev_ioctl);
