// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who plays iovm-vhost-user is killed -9 with requests in flight, and a successor takes the in-flight record over: each
 * request completes once, and none is issued while its predecessor may still land.
 *
 * This process is guest and VMM: it owns the guest's memory and the record, both memfds, and works the rings. The back end
 * is a child with a socket to us, which it lends to the node. As stock VMMs do, we start a successor as soon as we
 * see that socket end, with the used index as base; the successor must be able to open the node then.
 */
#include "fix.h"
#include "one.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB		32
#define SECTORS		(MB * 2048ull)
#define RING		64
#define MAX_QUEUES	2
#define RECORD_BYTES	8192		/* of one queue */
#define EOF_MS		20000
#define NO_EOF_MS	300		/* this long nothing must happen that must not */

static struct nbdsrv srv, srv_b;
static pid_t child;
static int sock = -1;			/* our end */
static char *records;			/* RECORD_BYTES a queue */
static unsigned int queues;
static struct vlog lg;			/* shared with the back ends; logged while it is there */
static u64 trap = GMEM_NONE;		/* GPA of a page that the back end cannot reach */

static struct vhost_iovm_inflight_record *record(unsigned int q)
{
	return (void *)(records + q * RECORD_BYTES);
}

static void end_child(void)
{
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	child = 0;
}

static void cleanup(void)
{
	end_child();
	if (sock >= 0)
		close(sock);
	sock = -1;
	srv.hold = srv_b.hold = false;
	dm_suspend("iovmt-a", false);
	fix_cleanup();
	nbdsrv_free(&srv);
	nbdsrv_free(&srv_b);
	if (records)
		munmap(records, MAX_QUEUES * RECORD_BYTES);
	records = NULL;
	vlog_free(&lg);
	trap = GMEM_NONE;
}

static int set_inflight(int node, unsigned int q, u64 addr, u64 size, u32 desc_num)
{
	struct vhost_iovm_inflight a = { .index = q, .desc_num = desc_num, .addr = addr, .size = size };

	return ioctl(node, VHOST_IOVM_SET_INFLIGHT, &a) ? -errno : 0;
}

/* --- the back end --- */

static int backend_start(int s)
{
	struct vdev *d = &F[0].d;
	unsigned int i;
	int r;

	d->fd = open(ctl_node(F[0].name), O_RDWR | O_CLOEXEC);
	if (d->fd < 0)
		return -errno;
	r = d->tp->set_owner(d);
	if (!r && ioctl(d->fd, VHOST_IOVM_LEND_SOCKET, &s))
		r = -errno;
	if (!r)
		r = d->tp->set_features(d, d->features);
	if (!r)
		r = vdev_set_mem(d, &F[0].mem);
	if (!r && lg.bits)
		r = vdev_log_on(d, &lg);
	for (i = 0; i < queues && !r; i++) {
		r = set_inflight(d->fd, i, (uintptr_t)record(i), RECORD_BYTES, RING);
		if (!r)
			d->vqs[i].base = __atomic_load_n(&d->vqs[i].ring.used->idx, __ATOMIC_ACQUIRE);
		if (!r)
			r = vq_start(&d->vqs[i]);
	}
	return r;
}

/* Whoever touches the page sleeps; it is there, but not in our page table, and nobody will answer. */
static int trap_set(int fd)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)gmem_ptr(&F[0].mem, trap), .len = 4096 }, .mode = UFFDIO_REGISTER_MODE_MINOR,
	};

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) || madvise(gmem_ptr(&F[0].mem, trap), 4096, MADV_DONTNEED) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg))
		return -errno;
	return 0;
}

/* Tells how the start went; then stops queue 0 when told to, and says its base. */
static void backend(int s)
{
	int answer, fd = -1;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* below the node: at our end that is closed first, and who sleeps still does */
	if (trap != GMEM_NONE)
		fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	answer = backend_start(s);
	if (!answer && trap != GMEM_NONE)
		answer = trap_set(fd);
	while (write(s, &answer, sizeof(answer)) == sizeof(answer) && read(s, &c, 1) == 1) {
		answer = vq_stop(&F[0].d.vqs[0]);
		if (!answer)
			answer = F[0].d.vqs[0].base;
	}
	_exit(0);
}

