// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userland/iovmd/unit.c with a stand-in for systemd: jobs that are done, that fail, or do not end; services that are not there, run
 * already, or go on when they are stopped; and no bus at all. And what it writes to an environment file, read back by a shell.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"
#include "../../userland/common/put_file.c"
#include "../../userland/iovmd/qmp.c"
#include "../../userland/iovmd/unit.c"
#include "ktap.h"
#include "fake_systemd.h"

#define UNIT	"iovm-guest@vm1.service"

static char dir[64] = "/tmp/iovmd-unit-XXXXXX", why[QMP_WHY];

static void begin_case(const char *load, const char *active, const char *start, const char *stop_script)
{
	fake_put("load", load);
	fake_put("active", active);
	fake_put("start", start);
	fake_put("stop", stop_script);
	fake_put("result", "");
	fake_put("verbs", "");
	*why = 0;
}

static bool start_fails(const char *with)
{
	bool good = unit_start(UNIT, 400, why, sizeof(why)) && strstr(why, with);

	printf("# %s\n", why);
	return good;
}

static void starts_and_stops(void)
{
	begin_case("loaded", "inactive", "echo done", "echo done");
	CHECK(!unit_start(UNIT, 400, why, sizeof(why)), "%s", why);
	CHECK(!unit_ended(UNIT, why, sizeof(why)));
	CHECK(!unit_stop(UNIT, 400, why, sizeof(why)), "%s", why);
	CHECK(!strcmp(fake_get("verbs"), "start\nstop\n"), "%s", fake_get("verbs"));
	CHECK(unit_ended(UNIT, why, sizeof(why)) && strstr(why, "has ended: its result is 'success'"), "%s", why);
	/* nothing is to be done */
	CHECK(!unit_stop(UNIT, 400, why, sizeof(why)), "%s", why);
	CHECK(!strcmp(fake_get("verbs"), "start\nstop\n"), "%s", fake_get("verbs"));
	/* one that had failed is started like any other */
	begin_case("loaded", "failed", "echo done", "echo done");
	CHECK(!unit_start(UNIT, 400, why, sizeof(why)), "%s", why);
}

static void cannot_start(void)
{
	begin_case("not-found", "inactive", "echo done", "echo done");
	CHECK(start_fails("there is no unit '" UNIT "'"));
	begin_case("masked", "inactive", "echo done", "echo done");
	CHECK(start_fails("systemd has it as 'masked'"));
	begin_case("loaded", "active", "echo done", "echo done");
	CHECK(start_fails("is 'active' already"));
	begin_case("loaded", "deactivating", "echo done", "echo done");
	CHECK(start_fails("is 'deactivating' already"));
	/* none was asked for, so none is stopped */
	CHECK(!*fake_get("verbs"), "%s", fake_get("verbs"));
	CHECK(unit_start("a/b", 400, why, sizeof(why)) && strstr(why, "systemd says of unit 'a/b': no such name"), "%s", why);
}

static void fails(void)
{
	begin_case("loaded", "inactive", "echo failed", "echo done");
	fake_put("result", "exit-code 1 3");
	CHECK(start_fails("was not started: its result is 'exit-code', its exit status 3"));
	begin_case("loaded", "inactive", "echo failed", "echo done");
	fake_put("result", "oom-kill 2 9");
	CHECK(start_fails("its result is 'oom-kill', it was ended by signal 9"));
	begin_case("loaded", "inactive", "echo dependency", "echo done");
	CHECK(start_fails("was not started: systemd says 'dependency'"));
}

/* What has been begun is stopped again. */
static void does_not_end(void)
{
	begin_case("loaded", "inactive", "printf activating >${0%/*}/active", "echo done");
	CHECK(start_fails("is not started after 400 ms"));
	CHECK(!strcmp(fake_get("verbs"), "start\nstop\n"), "%s", fake_get("verbs"));
	begin_case("loaded", "inactive", "printf activating >${0%/*}/active", ":");
	CHECK(start_fails("is not started after 400 ms, see 'systemctl status " UNIT "'; and unit '" UNIT "' is not stopped after"));
	begin_case("loaded", "active", ":", "echo canceled");
	CHECK(unit_stop(UNIT, 400, why, sizeof(why)) && strstr(why, "was not stopped: systemd says 'canceled'"), "%s", why);
}

/* It is the state of the unit itself that counts. */
static void starts_again(void)
{
	begin_case("loaded", "active", ":", "echo done activating");
	CHECK(unit_stop(UNIT, 400, why, sizeof(why)) && strstr(why, "was stopped, but is 'activating': what starts it again?"), "%s", why);
}

static void no_systemd(void)
{
	char *old = strdup(getenv("DBUS_SYSTEM_BUS_ADDRESS"));

	begin_case("loaded", "inactive", "echo done", "echo done");
	setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/no/such/bus", 1);
	CHECK(start_fails("systemd cannot be asked over the system bus: No such file or directory (is 'dbus' installed"));
	CHECK(unit_stop(UNIT, 400, why, sizeof(why)));
	CHECK(!unit_ended(UNIT, why, sizeof(why)));
	setenv("DBUS_SYSTEM_BUS_ADDRESS", old, 1);
	free(old);
	CHECK(!unit_start(UNIT, 400, why, sizeof(why)), "%s", why);
}

static void environment(void)
{
	static const char value[] = " a \"b\" $HOME `id` \\c 'd' # e ";
	const char *const pairs[] = { "IOVM_GUEST", "vm1", "IOVM_QMP", value, NULL };
	char file[96], text[256] = "", command[256];
	FILE *f;

	snprintf(file, sizeof(file), "%s/env", dir);
	CHECK(!unit_environment(file, pairs));
	snprintf(command, sizeof(command), ". %s; printf '%%s/%%s' \"$IOVM_GUEST\" \"$IOVM_QMP\"", file);
	f = popen(command, "re");
	CHECK(f && fread(text, 1, sizeof(text) - 1, f));
	pclose(f);
	CHECK(!strncmp(text, "vm1/", 4) && !strcmp(text + 4, value), "%s", text);
	CHECK(unit_environment("/no/such/dir/env", pairs) == ENOENT);
}

static void files(void)
{
	CHECK(unit_has_file("systemd-journald.service"));
	CHECK(unit_has_file("getty@tty1.service"));
	CHECK(!unit_has_file("gett@tty1.service") && !unit_has_file("no-such-thing.service"));
}

static const struct ktap_case cases[] = {
	{ "started, looked at, stopped", starts_and_stops },
	{ "one that cannot be started", cannot_start },
	{ "a start that fails", fails },
	{ "a job that does not end", does_not_end },
	{ "one that does not stay stopped", starts_again },
	{ "no system bus", no_systemd },
	{ "an environment file", environment },
	{ "files of units", files },
};

int main(void)
{
	char command[96];
	int status;

	if (!mkdtemp(dir))
		return 1;
	fake_systemd(dir);
	status = ktap_run_all(cases, sizeof(cases) / sizeof(*cases));
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) ? 1 : status;
}
