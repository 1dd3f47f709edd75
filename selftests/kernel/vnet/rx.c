// SPDX-License-Identifier: GPL-2.0-or-later
/* t_vnet: frames to the guest: which buffers are used, what is in them, and that nothing is behind it. */
#include "cases.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MARK	0xfeee0000u

void (*rx_wrote)(u64 gpa, u32 len);

static u32 marks;
static u8 frame[VLINK_FRAME_MAX + 1], packet[VLINK_FRAME_MAX + 64];

static void poison(const struct vbuf *b)
{
	u32 i;

	for (i = 0; i < b->nsegs; i++)
		memset(gmem_ptr(&V.mem, b->seg[i].gpa), VNET_POISON, b->seg[i].len);
}

/* The first byte behind what was written, -1: none; in the buffer, or in the gaps between segments. */
static int beyond(const struct vbuf *b, u32 len)
{
	u32 i, k, at = 0;

	for (i = 0; i < b->nsegs; i++) {
		const u8 *p = gmem_ptr(&V.mem, b->seg[i].gpa);

		for (k = at < len ? len - at : 0; k < b->seg[i].len; k++)
			if (p[k] != VNET_POISON)
				return at + k;
		for (k = 0; k < 3; k++)
			if (p[b->seg[i].len + k] != VNET_POISON)
				return at + b->seg[i].len;
		at += b->seg[i].len;
	}
	return -1;
}

static void wrote(const struct vbuf *b, u32 len)
{
	u32 i, n;

	for (i = 0; rx_wrote && i < b->nsegs && len; i++) {
		n = b->seg[i].len < len ? b->seg[i].len : len;
		rx_wrote(b->seg[i].gpa, n);
		len -= n;
	}
}

void rx_post(struct vbuf *b, unsigned int flags)
{
	poison(b);
	T_REQUIRE(vnet_add(V.rx, b, flags) >= 0, "no room");
	vq_publish(V.rx);
}

/* @n buffers of @len bytes, one like the other. The queue runs. */
void rx_fill(unsigned int n, u32 len, const u32 *cut, unsigned int ncut, unsigned int flags)
{
	while (n--)
		rx_post(vbuf_new(&V, len, cut, ncut, true), flags);
	if (vq_wants_kick(V.rx))
		vq_kick(V.rx);
}

/*
 * One packet from the queue, written down unless it is @mark. Its buffers are posted again. @frame: what was sent.
 * False: that was the marker, or nothing came.
 */
static bool rx_packet(const u8 *mark, u32 mark_len, const u8 *sent, u32 sent_len, unsigned int flags)
{
	struct { u16 head; u32 len, cap; int beyond; } el[300];
	bool mrg = V.d.features & MRG;
	struct vbuf *bufs[300], *b;
	u32 total = 0, len, n = 0, want = 1, i, k;
	u16 nb;

	do {
		b = vnet_used(&V, V.rx, &len, vnet_wait_ms());
		if (!b) {
			rec("packet", "%u buffers of %u", n, want);
			return false;
		}
		el[n].head = b->head;
		el[n].len = len;
		el[n].cap = b->len;
		if (len > b->len) {
			rec("used", "length %u of %u", len, b->len);
			len = b->len;
		}
		el[n].beyond = beyond(b, len);
		if (total + len <= sizeof(packet))
			vbuf_get(&V, b, 0, packet + total, len);
		total += len;
		bufs[n++] = b;
		if (mrg && total >= 12) {
			memcpy(&nb, packet + 10, 2);
			want = nb;
		} else if (mrg) {
			want = n + 1;
		}
	} while (n < want && n < ARRAY_SIZE(bufs));
	/* all of it is copied: the guest may have them again */
	if (total < V.hlen || total - V.hlen != mark_len || memcmp(packet + V.hlen, mark, mark_len)) {
		u64 h = 0;

		for (i = 0; i < n; i++) {
			h = digest(&h, 8) ^ el[i].head ^ (u64)el[i].len << 16;
			if (n <= 4)
				rec("used", "head %u length %u of %u", el[i].head, el[i].len, el[i].cap);
		}
		rec("packet", "%u buffers, %016llx, header %s, %u bytes", n, (unsigned long long)h, hex(packet, 10),
		    total - V.hlen);
		if (V.hlen == 12)
			rec("num_buffers", "%02x%02x", packet[11], packet[10]);
		if (sent && total - V.hlen == sent_len && !memcmp(packet + V.hlen, sent, sent_len))
			rec("content", "as sent");
		else
			rec("content", "%016llx %s", (unsigned long long)digest(packet + V.hlen, total - V.hlen),
			    hex(packet + V.hlen, 48));
	} else {
		sent = NULL;
		mark = NULL;
	}
	for (i = 0, k = 0; i < n; i++) {
		if (el[i].beyond >= 0 && !k++)
			rec("behind", "byte %d of head %u was written, length %u", el[i].beyond, el[i].head, el[i].len);
		T_CHECK(el[i].beyond < 0, "written behind the used length");
		wrote(bufs[i], el[i].len);
		rx_post(bufs[i], flags);
	}
	if (vq_wants_kick(V.rx))
		vq_kick(V.rx);
	return mark;
}

