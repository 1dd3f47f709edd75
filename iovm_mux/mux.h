/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The inside of the multiplexer, as device classes and path types see it.
 *
 * A class (block, net) owns front ends: it makes the node when a device is created, turns what a
 * guest asks into requests and gives each to a path. A path type (bdev, nbd) owns back ends: it
 * serves requests. The mux is between: which path takes a request, what an error means, when a
 * request comes back.
 *
 *	front end (worker)                mux                          back end
 *	iovm_req_init(req, ...)
 *	iovm_req_route(req)  ----------> picks the path, which now stays
 *	map data for req->path
 *	iovm_req_issue(req)  ----------> counts, stamps -------------> ops->submit(path, req)
 *	                                 iovm_req_done(req, res, err) <-- any context
 *	class->complete(req, 0/err) <--- success or request error
 *	class->requeue(req)  <---------- path error: drop the mapping, iovm_req_route() again
 *	class->route_changed(dev) <----- wake every queue: routes again what waits
 *
 * A request whose route says "wait" (-EAGAIN) stays with the front end, unfetched in the ring or
 * on the queue's requeue list, until route_changed(). One that the front end throws away although
 * requeue() gave it back goes through iovm_req_drop(); those that the mux itself keeps are called
 * back by iovm_dev_cancel().
 *
 * A path lives at least until everything routed to it has ended: routing counts in
 * path->pcpu->issued, ending in ->ended, and who takes a path out waits for the sums to be equal.
 * There is no other reference count on the data path. The end is counted last of all, after the
 * class's callback, so that a path with something in flight also keeps device and class.
 *
 * Locks, outermost first: iovm_mux_mutex (the table of devices; sleeping), iovm_dev.mutex (control
 * operations on one device; sleeping), iovm_dev.lock (spinlock, irqsave: path states, the route,
 * held requests). Class callbacks complete(), requeue() and route_changed() are called with none
 * of them held.
 */
#ifndef _IOVM_MUX_H
#define _IOVM_MUX_H

#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "drift.h"
#include "iovm.h"		/* uapi/ */
#include "policy.h"

struct iovm_dev;
struct iovm_path;
struct iovm_req;

/* iovm_req.flags, set by the front end */
#define IOVM_REQ_FUA		BIT(0)	/* stable before completion */
#define IOVM_REQ_NOUNMAP	BIT(1)	/* WRITE_ZEROES: keep the space allocated */
/* set by the mux */
#define IOVM_REQ_ELSEWHERE	BIT(2)	/* not where req->media says, if there is another path */
#define IOVM_REQ_NOSPC		BIT(3)	/* has found no space, and is in dev->nr_nospc */
#define IOVM_REQ_REQUEUED	BIT(4)	/* came back from a path at least once */
#define IOVM_REQ_BOUND		BIT(5)	/* for bound_id only: write without fence, rest of flush */
#define IOVM_REQ_COUNTED	BIT(6)	/* waits, and is in dev->nr_requeued */
#define IOVM_REQ_STAMPED	BIT(7)	/* waits since dev->fail_parked was req->fail_parked */

/**
 * struct iovm_req - one request in the mux; embedded in the class's own
 * @node: back end's while issued (nbd send queue), mux's while held, class's while requeued
 * @dev: set once by the front end
 * @path: the path it was routed to, from iovm_req_route() until done; stays for that long
 * @offset: bytes
 * @len: bytes; 0 for FLUSH
 * @op: IOVM_OP_*
 * @flags: IOVM_REQ_*
 * @tried: bit per path slot that ended it with IOVM_RES_IO and is not usable since
 * @io_errors: how often it has ended so
 * @media: bit per path slot that ended it with IOVM_RES_MEDIA
 * @flushed: FLUSH: bit per path slot that has done it
 * @bound_id: path id, with IOVM_REQ_BOUND
 * @fail_parked: with IOVM_REQ_STAMPED
 * @issue_ns: ktime_get_ns() of the last issue
 * @error_ns: ktime_get_ns() of the first path error, 0 when none
 *
 * Owned by exactly one of front end, back end and mux at any time; no lock of its own. Only @path,
 * @op and @issue_ns are read by others (class->oldest, iovm_req_may_retake()), at any time: the
 * owner writes them by WRITE_ONCE().
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
	u8 io_errors;
	u8 media;
	u8 flushed;
	u32 bound_id;
	u32 fail_parked;
	u64 issue_ns;
	u64 error_ns;
};

/* iovm_path.suspects */
#define IOVM_SUSPECT_SILENT	BIT(0)	/* its type says so: a heartbeat was not answered */
#define IOVM_SUSPECT_OVERDUE	BIT(1)	/* a request is under way for too long */

