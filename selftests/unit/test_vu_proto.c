// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovm-vhost-user driven as QEMU 7.2 and 10 drive it, against a node in user space: what the kernel is told, in which
 * order, and what the front end is answered.
 */
#define _GNU_SOURCE
#include "vu_fake.h"
#include "vu_front.h"

#define START(i, base)	"NUM" #i "=128 BASE" #i "=" #base " ADDR" #i " CALL" #i " ERR" #i " KICK" #i " "

static void qemu_7_2(void)
{
	struct vu_wire_addr a;

	fe_connect();
	fe_realize(2);
	CHECK_LOG("OWNER ");
	fe_start(2);
	CHECK_LOG("FEATURES MEM(1) " START(0, 0) START(1, 1));

	/* A change of the interrupt's mask. */
	fe_eventfd(VU_SET_VRING_CALL, 0, 1);
	CHECK(fe_sync());
	CHECK_LOG("CALL1 ");

	/* Migration. */
	CHECK(fe_set_log(RAM_SIZE / 4096 / 8, 0) == 0);
	CHECK(fe_ack(VU_SET_FEATURES, &(uint64_t){ F_PROTO | F_GUEST | FAKE_F_LOG_ALL }, 8) == 0);
	a = fe_ring(0, 1);
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 0);
	a = fe_ring(1, 1);
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 0);
	CHECK_LOG("LOG FEATURES+log ADDR0+log ADDR1+log ");

	/* Stop: status 0 comes first and must not lose the rings' state. */
	fake.q[0].base = 77;
	fe_u64(VU_SET_STATUS, 0);
	fe_state(VU_SET_VRING_ENABLE, 0, 0);
	fe_state(VU_SET_VRING_ENABLE, 1, 0);
	CHECK(fe_get_base(0) == 77);
	CHECK(fe_get_base(1) == 1);
	CHECK_LOG("GET_BASE0=77 GET_BASE1=1 ");

	/* Migration was cancelled: it goes on here. */
	CHECK(fe_ack(VU_SET_FEATURES, &(uint64_t){ F_PROTO | F_GUEST }, 8) == 0);
	fe_rings(2, 77, false);
	CHECK(fe_sync());
	CHECK_LOG("FEATURES " START(0, 77) START(1, 78));
	fe_hangup();
	fe_end();
	CHECK(fe.result == 0);
	CHECK_LOG("CLOSE ");
}

static void qemu_10(void)
{
	fe_connect();
	fe_realize(1);
	fe_setup(1, F_PROTO | F_GUEST);
	CHECK(fe_ack_eventfd(VU_SET_VRING_CALL, 0) == 0);
	CHECK(fe_ack_eventfd(VU_SET_VRING_ERR, 0) == 0);
	CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
	fe_rings(1, 5, true);
	CHECK(fe_sync());
	CHECK_LOG("OWNER FEATURES MEM(1) " START(0, 5));
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 0) == 0);
	CHECK(fe_get_base(0) == 5);
	fe_u64(VU_SET_STATUS, 0);
	CHECK(fe_get(VU_GET_STATUS) == 0);
	CHECK_LOG("GET_BASE0=5 ");
	fe_end();
}

/* The device is started while memory is being migrated: F_LOG and LOG_ALL come before the log, ENABLE after it. */
static void start_while_logging(void)
{
	struct vu_wire_addr a = fe_ring(0, 1);

	fe_connect();
	fe_realize(1);
	CHECK(fe_ack(VU_SET_FEATURES, &(uint64_t){ F_PROTO | F_GUEST | FAKE_F_LOG_ALL }, 8) == 0);
	CHECK(fe_add_region(&fe_ram_region, fe.ram) == 0);
	fe_state(VU_SET_VRING_NUM, 0, RING_SIZE);
	fe_state(VU_SET_VRING_BASE, 0, 0);
	CHECK(fe_ack(VU_SET_VRING_ADDR, &a, sizeof(a)) == 0);
	CHECK(fe_ack_eventfd(VU_SET_VRING_KICK, 0) == 0);
	CHECK(fe_set_log(RAM_SIZE / 4096 / 8, 0) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 0);
	CHECK_LOG("OWNER FEATURES+log MEM(1) LOG NUM0=128 BASE0=0 ADDR0+log CALL0 ERR0 KICK0 ");
	fe_end();
}

