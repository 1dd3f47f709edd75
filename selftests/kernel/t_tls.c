// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Data connections with TLS keys in the kernel, of the nbd path and of the target. There is no handshake here: both ends are given
 * keys that the test knows, so that it can be the other end and send what a peer should not. Handshakes are t_tls.sh's.
 */
#include "fix.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS		282
#endif

#define TGT		"kt-t"
#define SIZE_MB		32
#define BYTES		(SIZE_MB * (u64)MiB)
#define SECTORS		(BYTES / 512)
#define LIMIT		"/sys/module/vhost_iovm_blk/parameters/tls_records_max"

#define REFUSED(call, want) do {								\
	int r_ = (call);									\
	T_CHECK(r_ == -(want), "%s, not %s: '%s'", strerror(-r_), strerror(want), ctl_msg);	\
} while (0)

enum { ALERT = 21, HANDSHAKE = 22, DATA = 23 };

static struct vload L;
static bool loading;
static struct ctl_events ev;
static int peer = -1;		/* the other end of the path's only connection */
static char limit[32];

static bool write_text(const char *file, const char *text)
{
	FILE *f = fopen(file, "w");
	bool ok = f && fputs(text, f) >= 0;

	return f && !fclose(f) && ok;
}

static void cleanup(void)
{
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (*limit)
		write_text(LIMIT, limit);
	if (peer >= 0)
		close(peer);
	peer = -1;
	if (loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	ctl_events_close(&ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	fix_cleanup();
}

/* ---- sockets with keys ---- */

static int set_keys(int fd, int way, u16 cipher, u8 what, u64 seq)
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

/* sv[0] is a client's end, sv[1] a server's; seq: records that are gone already */
static void tls_pair(int sv[2], u16 cipher, u64 seq)
{
	int i, r = nbdsrv_tcp_pair(sv);

	T_REQUIRE(!r, "sockets: %s", strerror(-r));
	for (i = 0; i < 2; i++) {
		T_REQUIRE(!setsockopt(sv[i], SOL_TCP, TCP_ULP, "tls", 4), "the kernel has no TLS: %s", strerror(errno));
		r = set_keys(sv[i], TLS_TX, cipher, 1 + i, seq);
		r = r ?: set_keys(sv[i], TLS_RX, cipher, 2 - i, seq);
		T_REQUIRE(!r, "keys for cipher %u: %s", cipher, strerror(-r));
	}
}

/* A record of a type of its own */
static void send_record(int fd, u8 type, const void *data, size_t len)
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

/* ---- devices ---- */

static void target(void)
{
	struct iovm_dev_create c;
	int r;

	fix_store_make(SIZE_MB, 512);
	ctl_dev_defaults(&c, TGT, SECTORS, 1);
	c.class = IOVM_CLASS_TARGET;
	c.no_path_timeout_ms = 0;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev(TGT, "a", fix_store, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	T_REQUIRE(!ctl_events_open(&ev), "events");
}

/* Emulated, encryption is slow: no request is overdue here */
static void guest_path(void)
{
	struct iovm_path_add a = { .dead_ms = 60000, .io_timeout_ms = IOVM_NO_TIMEOUT, .flags = IOVM_PATH_F_ASSUME_SAME };
	int r;

	ctl_must_create("kt-0", SECTORS, 2);
	r = ctl_path_add_nbd_arg("kt-0", "n", &a);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	strcpy(F[0].name, "kt-0");
}

/* Our path over nr connections to our target */
static void both_ends(unsigned int nr, u16 cipher)
{
	int sv[2], fds[4], far[4], r;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		tls_pair(sv, cipher, 7);
		fds[i] = sv[0];
		far[i] = sv[1];
	}
	r = ctl_session_add(TGT, far, nr, IOVM_SESSION_F_TLS, "kt-0", NULL);
	T_REQUIRE(!r, "session: %s", ctl_msg);
	r = ctl_path_connect("kt-0", "n", fds, nr, BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS);
	T_REQUIRE(!r, "connect: %s", ctl_msg);
	for (i = 0; i < nr; i++) {
		close(fds[i]);
		close(far[i]);
	}
}

static void load(u64 max_ios)
{
	fix_open(0, ALL_FEATURES, 2, 128);
	loading = !vload_start(&L, &F[0].d, &(struct vload_cfg){ .depth = 8, .max_blocks = 32, .flush_pct = 3, .zero_pct = 3,
								 .max_ios = max_ios });
	T_REQUIRE(loading, "load");
}

static void check_and_finish(void)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(vload_check_dev(&L) == 0 && vload_check_node(&L, fix_store) == 0, "wrong data at rest");
	vload_finish(&L, "load");
}

/* ---- cases ---- */

static void load_over(u16 cipher)
{
	struct iovm_session_info s = { 0 };
	struct iovm_path_info i;

	target();
	guest_path();
	both_ends(3, cipher);
	load(600);
	vload_wait(&L);
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.tls && i.tls_records > 50 && !i.keys_old && i.nr_sockets == 3,
		"tls %u, %llu records", i.tls, (unsigned long long)i.tls_records);
	T_CHECK(!ctl_session_get(TGT, 0, &s) && s.flags & IOVM_SESSION_F_TLS && !s.errors, "session: flags %x", s.flags);
	T_CHECK(ctl_events_count(&ev, IOVM_EV_KEYS_OLD, NULL) == 0, "keys are old at once");
	check_and_finish();
}

