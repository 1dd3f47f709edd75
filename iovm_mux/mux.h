/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inside of the multiplexer, as device classes and path types see it.
 *
 * A class (block, net) owns front ends: it makes the node when a device is created, turns what a guest asks
 * into requests and gives each to a path. A path type (bdev, nbd) owns back ends: it serves requests. The mux is
 * between: which path takes a request, what an error means, when a request comes back.
 *
 *	front end (worker)                mux                          back end
 *	iovm_req_route(req)  ----------> picks route, takes a reference
 *	map data for req->path
 *	iovm_req_issue(req)  ----------> counts, stamps -------------> ops->submit(path, req)
 *	                                 iovm_req_done(req, res, err) <-- any context
 *	class->complete(req, 0/err) <--- success or request error
 *	class->requeue(req)  <---------- path error: drop the mapping, call iovm_req_route() again from the worker
 *	class->route_changed(dev) <----- wake every queue: routes again what waits
 *
 * A request whose route says "wait" (-EAGAIN) stays with the front end, unfetched in the ring or on the queue's
 * requeue list, until route_changed().
 *
 * Locks, outermost first: iovm_mux_mutex (the table of devices; sleeping), iovm_dev.mutex (control operations on
 * one device; sleeping), iovm_dev.lock (spinlock, irqsave: path states, the route, held requests). Class callbacks
 * complete(), requeue() and route_changed() are called with none of them held.
 */
#ifndef _IOVM_MUX_H
#define _IOVM_MUX_H

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/percpu-refcount.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "iovm.h"		/* uapi/ */

struct iovm_dev;
struct iovm_path;
struct iovm_req;

/**
 * enum iovm_result - how a back end ended a request
 * @IOVM_RES_OK: served
 * @IOVM_RES_REQUEST: the request itself is at fault or cannot be served anywhere (medium error, no space,
 *	not supported): reported to the guest, the path stays
 * @IOVM_RES_IO: an error that may be the path's or the request's (a bare I/O error): the path fails, unless this request has
 *	already failed so on another path; then it is reported to the guest and the path stays
 * @IOVM_RES_PATH: device or peer is gone: the path fails, the request goes elsewhere
 * @IOVM_RES_RETRY: a resource was short: again, on the same path, soon
 * @IOVM_RES_UNSENT: the path failed before any byte of the request left: like @IOVM_RES_PATH, and no fence is needed
 */
enum iovm_result {
	IOVM_RES_OK,
	IOVM_RES_REQUEST,
	IOVM_RES_IO,
	IOVM_RES_PATH,
	IOVM_RES_RETRY,
	IOVM_RES_UNSENT,
};

/* iovm_req.flags, set by the front end */
#define IOVM_REQ_FUA		BIT(0)	/* stable before completion */
#define IOVM_REQ_NOUNMAP	BIT(1)	/* WRITE_ZEROES: keep the space allocated */
/* set by the mux */
#define IOVM_REQ_REQUEUED	BIT(4)	/* came back from a path at least once */
#define IOVM_REQ_BOUND		BIT(5)	/* may only be issued again to bound_id (no fence) */

/**
 * struct iovm_req - one request in the mux; embedded in the class's own
 * @node: back end's while issued (nbd send queue), mux's while held, class's while requeued
 * @dev: set once by the front end
 * @path: the path it was routed to, from iovm_req_route() until done; holds a reference of path->ref
 * @offset: bytes
 * @len: bytes; 0 for FLUSH
 * @op: IOVM_OP_*
 * @flags: IOVM_REQ_*
 * @tried: bit per path slot that ended it with IOVM_RES_IO
 * @bound_id: path id, with IOVM_REQ_BOUND
 * @issue_ns: ktime_get_ns() of the last issue
 * @error_ns: ktime_get_ns() of the first path error, 0 when none
 *
 * Owned by exactly one of front end, back end and mux at any time; no lock of its own.
 */
struct iovm_req {
	struct list_head node;
	struct iovm_dev *dev;
	struct iovm_path *path;
	u64 offset;
	u32 len;
	u8 op;
	u8 flags;
	u8 tried;
	u32 bound_id;
	u64 issue_ns;
	u64 error_ns;
};

/**
 * struct iovm_path_ops - a path type
 * @name: for people
 * @type: IOVM_PATH_*
 * @class: IOVM_CLASS_* it serves
 * @owner: module
 * @add: process context, dev->mutex held. Checks that the path fits the device (fills msg and returns a
 *	negative errno if not), sets path->priv and the limits. Leaves the path connecting; the mux makes it live when it
 *	returns IOVM_ADD_LIVE (1), keeps it connecting on 0
 * @connect: process context, dev->mutex held, state connecting or failed; the mux makes the path live when it returns 0. May be NULL
 * @probe: process context, dev->mutex held, state failed: does one small I/O, 0 when the path serves again. May be NULL
 * @submit: front-end worker (may sleep; no spinlock held). Must end every request with iovm_req_done(), perhaps before returning
 * @fail: process context (system workqueue), no lock held: the path was marked failed; make what is in
 *	flight end soon (shut sockets down). Called once per transition to failed, never concurrently with itself or
 *	with connect/remove. May be NULL
 * @remove: process context, dev->mutex held: no request is in flight and none will come; free priv. fail() has run if the path was not live
 * @info: fill the type's part of @info. Process context, dev->mutex held
 * @stats: likewise. May be NULL
 */
