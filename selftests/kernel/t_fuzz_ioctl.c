// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Ioctls at random against the loaded modules: processes with several threads each make devices, paths and front ends, and send every
 * ioctl of /dev/iovm-mux and of /dev/vhost-iovm/NAME with valid arguments of which some fields were changed. Arguments are rewritten
 * while the kernel reads them, files are closed while another thread uses them, passed to the other process, given out as what they
 * are not; processes are killed, devices destroyed beside it.
 *
 * Nothing may hang: a call returns within LIMIT_S, since a device is destroyed before (a device without a path, a limit of one byte a
 * second, a server that says nothing make their callers wait as long as they live). The device kt-0 works on under a load that
 * verifies. Afterwards all can be destroyed and the modules are used by nobody. The kernel's log is for the harness to look at.
 *
 * The devices that are played with are kt-f*, each on storage of its own, so that nothing here may touch kt-0.
 */
#include "fix.h"
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCS		2u
#define THREADS		3u	/* of a process */
#define DEVS		4u	/* kt-f0.. */
#define FILES		4u	/* open nodes of a process */
#define SOCKS		8u
#define DEV_MB		8u
#define LIMIT_S		30
#define CASE_SECONDS	8
#define IOPS		200	/* of the device that is not to be touched: leaves the processor to the others */
#define MEM		(4 * MiB)	/* a process's guest memory */
#define NUM		32u
#define ARG_BYTES	8192u

enum { ON_MUX = 1, ON_NODE = 2 };

/* Every ioctl there is */
static const struct what {
	const char *name;
	unsigned long cmd;
	u32 size;
	unsigned int on;
} what[] = {
#define MUX(cmd, type)	{ #cmd, cmd, sizeof(struct type), ON_MUX }
	MUX(IOVM_GET_VERSION, iovm_version), MUX(IOVM_DEV_CREATE, iovm_dev_create), MUX(IOVM_DEV_DESTROY, iovm_dev_destroy),
	MUX(IOVM_DEV_GET, iovm_dev_info), MUX(IOVM_DEV_CTL, iovm_dev_ctl), MUX(IOVM_DEV_STATS, iovm_dev_stats),
	MUX(IOVM_PATH_ADD, iovm_path_add), MUX(IOVM_PATH_REMOVE, iovm_path_remove), MUX(IOVM_PATH_GET, iovm_path_info),
	MUX(IOVM_PATH_CONNECT, iovm_path_connect), MUX(IOVM_PATH_CTL, iovm_path_ctl), MUX(IOVM_PATH_STATS, iovm_path_stats),
	MUX(IOVM_EVENTS_FROM, iovm_events_from),
	MUX(IOVM_SESSION_ADD, iovm_session_add), MUX(IOVM_SESSION_REMOVE, iovm_session_remove),
	MUX(IOVM_SESSION_GET, iovm_session_info),
#define NODE(cmd, size)	{ #cmd, cmd, size, ON_NODE }
	NODE(VHOST_GET_FEATURES, 8), NODE(VHOST_SET_FEATURES, 8), NODE(VHOST_SET_OWNER, 0), NODE(VHOST_RESET_OWNER, 0),
	NODE(VHOST_GET_BACKEND_FEATURES, 8), NODE(VHOST_SET_BACKEND_FEATURES, 8),
	NODE(VHOST_SET_MEM_TABLE, sizeof(struct vhost_memory) + 3 * sizeof(struct vhost_memory_region)),
	NODE(VHOST_SET_LOG_BASE, 8), NODE(VHOST_SET_LOG_FD, 4),
	NODE(VHOST_SET_VRING_NUM, sizeof(struct vhost_vring_state)), NODE(VHOST_SET_VRING_BASE, sizeof(struct vhost_vring_state)),
	NODE(VHOST_GET_VRING_BASE, sizeof(struct vhost_vring_state)), NODE(VHOST_SET_VRING_ADDR, sizeof(struct vhost_vring_addr)),
	NODE(VHOST_SET_VRING_ENDIAN, sizeof(struct vhost_vring_state)), NODE(VHOST_GET_VRING_ENDIAN, sizeof(struct vhost_vring_state)),
	NODE(VHOST_SET_VRING_KICK, sizeof(struct vhost_vring_file)), NODE(VHOST_SET_VRING_CALL, sizeof(struct vhost_vring_file)),
	NODE(VHOST_SET_VRING_ERR, sizeof(struct vhost_vring_file)),
	NODE(VHOST_SET_VRING_BUSYLOOP_TIMEOUT, sizeof(struct vhost_vring_state)),
	NODE(VHOST_NEW_WORKER, sizeof(struct vhost_worker_state)), NODE(VHOST_FREE_WORKER, sizeof(struct vhost_worker_state)),
	NODE(VHOST_ATTACH_VRING_WORKER, sizeof(struct vhost_vring_worker)),
	NODE(VHOST_GET_VRING_WORKER, sizeof(struct vhost_vring_worker)),
	NODE(VHOST_VDPA_GET_DEVICE_ID, 4), NODE(VHOST_VDPA_GET_CONFIG, sizeof(struct vhost_vdpa_config) + 64),
	NODE(VHOST_VDPA_GET_CONFIG_SIZE, 4), NODE(VHOST_VDPA_GET_VQS_COUNT, 4), NODE(VHOST_VDPA_GET_VRING_NUM, 2),
	NODE(VHOST_VDPA_SET_CONFIG_CALL, 4), NODE(VHOST_IOVM_SET_INFLIGHT, sizeof(struct vhost_iovm_inflight)),
	NODE(VHOST_IOVM_LEND_SOCKET, 4),
	/* not one of ours, or not one there is */
	NODE(VHOST_NET_SET_BACKEND, sizeof(struct vhost_vring_file)), NODE(_IOWR(0xB9, 0x82, struct vhost_iovm_inflight), 24),
	MUX(_IO(IOVM_IOC_TYPE, 0x7f), iovm_version),
};
#define NWHAT	ARRAY_SIZE(what)

