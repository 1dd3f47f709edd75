// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Data connections with TLS keys in the kernel, of the nbd path and of the target. There is no handshake here: both ends are given
 * keys that the test knows, so that it can be the other end and send what a peer should not. Handshakes are t_tls.sh's.
 */
#include "fix.h"
#include "tlsbed.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void load_over(u16 cipher)
{
	struct iovm_session_info s = { 0 };
	struct iovm_path_info i;

	bed_target();
	bed_guest(NULL);
	bed_connect(3, cipher, 0);
	bed_load(600);
	vload_wait(&B.load);
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.tls && i.tls_records > 50 && !i.keys_old && i.nr_sockets == 3,
		"tls %u, %llu records", i.tls, (unsigned long long)i.tls_records);
	T_CHECK(!ctl_session_get(BED_TGT, 0, &s) && s.flags & IOVM_SESSION_F_TLS && !s.errors, "session: flags %x", s.flags);
	T_CHECK(ctl_events_count(&B.ev, IOVM_EV_KEYS_OLD, NULL) == 0, "keys are old at once");
	bed_check();
}

/* Records that arrive and are taken piece by piece, and a sender that has no room again and again */
static void small_buffers(void)
{
	bed_target();
	bed_guest(NULL);
	B.buffer = 16384;	/* the kernel doubles it and counts overhead: less than a record and its tail */
	bed_connect(2, TLS_CIPHER_AES_GCM_128, 0);
	bed_load(40);
	vload_wait(&B.load);
	bed_check();
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

	bed_target();
	bed_guest(NULL);
	T_REQUIRE(!nbdsrv_tcp_pair(sv) && !socketpair(AF_UNIX, SOCK_STREAM, 0, un), "sockets");
	BED_REFUSED(ctl_path_connect("kt-0", "n", sv, 1, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS), EINVAL);
	T_CHECK(strstr(ctl_msg, "no TLS keys"), "'%s'", ctl_msg);
	BED_REFUSED(ctl_path_connect("kt-0", "n", un, 1, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS), EINVAL);
	BED_REFUSED(ctl_session_add(BED_TGT, &sv[1], 1, IOVM_SESSION_F_TLS, "x", NULL), EINVAL);
	T_CHECK(strstr(ctl_msg, "no TLS keys"), "'%s'", ctl_msg);
	/* the protocol without keys, and with keys for one direction */
	T_REQUIRE(!ktls_ulp(sv[0]), "ulp");
	BED_REFUSED(ctl_path_connect("kt-0", "n", sv, 1, BED_BYTES, NBDSRV_FLAGS, 0), EPROTOTYPE);
	T_REQUIRE(!ktls_set_keys(sv[0], TLS_TX, TLS_CIPHER_AES_GCM_128, 1, 0), "keys");
	BED_REFUSED(ctl_path_connect("kt-0", "n", sv, 1, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS), EPROTOTYPE);
	T_CHECK(strstr(ctl_msg, "without keys"), "'%s'", ctl_msg);
	close(sv[0]);
	close(sv[1]);
	/* plain ones are said to be plain */
	T_REQUIRE(!nbdsrv_tcp_pair(sv), "sockets");
	r = ctl_session_add(BED_TGT, &sv[1], 1, 0, "x", NULL) ?: ctl_path_connect("kt-0", "n", sv, 1, BED_BYTES, NBDSRV_FLAGS, 0);
	T_REQUIRE(!r, "plain: %s", ctl_msg);
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && !i.tls && !i.tls_records, "a plain path is encrypted");
	T_CHECK(!ctl_session_get(BED_TGT, 0, &s) && !(s.flags & IOVM_SESSION_F_TLS), "a plain session is encrypted");
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

	ktls_pair(sv, TLS_CIPHER_AES_GCM_128, 0);
	r = ctl_path_connect("kt-0", "n", sv, 1, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS);
	close(sv[0]);
	B.peer = sv[1];
	T_REQUIRE(!r, "connect: %s", ctl_msg);
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_LIVE, 1000), "not live");
	ktls_send(B.peer, type, data, len);
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
	close(B.peer);
	B.peer = -1;
}