/* Makes a request of what was fetched from a ring. Any context. */
static inline void iovm_req_init(struct iovm_req *req, struct iovm_dev *dev, u8 op, u8 flags,
				 u64 offset, u32 len)
{
	INIT_LIST_HEAD(&req->node);
	req->dev = dev;
	WRITE_ONCE(req->path, NULL);
	req->offset = offset;
	req->len = len;
	WRITE_ONCE(req->op, op);
	req->flags = flags;
	req->tried = 0;
	req->io_errors = 0;
	req->media = 0;
	req->flushed = 0;
	req->bound_id = 0;
	req->fail_parked = 0;
	WRITE_ONCE(req->issue_ns, 0);
	req->error_ns = 0;
}

/**
 * struct iovm_path_ops - a path type
 * @name: for people
 * @type: IOVM_PATH_*
 * @class: IOVM_CLASS_* it serves
 * @owner: module
 * @add: process context, dev->mutex held. Checks that the path fits the device (fills msg and
 *	returns a negative errno if not), sets path->priv and the limits. Leaves the path
 *	connecting; the mux makes it live when it returns IOVM_ADD_LIVE (1), keeps it connecting on
 *	0
 * @connect: process context, dev->mutex held, state connecting or failed; the mux makes the path
 *	live when it returns 0, unless iovm_path_fail() was called meanwhile. May be NULL
 * @replace: process context, dev->mutex held, the path is usable: like connect, but what is in
 *	flight goes on where it is, and only new requests go to the new sockets. The path may fail
 *	meanwhile, and fail() be called. On an error nothing has changed. May be NULL
 * @probe: process context, no lock held (it may hang with the device), state failed: does one
 *	small I/O, 0 when the path serves again. Never concurrently with itself, fail, connect or
 *	remove. May be NULL
 * @measure: process context, no lock held (it may hang with the device), the path carries nothing
 *	and was live: does one small read, 0 when it succeeded; how long it took is what a heartbeat
 *	tells of other types. Never concurrently with itself, probe, connect or remove. NULL for
 *	types that call iovm_path_answered() by themselves, or cannot
 * @fence: process context, no lock held (it may hang with the device), @by was live and @victim
 *	failed, both of this type, with a pr_key, and there to stay: make sure through @by that
 *	nothing issued on @victim before can land any more. 0 when it is so. May be NULL
 * @flush: process context, dev->mutex held, the path is usable or draining: begin to make stable
 *	what was acknowledged, before the path or its device goes. Must end, when a request would,
 *	with iovm_flush_done(), perhaps before returning. Once at a time, and only called for paths
 *	that hold unflushed writes. May be NULL
 * @submit: front-end worker (may sleep; no spinlock held). Must end every request with
 *	iovm_req_done(), perhaps before returning
 * @fail: process context (the mux's workqueue), no lock held: the path was marked failed; make
 *	what is in flight end soon (shut sockets down). Called once per transition to failed (and
 *	once more when a connect succeeded that iovm_path_fail() overtook), never concurrently with
 *	itself or with connect/remove. May be NULL
 * @remove: process context, dev->mutex held: no request is in flight and none will come; free
 *	priv, and on return nothing of the type's may call iovm_path_fail(), iovm_path_suspect() or
 *	iovm_path_answered() for this path. fail() has run if the path had failed. Not called when
 *	add() returned an error
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
	int (*replace)(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg);
	int (*probe)(struct iovm_path *path);
	int (*measure)(struct iovm_path *path);
	int (*fence)(struct iovm_path *by, struct iovm_path *victim);
	void (*flush)(struct iovm_path *path);
	void (*submit)(struct iovm_path *path, struct iovm_req *req);
	void (*fail)(struct iovm_path *path);
	void (*remove)(struct iovm_path *path);
	void (*info)(struct iovm_path *path, struct iovm_path_info *info);
	void (*stats)(struct iovm_path *path, struct iovm_path_stats *stats);
};

#define IOVM_ADD_LIVE	1

/*
 * Per-cpu part of a path's statistics; summed in IOVM_PATH_STATS. inflight = sum(issued) -
 * sum(ended).
 */
