// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userland/iovmd/incoming.c with real shell scripts, real QEMUs (7.2 and 10), and a stand-in for systemd: what an operator can
 * get wrong about the command that starts the destination's QEMU, and that whatever was started is ended again, for certain.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"
#include "../../userland/iovmd/qmp.c"
#include "../../userland/iovmd/qemu.c"
#include "../../userland/iovmd/stream_key.c"
#include "../../userland/common/put_file.c"
#include "../../userland/iovmd/unit.c"
#include "../../userland/iovmd/incoming.c"
#include "ktap.h"
#include "fake_systemd.h"
#include "qemu_pair.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct incoming_job job;
static struct incoming in;
static char why[QMP_WHY], qmp_path[96], log_path[96], script[1600];
static pid_t left_over;		/* of the case before */

static void begin_case(const char *command)
{
	snprintf(qmp_path, sizeof(qmp_path), "%s/b.qmp", dir);
	snprintf(log_path, sizeof(log_path), "%s/b.log", dir);
	job = (struct incoming_job){ .guest = "vm one", .qmp = qmp_path, .command = command, .log = log_path, .listen = "127.0.0.1" };
	memset(&in, 0, sizeof(in));
	unlink(qmp_path);
	unlink(log_path);
	*why = 0;
	left_over = 0;
}

/* Words for a shell: QEMU, as an operator would start it, with these in place of -incoming and -S */
static const char *receiver(const char *before, const char *options)
{
	snprintf(script, sizeof(script), "%s %s %s -qmp unix:\"$IOVM_QMP\",server=on,wait=off", before, machine(), options);
	return script;
}

#define GOOD	"-incoming \"$IOVM_INCOMING\" -S"

static bool prepare_fails(const char *with)
{
	bool good = incoming_prepare(&job, &in, why, sizeof(why)) && strstr(why, with);

	printf("# %s\n", why);
	return good;
}

/* Ended, if not reaped by whoever is its parent */
static bool gone(pid_t pid)
{
	char stat[512] = "";

	return pid > 0 && (read_proc(pid, "stat", stat, sizeof(stat)) < 0 || !strncmp(strrchr(stat, ')'), ") Z", 3));
}

static int send_qmp(const char *command)
{
	struct qmp q;
	int err;

	if (qmp_open(&q, qmp_path, 5000, why, sizeof(why)))
		return -1;
	err = qmp_execute(&q, command, 5000, NULL, why, sizeof(why));
	qmp_close(&q);
	return err;
}

/* ---- a command that is right ---- */

static void prepares(void)
{
	begin_case(receiver("echo \"for $IOVM_GUEST\"; exec", GOOD));
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!strncmp(in.uri, "tcp:127.0.0.1:", 14) && strtoul(in.uri + 14, NULL, 10), "%s", in.uri);
	CHECK(in.pid > 0 && in.born && born(in.pid) == in.born);
	CHECK(getsid(in.pid) == in.pid);
	CHECK(incoming_find(&job, why, sizeof(why)) == GUEST_AWAITED);
	CHECK(incoming_accept(&job, why, sizeof(why)) && strstr(why, "is waited for"), "%s", why);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
	CHECK(incoming_find(&job, why, sizeof(why)) == GUEST_GONE);
	/* and again: there is nothing to end */
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!incoming_abort(&job, NULL, why, sizeof(why)), "%s", why);
}

