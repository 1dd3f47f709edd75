// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * create, destroy.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "iovmctl.h"

#define DEFAULT_NO_PATH_MS	300000
#define DEFAULT_DISCARD		(1ULL << 30)
#define DEFAULT_ZEROES		(64ULL << 20)
#define DEFAULT_MODE		0660

static struct {
	struct opt_u64 size, block, queues, queue_size, seg_max, iops, bps, no_path, failback, max_discard, max_zeroes;
	struct opt_u64 timeout, no_space, slow_factor, leave_slow;
	const char *size_from, *serial, *owner, *mode, *identity;
	bool target, epoch, readonly, discard, no_discard, no_zeroes, bounce_reads;
} o;

static const struct opt create_opts[] = {
	{ "size", 's', OPT_SIZE, &o.size, "SIZE", "Size of the disk, as in 10G.", 0, 0 },
	{ "size-from", 'S', OPT_STR, &o.size_from, "ADDR",
	  "Take size and block sizes from a block device\nor an NBD URI instead; it is only looked at.", 0, 0 },
	{ "target", 0, OPT_FLAG, &o.target, NULL,
	  "For NBD clients instead of a guest: it has no node;\n'iovmctl serve' lets them in.", 0, 0 },
	{ "epoch", 0, OPT_FLAG, &o.epoch, NULL,
	  "It needs an epoch before it issues anything, or admits\nclients: see 'epoch take'.", 0, 0 },
	{ "serial", 0, OPT_STR, &o.serial, "TEXT", "Serial number the guest sees, at most 20 bytes.\nDefault: the name, cut.",
	  0, 0 },
	{ "block-size", 0, OPT_SIZE, &o.block, "512|4096", "Logical block size. Default: that of --size-from, else 512.",
	  512, 4096 },
	{ "queues", 'q', OPT_NUM, &o.queues, "N", "Queues offered, 1 to 64. Default 1; give as many as vCPUs.", 1,
	  IOVM_MAX_QUEUES },
	{ "queue-size", 0, OPT_NUM, &o.queue_size, "N", "Ring size advised, a power of two to 1024. Default 128.", 2, 1024 },
	{ "seg-max", 0, OPT_NUM, &o.seg_max, "N", "Data segments a request may have. Default queue size - 2.", 1, 1024 },
	{ "readonly", 'r', OPT_FLAG, &o.readonly, NULL, "The guest may not write.", 0, 0 },
	{ "discard", 0, OPT_FLAG, &o.discard, NULL, "Offer DISCARD (the default unless --readonly).", 0, 0 },
	{ "no-discard", 0, OPT_FLAG, &o.no_discard, NULL, "Do not offer DISCARD.", 0, 0 },
	{ "max-discard", 0, OPT_SIZE, &o.max_discard, "SIZE", "Largest DISCARD. Default 1G.", 4096, 1ULL << 40 },
	{ "no-write-zeroes", 0, OPT_FLAG, &o.no_zeroes, NULL, "Do not offer WRITE_ZEROES.", 0, 0 },
	{ "max-write-zeroes", 0, OPT_SIZE, &o.max_zeroes, "SIZE", "Largest WRITE_ZEROES. Default 64M.", 4096, 1ULL << 40 },
	{ "iops", 0, OPT_COUNT, &o.iops, "N", "Requests per second at most, as in 5k. Default 0: no limit.", 0, 0 },
	{ "bps", 0, OPT_SIZE, &o.bps, "SIZE", "Bytes per second at most, as in 200M. Default 0: no limit.", 0, 0 },
	{ "no-path-timeout", 0, OPT_TIME, &o.no_path, "TIME",
	  "How long the guest waits while no path is usable,\nbefore its requests fail. Default 5min; 0 or 'never':\nfor ever.",
	  0, 0 },
	{ "no-space-timeout", 0, OPT_TIME, &o.no_space, "TIME",
	  "How long a write waits while a thin-provisioned store\nis full. Default 'never': for ever.", 0, 0 },
	{ "failback-after", 0, OPT_TIME, &o.failback, "TIME",
	  "Go back to an earlier path by itself once it has been\nlive this long. Default 0: only by 'failback'.", 0, 0 },
	{ "slow-factor", 0, OPT_FACTOR, &o.slow_factor, "N",
	  "A path is reported as slow when requests take N times\nwhat is usual under such a load. Default 4; or 'off'.",
	  2, 1000 },
	{ "leave-slow", 0, OPT_TIME, &o.leave_slow, "TIME",
	  "Leave a path that has been slow for this long, if\nanother one is clearly better. Default 'never'.", 0, 0 },
	{ "identity", 0, OPT_STR, &o.identity, "ID",
	  "What data it is, as SCHEME:TEXT; every path must show\nit. Default: what the first path shows.", 0, 0 },
	{ "bounce-reads", 0, OPT_FLAG, &o.bounce_reads, NULL,
	  "Reads land in pages of the kernel's and are copied: one\nthat hangs can go elsewhere at once.", 0, 0 },
	{ "owner", 'o', OPT_STR, &o.owner, "USER[:GROUP]", "Owner of the node. Default root:kvm.", 0, 0 },
	{ "mode", 'm', OPT_STR, &o.mode, "MODE", "Mode of the node. Default 0660.", 0, 0 },
	{ "timeout", 0, OPT_TIME, &o.timeout, "TIME", "Time limit for asking an NBD server. Default 10s.", 0, 0 },
	{ 0 }
};

