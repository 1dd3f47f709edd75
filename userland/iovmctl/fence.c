// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fences: one attempt to make sure that nothing sent to a failed path can land any more, as the path says how. (How a disk is taken
 * offline is in offline.c.) The command of the operator is run without a shell and without arguments; what it has to know is in its environment. Nobody else fences the same
 * path meanwhile: a lock on the control node, which belongs to the process, sees to that.
 *
 * The kernel is told how it went. What was fenced is named by the path's id and generation, so that a confirmation which comes
 * late is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "iovmctl.h"

#define GRACE_MS	2000	/* between SIGTERM and SIGKILL */
#define ENDED_LOOK_MS	50

const char *const fence_by_names[] = { "hand", "command", "offline", "reservation", NULL };

void fence_status_text(char *buf, size_t n, int status)
{
	const char *sig;

	if (!status)
		*buf = 0;
	else if (status == -ETIMEDOUT)
		snprintf(buf, n, "not done within the time limit");
	else if (status < 0)
		snprintf(buf, n, "%s (%s)", strerrorname_np(-status) ?: "?", strerror(-status));
	else if (status < IOVM_FENCE_STATUS_SIGNAL)
		snprintf(buf, n, "exit status %d", status);
	else if ((sig = sigabbrev_np(status - IOVM_FENCE_STATUS_SIGNAL)))
		snprintf(buf, n, "killed by SIG%s", sig);
	else
		snprintf(buf, n, "killed by signal %d", status - IOVM_FENCE_STATUS_SIGNAL);
}

const char *fence_program_bad(const char *file)
{
	struct stat st;

	if (*file != '/')
		return "is not an absolute file name";
	if (strlen(file) >= IOVM_ADDR_MAX)
		return "is too long";
	if (stat(file, &st))
		return errno == ENOENT ? "does not exist" : strerror(errno);
	if (!S_ISREG(st.st_mode) || access(file, X_OK))
		return "is not a program that can be run";
	if ((st.st_uid && st.st_uid != geteuid()) || st.st_mode & (S_IWGRP | S_IWOTH))
		return "can be changed by others than root";
	return NULL;
}

bool fence_is_ours(const struct iovm_path_info *pi)
{
	return pi->fence_by == IOVM_FENCE_BY_COMMAND || pi->fence_by == IOVM_FENCE_BY_OFFLINE;
}

uint64_t fence_waits(const struct iovm_path_info *pi)
{
	if (pi->state != IOVM_PATH_FAILED)
		return 0;
	/* reads too end when their driver is made to end what it has, and only then */
	return pi->fence_by == IOVM_FENCE_BY_OFFLINE ? pi->inflight : pi->unsettled;
}

/* ---- the command ---- */

/* NAME=VALUE; never freed: the process is about to become another one. */
static char *var(const char *name, const char *value)
{
	char *s;

	if (asprintf(&s, "%s=%s", name, value) < 0)
		_exit(127);
	return s;
}

static char *var_num(const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	return var(name, text);
}

static void become_command(const struct iovm_path_info *pi)
{
	char *argv[] = { (char *)pi->fence_command, NULL };
	char *envp[] = {
		var("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
		var("HOME", getenv("HOME") ?: "/"),
		var("IOVM_DEVICE", pi->dev),
		var("IOVM_PATH", pi->name),
		var("IOVM_PATH_KIND", name_of(path_type_names, pi->type) ?: ""),
		var("IOVM_PATH_ADDR", pi->addr),
		var("IOVM_PATH_IDENTITY", pi->identity),
		var("IOVM_PATH_ERROR", pi->last_error ? strerrorname_np(-pi->last_error) ?: "" : ""),
		var_num("IOVM_WAITING", pi->unsettled),
		var_num("IOVM_ATTEMPT", pi->fence_tries + 1),
		NULL
	};

	execve(pi->fence_command, argv, envp);
}

/* In the child: never returns. An errno goes to the parent by @report, which nothing that is executed inherits. */
static void do_it(const struct iovm_path_info *pi, int report, pid_t parent)
{
	sigset_t none;
	int null, err, sig;

	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	for (sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (pi->fence_by == IOVM_FENCE_BY_OFFLINE) {
		err = -offline_disk(pi);
		if (!err)
			_exit(0);
		goto failed;
	}
	null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	/* standard output is for what iovmctl has to say */
	if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
	    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC)) {
		err = errno;
	} else {
		become_command(pi);
		err = errno;
	}
failed:
	if (write(report, &err, sizeof(err)) != sizeof(err))
		_exit(127);
	_exit(126);
}

