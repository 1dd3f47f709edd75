/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The vhost device core: map, and what a device class sees of it.
 *
 *	main.c     module, character device numbers
 *	node.c     /dev/vhost-iovm/NAME: open, close, who may
 *	ioctl.c    the vhost ioctl ABI
 *	mem.c      the guest's memory table, address translation, pinned rings
 *	vq.c       a virtqueue's life: start, stop, complete, break
 *	worker.c   threads that serve queues, in the owner's address space
 *	log.c      the dirty log
 *	ring.c     the split ring on plain pointers (also built in user space)
 *	inflight.c the record of what is in flight, for a successor (also built in user space)
 *
 * Objects. A node (struct viovm_node) lives as long as its device. Each open() makes one struct
 * viovm_dev, the front-end instance; there is one at a time. Its queues (struct viovm_vq) start
 * with their kick fd and stop with GET_VRING_BASE or with the last close, which lets what is in
 * flight finish in the background before the node can be opened again.
 *
 * Locks, outermost first:
 *	viovm_node.mutex	open, the end of a front end, the end of the device. Sleeping
 *	viovm_dev.mutex		ioctls, one at a time. Sleeping
 *	viovm_vq.mutex		a queue's worker while it serves, and ioctls that change
 *				what it uses. Sleeping
 *	viovm_log.flush_mutex	writing the log to user memory. Sleeping
 *	viovm_vq.lock		irqsave spinlock: what completions touch (used ring,
 *				dirty log, in-flight record). Never held across
 *				eventfd_signal() or submit_bio(), never taken in a wake-up callback
 */
#ifndef _VHOST_IOVM_H
#define _VHOST_IOVM_H

#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/llist.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/spinlock.h>
#include <linux/vhost.h>
#include <linux/vhost_iotlb.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "../uapi/vhost_iovm.h"
#include "inflight.h"
#include "ring.h"

struct viovm_dev;
struct viovm_node;
struct viovm_vq;
struct viovm_worker;

/* Ring features that every class has */
#define VIOVM_RING_FEATURES \
	(BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) | BIT_ULL(VIRTIO_RING_F_EVENT_IDX) | \
	 BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ANY_LAYOUT) | BIT_ULL(VHOST_F_LOG_ALL))

/**
 * struct viovm_class - a device class
 * @owner: module
 * @device_id: virtio device id
 * @num_vqs: queues of this node
 * @ring_max: largest ring, descriptors
 * @ring_size: ring that the device suggests
 * @features: virtio feature bits of the class, ring bits not included
 * @config_size: bytes of configuration space, 0: none
 * @live_setup: queues start and stop by an ioctl of the class's, as vhost_net has it: the kick
 *	fd, features and addresses may change while they run, and a ring that the guest broke is
 *	looked at again at the next kick
 * @one_worker: all queues share a worker, that the owner gets with VHOST_SET_OWNER
 * @eager: workers are never patient, see pace.c
 * @get_config: copy @len bytes of it from @off, both checked; may not sleep long
 * @ioctl: any ioctl, dev->mutex held; -ENOIOCTLCMD: the core's to answer. May be NULL
 * @opened: a front end came. Process context, node->mutex held. 0 or an errno that open() returns
 * @closed: it is gone for good, nothing is in flight. Process context, node->mutex held. Not
 *	called once viovm_node_retire() has succeeded
 * @vq_start: owner's process, vq->mutex held: allocate what the queue needs, set vq->priv
 * @vq_stop: nothing is in flight, the worker will not come again: free it. Process context
 * @vq_run: worker, vq->mutex held: serve. True when there is more to do at once
 * @vq_drop: the owner is dead, vq->dead is set, the worker is gone: end what waits on a
 *	list with viovm_vq_drop_one().
 *	Process context, vq->mutex held
 * @vq_broken: the guest broke the ring. Worker
 */
