// SPDX-License-Identifier: GPL-2.0-or-later
#include "chains.h"

#include <string.h>

static struct vring_desc *desc(unsigned int q, unsigned int i)
{
	return &V.d.vqs[q].ring.desc[i];
}

void chain_set(unsigned int q, unsigned int i, u64 addr, u32 len, u16 flags, u16 next)
{
	*desc(q, i) = (struct vring_desc){ .addr = addr, .len = len, .flags = flags, .next = next };
}

static const u64 nowhere = 1ull << 40;
u64 chain_unmapped;

static struct vring_desc *tab(unsigned int i)
{
	return (struct vring_desc *)gmem_ptr(&V.mem, TAB) + i;
}

static void tset(unsigned int i, u64 addr, u32 len, u16 flags, u16 next)
{
	*tab(i) = (struct vring_desc){ .addr = addr, .len = len, .flags = flags, .next = next };
}

static int m_good(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 112, w, 0);
	return HEAD;
}

static int m_next_out(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 112, w | N, NUM);
	return HEAD;
}

static int m_next_far(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 112, w | N, 65535);
	return HEAD;
}

static int m_loop_self(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 4, w | N, HEAD);
	return HEAD;
}

static int m_loop_two(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 4, w | N, 7);
	chain_set(q, 7, A + 4, 4, w | N, HEAD);
	return HEAD;
}

static int m_head_out(unsigned int q, u16 w)
{
	m_good(q, w);
	return NUM;
}

static int m_head_far(unsigned int q, u16 w)
{
	m_good(q, w);
	return 65535;
}

static int m_ind_nested(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 32, IND, 0);
	tset(0, A, 112, w | N, 1);
	tset(1, TAB, 16, IND, 0);
	return HEAD;
}

static int m_ind_next(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 16, IND | N, 7);
	tset(0, A, 12, w, 0);
	chain_set(q, 7, A + 12, 100, w, 0);
	return HEAD;
}

static int m_ind_after(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 12, w | N, 7);
	chain_set(q, 7, TAB, 16, IND, 0);
	tset(0, A + 12, 100, w, 0);
	return HEAD;
}

static int m_ind_empty(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 0, IND, 0);
	tset(0, A, 112, w, 0);
	return HEAD;
}

static int m_ind_odd(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 17, IND, 0);
	tset(0, A, 112, w, 0);
	return HEAD;
}

static int m_ind_far(unsigned int q, u16 w)
{
	(void)w;
	chain_set(q, HEAD, nowhere, 16, IND, 0);
	return HEAD;
}

static int m_ind_end(unsigned int q, u16 w)
{
	(void)w;
	chain_set(q, HEAD, END - 16, 32, IND, 0);
	return HEAD;
}

static int m_ind_out(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 32, IND, 0);
	tset(0, A, 112, w | N, 2);
	tset(2, A, 4, w, 0);
	return HEAD;
}

static int m_ind_loop(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 32, IND, 0);
	tset(0, A, 4, w | N, 1);
	tset(1, A, 4, w | N, 0);
	return HEAD;
}

static int m_ind_writable(unsigned int q, u16 w)
{
	chain_set(q, HEAD, TAB, 16, IND | WR, 0);
	tset(0, A, 112, w, 0);
	return HEAD;
}

static int m_ind_huge(unsigned int q, u16 w)
{
	(void)w;
	chain_set(q, HEAD, TAB, 16 * 65537, IND, 0);
	return HEAD;
}

static int segments(unsigned int q, u16 w, unsigned int n)
{
	unsigned int i;

	chain_set(q, HEAD, TAB, 16 * n, IND, 0);
	for (i = 0; i < n; i++)
		tset(i, A + i % 112, 1, w | (i + 1 < n ? N : 0), i + 1);
	return HEAD;
}

static int m_1024(unsigned int q, u16 w)
{
	return segments(q, w, 1024);
}

static int m_1025(unsigned int q, u16 w)
{
	return segments(q, w, 1025);
}

static int m_zero(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 0, w, 0);
	return HEAD;
}

static int m_zero_first(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 0, w | N, 7);
	chain_set(q, 7, A, 112, w, 0);
	return HEAD;
}

static int m_zero_middle(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 12, w | N, 7);
	chain_set(q, 7, A, 0, w | N, 8);
	chain_set(q, 8, A + 12, 100, w, 0);
	return HEAD;
}

static int m_zero_last(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 112, w | N, 7);
	chain_set(q, 7, A, 0, w, 0);
	return HEAD;
}

static int m_wrong_way(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 112, w ^ WR, 0);
	return HEAD;
}

static int m_both(unsigned int q, u16 w)
{
	(void)w;
	chain_set(q, HEAD, A, 112, N, 7);
	chain_set(q, 7, A, 112, WR, 0);
	return HEAD;
}

static int m_out_after_in(unsigned int q, u16 w)
{
	(void)w;
	chain_set(q, HEAD, A, 112, WR | N, 7);
	chain_set(q, 7, A, 112, 0, 0);
	return HEAD;
}

static int m_nowhere(unsigned int q, u16 w)
{
	chain_set(q, HEAD, nowhere, 112, w, 0);
	return HEAD;
}

static int m_data_nowhere(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 12, w | N, 7);
	chain_set(q, 7, nowhere, 100, w, 0);
	return HEAD;
}

static int m_over_end(unsigned int q, u16 w)
{
	chain_set(q, HEAD, END - 100, 112, w, 0);
	return HEAD;
}

