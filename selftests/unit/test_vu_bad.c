// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovm-vhost-user against front ends that are broken or hostile, and against a kernel that refuses: the connection
 * ends, or the refusal is acknowledged and everything stays as it was; the kernel is never misled.
 */
#define _GNU_SOURCE
#include "vu_fake.h"
#include "vu_front.h"

/* A message that must be refused in whatever state. */
struct bad {
	const char *name;
	uint32_t request;
	uint32_t flags;		/* besides the version */
	uint32_t size;
	uint64_t p[5];
	int fds;		/* how many come with it */
	bool fatal;		/* framing: no acknowledgement, the connection ends */
};

#define ADDR(i, flags, d, u, a)	{ (uint64_t)(flags) << 32 | (i), d, u, a, 0 }
#define INFLIGHT(nr, size)	((uint64_t)(size) << 16 | (nr))
#define STATE(i, num)		{ (uint64_t)(num) << 32 | (i) }

static const struct bad bads[] = {
	{ "no such request", 0, 0, 0, { 0 }, 0, false },
	{ "request 255", 255, 0, 8, { 0 }, 0, false },
	{ "request 2^32-1", 0xffffffff, 0, 0, { 0 }, 0, false },
	{ "a request that is for networks", 20, 0, 8, { 1500 }, 0, false },
	{ "a record for no queue", VU_GET_INFLIGHT_FD, 0, 24, { 0, 0, INFLIGHT(0, 128) }, 0, false },
	{ "a record for more queues than there are", VU_GET_INFLIGHT_FD, 0, 24, { 0, 0, INFLIGHT(5, 128) }, 0, false },
	{ "a record for empty rings", VU_GET_INFLIGHT_FD, 0, 24, { 0, 0, INFLIGHT(1, 0) }, 0, false },
	{ "a record for rings too large", VU_GET_INFLIGHT_FD, 0, 24, { 0, 0, INFLIGHT(1, 2048) }, 0, false },
	{ "a record, cut off", VU_GET_INFLIGHT_FD, 0, 16, { 0 }, 0, false },
	{ "no record", VU_SET_INFLIGHT_FD, 0, 24, { 2112, 0, INFLIGHT(1, 128) }, 0, false },
	{ "two records", VU_SET_INFLIGHT_FD, 0, 24, { 2112, 0, INFLIGHT(1, 128) }, 2, false },
	{ "running: another record", VU_SET_INFLIGHT_FD, 0, 24, { 2112, 0, INFLIGHT(1, 128) }, 1, false },
	{ "postcopy", 28, 0, 0, { 0 }, 0, false },
	{ "a reply", VU_SET_FEATURES, VU_FLAG_REPLY, 8, { F_PROTO }, 0, true },
	{ "version 2", VU_SET_FEATURES, 3, 8, { F_PROTO }, 0, true },
	{ "a payload of 4 GiB", VU_SET_MEM_TABLE, 0, 0xffffffff, { 0 }, 0, true },
	{ "a payload beyond the largest", VU_SET_CONFIG, 0, 513, { 0 }, 0, true },
	{ "nine file descriptors", VU_SET_MEM_TABLE, 0, 8, { 0 }, 9, true },
	{ "features without payload", VU_SET_FEATURES, 0, 0, { 0 }, 0, false },
	{ "features of 4 bytes", VU_SET_FEATURES, 0, 4, { 0 }, 0, false },
	{ "features of 16 bytes", VU_SET_FEATURES, 0, 16, { F_PROTO }, 0, false },
	{ "features with a file descriptor", VU_SET_FEATURES, 0, 8, { F_PROTO }, 1, false },
	{ "features that were not offered", VU_SET_FEATURES, 0, 8, { F_PROTO | 1ull << VIRTIO_F_RING_PACKED }, 0, false },
	{ "protocol features that were not offered", VU_SET_PROTOCOL_FEATURES, 0, 8, { PF_ALL | 1 << 8 }, 0, false },
	{ "more regions than a message has", VU_SET_MEM_TABLE, 0, 8, { 9 }, 0, false },
	{ "2^32-1 regions", VU_SET_MEM_TABLE, 0, 8, { 0xffffffff }, 0, false },
	{ "a region without file", VU_SET_MEM_TABLE, 0, 40, { 1, 0, RAM_SIZE, RAM_UVA, 0 }, 0, false },
	{ "a region, two files", VU_SET_MEM_TABLE, 0, 40, { 1, 0, RAM_SIZE, RAM_UVA, 0 }, 2, false },
	{ "a region, cut off", VU_SET_MEM_TABLE, 0, 36, { 1, 0, RAM_SIZE, RAM_UVA, 0 }, 1, false },
	{ "an empty region", VU_SET_MEM_TABLE, 0, 40, { 1, HP_GPA, 0, HP_UVA, 0 }, 1, false },
	{ "a region beyond the file", VU_SET_MEM_TABLE, 0, 40, { 1, HP_GPA, RAM_SIZE, HP_UVA, 4096 }, 1, false },
	{ "a region with a wrapping guest address", VU_ADD_MEM_REG, 0, 40, { 0, -4096ull, 8192, HP_UVA, 0 }, 1, false },
	{ "a region with a wrapping address", VU_ADD_MEM_REG, 0, 40, { 0, HP_GPA, 8192, -4096ull, 0 }, 1, false },
	{ "a region with a wrapping offset", VU_ADD_MEM_REG, 0, 40, { 0, HP_GPA, 8192, HP_UVA, -4096ull }, 1, false },
	{ "a region of 2^63 bytes", VU_ADD_MEM_REG, 0, 40, { 0, HP_GPA, 1ull << 63, 0, 0 }, 1, false },
	{ "a region over another's guest addresses", VU_ADD_MEM_REG, 0, 40, { 0, 4096, 4096, HP_UVA, 0 }, 1, false },
	{ "a region over another's addresses", VU_ADD_MEM_REG, 0, 40, { 0, HP_GPA, 4096, RAM_UVA + 4096, 0 }, 1, false },
	{ "no file to add", VU_ADD_MEM_REG, 0, 40, { 0, HP_GPA, 4096, HP_UVA, 0 }, 0, false },
	{ "no region to remove", VU_REM_MEM_REG, 0, 40, { 0, HP_GPA, 4096, HP_UVA, 0 }, 0, false },
	{ "a part of a region to remove", VU_REM_MEM_REG, 0, 40, { 0, 0, RAM_SIZE / 2, RAM_UVA, 0 }, 0, false },
	{ "queue 4 of 4: size", VU_SET_VRING_NUM, 0, 8, STATE(4, 128), 0, false },
	{ "queue 2^32-1: size", VU_SET_VRING_NUM, 0, 8, STATE(0xffffffff, 128), 0, false },
	{ "size 0", VU_SET_VRING_NUM, 0, 8, STATE(1, 0), 0, false },
	{ "size 100", VU_SET_VRING_NUM, 0, 8, STATE(1, 100), 0, false },
	{ "size 2048", VU_SET_VRING_NUM, 0, 8, STATE(1, 2048), 0, false },
	{ "size 2^31", VU_SET_VRING_NUM, 0, 8, STATE(1, 1u << 31), 0, false },
	{ "queue 4 of 4: base", VU_SET_VRING_BASE, 0, 8, STATE(4, 0), 0, false },
	{ "base 65536", VU_SET_VRING_BASE, 0, 8, STATE(1, 65536), 0, false },
	{ "queue 4 of 4: addresses", VU_SET_VRING_ADDR, 0, 40, ADDR(4, 0, RAM_UVA, RAM_UVA, RAM_UVA), 0, false },
	{ "address flag 2", VU_SET_VRING_ADDR, 0, 40, ADDR(1, 2, RAM_UVA, RAM_UVA, RAM_UVA), 0, false },
	{ "descriptors misaligned", VU_SET_VRING_ADDR, 0, 40, ADDR(1, 0, RAM_UVA + 8, RAM_UVA, RAM_UVA), 0, false },
	{ "used ring misaligned", VU_SET_VRING_ADDR, 0, 40, ADDR(1, 0, RAM_UVA, RAM_UVA + 2, RAM_UVA), 0, false },
	{ "available ring misaligned", VU_SET_VRING_ADDR, 0, 40, ADDR(1, 0, RAM_UVA, RAM_UVA, RAM_UVA + 1), 0, false },
	{ "queue 255: kick", VU_SET_VRING_KICK, 0, 8, { 255 }, 1, false },
	{ "queue 255: call", VU_SET_VRING_CALL, 0, 8, { 255 }, 1, false },
	{ "queue 255: err", VU_SET_VRING_ERR, 0, 8, { 255 }, 1, false },
	{ "kick with bit 9", VU_SET_VRING_KICK, 0, 8, { 0x201 }, 1, false },
	{ "kick without file descriptor", VU_SET_VRING_KICK, 0, 8, { 1 }, 0, false },
	{ "kick by polling", VU_SET_VRING_KICK, 0, 8, { 0x101 }, 0, false },
	{ "call with and without file descriptor", VU_SET_VRING_CALL, 0, 8, { 0x101 }, 1, false },
	{ "two kicks", VU_SET_VRING_KICK, 0, 8, { 1 }, 2, false },
	{ "queue 4 of 4: enable", VU_SET_VRING_ENABLE, 0, 8, STATE(4, 1), 0, false },
	{ "enable 2", VU_SET_VRING_ENABLE, 0, 8, STATE(1, 2), 0, false },
	{ "a channel that is no socket", VU_SET_BACKEND_REQ_FD, 0, 0, { 0 }, 1, false },
	{ "no channel", VU_SET_BACKEND_REQ_FD, 0, 0, { 0 }, 0, false },
	{ "a configuration's header, cut off", VU_SET_CONFIG, 0, 8, { 0 }, 0, false },
	{ "status 256", VU_SET_STATUS, 0, 8, { 256 }, 0, false },
	{ "no log file", VU_SET_LOG_FD, 0, 0, { 0 }, 0, false },
	/* To a queue that runs. */
	{ "running: size", VU_SET_VRING_NUM, 0, 8, STATE(0, 128), 0, false },
	{ "running: base", VU_SET_VRING_BASE, 0, 8, STATE(0, 0), 0, false },
	{ "running: rings move", VU_SET_VRING_ADDR, 0, 40, ADDR(0, 0, RAM_UVA, RAM_UVA + 4096, RAM_UVA + 8192), 0, false },
	{ "running: features change", VU_SET_FEATURES, 0, 8, { F_PROTO | F_GUEST | 1 << VIRTIO_BLK_F_MQ }, 0, false },
	{ "running: logging without a log", VU_SET_FEATURES, 0, 8, { F_PROTO | F_GUEST | FAKE_F_LOG_ALL }, 0, false },
	{ "running: call is no eventfd", VU_SET_VRING_CALL, 0, 8, { 0 }, 1, false },
};

