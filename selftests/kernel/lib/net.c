// SPDX-License-Identifier: GPL-2.0-or-later
#include "net.h"
#include "stor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NET	"10.99.7.0/24"
#define HERE	"10.99.7.1"
#define THERE	"10.99.7.2"
#define HERE_MAC	"02:00:00:00:07:01"
#define THERE_MAC	"02:00:00:00:07:02"

static pid_t holder;			/* a process whose network namespace is the other host's */
static int ns_here = -1, ns_there = -1;
static unsigned int latency_us;

static int sh(const char *fmt, ...)
{
	char cmd[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	return system(cmd) ? -EIO : 0;
}

static int hold(void)
{
	char path[64], c;
	int p[2];

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	holder = fork();
	if (!holder) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		c = unshare(CLONE_NEWNET) ? 'n' : 'y';
		if (write(p[1], &c, 1) == 1)
			for (;;)
				pause();
		_exit(1);
	}
	close(p[1]);
	c = 'n';
	if (read(p[0], &c, 1) != 1)
		c = 'n';
	close(p[0]);
	if (c != 'y')
		return -EPERM;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", holder);
	ns_there = open(path, O_RDONLY | O_CLOEXEC);
	ns_here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	return ns_here < 0 || ns_there < 0 ? -errno : 0;
}

/* Appends one attribute to the message. */
static struct rtattr *attribute(struct nlmsghdr *h, unsigned short type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	h->nlmsg_len = NLMSG_ALIGN(h->nlmsg_len) + RTA_ALIGN(a->rta_len);
	return a;
}

const char *net_up(void)
{
	if (sh("{ command -v ip && command -v nsenter; } >/dev/null 2>&1"))
		return "no ip or nsenter";
	stor_modprobe("veth", NULL);
	if (stor_modprobe("sch_netem", NULL))
		return "no module sch_netem";
	if (hold())
		return "no network namespace";
	/* fixed neighbours: a cut shall not end a second after it was mended */
	if (sh("ip link set lo up; ip link add iovmt0 address " HERE_MAC " type veth peer name iovmt1 address " THERE_MAC " netns %d",
	       holder) ||
	    sh("ip addr add " HERE "/24 dev iovmt0 && ip link set iovmt0 up && "
	       "ip neigh replace " THERE " lladdr " THERE_MAC " nud permanent dev iovmt0") ||
	    sh("nsenter -t %d -n sh -c 'ip addr add " THERE "/24 dev iovmt1 && ip link set iovmt1 up && "
	       "ip neigh replace " HERE " lladdr " HERE_MAC " nud permanent dev iovmt1'", holder)) {
		net_down();
		return "no veth pair";
	}
	if (net_shape(NULL, NULL)) {
		net_down();
		return "no netem";
	}
	return NULL;
}

void net_down(void)
{
	if (holder > 0) {
		sh("ip link del iovmt0 2>/dev/null");
		kill(holder, SIGKILL);
		waitpid(holder, NULL, 0);
	}
	holder = 0;
	if (ns_here >= 0)
		close(ns_here);
	if (ns_there >= 0)
		close(ns_there);
	ns_here = ns_there = -1;
}

bool net_is_up(void)
{
	return holder > 0;
}

int net_pair(int sv[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct timeval tv = { .tv_sec = 10 };
	socklen_t n = sizeof(a);
	int l, one = 1, r = 0;
	struct pollfd p;

	inet_aton(THERE, &a.sin_addr);
	/* a socket belongs to the namespace in which it was made */
	if (setns(ns_there, CLONE_NEWNET))
		return -errno;
	l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (setns(ns_here, CLONE_NEWNET))
		abort();
	sv[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
	if (bind(l, (void *)&a, n) || listen(l, 1) || getsockname(l, (void *)&a, &n) || connect(sv[0], (void *)&a, n))
		r = errno ? -errno : -EIO;
	p = (struct pollfd){ .fd = l, .events = POLLIN };
	sv[1] = -1;
	if (!r && poll(&p, 1, 10000) == 1)
		sv[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	if (sv[1] < 0) {
		r = r ? r : -ETIMEDOUT;
		close(sv[0]);
	} else {
		tv.tv_sec = 0;
		setsockopt(sv[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
		setsockopt(sv[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		setsockopt(sv[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	close(l);
	return r;
}

/* One netlink request on netem at the root of a device; what was changed before is what it says now. */
static int netem(int ns, const char *dev, const struct net_shape *shape)
{
	char buf[512] __attribute__((aligned(8))) = {};
	struct nlmsghdr *h = (void *)buf;
	struct tcmsg *t = NLMSG_DATA(h);
	struct tc_netem_qopt opt = { .limit = 10000, .loss = shape->loss_pct >= 100 ? ~0u : shape->loss_pct * (~0u / 100) };
	int64_t delay = (shape->delay_us + latency_us) * 1000ll, jitter = shape->delay_us * 500ll;
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
	} answer;
	struct rtattr *options;
	int fd, r;

	h->nlmsg_len = NLMSG_LENGTH(sizeof(*t));
	h->nlmsg_type = RTM_NEWQDISC;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
	t->tcm_parent = TC_H_ROOT;
	t->tcm_handle = TC_H_MAKE(1u << 16, 0);
	if (setns(ns, CLONE_NEWNET))
		return -errno;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	t->tcm_ifindex = if_nametoindex(dev);
	if (setns(ns_here, CLONE_NEWNET))
		abort();
	if (fd < 0)
		return -errno;
	attribute(h, TCA_KIND, "netem", 6);
	options = attribute(h, TCA_OPTIONS, &opt, sizeof(opt));
	attribute(h, TCA_NETEM_LATENCY64, &delay, sizeof(delay));
	attribute(h, TCA_NETEM_JITTER64, &jitter, sizeof(jitter));
	options->rta_len = (char *)h + h->nlmsg_len - (char *)options;
	r = send(fd, h, h->nlmsg_len, 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0 ? -errno : answer.e.error;
	close(fd);
	return r;
}

int net_tune(unsigned int latency, unsigned int rto_min_ms)
{
	latency_us = latency;
	if (sh("ip route replace " NET " dev iovmt0 scope link src " HERE " rto_min %ums && "
	       "nsenter -t %d -n ip route replace " NET " dev iovmt1 scope link src " THERE " rto_min %ums", rto_min_ms, holder,
	       rto_min_ms))
		return -EIO;
	return net_shape(NULL, NULL);
}

int net_shape(const struct net_shape *here, const struct net_shape *there)
{
	static const struct net_shape fine;
	int r = netem(ns_here, "iovmt0", here ? here : &fine);

	return r ? r : netem(ns_there, "iovmt1", there ? there : &fine);
}
