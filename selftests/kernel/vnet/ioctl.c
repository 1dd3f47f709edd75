// SPDX-License-Identifier: GPL-2.0-or-later
/* t_vnet: every ioctl, early, by the owner and by somebody else, with bad pointers, queues and files. */
#include "cases.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef VHOST_SET_FORK_FROM_OWNER
#define VHOST_SET_FORK_FROM_OWNER	_IOW(VHOST_VIRTIO, 0x84, __u8)
#define VHOST_GET_FORK_FROM_OWNER	_IOR(VHOST_VIRTIO, 0x85, __u8)
#endif
#ifndef VHOST_BACKEND_F_IOTLB_MSG_V2
#define VHOST_BACKEND_F_IOTLB_MSG_V2	1
#endif

union arg {
	struct vhost_vring_state state;
	struct vhost_vring_addr addr;
	struct vhost_vring_file file;
	u32 u32;
	u64 u64;
	u8 bytes[64];
};

/* The ioctls of vhost-net, and those that it does not know. */
static const struct {
	const char *name;
	unsigned long req;
	int fd_at;		/* offset of a file descriptor, 0: none (it is -1 then), 1: at the beginning */
} calls[] = {
	{ "GET_FEATURES", VHOST_GET_FEATURES },
	{ "SET_FEATURES", VHOST_SET_FEATURES },
	{ "GET_BACKEND_FEATURES", VHOST_GET_BACKEND_FEATURES },
	{ "SET_BACKEND_FEATURES", VHOST_SET_BACKEND_FEATURES },
	{ "SET_MEM_TABLE", VHOST_SET_MEM_TABLE },
	{ "SET_LOG_BASE", VHOST_SET_LOG_BASE },
	{ "SET_LOG_FD", VHOST_SET_LOG_FD, 1 },
	{ "SET_VRING_NUM", VHOST_SET_VRING_NUM },
	{ "SET_VRING_ADDR", VHOST_SET_VRING_ADDR },
	{ "SET_VRING_BASE", VHOST_SET_VRING_BASE },
	{ "GET_VRING_BASE", VHOST_GET_VRING_BASE },
	{ "SET_VRING_KICK", VHOST_SET_VRING_KICK, 4 },
	{ "SET_VRING_CALL", VHOST_SET_VRING_CALL, 4 },
	{ "SET_VRING_ERR", VHOST_SET_VRING_ERR, 4 },
	{ "SET_VRING_BUSYLOOP_TIMEOUT", VHOST_SET_VRING_BUSYLOOP_TIMEOUT },
	{ "GET_VRING_BUSYLOOP_TIMEOUT", VHOST_GET_VRING_BUSYLOOP_TIMEOUT },
	{ "NET_SET_BACKEND", VHOST_NET_SET_BACKEND, 4 },
	{ "SET_VRING_ENDIAN", VHOST_SET_VRING_ENDIAN },
	{ "GET_VRING_ENDIAN", VHOST_GET_VRING_ENDIAN },
	{ "NEW_WORKER", VHOST_NEW_WORKER },
	{ "FREE_WORKER", VHOST_FREE_WORKER },
	{ "ATTACH_VRING_WORKER", VHOST_ATTACH_VRING_WORKER },
	{ "GET_VRING_WORKER", VHOST_GET_VRING_WORKER },
	{ "GET_FORK_FROM_OWNER", VHOST_GET_FORK_FROM_OWNER },
	{ "SET_FORK_FROM_OWNER", VHOST_SET_FORK_FROM_OWNER },
	{ "VDPA_GET_DEVICE_ID", VHOST_VDPA_GET_DEVICE_ID },
	{ "VDPA_GET_STATUS", VHOST_VDPA_GET_STATUS },
	{ "VDPA_SET_STATUS", VHOST_VDPA_SET_STATUS },
	{ "VDPA_GET_CONFIG", VHOST_VDPA_GET_CONFIG },
	{ "VDPA_SET_CONFIG", VHOST_VDPA_SET_CONFIG },
	{ "VDPA_SET_VRING_ENABLE", VHOST_VDPA_SET_VRING_ENABLE },
	{ "VDPA_GET_VRING_NUM", VHOST_VDPA_GET_VRING_NUM },
	{ "VDPA_SET_CONFIG_CALL", VHOST_VDPA_SET_CONFIG_CALL, 1 },
	{ "VDPA_GET_IOVA_RANGE", VHOST_VDPA_GET_IOVA_RANGE },
	{ "VDPA_GET_CONFIG_SIZE", VHOST_VDPA_GET_CONFIG_SIZE },
	{ "VDPA_GET_VQS_COUNT", VHOST_VDPA_GET_VQS_COUNT },
	{ "SCSI_SET_ENDPOINT", _IOW(VHOST_VIRTIO, 0x40, u8[64]) },
	{ "VSOCK_SET_GUEST_CID", VHOST_VSOCK_SET_GUEST_CID },
	{ "IOVM_SET_INFLIGHT", VHOST_IOVM_SET_INFLIGHT },
	{ "IOVM_LEND_SOCKET", VHOST_IOVM_LEND_SOCKET, 1 },
	{ "unknown number", _IOW(VHOST_VIRTIO, 0xfe, u64) },
	{ "unknown type", _IOW('z', 1, u64) },
	{ "FIONREAD", 0x541b },
};

