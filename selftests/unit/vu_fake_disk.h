/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What serves the queues of the fake node (vu_fake.h): a virtio-blk device of a thread per queue, one request at a
 * time, split rings, no EVENT_IDX. Every sector reads as its own number, over and over, until it was written.
 * Sector 0 is the boot sector that the test gave; sector FAKE_STOP_SECTOR reads as 1 once the test says so.
 */
#ifndef VU_FAKE_DISK_H
#define VU_FAKE_DISK_H

#include <poll.h>
#include <sys/uio.h>

#define FAKE_STOP_SECTOR	1
#define FAKE_MAX_SEGS		128

/* In shared memory: the node lives in a grandchild of the test. */
struct fake_disk {
	uint8_t boot[512];
	volatile uint32_t stop;
	volatile uint64_t reads;
	volatile uint64_t writes;
	volatile uint64_t errors;
	volatile uint64_t logged;	/* dirty bits set */
	volatile uint64_t resize_to;	/* sectors; the node does it with the next request */
	volatile uint32_t written[64];	/* what sectors 1024.. were written with: their first words */
};

static struct fake_disk *fake_disk;

/* Guest physical to ours, within one region. */
static void *fake_gpa(uint64_t gpa, uint64_t len)
{
	void *p = NULL;

	pthread_mutex_lock(&fake.lock);
	for (uint32_t i = 0; fake.table && i < fake.table->nregions; i++) {
		struct vhost_memory_region *r = &fake.table->regions[i];

		if (gpa >= r->guest_phys_addr && gpa + len <= r->guest_phys_addr + r->memory_size)
			p = (void *)(uintptr_t)(r->userspace_addr + gpa - r->guest_phys_addr);
	}
	pthread_mutex_unlock(&fake.lock);
	return p;
}

static void fake_dirty(uint64_t gpa, uint64_t len)
{
	pthread_mutex_lock(&fake.lock);
	if (len && fake.features & FAKE_F_LOG_ALL && fake.log_base) {
		for (uint64_t page = gpa / 4096; page <= (gpa + len - 1) / 4096; page++) {
			__atomic_or_fetch((uint8_t *)(uintptr_t)fake.log_base + page / 8, 1 << page % 8, __ATOMIC_SEQ_CST);
			fake_disk->logged++;
		}
	}
	pthread_mutex_unlock(&fake.lock);
}

static void fake_fill(uint64_t sector, void *to)
{
	uint32_t v = sector, *p = to;

	if (sector == 0) {
		memcpy(to, fake_disk->boot, 512);
		return;
	}
	if (sector == FAKE_STOP_SECTOR)
		v = fake_disk->stop;
	for (int i = 0; i < 128; i++)
		memcpy(p + i, &v, sizeof(v));
}

/* One data segment of a request; segments are whole sectors here. */
static bool fake_segment(uint32_t type, uint64_t *sector, struct vring_desc *d)
{
	uint8_t *p = fake_gpa(d->addr, d->len);

	if (!p || d->len % 512)
		return false;
	for (uint32_t at = 0; at < d->len; at += 512, ++*sector) {
		if (type == VIRTIO_BLK_T_IN) {
			fake_fill(*sector, p + at);
			fake_disk->reads++;
		} else {
			uint32_t v;

			memcpy(&v, p + at, sizeof(v));
			if (*sector >= 1024 && *sector < 1024 + 64)
				fake_disk->written[*sector - 1024] = v;
			fake_disk->writes++;
		}
	}
	if (type == VIRTIO_BLK_T_IN)
		fake_dirty(d->addr, d->len);
	return true;
}

