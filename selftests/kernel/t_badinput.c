// SPDX-License-Identifier: GPL-2.0-or-later
/* What nobody should send: ioctls of both nodes, rings of a hostile guest. Each gets its error; nothing else suffers. */
#include "fix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 16

static int nfd(void)
{
	return F[0].d.fd;
}

static void start(u64 features)
{
	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 2);
	fix_open_mem(0, features | BIT64(VIRTIO_BLK_F_MQ), 2, 64, 32 * MiB, 0);
}

static void stopped(void)
{
	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 2);
	fix_open_stopped(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), 2, 64, 32 * MiB, 0);
}

static const unsigned long owner_ioctls[] = {
	VHOST_RESET_OWNER, VHOST_SET_FEATURES, VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE, VHOST_SET_LOG_FD, VHOST_SET_VRING_NUM,
	VHOST_SET_VRING_ADDR, VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE, VHOST_SET_VRING_ENDIAN, VHOST_GET_VRING_ENDIAN,
	VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR, VHOST_NEW_WORKER, VHOST_FREE_WORKER,
	VHOST_ATTACH_VRING_WORKER, VHOST_GET_VRING_WORKER,
};

/* --- the device's node --- */

static void no_owner(void)
{
	char buf[4096] = {};
	unsigned int i;
	u64 f;
	int fd;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	fd = open(ctl_node("kt-0"), O_RDWR);
	T_REQUIRE(fd >= 0, "open: %s", strerror(errno));
	for (i = 0; i < ARRAY_SIZE(owner_ioctls); i++) {
		ktap_failed();
		T_ERRNO(ioctl(fd, owner_ioctls[i], buf), EPERM);
	}
	T_CHECK(!ioctl(fd, VHOST_GET_FEATURES, &f), "GET_FEATURES needs no owner: %s", strerror(errno));
	T_CHECK(!ioctl(fd, VHOST_SET_OWNER, NULL), "SET_OWNER: %s", strerror(errno));
	T_ERRNO(ioctl(fd, VHOST_SET_OWNER, NULL), EBUSY);
	T_CHECK(!ioctl(fd, VHOST_RESET_OWNER, NULL), "RESET_OWNER: %s", strerror(errno));
	T_ERRNO(ioctl(fd, VHOST_RESET_OWNER, NULL), EPERM);
	T_CHECK(!ioctl(fd, VHOST_SET_OWNER, NULL), "SET_OWNER again: %s", strerror(errno));
	close(fd);
}

static void other_process(void)
{
	int status = 0;
	pid_t pid;

	start(RING_FEATURES);
	pid = fork();
	if (!pid) {
		char buf[4096] = {};
		unsigned int i;
		u64 f;

		for (i = 0; i < ARRAY_SIZE(owner_ioctls); i++)
			if (ioctl(nfd(), owner_ioctls[i], buf) != -1 || errno != EPERM)
				_exit(10 + i);
		if (ioctl(nfd(), VHOST_GET_FEATURES, &f))
			_exit(2);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	T_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %x (10 + the ioctl's index)", status);
	T_CHECK(vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, 0, 512) == 0, "the owner suffers");
}

static void bad_pointers(void)
{
	unsigned int i;

	stopped();
	for (i = 0; i < ARRAY_SIZE(owner_ioctls); i++) {
		if (owner_ioctls[i] == VHOST_RESET_OWNER)
			continue;
		T_ERRNO(ioctl(nfd(), owner_ioctls[i], (void *)8), EFAULT);
		T_ERRNO(ioctl(nfd(), owner_ioctls[i], (void *)-4096l), EFAULT);
	}
	T_ERRNO(ioctl(nfd(), VHOST_GET_FEATURES, (void *)8), EFAULT);
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_GET_CONFIG, (void *)8), EFAULT);
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_GET_DEVICE_ID, (void *)8), EFAULT);
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_SET_CONFIG_CALL, (void *)8), EFAULT);
}

static void unknown_ioctls(void)
{
	struct vhost_vring_file f = { 0, -1 };
	char buf[64];

	stopped();
	T_ERRNO(ioctl(nfd(), VHOST_NET_SET_BACKEND, &f), ENOTTY);
	T_ERRNO(ioctl(nfd(), _IO(0xAF, 0x99), 0), ENOTTY);
	T_ERRNO(ioctl(nfd(), _IO('x', 1), 0), ENOTTY);
	T_CHECK(read(nfd(), buf, sizeof(buf)) < 0, "read() of the node works");
	T_CHECK(write(nfd(), buf, sizeof(buf)) < 0, "write() to the node works");
	T_CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, nfd(), 0) == MAP_FAILED, "mmap() of the node works");
}

static void features(void)
{
	u64 f;

	stopped();
	f = F[0].d.offered | BIT64(62);
	T_ERRNO(ioctl(nfd(), VHOST_SET_FEATURES, &f), EOPNOTSUPP);
	f = BIT64(VIRTIO_F_RING_PACKED) | BIT64(VIRTIO_F_VERSION_1);
	T_ERRNO(ioctl(nfd(), VHOST_SET_FEATURES, &f), EOPNOTSUPP);
	f = 2;
	T_ERRNO(ioctl(nfd(), VHOST_SET_BACKEND_FEATURES, &f), EOPNOTSUPP);
	f = 0;
	T_CHECK(!ioctl(nfd(), VHOST_SET_BACKEND_FEATURES, &f), "no backend features: %s", strerror(errno));
	f = 99;
	T_CHECK(!ioctl(nfd(), VHOST_GET_BACKEND_FEATURES, &f) && f == 0, "backend features %llx", (unsigned long long)f);
	T_REQUIRE(!vdev_start(&F[0].d), "start");
	f = F[0].d.features & ~BIT64(VIRTIO_RING_F_EVENT_IDX);
	T_ERRNO(ioctl(nfd(), VHOST_SET_FEATURES, &f), EBUSY);
	f = F[0].d.features;
	T_CHECK(!ioctl(nfd(), VHOST_SET_FEATURES, &f), "the same features while running: %s", strerror(errno));
}

