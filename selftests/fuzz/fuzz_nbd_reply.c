// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzzes the NBD reply parser (vhost_iovm_blk/nbd_proto.c) with a peer that lies.
 *
 * Input: mode, then either the raw stream, or opcodes that build messages of the right form with fields that are
 * right, nearly right or wild. The stream is cut where the input says so. What the parser tells is held against a
 * bitmap of its own: payload inside of the command, no byte twice, a READ ends well only when it is complete, and a
 * command ends once. Buffers have exactly the command's length, so that ASan sees an overrun.
 */
#include <stdlib.h>

#include "../../vhost_iovm_blk/nbd_proto.c"

#define NR_CMDS	8
#define MAX_STREAM 32768
#define MAX_LEN 600

#define ASSERT(cond) do { \
	if (!(cond)) \
		__builtin_trap(); \
} while (0)

struct shadow {
	struct viovm_nbd_wire cmd;
	bool waiting;
	u32 left;		/* bytes of a READ not seen yet */
	u8 *seen;		/* one byte a byte of a READ */
	u8 *data;
};

static struct shadow cmds[NR_CMDS];

struct input {
	const u8 *p;
	size_t n;
};

static u8 in8(struct input *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->p++;
}

static u64 in_bytes(struct input *in, u32 n)
{
	u64 v = 0;

	while (n--)
		v = v << 8 | in8(in);
	return v;
}

static struct viovm_nbd_wire *lookup(void *ctx, u64 cookie)
{
	ASSERT(ctx == cmds);
	for (u32 i = 0; i < NR_CMDS; i++)
		if (cmds[i].waiting && cmds[i].cmd.cookie == cookie)
			return &cmds[i].cmd;
	return NULL;
}

static void setup(struct input *in)
{
	static const u16 types[] = { VNBD_CMD_READ, VNBD_CMD_READ, VNBD_CMD_READ, VNBD_CMD_WRITE, VNBD_CMD_FLUSH,
				     VNBD_CMD_TRIM, VNBD_CMD_WRITE_ZEROES, VNBD_CMD_READ };

	for (u32 i = 0; i < NR_CMDS; i++) {
		struct shadow *s = &cmds[i];
		u32 len = types[i] == VNBD_CMD_FLUSH ? 0 : 1 + in8(in) * 2;
		u64 offset = i == 7 ? ~0ull - len + 1 : (u64)in8(in) << (i * 6);

		viovm_nbd_wire_init(&s->cmd, 0x1122334400000000ull + i, types[i], offset, len);
		s->waiting = true;
		s->left = types[i] == VNBD_CMD_READ ? len : 0;
		s->seen = calloc(1, s->left ? s->left : 1);
		s->data = malloc(s->left ? s->left : 1);
		ASSERT(s->seen && s->data);
	}
}

static void teardown(void)
{
	for (u32 i = 0; i < NR_CMDS; i++) {
		free(cmds[i].seen);
		free(cmds[i].data);
	}
}

static u32 put(u8 *out, u32 pos, u64 v, u32 n)
{
	while (n--)
		out[pos++] = (u8)(v >> (n * 8));
	return pos;
}

