// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Field tables to aligned text or JSON: each field of a struct is described once.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "iovmctl.h"

#define CELL	320

/* v / unit with as many decimals as make three digits, without trailing zeroes */
static void scaled(char *buf, size_t n, double v, const char *unit)
{
	int decimals = v < 10 ? 2 : v < 100 ? 1 : 0;
	char num[64];
	size_t len;

	snprintf(num, sizeof(num), "%.*f", decimals, v);
	len = strlen(num);
	while (decimals && num[len - 1] == '0')
		num[--len] = 0;
	if (num[len - 1] == '.')
		num[--len] = 0;
	snprintf(buf, n, "%s%s", num, unit);
}

void text_size(char *buf, size_t n, uint64_t bytes)
{
	static const char *const unit[] = { "B", "K", "M", "G", "T", "P", "E" };
	unsigned int i = 0;
	double v = (double)bytes;

	for (; v >= 1024 && i < 6; i++)
		v /= 1024;
	scaled(buf, n, v, unit[i]);
}

void text_ms(char *buf, size_t n, uint64_t ms)
{
	uint64_t s = ms / 1000;

	if (ms < 1000)
		snprintf(buf, n, "%" PRIu64 "ms", ms);
	else if (s < 60)
		scaled(buf, n, (double)ms / 1000, "s");
	else if (s < 3600 && s % 60)
		snprintf(buf, n, "%" PRIu64 "min%" PRIu64 "s", s / 60, s % 60);
	else if (s < 3600)
		snprintf(buf, n, "%" PRIu64 "min", s / 60);
	else if (s % 3600 / 60)
		snprintf(buf, n, "%" PRIu64 "h%" PRIu64 "min", s / 3600, s % 3600 / 60);
	else
		snprintf(buf, n, "%" PRIu64 "h", s / 3600);
}

void text_ns(char *buf, size_t n, uint64_t ns)
{
	static const char *const unit[] = { "ns", "us", "ms", "s" };
	unsigned int i = 0;
	double v = (double)ns;

	for (; v >= 1000 && i < 3; i++)
		v /= 1000;
	scaled(buf, n, v, unit[i]);
}

const char *name_of(const char *const *names, uint32_t v)
{
	uint32_t i;

	for (i = 0; names[i]; i++)
		if (i == v)
			return names[i];
	return NULL;
}

static uint64_t number(const struct field *f, const void *base)
{
	const char *p = (const char *)base + f->off;
	uint64_t v64;
	uint32_t v32;

	switch (f->kind) {
	case F_U64:
	case F_HEX64:
	case F_SIZE:
	case F_RATE:
	case F_MS:
	case F_NS:
		memcpy(&v64, p, sizeof(v64));
		return v64;
	case F_SECTORS:
		memcpy(&v64, p, sizeof(v64));
		return v64 * 512;
	case F_SECTORS32:
		memcpy(&v32, p, sizeof(v32));
		return (uint64_t)v32 * 512;
	default:
		memcpy(&v32, p, sizeof(v32));
		return v32;
	}
}

void field_text(const struct field *f, const void *base, char *buf, size_t n)
{
	const char *p = (const char *)base + f->off, *s;
	uint64_t v;

	if (f->kind == F_STR || f->kind == F_SERIAL) {
		if (*p)
			snprintf(buf, n, "%.*s", f->kind == F_SERIAL ? IOVM_SERIAL_MAX : CELL - 1, p);
		else
			snprintf(buf, n, "%s", f->zero ? f->zero : "-");
		return;
	}
	v = number(f, base);
	if (!v && f->zero) {
		snprintf(buf, n, "%s", f->zero);
		return;
	}
	switch (f->kind) {
	case F_HEX64:
		snprintf(buf, n, "0x%" PRIx64, v);
		break;
	case F_BOOL32:
		snprintf(buf, n, "%s", v ? "yes" : "no");
		break;
	case F_ERR:
		s = v ? strerrorname_np(-(int32_t)v) : "none";
		if (s && v)
			snprintf(buf, n, "%s (%s)", s, strerror(-(int32_t)v));
		else
			snprintf(buf, n, "%s", s ? s : "unknown");
		break;
	case F_SIZE:
	case F_SIZE32:
	case F_SECTORS:
	case F_SECTORS32:
		text_size(buf, n, v);
		break;
	case F_RATE:
		format_rate(buf, n, v);
		break;
	case F_MS:
	case F_MS32:
		text_ms(buf, n, v);
		break;
	case F_NS:
		text_ns(buf, n, v);
		break;
	case F_ENUM:
		s = name_of(f->names, (uint32_t)v);
		if (s)
			snprintf(buf, n, "%s", s);
		else
			snprintf(buf, n, "unknown-%" PRIu64, v);
		break;
	default:
		snprintf(buf, n, "%" PRIu64, v);
	}
}

