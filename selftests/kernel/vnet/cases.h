/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The scripts of t_vnet, each run on both nodes: see t_vnet.c and pair.h. What they open is in these variables and is closed
 * after each.
 */
#ifndef CASES_H
#define CASES_H

#include "ktap.h"
#include "pair.h"
#include "vlink.h"
#include "vnet.h"

extern struct vnet V, W;
extern struct vlink L, M;

#define KERNEL_ADDR	0xffff888000000000ull

/* ioctl.c */
int own_node(const char *node);			/* opened into V, with an owner; its fd */
bool one_frame(struct vnet *v, struct vlink *l);	/* sent, and come */
void s_features(const char *node);
void s_before_owner(const char *node);
void s_not_owner(const char *node);
void s_owner(const char *node);
void s_arguments(const char *node);
void s_bad_fds(const char *node);
void s_read_write(const char *node);

/* setup.c */
void s_num_base(const char *node);
void s_addr(const char *node);
void s_memory(const char *node);
void s_log_base(const char *node);
void s_running(const char *node);

/* tx.c: one frame each way, and what becomes of it */
void tx_frame(const char *what, const struct virtio_net_hdr *hdr, const u8 *frame, u32 len, const u32 *cut, unsigned int ncut,
	      unsigned int flags);
void tx_seen(void);
void ip_make(u8 *f, u32 len, bool udp, bool from_guest);
void s_tx_sizes(const char *node);
void s_tx_cuts(const char *node);
void s_tx_headers(const char *node);
void s_tx_many(const char *node);
void s_tx_links(const char *node);

/* rx.c */
extern void (*rx_wrote)(u64 gpa, u32 len);	/* is told what the device wrote, by the used ring; or NULL */
void rx_post(struct vbuf *b, unsigned int flags);
void rx_fill(unsigned int n, u32 len, const u32 *cut, unsigned int ncut, unsigned int flags);
void rx_frame(const char *what, const struct virtio_net_hdr *hdr, const u8 *f, u32 len, unsigned int flags);
void s_rx_sizes(const char *node);
void s_rx_cuts(const char *node);
void s_rx_mergeable(const char *node);
void s_rx_short(const char *node);
void s_rx_headers(const char *node);
void s_rx_links(const char *node);
void s_calls(const char *node);

/* hostile.c */
void s_hostile_tx(const char *node);
void s_hostile_rx(const char *node);

/* log.c */
void s_log(const char *node);

/* load.c */
void s_switch(const char *node);
void s_busy_loop(const char *node);
void s_tap_goes(const char *node);
void s_killed(const char *node);
void s_sndbuf(const char *node);

/* tap.c */
void s_counters(const char *node);
void s_header_size(const char *node);
void s_tap_moves(const char *node);
void s_tap_replaced(const char *node);
void s_tap_flood(const char *node);

#endif /* CASES_H */
