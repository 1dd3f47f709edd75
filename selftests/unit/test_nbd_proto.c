// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the NBD framing (vhost_iovm_blk/nbd_proto.c): a peer that obeys, in every split of the stream, and one
 * that does not.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ktap.h"
#include "../../vhost_iovm_blk/nbd_proto.c"

#define MAX_CMDS 4
#define MAX_STREAM 65536

/* What the test's "kernel" side knows: commands that wait, and what became of each. */
static struct {
	struct viovm_nbd_wire cmd[MAX_CMDS];
	bool waiting[MAX_CMDS];
	bool finished[MAX_CMDS];
	u32 error[MAX_CMDS];
	u8 *data[MAX_CMDS];	/* exactly as long as the command, so that ASan sees every overrun */
	u32 nr;
	u32 lookups;
} bed;

static u8 stream[MAX_STREAM];
static u32 stream_len;
static u32 seed;

static u32 rnd(u32 n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static struct viovm_nbd_wire *lookup(void *ctx, u64 cookie)
{
	CHECK(ctx == &bed);
	bed.lookups++;
	for (u32 i = 0; i < bed.nr; i++)
		if (bed.waiting[i] && bed.cmd[i].cookie == cookie)
			return &bed.cmd[i];
	return NULL;
}

static void reset(void)
{
	for (u32 i = 0; i < bed.nr; i++)
		free(bed.data[i]);
	memset(&bed, 0, sizeof(bed));
	stream_len = 0;
}

static void add_cmd(u64 cookie, u16 type, u64 offset, u32 len)
{
	u32 i = bed.nr++;

	viovm_nbd_wire_init(&bed.cmd[i], cookie, type, offset, len);
	bed.waiting[i] = true;
	bed.data[i] = malloc(type == VNBD_CMD_READ && len ? len : 1);
	if (!bed.data[i])
		abort();
	memset(bed.data[i], 0xee, type == VNBD_CMD_READ && len ? len : 1);
}

static void rewind_cmds(void)
{
	for (u32 i = 0; i < bed.nr; i++) {
		struct viovm_nbd_wire old = bed.cmd[i];

		viovm_nbd_wire_init(&bed.cmd[i], old.cookie, old.type, old.offset, old.len);
		bed.waiting[i] = true;
		bed.finished[i] = false;
		bed.error[i] = 0;
		memset(bed.data[i], 0xee, old.type == VNBD_CMD_READ && old.len ? old.len : 1);
	}
}

static void s16(u16 v)
{
	put16(stream + stream_len, v);
	stream_len += 2;
}

static void s32(u32 v)
{
	put32(stream + stream_len, v);
	stream_len += 4;
}

static void s64(u64 v)
{
	put64(stream + stream_len, v);
	stream_len += 8;
}

/* The byte that belongs at an offset of the export. */
static u8 pattern(u64 offset)
{
	return (u8)(offset * 7 + offset / 256 + 1);
}

static void sdata(u64 offset, u32 len)
{
	for (u32 i = 0; i < len; i++)
		stream[stream_len++] = pattern(offset + i);
}

static void stext(u32 len)
{
	memset(stream + stream_len, 'x', len);
	stream_len += len;
}

static void simple(u32 error, u64 cookie)
{
	s32(VNBD_SIMPLE_MAGIC);
	s32(error);
	s64(cookie);
}

static void chunk(u16 flags, u16 type, u64 cookie, u32 len)
{
	s32(VNBD_CHUNK_MAGIC);
	s16(flags);
	s16(type);
	s64(cookie);
	s32(len);
}

static void chunk_data(u16 flags, u64 cookie, u64 offset, u32 len)
{
	chunk(flags, VNBD_CHUNK_OFFSET_DATA, cookie, 8 + len);
	s64(offset);
	sdata(offset, len);
}

static void chunk_hole(u16 flags, u64 cookie, u64 offset, u32 len)
{
	chunk(flags, VNBD_CHUNK_OFFSET_HOLE, cookie, 12);
	s64(offset);
	s32(len);
}

/* Run the stream in pieces of at most @max bytes (0: at random). 0 when all of it was parsed, else the error. */
static int run(bool structured, u32 max)
{
	struct viovm_nbd_reply r;
	u32 pos = 0, n, i;
	int ret;

	viovm_nbd_reply_init(&r, structured, lookup, &bed);
	for (;;) {
		i = r.cmd ? (u32)(r.cmd - bed.cmd) : 0;
		n = max ? max : 1 + rnd(40);
		if (n > stream_len - pos)
			n = stream_len - pos;
		switch (r.step) {
		case VNBD_STEP_HEAD:
			if (!n)
				return 0;
			ret = viovm_nbd_reply_head(&r, stream + pos, n);
			if (ret < 0)
				return ret;
			CHECK(ret > 0 && (u32)ret <= n);
			pos += (u32)ret;
			break;
		case VNBD_STEP_DATA:
		case VNBD_STEP_SKIP:
			if (!n)
				return 0;
			if (n > r.want)
				n = r.want;
			if (r.step == VNBD_STEP_DATA)
				memcpy(bed.data[i] + r.off, stream + pos, n);
			pos += n;
			ret = viovm_nbd_reply_advance(&r, n);
			if (ret)
				return ret;
			break;
		case VNBD_STEP_ZERO:
			memset(bed.data[i] + r.off, 0, r.want);
			ret = viovm_nbd_reply_advance(&r, r.want);
			if (ret)
				return ret;
			break;
		case VNBD_STEP_DONE:
			CHECK(bed.waiting[i] && !bed.finished[i]);
			bed.waiting[i] = false;
			bed.finished[i] = true;
			bed.error[i] = r.cmd->error;
			ret = viovm_nbd_reply_advance(&r, 0);
			if (ret)
				return ret;
			break;
		}
	}
}

/* A stream that is right: parses in every split, and every command ends with the error expected. */
static void good(bool structured, u32 n, const u32 *errors)
{
	for (u32 max = 0; max < 70; max++) {
		rewind_cmds();
		CHECK(run(structured, max < 64 ? max : max * 1000) == 0);
		for (u32 i = 0; i < n; i++) {
			CHECK(bed.finished[i]);
			CHECK(bed.error[i] == errors[i]);
		}
		if (case_failed)
			return;
	}
}

/* A stream that is wrong: -EPROTO in every split, and command @unfinished never ends. */
static void bad(bool structured, u32 unfinished)
{
	for (u32 max = 0; max < 70; max++) {
		rewind_cmds();
		CHECK(run(structured, max < 64 ? max : max * 1000) == -EPROTO);
		if (unfinished < bed.nr)
			CHECK(!bed.finished[unfinished]);
		if (case_failed)
			return;
	}
}

static void check_data(u32 i)
{
	for (u32 k = 0; k < bed.cmd[i].len; k++)
		if (bed.data[i][k] != pattern(bed.cmd[i].offset + k)) {
			CHECK(!"data differs");
			return;
		}
}

static void t_pack(void)
{
	static const u8 want[VNBD_REQUEST_SIZE] = {
		0x25, 0x60, 0x95, 0x13, 0x00, 0x01, 0x00, 0x06, 1, 2, 3, 4, 5, 6, 7, 8,
		0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0xa1, 0xa2, 0xa3, 0xa4 };
	struct viovm_nbd_wire cmd;
	u8 hdr[VNBD_REQUEST_SIZE];

	viovm_nbd_wire_init(&cmd, 0x0102030405060708ull, VNBD_CMD_WRITE_ZEROES, 0x1112131415161718ull, 0xa1a2a3a4);
	viovm_nbd_pack(hdr, &cmd, VNBD_CMD_F_FUA);
	CHECK(!memcmp(hdr, want, sizeof(hdr)));
}

static void t_errno(void)
{
	CHECK(viovm_nbd_errno(VNBD_EPERM) == -EPERM);
	CHECK(viovm_nbd_errno(VNBD_EIO) == -EIO);
	CHECK(viovm_nbd_errno(VNBD_ENOMEM) == -ENOMEM);
	CHECK(viovm_nbd_errno(VNBD_EINVAL) == -EINVAL);
	CHECK(viovm_nbd_errno(VNBD_ENOSPC) == -ENOSPC);
	CHECK(viovm_nbd_errno(VNBD_EOVERFLOW) == -EOVERFLOW);
	CHECK(viovm_nbd_errno(VNBD_ENOTSUP) == -EOPNOTSUPP);
	CHECK(viovm_nbd_errno(VNBD_ESHUTDOWN) == -ESHUTDOWN);
	CHECK(viovm_nbd_errno(0xdeadbeef) == -EINVAL);
}

static void t_simple_any_order(void)
{
	add_cmd(1, VNBD_CMD_READ, 4096, 1000);
	add_cmd(2, VNBD_CMD_WRITE, 0, 512);
	add_cmd(3, VNBD_CMD_FLUSH, 0, 0);
	add_cmd(4, VNBD_CMD_READ, 1ull << 62, 1);
	simple(0, 3);
	simple(0, 4);
	sdata(1ull << 62, 1);
	simple(0, 1);
	sdata(4096, 1000);
	simple(0, 2);
	good(false, 4, (u32 []){ 0, 0, 0, 0 });
	check_data(0);
	check_data(3);
}

static void t_simple_errors(void)
{
	add_cmd(1, VNBD_CMD_READ, 0, 4096);
	add_cmd(2, VNBD_CMD_WRITE, 0, 512);
	simple(VNBD_EIO, 1);	/* no data follows */
	simple(VNBD_ENOSPC, 2);
	good(false, 2, (u32 []){ VNBD_EIO, VNBD_ENOSPC });
	good(true, 2, (u32 []){ VNBD_EIO, VNBD_ENOSPC });
}

static void t_simple_read_when_structured(void)
{
	add_cmd(1, VNBD_CMD_READ, 0, 16);
	simple(0, 1);
	sdata(0, 16);
	bad(true, 0);
}

static void t_chunk_when_simple(void)
{
	add_cmd(1, VNBD_CMD_WRITE, 0, 16);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 1, 0);
	bad(false, 0);
	good(true, 1, (u32 []){ 0 });
}

