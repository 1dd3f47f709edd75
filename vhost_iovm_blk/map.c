// SPDX-License-Identifier: GPL-2.0
/*
 * A part's guest memory: pinned, or bounced where the path cannot take it as it lies.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/uaccess.h>

#include "blk.h"
#include "../vhost_iovm/plant.h"

/**
 * struct viovm_blk_cursor - a position in a request's data
 * @rq: request
 * @seg: segment
 * @off: bytes into it
 */
struct viovm_blk_cursor {
	const struct viovm_blk_rq *rq;
	u32 seg;
	u32 off;
};

static void viovm_blk_seek(struct viovm_blk_cursor *c, const struct viovm_blk_rq *rq, u32 data_off)
{
	c->rq = rq;
	c->seg = rq->first;
	c->off = rq->first_off + data_off;
	while (c->seg < rq->nr_segs && c->off >= rq->segs[c->seg].len)
		c->off -= rq->segs[c->seg++].len;
}

/* The next stretch of at most @left bytes that is contiguous in user space. vq->mutex held. */
static long viovm_blk_next(struct viovm_blk_cursor *c, u32 left, bool write, u64 *uaddr)
{
	const struct viovm_seg *s = &c->rq->segs[c->seg];
	long n;

	if (c->seg >= c->rq->nr_segs)
		return -EFAULT;
	n = viovm_translate(c->rq->queue->vq, s->gpa + c->off, min(s->len - c->off, left), write,
			    uaddr);
	if (n < 0)
		return n;
	c->off += n;
	if (c->off == s->len) {
		c->seg++;
		c->off = 0;
	}
	return n;
}

/**
 * viovm_blk_copy_out - copy the beginning of a request's data from the guest
 * @rq: request
 * @to: where to
 * @len: bytes, at most rq->data_len
 *
 * Worker. Return: 0 or -EFAULT.
 */
int viovm_blk_copy_out(struct viovm_blk_rq *rq, void *to, u32 len)
{
	struct viovm_blk_cursor c;
	u64 uaddr;
	long n;

	for (viovm_blk_seek(&c, rq, 0); len; len -= n, to += n) {
		n = viovm_blk_next(&c, len, false, &uaddr);
		if (n < 0)
			return n;
		if (copy_from_user(to, (void __user *)(unsigned long)uaddr, n))
			return -EFAULT;
	}
	return 0;
}

/**
 * viovm_blk_copy_in - copy to the beginning of a request's data in the guest
 * @rq: request
 * @from: where from
 * @len: bytes, at most rq->data_len
 *
 * Worker. Return: 0 or -EFAULT.
 */
int viovm_blk_copy_in(struct viovm_blk_rq *rq, const void *from, u32 len)
{
	struct viovm_blk_cursor c;
	u64 uaddr;
	long n;

	for (viovm_blk_seek(&c, rq, 0); len; len -= n, from += n) {
		n = viovm_blk_next(&c, len, true, &uaddr);
		if (n < 0)
			return n;
		if (copy_to_user((void __user *)(unsigned long)uaddr, from, n))
			return -EFAULT;
	}
	return 0;
}

/* Copy between a bounced part's pages and the guest. Worker. */
static int viovm_blk_bounce_copy(struct viovm_blk_part *part, bool to_guest)
{
	struct viovm_blk_cursor c;
	u32 done = 0;

	viovm_blk_seek(&c, part->rq, part->data_off);
	while (done < part->io.req.len) {
		u64 uaddr;
		long n = viovm_blk_next(&c, part->io.req.len - done, to_guest, &uaddr);
		u8 __user *user = (u8 __user *)(unsigned long)uaddr;

		if (n < 0)
			return n;
		while (n) {
			struct bio_vec *bv = &part->io.bv[done / PAGE_SIZE];
			u32 off = done % PAGE_SIZE;
			u32 m = min_t(u32, n, PAGE_SIZE - off);
			u8 *kaddr = kmap_local_page(bv->bv_page) + off;
			unsigned long left;

			if (to_guest)
				left = copy_to_user(user, kaddr, m);
			else
				left = copy_from_user(kaddr, user, m);

			kunmap_local(kaddr);
			if (left)
				return -EFAULT;
			done += m;
			user += m;
			n -= m;
		}
	}
	return 0;
}