static void records(void)
{
	fix_store_make(BED_MB, 512);
	T_REQUIRE(!ctl_events_open(&B.ev), "events");
	bed_guest(NULL);
	record_to_path(KTLS_ALERT, "\1\0", 2, ECONNRESET);		/* close_notify */
	record_to_path(KTLS_ALERT, "\2\x14", 2, EBADMSG);		/* bad_record_mac */
	record_to_path(KTLS_ALERT, "\2\x28", 2, EPROTO);		/* handshake_failure */
	record_to_path(KTLS_ALERT, "\2", 1, EPROTO);			/* half an alert */
	record_to_path(KTLS_HANDSHAKE, "\x18\0\0\1\0", 5, EKEYEXPIRED);	/* KeyUpdate */
	record_to_path(KTLS_HANDSHAKE, "\4\0\0\3abc", 7, 0);		/* NewSessionTicket */
	record_to_path(KTLS_DATA, "12345678901234567890", 20, EPROTO);	/* no reply */
}

/* The same to the target: its session ends with that. */
static void records_to_target(void)
{
	static const struct { u8 type; const char *data; size_t len; int want; } t[] = {
		{ KTLS_ALERT, "\1\0", 2, ECONNRESET }, { KTLS_ALERT, "\2\x14", 2, EBADMSG }, { KTLS_HANDSHAKE, "\x18\0\0\1\0", 5, EKEYEXPIRED },
	};
	unsigned int i;
	int sv[2], r, e;

	bed_target();
	for (i = 0; i < ARRAY_SIZE(t); i++) {
		unsigned int from = B.ev.nr_seen;

		ktls_pair(sv, TLS_CIPHER_AES_GCM_128, 0);
		r = ctl_session_add(BED_TGT, &sv[1], 1, IOVM_SESSION_F_TLS, "x", NULL);
		close(sv[1]);
		B.peer = sv[0];
		T_REQUIRE(!r, "session: %s", ctl_msg);
		ktls_send(B.peer, t[i].type, t[i].data, t[i].len);
		e = ctl_events_wait(&B.ev, from, IOVM_EV_SESSION_ENDED, BED_TGT, NULL, 3000);
		T_REQUIRE(e >= 0, "record %u does not end the session", t[i].type);
		T_CHECK(B.ev.seen[e].error == -t[i].want, "record %u: error %d, not %d", t[i].type, B.ev.seen[e].error, -t[i].want);
		close(B.peer);
		B.peer = -1;
	}
}

/* Bytes that are no TLS, and records under another key */
static void garbage(void)
{
	struct iovm_path_info i;
	int sv[2], r, round;

	fix_store_make(BED_MB, 512);
	T_REQUIRE(!ctl_events_open(&B.ev), "events");
	bed_guest(NULL);
	for (round = 0; round < 2; round++) {
		r = nbdsrv_tcp_pair(sv);
		T_REQUIRE(!r && !ktls_ulp(sv[0]), "sockets");
		T_REQUIRE(!ktls_set_keys(sv[0], TLS_TX, TLS_CIPHER_AES_GCM_128, 1, 0) &&
			  !ktls_set_keys(sv[0], TLS_RX, TLS_CIPHER_AES_GCM_128, 2, 0), "keys");
		r = ctl_path_connect("kt-0", "n", sv, 1, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS);
		close(sv[0]);
		B.peer = sv[1];
		T_REQUIRE(!r, "connect: %s", ctl_msg);
		r = send(B.peer, round ? "HTTP/1.1 400 Bad Request" : "\x17\x03\x03\0\x18" "0123456789012345678901234", 29 - 5 * round, 0);
		T_REQUIRE(r > 0, "send");
		T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 3000), "garbage is taken");
		r = ctl_path_get("kt-0", "n", &i);
		T_CHECK(!r && i.last_error == (round ? -EMSGSIZE : -EBADMSG), "round %d: error %d", round, i.last_error);
		close(B.peer);
		B.peer = -1;
	}
}

static const struct ktap_case cases[] = {
	{ "aes128", aes128, 200 },
	{ "aes256", aes256, 200 },
	{ "chacha20", chacha20, 200 },
	{ "no_keys", no_keys },
	{ "records", records },
	{ "records_to_target", records_to_target },
	{ "garbage", garbage },
	{ "small_buffers", small_buffers, 200 },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(bed_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
