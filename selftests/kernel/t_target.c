// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Target devices: the test is an NBD client, well behaved or not, of a device of the mux.
 */
#include "fix.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TGT		"kt-t"
#define SIZE_MB		64
#define BYTES		(SIZE_MB * (u64)MiB)
#define SECTORS		(BYTES / 512)

enum { READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES };
enum { FUA = 1, NO_HOLE = 2 };

struct client {
	int fd;
	u64 cookie;
};

static struct client C[IOVM_MAX_SOCKETS];
static struct ctl_events ev;
static struct vload L;
static bool loading;
static u32 sess;
static u64 epoch;		/* of the sessions that are made */
static pid_t taker;

static void hang_up(struct client *c)
{
	if (c->fd > 0)
		close(c->fd);
	c->fd = 0;
}

static void cleanup(void)
{
	unsigned int i;

	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	if (taker > 0) {
		kill(taker, SIGKILL);
		waitpid(taker, NULL, 0);
	}
	taker = 0;
	epoch = 0;
	dm_suspend("iovmt-a", false);
	dm_suspend("iovmt-b", false);
	for (i = 0; i < IOVM_MAX_SOCKETS; i++)
		hang_up(&C[i]);
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

/* --- the device --- */

static void create(u32 block, u32 flags)
{
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, TGT, SECTORS, 1);
	c.class = IOVM_CLASS_TARGET;
	c.blk.block_size = block;
	c.flags = flags;
	c.no_path_timeout_ms = 0;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	T_REQUIRE(!ctl_events_open(&ev), "events");
}

static void add(const char *path, const char *node)
{
	int r = ctl_path_add_bdev(TGT, path, node, 0, 0);

	T_REQUIRE(!r, "path %s: %s: %s", path, strerror(-r), ctl_msg);
}

/* On one memory-backed null_blk */
static void plain_device(void)
{
	fix_store_make(SIZE_MB, 512);
	create(512, 0);
	add("a", fix_store);
}

static int connect_n(unsigned int n, u32 flags, bool tcp)
{
	struct iovm_session_add a = { .flags = flags, .peer = "the test", .epoch = epoch };
	int fds[IOVM_MAX_SOCKETS], sv[2], r;
	unsigned int i;

	for (i = 0; i < n; i++) {
		r = tcp ? nbdsrv_tcp_pair(sv) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv);
		T_REQUIRE(!r, "sockets");
		C[i] = (struct client){ .fd = sv[0] };
		fds[i] = sv[1];
	}
	r = ctl_session_add_arg(TGT, fds, n, &a);
	sess = a.id;
	for (i = 0; i < n; i++)
		close(fds[i]);
	return r;
}

static void attach(unsigned int n, u32 flags, bool tcp)
{
	int r = connect_n(n, flags, tcp);

	T_REQUIRE(!r, "session: %s: %s", strerror(-r), ctl_msg);
}

static bool sessions_are(unsigned int n, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	struct iovm_dev_info d;

	do {
		if (!ctl_dev_get(TGT, &d) && d.in_use == n)
			return true;
		sleep_ms(5);
	} while (now_ns() < end);
	return false;
}

/* Waits until so many commands are held: one is free, and counted, a moment after its answer was sent. As ctl_session_get(). */
static int held(u32 n, struct iovm_session_info *s)
{
	u64 end = now_ns() + 2000000000ull;
	int r;

	do {
		r = ctl_session_get(TGT, 0, s);
		if (r || s->inflight == n)
			return r;
		sleep_ms(2);
	} while (now_ns() < end);
	return -ETIMEDOUT;
}

/* --- the client --- */

static void put_all(int fd, const void *p, size_t n)
{
	T_REQUIRE(send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n, "send: %s", strerror(errno));
}

static bool get_all(int fd, void *p, size_t n, int timeout_ms)
{
	size_t have = 0;

	while (have < n) {
		struct pollfd pf = { .fd = fd, .events = POLLIN };
		ssize_t r;

		if (poll(&pf, 1, timeout_ms) <= 0)
			return false;
		r = recv(fd, (char *)p + have, n - have, 0);
		if (r <= 0)
			return false;
		have += r;
	}
	return true;
}

static u64 request(struct client *c, u16 type, u16 flags, u64 off, u32 len)
{
	struct __attribute__((packed)) {
		u32 magic;
		u16 flags, type;
		u64 cookie, off;
		u32 len;
	} q = { htobe32(0x25609513), htobe16(flags), htobe16(type), htobe64(++c->cookie), htobe64(off), htobe32(len) };

	put_all(c->fd, &q, sizeof(q));
	return c->cookie;
}

struct __attribute__((packed)) reply {
	u32 magic, error;
	u64 cookie;
};

/* The next reply's header: its error, or -1 when none came. */
static int reply(struct client *c, u64 *cookie, int timeout_ms)
{
	struct reply r;

	if (!get_all(c->fd, &r, sizeof(r), timeout_ms))
		return -1;
	T_CHECK(be32toh(r.magic) == 0x67446698, "magic %x", be32toh(r.magic));
	*cookie = be64toh(r.cookie);
	return be32toh(r.error);
}

