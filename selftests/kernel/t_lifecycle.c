// SPDX-License-Identifier: GPL-2.0-or-later
/* Devices, front ends and readers come and go: in order, out of order, and by kill -9. */
#include "fix.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)

static struct ctl_events ev;
static pid_t child;

static void cleanup(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = 0;
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen && ev.nr_seen < 200)
		ctl_events_dump(&ev);
	ctl_events_close(&ev);
	dm_suspend("iovmt-a", false);
	fix_cleanup();
}

static void open_twice(void)
{
	struct iovm_dev_info di;
	int fd, fd2, i, r;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	for (i = 0; i < 20; i++) {
		fd = open(ctl_node("kt-0"), O_RDWR);
		T_REQUIRE(fd >= 0, "open: %s", strerror(errno));
		fd2 = open(ctl_node("kt-0"), O_RDWR);
		T_CHECK(fd2 < 0 && errno == EBUSY, "second open: %d, %s", fd2, strerror(errno));
		T_CHECK(!ioctl(fd, VHOST_SET_OWNER, NULL), "owner");
		r = ctl_dev_get("kt-0", &di);
		T_CHECK(!r && di.in_use == 1 && di.owner_pid == (u32)getpid(), "in use %u, pid %u", di.in_use, di.owner_pid);
		close(fd);
	}
	T_CHECK(ctl_events_count(&ev, IOVM_EV_DEV_OPENED, "kt-0") == 20 && ctl_events_count(&ev, IOVM_EV_DEV_CLOSED, "kt-0") == 20,
		"%u opened, %u closed", ctl_events_count(&ev, IOVM_EV_DEV_OPENED, "kt-0"),
		ctl_events_count(&ev, IOVM_EV_DEV_CLOSED, "kt-0"));
	r = ctl_dev_get("kt-0", &di);
	T_CHECK(!r && di.in_use == 0 && di.owner_pid == 0, "in use %u, pid %u", di.in_use, di.owner_pid);
}

static void node_mode(void)
{
	struct iovm_dev_create c;
	struct stat st;
	int r;

	ctl_dev_defaults(&c, "kt-0", SECTORS, 1);
	c.mode = 0640;
	c.uid = 1234;
	c.gid = 4321;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	r = stat(ctl_node("kt-0"), &st);
	T_CHECK(!r && S_ISCHR(st.st_mode) && (st.st_mode & 07777) == 0640, "mode %o", st.st_mode);
	T_CHECK(st.st_uid == 1234 && st.st_gid == 4321, "owner %u:%u", st.st_uid, st.st_gid);
	r = ctl_dev_destroy("kt-0", 0);
	T_CHECK(!r, "destroy: %s", strerror(-r));
	T_CHECK(access(VHOST_IOVM_NODE_DIR "/kt-0", F_OK), "the node is still there");
	r = stat(VHOST_IOVM_MUX_NODE, &st);
	T_CHECK(!r && (st.st_mode & 0077) == 0, "mode of the mux's node %o", st.st_mode);
}

static void destroy_in_use(void)
{
	struct vload_cfg c = { .depth = 16, .mem_idx = -1, .may_fail = true };
	struct vload l;
	u64 f;
	int r, i;

	for (i = 0; i < 5; i++) {
		fix_store_make(MB, 512);
		fix_create(0, fix_store, SECTORS, 2);
		fix_open(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), 2, 128);
		r = vload_start(&l, &F[0].d, &c);
		T_REQUIRE(!r, "load: %s", strerror(-r));
		T_CHECK(vload_progress(&l, 50, 20000), "no progress");
		r = ctl_dev_destroy("kt-0", 0);
		T_CHECK(r == -EBUSY && ctl_msg[0], "destroyed in use: %s", strerror(-r));
		T_CHECK(vload_progress(&l, 50, 20000), "no progress behind the refusal");
		r = ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		T_CHECK(!r, "forced: %s: %s", strerror(-r), ctl_msg);
		T_ERRNO(ioctl(F[0].d.fd, VHOST_GET_FEATURES, &f), ENODEV);
		T_CHECK(open(VHOST_IOVM_NODE_DIR "/kt-0", O_RDWR) < 0, "the node can still be opened");
		/* nothing is written to the guest's memory any more */
		{
			u16 idx[2] = { F[0].d.vqs[0].ring.used->idx, F[0].d.vqs[1].ring.used->idx };

			sleep_ms(50);
			T_CHECK(idx[0] == F[0].d.vqs[0].ring.used->idx && idx[1] == F[0].d.vqs[1].ring.used->idx,
				"completions behind the destruction");
		}
		l.stop = l.abandon = true;
		vload_wait(&l);
		vload_free(&l);
		fix_close(0);
		stor_cleanup();
	}
}