struct iovm_path_pcpu {
	u64 issued[IOVM_OP_MAX];	/* counted when routed */
	u64 done[IOVM_OP_MAX];
	u64 bytes[IOVM_OP_MAX];
	u64 ended;		/* every issued request that came back, however */
	u64 request_errors;
	u64 path_errors;
	u64 retries;
	u64 media_errors;
	u64 no_space;
	u64 lat_ns[3][IOVM_HIST_BUCKETS];
};

/**
 * struct iovm_path - one way to a device's data
 * @ops: its type; constant like all down to @flags
 * @dev: whose
 * @name: NUL-terminated, zeroes behind
 * @addr: for people
 * @id: unique in the device, never used again
 * @slot: index below IOVM_MAX_PATHS, used again when the path is gone
 * @fence: IOVM_FENCE_*, resolved
 * @heartbeat_ms: for the type
 * @dead_ms: for the type
 * @io_timeout_ms: how long a request may take; IOVM_NO_TIMEOUT for ever
 * @pr_key: of IOVM_FENCE_BY_RESERVATION: its key; 0 with any other
 * @flags: IOVM_PATH_F_*, with exactly one of CACHE_*; constant
 * @fence_by: IOVM_FENCE_BY_*; for user space, like the next two; dev->lock
 * @fence_after_ms: how long it has failed when somebody begins to fence it; dev->lock
 * @fence_command: NUL-terminated, "" but for IOVM_FENCE_BY_COMMAND; dev->lock
 * @identity: of its data, NUL-terminated, "" when it shows none; dev->mutex
 * @node: in dev->paths, in order; dev->mutex, and dev->lock for writing
 * @state: enum iovm_path_state; written by iovm_path_set_state() under dev->lock
 * @state_ns: ktime_get_ns() when it was entered; dev->lock
 * @live_ns: ktime_get_ns() when it became live from a state that was not usable; dev->lock
 * @last_error: negative errno; dev->lock
 * @generation: dev->lock, read without it by READ_ONCE(); incremented each time the path becomes
 *	live from a state that was not usable
 * @replaced: how often ops->replace() has succeeded since @generation changed; dev->lock
 * @in_doubt: a write was sent here and came back so that it may still land, and nobody has fenced
 *	the path since, whatever became of the write; dev->lock
 * @held: writes that wait for a fence; dev->lock
 * @nr_held: dev->lock
 * @nr_media: medium errors; dev->lock
 * @nr_bound: writes that the class has back and that may only go here again; dev->lock
 * @had_error: a FIRST_ERROR event was emitted since it was last live; dev->lock
 * @fenced: it was fenced since it was last live; dev->lock
 * @fence_tries: how often it could not be fenced since it was last live or fenced; dev->lock
 * @fence_status: how the last of those ended, see struct iovm_path_ctl; dev->lock
 * @suspects: why it is suspect: IOVM_SUSPECT_*; 0 in every state but suspect; dev->lock
 * @retaken: requests were taken back from it, and have not all ended; dev->lock
 * @hung_ns: when the oldest of those was issued; dev->lock
 * @overdue_ms: how long its oldest request was under way when last looked, 0 when none is overdue;
 *	dev->lock
 * @slow: it is slow, or was left for that and has not shown that it is not; dev->lock, read
 *	without it by READ_ONCE()
 * @slow_ns: ktime_get_ns() when @slow changed last; dev->lock
 * @slow_usual_ns: with @slow: what was usual when it became so; dev->lock
 * @good_answers: with @slow, while it is not the route: heartbeats that were as they should be,
 *	less what others undo; dev->lock
 * @rtt_ns: what a heartbeat takes, smoothed, 0 when there was none since it failed; dev->lock
 * @rtt_at_ns: ktime_get_ns() of the last one; dev->lock
 * @slow_ended: sum(ended) when @drift->now was filled in last; dev->mutex
 * @drift: how its latencies have been; dev->mutex
 * @by_hand: failed by the operator: not probed until told so; dev->lock
 * @removing: an IOVM_PATH_REMOVE waits for it; dev->mutex, and dev->lock for writing
 * @probing: ops->probe() or measure() runs: the path stays, and so does the device; dev->lock,
 *	read without it by READ_ONCE()
 * @in_connect: ops->add() or connect() runs: iovm_path_fail() is only noted in @connect_error;
 *	dev->lock
 * @connect_error: dev->lock
 * @unflushed: holds writes acknowledged since its last successful FLUSH; set without a lock, see
 *	iovm_req_done()
 * @flushing: FLUSHes issued to it and not ended: what they are to cover may not be stable yet,
 *	although @unflushed says no more. Counted up before @unflushed is cleared, down after it
 *	was set again for a FLUSH that failed, that under dev->lock
 * @in_flush: ops->flush() has begun and iovm_flush_done() was not called yet; dev->lock
 * @flush_error: how the last one failed, 0 once somebody was told; dev->lock
 * @fail_work: calls ops->fail
 * @probe_work: calls ops->probe; a path's own: one that hangs must not keep others failed
 * @priv: ops's
 * @capacity: sectors, set by ops; dev->mutex
 * @block_size: bytes, set by ops; dev->mutex
 * @align_mask: memory address and length of every data segment must be clear of these bits, else
 *	the front end bounces; set by ops before the path is live
 * @virt_boundary: segments may not leave a gap across these address bits, else the front end
 *	bounces; likewise
 * @pcpu: statistics, and what is in flight
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
	u32 io_timeout_ms;
	u64 pr_key;
	u32 fence_by;
	u32 fence_after_ms;
	char fence_command[IOVM_ADDR_MAX];
	char identity[IOVM_IDENTITY_MAX];
	struct list_head node;
	enum iovm_path_state state;
	u64 state_ns;
	u64 live_ns;
	int last_error;
	u32 generation;
	u32 replaced;
	bool in_doubt;
	struct list_head held;
	u32 nr_held;
	u64 nr_media;
	u32 nr_bound;
	bool had_error;
	bool fenced;
	u32 fence_tries;
	int fence_status;
	u8 suspects;
	bool retaken;
	u64 hung_ns;
	u64 overdue_ms;
	bool slow;
	u64 slow_ns;
	u64 slow_usual_ns;
	u32 good_answers;
	u64 rtt_ns;
	u64 rtt_at_ns;
	u64 slow_ended;
	struct iovm_drift *drift;
	bool by_hand;
	bool removing;
	bool probing;
	bool in_connect;
	int connect_error;
	bool unflushed;
	atomic_t flushing;
	bool in_flush;
	int flush_error;
	struct work_struct fail_work;
	struct work_struct probe_work;
	void *priv;
	u64 capacity;
	u32 block_size;
	u32 align_mask;
	unsigned long virt_boundary;
	struct iovm_path_pcpu __percpu *pcpu;
};

/**
 * struct iovm_class - a device class
 * @id: IOVM_CLASS_*
 * @paths: IOVM_CLASS_* whose path types serve it
 * @name: for people
 * @owner: module
 * @create: process context, dev->mutex held: check arg's class part, make the node, set dev->fe.
 *	Fills msg on error
 * @destroy_prepare: process context, dev->mutex held: -EBUSY when a front end is open and !force;
 *	else no new front end can open, the open one (force) is stopped and its file answers
 *	ENODEV. After success no request of this device is in flight or will be made
 * @destroy: process context: remove the node, free dev->fe (the last close may free it later, it
 *	holds a reference)
 * @resize: process context, dev->mutex held: sectors; every path that is in use has so many.
 *	-EBUSY for less than before while a front end is there. May be NULL
 * @info: fill the class's part of struct iovm_dev_info. dev->mutex held. in_use: a front end is
 *	there, and a FLUSH its own affair
 * @complete: any context, no lock held: the request has ended. error 0, or a negative errno for
 *	the guest; -ECANCELED only for what iovm_dev_cancel() gives back
 * @requeue: any context, no lock held: the request came back from a path; release its mapping in a
 *	context that may and route it again
 * @route_changed: any context (hard irq too), no lock held: something that waited can go on (or
 *	can be failed), or dev->retake_seq has changed
 * @session_add: process context, dev->mutex held: take a client's sockets, set arg->id. Fills msg
 *	on error. NULL, like the next two, for classes whose front end opens a node
 * @session_remove: process context, dev->mutex held: begin to end one session, or all
 * @session_get: process context, dev->mutex held: the session with the lowest id not below info->id
 * @session_expire: process context, dev->mutex held: begin to end all sessions; what they have sent
 *	and was not issued is not issued any more. Each ends with iovm_fe_end()
 * @oldest: process context, no spinlock held: iovm_req.issue_ns of the oldest request that is at
 *	@path (a pointer to compare with, not to follow), 0 when there is none. It may be that of
 *	a request which ends just now. @writes, if not NULL: how many of those modify
 */