static void t_structured_pieces(void)
{
	add_cmd(7, VNBD_CMD_READ, 65536, 3000);
	add_cmd(8, VNBD_CMD_WRITE, 0, 512);
	/* last piece first, another command's reply in between, the middle closes the gap */
	chunk_data(0, 7, 65536 + 2000, 1000);
	chunk_data(0, 7, 65536, 500);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 8, 0);
	chunk_data(0, 7, 65536 + 500, 1500);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 7, 0);
	good(true, 2, (u32 []){ 0, 0 });
	check_data(0);
}

static void t_structured_done_on_data(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 512);
	chunk_data(VNBD_CHUNK_F_DONE, 7, 512, 512);
	good(true, 1, (u32 []){ 0 });
	check_data(0);
}

static void t_hole(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk_data(0, 7, 512, 10);
	chunk_hole(VNBD_CHUNK_F_DONE, 7, 522, 90);
	good(true, 1, (u32 []){ 0 });
	for (u32 i = 10; i < 100; i++)
		CHECK(bed.data[0][i] == 0);
}

static void t_missing_data(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk_data(0, 7, 512, 99);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 7, 0);
	bad(true, 0);
	stream_len = 0;
	chunk_data(VNBD_CHUNK_F_DONE, 7, 513, 99);
	bad(true, 0);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 7, 0);
	bad(true, 0);
}

