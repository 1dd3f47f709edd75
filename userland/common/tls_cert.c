// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS: the certificates in a directory. See tls_cert.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "put_file.h"
#include "tls_cert.h"
#include "tls_int.h"

#define MAX_FILE	(64u << 10)
#define PEER_FILE_MAX	256

/* --- what one says --- */

void tls_describe(gnutls_x509_crt_t crt, struct tls_cert *c)
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
	c->self_signed = gnutls_x509_crt_check_issuer(crt, crt) > 0;
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

int tls_slurp(const char *file, char **text, size_t *len)
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
	int err = tls_slurp(file, &text, &len);

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
	tls_describe(crt, c);
	gnutls_x509_crt_deinit(crt);
	return 0;
}

int tls_cert_read_own(const char *dir, struct tls_cert *c, char *why, size_t n)
{
	char file[4096];
	int r;

	snprintf(file, sizeof(file), "%s/" TLS_NEXT, dir);
	r = tls_cert_read(file, c, why, n);
	if (r <= 0)
		return r;
	snprintf(file, sizeof(file), "%s/host.crt", dir);
	return tls_cert_read(file, c, why, n);
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
		tls_describe(crt, c);
	gnutls_x509_crt_deinit(crt);
}

/* --- this host's own --- */

int tls_put(const char *dir, const char *name, mode_t mode, const char *text, size_t len, char *why, size_t n)
{
	char file[4096];
	int err;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	err = put_file(file, mode, text, len);
	if (err)
		snprintf(why, n, "cannot write '%s': %s", file, strerror(err));
	return err ? -1 : 0;
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
	if (no_dir(dir, why, n) || tls_pair_finish(dir, why, n))
		return -1;
	snprintf(key_file, sizeof(key_file), "%s/host.key", dir);
	snprintf(crt_file, sizeof(crt_file), "%s/host.crt", dir);
	if (access(crt_file, F_OK) && errno == ENOENT) {
		*made = true;
		if (tls_pair_first(dir, name, why, n))
			return -1;
	} else if (access(key_file, F_OK) && errno == ENOENT) {
		snprintf(why, n, "there is '%s' but no '%s': bring the key, or remove the certificate to have both made anew", crt_file,
			 key_file);
		return -1;
	}
	crt = read_first(crt_file, &missing, why, n);
	if (!crt)
		return -1;
	tls_describe(crt, c);
	if (gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &d) >= 0)
		*pem = strndup((const char *)d.data, d.size);
	gnutls_free(d.data);
	gnutls_x509_crt_deinit(crt);
	if (!*pem)
		snprintf(why, n, "out of memory");
	return *pem ? 0 : -1;
}

/* --- peers' --- */

/* What a peer sent: one certificate, and why it may not be kept */
static gnutls_x509_crt_t take(const char *text, struct tls_cert *c, char *why, size_t n)
{
	gnutls_x509_crt_t crt = NULL;
	char day[16];
	int err = GNUTLS_E_RECORD_OVERFLOW;

	memset(c, 0, sizeof(*c));
	if (strlen(text) <= TLS_CERT_MAX)
		crt = import(text, strlen(text), true, &err);
	if (!crt) {
		snprintf(why, n, "what it sent is not one certificate in PEM: %s", gnutls_strerror(err));
		return NULL;
	}
	tls_describe(crt, c);
	tls_cert_day(c->until, day);
	if (c->is_ca)
		snprintf(why, n, "the certificate that it sent may sign others (it is a CA's): copy that one yourself if it is what you want");
	else if (tls_cert_trouble(c))
		snprintf(why, n, "the certificate that it sent %s (until %s): are the clocks of both hosts right?", tls_cert_trouble(c), day);
	else
		return crt;
	gnutls_x509_crt_deinit(crt);
	return NULL;
}

