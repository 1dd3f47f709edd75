// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS: is the peer one of those who are known?
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tls_int.h"

#define MAX_CHAIN	8

/* The peer's certificates, its own first */
struct chain {
	gnutls_x509_crt_t crt[MAX_CHAIN];
	unsigned int nr;
	char name[128];		/* the common name of the first, for people */
};

/* How far a known peer fits; the best one is reported */
enum fit { FIT_NOT, FIT_WEAK, FIT_NAME, FIT_TIME, FIT_ALL };

static void __attribute__((format(printf, 3, 4))) say(struct tls *t, gnutls_alert_description_t alert, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, sizeof(t->why), fmt, ap);
	va_end(ap);
	t->alert = alert;
}

static void free_chain(struct chain *c)
{
	while (c->nr)
		gnutls_x509_crt_deinit(c->crt[--c->nr]);
}

static int get_chain(gnutls_session_t s, struct chain *c)
{
	unsigned int n = 0;
	const gnutls_datum_t *raw = gnutls_certificate_get_peers(s, &n);
	size_t size = sizeof(c->name), i;

	c->nr = 0;
	for (; raw && c->nr < n && c->nr < MAX_CHAIN; c->nr++) {
		if (gnutls_x509_crt_init(&c->crt[c->nr]) < 0)
			break;
		if (gnutls_x509_crt_import(c->crt[c->nr], &raw[c->nr], GNUTLS_X509_FMT_DER) < 0) {
			gnutls_x509_crt_deinit(c->crt[c->nr]);
			break;
		}
	}
	if (!c->nr || c->nr < n) {
		free_chain(c);
		return -1;
	}
	if (gnutls_x509_crt_get_dn_by_oid(c->crt[0], GNUTLS_OID_X520_COMMON_NAME, 0, 0, c->name, &size) < 0)
		strcpy(c->name, "no name");
	/* it is the peer's word */
	for (i = 0; c->name[i]; i++)
		if (c->name[i] < ' ' || c->name[i] > '~')
			c->name[i] = '?';
	return 0;
}

/* NAME as common name or as a subject alternative name, no wildcards */
static bool carries(gnutls_x509_crt_t crt, const char *name)
{
	char cn[128];
	size_t size = sizeof(cn);

	return gnutls_x509_crt_check_hostname2(crt, name, GNUTLS_VERIFY_DO_NOT_ALLOW_WILDCARDS) ||
	       (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, cn, &size) >= 0 &&
		strlen(cn) == size && !strcmp(cn, name));
}

static enum fit fits(const struct tls_known *k, const struct chain *c)
{
	time_t now = time(NULL);
	unsigned int status = 0;

	if (gnutls_x509_crt_equals2(c->crt[0], &k->der))
		return now < gnutls_x509_crt_get_activation_time(c->crt[0]) || now > gnutls_x509_crt_get_expiration_time(c->crt[0]) ?
			FIT_TIME : FIT_ALL;
	if (!k->is_ca || gnutls_x509_crt_list_verify(c->crt, (int)c->nr, &k->crt, 1, NULL, 0,
						     GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM), &status) < 0)
		return FIT_NOT;
	if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
		return FIT_WEAK;
	if (status & ~(unsigned int)(GNUTLS_CERT_INVALID | GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
		return FIT_NOT;
	if (!carries(c->crt[0], k->name))
		return FIT_NAME;
	return status ? FIT_TIME : FIT_ALL;
}

static void text_day(char *buf, size_t n, time_t when)
{
	struct tm tm;

	if (when == (time_t)-1 || !gmtime_r(&when, &tm) || !strftime(buf, n, "%Y-%m-%d %H:%M UTC", &tm))
		snprintf(buf, n, "?");
}

static void bad_time(struct tls *t, const struct chain *c)
{
	time_t now = time(NULL), from, to;
	char day[64];
	unsigned int i;

	for (i = 0; i < c->nr; i++) {
		from = gnutls_x509_crt_get_activation_time(c->crt[i]);
		to = gnutls_x509_crt_get_expiration_time(c->crt[i]);
		if (now > to) {
			text_day(day, sizeof(day), to);
			say(t, GNUTLS_A_CERTIFICATE_EXPIRED, "its certificate has expired (%s)", day);
			return;
		}
		if (now < from) {
			text_day(day, sizeof(day), from);
			say(t, GNUTLS_A_CERTIFICATE_EXPIRED,
			    "its certificate is not valid yet (from %s on); are the clocks right?", day);
			return;
		}
	}
	say(t, GNUTLS_A_CERTIFICATE_EXPIRED, "the certificate of its CA is out of date");
}

static void bad_fit(struct tls *t, enum fit fit, const struct tls_known *k, const struct chain *c)
{
	switch (fit) {
	case FIT_TIME:
		bad_time(t, c);
		break;
	case FIT_NAME:
		say(t, GNUTLS_A_BAD_CERTIFICATE, "its certificate is for '%s', not for '%s'", c->name,
		    t->want ? t->want : k->name);
		break;
	case FIT_WEAK:
		say(t, GNUTLS_A_BAD_CERTIFICATE, "its certificate uses a key or a hash that is too weak");
		break;
	default:
		if (t->want)
			say(t, GNUTLS_A_UNKNOWN_CA, "its certificate ('%s') is not the one that is known for '%s'", c->name, t->want);
		else
			say(t, GNUTLS_A_UNKNOWN_CA, "its certificate ('%s') is of no peer that is known here", c->name);
	}
}

int tls_verify(gnutls_session_t s)
{
	struct tls *t = gnutls_session_get_ptr(s);
	const struct tls_known *k, *best = NULL;
	enum fit fit, best_fit = FIT_NOT;
	struct chain c;
	unsigned int i;

	if (get_chain(s, &c)) {
		say(t, GNUTLS_A_BAD_CERTIFICATE, "its certificate cannot be read");
		return GNUTLS_E_CERTIFICATE_ERROR;
	}
	for (i = 0; i < t->creds->nr_known; i++) {
		k = &t->creds->known[i];
		if (t->want && strcmp(k->name, t->want))
			continue;
		fit = fits(k, &c);
		if (fit > best_fit) {
			best_fit = fit;
			best = k;
		}
	}
	if (best_fit == FIT_ALL)
		t->peer = best;
	else
		bad_fit(t, best_fit, best, &c);
	free_chain(&c);
	return best_fit == FIT_ALL ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}