static void t_overlap(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk_data(0, 7, 512, 50);
	chunk_data(VNBD_CHUNK_F_DONE, 7, 561, 51);	/* the sum fits, the pieces do not */
	bad(true, 0);
	stream_len = 0;
	chunk_data(0, 7, 540, 20);
	chunk_hole(0, 7, 530, 11);
	bad(true, 0);
	stream_len = 0;
	chunk_data(0, 7, 540, 20);
	chunk_data(0, 7, 530, 40);
	bad(true, 0);
	stream_len = 0;
	chunk_data(0, 7, 540, 20);
	chunk_data(0, 7, 540, 20);
	bad(true, 0);
}

static void t_outside(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk_data(0, 7, 511, 10);
	bad(true, 0);
	stream_len = 0;
	chunk_data(0, 7, 603, 10);
	bad(true, 0);
	stream_len = 0;
	chunk_data(0, 7, 512, 101);
	bad(true, 0);
	stream_len = 0;
	chunk_data(0, 7, 612, 1);
	bad(true, 0);
	stream_len = 0;
	chunk_hole(0, 7, 512, 101);
	bad(true, 0);
	stream_len = 0;
	chunk_hole(0, 7, 520, 0xffffffff);
	bad(true, 0);
	stream_len = 0;
	chunk_hole(0, 7, 0xffffffffffffffffull, 1);
	bad(true, 0);
	stream_len = 0;
	chunk_hole(0, 7, 512 + (1ull << 32), 1);
	bad(true, 0);
	stream_len = 0;
	chunk_hole(0, 7, 512, 0);
	bad(true, 0);
}

