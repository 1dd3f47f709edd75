// SPDX-License-Identifier: GPL-2.0
/*
 * The dirty log. Completions, in any context, set bits in a bitmap of the kernel's; process
 * context moves them to the VMM's log: soon after (viovm_log.work), and at the latest before
 * GET_VRING_BASE, SET_LOG_BASE or turning LOG_ALL off returns. What a killed front end has not
 * written is left to its successor (viovm_log_inherit()).
 */
#include <linux/highmem.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "plant.h"
#include "vhost_iovm.h"

#define VIOVM_LOG_SHIFT		12	/* a bit is 4096 bytes: VHOST_PAGE_SIZE */
#define VIOVM_LOG_CHUNK_SHIFT	12	/* pages per bit of the summary */
#define VIOVM_LOG_DELAY		msecs_to_jiffies(20)

static struct viovm_log_map *viovm_log_map_alloc(u64 last)
{
	u64 nbits = (last >> VIOVM_LOG_SHIFT) + 1;
	u64 nchunks = DIV_ROUND_UP_ULL(nbits, 1 << VIOVM_LOG_CHUNK_SHIFT);
	struct viovm_log_map *map;

	/* whole chunks, so that the scan needs no special case at the end */
	nbits = nchunks << VIOVM_LOG_CHUNK_SHIFT;
	if (nbits > INT_MAX)
		return ERR_PTR(-E2BIG);
	/* up to 256 MiB, for the asking: nobody else shall be killed to make room for it */
	map = kvzalloc(struct_size(map, bits, BITS_TO_LONGS(nbits)),
		       GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!map)
		return ERR_PTR(-ENOMEM);
	map->sum = kvcalloc(BITS_TO_LONGS(nchunks), sizeof(long), GFP_KERNEL_ACCOUNT);
	if (!map->sum) {
		kvfree(map);
		return ERR_PTR(-ENOMEM);
	}
	map->nbits = nbits;
	return map;
}

static void viovm_log_map_free(struct viovm_log_map *map)
{
	if (!map)
		return;
	kvfree(map->sum);
	kvfree(map);
}

/**
 * viovm_log_mark - guest memory was written
 * @log: log
 * @map: rcu_dereference(log->map), not NULL
 * @gpa: guest physical address
 * @len: bytes; nothing when 0
 *
 * Any context, under rcu_read_lock(), after the data was written.
 */
void viovm_log_mark(struct viovm_log *log, struct viovm_log_map *map, u64 gpa, u64 len)
{
	u64 first = gpa >> VIOVM_LOG_SHIFT, last, bit, end;

	if (!len || first >= map->nbits || viovm_planted_nth(VIOVM_PLANT_LOG, 8))
		return;
	last = min((gpa + len - 1) >> VIOVM_LOG_SHIFT, map->nbits - 1);
	/* the data before the bit: who sees the bit copies the page */
	smp_wmb();
	for (bit = first; bit <= last; bit = end + 1) {
		end = min(bit | (BITS_PER_LONG - 1), last);
		atomic_long_or(GENMASK(end % BITS_PER_LONG, bit % BITS_PER_LONG),
			       (atomic_long_t *)&map->bits[bit / BITS_PER_LONG]);
	}
	/* the pages before their summary: a flush clears that before it looks at them */
	smp_wmb();
	/* unconditionally: a test could see what a running flush is about to clear */
	for (bit = first >> VIOVM_LOG_CHUNK_SHIFT; bit <= last >> VIOVM_LOG_CHUNK_SHIFT; bit++)
		set_bit(bit, map->sum);
	if (!test_and_set_bit(0, &log->pending))
		queue_delayed_work(system_unbound_wq, &log->work, VIOVM_LOG_DELAY);
}

/* Cursor over the VMM's log: the page being written */
struct viovm_log_cursor {
	struct page *page;
	unsigned long addr;
};

static void viovm_log_cursor_put(struct viovm_log_cursor *c)
{
	if (c->page)
		unpin_user_pages_dirty_lock(&c->page, 1, true);
	c->page = NULL;
}