/* Shared by all processes */
struct shared {
	struct call {
		u64 since;		/* 0: not in the kernel */
		unsigned int what;	/* NWHAT: something else */
	} call[PROCS + 1][THREADS];
	u64 ok[NWHAT], refused[NWHAT];
	u64 opened, passed, received, requests, killed, destroyed;
	bool quiet;		/* nothing new is begun */
	bool stop;		/* no device is destroyed any more */
};

static struct shared *sh;
static u64 seed;
static char store[DEVS][64];
static int post[2];		/* datagrams with files, from process to process */

/* --- a process's own --- */

static struct {
	unsigned int nr;
	int mux[2];
	int node[FILES];	/* -1: none */
	int sock[SOCKS];	/* far ends of connections */
	int efd[4];
	int odd[6];		/* of the wrong kind */
	char *mem;		/* guest memory, between pages that are not there */
	u8 *args;		/* of THREADS threads */
} me;

struct thread {
	pthread_t thread;
	unsigned int nr;
	u64 rnd;
	u8 *arg;		/* ARG_BYTES, then a page that is not there */
	u32 len;		/* of what is in it */
};

/* For calls that may wait */
static void enter(struct thread *t, unsigned int w)
{
	struct call *c = &sh->call[me.nr][t->nr];

	c->what = w;
	__atomic_store_n(&c->since, now_ns(), __ATOMIC_RELEASE);
}

static void leave(struct thread *t)
{
	__atomic_store_n(&sh->call[me.nr][t->nr].since, 0, __ATOMIC_RELEASE);
}

static int any_fd(struct thread *t)
{
	u64 *r = &t->rnd;

	switch (fuzz_below(r, 12)) {
	case 0:
	case 1:
	case 2:
		return me.efd[fuzz_below(r, ARRAY_SIZE(me.efd))];
	case 3:
	case 4:
		return me.odd[fuzz_below(r, ARRAY_SIZE(me.odd))];
	case 5:
		return me.node[fuzz_below(r, FILES)];
	case 6:
		return me.mux[fuzz_below(r, 2)];
	case 7:
		return me.sock[fuzz_below(r, SOCKS)];
	case 8:
		return -1;
	case 9:
		return fuzz_value(r);
	default:
		/* whatever it is: closed, opened anew, of another thread */
		return fuzz_below(r, 64);
	}
}

static int efd(struct thread *t)
{
	return fuzz_one_in(&t->rnd, 8) ? any_fd(t) : me.efd[fuzz_below(&t->rnd, ARRAY_SIZE(me.efd))];
}

static void dev_name(struct thread *t, char *to)
{
	memset(to, 0, IOVM_NAME_MAX);
	if (!fuzz_one_in(&t->rnd, 40))
		snprintf(to, IOVM_NAME_MAX, "kt-f%u", (u32)fuzz_below(&t->rnd, DEVS));
}

static void path_name(struct thread *t, char *to)
{
	memset(to, 0, IOVM_NAME_MAX);
	if (!fuzz_one_in(&t->rnd, 40))
		to[0] = 'a' + fuzz_below(&t->rnd, 4);
}

static int open_store(struct thread *t)
{
	static const int flags[] = { O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_EXCL, O_RDWR | O_DIRECT };

	return open(store[fuzz_below(&t->rnd, DEVS)], flags[fuzz_below(&t->rnd, ARRAY_SIZE(flags))] | O_CLOEXEC);
}

/* One end is returned, the other one is kept, for somebody to send nonsense by or to close. */
static int connection(struct thread *t)
{
	int sv[2], type = fuzz_one_in(&t->rnd, 10) ? SOCK_DGRAM : SOCK_STREAM;
	unsigned int i = fuzz_below(&t->rnd, SOCKS);

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv))
		return -1;
	if (me.sock[i] >= 0)
		close(me.sock[i]);
	me.sock[i] = sv[1];
	return sv[0];
}

static u32 some_ms(struct thread *t)
{
	static const u32 ms[] = { 0, 1, 20, 50, 100, 500, 1000, 3600000, 0xffffffff };

	return ms[fuzz_below(&t->rnd, ARRAY_SIZE(ms))];
}

/* --- valid arguments --- */

