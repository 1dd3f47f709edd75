// SPDX-License-Identifier: GPL-2.0-or-later
#include "load.h"
#include "ctl.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPEN_TRIES	6000	/* of a node that is still busy, 10 ms apart */
#define RECORD_BYTES	8192u	/* room for a queue's */

/* Everything, through the device, with nothing else in flight. */
static int sweep(struct child *c)
{
	struct guest *g = c->g;
	struct vblk_sync s = { .d = &c->d };
	struct slot *big;
	u64 at;
	int r = 0;

	if (!load_drain(c))
		return -ETIMEDOUT;
	vblk_timeout_ms = LOAD_DRAIN_S * 1000;
	big = c->w[0].large.first;
	s.hdr_gpa = big->gpa;
	s.status_gpa = big->gpa + LOAD_STATUS_AT;
	s.data_gpa = big->gpa + 4096;
	for (at = 0; at < g->c.nsect && !r; at += 256) {
		u32 n = g->c.nsect - at < 256 ? g->c.nsect - at : 256;

		model_read_begin(g->m, big->id, at, n, 0);
		r = vblk_io(&s, &c->d.vqs[0], VIRTIO_BLK_T_IN, at, n * 512);
		model_read_end(g->m, big->id, at, n, big->mem + 4096, 0, r);
	}
	big->off = 0;
	big->len = 256 * 512;
	load_put_poison(big);
	if (r)
		model_breach(g->m, at, "read of the sweep: %d", r);
	load_go_on(c);
	return 0;
}

static int restart(struct child *c, unsigned int q)
{
	unsigned int i;
	int r = 0;

	for (i = 0; i < c->g->c.queues && !r; i++) {
		if (q < c->g->c.queues && i != q)
			continue;
		r = vq_stop(&c->d.vqs[i]);
		if (!r)
			r = vq_start(&c->d.vqs[i]);
	}
	return r;
}

static int hotplug(struct child *c)
{
	int idx, r;

	idx = gmem_add(&c->mem, 64 * GiB, 4 * MiB, GMEM_MEMFD);
	if (idx < 0)
		return idx;
	r = vdev_set_mem(&c->d, &c->mem);
	sleep_ms(10);
	gmem_del(&c->mem, idx);
	return vdev_set_mem(&c->d, &c->mem) ?: r;
}

/* --- the front end as a process of its own: it has the node, not the rings' other side --- */

/* A killed predecessor's last requests may still be on their way. */
int child_open(struct child *c, struct vdev *d, unsigned int host)
{
	struct guest_cfg *g = &c->g->c;
	int tries, r = -EBUSY;

	for (tries = 0; tries < OPEN_TRIES && r == -EBUSY; tries++) {
		if (tries)
			sleep_ms(10);
		r = g->socket ? vdev_open_user(d, g->socket) : vdev_open_node(d, ctl_node(g->dev[host]));
	}
	return r;
}

static int front_attach(struct child *c)
{
	struct vdev d = c->d;
	unsigned int i;
	int r;

	r = child_open(c, &c->d, c->g->c.at);
	if (r)
		return r;
	d.fd = c->d.fd;
	c->d = d;
	r = d.tp->set_features(&c->d, d.features);
	if (!r)
		r = vdev_set_mem(&c->d, &c->mem);
	if (!r && c->move.on)
		r = move_device(c, GUEST_MOVE_LIVE);
	for (i = 0; i < d.nvqs && !r; i++) {
		struct vhost_iovm_inflight rec = {
			.index = i, .desc_num = c->g->c.ring, .addr = (uintptr_t)c->records + i * RECORD_BYTES,
			.size = RECORD_BYTES,
		};

		if (ioctl(c->d.fd, VHOST_IOVM_SET_INFLIGHT, &rec))
			r = -errno;
		/* counts for a new record only */
		c->d.vqs[i].base = __atomic_load_n(&c->d.vqs[i].ring.used->idx, __ATOMIC_ACQUIRE);
		if (!r)
			r = vq_start(&c->d.vqs[i]);
	}
	return r;
}