static void environment_and_log(void)
{
	char text[256] = "";
	sigset_t set, old;
	int fd;

	/* 0, 1, 2 and the directory; by the shell alone, which blocks signals while it waits for others */
	begin_case(receiver("echo \"$IOVM_GUEST/$IOVM_INCOMING/$IOVM_QMP\"; set -- /proc/$$/fd/*; echo $#; "
			    "while read -r l; do case $l in SigBlk:*) echo \"$l\";; esac; done </proc/$$/status; exec", GOOD));
	/* what is the agent's own affair */
	fd = open("/dev/null", O_RDONLY);
	sigfillset(&set);
	sigprocmask(SIG_BLOCK, &set, &old);
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(fd);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	fd = open(log_path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	CHECK(!strncmp(text, "vm one/defer/", 13) && strstr(text, "/b.qmp\n4\nSigBlk:\t0000000000000000\n"), "%s", text);
}

static void known_by_monitor_only(void)
{
	begin_case(receiver("exec", GOOD));
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!incoming_abort(&job, NULL, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
}

static void not_exec(void)
{
	begin_case(receiver("", GOOD));
	strcat(script, "; echo ended");
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
}

static void daemonised(void)
{
	begin_case(receiver("exec", GOOD " -daemonize"));
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
}

static void port_range(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(addr);

	/* the first port of the range is taken */
	CHECK(!bind(fd, (struct sockaddr *)&addr, len) && !listen(fd, 1) && !getsockname(fd, (struct sockaddr *)&addr, &len));
	begin_case(receiver("exec", GOOD));
	job.port = ntohs(addr.sin_port);
	CHECK(prepare_fails("Address already in use"));
	job.last_port = (uint16_t)(job.port + 8);
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(strtoul(in.uri + 14, NULL, 10) > job.port && strtoul(in.uri + 14, NULL, 10) <= job.last_port, "%s", in.uri);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	job.port = 0;
	job.listen = "::1";
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!strncmp(in.uri, "tcp:[::1]:", 10), "%s", in.uri);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	close(fd);
}

/* ---- a command that is wrong ---- */

static void dies(void)
{
	begin_case("echo one; echo 'no such machine' >&2; exit 3");
	CHECK(prepare_fails("ended with exit status 3 | one | no such machine"));
	begin_case("kill -9 $$");
	CHECK(prepare_fails("was ended by signal 9, without a word"));
	begin_case("exec /no/such/program");
	CHECK(prepare_fails("/no/such/program"));
	begin_case(receiver("exec", GOOD " -device nonsense"));
	CHECK(prepare_fails("'nonsense' is not a valid device model name"));
	begin_case("exec true");
	job.log = "/no/such/dir/log";
	CHECK(prepare_fails("cannot write the log /no/such/dir/log"));
}

static void old_log(void)
{
	begin_case("echo before; exit 1");
	CHECK(prepare_fails("exit status 1 | before"));
	job.command = "exit 1";
	CHECK(prepare_fails("exit status 1, without a word"));
}

/* It does not end, and no monitor comes: it is ended. */
static void no_monitor(void)
{
	char text[32] = "";
	int fd;

	begin_case("echo $$; trap '' TERM; while :; do sleep 1; done");
	job.start_ms = 500;
	job.end_ms = 300;
	CHECK(prepare_fails("after 500 ms: cannot connect to the monitor"));
	fd = open(log_path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	CHECK(gone(atoi(text)), "%s", text);
}

static void runs_at_once(void)
{
	begin_case(receiver("exec", "-incoming \"$IOVM_INCOMING\""));
	CHECK(prepare_fails("was started without -S"));
	CHECK(gone(in.pid));
}

static void no_incoming(void)
{
	begin_case(receiver("exec", "-S"));
	CHECK(prepare_fails("was that started with -incoming defer?"));
	CHECK(gone(in.pid));
	begin_case(receiver("exec", ""));
	CHECK(prepare_fails("the guest runs in the QEMU that is to receive it"));
	CHECK(gone(in.pid));
	begin_case(receiver("exec", "-incoming tcp:127.0.0.1:0 -S"));
	CHECK(prepare_fails("QEMU refuses 'migrate-incoming'"));
	CHECK(gone(in.pid));
}

static void there_already(void)
{
	struct incoming second;

	begin_case(receiver("exec", GOOD));
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(incoming_prepare(&job, &second, why, sizeof(why)) && strstr(why, "already, whose guest is waited for"), "%s", why);
	CHECK(incoming_find(&job, why, sizeof(why)) == GUEST_AWAITED);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
}

static void started_by_somebody(void)
{
	char command[1200];
	pid_t pid;

	begin_case(NULL);
	job.start_ms = 300;
	CHECK(prepare_fails("cannot connect to the monitor"));
	job.start_ms = 0;
	setenv("IOVM_QMP", qmp_path, 1);
	setenv("IOVM_INCOMING", "defer", 1);
	snprintf(command, sizeof(command), "%s", receiver("", GOOD));
	pid = spawn(command);
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(in.pid == pid);
	/* it listens already */
	CHECK(prepare_fails("QEMU refuses 'migrate-incoming'"));
	CHECK(incoming_find(&job, why, sizeof(why)) == GUEST_AWAITED);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(child_ended(&pid));
}

/* ---- ending ---- */

static void ends_a_stopped_qemu(void)
{
	begin_case(receiver("exec", GOOD));
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	kill(in.pid, SIGSTOP);
	job.answer_ms = 300;
	job.end_ms = 300;
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
}

/* The number of a process that has ended is another's now. */
static void leaves_others_alone(void)
{
	pid_t other = fork();

	if (!other) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
		_exit(0);
	}
	begin_case("true");
	job.end_ms = 200;
	in = (struct incoming){ .pid = other, .born = born(other) + 1 };
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	in.born = 0;
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!waitpid(other, NULL, WNOHANG));
	/* but that process is ended */
	in.born = born(other);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(child_ended(&other));
}

