// SPDX-License-Identifier: GPL-2.0-or-later
/* t_vnet: the dirty log: what is in it when the queues have stopped, page by page, and that all is there that was written. */
#include "cases.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define NUM	128

static struct vlog lg;
static u8 frame[65535], used_ring[4 + 8 * NUM];
static bool must[VNET_DATA / 4096];	/* by page of the data region */
static bool ring_logged;		/* where it is */

/* The device wrote there. */
static void wrote(u64 gpa, u32 len)
{
	u64 at;

	for (at = gpa & ~4095ull; at < gpa + len; at += 4096)
		if (at >= VNET_GPA)
			must[(at - VNET_GPA) / 4096] = true;
}

static void remember(void)
{
	memset(must, 0, sizeof(must));
	memcpy(used_ring, V.rx->ring.used, sizeof(used_ring));
}

/* All that was written is in the log, or nothing is while it is off; and which pages are is written down. */
static void compare(bool on)
{
	u64 used = V.rx->used_gpa, at, n;
	char text[150];
	unsigned int i, dirty, missing = 0;

	for (i = 0; i < 2; i++) {
		const struct gmem_region *r = &V.mem.r[i];

		n = dirty = 0;
		text[0] = 0;
		for (at = 0; at < r->size; at += 4096) {
			bool is = vlog_test(&lg, r->gpa + at);

			dirty += is;
			if (is && n < sizeof(text) - 10)
				n += sprintf(text + n, " %llx", (unsigned long long)(at / 4096));
			if (on && i && must[at / 4096] && !is && missing++ < 3)
				T_CHECK(false, "page %#llx was written and is not in the log", (unsigned long long)(r->gpa + at));
		}
		if (on)
			rec(i ? "data" : "rings", "%u pages%s", dirty, text);
		else
			T_CHECK(!dirty, "%u pages are in the log while it is off", dirty);
	}
	T_CHECK(memcmp(used_ring, V.rx->ring.used, sizeof(used_ring)), "the used ring was not written");
	for (at = used & ~4095ull; on && ring_logged && at < used + 4; at += 4096)
		T_CHECK(vlog_test(&lg, at), "the used ring's index is not in the log");
	T_CHECK(!on || !ring_logged || vlog_test(&lg, V.tx->used_gpa), "that of the other queue is not in the log");
}

/* What is known until now is written out, which may happen late, and forgotten. */
static void log_clear(void)
{
	unsigned int base;
	int r;

	/* behind the first turn of both queues, in which they write what they want of the driver */
	T_CHECK(one_frame(&V, &L), "a frame to the other side is lost");
	vnet_settle(&V);
	r = V.d.tp->get_base(&V.d, VNET_RX, &base);
	T_REQUIRE(!r, "GET_VRING_BASE: %s", strerror(-r));
	vlog_clear(&lg);
}

static void traffic(unsigned int round)
{
	static const u32 sizes[] = { 60, 1514, 9000, 30000 };
	unsigned int i;
	char what[48];

	for (i = 0; i < 2; i++) {
		u32 len = sizes[(round + i) % ARRAY_SIZE(sizes)];

		snprintf(what, sizeof(what), "round %u, %u bytes", round, len);
		frame_make(frame, len, i, false);
		rx_frame(what, NULL, frame, len, 0);
	}
	T_CHECK(one_frame(&V, &L), "a frame to the other side is lost");
}

void s_log(const char *node)
{
	static const u64 features[] = { V1 | MRG, V1 | EVENT, V1 | MRG | EVENT | INDIR };
	unsigned int k, round;
	int r;

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, 12);
		vnet_open(&V, node, features[k], NUM);
		T_REQUIRE(!vlog_alloc(&lg, &V.mem), "no memory");
		vnet_start(&V, L.fd);
		rx_wrote = wrote;
		rx_fill(features[k] & MRG ? 40 : 20, features[k] & MRG ? 2500 : 40000, (u32[]){ 12, 1000 }, 2, 0);
		for (round = 0; round < 5; round++) {
			bool on = round % 4 != 3;

			rec_at("features %#llx, round %u", (unsigned long long)features[k], round);
			vlog_clear(&lg);
			if (on && (!round || round == 4))
				T_REQUIRE(!(r = vdev_log_on(&V.d, &lg)), "log on: %s", strerror(-r));
			if (!on)
				T_REQUIRE(!(r = vdev_log_off(&V.d)), "log off: %s", strerror(-r));
			log_clear();
			remember();
			ring_logged = true;
			traffic(round);
			rec_at("features %#llx, round %u", (unsigned long long)features[k], round);
			vnet_stop(&V);
			rec("base", "%u", V.rx->base);
			compare(on);
			vnet_start(&V, L.fd);
			if (on && round != 2)
				T_REQUIRE(!(r = vdev_log_on(&V.d, &lg)), "log on: %s", strerror(-r));
			rec_at(NULL);
		}
		/* only LOG_ALL, no log of the used ring; and the used ring's elsewhere */
		for (round = 0; round < 2; round++) {
			struct vhost_vring_addr a = {
				.index = VNET_RX,
				.flags = round,
				.desc_user_addr = (uintptr_t)V.rx->ring.desc,
				.avail_user_addr = (uintptr_t)V.rx->ring.avail,
				.used_user_addr = (uintptr_t)V.rx->ring.used,
				.log_guest_addr = VNET_GPA + VNET_DATA - 8192,
			};

			rec_at("features %#llx, %s", (unsigned long long)features[k], round ? "log elsewhere" : "data only");
			T_REQUIRE(!(r = vdev_log_on(&V.d, &lg)) && !V.d.tp->set_addr(&V.d, &a), "log: %s", strerror(errno));
			log_clear();
			remember();
			ring_logged = false;
			frame_make(frame, 1514, 5, false);
			rx_frame("once more", NULL, frame, 1514, 0);
			rec_at("features %#llx, %s", (unsigned long long)features[k], round ? "log elsewhere" : "data only");
			vnet_stop(&V);
			compare(true);
			vnet_start(&V, L.fd);
			rec_at(NULL);
		}
		vnet_close(&V);
		vlink_close(&L);
		vlog_free(&lg);
		rx_wrote = NULL;
	}
}
