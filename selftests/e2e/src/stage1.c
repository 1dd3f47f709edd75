// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stage1 - /init of the small initramfs that hosts and guests boot with.
 *
 * Loads /modules/NN-name.ko in the order of their names, mounts the root that the kernel command line names, moves
 * there and runs the program named there:
 *
 *   e2e.root=9p:TAG   the machine's own tree over 9p, read-only, under an overlay in RAM
 *   e2e.more=TAG      optional: another tree over 9p, between the two
 *   e2e.root=DEVICE   an ext4 file system, writable
 *   e2e.init=PATH     program to run in the new root
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define P9_OPTIONS "trans=virtio,version=9p2000.L,cache=loose,msize=262144,access=any"

static char cmdline[4096];

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "stage1: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, ": %s\n", strerror(errno));
	va_end(ap);
	sleep(1);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

/* The value of one e2e.* word of the command line, or NULL. */
static char *param(const char *name)
{
	size_t n = strlen(name);
	char *copy = strdup(cmdline), *save, *word;

	for (word = strtok_r(copy, " \n", &save); word; word = strtok_r(NULL, " \n", &save)) {
		if (!strncmp(word, name, n) && word[n] == '=')
			return word + n + 1;
	}
	return NULL;
}

static void load_modules(void)
{
	struct dirent **ents;
	char path[512];
	int n, i, fd;

	n = scandir("/modules", &ents, NULL, alphasort);
	for (i = 0; i < n; i++) {
		if (ents[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/modules/%s", ents[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			die("%s", path);
		if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
			fprintf(stderr, "stage1: %s: %s\n", path, strerror(errno));
		close(fd);
	}
}

static void mount_or_die(const char *src, const char *dst, const char *type, unsigned long flags, const char *data)
{
	mkdir(dst, 0755);
	if (mount(src, dst, type, flags, data))
		die("mount %s on %s (%s)", src, dst, type);
}

/* A block device may turn up a little after its driver was loaded. */
static void mount_disk(const char *dev)
{
	int tries;

	mkdir("/root", 0755);
	for (tries = 0; tries < 6000; tries++) {
		if (!mount(dev, "/root", "ext4", MS_NOATIME, NULL))
			return;
		if (errno != ENOENT && errno != ENXIO && errno != ENODEV)
			break;
		usleep(10000);
	}
	die("mount %s", dev);
}

int main(void)
{
	static char *const env[] = {
		"HOME=/root", "TERM=dumb", "LC_ALL=C",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL
	};
	char *root, *init, *more;
	ssize_t n;
	int fd;

	mount_or_die("proc", "/proc", "proc", 0, NULL);
	mount_or_die("sys", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	fd = open("/dev/console", O_RDWR);
	if (fd >= 0) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		if (fd > 2)
			close(fd);
	}
	fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	n = read(fd, cmdline, sizeof(cmdline) - 1);
	if (n < 0)
		die("/proc/cmdline");
	close(fd);
	root = param("e2e.root");
	init = param("e2e.init");
	more = param("e2e.more");
	if (!root || !init)
		die("e2e.root= and e2e.init= are needed");

	load_modules();
	if (!strncmp(root, "9p:", 3)) {
		mount_or_die(root + 3, "/lower", "9p", MS_RDONLY, P9_OPTIONS);
		if (more)
			mount_or_die(more, "/more", "9p", MS_RDONLY, P9_OPTIONS);
		mount_or_die("rw", "/rw", "tmpfs", 0, "mode=0755");
		mkdir("/rw/upper", 0755);
		mkdir("/rw/work", 0755);
		mount_or_die("root", "/root", "overlay", 0, more ? "lowerdir=/more:/lower,upperdir=/rw/upper,workdir=/rw/work" :
			     "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work");
	} else {
		mount_disk(root);
	}

	if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) || mount("/proc", "/root/proc", NULL, MS_MOVE, NULL) ||
	    mount("/sys", "/root/sys", NULL, MS_MOVE, NULL))
		die("moving /dev, /proc and /sys");
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		die("entering the new root");
	execle(init, init, NULL, env);
	die("%s", init);
}
