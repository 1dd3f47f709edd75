// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reservations as the kernel has them: found by what reserve.h says, and taken away again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <linux/pkt_sched.h>

#include "parse.h"
#include "reserve_state.h"

#define LABEL_PREF	1
#define LOCK_TRIES	250	/* 20 ms apart */

enum reserve_result reserve_say(struct reserve_msg *msg, enum reserve_result res, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg->text, sizeof(msg->text), fmt, ap);
	va_end(ap);
	return res;
}

enum reserve_result reserve_fail(const struct state *st, int err, struct reserve_msg *msg, const char *fmt, ...)
{
	const char *why = st->tc.why;
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(msg->text, sizeof(msg->text), fmt, ap);
	va_end(ap);
	n = strlen(msg->text);
	snprintf(msg->text + n, sizeof(msg->text) - n, ": %s%s%s%s", strerror(err), *why ? " (" : "", why, *why ? ")" : "");
	switch (err) {
	case EPERM:
	case EACCES:
		return RESERVE_NO_RIGHT;
	case ENODEV:
		return RESERVE_NO_DEVICE;
	case EBUSY:
		return RESERVE_BUSY;
	default:
		return RESERVE_FAILED;
	}
}

void class_text(char buf[32], uint32_t id)
{
	snprintf(buf, 32, "%x:%x", TC_H_MAJ(id) >> 16, TC_H_MIN(id));
}

uint32_t slot_minor(unsigned int slot, unsigned int flow)
{
	return RESERVE_MINOR | slot << 4 | flow;
}

/* The slot of a class with this minor number, or -1. */
static int minor_slot(uint32_t minor)
{
	if (minor < RESERVE_MINOR || minor > slot_minor(RESERVE_SLOTS - 1, RESERVE_MIGRATION) || (minor & 0xf) >= RESERVE_FLOWS)
		return -1;
	return (int)((minor - RESERVE_MINOR) >> 4);
}

bool class_is_ours(const struct tc_class *c)
{
	return c->quantum == RESERVE_QUANTUM && minor_slot(TC_H_MIN(c->id)) >= 0;
}

bool filter_is_ours(const struct root *root, const struct tc_filter *f)
{
	return f->flower && f->parent == root->q.handle && (f->handle & 0xffff0000) == FILTER_HANDLE &&
	       minor_slot(f->handle & 0xffff) >= 0 && (!f->classid || TC_H_MIN(f->classid) == (f->handle & 0xffff));
}

/* Also when a class of the operator's has one of its numbers. */
bool slot_is_free(const struct root *root, unsigned int slot)
{
	size_t i;

	for (i = 0; i < root->nr_classes; i++)
		if (minor_slot(TC_H_MIN(root->classes[i].id)) == (int)slot)
			return false;
	for (i = 0; i < root->nr_filters; i++)
		if (filter_is_ours(root, &root->filters[i]) && minor_slot(root->filters[i].handle & 0xffff) == (int)slot)
			return false;
	return true;
}

struct root *find_root(struct state *st, int ifindex, uint32_t id)
{
	size_t i;

	for (i = 0; i < st->nr_roots; i++)
		if (st->roots[i].q.ifindex == ifindex && st->roots[i].q.handle == TC_H_MAJ(id))
			return &st->roots[i];
	return NULL;
}

const struct tc_class *find_class(const struct root *root, uint32_t id)
{
	size_t i;

	for (i = 0; i < root->nr_classes; i++)
		if (root->classes[i].id == id)
			return &root->classes[i];
	return NULL;
}

struct tc_filter *label_filter(struct tc_filter *f, const struct root *root, uint32_t classid, const char *name)
{
	memset(f, 0, sizeof(*f));
	f->ifindex = root->q.ifindex;
	f->parent = classid;
	f->handle = LABEL_HANDLE;
	f->pref = LABEL_PREF;
	f->flower = true;
	f->cookie_len = (unsigned int)strnlen(name, sizeof(f->cookie));
	memcpy(f->cookie, name, f->cookie_len);
	return f;
}

