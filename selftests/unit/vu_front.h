/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A front end, as QEMU drives vhost-user-blk, for the tests of iovm-vhost-user. The session runs in a thread of the
 * test, on the other end of a socket pair.
 */
#ifndef VU_FRONT_H
#define VU_FRONT_H

#include <dirent.h>
#include <poll.h>
#include <sys/socket.h>

#include "ktap.h"

#define FE_UNUSED __attribute__((unused))
#define REPLY_TIMEOUT_MS 10000

#define MiB		(1024ull * 1024)
#define RAM_UVA		0x7f1234000000ull
#define RAM_GPA		0ull
#define RAM_SIZE	(4 * MiB)
#define HP_UVA		0x7f9900000000ull
#define HP_GPA		0x100000000ull
#define HP_SIZE		(2 * MiB)
#define RING_SIZE	128

#define PF_ALL		(1ull << VU_PROTO_MQ | 1ull << VU_PROTO_LOG_SHMFD | 1ull << VU_PROTO_REPLY_ACK | \
			 1ull << VU_PROTO_BACKEND_REQ | 1ull << VU_PROTO_CONFIG | 1ull << VU_PROTO_INFLIGHT_SHMFD | \
			 1ull << VU_PROTO_CONFIGURE_MEM_SLOTS | 1ull << VU_PROTO_STATUS)
#define F_PROTO		(1ull << VU_F_PROTOCOL_FEATURES)
#define F_GUEST		(1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_BLK_F_FLUSH)

#define CHECK_LOG(want) do { \
	if (strcmp(fake.log, want)) { \
		printf("# %s:%d: the kernel was told\n#  %s\n# and not\n#  %s\n", __FILE__, __LINE__, fake.log, want); \
		case_failed = true; \
	} \
	fake.log_len = 0; \
	fake.log[0] = 0; \
} while (0)

static struct {
	int fd;			/* our end of the connection */
	int channel;		/* our end of the back-end channel, -1 */
	int ram;		/* memfd */
	int hp;			/* memfd of hot-plugged memory */
	int log;		/* memfd */
	pthread_t thread;
	int open_files;		/* before anything was opened */
	int result;		/* of vu_session_run() */
	int stop_pipe[2];	/* in place of the signalfd */
	struct vu_shared shared;
	struct vu_session session;
} fe;

static void *fe_thread(void *arg)
{
	fe.result = vu_session_run(&fe.session, (int)(intptr_t)arg, FAKE_NODE, fe.stop_pipe[0], &fe.shared);
	return NULL;
}

static FE_UNUSED int fe_memfd(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size))
		abort();
	return fd;
}

static int fe_open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static FE_UNUSED void fe_connect(void)
{
	int sv[2];

	fe.open_files = fe_open_files();
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) || pipe(fe.stop_pipe))
		abort();
	fe.fd = sv[0];
	fe.channel = -1;
	fe.ram = fe_memfd("ram", RAM_SIZE);
	fe.hp = fe_memfd("hotplug", HP_SIZE);
	fe.log = fe_memfd("log", 1 << 18);
	fe.shared.wake = -1;
	fake.log_len = 0;
	fake.log[0] = 0;
	fake.violations = 0;
	if (pthread_create(&fe.thread, NULL, fe_thread, (void *)(intptr_t)sv[1]))
		abort();
}

static FE_UNUSED void fe_hangup(void)
{
	if (fe.fd >= 0)
		close(fe.fd);
	fe.fd = -1;
}

/* End, and see that nothing of ours or of the kernel's is left. */
static FE_UNUSED void fe_end(void)
{
	fe_hangup();
	pthread_join(fe.thread, NULL);
	CHECK(fake.fd == -1);
	CHECK(fake.nr_maps == 0);
	CHECK(fake.violations == 0);
	close(fe.ram);
	close(fe.hp);
	close(fe.log);
	close(fe.stop_pipe[0]);
	close(fe.stop_pipe[1]);
	if (fe.channel >= 0)
		close(fe.channel);
	CHECK(fe_open_files() == fe.open_files);
}

static void fe_send_fds(uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds, int nr)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * 16)];
		struct cmsghdr align;
	} control;
	uint32_t header[3] = { request, flags, size };
	struct iovec iov[2] = { { header, sizeof(header) }, { (void *)payload, size } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };

	if (nr) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		mh.msg_control = control.buf;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr);
		c = CMSG_FIRSTHDR(&mh);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nr);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nr);
	}
	sendmsg(fe.fd, &mh, MSG_NOSIGNAL);	/* the other end may have hung up: the reader sees it */
}

static bool fe_read(int fd, void *buf, size_t len)
{
	size_t got = 0;

	while (got < len) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (poll(&p, 1, REPLY_TIMEOUT_MS) != 1)
			return false;
		n = read(fd, (char *)buf + got, len - got);
		if (n <= 0)
			return false;
		got += n;
	}
	return true;
}