static bool answers(int *answer, int timeout_ms)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };

	return poll(&p, 1, timeout_ms) == 1 && read(sock, answer, sizeof(*answer)) == sizeof(*answer);
}

/* Start a back end; what its start returned. */
static int succeed(void)
{
	int sv[2], answer = -ETIMEDOUT;

	T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), "socketpair: %s", strerror(errno));
	sock = sv[0];
	child = fork();
	if (!child) {
		close(sv[0]);
		backend(sv[1]);
	}
	close(sv[1]);
	T_REQUIRE(answers(&answer, EOF_MS), "the back end says nothing");
	return answer;
}

static void must_succeed(const char *when)
{
	int r = succeed();

	T_REQUIRE(!r, "%s: the successor could not start: %s", when, strerror(-r));
}

/* The connection ends: true. */
static bool ends(int timeout_ms)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	char c;

	if (poll(&p, 1, timeout_ms) != 1)
		return false;
	T_CHECK(read(sock, &c, 1) == 0, "the dead back end speaks");
	close(sock);
	sock = -1;
	return true;
}

static void must_end(const char *when)
{
	T_REQUIRE(ends(EOF_MS), "%s: the connection does not end", when);
}

/* While what the dead one issued is not done: the connection stays, and nobody else gets the node. */
static void still_busy(const char *when)
{
	int fd;

	T_CHECK(!ends(NO_EOF_MS), "%s: the connection ended", when);
	fd = open(ctl_node(F[0].name), O_RDWR | O_CLOEXEC);
	T_CHECK(fd < 0 && errno == EBUSY, "%s: open: %d, %s", when, fd, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* --- the rest --- */

/* Guest, rings and records for a device that is there; nobody has it open afterwards. */
static void guest_make(unsigned int nq, u64 features)
{
	int fd, r;

	queues = nq;
	fix_open_stopped(0, features | BIT64(VIRTIO_BLK_F_MQ), nq, RING, 64 * MiB, 0);
	r = vblk_sync_init(&F[0].s, &F[0].d, 64 * KiB);
	T_REQUIRE(!r, "no room in guest memory");
	close(F[0].d.fd);
	F[0].d.fd = -1;
	fd = memfd_create("record", MFD_CLOEXEC);
	T_REQUIRE(fd >= 0 && !ftruncate(fd, MAX_QUEUES * RECORD_BYTES), "memfd: %s", strerror(errno));
	records = mmap(NULL, MAX_QUEUES * RECORD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	T_REQUIRE(records != MAP_FAILED, "mmap: %s", strerror(errno));
}

static void load_start(struct vload *l, unsigned int depth)
{
	struct vload_cfg c = { .depth = depth, .mem_idx = -1, .indirect = true, .flush_pct = 1 };
	int r = vload_start(l, &F[0].d, &c);

	T_REQUIRE(!r, "load: %s", strerror(-r));
}

/* With a back end there: all came back, once, and is on the disk; the record is empty. */
static void load_end(struct vload *l, const char *node, const char *what)
{
	unsigned int q, h;

	vload_stop(l);
	T_CHECK(vload_check_node(l, node) == 0, "%s: wrong data at rest", what);
	vload_finish(l, what);
	for (q = 0; q < queues; q++)
		for (h = 0; h < RING; h++)
			T_CHECK(!record(q)->desc[h].inflight, "%s: queue %u, head %u is still marked", what, q, h);
}

static unsigned int marked(unsigned int q)
{
	unsigned int h, n = 0;

	for (h = 0; h < RING; h++)
		n += __atomic_load_n(&record(q)->desc[h].inflight, __ATOMIC_ACQUIRE);
	return n;
}

static bool wait_marked(unsigned int want)
{
	u64 end = now_ns() + 10000000000ull;

	while (marked(0) != want) {
		if (now_ns() > end)
			return false;
		sleep_ms(1);
	}
	return true;
}

/* Without heartbeats while a case runs: they are reads of block 0. */
static int add_nbd(const char *name)
{
	return ctl_path_add_nbd("kt-0", name, 0, 0, 3000000, 3600000);
}

/* A disk that keeps what it gets until it is told to go on. */
static void suspended_disk(void)
{
	struct vload l;
	int round;

	fix_store_make(MB, 512);
	T_REQUIRE(!dm_create("iovmt-a", dm_linear(fix_store, SECTORS), F[1].name), "dm");
	fix_create(0, F[1].name, SECTORS, 1);
	guest_make(1, RING_FEATURES);
	must_succeed("first");
	load_start(&l, 12);
	for (round = 0; round < 5; round++) {
		T_REQUIRE(vload_progress(&l, 50, 20000), "no progress");
		T_REQUIRE(!dm_suspend("iovmt-a", true), "suspend");
		T_REQUIRE(wait_marked(12), "%u of 12 in flight", marked(0));
		end_child();
		still_busy("suspended");
		T_CHECK(marked(0) == 12, "%u of 12 are marked", marked(0));
		T_REQUIRE(!dm_suspend("iovmt-a", false), "resume");
		must_end("resumed");
		T_CHECK(marked(0) == 12, "%u of 12 are marked when all has ended", marked(0));
		must_succeed("resumed");
	}
	T_CHECK(vload_progress(&l, 50, 20000), "no progress at the end");
	load_end(&l, fix_store, "suspended");
}

/* Killed at any moment, under a load on a disk with a latency. */
static void random_kills(unsigned int nq, u64 features, u32 latency_ns, unsigned int kills)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true, .completion_nsec = latency_ns };
	unsigned int i, q, with = 0, most = 0;
	u64 rnd = 7;
	struct vload l;
	int r;

	r = nullb_create("iovmtf", &o, fix_store);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	fix_create(0, fix_store, SECTORS, nq);
	guest_make(nq, features);
	/* the index wraps on the way */
	for (i = 0; i < nq; i++)
		vq_rewind(&F[0].d.vqs[i], 65536 - 200 * (i + 1));
	must_succeed("first");
	load_start(&l, 16);
	for (i = 0; i < kills && !ktap_failed(); i++) {
		unsigned int n = 0;

		/* a part of them before the successor has done anything */
		if (rnd64(&rnd) % 4)
			T_REQUIRE(vload_progress(&l, rnd64(&rnd) % 40, 20000), "kill %u: no progress", i);
		usleep(rnd64(&rnd) % 3000);
		end_child();
		must_end("killed");
		for (q = 0; q < nq; q++)
			n += marked(q);
		with += n > 0;
		most = n > most ? n : most;
		must_succeed("killed");
	}
	T_CHECK(vload_progress(&l, 50, 20000), "no progress at the end");
	/* some find the ring just emptied, or the worker not there yet */
	T_CHECK(with >= kills / 4, "only %u of %u kills left something in flight", with, kills);
	ktap_note("%u kills, %u left something in flight, at most %u requests; %llu requests served", kills, with, most,
		  (unsigned long long)l.ios);
	load_end(&l, fix_store, "random kills");
}

static void hundred_kills(void)
{
	random_kills(2, RING_FEATURES, 3000000, 100);
}

static void kills_no_event_idx(void)
{
	random_kills(1, BIT64(VIRTIO_RING_F_INDIRECT_DESC), 3000000, 20);
}

/* The server sees no second copy of anything before it has answered the first. */
static void no_second_copy(void)
{
	struct vload l;
	int round;

	fix_store_make(MB, 512);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	fix_create(0, NULL, SECTORS, 1);
	T_REQUIRE(!add_nbd("n"), "path: %s", ctl_msg);
	T_REQUIRE(!nbdsrv_attach(&srv, "kt-0", "n", 2, false), "connect: %s", ctl_msg);
	guest_make(1, RING_FEATURES);
	must_succeed("first");
	load_start(&l, 12);
	for (round = 0; round < 10; round++) {
		u64 end = now_ns() + 10000000000ull;

		T_REQUIRE(vload_progress(&l, 50, 20000), "no progress");
		srv.hold = true;
		/* flushes, of which there are a few, are not pending in this sense */
		while (__atomic_load_n(&srv.pending, __ATOMIC_RELAXED) < 8 && now_ns() < end)
			sleep_ms(1);
		T_REQUIRE(srv.pending >= 8, "%u pending", srv.pending);
		end_child();
		if (round % 5 == 0)
			still_busy("answers held back");
		T_CHECK(srv.pending >= 8, "%u pending", srv.pending);
		srv.hold = false;
		must_end("answered");
		T_CHECK(srv.pending == 0, "the successor may start, and %u are pending", srv.pending);
		must_succeed("answered");
	}
	T_CHECK(vload_progress(&l, 50, 20000), "no progress at the end");
	T_CHECK(!srv.overlaps, "%llu requests came while another for their sectors was not answered",
		(unsigned long long)srv.overlaps);
	load_end(&l, fix_store, "held back");
}

/*
 * A write that may still land at a server that is gone: there is another path, but the successor, who would issue the
 * write there, must wait for the fence as the dead one did.
 */
static void held_writes(void)
{
	struct iovm_dev_info di;
	struct vload l;
	u64 end;

	fix_store_make(MB, 512);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0) && !nbdsrv_init(&srv_b, fix_store, 0), "servers");
	fix_create(0, NULL, SECTORS, 1);
	T_REQUIRE(!add_nbd("n"), "path: %s", ctl_msg);
	T_REQUIRE(!nbdsrv_attach(&srv, "kt-0", "n", 2, false), "connect: %s", ctl_msg);
	guest_make(1, RING_FEATURES);
	must_succeed("first");
	load_start(&l, 12);
	T_REQUIRE(vload_progress(&l, 50, 20000), "no progress");
	srv.hold = true;
	end = now_ns() + 10000000000ull;
	while (__atomic_load_n(&srv.pending, __ATOMIC_RELAXED) < 8 && now_ns() < end)
		sleep_ms(1);
	nbdsrv_kill(&srv);
	do {
		T_REQUIRE(!ctl_dev_get("kt-0", &di), "get");
		sleep_ms(1);
	} while (!di.held && now_ns() < end);
	T_REQUIRE(di.held, "no write is held");
	T_REQUIRE(!add_nbd("m"), "path: %s", ctl_msg);
	T_REQUIRE(!nbdsrv_attach(&srv_b, "kt-0", "m", 2, false), "connect: %s", ctl_msg);
	end_child();
	still_busy("held");
	T_CHECK(!ctl_path_ctl("kt-0", "n", IOVM_PATH_CTL_FENCED), "fenced: %s", ctl_msg);
	must_end("fenced");
	must_succeed("fenced");
	T_CHECK(vload_progress(&l, 50, 20000), "no progress at the end");
	load_end(&l, fix_store, "held");
}

