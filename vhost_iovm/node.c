// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/vhost-iovm/NAME: the node of a device, and the life of the front end that has it open.
 */
#include <linux/file.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "vhost_iovm.h"

#define VIOVM_MINORS		1024
/* how long close() itself waits for requests in flight before it leaves them to the background */
#define VIOVM_CLOSE_WAIT	HZ

static dev_t viovm_devt;
static DEFINE_IDA(viovm_minors);
static struct workqueue_struct *viovm_wq;

static struct class viovm_device_class = {
	.name = "vhost-iovm",
};

/* Process context, dev->mutex held: nothing more happens on behalf of the owner */
static void viovm_dev_shutdown(struct viovm_dev *dev)
{
	u32 i;

	lockdep_assert_held(&dev->mutex);
	if (dev->shut)
		return;
	dev->shut = true;
	for (i = 0; i < dev->nvqs; i++)
		viovm_vq_kill(&dev->vqs[i]);
	viovm_workers_stop(dev);
	for (i = 0; i < dev->nvqs; i++) {
		struct viovm_vq *vq = &dev->vqs[i];

		mutex_lock(&vq->mutex);
		if (vq->running)
			dev->node->class.vq_drop(vq);
		mutex_unlock(&vq->mutex);
	}
}

/**
 * viovm_dev_config_call - who is told when the configuration changes
 * @dev: front end; dev->mutex held
 * @ctx: eventfd, taken over; NULL for nobody
 */
void viovm_dev_config_call(struct viovm_dev *dev, struct eventfd_ctx *ctx)
{
	struct viovm_node *node = dev->node;

	spin_lock(&node->lock);
	swap(ctx, node->config_call);
	spin_unlock(&node->lock);
	if (ctx)
		eventfd_ctx_put(ctx);
}

/**
 * viovm_dev_lend - keep a socket open until the front end has ended
 * @dev: front end; dev->mutex held
 * @file: socket, taken over; NULL for none
 *
 * Return: the one that was kept before, for the caller to put; or NULL.
 */
struct file *viovm_dev_lend(struct viovm_dev *dev, struct file *file)
{
	lockdep_assert_held(&dev->mutex);
	swap(dev->lent, file);
	return file;
}

/*
 * The file is closed and dev is shut down: wait for what is in flight, free, make room for the
 * next front end
 */
static void viovm_dev_finish(struct viovm_dev *dev)
{
	struct viovm_node *node = dev->node;
	struct module *owner = node->class.owner;
	struct file *lent;
	u32 i;

	mutex_lock(&dev->mutex);
	for (i = 0; i < dev->nvqs; i++) {
		struct viovm_vq *vq = &dev->vqs[i];

		viovm_vq_finish(vq);
		viovm_vq_set_call(vq, NULL);
		if (vq->err)
			eventfd_ctx_put(vq->err);
	}
	viovm_log_free(dev);
	viovm_dev_config_call(dev, NULL);
	lent = viovm_dev_lend(dev, NULL);
	mutex_unlock(&dev->mutex);

	if (dev->mem)
		vhost_iotlb_free(dev->mem);
	if (dev->mm)
		mmdrop(dev->mm);
	put_pid(dev->owner_pid);
	xa_destroy(&dev->workers);

	mutex_lock(&node->mutex);
	/* the class's part of a retired node may be freed already */
	if (!node->gone)
		node->class.closed(node);
	rcu_assign_pointer(node->cur, NULL);
	mutex_unlock(&node->mutex);
	/* only now: a VMM that sees its connection end finds the node free */
	if (lent)
		fput(lent);
	/* completions signal outside of the queue's lock, viovm_node_kick_all() uses cur */
	synchronize_rcu();
	kvfree(dev->vqs);
	kfree(dev);
	put_device(&node->device);
	module_put(owner);
}

static void viovm_release_work(struct work_struct *work)
{
	viovm_dev_finish(container_of(work, struct viovm_dev, release_work));
}

/* A front end of a node; or an ERR_PTR. Process context. */
static struct viovm_dev *viovm_dev_open(struct viovm_node *node)
{
	struct viovm_dev *dev;
	u32 i;
	int err;

