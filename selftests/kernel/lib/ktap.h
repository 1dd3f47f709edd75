/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * KTAP for test programs: a table of named cases, each with a time limit, run in order.
 *
 *	static void case_x(void) { T_CHECK(a == b, "a is %d", a); }
 *	static const struct ktap_case cases[] = { { "x", case_x }, { "y", case_y, .limit_s = 60 } };
 *	int main(int argc, char **argv) { return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, teardown); }
 *
 * `prog NAME...` runs the cases whose name begins with one of the arguments; `prog -l` lists them.
 * T_CHECK() notes a failure and goes on; T_REQUIRE() leaves the case (main thread only). Exit: 0 all passed, 1
 * something failed, 4 nothing could be run. A case that runs over its limit ends the program.
 */
#ifndef KTAP_H
#define KTAP_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#endif

#define KTAP_PASS	0
#define KTAP_FAIL	1
#define KTAP_SKIP	4

struct ktap_case {
	const char *name;
	void (*run)(void);
	unsigned int limit_s;		/* times ktap_slowness(); 0 = 60 */
};

extern jmp_buf ktap_env;

/* setup() returns NULL, or why nothing can run. teardown() runs in any case. Either may be NULL. */
int ktap_main(int argc, char **argv, const struct ktap_case *cases, size_t n,
	      const char *(*setup)(void), void (*teardown)(void));
/* Called after each case, passed or not: removes what it left behind. */
void ktap_set_cleanup(void (*fn)(void));

void ktap_fail(const char *file, int line, const char *cond, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void ktap_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
void ktap_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool ktap_failed(void);			/* the case that runs */
/* So many times longer may things take here: where everything is checked, everything is slow. */
unsigned int ktap_slowness(void);

#define T_CHECK(cond, ...) ({						\
	bool ok_ = (cond);						\
	if (!ok_)							\
		ktap_fail(__FILE__, __LINE__, #cond, __VA_ARGS__);	\
	ok_; })
#define T_REQUIRE(cond, ...) do {					\
	if (!(cond)) {							\
		ktap_fail(__FILE__, __LINE__, #cond, __VA_ARGS__);	\
		longjmp(ktap_env, 1);					\
	}								\
} while (0)
/* A call that must fail with -1 and this errno */
#define T_ERRNO(call, want) ({						\
	errno = 0;							\
	long r_ = (call);						\
	int e_ = errno;							\
	T_CHECK(r_ == -1 && e_ == (want), "returned %ld, errno %d (%s), wanted %d (%s)",	\
		r_, r_ == -1 ? e_ : 0, r_ == -1 ? strerror(e_) : "-", (want), strerror(want)); })

#endif /* KTAP_H */
