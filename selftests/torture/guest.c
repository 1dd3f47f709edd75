// SPDX-License-Identifier: GPL-2.0-or-later
#include "load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int guest_init(struct guest *g, struct model *m, const struct guest_cfg *c)
{
	memset(g, 0, sizeof(*g));
	g->c = *c;
	g->m = m;
	g->s = mmap(NULL, sizeof(*g->s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (g->s == MAP_FAILED)
		return -ENOMEM;
	sem_init(&g->s->cmd_sem, 1, 0);
	sem_init(&g->s->done_sem, 1, 0);
	return 0;
}

static void idle(struct guest *g)
{
	if (g->idle)
		g->idle(g->idle_arg);
}

static int wait_done(struct guest *g, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;

	for (;;) {
		struct timespec ts;

		clock_gettime(CLOCK_REALTIME, &ts);
		ts.tv_nsec += 50 * 1000000l;
		if (ts.tv_nsec >= 1000000000l) {
			ts.tv_nsec -= 1000000000l;
			ts.tv_sec++;
		}
		if (!sem_timedwait(&g->s->done_sem, &ts))
			return 0;
		/* it may have ended as it was told to */
		if (!guest_alive(g))
			return sem_trywait(&g->s->done_sem) ? -ESRCH : 0;
		idle(g);
		if (now_ns() > end)
			return -ETIMEDOUT;
	}
}

int guest_start(struct guest *g)
{
	struct guest_shared *s = g->s;
	unsigned int i;
	pid_t pid;
	int r;

	s->up = s->drain = false;
	g->started++;
	for (i = 0; i < GUEST_QUEUES; i++)
		s->oldest[i].t0 = now_ns();
	sem_destroy(&s->cmd_sem);
	sem_destroy(&s->done_sem);
	sem_init(&s->cmd_sem, 1, 0);
	sem_init(&s->done_sem, 1, 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(0);
		/* A socket of a server's that lives on here would keep its connection up. */
		for (i = 3; i < 1024; i++)
			close(i);
		child_main(g);
	}
	if (pid < 0)
		return -errno;
	s->pid = pid;
	r = wait_done(g, 70000);
	return r ? r : s->why;
}

bool guest_alive(struct guest *g)
{
	int status;

	if (g->s->pid <= 0)
		return false;
	if (waitpid(g->s->pid, &status, WNOHANG) != g->s->pid)
		return true;
	model_mark(g->m, "the front end ended by itself: %x", status);
	g->s->pid = 0;
	return false;
}

int guest_post(struct guest *g, enum guest_cmd cmd, u64 arg, int timeout_ms)
{
	int r = guest_wait(g, timeout_ms);

	if (r)
		return r;
	if (!guest_alive(g))
		return -ESRCH;
	g->s->cmd = cmd;
	g->s->arg = arg;
	g->pending = true;
	sem_post(&g->s->cmd_sem);
	return 0;
}

int guest_wait(struct guest *g, int timeout_ms)
{
	int r;

	if (!g->pending)
		return 0;
	r = wait_done(g, timeout_ms);
	if (r == -ETIMEDOUT)
		return r;
	g->pending = false;
	return r ? r : g->s->result;
}

int guest_command(struct guest *g, enum guest_cmd cmd, u64 arg, int timeout_ms)
{
	return guest_post(g, cmd, arg, timeout_ms) ?: guest_wait(g, timeout_ms);
}

void guest_kill(struct guest *g)
{
	if (g->s->pid <= 0)
		return;
	kill(g->s->pid, SIGKILL);
	waitpid(g->s->pid, NULL, 0);
	g->s->pid = 0;
	g->pending = false;
}

int guest_quit(struct guest *g, int timeout_ms)
{
	int r = guest_command(g, GUEST_QUIT, 0, timeout_ms);

	if (!r && g->s->pid > 0) {
		waitpid(g->s->pid, NULL, 0);
		g->s->pid = 0;
	}
	return r;
}

bool guest_progress(struct guest *g, u64 n, int timeout_ms)
{
	u64 want = __atomic_load_n(&g->s->ios, __ATOMIC_RELAXED) + n, end = now_ns() + timeout_ms * 1000000ull;

	while (__atomic_load_n(&g->s->ios, __ATOMIC_RELAXED) < want) {
		if (now_ns() > end || !guest_alive(g))
			return false;
		idle(g);
		sleep_ms(1);
	}
	return true;
}

void guest_hush(struct guest *g, bool on)
{
	__atomic_store_n(&g->s->drain, on, __ATOMIC_RELEASE);
}

bool guest_turnover(struct guest *g, int timeout_ms)
{
	u64 from = now_ns();
	unsigned int i;

	for (i = 0; i < g->c.queues; i++)
		while (__atomic_load_n(&g->s->oldest[i].t0, __ATOMIC_RELAXED) <= from) {
			if (now_ns() > from + timeout_ms * 1000000ull || !guest_alive(g))
				return false;
			idle(g);
			sleep_ms(1);
		}
	return true;
}

void guest_free(struct guest *g)
{
	guest_kill(g);
	munmap(g->s, sizeof(*g->s));
	g->s = NULL;
}
