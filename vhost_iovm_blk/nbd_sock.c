// SPDX-License-Identifier: GPL-2.0
/*
 * NBD: a socket from user space, of either end.
 *
 * It comes established and, if the connection is to be secret, with the TLS keys installed: the
 * upper layer protocol encrypts and decrypts under sendmsg() and recvmsg(), and all that is seen of
 * it here is the type of a received record.
 *
 * A guest's requests drive these sockets, so they allocate with GFP_NOIO and get no emergency
 * reserves. A guest's pages are never sent without being copied: when a request is done, the guest
 * may change them although TCP may have to send them again.
 */
#include <linux/bvec.h>
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <linux/uio.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>
#include <net/tls.h>

#include "blk.h"
#include "nbd_sock.h"

#define RECORDS_MAX	(1UL << 23)	/* a peer's TLS library may change its keys at 2^24 */
#define RECORDS_LIMIT	(1UL << 24)	/* RFC 8446, 5.5: AES-GCM is good for 2^24.5 */

#define TLS_ALERT		21
#define TLS_HANDSHAKE		22
#define TLS_DATA		23
#define TLS_NEW_SESSION_TICKET	4
#define TLS_ALERT_CLOSE_NOTIFY	0
#define TLS_ALERT_BAD_MAC	20

static ulong tls_records_max = RECORDS_MAX;
module_param(tls_records_max, ulong, 0644);
MODULE_PARM_DESC(tls_records_max, "TLS records after which a connection is to be replaced");
static ulong tls_records_limit = RECORDS_LIMIT;
module_param(tls_records_limit, ulong, 0644);
MODULE_PARM_DESC(tls_records_limit, "TLS records after which it is not used any more, 2^24 at most");

/**
 * viovm_nbd_keys_old - is a connection to be replaced?
 * @records: what viovm_nbd_sock_records() says
 */
bool viovm_nbd_keys_old(u64 records)
{
	return records >= READ_ONCE(tls_records_max);
}

/**
 * viovm_nbd_keys_spent - must its keys not be used any more?
 * @records: what viovm_nbd_sock_records() says
 * @target: at the target's end, which lets the client act first
 */
bool viovm_nbd_keys_spent(u64 records, bool target)
{
	u64 limit = min(READ_ONCE(tls_records_limit), RECORDS_LIMIT);

	return records >= (target ? limit + limit / 8 : limit);
}

/* The TLS of a socket that has keys in both directions, or NULL. */
static struct tls_context *tls_of(struct sock *sk)
{
	const struct tcp_ulp_ops *ops = inet_csk(sk)->icsk_ulp_ops;
	struct tls_context *ctx;

	if (!inet_csk_has_ulp(sk) || !ops || strcmp(ops->name, "tls"))
		return NULL;
	ctx = tls_get_ctx(sk);
	return ctx && ctx->tx_conf != TLS_BASE && ctx->rx_conf != TLS_BASE ? ctx : NULL;
}

/**
 * viovm_nbd_sock_take - take a socket over
 * @s: whose; zeroed
 * @fd: in the caller's table
 * @dead_ms: how long the peer's host may be silent; 0: TCP's own limits
 * @msg: IOVM_MSG_MAX bytes: what is wrong with it
 *
 * Return: 0; -EBADF, -ENOTSOCK, -EPROTOTYPE, -ENOTCONN.
 */
int viovm_nbd_sock_take(struct viovm_nbd_sock *s, int fd, u32 dead_ms, char *msg)
{
	struct socket *sock;
	struct sock *sk;
	bool inet;
	int err;

	sock = sockfd_lookup(fd, &err);
	if (!sock) {
		snprintf(msg, IOVM_MSG_MAX, "fd %d is not a socket", fd);
		return err;
	}
	sk = sock->sk;
	inet = sk->sk_family == AF_INET || sk->sk_family == AF_INET6;
	if (sock->type != SOCK_STREAM || (inet && sk->sk_protocol != IPPROTO_TCP) ||
	    (!inet && sk->sk_family != AF_UNIX)) {
		snprintf(msg, IOVM_MSG_MAX, "fd %d is not a TCP or unix stream socket", fd);
		err = -EPROTOTYPE;
		goto put;
	}
	if (READ_ONCE(sk->sk_state) != TCP_ESTABLISHED) {
		snprintf(msg, IOVM_MSG_MAX, "the socket of fd %d is not connected", fd);
		err = -ENOTCONN;
		goto put;
	}
	if (inet && inet_csk_has_ulp(sk) && !tls_of(sk)) {
		snprintf(msg, IOVM_MSG_MAX,
			 "the socket of fd %d has an upper layer protocol without keys", fd);
		err = -EPROTOTYPE;
		goto put;
	}
	lock_sock(sk);
	sk->sk_allocation = GFP_NOIO;
	sk->sk_use_task_frag = false;
	WRITE_ONCE(sk->sk_sndtimeo, MAX_SCHEDULE_TIMEOUT);
	WRITE_ONCE(sk->sk_rcvtimeo, MAX_SCHEDULE_TIMEOUT);
	WRITE_ONCE(sk->sk_rcvlowat, 1);
	release_sock(sk);

	s->is_tcp = inet;
	if (inet) {
		s->is_tls = tls_of(sk);
		tcp_sock_set_nodelay(sk);
	}
	if (inet && dead_ms) {
		tcp_sock_set_user_timeout(sk, dead_ms);
		sock_set_keepalive(sk);
		tcp_sock_set_keepidle(sk, clamp_t(u32, dead_ms / 2000, 1, 60));
		tcp_sock_set_keepintvl(sk, 1);
		tcp_sock_set_keepcnt(sk, clamp_t(u32, dead_ms / 2000, 1, 60));
	}
	s->sock = sock;
	return 0;
put:
	sockfd_put(sock);
	return err;
}

