// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS 1.3: certificates, handshake, an ordinary blocking channel. See tls.h.
 *
 * The ciphers are those that the kernel has. Servers give out no tickets: nothing is resumed, and a ticket that is still on its way
 * would be in the kernel's way.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "tls_int.h"

#define MAX_FILE	(64u << 10)
#define MAX_KNOWN	1024
#define CIPHERS		"SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
#define LINGER_MS	500	/* for the peer to read why it was refused */

/* ---- certificates ---- */

static int slurp(const char *file, bool secret, gnutls_datum_t *d, char *why, size_t n)
{
	FILE *f = fopen(file, "re");
	struct stat st;
	size_t got;

	d->data = NULL;
	if (!f || fstat(fileno(f), &st)) {
		snprintf(why, n, "cannot read '%s': %s", file, strerror(errno));
	} else if (!S_ISREG(st.st_mode) || st.st_size > MAX_FILE) {
		snprintf(why, n, "'%s' is not a file of at most %u bytes", file, MAX_FILE);
	} else if (secret && st.st_mode & 07) {
		snprintf(why, n, "'%s' is a secret key that everybody may read: chmod 600 it", file);
	} else {
		d->data = malloc(MAX_FILE + 1);
		got = d->data ? fread(d->data, 1, MAX_FILE, f) : 0;
		d->size = (unsigned int)got;
		if (!got)
			snprintf(why, n, "'%s' is empty or cannot be read", file);
		else
			d->data[got] = 0;
		if (!got) {
			free(d->data);
			d->data = NULL;
		}
	}
	if (f)
		fclose(f);
	return d->data ? 0 : -1;
}

static void wipe(gnutls_datum_t *d)
{
	if (d->data)
		gnutls_memset(d->data, 0, d->size);
	free(d->data);
	d->data = NULL;
}

/*
 * TLS_NEXT, while a renewed pair is being put in place, else host.crt and host.key. As gnutls has it; 1: what there was has gone
 * meanwhile.
 */
static int load_pair(struct tls_creds *c, char *why, size_t n)
{
	gnutls_datum_t crt = { NULL, 0 }, key = { NULL, 0 };
	char file[4096];
	bool next;
	int err = -1;

	snprintf(file, sizeof(file), "%s/" TLS_NEXT, c->dir);
	next = !access(file, F_OK);
	if (!next)
		snprintf(file, sizeof(file), "%s/host.crt", c->dir);
	if (slurp(file, next, &crt, why, n)) {
		err = next && access(file, F_OK) ? 1 : -1;
		goto done;
	}
	if (!next)
		snprintf(file, sizeof(file), "%s/host.key", c->dir);
	if (slurp(file, true, &key, why, n))
		goto done;
	err = gnutls_certificate_set_x509_key_mem(c->own, &crt, &key, GNUTLS_X509_FMT_PEM);
	if (err == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
		snprintf(why, n, "host.crt and host.key in '%s' do not belong together", c->dir);
	else if (err < 0)
		snprintf(why, n, "host.crt or host.key in '%s' is not in order (PEM is expected): %s", c->dir, gnutls_strerror(err));
	else
		err = 0;
done:
	wipe(&crt);
	wipe(&key);
	return err;
}

/* The pair may be replaced between the one and the other. */
static int load_own(struct tls_creds *c, char *why, size_t n)
{
	int err = 1, tries;

	for (tries = 0; tries < 3 && (err == 1 || err == GNUTLS_E_CERTIFICATE_KEY_MISMATCH); tries++)
		err = load_pair(c, why, n);
	return err ? -1 : 0;
}

static int add_known(struct tls_creds *c, const char *name, size_t len, gnutls_x509_crt_t crt)
{
	struct tls_known *k = &c->known[c->nr_known];
	int err;

	memset(k, 0, sizeof(*k));
	k->name = strndup(name, len);
	err = k->name ? gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &k->der) : GNUTLS_E_MEMORY_ERROR;
	if (err < 0) {
		free(k->name);
		return err;
	}
	k->crt = crt;
	k->is_ca = gnutls_x509_crt_get_ca_status(crt, NULL) > 0;
	c->nr_known++;
	return 0;
}

/*
 * A peer that has renewed its certificate is known by the new one and, until it shows that, by the old one: others than the
 * first are no CA's.
 */