/* Returns the bytes written to the guest. */
static uint32_t fake_request(struct vring_desc *table, uint32_t num, uint32_t head)
{
	struct vring_desc d[FAKE_MAX_SEGS];
	struct virtio_blk_outhdr *h;
	uint32_t n = 0, i = head, len = 1;
	uint64_t sector;
	uint8_t *status, result = VIRTIO_BLK_S_OK;

	if (table[head].flags & VRING_DESC_F_INDIRECT) {
		num = table[head].len / sizeof(*table);
		table = fake_gpa(table[head].addr, table[head].len);
		i = 0;
	}
	for (; table && i < num && n < FAKE_MAX_SEGS; i = table[i].next) {
		d[n++] = table[i];
		if (!(table[i].flags & VRING_DESC_F_NEXT))
			break;
	}
	status = n >= 2 ? fake_gpa(d[n - 1].addr, 1) : NULL;
	h = n >= 2 ? fake_gpa(d[0].addr, sizeof(*h)) : NULL;
	if (!status || !h) {
		fake_disk->errors++;
		return 0;
	}
	sector = h->sector;
	for (i = 1; i < n - 1; i++) {
		if (h->type != VIRTIO_BLK_T_IN && h->type != VIRTIO_BLK_T_OUT)
			result = VIRTIO_BLK_S_UNSUPP;
		else if (!fake_segment(h->type, &sector, &d[i]))
			result = VIRTIO_BLK_S_IOERR;
		if (h->type == VIRTIO_BLK_T_IN)
			len += d[i].len;
	}
	if (result != VIRTIO_BLK_S_OK)
		fake_disk->errors++;
	*status = result;
	fake_dirty(d[n - 1].addr, 1);
	return len;
}

static void fake_serve(struct fake_queue *q)
{
	struct vring_desc *desc = (void *)(uintptr_t)q->addr.desc_user_addr;
	struct vring_avail *avail = (void *)(uintptr_t)q->addr.avail_user_addr;
	struct vring_used *used = (void *)(uintptr_t)q->addr.used_user_addr;
	uint64_t one = 1;
	uint16_t idx;

	while ((uint16_t)q->base != __atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE)) {
		uint32_t head = avail->ring[(uint16_t)q->base % q->num] % q->num;
		uint32_t len = fake_request(desc, q->num, head);

		idx = used->idx;
		used->ring[idx % q->num] = (struct vring_used_elem){ head, len };
		__atomic_store_n(&used->idx, idx + 1, __ATOMIC_RELEASE);
		if (q->addr.flags)
			fake_dirty(q->addr.log_guest_addr, 6 + 8 * q->num);
		q->base = (uint16_t)(q->base + 1);
		if (!(avail->flags & VRING_AVAIL_F_NO_INTERRUPT) && q->call >= 0 && write(q->call, &one, 8) < 0)
			fake_disk->errors++;
		if (fake_disk->resize_to) {
			fake_resize(fake_disk->resize_to);
			fake_disk->resize_to = 0;
		}
	}
}

static void *fake_worker(void *arg)
{
	struct fake_queue *q = arg;
	struct pollfd p[2] = { { .fd = q->kick, .events = POLLIN }, { .fd = q->stop, .events = POLLIN } };
	uint64_t n;

	for (;;) {
		fake_serve(q);
		if (poll(p, 2, -1) < 0 || p[1].revents)
			return NULL;
		if (read(q->kick, &n, sizeof(n)) < 0 && errno != EAGAIN)
			return NULL;
	}
}

static int fake_disk_start(uint32_t i)
{
	struct fake_queue *q = &fake.q[i];

	q->stop = eventfd(0, EFD_CLOEXEC);
	q->has_thread = !pthread_create(&q->thread, NULL, fake_worker, q);
	return q->has_thread ? 0 : -1;
}

static void fake_disk_stop(uint32_t i)
{
	struct fake_queue *q = &fake.q[i];
	uint64_t one = 1;

	if (!q->has_thread)
		return;
	if (write(q->stop, &one, 8) < 0)
		abort();
	pthread_join(q->thread, NULL);
	close(q->stop);
	q->has_thread = false;
}

#endif /* VU_FAKE_DISK_H */