static void config_space(void)
{
	struct { struct vhost_vdpa_config c; u8 buf[512]; } g = {};
	int fd;

	stopped();
	g.c.off = 0xffffffff;
	g.c.len = 8;
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_GET_CONFIG, &g), EINVAL);
	g.c.off = 8;
	g.c.len = 0xfffffff9;
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_GET_CONFIG, &g), EINVAL);
	g.c.off = 50;
	g.c.len = 400;
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_GET_CONFIG, &g), EINVAL);
	g.c.off = 0;
	g.c.len = 0;
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_GET_CONFIG, &g), EINVAL);
	fd = 12345;
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_SET_CONFIG_CALL, &fd), EBADF);
	fd = nfd();
	T_ERRNO(ioctl(nfd(), VHOST_VDPA_SET_CONFIG_CALL, &fd), EINVAL);
	fd = -1;
	T_CHECK(!ioctl(nfd(), VHOST_VDPA_SET_CONFIG_CALL, &fd), "unbind: %s", strerror(errno));
}

static void mem_table(void)
{
	static char buf[sizeof(struct vhost_memory) + 600 * sizeof(struct vhost_memory_region)];
	struct vhost_memory *m = (void *)buf;
	unsigned int i;

	stopped();
	memset(buf, 0, sizeof(buf));
	m->nregions = 1;
	m->padding = 1;
	m->regions[0].memory_size = 4096;
	m->regions[0].userspace_addr = (uintptr_t)F[0].mem.r[0].hva;
	T_ERRNO(ioctl(nfd(), VHOST_SET_MEM_TABLE, m), EOPNOTSUPP);
	m->padding = 0;
	m->nregions = VHOST_IOVM_MAX_REGIONS + 1;
	T_ERRNO(ioctl(nfd(), VHOST_SET_MEM_TABLE, m), E2BIG);
	m->nregions = 0xffffffff;
	T_ERRNO(ioctl(nfd(), VHOST_SET_MEM_TABLE, m), E2BIG);
	/* as many as may be, apart from each other */
	m->nregions = VHOST_IOVM_MAX_REGIONS;
	for (i = 0; i < m->nregions; i++) {
		m->regions[i].guest_phys_addr = i * 65536ull;
		m->regions[i].memory_size = 4096;
		m->regions[i].userspace_addr = (uintptr_t)F[0].mem.r[0].hva;
	}
	T_CHECK(!ioctl(nfd(), VHOST_SET_MEM_TABLE, m), "509 regions: %s", strerror(errno));
	m->nregions = 1;
	/* host address that wraps, or lies in the kernel */
	m->regions[0].userspace_addr = ~0ull - 2047;
	T_CHECK(ioctl(nfd(), VHOST_SET_MEM_TABLE, m) < 0, "wrapping host address taken");
	m->regions[0].userspace_addr = 0xffff888000000000ull;
	T_CHECK(ioctl(nfd(), VHOST_SET_MEM_TABLE, m) < 0, "kernel address taken");
	m->regions[0].userspace_addr = (uintptr_t)F[0].mem.r[0].hva;
	m->regions[0].memory_size = ~0ull;
	T_CHECK(ioctl(nfd(), VHOST_SET_MEM_TABLE, m) < 0, "region of 2^64 - 1 bytes taken");
}

static void vrings(void)
{
	static const unsigned int nums[] = { 0, 3, 100, 1025, 2048, 65536, 0x80000000 };
	struct vq *q;
	struct vhost_vring_addr a;
	struct vhost_vring_state s = { .index = 2, .num = 4 };
	struct vhost_vring_file f = { 2, -1 };
	unsigned int i, base = 0;
	int r, efd = eventfd(0, 0);

	stopped();
	q = &F[0].d.vqs[0];
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_NUM, &s), ENOBUFS);
	T_ERRNO(ioctl(nfd(), VHOST_GET_VRING_BASE, &s), ENOBUFS);
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_KICK, &f), ENOBUFS);
	s.index = 0xffffffff;
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_BASE, &s), ENOBUFS);
	for (i = 0; i < ARRAY_SIZE(nums); i++) {
		s.index = 0;
		s.num = nums[i];
		T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_NUM, &s), EINVAL);
	}
	s.num = 65536;
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_BASE, &s), EINVAL);
	s.num = VHOST_VRING_BIG_ENDIAN;
	T_CHECK(ioctl(nfd(), VHOST_SET_VRING_ENDIAN, &s) < 0, "big endian taken");
	s.num = VHOST_VRING_LITTLE_ENDIAN;
	T_CHECK(!ioctl(nfd(), VHOST_SET_VRING_ENDIAN, &s), "little endian: %s", strerror(errno));

	memset(&a, 0, sizeof(a));
	a.desc_user_addr = (uintptr_t)q->ring.desc;
	a.avail_user_addr = (uintptr_t)q->ring.avail;
	a.used_user_addr = (uintptr_t)q->ring.used;
	a.flags = 2;
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_ADDR, &a), EOPNOTSUPP);
	a.flags = 0;
	a.desc_user_addr += 8;
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_ADDR, &a), EINVAL);
	a.desc_user_addr -= 8;
	a.avail_user_addr += 1;
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_ADDR, &a), EINVAL);
	a.avail_user_addr -= 1;
	a.used_user_addr += 2;
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_ADDR, &a), EINVAL);

	/* fds */
	for (i = 0; i < 3; i++) {
		static const unsigned long req[] = { VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR };

		f = (struct vhost_vring_file){ 0, 12345 };
		T_ERRNO(ioctl(nfd(), req[i], &f), EBADF);
		f.fd = -2;
		T_ERRNO(ioctl(nfd(), req[i], &f), EBADF);
		f.fd = nfd();
		T_ERRNO(ioctl(nfd(), req[i], &f), EINVAL);
	}
	/* a queue that never ran, one that was not set up */
	r = F[0].d.tp->set_base(&F[0].d, 1, 77);
	T_CHECK(!r, "SET_VRING_BASE: %s", strerror(-r));
	r = F[0].d.tp->get_base(&F[0].d, 1, &base);
	T_CHECK(!r && base == 77, "base of a queue that never ran: %d, %u", r, base);
	f = (struct vhost_vring_file){ 1, efd };
	T_CHECK(ioctl(nfd(), VHOST_SET_VRING_KICK, &f) < 0, "a queue without size and addresses starts");

	/* while it runs */
	T_REQUIRE(!vdev_start(&F[0].d), "start");
	s = (struct vhost_vring_state){ 0, 128 };
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_NUM, &s), EBUSY);
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_BASE, &s), EBUSY);
	f = (struct vhost_vring_file){ 0, -1 };
	T_ERRNO(ioctl(nfd(), VHOST_SET_VRING_KICK, &f), EBUSY);
	T_CHECK(!ioctl(nfd(), VHOST_SET_VRING_CALL, &f), "unbind call: %s", strerror(errno));
	T_CHECK(!ioctl(nfd(), VHOST_SET_VRING_ERR, &f), "unbind err: %s", strerror(errno));
	a = (struct vhost_vring_addr){ 0, 0, (uintptr_t)q->ring.desc + 4096, (uintptr_t)q->ring.used,
				       (uintptr_t)q->ring.avail & ~3ull, 0 };
	T_CHECK(ioctl(nfd(), VHOST_SET_VRING_ADDR, &a) < 0, "another ring while running taken");
	T_CHECK(!vq_start_addr(q, false), "the same ring again");
	close(efd);
}

