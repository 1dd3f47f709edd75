// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Paths of type nbd against the test's own server, which answers as it is told: late, out of order, in chunks, wrong,
 * or never.
 */
#include "one.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)

static struct ctl_events ev;
static struct nbdsrv srv, srv2;
static struct vload L;
static bool loading;
static bool shared_mem;		/* srv2 serves srv's memory */
static char a_node[64], b_node[64];

static void cleanup(void)
{
	srv.hang = srv2.hang = false;
	srv.sip_ms = 0;
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (loading) {
		/* whatever the load still waits for: end it */
		ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0);
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		L.abandon = true;
		vload_stop(&L);
	}
	loading = false;
	ctl_events_close(&ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	nbdsrv_kill(&srv2);
	if (shared_mem)
		srv2.mem = NULL;
	shared_mem = false;
	nbdsrv_free(&srv);
	nbdsrv_free(&srv2);
	fix_cleanup();
}

static void create(void)
{
	ctl_must_create("kt-0", SECTORS, 2);
	strcpy(F[0].name, "kt-0");
}

static void attach(struct nbdsrv *s, const char *path, unsigned int nconn, bool tcp)
{
	int r;

	r = nbdsrv_attach(s, "kt-0", path, nconn, tcp);
	T_REQUIRE(!r, "connect %s: %s: %s", path, strerror(-r), ctl_msg);
	T_CHECK(ctl_wait_path_state("kt-0", path, IOVM_PATH_LIVE, 1000), "%s is not live", path);
}

static void add_nbd(struct nbdsrv *s, const char *path, u32 flags, u32 fence, u32 hb, u32 dead, unsigned int nconn, bool tcp)
{
	int r = ctl_path_add_nbd("kt-0", path, flags, fence, hb, dead);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
	attach(s, path, nconn, tcp);
}

static void mem_server(struct nbdsrv *s)
{
	T_REQUIRE(!nbdsrv_init(s, NULL, MB * MiB), "server");
}

/* srv and srv2, which serve the same memory */
static void two_servers(void)
{
	mem_server(&srv);
	mem_server(&srv2);
	free(srv2.mem);
	srv2.mem = srv.mem;
	shared_mem = true;
}

static void begin(struct vload_cfg c)
{
	int r;

	fix_open_mem(0, ALL_FEATURES, 2, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	c.mem_idx = -1;
	c.indirect = true;
	r = vload_start(&L, &F[0].d, &c);
	T_REQUIRE(!r, "load: %s", strerror(-r));
	loading = true;
}

static void end(void)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(!L.stuck && vload_check_dev(&L) == 0, "wrong data at rest");
	vload_finish(&L, "load");
}

/* The same, for a load whose paths end at fix_store: looks there. */
static void end_on_node(void)
{
	vload_stop(&L);
	loading = false;
	T_CHECK(vload_check_node(&L, fix_store) == 0, "wrong data at rest");
	vload_finish(&L, "load");
}

static void plain(bool tcp, unsigned int nconn, bool structured, u32 batch)
{
	struct iovm_path_stats st;
	struct iovm_path_info pi;
	int r;

	mem_server(&srv);
	srv.structured = structured;
	srv.batch = batch;
	create();
	add_nbd(&srv, "n", 0, 0, 0, 0, nconn, tcp);
	begin((struct vload_cfg){ .flush_pct = 3, .zero_pct = 3, .max_ios = 1000, .depth = 32, .max_blocks = 16 });
	vload_wait(&L);
	r = ctl_path_get("kt-0", "n", &pi);
	T_CHECK(!r && pi.nr_sockets == nconn && pi.generation == 1 && pi.capacity == SECTORS, "sockets %u, generation %u",
		pi.nr_sockets, pi.generation);
	r = ctl_path_stats("kt-0", "n", &st);
	T_CHECK(!r && st.done[IOVM_OP_READ] > 100 && st.done[IOVM_OP_WRITE] > 100, "statistics");
	T_CHECK(st.stale_replies == 0, "%llu stale replies", (unsigned long long)st.stale_replies);
	T_CHECK(srv.fua >= srv.writes && srv.flushes > 0 && srv.zeroes > 0,
		"a cache that dies with its path: %llu writes, %llu FUA, %llu flushes, %llu zeroes",
		(unsigned long long)srv.writes, (unsigned long long)srv.fua, (unsigned long long)srv.flushes,
		(unsigned long long)srv.zeroes);
	end();
}

