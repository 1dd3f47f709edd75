/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests whose end the test looks for by itself, on the queues of F[0].
 */
#ifndef ONE_H
#define ONE_H

#include "fix.h"

struct one {
	struct vq *q;
	u64 hdr, data, status;
	u32 len;
	bool in, done;
	u64 begun_ns, done_ns;
};

/* Makes and sends it; its data, of one byte @fill, and its header stay in the guest's memory to the end of the case. */
void one_start(struct one *o, unsigned int qi, u32 type, u64 sector, u32 len, int fill);
/* Waits until this one has ended; others of its queue that end meanwhile are noted. */
bool one_wait(struct one *o, int timeout_ms);
u8 one_status(const struct one *o);
bool all_bytes(const void *p, u32 len, int c);

#endif /* ONE_H */
