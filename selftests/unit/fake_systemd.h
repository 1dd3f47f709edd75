/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stand-in for the system bus with systemd on it, for tests of userland/iovmd: a process that serves one connection after the other. What
 * it is to answer is in files of a directory, and what it was asked in another one:
 *
 *	load	the LoadState of every unit			active	the ActiveState
 *	result	Result, ExecMainCode and ExecMainStatus		verbs	"start" and "stop", a line each
 *	start, stop	scripts, run before the job ends: the first word of their output is its result, without one it does not end; the
 *			second one is the ActiveState after it, else it is active or inactive after one that is done
 */
#ifndef FAKE_SYSTEMD_H
#define FAKE_SYSTEMD_H

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

static const char *fake_dir;

static inline void fake_put(const char *name, const char *text)
{
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", fake_dir, name);
	f = fopen(path, "we");
	CHECK(f && fputs(text, f) >= 0 && !fclose(f), "%s", path);
}

static inline const char *fake_get(const char *name)
{
	static char text[256];
	char path[160];
	size_t n = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", fake_dir, name);
	f = fopen(path, "re");
	if (f) {
		n = fread(text, 1, sizeof(text) - 1, f);
		fclose(f);
	}
	text[n] = 0;
	return text;
}

static inline void fake_removed(sd_bus *bus, const char *unit, const char *result)
{
	sd_bus_message *m = NULL;

	CHECK(sd_bus_message_new_signal(bus, &m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "JobRemoved") >= 0 &&
	      sd_bus_message_append(m, "uoss", 7u, "/job/7", unit, result) >= 0 && sd_bus_message_set_sender(m, ":1.0") >= 0 &&
	      sd_bus_send(bus, m, NULL) >= 0);
	sd_bus_message_unref(m);
}

/* A job: the script, and what comes of it */
static inline int fake_job(sd_bus_message *m, const char *verb, const char *active)
{
	char command[256], out[64] = "", result[24] = "", state[24] = "";
	const char *unit;
	FILE *f;
	int r;

	r = sd_bus_message_read(m, "ss", &unit, NULL);
	if (r < 0)
		return r;
	snprintf(command, sizeof(command), "echo %s >>%s/verbs; sh %s/%s", verb, fake_dir, fake_dir, verb);
	f = popen(command, "re");
	if (f) {
		out[fread(out, 1, sizeof(out) - 1, f)] = 0;
		pclose(f);
	}
	sscanf(out, "%23s %23s", result, state);
	if (*state || !strcmp(result, "done"))
		fake_put("active", *state ? state : active);
	/* the signal comes before the answer that says which job it is: systemd may be as fast */
	if (*result)
		fake_removed(sd_bus_message_get_bus(m), unit, result);
	return sd_bus_reply_method_return(m, "o", "/job/7");
}

static inline int fake_property(sd_bus_message *m)
{
	char result[32] = "success", id[16] = "an invocation id";
	const char *interface, *name;
	int code = 0, status = 0, r;
	sd_bus_message *reply;

	r = sd_bus_message_read(m, "ss", &interface, &name);
	if (r < 0)
		return r;
	sscanf(fake_get("result"), "%31s %d %d", result, &code, &status);
	if (!strcmp(name, "LoadState"))
		return sd_bus_reply_method_return(m, "v", "s", fake_get("load"));
	if (!strcmp(name, "ActiveState"))
		return sd_bus_reply_method_return(m, "v", "s", fake_get("active"));
	if (!strcmp(name, "Result"))
		return sd_bus_reply_method_return(m, "v", "s", result);
	if (!strcmp(name, "ExecMainCode") || !strcmp(name, "ExecMainStatus"))
		return sd_bus_reply_method_return(m, "v", "i", strstr(name, "Code") ? code : status);
	r = sd_bus_message_new_method_return(m, &reply);
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'v', "ay");
	if (r >= 0)
		r = sd_bus_message_append_array(reply, 'y', id, sizeof(id));
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return r;
}

static inline int fake_message(sd_bus_message *m, void *data, sd_bus_error *error)
{
	const char *member = sd_bus_message_get_member(m);
	const char *unit;

	(void)data;
	if (!member)
		return 0;
	if (!strcmp(member, "Hello"))
		return sd_bus_reply_method_return(m, "s", ":1.1");
	if (!strcmp(member, "AddMatch") || !strcmp(member, "RemoveMatch") || !strcmp(member, "Subscribe"))
		return sd_bus_reply_method_return(m, "");
	if (!strcmp(member, "Get"))
		return fake_property(m);
	if (!strcmp(member, "LoadUnit") && sd_bus_message_read(m, "s", &unit) > 0)
		return strchr(unit, '/') ? sd_bus_error_set(error, SD_BUS_ERROR_INVALID_ARGS, "no such name") :
			sd_bus_reply_method_return(m, "o", "/unit");
	if (!strcmp(member, "StartUnit") && !strcmp(fake_get("load"), "refused"))
		return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "not you");
	if (!strcmp(member, "StartUnit"))
		return fake_job(m, "start", "active");
	if (!strcmp(member, "StopUnit"))
		return fake_job(m, "stop", "inactive");
	return 0;
}

static inline void fake_serve(int fd)
{
	sd_id128_t id = SD_ID128_MAKE(1, 2, 3, 4, 5, 6, 7, 8, 9, a, b, c, d, e, f, 0);
	sd_bus *bus;
	int r;

	if (sd_bus_new(&bus) < 0 || sd_bus_set_fd(bus, fd, fd) < 0 || sd_bus_set_server(bus, 1, id) < 0 ||
	    sd_bus_add_filter(bus, NULL, fake_message, NULL) < 0 || sd_bus_start(bus) < 0)
		_exit(1);
	do {
		r = sd_bus_process(bus, NULL);
		if (!r)
			r = sd_bus_wait(bus, UINT64_MAX);
	} while (r >= 0);
	sd_bus_close_unref(bus);
}

/* The directory's socket is the system bus from here on; ends with the test. */
static inline void fake_systemd(const char *dir)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	char address[160];
	int fd, one;

	fake_dir = dir;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/bus", dir);
	snprintf(address, sizeof(address), "unix:path=%s/bus", dir);
	setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1);
	unlink(a.sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(!bind(fd, (struct sockaddr *)&a, sizeof(a)) && !listen(fd, 16));
	if (!fork()) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGCHLD, SIG_DFL);
		while ((one = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
			/* each in a process of its own: a job that does not end holds nobody up */
			if (fork()) {
				close(one);
				continue;
			}
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			fake_serve(one);
			_exit(0);
		}
		_exit(1);
	}
	close(fd);
}

#endif