/* Where a ring may lie. */
static void ring_memory(void)
{
	char path[64] = "/root/iovm-ring-XXXXXX";
	struct vq *q;
	struct vring_desc *desc;
	void *p;
	int fd, r;

	stopped();
	q = &F[0].d.vqs[0];
	desc = q->ring.desc;

	/* nowhere */
	p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	munmap(p, 65536);
	q->ring.desc = p;
	r = vq_start(q);
	T_CHECK(r == -EFAULT, "ring in unmapped memory: %s", strerror(-r));

	/* a used ring that cannot be written */
	q->ring.desc = desc;
	p = mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	{
		struct vring_used *used = q->ring.used;

		q->ring.used = p;
		r = vq_start(q);
		T_CHECK(r == -EFAULT, "used ring in read-only memory: %s", strerror(-r));
		q->ring.used = used;
	}
	munmap(p, 65536);

	/* a file of a file system */
	fd = mkstemp(path);
	if (fd < 0) {
		strcpy(path, "/var/tmp/iovm-ring-XXXXXX");
		fd = mkstemp(path);
	}
	if (fd >= 0) {
		T_CHECK(!ftruncate(fd, 65536), "ftruncate");
		p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		T_CHECK(p != MAP_FAILED, "mmap");
		q->ring.desc = p;
		memcpy(p, desc, 16 * q->num);
		r = vq_start(q);
		/* the root of the test machine may itself be tmpfs: then the ring is shmem and fine */
		if (r == 0)
			vq_stop(q);
		else
			T_CHECK(r == -EOPNOTSUPP || r == -EFAULT, "ring in a file: %s", strerror(-r));
		ktap_note("ring in %s: %s", path, r ? strerror(-r) : "taken (shmem)");
		q->ring.desc = desc;
		munmap(p, 65536);
		close(fd);
		unlink(path);
	}
	/* a device's memory: the second half of what cannot be pinned */
	fd = open("/dev/zero", O_RDWR);
	p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (p != MAP_FAILED) {
		/* a private mapping of /dev/zero is anonymous memory */
		memcpy(p, desc, 16 * q->num);
		q->ring.desc = p;
		r = vq_start(q);
		T_CHECK(r == 0, "ring in private /dev/zero: %s", strerror(-r));
		if (!r)
			vq_stop(q);
		q->ring.desc = desc;
		munmap(p, 65536);
	}
	close(fd);
	/* and after all that it starts */
	r = vq_start(q);
	T_CHECK(r == 0, "start: %s", strerror(-r));
}

/* Without CAP_IPC_LOCK the rings count against RLIMIT_MEMLOCK. */
static void locked_memory(void)
{
	int status = 0;
	pid_t pid;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 2);
	pid = fork();
	if (!pid) {
		struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
		struct __user_cap_data_struct c[2];
		struct rlimit rl = { 4096, 4096 };
		struct gmem m = {};
		struct vdev d;
		int r;

		if (gmem_add(&m, 0, 32 * MiB, GMEM_MEMFD) < 0 || vdev_open_node(&d, ctl_node("kt-0")) ||
		    vdev_setup(&d, &m, RING_FEATURES, 1, 1024))
			_exit(2);
		syscall(SYS_capget, &h, c);
		c[0].effective &= ~(1u << CAP_IPC_LOCK);
		c[0].permitted &= ~(1u << CAP_IPC_LOCK);
		if (syscall(SYS_capset, &h, c) || setrlimit(RLIMIT_MEMLOCK, &rl))
			_exit(3);
		r = vq_start(&d.vqs[0]);
		if (r != -ENOMEM) {
			ktap_note("start: %s", strerror(-r));
			_exit(4);
		}
		_exit(0);
	}
	waitpid(pid, &status, 0);
	T_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %x (exit 4: not ENOMEM)", status);
}

static void workers(void)
{
	struct vhost_worker_state w = {}, w2;
	struct vhost_vring_worker v = {};
	unsigned int i, made = 0;

	stopped();
	w.worker_id = 4711;
	T_ERRNO(ioctl(nfd(), VHOST_FREE_WORKER, &w), ENODEV);
	v.worker_id = 4711;
	T_ERRNO(ioctl(nfd(), VHOST_ATTACH_VRING_WORKER, &v), ENODEV);
	v.index = 99;
	T_ERRNO(ioctl(nfd(), VHOST_ATTACH_VRING_WORKER, &v), ENOBUFS);
	T_CHECK(!ioctl(nfd(), VHOST_NEW_WORKER, &w), "NEW_WORKER: %s", strerror(errno));
	w2 = w;
	T_CHECK(!ioctl(nfd(), VHOST_FREE_WORKER, &w2), "FREE_WORKER: %s", strerror(errno));
	T_ERRNO(ioctl(nfd(), VHOST_FREE_WORKER, &w2), ENODEV);
	/* there is an end to it */
	for (i = 0; i < 1000; i++) {
		if (ioctl(nfd(), VHOST_NEW_WORKER, &w))
			break;
		made++;
	}
	T_CHECK(made < 1000, "a thousand workers");
}

static void log_base(void)
{
	u64 base, f;
	int r;

	start(RING_FEATURES);
	base = 0x1000;		/* not mapped */
	r = ioctl(nfd(), VHOST_SET_LOG_BASE, &base) ? -errno : 0;
	if (!r) {
		/* taken as it is: then writing it fails, and that must harm nobody */
		f = F[0].d.features | BIT64(VHOST_F_LOG_ALL);
		r = ioctl(nfd(), VHOST_SET_FEATURES, &f) ? -errno : 0;
		ktap_note("log at an unmapped address: LOG_ALL: %s", r ? strerror(-r) : "taken");
		vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, 0, 512);
		f = F[0].d.features;
		T_CHECK(!ioctl(nfd(), VHOST_SET_FEATURES, &f), "LOG_ALL off: %s", strerror(errno));
	} else {
		T_CHECK(r == -EFAULT, "unmapped log: %s", strerror(-r));
	}
	base = 0xffff888000000000ull;
	T_CHECK(ioctl(nfd(), VHOST_SET_LOG_BASE, &base) < 0, "log in the kernel's memory taken");
	base = ~0ull;
	T_CHECK(ioctl(nfd(), VHOST_SET_LOG_BASE, &base) < 0, "log at the end of the address space taken");
	T_CHECK(vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_IN, 0, 512) == 0, "the other queue suffers");
}

