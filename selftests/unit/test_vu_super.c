// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovm-vhost-user as a process: its socket, one front end at a time, reconnection, and how it ends; with a node in
 * user space, and whole, from main() on.
 */
#define _GNU_SOURCE
#define GONE_MS 500
#define TERM_MS 3000
#define OPEN_MS 3000
#include "vu_fake.h"
#include "vu_front.h"

#include <signal.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "vu_program.h"

static char dir[64];
static char sock[96];
static pid_t server;

/* Start the program; its stderr goes to DIR/log. */
static void serve(const char *const *more, int inherit)
{
	const char *argv[16] = { "iovm-vhost-user", "--device", FAKE_NODE, "--verbose" };
	char log[96];
	int n = 4, fd;

	if (inherit < 0) {
		argv[n++] = "--socket";
		argv[n++] = sock;
	}
	while (more && *more)
		argv[n++] = *more++;
	snprintf(log, sizeof(log), "%s/log", dir);
	fd = creat(log, 0600);
	server = fork();
	if (server == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fd, STDERR_FILENO);
		exit(vu_main(n, (char **)argv));
	}
	close(fd);
}

static bool in_log(const char *what)
{
	static char buf[1 << 18];
	char log[96];
	FILE *f;
	size_t n;

	snprintf(log, sizeof(log), "%s/log", dir);
	f = fopen(log, "r");
	n = fread(buf, 1, sizeof(buf) - 1, f);
	fclose(f);
	buf[n] = 0;
	return strstr(buf, what);
}

static bool soon_in_log(const char *what)
{
	for (int i = 0; i < 500; i++) {
		if (in_log(what))
			return true;
		usleep(10000);
	}
	printf("# never said: %s\n", what);
	return false;
}

static int dial(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(sa.sun_path, sock);
	for (int i = 0; i < 500; i++) {
		if (!connect(fd, (struct sockaddr *)&sa, sizeof(sa)))
			return fd;
		usleep(10000);
	}
	close(fd);
	return -1;
}

static void arrive(void)
{
	fe.fd = dial();
	fe.channel = -1;
	CHECK(fe.fd >= 0);
}

static void leave(void)
{
	fe_hangup();
	if (fe.channel >= 0)
		close(fe.channel);
	fe.channel = -1;
}

/* The exit status, -1 when it does not end in time, 1000 + signal when it was killed. */
static int server_status(void)
{
	int status;

	for (int i = 0; i < 1000; i++) {
		if (waitpid(server, &status, WNOHANG) == server)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
		usleep(10000);
	}
	kill(server, SIGKILL);
	waitpid(server, &status, 0);
	return -1;
}

static pid_t session_pid(void)
{
	char path[96];
	int pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", server, server);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%d", &pid) != 1)
			pid = 0;
		fclose(f);
	}
	return pid;
}

static void one_after_another(void)
{
	static const char *const mode[] = { "--socket-mode", "0600", NULL };
	struct stat st;

	serve(mode, -1);
	for (int i = 0; i < 3; i++) {
		arrive();
		fe_realize(2);
		fe_start(2);
		leave();
	}
	CHECK(!stat(sock, &st) && (st.st_mode & 0777) == 0600);
	CHECK(kill(server, SIGTERM) == 0);
	CHECK(server_status() == 0);
	CHECK(lstat(sock, &st) && errno == ENOENT);
	CHECK(!in_log("misled"));
}

/* A second one is refused and the first not disturbed; then it may come. */
static void one_at_a_time(void)
{
	int first, second;

	serve(NULL, -1);
	arrive();
	CHECK(fe_sync());
	first = fe.fd;
	fe.fd = second = dial();
	CHECK(fe_eof());
	CHECK(soon_in_log("refused front end"));
	close(second);
	fe.fd = first;
	CHECK(fe_sync());
	leave();
	arrive();
	CHECK(fe_sync());
	leave();
	kill(server, SIGTERM);
	CHECK(server_status() == 0);
}

/* The front end goes while the kernel waits for its requests: nobody needs them, and the next one must be served. */
static void gone_while_waiting(void)
{
	fake.hold_fd = eventfd(0, 0);
	serve(NULL, -1);
	arrive();
	fe_realize(1);
	fe_start(1);
	fe_state(VU_SET_VRING_ENABLE, 0, 0);
	CHECK(soon_in_log("waiting since 1 s for requests in flight"));
	leave();
	arrive();
	CHECK(fe_sync());
	leave();
	CHECK(in_log("do not finish"));
	kill(server, SIGTERM);
	CHECK(server_status() == 0);
	close(fake.hold_fd);
	fake.hold_fd = -1;
}

