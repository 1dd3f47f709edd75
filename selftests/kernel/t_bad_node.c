// SPDX-License-Identifier: GPL-2.0-or-later
/* What nobody should send to a device's node: each ioctl gets its error; nothing else suffers. */
#include "fix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
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
	/* no flags are known, and vhost does not look at them */
	m->regions[0].flags_padding = ~0ull;
	T_CHECK(!ioctl(nfd(), VHOST_SET_MEM_TABLE, m), "flags_padding: %s", strerror(errno));
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
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
