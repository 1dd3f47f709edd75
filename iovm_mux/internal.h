/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of iovm_mux share among themselves.
 *
 *	module.c   classes and path types, init and exit
 *	control.c  /dev/iovm-mux: ioctl dispatch, growable structs, messages
 *	device.c   devices: create, destroy, look-up, suspend, failover, limits
 *	admin.c    paths as the operator sees them: add, connect, remove, probe, fence
 *	path.c     path states and the route that follows from them
 *	route.c    the data path as long as all is well
 *	requeue.c  and when it is not: errors, held writes, retries, cancel
 *	nospace.c  requests that wait for space on a thin-provisioned store
 *	identity.c do all paths of a device lead to the same data?
 *	hang.c     requests that are overdue: suspect, failed, taken back
 *	fence.c    when may what a failed path had be issued elsewhere?
 *	flush.c    what was acknowledged is made stable before its path goes
 *	epoch.c    who may write: epochs are taken and given up
 *	slow.c     paths that are slower than they used to be
 *	drift.c    how that is decided, free of everything else
 *	event.c    the event stream
 *	stats.c    sums over CPUs
 *	policy.c   the decisions, free of everything else
 */
#ifndef _IOVM_INTERNAL_H
#define _IOVM_INTERNAL_H

#include <linux/sched.h>

#include "mux.h"

#ifndef IOVM_RELEASE
#define IOVM_RELEASE	"0.1.0"
#endif

#define IOVM_MS_MAX	(3600 * 1000)	/* of what a path waits for */
#define IOVM_PROBE_MS	2000	/* between two probes of a failed path */
#define IOVM_BAD_PAD	"padding is not zero"

struct file;
struct poll_table_struct;

/**
 * struct iovm_todo - what to do once dev->lock is dropped
 * @requeue: requests for class->requeue()
 * @complete: requests for class->complete(@error)
 * @error: negative errno
 * @wake: class->route_changed() is due
 */
struct iovm_todo {
	struct list_head requeue;
	struct list_head complete;
	int error;
	bool wake;
};

static inline void iovm_todo_init(struct iovm_todo *todo)
{
	INIT_LIST_HEAD(&todo->requeue);
	INIT_LIST_HEAD(&todo->complete);
	todo->error = -EIO;
	todo->wake = false;
}

extern struct workqueue_struct *iovm_wq;

/* module.c; under a reference of the owner, to be dropped by module_put() */
const struct iovm_class *iovm_class_get(u32 id);
const struct iovm_path_ops *iovm_path_type_get(u32 type);
void iovm_types_mask(u64 *classes, u64 *path_types);

/* control.c */
int iovm_control_init(void);
void iovm_control_exit(void);
__printf(3, 4) int iovm_refuse(int err, char *msg, const char *fmt, ...);
int iovm_refuse_name(char *msg);

/* device.c */
struct iovm_dev *iovm_dev_find(const char *name, u32 id, char *msg);
struct iovm_dev *iovm_dev_named(const char *name, char *msg);
void iovm_dev_release(struct iovm_dev *dev);
int iovm_dev_drain(struct iovm_dev *dev, struct iovm_path *path);
int iovm_dev_create(struct iovm_dev_create *arg);
int iovm_dev_destroy(struct iovm_dev_destroy *arg);
int iovm_dev_ctl(struct iovm_dev_ctl *arg);
void iovm_devices_exit(void);

/* admin.c */
int iovm_path_add(struct iovm_path_add *arg);
int iovm_path_connect(struct iovm_path_connect *arg);
int iovm_path_remove(struct iovm_path_remove *arg);
int iovm_path_ctl(struct iovm_path_ctl *arg);
struct iovm_path *iovm_path_find(struct iovm_dev *dev, const char *name, u32 id);
void iovm_path_destroy(struct iovm_path *path);
void iovm_probe_work(struct work_struct *work);
void iovm_probing_begin(struct iovm_path *path);
void iovm_probing_end(struct iovm_path *path);

/* replace.c; dev->mutex */
int iovm_path_replace(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg);

/* path.c; all but the works under dev->lock */
bool iovm_path_set_state(struct iovm_path *path, enum iovm_path_state state, int error,
			 struct iovm_todo *todo);
void iovm_path_error(struct iovm_path *path, int error, struct iovm_todo *todo);
void iovm_arm(struct iovm_dev *dev, struct delayed_work *work, u64 ms);
void iovm_route_update(struct iovm_dev *dev, struct iovm_todo *todo);
void iovm_route_switch(struct iovm_dev *dev, struct iovm_path *path, bool pin,
		       struct iovm_todo *todo);
int iovm_path_states(struct iovm_dev *dev, enum iovm_path_state *state, struct iovm_path **paths,
		     const struct iovm_path *cur, int *cur_index);
void iovm_no_path_arm(struct iovm_dev *dev);
void iovm_failback_arm(struct iovm_dev *dev);
void iovm_probe_arm(struct iovm_dev *dev);
void iovm_no_path_work(struct work_struct *work);
void iovm_failback_work(struct work_struct *work);
void iovm_fail_work(struct work_struct *work);

/* route.c */
bool iovm_path_take(struct iovm_path *path, struct iovm_req *req);
void iovm_req_finish(struct iovm_req *req, int error);

/*
 * Ends the section in which a request of a path of @dev was counted off. Who waits for that is
 * woken inside a section that may take wait queue locks under PREEMPT_RT; it begins before the
 * other one ends.
 */
