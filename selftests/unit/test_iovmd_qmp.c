// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userland/iovmd/qmp.c, qemu.c and migrate.c against monitors that do what no QEMU should: one that says what a case tells it to,
 * and a model of a QEMU, whose every answer in the course of a migration is spoilt in every way, one at a time.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"
#include "../../userland/iovmd/qmp.c"
#include "../../userland/iovmd/qemu.c"
#include "../../userland/iovmd/migrate.c"
#include "../../userland/iovmd/stream_key.c"
#include "../../userland/iovmd/migrate_back.c"
#include "ktap.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define GREETING	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n"
#define HELLO		GREETING, "{\"return\": {}, \"id\": 1}\r\n"

static char sock_path[96];
static char why[QMP_WHY];
static pid_t server;
static int server_fd;		/* the listener */

static void listen_here(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	unlink(sock_path);
	strcpy(addr.sun_path, sock_path);
	server_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(server_fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(server_fd, 8)) {
		perror(sock_path);
		exit(1);
	}
}

static void server_end(void)
{
	if (server > 0) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	server = 0;
}

static bool put(int fd, const char *text, size_t n)
{
	return send(fd, text, n, MSG_NOSIGNAL) == (ssize_t)n;
}

/* The next line without its end; false: the client has gone. */
static bool get_line(int fd, char *line, size_t n)
{
	size_t len = 0;

	while (len < n - 1 && read(fd, line + len, 1) == 1)
		if (line[len++] == '\n')
			break;
	line[len] = 0;
	return len && line[len - 1] == '\n';
}

/* ---- a monitor that follows a script ---- */

/* Says the first text, then one for each line that it gets, then nothing; NULL closes. chunk: bytes at a time, 0 all. */
static void serve_script(const char *const *texts, size_t chunk)
{
	int fd = accept(server_fd, NULL, NULL);
	char line[4096];
	size_t n, at, step;

	for (; *texts; texts++) {
		n = strlen(*texts);
		step = chunk ?: n;
		for (at = 0; at < n; at += step) {
			put(fd, *texts + at, at + step < n ? step : n - at);
			if (step < n)
				usleep(200);
		}
		if (!strncmp(*texts, "stay", 4))
			pause();
		if (!get_line(fd, line, sizeof(line)))
			break;
	}
	close(fd);
	/* the listener stays until it is ended */
	pause();
}

static void start_script(const char *const *texts, size_t chunk)
{
	server_end();
	listen_here();
	server = fork();
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve_script(texts, chunk);
		_exit(0);
	}
	close(server_fd);
}

#define SCRIPT(chunk, ...)	start_script((const char *const[]){ __VA_ARGS__, NULL }, chunk)

#define SOON	300		/* ms: when nothing is to come */
#define LATER	5000		/* ms: when it is, on a busy host too */

static enum qmp_result open_within(struct qmp *q, unsigned int ms)
{
	*why = 0;
	return qmp_open(q, sock_path, ms, why, sizeof(why));
}

static enum qmp_result open_it(struct qmp *q)
{
	return open_within(q, LATER);
}

static void nobody_there(void)
{
	char path[200];
	struct qmp q;

	server_end();
	unlink(sock_path);
	CHECK(open_it(&q) == QMP_CLOSED && strstr(why, "No such file"), "%s", why);
	listen_here();
	close(server_fd);
	CHECK(open_it(&q) == QMP_CLOSED && strstr(why, "refused"), "%s", why);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	CHECK(qmp_open(&q, path, SOON, why, sizeof(why)) == QMP_BAD && strstr(why, "more than 107 characters"), "%s", why);
	CHECK(qmp_open(&q, "/dev/null", SOON, why, sizeof(why)) != QMP_OK && *why, "%s", why);
	CHECK(qemu_find(sock_path, SOON, why, sizeof(why)) == GUEST_GONE);
}