struct iovm_class {
	u32 id;
	u32 paths;
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
	u64 (*oldest)(struct iovm_dev *dev, const struct iovm_path *path, u32 *writes);
	int (*session_add)(struct iovm_dev *dev, struct iovm_session_add *arg);
	int (*session_remove)(struct iovm_dev *dev, u32 id);
	int (*session_get)(struct iovm_dev *dev, struct iovm_session_info *info);
	void (*session_expire)(struct iovm_dev *dev);
};

/*
 * Per-cpu part of a device's statistics. The mux counts requests and errors, the class throttled.
 */
struct iovm_dev_pcpu {
	u64 requests;
	u64 errors;
	u64 throttled;
};

/**
 * struct iovm_dev - a device: a front end and its paths
 * @class: constant like all down to @flags
 * @name: NUL-terminated, zeroes behind
 * @id: unique
 * @flags: IOVM_DEV_F_*
 * @fe: the class's own; constant between create and destroy
 * @mutex: serialises control operations on this device
 * @lock: irqsave spinlock, see the top of this file
 * @route: the path that takes requests, NULL when none; written under @lock, read under RCU
 * @state: enum iovm_dev_state; @lock
 * @suspended: by the operator; @lock
 * @failing: no_path_timeout_ms has passed; @lock, read without it as a hint
 * @dead: being destroyed; @mutex and @lock
 * @epoch: with IOVM_DEV_F_EPOCH: the one that it holds, or the last it had, or is being raised to;
 *	0 none yet; @mutex and @lock for writing
 * @epoch_held: it holds it; @lock
 * @epoch_giving: IOVM_DEV_EPOCH_GIVE waits: nothing is issued; @lock
 * @epoch_waiters: who waits to give it up, or for a target to hold it; @mutex
 * @nr_fe: queues of the front end that run, or sessions; @lock
 * @preferred: the current path, or the one chosen by hand: is the route while usable; @lock
 * @pinned: chosen by hand: no automatic failback while it is live; @lock
 * @paths: in order; see iovm_path.node
 * @nr_paths: in @paths; @mutex, and @lock for writing
 * @next_path_id: @mutex
 * @last_route_id: path id of the newest route, IOVM_NO_ID before the first; @lock
 * @route_ns: ktime_get_ns() when it became the route; @lock
 * @parked_ns: since when there is no route; @lock
 * @error_ns: ktime_get_ns() of the first error since requests last completed on the route, 0 when
 *	none; @lock
 * @switch_ns: ktime_get_ns() of the first error or the switch that the next completion ends, 0
 *	when none; @lock, read without it as a hint
 * @drainers: who waits in @wait for paths to become idle
 * @wait: woken when a path's state changes, and while there are @drainers whenever a request ends
 * @no_path_timeout_ms: 0 = never; @lock
 * @failback_after_ms: 0 = by hand only; @lock
 * @iops: limit, 0 = none; read by the front end without a lock (READ_ONCE)
 * @bps: likewise, bytes per second
 * @fail_parked: counts IOVM_DEV_FAIL_PARKED: a request that waits since an older count is failed;
 *	@lock
 * @nr_requeued: requests with IOVM_REQ_COUNTED
 * @requeues: statistics like all down to @pause_max_ns, see struct iovm_dev_stats; @lock
 * @reroutes: @lock
 * @parks: @lock
 * @fails: @lock
 * @pause_ns: histogram; @lock
 * @pause_max_ns: @lock
 * @retry: requests that ended with IOVM_RES_RETRY; @lock
 * @retry_ns: when the last one did; @lock
 * @retry_shift: back-off; @lock
 * @retry_work: gives @retry back to the class
 * @identity: of the data, NUL-terminated, "" until a path shows one; @mutex
 * @nospc: requests that wait for space; @lock
 * @nr_nospc: requests with IOVM_REQ_NOSPC; @lock
 * @nospc_ns: ktime_get_ns() when @nr_nospc became 1, 0 when it is 0; @lock
 * @nospc_wait: jiffies until @nospc is tried again; @lock
 * @no_space_timeout_ms: a request waits for space for so long at most, 0 = for ever; @lock
 * @nospc_work: gives @nospc back to the class, or fails it
 * @no_path_work: looks whether @no_path_timeout_ms has passed
 * @failback_work: looks whether an earlier path has been live for @failback_after_ms
 * @retakes: likewise; front end
 * @retake_seq: changes whenever requests may be taken back from a path, see iovm_req_may_retake();
 *	@lock for writing, read without it by READ_ONCE()
 * @hang_work: looks for requests that are overdue
 * @slow_factor: a path is slow at so many times what is usual, or IOVM_SLOW_OFF; @mutex and @lock
 *	for writing
 * @leave_slow_ms: the route is left when it has been slow for so long, 0 = never; @lock
 * @slow_left_ns: ktime_get_ns() when it was last, 0 = not yet; @lock
 * @slow_look_ns: ktime_get_ns() of the last look at latencies; @mutex
 * @slow_work: looks for paths that are slow
 * @fence_work: fences failed paths by reservations
 * @fence_at: jiffies when @fence_work comes, while it is pending; @lock
 * @fencing: the path by which another one is being fenced, and that one: both stay; @lock
 * @probe_work: has failed paths probed
 * @nr_probing: paths with ->probing; @lock
 * @ref: the table's and those of control operations that wait without @mutex
 * @pcpu: statistics
 */
