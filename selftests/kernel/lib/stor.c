// SPDX-License-Identifier: GPL-2.0-or-later
#include "stor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NULLB_DIR "/sys/kernel/config/nullb"

int stor_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	close(fd);
	return r;
}

static int read_file(const char *path, char *buf, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r;

	if (fd < 0)
		return -errno;
	r = read(fd, buf, n - 1);
	close(fd);
	if (r < 0)
		return -EIO;
	buf[r] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return 0;
}

int stor_modprobe(const char *module, const char *params)
{
	char cmd[512];

	snprintf(cmd, sizeof(cmd), "modprobe %s %s >/dev/null 2>&1", module, params ? params : "");
	return system(cmd) ? -ENOENT : 0;
}

static int wait_node(const char *node)
{
	int i;

	for (i = 0; i < 500; i++) {
		if (!access(node, F_OK) && stor_sectors(node))
			return 0;
		sleep_ms(10);
	}
	return -ENOENT;
}

u64 stor_sectors(const char *node)
{
	int fd = open(node, O_RDONLY | O_CLOEXEC);
	u64 bytes = 0;

	if (fd < 0)
		return 0;
	if (ioctl(fd, BLKGETSIZE64, &bytes))
		bytes = 0;
	close(fd);
	return bytes / 512;
}

/* --- null_blk --- */

static int nullb_set(const char *name, const char *attr, u64 v)
{
	char path[256], text[32];

	snprintf(path, sizeof(path), NULLB_DIR "/%s/%s", name, attr);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	return stor_write_file(path, text);
}

int nullb_create(const char *name, const struct nullb_opts *o, char node[64])
{
	char path[256], idx[32];
	int r;

	if (access(NULLB_DIR, F_OK)) {
		stor_modprobe("null_blk", "nr_devices=0");
		if (access(NULLB_DIR, F_OK) && mount("none", "/sys/kernel/config", "configfs", 0, NULL) && errno != EBUSY)
			return -errno;
	}
	snprintf(path, sizeof(path), NULLB_DIR "/%s", name);
	if (mkdir(path, 0755))
		return -errno;
	r = nullb_set(name, "size", o->size_mb);
	if (!r)
		r = nullb_set(name, "blocksize", o->block_size ? o->block_size : 512);
	if (!r)
		r = nullb_set(name, "memory_backed", o->memory_backed);
	if (!r && o->discard)
		r = nullb_set(name, "discard", 1);
	if (!r && o->cache_mb)
		r = nullb_set(name, "cache_size", o->cache_mb);
	if (!r && o->hw_queues)
		r = nullb_set(name, "submit_queues", o->hw_queues);
	if (!r && o->queue_depth)
		r = nullb_set(name, "hw_queue_depth", o->queue_depth);
	if (!r)
		r = nullb_set(name, "irqmode", o->completion_nsec ? 2 : 0);
	if (!r && o->completion_nsec)
		r = nullb_set(name, "completion_nsec", o->completion_nsec);
	if (!r && o->badblocks) {
		snprintf(path, sizeof(path), NULLB_DIR "/%s/badblocks", name);
		r = stor_write_file(path, o->badblocks);
	}
	if (!r)
		r = nullb_set(name, "power", 1);
	snprintf(path, sizeof(path), NULLB_DIR "/%s/index", name);
	if (!r)
		r = read_file(path, idx, sizeof(idx));
	/* Newer kernels name the disk after the directory. */
	if (!r) {
		snprintf(node, 64, "/dev/%s", name);
		snprintf(path, sizeof(path), "/sys/block/%s", name);
		if (access(path, F_OK))
			snprintf(node, 64, "/dev/nullb%s", idx);
		r = wait_node(node);
	}
	if (r)
		nullb_destroy(name);
	return r;
}

int nullb_destroy(const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), NULLB_DIR "/%s", name);
	nullb_set(name, "power", 0);
	return rmdir(path) ? -errno : 0;
}

/* --- brd --- */

