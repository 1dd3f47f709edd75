// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userland/iovmd/migrate.c and incoming.c with two real QEMUs, 7.2 and 10: a guest is migrated, and everything that can end in the
 * middle of it does. After each the guest runs on exactly one side, or has died with its QEMU.
 */
#define _GNU_SOURCE
#include "../../userland/common/json.c"
#include "../../userland/common/json_read.c"
#include "../../userland/iovmd/qmp.c"
#include "../../userland/iovmd/qemu.c"
#include "../../userland/iovmd/stream_key.c"
#include "../../userland/iovmd/migrate.c"
#include "../../userland/iovmd/migrate_back.c"
#include "../../userland/common/put_file.c"
#include "../../userland/iovmd/unit.c"
#include "../../userland/iovmd/incoming.c"
#include "ktap.h"
#include "qemu_pair.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define LITTLE	20000		/* bytes/s: the guest's memory does not get through */

enum victim {
	NOBODY,
	SOURCE,
	DESTINATION,
	MYSELF,
	SOURCE_ENDS,		/* in order */
	SOURCE_SILENT,		/* for two seconds */
};

/* Further options of the QEMUs */
static const char *more_a = "", *more_b = "";

/* The pair, and what the test does at which step */
static struct {
	pid_t a, b;
	char qmp_a[96], qmp_b[96], command[1024], log[96];
	struct migrate_job job;
	struct incoming_job incoming;
	struct incoming in;
	char why[QMP_WHY];

	enum victim at_progress, at_switchover, at_completed;	/* killed then, once */
	unsigned int cancel_at;		/* after so many calls of progress() */
	int cancel_pipe;		/* written to at cancel_at */
	unsigned int yes_first;		/* may_switch() says yes so many times before that */
	int not_before;			/* may_switch() says no so many times; -1 for ever */
	bool refuse;

	unsigned int nr_progress, nr_switchover, nr_completed, nr_undo, nr_rolled_back, nr_held;
	struct migrate_progress last;
	char phases[512];
	unsigned int throttle;		/* the most while it was held */
} t;

static void be_silent(pid_t pid)
{
	kill(pid, SIGSTOP);
	if (fork())
		return;
	sleep(2);
	kill(pid, SIGCONT);
	_exit(0);
}

static void strike(enum victim *victim)
{
	if (*victim == SOURCE)
		end_child(&t.a);
	else if (*victim == DESTINATION)
		end_child(&t.b);
	else if (*victim == MYSELF)
		raise(SIGKILL);
	else if (*victim == SOURCE_ENDS)
		kill(t.a, SIGTERM);
	else if (*victim == SOURCE_SILENT)
		be_silent(t.a);
	*victim = NOBODY;
}

static void on_progress(void *ctx, const struct migrate_progress *p)
{
	(void)ctx;
	t.nr_progress++;
	t.nr_held += !strcmp(p->phase, "held");
	if (!strcmp(p->phase, "held") && p->throttle > t.throttle)
		t.throttle = p->throttle;
	if (!t.last.phase || !strstr(t.phases, p->phase))
		snprintf(t.phases + strlen(t.phases), sizeof(t.phases) - strlen(t.phases), "%s ", p->phase);
	t.last = *p;
	t.last.phase = "";
	if (t.cancel_at && t.nr_progress == t.cancel_at && t.cancel_pipe >= 0 && write(t.cancel_pipe, "", 1) != 1)
		CHECK(0);
	if ((!strcmp(p->phase, "active") || !strcmp(p->phase, "held")) && p->transferred)
		strike(&t.at_progress);
}

static bool on_cancelled(void *ctx)
{
	(void)ctx;
	return t.cancel_at && t.cancel_pipe < 0 && t.nr_progress >= t.cancel_at;
}

static bool on_may_switch(void *ctx)
{
	(void)ctx;
	if (t.yes_first)
		return t.yes_first--;
	if (t.not_before > 0)
		t.not_before--;
	return t.not_before == 0;
}

static bool other_key;

static int on_switchover(void *ctx, char *why, size_t n)
{
	(void)ctx;
	t.nr_switchover++;
	/* one that does not understand what it is sent may have ended before the source notices */
	CHECK(other_key || qemu_find(t.qmp_b, 5000, why, n) == GUEST_COMING);
	strike(&t.at_switchover);
	if (t.refuse)
		return qmp_why(why, n, "no space to write the epoch down");
	return 0;
}

