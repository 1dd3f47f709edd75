/* SPDX-License-Identifier: GPL-2.0 */
/*
 * NBD framing, transmission phase, both sides: pure code for kernel and user space.
 *
 * It allocates nothing, calls nothing and trusts nothing that comes from the peer. A request header
 * is packed by viovm_nbd_pack(). Replies are parsed incrementally: the parser says by its @step
 * what the next bytes of the stream are, its user fetches them and says how many there were:
 *
 *	VNBD_STEP_HEAD	give up to @want bytes of the stream to viovm_nbd_reply_head()
 *	VNBD_STEP_DATA	put @want bytes of the stream into @cmd's buffer at @off, then call
 *			viovm_nbd_reply_advance(n),
 *			at once or in pieces
 *	VNBD_STEP_SKIP	drop @want bytes of the stream, then viovm_nbd_reply_advance(n)
 *	VNBD_STEP_ZERO	clear @want bytes of @cmd's buffer at @off, then call
 *			viovm_nbd_reply_advance(want)
 *	VNBD_STEP_DONE	@cmd is answered: see @cmd->error; then viovm_nbd_reply_advance(0)
 *
 * For DATA and ZERO, [@off, @off + @want) lies inside of the command and overlaps nothing that an
 * earlier step of the same command covered; DONE without an error means that a READ is covered in
 * full.
 */
#ifndef _VHOST_IOVM_BLK_NBD_PROTO_H
#define _VHOST_IOVM_BLK_NBD_PROTO_H

#ifdef __KERNEL__
#include <linux/bits.h>
#include <linux/errno.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define BIT(n)	(1ul << (n))
#endif

#define VNBD_REQUEST_MAGIC	0x25609513u
#define VNBD_SIMPLE_MAGIC	0x67446698u
#define VNBD_CHUNK_MAGIC	0x668e33efu

#define VNBD_REQUEST_SIZE	28
#define VNBD_SIMPLE_SIZE	16
#define VNBD_CHUNK_SIZE		20

/* Commands */
#define VNBD_CMD_READ		0
#define VNBD_CMD_WRITE		1
#define VNBD_CMD_DISC		2
#define VNBD_CMD_FLUSH		3
#define VNBD_CMD_TRIM		4
#define VNBD_CMD_WRITE_ZEROES	6

/* Command flags */
#define VNBD_CMD_F_FUA		BIT(0)
#define VNBD_CMD_F_NO_HOLE	BIT(1)

/* Transmission flags of an export */
#define VNBD_F_HAS_FLAGS	BIT(0)
#define VNBD_F_READ_ONLY	BIT(1)
#define VNBD_F_FLUSH		BIT(2)
#define VNBD_F_FUA		BIT(3)
#define VNBD_F_TRIM		BIT(5)
#define VNBD_F_WRITE_ZEROES	BIT(6)
#define VNBD_F_MULTI_CONN	BIT(8)

/* Chunks of a structured reply */
#define VNBD_CHUNK_F_DONE	BIT(0)
#define VNBD_CHUNK_NONE		0
#define VNBD_CHUNK_OFFSET_DATA	1
#define VNBD_CHUNK_OFFSET_HOLE	2
#define VNBD_CHUNK_ERR_BIT	BIT(15)
#define VNBD_CHUNK_ERROR	(VNBD_CHUNK_ERR_BIT | 1)
#define VNBD_CHUNK_ERROR_OFFSET	(VNBD_CHUNK_ERR_BIT | 2)

/* Errors on the wire */
#define VNBD_EPERM		1
#define VNBD_EIO		5
#define VNBD_ENOMEM		12
#define VNBD_EINVAL		22
#define VNBD_ENOSPC		28
#define VNBD_EOVERFLOW		75
#define VNBD_ENOTSUP		95
#define VNBD_ESHUTDOWN		108

#define VNBD_MAX_PAYLOAD	(32u << 20)	/* of a READ or WRITE, if nothing else was agreed */
#define VNBD_MAX_STRING		4096	/* of an error text, by the protocol */
#define VNBD_MAX_TAIL		64	/* bytes of fields behind it that we do not know */
#define VNBD_MAX_ERR_CHUNKS	64	/* of one reply */
#define VNBD_MAX_RANGES		8	/* separate pieces of a READ, adjacent ones are merged */