static int viovm_log_set_user(struct viovm_log_cursor *c, u64 base, u64 bit)
{
	u64 byte = base + bit / 8;
	unsigned long addr = byte & PAGE_MASK;
	void *kaddr;
	int n;

	if (!c->page || c->addr != addr) {
		viovm_log_cursor_put(c);
		n = pin_user_pages_fast(addr, 1, FOLL_WRITE, &c->page);
		if (n != 1) {
			c->page = NULL;
			return n < 0 ? n : -EFAULT;
		}
		c->addr = addr;
	}
	kaddr = kmap_local_page(c->page);
	set_bit_le((byte - addr) * 8 + bit % 8, kaddr);
	kunmap_local(kaddr);
	return 0;
}

/*
 * One word of the map. What cannot be written stays there, and so does what is beyond the memory
 * table: the VMM's log ends with that. It is of requests that were in flight when a region went,
 * and counts if the region comes back.
 */
static int viovm_log_write_word(struct viovm_log *log, struct viovm_log_map *map, unsigned long w,
				struct viovm_log_cursor *cur)
{
	u64 first = (u64)w * BITS_PER_LONG, page;
	unsigned long bits = xchg(&map->bits[w], 0);
	int err = 0;

	for (; bits; bits &= bits - 1) {
		page = first + __ffs(bits);
		if (page >= log->npages)
			break;
		err = viovm_log_set_user(cur, log->user, page);
		if (err)
			break;
	}
	if (bits)
		atomic_long_or(bits, (atomic_long_t *)&map->bits[w]);
	return err;
}

/*
 * flush_mutex held; in the owner's address space. Ends at what cannot be written now, such as for
 * want of memory: that is written the next time.
 */
static int viovm_log_write(struct viovm_log *log, struct viovm_log_map *map)
{
	const unsigned long words = (1UL << VIOVM_LOG_CHUNK_SHIFT) / BITS_PER_LONG;
	struct viovm_log_cursor cur = {};
	unsigned long chunk, w;
	int err = 0;

	lockdep_assert_held(&log->flush_mutex);
	if (!log->user_set)
		return 0;
	for_each_set_bit(chunk, map->sum, map->nbits >> VIOVM_LOG_CHUNK_SHIFT) {
		clear_bit(chunk, map->sum);
		/*
		 * the chunk's words are read after its summary was cleared: a later mark sets it
		 * again
		 */
		smp_mb__after_atomic();
		for (w = chunk * words; w < (chunk + 1) * words && !err; w++)
			if (READ_ONCE(map->bits[w]))
				err = viovm_log_write_word(log, map, w, &cur);
		if (err || (u64)(chunk + 1) << VIOVM_LOG_CHUNK_SHIFT > log->npages)
			set_bit(chunk, map->sum);
		if (err)
			break;
		cond_resched();
	}
	viovm_log_cursor_put(&cur);
	if (log->eventfd)
		eventfd_signal(log->eventfd);
	return err;
}

/**
 * viovm_log_flush - write everything recorded so far to the VMM's log
 * @dev: front end; dev->mutex held, in the owner's address space
 *
 * Return: 0; -EFAULT when the VMM's log is not there, -ENOMEM, -EINTR: the rest is written by the
 * next call.
 */
int viovm_log_flush(struct viovm_dev *dev)
{
	struct viovm_log_map *map;
	int err;

	map = rcu_dereference_protected(dev->log.map, lockdep_is_held(&dev->mutex));
	if (!map)
		return 0;
	mutex_lock(&dev->log.flush_mutex);
	clear_bit(0, &dev->log.pending);
	/* a mark from here on queues the work again */
	smp_mb__after_atomic();
	err = viovm_log_write(&dev->log, map);
	mutex_unlock(&dev->log.flush_mutex);
	return err;
}
EXPORT_SYMBOL_GPL(viovm_log_flush);

static void viovm_log_work(struct work_struct *work)
{
	struct viovm_log *log = container_of(work, struct viovm_log, work.work);
	struct viovm_dev *dev = container_of(log, struct viovm_dev, log);
	struct viovm_log_map *map;

	/* the map is freed after cancel_delayed_work_sync() only: no RCU needed here */
	mutex_lock(&log->flush_mutex);
	clear_bit(0, &log->pending);
	/* a mark from here on queues the work again */
	smp_mb__after_atomic();
	map = rcu_dereference_protected(log->map, lockdep_is_held(&log->flush_mutex));
	if (map && mmget_not_zero(dev->mm)) {
		kthread_use_mm(dev->mm);
		viovm_log_write(log, map);
		kthread_unuse_mm(dev->mm);
		mmput(dev->mm);
	}
	mutex_unlock(&log->flush_mutex);
}

