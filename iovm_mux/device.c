// SPDX-License-Identifier: GPL-2.0
/*
 * Devices: the table of all, creation and the end, and what the operator does to a device as a
 * whole.
 *
 * Lifetime. The table holds one reference, every control operation another while it runs; some of
 * these wait without dev->mutex, so that a device that waits can be looked at. iovm_dev_destroy()
 * sets ->dead under both locks: from then on iovm_dev_find() does not find it, timers are not
 * armed, waiters give up. Then timers are stopped, the paths go (which waits until nothing on the
 * data path touches them or the device), then the class's part, then the table's reference.
 */
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "internal.h"

static DEFINE_MUTEX(iovm_mux_mutex);			/* the table; outside dev->mutex */
static DEFINE_XARRAY_ALLOC1(iovm_devs);			/* id -> struct iovm_dev */
static u32 iovm_devs_next;
static unsigned int iovm_nr_devs;

static void iovm_dev_free(struct kref *ref)
{
	struct iovm_dev *dev = container_of(ref, struct iovm_dev, ref);

	free_percpu(dev->pcpu);
	kfree(dev);
}

static void iovm_dev_put(struct iovm_dev *dev)
{
	kref_put(&dev->ref, iovm_dev_free);
}

/* dev->mutex of a device that was found, and the reference. */
void iovm_dev_release(struct iovm_dev *dev)
{
	mutex_unlock(&dev->mutex);
	iovm_dev_put(dev);
}

/*
 * The device called @name, or when that is empty the one with the lowest id from @id on; NULL when
 * there is none.
 */
static struct iovm_dev *iovm_dev_lookup(const char *name, u32 id)
{
	struct iovm_dev *dev;
	unsigned long i;

	mutex_lock(&iovm_mux_mutex);
	xa_for_each_start(&iovm_devs, i, dev, id) {
		if (name[0] && strcmp(dev->name, name))
			continue;
		kref_get(&dev->ref);
		mutex_unlock(&iovm_mux_mutex);
		return dev;
	}
	mutex_unlock(&iovm_mux_mutex);
	return NULL;
}

/**
 * iovm_dev_find - find and lock a device
 * @name: IOVM_NAME_MAX bytes from user space; "" to go by id
 * @id: with an empty name: the device with the lowest id that is not below
 * @msg: why not
 *
 * Return: the device with dev->mutex held, to be given to iovm_dev_release(); or an ERR_PTR.
 */
struct iovm_dev *iovm_dev_find(const char *name, u32 id, char *msg)
{
	struct iovm_dev *dev;

	if (name[0]) {
		if (!iovm_name_valid(name))
			return ERR_PTR(iovm_refuse(-EINVAL, msg, "not a device name"));
		id = 0;
	}
	for (;;) {
		dev = iovm_dev_lookup(name, id);
		if (!dev)
			return ERR_PTR(iovm_refuse(-ENOENT, msg, "there is no %s%s",
						   name[0] ? "device " : "further device",
						   name));
		if (mutex_lock_killable(&dev->mutex)) {
			iovm_dev_put(dev);
			return ERR_PTR(-EINTR);
		}
		if (!dev->dead)
			return dev;
		id = dev->id + 1;
		iovm_dev_release(dev);
	}
}

/**
 * iovm_dev_named - likewise, but its name has to be given
 * @name: IOVM_NAME_MAX bytes from user space
 * @msg: why not, or NULL
 *
 * Return: as iovm_dev_find(), or -EINVAL.
 */
struct iovm_dev *iovm_dev_named(const char *name, char *msg)
{
	if (!name[0])
		return ERR_PTR(iovm_refuse(-EINVAL, msg, "no device is named"));
	return iovm_dev_find(name, 0, msg);
}