static void module_in_use(void)
{
	static const char *const mods[] = { "vhost_iovm_blk", "iovm_mux", "vhost_iovm" };
	unsigned int i, round;
	int fd = -1, r;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < ARRAY_SIZE(mods); i++) {
			r = ctl_unload_module(mods[i]);
			if (!T_CHECK(r == -EAGAIN || r == -EBUSY, "%s unloaded in use (%s): %s", mods[i],
				     round ? "node open" : "device there", strerror(-r)))
				ctl_load_modules();
		}
		if (!round) {
			fd = open(ctl_node("kt-0"), O_RDWR);
			T_CHECK(fd >= 0, "open");
		}
	}
	close(fd);
}

/* All modules out and in again; nothing may be left behind that prevents it. */
static void module_reload(void)
{
	static const char *const mods[] = { "vhost_iovm_blk", "iovm_mux", "vhost_iovm" };
	bool net = ctl_module_refcnt("vhost_iovm_net") >= 0;
	unsigned int i, round;
	int r;

	if (net) {
		r = ctl_unload_module("vhost_iovm_net");
		T_CHECK(!r, "unload vhost_iovm_net: %s", strerror(-r));
	}
	for (round = 0; round < 3; round++) {
		close(ctl_fd());
		for (i = 0; i < ARRAY_SIZE(mods); i++) {
			r = ctl_unload_module(mods[i]);
			T_CHECK(!r, "unload %s: %s (references %d)", mods[i], strerror(-r), ctl_module_refcnt(mods[i]));
		}
		T_CHECK(access(VHOST_IOVM_MUX_NODE, F_OK) || ktap_failed(), "the mux's node is still there");
		T_REQUIRE(!ctl_setup(), "modules do not load again");
		fix_store_make(MB, 512);
		fix_create(0, fix_store, SECTORS, 1);
		fix_open(0, RING_FEATURES, 1, 64);
		r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, 0, 4096);
		T_CHECK(r == 0, "write: %d", r);
		fix_cleanup();
	}
	if (net)
		T_CHECK(!stor_modprobe("vhost_iovm_net", NULL), "vhost_iovm_net does not load again");
}

/* In a child: the load, until killed. Tells when it is under way. */
static void run_child(int fd, unsigned int nq)
{
	struct vload_cfg c = { .depth = 32, .mem_idx = -1, .indirect = true };
	struct vload l;
	char ok = 'x';

	fix_open(0, RING_FEATURES | BIT64(VIRTIO_BLK_F_MQ), nq, 128);
	if (vload_start(&l, &F[0].d, &c) || !vload_progress(&l, 200, 20000))
		_exit(3);
	if (write(fd, &ok, 1) != 1)
		_exit(4);
	for (;;)
		pause();
}

