/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the block class calls the mux on a request's way to a block device and back.
 *
 * Built with -DVIOVM_BLK_DIRECT a request goes straight to the device's first path and back, past
 * the mux: no reference, no statistics, no failover. That build exists to measure what the mux
 * costs (bench/); it is never installed.
 */
#ifndef _VHOST_IOVM_BLK_DIRECT_H
#define _VHOST_IOVM_BLK_DIRECT_H

#include "blk.h"

#ifdef VIOVM_BLK_DIRECT
static inline int viovm_route(struct iovm_req *req)
{
	/* as cheap as a constant: nobody changes the route of a device that is measured */
	req->path = rcu_dereference_raw(req->dev->route);
	return req->path ? 0 : -EAGAIN;
}

static inline void viovm_unroute(struct iovm_req *req)
{
}

static inline void viovm_issue(struct iovm_req *req, u64 now_ns)
{
	req->path->ops->submit(req->path, req);
}

static inline void viovm_done(struct iovm_req *req, enum iovm_result res, int error)
{
	viovm_blk_complete(req, error);
}
#else
#define viovm_route	iovm_req_route
#define viovm_unroute	iovm_req_unroute
#define viovm_issue	iovm_req_issue
#define viovm_done	iovm_req_done
#endif

#endif /* _VHOST_IOVM_BLK_DIRECT_H */