static void aes128(void)
{
	load_over(TLS_CIPHER_AES_GCM_128);
}

static void aes256(void)
{
	load_over(TLS_CIPHER_AES_GCM_256);
}

static void chacha20(void)
{
	load_over(TLS_CIPHER_CHACHA20_POLY1305);
}

/* Who says TLS must bring keys */
static void no_keys(void)
{
	struct iovm_session_info s = { 0 };
	struct iovm_path_info i;
	int sv[2], un[2], r;

	target();
	guest_path();
	T_REQUIRE(!nbdsrv_tcp_pair(sv) && !socketpair(AF_UNIX, SOCK_STREAM, 0, un), "sockets");
	REFUSED(ctl_path_connect("kt-0", "n", sv, 1, BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS), EINVAL);
	T_CHECK(strstr(ctl_msg, "no TLS keys"), "'%s'", ctl_msg);
	REFUSED(ctl_path_connect("kt-0", "n", un, 1, BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS), EINVAL);
	REFUSED(ctl_session_add(TGT, &sv[1], 1, IOVM_SESSION_F_TLS, "x", NULL), EINVAL);
	T_CHECK(strstr(ctl_msg, "no TLS keys"), "'%s'", ctl_msg);
	/* the protocol without keys, and with keys for one direction */
	T_REQUIRE(!setsockopt(sv[0], SOL_TCP, TCP_ULP, "tls", 4), "ulp");
	REFUSED(ctl_path_connect("kt-0", "n", sv, 1, BYTES, NBDSRV_FLAGS, 0), EPROTOTYPE);
	T_REQUIRE(!set_keys(sv[0], TLS_TX, TLS_CIPHER_AES_GCM_128, 1, 0), "keys");
	REFUSED(ctl_path_connect("kt-0", "n", sv, 1, BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS), EPROTOTYPE);
	T_CHECK(strstr(ctl_msg, "without keys"), "'%s'", ctl_msg);
	close(sv[0]);
	close(sv[1]);
	/* plain ones are said to be plain */
	T_REQUIRE(!nbdsrv_tcp_pair(sv), "sockets");
	r = ctl_session_add(TGT, &sv[1], 1, 0, "x", NULL) ?: ctl_path_connect("kt-0", "n", sv, 1, BYTES, NBDSRV_FLAGS, 0);
	T_REQUIRE(!r, "plain: %s", ctl_msg);
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && !i.tls && !i.tls_records, "a plain path is encrypted");
	T_CHECK(!ctl_session_get(TGT, 0, &s) && !(s.flags & IOVM_SESSION_F_TLS), "a plain session is encrypted");
	close(sv[0]);
	close(sv[1]);
	close(un[0]);
	close(un[1]);
}

/* The other end sends what is no data: the path fails with that, and nothing is taken for a reply. */
static void record_to_path(u8 type, const char *data, size_t len, int want)
{
	struct iovm_path_info i;
	int sv[2], r;

	tls_pair(sv, TLS_CIPHER_AES_GCM_128, 0);
	r = ctl_path_connect("kt-0", "n", sv, 1, BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS);
	close(sv[0]);
	peer = sv[1];
	T_REQUIRE(!r, "connect: %s", ctl_msg);
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_LIVE, 1000), "not live");
	send_record(peer, type, data, len);
	if (!want) {
		sleep_ms(200);
		T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_LIVE, 0), "a ticket ends the connection");
		r = ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FAIL);
		T_CHECK(!r, "fail: %s", ctl_msg);
	} else {
		T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 3000), "record %u does not end the connection", type);
		r = ctl_path_get("kt-0", "n", &i);
		T_CHECK(!r && i.last_error == -want, "record %u %d: error %d, not %d", type, data[1], i.last_error, -want);
	}
	close(peer);
	peer = -1;
}

static void records(void)
{
	fix_store_make(SIZE_MB, 512);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	guest_path();
	record_to_path(ALERT, "\1\0", 2, ECONNRESET);		/* close_notify */
	record_to_path(ALERT, "\2\x14", 2, EBADMSG);		/* bad_record_mac */
	record_to_path(ALERT, "\2\x28", 2, EPROTO);		/* handshake_failure */
	record_to_path(ALERT, "\2", 1, EPROTO);			/* half an alert */
	record_to_path(HANDSHAKE, "\x18\0\0\1\0", 5, EKEYEXPIRED);	/* KeyUpdate */
	record_to_path(HANDSHAKE, "\4\0\0\3abc", 7, 0);		/* NewSessionTicket */
	record_to_path(DATA, "12345678901234567890", 20, EPROTO);	/* no reply */
}

