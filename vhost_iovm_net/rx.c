// SPDX-License-Identifier: GPL-2.0
/*
 * From the socket to the guest.
 *
 * What a tap has in its ring is taken in batches; of any other socket the length of the next frame
 * is asked for. Then as many of the guest's buffers are taken as it needs, one without MRG_RXBUF,
 * and the socket copies header and data there. A tap's frame in one piece goes there without it:
 * direct.c.
 */
#include <linux/if_tap.h>
#include <linux/if_tun.h>
#include <linux/if_vlan.h>
#include <linux/sched/signal.h>
#include <net/sock.h>

#include "net.h"

static u32 viovm_net_skb_len(const struct sk_buff *skb)
{
	/* the tag is put into the frame when it is copied */
	return skb->len + (skb_vlan_tag_present(skb) ? VLAN_HLEN : 0);
}

/**
 * viovm_net_rx_return - give back to a tap what was taken from its ring
 * @q: queue that has stopped, or its worker
 *
 * Process context.
 */
void viovm_net_rx_return(struct viovm_net_queue *q)
{
	if (q->ring && q->frame != q->nr_frames)
		ptr_ring_unconsume(q->ring, q->b->frames + q->frame, q->nr_frames - q->frame,
				   tun_ptr_free);
	q->frame = 0;
	q->nr_frames = 0;
}

/* Tell the guest of its frames; who hears of them from it finds them counted. */
static void viovm_net_rx_flush(struct viovm_net_queue *q)
{
	viovm_net_direct_count(q);
	viovm_net_flush_used(q);
}

/* How long is the next frame? Return: bytes without a virtio-net header, 0 there is none. */
static u32 viovm_net_rx_next(struct viovm_net_queue *q)
{
	struct sk_buff_head *list;
	struct sk_buff *skb;
	u32 len = 0;
	void *ptr;

	if (likely(q->ring)) {
		if (q->frame == q->nr_frames) {
			q->frame = 0;
			q->nr_frames = ptr_ring_consume_batched(q->ring, q->b->frames,
								VIOVM_NET_BATCH);
			if (!q->nr_frames)
				return 0;
		}
		ptr = q->b->frames[q->frame];
		if (tun_is_xdp_frame(ptr))
			return xdp_get_frame_len(tun_ptr_to_xdp(ptr));
		return viovm_net_skb_len(ptr);
	}
	list = &q->sock->sk->sk_receive_queue;
	spin_lock_irq(&list->lock);
	skb = skb_peek(list);
	if (skb)
		len = viovm_net_skb_len(skb);
	spin_unlock_irq(&list->lock);
	return len;
}

static bool viovm_net_rx_ready(struct viovm_net_queue *q)
{
	if (q->ring)
		return q->frame != q->nr_frames || !ptr_ring_empty(q->ring);
	return !skb_queue_empty_lockless(&q->sock->sk->sk_receive_queue);
}

/* Has the socket copy the next frame, which is gone afterwards. Return: as recvmsg(). */
static int viovm_net_rx_copy(struct viovm_net_queue *q, struct iov_iter *to, size_t len)
{
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT, .msg_iter = *to };

	if (q->ring)
		msg.msg_control = q->b->frames[q->frame++];
	return q->sock->ops->recvmsg(q->sock, &msg, len, MSG_DONTWAIT | MSG_TRUNC);
}

/* The next frame is too much for the guest's buffers, or none of them is right. */
static void viovm_net_rx_drop(struct viovm_net_queue *q)
{
	u8 byte;
	struct kvec none = { .iov_base = &byte, .iov_len = 1 };
	struct iov_iter to;

	iov_iter_kvec(&to, ITER_DEST, &none, 1, 1);
	viovm_net_rx_copy(q, &to, 1);
}

/*
 * Take buffers for @len bytes, at most @max of them. The heads are in q->b->used behind those that
 * wait there, the segments in q->b->segs.
 * Return: how many were taken; 0 when the guest has not enough; -EMSGSIZE when @max is not enough;
 * anything else: the guest broke the ring. Nothing is taken unless more than 0 is returned.
 */
static int viovm_net_rx_buffers(struct viovm_net_queue *q, u64 len, u32 max, u32 *nr_segs)
{
	struct viovm_vq *vq = q->vq;
	struct viovm_chain chain;
	u32 n = 0, segs = 0, i;
	u16 head;
	int err;

	while (len) {
		struct viovm_used *used = &q->b->used[q->nr_used + n];
		u64 room = 0;

		err = -EMSGSIZE;
		if (n == max)
			goto untake;
		err = viovm_vq_peek(vq, &head);
		if (err <= 0)
			goto untake;
		err = viovm_net_walk(q, head, segs, &chain);
		if (err)
			goto untake;
		err = -EBADMSG;
		if (chain.nr_out)
			goto untake;
		for (i = 0; i < chain.nr; i++)
			room += chain.segs[i].len;
		viovm_vq_take(vq, head);
		n++;
		segs += chain.nr;
		used->head = head;
		used->len = min_t(u64, room, len);
		len -= used->len;
	}
	*nr_segs = segs;
	return n;

untake:
	viovm_vq_untake(vq, n);
	return err;
}

