/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iovm-vhost-user: the vhost-user-blk back end process of one device of /dev/vhost-iovm.
 *
 *	main.c      options; the supervisor, which listens and keeps one child per connection
 *	listen.c    the unix socket: bind, stale sockets, hand-over by systemd
 *	session.c   the child: opens the node, event loop, back-end channel, orderly end
 *	vu_msg.c    framing of messages and file descriptors
 *	vu_proto.c  one handler per message; every size and file descriptor count is checked in a table
 *	memory.c    guest memory and the dirty log, mapped here so that the kernel can use the addresses
 *	inflight.c  the in-flight record, likewise: it lets a successor go on
 *	vring.c     what a queue was told, and when it starts and stops in the kernel
 *	kernel.c    the ioctls of the node
 *	log.c       messages on stderr, sd_notify
 *
 * Nothing of the guest's memory, the log or the record is ever read or written here: a front end that truncates a file
 * under a mapping hurts itself only.
 */
#ifndef VU_H
#define VU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vu_wire.h"

#define VU_MAX_QUEUES	64
#define VU_MAX_REGIONS	509	/* what the node takes: VHOST_IOVM_MAX_REGIONS */
#define VU_MAX_RING	1024	/* descriptors; VHOST_IOVM_MAX_RING */
#define VU_ERR_MAX	320

/* Exit status of a session's process: the device is no more; it could not be opened for too long. */
#define VU_EXIT_GONE	3
#define VU_EXIT_BUSY	4

/* Returned by the message reader at a clean end of the connection. */
#define VU_EOF		(-4096)

/**
 * struct vu_reader - a message being received
 * @fd: the connection, non-blocking reads
 * @got: bytes of header and payload received so far
 * @msg: the message; its file descriptors belong to it until taken
 */
struct vu_reader {
	int fd;
	size_t got;
	struct vu_msg msg;
};

/**
 * struct vu_region - one piece of guest memory
 * @gpa: guest physical address
 * @size: bytes
 * @uva: where the front end has it; its ring addresses refer to this
 * @offset: into the file
 * @dev: of the file, with @ino, to recognise a region that stays in a new table
 * @ino: see @dev
 * @map: the mapping, which may be larger than the region (huge pages)
 * @map_len: of @map
 * @hva: where the region's first byte is mapped in this process
 */
struct vu_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	uint64_t offset;
	dev_t dev;
	ino_t ino;
	void *map;
	size_t map_len;
	uint64_t hva;
};

struct vu_memory {
	uint32_t nr;
	struct vu_region r[VU_MAX_REGIONS];
};

/**
 * struct vu_dirty_log - the dirty bitmap that the front end lent
 * @map: its mapping, NULL when there is none
 * @map_len: of @map
 * @hva: of the bitmap's first byte
 * @size: bytes of bitmap
 */
struct vu_dirty_log {
	void *map;
	size_t map_len;
	uint64_t hva;
	uint64_t size;
};

/**
 * struct vu_inflight - the in-flight record: one piece a queue, in a file that the front end keeps
 * @map: its mapping, NULL when there is none
 * @map_len: of @map
 * @hva: of the first queue's piece
 * @nr_queues: with a piece
 * @entries: of a piece
 */
struct vu_inflight {
	void *map;
	size_t map_len;
	uint64_t hva;
	uint32_t nr_queues;
	uint32_t entries;
};

/**
 * struct vu_ring - one queue
 * @num: descriptors, 0 until told
 * @base: next head, kept over a stop
 * @addr: as the front end gave it, in its own addresses
 * @have_addr: @addr is valid
 * @enabled: by SET_VRING_ENABLE, or because the front end does not know of it
 * @running: started in the kernel
 * @kick: eventfds, -1 when there is none
 * @call: see @kick
 * @err: see @kick
 */
struct vu_ring {
	uint32_t num;
	uint32_t base;
	struct vu_wire_addr addr;
	bool have_addr;
	bool enabled;
	bool running;
	int kick;
	int call;
	int err;
};

/**
 * struct vu_shared - what a session tells its supervisor, in shared memory
 * @busy_since_ms: CLOCK_MONOTONIC; when the wait for requests in flight began, 0 when there is none
 * @busy_queue: the queue that is waited for
 * @wake: eventfd, written when a wait begins
 */
struct vu_shared {
	_Atomic uint64_t busy_since_ms;
	_Atomic uint32_t busy_queue;
	int wake;
};

/**
 * struct vu_session - one connection
 * @node_path: of the device's node
 * @node: the open node, -1
 * @rd: message reader; rd.fd is the connection
 * @signal_fd: SIGTERM and SIGINT, -1 when there is none
 * @backend_fd: back-end channel (SET_BACKEND_REQ_FD), -1
 * @config_call: eventfd that the kernel signals when the configuration changed, -1
 * @config_pending: the front end is to be told that the configuration changed, or may have
 * @offered: feature bits of the node
 * @features: acknowledged by the front end, with VHOST_USER_F_PROTOCOL_FEATURES
 * @proto: protocol features acknowledged
 * @status: as the front end set it; nothing depends on it
 * @nr_queues: of the device
 * @config_size: of the configuration space
 * @said_set_config: SET_CONFIG was refused and logged
 * @mem: guest memory
 * @log: dirty log
 * @inflight: in-flight record
 * @ring: the queues
 * @shared: for the supervisor, may be NULL
 * @exit_status: of the session's process: 0, 1, VU_EXIT_*
 * @error: what went wrong, set by vu_fail()
 */
