// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest's network driver as load, with its VMM and the host's end of the tap: the same rings, the same code, against any node
 * that takes vhost-net's ioctls. Prints one JSON object.
 *
 *	netbench --node /dev/vhost-net --dir tx|rx [--size BYTES] [--gso] [--burst N] [--window N] [--num N]
 *	         [--runtime SECONDS | --packets N] [--warmup N]
 *
 * tx: the guest sends --burst frames at a time and keeps --window of them in the ring. The tap is up and has no addresses: the host
 * drops what comes out of it at the first look (nobody takes this EtherType, or the frame is for somebody else).
 * rx: AF_PACKET puts --burst frames into the tap past its queueing discipline, --window of them at most are under way; the guest
 * gives buffers back as Linux does, after at most 64 frames, if there are 32.
 * Both ask for a call when there is room for the next burst again.
 *
 * --size is that of a frame without its FCS. With --gso it is a TCP/IPv4 segment to be cut into pieces of 1448 bytes by whoever
 * gets it.
 *
 * One thread plays guest and sender, so that its own part, the same for every node, is known: load_ns. The rest of what the
 * machine did (cost.h) belongs to the node and the tap; worker_ns is what the node's own threads had of it.
 */
#include "cost.h"
#include "ktap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define QUEUES		2
#define RX		0
#define TX		1
#define HDR		sizeof(struct virtio_net_hdr_mrg_rxbuf)
#define ETHERTYPE	0x88b5		/* for experiments */
#define GSO_SIZE	1448
#define TCP_HEADERS	66		/* Ethernet, IPv4, TCP with time stamps */
#define FRAG		32768		/* Linux' page fragments */
#define SIZE_MAX_	65535
#define BURST_MAX	1024
#define SEQ_AT		56		/* a u32 that no header needs, in frames of all sizes */
#define NAPI		64		/* frames that Linux takes before it looks around */
#define LOST_S		60

static struct {
	const char *node;
	bool rx, gso;
	unsigned int size, burst, window, num, buf;
	double runtime;
	u64 packets, warmup;
} o = { .size = 60, .burst = 1, .num = 256, .runtime = 1 };

static struct gmem mem;
static struct vdev dev;
static int tap = -1, raw = -1;
static char tap_name[IFNAMSIZ];

static struct {
	struct vq *q;
	u64 slot_gpa[1024];		/* a frame, or a buffer, each */
	unsigned int next;		/* slot that is filled next */
	unsigned int flying;
	u64 issued, done, want;
	u32 seq_out, seq_in;
	u64 end;
	u64 wrong;
} l;

/* rx: what sendmmsg() takes */
static struct {
	struct mmsghdr msgs[BURST_MAX];
	struct iovec iov[BURST_MAX][2];
	struct virtio_net_hdr hdr;
	u8 *frames;
} s;

static void die(const char *what, int err)
{
	fprintf(stderr, "netbench: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

/* --- frames --- */

static void gso_header(struct virtio_net_hdr *h)
{
	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
	h->hdr_len = TCP_HEADERS;
	h->gso_size = GSO_SIZE;
	h->csum_start = 34;
	h->csum_offset = 16;
}

/* To nobody here. */
static void frame(u8 *p)
{
	static const u8 start[] = { 2, 0, 0, 0, 9, 9, 2, 0, 0, 0, 9, 8, ETHERTYPE >> 8, ETHERTYPE & 0xff };
	u16 len = htons(o.size - 14);
	unsigned int i;

	memset(p, 0x5a, o.size);
	memcpy(p, start, sizeof(start));
	if (!o.gso)
		return;
	memset(p + 14, 0, TCP_HEADERS - 14);
	p[12] = ETH_P_IP >> 8;
	p[13] = ETH_P_IP & 0xff;
	p[14] = 0x45;
	memcpy(p + 16, &len, 2);
	p[22] = 64;
	p[23] = IPPROTO_TCP;
	p[26] = p[30] = 10;
	p[46] = 8 << 4;			/* 32 bytes of header */
	p[47] = 0x10;			/* ACK */
	for (i = 54; i < TCP_HEADERS; i++)
		p[i] = 1;		/* no-operation options */
}

static u32 *seq_of(u8 *p)
{
	return (u32 *)(p + SEQ_AT);
}

/* --- the tap, from the host's side --- */

static unsigned long long counter(const char *name)
{
	unsigned long long v = 0;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/class/net/%s/statistics/%s", tap_name, name);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%llu", &v) != 1)
		die(path, errno);
	fclose(f);
	return v;
}

