// SPDX-License-Identifier: GPL-2.0
/*
 * The event stream: one ring for all devices, and a position in it per open file.
 *
 * Events are made in any context, under device locks; readers copy one record at a time out of the
 * ring under the ring's lock, so that a reader never sees half a record and never holds up who
 * makes events. Sequence numbers have no gap; who falls behind is told how many records are gone.
 */
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

#define IOVM_EVENTS	4096	/* a power of two */

/*
 * @next: seq of the next event; READ_ONCE without the lock
 * @ring: event seq is at index seq % IOVM_EVENTS
 */
static struct {
	spinlock_t lock;		/* innermost of all of the mux's locks; irqsave */
	u64 next;
	struct iovm_event *ring;
	wait_queue_head_t wait;
} events;

/**
 * struct iovm_reader - the position of one open file
 * @mutex: serialises
 * @next: seq of the next event to read; @mutex, read without it by poll()
 */
struct iovm_reader {
	struct mutex mutex;	/* read() and IOVM_EVENTS_FROM */
	u64 next;
};

/* Gives @ev a number and the time; the rest is filled in but for what @dev and @path say. */
static void iovm_event_add(struct iovm_dev *dev, struct iovm_path *path, struct iovm_event *ev)
{
	unsigned long flags;

	ev->size = sizeof(*ev);
	ev->dev_id = dev ? dev->id : IOVM_NO_ID;
	ev->path_id = path ? path->id : IOVM_NO_ID;
	if (dev)
		memcpy(ev->dev, dev->name, sizeof(ev->dev));
	if (path)
		memcpy(ev->path, path->name, sizeof(ev->path));

	spin_lock_irqsave(&events.lock, flags);
	ev->seq = events.next;
	ev->mono_ns = ktime_get_ns();
	ev->real_ns = ktime_get_real_ns();
	events.ring[events.next % IOVM_EVENTS] = *ev;
	WRITE_ONCE(events.next, events.next + 1);
	spin_unlock_irqrestore(&events.lock, flags);

	wake_up_interruptible(&events.wait);
}

void iovm_event_emit(struct iovm_dev *dev, struct iovm_path *path, u32 type, u32 old_state,
		     u32 new_state,
		     int error, u64 value)
{
	struct iovm_event ev = {
		.type = type,
		.old_state = old_state,
		.new_state = new_state,
		.error = error,
		.value = value,
	};

	iovm_event_add(dev, path, &ev);
}
EXPORT_SYMBOL_GPL(iovm_event_emit);

/**
 * iovm_event_emit_slow - an event that tells of latencies
 * @path: whose
 * @type: IOVM_EV_SLOW*
 * @op: IOVM_OP_*
 * @value: ns
 * @value2: ns
 *
 * Any context, under any lock but the event ring's own.
 */
void iovm_event_emit_slow(struct iovm_path *path, u32 type, u32 op, u64 value, u64 value2)
{
	struct iovm_event ev = { .type = type, .op = op, .value = value, .value2 = value2 };

	iovm_event_add(path->dev, path, &ev);
}

/* Seq of the oldest event that is kept when the next one will be @next. */
static u64 iovm_oldest(u64 next)
{
	return next > IOVM_EVENTS ? next - IOVM_EVENTS : 1;
}

/* One record for this reader, with reader->mutex held; false when there is none. */
static bool iovm_reader_next(struct iovm_reader *reader, struct iovm_event *ev)
{
	u64 oldest;

	spin_lock_irq(&events.lock);
	oldest = iovm_oldest(events.next);
	if (reader->next < oldest) {
		*ev = (struct iovm_event) {
			.size = sizeof(*ev),
			.type = IOVM_EV_LOST,
			.seq = oldest,
			.mono_ns = ktime_get_ns(),
			.real_ns = ktime_get_real_ns(),
			.dev_id = IOVM_NO_ID,
			.path_id = IOVM_NO_ID,
			.value = oldest - reader->next,
		};
	} else if (reader->next < events.next) {
		*ev = events.ring[reader->next % IOVM_EVENTS];
	} else {
		spin_unlock_irq(&events.lock);
		return false;
	}
	spin_unlock_irq(&events.lock);
	return true;
}

static bool iovm_reader_ready(struct iovm_reader *reader)
{
	return READ_ONCE(reader->next) < READ_ONCE(events.next);
}

ssize_t iovm_reader_read(struct iovm_reader *reader, struct file *file, char __user *buf,
			 size_t len)
{
	struct iovm_event ev;
	size_t done = 0;
	int err;

	if (len < sizeof(ev))
		return -EINVAL;
again:
	if (mutex_lock_interruptible(&reader->mutex))
		return -ERESTARTSYS;
	while (len - done >= sizeof(ev) && iovm_reader_next(reader, &ev)) {
		if (copy_to_user(buf + done, &ev, sizeof(ev))) {
			mutex_unlock(&reader->mutex);
			return done ? done : -EFAULT;
		}
		/* what is copied is consumed: a LOST record leads to the oldest that is kept */
		WRITE_ONCE(reader->next, ev.type == IOVM_EV_LOST ? ev.seq : ev.seq + 1);
		done += sizeof(ev);
		if (signal_pending(current))
			break;
	}
	mutex_unlock(&reader->mutex);
	if (done)
		return done;

	if (file->f_flags & O_NONBLOCK)
		return -EAGAIN;
	err = wait_event_interruptible(events.wait, iovm_reader_ready(reader));
	if (err)
		return err;
	goto again;
}

__poll_t iovm_reader_poll(struct iovm_reader *reader, struct file *file,
			  struct poll_table_struct *wait)
{
	poll_wait(file, &events.wait, wait);
	return iovm_reader_ready(reader) ? EPOLLIN | EPOLLRDNORM : 0;
}

int iovm_reader_from(struct iovm_reader *reader, struct iovm_events_from *arg)
{
	u64 next;

	if (arg->pad)
		return -EINVAL;
	if (mutex_lock_interruptible(&reader->mutex))
		return -ERESTARTSYS;
	spin_lock_irq(&events.lock);
	next = events.next;
	spin_unlock_irq(&events.lock);
	arg->oldest = iovm_oldest(next);
	arg->newest = next - 1;
	WRITE_ONCE(reader->next, arg->seq ? min(arg->seq, next) : arg->oldest);
	mutex_unlock(&reader->mutex);
	return 0;
}

struct iovm_reader *iovm_reader_new(void)
{
	struct iovm_reader *reader = kzalloc(sizeof(*reader), GFP_KERNEL_ACCOUNT);

	if (!reader)
		return NULL;
	mutex_init(&reader->mutex);
	spin_lock_irq(&events.lock);
	reader->next = events.next;
	spin_unlock_irq(&events.lock);
	return reader;
}

void iovm_reader_free(struct iovm_reader *reader)
{
	kfree(reader);
}

int iovm_events_init(void)
{
	spin_lock_init(&events.lock);
	init_waitqueue_head(&events.wait);
	events.next = 1;
	events.ring = kvcalloc(IOVM_EVENTS, sizeof(*events.ring), GFP_KERNEL);
	return events.ring ? 0 : -ENOMEM;
}

void iovm_events_exit(void)
{
	kvfree(events.ring);
}