/* --- a hostile guest --- */

#define BROKEN	1u
#define IOERR	2u
#define OK	4u
#define UNSUPP	8u
#define NOSTATUS 16u		/* completed, but no status could be written */

static u64 h_gpa, d_gpa, s_gpa, i_gpa;
static char tok;

static void desc(struct vq *q, u16 i, u64 addr, u32 len, u16 flags, u16 next)
{
	q->ring.desc[i] = (struct vring_desc){ .addr = addr, .len = len, .flags = flags, .next = next };
}

static struct vring_desc *itab(void)
{
	return gmem_ptr(&F[0].mem, i_gpa);
}

#define NEXT	VRING_DESC_F_NEXT
#define WRITE	VRING_DESC_F_WRITE
#define INDIR	VRING_DESC_F_INDIRECT

static void good_chain(struct vq *q)
{
	desc(q, 0, h_gpa, 16, NEXT, 1);
	desc(q, 1, d_gpa, 512, NEXT | WRITE, 2);
	desc(q, 2, s_gpa, 1, WRITE, 0);
}

static void b_self_loop(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].next = 1;
}

static void b_loop(struct vq *q)
{
	good_chain(q);
	q->ring.desc[2].flags |= NEXT;
	q->ring.desc[2].next = 0;
}

static void b_next_range(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].next = q->num;
}

static void b_next_max(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].next = 0xffff;
}

static void b_data_addr(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].addr = 1ull << 40;
}

static void b_data_wraps(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].addr = ~0ull - 100;
}

static void b_data_end(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].addr = 32 * MiB - 256;
}

static void b_hdr_addr(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].addr = 1ull << 45;
}

static void b_status_addr(struct vq *q)
{
	good_chain(q);
	q->ring.desc[2].addr = 1ull << 45;
}

static void b_zero_len(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].len = 0;
}

static void b_zero_status(struct vq *q)
{
	good_chain(q);
	q->ring.desc[2].len = 0;
}

static void b_huge_len(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].len = 0xfffffe00;
}

static void b_short_header(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].len = 15;
}

static void b_no_header(struct vq *q)
{
	good_chain(q);
	q->ring.desc[0].flags |= WRITE;
}

static void b_no_status(struct vq *q)
{
	desc(q, 0, h_gpa, 16, NEXT, 1);
	desc(q, 1, d_gpa, 512, 0, 0);
}

static void b_ro_status(struct vq *q)
{
	good_chain(q);
	q->ring.desc[1].flags = NEXT;
	q->ring.desc[2].flags = 0;
}

static void b_header_only(struct vq *q)
{
	desc(q, 0, h_gpa, 16, 0, 0);
}

static void b_status_only(struct vq *q)
{
	desc(q, 0, s_gpa, 1, WRITE, 0);
}

static void b_order(struct vq *q)
{
	/* device-writable before device-readable */
	desc(q, 0, d_gpa, 512, NEXT | WRITE, 1);
	desc(q, 1, h_gpa, 16, NEXT, 2);
	desc(q, 2, s_gpa, 1, WRITE, 0);
}

static void b_ind(struct vq *q, u32 len, u16 flags)
{
	struct vring_desc *t = itab();

	memset(t, 0, 16 * 2048);
	t[0] = (struct vring_desc){ h_gpa, 16, NEXT, 1 };
	t[1] = (struct vring_desc){ d_gpa, 512, NEXT | WRITE, 2 };
	t[2] = (struct vring_desc){ s_gpa, 1, WRITE, 0 };
	desc(q, 0, i_gpa, len, INDIR | flags, 1);
}

static void b_ind_good(struct vq *q)
{
	b_ind(q, 48, 0);
}

static void b_ind_next(struct vq *q)
{
	b_ind(q, 48, NEXT);
}

static void b_ind_nested(struct vq *q)
{
	b_ind(q, 48, 0);
	itab()[0] = (struct vring_desc){ i_gpa, 48, INDIR, 0 };
}

static void b_ind_odd(struct vq *q)
{
	b_ind(q, 40, 0);
}

static void b_ind_empty(struct vq *q)
{
	b_ind(q, 0, 0);
}

static void b_ind_huge(struct vq *q)
{
	b_ind(q, 0xfffffff0, 0);
}

static void b_ind_outside(struct vq *q)
{
	b_ind(q, 48, 0);
	q->ring.desc[0].addr = 1ull << 44;
}

static void b_ind_loop(struct vq *q)
{
	b_ind(q, 48, 0);
	itab()[1].next = 0;
}

static void b_ind_next_range(struct vq *q)
{
	b_ind(q, 48, 0);
	itab()[1].next = 3;
}

/* a table far longer than any queue */
static void b_ind_long(struct vq *q)
{
	struct vring_desc *t;
	unsigned int i;

	b_ind(q, 16 * 2048, 0);
	t = itab();
	for (i = 1; i < 2047; i++)
		t[i] = (struct vring_desc){ d_gpa, 512, NEXT | WRITE, i + 1 };
	t[2047] = (struct vring_desc){ s_gpa, 1, WRITE, 0 };
}

static void b_head_range(struct vq *q)
{
	good_chain(q);
	q->ring.avail->ring[0] = q->num + 5;
}

static void b_avail_jump(struct vq *q)
{
	good_chain(q);
	q->avail_idx = q->num + 7;
}

static void b_avail_back(struct vq *q)
{
	good_chain(q);
	q->avail_idx = 0xfff0;
}