/* A front end without protocol features: a queue is enabled from the start. */
static void no_protocol_features(void)
{
	struct vu_wire_mem m = { .nr = 1, .r = { fe_ram_region } };
	struct vu_wire_addr a = fe_ring(0, 0);

	fe_connect();
	CHECK(fe_get(VU_GET_FEATURES) > 0);
	fe_send(VU_SET_OWNER, NULL, 0);
	fe_u64(VU_SET_FEATURES, F_GUEST);
	fe_send_fds(VU_SET_MEM_TABLE, VU_FLAG_VERSION, &m, 8 + sizeof(m.r[0]), &fe.ram, 1);
	fe_state(VU_SET_VRING_NUM, 0, RING_SIZE);
	fe_state(VU_SET_VRING_BASE, 0, 9);
	fe_send(VU_SET_VRING_ADDR, &a, sizeof(a));
	CHECK(fe_sync());
	CHECK_LOG("OWNER FEATURES MEM(1) ");
	fe_eventfd(VU_SET_VRING_KICK, 0, 0);
	CHECK(fe_sync());
	CHECK_LOG("NUM0=128 BASE0=9 ADDR0 CALL0- ERR0- KICK0 ");
	CHECK(fe_get_base(0) == 9);
	CHECK_LOG("GET_BASE0=9 ");
	fe_eventfd(VU_SET_VRING_KICK, 0, 0);
	CHECK(fe_sync());
	CHECK_LOG("NUM0=128 BASE0=9 ADDR0 CALL0- ERR0- KICK0 ");
	fe_end();
}

/* Disable stops in the kernel and keeps the base, enable goes on; GET_VRING_BASE also takes the kick away. */
static void disable_enable(void)
{
	fe_connect();
	fe_realize(1);
	fe_start(1);
	fake.q[0].base = 40000;
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 0) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 0) == 0);
	CHECK(!fake.q[0].running);
	fake.log_len = 0;
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 0);
	CHECK_LOG("NUM0=128 BASE0=40000 ADDR0 CALL0 ERR0 KICK0 ");
	CHECK(fe_get_base(0) == 40000);
	CHECK(fe_get_base(0) == 40000);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 0, 1) == 0);
	CHECK_LOG("GET_BASE0=40000 ");
	/* A queue that the guest does not use is enabled all the same. */
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 3, 1) == 0);
	CHECK_LOG("");
	fe_end();
}

/* SET_MEM_TABLE while a queue runs: what stays keeps its address, what goes is unmapped after the kernel forgot it. */
static void mem_table_while_running(void)
{
	struct vu_wire_mem m = { .nr = 2, .r = { fe_ram_region, fe_hp_region } };
	int fds[2] = { fe.ram, fe.hp };
	uint64_t hva;

	fe_connect();
	fds[0] = fe.ram;
	fds[1] = fe.hp;
	fe_realize(1);
	fe_setup(1, F_PROTO | F_GUEST);
	CHECK(fe_ack_fds(VU_SET_MEM_TABLE, &m, 8 + 2 * sizeof(m.r[0]), fds, 2) == 0);
	fe_rings(1, 0, false);
	CHECK(fe_sync());
	hva = fake.table->regions[0].userspace_addr;
	CHECK(fake.table->nregions == 2 && fake.nr_maps == 2);
	m.nr = 1;
	CHECK(fe_ack_fds(VU_SET_MEM_TABLE, &m, 8 + sizeof(m.r[0]), fds, 1) == 0);
	CHECK(fake.table->nregions == 1 && fake.nr_maps == 1 && fake.table->regions[0].userspace_addr == hva);
	/* The same addresses, other memory. */
	CHECK(fe_ack_fds(VU_SET_MEM_TABLE, &m, 8 + sizeof(m.r[0]), &fds[1], 1) == 1);
	m.r[0].size = HP_SIZE;
	CHECK(fe_ack_fds(VU_SET_MEM_TABLE, &m, 8 + sizeof(m.r[0]), &fds[1], 1) == 0);
	CHECK(fake.nr_maps == 1 && fake.table->regions[0].memory_size == HP_SIZE);
	/* The kernel refuses: all stays as it was. */
	hva = fake.table->regions[0].userspace_addr;
	fake.fail_cmd = VHOST_SET_MEM_TABLE;
	fake.fail_errno = ENOMEM;
	m.r[0].size = RAM_SIZE;
	CHECK(fe_ack_fds(VU_SET_MEM_TABLE, &m, 8 + sizeof(m.r[0]), fds, 1) == 1);
	fake.fail_errno = 0;
	CHECK(fake.nr_maps == 1 && fake.table->regions[0].userspace_addr == hva);
	CHECK(fe_ack_fds(VU_SET_MEM_TABLE, &(struct vu_wire_mem){ 0 }, 8, NULL, 0) == 0);
	CHECK(fake.nr_maps == 0);
	fe_end();
}

