// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The connections of a live path are replaced, because their keys are old: no request may notice. What must not replace them; what
 * becomes of the old ones; keys that nobody replaces.
 */
#include "tlsbed.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ID		"test:one"
#define AES		TLS_CIPHER_AES_GCM_128
#define REPLACE		(IOVM_NBD_F_TLS | IOVM_NBD_F_REPLACE)

static struct nbdsrv srv, srv2;
static bool have_servers;

static void cleanup(void)
{
	srv.hold = false;
	bed_cleanup();
	if (have_servers) {
		nbdsrv_kill(&srv);
		nbdsrv_kill(&srv2);
		nbdsrv_free(&srv);
		nbdsrv_free(&srv2);
	}
	have_servers = false;
}

/* Since it was connected nothing came back from the path, and its connections were replaced so often. */
static void undisturbed(u32 replaced)
{
	struct iovm_path_stats p;
	struct iovm_dev_stats d;
	struct iovm_path_info i;
	unsigned int k;

	T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.state == IOVM_PATH_LIVE && i.generation == 1 && i.replaced == replaced,
		"state %u, connected %u times, replaced %u times, not %u", i.state, i.generation, i.replaced, replaced);
	T_CHECK(!ctl_path_stats("kt-0", "n", &p) && !p.path_errors && !p.retries && !p.request_errors && !p.stale_replies,
		"%llu path errors, %llu retries, %llu request errors, %llu stale replies", (unsigned long long)p.path_errors,
		(unsigned long long)p.retries, (unsigned long long)p.request_errors, (unsigned long long)p.stale_replies);
	T_CHECK(!ctl_dev_stats("kt-0", &d) && !d.requeues && !d.errors && !d.parks, "%llu requests came back, %llu errors, %llu parks",
		(unsigned long long)d.requeues, (unsigned long long)d.errors, (unsigned long long)d.parks);
	ctl_events_poll(&B.ev, 0);
	for (k = 0; k < B.ev.nr_seen; k++)
		T_CHECK(B.ev.seen[k].type != IOVM_EV_PATH_STATE || B.ev.seen[k].old_state != IOVM_PATH_LIVE ||
			strcmp(B.ev.seen[k].dev, "kt-0"), "the path has changed its state");
}

static u32 nr_sessions(void)
{
	struct iovm_session_info s;
	u32 n = 0, id = 0;

	while (!ctl_session_get(BED_TGT, id, &s)) {
		id = s.id + 1;
		n++;
	}
	return n;
}

static bool sessions_become(u32 n, int timeout_ms)
{
	while (nr_sessions() != n && timeout_ms > 0) {
		sleep_ms(50);
		timeout_ms -= 50;
	}
	return nr_sessions() == n;
}

/* Told that its keys are old, three times under load */
static void under_load(void)
{
	unsigned int n, from, k;
	struct iovm_path_info i;
	int e = 0;

	bed_target();
	bed_guest(ID);
	ktls_limits(150, 0);
	bed_connect(2, AES, 0);
	bed_load(0);
	for (n = 0; n < 3; n++) {
		e = ctl_events_wait(&B.ev, e, IOVM_EV_KEYS_OLD, "kt-0", "n", 60000);
		T_REQUIRE(e >= 0, "no word of old keys");
		e++;
		T_CHECK(B.ev.seen[e - 1].value >= 150, "after %llu records", (unsigned long long)B.ev.seen[e - 1].value);
		T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.keys_old, "the path does not say so");
		bed_connect(1 + n % 3, AES, IOVM_NBD_F_REPLACE);
		T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.tls && i.nr_sockets == 1 + n % 3, "%u sockets", i.nr_sockets);
		T_CHECK(sessions_become(1, 10000), "the old session stays");
	}
	T_CHECK(vload_progress(&B.load, 50, 30000), "no progress");
	undisturbed(3);
	T_CHECK(ctl_events_count(&B.ev, IOVM_EV_REPLACED, "kt-0") == 3, "not every replacement is told of");
	/* each of the target's sessions was ended by its client, in order */
	from = ctl_events_count(&B.ev, IOVM_EV_SESSION_ENDED, BED_TGT);
	T_CHECK(from == 3, "%u sessions have ended", from);
	for (k = 0; k < B.ev.nr_seen; k++)
		T_CHECK(B.ev.seen[k].type != IOVM_EV_SESSION_ENDED || !B.ev.seen[k].error, "a session ended with %d", B.ev.seen[k].error);
	bed_check();
}

