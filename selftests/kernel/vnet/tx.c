// SPDX-License-Identifier: GPL-2.0-or-later
/* t_vnet: frames from the guest, in every layout, and what comes out at the other side of the tap. */
#include "cases.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <arpa/inet.h>

#define MARK	0xfeed0000u

static u32 marks;

/* Everything that comes at the other side of @l up to a marker of ours. */
static void seen_until(struct vlink *l, u32 mark, const u8 *frame, u32 len)
{
	static struct vframe got;
	u8 want[60];

	frame_make(want, sizeof(want), mark, true);
	for (;;) {
		if (!vlink_recv(l, &got, vnet_wait_ms())) {
			rec("marker", "lost");
			return;
		}
		/* at its end: who expects another header puts some bytes before it */
		if (got.len >= sizeof(want) && !memcmp(got.data + got.len - sizeof(want), want, sizeof(want)))
			return;
		rec("got", "%u bytes, header %s, status %#x, tag %#x %#x", got.len, hex(&got.hdr, sizeof(got.hdr)), got.status,
		    got.tpid, got.tci);
		if (frame && got.len == len && !memcmp(got.data, frame, len))
			rec("content", "as sent");
		else
			rec("content", "%016llx %s", (unsigned long long)digest(got.data, got.len),
			    hex(got.data, got.len < 48 ? got.len : 48));
	}
}

/* Sends a marker; it comes behind all that came before it. */
static void tx_mark(const u8 *frame, u32 len)
{
	u32 mark = MARK + marks++;
	struct vbuf *b;
	u8 m[60];

	frame_make(m, sizeof(m), mark, true);
	b = vbuf_new(&V, V.hlen + sizeof(m), NULL, 0, false);
	memset(gmem_ptr(&V.mem, b->seg[0].gpa), 0, V.hlen);
	vbuf_put(&V, b, V.hlen, m, sizeof(m));
	if (!T_CHECK(vnet_add(V.tx, b, 0) >= 0, "no room for a marker"))
		return;
	vq_submit(V.tx);
	if (vnet_used(&V, V.tx, NULL, vnet_wait_ms()) != b) {
		rec("marker", "not used");
		return;
	}
	seen_until(&L, mark, frame, len);
}

void tx_seen(void)
{
	tx_mark(NULL, 0);
	vnet_calls(&V, VNET_TX);
	vnet_rewind(&V);
}

/* One frame with @hdr (NULL: zeroes) in segments of cut[] bytes; what the device and the other side make of it. */
void tx_frame(const char *what, const struct virtio_net_hdr *hdr, const u8 *frame, u32 len, const u32 *cut, unsigned int ncut,
	      unsigned int flags)
{
	u8 h[12] = { 0 };
	struct vbuf *b, *u;
	u32 used = 0;
	u16 from = V.tx->last_used;

	rec_at("%s", what);
	if (hdr)
		memcpy(h, hdr, sizeof(*hdr));
	b = vbuf_new(&V, V.hlen + len, cut, ncut, false);
	vbuf_put(&V, b, 0, h, V.hlen);
	vbuf_put(&V, b, V.hlen, frame, len);
	if (!T_CHECK(vnet_add(V.tx, b, flags) >= 0, "%s: no room", what))
		return;
	vq_submit(V.tx);
	u = vnet_used(&V, V.tx, &used, vnet_wait_ms());
	if (!u)
		rec("used", "nothing");
	else
		rec("used", "%s at %u, length %u", u == b ? "this" : "another", from, used);
	rec("calls", "%llu", (unsigned long long)vnet_calls(&V, VNET_TX));
	rec("err", "%d", vnet_err(&V, VNET_TX));
	if (u)
		tx_mark(frame, len);
	vnet_calls(&V, VNET_TX);
	rec_at(NULL);
	vnet_rewind(&V);
}

static void tx_open(const char *node, u64 features, unsigned int num)
{
	vnet_open(&V, node, features, num);
	vnet_start(&V, L.fd);
}

static u8 frame[VLINK_FRAME_MAX + 1];

