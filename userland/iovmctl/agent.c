// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Asking iovmd. See agent.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent.h"

#define ANSWER_MAX	(16u << 20)

const char *agent_socket = AGENT_SOCKET;

/* A descriptor, or -1 and errno. */
static int try(const char *file)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, err;

	if (strlen(file) >= sizeof(a.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(a.sun_path, file);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (void *)&a, sizeof(a)))
		return fd;
	err = errno;
	if (fd >= 0)
		close(fd);
	errno = err;
	return -1;
}

bool agent_runs(void)
{
	int fd = try(agent_socket);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static int connect_to(const char *file)
{
	int fd = try(file), err = errno;

	if (fd >= 0)
		return fd;
	if (err == ENAMETOOLONG)
		return -fail(EX_USAGE_ERR, NULL, "--socket: '%s' is no name for a unix socket", file);
	return -fail(EX_NO_ACCESS, err == EACCES ? "run it as root: sudo iovmctl ..." :
		     "is iovmd running? 'systemctl status iovmd' tells", "cannot reach iovmd at '%s': %s", file, strerror(err));
}

int agent_ask(struct agent_talk *t, const char *op, void (*rest)(struct json *j))
{
	char *text = NULL;
	struct json j;
	size_t n = 0;
	FILE *f;
	int code = EX_DONE;

	memset(t, 0, sizeof(*t));
	t->fd = connect_to(agent_socket);
	if (t->fd < 0)
		return -t->fd;
	f = open_memstream(&text, &n);
	if (!f)
		return fail(EX_FAILED, NULL, "out of memory");
	json_init(&j, f, false);
	json_open(&j, NULL, '{');
	json_u64(&j, "id", 1);
	json_str(&j, "op", op);
	if (rest)
		rest(&j);
	json_close(&j);
	fclose(f);
	if (send(t->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
		code = fail(EX_NO_ACCESS, NULL, "iovmd has hung up: %s", strerror(errno));
	free(text);
	return code;
}

struct json_node *agent_answer(struct agent_talk *t, const char **text, int *code)
{
	static char *line;
	char error[JSON_READ_ERROR], *eol, *more;
	struct json_node *o;
	ssize_t got;

	while (!(eol = t->n ? memchr(t->in, '\n', t->n) : NULL)) {
		if (t->size - t->n < 4096) {
			more = t->size < ANSWER_MAX ? realloc(t->in, t->size + 65536) : NULL;
			if (!more) {
				*code = fail(EX_FAILED, NULL, "iovmd's answer is too long");
				return NULL;
			}
			t->in = more;
			t->size += 65536;
		}
		got = recv(t->fd, t->in + t->n, t->size - t->n, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			*code = fail(EX_FAILED, "what was begun goes on or is taken up by the next iovmd: see 'iovmctl status'",
				     "iovmd has ended");
			return NULL;
		}
		t->n += (size_t)got;
	}
	free(line);
	line = strndup(t->in, (size_t)(eol - t->in));
	t->n -= (size_t)(eol + 1 - t->in);
	memmove(t->in, eol + 1, t->n);
	o = line ? json_read(line, strlen(line), error) : NULL;
	if (!o || o->type != JSON_OBJECT) {
		json_free(o);
		*code = fail(EX_FAILED, NULL, "iovmd's answer is not understood");
		return NULL;
	}
	if (text)
		*text = line;
	return o;
}

void agent_end(struct agent_talk *t)
{
	close(t->fd);
	free(t->in);
}

int agent_follow(const char *op, void (*rest)(struct json *j), void (*show)(const struct json_node *o), int (*end)(const struct json_node *o))
{
	struct agent_talk t;
	struct json_node *o;
	const char *text;
	bool last = false;
	int code = agent_ask(&t, op, rest);

	while (!code && !last) {
		o = agent_answer(&t, &text, &code);
		if (!o)
			return code;
		last = json_member(o, "ok");
		if (opt_json) {
			puts(text);
			fflush(stdout);
		}
		if (last) {
			code = end(o);
			agent_end(&t);
		} else if (!opt_json) {
			show(o);
		}
		json_free(o);
	}
	return code;
}

const char *get_str(const struct json_node *o, const char *key)
{
	return member_str(o, key) ?: "";
}
