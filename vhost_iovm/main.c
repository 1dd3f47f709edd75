// SPDX-License-Identifier: GPL-2.0
/*
 * vhost_iovm: the vhost device core that the device classes share.
 */
#include <linux/module.h>

#include "vhost_iovm.h"

static int __init viovm_init(void)
{
	return viovm_nodes_init();
}
module_init(viovm_init);

static void __exit viovm_exit(void)
{
	viovm_nodes_exit();
}
module_exit(viovm_exit);

MODULE_DESCRIPTION("vhost device core of the IOVM back ends");
MODULE_AUTHOR("vhost-iovm maintainers");
MODULE_LICENSE("GPL");
