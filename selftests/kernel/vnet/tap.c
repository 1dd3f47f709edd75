// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * t_vnet: what a tap counts, and taps that change while the queues run: another header, another name, another network
 * namespace, no device or another one.
 */
#include "cases.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEN	100
#define MANY	300		/* more than may come by a header that is not the tap's any more */

static u8 frame[VLINK_FRAME_MAX];

/* False: there is no such device. */
static bool counters(const char *ifname, struct rtnl_link_stats *s)
{
	struct ifaddrs *all, *a;
	bool found = false;

	T_REQUIRE(!getifaddrs(&all), "getifaddrs: %s", strerror(errno));
	for (a = all; a; a = a->ifa_next)
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_PACKET && !strcmp(a->ifa_name, ifname)) {
			memcpy(s, a->ifa_data, sizeof(*s));
			found = true;
		}
	freeifaddrs(all);
	return found;
}

/* What the tap has counted of the frames to and from the guest */
static void rec_counters(const char *ifname)
{
	struct rtnl_link_stats s;

	if (!counters(ifname, &s))
		rec("counted", "no device");
	else
		rec("counted", "to the guest %u of %u bytes, %u dropped; from it %u of %u bytes, %u dropped", s.tx_packets, s.tx_bytes,
		    s.tx_dropped, s.rx_packets, s.rx_bytes, s.rx_dropped);
}

static u32 to_guest(const char *ifname)
{
	struct rtnl_link_stats s;

	return counters(ifname, &s) ? s.tx_packets : 0;
}

/* Wait until the tap has counted so many to the guest. */
static bool counted(const char *ifname, u32 n)
{
	u64 end = now_ns() + vnet_wait_ms() * 1000000ull;

	while (to_guest(ifname) < n && now_ns() < end)
		usleep(500);
	return to_guest(ifname) >= n;
}

static void send_many(u32 from, u32 n)
{
	for (; n; n--, from++) {
		frame_make(frame, LEN, from, false);
		T_CHECK(vlink_send(&L, NULL, frame, LEN) > 0, "send: %s", strerror(errno));
	}
}

/* Take what has come, which is frames @from and later ones in order; post the buffers again. Return: how many. */
static u32 take_many(u32 from, int timeout_ms)
{
	u8 got[LEN], want[LEN], h[12], none[12] = { [10] = 1 };
	struct vbuf *b;
	u32 n = 0, len;

	while ((b = vnet_used(&V, V.rx, &len, timeout_ms))) {
		T_CHECK(len == 12 + LEN, "%u bytes", len);
		vbuf_get(&V, b, 0, h, 12);
		/* vhost-net leaves that field alone without MRG_RXBUF */
		T_CHECK(!memcmp(h, none, V.d.features & MRG ? 12 : 10), "header %s", hex(h, 12));
		vbuf_get(&V, b, 12, got, LEN);
		frame_make(want, LEN, from + n, false);
		T_CHECK(!memcmp(got, want, LEN), "frame %u is another", from + n);
		n++;
		rx_post(b, 0);
		vq_kick(V.rx);
	}
	return n;
}

#define NC	VIRTIO_NET_HDR_F_NEEDS_CSUM
#define T4	VIRTIO_NET_HDR_GSO_TCPV4

