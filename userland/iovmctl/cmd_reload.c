// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * config reload: iovmd takes up what was changed in its configuration.
 */
#include <string.h>

#include "agent.h"

static const struct opt reload_opts[] = {
	OPT_AGENT_SOCKET,
	{ 0 }
};

static void show_mistake(const struct json_node *n)
{
	if (*get_str(n, "file") && member_u64(n, "line"))
		fprintf(stderr, "%s:%llu: ", get_str(n, "file"), (unsigned long long)member_u64(n, "line"));
	else if (*get_str(n, "file"))
		fprintf(stderr, "%s: ", get_str(n, "file"));
	fprintf(stderr, "%s\n", get_str(n, "text"));
	if (*get_str(n, "hint"))
		fprintf(stderr, "  hint: %s\n", get_str(n, "hint"));
}

static void show_change(const struct json_node *n)
{
	const char *did = get_str(n, "did");

	printf("%s", get_str(n, "what"));
	if (*get_str(n, "name"))
		printf(" '%s'", get_str(n, "name"));
	if (!strcmp(did, "kept"))
		printf(": stays as it is: ");
	else if (!strcmp(did, "restart"))
		printf(": not taken up: ");
	else if (!strcmp(did, "note"))
		printf(": ");
	else
		printf(": %s%s", did, *get_str(n, "text") ? ": " : "");
	printf("%s\n", get_str(n, "text"));
	if (*get_str(n, "hint"))
		printf("  hint: %s\n", get_str(n, "hint"));
}

static int show(const struct json_node *o)
{
	const struct json_node *n = json_member(o, "changes");
	bool good = member_bool(o, "ok");

	n = n && n->type == JSON_ARRAY ? n->first : NULL;
	if (good && !n)
		printf("nothing has changed\n");
	for (; n; n = n->next)
		if (!strcmp(get_str(n, "did"), "error"))
			show_mistake(n);
		else if (good)
			show_change(n);
		else
			fprintf(stderr, "%s '%s' would stay as it is: %s\n", get_str(n, "what"), get_str(n, "name"), get_str(n, "text"));
	return good ? EX_DONE : fail(EX_REFUSED, NULL, "nothing was taken up: %s", get_str(o, "error"));
}

static int run_reload(int argc, char **argv)
{
	struct json_node *o;
	struct agent_talk t;
	const char *text;
	int code;

	(void)argc;
	(void)argv;
	code = agent_ask(&t, "config-reload", NULL);
	if (code)
		return code;
	o = agent_answer(&t, &text, &code);
	if (o && opt_json) {
		puts(text);
		code = member_bool(o, "ok") ? EX_DONE : EX_REFUSED;
	} else if (o) {
		code = show(o);
	}
	json_free(o);
	agent_end(&t);
	return code;
}

const struct cmd cmd_config_reload = {
	.name = "config reload", .args = "", .summary = "Have iovmd take up what was changed in its configuration.",
	.detail =
	"Prints what has changed. What cannot change now stays as it is, and is named with what to do: a device or its disk while\n"
	"a guest uses it, a guest that is being migrated, and what it takes to start iovmd anew for. A configuration with mistakes\n"
	"is not taken up at all: they are named with file and line, and the exit status is 4. As 'systemctl reload iovmd'.\n",
	.opts = reload_opts, .run = run_reload,
};