static enum migrate_taken on_completed(void *ctx, char *why, size_t n)
{
	(void)ctx;
	t.nr_completed++;
	strike(&t.at_completed);
	if (!incoming_accept(&t.incoming, why, n))
		return MIGRATE_TAKEN;
	return incoming_abort(&t.incoming, &t.in, why, n) ? MIGRATE_TAKEN_UNKNOWN : MIGRATE_NOT_TAKEN;
}

static int on_undo(void *ctx, char *why, size_t n)
{
	(void)ctx;
	t.nr_undo++;
	return incoming_abort(&t.incoming, &t.in, why, n);
}

static void on_rolled_back(void *ctx)
{
	(void)ctx;
	t.nr_rolled_back++;
}

static const struct migrate_ops ops = {
	.progress = on_progress, .cancelled = on_cancelled, .may_switch = on_may_switch, .switchover = on_switchover,
	.completed = on_completed, .undo = on_undo, .rolled_back = on_rolled_back,
};

/* The key of the stream that the destination gets; NULL none */
static const char *with_key;

static void source_start(void)
{
	char command[1024];

	snprintf(command, sizeof(command), "%s -qmp unix:%s,server=on,wait=off%s", machine(), t.qmp_a, more_a);
	t.a = spawn(command);
	for (int i = 0; i < 500 && qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) != GUEST_RUNS; i++)
		usleep(20000);
}

/* A guest that works, and a QEMU that waits for it; false when there is none. */
static bool pair_start(const char *listen_on_, unsigned int multifd)
{
	memset(&t, 0, sizeof(t));
	t.cancel_pipe = -1;
	snprintf(t.qmp_a, sizeof(t.qmp_a), "%s/a.qmp", dir);
	snprintf(t.qmp_b, sizeof(t.qmp_b), "%s/b.qmp", dir);
	snprintf(t.log, sizeof(t.log), "%s/b.log", dir);
	snprintf(t.command, sizeof(t.command), "exec %s -incoming \"$IOVM_INCOMING\" -S -qmp unix:\"$IOVM_QMP\",server=on,wait=off%s",
		 machine(), more_b);
	t.incoming = (struct incoming_job){ .guest = "vm1", .qmp = t.qmp_b, .command = t.command, .log = t.log, .listen = listen_on_,
					    .multifd = multifd, .key = with_key, .key_dir = FILE_IN_DIR("b.key") };
	source_start();
	CHECK(!incoming_prepare(&t.incoming, &t.in, t.why, sizeof(t.why)), "%s", t.why);
	t.b = t.in.pid;
	t.job = (struct migrate_job){ .qmp = t.qmp_a, .uri = t.in.uri, .multifd = multifd, .quit = true, .cancel_fd = -1,
				      .key = with_key, .key_dir = FILE_IN_DIR("a.key") };
	CHECK(guest_works(t.qmp_a));
	return !case_failed;
}

static void pair_end(void)
{
	end_child(&t.a);
	end_child(&t.b);
	unlink(t.qmp_a);
	unlink(t.qmp_b);
	unlink(t.log);
}

static enum migrate_outcome go(void)
{
	enum migrate_outcome outcome = migrate_out(&t.job, &ops, NULL, t.why, sizeof(t.why));

	if (*t.why)
		printf("# %s: %s\n", migrate_outcome_text[outcome], t.why);
	return outcome;
}

/* The guest went over, and its QEMU here has ended. */
static void check_moved(void)
{
	CHECK(guest_works(t.qmp_b));
	CHECK(child_ended(&t.a));
	CHECK(t.nr_switchover == 1 && t.nr_completed == 1 && t.nr_undo == 0 && t.nr_rolled_back == 0);
	CHECK(t.last.downtime && t.last.total_ms, "%lu %lu", (long)t.last.downtime, (long)t.last.total_ms);
}