static void t_chunk_lengths(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk(0, VNBD_CHUNK_OFFSET_DATA, 7, 8);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_OFFSET_DATA, 7, 0);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_OFFSET_DATA, 7, 0xffffffff);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_OFFSET_HOLE, 7, 11);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_OFFSET_HOLE, 7, 13);
	bad(true, 0);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 7, 1);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_ERROR, 7, 5);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_ERROR_OFFSET, 7, 13);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_ERROR, 7, 0x80000000);
	bad(true, 0);
}

static void t_none_without_done(void)
{
	add_cmd(7, VNBD_CMD_WRITE, 512, 100);
	chunk(0, VNBD_CHUNK_NONE, 7, 0);
	bad(true, 0);
}

static void t_unknown_content_chunk(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk(0, 5, 7, 12);
	stext(12);
	bad(true, 0);
}

static void t_unknown_error_chunk(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	add_cmd(8, VNBD_CMD_FLUSH, 0, 0);
	chunk(VNBD_CHUNK_F_DONE, 0x8777, 7, 6 + 4 + 13);
	s32(VNBD_EPERM);
	s16(4);
	stext(4 + 13);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 8, 0);
	good(true, 2, (u32 []){ VNBD_EPERM, 0 });
}

static void t_error_chunks(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	add_cmd(8, VNBD_CMD_WRITE, 512, 100);
	chunk_data(0, 7, 512, 40);
	chunk(0, VNBD_CHUNK_ERROR_OFFSET, 7, 6 + 5 + 8);
	s32(VNBD_EIO);
	s16(5);
	stext(5);
	s64(552);
	chunk_data(0, 7, 560, 10);	/* more data may follow */
	chunk(0, VNBD_CHUNK_ERROR, 7, 6);
	s32(VNBD_ENOMEM);		/* the first error counts */
	s16(0);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 7, 0);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_ERROR, 8, 6 + VNBD_MAX_STRING);
	s32(VNBD_ENOSPC);
	s16(VNBD_MAX_STRING);
	stext(VNBD_MAX_STRING);
	good(true, 2, (u32 []){ VNBD_EIO, VNBD_ENOSPC });
}

static void t_error_chunk_lies(void)
{
	add_cmd(7, VNBD_CMD_READ, 512, 100);
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_ERROR, 7, 10);
	s32(VNBD_EIO);
	s16(5);			/* longer than the chunk */
	stext(5);
	bad(true, 0);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_ERROR_OFFSET, 7, 14 + 3);
	s32(VNBD_EIO);
	s16(4);			/* leaves no room for the offset */
	stext(4);
	s64(512);
	bad(true, 0);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_ERROR_OFFSET, 7, 14);
	s32(VNBD_EIO);
	s16(0);
	s64(612);		/* outside */
	bad(true, 0);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_ERROR, 7, 6);
	s32(0);			/* no error at all */
	s16(0);
	bad(true, 0);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_ERROR, 7, 6 + VNBD_MAX_STRING + 1);
	s32(VNBD_EIO);
	s16(VNBD_MAX_STRING + 1);
	stext(VNBD_MAX_STRING + 1);
	bad(true, 0);
}

static void t_endless_errors(void)
{
	add_cmd(7, VNBD_CMD_WRITE, 512, 100);
	for (u32 i = 0; i <= VNBD_MAX_ERR_CHUNKS; i++) {
		chunk(0, VNBD_CHUNK_ERROR, 7, 6);
		s32(VNBD_EIO);
		s16(0);
	}
	bad(true, 0);
}

static void t_content_for_write(void)
{
	add_cmd(7, VNBD_CMD_WRITE, 512, 100);
	chunk_data(0, 7, 512, 10);
	bad(true, 0);
	stream_len = 0;
	chunk_hole(0, 7, 512, 10);
	bad(true, 0);
}

