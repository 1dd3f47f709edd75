// SPDX-License-Identifier: GPL-2.0
/*
 * Path type bdev: any block device of this host. A part is one bio on the guest's pages; the
 * block layer splits it to what the device takes. Completion runs where the bio completes, hard
 * irq included.
 *
 * The worker of a queue must not be stopped by a device that hangs, or nothing could be sent
 * elsewhere: where the device can say that it would block (REQ_NOWAIT), it is asked to, and such a
 * bio is submitted once more by a workqueue of the path.
 */
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/module.h>

#include "blk.h"
#include "direct.h"
#include "pr.h"
#include "share.h"

/**
 * struct viovm_bdev - a bdev path's private part
 * @claim: the opened device; constant while the path exists
 * @path: back pointer
 * @wq: for what sleeps: discards, zeroes, what would block. A path's own: one that hangs must not
 *	stop others
 * @flush_work: submits @flush_bio
 * @flush_bio: the path's own FLUSH; the mux has one at a time
 */
struct viovm_bdev {
	struct viovm_claim claim;
	struct iovm_path *path;
	struct workqueue_struct *wq;
	struct work_struct flush_work;
	struct bio flush_bio;
};

#define VIOVM_BDEV_SLEEPERS	16	/* requests of a path that may sleep at the same time */

static struct viovm_bdev *viovm_path_priv(const struct iovm_path *path)
{
	return path->priv;
}

static struct block_device *viovm_path_bdev(const struct iovm_path *path)
{
	return viovm_path_priv(path)->claim.bdev;
}

/* What a block layer status says about request and path */
static enum iovm_result viovm_bdev_result(struct block_device *bdev, blk_status_t status)
{
	/* a disk that is gone answers everything with a bare I/O error */
	if (status != BLK_STS_OK && test_bit(GD_DEAD, &bdev->bd_disk->state))
		return IOVM_RES_PATH;
	switch (status) {
	case BLK_STS_OK:
		return IOVM_RES_OK;
	case BLK_STS_NOTSUPP:
		return IOVM_RES_REQUEST;
	case BLK_STS_MEDIUM:
	case BLK_STS_PROTECTION:
		return IOVM_RES_MEDIA;
	case BLK_STS_NOSPC:
		return IOVM_RES_NOSPC;
	case BLK_STS_RESOURCE:
	case BLK_STS_DEV_RESOURCE:
	case BLK_STS_AGAIN:
		return IOVM_RES_RETRY;
	case BLK_STS_TIMEOUT:
	case BLK_STS_TRANSPORT:
	case BLK_STS_OFFLINE:
		return IOVM_RES_PATH;
	default:
		return IOVM_RES_IO;
	}
}

static void viovm_bdev_block_work(struct work_struct *work);
static void viovm_bdev_rest_work(struct work_struct *work);

/*
 * Has nothing of a bio been sent that could not be without blocking? It may have been cut to what
 * the device takes, and pieces of it sent: their errors do not show then. The block layer moves
 * the bio behind each piece; what a device that is made of others has done is not to be seen.
 */
static bool viovm_bdev_unsent(const struct bio *bio, const struct iovm_req *req)
{
	return bio->bi_iter.bi_size == req->len && queue_is_mq(bdev_get_queue(bio->bi_bdev));
}

static void viovm_bdev_end_io(struct bio *bio)
{
	struct viovm_io *io = container_of(bio, struct viovm_io, bio);
	struct block_device *bdev = bio->bi_bdev;
	blk_status_t status = bio->bi_status;
	bool nowait = bio->bi_opf & REQ_NOWAIT;

	bio_uninit(bio);
	/* a device whose table has just changed may not be able to say it any more */
	if (unlikely(nowait && (status == BLK_STS_AGAIN || status == BLK_STS_NOTSUPP))) {
		INIT_WORK(&io->work, viovm_bdev_unsent(bio, &io->req) ? viovm_bdev_block_work :
									viovm_bdev_rest_work);
		queue_work(viovm_path_priv(io->req.path)->wq, &io->work);
		return;
	}
	/*
	 * bio->bi_bdev of a partition's bio may have become the whole disk: the disk is all that
	 * is asked
	 */
	viovm_done(&io->req, viovm_bdev_result(bdev, status), blk_status_to_errno(status));
}

