// SPDX-License-Identifier: GPL-2.0
/*
 * The module: which device classes and path types there are.
 */
#include <linux/module.h>
#include <linux/stringify.h>

#include "internal.h"

#define IOVM_TYPES	32	/* ids are below; also bits of struct iovm_version */

struct workqueue_struct *iovm_wq;

/* Registration and look-up. Taken inside dev->mutex too. */
static DEFINE_MUTEX(iovm_types_mutex);
static const struct iovm_class *iovm_classes[IOVM_TYPES];
static const struct iovm_path_ops *iovm_path_types[IOVM_TYPES];

int iovm_class_register(const struct iovm_class *class)
{
	int err = -EEXIST;

	if (!class->id || class->id >= IOVM_TYPES)
		return -EINVAL;
	mutex_lock(&iovm_types_mutex);
	if (!iovm_classes[class->id]) {
		iovm_classes[class->id] = class;
		err = 0;
	}
	mutex_unlock(&iovm_types_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(iovm_class_register);

void iovm_class_unregister(const struct iovm_class *class)
{
	mutex_lock(&iovm_types_mutex);
	if (!WARN_ON(iovm_classes[class->id] != class))
		iovm_classes[class->id] = NULL;
	mutex_unlock(&iovm_types_mutex);
}
EXPORT_SYMBOL_GPL(iovm_class_unregister);

int iovm_path_type_register(const struct iovm_path_ops *ops)
{
	int err = -EEXIST;

	if (!ops->type || ops->type >= IOVM_TYPES)
		return -EINVAL;
	mutex_lock(&iovm_types_mutex);
	if (!iovm_path_types[ops->type]) {
		iovm_path_types[ops->type] = ops;
		err = 0;
	}
	mutex_unlock(&iovm_types_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(iovm_path_type_register);

void iovm_path_type_unregister(const struct iovm_path_ops *ops)
{
	mutex_lock(&iovm_types_mutex);
	if (!WARN_ON(iovm_path_types[ops->type] != ops))
		iovm_path_types[ops->type] = NULL;
	mutex_unlock(&iovm_types_mutex);
}
EXPORT_SYMBOL_GPL(iovm_path_type_unregister);

const struct iovm_class *iovm_class_get(u32 id)
{
	const struct iovm_class *class = NULL;

	mutex_lock(&iovm_types_mutex);
	if (id < IOVM_TYPES && iovm_classes[id] && try_module_get(iovm_classes[id]->owner))
		class = iovm_classes[id];
	mutex_unlock(&iovm_types_mutex);
	return class;
}

const struct iovm_path_ops *iovm_path_type_get(u32 type)
{
	const struct iovm_path_ops *ops = NULL;

	mutex_lock(&iovm_types_mutex);
	if (type < IOVM_TYPES && iovm_path_types[type] &&
	    try_module_get(iovm_path_types[type]->owner))
		ops = iovm_path_types[type];
	mutex_unlock(&iovm_types_mutex);
	return ops;
}

void iovm_types_mask(u64 *classes, u64 *path_types)
{
	unsigned int i;

	*classes = 0;
	*path_types = 0;
	mutex_lock(&iovm_types_mutex);
	for (i = 0; i < IOVM_TYPES; i++) {
		if (iovm_classes[i])
			*classes |= 1ull << i;
		if (iovm_path_types[i])
			*path_types |= 1ull << i;
	}
	mutex_unlock(&iovm_types_mutex);
}

static int __init iovm_mux_init(void)
{
	int err;

	/*
	 * fail_work must get a worker while memory is short: what it ends may be what memory waits
	 * for
	 */
	iovm_wq = alloc_workqueue("iovm", WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI, 0);
	if (!iovm_wq)
		return -ENOMEM;
	err = iovm_events_init();
	if (err)
		goto out_wq;
	err = iovm_control_init();
	if (err)
		goto out_events;
	return 0;

out_events:
	iovm_events_exit();
out_wq:
	destroy_workqueue(iovm_wq);
	return err;
}

static void __exit iovm_mux_exit(void)
{
	iovm_control_exit();
	/*
	 * every device held a reference of its class's module, and that one uses us: there is none
	 */
	iovm_devices_exit();
	destroy_workqueue(iovm_wq);
	iovm_events_exit();
	/* iovm_dev_put() by a last waiter */
	rcu_barrier();
}

module_init(iovm_mux_init);
module_exit(iovm_mux_exit);

MODULE_DESCRIPTION("Paths, routing and failover of in-kernel virtio back ends");
MODULE_LICENSE("GPL");
MODULE_VERSION(IOVM_RELEASE);
/* for who wants to know whether iovmctl can talk to it before it is loaded */
MODULE_INFO(iovm_abi, __stringify(IOVM_ABI_VERSION));
