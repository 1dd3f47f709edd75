// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fences that user space closes: iovmctl path watch runs the fence command of a path, or takes its disk offline.
 *
 *	                      ┌─ iovmt-a (suspended) ─ path a ─┐
 *	null_blk (in memory) ─┤                                ├─ kt-0
 *	                      └─ iovmt-b ───────────── path b ─┘
 *
 * The fence command is a script that gives iovmt-a a table of errors: what hangs there ends with one when it is released.
 */
#include "fix.h"
#include "one.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 32
#define SECTORS (MB * 2048ull)
#define IO_TIMEOUT_MS 800
#define N 12

static struct ctl_events ev;
static char a_node[64], b_node[64], dir[64], command[128];
static pid_t watcher;
static bool iscsi_up, nvmet_up;

static int helper(const char *what, char nodes[][64], int n);

static void end_watch(int sig)
{
	if (watcher > 0) {
		kill(watcher, sig);
		waitpid(watcher, NULL, 0);
	}
	watcher = 0;
}

static void cleanup(void)
{
	char rm[96];

	end_watch(SIGTERM);
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	dm_suspend("iovmt-a", false);
	ctl_events_close(&ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	if (nvmet_up)
		helper("nvmet-disk down", NULL, 0);
	fix_cleanup();
	if (iscsi_up)
		helper("iscsi-disks down", NULL, 0);
	nvmet_up = iscsi_up = false;
	if (*dir) {
		snprintf(rm, sizeof(rm), "rm -rf %s", dir);
		if (system(rm))
			fprintf(stderr, "# %s is left\n", dir);
	}
	*dir = 0;
}

/* path watch, with what it says as comments of the test's output */
static void watch(void)
{
	watcher = fork();
	T_REQUIRE(watcher >= 0, "fork");
	if (watcher)
		return;
	dup2(STDERR_FILENO, STDOUT_FILENO);
	execlp("iovmctl", "iovmctl", "path", "watch", "kt-0", "--fence-timeout", "30s", NULL);
	fprintf(stderr, "# iovmctl: %s\n", strerror(errno));
	_exit(127);
}

/* The fence command: /bin/sh runs @text in the directory of the case. */
static void script(const char *text)
{
	FILE *f;

	strcpy(dir, "/tmp/t_fence.XXXXXX");
	T_REQUIRE(mkdtemp(dir), "mkdtemp");
	snprintf(command, sizeof(command), "%s/fence", dir);
	f = fopen(command, "w");
	T_REQUIRE(f, "%s", command);
	fprintf(f, "#!/bin/sh\ncd %s || exit 99\n%s\n", dir, text);
	T_REQUIRE(!fclose(f) && !chmod(command, 0755), "%s", command);
}

static bool is_there(const char *name)
{
	char file[160];

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	return !access(file, F_OK);
}

static void touch(const char *name)
{
	char file[160];
	FILE *f;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	f = fopen(file, "w");
	T_REQUIRE(f && !fclose(f), "%s", file);
}

static void create(void)
{
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, "kt-0", SECTORS, 1);
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	strcpy(F[0].name, "kt-0");
}

static struct iovm_path_add by_command(void)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .fence = IOVM_FENCE_NONE, .io_timeout_ms = IO_TIMEOUT_MS,
				   .fence_by = IOVM_FENCE_BY_COMMAND, .fence_after_ms = 1 };

	strcpy(a.fence_command, command);
	return a;
}

static void two(void)
{
	struct iovm_path_add a = by_command();
	int r;

	fix_store_make(MB, 512);
	fix_two_paths(a_node, b_node);
	create();
	r = ctl_path_add_arg("kt-0", "a", a_node, &a);
	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);
	a = (struct iovm_path_add){ .flags = IOVM_PATH_F_ASSUME_SAME, .io_timeout_ms = IOVM_NO_TIMEOUT };
	r = ctl_path_add_arg("kt-0", "b", b_node, &a);
	T_REQUIRE(!r, "path b: %s: %s", strerror(-r), ctl_msg);
	fix_open_mem(0, ALL_FEATURES, 1, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");
}

static void hang_a(bool hang)
{
	int r = dm_suspend("iovmt-a", hang);

	T_REQUIRE(!r, "suspend or resume: %s", strerror(-r));
}

