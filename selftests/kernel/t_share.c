// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Paths of several devices that share a disk (IOVM_PATH_F_SHARED):
 *
 *	kt-0, class blk ── path a ───────────────────────────────────┬─ the disk
 *	kt-1, class blk ── nbd ── session ── kt-t, target ── path a ─┘
 */
#include "fix.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MB		16
#define SECTORS		(MB * 2048ull)
#define BYTES		(MB * (u64)MiB)
#define SHARED		IOVM_PATH_F_SHARED
#define THREADS		4

static struct ctl_events ev;
static char disk[64];

static void cleanup(void)
{
	if (ktap_failed() && ev.fd >= 0 && ev.nr_seen)
		ctl_events_dump(&ev);
	ctl_events_close(&ev);
	fix_close(0);
	fix_close(1);
	/* the client before the target that it is a session of */
	ctl_dev_destroy("kt-1", IOVM_DESTROY_F_FORCE);
	fix_cleanup();
}

static void create(const char *name, u32 class, u32 flags)
{
	struct iovm_dev_create c;
	int r;

	ctl_dev_defaults(&c, name, SECTORS, 1);
	c.class = class;
	c.flags = flags;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create %s: %s: %s", name, strerror(-r), ctl_msg);
}

static void blk_and_target(void)
{
	create("kt-0", IOVM_CLASS_BLK, 0);
	create("kt-t", IOVM_CLASS_TARGET, 0);
}

static void null_disk(void)
{
	fix_store_make(MB, 512);
	strcpy(disk, fix_store);
}

static int add_to(const char *dev, const char *path, u32 flags)
{
	return ctl_path_add_bdev(dev, path, disk, flags, 0);
}

static int add_fd(const char *dev, const char *path, int fd)
{
	struct iovm_path_add a = { .size = sizeof(a), .type = IOVM_PATH_BDEV, .flags = SHARED | IOVM_PATH_F_ASSUME_SAME, .fd = fd };
	int r;

	strcpy(a.dev, dev);
	strcpy(a.name, path);
	strcpy(a.addr, disk);
	r = ctl_ioctl(IOVM_PATH_ADD, &a);
	/* several threads do this: ctl_msg is not for them */
	if (r)
		ktap_note("%s: %s", dev, a.msg);
	return r;
}

static void add(const char *dev, const char *path, u32 flags)
{
	int r = add_to(dev, path, flags);

	T_REQUIRE(!r, "path %s of %s: %s: %s", path, dev, strerror(-r), ctl_msg);
}

static void refused(const char *dev, const char *path, u32 flags, int err, const char *why)
{
	int r = add_to(dev, path, flags);

	T_CHECK(r == err && strstr(ctl_msg, why), "path %s of %s, flags %u: %s: '%s', wanted %s: '%s'", path, dev, flags,
		strerror(-r), r ? ctl_msg : "", strerror(-err), why);
}

static void removed(const char *dev, const char *path)
{
	int r = ctl_path_remove(dev, path, 0);

	T_CHECK(!r, "removal of %s of %s: %s: %s", path, dev, strerror(-r), ctl_msg);
}

