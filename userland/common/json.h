/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small JSON writer: knows where commas go and escapes strings; what it writes is valid whatever the input.
 *
 * Every call takes the key of the value inside an object, or NULL inside an array and at the top.
 */
#ifndef IOVM_JSON_H
#define IOVM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH	16

/* Bytes of the well-formed UTF-8 character at s, at most n; 0 when it is not one. */
size_t json_utf8_len(const char *s, size_t n);

struct json {
	FILE *f;
	bool pretty;		/* two blanks of indentation; else one line */
	unsigned int depth;
	char closer[JSON_DEPTH];
	bool some[JSON_DEPTH];	/* something was written at this depth */
};

void json_init(struct json *j, FILE *f, bool pretty);
void json_open(struct json *j, const char *key, char bracket);	/* '{' or '[' */
void json_close(struct json *j);				/* the innermost; a newline after the last */
void json_str(struct json *j, const char *key, const char *s);	/* NULL: null */
void json_strn(struct json *j, const char *key, const char *s, size_t n);	/* until NUL, at most n bytes */
void json_u64(struct json *j, const char *key, uint64_t v);
void json_s64(struct json *j, const char *key, int64_t v);
void json_double(struct json *j, const char *key, double v);	/* two decimals */
void json_bool(struct json *j, const char *key, bool v);
void json_null(struct json *j, const char *key);
/* A text that is one JSON value already; its line ends become blanks. */
void json_raw(struct json *j, const char *key, const char *text);

#endif
