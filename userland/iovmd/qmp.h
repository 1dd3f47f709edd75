/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A QMP client: one connection to one QEMU's monitor socket, blocking, every call with a time limit.
 *
 *	struct qmp q;
 *	struct json_node *reply;
 *
 *	if (qmp_open(&q, "/run/vm1.qmp", 5000, why, sizeof(why)))
 *		return ...;
 *	json_str(qmp_command(&q, "migrate"), "uri", "tcp:192.0.2.7:7100");
 *	if (qmp_run(&q, 5000, &reply, why, sizeof(why)))
 *		...
 *	json_free(reply);
 *	qmp_close(&q);
 *
 * What comes from the socket is not trusted: a line has at most QMP_LINE_MAX bytes, at most QMP_EVENTS_MAX events are kept, and
 * what is no QMP breaks the connection. Every failure leaves a sentence in why.
 */
#ifndef IOVMD_QMP_H
#define IOVMD_QMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/un.h>

#include "../common/clock.h"
#include "../common/json.h"
#include "../common/json_read.h"

#define QMP_LINE_MAX	(4u << 20)
#define QMP_EVENTS_MAX	256		/* the oldest is dropped */
#define QMP_WHY		512		/* bytes that a sentence needs */

enum qmp_result {
	QMP_OK,
	QMP_ERROR,	/* QEMU's answer is an error; qmp.error_class */
	QMP_TIMEOUT,	/* the connection is still good: a reply that comes later is passed over */
	QMP_WOKEN,	/* qmp_wait_event(): wake_fd is readable */
	QMP_CLOSED,	/* nobody listens, or the connection has ended; qmp_open() can tell whether QEMU is there */
	QMP_BAD,	/* what came is no QMP, or there is no memory: the connection is of no use any more */
};

/**
 * struct qmp - a connection
 * @fd: the socket, -1 when it is not open
 * @wake_fd: ends qmp_wait_event() when it is readable; -1 (after qmp_open()): none
 * @pid: of the process that listens on the socket, QEMU's own unless somebody passed it the socket; 0 unknown
 * @broken: QMP_OK, or why the connection is of no use: QMP_CLOSED or QMP_BAD
 * @error_class: of the last QMP_ERROR, "CommandNotFound" for instance
 *
 * The other members belong to qmp.c.
 */
struct qmp {
	int fd;
	int wake_fd;
	pid_t pid;
	enum qmp_result broken;
	char error_class[32];

	struct sockaddr_un addr;
	char *in;
	size_t in_len, in_size, in_seen;
	FILE *out;
	char *out_text;
	size_t out_len;
	struct json j;
	char command[48];
	uint64_t id;
	struct json_node *events;
	unsigned int nr_events;
};


/* A sentence of one line, whatever QEMU puts into its messages; -1. n is at least 1. */
int qmp_why(char *why, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * Connect, read the greeting, leave the negotiation. QMP_CLOSED: nobody listens there. Whatever is returned, qmp_close() may
 * follow, and must follow QMP_OK; no command goes to what is closed.
 */
enum qmp_result qmp_open(struct qmp *q, const char *path, unsigned int ms, char *why, size_t n);
void qmp_close(struct qmp *q);

/* Begin a command: what is written to the returned JSON becomes its arguments. */
struct json *qmp_command(struct qmp *q, const char *command);
/* Send it and wait for the answer. reply may be NULL; else, on QMP_OK, *reply is what was returned, for json_free(). */
enum qmp_result qmp_run(struct qmp *q, unsigned int ms, struct json_node **reply, char *why, size_t n);
/* Both, for a command without arguments. */
enum qmp_result qmp_execute(struct qmp *q, const char *command, unsigned int ms, struct json_node **reply, char *why, size_t n);

/*
 * The oldest event with one of these names (ends with NULL), whether it came before or comes within ms; for json_free(). Events
 * with other names stay. QMP_TIMEOUT, without a sentence, is no failure.
 */
enum qmp_result qmp_wait_event(struct qmp *q, const char *const *names, unsigned int ms, struct json_node **event,
			       char *why, size_t n);

/* A member of an object that is a string or a whole number, else "" or 0; object may be NULL. */
const char *qmp_str(const struct json_node *object, const char *key);
uint64_t qmp_u64(const struct json_node *object, const char *key);
/* A member that is an object, else NULL. */
const struct json_node *qmp_object(const struct json_node *object, const char *key);

#endif
