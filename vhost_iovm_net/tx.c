// SPDX-License-Identifier: GPL-2.0
/*
 * From the guest to the socket.
 *
 * A frame for a tap that fits a page is copied into memory of its own, with room in front, and
 * handed over with others: the tap makes them packets where they lie. All other frames the socket
 * copies from the guest's memory, one by one, after those that were made before them.
 */
#include <linux/if_tun.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <net/sock.h>

#include "net.h"
#include "user.h"

/* A reader of a chain's segments */
struct viovm_net_cursor {
	const struct viovm_seg *seg;
	u32 off;
};

/* Copy the next @len bytes of a chain, which has as many. 0 or -EFAULT. */
static int viovm_net_pull(struct viovm_net_queue *q, struct viovm_net_cursor *c, void *to, u32 len)
{
	while (len) {
		u32 part = min(len, c->seg->len - c->off);
		u64 uaddr;
		long n;

		n = viovm_translate(q->vq, c->seg->gpa + c->off, part, false, &uaddr);
		if (n < 0)
			return n;
		if (viovm_net_from_user(to, (void __user *)(unsigned long)uaddr, n))
			return -EFAULT;
		to += n;
		len -= n;
		c->off += n;
		if (c->off == c->seg->len) {
			c->seg++;
			c->off = 0;
		}
	}
	return 0;
}

/* Pass over the next @len bytes of a chain, which has more. */
static void viovm_net_skip(struct viovm_net_cursor *c, u32 len)
{
	while (len >= c->seg->len - c->off) {
		len -= c->seg->len - c->off;
		c->seg++;
		c->off = 0;
	}
	c->off += len;
}

/* Is the header one that a tap can trust the lengths of? Return: 0 or -EINVAL. */
static int viovm_net_check_header(struct virtio_net_hdr *hdr, u32 len)
{
	u32 end;

	if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	/* what has to be linear reaches to the checksum's field at least */
	end = __virtio16_to_cpu(true, hdr->csum_start) +
	      __virtio16_to_cpu(true, hdr->csum_offset) + 2;
	if (end <= __virtio16_to_cpu(true, hdr->hdr_len))
		return 0;
	hdr->hdr_len = __cpu_to_virtio16(true, end);
	return end > len ? -EINVAL : 0;
}

/* Hand over what was made. */
static void viovm_net_send_batch(struct viovm_net_queue *q)
{
	struct tun_msg_ctl ctl = {
		.type	= TUN_MSG_PTR,
		.num	= q->nr_xdp,
		.ptr	= q->b->xdp,
	};
	struct msghdr msg = {
		.msg_control	= &ctl,
		.msg_controllen	= sizeof(ctl),
		.msg_flags	= MSG_DONTWAIT,
	};
	u32 i;

	if (!q->nr_xdp)
		return;
	/* a tap whose device is gone has looked at none of them */
	if (q->sock->ops->sendmsg(q->sock, &msg, 0) < 0)
		for (i = 0; i < q->nr_xdp; i++)
			page_frag_free(q->b->xdp[i].data_hard_start);
	q->nr_xdp = 0;
}

/*
 * Make a frame of a chain's @len bytes behind the guest's own header.
 * Return: 0; -E2BIG it does not fit a page; -ENOMEM; -EFAULT, -EINVAL: it is no frame.
 */
static int viovm_net_make_frame(struct viovm_net_queue *q, struct viovm_net_cursor *c, u32 len)
{
	u32 room = sock_flag(q->sock->sk, SOCK_XDP) ? XDP_PACKET_HEADROOM : 0;
	u32 hdr_sock = q->net->hdr_sock;
	u32 pad = SKB_DATA_ALIGN(NET_IP_ALIGN + NET_SKB_PAD + room + hdr_sock);
	u32 size = SKB_DATA_ALIGN(pad + len) +
		   SKB_DATA_ALIGN(sizeof(struct skb_shared_info));
	struct tun_xdp_hdr *hdr;
	struct xdp_buff *xdp;
	void *data;
	int err;

	if (len < hdr_sock)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	hdr = page_frag_alloc(&q->frags, SKB_DATA_ALIGN(size), GFP_KERNEL);
	if (!hdr)
		return -ENOMEM;
	data = (void *)hdr + pad;
	/* both at once, and the header once more: two copies from the guest cost more */
	err = viovm_net_pull(q, c, data - hdr_sock, len);
	if (hdr_sock)
		memcpy(&hdr->gso, data - hdr_sock, sizeof(hdr->gso));
	else
		memset(&hdr->gso, 0, sizeof(hdr->gso));
	len -= hdr_sock;
	if (!err)
		err = viovm_net_check_header(&hdr->gso, len);
	if (err) {
		page_frag_free(hdr);
		return err;
	}
	hdr->buflen = size;
	xdp = &q->b->xdp[q->nr_xdp++];
	xdp_init_buff(xdp, size, NULL);
	xdp_prepare_buff(xdp, (u8 *)hdr, pad, len, true);
	return 0;
}