static void unix_simple(void)
{
	plain(false, 1, false, 0);
}

static void tcp_multi(void)
{
	plain(true, 4, false, 0);
}

static void structured(void)
{
	plain(true, 1, true, 0);
}

static void any_order(void)
{
	plain(true, 1, false, 8);
}

static void any_order_structured(void)
{
	plain(false, 2, true, 5);
}

static void cache_survives(void)
{
	mem_server(&srv);
	create();
	add_nbd(&srv, "n", IOVM_PATH_F_CACHE_SURVIVES, 0, 0, 0, 1, false);
	begin((struct vload_cfg){ .max_ios = 500, .flush_pct = 3 });
	vload_wait(&L);
	T_CHECK(srv.fua == 0 && srv.writes > 50 && srv.flushes > 0, "%llu writes, %llu FUA, %llu flushes",
		(unsigned long long)srv.writes, (unsigned long long)srv.fua, (unsigned long long)srv.flushes);
	end();
}

/* The point of it all: the local disk errors, the guest goes on over the network, and comes home again. */
static void from_bdev(void)
{
	int r, e, at;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	create();
	r = ctl_path_add_bdev("kt-0", "a", a_node, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	add_nbd(&srv, "n", 0, 0, 0, 0, 2, true);
	begin((struct vload_cfg){ .depth = 32, .flush_pct = 2 });
	T_CHECK(vload_progress(&L, 200, 20000), "no progress");
	r = dm_swap("iovmt-a", dm_error(SECTORS), false);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	e = ctl_events_wait(&ev, 0, IOVM_EV_FIRST_COMPLETION, "kt-0", "n", 10000);
	if (T_CHECK(e >= 0, "no completion on the remote path"))
		ktap_note("first completion %.2f ms behind the first error", ev.seen[e].value / 1e6);
	T_CHECK(vload_progress(&L, 500, 20000), "no progress on the remote path");
	r = dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	at = ev.nr_seen;
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILBACK, NULL, 0);
	T_CHECK(!r, "failback: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(ctl_events_wait(&ev, at, IOVM_EV_REROUTED, "kt-0", "a", 5000) >= 0, "not rerouted");
	T_CHECK(vload_progress(&L, 200, 20000), "no progress at home");
	end_on_node();
}

/* A FLUSH behind a switch covers what was written before it. */
static void flush_follows(void)
{
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	create();
	add_nbd(&srv, "n", IOVM_PATH_F_CACHE_SURVIVES, 0, 0, 0, 1, false);
	r = ctl_path_add_bdev("kt-0", "a", a_node, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	fix_open(0, ALL_FEATURES, 1, 64);
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, 0, 4096);
	T_CHECK(r == 0 && srv.writes == 1 && !srv.flushes, "write: %d", r);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0);
	T_CHECK(!r, "failover: %s: %s", strerror(-r), ctl_msg);
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, 8, 4096);
	T_CHECK(r == 0 && srv.writes == 1, "write: %d", r);
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_FLUSH, 0, 0);
	T_CHECK(r == 0, "flush: %d", r);
	T_CHECK(srv.flushes == 1, "the first path got %llu flushes", (unsigned long long)srv.flushes);
	/* nothing unflushed is left there: the next one stays away */
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_FLUSH, 0, 0);
	T_CHECK(r == 0 && srv.flushes == 1, "flush: %d, %llu on the first path", r, (unsigned long long)srv.flushes);
}

/* Its only server dies under load, again and again; user space connects it anew. */
static void killed_and_back(void)
{
	struct iovm_path_info pi;
	unsigned int i;
	int r;

	mem_server(&srv);
	create();
	add_nbd(&srv, "n", 0, 0, 0, 0, 2, true);
	begin((struct vload_cfg){ .depth = 16 });
	for (i = 0; i < 15 && !ktap_failed(); i++) {
		T_CHECK(vload_progress(&L, 50, 20000), "round %u: no progress", i);
		if (i % 3 == 2)
			srv.die_after = 10 + srv.replies;
		else
			nbdsrv_kill(&srv);
		T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_FAILED, 5000) ||
			ctl_wait_path_state("kt-0", "n", IOVM_PATH_CONNECTING, 100), "round %u: path is not failed", i);
		nbdsrv_kill(&srv);
		srv.die_after = 0;
		r = nbdsrv_attach(&srv, "kt-0", "n", 1 + i % 3, i % 2);
		T_CHECK(!r, "round %u: connect: %s: %s", i, strerror(-r), ctl_msg);
		r = ctl_path_get("kt-0", "n", &pi);
		T_CHECK(!r && pi.generation == i + 2, "generation %u, wanted %u", pi.generation, i + 2);
	}
	T_CHECK(vload_progress(&L, 50, 20000), "no progress");
	end();
}

