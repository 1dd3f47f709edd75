// SPDX-License-Identifier: GPL-2.0
/*
 * A class and two path types made up for testing the mux, and the smallest there can be.
 *
 * The class ("test", in the place of IOVM_CLASS_BLK) is a guest without a ring: a thread that
 * keeps up to NREQ requests on NBLK blocks going. The path types lead to one medium per device, an
 * array that holds the version of each block, and end requests as the module parameters say,
 * inline, from a workqueue, or from hard irq. "tbdev" (30) is live at once and can be probed,
 * "tnbd" (31) has to be connected.
 *
 * A write that a path without a fence ended with an error lands at once, never, or late: when the
 * path is connected or probed the next time, or when its fence is closed (parameter fence). So a
 * mux that issues it elsewhere too early shows: an old version lands on a newer one.
 *
 * What is checked, and counted in the parameter violations:
 *	each request is completed or given back once, and never while the class has it
 *	an acknowledged write is on the medium, and nothing older lands later
 *	a read yields what was acknowledged last
 *	when a flush is done, every live path has flushed what was acknowledged before it
 *	nothing is counted as waiting at the end
 *	a device that needs an epoch issues nothing without one, and when it has given it up nothing
 *	lands late
 */
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/slab.h>

#include "mux.h"

#define NBLK	64
#define NREQ	48
#define NLATE	256
#define NDIRTY	4096

/* How many of 1024 requests end so. */
static int path_rate, io_rate, unsent_rate, retry_rate, connect_rate, probe_rate;
static int media_rate, nospc_rate;
module_param(path_rate, int, 0600);
module_param(io_rate, int, 0600);
module_param(unsent_rate, int, 0600);
module_param(retry_rate, int, 0600);
module_param(connect_rate, int, 0600);
module_param(probe_rate, int, 0600);
module_param(media_rate, int, 0600);
module_param(nospc_rate, int, 0600);
/* Only on the path in this slot; -1: on all */
static int only_slot = -1;
module_param(only_slot, int, 0600);
/* The path in this slot does not come back from a probe, or a flush; -1: all do */
static int hang_probe = -1, hang_flush = -1;
module_param(hang_probe, int, 0600);
module_param(hang_flush, int, 0600);
/* Bit per slot of a path by which a fence by a reservation does not succeed */
static int fence_fails;
module_param(fence_fails, int, 0600);
/* The guest asks for nothing new. */
static int quiet;
module_param(quiet, int, 0600);

static ulong violations, completed, completed_err, requeued, flushes, late_landed;
module_param(violations, ulong, 0400);
module_param(completed, ulong, 0400);
module_param(completed_err, ulong, 0400);
module_param(requeued, ulong, 0400);
module_param(flushes, ulong, 0400);
module_param(late_landed, ulong, 0400);

#define BAD(fmt, ...) do { \
	violations++; \
	pr_err("iovm_mux_test: " fmt "\n", ##__VA_ARGS__); \
} while (0)

enum { FREE, OUT, WAIT };

struct treq {
	struct iovm_req req;
	struct hrtimer timer;
	struct work_struct work;
	struct list_head fe;
	int state;
	enum iovm_result res;
	u32 block;
	u64 ver;
	u64 start_seq, dev_seq;
};

struct late { u32 block; u64 ver; };

struct tpath {
	struct iovm_path *path;
	bool nbd, broken, no_late;
	int nlate;
	struct late late[NLATE];
	int ndirty;
	struct { u64 dev_seq, class_seq; } dirty[NDIRTY];
	u64 flush_snap;
	atomic_t out;
	struct work_struct flush_work;
};

struct tdev {
	struct iovm_dev *dev;
	spinlock_t lock;	/* all below, and of the paths all but path and out */
	struct list_head free, back;
	struct treq *reqs;
	int out;		/* not free */
	u64 medium[NBLK], acked[NBLK], next_ver[NBLK];
	u8 busy[NBLK];		/* 1 a write is out, 2 one failed: may hold anything */
	u16 readers[NBLK];
	bool flushing;
	u64 seq;
	bool stop, kick;
	bool fe_on;		/* the guest is there */
	wait_queue_head_t wait;
	struct task_struct *task;
	struct list_head all;
	struct tpath *paths[IOVM_MAX_PATHS];	/* by slot */
};

