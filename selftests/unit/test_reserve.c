// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of reserved bandwidth (userland/common/reserve.c, reserve_state.c) on a stand-in of the kernel: what is there is in
 * arrays, and each change may fail. The kernel itself: selftests/kernel/t_reserve.sh.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <unistd.h>

/* Not the host's own; see main(). */
static char lock_dir[] = "/tmp/iovm-reserve-XXXXXX", lock_file[sizeof(lock_dir) + 8];
#define RESERVE_LOCK_DIR	lock_dir
#define RESERVE_LOCK		lock_file

#include "ktap.h"
#include "../../userland/common/parse.c"
#include "../../userland/common/reserve.c"
#include "../../userland/common/reserve_state.c"

/* ---- the stand-in: device 1, called lo ---- */

#define MAX_THINGS	2000

static struct {
	struct tc_qdisc qdiscs[4];
	struct tc_class classes[MAX_THINGS];
	struct tc_filter filters[MAX_THINGS];
	size_t nr_qdiscs, nr_classes, nr_filters;
	unsigned int changes;		/* asked for so far */
	unsigned int fail_at;		/* this one and all after it fail; 0 none */
	int fail_with;
} fake;

int tc_open(struct tc *tc)
{
	memset(tc, 0, sizeof(*tc));
	return 0;
}

void tc_close(struct tc *tc)
{
	(void)tc;
}