/* A load on server "n", which dies: its writes are held. Path "a" has the rest. */
static void hold_writes(void)
{
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	srv.delay_us = 2000;
	create();
	add_nbd(&srv, "n", 0, IOVM_FENCE_NONE, 0, 0, 1, true);
	r = ctl_path_add_bdev("kt-0", "a", a_node, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	begin((struct vload_cfg){ .depth = 32, .write_pct = 70 });
	T_CHECK(vload_progress(&L, 50, 20000), "no progress");
	nbdsrv_kill(&srv);
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_HELD, "kt-0", NULL, 10000) >= 0, "no HELD event");
}

/* Writes that a dead server may still execute wait for the operator's word; all else goes on elsewhere. */
static void held_writes(void)
{
	struct iovm_dev_info di;
	int r, e;

	hold_writes();
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_REROUTED, "kt-0", "a", 10000) >= 0, "not rerouted");
	sleep_ms(200);
	r = ctl_dev_get("kt-0", &di);
	T_CHECK(!r && di.held > 0, "held %llu", (unsigned long long)di.held);
	T_CHECK(vload_progress(&L, 50, 20000), "nothing goes on while writes are held");
	r = ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	e = ctl_events_wait(&ev, 0, IOVM_EV_FENCED, "kt-0", "n", 5000);
	T_CHECK(e >= 0 && ev.seen[e].value > 0, "no FENCED event, or for nothing");
	r = ctl_dev_get("kt-0", &di);
	T_CHECK(!r && di.held == 0, "held %llu", (unsigned long long)di.held);
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	end_on_node();
}

/* The other way to settle it: the same server is back, what was held is sent there again. */
static void held_and_reconnected(void)
{
	struct iovm_dev_info di;
	int r;

	hold_writes();
	T_CHECK(vload_progress(&L, 50, 20000), "nothing goes on while writes are held");
	srv.delay_us = 0;
	r = nbdsrv_attach(&srv, "kt-0", "n", 1, true);
	T_CHECK(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(vload_progress(&L, 300, 20000), "no progress");
	sleep_ms(200);
	r = ctl_dev_get("kt-0", &di);
	T_CHECK(!r && di.held == 0, "held %llu although the path is back", (unsigned long long)di.held);
	end_on_node();
}

/* A server that takes everything and answers nothing. */
static void hangs(void)
{
	int r, e;
	u64 t0;

	two_servers();
	create();
	add_nbd(&srv, "n", 0, 0, 200, 1000, 1, true);
	add_nbd(&srv2, "m", 0, 0, 0, 0, 1, true);
	begin((struct vload_cfg){ .depth = 16 });
	T_CHECK(vload_progress(&L, 100, 20000), "no progress");
	t0 = now_ns();
	srv.hang = true;
	e = ctl_events_wait_state(&ev, 0, "kt-0", "n", IOVM_PATH_FAILED, 15000);
	if (T_CHECK(e >= 0, "a server that hangs is not noticed")) {
		u64 ms = (ev.seen[e].mono_ns - t0) / 1000000;

		T_CHECK(ms >= 500 && ms < 6000, "noticed after %llu ms, dead_ms is 1000", (unsigned long long)ms);
		ktap_note("noticed after %llu ms", (unsigned long long)ms);
	}
	nbdsrv_kill(&srv);
	srv.hang = false;
	r = ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(vload_progress(&L, 200, 20000), "no progress on the other server");
	end();
}

/* The same while idle: the heartbeat finds it. */
static void hangs_idle(void)
{
	struct iovm_path_stats st;
	int r;

	mem_server(&srv);
	create();
	add_nbd(&srv, "n", 0, 0, 100, 600, 1, true);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	sleep_ms(1000);
	r = ctl_path_stats("kt-0", "n", &st);
	T_CHECK(!r && st.heartbeats >= 3, "%llu heartbeats in a second", (unsigned long long)st.heartbeats);
	T_CHECK(ctl_wait_path_state("kt-0", "n", IOVM_PATH_LIVE, 0), "an idle path that answers is not live");
	srv.hang = true;
	T_CHECK(ctl_events_wait_state(&ev, 0, "kt-0", "n", IOVM_PATH_FAILED, 10000) >= 0, "not noticed");
}

#define SIP_MS		(60 * ktap_slowness())
#define SIP_DEAD_MS	(700 * ktap_slowness())

static void add_sipping(struct nbdsrv *s)
{
	struct iovm_path_add a = { .heartbeat_ms = 100, .dead_ms = SIP_DEAD_MS, .flags = IOVM_PATH_F_ASSUME_SAME,
				   .io_timeout_ms = IOVM_NO_TIMEOUT };
	int r;

	s->sip_ms = SIP_MS;
	r = ctl_path_add_nbd_arg("kt-0", "n", &a);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	attach(s, "n", 1, true);
}

/* A megabyte that takes longer than a server may be quiet, and takes its time evenly, is no reason to give the server up. */
static void long_write(void)
{
	struct one o;
	u64 ms;

	mem_server(&srv);
	create();
	T_REQUIRE(!ctl_events_open(&ev), "events");
	add_sipping(&srv);
	fix_open(0, ALL_FEATURES, 1, 64);
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, MiB, 0x5a);
	one_wait(&o, 40 * SIP_DEAD_MS);
	ctl_events_poll(&ev, 0);
	T_REQUIRE(o.done && one_status(&o) == 0, "the write did not get through");
	ms = (o.done_ns - o.begun_ns) / 1000000;
	T_CHECK(ms > 2 * SIP_DEAD_MS, "it took %llu ms only, dead_ms is %u", (unsigned long long)ms, SIP_DEAD_MS);
	T_CHECK(ctl_events_wait_state(&ev, 0, "kt-0", "n", IOVM_PATH_FAILED, 0) < 0, "the path failed meanwhile");
	T_CHECK(all_bytes(srv.mem, MiB, 0x5a), "not what was written");
	ktap_note("%llu ms", (unsigned long long)ms);
}