static bool hit(int rate)
{
	return (int)(get_random_u32() % 1024) < rate;
}

static struct workqueue_struct *twq;
static LIST_HEAD(all_devs);
static DEFINE_MUTEX(all_lock);

static bool no_epoch(struct tdev *td)
{
	return td->dev->flags & IOVM_DEV_F_EPOCH && !READ_ONCE(td->dev->epoch_held);
}

static void land(struct tdev *td, u32 block, u64 ver, bool late)
{
	if (no_epoch(td))
		BAD("dev %s block %u: version %llu lands without an epoch%s", td->dev->name, block,
		    ver, late ? " (late)" : "");
	if (td->medium[block] > ver)
		BAD("dev %s block %u: version %llu lands on %llu%s", td->dev->name, block, ver,
		    td->medium[block], late ? " (late)" : "");
	td->medium[block] = ver;
	if (late)
		late_landed++;
}

static void land_late(struct tpath *tp)
{
	struct tdev *td = tp->path->dev->fe;
	int i;

	lockdep_assert_held(&td->lock);
	for (i = 0; i < tp->nlate; i++)
		land(td, tp->late[i].block, tp->late[i].ver, true);
	tp->nlate = 0;
}

/* The operator's fence: "DEV PATH" */
static int fence_set(const char *val, const struct kernel_param *kp)
{
	char dev[64], path[64];
	struct tdev *td;
	int i, err = -ENOENT;

	if (sscanf(val, "%63s %63s", dev, path) != 2)
		return -EINVAL;
	mutex_lock(&all_lock);
	list_for_each_entry(td, &all_devs, all) {
		if (strcmp(td->dev->name, dev))
			continue;
		spin_lock_irq(&td->lock);
		for (i = 0; i < IOVM_MAX_PATHS; i++) {
			if (td->paths[i] && !strcmp(td->paths[i]->path->name, path)) {
				land_late(td->paths[i]);
				td->paths[i]->no_late = true;
				err = 0;
			}
		}
		spin_unlock_irq(&td->lock);
	}
	mutex_unlock(&all_lock);
	return err;
}

static const struct kernel_param_ops fence_ops = { .set = fence_set };
module_param_cb(fence, &fence_ops, NULL, 0200);

static enum hrtimer_restart t_timer(struct hrtimer *timer);
static void t_work(struct work_struct *work);

/* ---- the class ---- */

static void t_put(struct tdev *td, struct treq *t)
{
	lockdep_assert_held(&td->lock);
	if (t->req.op == IOVM_OP_READ)
		td->readers[t->block]--;
	else if (t->req.op == IOVM_OP_FLUSH)
		td->flushing = false;
	t->state = FREE;
	td->out--;
	list_add_tail(&t->fe, &td->free);
	td->kick = true;
}

/* A flush is done: is anything left on a live path that was acknowledged before it began? */
static void t_check_flush(struct tdev *td, struct treq *t)
{
	int i, k;

	for (i = 0; i < IOVM_MAX_PATHS; i++) {
		struct tpath *tp = td->paths[i];

		/* what became live after the last issue is a later flush's */
		if (!tp || READ_ONCE(tp->path->state) != IOVM_PATH_LIVE ||
		    tp->path->live_ns > t->req.issue_ns)
			continue;
		for (k = 0; k < tp->ndirty; k++)
			if (tp->dirty[k].class_seq < t->start_seq)
				BAD("dev %s path %s: flush from %llu leaves a write of %llu",
				    td->dev->name, tp->path->name, t->start_seq,
				    tp->dirty[k].class_seq);
	}
}