/* What mkfs, mount, LVM and the like do first */
static bool others_may(void)
{
	int fd = open(disk, O_RDWR | O_EXCL | O_CLOEXEC);

	T_CHECK(fd >= 0 || errno == EBUSY, "%s: %s", disk, strerror(errno));
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* kt-1, whose requests come to kt-t. */
static void client_of_target(void)
{
	int sv[2], r;
	u32 id;

	T_REQUIRE(!nbdsrv_tcp_pair(sv), "sockets");
	r = ctl_session_add("kt-t", &sv[1], 1, 0, "the test", &id);
	T_REQUIRE(!r, "session: %s: %s", strerror(-r), ctl_msg);
	create("kt-1", IOVM_CLASS_BLK, 0);
	r = ctl_path_add_nbd("kt-1", "n", 0, 0, 0, 0);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	r = ctl_path_connect("kt-1", "n", &sv[0], 1, BYTES, NBDSRV_FLAGS, 0);
	T_REQUIRE(!r, "connect: %s", ctl_msg);
	close(sv[0]);
	close(sv[1]);
}

static void open_both(void)
{
	strcpy(F[0].name, "kt-0");
	strcpy(F[1].name, "kt-1");
	client_of_target();
	fix_open(0, RING_FEATURES, 1, 64);
	fix_open(1, RING_FEATURES, 1, 64);
}

/* Written through @w, read through @r and at rest */
static void through(int w, int r, u64 sector, u32 gen)
{
	u8 buf[4096];
	u32 i;
	int err;

	for (i = 0; i < 8; i++)
		pat_fill(buf + 512 * i, 7, sector + i, gen);
	err = vblk_write(&F[w].s, &F[w].d.vqs[0], sector, buf, sizeof(buf));
	T_CHECK(err == 0, "write through kt-%d: %d", w, err);
	memset(buf, 0, sizeof(buf));
	err = vblk_read(&F[r].s, &F[r].d.vqs[0], sector, buf, sizeof(buf));
	T_CHECK(err == 0 && pat_ok(buf, 7, sector, gen) && pat_ok(buf + 3584, 7, sector + 7, gen), "read through kt-%d: %d", r, err);
	err = stor_pread(disk, buf, sizeof(buf), sector * 512);
	T_CHECK(!err && pat_ok(buf, 7, sector, gen), "at rest: %d", err);
}

static void io(void)
{
	struct iovm_path_info i;

	null_disk();
	blk_and_target();
	add("kt-0", "a", SHARED);
	add("kt-t", "a", SHARED);
	T_CHECK(!ctl_path_get("kt-t", "a", &i) && i.flags & SHARED, "it is not shown: %u", i.flags);
	open_both();
	through(0, 1, 64, 1);
	through(1, 0, 64, 2);
	T_CHECK(!others_may(), "somebody else may have the disk");
	/* the first one leaves */
	removed("kt-0", "a");
	T_CHECK(!others_may(), "somebody else may have the disk of the one that is left");
	through(1, 1, 128, 3);
	add("kt-0", "b", SHARED);
	through(0, 1, 256, 4);
	/* and the second */
	removed("kt-t", "a");
	T_CHECK(!others_may(), "somebody else may have the disk of the one that came back");
	through(0, 0, 512, 5);
	removed("kt-0", "b");
	T_CHECK(others_may(), "nobody may have the disk after the last has left");
}

static void combinations(void)
{
	struct iovm_path_add a = { .flags = SHARED | IOVM_PATH_F_ASSUME_SAME, .fence_by = IOVM_FENCE_BY_RESERVATION, .pr_key = 1 };
	int fd, r;

	null_disk();
	blk_and_target();
	create("kt-r", IOVM_CLASS_BLK, IOVM_DEV_F_RDONLY);

	add("kt-0", "a", 0);
	refused("kt-t", "a", 0, -EBUSY, "by path a of device kt-0: neither is shared");
	refused("kt-t", "a", SHARED, -EBUSY, "that one is not shared");
	removed("kt-0", "a");
	add("kt-0", "a", SHARED);
	refused("kt-t", "a", 0, -EBUSY, "this one is not shared");
	refused("kt-0", "b", SHARED, -EBUSY, "path a of the same device");
	/* one that is not refused leaves nothing behind, one that is neither */
	add("kt-r", "a", SHARED);
	removed("kt-0", "a");
	add("kt-t", "a", SHARED);
	removed("kt-t", "a");
	removed("kt-r", "a");
	T_CHECK(others_may(), "the disk is still in use");
	/* for reading first */
	add("kt-r", "a", SHARED);
	refused("kt-t", "a", SHARED, -EBUSY, "for reading only by path a of device kt-r: add this one first");
	removed("kt-r", "a");
	add("kt-t", "a", SHARED);
	removed("kt-t", "a");

	r = ctl_path_add_nbd("kt-0", "n", SHARED, 0, 0, 0);
	T_CHECK(r == -EINVAL && strstr(ctl_msg, "nbd"), "an nbd path: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_arg("kt-0", "a", disk, &a);
	T_CHECK(r == -EINVAL && strstr(ctl_msg, "reservation"), "with a reservation: %s: %s", strerror(-r), ctl_msg);

	/* one that fails later gives back what it had joined */
	ctl_must_create("kt-big", SECTORS * 2, 1);
	refused("kt-big", "a", SHARED, -EMEDIUMTYPE, "");
	T_CHECK(others_may(), "a path that was refused keeps the disk");
	add("kt-0", "a", SHARED);
	refused("kt-big", "a", SHARED, -EMEDIUMTYPE, "");
	add("kt-t", "a", SHARED);
	removed("kt-0", "a");
	removed("kt-t", "a");

	fd = open(disk, O_RDWR | O_EXCL | O_CLOEXEC);
	T_REQUIRE(fd >= 0, "open: %s", strerror(errno));
	refused("kt-0", "a", SHARED, -EBUSY, "in use on this host");
	close(fd);
	add("kt-0", "a", SHARED);
}

/* Does the block layer tell who has a disk that it goes? From 6.5 on. */
static bool kernel_tells(void)
{
	unsigned int major = 0, minor = 0;
	struct utsname u;

	T_REQUIRE(!uname(&u) && sscanf(u.release, "%u.%u", &major, &minor) == 2, "which kernel is this?");
	return major > 6 || (major == 6 && minor >= 5);
}

static bool failed(int from, const char *dev, int timeout_ms)
{
	return ctl_events_wait_state(&ev, from, dev, "a", IOVM_PATH_FAILED, timeout_ms) >= 0;
}

/* The disk is pulled: everybody who shares it is told, or learns it from the next request. */
static void pulled(void)
{
	char node[1][64];
	int from, i, r, stale;

	r = scsi_debug_load(1, MB, 512, "", node);
	T_REQUIRE(!r, "scsi_debug: %s", strerror(-r));
	strcpy(disk, node[0]);
	blk_and_target();
	add("kt-0", "a", SHARED);
	add("kt-t", "a", SHARED);
	open_both();
	through(0, 1, 64, 1);
	/* by whoever wants to join a disk that is gone: opened before, as iovmctl does */
	create("kt-2", IOVM_CLASS_BLK, 0);
	stale = open(disk, O_RDWR | O_CLOEXEC);
	T_REQUIRE(stale >= 0, "open: %s", strerror(errno));
	T_REQUIRE(!ctl_events_open(&ev), "events");
	from = ev.nr_seen;
	r = scsi_remove(disk);
	T_REQUIRE(!r, "pull: %s", strerror(-r));
	if (!kernel_tells()) {
		T_CHECK(!failed(from, "kt-0", 500), "who told it?");
		vblk_timeout_ms = 500;
		for (i = 0; i < 2; i++)
			vblk_io(&F[i].s, &F[i].d.vqs[0], VIRTIO_BLK_T_IN, 8, 4096);
		vblk_timeout_ms = 10000;
	}
	T_CHECK(failed(from, "kt-0", 5000), "path a of kt-0 is not told");
	T_CHECK(failed(from, "kt-t", 5000), "path a of kt-t is not told");
	r = add_fd("kt-2", "a", stale);
	close(stale);
	T_CHECK(r < 0 && r != -EBUSY, "added to a disk that is gone: %s", strerror(-r));
}

/* A disk of the same number comes while the dead one is still held. */
static void same_number(void)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true };
	int r;

	r = nullb_create("iovmtn", &o, disk);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	blk_and_target();
	add("kt-0", "a", SHARED);
	T_REQUIRE(!nullb_destroy("iovmtn"), "null_blk");
	r = nullb_create("iovmtn", &o, disk);
	T_REQUIRE(!r, "null_blk: %s", strerror(-r));
	add("kt-t", "a", SHARED);
	T_CHECK(ctl_wait_path_state("kt-t", "a", IOVM_PATH_LIVE, 0), "the new disk's path is not live");
	T_CHECK(!others_may(), "the new disk is not claimed");
	ctl_path_remove("kt-0", "a", IOVM_PATH_REMOVE_F_FORCE);
	T_CHECK(!others_may(), "the new disk went with the old one");
	removed("kt-t", "a");
	T_CHECK(others_may(), "nobody may have the new disk");
}