static void send_bad(const struct bad *b, uint32_t flags)
{
	int fds[9];

	for (int i = 0; i < 9; i++)
		fds[i] = fe.ram;
	fe_send_fds(b->request, (VU_FLAG_VERSION | b->flags) | flags, b->p, b->size > 512 ? 8 : b->size, fds, b->fds);
}

/* The header as the table has it: the size may lie. */
static void send_lie(const struct bad *b)
{
	uint32_t header[3] = { b->request, VU_FLAG_VERSION | b->flags, b->size };

	CHECK(write(fe.fd, header, sizeof(header)) == sizeof(header));
}

static void bad_messages(void)
{
	char before[sizeof(fake.log)];

	for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		const struct bad *b = &bads[i];
		bool was_failed = case_failed;
		uint64_t v = 0;

		case_failed = false;
		fe_connect();
		fe_realize(2);
		fe_start(1);
		strcpy(before, fake.log);
		if (b->size > 512)
			send_lie(b);
		else
			send_bad(b, VU_FLAG_NEED_REPLY);
		if (b->fatal) {
			CHECK(fe_eof());
		} else {
			/* Refused by name, nothing changed, and the connection goes on. */
			CHECK(fe_answer(b->request, &v, sizeof(v)) == sizeof(v) && v);
			CHECK(fe_sync());
			CHECK(strcmp(fake.log, before) == 0);
			CHECK(fake.table->nregions == 1 && fake.nr_maps == 1 && fake.q[0].running);
			/* Not asked for an answer: the connection ends, in order. */
			if (b->request != VU_SET_CONFIG) {
				send_bad(b, 0);
				CHECK(fe_eof());
			}
		}
		fe_end();
		if (!b->fatal || b->size > 512)
			CHECK(fe.session.error[0]);
		if (case_failed)
			printf("# in: %s\n", b->name);
		case_failed |= was_failed;
	}
}

