// SPDX-License-Identifier: GPL-2.0-or-later
/* What nobody should send to the mux's node: each ioctl gets its error, most of them a sentence too. */
#include "fix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB 16

#define MUX(req, arg, err)	T_ERRNO(ioctl(ctl_fd(), req, arg), err)

static void mux_sizes(void)
{
	static const unsigned long reqs[] = {
		IOVM_GET_VERSION, IOVM_DEV_CREATE, IOVM_DEV_DESTROY, IOVM_DEV_GET, IOVM_DEV_CTL, IOVM_DEV_STATS, IOVM_PATH_ADD,
		IOVM_PATH_REMOVE, IOVM_PATH_GET, IOVM_PATH_CONNECT, IOVM_PATH_CTL, IOVM_PATH_STATS, IOVM_EVENTS_FROM,
		IOVM_SESSION_ADD, IOVM_SESSION_REMOVE, IOVM_SESSION_GET,
	};
	u32 buf[4096] = {};
	unsigned int i;
	struct { struct iovm_version v; u32 tail[16]; } v = {};

	for (i = 0; i < ARRAY_SIZE(reqs); i++) {
		buf[0] = 0;
		MUX(reqs[i], buf, EINVAL);
		buf[0] = 3;
		MUX(reqs[i], buf, EINVAL);
		buf[0] = 8192;		/* longer than any; not all zero behind */
		buf[2000] = 1;
		MUX(reqs[i], buf, E2BIG);
		buf[2000] = 0;
		buf[0] = 0xffffffff;
		T_CHECK(ioctl(ctl_fd(), reqs[i], buf) < 0 && (errno == EINVAL || errno == E2BIG), "size 2^32 - 1: %d", errno);
		MUX(reqs[i], (void *)8, EFAULT);
	}
	MUX(_IO(IOVM_IOC_TYPE, 0x77), NULL, ENOTTY);
	MUX(_IO('x', 0x77), NULL, ENOTTY);
	/* longer, zero behind: fine, and the kernel says how much it knows */
	v.v.size = sizeof(v);
	T_CHECK(!ioctl(ctl_fd(), IOVM_GET_VERSION, &v) && v.v.size <= sizeof(v) && v.v.abi == IOVM_ABI_VERSION,
		"longer struct: %s, size %u, abi %u", strerror(errno), v.v.size, v.v.abi);
	T_CHECK(v.v.classes & (1u << IOVM_CLASS_BLK), "class block is missing: %llx", (unsigned long long)v.v.classes);
	T_CHECK((v.v.path_types & 6) == 6, "path types %llx", (unsigned long long)v.v.path_types);
	/* shorter than the first version's: nobody ever built with that */
	v.v.size = 8;
	MUX(IOVM_GET_VERSION, &v, EINVAL);
}