static int fill_mux(struct thread *t, unsigned long cmd, void *arg)
{
	u64 *r = &t->rnd;
	unsigned int i;
	int fd = -1;

	switch (cmd) {
	case IOVM_DEV_CREATE: {
		struct iovm_dev_create *c = arg;

		ctl_dev_defaults(c, "", DEV_MB * 2048, 1 + fuzz_below(r, 3));
		c->class = fuzz_one_in(r, 4) ? IOVM_CLASS_TARGET : IOVM_CLASS_BLK;
		dev_name(t, c->name);
		c->flags = fuzz_below(r, 4) == 3 ? 3 : fuzz_below(r, 3) & ~1u;
		if (fuzz_one_in(r, 4)) {
			c->flags |= IOVM_DEV_F_EPOCH;
			c->epoch = fuzz_below(r, 3);
		}
		c->no_path_timeout_ms = some_ms(t);
		c->no_space_timeout_ms = some_ms(t);
		c->failback_after_ms = some_ms(t);
		if (fuzz_one_in(r, 8))
			c->iops = 1 + fuzz_below(r, 100);
		if (fuzz_one_in(r, 8))
			c->bps = 1 + fuzz_below(r, 1 << 20);
		break;
	}
	case IOVM_DEV_DESTROY: {
		struct iovm_dev_destroy *d = arg;

		dev_name(t, d->name);
		d->flags = fuzz_below(r, 2);
		break;
	}
	case IOVM_DEV_GET:
		dev_name(t, ((struct iovm_dev_info *)arg)->name);
		((struct iovm_dev_info *)arg)->id = fuzz_below(r, 64);
		break;
	case IOVM_DEV_CTL: {
		struct iovm_dev_ctl *c = arg;

		dev_name(t, c->name);
		if (fuzz_one_in(r, 2))
			path_name(t, c->path);
		c->op = 1 + fuzz_below(r, 15);
		c->value = c->op >= IOVM_DEV_EPOCH_TAKE ? fuzz_below(r, 30) : c->op == IOVM_DEV_RESIZE ? DEV_MB * 2048 - 8 * fuzz_below(r, 3) :
			   c->op == IOVM_DEV_SET_IOPS || c->op == IOVM_DEV_SET_BPS ? fuzz_value(r) : some_ms(t);
		break;
	}
	case IOVM_DEV_STATS:
		dev_name(t, ((struct iovm_dev_stats *)arg)->name);
		break;
	case IOVM_PATH_ADD: {
		struct iovm_path_add *p = arg;

		dev_name(t, p->dev);
		path_name(t, p->name);
		p->type = fuzz_one_in(r, 3) ? IOVM_PATH_NBD : IOVM_PATH_BDEV;
		fd = p->type == IOVM_PATH_BDEV ? open_store(t) : -1;
		p->fd = fd;
		p->flags = IOVM_PATH_F_ASSUME_SAME | fuzz_below(r, 3);
		if (!fuzz_one_in(r, 3))
			p->flags |= IOVM_PATH_F_SHARED;
		p->fence = fuzz_below(r, 4);
		p->io_timeout_ms = some_ms(t);
		p->heartbeat_ms = some_ms(t);
		p->dead_ms = some_ms(t);
		snprintf(p->addr, sizeof(p->addr), "fuzz");
		if (fuzz_one_in(r, 3))
			snprintf(p->identity, sizeof(p->identity), "test:%u", (u32)fuzz_below(r, 3));
		break;
	}
	case IOVM_PATH_REMOVE: {
		struct iovm_path_remove *p = arg;

		dev_name(t, p->dev);
		path_name(t, p->name);
		p->flags = fuzz_below(r, 2);
		break;
	}
	case IOVM_PATH_GET:
		dev_name(t, ((struct iovm_path_info *)arg)->dev);
		path_name(t, ((struct iovm_path_info *)arg)->name);
		break;
	case IOVM_PATH_CONNECT: {
		struct iovm_path_connect *c = arg;

		dev_name(t, c->dev);
		path_name(t, c->name);
		c->nr_fds = 1 + fuzz_below(r, 3);
		for (i = 0; i < IOVM_MAX_SOCKETS; i++)
			c->fds[i] = i < c->nr_fds && fuzz_one_in(r, 5) ? any_fd(t) : -1;
		if (c->fds[0] < 0)
			c->fds[0] = fd = connection(t);
		if (!fuzz_one_in(r, 3))
			c->nr_fds = 1;
		c->export_bytes = DEV_MB * MiB;
		c->nbd_flags = NBDSRV_FLAGS;
		/* nobody answers here: it is two seconds until that is refused */
		c->flags = fuzz_below(r, 4) | (fuzz_one_in(r, 30) ? IOVM_NBD_F_REPLACE : 0);
		break;
	}
	case IOVM_PATH_CTL: {
		struct iovm_path_ctl *c = arg;

		dev_name(t, c->dev);
		path_name(t, c->name);
		c->op = 1 + fuzz_below(r, 5);
		if (c->op == IOVM_PATH_CTL_SET_FENCE) {
			c->fence_by = fuzz_below(r, 4);
			c->fence_after_ms = fuzz_below(r, 3);
			if (c->fence_by == IOVM_FENCE_BY_COMMAND)
				strcpy(c->fence_command, "/bin/true");
		}
		break;
	}
	case IOVM_PATH_STATS:
		dev_name(t, ((struct iovm_path_stats *)arg)->dev);
		path_name(t, ((struct iovm_path_stats *)arg)->name);
		break;
	case IOVM_SESSION_ADD: {
		struct iovm_session_add *s = arg;

		dev_name(t, s->dev);
		s->nr_fds = 1 + fuzz_below(r, 2);
		if (fuzz_one_in(r, 2))
			s->fds[0] = fd = connection(t);
		if (!fuzz_one_in(r, 3))
			s->nr_fds = 1;
		s->flags = fuzz_below(r, 2);
		s->epoch = fuzz_below(r, 2) * fuzz_below(r, 30);
		break;
	}
	case IOVM_SESSION_REMOVE:
		dev_name(t, ((struct iovm_session_remove *)arg)->dev);
		((struct iovm_session_remove *)arg)->id = fuzz_one_in(r, 4) ? IOVM_NO_ID : fuzz_below(r, 20);
		break;
	case IOVM_SESSION_GET:
		dev_name(t, ((struct iovm_session_info *)arg)->dev);
		((struct iovm_session_info *)arg)->id = fuzz_below(r, 20);
		break;
	case IOVM_EVENTS_FROM:
		((struct iovm_events_from *)arg)->seq = fuzz_below(r, 5000);
		break;
	}
	return fd;
}

