// SPDX-License-Identifier: GPL-2.0
/*
 * NBD framing: request headers and simple replies for both sides, and an incremental reply parser.
 * Pure code: see nbd_proto.h for the contract; unit tests and fuzzers compile this file in user
 * space.
 *
 * A message that breaks the protocol ends in -EPROTO and leaves the parser in VNBD_PHASE_BROKEN, in
 * which it refuses everything: once framing is in doubt nothing that follows can be told apart.
 */
#include "nbd_proto.h"

static u16 get16(const u8 *p)
{
	return (u16)(p[0] << 8 | p[1]);
}

static u32 get32(const u8 *p)
{
	return (u32)get16(p) << 16 | get16(p + 2);
}

static u64 get64(const u8 *p)
{
	return (u64)get32(p) << 32 | get32(p + 4);
}

static void put16(u8 *p, u16 v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static void put32(u8 *p, u32 v)
{
	put16(p, (u16)(v >> 16));
	put16(p + 2, (u16)v);
}

static void put64(u8 *p, u64 v)
{
	put32(p, (u32)(v >> 32));
	put32(p + 4, (u32)v);
}

/**
 * viovm_nbd_wire_init - prepare a command for the wire and for its reply
 * @cmd: to be filled
 * @cookie: unique among the commands of the connection
 * @type: VNBD_CMD_*
 * @offset: bytes
 * @len: bytes
 */
void viovm_nbd_wire_init(struct viovm_nbd_wire *cmd, u64 cookie, u16 type, u64 offset, u32 len)
{
	cmd->cookie = cookie;
	cmd->offset = offset;
	cmd->len = len;
	cmd->type = type;
	cmd->nr_err_chunks = 0;
	cmd->nr_ranges = 0;
	cmd->error = 0;
}

/**
 * viovm_nbd_pack - build a request header
 * @hdr: to be filled
 * @cmd: what is asked
 * @flags: VNBD_CMD_F_*
 */
void viovm_nbd_pack(u8 hdr[VNBD_REQUEST_SIZE], const struct viovm_nbd_wire *cmd, u16 flags)
{
	put32(hdr, VNBD_REQUEST_MAGIC);
	put16(hdr + 4, flags);
	put16(hdr + 6, cmd->type);
	put64(hdr + 8, cmd->cookie);
	put64(hdr + 16, cmd->offset);
	put32(hdr + 24, cmd->len);
}

/**
 * viovm_nbd_errno - an error of the wire as a negative errno of this machine
 * @error: VNBD_E*, not 0
 *
 * Return: a negative errno; what we do not know counts as EINVAL, as the protocol says.
 */
int viovm_nbd_errno(u32 error)
{
	switch (error) {
	case VNBD_EPERM:
		return -EPERM;
	case VNBD_EIO:
		return -EIO;
	case VNBD_ENOMEM:
		return -ENOMEM;
	case VNBD_ENOSPC:
		return -ENOSPC;
	case VNBD_EOVERFLOW:
		return -EOVERFLOW;
	case VNBD_ENOTSUP:
		return -EOPNOTSUPP;
	case VNBD_ESHUTDOWN:
		return -ESHUTDOWN;
	default:
		return -EINVAL;
	}
}

/* ---- the server's side ---- */

/**
 * viovm_nbd_unpack - read a request header
 * @hdr: from the peer
 * @cmd: out
 *
 * Return: 0, or -EPROTO: what follows cannot be told apart.
 */
int viovm_nbd_unpack(const u8 hdr[VNBD_REQUEST_SIZE], struct viovm_nbd_command *cmd)
{
	if (get32(hdr) != VNBD_REQUEST_MAGIC)
		return -EPROTO;
	cmd->flags = get16(hdr + 4);
	cmd->type = get16(hdr + 6);
	cmd->cookie = get64(hdr + 8);
	cmd->offset = get64(hdr + 16);
	cmd->len = get32(hdr + 24);
	/* its data would have to be read away, however long */
	if (cmd->type == VNBD_CMD_WRITE && cmd->len > VNBD_MAX_PAYLOAD)
		return -EPROTO;
	return 0;
}

/* Which flags a command may have */
static u16 flags_of(u16 type)
{
	switch (type) {
	case VNBD_CMD_READ:
	case VNBD_CMD_WRITE:
	case VNBD_CMD_TRIM:
		/* FUA means nothing for a READ, and is allowed */
		return VNBD_CMD_F_FUA;
	case VNBD_CMD_WRITE_ZEROES:
		return VNBD_CMD_F_FUA | VNBD_CMD_F_NO_HOLE;
	default:
		return 0;
	}
}

/**
 * viovm_nbd_check - may this command be served?
 * @cmd: from the peer
 * @bytes: size of the export
 * @block: bytes that offset and length must be multiples of; a power of two
 * @rdonly: the export is
 *
 * Return: 0, or VNBD_E* for the reply.
 */
u32 viovm_nbd_check(const struct viovm_nbd_command *cmd, u64 bytes, u32 block, bool rdonly)
{
	if (cmd->flags & ~flags_of(cmd->type))
		return VNBD_EINVAL;
	switch (cmd->type) {
	case VNBD_CMD_FLUSH:
		return cmd->offset || cmd->len ? VNBD_EINVAL : 0;
	case VNBD_CMD_READ:
		if (cmd->len > VNBD_MAX_PAYLOAD)
			return VNBD_EOVERFLOW;
		break;
	case VNBD_CMD_WRITE:
	case VNBD_CMD_TRIM:
	case VNBD_CMD_WRITE_ZEROES:
		if (rdonly)
			return VNBD_EPERM;
		break;
	default:
		return VNBD_EINVAL;
	}
	if (!cmd->len || (cmd->offset | cmd->len) & (block - 1))
		return VNBD_EINVAL;
	if (cmd->offset > bytes || cmd->len > bytes - cmd->offset)
		return cmd->type == VNBD_CMD_WRITE || cmd->type == VNBD_CMD_WRITE_ZEROES ?
		       VNBD_ENOSPC : VNBD_EINVAL;
	return 0;
}

/**
 * viovm_nbd_pack_reply - build the header of a simple reply
 * @hdr: to be filled
 * @cookie: the request's
 * @error: VNBD_E*, or 0
 */
void viovm_nbd_pack_reply(u8 hdr[VNBD_SIMPLE_SIZE], u64 cookie, u32 error)
{
	put32(hdr, VNBD_SIMPLE_MAGIC);
	put32(hdr + 4, error);
	put64(hdr + 8, cookie);
}

/**
 * viovm_nbd_error - a negative errno of this machine as an error of the wire
 * @error: negative errno
 *
 * Return: VNBD_E*, EIO where there is none that fits.
 */
u32 viovm_nbd_error(int error)
{
	switch (error) {
	case -EPERM:
	case -EROFS:
		return VNBD_EPERM;
	case -ENOMEM:
		return VNBD_ENOMEM;
	case -EINVAL:
		return VNBD_EINVAL;
	case -ENOSPC:
		return VNBD_ENOSPC;
	case -EOPNOTSUPP:
		return VNBD_ENOTSUP;
	case -ESHUTDOWN:
		return VNBD_ESHUTDOWN;
	default:
		return VNBD_EIO;
	}
}

/* ---- the client's: replies ---- */

/* Want @need bytes of framing in all for @phase; what is in @buf stays. */
static void want_head(struct viovm_nbd_reply *r, enum viovm_nbd_phase phase, u32 need)
{
	r->phase = phase;
	r->step = VNBD_STEP_HEAD;
	r->need = need;
	r->want = need - r->have;
}

/* Likewise, but from an empty buffer. */
static void want_fresh(struct viovm_nbd_reply *r, enum viovm_nbd_phase phase, u32 need)
{
	r->have = 0;
	want_head(r, phase, need);
}

static void want_message(struct viovm_nbd_reply *r)
{
	r->cmd = NULL;
	r->off = 0;
	want_fresh(r, VNBD_PHASE_MAGIC, 4);
}

static void want_bytes(struct viovm_nbd_reply *r, enum viovm_nbd_phase phase,
		       enum viovm_nbd_step step, u32 off, u32 want)
{
	r->phase = phase;
	r->step = step;
	r->off = off;
	r->want = want;
}

static int broken(struct viovm_nbd_reply *r)
{
	r->phase = VNBD_PHASE_BROKEN;
	r->step = VNBD_STEP_HEAD;
	r->want = 0;
	r->cmd = NULL;
	return -EPROTO;
}

/**
 * viovm_nbd_reply_init - start to parse a connection's replies
 * @r: to be filled
 * @structured: structured replies were negotiated
 * @lookup: the command with a cookie that waits for a reply, or NULL; the command stays valid until
 *	its DONE step
 * @ctx: for @lookup
 */
void viovm_nbd_reply_init(struct viovm_nbd_reply *r, bool structured,
			  struct viovm_nbd_wire *(*lookup)(void *ctx, u64 cookie), void *ctx)
{
	memset(r, 0, sizeof(*r));
	r->structured = structured;
	r->lookup = lookup;
	r->ctx = ctx;
	want_message(r);
}

static bool covered(const struct viovm_nbd_wire *cmd)
{
	if (cmd->type != VNBD_CMD_READ || !cmd->len)
		return true;
	return cmd->nr_ranges == 1 && cmd->have[0].start == 0 && cmd->have[0].end == cmd->len;
}

/*
 * Record [start, start + len) as received. False when it is empty, not inside of the command,
 * overlaps something received before, or when the pieces are too many.
 */
static bool cover(struct viovm_nbd_wire *cmd, u64 offset, u32 len)
{
	u32 i, start, end;
	bool left, right;

	if (!len || offset < cmd->offset || offset - cmd->offset >= cmd->len ||
	    len > cmd->len - (u32)(offset - cmd->offset))
		return false;
	start = (u32)(offset - cmd->offset);
	end = start + len;

	for (i = 0; i < cmd->nr_ranges && cmd->have[i].end <= start; i++)
		;
	/* the ranges before i end at or before start; the one at i must begin at or after end */
	if (i < cmd->nr_ranges && cmd->have[i].start < end)
		return false;
	left = i > 0 && cmd->have[i - 1].end == start;
	right = i < cmd->nr_ranges && cmd->have[i].start == end;

	if (left && right) {
		cmd->have[i - 1].end = cmd->have[i].end;
		memmove(&cmd->have[i], &cmd->have[i + 1],
			(cmd->nr_ranges - i - 1) * sizeof(cmd->have[0]));
		cmd->nr_ranges--;
	} else if (left) {
		cmd->have[i - 1].end = end;
	} else if (right) {
		cmd->have[i].start = start;
	} else {
		if (cmd->nr_ranges == VNBD_MAX_RANGES)
			return false;
		memmove(&cmd->have[i + 1], &cmd->have[i],
			(cmd->nr_ranges - i) * sizeof(cmd->have[0]));
		cmd->have[i].start = start;
		cmd->have[i].end = end;
		cmd->nr_ranges++;
	}
	return true;
}

static int done(struct viovm_nbd_reply *r)
{
	if (!r->cmd->error && !covered(r->cmd))
		return broken(r);
	want_bytes(r, VNBD_PHASE_DONE, VNBD_STEP_DONE, 0, 0);
	return 0;
}

/* All of a chunk was parsed. */
static int chunk_end(struct viovm_nbd_reply *r)
{
	if (r->chunk_flags & VNBD_CHUNK_F_DONE)
		return done(r);
	want_message(r);
	return 0;
}

static int parse_simple(struct viovm_nbd_reply *r)
{
	struct viovm_nbd_wire *cmd = r->lookup(r->ctx, get64(r->buf + 8));

	if (!cmd)
		return broken(r);
	r->cmd = cmd;
	r->chunk_flags = VNBD_CHUNK_F_DONE;
	/* a simple reply cannot follow chunks of a structured one */
	if (cmd->nr_ranges || cmd->nr_err_chunks)
		return broken(r);
	cmd->error = get32(r->buf + 4);
	if (cmd->error || cmd->type != VNBD_CMD_READ || !cmd->len)
		return done(r);
	if (r->structured || !cover(cmd, cmd->offset, cmd->len))
		return broken(r);
	want_bytes(r, VNBD_PHASE_DATA, VNBD_STEP_DATA, 0, cmd->len);
	return 0;
}

static int parse_chunk(struct viovm_nbd_reply *r)
{
	struct viovm_nbd_wire *cmd = r->lookup(r->ctx, get64(r->buf + 8));

	if (!cmd)
		return broken(r);
	r->cmd = cmd;
	r->chunk_flags = get16(r->buf + 4);
	r->chunk_type = get16(r->buf + 6);
	r->rest = get32(r->buf + 16);

	switch (r->chunk_type) {
	case VNBD_CHUNK_NONE:
		if (r->rest || !(r->chunk_flags & VNBD_CHUNK_F_DONE))
			return broken(r);
		return done(r);
	case VNBD_CHUNK_OFFSET_DATA:
		/* the data's length is checked again, against its offset, by cover() */
		if (cmd->type != VNBD_CMD_READ || r->rest <= 8 || r->rest - 8 > cmd->len)
			return broken(r);
		want_fresh(r, VNBD_PHASE_DATA_OFFSET, 8);
		return 0;
	case VNBD_CHUNK_OFFSET_HOLE:
		if (cmd->type != VNBD_CMD_READ || r->rest != 12)
			return broken(r);
		want_fresh(r, VNBD_PHASE_HOLE, 12);
		return 0;
	}
	if (!(r->chunk_type & VNBD_CHUNK_ERR_BIT))
		return broken(r);
	if (r->rest < 6 || r->rest > 6 + VNBD_MAX_STRING + VNBD_MAX_TAIL ||
	    (r->chunk_type == VNBD_CHUNK_ERROR_OFFSET && r->rest < 14) ||
	    cmd->nr_err_chunks == VNBD_MAX_ERR_CHUNKS)
		return broken(r);
	cmd->nr_err_chunks++;
	want_fresh(r, VNBD_PHASE_ERROR, 6);
	return 0;
}

static int parse_magic(struct viovm_nbd_reply *r)
{
	switch (get32(r->buf)) {
	case VNBD_SIMPLE_MAGIC:
		want_head(r, VNBD_PHASE_SIMPLE, VNBD_SIMPLE_SIZE);
		return 0;
	case VNBD_CHUNK_MAGIC:
		if (!r->structured)
			return broken(r);
		want_head(r, VNBD_PHASE_CHUNK, VNBD_CHUNK_SIZE);
		return 0;
	}
	return broken(r);
}

static int parse_data_offset(struct viovm_nbd_reply *r)
{
	u64 offset = get64(r->buf);

	if (!cover(r->cmd, offset, r->rest - 8))
		return broken(r);
	want_bytes(r, VNBD_PHASE_DATA, VNBD_STEP_DATA, (u32)(offset - r->cmd->offset), r->rest - 8);
	return 0;
}

static int parse_hole(struct viovm_nbd_reply *r)
{
	u64 offset = get64(r->buf);
	u32 len = get32(r->buf + 8);

	if (!cover(r->cmd, offset, len))
		return broken(r);
	want_bytes(r, VNBD_PHASE_DATA, VNBD_STEP_ZERO, (u32)(offset - r->cmd->offset), len);
	return 0;
}

/* The text of an error is behind us. */
static int error_text_end(struct viovm_nbd_reply *r)
{
	if (r->chunk_type == VNBD_CHUNK_ERROR_OFFSET) {
		want_fresh(r, VNBD_PHASE_ERROR_OFFSET, 8);
		return 0;
	}
	if (r->rest) {
		want_bytes(r, VNBD_PHASE_TAIL, VNBD_STEP_SKIP, 0, r->rest);
		return 0;
	}
	return chunk_end(r);
}

static int parse_error(struct viovm_nbd_reply *r)
{
	u32 error = get32(r->buf), text = get16(r->buf + 4), tail;

	tail = r->chunk_type == VNBD_CHUNK_ERROR_OFFSET ? 8 : 0;
	r->rest -= 6;
	if (!error || text > VNBD_MAX_STRING || text + tail > r->rest)
		return broken(r);
	if (!r->cmd->error)
		r->cmd->error = error;
	r->rest -= text;
	if (!text)
		return error_text_end(r);
	want_bytes(r, VNBD_PHASE_ERROR_TEXT, VNBD_STEP_SKIP, 0, text);
	return 0;
}

static int parse_error_offset(struct viovm_nbd_reply *r)
{
	const struct viovm_nbd_wire *cmd = r->cmd;
	u64 offset = get64(r->buf);

	if (cmd->len && (offset < cmd->offset || offset - cmd->offset >= cmd->len))
		return broken(r);
	r->rest -= 8;
	if (r->rest) {
		want_bytes(r, VNBD_PHASE_TAIL, VNBD_STEP_SKIP, 0, r->rest);
		return 0;
	}
	return chunk_end(r);
}

/**
 * viovm_nbd_reply_head - give the parser bytes of the stream while its step is VNBD_STEP_HEAD
 * @r: the parser
 * @p: the bytes
 * @n: how many there are
 *
 * Return: how many of them were taken, at most @r->want and at least one if @n is not 0; -EPROTO.
 */
int viovm_nbd_reply_head(struct viovm_nbd_reply *r, const void *p, u32 n)
{
	int ret;

	if (r->step != VNBD_STEP_HEAD || !r->want || r->need > sizeof(r->buf))
		return broken(r);
	if (n > r->want)
		n = r->want;
	memcpy(r->buf + r->have, p, n);
	r->have += n;
	r->want -= n;
	if (r->want)
		return (int)n;

	switch (r->phase) {
	case VNBD_PHASE_MAGIC:
		ret = parse_magic(r);
		break;
	case VNBD_PHASE_SIMPLE:
		ret = parse_simple(r);
		break;
	case VNBD_PHASE_CHUNK:
		ret = parse_chunk(r);
		break;
	case VNBD_PHASE_DATA_OFFSET:
		ret = parse_data_offset(r);
		break;
	case VNBD_PHASE_HOLE:
		ret = parse_hole(r);
		break;
	case VNBD_PHASE_ERROR:
		ret = parse_error(r);
		break;
	case VNBD_PHASE_ERROR_OFFSET:
		ret = parse_error_offset(r);
		break;
	default:
		ret = broken(r);
		break;
	}
	return ret ? ret : (int)n;
}

/**
 * viovm_nbd_reply_advance - the step at hand was done, or a part of it
 * @r: the parser, step DATA, SKIP, ZERO or DONE
 * @n: bytes of it, at most @r->want
 *
 * Return: 0 or -EPROTO.
 */
int viovm_nbd_reply_advance(struct viovm_nbd_reply *r, u32 n)
{
	if (r->step == VNBD_STEP_HEAD || n > r->want)
		return broken(r);
	r->want -= n;
	r->off += n;
	if (r->want)
		return 0;

	switch (r->phase) {
	case VNBD_PHASE_DATA:
	case VNBD_PHASE_TAIL:
		return chunk_end(r);
	case VNBD_PHASE_ERROR_TEXT:
		return error_text_end(r);
	case VNBD_PHASE_DONE:
		want_message(r);
		return 0;
	default:
		return broken(r);
	}
}