/* Frames of all kinds: what comes, and what is counted for it */
void s_counters(const char *node)
{
	static const struct {
		const char *name;
		u32 len;
		struct virtio_net_hdr h;
	} t[] = {
		{ "small", 60, { 0, 0, 0, 0, 0, 0 } },
		{ "large", 1514, { 0, 0, 0, 0, 0, 0 } },
		{ "in pieces", 9000, { 0, 0, 0, 0, 0, 0 } },
		{ "checksum", 500, { NC, 0, 0, 0, 34, 16 } },
		{ "data valid", 500, { 2, 0, 0, 0, 0, 0 } },
		{ "GSO in one piece", 1054, { NC, T4, 54, 400, 34, 16 } },
		{ "GSO in pieces", 9054, { NC, T4, 54, 1000, 34, 16 } },
		{ "ECN in one piece", 1054, { NC, T4 | VIRTIO_NET_HDR_GSO_ECN, 54, 400, 34, 16 } },
	};
	static const u64 features[] = { V1 | MRG | EVENT, V1, MRG, 0 };
	unsigned int i, k, n;
	char what[64];

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, features[k] & (V1 | MRG) ? 12 : 10);
		T_REQUIRE(!ioctl(L.fd, TUNSETOFFLOAD, (unsigned long)(TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN)),
			  "TUNSETOFFLOAD: %s", strerror(errno));
		vnet_open(&V, node, features[k], 512);
		vnet_start(&V, L.fd);
		rx_fill(60, features[k] & MRG ? 1600 : 9100, NULL, 0, 0);
		for (i = 0; i < ARRAY_SIZE(t); i++) {
			/* the socket has copied one, the next may go past it */
			for (n = 0; n < 2; n++) {
				snprintf(what, sizeof(what), "features %#llx, %s", (unsigned long long)features[k], t[i].name);
				ip_make(frame, t[i].len, false, false);
				rx_frame(what, &t[i].h, frame, t[i].len, 0);
				rec_at("%s", what);
				rec_counters("tap0");
				rec_at(NULL);
			}
		}
		snprintf(what, sizeof(what), "features %#llx, many", (unsigned long long)features[k]);
		rec_at("%s", what);
		for (i = 0; i < 20; i++) {
			send_many(i * 40, 40);
			for (n = 0; n < 40; n++) {
				struct vbuf *b = vnet_used(&V, V.rx, NULL, vnet_wait_ms());

				if (!T_CHECK(b, "%s: lost", what))
					break;
				rx_post(b, 0);
				vq_kick(V.rx);
			}
		}
		rec_counters("tap0");
		rec_at(NULL);
		vnet_stop(&V);
		vnet_rewind(&V);
		vq_reset(V.rx);
		vq_reset(V.tx);
		vnet_start(&V, L.fd);
		for (i = 0; i < 3; i++) {
			snprintf(what, sizeof(what), "features %#llx, %u bytes sent", (unsigned long long)features[k], t[i].len);
			frame_make(frame, t[i].len, i, true);
			tx_frame(what, NULL, frame, t[i].len, NULL, 0, 0);
			tx_seen();
			rec_at("%s", what);
			rec_counters("tap0");
			rec_at(NULL);
		}
		vnet_close(&V);
		vlink_close(&L);
	}
}

static void set_header(int size)
{
	T_REQUIRE(!ioctl(L.fd, TUNSETVNETHDRSZ, &size), "TUNSETVNETHDRSZ: %s", strerror(errno));
}

/* The tap's header is of another size than the guest's for a while. Frames of before may still come, and they are right. */
void s_header_size(const char *node)
{
	static const int sizes[] = { 10, 20, 64 };
	unsigned int i;
	u32 from;

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1 | MRG, 512);
	vnet_start(&V, L.fd);
	rx_fill(400, 200, NULL, 0, 0);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		rec_at("%d", sizes[i]);
		from = to_guest("tap0");
		send_many(0, 20);
		rec("before", "counted %d", counted("tap0", from + 20));
		vnet_settle(&V);
		rec("before", "%u came", take_many(0, 200));
		set_header(sizes[i]);
		from = to_guest("tap0");
		send_many(1000, MANY);
		T_CHECK(counted("tap0", from + MANY), "%s: of %u only %u were counted", node, MANY, to_guest("tap0") - from);
		T_CHECK(take_many(1000, 50) < 256, "%s: with a header of %d the tap's is not looked at", node, sizes[i]);
		/* whoever goes by what was says so no more */
		from = to_guest("tap0");
		send_many(2000, 40);
		T_CHECK(counted("tap0", from + 40), "%s: of 40 only %u were counted", node, to_guest("tap0") - from);
		rec("meanwhile", "%u came", take_many(2000, 50));
		set_header(12);
		send_many(3000, 40);
		rec("again", "%u came", take_many(3000, 200));
		rec_counters("tap0");
		rec_at(NULL);
	}
	vnet_close(&V);
	vlink_close(&L);
}

/* A device that goes down for a while leaves its packet socket an error. */
static void forget_error(void)
{
	socklen_t len = sizeof(int);
	int err;

	getsockopt(L.peer, SOL_SOCKET, SO_ERROR, &err, &len);
}

static void peer_again(const char *ifname)
{
	int fd = L.fd;

	close(L.peer);
	L.peer = -1;
	vlink_packet_on(&L, ifname);
	L.fd = fd;
}

static void three(const char *what)
{
	unsigned int i;
	char text[48];

	for (i = 0; i < 3; i++) {
		snprintf(text, sizeof(text), "%s, %u", what, i);
		frame_make(frame, 400, i, false);
		rx_frame(text, NULL, frame, 400, 0);
	}
	rec_at("%s", what);
	rec("sent", "%s", one_frame(&V, &L) ? "this" : "nothing");
	rec_counters(L.ifname);
	rec_at(NULL);
}

