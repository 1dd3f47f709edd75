/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a vhost-net device sends to and receives from: a tap, a macvtap on a veth, or a packet socket on a veth; and the other
 * side of it, a packet socket that sends and receives frames with their offload header.
 *
 * vlink_setup() moves the process into a network namespace of its own, in which no protocol sends anything by itself. All
 * other functions leave the case when they fail.
 */
#ifndef VLINK_H
#define VLINK_H

#include <linux/virtio_net.h>
#include "vdrv.h"

#define VLINK_FRAME_MAX	65535
#define VLINK_MTU_MAX	65521

/* Flags of vlink_tap() */
#define VLINK_NO_HDR	1u	/* without IFF_VNET_HDR */

struct vlink {
	int fd;			/* for NET_SET_BACKEND */
	int peer;		/* packet socket at the other side */
	char ifname[16];	/* where @peer is */
};

/* A frame as the other side got it */
struct vframe {
	struct virtio_net_hdr hdr;
	u32 len;
	u32 status;		/* tp_status & what is said about checksums and tags; errno << 16 of one that cannot be read */
	u16 tci, tpid;
	u8 data[VLINK_FRAME_MAX + 1];
};

extern const u8 vlink_guest_mac[6], vlink_peer_mac[6];

const char *vlink_setup(void);		/* NULL, or why it cannot be */
void vlink_tap(struct vlink *l, const char *name, unsigned int flags, unsigned int hdr_size);
void vlink_macvtap(struct vlink *l, unsigned int hdr_size);
void vlink_packet(struct vlink *l);
void vlink_packet_on(struct vlink *l, const char *ifname);	/* only the other side */
void vlink_plug(bool on);		/* what a macvtap sends stays in a queue, and in the account of its socket */
void vlink_unplug(void);		/* all goes on its way */
void vlink_close(struct vlink *l);
void vlink_up(const char *ifname, bool up);
void vlink_mtu(const char *ifname, unsigned int mtu);

/* Returns what sendmsg() does, -1 with errno; @hdr may be NULL. */
long vlink_send(struct vlink *l, const struct virtio_net_hdr *hdr, const void *frame, u32 len);
bool vlink_recv(struct vlink *l, struct vframe *f, int timeout_ms);

#endif /* VLINK_H */
