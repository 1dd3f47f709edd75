/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bandwidth for a guest that migrates: a guaranteed rate for its rerouted I/O and one for the migration, in HTB classes below the
 * class that the operator named.
 *
 * What there is, is in the kernel alone; no file is kept. A reservation is a slot, 0 to 255, of an HTB qdisc MAJOR: and is
 *
 *   class MAJOR:eXX0	for I/O, XX the slot, and MAJOR:eXX1 for the migration; quantum RESERVE_QUANTUM
 *   filter		of the qdisc, flower, for each that has a port: TCP to the peer; handle 0x696f0000 + the class's minor
 *   label		a flower filter of the first of these classes itself, where it is never looked at; handle 0x696f766d, the
 *			name is the cookie of its actions
 *
 * The label comes last and goes first: what has none is left over from somebody who died, and is removed by whoever adds or
 * removes something. Writers take turns by a lock on RESERVE_LOCK, which they wait for 5 s at most; all else takes milliseconds.
 *
 * Sockets need no filter when they were marked with the class (reserve_mark()), which may be before it exists: the slot of a name
 * is always the same unless another name's reservation has it. A socket that the kernel module has cannot be marked any more.
 */
#ifndef IOVM_RESERVE_H
#define IOVM_RESERVE_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define RESERVE_NAME_MAX	64	/* with the NUL */
#define RESERVE_SLOTS		256
#define RESERVE_MINOR		0xe000u	/* of slot 0. The low 4 bits of a mark mean something to other qdiscs: 0 for I/O */
#define RESERVE_QUANTUM		61455u	/* bytes; no other meaning than that the class is ours */
#ifndef RESERVE_LOCK
#define RESERVE_LOCK_DIR	"/run/iovm"
#define RESERVE_LOCK		RESERVE_LOCK_DIR "/reserve.lock"
#endif

enum reserve_flow {
	RESERVE_IO,
	RESERVE_MIGRATION,
	RESERVE_FLOWS,
};

/**
 * enum reserve_result - how it went; each but RESERVE_DONE and RESERVE_FAILED is a reason to go on without
 * @RESERVE_NO_CLASS: none is named, or there is no such class
 * @RESERVE_NO_DEVICE: there is no such network device
 * @RESERVE_NOT_HTB: what is there is no HTB, or not one that can take a class
 * @RESERVE_NO_ROOM: the rates do not fit below the class
 * @RESERVE_NO_RIGHT: CAP_NET_ADMIN is missing
 * @RESERVE_EXISTS: the name has a reservation, or the traffic is another's
 * @RESERVE_NOT_THERE: the name has none
 * @RESERVE_BUSY: another process is at it, or something of the operator's uses the class
 * @RESERVE_FAILED: the kernel refused for another reason
 */
enum reserve_result {
	RESERVE_DONE,
	RESERVE_NO_CLASS,
	RESERVE_NO_DEVICE,
	RESERVE_NOT_HTB,
	RESERVE_NO_ROOM,
	RESERVE_NO_RIGHT,
	RESERVE_EXISTS,
	RESERVE_NOT_THERE,
	RESERVE_BUSY,
	RESERVE_FAILED,
};

/* A sentence: why it did not go well, or, with RESERVE_DONE, what is worth knowing; "" nothing. */
struct reserve_msg {
	char text[320];
};

/* The operator's class: "eth0/1:50", the numbers hexadecimal as tc(8) has them; id 0: none is named */
struct reserve_class {
	char dev[IF_NAMESIZE];
	uint32_t id;
};

/**
 * struct reserve - a reservation
 * @name: of the guest
 * @parent: the operator's class
 * @rate: guaranteed, bits per second; 0: no class for this flow
 * @ceil: what it may have when others leave it; 0: what @parent may have
 * @peer: the other host; family AF_UNSPEC: no filters
 * @port: TCP, the peer's, or this host's when @serving; 0: no filter for this flow
 * @slot: set by the library, as are the rest
 * @classid: 0 none
 * @bytes: sent by each class so far
 * @label: class with the label; 0: left over from somebody who died, @name is ""
 */
struct reserve {
	char name[RESERVE_NAME_MAX];
	struct reserve_class parent;
	uint64_t rate[RESERVE_FLOWS], ceil[RESERVE_FLOWS];
	struct sockaddr_storage peer;
	uint16_t port[RESERVE_FLOWS];
	bool serving;

	unsigned int slot;
	uint32_t classid[RESERVE_FLOWS];
	uint64_t bytes[RESERVE_FLOWS];
	uint32_t label;
};

/**
 * struct reserve_room - what the operator's class has
 * @rate: guaranteed, bits per second
 * @ceil: likewise
 * @given: of @rate, to the classes below it
 */
struct reserve_room {
	uint64_t rate, ceil, given;
};

/* NULL when understood, else what goes after the quoted input; see parse.h. */
const char *reserve_parse_class(const char *s, struct reserve_class *c);

/* Would it do? Changes nothing; room may be NULL. A name that is "" is not looked for. */
enum reserve_result reserve_check(const struct reserve *r, struct reserve_room *room, struct reserve_msg *msg);

/* Reserve; r->slot, classid and label are set. After RESERVE_EXISTS of the name, r is what exists. */
enum reserve_result reserve_add(struct reserve *r, struct reserve_msg *msg);

enum reserve_result reserve_remove(const char *name, struct reserve_msg *msg);

/*
 * Remove what is left over, and those reservations that wanted() does not want; all, when it is NULL. Goes on after a failure and
 * returns the first. *removed may be NULL.
 */
enum reserve_result reserve_cleanup(bool (*wanted)(const char *name, void *arg), void *arg, unsigned int *removed,
				    struct reserve_msg *msg);

/* All there are in this network namespace, what is left over too: an array for free(). */
enum reserve_result reserve_list(struct reserve **list, size_t *nr, struct reserve_msg *msg);

/* The class that a reservation of this name gets below parent, unless another name has its slot. */
uint32_t reserve_classid(const struct reserve_class *parent, const char *name, enum reserve_flow flow);

/*
 * For a socket of ours: send by the class (0: do not mark), and no faster than bits per second (0: no limit). Returns 0 or an
 * errno; the limit is set even when the right to mark (CAP_NET_ADMIN) is missing.
 */
int reserve_mark(int sock, uint32_t classid, uint64_t bits);

#endif