/*
 * May something be sent that was put off? What is sent after the path has failed would not be
 * covered by its fence, and could land after the guest has written the same block elsewhere.
 */
static bool viovm_bdev_may_send(const struct iovm_req *req)
{
	return READ_ONCE(req->path->state) != IOVM_PATH_FAILED;
}

static int viovm_bdev_zero(struct iovm_req *req, struct block_device *bdev)
{
	unsigned int flags = req->flags & IOVM_REQ_NOUNMAP ? BLKDEV_ZERO_NOUNMAP : 0;
	sector_t sector = req->offset >> SECTOR_SHIFT;
	sector_t nr = req->len >> SECTOR_SHIFT;
	int err;

	/* the block layer's own fallback does not ask whether it still may */
	err = blkdev_issue_zeroout(bdev, sector, nr, GFP_NOIO, flags | BLKDEV_ZERO_NOFALLBACK);
	if (err == -EOPNOTSUPP)
		err = viovm_bdev_may_send(req) ?
		      blkdev_issue_zeroout(bdev, sector, nr, GFP_NOIO, flags) : -EIO;
	return err;
}

static void viovm_bdev_dwz_work(struct work_struct *work)
{
	struct viovm_io *io = container_of(work, struct viovm_io, work);
	struct iovm_req *req = &io->req;
	struct block_device *bdev = viovm_path_bdev(req->path);
	int err;

	if (!viovm_bdev_may_send(req)) {
		viovm_done(req, IOVM_RES_UNSENT, -ENOLINK);
		return;
	}
	if (req->op == IOVM_OP_DISCARD) {
		err = blkdev_issue_discard(bdev, req->offset >> SECTOR_SHIFT,
					   req->len >> SECTOR_SHIFT, GFP_NOIO);
		/* a discard is a hint: a path that cannot take it drops it */
		if (err == -EOPNOTSUPP)
			err = 0;
	} else {
		err = viovm_bdev_zero(req, bdev);
	}
	if (!err && viovm_blk_req_fua(req))
		err = blkdev_issue_flush(bdev);
	viovm_done(req, viovm_bdev_result(bdev, errno_to_blk_status(err)), err);
}

/* Gives READ, WRITE or FLUSH to the block layer; @nowait: REQ_NOWAIT or 0. */
static void viovm_bdev_send(struct viovm_io *io, blk_opf_t nowait)
{
	struct iovm_req *req = &io->req;
	struct bio *bio = &io->bio;
	blk_opf_t opf;

	switch (req->op) {
	case IOVM_OP_READ:
		opf = REQ_OP_READ | nowait;
		break;
	case IOVM_OP_WRITE:
		opf = REQ_OP_WRITE | REQ_SYNC | REQ_IDLE | nowait;
		if (viovm_blk_req_fua(req))
			opf |= REQ_FUA;
		break;
	default:
		opf = REQ_OP_WRITE | REQ_PREFLUSH | nowait;
		break;
	}
	bio_init(bio, viovm_path_bdev(req->path), io->bv, io->max_bv, opf);
	bio->bi_vcnt = io->nr_bv;
	bio->bi_iter.bi_sector = req->offset >> SECTOR_SHIFT;
	bio->bi_iter.bi_size = req->len;
	bio->bi_end_io = viovm_bdev_end_io;
	submit_bio(bio);
}

/* Once more what was put off; @res: what it is if that cannot be. */
static void viovm_bdev_send_again(struct viovm_io *io, enum iovm_result res)
{
	if (viovm_bdev_may_send(&io->req))
		viovm_bdev_send(io, 0);
	else
		viovm_done(&io->req, res, -ENOLINK);
}

static void viovm_bdev_block_work(struct work_struct *work)
{
	viovm_bdev_send_again(container_of(work, struct viovm_io, work), IOVM_RES_UNSENT);
}

/* Pieces of it may have been sent. */
static void viovm_bdev_rest_work(struct work_struct *work)
{
	viovm_bdev_send_again(container_of(work, struct viovm_io, work), IOVM_RES_PATH);
}