/* Another name, another network namespace and back, no device, another device on the same file */
void s_tap_moves(const char *node)
{
	char cmd[96], path[32];
	int here, there, i;
	pid_t pid;

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1 | MRG, 64);
	vnet_start(&V, L.fd);
	rx_fill(30, 500, NULL, 0, 0);
	three("at first");

	T_REQUIRE(!system("ip link set tap0 down && ip link set tap0 name tapx && ip link set tapx up"), "rename");
	forget_error();
	snprintf(L.ifname, sizeof(L.ifname), "tapx");
	three("renamed");

	fflush(stdout);
	pid = fork();
	T_REQUIRE(pid >= 0, "fork");
	if (!pid) {
		if (!unshare(CLONE_NEWNET))
			raise(SIGSTOP);
		_exit(0);
	}
	waitpid(pid, &i, WUNTRACED);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	there = open(path, O_RDONLY | O_CLOEXEC);
	snprintf(cmd, sizeof(cmd), "ip link set tapx netns %d", pid);
	i = here < 0 || there < 0 || system(cmd) || setns(there, CLONE_NEWNET) ||
	    system("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1; ip link set tapx up");
	if (T_CHECK(!i, "another namespace: %s", strerror(errno))) {
		peer_again("tapx");
		three("elsewhere");
		T_CHECK(!system("ip link set tapx netns 1"), "back");
	}
	setns(here, CLONE_NEWNET);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(here);
	close(there);
	vnet_close(&V);
	vlink_close(&L);
}

/* The device goes while frames wait for the guest's buffers; then the file gets another one. */
void s_tap_replaced(const char *node)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	unsigned int i;

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 64);
	vnet_start(&V, L.fd);
	rx_fill(4, 500, NULL, 0, 0);
	/* all buffers, and some that wait */
	send_many(0, 10);
	for (i = 0; i < 4; i++)
		T_CHECK(vnet_used(&V, V.rx, NULL, vnet_wait_ms()), "%s: lost", node);
	vnet_settle(&V);
	T_REQUIRE(!system("ip link del tap0"), "ip link del");
	rx_fill(20, 500, NULL, 0, 0);
	vq_kick(V.rx);
	vnet_settle(&V);
	rec("deleted", "%s", vnet_used(&V, V.rx, NULL, 50) ? "some came" : "none came");
	close(L.peer);
	L.peer = -1;

	strcpy(r.ifr_name, "tap9");
	T_REQUIRE(!ioctl(L.fd, TUNSETIFF, &r), "TUNSETIFF again: %s", strerror(errno));
	set_header(12);
	vlink_up("tap9", true);
	vlink_packet_on(&M, "tap9");
	L.peer = M.peer;
	M.peer = -1;
	snprintf(L.ifname, sizeof(L.ifname), "tap9");
	/* vhost-net has given up to wait for it */
	vq_kick(V.rx);
	vnet_settle(&V);
	three("another device");
	vnet_close(&V);
	vlink_close(&L);
}

static bool flood_ends, gone;

static void *flood(void *unused)
{
	static u8 f[LEN];
	u32 n = 0;

	(void)unused;
	while (!__atomic_load_n(&flood_ends, __ATOMIC_RELAXED)) {
		frame_make(f, LEN, n, false);
		if (vlink_send(&L, NULL, f, LEN) > 0)
			n++;
		/* the guest and who deletes the device want to run, too */
		if (n % 16 == 0)
			usleep(500);
	}
	return NULL;
}

static void *deleter(void *unused)
{
	(void)unused;
	T_CHECK(!system("sleep 0.1; ip link del tap0"), "ip link del");
	__atomic_store_n(&gone, true, __ATOMIC_RELAXED);
	return NULL;
}

/* The device goes in the middle of a flood: what comes is frames, one after the other. */
void s_tap_flood(const char *node)
{
	unsigned int round;
	u32 seen = 0;

	for (round = 0; round < 3; round++) {
		u8 got[LEN], want[LEN];
		u32 len, n, last = 0, bad = 0;
		struct vbuf *b;
		pthread_t t[2];

		vlink_tap(&L, "tap0", 0, 12);
		vnet_open(&V, node, V1 | MRG | EVENT, 256);
		vnet_start(&V, L.fd);
		rx_fill(200, 200, NULL, 0, 0);
		flood_ends = gone = false;
		T_REQUIRE(!pthread_create(&t[0], NULL, flood, NULL) && !pthread_create(&t[1], NULL, deleter, NULL), "threads");
		while ((b = vnet_used(&V, V.rx, &len, __atomic_load_n(&gone, __ATOMIC_RELAXED) ? 50 : 500))) {
			vbuf_get(&V, b, 12, got, LEN);
			memcpy(&n, got + 14, 4);
			frame_make(want, LEN, n, false);
			if (len != 12 + LEN || memcmp(got, want, LEN) || n < last)
				bad++;
			last = n + 1;
			seen++;
			rx_post(b, 0);
			if (vq_wants_kick(V.rx))
				vq_kick(V.rx);
		}
		__atomic_store_n(&flood_ends, true, __ATOMIC_RELAXED);
		pthread_join(t[0], NULL);
		pthread_join(t[1], NULL);
		T_CHECK(!bad, "%s: %u are not what was sent", node, bad);
		vnet_close(&V);
		vlink_close(&L);
	}
	T_CHECK(seen > 100, "%s: only %u came", node, seen);
	rec("came", "%s", seen ? "some" : "none");
}
