/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS 1.3 between hosts that know each other, on connected TCP sockets, and the hand-over of its keys to the kernel (kTLS).
 *
 * A directory holds what a host needs: host.crt and host.key (its own; host.crt may be a chain), and peers/NAME.crt for each peer
 * that it knows. That file is either the peer's own certificate, which then must be shown exactly so, or a CA's, which must have
 * signed the peer's, with NAME as common name or subject alternative name. Both ends always show one. Of a peer's own there may be
 * several, while it changes from one to another. TLS_NEXT, while it is there, holds what host.crt and host.key are going to be,
 * and is used instead of them.
 *
 * Nothing here prints. What fails leaves a sentence fragment in why (n bytes) that goes after the name of the peer: "10.0.0.2: " +
 * "its certificate has expired (2026-01-01)".
 */
#ifndef IOVM_TLS_H
#define IOVM_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TLS_DIR		"/etc/iovm/tls"
#define TLS_NEXT	"host.next"

struct tls_creds;		/* what was read from a directory; shared by sessions, read-only */
struct tls;			/* a session */

/* The certificates as they are now; NULL and why. They are not read again: load them anew when files have changed. */
struct tls_creds *tls_load(const char *dir, char *why, size_t n);
void tls_unload(struct tls_creds *c);

/*
 * For hosts that do not know each other yet: both ends have a secret, of at least 80 bits that nobody can guess, since whoever is in
 * between may try to guess it at leisure. There are no names then: tls_client() is told "", and nobody may call tls_peer().
 */
struct tls_creds *tls_secret(const void *secret, size_t size, char *why, size_t n);

/*
 * Shake hands within timeout_ms. The client expects peer, by its name; the server finds out who the client is. A server may refuse a
 * client after the client's side is through: the client learns it from its first tls_read(). fd stays the caller's.
 */
struct tls *tls_client(const struct tls_creds *c, int fd, const char *peer, uint64_t timeout_ms, char *why, size_t n);
struct tls *tls_server(const struct tls_creds *c, int fd, uint64_t timeout_ms, char *why, size_t n);

/* NAME of the peer. */
const char *tls_peer(const struct tls *t);

/*
 * Up to len bytes, 1 or more; 0 when the peer has closed in order; -1, errno and tls_error(): EAGAIN when there was nothing for
 * timeout_ms (0: right now), after which one may try again.
 */
ssize_t tls_read(struct tls *t, void *buf, size_t len, uint64_t timeout_ms);
/* All of it: 0, or -1, errno and tls_error(); the session cannot be used any more then. */
int tls_write(struct tls *t, const void *buf, size_t len, uint64_t timeout_ms);
/* Is there something that tls_read() gives although poll() does not tell? */
bool tls_pending(const struct tls *t);
/* Why the last tls_read() or tls_write() has failed. */
const char *tls_error(const struct tls *t);

/* Say goodbye (not when it failed) and free it. t may be NULL. */
void tls_close(struct tls *t);

/*
 * From now on the kernel encrypts and decrypts on the socket, which is used with plain read() and write(). The session is freed, on
 * an error too: then the connection is of no use. Nothing may have come that was not read. Returns 0, or -1 and why.
 */
int tls_to_kernel(struct tls *t, char *why, size_t n);
/* Has the kernel TLS? Loads its module if it may. Returns 0, or -1 and why: a sentence by itself. */
int tls_kernel_ready(char *why, size_t n);

#endif