/* One that stops in the middle of it is. */
static void write_stops(void)
{
	struct one o;
	int e, r;
	u64 t0;

	two_servers();
	create();
	T_REQUIRE(!ctl_events_open(&ev), "events");
	add_sipping(&srv);
	add_nbd(&srv2, "m", 0, 0, 0, 0, 1, true);
	fix_open(0, ALL_FEATURES, 1, 64);
	one_start(&o, 0, VIRTIO_BLK_T_OUT, 0, MiB, 0x5b);
	sleep_ms(4 * SIP_MS);
	t0 = now_ns();
	srv.sip_ms = 3600 * 1000;
	e = ctl_events_wait_state(&ev, 0, "kt-0", "n", IOVM_PATH_FAILED, 10 * SIP_DEAD_MS);
	if (T_CHECK(e >= 0, "a server that takes no more is not noticed")) {
		u64 ms = (ev.seen[e].mono_ns - t0) / 1000000;

		T_CHECK(ms < 3 * SIP_DEAD_MS, "noticed after %llu ms, dead_ms is %u", (unsigned long long)ms, SIP_DEAD_MS);
		ktap_note("noticed after %llu ms", (unsigned long long)ms);
	}
	srv.sip_ms = 0;
	nbdsrv_kill(&srv);
	r = ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(one_wait(&o, 10000) && one_status(&o) == 0, "the write does not go on");
	T_CHECK(all_bytes(srv2.mem, MiB, 0x5b), "not what was written");
}

/*
 * Errors of the server belong to its path: the other one serves. An error is no proof that a write will not land (the server may
 * itself sit on a network): it is held until the operator says so.
 */
static void server_errors(void)
{
	struct iovm_path_info pi;
	int r;

	two_servers();
	create();
	add_nbd(&srv, "n", 0, 0, 0, 0, 1, false);
	add_nbd(&srv2, "m", 0, 0, 0, 0, 1, false);
	begin((struct vload_cfg){ .depth = 16 });
	T_CHECK(vload_progress(&L, 100, 20000), "no progress");
	srv.fail_every = 20;
	T_CHECK(ctl_events_wait(&ev, 0, IOVM_EV_REROUTED, "kt-0", "m", 10000) >= 0, "not rerouted");
	T_CHECK(vload_progress(&L, 200, 20000), "no progress on the other server");
	srv.fail_every = 0;
	r = ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FENCED);
	T_CHECK(!r, "fenced: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(vload_turnover(&L, 20000), "requests are stuck");
	r = ctl_path_get("kt-0", "n", &pi);
	T_CHECK(!r && pi.held == 0, "%llu writes are held", (unsigned long long)pi.held);
	r = ctl_path_add_nbd("kt-0", "x", 0, IOVM_FENCE_LOCAL_ERROR, 0, 0);
	T_CHECK(r == -EINVAL && ctl_msg[0], "a lost connection as proof that a write ended: %s", strerror(-r));
	end();
}