/* Replaced as fast as possible: what is in flight on the old ones, and requests that just go there */
static void in_a_row(void)
{
	unsigned int n, done = 0;
	int fds[2], far[2], r;

	bed_target();
	bed_guest(ID);
	bed_connect(2, AES, 0);
	bed_load(0);
	for (n = 0; n < 12; n++) {
		bed_sockets(2, AES, fds, far);
		r = ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES, NBDSRV_FLAGS, REPLACE, ID);
		T_CHECK(!r || r == -EBUSY, "%s: %s", strerror(-r), ctl_msg);
		done += !r;
		bed_close(2, fds, far);
	}
	T_CHECK(done >= 2, "replaced only %u times", done);
	T_CHECK(vload_progress(&B.load, 50, 30000), "no progress");
	undisturbed(done);
	T_CHECK(sessions_become(1, 10000), "%u sessions stay", nr_sessions());
	bed_check();
}

/* Where a TLS path's connections come from that must not be taken */
static void refused(void)
{
	struct nbdsrv plain;
	int fds[2], far[2], r;
	u64 t0;

	bed_target();
	bed_guest(ID);
	bed_sockets(1, AES, fds, far);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 1, BED_BYTES, NBDSRV_FLAGS, REPLACE, ID), ENOTCONN);
	bed_close(1, fds, far);
	bed_connect(2, AES, 0);
	bed_load(0);

	bed_sockets(2, AES, fds, far);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES - 512, NBDSRV_FLAGS, REPLACE, ID), EMEDIUMTYPE);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES + 4096, NBDSRV_FLAGS, REPLACE, ID), EMEDIUMTYPE);
	T_CHECK(strstr(ctl_msg, "connections in use"), "'%s'", ctl_msg);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES, NBDSRV_FLAGS & ~NBD_F_FUA, REPLACE, ID), EMEDIUMTYPE);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES, NBDSRV_FLAGS, REPLACE, "test:two"), EMEDIUMTYPE);
	T_CHECK(strstr(ctl_msg, "test:two"), "'%s'", ctl_msg);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES, NBDSRV_FLAGS, REPLACE, NULL), EMEDIUMTYPE);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 1, BED_BYTES, NBDSRV_FLAGS & ~NBD_F_MULTI_CONN, REPLACE, ID), EOPNOTSUPP);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES, NBDSRV_FLAGS, REPLACE | IOVM_NBD_F_DRAINED, ID), EINVAL);
	/* as ever without the flag */
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 2, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS, ID), EBUSY);
	bed_close(2, fds, far);
	T_CHECK(sessions_become(1, 10000), "%u sessions stay", nr_sessions());

	/* no keys, however it is said */
	T_REQUIRE(!nbdsrv_init(&plain, NULL, BED_BYTES), "server");
	fds[0] = nbdsrv_connect(&plain, true);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 1, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_REPLACE, ID), EINVAL);
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 1, BED_BYTES, NBDSRV_FLAGS, REPLACE, ID), EINVAL);
	close(fds[0]);
	nbdsrv_kill(&plain);
	nbdsrv_free(&plain);

	/* the right keys, and nobody there; then other keys than the peer's */
	ktls_pair(fds, AES, 0);
	t0 = now_ns();
	BED_REFUSED(ctl_path_connect_id("kt-0", "n", fds, 1, BED_BYTES, NBDSRV_FLAGS, REPLACE, ID), ETIMEDOUT);
	T_CHECK(now_ns() - t0 < 15 * 1000000000ull, "after %llu ms", (unsigned long long)(now_ns() - t0) / 1000000);
	close(fds[0]);
	close(fds[1]);
	T_REQUIRE(!nbdsrv_tcp_pair(fds) && !ktls_ulp(fds[0]) && !ktls_ulp(fds[1]), "sockets");
	T_REQUIRE(!ktls_set_keys(fds[0], TLS_TX, AES, 1, 0) && !ktls_set_keys(fds[0], TLS_RX, AES, 2, 0) &&
		  !ktls_set_keys(fds[1], TLS_TX, AES, 3, 0) && !ktls_set_keys(fds[1], TLS_RX, AES, 3, 0), "keys");
	r = ctl_session_add(BED_TGT, &fds[1], 1, IOVM_SESSION_F_TLS, "kt-0", NULL);
	T_REQUIRE(!r, "session: %s", ctl_msg);
	r = ctl_path_connect_id("kt-0", "n", fds, 1, BED_BYTES, NBDSRV_FLAGS, REPLACE, ID);
	T_CHECK(r == -ECONNRESET || r == -EBADMSG || r == -EPIPE || r == -ETIMEDOUT, "%s: %s", strerror(-r), ctl_msg);
	close(fds[0]);
	close(fds[1]);

	T_CHECK(vload_progress(&B.load, 50, 30000), "no progress");
	undisturbed(0);
	bed_check();
}

