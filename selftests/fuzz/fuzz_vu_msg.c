// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A front end at random against iovm-vhost-user, with the node of selftests/unit/vu_fake.h, which aborts when the
 * kernel is given an address that is not mapped or a log that is too short.
 *
 * The input is a little program: for each message its request, its flags, its size, its file descriptors, and its payload
 * as words, most of them from a table of interesting ones.
 */
#define _GNU_SOURCE
#include "../unit/vu_fake.h"

#include <poll.h>
#include <sys/socket.h>

#define MAX_MESSAGES	64
#define UVA		0x7f0000000000ull
#define RAM		(1ull << 20)

static const uint64_t words[] = {
	0, 1, 2, 3, 4, 128, 256, 1024, 4096, 0x10000, 0x100, 0x101, RAM, RAM - 4096, RAM / 2, UVA, UVA + 4096, UVA + 8192,
	UVA + RAM, UVA + RAM - 2048, -1ull, -4096ull, 1ull << 32, 1ull << 63, 1ull << 32 | 1, 128ull << 32, 128ull << 32 | 1,
	1ull << VU_F_PROTOCOL_FEATURES, FAKE_FEATURES, FAKE_FEATURES | 1ull << VU_F_PROTOCOL_FEATURES,
	(FAKE_FEATURES & ~FAKE_F_LOG_ALL) | 1ull << VU_F_PROTOCOL_FEATURES,
	1 << VU_PROTO_REPLY_ACK | 1 << VU_PROTO_CONFIGURE_MEM_SLOTS, RAM / 4096 / 8, RAM / 4096 / 8 - 1,
	1ull << 32 | 0, UVA + 0x10000, UVA + 0x14000, UVA + 0x15000,
};

static const uint8_t *in;
static size_t in_left;

static uint8_t byte(void)
{
	if (!in_left)
		return 0;
	in_left--;
	return *in++;
}

static uint64_t word(void)
{
	uint8_t b = byte();
	uint64_t v = 0;

	if (b < sizeof(words) / sizeof(words[0]))
		return words[b];
	for (int i = 0; i < (b & 7) + 1; i++)
		v = v << 8 | byte();
	return v;
}

static int files[4];

static void put_message(int fd)
{
	union { char buf[CMSG_SPACE(sizeof(int) * 16)]; struct cmsghdr align; } control;
	uint64_t payload[64] = { 0 };
	uint8_t nr, how;
	uint32_t header[3];
	struct iovec iov[2] = { { header, sizeof(header) }, { payload, 0 } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	header[0] = byte();
	how = byte();
	header[1] = how & 0x80 ? byte() : VU_FLAG_VERSION | (how & VU_FLAG_NEED_REPLY);
	header[2] = how & 0x40 ? word() : (byte() % 65) * 4u;
	nr = how & 7;
	if (nr == 7)
		nr = byte() % 12;
	iov[1].iov_len = header[2] < sizeof(payload) ? header[2] : sizeof(payload);
	for (size_t i = 0; i < (iov[1].iov_len + 7) / 8; i++)
		payload[i] = word();
	if (nr) {
		struct cmsghdr *c = &control.align;

		memset(&control, 0, sizeof(control));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nr);
		for (int i = 0; i < nr; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &files[byte() % 4], sizeof(int));
		mh.msg_control = &control;
		mh.msg_controllen = CMSG_SPACE(sizeof(int) * nr);
	}
	if (sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

/* Start from a device with memory, a queue that runs and, perhaps, a log in use. */
static void prepare(struct vu_session *s, bool logging)
{
	struct vu_wire_region r = { 0, RAM, UVA, 0 };
	struct vu_wire_addr a = {
		.flags = logging, .desc = UVA + 0x10000, .avail = UVA + 0x14000, .used = UVA + 0x15000, .log = 0x15000,
	};
	struct vu_wire_log log = { RAM / 4096 / 8, 0 };
	uint64_t f = 1ull << VIRTIO_F_VERSION_1 | (logging ? FAKE_F_LOG_ALL : 0);

	s->features = f | 1ull << VU_F_PROTOCOL_FEATURES;
	s->proto = 1 << VU_PROTO_REPLY_ACK;
	if (vuk_set_features(s->node, f) || vu_mem_add(s, &r, files[0]) || vu_log_set(s, &log, files[1]) ||
	    vu_ring_set_num(s, 0, 128) || vu_ring_set_addr(s, &a) || vu_ring_set_kick(s, 0, dup(files[2])) ||
	    vu_ring_enable(s, 0, true))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vu_session s;
	static int sv[2];
	char sink[4096];
	uint8_t how;
	int ret = 0;

	if (!files[0]) {
		files[0] = memfd_create("ram", MFD_CLOEXEC);
		files[1] = memfd_create("log", MFD_CLOEXEC);
		files[2] = eventfd(0, EFD_CLOEXEC);
		if (ftruncate(files[0], RAM) || ftruncate(files[1], 4096))
			abort();
	}
	in = data;
	in_left = size;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv))
		abort();
	files[3] = sv[1];
	vu_session_reset(&s);
	vu_reader_init(&s.rd, sv[0]);
	s.node_path = FAKE_NODE;
	if (open_node(&s) || ask_node(&s))
		abort();
	how = byte();
	if (how & 1)
		prepare(&s, how & 2);
	for (int i = 0; i < MAX_MESSAGES && in_left && ret >= 0; i++) {
		put_message(sv[1]);
		do {
			ret = vu_msg_recv(&s);
			if (ret == 1) {
				ret = vu_dispatch(&s);
				vu_reader_reset(&s.rd);
				if (!ret)
					ret = 1;
			}
		} while (ret == 1);
		while (recv(sv[1], sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
		tell_config_change(&s);
	}
	vu_rings_drain(&s);
	fake_release();
	vu_mem_destroy(&s);
	vu_inflight_end(&s);
	vu_rings_close(&s);
	vu_reader_reset(&s.rd);
	if (s.backend_fd >= 0)
		close(s.backend_fd);
	close(sv[0]);
	close(sv[1]);
	fake.log_len = 0;
	if (fake.violations || fake.nr_maps)
		abort();
	return 0;
}
