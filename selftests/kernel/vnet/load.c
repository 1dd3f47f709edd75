// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * t_vnet: queues that are stopped, given another tap and started while both are busy; taps that go down and away;
 * processes that are killed; taps with little room. What must hold does not depend on the node: no frame twice, none out of
 * its order, used index and base agree.
 */
#include "cases.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SWITCHES	200
#define OUT		32		/* frames on their way, each direction */
#define MAX		(1u << 20)
#define LEN		100

struct flow {
	u32 last[2];			/* by tap: the last number seen, and one more */
	u32 seen, bad_order, twice, strange;
	u8 *had;			/* by number */
};

static struct flow tx, rx;
static u32 tx_made, tx_done, rx_made;
static int tap_now;			/* which one has the queues */
static bool stop_guest, stop_world;

static void flow_init(struct flow *f)
{
	u8 *had = f->had ? f->had : malloc(MAX);

	memset(f, 0, sizeof(*f));
	memset(had, 0, MAX);
	f->had = had;
}

/* A frame with its number and the tap it went to or came from. */
static void number(u8 *f, u32 n, u32 tap, bool from_guest)
{
	frame_make(f, LEN, n, from_guest);
	memcpy(f + 14, &n, 4);
	memcpy(f + 18, &tap, 4);
}

static void account(struct flow *f, const u8 *p, u32 len, int tap)
{
	u32 n;

	if (len != LEN || p[12] != 0x88 || p[13] != 0xb5) {
		f->strange++;
		return;
	}
	memcpy(&n, p + 14, 4);
	if (tap < 0)
		memcpy(&tap, p + 18, 4);
	if (n >= MAX || (u32)tap > 1) {
		f->strange++;
		return;
	}
	f->seen++;
	f->twice += f->had[n];
	f->had[n] = 1;
	if (n + 1 <= f->last[tap])
		f->bad_order++;
	f->last[tap] = n + 1;
}

/* The guest: sends all it can, takes what comes. */
static void *guest(void *unused)
{
	static struct vbuf *room[OUT];
	unsigned int i, nroom = 0;
	struct vbuf *b;
	u8 f[VLINK_FRAME_MAX];
	bool did;
	u32 len;

	(void)unused;
	for (i = 0; i < OUT; i++)
		room[nroom++] = vbuf_new(&V, 12 + LEN, NULL, 0, false);
	while (!__atomic_load_n(&stop_guest, __ATOMIC_RELAXED) || vq_outstanding(V.tx)) {
		did = false;
		if (!__atomic_load_n(&stop_guest, __ATOMIC_RELAXED) && tx_made < MAX)
			while (nroom) {
				b = room[--nroom];
				number(f, tx_made, 0, true);
				memset(gmem_ptr(&V.mem, b->seg[0].gpa), 0, 12);
				vbuf_put(&V, b, 12, f, LEN);
				__atomic_store_n(&tx_made, tx_made + 1, __ATOMIC_RELAXED);
				vnet_add(V.tx, b, 0);
				did = true;
			}
		vq_submit(V.tx);
		while ((b = vq_pop(V.tx, NULL))) {
			room[nroom++] = b;
			__atomic_store_n(&tx_done, tx_done + 1, __ATOMIC_RELAXED);
			did = true;
		}
		while ((b = vq_pop(V.rx, &len))) {
			if (len <= 12 || len > b->len) {
				rx.strange++;
			} else {
				vbuf_get(&V, b, 12, f, len - 12);
				account(&rx, f, len - 12, -1);
			}
			vnet_add(V.rx, b, 0);
			did = true;
		}
		vq_submit(V.rx);
		if (!did)
			sched_yield();
	}
	return NULL;
}

