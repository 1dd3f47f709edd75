// SPDX-License-Identifier: GPL-2.0-or-later
/* Faults of processes and of memory: the front end, iovmctl, the machine's memory. */
#include "fault.h"
#include "ktap.h"

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
	return guest_command(f->g, GUEST_LOG, fault_time(f, 20, 150), 130000);
}

/* kill -9, and another one: each of the dead one's requests was done or not, once and for all. */
static int guest_begin(struct fault *f)
{
	guest_kill(f->g);
	return guest_start(f->g);
}

/* The front end dies, not the guest: its successor goes on by the record, when what the dead one had issued has ended. */
static int front_begin(struct fault *f)
{
	return guest_post(f->g, GUEST_FRONT_KILL, 0, 60000);
}

pid_t fault_fork(void)
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
		if (fd != ctl_fd())
			close(fd);
	return 0;
}

/* Killed at some moment of its life: after this long */
static int iovmctl_begin(struct fault *f)
{
	const char *const what[][3] = {
		{ "failover", f->b->dev }, { "failback", f->b->dev }, { "show", f->b->dev }, { "stats", f->b->dev }, { "watch" },
	};
	unsigned int i = fault_rnd(f, 0, 4);
	pid_t pid;
	int status;

	snprintf(f->what, sizeof(f->what), "%s", what[i][0]);
	pid = fault_fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execlp("iovmctl", "iovmctl", what[i][0], what[i][1], NULL);
		_exit(127);
	}
	usleep(fault_time(f, 0, 40000));
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
	pid_t pid = fault_fork();

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
	f->hold_ms = fault_time(f, 200, 1000);
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

/* --- failing allocations --- */

#define FAIL_DIR "/sys/kernel/debug/"

static const char *const fail_what[] = { "failslab", "fail_page_alloc" };

static int fail_set(unsigned int what, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), FAIL_DIR "%s/%s", fail_what[what], name);
	return stor_write_file(path, value);
}

/* Of tasks that were chosen, a few of all allocations fail: of slabs, of pages, or both. */
static int fail_begin_some(struct fault *f)
{
	unsigned int kinds = fault_rnd(f, 1, 3), i;
	char pct[16];
	int r = 0;

	if (access(FAIL_DIR "failslab/probability", W_OK)) {
		snprintf(f->what, sizeof(f->what), "no failslab in this kernel");
		return -EOPNOTSUPP;
	}
	snprintf(pct, sizeof(pct), "%u", fault_rnd(f, 1, 30));
	snprintf(f->what, sizeof(f->what), "%s %% of %s", pct, kinds == 1 ? "slabs" : kinds == 2 ? "pages" : "both");
	fail_set(1, "min-order", "0");
	for (i = 0; i < ARRAY_SIZE(fail_what); i++) {
		fail_set(i, "task-filter", "Y");
		fail_set(i, "ignore-gfp-wait", "N");
		fail_set(i, "verbose", "0");
		fail_set(i, "interval", "1");
		fail_set(i, "times", "-1");
		if (kinds & 1 << i)
			r = fail_set(i, "probability", pct) ?: r;
	}
	return r;
}

static void fail_end_all(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(fail_what); i++)
		fail_set(i, "probability", "0");
}

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

/* Those of the threads that work for the guest */
static int slab_begin(struct fault *f)
{
	int n, r = fail_begin_some(f);

	if (r)
		return r;
	f->undo = true;
	n = make_it_fail(f->g->s->owner, "1");
	if (!n) {
		snprintf(f->what, sizeof(f->what), "no thread of the module's in the front end");
		return -EOPNOTSUPP;
	}
	f->hold_ms = fault_time(f, 50, 300);
	return 0;
}

static int slab_end(struct fault *f)
{
	if (!f->undo)
		return 0;
	fail_end_all();
	make_it_fail(f->g->s->owner, "0");
	return 0;
}

#define STARVED_DEV	"kt-x"
#define STARVED_PATH	"x"