/* Queue q's ring in the guest memory: desc, avail, used, a page each; record behind it */
static char *ring_at(unsigned int q, unsigned int part)
{
	return me.mem + 16384 * (q % 4) + 4096 * part;
}

static void fill_node(struct thread *t, unsigned long cmd, void *arg)
{
	u64 *r = &t->rnd;
	u32 q = fuzz_one_in(r, 12) ? fuzz_below(r, 5) : fuzz_below(r, 2);

	switch (cmd) {
	case VHOST_SET_FEATURES:
		*(u64 *)arg = BIT64(VIRTIO_F_VERSION_1) | (rnd64(r) & (RING_FEATURES | BIT64(VIRTIO_BLK_F_FLUSH) |
								       BIT64(VIRTIO_BLK_F_MQ) | BIT64(VHOST_F_LOG_ALL)));
		break;
	case VHOST_SET_BACKEND_FEATURES:
		break;
	case VHOST_SET_MEM_TABLE: {
		struct vhost_memory *m = arg;

		m->nregions = 1 + fuzz_below(r, 3);
		m->regions[0] = (struct vhost_memory_region){ .memory_size = MEM, .userspace_addr = (uintptr_t)me.mem };
		m->regions[1] = (struct vhost_memory_region){ 4 * GiB, MEM / 2, (uintptr_t)me.mem + MEM / 2, 0 };
		m->regions[2] = (struct vhost_memory_region){ 8 * GiB, 65536, (uintptr_t)me.mem + MEM - 65536, 0 };
		break;
	}
	case VHOST_SET_LOG_BASE:
		*(u64 *)arg = (uintptr_t)me.mem + MEM / 2;
		break;
	case VHOST_SET_VRING_NUM:
		*(struct vhost_vring_state *)arg = (struct vhost_vring_state){ q, NUM };
		break;
	case VHOST_SET_VRING_BASE:
		*(struct vhost_vring_state *)arg = (struct vhost_vring_state){ q, 0 };
		break;
	case VHOST_GET_VRING_BASE:
	case VHOST_SET_VRING_ENDIAN:
	case VHOST_GET_VRING_ENDIAN:
	case VHOST_SET_VRING_BUSYLOOP_TIMEOUT:
		*(struct vhost_vring_state *)arg = (struct vhost_vring_state){ q, 0 };
		break;
	case VHOST_SET_VRING_ADDR:
		*(struct vhost_vring_addr *)arg = (struct vhost_vring_addr){
			.index = q, .flags = fuzz_one_in(r, 4), .desc_user_addr = (uintptr_t)ring_at(q, 0),
			.avail_user_addr = (uintptr_t)ring_at(q, 1), .used_user_addr = (uintptr_t)ring_at(q, 2),
			.log_guest_addr = ring_at(q, 2) - me.mem,
		};
		break;
	case VHOST_SET_VRING_KICK:
	case VHOST_SET_VRING_CALL:
	case VHOST_SET_VRING_ERR:
	case VHOST_NET_SET_BACKEND:
		*(struct vhost_vring_file *)arg = (struct vhost_vring_file){ q, efd(t) };
		break;
	case VHOST_SET_LOG_FD:
	case VHOST_VDPA_SET_CONFIG_CALL:
		*(int *)arg = efd(t);
		break;
	case VHOST_FREE_WORKER:
		*(u32 *)arg = fuzz_below(r, 6);
		break;
	case VHOST_ATTACH_VRING_WORKER:
	case VHOST_GET_VRING_WORKER:
		*(struct vhost_vring_worker *)arg = (struct vhost_vring_worker){ q, fuzz_below(r, 6) };
		break;
	case VHOST_VDPA_GET_CONFIG:
		((struct vhost_vdpa_config *)arg)->off = fuzz_below(r, 60);
		((struct vhost_vdpa_config *)arg)->len = 1 + fuzz_below(r, 60);
		break;
	case VHOST_IOVM_SET_INFLIGHT:
		*(struct vhost_iovm_inflight *)arg = (struct vhost_iovm_inflight){
			q, NUM, fuzz_one_in(r, 2) ? 0 : (uintptr_t)ring_at(q, 3), 4096,
		};
		break;
	case VHOST_IOVM_LEND_SOCKET:
		*(int *)arg = fuzz_one_in(r, 3) ? post[1] : fuzz_one_in(r, 2) ? me.sock[fuzz_below(r, SOCKS)] : any_fd(t);
		break;
	}
}

/* --- one call --- */

/* Whatever was made of the argument, it must not name the device that is not to be touched, or make one that nobody finds. */
static void keep_off(struct thread *t, unsigned long cmd)
{
	char *name = NULL;

	switch (cmd) {
	case IOVM_DEV_CREATE:
		name = ((struct iovm_dev_create *)t->arg)->name;
		if (name[0] != '.' && name[0] != '-')
			memcpy(name, "kt-f", 4);
		return;
	case IOVM_DEV_DESTROY:
		name = ((struct iovm_dev_destroy *)t->arg)->name;
		break;
	case IOVM_DEV_CTL:
		name = ((struct iovm_dev_ctl *)t->arg)->name;
		break;
	case IOVM_PATH_ADD:
		name = ((struct iovm_path_add *)t->arg)->dev;
		break;
	case IOVM_PATH_REMOVE:
		name = ((struct iovm_path_remove *)t->arg)->dev;
		break;
	case IOVM_PATH_CONNECT:
		name = ((struct iovm_path_connect *)t->arg)->dev;
		break;
	case IOVM_PATH_CTL:
		name = ((struct iovm_path_ctl *)t->arg)->dev;
		break;
	}
	if (name && !strncmp(name, "kt-0", 4))
		name[3] = 'f';
}