/* The other side of both taps. */
static void *world(void *unused)
{
	static struct vframe got;
	struct vlink *l[2] = { &L, &M };
	u32 made0 = 0, seen0 = 0, seen;
	u8 f[LEN];
	int i, k, n, last = -1;

	(void)unused;
	while (!__atomic_load_n(&stop_world, __ATOMIC_RELAXED)) {
		n = 0;
		/* not all there is: the guest may send faster than this */
		for (i = 0; i < 2; i++)
			for (k = 0; k < OUT && vlink_recv(l[i], &got, 0); k++) {
				account(&tx, got.data, got.len, i);
				n++;
			}
		i = __atomic_load_n(&tap_now, __ATOMIC_RELAXED);
		seen = __atomic_load_n(&rx.seen, __ATOMIC_RELAXED);
		if (i != last) {
			/* what the other one still has may never come */
			made0 = rx_made;
			seen0 = seen;
			last = i;
		}
		for (k = 0; k < 4 && rx_made < MAX && (int)(rx_made - made0 - (seen - seen0)) < 400; k++) {
			number(f, rx_made, i, false);
			if (vlink_send(l[i], NULL, f, LEN) > 0)
				__atomic_store_n(&rx_made, rx_made + 1, __ATOMIC_RELAXED);
		}
		if (!n)
			sched_yield();
	}
	for (i = 0; i < 2; i++)
		while (vlink_recv(l[i], &got, 100))
			account(&tx, got.data, got.len, i);
	return NULL;
}

static void load_start(pthread_t t[2])
{
	flow_init(&tx);
	flow_init(&rx);
	tx_made = tx_done = rx_made = 0;
	tap_now = 0;
	stop_guest = stop_world = false;
	T_REQUIRE(!pthread_create(&t[0], NULL, guest, NULL) && !pthread_create(&t[1], NULL, world, NULL), "threads");
}

static void progress(u32 *what, u32 from)
{
	u64 end = now_ns() + vnet_wait_ms() * 1000000ull;

	while (__atomic_load_n(what, __ATOMIC_RELAXED) == from && now_ns() < end)
		usleep(200);
}

static void flow_check(const char *node, const char *name, const struct flow *f)
{
	T_CHECK(!f->twice && !f->bad_order && !f->strange, "%s: %s: of %u frames %u came twice, %u out of order, %u are none", node,
		name, f->seen, f->twice, f->bad_order, f->strange);
	rec(name, "twice %u, out of order %u, strange %u", f->twice, f->bad_order, f->strange);
}

static void check_base(const char *node, struct vq *q)
{
	u16 used = __atomic_load_n(&q->ring.used->idx, __ATOMIC_ACQUIRE);

	T_CHECK(q->base == used, "%s: queue %u: base %u, used index %u", node, q->idx, q->base, used);
}

void s_switch(const char *node)
{
	unsigned int i, q;
	pthread_t t[2];
	u32 a, b;
	int r;

	vlink_tap(&L, "tap0", 0, 12);
	vlink_tap(&M, "tap1", 0, 12);
	vnet_open(&V, node, V1 | EVENT, 256);
	vnet_start(&V, L.fd);
	rx_fill(OUT, 12 + LEN + 28, NULL, 0, 0);
	load_start(t);
	for (i = 0; i < SWITCHES; i++) {
		int next = i & 1 ? L.fd : M.fd;

		a = __atomic_load_n(&tx_done, __ATOMIC_RELAXED);
		b = __atomic_load_n(&rx.seen, __ATOMIC_RELAXED);
		progress(&tx_done, a);
		if (i % 5 == 4) {
			progress(&rx.seen, b);
			T_CHECK(__atomic_load_n(&rx.seen, __ATOMIC_RELAXED) != b, "%s: nothing is received, switch %u", node, i);
		}
		T_CHECK(__atomic_load_n(&tx_done, __ATOMIC_RELAXED) != a, "%s: nothing is sent, switch %u", node, i);
		if (i % 4 < 3) {
			r = vdev_stop(&V.d);
			T_CHECK(!r, "%s: stop: %s", node, strerror(-r));
			for (q = 0; q < 2; q++)
				check_base(node, &V.d.vqs[q]);
		}
		V.d.backend[0] = V.d.backend[1] = next;
		__atomic_store_n(&tap_now, !(i & 1), __ATOMIC_RELAXED);
		if (i % 4 < 3)
			r = vdev_start(&V.d);
		else		/* one in the other's place */
			r = V.d.tp->enable(&V.d, VNET_RX, true) ?: V.d.tp->enable(&V.d, VNET_TX, true);
		T_CHECK(!r, "%s: start: %s", node, strerror(-r));
		if (ktap_failed())
			break;
	}
	__atomic_store_n(&stop_guest, true, __ATOMIC_RELAXED);
	pthread_join(t[0], NULL);
	__atomic_store_n(&stop_world, true, __ATOMIC_RELAXED);
	pthread_join(t[1], NULL);
	flow_check(node, "sent", &tx);
	flow_check(node, "received", &rx);
	T_CHECK(tx.seen == tx_done && tx_done == tx_made, "%s: of %u frames %u were given back and %u came", node, tx_made, tx_done,
		tx.seen);
	rec("lost", "%u", tx_made - tx.seen);
	rec("bad used", "%llu", (unsigned long long)(V.tx->bad_used + V.rx->bad_used));
	T_CHECK(!V.tx->bad_used && !V.rx->bad_used, "%s: heads came back that were not given", node);
	ktap_note("%s: %u frames sent, %u received, %u of these dropped by taps", node, tx.seen, rx.seen, rx_made - rx.seen);
}

