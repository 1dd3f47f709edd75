// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A small file that is there as a whole, or not at all. See put_file.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "put_file.h"

static int write_all(int fd, const char *data, size_t n)
{
	ssize_t r;

	for (; n; data += r, n -= (size_t)r) {
		r = write(fd, data, n);
		if (r < 0 && errno != EINTR)
			return errno;
		if (r < 0)
			r = 0;
	}
	return fsync(fd) ? errno : 0;
}

/* The name is on stable storage when its directory is. */
static int sync_dir(const char *file)
{
	const char *slash = strrchr(file, '/');
	char dir[4096] = ".";
	int fd, err;

	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", slash == file ? 1 : (int)(slash - file), file);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	err = fsync(fd) ? errno : 0;
	close(fd);
	return err;
}

int put_file(const char *file, mode_t mode, const void *data, size_t n)
{
	char temp[4096];
	int fd, err;

	if ((size_t)snprintf(temp, sizeof(temp), "%s.new", file) >= sizeof(temp))
		return ENAMETOOLONG;
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return errno;
	err = fchmod(fd, mode) ? errno : write_all(fd, data, n);
	if (close(fd) && !err)
		err = errno;
	if (!err && rename(temp, file))
		err = errno;
	if (err)
		unlink(temp);
	return err ?: sync_dir(file);
}

int drop_file(const char *file)
{
	if (unlink(file))
		return errno == ENOENT ? 0 : errno;
	return sync_dir(file);
}

int put_dir(const char *dir, mode_t mode)
{
	char path[4096];
	char *at = path;

	if ((size_t)snprintf(path, sizeof(path), "%s", dir) >= sizeof(path))
		return ENAMETOOLONG;
	while (at) {
		at = strchr(at + 1, '/');
		if (at)
			*at = 0;
		if (mkdir(path, mode) && errno != EEXIST)
			return errno;
		if (at)
			*at = '/';
	}
	return 0;
}
