// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QMP client. See qmp.h.
 *
 * Commands carry a number as their id, so that the reply to one that was given up is told from the one that is waited for.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "qmp.h"

#define READ_STEP	65536
#define CONNECT_LOOK_MS	20	/* while the socket's backlog is full */

int qmp_why(char *why, size_t n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, n, fmt, ap);
	va_end(ap);
	for (; *why; why++)
		if ((unsigned char)*why < ' ' || *why == 0x7f)
			*why = ' ';
	return -1;
}

static enum qmp_result broken(struct qmp *q, enum qmp_result r)
{
	q->broken = r;
	return r;
}

static int left_ms(uint64_t end)
{
	uint64_t now = ms_now();

	if (now >= end)
		return 0;
	return end - now > 60000 ? 60000 : (int)(end - now);
}

/* ---- reading ---- */

/* Wait until something can be read; with wake, also for wake_fd. */
static enum qmp_result wait_readable(struct qmp *q, uint64_t end, bool wake)
{
	struct pollfd p[2] = { { q->fd, POLLIN, 0 }, { wake ? q->wake_fd : -1, POLLIN, 0 } };
	int r;

	for (;;) {
		r = poll(p, 2, left_ms(end));
		if (r > 0)
			return p[0].revents ? QMP_OK : QMP_WOKEN;
		if (r < 0 && errno != EINTR)
			return broken(q, QMP_BAD);
		if (ms_now() >= end)
			return QMP_TIMEOUT;
	}
}

static enum qmp_result read_more(struct qmp *q, char *why, size_t n)
{
	ssize_t got;
	char *in;

	if (q->in_len == q->in_size) {
		if (q->in_size >= QMP_LINE_MAX) {
			qmp_why(why, n, "the monitor %s sent a line of more than %u MiB", q->addr.sun_path, QMP_LINE_MAX >> 20);
			return broken(q, QMP_BAD);
		}
		in = realloc(q->in, q->in_size ? q->in_size * 2 : READ_STEP);
		if (!in) {
			qmp_why(why, n, "not enough memory for what the monitor %s says", q->addr.sun_path);
			return broken(q, QMP_BAD);
		}
		q->in = in;
		q->in_size = q->in_size ? q->in_size * 2 : READ_STEP;
	}
	got = recv(q->fd, q->in + q->in_len, q->in_size - q->in_len, MSG_DONTWAIT);
	if (got > 0) {
		q->in_len += (size_t)got;
		return QMP_OK;
	}
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return QMP_OK;
	qmp_why(why, n, "the monitor %s closed the connection", q->addr.sun_path);
	return broken(q, QMP_CLOSED);
}

static void forget_line(struct qmp *q, size_t len)
{
	memmove(q->in, q->in + len, q->in_len - len);
	q->in_len -= len;
	q->in_seen = 0;
}

/* The next line as a tree: an object. */
static enum qmp_result read_message(struct qmp *q, uint64_t end, bool wake, struct json_node **msg, char *why, size_t n)
{
	char error[JSON_READ_ERROR];
	enum qmp_result r;
	char *nl;

	for (;;) {
		nl = q->in_len ? memchr(q->in + q->in_seen, '\n', q->in_len - q->in_seen) : NULL;
		if (nl)
			break;
		q->in_seen = q->in_len;
		r = wait_readable(q, end, wake);
		if (r == QMP_BAD)
			qmp_why(why, n, "cannot wait for the monitor %s", q->addr.sun_path);
		if (!r)
			r = read_more(q, why, n);
		if (r)
			return r;
	}
	*msg = json_read(q->in, (size_t)(nl - q->in), error);
	forget_line(q, (size_t)(nl - q->in) + 1);
	if (*msg && (*msg)->type == JSON_OBJECT)
		return QMP_OK;
	qmp_why(why, n, "the monitor %s sent what is no line of QMP (%s); is it in QMP mode, without pretty=on?", q->addr.sun_path,
	    *msg ? "not an object" : error);
	json_free(*msg);
	return broken(q, QMP_BAD);
}

/* ---- events ---- */

static struct json_node *unlink_event(struct qmp *q, struct json_node **at)
{
	struct json_node *event = *at;

	*at = event->next;
	event->next = NULL;
	q->nr_events--;
	return event;
}

static void keep_event(struct qmp *q, struct json_node *event)
{
	struct json_node **at = &q->events;

	if (q->nr_events == QMP_EVENTS_MAX)
		json_free(unlink_event(q, at));
	while (*at)
		at = &(*at)->next;
	*at = event;
	q->nr_events++;
}

static struct json_node *kept_event(struct qmp *q, const char *const *names)
{
	struct json_node **at;
	unsigned int i;

	for (at = &q->events; *at; at = &(*at)->next)
		for (i = 0; names[i]; i++)
			if (!strcmp(qmp_str(*at, "event"), names[i]))
				return unlink_event(q, at);
	return NULL;
}