/* What a --size-from says */
struct source {
	uint64_t bytes;
	uint32_t logical, physical, opt_io, granularity;
};

static uint32_t sysfs_granularity(dev_t rdev)
{
	static const char *const where[] = { "", "../" };	/* a disk's own queue, a partition's disk's */
	unsigned long v = 0;
	char path[128];
	unsigned int i;
	FILE *f;

	for (i = 0; i < 2 && !v; i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/discard_granularity", major(rdev), minor(rdev),
			 where[i]);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%lu", &v) != 1)
			v = 0;
		fclose(f);
	}
	return v <= UINT32_MAX ? (uint32_t)v : 0;
}

static int from_bdev(const char *file, struct source *src)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), logical = 0;
	unsigned int physical = 0, opt_io = 0;
	struct stat st;
	int code = EX_DONE;

	if (fd < 0)
		return mux_fail(errno, NULL, NULL, "cannot open '%s'", file);
	if (fstat(fd, &st) || !S_ISBLK(st.st_mode))
		code = fail(EX_REFUSED, "for an image file, set up a loop device: losetup -f --show --direct-io=on FILE",
			    "'%s' is not a block device", file);
	else if (ioctl(fd, BLKGETSIZE64, &src->bytes) || ioctl(fd, BLKSSZGET, &logical))
		code = mux_fail(errno, NULL, NULL, "cannot read the size of '%s'", file);
	if (!code) {
		src->logical = (uint32_t)logical;
		if (!ioctl(fd, BLKPBSZGET, &physical))
			src->physical = physical;
		if (!ioctl(fd, BLKIOOPT, &opt_io))
			src->opt_io = opt_io;
		src->granularity = sysfs_granularity(st.st_rdev);
	}
	close(fd);
	return code;
}

static int from_nbd(const char *uri, struct source *src)
{
	struct nbd_export ex;
	int code;

	code = nbd_open_export(uri, 0, true, o.timeout.v, &ex);
	if (code)
		return code;
	src->bytes = ex.bytes;
	src->logical = ex.min_block <= 512 ? 512 : ex.min_block;
	src->physical = ex.pref_block;
	return EX_DONE;
}

static bool power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

static int take_geometry(struct iovm_blk_config *blk)
{
	struct source src = { 0 };
	enum addr_kind kind;
	const char *rest, *err;
	int code;

	if (o.size.set == !!o.size_from)
		return usage_error(&cmd_create, "give one of --size and --size-from");
	if (o.size_from) {
		err = parse_addr(o.size_from, &kind, &rest);
		if (err)
			return usage_error(&cmd_create, "--size-from: '%s' %s", o.size_from, err);
		code = kind == ADDR_BDEV ? from_bdev(rest, &src) : from_nbd(rest, &src);
		if (code)
			return code;
	} else {
		src.bytes = o.size.v;
	}
	if (o.block.set)
		src.logical = (uint32_t)o.block.v;
	else if (!src.logical)
		src.logical = 512;
	if (src.logical != 512 && src.logical != 4096)
		return fail(o.block.set ? EX_USAGE_ERR : EX_REFUSED, NULL, "a block size of %u is not supported (512 or 4096)",
			    src.logical);
	if (!src.bytes || src.bytes % src.logical)
		return fail(o.size.set ? EX_USAGE_ERR : EX_REFUSED, NULL,
			    "the size, %llu bytes, is not a multiple of the block size of %u", (unsigned long long)src.bytes,
			    src.logical);
	blk->capacity = src.bytes / 512;
	blk->block_size = src.logical;
	if (power_of_two(src.physical) && src.physical > src.logical && src.physical <= 1u << 20)
		blk->physical_block_size = src.physical;
	if (src.opt_io % src.logical == 0)
		blk->opt_io_size = src.opt_io;
	if (src.granularity % src.logical == 0)
		blk->discard_granularity = src.granularity;
	return EX_DONE;
}