static int load_peer(struct tls_creds *c, const char *dir, const char *entry, char *why, size_t n)
{
	gnutls_x509_crt_t *all = NULL;
	unsigned int nr = 0, i;
	size_t len = strlen(entry);
	gnutls_datum_t d;
	char file[4400];
	int err;

	if (len <= 4 || strcmp(entry + len - 4, ".crt") || *entry == '.')
		return 0;
	snprintf(file, sizeof(file), "%s/%s", dir, entry);
	if (slurp(file, false, &d, why, n))
		return -1;
	err = gnutls_x509_crt_list_import2(&all, &nr, &d, GNUTLS_X509_FMT_PEM, 0);
	free(d.data);
	for (i = 0; i < nr; i++) {
		if (err < 0 || c->nr_known >= MAX_KNOWN || (i && gnutls_x509_crt_get_ca_status(all[i], NULL) > 0))
			gnutls_x509_crt_deinit(all[i]);
		else
			err = add_known(c, entry, len - 4, all[i]);
		if (err < 0)
			break;
	}
	for (i++; i < nr; i++)
		gnutls_x509_crt_deinit(all[i]);
	gnutls_free(all);
	if (err < 0) {
		snprintf(why, n, "'%s' holds no certificate in PEM: %s", file, gnutls_strerror(err));
		return -1;
	}
	if (c->nr_known < MAX_KNOWN)
		return 0;
	snprintf(why, n, "there are more than %u peers in '%s'", MAX_KNOWN - 1, dir);
	return -1;
}

static int load_peers(struct tls_creds *c, char *why, size_t n)
{
	struct dirent *e;
	char dir[4096];
	int err = 0;
	DIR *d;

	snprintf(dir, sizeof(dir), "%s/peers", c->dir);
	c->known = calloc(MAX_KNOWN, sizeof(*c->known));
	d = opendir(dir);
	if (!d || !c->known) {
		snprintf(why, n, "cannot read '%s': %s", dir, strerror(errno));
		if (d)
			closedir(d);
		return -1;
	}
	while (!err && (e = readdir(d)))
		err = load_peer(c, dir, e->d_name, why, n);
	closedir(d);
	return err;
}

struct tls_creds *tls_load(const char *dir, char *why, size_t n)
{
	struct tls_creds *c = calloc(1, sizeof(*c));

	if (!c || !(c->dir = strdup(dir)) || gnutls_certificate_allocate_credentials(&c->own) < 0 ||
	    gnutls_priority_init(&c->priority, CIPHERS, NULL) < 0) {
		snprintf(why, n, "gnutls does not start: no memory, or its configuration forbids TLS 1.3");
		tls_unload(c);
		return NULL;
	}
	gnutls_certificate_set_verify_function(c->own, tls_verify);
	if (load_own(c, why, n) || load_peers(c, why, n)) {
		tls_unload(c);
		return NULL;
	}
	return c;
}

void tls_unload(struct tls_creds *c)
{
	if (!c)
		return;
	while (c->nr_known) {
		struct tls_known *k = &c->known[--c->nr_known];

		gnutls_x509_crt_deinit(k->crt);
		gnutls_free(k->der.data);
		free(k->name);
	}
	free(c->known);
	tls_secret_drop(c);
	if (c->own)
		gnutls_certificate_free_credentials(c->own);
	if (c->priority)
		gnutls_priority_deinit(c->priority);
	free(c->dir);
	free(c);
}

/* ---- the socket, for gnutls ---- */

/* Waits until end_ms; false: time is up, or it failed, errno says how. */
static bool wait_for(struct tls *t, short events)
{
	struct pollfd p = { .fd = t->fd, .events = events };
	uint64_t now = ms_now(), left = now < t->end_ms ? t->end_ms - now : 0;
	int r = poll(&p, 1, left > 3600000 ? 3600000 : (int)left);

	if (!r)
		errno = EAGAIN;
	return r > 0;
}