static int m_wraps(unsigned int q, u16 w)
{
	chain_set(q, HEAD, ~0ull - 50, 112, w, 0);
	return HEAD;
}

static int m_all(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 0xffffffff, w, 0);
	return HEAD;
}

static int m_unmapped(unsigned int q, u16 w)
{
	chain_set(q, HEAD, chain_unmapped, 112, w, 0);
	return HEAD;
}

static int m_data_unmapped(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 12, w | N, 7);
	chain_set(q, 7, chain_unmapped, 100, w, 0);
	return HEAD;
}

static int m_flags(unsigned int q, u16 w)
{
	chain_set(q, HEAD, A, 112, w | 0xfff8, 0);
	return HEAD;
}

static int short_frame(unsigned int q, u16 w, u32 n)
{
	chain_set(q, HEAD, A, n, w, 0);
	return HEAD;
}

static int m_1(unsigned int q, u16 w)
{
	return short_frame(q, w, 1);
}

static int m_11(unsigned int q, u16 w)
{
	return short_frame(q, w, 11);
}

static int m_12(unsigned int q, u16 w)
{
	return short_frame(q, w, 12);
}

static int m_13(unsigned int q, u16 w)
{
	return short_frame(q, w, 13);
}

static int m_25(unsigned int q, u16 w)
{
	return short_frame(q, w, 25);
}

static int m_26(unsigned int q, u16 w)
{
	return short_frame(q, w, 26);
}

static int m_long(unsigned int q, u16 w)
{
	return short_frame(q, w, 12 + 65536);
}

static int m_longer(unsigned int q, u16 w)
{
	return short_frame(q, w, 300000);
}

static int header(unsigned int q, u16 w, struct virtio_net_hdr h)
{
	memcpy(gmem_ptr(&V.mem, A), &h, sizeof(h));
	return m_good(q, w);
}

static int m_csum_out(unsigned int q, u16 w)
{
	return header(q, w, (struct virtio_net_hdr){ 1, 0, 0, 0, 200, 16 });
}

static int m_csum_far(unsigned int q, u16 w)
{
	return header(q, w, (struct virtio_net_hdr){ 1, 0, 0, 0, 65535, 65535 });
}

static int m_csum_edge(unsigned int q, u16 w)
{
	return header(q, w, (struct virtio_net_hdr){ 1, 0, 0, 0, 98, 0 });
}

static int m_csum_over(unsigned int q, u16 w)
{
	return header(q, w, (struct virtio_net_hdr){ 1, 0, 0, 0, 99, 0 });
}

static int m_hdr_len(unsigned int q, u16 w)
{
	return header(q, w, (struct virtio_net_hdr){ 0, 1, 65535, 10, 0, 0 });
}

static int m_avail(unsigned int q, u16 w)
{
	m_good(q, w);
	V.d.vqs[q].avail_idx += NUM;
	return HEAD;
}

static int m_avail_back(unsigned int q, u16 w)
{
	m_good(q, w);
	V.d.vqs[q].avail_idx -= 2;
	return HEAD;
}

const struct bad bads[] = {
	{ "good", m_good },
	{ "next out of range", m_next_out },
	{ "next far out of range", m_next_far },
	{ "loop of one", m_loop_self },
	{ "loop of two", m_loop_two },
	{ "head out of range", m_head_out },
	{ "head far out of range", m_head_far },
	{ "indirect in indirect", m_ind_nested },
	{ "indirect, then next", m_ind_next },
	{ "next, then indirect", m_ind_after },
	{ "indirect, empty", m_ind_empty },
	{ "indirect, odd length", m_ind_odd },
	{ "indirect, nowhere", m_ind_far },
	{ "indirect, over the end", m_ind_end },
	{ "indirect, next out of range", m_ind_out },
	{ "indirect, loop", m_ind_loop },
	{ "indirect, writable", m_ind_writable },
	{ "indirect, huge", m_ind_huge },
	{ "1024 segments", m_1024 },
	{ "1025 segments", m_1025 },
	{ "no bytes", m_zero },
	{ "no bytes first", m_zero_first },
	{ "no bytes in the middle", m_zero_middle },
	{ "no bytes last", m_zero_last },
	{ "wrong direction", m_wrong_way },
	{ "both directions", m_both },
	{ "readable behind writable", m_out_after_in },
	{ "nowhere", m_nowhere },
	{ "data nowhere", m_data_nowhere },
	{ "over the end", m_over_end },
	{ "address wraps", m_wraps },
	{ "4 GiB", m_all },
	{ "not mapped", m_unmapped },
	{ "data not mapped", m_data_unmapped },
	{ "unknown flags", m_flags },
	{ "1 byte", m_1 },
	{ "11 bytes", m_11 },
	{ "12 bytes", m_12 },
	{ "13 bytes", m_13 },
	{ "25 bytes", m_25 },
	{ "26 bytes", m_26, .only_tx = true },
	{ "65536 bytes", m_long, .only_tx = true },
	{ "300000 bytes", m_longer, .only_tx = true },
	{ "checksum outside", m_csum_out, .only_tx = true },
	{ "checksum far outside", m_csum_far, .only_tx = true },
	{ "checksum at the end", m_csum_edge, .only_tx = true },
	{ "checksum over the end", m_csum_over, .only_tx = true },
	{ "GSO header over the end", m_hdr_len, .only_tx = true },
	{ "available index ran away", m_avail, .mend_idx = true },
	{ "available index went back", m_avail_back, .mend_idx = true },
};

const unsigned int nr_bads = ARRAY_SIZE(bads);