struct viovm_class {
	struct module *owner;
	u32 device_id;
	u32 num_vqs;
	u32 ring_max;
	u32 ring_size;
	u64 features;
	u32 config_size;
	bool live_setup;
	bool one_worker;
	bool eager;
	void (*get_config)(struct viovm_node *node, u32 off, void *buf, u32 len);
	long (*ioctl)(struct viovm_dev *dev, unsigned int cmd, void __user *argp);
	int (*opened)(struct viovm_node *node, struct viovm_dev *dev);
	void (*closed)(struct viovm_node *node);
	int (*vq_start)(struct viovm_vq *vq);
	void (*vq_stop)(struct viovm_vq *vq);
	bool (*vq_run)(struct viovm_vq *vq);
	void (*vq_drop)(struct viovm_vq *vq);
	void (*vq_broken)(struct viovm_vq *vq, int error);
};

/**
 * struct viovm_node - a device's node
 * @class: constant; the instance's own copy, filled in by the device class
 * @priv: the class's
 * @name: constant
 * @device: holds the node's memory: freed by its last put
 * @cdev: character device
 * @minor: constant; VIOVM_NO_MINOR: nobody finds it, it is one front end's alone
 * @mode, @uid, @gid: of the node, constant
 * @mutex: protects @cur and @gone; taken outside of viovm_dev.mutex
 * @cur: the front end, NULL when none (and the last one's requests are finished); RCU,
 *	written under @mutex
 * @gone: the device is being destroyed: no new front end
 * @lock: protects @config_call
 * @config_call: signalled when the configuration changes; belongs to @cur
 * @log_left: what the last front end could not write to its VMM's log, or NULL; under the mutex of
 *	the front end that there is
 */
struct viovm_node {
	struct viovm_class class;
	void *priv;
	char name[64];
	struct device device;
	struct cdev cdev;
	u32 minor;
	umode_t mode;
	kuid_t uid;
	kgid_t gid;
	struct mutex mutex;
	struct viovm_dev __rcu *cur;
	bool gone;
	spinlock_t lock;
	struct eventfd_ctx *config_call;
	struct viovm_log_map *log_left;
};

/**
 * struct viovm_mapping - user pages pinned long-term and mapped into the kernel
 * @addr: the user address's kernel alias
 * @base: page-aligned start of the mapping
 * @pages: pinned
 * @npages: number of @pages, charged to the owner's locked memory
 */
struct viovm_mapping {
	void *addr;
	void *base;
	struct page **pages;
	unsigned long npages;
};

/**
 * struct viovm_call - a call eventfd, freed after an RCU grace period
 * @ctx: the eventfd
 * @rcu: for kfree_rcu
 */
struct viovm_call {
	struct eventfd_ctx *ctx;
	struct rcu_head rcu;
};

/**
 * struct viovm_vq - a virtqueue
 * @dev: constant
 * @index: constant
 * @priv: the class's, between vq_start and vq_stop
 * @mutex: see the top of this file
 * @lock: see the top of this file
 * @ring: fetching side: @mutex; completing side: @lock
 * @inflight: the in-flight record; record: constant while running; fetching side: @mutex;
 *	completing side: @lock
 * @resubmit: heads that the record named at the start, to be served first, newest first; NULL
 *	when there is no record; @mutex
 * @nr_resubmit: how many of them are left; @mutex, and @lock for writing while running
 * @running: started and not stopped; @mutex and dev->mutex for writing, read without them for
 *	display
 * @stopping: GET_VRING_BASE waits: fetch nothing new; @mutex
 * @broken: the guest broke the ring: fetch nothing; @mutex
 * @dead: the owner is gone: complete nothing to the guest; written once under @lock
 * @num, @base, @addr: as set by ioctl; dev->mutex, and @mutex while running
 * @log_used: log writes to the used ring, F_LOG; @lock
 * @log_addr: guest physical address of the used ring; @lock
 * @desc_map, @avail_map, @used_map: dev->mutex
 * @record: the in-flight record's place as set by ioctl, addr 0: none; dev->mutex
 * @record_map: dev->mutex
 * @call: RCU; written under dev->mutex
 * @err: error eventfd; dev->mutex for writing, @mutex for use
 * @kick: file of the kick eventfd; dev->mutex
 * @kick_wait, @kick_wqh, @kick_pt: our entry in its wait queue
 * @worker: who serves it; dev->mutex for writing; read by who kicks under RCU, by the worker itself
 * @attached: worker chosen by ATTACH_VRING_WORKER, NULL: its own; dev->mutex
 * @work: in worker->work while @queued
 * @queued: bit 0: on the worker's list
 * @fetched: requests taken from the ring; worker, under @mutex; completions look at it while
 *	@stopping or @dead
 * @completed: requests given back; @lock
 * @drain: woken when @completed reaches @fetched while @stopping or @dead
 * @mem: the device's memory table; @mutex
 * @map_cache: last region of @mem used for translation; @mutex
 */
