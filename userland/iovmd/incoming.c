// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The destination's side of a live migration. See incoming.h.
 *
 * That a process has ended is known from its pidfd, which names that process and no other. When neither its number nor a monitor
 * that answers leads to a process, there is none: QEMU's monitor socket is listened on as long as QEMU lives.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "incoming.h"
#include "stream_key.h"
#include "unit.h"

#define START_LOOK_MS		50
#define LOG_TAIL	320		/* bytes of the log that go into a sentence */

static void incoming_defaults(struct incoming_job *job)
{
	job->start_ms = job->start_ms ?: 30000;
	job->answer_ms = job->answer_ms ?: 10000;
	job->accept_ms = job->accept_ms ?: 30000;
	job->end_ms = job->end_ms ?: 5000;
}

static bool is_unit(const struct incoming_job *job)
{
	return job->unit && !job->command;
}

/* ---- processes ---- */

/* A small file of /proc as a string; its length, or -1. */
static ssize_t read_proc(pid_t pid, const char *name, char *buf, size_t n)
{
	char path[64];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, buf, n - 1);
	close(fd);
	buf[got > 0 ? got : 0] = 0;
	return got;
}

/* When it began, in ticks since boot; 0: there is no such process. */
static uint64_t born(pid_t pid)
{
	unsigned int field;
	char buf[1024], *p;

	if (pid <= 0 || read_proc(pid, "stat", buf, sizeof(buf)) <= 0)
		return 0;
	/* field 22; the name, field 2, may hold anything */
	p = strrchr(buf, ')');
	for (field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

#define ARG_INCOMING	1	/* -incoming */
#define ARG_STOPPED	2	/* -S */
#define ARG_MONITOR	4	/* the monitor's socket is named */

/* What can be seen of a QEMU's command line, or what may be one */
static unsigned int args_of(const struct incoming_job *job, pid_t pid)
{
	unsigned int found = 0;
	char args[16384], *arg;
	ssize_t got;

	if (pid <= 0)
		return 0;
	got = read_proc(pid, "cmdline", args, sizeof(args));
	for (arg = args; got > 0 && arg < args + got; arg += strlen(arg) + 1) {
		if (!strcmp(arg, "-incoming") || !strcmp(arg, "--incoming"))
			found |= ARG_INCOMING;
		else if (!strcmp(arg, "-S") || !strcmp(arg, "--S"))
			found |= ARG_STOPPED;
		else if (strstr(arg, job->qmp))
			found |= ARG_MONITOR;
	}
	return found;
}

/*
 * Who listens on the monitor's socket, if that is QEMU itself; 0 if it is not: the socket may have been made by systemd or libvirt
 * and passed on, and they are not to be ended.
 */
static pid_t qemu_pid(const struct incoming_job *job, const struct qmp *q)
{
	return args_of(job, q->pid) & (ARG_INCOMING | ARG_MONITOR) ? q->pid : 0;
}

static bool ended(int pidfd, unsigned int ms)
{
	struct pollfd p = { pidfd, POLLIN, 0 };
	uint64_t end = ms_now() + ms;
	int r;

	do {
		r = poll(&p, 1, (int)ms);
	} while (r < 0 && errno == EINTR && ms_now() < end);
	return r > 0;
}

/* ---- starting ---- */

/* In a new process: signals as they are without an agent */
static void default_signals(void)
{
	sigset_t none;
	int sig;

	for (sig = 1; sig < NSIG; sig++)
		signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void run_command(const struct incoming_job *job, int log)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	default_signals();
	dup2(null, STDIN_FILENO);
	dup2(log >= 0 ? log : null, STDOUT_FILENO);
	dup2(log >= 0 ? log : null, STDERR_FILENO);
	close_range(3, ~0u, 0);
	setenv("IOVM_GUEST", job->guest, 1);
	setenv("IOVM_INCOMING", "defer", 1);
	setenv("IOVM_QMP", job->qmp, 1);
	execl("/bin/sh", "sh", "-c", job->command, (char *)NULL);
	_exit(127);
}

/* Start the command; its output begins at *log_from in the log. */
static pid_t start_command(const struct incoming_job *job, off_t *log_from, char *why, size_t n)
{
	int log = -1;
	pid_t pid;

	if (job->log) {
		log = open(job->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
		if (log < 0)
			return qmp_why(why, n, "cannot write the log %s: %s", job->log, strerror(errno));
		*log_from = lseek(log, 0, SEEK_END);
	}
	pid = fork();
	if (!pid)
		run_command(job, log);
	if (pid < 0)
		qmp_why(why, n, "cannot start a process: %s", strerror(errno));
	if (log >= 0)
		close(log);
	return pid;
}

/* The end of what the command wrote, as one line: " | line | line", "" when it wrote nothing. */
static void log_tail(const struct incoming_job *job, off_t from, char *buf, size_t n)
{
	int fd = job->log ? open(job->log, O_RDONLY | O_CLOEXEC) : -1;
	char text[LOG_TAIL + 1], *line, *save = NULL;
	ssize_t got = 0;
	off_t end;

	*buf = 0;
	if (fd < 0)
		return;
	end = lseek(fd, 0, SEEK_END);
	if (end - from > LOG_TAIL)
		from = end - LOG_TAIL;
	got = pread(fd, text, LOG_TAIL, from);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	for (line = strtok_r(text, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save))
		snprintf(buf + strlen(buf), n - strlen(buf), " | %s", line);
}

/* What the unit's QEMU is to be started with, for as long as the guest has not come: should systemd start it again, it waits again. */
static int start_unit(const struct incoming_job *job, char *why, size_t n)
{
	const char *const pairs[] = {
		"IOVM_GUEST", job->guest, "IOVM_INCOMING", "defer", "IOVM_QMP", job->qmp, "IOVM_INCOMING_ARGS", "-incoming defer -S", NULL,
	};
	int err = job->env ? unit_environment(job->env, pairs) : 0;

	if (err)
		return qmp_why(why, n, "cannot write '%s': %s", job->env, strerror(err));
	return unit_start(job->unit, job->start_ms, why, n);
}

/* Has what was started ended, other than by going into the background? */
static bool died(const struct incoming_job *job, pid_t pid, off_t log_from, char *why, size_t n)
{
	char tail[LOG_TAIL * 2], how[48];
	int status;

	if (is_unit(job))
		return unit_ended(job->unit, why, n);
	if (pid <= 0 || waitpid(pid, &status, WNOHANG) != pid || (WIFEXITED(status) && !WEXITSTATUS(status)))
		return false;
	if (WIFEXITED(status))
		snprintf(how, sizeof(how), "ended with exit status %d", WEXITSTATUS(status));
	else
		snprintf(how, sizeof(how), "was ended by signal %d", WTERMSIG(status));
	log_tail(job, log_from, tail, sizeof(tail));
	qmp_why(why, n, "the command that starts the guest's QEMU %s%s", how, *tail ? tail : ", without a word");
	return true;
}

/* Until its monitor answers */
static int wait_monitor(const struct incoming_job *job, pid_t pid, off_t log_from, struct qmp *q, char *why, size_t n)
{
	uint64_t end = ms_now() + job->start_ms;
	char tail[LOG_TAIL * 2], last[QMP_WHY];
	unsigned int looks;
	enum qmp_result r;
	bool over;

	for (looks = 0;; looks++) {
		r = qmp_open(q, job->qmp, job->answer_ms, last, sizeof(last));
		if (!r)
			return 0;
		over = r != QMP_CLOSED || ms_now() >= end;
		/* systemd need not be asked as often */
		if ((over || !is_unit(job) || looks % 8 == 7) && died(job, pid, log_from, why, n))
			return -1;
		if (over)
			break;
		poll(NULL, 0, START_LOOK_MS);
	}
	if (is_unit(job))
		unit_last_words(job->unit, tail, sizeof(tail));
	else
		log_tail(job, log_from, tail, sizeof(tail));
	return qmp_why(why, n, "the guest's QEMU was started, but after %u ms: %s%s", job->start_ms, last, tail);
}

static int set_up(const struct incoming_job *job, struct qmp *q, char *why, size_t n)
{
	struct qemu_settings s = { 0 };

	qemu_wish_cap(&s, CAP_RETURN_PATH, WISH, true);
	qemu_wish_cap(&s, CAP_EVENTS, WISH_IF_KNOWN, true);
	qemu_wish_cap(&s, CAP_LATE_ACTIVATE, WISH_IF_KNOWN, true);
	qemu_wish_cap(&s, CAP_MULTIFD, WISH, job->multifd);
	if (job->multifd)
		qemu_wish_num(&s, NUM_CHANNELS, job->multifd);
	if (job->key && stream_key_give(q, job->answer_ms, job->key_dir, job->key, true, why, n))
		return -1;
	qemu_wish_text(&s, TEXT_TLS_CREDS, job->key ? STREAM_KEY_ID : job->tls_creds ?: "");
	qemu_wish_text(&s, TEXT_TLS_AUTHZ, job->tls_authz ?: "");
	return qemu_apply(q, job->answer_ms, &s, NULL, why, n) ? -1 : 0;
}

/* QEMU finds a free port by itself, and says which. */
static int listen_on(const struct incoming_job *job, struct qmp *q, struct incoming *in, char *why, size_t n)
{
	struct qemu_migration m;
	char uri[QEMU_URI], to[16] = "";

	if (job->port && job->last_port > job->port)
		snprintf(to, sizeof(to), ",to=%u", job->last_port);
	if (!strncmp(job->listen, "unix:", 5))
		snprintf(uri, sizeof(uri), "%s", job->listen);
	else
		snprintf(uri, sizeof(uri), strchr(job->listen, ':') ? "tcp:[%s]:%u%s" : "tcp:%s:%u%s", job->listen, job->port, to);
	json_str(qmp_command(q, "migrate-incoming"), "uri", uri);
	if (qmp_run(q, job->answer_ms, NULL, why, n) || qemu_migration(q, job->answer_ms, &m, why, n))
		return -1;
	if (!*m.uri)
		return qmp_why(why, n, "QEMU listens at %s, but does not say on which port", uri);
	snprintf(in->uri, sizeof(in->uri), "%s", m.uri);
	return 0;
}

static int make_ready(const struct incoming_job *job, struct qmp *q, struct incoming *in, char *why, size_t n)
{
	enum guest_at at = qemu_guest_at(q, job->answer_ms, why, n);

	if (at == GUEST_SILENT)
		return -1;
	if (at != GUEST_AWAITED)
		return qmp_why(why, n, "the guest %s in the QEMU that is to receive it; was that started with -incoming defer?",
			    guest_at_text[at]);
	/* then the guest would run as soon as it is here */
	if ((args_of(job, q->pid) & (ARG_INCOMING | ARG_STOPPED)) == ARG_INCOMING)
		return qmp_why(why, n, "the QEMU that is to receive the guest was started without -S: the guest would run too early");
	if (set_up(job, q, why, n))
		return -1;
	return listen_on(job, q, in, why, n);
}

/* ---- ending ---- */

struct process {
	pid_t pid;
	int fd;
	bool leader;		/* of a session that was made for it */
};

/* One that is to be ended: pid, and it must have begun at when (0: whenever). */
static void take_process(const struct incoming_job *job, struct process *p, pid_t pid, uint64_t when)
{
	p->pid = pid;
	p->fd = pid > 0 ? pidfd_open(pid, 0) : -1;
	p->leader = job->command && getsid(pid) == pid;
	/* looked at when the descriptor holds it, so that its number is no other's */
	if (p->fd >= 0 && when && born(pid) != when) {
		close(p->fd);
		p->fd = -1;
	}
}

static bool end_process(const struct process *p, unsigned int ms)
{
	static const int signals[] = { SIGTERM, SIGKILL };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		if (ended(p->fd, ms))
			return true;
		pidfd_send_signal(p->fd, signals[i], NULL, 0);
		/* a shell that did not exec QEMU; its number is its own as long as it has not ended */
		if (p->leader && !ended(p->fd, 0))
			kill(-p->pid, signals[i]);
	}
	return ended(p->fd, ms);
}

/* May this QEMU be ended? Not if its guest runs, or has run. */
static int may_end(const struct incoming_job *job, struct qmp *q, char *why, size_t n)
{
	enum guest_at at = qemu_guest_at(q, job->answer_ms, why, n);

	switch (at) {
	case GUEST_AWAITED:
	case GUEST_COMING:
	case GUEST_ARRIVED:
	case GUEST_SILENT:
	case GUEST_GONE:
		return 0;
	default:
		return qmp_why(why, n, "the guest %s in the QEMU at %s: that is not ended", guest_at_text[at], job->qmp);
	}
}

/* Nobody listens on the monitor's socket any more. */
static int confirm_gone(const struct incoming_job *job, char *why, size_t n)
{
	char last[QMP_WHY];
	struct qmp q;

	switch (qmp_open(&q, job->qmp, job->answer_ms, last, sizeof(last))) {
	case QMP_CLOSED:
		return 0;
	case QMP_OK:
		qmp_close(&q);
		return qmp_why(why, n, "QEMU was ended, but another one (pid %d) is at %s: end it, and what starts it again",
			       (int)q.pid, job->qmp);
	default:
		return qmp_why(why, n, "it is not certain that QEMU has ended: %s", last);
	}
}

static int end_qemu(const struct incoming_job *job, const struct process *procs, unsigned int nr, char *why, size_t n)
{
	char last[QMP_WHY] = "";
	unsigned int i;
	int err = 0;

	if (is_unit(job))
		err = unit_stop(job->unit, job->end_ms * 3, last, sizeof(last));
	for (i = 0; i < nr; i++)
		if (procs[i].fd >= 0 && !end_process(&procs[i], job->end_ms))
			return qmp_why(why, n, "QEMU (pid %d) does not end, not even by SIGKILL%s%s", (int)procs[i].pid,
				       *last ? "; " : "", last);
	/* it may have waited for QEMU */
	if (err)
		err = unit_stop(job->unit, job->end_ms, why, n);
	return err ?: confirm_gone(job, why, n);
}

/* fresh: it was started just now, and may be anything but what it should be. */
static int end(const struct incoming_job *job, const struct incoming *in, bool fresh, char *why, size_t n)
{
	struct process procs[2];
	enum qmp_result r;
	struct qmp q;
	int err = -1;

	*why = 0;
	take_process(job, &procs[0], in && in->born ? in->pid : 0, in ? in->born : 0);
	r = qmp_open(&q, job->qmp, job->answer_ms, why, n);
	/* known even if it does not answer: it may be the same, or what has taken its place */
	take_process(job, &procs[1], qemu_pid(job, &q), 0);
	if (r && r != QMP_CLOSED && procs[0].fd < 0 && procs[1].fd < 0)
		goto out;
	if (!r) {
		if (!fresh && may_end(job, &q, why, n))
			goto out;
		qmp_execute(&q, "quit", job->answer_ms, NULL, why, n);
	}
	err = end_qemu(job, procs, 2, why, n);
	if (!err)
		*why = 0;
out:
	qmp_close(&q);
	if (procs[0].fd >= 0)
		close(procs[0].fd);
	if (procs[1].fd >= 0)
		close(procs[1].fd);
	return err;
}

/* ---- what the agent calls ---- */

int incoming_abort(const struct incoming_job *given, const struct incoming *in, char *why, size_t n)
{
	struct incoming_job job = *given;

	incoming_defaults(&job);
	return end(&job, in, false, why, n);
}

int incoming_prepare(const struct incoming_job *given, struct incoming *in, char *why, size_t n)
{
	struct incoming_job job = *given;
	bool ours = job.command || job.unit;
	struct incoming started = { 0 };
	char more[QMP_WHY];
	enum guest_at at;
	struct qmp q;
	off_t log_from = 0;
	int err = -1;

	incoming_defaults(&job);
	memset(in, 0, sizeof(*in));
	*why = 0;
	if (ours) {
		at = qemu_find(job.qmp, job.answer_ms, more, sizeof(more));
		if (at != GUEST_GONE)
			return qmp_why(why, n, "there is a QEMU at %s already, whose guest %s: end it first", job.qmp, guest_at_text[at]);
	}
	if (job.command) {
		started.pid = start_command(&job, &log_from, why, n);
		if (started.pid < 0)
			return -1;
		started.born = born(started.pid);
	} else if (job.unit && start_unit(&job, why, n)) {
		return -1;
	}
	if (wait_monitor(&job, started.pid, log_from, &q, why, n))
		goto out;
	in->pid = qemu_pid(&job, &q) ?: started.pid;
	in->born = born(in->pid);
	err = make_ready(&job, &q, in, why, n);
	qmp_close(&q);
out:
	if (err && ours && end(&job, in->pid ? in : &started, true, more, sizeof(more)))
		snprintf(why + strlen(why), n - strlen(why), "; and %s", more);
	return err;
}

int incoming_accept(const struct incoming_job *given, char *why, size_t n)
{
	struct incoming_job job = *given;
	enum guest_at at;
	struct qmp q;
	uint64_t until;
	int err = -1;

	incoming_defaults(&job);
	*why = 0;
	until = ms_now() + job.accept_ms;
	if (qmp_open(&q, job.qmp, job.answer_ms, why, n))
		return -1;
	for (;;) {
		at = qemu_guest_at(&q, job.accept_ms, why, n);
		if (at == GUEST_RUNS) {
			err = 0;
			*why = 0;
			break;
		}
		if (at == GUEST_SILENT)
			break;
		if (at == GUEST_ARRIVED) {
			if (qmp_execute(&q, "cont", job.accept_ms, NULL, why, n))
				break;
		} else if (at != GUEST_COMING) {
			qmp_why(why, n, "the guest %s, so it is not let run", guest_at_text[at]);
			break;
		}
		if (ms_now() >= until) {
			qmp_why(why, n, "the guest %s after %u ms", guest_at_text[at], job.accept_ms);
			break;
		}
		if (at == GUEST_COMING)
			poll(NULL, 0, START_LOOK_MS);
	}
	qmp_close(&q);
	return err;
}

enum guest_at incoming_find(const struct incoming_job *given, char *why, size_t n)
{
	struct incoming_job job = *given;

	incoming_defaults(&job);
	*why = 0;
	return qemu_find(job.qmp, job.answer_ms, why, n);
}