struct vu_session {
	const char *node_path;
	int node;
	struct vu_reader rd;
	int signal_fd;
	int backend_fd;
	int config_call;
	bool config_pending;
	uint64_t offered;
	uint64_t features;
	uint64_t proto;
	uint64_t status;
	uint32_t nr_queues;
	uint32_t config_size;
	bool said_set_config;
	struct vu_memory mem;
	struct vu_dirty_log log;
	struct vu_inflight inflight;
	struct vu_ring ring[VU_MAX_QUEUES];
	struct vu_shared *shared;
	int exit_status;
	char error[VU_ERR_MAX];
};

/* vu_msg.c */
void vu_reader_init(struct vu_reader *rd, int fd);
void vu_reader_reset(struct vu_reader *rd);
int vu_msg_recv(struct vu_session *s);
int vu_msg_take_fd(struct vu_msg *msg);
int vu_msg_send(int fd, uint32_t request, uint32_t flags, const void *payload, uint32_t size, int pass_fd,
		int timeout_ms);

/* vu_proto.c */
int vu_dispatch(struct vu_session *s);
uint64_t vu_proto_offered(void);
const char *vu_request_name(uint32_t request);

/* memory.c */
int vu_map_file(struct vu_session *s, const char *what, int fd, uint64_t offset, uint64_t size, void **map,
		size_t *map_len, uint64_t *hva);
int vu_mem_set(struct vu_session *s, const struct vu_wire_region *w, uint32_t nr, struct vu_msg *msg);
int vu_mem_add(struct vu_session *s, const struct vu_wire_region *w, int fd);
int vu_mem_remove(struct vu_session *s, const struct vu_wire_region *w);
int vu_mem_translate(const struct vu_memory *mem, uint64_t uva, uint64_t len, uint64_t *hva);
void vu_mem_destroy(struct vu_session *s);
int vu_log_set(struct vu_session *s, const struct vu_wire_log *w, int fd);
int vu_log_check(struct vu_session *s, uint64_t features, const struct vu_memory *mem, const struct vu_dirty_log *log);
int vu_log_check_ring(struct vu_session *s, uint32_t i, const struct vu_wire_addr *a, const struct vu_dirty_log *log);

/* inflight.c */
int vu_inflight_make(struct vu_session *s, struct vu_wire_inflight *w, int *fd);
int vu_inflight_set(struct vu_session *s, const struct vu_wire_inflight *w, int fd);
int vu_inflight_tell(struct vu_session *s, uint32_t i);
void vu_inflight_end(struct vu_session *s);

/* vring.c */
void vu_rings_init(struct vu_session *s);
int vu_ring_set_num(struct vu_session *s, uint32_t i, uint32_t num);
int vu_ring_set_base(struct vu_session *s, uint32_t i, uint32_t base);
int vu_ring_set_addr(struct vu_session *s, const struct vu_wire_addr *a);
int vu_ring_set_kick(struct vu_session *s, uint32_t i, int fd);
int vu_ring_set_call(struct vu_session *s, uint32_t i, int fd);
int vu_ring_set_err(struct vu_session *s, uint32_t i, int fd);
int vu_ring_enable(struct vu_session *s, uint32_t i, bool on);
int vu_ring_enable_all(struct vu_session *s);
int vu_ring_get_base(struct vu_session *s, uint32_t i, uint32_t *base);
bool vu_any_running(const struct vu_session *s);
void vu_rings_drain(struct vu_session *s);
void vu_rings_close(struct vu_session *s);

/* session.c */
int vu_session_run(struct vu_session *s, int conn, const char *node_path, int signal_fd, struct vu_shared *shared);
void vu_session_reset(struct vu_session *s);

/* kernel.c: 0 or a negative errno */
int vuk_check_node(const char *path);
int vuk_open(const char *path);
void vuk_close(int node);
int vuk_set_owner(int node);
int vuk_get_features(int node, uint64_t *features);
int vuk_set_features(int node, uint64_t features);
int vuk_get_device_id(int node, uint32_t *id);
int vuk_get_queue_count(int node, uint32_t *nr);
int vuk_get_config_size(int node, uint32_t *size);
int vuk_get_config(int node, uint32_t off, void *buf, uint32_t len);
int vuk_set_config_call(int node, int fd);
int vuk_set_mem_table(int node, const struct vu_memory *mem);
int vuk_set_log_base(int node, uint64_t hva);
int vuk_set_log_fd(int node, int fd);
int vuk_set_vring_num(int node, uint32_t i, uint32_t num);
int vuk_set_vring_base(int node, uint32_t i, uint32_t base);
int vuk_get_vring_base(int node, uint32_t i, uint32_t *base);
int vuk_set_vring_addr(int node, const struct vu_wire_addr *a);
int vuk_set_inflight(int node, uint32_t i, uint32_t desc_num, uint64_t hva, uint64_t size);
int vuk_lend_socket(int node, int fd);
int vuk_set_vring_kick(int node, uint32_t i, int fd);
int vuk_set_vring_call(int node, uint32_t i, int fd);
int vuk_set_vring_err(int node, uint32_t i, int fd);

/* listen.c */
/**
 * struct vu_listener - the listening socket
 * @fd: the socket, -1 when there is none at the moment
 * @path: where it is, NULL when the socket was handed over: not ours to unlink
 * @mode: permissions
 * @group: its group, NULL = as it comes
 * @dev: of @path, with @ino, to see that it is still ours
 * @ino: see @dev
 */
struct vu_listener {
	int fd;
	const char *path;
	int mode;
	const char *group;
	dev_t dev;
	ino_t ino;
};
int vu_listen(struct vu_listener *l, const char *path, int mode, const char *group);
int vu_listen_fd(struct vu_listener *l, int fd);
void vu_listen_end(struct vu_listener *l);

/* log.c */
extern bool vu_verbose;
void vu_log_name(const char *name);
void vu_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void vu_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int vu_fail(struct vu_session *s, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void vu_notify(const char *state);
uint64_t vu_now_ms(void);

#endif /* VU_H */
