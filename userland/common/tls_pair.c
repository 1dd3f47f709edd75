// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS: this host's own certificate and its key are made, and put in place together. See tls_cert.h.
 */
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "put_file.h"
#include "tls_cert.h"
#include "tls_int.h"

#define DAY		86400
#define SLACK		DAY	/* clocks of hosts differ */

static int new_key(gnutls_x509_privkey_t *key)
{
	int err = gnutls_x509_privkey_init(key);

	if (err >= 0)
		err = gnutls_x509_privkey_generate(*key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	return err;
}

/* Signed by itself; no CA: it is known as it is, and nothing that it may sign. */
static int new_cert(gnutls_x509_privkey_t key, const char *name, gnutls_x509_crt_t *crt)
{
	unsigned char serial[16], id[20];
	size_t id_size = sizeof(id);
	time_t now = time(NULL);
	int err = gnutls_x509_crt_init(crt);

	if (err < 0)
		return err;
	err = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));
	serial[0] = (serial[0] & 0x7f) | 0x40;
	if (err >= 0)
		err = gnutls_x509_crt_set_version(*crt, 3);
	if (err >= 0)
		err = gnutls_x509_crt_set_serial(*crt, serial, sizeof(serial));
	if (err >= 0)
		err = gnutls_x509_crt_set_activation_time(*crt, now - SLACK);
	if (err >= 0)
		err = gnutls_x509_crt_set_expiration_time(*crt, now + TLS_CERT_YEARS * 365 * (time_t)DAY);
	if (err >= 0)
		err = gnutls_x509_crt_set_dn_by_oid(*crt, GNUTLS_OID_X520_COMMON_NAME, 0, name, (unsigned int)strlen(name));
	if (err >= 0)
		err = gnutls_x509_crt_set_subject_alt_name(*crt, GNUTLS_SAN_DNSNAME, name, (unsigned int)strlen(name),
							   GNUTLS_FSAN_SET);
	if (err >= 0)
		err = gnutls_x509_crt_set_basic_constraints(*crt, 0, -1);
	if (err >= 0)
		err = gnutls_x509_crt_set_key_usage(*crt, GNUTLS_KEY_DIGITAL_SIGNATURE);
	if (err >= 0)
		err = gnutls_x509_crt_set_key_purpose_oid(*crt, GNUTLS_KP_TLS_WWW_SERVER, 0);
	if (err >= 0)
		err = gnutls_x509_crt_set_key_purpose_oid(*crt, GNUTLS_KP_TLS_WWW_CLIENT, 0);
	if (err >= 0)
		err = gnutls_x509_crt_set_key(*crt, key);
	if (err >= 0 && gnutls_x509_crt_get_key_id(*crt, GNUTLS_KEYID_USE_SHA1, id, &id_size) >= 0)
		err = gnutls_x509_crt_set_subject_key_id(*crt, id, id_size);
	if (err >= 0)
		err = gnutls_x509_crt_sign2(*crt, *crt, key, GNUTLS_DIG_SHA256, 0);
	return err;
}

static char *text_of(gnutls_datum_t *d)
{
	char *text = d->data ? strndup((const char *)d->data, d->size) : NULL;

	if (d->data)
		gnutls_memset(d->data, 0, d->size);
	gnutls_free(d->data);
	return text;
}

int tls_pair_make(const char *name, struct tls_pair *p, char *why, size_t n)
{
	gnutls_datum_t pem_key = { NULL, 0 }, pem_crt = { NULL, 0 };
	gnutls_x509_privkey_t key = NULL;
	gnutls_x509_crt_t crt = NULL;
	int err = new_key(&key);

	memset(p, 0, sizeof(*p));
	if (err >= 0)
		err = new_cert(key, name, &crt);
	if (err >= 0)
		err = gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem_key);
	if (err >= 0)
		err = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem_crt);
	if (err >= 0)
		tls_describe(crt, &p->cert);
	p->key = text_of(&pem_key);
	p->crt = text_of(&pem_crt);
	if (err >= 0 && (!p->key || !p->crt))
		err = GNUTLS_E_MEMORY_ERROR;
	if (err < 0) {
		snprintf(why, n, "cannot make a certificate: %s", gnutls_strerror(err));
		tls_pair_free(p);
	}
	if (crt)
		gnutls_x509_crt_deinit(crt);
	if (key)
		gnutls_x509_privkey_deinit(key);
	return err < 0 ? -1 : 0;
}

void tls_pair_free(struct tls_pair *p)
{
	if (p->key)
		gnutls_memset(p->key, 0, strlen(p->key));
	free(p->key);
	free(p->crt);
	p->key = p->crt = NULL;
}

/* What TLS_NEXT holds, the certificate and then the key, goes to its places. */
int tls_pair_finish(const char *dir, char *why, size_t n)
{
	static const char end[] = "-----END CERTIFICATE-----\n";
	char file[4096], *text, *key;
	size_t len = 0;
	int err, r = -1;

	snprintf(file, sizeof(file), "%s/" TLS_NEXT, dir);
	err = tls_slurp(file, &text, &len);
	if (err == ENOENT)
		return 0;
	key = err ? NULL : strstr(text, end);
	if (!key) {
		snprintf(why, n, "'%s', a certificate that was being renewed, cannot be read: %s", file, err ? strerror(err) : "it is damaged");
	} else {
		key += strlen(end);
		r = tls_put(dir, "host.key", 0600, key, strlen(key), why, n) ?:
		    tls_put(dir, "host.crt", 0644, text, (size_t)(key - text), why, n);
		err = r ? 0 : drop_file(file);
		if (err) {
			snprintf(why, n, "cannot remove '%s': %s", file, strerror(err));
			r = -1;
		}
	}
	if (text)
		gnutls_memset(text, 0, len);
	free(text);
	return r;
}

int tls_pair_put(const char *dir, const struct tls_pair *p, char *why, size_t n)
{
	char *text;
	int r;

	if (asprintf(&text, "%s%s", p->crt, p->key) < 0) {
		snprintf(why, n, "out of memory");
		return -1;
	}
	r = tls_put(dir, TLS_NEXT, 0600, text, strlen(text), why, n) ?: tls_pair_finish(dir, why, n);
	gnutls_memset(text, 0, strlen(text));
	free(text);
	return r;
}

/* The key goes first: a key without a certificate is one that was interrupted here. */
int tls_pair_first(const char *dir, const char *name, char *why, size_t n)
{
	struct tls_pair p;
	int r;

	if (tls_pair_make(name, &p, why, n))
		return -1;
	r = tls_put(dir, "host.key", 0600, p.key, strlen(p.key), why, n) ?: tls_put(dir, "host.crt", 0644, p.crt, strlen(p.crt), why, n);
	tls_pair_free(&p);
	return r;
}