/* The same, and nobody will ever say that it is fenced: the operator destroys the device. */
static void held_destroyed(void)
{
	struct iovm_dev_info di;
	struct vload l;
	u64 end = now_ns() + 20000000000ull;

	fix_store_make(MB, 512);
	T_REQUIRE(!nbdsrv_init(&srv, fix_store, 0), "server");
	fix_create(0, NULL, SECTORS, 1);
	T_REQUIRE(!add_nbd("n"), "path: %s", ctl_msg);
	T_REQUIRE(!nbdsrv_attach(&srv, "kt-0", "n", 1, false), "connect: %s", ctl_msg);
	guest_make(1, RING_FEATURES);
	must_succeed("first");
	load_start(&l, 12);
	srv.hold = true;
	while (__atomic_load_n(&srv.pending, __ATOMIC_RELAXED) < 8 && now_ns() < end)
		sleep_ms(1);
	nbdsrv_kill(&srv);
	do {
		T_REQUIRE(!ctl_dev_get("kt-0", &di), "get");
		sleep_ms(1);
	} while (!di.held && now_ns() < end);
	T_CHECK(di.held, "no write is held");
	end_child();
	still_busy("held");
	T_CHECK(!ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE), "destroy: %s", ctl_msg);
	must_end("destroyed");
	l.stop = l.abandon = true;
	vload_wait(&l);
	vload_free(&l);
}