static void t_check_write(struct tdev *td, struct treq *t)
{
	struct iovm_path *path = t->req.path;
	struct tpath *tp = path->priv;

	if (td->medium[t->block] != t->ver)
		BAD("dev %s block %u: acknowledged %llu, on the medium %llu", td->dev->name,
		    t->block, t->ver, td->medium[t->block]);
	td->acked[t->block] = t->ver;
	td->busy[t->block] = 0;
	td->seq++;
	if (!(t->req.flags & IOVM_REQ_FUA) && !(path->flags & IOVM_PATH_F_CACHE_DIES) &&
	    t->dev_seq > tp->flush_snap && tp->ndirty < NDIRTY) {
		tp->dirty[tp->ndirty].dev_seq = t->dev_seq;
		tp->dirty[tp->ndirty++].class_seq = td->seq;
	}
}

static void t_finish(struct tdev *td, struct treq *t, int error)
{
	lockdep_assert_held(&td->lock);
	completed++;
	if (error)
		completed_err++;
	switch (t->req.op) {
	case IOVM_OP_READ:
		if (!error && t->ver != td->acked[t->block])
			BAD("dev %s block %u: read %llu, acknowledged %llu", td->dev->name,
			    t->block, t->ver, td->acked[t->block]);
		break;
	case IOVM_OP_FLUSH:
		flushes++;
		if (!error)
			t_check_flush(td, t);
		break;
	default:
		if (error)
			td->busy[t->block] = 2;
		else
			t_check_write(td, t);
	}
	t_put(td, t);
}

static void t_complete(struct iovm_req *req, int error)
{
	struct treq *t = container_of(req, struct treq, req);
	struct tdev *td = req->dev->fe;
	unsigned long flags;

	spin_lock_irqsave(&td->lock, flags);
	if (t->state != OUT)
		BAD("complete in state %d", t->state);
	t_finish(td, t, error);
	spin_unlock_irqrestore(&td->lock, flags);
	wake_up(&td->wait);
}

static void t_requeue(struct iovm_req *req)
{
	struct treq *t = container_of(req, struct treq, req);
	struct tdev *td = req->dev->fe;
	unsigned long flags;

	spin_lock_irqsave(&td->lock, flags);
	if (t->state != OUT)
		BAD("requeue in state %d", t->state);
	t->state = WAIT;
	requeued++;
	list_add_tail(&t->fe, &td->back);
	td->kick = true;
	spin_unlock_irqrestore(&td->lock, flags);
	wake_up(&td->wait);
}

static void t_route_changed(struct iovm_dev *dev)
{
	struct tdev *td = dev->fe;

	WRITE_ONCE(td->kick, true);
	wake_up(&td->wait);
}

/* Something the guest wants; false when nothing may be asked now. */
static bool t_fetch(struct tdev *td, struct treq *t)
{
	u32 b = get_random_u32() % NBLK, r = get_random_u32() % 100;
	u8 op, fl = 0;

	lockdep_assert_held(&td->lock);
	if (td->busy[b])
		return false;
	if (r < 40) {
		op = IOVM_OP_READ;
		td->readers[b]++;
	} else if (r < 95) {
		if (td->readers[b])
			return false;
		op = r < 85 ? IOVM_OP_WRITE : r < 90 ? IOVM_OP_DISCARD : IOVM_OP_WRITE_ZEROES;
		if (r & 1)
			fl = IOVM_REQ_FUA;
		td->busy[b] = 1;
		t->ver = ++td->next_ver[b];
	} else {
		if (td->flushing)
			return false;
		op = IOVM_OP_FLUSH;
		td->flushing = true;
		t->start_seq = td->seq + 1;
	}
	t->block = b;
	iovm_req_init(&t->req, td->dev, op, fl, (u64)b * 4096, op == IOVM_OP_FLUSH ? 0 : 4096);
	return true;
}