void s_tx_sizes(const char *node)
{
	static const u64 features[] = { V1, 0, MRG, V1 | MRG | EVENT | INDIR };
	static const u32 sizes[] = { 14, 15, 42, 60, 61, 64, 127, 128, 256, 1000, 1514, 1518, 2048, 3600, 3700, 3800, 3900, 4000,
				     4096, 9014, 16384, 32768, 65000, 65535 };
	unsigned int i, k;
	char what[48];

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, features[k] & (V1 | MRG) ? 12 : 10);
		tx_open(node, features[k], 64);
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			if (k && i % 3)
				continue;
			snprintf(what, sizeof(what), "features %#llx, %u bytes", (unsigned long long)features[k], sizes[i]);
			frame_make(frame, sizes[i], i + 1, true);
			tx_frame(what, NULL, frame, sizes[i], NULL, 0, 0);
		}
		vnet_close(&V);
		vlink_close(&L);
	}
}

void s_tx_cuts(const char *node)
{
	static const u64 features[] = { 0, V1 | INDIR };
	unsigned int i, k;
	u32 cut[100];
	char what[48];

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		unsigned int hlen = features[k] & V1 ? 12 : 10;

		vlink_tap(&L, "tap0", 0, hlen);
		tx_open(node, features[k], 256);
		frame_make(frame, 200, 5, true);
		for (i = 1; i <= hlen + 15; i += k && i > 13 ? 5 : 1) {
			cut[0] = i;
			snprintf(what, sizeof(what), "header of %u, cut at %u", hlen, i);
			tx_frame(what, NULL, frame, 200, cut, 1, 0);
			if (!k || i % 4)
				continue;
			snprintf(what, sizeof(what), "indirect, cut at %u", i);
			tx_frame(what, NULL, frame, 200, cut, 1, VQ_F_INDIRECT);
		}
		for (i = 0; i < ARRAY_SIZE(cut); i++)
			cut[i] = 1;
		tx_frame("single bytes", NULL, frame, 80, cut, 100, 0);
		for (i = 0; i < ARRAY_SIZE(cut); i++)
			cut[i] = 1 + i % 7;
		tx_frame("a few bytes each", NULL, frame, 200, cut, 100, 0);
		frame_make(frame, 30000, 6, true);
		for (i = 0; i < ARRAY_SIZE(cut); i++)
			cut[i] = 512 + i;
		tx_frame("50 pieces", NULL, frame, 30000, cut, 100, 0);
		if (features[k] & INDIR) {
			tx_frame("50 pieces, indirect", NULL, frame, 30000, cut, 100, VQ_F_INDIRECT);
			tx_frame("one piece, indirect", NULL, frame, 1000, NULL, 0, VQ_F_INDIRECT);
		}
		vnet_close(&V);
		vlink_close(&L);
	}
}

