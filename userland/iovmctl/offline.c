// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Taking a disk that hangs away from its driver, as a fence.
 *
 * Nothing here proves that an old write cannot land, and nothing is confirmed to the kernel: what is done makes the driver end
 * every request that it has, and the requests' own ends are the proof, as after any error of a directly attached disk (--fence
 * local-error). So the fence has succeeded when no write is left at the driver.
 *
 *   SCSI   offline, so that the midlayer ends what comes back instead of sending it again; then a LUN reset, after which the disk
 *          has forgotten every command it had. What a driver does not give back at the reset, the midlayer ends after its
 *          time-outs. Offlining alone would do nothing for what is under way.
 *   NVMe   controller reset: the controller has stopped, with all its DMA, before any request is ended. They are sent again to
 *          the same disk, and are under way anew; or the controller does not come back, and they end with errors.
 *
 * Other disks share nothing of this: no reset is escalated to the target, the bus or the host, and a partition is not taken.
 * A dm or md device, virtio and loop have nothing that would end a request. Behind a network or a fabric the drivers end requests
 * also when the other end has not heard of it. All these are refused.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <scsi/sg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "iovmctl.h"

/* In <scsi/scsi_ioctl.h> of newer systems */
#ifndef SG_SCSI_RESET_NO_ESCALATE
#define SG_SCSI_RESET_NO_ESCALATE 0x100
#endif

enum offline_kind {
	OFFLINE_NONE,		/* nothing that is known to end requests */
	OFFLINE_SCSI,
	OFFLINE_NVME,
};

static bool is_there(const char *dir, const char *name)
{
	char file[PATH_MAX];

	return (size_t)snprintf(file, sizeof(file), "%s/%s", dir, name) < sizeof(file) && !access(file, F_OK);
}

/* 0 or a negative errno. */
static int write_to(const char *dir, const char *name, const char *text)
{
	char file[PATH_MAX];
	int fd, err = 0;

	if ((size_t)snprintf(file, sizeof(file), "%s/%s", dir, name) >= sizeof(file))
		return -ENAMETOOLONG;
	fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* What the link @name of @dir leads to, its last part: "scsi", "nvme". */
static void link_name(const char *dir, const char *name, char *buf, size_t n)
{
	char file[PATH_MAX], to[PATH_MAX];
	ssize_t len = -1;

	*buf = 0;
	if ((size_t)snprintf(file, sizeof(file), "%s/%s", dir, name) < sizeof(file))
		len = readlink(file, to, sizeof(to) - 1);
	if (len <= 0)
		return;
	to[len] = 0;
	snprintf(buf, n, "%.*s", (int)n - 1, strrchr(to, '/') ? strrchr(to, '/') + 1 : to);
}

/* iSCSI or FC, by the kind of what its host has at the other end */
static bool is_remote(const char *dir)
{
	char path[PATH_MAX];

	return realpath(dir, path) && (strstr(path, "/session") || strstr(path, "/rport-"));
}

static enum offline_kind kind_of(const char *dir)
{
	char subsystem[32], transport[32];

	if (is_there(dir, "partition") || !is_there(dir, "device"))
		return OFFLINE_NONE;
	link_name(dir, "device/subsystem", subsystem, sizeof(subsystem));
	if (!strcmp(subsystem, "scsi") && is_there(dir, "device/state"))
		return is_remote(dir) ? OFFLINE_NONE : OFFLINE_SCSI;
	if (!strcmp(subsystem, "nvme") && is_there(dir, "device/reset_controller") &&
	    read_attr(dir, "device/transport", transport, sizeof(transport)) && !strcmp(transport, "pcie"))
		return OFFLINE_NVME;
	return OFFLINE_NONE;
}

bool offline_knows(dev_t devt)
{
	char dir[64];

	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(devt), minor(devt));
	return kind_of(dir) != OFFLINE_NONE;
}

/* A descriptor through which the disk can be reset, also while it is offline; or a negative errno. */
static int open_for_reset(const char *dir, dev_t devt)
{
	char list[PATH_MAX], node[PATH_MAX];
	struct dirent *d;
	struct stat st;
	DIR *sg;
	int fd = -ENODEV;

	/* sg can be opened while the disk is offline, sd cannot */
	snprintf(list, sizeof(list), "%.*s/device/scsi_generic", PATH_MAX - 32, dir);
	sg = opendir(list);
	while (sg && fd < 0 && (d = readdir(sg)))
		if (*d->d_name != '.' && (size_t)snprintf(node, sizeof(node), "/dev/%s", d->d_name) < sizeof(node))
			fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (sg)
		closedir(sg);
	if (fd >= 0)
		return fd;
	if (!realpath(dir, list))
		return -errno;
	snprintf(node, sizeof(node), "/dev/%.255s", strrchr(list, '/') + 1);
	fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && S_ISBLK(st.st_mode) && st.st_rdev == devt)
		return fd;
	close(fd);
	return -ENODEV;
}

static int offline_scsi(const char *dir, dev_t devt)
{
	int how = SG_SCSI_RESET_DEVICE | SG_SCSI_RESET_NO_ESCALATE, fd, err;

	fd = open_for_reset(dir, devt);
	err = write_to(dir, "device/state", "offline\n");
	if (err) {
		warn("%s/device/state: %s", dir, strerror(-err));
	} else if (fd < 0) {
		warn("%s: cannot be opened for a reset: %s", dir, strerror(-fd));
	} else if (ioctl(fd, SG_SCSI_RESET, &how)) {
		/* the midlayer's own time-outs end it later */
		warn("%s: the reset of the LUN failed: %s", dir, strerror(errno));
	}
	if (fd >= 0)
		close(fd);
	return err;
}

int offline_disk(const struct iovm_path_info *pi)
{
	char dir[64];
	int err;

	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", pi->bdev_major, pi->bdev_minor);
	switch (kind_of(dir)) {
	case OFFLINE_SCSI:
		return offline_scsi(dir, makedev(pi->bdev_major, pi->bdev_minor));
	case OFFLINE_NVME:
		err = write_to(dir, "device/reset_controller", "1\n");
		if (err)
			warn("%s/device/reset_controller: %s", dir, strerror(-err));
		return err;
	default:
		/* pulled: the block layer ends what it had */
		if (!is_there(dir, "."))
			return 0;
		warn("%s is no whole SCSI or NVMe disk that is directly attached", dir);
		return -EOPNOTSUPP;
	}
}
