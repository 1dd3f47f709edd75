// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The keys of iovmd's configuration that are options of iovmctl (userland/iovmd/config_keys.c), held against what iovmctl
 * says that it takes, and takes.
 */
#define _GNU_SOURCE
#include <sys/wait.h>

#include "iovmd_config.h"

/* --- iovmctl's options --- */

/* What iovmd says itself, or what is a key under another name; "shared" when a device and its export have a disk. */
static const char *const left_out_of_create[] = { "size", "size-from", "target", "epoch", "timeout", "json", "help",
	"no-discard", "no-write-zeroes", NULL };
static const char *const left_out_of_path[] = { "identity", "timeout", "offline", "shared", "pr-key", "pace", "tls", "tls-peer", "tls-dir", "json",
	"help", NULL };
/* and what only makes sense for one kind of path */
static const char *const not_local[] = { "connections", "heartbeat", "dead", NULL };
static const char *const not_remote[] = { NULL };
/* A reservation takes two paths by block devices. */
static const char *const left_out_values[] = { "reservation", NULL };

static bool among(const char *const *names, const char *name)
{
	while (*names && strcmp(*names, name))
		names++;
	return *names;
}

static char iovmctl[256];

/* Runs iovmctl; its output, both kinds, is in text. Returns its exit status. */
static int run(char *text, size_t n, const char *args)
{
	char line[600];
	size_t len;
	int status;
	FILE *f;

	snprintf(line, sizeof(line), "%s %s 2>&1 </dev/null", iovmctl, args);
	f = popen(line, "r");
	len = f ? fread(text, 1, n - 1, f) : 0;
	text[len] = 0;
	status = f ? pclose(f) : -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void make_iovmctl(void)
{
	const char *out = getenv("OUT") ?: "../../build/unit";
	char line[600], *real;
	int status;

	snprintf(line, sizeof(line), "mkdir -p %s/iovmctl", out);
	status = system(line);
	snprintf(line, sizeof(line), "%s/iovmctl", out);
	real = realpath(line, NULL);
	snprintf(iovmctl, sizeof(iovmctl), "%s/iovmctl-san", real ?: "");
	snprintf(line, sizeof(line), "make -s -C ../../userland/iovmctl SAN=1 O=%s >%s/make.log 2>&1", real ?: "", dir);
	status = status || !real ? -1 : system(line);
	CHECK(!status, "iovmctl does not build");
	free(real);
}

/* Is it one of "a|b|c"? */
static bool lists(const char *arg, const char *name)
{
	size_t len = strlen(name);

	for (; arg; arg = strchr(arg, '|') ? strchr(arg, '|') + 1 : NULL)
		if (!strncmp(arg, name, len) && (!arg[len] || arg[len] == '|'))
			return true;
	return false;
}

/* Each of "a|b|c" is a choice of one of the keys for an option. */
static void all_chosen(const char *option, const char *arg)
{
	const struct config_key *k;
	char name[64];
	bool found;

	for (; sscanf(arg, "%63[^|]", name) == 1; arg += strlen(name) + (arg[strlen(name)] == '|')) {
		found = among(left_out_values, name);
		for (k = config_keys[SECTION_DEVICE]; k->name; k++)
			if (k->args && k->option && !strcmp(k->option, option) && k->kind == V_CHOICE)
				found |= among(k->names, name);
		CHECK(found, "no key for --%s may be '%s'", option, name);
		if (!arg[strlen(name)])
			return;
	}
}

/* A key of [device] for an option with this argument ("" none): of some options only a part fits each side. */
static bool fits(const struct config_key *k, const char *arg)
{
	static const struct {
		const char *arg;
		enum value_kind kinds[3];
	} table[] = {
		{ "", { V_BOOL, V_BOOL, V_BOOL } }, { "N", { V_NUM, V_COUNT, V_FACTOR } }, { "SIZE", { V_SIZE, V_SIZE, V_SIZE } },
		{ "TIME", { V_TIME, V_TIME, V_TIME } }, { "MS", { V_TIME_MS, V_TIME_MS, V_TIME_MS } },
		{ "TEXT", { V_TEXT, V_TEXT, V_TEXT } }, { "ID", { V_IDENTITY, V_IDENTITY, V_IDENTITY } },
		{ "USER[:GROUP]", { V_OWNER, V_OWNER, V_OWNER } }, { "MODE", { V_MODE, V_MODE, V_MODE } },
		{ "PROGRAM", { V_FILE, V_FILE, V_FILE } },
	};
	size_t i;

	if (strchr(arg, '|')) {
		for (i = 0; k->kind == V_CHOICE && k->names[i]; i++)
			if (!lists(arg, k->names[i]))
				return false;
		return k->kind == V_CHOICE;
	}
	for (i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (!strcmp(table[i].arg, arg))
			return table[i].kinds[0] == k->kind || table[i].kinds[1] == k->kind || table[i].kinds[2] == k->kind;
	return false;
}

/* The next option of a help text: "  -c, --name ARG", "      --name"; false at the end */
static bool next_option(char **text, char name[64], char arg[64])
{
	char *line = *text, *end;

	for (; *line; line = *end ? end + 1 : end) {
		end = line + strcspn(line, "\n");
		*arg = 0;
		if ((strncmp(line, "      --", 8) && (strncmp(line, "  -", 3) || strncmp(line + 4, ", --", 4))) ||
		    sscanf(line + 8, "%63[a-z-]", name) != 1)
			continue;
		if (line[8 + strlen(name)] == ' ' && line[9 + strlen(name)] != ' ')
			sscanf(line + 9 + strlen(name), "%63[^ \n]", arg);
		*text = *end ? end + 1 : end;
		return true;
	}
	return false;
}

static void options_of(const char *command, const char *prefix, const char *const *left_out, const char *const *not_here)
{
	const struct config_key *k = config_keys[SECTION_DEVICE];
	char help[16384], args[128], name[64], arg[64], key[128], *at = help;
	unsigned int nr = 0, i;
	bool seen[CONFIG_MAX_KEYS] = { false };
	int n;

	snprintf(args, sizeof(args), "%s --help", command);
	CHECK(!run(help, sizeof(help), args));
	at = strstr(help, "\nOptions:\n") ?: help;
	while (next_option(&at, name, arg)) {
		nr++;
		snprintf(key, sizeof(key), "%s%s", prefix, name);
		n = config_find_key(SECTION_DEVICE, key);
		if (n >= 0) {
			seen[n] = true;
			CHECK(k[n].args && k[n].option && !strcmp(k[n].option, name), "%s is not for --%s", key, name);
			CHECK(fits(&k[n], arg), "%s is not of the kind of --%s %s", key, name, arg);
			if (strchr(arg, '|'))
				all_chosen(name, arg);
			CHECK(!among(left_out, name) && !among(not_here, name), "%s is left out", key);
			continue;
		}
		for (i = 0; k[i].name && !(k[i].option_no && !strcmp(k[i].option_no, name));)
			i++;
		if (k[i].name)
			seen[i] = true;
		CHECK(among(left_out, name) || among(not_here, name), "'iovmctl %s' takes --%s, which is no key and not left out",
		      command, name);
	}
	CHECK(nr > 10, "the options of 'iovmctl %s' are not found", command);
	for (i = 0; k[i].name; i++)
		CHECK(!k[i].args || strncmp(k[i].name, prefix, strlen(prefix)) || (!*prefix && strchr(k[i].name, '.')) || seen[i],
		      "%s is no option of 'iovmctl %s'", k[i].name, command);
}

/* What a key's value may be, iovmctl takes, and no more: tried with what is a little too much. */
static void limits_of(const struct config_key *k, const char *command, const char *more)
{
	char args[300], text[4096], want[128];
	int code;

	if (k->kind == V_NUM || k->kind == V_SIZE || k->kind == V_FACTOR || k->kind == V_TIME_MS) {
		snprintf(args, sizeof(args), "%s --%s %" PRIu64 "%s", command, k->option, k->max + 1, more);
		snprintf(want, sizeof(want), "is not from %" PRIu64 " to %" PRIu64, k->min, k->max);
		code = run(text, sizeof(text), args);
		CHECK(code == 2 && strstr(text, want), "iovmctl %s: %d, %s", args, code, text);
	} else if (k->kind == V_TIME) {
		snprintf(args, sizeof(args), "%s --%s %" PRIu64 "ms%s", command, k->option, k->max + 1, more);
		code = run(text, sizeof(text), args);
		CHECK(code == 2, "iovmctl %s: %d, %s", args, code, text);
		if (k->min) {
			snprintf(args, sizeof(args), "%s --%s %" PRIu64 "ms%s", command, k->option, k->min - 1, more);
			code = run(text, sizeof(text), args);
			CHECK(code == 2, "iovmctl %s: %d, %s", args, code, text);
		}
	} else {
		snprintf(args, sizeof(args), "%s --%s %0*d%s", command, k->option, (int)k->max + 1, 0, more);
		code = run(text, sizeof(text), args);
		CHECK(code == 2, "iovmctl %s: %d, %s", args, code, text);
	}
	if (k->power) {
		snprintf(args, sizeof(args), "%s --%s %" PRIu64 "%s", command, k->option, k->max - 1, more);
		code = run(text, sizeof(text), args);
		CHECK(code == 2 && strstr(text, "power of two"), "iovmctl %s: %d, %s", args, code, text);
	}
}

static void create_options(void)
{
	options_of("create", "", left_out_of_create, left_out_of_create);
}

static void path_options(void)
{
	options_of("path add", "local.", left_out_of_path, not_local);
	options_of("path add", "remote.", left_out_of_path, not_remote);
}

static void limits(void)
{
	const struct config_key *k;

	for (k = config_keys[SECTION_DEVICE]; k->name; k++) {
		if (!k->args || !k->max)
			continue;
		if (strchr(k->name, '.'))
			limits_of(k, "path add d p /dev/null",
				  !strcmp(k->option, "fence-after") ? " --fence-command /bin/true" : "");
		else
			limits_of(k, "create d --size 1M", "");
	}
}

/* What a command that changes what is there takes is what is said to be changed by it, for each prefix. */
static void changed_by(const char *command, enum config_taken taken, const char *const *prefixes)
{
	static const char *const not_a_key[] = { "json", "help", NULL };
	const struct config_key *k = config_keys[SECTION_DEVICE];
	char help[16384], args[128], name[64], arg[64], key[128], *at = help;
	unsigned int options = 0, keys = 0, i;
	int n;

	snprintf(args, sizeof(args), "%s --help", command);
	CHECK(!run(help, sizeof(help), args));
	at = strstr(help, "\nOptions:\n") ?: help;
	while (next_option(&at, name, arg)) {
		if (among(not_a_key, name))
			continue;
		for (i = 0; prefixes[i]; i++, options++) {
			snprintf(key, sizeof(key), "%s%s", prefixes[i], name);
			n = config_find_key(SECTION_DEVICE, key);
			CHECK(n >= 0 && k[n].taken == taken, "'iovmctl %s' changes %s, which is not said there", command, key);
		}
	}
	for (i = 0; k[i].name; i++)
		keys += k[i].taken == taken;
	CHECK(options && keys == options, "%u keys are said to be changed by 'iovmctl %s', which has %u", keys, command, options);
}

static void changes(void)
{
	static const char *const device[] = { "", NULL }, *const sides[] = { "local.", "remote.", NULL };
	const struct config_key *k;
	char args[300], text[4096];
	int code;

	changed_by("set", TAKEN_SET, device);
	changed_by("path set", TAKEN_PATH_SET, sides);
	/* what it is told when a key is not there any more: taken, and what create's help names as the default */
	for (k = config_keys[SECTION_DEVICE]; k->name; k++) {
		if (k->taken != TAKEN_SET)
			continue;
		snprintf(args, sizeof(args), "set d --%s %s", k->option, k->fallback);
		code = run(text, sizeof(text), args);
		CHECK(code == 5, "iovmctl %s: %d, %s", args, code, text);
	}
}

static const struct ktap_case cases[] = {
	{ "iovmctl is built", make_iovmctl },
	{ "options of create are keys", create_options },
	{ "options of path add are keys", path_options },
	{ "limits are those of iovmctl", limits },
	{ "what 'set' and 'path set' change is known", changes },
};

int main(void)
{
	return config_run(cases, sizeof(cases) / sizeof(*cases));
}
