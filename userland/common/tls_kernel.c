// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TLS: the keys of a session go to the kernel.
 *
 * gnutls reads the socket by exact lengths, record by record, so what was not asked of it is still in the socket; what it has read of
 * a record and not given out would be lost, and is an error. A kernel takes keys for each direction once.
 */
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tls_int.h"

#ifndef SOL_TLS
#define SOL_TLS	282
#endif
#ifndef TCP_ULP
#define TCP_ULP	31
#endif

#define SALT(c)	TLS_CIPHER_##c##_SALT_SIZE
#define IV(c)	TLS_CIPHER_##c##_IV_SIZE

union keys {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 gcm128;
	struct tls12_crypto_info_aes_gcm_256 gcm256;
	struct tls12_crypto_info_chacha20_poly1305 chacha;
};

#define FILL(k, C, key_size) do {							\
	if (iv.size != SALT(C) + IV(C) || key.size != (key_size))			\
		return -1;								\
	memcpy((k)->salt, iv.data, SALT(C));						\
	memcpy((k)->iv, iv.data + SALT(C), IV(C));					\
	memcpy((k)->key, key.data, (key_size));						\
	memcpy((k)->rec_seq, seq, 8);							\
	(k)->info.cipher_type = TLS_CIPHER_##C;						\
	len = sizeof(*(k));								\
} while (0)

static int install(struct tls *t, bool rx)
{
	gnutls_datum_t mac, iv, key;
	unsigned char seq[8];
	union keys k;
	socklen_t len;
	int err;

	if (gnutls_record_get_state(t->s, rx, &mac, &iv, &key, seq) < 0)
		return -1;
	memset(&k, 0, sizeof(k));
	k.info.version = TLS_1_3_VERSION;
	errno = ENOPROTOOPT;
	switch (gnutls_cipher_get(t->s)) {
	case GNUTLS_CIPHER_AES_128_GCM:
		FILL(&k.gcm128, AES_GCM_128, TLS_CIPHER_AES_GCM_128_KEY_SIZE);
		break;
	case GNUTLS_CIPHER_AES_256_GCM:
		FILL(&k.gcm256, AES_GCM_256, TLS_CIPHER_AES_GCM_256_KEY_SIZE);
		break;
	case GNUTLS_CIPHER_CHACHA20_POLY1305:
		FILL(&k.chacha, CHACHA20_POLY1305, TLS_CIPHER_CHACHA20_POLY1305_KEY_SIZE);
		break;
	default:
		return -1;
	}
	err = setsockopt(t->fd, SOL_TLS, rx ? TLS_RX : TLS_TX, &k, len);
	gnutls_memset(&k, 0, sizeof(k));
	return err;
}

static int no_module(char *why, size_t n)
{
	snprintf(why, n, "this kernel has no TLS: 'modprobe tls' loads it, CONFIG_TLS builds it");
	return -1;
}

static int hand_over(struct tls *t, char *why, size_t n)
{
	if (t->broken || gnutls_protocol_get_version(t->s) != GNUTLS_TLS1_3) {
		snprintf(why, n, "the session is not in order any more");
		return -1;
	}
	if (gnutls_record_check_pending(t->s)) {
		snprintf(why, n, "it has sent something before it was due");
		return -1;
	}
	if (setsockopt(t->fd, SOL_TCP, TCP_ULP, "tls", sizeof("tls"))) {
		if (errno == ENOENT)
			return no_module(why, n);
		snprintf(why, n, "TLS of the kernel works on connected TCP sockets only: %s", strerror(errno));
		return -1;
	}
	if (install(t, false) || install(t, true)) {
		snprintf(why, n, "the kernel does not take the keys (%s): %s",
			 gnutls_cipher_get_name(gnutls_cipher_get(t->s)), strerror(errno));
		return -1;
	}
	return 0;
}

int tls_to_kernel(struct tls *t, char *why, size_t n)
{
	int err = hand_over(t, why, n);

	t->broken = true;	/* no goodbye: the kernel goes on with the connection, or it is lost */
	tls_close(t);
	return err;
}

int tls_kernel_ready(char *why, size_t n)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0) {
		snprintf(why, n, "no socket: %s", strerror(errno));
		return -1;
	}
	/* ENOTCONN: it is there, but not for a socket that is not connected */
	err = setsockopt(fd, SOL_TCP, TCP_ULP, "tls", sizeof("tls")) ? errno : 0;
	close(fd);
	if (err == ENOENT)
		return no_module(why, n);
	return 0;
}