static void mem_hotplug_while_running(void)
{
	struct vu_wire_region r = fe_hp_region;
	uint64_t hva;

	fe_connect();
	fe_realize(1);
	fe_start(1);
	hva = fake.table->regions[0].userspace_addr;
	CHECK(fe_add_region(&r, fe.hp) == 0);
	CHECK(fake.table->nregions == 2 && fake.table->regions[0].userspace_addr == hva);
	CHECK(fe_add_region(&r, fe.hp) == 1);	/* there already */
	r.offset = 0x1000;	/* the offset does not count when it is removed */
	CHECK(fe_rem_region(&r) == 0);
	CHECK(fake.table->nregions == 1 && fake.nr_maps == 1);
	CHECK(fe_rem_region(&r) == 1);
	/* An offset that is no multiple of a page: the address still fits. */
	r.offset = 0x800;
	r.size = 0x2000;
	CHECK(fe_add_region(&r, fe.hp) == 0);
	CHECK(fake.table->nregions == 2 && fake.table->regions[1].userspace_addr % 4096 == 0x800);
	/* Each eight-megabyte hole of the address space may be filled, up to the kernel's limit. */
	for (int i = 2; i <= VU_MAX_REGIONS; i++) {
		struct vu_wire_region x = { HP_GPA + i * 8 * MiB, 4096, HP_UVA + i * 8 * MiB, 4096 };

		CHECK(fe_add_region(&x, fe.hp) == (i == VU_MAX_REGIONS));
	}
	CHECK(fake.table->nregions == VU_MAX_REGIONS);
	fe_end();
}

static void config(void)
{
	struct virtio_blk_config *bc;
	struct vu_wire_config c = { .size = VU_MAX_CONFIG };

	fe_connect();
	fe_realize(1);
	/* More than there is: zeroes. */
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + c.size);
	memset(c.buf, 0xaa, sizeof(c.buf));
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == VU_CONFIG_HEADER + VU_MAX_CONFIG);
	bc = (struct virtio_blk_config *)c.buf;
	CHECK(bc->capacity == fake.capacity && bc->num_queues == FAKE_QUEUES);
	CHECK(c.buf[sizeof(*bc)] == 0 && c.buf[VU_MAX_CONFIG - 1] == 0);
	/* A piece. */
	c = (struct vu_wire_config){ .off = 20, .size = 4 };
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + c.size);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == VU_CONFIG_HEADER + 4);
	CHECK(c.off == 20 && c.buf[0] == 0 && c.buf[1] == 2);
	/* What cannot be: an answer without payload. */
	c = (struct vu_wire_config){ .off = 200, .size = 100 };
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + c.size);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == 0);
	c = (struct vu_wire_config){ .off = 0xfffffff0, .size = 100 };
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + c.size);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == 0);
	c = (struct vu_wire_config){ .size = 60 };
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + 4);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == 0);
	fake.fail_cmd = VHOST_VDPA_GET_CONFIG;
	fake.fail_errno = ENODEV;
	c = (struct vu_wire_config){ .size = 60 };
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + 60);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == 0);
	fake.fail_errno = 0;
	/* Read-only; the connection goes on, asked for an answer or not. */
	c = (struct vu_wire_config){ .off = 32, .size = 1 };
	CHECK(fe_ack(VU_SET_CONFIG, &c, VU_CONFIG_HEADER + 1) == 1);
	fe_send(VU_SET_CONFIG, &c, VU_CONFIG_HEADER + 1);
	CHECK(fe_sync());
	fe_end();
}

static void resize(void)
{
	struct virtio_blk_config *bc;
	struct vu_wire_config c = { .size = 60 };
	uint32_t header[3];

	fe_connect();
	fe_realize(1);
	fake_resize(4096);
	CHECK(fe_read(fe.channel, header, sizeof(header)));
	CHECK(header[0] == VU_BACKEND_CONFIG_CHANGE_MSG && header[1] == VU_FLAG_VERSION && header[2] == 0);
	fe_send(VU_GET_CONFIG, &c, VU_CONFIG_HEADER + 60);
	CHECK(fe_answer(VU_GET_CONFIG, &c, sizeof(c)) == VU_CONFIG_HEADER + 60);
	bc = (struct virtio_blk_config *)c.buf;
	CHECK(bc->capacity == 4096);
	/* The channel goes, then a change, then another channel: told at once. */
	close(fe.channel);
	fe.channel = -1;
	CHECK(fe_sync());
	fake_resize(8192);
	CHECK(fe_sync());
	int sv[2];

	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	fe.channel = sv[0];
	CHECK(fe_ack_fds(VU_SET_BACKEND_REQ_FD, NULL, 0, &sv[1], 1) == 0);
	close(sv[1]);
	CHECK(fe_sync());
	CHECK(fe_read(fe.channel, header, sizeof(header)));
	CHECK(header[0] == VU_BACKEND_CONFIG_CHANGE_MSG);
	/* Noise on it is thrown away. */
	CHECK(write(fe.channel, "noise", 5) == 5);
	fake_resize(2048);
	CHECK(fe_read(fe.channel, header, sizeof(header)));
	fe_end();
}

