// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration: its values as text, and what of two differs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "config_file.h"

const char *config_arg(const struct config_args *a, const char *option)
{
	unsigned int i;

	for (i = 0; option && i < a->nr; i++)
		if (!strncmp(a->arg[i], "--", 2) && !strcmp(a->arg[i] + 2, option))
			return i + 1 < a->nr ? a->arg[i + 1] : "";
	return NULL;
}

static bool option_text(const struct config_key *k, const struct config_args *a, char *buf)
{
	const char *value = config_arg(a, k->option);

	if (k->kind != V_BOOL && value)
		snprintf(buf, CONFIG_VALUE_MAX, "%s", value);
	else if (k->kind == V_BOOL && value)
		strcpy(buf, "yes");
	else if (k->kind == V_BOOL && config_arg(a, k->option_no))
		strcpy(buf, "no");
	else
		return false;
	return true;
}

uint64_t config_number(const struct config_key *k, const void *at)
{
	uint64_t v64;
	uint32_t v32;
	uint16_t v16;

	switch (k->size) {
	case sizeof(v64):
		memcpy(&v64, at, sizeof(v64));
		return v64;
	case sizeof(v32):
		memcpy(&v32, at, sizeof(v32));
		return v32;
	case sizeof(v16):
		memcpy(&v16, at, sizeof(v16));
		return v16;
	default:
		return *(const bool *)at;
	}
}

static void append(char *buf, const char *name)
{
	size_t len = strlen(buf);

	snprintf(buf + len, CONFIG_VALUE_MAX - len, "%s%s", len ? " " : "", name);
}

bool config_value(const struct config_key *k, const void *what, char buf[CONFIG_VALUE_MAX])
{
	const struct config_device *d = what;
	const struct config_guest *g = what;
	const char *at = (const char *)what + k->off;
	unsigned int i;
	uint64_t v;

	*buf = 0;
	if (k->args)
		return option_text(k, (const void *)at, buf);
	switch (k->kind) {
	case V_PEERS:
		for (i = 0; i < d->nr_peers; i++)
			append(buf, d->peers[i]->name);
		return *buf;
	case V_DEVICES:
		for (i = 0; i < g->nr_devices; i++)
			append(buf, g->devices[i]->name);
		return *buf;
	case V_PEER:
		append(buf, g->destination ? g->destination->name : "");
		return *buf;
	case V_LISTEN:
		append(buf, *at ? at : "*");
		return true;
	case V_NAME:
	case V_HOST:
	case V_FILE:
	case V_COMMAND:
	case V_UNIT:
	case V_CLASS:
	case V_TEXT:
		append(buf, at);
		return *buf;
	default:
		break;
	}
	v = config_number(k, at);
	switch (k->kind) {
	case V_BOOL:
		strcpy(buf, v ? "yes" : "no");
		return true;
	case V_CHOICE:
		strcpy(buf, k->names[v]);
		return true;
	case V_RATE:
		snprintf(buf, CONFIG_VALUE_MAX, "%" PRIu64 "bit", v);
		return v;
	case V_TIME:
		if (!v && k->nonzero)
			return false;
		if (!v)
			strcpy(buf, "never");
		else
			snprintf(buf, CONFIG_VALUE_MAX, "%" PRIu64 "%s", v % 1000 ? v : v / 1000, v % 1000 ? "ms" : "s");
		return true;
	case V_TIME_MS:
		snprintf(buf, CONFIG_VALUE_MAX, "%" PRIu64 "ms", v);
		return v;
	default:
		snprintf(buf, CONFIG_VALUE_MAX, "%" PRIu64, v);
		/* 0 is a value where it may be given */
		return v || (k->kind == V_NUM && !k->min);
	}
}

unsigned int config_diff(enum section_kind kind, const void *a, const void *b,
			 void (*fn)(const struct config_key *k, const char *was, const char *is, void *data), void *data)
{
	char was[CONFIG_VALUE_MAX], is[CONFIG_VALUE_MAX];
	const struct config_key *k;
	unsigned int mask = 0;
	bool has_a, has_b;

	for (k = config_keys[kind]; k->name; k++) {
		has_a = config_value(k, a, was);
		has_b = config_value(k, b, is);
		if (has_a == has_b && !strcmp(was, is))
			continue;
		mask |= 1u << k->taken;
		/* a command may hold a password */
		if (fn && k->kind == V_COMMAND)
			fn(k, NULL, NULL, data);
		else if (fn)
			fn(k, has_a ? was : NULL, has_b ? is : NULL, data);
	}
	return mask;
}
