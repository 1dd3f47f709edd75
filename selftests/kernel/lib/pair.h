/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two devices that must not be told apart: the same script is run on each, and writes down what it sees, a line for each
 * answer. Then the lines are compared. Lines that may differ are in a table, with both texts and the reason.
 *
 *	static void script(const char *node) { rec_ret("SET_OWNER", ioctl(fd, VHOST_SET_OWNER)); }
 *	pair_run("owner", nodes, script, cleanup, exceptions, ARRAY_SIZE(exceptions));
 *
 * What is written down must not depend on time: of things that happen in any number, whether they happened.
 */
#ifndef PAIR_H
#define PAIR_H

#include <stddef.h>

/**
 * struct pair_except - lines that may differ
 * @script: name of the script, a pattern of fnmatch()
 * @key: of the line, a pattern
 * @first: what the first device answers, a pattern; NULL: it has no such line
 * @second: what the second one answers, a pattern; NULL: it has no such line
 * @why: the reason
 * @used: how often it was needed
 */
struct pair_except {
	const char *script, *key, *first, *second, *why;
	unsigned int used;
};

/* One line for the device that runs. Also from a child process. */
void rec(const char *key, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Goes before the keys of the lines that follow; NULL: nothing. */
void rec_at(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* What a call returned, -1 as errno's name. Returns @r. */
long rec_ret(const char *key, long r);

void pair_run(const char *name, const char *const node[2], void (*script)(const char *node), void (*cleanup)(void),
	      struct pair_except *ex, size_t nex);

#endif /* PAIR_H */