/* The guest is where it was, and as it was. */
static void check_back(void)
{
	struct qemu_settings want = { 0 }, old;
	struct qmp q;

	CHECK(guest_works(t.qmp_a));
	CHECK(child_ended(&t.b));
	CHECK(incoming_find(&t.incoming, t.why, sizeof(t.why)) == GUEST_GONE);
	CHECK(t.nr_undo == 1 && t.nr_rolled_back == 1, "%u %u", t.nr_undo, t.nr_rolled_back);
	/* as QEMU begins */
	qemu_wish_cap(&want, CAP_PAUSE, WISH, false);
	qemu_wish_cap(&want, CAP_RETURN_PATH, WISH, false);
	qemu_wish_cap(&want, CAP_EVENTS, WISH, false);
	qemu_wish_cap(&want, CAP_MULTIFD, WISH, false);
	qemu_wish_num(&want, NUM_BANDWIDTH, 128 << 20);
	qemu_wish_num(&want, NUM_DOWNTIME, 300);
	if (!qmp_open(&q, t.qmp_a, 5000, t.why, sizeof(t.why))) {
		CHECK(!qemu_apply(&q, 5000, &want, &old, t.why, sizeof(t.why)));
		for (unsigned int i = 0; i < QEMU_CAPS; i++)
			CHECK(old.cap[i].on == want.cap[i].on, "%s", cap_names[i]);
		for (unsigned int i = 0; i < QEMU_NUMS; i++)
			CHECK(old.num[i].value == want.num[i].value, "%s was %lu", num_names[i], (unsigned long)old.num[i].value);
		qmp_close(&q);
	}
}

/* ---- it works ---- */

static void moves(void)
{
	unsigned long before;

	if (pair_start("127.0.0.1", 0)) {
		before = guest_count(t.qmp_a);
		CHECK(go() == MIGRATE_DONE);
		check_moved();
		CHECK(guest_count(t.qmp_b) > before);
		CHECK(strstr(t.phases, "completed"), "%s", t.phases);
	}
	pair_end();
}

/* With TLS, by a key that both have; with several connections, too. Then what comes of another key, and of none. */
static void moves_with_key(void)
{
	static const char *const others[] = { "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", NULL };
	char key[STREAM_KEY];
	struct stat st;

	CHECK(!stream_key_new(key) && stream_key_good(key) && !stream_key_good("00") && !stream_key_good(NULL), "%s", key);
	with_key = key;
	for (unsigned int multifd = 0; multifd <= 2; multifd += 2) {
		if (pair_start("127.0.0.1", multifd)) {
			CHECK(!stat(FILE_IN_DIR("b.key"), &st) && (st.st_mode & 0777) == 0700);
			CHECK(!stat(FILE_IN_DIR("b.key/keys.psk"), &st) && (st.st_mode & 0777) == 0600);
			/* else QEMU makes its own, which may take it longer than it has for an answer */
			CHECK(!stat(FILE_IN_DIR("b.key/dh-params.pem"), &st) && (st.st_mode & 0777) == 0600 && st.st_size);
			CHECK(go() == MIGRATE_DONE);
			check_moved();
			CHECK(stat(FILE_IN_DIR("a.key"), &st) && errno == ENOENT);
		}
		stream_key_drop(FILE_IN_DIR("b.key"));
		CHECK(stat(FILE_IN_DIR("b.key"), &st) && errno == ENOENT);
		pair_end();
	}
	other_key = true;
	for (unsigned int i = 0; i < 2; i++) {
		if (pair_start("127.0.0.1", 0)) {
			t.job.key = others[i];
			t.job.setup_ms = 3000;
			CHECK(go() == MIGRATE_ROLLED_BACK, "%s", t.why);
			check_back();
		}
		pair_end();
	}
	other_key = false;
	with_key = NULL;
}

static void moves_multifd(void)
{
	char sock[96];

	snprintf(sock, sizeof(sock), "unix:%s/migrate", dir);
	if (pair_start(sock, 3)) {
		t.job.converge = true;
		t.job.throttle_first = 10;
		t.job.throttle_step = 5;
		t.job.throttle_max = 60;
		CHECK(go() == MIGRATE_DONE);
		check_moved();
	}
	pair_end();
}

static void moves_after_hold(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.not_before = 4;
		CHECK(go() == MIGRATE_DONE);
		CHECK(t.nr_held >= 2, "%u", t.nr_held);
		check_moved();
	}
	pair_end();
}