/* Write into the guest's buffers, of which q->b->iov is the map. 0 or -EFAULT. */
static int viovm_net_rx_patch(struct viovm_net_queue *q, u32 nr, u32 off, const void *from, u32 len)
{
	const struct iovec *iov = q->b->iov;
	u32 i;

	for (i = 0; i < nr && len; i++) {
		u32 part;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		part = min_t(size_t, len, iov[i].iov_len - off);
		if (copy_to_user(iov[i].iov_base + off, from, part))
			return -EFAULT;
		from += part;
		len -= part;
		off = 0;
	}
	return len ? -EFAULT : 0;
}

/* What the guest's own header says, and the field that only we know. 0 or -EFAULT. */
static int viovm_net_rx_header(struct viovm_net_queue *q, u32 nr, u32 heads)
{
	static const struct virtio_net_hdr none = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	__virtio16 num = __cpu_to_virtio16(true, heads);
	int err = 0;

	if (q->net->hdr_guest)
		err = viovm_net_rx_patch(q, nr, 0, &none, sizeof(none));
	/* virtio 1.2, 5.1.6.3: 1 without MRG_RXBUF; the field is there */
	if (!err && (viovm_net_acked(q, VIRTIO_NET_F_MRG_RXBUF) ||
		     viovm_net_acked(q, VIRTIO_F_VERSION_1)))
		err = viovm_net_rx_patch(q, nr, sizeof(none), &num, sizeof(num));
	return err;
}

static void viovm_net_rx_log(struct viovm_net_queue *q, u32 nr_segs, u64 len)
{
	u32 i;

	for (i = 0; i < nr_segs && len; i++) {
		u64 part = min_t(u64, q->b->segs[i].len, len);

		viovm_vq_log(q->vq, q->b->segs[i].gpa, part);
		len -= part;
	}
}

/*
 * One frame of @len bytes, without header.
 * Return: 1 it is in the guest, or was dropped; 0 no buffers; anything else: the guest broke the
 * ring.
 */
static int viovm_net_rx_one(struct viovm_net_queue *q, u32 len)
{
	u32 max = viovm_net_acked(q, VIRTIO_NET_F_MRG_RXBUF) ? VIOVM_MAX_CHAIN : 1;
	u32 hdr_guest = q->net->hdr_guest;
	u32 from_sock = len + q->net->hdr_sock;
	u64 total = (u64)from_sock + hdr_guest;
	struct iov_iter to;
	u32 nr_segs;
	const struct net_device *name = NULL;
	int heads, n, got;

	heads = viovm_net_rx_buffers(q, total, max, &nr_segs);
	if (heads == -EMSGSIZE) {
		viovm_net_rx_drop(q);
		return 1;
	}
	if (heads <= 0)
		return heads;
	if (nr_segs == 1 && viovm_net_direct(q, len))
		goto done;
	n = viovm_net_map(q, nr_segs, total);
	if (n < 0)
		goto untake;
	iov_iter_init(&to, ITER_DEST, q->b->iov, n, total);
	iov_iter_advance(&to, hdr_guest);
	if (q->ring)
		name = viovm_net_direct_name(q);
	got = viovm_net_rx_copy(q, &to, from_sock);
	viovm_net_direct_learn(q, name, got - (int)len);
	/* somebody else may have read it: then what is there is no frame of this length */
	if (got != from_sock) {
		viovm_vq_untake(q->vq, heads);
		return 1;
	}
	n = viovm_net_rx_header(q, n, heads);
	if (n)
		goto untake;
done:
	if (unlikely(viovm_vq_logs(q->vq)))
		viovm_net_rx_log(q, nr_segs, total);
	q->nr_used += heads;
	if (q->nr_used >= VIOVM_NET_BATCH)
		viovm_net_rx_flush(q);
	return 1;

untake:
	viovm_vq_untake(q->vq, heads);
	return n;
}

/* Nothing comes from the socket: have it wake the queue. True: something has come meanwhile. */
static bool viovm_net_rx_wait(struct viovm_net_queue *q)
{
	WRITE_ONCE(q->wants, true);
	/* pairs with the barrier before the socket looks whether somebody waits */
	smp_mb();
	return viovm_net_rx_ready(q);
}

/**
 * viovm_net_rx - a turn of the queue that the guest receives with
 * @q: running; vq->mutex held, from the worker
 *
 * Return: true when there is more to do at once.
 */
bool viovm_net_rx(struct viovm_net_queue *q)
{
	struct viovm_vq *vq = q->vq;
	u32 frames = 0, bytes = 0;
	bool again = false;
	u32 len;
	int err;

	WRITE_ONCE(q->wants, false);
	viovm_vq_kick_off(vq);
	while (viovm_vq_may_fetch(vq)) {
		len = viovm_net_rx_next(q);
		if (!len) {
			viovm_net_rx_flush(q);
			if (viovm_net_busy(q, viovm_net_rx_ready))
				continue;
			if (!viovm_net_rx_wait(q))
				break;
			WRITE_ONCE(q->wants, false);
			continue;
		}
		err = viovm_net_rx_one(q, len);
		if (err <= 0) {
			viovm_net_rx_flush(q);
			if (err && !fatal_signal_pending(current))
				viovm_vq_break(vq, err);
			/* a kick brings the worker back, no frame does */
			if (err || !viovm_vq_kick_on(vq))
				break;
			viovm_vq_kick_off(vq);
			continue;
		}
		bytes += len;
		if (++frames >= VIOVM_NET_FRAMES || bytes >= VIOVM_NET_BYTES) {
			again = true;
			break;
		}
	}
	viovm_net_rx_flush(q);
	return again;
}
