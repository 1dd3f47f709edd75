/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS: what the files tls*.c share.
 */
#ifndef IOVM_TLS_INT_H
#define IOVM_TLS_INT_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include "tls.h"

#define TLS_WHY		256

/* A file of peers/ */
struct tls_known {
	char *name;
	gnutls_x509_crt_t crt;
	gnutls_datum_t der;
	bool is_ca;
};

/* Either what was read from a directory, or a secret in common (tls_psk.c) */
struct tls_creds {
	char *dir;
	gnutls_certificate_credentials_t own;
	gnutls_priority_t priority;
	struct tls_known *known;
	unsigned int nr_known;
	gnutls_datum_t secret;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
};

struct tls {
	gnutls_session_t s;
	const struct tls_creds *creds;
	int fd;
	const char *want;		/* client: the name of its peer; only during the handshake */
	const struct tls_known *peer;	/* who it is */
	uint64_t end_ms;		/* of the call under way */
	gnutls_alert_description_t alert;	/* what to tell the peer about its certificate */
	bool broken;
	char why[TLS_WHY];
};

/* For gnutls: is the peer who it must be? Sets t->peer, or t->why and t->alert. */
int tls_verify(gnutls_session_t s);

/* tls_psk.c: have a session use the secret; free what is there of it. */
int tls_secret_use(struct tls *t);
void tls_secret_drop(struct tls_creds *c);

/* tls_cert.c: what a certificate says; a file, for free(), 0 or an errno; a file of a directory is written, 0, or -1 and why. */
struct tls_cert;
void tls_describe(gnutls_x509_crt_t crt, struct tls_cert *c);
int tls_slurp(const char *file, char **text, size_t *len);
int tls_put(const char *dir, const char *name, mode_t mode, const char *text, size_t len, char *why, size_t n);

/* tls_pair.c: what TLS_NEXT holds goes to its places; the first pair of a host is made. 0, or -1 and why. */
int tls_pair_finish(const char *dir, char *why, size_t n);
int tls_pair_first(const char *dir, const char *name, char *why, size_t n);

#endif