static void kill_rounds(unsigned int rounds, bool park, u32 latency_ns)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true, .completion_nsec = latency_ns };
	struct iovm_dev_info di;
	u8 *disk = malloc(MB * MiB);
	unsigned int i;
	int r;

	r = nullb_create("iovmtk", &o, fix_store);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	r = dm_create("iovmt-a", dm_linear(fix_store, SECTORS), F[1].name);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	fix_create(0, F[1].name, SECTORS, 2);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	for (i = 0; i < rounds && !ktap_failed(); i++) {
		int p[2], status = 0, fd, tries;
		char c = 0;

		T_REQUIRE(!pipe(p), "pipe");
		child = fork();
		if (!child) {
			close(p[0]);
			run_child(p[1], 2);
		}
		close(p[1]);
		r = read(p[0], &c, 1);
		close(p[0]);
		T_CHECK(r == 1, "round %u: the child's load does not run", i);
		if (park)
			dm_swap("iovmt-a", dm_error(SECTORS), false);
		if (park)
			T_CHECK(ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 5000), "not parked");
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		child = 0;
		T_CHECK(WIFSIGNALED(status), "round %u: child ended with %x", i, status);
		if (park) {
			dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false);
			ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
		}
		/* the node is free at the latest when what was in flight has ended */
		for (tries = 0; tries < 200; tries++) {
			fd = open(ctl_node("kt-0"), O_RDWR);
			if (fd >= 0 || errno != EBUSY)
				break;
			sleep_ms(20);
		}
		T_CHECK(fd >= 0, "round %u: node cannot be opened: %s", i, strerror(errno));
		close(fd);
		r = ctl_dev_get("kt-0", &di);
		T_CHECK(!r && !di.in_use && !di.inflight && !di.requeued && !di.held,
			"in use %u, in flight %llu, requeued %llu, held %llu", di.in_use, (unsigned long long)di.inflight,
			(unsigned long long)di.requeued, (unsigned long long)di.held);
		/* a sector is either as it was or as somebody wrote it: never torn */
		r = stor_pread(fix_store, disk, MB * MiB, 0);
		T_CHECK(!r, "pread: %s", strerror(-r));
		if (!r) {
			u64 s, torn = 0;
			static const u8 zero[512];

			for (s = 0; s < SECTORS; s++)
				if (memcmp(disk + 512 * s, zero, 512) &&
				    !pat_ok(disk + 512 * s, 0x1234567, s, pat_gen(disk + 512 * s)))
					torn++;
			T_CHECK(!torn, "round %u: %llu sectors torn or misplaced", i, (unsigned long long)torn);
		}
	}
	free(disk);
	/* and the next guest finds a device that works */
	fix_open(0, RING_FEATURES, 2, 64);
	r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_OUT, 0, 4096);
	T_CHECK(r == 0, "write: %d", r);
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 1000), "a guest's death failed the path");
}

static void killed(void)
{
	kill_rounds(6, false, 0);
}

static void killed_in_flight(void)
{
	kill_rounds(4, false, 20000000);
}

static void killed_parked(void)
{
	kill_rounds(3, true, 0);
}

/* --- events --- */

static void events_order(void)
{
	static const u32 want[] = {
		IOVM_EV_DEV_CREATED, IOVM_EV_PATH_ADDED, IOVM_EV_DEV_OPENED, IOVM_EV_SUSPENDED, IOVM_EV_RESUMED,
		IOVM_EV_DEV_CLOSED, IOVM_EV_PATH_REMOVED, IOVM_EV_DEV_DESTROYED,
	};
	struct iovm_events_from from = { .size = sizeof(from) };
	struct ctl_events late;
	unsigned int i;
	int at = 0, fd;
	char small[16];
	struct iovm_event one;

	T_REQUIRE(!ctl_events_open(&ev), "events");
	T_ERRNO(read(ev.fd, &one, sizeof(one)), EAGAIN);
	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	fd = open(ctl_node("kt-0"), O_RDWR);
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_SUSPEND, NULL, 0), "suspend: %s", ctl_msg);
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0), "resume: %s", ctl_msg);
	close(fd);
	T_CHECK(!ctl_path_remove("kt-0", "a", 0), "path remove: %s", ctl_msg);
	T_CHECK(!ctl_dev_destroy("kt-0", 0), "destroy: %s", ctl_msg);
	T_ERRNO(read(ev.fd, small, sizeof(small)), EINVAL);	/* a buffer that holds no record */
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		int e = ctl_events_wait(&ev, at, want[i], "kt-0", NULL, 2000);

		if (!T_CHECK(e >= at, "event %u is missing, or out of order", want[i]))
			return;
		at = e + 1;
	}
	T_CHECK(!ev.gap, "sequence has a gap");
	for (i = 1; i < ev.nr_seen; i++)
		T_CHECK(ev.seen[i].mono_ns >= ev.seen[i - 1].mono_ns, "time goes back at event %u", i);
	/* another reader, later, from the first of these */
	T_REQUIRE(!ctl_events_open(&late), "events");
	T_CHECK(ctl_events_poll(&late, 50) == 0, "a new reader begins behind the newest");
	from.seq = ev.seen[0].seq;
	T_CHECK(!ioctl(late.fd, IOVM_EVENTS_FROM, &from), "from: %s", strerror(errno));
	T_CHECK(from.newest >= ev.seen[ev.nr_seen - 1].seq && from.oldest <= from.newest, "oldest %llu, newest %llu",
		(unsigned long long)from.oldest, (unsigned long long)from.newest);
	ctl_events_poll(&late, 1000);
	T_CHECK(late.nr_seen >= ev.nr_seen && !memcmp(&late.seen[0], &ev.seen[0], sizeof(ev.seen[0])),
		"the second reader sees something else");
	ctl_events_close(&late);
}