/* One command and its answer; the error. */
static int one(struct client *c, u16 type, u16 flags, u64 off, u32 len, void *data)
{
	u64 sent = request(c, type, flags, off, len), got = 0;
	int r;

	if (type == WRITE)
		put_all(c->fd, data, len);
	r = reply(c, &got, 20000);
	T_CHECK(r < 0 || got == sent, "cookie %llu, not %llu", (unsigned long long)got, (unsigned long long)sent);
	if (!r && type == READ)
		T_CHECK(get_all(c->fd, data, len, 20000), "the data of a READ do not come");
	return r;
}

static void fill(u8 *buf, u64 off, u32 len, u32 gen)
{
	u32 i;

	for (i = 0; i < len / 512; i++)
		pat_fill(buf + 512 * i, 7, off / 512 + i, gen);
}

static bool is(const u8 *buf, u64 off, u32 len, u32 gen)
{
	u32 i;

	for (i = 0; i < len / 512; i++)
		if (gen == GEN_ZERO ? buf[512 * i] || memcmp(buf + 512 * i, buf + 512 * i + 1, 511) :
				      !pat_ok(buf + 512 * i, 7, off / 512 + i, gen))
			return false;
	return true;
}

/* --- cases --- */

static void commands_on(bool tcp)
{
	static const u32 sizes[] = { 512, 4096, 4608, 65536, 131072, 131584, MiB, MiB + 512, 3 * MiB + 4096, 32 * MiB };
	u8 *buf = aligned_alloc(4096, 32 * MiB), *at = aligned_alloc(4096, 32 * MiB);
	struct iovm_session_info s;
	u64 bytes = 0;
	unsigned int i;

	plain_device();
	attach(1, 0, tcp);
	for (i = 0; i < ARRAY_SIZE(sizes) && !ktap_failed(); i++) {
		u32 n = sizes[i];
		u64 off = 512 * (i + 1);

		fill(buf, off, n, i + 1);
		T_CHECK(one(&C[0], WRITE, i % 2 ? FUA : 0, off, n, buf) == 0, "WRITE of %u", n);
		memset(at, 0xee, n);
		T_CHECK(!stor_pread(fix_store, at, n, off) && is(at, off, n, i + 1), "%u bytes are not on the disk", n);
		memset(buf, 0xdd, n);
		T_CHECK(one(&C[0], READ, 0, off, n, buf) == 0 && is(buf, off, n, i + 1), "READ of %u", n);
		bytes += n;
	}
	T_CHECK(one(&C[0], FLUSH, 0, 0, 0, NULL) == 0, "FLUSH");
	T_CHECK(one(&C[0], ZEROES, 0, 4096, 2 * MiB, NULL) == 0, "WRITE_ZEROES");
	T_CHECK(one(&C[0], READ, 0, 4096, 2 * MiB, buf) == 0 && is(buf, 4096, 2 * MiB, GEN_ZERO), "zeroes");
	T_CHECK(one(&C[0], ZEROES, NO_HOLE | FUA, 512, 512, NULL) == 0, "WRITE_ZEROES of a sector");
	T_CHECK(one(&C[0], TRIM, 0, 4 * MiB, 4 * MiB, NULL) == 0, "TRIM");
	T_CHECK(!held(0, &s) && s.id == sess && s.nr_sockets == 1 && !s.errors &&
		s.written_bytes == bytes && s.read_bytes == bytes + 2 * MiB && s.commands == 2 * ARRAY_SIZE(sizes) + 5 &&
		!strcmp(s.peer, "the test"), "statistics: %llu commands, %llu read, %llu written",
		(unsigned long long)s.commands, (unsigned long long)s.read_bytes, (unsigned long long)s.written_bytes);
	request(&C[0], DISC, 0, 0, 0);
	T_CHECK(sessions_are(0, 5000), "the session does not end");
	i = ctl_events_wait(&ev, 0, IOVM_EV_SESSION_ENDED, TGT, NULL, 1000);
	T_CHECK((int)i >= 0 && !ev.seen[i].error && ev.seen[i].value == sess, "no event, or an error in it");
	free(buf);
	free(at);
}

static void commands(void)
{
	commands_on(true);
}

static void commands_unix(void)
{
	commands_on(false);
}

struct refusal {
	const char *what;
	u16 type, flags;
	u64 off;
	u32 len;
	int error;
	bool rdonly;
};

static const struct refusal refusals[] = {
	{ "READ behind the end", READ, 0, BYTES, 4096, 22 },
	{ "READ across the end", READ, 0, BYTES - 4096, 8192, 22 },
	{ "READ at 2^64 - 4096", READ, 0, -4096ull, 8192, 22 },
	{ "READ of nothing", READ, 0, 0, 0, 22 },
	{ "READ of half a block", READ, 0, 0, 2048, 22 },
	{ "READ at half a block", READ, 0, 2048, 4096, 22 },
	{ "READ of 64 MiB", READ, 0, 0, 64 * MiB, 75 },
	{ "READ with an unknown flag", READ, 0x80, 0, 4096, 22 },
	{ "WRITE behind the end", WRITE, 0, BYTES, 4096, 28 },
	{ "WRITE of 2 MiB across the end", WRITE, 0, BYTES - MiB, 2 * MiB, 28 },
	{ "WRITE of half a block", WRITE, 0, 0, 2048, 22 },
	{ "WRITE to a read-only session", WRITE, 0, 0, 4096, 1, true },
	{ "TRIM of a read-only session", TRIM, 0, 0, 4096, 1, true },
	{ "WRITE_ZEROES of a read-only session", ZEROES, 0, 0, 4096, 1, true },
	{ "FLUSH of something", FLUSH, 0, 0, 4096, 22 },
	{ "WRITE_ZEROES, fast or not at all", ZEROES, 16, 0, 4096, 22 },
	{ "CACHE", CACHE, 0, 0, 4096, 22 },
	{ "command 4711", 4711, 0, 0, 4096, 22 },
	{ "TRIM across the end", TRIM, 0, BYTES - 4096, 8192, 22 },
};

