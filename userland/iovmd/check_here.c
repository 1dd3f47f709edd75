// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is looked at on a host to see whether a guest is ready to be migrated. See check.h.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-login.h>
#include <unistd.h>

#include "check.h"
#include "qemu.h"
#include "unit.h"
#include "../iovmctl/iovmctl.h"

#define QMP_MS	3000
#define MISSING	120	/* bytes of a list of flags */

void found(struct findings *fs, enum finding_level level, const char *what, const char *fmt, ...)
{
	struct finding *f = &fs->f[fs->nr];
	va_list ap;
	char *p;

	if (fs->nr == FINDINGS_MAX)
		return;
	f->level = level;
	snprintf(f->what, sizeof(f->what), "%s", what);
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	/* QEMU and the peer have their say in it */
	for (p = f->text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	fs->nr++;
}

void findings_json(struct json *j, const char *key, const struct findings *fs)
{
	unsigned int i;

	json_open(j, key, '[');
	for (i = 0; i < fs->nr; i++) {
		json_open(j, NULL, '{');
		json_str(j, "what", fs->f[i].what);
		json_bool(j, "bad", fs->f[i].level == FINDING_BAD);
		json_str(j, "text", fs->f[i].text);
		json_close(j);
	}
	json_close(j);
}

void findings_take(struct findings *fs, const struct json_node *list)
{
	const struct json_node *o;

	for (o = list && list->type == JSON_ARRAY ? list->first : NULL; o; o = o->next)
		found(fs, member_bool(o, "bad") ? FINDING_BAD : FINDING_NOTE, member_str(o, "what") ?: "?", "%s", member_str(o, "text") ?: "?");
}

/* --- data --- */

static void look_at_device(const struct config_device *d, struct findings *fs)
{
	struct path_view paths[IOVM_MAX_PATHS];
	struct iovm_dev_info di;
	unsigned int nr, i, live = 0;
	struct dev_view v;

	if (!kernel_has_device(d->name, &di) || load_dev(&di, &v, paths, &nr)) {
		found(fs, FINDING_BAD, "data", "device '%s' is not there", d->name);
		return;
	}
	if (v.i.state != IOVM_DEV_ROUTED)
		found(fs, FINDING_BAD, "data", "device '%s' is %s", d->name, name_of(dev_state_names, v.i.state) ?: "in an unknown state");
	if (epoch_needed(d) && !v.i.epoch_held)
		found(fs, FINDING_BAD, "data", "device '%s' does not hold its epoch", d->name);
	for (i = 0; i < nr; i++) {
		const struct path_view *p = &paths[i];

		if (p->i.state == IOVM_PATH_LIVE)
			live++;
		else
			found(fs, FINDING_NOTE, "data", "path '%s' of '%s' is %s", p->i.name, d->name,
			      name_of(path_state_names, p->i.state) ?: "in an unknown state");
		if (p->i.held)
			found(fs, FINDING_BAD, "data", "writes wait for a fence of path '%s' of '%s'", p->i.name, d->name);
		if (!strcmp(p->same_data, "assumed"))
			found(fs, FINDING_NOTE, "data", "that path '%s' of '%s' has the same data is assumed, and not shown", p->i.name,
			      d->name);
	}
	if (live < 2)
		found(fs, FINDING_BAD, "data", "device '%s' has %s: it could not be rerouted", d->name,
		      live ? "one live path only" : "no live path");
}

/* --- QEMU --- */

static void look_for_blockers(struct qmp *q, struct findings *fs)
{
	const struct json_node *list, *s;
	struct json_node *reply;
	char why[QMP_WHY];

	if (qmp_execute(q, "query-migrate", QMP_MS, &reply, why, sizeof(why))) {
		found(fs, FINDING_BAD, "qemu", "%.180s", why);
		return;
	}
	list = reply->type == JSON_OBJECT ? json_member(reply, "blocked-reasons") : NULL;
	for (s = list && list->type == JSON_ARRAY ? list->first : NULL; s; s = s->next)
		if (s->type == JSON_STRING)
			found(fs, FINDING_BAD, "device", "QEMU would not migrate it: %.160s", s->str);
	json_free(reply);
}

/* Devices of this host that were given to the guest. Some can be migrated: whether these can is the business of the blockers. */
static void look_for_host_devices(struct qmp *q, const char *path, struct findings *fs)
{
	const struct json_node *o;
	struct json_node *reply;
	char why[QMP_WHY];

	json_str(qmp_command(q, "qom-list"), "path", path);
	if (qmp_run(q, QMP_MS, &reply, why, sizeof(why)))
		return;
	for (o = reply->type == JSON_ARRAY ? reply->first : NULL; o; o = o->next)
		if (strstr(qmp_str(o, "type"), "vfio") || strstr(qmp_str(o, "type"), "usb-host"))
			found(fs, FINDING_NOTE, "device", "it has a device of this host: %.60s (%.60s)", qmp_str(o, "name"), qmp_str(o, "type"));
	json_free(reply);
}

static void ask_memory(struct qmp *q, struct check_needs *needs)
{
	struct json_node *reply;
	char why[QMP_WHY];

	if (qmp_execute(q, "query-memory-size-summary", QMP_MS, &reply, why, sizeof(why)))
		return;
	needs->memory = qmp_u64(reply, "base-memory") + qmp_u64(reply, "plugged-memory");
	json_free(reply);
}

/* "host-x86_64-cpu": QEMU's own word for the first CPU's model */
static void ask_cpu(struct qmp *q, struct check_needs *needs)
{
	char why[QMP_WHY], path[256] = "";
	struct json_node *reply;
	struct json *j;

	if (qmp_execute(q, "query-cpus-fast", QMP_MS, &reply, why, sizeof(why)))
		return;
	if (reply->type == JSON_ARRAY && reply->first)
		snprintf(path, sizeof(path), "%s", qmp_str(reply->first, "qom-path"));
	json_free(reply);
	if (!*path)
		return;
	j = qmp_command(q, "qom-get");
	json_str(j, "path", path);
	json_str(j, "property", "type");
	if (qmp_run(q, QMP_MS, &reply, why, sizeof(why)))
		return;
	if (reply->type == JSON_STRING)
		snprintf(needs->cpu, sizeof(needs->cpu), "%s", reply->str);
	json_free(reply);
}

/* What is stopped once it has gone is the unit that is configured. */
static void look_at_unit(const struct config_guest *g, pid_t pid, struct findings *fs)
{
	char *unit = NULL;

	if (*g->unit && sd_pid_get_unit(pid, &unit) >= 0 && strcmp(unit, g->unit))
		found(fs, FINDING_NOTE, "unit", "its QEMU is not of its unit '%.80s', but of '%.80s'", g->unit, unit);
	free(unit);
}

static void ask_qemu(const struct config_guest *g, struct findings *fs, struct check_needs *needs)
{
	char why[QMP_WHY] = "";
	enum guest_at at;
	struct qmp q;

	if (qmp_open(&q, g->qmp, QMP_MS, why, sizeof(why))) {
		found(fs, FINDING_BAD, "qemu", "%.180s", why);
		return;
	}
	look_at_unit(g, q.pid, fs);
	at = qemu_guest_at(&q, QMP_MS, why, sizeof(why));
	if (at != GUEST_RUNS)
		found(fs, FINDING_BAD, "qemu", "the guest %s%s%.100s: only one that runs is migrated", guest_at_text[at], *why ? ": " : "", why);
	if (at != GUEST_SILENT) {
		look_for_blockers(&q, fs);
		look_for_host_devices(&q, "/machine/peripheral", fs);
		look_for_host_devices(&q, "/machine/peripheral-anon", fs);
		ask_memory(&q, needs);
		ask_cpu(&q, needs);
	}
	qmp_close(&q);
}

void check_here(const struct config_guest *g, struct findings *fs, struct check_needs *needs)
{
	unsigned int i;

	memset(needs, 0, sizeof(*needs));
	if (g->policy == POLICY_NEVER)
		found(fs, FINDING_BAD, "policy", "it is configured to stay ('migrate = never')");
	if (strcmp(mux_version.release, IOVM_RELEASE))
		found(fs, FINDING_NOTE, "module", "the modules here are of release %s, iovmd is of %s", mux_version.release, IOVM_RELEASE);
	for (i = 0; i < g->nr_devices; i++)
		look_at_device(g->devices[i], fs);
	if (config_way(g) == WAY_QMP)
		ask_qemu(g, fs, needs);
	else
		found(fs, FINDING_NOTE, "qemu", "it is migrated by %s, so its QEMU is not asked",
		      config_way(g) == WAY_LIBVIRT ? "libvirt" : "'migrate-command'");
	check_flags(needs->flags);
}

/* --- the host that it would come to --- */

static bool proc_line(const char *file, const char *key, char *text, size_t n)
{
	char line[FLAGS_MAX + 64], *colon;
	bool good = false;
	FILE *f = fopen(file, "re");

	while (f && !good && fgets(line, sizeof(line), f)) {
		colon = strchr(line, ':');
		if (!colon || strncmp(line, key, strlen(key)) || !strchr("\t :", line[strlen(key)]))
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(text, n, "%s", colon + 1 + strspn(colon + 1, " \t"));
		good = true;
	}
	if (f)
		fclose(f);
	return good;
}

bool check_flags(char flags[FLAGS_MAX])
{
	*flags = 0;
	return proc_line("/proc/cpuinfo", "flags", flags, FLAGS_MAX) || proc_line("/proc/cpuinfo", "Features", flags, FLAGS_MAX);
}

static bool has_flag(const char *have, const char *flag, size_t len)
{
	const char *at = have;

	while ((at = strstr(at, flag))) {
		if ((at == have || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
			return true;
		at += len;
	}
	return false;
}

unsigned int check_missing(const char *want, const char *have, char *missing, size_t n)
{
	unsigned int nr = 0;
	char flag[64];
	size_t len;

	*missing = 0;
	for (want += strspn(want, " "); *want; want += len, want += strspn(want, " ")) {
		len = strcspn(want, " ");
		if (len >= sizeof(flag))
			continue;
		memcpy(flag, want, len);
		flag[len] = 0;
		if (has_flag(have, flag, len))
			continue;
		if (strlen(missing) + len + 2 < n)
			sprintf(missing + strlen(missing), "%s%s", *missing ? " " : "", flag);
		nr++;
	}
	return nr;
}

static void compare_cpu(const struct check_needs *needs, struct findings *fs)
{
	char flags[FLAGS_MAX], missing[MISSING];
	unsigned int nr;
	bool as_host;

	if (!*needs->cpu)
		return;
	as_host = !strncmp(needs->cpu, "host-", 5) || !strncmp(needs->cpu, "max-", 4);
	if (!*needs->flags || !check_flags(flags)) {
		found(fs, FINDING_NOTE, "cpu", "whether its CPU there can do what '%s' does is not known", needs->cpu);
		return;
	}
	nr = check_missing(needs->flags, flags, missing, sizeof(missing));
	if (!nr)
		return;
	if (as_host)
		found(fs, FINDING_BAD, "cpu", "its CPU is '%s', and the one there lacks %u of this one's features: %s", needs->cpu, nr, missing);
	else
		found(fs, FINDING_NOTE, "cpu", "the CPU there lacks %u of this one's features; only QEMU there knows whether '%s' needs them",
		      nr, needs->cpu);
}

static void compare_memory(const struct check_needs *needs, struct findings *fs)
{
	unsigned long long kib;
	char text[64], want[32], have[32];

	if (!needs->memory || !proc_line("/proc/meminfo", "MemAvailable", text, sizeof(text)) || sscanf(text, "%llu", &kib) != 1)
		return;
	text_size(want, sizeof(want), needs->memory);
	text_size(have, sizeof(have), kib * 1024);
	if (needs->memory > kib * 1024)
		found(fs, FINDING_BAD, "memory", "it has %s of memory, and %s are available there", want, have);
}

/* A command may begin with a program anywhere: then the shell finds it, or not. */
bool check_program(const char *command, char program[IOVM_ADDR_MAX])
{
	if (!strncmp(command, "exec ", 5))
		command += 5;
	command += strspn(command, " ");
	if (*command != '/')
		return false;
	snprintf(program, IOVM_ADDR_MAX, "%.*s", (int)strcspn(command, " \t;&|<>()"), command);
	return true;
}

void check_there(const struct config_guest *g, const struct config_peer *from, const struct check_needs *needs, struct findings *fs)
{
	char why[WHY_MAX], program[IOVM_ADDR_MAX];

	if (!arrival_fits(g, from, why))
		found(fs, FINDING_BAD, "peer", "%.190s", why);
	if (*g->command && check_program(g->command, program) && access(program, X_OK))
		found(fs, FINDING_BAD, "command", "the program of its 'command' there, '%.120s', cannot be run", program);
	if (*g->unit && !unit_has_file(g->unit))
		found(fs, FINDING_BAD, "unit", "there is no unit '%.160s' there", g->unit);
	compare_memory(needs, fs);
	compare_cpu(needs, fs);
}