	if (!try_module_get(node->class.owner))
		return ERR_PTR(-ENODEV);
	mutex_lock(&node->mutex);
	err = -ENODEV;
	if (node->gone)
		goto unlock;
	err = -EBUSY;
	if (rcu_access_pointer(node->cur))
		goto unlock;

	err = -ENOMEM;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL_ACCOUNT);
	if (!dev)
		goto unlock;
	dev->nvqs = node->class.num_vqs;
	dev->vqs = kvcalloc(dev->nvqs, sizeof(*dev->vqs), GFP_KERNEL_ACCOUNT);
	if (!dev->vqs)
		goto free_dev;
	dev->node = node;
	mutex_init(&dev->mutex);
	xa_init_flags(&dev->workers, XA_FLAGS_ALLOC);
	INIT_WORK(&dev->release_work, viovm_release_work);
	viovm_log_init(dev);
	for (i = 0; i < dev->nvqs; i++)
		viovm_vq_init(dev, &dev->vqs[i], i);
	err = node->class.opened(node, dev);
	if (err)
		goto free_vqs;
	get_device(&node->device);
	rcu_assign_pointer(node->cur, dev);
	mutex_unlock(&node->mutex);
	return dev;

free_vqs:
	kvfree(dev->vqs);
free_dev:
	kfree(dev);
unlock:
	mutex_unlock(&node->mutex);
	module_put(node->class.owner);
	return ERR_PTR(err);
}

static int viovm_open(struct inode *inode, struct file *file)
{
	struct viovm_node *node = container_of(inode->i_cdev, struct viovm_node, cdev);
	struct viovm_dev *dev = viovm_dev_open(node);

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	file->private_data = dev;
	return nonseekable_open(inode, file);
}

/**
 * viovm_dev_close - a front end's file is closed
 * @dev: not to be used afterwards
 *
 * Process context. Waits a moment for what is in flight, and leaves the rest to the background.
 */
void viovm_dev_close(struct viovm_dev *dev)
{
	unsigned long end = jiffies + VIOVM_CLOSE_WAIT;
	bool done = true;
	u32 i;

	mutex_lock(&dev->mutex);
	viovm_dev_shutdown(dev);
	for (i = 0; i < dev->nvqs && done; i++)
		done = viovm_vq_wait_dead(&dev->vqs[i], max_t(long, end - jiffies, 1));
	mutex_unlock(&dev->mutex);
	if (done)
		viovm_dev_finish(dev);
	else
		queue_work(viovm_wq, &dev->release_work);
}
EXPORT_SYMBOL_GPL(viovm_dev_close);

static int viovm_release(struct inode *inode, struct file *file)
{
	viovm_dev_close(file->private_data);
	return 0;
}

static long viovm_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return viovm_dev_ioctl(file->private_data, cmd, arg);
}

static const struct file_operations viovm_fops = {
	.owner		= THIS_MODULE,
	.open		= viovm_open,
	.release	= viovm_release,
	.unlocked_ioctl	= viovm_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.llseek		= noop_llseek,
};

static char *viovm_devnode(VIOVM_DEVNODE_CONST struct device *device, umode_t *mode, kuid_t *uid,
			   kgid_t *gid)
{
	const struct viovm_node *node = container_of(device, struct viovm_node, device);

	/* asked for the name alone when the node goes */
	if (mode)
		*mode = node->mode;
	if (uid)
		*uid = node->uid;
	if (gid)
		*gid = node->gid;
	return kasprintf(GFP_KERNEL, "vhost-iovm/%s", node->name);
}

static const struct device_type viovm_device_type = {
	.name = "vhost-iovm",
	.devnode = viovm_devnode,
};

static void viovm_node_free(struct device *device)
{
	struct viovm_node *node = container_of(device, struct viovm_node, device);

	if (node->minor != VIOVM_NO_MINOR)
		ida_free(&viovm_minors, node->minor);
	viovm_log_drop_left(node);
	kfree(node);
}