struct viovm_vq {
	struct viovm_dev *dev;
	u32 index;
	void *priv;
	struct mutex mutex;
	struct viovm_ring ring ____cacheline_aligned_in_smp;
	struct viovm_inflight inflight;
	struct viovm_inflight_item *resubmit;
	u16 nr_resubmit;
	bool running;
	bool stopping;
	bool broken;
	u32 num;
	u16 base;
	struct vhost_vring_addr addr;
	struct viovm_mapping desc_map;
	struct viovm_mapping avail_map;
	struct viovm_mapping used_map;
	struct vhost_iovm_inflight record;
	struct viovm_mapping record_map;
	struct eventfd_ctx *err;
	struct file *kick;
	wait_queue_entry_t kick_wait;
	wait_queue_head_t *kick_wqh;
	poll_table kick_pt;
	struct viovm_worker *worker;
	struct viovm_worker *attached;
	struct llist_node work;
	unsigned long queued;
	u64 fetched;
	struct vhost_iotlb *mem;
	struct vhost_iotlb_map *map_cache;

	spinlock_t lock ____cacheline_aligned_in_smp;
	struct viovm_call __rcu *call;
	bool dead;
	bool log_used;
	u64 log_addr;
	u64 completed;
	wait_queue_head_t drain;
};

/**
 * struct viovm_log_map - guest pages written and not yet in the VMM's log
 * @nbits: guest pages covered
 * @sum: one bit per 4096 pages: something in there is set
 * @bits: one bit per page; atomic bit operations
 */
struct viovm_log_map {
	u64 nbits;
	unsigned long *sum;
	unsigned long bits[];
};

/**
 * struct viovm_log - the dirty log
 * @map: RCU; not NULL while logging; written under dev->mutex
 * @user: user address of the VMM's log; @flush_mutex
 * @user_set: @user means something; @flush_mutex
 * @npages: guest pages that the memory table knows, and so the VMM's log; @flush_mutex
 * @eventfd: signalled after the VMM's log was written, or NULL; @flush_mutex
 * @pending: bit 0: something may be set and @work is queued
 * @flush_mutex: one writer to user memory at a time
 * @work: writes the log out soon
 */
struct viovm_log {
	struct viovm_log_map __rcu *map;
	u64 user;
	bool user_set;
	u64 npages;
	struct eventfd_ctx *eventfd;
	unsigned long pending;
	struct mutex flush_mutex;
	struct delayed_work work;
};

/**
 * struct viovm_dev - a front-end instance
 * @node: holds a reference
 * @mutex: see the top of this file
 * @mm: the owner's address space, NULL before SET_OWNER; mmgrab()ed; @mutex
 * @owner_pid: for display
 * @acked: negotiated features; @mutex, constant while a queue runs, but for LOG_ALL; all of them
 *	may change under every queue's mutex with class.live_setup
 * @mem: memory table; @mutex (each queue has its own pointer to it)
 * @log: dirty log
 * @shut: shut down: every ioctl answers ENODEV; @mutex
 * @abort: a forced end waits for @mutex: stop waiting for requests; READ_ONCE
 * @lent: the socket to the VMM, or NULL; given back when the node is free again; @mutex
 * @nvqs: constant
 * @vqs: constant
 * @workers: by id; @mutex
 * @release_work: the end of the instance, in the background
 */