/* A frame from the other side, then a marker; all that comes up to it. */
void rx_frame(const char *what, const struct virtio_net_hdr *hdr, const u8 *f, u32 len, unsigned int flags)
{
	u32 mark = MARK + marks++, first = 1;
	u8 m[60];

	rec_at("%s", what);
	frame_make(m, sizeof(m), mark, false);
	vnet_calls(&V, VNET_RX);
	if (vlink_send(&L, hdr, f, len) < 0)
		rec("send", "%s", strerrorname_np(errno));
	if (vlink_send(&L, NULL, m, sizeof(m)) < 0)
		T_CHECK(false, "marker: %s", strerror(errno));
	while (rx_packet(m, sizeof(m), f, len, flags))
		first = 0;
	rec("dropped", "%u", first);
	rec("called", "%d", vnet_calls(&V, VNET_RX) > 0);
	rec("err", "%d", vnet_err(&V, VNET_RX));
	rec_at(NULL);
}

static void rx_open(const char *node, u64 features, unsigned int num)
{
	vnet_open(&V, node, features, num);
	vnet_start(&V, L.fd);
}

/* The queue from scratch, with buffers of another kind */
static void rx_again(void)
{
	T_REQUIRE(!vq_stop(V.rx), "stop");
	vq_reset(V.rx);
	vnet_rewind(&V);
	T_REQUIRE(!vq_start(V.rx), "start");
}

void s_rx_sizes(const char *node)
{
	static const u64 features[] = { V1, 0, V1 | MRG, MRG | EVENT | INDIR };
	static const u32 sizes[] = { 60, 14, 61, 64, 1514, 128, 15, 1518, 1000, 4096, 9014, 2048, 65535, 32768, 16384, 65000 };
	unsigned int i, k;
	char what[48];

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, features[k] & (V1 | MRG) ? 12 : 10);
		rx_open(node, features[k], 64);
		rx_fill(24, 65600, NULL, 0, features[k] & INDIR ? VQ_F_INDIRECT : 0);
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			if (k && i % 2)
				continue;
			snprintf(what, sizeof(what), "features %#llx, %u bytes", (unsigned long long)features[k], sizes[i]);
			frame_make(frame, sizes[i], i + 1, false);
			rx_frame(what, NULL, frame, sizes[i], features[k] & INDIR ? VQ_F_INDIRECT : 0);
		}
		vnet_stop(&V);
		rec("base", "%u", V.rx->base);
		vnet_close(&V);
		vlink_close(&L);
	}
}

/* Buffers in pieces, header and data at every byte; and too small ones. */
void s_rx_cuts(const char *node)
{
	static const u64 features[] = { 0, V1, V1 | MRG | INDIR };
	unsigned int i, k;
	u32 cut[100];
	char what[48];

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		unsigned int hlen = features[k] & V1 ? 12 : 10, flags = features[k] & INDIR ? VQ_F_INDIRECT : 0;

		vlink_tap(&L, "tap0", 0, hlen);
		rx_open(node, features[k], 256);
		frame_make(frame, 200, 5, false);
		for (i = 1; i <= hlen + 15; i += k == 1 && i > 2 ? 3 : 1) {
			if (i > 1)
				rx_again();
			cut[0] = i;
			rx_fill(3, 400, cut, 1, i & 1 ? flags : 0);
			snprintf(what, sizeof(what), "header of %u, cut at %u", hlen, i);
			rx_frame(what, NULL, frame, 200, i & 1 ? flags : 0);
		}
		for (i = 0; i < ARRAY_SIZE(cut); i++)
			cut[i] = 1;
		rx_again();
		rx_fill(2, 300, cut, 60, 0);
		rx_frame("single bytes", NULL, frame, 200, 0);
		for (i = 0; i < ARRAY_SIZE(cut); i++)
			cut[i] = 700 + i;
		rx_again();
		rx_fill(4, 31000, cut, 40, flags);
		frame_make(frame, 30000, 6, false);
		rx_frame("40 pieces", NULL, frame, 30000, flags);
		/* without MRG_RXBUF what does not fit is dropped */
		for (i = 0; i < 4; i++) {
			u32 room = 1514 + hlen - 2 + i;

			rx_again();
			rx_fill(6, room, NULL, 0, 0);
			frame_make(frame, 1514, 7, false);
			snprintf(what, sizeof(what), "1514 bytes, room for %u", room);
			rx_frame(what, NULL, frame, 1514, 0);
		}
		if (!(features[k] & MRG)) {
			rx_again();
			rx_fill(6, hlen + 60, NULL, 0, 0);
			frame_make(frame, 20000, 8, false);
			rx_frame("far too small", NULL, frame, 20000, 0);
		}
		vnet_close(&V);
		vlink_close(&L);
	}
}

