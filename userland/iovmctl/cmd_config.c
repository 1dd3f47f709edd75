// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * config check, config show: iovmd's configuration, read as iovmd reads it. Needs neither module nor agent.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovmctl.h"
#include "../iovmd/config_file.h"

#define VALUE_MAX	CONFIG_VALUE_MAX

static const char *opt_dir = CONFIG_DIR;

static const struct opt config_opts[] = {
	{ "dir", 'd', OPT_STR, &opt_dir, "DIR", "Its *.conf are read too, by name; \"\": none. Default\n" CONFIG_DIR ".", 0, 0 },
	{ 0 }
};

/* --- mistakes --- */

static void mistakes_json(const struct config_errors *errs, unsigned int kept)
{
	unsigned int i;
	struct json j;

	json_init(&j, stderr, false);
	json_open(&j, NULL, '{');
	json_str(&j, "error", "the configuration has mistakes");
	json_null(&j, "errno");
	json_null(&j, "hint");
	json_u64(&j, "exit", EX_REFUSED);
	json_u64(&j, "mistakes_total", errs->nr);
	json_open(&j, "mistakes", '[');
	for (i = 0; i < kept; i++) {
		json_open(&j, NULL, '{');
		json_str(&j, "file", errs->e[i].at.file);
		if (errs->e[i].at.line)
			json_u64(&j, "line", errs->e[i].at.line);
		else
			json_null(&j, "line");
		json_str(&j, "text", errs->e[i].text);
		json_str(&j, "hint", *errs->e[i].remedy ? errs->e[i].remedy : NULL);
		json_close(&j);
	}
	json_close(&j);
	json_close(&j);
}

static void mistakes_text(const struct config_errors *errs, unsigned int kept)
{
	unsigned int i;

	for (i = 0; i < kept; i++) {
		const struct config_error *e = &errs->e[i];

		if (e->at.line)
			fprintf(stderr, "%s:%u: %s\n", e->at.file, e->at.line, e->text);
		else
			fprintf(stderr, "%s: %s\n", e->at.file, e->text);
		if (*e->remedy)
			fprintf(stderr, "  hint: %s\n", e->remedy);
	}
	if (errs->nr > kept)
		fprintf(stderr, "and %u more\n", errs->nr - kept);
}

/* The configuration that argv names; a failure has been explained. */
static int take_config(int argc, char **argv, struct config **c)
{
	const char *file = argc ? argv[0] : CONFIG_FILE;
	static struct config_errors errs;
	unsigned int kept;

	if (access(file, F_OK) && errno == ENOENT)
		return fail(EX_NOT_FOUND, "iovmd.conf(5) says what belongs in it", "there is no '%s'", file);
	*c = config_read(file, opt_dir, &errs);
	if (*c)
		return EX_DONE;
	kept = errs.nr < CONFIG_MAX_ERRORS ? errs.nr : CONFIG_MAX_ERRORS;
	if (opt_json)
		mistakes_json(&errs, kept);
	else
		mistakes_text(&errs, kept);
	config_errors_free(&errs);
	return EX_REFUSED;
}

/* --- show --- */

static void put_value(const char *s)
{
	size_t len = strlen(s);

	/* values are not empty */
	if (!strchr("\" \t", *s) && !strchr(" \t", s[len - 1]) && !strstr(s, " #") && !strstr(s, "\t#")) {
		fputs(s, stdout);
		return;
	}
	putchar('"');
	for (; *s; s++)
		printf("%s%c", *s == '"' || *s == '\\' ? "\\" : "", *s);
	putchar('"');
}

static void section_text(enum section_kind kind, const char *name, const void *what)
{
	const struct config_key *k;
	char buf[VALUE_MAX];

	printf("%s[%s%s%s]\n", kind == SECTION_HOST ? "" : "\n", section_names[kind], *name ? " " : "", name);
	for (k = config_keys[kind]; k->name; k++) {
		/* defaults of QMP do not go with a command */
		if (!config_value(k, what, buf) || (k->ways && !(k->ways & 1u << config_way(what))))
			continue;
		printf("%s = ", k->name);
		put_value(buf);
		putchar('\n');
	}
}

/* "max-downtime" as "max_downtime_ms" */
static const char *json_key(const struct config_key *k, char buf[64])
{
	char *p;

	snprintf(buf, 64, "%s%s", k->name, k->kind == V_TIME || k->kind == V_TIME_MS ? "-ms" : k->kind == V_RATE ? "-bits" :
		 k->kind == V_SIZE ? "-bytes" : "");
	for (p = buf; *p; p++)
		if (*p == '-')
			*p = '_';
	return buf;
}

static void member_json(struct json *j, const struct config_key *k, const void *what)
{
	const struct config_device *d = what;
	const struct config_guest *g = what;
	char buf[VALUE_MAX], key[64];
	bool some = config_value(k, what, buf);
	unsigned int i;

	json_key(k, key);
	switch (k->kind) {
	case V_PEERS:
		json_open(j, key, '[');
		for (i = 0; i < d->nr_peers; i++)
			json_str(j, NULL, d->peers[i]->name);
		json_close(j);
		break;
	case V_DEVICES:
		json_open(j, key, '[');
		for (i = 0; i < g->nr_devices; i++)
			json_str(j, NULL, g->devices[i]->name);
		json_close(j);
		break;
	case V_BOOL:
		json_bool(j, key, config_number(k, (const char *)what + k->off));
		break;
	case V_PORT:
	case V_NUM:
	case V_SIZE:
	case V_RATE:
	case V_TIME:
	case V_TIME_MS:
		json_u64(j, key, config_number(k, (const char *)what + k->off));
		break;
	default:
		json_str(j, key, some ? buf : NULL);
	}
}

