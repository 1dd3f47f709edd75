// SPDX-License-Identifier: GPL-2.0
/*
 * The socket behind a queue: what may be one, and how it wakes the queue.
 */
#include <linux/file.h>
#include <linux/if_packet.h>
#include <linux/if_tap.h>
#include <linux/if_tun.h>
#include <linux/poll.h>
#include <net/sock.h>

#include "net.h"

static struct socket *viovm_net_packet_socket(int fd)
{
	struct socket *sock;
	int err;

	sock = sockfd_lookup(fd, &err);
	if (!sock)
		return NULL;
	if (sock->sk->sk_type == SOCK_RAW && sock->sk->sk_family == AF_PACKET)
		return sock;
	sockfd_put(sock);
	return NULL;
}

static struct socket *viovm_net_tap_socket(int fd)
{
	struct file *file = fget(fd);
	struct socket *sock;

	if (!file)
		return NULL;
	sock = tun_get_socket(file);
	if (!IS_ERR(sock))
		return sock;
	sock = tap_get_socket(file);
	if (!IS_ERR(sock))
		return sock;
	fput(file);
	return NULL;
}

/**
 * viovm_net_socket - what VHOST_NET_SET_BACKEND names
 * @fd: of a raw packet socket, a tap or a macvtap
 * @tap: out: is one of the latter two
 *
 * Process context.
 * Return: the socket with a reference to its file, for sockfd_put(); or ERR_PTR(-ENOTSOCK).
 */
struct socket *viovm_net_socket(int fd, bool *tap)
{
	struct socket *sock = viovm_net_packet_socket(fd);

	*tap = !sock;
	if (!sock)
		sock = viovm_net_tap_socket(fd);
	return sock ?: ERR_PTR(-ENOTSOCK);
}

/* The socket's wait queue, its lock held, any context */
static int viovm_net_wake(wait_queue_entry_t *wait, unsigned int mode, int sync, void *key)
{
	struct viovm_net_queue *q = container_of(wait, struct viovm_net_queue, wait);

	/* a queue that waits for its guest does not come for every frame: viovm_net_rx() */
	if ((key_to_poll(key) & q->events) && READ_ONCE(q->wants))
		viovm_vq_kick(q->vq);
	return 0;
}

static void viovm_net_queue_proc(struct file *file, wait_queue_head_t *wqh, poll_table *pt)
{
	struct viovm_net_queue *q = container_of(pt, struct viovm_net_queue, pt);

	if (q->wqh)
		return;
	q->wqh = wqh;
	add_wait_queue(wqh, &q->wait);
}

/* The ring that a tap keeps its frames in; NULL: ask the socket. */
static struct ptr_ring *viovm_net_tap_ring(struct file *file)
{
	struct ptr_ring *ring = tun_get_tx_ring(file);

	if (IS_ERR(ring))
		ring = tap_get_ptr_ring(file);
	return IS_ERR(ring) ? NULL : ring;
}

/**
 * viovm_net_attach - give a queue that starts its socket
 * @q: queue without one; dev->mutex held
 * @sock: taken over on success
 * @tap: is a tap's or a macvtap's
 *
 * Return: 0; -EINVAL a tap without a device.
 */
int viovm_net_attach(struct viovm_net_queue *q, struct socket *sock, bool tap)
{
	q->sock = sock;
	q->tap = tap;
	q->ring = NULL;
	if (tap && q->vq->index == VIOVM_NET_RX)
		q->ring = viovm_net_tap_ring(sock->file);
	viovm_net_direct_attach(q);
	q->wqh = NULL;
	q->wants = false;
	init_waitqueue_func_entry(&q->wait, viovm_net_wake);
	init_poll_funcptr(&q->pt, viovm_net_queue_proc);
	/* what is there already, the first turn finds */
	if (!(vfs_poll(sock->file, &q->pt) & EPOLLERR))
		return 0;
	if (q->wqh)
		remove_wait_queue(q->wqh, &q->wait);
	q->wqh = NULL;
	q->ring = NULL;
	q->sock = NULL;
	return -EINVAL;
}

/**
 * viovm_net_detach - a queue that has stopped lets go of its socket
 * @q: queue, no worker comes any more
 *
 * Process context.
 */
void viovm_net_detach(struct viovm_net_queue *q)
{
	if (q->wqh)
		remove_wait_queue(q->wqh, &q->wait);
	q->wqh = NULL;
	q->ring = NULL;
	sockfd_put(q->sock);
	q->sock = NULL;
}
