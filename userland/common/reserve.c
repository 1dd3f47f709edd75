// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bandwidth for a guest that migrates: what is wanted against what is there. See reserve.h; reading it from the kernel and taking
 * it away is reserve_state.c's.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/pkt_sched.h>

#include "parse.h"
#include "reserve.h"
#include "reserve_state.h"

#define STEER_PREF	0x1000	/* of our filters when the operator has none; else before the first of his */

const char *reserve_parse_class(const char *s, struct reserve_class *c)
{
	static const char *const bad = "is not a class (DEV/MAJOR:MINOR, hexadecimal, as in eth0/1:50)";
	const char *slash = strrchr(s, '/');
	size_t len = slash ? (size_t)(slash - s) : 0, digits;
	const char *p = slash;
	unsigned long id[2];
	unsigned int i;

	if (!len || len >= sizeof(c->dev))
		return bad;
	for (i = 0; i < 2; i++, p += digits) {
		p++;
		digits = strspn(p, "0123456789abcdefABCDEF");
		if (!digits || digits > 4 || p[digits] != (i ? 0 : ':'))
			return bad;
		id[i] = strtoul(p, NULL, 16);
	}
	if (!id[0] || !id[1] || id[0] == 0xffff)
		return "names no class (MAJOR and MINOR are from 1, MAJOR to fffe)";
	memset(c, 0, sizeof(*c));
	memcpy(c->dev, s, len);
	c->id = (uint32_t)(id[0] << 16 | id[1]);
	return NULL;
}

/* The slot that a name has unless another one is there first (FNV-1a). */
static unsigned int slot_of(const char *name)
{
	uint32_t h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 16777619u;
	return (h ^ h >> 16) % RESERVE_SLOTS;
}

uint32_t reserve_classid(const struct reserve_class *parent, const char *name, enum reserve_flow flow)
{
	return TC_H_MAJ(parent->id) | slot_minor(slot_of(name), flow);
}

int reserve_mark(int sock, uint32_t classid, uint64_t bits)
{
	unsigned long pace = bits ? bits / 8 : ~0UL;
	int prio = (int)classid;

	if (setsockopt(sock, SOL_SOCKET, SO_MAX_PACING_RATE, &pace, sizeof(pace)))
		return errno;
	if (classid && setsockopt(sock, SOL_SOCKET, SO_PRIORITY, &prio, sizeof(prio)))
		return errno;
	return 0;
}

/* What is asked for must make sense whatever is there. */
static enum reserve_result check_wish(const struct reserve *r, struct reserve_msg *msg)
{
	enum reserve_flow flow;

	if (!r->parent.id)
		return reserve_say(msg, RESERVE_NO_CLASS, "no class is named to reserve bandwidth below");
	for (flow = 0; flow < RESERVE_FLOWS; flow++)
		if (r->rate[flow] && r->ceil[flow] && r->ceil[flow] < r->rate[flow])
			return reserve_say(msg, RESERVE_NO_ROOM, "what a flow may have at most is less than what it is guaranteed");
	return RESERVE_DONE;
}

/* A class that becomes an inner one loses its qdisc and what is sent by it. */
static enum reserve_result check_leaf(const struct root *root, const struct tc_class *parent, const char *dev,
				      struct reserve_msg *msg)
{
	char id[32];
	size_t i;

	class_text(id, parent->id);
	for (i = 0; i < root->nr_classes; i++)
		if (root->classes[i].parent == parent->id)
			return RESERVE_DONE;
	if (parent->leaf)
		return reserve_say(msg, RESERVE_NOT_HTB, "class %s of %s has a qdisc of its own, which would be lost: name a "
				   "class for reservations alone", id, dev);
	if (TC_H_MIN(parent->id) == root->q.defcls)
		return reserve_say(msg, RESERVE_NOT_HTB, "class %s of %s takes what no filter does, which would be sent without a "
				   "limit: name a class for reservations alone", id, dev);
	for (i = 0; i < root->nr_filters; i++)
		if (root->filters[i].classid == parent->id)
			return reserve_say(msg, RESERVE_NOT_HTB, "filters lead to class %s of %s, and would lead nowhere: name a "
					   "class for reservations alone", id, dev);
	return RESERVE_DONE;
}