static void t_cookies(void)
{
	add_cmd(7, VNBD_CMD_WRITE, 512, 100);
	add_cmd(8, VNBD_CMD_READ, 512, 10);
	simple(0, 9);
	bad(false, 0);
	CHECK(bed.lookups > 0);
	stream_len = 0;
	simple(0, 7);
	simple(0, 7);		/* twice */
	bad(false, 1);
	stream_len = 0;
	chunk(VNBD_CHUNK_F_DONE, VNBD_CHUNK_NONE, 9, 0);
	bad(true, 0);
}

static void t_simple_after_chunks(void)
{
	add_cmd(8, VNBD_CMD_READ, 512, 10);
	chunk_data(0, 8, 512, 5);
	simple(VNBD_EIO, 8);
	bad(true, 0);
	stream_len = 0;
	chunk(0, VNBD_CHUNK_ERROR, 8, 6);
	s32(VNBD_EIO);
	s16(0);
	simple(0, 8);
	bad(true, 0);
}

static void t_magic(void)
{
	add_cmd(8, VNBD_CMD_FLUSH, 0, 0);
	s32(VNBD_REQUEST_MAGIC);
	bad(true, 0);
	stream_len = 0;
	simple(0, 8);
	s32(0);
	bad(false, 1);
}

static void t_broken_stays_broken(void)
{
	struct viovm_nbd_reply r;
	u8 junk[16] = { 0 }, ok[VNBD_SIMPLE_SIZE];

	add_cmd(8, VNBD_CMD_FLUSH, 0, 0);
	simple(0, 8);
	memcpy(ok, stream, sizeof(ok));
	viovm_nbd_reply_init(&r, false, lookup, &bed);
	CHECK(viovm_nbd_reply_head(&r, junk, sizeof(junk)) == -EPROTO);
	CHECK(viovm_nbd_reply_head(&r, ok, sizeof(ok)) == -EPROTO);
	CHECK(viovm_nbd_reply_advance(&r, 0) == -EPROTO);
}

static void t_misuse(void)
{
	struct viovm_nbd_reply r;
	u8 part[64];

	add_cmd(8, VNBD_CMD_READ, 0, 10);
	simple(0, 8);
	memcpy(part, stream, VNBD_SIMPLE_SIZE);
	viovm_nbd_reply_init(&r, false, lookup, &bed);
	CHECK(viovm_nbd_reply_advance(&r, 0) == -EPROTO);	/* in HEAD */
	viovm_nbd_reply_init(&r, false, lookup, &bed);
	CHECK(viovm_nbd_reply_head(&r, part, 4) == 4);
	CHECK(viovm_nbd_reply_head(&r, part + 4, 60) == 12);
	CHECK(r.step == VNBD_STEP_DATA && r.want == 10);
	CHECK(viovm_nbd_reply_advance(&r, 11) == -EPROTO);	/* more than wanted */
}

static void t_too_many_pieces(void)
{
	add_cmd(8, VNBD_CMD_READ, 0, 100);
	for (u32 i = 0; i < VNBD_MAX_RANGES; i++)
		chunk_data(0, 8, 1 + 2 * i, 1);
	rewind_cmds();
	CHECK(run(true, 7) == 0);
	chunk_data(0, 8, 99, 1);
	bad(true, 0);
}

/* Reads cut at random into pieces in random order, holes among them: always right in the end. */
static void t_random_pieces(void)
{
	for (u32 round = 0; round < 300; round++) {
		u32 cut[VNBD_MAX_RANGES + 1], order[VNBD_MAX_RANGES], n = 1 + rnd(VNBD_MAX_RANGES), len = 0;
		u64 base = (u64)rnd(1u << 20) << 20;

		reset();
		cut[0] = 0;
		for (u32 i = 0; i < n; i++) {
			len += 1 + rnd(300);
			cut[i + 1] = len;
			order[i] = i;
		}
		for (u32 i = n; i > 1; i--) {
			u32 k = rnd(i), t = order[i - 1];

			order[i - 1] = order[k];
			order[k] = t;
		}
		add_cmd(77, VNBD_CMD_READ, base, len);
		for (u32 i = 0; i < n; i++) {
			u32 k = order[i];

			chunk_data(i + 1 == n ? VNBD_CHUNK_F_DONE : 0, 77, base + cut[k], cut[k + 1] - cut[k]);
		}
		rewind_cmds();
		CHECK(run(true, 0) == 0);
		CHECK(bed.finished[0] && !bed.error[0] && bed.cmd[0].nr_ranges == 1);
		check_data(0);
		if (case_failed) {
			printf("# round %u\n", round);
			return;
		}
	}
}