#define COPY(list, nr, all, cond) do {						\
		size_t n_ = 0, i_;						\
		*(list) = calloc(fake.nr_##all + 1, sizeof(**(list)));		\
		for (i_ = 0; i_ < fake.nr_##all; i_++)				\
			if (fake.all[i_].ifindex && (cond))			\
				(*(list))[n_++] = fake.all[i_];			\
		*(nr) = n_;							\
	} while (0)

int tc_qdiscs(struct tc *tc, struct tc_qdisc **list, size_t *nr)
{
	(void)tc;
	COPY(list, nr, qdiscs, true);
	return 0;
}

int tc_classes(struct tc *tc, int ifindex, uint32_t qdisc, struct tc_class **list, size_t *nr)
{
	(void)tc;
	COPY(list, nr, classes, fake.classes[i_].ifindex == ifindex && TC_H_MAJ(fake.classes[i_].id) == qdisc);
	return 0;
}

int tc_filters(struct tc *tc, int ifindex, uint32_t parent, struct tc_filter **list, size_t *nr)
{
	(void)tc;
	COPY(list, nr, filters, fake.filters[i_].ifindex == ifindex && fake.filters[i_].parent == parent);
	return 0;
}

static bool fails(struct tc *tc)
{
	tc->why[0] = 0;
	return ++fake.changes >= fake.fail_at && fake.fail_at;
}

int tc_class_add(struct tc *tc, const struct tc_class *c)
{
	size_t i;

	if (fails(tc)) {
		strcpy(tc->why, "it does not want to");
		return fake.fail_with;
	}
	for (i = 0; i < fake.nr_classes; i++)
		if (fake.classes[i].ifindex == c->ifindex && fake.classes[i].id == c->id)
			return EEXIST;
	fake.classes[fake.nr_classes++] = *c;
	return 0;
}

int tc_class_del(struct tc *tc, const struct tc_class *c)
{
	size_t i, k;

	if (fails(tc))
		return fake.fail_with;
	for (i = 0; i < fake.nr_classes; i++) {
		if (fake.classes[i].ifindex != c->ifindex || fake.classes[i].id != c->id)
			continue;
		for (k = 0; k < fake.nr_filters; k++)
			if (fake.filters[k].ifindex == c->ifindex && fake.filters[k].classid == c->id)
				return EBUSY;
		for (k = 0; k < fake.nr_filters; k++)
			if (fake.filters[k].ifindex == c->ifindex && fake.filters[k].parent == c->id)
				fake.filters[k--] = fake.filters[--fake.nr_filters];
		fake.classes[i] = fake.classes[--fake.nr_classes];
		return 0;
	}
	return ENOENT;
}

static bool same_filter(const struct tc_filter *a, const struct tc_filter *b)
{
	return a->ifindex == b->ifindex && a->parent == b->parent && a->pref == b->pref && a->handle == b->handle;
}

int tc_filter_add(struct tc *tc, const struct tc_filter *f)
{
	size_t i;

	if (fails(tc))
		return fake.fail_with;
	for (i = 0; i < fake.nr_filters; i++) {
		const struct tc_filter *o = &fake.filters[i];

		if (same_filter(o, f))
			return EEXIST;
		if (o->ifindex == f->ifindex && o->parent == f->parent && o->pref == f->pref && !o->flower)
			return EINVAL;
	}
	fake.filters[fake.nr_filters++] = *f;
	return 0;
}

int tc_filter_del(struct tc *tc, const struct tc_filter *f)
{
	size_t i;

	if (fails(tc))
		return fake.fail_with;
	for (i = 0; i < fake.nr_filters; i++)
		if (same_filter(&fake.filters[i], f)) {
			fake.filters[i] = fake.filters[--fake.nr_filters];
			return 0;
		}
	return ENOENT;
}

bool tc_match_same(const struct tc_match *a, const struct tc_match *b)
{
	return a->port == b->port && a->serving == b->serving && !memcmp(&a->peer, &b->peer, sizeof(a->peer));
}

/* ---- what the tests share ---- */

#define MBIT	1000000ull
#define BYTES(mbit)	((mbit) * MBIT / 8)

static void have_class(uint32_t id, uint32_t parent, uint32_t quantum, uint64_t rate, uint64_t ceil)
{
	fake.classes[fake.nr_classes++] = (struct tc_class){ 1, id, parent, 0, quantum, 0, rate, ceil, 0 };
}

static void have_filter(uint16_t pref, uint32_t handle, uint32_t classid, bool flower)
{
	fake.filters[fake.nr_filters++] = (struct tc_filter){ .ifindex = 1, .parent = 0x10000, .handle = handle, .classid = classid,
							      .pref = pref, .flower = flower };
}

/* Only what the operator has is there. */
static bool only_his(size_t classes, size_t filters)
{
	return fake.nr_classes == classes && fake.nr_filters == filters;
}

/* 1:10 for everybody, which is the default and has a filter, 1:50 with 100mbit for reservations */
static void operator(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.qdiscs[fake.nr_qdiscs++] = (struct tc_qdisc){ 1, 0x10000, 0x10, true, false };
	fake.qdiscs[fake.nr_qdiscs++] = (struct tc_qdisc){ 1, 0x20000, 0, false, false };
	fake.qdiscs[fake.nr_qdiscs++] = (struct tc_qdisc){ 1, 0x30000, 0, true, true };
	have_class(0x10001, TC_H_ROOT, 60000, BYTES(200), BYTES(200));
	have_class(0x10010, 0x10001, 60000, BYTES(100), BYTES(200));
	have_class(0x10050, 0x10001, 60000, BYTES(100), BYTES(200));
	have_filter(20, 1, 0x10010, false);
}

static struct reserve wish(const char *name)
{
	struct sockaddr_in peer = { .sin_family = AF_INET, .sin_addr.s_addr = 0x0200000a };
	struct reserve r = { .rate = { 10 * MBIT, 20 * MBIT }, .port = { 10809, 49152 } };

	snprintf(r.name, sizeof(r.name), "%s", name);
	reserve_parse_class("lo/1:50", &r.parent);
	memcpy(&r.peer, &peer, sizeof(peer));
	return r;
}

#define EXPECT(call, want) do {									\
		enum reserve_result got_ = (call);						\
		CHECK(got_ == (want), "%s: %d, not %s: %s", #call, got_, #want, msg.text);	\
		CHECK((want) == RESERVE_DONE || *msg.text, "%s: no word", #call);		\
	} while (0)

static void classes_as_typed(void)
{
	static const struct {
		const char *text, *dev;
		uint32_t id;
	} good[] = {
		{ "eth0/1:50", "eth0", 0x10050 }, { "br0/a:ffff", "br0", 0xaffff }, { "x/y/1:1", "x/y", 0x10001 },
		{ "abcdefghijklmno/8001:1", "abcdefghijklmno", 0x80010001 },
	};
	static const char *const bad[] = {
		"", "/", "eth0", "eth0/", "eth0/1", "eth0/1:", "eth0/:1", "/1:1", "eth0/1:1:1", "eth0/1:1 ", "eth0/ 1:1",
		"eth0/-1:1", "eth0/1:-1", "eth0/g:1", "eth0/10000:1", "eth0/1:10000", "eth0/0:1", "eth0/1:0", "eth0/ffff:1",
		"abcdefghijklmnop/1:1", "eth0/0x1:1",
	};
	struct reserve_class c;
	unsigned int i;

	for (i = 0; i < sizeof(good) / sizeof(*good); i++) {
		const char *err = reserve_parse_class(good[i].text, &c);

		CHECK(!err && !strcmp(c.dev, good[i].dev) && c.id == good[i].id, "%s: %s", good[i].text, err ?: "another class");
	}
	for (i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		CHECK(reserve_parse_class(bad[i], &c), "'%s' is taken", bad[i]);
}

static void nothing_to_reserve_with(void)
{
	struct reserve r = wish("vm1");
	struct reserve_room room;
	struct reserve_msg msg;

	operator();
	EXPECT(reserve_check(&r, &room, &msg), RESERVE_DONE);
	CHECK(room.rate == 100 * MBIT && room.ceil == 200 * MBIT && !room.given, "room");
	r.parent.id = 0;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_CLASS);
	r = wish("vm1");
	strcpy(r.parent.dev, "nodev");
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_DEVICE);
	r = wish("vm1");
	r.parent.id = 0x10051;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_CLASS);
	r.parent.id = 0x40051;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_CLASS);
	r.parent.id = 0x20001;
	EXPECT(reserve_add(&r, &msg), RESERVE_NOT_HTB);
	r.parent.id = 0x30001;
	EXPECT(reserve_add(&r, &msg), RESERVE_NOT_HTB);
	r.parent.id = 0x10010;
	EXPECT(reserve_add(&r, &msg), RESERVE_NOT_HTB);
	r = wish("vm1");
	r.rate[RESERVE_IO] = 81 * MBIT;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_ROOM);
	r.rate[RESERVE_IO] = UINT64_MAX;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_ROOM);
	r = wish("vm1");
	r.rate[RESERVE_IO] = 0;
	r.rate[RESERVE_MIGRATION] = 0;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_CLASS);
	r = wish("a/b");
	EXPECT(reserve_add(&r, &msg), RESERVE_FAILED);
	r = wish("vm1");
	r.port[RESERVE_MIGRATION] = r.port[RESERVE_IO];
	EXPECT(reserve_add(&r, &msg), RESERVE_EXISTS);
	CHECK(!fake.changes, "something was changed");
	r = wish("vm1");
	fake.fail_at = 1;
	fake.fail_with = EPERM;
	EXPECT(reserve_add(&r, &msg), RESERVE_NO_RIGHT);
	CHECK(strstr(msg.text, "it does not want to"), "not the kernel's words: %s", msg.text);
}

