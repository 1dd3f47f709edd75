// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest's driver as load: the same rings, the same code, against a device's node or a vhost-user socket; and the bare
 * block device through io_uring for reference. Prints one JSON object.
 *
 *	ringbench --device /dev/vhost-iovm/x | --vhost-user SOCKET | --bdev /dev/x   (%d: 0..N-1 with --devices N)
 *	          [--rw randread|randwrite|read|write] [--bs BYTES] [--depth N] [--queues N] [--devices N]
 *	          [--runtime SECONDS | --ios N] [--warmup-ios N] [--span MIB] [--direct-desc] [--server-pid PID]
 *	          [--server-comm PREFIX]...
 *	ringbench create NAME BDEV QUEUES       a device with one path
 *	ringbench destroy NAME
 *
 * A thread a queue (with several devices: a thread a CPU, each with its share of the queues). A thread keeps `depth`
 * requests in flight on each of its queues, waits on the call eventfds when there is nothing to take, and asks for
 * calls and kicks as Linux does: EVENT_IDX, indirect descriptors.
 *
 * What the host did is measured from outside: time not idle (all CPUs, from /proc/timer_list where it can be read, in ns, else
 * /proc/stat), context switches of the system. The driver's own part is the same for every back end; it is shown apart. So is
 * the server's: the threads of --server-pid, and the kernel's threads whose names begin with one of --server-comm.
 */
#include "cost.h"
#include "ctl.h"
#include "ktap.h"
#include "stor.h"
#include "vdrv.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <liburing.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define LAT_SUB		32		/* buckets per power of two */
#define LAT_BUCKETS	(48 * LAT_SUB)

static struct {
	const char *node, *sock, *bdev;
	bool write, seq, indirect;
	u32 bs;
	unsigned int depth, queues, devices;
	double runtime;
	u64 ios, warmup;
	u64 span;			/* bytes of the disk that are used */
	int server_pid;
	const char *server_comm[4];
	unsigned int nr_server_comm;
} o = { .bs = 4096, .depth = 1, .queues = 1, .devices = 1, .runtime = 1, .indirect = true };

struct req {
	u64 t0;
	u64 hdr_gpa, data_gpa;
	struct virtio_blk_outhdr *hdr;
	volatile u8 *status;
	/* io_uring */
	void *buf;
};

struct ring {			/* one queue's load */
	struct vq *q;
	struct io_uring u;
	int fd;
	struct req *reqs;
	u64 next;		/* sequential position */
	u64 blocks;
	unsigned int flying;
};

struct worker {
	pthread_t thread;
	struct ring *rings;
	unsigned int nr;
	u64 rnd;
	u64 quota, issued, done, errors;
	u64 cpu_ns;
	u64 lat[LAT_BUCKETS];
	u64 lat_max;
};

static volatile bool stop;
static volatile u64 t_end;
static pthread_barrier_t go;

static void die(const char *what, int err)
{
	fprintf(stderr, "ringbench: %s: %s\n", what, strerror(err < 0 ? -err : err));
	exit(1);
}

/* --- latency --- */

static unsigned int bucket(u64 ns)
{
	unsigned int top;

	if (ns < LAT_SUB)
		return ns;
	top = 63 - __builtin_clzll(ns);
	return (top - 4) * LAT_SUB + ((ns >> (top - 5)) & (LAT_SUB - 1));
}

static u64 bucket_ns(unsigned int b)
{
	unsigned int top;

	if (b < LAT_SUB)
		return b;
	top = b / LAT_SUB + 4;
	return (1ull << top) + ((u64)(b % LAT_SUB) << (top - 5));
}

static double percentile(const u64 *lat, u64 n, double p)
{
	u64 want = n * p, seen = 0;
	unsigned int i;

	for (i = 0; i < LAT_BUCKETS; i++) {
		seen += lat[i];
		if (seen > want)
			return bucket_ns(i) / 1000.0;
	}
	return 0;
}

/* --- what the host did --- */

struct host {
	struct cost all;
	struct usage server;
	struct usage worker;		/* kernel workers of the device */
};

static bool precise;