/* What every node needs; it is freed by put_device(). */
static void viovm_node_init(struct viovm_node *node, const char *name,
			    const struct viovm_class *class, void *priv, u32 minor)
{
	node->class = *class;
	node->priv = priv;
	node->minor = minor;
	strscpy(node->name, name, sizeof(node->name));
	mutex_init(&node->mutex);
	spin_lock_init(&node->lock);
	device_initialize(&node->device);
	node->device.release = viovm_node_free;
}

/**
 * viovm_node_create - make a device's node
 * @name: of the device
 * @mode: permission bits of the node
 * @uid: its owner
 * @gid: its group
 * @class: copied; the callbacks may come as soon as the node is there
 * @priv: for the class: node->priv
 *
 * Process context.
 * Return: the node, or an ERR_PTR: -ENOSPC no minor left, -EEXIST, -ENOMEM.
 */
struct viovm_node *viovm_node_create(const char *name, umode_t mode, kuid_t uid, kgid_t gid,
				     const struct viovm_class *class, void *priv)
{
	struct viovm_node *node = kzalloc(sizeof(*node), GFP_KERNEL);
	int err;

	if (!node)
		return ERR_PTR(-ENOMEM);
	err = ida_alloc_max(&viovm_minors, VIOVM_MINORS - 1, GFP_KERNEL);
	if (err < 0) {
		kfree(node);
		return ERR_PTR(err);
	}
	viovm_node_init(node, name, class, priv, err);
	node->mode = mode;
	node->uid = uid;
	node->gid = gid;
	node->device.class = &viovm_device_class;
	node->device.type = &viovm_device_type;
	node->device.devt = MKDEV(MAJOR(viovm_devt), node->minor);
	err = dev_set_name(&node->device, "%s", name);
	if (err)
		goto put;
	cdev_init(&node->cdev, &viovm_fops);
	node->cdev.owner = THIS_MODULE;
	err = cdev_device_add(&node->cdev, &node->device);
	if (err)
		goto put;
	return node;
put:
	put_device(&node->device);
	return ERR_PTR(err);
}
EXPORT_SYMBOL_GPL(viovm_node_create);

/**
 * viovm_dev_open_alone - a front end without a device: of a node that the class has made itself
 * @name: for people
 * @class: copied
 * @priv: for the class: node->priv; class.closed() ends it
 *
 * Process context. The file's release calls viovm_dev_close(), its ioctl viovm_dev_ioctl().
 * Return: the front end, or an ERR_PTR.
 */
struct viovm_dev *viovm_dev_open_alone(const char *name, const struct viovm_class *class,
				       void *priv)
{
	struct viovm_node *node = kzalloc(sizeof(*node), GFP_KERNEL_ACCOUNT);
	struct viovm_dev *dev;

	if (!node)
		return ERR_PTR(-ENOMEM);
	viovm_node_init(node, name, class, priv, VIOVM_NO_MINOR);
	dev = viovm_dev_open(node);
	/* the front end has its own reference */
	put_device(&node->device);
	return dev;
}
EXPORT_SYMBOL_GPL(viovm_dev_open_alone);

/**
 * viovm_node_retire - no new front end; the present one is in the way, or is ended
 * @node: node
 * @force: end the front end: its queues stop, its file answers ENODEV
 *
 * Process context. With @force waits for what is in flight.
 * Return: 0, or -EBUSY.
 */
int viovm_node_retire(struct viovm_node *node, bool force)
{
	struct file *lent = NULL;
	struct viovm_dev *dev;
	u32 i;
	int err = 0;

	mutex_lock(&node->mutex);
	dev = rcu_dereference_protected(node->cur, lockdep_is_held(&node->mutex));
	if (dev && !force) {
		err = -EBUSY;
	} else {
		node->gone = true;
		if (dev) {
			/* an ioctl may hold the mutex and wait for requests that never end */
			WRITE_ONCE(dev->abort, true);
			for (i = 0; i < dev->nvqs; i++)
				wake_up(&dev->vqs[i].drain);
			mutex_lock(&dev->mutex);
			viovm_dev_shutdown(dev);
			for (i = 0; i < dev->nvqs; i++)
				viovm_vq_finish(&dev->vqs[i]);
			/* also when the socket holds the node's own file, sent and not received */
			lent = viovm_dev_lend(dev, NULL);
			mutex_unlock(&dev->mutex);
			/* whoever serves a VMM asks, hears ENODEV, and need not leave it waiting */
			viovm_node_config_changed(node);
		}
	}
	mutex_unlock(&node->mutex);
	if (lent)
		fput(lent);
	return err;
}
EXPORT_SYMBOL_GPL(viovm_node_retire);

