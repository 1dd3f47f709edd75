// SPDX-License-Identifier: GPL-2.0-or-later
#include "vlink.h"
#include "ktap.h"
#include "stor.h"

#include <errno.h>
#include <fcntl.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define VETH_GUEST	"vtg0"		/* the macvtap's and the packet socket's end */
#define VETH_PEER	"vtp0"
#define MACVTAP		"vtm0"

const u8 vlink_guest_mac[6] = { 2, 0, 0, 0, 8, 1 };
const u8 vlink_peer_mac[6] = { 2, 0, 0, 0, 8, 2 };

static int ctl = -1;			/* a socket to ask for interfaces */

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) > 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

const char *vlink_setup(void)
{
	static const char *const modules[] = { "tun", "tap", "macvtap", "veth", "8021q", "sch_plug" };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(modules); i++)
		if (stor_modprobe(modules[i], NULL))
			return "a module of tun, tap, macvtap, veth, 8021q, sch_plug is not there";
	if (unshare(CLONE_NEWNET))
		return "no network namespace";
	/* no router solicitations, no multicast reports */
	if (access("/proc/sys/net/ipv6", F_OK) == 0 &&
	    (!put("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1") || !put("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")))
		return "IPv6 cannot be disabled";
	ctl = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ctl < 0)
		return "no socket";
	if (system("ip link add " VETH_GUEST " address 02:00:00:00:08:03 mtu 65521 type veth peer name " VETH_PEER
		   " address 02:00:00:00:08:02 mtu 65521 && ip link set " VETH_GUEST " up && ip link set " VETH_PEER " up && "
		   "ip link add link " VETH_GUEST " name " MACVTAP " address 02:00:00:00:08:01 type macvtap mode passthru && "
		   "ip link set " MACVTAP " mtu 65521 up"))
		return "no veth pair with a macvtap";
	return NULL;
}

static void ifreq_name(struct ifreq *r, const char *name)
{
	memset(r, 0, sizeof(*r));
	snprintf(r->ifr_name, sizeof(r->ifr_name), "%s", name);
}

void vlink_up(const char *ifname, bool up)
{
	struct ifreq r;

	ifreq_name(&r, ifname);
	T_REQUIRE(!ioctl(ctl, SIOCGIFFLAGS, &r), "%s: %s", ifname, strerror(errno));
	if (up)
		r.ifr_flags |= IFF_UP;
	else
		r.ifr_flags &= ~IFF_UP;
	T_REQUIRE(!ioctl(ctl, SIOCSIFFLAGS, &r), "%s up: %s", ifname, strerror(errno));
}

void vlink_mtu(const char *ifname, unsigned int mtu)
{
	struct ifreq r;

	ifreq_name(&r, ifname);
	r.ifr_mtu = mtu;
	T_REQUIRE(!ioctl(ctl, SIOCSIFMTU, &r), "%s mtu %u: %s", ifname, mtu, strerror(errno));
}

static int packet_on(const char *ifname, bool outgoing)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1, big = 32 << 20;

	T_REQUIRE(fd >= 0, "packet socket: %s", strerror(errno));
	a.sll_ifindex = if_nametoindex(ifname);
	if (outgoing) {		/* a peer's: with headers */
		T_REQUIRE(!setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), "PACKET_VNET_HDR: %s",
			  strerror(errno));
		T_REQUIRE(!setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof(one)), "PACKET_AUXDATA: %s",
			  strerror(errno));
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof(big));
	}
	T_REQUIRE(!setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)), "PACKET_IGNORE_OUTGOING: %s",
		  strerror(errno));
	T_REQUIRE(!bind(fd, (void *)&a, sizeof(a)), "bind to %s: %s", ifname, strerror(errno));
	return fd;
}

static void header_size(int fd, int size)
{
	T_REQUIRE(!ioctl(fd, TUNSETVNETHDRSZ, &size), "TUNSETVNETHDRSZ: %s", strerror(errno));
}

