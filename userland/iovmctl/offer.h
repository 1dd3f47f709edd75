/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A target device as an NBD export, and the hand-over of a client to it. iovmd uses it too.
 */
#ifndef IOVMCTL_OFFER_H
#define IOVMCTL_OFFER_H

#include "iovmctl.h"
#include "nbd_server.h"

/**
 * struct offer - what is offered to clients of a device
 * @ex: the export; points into the rest
 * @dev: the device
 * @name: of the export
 * @text: its description
 * @rdonly: clients may not write
 * @epoch: of its clients, 0 none
 * @tls: the client's connection is encrypted, or is not taken
 */
struct offer {
	struct nbds_export ex;
	char dev[IOVM_NAME_MAX];
	const char *name;
	char text[sizeof(IDENTITY_TOKEN) + IOVM_IDENTITY_MAX];
	bool rdonly;
	uint64_t epoch;
	bool tls;
};

void offer_device(struct offer *o, const struct iovm_dev_info *d, const char *name, bool rdonly);

/*
 * A client has chosen it, the handshake is done: the kernel serves fd from now on. s: from IOVM_INIT(), with the client's name in it.
 * 0 or an errno; s->msg may say why.
 */
int offer_taken(const struct offer *o, int fd, struct iovm_session_add *s);

#endif /* IOVMCTL_OFFER_H */