static int open_node(const char *node)
{
	/* the cleanup closes it */
	memset(&V, 0, sizeof(V));
	V.d.fd = open(node, O_RDWR | O_CLOEXEC);
	T_REQUIRE(V.d.fd >= 0, "%s: %s", node, strerror(errno));
	V.open = true;
	return V.d.fd;
}

int own_node(const char *node)
{
	int fd = open_node(node);

	T_REQUIRE(!ioctl(fd, VHOST_SET_OWNER), "SET_OWNER: %s", strerror(errno));
	return fd;
}

static void try_all(int fd, u32 index, const char *how)
{
	unsigned int i;
	union arg a;
	long r;

	rec_at("%s", how);
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		memset(&a, 0, sizeof(a));
		a.state.index = index;
		if (calls[i].fd_at)
			*(int *)(a.bytes + (calls[i].fd_at & ~1)) = -1;
		/* a table of no regions */
		if (calls[i].req == VHOST_SET_MEM_TABLE || calls[i].req == VHOST_SET_FEATURES ||
		    calls[i].req == VHOST_SET_BACKEND_FEATURES || calls[i].req == VHOST_SET_LOG_BASE)
			a.u32 = 0;
		r = rec_ret(calls[i].name, ioctl(fd, calls[i].req, &a));
		if (!r && (calls[i].req == VHOST_GET_VRING_BASE || calls[i].req == VHOST_GET_VRING_BUSYLOOP_TIMEOUT))
			rec(calls[i].name, "index %u num %u", a.state.index, a.state.num);
	}
	rec_at(NULL);
}

static void try_pointer(int fd, void *p, const char *how)
{
	unsigned int i;

	rec_at("%s", how);
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		rec_ret(calls[i].name, ioctl(fd, calls[i].req, p));
	rec_at(NULL);
}

void s_features(const char *node)
{
	int fd = open_node(node);
	u64 f = 0, b = 0;
	unsigned int i;
	char key[32];

	rec_ret("GET_FEATURES", ioctl(fd, VHOST_GET_FEATURES, &f));
	for (i = 0; i < 64; i++) {
		snprintf(key, sizeof(key), "bit %u", i);
		rec(key, "%s", f & BIT64(i) ? "offered" : "-");
	}
	rec_ret("GET_BACKEND_FEATURES", ioctl(fd, VHOST_GET_BACKEND_FEATURES, &b));
	for (i = 0; i < 64; i++) {
		snprintf(key, sizeof(key), "back-end bit %u", i);
		rec(key, "%s", b & BIT64(i) ? "offered" : "-");
	}
	T_REQUIRE(!ioctl(fd, VHOST_SET_OWNER), "SET_OWNER: %s", strerror(errno));
	for (i = 0; i < 64; i++) {
		u64 one = BIT64(i);

		snprintf(key, sizeof(key), "set bit %u", i);
		rec_ret(key, ioctl(fd, VHOST_SET_FEATURES, &one));
		snprintf(key, sizeof(key), "set back-end bit %u", i);
		rec_ret(key, ioctl(fd, VHOST_SET_BACKEND_FEATURES, &one));
	}
	f &= ~(BIT64(VIRTIO_F_ACCESS_PLATFORM) | BIT64(VIRTIO_F_IN_ORDER));
	rec_ret("set all", ioctl(fd, VHOST_SET_FEATURES, &f));
	f |= BIT64(63);
	rec_ret("set all and one more", ioctl(fd, VHOST_SET_FEATURES, &f));
	f = 0;
	rec_ret("set none", ioctl(fd, VHOST_SET_FEATURES, &f));
	rec_ret("set none of the back end", ioctl(fd, VHOST_SET_BACKEND_FEATURES, &f));
}