static void not_a_running_guest(void)
{
	begin_case(NULL);
	setenv("IOVM_QMP", qmp_path, 1);
	left_over = spawn(receiver("", ""));
	for (int i = 0; i < 500 && incoming_find(&job, why, sizeof(why)) != GUEST_RUNS; i++)
		usleep(20000);
	CHECK(incoming_abort(&job, NULL, why, sizeof(why)) && strstr(why, "that is not ended"), "%s", why);
	CHECK(!send_qmp("stop"));
	CHECK(incoming_abort(&job, NULL, why, sizeof(why)) && strstr(why, "is paused"), "%s", why);
	CHECK(incoming_accept(&job, why, sizeof(why)) && strstr(why, "is paused"), "%s", why);
	CHECK(!send_qmp("cont"));
	CHECK(guest_works(qmp_path));
	end_child(&left_over);
}

/* A monitor that somebody else has: nothing is known of that QEMU, so it is not certain that it has ended. */
static void monitor_taken(void)
{
	struct qmp other;

	begin_case(receiver("exec", GOOD));
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!qmp_open(&other, qmp_path, 5000, why, sizeof(why)));
	job.answer_ms = 300;
	job.end_ms = 300;
	CHECK(incoming_find(&job, why, sizeof(why)) == GUEST_SILENT && strstr(why, "another program"), "%s", why);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
	qmp_close(&other);
}

/* Whoever listens on the socket is no QEMU: it is not ended, and the answer is that nothing is certain. */
static void no_qemu(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	begin_case("true");
	job.answer_ms = 300;
	job.end_ms = 300;
	strcpy(addr.sun_path, qmp_path);
	CHECK(!bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	left_over = fork();
	if (!left_over) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		listen(fd, 5);
		pause();
		_exit(0);
	}
	close(fd);
	for (int i = 0; i < 500 && incoming_find(&job, why, sizeof(why)) != GUEST_SILENT; i++)
		usleep(10000);
	CHECK(incoming_abort(&job, NULL, why, sizeof(why)) && strstr(why, "does not greet"), "%s", why);
	CHECK(incoming_find(&job, why, sizeof(why)) == GUEST_SILENT);
	CHECK(!waitpid(left_over, NULL, WNOHANG));
}

/* ---- a systemd unit ---- */

/* It gets what its environment file says, as systemd would give it. */
static void unit_case(const char *start)
{
	static char env[96];
	char text[2400];

	begin_case(NULL);
	snprintf(env, sizeof(env), "%s/env", dir);
	unlink(env);
	job.unit = "iovm-guest@vm1.service";
	job.env = env;
	job.start_ms = 2000;
	fake_put("load", "loaded");
	fake_put("active", "inactive");
	fake_put("result", "");
	fake_put("verbs", "");
	snprintf(text, sizeof(text), ". %s || exit\n[ \"$IOVM_GUEST\" = 'vm one' ] || exit\n%s\n", env, start);
	fake_put("start", text);
	snprintf(text, sizeof(text), "[ ! -e %s/pid ] || kill $(cat %s/pid)\nrm -f %s/pid\necho done\n", dir, dir, dir);
	fake_put("stop", text);
}