/* Each is answered, and the next command as well. */
static void refused(void)
{
	static u8 data[2 * MiB], buf[4096];
	struct iovm_session_info s;
	unsigned int i;

	fix_store_make(SIZE_MB, 512);
	create(4096, 0);
	add("a", fix_store);
	memset(data, 0x99, sizeof(data));
	for (i = 0; i < ARRAY_SIZE(refusals) && !ktap_failed(); i++) {
		const struct refusal *f = &refusals[i];
		int r;

		attach(1, f->rdonly ? IOVM_SESSION_F_RDONLY : 0, true);
		r = one(&C[0], f->type, f->flags, f->off, f->len, data);
		T_CHECK(r == f->error, "%s: error %d, not %d", f->what, r, f->error);
		r = one(&C[0], READ, 0, 0, 4096, buf);
		T_CHECK(!r && is(buf, 0, 4096, GEN_ZERO), "%s: the command behind it: %d, or data were written", f->what, r);
		T_CHECK(!held(0, &s) && s.errors == 1 && s.commands == 2, "%s: counted as %llu errors", f->what,
			(unsigned long long)s.errors);
		hang_up(&C[0]);
		T_CHECK(sessions_are(0, 5000), "%s: the session does not end", f->what);
	}
}

/* What is no request ends the connection, wherever it is cut; the device and other sessions go on. */
static void garbage(void)
{
	static const u8 bad[][28] = {
		{ 0x25, 0x60, 0x95, 0x14 },				/* magic */
		{ 0x67, 0x44, 0x66, 0x98 },				/* a reply's */
		{ 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1, [24] = 0xff },	/* a WRITE of 4 GiB */
	};
	struct client good;
	u8 byte, buf[4096];
	unsigned int i;
	u32 cut;

	plain_device();
	attach(1, 0, true);
	good = C[0];
	C[0].fd = 0;
	for (i = 0; i < ARRAY_SIZE(bad) && !ktap_failed(); i++) {
		attach(1, 0, true);
		put_all(C[0].fd, bad[i], 28);
		T_CHECK(!get_all(C[0].fd, &byte, 1, 5000) && sessions_are(1, 5000), "message %u does not end the session", i);
		hang_up(&C[0]);
	}
	/* a WRITE of 8 KiB that ends somewhere */
	for (cut = 1; cut < 28 + 8192 && !ktap_failed(); cut += cut < 28 ? 9 : 2731) {
		static u8 w[28 + 8192] = { 0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1, [20] = 0, 0, 0x10, 0, [26] = 0x20 };

		memset(w + 28, 0x77, 8192);
		attach(1, 0, cut % 2);
		put_all(C[0].fd, w, cut);
		hang_up(&C[0]);
		T_CHECK(sessions_are(1, 5000), "the session does not end, cut at %u", cut);
	}
	T_CHECK(one(&good, READ, 0, 4096, 4096, buf) == 0 && is(buf, 0, 4096, GEN_ZERO),
		"the other session does not go on, or half a WRITE was executed");
	C[0] = good;
	T_CHECK(!ctl_wait_path_state(TGT, "a", IOVM_PATH_FAILED, 0), "the path has failed for it");
}

/* A client that asks for ever and takes no answer: what is held for it is bounded; then it takes them all. */
static void no_reader(void)
{
	struct iovm_session_info s = {};
	unsigned int i, n = 0;
	u8 *buf = malloc(128 << 10);
	u64 cookie;

	plain_device();
	attach(1, 0, true);
	for (i = 0; i < 2000; i++) {
		struct pollfd pf = { .fd = C[0].fd, .events = POLLOUT };

		if (poll(&pf, 1, 0) != 1)
			break;
		request(&C[0], READ, 0, 131072ull * (i % 256), 131072);
		n++;
	}
	sleep_ms(1000);
	T_CHECK(!ctl_session_get(TGT, 0, &s) && s.inflight > 8 && s.inflight <= 64 && s.mem_bytes < 11 * MiB,
		"%u commands, %llu bytes of memory", s.inflight, (unsigned long long)s.mem_bytes);
	ktap_note("%u requests sent, %u commands and %llu KiB held", n, s.inflight, (unsigned long long)s.mem_bytes / 1024);
	for (i = 0; i < n && !ktap_failed(); i++) {
		int r = reply(&C[0], &cookie, 10000);

		T_CHECK(r == 0 && get_all(C[0].fd, buf, 131072, 10000), "reply %u: %d", i, r);
	}
	T_CHECK(!held(0, &s) && s.commands == n && s.mem_bytes < 4 * MiB,
		"%u commands, %llu bytes of memory left", s.inflight, (unsigned long long)s.mem_bytes);
	free(buf);
}

