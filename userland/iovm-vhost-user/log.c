// SPDX-License-Identifier: GPL-2.0-or-later
/* Messages on stderr, one write each, and systemd's notification socket. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vu.h"

#define WINDOW_MS	10000
#define WINDOW_LINES	30

bool vu_verbose;
static const char *log_name = "";

void vu_log_name(const char *name)
{
	log_name = name;
}

static void emit(const char *fmt, va_list ap)
{
	char line[VU_ERR_MAX + 160];
	int n, m;

	n = snprintf(line, sizeof(line), "iovm-vhost-user: %s%s", log_name, *log_name ? ": " : "");
	if (n < 0 || (size_t)n >= sizeof(line) - 2)
		n = 0;
	m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	if (m < 0)
		return;
	n += m;
	if ((size_t)n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return;	/* nowhere left to say it */
}

/* A front end must not fill the journal: so many lines in so much time, then the number of those left out. */
static bool may_say(void)
{
	static uint64_t window_ms;
	static unsigned int said, left_out;
	uint64_t now = vu_now_ms();
	char line[96];
	int n;

	if (!window_ms || now - window_ms >= WINDOW_MS) {
		if (left_out) {
			n = snprintf(line, sizeof(line), "iovm-vhost-user: %u messages left out\n", left_out);
			if (write(STDERR_FILENO, line, n) < 0)
				return false;
		}
		window_ms = now;
		said = 0;
		left_out = 0;
	}
	if (said < WINDOW_LINES) {
		said++;
		return true;
	}
	left_out++;
	return false;
}

void vu_say(const char *fmt, ...)
{
	va_list ap;

	if (!may_say())
		return;
	va_start(ap, fmt);
	emit(fmt, ap);
	va_end(ap);
}

void vu_trace(const char *fmt, ...)
{
	va_list ap;

	if (!vu_verbose)
		return;
	va_start(ap, fmt);
	emit(fmt, ap);
	va_end(ap);
}

/* Keep what went wrong for whoever ends or answers this; returns @err. */
int vu_fail(struct vu_session *s, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s->error, sizeof(s->error), fmt, ap);
	va_end(ap);
	return err;
}

void vu_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len;
	int fd;

	if (!path || (path[0] != '/' && path[0] != '@'))
		return;
	len = strlen(path);
	if (len < 2 || len > sizeof(sa.sun_path) - 1)
		return;
	memcpy(sa.sun_path, path, len);
	if (path[0] == '@')
		sa.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	len += offsetof(struct sockaddr_un, sun_path);
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&sa, len) < 0)
		vu_say("cannot notify %s: %s", path, strerror(errno));
	close(fd);
}

uint64_t vu_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}