/* Mergeable buffers of every size */
void s_rx_mergeable(const char *node)
{
	static const u32 frames[] = { 60, 200, 1514 };
	unsigned int i, n, size;
	char what[48];

	vlink_tap(&L, "tap0", 0, 12);
	rx_open(node, V1 | MRG, 256);
	for (size = 1; size < 2100; size += size < 24 ? 1 : size < 90 ? 3 : size < 200 ? 37 : 450) {
		if (size < 11 && size % 3)
			continue;
		if (size > 1)
			rx_again();
		/* for the longest frame at this size and a marker */
		n = (frames[size % 3] + 12) / size + 72 / size + 3;
		rx_fill(n < 16 ? 16 : n < 256 ? n : 256, size, NULL, 0, 0);
		for (i = 0; i < ARRAY_SIZE(frames); i++) {
			if ((i && i != size % 3) || (frames[i] + 12) / size + 72 / size + 2 > 256)
				continue;
			snprintf(what, sizeof(what), "buffers of %u, %u bytes", size, frames[i]);
			frame_make(frame, frames[i], size, false);
			rx_frame(what, NULL, frame, frames[i], 0);
		}
	}
	rx_again();
	rx_fill(40, 4000, NULL, 0, 0);
	frame_make(frame, 65535, 3, false);
	rx_frame("buffers of 4000, 65535 bytes", NULL, frame, 65535, 0);
	/* of different sizes, several segments each */
	rx_again();
	for (i = 0; i < 40; i++)
		rx_post(vbuf_new(&V, 16 + i * 61 % 500, (u32[]){ 7 + i % 5, 90 }, i % 3, true), 0);
	vq_kick(V.rx);
	for (i = 0; i < 12; i++) {
		frame_make(frame, 60 + i * 120, i, false);
		snprintf(what, sizeof(what), "mixed buffers, %u bytes", 60 + i * 120);
		rx_frame(what, NULL, frame, 60 + i * 120, 0);
	}
	vnet_close(&V);
	vlink_close(&L);
}

/* A frame that waits for buffers: it comes when there are enough, in one piece. */
void s_rx_short(const char *node)
{
	static const u64 features[] = { V1 | MRG, V1 | MRG | EVENT, V1 };
	unsigned int i, k;
	u8 m[60];

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, 12);
		rx_open(node, features[k], 64);
		rec_at("features %#llx", (unsigned long long)features[k]);
		if (features[k] & MRG)
			rx_fill(3, 400, NULL, 0, 0);
		frame_make(frame, 1514, 1, false);
		frame_make(m, sizeof(m), 2, false);
		T_REQUIRE(vlink_send(&L, NULL, frame, 1514) > 0 && vlink_send(&L, NULL, m, sizeof(m)) > 0, "send");
		/* it cannot come: long enough for it to come all the same */
		rec("used", "%s", vnet_used(&V, V.rx, NULL, 50) ? "some" : "none");
		vnet_settle(&V);
		rec("kick wanted", "%d", vq_wants_kick(V.rx) || V.rx->ring.avail->idx == 0);
		for (i = 0; i < 6; i++) {
			rx_post(vbuf_new(&V, features[k] & MRG ? 400 : 1600, NULL, 0, true), 0);
			vq_kick(V.rx);
		}
		rx_packet(m, sizeof(m), frame, 1514, 0);
		rec("marker", "%d", !rx_packet(m, sizeof(m), NULL, 0, 0));
		vnet_stop(&V);
		rec("base", "%u, available %u", V.rx->base, V.rx->published);
		vnet_close(&V);
		vlink_close(&L);
	}
	rec_at(NULL);
}