static void writes(struct one *o, int fill)
{
	unsigned int i;

	for (i = 0; i < N; i++)
		one_start(&o[i], 0, VIRTIO_BLK_T_OUT, i * 8, 4096, fill + i);
}

static void writes_end(struct one *o, int timeout_ms)
{
	unsigned int i;

	for (i = 0; i < N; i++)
		T_CHECK(one_wait(&o[i], timeout_ms) && one_status(&o[i]) == 0, "write %u: %s, status %u", i,
			o[i].done ? "ended" : "waits", one_status(&o[i]));
}

static void writes_wait(struct one *o)
{
	unsigned int i;

	for (i = 0; i < N; i++)
		T_CHECK(!one_wait(&o[i], 5), "write %u was issued elsewhere without a fence", i);
}

static void stored(const char *node, int fill)
{
	unsigned int i;
	u8 buf[4096];

	for (i = 0; i < N; i++) {
		T_REQUIRE(!stor_pread(node, buf, sizeof(buf), i * 4096), "read");
		T_CHECK(all_bytes(buf, 4096, fill + i), "block %u: %02x", i, buf[0]);
	}
}

static int event_of_a(int at, u32 type)
{
	int i = ctl_events_wait(&ev, at, type, "kt-0", "a", 15000);

	T_REQUIRE(i >= 0, "no event %u of a", type);
	return i;
}

/* What hung goes on elsewhere once the command has run, and lands nowhere when it is released. */
static void command_fences(void)
{
	static struct one o[N];
	char text[160];

	snprintf(text, sizeof(text), "[ $IOVM_WAITING = %u ] || exit 8\nexec dmsetup load iovmt-a --table '0 %llu error'", N, SECTORS);
	script(text);
	two();
	watch();
	hang_a(true);
	writes(o, 0x30);
	event_of_a(0, IOVM_EV_FENCED);
	writes_end(o, 10000);
	writes(o, 0x60);
	writes_end(o, 10000);
	hang_a(false);
	stored(fix_store, 0x60);
	T_CHECK(!ctl_events_count(&ev, IOVM_EV_FENCE_FAILED, "kt-0"), "the command failed");
	T_CHECK(F[0].d.vqs[0].bad_used == 0, "completed twice");
}

/* Fences once there is a file "go", and fails until then. */
static void script_waits_for_go(void)
{
	char text[160];

	snprintf(text, sizeof(text), "[ -e go ] || exit 3\nexec dmsetup load iovmt-a --table '0 %llu error'", SECTORS);
	script(text);
}

/* A command that does not succeed: the writes wait, and it is said; it is run again, also by another watcher. */
static void command_fails(void)
{
	static struct one o[N];
	struct iovm_path_info p;
	int at, r;

	script_waits_for_go();
	two();
	watch();
	hang_a(true);
	writes(o, 0x30);
	at = event_of_a(0, IOVM_EV_FENCE_FAILED);
	T_CHECK(ev.seen[at].value == 3 && !ev.seen[at].error, "value %llu, error %d", (unsigned long long)ev.seen[at].value,
		ev.seen[at].error);
	writes_wait(o);
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.state == IOVM_PATH_FAILED && p.unsettled == N && p.fence_tries && p.fence_status == 3 && !p.fenced,
		"state %u, %llu unsettled, %u tries, status %d", p.state, (unsigned long long)p.unsettled, p.fence_tries,
		p.fence_status);
	event_of_a(at + 1, IOVM_EV_FENCE_FAILED);
	end_watch(SIGKILL);
	writes_wait(o);
	touch("go");
	watch();
	event_of_a(0, IOVM_EV_FENCED);
	writes_end(o, 10000);
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && !p.unsettled && !p.fence_tries && !p.fence_status && p.fenced, "%llu unsettled, %u tries, status %d",
		(unsigned long long)p.unsettled, p.fence_tries, p.fence_status);
	hang_a(false);
	stored(fix_store, 0x30);
}

static void set_fence(const char *options)
{
	char cmd[320];

	snprintf(cmd, sizeof(cmd), "iovmctl path set kt-0 a %s >&2", options);
	T_CHECK(!system(cmd), "%s", cmd);
}

