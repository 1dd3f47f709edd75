// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Services of systemd. See unit.h.
 *
 * Starting and stopping are jobs: systemd queues one, and says with the signal JobRemoved what came of it. What a service that failed has
 * failed of is in its properties.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "qmp.h"
#include "unit.h"
#include "../common/clock.h"
#include "../common/put_file.h"

#define SYSTEMD		"org.freedesktop.systemd1"
#define MANAGER		SYSTEMD ".Manager"
#define THE_MANAGER	"/org/freedesktop/systemd1"
#define ANSWER_MS		5000	/* an answer of systemd's to a question */
#define WORDS_MS	1500	/* what a service has written comes to the journal */
#define WORDS_LINES	4

/**
 * struct systemd - a connection, and a service
 * @unit: its name
 * @path: the object
 * @job: the object of the job that is waited for; "" none
 * @result: "done", or what came of it instead; "" nothing has yet
 */
struct systemd {
	sd_bus *bus;
	const char *unit;
	char *path;
	char job[128], result[24];
};

/* --- the bus --- */

static int on_removed(sd_bus_message *m, void *data, sd_bus_error *error)
{
	const char *job, *unit, *result;
	struct systemd *s = data;
	uint32_t id;

	(void)error;
	if (sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) >= 0 && !strcmp(job, s->job))
		snprintf(s->result, sizeof(s->result), "%s", result);
	return 0;
}

static int no_bus(char *why, size_t n, int err)
{
	return qmp_why(why, n, "systemd cannot be asked over the system bus: %s (is 'dbus' installed, and dbus.socket started?)", strerror(-err));
}

static void close_bus(struct systemd *s)
{
	free(s->path);
	sd_bus_flush_close_unref(s->bus);
}

static int open_bus(struct systemd *s, const char *unit, unsigned int ms, char *why, size_t n)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *m = NULL;
	const char *path;
	int r;

	memset(s, 0, sizeof(*s));
	s->unit = unit;
	r = sd_bus_open_system(&s->bus);
	if (r >= 0)
		r = sd_bus_set_method_call_timeout(s->bus, (ms < ANSWER_MS ? ms : ANSWER_MS) * 1000ull);
	if (r < 0) {
		close_bus(s);
		return no_bus(why, n, r);
	}
	/* that it is not there is said by its LoadState */
	r = sd_bus_call_method(s->bus, SYSTEMD, THE_MANAGER, MANAGER, "LoadUnit", &error, &m, "s", unit);
	if (r >= 0 && sd_bus_message_read(m, "o", &path) > 0)
		s->path = strdup(path);
	if (r < 0 && sd_bus_error_is_set(&error))
		qmp_why(why, n, "systemd says of unit '%s': %s", unit, error.message ?: error.name);
	else if (!s->path)
		no_bus(why, n, r < 0 ? r : -EBADMSG);
	sd_bus_error_free(&error);
	sd_bus_message_unref(m);
	if (s->path)
		return 0;
	close_bus(s);
	return -1;
}

/* --- what it is --- */

static void text_property(struct systemd *s, const char *kind, const char *name, char *buf, size_t n)
{
	char *text = NULL;

	*buf = 0;
	if (sd_bus_get_property_string(s->bus, SYSTEMD, s->path, kind, name, NULL, &text) >= 0)
		snprintf(buf, n, "%s", text);
	free(text);
}

static int number_property(struct systemd *s, const char *name)
{
	int v = 0;

	return sd_bus_get_property_trivial(s->bus, SYSTEMD, s->path, SYSTEMD ".Service", name, NULL, 'i', &v) < 0 ? 0 : v;
}

/* "active", "inactive", "failed", "activating", "deactivating" ...; "" unknown */
static void active_state(struct systemd *s, char state[24])
{
	text_property(s, SYSTEMD ".Unit", "ActiveState", state, 24);
}

static bool is_over(const char *state)
{
	return !strcmp(state, "inactive") || !strcmp(state, "failed");
}

/* Of what it has failed, in systemd's own words */
static void how_it_ended(struct systemd *s, char *buf, size_t n)
{
	char result[32];
	int code, status;

	text_property(s, SYSTEMD ".Service", "Result", result, sizeof(result));
	code = number_property(s, "ExecMainCode");
	status = number_property(s, "ExecMainStatus");
	snprintf(buf, n, "its result is '%s'", *result ? result : "unknown");
	if (code == CLD_EXITED)
		snprintf(buf + strlen(buf), n - strlen(buf), ", its exit status %d", status);
	else if (code == CLD_KILLED || code == CLD_DUMPED)
		snprintf(buf + strlen(buf), n - strlen(buf), ", it was ended by signal %d", status);
}