/* Every message of a whole life, one byte at a time, the file descriptors with the first. */
static void piece_by_piece(void)
{
	struct vu_wire_mem m = { .nr = 1, .r = { fe_ram_region } };
	struct { uint32_t header[3]; char payload[40]; } msg = { .header = { VU_SET_MEM_TABLE, 1 | 8, 40 } };
	uint64_t v;

	fe_connect();
	fe_realize(1);
	memcpy(msg.payload, &m, 40);
	for (size_t i = 0; i < 52; i++) {
		struct iovec iov = { (char *)&msg + i, 1 };
		union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr c; } control = {
			.c = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) },
		};
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

		if (i == 0 || i == 30) {	/* 30: a second one, which is too many for this message */
			memcpy(CMSG_DATA(&control.c), &fe.ram, sizeof(int));
			mh.msg_control = &control;
			mh.msg_controllen = sizeof(control);
		}
		CHECK(sendmsg(fe.fd, &mh, MSG_NOSIGNAL) == 1);
		if (i % 7 == 0)
			usleep(1000);
	}
	CHECK(fe_answer(VU_SET_MEM_TABLE, &v, 8) == 8 && v == 1);
	for (size_t i = 0; i < 52; i++) {
		struct iovec iov = { (char *)&msg + i, 1 };
		union { char buf[CMSG_SPACE(sizeof(int))]; struct cmsghdr c; } control = {
			.c = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) },
		};
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };

		if (i == 40) {	/* late, but with this message */
			memcpy(CMSG_DATA(&control.c), &fe.ram, sizeof(int));
			mh.msg_control = &control;
			mh.msg_controllen = sizeof(control);
		}
		CHECK(sendmsg(fe.fd, &mh, MSG_NOSIGNAL) == 1);
	}
	CHECK(fe_answer(VU_SET_MEM_TABLE, &v, 8) == 8 && v == 0);
	CHECK(fake.table && fake.table->nregions == 1);
	/* Cut off in the header, and in the payload. */
	CHECK(write(fe.fd, &msg, 5) == 5);
	fe_end();
	CHECK(fe.result == -ECONNRESET);
	fe_connect();
	CHECK(fe_sync());
	CHECK(write(fe.fd, &msg, 20) == 20);
	fe_end();
	CHECK(fe.result == -ECONNRESET);
}