struct iovm_dev {
	const struct iovm_class *class;
	char name[IOVM_NAME_MAX];
	u32 id;
	u32 flags;
	void *fe;
	struct mutex mutex;			/* control operations on this device */
	spinlock_t lock;			/* path states, the route, what waits */
	struct iovm_path __rcu *route;
	enum iovm_dev_state state;
	bool suspended;
	bool failing;
	bool dead;
	bool pinned;
	bool epoch_held;
	bool epoch_giving;
	u64 epoch;
	u32 epoch_waiters;
	u32 nr_fe;
	struct iovm_path *preferred;
	struct list_head paths;
	u32 nr_paths;
	u32 next_path_id;
	u32 last_route_id;
	u64 route_ns;
	u64 parked_ns;
	u64 error_ns;
	u64 switch_ns;
	atomic_t drainers;
	wait_queue_head_t wait;
	u64 no_path_timeout_ms;
	u64 failback_after_ms;
	u64 iops;
	u64 bps;
	u32 fail_parked;
	atomic_t nr_requeued;
	u64 requeues, reroutes, parks, fails;
	u64 pause_ns[IOVM_HIST_BUCKETS], pause_max_ns;
	struct list_head retry;
	u64 retry_ns;
	unsigned int retry_shift;
	struct delayed_work retry_work;
	char identity[IOVM_IDENTITY_MAX];
	struct list_head nospc;
	u32 nr_nospc;
	u64 nospc_ns;
	unsigned long nospc_wait;
	u64 no_space_timeout_ms;
	struct delayed_work nospc_work;
	struct delayed_work no_path_work;
	struct delayed_work failback_work;
	atomic64_t retakes;
	u32 retake_seq;
	struct delayed_work hang_work;
	u32 slow_factor;
	u64 leave_slow_ms;
	u64 slow_left_ns;
	u64 slow_look_ns;
	struct delayed_work slow_work;
	struct delayed_work fence_work;
	unsigned long fence_at;
	struct iovm_path *fencing[2];
	struct delayed_work probe_work;
	u32 nr_probing;
	struct kref ref;
	struct iovm_dev_pcpu __percpu *pcpu;
};