/* --- a server that lies --- */

struct lie {
	const char *name;
	unsigned int len;
	u8 msg[64];
	bool cookie;		/* the request's own goes to offset 8 */
	bool may_live;		/* the path may survive it */
	bool structured;
};

static const struct lie lies[] = {
	{ "bad magic", 16, { 1, 2, 3, 4 }, true, false, false },
	{ "request magic", 16, { 0x25, 0x60, 0x95, 0x13 }, true, false, false },
	{ "unknown cookie", 16, { 0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9 }, false, true, false },
	{ "cookie of zeroes", 16, { 0x67, 0x44, 0x66, 0x98 }, false, true, false },
	{ "chunk that was not negotiated", 20, { 0x66, 0x8e, 0x33, 0xef, 0, 1 }, true, false, false },
	{ "unknown chunk type", 20, { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0x12, 0x34 }, true, false, true },
	{ "chunk of 4 GiB", 20, { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff }, true,
	  false, true },
	{ "data outside of the request", 28, { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 8,
					       0, 0, 0, 0, 0, 0x10, 0, 0 }, true, false, true },
	{ "data of seven bytes", 28, { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7 }, true, false,
	  true },
	{ "hole outside of the request", 32, { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12,
					       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0, 0, 1, 0 }, true, false, true },
	{ "done without the data", 20, { 0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0 }, true, true, true },
};

static void liar(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(lies) && !ktap_failed(); i++) {
		const struct lie *l = &lies[i];
		struct virtio_blk_outhdr *h;
		struct vseg seg[3];
		u8 req[28], msg[64];
		u64 end;
		int sv[2], r;
		static char tok;
		struct vq *q;

		mem_server(&srv2);
		create();
		r = ctl_path_add_nbd("kt-0", "liar", 0, 0, 0, 0);
		T_REQUIRE(!r, "path: %s", strerror(-r));
		T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv), "socketpair");
		r = ctl_path_connect("kt-0", "liar", sv, 1, MB * MiB, NBDSRV_FLAGS, l->structured ? IOVM_NBD_F_STRUCTURED : 0);
		T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
		close(sv[0]);
		add_nbd(&srv2, "good", 0, 0, 0, 0, 1, false);
		fix_open(0, ALL_FEATURES, 1, 64);
		q = &F[0].d.vqs[0];
		h = gmem_ptr(&F[0].mem, F[0].s.hdr_gpa);
		*h = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
		seg[0] = (struct vseg){ F[0].s.hdr_gpa, 16, false };
		seg[1] = (struct vseg){ F[0].s.data_gpa, 512, true };
		seg[2] = (struct vseg){ F[0].s.status_gpa, 1, true };
		*(u8 *)gmem_ptr(&F[0].mem, F[0].s.status_gpa) = 0xaa;
		memset(gmem_ptr(&F[0].mem, F[0].s.data_gpa), 0x55, 8192);
		vq_add(q, seg, 3, &tok, 0);
		vq_submit(q);
		r = recv(sv[1], req, 28, MSG_WAITALL);
		T_CHECK(r == 28, "%s: request: %d", l->name, r);
		memcpy(msg, l->msg, sizeof(msg));
		if (l->cookie)
			memcpy(msg + 8, req + 8, 8);
		T_CHECK(send(sv[1], msg, l->len, MSG_NOSIGNAL) == (int)l->len, "%s: send", l->name);
		end = now_ns() + 3000000000ull;
		while (!vq_has_used(q) && now_ns() < end && !ctl_wait_path_state("kt-0", "liar", IOVM_PATH_FAILED, 20))
			if (l->may_live && now_ns() > end - 2500000000ull)
				break;
		if (!l->may_live)
			T_CHECK(ctl_wait_path_state("kt-0", "liar", IOVM_PATH_FAILED, 2000), "%s: path is not failed", l->name);
		shutdown(sv[1], SHUT_RDWR);
		close(sv[1]);
		T_CHECK(vq_wait(q, 10000) && vq_pop(q, NULL) == &tok, "%s: the request never ended", l->name);
		r = *(u8 *)gmem_ptr(&F[0].mem, F[0].s.status_gpa);
		T_CHECK(r == 0, "%s: status %d", l->name, r);
		T_CHECK(*(u8 *)gmem_ptr(&F[0].mem, F[0].s.data_gpa + 512) == 0x55, "%s: wrote behind the buffer", l->name);
		T_CHECK(*(u8 *)gmem_ptr(&F[0].mem, F[0].s.data_gpa) == 0, "%s: not the good server's data", l->name);
		fix_close(0);
		r = ctl_dev_destroy("kt-0", 0);
		T_CHECK(!r, "%s: destroy: %s: %s", l->name, strerror(-r), ctl_msg);
		nbdsrv_free(&srv2);
	}
}

