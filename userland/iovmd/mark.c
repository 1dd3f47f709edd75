// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Marks: files below run_dir that say what is under way, for the next iovmd.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"

static void name_of_mark(char name[256], const char *what, const struct config_guest *g)
{
	snprintf(name, 256, "%.*s/%s.%s", 160, agent.run_dir, g->name, what);
}

void mark_set(const char *what, const struct config_guest *g, const char *text)
{
	char name[256];
	int fd;

	name_of_mark(name, what, g);
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		warning("cannot write '%s': %s", name, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void mark_clear(const char *what, const struct config_guest *g)
{
	char name[256];

	name_of_mark(name, what, g);
	unlink(name);
}

bool mark_get(const char *what, const struct config_guest *g, char *text, size_t n)
{
	char name[256];
	ssize_t r;
	int fd;

	name_of_mark(name, what, g);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	r = read(fd, text, n - 1);
	close(fd);
	text[r > 0 ? r : 0] = 0;
	return true;
}
