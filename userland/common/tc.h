/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Traffic control over rtnetlink: qdiscs, HTB classes and flower filters, as far as reserve.c needs them.
 *
 * Functions return 0 or a positive errno. After a failure tc.why holds the kernel's own sentence, if it said one.
 */
#ifndef IOVM_TC_H
#define IOVM_TC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct mnl_socket;

#define TC_COOKIE_MAX	64	/* bytes: four actions of 16 */

/**
 * struct tc - a connection to the kernel
 * @why: the kernel's words on the last failure; "" none
 */
struct tc {
	struct mnl_socket *nl;
	uint32_t seq;
	char why[160];
};

/**
 * struct tc_qdisc - a queueing discipline
 * @handle: major number in the upper half
 * @defcls: HTB: minor number of the class that takes what nothing else does
 * @htb: it is HTB
 * @offload: HTB: the device's hardware does it
 */
struct tc_qdisc {
	int ifindex;
	uint32_t handle;
	uint32_t defcls;
	bool htb, offload;
};

/**
 * struct tc_class - an HTB class
 * @parent: TC_H_ROOT for one without
 * @leaf: handle of the qdisc that somebody put below it; 0 none
 * @rate: guaranteed, bytes per second
 * @ceil: likewise, with what others leave
 * @bytes: sent so far
 */
struct tc_class {
	int ifindex;
	uint32_t id, parent, leaf;
	uint32_t quantum, prio;
	uint64_t rate, ceil, bytes;
};

/**
 * struct tc_match - TCP traffic to a peer
 * @peer: IPv4 or IPv6, without a port; family AF_UNSPEC: matches everything
 * @port: the peer's, or this host's when @serving
 */
struct tc_match {
	struct sockaddr_storage peer;
	uint16_t port;
	bool serving;
};

/**
 * struct tc_filter - a filter
 * @parent: the qdisc or class it belongs to
 * @handle: unique among those of the same @pref; 0 for what stands for an empty @pref
 * @classid: where it leads to; 0 nowhere
 * @chain: 0 is the one that is looked at
 * @pref: the lowest is looked at first
 * @flower: it is flower, and @match and @cookie mean something
 * @cookie: of its actions, one after the other
 */
struct tc_filter {
	int ifindex;
	uint32_t parent, handle, classid, chain;
	uint16_t pref;
	bool flower;
	struct tc_match match;
	unsigned int cookie_len;
	uint8_t cookie[TC_COOKIE_MAX];
};

int tc_open(struct tc *tc);
void tc_close(struct tc *tc);

/* What there is: an array for free(). */
int tc_qdiscs(struct tc *tc, struct tc_qdisc **list, size_t *nr);
int tc_classes(struct tc *tc, int ifindex, uint32_t qdisc, struct tc_class **list, size_t *nr);
int tc_filters(struct tc *tc, int ifindex, uint32_t parent, struct tc_filter **list, size_t *nr);

/* HTB, never replacing one that is there (EEXIST). */
int tc_class_add(struct tc *tc, const struct tc_class *c);
int tc_class_del(struct tc *tc, const struct tc_class *c);

/* flower, chain 0, all protocols, in software; likewise. */
int tc_filter_add(struct tc *tc, const struct tc_filter *f);
int tc_filter_del(struct tc *tc, const struct tc_filter *f);

/* Do two matches take the same traffic? */
bool tc_match_same(const struct tc_match *a, const struct tc_match *b);

#endif
