/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the tests of iovmd's configuration: its code, files to read in a directory of their own, and what was wrong as one line
 * for each mistake: "FILE:LINE: text | remedy".
 */
#ifndef TEST_IOVMD_CONFIG_H
#define TEST_IOVMD_CONFIG_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "ktap.h"

static uint32_t alloc_left = UINT32_MAX;	/* so many allocations succeed */

static inline bool may_alloc(void)
{
	if (alloc_left == UINT32_MAX)
		return true;
	errno = ENOMEM;
	return alloc_left && alloc_left--;
}

static inline void *test_calloc(size_t n, size_t size)
{
	return may_alloc() ? calloc(n, size) : NULL;
}

static inline void *test_malloc(size_t n)
{
	return may_alloc() ? malloc(n) : NULL;
}

static const char *host_name = "build.example.org";	/* of the host, as it is asked for */

static inline int test_gethostname(char *name, size_t n)
{
	snprintf(name, n, "%s", host_name);
	return 0;
}

#define calloc test_calloc
#define malloc test_malloc
#define gethostname test_gethostname
#include "../../userland/common/json.c"
#include "../../userland/common/parse.c"
#include "../../userland/iovmd/config.c"
#include "../../userland/iovmd/config_errors.c"
#include "../../userland/iovmd/config_keys.c"
#include "../../userland/iovmd/config_check.c"
#undef calloc
#undef malloc
#undef gethostname

static char dir[64];			/* where the files are */
static struct config_errors errs;

/* Writes dir/name. */
static inline void put(const char *name, const char *text, size_t n)
{
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	CHECK(f && fwrite(text, 1, n, f) == n && !fclose(f) && !chmod(path, 0644), "%s", path);
}

static inline void put_text(const char *name, const char *text)
{
	put(name, text, strlen(text));
}

static inline struct config *read_a_and_b(const char *a, size_t na, const char *b)
{
	char file[96], conf_d[96];

	snprintf(file, sizeof(file), "%s/a", dir);
	snprintf(conf_d, sizeof(conf_d), "%s/d", dir);
	put("a", a, na);
	if (b)
		put("d/b.conf", b, strlen(b));
	return config_read(file, b ? conf_d : NULL, &errs);
}

static inline struct config *read_a(const char *text)
{
	return read_a_and_b(text, strlen(text), NULL);
}

/* An error as "a:3: text | remedy", with dir left out wherever it is named */
static inline const char *told(unsigned int i)
{
	static char buf[1024];
	char all[1024], *p;

	if (i >= errs.nr || i >= CONFIG_MAX_ERRORS)
		return "(none)";
	snprintf(all, sizeof(all), "%s:%u: %s | %s", errs.e[i].at.file, errs.e[i].at.line, errs.e[i].text, errs.e[i].remedy);
	*buf = 0;
	for (p = all; *p;) {
		size_t len = strlen(dir);

		if (!strncmp(p, dir, len) && p[len] == '/')
			p += len + 1;
		else
			strncat(buf, p++, 1);
	}
	return buf;
}

/* What is wrong with a and perhaps b is this, a line for each error. */
static inline void check_errors(const char *a, size_t na, const char *b, const char *want)
{
	struct config *c = read_a_and_b(a, na, b);
	unsigned int i;
	size_t len;

	CHECK(!c == !!*want, "read: %.60s", a);
	for (i = 0; *want; i++, want += len + !!want[len]) {
		len = strcspn(want, "\n");
		CHECK(strlen(told(i)) == len && !strncmp(told(i), want, len), "%.40s...\n#  is:     %s\n#  wanted: %.*s", a,
		      told(i), (int)len, want);
	}
	CHECK(errs.nr == i, "%.40s...: not expected: %s", a, told(i));
	config_free(c);
	config_errors_free(&errs);
}

static inline void wrong(const char *text, const char *want)
{
	check_errors(text, strlen(text), NULL, want);
}

static inline void wrong2(const char *a, const char *b, const char *want)
{
	check_errors(a, strlen(a), b, want);
}

static inline void right(const char *text)
{
	wrong(text, "");
}

/* Runs all cases; what main() returns */
static inline int config_run(const struct ktap_case *cases, unsigned int nr)
{
	char path[128];
	int status;

	umask(022);
	strcpy(dir, "/tmp/iovmd-config-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/d", dir);
	mkdir(path, 0755);
	status = ktap_run_all(cases, nr);
	snprintf(path, sizeof(path), "rm -r %s", dir);
	return system(path) ? 1 : status;
}

#endif