void s_before_owner(const char *node)
{
	int fd = open_node(node);

	try_all(fd, 0, "no owner");
	try_all(fd, 2, "no owner, queue 2");
	try_pointer(fd, (void *)8, "no owner, bad pointer");
	rec_ret("RESET_OWNER", ioctl(fd, VHOST_RESET_OWNER));
	rec_ret("SET_OWNER", ioctl(fd, VHOST_SET_OWNER));
	rec_ret("SET_OWNER again", ioctl(fd, VHOST_SET_OWNER));
	try_all(fd, 0, "then");
}

void s_not_owner(const char *node)
{
	int fd = own_node(node), status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	T_REQUIRE(pid >= 0, "fork: %s", strerror(errno));
	if (!pid) {
		try_all(fd, 0, "child");
		rec_ret("child: SET_OWNER", ioctl(fd, VHOST_SET_OWNER));
		rec_ret("child: RESET_OWNER", ioctl(fd, VHOST_RESET_OWNER));
		_exit(0);
	}
	waitpid(pid, &status, 0);
	T_CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "status %#x", status);
	try_all(fd, 1, "parent");
}

bool one_frame(struct vnet *v, struct vlink *l)
{
	static u8 frame[100];
	static struct vframe got;
	struct vbuf *b;

	frame_make(frame, sizeof(frame), 77, true);
	b = vbuf_new(v, v->hlen + sizeof(frame), NULL, 0, false);
	memset(gmem_ptr(&v->mem, b->seg[0].gpa), 0, v->hlen);
	vbuf_put(v, b, v->hlen, frame, sizeof(frame));
	if (vnet_add(v->tx, b, 0) < 0)
		return false;
	vq_submit(v->tx);
	if (!vnet_used(v, v->tx, NULL, vnet_wait_ms()))
		return false;
	while (vlink_recv(l, &got, vnet_wait_ms()))
		if (got.len == sizeof(frame) && !memcmp(got.data, frame, sizeof(frame)))
			return true;
	return false;
}

void s_owner(const char *node)
{
	int fd, second;
	u64 f = V1;

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 16);
	fd = V.d.fd;
	second = open(node, O_RDWR | O_CLOEXEC);
	rec("a second open", "%s", second >= 0 ? "works" : strerrorname_np(errno));
	close(second);
	vnet_start(&V, L.fd);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	rec_ret("SET_OWNER while running", ioctl(fd, VHOST_SET_OWNER));
	rec_ret("RESET_OWNER while running", ioctl(fd, VHOST_RESET_OWNER));
	try_all(fd, 0, "after RESET_OWNER");
	rec_ret("RESET_OWNER again", ioctl(fd, VHOST_RESET_OWNER));
	rec_ret("SET_OWNER again", ioctl(fd, VHOST_SET_OWNER));
	rec_ret("NET_SET_BACKEND without a ring",
		ioctl(fd, VHOST_NET_SET_BACKEND, &(struct vhost_vring_file){ .index = 1, .fd = L.fd }));
	/* nothing is left of what was set */
	rec_ret("SET_FEATURES", ioctl(fd, VHOST_SET_FEATURES, &f));
	rec("memory table", "%s", V.d.tp->set_mem(&V.d, &V.mem) ? strerrorname_np(errno) : "0");
	V.rx->base = V.rx->published;
	V.tx->base = V.tx->published;
	vnet_start(&V, L.fd);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
}

void s_arguments(const char *node)
{
	static const u32 timeouts[] = { 0, 1, 50, 0xffffffff };
	int fd = own_node(node), efd = eventfd(0, EFD_CLOEXEC);
	struct vhost_vring_state s;
	unsigned int i, q;

	try_all(fd, 0, "queue 0");
	try_all(fd, 1, "queue 1");
	try_all(fd, 2, "queue 2");
	try_all(fd, 0xffffffff, "queue -1");
	try_pointer(fd, (void *)8, "bad pointer");
	try_pointer(fd, (void *)KERNEL_ADDR, "kernel pointer");
	for (q = 0; q < 2; q++)
		for (i = 0; i < ARRAY_SIZE(timeouts); i++) {
			rec_at("queue %u, busy loop %u", q, timeouts[i]);
			s = (struct vhost_vring_state){ .index = q, .num = timeouts[i] };
			rec_ret("set", ioctl(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &s));
			s.num = 99;
			rec_ret("get", ioctl(fd, VHOST_GET_VRING_BUSYLOOP_TIMEOUT, &s));
			rec("get", "index %u num %u", s.index, s.num);
		}
	rec_at(NULL);
	rec_ret("SET_LOG_FD eventfd", ioctl(fd, VHOST_SET_LOG_FD, &efd));
	rec_ret("SET_LOG_FD again", ioctl(fd, VHOST_SET_LOG_FD, &efd));
	close(efd);
	rec_ret("SET_LOG_FD closed", ioctl(fd, VHOST_SET_LOG_FD, &efd));
	efd = -1;
	rec_ret("SET_LOG_FD -1", ioctl(fd, VHOST_SET_LOG_FD, &efd));
}