/* Several messages in one piece. */
static void many_at_once(void)
{
	uint32_t buf[3 * 50];
	uint64_t v;

	fe_connect();
	for (int i = 0; i < 50; i++) {
		buf[i * 3] = VU_GET_QUEUE_NUM;
		buf[i * 3 + 1] = VU_FLAG_VERSION;
		buf[i * 3 + 2] = 0;
	}
	CHECK(write(fe.fd, buf, sizeof(buf)) == sizeof(buf));
	for (int i = 0; i < 50; i++)
		CHECK(fe_answer(VU_GET_QUEUE_NUM, &v, 8) == 8 && v == FAKE_QUEUES);
	fe_end();
}

/* Rings that do not lie in memory, in one region, or are not there at all. */
static void bad_rings(void)
{
	static const uint64_t at[][3] = {
		{ RAM_UVA - 4096, RAM_UVA, RAM_UVA },
		{ RAM_UVA + RAM_SIZE - 1024, RAM_UVA, RAM_UVA },		/* 2048 bytes of descriptors */
		{ RAM_UVA, RAM_UVA + RAM_SIZE - 1024, RAM_UVA },		/* 1030 of used ring */
		{ RAM_UVA, RAM_UVA, RAM_UVA + RAM_SIZE - 256 },			/* 262 of available ring */
		{ -2048ull, RAM_UVA, RAM_UVA },
		{ 0, 0, 0 },
	};
	struct vu_wire_addr a;

	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		fe_connect();
		fe_realize(1);
		fe_setup(1, F_PROTO | F_GUEST);
		CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
		a = (struct vu_wire_addr){ .desc = at[i][0], .used = at[i][1], .avail = at[i][2] };
		fe_state(VU_SET_VRING_NUM, 0, RING_SIZE);
		CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 0);
		CHECK(fe_ack_eventfd(VU_SET_VRING_KICK, 0) == 0);
		CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 1);
		CHECK_LOG("OWNER FEATURES MEM(1) ");
		fe_end();
	}
	/* To the last byte is good. */
	fe_connect();
	fe_realize(1);
	CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
	a = (struct vu_wire_addr){
		.desc = RAM_UVA + RAM_SIZE - 2048, .avail = RAM_UVA, .used = RAM_UVA + RAM_SIZE - 1032,
	};
	fe_state(VU_SET_VRING_NUM, 0, RING_SIZE);
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 0);
	CHECK(fe_ack_eventfd(VU_SET_VRING_KICK, 0) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 0);
	/* Without size; without addresses. */
	CHECK(fe_ack_eventfd(VU_SET_VRING_KICK, 1) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 1, 1) == 1);
	fe_state(VU_SET_VRING_NUM, 1, RING_SIZE);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 1, 1) == 1);
	fe_end();
}

