// SPDX-License-Identifier: GPL-2.0
/*
 * vhost_iovm_blk: virtio-blk devices in the kernel, on any block device and on NBD servers.
 */
#include <linux/module.h>

#include "blk.h"

static int __init viovm_blk_init(void)
{
	int err;

	err = viovm_blk_requests_init();
	if (err)
		return err;
	err = viovm_nbd_init();
	if (err)
		goto requests;
	err = iovm_path_type_register(&viovm_bdev_ops);
	if (err)
		goto nbd;
	err = iovm_path_type_register(&viovm_nbd_ops);
	if (err)
		goto bdev_type;
	err = viovm_tgt_init();
	if (err)
		goto nbd_type;
	err = iovm_class_register(&viovm_blk_class);
	if (err)
		goto tgt;
	err = iovm_class_register(&viovm_tgt_class);
	if (err)
		goto blk_class;
	return 0;

blk_class:
	iovm_class_unregister(&viovm_blk_class);
tgt:
	viovm_tgt_exit();
nbd_type:
	iovm_path_type_unregister(&viovm_nbd_ops);
bdev_type:
	iovm_path_type_unregister(&viovm_bdev_ops);
nbd:
	viovm_nbd_exit();
requests:
	viovm_blk_requests_exit();
	return err;
}
module_init(viovm_blk_init);

static void __exit viovm_blk_exit(void)
{
	iovm_class_unregister(&viovm_tgt_class);
	iovm_class_unregister(&viovm_blk_class);
	viovm_tgt_exit();
	iovm_path_type_unregister(&viovm_nbd_ops);
	iovm_path_type_unregister(&viovm_bdev_ops);
	viovm_nbd_exit();
	viovm_blk_requests_exit();
}
module_exit(viovm_blk_exit);

MODULE_DESCRIPTION("virtio-blk back ends with path failover");
MODULE_AUTHOR("vhost-iovm maintainers");
MODULE_LICENSE("GPL");