static void names_and_traffic(void)
{
	struct reserve r = wish("vm1"), again = wish("vm1"), other = wish("vm2"), *list;
	struct reserve_msg msg;
	size_t nr;

	operator();
	EXPECT(reserve_add(&r, &msg), RESERVE_DONE);
	CHECK(r.classid[RESERVE_IO] == reserve_classid(&r.parent, "vm1", RESERVE_IO), "not the name's class");
	CHECK(fake.filters[1].pref == 19, "pref %u is not before the operator's", fake.filters[1].pref);
	again.rate[RESERVE_IO] = MBIT;
	EXPECT(reserve_add(&again, &msg), RESERVE_EXISTS);
	CHECK(again.rate[RESERVE_IO] == 10 * MBIT && again.classid[RESERVE_IO] == r.classid[RESERVE_IO], "it is not what exists");
	EXPECT(reserve_add(&other, &msg), RESERVE_EXISTS);
	other.port[RESERVE_IO] = 0;
	other.port[RESERVE_MIGRATION] = 49153;
	EXPECT(reserve_add(&other, &msg), RESERVE_DONE);
	EXPECT(reserve_list(&list, &nr, &msg), RESERVE_DONE);
	CHECK(nr == 2, "%zu reservations", nr);
	free(list);
	EXPECT(reserve_remove("vm1", &msg), RESERVE_DONE);
	EXPECT(reserve_remove("vm1", &msg), RESERVE_NOT_THERE);
	EXPECT(reserve_remove("vm2", &msg), RESERVE_DONE);
	CHECK(only_his(3, 1), "%zu classes, %zu filters", fake.nr_classes, fake.nr_filters);
}

