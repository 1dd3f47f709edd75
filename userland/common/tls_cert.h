/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The certificates in a directory as tls.h describes it: what they say, making this host's own, adding and removing those of peers.
 * Nothing here prints; what fails leaves a sentence in why (n bytes).
 */
#ifndef IOVM_TLS_CERT_H
#define IOVM_TLS_CERT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "tls.h"

#define TLS_CERT_YEARS		10	/* a certificate that is made here is valid for so long */
#define TLS_CERT_MAX		(16u << 10)	/* bytes of PEM that a peer may send */
#define TLS_CERT_SOON		(30 * 86400)	/* one that expires within these seconds is pointed out */

/**
 * struct tls_cert - what a certificate says
 * @name: its common name; "" none
 * @fingerprint: "sha256:", 64 hexadecimal digits
 * @from: it is valid from then on
 * @until: up to then
 * @is_ca: it may sign others
 * @self_signed: nobody else has signed it
 */
struct tls_cert {
	char name[128];
	char fingerprint[72];
	time_t from, until;
	bool is_ca, self_signed;
};

/* The first one of a file; 0, 1: there is no such file, -1 and why. */
int tls_cert_read(const char *file, struct tls_cert *c, char *why, size_t n);
/* What is wrong with it now, as "has expired"; NULL: nothing. */
const char *tls_cert_trouble(const struct tls_cert *c);
/* "2036-11-27" */
void tls_cert_day(time_t when, char day[16]);

/*
 * Makes sure that the directory has host.key and host.crt, for a host called name; *made: they were missing. *pem: host.crt's first
 * certificate, for free(). 0, or -1 and why.
 */
int tls_cert_own(const char *dir, const char *name, bool *made, char **pem, struct tls_cert *c, char *why, size_t n);

/* What this host shows: as tls_cert_read(). */
int tls_cert_read_own(const char *dir, struct tls_cert *c, char *why, size_t n);

/*
 * A new certificate of this host's own, with its key, in memory: made, put in place, freed. In place it is used by whoever loads
 * the directory from then on: both or none of the two, also after a power failure.
 */
struct tls_pair {
	char *crt, *key;		/* PEM */
	struct tls_cert cert;
};

int tls_pair_make(const char *name, struct tls_pair *p, char *why, size_t n);
int tls_pair_put(const char *dir, const struct tls_pair *p, char *why, size_t n);
void tls_pair_free(struct tls_pair *p);

/*
 * A peer that shows the certificate with this fingerprint now is going to show another one, text: it is known by both. Refused
 * when it is not known by its own, but by a CA's.
 */
int tls_cert_keep_next(const char *dir, const char *name, const char *text, const char *fingerprint, struct tls_cert *c,
		       char *why, size_t n);
/*
 * It has shown the one with this fingerprint: if that is the newest by which it is known, it is by that alone. 1: it was by
 * others.
 */
int tls_cert_seen(const char *dir, const char *name, const char *fingerprint, char *why, size_t n);

/*
 * A peer is known by this certificate, and by no other, from now on. text is what it sent: exactly one certificate, which is not a
 * CA's, for else it would be known by whatever that signs.
 */
int tls_cert_keep(const char *dir, const char *name, const char *text, struct tls_cert *c, char *why, size_t n);
/* 0, 1: it was not known, -1 and why. */
int tls_cert_forget(const char *dir, const char *name, char *why, size_t n);

/* What the peer of a session has shown. */
void tls_cert_of_peer(const struct tls *t, struct tls_cert *c);

#endif
