/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asking iovmd, on its unix socket: one request, then answers, a JSON object a line.
 */
#ifndef IOVMCTL_AGENT_H
#define IOVMCTL_AGENT_H

#include "iovmctl.h"
#include "../common/json_read.h"

#define AGENT_SOCKET	"/run/iovm/iovmd.sock"

extern const char *agent_socket;	/* --socket */

#define OPT_AGENT_SOCKET									\
	{ "socket", 0, OPT_STR, &agent_socket, "FILE", "Where iovmd listens. Default " AGENT_SOCKET ".", 0, 0 }

/**
 * struct agent_talk - a request under way
 * @fd: the socket
 * @in: what came and was not taken yet
 */
struct agent_talk {
	int fd;
	char *in;
	size_t n, size;
};

/* Does it answer at its socket? Nothing is said. */
bool agent_runs(void);
/* Connects and sends {"id":1,"op":op, and the members that rest (may be NULL) writes}. An exit code, explained. */
int agent_ask(struct agent_talk *t, const char *op, void (*rest)(struct json *j));
/* The next answer, for json_free(); NULL: an exit code in *code, explained. *text, when not NULL: as it came, until the next call. */
struct json_node *agent_answer(struct agent_talk *t, const char **text, int *code);
void agent_end(struct agent_talk *t);

/*
 * Asks as agent_ask() does, and follows what comes of it: with --json all of it is printed; else show is called for each answer but the
 * last, the one with "ok", and end for that, in both cases. An exit code: what end says, or explained.
 */
int agent_follow(const char *op, void (*rest)(struct json *j), void (*show)(const struct json_node *o), int (*end)(const struct json_node *o));

/* As member_str(), but "" for what is not there */
const char *get_str(const struct json_node *o, const char *key);

#endif /* IOVMCTL_AGENT_H */