int brd_load(unsigned int nr, unsigned int size_mb)
{
	char p[128];
	int r;

	snprintf(p, sizeof(p), "rd_nr=%u rd_size=%u max_part=0", nr, size_mb * 1024);
	r = stor_modprobe("brd", p);
	return r ? r : wait_node("/dev/ram0");
}

int brd_unload(void)
{
	return system("rmmod brd 2>/dev/null") ? -EBUSY : 0;
}

/* --- scsi_debug --- */

static bool is_scsi_debug(const char *disk)
{
	char path[256], model[64];

	snprintf(path, sizeof(path), "/sys/block/%s/device/model", disk);
	return !read_file(path, model, sizeof(model)) && !strncmp(model, "scsi_debug", 10);
}

static unsigned int scsi_list(char nodes[][64], unsigned int max)
{
	struct dirent *de;
	unsigned int n = 0;
	DIR *dir = opendir("/sys/block");

	while (dir && (de = readdir(dir)) && n < max)
		if (!strncmp(de->d_name, "sd", 2) && is_scsi_debug(de->d_name))
			snprintf(nodes[n++], 64, "/dev/%.50s", de->d_name);
	if (dir)
		closedir(dir);
	return n;
}

static int scsi_wait(unsigned int had, unsigned int nr, char old[][64], char nodes[][64])
{
	char all[16][64];
	unsigned int i, j, n, k, tries;

	for (tries = 0; tries < 500; tries++) {
		n = scsi_list(all, 16);
		if (n >= had + nr)
			break;
		sleep_ms(20);
	}
	if (n < had + nr)
		return -ENODEV;
	for (i = k = 0; i < n && k < nr; i++) {
		for (j = 0; j < had; j++)
			if (!strcmp(all[i], old[j]))
				break;
		if (j == had)
			strcpy(nodes[k++], all[i]);
	}
	for (i = 0; i < k; i++)
		if (wait_node(nodes[i]))
			return -ENODEV;
	/* in the order of their names */
	for (i = 0; i < k; i++)
		for (j = i + 1; j < k; j++)
			if (strcmp(nodes[i], nodes[j]) > 0) {
				char t[64];

				strcpy(t, nodes[i]);
				strcpy(nodes[i], nodes[j]);
				strcpy(nodes[j], t);
			}
	return k == nr ? 0 : -ENODEV;
}

int scsi_debug_load(unsigned int nr, unsigned int size_mb, unsigned int block_size, const char *params, char nodes[][64])
{
	char p[256];
	int r;

	stor_modprobe("sd_mod", NULL);
	snprintf(p, sizeof(p), "dev_size_mb=%u sector_size=%u add_host=%u num_tgts=1 delay=0 max_queue=128 %s", size_mb,
		 block_size ? block_size : 512, nr, params ? params : "");
	r = stor_modprobe("scsi_debug", p);
	return r ? r : scsi_wait(0, nr, NULL, nodes);
}

int scsi_debug_param(const char *name, const char *value)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/bus/pseudo/drivers/scsi_debug/%s", name);
	return stor_write_file(path, value);
}

int scsi_debug_rescan(unsigned int nr, char nodes[][64])
{
	char old[16][64], n[16];
	unsigned int had = scsi_list(old, 16);
	int r;

	snprintf(n, sizeof(n), "%u", nr);
	r = scsi_debug_param("add_host", n);
	return r ? r : scsi_wait(had, nr, old, nodes);
}

int scsi_debug_unload(void)
{
	int i;

	if (access("/sys/module/scsi_debug", F_OK))
		return 0;
	for (i = 0; i < 50; i++) {
		if (!system("rmmod scsi_debug 2>/dev/null"))
			return 0;
		sleep_ms(100);
	}
	return -EBUSY;
}

int scsi_remove(const char *node)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/block/%s/device/delete", strrchr(node, '/') + 1);
	return stor_write_file(path, "1");
}

/* --- loop --- */

