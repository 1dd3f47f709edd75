// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Marks: files below run_dir that say what is under way, for the next iovmd. They do not outlive the host.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "iovmd.h"

static void name_of_mark(char name[256], const char *what, const char *of)
{
	snprintf(name, 256, "%.*s/%s.%s", 160, agent.run_dir, of, what);
}

void mark_set(const char *what, const char *of, const char *text)
{
	char name[256];
	int fd;

	name_of_mark(name, what, of);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		warning("cannot write '%s': %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void mark_clear(const char *what, const char *of)
{
	char name[256];

	name_of_mark(name, what, of);
	unlink(name);
}

bool mark_get(const char *what, const char *of, char *text, size_t n)
{
	char name[256];
	ssize_t r;
	int fd;

	name_of_mark(name, what, of);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	r = read(fd, text, n - 1);
	close(fd);
	text[r > 0 ? r : 0] = 0;
	return true;
}

void mark_refresh(const char *what, const char *of)
{
	char name[256];

	name_of_mark(name, what, of);
	if (utimensat(AT_FDCWD, name, NULL, 0))
		warning("cannot touch '%s': %s", name, strerror(errno));
}

int64_t mark_age_s(const char *what, const char *of)
{
	char name[256];
	struct stat st;

	name_of_mark(name, what, of);
	return stat(name, &st) ? -1 : (int64_t)(time(NULL) - st.st_mtime);
}
