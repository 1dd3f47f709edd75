// SPDX-License-Identifier: GPL-2.0
/*
 * Paths as the operator sees them: add, connect, remove; fail, probe, fence.
 *
 * A path goes in these steps: marked as leaving (nothing new is routed there) - what is in flight
 * ends - what was acknowledged is made stable - taken out of the list, under dev->lock and only if
 * still nothing is in flight - a grace period - the path type's part - memory.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "internal.h"

#define IOVM_HEARTBEAT_MS	1000
#define IOVM_DEAD_MS		5000
#define IOVM_PATH_F_CACHE	(IOVM_PATH_F_CACHE_SURVIVES | IOVM_PATH_F_CACHE_DIES)
#define IOVM_IO_TIMEOUT_MS	10000
#define IOVM_IO_TIMEOUT_MIN_MS	20

static void iovm_path_probe_work(struct work_struct *work);

/* dev->mutex. By name, or when that is empty the path with the lowest id that is not below @id. */
struct iovm_path *iovm_path_find(struct iovm_dev *dev, const char *name, u32 id)
{
	struct iovm_path *path, *best = NULL;

	lockdep_assert_held(&dev->mutex);
	list_for_each_entry(path, &dev->paths, node) {
		if (name[0]) {
			if (!strncmp(path->name, name, IOVM_NAME_MAX))
				return path;
		} else if (path->id >= id && (!best || path->id < best->id)) {
			best = path;
		}
	}
	return best;
}

/* Both by name; dev->mutex is held on success. */
static struct iovm_path *iovm_path_get(const char *devname, const char *name, char *msg)
{
	struct iovm_path *path;
	struct iovm_dev *dev;

	if (!devname[0] || !iovm_name_valid(name))
		return ERR_PTR(iovm_refuse(-EINVAL, msg,
					   devname[0] ? "not a path name" : "no device is named"));
	dev = iovm_dev_find(devname, 0, msg);
	if (IS_ERR(dev))
		return ERR_CAST(dev);
	path = iovm_path_find(dev, name, 0);
	if (!path) {
		iovm_refuse(-ENOENT, msg, "device %s has no path %s", dev->name, name);
		iovm_dev_release(dev);
		return ERR_PTR(-ENOENT);
	}
	return path;
}

static int iovm_path_check(struct iovm_path_add *arg)
{
	bool nbd = arg->type == IOVM_PATH_NBD;
	int err;

	if (!iovm_name_valid(arg->name))
		return iovm_refuse_name(arg->msg);
	if (arg->pad)
		return iovm_refuse(-EINVAL, arg->msg, IOVM_BAD_PAD);
	if (!memchr(arg->addr, 0, sizeof(arg->addr)))
		return iovm_refuse(-EINVAL, arg->msg, "the address is too long");
	if (arg->flags & ~IOVM_PATH_F_ALL)
		return iovm_refuse(-EINVAL, arg->msg, "unknown flag");
	if ((arg->flags & IOVM_PATH_F_CACHE) == IOVM_PATH_F_CACHE)
		return iovm_refuse(-EINVAL, arg->msg, "a cache cannot both survive and die");
	if (arg->flags & IOVM_PATH_F_SHARED && nbd)
		return iovm_refuse(-EINVAL, arg->msg, "an nbd path has no block device to share");
	if (arg->flags & IOVM_PATH_F_SHARED && arg->fence_by == IOVM_FENCE_BY_RESERVATION)
		return iovm_refuse(-EINVAL, arg->msg,
				   "one host has one reservation key at a disk: no sharing with it");
	if (arg->fence > IOVM_FENCE_EPOCH)
		return iovm_refuse(-EINVAL, arg->msg, "unknown fence");
	if (!nbd && arg->fence == IOVM_FENCE_EPOCH)
		return iovm_refuse(-EINVAL, arg->msg, "a fence by epoch is an NBD server's");
	if (arg->io_timeout_ms != IOVM_NO_TIMEOUT && arg->io_timeout_ms &&
	    (arg->io_timeout_ms < IOVM_IO_TIMEOUT_MIN_MS || arg->io_timeout_ms > IOVM_MS_MAX))
		return iovm_refuse(-EINVAL, arg->msg,
				   "the I/O time-out is between %u ms and an hour, or none",
				   IOVM_IO_TIMEOUT_MIN_MS);
	if (nbd && arg->fence == IOVM_FENCE_LOCAL_ERROR)
		return iovm_refuse(-EINVAL, arg->msg,
				   "a lost connection does not end what was sent: no local-error");
	if (arg->heartbeat_ms > IOVM_MS_MAX || arg->dead_ms > IOVM_MS_MAX)
		return iovm_refuse(-EINVAL, arg->msg, "heartbeat and time-out are at most an hour");
	err = iovm_identity_check(arg->identity, arg->msg);
	if (err)
		return err;
	if (arg->flags & IOVM_PATH_F_IDENTITY_GIVEN && !arg->identity[0])
		return iovm_refuse(-EINVAL, arg->msg, "no identity is given");

	if (!(arg->flags & IOVM_PATH_F_CACHE))
		arg->flags |= nbd ? IOVM_PATH_F_CACHE_DIES : IOVM_PATH_F_CACHE_SURVIVES;
	if (!arg->fence)
		arg->fence = nbd ? IOVM_FENCE_NONE : IOVM_FENCE_LOCAL_ERROR;
	if (!arg->heartbeat_ms)
		arg->heartbeat_ms = IOVM_HEARTBEAT_MS;
	if (!arg->dead_ms)
		arg->dead_ms = IOVM_DEAD_MS;
	if (!arg->io_timeout_ms)
		arg->io_timeout_ms = IOVM_IO_TIMEOUT_MS;
	return iovm_fence_check(arg);
}