static int pull_timeout(gnutls_transport_ptr_t ptr, unsigned int ms)
{
	struct tls *t = ptr;
	struct pollfd p = { .fd = t->fd, .events = POLLIN };

	return poll(&p, 1, (int)ms);
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *buf, size_t len)
{
	struct tls *t = ptr;
	ssize_t r;

	do
		r = recv(t->fd, buf, len, MSG_DONTWAIT);
	while (r < 0 && errno == EAGAIN && wait_for(t, POLLIN));
	if (r < 0)
		gnutls_transport_set_errno(t->s, errno);
	return r;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const void *buf, size_t len)
{
	struct tls *t = ptr;
	ssize_t r;

	do
		r = send(t->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (r < 0 && errno == EAGAIN && wait_for(t, POLLOUT));
	if (r < 0)
		gnutls_transport_set_errno(t->s, errno);
	return r;
}

/* ---- what went wrong ---- */

static const char *alert_text(gnutls_alert_description_t a)
{
	switch (a) {
	case GNUTLS_A_CERTIFICATE_EXPIRED:
		return "it refused the certificate of this host: expired, or not valid yet";
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
		return "it refused the certificate of this host: it does not know it";
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_ACCESS_DENIED:
		return "it refused the certificate of this host: wrong name, or not in order";
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return "it wants a certificate, and got none";
	case GNUTLS_A_PROTOCOL_VERSION:
		return "it does not speak TLS 1.3";
	case GNUTLS_A_HANDSHAKE_FAILURE:
	case GNUTLS_A_INSUFFICIENT_SECURITY:
		return "it has no cipher or signature in common with this host";
	default:
		return NULL;
	}
}

/* t->why for an error of gnutls; an errno for it. */
static int explain(struct tls *t, int err)
{
	const char *text;

	if (err != GNUTLS_E_AGAIN && err != GNUTLS_E_INTERRUPTED)
		t->broken = true;
	if (err == GNUTLS_E_CERTIFICATE_ERROR && *t->why)
		return EKEYREJECTED;
	if (t->creds->secret.data && (err == GNUTLS_E_FATAL_ALERT_RECEIVED || err == GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER)) {
		snprintf(t->why, sizeof(t->why), "it has another secret");
		return EKEYREJECTED;
	}
	switch (err) {
	case GNUTLS_E_AGAIN:
	case GNUTLS_E_INTERRUPTED:
		snprintf(t->why, sizeof(t->why), "it was too slow");
		return EAGAIN;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		text = alert_text(gnutls_alert_get(t->s));
		if (text)
			snprintf(t->why, sizeof(t->why), "%s", text);
		else
			snprintf(t->why, sizeof(t->why), "it ended TLS: %s", gnutls_alert_get_name(gnutls_alert_get(t->s)));
		return EKEYREJECTED;
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		snprintf(t->why, sizeof(t->why), "it showed no certificate");
		return EKEYREJECTED;
	case GNUTLS_E_PREMATURE_TERMINATION:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		snprintf(t->why, sizeof(t->why), "it hung up");
		return ECONNRESET;
	case GNUTLS_E_NO_CIPHER_SUITES:
		snprintf(t->why, sizeof(t->why), "it does not speak TLS 1.3, or has no cipher in common with this host");
		return EPROTO;
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		snprintf(t->why, sizeof(t->why), "it does not speak TLS 1.3");
		return EPROTO;
	case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
	case GNUTLS_E_UNEXPECTED_PACKET:
	case GNUTLS_E_RECORD_OVERFLOW:
	case GNUTLS_E_UNEXPECTED_HANDSHAKE_PACKET:
		snprintf(t->why, sizeof(t->why), "it does not speak TLS");
		return EPROTO;
	case GNUTLS_E_DECRYPTION_FAILED:
		snprintf(t->why, sizeof(t->why), "what it sent was changed on its way");
		return EBADMSG;
	default:
		snprintf(t->why, sizeof(t->why), "TLS: %s", gnutls_strerror(err));
		return EPROTO;
	}
}

/* ---- sessions ---- */

static void tls_free(struct tls *t)
{
	if (t->s)
		gnutls_deinit(t->s);
	free(t);
}

/* Tell the peer why. What it has sent is read, since a reset would overtake the alert. */
static void refuse(struct tls *t, int err)
{
	char buf[4096];

	t->end_ms = ms_now() + LINGER_MS;
	if (err == GNUTLS_E_CERTIFICATE_ERROR)
		gnutls_alert_send(t->s, GNUTLS_AL_FATAL, t->alert);
	else if (err == GNUTLS_E_NO_CERTIFICATE_FOUND || err == GNUTLS_E_CERTIFICATE_REQUIRED)
		gnutls_alert_send(t->s, GNUTLS_AL_FATAL, GNUTLS_A_CERTIFICATE_REQUIRED);
	else if (err == GNUTLS_E_AGAIN || err == GNUTLS_E_PULL_ERROR || err == GNUTLS_E_PREMATURE_TERMINATION ||
		 err == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return;
	else
		gnutls_alert_send_appropriate(t->s, err);
	shutdown(t->fd, SHUT_WR);
	while (pull(t, buf, sizeof(buf)) > 0)
		;
}

static struct tls *open_session(const struct tls_creds *c, int fd, const char *want, uint64_t timeout_ms, char *why, size_t n)
{
	struct tls *t = calloc(1, sizeof(*t));
	int err = GNUTLS_E_MEMORY_ERROR;

	if (!t)
		goto fail;
	t->creds = c;
	t->fd = fd;
	t->want = want;
	t->end_ms = ms_now() + timeout_ms;
	/* a client shows its certificate whatever CAs the server names; a server gives no tickets */
	err = gnutls_init(&t->s, GNUTLS_NO_SIGNAL | (want ? GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT :
							   GNUTLS_SERVER | GNUTLS_NO_TICKETS));
	if (err < 0)
		goto fail;
	gnutls_session_set_ptr(t->s, t);
	gnutls_transport_set_ptr(t->s, t);
	gnutls_transport_set_pull_function(t->s, pull);
	gnutls_transport_set_push_function(t->s, push);
	gnutls_transport_set_pull_timeout_function(t->s, pull_timeout);
	gnutls_handshake_set_timeout(t->s, 0);
	err = gnutls_priority_set(t->s, c->priority);
	if (err >= 0)
		err = c->secret.data ? tls_secret_use(t) : gnutls_credentials_set(t->s, GNUTLS_CRD_CERTIFICATE, c->own);
	if (err < 0)
		goto fail;
	if (!want && !c->secret.data)
		gnutls_certificate_server_set_request(t->s, GNUTLS_CERT_REQUIRE);
	do
		err = gnutls_handshake(t->s);
	while (err < 0 && !gnutls_error_is_fatal(err) && ms_now() < t->end_ms);
	if (err >= 0 && (t->peer || c->secret.data)) {
		t->want = NULL;
		return t;
	}
	if (err >= 0)
		err = GNUTLS_E_NO_CERTIFICATE_FOUND;
	explain(t, err);
	snprintf(why, n, "%s", t->why);
	refuse(t, err);
	tls_free(t);
	return NULL;
fail:
	snprintf(why, n, "TLS: %s", gnutls_strerror(err));
	if (t)
		tls_free(t);
	return NULL;
}

struct tls *tls_client(const struct tls_creds *c, int fd, const char *peer, uint64_t timeout_ms, char *why, size_t n)
{
	unsigned int i = 0;

	if (c->secret.data)
		return open_session(c, fd, peer, timeout_ms, why, n);
	while (i < c->nr_known && strcmp(c->known[i].name, peer))
		i++;
	if (i == c->nr_known) {
		snprintf(why, n, "there is no '%s/peers/%s.crt' to know it by", c->dir, peer);
		return NULL;
	}
	return open_session(c, fd, peer, timeout_ms, why, n);
}

struct tls *tls_server(const struct tls_creds *c, int fd, uint64_t timeout_ms, char *why, size_t n)
{
	return open_session(c, fd, NULL, timeout_ms, why, n);
}

const char *tls_peer(const struct tls *t)
{
	return t->peer->name;
}

const char *tls_error(const struct tls *t)
{
	return t->why;
}

bool tls_pending(const struct tls *t)
{
	return gnutls_record_check_pending(t->s) > 0;
}

static int spent(struct tls *t)
{
	if (!t->broken)
		return 0;
	errno = EPIPE;
	return -1;
}

ssize_t tls_read(struct tls *t, void *buf, size_t len, uint64_t timeout_ms)
{
	ssize_t r;

	if (spent(t))
		return -1;
	t->end_ms = ms_now() + timeout_ms;
	/* a ticket, or less than a record */
	do
		r = gnutls_record_recv(t->s, buf, len);
	while (r < 0 && !gnutls_error_is_fatal((int)r) && ms_now() < t->end_ms);
	if (r >= 0)
		return r;
	errno = explain(t, (int)r);
	return -1;
}

int tls_write(struct tls *t, const void *buf, size_t len, uint64_t timeout_ms)
{
	ssize_t r;

	if (spent(t))
		return -1;
	t->end_ms = ms_now() + timeout_ms;
	while (len) {
		r = gnutls_record_send(t->s, buf, len);
		if (r < 0 && !gnutls_error_is_fatal((int)r) && ms_now() < t->end_ms)
			continue;
		if (r < 0) {
			int err = explain(t, (int)r);

			t->broken = true;
			errno = err;
			return -1;
		}
		buf = (const char *)buf + r;
		len -= (size_t)r;
	}
	return 0;
}

void tls_close(struct tls *t)
{
	if (!t)
		return;
	t->end_ms = 0;
	if (!t->broken)
		gnutls_bye(t->s, GNUTLS_SHUT_WR);
	tls_free(t);
}