static int read_label(struct state *st, struct root *root, uint32_t classid, struct reserve *r)
{
	struct tc_filter *list;
	size_t nr, i;
	int err;

	err = tc_filters(&st->tc, root->q.ifindex, classid, &list, &nr);
	if (err)
		return err;
	for (i = 0; i < nr; i++) {
		if (!list[i].flower || list[i].handle != LABEL_HANDLE || list[i].parent != classid ||
		    list[i].cookie_len >= sizeof(r->name))
			continue;
		memcpy(r->name, list[i].cookie, list[i].cookie_len);
		r->name[list[i].cookie_len] = 0;
		if (parse_name(r->name))
			r->name[0] = 0;
		else
			r->label = classid;
	}
	free(list);
	return 0;
}

/* What slot has; *there: something. */
static int read_slot(struct state *st, struct root *root, unsigned int slot, struct reserve *r, bool *there)
{
	const struct tc_class *c;
	unsigned int flow;
	size_t i;
	int err;

	memset(r, 0, sizeof(*r));
	*there = false;
	r->slot = slot;
	for (flow = 0; flow < RESERVE_FLOWS; flow++) {
		c = find_class(root, root->q.handle | slot_minor(slot, flow));
		if (!c || !class_is_ours(c))
			continue;
		*there = true;
		r->classid[flow] = c->id;
		r->rate[flow] = c->rate * 8;
		r->ceil[flow] = c->ceil * 8;
		r->bytes[flow] = c->bytes;
		r->parent.id = c->parent;
		if (r->label)
			continue;
		err = read_label(st, root, c->id, r);
		if (err)
			return err;
	}
	for (i = 0; i < root->nr_filters; i++) {
		const struct tc_filter *f = &root->filters[i];

		if (!filter_is_ours(root, f) || minor_slot(f->handle & 0xffff) != (int)slot)
			continue;
		*there = true;
		r->peer = f->match.peer;
		r->serving = f->match.serving;
		r->port[f->handle & 0xf] = f->match.port;
	}
	return 0;
}

static int read_root(struct state *st, struct root *root)
{
	struct reserve r;
	unsigned int slot;
	bool there;
	int err;

	err = tc_classes(&st->tc, root->q.ifindex, root->q.handle, &root->classes, &root->nr_classes);
	if (!err)
		err = tc_filters(&st->tc, root->q.ifindex, root->q.handle, &root->filters, &root->nr_filters);
	for (slot = 0; !err && slot < RESERVE_SLOTS; slot++) {
		struct found *more;

		err = read_slot(st, root, slot, &r, &there);
		if (err || !there)
			continue;
		more = reallocarray(st->found, st->nr_found + 1, sizeof(*more));
		if (!more)
			return ENOMEM;
		if (!if_indextoname((unsigned int)root->q.ifindex, r.parent.dev))
			r.parent.dev[0] = 0;
		st->found = more;
		st->found[st->nr_found++] = (struct found){ r, root };
	}
	return err;
}

static void forget(struct state *st)
{
	size_t i;

	for (i = 0; i < st->nr_roots; i++) {
		free(st->roots[i].classes);
		free(st->roots[i].filters);
	}
	free(st->roots);
	free(st->qdiscs);
	free(st->found);
	st->roots = NULL;
	st->qdiscs = NULL;
	st->found = NULL;
	st->nr_roots = 0;
	st->nr_qdiscs = 0;
	st->nr_found = 0;
}

enum reserve_result state_reload(struct state *st, struct reserve_msg *msg)
{
	size_t i;
	int err;

	forget(st);
	err = tc_qdiscs(&st->tc, &st->qdiscs, &st->nr_qdiscs);
	if (!err) {
		st->roots = calloc(st->nr_qdiscs ?: 1, sizeof(*st->roots));
		err = st->roots ? 0 : ENOMEM;
	}
	for (i = 0; !err && i < st->nr_qdiscs; i++) {
		if (!st->qdiscs[i].htb)
			continue;
		st->roots[st->nr_roots].q = st->qdiscs[i];
		err = read_root(st, &st->roots[st->nr_roots++]);
	}
	return err ? reserve_fail(st, err, msg, "cannot read what is reserved") : RESERVE_DONE;
}

static enum reserve_result take_lock(struct state *st, struct reserve_msg *msg)
{
	const struct timespec pause = { .tv_nsec = 20000000 };
	unsigned int i;

