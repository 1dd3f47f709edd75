// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A small JSON writer. See json.h.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

void json_init(struct json *j, FILE *f, bool pretty)
{
	memset(j, 0, sizeof(*j));
	j->f = f;
	j->pretty = pretty;
}

static void newline(struct json *j)
{
	unsigned int i;

	if (!j->pretty)
		return;
	fputc('\n', j->f);
	for (i = 0; i < j->depth; i++)
		fputs("  ", j->f);
}

size_t json_utf8_len(const char *str, size_t n)
{
	const unsigned char *s = (const unsigned char *)str;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len, i;
	uint32_t c;

	if (s[0] < 0x80)
		return 1;
	if ((s[0] & 0xe0) == 0xc0)
		len = 2;
	else if ((s[0] & 0xf0) == 0xe0)
		len = 3;
	else if ((s[0] & 0xf8) == 0xf0)
		len = 4;
	else
		return 0;
	if (len > n)
		return 0;
	c = s[0] & (0xffu >> (len + 1));
	for (i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	return len;
}

/* Bytes that are not UTF-8 become U+FFFD. */
static void quoted(FILE *f, const char *str, size_t n)
{
	const unsigned char *s = (const unsigned char *)str;
	size_t len;

	fputc('"', f);
	for (; n && *s; s += len, n -= len) {
		len = json_utf8_len((const char *)s, n);
		if (!len) {
			fputs("\\ufffd", f);
			len = 1;
		} else if (*s == '"' || *s == '\\') {
			fprintf(f, "\\%c", *s);
		} else if (*s == '\n') {
			fputs("\\n", f);
		} else if (*s == '\t') {
			fputs("\\t", f);
		} else if (*s < 0x20 || *s == 0x7f) {
			fprintf(f, "\\u%04x", *s);
		} else {
			fwrite(s, 1, len, f);
		}
	}
	fputc('"', f);
}

static void lead(struct json *j, const char *key)
{
	if (j->depth) {
		if (j->some[j->depth - 1])
			fputc(',', j->f);
		j->some[j->depth - 1] = true;
		newline(j);
	}
	if (key) {
		quoted(j->f, key, strlen(key));
		fputs(j->pretty ? ": " : ":", j->f);
	}
}

void json_open(struct json *j, const char *key, char bracket)
{
	if (j->depth == JSON_DEPTH)
		abort();
	lead(j, key);
	fputc(bracket, j->f);
	j->closer[j->depth] = bracket == '{' ? '}' : ']';
	j->some[j->depth++] = false;
}

void json_close(struct json *j)
{
	bool some;

	if (!j->depth)
		abort();
	some = j->some[--j->depth];
	if (some)
		newline(j);
	fputc(j->closer[j->depth], j->f);
	if (!j->depth)
		fputc('\n', j->f);
}

void json_strn(struct json *j, const char *key, const char *s, size_t n)
{
	lead(j, key);
	quoted(j->f, s, n);
}

void json_str(struct json *j, const char *key, const char *s)
{
	if (s)
		json_strn(j, key, s, strlen(s));
	else
		json_null(j, key);
}

void json_u64(struct json *j, const char *key, uint64_t v)
{
	lead(j, key);
	fprintf(j->f, "%" PRIu64, v);
}

void json_s64(struct json *j, const char *key, int64_t v)
{
	lead(j, key);
	fprintf(j->f, "%" PRId64, v);
}

void json_double(struct json *j, const char *key, double v)
{
	lead(j, key);
	fprintf(j->f, "%.2f", v);
}

void json_bool(struct json *j, const char *key, bool v)
{
	lead(j, key);
	fputs(v ? "true" : "false", j->f);
}

void json_null(struct json *j, const char *key)
{
	lead(j, key);
	fputs("null", j->f);
}

void json_raw(struct json *j, const char *key, const char *text)
{
	lead(j, key);
	for (; *text; text++)
		fputc(*text == '\n' ? ' ' : *text, j->f);
}
