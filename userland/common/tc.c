// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Traffic control over rtnetlink. See tc.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/if_ether.h>
#include <linux/gen_stats.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_gact.h>
#include <netinet/in.h>

#include "tc.h"

#define DUMP_ATTEMPTS	10	/* a dump begins anew when something changed meanwhile */
#define COOKIE_PIECE	16	/* TC_COOKIE_MAX_SIZE of the kernel */
#define TICK_NS		64	/* the unit of HTB's buffers; the same since 2.6.31 */
#define MIN_BURST	6144	/* bytes */

/* What a dump collects */
struct list {
	char *items;
	size_t nr, max, size;
};

static void *list_next(struct list *l)
{
	if (l->nr == l->max) {
		size_t max = l->max ? 2 * l->max : 16;
		char *items = reallocarray(l->items, max, l->size);

		if (!items)
			return NULL;
		l->items = items;
		l->max = max;
	}
	return memset(l->items + l->nr * l->size, 0, l->size);
}

int tc_open(struct tc *tc)
{
	int on = 1, err;

	memset(tc, 0, sizeof(*tc));
	tc->nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!tc->nl)
		return errno;
	if (mnl_socket_bind(tc->nl, 0, MNL_SOCKET_AUTOPID)) {
		err = errno;
		tc_close(tc);
		return err;
	}
	/* Without these there are no sentences. */
	mnl_socket_setsockopt(tc->nl, NETLINK_EXT_ACK, &on, sizeof(on));
	mnl_socket_setsockopt(tc->nl, NETLINK_CAP_ACK, &on, sizeof(on));
	return 0;
}

void tc_close(struct tc *tc)
{
	if (tc->nl)
		mnl_socket_close(tc->nl);
	tc->nl = NULL;
}

static struct tcmsg *request(char *buf, uint16_t type, uint16_t flags, int ifindex)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct tcmsg *t;

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	t = mnl_nlmsg_put_extra_header(nlh, sizeof(*t));
	t->tcm_family = AF_UNSPEC;
	t->tcm_ifindex = ifindex;
	return t;
}

/* The kernel's sentence, behind what it repeats of the request. */
static int take_error(const struct nlmsghdr *nlh, void *data)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);
	size_t off = sizeof(*e);
	const struct nlattr *a;
	struct tc *tc = data;

	if (nlh->nlmsg_len < mnl_nlmsg_size(sizeof(*e))) {
		errno = EBADMSG;
		return MNL_CB_ERROR;
	}
	if (nlh->nlmsg_flags & NLM_F_ACK_TLVS) {
		if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
			off += e->msg.nlmsg_len - sizeof(struct nlmsghdr);
		mnl_attr_for_each(a, nlh, off)
			if (mnl_attr_get_type(a) == NLMSGERR_ATTR_MSG && !mnl_attr_validate(a, MNL_TYPE_NUL_STRING) && e->error)
				strncpy(tc->why, mnl_attr_get_str(a), sizeof(tc->why) - 1);
	}
	errno = -e->error;
	return e->error ? MNL_CB_ERROR : MNL_CB_STOP;
}

/* What take() is told with each message of a dump */
struct taking {
	struct list list;
	int (*take)(const struct nlmsghdr *nlh, struct list *l);
	struct tc *tc;
};

static int take_item(const struct nlmsghdr *nlh, void *data)
{
	struct taking *t = data;

	if (!t->take || nlh->nlmsg_len < mnl_nlmsg_size(sizeof(struct tcmsg)))
		return MNL_CB_OK;
	return t->take(nlh, &t->list);
}

static int take_failure(const struct nlmsghdr *nlh, void *data)
{
	struct taking *t = data;

	return take_error(nlh, t->tc);
}