/* What an operator and a VMM ask for: each call does it, or fails and leaves nothing behind. */
static void starve(struct fault *f)
{
	static struct gmem mem;
	struct iovm_dev_create c;
	struct iovm_dev_info info;
	struct iovm_path_stats stats;
	struct vdev d;

	/* its own memory is there before */
	if (gmem_add(&mem, 0, 4 * MiB, GMEM_ANON) < 0)
		_exit(1);
	memset(mem.r[0].hva, 1, 4 * MiB);
	mem.r[0].used = 4096;
	stor_write_file("/proc/self/make-it-fail", "1");
	for (;;) {
		switch (fault_rnd(f, 0, 8)) {
		case 0:
			ctl_dev_ctl(f->b->dev, IOVM_DEV_FAILOVER, NULL, 0);
			break;
		case 1:
			ctl_dev_ctl(f->b->dev, IOVM_DEV_FAILBACK, NULL, 0);
			break;
		case 2:
			if (!ctl_dev_ctl(f->b->dev, IOVM_DEV_SUSPEND, NULL, 0))
				while (ctl_dev_ctl(f->b->dev, IOVM_DEV_RESUME, NULL, 0))
					;
			break;
		case 3:
			ctl_path_add_nbd(f->b->dev, STARVED_PATH, 0, 0, 0, 0);
			break;
		case 4:
			ctl_path_remove(f->b->dev, STARVED_PATH, IOVM_PATH_REMOVE_F_FORCE);
			break;
		case 5:
			ctl_dev_get(f->b->dev, &info);
			ctl_path_stats(f->b->dev, f->b->path[0].name, &stats);
			break;
		case 6:
			ctl_dev_defaults(&c, STARVED_DEV, f->b->sectors, 2);
			c.blk.block_size = f->b->block;
			if (!ctl_dev_create(&c))
				ctl_path_add_nbd(STARVED_DEV, STARVED_PATH, 0, 0, 0, 0);
			break;
		case 7:
			ctl_dev_destroy(STARVED_DEV, IOVM_DESTROY_F_FORCE);
			break;
		case 8:
			mem.r[0].used = 4096;
			if (access(VHOST_IOVM_NODE_DIR "/" STARVED_DEV, F_OK) ||
			    vdev_open_node(&d, VHOST_IOVM_NODE_DIR "/" STARVED_DEV))
				break;
			if (!vdev_setup(&d, &mem, ~BIT64(VHOST_F_LOG_ALL), 2, 64) && !vdev_start(&d))
				vdev_stop(&d);
			vdev_close(&d);
			break;
		}
	}
}

static int starved_begin(struct fault *f)
{
	int r = fail_begin_some(f);
	pid_t pid;

	if (r)
		return r;
	pid = fault_fork();
	if (!pid)
		starve(f);
	if (pid < 0) {
		fail_end_all();
		return -errno;
	}
	f->pid = pid;
	f->undo = true;
	f->hold_ms = fault_time(f, 100, 500);
	return 0;
}

static int starved_end(struct fault *f)
{
	if (!f->undo)
		return 0;
	/* killed at any moment: what it has suspended, it does not resume */
	fail_end_all();
	kill(f->pid, SIGKILL);
	waitpid(f->pid, NULL, 0);
	ctl_dev_ctl(f->b->dev, IOVM_DEV_RESUME, NULL, 0);
	ctl_path_remove(f->b->dev, STARVED_PATH, IOVM_PATH_REMOVE_F_FORCE);
	ctl_destroy_all(STARVED_DEV);
	return 0;
}

const struct fault_kind fault_host_kinds[] = {
	{ "queue-restarted", FAULT_ANY, FAULT_ON_NONE, 0, 5, restart_begin, NULL },
	{ "memory-hotplug", FAULT_ANY, FAULT_ON_NONE, 0, 3, hotplug_begin, NULL },
	{ "dirty-log", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE | FAULT_NO_RECORD, 5, log_begin, NULL },
	{ "guest-killed", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 5, guest_begin, NULL },
	{ "front-end-killed", FAULT_ANY, FAULT_ON_NONE, FAULT_RECORD, 20, front_begin, NULL },
	{ "iovmctl-killed", FAULT_ANY, FAULT_ON_NONE, 0, 3, iovmctl_begin, NULL },
	{ "memory-pressure", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE | FAULT_SLOW, 1, memory_begin, memory_end },
	{ "failing-allocations", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 4, slab_begin, slab_end },
	{ "starved-operator", FAULT_ANY, FAULT_ON_NONE, FAULT_ALONE, 3, starved_begin, starved_end },
	{},
};