static void events_lost(void)
{
	struct iovm_events_from from = { .size = sizeof(from) };
	unsigned int i;
	char a[64], b[64];
	u64 first;
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a, b);
	fix_create(0, a, SECTORS, 1);
	r = ctl_path_add_bdev("kt-0", "b", b, 0, 0);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	T_CHECK(!ioctl(ev.fd, IOVM_EVENTS_FROM, &from), "from: %s", strerror(errno));
	/* that call began at the oldest: a fresh one for a position at the end */
	close(ev.fd);
	T_REQUIRE(!ctl_events_open(&ev), "events");
	first = from.newest + 1;
	for (i = 0; i < 4500; i++)
		if (ctl_dev_ctl("kt-0", i % 2 ? IOVM_DEV_FAILBACK : IOVM_DEV_FAILOVER, NULL, 0))
			break;
	T_CHECK(i == 4500, "switch %u: %s", i, ctl_msg);
	ctl_events_poll(&ev, 1000);
	T_REQUIRE(ev.nr_seen > 0, "nothing to read");
	T_CHECK(ev.seen[0].type == IOVM_EV_LOST, "first record is of type %u", ev.seen[0].type);
	T_CHECK(ev.seen[0].value > 0 && ev.nr_seen > 1 && ev.seen[1].seq == first + ev.seen[0].value &&
		ev.seen[0].seq == ev.seen[1].seq, "lost %llu, first was %llu, goes on with %llu (record says %llu)",
		(unsigned long long)ev.seen[0].value, (unsigned long long)first, (unsigned long long)ev.seen[1].seq,
		(unsigned long long)ev.seen[0].seq);
	T_CHECK(!ev.gap, "a gap that no record tells of");
	T_CHECK(ev.nr_seen >= 4096, "%u records kept", ev.nr_seen - 1);
	for (i = 1; i < ev.nr_seen; i++)
		if (!T_CHECK(ev.seen[i].type != IOVM_EV_LOST, "lost twice"))
			break;
}

/* --- leaks --- */

struct mem {
	long slab, stack, vmalloc, percpu, tasks, pin;
	int refs[3];
};

static long field(const char *file, const char *name)
{
	char line[256];
	FILE *f = fopen(file, "r");
	long v = -1;
	size_t n = strlen(name);

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, n) && line[n] == ':')
			v = atol(line + n + 1);
	if (f)
		fclose(f);
	return v;
}

static struct mem measure(void)
{
	struct mem m;
	FILE *f;