/* Have the socket copy a chain. Return: 0 sent, or dropped by the socket; -EAGAIN no room. */
static int viovm_net_send_chain(struct viovm_net_queue *q, u32 nr, u64 len, bool more)
{
	u64 total = len + q->net->hdr_guest;
	struct msghdr msg = {
		.msg_flags = MSG_DONTWAIT | (more ? MSG_MORE : 0),
	};
	int n, err;

	n = viovm_net_map(q, nr, total);
	if (n < 0)
		return n;
	iov_iter_init(&msg.msg_iter, ITER_SOURCE, q->b->iov, n, total);
	iov_iter_advance(&msg.msg_iter, q->net->hdr_guest);
	err = q->sock->ops->sendmsg(q->sock, &msg, len);
	if (err == -EAGAIN || err == -ENOMEM || err == -ENOBUFS)
		return -EAGAIN;
	if (err < 0)
		pr_debug("a frame of %llu bytes is dropped: %d\n", len, err);
	return 0;
}

/*
 * One frame. Return: its length, 0 when it was dropped for being none; -EAGAIN: later, nothing
 * was taken; -ENOMEM likewise; anything else: the guest broke the ring.
 */
static long viovm_net_tx_one(struct viovm_net_queue *q, u16 head)
{
	struct viovm_net_cursor c = { .seg = q->b->segs };
	bool batch = q->tap && q->sock->sk->sk_sndbuf == INT_MAX;
	struct viovm_chain chain;
	u64 len = 0;
	int err;
	u32 i;

	err = viovm_net_walk(q, head, 0, &chain);
	if (err)
		return err;
	if (chain.nr != chain.nr_out)
		return -EBADMSG;
	for (i = 0; i < chain.nr; i++)
		len += chain.segs[i].len;
	/* the largest that any socket takes is far below */
	if (len <= q->net->hdr_guest || len > INT_MAX)
		return -EINVAL;
	len -= q->net->hdr_guest;

	err = -E2BIG;
	if (batch && len <= PAGE_SIZE) {
		if (q->net->hdr_guest)
			viovm_net_skip(&c, q->net->hdr_guest);
		err = viovm_net_make_frame(q, &c, len);
		if (err == -EINVAL)
			return 0;
	}
	if (err == -E2BIG) {
		viovm_net_send_batch(q);
		err = viovm_net_send_chain(q, chain.nr, len, viovm_ring_known(&q->vq->ring) > 1);
	}
	return err ?: len;
}

static bool viovm_net_tx_ready(struct viovm_net_queue *q)
{
	u16 head;

	return viovm_vq_peek(q->vq, &head) != 0;
}

/* Tell socket and guest of what was done since. */
static void viovm_net_tx_flush(struct viovm_net_queue *q)
{
	viovm_net_send_batch(q);
	viovm_net_flush_used(q);
}

/* No room: have the socket wake the queue. True: there is some, after all. */
static bool viovm_net_tx_wait(struct viovm_net_queue *q)
{
	WRITE_ONCE(q->wants, true);
	/* poll has the socket remember that somebody waits, or says that nobody has to */
	return vfs_poll(q->sock->file, NULL) & EPOLLOUT;
}

/**
 * viovm_net_tx - a turn of the queue that the guest sends with
 * @q: running; vq->mutex held, from the worker
 *
 * Return: true when there is more to do at once.
 */
bool viovm_net_tx(struct viovm_net_queue *q)
{
	struct viovm_vq *vq = q->vq;
	u32 frames = 0, bytes = 0;
	bool again = false;
	u16 head;
	long n;

	WRITE_ONCE(q->wants, false);
	viovm_vq_kick_off(vq);
	while (viovm_vq_may_fetch(vq)) {
		n = viovm_vq_peek(vq, &head);
		if (!n) {
			/* nobody waits while we do */
			viovm_net_tx_flush(q);
			if (viovm_net_busy(q, viovm_net_tx_ready))
				continue;
			if (!viovm_vq_kick_on(vq))
				break;
			viovm_vq_kick_off(vq);
			continue;
		}
		if (n > 0)
			n = viovm_net_tx_one(q, head);
		if (n < 0) {
			viovm_net_tx_flush(q);
			if (n == -EAGAIN)
				again = viovm_net_tx_wait(q);
			else if (n == -ENOMEM)
				again = true;
			else if (!fatal_signal_pending(current))
				viovm_vq_break(vq, n);
			break;
		}
		viovm_vq_take(vq, head);
		viovm_net_done(q, head, 0);
		if (q->nr_used >= VIOVM_NET_BATCH)
			viovm_net_tx_flush(q);
		bytes += n;
		if (++frames >= VIOVM_NET_FRAMES || bytes >= VIOVM_NET_BYTES) {
			again = true;
			break;
		}
	}
	viovm_net_tx_flush(q);
	return again;
}
