/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TCP connections with TLS 1.3 keys in the kernel and without a handshake: both ends are given keys that the test knows, so that it
 * can be the other end and send what a peer should not. And the numbers of records at which keys are old, or spent.
 */
#ifndef KTLS_H
#define KTLS_H

#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/socket.h>

#include "vdrv.h"

#ifndef SOL_TLS
#define SOL_TLS		282
#endif

enum { KTLS_ALERT = 21, KTLS_HANDSHAKE = 22, KTLS_DATA = 23 };

int ktls_ulp(int fd);				/* the protocol, without keys; 0 or -errno */
/* way: TLS_TX or TLS_RX; what: the byte that key and salt consist of; seq: records that are gone already. 0 or -errno */
int ktls_set_keys(int fd, int way, u16 cipher, u8 what, u64 seq);
/* sv[0] is a client's end, sv[1] a server's. Ends the case on an error, like all below. */
void ktls_pair(int sv[2], u16 cipher, u64 seq);
void ktls_send(int fd, u8 type, const void *data, size_t len);	/* a record of a type of its own */

/* tls_records_max and tls_records_limit of vhost_iovm_blk; 0: stays. What they were comes back by ktls_limits_restore(). */
void ktls_limits(u64 max, u64 limit);
void ktls_limits_restore(void);

#endif /* KTLS_H */