/* Waits until @n commands have been answered. */
static bool answered(u64 n)
{
	u64 end = now_ns() + 5000000000ull;
	struct iovm_session_info s;

	do {
		if (!held(0, &s) && s.commands == n)
			return true;
	} while (now_ns() < end);
	return false;
}

/* What a client has not taken yet stays what it was, whatever is written meanwhile. */
static void slow_reader(void)
{
	u32 len = 32 << 10, i;
	u8 *buf = malloc(len);
	u64 cookie, read;

	plain_device();
	attach(1, 0, true);
	fill(buf, 0, len, 1);
	T_CHECK(one(&C[0], WRITE, 0, 0, len, buf) == 0, "WRITE");
	for (i = 0; i < 20 && !ktap_failed(); i++) {
		read = request(&C[0], READ, 0, 0, len);
		T_CHECK(answered(2 * i + 2), "the READ is not answered");
		fill(buf, MiB, len, i + 2);
		request(&C[0], WRITE, 0, MiB, len);
		put_all(C[0].fd, buf, len);
		T_CHECK(answered(2 * i + 3), "the WRITE is not answered");
		T_CHECK(reply(&C[0], &cookie, 5000) == 0 && cookie == read && get_all(C[0].fd, buf, len, 5000), "no READ");
		T_CHECK(is(buf, 0, len, 1), "round %u: a READ brings other data", i);
		T_CHECK(reply(&C[0], &cookie, 5000) == 0 && cookie == read + 1, "no WRITE");
	}
	free(buf);
}

/* Two paths, one errors: the client hears nothing of it. */
static void path_errors(void)
{
	static u8 buf[65536];
	char a[64], b[64];
	unsigned int i;

	fix_store_make(SIZE_MB, 512);
	fix_two_paths(a, b);
	create(512, 0);
	add("a", a);
	add("b", b);
	attach(2, 0, true);
	for (i = 0; i < 40 && !ktap_failed(); i++) {
		u64 off = 65536ull * i;

		if (i == 20)
			T_REQUIRE(!dm_swap("iovmt-a", dm_error(SECTORS), false), "dm");
		fill(buf, off, sizeof(buf), i + 1);
		T_CHECK(one(&C[i % 2], WRITE, 0, off, sizeof(buf), buf) == 0, "WRITE %u", i);
	}
	T_CHECK(ctl_wait_path_state(TGT, "a", IOVM_PATH_FAILED, 5000), "the path is not failed");
	T_CHECK(one(&C[0], FLUSH, 0, 0, 0, NULL) == 0, "FLUSH");
	for (i = 0; i < 40 && !ktap_failed(); i++)
		T_CHECK(one(&C[i % 2], READ, 0, 65536ull * i, sizeof(buf), buf) == 0 &&
			is(buf, 65536ull * i, sizeof(buf), i + 1), "READ %u", i);
}

/*
 * Blocks that the disk does not give: the command fails, without data behind its answer, and no other. Where the answer has begun
 * the connection ends.
 */
static void bad_blocks(void)
{
	struct nullb_opts o = { .size_mb = SIZE_MB, .memory_backed = true, .badblocks = "+6144-6151" };
	static u8 buf[2 * MiB], byte;
	struct iovm_session_info s;
	u64 cookie;

	T_REQUIRE(!nullb_create("iovmt0", &o, fix_store), "null_blk");
	create(512, 0);
	add("a", fix_store);
	attach(1, 0, true);
	memset(buf, 0x31, sizeof(buf));
	T_CHECK(one(&C[0], READ, 0, 6144 * 512, 4096, buf) == 5, "READ of what is bad");
	T_CHECK(one(&C[0], WRITE, 0, 6144 * 512, 65536, buf) == 5, "WRITE to it");
	T_CHECK(one(&C[0], WRITE, 0, 2 * MiB, sizeof(buf), buf) == 5, "WRITE in pieces, one of them there");
	T_CHECK(one(&C[0], READ, 0, 0, 4096, buf) == 0 && is(buf, 0, 4096, GEN_ZERO), "READ of something else");
	T_CHECK(!held(0, &s) && s.errors == 3, "%llu errors", (unsigned long long)s.errors);
	/* the bad blocks are in its second piece */
	request(&C[0], READ, 0, 2 * MiB, sizeof(buf));
	T_CHECK(reply(&C[0], &cookie, 5000) == 0 && get_all(C[0].fd, buf, MiB, 5000), "its first piece");
	T_CHECK(!get_all(C[0].fd, &byte, 1, 5000), "the connection does not end");
	T_CHECK(sessions_are(0, 5000), "the session does not end");
	T_CHECK(!ctl_wait_path_state(TGT, "a", IOVM_PATH_FAILED, 0), "the path has failed for it");
}

