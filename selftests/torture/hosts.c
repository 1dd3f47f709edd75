// SPDX-License-Identifier: GPL-2.0-or-later
#include "hosts.h"
#include "fault.h"
#include "net.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NULLB	"iovmt0"

static const char *const local_dm[] = { "iovmt-a", "iovmt-b" };
static const char *const target_dm[] = { "iovmt-c", "iovmt-d" };

static int dm_way(struct bed *b, struct hosts_way *w, unsigned int host, const char *dm, const char *name, char node[64])
{
	int r = dm_create(dm, dm_linear(b->store, b->sectors), node);

	w->host = host;
	w->name = name;
	snprintf(w->stat, sizeof(w->stat), "/sys/block/%.32s/stat", node + strlen("/dev/"));
	return r;
}

int hosts_make(struct bed *b)
{
	struct nullb_opts o = { .size_mb = b->sectors / 2048, .block_size = b->block, .memory_backed = true, .discard = true,
				.completion_nsec = b->opts.latency_us * 1000ull };
	struct hosts_way *w;
	unsigned int i;
	int r;

	b->hosts = 2;
	b->epochs = calloc(1, sizeof(*b->epochs));
	if (!b->epochs)
		return -ENOMEM;
	b->epochs->holder = -1;
	w = b->epochs->way;
	r = nullb_create(NULLB, &o, b->store);
	for (i = 0; i < b->hosts && !r; i++) {
		struct bed_host *h = &b->host[i], *other = &b->host[1 - i];

		snprintf(h->target, sizeof(h->target), "kt-t%u", i);
		snprintf(h->path[0].name, sizeof(h->path[0].name), "a");
		snprintf(h->path[0].dm, sizeof(h->path[0].dm), "%s", local_dm[i]);
		r = dm_way(b, w++, i, local_dm[i], "disk", h->path[0].node);

		bed_path_nbd(b, &h->path[1], "r", 0);
		h->path[1].fence = IOVM_FENCE_EPOCH;
		h->path[1].target = other;
		snprintf(other->target_dm, sizeof(other->target_dm), "%s", target_dm[1 - i]);
		r = r ?: dm_way(b, w++, i, other->target_dm, "target", other->target_node);

		bed_path_nbd(b, &h->path[2], "s", 0);
		h->path[2].fence = IOVM_FENCE_EPOCH;
		r = r ?: nbdsrv_init(&h->path[2].srv, b->store, 0);
		*w++ = (struct hosts_way){ .name = "server", .host = i, .srv = &h->path[2].srv };
	}
	return r;
}

static int make_target(struct bed *b, unsigned int i)
{
	struct bed_host *h = &b->host[i];
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, h->target, b->sectors, 1);
	c.class = IOVM_CLASS_TARGET;
	c.blk.block_size = b->block;
	c.flags = IOVM_DEV_F_EPOCH;
	c.no_path_timeout_ms = 0;
	r = ctl_dev_create(&c);
	return r ?: ctl_path_add_bdev(h->target, "a", h->target_node, 0, 0) ?: ctl_dev_ctl(h->target, IOVM_DEV_EPOCH_TAKE, NULL, 1);
}

int hosts_up(struct bed *b)
{
	int r = make_target(b, 0) ?: make_target(b, 1);

	if (r)
		return r;
	hosts_given(b);
	b->epochs->epoch = 1;
	hosts_taken(b, 0);
	return ctl_dev_ctl(b->host[0].dev, IOVM_DEV_EPOCH_TAKE, NULL, 1);
}

void hosts_free(struct bed *b)
{
	unsigned int i;

	if (!b->epochs)
		return;
	if (b->epochs->asked > 0) {
		kill(b->epochs->asked, SIGKILL);
		waitpid(b->epochs->asked, NULL, 0);
	}
	for (i = 0; i < b->hosts; i++)
		dm_suspend(target_dm[i], false);
	free(b->epochs);
	b->epochs = NULL;
}

void hosts_guest_at(struct bed *b, unsigned int host)
{
	b->at = host;
	b->dev = b->host[host].dev;
	b->path = b->host[host].path;
}

bool hosts_wants(const struct bed *b, const struct bed_path *p)
{
	/* who keeps writes cannot be asked to connect, either */
	return !b->epochs || !p->nbd || ((int)p->host == b->epochs->holder && !p->srv.stash);
}

/* --- sessions --- */