/* Not as it came, but as it was understood; and, if not NULL, another one behind it. */
static int keep(const char *dir, const char *name, gnutls_x509_crt_t first, gnutls_x509_crt_t second, char *why, size_t n)
{
	gnutls_datum_t d[2] = { { NULL, 0 }, { NULL, 0 } };
	char file[PEER_FILE_MAX], *text = NULL;
	int r = -1;

	if (no_dir(dir, why, n))
		return -1;
	snprintf(file, sizeof(file), "peers/%s.crt", name);
	if (gnutls_x509_crt_export2(first, GNUTLS_X509_FMT_PEM, &d[0]) < 0 ||
	    (second && gnutls_x509_crt_export2(second, GNUTLS_X509_FMT_PEM, &d[1]) < 0) ||
	    asprintf(&text, "%.*s%.*s", (int)d[0].size, d[0].data, (int)d[1].size, d[1].data ? (char *)d[1].data : "") < 0)
		snprintf(why, n, "out of memory");
	else
		r = tls_put(dir, file, 0644, text, strlen(text), why, n);
	free(text);
	gnutls_free(d[0].data);
	gnutls_free(d[1].data);
	return r;
}

int tls_cert_keep(const char *dir, const char *name, const char *text, struct tls_cert *c, char *why, size_t n)
{
	gnutls_x509_crt_t crt = take(text, c, why, n);
	int r;

	if (!crt)
		return -1;
	r = keep(dir, name, crt, NULL, why, n);
	gnutls_x509_crt_deinit(crt);
	return r;
}

/* Those of a file; how many, 0 and why */
static unsigned int read_all(const char *dir, const char *name, gnutls_x509_crt_t **all, char *why, size_t n)
{
	gnutls_datum_t d;
	char file[4096], *text;
	unsigned int nr = 0;
	size_t len = 0;
	int err;

	*all = NULL;
	snprintf(file, sizeof(file), "%s/peers/%s.crt", dir, name);
	err = tls_slurp(file, &text, &len);
	if (err) {
		snprintf(why, n, "cannot read '%s': %s", file, strerror(err));
		return 0;
	}
	d = (gnutls_datum_t){ (unsigned char *)text, (unsigned int)len };
	err = gnutls_x509_crt_list_import2(all, &nr, &d, GNUTLS_X509_FMT_PEM, 0);
	free(text);
	if (err >= 0 && nr)
		return nr;
	snprintf(why, n, "'%s' holds no certificate in PEM: %s", file, gnutls_strerror(err));
	return 0;
}

static void free_all(gnutls_x509_crt_t *all, unsigned int nr)
{
	while (nr)
		gnutls_x509_crt_deinit(all[--nr]);
	gnutls_free(all);
}

int tls_cert_keep_next(const char *dir, const char *name, const char *text, const char *fingerprint, struct tls_cert *c,
		       char *why, size_t n)
{
	gnutls_x509_crt_t *all, crt = take(text, c, why, n);
	unsigned int nr = crt ? read_all(dir, name, &all, why, n) : 0, i;
	struct tls_cert known;
	int r = -1;

	for (i = 0; i < nr; i++) {
		tls_describe(all[i], &known);
		if (!known.is_ca && !strcmp(known.fingerprint, fingerprint))
			break;
	}
	if (nr && i == nr)
		snprintf(why, n, "the certificate that it shows is not kept here, as one that is known by a CA's: that has to issue the new one");
	else if (nr)
		r = keep(dir, name, crt, gnutls_x509_crt_equals(crt, all[i]) ? NULL : all[i], why, n);
	if (nr)
		free_all(all, nr);
	if (crt)
		gnutls_x509_crt_deinit(crt);
	return r;
}

int tls_cert_seen(const char *dir, const char *name, const char *fingerprint, char *why, size_t n)
{
	gnutls_x509_crt_t *all;
	unsigned int nr = read_all(dir, name, &all, why, n);
	struct tls_cert first;
	int r = nr ? 0 : -1;

	if (nr > 1) {
		tls_describe(all[0], &first);
		if (!first.is_ca && !strcmp(first.fingerprint, fingerprint))
			r = keep(dir, name, all[0], NULL, why, n) ? -1 : 1;
	}
	if (nr)
		free_all(all, nr);
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