static bool channel_quiet(void)
{
	struct pollfd p = { .fd = fe.channel, .events = POLLIN };

	return fe_sync() && fe_sync() && poll(&p, 1, 0) == 0;
}

/* A change that came while the device was stopped, or nobody connected: told when it starts, once for all queues. */
static void resize_unheard(void)
{
	uint32_t header[3];

	fe_connect();
	fe_realize(2);
	CHECK(channel_quiet());
	fe_start(2);
	CHECK(fe_read(fe.channel, header, sizeof(header)));
	CHECK(header[0] == VU_BACKEND_CONFIG_CHANGE_MSG);
	CHECK(channel_quiet());
	/* One queue of two stops and starts: nothing to tell. */
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 1, 0) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 1, 1) == 0);
	CHECK(channel_quiet());
	CHECK(fe_get_base(0) >= 0 && fe_get_base(1) >= 0);
	CHECK(channel_quiet());
	fe_rings(2, 0, true);
	CHECK(fe_read(fe.channel, header, sizeof(header)));
	CHECK(channel_quiet());
	fe_end();
}

/* Destroyed under the front end: it sees the connection end, and can come back when there is a device again. */
static void destroyed(void)
{
	fe_connect();
	fe_realize(1);
	fe_start(1);
	fake.destroyed = true;
	fake_resize(fake.capacity);	/* signals */
	CHECK(fe_eof());
	fe_end();
	CHECK(fe.result == -ENODEV);
	fake.destroyed = false;
	fe_connect();
	fe_realize(1);
	fe_end();
}

/* The node is busy at first; then the front end gives up waiting. */
static void busy_node(void)
{
	fake.busy_opens = 5;
	fake.opens = 0;
	fe_connect();
	CHECK(fe_sync());
	CHECK(fake.opens == 6);
	fe_end();
	CHECK(fe.result == 0);

	fake.busy_opens = -1;
	fe_connect();
	usleep(50000);
	fe_end();
	CHECK(fe.result == -EINTR);

	fe_connect();
	CHECK(write(fe.stop_pipe[1], "x", 1) == 1);
	CHECK(fe_eof());
	fe_end();
	CHECK(fe.result == -EINTR);
	fake.busy_opens = 0;
}

/* The session comes to wait for this queue's requests. */
static bool waits_for(uint32_t queue)
{
	for (int i = 0; i < REPLY_TIMEOUT_MS; i++) {
		if (fe.shared.busy_since_ms && fe.shared.busy_queue == queue)
			return true;
		usleep(1000);
	}
	return false;
}

/*
 * Ended from outside, and by a broken message: the front end must not see the connection end before the queues have
 * stopped. When it has gone itself, nobody waits.
 */
static void orderly_end(void)
{
	struct pollfd p;
	uint64_t one = 1;

	for (int how = 0; how < 3; how++) {
		fake.hold_fd = eventfd(0, EFD_CLOEXEC);
		fe_connect();
		fe_realize(2);
		fe_start(2);
		fake.log_len = 0;
		fake.log[0] = 0;
		if (how == 0)
			CHECK(write(fe.stop_pipe[1], "x", 1) == 1);
		else if (how == 1)
			fe_state(VU_SET_VRING_ENABLE, 99, 1);
		else
			fe_hangup();
		if (how < 2) {
			p = (struct pollfd){ .fd = fe.fd, .events = POLLIN };
			CHECK(waits_for(0));
			CHECK(poll(&p, 1, 100) == 0);
			CHECK(write(fake.hold_fd, &one, 8) == 8);
			CHECK(waits_for(1));
			CHECK(poll(&p, 1, 100) == 0);
			CHECK(write(fake.hold_fd, &one, 8) == 8);
			CHECK(fe_eof());
		}
		fe_end();
		CHECK(fe.shared.busy_since_ms == 0);
		CHECK(fe.result == (how == 1 ? -ENOBUFS : 0));
		CHECK_LOG(how == 2 ? "CLOSE " : "GET_BASE0=0 GET_BASE1=1 CLOSE ");
		close(fake.hold_fd);
		fake.hold_fd = -1;
	}
}

