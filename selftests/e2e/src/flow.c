// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * flow - one TCP connection that is kept open, in both directions of which every byte is known beforehand.
 *
 *   flow listen PORT FILE
 *   flow connect ADDRESS PORT FILE
 *
 * Each end sends a little every few milliseconds and checks each byte that comes by its position in the stream. An end that gets
 * SIGTERM sends no more; when the other end has seen that, it sends no more either, and both end. FILE holds what there was so far,
 * as JSON, renewed several times a second: bytes, the first wrong byte, the longest time without any (ns), why it ended. Exit
 * status 0: both directions were closed in order, and no byte was wrong.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK		8192
#define PACE_NS		10000000	/* a chunk at most in that time */
#define SHOW_NS		100000000

static volatile sig_atomic_t stop;

static struct {
	uint64_t sent, received;
	int64_t wrong_at;		/* -1: none */
	int64_t silence, silence_end;	/* the longest, ns on CLOCK_MONOTONIC */
	const char *end;		/* NULL: goes on */
} st = { .wrong_at = -1 };

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

/* Bytes of a stream from a position on; the two directions differ. */
static void bytes(uint8_t *p, size_t len, uint64_t at, uint64_t way)
{
	size_t i;

	for (i = 0; i < len; i++, at++) {
		uint64_t x = (at / 8 + 1) * 0x9e3779b97f4a7c15ULL + way * 0xbf58476d1ce4e5b9ULL;

		x ^= x >> 29;
		p[i] = x >> (8 * (at % 8));
	}
}

static void show(const char *path)
{
	char text[320], new[256];
	int fd, n;

	n = snprintf(text, sizeof(text), "{\"sent\": %llu, \"received\": %llu, \"wrong_at\": %lld, \"silence_ns\": %lld, "
		     "\"silence_end_ns\": %lld, \"end\": %s%s%s}\n", (unsigned long long)st.sent, (unsigned long long)st.received,
		     (long long)st.wrong_at, (long long)st.silence, (long long)st.silence_end,
		     st.end ? "\"" : "", st.end ? st.end : "null", st.end ? "\"" : "");
	snprintf(new, sizeof(new), "%s.new", path);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, n) != n || close(fd) || rename(new, path))
		perror(path);
}

static int connection(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (argc == 4 && !strcmp(argv[1], "listen")) {
		a.sin_port = htons(atoi(argv[2]));
		setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(s, (void *)&a, sizeof(a)) || listen(s, 1))
			return -1;
		return accept4(s, NULL, NULL, SOCK_CLOEXEC);
	}
	if (argc == 5 && !strcmp(argv[1], "connect")) {
		a.sin_port = htons(atoi(argv[3]));
		if (!inet_aton(argv[2], &a.sin_addr) || connect(s, (void *)&a, sizeof(a)))
			return -1;
		return s;
	}
	fprintf(stderr, "usage: flow listen PORT FILE | connect ADDRESS PORT FILE\n");
	exit(2);
}

/* Takes what is there: bytes, or 0 at the end of the stream, or -1. */
static ssize_t take(int s, uint64_t way)
{
	static uint8_t in[65536], want[65536];
	ssize_t n = recv(s, in, sizeof(in), MSG_DONTWAIT), i;

	if (n <= 0)
		return n;
	bytes(want, n, st.received, way);
	for (i = 0; i < n && st.wrong_at < 0; i++)
		if (in[i] != want[i])
			st.wrong_at = st.received + i;
	st.received += n;
	return n;
}

static const char *talk(int s, uint64_t mine, uint64_t theirs, const char *path)
{
	int64_t t = now(), heard = t, next = t, shown = 0;
	bool sending = true;
	uint8_t out[CHUNK];
	ssize_t n;

	for (;;) {
		struct pollfd p = { .fd = s, .events = POLLIN };
		struct timespec pause = {};

		t = now();
		if (sending && stop) {
			shutdown(s, SHUT_WR);
			sending = false;
		}
		if (sending && t >= next) {
			bytes(out, sizeof(out), st.sent, mine);
			n = send(s, out, sizeof(out), MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n < 0 && errno != EAGAIN)
				return strerror(errno);
			st.sent += n > 0 ? n : 0;
			next = t + PACE_NS;
		}
		if (t - shown > SHOW_NS) {
			show(path);
			shown = t;
		}
		pause.tv_nsec = sending && next > t ? next - t : PACE_NS;
		if (ppoll(&p, 1, &pause, NULL) <= 0)
			continue;
		n = take(s, theirs);
		if (n < 0 && errno != EAGAIN)
			return strerror(errno);
		if (!n) {
			if (sending)
				shutdown(s, SHUT_WR);
			return "in order";
		}
		t = now();
		if (n > 0) {
			if (t - heard > st.silence) {
				st.silence = t - heard;
				st.silence_end = t;
			}
			heard = t;
		}
	}
}

int main(int argc, char **argv)
{
	const char *path = argv[argc - 1];
	int s, one = 1, caller;

	signal(SIGTERM, on_term);
	s = connection(argc, argv);
	if (s < 0) {
		perror("flow");
		return 1;
	}
	caller = argc == 5;
	setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	st.end = talk(s, caller, !caller, path);
	show(path);
	return st.wrong_at >= 0 || strcmp(st.end, "in order");
}