static struct iovm_dev *iovm_dev_alloc(const struct iovm_class *class,
				       const struct iovm_dev_create *arg)
{
	struct iovm_dev *dev = kzalloc(sizeof(*dev), GFP_KERNEL_ACCOUNT);

	if (!dev)
		return NULL;
	dev->pcpu = alloc_percpu_gfp(struct iovm_dev_pcpu, GFP_KERNEL_ACCOUNT);
	if (!dev->pcpu) {
		kfree(dev);
		return NULL;
	}
	dev->class = class;
	memcpy(dev->name, arg->name, sizeof(dev->name));
	dev->flags = arg->flags;
	mutex_init(&dev->mutex);
	spin_lock_init(&dev->lock);
	dev->epoch = arg->epoch;
	spin_lock_irq(&dev->lock);
	dev->state = iovm_derive_state(false, false, iovm_dev_lacks_epoch(dev), false);
	spin_unlock_irq(&dev->lock);
	INIT_LIST_HEAD(&dev->paths);
	dev->next_path_id = 1;
	dev->last_route_id = IOVM_NO_ID;
	dev->parked_ns = ktime_get_ns();
	init_waitqueue_head(&dev->wait);
	dev->no_path_timeout_ms = arg->no_path_timeout_ms;
	dev->failback_after_ms = arg->failback_after_ms;
	dev->iops = arg->iops;
	dev->bps = arg->bps;
	INIT_LIST_HEAD(&dev->retry);
	INIT_DELAYED_WORK(&dev->retry_work, iovm_retry_work);
	memcpy(dev->identity, arg->identity, sizeof(dev->identity));
	INIT_LIST_HEAD(&dev->nospc);
	dev->no_space_timeout_ms = arg->no_space_timeout_ms;
	INIT_DELAYED_WORK(&dev->nospc_work, iovm_nospc_work);
	INIT_DELAYED_WORK(&dev->no_path_work, iovm_no_path_work);
	INIT_DELAYED_WORK(&dev->failback_work, iovm_failback_work);
	INIT_DELAYED_WORK(&dev->probe_work, iovm_probe_work);
	INIT_DELAYED_WORK(&dev->fence_work, iovm_fence_work);
	INIT_DELAYED_WORK(&dev->hang_work, iovm_hang_work);
	dev->slow_factor = arg->slow_factor ?: IOVM_SLOW_FACTOR;
	dev->leave_slow_ms = arg->leave_slow_after_ms;
	INIT_DELAYED_WORK(&dev->slow_work, iovm_slow_work);
	kref_init(&dev->ref);
	return dev;
}

/* Into the table, with dev->mutex held on success: whoever finds it waits until it is complete. */
static int iovm_dev_insert(struct iovm_dev *dev, char *msg)
{
	struct iovm_dev *other;
	unsigned long i;
	int err;

	mutex_lock(&iovm_mux_mutex);
	xa_for_each(&iovm_devs, i, other) {
		if (!strcmp(other->name, dev->name)) {
			mutex_unlock(&iovm_mux_mutex);
			return iovm_refuse(-EEXIST, msg, "there is a device %s already", dev->name);
		}
	}
	if (iovm_nr_devs >= IOVM_MAX_DEVS) {
		mutex_unlock(&iovm_mux_mutex);
		return iovm_refuse(-ENOSPC, msg, "there are %u devices already", IOVM_MAX_DEVS);
	}
	err = xa_alloc_cyclic(&iovm_devs, &dev->id, dev, XA_LIMIT(1, INT_MAX), &iovm_devs_next,
			      GFP_KERNEL);
	if (err >= 0) {
		iovm_nr_devs++;
		mutex_lock(&dev->mutex);
		err = 0;
	}
	mutex_unlock(&iovm_mux_mutex);
	return err;
}

static void iovm_dev_erase(struct iovm_dev *dev)
{
	mutex_lock(&iovm_mux_mutex);
	xa_erase(&iovm_devs, dev->id);
	iovm_nr_devs--;
	mutex_unlock(&iovm_mux_mutex);
	iovm_dev_put(dev);
}

/* Times that are multiplied: a year is enough. */
static int iovm_ms_check(u64 ms, char *msg)
{
	if (ms <= 365 * 86400000ull)
		return 0;
	return iovm_refuse(-EINVAL, msg, "the time is longer than a year");
}