/* Queues that look for work for a while before they sleep */
void s_busy_loop(const char *node)
{
	struct vhost_vring_state s = { .num = 200 };
	unsigned int i;
	char what[32];
	u8 f[1000];

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1 | MRG | EVENT, 64);
	for (s.index = 0; s.index < 2; s.index++)
		T_REQUIRE(!ioctl(V.d.fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &s), "busy loop: %s", strerror(errno));
	vnet_start(&V, L.fd);
	rx_fill(20, 700, NULL, 0, 0);
	for (i = 0; i < 10; i++) {
		snprintf(what, sizeof(what), "frame %u", i);
		rec(what, "%s", one_frame(&V, &L) ? "sent" : "lost");
		frame_make(f, sizeof(f), i, false);
		rx_frame(what, NULL, f, sizeof(f), 0);
	}
	vnet_stop(&V);
	rec("base", "%u, %u", V.rx->base, V.tx->base);
}

/* Frames one by one while the tap is down, and without a device at all. */
static void try_frames(const char *what)
{
	static u8 f[100];
	struct vbuf *b;
	unsigned int i;

	rec_at("%s", what);
	for (i = 0; i < 3; i++) {
		frame_make(f, sizeof(f), i, true);
		b = vbuf_new(&V, 112, NULL, 0, false);
		memset(gmem_ptr(&V.mem, b->seg[0].gpa), 0, 12);
		vbuf_put(&V, b, 12, f, sizeof(f));
		vnet_add(V.tx, b, 0);
		vq_submit(V.tx);
		rec("used", "%s", vnet_used(&V, V.tx, NULL, 100 * ktap_slowness()) == b ? "this" : "none");
		rec("err", "%d", vnet_err(&V, VNET_TX));
	}
	rec_at(NULL);
}

static void restart(int fd)
{
	vnet_stop(&V);
	rec("base", "%u, %u", V.rx->base - V.rx->published, V.tx->base - V.tx->published);
	/* what was lost on the way, nobody gives back */
	vq_reset(V.tx);
	vq_reset(V.rx);
	vnet_rewind(&V);
	vnet_start(&V, fd);
	rx_fill(8, 200, NULL, 0, 0);
}

void s_tap_goes(const char *node)
{
	u8 f[100];

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 64);
	vnet_start(&V, L.fd);
	rx_fill(8, 200, NULL, 0, 0);
	try_frames("up");
	vlink_up("tap0", false);
	try_frames("down");
	vlink_up("tap0", true);
	try_frames("up again");
	restart(L.fd);
	try_frames("restarted");
	frame_make(f, sizeof(f), 1, false);
	rx_frame("up again", NULL, f, sizeof(f), 0);
	T_REQUIRE(!system("ip link del tap0"), "ip link del");
	try_frames("deleted");
	vlink_tap(&M, "tap1", 0, 12);
	restart(M.fd);
	close(L.fd);
	close(L.peer);
	L = M;
	M.fd = M.peer = -1;
	try_frames("another");
	rx_frame("another", NULL, f, sizeof(f), 0);
	/* the file is closed while the queues have it */
	close(L.fd);
	L.fd = -1;
	rec("tap1", "%s", if_nametoindex("tap1") ? "is there" : "is gone");
	rx_frame("closed", NULL, f, sizeof(f), 0);
	vnet_stop(&V);
	rec("tap1", "%s", if_nametoindex("tap1") ? "is there" : "is gone");
}

