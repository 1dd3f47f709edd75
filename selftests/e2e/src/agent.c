// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * agent - runs shell commands in a host or guest for the test program outside; runs as process 1 there.
 *
 *   agent tcp PORT     listens; one process per connection
 *   agent port PATH    serves a virtio-serial port, again and again (a migrated guest gets another peer)
 *
 * A request is a line "\001RUN ID LENGTH TIMEOUT\n" and LENGTH bytes of shell script; TIMEOUT is in seconds. Whatever
 * comes before \001 is skipped, so that a new peer need not know what an old one left behind. The answer is a line
 * "\001END ID STATUS OUTLEN ERRLEN START END OFFSET\n" and the two outputs. STATUS is the shell's exit status, 128 + N after
 * signal N, 124 after TIMEOUT. START and END are CLOCK_MONOTONIC around the command, OFFSET is CLOCK_REALTIME minus
 * CLOCK_MONOTONIC; all in ns. An empty script runs nothing and reads the clocks only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_SCRIPT	(4 << 20)

static int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* A virtio-serial port without a peer reads as end of file; polling it then would spin. */
static int read_byte(int fd, int is_port)
{
	static unsigned char buf[65536];
	static size_t have, at;
	ssize_t n;

	while (at == have) {
		n = read(fd, buf, sizeof(buf));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (!is_port)
				return -1;
			usleep(20000);
			continue;
		}
		have = n;
		at = 0;
	}
	return buf[at++];
}

static int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	while (len) {
		n = write(fd, p, len > 32768 ? 32768 : len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			usleep(5000);
			continue;
		}
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

static int send_file(int out, int fd, off_t len)
{
	char buf[32768];
	off_t at = 0;
	ssize_t n;

	while (at < len) {
		n = pread(fd, buf, len - at < (off_t)sizeof(buf) ? len - at : (off_t)sizeof(buf), at);
		if (n <= 0 || write_all(out, buf, n))
			return -1;
		at += n;
	}
	return 0;
}

/* Runs the script; its children may outlive it, so only the shell itself is waited for. */
static int run(char *script, int timeout, int out, int err)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	int64_t end = clock_ns(CLOCK_MONOTONIC) + timeout * 1000000000LL;
	int status, fd;
	pid_t pid = fork();

	if (pid < 0)
		return 127;
	if (!pid) {
		setsid();
		fd = open("/dev/null", O_RDONLY);
		dup2(fd, 0);
		dup2(out, 1);
		dup2(err, 2);
		for (fd = 3; fd < 64; fd++)
			close(fd);
		signal(SIGPIPE, SIG_DFL);
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (clock_ns(CLOCK_MONOTONIC) > end) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return 124;
		}
		nanosleep(&nap, NULL);
		if (nap.tv_nsec < 16000000)
			nap.tv_nsec += nap.tv_nsec / 8;
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void serve(int in, int out, int is_port)
{
	char line[128], head[256], id[48], *script;
	int64_t t0, t1, offset;
	unsigned int len, timeout, i;
	int c, fo, fe, rc;

	for (;;) {
		while ((c = read_byte(in, is_port)) != 1)
			if (c < 0)
				return;
		for (i = 0; i < sizeof(line) - 1; i++) {
			c = read_byte(in, is_port);
			if (c < 0)
				return;
			if (c == '\n')
				break;
			line[i] = c;
		}
		line[i] = 0;
		if (sscanf(line, "RUN %47s %u %u", id, &len, &timeout) != 3 || len > MAX_SCRIPT)
			continue;
		script = malloc(len + 1);
		for (i = 0; i < len; i++) {
			c = read_byte(in, is_port);
			if (c < 0)
				return;
			script[i] = c;
		}
		script[len] = 0;
		fo = memfd_create("out", MFD_CLOEXEC);
		fe = memfd_create("err", MFD_CLOEXEC);
		t0 = clock_ns(CLOCK_MONOTONIC);
		rc = len ? run(script, timeout, fo, fe) : 0;
		t1 = clock_ns(CLOCK_MONOTONIC);
		offset = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
		free(script);
		/* Background children may still write to the files: the lengths are settled here. */
		off_t lo = lseek(fo, 0, SEEK_END), le = lseek(fe, 0, SEEK_END);

		snprintf(head, sizeof(head), "\001END %s %d %lld %lld %lld %lld %lld\n", id, rc, (long long)lo, (long long)le,
			 (long long)t0, (long long)t1, (long long)offset);
		rc = write_all(out, head, strlen(head)) || send_file(out, fo, lo) || send_file(out, fe, le);
		close(fo);
		close(fe);
		if (rc && !is_port)
			return;
	}
}

static int serve_tcp(int port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, fd;
	struct pollfd pfd;

	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(s, (struct sockaddr *)&sin, sizeof(sin)) || listen(s, 16)) {
		perror("agent: listen");
		return 1;
	}
	fprintf(stderr, "agent: listening\n");
	for (;;) {
		pfd = (struct pollfd){ .fd = s, .events = POLLIN };
		if (poll(&pfd, 1, 1000) > 0) {
			fd = accept4(s, NULL, NULL, SOCK_CLOEXEC);
			if (fd >= 0 && !fork()) {
				close(s);
				setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				serve(fd, fd, 0);
				_exit(0);
			}
			if (fd >= 0)
				close(fd);
		}
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
}

static int serve_port(const char *path)
{
	pid_t pid;
	int fd;

	for (;;) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			break;
		usleep(10000);
	}
	pid = fork();
	if (!pid) {
		serve(fd, fd, 1);
		_exit(0);
	}
	close(fd);
	/* Process 1 collects orphans; the child never ends. */
	while (wait(NULL) != pid)
		;
	return 1;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 3 && !strcmp(argv[1], "tcp"))
		return serve_tcp(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "port"))
		return serve_port(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "poweroff"))
		return reboot(RB_POWER_OFF);
	fprintf(stderr, "usage: agent tcp PORT | port PATH | poweroff\n");
	return 2;
}