/* Fails at each change, and so do those that would take it back: what is left over goes later. */
static void failures(void)
{
	enum reserve_result res = RESERVE_FAILED;
	struct reserve_msg msg;
	unsigned int at, removed;
	struct reserve r, *list;
	size_t nr, i;

	for (at = 1; res && at < 20; at++) {
		operator();
		r = wish("vm1");
		fake.fail_at = at;
		fake.fail_with = ENOMEM;
		res = reserve_add(&r, &msg);
		CHECK(res == RESERVE_FAILED || !res, "change %u: %d", at, res);
		reserve_list(&list, &nr, &msg);
		for (i = 0; i < nr && res; i++)
			CHECK(!list[i].label && !*list[i].name, "change %u: it is reserved", at);
		free(list);
		fake.fail_at = 0;
		EXPECT(reserve_cleanup(NULL, NULL, &removed, &msg), RESERVE_DONE);
		CHECK(only_his(3, 1), "change %u: %zu classes, %zu filters", at, fake.nr_classes, fake.nr_filters);
	}
	CHECK(at == 7, "%u changes, not 5", at - 2);
}

static bool is_vm2(const char *name, void *arg)
{
	++*(unsigned int *)arg;
	return !strcmp(name, "vm2");
}

static void cleanup(void)
{
	struct reserve_msg msg;
	unsigned int removed, asked = 0, i;
	struct reserve r, *list;
	char name[16];
	size_t nr;

	operator();
	for (i = 1; i <= 4; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		r = wish(name);
		r.rate[RESERVE_IO] = i == 3 ? 0 : MBIT;
		r.rate[RESERVE_MIGRATION] = i == 3 ? MBIT : 0;
		r.port[RESERVE_IO] = (uint16_t)i;
		r.port[RESERVE_MIGRATION] = (uint16_t)(i + 10);
		EXPECT(reserve_add(&r, &msg), RESERVE_DONE);
	}
	EXPECT(reserve_cleanup(is_vm2, &asked, &removed, &msg), RESERVE_DONE);
	CHECK(removed == 3 && asked == 4, "%u removed, %u asked about", removed, asked);
	EXPECT(reserve_list(&list, &nr, &msg), RESERVE_DONE);
	CHECK(nr == 1 && !strcmp(list[0].name, "vm2") && list[0].label, "not vm2 alone");
	free(list);
	/* a filter of the operator's leads to it: it stays until that is gone */
	have_filter(30, 2, reserve_classid(&r.parent, "vm2", RESERVE_IO), false);
	EXPECT(reserve_remove("vm2", &msg), RESERVE_BUSY);
	EXPECT(reserve_cleanup(NULL, NULL, &removed, &msg), RESERVE_BUSY);
	CHECK(!removed && only_his(4, 4), "%u removed, %zu classes, %zu filters", removed, fake.nr_classes, fake.nr_filters);
	r = wish("vm9");
	EXPECT(reserve_add(&r, &msg), RESERVE_DONE);
	EXPECT(reserve_remove("vm9", &msg), RESERVE_DONE);
	fake.nr_filters--;
	EXPECT(reserve_cleanup(NULL, NULL, &removed, &msg), RESERVE_DONE);
	CHECK(only_his(3, 1), "%zu classes, %zu filters", fake.nr_classes, fake.nr_filters);
}

/* Classes and filters that look nearly like ours */
static void foreign(void)
{
	struct reserve r = wish("vm1");
	uint32_t io = reserve_classid(&r.parent, "vm1", RESERVE_IO);
	struct reserve_msg msg;
	unsigned int removed;

	operator();
	have_class(io, 0x10001, 60000, 1000, 1000);
	have_class(0x10051, 0x10001, RESERVE_QUANTUM, 1000, 1000);
	have_class(0x1e002, 0x10001, RESERVE_QUANTUM, 1000, 1000);
	have_class(0x1f000, 0x10001, RESERVE_QUANTUM, 1000, 1000);
	have_filter(21, FILTER_HANDLE | 0xe000, 0, false);
	have_filter(22, FILTER_HANDLE | 0xe000, 0x10010, true);
	have_filter(22, FILTER_HANDLE | 0xe002, 0, true);
	EXPECT(reserve_add(&r, &msg), RESERVE_DONE);
	CHECK(r.classid[RESERVE_IO] != io && *msg.text, "it has the operator's class, or no word of it");
	EXPECT(reserve_cleanup(NULL, NULL, &removed, &msg), RESERVE_DONE);
	CHECK(removed == 1 && only_his(7, 4), "%u removed, %zu classes, %zu filters", removed, fake.nr_classes, fake.nr_filters);
}

