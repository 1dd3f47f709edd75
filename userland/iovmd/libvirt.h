/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A migration by libvirt instead of QMP. See libvirt.c.
 */
#ifndef IOVMD_LIBVIRT_H
#define IOVMD_LIBVIRT_H

#include "iovmd.h"
#include "migrate.h"

/*
 * Has libvirt migrate a guest, and waits for the end of that; settle: finds out what became of a migration that may still be under
 * way. Of ops, progress, cancelled and may_switch are used, as migrate_out() uses them. Blocks: for a worker. why: a sentence, unless
 * MIGRATE_DONE.
 */
enum migrate_outcome libvirt_out(const struct config_guest *g, const struct config_peer *to, bool settle,
				 const struct migrate_ops *ops, void *ctx, char *why, size_t n);

#endif /* IOVMD_LIBVIRT_H */
