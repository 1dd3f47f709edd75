// SPDX-License-Identifier: GPL-2.0-or-later
/* What the machine did meanwhile: see cost.h. */
#include "cost.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool idle_from_timer_list(u64 *idle)
{
	FILE *f = fopen("/proc/timer_list", "r");
	char line[256];
	bool any = false;
	u64 sum = 0;

	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long v;

		if (sscanf(line, " .idle_sleeptime : %llu nsecs", &v) == 1 ||
		    sscanf(line, " .iowait_sleeptime : %llu nsecs", &v) == 1) {
			sum += v;
			any = true;
		}
	}
	if (f)
		fclose(f);
	if (any)
		*idle = sum;
	return any;
}

static void read_stat(struct cost *c)
{
	FILE *f = fopen("/proc/stat", "r");
	unsigned long long idle, iowait, n;
	char line[4096];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "cpu  %*u %*u %*u %llu %llu", &idle, &iowait) == 2)
			c->idle = (idle + iowait) * (1000000000ull / sysconf(_SC_CLK_TCK));
		if (sscanf(line, "ctxt %llu", &n) == 1)
			c->ctxt = n;
	}
	if (f)
		fclose(f);
}

bool cost_now(struct cost *c)
{
	bool precise;

	memset(c, 0, sizeof(*c));
	c->begin = now_ns();
	read_stat(c);
	precise = idle_from_timer_list(&c->idle);
	c->end = now_ns();
	return precise;
}

u64 cost_wall(const struct cost *from, const struct cost *to)
{
	return to->begin - from->end;
}

u64 cost_busy(const struct cost *from, const struct cost *to, unsigned int cpus)
{
	u64 all = cost_wall(from, to) * cpus, idle = to->idle - from->idle;

	return idle > all ? 0 : all - idle;
}

static void task_usage(const char *dir, struct usage *u)
{
	char path[640], line[256];
	unsigned long long v;
	FILE *f;

	snprintf(path, sizeof(path), "%s/schedstat", dir);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%llu", &v) == 1)
			u->ns += v;
		fclose(f);
	}
	snprintf(path, sizeof(path), "%s/status", dir);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %llu", &v) == 1 ||
		    sscanf(line, "nonvoluntary_ctxt_switches: %llu", &v) == 1)
			u->ctxt += v;
	if (f)
		fclose(f);
}

void cost_tasks(const char *dir, const char *prefix, struct usage *u)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[512], comm[64] = "";
		FILE *f;

		if (!isdigit(e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "%s/%.32s/comm", dir, e->d_name);
		f = prefix ? fopen(path, "r") : NULL;
		if (f) {
			if (!fgets(comm, sizeof(comm), f))
				comm[0] = 0;
			fclose(f);
		}
		if (prefix && strncmp(comm, prefix, strlen(prefix)))
			continue;
		snprintf(path, sizeof(path), "%s/%.32s", dir, e->d_name);
		task_usage(path, u);
	}
	if (d)
		closedir(d);
}
