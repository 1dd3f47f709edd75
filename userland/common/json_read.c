// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A small JSON reader. See json_read.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "json_read.h"

struct reader {
	const char *p, *end, *line_start;
	unsigned int line, depth;
	char *error;
};

static bool bad(struct reader *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool bad(struct reader *r, const char *fmt, ...)
{
	va_list ap;
	int n;

	/* the first complaint is the one that helps */
	if (*r->error)
		return false;
	n = snprintf(r->error, JSON_READ_ERROR, "line %u, column %zu: ", r->line, (size_t)(r->p - r->line_start) + 1);
	va_start(ap, fmt);
	vsnprintf(r->error + n, (size_t)(JSON_READ_ERROR - n), fmt, ap);
	va_end(ap);
	return false;
}

static void skip_space(struct reader *r)
{
	for (; r->p < r->end; r->p++) {
		if (*r->p == '\n') {
			r->line++;
			r->line_start = r->p + 1;
		} else if (*r->p != ' ' && *r->p != '\t' && *r->p != '\r') {
			return;
		}
	}
}

static bool take(struct reader *r, char c)
{
	skip_space(r);
	if (r->p == r->end)
		return bad(r, "the text ends where '%c' should be", c);
	if (*r->p != c)
		return bad(r, "'%c' should be here", c);
	r->p++;
	return true;
}

static bool next_is(struct reader *r, char c)
{
	skip_space(r);
	return r->p < r->end && *r->p == c;
}

static char *put_utf8(char *to, uint32_t c)
{
	if (c < 0x80) {
		*to++ = (char)c;
	} else if (c < 0x800) {
		*to++ = (char)(0xc0 | c >> 6);
		*to++ = (char)(0x80 | (c & 0x3f));
	} else if (c < 0x10000) {
		*to++ = (char)(0xe0 | c >> 12);
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
		*to++ = (char)(0x80 | (c & 0x3f));
	} else {
		*to++ = (char)(0xf0 | c >> 18);
		*to++ = (char)(0x80 | (c >> 12 & 0x3f));
		*to++ = (char)(0x80 | (c >> 6 & 0x3f));
		*to++ = (char)(0x80 | (c & 0x3f));
	}
	return to;
}

/* The four hexadecimal digits at r->p */
static bool take_hex(struct reader *r, uint32_t *v)
{
	int i;

	*v = 0;
	for (i = 0; i < 4; i++, r->p++) {
		char c = r->p < r->end ? *r->p : 0;

		if (c >= '0' && c <= '9')
			*v = *v << 4 | (uint32_t)(c - '0');
		else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
			*v = *v << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
		else
			return bad(r, "\\u needs four hexadecimal digits");
	}
	return true;
}

/* What follows \u: one character, perhaps written as two surrogates. */
static bool take_unicode(struct reader *r, char **to)
{
	uint32_t c, low;

	if (!take_hex(r, &c))
		return false;
	if (c >= 0xd800 && c < 0xdc00) {
		if (r->end - r->p < 2 || r->p[0] != '\\' || r->p[1] != 'u')
			return bad(r, "half a character");
		r->p += 2;
		if (!take_hex(r, &low))
			return false;
		if (low < 0xdc00 || low >= 0xe000)
			return bad(r, "half a character");
		c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
	} else if (c >= 0xdc00 && c < 0xe000) {
		return bad(r, "half a character");
	}
	if (!c)
		return bad(r, "a string cannot hold a NUL");
	*to = put_utf8(*to, c);
	return true;
}

static bool take_escape(struct reader *r, char **to)
{
	static const char from[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
	const char *at;

	if (r->p == r->end)
		return bad(r, "a string that does not end");
	if (*r->p == 'u') {
		r->p++;
		return take_unicode(r, to);
	}
	at = *r->p ? strchr(from, *r->p) : NULL;
	if (!at)
		return bad(r, "no such escape");
	*(*to)++ = means[at - from];
	r->p++;
	return true;
}

/* No longer than it is written: a character from \u has at most as many bytes as its digits. */
static char *take_string(struct reader *r)
{
	const char *close;
	char *str, *to;
	size_t n;

	if (!take(r, '"'))
		return NULL;
	for (close = r->p; close < r->end && *close != '"'; close++)
		if (*close == '\\' && close + 1 < r->end)
			close++;
	str = malloc((size_t)(close - r->p) + 1);
	if (!str) {
		bad(r, "not enough memory");
		return NULL;
	}
	for (to = str; r->p < r->end && *r->p != '"';) {
		if (*r->p == '\\') {
			r->p++;
			if (!take_escape(r, &to))
				goto fail;
			continue;
		}
		if ((unsigned char)*r->p < 0x20) {
			bad(r, "a string that does not end, or holds a control character");
			goto fail;
		}
		n = json_utf8_len(r->p, (size_t)(r->end - r->p));
		if (!n) {
			bad(r, "bytes that are no UTF-8");
			goto fail;
		}
		memcpy(to, r->p, n);
		to += n;
		r->p += n;
	}
	if (!take(r, '"'))
		goto fail;
	*to = 0;
	return str;
fail:
	free(str);
	return NULL;
}

static bool digits(struct reader *r)
{
	const char *from = r->p;

	while (r->p < r->end && *r->p >= '0' && *r->p <= '9')
		r->p++;
	return r->p > from || bad(r, "a digit should be here");
}

static bool take_number(struct reader *r, struct json_node *node)
{
	const char *from = r->p, *p;

	node->type = JSON_NUMBER;
	node->whole = true;
	if (*r->p == '-') {
		node->whole = false;
		r->p++;
	}
	if (r->p < r->end && *r->p == '0')
		r->p++;
	else if (!digits(r))
		return false;
	for (p = from; node->whole && p < r->p; p++)
		if (__builtin_mul_overflow(node->u64, 10, &node->u64) ||
		    __builtin_add_overflow(node->u64, (uint64_t)(*p - '0'), &node->u64))
			node->whole = false;
	if (r->p < r->end && *r->p == '.') {
		node->whole = false;
		r->p++;
		if (!digits(r))
			return false;
	}
	if (r->p < r->end && (*r->p == 'e' || *r->p == 'E')) {
		node->whole = false;
		r->p++;
		if (r->p < r->end && (*r->p == '+' || *r->p == '-'))
			r->p++;
		return digits(r);
	}
	return true;
}

static bool take_word(struct reader *r, struct json_node *node)
{
	static const struct {
		const char *word;
		enum json_type type;
		bool b;
	} words[] = { { "null", JSON_NULL, false }, { "true", JSON_BOOL, true }, { "false", JSON_BOOL, false } };
	size_t i, n;

	for (i = 0; i < sizeof(words) / sizeof(*words); i++) {
		n = strlen(words[i].word);
		if ((size_t)(r->end - r->p) < n || memcmp(r->p, words[i].word, n))
			continue;
		r->p += n;
		node->type = words[i].type;
		node->b = words[i].b;
		return true;
	}
	return bad(r, "no value begins like this");
}

static bool take_value(struct reader *r, struct json_node *node);

static bool take_key(struct reader *r, const struct json_node *object, struct json_node *member, unsigned int nr)
{
	if (nr > JSON_READ_MEMBERS)
		return bad(r, "an object with more than %d members", JSON_READ_MEMBERS);
	member->key = take_string(r);
	if (!member->key)
		return false;
	if (json_member(object, member->key) != member)
		return bad(r, "\"%.32s\" comes twice", member->key);
	return take(r, ':');
}

/* The members of an object or array that has been opened, up to and with its end */
static bool take_members(struct reader *r, struct json_node *node, char closer)
{
	struct json_node **tail = &node->first, *child;
	unsigned int nr = 0;

	if (r->depth == JSON_READ_DEPTH)
		return bad(r, "nested deeper than %d", JSON_READ_DEPTH);
	r->depth++;
	if (next_is(r, closer))
		goto out;
	for (;;) {
		child = calloc(1, sizeof(*child));
		if (!child)
			return bad(r, "not enough memory");
		*tail = child;
		tail = &child->next;
		if (closer == '}' && !take_key(r, node, child, ++nr))
			return false;
		if (!take_value(r, child))
			return false;
		if (!next_is(r, ','))
			break;
		r->p++;
	}
out:
	r->depth--;
	return take(r, closer);
}

static bool take_value(struct reader *r, struct json_node *node)
{
	skip_space(r);
	node->line = r->line;
	if (r->p == r->end)
		return bad(r, "the text ends where a value should be");
	if (*r->p == '{' || *r->p == '[') {
		node->type = *r->p == '{' ? JSON_OBJECT : JSON_ARRAY;
		return take_members(r, node, *r->p++ == '{' ? '}' : ']');
	}
	if (*r->p == '"') {
		node->type = JSON_STRING;
		node->str = take_string(r);
		return node->str;
	}
	if (*r->p == '-' || (*r->p >= '0' && *r->p <= '9'))
		return take_number(r, node);
	return take_word(r, node);
}

struct json_node *json_read(const char *text, size_t n, char error[JSON_READ_ERROR])
{
	struct reader r = { .p = text, .end = text + n, .line_start = text, .line = 1, .error = error };
	struct json_node *node = calloc(1, sizeof(*node));
	bool good;

	*error = 0;
	if (!node) {
		bad(&r, "not enough memory");
		return NULL;
	}
	good = take_value(&r, node);
	skip_space(&r);
	if (good && r.p != r.end)
		good = bad(&r, "something follows the end");
	if (good)
		return node;
	json_free(node);
	return NULL;
}

void json_free(struct json_node *node)
{
	struct json_node *next;

	for (; node; node = next) {
		next = node->next;
		json_free(node->first);
		free(node->key);
		free(node->str);
		free(node);
	}
}

const struct json_node *json_member(const struct json_node *object, const char *key)
{
	const struct json_node *node;

	for (node = object->first; node; node = node->next)
		if (node->key && !strcmp(node->key, key))
			return node;
	return NULL;
}

static const struct json_node *member_of(const struct json_node *o, const char *key, enum json_type type)
{
	const struct json_node *m = o && o->type == JSON_OBJECT ? json_member(o, key) : NULL;

	return m && m->type == type ? m : NULL;
}

const char *member_str(const struct json_node *o, const char *key)
{
	const struct json_node *m = member_of(o, key, JSON_STRING);

	return m ? m->str : NULL;
}

bool member_bool(const struct json_node *o, const char *key)
{
	const struct json_node *m = member_of(o, key, JSON_BOOL);

	return m && m->b;
}

uint64_t member_u64(const struct json_node *o, const char *key)
{
	const struct json_node *m = member_of(o, key, JSON_NUMBER);

	return m && m->whole ? m->u64 : 0;
}

const char *json_type_name(enum json_type type)
{
	static const char *const names[] = { "null", "true or false", "a number", "a string", "an array", "an object" };

	return names[type];
}