/* Two plain servers of the same data; a load on queue 0, queue 1 is free */
static void two_servers(void)
{
	int r;

	fix_store_make(BED_MB, 512);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0) && !nbdsrv_init(&srv2, fix_store, 0), "servers");
	have_servers = true;
	bed_guest(NULL);
	T_REQUIRE(!ctl_events_open(&B.ev), "events");
	r = nbdsrv_attach(&srv, "kt-0", "n", 2, true);
	T_REQUIRE(!r, "attach: %s", ctl_msg);
	fix_open(0, ALL_FEATURES, 2, 128);
	B.loading = !vload_start(&B.load, &F[0].d, &(struct vload_cfg){ .depth = 8, .queues = 1 });
	T_REQUIRE(B.loading && vload_progress(&B.load, 100, 20000), "load");
	srv.hold = true;
	sleep_ms(300);
}

static int replace_by_srv2(void)
{
	int fd = nbdsrv_connect(&srv2, true), r;

	r = ctl_path_connect("kt-0", "n", &fd, 1, srv2.bytes, NBDSRV_FLAGS, IOVM_NBD_F_REPLACE);
	close(fd);
	return r;
}

static bool reads(void)
{
	static u8 buf[4096];

	return vblk_read(&F[0].s, &F[0].d.vqs[1], 0, buf, sizeof(buf)) == VIRTIO_BLK_S_OK;
}

/* The old server answers late: new requests do not wait for it, and it is not left before. */
static void old_is_slow(void)
{
	u64 ios;
	int r;

	two_servers();
	r = replace_by_srv2();
	T_REQUIRE(!r, "replace: %s: %s", strerror(-r), ctl_msg);
	ios = B.load.ios;
	T_CHECK(reads() && srv2.reads > 1, "a new request waits for the old connections");
	T_CHECK(B.load.ios == ios, "what was in flight there was answered");
	r = replace_by_srv2();
	T_CHECK(r == -EBUSY, "replaced while the last ones are in use: %s: %s", strerror(-r), ctl_msg);
	srv.hold = false;
	T_CHECK(vload_progress(&B.load, 100, 20000), "no progress");
	sleep_ms(500);
	r = replace_by_srv2();
	T_CHECK(!r, "replace: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(vload_progress(&B.load, 100, 20000), "no progress");
	undisturbed(2);
	bed_check();
}

/* It breaks with requests on it: the path has failed, with all its connections, and what was written waits for it. */
static void old_breaks(void)
{
	struct iovm_dev_info d;
	int r;

	two_servers();
	r = replace_by_srv2();
	T_REQUIRE(!r, "replace: %s: %s", strerror(-r), ctl_msg);
	nbdsrv_cut(&srv);
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 10000), "the path goes on");
	srv.hold = false;
	nbdsrv_kill(&srv);
	sleep_ms(300);
	T_CHECK(!ctl_dev_get("kt-0", &d) && d.held, "no write waits");
	r = nbdsrv_attach(&srv2, "kt-0", "n", 1, true);
	T_REQUIRE(!r, "attach: %s", ctl_msg);
	T_CHECK(vload_progress(&B.load, 100, 20000), "no progress");
	bed_check();
}

