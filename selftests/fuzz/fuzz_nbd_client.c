// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A server at random against our client's handshake (userland/common/nbd_client.c), and an address at random against the parser of
 * addresses with TLS (userland/common/parse.c).
 *
 * The input is what the server sends; the first byte chooses how much of it is made valid first. What the client has read when it says
 * that the transmission phase begins must be the handshake and not a byte more: the rest of the input is still there.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../userland/common/nbd_client.h"
#include "../../userland/common/parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t n);

static void address(const uint8_t *in, size_t n)
{
	char text[600] = "nbds://";
	struct addr_tls a;

	memcpy(text + 7, in, n < sizeof(text) - 8 ? n : sizeof(text) - 8);
	if (parse_addr_tls(text, &a))
		return;
	/* what is taken can be used */
	if (!*a.host || !*a.port || !*a.peer || strchr(a.peer, '/') || (*a.dir && *a.dir != '/'))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *in, size_t n)
{
	static const uint8_t hello[] = "NBDMAGICIHAVEOPT\0\3" "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x8\x80\0\0\1\0\0\0\0"
				       "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x7\0\0\0\3\0\0\0\xc\0\0\0\0\0\0\0\x10\0\0\1\x6d";
	static struct nbdc_export ex;
	struct nbdc_ask ask = { .name = "disk", .timeout_ms = 1000 };
	char why[256] = "", rest[60000];
	size_t made = 0, left;
	enum nbdc_end end;
	int sv[2];

	if (!n || n > sizeof(rest))
		return 0;
	address(in + 1, n - 1);
	if (*in & 1)
		made = *in & 2 ? *in & 4 ? sizeof(hello) - 1 : 38 : 18;
	ask.only_ask = *in & 8;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv))
		abort();
	if ((made && write(sv[1], hello, made) < 0) || write(sv[1], in + 1, n - 1) < 0)
		abort();
	shutdown(sv[1], SHUT_WR);
	end = nbdc_handshake(sv[0], &ask, &ex, why, sizeof(why));
	if ((end == NBDC_BAD || end == NBDC_NO_EXPORT) && !*why)
		abort();
	if (end == NBDC_GO) {
		ssize_t r = recv(sv[0], rest, sizeof(rest), MSG_DONTWAIT);

		left = r > 0 ? (size_t)r : 0;
		if (ask.only_ask || left > n - 1 || memcmp(rest, in + n - left, left) || ex.bytes > INT64_MAX ||
		    memchr(ex.description, 0, sizeof(ex.description)) == NULL)
			abort();
	}
	close(sv[0]);
	close(sv[1]);
	return 0;
}