/* A guest on a disk that can be made to fail. */
static void failing_guest(void)
{
	fix_store_make(MB, 512);
	T_REQUIRE(!dm_create("iovmt-a", dm_linear(fix_store, SECTORS), F[1].name), "dm");
	fix_create(0, F[1].name, SECTORS, 1);
	guest_make(1, RING_FEATURES);
	must_succeed("first");
}

/* It has failed: the front end ends, and the stop of its successor waits for what that took over; how many requests. */
static unsigned int stop_while_parked(void)
{
	unsigned int taken;
	int answer = -1;

	T_REQUIRE(ctl_wait_dev_state("kt-0", IOVM_DEV_PARKED, 10000), "not parked");
	end_child();
	must_end("parked");
	taken = marked(0);
	T_REQUIRE(taken > 0, "nothing was taken");
	must_succeed("parked");
	T_REQUIRE(write(sock, "s", 1) == 1, "stop");
	T_CHECK(!answers(&answer, NO_EOF_MS), "the queue stopped at %d with %u requests to serve again", answer, marked(0));
	return taken;
}

static void stops_with_all_done(void)
{
	int answer = -1;

	T_REQUIRE(answers(&answer, EOF_MS), "the queue does not stop");
	T_CHECK(answer == F[0].d.vqs[0].ring.used->idx && !marked(0), "base %d, used %u, %u marked", answer,
		F[0].d.vqs[0].ring.used->idx, marked(0));
}