static void tap_open(void)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	unsigned int hdr = HDR;
	char path[128];
	int fd, sock;

	tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &r) || ioctl(tap, TUNSETVNETHDRSZ, &hdr) ||
	    ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6))
		die("tap", errno);
	snprintf(tap_name, sizeof(tap_name), "%s", r.ifr_name);
	/* nobody but us sends anything into it */
	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", tap_name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			die(path, errno);
		close(fd);
	}
	sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(sock, SIOCGIFFLAGS, &r))
		die("tap", errno);
	r.ifr_flags |= IFF_UP;
	if (ioctl(sock, SIOCSIFFLAGS, &r))
		die("tap up", errno);
	close(sock);
}

static void sender_open(void)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(tap_name) };
	unsigned int one = 1, i;

	raw = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (raw < 0 || bind(raw, (void *)&a, sizeof(a)) ||
	    setsockopt(raw, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) ||
	    (o.gso && setsockopt(raw, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one))))
		die("AF_PACKET", errno);
	s.frames = calloc(o.burst, SIZE_MAX_ + 1);
	gso_header(&s.hdr);
	for (i = 0; i < o.burst; i++) {
		u8 *p = s.frames + i * (SIZE_MAX_ + 1ul);

		frame(p);
		s.iov[i][0] = (struct iovec){ &s.hdr, sizeof(s.hdr) };
		s.iov[i][1] = (struct iovec){ p, o.size };
		s.msgs[i].msg_hdr.msg_iov = &s.iov[i][o.gso ? 0 : 1];
		s.msgs[i].msg_hdr.msg_iovlen = o.gso ? 2 : 1;
	}
}

/* --- the guest --- */

/* Entries of the ring that a frame takes */
static unsigned int heads(void)
{
	return o.rx ? (HDR + o.size + o.buf - 1) / o.buf : 1;
}

static void fill_rx(void)
{
	struct vseg seg = { .len = o.buf, .in = true };

	while (l.q->nr_free) {
		seg.gpa = l.slot_gpa[l.next];
		if (vq_add(l.q, &seg, 1, &l.slot_gpa[l.next], 0) < 0)
			die("receive ring", ENOSPC);
		l.next = (l.next + 1) % o.num;
	}
	vq_submit(l.q);
}

static void setup(void)
{
	unsigned int i, k, slot = o.rx ? o.buf : HDR + o.size;
	u64 bytes = QUEUES * (u64)o.num * (26 + 16 * 4) + (u64)o.num * ((slot + 255) & ~255u) + 4 * MiB;
	int r;

	r = gmem_add(&mem, 0, (bytes + 2 * MiB - 1) & ~(2 * MiB - 1), GMEM_MEMFD);
	if (r < 0)
		die("memory", r);
	memset(mem.r[0].hva, 0, mem.r[0].size);
	tap_open();
	r = vdev_open_net(&dev, o.node);
	if (r)
		die(o.node, r);
	dev.mem = &mem;
	dev.features = dev.offered & (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
				      BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_NET_F_MRG_RXBUF));
	r = dev.tp->set_features(&dev, dev.features);
	if (r >= 0)
		r = dev.tp->set_mem(&dev, &mem);
	dev.vqs = calloc(QUEUES, sizeof(*dev.vqs));
	for (i = 0; i < QUEUES && r >= 0; i++) {
		r = vq_init(&dev.vqs[i], &dev, i, o.num, 4);
		dev.nvqs++;
	}
	if (r >= 0)
		r = vdev_start(&dev);
	for (i = 0; i < QUEUES && r >= 0; i++)
		r = vdev_net_backend(&dev, i, tap);
	if (r < 0)
		die("set-up", r);
	l.q = &dev.vqs[o.rx ? RX : TX];
	for (k = 0; k < o.num; k++) {
		u8 *p;

		l.slot_gpa[k] = gmem_alloc(&mem, 0, slot, 256);
		if (l.slot_gpa[k] == GMEM_NONE)
			die("guest memory", ENOMEM);
		p = gmem_ptr(&mem, l.slot_gpa[k]);
		if (o.rx)
			continue;
		frame(p + HDR);
		if (o.gso)
			gso_header((void *)p);
	}
	if (o.rx) {
		sender_open();
		fill_rx();
	}
	if (fcntl(l.q->call, F_SETFL, 0))
		die("call", errno);
}