/* The operator's class: is it there, can it take classes? */
static enum reserve_result find_parent(struct state *st, const struct reserve_class *want, struct root **root,
				       const struct tc_class **parent, struct reserve_msg *msg)
{
	unsigned int ifindex = if_nametoindex(want->dev), major = TC_H_MAJ(want->id) >> 16;
	char id[32];
	size_t i;

	if (!ifindex)
		return reserve_say(msg, RESERVE_NO_DEVICE, "there is no network device %s here", want->dev);
	class_text(id, want->id);
	*root = NULL;
	for (i = 0; i < st->nr_qdiscs; i++) {
		if (st->qdiscs[i].ifindex != (int)ifindex || st->qdiscs[i].handle != TC_H_MAJ(want->id))
			continue;
		if (!st->qdiscs[i].htb)
			return reserve_say(msg, RESERVE_NOT_HTB, "qdisc %x: of %s is not HTB", major, want->dev);
		if (st->qdiscs[i].offload)
			return reserve_say(msg, RESERVE_NOT_HTB, "qdisc %x: of %s is done by the device: nothing is reserved there",
					   major, want->dev);
		*root = find_root(st, (int)ifindex, want->id);
	}
	if (!*root)
		return reserve_say(msg, RESERVE_NO_CLASS, "%s has no qdisc %x: to reserve bandwidth in", want->dev, major);
	*parent = find_class(*root, want->id);
	if (!*parent)
		return reserve_say(msg, RESERVE_NO_CLASS, "qdisc %x: of %s has no class %s", major, want->dev, id);
	if (class_is_ours(*parent))
		return reserve_say(msg, RESERVE_NO_CLASS, "class %s of %s is a reservation itself", id, want->dev);
	return check_leaf(*root, *parent, want->dev, msg);
}

static enum reserve_result check_room(const struct root *root, const struct tc_class *parent, const struct reserve *r,
				      struct reserve_room *room, struct reserve_msg *msg)
{
	uint64_t want = r->rate[RESERVE_IO] + r->rate[RESERVE_MIGRATION];
	char id[32], w[32], left[32], all[32];
	size_t i;

	room->rate = parent->rate * 8;
	room->ceil = parent->ceil * 8;
	room->given = 0;
	for (i = 0; i < root->nr_classes; i++)
		if (root->classes[i].parent == parent->id)
			room->given += root->classes[i].rate * 8;
	if (want < r->rate[RESERVE_IO] || room->given > room->rate || want > room->rate - room->given) {
		class_text(id, parent->id);
		format_rate(w, sizeof(w), want);
		format_rate(left, sizeof(left), room->given > room->rate ? 0 : room->rate - room->given);
		format_rate(all, sizeof(all), room->rate);
		return reserve_say(msg, RESERVE_NO_ROOM, "%s do not fit in class %s of %s: %s of its %s are left", w, id,
				   r->parent.dev, left, all);
	}
	return RESERVE_DONE;
}

/* The filter that a flow wants; false: it wants none. */
static bool want_filter(const struct root *root, const struct reserve *r, enum reserve_flow flow, struct tc_filter *f)
{
	memset(f, 0, sizeof(*f));
	if (!r->rate[flow] || !r->port[flow] || r->peer.ss_family == AF_UNSPEC)
		return false;
	f->ifindex = root->q.ifindex;
	f->parent = root->q.handle;
	f->flower = true;
	f->match.peer = r->peer;
	f->match.port = r->port[flow];
	f->match.serving = r->serving;
	return true;
}

/* Nobody has the name, nobody has the traffic. */
static enum reserve_result check_taken(struct state *st, const struct root *root, const struct reserve *r,
				       struct reserve_msg *msg)
{
	const struct reserve *o;
	struct tc_filter f;
	char id[32];
	size_t i, k;

	for (i = 0; i < st->nr_found; i++) {
		o = &st->found[i].r;
		if (*r->name && !strcmp(o->name, r->name)) {
			class_text(id, o->parent.id);
			return reserve_say(msg, RESERVE_EXISTS, "'%s' has a reservation already, below class %s of %s", r->name, id,
					   o->parent.dev);
		}
	}
	for (k = 0; k < RESERVE_FLOWS; k++) {
		if (!want_filter(root, r, (enum reserve_flow)k, &f))
			continue;
		for (i = 0; i < root->nr_filters; i++)
			if (filter_is_ours(root, &root->filters[i]) && tc_match_same(&root->filters[i].match, &f.match)) {
				class_text(id, root->filters[i].classid);
				return reserve_say(msg, RESERVE_EXISTS, "traffic with that peer and port %u is another "
						   "reservation's already (class %s of %s)", f.match.port, id, r->parent.dev);
			}
	}
	if (r->port[RESERVE_IO] && r->port[RESERVE_IO] == r->port[RESERVE_MIGRATION] && r->peer.ss_family != AF_UNSPEC &&
	    r->rate[RESERVE_IO] && r->rate[RESERVE_MIGRATION])
		return reserve_say(msg, RESERVE_EXISTS, "I/O and migration cannot be told apart by the same port %u",
				   r->port[RESERVE_IO]);
	return RESERVE_DONE;
}

