// SPDX-License-Identifier: GPL-2.0-or-later
/* Framing: a message may arrive in any number of pieces, and its file descriptors with any of them. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vu.h"

_Static_assert(offsetof(struct vu_msg, nr_fds) == VU_HEADER, "the header comes first in struct vu_msg");

void vu_reader_init(struct vu_reader *rd, int fd)
{
	memset(rd, 0, sizeof(*rd));
	rd->fd = fd;
}

/* Forget the message, and close what nobody took from it. */
void vu_reader_reset(struct vu_reader *rd)
{
	uint32_t i;

	for (i = 0; i < rd->msg.nr_fds; i++) {
		if (rd->msg.fds[i] >= 0)
			close(rd->msg.fds[i]);
	}
	memset(&rd->msg, 0, sizeof(rd->msg));
	rd->got = 0;
}

/* The first file descriptor that nobody took yet, or -1. It is the caller's then. */
int vu_msg_take_fd(struct vu_msg *msg)
{
	uint32_t i;

	for (i = 0; i < msg->nr_fds; i++) {
		int fd = msg->fds[i];

		if (fd >= 0) {
			msg->fds[i] = -1;
			return fd;
		}
	}
	return -1;
}

static int take_control(struct vu_session *s, struct msghdr *mh)
{
	struct vu_msg *msg = &s->rd.msg;
	struct cmsghdr *c;
	int ret = 0;

	for (c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t i, n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (msg->nr_fds < VU_MAX_FDS) {
				msg->fds[msg->nr_fds++] = fd;
			} else {
				close(fd);
				ret = -EMSGSIZE;
			}
		}
	}
	if (mh->msg_flags & MSG_CTRUNC)
		ret = -EMSGSIZE;
	if (ret)
		vu_fail(s, ret, "more than %d file descriptors came with one message", VU_MAX_FDS);
	return ret;
}

/* One recvmsg() into the header or into the payload, never beyond either. */
static ssize_t recv_piece(struct vu_session *s, void *to, size_t len)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * VU_MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = to, .iov_len = len };
	struct msghdr mh = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;
	int ret;

	do {
		n = recvmsg(s->rd.fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ret = take_control(s, &mh);
	return ret ? ret : n;
}

static int check_header(struct vu_session *s)
{
	struct vu_msg *msg = &s->rd.msg;

	if ((msg->flags & VU_FLAG_VERSION_MASK) != VU_FLAG_VERSION)
		return vu_fail(s, -EPROTO, "not vhost-user version 1: request %u, flags 0x%x", msg->request, msg->flags);
	if (msg->flags & VU_FLAG_REPLY)
		return vu_fail(s, -EPROTO, "%s: a reply to nothing", vu_request_name(msg->request));
	if (msg->size > sizeof(msg->p))
		return vu_fail(s, -EMSGSIZE, "%s (%u): %u bytes of payload", vu_request_name(msg->request),
			       msg->request, msg->size);
	return 0;
}

/*
 * Go on receiving. 1: a message is complete in s->rd.msg; 0: nothing more for now; VU_EOF: the front end
 * closed the connection between two messages; else a negative errno, with the reason in s->error.
 */
int vu_msg_recv(struct vu_session *s)
{
	struct vu_reader *rd = &s->rd;
	struct vu_msg *msg = &rd->msg;

	for (;;) {
		uint8_t *to;
		size_t len;
		ssize_t n;
		int ret;

		if (rd->got < VU_HEADER) {
			to = (uint8_t *)msg + rd->got;
			len = VU_HEADER - rd->got;
		} else {
			to = msg->p.raw + (rd->got - VU_HEADER);
			len = msg->size - (rd->got - VU_HEADER);
			if (!len)
				return 1;
		}
		n = recv_piece(s, to, len);
		if (n == -EAGAIN)
			return 0;
		if (n == -ECONNRESET)
			n = 0;
		if (n == 0 && !rd->got)
			return VU_EOF;
		if (n == 0)
			return vu_fail(s, -ECONNRESET, "the connection ended in the middle of a message");
		if (n == -EMSGSIZE)
			return n;
		if (n < 0)
			return vu_fail(s, n, "recvmsg: %s", strerror(-n));
		rd->got += n;
		if (rd->got == VU_HEADER) {
			ret = check_header(s);
			if (ret)
				return ret;
		}
	}
}

/* send() with a file descriptor, -1: none. */
static ssize_t send_piece(int fd, const void *from, size_t len, int pass_fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)from, .iov_len = len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (pass_fd >= 0) {
		mh.msg_control = control.buf;
		mh.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
	}
	return sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/*
 * Send a message whole, with the file descriptor @pass_fd unless it is -1; a peer that does not take it for @timeout_ms
 * gives -EAGAIN with nothing or part of it sent.
 */
int vu_msg_send(int fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int pass_fd,
		int timeout_ms)
{
	uint32_t header[3] = { request, flags | VU_FLAG_VERSION, size };
	uint8_t buf[VU_HEADER + sizeof(((struct vu_msg *)0)->p)];
	size_t len = VU_HEADER + size, done = 0;

	if (size > sizeof(buf) - VU_HEADER)
		return -EMSGSIZE;
	memcpy(buf, header, VU_HEADER);
	if (size)
		memcpy(buf + VU_HEADER, payload, size);
	while (done < len) {
		ssize_t n = send_piece(fd, buf + done, len - done, done ? -1 : pass_fd);

		if (n >= 0) {
			done += n;
		} else if (errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			if (!timeout_ms || poll(&p, 1, timeout_ms) == 0)
				return -EAGAIN;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}
