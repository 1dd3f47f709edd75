/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vhost-user protocol as it is on the wire: native endian, front end and back end being on one host. */
#ifndef VU_WIRE_H
#define VU_WIRE_H

#include <stdint.h>

/* Requests of the front end. */
enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_GET_INFLIGHT_FD = 31,
	VU_SET_INFLIGHT_FD = 32,
	VU_RESET_DEVICE = 34,
	VU_GET_MAX_MEM_SLOTS = 36,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
	VU_SET_STATUS = 39,
	VU_GET_STATUS = 40,
	VU_REQUEST_MAX = 41,
};

/* Requests of the back end, on the channel of SET_BACKEND_REQ_FD. */
#define VU_BACKEND_CONFIG_CHANGE_MSG	2

/* Protocol features, bit numbers. */
#define VU_PROTO_MQ			0
#define VU_PROTO_LOG_SHMFD		1
#define VU_PROTO_REPLY_ACK		3
#define VU_PROTO_BACKEND_REQ		5
#define VU_PROTO_CONFIG			9
#define VU_PROTO_INFLIGHT_SHMFD		12
#define VU_PROTO_CONFIGURE_MEM_SLOTS	15
#define VU_PROTO_STATUS			16

/* Feature bit that says that there are protocol features. */
#define VU_F_PROTOCOL_FEATURES		30

/* vu_msg.flags */
#define VU_FLAG_VERSION_MASK	0x3u
#define VU_FLAG_VERSION		0x1u
#define VU_FLAG_REPLY		0x4u
#define VU_FLAG_NEED_REPLY	0x8u

/* Payload of SET_VRING_KICK, CALL and ERR. */
#define VU_FD_INDEX_MASK	0xffull
#define VU_FD_NONE		0x100ull

#define VU_MAX_FDS		8
#define VU_MAX_CONFIG		256
#define VU_HEADER		12

struct vu_wire_state {
	uint32_t index;
	uint32_t num;
};

/* The layout of struct vhost_vring_addr. */
struct vu_wire_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc;
	uint64_t used;
	uint64_t avail;
	uint64_t log;
};

#define VU_ADDR_F_LOG		1u

struct vu_wire_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	uint64_t offset;
};

struct vu_wire_mem {
	uint32_t nr;
	uint32_t pad;
	struct vu_wire_region r[VU_MAX_FDS];
};

struct vu_wire_mem_reg {
	uint64_t pad;
	struct vu_wire_region r;
};

struct vu_wire_log {
	uint64_t size;
	uint64_t offset;
};

struct vu_wire_inflight {
	uint64_t size;
	uint64_t offset;
	uint16_t nr_queues;
	uint16_t queue_size;
	uint32_t pad;		/* QEMU sends it, and counts on it in the answer */
};

#define VU_INFLIGHT_MIN		20

struct vu_wire_config {
	uint32_t off;
	uint32_t size;
	uint32_t flags;
	uint8_t buf[VU_MAX_CONFIG];
};

#define VU_CONFIG_HEADER	12

/**
 * struct vu_msg - a message
 * @request: enum vu_request
 * @flags: VU_FLAG_*
 * @size: of the payload
 * @nr_fds: how many came with it
 * @fds: file descriptors, -1 once taken
 * @p: payload; what the sender did not send is zero
 *
 * @request, @flags and @size are the header, in this order.
 */
struct vu_msg {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	uint32_t nr_fds;
	int fds[VU_MAX_FDS];
	union {
		uint64_t u64;
		struct vu_wire_state state;
		struct vu_wire_addr addr;
		struct vu_wire_mem mem;
		struct vu_wire_mem_reg reg;
		struct vu_wire_log log;
		struct vu_wire_inflight inflight;
		struct vu_wire_config config;
		uint8_t raw[512];
	} p;
};

#endif /* VU_WIRE_H */