int iovm_dev_create(struct iovm_dev_create *arg)
{
	const struct iovm_class *class;
	struct iovm_dev *dev;
	int err;

	if (!iovm_name_valid(arg->name))
		return iovm_refuse_name(arg->msg);
	if (arg->flags & ~IOVM_DEV_F_ALL || arg->mode & ~0777u)
		return iovm_refuse(-EINVAL, arg->msg, "unknown flag or mode bit");
	if (arg->pad || arg->pad2)
		return iovm_refuse(-EINVAL, arg->msg, IOVM_BAD_PAD);
	err = iovm_identity_check(arg->identity, arg->msg);
	if (!err)
		err = iovm_slow_check(arg->slow_factor, arg->msg);
	if (!err)
		err = iovm_ms_check(arg->leave_slow_after_ms, arg->msg);
	if (!err)
		err = iovm_epoch_check(arg, arg->msg);
	if (err)
		return err;

	class = iovm_class_get(arg->class);
	if (!class)
		return iovm_refuse(-ENODEV, arg->msg, "no module for device class %u is loaded",
				   arg->class);
	dev = iovm_dev_alloc(class, arg);
	if (!dev) {
		err = -ENOMEM;
		goto out_class;
	}
	err = iovm_dev_insert(dev, arg->msg);
	if (err) {
		iovm_dev_put(dev);
		goto out_class;
	}
	err = class->create(dev, arg, arg->msg);
	if (err) {
		dev->dead = true;
		mutex_unlock(&dev->mutex);
		iovm_dev_erase(dev);
		goto out_class;
	}
	arg->id = dev->id;
	iovm_event_emit(dev, NULL, IOVM_EV_DEV_CREATED, 0, 0, 0, 0);
	spin_lock_irq(&dev->lock);
	iovm_no_path_arm(dev);
	spin_unlock_irq(&dev->lock);
	mutex_unlock(&dev->mutex);
	return 0;

out_class:
	module_put(class->owner);
	return err;
}

/* Takes the paths of a dead device. The class has ended every request. */
static void iovm_dev_remove_paths(struct iovm_dev *dev, bool force)
{
	struct iovm_todo todo;
	struct iovm_path *path, *next;

	iovm_todo_init(&todo);
	list_for_each_entry_safe(path, next, &dev->paths, node) {
		/* there may have been one more front end after iovm_dev_flush() */
		if (!force)
			iovm_path_flush(path);
		/* the last requests were completed, perhaps not yet counted */
		atomic_inc(&dev->drainers);
		synchronize_rcu();
		wait_event(dev->wait, !iovm_path_inflight(path));
		atomic_dec(&dev->drainers);

		spin_lock_irq(&dev->lock);
		if (WARN_ON_ONCE(path->nr_held))
			iovm_held_fail(dev, path, &todo);
		if (path->state != IOVM_PATH_FAILED)
			iovm_path_set_state(path, IOVM_PATH_DRAINING, 0, &todo);
		iovm_path_set_state(path, IOVM_PATH_REMOVED, 0, &todo);
		spin_unlock_irq(&dev->lock);
		iovm_path_destroy(path);
	}
	iovm_todo_run(dev, &todo);
}

/* A removal that waits keeps its path. */
static int iovm_dev_keeps_no_path(struct iovm_dev *dev, char *msg)
{
	struct iovm_path *path;

	list_for_each_entry(path, &dev->paths, node)
		if (path->removing)
			return iovm_refuse(-EBUSY, msg, "its path %s is just being removed",
					   path->name);
	return 0;
}