/* Send a request, and take what comes until it is answered. */
static int talk(struct tc *tc, struct nlmsghdr *nlh, struct taking *t)
{
	static mnl_cb_t control[] = { [NLMSG_ERROR] = take_failure };
	char buf[32768] __attribute__((aligned(8)));
	unsigned int port = mnl_socket_get_portid(tc->nl);
	ssize_t n;
	int rc;

	nlh->nlmsg_seq = ++tc->seq;
	tc->why[0] = 0;
	t->tc = tc;
	if (mnl_socket_sendto(tc->nl, nlh, nlh->nlmsg_len) < 0)
		return errno;
	do {
		n = mnl_socket_recvfrom(tc->nl, buf, sizeof(buf));
		if (n < 0 && errno == EINTR) {
			rc = MNL_CB_OK;
			continue;
		}
		if (n < 0)
			return errno;
		rc = mnl_cb_run2(buf, (size_t)n, tc->seq, port, take_item, t, control, sizeof(control) / sizeof(*control));
	} while (rc > MNL_CB_STOP);
	return rc < 0 ? errno : 0;
}

static int change(struct tc *tc, void *buf)
{
	struct nlmsghdr *nlh = buf;
	struct taking t = { 0 };

	nlh->nlmsg_flags |= NLM_F_ACK;
	return talk(tc, nlh, &t);
}

static int dump(struct tc *tc, void *buf, int (*take)(const struct nlmsghdr *, struct list *), size_t size, void *list, size_t *nr)
{
	struct taking t = { .take = take, .list.size = size };
	int attempt, err = 0;

	for (attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
		t.list.nr = 0;
		err = talk(tc, buf, &t);
		if (!err) {
			*(char **)list = t.list.items;
			*nr = t.list.nr;
			return 0;
		}
		if (err != EINTR)
			break;
		/* The rest of that dump is still to come. */
		tc_close(tc);
		err = tc_open(tc);
		if (err)
			break;
		err = EINTR;
	}
	free(t.list.items);
	return err;
}

/* Attributes by type: up to max, NULL where there is none. */
struct table {
	const struct nlattr **at;
	unsigned int max;
};