/* Pages of the kernel's instead of the guest's. Worker; nothing is mapped. */
static int viovm_blk_map_bounce(struct viovm_blk_part *part)
{
	u32 left = part->io.req.len;
	int err;

	part->bounce = true;
	while (left) {
		struct page *page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN);
		u32 n = min_t(u32, left, PAGE_SIZE);

		if (!page) {
			err = -ENOMEM;
			goto unmap;
		}
		bvec_set_page(&part->io.bv[part->io.nr_bv++], page, n, 0);
		left -= n;
	}
	err = part->io.req.op == IOVM_OP_WRITE ? viovm_blk_bounce_copy(part, false) : 0;
	if (!err)
		return 0;
unmap:
	viovm_blk_unmap(part, true);
	return err;
}

static void viovm_blk_dirty(struct page *page)
{
	struct folio *folio = page_folio(page);

	if (folio_test_dirty(folio))
		return;
	folio_lock(folio);
	folio_mark_dirty(folio);
	folio_unlock(folio);
}

/*
 * Pin what lies at one stretch of user memory.
 * Return: 0; 1 it has to be bounced; or a negative errno.
 */
static int viovm_blk_pin(struct viovm_blk_part *part, u64 uaddr, u32 len, bool write)
{
	struct page **pages = part->rq->queue->pages;
	const struct iovm_path *path = part->io.req.path;
	u32 off = offset_in_page(uaddr);
	u32 npages = DIV_ROUND_UP(off + len, PAGE_SIZE);
	u32 done = 0;
	long n;

	if (part->io.nr_bv + npages > part->io.max_bv || ((uaddr | len) & path->align_mask))
		return 1;
	if (part->io.nr_bv && path->virt_boundary) {
		const struct bio_vec *last = &part->io.bv[part->io.nr_bv - 1];

		if (((last->bv_offset + last->bv_len) | off) & path->virt_boundary)
			return 1;
	}
	uaddr -= off;
	/* fewer than asked for: the next call says why */
	for (; done < npages; done += n, uaddr += n * PAGE_SIZE) {
		long i;

		n = pin_user_pages_fast(uaddr, npages - done, write ? FOLL_WRITE : 0, pages);
		if (n <= 0)
			return n ?: -EFAULT;
		for (i = 0; i < n; i++) {
			u32 m = min_t(u32, len, PAGE_SIZE - off);

			if (write)
				viovm_blk_dirty(pages[i]);
			bvec_set_page(&part->io.bv[part->io.nr_bv++], pages[i], m, off);
			len -= m;
			off = 0;
		}
	}
	return 0;
}

/**
 * viovm_blk_map - make a part's data reachable for its path
 * @part: routed, not mapped
 *
 * Worker, vq->mutex held, in the owner's address space. Pages that the device writes are marked
 * dirty now, where one may sleep.
 * Return: 0; -ENOMEM try again later; -EINTR the owner is dying; -EFAULT the guest's memory is
 * not there.
 */
int viovm_blk_map(struct viovm_blk_part *part)
{
	bool write = part->io.req.op == IOVM_OP_READ;
	struct viovm_blk_cursor c;
	u32 left = part->io.req.len;
	int err = 0;

	part->io.nr_bv = 0;
	part->bounce = false;
	if (part->io.req.op != IOVM_OP_READ && part->io.req.op != IOVM_OP_WRITE)
		return 0;
	if (write && part->io.req.dev->flags & IOVM_DEV_F_BOUNCE_READS)
		return viovm_blk_map_bounce(part);
	for (viovm_blk_seek(&c, part->rq, part->data_off); left; ) {
		u64 uaddr;
		long n = viovm_blk_next(&c, left, write, &uaddr);

		err = n < 0 ? n : viovm_blk_pin(part, uaddr, n, write);
		if (err)
			break;
		left -= n;
	}
	if (!err)
		return 0;
	viovm_blk_unmap(part, true);
	return err == 1 ? viovm_blk_map_bounce(part) : err;
}