/* Told to end while a front end is there: its requests first, as long as we have. */
static void terminated(void)
{
	uint64_t one = 1;
	struct pollfd p;

	for (int finish = 0; finish < 2; finish++) {
		fake.hold_fd = eventfd(0, 0);
		serve(NULL, -1);
		arrive();
		fe_realize(1);
		fe_start(1);
		kill(server, SIGTERM);
		p = (struct pollfd){ .fd = fe.fd, .events = POLLIN };
		CHECK(poll(&p, 1, 300) == 0);
		if (finish)
			CHECK(write(fake.hold_fd, &one, 8) == 8);
		CHECK(fe_eof());
		CHECK(server_status() == 0);
		CHECK(in_log("do not finish") == !finish);
		leave();
		close(fake.hold_fd);
		fake.hold_fd = -1;
	}
}

/* The session dies: its front end must not see it before the kernel has finished with the session's requests. */
static void session_dies(void)
{
	int *busy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pollfd p;
	pid_t session;

	fake.busy = busy;
	serve(NULL, -1);
	arrive();
	fe_realize(1);
	fe_start(1);
	session = session_pid();
	CHECK(session > 0);
	*busy = EBUSY;
	CHECK(session > 0 && kill(session, SIGKILL) == 0);
	p = (struct pollfd){ .fd = fe.fd, .events = POLLIN };
	CHECK(soon_in_log("killed by signal 9"));
	CHECK(poll(&p, 1, 300) == 0);
	*busy = 0;
	CHECK(fe_eof());
	leave();
	arrive();
	CHECK(fe_sync());
	leave();
	/* A front end that comes while the node is busy waits for it. */
	*busy = EBUSY;
	arrive();
	CHECK(soon_in_log("is busy; waiting"));
	*busy = 0;
	CHECK(fe_sync());
	leave();
	kill(server, SIGTERM);
	CHECK(server_status() == 0);
	fake.busy = NULL;
	munmap(busy, 4096);
}

static bool exists(bool want)
{
	struct stat st;

	for (int i = 0; i < 1000; i++) {
		if (!lstat(sock, &st) == want)
			return true;
		usleep(10000);
	}
	return false;
}

/*
 * Busy without end: nobody is let in, rather than let in and turned away, until the node is free. Then the device is
 * destroyed.
 */
static void closed_door(void)
{
	int *busy = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct stat st;

	fake.busy = busy;
	serve(NULL, -1);
	*busy = EBUSY;
	arrive();
	CHECK(fe_eof());
	CHECK(lstat(sock, &st) && errno == ENOENT);
	leave();
	*busy = 0;
	CHECK(exists(true));
	arrive();
	CHECK(fe_sync());
	leave();
	*busy = ENODEV;
	arrive();
	CHECK(fe_eof());
	CHECK(lstat(sock, &st) && errno == ENOENT);
	leave();
	CHECK(server_status() == 1);
	CHECK(in_log("the device is no more"));
	/* It goes while it is busy; and the program is ended while it is. */
	*busy = 0;
	for (int end = 0; end < 2; end++) {
		serve(NULL, -1);
		CHECK(exists(true));
		*busy = EBUSY;
		arrive();
		CHECK(fe_eof());
		leave();
		CHECK(soon_in_log("not listening"));
		if (end)
			kill(server, SIGTERM);
		else
			*busy = ENOENT;
		CHECK(server_status() == !end);
		*busy = 0;
	}
	fake.busy = NULL;
	munmap(busy, 4096);
}

static void once(void)
{
	static const char *const opt[] = { "--once", NULL };

	serve(opt, -1);
	arrive();
	CHECK(fe_sync());
	leave();
	CHECK(server_status() == 0);
	serve(opt, -1);
	arrive();
	fe_state(VU_SET_VRING_ENABLE, 99, 1);
	CHECK(fe_eof());
	leave();
	CHECK(server_status() == 1);
	CHECK(in_log("queue 99 of a device with 4"));
}

