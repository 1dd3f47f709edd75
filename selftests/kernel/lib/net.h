/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A network between the two hosts that this machine plays: a pair of veth devices, one of them in a network namespace of its
 * own, and netem on both. Needs ip, nsenter and the modules veth and sch_netem.
 */
#ifndef NET_H
#define NET_H

#include "vdrv.h"

const char *net_up(void);		/* NULL, or why there is none */
void net_down(void);
bool net_is_up(void);
/* A connected pair: sv[0] here, sv[1] in the namespace. 0 or a negative errno. */
int net_pair(int sv[2]);
/* What becomes of packets in one direction */
struct net_shape {
	unsigned int loss_pct;
	unsigned int delay_us;		/* give or take half of it: they overtake each other */
};
/* How long every packet takes anyway, in order; and TCP's shortest time-out (200 ms otherwise). 0 or a negative errno. */
int net_tune(unsigned int latency_us, unsigned int rto_min_ms);
/* For what this side sends, and for what the other one does; NULL: nothing is done to it. */
int net_shape(const struct net_shape *here, const struct net_shape *there);

#endif /* NET_H */
