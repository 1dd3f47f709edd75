// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults of processes and of memory: the front end, iovmctl, the machine's memory. */
#include "fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int restart_begin(struct fault *f)
{
	u32 q = fault_rnd(f, 0, f->b->queues);

	if (q == f->b->queues)
		snprintf(f->what, sizeof(f->what), "all queues");
	else
		snprintf(f->what, sizeof(f->what), "queue %u", q);
	/* it may have to wait until another fault is over */
	return guest_post(f->g, GUEST_RESTART, q, 60000);
}

static int hotplug_begin(struct fault *f)
{
	return guest_post(f->g, GUEST_HOTPLUG, 0, 60000);
}

static int log_begin(struct fault *f)
{
	return guest_command(f->g, GUEST_LOG, fault_rnd(f, 20, 150), 130000);
}

/* kill -9, and another one: each of the dead one's requests was done or not, once and for all. */
static int guest_begin(struct fault *f)
{
	guest_kill(f->g);
	return guest_start(f->g);
}

static pid_t child(void)
{
	pid_t pid;
	int fd;

	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(0);
	for (fd = 3; fd < 1024; fd++)
		close(fd);
	return 0;
}

/* Killed at some moment of its life: after this long */
static int iovmctl_begin(struct fault *f)
{
	static const char *const what[][3] = {
		{ "failover", BED_DEV }, { "failback", BED_DEV }, { "show", BED_DEV }, { "stats", BED_DEV }, { "watch" },
	};
	unsigned int i = fault_rnd(f, 0, 4);
	pid_t pid;
	int status;

	snprintf(f->what, sizeof(f->what), "%s", what[i][0]);
	pid = child();
	if (pid < 0)
		return -errno;
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execlp("iovmctl", "iovmctl", what[i][0], what[i][1], NULL);
		_exit(127);
	}
	usleep(fault_rnd(f, 0, 40000));
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		snprintf(f->what, sizeof(f->what), "no iovmctl");
		return -EOPNOTSUPP;
	}
	return 0;
}

static u64 available(void)
{
	unsigned long long kib = 0;
	char line[128];
	FILE *p = fopen("/proc/meminfo", "r");

	while (p && fgets(line, sizeof(line), p))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (p)
		fclose(p);
	return kib * 1024;
}

/* A process takes nearly all that is left, and is the first to go. */
static int memory_begin(struct fault *f)
{
	pid_t pid = child();

	if (pid < 0)
		return -errno;
	if (!pid) {
		stor_write_file("/proc/self/oom_score_adj", "1000");
		for (;;) {
			u64 left = available(), n = 8 * MiB;
			char *p;

			if (left < 24 * MiB) {
				sleep_ms(5);
				continue;
			}
			p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (p == MAP_FAILED)
				pause();
			madvise(p, n, MADV_HUGEPAGE);
			for (; n; n -= 4096)
				p[n - 4096] = 1;
		}
	}
	f->pid = pid;
	f->undo = true;
	f->hold_ms = fault_rnd(f, 200, 1000);
	return 0;
}

static int memory_end(struct fault *f)
{
	if (!f->undo)
		return 0;
	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, 0);
	return 0;
}

/* --- failing allocations, of the threads that work for the guest --- */

#define FAILSLAB "/sys/kernel/debug/failslab/"

static int make_it_fail(pid_t pid, const char *value)
{
	char path[300];
	struct dirent *de;
	int n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (de = readdir(dir))) {
		char comm[32] = "";
		FILE *f;

		if (de->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", pid, de->d_name);
		f = fopen(path, "r");
		if (f && !fgets(comm, sizeof(comm), f))
			comm[0] = 0;
		if (f)
			fclose(f);
		/* not the guest's own threads, whose system calls would fail */
		if (!strncmp(comm, "t_torture", 9))
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/make-it-fail", pid, de->d_name);
		n += !stor_write_file(path, value);
	}
	if (dir)
		closedir(dir);
	return n;
}

static int slab_begin(struct fault *f)
{
	char pct[16];
	int n;

	if (access(FAILSLAB "probability", W_OK)) {
		snprintf(f->what, sizeof(f->what), "no failslab in this kernel");
		return -EOPNOTSUPP;
	}
	snprintf(pct, sizeof(pct), "%u", fault_rnd(f, 1, 30));
	stor_write_file(FAILSLAB "task-filter", "Y");
	stor_write_file(FAILSLAB "ignore-gfp-wait", "N");
	stor_write_file(FAILSLAB "verbose", "0");
	stor_write_file(FAILSLAB "interval", "1");
	stor_write_file(FAILSLAB "times", "-1");
	n = make_it_fail(f->g->s->pid, "1");
	if (!n) {
		snprintf(f->what, sizeof(f->what), "no thread of the module's in the front end");
		return -EOPNOTSUPP;
	}
	snprintf(f->what, sizeof(f->what), "%s %% in %d threads", pct, n);
	f->undo = true;
	f->hold_ms = fault_rnd(f, 50, 300);
	return stor_write_file(FAILSLAB "probability", pct);
}

static int slab_end(struct fault *f)
{
	if (!f->undo)
		return 0;
	stor_write_file(FAILSLAB "probability", "0");
	make_it_fail(f->g->s->pid, "0");
	return 0;
}

const struct fault_kind fault_host_kinds[] = {
	{ "queue-restarted", FAULT_ANY, FAULT_ON_NONE, 0, 5, restart_begin, NULL },
	{ "memory-hotplug", FAULT_ANY, FAULT_ON_NONE, 0, 3, hotplug_begin, NULL },
	{ "dirty-log", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 5, log_begin, NULL },
	{ "guest-killed", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 5, guest_begin, NULL },
	{ "iovmctl-killed", FAULT_ANY, FAULT_ON_NONE, 0, 3, iovmctl_begin, NULL },
	{ "memory-pressure", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE | FAULT_SLOW, 1, memory_begin, memory_end },
	{ "failing-allocations", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 4, slab_begin, slab_end },
	{},
};