int loop_create(u64 bytes, unsigned int block_size, bool read_only, char node[64])
{
	struct loop_config c = { .block_size = block_size };
	char file[64] = "/dev/shm/iovm-loop-XXXXXX";
	int ctl, fd, lo, n, r = 0;

	stor_modprobe("loop", NULL);
	fd = mkstemp(file);
	if (fd < 0) {
		strcpy(file, "/tmp/iovm-loop-XXXXXX");
		fd = mkstemp(file);
	}
	if (fd < 0)
		return -errno;
	unlink(file);
	if (ftruncate(fd, bytes)) {
		close(fd);
		return -errno;
	}
	ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	n = ctl < 0 ? -1 : ioctl(ctl, LOOP_CTL_GET_FREE);
	if (n < 0) {
		r = -errno;
		goto out;
	}
	snprintf(node, 64, "/dev/loop%d", n);
	for (lo = 0; lo < 200 && access(node, F_OK); lo++)
		sleep_ms(10);
	lo = open(node, O_RDWR | O_CLOEXEC);
	if (lo < 0) {
		r = -errno;
		goto out;
	}
	c.fd = fd;
	c.info.lo_flags = read_only ? LO_FLAGS_READ_ONLY : 0;
	if (ioctl(lo, LOOP_CONFIGURE, &c))
		r = -errno;
	close(lo);
out:
	if (ctl >= 0)
		close(ctl);
	close(fd);
	return r;
}

int loop_destroy(const char *node)
{
	int fd = open(node, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = ioctl(fd, LOOP_CLR_FD, 0) ? -errno : 0;
	close(fd);
	return r;
}

/* --- device-mapper --- */

/* @table: of DM_TABLE_LOAD; of DM_TARGET_MSG the message. */
static int dm_ioctl(unsigned long req, const char *name, u32 flags, const char *table, u64 *dev)
{
	char buf[65536] __attribute__((aligned(8)));
	struct dm_ioctl *h = (void *)buf;
	int fd, r;

	memset(buf, 0, sizeof(buf));
	h->version[0] = DM_VERSION_MAJOR;
	h->data_size = sizeof(buf);
	h->data_start = sizeof(*h);
	h->flags = flags;
	snprintf(h->name, sizeof(h->name), "%s", name);
	if (table && req == DM_TARGET_MSG) {
		struct dm_target_msg *m = (void *)(buf + sizeof(*h));

		snprintf(m->message, sizeof(buf) - sizeof(*h) - sizeof(*m), "%s", table);
	} else if (table) {
		char *at = buf + sizeof(*h);
		const char *line = table;

		while (*line) {
			struct dm_target_spec *t = (void *)at;
			unsigned long long start, len;
			int skip = 0;
			size_t n = strcspn(line, "\n");

			if (at + sizeof(*t) + n + 16 > buf + sizeof(buf) ||
			    sscanf(line, "%llu %llu %15s %n", &start, &len, t->target_type, &skip) < 3)
				return -EINVAL;
			t->sector_start = start;
			t->length = len;
			memcpy(at + sizeof(*t), line + skip, (size_t)skip <= n ? n - skip : 0);
			t->next = (sizeof(*t) + n + 1 + 7) & ~7u;
			at += t->next;
			h->target_count++;
			line += n + (line[n] == '\n');
		}
	}
	fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		stor_modprobe("dm_mod", NULL);
		fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	}
	if (fd < 0)
		return -errno;
	r = ioctl(fd, req, h) ? -errno : 0;
	close(fd);
	if (dev)
		*dev = h->dev;
	return r;
}

int dm_create(const char *name, const char *table, char node[64])
{
	u64 dev;
	int r = dm_ioctl(DM_DEV_CREATE, name, 0, NULL, &dev);

	if (r)
		return r;
	r = dm_ioctl(DM_TABLE_LOAD, name, 0, table, NULL);
	if (!r)
		r = dm_ioctl(DM_DEV_SUSPEND, name, 0, NULL, NULL);	/* without the flag: resume */
	if (!r) {
		snprintf(node, 64, "/dev/dm-%u", minor(dev));
		r = wait_node(node);
	}
	if (r)
		dm_remove(name);
	return r;
}