/* Held, the guest's CPUs are not slowed down for a memory that does not converge. */
static void held_with_auto_converge(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.converge = true;
		t.not_before = 5;
		CHECK(go() == MIGRATE_DONE);
		CHECK(t.nr_held >= 2 && t.throttle <= HELD_THROTTLE, "%u %u", t.nr_held, t.throttle);
		check_moved();
	}
	pair_end();
}

static void moves_after_silence(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.at_progress = SOURCE_SILENT;
		t.not_before = 3;
		t.job.answer_ms = 400;
		t.job.bandwidth = 3 << 20;
		CHECK(go() == MIGRATE_DONE);
		CHECK(strstr(t.phases, "silent"), "%s", t.phases);
		check_moved();
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	pair_end();
}

/* Keys that both have (TLS with certificates differs in the object alone) */
static void moves_with_tls(void)
{
	char a[256], b[256];
	FILE *f;

	f = fopen(FILE_IN_DIR("keys.psk"), "w");
	fprintf(f, "qemu:00112233445566778899aabbccddeeff\n");
	fclose(f);
	snprintf(a, sizeof(a), " -object tls-creds-psk,id=tls,dir=%s,endpoint=client,username=qemu", dir);
	snprintf(b, sizeof(b), " -object tls-creds-psk,id=tls,dir=%s,endpoint=server", dir);
	more_a = a;
	more_b = b;
	if (pair_start("127.0.0.1", 2)) {
		CHECK(!incoming_abort(&t.incoming, &t.in, t.why, sizeof(t.why)), "%s", t.why);
		t.incoming.tls_creds = "tls";
		CHECK(!incoming_prepare(&t.incoming, &t.in, t.why, sizeof(t.why)), "%s", t.why);
		t.b = t.in.pid;
		t.job.tls_creds = "tls";
		CHECK(go() == MIGRATE_DONE);
		check_moved();
	}
	pair_end();
	/* only one has it: no guest comes through */
	if (pair_start("127.0.0.1", 0)) {
		t.job.tls_creds = "tls";
		t.job.setup_ms = 3000;
		CHECK(go() == MIGRATE_ROLLED_BACK);
		check_back();
	}
	pair_end();
	more_a = "";
	more_b = "";
}

static void stays_without_quit(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.quit = false;
		CHECK(go() == MIGRATE_DONE);
		CHECK(guest_works(t.qmp_b));
		CHECK(qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) == GUEST_LEFT);
		CHECK(!migrate_quit(&t.job, t.why, sizeof(t.why)), "%s", t.why);
		CHECK(child_ended(&t.a));
		CHECK(!migrate_quit(&t.job, t.why, sizeof(t.why)), "%s", t.why);
		t.job.qmp = t.qmp_b;
		CHECK(migrate_quit(&t.job, t.why, sizeof(t.why)) && strstr(t.why, "runs"), "%s", t.why);
		CHECK(guest_works(t.qmp_b));
	}
	pair_end();
}

/* ---- it is refused ---- */

static void refused(void)
{
	struct qmp q;

	if (pair_start("127.0.0.1", 0)) {
		CHECK(!qmp_open(&q, t.qmp_a, 5000, t.why, sizeof(t.why)));
		CHECK(!qmp_execute(&q, "stop", 5000, NULL, t.why, sizeof(t.why)));
		qmp_close(&q);
		CHECK(go() == MIGRATE_REFUSED && strstr(t.why, "paused"), "%s", t.why);
		end_child(&t.a);
		CHECK(go() == MIGRATE_REFUSED && strstr(t.why, "cannot connect"), "%s", t.why);
		CHECK(t.nr_undo == 0 && t.nr_rolled_back == 0 && t.nr_progress == 0);
	}
	pair_end();
}

static void busy(void)
{
	struct qemu_settings slow = { 0 };
	struct qmp q;

	if (pair_start("127.0.0.1", 0)) {
		CHECK(!qmp_open(&q, t.qmp_a, 5000, t.why, sizeof(t.why)));
		qemu_wish_num(&slow, NUM_BANDWIDTH, LITTLE);
		CHECK(!qemu_apply(&q, 5000, &slow, NULL, t.why, sizeof(t.why)));
		json_str(qmp_command(&q, "migrate"), "uri", t.in.uri);
		CHECK(!qmp_run(&q, 5000, NULL, t.why, sizeof(t.why)), "%s", t.why);
		qmp_close(&q);
		CHECK(go() == MIGRATE_BUSY);
		CHECK(t.nr_undo == 0 && t.nr_rolled_back == 0 && t.nr_progress == 0);
		CHECK(qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) == GUEST_LEAVING);
	}
	pair_end();
}

