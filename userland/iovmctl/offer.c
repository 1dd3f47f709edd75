// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A target device as an NBD export. See offer.h.
 */
#include <string.h>

#include "offer.h"

void offer_device(struct offer *o, const struct iovm_dev_info *d, const char *name, bool rdonly)
{
	uint32_t pref = d->blk.opt_io_size;

	memset(o, 0, sizeof(*o));
	strcpy(o->dev, d->name);
	o->name = name;
	o->rdonly = rdonly || d->flags & IOVM_DEV_F_RDONLY;
	if (*d->identity)
		snprintf(o->text, sizeof(o->text), IDENTITY_TOKEN "%s", d->identity);
	if (!pref || pref & (pref - 1) || pref < d->blk.block_size || pref > NBDS_MAX_PAYLOAD)
		pref = 65536;
	o->ex = (struct nbds_export){
		.name = name, .description = o->text, .bytes = d->blk.capacity * 512, .min_block = d->blk.block_size, .pref_block = pref,
		.flags = 1 << NBD_HAS_FLAGS | 1 << NBD_SEND_FLUSH | 1 << NBD_CAN_MULTI_CONN |
			 (o->rdonly ? 1 << NBD_READ_ONLY : 1 << NBD_SEND_FUA | 1 << NBD_SEND_TRIM | 1 << NBD_SEND_WRITE_ZEROES),
	};
}

int offer_taken(const struct offer *o, int fd, struct iovm_session_add *s)
{
	strcpy(s->dev, o->dev);
	s->flags = (o->rdonly ? IOVM_SESSION_F_RDONLY : 0) | (o->tls ? IOVM_SESSION_F_TLS : 0);
	s->epoch = o->epoch;
	s->nr_fds = 1;
	s->fds[0] = fd;
	return mux_ioctl(IOVM_SESSION_ADD, s);
}