static void call(struct thread *t, unsigned int w, int fd, bool valid)
{
	const struct what *h = &what[w];
	u64 *r = &t->rnd;
	u32 size = h->size;
	void *p = t->arg;
	int own = -1, ret;

	memset(t->arg, 0, size + 64);
	if (h->on == ON_MUX) {
		own = fill_mux(t, h->cmd, t->arg);
		*(u32 *)t->arg = size;
	} else {
		fill_node(t, h->cmd, t->arg);
	}
	if (!valid && size && fuzz_one_in(r, 2))
		fuzz_mutate(r, t->arg + (h->on == ON_MUX ? 4 : 0), size - (h->on == ON_MUX ? 4 : 0));
	if (!valid && h->on == ON_MUX && fuzz_one_in(r, 8)) {
		/* an older or a newer caller, or a wrong one */
		size = fuzz_one_in(r, 3) ? fuzz_value(r) : fuzz_below(r, 2 * h->size);
		*(u32 *)t->arg = size;
	}
	keep_off(t, h->cmd);
	if (!valid && size <= ARG_BYTES && fuzz_one_in(r, 8)) {
		/* nothing behind it, or not even all of it */
		p = t->arg + ARG_BYTES - size + (fuzz_one_in(r, 4) ? fuzz_below(r, size + 1) : 0);
		if (p != t->arg)
			memmove(p, t->arg, t->arg + ARG_BYTES - (u8 *)p);
	} else if (!valid && fuzz_one_in(r, 40)) {
		p = (void *)(uintptr_t)(fuzz_one_in(r, 2) ? fuzz_value(r) : 0xffff888000000000ull + fuzz_below(r, 1 << 24));
	}
	__atomic_store_n(&t->len, h->on == ON_NODE ? size : 0, __ATOMIC_RELAXED);
	enter(t, w);
	ret = ioctl(fd, h->cmd, p);
	leave(t);
	__atomic_store_n(&t->len, 0, __ATOMIC_RELAXED);
	__atomic_add_fetch(ret < 0 ? &sh->refused[w] : &sh->ok[w], 1, __ATOMIC_RELAXED);
	if (own >= 0)
		close(own);
}

static unsigned int find(unsigned long cmd)
{
	unsigned int i;

	for (i = 0; what[i].cmd != cmd; i++)
		;
	return i;
}

static unsigned int some(struct thread *t, unsigned int on)
{
	unsigned int w;

	do {
		w = fuzz_below(&t->rnd, NWHAT);
	} while (what[w].on != on);
	return w;
}

/* --- more than a call --- */

/* A device that works: what the rest is about */
static void make_device(struct thread *t)
{
	call(t, find(IOVM_DEV_CREATE), me.mux[0], true);
	call(t, find(IOVM_PATH_ADD), me.mux[0], true);
	if (fuzz_one_in(&t->rnd, 2))
		call(t, find(IOVM_PATH_CONNECT), me.mux[0], true);
}

static void open_node(struct thread *t, unsigned int i)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), VHOST_IOVM_NODE_DIR "/kt-f%u", (u32)fuzz_below(&t->rnd, DEVS));
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	__atomic_add_fetch(&sh->opened, 1, __ATOMIC_RELAXED);
	fd = __atomic_exchange_n(&me.node[i], fd, __ATOMIC_RELAXED);
	if (fd >= 0) {
		enter(t, NWHAT);
		close(fd);
		leave(t);
	}
}

/* All that a VMM does, one step of it perhaps not as it should be; then requests. */
static void bring_up(struct thread *t, int fd)
{
	static const unsigned long steps[] = {
		VHOST_SET_OWNER, VHOST_SET_FEATURES, VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE, VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE,
		VHOST_SET_VRING_ADDR, VHOST_IOVM_SET_INFLIGHT, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR, VHOST_SET_VRING_KICK,
	};
	unsigned int i, wrong = fuzz_below(&t->rnd, 2 * ARRAY_SIZE(steps));

	for (i = 0; i < ARRAY_SIZE(steps); i++)
		call(t, find(steps[i]), fd, i != wrong);
	if (fuzz_one_in(&t->rnd, 2))
		for (i = 4; i < ARRAY_SIZE(steps); i++)
			call(t, find(steps[i]), fd, true);
}