int iovm_dev_destroy(struct iovm_dev_destroy *arg)
{
	bool force = arg->flags & IOVM_DESTROY_F_FORCE;
	struct iovm_todo todo;
	const struct iovm_class *class;
	struct iovm_dev *dev;
	int err;

	iovm_todo_init(&todo);
	if (arg->flags & ~IOVM_DESTROY_F_FORCE)
		return iovm_refuse(-EINVAL, arg->msg, "unknown flag");
	dev = iovm_dev_named(arg->name, arg->msg);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	class = dev->class;

	do {
		err = iovm_dev_keeps_no_path(dev, arg->msg);
		if (!err && !force)
			err = iovm_dev_flush(dev, arg->msg);
	} while (err == -EAGAIN);
	if (!err)
		err = class->destroy_prepare(dev, force, arg->msg);
	if (err)
		goto out;

	spin_lock_irq(&dev->lock);
	dev->dead = true;
	iovm_route_update(dev, &todo);
	spin_unlock_irq(&dev->lock);
	wake_up(&dev->wait);
	mutex_unlock(&dev->mutex);

	/* new ones need a device that is not dead */
	wait_event(dev->wait, !READ_ONCE(dev->nr_probing));
	cancel_delayed_work_sync(&dev->probe_work);
	cancel_delayed_work_sync(&dev->fence_work);
	cancel_delayed_work_sync(&dev->hang_work);
	cancel_delayed_work_sync(&dev->slow_work);
	cancel_delayed_work_sync(&dev->no_path_work);
	cancel_delayed_work_sync(&dev->failback_work);
	flush_delayed_work(&dev->retry_work);
	cancel_delayed_work_sync(&dev->nospc_work);

	mutex_lock(&dev->mutex);
	iovm_dev_remove_paths(dev, force);
	mutex_unlock(&dev->mutex);

	class->destroy(dev);
	iovm_event_emit(dev, NULL, IOVM_EV_DEV_DESTROYED, 0, 0, 0, 0);
	iovm_dev_erase(dev);
	iovm_dev_put(dev);
	module_put(class->owner);
	return 0;
out:
	iovm_dev_release(dev);
	return err;
}

/* Nothing in flight on @path, or on any when that is NULL; or there is no point in waiting. */
static bool iovm_dev_idle(struct iovm_dev *dev, struct iovm_path *only)
{
	struct iovm_path *path;
	bool idle = true;

	spin_lock_irq(&dev->lock);
	if (!dev->dead) {
		list_for_each_entry(path, &dev->paths, node) {
			if (only && path != only)
				continue;
			if (iovm_path_inflight(path) ||
			    (only && (path->probing || iovm_path_is_fencing(path))))
				idle = false;
		}
	}
	spin_unlock_irq(&dev->lock);
	return idle;
}

/**
 * iovm_dev_drain - wait until nothing is in flight
 * @dev: whose; a reference is held, dev->mutex is not
 * @path: which is not the route and stays (path->removing); NULL for all, with the device suspended
 *
 * Return: 0, -EINTR when killed.
 */
int iovm_dev_drain(struct iovm_dev *dev, struct iovm_path *path)
{
	int err;

	atomic_inc(&dev->drainers);
	/*
	 * whoever still found the old route has counted his request, and whoever ends one sees
	 * drainers
	 */
	synchronize_rcu();
	err = wait_event_killable(dev->wait, iovm_dev_idle(dev, path) ||
				  (!path && !READ_ONCE(dev->suspended)));
	atomic_dec(&dev->drainers);
	return err ? -EINTR : 0;
}

static int iovm_dev_suspend(struct iovm_dev *dev, char *msg)
{
	struct iovm_todo todo;
	int err;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	WRITE_ONCE(dev->suspended, true);
	WRITE_ONCE(dev->failing, false);
	iovm_route_update(dev, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);

	/* not under the mutex: what it waits for must be visible, and RESUME possible */
	mutex_unlock(&dev->mutex);
	err = iovm_dev_drain(dev, NULL);
	mutex_lock(&dev->mutex);
	if (err)
		return iovm_refuse(err, msg, "interrupted; the device stays suspended");
	if (dev->dead)
		return iovm_refuse(-ENODEV, msg, "the device was destroyed meanwhile");
	if (!dev->suspended)
		return iovm_refuse(-ECANCELED, msg, "the device was resumed meanwhile");
	iovm_event_emit(dev, NULL, IOVM_EV_SUSPENDED, 0, 0, 0, 0);
	return 0;
}

static void iovm_dev_resume(struct iovm_dev *dev)
{
	struct iovm_todo todo;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	if (dev->suspended) {
		WRITE_ONCE(dev->suspended, false);
		iovm_event_emit(dev, NULL, IOVM_EV_RESUMED, 0, 0, 0, 0);
		iovm_route_update(dev, &todo);
		/* also what is bound to a path that is not the route */
		todo.wake = true;
	}
	iovm_nospc_kick(dev);
	spin_unlock_irq(&dev->lock);
	wake_up(&dev->wait);
	iovm_todo_run(dev, &todo);
}