static int64_t log_features(void)
{
	return fe_ack(VU_SET_FEATURES, &(uint64_t){ F_PROTO | F_GUEST | FAKE_F_LOG_ALL }, 8);
}

/* The kernel writes where the log is: it must be as long as memory goes. */
static void bad_logs(void)
{
	struct vu_wire_log l = { 4096, 1 << 18 };
	struct vu_wire_addr a;

	fe_connect();
	fe_realize(1);
	fe_start(1);
	/* Beyond its file; empty; wrapping. */
	CHECK(fe_ack_fds(VU_SET_LOG_BASE, &l, sizeof(l), &fe.log, 1) == 1);
	l = (struct vu_wire_log){ 0, 0 };
	CHECK(fe_ack_fds(VU_SET_LOG_BASE, &l, sizeof(l), &fe.log, 1) == 1);
	l = (struct vu_wire_log){ 1ull << 40, -4096ull };
	CHECK(fe_ack_fds(VU_SET_LOG_BASE, &l, sizeof(l), &fe.log, 1) == 1);
	/* Too short for memory as soon as it counts. */
	CHECK(fe_set_log(RAM_SIZE / 4096 / 8 - 1, 0) == 0);
	CHECK(log_features() == 1);
	CHECK(fe_set_log(RAM_SIZE / 4096 / 8, 4096) == 0);
	CHECK(log_features() == 0);
	/* Now that it counts, neither memory may outgrow it nor a shorter one take its place. */
	CHECK(fe_add_region(&fe_hp_region, fe.hp) == 1);
	CHECK(fake.table->nregions == 1);
	l = (struct vu_wire_log){ 64, 0 };
	CHECK(fe_ack_fds(VU_SET_LOG_BASE, &l, sizeof(l), &fe.log, 1) == 1);
	a = fe_ring(0, 1);
	a.log = RAM_SIZE - 4;
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 1);
	a.log = -4ull;
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 1);
	a.log = RAM_SIZE - 4096;
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 0);
	/* A longer log first, then memory. */
	CHECK(fe_set_log((HP_GPA + HP_SIZE) / 4096 / 8, 0) == 0);
	CHECK(fe_add_region(&fe_hp_region, fe.hp) == 0);
	/* The shorter log that comes after the memory left. */
	CHECK(fe_rem_region(&fe_hp_region) == 0);
	CHECK(fe_set_log(RAM_SIZE / 4096 / 8, 0) == 0);
	fe_end();
}

