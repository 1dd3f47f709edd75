// SPDX-License-Identifier: GPL-2.0
/*
 * A path that is live gets other sockets to the same data, and stays live: its keys wear out, or
 * its certificates were changed. What is in flight ends where it is. The path's generation stays:
 * nothing came back from it, and nothing has to be fenced.
 */
#include "internal.h"

/* It must show what it showed when it was connected, whatever the operator has said of it. */
static int iovm_same_identity(const struct iovm_path *path, const char *id, char *msg)
{
	lockdep_assert_held(&path->dev->mutex);
	if (!strcmp(path->identity, id))
		return 0;
	return iovm_refuse(-EMEDIUMTYPE, msg, "path %.20s leads to %.64s, the new sockets to %.64s",
			   path->name, path->identity[0] ? path->identity : "data without identity",
			   id[0] ? id : "data without identity");
}

/* Is it there to be replaced? 0 or a negative errno. */
static int iovm_replaceable(struct iovm_path *path, char *msg)
{
	bool usable, removing;

	spin_lock_irq(&path->dev->lock);
	usable = iovm_state_usable(path->state);
	removing = path->removing;
	spin_unlock_irq(&path->dev->lock);
	if (removing)
		return iovm_refuse(-EBUSY, msg, "path %s is just being removed", path->name);
	if (!usable)
		return iovm_refuse(-ENOTCONN, msg, "path %s is not live: connect it", path->name);
	return 0;
}

/**
 * iovm_path_replace - IOVM_PATH_CONNECT with IOVM_NBD_F_REPLACE
 * @path: of a type that is connected to; dev->mutex is held
 * @arg: sockets, export and identity, which is valid
 * @msg: why not
 *
 * Return: 0, or a negative errno: all is as it was, but that the path may have failed by itself.
 */
int iovm_path_replace(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg)
{
	struct iovm_dev *dev = path->dev;
	int err;

	lockdep_assert_held(&dev->mutex);
	if (!path->ops->replace)
		return iovm_refuse(-EOPNOTSUPP, msg, "the sockets of a %s path cannot be replaced",
				   path->ops->name);
	if (arg->flags & IOVM_NBD_F_DRAINED)
		return iovm_refuse(-EINVAL, msg,
				   "sockets that are replaced are in use: nothing has drained them");
	err = iovm_replaceable(path, msg) ?: iovm_same_identity(path, arg->identity, msg) ?:
	      path->ops->replace(path, arg, msg);
	if (err)
		return err;

	spin_lock_irq(&dev->lock);
	/* once it has failed, only a connect makes it live, and that is kept out by dev->mutex */
	if (!iovm_state_usable(path->state)) {
		err = -ECONNABORTED;
	} else {
		path->replaced++;
		iovm_event_emit(dev, path, IOVM_EV_REPLACED, 0, 0, 0, path->replaced);
	}
	spin_unlock_irq(&dev->lock);
	if (err)
		iovm_refuse(err, msg, "path %s has failed meanwhile", path->name);
	return err;
}