static void bad_greetings(void)
{
	static const struct {
		const char *text, *with;
		enum qmp_result r;
	} bad[] = {
		{ "QEMU 7.2.0 monitor - type 'help' for more information\r\n", "is it in QMP mode", QMP_BAD },
		{ "{\"QMP\": \r\n", "no line of QMP", QMP_BAD },
		{ "[]\r\n", "not an object", QMP_BAD },
		{ "{}\n", "no QMP greeting", QMP_BAD },
		{ "{\"QMP\": 5}\n", "no QMP greeting", QMP_BAD },
		{ "\n", "no line of QMP", QMP_BAD },
		{ "\xff\xfe\n", "no line of QMP", QMP_BAD },
		{ "{\"QMP\": {}}", "does not greet", QMP_TIMEOUT },
		{ "stay", "does not greet: perhaps another program", QMP_TIMEOUT },
	};
	struct qmp q;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		unsigned int ms = bad[i].r == QMP_TIMEOUT ? SOON : LATER;

		SCRIPT(0, bad[i].text, "stay");
		CHECK(open_within(&q, ms) == bad[i].r && strstr(why, bad[i].with), "%zu: %s", i, why);
		SCRIPT(0, bad[i].text, "stay");
		CHECK(qemu_find(sock_path, ms, why, sizeof(why)) == GUEST_SILENT && strstr(why, bad[i].with), "%zu: %s", i, why);
	}
	/* closed at once: nobody is there, as far as can be told; the caller may try again */
	start_script((const char *const[]){ NULL }, 0);
	CHECK(open_it(&q) == QMP_CLOSED && strstr(why, "closed"), "%s", why);
	SCRIPT(0, GREETING, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}, \"id\": 1}\n");
	CHECK(open_it(&q) == QMP_ERROR && strstr(why, "refuses 'qmp_capabilities': no (CommandNotFound)"), "%s", why);
}

static void answers(size_t chunk)
{
	struct json_node *reply;
	struct qmp q;

	SCRIPT(chunk, HELLO, "{\"return\": {\"status\": \"running\", \"new\": [1, -2.5e3, null]}, \"id\": 2}\n",
	       "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": \"a\\nb\", \"data\": 1}}\n",
	       "{\"return\": [1], \"id\": 4}\n{\"event\": \"X\"}\n");
	CHECK(!open_it(&q), "%s", why);
	CHECK(q.pid == getpid());
	CHECK(!qmp_execute(&q, "query-status", LATER, &reply, why, sizeof(why)), "%s", why);
	CHECK(reply && !strcmp(qmp_str(reply, "status"), "running") && !*qmp_str(reply, "new") && !*qmp_str(reply, "none"));
	CHECK(!qmp_object(reply, "status") && !qmp_u64(reply, "status"));
	json_free(reply);
	CHECK(qmp_execute(&q, "stop", LATER, &reply, why, sizeof(why)) == QMP_ERROR);
	CHECK(!reply && !strcmp(why, "QEMU refuses 'stop': a b (GenericError)"), "%s", why);
	CHECK(!strcmp(q.error_class, "GenericError") && !q.broken);
	CHECK(!qmp_execute(&q, "list", LATER, &reply, why, sizeof(why)) && reply->type == JSON_ARRAY && !qmp_u64(reply, "x"));
	json_free(reply);
	qmp_close(&q);
	qmp_close(&q);
}

static void whole_and_in_bytes(void)
{
	answers(0);
	answers(1);
	answers(7);
}

static void bad_answers(void)
{
	static const struct {
		const char *text, *with;
		enum qmp_result r;
	} bad[] = {
		{ "{\"return\": {}}\n", "what is no answer to it", QMP_BAD },
		{ "{\"return\": {}, \"id\": 3}\n", "what is no answer to it", QMP_BAD },
		{ "{\"return\": {}, \"id\": \"2\"}\n", "what is no answer to it", QMP_BAD },
		{ "{\"return\": {}, \"id\": -1}\n", "what is no answer to it", QMP_BAD },
		{ "{\"id\": 2}\n", "neither a result nor an error", QMP_BAD },
		{ "{\"id\": 2, \"error\": 5}\n", "no reason given (no error class)", QMP_ERROR },
		{ "{\"error\": {\"desc\": \"JSON parse error\"}}\n", "JSON parse error", QMP_ERROR },
		{ "{\"id\": 2, \"return\": {\"a\": 1, \"a\": 2}}\n", "comes twice", QMP_BAD },
		{ "{\"event\": 5}\n", "what is no answer to it", QMP_BAD },
		{ "{\"return\": {}, \"id\": 2}", "does not answer 'query-status' within 300 ms", QMP_TIMEOUT },
		{ "{\"return\": {}, \"id\": 1}\n", "does not answer 'query-status' within 300 ms", QMP_TIMEOUT },
	};
	struct json_node *reply;
	struct qmp q;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		unsigned int ms = bad[i].r == QMP_TIMEOUT ? SOON : LATER;

		SCRIPT(0, HELLO, bad[i].text, "stay");
		CHECK(!open_it(&q), "%s", why);
		CHECK(qmp_execute(&q, "query-status", ms, &reply, why, sizeof(why)) == bad[i].r && strstr(why, bad[i].with),
		      "%zu: %s", i, why);
		CHECK(!reply && (q.broken == QMP_BAD) == (bad[i].r == QMP_BAD), "%zu", i);
		qmp_close(&q);
	}
	SCRIPT(0, HELLO);
	CHECK(!open_it(&q), "%s", why);
	CHECK(qmp_execute(&q, "quit", LATER, &reply, why, sizeof(why)) == QMP_CLOSED && q.broken == QMP_CLOSED, "%s", why);
	qmp_close(&q);
}

