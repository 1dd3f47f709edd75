/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VMM and a guest's virtio driver in one process.
 *
 *	struct gmem    guest memory: regions of this process at chosen guest physical addresses (GPA)
 *	struct vdev    a device: the node /dev/vhost-iovm/NAME, or a vhost-user socket, behind one set of calls
 *	struct vq      a split virtqueue as a driver works it: descriptors, indirect tables, EVENT_IDX
 *
 * All functions return 0 (or a count) or a negative errno, unless said otherwise. A queue is for one thread at a
 * time; different queues of a device may be worked by different threads.
 */
#ifndef VDRV_H
#define VDRV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_config.h>
#include <linux/virtio_blk.h>
#include "vhost_iovm.h"

#ifndef VHOST_NEW_WORKER		/* headers before 6.5 */
struct vhost_worker_state { unsigned int worker_id; };
struct vhost_vring_worker { unsigned int index; unsigned int worker_id; };
#define VHOST_NEW_WORKER		_IOR(VHOST_VIRTIO, 0x8, struct vhost_worker_state)
#define VHOST_FREE_WORKER		_IOW(VHOST_VIRTIO, 0x9, struct vhost_worker_state)
#define VHOST_ATTACH_VRING_WORKER	_IOW(VHOST_VIRTIO, 0x15, struct vhost_vring_worker)
#define VHOST_GET_VRING_WORKER		_IOWR(VHOST_VIRTIO, 0x16, struct vhost_vring_worker)
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define KiB		1024ull
#define MiB		(1024ull * 1024)
#define GiB		(1024ull * 1024 * 1024)
#define BIT64(n)	(1ull << (n))

/* --- guest memory --- */

#define GMEM_MAX_REGIONS	64
#define GMEM_NONE		(~0ull)

enum gmem_kind { GMEM_MEMFD, GMEM_ANON, GMEM_HUGE, GMEM_FILE, GMEM_RDONLY };

struct gmem_region {
	u64 gpa;
	u64 size;
	char *hva;
	int fd;			/* -1: anonymous */
	u64 used;		/* gmem_alloc()'s mark */
};

struct gmem {
	int nr;
	struct gmem_region r[GMEM_MAX_REGIONS];
};

int gmem_add(struct gmem *g, u64 gpa, u64 size, enum gmem_kind kind);	/* index */
int gmem_add_file(struct gmem *g, u64 gpa, u64 size, const char *path);
void gmem_del(struct gmem *g, int idx);		/* unmaps; later regions move down by one */
void gmem_free(struct gmem *g);
u64 gmem_alloc(struct gmem *g, int idx, u64 size, u64 align);	/* idx -1: the first region with room; GMEM_NONE */
void *gmem_ptr(const struct gmem *g, u64 gpa);	/* NULL: no such address */

/* --- device --- */

struct vdev;

/* What to bind with vdev_set_fd() */
enum vdev_fd { VDEV_KICK, VDEV_CALL, VDEV_ERR };

struct vtp_ops {
	int (*set_owner)(struct vdev *d);
	int (*get_features)(struct vdev *d, u64 *f);
	int (*set_features)(struct vdev *d, u64 f);
	int (*set_mem)(struct vdev *d, const struct gmem *g);
	int (*set_num)(struct vdev *d, unsigned int q, unsigned int num);
	int (*set_base)(struct vdev *d, unsigned int q, unsigned int base);
	int (*get_base)(struct vdev *d, unsigned int q, unsigned int *base);
	int (*set_addr)(struct vdev *d, const struct vhost_vring_addr *a);
	int (*set_fd)(struct vdev *d, enum vdev_fd what, unsigned int q, int fd);
	int (*enable)(struct vdev *d, unsigned int q, bool on);
	int (*get_config)(struct vdev *d, unsigned int off, void *buf, unsigned int len);
};

struct vdev {
	const struct vtp_ops *tp;
	int fd;
	u64 offered;		/* device's features */
	u64 features;		/* negotiated */
	u64 proto;		/* vhost-user: protocol features negotiated */
	struct gmem *mem;
	struct virtio_blk_config cfg;
	int backend[2];		/* of a vhost-net node: see vnet.h */
	struct vq *vqs;
	unsigned int nvqs;
};

/* Opens and claims: SET_OWNER, features and configuration read. Nothing else is set yet. */
int vdev_open_node(struct vdev *d, const char *path);
int vdev_open_user(struct vdev *d, const char *socket_path);
/* A network device's node, /dev/vhost-net too: there is no configuration to read. Its queues run once they have a back end. */
int vdev_open_net(struct vdev *d, const char *path);
int vdev_net_backend(struct vdev *d, unsigned int q, int fd);	/* -1: none */
/* features & offered are negotiated (VERSION_1 always); memory table set; @nvqs queues of @num made, not started. */
int vdev_setup(struct vdev *d, struct gmem *mem, u64 features, unsigned int nvqs, unsigned int num);
int vdev_start(struct vdev *d);			/* all queues */
int vdev_stop(struct vdev *d);			/* all queues that run */
void vdev_close(struct vdev *d);		/* closes the fd and frees the queues (not the memory) */
int vdev_set_mem(struct vdev *d, const struct gmem *mem);