static bool ends(int pidfd, uint64_t ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	uint64_t now = now_ms(), end = now + ms;
	int n;

	do {
		n = poll(&p, 1, now < end ? (end - now > 60000 ? 60000 : (int)(end - now)) : 0);
		now = now_ms();
	} while (n <= 0 && now < end);
	return n > 0;
}

/* A process of a fence */
struct runner {
	pid_t pid;	/* 0: ended */
	int pidfd, report;
};

/* 0, or a negative errno. */
static int run(struct runner *r, const struct iovm_path_info *pi)
{
	pid_t self = getpid();
	int p[2], err;

	if (pipe2(p, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	r->pid = fork();
	if (!r->pid)
		do_it(pi, p[1], self);
	close(p[1]);
	r->report = p[0];
	r->pidfd = r->pid < 0 ? -1 : pidfd_open(r->pid, 0);
	err = errno;
	if (r->pidfd >= 0) {
		setpgid(r->pid, r->pid);
		return 0;
	}
	if (r->pid > 0) {
		kill(r->pid, SIGKILL);
		waitpid(r->pid, NULL, 0);
	}
	r->pid = 0;
	close(r->report);
	return -err;
}

/* How it ended, as the kernel wants to hear it; 0 well. Not to be asked before it has. */
static int reap(struct runner *r)
{
	int status, err;
	pid_t pid;

	do {
		pid = waitpid(r->pid, &status, 0);
	} while (pid < 0 && errno == EINTR);
	r->pid = 0;
	close(r->pidfd);
	if (read(r->report, &err, sizeof(err)) != sizeof(err))
		err = 0;
	close(r->report);
	if (pid < 0)
		return -ECHILD;
	if (err)
		return -err;
	return WIFEXITED(status) ? WEXITSTATUS(status) : IOVM_FENCE_STATUS_SIGNAL + WTERMSIG(status);
}

/* Waits for @limit_ms at most, and then a little for what is to end at once; what does not is left in @r. */
static int wait_for(struct runner *r, uint64_t limit_ms)
{
	if (ends(r->pidfd, limit_ms))
		return reap(r);
	kill(-r->pid, SIGTERM);
	if (!ends(r->pidfd, GRACE_MS)) {
		kill(-r->pid, SIGKILL);
		if (!ends(r->pidfd, GRACE_MS))
			return -ETIMEDOUT;
	}
	reap(r);
	return -ETIMEDOUT;
}

/*
 * The driver was made to end what it has: has it? Returns 0 when nothing is under way any more, or a negative errno. What the requests
 * themselves show is not for anybody else to confirm.
 */
static int wait_settled(const struct iovm_path_info *pi, uint64_t end_ms)
{
	struct iovm_path_info now;
	int err;

	for (;;) {
		IOVM_INIT(&now);
		memcpy(now.dev, pi->dev, sizeof(now.dev));
		memcpy(now.name, pi->name, sizeof(now.name));
		err = mux_ioctl(IOVM_PATH_GET, &now);
		if (err)
			return -err;
		if (now.id != pi->id || now.generation != pi->generation || !fence_waits(&now))
			return 0;
		if (now_ms() >= end_ms)
			return -ETIMEDOUT;
		poll(NULL, 0, ENDED_LOOK_MS);
	}
}

/* ---- one at a time, and what the kernel hears ---- */

/* The lock's descriptor, to be kept; or a negative errno: EAGAIN somebody has it. */
static int lock_path(const struct iovm_path_info *pi)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	struct iovm_dev_info di;
	int fd, err;

	IOVM_INIT(&di);
	memcpy(di.name, pi->dev, sizeof(di.name));
	err = mux_ioctl(IOVM_DEV_GET, &di);
	if (err)
		return -err;
	fd = open(MUX_NODE, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	l.l_start = (off_t)(di.id & INT32_MAX) << 32 | pi->id;
	if (!fcntl(fd, F_OFD_SETLK, &l))
		return fd;
	err = errno == EACCES ? EAGAIN : errno;
	close(fd);
	return -err;
}

static int tell(const struct iovm_path_info *pi, int status, struct iovm_path_ctl *c)
{
	IOVM_INIT(c);
	c->op = status ? IOVM_PATH_CTL_FENCE_FAILED : IOVM_PATH_CTL_FENCED;
	memcpy(c->dev, pi->dev, sizeof(c->dev));
	memcpy(c->name, pi->name, sizeof(c->name));
	c->id = pi->id;
	c->generation = pi->generation;
	c->status = status;
	return mux_ioctl(IOVM_PATH_CTL, c);
}

/* For the log of whoever runs this: a sentence, or an object. */
static void say(const struct iovm_path_info *pi, int status, const char *hint)
{
	const char *command = *pi->fence_command ? pi->fence_command : NULL;
	char how[160];
	struct json j;

	fence_status_text(how, sizeof(how), status);
	if (opt_json) {
		json_init(&j, stdout, false);
		json_open(&j, NULL, '{');
		json_str(&j, "device", pi->dev);
		json_str(&j, "path", pi->name);
		json_bool(&j, "fenced", !status);
		json_str(&j, "by", name_of(fence_by_names, pi->fence_by));
		json_str(&j, "command", command);
		json_str(&j, "status", status ? how : NULL);
		json_u64(&j, "attempt", pi->fence_tries + 1);
		json_u64(&j, "waiting", fence_waits(pi));
		json_str(&j, "hint", status ? hint : NULL);
		json_close(&j);
	} else if (!status) {
		printf("%s: path '%s' is fenced by %s\n", pi->dev, pi->name, command ?: name_of(fence_by_names, pi->fence_by));
	} else {
		fprintf(stderr, "iovmctl: %s: path '%s' is not fenced: %s: %s (attempt %u); %llu requests wait\n  hint: %s\n", pi->dev,
			pi->name, command ?: name_of(fence_by_names, pi->fence_by), how, pi->fence_tries + 1,
			(unsigned long long)fence_waits(pi), hint);
	}
	fflush(stdout);
}

static int refused(const struct iovm_path_info *pi, int err, const char *msg)
{
	return mux_fail(err, msg, NULL, "%s: the fence of path '%s' does not count", pi->dev, pi->name);
}

/* Done by @r with @status. */
static int conclude(const struct iovm_path_info *pi, struct runner *r, int status, bool loud)
{
	struct iovm_path_ctl c;
	char hint[480];
	int err;

	if (status || pi->fence_by == IOVM_FENCE_BY_COMMAND) {
		err = tell(pi, status, &c);
		if (err && !status)
			return refused(pi, err, c.msg);
	}
	snprintf(hint, sizeof(hint), "once nothing sent to it can land any more, 'iovmctl path fenced %s %s' lets them go on; "
		 "'iovmctl path fence %s %s' tries again", pi->dev, pi->name, pi->dev, pi->name);
	if (!status || loud)
		say(pi, status, hint);
	/* it may still be doing something: nobody is to begin anew before it has ended */
	if (r->pid)
		reap(r);
	return status ? EX_FAILED : EX_DONE;
}

int fence_path(const struct iovm_path_info *pi, uint64_t limit_ms, bool loud)
{
	const char *bad = pi->fence_by == IOVM_FENCE_BY_COMMAND ? fence_program_bad(pi->fence_command) : NULL;
	uint64_t end_ms = now_ms() + (limit_ms ?: FENCE_LIMIT_MS);
	struct runner r = { .pid = 0 };
	int lock, status;

	lock = lock_path(pi);
	if (lock == -EAGAIN)
		return FENCE_BUSY;
	if (lock < 0)
		return mux_fail(-lock, NULL, NULL, "%s: cannot fence path '%s'", pi->dev, pi->name);
	if (bad) {
		warn("the fence command %s %s", pi->fence_command, bad);
		status = access(pi->fence_command, X_OK) ? -errno : -EPERM;
	} else {
		status = run(&r, pi);
		if (!status)
			status = wait_for(&r, end_ms - now_ms());
		if (!status && pi->fence_by == IOVM_FENCE_BY_OFFLINE)
			status = wait_settled(pi, end_ms);
	}
	status = conclude(pi, &r, status, loud);
	close(lock);
	return status;
}