	if (mkdir(RESERVE_LOCK_DIR, 0755) && errno != EEXIST)
		return reserve_fail(st, errno, msg, "cannot make %s", RESERVE_LOCK_DIR);
	st->lock = open(RESERVE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (st->lock < 0)
		return reserve_fail(st, errno, msg, "cannot open %s", RESERVE_LOCK);
	for (i = 0; flock(st->lock, LOCK_EX | LOCK_NB); i++) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return reserve_fail(st, errno, msg, "cannot lock %s", RESERVE_LOCK);
		if (i == LOCK_TRIES)
			return reserve_say(msg, RESERVE_BUSY, "another process is changing reservations (it has %s locked)",
					   RESERVE_LOCK);
		nanosleep(&pause, NULL);
	}
	return RESERVE_DONE;
}

enum reserve_result state_open(struct state *st, bool to_change, struct reserve_msg *msg)
{
	enum reserve_result res;
	int err;

	memset(st, 0, sizeof(*st));
	st->lock = -1;
	if (to_change) {
		res = take_lock(st, msg);
		if (res)
			return res;
	}
	err = tc_open(&st->tc);
	if (err)
		return reserve_fail(st, err, msg, "cannot open a netlink socket");
	return state_reload(st, msg);
}

void state_close(struct state *st)
{
	forget(st);
	tc_close(&st->tc);
	if (st->lock >= 0)
		close(st->lock);
	st->lock = -1;
}

/* What is gone meanwhile, with its device or by the operator's hand, is what was wanted. */
static int gone(int err)
{
	return err == ENOENT || err == ENODEV || err == EINVAL ? 0 : err;
}

/*
 * The class of the reservation that a filter of the operator's leads to. The kernel refuses to remove such a class once, and lets
 * the filter go of it: the next attempt would leave the filter without a class.
 */
static uint32_t in_use(const struct found *w)
{
	const struct root *root = w->root;
	unsigned int flow;
	size_t i;

	for (i = 0; i < root->nr_filters; i++)
		for (flow = 0; flow < RESERVE_FLOWS; flow++)
			if (w->r.classid[flow] && root->filters[i].classid == w->r.classid[flow] &&
			    !filter_is_ours(root, &root->filters[i]))
				return w->r.classid[flow];
	return 0;
}

enum reserve_result remove_found(struct state *st, const struct found *w, struct reserve_msg *msg)
{
	const struct reserve *r = &w->r;
	const struct root *root = w->root;
	const char *name = *r->name ? r->name : "(left over)";
	struct tc_class c = { .ifindex = root->q.ifindex };
	struct tc_filter f;
	unsigned int flow;
	int err = 0;
	size_t i;

	c.id = in_use(w);
	if (c.id)
		return reserve_say(msg, RESERVE_BUSY, "cannot remove class %x:%x of reservation '%s' on %s: a filter that is not "
				   "ours leads to it", c.id >> 16, TC_H_MIN(c.id), name, r->parent.dev);
	if (r->label)
		err = gone(tc_filter_del(&st->tc, label_filter(&f, root, r->label, r->name)));
	for (i = 0; !err && i < root->nr_filters; i++)
		if (filter_is_ours(root, &root->filters[i]) && minor_slot(root->filters[i].handle & 0xffff) == (int)r->slot)
			err = gone(tc_filter_del(&st->tc, &root->filters[i]));
	if (err)
		return reserve_fail(st, err, msg, "cannot remove the filters of reservation '%s' on %s", name, r->parent.dev);
	for (flow = RESERVE_FLOWS; flow--;) {
		c.id = r->classid[flow];
		err = c.id ? gone(tc_class_del(&st->tc, &c)) : 0;
		if (err)
			return reserve_fail(st, err, msg, "cannot remove class %x:%x of reservation '%s' on %s", c.id >> 16,
					    TC_H_MIN(c.id), name, r->parent.dev);
	}
	return RESERVE_DONE;
}

enum reserve_result reserve_sweep(struct state *st, struct reserve_msg *msg)
{
	enum reserve_result res = RESERVE_DONE, one;
	struct reserve_msg why;
	bool some = false;
	size_t i;

	for (i = 0; i < st->nr_found; i++) {
		if (st->found[i].r.label)
			continue;
		some = true;
		one = remove_found(st, &st->found[i], &why);
		if (one && !res) {
			res = one;
			*msg = why;
		}
	}
	one = some ? state_reload(st, &why) : RESERVE_DONE;
	if (one && !res) {
		res = one;
		*msg = why;
	}
	return res;
}