/* The dirty log of a node: bit per 4 KiB of GPA. */
struct vlog {
	u64 *bits;
	u64 bytes;
};
int vlog_alloc(struct vlog *l, const struct gmem *g);
void vlog_free(struct vlog *l);
int vdev_log_on(struct vdev *d, struct vlog *l);	/* LOG_BASE, LOG_ALL, F_LOG on every queue */
int vdev_log_off(struct vdev *d);
bool vlog_test(const struct vlog *l, u64 gpa);
void vlog_clear(struct vlog *l);

/* --- queue --- */

#define VQ_F_INDIRECT	1u	/* vq_add(): in an indirect table */

struct vseg {
	u64 gpa;
	u32 len;
	bool in;		/* the device writes it */
};

struct vq {
	struct vdev *d;
	unsigned int idx;
	unsigned int num;
	struct vring ring;
	u64 desc_gpa, avail_gpa, used_gpa;
	u64 ind_gpa;		/* num tables of ind_max descriptors, GMEM_NONE: none */
	unsigned int ind_max;
	int kick, call, err;	/* eventfds */
	bool running;
	bool event_idx;
	bool log;		/* what it writes to the used ring is logged */
	u16 base;		/* next start begins here */
	u16 avail_idx;		/* what the driver has published or will publish */
	u16 published;
	u16 kick_from;		/* avail index at the last kick decision */
	u16 last_used;
	u16 free_head;
	u16 nr_free;
	u16 *chain;		/* descriptors of the chain with this head */
	void **token;		/* by head; NULL = not outstanding */
	/* what happened */
	u64 kicks;		/* written to the eventfd */
	u64 kicks_saved;	/* the device did not want one */
	u64 calls;		/* read from the eventfd */
	u64 bad_used;		/* completions of heads that were not outstanding, or jumps of the index */
	u64 lost_calls;		/* completions found by time-out although a call was asked for */
};

int vq_init(struct vq *q, struct vdev *d, unsigned int idx, unsigned int num, unsigned int ind_max);
void vq_free(struct vq *q);
int vq_start(struct vq *q);			/* NUM, BASE, ADDR, CALL, ERR, KICK, ENABLE */
int vq_start_addr(struct vq *q, bool log);	/* only ADDR; the next start says the same of the log */
int vq_stop(struct vq *q);			/* GET_VRING_BASE into q->base */
void vq_rewind(struct vq *q, u16 idx);		/* an idle stopped queue: both indices become idx */

void vq_reset(struct vq *q);			/* a stopped queue as if new: nothing outstanding, index 0 */

/* Adds a chain; not visible to the device until vq_publish(). Returns its head, -ENOSPC when the ring is full. */
int vq_add(struct vq *q, const struct vseg *s, unsigned int n, void *token, unsigned int flags);
void vq_add_raw(struct vq *q, u16 head, void *token);	/* a head whose descriptors the caller wrote */
void vq_publish(struct vq *q);
bool vq_wants_kick(struct vq *q);		/* for what was published since the last call */
void vq_kick(struct vq *q);			/* always */
void vq_submit(struct vq *q);			/* publish, kick if wanted */
void *vq_pop(struct vq *q, u32 *len);		/* NULL: none */
bool vq_has_used(struct vq *q);
void vq_calls_off(struct vq *q);		/* ask for no calls */
bool vq_calls_on(struct vq *q);			/* ask for a call at the next completion; false: there is one already */
int vq_wait(struct vq *q, int timeout_ms);	/* until vq_has_used(): 1, 0 at time-out */
unsigned int vq_outstanding(const struct vq *q);
bool vq_err_signalled(struct vq *q, int timeout_ms);

/* --- one request at a time --- */

struct vblk_sync {
	struct vdev *d;
	u64 hdr_gpa;		/* 16 bytes */
	u64 status_gpa;
	u64 data_gpa;		/* room for data_max bytes */
	u32 data_max;
};

extern int vblk_timeout_ms;	/* 10000 */
int vblk_sync_init(struct vblk_sync *s, struct vdev *d, u32 data_max);
/* Returns the status byte, or -ETIMEDOUT. @used: bytes the device says it wrote; may be NULL. */
int vblk_do(struct vq *q, const struct vseg *segs, unsigned int n, unsigned int flags, const u8 *status, u32 *used);
/* Data through s->data_gpa. */
int vblk_io(struct vblk_sync *s, struct vq *q, u32 type, u64 sector, u32 len);
int vblk_read(struct vblk_sync *s, struct vq *q, u64 sector, void *buf, u32 len);
int vblk_write(struct vblk_sync *s, struct vq *q, u64 sector, const void *buf, u32 len);

/* --- small things --- */

u64 now_ns(void);
void sleep_ms(unsigned int ms);
u64 rnd64(u64 *state);

#endif /* VDRV_H */