/* Messages from opcodes. */
static u32 build(struct input *in, u8 *out)
{
	u32 pos = 0;

	while (in->n && pos < MAX_STREAM - 8192) {
		u8 op = in8(in), sel = in8(in);
		struct viovm_nbd_wire *c = &cmds[sel % NR_CMDS].cmd;
		u64 cookie = sel & 0x80 ? c->cookie + in8(in) * 256 : c->cookie;
		u32 start = c->len ? (u32)in_bytes(in, 2) % (c->len + 4) : in8(in);
		u32 len = op & 0x40 ? (u32)in_bytes(in, 2) % 700 : c->len - (start < c->len ? start : 0);
		u64 offset = c->offset + start - (op & 0x80 ? in8(in) : 0);
		u16 flags = op & 0x20 ? VNBD_CHUNK_F_DONE : 0;
		u32 text, i;

		switch (op % 8) {
		case 0:
			pos = put(out, pos, VNBD_SIMPLE_MAGIC, 4);
			pos = put(out, pos, op & 0x20 ? in_bytes(in, 1) : 0, 4);
			pos = put(out, pos, cookie, 8);
			if (!(op & 0x20) && c->type == VNBD_CMD_READ)
				for (i = 0; i < c->len; i++)
					out[pos++] = (u8)i;
			break;
		case 1:
		case 2:
			pos = put(out, pos, VNBD_CHUNK_MAGIC, 4);
			pos = put(out, pos, flags, 2);
			pos = put(out, pos, VNBD_CHUNK_OFFSET_DATA, 2);
			pos = put(out, pos, cookie, 8);
			pos = put(out, pos, len + 8, 4);
			pos = put(out, pos, offset, 8);
			for (i = 0; i < len; i++)
				out[pos++] = (u8)i;
			break;
		case 3:
			pos = put(out, pos, VNBD_CHUNK_MAGIC, 4);
			pos = put(out, pos, flags, 2);
			pos = put(out, pos, VNBD_CHUNK_OFFSET_HOLE, 2);
			pos = put(out, pos, cookie, 8);
			pos = put(out, pos, 12, 4);
			pos = put(out, pos, offset, 8);
			pos = put(out, pos, len, 4);
			break;
		case 4:
			pos = put(out, pos, VNBD_CHUNK_MAGIC, 4);
			pos = put(out, pos, 1, 2);
			pos = put(out, pos, VNBD_CHUNK_NONE, 2);
			pos = put(out, pos, cookie, 8);
			pos = put(out, pos, 0, 4);
			break;
		case 5:
		case 6:
			text = in8(in);
			i = op & 0x80 ? in8(in) % 80 : op % 8 == 6 ? 8 : 0;
			pos = put(out, pos, VNBD_CHUNK_MAGIC, 4);
			pos = put(out, pos, flags, 2);
			pos = put(out, pos, op % 8 == 6 ? VNBD_CHUNK_ERROR_OFFSET : 0x8001 + (sel >> 4), 2);
			pos = put(out, pos, cookie, 8);
			pos = put(out, pos, 6 + text + i, 4);
			pos = put(out, pos, in8(in), 4);
			pos = put(out, pos, op & 0x40 ? in8(in) : text, 2);
			for (; text; text--)
				out[pos++] = 'x';
			if (i >= 8) {
				pos = put(out, pos, offset, 8);
				i -= 8;
			}
			for (; i; i--)
				out[pos++] = 0;
			break;
		default:
			i = sel % 24;
			pos = put(out, pos, in_bytes(in, i % 8), i % 8);
			break;
		}
	}
	return pos;
}

static struct shadow *of(const struct viovm_nbd_reply *r)
{
	struct shadow *s;

	ASSERT(r->cmd);
	s = (struct shadow *)r->cmd;	/* cmd is the first member */
	ASSERT(s >= cmds && s < cmds + NR_CMDS && s->waiting);
	return s;
}

static void cover_shadow(struct shadow *s, u32 off, u32 n)
{
	ASSERT(s->cmd.type == VNBD_CMD_READ);
	ASSERT(n && off < s->cmd.len && n <= s->cmd.len - off);
	for (u32 i = off; i < off + n; i++) {
		ASSERT(!s->seen[i]);
		s->seen[i] = 1;
	}
	s->left -= n;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static u8 built[MAX_STREAM];
	struct input in = { data, size };
	struct viovm_nbd_reply r;
	struct shadow *s;
	const u8 *stream;
	u32 len, pos = 0, n, cut;
	u8 mode = in8(&in);
	u64 steps = 0;
	int ret;

	cut = in8(&in);
	setup(&in);
	if (mode & 1) {
		len = build(&in, built);
		stream = built;
	} else {
		len = in.n > MAX_STREAM ? MAX_STREAM : (u32)in.n;
		stream = in.p;
	}

	viovm_nbd_reply_init(&r, mode & 2, lookup, cmds);
	for (;;) {
		/* every turn eats a byte or is one of few steps without any */
		ASSERT(++steps <= 4ull * len + 16);
		n = cut ? 1 + (pos * 7 + cut) % cut : len;
		if (n > len - pos)
			n = len - pos;
		if (r.step == VNBD_STEP_HEAD) {
			if (!n)
				break;
			ASSERT(r.want && r.want <= sizeof(r.buf));
			ret = viovm_nbd_reply_head(&r, stream + pos, n);
			if (ret < 0)
				break;
			ASSERT(ret > 0 && (u32)ret <= n);
			pos += (u32)ret;
			continue;
		}
		s = of(&r);
		if (r.step == VNBD_STEP_DATA || r.step == VNBD_STEP_SKIP) {
			ASSERT(r.want);
			if (!n)
				break;
			if (n > r.want)
				n = r.want;
			if (r.step == VNBD_STEP_DATA) {
				cover_shadow(s, r.off, n);
				memcpy(s->data + r.off, stream + pos, n);
			}
			pos += n;
			ret = viovm_nbd_reply_advance(&r, n);
		} else if (r.step == VNBD_STEP_ZERO) {
			cover_shadow(s, r.off, r.want);
			memset(s->data + r.off, 0, r.want);
			ret = viovm_nbd_reply_advance(&r, r.want);
		} else {
			ASSERT(s->cmd.error || !s->left);
			s->waiting = false;
			ret = viovm_nbd_reply_advance(&r, 0);
			ASSERT(!ret);
		}
		if (ret)
			break;
	}
	teardown();
	return 0;
}