/* The record that a front end brings must hold all of its queues, in its file. */
static void bad_records(void)
{
	const uint64_t piece = 2112;	/* of a queue of 128 */
	const struct vu_wire_inflight w[] = {
		{ 2 * piece - 1, 0, 2, 128, 0 }, { 0, 0, 1, 128, 0 }, { piece, RAM_SIZE - piece + 64, 1, 128, 0 },
		{ piece, -piece, 1, 128, 0 }, { piece, 8, 1, 128, 0 }, { ~0ull, 64, 1, 128, 0 }, { piece, 0, 5, 128, 0 }, { 16448, 0, 2, 2048, 0 },
		{ piece, 0, 1, 0, 0 }, { RAM_SIZE, 0, 1, 65535, 0 },
	};

	fe_connect();
	fe_realize(1);
	for (size_t i = 0; i < sizeof(w) / sizeof(w[0]); i++)
		CHECK(fe_set_inflight(&w[i], fe.ram) == 1, "number %zu", i);
	CHECK(fe.session.inflight.map == NULL);
	CHECK(fe_set_inflight(&(struct vu_wire_inflight){ piece, RAM_SIZE - piece, 1, 128, 0 }, fe.ram) == 0);
	/* What was good before stays. */
	CHECK(fe_set_inflight(&w[0], fe.ram) == 1);
	CHECK(fe.session.inflight.nr_queues == 1);
	/* A ring that it has no room for: the kernel says so. */
	CHECK(fe_set_inflight(&(struct vu_wire_inflight){ piece, 0, 1, 64, 0 }, fe.ram) == 0);
	fe_setup(1, F_PROTO | F_GUEST);
	CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
	fe_state(VU_SET_VRING_NUM, 0, RING_SIZE);
	CHECK(fe_ack(VU_SET_VRING_ADDR, &(struct vu_wire_addr){ 0, 0, RAM_UVA, RAM_UVA, RAM_UVA, 0 }, 40) == 0);
	CHECK(fe_ack_eventfd(VU_SET_VRING_KICK, 0) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 1);
	CHECK(strstr(fe.session.error, "in-flight record"));
	fe_end();
}

/* The kernel refuses this or that: an answer, the connection goes on, and what was stays. */
static void kernel_refuses(void)
{
	static const struct { unsigned long cmd; int err; } in[] = {
		{ VHOST_SET_VRING_NUM, EINVAL }, { VHOST_SET_VRING_BASE, EINVAL }, { VHOST_SET_VRING_ADDR, EFAULT },
		{ VHOST_SET_VRING_CALL, EBADF }, { VHOST_SET_VRING_ERR, EBADF }, { VHOST_SET_VRING_KICK, ENOMEM },
		{ VHOST_SET_VRING_KICK, EOPNOTSUPP }, { VHOST_SET_VRING_KICK, EFAULT },
	};
	static const unsigned long at_open[] = {
		VHOST_SET_OWNER, VHOST_GET_FEATURES, VHOST_VDPA_GET_DEVICE_ID, VHOST_VDPA_GET_VQS_COUNT,
		VHOST_VDPA_GET_CONFIG_SIZE, VHOST_VDPA_SET_CONFIG_CALL, VHOST_IOVM_LEND_SOCKET,
	};

	for (size_t i = 0; i < sizeof(in) / sizeof(in[0]); i++) {
		fe_connect();
		fe_realize(1);
		fe_setup(1, F_PROTO | F_GUEST);
		CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
		fe_rings(1, 3, false);
		CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 0) == 0);
		fake.fail_cmd = in[i].cmd;
		fake.fail_errno = in[i].err;
		CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 1);
		CHECK(!fe.session.ring[0].running && fe.session.ring[0].base == 3);
		fake.fail_errno = 0;
		CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 0);
		CHECK(fake.q[0].running && fake.q[0].base == 3);
		fe_end();
	}
	fe_connect();
	fe_realize(1);
	fe_start(1);
	fake.fail_cmd = VHOST_SET_LOG_BASE;
	fake.fail_errno = EFAULT;
	CHECK(fe_ack_fds(VU_SET_LOG_BASE, &(struct vu_wire_log){ 4096, 0 }, 16, &fe.log, 1) == 1);
	CHECK(fake.nr_maps == 1);
	fake.fail_cmd = VHOST_SET_FEATURES;
	CHECK(fe_ack(VU_SET_FEATURES, &(uint64_t){ F_PROTO | F_GUEST }, 8) == 1);
	fake.fail_cmd = VHOST_SET_LOG_FD;
	CHECK(fe_ack_fds(VU_SET_LOG_FD, NULL, 0, &fe.log, 1) == 1);
	/* A base that cannot be told must not be made up. */
	fake.fail_cmd = VHOST_GET_VRING_BASE;
	fake.fail_errno = ENODEV;
	CHECK(fe_get_base(0) == -1);
	CHECK(fe_eof());
	fe_end();
	CHECK(fe.result == -ENODEV);
	for (size_t i = 0; i < sizeof(at_open) / sizeof(at_open[0]); i++) {
		fake.fail_cmd = at_open[i];
		fake.fail_errno = EPERM;
		fe_connect();
		CHECK(fe_eof());
		fe_end();
		CHECK(fe.result == -EPERM);
	}
	fake.fail_errno = 0;
}