static int t_worker(void *arg)
{
	struct tdev *td = arg;
	struct treq *t;
	int err;
	LIST_HEAD(again);

	while (!kthread_should_stop()) {
		wait_event_interruptible_timeout(td->wait,
						 READ_ONCE(td->kick) || kthread_should_stop(), HZ);
		WRITE_ONCE(td->kick, false);
		spin_lock_irq(&td->lock);
		/* else fe_off() takes them */
		if (td->fe_on)
			list_splice_init(&td->back, &again);
		spin_unlock_irq(&td->lock);
		while (!list_empty(&again)) {
			t = list_first_entry(&again, struct treq, fe);
			list_del(&t->fe);
			if (t->state != WAIT)
				BAD("again in state %d", t->state);
			err = iovm_req_route(&t->req);
			if (!err && get_random_u32() % 16 == 0) {
				iovm_req_unroute(&t->req);
				err = -EAGAIN;
				WRITE_ONCE(td->kick, true);
			}
			spin_lock_irq(&td->lock);
			if (err == -EAGAIN) {
				list_add_tail(&t->fe, &td->back);
			} else {
				t->state = OUT;
				if (err)
					t_finish(td, t, err);
			}
			spin_unlock_irq(&td->lock);
			if (!err)
				iovm_req_issue(&t->req, ktime_get_ns());
		}
		while (!quiet && iovm_dev_may_fetch(td->dev)) {
			spin_lock_irq(&td->lock);
			t = list_first_entry_or_null(&td->free, struct treq, fe);
			if (!t || !td->fe_on || !t_fetch(td, t)) {
				if (t && td->fe_on)
					td->kick = true;
				spin_unlock_irq(&td->lock);
				break;
			}
			list_del(&t->fe);
			td->out++;
			t->state = OUT;
			spin_unlock_irq(&td->lock);
			err = iovm_req_route(&t->req);
			if (!err) {
				iovm_req_issue(&t->req, ktime_get_ns());
				continue;
			}
			spin_lock_irq(&td->lock);
			if (err == -EAGAIN) {
				t->state = WAIT;
				list_add_tail(&t->fe, &td->back);
			} else {
				t_finish(td, t, err);
			}
			spin_unlock_irq(&td->lock);
		}
		cond_resched();
		if (td->kick)
			usleep_range(50, 100);
	}
	spin_lock_irq(&td->lock);
	list_splice_init(&again, &td->back);
	spin_unlock_irq(&td->lock);
	return 0;
}

/* The guest goes, and nobody issues again what it had. */
static void fe_off(struct tdev *td)
{
	struct treq *t, *n;
	int out;

	spin_lock_irq(&td->lock);
	td->fe_on = false;
	spin_unlock_irq(&td->lock);
	do {
		iovm_dev_cancel(td->dev, true);
		spin_lock_irq(&td->lock);
		list_for_each_entry_safe(t, n, &td->back, fe) {
			list_del(&t->fe);
			iovm_req_drop(&t->req);
			t->state = OUT;
			t_finish(td, t, -ECANCELED);
		}
		out = td->out;
		spin_unlock_irq(&td->lock);
		if (out)
			usleep_range(1000, 2000);
	} while (out);
	iovm_fe_end(td->dev);
}

/* Another one: what is on the medium is what it finds, and nothing of the first lands any more. */
static void fe_on(struct tdev *td)
{
	int i;

	iovm_fe_begin(td->dev);
	spin_lock_irq(&td->lock);
	for (i = 0; i < NBLK; i++) {
		td->busy[i] = 0;
		td->acked[i] = td->medium[i];
	}
	td->fe_on = true;
	td->kick = true;
	spin_unlock_irq(&td->lock);
	wake_up(&td->wait);
}

/* "DEV 1": a guest comes; "DEV 0": it goes */
static int fe_set(const char *val, const struct kernel_param *kp)
{
	struct tdev *td, *found = NULL;
	char dev[64];
	int on;

	if (sscanf(val, "%63s %d", dev, &on) != 2)
		return -EINVAL;
	mutex_lock(&all_lock);
	list_for_each_entry(td, &all_devs, all)
		if (!strcmp(td->dev->name, dev) && td->fe_on != on)
			found = td;
	if (found && on)
		fe_on(found);
	else if (found)
		fe_off(found);
	mutex_unlock(&all_lock);
	return found ? 0 : -ENOENT;
}

static const struct kernel_param_ops fe_ops = { .set = fe_set };
module_param_cb(front_end, &fe_ops, NULL, 0200);