/* All checks; *root and *parent are set when it would do. */
static enum reserve_result check(struct state *st, const struct reserve *r, struct root **root, const struct tc_class **parent,
				 struct reserve_room *room, struct reserve_msg *msg)
{
	enum reserve_result res;

	res = find_parent(st, &r->parent, root, parent, msg);
	if (!res)
		res = check_taken(st, *root, r, msg);
	if (!res)
		res = check_room(*root, *parent, r, room, msg);
	return res;
}

enum reserve_result reserve_check(const struct reserve *r, struct reserve_room *room, struct reserve_msg *msg)
{
	struct reserve_room here;
	const struct tc_class *parent;
	enum reserve_result res;
	struct root *root;
	struct state st;

	msg->text[0] = 0;
	if (room)
		memset(room, 0, sizeof(*room));
	res = check_wish(r, msg);
	if (res)
		return res;
	res = state_open(&st, false, msg);
	if (!res)
		res = check(&st, r, &root, &parent, room ?: &here, msg);
	state_close(&st);
	return res;
}

/* The slot of the name, or the next one where nobody has anything. */
static bool choose_slot(const struct root *root, struct reserve *r, struct reserve_msg *msg)
{
	unsigned int first = slot_of(r->name), i;

	for (i = 0; i < RESERVE_SLOTS; i++) {
		r->slot = (first + i) % RESERVE_SLOTS;
		if (slot_is_free(root, r->slot))
			break;
	}
	if (i && i < RESERVE_SLOTS)
		reserve_say(msg, RESERVE_DONE, "the slot of '%s' is another's: sockets that were marked for it do not get its "
			    "class", r->name);
	return i < RESERVE_SLOTS;
}

/* Before the first of the operator's filters, where that can be; our filters share one. */
static uint16_t steer_pref(const struct root *root, struct reserve_msg *msg)
{
	uint16_t pref = 0, low = UINT16_MAX;
	size_t i;

	for (i = 0; i < root->nr_filters; i++) {
		const struct tc_filter *f = &root->filters[i];

		if (f->chain)
			continue;
		if (filter_is_ours(root, f))
			pref = f->pref;
		else if (f->pref < low)
			low = f->pref;
	}
	if (!pref)
		pref = low - 1 < STEER_PREF ? (uint16_t)(low - 1) : STEER_PREF;
	if (!pref) {
		do {
			pref++;
			for (i = 0; i < root->nr_filters && root->filters[i].pref != pref;)
				i++;
		} while (i < root->nr_filters);
	}
	if (low < pref)
		reserve_say(msg, RESERVE_DONE, "a filter of pref %u comes before those of the reservation (pref %u), and may take "
			    "its traffic", low, pref);
	return pref;
}

static int make(struct state *st, const struct root *root, const struct tc_class *parent, struct reserve *r,
		struct reserve_msg *msg)
{
	struct tc_class c = { .ifindex = root->q.ifindex, .parent = parent->id, .quantum = RESERVE_QUANTUM };
	struct tc_filter f;
	unsigned int flow;
	uint16_t pref = 0;
	int err;

	for (flow = 0; flow < RESERVE_FLOWS; flow++) {
		r->classid[flow] = 0;
		r->bytes[flow] = 0;
		if (!r->rate[flow])
			continue;
		r->classid[flow] = root->q.handle | slot_minor(r->slot, flow);
		c.id = r->classid[flow];
		c.rate = (r->rate[flow] + 7) / 8;
		c.ceil = r->ceil[flow] ? (r->ceil[flow] + 7) / 8 : parent->ceil > c.rate ? parent->ceil : c.rate;
		c.prio = flow;
		r->ceil[flow] = c.ceil * 8;
		err = tc_class_add(&st->tc, &c);
		if (err)
			return err;
	}
	for (flow = 0; flow < RESERVE_FLOWS; flow++) {
		if (!want_filter(root, r, flow, &f))
			continue;
		pref = pref ?: steer_pref(root, msg);
		f.pref = pref;
		f.classid = r->classid[flow];
		f.handle = FILTER_HANDLE | TC_H_MIN(f.classid);
		err = tc_filter_add(&st->tc, &f);
		if (err)
			return err;
	}
	r->label = r->classid[RESERVE_IO] ?: r->classid[RESERVE_MIGRATION];
	return tc_filter_add(&st->tc, label_filter(&f, root, r->label, r->name));
}