/**
 * struct viovm_nbd_wire - one command as the parser sees it
 * @cookie: what the reply must carry
 * @offset: bytes, in the export
 * @len: bytes
 * @type: VNBD_CMD_*
 * @nr_err_chunks: error chunks seen
 * @nr_ranges: entries of @have in use
 * @error: VNBD_E*, the first one that the peer reported; 0 none
 * @have: pieces of a READ that came, sorted, disjoint and not adjacent; @start and @end in bytes
 *	from @offset
 *
 * @cookie to @type are set by viovm_nbd_wire_init(), the rest is the parser's.
 */
struct viovm_nbd_wire {
	u64 cookie;
	u64 offset;
	u32 len;
	u16 type;
	u8 nr_err_chunks;
	u8 nr_ranges;
	u32 error;
	struct {
		u32 start;
		u32 end;
	} have[VNBD_MAX_RANGES];
};

enum viovm_nbd_step {
	VNBD_STEP_HEAD,
	VNBD_STEP_DATA,
	VNBD_STEP_SKIP,
	VNBD_STEP_ZERO,
	VNBD_STEP_DONE,
};

enum viovm_nbd_phase {
	VNBD_PHASE_MAGIC,
	VNBD_PHASE_SIMPLE,
	VNBD_PHASE_CHUNK,
	VNBD_PHASE_DATA_OFFSET,
	VNBD_PHASE_DATA,
	VNBD_PHASE_HOLE,
	VNBD_PHASE_ERROR,
	VNBD_PHASE_ERROR_TEXT,
	VNBD_PHASE_ERROR_OFFSET,
	VNBD_PHASE_TAIL,
	VNBD_PHASE_DONE,
	VNBD_PHASE_BROKEN,
};

/**
 * struct viovm_nbd_reply - the reply parser of one connection
 * @step: what to do next
 * @want: bytes of it
 * @off: DATA, ZERO: where in the command, bytes
 * @cmd: the command at hand; NULL in HEAD before the cookie is known
 * @lookup: the command with this cookie that waits for a reply, or NULL
 * @ctx: for @lookup
 * @structured: structured replies were negotiated
 * @phase: the parser's, as all that follows
 * @have: bytes in @buf
 * @need: bytes wanted in @buf
 * @chunk_flags: VNBD_CHUNK_F_*
 * @chunk_type: VNBD_CHUNK_*
 * @rest: bytes of the chunk that are not parsed yet
 * @buf: framing
 */
struct viovm_nbd_reply {
	enum viovm_nbd_step step;
	u32 want;
	u32 off;
	struct viovm_nbd_wire *cmd;
	struct viovm_nbd_wire *(*lookup)(void *ctx, u64 cookie);
	void *ctx;
	bool structured;
	enum viovm_nbd_phase phase;
	u32 have;
	u32 need;
	u16 chunk_flags;
	u16 chunk_type;
	u32 rest;
	u8 buf[24];
};

void viovm_nbd_wire_init(struct viovm_nbd_wire *cmd, u64 cookie, u16 type, u64 offset, u32 len);
void viovm_nbd_pack(u8 hdr[VNBD_REQUEST_SIZE], const struct viovm_nbd_wire *cmd, u16 flags);
void viovm_nbd_reply_init(struct viovm_nbd_reply *r, bool structured,
			  struct viovm_nbd_wire *(*lookup)(void *ctx, u64 cookie), void *ctx);
int viovm_nbd_reply_head(struct viovm_nbd_reply *r, const void *p, u32 n);
int viovm_nbd_reply_advance(struct viovm_nbd_reply *r, u32 n);
int viovm_nbd_errno(u32 error);

/**
 * struct viovm_nbd_command - a request as a server sees it
 * @cookie: for the reply
 * @offset: bytes
 * @len: bytes
 * @type: VNBD_CMD_*, or anything else
 * @flags: VNBD_CMD_F_*, or anything else
 */
struct viovm_nbd_command {
	u64 cookie;
	u64 offset;
	u32 len;
	u16 type;
	u16 flags;
};

int viovm_nbd_unpack(const u8 hdr[VNBD_REQUEST_SIZE], struct viovm_nbd_command *cmd);
u32 viovm_nbd_check(const struct viovm_nbd_command *cmd, u64 bytes, u32 block, bool rdonly);
void viovm_nbd_pack_reply(u8 hdr[VNBD_SIMPLE_SIZE], u64 cookie, u32 error);
u32 viovm_nbd_error(int error);

#endif /* _VHOST_IOVM_BLK_NBD_PROTO_H */