static void iovm_path_free(struct iovm_path *path)
{
	free_percpu(path->pcpu);
	kfree(path->drift);
	kfree(path);
}

static struct iovm_path *iovm_path_alloc(struct iovm_dev *dev, const struct iovm_path_ops *ops,
					 const struct iovm_path_add *arg)
{
	struct iovm_path *path = kzalloc(sizeof(*path), GFP_KERNEL_ACCOUNT), *other;
	unsigned long slots = 0;

	if (!path)
		return NULL;
	path->pcpu = alloc_percpu_gfp(struct iovm_path_pcpu, GFP_KERNEL_ACCOUNT);
	path->drift = iovm_slow_alloc();
	if (!path->pcpu || !path->drift) {
		iovm_path_free(path);
		return NULL;
	}
	list_for_each_entry(other, &dev->paths, node)
		slots |= BIT(other->slot);
	path->slot = ffz(slots);
	path->id = dev->next_path_id++;
	path->ops = ops;
	path->dev = dev;
	memcpy(path->name, arg->name, sizeof(path->name));
	memcpy(path->addr, arg->addr, sizeof(path->addr));
	path->fence = arg->fence;
	path->flags = arg->flags;
	path->heartbeat_ms = arg->heartbeat_ms;
	path->dead_ms = arg->dead_ms;
	path->io_timeout_ms = arg->io_timeout_ms;
	path->fence_by = arg->fence_by;
	path->pr_key = arg->pr_key;
	path->fence_after_ms = arg->fence_after_ms;
	memcpy(path->fence_command, arg->fence_command, sizeof(path->fence_command));
	path->state = IOVM_PATH_CONNECTING;
	path->state_ns = ktime_get_ns();
	path->in_connect = true;
	INIT_LIST_HEAD(&path->node);
	INIT_LIST_HEAD(&path->held);
	INIT_WORK(&path->fail_work, iovm_fail_work);
	INIT_WORK(&path->probe_work, iovm_path_probe_work);
	return path;
}

static int iovm_path_add_to(struct iovm_dev *dev, const struct iovm_path_ops *ops,
			    struct iovm_path_add *arg)
{
	struct iovm_todo todo;
	struct iovm_path *path;
	int ret;

	iovm_todo_init(&todo);
	if (ops->class != dev->class->paths)
		return iovm_refuse(-EINVAL, arg->msg, "a %s path does not fit a device of class %s",
				   ops->name, dev->class->name);
	if (iovm_path_find(dev, arg->name, 0))
		return iovm_refuse(-EEXIST, arg->msg, "device %s has a path %s already", dev->name,
				   arg->name);
	if (dev->nr_paths >= IOVM_MAX_PATHS)
		return iovm_refuse(-ENOSPC, arg->msg, "device %s has %u paths already", dev->name,
				   IOVM_MAX_PATHS);
	list_for_each_entry(path, &dev->paths, node)
		if (arg->pr_key && arg->pr_key == path->pr_key)
			return iovm_refuse(-EINVAL, arg->msg, "path %s has this reservation key",
					   path->name);
	path = iovm_path_alloc(dev, ops, arg);
	if (!path)
		return -ENOMEM;
	/* what has to be connected shows it then, if not now */
	if (!ops->connect || arg->identity[0])
		ret = iovm_identity_admit(path, arg->identity, arg->msg);
	else
		ret = 0;
	if (!ret)
		ret = ops->add(path, arg, arg->msg);
	if (ret < 0) {
		iovm_path_free(path);
		return ret;
	}
	iovm_identity_take(path, arg->identity);