/* QEMU itself says no: a guest that must not be migrated */
static void blocked(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.uri = "nonsense:";
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "refuses 'migrate'"), "%s", t.why);
		check_back();
	}
	pair_end();
}

/* ---- it is given up ---- */

static void cancelled_by_call(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.cancel_at = 3;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "cancelled"), "%s", t.why);
		CHECK(t.nr_switchover == 0);
		check_back();
	}
	pair_end();
}

static void cancelled_by_fd(void)
{
	int fds[2];

	if (pair_start("127.0.0.1", 2) && !pipe(fds)) {
		t.job.bandwidth = LITTLE;
		t.job.cancel_fd = fds[0];
		t.cancel_pipe = fds[1];
		t.cancel_at = 3;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "cancelled"), "%s", t.why);
		check_back();
		close(fds[0]);
		close(fds[1]);
	}
	pair_end();
}

static void no_convergence(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.job.converge_ms = 2500;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "did not converge within 2500 ms"), "%s", t.why);
		CHECK(t.nr_switchover == 0 && t.nr_progress >= 3);
		CHECK(t.last.remaining && t.last.total && t.last.rate, "%lu", (unsigned long)t.last.rate);
		check_back();
	}
	pair_end();
}

static void held_too_long(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.not_before = -1;
		t.job.hold_ms = 2500;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "no live path"), "%s", t.why);
		CHECK(t.nr_switchover == 0);
		check_back();
	}
	pair_end();
}

/* The path goes and comes while the memory is sent: that time does not count. */
static void held_for_a_while(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.job.converge_ms = 3500;
		t.yes_first = 3;
		t.not_before = 4;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "did not converge"), "%s", t.why);
		CHECK(t.nr_held >= 2 && !t.not_before && t.last.total_ms > 5500, "%u %lu", t.nr_held, (unsigned long)t.last.total_ms);
		check_back();
	}
	pair_end();
}

static void switchover_refused(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.refuse = true;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "no space to write the epoch down"), "%s", t.why);
		CHECK(t.nr_switchover == 1 && t.nr_completed == 0);
		check_back();
	}
	pair_end();
}

/* Connections to the destination do not come about: its queue is full. */
static void no_connection(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[8];
	socklen_t len = sizeof(addr);
	char uri[64];

	CHECK(!bind(fd, (struct sockaddr *)&addr, len) && !listen(fd, 0) && !getsockname(fd, (struct sockaddr *)&addr, &len));
	for (int i = 0; i < 8; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		CHECK(connect(fds[i], (struct sockaddr *)&addr, len) && errno == EINPROGRESS);
	}
	snprintf(uri, sizeof(uri), "tcp:127.0.0.1:%u", ntohs(addr.sin_port));
	if (pair_start("127.0.0.1", 0)) {
		t.job.uri = uri;
		t.job.setup_ms = 1500;
		t.job.cancel_ms = 2000;
		CHECK(go() == MIGRATE_ROLLED_BACK && strstr(t.why, "no connection to the destination's QEMU"), "%s", t.why);
		CHECK(guest_works(t.qmp_a) && child_ended(&t.b) && t.nr_undo == 1 && t.nr_rolled_back == 1);
		close(fd);
	}
	for (int i = 0; i < 8; i++)
		close(fds[i]);
	pair_end();
}

/* ---- the destination's QEMU ends ---- */

static void destination_dead_before(void)
{
	if (pair_start("127.0.0.1", 0)) {
		end_child(&t.b);
		CHECK(go() == MIGRATE_ROLLED_BACK);
		CHECK(t.nr_switchover == 0);
		check_back();
	}
	pair_end();
}

static void destination_dies_active(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.at_progress = DESTINATION;
		CHECK(go() == MIGRATE_ROLLED_BACK);
		CHECK(t.nr_switchover == 0);
		check_back();
	}
	pair_end();
}

static void destination_dies_switching(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.at_switchover = DESTINATION;
		CHECK(go() == MIGRATE_ROLLED_BACK);
		CHECK(t.nr_switchover == 1 && t.nr_completed == 0);
		check_back();
	}
	pair_end();
}