/* Bytes to sectors, a multiple of the block size */
static uint32_t limit_sectors(const struct opt_u64 *opt, uint64_t fallback, uint32_t block_size)
{
	uint64_t bytes = opt->set ? opt->v : fallback, most = (uint64_t)UINT32_MAX * 512;

	if (bytes > most)
		bytes = most;
	return (uint32_t)((bytes - bytes % block_size) / 512);
}

static int take_blk(struct iovm_blk_config *blk, const char *name)
{
	const char *serial = o.serial ? o.serial : name;
	size_t len = strlen(serial);
	int code;

	if (o.discard && (o.no_discard || o.readonly))
		return usage_error(&cmd_create, "--discard contradicts %s", o.readonly ? "--readonly" : "--no-discard");
	if (o.serial && len > IOVM_SERIAL_MAX)
		return usage_error(&cmd_create, "--serial: '%s' is longer than %d bytes", serial, IOVM_SERIAL_MAX);
	if (o.queue_size.set && !power_of_two(o.queue_size.v))
		return usage_error(&cmd_create, "--queue-size: %llu is not a power of two", (unsigned long long)o.queue_size.v);
	code = take_geometry(blk);
	if (code)
		return code;
	memcpy(blk->serial, serial, len < IOVM_SERIAL_MAX ? len : IOVM_SERIAL_MAX);
	blk->num_queues = o.queues.set ? (uint32_t)o.queues.v : 1;
	blk->queue_size = o.queue_size.set ? (uint32_t)o.queue_size.v : 128;
	blk->seg_max = (uint32_t)o.seg_max.v;
	if (!o.readonly && !o.no_discard)
		blk->max_discard_sectors = limit_sectors(&o.max_discard, DEFAULT_DISCARD, blk->block_size);
	else
		blk->discard_granularity = 0;
	if (!o.readonly && !o.no_zeroes)
		blk->max_write_zeroes_sectors = limit_sectors(&o.max_zeroes, DEFAULT_ZEROES, blk->block_size);
	return EX_DONE;
}

static int take_node(struct iovm_dev_create *c)
{
	struct group *kvm = getgrnam("kvm");
	const char *err;

	c->mode = DEFAULT_MODE;
	c->gid = kvm ? kvm->gr_gid : 0;
	if (o.mode) {
		err = parse_mode(o.mode, &c->mode);
		if (err)
			return usage_error(&cmd_create, "--mode: '%s' %s", o.mode, err);
	}
	if (o.owner) {
		err = parse_owner(o.owner, &c->uid, &c->gid);
		if (err)
			return usage_error(&cmd_create, "--owner: '%s' %s", o.owner, err);
	}
	return EX_DONE;
}