static const struct bad {
	const char *name;
	void (*build)(struct vq *q);
	unsigned int ok;		/* what may come of it */
} bads[] = {
	{ "descriptor points to itself", b_self_loop, BROKEN },
	{ "loop of descriptors", b_loop, BROKEN },
	{ "next out of range", b_next_range, BROKEN },
	{ "next is 0xffff", b_next_max, BROKEN },
	{ "head out of range", b_head_range, BROKEN },
	{ "data outside of memory", b_data_addr, BROKEN | IOERR },
	{ "data at the end of 64 bits", b_data_wraps, BROKEN | IOERR },
	{ "data beyond the end of memory", b_data_end, BROKEN | IOERR },
	{ "header outside of memory", b_hdr_addr, BROKEN | IOERR },
	{ "status outside of memory", b_status_addr, BROKEN | NOSTATUS },
	{ "data of length zero", b_zero_len, BROKEN | IOERR | OK },
	{ "status of length zero", b_zero_status, BROKEN | IOERR | NOSTATUS },
	{ "data of 4 GiB", b_huge_len, BROKEN | IOERR },
	{ "header of 15 bytes", b_short_header, BROKEN | IOERR },
	{ "no readable part", b_no_header, BROKEN | IOERR },
	{ "no writable part", b_no_status, BROKEN | NOSTATUS },
	{ "status that may not be written", b_ro_status, BROKEN | NOSTATUS },
	{ "header alone", b_header_only, BROKEN | NOSTATUS },
	{ "status alone", b_status_only, BROKEN | IOERR },
	{ "writable before readable", b_order, BROKEN | IOERR },
	{ "indirect, a good one", b_ind_good, OK },
	{ "indirect with next", b_ind_next, BROKEN },
	{ "indirect in indirect", b_ind_nested, BROKEN },
	{ "indirect of 40 bytes", b_ind_odd, BROKEN },
	{ "indirect of no bytes", b_ind_empty, BROKEN },
	{ "indirect of 4 GiB", b_ind_huge, BROKEN },
	{ "indirect outside of memory", b_ind_outside, BROKEN },
	{ "loop in indirect", b_ind_loop, BROKEN },
	{ "next out of range in indirect", b_ind_next_range, BROKEN },
	{ "indirect of 2048 entries", b_ind_long, BROKEN | IOERR },
	{ "avail index jumps ahead", b_avail_jump, BROKEN },
	{ "avail index jumps back", b_avail_back, BROKEN },
};

static void bad_rings(void)
{
	struct ctl_events ev;
	struct vq *q;
	unsigned int i, nr_broken = 0;

	start(RING_FEATURES);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	q = &F[0].d.vqs[0];
	h_gpa = gmem_alloc(&F[0].mem, -1, 16, 16);
	d_gpa = gmem_alloc(&F[0].mem, -1, 4096, 4096);
	i_gpa = gmem_alloc(&F[0].mem, -1, 16 * 2048, 4096);
	s_gpa = gmem_alloc(&F[0].mem, -1, 1, 1);
	for (i = 0; i < ARRAY_SIZE(bads) && !ktap_failed(); i++) {
		struct virtio_blk_outhdr *h = gmem_ptr(&F[0].mem, h_gpa);
		volatile u8 *st = gmem_ptr(&F[0].mem, s_gpa);
		u64 end = now_ns() + 3000000000ull;
		unsigned int got = 0;
		u16 base;
		int r;

		*h = (struct virtio_blk_outhdr){ .type = VIRTIO_BLK_T_IN };
		*st = 0xaa;
		q->nr_free = 0;
		q->avail_idx = 0;
		vq_add_raw(q, 0, &tok);
		bads[i].build(q);
		vq_publish(q);
		q->published = 1;
		vq_kick(q);
		while (!got && now_ns() < end) {
			if (vq_err_signalled(q, 2))
				got = BROKEN;
			else if (vq_has_used(q))
				got = *st == 0 ? OK : *st == 1 ? IOERR : *st == 2 ? UNSUPP : NOSTATUS;
		}
		T_CHECK(got, "%s: nothing happened", bads[i].name);
		T_CHECK(!got || (got & bads[i].ok), "%s: %s", bads[i].name, got == BROKEN ? "ring is broken" : got == OK ? "OK" :
			got == IOERR ? "IOERR" : got == UNSUPP ? "UNSUPP" : "completed without a status");
		if (got == BROKEN) {
			nr_broken++;
			T_CHECK(ctl_events_wait(&ev, ev.nr_seen, IOVM_EV_QUEUE_BROKEN, "kt-0", NULL, 0) >= 0 ||
				ctl_events_count(&ev, IOVM_EV_QUEUE_BROKEN, "kt-0") == nr_broken,
				"%s: no event", bads[i].name);
			/* it is stopped: a good request is not served */
			T_CHECK(!vq_has_used(q), "%s: broken and completed", bads[i].name);
		}
		/* nothing else is harmed */
		r = vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_IN, 0, 4096);
		T_CHECK(r == 0, "%s: the other queue: %d", bads[i].name, r);
		/* and the queue works again once it was set up anew */
		base = q->base;
		r = vq_stop(q);
		T_CHECK(!r, "%s: stop: %s", bads[i].name, strerror(-r));
		if (got == BROKEN)
			T_CHECK(q->base == base || q->base == (u16)(base + 1), "%s: base %u", bads[i].name, q->base);
		vq_reset(q);
		r = vq_start(q);
		T_CHECK(!r, "%s: start: %s", bads[i].name, strerror(-r));
		r = vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 4096);
		T_CHECK(r == 0, "%s: the queue afterwards: %d", bads[i].name, r);
		vq_err_signalled(q, 0);
		vq_stop(q);
		vq_reset(q);
		T_CHECK(!vq_start(q), "start");
	}
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 0), "a guest's ring failed the path");
	ctl_events_close(&ev);
}

static void indirect_not_negotiated(void)
{
	struct vq *q;

	start(0);
	q = &F[0].d.vqs[0];
	h_gpa = gmem_alloc(&F[0].mem, -1, 16, 16);
	d_gpa = gmem_alloc(&F[0].mem, -1, 4096, 4096);
	i_gpa = gmem_alloc(&F[0].mem, -1, 16 * 2048, 4096);
	s_gpa = gmem_alloc(&F[0].mem, -1, 1, 1);
	memset(gmem_ptr(&F[0].mem, h_gpa), 0, 16);
	vq_add_raw(q, 0, &tok);
	b_ind(q, 48, 0);
	vq_publish(q);
	vq_kick(q);
	/* a driver that breaks the rules: served all the same, or broken; never ignored */
	T_CHECK(vq_err_signalled(q, 1000) || vq_has_used(q), "an indirect table that was not negotiated: nothing happened");
}

