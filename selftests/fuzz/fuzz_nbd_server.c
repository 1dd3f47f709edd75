// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A client at random against the server's handshake (userland/iovmctl/nbd_server.c), and against what the kernel's target does
 * with a request header (vhost_iovm_blk/nbd_proto.c).
 *
 * The input is what the client sends; the first byte chooses how much of it is made valid first. What the server has read when
 * it says that the transmission phase begins must be the handshake and not a byte more: the rest of the input is still there.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../userland/iovmctl/nbd_server.c"
#include "../../vhost_iovm_blk/nbd_proto.c"

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t n);

static void header(const uint8_t *in, size_t n)
{
	struct viovm_nbd_command c;
	u8 hdr[VNBD_REQUEST_SIZE] = { 0x25, 0x60, 0x95, 0x13 };
	const u64 bytes = 1 << 20;

	memcpy(hdr + 4, in, n < sizeof(hdr) - 4 ? n : sizeof(hdr) - 4);
	if (viovm_nbd_unpack(hdr, &c)) {
		if (c.type != VNBD_CMD_WRITE || c.len <= VNBD_MAX_PAYLOAD)
			abort();
		return;
	}
	if (viovm_nbd_check(&c, bytes, 4096, n & 1))
		return;
	/* what is let through lies inside, in whole blocks */
	if (c.type == VNBD_CMD_FLUSH)
		return;
	if (!c.len || c.offset + c.len > bytes || c.offset + c.len < c.offset || (c.offset | c.len) & 4095 ||
	    (c.type != VNBD_CMD_READ && n & 1))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t n)
{
	static const uint8_t hello[] = { 0, 0, 0, 3, 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0 };
	const struct nbds_export other = { .name = "d", .description = "", .bytes = 1 << 21, .min_block = 4096, .pref_block = 4096, .flags = 3 };
	const struct nbds_export ex = { .name = "disk", .description = "iovm-id=x:y", .bytes = 1 << 20, .min_block = 512,
					.pref_block = 4096, .flags = 0x16d, .next = &other };
	char why[128] = "";
	size_t made = 0, left;
	uint8_t rest[70000];
	int sv[2];
	const struct nbds_export *chosen = &ex;
	enum nbds_end end;

	if (!n || n > 60000)
		return 0;
	header(in + 1, n - 1);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		abort();
	if (*in & 1)
		made = *in & 2 ? sizeof(hello) : 4;
	if ((made && write(sv[1], hello, made) < 0) || write(sv[1], in + 1, n - 1) < 0)
		abort();
	shutdown(sv[1], SHUT_WR);
	end = nbds_handshake(sv[0], &chosen, 1000, why, sizeof(why));
	if (end == NBDS_BAD && !*why)
		abort();
	if (end == NBDS_GO && chosen != &ex && chosen != &other)
		abort();
	if (end == NBDS_GO) {
		ssize_t r = recv(sv[0], rest, sizeof(rest), MSG_DONTWAIT);

		left = r > 0 ? (size_t)r : 0;
		if (left > n - 1 || memcmp(rest, in + n - left, left))
			abort();
	}
	close(sv[0]);
	close(sv[1]);
	return 0;
}