struct viovm_dev {
	struct viovm_node *node;
	struct mutex mutex;
	struct mm_struct *mm;
	struct pid *owner_pid;
	u64 acked;
	struct vhost_iotlb *mem;
	struct viovm_log log;
	bool shut;
	bool abort;
	struct file *lent;
	u32 nvqs;
	struct viovm_vq *vqs;
	struct xarray workers;
	struct work_struct release_work;
};

#define VIOVM_NO_MINOR	U32_MAX

/* node.c */
struct viovm_node *viovm_node_create(const char *name, umode_t mode, kuid_t uid, kgid_t gid,
				     const struct viovm_class *class, void *priv);
int viovm_node_retire(struct viovm_node *node, bool force);
void viovm_node_destroy(struct viovm_node *node);
struct viovm_dev *viovm_dev_open_alone(const char *name, const struct viovm_class *class,
				       void *priv);
void viovm_dev_close(struct viovm_dev *dev);
void viovm_node_config_changed(struct viovm_node *node);
void viovm_node_kick_all(struct viovm_node *node);
void viovm_node_owner(struct viovm_node *node, u32 *in_use, u32 *pid, u32 *running);
void viovm_dev_config_call(struct viovm_dev *dev, struct eventfd_ctx *ctx);
struct file *viovm_dev_lend(struct viovm_dev *dev, struct file *file);
int viovm_nodes_init(void);
void viovm_nodes_exit(void);

/* ioctl.c */
long viovm_dev_ioctl(struct viovm_dev *dev, unsigned int cmd, unsigned long arg);
bool viovm_dev_running(struct viovm_dev *dev);
u64 viovm_dev_features(const struct viovm_dev *dev);

/* mem.c */
int viovm_mem_set(struct viovm_dev *dev, const struct vhost_memory __user *arg);
u64 viovm_mem_last(struct vhost_iotlb *mem);
int viovm_map(struct viovm_dev *dev, u64 uaddr, size_t len, struct viovm_mapping *m);
void viovm_unmap(struct viovm_dev *dev, struct viovm_mapping *m);
long viovm_translate(struct viovm_vq *vq, u64 gpa, u64 len, bool write, u64 *uaddr);
int viovm_copy_from_guest(struct viovm_vq *vq, void *to, u64 gpa, u32 len);
int viovm_copy_to_guest(struct viovm_vq *vq, u64 gpa, const void *from, u32 len);

/* vq.c */
void viovm_vq_init(struct viovm_dev *dev, struct viovm_vq *vq, u32 index);
int viovm_vq_start(struct viovm_vq *vq);
int viovm_vq_stop(struct viovm_vq *vq);
void viovm_vq_kill(struct viovm_vq *vq);
bool viovm_vq_wait_dead(struct viovm_vq *vq, long timeout);
void viovm_vq_finish(struct viovm_vq *vq);
void viovm_vq_set_kick(struct viovm_vq *vq, struct file *kick);
int viovm_vq_set_addr(struct viovm_vq *vq, const struct vhost_vring_addr *addr);
int viovm_vq_set_call(struct viovm_vq *vq, struct eventfd_ctx *ctx);
void viovm_vq_kick(struct viovm_vq *vq);
void viovm_vq_log(struct viovm_vq *vq, u64 gpa, u64 len);
void viovm_vq_complete(struct viovm_vq *vq, u16 head, u32 written);
void viovm_vq_complete_n(struct viovm_vq *vq, const struct viovm_used *used, u32 n);
void viovm_vq_drop_one(struct viovm_vq *vq);
void viovm_vq_break(struct viovm_vq *vq, int error);
bool viovm_vq_kick_on(struct viovm_vq *vq);
void viovm_vq_kick_off(struct viovm_vq *vq);