	/* let RCU and workqueues come to rest */
	sleep_ms(500);
	m.slab = field("/proc/meminfo", "SUnreclaim");
	m.stack = field("/proc/meminfo", "KernelStack");
	m.vmalloc = field("/proc/meminfo", "VmallocUsed");
	m.percpu = field("/proc/meminfo", "Percpu");
	m.pin = field("/proc/self/status", "VmPin") + field("/proc/self/status", "VmLck");
	m.tasks = 0;
	f = fopen("/proc/loadavg", "r");
	if (f) {
		if (fscanf(f, "%*s %*s %*s %*d/%ld", &m.tasks) != 1)
			m.tasks = 0;
		fclose(f);
	}
	m.refs[0] = ctl_module_refcnt("vhost_iovm");
	m.refs[1] = ctl_module_refcnt("iovm_mux");
	m.refs[2] = ctl_module_refcnt("vhost_iovm_blk");
	return m;
}

static void cycles(unsigned int n)
{
	unsigned int i;
	int r;

	for (i = 0; i < n && !ktap_failed(); i++) {
		ctl_must_create("kt-0", SECTORS, 4);
		strcpy(F[0].name, "kt-0");
		r = ctl_path_add_bdev("kt-0", "a", fix_store, 0, 0);
		T_REQUIRE(!r, "path: %s", ctl_msg);
		r = ctl_path_add_nbd("kt-0", "n", 0, 0, 0, 0);
		T_REQUIRE(!r, "path: %s", ctl_msg);
		fix_open_mem(0, ALL_FEATURES, 4, 256, 12 * MiB, 0);
		r = vblk_io(&F[0].s, &F[0].d.vqs[i % 4], VIRTIO_BLK_T_OUT, 0, 65536);
		T_CHECK(r == 0, "write: %d", r);
		r = vblk_io(&F[0].s, &F[0].d.vqs[i % 4], VIRTIO_BLK_T_IN, 0, 2 * MiB);
		T_CHECK(r == 0, "read: %d", r);
		if (i % 3 == 0)
			vdev_stop(&F[0].d);
		if (i % 5 == 0) {
			r = ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
			T_CHECK(!r, "destroy: %s", ctl_msg);
			fix_close(0);
			continue;
		}
		fix_close(0);
		r = ctl_dev_destroy("kt-0", 0);
		T_CHECK(!r, "destroy: %s: %s", strerror(-r), ctl_msg);
	}
}

static void leaks(void)
{
	struct mem m0, m1;
	unsigned int n = 80;

	fix_store_make(MB, 512);
	cycles(30);
	m0 = measure();
	cycles(n);
	m1 = measure();
	ktap_note("%u cycles: slab %+ld KiB, stacks %+ld KiB, vmalloc %+ld KiB, percpu %+ld KiB, tasks %+ld", n, m1.slab - m0.slab,
		  m1.stack - m0.stack, m1.vmalloc - m0.vmalloc, m1.percpu - m0.percpu, m1.tasks - m0.tasks);
	/* one page a cycle would show; KASAN keeps what is freed, but then kmemleak looks at the end */
	if (access("/sys/kernel/debug/kmemleak", F_OK))
		T_CHECK(m1.slab - m0.slab < (long)n * 4, "slab grew by %ld KiB in %u cycles", m1.slab - m0.slab, n);
	T_CHECK(m1.vmalloc - m0.vmalloc < (long)n * 4, "vmalloc grew by %ld KiB in %u cycles", m1.vmalloc - m0.vmalloc, n);
	T_CHECK(m1.percpu - m0.percpu < (long)n, "percpu grew by %ld KiB in %u cycles", m1.percpu - m0.percpu, n);
	T_CHECK(m1.tasks - m0.tasks < 10, "%ld tasks more", m1.tasks - m0.tasks);
	T_CHECK(m1.pin == 0, "%ld KiB still accounted as locked or pinned", m1.pin);
	T_CHECK(!memcmp(m0.refs, m1.refs, sizeof(m0.refs)), "module references %d %d %d, before %d %d %d", m1.refs[0], m1.refs[1],
		m1.refs[2], m0.refs[0], m0.refs[1], m0.refs[2]);
}

