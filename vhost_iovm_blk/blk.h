/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The block class: map of the data path.
 *
 *	node.c     the device's node, configuration space and features (fixed at creation)
 *	queue.c    a virtqueue's worker: fetch, limits, requeue list, completion
 *	request.c  virtio-blk header, layout checks, splitting into parts
 *	map.c      a part's guest memory: pin, bounce, unpin, dirty log
 *	bdev.c     path type bdev: a bio per part
 *	nbd*.c     path type nbd: transmission phase on sockets from user space
 *
 * One virtio-blk request becomes one or more parts of at most VIOVM_BLK_PART_PAGES pages; a part is what the mux
 * routes (struct iovm_req is embedded). A small request's only part lies inline in the queue's per-head array; larger
 * ones come from a bounded mempool.
 */
#ifndef _VHOST_IOVM_BLK_H
#define _VHOST_IOVM_BLK_H

#include <linux/bio.h>
#include <linux/bvec.h>

#include "../iovm_mux/mux.h"

#define VIOVM_BLK_PART_PAGES	256
#define VIOVM_BLK_INLINE_BVECS	4

struct viovm_blk_rq;

/**
 * struct viovm_nbd_cmd - the nbd back end's part of a request
 * @cookie: as sent, 0 when not sent
 * @state: the nbd back end's
 * @sent: bytes handed to the socket so far
 * @conn: the connection it was given to
 * @priv: the nbd back end's
 */
struct viovm_nbd_cmd {
	u64 cookie;
	u32 state;
	u32 sent;
	void *conn;
	void *priv;
};

/**
 * struct viovm_blk_part - what is issued to a path at once
 * @req: as the mux sees it; op, offset, len, flags
 * @rq: the virtio request it belongs to
 * @bv: data, one entry a page fragment, req.len bytes in all (READ, WRITE); valid from issue to iovm_req_done()
 * @nr_bv: entries in use
 * @max_bv: entries there are
 * @nr_pinned: guest pages pinned
 * @data_off: bytes of the request's data before this part
 * @bounce: the pages in @bv are the kernel's, the guest's are in @guest_bv
 * @guest_bv: with @bounce
 * @bio: the bdev back end's
 * @nbd: the nbd back end's
 * @work: unpin and copy-back in process context
 * @inline_bv: storage of @bv for an inline part
 */
struct viovm_blk_part {
	struct iovm_req req;
	struct viovm_blk_rq *rq;
	struct bio_vec *bv;
	u16 nr_bv;
	u16 max_bv;
	u16 nr_pinned;
	bool bounce;
	u32 data_off;
	struct bio_vec *guest_bv;
	union {
		struct bio bio;
		struct viovm_nbd_cmd nbd;
	};
	struct work_struct work;
	struct bio_vec inline_bv[VIOVM_BLK_INLINE_BVECS];
};

static inline struct viovm_blk_part *viovm_blk_part(struct iovm_req *req)
{
	return container_of(req, struct viovm_blk_part, req);
}

/**
 * viovm_blk_req_fua - must this write be stable before it is completed?
 *
 * The guest asked for write-through, or the path's cache may die with it (design, invariant 7).
 */
static inline bool viovm_blk_req_fua(const struct iovm_req *req)
{
	return (req->flags & IOVM_REQ_FUA) || (req->path->flags & IOVM_PATH_F_CACHE_DIES);
}

/* The device's configuration, for checking a path against it (node.c) */
const struct iovm_blk_config *viovm_blk_config(struct iovm_dev *dev);

extern const struct iovm_path_ops viovm_bdev_ops;
extern const struct iovm_path_ops viovm_nbd_ops;

/* nbd.c: caches and threads shared by all nbd paths. Process context. */
int viovm_nbd_init(void);
void viovm_nbd_exit(void);

#endif /* _VHOST_IOVM_BLK_H */
