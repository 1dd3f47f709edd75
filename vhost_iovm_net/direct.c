// SPDX-License-Identifier: GPL-2.0
/*
 * From a tap's ring straight to the guest, for the frame that most frames are: in one piece, and
 * into one buffer. All others, and all frames of other sockets, are copied by the socket: rx.c.
 *
 * The tap's own reader does three things for such a frame: it puts a header before it, copies
 * both, and counts. All of it is done here likewise, and what that needs to know of the tap, nobody
 * tells, so it is learnt from the frames that the socket copies, of which every so many are one
 * (VIOVM_NET_DIRECT):
 *
 * - Which header the tap writes: what the socket wrote before the frame. Twelve bytes are a
 *   virtio-net header of that size and nothing else, as one has ten at least and what a tap with
 *   IFF_NO_PI unset adds are four. Is the size changed while the queue runs, which is the VMM's
 *   to do and to tell the guest of, the frames until the next look still have the old one. All
 *   that is written to the guest is a header made here and a frame that was meant for it, within a
 *   buffer that it gave for that.
 * - Which device counts. A frame names its device, but does not hold it: a frame that waited, or
 *   was given back to the ring, may outlive it. So the name is compared, never followed: a device
 *   that the socket's network namespace has at this address is alive, and its own kind says that
 *   it is a tap. It is looked up again by its index, and held, from a batch's first frame until
 *   they are counted, as the tap's reader holds it. A tap that was moved to another namespace, or
 *   is gone, is not found: its frames go by the socket, which can count or drop them.
 *
 * What goes wrong here has changed nothing, and the socket does it.
 */
#include <linux/if_tun.h>
#include <linux/netdevice.h>
#include <linux/virtio_byteorder.h>
#include <net/net_namespace.h>
#include <net/rtnetlink.h>
#include <net/sock.h>

#include "net.h"
#include "user.h"

/* Frames that are copied here before the socket has to show its header again */
#define VIOVM_NET_DIRECT	255

/* A tap's header is little endian here whatever the VMM sets: see tun_is_little_endian(). */
static bool viovm_net_direct_endian(void)
{
	return virtio_legacy_is_little_endian() && !IS_ENABLED(CONFIG_TUN_VNET_CROSS_LE);
}

/**
 * viovm_net_direct_attach - a queue has got its socket
 * @q: queue that starts; dev->mutex and vq->mutex held
 */
void viovm_net_direct_attach(struct viovm_net_queue *q)
{
	memset(&q->direct, 0, sizeof(q->direct));
	/* a macvtap has a ring, too */
	q->direct.may = q->ring && !IS_ERR(tun_get_tx_ring(q->sock->file)) &&
			viovm_net_direct_endian();
}

/* Can frames of this device be counted by us? rcu_read_lock() held. */
static bool viovm_net_direct_is_tap(const struct net_device *dev)
{
	return dev->rtnl_link_ops && !strcmp(dev->rtnl_link_ops->kind, "tun") &&
	       viovm_compat_netdev_has_tstats(dev);
}

/* Look for a device, of which no more is known than where it was. */
static void viovm_net_direct_find(struct viovm_net_queue *q, const struct net_device *name)
{
	struct viovm_net_direct *d = &q->direct;
	struct net_device *dev;

	d->dev = NULL;
	rcu_read_lock();
	for_each_netdev_rcu(sock_net(q->sock->sk), dev) {
		if (dev != name)
			continue;
		if (viovm_net_direct_is_tap(dev)) {
			d->dev = dev;
			d->ops = dev->rtnl_link_ops;
			d->ifindex = dev->ifindex;
		}
		break;
	}
	rcu_read_unlock();
	/* not to look through all devices again and again */
	d->may = d->dev;
}

/* Get hold of the device that the frames to come are to be counted by. False: it is not there. */
static bool viovm_net_direct_hold(struct viovm_net_queue *q)
{
	struct viovm_net_direct *d = &q->direct;
	struct net_device *dev = dev_get_by_index(sock_net(q->sock->sk), d->ifindex);

	/* another one at this address, of this index and of this kind counts as well as this one */
	if (likely(dev && dev == d->dev && dev->rtnl_link_ops == d->ops)) {
		d->held = dev;
		return true;
	}
	dev_put(dev);
	d->dev = NULL;
	d->left = 0;
	return false;
}