/* The operator sees that the command is wrong, or that there is none, when writes wait already. */
static void changed(void)
{
	static struct one o[N];
	struct iovm_path_info p;
	char text[256];
	int at, r;

	script_waits_for_go();
	two();
	set_fence("--fence-by hand");
	watch();
	hang_a(true);
	writes(o, 0x30);
	T_REQUIRE(ctl_events_wait_state(&ev, 0, "kt-0", "a", IOVM_PATH_FAILED, 10000) >= 0, "a has not failed");
	sleep_ms(6000);		/* the watcher has looked */
	T_CHECK(!ctl_events_count(&ev, IOVM_EV_FENCE_FAILED, "kt-0"), "the command was run all the same");
	writes_wait(o);

	snprintf(text, sizeof(text), "--fence-after 1ms --fence-command %s", command);
	set_fence(text);
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.fence_by == IOVM_FENCE_BY_COMMAND && !strcmp(p.fence_command, command) && p.fence_after_ms == 1,
		"by %u, after %u, %s", p.fence_by, p.fence_after_ms, p.fence_command);
	at = event_of_a(0, IOVM_EV_FENCE_FAILED);
	T_CHECK(ev.seen[at].value == 3, "value %llu", (unsigned long long)ev.seen[at].value);
	touch("go");
	set_fence("--fence-after 2ms");
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.fence_by == IOVM_FENCE_BY_COMMAND && !strcmp(p.fence_command, command) && p.fence_after_ms == 2,
		"by %u, after %u, %s", p.fence_by, p.fence_after_ms, p.fence_command);
	event_of_a(at, IOVM_EV_FENCED);
	writes_end(o, 10000);
	hang_a(false);
	stored(fix_store, 0x30);
}

/* The path comes back while the command runs: what it made sure of does not count for what was sent since. */
static void too_late(void)
{
	static struct one o[N];
	struct iovm_path_ctl c = { .size = sizeof(c), .op = IOVM_PATH_CTL_FENCED, .dev = "kt-0", .name = "a" };
	struct iovm_path_info p;
	unsigned int i;
	int at, r;

	script("touch began\nwhile [ ! -e go ]; do sleep 0.1; done");
	two();
	watch();
	hang_a(true);
	writes(o, 0x30);
	for (i = 0; i < 300 && !is_there("began"); i++)
		sleep_ms(50);
	T_REQUIRE(is_there("began"), "the command is not run");
	r = ctl_path_get("kt-0", "a", &p);
	T_REQUIRE(!r, "get");
	hang_a(false);
	writes_end(o, 10000);
	T_REQUIRE(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 15000), "a did not come back");

	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILBACK, NULL, 0);
	T_CHECK(!r, "failback: %s: %s", strerror(-r), ctl_msg);
	ctl_events_poll(&ev, 0);
	at = ev.nr_seen;
	hang_a(true);
	writes(o, 0x60);
	T_REQUIRE(ctl_events_wait_state(&ev, at, "kt-0", "a", IOVM_PATH_FAILED, 10000) >= 0, "a has not failed");
	c.id = p.id;
	c.generation = p.generation;
	r = ctl_ioctl(IOVM_PATH_CTL, &c);
	T_CHECK(r == -ESTALE, "a late confirmation: %s", strerror(-r));
	writes_wait(o);
	c.generation++;
	c.id++;
	r = ctl_ioctl(IOVM_PATH_CTL, &c);
	T_CHECK(r == -ESTALE, "of another path: %s", strerror(-r));
	/* the command's own, now */
	touch("go");
	at = event_of_a(at, IOVM_EV_FENCED);
	hang_a(false);
	writes_end(o, 10000);
}

/*
 * A SCSI disk that answers nothing. The midlayer would try five times, as long as the disk is there; what the reset and its
 * time-out end once it is offline ends with an error, and goes elsewhere: without a confirmation by anybody.
 */