struct front_cmd {
	int cmd;
	u64 arg;
};

static void front_main(struct child *c, int sock)
{
	struct front_cmd cmd;
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = front_attach(c);
	while (write(sock, &r, sizeof(r)) == sizeof(r) && read(sock, &cmd, sizeof(cmd)) == sizeof(cmd))
		r = cmd.cmd == GUEST_RESTART ? restart(c, cmd.arg) : cmd.cmd == GUEST_HOTPLUG ? hotplug(c) : move_device(c, cmd.cmd);
	_exit(0);
}

static int front_answer(struct child *c)
{
	int r;

	return read(c->front_sock, &r, sizeof(r)) == sizeof(r) ? r : -ESRCH;
}

static int front_start(struct child *c)
{
	int sv[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		return -errno;
	c->front = fork();
	if (!c->front)
		front_main(c, sv[1]);
	close(sv[1]);
	c->front_sock = sv[0];
	if (c->front < 0)
		return -errno;
	c->g->s->owner = c->front;
	r = front_answer(c);
	__atomic_store_n(&c->front_ns, now_ns(), __ATOMIC_RELAXED);
	return r;
}

int child_front_new(struct child *c)
{
	/* for ever, until the successor is there */
	__atomic_store_n(&c->front_ns, ~0ull >> 1, __ATOMIC_RELAXED);
	kill(c->front, SIGKILL);
	waitpid(c->front, NULL, 0);
	close(c->front_sock);
	return front_start(c);
}

int child_front(struct child *c, int cmd, u64 arg)
{
	struct front_cmd f = { cmd, arg };

	return write(c->front_sock, &f, sizeof(f)) == sizeof(f) ? front_answer(c) : -ESRCH;
}

/* As a live migration: what was written while the log was on must be in it once the queues have stopped. */
static int log_check(struct child *c, u64 ms)
{
	struct guest *g = c->g;
	u64 i, missing = 0, words, pages = 0;
	int r;

	r = vlog_alloc(&c->log, &c->mem);
	if (r)
		return r;
	words = c->log.bytes / 8;
	c->expect = calloc(words, 8);
	r = c->expect ? vdev_log_on(&c->d, &c->log) : -ENOMEM;
	if (r)
		goto out;
	c->logging = true;
	sleep_ms(ms);
	for (i = 0; i < g->c.queues && !r; i++)
		r = vq_stop(&c->d.vqs[i]);
	if (r)
		goto out;
	/* what is taken from the rings from here on was written, and logged, before the stop */
	for (i = 0; i < words; i++) {
		u64 want = __atomic_load_n(&c->expect[i], __ATOMIC_RELAXED);
		u64 gone = want & ~__atomic_load_n(&c->log.bits[i], __ATOMIC_ACQUIRE);

		pages += __builtin_popcountll(want);
		if (gone && !missing)
			model_breach(g->m, ~0ull, "page %llx was written and is not in the dirty log",
				     (unsigned long long)(64 * i + __builtin_ctzll(gone)) * 4096);
		missing += __builtin_popcountll(gone);
	}
	__atomic_add_fetch(&g->s->log_pages, pages, __ATOMIC_RELAXED);
	c->logging = false;
	r = c->d.tp->set_features(&c->d, c->d.features);
	for (i = 0; i < g->c.queues && !r; i++) {
		c->d.vqs[i].log = false;
		r = vq_start(&c->d.vqs[i]);
	}
out:
	if (c->logging) {
		c->logging = false;
		vdev_log_off(&c->d);
	}
	/* requests that were begun with the log on must have ended before the bits go; else these stay */
	if (load_drain(c))
		free(c->expect);
	c->expect = NULL;
	load_go_on(c);
	vlog_free(&c->log);
	return r;
}

static int bring_up(struct child *c)
{
	struct guest_cfg *g = &c->g->c;
	u64 rnd = g->seed * 77 + c->g->started, features = ~BIT64(VHOST_F_LOG_ALL), bytes;
	unsigned int i;
	int r;

	/* either of the rings' features may be missing, as with old drivers */
	if (rnd64(&rnd) % 4 == 0)
		features &= ~BIT64(VIRTIO_RING_F_EVENT_IDX);
	if (rnd64(&rnd) % 4 == 0)
		features &= ~BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	bytes = g->queues * ((2 * g->depth + 4) * (8192ull + LOAD_SMALL + 4096) + LOAD_LARGE + 64 * KiB +
			     g->ring * (g->ring + 64) * 16ull);
	r = gmem_add(&c->mem, 0, (bytes / 2 + 4 * MiB) & ~4095ull, GMEM_MEMFD);
	if (r >= 0)
		r = gmem_add(&c->mem, 4 * GiB, (bytes / 2 + 4 * MiB) & ~4095ull, g->socket || g->record ? GMEM_MEMFD : GMEM_ANON);
	if (r < 0)
		return r;
	c->mem.r[0].used = 4096;
	r = g->dev[1] ? move_init(c) : 0;
	r = r ?: child_open(c, &c->d, g->at);
	if (r)
		return r;
	model_lost(c->g->m);
	r = vdev_setup(&c->d, &c->mem, features, g->queues, g->ring);
	for (i = 0; i < g->queues && !r; i++) {
		c->w[i].c = c;
		c->w[i].q = &c->d.vqs[i];
		c->w[i].idx = i;
		c->w[i].rnd = rnd64(&rnd);
		r = load_slots(c, &c->w[i]);
	}
	if (!r && g->record) {
		close(c->d.fd);
		c->d.fd = -1;
		c->records_bytes = g->queues * RECORD_BYTES;
		c->records = mmap(NULL, c->records_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		r = c->records == MAP_FAILED ? -ENOMEM : front_start(c);
	} else if (!r) {
		c->g->s->owner = getpid();
		r = vdev_start(&c->d);
	}
	for (i = 0; i < g->queues && !r; i++)
		r = -pthread_create(&c->w[i].thread, NULL, load_work, &c->w[i]);
	return r;
}

void child_main(struct guest *g)
{
	static struct child c;
	struct guest_shared *s = g->s;
	unsigned int i, k;
	int r;

	c.g = g;
	r = bring_up(&c);
	s->why = r;
	s->up = !r;
	sem_post(&s->done_sem);
	if (r)
		_exit(1);
	for (;;) {
		int cmd;

		while (sem_wait(&s->cmd_sem) && errno == EINTR)
			;
		cmd = s->cmd;
		switch (cmd) {
		case GUEST_QUIT:
			if (!load_drain(&c)) {
				r = -ETIMEDOUT;
				break;
			}
			r = 0;
			for (i = 0; i < g->c.queues; i++)
				for (k = 0; k < c.w[i].nslots; k++)
					load_look_at_poison(&c.w[i], &c.w[i].slots[k], true);
			break;
		case GUEST_DRAIN:
			r = load_drain(&c) ? 0 : -ETIMEDOUT;
			break;
		case GUEST_GO:
			load_go_on(&c);
			r = 0;
			break;
		case GUEST_SWEEP:
			r = sweep(&c);
			break;
		case GUEST_RESTART:
			r = g->c.record ? child_front(&c, cmd, s->arg) : restart(&c, s->arg);
			break;
		case GUEST_HOTPLUG:
			/* no memory is plugged during a migration */
			r = c.move.on ? 0 : g->c.record ? child_front(&c, cmd, 0) : hotplug(&c);
			break;
		case GUEST_LOG:
			r = g->c.record ? -EOPNOTSUPP : log_check(&c, s->arg);
			break;
		case GUEST_FRONT_KILL:
			r = child_front_new(&c);
			break;
		case GUEST_MOVE_LIVE ... GUEST_MOVE_BACK:
			r = move_command(&c, cmd, s->arg);
			break;
		default:
			r = -EINVAL;
		}
		s->result = r;
		sem_post(&s->done_sem);
		if (cmd == GUEST_QUIT && !r)
			_exit(0);
	}
}