/* Requests in whatever rings there are */
static void requests(struct thread *t)
{
	u64 *r = &t->rnd, one = 1;
	unsigned int q = fuzz_below(r, 4), n = 1 + fuzz_below(r, 8), i;
	struct vring_desc *d = (void *)ring_at(q, 0);
	struct vring_avail *a = (void *)ring_at(q, 1);
	struct virtio_blk_outhdr *h = (void *)(me.mem + 128 * KiB);

	for (i = 0; i < n; i++) {
		unsigned int at = 3 * fuzz_below(r, NUM / 3);
		bool in = fuzz_one_in(r, 2);

		h[at].type = in ? VIRTIO_BLK_T_IN : fuzz_below(r, 5) ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_FLUSH;
		h[at].sector = fuzz_below(r, DEV_MB * 2048);
		d[at] = (struct vring_desc){ (char *)&h[at] - me.mem, 16, VRING_DESC_F_NEXT, at + 1 };
		d[at + 1] = (struct vring_desc){
			256 * KiB + 4096 * fuzz_below(r, 256), 512 << fuzz_below(r, 9), VRING_DESC_F_NEXT | (in ? 2 : 0), at + 2,
		};
		d[at + 2] = (struct vring_desc){ 192 * KiB + at, 1, VRING_DESC_F_WRITE, 0 };
		a->ring[(a->idx + i) % NUM] = at;
	}
	if (fuzz_one_in(r, 20))
		fuzz_mutate(r, d, 4096);
	__atomic_store_n(&a->idx, fuzz_one_in(r, 50) ? rnd64(r) : a->idx + n, __ATOMIC_RELEASE);
	for (i = 0; i < ARRAY_SIZE(me.efd); i++)
		if (write(me.efd[i], &one, 8) < 0 && errno == EAGAIN && read(me.efd[i], &one, 8) < 0)
			one = 1;
	__atomic_add_fetch(&sh->requests, n, __ATOMIC_RELAXED);
}