int dm_suspend(const char *name, bool suspend)
{
	return dm_ioctl(DM_DEV_SUSPEND, name, suspend ? DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG : 0, NULL, NULL);
}

int dm_load(const char *name, const char *table)
{
	return dm_ioctl(DM_TABLE_LOAD, name, 0, table, NULL);
}

int dm_swap(const char *name, const char *table, bool flush)
{
	int r = dm_load(name, table);

	if (!r)
		r = dm_ioctl(DM_DEV_SUSPEND, name,
			     DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG | (flush ? 0 : DM_NOFLUSH_FLAG), NULL, NULL);
	if (!r)
		r = dm_ioctl(DM_DEV_SUSPEND, name, 0, NULL, NULL);
	return r;
}

int dm_remove(const char *name)
{
	int i, r = 0;

	for (i = 0; i < 100; i++) {
		r = dm_ioctl(DM_DEV_REMOVE, name, 0, NULL, NULL);
		if (r != -EBUSY)
			break;
		sleep_ms(20);
	}
	return r;
}

int dm_message(const char *name, const char *text)
{
	return dm_ioctl(DM_TARGET_MSG, name, 0, text, NULL);
}

char *dm_linear(const char *under, u64 sectors)
{
	static char t[128];

	snprintf(t, sizeof(t), "0 %llu linear %s 0", (unsigned long long)sectors, under);
	return t;
}

char *dm_error(u64 sectors)
{
	static char t[64];

	snprintf(t, sizeof(t), "0 %llu error", (unsigned long long)sectors);
	return t;
}

/* --- all --- */

void stor_cleanup(void)
{
	char buf[16384] __attribute__((aligned(8)));
	struct dm_ioctl *h = (void *)buf;
	struct dirent *de;
	DIR *dir;
	int fd;

	fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (fd >= 0) {
		memset(buf, 0, sizeof(buf));
		h->version[0] = DM_VERSION_MAJOR;
		h->data_size = sizeof(buf);
		h->data_start = sizeof(*h);
		if (!ioctl(fd, DM_LIST_DEVICES, h)) {
			struct dm_name_list *l = (void *)(buf + h->data_start);

			while (l->dev) {
				if (!strncmp(l->name, "iovmt-", 6)) {
					dm_suspend(l->name, false);
					dm_remove(l->name);
				}
				if (!l->next)
					break;
				l = (void *)((char *)l + l->next);
			}
		}
		close(fd);
	}
	dir = opendir(NULLB_DIR);
	while (dir && (de = readdir(dir)))
		if (!strncmp(de->d_name, "iovmt", 5))
			nullb_destroy(de->d_name);
	if (dir)
		closedir(dir);
	scsi_debug_unload();
}

static int direct(const char *node, void *buf, size_t len, u64 off, bool write)
{
	size_t chunk = 1 << 20, n;
	void *p;
	int fd, r = 0;

	fd = open(node, (write ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (posix_memalign(&p, 4096, chunk)) {
		close(fd);
		return -ENOMEM;
	}
	while (len && !r) {
		n = len < chunk ? len : chunk;
		if (write)
			memcpy(p, buf, n);
		if ((write ? pwrite(fd, p, n, off) : pread(fd, p, n, off)) != (ssize_t)n)
			r = errno ? -errno : -EIO;
		else if (!write)
			memcpy(buf, p, n);
		buf = (char *)buf + n;
		off += n;
		len -= n;
	}
	free(p);
	close(fd);
	return r;
}

int stor_pread(const char *node, void *buf, size_t len, u64 off)
{
	return direct(node, buf, len, off, false);
}

int stor_pwrite(const char *node, const void *buf, size_t len, u64 off)
{
	return direct(node, (void *)buf, len, off, true);
}