/* Random rings, seeded: nothing may hang or crash; the other queue is served throughout. */
static void fuzz(void)
{
	u64 rnd = 0xfadedull;
	struct vq *q;
	unsigned int n, i;

	start(RING_FEATURES);
	q = &F[0].d.vqs[0];
	i_gpa = gmem_alloc(&F[0].mem, -1, 65536, 4096);
	for (n = 0; n < 150 && !ktap_failed(); n++) {
		static const u32 lens[] = { 0, 1, 15, 16, 17, 512, 4096, 65536, 1 << 20, 0x7fffffff, 0xffffffff };
		struct vring_desc *t = itab();
		int r;

		for (i = 0; i < q->num + 256; i++) {
			struct vring_desc *e = i < q->num ? &q->ring.desc[i] : &t[i - q->num];
			u32 k = rnd64(&rnd) % 8;

			e->addr = k < 5 ? rnd64(&rnd) % (32 * MiB) : k == 5 ? i_gpa : k == 6 ? rnd64(&rnd) : 32 * MiB - 8;
			/* never over the rings: the driver itself needs them */
			if (e->addr < MiB)
				e->addr += 8 * MiB;
			e->len = lens[rnd64(&rnd) % ARRAY_SIZE(lens)];
			e->flags = rnd64(&rnd) % 8;
			if (e->flags & WRITE && e->len > 4096)
				e->len = 512;
			e->next = rnd64(&rnd) % (rnd64(&rnd) % 4 ? 64 : 65536);
		}
		for (i = 0; i < 8; i++)
			q->ring.avail->ring[i] = rnd64(&rnd) % (rnd64(&rnd) % 8 ? 64 : 65536);
		__atomic_store_n(&q->ring.avail->idx, 1 + rnd64(&rnd) % 8, __ATOMIC_RELEASE);
		vq_kick(q);
		sleep_ms(3);
		r = vblk_io(&F[0].s, &F[0].d.vqs[1], VIRTIO_BLK_T_FLUSH, 0, 0);
		T_CHECK(r == 0 || r == VIRTIO_BLK_S_UNSUPP, "round %u: the other queue: %d", n, r);
		r = vq_stop(q);
		T_CHECK(!r, "round %u: stop: %s", n, strerror(-r));
		vq_reset(q);
		vq_err_signalled(q, 0);
		r = vq_start(q);
		T_CHECK(!r, "round %u: start: %s", n, strerror(-r));
	}
	T_CHECK(vblk_io(&F[0].s, q, VIRTIO_BLK_T_IN, 0, 4096) == 0, "a good request afterwards");
}

/* --- the mux's node --- */

#define MUX(req, arg, err)	T_ERRNO(ioctl(ctl_fd(), req, arg), err)

static void mux_sizes(void)
{
	static const unsigned long reqs[] = {
		IOVM_GET_VERSION, IOVM_DEV_CREATE, IOVM_DEV_DESTROY, IOVM_DEV_GET, IOVM_DEV_CTL, IOVM_DEV_STATS, IOVM_PATH_ADD,
		IOVM_PATH_REMOVE, IOVM_PATH_GET, IOVM_PATH_CONNECT, IOVM_PATH_CTL, IOVM_PATH_STATS, IOVM_EVENTS_FROM,
	};
	u32 buf[4096] = {};
	unsigned int i;
	struct { struct iovm_version v; u32 tail[16]; } v = {};

	for (i = 0; i < ARRAY_SIZE(reqs); i++) {
		buf[0] = 0;
		MUX(reqs[i], buf, EINVAL);
		buf[0] = 3;
		MUX(reqs[i], buf, EINVAL);
		buf[0] = 8192;		/* longer than any; not all zero behind */
		buf[2000] = 1;
		MUX(reqs[i], buf, E2BIG);
		buf[2000] = 0;
		buf[0] = 0xffffffff;
		T_CHECK(ioctl(ctl_fd(), reqs[i], buf) < 0 && (errno == EINVAL || errno == E2BIG), "size 2^32 - 1: %d", errno);
		MUX(reqs[i], (void *)8, EFAULT);
	}
	MUX(_IO(IOVM_IOC_TYPE, 0x77), NULL, ENOTTY);
	MUX(_IO('x', 0x77), NULL, ENOTTY);
	/* longer, zero behind: fine, and the kernel says how much it knows */
	v.v.size = sizeof(v);
	T_CHECK(!ioctl(ctl_fd(), IOVM_GET_VERSION, &v) && v.v.size <= sizeof(v) && v.v.abi == IOVM_ABI_VERSION,
		"longer struct: %s, size %u, abi %u", strerror(errno), v.v.size, v.v.abi);
	T_CHECK(v.v.classes & (1u << IOVM_CLASS_BLK), "class block is missing: %llx", (unsigned long long)v.v.classes);
	T_CHECK((v.v.path_types & 6) == 6, "path types %llx", (unsigned long long)v.v.path_types);
	/* shorter than the first version's: nobody ever built with that */
	v.v.size = 8;
	MUX(IOVM_GET_VERSION, &v, EINVAL);
}