static void the_socket(void)
{
	struct vu_listener l;
	struct stat st;
	FILE *f;
	int fd;

	/* Something that is not a socket. */
	f = fopen(sock, "w");
	fclose(f);
	serve(NULL, -1);
	CHECK(server_status() == 1 && in_log("is not a socket"));
	CHECK(!lstat(sock, &st) && S_ISREG(st.st_mode));
	unlink(sock);
	/* A socket on which somebody listens, then a stale one. */
	CHECK(vu_listen(&l, sock, 0600, NULL) == 0);
	serve(NULL, -1);
	CHECK(server_status() == 1 && in_log("another process listens"));
	close(l.fd);
	CHECK(!lstat(sock, &st));
	serve(NULL, -1);
	arrive();
	CHECK(fe_sync());
	leave();
	/* Replaced by somebody else's: not ours to remove. */
	unlink(sock);
	CHECK(vu_listen(&l, sock, 0600, NULL) == 0);
	kill(server, SIGTERM);
	CHECK(server_status() == 0);
	CHECK(!lstat(sock, &st));
	vu_listen_end(&l);
	CHECK(lstat(sock, &st));
	/* Inherited, as from systemd; it stays. */
	CHECK(vu_listen(&l, sock, 0600, NULL) == 0);
	fd = fcntl(l.fd, F_DUPFD, 60);	/* not close-on-exec does not matter here, the number does */
	CHECK(fd == 60);
	serve((const char *const[]){ "--socket-fd", "60", NULL }, 60);
	arrive();
	CHECK(fe_sync());
	leave();
	kill(server, SIGTERM);
	CHECK(server_status() == 0);
	CHECK(!lstat(sock, &st));
	close(fd);
	vu_listen_end(&l);
	/* Inherited, but nothing that listens. */
	serve((const char *const[]){ "--socket-fd", "2", NULL }, 2);
	CHECK(server_status() == 1);
	/* No such group. */
	serve((const char *const[]){ "--socket-group", "no-such-group", NULL }, -1);
	CHECK(server_status() == 1 && in_log("no group"));
	CHECK(lstat(sock, &st));
}

static int status_of(int argc, const char *const *argv)
{
	server = fork();
	if (server == 0) {
		optind = 0;
		if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
			exit(99);
		exit(vu_main(argc, (char **)argv));
	}
	return server_status();
}

#define STATUS(...) status_of(sizeof((const char *[]){ "x", __VA_ARGS__ }) / sizeof(char *), \
			      (const char *const[]){ "x", __VA_ARGS__, NULL })

static void options_and_node(void)
{
	CHECK(STATUS("--help") == 0);
	CHECK(STATUS("--device", "x") == 2);
	CHECK(STATUS("--socket", sock) == 2);
	CHECK(STATUS("--device", "x", "--socket", sock, "--socket-fd", "3") == 2);
	CHECK(STATUS("--device", "x", "--socket", sock, "more") == 2);
	CHECK(STATUS("--device", "x", "--socket-fd", "3x") == 2);
	CHECK(STATUS("--device", "x", "--socket-fd", "-1") == 2);
	CHECK(STATUS("--device", "x", "--socket", sock, "--socket-mode", "8") == 2);
	CHECK(STATUS("--device", "..", "--socket", sock) == 2);
	CHECK(STATUS("--device", "a b", "--socket", sock) == 2);
	CHECK(STATUS("--device", "", "--socket", sock) == 2);
	CHECK(STATUS("--device", "no-such-device", "--socket", sock) == 1);
	CHECK(STATUS("--device", dir, "--socket", sock) == 1);
	CHECK(STATUS("--bogus") == 2);
}

static void notify(void)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char buf[64] = "";

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/notify", dir);
	CHECK(!bind(fd, (struct sockaddr *)&sa, sizeof(sa)));
	setenv("NOTIFY_SOCKET", sa.sun_path, 1);
	serve(NULL, -1);
	unsetenv("NOTIFY_SOCKET");
	CHECK(poll(&p, 1, REPLY_TIMEOUT_MS) == 1 && read(fd, buf, sizeof(buf) - 1) > 0 && !strcmp(buf, "READY=1"));
	/* It is ready: no waiting for the socket. */
	arrive();
	CHECK(fe_sync());
	leave();
	kill(server, SIGTERM);
	memset(buf, 0, sizeof(buf));
	CHECK(poll(&p, 1, REPLY_TIMEOUT_MS) == 1 && read(fd, buf, sizeof(buf) - 1) > 0 && !strcmp(buf, "STOPPING=1"));
	CHECK(server_status() == 0);
	close(fd);
	unlink(sa.sun_path);
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "one after another", one_after_another },
		{ "one at a time", one_at_a_time },
		{ "front end gone while its requests hang", gone_while_waiting },
		{ "terminated", terminated },
		{ "the session dies", session_dies },
		{ "closed door", closed_door },
		{ "once", once },
		{ "the socket", the_socket },
		{ "options and node", options_and_node },
		{ "notification", notify },
	};
	char cmd[128];
	int ret;

	strcpy(dir, "/tmp/vu-super-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(sock, sizeof(sock), "%s/sock", dir);
	fe.ram = fe_memfd("ram", RAM_SIZE);
	ret = KTAP_RUN(cases);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	if (system(cmd))
		ret = 1;
	close(fe.ram);
	return ret;
}