static void viovm_bdev_submit(struct iovm_path *path, struct iovm_req *req)
{
	struct viovm_io *io = viovm_io(req);
	struct viovm_bdev *b = path->priv;

	if (req->op == IOVM_OP_DISCARD || req->op == IOVM_OP_WRITE_ZEROES) {
		INIT_WORK(&io->work, viovm_bdev_dwz_work);
		queue_work(b->wq, &io->work);
		return;
	}
	viovm_bdev_send(io, bdev_nowait(b->claim.bdev) ? REQ_NOWAIT : 0);
}

static void viovm_bdev_flushed(struct bio *bio)
{
	struct viovm_bdev *b = container_of(bio, struct viovm_bdev, flush_bio);
	int error = blk_status_to_errno(bio->bi_status);

	bio_uninit(bio);
	iovm_flush_done(b->path, error);
}

static void viovm_bdev_flush_work(struct work_struct *work)
{
	struct viovm_bdev *b = container_of(work, struct viovm_bdev, flush_work);

	bio_init(&b->flush_bio, b->claim.bdev, NULL, 0, REQ_OP_WRITE | REQ_PREFLUSH);
	b->flush_bio.bi_end_io = viovm_bdev_flushed;
	submit_bio(&b->flush_bio);
}

/* A device that hangs may even stop who submits to it. */
static void viovm_bdev_flush(struct iovm_path *path)
{
	struct viovm_bdev *b = path->priv;

	queue_work(b->wq, &b->flush_work);
}

static int viovm_bdev_check(struct iovm_path *path, struct block_device *bdev, const char *id,
			    char *msg)
{
	const struct iovm_blk_config *cfg = viovm_blk_config(path->dev);
	u32 lbs = bdev_logical_block_size(bdev);
	int err;

	err = iovm_path_fits(path, bdev_nr_bytes(bdev), cfg->capacity, id, msg);
	if (err)
		return err;
	if (lbs > cfg->block_size) {
		scnprintf(msg, IOVM_MSG_MAX, "%s has logical blocks of %u bytes, device %s of %u",
			  path->addr, lbs, path->dev->name, cfg->block_size);
		return -EMEDIUMTYPE;
	}
	if (bdev_read_only(bdev) && !(path->dev->flags & IOVM_DEV_F_RDONLY)) {
		scnprintf(msg, IOVM_MSG_MAX, "%s is read-only, device %s is not",
			  path->addr, path->dev->name);
		return -EROFS;
	}
	return 0;
}

static int viovm_bdev_add(struct iovm_path *path, const struct iovm_path_add *arg, char *msg)
{
	struct block_device *bdev;
	struct viovm_bdev *b;
	struct file *file;
	umode_t mode;
	dev_t devt;
	int err;

	file = fget(arg->fd);
	if (!file) {
		scnprintf(msg, IOVM_MSG_MAX, "fd %d is not open", arg->fd);
		return -EBADF;
	}
	mode = file_inode(file)->i_mode;
	devt = file_inode(file)->i_rdev;
	fput(file);
	if (!S_ISBLK(mode)) {
		scnprintf(msg, IOVM_MSG_MAX,
			  "%s is not a block device (use a loop device for an image file)",
			  path->addr);
		return -ENOTBLK;
	}

	b = kzalloc(sizeof(*b), GFP_KERNEL);
	if (!b)
		return -ENOMEM;
	b->path = path;
	INIT_WORK(&b->flush_work, viovm_bdev_flush_work);
	b->wq = alloc_workqueue("viovm_%s", WQ_UNBOUND, VIOVM_BDEV_SLEEPERS, path->dev->name);
	if (!b->wq) {
		err = -ENOMEM;
		goto free;
	}
	err = viovm_claim_get(&b->claim, path, devt, msg);
	if (err)
		goto destroy_wq;
	bdev = b->claim.bdev;
	err = viovm_bdev_check(path, bdev, arg->identity, msg);
	if (err)
		goto close;
	/* what was written through the page cache before must not land later */
	err = sync_blockdev(bdev);
	if (err) {
		scnprintf(msg, IOVM_MSG_MAX, "%s: writing back its page cache failed", path->addr);
		goto close;
	}
	if (path->pr_key) {
		err = viovm_pr_register(bdev, path->pr_key);
		if (err) {
			scnprintf(msg, IOVM_MSG_MAX, "%s: no reservation: %s", path->addr,
				  viovm_pr_why(err));
			goto close;
		}
	}
	path->priv = b;
	path->capacity = bdev_nr_sectors(bdev);
	path->block_size = bdev_logical_block_size(bdev);
	/*
	 * The block layer works on sectors, drivers on what the DMA engine reaches; and some on
	 * whole logical blocks, which no segment of the guest's may then cut in two: dm-crypt
	 * answers that with an error, null_blk writes beyond its page.
	 */
	path->align_mask = bdev_dma_alignment(bdev) | (bdev_logical_block_size(bdev) - 1);
	path->virt_boundary = queue_virt_boundary(bdev_get_queue(bdev));
	return IOVM_ADD_LIVE;

close:
	viovm_claim_put(&b->claim);
destroy_wq:
	destroy_workqueue(b->wq);
free:
	kfree(b);
	return err;
}

