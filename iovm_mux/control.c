// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/iovm-mux: checks who calls, copies what he passes, finds who does it.
 */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/**
 * iovm_msg - say why
 * @msg: IOVM_MSG_MAX bytes, or NULL when nobody asks
 * @fmt: a sentence in plain ASCII
 *
 * Return: 0 always, so that "return iovm_msg(...) ?: -EINVAL;" says and returns why.
 */
int iovm_msg(char *msg, const char *fmt, ...)
{
	va_list args;

	if (!msg)
		return 0;
	va_start(args, fmt);
	vscnprintf(msg, IOVM_MSG_MAX, fmt, args);
	va_end(args);
	return 0;
}

static int iovm_get_version(struct file *file, void *buf)
{
	struct iovm_version *arg = buf;

	arg->abi = IOVM_ABI_VERSION;
	iovm_types_mask(&arg->classes, &arg->path_types);
	memset(arg->release, 0, sizeof(arg->release));
	strscpy(arg->release, IOVM_RELEASE, sizeof(arg->release));
	return 0;
}

static int iovm_ioc_dev_create(struct file *file, void *buf)
{
	return iovm_dev_create(buf);
}

static int iovm_ioc_dev_destroy(struct file *file, void *buf)
{
	return iovm_dev_destroy(buf);
}

static int iovm_ioc_dev_get(struct file *file, void *buf)
{
	struct iovm_dev_info *info = buf;
	struct iovm_dev *dev = iovm_dev_find(info->name, info->id, NULL);

	if (IS_ERR(dev))
		return PTR_ERR(dev);
	iovm_dev_info_fill(dev, info);
	iovm_dev_release(dev);
	return 0;
}

static int iovm_ioc_dev_ctl(struct file *file, void *buf)
{
	return iovm_dev_ctl(buf);
}

static int iovm_ioc_dev_stats(struct file *file, void *buf)
{
	struct iovm_dev_stats *stats = buf;
	struct iovm_dev *dev;

	if (stats->pad || !stats->name[0])
		return -EINVAL;
	dev = iovm_dev_find(stats->name, 0, NULL);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	iovm_dev_stats_fill(dev, stats);
	iovm_dev_release(dev);
	return 0;
}

static int iovm_ioc_path_add(struct file *file, void *buf)
{
	return iovm_path_add(buf);
}

static int iovm_ioc_path_remove(struct file *file, void *buf)
{
	return iovm_path_remove(buf);
}

static int iovm_ioc_path_get(struct file *file, void *buf)
{
	struct iovm_path_info *info = buf;
	struct iovm_path *path;
	struct iovm_dev *dev;

	if (!info->dev[0] || (info->name[0] && !iovm_name_valid(info->name)))
		return -EINVAL;
	dev = iovm_dev_find(info->dev, 0, NULL);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	path = iovm_path_find(dev, info->name, info->id);
	if (path)
		iovm_path_info_fill(path, info);
	iovm_dev_release(dev);
	return path ? 0 : -ENOENT;
}

static int iovm_ioc_path_connect(struct file *file, void *buf)
{
	return iovm_path_connect(buf);
}

static int iovm_ioc_path_ctl(struct file *file, void *buf)
{
	return iovm_path_ctl(buf);
}

static int iovm_ioc_path_stats(struct file *file, void *buf)
{
	struct iovm_path_stats *stats = buf;
	struct iovm_path *path;
	struct iovm_dev *dev;

	if (stats->pad || !stats->dev[0] || !iovm_name_valid(stats->name))
		return -EINVAL;
	dev = iovm_dev_find(stats->dev, 0, NULL);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	path = iovm_path_find(dev, stats->name, 0);
	if (path)
		iovm_path_stats_fill(path, stats);
	iovm_dev_release(dev);
	return path ? 0 : -ENOENT;
}

static int iovm_ioc_events_from(struct file *file, void *buf)
{
	return iovm_reader_from(file->private_data, buf);
}

/**
 * struct iovm_ioc - an ioctl
 * @cmd: IOVM_*
 * @min: size of the struct in the first version of this ABI
 * @size: its size now
 * @msg: offset of its msg, 0 when it has none
 * @fn: does it; on return the struct is written back, whatever it returned
 */
struct iovm_ioc {
	unsigned int cmd;
	u32 min;
	u32 size;
	u32 msg;
	int (*fn)(struct file *file, void *buf);
};

#define IOC(_cmd, _type, _last, _fn) \
	{ .cmd = _cmd, .min = offsetofend(struct _type, _last), .size = sizeof(struct _type), .fn = _fn }
