// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * drain-host: have iovmd migrate all guests away, and show how far that is.
 */
#include <string.h>

#include "agent.h"

static const char *opt_to;
static bool opt_cancel;

static const struct opt drain_opts[] = {
	{ "to", 't', OPT_STR, &opt_to, "HOST", "The peer to go to. Default: each guest's destination.", 0, 0 },
	{ "cancel", 0, OPT_FLAG, &opt_cancel, NULL, "End it: guests that have not gone yet stay here.", 0, 0 },
	OPT_AGENT_SOCKET,
	{ 0 }
};

static void rest(struct json *j)
{
	if (opt_to)
		json_str(j, "to", opt_to);
	if (opt_cancel)
		json_bool(j, "cancel", true);
}

/* One line for all: "2 of 3 have gone; vm3: active, 1.2G left" */
static void show(const struct json_node *o)
{
	static char last[512];
	const struct json_node *list = json_member(o, "drain"), *g, *p;
	unsigned int nr = 0, gone = 0, stay = 0;
	char line[512], moving[384] = "", left[32];

	for (g = list ? list->first : NULL; g; g = g->next, nr++) {
		gone += !strcmp(get_str(g, "drain"), "over") && !*get_str(g, "drain_why");
		stay += *get_str(g, "drain_why") != 0;
		if (strcmp(get_str(g, "drain"), "moves"))
			continue;
		p = json_member(g, "progress");
		text_size(left, sizeof(left), member_u64(p, "remaining"));
		snprintf(moving + strlen(moving), sizeof(moving) - strlen(moving), "; %s: %s", get_str(g, "name"),
			 p ? get_str(p, "phase") : "begins");
		if (member_u64(p, "total"))
			snprintf(moving + strlen(moving), sizeof(moving) - strlen(moving), ", %s left", left);
	}
	snprintf(line, sizeof(line), "%u of %u have gone", gone, nr);
	if (stay)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), ", %u stay", stay);
	snprintf(line + strlen(line), sizeof(line) - strlen(line), "%s", moving);
	if (strcmp(line, last))
		puts(line);
	strcpy(last, line);
	fflush(stdout);
}

static int end_of(const struct json_node *o)
{
	const struct json_node *list = json_member(o, "drain"), *g;
	bool good = member_bool(o, "ok");

	if (!list && !good)
		return fail(EX_REFUSED, NULL, "%s", get_str(o, "error"));
	if (!opt_json && !list)
		puts("no more guests are migrated; those that are on their way are taken back");
	for (g = !opt_json && list ? list->first : NULL; g; g = g->next) {
		if (*get_str(g, "drain_why"))
			printf("%s: stays here: %s\n", get_str(g, "name"), get_str(g, "drain_why"));
		else
			printf("%s: has gone%s%s\n", get_str(g, "name"), *get_str(g, "to") ? " to " : "", get_str(g, "to"));
	}
	if (!opt_json && list && !list->first)
		puts("no guest runs here");
	return good ? EX_DONE : fail(EX_FAILED, "'iovmctl status' tells how things are", "%s", get_str(o, "error"));
}

static int run_drain(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	if (opt_cancel && opt_to)
		return usage_error(&cmd_drain_host, "--cancel and --to do not go together");
	return agent_follow("drain-host", rest, show, end_of);
}

const struct cmd cmd_drain_host = {
	.name = "drain-host", .args = "", .summary = "Migrate all guests of this host away.",
	.detail =
	"For maintenance. Has iovmd migrate every guest that runs here, as many at a time as its configuration says, those of\n"
	"a group one after the other, and shows how far that is until it has ended; when this command is ended, it goes on.\n"
	"Exit status 1: a guest stayed here; it runs as before. With --json one object per line.\n",
	.opts = drain_opts, .run = run_drain,
};