/* A reply that comes when it is not waited for any more is not taken for another command's. */
static void late_answer(void)
{
	struct json_node *reply;
	struct qmp q;

	SCRIPT(0, HELLO, "{\"event\": \"A\"}\n", "{\"return\": 1, \"id\": 2}\n{\"return\": 2, \"id\": 3}\n");
	CHECK(!open_it(&q), "%s", why);
	CHECK(qmp_execute(&q, "one", SOON, &reply, why, sizeof(why)) == QMP_TIMEOUT && !q.broken);
	CHECK(!qmp_execute(&q, "two", LATER, &reply, why, sizeof(why)), "%s", why);
	CHECK(reply && reply->u64 == 2);
	json_free(reply);
	qmp_close(&q);
}

static void huge_line(void)
{
	size_t n = QMP_LINE_MAX + 100;
	char *text = malloc(n + 1);
	struct qmp q;

	memset(text, ' ', n);
	text[n] = 0;
	SCRIPT(0, HELLO, text);
	CHECK(!open_it(&q), "%s", why);
	CHECK(qmp_execute(&q, "x", LATER, NULL, why, sizeof(why)) == QMP_BAD && strstr(why, "a line of more than 4 MiB"), "%s", why);
	CHECK(q.in_size <= QMP_LINE_MAX);
	qmp_close(&q);
	/* as long as may be */
	memcpy(text, "{\"id\": 2, \"return\": 1}", 22);
	text[QMP_LINE_MAX - 1] = '\n';
	text[QMP_LINE_MAX] = 0;
	SCRIPT(0, HELLO, text);
	CHECK(!open_it(&q), "%s", why);
	CHECK(!qmp_execute(&q, "x", LATER, NULL, why, sizeof(why)), "%s", why);
	qmp_close(&q);
	free(text);
}

static void some_events(void)
{
	static const char *const ab[] = { "A", "B", NULL }, *const c[] = { "C", NULL }, *const none[] = { NULL };
	struct json_node *event;
	struct qmp q;
	int fds[2];

	SCRIPT(0, HELLO,
	       "{\"event\": \"C\", \"n\": 1}\n{\"event\": \"B\", \"n\": 2}\n"
	       "{\"return\": 1, \"id\": 2}\n{\"event\": \"A\", \"n\": 3}\n", "stay");
	CHECK(!open_it(&q), "%s", why);
	CHECK(!qmp_execute(&q, "x", LATER, NULL, why, sizeof(why)), "%s", why);
	CHECK(!qmp_wait_event(&q, ab, LATER, &event, why, sizeof(why)) && qmp_u64(event, "n") == 2);
	json_free(event);
	CHECK(!qmp_wait_event(&q, ab, LATER, &event, why, sizeof(why)) && qmp_u64(event, "n") == 3);
	json_free(event);
	CHECK(qmp_wait_event(&q, ab, 50, &event, why, sizeof(why)) == QMP_TIMEOUT && !event);
	CHECK(!qmp_wait_event(&q, c, 0, &event, why, sizeof(why)) && qmp_u64(event, "n") == 1);
	json_free(event);
	CHECK(!pipe(fds) && write(fds[1], "", 1) == 1);
	q.wake_fd = fds[0];
	CHECK(qmp_wait_event(&q, ab, LATER, &event, why, sizeof(why)) == QMP_WOKEN && !event);
	server_end();
	CHECK(qmp_wait_event(&q, none, LATER, &event, why, sizeof(why)) == QMP_CLOSED && !event, "%s", why);
	CHECK(qmp_wait_event(&q, none, LATER, &event, why, sizeof(why)) == QMP_CLOSED);
	qmp_close(&q);
	close(fds[0]);
	close(fds[1]);
}