/* Nothing can be issued: what the dead one had taken waits for its successor, and a stop waits for what that one took over. */
static void parked(void)
{
	struct vload l;

	failing_guest();
	load_start(&l, 12);
	T_REQUIRE(vload_progress(&l, 50, 20000), "no progress");
	T_REQUIRE(!dm_swap("iovmt-a", dm_error(SECTORS), false), "error");
	stop_while_parked();
	T_REQUIRE(!dm_swap("iovmt-a", dm_linear(fix_store, SECTORS), false), "linear");
	T_CHECK(!ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY), "retry: %s", ctl_msg);
	stops_with_all_done();
	end_child();
	must_end("stopped");
	must_succeed("stopped");
	T_CHECK(vload_progress(&l, 50, 20000), "no progress at the end");
	load_end(&l, fix_store, "parked");
}

/* The same, and the operator gives up on it: that ends what the successor took over, and so the stop. */
static void parked_failed(void)
{
	static struct one o[4];
	unsigned int i, taken;

	failing_guest();
	T_REQUIRE(!dm_swap("iovmt-a", dm_error(SECTORS), false), "error");
	for (i = 0; i < ARRAY_SIZE(o); i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_OUT, 8 * i, 4096, i);
	taken = stop_while_parked();
	T_CHECK(!ctl_dev_ctl("kt-0", IOVM_DEV_FAIL_PARKED, NULL, 0), "fail parked: %s", ctl_msg);
	stops_with_all_done();
	for (i = 0; i < taken; i++)
		T_CHECK(one_wait(&o[i], 5000) && one_status(&o[i]) == VIRTIO_BLK_S_IOERR, "request %u: status %u", i,
			one_status(&o[i]));
}

/*
 * The back end is killed while it copies to the guest, and so the copy fails. That is no error of the request's, nor is
 * it done: the successor serves it again.
 */
