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
 * iovm_refuse - say why not
 * @err: negative errno
 * @msg: IOVM_MSG_MAX bytes, or NULL when nobody asks
 * @fmt: a sentence in plain ASCII
 *
 * Return: @err.
 */
int iovm_refuse(int err, char *msg, const char *fmt, ...)
{
	va_list args;

	if (msg) {
		va_start(args, fmt);
		vscnprintf(msg, IOVM_MSG_MAX, fmt, args);
		va_end(args);
	}
	return err;
}

/* What a name of something new has to look like. */
int iovm_refuse_name(char *msg)
{
	return iovm_refuse(-EINVAL, msg,
			   "a name has 1 to %u of A-Z a-z 0-9 . _ - and starts with neither . nor -",
			   IOVM_NAME_MAX - 1);
}

static int iovm_refuse_session(const struct iovm_dev *dev, char *msg)
{
	return iovm_refuse(-EOPNOTSUPP, msg, "%s is no target device: it has a node, not sessions",
			   dev->name);
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

	if (stats->pad)
		return -EINVAL;
	dev = iovm_dev_named(stats->name, NULL);
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

static int iovm_ioc_session_add(struct file *file, void *buf)
{
	struct iovm_session_add *arg = buf;
	struct iovm_dev *dev;
	int err;

	if (arg->flags & ~(IOVM_SESSION_F_RDONLY | IOVM_SESSION_F_TLS))
		return iovm_refuse(-EINVAL, arg->msg, "unknown flag");
	if (!arg->nr_fds || arg->nr_fds > IOVM_MAX_SOCKETS)
		return iovm_refuse(-EINVAL, arg->msg, "nr_fds is %u, it must be 1 to %u",
				   arg->nr_fds, IOVM_MAX_SOCKETS);
	if (strnlen(arg->peer, sizeof(arg->peer)) == sizeof(arg->peer))
		return iovm_refuse(-EINVAL, arg->msg, "peer has no closing NUL");
	dev = iovm_dev_named(arg->dev, arg->msg);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	if (!dev->class->session_add)
		err = iovm_refuse_session(dev, arg->msg);
	else if ((dev->flags & IOVM_DEV_F_RDONLY) && !(arg->flags & IOVM_SESSION_F_RDONLY))
		err = iovm_refuse(-EROFS, arg->msg, "%s is read-only, the session is not",
				  dev->name);
	else
		err = iovm_epoch_admits(dev, arg->epoch, arg->msg) ?:
		      dev->class->session_add(dev, arg);
	iovm_dev_release(dev);
	return err;
}

static int iovm_ioc_session_remove(struct file *file, void *buf)
{
	struct iovm_session_remove *arg = buf;
	struct iovm_dev *dev;
	int err;

	dev = iovm_dev_named(arg->dev, arg->msg);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	if (!dev->class->session_remove)
		err = iovm_refuse_session(dev, arg->msg);
	else
		err = dev->class->session_remove(dev, arg->id);
	if (err == -ENOENT)
		iovm_refuse(err, arg->msg, "%s has no session %u", dev->name, arg->id);
	iovm_dev_release(dev);
	return err;
}

static int iovm_ioc_session_get(struct file *file, void *buf)
{
	struct iovm_session_info *info = buf;
	struct iovm_dev *dev;
	int err = -EOPNOTSUPP;

	dev = iovm_dev_named(info->dev, NULL);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	if (dev->class->session_get)
		err = dev->class->session_get(dev, info);
	iovm_dev_release(dev);
	return err;
}

static int iovm_ioc_events_from(struct file *file, void *buf)
{
	return iovm_reader_from(file->private_data, buf);
}

/**
 * struct iovm_ioc - an ioctl
 * @cmd: IOVM_*
 * @size: of its struct
 * @min: size of the struct in the first version of this ABI
 * @msg: offset of its msg, 0 when it has none
 * @fn: does it; on return the struct is written back, whatever it returned
 */
struct iovm_ioc {
	unsigned int cmd;
	u32 size;
	u32 min;
	u32 msg;
	int (*fn)(struct file *file, void *buf);
};

static const struct iovm_ioc iovm_iocs[] = {
	{ IOVM_GET_VERSION, sizeof(struct iovm_version),
	  offsetofend(struct iovm_version, release), 0,
	  iovm_get_version },
	{ IOVM_DEV_CREATE, sizeof(struct iovm_dev_create),
	  offsetofend(struct iovm_dev_create, msg), offsetof(struct iovm_dev_create, msg),
	  iovm_ioc_dev_create },
	{ IOVM_DEV_DESTROY, sizeof(struct iovm_dev_destroy),
	  offsetofend(struct iovm_dev_destroy, msg), offsetof(struct iovm_dev_destroy, msg),
	  iovm_ioc_dev_destroy },
	{ IOVM_DEV_GET, sizeof(struct iovm_dev_info),
	  offsetofend(struct iovm_dev_info, mem_bytes), 0,
	  iovm_ioc_dev_get },
	{ IOVM_DEV_CTL, sizeof(struct iovm_dev_ctl),
	  offsetofend(struct iovm_dev_ctl, msg), offsetof(struct iovm_dev_ctl, msg),
	  iovm_ioc_dev_ctl },
	{ IOVM_DEV_STATS, sizeof(struct iovm_dev_stats),
	  offsetofend(struct iovm_dev_stats, pause_max_ns), 0,
	  iovm_ioc_dev_stats },
	{ IOVM_PATH_ADD, sizeof(struct iovm_path_add),
	  offsetofend(struct iovm_path_add, msg), offsetof(struct iovm_path_add, msg),
	  iovm_ioc_path_add },
	{ IOVM_PATH_REMOVE, sizeof(struct iovm_path_remove),
	  offsetofend(struct iovm_path_remove, msg), offsetof(struct iovm_path_remove, msg),
	  iovm_ioc_path_remove },
	{ IOVM_PATH_GET, sizeof(struct iovm_path_info),
	  offsetofend(struct iovm_path_info, nbd_flags), 0,
	  iovm_ioc_path_get },
	{ IOVM_PATH_CONNECT, sizeof(struct iovm_path_connect),
	  offsetofend(struct iovm_path_connect, msg), offsetof(struct iovm_path_connect, msg),
	  iovm_ioc_path_connect },
	{ IOVM_PATH_CTL, sizeof(struct iovm_path_ctl),
	  offsetofend(struct iovm_path_ctl, msg), offsetof(struct iovm_path_ctl, msg),
	  iovm_ioc_path_ctl },
	{ IOVM_PATH_STATS, sizeof(struct iovm_path_stats),
	  offsetofend(struct iovm_path_stats, lat_ns), 0,
	  iovm_ioc_path_stats },
	{ IOVM_SESSION_ADD, sizeof(struct iovm_session_add),
	  offsetofend(struct iovm_session_add, msg), offsetof(struct iovm_session_add, msg),
	  iovm_ioc_session_add },
	{ IOVM_SESSION_REMOVE, sizeof(struct iovm_session_remove),
	  offsetofend(struct iovm_session_remove, msg), offsetof(struct iovm_session_remove, msg),
	  iovm_ioc_session_remove },
	{ IOVM_SESSION_GET, sizeof(struct iovm_session_info),
	  offsetofend(struct iovm_session_info, mem_bytes), 0,
	  iovm_ioc_session_get },
	{ IOVM_EVENTS_FROM, sizeof(struct iovm_events_from),
	  offsetofend(struct iovm_events_from, newest), 0,
	  iovm_ioc_events_from },
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
