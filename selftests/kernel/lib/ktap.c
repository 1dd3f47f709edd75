// SPDX-License-Identifier: GPL-2.0-or-later
#include "ktap.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

jmp_buf ktap_env;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int nr_failures;	/* of the case that runs */
static char skip_why[256];
static size_t cur_nr, cur_total;
static const char *cur_name = "?";
static void (*cleanup)(void);

void ktap_set_cleanup(void (*fn)(void))
{
	cleanup = fn;
}

bool ktap_failed(void)
{
	return __atomic_load_n(&nr_failures, __ATOMIC_RELAXED) != 0;
}

void ktap_fail(const char *file, int line, const char *cond, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	va_list ap;

	pthread_mutex_lock(&lock);
	/* One broken invariant in a loop must not bury the log. */
	if (nr_failures++ < 20) {
		printf("# %s:%d: %s: ", base ? base + 1 : file, line, cond);
		va_start(ap, fmt);
		vprintf(fmt, ap);
		va_end(ap);
		printf("\n");
		fflush(stdout);
	}
	pthread_mutex_unlock(&lock);
}

void ktap_note(const char *fmt, ...)
{
	va_list ap;

	pthread_mutex_lock(&lock);
	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
	pthread_mutex_unlock(&lock);
}

void ktap_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(skip_why, sizeof(skip_why), fmt, ap);
	va_end(ap);
	longjmp(ktap_env, 2);
}

static void on_alarm(int sig)
{
	char buf[256];
	int n;

	(void)sig;
	n = snprintf(buf, sizeof(buf), "not ok %zu %s - time limit\n# the cases behind it did not run (%zu)\n",
		     cur_nr, cur_name, cur_total - cur_nr);
	if (write(1, buf, n) < 0) {
	}
	_exit(KTAP_FAIL);
}

static bool wanted(const char *name, int argc, char **argv)
{
	int i;

	if (argc < 2)
		return true;
	for (i = 1; i < argc; i++)
		if (!strncmp(name, argv[i], strlen(argv[i])))
			return true;
	return false;
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Apart, so that longjmp() finds no live variables of the loop. */
static int run_case(const struct ktap_case *c)
{
	int how = setjmp(ktap_env);

	if (!how)
		c->run();
	return how;
}

int ktap_main(int argc, char **argv, const struct ktap_case *cases, size_t n,
	      const char *(*setup)(void), void (*teardown)(void))
{
	size_t i, nr = 0, passed = 0, skipped = 0;
	bool any_fail = false;
	const char *why = NULL;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 2 && !strcmp(argv[1], "-l")) {
		for (i = 0; i < n; i++)
			printf("%s\n", cases[i].name);
		return 0;
	}
	for (i = 0; i < n; i++)
		cur_total += wanted(cases[i].name, argc, argv);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGALRM, on_alarm);
	printf("KTAP version 1\n1..%zu\n", cur_total);

	cur_name = "setup";
	alarm(120);
	if (setup)
		why = setup();
	for (i = 0; i < n; i++) {
		int how;
		double t0;

		if (!wanted(cases[i].name, argc, argv))
			continue;
		cur_nr = ++nr;
		cur_name = cases[i].name;
		if (why) {
			printf("ok %zu %s # SKIP %s\n", nr, cur_name, why);
			skipped++;
			continue;
		}
		nr_failures = 0;
		t0 = seconds();
		alarm((cases[i].limit_s ? cases[i].limit_s : 60) * ktap_slowness());
		how = run_case(&cases[i]);
		if (cleanup)
			cleanup();
		alarm(0);
		if (nr_failures > 20)
			printf("# and %u more failures\n", nr_failures - 20);
		if (nr_failures) {
			printf("not ok %zu %s\n", nr, cur_name);
			any_fail = true;
		} else if (how == 2) {
			printf("ok %zu %s # SKIP %s\n", nr, cur_name, skip_why);
			skipped++;
		} else {
			printf("ok %zu %s # %.1f s\n", nr, cur_name, seconds() - t0);
			passed++;
		}
	}
	cur_name = "teardown";
	alarm(60);
	if (teardown)
		teardown();
	alarm(0);
	printf("# totals: pass:%zu fail:%zu skip:%zu\n", passed, nr - passed - skipped, skipped);
	if (any_fail)
		return KTAP_FAIL;
	return passed ? KTAP_PASS : KTAP_SKIP;
}

unsigned int ktap_slowness(void)
{
	return access("/sys/kernel/debug/failslab", F_OK) ? 1 : 5;
}