/* To the path called @name, or when that is empty to the next one (@back: to the first). */
static int iovm_dev_failover(struct iovm_dev *dev, const char *name, bool back, char *msg)
{
	struct iovm_todo todo;
	enum iovm_path_state state[IOVM_MAX_PATHS];
	struct iovm_path *paths[IOVM_MAX_PATHS];
	struct iovm_path *path = NULL;
	int n, cur, to;

	iovm_todo_init(&todo);
	if (name[0]) {
		path = iovm_path_find(dev, name, 0);
		if (!path)
			return iovm_refuse(-ENOENT, msg, "device %s has no path %.*s", dev->name,
					   IOVM_NAME_MAX, name);
	}

	spin_lock_irq(&dev->lock);
	if (!path) {
		n = iovm_path_states(dev, state, paths, dev->preferred, &cur);
		to = back ? iovm_choose_first(state, n) : iovm_choose_next(state, n, cur);
		if (to >= 0)
			path = paths[to];
	} else if (path->state != IOVM_PATH_LIVE) {
		path = NULL;
	}
	if (path)
		iovm_route_switch(dev, path, !back, &todo);
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);

	if (path)
		return 0;
	if (name[0])
		return iovm_refuse(-ENOLINK, msg, "path %s is not live", name);
	return iovm_refuse(-ENOLINK, msg, "there is no %slive path", back ? "" : "other ");
}

static void iovm_dev_fail_parked(struct iovm_dev *dev)
{
	struct iovm_todo todo;
	u32 n;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	dev->fail_parked++;
	n = iovm_held_fail(dev, NULL, &todo);
	n += iovm_nospc_end_all(dev, &todo);
	iovm_event_emit(dev, NULL, IOVM_EV_FAIL_PARKED, 0, 0, 0, n);
	todo.wake = true;
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
}

static int iovm_dev_resize(struct iovm_dev *dev, u64 sectors, char *msg)
{
	struct iovm_path_info *info;
	struct iovm_path *path;
	int err = 0;

	if (!sectors)
		return iovm_refuse(-EINVAL, msg, "the size cannot be 0");
	if (!dev->class->resize)
		return iovm_refuse(-EOPNOTSUPP, msg, "devices of class %s have no size",
				   dev->class->name);
	info = kzalloc(sizeof(*info), GFP_KERNEL);
	if (!info)
		return -ENOMEM;
	list_for_each_entry(path, &dev->paths, node) {
		iovm_path_info_fill(path, info);
		/*
		 * what is not in use is looked at when it is connected, or probed: it cannot be
		 * live again before it has the size. A probe under way may have seen the old one
		 */
		if (info->state == IOVM_PATH_CONNECTING ||
		    (info->state == IOVM_PATH_FAILED && !READ_ONCE(path->probing)))
			continue;
		if (info->capacity < sectors) {
			err = iovm_refuse(-EMEDIUMTYPE, msg,
					  "path %s has %llu sectors, not %llu%s", path->name,
					  info->capacity, sectors,
					  path->ops->connect ?
					  ", or was connected before it grew" : "");
			break;
		}
	}
	kfree(info);
	if (!err)
		err = dev->class->resize(dev, sectors, msg);
	if (!err)
		iovm_event_emit(dev, NULL, IOVM_EV_RESIZED, 0, 0, 0, sectors);
	return err;
}

static void iovm_dev_set_no_path_timeout(struct iovm_dev *dev, u64 ms)
{
	struct iovm_todo todo;

	iovm_todo_init(&todo);
	spin_lock_irq(&dev->lock);
	dev->no_path_timeout_ms = ms;
	if (dev->failing) {
		/* it has passed already: the new one starts now */
		WRITE_ONCE(dev->failing, false);
		dev->parked_ns = ktime_get_ns();
		iovm_route_update(dev, &todo);
	} else {
		iovm_no_path_arm(dev);
	}
	spin_unlock_irq(&dev->lock);
	iovm_todo_run(dev, &todo);
}

