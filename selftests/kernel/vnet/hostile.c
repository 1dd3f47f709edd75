// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * t_vnet: rings that a driver must not make. For each: is err signalled, is the head given back, does the queue go on when
 * the ring is mended; and nothing is written but the used ring and what a descriptor names as writable.
 */
#include "chains.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define WATCHED	(512 * KiB)	/* of each region */
#define QUIET	500		/* ms in which nothing happens: then nothing will. A worker may be late to begin */

static u8 snap[2][WATCHED];
static u8 frame[200];

static void remember(void)
{
	unsigned int i;

	for (i = 0; i < 2; i++)
		memcpy(snap[i], V.mem.r[i].hva, WATCHED);
}

/* Nothing may have changed but used rings and, for RX, the room at A. */
static void look(bool rx)
{
	unsigned int i, q;
	u64 k;

	for (i = 0; i < 2; i++) {
		u8 *p = (u8 *)V.mem.r[i].hva;

		if (!i)
			for (q = 0; q < 2; q++)
				memcpy(snap[0] + V.d.vqs[q].used_gpa, p + V.d.vqs[q].used_gpa, 6 + 8 * NUM);
		else if (rx)
			memcpy(snap[1] + (A - VNET_GPA), p + (A - VNET_GPA), 112);
		if (!memcmp(p, snap[i], WATCHED))
			continue;
		for (k = 0; p[k] == snap[i][k]; k++)
			;
		T_CHECK(false, "guest memory at %#llx was written", (unsigned long long)(V.mem.r[i].gpa + k));
	}
}

/* Until the queue says something: a used head, or err. */
static bool outcome(unsigned int q, const char *what)
{
	struct vq *vq = &V.d.vqs[q];
	struct pollfd p[2] = { { .fd = vq->call, .events = POLLIN }, { .fd = vq->err, .events = POLLIN } };
	u64 end = now_ns() + QUIET * ktap_slowness() * 1000000ull;
	struct vring_used_elem e;
	bool used = false;

	while (!vq_has_used(vq) && now_ns() < end && !(p[1].revents & POLLIN))
		poll(p, 2, 5);
	vnet_settle(&V);
	if (vq_has_used(vq)) {
		u16 n = vq->ring.used->idx - vq->last_used;

		used = true;
		e = vq->ring.used->ring[vq->last_used % NUM];
		rec(what, "%u used, head %u length %u", n, e.id, e.len);
		vq->last_used = vq->ring.used->idx;
	} else {
		rec(what, "not used");
	}
	rec(what, "err %d, called %d", vnet_err(&V, q), vnet_calls(&V, q) > 0);
	return used;
}

/* What has come at the other side of the tap, if anything. */
static void seen(void)
{
	static struct vframe got;
	char key[32];
	u32 tag;

	while (vlink_recv(&L, &got, 0)) {
		memcpy(&tag, got.data + 14, sizeof(tag));
		snprintf(key, sizeof(key), "sent, %u", tag);
		rec(key, "%u bytes, %016llx", got.len, (unsigned long long)digest(got.data, got.len));
	}
}

static void one(const struct bad *b, unsigned int q)
{
	struct vq *vq = &V.d.vqs[q];
	u16 w = q == VNET_RX ? WR : 0;
	u8 *a = gmem_ptr(&V.mem, A);
	bool used;
	int head;

	rec_at("%s, %s", q == VNET_RX ? "RX" : "TX", b->name);
	frame_make(frame, 100, 1, q == VNET_TX);
	memset(a, 0, 12);
	memcpy(a + 12, frame, 100);
	if (q == VNET_RX)
		memset(a, VNET_POISON, 112);
	head = b->make(q, w);
	vq->ring.avail->ring[vq->avail_idx++ % NUM] = head;
	if (b->mend_idx)
		vq->ring.avail->ring[vq->last_used % NUM] = head;
	vq_publish(vq);
	remember();
	vq_kick(vq);
	if (q == VNET_RX)
		T_REQUIRE(vlink_send(&L, NULL, frame, 100) > 0, "send");
	used = outcome(q, "bad");
	if (used && q == VNET_RX)
		rec("bad", "%s", memcmp(a + 12, frame, 100) ? "not as sent" : "as sent");
	look(q == VNET_RX);
	/* mended, or another one behind it; a worker that tries again may find it as soon as the chain is there */
	if (q == VNET_TX) {
		frame_make(frame, 100, 2, true);
		memset(a, 0, 12);
		memcpy(a + 12, frame, 100);
	} else {
		memset(a, VNET_POISON, 112);
	}
	chain_set(q, HEAD, A, 112, w, 0);
	if (!used)
		vq->avail_idx = vq->last_used;
	vq->ring.avail->ring[vq->avail_idx++ % NUM] = HEAD;
	if (b->mend_idx && used)
		vq->avail_idx = vq->last_used + 1;
	vq_publish(vq);
	remember();
	vq_kick(vq);
	if (used && q == VNET_RX)
		T_REQUIRE(vlink_send(&L, NULL, frame, 100) > 0, "send");
	used = outcome(q, "then");
	if (used && q == VNET_RX)
		rec("then", "%s", memcmp(a + 12, frame, 100) ? "not as sent" : "as sent");
	look(q == VNET_RX);
	T_REQUIRE(!vq_stop(vq), "stop");
	rec("base", "%u", vq->base);
	if (q == VNET_TX)
		seen();
	rec_at(NULL);
}

static void hostile(const char *node, unsigned int q)
{
	u8 byte[2048];
	unsigned int i;
	void *p;

	vlink_tap(&L, "tap0", 0, 12);
	vnet_open(&V, node, V1 | INDIR, NUM);
	/* a part of guest memory that the process does not have */
	p = gmem_ptr(&V.mem, END - 65536);
	T_REQUIRE(!munmap(p, 65536), "munmap: %s", strerror(errno));
	chain_unmapped = END - 65536 + 4096;
	vnet_start(&V, L.fd);
	for (i = 0; i < nr_bads; i++) {
		if (q == VNET_RX && bads[i].only_tx)
			continue;
		one(&bads[i], q);
		/* frames that the queue did not take */
		while (read(L.fd, byte, sizeof(byte)) > 0)
			;
		vq_reset(&V.d.vqs[q]);
		memset(gmem_ptr(&V.mem, VNET_GPA), VNET_POISON, WATCHED);
		T_REQUIRE(!vq_start(&V.d.vqs[q]), "start");
	}
	/* so that it can be filled with poison again */
	T_REQUIRE(mmap(p, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p, "mmap");
}

void s_hostile_tx(const char *node)
{
	hostile(node, VNET_TX);
}

void s_hostile_rx(const char *node)
{
	hostile(node, VNET_RX);
}
