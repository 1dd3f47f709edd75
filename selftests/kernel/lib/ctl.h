/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * /dev/iovm-mux: one thin function an ioctl, and a reader of events that can wait for one.
 *
 * Functions return 0 or a negative errno; the kernel's sentence is in ctl_msg then. The ctl_must_* forms end the test case
 * on an error.
 */
#ifndef CTL_H
#define CTL_H

#include <stdbool.h>
#include "iovm.h"
#include "vdrv.h"

extern char ctl_msg[IOVM_MSG_MAX];

/* Loads the modules (from $IOVM_MODULES if set, else by modprobe) and opens the node: NULL or why not. */
const char *ctl_setup(void);
const char *ctl_setup_keep(void);		/* the same, but devices "kt-*" of others are left alone */
int ctl_load_modules(void);
int ctl_unload_module(const char *name);	/* delete_module(O_NONBLOCK): -EBUSY/-EWOULDBLOCK in use */
int ctl_module_refcnt(const char *name);	/* -1: not loaded */
int ctl_fd(void);
int ctl_ioctl(unsigned long req, void *arg);

/* create: size, class, mode and what is 0 in blk are filled in; then */
void ctl_dev_defaults(struct iovm_dev_create *c, const char *name, u64 sectors, unsigned int queues);
int ctl_dev_create(struct iovm_dev_create *c);
void ctl_must_create(const char *name, u64 sectors, unsigned int queues);
int ctl_session_add_arg(const char *dev, const int *fds, unsigned int nfds, struct iovm_session_add *a);
int ctl_session_add(const char *dev, const int *fds, unsigned int nfds, u32 flags, const char *peer, u32 *id);
int ctl_session_remove(const char *dev, u32 id);
int ctl_session_get(const char *dev, u32 id, struct iovm_session_info *i);	/* the first one from @id on */
int ctl_dev_destroy(const char *name, u32 flags);
int ctl_dev_get(const char *name, struct iovm_dev_info *i);
int ctl_dev_ctl(const char *name, u32 op, const char *path, u64 value);
int ctl_dev_stats(const char *name, struct iovm_dev_stats *s);
/* Paths are added on the test's word (ASSUME_SAME) but by the _id forms, where NULL is no identity. */
int ctl_path_add_bdev(const char *dev, const char *path, const char *node, u32 flags, u32 fence);
/* a bdev path with whatever else is in @a */
int ctl_path_add_arg(const char *dev, const char *path, const char *node, struct iovm_path_add *a);
/* an nbd path likewise */
int ctl_path_add_nbd_arg(const char *dev, const char *path, struct iovm_path_add *a);
int ctl_path_add_nbd(const char *dev, const char *path, u32 flags, u32 fence, u32 heartbeat_ms, u32 dead_ms);
int ctl_path_add_bdev_id(const char *dev, const char *path, const char *node, u32 flags, u32 fence, const char *identity);
int ctl_path_add_nbd_id(const char *dev, const char *path, u32 flags, u32 fence, u32 heartbeat_ms, u32 dead_ms,
			const char *identity);
int ctl_path_connect_id(const char *dev, const char *path, const int *fds, unsigned int nfds, u64 bytes, u32 nbd_flags,
			u32 flags, const char *identity);
int ctl_path_connect(const char *dev, const char *path, const int *fds, unsigned int nfds, u64 bytes, u32 nbd_flags,
		     u32 flags);
int ctl_path_remove(const char *dev, const char *path, u32 flags);
int ctl_path_get(const char *dev, const char *path, struct iovm_path_info *i);
int ctl_path_ctl(const char *dev, const char *path, u32 op);
int ctl_path_stats(const char *dev, const char *path, struct iovm_path_stats *s);
/* Every device whose name begins with @prefix goes, by force: case cleanup. */
void ctl_destroy_all(const char *prefix);
bool ctl_wait_path_state(const char *dev, const char *path, u32 state, int timeout_ms);
/* Looks at a path until nothing is in flight on it, or the time is up: @i->inflight says which. As ctl_path_get(). */
int ctl_wait_path_idle(const char *dev, const char *path, struct iovm_path_info *i, int timeout_ms);
bool ctl_wait_dev_state(const char *dev, u32 state, int timeout_ms);
char *ctl_node(const char *dev);		/* "/dev/vhost-iovm/NAME", a static buffer; waits until it is there */

/* Events. A reader starts behind the newest one. */
struct ctl_events {
	int fd;
	u64 next_seq;		/* 0: not known yet */
	bool gap;		/* a sequence number was missing */
	struct iovm_event *seen;
	unsigned int nr_seen, max_seen;
};
int ctl_events_open(struct ctl_events *e);
void ctl_events_close(struct ctl_events *e);
/* Takes in what is there; waits at most timeout_ms for the first. Number of records. */
int ctl_events_poll(struct ctl_events *e, int timeout_ms);
/*
 * Index in e->seen of the first event at or behind @from of this type, device and path (NULL: any); waits for it. -1 at time-out.
 */
int ctl_events_wait(struct ctl_events *e, int from, u32 type, const char *dev, const char *path, int timeout_ms);
int ctl_events_wait_state(struct ctl_events *e, int from, const char *dev, const char *path, u32 new_state, int timeout_ms);
unsigned int ctl_events_count(struct ctl_events *e, u32 type, const char *dev);
void ctl_events_dump(struct ctl_events *e);

#endif /* CTL_H */