static void offline_scsi(void)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .io_timeout_ms = IO_TIMEOUT_MS,
				   .fence_by = IOVM_FENCE_BY_OFFLINE, .fence_after_ms = 1 };
	static struct one o[N];
	struct iovm_path_info p;
	char nodes[1][64], file[96], state[32] = "";
	FILE *f;
	int r;

	script("exit 9");
	fix_store_make(MB, 512);
	r = scsi_debug_load(1, MB, 512, "", nodes);
	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	snprintf(file, sizeof(file), "/sys/block/%s/device/timeout", nodes[0] + 5);
	T_REQUIRE(!stor_write_file(file, "4"), "%s", file);
	create();
	r = ctl_path_add_arg("kt-0", "a", nodes[0], &a);
	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);
	a = (struct iovm_path_add){ .flags = IOVM_PATH_F_ASSUME_SAME, .io_timeout_ms = IOVM_NO_TIMEOUT };
	r = ctl_path_add_arg("kt-0", "b", fix_store, &a);
	T_REQUIRE(!r, "path b: %s: %s", strerror(-r), ctl_msg);
	fix_open_mem(0, ALL_FEATURES, 1, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");

	T_REQUIRE(!scsi_debug_param("opts", "4") && !scsi_debug_param("every_nth", "1"), "scsi_debug");
	writes(o, 0x30);
	watch();
	T_REQUIRE(ctl_events_wait_state(&ev, 0, "kt-0", "a", IOVM_PATH_FAILED, 10000) >= 0, "a has not failed");
	writes_end(o, 20000);
	T_CHECK(!ctl_events_count(&ev, IOVM_EV_FENCED, "kt-0"), "somebody confirmed what nobody knows");
	stored(fix_store, 0x30);
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.state == IOVM_PATH_FAILED && !p.inflight, "a: state %u, %llu in flight", p.state,
		(unsigned long long)p.inflight);
	snprintf(file, sizeof(file), "/sys/block/%s/device/state", nodes[0] + 5);
	f = fopen(file, "r");
	T_CHECK(f && fgets(state, sizeof(state), f) && !strcmp(state, "offline\n"), "the disk is %s", state);
	if (f)
		fclose(f);
	end_watch(SIGTERM);
	scsi_debug_param("opts", "0");
	scsi_debug_param("every_nth", "0");
	/* the operator has looked at it */
	T_REQUIRE(!stor_write_file(file, "running\n"), "%s", file);
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 15000), "a did not come back");
}

/* A script beside the sources (this program is in build/selftests), which prints @n nodes. */
static int helper(const char *what, char nodes[][64], int n)
{
	char cmd[512], self[300];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	FILE *f;
	int i;

	T_REQUIRE(len > 0, "/proc/self/exe");
	self[len] = 0;
	for (i = 0; i < 3; i++)
		*strrchr(self, '/') = 0;
	snprintf(cmd, sizeof(cmd), "%s/selftests/kernel/%s", self, what);
	f = popen(cmd, "r");
	T_REQUIRE(f, "%s", cmd);
	for (i = 0; i < n; i++)
		if (fscanf(f, "%63s", nodes[i]) != 1)
			nodes[i][0] = 0;
	return pclose(f);
}

/* Whose driver ends requests although the other end may still have them. */
static void no_offlining(const char *node)
{
	char cmd[256];
	int r;

	snprintf(cmd, sizeof(cmd), "iovmctl path add kt-0 x %s --fence-by offline --assume-same-data >&2", node);
	r = system(cmd);
	T_CHECK(WIFEXITED(r) && WEXITSTATUS(r) == 4, "%s: status %x", cmd, r);
}

/* The kernel's NVMe target: what resets its controller ends nothing at the other end, and it knows no reservations. */
static void nvme_tcp(void)
{
	struct iovm_path_add a = { .flags = IOVM_PATH_F_ASSUME_SAME, .fence_by = IOVM_FENCE_BY_RESERVATION, .pr_key = 0x11 };
	char what[96], nodes[1][64];
	int r;

	fix_store_make(MB, 512);
	create();
	snprintf(what, sizeof(what), "nvmet-disk up %s", fix_store);
	nvmet_up = true;
	T_REQUIRE(!helper(what, nodes, 1), "no NVMe disk over TCP");
	no_offlining(nodes[0]);
	r = ctl_path_add_arg("kt-0", "a", nodes[0], &a);
	T_CHECK(r == -EOPNOTSUPP && strstr(ctl_msg, "no reservation"), "by reservation: %s: %s", strerror(-r), ctl_msg);
	ktap_note("%s", ctl_msg);
	/* and it is not in use for that */
	r = ctl_path_add_bdev("kt-0", "a", nodes[0], 0, 0);
	T_CHECK(!r && !ctl_path_remove("kt-0", "a", 0), "%s: %s", strerror(-r), ctl_msg);
}