struct racer {
	pthread_t thread;
	char dev[IOVM_NAME_MAX];
	unsigned int added, refused;
	int bad;
	volatile bool *stop;
};

static void *race_run(void *arg)
{
	struct racer *c = arg;
	struct iovm_path_remove m;

	while (!*c->stop && !c->bad) {
		int fd = open(disk, O_RDWR | O_CLOEXEC);

		c->bad = fd < 0 ? -errno : add_fd(c->dev, "a", fd);
		if (fd >= 0)
			close(fd);
		if (c->bad)
			break;
		c->added++;
		memset(&m, 0, sizeof(m));
		m.size = sizeof(m);
		strcpy(m.dev, c->dev);
		strcpy(m.name, "a");
		c->bad = ctl_ioctl(IOVM_PATH_REMOVE, &m);
	}
	return NULL;
}

/* Several devices come and go: nobody is refused, and nothing is left. */
static void race(void)
{
	struct racer c[THREADS] = {};
	volatile bool stop = false;
	unsigned int i;

	null_disk();
	for (i = 0; i < THREADS; i++) {
		snprintf(c[i].dev, sizeof(c[i].dev), "kt-%u", i);
		create(c[i].dev, i % 2 ? IOVM_CLASS_TARGET : IOVM_CLASS_BLK, 0);
		c[i].stop = &stop;
	}
	for (i = 0; i < THREADS; i++)
		T_REQUIRE(!pthread_create(&c[i].thread, NULL, race_run, &c[i]), "thread");
	sleep_ms(4000);
	stop = true;
	for (i = 0; i < THREADS; i++) {
		pthread_join(c[i].thread, NULL);
		T_CHECK(!c[i].bad && c[i].added, "%s after %u times: %s", c[i].dev, c[i].added, strerror(-c[i].bad));
		ktap_note("%s: %u times", c[i].dev, c[i].added);
	}
	T_CHECK(others_may(), "the disk is still in use");
}

static const struct ktap_case cases[] = {
	{ "io", io },
	{ "combinations", combinations },
	{ "pulled", pulled },
	{ "same_number", same_number },
	{ "race", race },
};

int main(int argc, char **argv)
{
	ev.fd = -1;
	ktap_set_cleanup(cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
