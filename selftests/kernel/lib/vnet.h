/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A network device's node (/dev/vhost-net, /dev/vhost-iovm-net) as a VMM and a virtio-net driver use it, on the queues of
 * vdrv.h: queue 0 receives, queue 1 sends. Enabling a queue is NET_SET_BACKEND with vdev.backend[queue].
 *
 * Guest memory is 2 MiB at 0, with rings, and VNET_DATA bytes for data at 4 GiB. Functions leave the
 * case when they fail, unless they return something.
 */
#ifndef VNET_H
#define VNET_H

#include "vdrv.h"
#include "vlink.h"

#define VNET_RX		0
#define VNET_TX		1
#define VNET_DATA	(2 * MiB)
#define VNET_GPA	(4 * GiB)
#define VNET_POISON	0xa5
#define VNET_SEGS	512

#ifndef VIRTIO_F_IN_ORDER
#define VIRTIO_F_IN_ORDER	35
#endif
#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET	40
#endif
#define V1	BIT64(VIRTIO_F_VERSION_1)
#define MRG	BIT64(VIRTIO_NET_F_MRG_RXBUF)
#define EVENT	BIT64(VIRTIO_RING_F_EVENT_IDX)
#define INDIR	BIT64(VIRTIO_RING_F_INDIRECT_DESC)
#define NETHDR	BIT64(VHOST_NET_F_VIRTIO_NET_HDR)
#define ONEMPTY	BIT64(VIRTIO_F_NOTIFY_ON_EMPTY)
#define LOGALL	BIT64(VHOST_F_LOG_ALL)

/* A buffer in a ring: where its bytes are */
struct vbuf {
	u16 head;
	u32 len;
	u32 nsegs;
	struct vseg seg[];
};

struct vnet {
	struct vdev d;
	struct gmem mem;
	struct vq *rx, *tx;
	unsigned int hlen;	/* of the header before each frame in a ring */
	u64 at;			/* where the next buffer goes */
	u64 calls[2];		/* of each queue's call eventfd */
	bool open;
};

/* Opened, owner, features, memory table; rings of @num made, nothing started. */
void vnet_open(struct vnet *v, const char *node, u64 features, unsigned int num);
void vnet_start(struct vnet *v, int backend);		/* both queues */
void vnet_stop(struct vnet *v);				/* those that run; -1 as backend, then GET_VRING_BASE */
void vnet_close(struct vnet *v);

/* A buffer of @len bytes, cut into segments of cut[] bytes (the last: what is left), full of poison. */
struct vbuf *vbuf_new(struct vnet *v, u32 len, const u32 *cut, unsigned int ncut, bool in);
void vbuf_put(struct vnet *v, const struct vbuf *b, u32 off, const void *from, u32 len);
void vbuf_get(struct vnet *v, const struct vbuf *b, u32 off, void *to, u32 len);
void vnet_rewind(struct vnet *v);			/* forget all buffers */
int vnet_add(struct vq *q, struct vbuf *b, unsigned int flags);		/* VQ_F_INDIRECT */
/* The next used element's buffer and length; NULL: none in this time. Frees the buffer with the next vnet_rewind(). */
struct vbuf *vnet_used(struct vnet *v, struct vq *q, u32 *len, int timeout_ms);
/* When this returns, the device has done what it does about all that it was told of, calls included. */
void vnet_settle(struct vnet *v);
u64 vnet_calls(struct vnet *v, unsigned int q);		/* since the last time this was asked */
bool vnet_err(struct vnet *v, unsigned int q);		/* was err signalled? */
int vnet_wait_ms(void);

/* A frame of @len bytes whose payload follows from @tag, of an Ethernet type that nobody speaks */
void frame_make(u8 *f, u32 len, u32 tag, bool from_guest);
u64 digest(const void *p, size_t n);
const char *hex(const void *p, size_t n);		/* in a static buffer, 64 bytes at most */

#endif /* VNET_H */