/* module.c: registration */

/**
 * iovm_class_register - make a device class known
 * @class: constant until unregistered
 *
 * Process context, may sleep. A device holds a reference of class->owner, so that a class with
 * devices cannot be unloaded.
 *
 * Return: 0, -EEXIST, or -EINVAL for an unknown id.
 */
int iovm_class_register(const struct iovm_class *class);

/**
 * iovm_class_unregister - the reverse; there are no devices of this class
 * @class: registered
 *
 * Process context, may sleep.
 */
void iovm_class_unregister(const struct iovm_class *class);

/**
 * iovm_path_type_register - make a path type known
 * @ops: constant until unregistered
 *
 * Process context, may sleep. A path holds a reference of ops->owner.
 *
 * Return: 0, -EEXIST, or -EINVAL for an unknown type.
 */
int iovm_path_type_register(const struct iovm_path_ops *ops);

/**
 * iovm_path_type_unregister - the reverse; there are no paths of this type
 * @ops: registered
 *
 * Process context, may sleep.
 */
void iovm_path_type_unregister(const struct iovm_path_ops *ops);

/* route.c, requeue.c: the data path */

/**
 * iovm_req_route - pick the path for a request
 * @req: from iovm_req_init(), or back by requeue() or -EAGAIN
 *
 * Any context. On success req->path is set and stays until iovm_req_done() or iovm_req_unroute().
 *
 * Return: 0; -EAGAIN wait for route_changed(); -EIO fail it: no path came in time, or the operator
 * said so.
 */
