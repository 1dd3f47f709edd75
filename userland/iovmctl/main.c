// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovmctl: the table of commands and their dispatch.
 */
#include <string.h>

#include "iovmctl.h"

static const struct {
	const char *title;
	const struct cmd *cmds[12];
} groups[] = {
	{ "Look", { &cmd_list, &cmd_show, &cmd_stats, &cmd_top, &cmd_events, &cmd_identify, &cmd_version } },
	{ "Devices", { &cmd_create, &cmd_destroy, &cmd_set, &cmd_resize, &cmd_save, &cmd_restore } },
	{ "Paths", { &cmd_path_add, &cmd_path_set, &cmd_path_remove, &cmd_path_list, &cmd_path_connect, &cmd_path_watch,
		     &cmd_path_fail, &cmd_path_retry, &cmd_path_fence, &cmd_path_fenced } },
	{ "Guests and hosts, by iovmd", { &cmd_status, &cmd_check, &cmd_migrate, &cmd_drain_host, &cmd_rehearse, &cmd_export, &cmd_metrics,
					   &cmd_config_check, &cmd_config_show, &cmd_config_reload } },
	{ "Peers", { &cmd_peers, &cmd_peers_enrol, &cmd_peers_renew, &cmd_peers_forget } },
	{ "Clients", { &cmd_serve, &cmd_session_list, &cmd_session_end } },
	{ "Epochs", { &cmd_epoch_take, &cmd_epoch_give } },
	{ "Bandwidth", { &cmd_reserve_add, &cmd_reserve_remove, &cmd_reserve_list, &cmd_reserve_check } },
	{ "Routing", { &cmd_failover, &cmd_failback, &cmd_suspend, &cmd_resume, &cmd_fail_parked } },
};

#define NR_GROUPS	(sizeof(groups) / sizeof(*groups))

static const struct {
	const char *name, *means;
} aliases[] = {
	{ "ls", "list" },
	{ "path ls", "path list" },
	{ "path del", "path remove" },
	{ "path reconnect", "path connect" },
	{ "session ls", "session list" },
	{ "reserve ls", "reserve list" },
	{ "reserve del", "reserve remove" },
};

static void help(FILE *f, const char *prefix)
{
	const struct cmd *const *c;
	char synopsis[96];
	size_t g;

	fputs("Usage: iovmctl COMMAND [ARGUMENTS] [OPTIONS]\n\n"
	      "Control the disks that vhost-iovm serves to guests, and the paths their requests take.\n", f);
	for (g = 0; g < NR_GROUPS; g++) {
		bool titled = false;

		for (c = groups[g].cmds; *c; c++) {
			if (prefix && strncmp((*c)->name, prefix, strlen(prefix)))
				continue;
			if (!titled)
				fprintf(f, "\n%s:\n", groups[g].title);
			titled = true;
			snprintf(synopsis, sizeof(synopsis), "%s %s", (*c)->name, (*c)->args);
			if (strlen(synopsis) > 30)
				fprintf(f, "  %s\n  %-30s  %s\n", synopsis, "", (*c)->summary);
			else
				fprintf(f, "  %-30s  %s\n", synopsis, (*c)->summary);
		}
	}
	fputs("\nEvery command takes --json and --help. The manual is iovmctl(8).\n", f);
}

static const struct cmd *find_exact(const char *name)
{
	const struct cmd *const *c;
	size_t g, i;

	for (i = 0; i < sizeof(aliases) / sizeof(*aliases); i++)
		if (!strcmp(aliases[i].name, name))
			name = aliases[i].means;
	for (g = 0; g < NR_GROUPS; g++)
		for (c = groups[g].cmds; *c; c++)
			if (!strcmp((*c)->name, name))
				return *c;
	return NULL;
}

/* The command that argv begins with, and how many words its name has. */
static const struct cmd *find(int argc, char **argv, int *words)
{
	const struct cmd *cmd;
	char two[64];

	*words = 2;
	if (argc > 1) {
		snprintf(two, sizeof(two), "%s %s", argv[0], argv[1]);
		cmd = find_exact(two);
		if (cmd)
			return cmd;
	}
	*words = 1;
	return find_exact(argv[0]);
}

/* First words of several commands, and what may follow */
static const struct {
	const char *word, *needs;
} families[] = {
	{ "path", "add, set, remove, list, connect, watch, fail, retry, fence, fenced" },
	{ "session", "list, end" },
	{ "config", "check, show, reload" },
	{ "epoch", "take, give" },
	{ "reserve", "add, remove, list, check" },
};

/* Index in families, or -1. */
static int family(const char *word)
{
	unsigned int i;

	for (i = 0; i < sizeof(families) / sizeof(*families); i++)
		if (!strcmp(families[i].word, word))
			return (int)i;
	return -1;
}

static int help_family(const char *word)
{
	char prefix[32];

	snprintf(prefix, sizeof(prefix), "%s ", word);
	help(stdout, prefix);
	return EX_DONE;
}

/* Words that are no command: 'path' alone, help, a mistake. */
static int not_a_command(int argc, char **argv)
{
	const struct cmd *cmd;
	int words, i;

	if (!strcmp(argv[0], "help")) {
		if (argc == 1) {
			help(stdout, NULL);
			return EX_DONE;
		}
		cmd = find(argc - 1, argv + 1, &words);
		if (cmd) {
			opt_help(cmd, stdout);
			return EX_DONE;
		}
		if (family(argv[1]) >= 0)
			return help_family(argv[1]);
		return usage_error(NULL, "there is no command '%s'", argv[1]);
	}
	i = family(argv[0]);
	if (i >= 0) {
		if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")))
			return help_family(argv[0]);
		if (argc > 1)
			return usage_error(NULL, "there is no command '%s %s'", argv[0], argv[1]);
		return usage_error(NULL, "'%s' needs one of: %s", argv[0], families[i].needs);
	}
	return usage_error(NULL, "there is no command '%s'", argv[0]);
}

int main(int argc, char **argv)
{
	const struct cmd *cmd;
	int words;

	/* --json may come first */
	while (argc > 1 && (!strcmp(argv[1], "--json") || !strcmp(argv[1], "-j"))) {
		opt_json = true;
		argv[1] = argv[0];
		argv++;
		argc--;
	}
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		help(stdout, NULL);
		return EX_DONE;
	}
	if (argc > 1 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V"))) {
		printf("iovmctl %s\n", IOVM_RELEASE);
		return EX_DONE;
	}
	if (argc < 2) {
		help(stderr, NULL);
		return EX_USAGE_ERR;
	}
	if (argv[1][0] == '-')
		return usage_error(NULL, "unknown option '%s' before the command", argv[1]);
	argc--;
	argv++;
	cmd = find(argc, argv, &words);
	if (!cmd)
		return not_a_command(argc, argv);
	argc -= words - 1;
	argv += words - 1;
	argc = opt_parse(cmd, argc, argv);
	if (argc < 0)
		return -1 - argc;
	argc = cmd->run(argc, argv);
	if (fflush(stdout) || ferror(stdout))
		return argc ? argc : fail(EX_FAILED, NULL, "cannot write the output");
	return argc;
}