static int t_create(struct iovm_dev *dev, const struct iovm_dev_create *arg, char *msg)
{
	struct tdev *td = kzalloc(sizeof(*td), GFP_KERNEL);
	int i;

	if (!td)
		return -ENOMEM;
	td->dev = dev;
	spin_lock_init(&td->lock);
	INIT_LIST_HEAD(&td->free);
	INIT_LIST_HEAD(&td->back);
	init_waitqueue_head(&td->wait);
	td->reqs = kcalloc(NREQ, sizeof(*td->reqs), GFP_KERNEL);
	if (!td->reqs) {
		kfree(td);
		return -ENOMEM;
	}
	for (i = 0; i < NREQ; i++) {
		struct treq *t = &td->reqs[i];

		INIT_WORK(&t->work, t_work);
		hrtimer_setup(&t->timer, t_timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
		list_add_tail(&t->fe, &td->free);
	}
	td->kick = true;
	td->fe_on = true;
	dev->fe = td;
	iovm_fe_begin(dev);
	mutex_lock(&all_lock);
	list_add(&td->all, &all_devs);
	mutex_unlock(&all_lock);
	td->task = kthread_run(t_worker, td, "muxtest");
	return 0;
}

static int t_destroy_prepare(struct iovm_dev *dev, bool force, char *msg)
{
	struct tdev *td = dev->fe;
	struct treq *t, *n;
	int out;

	if (!force)
		return -EBUSY;
	kthread_stop(td->task);
	do {
		iovm_dev_cancel(dev, true);
		spin_lock_irq(&td->lock);
		list_for_each_entry_safe(t, n, &td->back, fe) {
			list_del(&t->fe);
			iovm_req_drop(&t->req);
			t->state = OUT;
			t_put(td, t);
		}
		out = td->out;
		spin_unlock_irq(&td->lock);
		if (out)
			usleep_range(1000, 2000);
	} while (out);
	if (td->fe_on)
		iovm_fe_end(dev);
	if (atomic_read(&dev->nr_requeued))
		BAD("nr_requeued %d at the end", atomic_read(&dev->nr_requeued));
	if (dev->nr_nospc)
		BAD("nr_nospc %u at the end", dev->nr_nospc);
	return 0;
}

static void t_destroy(struct iovm_dev *dev)
{
	struct tdev *td = dev->fe;
	int i;

	mutex_lock(&all_lock);
	list_del(&td->all);
	mutex_unlock(&all_lock);
	for (i = 0; i < NREQ; i++)
		hrtimer_cancel(&td->reqs[i].timer);
	flush_workqueue(twq);
	kfree(td->reqs);
	kfree(td);
}

static void t_info(struct iovm_dev *dev, struct iovm_dev_info *info)
{
	info->in_use = 1;
}

static const struct iovm_class t_class = {
	.id = IOVM_CLASS_BLK, .paths = IOVM_CLASS_BLK, .name = "test", .owner = THIS_MODULE,
	.create = t_create, .destroy_prepare = t_destroy_prepare, .destroy = t_destroy,
	.info = t_info,
	.complete = t_complete, .requeue = t_requeue, .route_changed = t_route_changed,
};

/* ---- the path types ---- */

static void t_end(struct treq *t)
{
	struct iovm_path *path = t->req.path;
	struct tpath *tp = path->priv;
	struct tdev *td = path->dev->fe;
	enum iovm_result res = t->res;
	u8 op = t->req.op;
	unsigned long flags;
	int i, k;

	spin_lock_irqsave(&td->lock, flags);
	if (tp->broken && tp->nbd && res == IOVM_RES_OK)
		res = IOVM_RES_PATH;
	if (op == IOVM_OP_READ) {
		if (res == IOVM_RES_OK)
			t->ver = td->medium[t->block];
	} else if (op == IOVM_OP_FLUSH) {
		if (res == IOVM_RES_OK) {
			tp->flush_snap = max(tp->flush_snap, t->dev_seq);
			for (i = k = 0; i < tp->ndirty; i++)
				if (tp->dirty[i].dev_seq > t->dev_seq)
					tp->dirty[k++] = tp->dirty[i];
			tp->ndirty = k;
		}
	} else if (res == IOVM_RES_OK) {
		land(td, t->block, t->ver, false);
		t->dev_seq = ++td->seq;
	} else if ((res == IOVM_RES_MEDIA || res == IOVM_RES_NOSPC) &&
		   path->fence == IOVM_FENCE_NONE) {
		/* the path lives, and has answered: now or never */
		if (get_random_u32() & 1)
			land(td, t->block, t->ver, false);
	} else if ((res == IOVM_RES_PATH || res == IOVM_RES_IO) &&
		   path->fence == IOVM_FENCE_NONE) {
		if (get_random_u32() & 1) {
			land(td, t->block, t->ver, false);
		} else if (!tp->no_late && (get_random_u32() & 1)) {
			if (tp->nlate == NLATE)
				land_late(tp);
			tp->late[tp->nlate].block = t->block;
			tp->late[tp->nlate++].ver = t->ver;
		}
	}
	spin_unlock_irqrestore(&td->lock, flags);
	iovm_req_done(&t->req, res, res == IOVM_RES_OK ? 0 : -EIO);
	atomic_dec(&tp->out);
}

static enum hrtimer_restart t_timer(struct hrtimer *timer)
{
	t_end(container_of(timer, struct treq, timer));
	return HRTIMER_NORESTART;
}

static void t_work(struct work_struct *work)
{
	t_end(container_of(work, struct treq, work));
}

static void t_submit(struct iovm_path *path, struct iovm_req *req)
{
	struct treq *t = container_of(req, struct treq, req);
	struct tpath *tp = path->priv;
	struct tdev *td = path->dev->fe;
	bool bad = only_slot < 0 || only_slot == path->slot;

	if (no_epoch(td))
		BAD("dev %s: a request is issued without an epoch", td->dev->name);
	atomic_inc(&tp->out);
	t->res = IOVM_RES_OK;
	spin_lock_irq(&td->lock);
	if (req->op == IOVM_OP_FLUSH)
		t->dev_seq = ++td->seq;
	if (tp->broken && tp->nbd)
		t->res = IOVM_RES_UNSENT;
	else if (bad && hit(unsent_rate))
		t->res = IOVM_RES_UNSENT;
	else if (bad && hit(path_rate))
		t->res = IOVM_RES_PATH;
	else if (bad && hit(io_rate))
		t->res = IOVM_RES_IO;
	else if (bad && hit(retry_rate))
		t->res = IOVM_RES_RETRY;
	else if (bad && req->op != IOVM_OP_FLUSH && hit(media_rate))
		t->res = IOVM_RES_MEDIA;
	else if (bad && iovm_op_modifies(req->op) && hit(nospc_rate))
		t->res = IOVM_RES_NOSPC;
	spin_unlock_irq(&td->lock);
	switch (get_random_u32() % 3) {
	case 0:
		t_end(t);
		break;
	case 1:
		queue_work(twq, &t->work);
		break;
	default:
		hrtimer_start(&t->timer, ns_to_ktime(1000 + get_random_u32() % 2000000),
			      HRTIMER_MODE_REL_HARD);
	}
}

static void t_flush_work(struct work_struct *work)
{
	struct iovm_path *path = container_of(work, struct tpath, flush_work)->path;
	struct tpath *tp = path->priv;
	struct tdev *td = path->dev->fe;

	while (READ_ONCE(hang_flush) == path->slot)
		msleep(20);
	spin_lock_irq(&td->lock);
	tp->ndirty = 0;
	spin_unlock_irq(&td->lock);
	iovm_flush_done(path, 0);
}

static int t_add(struct iovm_path *path, const struct iovm_path_add *arg, char *msg)
{
	struct tpath *tp = kvzalloc(sizeof(*tp), GFP_KERNEL);
	struct tdev *td = path->dev->fe;

	if (!tp)
		return -ENOMEM;
	tp->path = path;
	INIT_WORK(&tp->flush_work, t_flush_work);
	tp->nbd = path->ops->connect;
	path->priv = tp;
	path->capacity = NBLK * 8;
	spin_lock_irq(&td->lock);
	td->paths[path->slot] = tp;
	spin_unlock_irq(&td->lock);
	return tp->nbd ? 0 : IOVM_ADD_LIVE;
}

static int t_connect(struct iovm_path *path, const struct iovm_path_connect *arg, char *msg)
{
	struct tpath *tp = path->priv;
	struct tdev *td = path->dev->fe;

	/* the old connection's requests have ended, its late writes landed */
	while (atomic_read(&tp->out))
		usleep_range(500, 1000);
	spin_lock_irq(&td->lock);
	land_late(tp);
	tp->broken = false;
	tp->no_late = false;
	spin_unlock_irq(&td->lock);
	if (hit(connect_rate))
		iovm_path_fail(path, -EPIPE);
	return hit(connect_rate) ? -EMEDIUMTYPE : 0;
}

static int t_probe(struct iovm_path *path)
{
	struct tpath *tp = path->priv;
	struct tdev *td = path->dev->fe;

	msleep(20);
	while (READ_ONCE(hang_probe) == path->slot)
		msleep(20);
	if (hit(probe_rate))
		return -EIO;
	if (path->fence == IOVM_FENCE_NONE)
		while (atomic_read(&tp->out))
			usleep_range(500, 1000);
	spin_lock_irq(&td->lock);
	land_late(tp);
	tp->no_late = false;
	spin_unlock_irq(&td->lock);
	return 0;
}

static int t_fence(struct iovm_path *by, struct iovm_path *victim)
{
	struct tpath *tp = victim->priv;
	struct tdev *td = victim->dev->fe;

	if (fence_fails & BIT(by->slot))
		return -EIO;
	spin_lock_irq(&td->lock);
	land_late(tp);
	tp->no_late = true;
	spin_unlock_irq(&td->lock);
	return 0;
}

static void t_flush(struct iovm_path *path)
{
	struct tpath *tp = path->priv;

	if (hang_flush == path->slot || get_random_u32() & 1)
		queue_work(twq, &tp->flush_work);
	else
		t_flush_work(&tp->flush_work);
}

static void t_fail(struct iovm_path *path)
{
	struct tpath *tp = path->priv;

	usleep_range(500, 1000);
	WRITE_ONCE(tp->broken, true);
}

static void t_remove(struct iovm_path *path)
{
	struct tpath *tp = path->priv;
	struct tdev *td = path->dev->fe;

	while (atomic_read(&tp->out))
		usleep_range(500, 1000);
	spin_lock_irq(&td->lock);
	/* taken out by force: what was failed to the guest may still land, nobody looks there */
	land_late(tp);
	td->paths[path->slot] = NULL;
	spin_unlock_irq(&td->lock);
	kvfree(tp);
}

static const struct iovm_path_ops t_bdev = {
	.name = "tbdev", .type = 30, .class = IOVM_CLASS_BLK, .owner = THIS_MODULE,
	.add = t_add, .probe = t_probe, .fence = t_fence, .flush = t_flush, .submit = t_submit,
	.fail = t_fail, .remove = t_remove,
};

static const struct iovm_path_ops t_nbd = {
	.name = "tnbd", .type = 31, .class = IOVM_CLASS_BLK, .owner = THIS_MODULE,
	.add = t_add, .connect = t_connect, .flush = t_flush, .submit = t_submit, .fail = t_fail,
	.remove = t_remove,
};

static int __init t_init(void)
{
	twq = alloc_workqueue("muxtest", WQ_UNBOUND, 0);
	if (!twq)
		return -ENOMEM;
	WARN_ON(iovm_class_register(&t_class));
	WARN_ON(iovm_path_type_register(&t_bdev));
	WARN_ON(iovm_path_type_register(&t_nbd));
	WARN_ON(iovm_path_type_register(&t_nbd) != -EEXIST);
	return 0;
}

static void __exit t_exit(void)
{
	iovm_path_type_unregister(&t_nbd);
	iovm_path_type_unregister(&t_bdev);
	iovm_class_unregister(&t_class);
	destroy_workqueue(twq);
}
module_init(t_init);
module_exit(t_exit);
MODULE_DESCRIPTION("A guest and paths made up for testing iovm_mux");
MODULE_LICENSE("GPL");