/* Files of every kind that a file descriptor's ioctl must refuse, and one that it takes. */
void s_bad_fds(const char *node)
{
	static const struct {
		const char *name;
		unsigned long req;
	} req[] = {
		{ "KICK", VHOST_SET_VRING_KICK },
		{ "CALL", VHOST_SET_VRING_CALL },
		{ "ERR", VHOST_SET_VRING_ERR },
		{ "NET_SET_BACKEND", VHOST_NET_SET_BACKEND },
	};
	struct {
		const char *name;
		int fd;
	} file[12];
	unsigned int n = 0, i, k, q;
	int fd, sv[2];

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1, 16);
	fd = V.d.fd;
	for (q = 0; q < 2; q++) {
		T_REQUIRE(!V.d.tp->set_num(&V.d, q, 16) && !vq_start_addr(&V.d.vqs[q], false), "ring: %s", strerror(errno));
	}
	T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), "socketpair: %s", strerror(errno));
	file[n].name = "closed";
	file[n++].fd = 987;
	file[n].name = "-2";
	file[n++].fd = -2;
	file[n].name = "/dev/null";
	file[n++].fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	file[n].name = "plain file";
	file[n++].fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (file[n - 1].fd < 0)
		file[n - 1].fd = memfd_create("file", MFD_CLOEXEC);
	file[n].name = "itself";
	file[n++].fd = fd;
	file[n].name = "UDP socket";
	file[n++].fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	file[n].name = "raw IP socket";
	file[n++].fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, 253);
	file[n].name = "unix socket";
	file[n++].fd = sv[0];
	file[n].name = "cooked packet socket";
	file[n++].fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	file[n].name = "tun without an interface";
	file[n++].fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	for (i = 0; i < ARRAY_SIZE(req); i++)
		for (k = 0; k < n; k++)
			for (q = 0; q < 3; q++) {
				struct vhost_vring_file f = { .index = q, .fd = file[k].fd };

				rec_at("%s, queue %u", req[i].name, q);
				rec_ret(file[k].name, ioctl(fd, req[i].req, &f));
			}
	for (k = 2; k < n; k++)
		if (file[k].fd != fd)
			close(file[k].fd);
	close(sv[1]);
	rec_at(NULL);
	/* it works all the same; and what it has may be given again */
	vnet_start(&V, L.fd);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		struct vhost_vring_file f = { .index = VNET_TX };

		f.fd = i == 0 ? V.tx->kick : i == 1 ? V.tx->call : i == 2 ? V.tx->err : L.fd;
		rec_at("again");
		rec_ret(req[i].name, ioctl(fd, req[i].req, &f));
	}
	rec_at(NULL);
	rec("frame", "%s", one_frame(&V, &L) ? "sent" : "lost");
}

void s_read_write(const char *node)
{
	struct vhost_msg_v2 m2 = { .type = VHOST_IOTLB_MSG_V2 };
	struct pollfd p = { .events = POLLIN | POLLOUT };
	struct vhost_msg m = { .type = VHOST_IOTLB_MSG };
	char buf[256];

	p.fd = own_node(node);
	poll(&p, 1, 0);
	rec("poll", "%#x", p.revents);
	rec_ret("short read", read(p.fd, buf, 4));
	rec_ret("read", read(p.fd, buf, sizeof(buf)));
	fcntl(p.fd, F_SETFL, O_NONBLOCK);
	rec_ret("read, O_NONBLOCK", read(p.fd, buf, sizeof(buf)));
	rec_ret("write, too short", write(p.fd, buf, 2));
	rec_ret("write", write(p.fd, &m, sizeof(m)));
	rec_ret("write, version 2", write(p.fd, &m2, sizeof(m2)));
	rec_ret("lseek", lseek(p.fd, 0, SEEK_SET));
	rec("mmap", "%s", mmap(NULL, 4096, PROT_READ, MAP_SHARED, p.fd, 0) == MAP_FAILED ? strerrorname_np(errno) : "works");
}