/* ---- the server's side ---- */

static void t_unpack(void)
{
	struct viovm_nbd_wire w;
	struct viovm_nbd_command c;
	u8 hdr[VNBD_REQUEST_SIZE];

	viovm_nbd_wire_init(&w, 0x1122334455667788ull, VNBD_CMD_WRITE_ZEROES, 0x8877665544332211ull, 0xfedcba98);
	viovm_nbd_pack(hdr, &w, VNBD_CMD_F_FUA | VNBD_CMD_F_NO_HOLE);
	CHECK(viovm_nbd_unpack(hdr, &c) == 0);
	CHECK(c.cookie == w.cookie && c.offset == w.offset && c.len == w.len && c.type == w.type);
	CHECK(c.flags == (VNBD_CMD_F_FUA | VNBD_CMD_F_NO_HOLE));
	for (u32 i = 0; i < 4; i++) {
		hdr[i] ^= 0x10;
		CHECK(viovm_nbd_unpack(hdr, &c) == -EPROTO);
		hdr[i] ^= 0x10;
	}
	/* what would have to be read away */
	viovm_nbd_wire_init(&w, 1, VNBD_CMD_WRITE, 0, VNBD_MAX_PAYLOAD);
	viovm_nbd_pack(hdr, &w, 0);
	CHECK(viovm_nbd_unpack(hdr, &c) == 0);
	viovm_nbd_wire_init(&w, 1, VNBD_CMD_WRITE, 0, VNBD_MAX_PAYLOAD + 1);
	viovm_nbd_pack(hdr, &w, 0);
	CHECK(viovm_nbd_unpack(hdr, &c) == -EPROTO);
	viovm_nbd_wire_init(&w, 1, VNBD_CMD_READ, 0, VNBD_MAX_PAYLOAD + 1);
	viovm_nbd_pack(hdr, &w, 0);
	CHECK(viovm_nbd_unpack(hdr, &c) == 0);
}

#define EXPORT	(1ull << 30)

static u32 verdict(u16 type, u16 flags, u64 offset, u32 len, u32 block, bool rdonly)
{
	struct viovm_nbd_command c = { .offset = offset, .len = len, .type = type, .flags = flags };

	return viovm_nbd_check(&c, EXPORT, block, rdonly);
}

static void t_check(void)
{
	static const u16 data[] = { VNBD_CMD_READ, VNBD_CMD_WRITE, VNBD_CMD_TRIM, VNBD_CMD_WRITE_ZEROES };

	for (u32 i = 0; i < 4; i++) {
		u16 t = data[i];
		u32 beyond = t == VNBD_CMD_WRITE || t == VNBD_CMD_WRITE_ZEROES ? VNBD_ENOSPC : VNBD_EINVAL;

		CHECK(verdict(t, 0, 0, 512, 512, false) == 0);
		CHECK(verdict(t, VNBD_CMD_F_FUA, EXPORT - 4096, 4096, 4096, false) == 0);
		CHECK(verdict(t, 0, EXPORT - 4096, 8192, 4096, false) == beyond);
		CHECK(verdict(t, 0, EXPORT, 512, 512, false) == beyond);
		CHECK(verdict(t, 0, -512ull, 1024, 512, false) == beyond);
		CHECK(verdict(t, 0, EXPORT + 512, 512, 512, false) == beyond);
		CHECK(verdict(t, 0, 0, 0, 512, false) == VNBD_EINVAL);
		CHECK(verdict(t, 0, 512, 4096, 4096, false) == VNBD_EINVAL);
		CHECK(verdict(t, 0, 4096, 512, 4096, false) == VNBD_EINVAL);
		CHECK(verdict(t, 0, 1, 512, 512, false) == VNBD_EINVAL);
		CHECK(verdict(t, 0x8000, 0, 512, 512, false) == VNBD_EINVAL);
		CHECK(verdict(t, 0, 0, 512, 512, true) == (t == VNBD_CMD_READ ? 0 : VNBD_EPERM));
		CHECK(verdict(t, VNBD_CMD_F_NO_HOLE, 0, 512, 512, false) == (t == VNBD_CMD_WRITE_ZEROES ? 0 : VNBD_EINVAL));
	}
	CHECK(verdict(VNBD_CMD_READ, 0, 0, VNBD_MAX_PAYLOAD, 512, false) == 0);
	CHECK(verdict(VNBD_CMD_READ, 0, 0, VNBD_MAX_PAYLOAD + 512, 512, false) == VNBD_EOVERFLOW);
	CHECK(verdict(VNBD_CMD_TRIM, 0, 0, 1u << 30, 512, false) == 0);
	CHECK(verdict(VNBD_CMD_FLUSH, 0, 0, 0, 512, true) == 0);
	CHECK(verdict(VNBD_CMD_FLUSH, 0, 512, 0, 512, false) == VNBD_EINVAL);
	CHECK(verdict(VNBD_CMD_FLUSH, 0, 0, 512, 512, false) == VNBD_EINVAL);
	CHECK(verdict(VNBD_CMD_FLUSH, VNBD_CMD_F_FUA, 0, 0, 512, false) == VNBD_EINVAL);
	for (u32 t = 7; t < 65536; t += t < 100 ? 1 : 997)
		CHECK(verdict((u16)t, 0, 0, 512, 512, false) == VNBD_EINVAL);
	CHECK(verdict(5, 0, 0, 512, 512, false) == VNBD_EINVAL);
}

