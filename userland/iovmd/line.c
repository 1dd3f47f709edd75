// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets that carry a JSON object a line. In the main process nothing blocks: what the other side does not read is kept up to a limit,
 * after which it is taken for gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/net.h"

#define OUT_MAX_BYTES	(4u << 20)	/* that wait to be read by the other side */

/**
 * struct line - a socket in the event loop
 * @source: of the loop; NULL once it was closed
 * @in: what was read and is no whole line yet
 * @out: what could not be sent yet
 * @busy: fn runs
 */
struct line {
	int fd;
	sd_event_source *source;
	line_fn fn;
	void *data;
	char *in, *out;
	size_t in_n, in_size, out_n;
	bool busy, dead;
};

static void drop(struct line *l)
{
	free(l->in);
	free(l->out);
	free(l);
}

static void end(struct line *l)
{
	if (!l->source)
		return;
	l->source = sd_event_source_disable_unref(l->source);
	close(l->fd);
}

void line_close(struct line *l)
{
	if (!l)
		return;
	end(l);
	l->dead = true;
	if (!l->busy)
		drop(l);
}

/* Whether it is still there after its function was called. */
static bool call(struct line *l, char *text)
{
	l->busy = true;
	l->fn(l, text, l->data);
	l->busy = false;
	if (!l->dead)
		return true;
	drop(l);
	return false;
}

static void lost(struct line *l)
{
	end(l);
	if (call(l, NULL))
		drop(l);
}

static bool flush(struct line *l)
{
	ssize_t n;

	while (l->out_n) {
		n = send(l->fd, l->out, l->out_n, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return false;
		l->out_n -= (size_t)n;
		memmove(l->out, l->out + n, l->out_n);
	}
	sd_event_source_set_io_events(l->source, EPOLLIN | (l->out_n ? EPOLLOUT : 0));
	return true;
}

/* The whole lines in l->in; false: it is no longer there. */
static bool split(struct line *l)
{
	char *eol, *at = l->in;

	while ((eol = memchr(at, '\n', l->in_n - (size_t)(at - l->in)))) {
		char *next = eol + 1;

		*eol = 0;
		/* a function may close it, but not add to l->in */
		if (!call(l, at))
			return false;
		at = next;
	}
	l->in_n -= (size_t)(at - l->in);
	memmove(l->in, at, l->in_n);
	return true;
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *data)
{
	struct line *l = data;
	ssize_t n;

	(void)source;
	if (events & EPOLLOUT && !flush(l)) {
		lost(l);
		return 0;
	}
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return 0;
	if (l->in_size - l->in_n < 4096) {
		size_t size = l->in_size ? l->in_size * 2 : 8192;
		char *more = size <= LINE_MAX_BYTES * 2 ? realloc(l->in, size) : NULL;

		if (!more) {
			lost(l);
			return 0;
		}
		l->in = more;
		l->in_size = size;
	}
	n = recv(fd, l->in + l->in_n, l->in_size - l->in_n, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		lost(l);
		return 0;
	}
	l->in_n += (size_t)n;
	if (split(l) && l->in_n > LINE_MAX_BYTES)
		lost(l);
	return 0;
}

struct line *line_new(int fd, line_fn fn, void *data)
{
	struct line *l = calloc(1, sizeof(*l));
	int r;

	if (!l) {
		close(fd);
		return NULL;
	}
	l->fd = fd;
	l->fn = fn;
	l->data = data;
	r = sd_event_add_io(agent.loop, &l->source, fd, EPOLLIN, on_io, l);
	if (r < 0) {
		warning("cannot wait for a socket: %s", strerror(-r));
		close(fd);
		free(l);
		return NULL;
	}
	return l;
}

int listen_at(uint16_t number, sd_event_io_handler_t on_accept, char why[WHY_MAX])
{
	int fds[NET_MAX_LISTEN];
	unsigned int nr, i;
	char port[8];

	snprintf(port, sizeof(port), "%u", number);
	nr = net_listen(agent.config->host.listen, port, fds, NULL, why);
	for (i = 0; i < nr; i++)
		sd_event_add_io(agent.loop, NULL, fds[i], EPOLLIN, on_accept, NULL);
	return nr ? 0 : -1;
}

/* --- messages --- */

void msg_begin(struct msg *m)
{
	memset(m, 0, sizeof(*m));
	m->f = open_memstream(&m->text, &m->n);
	if (!m->f) {
		warning("out of memory");
		abort();
	}
	json_init(&m->j, m->f, false);
	json_open(&m->j, NULL, '{');
}

char *msg_end(struct msg *m, size_t *n)
{
	json_close(&m->j);
	if (fclose(m->f)) {
		warning("out of memory");
		abort();
	}
	*n = m->n;
	return m->text;
}

bool msg_send(struct msg *m, struct line *l)
{
	size_t n;
	char *text = msg_end(m, &n), *more;
	bool good = false;

	/* one that has gone hears of it by its event, not here: the caller may be in the middle of something */
	if (l->source && l->out_n + n <= OUT_MAX_BYTES) {
		more = realloc(l->out, l->out_n + n);
		if (more) {
			l->out = more;
			memcpy(l->out + l->out_n, text, n);
			l->out_n += n;
			good = flush(l);
		}
	}
	if (!good && l->source)
		shutdown(l->fd, SHUT_RDWR);
	free(text);
	return good;
}

bool send_all(int fd, const char *text, size_t n)
{
	ssize_t r;

	for (; n; text += r, n -= (size_t)r) {
		r = send(fd, text, n, MSG_NOSIGNAL);
		if (r < 0 && errno != EINTR)
			return false;
		if (r < 0)
			r = 0;
	}
	return true;
}

bool msg_write(struct msg *m, int fd)
{
	size_t n;
	char *text = msg_end(m, &n);
	bool good = send_all(fd, text, n);

	free(text);
	return good;
}

struct json_node *line_read(int fd, struct line_buf *b, uint64_t timeout_ms)
{
	return line_get(line_get_fd, &fd, b, LINE_MAX_BYTES, timeout_ms);
}
