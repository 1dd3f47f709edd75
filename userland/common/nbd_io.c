// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NBD handshakes: reading and writing within a time limit. See nbd_io.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "nbd_io.h"

uint64_t nbd_io_left(const struct nbd_io *io)
{
	uint64_t now = ms_now();

	return now < io->end_ms ? io->end_ms - now : 0;
}

int nbd_io_bad(struct nbd_io *io, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(io->why, io->n, fmt, ap);
	va_end(ap);
	return -1;
}

static int wait_for(struct nbd_io *io, short events)
{
	struct pollfd p = { .fd = io->fd, .events = events };
	uint64_t left;
	int r;

	do {
		left = nbd_io_left(io);
		r = left ? poll(&p, 1, left > 3600000 ? 3600000 : (int)left) : 0;
	} while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : nbd_io_bad(io, "it was too slow");
}

static int get_tls(struct nbd_io *io, void *buf, size_t n)
{
	ssize_t r;

	while (n) {
		r = tls_read(io->tls, buf, n, nbd_io_left(io));
		if (r < 0)
			return nbd_io_bad(io, "%s", tls_error(io->tls));
		if (!r)
			return nbd_io_bad(io, "it hung up during the handshake");
		buf = (char *)buf + r;
		n -= (size_t)r;
	}
	return 0;
}

int nbd_io_get(struct nbd_io *io, void *buf, size_t n)
{
	ssize_t r;

	if (io->tls)
		return get_tls(io, buf, n);
	while (n) {
		if (wait_for(io, POLLIN))
			return -1;
		r = recv(io->fd, buf, n, MSG_DONTWAIT);
		if (r < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r <= 0)
			return nbd_io_bad(io, "it hung up during the handshake");
		buf = (char *)buf + r;
		n -= (size_t)r;
	}
	return 0;
}

int nbd_io_put(struct nbd_io *io, const void *buf, size_t n)
{
	ssize_t r;

	if (io->tls)
		return tls_write(io->tls, buf, n, nbd_io_left(io)) ? nbd_io_bad(io, "%s", tls_error(io->tls)) : 0;
	while (n) {
		if (wait_for(io, POLLOUT))
			return -1;
		r = send(io->fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (r < 0)
			return nbd_io_bad(io, "it hung up during the handshake");
		buf = (const char *)buf + r;
		n -= (size_t)r;
	}
	return 0;
}

int nbd_io_skip(struct nbd_io *io, uint32_t n)
{
	char buf[512];

	while (n) {
		uint32_t k = n < sizeof(buf) ? n : (uint32_t)sizeof(buf);

		if (nbd_io_get(io, buf, k))
			return -1;
		n -= k;
	}
	return 0;
}