/* The answer to @request: its payload's size, or -1 when there is none of at most @max bytes. */
static int fe_answer(uint32_t request, void *buf, uint32_t max)
{
	uint32_t header[3];

	if (!fe_read(fe.fd, header, sizeof(header)))
		return -1;
	if (header[0] != request || header[1] != (VU_FLAG_VERSION | VU_FLAG_REPLY) || header[2] > max)
		return -1;
	return fe_read(fe.fd, buf, header[2]) ? (int)header[2] : -1;
}

static FE_UNUSED bool fe_eof(void)
{
	struct pollfd p = { .fd = fe.fd, .events = POLLIN };
	char c;

	return poll(&p, 1, REPLY_TIMEOUT_MS) == 1 && recv(fe.fd, &c, 1, 0) <= 0;
}

static void fe_send(uint32_t request, const void *payload, uint32_t size)
{
	fe_send_fds(request, VU_FLAG_VERSION, payload, size, NULL, 0);
}

/* With NEED_REPLY; the acknowledgement's value, -1 when there is none. */
static int64_t fe_ack_fds(uint32_t request, const void *payload, uint32_t size, const int *fds, int nr)
{
	uint64_t v;

	fe_send_fds(request, VU_FLAG_VERSION | VU_FLAG_NEED_REPLY, payload, size, fds, nr);
	return fe_answer(request, &v, sizeof(v)) == sizeof(v) ? (int64_t)v : -1;
}

static int64_t fe_ack(uint32_t request, const void *payload, uint32_t size)
{
	return fe_ack_fds(request, payload, size, NULL, 0);
}

static int64_t fe_get(uint32_t request)
{
	uint64_t v;

	fe_send(request, NULL, 0);
	return fe_answer(request, &v, sizeof(v)) == sizeof(v) ? (int64_t)v : -1;
}

/* All that was sent so far has been handled. */
static FE_UNUSED bool fe_sync(void)
{
	return fe_get(VU_GET_QUEUE_NUM) == FAKE_QUEUES;
}

static void fe_u64(uint32_t request, uint64_t v)
{
	fe_send(request, &v, sizeof(v));
}

static void fe_state(uint32_t request, uint32_t i, uint32_t num)
{
	struct vu_wire_state st = { i, num };

	fe_send(request, &st, sizeof(st));
}

static int64_t fe_ack_state(uint32_t request, uint32_t i, uint32_t num)
{
	struct vu_wire_state st = { i, num };

	return fe_ack(request, &st, sizeof(st));
}

static FE_UNUSED int64_t fe_get_base(uint32_t i)
{
	struct vu_wire_state st = { .index = i };

	fe_send(VU_GET_VRING_BASE, &st, sizeof(st));
	return fe_answer(VU_GET_VRING_BASE, &st, sizeof(st)) == sizeof(st) && st.index == i ? (int64_t)st.num : -1;
}

/* KICK, CALL or ERR with a new eventfd. */
static FE_UNUSED void fe_eventfd(uint32_t request, uint32_t flags, uint32_t i)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t v = i;

	fe_send_fds(request, VU_FLAG_VERSION | flags, &v, sizeof(v), &fd, 1);
	close(fd);
}

static FE_UNUSED int64_t fe_ack_eventfd(uint32_t request, uint32_t i)
{
	uint64_t v;

	fe_eventfd(request, VU_FLAG_NEED_REPLY, i);
	return fe_answer(request, &v, sizeof(v)) == sizeof(v) ? (int64_t)v : -1;
}

static FE_UNUSED struct vu_wire_addr fe_ring(uint32_t i, uint32_t flags)
{
	uint64_t at = RAM_UVA + 0x10000 * (i + 1);

	return (struct vu_wire_addr){
		.index = i, .flags = flags, .desc = at, .avail = at + 0x4000, .used = at + 0x5000,
		.log = RAM_GPA + 0x10000 * (i + 1) + 0x5000,
	};
}

static const struct vu_wire_region fe_ram_region = { RAM_GPA, RAM_SIZE, RAM_UVA, 0 };
static const struct vu_wire_region fe_hp_region = { HP_GPA, HP_SIZE, HP_UVA, 0 };

static FE_UNUSED int64_t fe_add_region(const struct vu_wire_region *r, int fd)
{
	struct vu_wire_mem_reg m = { .r = *r };

	return fe_ack_fds(VU_ADD_MEM_REG, &m, sizeof(m), &fd, 1);
}

static FE_UNUSED int64_t fe_rem_region(const struct vu_wire_region *r)
{
	struct vu_wire_mem_reg m = { .r = *r };

	return fe_ack(VU_REM_MEM_REG, &m, sizeof(m));
}