/* Looking through all tasks takes time too, so it is done outside of what is measured. */
static void measure_tasks(struct host *h)
{
	char dir[64], name[32];
	unsigned int i;

	if (o.server_pid) {
		snprintf(dir, sizeof(dir), "/proc/%d/task", o.server_pid);
		cost_tasks(dir, NULL, &h->server);
	}
	for (i = 0; i < o.nr_server_comm; i++)
		cost_tasks("/proc", o.server_comm[i], &h->server);
	if (o.node) {
		snprintf(name, sizeof(name), "iovm-%d", getpid());
		cost_tasks("/proc/self/task", name, &h->worker);
		cost_tasks("/proc", name, &h->worker);
	}
}

/* --- load --- */

static u64 place(struct worker *w, struct ring *r)
{
	u64 b;

	if (o.seq)
		b = r->next++ % r->blocks;
	else
		b = rnd64(&w->rnd) % r->blocks;
	return b * o.bs;
}

static void took(struct worker *w, struct req *r, bool ok)
{
	u64 lat = now_ns() - r->t0;

	w->lat[bucket(lat)]++;
	if (lat > w->lat_max)
		w->lat_max = lat;
	w->done++;
	w->errors += !ok;
}

static bool more(struct worker *w)
{
	return !stop && (!w->quota || w->issued < w->quota);
}

static void virtio_issue(struct worker *w, struct ring *r, struct req *q)
{
	struct vseg s[3] = {
		{ q->hdr_gpa, 16, false }, { q->data_gpa, o.bs, !o.write }, { q->hdr_gpa + 16, 1, true },
	};

	q->hdr->type = o.write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	q->hdr->ioprio = 0;
	q->hdr->sector = place(w, r) / 512;
	q->t0 = now_ns();
	if (vq_add(r->q, s, 3, q, o.indirect ? VQ_F_INDIRECT : 0) < 0)
		die("ring full", ENOSPC);
	r->flying++;
	w->issued++;
}

static bool virtio_poll(struct worker *w, struct ring *r)
{
	struct req *q;
	bool any = false, added = false;

	vq_calls_off(r->q);
	while ((q = vq_pop(r->q, NULL))) {
		r->flying--;
		took(w, q, *q->status == 0);
		any = true;
		if (more(w)) {
			virtio_issue(w, r, q);
			added = true;
		}
	}
	if (added)
		vq_submit(r->q);
	return any;
}

/* One ring: the driver sleeps in the call eventfd itself, as a guest with one queue a CPU sleeps in its interrupt. */
static void virtio_run_one(struct worker *w)
{
	struct ring *r = &w->rings[0];
	unsigned int k;
	u64 v;

	if (fcntl(r->q->call, F_SETFL, 0))
		die("call", errno);
	for (k = 0; k < o.depth && more(w); k++)
		virtio_issue(w, r, &r->reqs[k]);
	vq_submit(r->q);
	while (r->flying) {
		if (vq_calls_on(r->q)) {
			if (read(r->q->call, &v, 8) != 8)
				die("call", errno);
			r->q->calls += v;
		}
		virtio_poll(w, r);
		if (t_end && now_ns() >= t_end)
			stop = true;
	}
}

static void virtio_run(struct worker *w)
{
	int ep = epoll_create1(EPOLL_CLOEXEC);
	unsigned int i, k, flying;

	for (i = 0; i < w->nr; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.u32 = i };

		epoll_ctl(ep, EPOLL_CTL_ADD, w->rings[i].q->call, &e);
		for (k = 0; k < o.depth && more(w); k++)
			virtio_issue(w, &w->rings[i], &w->rings[i].reqs[k]);
		vq_submit(w->rings[i].q);
	}
	for (;;) {
		struct epoll_event e[64];
		bool wait = true;
		int n;

		flying = 0;
		for (i = 0; i < w->nr; i++)
			flying += w->rings[i].flying;
		if (!flying)
			break;
		for (i = 0; i < w->nr; i++)
			if (w->rings[i].flying && !vq_calls_on(w->rings[i].q))
				wait = false;
		n = epoll_wait(ep, e, 64, wait ? 1000 : 0);
		for (k = 0; k < (unsigned int)n && n > 0; k++) {
			u64 v;

			i = e[k].data.u32;
			if (read(w->rings[i].q->call, &v, 8) == 8)
				w->rings[i].q->calls += v;
			virtio_poll(w, &w->rings[i]);
		}
		if (!wait || n <= 0)
			for (i = 0; i < w->nr; i++)
				if (vq_has_used(w->rings[i].q))
					virtio_poll(w, &w->rings[i]);
		if (t_end && now_ns() >= t_end)
			stop = true;
	}
	close(ep);
}