static void prefs(void)
{
	static const struct {
		uint16_t foreign[4];
		uint16_t ours;
		bool word;
	} table[] = {
		{ { 0 }, 0x1000, false }, { { 49152, 49151 }, 0x1000, false }, { { 10, 5 }, 4, false },
		{ { 0x1001 }, 0x1000, false }, { { 2 }, 1, false }, { { 1 }, 2, true }, { { 1, 2, 4 }, 3, true },
	};
	struct reserve_msg msg;
	struct reserve r;
	unsigned int i, k;

	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		operator();
		fake.nr_filters = 0;
		for (k = 0; k < 4 && table[i].foreign[k]; k++)
			have_filter(table[i].foreign[k], 1, 0, false);
		r = wish("vm1");
		EXPECT(reserve_add(&r, &msg), RESERVE_DONE);
		CHECK(fake.filters[k].pref == table[i].ours && !*msg.text == !table[i].word, "line %u: pref %u: %s", i,
		      fake.filters[k].pref, msg.text);
	}
}

static void all_slots(void)
{
	struct reserve_msg msg;
	unsigned int i, removed;
	struct reserve r;
	char name[16];

	operator();
	for (i = 0; i <= RESERVE_SLOTS; i++) {
		snprintf(name, sizeof(name), "vm%u", i);
		r = wish(name);
		r.rate[RESERVE_IO] = r.rate[RESERVE_MIGRATION] = 1000;
		r.peer.ss_family = AF_UNSPEC;
		EXPECT(reserve_add(&r, &msg), i < RESERVE_SLOTS ? RESERVE_DONE : RESERVE_NO_ROOM);
	}
	EXPECT(reserve_cleanup(NULL, NULL, &removed, &msg), RESERVE_DONE);
	CHECK(removed == RESERVE_SLOTS && only_his(3, 1), "%u removed, %zu classes, %zu filters", removed, fake.nr_classes,
	      fake.nr_filters);
}

static void marks(void)
{
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), prio = 0, err;
	unsigned long pace = 0;
	socklen_t len = sizeof(pace);

	err = reserve_mark(s, 0, 80 * MBIT);
	getsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &pace, &len);
	CHECK(!err && pace == 10 * MBIT, "%d, paced at %lu", err, pace);
	err = reserve_mark(s, 0x1e000, 0);
	len = sizeof(prio);
	CHECK(!getsockopt(s, SOL_SOCKET, SO_PRIORITY, &prio, &len), "no priority");
	CHECK(err ? err == EPERM && !prio : prio == 0x1e000, "%d, priority %x", err, prio);
	len = sizeof(pace);
	CHECK(!getsockopt(s, SOL_SOCKET, SO_MAX_PACING_RATE, &pace, &len) && pace == ~0UL, "paced at %lu", pace);
	close(s);
	CHECK(reserve_mark(-1, 0, 0) == EBADF, "no socket");
}

static void locked(void)
{
	struct reserve r = wish("vm1");
	struct reserve_msg msg;
	int fd;

	operator();
	fd = open(lock_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	CHECK(!flock(fd, LOCK_EX | LOCK_NB), "the lock is still held");
	EXPECT(reserve_add(&r, &msg), RESERVE_BUSY);
	EXPECT(reserve_check(&r, NULL, &msg), RESERVE_DONE);
	close(fd);
	EXPECT(reserve_add(&r, &msg), RESERVE_DONE);
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "classes as they are typed", classes_as_typed },
		{ "nothing to reserve with", nothing_to_reserve_with },
		{ "a name and its traffic are taken", names_and_traffic },
		{ "a failure at each step", failures },
		{ "what is not wanted goes", cleanup },
		{ "what is nearly ours stays", foreign },
		{ "before the operator's filters", prefs },
		{ "all slots", all_slots },
		{ "marked sockets", marks },
		{ "another process is at it", locked },
	};
	int rc;

	if (!mkdtemp(lock_dir)) {
		puts("Bail out! no directory");
		return 1;
	}
	snprintf(lock_file, sizeof(lock_file), "%s/lock", lock_dir);
	rc = KTAP_RUN(cases);
	unlink(lock_file);
	rmdir(lock_dir);
	return rc;
}