static void destination_dies_completed(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.at_completed = DESTINATION;
		CHECK(go() == MIGRATE_ROLLED_BACK);
		CHECK(t.nr_switchover == 1 && t.nr_completed == 1);
		check_back();
	}
	pair_end();
}

/* ---- the source's QEMU ends ---- */

static void source_dies_active(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.at_progress = SOURCE;
		CHECK(go() == MIGRATE_LOST && strstr(t.why, "QEMU has ended here"), "%s", t.why);
		CHECK(t.nr_undo == 1 && t.nr_rolled_back == 0 && t.nr_completed == 0);
		CHECK(child_ended(&t.b));
	}
	pair_end();
}

static void source_shut_down(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.at_progress = SOURCE_ENDS;
		CHECK(go() == MIGRATE_LOST && strstr(t.why, "was shut down here"), "%s", t.why);
		CHECK(t.nr_undo == 1 && t.nr_rolled_back == 0 && t.nr_completed == 0);
		CHECK(child_ended(&t.b));
	}
	pair_end();
}

static void source_dies_switching(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.incoming.accept_ms = 3000;
		t.at_switchover = SOURCE;
		CHECK(go() == MIGRATE_LOST);
		CHECK(t.nr_completed == 1 && t.nr_undo == 1 && t.nr_rolled_back == 0);
		CHECK(child_ended(&t.b));
	}
	pair_end();
}

/* All was sent: the guest is not lost. */
static void source_dies_completed(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.at_completed = SOURCE;
		CHECK(go() == MIGRATE_DONE);
		check_moved();
	}
	pair_end();
}

/* ---- whoever migrates ends ---- */

/* migrate_out() in a process of its own, which is killed at that step */
static void go_and_die(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		migrate_out(&t.job, &ops, NULL, t.why, sizeof(t.why));
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
}

static void left_active(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.bandwidth = LITTLE;
		t.at_progress = MYSELF;
		go_and_die();
		CHECK(qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) == GUEST_LEAVING);
		CHECK(migrate_back(&t.job, &ops, NULL, t.why, sizeof(t.why)) == MIGRATE_ROLLED_BACK, "%s", t.why);
		CHECK(guest_works(t.qmp_a) && child_ended(&t.b));
		CHECK(t.nr_undo == 1 && t.nr_rolled_back == 1);
	}
	pair_end();
}

static void left_stopped(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.at_switchover = MYSELF;
		go_and_die();
		CHECK(qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) == GUEST_STOPPED);
		CHECK(incoming_find(&t.incoming, t.why, sizeof(t.why)) == GUEST_COMING);
		CHECK(migrate_back(&t.job, &ops, NULL, t.why, sizeof(t.why)) == MIGRATE_ROLLED_BACK, "%s", t.why);
		CHECK(guest_works(t.qmp_a) && child_ended(&t.b));
		CHECK(t.nr_undo == 1 && t.nr_rolled_back == 1);
	}
	pair_end();
}

static void left_completed(bool forward)
{
	if (pair_start("127.0.0.1", 0)) {
		t.at_completed = MYSELF;
		go_and_die();
		CHECK(qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) == GUEST_LEFT);
		CHECK(incoming_find(&t.incoming, t.why, sizeof(t.why)) == GUEST_ARRIVED);
		if (forward) {
			CHECK(!incoming_accept(&t.incoming, t.why, sizeof(t.why)), "%s", t.why);
			CHECK(!incoming_accept(&t.incoming, t.why, sizeof(t.why)), "%s", t.why);
			CHECK(guest_works(t.qmp_b));
			CHECK(!migrate_quit(&t.job, t.why, sizeof(t.why)), "%s", t.why);
			CHECK(child_ended(&t.a));
		} else {
			CHECK(migrate_back(&t.job, &ops, NULL, t.why, sizeof(t.why)) == MIGRATE_ROLLED_BACK, "%s", t.why);
			CHECK(guest_works(t.qmp_a) && child_ended(&t.b));
			CHECK(t.nr_undo == 1 && t.nr_rolled_back == 1);
		}
	}
	pair_end();
}

static void left_completed_forward(void)
{
	left_completed(true);
}

