// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * migrate: have iovmd migrate a guest, and show how far it is.
 */
#include <string.h>

#include "agent.h"

static const char *to, *guest;
static bool cancel;

static const struct opt migrate_opts[] = {
	{ "to", 't', OPT_STR, &to, "HOST", "The peer to go to. Default: the guest's destination.", 0, 0 },
	{ "cancel", 0, OPT_FLAG, &cancel, NULL, "End the migration that is under way; the guest stays here.", 0, 0 },
	OPT_AGENT_SOCKET,
	{ 0 }
};

static void rest(struct json *j)
{
	json_str(j, "guest", guest);
	if (to)
		json_str(j, "to", to);
}

static void show_progress(const struct json_node *o)
{
	const struct json_node *g = json_member(o, "guest"), *p = g ? json_member(g, "progress") : NULL;
	char rate[32], left[32], down[32];

	if (!p)
		return;
	text_size(rate, sizeof(rate), member_u64(p, "rate"));
	text_size(left, sizeof(left), member_u64(p, "remaining"));
	text_ms(down, sizeof(down), member_u64(p, "expected_downtime_ms"));
	printf("%s: %s", guest, get_str(p, "phase"));
	if (member_u64(p, "total"))
		printf(", %s/s, %s left, expected downtime %s", rate, left, down);
	printf("\n");
	fflush(stdout);
}

static int end_of(const struct json_node *o)
{
	const struct json_node *g = json_member(o, "guest");
	char ms[32];

	if (!member_bool(o, "ok"))
		return fail(g ? EX_FAILED : EX_REFUSED, g ? "'iovmctl status' tells how things are" : NULL, "%s: %s", guest, get_str(o, "error"));
	if (!opt_json && g) {
		text_ms(ms, sizeof(ms), member_u64(json_member(g, "progress"), "downtime_ms"));
		printf("%s: migrated to '%s', downtime %s\n", guest, get_str(g, "to"), ms);
	} else if (!opt_json) {
		printf("%s: the migration is being cancelled\n", guest);
	}
	return EX_DONE;
}

static int run_migrate(int argc, char **argv)
{
	(void)argc;
	guest = argv[0];
	if (cancel && to)
		return usage_error(&cmd_migrate, "--cancel and --to do not go together");
	return agent_follow(cancel ? "cancel" : "migrate", rest, show_progress, end_of);
}

const struct cmd cmd_migrate = {
	.name = "migrate", .args = "GUEST", .summary = "Migrate a guest live to another host.",
	.detail =
	"Has iovmd do it, and shows how far it is, until it has ended; when this command is ended, the migration goes on. The\n"
	"guest is one of iovmd's configuration. Exit status 1: it has failed, and runs here as before, or see 'iovmctl status'.\n"
	"With --json one object per line.\n",
	.opts = migrate_opts, .min_args = 1, .max_args = 1, .run = run_migrate,
};