/*
 * Lets go of a page that was written for the guest. One that was cleaned since it was pinned has to
 * be marked dirty under its lock: false, and it is still pinned, where one may not sleep. It may be
 * cleaned at any moment: the look and the unpin belong together. One that is dirty now is written
 * back, if ever, with what is in it.
 */
static bool viovm_blk_unpin(struct page *page, bool may_sleep)
{
	if (!folio_test_dirty(page_folio(page))) {
		if (!may_sleep)
			return false;
		viovm_blk_dirty(page);
	}
	unpin_user_page(page);
	return true;
}

/**
 * viovm_blk_unmap - let go of a part's pages
 * @part: part; nothing is done when it is not mapped
 * @may_sleep: process context; else any
 *
 * Return: true; without @may_sleep false when something is left to be done where one may sleep.
 */
bool viovm_blk_unmap(struct viovm_blk_part *part, bool may_sleep)
{
	bool redirty = !part->bounce && part->io.req.op == IOVM_OP_READ;

	might_sleep_if(may_sleep);
	/* many pages take long with interrupts off */
	if (redirty && part->io.nr_bv > 64 && !may_sleep && !in_task())
		return false;
	for (; part->io.nr_bv; part->io.nr_bv--) {
		const struct bio_vec *bv = &part->io.bv[part->io.nr_bv - 1];

		if (part->bounce) {
			__free_page(bv->bv_page);
		} else if (redirty) {
			viovm_plant_late(bv->bv_page, bv->bv_offset);
			if (!viovm_blk_unpin(bv->bv_page, may_sleep))
				return false;
		} else {
			unpin_user_page(bv->bv_page);
		}
	}
	return true;
}

/**
 * viovm_blk_copy_back - bring a bounced read to the guest
 * @part: bounced read, served
 *
 * Worker, vq->mutex held. Return: 0 or -EFAULT.
 */
int viovm_blk_copy_back(struct viovm_blk_part *part)
{
	return viovm_blk_bounce_copy(part, true);
}

/**
 * viovm_blk_status_gpa - where a request's status byte lies
 * @rq: request
 */
u64 viovm_blk_status_gpa(const struct viovm_blk_rq *rq)
{
	const struct viovm_seg *s = &rq->segs[rq->nr_segs - 1];

	return s->gpa + s->len - 1;
}

/**
 * viovm_blk_pin_status - pin the page of the status byte, so that any context can write it
 * @rq: request
 *
 * Worker, vq->mutex held. Return: 0 (also when it is pinned already), -EFAULT, -EINTR, -ENOMEM.
 */
int viovm_blk_pin_status(struct viovm_blk_rq *rq)
{
	u64 uaddr;
	long n;

	if (rq->status_page)
		return 0;
	n = viovm_translate(rq->queue->vq, viovm_blk_status_gpa(rq), 1, true, &uaddr);
	if (n < 0)
		return n;
	n = pin_user_pages_fast(uaddr & PAGE_MASK, 1, FOLL_WRITE, &rq->status_page);
	if (n != 1) {
		rq->status_page = NULL;
		return n < 0 ? n : -EFAULT;
	}
	viovm_blk_dirty(rq->status_page);
	rq->status_off = offset_in_page(uaddr);
	return 0;
}

/**
 * viovm_blk_unpin_status - let go of the page of the status byte
 * @rq: request
 * @may_sleep: process context; else any
 *
 * Return: as viovm_blk_unmap().
 */
bool viovm_blk_unpin_status(struct viovm_blk_rq *rq, bool may_sleep)
{
	might_sleep_if(may_sleep);
	if (rq->status_page && !viovm_blk_unpin(rq->status_page, may_sleep))
		return false;
	rq->status_page = NULL;
	return true;
}