/**
 * viovm_nbd_sock_close - close a socket
 * @sock: what viovm_nbd_sock_take() took; nobody uses it any more
 * @discard: what it has not sent yet
 */
void viovm_nbd_sock_close(struct socket *sock, bool discard)
{
	if (discard)
		sock_no_linger(sock->sk);
	sockfd_put(sock);
}

static u64 records(const char *seq)
{
	__be64 be;

	/* it changes meanwhile: a torn one is right at the next look */
	data_race(memcpy(&be, seq, sizeof(be)));
	return be64_to_cpu(be);
}

/**
 * viovm_nbd_sock_records - how far the TLS keys of a socket are used up
 * @s: whose; s->sock may be NULL, and stays what it is meanwhile
 *
 * Return: TLS records sent or received since the handshake, the larger of both. 0 without TLS.
 */
u64 viovm_nbd_sock_records(const struct viovm_nbd_sock *s)
{
	const struct tls_context *ctx;

	if (!s->is_tls || !s->sock)
		return 0;
	ctx = tls_get_ctx(s->sock->sk);
	if (!ctx)
		return 0;
	return max(records(ctx->tx.rec_seq), records(ctx->rx.rec_seq));
}

/**
 * viovm_nbd_sock_moves - is the peer taking bytes of a command that is on its way for long?
 * @s: whose; s->sock may be NULL, and stays what it is meanwhile
 *
 * A write of a megabyte may take longer than a peer may be quiet, and cannot be answered before all
 * of it is there. Only what was under way at the last look as well counts: a peer whose server
 * hangs acknowledges too, but short commands at once, and long ones until its buffer is full.
 *
 * Return: true when bytes were acknowledged since the last look. Never for a unix socket.
 */
bool viovm_nbd_sock_moves(struct viovm_nbd_sock *s)
{
	u32 acked, written;
	bool moves;

	if (!s->is_tcp || !s->sock)
		return false;
	acked = READ_ONCE(tcp_sk(s->sock->sk)->snd_una);
	written = READ_ONCE(tcp_sk(s->sock->sk)->write_seq);
	moves = s->unacked && acked != s->acked;
	s->unacked = acked != written;
	s->acked = acked;
	return moves;
}

static int sock_send(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len,
		     unsigned int flags, const int *stop, u32 *sent)
{
	struct msghdr msg = { .msg_flags = MSG_NOSIGNAL | flags };
	int ret;

	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, bv, nr, len);
	*sent = 0;
	while (*sent < len) {
		ret = sock_sendmsg(s->sock, &msg);
		if (ret > 0) {
			*sent += ret;
			continue;
		}
		/* memory may come back; if not, a watchdog ends this */
		if ((ret == -ENOMEM || ret == -ENOBUFS || ret == -EAGAIN) &&
		    !READ_ONCE(*stop)) {
			msleep(20);
			continue;
		}
		return ret ? ret : -EPIPE;
	}
	return 0;
}

/**
 * viovm_nbd_sock_send - send, waiting for room
 * @s: whose; called by its sender
 * @bv: what
 * @nr: entries of @bv
 * @len: bytes in all
 * @more: more will follow at once
 * @stop: becomes other than 0 when there is no point in waiting for memory any more
 * @sent: out: bytes that the socket took, on an error too
 *
 * The bytes are copied.
 *
 * Return: 0 when all was taken; a negative errno.
 */
int viovm_nbd_sock_send(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len,
			bool more, const int *stop, u32 *sent)
{
	return sock_send(s, bv, nr, len, more ? MSG_MORE : 0, stop, sent);
}

