// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * check, export: what iovmd says of whether a guest is ready to be migrated, and of what it serves to whom.
 */
#include <string.h>

#include "agent.h"

static const char *guest;

static const struct opt check_opts[] = {
	OPT_AGENT_SOCKET,
	{ 0 }
};

static void rest(struct json *j)
{
	json_str(j, "guest", guest);
}

/* One question, one answer. */
static int ask(const char *op, void (*more)(struct json *j), struct json_node **o)
{
	const char *text = "";
	struct agent_talk t;
	int code;

	*o = NULL;
	code = agent_ask(&t, op, more);
	if (code)
		return code;
	*o = agent_answer(&t, &text, &code);
	if (*o && !member_bool(*o, "ok"))
		code = fail(EX_REFUSED, NULL, "%s", get_str(*o, "error"));
	else if (*o && opt_json)
		puts(text);
	agent_end(&t);
	return code;
}

static int run_check(int argc, char **argv)
{
	const struct json_node *g, *f;
	struct json_node *o;
	bool ready;
	int code;

	(void)argc;
	guest = argv[0];
	code = ask("check", rest, &o);
	if (code) {
		json_free(o);
		return code;
	}
	g = json_member(o, "guest");
	ready = member_bool(g, "ready");
	if (!opt_json)
		printf("%s: %s\n", guest, ready ? "ready" : "not ready");
	f = g ? json_member(g, "findings") : NULL;
	for (f = !opt_json && f ? f->first : NULL; f; f = f->next)
		printf("  %s %s: %s\n", member_bool(f, "bad") ? "no  " : "note", get_str(f, "what"), get_str(f, "text"));
	json_free(o);
	return ready ? EX_DONE : EX_FAILED;
}

const struct cmd cmd_check = {
	.name = "check", .args = "GUEST", .summary = "Is a guest ready to be rerouted and migrated?",
	.detail =
	"Has iovmd look at its devices and their paths, ask its QEMU what would keep it from being migrated, and ask the peer\n"
	"that it would go to whether it has the guest's devices, disks, command, memory and CPU. iovmd does so by itself now\n"
	"and then ('check-interval'), and 'status' shows what came of it. Exit status 0: ready; 1: not; 4: it cannot be told,\n"
	"since the guest does not run here.\n",
	.opts = check_opts, .min_args = 1, .max_args = 1, .run = run_check,
};

static void show_export(const struct json_node *e)
{
	const struct json_node *p = json_member(e, "granted");

	printf("%s (%s)%s\n", get_str(e, "device"), get_str(e, "disk"), member_bool(e, "there") ? "" : ": is not there yet");
	for (p = p ? p->first : NULL; p; p = p->next) {
		printf("  %-16s %s  ", get_str(p, "peer"), get_str(p, "address"));
		if (member_bool(p, "admitted"))
			printf("may write it, epoch %llu", (unsigned long long)member_u64(p, "epoch"));
		else
			printf("granted, not admitted now");
		printf(", %llu connections\n", (unsigned long long)member_u64(p, "connections"));
	}
}

static int run_export(int argc, char **argv)
{
	const struct json_node *e;
	struct json_node *o;
	int code;

	(void)argc;
	(void)argv;
	code = ask("exports", NULL, &o);
	e = o ? json_member(o, "exports") : NULL;
	for (e = !code && !opt_json && e ? e->first : NULL; e; e = e->next)
		show_export(e);
	json_free(o);
	return code;
}

const struct cmd cmd_export = {
	.name = "export", .args = "", .summary = "What this host serves to whom.",
	.detail =
	"Each device with peers and a disk here, the peers that were granted it by the configuration, which of them is admitted\n"
	"because it holds the device's epoch, and its connections.\n",
	.opts = check_opts, .run = run_export,
};