/* The same to the target: its session ends with that. */
static void records_to_target(void)
{
	static const struct { u8 type; const char *data; size_t len; int want; } t[] = {
		{ ALERT, "\1\0", 2, ECONNRESET }, { ALERT, "\2\x14", 2, EBADMSG }, { HANDSHAKE, "\x18\0\0\1\0", 5, EKEYEXPIRED },
	};
	unsigned int i;
	int sv[2], r, e;

	target();
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		unsigned int from = ev.nr_seen;

		tls_pair(sv, TLS_CIPHER_AES_GCM_128, 0);
		r = ctl_session_add(TGT, &sv[1], 1, IOVM_SESSION_F_TLS, "x", NULL);
		close(sv[1]);
		peer = sv[0];
		T_REQUIRE(!r, "session: %s", ctl_msg);
		send_record(peer, t[i].type, t[i].data, t[i].len);
		e = ctl_events_wait(&ev, from, IOVM_EV_SESSION_ENDED, TGT, NULL, 3000);
		T_REQUIRE(e >= 0, "record %u does not end the session", t[i].type);
		T_CHECK(ev.seen[e].error == -t[i].want, "record %u: error %d, not %d", t[i].type, ev.seen[e].error, -t[i].want);
		close(peer);
		peer = -1;
	}
}

/* Bytes that are no TLS, and records under another key */
static void garbage(void)
{
	struct iovm_path_info i;
	int sv[2], r, round;

	fix_store_make(SIZE_MB, 512);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	guest_path();
	for (round = 0; round < 2; round++) {
		r = nbdsrv_tcp_pair(sv);
		T_REQUIRE(!r && !setsockopt(sv[0], SOL_TCP, TCP_ULP, "tls", 4), "sockets");
		T_REQUIRE(!set_keys(sv[0], TLS_TX, TLS_CIPHER_AES_GCM_128, 1, 0) && !set_keys(sv[0], TLS_RX, TLS_CIPHER_AES_GCM_128, 2, 0),
			  "keys");
		r = ctl_path_connect("kt-0", "n", sv, 1, BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS);
		close(sv[0]);
		peer = sv[1];
		T_REQUIRE(!r, "connect: %s", ctl_msg);
		r = send(peer, round ? "HTTP/1.1 400 Bad Request" : "\x17\x03\x03\0\x18" "0123456789012345678901234", 29 - 5 * round, 0);
		T_REQUIRE(r > 0, "send");
		T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 3000), "garbage is taken");
		r = ctl_path_get("kt-0", "n", &i);
		T_CHECK(!r && i.last_error == (round ? -EMSGSIZE : -EBADMSG), "round %d: error %d", round, i.last_error);
		close(peer);
		peer = -1;
	}
}

/* Keys age under load: one event a connection's life; new connections have new keys. */
static void ageing(void)
{
	struct iovm_path_info i;
	int e, r;

	target();
	guest_path();
	T_REQUIRE(write_text(LIMIT, "500"), "limit");
	both_ends(2, TLS_CIPHER_AES_GCM_128);
	load(0);
	e = ctl_events_wait(&ev, 0, IOVM_EV_KEYS_OLD, "kt-0", "n", 60000);
	T_REQUIRE(e >= 0, "no word of old keys");
	T_CHECK(ev.seen[e].value >= 500, "after %llu records", (unsigned long long)ev.seen[e].value);
	T_CHECK(vload_progress(&L, 100, 30000), "no progress");
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.keys_old && i.state == IOVM_PATH_LIVE, "state %u", i.state);
	ctl_events_poll(&ev, 0);
	T_CHECK(ctl_events_count(&ev, IOVM_EV_KEYS_OLD, "kt-0") == 1, "told again and again");
	/* new keys */
	r = ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FAIL);
	T_REQUIRE(!r, "fail: %s", ctl_msg);
	both_ends(2, TLS_CIPHER_AES_GCM_128);
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && !i.keys_old && i.tls_records < 500, "%llu records",
		(unsigned long long)i.tls_records);
	T_CHECK(vload_progress(&L, 100, 30000), "no progress");
	check_and_finish();
}

static const char *setup(void)
{
	const char *why = ctl_setup();
	FILE *f;

	if (why)
		return why;
	f = fopen(LIMIT, "r");
	if (!f || !fgets(limit, sizeof(limit), f))
		*limit = 0;
	if (f)
		fclose(f);
	return *limit ? NULL : "no " LIMIT;
}

static const struct ktap_case cases[] = {
	{ "aes128", aes128, 120 },
	{ "aes256", aes256, 120 },
	{ "chacha20", chacha20, 120 },
	{ "no_keys", no_keys },
	{ "records", records },
	{ "records_to_target", records_to_target },
	{ "garbage", garbage },
	{ "ageing", ageing, 120 },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, NULL);
}