static void killed_in_copy(u32 type, u64 trapped, u8 want)
{
	struct vblk_sync *s = &F[0].s;
	struct virtio_blk_outhdr *h;
	struct vq *q = &F[0].d.vqs[0];
	struct vseg segs[3];
	static char token;
	u8 *status;

	trap = trapped & ~4095ull;
	must_succeed("first");
	h = gmem_ptr(&F[0].mem, s->hdr_gpa);
	status = gmem_ptr(&F[0].mem, s->status_gpa);
	*h = (struct virtio_blk_outhdr){ .type = type };
	memset(gmem_ptr(&F[0].mem, s->data_gpa), 0xdb, 4096);
	*status = 0xdb;
	segs[0] = (struct vseg){ s->hdr_gpa, 16, false };
	segs[1] = (struct vseg){ s->data_gpa, 4096, true };
	segs[2] = (struct vseg){ s->status_gpa, 1, true };
	T_REQUIRE(vq_add(q, segs, 3, &token, 0) >= 0, "ring full");
	vq_submit(q);
	T_REQUIRE(!vq_wait(q, NO_EOF_MS), "nothing stops the copy");
	end_child();
	must_end("killed");
	/* on 6.1 the worker does not die with its process, and has to be woken */
	T_CHECK(!vq_has_used(q) && marked(0) == 1 && *status == 0xdb, "used index %u, %u marked, status %02x", q->ring.used->idx,
		marked(0), *status);
	trap = GMEM_NONE;
	must_succeed("killed");
	T_CHECK(vq_wait(q, 10000) == 1 && vq_pop(q, NULL) == &token && *status == want, "status %02x", *status);
	T_CHECK(!marked(0) && !vq_has_used(q), "%u marked", marked(0));
	end_child();
	must_end("served");
}

static void owner_dies(void)
{
	struct iovm_dev_create c;
	u8 buf[4096];
	int r;

	fix_store_make(MB, 512);
	memset(buf, 0x5a, sizeof(buf));
	T_REQUIRE(!stor_pwrite(fix_store, buf, sizeof(buf), 0), "fill");
	ctl_dev_defaults(&c, "kt-0", SECTORS, 1);
	c.flags = IOVM_DEV_F_BOUNCE_READS;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
	T_REQUIRE(!ctl_path_add_bdev("kt-0", "a", fix_store, 0, 0), "path: %s", ctl_msg);
	guest_make(1, RING_FEATURES);
	/* a page each: what is trapped must be nothing else's */
	F[0].s.data_gpa = gmem_alloc(&F[0].mem, -1, 4096, 4096);
	F[0].s.status_gpa = gmem_alloc(&F[0].mem, -1, 4096, 4096);
	T_REQUIRE(F[0].s.status_gpa != GMEM_NONE, "no room in guest memory");
	killed_in_copy(VIRTIO_BLK_T_IN, F[0].s.data_gpa, VIRTIO_BLK_S_OK);
	T_CHECK(all_bytes(gmem_ptr(&F[0].mem, F[0].s.data_gpa), 4096, 0x5a), "wrong data");
	killed_in_copy(0x7777, F[0].s.status_gpa, VIRTIO_BLK_S_UNSUPP);
}

/* --- records that are not good, and arguments --- */

static void arguments(void)
{
	u64 at;
	int node, file, e = 99, none = -1;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	guest_make(1, RING_FEATURES);
	at = (uintptr_t)records;
	node = open(ctl_node("kt-0"), O_RDWR | O_CLOEXEC);
	T_CHECK(set_inflight(node, 0, at, RECORD_BYTES, RING) == -EPERM, "before SET_OWNER");
	T_REQUIRE(!ioctl(node, VHOST_SET_OWNER, NULL), "owner");
	T_CHECK(set_inflight(node, 0, at + 4, RECORD_BYTES, RING) == -EINVAL, "misaligned");
	T_CHECK(set_inflight(node, 0, at, VHOST_IOVM_INFLIGHT_BYTES(RING) - 1, RING) == -EINVAL, "too short");
	T_CHECK(set_inflight(node, 0, at, RECORD_BYTES, 0) == -EINVAL, "no entries");
	T_CHECK(set_inflight(node, 0, at, ~0ull, 65536) == -EINVAL, "too many entries");
	T_CHECK(set_inflight(node, 1, at, RECORD_BYTES, RING) == -ENOBUFS, "queue 1 of 1");
	T_CHECK(set_inflight(node, 0, 0, 0, 0) == 0, "none");
	T_CHECK(set_inflight(node, 0, at, RECORD_BYTES, RING) == 0, "a good one");
	T_ERRNO(ioctl(node, VHOST_IOVM_SET_INFLIGHT, NULL), EFAULT);
	T_ERRNO(ioctl(node, VHOST_IOVM_LEND_SOCKET, NULL), EFAULT);
	T_ERRNO(ioctl(node, VHOST_IOVM_LEND_SOCKET, &e), EBADF);
	file = memfd_create("x", MFD_CLOEXEC);
	T_ERRNO(ioctl(node, VHOST_IOVM_LEND_SOCKET, &file), ENOTSOCK);
	close(file);
	T_CHECK(!ioctl(node, VHOST_IOVM_LEND_SOCKET, &none), "nothing to give back: %s", strerror(errno));
	close(node);
}

