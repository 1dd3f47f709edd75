// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS: the certificates in a directory. See tls_cert.h.
 */
#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "put_file.h"
#include "tls_cert.h"
#include "tls_int.h"

#define MAX_FILE	(64u << 10)
#define DAY		86400
#define SLACK		DAY	/* clocks of hosts differ */

/* --- what one says --- */

static void describe(gnutls_x509_crt_t crt, struct tls_cert *c)
{
	size_t size = sizeof(c->name), i;
	unsigned char digest[32];

	memset(c, 0, sizeof(*c));
	if (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, c->name, &size) < 0)
		c->name[0] = 0;
	/* it may be a stranger's word */
	for (i = 0; c->name[i]; i++)
		if (c->name[i] < ' ' || c->name[i] > '~')
			c->name[i] = '?';
	strcpy(c->fingerprint, "sha256:");
	size = sizeof(digest);
	if (gnutls_x509_crt_get_fingerprint(crt, GNUTLS_DIG_SHA256, digest, &size) >= 0)
		for (i = 0; i < sizeof(digest); i++)
			sprintf(c->fingerprint + 7 + 2 * i, "%02x", digest[i]);
	c->from = gnutls_x509_crt_get_activation_time(crt);
	c->until = gnutls_x509_crt_get_expiration_time(crt);
	c->is_ca = gnutls_x509_crt_get_ca_status(crt, NULL) > 0;
}

/* Of a text, exactly one or at least one; NULL and an error of gnutls. */
static gnutls_x509_crt_t import(const void *text, size_t n, bool one, int *err)
{
	gnutls_datum_t d = { (unsigned char *)(uintptr_t)text, (unsigned int)n };
	gnutls_x509_crt_t *all = NULL, first = NULL;
	unsigned int nr = 0, i;

	*err = gnutls_x509_crt_list_import2(&all, &nr, &d, GNUTLS_X509_FMT_PEM, 0);
	if (*err < 0)
		return NULL;
	for (i = 0; i < nr; i++)
		if (i || (one && nr > 1))
			gnutls_x509_crt_deinit(all[i]);
		else
			first = all[i];
	gnutls_free(all);
	if (!first)
		*err = GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR;
	return first;
}

static int slurp(const char *file, char **text, size_t *len)
{
	FILE *f = fopen(file, "re");
	int err = errno;

	*text = NULL;
	if (!f)
		return err;
	*text = malloc(MAX_FILE + 1);
	*len = *text ? fread(*text, 1, MAX_FILE, f) : 0;
	err = !*text ? ENOMEM : ferror(f) ? EIO : 0;
	if (!err)
		(*text)[*len] = 0;
	fclose(f);
	if (err) {
		free(*text);
		*text = NULL;
	}
	return err;
}

static gnutls_x509_crt_t read_first(const char *file, int *missing, char *why, size_t n)
{
	gnutls_x509_crt_t crt;
	size_t len = 0;
	char *text;
	int err = slurp(file, &text, &len);

	*missing = err == ENOENT;
	if (err) {
		snprintf(why, n, "cannot read '%s': %s", file, strerror(err));
		return NULL;
	}
	crt = import(text, len, false, &err);
	free(text);
	if (!crt)
		snprintf(why, n, "'%s' holds no certificate in PEM: %s", file, gnutls_strerror(err));
	return crt;
}

int tls_cert_read(const char *file, struct tls_cert *c, char *why, size_t n)
{
	gnutls_x509_crt_t crt;
	int missing;

	memset(c, 0, sizeof(*c));
	crt = read_first(file, &missing, why, n);
	if (!crt)
		return missing ? 1 : -1;
	describe(crt, c);
	gnutls_x509_crt_deinit(crt);
	return 0;
}

const char *tls_cert_trouble(const struct tls_cert *c)
{
	time_t now = time(NULL);

	return now > c->until ? "has expired" : now < c->from ? "is not valid yet" : NULL;
}

void tls_cert_day(time_t when, char day[16])
{
	struct tm tm;

	if (when == (time_t)-1 || !gmtime_r(&when, &tm) || !strftime(day, 16, "%Y-%m-%d", &tm))
		strcpy(day, "?");
}

void tls_cert_of_peer(const struct tls *t, struct tls_cert *c)
{
	unsigned int nr = 0;
	const gnutls_datum_t *raw = gnutls_certificate_get_peers(t->s, &nr);
	gnutls_x509_crt_t crt;

	memset(c, 0, sizeof(*c));
	if (!raw || !nr || gnutls_x509_crt_init(&crt) < 0)
		return;
	if (gnutls_x509_crt_import(crt, raw, GNUTLS_X509_FMT_DER) >= 0)
		describe(crt, c);
	gnutls_x509_crt_deinit(crt);
}

/* --- this host's own --- */

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

