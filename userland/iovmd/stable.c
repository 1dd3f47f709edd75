// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Small files below state_dir that are whole, and there, after a power failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iovmd.h"

#define PATH_BYTES	512

static void path_of(char path[PATH_BYTES], const char *dir, const char *name, const char *suffix)
{
	snprintf(path, PATH_BYTES, "%.200s/%s%s%s%s", agent.state_dir, dir, name ? "/" : "", name ?: "", suffix);
}

int stable_dir(const char *dir, char why[WHY_MAX])
{
	char path[PATH_BYTES];

	path_of(path, dir, NULL, "");
	if ((!mkdir(agent.state_dir, 0700) || errno == EEXIST) && (!mkdir(path, 0700) || errno == EEXIST))
		return 0;
	snprintf(why, WHY_MAX, "cannot make '%.200s': %s", path, strerror(errno));
	return -1;
}

static int sync_dir(const char *dir)
{
	char path[PATH_BYTES];
	int fd, r, err;

	path_of(path, dir, NULL, "");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	r = fsync(fd);
	err = errno;
	close(fd);
	errno = err;
	return r;
}

static int write_file(const char *path, const char *text)
{
	ssize_t n = (ssize_t)strlen(text), r;
	int fd, err;

	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -1;
	r = write(fd, text, (size_t)n);
	if (r >= 0 && r != n) {
		errno = ENOSPC;
		r = -1;
	}
	if (r >= 0)
		r = fsync(fd);
	err = errno;
	close(fd);
	errno = err;
	return r < 0 ? -1 : 0;
}

int stable_write(const char *dir, const char *name, const char *text)
{
	char path[PATH_BYTES], temp[PATH_BYTES];

	path_of(path, dir, name, "");
	path_of(temp, dir, name, ".new");
	return write_file(temp, text) || rename(temp, path) || sync_dir(dir) ? -errno : 0;
}

int stable_remove(const char *dir, const char *name)
{
	char path[PATH_BYTES];

	path_of(path, dir, name, "");
	if (unlink(path))
		return errno == ENOENT ? 0 : -errno;
	return sync_dir(dir) ? -errno : 0;
}

int stable_read(const char *dir, const char *name, char *text, size_t n)
{
	char path[PATH_BYTES];
	ssize_t r;
	int fd, err;

	path_of(path, dir, name, "");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = read(fd, text, n - 1);
	err = errno;
	close(fd);
	text[r > 0 ? r : 0] = 0;
	return r < 0 ? -err : 0;
}