int iovm_req_route(struct iovm_req *req);

/**
 * iovm_req_unroute - a routed request will not be issued now
 * @req: routed
 *
 * Any context. It may be routed again later, or thrown away by iovm_req_drop().
 */
void iovm_req_unroute(struct iovm_req *req);

/**
 * iovm_req_drop - the front end throws away a request that it has back
 * @req: neither routed nor issued
 *
 * Any context. Needed for requests that requeue() gave back and that will not be routed again (the
 * front end stops); harmless for others.
 */
void iovm_req_drop(struct iovm_req *req);

/**
 * iovm_req_issue - give a routed request to its path
 * @req: routed
 * @now_ns: ktime_get_ns(), at most as old as a batch of requests takes to be given away; not older
 *	than the last route_changed()
 *
 * Front-end worker. The caller may not touch @req afterwards: it may have been completed or
 * requeued.
 */
void iovm_req_issue(struct iovm_req *req, u64 now_ns);

/**
 * iovm_req_done - a back end has ended a request
 * @req: issued
 * @res: how
 * @error: negative errno when @res is not IOVM_RES_OK
 *
 * Any context, hard irq too; no lock that a class callback could take may be held. The path stays
 * until this returns.
 */
void iovm_req_done(struct iovm_req *req, enum iovm_result res, int error);

/**
 * iovm_req_may_retake - may the front end issue elsewhere what is still at a back end?
 * @req: issued and not back, or just coming back
 * @bounced: the back end reads into pages that are not the guest's
 *
 * Any context. True, while there is another route, for what its path owes for too long and what
 * cannot do harm when it ends after all: a bounced read, or a flush, on a path that is suspect or
 * failed; anything that modifies, on a failed path that was fenced. The request itself stays the
 * back end's until it is ended as always; who takes it back makes another one, and throws this one
 * away when it comes.
 */