static int put(const char *file, mode_t mode, const gnutls_datum_t *d, char *why, size_t n)
{
	int err = put_file(file, mode, d->data, d->size);

	if (err)
		snprintf(why, n, "cannot write '%s': %s", file, strerror(err));
	return err ? -1 : 0;
}

/* The key goes first: a key without a certificate is one that was interrupted here. */
static int make_own(const char *key_file, const char *crt_file, const char *name, char *why, size_t n)
{
	gnutls_datum_t pem_key = { NULL, 0 }, pem_crt = { NULL, 0 };
	gnutls_x509_privkey_t key = NULL;
	gnutls_x509_crt_t crt = NULL;
	int err = new_key(&key), r = -1;

	if (err >= 0)
		err = new_cert(key, name, &crt);
	if (err >= 0)
		err = gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem_key);
	if (err >= 0)
		err = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem_crt);
	if (err < 0)
		snprintf(why, n, "cannot make a certificate: %s", gnutls_strerror(err));
	else
		r = put(key_file, 0600, &pem_key, why, n) ?: put(crt_file, 0644, &pem_crt, why, n);
	if (pem_key.data)
		gnutls_memset(pem_key.data, 0, pem_key.size);
	gnutls_free(pem_key.data);
	gnutls_free(pem_crt.data);
	if (crt)
		gnutls_x509_crt_deinit(crt);
	if (key)
		gnutls_x509_privkey_deinit(key);
	return r;
}

static int no_dir(const char *dir, char *why, size_t n)
{
	char peers[4096];
	int err;

	snprintf(peers, sizeof(peers), "%s/peers", dir);
	err = put_dir(peers, 0755);
	if (err)
		snprintf(why, n, "cannot make '%s': %s", peers, strerror(err));
	return err;
}

int tls_cert_own(const char *dir, const char *name, bool *made, char **pem, struct tls_cert *c, char *why, size_t n)
{
	char key_file[4096], crt_file[4096];
	gnutls_datum_t d = { NULL, 0 };
	gnutls_x509_crt_t crt;
	int missing;

	*made = false;
	*pem = NULL;
	if (no_dir(dir, why, n))
		return -1;
	snprintf(key_file, sizeof(key_file), "%s/host.key", dir);
	snprintf(crt_file, sizeof(crt_file), "%s/host.crt", dir);
	if (access(crt_file, F_OK) && errno == ENOENT) {
		*made = true;
		if (make_own(key_file, crt_file, name, why, n))
			return -1;
	} else if (access(key_file, F_OK) && errno == ENOENT) {
		snprintf(why, n, "there is '%s' but no '%s': bring the key, or remove the certificate to have both made anew", crt_file,
			 key_file);
		return -1;
	}
	crt = read_first(crt_file, &missing, why, n);
	if (!crt)
		return -1;
	describe(crt, c);
	if (gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &d) >= 0)
		*pem = strndup((const char *)d.data, d.size);
	gnutls_free(d.data);
	gnutls_x509_crt_deinit(crt);
	if (!*pem)
		snprintf(why, n, "out of memory");
	return *pem ? 0 : -1;
}

/* --- peers' --- */

int tls_cert_keep(const char *dir, const char *name, const char *text, struct tls_cert *c, char *why, size_t n)
{
	gnutls_datum_t d = { NULL, 0 };
	gnutls_x509_crt_t crt = NULL;
	char file[4096], day[16];
	size_t len = strlen(text);
	int err = GNUTLS_E_RECORD_OVERFLOW, r = -1;

	memset(c, 0, sizeof(*c));
	if (len <= TLS_CERT_MAX)
		crt = import(text, len, true, &err);
	if (!crt) {
		snprintf(why, n, "what it sent is not one certificate in PEM: %s", gnutls_strerror(err));
		return -1;
	}
	describe(crt, c);
	tls_cert_day(c->until, day);
	if (c->is_ca)
		snprintf(why, n, "the certificate that it sent may sign others (it is a CA's): copy that one yourself if it is what you want");
	else if (tls_cert_trouble(c))
		snprintf(why, n, "the certificate that it sent %s (until %s): are the clocks of both hosts right?", tls_cert_trouble(c), day);
	else if (!no_dir(dir, why, n)) {
		/* not as it came, but as it was understood */
		snprintf(file, sizeof(file), "%s/peers/%s.crt", dir, name);
		if (gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &d) < 0)
			snprintf(why, n, "out of memory");
		else
			r = put(file, 0644, &d, why, n);
		gnutls_free(d.data);
	}
	gnutls_x509_crt_deinit(crt);
	return r;
}

int tls_cert_forget(const char *dir, const char *name, char *why, size_t n)
{
	char file[4096];

	snprintf(file, sizeof(file), "%s/peers/%s.crt", dir, name);
	if (!unlink(file))
		return 0;
	if (errno == ENOENT)
		return 1;
	snprintf(why, n, "cannot remove '%s': %s", file, strerror(errno));
	return -1;
}