void vlink_tap(struct vlink *l, const char *name, unsigned int flags, unsigned int hdr_size)
{
	struct ifreq r;

	l->peer = -1;
	l->fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	T_REQUIRE(l->fd >= 0, "/dev/net/tun: %s", strerror(errno));
	ifreq_name(&r, name);
	r.ifr_flags = IFF_TAP | IFF_NO_PI | (flags & VLINK_NO_HDR ? 0 : IFF_VNET_HDR);
	T_REQUIRE(!ioctl(l->fd, TUNSETIFF, &r), "TUNSETIFF %s: %s", name, strerror(errno));
	if (!(flags & VLINK_NO_HDR))
		header_size(l->fd, hdr_size);
	snprintf(l->ifname, sizeof(l->ifname), "%s", name);
	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r.ifr_hwaddr.sa_data, vlink_peer_mac, 6);
	T_REQUIRE(!ioctl(ctl, SIOCSIFHWADDR, &r), "%s: SIOCSIFHWADDR: %s", name, strerror(errno));
	vlink_mtu(name, VLINK_MTU_MAX);
	vlink_up(name, true);
	l->peer = packet_on(name, true);
}

void vlink_macvtap(struct vlink *l, unsigned int hdr_size)
{
	struct ifreq r;
	char path[32];

	l->peer = -1;
	snprintf(path, sizeof(path), "/dev/tap%u", if_nametoindex(MACVTAP));
	l->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	T_REQUIRE(l->fd >= 0, "%s: %s", path, strerror(errno));
	ifreq_name(&r, "");
	r.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	T_REQUIRE(!ioctl(l->fd, TUNSETIFF, &r), "macvtap: TUNSETIFF: %s", strerror(errno));
	header_size(l->fd, hdr_size);
	snprintf(l->ifname, sizeof(l->ifname), "%s", VETH_PEER);
	l->peer = packet_on(VETH_PEER, true);
}

void vlink_packet(struct vlink *l)
{
	l->peer = -1;
	l->fd = packet_on(VETH_GUEST, false);
	snprintf(l->ifname, sizeof(l->ifname), "%s", VETH_PEER);
	l->peer = packet_on(VETH_PEER, true);
}

void vlink_packet_on(struct vlink *l, const char *ifname)
{
	l->fd = -1;
	snprintf(l->ifname, sizeof(l->ifname), "%s", ifname);
	l->peer = packet_on(ifname, true);
}

void vlink_plug(bool on)
{
	if (!on)
		system("tc qdisc del dev " VETH_GUEST " root 2>/dev/null");
	else
		T_REQUIRE(!system("tc qdisc replace dev " VETH_GUEST " root plug limit 10000000"), "tc qdisc add plug");
}

void vlink_unplug(void)
{
	T_REQUIRE(!system("tc qdisc change dev " VETH_GUEST " root plug release_indefinite"), "tc qdisc change plug");
}

void vlink_close(struct vlink *l)
{
	if (l->fd > 0)
		close(l->fd);
	if (l->peer > 0)
		close(l->peer);
	l->fd = l->peer = -1;
}

long vlink_send(struct vlink *l, const struct virtio_net_hdr *hdr, const void *frame, u32 len)
{
	struct virtio_net_hdr none = { 0 };
	struct iovec iov[2] = { { (void *)(hdr ? hdr : &none), sizeof(none) }, { (void *)frame, len } };

	return writev(l->peer, iov, 2);
}

bool vlink_recv(struct vlink *l, struct vframe *f, int timeout_ms)
{
	struct pollfd p = { .fd = l->peer, .events = POLLIN };
	struct iovec iov[2] = { { &f->hdr, sizeof(f->hdr) }, { f->data, sizeof(f->data) } };
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} control;
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control) };
	struct cmsghdr *c;
	ssize_t n;

	if (poll(&p, 1, timeout_ms) <= 0)
		return false;
	n = recvmsg(l->peer, &m, MSG_DONTWAIT);
	f->len = f->tci = f->tpid = 0;
	f->status = n < 0 ? errno << 16 : 0;
	if (n < (ssize_t)sizeof(f->hdr)) {
		/* there was one, which packet sockets have no header for; it is gone */
		memset(&f->hdr, 0, sizeof(f->hdr));
		return f->status;
	}
	f->len = n - sizeof(f->hdr);
	for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		struct tpacket_auxdata a;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&a, CMSG_DATA(c), sizeof(a));
		f->status = a.tp_status & (TP_STATUS_CSUMNOTREADY | TP_STATUS_CSUM_VALID | TP_STATUS_VLAN_VALID |
					   TP_STATUS_VLAN_TPID_VALID);
		f->tci = a.tp_vlan_tci;
		f->tpid = a.tp_vlan_tpid;
	}
	return true;
}