/* What is set in @from is set in @to, as far as that goes, and not in @from any more. */
static void viovm_log_move(struct viovm_log_map *to, struct viovm_log_map *from)
{
	unsigned long w;

	for (w = 0; w < BITS_TO_LONGS(min(to->nbits, from->nbits)); w++) {
		if (!from->bits[w])
			continue;
		atomic_long_or(from->bits[w], (atomic_long_t *)&to->bits[w]);
		from->bits[w] = 0;
		/* the pages before their summary: as in viovm_log_mark() */
		smp_wmb();
		set_bit(w * BITS_PER_LONG >> VIOVM_LOG_CHUNK_SHIFT, to->sum);
	}
}

/*
 * What a predecessor that was killed could not write to its VMM's log: its address space was gone.
 * The guest that it served goes on, and may be migrated: the successor tells. Said of pages that
 * are not the guest's any more, it does no harm. dev->mutex held.
 */
static void viovm_log_inherit(struct viovm_dev *dev)
{
	struct viovm_log_map *map, *left = dev->node->log_left;

	lockdep_assert_held(&dev->mutex);
	map = rcu_dereference_protected(dev->log.map, lockdep_is_held(&dev->mutex));
	if (!map || !left)
		return;
	viovm_log_move(map, left);
	if (map->nbits >= left->nbits)
		viovm_log_drop_left(dev->node);
	if (!test_and_set_bit(0, &dev->log.pending))
		queue_delayed_work(system_unbound_wq, &dev->log.work, VIOVM_LOG_DELAY);
}

/* A front end has ended: what is not in its VMM's log is for the next one. dev->mutex held. */
static void viovm_log_leave(struct viovm_dev *dev, struct viovm_log_map *map)
{
	struct viovm_node *node = dev->node;

	lockdep_assert_held(&dev->mutex);
	if (!map || find_first_bit(map->bits, map->nbits) >= map->nbits) {
		viovm_log_map_free(map);
	} else if (node->log_left) {
		/* it is larger, or it would have been inherited whole */
		viovm_log_move(node->log_left, map);
		viovm_log_map_free(map);
	} else {
		node->log_left = map;
	}
}

/**
 * viovm_log_drop_left - nobody asks for what a front end that was killed had not logged
 * @node: with no front end, or that one's mutex is held
 */
void viovm_log_drop_left(struct viovm_node *node)
{
	viovm_log_map_free(node->log_left);
	node->log_left = NULL;
}

/*
 * Replace the map, NULL for none, and wait until nobody uses the old one, or goes by there having
 * been none. dev->mutex held.
 */
static struct viovm_log_map *viovm_log_swap(struct viovm_dev *dev, struct viovm_log_map *map)
{
	struct viovm_log_map *old;

	lockdep_assert_held(&dev->mutex);
	mutex_lock(&dev->log.flush_mutex);
	old = rcu_replace_pointer(dev->log.map, map, lockdep_is_held(&dev->mutex));
	mutex_unlock(&dev->log.flush_mutex);
	synchronize_rcu();
	return old;
}

/**
 * viovm_log_enable - VHOST_F_LOG_ALL turned on or off
 * @dev: front end; dev->mutex held, in the owner's address space; queues may run
 * @on: which
 *
 * Return: 0; -ENOMEM; -E2BIG the guest's memory is too large to log.
 */
int viovm_log_enable(struct viovm_dev *dev, bool on)
{
	struct viovm_log_map *map;

	lockdep_assert_held(&dev->mutex);
	if (on == !!rcu_access_pointer(dev->log.map))
		return 0;
	if (on) {
		map = viovm_log_map_alloc(dev->mem ? viovm_mem_last(dev->mem) : 0);
		if (IS_ERR(map))
			return PTR_ERR(map);
		viovm_log_swap(dev, map);
		viovm_log_inherit(dev);
		return 0;
	}
	map = viovm_log_swap(dev, NULL);
	mutex_lock(&dev->log.flush_mutex);
	viovm_log_write(&dev->log, map);
	mutex_unlock(&dev->log.flush_mutex);
	viovm_log_map_free(map);
	return 0;
}
EXPORT_SYMBOL_GPL(viovm_log_enable);

