// SPDX-License-Identifier: GPL-2.0-or-later
#include "tlsbed.h"

#include <string.h>
#include <unistd.h>

struct bed B = { .ev.fd = -1, .peer = -1 };

void bed_cleanup(void)
{
	if (ktap_failed() && B.ev.fd >= 0 && B.ev.nr_seen)
		ctl_events_dump(&B.ev);
	ktls_limits_restore();
	if (B.peer >= 0)
		close(B.peer);
	B.peer = -1;
	if (B.loading) {
		ctl_dev_destroy("kt-0", IOVM_DESTROY_F_FORCE);
		B.load.abandon = true;
		vload_stop(&B.load);
	}
	B.loading = false;
	B.buffer = 0;
	ctl_events_close(&B.ev);
	fix_close(0);
	ctl_destroy_all("kt-");
	fix_cleanup();
}

void bed_target(void)
{
	struct iovm_dev_create c;
	int r;

	fix_store_make(BED_MB, 512);
	ctl_dev_defaults(&c, BED_TGT, BED_BYTES / 512, 1);
	c.class = IOVM_CLASS_TARGET;
	c.no_path_timeout_ms = 0;
	r = ctl_dev_create(&c);
	T_REQUIRE(!r, "create: %s: %s", strerror(-r), ctl_msg);
	r = ctl_path_add_bdev(BED_TGT, "a", fix_store, 0, 0);
	T_REQUIRE(!r, "path: %s: %s", strerror(-r), ctl_msg);
	T_REQUIRE(!ctl_events_open(&B.ev), "events");
}

void bed_guest(const char *identity)
{
	struct iovm_path_add a = { .dead_ms = 60000, .io_timeout_ms = IOVM_NO_TIMEOUT, .flags = identity ? 0 : IOVM_PATH_F_ASSUME_SAME };
	int r;

	B.identity = identity;
	if (identity)
		strcpy(a.identity, identity);
	ctl_must_create("kt-0", BED_BYTES / 512, 2);
	r = ctl_path_add_nbd_arg("kt-0", "n", &a);
	T_REQUIRE(!r, "path: %s", ctl_msg);
	strcpy(F[0].name, "kt-0");
}

static void set_buffers(int fd)
{
	T_REQUIRE(!setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &B.buffer, sizeof(B.buffer)) &&
		  !setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &B.buffer, sizeof(B.buffer)), "buffers");
}

void bed_sockets(unsigned int nr, u16 cipher, int fds[], int far[])
{
	unsigned int i;
	int sv[2], r;

	for (i = 0; i < nr; i++) {
		ktls_pair(sv, cipher, 7);
		fds[i] = sv[0];
		far[i] = sv[1];
		if (B.buffer) {
			set_buffers(sv[0]);
			set_buffers(sv[1]);
		}
	}
	r = ctl_session_add(BED_TGT, far, nr, IOVM_SESSION_F_TLS, "kt-0", NULL);
	T_REQUIRE(!r, "session: %s", ctl_msg);
}

void bed_close(unsigned int nr, const int fds[], const int far[])
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		close(fds[i]);
		close(far[i]);
	}
}

void bed_connect(unsigned int nr, u16 cipher, u32 flags)
{
	int fds[BED_MAX_CONN], far[BED_MAX_CONN], r;

	bed_sockets(nr, cipher, fds, far);
	r = ctl_path_connect_id("kt-0", "n", fds, nr, BED_BYTES, NBDSRV_FLAGS, IOVM_NBD_F_TLS | flags, B.identity);
	T_REQUIRE(!r, "connect: %s: %s", strerror(-r), ctl_msg);
	bed_close(nr, fds, far);
}

void bed_load(u64 max_ios)
{
	fix_open(0, ALL_FEATURES, 2, 128);
	B.loading = !vload_start(&B.load, &F[0].d, &(struct vload_cfg){ .depth = 8, .max_blocks = 32, .flush_pct = 3, .zero_pct = 3,
									 .max_ios = max_ios });
	T_REQUIRE(B.loading, "load");
}

void bed_check(void)
{
	vload_stop(&B.load);
	B.loading = false;
	T_CHECK(vload_check_dev(&B.load) == 0 && vload_check_node(&B.load, fix_store) == 0, "wrong data at rest");
	vload_finish(&B.load, "load");
}
