/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Is a guest ready to be rerouted and migrated? check.c asks this host, its QEMU and the peer, and keeps what came of it; check_here.c
 * is what is looked at on a host: the one of the guest, in a worker, or the one it is to go to.
 */
#ifndef IOVMD_CHECK_H
#define IOVMD_CHECK_H

#include "iovmd.h"

#define FINDINGS_MAX	24
#define FLAGS_MAX	4096	/* bytes of a CPU's flags */

enum finding_level {
	FINDING_NOTE,		/* good to know */
	FINDING_BAD,		/* it is not ready */
};

/**
 * struct finding - something that was found
 * @what: data, peer, module, qemu, cpu, memory, device, command
 */
struct finding {
	enum finding_level level;
	char what[16];
	char text[200];
};

struct findings {
	struct finding f[FINDINGS_MAX];
	unsigned int nr;		/* what is more is passed over */
};

/**
 * struct check_needs - what a guest needs of the host it goes to
 * @memory: bytes; 0 not known
 * @cpu: QEMU's type of its CPU, "host-x86_64-cpu"; "" not known
 * @flags: those of this host's CPU
 */
struct check_needs {
	uint64_t memory;
	char cpu[64];
	char flags[FLAGS_MAX];
};

void found(struct findings *fs, enum finding_level level, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void findings_json(struct json *j, const char *key, const struct findings *fs);
void findings_take(struct findings *fs, const struct json_node *list);

/* On the guest's own host: its devices, and its QEMU, which is asked. Blocks: for a worker. */
void check_here(const struct config_guest *g, struct findings *fs, struct check_needs *needs);
/* On the host that it would come to. */
void check_there(const struct config_guest *g, const struct config_peer *from, const struct check_needs *needs, struct findings *fs);

/* What this CPU can; false: not known. */
bool check_flags(char flags[FLAGS_MAX]);
/* The first flags of want that are not among have, "" none; how many in all. */
unsigned int check_missing(const char *want, const char *have, char *missing, size_t n);
/* The program that a shell command begins with, if it is an absolute path. */
bool check_program(const char *command, char program[IOVM_ADDR_MAX]);

#endif /* IOVMD_CHECK_H */