/* worker.c */
void viovm_worker_queue(struct viovm_worker *w, struct viovm_vq *vq);
void viovm_worker_idle(struct viovm_vq *vq);
bool viovm_worker_wanted(const struct viovm_vq *vq);
int viovm_worker_share(struct viovm_dev *dev);
void viovm_worker_drop(struct viovm_vq *vq);
void viovm_workers_stop(struct viovm_dev *dev);
int viovm_worker_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp);
int viovm_worker_get(struct viovm_vq *vq);

/* log.c */
int viovm_log_enable(struct viovm_dev *dev, bool on);
int viovm_log_set_base(struct viovm_dev *dev, u64 uaddr);
int viovm_log_set_fd(struct viovm_dev *dev, int fd);
int viovm_log_grow(struct viovm_dev *dev, struct vhost_iotlb *mem);
void viovm_log_mark(struct viovm_log *log, struct viovm_log_map *map, u64 gpa, u64 len);
int viovm_log_flush(struct viovm_dev *dev);
void viovm_log_init(struct viovm_dev *dev);
void viovm_log_free(struct viovm_dev *dev);
void viovm_log_drop_left(struct viovm_node *node);

/* For completions and the worker: may the guest's ring still be written? */
static inline bool viovm_vq_dead(const struct viovm_vq *vq)
{
	return READ_ONCE(vq->dead);
}

/*
 * Does the guest's dirty log want to know what is written? What was written before the answer no
 * was written before viovm_log_enable() returned, and so before anybody copies the guest's memory.
 */
static inline bool viovm_vq_logs(const struct viovm_vq *vq)
{
	return rcu_access_pointer(vq->dev->log.map);
}

/*
 * May the worker take a request? vq->mutex held. What a predecessor had taken is served even when
 * the queue is about to stop: the next head to serve could not be told otherwise.
 */
static inline bool viovm_vq_may_fetch(const struct viovm_vq *vq)
{
	return vq->running && !vq->broken && (!vq->stopping || vq->nr_resubmit);
}

/**
 * viovm_vq_peek - the next head to serve, not yet taken
 * @vq: queue; vq->mutex held, from the worker
 * @head: out
 *
 * Heads that the in-flight record names come before the ring's.
 * Return: as viovm_ring_peek().
 */
static inline int viovm_vq_peek(struct viovm_vq *vq, u16 *head)
{
	if (unlikely(vq->nr_resubmit)) {
		*head = vq->resubmit[vq->nr_resubmit - 1].head;
		return 1;
	}
	return viovm_ring_peek(&vq->ring, head);
}

/**
 * viovm_vq_take - take what viovm_vq_peek() found: it will be completed or dropped
 * @vq: queue; vq->mutex held, from the worker
 * @head: from viovm_vq_peek()
 */
static inline void viovm_vq_take(struct viovm_vq *vq, u16 head)
{
	lockdep_assert_held(&vq->mutex);
	if (unlikely(vq->nr_resubmit)) {
		/* it counts as taken in ring and record; who waits for the end of both sees both */
		spin_lock_irq(&vq->lock);
		vq->fetched++;
		vq->nr_resubmit--;
		spin_unlock_irq(&vq->lock);
		return;
	}
	/* a completion after the end of the owner may look at it just now */
	WRITE_ONCE(vq->fetched, vq->fetched + 1);
	viovm_ring_take(&vq->ring);
	if (vq->inflight.record)
		viovm_inflight_take(&vq->inflight, head);
}

/**
 * viovm_vq_untake - put the last heads that were taken back into the ring
 * @vq: queue without an in-flight record; vq->mutex held since they were taken, from the worker
 * @n: how many
 */
static inline void viovm_vq_untake(struct viovm_vq *vq, u32 n)
{
	lockdep_assert_held(&vq->mutex);
	WRITE_ONCE(vq->fetched, vq->fetched - n);
	viovm_ring_untake(&vq->ring, n);
}

#endif /* _VHOST_IOVM_H */