static void field_json(struct json *j, const struct field *f, const void *base)
{
	const char *p = (const char *)base + f->off;
	uint64_t v;

	if (f->kind == F_STR || f->kind == F_SERIAL) {
		if (*p)
			json_strn(j, f->key, p, f->kind == F_SERIAL ? IOVM_SERIAL_MAX : CELL - 1);
		else
			json_null(j, f->key);
		return;
	}
	v = number(f, base);
	switch (f->kind) {
	case F_BOOL32:
		json_bool(j, f->key, v);
		break;
	case F_ERR:
		json_str(j, f->key, v ? strerrorname_np(-(int32_t)v) : NULL);
		break;
	case F_ENUM:
		json_str(j, f->key, name_of(f->names, (uint32_t)v));
		break;
	default:
		json_u64(j, f->key, v);
	}
}

void fields_json(struct json *j, const struct field *f, const void *base)
{
	for (; f->key || f->label; f++)
		if (f->key)
			field_json(j, f, base);
}

void fields_json_array(struct json *j, const char *key, const struct field *f, const void *rows, size_t nr,
		       size_t stride)
{
	size_t i;

	json_open(j, key, '[');
	for (i = 0; i < nr; i++) {
		json_open(j, NULL, '{');
		fields_json(j, f, (const char *)rows + i * stride);
		json_close(j);
	}
	json_close(j);
}

void fields_text(const struct field *f, const void *base, unsigned int indent)
{
	const struct field *g;
	char cell[CELL];
	int width = 0;

	for (g = f; g->key || g->label; g++)
		if (g->label && (int)strlen(g->label) > width)
			width = (int)strlen(g->label);
	for (g = f; g->key || g->label; g++) {
		if (!g->label)
			continue;
		field_text(g, base, cell, sizeof(cell));
		printf("%*s%s:%*s %s\n", (int)indent, "", g->label, width - (int)strlen(g->label), "", cell);
	}
}

/* Numbers are easier to compare when their ends are below each other. */
static bool right_aligned(const struct field *f)
{
	return f->kind != F_STR && f->kind != F_SERIAL && f->kind != F_ENUM && f->kind != F_ERR && f->kind != F_BOOL32;
}

void fields_table(const struct field *f, const void *rows, size_t nr, size_t stride)
{
	const struct field *g, *last = NULL;
	int width[64], len, c;
	char cell[CELL];
	size_t i;

	for (c = 0, g = f; g->key || g->label; g++) {
		if (!g->col || c == 64)
			continue;
		last = g;
		width[c] = (int)strlen(g->col);
		for (i = 0; i < nr; i++) {
			field_text(g, (const char *)rows + i * stride, cell, sizeof(cell));
			len = (int)strlen(cell);
			if (len > width[c])
				width[c] = len;
		}
		c++;
	}
	for (i = 0; i <= nr; i++) {
		for (c = 0, g = f; g->key || g->label; g++) {
			if (!g->col || c == 64)
				continue;
			if (i)
				field_text(g, (const char *)rows + (i - 1) * stride, cell, sizeof(cell));
			else
				snprintf(cell, sizeof(cell), "%s", g->col);
			len = right_aligned(g) ? width[c] : g == last ? 0 : -width[c];
			printf("%*s%s", len, cell, g == last ? "\n" : "  ");
			c++;
		}
	}
}