static void uring_issue(struct worker *w, struct ring *r, struct req *q)
{
	struct io_uring_sqe *s = io_uring_get_sqe(&r->u);
	u64 at = place(w, r);

	if (o.write)
		io_uring_prep_write(s, r->fd, q->buf, o.bs, at);
	else
		io_uring_prep_read(s, r->fd, q->buf, o.bs, at);
	io_uring_sqe_set_data(s, q);
	q->t0 = now_ns();
	r->flying++;
	w->issued++;
}

/*
 * By the thread that will use it. Without DEFER_TASKRUN a completion is a signal to the thread, and a driver that sends in its
 * context, as nbd does, is interrupted half-way.
 */
static void uring_open(struct ring *r)
{
	int err = io_uring_queue_init(o.depth < 2 ? 2 : o.depth, &r->u, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	if (err < 0)
		die("io_uring", err);
}

static void uring_run(struct worker *w)
{
	struct ring *r = &w->rings[0];
	unsigned int k, n, head;

	for (k = 0; k < o.depth && more(w); k++)
		uring_issue(w, r, &r->reqs[k]);
	while (r->flying) {
		struct io_uring_cqe *c;
		struct req *again[1024];

		n = 0;
		if (io_uring_submit_and_wait(&r->u, 1) < 0)
			die("io_uring", errno);
		k = 0;
		io_uring_for_each_cqe(&r->u, head, c) {
			struct req *q = io_uring_cqe_get_data(c);

			r->flying--;
			took(w, q, c->res == (int)o.bs);
			n++;
			if (k < 1024)
				again[k++] = q;
		}
		io_uring_cq_advance(&r->u, n);
		if (t_end && now_ns() >= t_end)
			stop = true;
		while (k-- && more(w))
			uring_issue(w, r, again[k]);
	}
}

static void *worker(void *arg)
{
	struct worker *w = arg;
	struct timespec a, b;

	if (o.bdev)
		uring_open(&w->rings[0]);
	pthread_barrier_wait(&go);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	if (o.bdev)
		uring_run(w);
	else if (w->nr == 1)
		virtio_run_one(w);
	else
		virtio_run(w);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	w->cpu_ns = (b.tv_sec - a.tv_sec) * 1000000000ull + b.tv_nsec - a.tv_nsec;
	pthread_barrier_wait(&go);
	if (o.bdev)
		io_uring_queue_exit(&w->rings[0].u);
	return NULL;
}

/* --- set-up --- */

static char *numbered(const char *fmt, unsigned int i)
{
	static char buf[256];
	const char *p = strstr(fmt, "%d");

	if (p)
		snprintf(buf, sizeof(buf), "%.*s%u%s", (int)(p - fmt), fmt, i, p + 2);
	else
		snprintf(buf, sizeof(buf), "%s", fmt);
	return buf;
}

static void virtio_setup(struct vdev *d, struct gmem *m, unsigned int dev, struct ring *rings)
{
	unsigned int num = 128, i, k;
	u64 bytes;
	int r;

	while (num < o.depth * (o.indirect ? 1 : 3) && num < 1024)
		num *= 2;
	bytes = o.queues * ((u64)num * (26 + 16 * 32) + 65536 + (u64)o.depth * (o.bs + 4096 + 64)) + MiB;
	bytes = (bytes + 2 * MiB - 1) & ~(2 * MiB - 1);
	r = gmem_add(m, 0, bytes, GMEM_MEMFD);
	if (r < 0)
		die("memory", r);
	memset(m->r[0].hva, 0, bytes);
	r = o.node ? vdev_open_node(d, numbered(o.node, dev)) : vdev_open_user(d, numbered(o.sock, dev));
	if (r)
		die(numbered(o.node ? o.node : o.sock, dev), r);
	d->mem = m;
	d->features = d->offered & (BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |
				    BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_BLK_F_MQ) | BIT64(VIRTIO_BLK_F_FLUSH));
	r = d->tp->set_features(d, d->features);
	if (r >= 0)
		r = d->tp->set_mem(d, m);
	if (r < 0)
		die("set-up", r);
	d->vqs = calloc(o.queues, sizeof(*d->vqs));
	for (i = 0; i < o.queues; i++) {
		struct ring *g = &rings[i];

		r = vq_init(&d->vqs[i], d, i, num, 32);
		if (r >= 0)
			r = vq_start(&d->vqs[i]);
		if (r < 0)
			die("queue", r);
		d->nvqs++;
		g->q = &d->vqs[i];
		g->blocks = d->cfg.capacity * 512 / o.bs;
		if (o.span && o.span / o.bs < g->blocks)
			g->blocks = o.span / o.bs;
		g->reqs = calloc(o.depth, sizeof(*g->reqs));
		for (k = 0; k < o.depth; k++) {
			struct req *q = &g->reqs[k];

			q->hdr_gpa = gmem_alloc(m, 0, 64, 64);
			q->data_gpa = gmem_alloc(m, 0, o.bs, 4096);
			if (q->data_gpa == GMEM_NONE || q->hdr_gpa == GMEM_NONE)
				die("guest memory", ENOMEM);
			q->hdr = gmem_ptr(m, q->hdr_gpa);
			q->status = (u8 *)q->hdr + 16;
			memset(gmem_ptr(m, q->data_gpa), 0x5a, o.bs);
		}
	}
}

