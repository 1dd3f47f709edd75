/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The key of a migration's stream: made anew for each by the host that the guest leaves, told to the other one on the agents' channel,
 * and given to both QEMUs, which then use TLS with it (tls-creds-psk). So the hosts' certificates need not be known to QEMU.
 */
#ifndef IOVMD_STREAM_KEY_H
#define IOVMD_STREAM_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "qmp.h"

#define STREAM_KEY	65		/* 32 bytes in hexadecimal, with a NUL */
#define STREAM_KEY_ID	"iovm-stream"	/* of the object in QEMU */

/* 0, or -1: there are no random numbers. */
int stream_key_new(char key[STREAM_KEY]);
bool stream_key_good(const char *key);	/* it may be NULL */

/*
 * QEMU takes it, as STREAM_KEY_ID, by way of a file below dir, a directory of this guest that is QEMU's user's. The one that listens
 * reads the file when the other one comes: stream_key_drop() when it has come or will not. 0, or -1 and why.
 */
int stream_key_give(struct qmp *q, unsigned int ms, const char *dir, const char *key, bool listens, char *why, size_t n);
void stream_key_drop(const char *dir);

#endif