static void iovm_dev_set_no_space_timeout(struct iovm_dev *dev, u64 ms)
{
	spin_lock_irq(&dev->lock);
	dev->no_space_timeout_ms = ms;
	iovm_nospc_arm(dev);
	spin_unlock_irq(&dev->lock);
}

static void iovm_dev_set_failback_after(struct iovm_dev *dev, u64 ms)
{
	spin_lock_irq(&dev->lock);
	dev->failback_after_ms = ms;
	iovm_failback_arm(dev);
	spin_unlock_irq(&dev->lock);
}

int iovm_dev_ctl(struct iovm_dev_ctl *arg)
{
	struct iovm_dev *dev;
	int err = 0;

	if (!arg->op || arg->op > IOVM_DEV_EPOCH_GIVE)
		return iovm_refuse(-EINVAL, arg->msg, "unknown operation %u", arg->op);
	if (arg->op < IOVM_DEV_RESIZE && arg->value)
		return iovm_refuse(-EINVAL, arg->msg, "this operation has no value");
	if (arg->path[0] && arg->op != IOVM_DEV_FAILOVER)
		return iovm_refuse(-EINVAL, arg->msg, "this operation has no path");
	if (arg->path[0] && !iovm_name_valid(arg->path))
		return iovm_refuse(-EINVAL, arg->msg, "not a path name");
	dev = iovm_dev_named(arg->name, arg->msg);
	if (IS_ERR(dev))
		return PTR_ERR(dev);

	switch (arg->op) {
	case IOVM_DEV_FAILOVER:
		err = iovm_dev_failover(dev, arg->path, false, arg->msg);
		break;
	case IOVM_DEV_FAILBACK:
		err = iovm_dev_failover(dev, "", true, arg->msg);
		break;
	case IOVM_DEV_SUSPEND:
		err = iovm_dev_suspend(dev, arg->msg);
		break;
	case IOVM_DEV_RESUME:
		iovm_dev_resume(dev);
		break;
	case IOVM_DEV_FAIL_PARKED:
		iovm_dev_fail_parked(dev);
		break;
	case IOVM_DEV_RESIZE:
		err = iovm_dev_resize(dev, arg->value, arg->msg);
		break;
	case IOVM_DEV_SET_NO_PATH_TIMEOUT:
		iovm_dev_set_no_path_timeout(dev, arg->value);
		break;
	case IOVM_DEV_SET_FAILBACK_AFTER:
		iovm_dev_set_failback_after(dev, arg->value);
		break;
	case IOVM_DEV_SET_IOPS:
		WRITE_ONCE(dev->iops, arg->value);
		dev->class->route_changed(dev);
		break;
	case IOVM_DEV_SET_BPS:
		WRITE_ONCE(dev->bps, arg->value);
		dev->class->route_changed(dev);
		break;
	case IOVM_DEV_SET_NO_SPACE_TIMEOUT:
		iovm_dev_set_no_space_timeout(dev, arg->value);
		break;
	case IOVM_DEV_SET_SLOW_FACTOR:
		err = iovm_slow_check(arg->value, arg->msg);
		if (!err)
			iovm_slow_set_factor(dev, arg->value);
		break;
	case IOVM_DEV_SET_LEAVE_SLOW_AFTER:
		err = iovm_ms_check(arg->value, arg->msg);
		if (!err) {
			spin_lock_irq(&dev->lock);
			dev->leave_slow_ms = arg->value;
			spin_unlock_irq(&dev->lock);
		}
		break;
	case IOVM_DEV_EPOCH_TAKE:
		err = iovm_epoch_take(dev, arg->value, arg->msg);
		break;
	case IOVM_DEV_EPOCH_GIVE:
		err = iovm_epoch_give(dev, arg->value, arg->msg);
		break;
	}
	iovm_dev_release(dev);
	return err;
}

/* At module exit: every class is gone, and so is every device. */
void iovm_devices_exit(void)
{
	WARN_ON(!xa_empty(&iovm_devs));
	xa_destroy(&iovm_devs);
}