/*
 * Two disks that are one: those that IOVM_RESERVATION_DISKS names (test_nvme of the end-to-end tests), or iSCSI's.
 */
static void two_ways(char nodes[2][64])
{
	const char *given = getenv("IOVM_RESERVATION_DISKS");

	if (given) {
		T_REQUIRE(sscanf(given, "%63s %63s", nodes[0], nodes[1]) == 2, "IOVM_RESERVATION_DISKS: %s", given);
		return;
	}
	if (access("/sbin/iscsid", X_OK))
		ktap_skip("no open-iscsi");
	if (system("modprobe -qn iscsi_target_mod && modprobe -qn iscsi_tcp"))
		ktap_skip("this kernel has no iSCSI");
	iscsi_up = true;
	T_REQUIRE(!helper("iscsi-disks up 32", nodes, 2), "no LUN with reservations");
}

/*
 * Path a hangs with writes; its key is preempted through b, and they go there. What is sent on a later is refused by the disk.
 */
static void reservation(void)
{
	struct iovm_path_add arg = { .flags = IOVM_PATH_F_ASSUME_SAME, .fence = IOVM_FENCE_NONE, .io_timeout_ms = IO_TIMEOUT_MS,
				     .fence_by = IOVM_FENCE_BY_RESERVATION, .pr_key = 0x11 };
	static struct one o[N];
	struct iovm_path_info p;
	char nodes[2][64];
	int r;

	two_ways(nodes);
	create();
	no_offlining(nodes[0]);
	r = dm_create("iovmt-a", dm_linear(nodes[0], SECTORS), a_node);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_path_add_arg("kt-0", "a", a_node, &arg);
	T_REQUIRE(!r, "a: %s: %s", strerror(-r), ctl_msg);
	arg.io_timeout_ms = IOVM_NO_TIMEOUT;
	arg.pr_key = 0x22;
	r = ctl_path_add_arg("kt-0", "b", nodes[1], &arg);
	T_REQUIRE(!r, "b: %s: %s", strerror(-r), ctl_msg);
	fix_open_mem(0, ALL_FEATURES, 1, 128, 48 * MiB, 8 * MiB);
	T_REQUIRE(!ctl_events_open(&ev), "events");

	hang_a(true);
	writes(o, 0x30);
	event_of_a(0, IOVM_EV_FENCED);
	writes_end(o, 10000);
	writes(o, 0x60);
	writes_end(o, 10000);
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_RETRY);
	T_CHECK(r == -EBUSY, "a would get its key back while old writes are under way: %s", strerror(-r));
	/* now they are sent, to a disk that does not take them from there any more */
	hang_a(false);
	T_CHECK(ctl_wait_path_state("kt-0", "a", IOVM_PATH_LIVE, 15000), "a did not come back");
	stored(nodes[1], 0x60);
	/* it has registered again */
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "a", 0);
	T_CHECK(!r, "failover: %s: %s", strerror(-r), ctl_msg);
	writes(o, 0x90);
	writes_end(o, 10000);
	r = ctl_path_get("kt-0", "a", &p);
	T_CHECK(!r && p.state == IOVM_PATH_LIVE && !p.fenced && p.pr_key == 0x11 && !p.fence_tries, "a: state %u, fenced %u",
		p.state, p.fenced);
	stored(nodes[1], 0x90);
}