/**
 * viovm_net_direct_count - add what was copied here to the tap's statistics
 * @q: queue; vq->mutex held, from the worker
 */
void viovm_net_direct_count(struct viovm_net_queue *q)
{
	struct viovm_net_direct *d = &q->direct;

	if (!d->held)
		return;
	if (d->frames) {
		preempt_disable();
		dev_sw_netstats_tx_add(d->held, d->frames, d->bytes);
		preempt_enable();
	}
	dev_put(d->held);
	d->held = NULL;
	d->frames = 0;
	d->bytes = 0;
}

/**
 * viovm_net_direct_name - what the next frame can teach
 * @q: queue with a ring; vq->mutex held, from the worker
 *
 * Return: for viovm_net_direct_learn(): its device, which may be gone; NULL: nothing.
 */
const struct net_device *viovm_net_direct_name(const struct viovm_net_queue *q)
{
	void *ptr = q->b->frames[q->frame];

	/* another function of the tap copies those */
	if (!q->direct.may || tun_is_xdp_frame(ptr))
		return NULL;
	return ((struct sk_buff *)ptr)->dev;
}

/**
 * viovm_net_direct_learn - what the socket made of a frame
 * @q: queue; vq->mutex held, from the worker
 * @name: from viovm_net_direct_name(), before
 * @header: how many bytes more than the frame has the socket made; negative: an error
 */
void viovm_net_direct_learn(struct viovm_net_queue *q, const struct net_device *name, int header)
{
	struct viovm_net_direct *d = &q->direct;

	if (!name)
		return;
	d->left = 0;
	if (header != sizeof(struct virtio_net_hdr_mrg_rxbuf))
		return;
	if (unlikely(name != d->dev)) {
		viovm_net_direct_count(q);
		viovm_net_direct_find(q, name);
		if (!d->may)
			return;
	}
	d->left = VIOVM_NET_DIRECT;
}

/* May the next frame, of @len bytes, be copied here? Return: it, or NULL. */
static struct sk_buff *viovm_net_direct_frame(const struct viovm_net_queue *q, u32 len)
{
	void *ptr = q->b->frames[q->frame];
	struct sk_buff *skb = ptr;

	if (q->net->hdr_guest || q->net->hdr_sock != sizeof(struct virtio_net_hdr_mrg_rxbuf))
		return NULL;
	if (tun_is_xdp_frame(ptr) || skb->dev != q->direct.dev)
		return NULL;
	if (skb_is_nonlinear(skb) || skb_vlan_tag_present(skb) || skb->len != len)
		return NULL;
	return skb;
}

/**
 * viovm_net_direct - copy the next frame
 * @q: queue; @q->b->segs[0] is the one buffer; vq->mutex held, from the worker
 * @len: bytes of the frame, which the buffer has room for behind the header
 *
 * Return: it is in the guest and gone from @q; false: nothing was done.
 */
bool viovm_net_direct(struct viovm_net_queue *q, u32 len)
{
	struct viovm_net_direct *d = &q->direct;
	union {
		struct virtio_net_hdr_mrg_rxbuf hdr;
		struct {
			u64 first;
			u32 last;
		} __packed;
	} h;
	u64 total = sizeof(h.hdr) + len, uaddr;
	struct sk_buff *skb;
	u8 __user *to;

	if (!d->left)
		return false;
	skb = viovm_net_direct_frame(q, len);
	if (!skb || viovm_translate(q->vq, q->b->segs[0].gpa, total, true, &uaddr) != total)
		return false;
	if (!d->held && !viovm_net_direct_hold(q))
		return false;
	if (virtio_net_hdr_from_skb(skb, &h.hdr.hdr, true, true, 0))
		return false;
	/* the field is there: hdr_sock */
	h.hdr.num_buffers = __cpu_to_virtio16(true, 1);
	to = (u8 __user *)(unsigned long)uaddr;
	if (__put_user(h.first, (u64 __user *)to) || __put_user(h.last, (u32 __user *)(to + 8)) ||
	    viovm_net_to_user(to + sizeof(h.hdr), skb->data, len))
		return false;
	consume_skb(skb);
	q->frame++;
	d->left--;
	d->frames++;
	d->bytes += len;
	return true;
}