/* Without a route commands wait; then they go on. Those of a client that has gone are thrown away, however many. */
static void parked(void)
{
	struct iovm_session_info s;
	struct client gone[3];
	u8 buf[4096];
	unsigned int i, k;
	u64 cookie;
	int r;

	plain_device();
	r = ctl_path_ctl(TGT, "a", IOVM_PATH_CTL_FAIL);
	T_REQUIRE(!r, "fail: %s", ctl_msg);
	attach(1, 0, true);
	for (i = 0; i < 3; i++) {
		gone[i] = C[0];
		attach(1, 0, i != 1);
	}
	/* one that is read from, one that holds all its commands, one with a WRITE of several pieces */
	request(&gone[0], READ, 0, 0, 4096);
	for (k = 0; k < 200; k++)
		request(&gone[1], READ, 0, 4096 * k, 4096);
	request(&gone[2], WRITE, 0, 0, 4 * MiB);
	for (k = 0; k < 270; k++)
		put_all(gone[2].fd, buf, sizeof(buf));
	request(&C[0], READ, 0, 8192, 4096);
	sleep_ms(100);
	T_CHECK(reply(&C[0], &cookie, 200) == -1, "an answer without a route");
	T_CHECK(sessions_are(4, 0), "sessions");
	for (i = 0; i < 3; i++)
		hang_up(&gone[i]);
	T_CHECK(sessions_are(1, 6000), "sessions of clients that have gone stay");
	T_CHECK(!held(1, &s), "%u commands", s.inflight);
	r = ctl_path_ctl(TGT, "a", IOVM_PATH_CTL_RETRY);
	T_CHECK(!r, "retry: %s", ctl_msg);
	T_CHECK(reply(&C[0], &cookie, 5000) == 0 && get_all(C[0].fd, buf, 4096, 1000), "the command does not go on");
}

/* What was issued lands before the session is over, and not after it. */
static void drained(void)
{
	char a[64], b[64];
	u8 buf[4096];
	int e;

	fix_store_make(SIZE_MB, 512);
	fix_two_paths(a, b);
	create(512, 0);
	add("a", a);
	attach(1, 0, true);
	T_REQUIRE(!dm_suspend("iovmt-a", true), "dm");
	fill(buf, 0, 4096, 3);
	request(&C[0], WRITE, 0, 0, 4096);
	put_all(C[0].fd, buf, 4096);
	sleep_ms(50);
	hang_up(&C[0]);
	T_CHECK(!sessions_are(0, 300), "the session is over although its write is under way");
	T_CHECK(ctl_dev_destroy(TGT, 0) == -EBUSY, "destroyed meanwhile");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	T_CHECK(sessions_are(0, 5000), "the session does not end");
	e = ctl_events_wait(&ev, 0, IOVM_EV_SESSION_ENDED, TGT, NULL, 1000);
	T_CHECK(e >= 0, "no event");
	T_CHECK(!stor_pread(fix_store, buf, 4096, 0) && is(buf, 0, 4096, 3), "the write is not there");
}

static void by_hand(void)
{
	static u8 buf[4096];
	struct iovm_session_info s;
	u8 byte;
	u32 first;
	int r;

	plain_device();
	attach(2, 0, true);
	first = sess;
	r = ctl_dev_destroy(TGT, 0);
	T_CHECK(r == -EBUSY && strstr(ctl_msg, "session"), "destroy: %d: %s", r, ctl_msg);
	r = ctl_session_remove(TGT, first + 1);
	T_CHECK(r == -ENOENT && ctl_msg[0], "remove another one: %d", r);
	r = ctl_session_remove(TGT, first);
	T_CHECK(!r && !get_all(C[0].fd, &byte, 1, 5000) && sessions_are(0, 5000), "removed: %d", r);
	r = ctl_events_wait(&ev, 0, IOVM_EV_SESSION_ENDED, TGT, NULL, 1000);
	T_CHECK(r >= 0 && !ev.seen[r].error, "no event, or an error in it");
	hang_up(&C[0]);
	hang_up(&C[1]);

	/* parked, with all that it may hold, and destroyed by force */
	attach(1, 0, true);
	T_CHECK(sess != first && !ctl_session_get(TGT, first, &s) && s.id == sess, "ids");
	T_CHECK(ctl_session_get(TGT, sess + 1, &s) == -ENOENT, "one more session");
	r = ctl_path_ctl(TGT, "a", IOVM_PATH_CTL_FAIL);
	for (r = 0; r < 200; r++)
		request(&C[0], READ, 0, 0, 4096);
	sleep_ms(50);
	r = ctl_dev_destroy(TGT, IOVM_DESTROY_F_FORCE);
	T_CHECK(!r, "destroy by force: %s: %s", strerror(-r), ctl_msg);
	T_CHECK(!get_all(C[0].fd, buf, 1, 5000), "an answer after that");
}

