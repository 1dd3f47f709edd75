/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TCP sockets by name: listening, connecting within a time limit, who the other side is.
 */
#ifndef IOVM_NET_H
#define IOVM_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_MAX_LISTEN	16	/* sockets: a name may have several addresses */
#define NET_WHY		256

/*
 * Listening, non-blocking sockets on all addresses of host ("" or "*": of this host) at port. Returns how many, 0 and why; *err, when not
 * NULL, is the errno, 0 when the name is at fault.
 */
unsigned int net_listen(const char *host, const char *port, int fds[NET_MAX_LISTEN], int *err, char why[NET_WHY]);

/* A connected, blocking socket; -1 and why. */
int net_connect(const char *host, uint16_t port, unsigned int timeout_ms, char why[NET_WHY]);

/* Gives up on a peer that is silent for about this long, whether or not something is to be sent. */
void net_keepalive(int fd, unsigned int dead_ms);

/* "10.0.0.1:4711", "[::1]:4711", "unix, pid 12", "?" */
void net_peer_text(int fd, char *buf, size_t n);

/* Is the other side of a connected socket one of host's addresses? */
bool net_peer_is(int fd, const char *host);

#endif /* IOVM_NET_H */