static u16 sum(const u8 *p, u32 n, u32 s)
{
	u32 i;

	for (i = 0; i + 1 < n; i += 2)
		s += p[i] << 8 | p[i + 1];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

/* IPv4 with TCP (54 bytes of headers) or UDP (42); their checksum is of the pseudo header alone, as offload wants it. */
void ip_make(u8 *f, u32 len, bool udp, bool from_guest)
{
	u32 l4 = len - 34;

	frame_make(f, len, 9, from_guest);
	f[12] = 8;
	f[13] = 0;
	memset(f + 14, 0, udp ? 28 : 40);
	f[14] = 0x45;
	f[16] = (len - 14) >> 8;
	f[17] = (len - 14) & 0xff;
	f[20] = 0x40;		/* don't fragment */
	f[22] = 64;
	f[23] = udp ? 17 : 6;
	memcpy(f + 26, "\x0a\x63\x08\x01\x0a\x63\x08\x02", 8);
	*(u16 *)(f + 24) = htons(~sum(f + 14, 20, 0));
	f[34] = 0x12;
	f[35] = 0x34;
	f[36] = 0x56;
	f[37] = 0x78;
	if (udp) {
		f[38] = l4 >> 8;
		f[39] = l4 & 0xff;
		*(u16 *)(f + 40) = htons(sum(f + 26, 8, 17 + l4));
	} else {
		f[41] = 1;
		f[46] = 0x50;
		f[47] = 0x10;
		f[48] = 0x20;
		*(u16 *)(f + 50) = htons(sum(f + 26, 8, 6 + l4));
	}
}

struct header {
	const char *name;
	u32 len;
	bool udp;
	struct virtio_net_hdr h;
};

#define NC	VIRTIO_NET_HDR_F_NEEDS_CSUM
#define T4	VIRTIO_NET_HDR_GSO_TCPV4

/* Good ones, then impossible ones. */
static const struct header tx_headers[] = {
	{ "checksum", 500, false, { NC, 0, 0, 0, 34, 16 } },
	{ "checksum, header length", 500, false, { NC, 0, 54, 0, 34, 16 } },
	{ "checksum, UDP", 500, true, { NC, 0, 0, 0, 34, 6 } },
	{ "data valid", 500, false, { 2, 0, 0, 0, 0, 0 } },
	{ "GSO", 5054, false, { NC, T4, 54, 1000, 34, 16 } },
	{ "GSO, odd size", 5055, false, { NC, T4, 54, 1001, 34, 16 } },
	{ "GSO, no header length", 5054, false, { NC, T4, 0, 1000, 34, 16 } },
	{ "GSO, large", 60054, false, { NC, T4, 54, 1448, 34, 16 } },
	{ "GSO, one segment", 500, false, { NC, T4, 54, 1448, 34, 16 } },
	{ "GSO with ECN", 5054, false, { NC, T4 | VIRTIO_NET_HDR_GSO_ECN, 54, 1000, 34, 16 } },
	{ "UFO", 5042, true, { NC, VIRTIO_NET_HDR_GSO_UDP, 42, 1000, 34, 6 } },
	{ "USO", 5042, true, { NC, 5, 42, 1000, 34, 6 } },
	{ "GSO size 0", 5054, false, { NC, T4, 54, 0, 34, 16 } },
	{ "GSO size 65535", 5054, false, { NC, T4, 54, 65535, 34, 16 } },
	{ "GSO size 1", 100, false, { NC, T4, 54, 1, 34, 16 } },
	{ "GSO without checksum", 5054, false, { 0, T4, 54, 1000, 0, 0 } },
	{ "GSO, UDP in fact", 5042, true, { NC, T4, 54, 1000, 34, 6 } },
	{ "GSO, IPv6 announced", 5054, false, { NC, VIRTIO_NET_HDR_GSO_TCPV6, 74, 1000, 34, 16 } },
	{ "GSO type 6", 5054, false, { NC, 6, 54, 1000, 34, 16 } },
	{ "GSO type 127", 5054, false, { NC, 127, 54, 1000, 34, 16 } },
	{ "GSO, header of all", 5054, false, { NC, T4, 5054, 1000, 34, 16 } },
	{ "GSO, header beyond", 5054, false, { NC, T4, 65535, 1000, 34, 16 } },
	{ "GSO, header of 1", 5054, false, { NC, T4, 1, 1000, 34, 16 } },
	{ "flags 0xfe", 500, false, { 0xfe, 0, 0, 0, 0, 0 } },
};

void s_tx_headers(const char *node)
{
	static const u32 offloads[] = { 0, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN };
	unsigned int i, k;
	char what[48];

	for (k = 0; k < ARRAY_SIZE(offloads); k++) {
		vlink_tap(&L, "tap0", 0, 12);
		T_REQUIRE(!ioctl(L.fd, TUNSETOFFLOAD, (unsigned long)offloads[k]), "TUNSETOFFLOAD: %s", strerror(errno));
		tx_open(node, V1 | MRG, 64);
		for (i = 0; i < ARRAY_SIZE(tx_headers); i++) {
			const struct header *t = &tx_headers[i];

			if (k && i % 2)
				continue;
			snprintf(what, sizeof(what), "offloads %#x, %s", offloads[k], t->name);
			ip_make(frame, t->len, t->udp, true);
			tx_frame(what, &t->h, frame, t->len, NULL, 0, 0);
		}
		/* a VLAN tag, by the guest; for itself, and before a checksum */
		frame_make(frame, 200, 3, true);
		memcpy(frame + 12, "\x81\x00\x20\x05\x88\xb5", 6);
		tx_frame("tagged", NULL, frame, 200, NULL, 0, 0);
		frame_make(frame, 200, 3, true);
		memcpy(frame + 12, "\x88\xa8\x20\x05\x81\x00\x00\x07\x88\xb5", 10);
		tx_frame("tagged twice", NULL, frame, 200, NULL, 0, 0);
		ip_make(frame + 4, 600, false, true);
		memmove(frame, frame + 4, 12);
		memcpy(frame + 12, "\x81\x00\x60\x05", 4);
		tx_frame("tagged, checksum", &(struct virtio_net_hdr){ NC, 0, 58, 0, 38, 16 }, frame, 604, NULL, 0, 0);
		ip_make(frame + 4, 6000, false, true);
		memmove(frame, frame + 4, 12);
		memcpy(frame + 12, "\x81\x00\x60\x05", 4);
		tx_frame("tagged, GSO", &(struct virtio_net_hdr){ NC, T4, 58, 1000, 38, 16 }, frame, 6004, NULL, 0, 0);
		vnet_close(&V);
		vlink_close(&L);
	}
}

/* Many at once, beyond the end of ring and index: all come, in their order, each once. */
void s_tx_many(const char *node)
{
	static const u64 features[] = { V1, V1 | EVENT, V1 | INDIR | EVENT | ONEMPTY };
	static struct vframe got;
	unsigned int i, k, round;
	struct vbuf *b;
	u32 len;

	for (k = 0; k < ARRAY_SIZE(features); k++) {
		vlink_tap(&L, "tap0", 0, 12);
		vnet_open(&V, node, features[k], 128);
		rec_at("features %#llx", (unsigned long long)features[k]);
		vq_rewind(V.tx, 65530);
		vq_rewind(V.rx, 65535);
		vnet_start(&V, L.fd);
		for (round = 0; round < 3; round++) {
			unsigned int n = round == 0 ? 3 : 100, in_order = 0, as_sent = 0;

			for (i = 0; i < n; i++) {
				u32 cut = V.hlen;

				len = 60 + i * 37 % 1400;
				frame_make(frame, len, i, true);
				b = vbuf_new(&V, V.hlen + len, &cut, 1, false);
				memset(gmem_ptr(&V.mem, b->seg[0].gpa), 0, V.hlen);
				vbuf_put(&V, b, V.hlen, frame, len);
				if (!(features[k] & INDIR) && i >= 60)
					break;
				T_REQUIRE(vnet_add(V.tx, b, features[k] & INDIR ? VQ_F_INDIRECT : 0) >= 0, "no room");
			}
			n = i;
			vq_submit(V.tx);
			for (i = 0; i < n; i++) {
				u32 head = V.tx->ring.avail->ring[(u16)(V.tx->last_used) % 128];
				u32 id = V.tx->ring.used->ring[(u16)(V.tx->last_used) % 128].id;

				b = vnet_used(&V, V.tx, &len, vnet_wait_ms());
				if (!b)
					break;
				id = V.tx->ring.used->ring[(u16)(V.tx->last_used - 1) % 128].id;
				in_order += id == head && !len;
			}
			rec("used", "%u of %u, in order %u, index %u", i, n, in_order, V.tx->ring.used->idx);
			for (i = 0; i < n; i++) {
				if (!vlink_recv(&L, &got, vnet_wait_ms()))
					break;
				len = 60 + i * 37 % 1400;
				frame_make(frame, len, i, true);
				as_sent += got.len == len && !memcmp(got.data, frame, len);
			}
			rec("got", "%u, as sent %u", i, as_sent);
			T_CHECK(as_sent == n && in_order == n, "%s: %u of %u as sent, %u in order", node, as_sent, n, in_order);
			rec("calls", "%s", vnet_calls(&V, VNET_TX) ? "some" : "none");
			rec("flags", "%u", V.tx->ring.used->flags);
			if (features[k] & EVENT)
				rec("avail_event", "%u", vring_avail_event(&V.tx->ring));
			vnet_rewind(&V);
		}
		vnet_stop(&V);
		rec("base", "%u, %u", V.tx->base, V.rx->base);
		vnet_close(&V);
		vlink_close(&L);
	}
	rec_at(NULL);
}

/* Back ends of other kinds, and vhost's own header */
void s_tx_links(const char *node)
{
	static const struct {
		const char *name;
		u64 features;
		int kind;
	} t[] = {
		{ "macvtap", V1, 1 },
		{ "macvtap, short header", 0, 1 },
		{ "packet socket", V1 | NETHDR, 2 },
		{ "packet socket, short header", NETHDR, 2 },
		{ "packet socket without vhost's header", V1, 2 },
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
		tx_open(node, t[k].features, 64);
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			snprintf(what, sizeof(what), "%s, %u", t[k].name, sizes[i]);
			frame_make(frame, sizes[i], i + 1, true);
			tx_frame(what, NULL, frame, sizes[i], &(u32){ V.hlen }, 1, 0);
		}
		snprintf(what, sizeof(what), "%s, GSO", t[k].name);
		ip_make(frame, 5054, false, true);
		tx_frame(what, &(struct virtio_net_hdr){ NC, T4, 54, 1000, 34, 16 }, frame, 5054, NULL, 0, 0);
		vnet_close(&V);
		vlink_close(&L);
	}
}