static void many(void)
{
	struct iovm_dev_info di;
	unsigned int i, seen = 0;
	u32 id = 0, last = 0;
	int r;

	for (i = 0; i < 64; i++) {
		char name[16];

		snprintf(name, sizeof(name), "kt-%u", i);
		ctl_must_create(name, SECTORS, 1);
	}
	for (;;) {
		memset(&di, 0, sizeof(di));
		di.size = sizeof(di);
		di.id = id;
		r = ctl_ioctl(IOVM_DEV_GET, &di);
		if (r)
			break;
		T_CHECK(!seen || di.id > last, "ids out of order");
		T_CHECK(di.state == IOVM_DEV_PARKED && di.route_id == IOVM_NO_ID && di.mem_bytes > 0, "%s: state %u, %llu bytes",
			di.name, di.state, (unsigned long long)di.mem_bytes);
		last = di.id;
		id = di.id + 1;
		seen++;
	}
	T_CHECK(r == -ENOENT && seen == 64, "%s, %u devices", strerror(-r), seen);
	for (i = 0; i < 64; i++) {
		char name[16];

		snprintf(name, sizeof(name), "kt-%u", i);
		r = ctl_dev_destroy(name, 0);
		T_CHECK(!r, "destroy %s: %s", name, ctl_msg);
	}
}

/* Control calls and front ends against each other. */
static void *racer(void *arg)
{
	volatile bool *stop = arg;
	unsigned int i = 0;

	while (!*stop) {
		int fd;

		switch (i++ % 6) {
		case 0:
			ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, NULL, 0);
			break;
		case 1:
			ctl_path_remove("kt-0", "b", i % 4 ? 0 : IOVM_PATH_REMOVE_F_FORCE);
			break;
		case 2:
			ctl_path_add_bdev("kt-0", "b", F[2].name, 0, 0);
			break;
		case 3:
			fd = open(VHOST_IOVM_NODE_DIR "/kt-0", O_RDWR);
			if (fd >= 0) {
				ioctl(fd, VHOST_SET_OWNER, NULL);
				close(fd);
			}
			break;
		case 4:
			ctl_dev_ctl("kt-0", IOVM_DEV_SUSPEND, NULL, 0);
			ctl_dev_ctl("kt-0", IOVM_DEV_RESUME, NULL, 0);
			break;
		case 5:
			ctl_path_ctl("kt-0", "a", i % 12 == 5 ? IOVM_PATH_CTL_FAIL : IOVM_PATH_CTL_RETRY);
			break;
		}
	}
	return NULL;
}

static void races(void)
{
	volatile bool stop = false;
	pthread_t t[3];
	unsigned int i, n = 0;
	char a[64];
	u64 end;
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a, F[2].name);
	for (i = 0; i < 3; i++)
		T_REQUIRE(!pthread_create(&t[i], NULL, racer, (void *)&stop), "thread");
	end = now_ns() + 6000000000ull;
	while (now_ns() < end) {
		struct iovm_dev_create c;

		ctl_dev_defaults(&c, "kt-0", SECTORS, 2);
		r = ctl_dev_create(&c);
		T_CHECK(r == 0, "create: %s: %s", strerror(-r), ctl_msg);
		ctl_path_add_bdev("kt-0", "a", a, 0, 0);
		sleep_ms(20);
		/* busy is a right answer while a path is being removed; not for ever */
		for (i = 0; i < 200; i++) {
			r = ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
			if (r != -EBUSY)
				break;
			sleep_ms(5);
		}
		T_CHECK(r == 0, "destroy: %s: %s", strerror(-r), ctl_msg);
		n++;
	}
	stop = true;
	for (i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	ktap_note("%u devices", n);
}

static const struct ktap_case cases[] = {
	{ "open_twice", open_twice },
	{ "node_mode", node_mode },
	{ "destroy_in_use", destroy_in_use },
	{ "module_in_use", module_in_use },
	{ "killed", killed },
	{ "killed_in_flight", killed_in_flight },
	{ "killed_parked", killed_parked },
	{ "events_order", events_order },
	{ "events_lost", events_lost },
	{ "many", many },
	{ "races", races },
	{ "leaks", leaks, 120 },
	{ "module_reload", module_reload },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