static void bad_sessions(void)
{
	int sv[2], fds[IOVM_MAX_SOCKETS] = { 0 }, r, i;
	struct iovm_session_info s;

	fix_store_make(SIZE_MB, 512);
	create(512, IOVM_DEV_F_RDONLY);
	add("a", fix_store);
	ctl_must_create("kt-0", SECTORS, 1);
	T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv), "socketpair");
	fds[0] = sv[1];
	r = ctl_session_add("kt-0", fds, 1, 0, "", NULL);
	T_CHECK(r == -EOPNOTSUPP && strstr(ctl_msg, "kt-0"), "a device with a node: %d: %s", r, ctl_msg);
	r = ctl_session_remove("kt-0", 0);
	T_CHECK(r == -EOPNOTSUPP, "remove from it: %d", r);
	T_CHECK(ctl_session_get("kt-0", 0, &s) == -EOPNOTSUPP, "get from it");
	r = ctl_session_add("kt-none", fds, 1, 0, "", NULL);
	T_CHECK(r == -ENOENT && ctl_msg[0], "no such device: %d", r);
	r = ctl_session_add(TGT, fds, 1, 0, "", NULL);
	T_CHECK(r == -EROFS && ctl_msg[0], "a writable session of a read-only device: %d", r);
	r = ctl_session_add(TGT, fds, 1, 1u << 7, "", NULL);
	T_CHECK(r == -EINVAL && ctl_msg[0], "unknown flag: %d", r);
	for (i = 0; i <= IOVM_MAX_SOCKETS + 1; i += IOVM_MAX_SOCKETS + 1) {
		r = ctl_session_add(TGT, fds, i, IOVM_SESSION_F_RDONLY, "", NULL);
		T_CHECK(r == -EINVAL && ctl_msg[0], "%d sockets: %d", i, r);
	}
	fds[1] = ctl_fd();
	r = ctl_session_add(TGT, fds, 2, IOVM_SESSION_F_RDONLY, "", NULL);
	T_CHECK(r == -ENOTSOCK && ctl_msg[0], "no socket: %d: %s", r, ctl_msg);
	fds[1] = sv[1];
	r = ctl_session_add(TGT, fds, 2, IOVM_SESSION_F_RDONLY, "", NULL);
	T_CHECK(r == -EINVAL && ctl_msg[0], "the same socket twice: %d: %s", r, ctl_msg);
	T_CHECK(sessions_are(0, 2000), "sessions that were refused");
	for (i = 0; i < IOVM_MAX_SESSIONS && !ktap_failed(); i++) {
		int p[2];

		T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, p), "socketpair");
		r = ctl_session_add(TGT, &p[1], 1, IOVM_SESSION_F_RDONLY, "", NULL);
		T_CHECK(!r, "session %d: %d: %s", i, r, ctl_msg);
		close(p[1]);
		if (i)
			close(p[0]);
		else
			C[0].fd = p[0];
		if (i)
			T_CHECK(sessions_are(1, 2000), "sessions");
	}
	close(sv[0]);
	close(sv[1]);
}

/* Our own client, in the same kernel, and a guest at its other end. */
static void own_client(void)
{
	int sv[4][2], fds[4], far[4], r, i;
	struct iovm_session_info s;

	plain_device();
	for (i = 0; i < 4; i++) {
		T_REQUIRE(!nbdsrv_tcp_pair(sv[i]), "sockets");
		fds[i] = sv[i][0];
		far[i] = sv[i][1];
	}
	r = ctl_session_add(TGT, far, 4, 0, "kt-0", NULL);
	T_REQUIRE(!r, "session: %s", ctl_msg);
	ctl_must_create("kt-0", SECTORS, 2);
	r = ctl_path_add_nbd("kt-0", "n", 0, 0, 0, 0);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	r = ctl_path_connect("kt-0", "n", fds, 4, BYTES, NBDSRV_FLAGS, 0);
	T_REQUIRE(!r, "connect: %s", ctl_msg);
	for (i = 0; i < 4; i++) {
		close(fds[i]);
		close(far[i]);
	}
	strcpy(F[0].name, "kt-0");
	fix_open(0, ALL_FEATURES, 2, 128);
	loading = !vload_start(&L, &F[0].d, &(struct vload_cfg){ .depth = 32, .max_blocks = 32, .flush_pct = 3, .zero_pct = 3,
								 .max_ios = 3000 });
	T_REQUIRE(loading, "load");
	vload_wait(&L);
	T_CHECK(!held(0, &s) && s.nr_sockets == 4 && s.commands >= 3000 && !s.errors, "%llu commands",
		(unsigned long long)s.commands);
	vload_stop(&L);
	loading = false;
	T_CHECK(vload_check_dev(&L) == 0 && vload_check_node(&L, fix_store) == 0, "wrong data at rest");
	vload_finish(&L, "load");
	fix_close(0);
	r = ctl_dev_destroy("kt-0", 0);
	T_CHECK(!r, "destroy: %s", ctl_msg);
	T_CHECK(sessions_are(0, 5000), "the session does not end with its client");
}