/**
 * viovm_log_grow - make the log cover a new memory table, and write out what the old one holds
 * @dev: front end; dev->mutex held, in the owner's address space
 * @mem: the table that comes
 *
 * The VMM's log grows before SET_MEM_TABLE and shrinks after it.
 * Return: 0, -ENOMEM or -E2BIG.
 */
int viovm_log_grow(struct viovm_dev *dev, struct vhost_iotlb *mem)
{
	u64 npages = (viovm_mem_last(mem) >> VIOVM_LOG_SHIFT) + 1;
	struct viovm_log_map *map, *new, *old = NULL;

	map = rcu_dereference_protected(dev->log.map, lockdep_is_held(&dev->mutex));
	if (map && npages > map->nbits) {
		new = viovm_log_map_alloc(viovm_mem_last(mem));
		if (IS_ERR(new))
			return PTR_ERR(new);
		old = viovm_log_swap(dev, new);
	}
	viovm_log_flush(dev);
	mutex_lock(&dev->log.flush_mutex);
	dev->log.npages = npages;
	if (old)
		viovm_log_write(&dev->log, old);
	mutex_unlock(&dev->log.flush_mutex);
	viovm_log_map_free(old);
	viovm_log_inherit(dev);
	return 0;
}

/**
 * viovm_log_set_base - VHOST_SET_LOG_BASE
 * @dev: front end; dev->mutex held, in the owner's address space
 * @uaddr: user address of the VMM's log, as large as the memory table asks
 *
 * Return: 0; -EFAULT not an address of the caller's.
 */
int viovm_log_set_base(struct viovm_dev *dev, u64 uaddr)
{
	u64 bytes = dev->mem ? (viovm_mem_last(dev->mem) >> VIOVM_LOG_SHIFT) / 8 + 1 : 1;

	lockdep_assert_held(&dev->mutex);
	if (uaddr + bytes - 1 < uaddr || !access_ok((void __user *)(unsigned long)uaddr, bytes))
		return -EFAULT;
	viovm_log_flush(dev);
	mutex_lock(&dev->log.flush_mutex);
	dev->log.user = uaddr;
	dev->log.user_set = true;
	mutex_unlock(&dev->log.flush_mutex);
	return 0;
}

/**
 * viovm_log_set_fd - VHOST_SET_LOG_FD
 * @dev: front end; dev->mutex held
 * @fd: eventfd, -1 for none
 *
 * Return: 0, or the errno of a bad eventfd.
 */
int viovm_log_set_fd(struct viovm_dev *dev, int fd)
{
	struct eventfd_ctx *ctx = NULL;

	if (fd != -1) {
		ctx = eventfd_ctx_fdget(fd);
		if (IS_ERR(ctx))
			return PTR_ERR(ctx);
	}
	mutex_lock(&dev->log.flush_mutex);
	swap(ctx, dev->log.eventfd);
	mutex_unlock(&dev->log.flush_mutex);
	if (ctx)
		eventfd_ctx_put(ctx);
	return 0;
}

/**
 * viovm_log_init - prepare a new front end's log
 * @dev: front end
 */
void viovm_log_init(struct viovm_dev *dev)
{
	mutex_init(&dev->log.flush_mutex);
	INIT_DELAYED_WORK(&dev->log.work, viovm_log_work);
}

/**
 * viovm_log_free - drop the log; no completion can come any more
 * @dev: front end; dev->mutex held. Nothing is written to the VMM's log: the next front end is told
 *
 * Process context.
 */
void viovm_log_free(struct viovm_dev *dev)
{
	cancel_delayed_work_sync(&dev->log.work);
	/* else no mark of the next owner's would queue the work */
	clear_bit(0, &dev->log.pending);
	viovm_log_leave(dev, rcu_replace_pointer(dev->log.map, NULL, true));
	dev->log.user_set = false;
	dev->log.npages = 0;
	viovm_log_set_fd(dev, -1);
}