static void many_events(void)
{
	static const char *const e[] = { "E", NULL };
	char *text = malloc(QMP_EVENTS_MAX * 64), *p = text;
	struct json_node *event;
	struct qmp q;

	for (unsigned int i = 0; i < QMP_EVENTS_MAX + 10; i++)
		p += sprintf(p, "{\"event\": \"E\", \"n\": %u}\n", i);
	sprintf(p, "{\"return\": 1, \"id\": 2}\n");
	SCRIPT(0, HELLO, text, "stay");
	CHECK(!open_it(&q), "%s", why);
	CHECK(!qmp_execute(&q, "x", LATER, NULL, why, sizeof(why)), "%s", why);
	CHECK(q.nr_events == QMP_EVENTS_MAX);
	CHECK(!qmp_wait_event(&q, e, 0, &event, why, sizeof(why)) && qmp_u64(event, "n") == 10);
	json_free(event);
	qmp_close(&q);
	free(text);
}

/* A monitor that never reads: what is sent to it has a limit in time, too. */
static void never_reads(void)
{
	enum qmp_result r = QMP_OK;
	struct qmp q;
	int i;

	SCRIPT(0, HELLO, "stay");
	CHECK(!open_it(&q), "%s", why);
	qmp_command(&q, "y");
	CHECK(!send_command(&q, ms_now() + 200, why, sizeof(why)), "%s", why);
	for (i = 0; i < 100000 && !r; i++) {
		struct json *j = qmp_command(&q, "x");

		for (int k = 0; k < 100; k++)
			json_str(j, NULL, "0123456789012345678901234567890123456789");
		r = send_command(&q, ms_now() + 200, why, sizeof(why));
	}
	CHECK((r == QMP_TIMEOUT || r == QMP_BAD) && strstr(why, "does not take the command 'x'"), "%s", why);
	qmp_close(&q);
}

/* ---- where a guest is ---- */

static void places(void)
{
	static const struct {
		const char *state, *status;
		enum guest_at at;
	} is_at[] = {
		{ "running", "", GUEST_RUNS }, { "running", "completed", GUEST_RUNS }, { "running", "cancelled", GUEST_RUNS },
		{ "running", "failed", GUEST_RUNS }, { "running", "setup", GUEST_LEAVING }, { "running", "active", GUEST_LEAVING },
		{ "running", "cancelling", GUEST_LEAVING }, { "running", "some-new-one", GUEST_LEAVING },
		{ "finish-migrate", "active", GUEST_STOPPED }, { "finish-migrate", "pre-switchover", GUEST_STOPPED },
		{ "paused", "device", GUEST_STOPPED }, { "finish-migrate", "completed", GUEST_LEFT },
		{ "postmigrate", "completed", GUEST_LEFT }, { "paused", "", GUEST_PAUSED }, { "prelaunch", "", GUEST_PAUSED },
		{ "paused", "active", GUEST_LEAVING }, { "inmigrate", "", GUEST_AWAITED }, { "inmigrate", "setup", GUEST_AWAITED },
		{ "inmigrate", "active", GUEST_COMING }, { "inmigrate", "completed", GUEST_COMING },
		{ "paused", "completed", GUEST_ARRIVED }, { "shutdown", "", GUEST_BROKEN }, { "guest-panicked", "active", GUEST_BROKEN },
		{ "io-error", "", GUEST_BROKEN }, { "", "", GUEST_BROKEN },
	};

	for (size_t i = 0; i < sizeof(is_at) / sizeof(*is_at); i++)
		CHECK(place(is_at[i].state, is_at[i].status) == is_at[i].at, "%s %s: %s", is_at[i].state, is_at[i].status,
		      guest_at_text[place(is_at[i].state, is_at[i].status)]);
}

/* ---- a model of a QEMU, one answer of which is spoilt ---- */

