// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The operator's migrate-command, which is run instead of QMP: in a process group of its own, with a time limit; what it writes, and how it
 * ends, is told. It is only believed when the guest's queues do not run here any more. Part of the worker that migrates a guest away.
 *
 * When iovmd ends the command goes on, and this worker with it; a lock keeps the next one from running it a second time meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iovmd.h"
#include "command.h"

#define LOOK_MS		500
#define TERM_MS		10000	/* from SIGTERM to SIGKILL */
#define GONE_MS		10000	/* a guest's queues stop, once its command has ended */

/**
 * struct command - one that runs
 * @out: what it writes
 * @line: of that, as far as it has come; @last: the line before
 */
struct command {
	const struct command_job *job;
	pid_t pid;
	int out;
	char line[256], last[256];
	size_t n;
};

static void run_it(const struct command_job *job, int out)
{
	const struct config_guest *g = job->guest;
	int null = open("/dev/null", O_RDONLY);
	sigset_t none;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(null, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	close_range(3, ~0u, 0);
	setenv("IOVM_GUEST", g->name, 1);
	setenv("IOVM_TO", job->to->name, 1);
	setenv("IOVM_TO_ADDRESS", job->to->address, 1);
	execl("/bin/sh", "sh", "-c", g->migrate_command, (char *)NULL);
	_exit(127);
}

static void end_line(struct command *c)
{
	while (c->n && (unsigned char)c->line[c->n - 1] <= ' ')
		c->n--;
	c->line[c->n] = 0;
	if (c->n) {
		strcpy(c->last, c->line);
		c->job->said(c->job->ctx, c->line);
	}
	c->n = 0;
}

/* false: it has closed its output. */
static bool take_output(struct command *c)
{
	char buf[1024];
	ssize_t n = read(c->out, buf, sizeof(buf)), i;

	for (i = 0; i < n; i++) {
		if (buf[i] == '\n' || c->n == sizeof(c->line) - 1)
			end_line(c);
		if (buf[i] != '\n')
			c->line[c->n++] = (unsigned char)buf[i] < ' ' ? ' ' : buf[i];
	}
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

/* Until it has ended, or ms have passed, or it is to end; its status as of waitpid(). */
static bool wait_for(struct command *c, uint64_t ms, bool may_cancel, int *status)
{
	struct pollfd p = { .fd = c->out, .events = POLLIN };
	uint64_t end = clock_ms() + ms;

	for (;;) {
		if (waitpid(c->pid, status, WNOHANG) == c->pid) {
			while (p.fd >= 0 && poll(&p, 1, 0) > 0 && take_output(c))
				;
			end_line(c);
			return true;
		}
		if ((ms && clock_ms() >= end) || (may_cancel && c->job->cancelled(c->job->ctx)))
			return false;
		if (poll(&p, 1, LOOK_MS) > 0 && !take_output(c))
			p.fd = -1;
	}
}

/* It, and what it has started. */
static void end_it(struct command *c, int *status)
{
	kill(-c->pid, SIGTERM);
	if (wait_for(c, TERM_MS, false, status))
		return;
	kill(-c->pid, SIGKILL);
	waitpid(c->pid, status, 0);
}

static bool leaves(const struct config_guest *g)
{
	uint64_t end = clock_ms() + GONE_MS;

	while (guest_is_here(g)) {
		if (clock_ms() >= end)
			return false;
		poll(NULL, 0, LOOK_MS);
	}
	return true;
}

static bool judge(const struct command *c, bool in_time, bool cancelled, int status, char why[WHY_MAX])
{
	const struct config_guest *g = c->job->guest;
	const char *said = *c->last ? c->last : "it wrote nothing";

	if (!in_time)
		snprintf(why, WHY_MAX, "its migrate-command was ended, %s; last output: %s",
			 cancelled ? "on demand" : "since it took longer than 'timeout'", said);
	else if (WIFSIGNALED(status))
		snprintf(why, WHY_MAX, "its migrate-command was ended by signal %d; last output: %s", WTERMSIG(status), said);
	else if (WEXITSTATUS(status))
		snprintf(why, WHY_MAX, "its migrate-command exited with status %d; last output: %s", WEXITSTATUS(status), said);
	else if (!leaves(g))
		snprintf(why, WHY_MAX, "its migrate-command exited with status 0, but the guest still runs here; last output: %s", said);
	else
		return true;
	return false;
}

static int lock_of(const struct config_guest *g, char why[WHY_MAX])
{
	char name[256];
	int fd;

	snprintf(name, sizeof(name), "%.160s/%s.command", agent.run_dir, g->name);
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		snprintf(why, WHY_MAX, "cannot open '%.200s': %s", name, strerror(errno));
	if (fd < 0 || !flock(fd, LOCK_EX | LOCK_NB))
		return fd;
	snprintf(why, WHY_MAX, "its migrate-command, begun earlier, still runs");
	close(fd);
	return -1;
}

bool command_run(const struct command_job *job, char why[WHY_MAX])
{
	struct command c = { .job = job };
	int fds[2], lock, status = 0;
	bool in_time, cancelled, good;

	lock = lock_of(job->guest, why);
	if (lock < 0)
		return false;
	if (!guest_is_here(job->guest)) {
		snprintf(why, WHY_MAX, "no queue of its devices runs here");
		close(lock);
		return false;
	}
	if (pipe2(fds, O_CLOEXEC) || (c.pid = fork()) < 0) {
		snprintf(why, WHY_MAX, "cannot start its migrate-command: %s", strerror(errno));
		close(lock);
		return false;
	}
	if (!c.pid)
		run_it(job, fds[1]);
	close(fds[1]);
	c.out = fds[0];
	in_time = wait_for(&c, job->guest->timeout_ms, true, &status);
	cancelled = !in_time && job->cancelled(job->ctx);
	if (!in_time)
		end_it(&c, &status);
	good = judge(&c, in_time, cancelled, status, why);
	close(c.out);
	close(lock);
	return good;
}
