// SPDX-License-Identifier: GPL-2.0-or-later
/* The listening socket. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vu.h"

#define BACKLOG	8

static int make_address(struct sockaddr_un *sa, const char *path)
{
	*sa = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (!*path || strlen(path) >= sizeof(sa->sun_path)) {
		vu_say("%s: a socket's path has 1 to %zu bytes", path, sizeof(sa->sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(sa->sun_path, path, strlen(path));
	return 0;
}

/* What is at the path already: gone if it is a socket on which nobody listens, refused if it is anything else. */
static int clear_path(const struct sockaddr_un *sa)
{
	const char *path = sa->sun_path;
	struct stat st;
	int fd, err = 0;

	if (lstat(path, &st)) {
		if (errno == ENOENT)
			return 0;
		err = errno;
		vu_say("%s: %s", path, strerror(err));
		return -err;
	}
	if (!S_ISSOCK(st.st_mode)) {
		vu_say("%s exists and is not a socket", path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)))
		err = errno;
	close(fd);
	if (err != ECONNREFUSED && err != ENOENT) {
		vu_say("%s: another process listens there", path);
		return -EADDRINUSE;
	}
	if (unlink(path) && errno != ENOENT) {
		err = errno;
		vu_say("%s: cannot remove a stale socket: %s", path, strerror(err));
		return -err;
	}
	return 0;
}

static int set_group(const char *path, const char *group)
{
	struct group *gr;
	int err;

	if (!group)
		return 0;
	gr = getgrnam(group);
	if (!gr) {
		vu_say("no group %s", group);
		return -ENOENT;
	}
	if (!chown(path, -1, gr->gr_gid))
		return 0;
	err = errno;
	vu_say("%s: chown to group %s: %s", path, group, strerror(err));
	return -err;
}

/* Listen at @path with permissions @mode. Errors are logged. */
int vu_listen(struct vu_listener *l, const char *path, int mode, const char *group)
{
	struct sockaddr_un sa;
	struct stat st;
	mode_t mask;
	int ret;

	*l = (struct vu_listener){ .fd = -1 };
	ret = make_address(&sa, path);
	if (!ret)
		ret = clear_path(&sa);
	if (ret)
		return ret;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0)
		return -errno;
	mask = umask(~mode & 0777);
	ret = bind(l->fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
	umask(mask);
	if (ret) {
		vu_say("bind to %s: %s", path, strerror(-ret));
		goto fail;
	}
	ret = set_group(path, group);
	if (ret) {
		unlink(path);
		goto fail;
	}
	if (listen(l->fd, BACKLOG) || lstat(path, &st)) {
		ret = -errno;
		vu_say("%s: %s", path, strerror(-ret));
		unlink(path);
		goto fail;
	}
	l->path = path;
	l->mode = mode;
	l->group = group;
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
fail:
	close(l->fd);
	l->fd = -1;
	return ret;
}

/* A socket that somebody else made and will remove, usually systemd. */
int vu_listen_fd(struct vu_listener *l, int fd)
{
	int listening = 0, domain = 0;
	socklen_t len = sizeof(listening);

	*l = (struct vu_listener){ .fd = fd };
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len)) {
		vu_say("file descriptor %d: %s", fd, strerror(errno));
		return -errno;
	}
	len = sizeof(domain);
	if (!listening || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_UNIX) {
		vu_say("file descriptor %d is not a listening unix socket", fd);
		return -EINVAL;
	}
	return 0;
}

/* Close, and remove the path if it is still ours. */
void vu_listen_end(struct vu_listener *l)
{
	struct stat st;

	if (l->path && !lstat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}