enum qmp_result qmp_wait_event(struct qmp *q, const char *const *names, unsigned int ms, struct json_node **event,
			       char *why, size_t n)
{
	uint64_t end = ms_now() + ms;
	struct json_node *msg;
	enum qmp_result r;

	for (;;) {
		*event = kept_event(q, names);
		if (*event)
			return QMP_OK;
		if (q->broken) {
			qmp_why(why, n, "the connection to the monitor %s has ended", q->addr.sun_path);
			return q->broken;
		}
		r = read_message(q, end, true, &msg, why, n);
		if (r)
			return r;
		if (*qmp_str(msg, "event"))
			keep_event(q, msg);
		else
			json_free(msg);		/* the reply to a command that was given up */
	}
}

/* ---- commands ---- */

struct json *qmp_command(struct qmp *q, const char *command)
{
	snprintf(q->command, sizeof(q->command), "%s", command);
	fseeko(q->out, 0, SEEK_SET);
	json_init(&q->j, q->out, false);
	json_open(&q->j, NULL, '{');
	json_str(&q->j, "execute", command);
	json_u64(&q->j, "id", ++q->id);
	json_open(&q->j, "arguments", '{');
	return &q->j;
}

static enum qmp_result send_command(struct qmp *q, uint64_t end, char *why, size_t n)
{
	struct pollfd p = { q->fd, POLLOUT, 0 };
	size_t done = 0;
	ssize_t sent;

	while (q->j.depth)
		json_close(&q->j);
	if (fflush(q->out) || ferror(q->out)) {
		qmp_why(why, n, "not enough memory for the command '%s'", q->command);
		return broken(q, QMP_BAD);
	}
	while (done < q->out_len) {
		sent = send(q->fd, q->out_text + done, q->out_len - done, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent >= 0) {
			done += (size_t)sent;
			continue;
		}
		if (errno == EPIPE || errno == ECONNRESET) {
			qmp_why(why, n, "the monitor %s closed the connection", q->addr.sun_path);
			return broken(q, QMP_CLOSED);
		}
		if (errno != EAGAIN && errno != EINTR) {
			qmp_why(why, n, "cannot send '%s' to the monitor %s: %s", q->command, q->addr.sun_path, strerror(errno));
			return broken(q, QMP_BAD);
		}
		poll(&p, 1, left_ms(end));
		if (ms_now() < end)
			continue;
		qmp_why(why, n, "the monitor %s does not take the command '%s'", q->addr.sun_path, q->command);
		return done ? broken(q, QMP_BAD) : QMP_TIMEOUT;
	}
	return QMP_OK;
}

static enum qmp_result take_error(struct qmp *q, const struct json_node *msg, char *why, size_t n)
{
	const struct json_node *error = qmp_object(msg, "error");
	const char *desc = qmp_str(error, "desc");

	snprintf(q->error_class, sizeof(q->error_class), "%s", qmp_str(error, "class"));
	qmp_why(why, n, "QEMU refuses '%s': %s (%s)", q->command, *desc ? desc : "no reason given",
	    *q->error_class ? q->error_class : "no error class");
	return QMP_ERROR;
}

/* Is it the answer to the command that was sent last? An error about what QEMU could not read has no id. */
static bool is_answer(const struct qmp *q, const struct json_node *msg)
{
	const struct json_node *id = json_member(msg, "id");

	return id ? id->type == JSON_NUMBER && id->whole && id->u64 == q->id : !!json_member(msg, "error");
}

static bool is_late_answer(const struct qmp *q, const struct json_node *msg)
{
	const struct json_node *id = json_member(msg, "id");

	return id && id->type == JSON_NUMBER && id->whole && id->u64 && id->u64 < q->id;
}

static enum qmp_result read_answer(struct qmp *q, uint64_t end, struct json_node **answer, char *why, size_t n)
{
	struct json_node *msg;
	enum qmp_result r;

	for (;;) {
		r = read_message(q, end, false, &msg, why, n);
		if (r)
			return r;
		if (*qmp_str(msg, "event")) {
			keep_event(q, msg);
		} else if (is_answer(q, msg)) {
			*answer = msg;
			return QMP_OK;
		} else if (is_late_answer(q, msg)) {
			json_free(msg);
		} else {
			json_free(msg);
			qmp_why(why, n, "the monitor %s answers '%s' with what is no answer to it", q->addr.sun_path, q->command);
			return broken(q, QMP_BAD);
		}
	}
}

enum qmp_result qmp_run(struct qmp *q, unsigned int ms, struct json_node **reply, char *why, size_t n)
{
	uint64_t end = ms_now() + ms;
	struct json_node *msg = NULL, **at;
	enum qmp_result r = q->broken;

