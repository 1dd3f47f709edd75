/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Chains of descriptors that no driver makes: see hostile.c. */
#ifndef CHAINS_H
#define CHAINS_H

#include "cases.h"

#define NUM	16		/* the ring's size */
#define HEAD	5		/* of the chain */

#define A	(VNET_GPA + 4096)	/* a good frame with its header, or room for one: 112 bytes */
#define TAB	(VNET_GPA + 65536)	/* an indirect table */
#define END	(VNET_GPA + VNET_DATA)

#define N	VRING_DESC_F_NEXT
#define WR	VRING_DESC_F_WRITE
#define IND	VRING_DESC_F_INDIRECT

/* Of queue @q's ring, or of all */
void chain_set(unsigned int q, unsigned int i, u64 addr, u32 len, u16 flags, u16 next);

/**
 * struct bad - a chain
 * @make: at HEAD of queue @q; @w is WR where the device must be able to write. Returns the head to publish
 * @only_tx: says nothing for RX
 * @mend_idx: the available index is what is wrong
 */
struct bad {
	const char *name;
	int (*make)(unsigned int q, u16 w);
	bool only_tx;
	bool mend_idx;
};

extern const struct bad bads[];
extern const unsigned int nr_bads;
extern u64 chain_unmapped;		/* in the memory table, but not in the process */

#endif /* CHAINS_H */
