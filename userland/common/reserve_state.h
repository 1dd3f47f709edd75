/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reservations as the kernel has them. For reserve.c alone.
 */
#ifndef IOVM_RESERVE_STATE_H
#define IOVM_RESERVE_STATE_H

#include "reserve.h"
#include "tc.h"

#define LABEL_HANDLE	0x696f766du	/* "iovm" */
#define FILTER_HANDLE	0x696f0000u	/* "io", and the minor number of the class */

/* An HTB qdisc with the classes below it and the filters of itself */
struct root {
	struct tc_qdisc q;
	struct tc_class *classes;
	size_t nr_classes;
	struct tc_filter *filters;
	size_t nr_filters;
};

/* A reservation, or what is left of one, and where it is */
struct found {
	struct reserve r;
	struct root *root;
};

/**
 * struct state - all that there is
 * @lock: of those that change something; -1 none
 */
struct state {
	struct tc tc;
	int lock;
	struct tc_qdisc *qdiscs;
	size_t nr_qdiscs;
	struct root *roots;
	size_t nr_roots;
	struct found *found;
	size_t nr_found;
};

enum reserve_result reserve_say(struct reserve_msg *msg, enum reserve_result res, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The result that an errno is, and "fmt: why". */
enum reserve_result reserve_fail(const struct state *st, int err, struct reserve_msg *msg, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void class_text(char buf[32], uint32_t id);

/* state_close() is due after a failure too. */
enum reserve_result state_open(struct state *st, bool to_change, struct reserve_msg *msg);
enum reserve_result state_reload(struct state *st, struct reserve_msg *msg);
void state_close(struct state *st);

struct root *find_root(struct state *st, int ifindex, uint32_t id);
const struct tc_class *find_class(const struct root *root, uint32_t id);

/* The minor number of a slot's class. */
uint32_t slot_minor(unsigned int slot, unsigned int flow);
bool slot_is_free(const struct root *root, unsigned int slot);
bool class_is_ours(const struct tc_class *c);
bool filter_is_ours(const struct root *root, const struct tc_filter *f);
/* Make f the label of a class. Returns f. */
struct tc_filter *label_filter(struct tc_filter *f, const struct root *root, uint32_t classid, const char *name);

enum reserve_result remove_found(struct state *st, const struct found *w, struct reserve_msg *msg);
/* Remove what has no label, and read all anew if there was something. */
enum reserve_result reserve_sweep(struct state *st, struct reserve_msg *msg);

#endif
