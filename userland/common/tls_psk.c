// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS between hosts that do not know each other yet, but have one secret in common. See tls.h.
 *
 * The keys come of an ephemeral exchange beside the secret: who learns it later cannot read what was said.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tls_int.h"

#define WHO		"iovm-enrol"
#define CIPHERS		"SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+CHACHA20-POLY1305:-KX-ALL:+ECDHE-PSK"

static int give_secret(gnutls_session_t s, const char *who, gnutls_datum_t *key)
{
	const struct tls *t = gnutls_session_get_ptr(s);
	const gnutls_datum_t *secret = &t->creds->secret;

	if (strcmp(who, WHO))
		return -1;
	key->data = gnutls_malloc(secret->size);
	if (!key->data)
		return -1;
	memcpy(key->data, secret->data, secret->size);
	key->size = secret->size;
	return 0;
}

struct tls_creds *tls_secret(const void *secret, size_t size, char *why, size_t n)
{
	struct tls_creds *c = calloc(1, sizeof(*c));

	if (c) {
		c->secret.data = malloc(size);
		c->secret.size = (unsigned int)size;
	}
	if (!c || !c->secret.data || gnutls_priority_init(&c->priority, CIPHERS, NULL) < 0 ||
	    gnutls_psk_allocate_client_credentials(&c->psk_client) < 0 ||
	    gnutls_psk_allocate_server_credentials(&c->psk_server) < 0) {
		snprintf(why, n, "gnutls does not start: no memory, or its configuration forbids TLS 1.3");
		goto fail;
	}
	memcpy(c->secret.data, secret, size);
	gnutls_psk_set_server_credentials_function(c->psk_server, give_secret);
	if (gnutls_psk_set_client_credentials(c->psk_client, WHO, &c->secret, GNUTLS_PSK_KEY_RAW) >= 0)
		return c;
	snprintf(why, n, "gnutls does not take the secret");
fail:
	tls_unload(c);
	return NULL;
}

void tls_secret_drop(struct tls_creds *c)
{
	if (c->psk_client)
		gnutls_psk_free_client_credentials(c->psk_client);
	if (c->psk_server)
		gnutls_psk_free_server_credentials(c->psk_server);
	if (c->secret.data)
		gnutls_memset(c->secret.data, 0, c->secret.size);
	free(c->secret.data);
}

int tls_secret_use(struct tls *t)
{
	return t->want ? gnutls_credentials_set(t->s, GNUTLS_CRD_PSK, t->creds->psk_client) :
			 gnutls_credentials_set(t->s, GNUTLS_CRD_PSK, t->creds->psk_server);
}