static int is_known(struct systemd *s, char *why, size_t n)
{
	char state[24];

	text_property(s, SYSTEMD ".Unit", "LoadState", state, sizeof(state));
	if (!strcmp(state, "loaded"))
		return 0;
	if (!strcmp(state, "not-found"))
		return qmp_why(why, n, "there is no unit '%s': install it, and run 'systemctl daemon-reload'", s->unit);
	return qmp_why(why, n, "unit '%s' cannot be started: systemd has it as '%s', see 'systemctl status %s'", s->unit,
		       *state ? state : "unknown", s->unit);
}

/* --- jobs --- */

/* Until it has ended; false: it has not. */
static bool wait_job(struct systemd *s, uint64_t end)
{
	uint64_t now;
	int r;

	while (!*s->result) {
		r = sd_bus_process(s->bus, NULL);
		if (r < 0)
			return false;
		if (r)
			continue;
		now = ms_now();
		if (now >= end || sd_bus_wait(s->bus, (end - now) * 1000) < 0)
			return false;
	}
	return true;
}

/* StartUnit or StopUnit. 0: it was done. -1: why; *begun: there was, or is, such a job. */
static int run_job(struct systemd *s, const char *method, unsigned int ms, bool *begun, char *why, size_t n)
{
	uint64_t end = ms_now() + ms;
	sd_bus_error error = SD_BUS_ERROR_NULL;
	const char *what = strcmp(method, "StartUnit") ? "stopped" : "started", *job = NULL;
	sd_bus_message *m = NULL;
	int r;

	*begun = false;
	*s->job = *s->result = 0;
	r = sd_bus_match_signal(s->bus, NULL, SYSTEMD, THE_MANAGER, MANAGER, "JobRemoved", on_removed, s);
	if (r >= 0)
		r = sd_bus_call_method(s->bus, SYSTEMD, THE_MANAGER, MANAGER, "Subscribe", &error, NULL, NULL);
	if (r >= 0)
		r = sd_bus_call_method(s->bus, SYSTEMD, THE_MANAGER, MANAGER, method, &error, &m, "ss", s->unit, "replace");
	if (r >= 0)
		r = sd_bus_message_read(m, "o", &job);
	if (r >= 0) {
		*begun = true;
		/* signals that came before this answer wait until sd_bus_process() */
		snprintf(s->job, sizeof(s->job), "%s", job);
	} else if (sd_bus_error_is_set(&error)) {
		qmp_why(why, n, "systemd has not %s unit '%s': %s", what, s->unit, error.message ?: error.name);
	} else {
		no_bus(why, n, r);
	}
	sd_bus_error_free(&error);
	sd_bus_message_unref(m);
	if (!*begun)
		return -1;
	if (!wait_job(s, end))
		return qmp_why(why, n, "unit '%s' is not %s after %u ms, see 'systemctl status %s'", s->unit, what, ms, s->unit);
	if (!strcmp(s->result, "done"))
		return 0;
	return qmp_why(why, n, "unit '%s' was not %s: systemd says '%s'", s->unit, what, s->result);
}

static int stop(struct systemd *s, unsigned int ms, char *why, size_t n)
{
	char state[24];
	bool begun;

	active_state(s, state);
	if (is_over(state))
		return 0;
	if (run_job(s, "StopUnit", ms, &begun, why, n))
		return -1;
	active_state(s, state);
	if (is_over(state))
		return 0;
	return qmp_why(why, n, "unit '%s' was stopped, but is '%s': what starts it again?", s->unit, *state ? state : "unknown");
}

/* --- what is asked of it --- */

int unit_start(const char *unit, unsigned int ms, char *why, size_t n)
{
	char state[24], how[128], words[400], last[QMP_WHY];
	struct systemd s;
	bool begun = false;
	int err = -1;

	if (open_bus(&s, unit, ms, why, n))
		return -1;
	if (is_known(&s, why, n))
		goto out;
	active_state(&s, state);
	if (!is_over(state)) {
		qmp_why(why, n, "unit '%s' is '%s' already: end its guest there, or run 'systemctl stop %s'", unit, *state ? state : "unknown", unit);
		goto out;
	}
	err = run_job(&s, "StartUnit", ms, &begun, why, n);
	if (err && begun) {
		if (!strcmp(s.result, "failed")) {
			how_it_ended(&s, how, sizeof(how));
			unit_last_words(unit, words, sizeof(words));
			qmp_why(why, n, "unit '%s' was not started: %s%s", unit, how, words);
		}
		if (stop(&s, ms, last, sizeof(last)))
			snprintf(why + strlen(why), n - strlen(why), "; and %s", last);
	}
out:
	close_bus(&s);
	return err;
}

int unit_stop(const char *unit, unsigned int ms, char *why, size_t n)
{
	struct systemd s;
	int err;

	if (open_bus(&s, unit, ms, why, n))
		return -1;
	err = stop(&s, ms, why, n);
	close_bus(&s);
	return err;
}