enum spoil {
	SPOIL_CLOSE,		/* the connection is closed, QEMU lives */
	SPOIL_DIE,
	SPOIL_GARBAGE,
	SPOIL_HALF,		/* half a line, and silence until the client has gone */
	SPOIL_HUGE,
	SPOIL_ERROR,		/* the command is refused */
	SPOIL_SILENT,		/* this one is not answered */
	SPOIL_LATE,		/* answered before the next one */
	SPOIL_EVENTS,
	SPOIL_ID,
	SPOIL_EMPTY,		/* {} */
	SPOIL_TYPE,		/* not of the type that it should be */
	SPOIL_FAIL,		/* the migration fails then, if one is under way */
	NR_SPOILS,
};

static const char *const spoil_names[] = {
	"close", "die", "garbage", "half", "huge", "error", "silent", "late", "events", "id", "empty", "type", "fail",
};

/* Shared with the process that plays QEMU */
struct model {
	char state[32], status[32];
	unsigned int commands, spoil_at, looks;
	enum spoil spoil;
	bool migrated, continued, undone, dead;
	unsigned int conts, conts_before_undo, nr_undo, nr_rolled_back, nr_completed;
	bool refuse;
};

static struct model *m;

static void set_status(int fd, const char *status)
{
	char text[128];

	strcpy(m->status, status);
	snprintf(text, sizeof(text), "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"%s\"}}\n", status);
	put(fd, text, strlen(text));
}

static bool model_under_way(void)
{
	return qemu_under_way(m->status);
}

static void model_stop(int fd, const char *status)
{
	set_status(fd, status);
	strcpy(m->state, "running");
}

/* What the command does, and what is returned for it */
static const char *model_do(int fd, const char *name)
{
	static char text[512];

	if (is(name, "query-status")) {
		snprintf(text, sizeof(text), "{\"status\": \"%s\", \"running\": true}", m->state);
		return text;
	}
	if (is(name, "query-migrate")) {
		if (is(m->status, "setup")) {
			set_status(fd, "active");
		} else if (is(m->status, "active") && ++m->looks == 3) {
			strcpy(m->state, "finish-migrate");
			set_status(fd, "pre-switchover");
		} else if (is(m->status, "device")) {
			strcpy(m->state, "postmigrate");
			set_status(fd, "completed");
		}
		snprintf(text, sizeof(text), *m->status ? "{\"status\": \"%s\", \"total-time\": 5, \"ram\": {\"total\": 9}}" : "{}", m->status);
		return text;
	}
	if (is(name, "query-migrate-capabilities"))
		return "[{\"capability\": \"pause-before-switchover\", \"state\": false}, {\"capability\": \"return-path\", \"state\": false}]";
	if (is(name, "migrate")) {
		m->migrated = true;
		set_status(fd, "setup");
	} else if (is(name, "migrate-continue")) {
		m->continued = true;
		if (is(m->status, "pre-switchover"))
			set_status(fd, "device");
	} else if (is(name, "migrate_cancel")) {
		if (model_under_way())
			model_stop(fd, "cancelled");
	} else if (is(name, "cont")) {
		m->conts++;
		m->conts_before_undo += !m->undone;
		strcpy(m->state, "running");
	}
	return "{}";
}

static void spoil(int fd, const char *reply)
{
	static const char event[] = "{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": -1}}\n";
	static char huge[65536];
	char text[128];

	switch (m->spoil) {
	case SPOIL_DIE:
		m->dead = true;
		_exit(0);
	case SPOIL_GARBAGE:
		put(fd, "\x01\x02 no JSON\n", 11);
		break;
	case SPOIL_HALF:
		put(fd, reply, strlen(reply) / 2);
		while (read(fd, text, sizeof(text)) > 0)
			;
		break;
	case SPOIL_HUGE:
		memset(huge, '[', sizeof(huge));
		for (size_t i = 0; i <= QMP_LINE_MAX / sizeof(huge); i++)
			if (!put(fd, huge, sizeof(huge)))
				break;
		break;
	case SPOIL_EVENTS:
		for (unsigned int i = 0; i < 300; i++)
			put(fd, event, strlen(event));
		put(fd, reply, strlen(reply));
		break;
	case SPOIL_ID:
		put(fd, "{\"return\": {}, \"id\": 99999}\n", 28);
		break;
	case SPOIL_EMPTY:
		put(fd, "{}\n", 3);
		break;
	case SPOIL_FAIL:
		put(fd, reply, strlen(reply));
		if (model_under_way())
			model_stop(fd, "failed");
		break;
	default:
		break;
	}
}