#define NC	VIRTIO_NET_HDR_F_NEEDS_CSUM
#define T4	VIRTIO_NET_HDR_GSO_TCPV4

void s_rx_headers(const char *node)
{
	static const struct {
		const char *name;
		u32 len;
		bool udp;
		struct virtio_net_hdr h;
	} t[] = {
		{ "plain", 500, false, { 0, 0, 0, 0, 0, 0 } },
		{ "checksum", 500, false, { NC, 0, 0, 0, 34, 16 } },
		{ "checksum, UDP", 500, true, { NC, 0, 0, 0, 34, 6 } },
		{ "data valid", 500, false, { 2, 0, 0, 0, 0, 0 } },
		{ "GSO", 5054, false, { NC, T4, 54, 1000, 34, 16 } },
		{ "GSO, odd size", 5055, false, { NC, T4, 54, 1001, 34, 16 } },
		{ "GSO, large", 60054, false, { NC, T4, 54, 1448, 34, 16 } },
		{ "GSO with ECN", 5054, false, { NC, T4 | VIRTIO_NET_HDR_GSO_ECN, 54, 1000, 34, 16 } },
		{ "USO", 5042, true, { NC, 5, 42, 1000, 34, 6 } },
	};
	static const u32 offloads[] = { 0, TUN_F_CSUM, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN };
	unsigned int i, k;
	struct vlink tap;
	char what[48];

	for (k = 0; k < ARRAY_SIZE(offloads); k++) {
		vlink_tap(&L, "tap0", 0, 12);
		T_REQUIRE(!ioctl(L.fd, TUNSETOFFLOAD, (unsigned long)offloads[k]), "TUNSETOFFLOAD: %s", strerror(errno));
		rx_open(node, V1 | MRG, 256);
		rx_fill(200, 2000, NULL, 0, 0);
		for (i = 0; i < ARRAY_SIZE(t); i++) {
			snprintf(what, sizeof(what), "offloads %#x, %s", offloads[k], t[i].name);
			ip_make(frame, t[i].len, t[i].udp, false);
			rx_frame(what, &t[i].h, frame, t[i].len, 0);
		}
		frame_make(frame, 200, 3, false);
		memcpy(frame + 12, "\x81\x00\x20\x05\x88\xb5", 6);
		rx_frame("tagged", NULL, frame, 200, 0);
		if (!k) {
			/* the tag is beside the frame until it is copied */
			T_REQUIRE(!system("ip link add link tap0 name tap0.5 type vlan id 5 && ip link set tap0.5 up"),
				  "VLAN device");
			tap = L;
			M = L;
			M.peer = -1;
			M.fd = -1;
			vlink_packet_on(&M, "tap0.5");
			for (i = 60; i < 1500; i += 700) {
				frame_make(frame, i, 4, false);
				T_CHECK(vlink_send(&M, NULL, frame, i) > 0, "send on the VLAN: %s", strerror(errno));
				snprintf(what, sizeof(what), "tag beside the frame, %u bytes", i);
				frame_make(frame, 60, 9, false);
				rx_frame(what, NULL, frame, 60, 0);
			}
			L = tap;
			vlink_close(&M);
		}
		vnet_close(&V);
		vlink_close(&L);
	}
}

