// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The supervisor: accepts, and keeps one child per connection, one at a time.
 *
 * The child does everything that touches the node, guest memory and the front end's bytes. So whatever the
 * front end does, the end of the process cleans up; and a wait in the kernel that nobody needs any more (its front end is
 * gone) can be ended, as only SIGKILL ends it.
 *
 * The supervisor keeps the connection open until the child has gone and the node can be opened again. So a front
 * end never sees the connection end, and reads from its rings where to go on, while requests are still in flight. When
 * both are killed, the kernel does that (VHOST_IOVM_LEND_SOCKET).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vu.h"
#include "super.h"

#ifndef GONE_MS			/* a test may be less patient */
#define GONE_MS		5000	/* for a child whose front end is gone */
#define TERM_MS		10000	/* for a child to finish its requests when we are to end */
#endif
#define FREE_MS		30000	/* for the node of a child that died */
#define FREE_TERM_MS	5000	/* the same when we are to end */
#define AWAY_MS		200	/* how often a busy node is looked at */
#define SAY_MS		1000	/* a wait that is longer is mentioned */
#define SAY_AGAIN_MS	10000

/**
 * struct super - the supervisor
 * @o: options
 * @l: the socket it listens on
 * @signals: signalfd of SIGTERM, SIGINT and SIGCHLD
 * @shared: with the child
 * @child: its pid, 0 when there is none
 * @peer: pid of its front end
 * @conn: the connection it serves, held open until it has gone
 * @gone: the front end closed the connection
 * @ending: somebody ends us, or the device is no more
 * @away: the node is busy for so long that nobody is let in
 * @lost: there is nothing left to serve, or nowhere
 * @kill_at_ms: when the child is killed, 0 = never
 * @said_since_ms: the wait that was mentioned, as vu_shared.busy_since_ms
 * @say_at_ms: when it is mentioned again
 * @refused_ms: when a front end was last refused with a message
 * @failed: the last child did
 */
struct super {
	const struct vu_options *o;
	struct vu_listener *l;
	int signals;
	struct vu_shared *shared;
	pid_t child;
	pid_t peer;
	int conn;
	bool gone;
	bool ending;
	bool away;
	bool lost;
	uint64_t kill_at_ms;
	uint64_t said_since_ms;
	uint64_t say_at_ms;
	uint64_t refused_ms;
	bool failed;
};

static int open_signals(bool child)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (!child)
		sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_SETMASK, &set, NULL))
		return -1;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int set_nonblocking(int fd)
{
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void child_main(struct super *u, pid_t parent)
{
	static struct vu_session session;
	int signals;

	/* If the supervisor dies, end in order as well: a new one can then serve the front end. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		exit(1);
	close(u->l->fd);
	close(u->signals);
	signals = open_signals(true);
	if (signals < 0)
		exit(1);
	vu_session_run(&session, u->conn, u->o->node_path, signals, u->shared);
	exit(session.exit_status);
}

static pid_t peer_pid(int conn)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	return getsockopt(conn, SOL_SOCKET, SO_PEERCRED, &cred, &len) ? 0 : cred.pid;
}

static void start_child(struct super *u, int conn)
{
	pid_t self = getpid();

	u->conn = conn;
	u->peer = peer_pid(conn);
	u->gone = false;
	u->kill_at_ms = 0;
	u->said_since_ms = 0;
	u->shared->busy_since_ms = 0;
	u->child = fork();
	if (u->child == 0)
		child_main(u, self);
	if (u->child < 0) {
		vu_say("fork: %s", strerror(errno));
		close(conn);
		u->child = 0;
		u->conn = -1;
		return;
	}
	vu_say("serving front end pid %d", (int)u->peer);
}

static void on_connection(struct super *u)
{
	int conn = accept4(u->l->fd, NULL, NULL, SOCK_CLOEXEC);
	uint64_t now = vu_now_ms();

	if (conn < 0) {
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
			vu_say("accept: %s", strerror(errno));
			poll(NULL, 0, 100);	/* out of file descriptors or memory: not in a tight loop */
		}
		return;
	}
	if (!u->child) {
		start_child(u, conn);
		return;
	}
	if (!u->refused_ms || now - u->refused_ms >= 1000) {
		vu_say("refused front end pid %d: pid %d has the device", (int)peer_pid(conn), (int)u->peer);
		u->refused_ms = now;
	}
	close(conn);
}

