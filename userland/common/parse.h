/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parsers for what people type: sizes, durations, counts, rates, names, modes, owners, hosts, ports, path addresses.
 *
 * Each returns NULL when it understood the whole string, else a sentence fragment that goes after the
 * quoted input: "'12q' " + "is not a size (...)". Nothing is stored on failure.
 */
#ifndef IOVM_PARSE_H
#define IOVM_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes: a number, perhaps with a fraction, and K, M, G, T, P or KiB ... PiB (powers of 1024). */
const char *parse_size(const char *s, uint64_t *bytes);

/* A number of things, perhaps with k, M or G (powers of 1000). */
const char *parse_count(const char *s, uint64_t *count);

/*
 * Bits per second, as tc(8) has it, in any case: a number alone or with bit, kbit, mbit, gbit, tbit (powers of 1000), kibit ...
 * tibit (of 1024); bps, kbps ... and kibps ... count bytes. K, M, G and T alone are bits too.
 */
const char *parse_rate(const char *s, uint64_t *bits);
/* A rate as people read it, which parse_rate() takes too: "2.5gbit", four digits at most. */
void format_rate(char *buf, size_t n, uint64_t bits);

/*
 * Milliseconds: numbers with ms, s, sec, m, min, h or d, added up ("1min30s"); a bare number counts bare_ms each;
 * "never", "forever" and "infinity" are 0.
 */
const char *parse_duration(const char *s, uint64_t bare_ms, uint64_t *ms);

/* yes, true, on; no, false, off. */
const char *parse_bool(const char *s, bool *b);

/* How many times: a whole number; "off" is UINT32_MAX. */
const char *parse_factor(const char *s, uint64_t *factor);

/* A device or path name: [A-Za-z0-9._-], not starting with '.' or '-', at most 63 characters. */
const char *parse_name(const char *s);

/* Octal permission bits, 0 to 0777. */
const char *parse_mode(const char *s, uint32_t *mode);

/* USER, USER:GROUP or :GROUP, names or numbers; *uid and *gid keep their value where nothing is said. */
const char *parse_owner(const char *s, uint32_t *uid, uint32_t *gid);

/* A data identity, as the kernel takes it: SCHEME:TEXT, at most 127 characters. */
const char *parse_identity(const char *s);

/* 1 to 65535. */
const char *parse_port(const char *s, uint16_t *port);

/* A host name, an IPv4 or an IPv6 address (perhaps with %ZONE), by its form alone; no brackets, no port. */
const char *parse_host(const char *s);

/* DEVICE/MAJOR:MINOR, a class of a network device's qdiscs; *handle is MAJOR << 16 | MINOR, as rtnetlink has it. */
const char *parse_tc_class(const char *s, char dev[16], uint32_t *handle);

enum addr_kind {
	ADDR_BDEV,		/* bdev:/dev/sdb, or an absolute path */
	ADDR_NBD_TCP,		/* nbd://host[:port][/export] */
	ADDR_NBD_UNIX,		/* nbd+unix:///[export]?socket=/path */
	ADDR_NBD_TLS,		/* nbds://host[:port][/export][?tls-hostname=name&tls-certificates=/dir] */
};

/* What a path leads to. *rest is the device file for ADDR_BDEV, else s itself. */
const char *parse_addr(const char *s, enum addr_kind *kind, const char **rest);

/* An address nbds://, taken apart. Spelled as libnbd does. */
struct addr_tls {
	char host[256], port[6], export[256];
	char peer[256];		/* who the server must be: tls-hostname, else host */
	char dir[256];		/* tls-certificates; "" not said */
};

const char *parse_addr_tls(const char *s, struct addr_tls *a);

#endif
