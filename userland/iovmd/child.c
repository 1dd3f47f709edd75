// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Child processes: programs, of whose stderr the end is kept, and workers, forks of this process that talk to it by lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iovmd.h"

#define OUTPUT_KEPT	1024

/**
 * struct child - a process that was started here
 * @source: it ends
 * @out: its stderr, -1 none
 * @from_out: something was written there
 * @text: the end of that
 */
struct child {
	pid_t pid;
	sd_event_source *source, *from_out;
	int out;
	char text[OUTPUT_KEPT + 1];
	size_t n;
	child_fn ended;
	void *data;
};

static unsigned int nr_children;

unsigned int child_nr(void)
{
	return nr_children;
}

void child_kill(struct child *c, int sig)
{
	kill(c->pid, sig);
}

void child_forget(struct child *c)
{
	if (c)
		c->ended = NULL;
}

/* What there is to be read now. */
static void take_output(struct child *c)
{
	char buf[512];
	ssize_t n;

	while (c->out >= 0 && (n = read(c->out, buf, sizeof(buf))) > 0) {
		if (c->n + (size_t)n > OUTPUT_KEPT) {
			size_t keep = OUTPUT_KEPT - (size_t)n;

			if (keep > c->n)
				keep = c->n;
			memmove(c->text, c->text + c->n - keep, keep);
			c->n = keep;
		}
		memcpy(c->text + c->n, buf, (size_t)n);
		c->n += (size_t)n;
		c->text[c->n] = 0;
	}
}

static int on_output(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct child *c = data;

	(void)source;
	(void)fd;
	take_output(c);
	if (events & (EPOLLHUP | EPOLLERR))
		c->from_out = sd_event_source_disable_unref(c->from_out);
	return 0;
}

static int on_end(sd_event_source *source, const siginfo_t *si, void *data)
{
	struct child *c = data;
	int status = si->si_code == CLD_EXITED ? si->si_status << 8 : si->si_status;

	(void)source;
	take_output(c);
	c->source = sd_event_source_disable_unref(c->source);
	c->from_out = sd_event_source_disable_unref(c->from_out);
	if (c->out >= 0)
		close(c->out);
	nr_children--;
	if (c->ended)
		c->ended(c, status, c->text, c->data);
	free(c);
	return 0;
}

/* In the child: as if it had been started by nobody */
static void reset_signals(void)
{
	sigset_t none;
	int sig;

	for (sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static struct child *started(pid_t pid, int out, child_fn ended, void *data)
{
	struct child *c = calloc(1, sizeof(*c));
	int r;

	if (!c) {
		warning("out of memory");
		abort();
	}
	nr_children++;
	c->pid = pid;
	c->out = out;
	c->ended = ended;
	c->data = data;
	r = sd_event_add_child(agent.loop, &c->source, pid, WEXITED, on_end, c);
	/* what a worker wrote before it ended comes first */
	if (r >= 0)
		r = sd_event_source_set_priority(c->source, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0 && out >= 0)
		r = sd_event_add_io(agent.loop, &c->from_out, out, EPOLLIN, on_output, c);
	if (r < 0) {
		/* it would never be known how it ended */
		warning("cannot wait for a process: %s", strerror(-r));
		abort();
	}
	return c;
}

/* In a child: the end of @parent is its end, too. */
static void bind_to(pid_t parent, int sig)
{
	prctl(PR_SET_PDEATHSIG, sig);
	if (getppid() != parent)
		_exit(1);
}

struct child *child_program(const char *const *argv, bool bound, child_fn ended, void *data)
{
	pid_t self = getpid(), pid;
	int fds[2], null;

	if (pipe2(fds, O_CLOEXEC) || fcntl(fds[0], F_SETFL, O_NONBLOCK)) {
		warning("cannot start '%s': %s", argv[0], strerror(errno));
		return NULL;
	}
	pid = fork();
	if (!pid) {
		if (bound)
			bind_to(self, SIGTERM);
		null = open("/dev/null", O_RDWR);
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		close_range(3, ~0u, 0);
		reset_signals();
		execvp(argv[0], (char *const *)(uintptr_t)argv);
		dprintf(STDERR_FILENO, "cannot run '%s': %s\n", argv[0], strerror(errno));
		_exit(127);
	}
	close(fds[1]);
	if (pid < 0) {
		warning("cannot start '%s': %s", argv[0], strerror(errno));
		close(fds[0]);
		return NULL;
	}
	return started(pid, fds[0], ended, data);
}

struct child *child_worker(int (*run)(int sock, void *arg), void *arg, int keep, bool bound, struct line **line, line_fn fn,
			   child_fn ended, void *data)
{
	pid_t self = getpid(), pid;
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
		warning("cannot start a worker: %s", strerror(errno));
		return NULL;
	}
	pid = fork();
	if (!pid) {
		int lo = fds[1] < keep ? fds[1] : keep, hi = fds[1] < keep ? keep : fds[1];

		if (bound)
			bind_to(self, SIGKILL);
		/* what else is open is not its business, and a socket would stay open with it */
		if (lo > 3)
			close_range(3, (unsigned int)lo - 1, 0);
		if (lo >= 3 && hi > lo + 1)
			close_range((unsigned int)lo + 1, (unsigned int)hi - 1, 0);
		else if (lo < 3 && hi > 3)
			close_range(3, (unsigned int)hi - 1, 0);
		close_range((unsigned int)hi + 1, ~0u, 0);
		reset_signals();
		_exit(run(fds[1], arg));
	}
	close(fds[1]);
	if (pid < 0) {
		warning("cannot start a worker: %s", strerror(errno));
		close(fds[0]);
		return NULL;
	}
	*line = line_new(fds[0], fn, data);
	return started(pid, -1, ended, data);
}

void child_reason(int status, const char *output, char why[WHY_MAX])
{
	size_t n = strlen(output), from;

	while (n && output[n - 1] == '\n')
		n--;
	/* iovmctl says what is wrong first, and then what to do about it */
	for (from = 0; from < n && !strncmp(output + from, "iovmctl: warning:", 17);)
		while (from < n && output[from++] != '\n')
			;
	if (n > from)
		snprintf(why, WHY_MAX, "%.*s", (int)(n - from), output + from);
	else if (WIFSIGNALED(status))
		snprintf(why, WHY_MAX, "it was ended by signal %d", WTERMSIG(status));
	else
		snprintf(why, WHY_MAX, "it exited with status %d", WEXITSTATUS(status));
	for (n = 0; why[n]; n++)
		if ((unsigned char)why[n] < ' ')
			why[n] = ' ';
	if (!strncmp(why, "iovmctl: ", 9))
		memmove(why, why + 9, strlen(why + 9) + 1);
}