bool iovm_req_may_retake(struct iovm_req *req, bool bounced);

/**
 * iovm_req_hangs - does a path keep a request for too long?
 * @req: issued and not back, or just coming back
 *
 * Any context. True when the path is overdue or has failed, and there is another route: what the
 * front end gives to requests by number need not count this one any more.
 */
bool iovm_req_hangs(const struct iovm_req *req);

/**
 * iovm_dev_cancel - give back what the mux keeps
 * @dev: whose front end stops
 * @held: also what is held for a fence. False when a successor will issue it again: it has to wait
 *	for the fence as well
 *
 * Any context, no lock held. Every request of this device that waits for a retry or for space, or
 * is held and not to be, goes to class->complete(-ECANCELED). Requests in flight are not touched:
 * they may still be held afterwards, so call this again until the front end has everything back.
 */
void iovm_dev_cancel(struct iovm_dev *dev, bool held);

/* epoch.c */

/**
 * iovm_fe_begin - a queue of a front end starts, or a session begins
 * @dev: whose
 *
 * Process context; before its first request. A device whose EPOCH_GIVE waits keeps its epoch.
 */
void iovm_fe_begin(struct iovm_dev *dev);

/**
 * iovm_fe_end - the queue has stopped, or the session has ended
 * @dev: whose; it may go as soon as this returns
 *
 * Process context; it has no request any more.
 */
void iovm_fe_end(struct iovm_dev *dev);

/* flush.c */

/**
 * iovm_flush_done - what path->ops->flush() began has ended
 * @path: which; it may be gone when this returns
 * @error: 0 everything acknowledged before is stable; or a negative errno: the path has failed
 *
 * Any context, no lock held.
 */
void iovm_flush_done(struct iovm_path *path, int error);

/* path.c */

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
 * @path: whose
 * @suspect: which of both
 *
 * Any context. Without effect on a path that is neither live nor suspect.
 */
void iovm_path_suspect(struct iovm_path *path, bool suspect);

/**
 * iovm_path_fits - is a path large enough for its device, and not too large?
 * @path: about to be added or connected; dev->mutex is held
 * @bytes: its size
 * @sectors: the device's
 * @id: the identity of its data, "" when it shows none
 * @msg: IOVM_MSG_MAX bytes: why not
 *
 * It may be larger only where it is known to be the same data, grown: it shows the device's
 * identity, or the operator has said so. Else the size is what tells that it may be other data.
 *
 * Return: 0 or -EMEDIUMTYPE.
 */
int iovm_path_fits(const struct iovm_path *path, u64 bytes, u64 sectors, const char *id, char *msg);

/**
 * iovm_path_answered - a path that carries nothing has answered a heartbeat
 * @path: whose
 * @rtt_ns: how long a small read took
 *
 * Any context. Tells what the path could give, when another one is slow.
 */
void iovm_path_answered(struct iovm_path *path, u64 rtt_ns);

/**
 * iovm_dev_may_fetch - cheap test whether taking a new request from a ring makes sense now
 * @dev: whose front end asks
 *
 * True when there is a route, or when requests are to be failed. Any context.
 */
static inline bool iovm_dev_may_fetch(struct iovm_dev *dev)
{
	return rcu_access_pointer(dev->route) || READ_ONCE(dev->failing);
}

/* event.c */

/**
 * iovm_event_emit - append to the event stream
 * @dev: what it is about, NULL when no device
 * @path: and which of its paths, NULL when none
 * @type: enum iovm_event_type
 * @old_state: enum iovm_path_state, IOVM_EV_PATH_STATE only
 * @new_state: likewise
 * @error: negative errno or 0
 * @value: see the type
 *
 * Any context, under any lock but event.c's own.
 */
void iovm_event_emit(struct iovm_dev *dev, struct iovm_path *path, u32 type, u32 old_state,
		     u32 new_state,
		     int error, u64 value);

#endif /* _IOVM_MUX_H */
