// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/vhost-iovm-net in the place of /dev/vhost-net: the same scripts are run on both, and what they see is compared, ioctl by
 * ioctl (results, errno, what is written back) and frame by frame (guest memory, used rings and their order, num_buffers,
 * calls, what comes at the tap's other side). Where they may differ is in a table, with the reason; a difference that is not
 * there is a failure.
 *
 * The scripts are in vnet/. VNET_REF and VNET_NODE name other nodes: with both the same, the comparison itself is tested.
 */
#include "vnet/cases.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "stor.h"

struct vnet V, W;
struct vlink L, M;

static const char *nodes[2] = { "/dev/vhost-net", "/dev/vhost-iovm-net" };

#define NO_IOTLB	"no IOTLB, which is for vIOMMUs: neither ACCESS_PLATFORM nor its messages"
#define FORK_OWNER	"an option of some kernels, which chooses the kind of thread; ours is that kernel's default"
#define PINNED		"rings are pinned when the queue starts, which needs all of them to be there"
#define AT_ONCE		"refused at once; vhost-net finds it when the queue starts"
#define ITS_LOG		"our log of the used ring is bounded by the memory table when it is written"
#define STOPS		"a queue that does not run may be stopped, whatever its addresses"

#define NO_BYTES	"a segment of no bytes breaks the ring: a driver has no use for one (virtio 1.2, 2.7.5)"
#define IND_NEXT	"virtio 1.2, 2.7.5.3.1: no NEXT beside INDIRECT; vhost-net goes on behind the table"
#define IS_NONE		"what can be no frame is dropped; vhost-net tries it again for ever"
#define LOSES		"vhost-net loses the head of what it refuses; here it is looked at again at the next kick"
#define NO_DEVICE	"vhost-net loses the heads of frames that a tap without a device does not take; they are dropped here"
#define AS_NEEDED	"only the part of a buffer that the frame needs is looked at"
#define NOT_THERE	"memory that is not there breaks the ring; vhost-net tries it again for ever"

/* A chain that vhost-net takes, and that breaks the ring for ours until it is mended. */
#define BREAKS(name, why)							\
	{ "hostile_*", "*, " name ": bad", "1 used*", "not used", why },		\
	{ "hostile_*", "*, " name ": bad", "err 0, called 1", "err 1, called 0", why }, \
	{ "hostile_rx", "*, " name ": bad", "as sent", NULL, why },			\
	{ "hostile_tx", "*, " name ": sent, 1", "100 bytes*", NULL, why },		\
	{ "hostile_*", "*, " name ": base", "2", "1", why }

/* A frame that vhost-net keeps at the head of the queue, and ours drops. */
#define DROPS(name, why)							\
	{ "hostile_tx", "*, " name ": bad", "not used", "1 used, head 5 length 0", why }, \
	{ "hostile_tx", "*, " name ": bad", "err 0, called 0", "err 0, called 1", why },	\
	{ "hostile_tx", "*, " name ": base", "1", "2", why }

/* A chain that both refuse, but whose head vhost-net has lost then. */
#define KEEPS(name)								\
	{ "hostile_*", "*, " name ": then", "not used", "1 used, head 5 length *", LOSES },	\
	{ "hostile_*", "*, " name ": then", "err 0, called 0", "err 0, called 1", LOSES },	\
	{ "hostile_rx", "*, " name ": then", NULL, "as sent", LOSES },			\
	{ "hostile_tx", "*, " name ": sent, 2", NULL, "100 bytes*", LOSES }

/* What the second one may do differently. */
static struct pair_except exceptions[] = {
	{ "features", "bit 33", "offered", "-", NO_IOTLB },
	{ "features", "set bit 33", "0", "EOPNOTSUPP", NO_IOTLB },
	{ "features", "back-end bit 1", "offered", "-", NO_IOTLB },
	{ "features", "set back-end bit 1", "0", "EOPNOTSUPP", NO_IOTLB },
	{ "read_write", "poll", "0", "0x*", NO_IOTLB },
	{ "read_write", "*read*", "*", "EINVAL", NO_IOTLB },
	{ "read_write", "write*", "EFAULT", "EINVAL", NO_IOTLB },
	{ "features", "bit 35", "-", "offered", "IN_ORDER: all heads come back in order" },
	{ "features", "set bit 35", "EOPNOTSUPP", "0", "IN_ORDER" },
	{ "*", "*: GET_FORK_FROM_OWNER", "0", "E*", FORK_OWNER },
	{ "*", "*: SET_FORK_FROM_OWNER", "*", "E*", FORK_OWNER },
	{ "*", "*: GET_FORK_FROM_OWNER", "EFAULT", "EPERM", FORK_OWNER },
	{ "addr", "*, desc 0: start", "0", "EFAULT", PINNED },
	{ "addr", "*, avail 0: start", "0", "EFAULT", PINNED },
	{ "addr", "*, desc not mapped: start", "0", "EFAULT", PINNED },
	{ "addr", "*, avail not mapped: start", "0", "EFAULT", PINNED },
	{ "addr", "*, log beyond all: start", "EFAULT", "0", ITS_LOG },
	{ "addr", "*, log beyond all: stop", "EFAULT", "0", STOPS },
	{ "addr", "* in the kernel: stop", "EFAULT", "0", STOPS },
	{ "running", "*: log address beyond all", "EINVAL", "0", ITS_LOG },
	{ "memory", "*: 65 regions", "E2BIG", "0", "the limit is 509" },
	{ "memory", "*: 509 regions", "E2BIG", "0", "the limit is 509" },
	{ "memory", "idle: size 0 at 0", "0", "EFAULT", AT_ONCE },
	{ "memory", "idle: in the kernel", "0", "EFAULT", AT_ONCE },
	{ "memory", "idle: everything", "0", "EFAULT", AT_ONCE },
	{ "log_base", "idle*: in the kernel", "0", "EFAULT", AT_ONCE },
	{ "log_base", "idle*: not canonical", "0", "EFAULT", AT_ONCE },
	{ "log_base", "idle*: the last byte", "0", "EFAULT", AT_ONCE },
	{ "log_base", "running: *", "0", "EFAULT", AT_ONCE },
	BREAKS("indirect, then next", IND_NEXT),
	BREAKS("no bytes first", NO_BYTES),
	BREAKS("no bytes in the middle", NO_BYTES),
	BREAKS("no bytes last", NO_BYTES),
	DROPS("1 byte", IS_NONE),
	DROPS("11 bytes", IS_NONE),
	DROPS("checksum outside", IS_NONE),
	KEEPS("no bytes"),
	KEEPS("wrong direction"),
	KEEPS("both directions"),
	{ "hostile_rx", "*, 4 GiB: bad", "not used", "1 used, head 5 length 112", AS_NEEDED },
	{ "hostile_rx", "*, 4 GiB: bad", "err 1, called 0", "err 0, called 1", AS_NEEDED },
	{ "hostile_rx", "*, 4 GiB: bad", NULL, "as sent", AS_NEEDED },
	{ "hostile_rx", "*, 4 GiB: base", "1", "2", AS_NEEDED },
	{ "tap_goes", "deleted: used", "none", "this", NO_DEVICE },
	{ "tap_goes", "deleted: err", "1", "0", NO_DEVICE },
	{ "hostile_tx", "*not mapped: bad", "err 0, called 0", "err 1, called 0", NOT_THERE },
	{ "*", "*: num_buffers", "a5a5", "0001", "virtio 1.2, 5.1.6.3: it is 1 without MRG_RXBUF; vhost-net leaves it alone" },
};

static void drop(void)
{
	vnet_close(&V);
	vnet_close(&W);
	vlink_close(&L);
	vlink_close(&M);
	rx_wrote = NULL;
}

static const char *setup(void)
{
	const char *ref = getenv("VNET_REF"), *ours = getenv("VNET_NODE");
	unsigned int i;

	nodes[0] = ref ? ref : nodes[0];
	nodes[1] = ours ? ours : nodes[1];
	if (stor_modprobe("vhost_net", NULL))
		return "no module vhost_net";
	for (i = 0; i < 2; i++)
		if (access(nodes[i], R_OK | W_OK))
			return nodes[i];
	L.fd = L.peer = M.fd = M.peer = -1;
	ktap_set_cleanup(drop);
	return vlink_setup();
}

static void teardown(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(exceptions); i++)
		if (exceptions[i].used)
			ktap_note("they differ %u times in %s, %s: %s", exceptions[i].used, exceptions[i].script, exceptions[i].key,
				  exceptions[i].why);
}

#define CASE(script)								\
static void run_##script(void)							\
{										\
	pair_run(#script, nodes, s_##script, drop, exceptions, ARRAY_SIZE(exceptions)); \
}
#define CASES(X)								\
	X(features) X(before_owner) X(not_owner) X(owner) X(arguments)		\
	X(bad_fds) X(num_base) X(addr) X(memory) X(log_base) X(running)		\
	X(read_write) X(tx_sizes) X(tx_cuts) X(tx_headers) X(tx_many) X(tx_links)	\
	X(rx_sizes) X(rx_cuts) X(rx_mergeable) X(rx_short) X(rx_headers)	\
	X(rx_links) X(calls) X(hostile_tx) X(hostile_rx)		\
	X(log) X(busy_loop) X(switch) X(tap_goes) X(killed) X(sndbuf)	\
	X(counters) X(header_size) X(tap_moves) X(tap_replaced) X(tap_flood)

CASES(CASE)

#define ENTRY(script)	{ #script, run_##script, 60 },
static const struct ktap_case cases[] = { CASES(ENTRY) };

int main(int argc, char **argv)
{
	return ktap_main(argc, argv, cases, ARRAY_SIZE(cases), setup, teardown);
}