int hosts_sockets(struct bed *b, struct bed_path *p, int fds[])
{
	struct iovm_session_add a = { .epoch = b->epochs->epoch };
	int far[IOVM_MAX_SOCKETS], sv[2], r = 0;
	unsigned int i, n;

	snprintf(a.peer, sizeof(a.peer), "%s", p->dev);
	for (n = 0; n < p->sockets && !r; n++) {
		r = p->net ? net_pair(sv) : nbdsrv_tcp_pair(sv);
		if (r)
			break;
		fds[n] = sv[0];
		far[n] = sv[1];
	}
	r = r ?: ctl_session_add_arg(p->target->target, far, n, &a);
	for (i = 0; i < n; i++) {
		close(far[i]);
		if (r)
			close(fds[i]);
	}
	return r;
}

void hosts_end_sessions(struct bed_path *p)
{
	ctl_session_remove(p->target->target, IOVM_NO_ID);
}

bool hosts_has_sessions(const char *target, u64 older_than)
{
	struct iovm_session_info s;
	u32 id;

	for (id = 0; !ctl_session_get(target, id, &s); id = s.id + 1)
		if (s.epoch < older_than)
			return true;
	return false;
}

void hosts_refuse_old(struct bed *b)
{
	u64 now = b->epochs->epoch;
	unsigned int i;

	for (i = 0; i < b->hosts; i++) {
		struct bed_path p = { .sockets = 1, .target = &b->host[i] };
		int fd, r;

		if (hosts_has_sessions(b->host[i].target, now))
			model_breach(b->m, ~0ull, "%s has a session of an epoch older than %llu", b->host[i].target,
				     (unsigned long long)now);
		b->epochs->epoch = now - 1;
		r = hosts_sockets(b, &p, &fd);
		b->epochs->epoch = now;
		if (r != -ESTALE)
			model_breach(b->m, ~0ull, "%s, of epoch %llu, is asked for a session of the one before: %s",
				     b->host[i].target, (unsigned long long)now, r ? strerror(-r) : "admitted");
		if (!r)
			close(fd);
	}
}

/* --- what the kernel is asked for --- */

int hosts_ask(struct bed *b, const char *dev, u32 op, u64 epoch)
{
	pid_t pid = fault_fork();
	int r;

	if (pid < 0)
		return -errno;
	if (!pid) {
		/* a flush that failed is told once; its path is left out then */
		do {
			r = ctl_dev_ctl(dev, op, NULL, epoch);
			sleep_ms(r ? 2 : 0);
		} while (r == -EBUSY || r == -EIO);
		if (r)
			model_mark(b->m, "%s: %s", dev, ctl_msg);
		_exit(-r);
	}
	b->epochs->asked = pid;
	return 0;
}

int hosts_answer(struct bed *b, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	int status;

	while (waitpid(b->epochs->asked, &status, WNOHANG) != b->epochs->asked) {
		if (now_ns() > end)
			return -ETIMEDOUT;
		bed_watch(b);
		sleep_ms(1);
	}
	b->epochs->asked = 0;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

/* --- at the storage --- */

static u64 writes(const struct hosts_way *w)
{
	unsigned long long f[12] = {};
	FILE *p;

	if (w->srv)
		return w->srv->writes + w->srv->trims + w->srv->zeroes;
	p = fopen(w->stat, "r");
	/* writes, of zeroes too, and discards that have ended: Documentation/block/stat.rst */
	if (!p || fscanf(p, "%llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", &f[0], &f[1], &f[2], &f[3], &f[4], &f[5],
			 &f[6], &f[7], &f[8], &f[9], &f[10], &f[11]) != 12)
		perror(w->stat);
	if (p)
		fclose(p);
	return f[4] + f[11];
}

void hosts_given(struct bed *b)
{
	struct hosts *e = b->epochs;
	unsigned int i;

	for (i = 0; i < 3 * b->hosts; i++)
		if (e->holder < 0 || (int)e->way[i].host == e->holder)
			e->way[i].seen = writes(&e->way[i]);
	e->holder = -1;
}

void hosts_taken(struct bed *b, unsigned int host)
{
	hosts_look(b);
	b->epochs->holder = host;
}

void hosts_look(struct bed *b)
{
	struct hosts *e = b->epochs;
	unsigned int i;
	u64 n;

	for (i = 0; e && i < 3 * b->hosts; i++) {
		if ((int)e->way[i].host == e->holder)
			continue;
		n = writes(&e->way[i]) - e->way[i].seen;
		if (n)
			model_breach(b->m, ~0ull, "%llu writes without the epoch, of %s by its %s", (unsigned long long)n,
				     b->host[e->way[i].host].dev, e->way[i].name);
		e->way[i].seen += n;
	}
}