/* Reads the first block. */
static int viovm_bdev_measure(struct iovm_path *path)
{
	struct block_device *bdev = viovm_path_bdev(path);
	struct page *page;
	struct bio_vec bv;
	struct bio bio;
	int err;

	page = alloc_page(GFP_KERNEL);
	if (!page)
		return -ENOMEM;
	bio_init(&bio, bdev, &bv, 1, REQ_OP_READ);
	__bio_add_page(&bio, page, path->block_size, 0);
	err = submit_bio_wait(&bio);
	bio_uninit(&bio);
	__free_page(page);
	return err;
}

static int viovm_bdev_probe(struct iovm_path *path)
{
	struct block_device *bdev = viovm_path_bdev(path);
	int err;

	if (test_bit(GD_DEAD, &bdev->bd_disk->state))
		return -ENODEV;
	/* the device may have been resized while this path was out of use */
	if (bdev_nr_sectors(bdev) < viovm_blk_capacity(path->dev))
		return -EMEDIUMTYPE;
	/* it may have been fenced */
	if (path->pr_key) {
		err = viovm_pr_register(bdev, path->pr_key);
		if (err)
			return err;
	}
	return viovm_bdev_measure(path);
}

static int viovm_bdev_fence(struct iovm_path *by, struct iovm_path *victim)
{
	return viovm_pr_preempt(viovm_path_bdev(by), by->pr_key, victim->pr_key);
}

static void viovm_bdev_remove(struct iovm_path *path)
{
	struct viovm_bdev *b = path->priv;

	path->priv = NULL;
	/* one that has failed may not answer, or has no key any more */
	if (path->pr_key && !path->had_error && !test_bit(GD_DEAD, &b->claim.bdev->bd_disk->state))
		viovm_pr_unregister(b->claim.bdev, path->pr_key);
	/* after this nobody is told of the disk's end */
	viovm_claim_put(&b->claim);
	destroy_workqueue(b->wq);
	kfree(b);
}

static void viovm_bdev_info(struct iovm_path *path, struct iovm_path_info *info)
{
	/* a disk may have grown since it was added */
	path->capacity = bdev_nr_sectors(viovm_path_bdev(path));
	info->capacity = path->capacity;
	info->bdev_major = MAJOR(viovm_path_bdev(path)->bd_dev);
	info->bdev_minor = MINOR(viovm_path_bdev(path)->bd_dev);
}

const struct iovm_path_ops viovm_bdev_ops = {
	.name	= "bdev",
	.type	= IOVM_PATH_BDEV,
	.class	= IOVM_CLASS_BLK,
	.owner	= THIS_MODULE,
	.add	= viovm_bdev_add,
	.probe	= viovm_bdev_probe,
	.measure = viovm_bdev_measure,
	.fence	= viovm_bdev_fence,
	.flush	= viovm_bdev_flush,
	.submit	= viovm_bdev_submit,
	.remove	= viovm_bdev_remove,
	.info	= viovm_bdev_info,
};