#define BAD_CREATE(stmt, want) do {						\
	struct iovm_dev_create c_, *c = &c_;					\
	int r_;									\
										\
	ctl_dev_defaults(c, "kt-x", MB * 2048, 1);				\
	stmt;									\
	ctl_msg[0] = 0;								\
	r_ = ctl_dev_create(c);							\
	if (!r_)								\
		ctl_dev_destroy(c->name, IOVM_DESTROY_F_FORCE);			\
	T_CHECK(r_ == -(want), "%s: %s (%s)", #stmt, strerror(-r_), ctl_msg);	\
	T_CHECK(r_ == 0 || ctl_msg[0], "%s: no message", #stmt);		\
} while (0)

static void mux_create(void)
{
	BAD_CREATE(c->blk.capacity = 0, EINVAL);
	BAD_CREATE(c->blk.capacity = ~0ull, EINVAL);
	BAD_CREATE(c->blk.block_size = 0, EINVAL);
	BAD_CREATE(c->blk.block_size = 1024, EINVAL);
	BAD_CREATE(c->blk.block_size = 4096; c->blk.capacity = 2049, EINVAL);
	BAD_CREATE(c->blk.physical_block_size = 511, EINVAL);
	BAD_CREATE(c->blk.physical_block_size = 3072, EINVAL);
	BAD_CREATE(c->blk.physical_block_size = 2 * MiB, EINVAL);
	BAD_CREATE(c->blk.num_queues = 0, EINVAL);
	BAD_CREATE(c->blk.num_queues = 65, EINVAL);
	BAD_CREATE(c->blk.queue_size = 3, EINVAL);
	BAD_CREATE(c->blk.queue_size = 2048, EINVAL);
	BAD_CREATE(c->blk.pad = 1, EINVAL);
	BAD_CREATE(c->blk.pad2 = 1, EINVAL);
	BAD_CREATE(c->pad = 1, EINVAL);
	BAD_CREATE(c->flags = 1u << 31, EINVAL);
	BAD_CREATE(c->mode = 01000, EINVAL);
	BAD_CREATE(c->class = 0, ENODEV);
	BAD_CREATE(c->class = 99, ENODEV);
	BAD_CREATE(c->class = IOVM_CLASS_NET, ENODEV);
	BAD_CREATE(c->name[0] = 0, EINVAL);
	BAD_CREATE(strcpy(c->name, "-x"), EINVAL);
	BAD_CREATE(strcpy(c->name, ".x"), EINVAL);
	BAD_CREATE(strcpy(c->name, "a/b"), EINVAL);
	BAD_CREATE(strcpy(c->name, "a b"), EINVAL);
	BAD_CREATE(strcpy(c->name, "kt-\xc3\xa9"), EINVAL);
	BAD_CREATE(memset(c->name, 'a', sizeof(c->name)), EINVAL);
	/* the longest name there is */
	BAD_CREATE(memset(c->name, 'a', sizeof(c->name) - 1); memcpy(c->name, "kt-", 3), 0);
	BAD_CREATE(c->blk.physical_block_size = 4096, 0);
	BAD_CREATE(c->blk.num_queues = 64; c->blk.queue_size = 1024, 0);
	ctl_must_create("kt-x", MB * 2048, 1);
	BAD_CREATE(c->blk.capacity = 8, EEXIST);
}

static void mux_devices(void)
{
	struct iovm_dev_info i;
	struct iovm_dev_stats s;
	unsigned int n;
	int r;
	static const u32 bad_ops[] = { 0, IOVM_DEV_EPOCH_GIVE + 1, 99, 0xffffffff };

	r = ctl_dev_destroy("kt-none", 0);
	T_CHECK(r == -ENOENT && ctl_msg[0], "destroy: %s", strerror(-r));
	r = ctl_dev_get("kt-none", &i);
	T_CHECK(r == -ENOENT, "get: %s", strerror(-r));
	r = ctl_dev_stats("kt-none", &s);
	T_CHECK(r == -ENOENT, "stats: %s", strerror(-r));
	r = ctl_dev_ctl("kt-none", IOVM_DEV_SUSPEND, NULL, 0);
	T_CHECK(r == -ENOENT, "ctl: %s", strerror(-r));
	r = ctl_path_add_nbd("kt-none", "b", 0, 0, 0, 0);
	T_CHECK(r == -ENOENT, "path add: %s", strerror(-r));
	r = ctl_path_remove("kt-none", "b", 0);
	T_CHECK(r == -ENOENT, "path remove: %s", strerror(-r));
	r = ctl_path_ctl("kt-none", "b", IOVM_PATH_CTL_FAIL);
	T_CHECK(r == -ENOENT, "path ctl: %s", strerror(-r));
	r = ctl_path_connect("kt-none", "b", (int[]){ 0 }, 1, 1, 1, 0);
	T_CHECK(r == -ENOENT, "path connect: %s", strerror(-r));

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	for (n = 0; n < ARRAY_SIZE(bad_ops); n++) {
		r = ctl_dev_ctl("kt-0", bad_ops[n], NULL, 0);
		T_CHECK(r == -EINVAL, "dev op %u: %s", bad_ops[n], strerror(-r));
		r = ctl_path_ctl("kt-0", "a", bad_ops[n]);
		T_CHECK(r == -EINVAL, "path op %u: %s", bad_ops[n], strerror(-r));
	}
	r = ctl_path_ctl("kt-0", "nix", IOVM_PATH_CTL_FAIL);
	T_CHECK(r == -ENOENT, "path ctl: %s", strerror(-r));
	r = ctl_path_remove("kt-0", "nix", 0);
	T_CHECK(r == -ENOENT, "path remove: %s", strerror(-r));
	r = ctl_path_remove("kt-0", "a", 2);
	T_CHECK(r == -EINVAL, "path remove, flag 2: %s", strerror(-r));
	r = ctl_dev_destroy("kt-0", 2);
	T_CHECK(r == -EINVAL, "destroy, flag 2: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, "nix", 0);
	T_CHECK(r == -ENOENT || r == -ENOLINK, "failover to a path that is not there: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_FAILOVER, NULL, 0);
	T_CHECK(r == -ENOLINK, "failover with one path: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, MB * 4096);
	T_CHECK(r < 0 && ctl_msg[0], "resize beyond the path: %s", strerror(-r));
	r = ctl_dev_ctl("kt-0", IOVM_DEV_RESIZE, NULL, 0);
	T_CHECK(r == -EINVAL, "resize to nothing: %s", strerror(-r));
}

static void mux_paths(void)
{
	struct nullb_opts o = { .size_mb = MB, .memory_backed = true };
	char small[64], four[64], dm[64];
	struct iovm_path_add a;
	char file[] = "/tmp/iovm-x-XXXXXX";
	unsigned int i;
	int r, fd;

	fix_store_make(MB, 512);
	ctl_must_create("kt-0", MB * 2048, 1);
	o.size_mb = MB / 2;
	T_REQUIRE(!nullb_create("iovmtsmall", &o, small), "null_blk");
	o.size_mb = MB;
	o.block_size = 4096;
	T_REQUIRE(!nullb_create("iovmtfour", &o, four), "null_blk");

	r = ctl_path_add_bdev("kt-0", "b", small, 0, 0);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "smaller: %s: %s", strerror(-r), ctl_msg);
	ktap_note("smaller: %s", ctl_msg);
	r = ctl_path_add_bdev("kt-0", "b", four, 0, 0);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "4096-byte blocks: %s: %s", strerror(-r), ctl_msg);
	ktap_note("4096-byte blocks: %s", ctl_msg);

	for (i = 0; i < 7; i++) {
		static const struct { const char *what; int err; } want[] = {
			{ "bad fd", EBADF }, { "no fd", EBADF }, { "regular file", ENOTBLK }, { "character device", ENOTBLK },
			{ "type 9", ENODEV }, { "flags", EINVAL }, { "fence 9", EINVAL },
		};

		memset(&a, 0, sizeof(a));
		a.size = sizeof(a);
		a.type = IOVM_PATH_BDEV;
		strcpy(a.dev, "kt-0");
		strcpy(a.name, "b");
		fd = open(fix_store, O_RDWR);
		a.fd = fd;
		if (i == 0)
			a.fd = 12345;
		if (i == 1)
			a.fd = -1;
		if (i == 2) {
			close(fd);
			a.fd = fd = mkstemp(file);
		}
		if (i == 3) {
			close(fd);
			a.fd = fd = open("/dev/null", O_RDWR);
		}
		if (i == 4)
			a.type = 9;
		if (i == 5)
			a.flags = 1u << 31;
		if (i == 6)
			a.fence = 9;
		r = ctl_ioctl(IOVM_PATH_ADD, &a);
		T_CHECK(r == -want[i].err || (i == 3 && r == -ENXIO), "%s: %s", want[i].what, strerror(-r));
		close(fd);
	}
	unlink(file);
	memset(&a, 0, sizeof(a));
	a.size = sizeof(a);
	a.type = IOVM_PATH_BDEV;
	a.flags = IOVM_PATH_F_CACHE_SURVIVES | IOVM_PATH_F_CACHE_DIES;
	a.fd = open(fix_store, O_RDWR);
	strcpy(a.dev, "kt-0");
	strcpy(a.name, "b");
	r = ctl_ioctl(IOVM_PATH_ADD, &a);
	T_CHECK(r == -EINVAL, "both cache flags: %s", strerror(-r));
	strcpy(a.name, "../x");
	a.flags = 0;
	r = ctl_ioctl(IOVM_PATH_ADD, &a);
	T_CHECK(r == -EINVAL, "path name ../x: %s", strerror(-r));
	close(a.fd);

	/* held by another */
	r = dm_create("iovmt-held", dm_linear(fix_store, MB * 2048), dm);
	T_REQUIRE(!r, "dm: %s", strerror(-r));
	r = ctl_path_add_bdev("kt-0", "b", fix_store, 0, 0);
	T_CHECK(r == -EBUSY && ctl_msg[0], "a device that dm holds: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev("kt-0", "b", dm, 0, 0);
	T_CHECK(!r, "dm: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev("kt-0", "b", dm, 0, 0);
	T_CHECK(r == -EEXIST, "same name: %s", strerror(-r));
	r = ctl_path_add_bdev("kt-0", "c", dm, 0, 0);
	T_CHECK(r == -EBUSY || r == 0, "same device again: %s", strerror(-r));
	ctl_must_create("kt-1", MB * 2048, 1);
	r = ctl_path_add_bdev("kt-1", "b", dm, 0, 0);
	T_CHECK(r == -EBUSY, "a device that another device's path has: %s", strerror(-r));

	for (i = 0; i < IOVM_MAX_PATHS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		r = ctl_path_add_nbd("kt-1", name, 0, 0, 0, 0);
		T_CHECK(!r, "path %u: %s: %s", i, strerror(-r), ctl_msg);
	}
	r = ctl_path_add_nbd("kt-1", "n9", 0, 0, 0, 0);
	T_CHECK(r == -ENOSPC, "ninth path: %s", strerror(-r));
}

static void mux_connect(void)
{
	u32 fl = NBDSRV_FLAGS;
	int r, sv[2], udp, fds[IOVM_MAX_SOCKETS + 1], lst;
	u64 bytes = MB * MiB;

	fix_store_make(MB, 512);
	fix_create(0, fix_store, MB * 2048, 1);
	r = ctl_path_add_nbd("kt-0", "n", 0, 0, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	T_REQUIRE(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv), "socketpair");
	udp = socket(AF_INET, SOCK_DGRAM, 0);
	lst = socket(AF_INET, SOCK_STREAM, 0);

	r = ctl_path_connect("kt-0", "n", (int[]){ 12345 }, 1, bytes, fl, 0);
	T_CHECK(r == -EBADF, "bad fd: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", (int[]){ ctl_fd() }, 1, bytes, fl, 0);
	T_CHECK(r == -ENOTSOCK, "no socket: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", &udp, 1, bytes, fl, 0);
	T_CHECK(r == -EPROTOTYPE, "datagram socket: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", &lst, 1, bytes, fl, 0);
	T_CHECK(r < 0, "unconnected socket: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 0, bytes, fl, 0);
	T_CHECK(r == -EINVAL, "no sockets: %s", strerror(-r));
	memset(fds, 0, sizeof(fds));
	r = ctl_path_connect("kt-0", "n", fds, IOVM_MAX_SOCKETS + 1, bytes, fl, 0);
	T_CHECK(r == -EINVAL, "17 sockets: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 2, bytes, fl & ~NBD_F_MULTI_CONN, 0);
	T_CHECK(r == -EINVAL, "two sockets without CAN_MULTI_CONN: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl, 2);
	T_CHECK(r == -EINVAL, "flag 2: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes / 2, fl, 0);
	T_CHECK(r == -EMEDIUMTYPE && ctl_msg[0], "export of another size: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl | NBD_F_READ_ONLY, 0);
	T_CHECK(r < 0 && ctl_msg[0], "read-only export: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_connect("kt-0", "a", sv, 1, bytes, fl, 0);
	T_CHECK(r < 0, "connecting a bdev path: %s", strerror(-r));
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl, 0);
	T_CHECK(!r, "good: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_connect("kt-0", "n", sv, 1, bytes, fl, 0);
	T_CHECK(r == -EBUSY, "while it is live: %s", strerror(-r));
	close(sv[0]);
	close(sv[1]);
	close(udp);
	close(lst);
}

static void mux_caps(void)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid) {
		struct iovm_version v = { .size = sizeof(v) };
		int fd = ctl_fd(), r;

		if (setgid(65534) || setuid(65534))
			_exit(2);
		r = ioctl(fd, IOVM_GET_VERSION, &v) ? errno : 0;
		if (r != EPERM)
			_exit(3);
		if (open(VHOST_IOVM_MUX_NODE, O_RDWR) >= 0)
			_exit(4);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	T_CHECK(WIFEXITED(status) && !WEXITSTATUS(status), "nobody: %x (3: ioctl allowed, 4: open allowed)", status);
}

static const struct ktap_case cases[] = {
	{ "mux_sizes", mux_sizes },
	{ "mux_create", mux_create },
	{ "mux_devices", mux_devices },
	{ "mux_paths", mux_paths },
	{ "mux_connect", mux_connect },
	{ "mux_caps", mux_caps },
};

int main(int argc, char **argv)
{
	ktap_set_cleanup(fix_cleanup);
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), ctl_setup, NULL);
}
