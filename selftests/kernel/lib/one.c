// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Requests whose end the test looks for by itself.
 */
#include "one.h"

#include <string.h>

void one_start(struct one *o, unsigned int qi, u32 type, u64 sector, u32 len, int fill)
{
	struct virtio_blk_outhdr *h;
	struct vseg s[3];

	memset(o, 0, sizeof(*o));
	o->q = &F[0].d.vqs[qi];
	o->hdr = gmem_alloc(&F[0].mem, 0, 16, 16);
	o->status = gmem_alloc(&F[0].mem, 0, 1, 1);
	o->data = gmem_alloc(&F[0].mem, 0, len, 4096);
	T_REQUIRE(o->hdr != GMEM_NONE && o->status != GMEM_NONE && o->data != GMEM_NONE, "guest memory");
	o->len = len;
	o->in = type == VIRTIO_BLK_T_IN;
	h = gmem_ptr(&F[0].mem, o->hdr);
	*h = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	memset(gmem_ptr(&F[0].mem, o->data), fill, len);
	*(u8 *)gmem_ptr(&F[0].mem, o->status) = 0xff;
	s[0] = (struct vseg){ o->hdr, 16, false };
	s[1] = (struct vseg){ o->data, len, o->in };
	s[2] = (struct vseg){ o->status, 1, true };
	o->begun_ns = now_ns();
	T_REQUIRE(vq_add(o->q, s, 3, o, 0) >= 0, "ring full");
	vq_submit(o->q);
}

bool one_wait(struct one *o, int timeout_ms)
{
	u64 end = now_ns() + timeout_ms * 1000000ull;
	struct one *x;

	while (!o->done) {
		while ((x = vq_pop(o->q, NULL))) {
			x->done = true;
			x->done_ns = now_ns();
		}
		if (o->done || now_ns() >= end)
			break;
		vq_wait(o->q, 20);
	}
	return o->done;
}

u8 one_status(const struct one *o)
{
	return *(u8 *)gmem_ptr(&F[0].mem, o->status);
}

bool all_bytes(const void *p, u32 len, int c)
{
	const u8 *b = p;

	return *b == (u8)c && !memcmp(b, b + 1, len - 1);
}