static void left_completed_back(void)
{
	left_completed(false);
}

/* A guest that runs over there is not brought back: undo() will not end its QEMU. */
static void left_by_both(bool all_sent)
{
	if (pair_start("127.0.0.1", 0)) {
		if (all_sent)
			t.at_completed = MYSELF;
		else
			t.at_switchover = MYSELF;
		go_and_die();
		end_child(&t.a);
		t.at_completed = NOBODY;
		t.incoming.accept_ms = 2000;
		CHECK(migrate_back(&t.job, &ops, NULL, t.why, sizeof(t.why)) == (all_sent ? MIGRATE_DONE : MIGRATE_LOST), "%s", t.why);
		if (all_sent)
			CHECK(guest_works(t.qmp_b));
		else
			CHECK(child_ended(&t.b));
	}
	pair_end();
}

static void left_by_both_completed(void)
{
	left_by_both(true);
}

static void left_by_both_stopped(void)
{
	left_by_both(false);
}

static void left_too_late(void)
{
	if (pair_start("127.0.0.1", 0)) {
		t.job.quit = false;
		CHECK(go() == MIGRATE_DONE);
		CHECK(migrate_back(&t.job, &ops, NULL, t.why, sizeof(t.why)) == MIGRATE_UNCLEAR, "%s", t.why);
		CHECK(strstr(t.why, "the guest runs in the QEMU at"), "%s", t.why);
		CHECK(guest_works(t.qmp_b));
		CHECK(qemu_find(t.qmp_a, 5000, t.why, sizeof(t.why)) == GUEST_LEFT);
	}
	pair_end();
}

static const struct ktap_case cases[] = {
	{ "a guest moves over TCP", moves },
	{ "a guest moves over a unix socket, with multifd and auto-converge", moves_multifd },
	{ "a guest moves when its devices have a path, not before", moves_after_hold },
	{ "held, with auto-converge", held_with_auto_converge },
	{ "QEMU is silent for a while", moves_after_silence },
	{ "a guest moves with TLS, or not at all", moves_with_tls },
	{ "a guest moves with a key of its own, or not at all", moves_with_key },
	{ "its QEMU stays when it is not to be ended, until it is", stays_without_quit },
	{ "refused: a guest that is paused, or not there", refused },
	{ "busy: somebody else's migration", busy },
	{ "QEMU refuses to migrate: rolled back", blocked },
	{ "cancelled by a call", cancelled_by_call },
	{ "cancelled by a descriptor, with multifd", cancelled_by_fd },
	{ "no convergence", no_convergence },
	{ "no path for too long", held_too_long },
	{ "no path for a while", held_for_a_while },
	{ "no connection", no_connection },
	{ "the switchover is refused", switchover_refused },
	{ "the destination ended before", destination_dead_before },
	{ "the destination ends while memory is sent", destination_dies_active },
	{ "the destination ends when the guest is stopped", destination_dies_switching },
	{ "the destination ends when it has all, and does not run it", destination_dies_completed },
	{ "the source ends while memory is sent", source_dies_active },
	{ "the source is shut down", source_shut_down },
	{ "the source ends when the guest is stopped", source_dies_switching },
	{ "the source ends when the destination has all", source_dies_completed },
	{ "found again while memory is sent", left_active },
	{ "found again with the guest stopped", left_stopped },
	{ "found again when completed, goes forward", left_completed_forward },
	{ "found again when completed, goes back", left_completed_back },
	{ "found again when the source has ended too, all was sent", left_by_both_completed },
	{ "found again when the source has ended too, not all was sent", left_by_both_stopped },
	{ "found again when it runs over there", left_too_late },
};

/* An argument: only cases with these words in their name. */
int main(int argc, char **argv)
{
	unsigned int nr = sizeof(cases) / sizeof(*cases);
	char name[160];

	make_dir();
	ktap_plan(nr * 2);
	for (unsigned int v = 0; (qemu = qemu_nr(v)); v++)
		for (unsigned int i = 0; i < nr; i++) {
			snprintf(name, sizeof(name), "QEMU %s: %s", v ? "10" : "7.2", cases[i].name);
			if (argc < 2 || strstr(name, argv[1]))
				ktap_run(name, cases[i].run);
		}
	remove_dir();
	return ktap_status();
}