static bool model_answer(int fd, const char *line, char *late)
{
	char error[JSON_READ_ERROR], reply[1024];
	struct json_node *o = json_read(line, strlen(line), error);
	unsigned long id = qmp_u64(o, "id");
	bool bad = m->commands++ == m->spoil_at;
	const char *name = qmp_str(o, "execute");

	if (bad && m->spoil == SPOIL_ERROR) {
		snprintf(reply, sizeof(reply), "{\"id\": %lu, \"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n", id);
	} else if (bad && m->spoil == SPOIL_TYPE) {
		model_do(fd, name);
		snprintf(reply, sizeof(reply), "{\"id\": %lu, \"return\": \"what?\"}\n", id);
	} else {
		snprintf(reply, sizeof(reply), "{\"id\": %lu, \"return\": %s}\n", id, model_do(fd, name));
	}
	if (bad && m->spoil != SPOIL_ERROR && m->spoil != SPOIL_TYPE) {
		if (m->spoil == SPOIL_LATE)
			strcpy(late, reply);
		spoil(fd, reply);
	} else {
		if (*late)
			put(fd, late, strlen(late));
		*late = 0;
		put(fd, reply, strlen(reply));
	}
	if (is(name, "quit") && !bad) {
		m->dead = true;
		_exit(0);
	}
	json_free(o);
	return !bad || m->spoil != SPOIL_CLOSE;
}

static void serve_model(void)
{
	char line[4096], late[1024] = "";
	int fd;

	for (;;) {
		fd = accept(server_fd, NULL, NULL);
		put(fd, GREETING, strlen(GREETING));
		while (get_line(fd, line, sizeof(line)) && model_answer(fd, line, late))
			;
		close(fd);
	}
}

static int model_switchover(void *ctx, char *w, size_t n)
{
	(void)ctx;
	return m->refuse ? qmp_why(w, n, "refused") : 0;
}

static enum migrate_taken model_completed(void *ctx, char *w, size_t n)
{
	(void)ctx;
	m->nr_completed++;
	qmp_why(w, n, "it has not come");
	return is(m->status, "completed") ? MIGRATE_TAKEN : MIGRATE_NOT_TAKEN;
}

static int model_undo(void *ctx, char *w, size_t n)
{
	(void)ctx;
	(void)w;
	(void)n;
	m->nr_undo++;
	m->undone = true;
	return 0;
}

static void model_rolled_back(void *ctx)
{
	(void)ctx;
	m->nr_rolled_back++;
}

static unsigned int nr_asked, nr_held;

/* There is a path when it begins, then there is none. */
static bool model_may_switch(void *ctx)
{
	(void)ctx;
	return nr_asked++ == 0;
}

static void model_progress(void *ctx, const struct migrate_progress *p)
{
	(void)ctx;
	nr_held += is(p->phase, "held");
}

static const struct migrate_ops holding_ops = {
	.switchover = model_switchover, .completed = model_completed, .undo = model_undo, .rolled_back = model_rolled_back,
	.may_switch = model_may_switch, .progress = model_progress,
};

static const struct migrate_ops ops = {
	.switchover = model_switchover, .completed = model_completed, .undo = model_undo, .rolled_back = model_rolled_back,
};

/* A migration whose answer number at is spoilt */
static enum migrate_outcome migrate_spoilt(const struct migrate_ops *with, enum spoil how, unsigned int at, bool refuse,
					   unsigned int answer_ms)
{
	const struct migrate_job job = {
		.qmp = sock_path, .uri = "tcp:192.0.2.1:1", .quit = true, .cancel_fd = -1, .answer_ms = answer_ms, .silent_ms = answer_ms,
		.quit_ms = answer_ms, .setup_ms = LATER, .converge_ms = LATER, .switch_ms = LATER, .cancel_ms = LATER,
	};

	memset(m, 0, sizeof(*m));
	strcpy(m->state, "running");
	m->spoil_at = at;
	m->spoil = how;
	m->refuse = refuse;
	server_end();
	listen_here();
	server = fork();
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve_model();
	}
	close(server_fd);
	*why = 0;
	return migrate_out(&job, with, NULL, why, sizeof(why));
}