static void bad_arguments(void)
{
	struct iovm_path_ctl c = { .size = sizeof(c), .op = IOVM_PATH_CTL_FENCE_FAILED, .dev = "kt-0", .name = "a", .status = 1 };
	struct iovm_path_add a;
	int r;

	strcpy(command, "/bin/true");
	fix_store_make(MB, 512);
	create();
#define BAD_ADD(change, sentence) do {							\
		a = by_command();							\
		change;									\
		r = ctl_path_add_arg("kt-0", "a", fix_store, &a);			\
		T_CHECK(r == -EINVAL && strstr(ctl_msg, sentence), "%s: %s: %s", #change, strerror(-r), ctl_msg); \
	} while (0)
	BAD_ADD(a.fence_by = 99, "unknown fence");
	BAD_ADD(a.pad = 1, "padding");
	BAD_ADD(a.fence_command[0] = 0, "absolute");
	BAD_ADD(a.fence_command[0] = '.', "absolute");
	BAD_ADD(a.fence_by = IOVM_FENCE_BY_HAND, "absolute");
	BAD_ADD(memset(a.fence_command, '/', sizeof(a.fence_command)), "too long");
	BAD_ADD(a.fence_after_ms = 3600001, "hour");
	BAD_ADD(a.pr_key = 1, "has a key");
	BAD_ADD((a.fence_command[0] = 0, a.fence_by = IOVM_FENCE_BY_RESERVATION), "has a key");
	BAD_ADD((a.fence_command[0] = 0, a.fence_by = IOVM_FENCE_BY_OFFLINE), "local-error");
	a = by_command();
	r = ctl_path_add_arg("kt-0", "a", fix_store, &a);
	T_REQUIRE(!r, "path a: %s: %s", strerror(-r), ctl_msg);

	r = ctl_ioctl(IOVM_PATH_CTL, &c);
	T_CHECK(r == -EBUSY, "a live path: %s", strerror(-r));
	r = ctl_path_ctl("kt-0", "a", IOVM_PATH_CTL_FAIL);
	T_CHECK(!r, "fail: %s", strerror(-r));
	r = ctl_ioctl(IOVM_PATH_CTL, &c);
	T_CHECK(!r, "fence failed: %s", strerror(-r));
#define BAD_CTL(change) do {								\
		struct iovm_path_ctl save = c;						\
		change;									\
		r = ctl_ioctl(IOVM_PATH_CTL, &c);					\
		T_CHECK(r == -EINVAL, "%s: %s", #change, strerror(-r));			\
		c = save;								\
	} while (0)
	BAD_CTL(c.status = 0);
	BAD_CTL(c.status = -5000);
	BAD_CTL(c.status = 512);
	BAD_CTL(c.pad = 1);
	BAD_CTL(c.op = IOVM_PATH_CTL_FENCED);
	BAD_CTL((c.op = IOVM_PATH_CTL_RETRY, c.status = 0, c.id = 1));
	BAD_CTL(c.fence_by = IOVM_FENCE_BY_OFFLINE);
	BAD_CTL(c.fence_after_ms = 1);
	BAD_CTL(c.fence_command[0] = '/');
	BAD_CTL(c.op = IOVM_PATH_CTL_SET_FENCE);		/* which has no status */
	BAD_CTL(c.op = IOVM_PATH_CTL_SET_FENCE + 1);

	c.op = IOVM_PATH_CTL_SET_FENCE;
	c.status = 0;
	BAD_CTL(c.fence_by = IOVM_FENCE_BY_COMMAND);
	BAD_CTL(c.fence_by = IOVM_FENCE_BY_OFFLINE);		/* of a path whose errors prove nothing */
	BAD_CTL(c.fence_after_ms = 3600001);
	BAD_CTL(c.fence_by = 99);
	BAD_CTL(c.generation = 1);
	c.fence_by = IOVM_FENCE_BY_RESERVATION;
	r = ctl_ioctl(IOVM_PATH_CTL, &c);
	T_CHECK(r == -EOPNOTSUPP && strstr(c.msg, "reservation"), "to a reservation: %s: %s", strerror(-r), c.msg);
}

static const struct ktap_case cases[] = {
	{ "bad_arguments", bad_arguments },
	{ "command_fences", command_fences },
	{ "command_fails", command_fails },
	{ "changed", changed, .limit_s = 120 },
	{ "too_late", too_late },
	{ "offline_scsi", offline_scsi, .limit_s = 60 },
	{ "nvme_tcp", nvme_tcp, .limit_s = 60 },
	{ "reservation", reservation, .limit_s = 90 },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