bool unit_ended(const char *unit, char *why, size_t n)
{
	char state[24], how[128], words[400], last[QMP_WHY];
	struct systemd s;
	bool over;

	if (open_bus(&s, unit, ANSWER_MS, last, sizeof(last)))
		return false;
	active_state(&s, state);
	over = is_over(state);
	if (over) {
		how_it_ended(&s, how, sizeof(how));
		unit_last_words(unit, words, sizeof(words));
		qmp_why(why, n, "unit '%s' has ended: %s%s", unit, how, words);
	}
	close_bus(&s);
	return over;
}

/* --- without systemd --- */

bool unit_has_file(const char *unit)
{
	static const char *const dirs[] = {
		"/etc/systemd/system", "/etc/systemd/system.attached", "/etc/systemd/system.control", "/run/systemd/system",
		"/run/systemd/system.attached", "/run/systemd/system.control", "/run/systemd/transient", "/run/systemd/generator",
		"/run/systemd/generator.early", "/run/systemd/generator.late", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
		"/lib/systemd/system",
	};
	const char *at = strchr(unit, '@');
	char file[400];
	size_t i;

	for (i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		snprintf(file, sizeof(file), "%s/%s", dirs[i], unit);
		if (!access(file, F_OK))
			return true;
		/* its template */
		snprintf(file, sizeof(file), "%s/%.*s%s", dirs[i], at ? (int)(at + 1 - unit) : 0, unit, strrchr(unit, '.'));
		if (at && !access(file, F_OK))
			return true;
	}
	return false;
}

/* --- the journal --- */

static void add_words(sd_journal *j, char *buf, size_t n)
{
	const void *data;
	size_t len, used = strlen(buf);

	if (sd_journal_get_data(j, "MESSAGE", &data, &len) < 0 || len <= 8)
		return;
	snprintf(buf + used, n - used, " | %.*s", (int)(len - 8 < 160 ? len - 8 : 160), (const char *)data + 8);
}

/* Of the service's own processes, since it was started the last time; systemd's words about it do not count. */
static bool read_words(const char *unit, const char *invocation, char *buf, size_t n)
{
	char by_unit[300], by_invocation[80];
	sd_journal *j;
	int r, back;

	*buf = 0;
	if (sd_journal_open(&j, SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_SYSTEM) < 0)
		return true;
	snprintf(by_unit, sizeof(by_unit), "_SYSTEMD_UNIT=%s", unit);
	snprintf(by_invocation, sizeof(by_invocation), "_SYSTEMD_INVOCATION_ID=%s", invocation);
	sd_journal_add_match(j, by_unit, 0);
	sd_journal_add_match(j, by_invocation, 0);
	r = sd_journal_seek_tail(j);
	for (back = 0; r >= 0 && back < WORDS_LINES && sd_journal_previous(j) > 0;)
		back++;
	for (r = back; r > 0; r--) {
		add_words(j, buf, n);
		if (r > 1 && sd_journal_next(j) <= 0)
			break;
	}
	sd_journal_close(j);
	return back;
}

void unit_last_words(const char *unit, char *buf, size_t n)
{
	uint64_t end = ms_now() + WORDS_MS;
	sd_bus_message *m = NULL;
	char why[QMP_WHY], invocation[33] = "";
	const uint8_t *id;
	struct systemd s;
	size_t len = 0, i;

	*buf = 0;
	if (open_bus(&s, unit, ANSWER_MS, why, sizeof(why)))
		return;
	if (sd_bus_get_property(s.bus, SYSTEMD, s.path, SYSTEMD ".Unit", "InvocationID", NULL, &m, "ay") >= 0 &&
	    sd_bus_message_read_array(m, 'y', (const void **)&id, &len) >= 0 && len == 16)
		for (i = 0; i < len; i++)
			sprintf(invocation + 2 * i, "%02x", id[i]);
	sd_bus_message_unref(m);
	close_bus(&s);
	if (!*invocation)
		return;
	while (!read_words(unit, invocation, buf, n) && ms_now() < end)
		poll(NULL, 0, 50);
}

/* --- its environment --- */

int unit_environment(const char *file, const char *const *pairs)
{
	const char *c;
	char *text = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&text, &n);
	int err;

	if (!f)
		return ENOMEM;
	for (; pairs[0]; pairs += 2) {
		fprintf(f, "%s=\"", pairs[0]);
		for (c = pairs[1]; *c; c++)
			fprintf(f, "%s%c", strchr("\\\"`$", *c) ? "\\" : "", *c);
		fputs("\"\n", f);
	}
	err = fclose(f) ? ENOMEM : put_file(file, 0644, text, n);
	free(text);
	return err;
}
