/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KTAP for the unit tests: checks, and named cases run in order.
 *
 *	static void adds(void) { CHECK(add(1, 2) == 3); CHECK(add(a, b) == c, "with %d and %d", a, b); }
 *	static const struct ktap_case cases[] = { { "adds", adds }, { "overflows", overflows } };
 *	int main(void) { return KTAP_RUN(cases); }
 *
 * CHECK() notes a failure and goes on; a test that finds one in another way sets case_failed. A program that does
 * something between its cases calls ktap_plan(), ktap_run() for each, and returns ktap_status().
 */
#ifndef KTAP_H
#define KTAP_H

#include <stdbool.h>
#include <stdio.h>

struct ktap_case {
	const char *name;
	void (*run)(void);
};

static bool case_failed;	/* the case that runs */
static unsigned int ktap_nr, ktap_nr_failed;

#define CHECK(cond, ...) do { \
	if (!(cond)) { \
		printf("# %s:%d: not so: %s" __VA_OPT__(": "), __FILE__, __LINE__, #cond); \
		__VA_OPT__(printf(__VA_ARGS__);) \
		putchar('\n'); \
		case_failed = true; \
	} \
} while (0)

static inline void ktap_plan(unsigned int nr)
{
	/* No case's child may print what is still in the buffer. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("KTAP version 1\n1..%u\n", nr);
}

static inline void ktap_run(const char *name, void (*run)(void))
{
	case_failed = false;
	run();
	printf("%sok %u %s\n", case_failed ? "not " : "", ++ktap_nr, name);
	ktap_nr_failed += case_failed;
}

/* What main() returns */
static inline int ktap_status(void)
{
	return ktap_nr_failed ? 1 : 0;
}

static inline int ktap_run_all(const struct ktap_case *cases, unsigned int nr)
{
	ktap_plan(nr);
	for (unsigned int i = 0; i < nr; i++)
		ktap_run(cases[i].name, cases[i].run);
	return ktap_status();
}

#define KTAP_RUN(cases)	ktap_run_all(cases, sizeof(cases) / sizeof((cases)[0]))

#endif