static enum reserve_result add(struct state *st, struct reserve *r, struct reserve_msg *msg)
{
	const struct tc_class *parent;
	struct reserve_room room;
	enum reserve_result res;
	struct reserve_msg why;
	struct root *root;
	size_t i;
	int err;

	res = check(st, r, &root, &parent, &room, msg);
	for (i = 0; res == RESERVE_EXISTS && i < st->nr_found; i++)
		if (!strcmp(st->found[i].r.name, r->name))
			*r = st->found[i].r;
	if (res)
		return res;
	if (!choose_slot(root, r, msg))
		return reserve_say(msg, RESERVE_NO_ROOM, "there are %u reservations on %s already", RESERVE_SLOTS, r->parent.dev);
	err = make(st, root, parent, r, msg);
	if (!err)
		return RESERVE_DONE;
	res = reserve_fail(st, err, msg, "cannot reserve bandwidth on %s for '%s'", r->parent.dev, r->name);
	r->label = 0;
	state_reload(st, &why);
	reserve_sweep(st, &why);
	return res;
}

enum reserve_result reserve_add(struct reserve *r, struct reserve_msg *msg)
{
	const char *bad = parse_name(r->name);
	enum reserve_result res;
	struct state st;

	msg->text[0] = 0;
	if (bad)
		return reserve_say(msg, RESERVE_FAILED, "'%s' %s", r->name, bad);
	if (!r->rate[RESERVE_IO] && !r->rate[RESERVE_MIGRATION])
		return reserve_say(msg, RESERVE_NO_CLASS, "no rate is asked for");
	res = check_wish(r, msg);
	if (res)
		return res;
	res = state_open(&st, true, msg);
	if (!res)
		res = reserve_sweep(&st, msg);
	/* Left over, but in the operator's use: his filter has to go first. */
	if (res == RESERVE_BUSY && st.nr_roots)
		res = RESERVE_DONE;
	if (!res)
		res = add(&st, r, msg);
	state_close(&st);
	return res;
}

struct by_name {
	const char *name;
};

static bool not_this(const char *name, void *arg)
{
	return strcmp(name, ((struct by_name *)arg)->name);
}

enum reserve_result reserve_remove(const char *name, struct reserve_msg *msg)
{
	struct by_name who = { name };
	enum reserve_result res;
	unsigned int n;

	res = reserve_cleanup(not_this, &who, &n, msg);
	if (res == RESERVE_BUSY && n)
		res = RESERVE_DONE;
	if (!res && !n)
		return reserve_say(msg, RESERVE_NOT_THERE, "'%s' has no reservation", name);
	return res;
}

enum reserve_result reserve_cleanup(bool (*wanted)(const char *name, void *arg), void *arg, unsigned int *removed,
				    struct reserve_msg *msg)
{
	enum reserve_result res, one;
	struct reserve_msg why;
	unsigned int n = 0;
	struct state st;
	size_t i;

	msg->text[0] = 0;
	if (removed)
		*removed = 0;
	res = state_open(&st, true, msg);
	if (!res)
		res = reserve_sweep(&st, msg);
	for (i = 0; i < st.nr_found; i++) {
		const char *name = st.found[i].r.name;

		if (!*name || (wanted && wanted(name, arg)))
			continue;
		one = remove_found(&st, &st.found[i], &why);
		if (!one)
			n++;
		if (one && !res) {
			res = one;
			*msg = why;
		}
	}
	state_close(&st);
	if (removed)
		*removed = n;
	return res;
}

enum reserve_result reserve_list(struct reserve **list, size_t *nr, struct reserve_msg *msg)
{
	enum reserve_result res;
	struct state st;
	size_t i;

	msg->text[0] = 0;
	*list = NULL;
	*nr = 0;
	res = state_open(&st, false, msg);
	if (!res) {
		*list = calloc(st.nr_found ?: 1, sizeof(**list));
		if (*list)
			for (i = 0; i < st.nr_found; i++)
				(*list)[(*nr)++] = st.found[i].r;
		else
			res = reserve_fail(&st, ENOMEM, msg, "cannot list reservations");
	}
	state_close(&st);
	return res;
}
