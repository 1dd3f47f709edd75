// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Small files below state_dir that are whole, and there, after a power failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"
#include "../common/put_file.h"

#define PATH_BYTES	512

static void path_of(char path[PATH_BYTES], const char *dir, const char *name)
{
	snprintf(path, PATH_BYTES, "%.200s/%s%s%s", agent.state_dir, dir, name ? "/" : "", name ?: "");
}

int stable_dir(const char *dir, char why[WHY_MAX])
{
	char path[PATH_BYTES];
	int err;

	path_of(path, dir, NULL);
	err = put_dir(path, 0700);
	if (err)
		snprintf(why, WHY_MAX, "cannot make '%.200s': %s", path, strerror(err));
	return err ? -1 : 0;
}

int stable_write(const char *dir, const char *name, const char *text)
{
	char path[PATH_BYTES];

	path_of(path, dir, name);
	return -put_file(path, 0600, text, strlen(text));
}

int stable_remove(const char *dir, const char *name)
{
	char path[PATH_BYTES];

	path_of(path, dir, name);
	return -drop_file(path);
}

int stable_read(const char *dir, const char *name, char *text, size_t n)
{
	char path[PATH_BYTES];
	ssize_t r;
	int fd, err;

	path_of(path, dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read(fd, text, n - 1);
	err = errno;
	close(fd);
	text[r > 0 ? r : 0] = 0;
	return r < 0 ? -err : 0;
}