/* Garbage of a seeded generator instead of replies. */
static void garbage(void)
{
	u64 rnd = 4242;
	unsigned int i, k;

	for (i = 0; i < 40 && !ktap_failed(); i++) {
		u8 junk[512];
		int sv[2], r, fl = i % 2 ? IOVM_NBD_F_STRUCTURED : 0;

		create();
		r = ctl_path_add_nbd("kt-0", "liar", 0, 0, 0, 0);
		T_REQUIRE(!r, "path: %s", strerror(-r));
		T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv), "socketpair");
		r = ctl_path_connect("kt-0", "liar", sv, 1, MB * MiB, NBDSRV_FLAGS, fl);
		T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
		close(sv[0]);
		for (k = 0; k < sizeof(junk); k++)
			junk[k] = rnd64(&rnd);
		if (i % 4 < 2) {	/* plausible at first */
			u32 magic = htobe32(fl ? 0x668e33ef : 0x67446698);

			memcpy(junk, &magic, 4);
			memset(junk + 4, 0, 4);
		}
		if (send(sv[1], junk, 1 + rnd64(&rnd) % sizeof(junk), MSG_NOSIGNAL) < 0)
			ktap_note("send: %s", strerror(errno));
		sleep_ms(5);
		close(sv[1]);
		T_CHECK(ctl_wait_path_state("kt-0", "liar", IOVM_PATH_FAILED, 5000), "round %u: path is not failed", i);
		r = ctl_dev_destroy("kt-0", 0);
		T_CHECK(!r, "destroy: %s: %s", strerror(-r), ctl_msg);
	}
}

/* Destroyed, suspended, stopped while a server does not answer. */
static void forced_end(void)
{
	int r;

	mem_server(&srv);
	create();
	add_nbd(&srv, "n", 0, 0, 1000, 60000, 1, true);
	begin((struct vload_cfg){ .depth = 16, .may_fail = true });
	T_CHECK(vload_progress(&L, 50, 20000), "no progress");
	srv.hang = true;
	sleep_ms(200);
	L.stop = true;
	r = ctl_path_remove("kt-0", "n", IOVM_PATH_REMOVE_F_FORCE);
	T_CHECK(!r, "forced removal: %s: %s", strerror(-r), ctl_msg);
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0);
	T_CHECK(!r, "fail parked: %s: %s", strerror(-r), ctl_msg);
	vload_stop(&L);
	loading = false;
	T_CHECK(!L.stuck, "%llu requests never ended", (unsigned long long)L.stuck);
	T_CHECK(!vdev_stop(&F[0].d), "stop");
	vload_free(&L);
	fix_close(0);
	r = ctl_dev_destroy("kt-0", 0);
	T_CHECK(!r, "destroy: %s: %s", strerror(-r), ctl_msg);
}

static const struct ktap_case cases[] = {
	{ "unix_simple", unix_simple },
	{ "tcp_multi", tcp_multi },
	{ "structured", structured },
	{ "any_order", any_order },
	{ "any_order_structured", any_order_structured },
	{ "cache_survives", cache_survives },
	{ "from_bdev", from_bdev },
	{ "flush_follows", flush_follows },
	{ "killed_and_back", killed_and_back },
	{ "held_writes", held_writes },
	{ "held_and_reconnected", held_and_reconnected },
	{ "hangs", hangs },
	{ "hangs_idle", hangs_idle },
	{ "long_write", long_write, .limit_s = 120 },
	{ "write_stops", write_stops, .limit_s = 120 },
	{ "server_errors", server_errors },
	{ "liar", liar },
	{ "garbage", garbage },
	{ "forced_end", forced_end },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