/* A lent socket is given back: on demand, by another, and by RESET_OWNER. */
static void lent_socket(void)
{
	int node, sv[3][2], i, none = -1;
	struct pollfd p = { .events = POLLIN };

	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	node = open(ctl_node("kt-0"), O_RDWR | O_CLOEXEC);
	T_REQUIRE(!ioctl(node, VHOST_SET_OWNER, NULL), "owner");
	for (i = 0; i < 3; i++) {
		T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv[i]), "socketpair");
		T_CHECK(!ioctl(node, VHOST_IOVM_LEND_SOCKET, &sv[i][1]), "lend: %s", strerror(errno));
		close(sv[i][1]);
		p.fd = sv[i][0];
		T_CHECK(poll(&p, 1, 50) == 0, "socket %d is not kept", i);
		if (i == 1)
			T_CHECK(!ioctl(node, VHOST_IOVM_LEND_SOCKET, &none), "give back: %s", strerror(errno));
	}
	T_CHECK(!ioctl(node, VHOST_RESET_OWNER, NULL), "reset: %s", strerror(errno));
	for (i = 0; i < 3; i++) {
		p.fd = sv[i][0];
		T_CHECK(poll(&p, 1, 5000) == 1, "socket %d is still kept", i);
		close(sv[i][0]);
	}
	close(node);
}

/* The guest has one request outstanding, head 0, and the record is good so far. */
static void one_in_record(void)
{
	struct vhost_iovm_inflight_record *r = record(0);

	memset(r, 0, RECORD_BYTES);
	r->version = VHOST_IOVM_INFLIGHT_VERSION;
	r->desc_num = RING;
	r->used_idx = F[0].d.vqs[0].ring.used->idx;
}

static void refused(int want, const char *what)
{
	int r = succeed();

	T_CHECK(r == want, "%s: %s, wanted %s", what, strerror(-r), strerror(-want));
	end_child();
	must_end(what);
	one_in_record();
}

static void bad_records(void)
{
	struct vhost_iovm_inflight_record *r;
	struct vseg segs[3];
	static char token;
	struct vq *q;
	int i;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	guest_make(1, RING_FEATURES);
	q = &F[0].d.vqs[0];
	r = record(0);
	segs[0] = (struct vseg){ F[0].s.hdr_gpa, 16, false };
	segs[1] = (struct vseg){ F[0].s.data_gpa, 4096, true };
	segs[2] = (struct vseg){ F[0].s.status_gpa, 1, true };
	memset(gmem_ptr(&F[0].mem, F[0].s.hdr_gpa), 0, 16);
	T_REQUIRE(vq_add(q, segs, 3, &token, 0) == 0, "head 0");
	vq_publish(q);

	one_in_record();
	r->version = 2;
	refused(-EOPNOTSUPP, "version 2");
	r->features = 1;
	refused(-EOPNOTSUPP, "features");
	r->desc_num = RING * 2;
	refused(-EINVAL, "another size");
	r->desc[5].inflight = 7;
	refused(-EINVAL, "a mark of 7");
	r->last_batch_head = RING;
	refused(-ERANGE, "a last batch beyond the ring");
	r->desc[3].inflight = r->desc[4].inflight = 1;
	refused(-EEXIST, "two heads of one counter");
	r->desc[3].inflight = 1;
	r->desc[3].counter = ~0ull;
	refused(-EOVERFLOW, "the last counter");

	/* more in flight than the ring has outstanding; a head whose descriptor is none: the queue breaks, the host does not */
	for (i = 0; i < 2; i++) {
		int s;

		r->desc[40].inflight = 1;
		r->desc[41].inflight = !i;
		r->desc[41].counter = 1;
		s = succeed();
		T_CHECK(!s, "start: %s", strerror(-s));
		T_CHECK(vq_err_signalled(q, 10000), "case %d: the queue is not broken", i);
		T_CHECK(!vq_has_used(q), "case %d: something completed", i);
		end_child();
		must_end("broken");
		T_CHECK(marked(0) == (i ? 1u : 2u), "case %d: %u marked", i, marked(0));
		one_in_record();
	}

	/* and the same ring with a good record works */
	r->desc[0].inflight = 1;
	must_succeed("good");
	T_CHECK(vq_wait(q, 10000) == 1 && vq_pop(q, NULL) == &token, "head 0 does not complete");
	T_CHECK(!marked(0) && r->used_idx == 1 && r->last_batch_head == 0, "%u marked, used %u", marked(0), r->used_idx);
	end_child();
	must_end("good");
	/* a record that is not there: the file is shorter */
	munmap(records + RECORD_BYTES / 2, MAX_QUEUES * RECORD_BYTES - RECORD_BYTES / 2);
	munmap(records, RECORD_BYTES / 2);
	i = succeed();
	T_CHECK(i == -EFAULT, "no memory: %s", strerror(-i));
	records = NULL;
	end_child();
}