#define BAD_CREATE(stmt, want) do {						\
	struct iovm_dev_create c_, *c = &c_;					\
	int r_;									\
										\
	ctl_dev_defaults(c, "kt-x", MB * 2048, 1);				\
	stmt;									\
	ctl_msg[0] = 0;								\
	r_ = ctl_dev_create(c);							\
	if (!r_)								\
		ctl_dev_destroy(c->name, IOVM_DESTROY_F_FORCE);			\
	T_CHECK(r_ == -(want), "%s: %s (%s)", #stmt, strerror(-r_), ctl_msg);	\
	T_CHECK(r_ == 0 || ctl_msg[0], "%s: no message", #stmt);		\
} while (0)

static void mux_create(void)
{
	BAD_CREATE(c->blk.capacity = 0, EINVAL);
	BAD_CREATE(c->blk.capacity = ~0ull, EINVAL);
	BAD_CREATE(c->blk.block_size = 0, EINVAL);
	BAD_CREATE(c->blk.block_size = 1024, EINVAL);
	BAD_CREATE(c->blk.block_size = 4096; c->blk.capacity = 2049, EINVAL);
	BAD_CREATE(c->blk.physical_block_size = 511, EINVAL);
	BAD_CREATE(c->blk.physical_block_size = 3072, EINVAL);
	BAD_CREATE(c->blk.physical_block_size = 2 * MiB, EINVAL);
	BAD_CREATE(c->blk.num_queues = 0, EINVAL);
	BAD_CREATE(c->blk.num_queues = 65, EINVAL);
	BAD_CREATE(c->blk.queue_size = 3, EINVAL);
	BAD_CREATE(c->blk.queue_size = 2048, EINVAL);
	BAD_CREATE(c->blk.pad = 1, EINVAL);
	BAD_CREATE(c->blk.pad2 = 1, EINVAL);
	BAD_CREATE(c->pad = 1, EINVAL);
	BAD_CREATE(c->flags = 2, EINVAL);
	BAD_CREATE(c->mode = 01000, EINVAL);
	BAD_CREATE(c->class = 0, ENODEV);
	BAD_CREATE(c->class = 99, ENODEV);
	BAD_CREATE(c->class = IOVM_CLASS_NET, ENODEV);
	BAD_CREATE(c->name[0] = 0, EINVAL);
	BAD_CREATE(strcpy(c->name, "-x"), EINVAL);
	BAD_CREATE(strcpy(c->name, ".x"), EINVAL);
	BAD_CREATE(strcpy(c->name, "a/b"), EINVAL);
	BAD_CREATE(strcpy(c->name, "a b"), EINVAL);
	BAD_CREATE(strcpy(c->name, "kt-\xc3\xa9"), EINVAL);
	BAD_CREATE(memset(c->name, 'a', sizeof(c->name)), EINVAL);
	/* the longest name there is */
	BAD_CREATE(memset(c->name, 'a', sizeof(c->name) - 1); memcpy(c->name, "kt-", 3), 0);
	BAD_CREATE(c->blk.physical_block_size = 4096, 0);
	BAD_CREATE(c->blk.num_queues = 64; c->blk.queue_size = 1024, 0);
	ctl_must_create("kt-x", MB * 2048, 1);
	BAD_CREATE(c->blk.capacity = 8, EEXIST);
}

static void mux_devices(void)
{
	struct iovm_dev_info i;
	struct iovm_dev_stats s;
	unsigned int n;
	int r;
	static const u32 bad_ops[] = { 0, 11, 99, 0xffffffff };

	r = ctl_dev_destroy("kt-none", 0);
	T_CHECK(r == -ENOENT && ctl_msg[0], "destroy: %s", strerror(-r));
	r = ctl_dev_get("kt-none", &i);
	T_CHECK(r == -ENOENT, "get: %s", strerror(-r));
	r = ctl_dev_stats("kt-none", &s);
	T_CHECK(r == -ENOENT, "stats: %s", strerror(-r));
	r = ctl_dev_ctl("kt-none", IOVM_DEV_SUSPEND, NULL, 0);
	T_CHECK(r == -ENOENT, "ctl: %s", strerror(-r));
	r = ctl_path_add_nbd("kt-none", "b", 0, 0, 0, 0);
	T_CHECK(r == -ENOENT, "path add: %s", strerror(-r));
	r = ctl_path_remove("kt-none", "b", 0);
	T_CHECK(r == -ENOENT, "path remove: %s", strerror(-r));
	r = ctl_path_ctl("kt-none", "b", IOVM_PATH_CTL_FAIL);
	T_CHECK(r == -ENOENT, "path ctl: %s", strerror(-r));
	r = ctl_path_connect("kt-none", "b", (int[]){ 0 }, 1, 1, 1, 0);
	T_CHECK(r == -ENOENT, "path connect: %s", strerror(-r));

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	for (n = 0; n < ARRAY_SIZE(bad_ops); n++) {
		r = ctl_dev_ctl("kt-0", bad_ops[n], NULL, 0);
		T_CHECK(r == -EINVAL, "dev op %u: %s", bad_ops[n], strerror(-r));
		r = ctl_path_ctl("kt-0", "a", bad_ops[n]);
		T_CHECK(r == -EINVAL, "path op %u: %s", bad_ops[n], strerror(-r));
	}
	r = ctl_path_ctl("kt-0", "nix", IOVM_PATH_CTL_FAIL);
	T_CHECK(r == -ENOENT, "path ctl: %s", strerror(-r));
	r = ctl_path_remove("kt-0", "nix", 0);
	T_CHECK(r == -ENOENT, "path remove: %s", strerror(-r));
	r = ctl_path_remove("kt-0", "a", 2);
	T_CHECK(r == -EINVAL, "path remove, flag 2: %s", strerror(-r));
	r = ctl_dev_destroy("kt-0", 2);
	T_CHECK(r == -EINVAL, "destroy, flag 2: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "nix", 0);
	T_CHECK(r == -ENOENT || r == -ENOLINK, "failover to a path that is not there: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, NULL, 0);
	T_CHECK(r == -ENOLINK, "failover with one path: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, MB * 4096);
	T_CHECK(r < 0 && ctl_msg[0], "resize beyond the path: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, 0);
	T_CHECK(r == -EINVAL, "resize to nothing: %s", strerror(-r));
}

static void mux_paths(void)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true };
	char small[64], four[64], dm[64];
	struct iovm_path_add a;
	char file[] = "/tmp/iovm-x-XXXXXX";
	unsigned int i;
	int r, fd;

	fix_store_make(MB, 512);
	ctl_must_create("kt-0", MB * 2048, 1);
	o.size_mb = MB / 2;
	T_REQUIRE(!nullb_create("iovmtsmall", &o, small), "null_blk");
	o.size_mb = MB;
	o.block_size = 4096;
	T_REQUIRE(!nullb_create("iovmtfour", &o, four), "null_blk");

	r = ctl_path_add_bdev("kt-0", "b", small, 0, 0);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "smaller: %s: %s", strerror(-r), ctl_msg);
	ktap_note("smaller: %s", ctl_msg);
	r = ctl_path_add_bdev("kt-0", "b", four, 0, 0);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "4096-byte blocks: %s: %s", strerror(-r), ctl_msg);
	ktap_note("4096-byte blocks: %s", ctl_msg);

	for (i = 0; i < 7; i++) {
		static const struct { const char *what; int err; } want[] = {
			{ "bad fd", EBADF }, { "no fd", EBADF }, { "regular file", ENOTBLK }, { "character device", ENOTBLK },
			{ "type 9", ENODEV }, { "flags", EINVAL }, { "fence 9", EINVAL },
		};

		memset(&a, 0, sizeof(a));
		a.size = sizeof(a);
		a.type = IOVM_PATH_BDEV;
		strcpy(a.dev, "kt-0");
		strcpy(a.name, "b");
		fd = open(fix_store, O_RDWR);
		a.fd = fd;
		if (i == 0)
			a.fd = 12345;
		if (i == 1)
			a.fd = -1;
		if (i == 2) {
			close(fd);
			a.fd = fd = mkstemp(file);
		}
		if (i == 3) {
			close(fd);
			a.fd = fd = open("/dev/null", O_RDWR);
		}
		if (i == 4)
			a.type = 9;
		if (i == 5)
			a.flags = 4;
		if (i == 6)
			a.fence = 9;
		r = ctl_ioctl(IOVM_PATH_ADD, &a);
		T_CHECK(r == -want[i].err || (i == 3 && r == -ENXIO), "%s: %s", want[i].what, strerror(-r));
		close(fd);
	}
	unlink(file);
	memset(&a, 0, sizeof(a));
	a.size = sizeof(a);
	a.type = IOVM_PATH_BDEV;
	a.flags = IOVM_PATH_F_CACHE_SURVIVES | IOVM_PATH_F_CACHE_DIES;
	a.fd = open(fix_store, O_RDWR);
	strcpy(a.dev, "kt-0");
	strcpy(a.name, "b");
	r = ctl_ioctl(IOVM_PATH_ADD, &a);
	T_CHECK(r == -EINVAL, "both cache flags: %s", strerror(-r));
	strcpy(a.name, "../x");
	a.flags = 0;
	r = ctl_ioctl(IOVM_PATH_ADD, &a);
	T_CHECK(r == -EINVAL, "path name ../x: %s", strerror(-r));
	close(a.fd);

	/* held by another */
	r = dm_create("iovmt-held", dm_linear(fix_store, MB * 2048), dm);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_path_add_bdev("kt-0", "b", fix_store, 0, 0);
	T_CHECK(r == -EBUSY && ctl_msg[0], "a device that dm holds: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev("kt-0", "b", dm, 0, 0);
	T_CHECK(!r, "dm: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev("kt-0", "b", dm, 0, 0);
	T_CHECK(r == -EEXIST, "same name: %s", strerror(-r));
	r = ctl_path_add_bdev("kt-0", "c", dm, 0, 0);
	T_CHECK(r == -EBUSY || r == 0, "same device again: %s", strerror(-r));
	ctl_must_create("kt-1", MB * 2048, 1);
	r = ctl_path_add_bdev("kt-1", "b", dm, 0, 0);
	T_CHECK(r == -EBUSY, "a device that another device's path has: %s", strerror(-r));

	for (i = 0; i < IOVM_MAX_PATHS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		r = ctl_path_add_nbd("kt-1", name, 0, 0, 0, 0);
		T_CHECK(!r, "path %u: %s: %s", i, strerror(-r), ctl_msg);
	}
	r = ctl_path_add_nbd("kt-1", "n9", 0, 0, 0, 0);
	T_CHECK(r == -ENOSPC, "ninth path: %s", strerror(-r));
}

static void mux_connect(void)
{
	u32 fl = NBDSRV_FLAGS;
	int r, sv[2], udp, fds[IOVM_MAX_SOCKETS + 1], lst;
	u64 bytes = MB * MiB;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	r = ctl_path_add_nbd("kt-0", "n", 0, 0, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv), "socketpair");
	udp = socket(AF_INET, SOCK_DGRAM, 0);
	lst = socket(AF_INET, SOCK_STREAM, 0);

	r = ctl_path_connect("kt-0", "n", (int[]){ 12345 }, 1, bytes, fl, 0);
	T_CHECK(r == -EBADF, "bad fd: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", (int[]){ ctl_fd() }, 1, bytes, fl, 0);
	T_CHECK(r == -ENOTSOCK, "no socket: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", &udp, 1, bytes, fl, 0);
	T_CHECK(r == -EPROTOTYPE, "datagram socket: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", &lst, 1, bytes, fl, 0);
	T_CHECK(r < 0, "unconnected socket: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 0, bytes, fl, 0);
	T_CHECK(r == -EINVAL, "no sockets: %s", strerror(-r));
	memset(fds, 0, sizeof(fds));
	r = ctl_path_connect("kt-0", "n", fds, IOVM_MAX_SOCKETS + 1, bytes, fl, 0);
	T_CHECK(r == -EINVAL, "17 sockets: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 2, bytes, fl & ~NBD_F_MULTI_CONN, 0);
	T_CHECK(r == -EINVAL, "two sockets without CAN_MULTI_CONN: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl, 2);
	T_CHECK(r == -EINVAL, "flag 2: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes / 2, fl, 0);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "export of another size: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl | NBD_F_READ_ONLY, 0);
	T_CHECK(r < 0 && ctl_msg[0], "read-only export: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_connect("kt-0", "a", sv, 1, bytes, fl, 0);
	T_CHECK(r < 0, "connecting a bdev path: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl, 0);
	T_CHECK(!r, "good: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl, 0);
	T_CHECK(r == -EBUSY, "while it is live: %s", strerror(-r));
	close(sv[0]);
	close(sv[1]);
	close(udp);
	close(lst);
}

static void mux_caps(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		struct iovm_version v = { .size = sizeof(v) };
		int fd = ctl_fd(), r;

		if (setgid(65534) || setuid(65534))
			_exit(2);
		r = ioctl(fd, IOVM_GET_VERSION, &v) ? errno : 0;
		if (r != EPERM)
			_exit(3);
		if (open(VHOST_IOVM_MUX_NODE, O_RDWR) >= 0)
			_exit(4);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	T_CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "nobody: %x (3: ioctl allowed, 4: open allowed)", status);
}

static const struct ktap_case cases[] = {
	{ "no_owner", no_owner },
	{ "other_process", other_process },
	{ "bad_pointers", bad_pointers },
	{ "unknown_ioctls", unknown_ioctls },
	{ "features", features },
	{ "config_space", config_space },
	{ "mem_table", mem_table },
	{ "vrings", vrings },
	{ "ring_memory", ring_memory },
	{ "locked_memory", locked_memory },
	{ "workers", workers },
	{ "log_base", log_base },
	{ "bad_rings", bad_rings },
	{ "indirect_not_negotiated", indirect_not_negotiated },
	{ "fuzz", fuzz },
	{ "mux_sizes", mux_sizes },
	{ "mux_create", mux_create },
	{ "mux_devices", mux_devices },
	{ "mux_paths", mux_paths },
	{ "mux_connect", mux_connect },
	{ "mux_caps", mux_caps },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