struct iovm_path_ops {
	const char *name;
	u32 type;
	u32 class;
	struct module *owner;
	int (*add)(struct iovm_path *path, const struct iovm_path_add *arg, char *msg);
	int (*connect)(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg);
	int (*probe)(struct iovm_path *path);
	void (*submit)(struct iovm_path *path, struct iovm_req *req);
	void (*fail)(struct iovm_path *path);
	void (*remove)(struct iovm_path *path);
	void (*info)(struct iovm_path *path, struct iovm_path_info *info);
	void (*stats)(struct iovm_path *path, struct iovm_path_stats *stats);
};

#define IOVM_ADD_LIVE	1

/* Per-cpu part of a path's statistics; summed in IOVM_PATH_STATS. inflight = sum(issued) - sum(ended). */
struct iovm_path_pcpu {
	u64 issued[IOVM_OP_MAX];
	u64 done[IOVM_OP_MAX];
	u64 bytes[IOVM_OP_MAX];
	u64 ended;		/* every issued request that came back, however */
	u64 request_errors;
	u64 path_errors;
	u64 retries;
	u64 lat_ns[3][IOVM_HIST_BUCKETS];
};

/**
 * struct iovm_path - one way to a device's data
 * @ops, @dev, @name, @addr, @id, @slot, @fence, @heartbeat_ms, @dead_ms: set at creation, constant
 * @flags: IOVM_PATH_F_CACHE_*, resolved (exactly one bit set); constant
 * @node: in dev->paths, in order; dev->mutex, and dev->lock for writing
 * @state: enum iovm_path_state; written by iovm_path_set_state() under dev->lock
 * @state_ns: ktime_get_ns() when it was entered; dev->lock
 * @last_error: negative errno; dev->lock
 * @generation: dev->lock; incremented each time the path becomes live
 * @held: writes that wait for a fence; dev->lock
 * @nr_held: dev->lock
 * @had_error: a FIRST_ERROR event was emitted since it was last live; dev->lock
 * @unflushed: holds writes acknowledged since its last successful FLUSH; set without a lock, see iovm_req_done()
 * @ref: one per request routed here; killed on removal
 * @fail_work: calls ops->fail
 * @priv: ops's
 * @capacity: sectors, set by ops; dev->mutex
 * @block_size: bytes, set by ops; dev->mutex
 * @align_mask: memory address and length of every data segment must be clear of these bits, else the
 *	front end bounces; set by ops before the path is live
 * @pcpu: statistics
 */
struct iovm_path {
	const struct iovm_path_ops *ops;
	struct iovm_dev *dev;
	char name[IOVM_NAME_MAX];
	char addr[IOVM_ADDR_MAX];
	u32 id;
	u32 slot;
	u32 fence;
	u32 flags;
	u32 heartbeat_ms;
	u32 dead_ms;
	struct list_head node;
	enum iovm_path_state state;
	u64 state_ns;
	int last_error;
	u32 generation;
	struct list_head held;
	u32 nr_held;
	bool had_error;
	bool unflushed;
	struct percpu_ref ref;
	struct completion ref_dead;
	struct work_struct fail_work;
	void *priv;
	u64 capacity;
	u32 block_size;
	u32 align_mask;
	struct iovm_path_pcpu __percpu *pcpu;
	struct rcu_head rcu;
};

/**
 * struct iovm_class - a device class
 * @id: IOVM_CLASS_*
 * @name: for people
 * @owner: module
 * @create: process context, dev->mutex held: check arg's class part, make the node, set dev->fe. Fills msg on error
 * @destroy_prepare: process context, dev->mutex held: -EBUSY when a front end is open and !force; else no new
 *	front end can open, the open one (force) is stopped and its file answers ENODEV. After success no request of this device
 *	is in flight or will be made
 * @destroy: process context: remove the node, free dev->fe (the last close may free it later, it holds a reference)
 * @resize: process context, dev->mutex held: sectors. May be NULL
 * @info: fill the class's part of struct iovm_dev_info. dev->mutex held
 * @complete: any context, no lock held: the request has ended. error 0, or a negative errno for the guest
 * @requeue: any context, no lock held: the request came back from a path; release its mapping in a context that may and
 *	route it again
 * @route_changed: any context (hard irq too), no lock held: something that waited can go on (or can be failed)
 */