/**
 * viovm_node_destroy - remove the node after viovm_node_retire()
 * @node: not to be used afterwards; an open file keeps its memory
 */
void viovm_node_destroy(struct viovm_node *node)
{
	cdev_device_del(&node->cdev, &node->device);
	put_device(&node->device);
}
EXPORT_SYMBOL_GPL(viovm_node_destroy);

/**
 * viovm_node_config_changed - tell the front end that the configuration space changed
 * @node: node
 *
 * Process context.
 */
void viovm_node_config_changed(struct viovm_node *node)
{
	spin_lock(&node->lock);
	if (node->config_call)
		eventfd_signal(node->config_call);
	spin_unlock(&node->lock);
}
EXPORT_SYMBOL_GPL(viovm_node_config_changed);

/**
 * viovm_node_kick_all - have every queue of the present front end looked at
 * @node: node
 *
 * Any context, hard irq too.
 */
void viovm_node_kick_all(struct viovm_node *node)
{
	struct viovm_dev *dev;
	u32 i;

	rcu_read_lock();
	dev = rcu_dereference(node->cur);
	if (dev)
		for (i = 0; i < dev->nvqs; i++)
			viovm_vq_kick(&dev->vqs[i]);
	rcu_read_unlock();
}
EXPORT_SYMBOL_GPL(viovm_node_kick_all);

/**
 * viovm_node_owner - who uses the node, for display
 * @node: node
 * @in_use: out: 1 when a front end is there
 * @pid: out: its process in the caller's pid namespace, 0 when there is none or it has not
 *	set an owner
 * @running: out: running queues
 *
 * Process context. A front end that is busy with an ioctl (a stopping queue, say) is shown by
 * what can be read without waiting for it.
 */
void viovm_node_owner(struct viovm_node *node, u32 *in_use, u32 *pid, u32 *running)
{
	struct viovm_dev *dev;
	u32 i;

	*in_use = 0;
	*pid = 0;
	*running = 0;
	mutex_lock(&node->mutex);
	dev = rcu_dereference_protected(node->cur, lockdep_is_held(&node->mutex));
	if (dev) {
		*in_use = 1;
		for (i = 0; i < dev->nvqs; i++)
			*running += READ_ONCE(dev->vqs[i].running);
		if (mutex_trylock(&dev->mutex)) {
			*pid = dev->owner_pid ? pid_vnr(dev->owner_pid) : 0;
			mutex_unlock(&dev->mutex);
		}
	}
	mutex_unlock(&node->mutex);
}
EXPORT_SYMBOL_GPL(viovm_node_owner);

/**
 * viovm_nodes_init - character devices and class; module load
 *
 * Return: 0 or a negative errno.
 */
int viovm_nodes_init(void)
{
	int err;

	viovm_wq = alloc_workqueue("vhost_iovm", WQ_UNBOUND, 0);
	if (!viovm_wq)
		return -ENOMEM;
	err = alloc_chrdev_region(&viovm_devt, 0, VIOVM_MINORS, "vhost-iovm");
	if (err)
		goto free_wq;
	err = class_register(&viovm_device_class);
	if (err)
		goto free_region;
	return 0;

free_region:
	unregister_chrdev_region(viovm_devt, VIOVM_MINORS);
free_wq:
	destroy_workqueue(viovm_wq);
	return err;
}

/**
 * viovm_nodes_exit - module unload: no node is left, a front end's last steps may still run
 */
void viovm_nodes_exit(void)
{
	destroy_workqueue(viovm_wq);
	class_unregister(&viovm_device_class);
	unregister_chrdev_region(viovm_devt, VIOVM_MINORS);
	ida_destroy(&viovm_minors);
}