/* A disk that hangs is noticed, and the commands that may go elsewhere when it ends do. */
static void hangs(void)
{
	struct iovm_path_add a = { .io_timeout_ms = 300, .flags = IOVM_PATH_F_ASSUME_SAME };
	char na[64], nb[64];
	u8 buf[4096];
	u64 cookie;
	int r;

	fix_store_make(SIZE_MB, 512);
	fix_two_paths(na, nb);
	create(512, 0);
	r = ctl_path_add_arg(TGT, "a", na, &a);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	add("b", nb);
	attach(1, 0, true);
	T_REQUIRE(!dm_suspend("iovmt-a", true), "dm");
	request(&C[0], READ, 0, 0, 4096);
	T_CHECK(ctl_wait_path_state(TGT, "a", IOVM_PATH_FAILED, 5000), "a disk that hangs is not noticed");
	fill(buf, 8192, 4096, 9);
	/* the answer of the READ is still due: one() would take it for the WRITE's */
	request(&C[0], WRITE, 0, 8192, 4096);
	put_all(C[0].fd, buf, 4096);
	T_CHECK(reply(&C[0], &cookie, 5000) == 0 && cookie == 2, "a new WRITE does not go elsewhere");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	T_CHECK(reply(&C[0], &cookie, 5000) == 0 && cookie == 1 && get_all(C[0].fd, buf, 4096, 1000), "the READ does not end");
}

/* --- epochs --- */

static int take(u64 n)
{
	return ctl_dev_ctl(TGT, IOVM_DEV_EPOCH_TAKE, NULL, n);
}

/* In another process, for what waits. */
static void take_elsewhere(u64 n)
{
	taker = fork();
	T_REQUIRE(taker >= 0, "fork");
	if (!taker)
		_exit(-take(n));
}

/* How that ended: 0 or an errno; -1 it goes on, -2 it was killed. */
static int taken(int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	int status;

	do {
		if (waitpid(taker, &status, WNOHANG) == taker) {
			taker = 0;
			return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
		}
		sleep_ms(5);
	} while (now_ns() < end);
	return -1;
}

/* A session of epoch n is refused so, or (0) begins and ends again. */
static void admits(u64 n, int error)
{
	u64 old = epoch;
	int r;

	epoch = n;
	r = connect_n(1, 0, true);
	epoch = old;
	T_CHECK(r == error && !!ctl_msg[0] == !!r, "a session of epoch %llu: %d, not %d: %s", (unsigned long long)n, r, error,
		ctl_msg);
	hang_up(&C[0]);
	if (!r)
		T_CHECK(sessions_are(0, 5000), "it does not end");
}

static void epoch_rules(void)
{
	struct iovm_session_info s;
	struct iovm_dev_info d;
	u8 byte;
	int r;

	fix_store_make(SIZE_MB, 512);
	create(512, 0);
	add("a", fix_store);
	admits(1, -EINVAL);
	r = take(1);
	T_CHECK(r == -EOPNOTSUPP && ctl_msg[0], "take of a device that needs none: %d", r);
	T_REQUIRE(!ctl_dev_destroy(TGT, 0), "destroy: %s", ctl_msg);
	ctl_events_close(&ev);
	create(512, IOVM_DEV_F_EPOCH);
	add("a", fix_store);
	T_CHECK(ctl_wait_dev_state(TGT, IOVM_DEV_ROUTED, 0), "a target has no route");
	admits(0, -ESTALE);
	admits(1, -ERANGE);
	r = take(0);
	T_CHECK(r == -EINVAL, "epoch 0: %d", r);
	T_CHECK(!take(5), "take: %s", ctl_msg);
	r = ctl_events_wait(&ev, 0, IOVM_EV_EPOCH_TAKEN, TGT, NULL, 1000);
	T_CHECK(r >= 0 && ev.seen[r].value == 5, "no event");
	admits(0, -ESTALE);
	admits(4, -ESTALE);
	T_CHECK(strstr(ctl_msg, "4") && strstr(ctl_msg, "5"), "it does not name both: %s", ctl_msg);
	admits(6, -ERANGE);
	admits(5, 0);
	epoch = 5;
	attach(1, 0, true);
	T_CHECK(!ctl_session_get(TGT, 0, &s) && s.epoch == 5, "epoch of the session: %llu", (unsigned long long)s.epoch);
	T_CHECK(!take(5) && sessions_are(1, 0), "the one that it holds: %s", ctl_msg);
	r = take(4);
	T_CHECK(r == -ESTALE && sessions_are(1, 0), "an older one: %d", r);
	r = ctl_dev_ctl(TGT, IOVM_DEV_EPOCH_GIVE, NULL, 5);
	T_CHECK(r == -EOPNOTSUPP && ctl_msg[0], "give: %d", r);
	T_CHECK(!take(6), "raise: %s", ctl_msg);
	T_CHECK(sessions_are(0, 0), "a session of an older epoch is there when it is raised");
	T_CHECK(!get_all(C[0].fd, &byte, 1, 1000), "its connection is open");
	hang_up(&C[0]);
	T_CHECK(!ctl_dev_get(TGT, &d) && d.epoch == 6 && d.epoch_held && !d.epoch_waits, "epoch %llu, held %u",
		(unsigned long long)d.epoch, d.epoch_held);
	admits(5, -ESTALE);
	admits(6, 0);
}