static bool same_file(int a, int b)
{
	struct stat sa, sb;

	return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/*
 * The in-flight record: made here, kept by the front end, handed to a second session as to a successor; each queue's piece
 * is where the kernel is told, and nobody but the kernel writes there.
 */
static void inflight(void)
{
	struct vu_wire_inflight w, none;
	uint64_t piece = 16448;	/* 16 + 1024 * 16, to a multiple of 64: room for any ring */
	struct stat st;
	char *p;
	int fd;

	fe_connect();
	fe_realize(2);
	CHECK(fe_get_inflight(&w, 2, 24, &fd) == 24);
	CHECK(w.size == 2 * piece && w.offset == 0 && w.nr_queues == 2 && w.queue_size == RING_SIZE);
	CHECK(!fstat(fd, &st) && (uint64_t)st.st_size == w.size);
	CHECK(ftruncate(fd, 0) && errno == EPERM);
	p = mmap(NULL, w.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	for (uint64_t i = 0; i < w.size; i++)
		CHECK(p[i] == 0);
	CHECK(fe_set_inflight(&w, fd) == 0);
	CHECK_LOG("OWNER ");
	fe_start(3);
	CHECK_LOG("FEATURES MEM(1) NUM0=128 BASE0=0 ADDR0 INFLIGHT0=1024 CALL0 ERR0 KICK0 "
		  "NUM1=128 BASE1=1 ADDR1 INFLIGHT1=1024 CALL1 ERR1 KICK1 "
		  "NUM2=128 BASE2=2 ADDR2 INFLIGHT2=0 CALL2 ERR2- KICK2 ");
	for (int i = 0; i < 2; i++) {
		CHECK(fake.q[i].inflight.size == piece);
		p[i * piece] = 7 + i;
		CHECK(*(char *)(uintptr_t)fake.q[i].inflight.addr == 7 + i);
	}
	CHECK(same_file(fake.lent, fe.session.rd.fd));
	fe.open_files++;	/* the record */
	fe_end();

	/* The front end goes on with another session. */
	fe_connect();
	fe_realize(2);
	CHECK(fe_set_inflight(&w, fd) == 0);
	fe_start(2);
	for (int i = 0; i < 2; i++)
		CHECK(*(char *)(uintptr_t)fake.q[i].inflight.addr == 7 + i);
	/* It stops and starts a queue, without saying it again. */
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 1, 0) == 0);
	CHECK(fe_ack_state(VU_SET_VRING_ENABLE, 1, 1) == 0);
	CHECK(fake.q[1].inflight.addr && fake.q[1].running);
	/* A reset: all queues stop, and there is another record. */
	CHECK(fe_get_base(0) >= 0 && fe_get_base(1) >= 0);
	close(fd);
	fe.open_files--;
	/* One who counts without padding is answered in kind. */
	CHECK(fe_get_inflight(&w, 1, 20, &fd) == 20 && w.size == piece);
	CHECK(fe_set_inflight(&w, fd) == 0);
	close(fd);
	/* One that another back end made has the size that is named. */
	fd = fe_memfd("other", 2112);
	CHECK(fe_set_inflight(&(struct vu_wire_inflight){ 2112, 0, 1, 128, 0 }, fd) == 0);
	close(fd);
	CHECK(fe.session.inflight.entries == 128);
	CHECK(fe_get_inflight(&none, 5, 24, &fd) == -1 && fd == -1);
	CHECK(munmap(p, 2 * piece) == 0);
	fe_end();
	CHECK(fe.result == -EINVAL);
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "QEMU 7.2: realize, start, migrate, stop, go on", qemu_7_2 },
		{ "QEMU 10: acknowledged", qemu_10 },
		{ "start while logging", start_while_logging },
		{ "no protocol features", no_protocol_features },
		{ "disable and enable", disable_enable },
		{ "memory table while running", mem_table_while_running },
		{ "memory hotplug while running", mem_hotplug_while_running },
		{ "configuration space", config },
		{ "resize", resize },
		{ "resize unheard of", resize_unheard },
		{ "in-flight record", inflight },
		{ "device destroyed", destroyed },
		{ "busy node", busy_node },
		{ "orderly end", orderly_end },
	};

	return KTAP_RUN(cases);
}