/* As QEMU 7.2 realizes the device. */
static FE_UNUSED void fe_realize(uint32_t queues)
{
	uint64_t f = fe_get(VU_GET_FEATURES), p;
	struct vu_wire_config c = { .size = sizeof(struct virtio_blk_config) };
	int sv[2];

	CHECK(f == (FAKE_FEATURES | F_PROTO));
	p = fe_get(VU_GET_PROTOCOL_FEATURES);
	CHECK(p == PF_ALL);
	fe_u64(VU_SET_PROTOCOL_FEATURES, p);
	CHECK(fe_get(VU_GET_QUEUE_NUM) == FAKE_QUEUES);
	CHECK(fe_get(VU_GET_MAX_MEM_SLOTS) == VU_MAX_REGIONS);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		abort();
	fe.channel = sv[0];
	CHECK(fe_ack_fds(VU_SET_BACKEND_REQ_FD, NULL, 0, &sv[1], 1) == 0);
	close(sv[1]);
	fe_send(VU_SET_OWNER, NULL, 0);
	CHECK(fe_get(VU_GET_FEATURES) == (int64_t)f);
	for (uint32_t i = 0; i < queues; i++) {
		fe_eventfd(VU_SET_VRING_CALL, 0, i);
		fe_eventfd(VU_SET_VRING_ERR, 0, i);
	}
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + c.size);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == (int)(VU_CONFIG_HEADER + sizeof(struct virtio_blk_config)));
	CHECK(((struct virtio_blk_config *)c.buf)->capacity == fake.capacity);
}

static FE_UNUSED void fe_setup(uint32_t queues, uint64_t features)
{
	fe_u64(VU_SET_FEATURES, features);
	fe_u64(VU_SET_STATUS, 0x0b);
	CHECK(fe_get(VU_GET_STATUS) == 0x0b);
	for (uint32_t i = 0; i < queues; i++)
		fe_eventfd(VU_SET_VRING_CALL, 0, i);
}

/* As it starts the device; KICK and ENABLE are acknowledged in QEMU 10. */
static FE_UNUSED void fe_rings(uint32_t queues, uint32_t base, bool ack)
{
	for (uint32_t i = 0; i < queues; i++) {
		struct vu_wire_addr a = fe_ring(i, 0);

		fe_state(VU_SET_VRING_NUM, i, RING_SIZE);
		fe_state(VU_SET_VRING_BASE, i, base + i);
		fe_send(VU_SET_VRING_ADDR, &a, sizeof(a));
		if (ack)
			CHECK(fe_ack_eventfd(VU_SET_VRING_KICK, i) == 0);
		else
			fe_eventfd(VU_SET_VRING_KICK, 0, i);
	}
	for (uint32_t i = 0; i < queues; i++) {
		if (ack)
			CHECK(fe_ack_state(VU_SET_VRING_ENABLE, i, 1) == 0);
		else
			fe_state(VU_SET_VRING_ENABLE, i, 1);
	}
	fe_u64(VU_SET_STATUS, 0x0f);
}

static FE_UNUSED void fe_start(uint32_t queues)
{
	fe_setup(queues, F_PROTO | F_GUEST);
	CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
	fe_rings(queues, 0, false);
	CHECK(fe_sync());
}

/* GET_INFLIGHT_FD for rings of RING_SIZE: the answer's size, its payload in *@w and what came with it in *@fd (-1: nothing). */
static FE_UNUSED int fe_get_inflight(struct vu_wire_inflight *w, uint32_t queues, uint32_t size, int *fd)
{
	union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr c; } control;
	uint32_t header[3] = { 0 };
	struct iovec iov[2] = { { header, sizeof(header) }, { w, sizeof(*w) } };
	struct msghdr mh = {
		.msg_iov = iov, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct pollfd p = { .fd = fe.fd, .events = POLLIN };
	struct cmsghdr *c;
	ssize_t n;

	*fd = -1;
	*w = (struct vu_wire_inflight){ .nr_queues = queues, .queue_size = RING_SIZE };
	fe_send(VU_GET_INFLIGHT_FD, w, size);
	if (poll(&p, 1, REPLY_TIMEOUT_MS) != 1)
		return -1;
	n = recvmsg(fe.fd, &mh, MSG_CMSG_CLOEXEC);
	c = CMSG_FIRSTHDR(&mh);
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	return n == (ssize_t)(sizeof(header) + header[2]) && header[0] == VU_GET_INFLIGHT_FD ? (int)header[2] : -1;
}

static FE_UNUSED int64_t fe_set_inflight(const struct vu_wire_inflight *w, int fd)
{
	return fe_ack_fds(VU_SET_INFLIGHT_FD, w, sizeof(*w), &fd, 1);
}

static FE_UNUSED int64_t fe_set_log(uint64_t size, uint64_t offset)
{
	struct vu_wire_log l = { size, offset };
	uint64_t v;

	fe_send_fds(VU_SET_LOG_BASE, VU_FLAG_VERSION, &l, sizeof(l), &fe.log, 1);
	return fe_answer(VU_SET_LOG_BASE, &v, sizeof(v)) == sizeof(v) ? (int64_t)v : -1;
}

#endif /* VU_FRONT_H */