static void unit(void)
{
	char options[200], start[2000];
	struct incoming second;

	snprintf(options, sizeof(options), "$IOVM_INCOMING_ARGS -daemonize -pidfile %s/pid", dir);
	snprintf(start, sizeof(start), "%s\necho done", receiver("", options));
	unit_case(start);
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(!strcmp(fake_get("verbs"), "start\n"), "%s", fake_get("verbs"));
	CHECK(!access(job.env, F_OK));
	/* that it is up is known */
	CHECK(incoming_prepare(&job, &second, why, sizeof(why)) && strstr(why, "already, whose guest is waited for"), "%s", why);
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
	CHECK(!strcmp(fake_get("verbs"), "start\nstop\n"), "%s", fake_get("verbs"));
	/* whose QEMU is known by its monitor alone, and hangs: it is stopped all the same */
	unit_case(start);
	CHECK(!incoming_prepare(&job, &in, why, sizeof(why)), "%s", why);
	kill(in.pid, SIGSTOP);
	job.answer_ms = job.end_ms = 300;
	CHECK(!incoming_abort(&job, &in, why, sizeof(why)), "%s", why);
	CHECK(gone(in.pid));
}

static void bad_unit(void)
{
	unit_case("echo failed");
	fake_put("result", "exit-code 1 203");
	CHECK(prepare_fails("unit 'iovm-guest@vm1.service' was not started: its result is 'exit-code', its exit status 203"));
	/* it is started, and ends at once, or soon */
	unit_case("echo done failed");
	fake_put("result", "exit-code 1 1");
	CHECK(prepare_fails("has ended: its result is 'exit-code', its exit status 1"));
	/* no monitor comes; it is stopped */
	unit_case("echo done");
	job.start_ms = 1000;
	CHECK(prepare_fails("after 1000 ms: cannot connect to the monitor"));
	CHECK(!strcmp(fake_get("verbs"), "start\nstop\n"), "%s", fake_get("verbs"));
	/* nor can it be stopped */
	unit_case("echo done");
	job.start_ms = job.end_ms = 2000;
	fake_put("stop", "echo canceled");
	CHECK(prepare_fails("; and unit 'iovm-guest@vm1.service' was not stopped: systemd says 'canceled'"));
	unit_case("echo done");
	job.env = "/no/such/dir/env";
	CHECK(prepare_fails("cannot write '/no/such/dir/env'"));
	CHECK(!*fake_get("verbs"), "%s", fake_get("verbs"));
}

static const struct ktap_case cases[] = {
	{ "prepared, found, ended", prepares },
	{ "environment, descriptors and log of the command", environment_and_log },
	{ "ended when only the monitor is known", known_by_monitor_only },
	{ "a command that does not exec", not_exec },
	{ "a command that goes into the background", daemonised },
	{ "ports and addresses", port_range },
	{ "a command that fails at once", dies },
	{ "what an older command wrote is not shown", old_log },
	{ "no monitor comes", no_monitor },
	{ "without -S", runs_at_once },
	{ "without -incoming defer", no_incoming },
	{ "another one is there already", there_already },
	{ "started by somebody else", started_by_somebody },
	{ "one that does not react is ended", ends_a_stopped_qemu },
	{ "a process with the same number is left alone", leaves_others_alone },
	{ "a guest that runs is not ended", not_a_running_guest },
	{ "the monitor is somebody else's", monitor_taken },
	{ "the monitor is no QEMU's", no_qemu },
	{ "a systemd unit", unit },
	{ "a systemd unit that fails", bad_unit },
};

/* An argument: only cases with these words in their name. */
int main(int argc, char **argv)
{
	unsigned int nr = sizeof(cases) / sizeof(*cases);
	char name[160];

	make_dir();
	fake_systemd(dir);
	ktap_plan(nr * 2);
	for (unsigned int v = 0; (qemu = qemu_nr(v)); v++)
		for (unsigned int i = 0; i < nr; i++) {
			snprintf(name, sizeof(name), "QEMU %s: %s", v ? "10" : "7.2", cases[i].name);
			if (argc < 2 || strstr(name, argv[1]))
				ktap_run(name, cases[i].run);
			end_child(&left_over);
		}
	remove_dir();
	return ktap_status();
}