/* A front end that sends and never reads, for as long as its socket takes it. */
static void never_reads(void)
{
	uint32_t header[3] = { VU_GET_CONFIG, VU_FLAG_VERSION, VU_CONFIG_HEADER + 1 };
	struct vu_wire_config c = { .size = 1 };
	char msg[VU_HEADER + VU_CONFIG_HEADER + 1] = "";
	int n = 0;

	memcpy(msg, header, VU_HEADER);
	memcpy(msg + VU_HEADER, &c, VU_CONFIG_HEADER);
	fe_connect();
	while (send(fe.fd, msg, sizeof(msg), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(msg) || n < 1000) {
		if (++n > 1000000)
			break;
	}
	CHECK(n > 100 && n < 1000000);
	fe_end();
}

static uint32_t seed = 1;

static uint32_t rnd(uint32_t n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static uint64_t odd_number(void)
{
	static const uint64_t some[] = {
		0, 1, 2, 3, 4, 8, 0x100, 0x101, 128, 1024, 4096, 65535, 65536, RAM_UVA, RAM_UVA + 4096, RAM_UVA + RAM_SIZE,
		RAM_SIZE, HP_GPA, HP_UVA, HP_SIZE, -1ull, -4096ull, 1ull << 63, 1ull << 32, F_PROTO | F_GUEST, FAKE_FEATURES,
		FAKE_F_LOG_ALL | F_PROTO, PF_ALL, 1ull << 32 | 1, 128ull << 32, 128ull << 32 | 1, 1ull << 32 | 2,
	};
	uint64_t v = some[rnd(sizeof(some) / sizeof(some[0]))];

	return rnd(4) ? v : v + rnd(64) - 32;
}

/* Messages at random, most of them nearly right, to one session after another. */
static void at_random(void)
{
	static const uint16_t sizes[] = { 0, 8, 12, 16, 40, 72, 268 };
	uint64_t until = vu_now_ms() + 3000;
	char answer[600];
	uint64_t p[64];
	int sessions = 0, messages = 0;

	while (vu_now_ms() < until) {
		fe_connect();
		if (rnd(4)) {
			fe_realize(1);
			if (rnd(2))
				fe_start(1);
		}
		for (int i = 0; i < 60; i++) {
			int fds[9];

			for (int k = 0; k < 9; k++) {
				int which = rnd(4);

				fds[k] = which == 0 ? fe.ram : which == 1 ? fe.hp : which == 2 ? fe.log : fe.stop_pipe[1];
			}
			for (int k = 0; k < 64; k++)
				p[k] = odd_number();
			fe_send_fds(rnd(45), VU_FLAG_VERSION | (rnd(8) ? VU_FLAG_NEED_REPLY : 0), p,
				    rnd(20) ? sizes[rnd(7)] : rnd(512), fds, rnd(3) ? rnd(2) : rnd(10));
			if (rnd(3) == 0 && recv(fe.fd, answer, sizeof(answer), MSG_DONTWAIT) == 0)
				break;
			messages++;
		}
		sessions++;
		fe_end();
	}
	printf("# %d messages in %d sessions\n", messages, sessions);
	CHECK(sessions > 10 && messages > 100);
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "bad messages", bad_messages },
		{ "piece by piece", piece_by_piece },
		{ "many at once", many_at_once },
		{ "bad rings", bad_rings },
		{ "bad logs", bad_logs },
		{ "in-flight records", bad_records },
		{ "the kernel refuses", kernel_refuses },
		{ "a front end that never reads", never_reads },
		{ "at random", at_random },
	};

	return KTAP_RUN(cases);
}