/**
 * viovm_nbd_sock_lend - the same, of pages that the socket may use as they are
 * @s: as above, like all but @bv
 * @bv: parts of pages, each from the page allocator and of order 0
 * @nr: as above
 * @len: as above
 * @more: as above
 * @stop: as above
 * @sent: as above
 *
 * Until the peer has acknowledged the bytes, which may be long after this has returned, the socket
 * holds a reference to each page that it has not copied. It must not be written as long as
 * page_ref_count() tells of others than the caller's.
 *
 * Return: as above.
 */
int viovm_nbd_sock_lend(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len,
			bool more, const int *stop, u32 *sent)
{
	return sock_send(s, bv, nr, len, MSG_SPLICE_PAGES | (more ? MSG_MORE : 0), stop, sent);
}

/*
 * A TLS handshake record lies where data was expected. A ticket for a later session is dropped;
 * anything else, a change of keys above all, ends the connection. Messages may be cut anywhere.
 */
static int tls_handshake(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len)
{
	struct iov_iter iter;
	u8 buf[64];
	u32 n, i;

	iov_iter_bvec(&iter, ITER_SOURCE, bv, nr, len);
	while (len) {
		n = min_t(u32, len, sizeof(buf));
		if (copy_from_iter(buf, n, &iter) != n)
			return -EIO;
		len -= n;
		for (i = 0; i < n; i++) {
			if (s->tls_left) {
				s->tls_left--;
				continue;
			}
			s->tls_hdr[s->tls_have++] = buf[i];
			if (s->tls_have < sizeof(s->tls_hdr))
				continue;
			s->tls_have = 0;
			if (s->tls_hdr[0] != TLS_NEW_SESSION_TICKET)
				return -EKEYEXPIRED;
			s->tls_left = s->tls_hdr[1] << 16 | s->tls_hdr[2] << 8 |
					 s->tls_hdr[3];
		}
	}
	return 0;
}

/* A TLS alert lies where data was expected: why the connection ends. */
static int tls_alert(const struct bio_vec *bv, u32 nr, u32 len)
{
	struct iov_iter iter;
	u8 buf[2];

	iov_iter_bvec(&iter, ITER_SOURCE, bv, nr, len);
	if (len < sizeof(buf) || copy_from_iter(buf, sizeof(buf), &iter) != sizeof(buf))
		return -EPROTO;
	switch (buf[1]) {
	case TLS_ALERT_CLOSE_NOTIFY:
		return -ECONNRESET;
	case TLS_ALERT_BAD_MAC:
		return -EBADMSG;
	default:
		return -EPROTO;
	}
}

/**
 * viovm_nbd_sock_recv - receive, waiting for the first byte
 * @s: whose; called by its receiver
 * @bv: where to
 * @nr: entries of @bv
 * @len: bytes in all
 *
 * Return: bytes received, 1 or more; a negative errno: -ECONNRESET when the peer closed the
 * connection, -EKEYEXPIRED when it changes its keys, which the kernel cannot follow, -EBADMSG when
 * either side could not decrypt what it got, -EPROTO for any other alert or kind of record.
 */
int viovm_nbd_sock_recv(struct viovm_nbd_sock *s, const struct bio_vec *bv, u32 nr, u32 len)
{
	union {
		struct cmsghdr hdr;
		u8 buf[CMSG_SPACE(sizeof(u8))];
	} ctl;
	int ret, err;

	for (;;) {
		struct msghdr msg = { .msg_flags = MSG_NOSIGNAL };
		u8 type = TLS_DATA;

		iov_iter_bvec(&msg.msg_iter, ITER_DEST, bv, nr, len);
		memset(&ctl, 0, sizeof(ctl));
		if (s->is_tls) {
			msg.msg_control = &ctl;
			msg.msg_controllen = sizeof(ctl);
		}
		ret = sock_recvmsg(s->sock, &msg, 0);
		if (ret == -EAGAIN || ret == -EINTR)
			continue;
		if (ret < 0)
			return ret;
		if (s->is_tls && msg.msg_controllen != sizeof(ctl) &&
		    ctl.hdr.cmsg_level == SOL_TLS && ctl.hdr.cmsg_type == TLS_GET_RECORD_TYPE)
			type = *(u8 *)CMSG_DATA(&ctl.hdr);
		if (type == TLS_HANDSHAKE) {
			err = tls_handshake(s, bv, nr, ret);
			if (err)
				return err;
			continue;
		}
		if (!ret)
			return -ECONNRESET;
		if (type == TLS_ALERT)
			return tls_alert(bv, nr, ret);
		return type == TLS_DATA ? ret : -EPROTO;
	}
}