/* All that is known is in the log: GET_VRING_BASE has returned. */
static void stop_queue(void)
{
	int base = -1;

	T_REQUIRE(write(sock, "s", 1) == 1 && answers(&base, EOF_MS) && base >= 0, "stop: %d", base);
	end_child();
	must_end("stopped");
}

static void read_and_kill(void)
{
	int r = vblk_io(&F[0].s, &F[0].d.vqs[0], VIRTIO_BLK_T_IN, 0, 64 * KiB);

	T_REQUIRE(!r, "read: %d", r);
	/* at once: the log is written soon after */
	end_child();
	must_end("killed");
}

/*
 * Killed while the guest is migrated, when a request has completed, and before the log says what it wrote: the successor's log
 * does. One that starts without a log is another one's.
 */
static void logged(void)
{
	unsigned int round, early = 0, i;
	struct vlog none = {}, keep;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, SECTORS, 1);
	guest_make(1, RING_FEATURES);
	T_REQUIRE(!vlog_alloc(&lg, &F[0].mem), "log");
	for (round = 0; round < 10 && !ktap_failed(); round++) {
		vlog_clear(&lg);
		must_succeed("first");
		read_and_kill();
		early += vlog_test(&lg, F[0].s.data_gpa);
		must_succeed("successor");
		stop_queue();
		for (i = 0; i < 64 * KiB; i += 4096)
			T_CHECK(vlog_test(&lg, F[0].s.data_gpa + i), "round %u: page %u of the data is missing", round, i / 4096);
		T_CHECK(vlog_test(&lg, F[0].s.status_gpa) && vlog_test(&lg, F[0].d.vqs[0].used_gpa + 2),
			"round %u: status or used ring are missing", round);
	}
	T_CHECK(early < round, "it was always written before the kill: nothing was to be seen");
	ktap_note("in %u of %u rounds it was written before the kill", early, round);

	must_succeed("first");
	read_and_kill();
	keep = lg;
	lg = none;
	must_succeed("without a log");
	end_child();
	must_end("without a log");
	lg = keep;
	vlog_clear(&lg);
	must_succeed("another one");
	stop_queue();
	T_CHECK(!vlog_test(&lg, F[0].s.data_gpa), "it was not forgotten");
}

static const struct ktap_case cases[] = {
	{ "arguments", arguments },
	{ "lent_socket", lent_socket },
	{ "bad_records", bad_records },
	{ "suspended_disk", suspended_disk, 120 },
	{ "no_second_copy", no_second_copy, 120 },
	{ "held_writes", held_writes },
	{ "held_destroyed", held_destroyed },
	{ "parked", parked },
	{ "parked_failed", parked_failed },
	{ "owner_dies", owner_dies },
	{ "hundred_kills", hundred_kills, 180 },
	{ "kills_no_event_idx", kills_no_event_idx, 120 },
	{ "logged", logged },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