/* And what came of it; how many commands there were. */
static unsigned int run_model(enum spoil how, unsigned int at, bool refuse)
{
	/* a QEMU that has stopped to answer; or a wrong answer when the migration is given up, over a connection that is good */
	bool wrong = how == SPOIL_ERROR || how == SPOIL_SILENT || how == SPOIL_LATE || how == SPOIL_TYPE;
	bool may_be_unclear = how == SPOIL_HALF || (refuse && wrong);
	uint64_t since = ms_now();
	enum migrate_outcome outcome;

	outcome = migrate_spoilt(&ops, how, at, refuse, 150);
	/* a busy host? */
	if (outcome == MIGRATE_UNCLEAR && !may_be_unclear)
		outcome = migrate_spoilt(&ops, how, at, refuse, 2000);

#define IT	"%s at %u: %s: %s; %s, %s", spoil_names[how], at, migrate_outcome_text[outcome], why, m->state, m->status
	CHECK(ms_now() - since < 20000, IT);
	CHECK(m->conts_before_undo == 0, IT);
	CHECK(m->nr_undo <= 1 && m->nr_completed <= 1, IT);
	CHECK(m->nr_rolled_back == (outcome == MIGRATE_ROLLED_BACK), IT);
	CHECK(m->nr_completed == 0 || m->continued, IT);
	switch (outcome) {
	case MIGRATE_DONE:
		CHECK(is(m->status, "completed") && m->nr_completed == 1 && m->nr_undo == 0 && (m->dead || *why), IT);
		break;
	case MIGRATE_ROLLED_BACK:
		CHECK(*why && is(m->state, "running") && !model_under_way() && m->nr_undo == 1 && !m->dead, IT);
		break;
	case MIGRATE_REFUSED:
		CHECK(*why && !m->migrated && m->nr_undo == 0, IT);
		break;
	case MIGRATE_BUSY:
		CHECK(0, IT);
		break;
	case MIGRATE_LOST:
		CHECK(*why && m->dead && m->nr_undo == 1, IT);
		break;
	case MIGRATE_UNCLEAR:
		CHECK(*why && may_be_unclear && m->nr_rolled_back == 0, IT);
		break;
	}
	return m->commands;
}

/* The path goes while the memory is sent, and QEMU takes its time to hear of it. (The model goes on nevertheless.) */
static void held(void)
{
	CHECK(migrate_spoilt(&holding_ops, SPOIL_EVENTS, 9, false, LATER) == MIGRATE_DONE, "%s", why);
	CHECK(nr_asked >= 2 && nr_held, "%u %u", nr_asked, nr_held);
}

static void spoilt(bool refuse)
{
	unsigned int i, at, nr;

	nr = run_model(SPOIL_EVENTS, ~0u, refuse);
	CHECK(nr > 12, "%u", nr);
	CHECK(m->dead == !refuse, "%s", why);
	for (i = 0; i < NR_SPOILS && !case_failed; i++)
		for (at = 0; at < nr; at++)
			run_model(i, at, refuse);
	printf("# %u ways to spoil one of %u answers\n", NR_SPOILS, nr);
}

static void spoilt_migration(void)
{
	spoilt(false);
}

static void spoilt_roll_back(void)
{
	spoilt(true);
}

static const struct ktap_case cases[] = {
	{ "nobody listens", nobody_there },
	{ "bad greetings", bad_greetings },
	{ "answers, whole and in pieces", whole_and_in_bytes },
	{ "bad answers", bad_answers },
	{ "a late answer", late_answer },
	{ "huge lines", huge_line },
	{ "events", some_events },
	{ "more events than are kept", many_events },
	{ "a monitor that does not read", never_reads },
	{ "where a guest is", places },
	{ "held in the middle", held },
	{ "a migration with one answer spoilt", spoilt_migration },
	{ "a roll-back with one answer spoilt", spoilt_roll_back },
};

int main(void)
{
	char dir[] = "/tmp/iovmd-qmp-XXXXXX";
	int ret;

	if (!mkdtemp(dir))
		return 1;
	snprintf(sock_path, sizeof(sock_path), "%s/qmp", dir);
	m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m == MAP_FAILED)
		return 1;
	ret = KTAP_RUN(cases);
	server_end();
	unlink(sock_path);
	rmdir(dir);
	return ret;
}
