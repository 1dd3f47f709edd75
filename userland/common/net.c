// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TCP sockets by name. See net.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "net.h"

unsigned int net_listen(const char *host, const char *port, int fds[NET_MAX_LISTEN], int *err, char why[NET_WHY])
{
	struct addrinfo hint = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *all, *a;
	int fd, one = 1, last = 0, r;
	unsigned int nr = 0;

	if (err)
		*err = 0;
	r = getaddrinfo(*host && strcmp(host, "*") ? host : NULL, port, &hint, &all);
	if (r) {
		snprintf(why, NET_WHY, "'%s': %s", host, gai_strerror(r));
		return 0;
	}
	for (a = all; a && nr < NET_MAX_LISTEN; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (fd < 0) {
			last = errno;
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (a->ai_family == AF_INET6)
			setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
		if (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, 128)) {
			last = errno;
			close(fd);
			continue;
		}
		fds[nr++] = fd;
	}
	freeaddrinfo(all);
	if (!nr) {
		snprintf(why, NET_WHY, "cannot listen on '%s', port %s: %s", host, port, strerror(last));
		if (err)
			*err = last;
	}
	return nr;
}

/* 0 or an errno */
static int connect_within(int fd, const struct addrinfo *a, uint64_t end_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	uint64_t now;
	int err = 0;

	if (!connect(fd, a->ai_addr, a->ai_addrlen))
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	do {
		now = ms_now();
		if (now >= end_ms)
			return ETIMEDOUT;
	} while (poll(&p, 1, (int)(end_ms - now)) <= 0);
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) ? errno : err;
}

int net_connect(const char *host, uint16_t port, unsigned int timeout_ms, char why[NET_WHY])
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *all, *a;
	uint64_t end_ms = ms_now() + timeout_ms;
	int fd = -1, err = 0, one = 1;
	char service[8];

	snprintf(service, sizeof(service), "%u", port);
	err = getaddrinfo(host, service, &hint, &all);
	if (err) {
		snprintf(why, NET_WHY, "'%s': %s", host, gai_strerror(err));
		return -1;
	}
	for (a = all; a; a = a->ai_next) {
		fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		err = fd < 0 ? errno : connect_within(fd, a, end_ms);
		if (!err)
			break;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(all);
	if (fd < 0) {
		snprintf(why, NET_WHY, "cannot connect to '%s', port %u: %s", host, port, strerror(err));
		return -1;
	}
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

void net_keepalive(int fd, unsigned int dead_ms)
{
	int on = 1, probes = 3, idle = (int)(dead_ms / 2000) ?: 1, interval = (int)(dead_ms / 6000) ?: 1;

	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof(dead_ms));
}

void net_peer_text(int fd, char *buf, size_t n)
{
	struct sockaddr_storage a;
	char host[128], port[16];
	socklen_t len = sizeof(a);
	struct ucred cred;

	snprintf(buf, n, "?");
	if (getpeername(fd, (void *)&a, &len))
		return;
	if (a.ss_family == AF_UNIX) {
		len = sizeof(cred);
		if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
			snprintf(buf, n, "unix, pid %d", (int)cred.pid);
	} else if (!getnameinfo((void *)&a, len, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV)) {
		snprintf(buf, n, a.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	}
}

bool net_peer_is(int fd, const char *host)
{
	struct addrinfo hint = { .ai_socktype = SOCK_STREAM }, *all, *a;
	struct sockaddr_storage is;
	socklen_t len = sizeof(is);
	bool found = false;

	if (getpeername(fd, (void *)&is, &len) || getaddrinfo(host, NULL, &hint, &all))
		return false;
	for (a = all; a && !found; a = a->ai_next) {
		if (a->ai_family != is.ss_family)
			continue;
		if (is.ss_family == AF_INET)
			found = ((struct sockaddr_in *)a->ai_addr)->sin_addr.s_addr == ((struct sockaddr_in *)&is)->sin_addr.s_addr;
		else if (is.ss_family == AF_INET6)
			found = !memcmp(&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr, &((struct sockaddr_in6 *)&is)->sin6_addr,
					sizeof(struct in6_addr));
	}
	freeaddrinfo(all);
	return found;
}