static void uring_setup(struct ring *g, unsigned int dev)
{
	u64 bytes = 0;
	unsigned int k;

	g->fd = open(numbered(o.bdev, dev), (o.write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	if (g->fd < 0)
		die(numbered(o.bdev, dev), errno);
	if (ioctl(g->fd, BLKGETSIZE64, &bytes))
		die("size", errno);
	g->blocks = bytes / o.bs;
	if (o.span && o.span / o.bs < g->blocks)
		g->blocks = o.span / o.bs;
	g->reqs = calloc(o.depth, sizeof(*g->reqs));
	for (k = 0; k < o.depth; k++) {
		if (posix_memalign(&g->reqs[k].buf, 4096, o.bs))
			die("memory", ENOMEM);
		memset(g->reqs[k].buf, 0x5a, o.bs);
	}
}

static u64 device_memory(void)
{
	struct iovm_dev_info i;
	char name[IOVM_NAME_MAX];

	if (!o.node || ctl_setup_keep())
		return 0;
	snprintf(name, sizeof(name), "%s", strrchr(numbered(o.node, 0), '/') + 1);
	return ctl_dev_get(name, &i) ? 0 : i.mem_bytes;
}

static int control(int argc, char **argv)
{
	struct iovm_dev_create c;
	const char *why = ctl_setup_keep();
	int r;

	if (why) {
		fprintf(stderr, "ringbench: %s\n", why);
		return 1;
	}
	if (!strcmp(argv[1], "destroy") && argc == 3) {
		r = ctl_dev_destroy(argv[2], IOVM_DESTROY_F_FORCE);
	} else if (!strcmp(argv[1], "create") && argc == 5) {
		ctl_dev_defaults(&c, argv[2], stor_sectors(argv[3]), atoi(argv[4]));
		r = ctl_dev_create(&c);
		if (!r) {
			r = ctl_path_add_bdev(argv[2], "local", argv[3], 0, 0);
			if (r)
				ctl_dev_destroy(argv[2], 0);
		}
		if (!r)
			ctl_node(argv[2]);
	} else {
		fprintf(stderr, "ringbench: create NAME BDEV QUEUES | destroy NAME\n");
		return 1;
	}
	if (r)
		fprintf(stderr, "ringbench: %s: %s\n", strerror(-r), ctl_msg);
	return !!r;
}

static void options(int argc, char **argv)
{
	enum { DEVICE = 256, USER, BDEV, RW, BS, DEPTH, QUEUES, DEVICES, RUNTIME, IOS, WARMUP, SPAN, DIRECT, SERVER, COMM };
	static const struct option opts[] = {
		{ "device", 1, 0, DEVICE }, { "vhost-user", 1, 0, USER }, { "bdev", 1, 0, BDEV }, { "rw", 1, 0, RW },
		{ "bs", 1, 0, BS }, { "depth", 1, 0, DEPTH }, { "queues", 1, 0, QUEUES }, { "devices", 1, 0, DEVICES },
		{ "runtime", 1, 0, RUNTIME }, { "ios", 1, 0, IOS }, { "warmup-ios", 1, 0, WARMUP }, { "span", 1, 0, SPAN },
		{ "direct-desc", 0, 0, DIRECT }, { "server-pid", 1, 0, SERVER },
		{ "server-comm", 1, 0, COMM }, { 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) >= 0) {
		switch (c) {
		case DEVICE:
			o.node = optarg;
			break;
		case USER:
			o.sock = optarg;
			break;
		case BDEV:
			o.bdev = optarg;
			break;
		case RW:
			o.write = strstr(optarg, "write");
			o.seq = strncmp(optarg, "rand", 4);
			break;
		case BS:
			o.bs = strtoul(optarg, NULL, 0);
			break;
		case DEPTH:
			o.depth = strtoul(optarg, NULL, 0);
			break;
		case QUEUES:
			o.queues = strtoul(optarg, NULL, 0);
			break;
		case DEVICES:
			o.devices = strtoul(optarg, NULL, 0);
			break;
		case RUNTIME:
			o.runtime = strtod(optarg, NULL);
			break;
		case IOS:
			o.ios = strtoull(optarg, NULL, 0);
			break;
		case WARMUP:
			o.warmup = strtoull(optarg, NULL, 0);
			break;
		case SPAN:
			o.span = strtoull(optarg, NULL, 0) * MiB;
			break;
		case DIRECT:
			o.indirect = false;
			break;
		case SERVER:
			o.server_pid = atoi(optarg);
			break;
		case COMM:
			if (o.nr_server_comm == ARRAY_SIZE(o.server_comm))
				exit(1);
			o.server_comm[o.nr_server_comm++] = optarg;
			break;
		default:
			exit(1);
		}
	}
	if (!o.node + !o.sock + !o.bdev != 2 || !o.bs || o.bs % 512 || !o.depth || o.depth > 1024 || !o.queues || !o.devices) {
		fprintf(stderr, "ringbench: one of --device, --vhost-user, --bdev; sensible sizes\n");
		exit(1);
	}
}

/* One run of all workers; @quota requests in all, or @seconds. */
static void run(struct worker *w, unsigned int nt, u64 quota, double seconds, struct host *h0, struct host *h1)
{
	unsigned int i, k;

	stop = false;
	t_end = 0;
	pthread_barrier_init(&go, NULL, nt + 1);
	for (i = 0; i < nt; i++) {
		w[i].quota = quota ? (quota + nt - 1) / nt : 0;
		w[i].issued = w[i].done = w[i].errors = w[i].lat_max = 0;
		memset(w[i].lat, 0, sizeof(w[i].lat));
		for (k = 0; k < w[i].nr; k++)
			if (w[i].rings[k].q)
				w[i].rings[k].q->kicks = w[i].rings[k].q->calls = 0;
		if (pthread_create(&w[i].thread, NULL, worker, &w[i]))
			die("thread", EAGAIN);
	}
	memset(h0, 0, sizeof(*h0));
	measure_tasks(h0);
	precise = cost_now(&h0->all);
	if (!quota)
		t_end = now_ns() + seconds * 1e9;
	pthread_barrier_wait(&go);
	pthread_barrier_wait(&go);
	memset(h1, 0, sizeof(*h1));
	cost_now(&h1->all);
	measure_tasks(h1);
	for (i = 0; i < nt; i++)
		pthread_join(w[i].thread, NULL);
	pthread_barrier_destroy(&go);
}

int main(int argc, char **argv)
{
	unsigned int total, nt, i, at = 0, ncpu = sysconf(_SC_NPROCESSORS_ONLN);
	static u64 lat[LAT_BUCKETS];
	u64 done = 0, errors = 0, lat_max = 0, own = 0, kicks = 0, calls = 0, lost = 0, busy;
	struct host h0, h1;
	struct worker *w;
	struct ring *rings;
	struct vdev *d;
	struct gmem *m;
	double wall;

	if (argc > 1 && argv[1][0] != '-')
		return control(argc, argv);
	options(argc, argv);
	total = o.queues * o.devices;
	rings = calloc(total, sizeof(*rings));
	d = calloc(o.devices, sizeof(*d));
	m = calloc(o.devices, sizeof(*m));
	for (i = 0; i < o.devices; i++)
		if (!o.bdev)
			virtio_setup(&d[i], &m[i], i, &rings[i * o.queues]);
	if (o.bdev)
		for (i = 0; i < total; i++)
			uring_setup(&rings[i], i / o.queues);

	nt = o.bdev || o.devices == 1 || total <= ncpu ? total : ncpu;
	w = calloc(nt, sizeof(*w));
	for (i = 0; i < nt; i++) {
		unsigned int n = total / nt + (i < total % nt);

		w[i].rings = &rings[at];
		w[i].nr = n;
		w[i].rnd = 77 + i;
		at += n;
	}
	if (o.warmup)
		run(w, nt, o.warmup, 0, &h0, &h1);
	run(w, nt, o.ios, o.runtime, &h0, &h1);

	for (i = 0; i < nt; i++) {
		unsigned int b, k;

		done += w[i].done;
		errors += w[i].errors;
		own += w[i].cpu_ns;
		if (w[i].lat_max > lat_max)
			lat_max = w[i].lat_max;
		for (b = 0; b < LAT_BUCKETS; b++)
			lat[b] += w[i].lat[b];
		for (k = 0; k < w[i].nr; k++)
			if (w[i].rings[k].q) {
				kicks += w[i].rings[k].q->kicks;
				calls += w[i].rings[k].q->calls;
				lost += w[i].rings[k].q->bad_used;
			}
	}
	wall = cost_wall(&h0.all, &h1.all) / 1e9;
	busy = cost_busy(&h0.all, &h1.all, ncpu);
	if (!done)
		die("nothing was done", EIO);
	printf("{\"backend\": \"%s\", \"rw\": \"%s%s\", \"bs\": %u, \"depth\": %u, \"queues\": %u, \"devices\": %u, "
	       "\"ios\": %llu, \"errors\": %llu, \"seconds\": %.4f, \"iops\": %.1f, \"mib_s\": %.2f, "
	       "\"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f, "
	       "\"busy_ns_per_io\": %.0f, \"busy_precise\": %s, \"driver_ns_per_io\": %.0f, \"server_ns_per_io\": %.0f, "
	       "\"worker_ns_per_io\": %.0f, \"ctxt_per_io\": %.3f, \"server_ctxt_per_io\": %.3f, "
	       "\"worker_ctxt_per_io\": %.3f, \"kicks_per_io\": %.3f, \"calls_per_io\": %.3f, "
	       "\"bad_completions\": %llu, \"mem_bytes\": %llu}\n",
	       o.node ? "iovm" : o.sock ? "vhost-user" : "bdev", o.seq ? "" : "rand", o.write ? "write" : "read", o.bs, o.depth,
	       o.queues, o.devices, (unsigned long long)done, (unsigned long long)errors, wall, done / wall,
	       done * (double)o.bs / MiB / wall, percentile(lat, done, 0.5), percentile(lat, done, 0.99), lat_max / 1000.0,
	       busy / (double)done, precise ? "true" : "false", own / (double)done,
	       (h1.server.ns - h0.server.ns) / (double)done, (h1.worker.ns - h0.worker.ns) / (double)done,
	       (h1.all.ctxt - h0.all.ctxt) / (double)done, (h1.server.ctxt - h0.server.ctxt) / (double)done,
	       (h1.worker.ctxt - h0.worker.ctxt) / (double)done, kicks / (double)done, calls / (double)done,
	       (unsigned long long)lost, (unsigned long long)device_memory());
	for (i = 0; i < o.devices && !o.bdev; i++) {
		if (vdev_stop(&d[i]) < 0)
			die("stop", EIO);
		vdev_close(&d[i]);
	}
	return errors || lost;
}
