// SPDX-License-Identifier: GPL-2.0-or-later
#include "ktls.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ktap.h"
#include "nbdsrv.h"

#define PARAM	"/sys/module/vhost_iovm_blk/parameters/tls_records_"

static struct limit {
	const char *file;
	char was[32];
} limits[] = { { PARAM "max", "" }, { PARAM "limit", "" } };

int ktls_ulp(int fd)
{
	return setsockopt(fd, SOL_TCP, TCP_ULP, "tls", 4) ? -errno : 0;
}

int ktls_set_keys(int fd, int way, u16 cipher, u8 what, u64 seq)
{
	union {
		struct tls_crypto_info info;
		struct tls12_crypto_info_aes_gcm_128 gcm128;
		struct tls12_crypto_info_aes_gcm_256 gcm256;
		struct tls12_crypto_info_chacha20_poly1305 chacha;
	} k;
	u8 *rec_seq;
	size_t len;
	int i;

	/* all else is key and salt, the same at both ends */
	memset(&k, what, sizeof(k));
	k.info.version = TLS_1_3_VERSION;
	k.info.cipher_type = cipher;
	switch (cipher) {
	case TLS_CIPHER_AES_GCM_128:
		len = sizeof(k.gcm128);
		rec_seq = k.gcm128.rec_seq;
		break;
	case TLS_CIPHER_AES_GCM_256:
		len = sizeof(k.gcm256);
		rec_seq = k.gcm256.rec_seq;
		break;
	default:
		len = sizeof(k.chacha);
		rec_seq = k.chacha.rec_seq;
	}
	for (i = 0; i < 8; i++)
		rec_seq[i] = seq >> (56 - 8 * i);
	return setsockopt(fd, SOL_TLS, way, &k, len) ? -errno : 0;
}

void ktls_pair(int sv[2], u16 cipher, u64 seq)
{
	int i, r = nbdsrv_tcp_pair(sv);

	T_REQUIRE(!r, "sockets: %s", strerror(-r));
	for (i = 0; i < 2; i++) {
		r = ktls_ulp(sv[i]);
		T_REQUIRE(!r, "the kernel has no TLS: %s", strerror(-r));
		r = ktls_set_keys(sv[i], TLS_TX, cipher, 1 + i, seq);
		r = r ?: ktls_set_keys(sv[i], TLS_RX, cipher, 2 - i, seq);
		T_REQUIRE(!r, "keys for cipher %u: %s", cipher, strerror(-r));
	}
}

void ktls_send(int fd, u8 type, const void *data, size_t len)
{
	char ctl[CMSG_SPACE(1)] = "";
	struct iovec v = { (void *)data, len };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = ctl, .msg_controllen = sizeof(ctl) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_TLS;
	c->cmsg_type = TLS_SET_RECORD_TYPE;
	c->cmsg_len = CMSG_LEN(1);
	*CMSG_DATA(c) = type;
	T_REQUIRE(sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)len, "record of type %u: %s", type, strerror(errno));
}

static bool write_text(const char *file, const char *text)
{
	FILE *f = fopen(file, "w");
	bool ok = f && fputs(text, f) >= 0;

	return f && !fclose(f) && ok;
}

static void set_limit(struct limit *l, u64 n)
{
	char text[32];
	FILE *f;

	if (!*l->was) {
		f = fopen(l->file, "r");
		T_REQUIRE(f && fgets(l->was, sizeof(l->was), f), "no %s", l->file);
		fclose(f);
	}
	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	T_REQUIRE(write_text(l->file, text), "%s: %s", l->file, strerror(errno));
}

void ktls_limits(u64 max, u64 limit)
{
	if (max)
		set_limit(&limits[0], max);
	if (limit)
		set_limit(&limits[1], limit);
}

void ktls_limits_restore(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		if (*limits[i].was)
			write_text(limits[i].file, limits[i].was);
}