static inline void iovm_path_count_end(struct iovm_dev *dev)
{
	if (likely(!atomic_read(&dev->drainers))) {
		rcu_read_unlock_sched();
		return;
	}
	rcu_read_lock();
	rcu_read_unlock_sched();
	wake_up(&dev->wait);
	rcu_read_unlock();
}

/* nospace.c; all but the work under dev->lock */
void iovm_nospc_hold(struct iovm_path *path, struct iovm_req *req, bool bind);
void iovm_nospc_end(struct iovm_req *req, bool served);
u32 iovm_nospc_end_all(struct iovm_dev *dev, struct iovm_todo *todo);
void iovm_nospc_kick(struct iovm_dev *dev);
void iovm_nospc_arm(struct iovm_dev *dev);
void iovm_nospc_work(struct work_struct *work);

/* identity.c; dev->mutex */
int iovm_identity_check(const char *id, char *msg);
int iovm_identity_admit(const struct iovm_path *path, const char *id, char *msg);
int iovm_identity_connect(const struct iovm_path *path, const char *id, char *msg);
void iovm_identity_take(struct iovm_path *path, const char *id);

/* requeue.c */
void iovm_req_wait(struct iovm_dev *dev, struct iovm_req *req);
void iovm_req_unwait(struct iovm_dev *dev, struct iovm_req *req);
void iovm_req_bind(struct iovm_path *path, struct iovm_req *req);
void iovm_req_unbind(struct iovm_dev *dev, struct iovm_req *req);
int iovm_req_route_slow(struct iovm_req *req);
void iovm_req_settle(struct iovm_req *req, int error);
void iovm_req_error(struct iovm_req *req, enum iovm_result res, int error);
bool iovm_req_flush_rest(struct iovm_req *req);
void iovm_first_completion(struct iovm_path *path, u64 issue_ns);
u32 iovm_held_release(struct iovm_path *path, bool bind, struct iovm_todo *todo);
u32 iovm_held_fail(struct iovm_dev *dev, struct iovm_path *only, struct iovm_todo *todo);
void iovm_todo_run(struct iovm_dev *dev, struct iovm_todo *todo);
void iovm_retry_work(struct work_struct *work);

/* hang.c; all but the work under dev->lock */
void iovm_hang_arm(struct iovm_dev *dev);
void iovm_hang_work(struct work_struct *work);
void iovm_retake_changed(struct iovm_dev *dev, struct iovm_todo *todo);
void iovm_path_set_suspect(struct iovm_path *path, u8 why, bool suspect, struct iovm_todo *todo);

/* fence.c; all but the work and the next two under dev->lock, the ioctls under dev->mutex too */
void iovm_fence_arm(struct iovm_dev *dev, u64 ms);
void iovm_fence_work(struct work_struct *work);
bool iovm_path_is_fencing(const struct iovm_path *path);
int iovm_fence_check(struct iovm_path_add *arg);
int iovm_path_fenced(struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg);
int iovm_path_fence_failed(struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg);
int iovm_path_set_fence(struct iovm_path *path, const struct iovm_path_ctl *arg, char *msg);
void iovm_path_drained(struct iovm_path *path);
void iovm_fence_info(struct iovm_path *path, u32 writes, struct iovm_path_info *info);

/* flush.c; dev->mutex */
bool iovm_path_flush(struct iovm_path *path);
int iovm_path_flush_failed(struct iovm_path *path, char *msg);
int iovm_dev_flush_paths(struct iovm_dev *dev, char *msg);
int iovm_dev_flush(struct iovm_dev *dev, char *msg);

/* epoch.c; the first under dev->lock, the others under dev->mutex */
bool iovm_dev_lacks_epoch(const struct iovm_dev *dev);
int iovm_epoch_check(const struct iovm_dev_create *arg, char *msg);
int iovm_epoch_take(struct iovm_dev *dev, u64 epoch, char *msg);
int iovm_epoch_give(struct iovm_dev *dev, u64 epoch, char *msg);
int iovm_epoch_admits(struct iovm_dev *dev, u64 epoch, char *msg);

/* slow.c */
struct iovm_drift *iovm_slow_alloc(void);
void iovm_slow_arm(struct iovm_dev *dev);
void iovm_slow_work(struct work_struct *work);
void iovm_slow_failed(struct iovm_path *path);
int iovm_slow_check(u64 factor, char *msg);
void iovm_slow_set_factor(struct iovm_dev *dev, u32 factor);
void iovm_slow_info(struct iovm_path *path, struct iovm_path_info *info);

/* event.c */
void iovm_event_emit_slow(struct iovm_path *path, u32 type, u32 op, u64 value, u64 value2);
struct iovm_reader;
int iovm_events_init(void);
void iovm_events_exit(void);
struct iovm_reader *iovm_reader_new(void);
void iovm_reader_free(struct iovm_reader *reader);
ssize_t iovm_reader_read(struct iovm_reader *reader, struct file *file, char __user *buf,
			 size_t len);
__poll_t iovm_reader_poll(struct iovm_reader *reader, struct file *file,
			  struct poll_table_struct *wait);
int iovm_reader_from(struct iovm_reader *reader, struct iovm_events_from *arg);

/* stats.c; dev->mutex or dev->lock, which keep the paths */
u64 iovm_path_inflight(struct iovm_path *path);
void iovm_dev_info_fill(struct iovm_dev *dev, struct iovm_dev_info *info);
void iovm_dev_stats_fill(struct iovm_dev *dev, struct iovm_dev_stats *stats);
void iovm_path_info_fill(struct iovm_path *path, struct iovm_path_info *info);
void iovm_path_stats_fill(struct iovm_path *path, struct iovm_path_stats *stats);

#endif /* _IOVM_INTERNAL_H */
