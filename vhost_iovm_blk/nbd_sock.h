/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NBD: a socket from user space in the transmission phase, of the client path and of the target.
 */
#ifndef _VHOST_IOVM_BLK_NBD_SOCK_H
#define _VHOST_IOVM_BLK_NBD_SOCK_H

#include <linux/bvec.h>
#include <linux/net.h>

/**
 * struct viovm_nbd_sock - an established connection
 * @sock: holds a reference; constant until nobody sends or receives, then NULL
 * @is_tcp: else a unix socket; constant
 * @is_tls: the socket has TLS keys in both directions; constant
 * @tls_have: bytes in @tls_hdr; the receiver's, like the next two
 * @tls_left: bytes to be dropped of a TLS handshake message
 * @tls_hdr: its header
 * @acked: sequence number up to which the peer had taken everything at the last look; of who calls
 *	viovm_nbd_sock_moves(), like the next one
 * @unacked: there was more then
 */
struct viovm_nbd_sock {
	struct socket *sock;
	bool is_tcp;
	bool is_tls;
	u32 tls_have;
	u32 tls_left;
	u8 tls_hdr[4];
	u32 acked;
	bool unacked;
};

/* process context, all of them */
bool viovm_nbd_keys_old(u64 records);
bool viovm_nbd_keys_spent(u64 records, bool target);
int viovm_nbd_sock_take(struct viovm_nbd_sock *s, int fd, u32 dead_ms, char *msg);
void viovm_nbd_sock_close(struct socket *sock, bool discard);
u64 viovm_nbd_sock_records(const struct viovm_nbd_sock *s);
bool viovm_nbd_sock_moves(struct viovm_nbd_sock *s);
int viovm_nbd_sock_send(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len,
			bool more, const int *stop, u32 *sent);
int viovm_nbd_sock_lend(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len,
			bool more, const int *stop, u32 *sent);
int viovm_nbd_sock_recv(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len);

#endif /* _VHOST_IOVM_BLK_NBD_SOCK_H */