/* What the server packs the client's parser understands. */
static void t_reply(void)
{
	static const int errors[] = { -EPERM, -EROFS, -ENOMEM, -EINVAL, -ENOSPC, -EOPNOTSUPP, -ESHUTDOWN, -EIO, -ETIMEDOUT, -ENODEV };
	static const int back[] = { -EPERM, -EPERM, -ENOMEM, -EINVAL, -ENOSPC, -EOPNOTSUPP, -ESHUTDOWN, -EIO, -EIO, -EIO };

	for (u32 i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		reset();
		add_cmd(7, VNBD_CMD_WRITE, 0, 512);
		viovm_nbd_pack_reply(stream, 7, viovm_nbd_error(errors[i]));
		stream_len = VNBD_SIMPLE_SIZE;
		CHECK(run(false, 0) == 0);
		CHECK(bed.finished[0] && viovm_nbd_errno(bed.error[0]) == back[i]);
	}
}

static const struct ktap_case cases[] = {
	{ "server: request header", t_unpack },
	{ "server: which commands are served", t_check },
	{ "server: replies", t_reply },
	{ "request header", t_pack },
	{ "errors of the wire", t_errno },
	{ "simple replies in any order", t_simple_any_order },
	{ "simple replies with errors", t_simple_errors },
	{ "simple reply to a read though structured", t_simple_read_when_structured },
	{ "chunk though not structured", t_chunk_when_simple },
	{ "structured read in pieces", t_structured_pieces },
	{ "structured read, done on its data", t_structured_done_on_data },
	{ "hole", t_hole },
	{ "done without all data", t_missing_data },
	{ "overlapping chunks", t_overlap },
	{ "chunks outside of the request", t_outside },
	{ "chunk lengths", t_chunk_lengths },
	{ "none without done", t_none_without_done },
	{ "unknown content chunk", t_unknown_content_chunk },
	{ "unknown error chunk", t_unknown_error_chunk },
	{ "error chunks", t_error_chunks },
	{ "error chunks that lie", t_error_chunk_lies },
	{ "errors without end", t_endless_errors },
	{ "content chunk for a write", t_content_for_write },
	{ "unknown and used cookies", t_cookies },
	{ "simple reply after chunks", t_simple_after_chunks },
	{ "bad magic", t_magic },
	{ "a broken parser stays broken", t_broken_stays_broken },
	{ "misuse is refused", t_misuse },
	{ "too many pieces", t_too_many_pieces },
	{ "random pieces", t_random_pieces },
};

int main(void)
{
	u32 n = sizeof(cases) / sizeof(cases[0]);

	ktap_plan(n);
	for (u32 i = 0; i < n; i++) {
		seed = i + 1;
		reset();
		ktap_run(cases[i].name, cases[i].run);
	}
	reset();
	return ktap_status();
}