#define IOC_MSG(_cmd, _type, _fn) \
	{ .cmd = _cmd, .min = offsetofend(struct _type, msg), .size = sizeof(struct _type), \
	  .msg = offsetof(struct _type, msg), .fn = _fn }

static const struct iovm_ioc iovm_iocs[] = {
	IOC(IOVM_GET_VERSION, iovm_version, release, iovm_get_version),
	IOC_MSG(IOVM_DEV_CREATE, iovm_dev_create, iovm_ioc_dev_create),
	IOC_MSG(IOVM_DEV_DESTROY, iovm_dev_destroy, iovm_ioc_dev_destroy),
	IOC(IOVM_DEV_GET, iovm_dev_info, mem_bytes, iovm_ioc_dev_get),
	IOC_MSG(IOVM_DEV_CTL, iovm_dev_ctl, iovm_ioc_dev_ctl),
	IOC(IOVM_DEV_STATS, iovm_dev_stats, pause_max_ns, iovm_ioc_dev_stats),
	IOC_MSG(IOVM_PATH_ADD, iovm_path_add, iovm_ioc_path_add),
	IOC_MSG(IOVM_PATH_REMOVE, iovm_path_remove, iovm_ioc_path_remove),
	IOC(IOVM_PATH_GET, iovm_path_info, nbd_flags, iovm_ioc_path_get),
	IOC_MSG(IOVM_PATH_CONNECT, iovm_path_connect, iovm_ioc_path_connect),
	IOC_MSG(IOVM_PATH_CTL, iovm_path_ctl, iovm_ioc_path_ctl),
	IOC(IOVM_PATH_STATS, iovm_path_stats, lat_ns, iovm_ioc_path_stats),
	IOC(IOVM_EVENTS_FROM, iovm_events_from, newest, iovm_ioc_events_from),
};

static int iovm_ioctl_run(struct file *file, const struct iovm_ioc *ioc, void __user *uarg)
{
	u32 usize, n;
	void *buf;
	int err;

	if (get_user(usize, (u32 __user *)uarg))
		return -EFAULT;
	if (usize < ioc->min)
		return -EINVAL;
	if (usize > PAGE_SIZE)
		return -E2BIG;
	buf = kzalloc(ioc->size, GFP_KERNEL_ACCOUNT);
	if (!buf)
		return -ENOMEM;
	err = copy_struct_from_user(buf, ioc->size, uarg, usize);
	if (err)
		goto out;
	n = min(usize, ioc->size);
	*(u32 *)buf = n;
	if (ioc->msg)
		memset(buf + ioc->msg, 0, IOVM_MSG_MAX);

	err = ioc->fn(file, buf);
	if (ioc->msg && !err)
		memset(buf + ioc->msg, 0, IOVM_MSG_MAX);
	if (copy_to_user(uarg, buf, n) && !err)
		err = -EFAULT;
out:
	kfree(buf);
	return err;
}

static long iovm_control_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	unsigned int i;

	if (!capable(CAP_NET_ADMIN))
		return -EPERM;
	for (i = 0; i < ARRAY_SIZE(iovm_iocs); i++)
		if (iovm_iocs[i].cmd == cmd)
			return iovm_ioctl_run(file, &iovm_iocs[i], (void __user *)arg);
	return -ENOTTY;
}

static int iovm_control_open(struct inode *inode, struct file *file)
{
	if (!capable(CAP_NET_ADMIN))
		return -EPERM;
	file->private_data = iovm_reader_new();
	if (!file->private_data)
		return -ENOMEM;
	return stream_open(inode, file);
}

static int iovm_control_release(struct inode *inode, struct file *file)
{
	iovm_reader_free(file->private_data);
	return 0;
}

static ssize_t iovm_control_read(struct file *file, char __user *buf, size_t len, loff_t *pos)
{
	return iovm_reader_read(file->private_data, file, buf, len);
}

static __poll_t iovm_control_poll(struct file *file, struct poll_table_struct *wait)
{
	return iovm_reader_poll(file->private_data, file, wait);
}

static const struct file_operations iovm_control_fops = {
	.owner = THIS_MODULE,
	.open = iovm_control_open,
	.release = iovm_control_release,
	.read = iovm_control_read,
	.poll = iovm_control_poll,
	.unlocked_ioctl = iovm_control_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice iovm_control = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "iovm-mux",
	.mode = 0600,
	.fops = &iovm_control_fops,
};

int iovm_control_init(void)
{
	return misc_register(&iovm_control);
}

void iovm_control_exit(void)
{
	misc_deregister(&iovm_control);
}
