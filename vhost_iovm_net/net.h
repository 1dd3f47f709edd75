/* SPDX-License-Identifier: GPL-2.0 */
/*
 * virtio-net in the kernel: what vhost_net does, on the core of vhost_iovm.
 *
 *	main.c		/dev/vhost-iovm-net: a front end of its own for each open()
 *	ioctl.c		the vhost-net ioctl ABI, where it differs from the core's
 *	queue.c		a queue's memory, its turn, descriptors
 *	backend.c	the socket behind a queue: tap, macvtap, packet socket
 *	tx.c		from the guest to the socket
 *	rx.c		from the socket to the guest
 *	direct.c	likewise, past the socket: what most frames of a tap are
 *	user.h		copies from and to the guest
 *
 * A queue runs while it has a socket. Everything that a queue does, it does in its front end's
 * worker, with vq->mutex held: what is taken from a ring is given back within the same turn, so
 * that nothing is ever in flight between two turns.
 */
#ifndef _VHOST_IOVM_NET_H
#define _VHOST_IOVM_NET_H

#include <linux/net.h>
#include <linux/ptr_ring.h>
#include <linux/skbuff.h>
#include <linux/uio.h>
#include <linux/virtio_net.h>
#include <net/xdp.h>

#include "vhost_iovm/vhost_iovm.h"

#define VIOVM_NET_RX		0	/* queue that the guest receives with */
#define VIOVM_NET_TX		1
#define VIOVM_NET_QUEUES	2

/* frames given to a tap, or taken from one, at once; and heads told to the guest at once */
#define VIOVM_NET_BATCH		64
/* of a frame, in user memory */
#define VIOVM_NET_IOVS		VIOVM_MAX_CHAIN
/* a turn ends after so many frames or bytes: the other queue shares the worker */
#define VIOVM_NET_FRAMES	256
#define VIOVM_NET_BYTES		SZ_512K

/**
 * struct viovm_net_bufs - what a queue needs to serve; made when it starts
 * @segs: of the frame at hand
 * @table: scratch for indirect tables
 * @iov: @segs in the owner's address space
 * @used: heads that are done and not yet told to the guest
 * @xdp: TX: frames for a tap
 * @frames: RX: taken from a tap's ring and not yet given to the guest
 */
struct viovm_net_bufs {
	struct viovm_seg segs[VIOVM_MAX_CHAIN];
	struct vring_desc table[VIOVM_MAX_CHAIN];
	struct iovec iov[VIOVM_NET_IOVS];
	struct viovm_used used[VIOVM_NET_BATCH + VIOVM_MAX_CHAIN];
	union {
		struct xdp_buff xdp[VIOVM_NET_BATCH];
		void *frames[VIOVM_NET_BATCH];
	};
};

/**
 * struct viovm_net_direct - of a queue that receives from a tap: direct.c. All: vq->mutex
 * @may: it is one whose frames need not go by the socket
 * @left: frames that may be copied past the socket before it has to copy one again
 * @dev: where the frame came from that it copied last: to compare with, it may be gone
 * @ifindex: of @dev, in the socket's network namespace
 * @ops: of @dev: tun's, which stays while its file is open
 * @held: @dev with a reference, while there may be something to count; not between two turns
 * @frames: copied past the socket and not yet counted by @held
 * @bytes: of these
 */
struct viovm_net_direct {
	bool may;
	u32 left;
	const struct net_device *dev;
	int ifindex;
	const struct rtnl_link_ops *ops;
	struct net_device *held;
	u32 frames;
	u32 bytes;
};

