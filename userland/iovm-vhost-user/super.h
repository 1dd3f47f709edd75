/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VU_SUPER_H
#define VU_SUPER_H

#include <stdbool.h>

/**
 * struct vu_options - the command line
 * @node_path: of the device's node
 * @once: end with the first connection
 */
struct vu_options {
	const char *node_path;
	bool once;
};

struct vu_listener;

int vu_supervise(const struct vu_options *o, struct vu_listener *l);

#endif /* VU_SUPER_H */
