// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's memory table, address translation, and rings pinned and mapped.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "vhost_iovm.h"

/**
 * viovm_mem_last - the highest guest physical address of a memory table
 * @mem: table, not NULL
 *
 * Context: any that keeps @mem alive.
 * Return: the address, 0 for an empty table.
 */
u64 viovm_mem_last(struct vhost_iotlb *mem)
{
	struct vhost_iotlb_map *map;
	u64 last = 0;

	list_for_each_entry(map, &mem->list, link)
		last = max(last, map->last);
	return last;
}

/**
 * viovm_mem_set - VHOST_SET_MEM_TABLE
 * @dev: front end; dev->mutex held, queues may run
 * @arg: the caller's table
 *
 * Return: 0; -EFAULT bad pointer or region; -E2BIG too many regions; -EOPNOTSUPP padding set;
 * -ENOMEM.
 */
int viovm_mem_set(struct viovm_dev *dev, const struct vhost_memory __user *arg)
{
	struct vhost_memory_region *regions, *r;
	struct vhost_iotlb *mem, *old;
	struct vhost_memory head;
	u64 last;
	u32 i;
	int err;

	lockdep_assert_held(&dev->mutex);
	if (copy_from_user(&head, arg, sizeof(head)))
		return -EFAULT;
	if (head.padding)
		return -EOPNOTSUPP;
	if (head.nregions > VHOST_IOVM_MAX_REGIONS)
		return -E2BIG;

	regions = kvmalloc_array(max(head.nregions, 1u), sizeof(*regions), GFP_KERNEL);
	if (!regions)
		return -ENOMEM;
	err = -EFAULT;
	if (copy_from_user(regions, arg->regions, head.nregions * sizeof(*regions)))
		goto free_regions;

	err = -ENOMEM;
	/* twice: a region of all addresses takes two entries */
	mem = vhost_iotlb_alloc(2 * VHOST_IOVM_MAX_REGIONS, 0);
	if (!mem)
		goto free_regions;
	for (i = 0; i < head.nregions; i++) {
		r = &regions[i];
		err = -EFAULT;
		last = r->guest_phys_addr + r->memory_size - 1;
		if (!r->memory_size || last < r->guest_phys_addr ||
		    !access_ok((void __user *)(unsigned long)r->userspace_addr, r->memory_size))
			goto free_mem;
		err = vhost_iotlb_add_range(mem, r->guest_phys_addr, last, r->userspace_addr,
					    VHOST_MAP_RW);
		if (err)
			goto free_mem;
	}
	err = viovm_log_grow(dev, mem);
	if (err)
		goto free_mem;

	old = dev->mem;
	dev->mem = mem;
	for (i = 0; i < dev->nvqs; i++) {
		struct viovm_vq *vq = &dev->vqs[i];

		mutex_lock(&vq->mutex);
		vq->mem = mem;
		vq->map_cache = NULL;
		mutex_unlock(&vq->mutex);
	}
	vhost_iotlb_free(old);
	kvfree(regions);
	return 0;

free_mem:
	vhost_iotlb_free(mem);
free_regions:
	kvfree(regions);
	return err;
}

/**
 * viovm_translate - guest physical to the owner's user address
 * @vq: queue; vq->mutex held
 * @gpa: guest physical address
 * @len: bytes wanted, not 0
 * @write: the device will write there (all guest memory is read-write today)
 * @uaddr: out
 *
 * Return: how many of the bytes lie together from @uaddr on, at least 1; -EFAULT when @gpa is not
 * guest memory.
 */
long viovm_translate(struct viovm_vq *vq, u64 gpa, u64 len, bool write, u64 *uaddr)
{
	struct vhost_iotlb_map *map = vq->map_cache;
	u64 n;

	lockdep_assert_held(&vq->mutex);
	if (unlikely(!map || gpa < map->start || gpa > map->last)) {
		if (!vq->mem)
			return -EFAULT;
		map = vhost_iotlb_itree_first(vq->mem, gpa, gpa);
		if (!map || !(map->perm & (write ? VHOST_MAP_WO : VHOST_MAP_RO)))
			return -EFAULT;
		vq->map_cache = map;
	}
	*uaddr = map->addr + (gpa - map->start);
	n = map->last - gpa;	/* one less than what is left: a region may span 2^64 */
	return n < len ? n + 1 : len;
}
EXPORT_SYMBOL_GPL(viovm_translate);

