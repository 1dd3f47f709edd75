/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Bugs to be found. Built with -DVIOVM_PLANT=N the modules have one bug of those below, at a place
 * that asks viovm_planted(); selftests/torture/plants builds them so and requires that the fault
 * campaign sees each. In any other build VIOVM_PLANT is 0 and nothing of this is left in the code.
 */
#ifndef _VHOST_IOVM_PLANT_H
#define _VHOST_IOVM_PLANT_H

#include <linux/types.h>

/**
 * enum viovm_plant - what is broken
 * @VIOVM_PLANT_FENCE: a write in flight on a path without a fence is issued elsewhere at once
 * @VIOVM_PLANT_TWICE: some requests are completed twice
 * @VIOVM_PLANT_FLUSH: FLUSH goes to the route alone, not to the paths that were left
 * @VIOVM_PLANT_LATE: some reads write into the guest's page once more, after their completion
 * @VIOVM_PLANT_LOG: some of what was written is missing in the dirty log
 * @VIOVM_PLANT_GIVE: an epoch is given up although what was issued may still land
 */
enum viovm_plant {
	VIOVM_PLANT_FENCE = 1,
	VIOVM_PLANT_TWICE = 2,
	VIOVM_PLANT_FLUSH = 3,
	VIOVM_PLANT_LATE = 4,
	VIOVM_PLANT_LOG = 5,
	VIOVM_PLANT_GIVE = 6,
};

#ifndef VIOVM_PLANT
#define VIOVM_PLANT	0
#endif

static inline bool viovm_planted(enum viovm_plant what)
{
	return VIOVM_PLANT == what;
}

#if VIOVM_PLANT
#include <linux/atomic.h>
#include <linux/highmem.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

/* Every @nth time it is asked */
static inline bool viovm_planted_nth(enum viovm_plant what, unsigned int nth)
{
	static atomic_t count = ATOMIC_INIT(0);

	return viovm_planted(what) && (unsigned int)atomic_inc_return(&count) % nth == 0;
}

/**
 * struct viovm_late - a write into a page of the guest's that comes too late
 * @work: does it
 * @page: with a reference
 * @off: where in it
 */
struct viovm_late {
	struct delayed_work work;
	struct page *page;
	unsigned int off;
};

static inline void viovm_late_work(struct work_struct *work)
{
	struct viovm_late *l = container_of(to_delayed_work(work), struct viovm_late, work);

	memcpy_to_page(l->page, l->off, "too late", 8);
	put_page(l->page);
	kfree(l);
}

static inline void viovm_plant_late(struct page *page, unsigned int off)
{
	struct viovm_late *l;

	if (!viovm_planted_nth(VIOVM_PLANT_LATE, 64))
		return;
	l = kmalloc(sizeof(*l), GFP_ATOMIC);
	if (!l)
		return;
	get_page(page);
	l->page = page;
	l->off = off;
	INIT_DELAYED_WORK(&l->work, viovm_late_work);
	schedule_delayed_work(&l->work, msecs_to_jiffies(5));
}
#else
static inline bool viovm_planted_nth(enum viovm_plant what, unsigned int nth)
{
	return false;
}

static inline void viovm_plant_late(struct page *page, unsigned int off)
{
}
#endif /* VIOVM_PLANT */

#endif /* _VHOST_IOVM_PLANT_H */