static int run_create(int argc, char **argv)
{
	char text[192], size[32];
	struct iovm_dev_create c;
	const char *hint = NULL;
	int err;

	(void)argc;
	IOVM_INIT(&c);
	c.class = o.target ? IOVM_CLASS_TARGET : IOVM_CLASS_BLK;
	err = take_name(&cmd_create, "device", c.name, argv[0]);
	if (!err && o.target && (o.owner || o.mode || o.queues.set || o.queue_size.set || o.seg_max.set || o.serial || o.iops.set ||
				 o.bps.set || o.bounce_reads))
		err = usage_error(&cmd_create, "--target: there is no guest to which --owner, --mode, --serial, --queues, --queue-size, "
				  "--seg-max, --iops, --bps or --bounce-reads could apply");
	if (!err)
		err = take_node(&c);
	if (!err)
		err = take_blk(&c.blk, c.name);
	if (!err)
		err = identity_settle(&cmd_create, c.name, o.identity, "", c.identity);
	if (!err)
		err = mux_open();
	if (err)
		return err;
	c.no_space_timeout_ms = o.no_space.v;
	c.slow_factor = (uint32_t)o.slow_factor.v;
	c.leave_slow_after_ms = o.leave_slow.v;
	c.flags = (o.readonly ? IOVM_DEV_F_RDONLY : 0) | (o.bounce_reads ? IOVM_DEV_F_BOUNCE_READS : 0) |
		  (o.epoch ? IOVM_DEV_F_EPOCH : 0);
	c.no_path_timeout_ms = o.no_path.set ? o.no_path.v : DEFAULT_NO_PATH_MS;
	c.failback_after_ms = o.failback.v;
	c.iops = o.iops.v;
	c.bps = o.bps.v;
	err = mux_ioctl(IOVM_DEV_CREATE, &c);
	if (err == EEXIST)
		hint = "'iovmctl list' shows the names in use";
	else if (err == ENOSPC)
		hint = "destroy a device that is no longer needed";
	if (err)
		return mux_fail(err, c.msg, hint, "cannot create device '%s'", c.name);
	text_size(size, sizeof(size), c.blk.capacity * 512);
	if (o.target) {
		snprintf(text, sizeof(text), "created, %s, for NBD clients", size);
		return report_dev(c.name, text);
	}
	snprintf(text, sizeof(text), "created " NODE_DIR "/%s, %s, %u queue%s", c.name, size, c.blk.num_queues,
		 c.blk.num_queues == 1 ? "" : "s");
	return report_dev(c.name, text);
}

const struct cmd cmd_create = {
	.name = "create", .args = "NAME (--size SIZE | --size-from ADDR)",
	.summary = "Create a block device and its node " NODE_DIR "/NAME.",
	.detail =
	"The device has no path yet: its requests wait until 'iovmctl path add' gives it one. What is set here\n"
	"stays the same whichever path serves it, except the limits and times, which 'iovmctl set' changes, and\n"
	"the size, which 'iovmctl resize' changes.\n"
	"\n"
	"SIZE is in bytes, or with K, M, G, T, P (powers of 1024). TIME is a number with ms, s, min, h or d; seconds\n"
	"without.\n"
	"\n"
	"Example:\n"
	"  iovmctl create vm1 --size-from /dev/sdb --queues 4\n",
	.opts = create_opts, .min_args = 1, .max_args = 1, .run = run_create,
};

static bool destroy_force;

static const struct opt destroy_opts[] = {
	{ "force", 'f', OPT_FLAG, &destroy_force, NULL,
	  "Even while a front end has the node open: its queues\nstop, the guest's requests stay unanswered, and nothing\nis flushed.", 0, 0 },
	{ 0 }
};

static int run_destroy(int argc, char **argv)
{
	struct iovm_dev_destroy d;
	const char *hint = NULL;
	char what[128];
	struct json j;
	int err;

	(void)argc;
	IOVM_INIT(&d);
	err = take_name(&cmd_destroy, "device", d.name, argv[0]);
	if (!err)
		err = mux_open();
	if (err)
		return err;
	d.flags = destroy_force ? IOVM_DESTROY_F_FORCE : 0;
	snprintf(what, sizeof(what), "destroying %s", d.name);
	err = mux_ioctl_wait(IOVM_DEV_DESTROY, &d, what, d.name, NULL);
	if (err == EBUSY)
		hint = "stop the guest or its vhost-user process first ('iovmctl show' names the pid), or use --force";
	else if (err == ENOENT)
		hint = "'iovmctl list' shows the devices";
	else if (err == EIO)
		hint = "once that path is live again, try again; or use --force, if what it acknowledged may be lost";
	if (err)
		return mux_fail(err, d.msg, hint, "cannot destroy device '%s'", d.name);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "destroyed", d.name);
		json_close(&j);
	} else {
		printf("destroyed %s\n", d.name);
	}
	return EX_DONE;
}

const struct cmd cmd_destroy = {
	.name = "destroy", .args = "NAME", .summary = "Destroy a device, its paths and its node.",
	.detail =
	"Refused while a front end (a VMM) has the node open, unless --force is given. What the paths acknowledged is flushed\n"
	"first; if that fails, the device stays, with that path failed.\n",
	.opts = destroy_opts, .min_args = 1, .max_args = 1, .run = run_destroy,
};