/* A process that dies in the middle of it. */
void s_killed(const char *node)
{
	static struct vframe got;
	unsigned int round, n;
	pthread_t t[2];
	int status;
	pid_t pid;
	u8 f[LEN];
	u64 end;

	for (round = 0; round < 3; round++) {
		vlink_tap(&L, "tap0", 0, 12);
		vlink_tap(&M, "tap1", 0, 12);
		fflush(stdout);
		pid = fork();
		T_REQUIRE(pid >= 0, "fork");
		if (!pid) {
			close(L.peer);
			close(M.peer);
			L.peer = M.peer = -1;
			/* nothing of the parent's is to be gone on with when something fails */
			if (setjmp(ktap_env))
				_exit(1);
			vnet_open(&V, node, V1, 256);
			vnet_start(&V, L.fd);
			rx_fill(OUT, 12 + LEN + 28, NULL, 0, 0);
			flow_init(&rx);
			stop_guest = false;
			guest(NULL);
			_exit(0);
		}
		for (n = 0, end = now_ns() + vnet_wait_ms() * 1000000ull; n < 200 && now_ns() < end;) {
			number(f, n, 0, false);
			vlink_send(&L, NULL, f, LEN);
			while (n < 200 && vlink_recv(&L, &got, 1))
				n++;
		}
		T_CHECK(n >= 200, "%s: only %u frames came", node, n);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
		T_CHECK(WIFSIGNALED(status), "%s: status %#x", node, status);
		while (vlink_recv(&L, &got, 0))
			;
		/* the tap is free for somebody else */
		vnet_open(&V, node, V1, 256);
		vnet_start(&V, L.fd);
		rx_fill(OUT, 12 + LEN + 28, NULL, 0, 0);
		load_start(t);
		progress(&tx_done, 0);
		progress(&rx.seen, 0);
		__atomic_store_n(&stop_guest, true, __ATOMIC_RELAXED);
		pthread_join(t[0], NULL);
		__atomic_store_n(&stop_world, true, __ATOMIC_RELAXED);
		pthread_join(t[1], NULL);
		T_CHECK(tx_done && rx.seen, "%s: the next one: %u sent, %u received", node, tx_done, rx.seen);
		flow_check(node, "sent", &tx);
		vnet_close(&V);
		vlink_close(&L);
		vlink_close(&M);
	}
}

/* Little room in the socket: sending waits, and goes on when room returns. Nothing leaves it before we say so. */
void s_sndbuf(const char *node)
{
	static struct vframe got;
	bool had[100] = {};
	unsigned int i, once = 0, used;
	int small = 12000;
	u32 tag;
	struct vbuf *b;
	u8 f[1000];

	vlink_macvtap(&L, 12);
	T_REQUIRE(!ioctl(L.fd, TUNSETSNDBUF, &small), "TUNSETSNDBUF: %s", strerror(errno));
	vlink_plug(true);
	vnet_open(&V, node, V1, 128);
	vnet_start(&V, L.fd);
	for (i = 0; i < 100; i++) {
		frame_make(f, sizeof(f), i, true);
		b = vbuf_new(&V, 12 + sizeof(f), NULL, 0, false);
		memset(gmem_ptr(&V.mem, b->seg[0].gpa), 0, 12);
		vbuf_put(&V, b, 12, f, sizeof(f));
		T_REQUIRE(vnet_add(V.tx, b, 0) >= 0, "no room");
	}
	vq_submit(V.tx);
	for (used = 0; vnet_used(&V, V.tx, NULL, used ? 50 : vnet_wait_ms()); used++)
		;
	rec("used at first", "%u", used);
	T_CHECK(used && used < 100, "%s: %u of 100 frames were sent with %d bytes of room", node, used, small);
	T_CHECK(!vlink_recv(&L, &got, 0), "%s: a frame came through the plug", node);
	vlink_unplug();
	for (i = 0; i < 100; i++) {
		if (!vlink_recv(&L, &got, vnet_wait_ms()))
			break;
		memcpy(&tag, got.data + 14, sizeof(tag));
		if (tag >= 100 || had[tag])
			continue;
		/* in order or not: CPUs deliver what each of them took out of the plug */
		had[tag] = true;
		frame_make(f, sizeof(f), tag, true);
		once += got.len == sizeof(f) && !memcmp(got.data, f, sizeof(f));
	}
	rec("came", "%u, once and whole %u", i, once);
	T_CHECK(once == 100, "%s: %u of 100 came, %u once and whole", node, i, once);
	while (used < 100 && vnet_used(&V, V.tx, NULL, vnet_wait_ms()))
		used++;
	rec("used", "%u", used);
	vlink_plug(false);
}