struct iovm_class {
	u32 id;
	const char *name;
	struct module *owner;
	int (*create)(struct iovm_dev *dev, const struct iovm_dev_create *arg, char *msg);
	int (*destroy_prepare)(struct iovm_dev *dev, bool force, char *msg);
	void (*destroy)(struct iovm_dev *dev);
	int (*resize)(struct iovm_dev *dev, u64 sectors, char *msg);
	void (*info)(struct iovm_dev *dev, struct iovm_dev_info *info);
	void (*complete)(struct iovm_req *req, int error);
	void (*requeue)(struct iovm_req *req);
	void (*route_changed)(struct iovm_dev *dev);
};

/* Per-cpu part of a device's statistics */
struct iovm_dev_pcpu {
	u64 requests;
	u64 errors;
	u64 throttled;
};

/**
 * struct iovm_dev - a device: a front end and its paths
 * @class, @name, @id, @flags: constant
 * @fe: the class's own; constant between create and destroy
 * @mutex: serialises control operations on this device
 * @lock: irqsave spinlock, see the top of this file
 * @route: the path that takes requests, NULL when none; written under @lock, read under RCU
 * @state: enum iovm_dev_state; @lock
 * @suspended, @failing: policy inputs of the route; @lock
 * @preferred: path chosen by hand or by failover: stays the route while usable; @lock
 * @paths: in order; see iovm_path.node
 * @parked_ns: since when there is no route; @lock
 * @switch_ns: ktime_get_ns() of the first error or the switch that the next completion ends, 0 when none; @lock, read
 *	without it as a hint
 * @no_path_timeout_ms, @failback_after_ms: @lock
 * @iops, @bps: limits, read by the front end without a lock (READ_ONCE)
 * @fail_parked: counts IOVM_DEV_FAIL_PARKED; a requeued request whose class saw an older count is failed; READ_ONCE
 */
struct iovm_dev {
	const struct iovm_class *class;
	char name[IOVM_NAME_MAX];
	u32 id;
	u32 flags;
	void *fe;
	struct mutex mutex;
	spinlock_t lock;
	struct iovm_path __rcu *route;
	enum iovm_dev_state state;
	bool suspended;
	bool failing;
	bool dead;
	struct iovm_path *preferred;
	struct list_head paths;
	u32 nr_paths;
	u32 next_path_id;
	u64 parked_ns;
	u64 switch_ns;
	u64 no_path_timeout_ms;
	u64 failback_after_ms;
	u64 iops;
	u64 bps;
	u32 fail_parked;
	atomic_t nr_requeued;
	u64 requeues, reroutes, parks, fails;		/* lock */
	u64 pause_ns[IOVM_HIST_BUCKETS], pause_max_ns;	/* lock */
	struct delayed_work no_path_work;
	struct delayed_work failback_work;
	struct delayed_work probe_work;
	struct iovm_dev_pcpu __percpu *pcpu;
};

/* module.c: registration. Process context, may sleep. 0 or -EEXIST. */
int iovm_class_register(const struct iovm_class *class);
void iovm_class_unregister(const struct iovm_class *class);
int iovm_path_type_register(const struct iovm_path_ops *ops);
void iovm_path_type_unregister(const struct iovm_path_ops *ops);

/* route.c: the data path */

/**
 * iovm_req_route - pick the path for a request
 * @req: with dev, op, offset, len and flags set
 *
 * Any context. On success req->path is set and holds a reference until iovm_req_done() or iovm_req_unroute().
 * Return: 0; -EAGAIN wait for route_changed(); -EIO fail it (no path came in time).
 */
int iovm_req_route(struct iovm_req *req);
void iovm_req_unroute(struct iovm_req *req);

/**
 * iovm_req_issue - give a routed request to its path
 *
 * Front-end worker. The caller may not touch @req afterwards: it may have been completed or requeued.
 */
void iovm_req_issue(struct iovm_req *req);

/**
 * iovm_req_done - a back end has ended a request
 * @req: issued
 * @res: how
 * @error: negative errno when @res is not IOVM_RES_OK
 *
 * Any context, hard irq too; no lock that a class callback could take may be held.
 */
void iovm_req_done(struct iovm_req *req, enum iovm_result res, int error);

/**
 * iovm_path_fail - a back end found its path broken outside of any request
 * @path: whose
 * @error: negative errno
 *
 * Any context. Requests in flight must still be ended by the back end.
 */
void iovm_path_fail(struct iovm_path *path, int error);

/**
 * iovm_path_suspect - heartbeat missed (true) or answered again (false)
 */
void iovm_path_suspect(struct iovm_path *path, bool suspect);

/**
 * iovm_dev_may_fetch - cheap test whether taking a new request from a ring makes sense now
 *
 * True when there is a route, or when requests are to be failed. Any context.
 */
static inline bool iovm_dev_may_fetch(struct iovm_dev *dev)
{
	return rcu_access_pointer(dev->route) || READ_ONCE(dev->failing);
}

/* event.c */
void iovm_event_emit(struct iovm_dev *dev, struct iovm_path *path, u32 type, u32 old_state, u32 new_state,
		     int error, u64 value);

#endif /* _IOVM_MUX_H */