static void section_json(struct json *j, const char *key, enum section_kind kind, const char *name, const void *what)
{
	const struct config_key *k;
	char buf[VALUE_MAX];

	json_open(j, key, '{');
	if (*name)
		json_str(j, "name", name);
	for (k = config_keys[kind]; k->name; k++)
		if (!k->args)
			member_json(j, k, what);
	if (kind == SECTION_DEVICE) {
		json_open(j, "options", '{');
		for (k = config_keys[kind]; k->name; k++)
			if (k->args && config_value(k, what, buf))
				json_str(j, k->name, buf);
		json_close(j);
	}
	json_close(j);
}

static void show_json(const struct config *c)
{
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;
	struct json j;

	json_init(&j, stdout, true);
	json_open(&j, NULL, '{');
	section_json(&j, "host", SECTION_HOST, "", &c->host);
	json_open(&j, "peers", '[');
	for (p = c->peers; p; p = p->next)
		section_json(&j, NULL, SECTION_PEER, p->name, p);
	json_close(&j);
	json_open(&j, "devices", '[');
	for (d = c->devices; d; d = d->next)
		section_json(&j, NULL, SECTION_DEVICE, d->name, d);
	json_close(&j);
	json_open(&j, "guests", '[');
	for (g = c->guests; g; g = g->next)
		section_json(&j, NULL, SECTION_GUEST, g->name, g);
	json_close(&j);
	json_close(&j);
}

static int run_show(int argc, char **argv)
{
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;
	struct config *c;
	int code;

	code = take_config(argc, argv, &c);
	if (code)
		return code;
	if (opt_json) {
		show_json(c);
	} else {
		section_text(SECTION_HOST, "", &c->host);
		for (p = c->peers; p; p = p->next)
			section_text(SECTION_PEER, p->name, p);
		for (d = c->devices; d; d = d->next)
			section_text(SECTION_DEVICE, d->name, d);
		for (g = c->guests; g; g = g->next)
			section_text(SECTION_GUEST, g->name, g);
	}
	config_free(c);
	return EX_DONE;
}

const struct cmd cmd_config_show = {
	.name = "config show", .args = "[FILE]", .summary = "Print iovmd's configuration with what is so by default.",
	.detail =
	"FILE and DIR as in 'config check'. What is printed can be read again; options of 'iovmctl create' and 'path add'\n"
	"are there when they are given.\n",
	.opts = config_opts, .min_args = 0, .max_args = 1, .run = run_show,
};

/* --- check --- */

/* "b, c", and how many */
static unsigned int names_text(char buf[VALUE_MAX], const char *name, unsigned int nr)
{
	size_t len = strlen(buf);

	snprintf(buf + len, VALUE_MAX - len, "%s%s", len ? ", " : "", name);
	return nr + 1;
}

static void summary_text(const struct config *c)
{
	char peers[VALUE_MAX] = "", devices[VALUE_MAX] = "", guests[VALUE_MAX] = "";
	unsigned int np = 0, nd = 0, ng = 0;
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;

	for (p = c->peers; p; p = p->next)
		np = names_text(peers, p->name, np);
	for (d = c->devices; d; d = d->next)
		nd = names_text(devices, d->name, nd);
	for (g = c->guests; g; g = g->next)
		ng = names_text(guests, g->name, ng);
	printf("host %s: no mistake found, transport %s\n", c->host.name, c->host.plain_tcp ? "plain-tcp" : "tls");
	printf("  peers:    %u%s%s\n", np, np ? ": " : "", peers);
	printf("  devices:  %u%s%s\n", nd, nd ? ": " : "", devices);
	printf("  guests:   %u%s%s\n", ng, ng ? ": " : "", guests);
}

static void summary_json(const struct config *c)
{
	const struct config_device *d;
	const struct config_guest *g;
	const struct config_peer *p;
	struct json j;

	json_init(&j, stdout, true);
	json_open(&j, NULL, '{');
	json_str(&j, "host", c->host.name);
	json_str(&j, "transport", c->host.plain_tcp ? "plain-tcp" : "tls");
	json_open(&j, "peers", '[');
	for (p = c->peers; p; p = p->next)
		json_str(&j, NULL, p->name);
	json_close(&j);
	json_open(&j, "devices", '[');
	for (d = c->devices; d; d = d->next)
		json_str(&j, NULL, d->name);
	json_close(&j);
	json_open(&j, "guests", '[');
	for (g = c->guests; g; g = g->next)
		json_str(&j, NULL, g->name);
	json_close(&j);
	json_close(&j);
}

static int run_check(int argc, char **argv)
{
	struct config *c;
	int code;

	code = take_config(argc, argv, &c);
	if (code)
		return code;
	if (opt_json)
		summary_json(c);
	else
		summary_text(c);
	config_free(c);
	return EX_DONE;
}

const struct cmd cmd_config_check = {
	.name = "config check", .args = "[FILE]", .summary = "Look for mistakes in iovmd's configuration.",
	.detail =
	"Reads FILE, " CONFIG_FILE " if none is given, and the files of DIR, as iovmd would. Every mistake is\n"
	"named with its file and line, and with what to do; the exit status is 4 then. Nothing else is looked at: neither\n"
	"disks, sockets and programs that are named, nor other hosts. See iovmd.conf(5).\n",
	.opts = config_opts, .min_args = 0, .max_args = 1, .run = run_check,
};
