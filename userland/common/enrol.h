/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two hosts make each other known: over TLS that a one-time code protects, each sends its certificate. The code is shown on one host
 * and typed on the other one; it is the only secret, and has 100 random bits, so that whoever is in between cannot try them all.
 *
 * Each side sends one line, the one that connects first: {"iovm-enrol":1,"host":ITS NAME,"to":THE OTHER'S,"certificate":PEM,
 * "address":...,"peer_port":...,"data_port":...}, or {"error":...}. Then, when it has kept the other's certificate: {"kept":true}.
 */
#ifndef IOVM_ENROL_H
#define IOVM_ENROL_H

#include <stdbool.h>
#include <stdint.h>

#include "tls.h"

#define ENROL_PORT	10810
#define ENROL_DIGITS	20	/* of 5 bits each */
#define ENROL_CODE	(ENROL_DIGITS + ENROL_DIGITS / 5)	/* with dashes between groups of five, and a NUL */

/**
 * struct enrol_side - a host
 * @name: as in its [host]
 * @address: where it listens; "": where it connects from
 */
struct enrol_side {
	char name[64];
	char address[256];
	uint16_t peer_port, data_port;
};

/* A new code, as it is shown; 0, -1: there are no random numbers. */
int enrol_new_code(char code[ENROL_CODE]);
/* As somebody typed it; digits has ENROL_DIGITS bytes. NULL, or what is wrong: "has 19 digits of 20 ...". */
const char *enrol_read_code(const char *text, char digits[ENROL_DIGITS]);

/*
 * The conversation, on a connected socket: with the digits, as self, whose certificate is pem. The other must be called other->name; the
 * rest of other is filled. keep() is called with its certificate once it has said who it is, and may refuse: 0, or -1 and why (256
 * bytes). Returns 0; -1 and why: nothing was kept; 1: it was kept here, and it is not certain there.
 */
struct enrol_job {
	const char *digits;
	const struct enrol_side *self;
	const char *pem;
	struct enrol_side *other;
	int (*keep)(const struct enrol_side *other, const char *pem, void *data, char *why, size_t n);
	void *data;
};

int enrol_talk(int fd, bool listener, const struct enrol_job *j, uint64_t timeout_ms, char *why, size_t n);

#endif