/* Raised while a write of an older session is under way, which lands late. */
static void epoch_drains(void)
{
	struct iovm_dev_info d;
	pid_t other;
	char a[64], b[64];
	u8 buf[4096];
	int r;

	fix_store_make(SIZE_MB, 512);
	fix_two_paths(a, b);
	create(512, IOVM_DEV_F_EPOCH);
	add("a", a);
	T_CHECK(!take(1), "take");
	epoch = 1;
	attach(1, 0, true);
	T_REQUIRE(!dm_suspend("iovmt-a", true), "dm");
	fill(buf, 0, 4096, 3);
	request(&C[0], WRITE, 0, 0, 4096);
	put_all(C[0].fd, buf, 4096);
	sleep_ms(100);
	take_elsewhere(2);
	T_CHECK(taken(400) == -1, "raised although a write of an older session is under way");
	T_CHECK(!ctl_dev_get(TGT, &d) && d.epoch == 2 && !d.epoch_held && d.epoch_waits, "epoch %llu, held %u, waits %u",
		(unsigned long long)d.epoch, d.epoch_held, d.epoch_waits);
	admits(1, -ESTALE);
	admits(2, -EBUSY);
	kill(taker, SIGKILL);
	r = taken(5000);
	T_CHECK(r == -2, "not to be killed: %d", r);
	admits(2, -EBUSY);
	/* raised further by another one meanwhile: the first has lost */
	take_elsewhere(2);
	T_CHECK(taken(300) == -1, "raised");
	other = taker;
	take_elsewhere(3);
	T_CHECK(taken(300) == -1, "raised");
	T_CHECK(waitpid(other, &r, 0) == other && WIFEXITED(r) && WEXITSTATUS(r) == ESTALE, "the older raise: %x", r);
	/* and by two to the same */
	other = taker;
	take_elsewhere(3);
	T_CHECK(taken(300) == -1, "raised");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	r = taken(5000);
	T_CHECK(r == 0, "not raised: %d", r);
	T_CHECK(waitpid(other, &r, 0) == other && WIFEXITED(r) && !WEXITSTATUS(r), "the other raise: %x", r);
	T_CHECK(!stor_pread(fix_store, buf, 4096, 0) && is(buf, 0, 4096, 3), "the write has not landed before");
	hang_up(&C[0]);
	admits(3, 0);
}

/* Commands that have come and were not issued: without a route, and the later pieces of a long one. */
static void epoch_drops(void)
{
	static u8 data[4 * MiB], at[MiB];
	char a[64], b[64];
	u8 buf[4096];
	int r;

	fix_store_make(SIZE_MB, 512);
	fix_two_paths(a, b);
	create(512, IOVM_DEV_F_EPOCH);
	add("a", a);
	T_CHECK(!take(1), "take");
	epoch = 1;
	attach(1, 0, true);
	T_CHECK(!ctl_path_ctl(TGT, "a", IOVM_PATH_CTL_FAIL), "fail");
	fill(buf, 0, 4096, 5);
	request(&C[0], WRITE, 0, 0, 4096);
	put_all(C[0].fd, buf, 4096);
	sleep_ms(100);
	T_CHECK(!take(2), "what waits for a route keeps it: %s", ctl_msg);
	hang_up(&C[0]);
	T_CHECK(!ctl_path_ctl(TGT, "a", IOVM_PATH_CTL_RETRY), "retry: %s", ctl_msg);
	sleep_ms(100);
	T_CHECK(!stor_pread(fix_store, at, 4096, 0) && is(at, 0, 4096, GEN_ZERO), "a dropped command was executed");

	/* the first piece hangs, the others are in the socket */
	epoch = 2;
	attach(1, 0, true);
	T_REQUIRE(!dm_suspend("iovmt-a", true), "dm");
	fill(data, 0, sizeof(data), 6);
	request(&C[0], WRITE, 0, 0, sizeof(data));
	for (r = 0; r < (int)sizeof(data); ) {
		struct pollfd pf = { .fd = C[0].fd, .events = POLLOUT };
		ssize_t n;

		if (poll(&pf, 1, 300) != 1)
			break;
		n = send(C[0].fd, data + r, sizeof(data) - r, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n <= 0)
			break;
		r += n;
	}
	T_CHECK(r > 2 * (int)MiB, "only %d bytes are in the socket: nothing to be seen", r);
	take_elsewhere(3);
	T_CHECK(taken(300) == -1, "raised although a piece is under way");
	T_REQUIRE(!dm_suspend("iovmt-a", false), "dm");
	r = taken(5000);
	T_CHECK(r == 0, "raise: %d", r);
	T_CHECK(!stor_pread(fix_store, at, MiB, 0) && is(at, 0, MiB, 6), "the piece that was issued has not landed");
	T_CHECK(!stor_pread(fix_store, at, MiB, MiB) && is(at, MiB, MiB, GEN_ZERO), "the next piece was executed");
	hang_up(&C[0]);
}

static const struct ktap_case cases[] = {
	{ "commands", commands },
	{ "commands_unix", commands_unix },
	{ "refused", refused },
	{ "garbage", garbage },
	{ "no_reader", no_reader },
	{ "slow_reader", slow_reader },
	{ "path_errors", path_errors },
	{ "bad_blocks", bad_blocks },
	{ "parked", parked },
	{ "drained", drained },
	{ "hangs", hangs },
	{ "by_hand", by_hand },
	{ "bad_sessions", bad_sessions },
	{ "own_client", own_client },
	{ "epoch_rules", epoch_rules },
	{ "epoch_drains", epoch_drains },
	{ "epoch_drops", epoch_drops },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