void s_rx_links(const char *node)
{
	static const struct {
		const char *name;
		u64 features;
		int kind;
	} t[] = {
		{ "macvtap", V1, 1 },
		{ "macvtap, mergeable", V1 | MRG, 1 },
		{ "macvtap, short header", 0, 1 },
		{ "packet socket", V1 | NETHDR, 2 },
		{ "packet socket, mergeable", V1 | MRG | NETHDR, 2 },
		{ "packet socket, short header", NETHDR, 2 },
		{ "tap without a header", V1 | NETHDR, 3 },
		{ "tap without a header, mergeable", MRG | NETHDR, 3 },
		{ "tap with one, and vhost's", V1 | NETHDR, 0 },
		{ "tap without one, nor vhost's", V1, 3 },
		{ "tap with a shorter one", V1, 4 },
	};
	static const u32 sizes[] = { 60, 61, 1514, 4096, 60000 };
	unsigned int i, k;
	char what[64];

	for (k = 0; k < ARRAY_SIZE(t); k++) {
		if (t[k].kind == 1)
			vlink_macvtap(&L, t[k].features & V1 ? 12 : 10);
		else if (t[k].kind == 2)
			vlink_packet(&L);
		else
			vlink_tap(&L, "tap0", t[k].kind == 3 ? VLINK_NO_HDR : 0, t[k].kind == 4 ? 10 : 12);
		rx_open(node, t[k].features, 128);
		if (t[k].features & MRG)
			rx_fill(120, 1200, NULL, 0, 0);
		else
			rx_fill(16, 65000, NULL, 0, 0);
		if (t[k].kind == 0 || t[k].kind == 4 || (t[k].kind == 3 && !(t[k].features & NETHDR))) {
			/* what the socket gives is not of the length that vhost-net expects: all is lost, no marker comes */
			rec_at("%s", t[k].name);
			frame_make(frame, 60, 1, false);
			vlink_send(&L, NULL, frame, 60);
			rec("used", "%s", vnet_used(&V, V.rx, NULL, 50) ? "some" : "none");
			rec_at(NULL);
			goto next;
		}
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			snprintf(what, sizeof(what), "%s, %u", t[k].name, sizes[i]);
			frame_make(frame, sizes[i], i + 1, false);
			rx_frame(what, NULL, frame, sizes[i], 0);
		}
		snprintf(what, sizeof(what), "%s, GSO", t[k].name);
		ip_make(frame, 5054, false, false);
		rx_frame(what, &(struct virtio_net_hdr){ NC, T4, 54, 1000, 34, 16 }, frame, 5054, 0);
next:
		vnet_stop(&V);
		rec(t[k].name, "base %u", V.rx->base);
		vnet_close(&V);
		vlink_close(&L);
	}
}

/* After which of twelve heads is there a call? */
void s_calls(const char *node)
{
	static const u64 features[] = { V1, V1 | EVENT, V1 | ONEMPTY, V1 | EVENT | ONEMPTY };
	static const int events[] = { 0, 3, 11, 12, -1, 5 };	/* from the first head of the round */
	unsigned int i, k, q, e;
	char text[16];
	u16 from;

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, 12);
		vnet_open(&V, node, features[k], 64);
		vq_rewind(V.rx, 65500);
		vq_rewind(V.tx, 65500);
		vnet_start(&V, L.fd);
		for (q = 0; q < 2; q++)
			for (e = 0; e < ARRAY_SIZE(events); e++) {
				struct vq *vq = &V.d.vqs[q];

				if (!(features[k] & EVENT) && e > 1)
					continue;
				rec_at("features %#llx, %s, event %d", (unsigned long long)features[k], q ? "TX" : "RX", events[e]);
				from = vq->last_used;
				if (features[k] & EVENT)
					vring_used_event(&vq->ring) = from + events[e];
				else
					vq->ring.avail->flags = e ? VRING_AVAIL_F_NO_INTERRUPT : 0;
				if (q == VNET_RX)
					rx_fill(e & 1 ? 13 : 12, 1600, NULL, 0, 0);
				for (i = 0; i < 12; i++) {
					frame_make(frame, 100, i, q);
					if (q == VNET_RX) {
						T_REQUIRE(vlink_send(&L, NULL, frame, 100) > 0, "send");
					} else {
						struct vbuf *b = vbuf_new(&V, 112, NULL, 0, false);

						memset(gmem_ptr(&V.mem, b->seg[0].gpa), 0, 12);
						vbuf_put(&V, b, 12, frame, 100);
						vnet_add(vq, b, 0);
						vq_publish(vq);
						vq_kick(vq);
					}
					if (!vnet_used(&V, vq, NULL, vnet_wait_ms()))
						break;
					text[i] = '0' + vnet_calls(&V, q);
				}
				text[i] = 0;
				rec("calls", "%s", text);
				if (q == VNET_TX) {
					rec("avail_event", "%u", features[k] & EVENT ? vring_avail_event(&vq->ring) : 0);
					rec("flags", "%u", vq->ring.used->flags);
				}
				if (q == VNET_RX && (e & 1)) {
					/* use the one that is left, or it counts for the next round */
					T_REQUIRE(vlink_send(&L, NULL, frame, 100) > 0 &&
						  vnet_used(&V, vq, NULL, vnet_wait_ms()), "the last one");
					vnet_calls(&V, q);
				}
				rec_at(NULL);
			}
		vnet_close(&V);
		vlink_close(&L);
	}
}