static bool peer_is_there(int conn)
{
	struct pollfd p = { .fd = conn, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 0;
}

static void end_child(struct super *u, uint64_t ms)
{
	uint64_t at = vu_now_ms() + ms;

	if (u->child && (!u->kill_at_ms || at < u->kill_at_ms))
		u->kill_at_ms = at;
}

static void read_signals(struct super *u)
{
	struct signalfd_siginfo si;

	while (read(u->signals, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGCHLD || u->ending)
			continue;
		u->ending = true;
		vu_notify("STOPPING=1");
		vu_trace("ended by signal %u", si.ssi_signo);
		if (u->child) {
			kill(u->child, SIGTERM);
			end_child(u, TERM_MS);
		}
	}
}

/*
 * The device is no more, or busy without end. A front end must not find us in this state: QEMU 7.2 tries to reconnect
 * until it can, but once it could and is then turned away it never speaks again. So there must be nobody to connect to, and
 * that before the connection at hand is closed.
 */
static void close_the_door(struct super *u, bool for_good)
{
	if (for_good) {
		vu_say("the device is no more; ending");
		vu_listen_end(u->l);
		u->ending = true;
		u->lost = true;
		return;
	}
	vu_say("not listening until %s can be opened", u->o->node_path);
	if (u->l->path)
		vu_listen_end(u->l);
	u->away = true;
}

/* Whether it can be opened now, or has gone. */
static void look_at_the_door(struct super *u)
{
	struct vu_listener *l = u->l;
	int fd = vuk_open(u->o->node_path);

	if (fd == -EBUSY)
		return;
	if (fd >= 0)
		vuk_close(fd);
	u->away = false;
	if (fd == -ENODEV || fd == -ENOENT || fd == -ENXIO) {
		close_the_door(u, true);
	} else if (l->path && vu_listen(l, l->path, l->mode, l->group)) {
		u->ending = true;
		u->lost = true;
	} else {
		vu_say("listening again");
		set_nonblocking(l->fd);
	}
}

/*
 * A child died over its work: hold the connection until the kernel has finished what it had issued. The kernel does so too,
 * if the child had come as far as to lend it the connection; but we are not to take another front end before.
 */
static void wait_for_node(struct super *u)
{
	uint64_t begin = vu_now_ms();
	int fd;

	for (;;) {
		struct pollfd p = { .fd = u->signals, .events = POLLIN };

		fd = vuk_open(u->o->node_path);
		if (fd >= 0)
			vuk_close(fd);
		if (fd != -EBUSY || !peer_is_there(u->conn))
			return;
		if (vu_now_ms() - begin >= (u->ending ? FREE_TERM_MS : FREE_MS))
			break;
		if (poll(&p, 1, 100) > 0)
			read_signals(u);
	}
	vu_say("%s is still busy; closing the connection to pid %d all the same", u->o->node_path, (int)u->peer);
}

static void reap(struct super *u)
{
	int status;

	if (!u->child || waitpid(u->child, &status, WNOHANG) != u->child)
		return;
	u->child = 0;
	u->kill_at_ms = 0;
	u->failed = !WIFEXITED(status) || WEXITSTATUS(status);
	if (WIFSIGNALED(status))
		vu_say("the session of front end pid %d was killed by signal %d", (int)u->peer, WTERMSIG(status));
	else
		vu_say("front end pid %d: end of session", (int)u->peer);
	if (WIFSIGNALED(status) && peer_is_there(u->conn))
		wait_for_node(u);
	if (WIFEXITED(status) && WEXITSTATUS(status) == VU_EXIT_GONE)
		close_the_door(u, true);
	else if (WIFEXITED(status) && WEXITSTATUS(status) == VU_EXIT_BUSY && !u->ending)
		close_the_door(u, false);
	close(u->conn);
	u->conn = -1;
}

/* Mention a long wait for requests in flight: the VMM is frozen meanwhile. */
static void watch_wait(struct super *u, uint64_t now)
{
	uint64_t since = u->shared->busy_since_ms;

	if (u->said_since_ms && since != u->said_since_ms) {
		vu_say("the wait for requests in flight is over");
		u->said_since_ms = 0;
	}
	if (!since || now < since + SAY_MS || (u->said_since_ms && now < u->say_at_ms))
		return;
	vu_say("queue %u: waiting since %llu s for requests in flight; the VMM is frozen until they are done or failed "
	       "(iovmctl show)", u->shared->busy_queue, (unsigned long long)(now - since) / 1000);
	u->said_since_ms = since;
	u->say_at_ms = now + SAY_AGAIN_MS;
}

static int next_timeout(struct super *u, uint64_t now)
{
	int ms = u->away ? AWAY_MS : -1;

	if (u->child && (u->shared->busy_since_ms || u->said_since_ms))
		ms = 250;
	if (u->kill_at_ms) {
		int left = u->kill_at_ms > now ? u->kill_at_ms - now : 0;

		if (ms < 0 || left < ms)
			ms = left;
	}
	return ms;
}

static void turn(struct super *u)
{
	bool listening = !u->ending && !u->gone && !u->away;
	struct pollfd p[4] = {
		{ .fd = u->signals, .events = POLLIN },
		{ .fd = u->shared->wake, .events = POLLIN },
		{ .fd = u->child && !u->gone ? u->conn : -1, .events = POLLRDHUP },
		{ .fd = listening ? u->l->fd : -1, .events = POLLIN },
	};
	uint64_t n;

	if (poll(p, 4, next_timeout(u, vu_now_ms())) < 0 && errno != EINTR)
		vu_say("poll: %s", strerror(errno));
	if (p[0].revents)
		read_signals(u);
	if (p[1].revents && read(u->shared->wake, &n, sizeof(n)) < 0)
		vu_trace("wake: %s", strerror(errno));
	if (p[2].revents) {
		u->gone = true;
		end_child(u, GONE_MS);
	}
	watch_wait(u, vu_now_ms());
	if (u->kill_at_ms && vu_now_ms() >= u->kill_at_ms) {
		vu_say("requests in flight do not finish; ending the session of front end pid %d", (int)u->peer);
		kill(u->child, SIGKILL);
		u->kill_at_ms = 0;
	}
	reap(u);
	if (u->away)
		look_at_the_door(u);
	if (!u->child)
		u->gone = false;
	/* Last, so that a front end that comes back at once finds the old session gone. */
	if (p[3].revents && !u->ending && !u->gone && !u->away)
		on_connection(u);
}

/* Serve until a signal ends us, or with --once until the first connection ended. The exit status. */
int vu_supervise(const struct vu_options *o, struct vu_listener *l)
{
	struct super u = { .o = o, .l = l, .conn = -1 };

	u.signals = open_signals(false);
	u.shared = mmap(NULL, sizeof(*u.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (u.signals < 0 || u.shared == MAP_FAILED) {
		vu_say("%s", strerror(errno));
		return 1;
	}
	u.shared->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u.shared->wake < 0 || set_nonblocking(l->fd)) {
		vu_say("%s", strerror(errno));
		return 1;
	}
	vu_notify("READY=1");
	while (!u.ending || u.child) {
		bool had = u.child;

		turn(&u);
		if (had && !u.child && o->once)
			return u.failed;
	}
	return u.lost;
}