/* It breaks when it has nothing to answer any more: nobody cares. And the path goes while it has something. */
static void old_ends(void)
{
	int r;

	two_servers();
	srv.hold = false;
	vload_stop(&B.load);
	r = replace_by_srv2();
	nbdsrv_kill(&srv);
	T_REQUIRE(!r, "replace: %s: %s", strerror(-r), ctl_msg);
	sleep_ms(300);
	T_CHECK(reads(), "read");
	undisturbed(1);
	vload_finish(&B.load, "load");
	B.loading = false;
	fix_close(0);
	r = replace_by_srv2();
	T_CHECK(!r, "replace: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_remove("kt-0", "n", 0);
	T_CHECK(!r, "remove: %s: %s", strerror(-r), ctl_msg);
}

/* Nobody replaces them: they are not used any more, and the path fails. */
static void spent(void)
{
	struct iovm_path_info i;

	bed_target();
	bed_guest(ID);
	ktls_limits(200, 600);
	bed_connect(2, AES, 0);
	bed_load(0);
	T_REQUIRE(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 60000), "it goes on with spent keys");
	T_CHECK(!ctl_path_get("kt-0", "n", &i) && i.last_error == -EKEYEXPIRED, "error %d", i.last_error);
	T_CHECK(ctl_events_count(&B.ev, IOVM_EV_KEYS_OLD, "kt-0") == 1, "not told before");
	ktls_limits(1 << 20, 1 << 20);
	T_CHECK(sessions_become(0, 10000), "the target's session stays");
	bed_connect(2, AES, 0);
	T_CHECK(vload_progress(&B.load, 50, 30000), "no progress");
	bed_check();
}

/* A client that is not ours goes on and on: the target does not. */
static void spent_at_target(void)
{
	u8 cmd[28] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 3 };	/* FLUSH */
	int sv[2], r, e;
	unsigned int n;
	u8 reply[16];

	bed_target();
	ktls_limits(0, 400);
	ktls_pair(sv, AES, 0);
	r = ctl_session_add(BED_TGT, &sv[1], 1, IOVM_SESSION_F_TLS, "x", NULL);
	T_REQUIRE(!r, "session: %s", ctl_msg);
	close(sv[1]);
	B.peer = sv[0];
	for (n = 0; n < 1000; n++)
		if (send(B.peer, cmd, sizeof(cmd), MSG_NOSIGNAL) != sizeof(cmd) || recv(B.peer, reply, sizeof(reply), MSG_WAITALL) <= 0)
			break;
	T_CHECK(n >= 400 && n < 600, "it was served %u times", n);
	e = ctl_events_wait(&B.ev, 0, IOVM_EV_SESSION_ENDED, BED_TGT, NULL, 3000);
	T_REQUIRE(e >= 0, "its session does not end");
	T_CHECK(B.ev.seen[e].error == -EKEYEXPIRED, "error %d", B.ev.seen[e].error);
}

static const struct ktap_case cases[] = {
	{ "under_load", under_load, 300 },
	{ "in_a_row", in_a_row, 180 },
	{ "refused", refused, 120 },
	{ "old_is_slow", old_is_slow, 60 },
	{ "old_breaks", old_breaks, 60 },
	{ "old_ends", old_ends },
	{ "spent", spent, 180 },
	{ "spent_at_target", spent_at_target },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