static void lost(int sig)
{
	static const char text[] = "netbench: frames are lost, or the call is\n";

	(void)sig;
	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(2);
	_exit(1);
}

/*
 * On one CPU the load goes on until it sleeps, and the node works then: a burst is one. Else a worker that was woken by the first
 * frame has the CPU for each.
 */
static void go_first(void)
{
	struct sched_param p = { .sched_priority = 1 };

	if (sched_setscheduler(0, SCHED_FIFO, &p))
		die("scheduler", errno);
}

/* Sleeps until it is called, which it asked for. */
static void sleep_called(void)
{
	u64 v;

	if (read(l.q->call, &v, sizeof(v)) != sizeof(v))
		die("call", errno);
	l.q->calls += v;
}

static bool more(void)
{
	return l.want ? l.issued < l.want : !l.end || now_ns() < l.end;
}

/*
 * Wants a call once there is room for a burst, or, when there will be no more, all is done. It is asked for before the kick, so
 * that it comes whether or not the node runs at once. False: that much is done.
 */
static bool call_when_room(void)
{
	unsigned int n = (more() ? l.flying + o.burst - o.window : l.flying) * heads();
	u16 last = l.q->last_used;

	if (!l.q->event_idx)
		return vq_calls_on(l.q);
	__atomic_store_n(&vring_used_event(&l.q->ring), (u16)(last + n - 1), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return (u16)(__atomic_load_n(&l.q->ring.used->idx, __ATOMIC_ACQUIRE) - last) < n;
}

static void tx_burst(void)
{
	unsigned int i;

	for (i = 0; i < o.burst; i++) {
		u64 gpa = l.slot_gpa[l.next];
		struct vseg seg[3] = { { .gpa = gpa, .len = HDR + o.size } };
		unsigned int n = 1;

		*seq_of((u8 *)gmem_ptr(&mem, gpa) + HDR) = l.seq_out++;
		if (o.gso) {
			unsigned int left = o.size - TCP_HEADERS;

			seg[0].len = HDR + TCP_HEADERS;
			for (gpa += seg[0].len; left; n++) {
				seg[n] = (struct vseg){ .gpa = gpa, .len = left < FRAG ? left : FRAG };
				gpa += seg[n].len;
				left -= seg[n].len;
			}
		}
		if (vq_add(l.q, seg, n, &l.slot_gpa[l.next], n > 1 ? VQ_F_INDIRECT : 0) < 0)
			die("transmit ring", ENOSPC);
		l.next = (l.next + 1) % o.num;
	}
	l.issued += o.burst;
	l.flying += o.burst;
	if (l.flying + o.burst > o.window)
		call_when_room();
	vq_submit(l.q);
}

static void tx_load(void)
{
	while (more() || l.flying) {
		while (l.flying + o.burst <= o.window && more())
			tx_burst();
		if (call_when_room())
			sleep_called();
		while (vq_pop(l.q, NULL)) {
			l.flying--;
			l.done++;
		}
	}
}

static void rx_send(void)
{
	unsigned int i, at = 0;

	l.issued += o.burst;
	l.flying += o.burst;
	if (l.flying + o.burst > o.window)
		call_when_room();
	for (i = 0; i < o.burst; i++)
		*seq_of(s.iov[i][1].iov_base) = l.seq_out++;
	while (at < o.burst) {
		int n = sendmmsg(raw, s.msgs + at, o.burst - at, 0);

		if (n <= 0)
			die("send", errno);
		at += n;
	}
}

/* One frame, if there is one: its buffers are taken, its header is looked at. */
static bool rx_frame(void)
{
	struct virtio_net_hdr_mrg_rxbuf *h;
	u64 *slot;
	u32 len, sum;
	u16 n;
	u8 *p;

	slot = vq_pop(l.q, &sum);
	if (!slot)
		return false;
	h = gmem_ptr(&mem, *slot);
	p = (u8 *)(h + 1);
	for (n = h->num_buffers; n > 1; n--) {
		if (!vq_pop(l.q, &len))
			die("part of a frame", EIO);
		sum += len;
	}
	if (sum != o.size + HDR || *seq_of(p) != l.seq_in || h->hdr.gso_type != (o.gso ? VIRTIO_NET_HDR_GSO_TCPV4 : 0))
		l.wrong++;
	l.seq_in++;
	l.flying--;
	l.done++;
	return true;
}

/* When Linux would, and when there are too few for the next burst. */
static void rx_refill(void)
{
	if (l.q->nr_free > NAPI / 2 || o.num - l.q->nr_free < (l.flying + o.burst) * heads())
		fill_rx();
}

static void rx_load(void)
{
	unsigned int n;

	while (more() || l.flying) {
		while (l.flying + o.burst <= o.window && more())
			rx_send();
		if (call_when_room())
			sleep_called();
		for (n = 1; rx_frame(); n++)
			if (n % NAPI == 0)
				rx_refill();
		rx_refill();
	}
}

/* --- both --- */

struct result {
	struct cost all;
	struct usage worker;
	u64 load_ns;
};

static u64 cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void workers(struct usage *u)
{
	static const char *const names[] = { "vhost-%d", "iovm-%d" };
	char name[32];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(name, sizeof(name), names[i], getpid());
		cost_tasks("/proc/self/task", name, u);
		cost_tasks("/proc", name, u);
	}
}