/**
 * viovm_copy_from_guest - copy out of guest memory
 * @vq: queue; vq->mutex held, in the owner's address space
 * @to: where to
 * @gpa: guest physical address
 * @len: bytes
 *
 * Return: 0, or -EFAULT.
 */
int viovm_copy_from_guest(struct viovm_vq *vq, void *to, u64 gpa, u32 len)
{
	while (len) {
		u64 uaddr;
		long n = viovm_translate(vq, gpa, len, false, &uaddr);

		if (n < 0)
			return n;
		if (copy_from_user(to, (void __user *)(unsigned long)uaddr, n))
			return -EFAULT;
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}
EXPORT_SYMBOL_GPL(viovm_copy_from_guest);

/**
 * viovm_copy_to_guest - copy into guest memory
 * @vq: queue; vq->mutex held, in the owner's address space
 * @gpa: guest physical address
 * @from: source
 * @len: bytes
 *
 * The dirty log is the caller's: viovm_vq_complete() takes what was written.
 * Return: 0, or -EFAULT.
 */
int viovm_copy_to_guest(struct viovm_vq *vq, u64 gpa, const void *from, u32 len)
{
	while (len) {
		u64 uaddr;
		long n = viovm_translate(vq, gpa, len, true, &uaddr);

		if (n < 0)
			return n;
		if (copy_to_user((void __user *)(unsigned long)uaddr, from, n))
			return -EFAULT;
		from += n;
		gpa += n;
		len -= n;
	}
	return 0;
}
EXPORT_SYMBOL_GPL(viovm_copy_to_guest);

/* Anonymous, shmem or hugetlb: memory no file system writes back behind a long-term pin. */
static bool viovm_page_pinnable(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_anon(folio) || folio_test_swapbacked(folio) || folio_test_hugetlb(folio);
}

/**
 * viovm_map - pin user memory for long and map it into the kernel
 * @dev: front end; dev->mutex held, in the owner's address space
 * @uaddr: user address
 * @len: bytes, not 0
 * @m: out
 *
 * Return: 0; -EFAULT not mapped or not writable; -EOPNOTSUPP memory of a file system; -ENOMEM,
 * also over RLIMIT_MEMLOCK.
 */
int viovm_map(struct viovm_dev *dev, u64 uaddr, size_t len, struct viovm_mapping *m)
{
	unsigned long start = uaddr & PAGE_MASK;
	unsigned long npages = DIV_ROUND_UP((uaddr - start) + len, PAGE_SIZE);
	unsigned long i;
	long pinned;
	int err;

	lockdep_assert_held(&dev->mutex);
	if (uaddr + len - 1 < uaddr || !access_ok((void __user *)(unsigned long)uaddr, len))
		return -EFAULT;
	m->pages = kvmalloc_array(npages, sizeof(*m->pages), GFP_KERNEL);
	if (!m->pages)
		return -ENOMEM;
	err = account_locked_vm(dev->mm, npages, true);
	if (err)
		goto free_pages;

	pinned = pin_user_pages_fast(start, npages, FOLL_WRITE | FOLL_LONGTERM, m->pages);
	if (pinned != npages) {
		err = pinned < 0 ? pinned : -EFAULT;
		goto unpin;
	}
	err = -EOPNOTSUPP;
	for (i = 0; i < npages; i++)
		if (!viovm_page_pinnable(m->pages[i]))
			goto unpin;
	err = -ENOMEM;
	m->base = vmap(m->pages, npages, VM_MAP, PAGE_KERNEL);
	if (!m->base)
		goto unpin;
	m->npages = npages;
	m->addr = m->base + (uaddr - start);
	return 0;

unpin:
	if (pinned > 0)
		unpin_user_pages(m->pages, pinned);
	account_locked_vm(dev->mm, npages, false);
free_pages:
	kvfree(m->pages);
	memset(m, 0, sizeof(*m));
	return err;
}

/**
 * viovm_unmap - undo viovm_map()
 * @dev: front end
 * @m: mapping; nothing is done when it is empty
 *
 * Process context; the owner may be gone.
 */
void viovm_unmap(struct viovm_dev *dev, struct viovm_mapping *m)
{
	if (!m->base)
		return;
	vunmap(m->base);
	unpin_user_pages_dirty_lock(m->pages, m->npages, true);
	account_locked_vm(dev->mm, m->npages, false);
	kvfree(m->pages);
	memset(m, 0, sizeof(*m));
}