	spin_lock_irq(&dev->lock);
	list_add_tail(&path->node, &dev->paths);
	WRITE_ONCE(dev->nr_paths, dev->nr_paths + 1);
	iovm_event_emit(dev, path, IOVM_EV_PATH_ADDED, 0, 0, 0, 0);
	path->in_connect = false;
	iovm_hang_arm(dev);
	iovm_slow_arm(dev);
	if (path->connect_error)
		iovm_path_error(path, path->connect_error, &todo);
	else if (ret == IOVM_ADD_LIVE)
		iovm_path_set_state(path, IOVM_PATH_LIVE, 0, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	arg->id = path->id;
	return 0;
}

int iovm_path_add(struct iovm_path_add *arg)
{
	const struct iovm_path_ops *ops;
	struct iovm_dev *dev;
	int err;

	err = iovm_path_check(arg);
	if (err)
		return err;
	if (!arg->dev[0])
		return iovm_refuse(-EINVAL, arg->msg, "no device is named");
	ops = iovm_path_type_get(arg->type);
	if (!ops)
		return iovm_refuse(-ENODEV, arg->msg, "no module for path type %u is loaded",
				   arg->type);
	dev = iovm_dev_find(arg->dev, 0, arg->msg);
	if (IS_ERR(dev)) {
		err = PTR_ERR(dev);
	} else {
		err = iovm_path_add_to(dev, ops, arg);
		iovm_dev_release(dev);
	}
	if (err)
		module_put(ops->owner);
	return err;
}

int iovm_path_connect(struct iovm_path_connect *arg)
{
	struct iovm_todo todo;
	struct iovm_path *path;
	struct iovm_dev *dev;
	int err;

	iovm_todo_init(&todo);
	if (!arg->nr_fds || arg->nr_fds > IOVM_MAX_SOCKETS)
		return iovm_refuse(-EINVAL, arg->msg, "between 1 and %u sockets", IOVM_MAX_SOCKETS);
	err = iovm_identity_check(arg->identity, arg->msg);
	if (err)
		return err;
	path = iovm_path_get(arg->dev, arg->name, arg->msg);
	if (IS_ERR(path))
		return PTR_ERR(path);
	dev = path->dev;

	if (!path->ops->connect) {
		err = iovm_refuse(-EOPNOTSUPP, arg->msg, "a %s path is not connected to",
				  path->ops->name);
		goto out;
	}
	if (arg->flags & IOVM_NBD_F_REPLACE) {
		err = iovm_path_replace(path, arg, arg->msg);
		goto out;
	}
	if (arg->flags & IOVM_NBD_F_DRAINED && path->fence != IOVM_FENCE_EPOCH) {
		err = iovm_refuse(-EINVAL, arg->msg,
				  "the fence of path %s is not by epoch: nothing drains its sessions",
				  path->name);
		goto out;
	}
	spin_lock_irq(&dev->lock);
	err = 0;
	if (path->removing || path->probing || iovm_path_is_fencing(path) ||
	    (path->state != IOVM_PATH_CONNECTING && path->state != IOVM_PATH_FAILED)) {
		err = -EBUSY;
	} else {
		path->in_connect = true;
		path->connect_error = 0;
	}
	spin_unlock_irq(&dev->lock);
	if (err) {
		iovm_refuse(err, arg->msg, "path %s is neither connecting nor failed, or leaves",
			    path->name);
		goto out;
	}

	flush_work(&path->fail_work);
	/* what that ended is the old connection: its end is no error of the new one */
	spin_lock_irq(&dev->lock);
	path->connect_error = 0;
	spin_unlock_irq(&dev->lock);
	/* true whatever becomes of the new connection */
	if (arg->flags & IOVM_NBD_F_DRAINED)
		iovm_path_drained(path);
	err = iovm_identity_connect(path, arg->identity, arg->msg);
	if (!err)
		err = path->ops->connect(path, arg, arg->msg);
	if (!err)
		iovm_identity_take(path, arg->identity);

	spin_lock_irq(&dev->lock);
	path->in_connect = false;
	if (!err && path->connect_error) {
		/* it broke while it was set up: fail() has to take it down again */
		err = path->connect_error;
		if (path->state == IOVM_PATH_FAILED)
			queue_work(iovm_wq, &path->fail_work);
		else
			iovm_path_error(path, err, &todo);
		iovm_refuse(err, arg->msg, "the connection broke at once");
	} else if (!err) {
		iovm_path_set_state(path, IOVM_PATH_LIVE, 0, &todo);
	}
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
out:
	iovm_dev_release(dev);
	return err;
}

/*
 * The end of a path that is in state removed, out of the list, and has nothing in flight.
 * dev->mutex is held, dev->lock is not. Nobody can find it any more: the RCU readers that still
 * might are waited for; the path type's own contexts end in ops->remove().
 */
void iovm_path_destroy(struct iovm_path *path)
{
	const struct iovm_path_ops *ops = path->ops;

	synchronize_rcu();
	/* it has ended, but for its last instructions */
	flush_work(&path->probe_work);
	flush_work(&path->fail_work);
	ops->remove(path);
	iovm_event_emit(path->dev, path, IOVM_EV_PATH_REMOVED, 0, 0, 0, 0);
	iovm_path_free(path);
	module_put(ops->owner);
}

/* dev->lock. */
static bool iovm_path_wants_probe(struct iovm_path *path)
{
	lockdep_assert_held(&path->dev->lock);
	return path->state == IOVM_PATH_FAILED && path->ops->probe && !path->by_hand &&
	       !path->removing;
}

/* Writes that a path's removal would leave unsettled. dev->lock. */
static u32 iovm_path_unsettled(const struct iovm_path *path)
{
	u32 n = path->nr_held + path->nr_bound;

	lockdep_assert_held(&path->dev->lock);
	/* where an epoch is given up later, it counts what became of those that nobody waits for */
	if (!n && path->dev->flags & IOVM_DEV_F_EPOCH)
		n = path->in_doubt;
	return n;
}

static int iovm_refuse_waiting(struct iovm_path *path, u32 n, char *msg)
{
	if (!(path->nr_held + path->nr_bound))
		return iovm_refuse(-EBUSY, msg,
				   "writes may still land on path %s: fail it and confirm its fence, or use force",
				   path->name);
	return iovm_refuse(-EBUSY, msg,
			   "%u writes wait for the fence of path %s: confirm it, or use force",
			   n, path->name);
}

/*
 * The drained path's last steps, up to state removed. dev->mutex is held.
 * Return: 0; -EAGAIN when its flush has begun, or something came in between, and has to be waited
 * for; or why it stays.
 */
static int iovm_path_take_out(struct iovm_path *path, bool force, char *msg)
{
	struct iovm_todo todo;
	struct iovm_dev *dev = path->dev;
	int err = 0;

	iovm_todo_init(&todo);
	flush_work(&path->fail_work);
	if (!force) {
		if (iovm_path_flush(path))
			return -EAGAIN;
		err = iovm_path_flush_failed(path, msg);
		if (err)
			return err;
	}

	spin_lock_irq(&dev->lock);
	if (iovm_path_inflight(path)) {
		/* what is bound to it is routed under dev->lock */
		err = -EAGAIN;
	} else if (!force && iovm_path_unsettled(path)) {
		err = iovm_refuse_waiting(path, iovm_path_unsettled(path), msg);
	} else {
		/*
		 * by force: to the guest as errors, never issued elsewhere; those the class has,
		 * in iovm_req_route()
		 */
		iovm_held_fail(dev, path, &todo);
		WARN_ON_ONCE(!iovm_path_set_state(path, IOVM_PATH_REMOVED, 0, &todo));
		todo.wake = true;
	}
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	return err;
}

int iovm_path_remove(struct iovm_path_remove *arg)
{
	bool force = arg->flags & IOVM_PATH_REMOVE_F_FORCE;
	struct iovm_todo todo;
	struct iovm_path *path;
	struct iovm_dev *dev;
	u32 waiting = 0;
	bool busy;
	int err;

	iovm_todo_init(&todo);
	if (arg->flags & ~IOVM_PATH_REMOVE_F_FORCE)
		return iovm_refuse(-EINVAL, arg->msg, "unknown flag");
	path = iovm_path_get(arg->dev, arg->name, arg->msg);
	if (IS_ERR(path))
		return PTR_ERR(path);
	dev = path->dev;

	spin_lock_irq(&dev->lock);
	if (force) {
		/* also when somebody waits for its requests already: that is how he is helped */
		path->by_hand = true;
		iovm_path_error(path, 0, &todo);
	} else {
		waiting = iovm_path_unsettled(path);
		if (!waiting && !path->removing)
			iovm_path_set_state(path, IOVM_PATH_DRAINING, 0, &todo);
	}
	busy = path->removing;
	/* with the state: a probe that succeeds just now finds either */
	if (!waiting)
		path->removing = true;
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	if (busy) {
		err = iovm_refuse(-EBUSY, arg->msg, "path %s is just being removed", path->name);
		goto out;
	}
	if (waiting) {
		err = iovm_refuse_waiting(path, waiting, arg->msg);
		goto out;
	}

	do {
		/*
		 * not under the mutex: what it waits for must be visible; ->removing keeps the
		 * path
		 */
		mutex_unlock(&dev->mutex);
		err = iovm_dev_drain(dev, path);
		mutex_lock(&dev->mutex);
		if (err) {
			iovm_refuse(err, arg->msg, "interrupted; path %s takes nothing new",
				    path->name);
			break;
		}
		err = iovm_path_take_out(path, force, arg->msg);
	} while (err == -EAGAIN);

	if (err) {
		spin_lock_irq(&dev->lock);
		path->removing = false;
		if (iovm_path_wants_probe(path))
			iovm_probe_arm(dev);
		spin_unlock_irq(&dev->lock);
	} else {
		iovm_path_destroy(path);
	}
out:
	iovm_dev_release(dev);
	return err;
}

/*
 * @path is about to be probed or measured: it stays, and so does the device, until
 * iovm_probing_end(). dev->lock.
 */
void iovm_probing_begin(struct iovm_path *path)
{
	lockdep_assert_held(&path->dev->lock);
	WRITE_ONCE(path->probing, true);
	WRITE_ONCE(path->dev->nr_probing, path->dev->nr_probing + 1);
}

/* From the end of the section on the path may go; the device too, unless there is a reference. */
void iovm_probing_end(struct iovm_path *path)
{
	struct iovm_dev *dev = path->dev;

	lockdep_assert_held(&dev->lock);
	WRITE_ONCE(path->probing, false);
	WRITE_ONCE(dev->nr_probing, dev->nr_probing - 1);
	wake_up(&dev->wait);
}

/*
 * May @path be probed? Then the probe has begun. *@by_hand: it was failed so; NULL: nobody asks for
 * it, and it may not. dev->mutex.
 */
static int iovm_path_probe_begin(struct iovm_path *path, bool *by_hand)
{
	struct iovm_dev *dev = path->dev;
	int err = 0;

	lockdep_assert_held(&dev->mutex);
	spin_lock_irq(&dev->lock);
	if (path->probing || path->removing || path->in_connect ||
	    path->state != IOVM_PATH_FAILED || iovm_path_is_fencing(path))
		err = -EBUSY;
	else if (path->pr_key && iovm_path_inflight(path))
		/* with its key it could land */
		err = -EBUSY;
	else if (!by_hand && path->by_hand)
		err = -EBUSY;
	if (!err) {
		iovm_probing_begin(path);
		/* not any more, unless the operator says so again meanwhile */
		if (by_hand)
			*by_hand = path->by_hand;
		path->by_hand = false;
	}
	spin_unlock_irq(&dev->lock);
	return err;
}

/*
 * Does a failed path serve again? The probe has begun, and has ended when this returns: the path
 * may be gone by then. It may take as long as the device likes. No lock is held, and none but
 * dev->lock may be taken: the path's end waits for this.
 */
static int iovm_path_probe(struct iovm_path *path, bool by_hand)
{
	struct iovm_todo todo;
	struct iovm_dev *dev = path->dev;
	int err;

	iovm_todo_init(&todo);
	flush_work(&path->fail_work);
	err = path->ops->probe(path);

	spin_lock_irq(&dev->lock);
	if (err)
		path->by_hand |= by_hand;
	else if (path->by_hand || path->removing || dev->dead)
		err = -ECANCELED;
	else
		iovm_path_set_state(path, IOVM_PATH_LIVE, 0, &todo);
	spin_unlock_irq(&dev->lock);
	/* with the class's part, which ->probing keeps, too */
	iovm_todo_run(dev, &todo);
	spin_lock_irq(&dev->lock);
	if (iovm_path_wants_probe(path))
		iovm_probe_arm(dev);
	iovm_probing_end(path);
	spin_unlock_irq(&dev->lock);
	return err;
}

static void iovm_path_probe_work(struct work_struct *work)
{
	iovm_path_probe(container_of(work, struct iovm_path, probe_work), false);
}

/* Each path by a work of its own: one whose device hangs holds up no other. */
void iovm_probe_work(struct work_struct *work)
{
	struct iovm_dev *dev = container_of(to_delayed_work(work), struct iovm_dev, probe_work);
	struct iovm_path *path;
	bool again = false, wants;

	mutex_lock(&dev->mutex);
	if (dev->dead)
		goto out;
	list_for_each_entry(path, &dev->paths, node) {
		spin_lock_irq(&dev->lock);
		wants = iovm_path_wants_probe(path);
		spin_unlock_irq(&dev->lock);
		if (!wants)
			continue;
		/* what hangs there still hangs, whatever a probe would say */
		if (iovm_path_inflight(path) || iovm_path_probe_begin(path, NULL))
			again = true;
		else
			queue_work(system_unbound_wq, &path->probe_work);
	}
	spin_lock_irq(&dev->lock);
	if (again)
		iovm_probe_arm(dev);
	spin_unlock_irq(&dev->lock);
out:
	mutex_unlock(&dev->mutex);
}

/* The operator wants it back. dev->mutex is held, and dropped for the probe itself. */
static int iovm_path_retry(struct iovm_path *path, char *msg)
{
	struct iovm_dev *dev = path->dev;
	bool by_hand;
	int err;

	if (!path->ops->probe)
		return iovm_refuse(-EOPNOTSUPP, msg, "a %s path comes back when it is connected",
				   path->ops->name);
	err = iovm_path_probe_begin(path, &by_hand);
	if (err)
		return iovm_refuse(err, msg,
				   "path %s is not failed, or is just being probed or fenced",
				   path->name);
	mutex_unlock(&dev->mutex);
	err = iovm_path_probe(path, by_hand);
	mutex_lock(&dev->mutex);
	if (err == -ECANCELED)
		iovm_refuse(err, msg, "it was failed or removed meanwhile");
	else if (err)
		iovm_refuse(err, msg, "it does not answer as it should (error %d)", err);
	return err;
}

static int iovm_path_fail_by_hand(struct iovm_path *path, char *msg)
{
	struct iovm_todo todo;
	struct iovm_dev *dev = path->dev;

	iovm_todo_init(&todo);
	if (path->removing)
		return iovm_refuse(-EBUSY, msg, "path %s is just being removed", path->name);
	spin_lock_irq(&dev->lock);
	path->by_hand = true;
	iovm_path_error(path, 0, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
	return 0;
}

/* What is not for this operation is 0. */
static bool iovm_path_ctl_valid(const struct iovm_path_ctl *arg)
{
	if (arg->pad)
		return false;
	if (arg->op != IOVM_PATH_CTL_FENCE_FAILED && arg->status)
		return false;
	if (arg->op != IOVM_PATH_CTL_FENCED && arg->op != IOVM_PATH_CTL_FENCE_FAILED &&
	    (arg->id || arg->generation))
		return false;
	return arg->op == IOVM_PATH_CTL_SET_FENCE ||
	       (!arg->fence_by && !arg->fence_after_ms && !arg->fence_command[0]);
}

int iovm_path_ctl(struct iovm_path_ctl *arg)
{
	struct iovm_path *path;
	struct iovm_dev *dev;
	int err;

	if (!arg->op || arg->op > IOVM_PATH_CTL_SET_FENCE)
		return iovm_refuse(-EINVAL, arg->msg, "unknown operation %u", arg->op);
	if (!iovm_path_ctl_valid(arg))
		return iovm_refuse(-EINVAL, arg->msg, "a field that means nothing here is not 0");
	path = iovm_path_get(arg->dev, arg->name, arg->msg);
	if (IS_ERR(path))
		return PTR_ERR(path);
	dev = path->dev;
	switch (arg->op) {
	case IOVM_PATH_CTL_FAIL:
		err = iovm_path_fail_by_hand(path, arg->msg);
		break;
	case IOVM_PATH_CTL_RETRY:
		err = iovm_path_retry(path, arg->msg);
		break;
	case IOVM_PATH_CTL_FENCED:
		err = iovm_path_fenced(path, arg, arg->msg);
		break;
	case IOVM_PATH_CTL_FENCE_FAILED:
		err = iovm_path_fence_failed(path, arg, arg->msg);
		break;
	default:
		err = iovm_path_set_fence(path, arg, arg->msg);
		break;
	}
	iovm_dev_release(dev);
	return err;
}