static bool run(u64 packets, double seconds, struct result *from, struct result *to)
{
	bool precise;

	memset(from, 0, sizeof(*from));
	memset(to, 0, sizeof(*to));
	l.issued = l.done = 0;
	l.q->kicks = l.q->calls = 0;
	l.want = packets;
	workers(&from->worker);
	alarm(LOST_S + seconds);
	cost_now(&from->all);
	l.end = packets ? 0 : now_ns() + seconds * 1e9;
	from->load_ns = cpu_ns();
	if (o.rx)
		rx_load();
	else
		tx_load();
	to->load_ns = cpu_ns();
	precise = cost_now(&to->all);
	alarm(0);
	workers(&to->worker);
	return precise;
}

static void options(int argc, char **argv)
{
	enum { NODE = 256, DIR, SIZE, GSO, BURST, WINDOW, NUM, RUNTIME, PACKETS, WARMUP };
	static const struct option opts[] = {
		{ "node", 1, 0, NODE }, { "dir", 1, 0, DIR }, { "size", 1, 0, SIZE }, { "gso", 0, 0, GSO }, { "burst", 1, 0, BURST },
		{ "window", 1, 0, WINDOW }, { "num", 1, 0, NUM }, { "runtime", 1, 0, RUNTIME }, { "packets", 1, 0, PACKETS },
		{ "warmup", 1, 0, WARMUP }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case NODE:
			o.node = optarg;
			break;
		case DIR:
			o.rx = !strcmp(optarg, "rx");
			break;
		case SIZE:
			o.size = strtoul(optarg, NULL, 0);
			break;
		case GSO:
			o.gso = true;
			break;
		case BURST:
			o.burst = strtoul(optarg, NULL, 0);
			break;
		case WINDOW:
			o.window = strtoul(optarg, NULL, 0);
			break;
		case NUM:
			o.num = strtoul(optarg, NULL, 0);
			break;
		case RUNTIME:
			o.runtime = strtod(optarg, NULL);
			break;
		case PACKETS:
			o.packets = strtoull(optarg, NULL, 0);
			break;
		case WARMUP:
			o.warmup = strtoull(optarg, NULL, 0);
			break;
		default:
			exit(1);
		}
	}
	if (!o.window)
		o.window = o.burst;
	/* as Linux chooses them: one that most frames fit in, or a page */
	o.buf = o.gso ? 4096 : 1536;
	if (!o.node || o.size < 60 || o.size > (o.gso ? SIZE_MAX_ : 1514) || (o.gso && o.size <= TCP_HEADERS + GSO_SIZE) ||
	    !o.burst || o.burst > BURST_MAX || o.burst > o.window || !o.num || o.num > ARRAY_SIZE(l.slot_gpa) || o.num & (o.num - 1) ||
	    o.window * heads() > o.num) {
		fprintf(stderr, "netbench: a --node; sizes that fit into the ring and each other\n");
		exit(1);
	}
}