static int take_attr(const struct nlattr *a, void *data)
{
	struct table *t = data;

	if (mnl_attr_get_type(a) <= t->max)
		t->at[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

static void attrs_of(const struct nlmsghdr *nlh, const struct nlattr **at)
{
	struct table t = { at, TCA_MAX };

	mnl_attr_parse(nlh, sizeof(struct tcmsg), take_attr, &t);
}

static void attrs_in(const struct nlattr *nest, const struct nlattr **at, unsigned int max)
{
	struct table t = { at, max };

	if (nest)
		mnl_attr_parse_nested(nest, take_attr, &t);
}

/* Is there an attribute with so many bytes? Then they are copied. */
static bool get(const struct nlattr *a, void *to, size_t n)
{
	if (!a || mnl_attr_get_payload_len(a) < n)
		return false;
	memcpy(to, mnl_attr_get_payload(a), n);
	return true;
}

static bool kind_is(const struct nlattr *a, const char *kind)
{
	return a && !mnl_attr_validate(a, MNL_TYPE_NUL_STRING) && !strcmp(mnl_attr_get_str(a), kind);
}

static int take_qdisc(const struct nlmsghdr *nlh, struct list *l)
{
	const struct nlattr *tb[TCA_MAX + 1] = { 0 }, *opt[TCA_HTB_MAX + 1] = { 0 };
	const struct tcmsg *t = mnl_nlmsg_get_payload(nlh);
	struct tc_qdisc *q = list_next(l);
	struct tc_htb_glob glob;

	if (!q)
		return MNL_CB_ERROR;
	attrs_of(nlh, tb);
	q->ifindex = t->tcm_ifindex;
	q->handle = t->tcm_handle;
	q->htb = kind_is(tb[TCA_KIND], "htb");
	if (q->htb) {
		attrs_in(tb[TCA_OPTIONS], opt, TCA_HTB_MAX);
		if (get(opt[TCA_HTB_INIT], &glob, sizeof(glob)))
			q->defcls = glob.defcls;
		q->offload = opt[TCA_HTB_OFFLOAD];
	}
	l->nr++;
	return MNL_CB_OK;
}

static int take_class(const struct nlmsghdr *nlh, struct list *l)
{
	const struct nlattr *tb[TCA_MAX + 1] = { 0 }, *opt[TCA_HTB_MAX + 1] = { 0 }, *st[TCA_STATS_MAX + 1] = { 0 };
	const struct tcmsg *t = mnl_nlmsg_get_payload(nlh);
	struct tc_class *c = list_next(l);
	struct tc_htb_opt parms;

	if (!c)
		return MNL_CB_ERROR;
	attrs_of(nlh, tb);
	if (!kind_is(tb[TCA_KIND], "htb"))
		return MNL_CB_OK;
	attrs_in(tb[TCA_OPTIONS], opt, TCA_HTB_MAX);
	if (!get(opt[TCA_HTB_PARMS], &parms, sizeof(parms)))
		return MNL_CB_OK;
	c->ifindex = t->tcm_ifindex;
	c->id = t->tcm_handle;
	c->parent = t->tcm_parent;
	c->leaf = t->tcm_info;
	c->quantum = parms.quantum;
	c->prio = parms.prio;
	c->rate = parms.rate.rate;
	c->ceil = parms.ceil.rate;
	get(opt[TCA_HTB_RATE64], &c->rate, sizeof(c->rate));
	get(opt[TCA_HTB_CEIL64], &c->ceil, sizeof(c->ceil));
	attrs_in(tb[TCA_STATS2], st, TCA_STATS_MAX);
	get(st[TCA_STATS_BASIC], &c->bytes, sizeof(c->bytes));
	l->nr++;
	return MNL_CB_OK;
}

static void take_cookies(const struct nlattr *acts, struct tc_filter *f)
{
	const struct nlattr *a, *tb[TCA_ACT_MAX + 1];
	size_t n;

	mnl_attr_for_each_nested(a, acts) {
		memset(tb, 0, sizeof(tb));
		attrs_in(a, tb, TCA_ACT_MAX);
		n = tb[TCA_ACT_COOKIE] ? mnl_attr_get_payload_len(tb[TCA_ACT_COOKIE]) : 0;
		if (!n || n > sizeof(f->cookie) - f->cookie_len)
			continue;
		get(tb[TCA_ACT_COOKIE], f->cookie + f->cookie_len, n);
		f->cookie_len += (unsigned int)n;
	}
}

static void take_match(const struct nlattr **fl, struct tc_match *m)
{
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)&m->peer;
	struct sockaddr_in *four = (struct sockaddr_in *)&m->peer;
	uint16_t port;

	if (get(fl[TCA_FLOWER_KEY_IPV4_DST], &four->sin_addr, sizeof(four->sin_addr)))
		m->peer.ss_family = AF_INET;
	else if (get(fl[TCA_FLOWER_KEY_IPV6_DST], &six->sin6_addr, sizeof(six->sin6_addr)))
		m->peer.ss_family = AF_INET6;
	m->serving = get(fl[TCA_FLOWER_KEY_TCP_SRC], &port, sizeof(port));
	if (m->serving || get(fl[TCA_FLOWER_KEY_TCP_DST], &port, sizeof(port)))
		m->port = ntohs(port);
}

static int take_filter(const struct nlmsghdr *nlh, struct list *l)
{
	const struct nlattr *tb[TCA_MAX + 1] = { 0 }, *fl[TCA_FLOWER_MAX + 1] = { 0 };
	const struct tcmsg *t = mnl_nlmsg_get_payload(nlh);
	struct tc_filter *f = list_next(l);

	if (!f)
		return MNL_CB_ERROR;
	attrs_of(nlh, tb);
	f->ifindex = t->tcm_ifindex;
	f->parent = t->tcm_parent;
	f->handle = t->tcm_handle;
	f->pref = (uint16_t)(t->tcm_info >> 16);
	f->flower = kind_is(tb[TCA_KIND], "flower");
	get(tb[TCA_CHAIN], &f->chain, sizeof(f->chain));
	attrs_in(tb[TCA_OPTIONS], fl, TCA_FLOWER_MAX);
	/* It has the same number in flower, u32, matchall, basic, fw and route. */
	if (!kind_is(tb[TCA_KIND], "bpf"))
		get(fl[TCA_FLOWER_CLASSID], &f->classid, sizeof(f->classid));
	if (f->flower) {
		take_match(fl, &f->match);
		if (fl[TCA_FLOWER_ACT])
			take_cookies(fl[TCA_FLOWER_ACT], f);
	}
	l->nr++;
	return MNL_CB_OK;
}

int tc_qdiscs(struct tc *tc, struct tc_qdisc **list, size_t *nr)
{
	char buf[256] __attribute__((aligned(8)));

	request(buf, RTM_GETQDISC, NLM_F_DUMP, 0);
	return dump(tc, buf, take_qdisc, sizeof(**list), list, nr);
}

int tc_classes(struct tc *tc, int ifindex, uint32_t qdisc, struct tc_class **list, size_t *nr)
{
	char buf[256] __attribute__((aligned(8)));

	request(buf, RTM_GETTCLASS, NLM_F_DUMP, ifindex)->tcm_parent = qdisc;
	return dump(tc, buf, take_class, sizeof(**list), list, nr);
}

int tc_filters(struct tc *tc, int ifindex, uint32_t parent, struct tc_filter **list, size_t *nr)
{
	char buf[256] __attribute__((aligned(8)));

	request(buf, RTM_GETTFILTER, NLM_F_DUMP, ifindex)->tcm_parent = parent;
	return dump(tc, buf, take_filter, sizeof(**list), list, nr);
}

/* How long a burst at this rate takes: 2 ms worth, or a few packets. */
static uint32_t burst_ticks(uint64_t rate)
{
	uint64_t burst = rate / 500 > MIN_BURST ? rate / 500 : MIN_BURST;
	unsigned __int128 ticks = (unsigned __int128)burst * 1000000000 / rate / TICK_NS;

	return ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks;
}

static void put_rate(struct tc_ratespec *r, uint64_t rate)
{
	r->rate = rate > UINT32_MAX ? UINT32_MAX : (uint32_t)rate;
	r->linklayer = TC_LINKLAYER_ETHERNET;	/* the kernel works out times by itself */
}

int tc_class_add(struct tc *tc, const struct tc_class *c)
{
	char buf[1024] __attribute__((aligned(8)));
	struct tc_htb_opt parms = { .quantum = c->quantum, .prio = c->prio };
	struct nlmsghdr *nlh = (struct nlmsghdr *)buf;
	struct nlattr *nest;
	struct tcmsg *t;

	if (!c->rate || !c->ceil)
		return EINVAL;
	t = request(buf, RTM_NEWTCLASS, NLM_F_CREATE | NLM_F_EXCL, c->ifindex);
	t->tcm_handle = c->id;
	t->tcm_parent = c->parent;
	put_rate(&parms.rate, c->rate);
	put_rate(&parms.ceil, c->ceil);
	parms.buffer = burst_ticks(c->rate);
	parms.cbuffer = burst_ticks(c->ceil);
	mnl_attr_put_strz(nlh, TCA_KIND, "htb");
	nest = mnl_attr_nest_start(nlh, TCA_OPTIONS);
	if (c->rate > UINT32_MAX)
		mnl_attr_put_u64(nlh, TCA_HTB_RATE64, c->rate);
	if (c->ceil > UINT32_MAX)
		mnl_attr_put_u64(nlh, TCA_HTB_CEIL64, c->ceil);
	mnl_attr_put(nlh, TCA_HTB_PARMS, sizeof(parms), &parms);
	mnl_attr_nest_end(nlh, nest);
	return change(tc, buf);
}

int tc_class_del(struct tc *tc, const struct tc_class *c)
{
	char buf[256] __attribute__((aligned(8)));

	request(buf, RTM_DELTCLASS, 0, c->ifindex)->tcm_handle = c->id;
	return change(tc, buf);
}

static void put_match(struct nlmsghdr *nlh, const struct tc_match *m)
{
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&m->peer;
	const struct sockaddr_in *four = (const struct sockaddr_in *)&m->peer;
	uint16_t port = htons(m->port);

	if (m->peer.ss_family != AF_INET && m->peer.ss_family != AF_INET6)
		return;
	mnl_attr_put_u16(nlh, TCA_FLOWER_KEY_ETH_TYPE, htons(m->peer.ss_family == AF_INET ? ETH_P_IP : ETH_P_IPV6));
	mnl_attr_put_u8(nlh, TCA_FLOWER_KEY_IP_PROTO, IPPROTO_TCP);
	if (m->peer.ss_family == AF_INET)
		mnl_attr_put(nlh, TCA_FLOWER_KEY_IPV4_DST, sizeof(four->sin_addr), &four->sin_addr);
	else
		mnl_attr_put(nlh, TCA_FLOWER_KEY_IPV6_DST, sizeof(six->sin6_addr), &six->sin6_addr);
	mnl_attr_put(nlh, m->serving ? TCA_FLOWER_KEY_TCP_SRC : TCA_FLOWER_KEY_TCP_DST, sizeof(port), &port);
}

/* The cookie in pieces, each the cookie of an action that does nothing. */
static void put_cookie(struct nlmsghdr *nlh, const uint8_t *cookie, unsigned int len)
{
	struct nlattr *acts, *act, *opt;
	struct tc_gact gact = { 0 };
	uint16_t order = 1;
	unsigned int n;

	acts = mnl_attr_nest_start(nlh, TCA_FLOWER_ACT);
	for (; len; len -= n, cookie += n) {
		n = len < COOKIE_PIECE ? len : COOKIE_PIECE;
		gact.action = len > n ? TC_ACT_PIPE : TC_ACT_OK;
		act = mnl_attr_nest_start(nlh, order++);
		mnl_attr_put_strz(nlh, TCA_ACT_KIND, "gact");
		mnl_attr_put(nlh, TCA_ACT_COOKIE, n, cookie);
		opt = mnl_attr_nest_start(nlh, TCA_ACT_OPTIONS);
		mnl_attr_put(nlh, TCA_GACT_PARMS, sizeof(gact), &gact);
		mnl_attr_nest_end(nlh, opt);
		mnl_attr_nest_end(nlh, act);
	}
	mnl_attr_nest_end(nlh, acts);
}

static struct nlmsghdr *filter_request(char *buf, uint16_t type, uint16_t flags, const struct tc_filter *f)
{
	struct tcmsg *t = request(buf, type, flags, f->ifindex);

	t->tcm_parent = f->parent;
	t->tcm_handle = f->handle;
	t->tcm_info = (uint32_t)f->pref << 16 | htons(ETH_P_ALL);
	mnl_attr_put_strz((struct nlmsghdr *)buf, TCA_KIND, "flower");
	return (struct nlmsghdr *)buf;
}

int tc_filter_add(struct tc *tc, const struct tc_filter *f)
{
	char buf[2048] __attribute__((aligned(8)));
	struct nlmsghdr *nlh;
	struct nlattr *nest;

	if (f->cookie_len > TC_COOKIE_MAX)
		return EINVAL;
	nlh = filter_request(buf, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, f);
	nest = mnl_attr_nest_start(nlh, TCA_OPTIONS);
	if (f->classid)
		mnl_attr_put_u32(nlh, TCA_FLOWER_CLASSID, f->classid);
	mnl_attr_put_u32(nlh, TCA_FLOWER_FLAGS, TCA_CLS_FLAGS_SKIP_HW);
	put_match(nlh, &f->match);
	if (f->cookie_len)
		put_cookie(nlh, f->cookie, f->cookie_len);
	mnl_attr_nest_end(nlh, nest);
	return change(tc, buf);
}

int tc_filter_del(struct tc *tc, const struct tc_filter *f)
{
	char buf[256] __attribute__((aligned(8)));

	filter_request(buf, RTM_DELTFILTER, 0, f);
	return change(tc, buf);
}

bool tc_match_same(const struct tc_match *a, const struct tc_match *b)
{
	if (a->peer.ss_family != b->peer.ss_family || a->port != b->port || a->serving != b->serving)
		return false;
	if (a->peer.ss_family == AF_INET)
		return ((const struct sockaddr_in *)&a->peer)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)&b->peer)->sin_addr.s_addr;
	return !memcmp(&((const struct sockaddr_in6 *)&a->peer)->sin6_addr,
		       &((const struct sockaddr_in6 *)&b->peer)->sin6_addr, sizeof(struct in6_addr));
}
