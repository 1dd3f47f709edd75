// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Options: a table per command gives the parsing and the help text.
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "iovmctl.h"

#define MAX_OPTS	32
#define HELP_COLUMN	28

bool opt_json;

static bool opt_wants_help;

static const struct opt common_opts[] = {
	{ "json", 'j', OPT_FLAG, &opt_json, NULL, "Print JSON; errors are a JSON object on stderr.", 0, 0 },
	{ "help", 'h', OPT_FLAG, &opt_wants_help, NULL, "Show this help.", 0, 0 },
	{ 0 }
};

static void print_opt(const struct opt *o, FILE *f)
{
	const char *line = o->help, *nl;
	int col;

	if (o->letter)
		col = fprintf(f, "  -%c, --%s", o->letter, o->name);
	else
		col = fprintf(f, "      --%s", o->name);
	if (o->arg)
		col += fprintf(f, " %s", o->arg);
	if (col + 2 > HELP_COLUMN) {
		fputc('\n', f);
		col = 0;
	}
	for (; line; line = nl ? nl + 1 : NULL) {
		nl = strchr(line, '\n');
		fprintf(f, "%*s%.*s\n", HELP_COLUMN - col, "", nl ? (int)(nl - line) : (int)strlen(line), line);
		col = 0;
	}
}

void opt_help(const struct cmd *cmd, FILE *f)
{
	const struct opt *o;

	fprintf(f, "Usage: iovmctl %s%s%s [OPTIONS]\n\n%s\n", cmd->name, *cmd->args ? " " : "", cmd->args,
		cmd->summary);
	if (cmd->detail)
		fprintf(f, "\n%s", cmd->detail);
	fputs("\nOptions:\n", f);
	for (o = cmd->opts; o && o->name; o++)
		print_opt(o, f);
	for (o = common_opts; o->name; o++)
		print_opt(o, f);
}

static int set_value(const struct cmd *cmd, const struct opt *o, const char *arg)
{
	struct opt_u64 *n = o->dst;
	const char *err = NULL;
	uint64_t v = 0;

	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)o->dst = true;
		return 0;
	case OPT_STR:
		*(const char **)o->dst = arg;
		return 0;
	case OPT_NUM:
	case OPT_COUNT:
		err = parse_count(arg, &v);
		break;
	case OPT_SIZE:
		err = parse_size(arg, &v);
		break;
	case OPT_RATE:
		err = parse_rate(arg, &v);
		break;
	case OPT_TIME:
		err = parse_duration(arg, 1000, &v);
		break;
	case OPT_TIME_MS:
		err = parse_duration(arg, 1, &v);
		break;
	case OPT_FACTOR:
		err = parse_factor(arg, &v);
		break;
	}
	if (err)
		return usage_error(cmd, "--%s: '%s' %s", o->name, arg, err);
	if (o->max && !(o->kind == OPT_FACTOR && v == UINT32_MAX) && (v < o->min || v > o->max))
		return usage_error(cmd, "--%s: '%s' is not from %" PRIu64 " to %" PRIu64, o->name, arg, o->min, o->max);
	n->v = v;
	n->set = true;
	return 0;
}

/* Append an option to what getopt_long() wants. */
static void add_opt(const struct opt *o, struct option *lo, char *so)
{
	size_t len = strlen(so);

	lo->name = o->name;
	lo->has_arg = o->kind == OPT_FLAG ? no_argument : required_argument;
	lo->flag = NULL;
	lo->val = 0;
	if (!o->letter)
		return;
	so[len++] = o->letter;
	if (o->kind != OPT_FLAG)
		so[len++] = ':';
	so[len] = 0;
}

int opt_parse(const struct cmd *cmd, int argc, char **argv)
{
	const struct opt *table[MAX_OPTS], *o;
	struct option lo[MAX_OPTS + 1] = { 0 };
	char so[2 * MAX_OPTS + 2] = ":";
	int nr = 0, c, i, idx, err;

	for (o = cmd->opts; o && o->name && nr < MAX_OPTS; o++)
		table[nr++] = o;
	for (o = common_opts; o->name && nr < MAX_OPTS; o++)
		table[nr++] = o;
	for (i = 0; i < nr; i++)
		add_opt(table[i], &lo[i], so);

	opterr = 0;
	optind = 1;
	for (;;) {
		idx = -1;
		c = getopt_long(argc, argv, so, lo, &idx);
		if (c == -1)
			break;
		if (c == ':') {
			err = usage_error(cmd, "%s needs a value", argv[optind - 1]);
			return -1 - err;
		}
		if (c == '?') {
			err = usage_error(cmd, "unknown or ambiguous option '%s'", argv[optind - 1]);
			return -1 - err;
		}
		for (i = 0; idx < 0 && i < nr; i++)
			if (table[i]->letter && table[i]->letter == c)
				idx = i;
		err = set_value(cmd, table[idx], optarg);
		if (err)
			return -1 - err;
	}
	if (opt_wants_help) {
		opt_help(cmd, stdout);
		return -1 - EX_DONE;
	}
	argc -= optind;
	memmove(argv, argv + optind, ((size_t)argc + 1) * sizeof(*argv));
	if (argc < cmd->min_args) {
		err = usage_error(cmd, "missing argument: %s %s", cmd->name, cmd->args);
		return -1 - err;
	}
	if (argc > cmd->max_args) {
		err = usage_error(cmd, "too many arguments: '%s' was not expected", argv[cmd->max_args]);
		return -1 - err;
	}
	return argc;
}