int main(int argc, char **argv)
{
	unsigned int ncpu = sysconf(_SC_NPROCESSORS_ONLN);
	const char *came = "tx_packets", *drops = "tx_dropped";
	unsigned long long seen;
	struct result a, b;
	double n, wall;
	bool precise;
	u64 busy, load, passed;

	options(argc, argv);
	signal(SIGALRM, lost);
	setup();
	if (ncpu == 1)
		go_first();
	passed = 0;
	if (!o.rx) {		/* in the tap's eyes */
		came = "rx_packets";
		drops = "rx_errors";
	}
	if (o.warmup) {
		run(o.warmup, 0, &a, &b);
		passed = l.done;
	}
	precise = run(o.packets, o.runtime, &a, &b);
	passed += l.done;
	seen = counter(came);
	if (seen != passed || counter(drops)) {
		fprintf(stderr, "netbench: %llu of %llu frames passed the tap, %s %llu\n", seen, (unsigned long long)passed, drops,
			counter(drops));
		return 1;
	}
	n = l.done;
	wall = cost_wall(&a.all, &b.all) / 1e9;
	busy = cost_busy(&a.all, &b.all, ncpu);
	load = b.load_ns - a.load_ns;
	printf("{\"node\": \"%s\", \"dir\": \"%s\", \"size\": %u, \"gso\": %s, \"burst\": %u, \"window\": %u, \"packets\": %llu, "
	       "\"seconds\": %.4f, \"pps\": %.0f, \"busy_ns\": %.1f, \"busy_precise\": %s, \"load_ns\": %.1f, \"node_ns\": %.1f, "
	       "\"worker_ns\": %.1f, \"ctxt\": %.4f, \"worker_ctxt\": %.4f, \"kicks\": %.4f, \"calls\": %.4f, \"wrong\": %llu}\n",
	       o.node, o.rx ? "rx" : "tx", o.size, o.gso ? "true" : "false", o.burst, o.window, (unsigned long long)l.done, wall, n / wall,
	       busy / n, precise ? "true" : "false", load / n, ((double)busy - load) / n,
	       (b.worker.ns - a.worker.ns) / n, (b.all.ctxt - a.all.ctxt) / n, (b.worker.ctxt - a.worker.ctxt) / n,
	       l.q->kicks / n, l.q->calls / n, (unsigned long long)(l.wrong + l.q->bad_used));
	if (vdev_net_backend(&dev, RX, -1) || vdev_net_backend(&dev, TX, -1) || vdev_stop(&dev) < 0)
		die("stop", EIO);
	vdev_close(&dev);
	return l.wrong || l.q->bad_used;
}