/**
 * struct viovm_net_queue - one of a front end's two queues
 * @vq: the core's part; constant
 * @net: whose; constant
 * @sock: back end, with a reference; NULL while the queue does not run. dev->mutex
 * @ring: RX, of a tap: the frames it has for us; else NULL. dev->mutex
 * @tap: @sock is a tap's or a macvtap's. dev->mutex
 * @next: for vq_start(): the socket that comes; dev->mutex
 * @next_tap: likewise: it is a tap's
 * @b: between vq_start and vq_stop; vq->mutex
 * @nr_used: in @b->used; vq->mutex
 * @nr_xdp: in @b->xdp; vq->mutex
 * @frame: next one in @b->frames; vq->mutex
 * @nr_frames: end of those in @b->frames; vq->mutex
 * @direct: RX: what is known of the tap
 * @frags: memory for frames; vq->mutex
 * @events: EPOLL* of the socket that the queue can go on with; constant
 * @wants: the queue waits for @events; written by the worker, read by the socket's wake-up
 * @wait: in the socket's wait queue, @wqh
 * @wqh: NULL when not in it; dev->mutex
 * @pt: for poll
 * @busy_us: VHOST_SET_VRING_BUSYLOOP_TIMEOUT; dev->mutex for writing, read without it
 */
struct viovm_net_queue {
	struct viovm_vq *vq;
	struct viovm_net *net;
	struct socket *sock;
	struct ptr_ring *ring;
	bool tap;
	struct socket *next;
	bool next_tap;
	struct viovm_net_bufs *b;
	u32 nr_used;
	u32 nr_xdp;
	u32 frame;
	u32 nr_frames;
	struct viovm_net_direct direct;
	struct page_frag_cache frags;
	__poll_t events;
	bool wants;
	wait_queue_entry_t wait;
	wait_queue_head_t *wqh;
	poll_table pt;
	u32 busy_us;
};

/**
 * struct viovm_net - a front end
 * @hdr_guest: bytes of header that the guest has and the socket has not; written under dev->mutex
 *	and both vq->mutex, read under either
 * @hdr_sock: bytes of header that both have; likewise
 * @queues: VIOVM_NET_RX, VIOVM_NET_TX
 */
struct viovm_net {
	u32 hdr_guest;
	u32 hdr_sock;
	struct viovm_net_queue queues[VIOVM_NET_QUEUES];
};

static inline bool viovm_net_acked(const struct viovm_net_queue *q, unsigned int bit)
{
	return q->vq->dev->acked & BIT_ULL(bit);
}

static inline struct viovm_net_queue *viovm_net_queue(const struct viovm_vq *vq)
{
	struct viovm_net *net = vq->dev->node->priv;

	return &net->queues[vq->index];
}

/* ioctl.c */
long viovm_net_ioctl(struct viovm_dev *dev, unsigned int cmd, void __user *argp);
void viovm_net_set_headers(struct viovm_net *net, u64 features);

/* queue.c */
int viovm_net_vq_start(struct viovm_vq *vq);
void viovm_net_vq_stop(struct viovm_vq *vq);
void viovm_net_vq_drop(struct viovm_vq *vq);
int viovm_net_walk(struct viovm_net_queue *q, u16 head, u32 from, struct viovm_chain *chain);
int viovm_net_map(struct viovm_net_queue *q, u32 nr, u64 len);
void viovm_net_done(struct viovm_net_queue *q, u16 head, u32 len);
void viovm_net_flush_used(struct viovm_net_queue *q);
bool viovm_net_busy(struct viovm_net_queue *q, bool (*ready)(struct viovm_net_queue *q));

/* backend.c */
struct socket *viovm_net_socket(int fd, bool *tap);
int viovm_net_attach(struct viovm_net_queue *q, struct socket *sock, bool tap);
void viovm_net_detach(struct viovm_net_queue *q);

/* tx.c */
bool viovm_net_tx(struct viovm_net_queue *q);

/* direct.c */
void viovm_net_direct_attach(struct viovm_net_queue *q);
void viovm_net_direct_count(struct viovm_net_queue *q);
const struct net_device *viovm_net_direct_name(const struct viovm_net_queue *q);
void viovm_net_direct_learn(struct viovm_net_queue *q, const struct net_device *name, int header);
bool viovm_net_direct(struct viovm_net_queue *q, u32 len);

/* rx.c */
bool viovm_net_rx(struct viovm_net_queue *q);
void viovm_net_rx_return(struct viovm_net_queue *q);

#endif /* _VHOST_IOVM_NET_H */
