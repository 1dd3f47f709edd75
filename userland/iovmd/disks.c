// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which devices share a disk: theirs are partitions of it, or dm devices on top of it. When it is gone sysfs no longer tells, so what it
 * said last is remembered.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovmd.h"

#define MAX_DEPTH	8	/* of dm on dm */
#define NAME_MAX_BYTES	32	/* "8:16" */

struct disk {
	const struct config_device *d;
	char name[NAME_MAX_BYTES];
	struct disk *next;
};

static struct disk *disks;

/* A line of a file of sysfs. */
static bool read_line(char *line, size_t n, const char *dir, const char *file)
{
	char path[512];
	bool good;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "re");
	good = f && fgets(line, (int)n, f);
	if (f)
		fclose(f);
	if (good)
		line[strcspn(line, "\n")] = 0;
	return good;
}

/* The one that a dm device is on; false: there is none, or several. */
static bool only_slave(const char *dir, char dev[NAME_MAX_BYTES])
{
	char path[512];
	struct dirent *e;
	unsigned int nr = 0;
	DIR *slaves;

	snprintf(path, sizeof(path), "%s/slaves", dir);
	slaves = opendir(path);
	while (slaves && (e = readdir(slaves))) {
		if (*e->d_name == '.' || strlen(e->d_name) > 200)
			continue;
		nr++;
		snprintf(path, sizeof(path), "slaves/%s/dev", e->d_name);
		if (!read_line(dev, NAME_MAX_BYTES, dir, path))
			nr = 2;
	}
	if (slaves)
		closedir(slaves);
	return nr == 1;
}

/* Turns the number of a block device to that of the disk it is on; false: sysfs does not know it. */
static bool whole(char dev[NAME_MAX_BYTES])
{
	char dir[128], below[NAME_MAX_BYTES], path[160];
	unsigned int i;

	for (i = 0; i < MAX_DEPTH; i++) {
		snprintf(dir, sizeof(dir), "/sys/dev/block/%s", dev);
		if (access(dir, F_OK))
			return false;
		snprintf(path, sizeof(path), "%s/partition", dir);
		if (!access(path, F_OK)) {
			if (!read_line(below, sizeof(below), dir, "../dev"))
				return false;
		} else if (!only_slave(dir, below)) {
			return true;
		}
		strcpy(dev, below);
	}
	return true;
}

static struct disk *disk_of(const struct config_device *d)
{
	struct disk *k;

	for (k = disks; k && k->d != d; k = k->next)
		;
	if (!k) {
		k = calloc(1, sizeof(*k));
		if (!k)
			abort();
		k->d = d;
		k->next = disks;
		disks = k;
	}
	return k;
}

void disk_forget(const struct config_device *d)
{
	struct disk **at, *k;

	for (at = &disks; (k = *at); at = &k->next)
		if (k->d == d) {
			*at = k->next;
			free(k);
			return;
		}
}

void disk_look(const struct config_device *d)
{
	char dev[NAME_MAX_BYTES];
	struct iovm_path_info pi;

	if (!*d->disk || !kernel_has_path(d->name, "local", &pi) || pi.state == IOVM_PATH_FAILED || !pi.bdev_major)
		return;
	snprintf(dev, sizeof(dev), "%u:%u", pi.bdev_major, pi.bdev_minor);
	if (whole(dev))
		strcpy(disk_of(d)->name, dev);
}

bool disk_is_shared(const struct config_device *a, const struct config_device *b)
{
	const char *name = disk_of(a)->name;

	return *name && !strcmp(name, disk_of(b)->name);
}