/* A file goes to the other process, or one comes from there. */
static void pass(struct thread *t, bool send)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} ctl = {};
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = ctl.buf, .msg_controllen = sizeof(ctl.buf) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
	int fd = me.node[fuzz_below(&t->rnd, FILES)];

	if (send) {
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
		if (fd >= 0 && sendmsg(post[0], &mh, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
			__atomic_add_fetch(&sh->passed, 1, __ATOMIC_RELAXED);
		return;
	}
	if (recvmsg(post[1], &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return;
	c = CMSG_FIRSTHDR(&mh);
	if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return;
	memcpy(&fd, CMSG_DATA(c), sizeof(int));
	__atomic_add_fetch(&sh->received, 1, __ATOMIC_RELAXED);
	fd = __atomic_exchange_n(&me.node[fuzz_below(&t->rnd, FILES)], fd, __ATOMIC_RELAXED);
	if (fd >= 0) {
		enter(t, NWHAT);
		close(fd);
		leave(t);
	}
}

static void events(struct thread *t)
{
	struct pollfd p = { .fd = me.mux[1], .events = POLLIN };
	u8 *to = fuzz_one_in(&t->rnd, 20) ? t->arg + ARG_BYTES - fuzz_below(&t->rnd, 600) : t->arg;

	/* sometimes to where there is no room for it */
	poll(&p, 1, 0);
	if (read(me.mux[1], to, fuzz_below(&t->rnd, ARG_BYTES)) > 0)
		to[0] = 0;
}

/* What a server says: nothing that it should */
static void nonsense(struct thread *t)
{
	int fd = me.sock[fuzz_below(&t->rnd, SOCKS)];
	u32 buf[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(buf); i++)
		buf[i] = fuzz_value(&t->rnd);
	if (fuzz_one_in(&t->rnd, 2))
		buf[0] = __builtin_bswap32(fuzz_one_in(&t->rnd, 2) ? 0x67446698 : 0x668e33ef);
	if (send(fd, buf, 1 + fuzz_below(&t->rnd, sizeof(buf)), MSG_DONTWAIT | MSG_NOSIGNAL) < 0 || fuzz_one_in(&t->rnd, 2))
		while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
	if (fuzz_one_in(&t->rnd, 10))
		shutdown(fd, fuzz_below(&t->rnd, 3));
}

static void *work(void *arg)
{
	struct thread *t = arg;
	u64 *r = &t->rnd;

	while (!__atomic_load_n(&sh->quiet, __ATOMIC_RELAXED)) {
		unsigned int i = fuzz_below(r, FILES);
		int fd = me.node[i];

		if (fd < 0 && !fuzz_one_in(r, 8)) {
			open_node(t, i);
			fd = me.node[i];
		}
		switch (fuzz_below(r, 24)) {
		case 0:
		case 1:
			make_device(t);
			break;
		case 2:
		case 3:
			open_node(t, i);
			break;
		case 4:
		case 5:
		case 6:
			bring_up(t, fd);
			break;
		case 7:
		case 8:
		case 9:
			requests(t);
			break;
		case 10:
			if (!fuzz_one_in(r, 4))
				break;
			/* another thread may be using it */
			fd = __atomic_exchange_n(&me.node[i], -1, __ATOMIC_RELAXED);
			enter(t, NWHAT);
			close(fd);
			leave(t);
			break;
		case 11:
			pass(t, fuzz_one_in(r, 2));
			break;
		case 12:
			events(t);
			break;
		case 13:
			nonsense(t);
			break;
		case 14:
			/* where it does not belong */
			call(t, fuzz_below(r, NWHAT), any_fd(t), false);
			break;
		case 15:
		case 16:
		case 17:
		case 18:
			call(t, some(t, ON_NODE), fd, false);
			break;
		default:
			call(t, some(t, ON_MUX), me.mux[0], false);
		}
	}
	return NULL;
}

/* Rewrites arguments of node ioctls while the kernel reads them. Those of the mux name devices, and are left alone. */
static void *rewrite(void *arg)
{
	struct thread *t = arg;
	u64 rnd = t[0].rnd * 7;

	for (;;) {
		unsigned int i = fuzz_below(&rnd, THREADS);
		u32 len = __atomic_load_n(&t[i].len, __ATOMIC_RELAXED);

		if (len && len <= ARG_BYTES)
			fuzz_mutate(&rnd, t[i].arg, len);
		else
			sleep_ms(1);
	}
	return NULL;
}

static void *map_between(u64 bytes)
{
	char *p = mmap(NULL, bytes + 2 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED ||
	    mmap(p + MiB, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		_exit(2);
	return p + MiB;
}

static void process(unsigned int nr, u64 rnd)
{
	static struct thread t[THREADS];
	pthread_t racer;
	unsigned int i;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(0);
	signal(SIGPIPE, SIG_IGN);
	/* nothing of the parent's, whose device is not to be touched */
	for (fd = 3; fd < 1024; fd++)
		if (fd != post[0] && fd != post[1])
			close(fd);
	me.nr = nr;
	me.mux[0] = open(VHOST_IOVM_MUX_NODE, O_RDWR | O_CLOEXEC);
	me.mux[1] = open(VHOST_IOVM_MUX_NODE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	for (i = 0; i < FILES; i++)
		me.node[i] = -1;
	for (i = 0; i < SOCKS; i++)
		me.sock[i] = -1;
	for (i = 0; i < ARRAY_SIZE(me.efd); i++)
		me.efd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | (i == 3 ? EFD_SEMAPHORE : 0));
	me.odd[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
	me.odd[1] = open(store[0], O_RDONLY | O_CLOEXEC);
	me.odd[2] = memfd_create("odd", MFD_CLOEXEC);
	me.odd[3] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	me.odd[4] = open("/", O_PATH | O_CLOEXEC);
	me.odd[5] = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	me.mem = map_between(MEM);
	for (i = 0; i < THREADS; i++) {
		t[i].nr = i;
		t[i].rnd = rnd * 1000 + i;
		t[i].arg = map_between(ARG_BYTES);
		if (pthread_create(&t[i].thread, NULL, work, &t[i]))
			_exit(3);
	}
	pthread_create(&racer, NULL, rewrite, t);
	for (;;)
		pause();
}

/* --- the parent --- */

static struct vload load;
static bool load_runs;
static pid_t pid[PROCS];
static pthread_t destroyer;
static bool destroyer_runs;

static void dump(pid_t of, const char *name)
{
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", of, name);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		ktap_note("%s", line);
	}
	if (f)
		fclose(f);
}

/* Has a call taken too long? Says which. @nr: how many have not returned yet */
static bool stuck(unsigned int *nr)
{
	u64 now = now_ns();
	unsigned int i, k;

	*nr = 0;

	for (i = 0; i <= PROCS; i++) {
		for (k = 0; k < THREADS; k++) {
			u64 since = __atomic_load_n(&sh->call[i][k].since, __ATOMIC_ACQUIRE);
			unsigned int w = sh->call[i][k].what;

			*nr += since && i < PROCS;
			if (!since || now < since + LIMIT_S * 1000000000ull)
				continue;
			T_CHECK(false, "%s has not returned after %u s", w < NWHAT ? what[w].name : "close", LIMIT_S);
			if (i < PROCS)
				dump(pid[i], "stack");
			return true;
		}
	}
	return false;
}

/* Every device of theirs goes, by force, sooner or later, so that nothing waits for ever. */
static void *destroy(void *arg)
{
	u64 rnd = seed * 3;
	struct thread t = {};

	(void)arg;
	me.nr = PROCS;
	while (!__atomic_load_n(&sh->stop, __ATOMIC_RELAXED)) {
		char name[IOVM_NAME_MAX];

		sleep_ms(20 + fuzz_below(&rnd, 400));
		snprintf(name, sizeof(name), "kt-f%u", (u32)fuzz_below(&rnd, DEVS));
		enter(&t, find(IOVM_DEV_DESTROY));
		if (fuzz_one_in(&rnd, 20))
			ctl_destroy_all("kt-f");
		else if (!ctl_dev_destroy(name, IOVM_DESTROY_F_FORCE))
			__atomic_add_fetch(&sh->destroyed, 1, __ATOMIC_RELAXED);
		leave(&t);
	}
	return NULL;
}

static void begin_process(unsigned int i, u64 nr)
{
	unsigned int k;

	for (k = 0; k < THREADS; k++)
		sh->call[i][k].since = 0;
	fflush(NULL);
	pid[i] = fork();
	if (!pid[i])
		process(i, seed * 100 + nr);
	T_REQUIRE(pid[i] > 0, "fork: %s", strerror(errno));
}

/* -9; its threads may have something in the kernel that must come to an end. */
static bool end_process(unsigned int i)
{
	u64 end = now_ns() + LIMIT_S * 1000000000ull;

	if (pid[i] <= 0)
		return true;
	kill(pid[i], SIGKILL);
	while (waitpid(pid[i], NULL, WNOHANG) == 0) {
		if (now_ns() > end) {
			T_CHECK(false, "process %u does not end", i);
			dump(pid[i], "stack");
			dump(pid[i], "status");
			pid[i] = 0;
			return false;
		}
		sleep_ms(5);
	}
	pid[i] = 0;
	return true;
}

static void cleanup(void)
{
	unsigned int i;

	for (i = 0; i < PROCS; i++)
		end_process(i);
	if (sh)
		sh->stop = true;
	if (destroyer_runs)
		pthread_join(destroyer, NULL);
	destroyer_runs = false;
	if (load_runs) {
		load.abandon = true;
		vload_stop(&load);
		vload_free(&load);
		load_runs = false;
	}
	for (i = 0; i < 2; i++)
		if (post[i] > 0)
			close(post[i]);
	memset(post, 0, sizeof(post));
	if (sh)
		munmap(sh, sizeof(*sh));
	sh = NULL;
	fix_cleanup();
}

static void wait_unused(const char *module, int want)
{
	u64 end = now_ns() + LIMIT_S * 1000000000ull;
	int n;

	while ((n = ctl_module_refcnt(module)) != want && now_ns() < end)
		sleep_ms(20);
	T_CHECK(n == want, "%s: %d users, %d before", module, n, want);
}

static void ioctls(void)
{
	static const char *const modules[] = { "vhost_iovm", "iovm_mux", "vhost_iovm_blk" };
	struct vload_cfg c = { .depth = 4, .flush_pct = 3, .zero_pct = 3, .seed = seed, .mem_idx = -1 };
	struct nullb_opts o = { .size_mb = DEV_MB, .memory_backed = true, .discard = true };
	u64 until, next_kill, rnd = seed, nr = 0, ok = 0, refused = 0;
	unsigned int i, never = 0, waiting;
	int users[ARRAY_SIZE(modules)];

	for (i = 0; i < ARRAY_SIZE(modules); i++)
		users[i] = ctl_module_refcnt(modules[i]);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	T_REQUIRE(sh != MAP_FAILED, "memory");
	for (i = 0; i < DEVS; i++) {
		char name[32];

		snprintf(name, sizeof(name), "iovmtf%u", i);
		T_REQUIRE(!nullb_create(name, &o, store[i]), "null_blk");
	}
	T_REQUIRE(!socketpair(AF_UNIX, SOCK_DGRAM, 0, post), "socketpair");
	fix_all(16, 2, 64, ALL_FEATURES);
	T_REQUIRE(!ctl_dev_ctl("kt-0", IOVM_DEV_SET_IOPS, NULL, IOPS), "limit");
	T_REQUIRE(!vload_start(&load, &F[0].d, &c), "load");
	load_runs = true;
	T_REQUIRE(!pthread_create(&destroyer, NULL, destroy, NULL), "thread");
	destroyer_runs = true;
	for (i = 0; i < PROCS; i++)
		begin_process(i, nr++);

	until = now_ns() + fuzz_seconds(CASE_SECONDS) * 1000000000ull;
	next_kill = now_ns() + 1000000000ull;
	while (now_ns() < until && !stuck(&waiting) && !ktap_failed()) {
		sleep_ms(20);
		for (i = 0; i < PROCS; i++) {
			bool due = now_ns() > next_kill && i == nr % PROCS;

			/* one that had its own memory overwritten ends by itself */
			if (!due && waitpid(pid[i], NULL, WNOHANG) == 0)
				continue;
			if (due && !end_process(i))
				break;
			sh->killed += due;
			next_kill = due ? now_ns() + fuzz_below(&rnd, 3000) * 1000000ull : next_kill;
			begin_process(i, nr++);
		}
	}
	/* with their devices being destroyed, all that waits comes to an end without being killed */
	__atomic_store_n(&sh->quiet, true, __ATOMIC_RELAXED);
	while (!stuck(&waiting) && waiting && !ktap_failed())
		sleep_ms(20);
	for (i = 0; i < PROCS; i++)
		end_process(i);
	/* a device that was being made goes too */
	__atomic_store_n(&sh->stop, true, __ATOMIC_RELAXED);
	T_CHECK(vload_progress(&load, 20, LIMIT_S * 1000), "the device that nobody touched does not go on");
	pthread_join(destroyer, NULL);
	destroyer_runs = false;
	/* files that are on their way hold nodes */
	close(post[0]);
	close(post[1]);
	memset(post, 0, sizeof(post));
	ctl_destroy_all("kt-f");

	load_runs = false;
	vload_finish(&load, "the device that nobody touched");
	fix_close(0);
	ctl_destroy_all("kt-");
	for (i = 0; i < ARRAY_SIZE(modules); i++)
		wait_unused(modules[i], users[i]);
	for (i = 0; i < NWHAT; i++) {
		ok += sh->ok[i];
		refused += sh->refused[i];
		never += !sh->ok[i] && !sh->refused[i];
		ktap_note("%-34s %8llu done %8llu refused", what[i].name, (unsigned long long)sh->ok[i],
			  (unsigned long long)sh->refused[i]);
	}
	ktap_note("%llu calls, %llu of them refused; %llu nodes opened, %llu files passed, %llu taken, %llu requests, %llu processes "
		  "killed, %llu devices destroyed", (unsigned long long)(ok + refused), (unsigned long long)refused,
		  (unsigned long long)sh->opened, (unsigned long long)sh->passed, (unsigned long long)sh->received,
		  (unsigned long long)sh->requests, (unsigned long long)sh->killed, (unsigned long long)sh->destroyed);
	/* a fuzzer that does not get anywhere finds nothing */
	T_CHECK(never < NWHAT / 4, "%u kinds of ioctl were never sent", never);
	T_CHECK(sh->ok[find(IOVM_PATH_ADD)] && sh->ok[find(VHOST_SET_VRING_KICK)], "no path was added, or no queue started");
}

static struct ktap_case cases[] = {
	{ "ioctls", ioctls },
};

static const char *setup(void)
{
	seed = fuzz_seed();
	return ctl_setup();
}

int main(int argc, char **argv)
{
	cases[0].limit_s = 4 * LIMIT_S + fuzz_seconds(CASE_SECONDS);
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, NULL);
}
