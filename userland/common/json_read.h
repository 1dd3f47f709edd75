/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small JSON reader: a text becomes a tree, whose nodes remember their lines. For files that somebody may have edited: what is
 * not JSON is refused, with line and column; so are keys that come twice, nesting deeper than JSON_READ_DEPTH, objects of
 * more than JSON_READ_MEMBERS members, and strings that hold a NUL or are no UTF-8.
 */
#ifndef IOVM_JSON_READ_H
#define IOVM_JSON_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_READ_DEPTH	16
#define JSON_READ_MEMBERS	256	/* of one object */
#define JSON_READ_ERROR	96

enum json_type {
	JSON_NULL,
	JSON_BOOL,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT,
};

/**
 * struct json_node - a value
 * @type: what it is
 * @line: where it begins, from 1
 * @key: of a member of an object, else NULL
 * @b: JSON_BOOL
 * @whole: JSON_NUMBER: it is in @u64; not so are fractions, exponents, negative and too large numbers
 * @u64: JSON_NUMBER
 * @str: JSON_STRING, without a NUL in it
 * @first: JSON_ARRAY, JSON_OBJECT: what is in it, in order
 * @next: behind it in the same array or object
 */
struct json_node {
	enum json_type type;
	unsigned int line;
	char *key;
	bool b;
	bool whole;
	uint64_t u64;
	char *str;
	struct json_node *first;
	struct json_node *next;
};

/* The tree of a whole text, for json_free(); NULL when it is not JSON or there is no memory: then error says why, with the line. */
struct json_node *json_read(const char *text, size_t n, char error[JSON_READ_ERROR]);
void json_free(struct json_node *node);
const struct json_node *json_member(const struct json_node *object, const char *key);	/* NULL: there is none */
/* What a member is, of an object (NULL and others have none): NULL, false, 0 when there is none, or none of that type. */
const char *member_str(const struct json_node *o, const char *key);
bool member_bool(const struct json_node *o, const char *key);
uint64_t member_u64(const struct json_node *o, const char *key);
const char *json_type_name(enum json_type type);	/* "a string" */

#endif