	if (reply)
		*reply = NULL;
	if (r) {
		qmp_why(why, n, "the connection to the monitor %s has ended", q->addr.sun_path);
		return r;
	}
	r = send_command(q, end, why, n);
	if (!r)
		r = read_answer(q, end, &msg, why, n);
	if (r == QMP_TIMEOUT)
		qmp_why(why, n, "the monitor %s does not answer '%s' within %u ms", q->addr.sun_path, q->command, ms);
	if (r)
		return r;
	if (json_member(msg, "error")) {
		r = take_error(q, msg, why, n);
	} else if (!json_member(msg, "return")) {
		qmp_why(why, n, "the monitor %s answers '%s' with neither a result nor an error", q->addr.sun_path, q->command);
		r = broken(q, QMP_BAD);
	} else if (reply) {
		for (at = &msg->first; strcmp((*at)->key, "return"); at = &(*at)->next)
			;
		*reply = *at;
		*at = (*at)->next;
		(*reply)->next = NULL;
	}
	json_free(msg);
	return r;
}

enum qmp_result qmp_execute(struct qmp *q, const char *command, unsigned int ms, struct json_node **reply, char *why, size_t n)
{
	qmp_command(q, command);
	return qmp_run(q, ms, reply, why, n);
}

/* ---- the connection ---- */

static enum qmp_result do_connect(struct qmp *q, uint64_t end, char *why, size_t n)
{
	const char *path = q->addr.sun_path;
	struct ucred cred;
	socklen_t len = sizeof(cred);

	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (q->fd < 0) {
		qmp_why(why, n, "cannot make a socket for the monitor %s: %s", path, strerror(errno));
		return broken(q, QMP_BAD);
	}
	while (connect(q->fd, (struct sockaddr *)&q->addr, sizeof(q->addr))) {
		if ((errno == EAGAIN || errno == EINTR) && ms_now() < end) {
			poll(NULL, 0, CONNECT_LOOK_MS);
			continue;
		}
		qmp_why(why, n, "cannot connect to the monitor %s: %s", path, strerror(errno));
		if (errno == EAGAIN)
			return QMP_TIMEOUT;
		return broken(q, errno == ENOENT || errno == ECONNREFUSED ? QMP_CLOSED : QMP_BAD);
	}
	if (!getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		q->pid = cred.pid;
	return QMP_OK;
}

static enum qmp_result read_greeting(struct qmp *q, uint64_t end, char *why, size_t n)
{
	struct json_node *msg;
	enum qmp_result r;
	bool good;

	r = read_message(q, end, false, &msg, why, n);
	if (r == QMP_TIMEOUT)
		qmp_why(why, n, "the monitor %s does not greet: perhaps another program is connected to it, give QEMU one more -qmp socket",
		    q->addr.sun_path);
	if (r)
		return r;
	good = qmp_object(msg, "QMP");
	json_free(msg);
	if (good)
		return QMP_OK;
	qmp_why(why, n, "the monitor %s greets with what is no QMP greeting", q->addr.sun_path);
	return broken(q, QMP_BAD);
}

enum qmp_result qmp_open(struct qmp *q, const char *path, unsigned int ms, char *why, size_t n)
{
	uint64_t end = ms_now() + ms;
	enum qmp_result r;

	memset(q, 0, sizeof(*q));
	q->fd = -1;
	q->wake_fd = -1;
	q->addr.sun_family = AF_UNIX;
	if (strlen(path) >= sizeof(q->addr.sun_path)) {
		qmp_why(why, n, "the monitor's socket %s has a name of more than %zu characters", path, sizeof(q->addr.sun_path) - 1);
		return broken(q, QMP_BAD);
	}
	strcpy(q->addr.sun_path, path);
	q->out = open_memstream(&q->out_text, &q->out_len);
	if (!q->out) {
		qmp_why(why, n, "not enough memory to talk to the monitor %s", path);
		return broken(q, QMP_BAD);
	}
	r = do_connect(q, end, why, n);
	if (!r)
		r = read_greeting(q, end, why, n);
	if (!r)
		r = qmp_execute(q, "qmp_capabilities", (unsigned int)left_ms(end), NULL, why, n);
	if (r)
		qmp_close(q);
	return r;
}

void qmp_close(struct qmp *q)
{
	if (q->fd >= 0)
		close(q->fd);
	if (q->out)
		fclose(q->out);
	free(q->out_text);
	free(q->in);
	json_free(q->events);
	q->fd = -1;
	q->out = NULL;
	q->out_text = NULL;
	q->in = NULL;
	q->in_len = 0;
	q->in_size = 0;
	q->in_seen = 0;
	q->events = NULL;
	q->nr_events = 0;
	if (!q->broken)
		q->broken = QMP_CLOSED;
}

/* ---- looking into trees ---- */

const char *qmp_str(const struct json_node *object, const char *key)
{
	return member_str(object, key) ?: "";
}

uint64_t qmp_u64(const struct json_node *object, const char *key)
{
	return member_u64(object, key);
}

const struct json_node *qmp_object(const struct json_node *object, const char *key)
{
	const struct json_node *node = object && object->type == JSON_OBJECT ? json_member(object, key) : NULL;

	return node && node->type == JSON_OBJECT ? node : NULL;
}
