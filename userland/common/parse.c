// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Parsers for what people type. See parse.h.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "parse.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "", 1 }, { "B", 1 },
	{ "K", 1ULL << 10 }, { "KiB", 1ULL << 10 },
	{ "M", 1ULL << 20 }, { "MiB", 1ULL << 20 },
	{ "G", 1ULL << 30 }, { "GiB", 1ULL << 30 },
	{ "T", 1ULL << 40 }, { "TiB", 1ULL << 40 },
	{ "P", 1ULL << 50 }, { "PiB", 1ULL << 50 },
	{ NULL, 0 }
};

static const struct unit count_units[] = {
	{ "", 1 }, { "k", 1000 }, { "M", 1000000 }, { "G", 1000000000 }, { NULL, 0 }
};

/* As tc(8) writes them; bits in a second */
static const struct unit rate_units[] = {
	{ "", 1 }, { "bit", 1 }, { "bps", 8 },
	{ "K", 1000 }, { "Kbit", 1000 }, { "Kibit", 1ULL << 10 }, { "Kbps", 8000 }, { "KiBps", 8ULL << 10 },
	{ "M", 1000000 }, { "Mbit", 1000000 }, { "Mibit", 1ULL << 20 }, { "Mbps", 8000000 }, { "MiBps", 8ULL << 20 },
	{ "G", 1000000000 }, { "Gbit", 1000000000 }, { "Gibit", 1ULL << 30 }, { "Gbps", 8000000000 }, { "GiBps", 8ULL << 30 },
	{ "T", 1000000000000 }, { "Tbit", 1000000000000 }, { "Tibit", 1ULL << 40 }, { "Tbps", 8000000000000 },
	{ "TiBps", 8ULL << 40 },
	{ NULL, 0 }
};

static const struct unit time_units[] = {
	{ "ms", 1 }, { "msec", 1 },
	{ "s", 1000 }, { "sec", 1000 },
	{ "m", 60000 }, { "min", 60000 },
	{ "h", 3600000 }, { "hour", 3600000 },
	{ "d", 86400000 }, { "day", 86400000 },
	{ NULL, 0 }
};

/*
 * The digits of a number: whole.frac, frac scaled by den (a power of ten). Returns where they end, NULL when
 * there are none or they overflow.
 */
static const char *scan_number(const char *s, uint64_t *whole, uint64_t *frac, uint64_t *den)
{
	*whole = 0;
	*frac = 0;
	*den = 1;
	if (!isdigit((unsigned char)*s))
		return NULL;
	for (; isdigit((unsigned char)*s); s++)
		if (__builtin_mul_overflow(*whole, 10, whole) ||
		    __builtin_add_overflow(*whole, (uint64_t)(*s - '0'), whole))
			return NULL;
	if (*s != '.')
		return s;
	s++;
	if (!isdigit((unsigned char)*s))
		return NULL;
	for (; isdigit((unsigned char)*s); s++) {
		if (*den >= 1000000000)
			return NULL;
		*den *= 10;
		*frac = *frac * 10 + (uint64_t)(*s - '0');
	}
	return s;
}

/* whole.frac * factor, when that is a whole number that fits. */
static bool scale(uint64_t whole, uint64_t frac, uint64_t den, uint64_t factor, uint64_t *out)
{
	unsigned __int128 part = (unsigned __int128)frac * factor;
	uint64_t v;

	if (part % den)
		return false;
	if (__builtin_mul_overflow(whole, factor, &v) ||
	    __builtin_add_overflow(v, (uint64_t)(part / den), &v))
		return false;
	*out = v;
	return true;
}

static const struct unit *find_unit(const struct unit *u, const char *name, size_t len)
{
	for (; u->name; u++)
		if (strlen(u->name) == len && !strncasecmp(u->name, name, len))
			return u;
	return NULL;
}

static bool parse_scaled(const char *s, const struct unit *units, uint64_t *out)
{
	uint64_t whole, frac, den;
	const char *end = scan_number(s, &whole, &frac, &den);
	const struct unit *u;

	if (!end)
		return false;
	u = find_unit(units, end, strlen(end));
	return u && scale(whole, frac, den, u->factor, out);
}

const char *parse_size(const char *s, uint64_t *bytes)
{
	if (parse_scaled(s, size_units, bytes))
		return NULL;
	return "is not a size (bytes, or a number with K, M, G, T or P, as in 10G or 1.5T)";
}

const char *parse_count(const char *s, uint64_t *count)
{
	if (parse_scaled(s, count_units, count))
		return NULL;
	return "is not a number (digits, perhaps with k, M or G for thousands, millions, billions)";
}

const char *parse_rate(const char *s, uint64_t *bits)
{
	if (parse_scaled(s, rate_units, bits))
		return NULL;
	return "is not a rate (a number with kbit, mbit or gbit, or for bytes with kbps, mbps or gbps, as in 200mbit)";
}

const char *parse_bool(const char *s, bool *b)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on" };
	unsigned int i;

	for (i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (!strcasecmp(s, words[i])) {
			*b = i & 1;
			return NULL;
		}
	return "is neither yes nor no (yes, true or on; no, false or off)";
}

void format_rate(char *buf, size_t n, uint64_t bits)
{
	static const char *const unit[] = { "bit", "kbit", "mbit", "gbit", "tbit" };
	double v = (double)bits;
	unsigned int i = 0;

	for (; v >= 999.95 && i < 4; i++)
		v /= 1000;
	snprintf(buf, n, "%.4g%s", v, unit[i]);
}

const char *parse_duration(const char *s, uint64_t bare_ms, uint64_t *ms)
{
	static const char *const bad = "is not a duration (a number with ms, s, min, h or d, as in 500ms or 5min)";
	uint64_t total = 0, whole, frac, den, part;
	const struct unit *u;
	const char *end;
	size_t len;

	if (!strcmp(s, "never") || !strcmp(s, "forever") || !strcmp(s, "infinity")) {
		*ms = 0;
		return NULL;
	}
	end = scan_number(s, &whole, &frac, &den);
	if (end && !*end) {
		if (!scale(whole, frac, den, bare_ms, ms))
			return bad;
		return NULL;
	}
	do {
		end = scan_number(s, &whole, &frac, &den);
		if (!end)
			return bad;
		for (len = 0; isalpha((unsigned char)end[len]);)
			len++;
		u = find_unit(time_units, end, len);
		if (!u || !scale(whole, frac, den, u->factor, &part) ||
		    __builtin_add_overflow(total, part, &total))
			return bad;
		s = end + len;
	} while (*s);
	*ms = total;
	return NULL;
}

const char *parse_name(const char *s)
{
	size_t n;

	if (!*s)
		return "is empty, which is not a name";
	if (*s == '.' || *s == '-')
		return "is not a name (it may not start with '.' or '-')";
	n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	if (s[n])
		return "is not a name (letters, digits, '.', '_' and '-' only)";
	if (n > 63)
		return "is too long for a name (63 characters at most)";
	return NULL;
}

const char *parse_factor(const char *s, uint64_t *factor)
{
	uint64_t v;

	if (!strcmp(s, "off"))
		v = UINT32_MAX;
	else if (parse_count(s, &v) || v >= UINT32_MAX)
		return "is neither a number of times nor 'off'";
	*factor = v;
	return NULL;
}

const char *parse_mode(const char *s, uint32_t *mode)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(s, &end, 8);
	if (!isdigit((unsigned char)*s) || *end || errno || v > 0777)
		return "is not a mode (octal permission bits, as in 0660)";
	*mode = (uint32_t)v;
	return NULL;
}

/* A number that is a valid id: all ones means "none". */
static bool scan_id(const char *s, uint32_t *id)
{
	uint64_t whole, frac, den;
	const char *end = scan_number(s, &whole, &frac, &den);

	if (!end || *end || den != 1 || whole >= UINT32_MAX)
		return false;
	*id = (uint32_t)whole;
	return true;
}

const char *parse_owner(const char *s, uint32_t *uid, uint32_t *gid)
{
	const char *colon = strchr(s, ':');
	size_t len = colon ? (size_t)(colon - s) : strlen(s);
	uint32_t u = *uid, g = *gid;
	char user[256];

	if (!*s || len >= sizeof(user) || (colon && !len && !colon[1]))
		return "is not an owner (USER, USER:GROUP or :GROUP)";
	memcpy(user, s, len);
	user[len] = 0;
	if (len) {
		struct passwd *pw = getpwnam(user);

		if (pw)
			u = pw->pw_uid;
		else if (!scan_id(user, &u))
			return "names a user that does not exist here";
	}
	if (colon && colon[1]) {
		struct group *gr = getgrnam(colon + 1);

		if (gr)
			g = gr->gr_gid;
		else if (!scan_id(colon + 1, &g))
			return "names a group that does not exist here";
	}
	*uid = u;
	*gid = g;
	return NULL;
}

const char *parse_port(const char *s, uint16_t *port)
{
	uint64_t whole, frac, den;
	const char *end = scan_number(s, &whole, &frac, &den);

	if (!end || *end || den != 1 || !whole || whole > UINT16_MAX)
		return "is not a port (a number from 1 to 65535)";
	*port = (uint16_t)whole;
	return NULL;
}

/* Labels of letters, digits, '-' and '_', with dots between them, as getaddrinfo() looks them up */
static const char *check_host_name(const char *s)
{
	static const char *const bad = "is not a host name (letters, digits, '-' and dots between them)";
	size_t len, total = 0;

	for (;; s += len + 1) {
		len = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");
		total += len + 1;
		if (!len && s[0] == 0 && total > 1)
			return NULL;	/* a dot at the end */
		if (!len || *s == '-' || s[len - 1] == '-' || (s[len] && s[len] != '.'))
			return bad;
		if (len > 63 || total > 254)
			return "is too long for a host name (63 characters between dots, 253 in all)";
		if (!s[len])
			return NULL;
	}
}

const char *parse_host(const char *s)
{
	struct in6_addr v6;
	struct in_addr v4;
	const char *zone;
	char text[64];
	size_t len;

	if (*s == '[')
		return "is in brackets (an address alone, as in fd00::1, without brackets and port)";
	if (!strchr(s, ':')) {
		if (s[strspn(s, "0123456789.")])
			return check_host_name(s);
		return inet_pton(AF_INET, s, &v4) == 1 ? NULL : "is not an IPv4 address (four numbers from 0 to 255, as in 10.0.0.1)";
	}
	zone = strchr(s, '%');
	len = zone ? (size_t)(zone - s) : strlen(s);
	if (len < sizeof(text)) {
		memcpy(text, s, len);
		text[len] = 0;
		if (inet_pton(AF_INET6, text, &v6) == 1 && (!zone || (zone[1] && strlen(zone) <= 16 && !strpbrk(zone, "/ \t"))))
			return NULL;
		if (!strchr(strchr(s, ':') + 1, ':'))
			return "has a ':', but is no IPv6 address (an address or a host name alone; its port has a line of its own)";
	}
	return "is not an IPv6 address (as in fd00::1)";
}

/* A number as tc writes handles, in hexadecimal: at most 16 bits. Returns where it ends, NULL when there is none. */
static const char *scan_handle(const char *s, uint32_t *v)
{
	size_t n = strspn(s, "0123456789abcdefABCDEF");

	if (!n || n > 4)
		return NULL;
	*v = (uint32_t)strtoul(s, NULL, 16);
	return s + n;
}

const char *parse_tc_class(const char *s, char dev[16], uint32_t *handle)
{
	const char *slash = strchr(s, '/'), *p;
	uint32_t major, minor;

	if (!slash || slash == s)
		return "is not a class (DEVICE/MAJOR:MINOR, as in eth0/1:50)";
	if (slash - s > 15 || memchr(s, ' ', (size_t)(slash - s)) || memchr(s, ':', (size_t)(slash - s)) || !strncmp(s, "./", 2) ||
	    !strncmp(s, "../", 3))
		return "does not begin with the name of a network device (DEVICE/MAJOR:MINOR, as in eth0/1:50)";
	p = scan_handle(slash + 1, &major);
	if (!p || *p != ':' || !(p = scan_handle(p + 1, &minor)) || *p || !major)
		return "has no class after the '/' (MAJOR:MINOR in hexadecimal, as 'tc class' shows it)";
	if (!minor || major == 0xffff)
		return "names a qdisc and no class of it (MAJOR:MINOR, MINOR not 0, as in eth0/1:50)";
	memcpy(dev, s, (size_t)(slash - s));
	dev[slash - s] = 0;
	*handle = major << 16 | minor;
	return NULL;
}

/* host[:port][/...] after nbd:// */
static const char *check_authority(const char *s)
{
	size_t len = strcspn(s, "/?#");
	const char *end = s + len, *colon = NULL, *p;
	unsigned long port = 0;

	p = memchr(s, '@', len);
	if (p)
		return "names a user, which means something only with pre-shared keys (not supported)";
	if (*s == '[') {
		p = memchr(s, ']', len);
		if (!p || p == s + 1 || (p + 1 < end && p[1] != ':'))
			return "has a broken [IPv6 address]";
		if (p + 1 < end)
			colon = p + 1;
	} else {
		colon = memchr(s, ':', len);
		if (!len || colon == s)
			return "names no host (nbd://HOST[:PORT][/EXPORT])";
		if (colon && memchr(colon + 1, ':', (size_t)(end - colon - 1)))
			return "has several ':' (write an IPv6 address in brackets: nbd://[::1]:10809/x)";
	}
	if (!colon)
		return NULL;
	for (p = colon + 1; p < end && isdigit((unsigned char)*p) && port < 100000; p++)
		port = port * 10 + (unsigned long)(*p - '0');
	if (p != end || p == colon + 1 || !port || port > 65535)
		return "has no port from 1 to 65535 after the ':'";
	return NULL;
}

static int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : isxdigit((unsigned char)c) ? (c | 32) - 'a' + 10 : -1;
}

/* len bytes of a URI without their %xx */
static bool unescape(const char *s, size_t len, char *out, size_t n)
{
	const char *end = s + len;
	size_t k = 0;

	while (s < end) {
		int c = (unsigned char)*s++;

		if (c == '%') {
			if (end - s < 2 || hex(s[0]) < 0 || hex(s[1]) < 0)
				return false;
			c = hex(s[0]) << 4 | hex(s[1]);
			s += 2;
		}
		if (!c || k + 1 >= n)
			return false;
		out[k++] = (char)c;
	}
	out[k] = 0;
	return true;
}

static const char *parse_tls_query(const char *q, struct addr_tls *a)
{
	static const char *const broken = "has a part behind the '?' that is too long or has a broken %xx";
	size_t len;

	for (;; q += len + 1) {
		len = strcspn(q, "&");
		if (!strncmp(q, "tls-hostname=", 13)) {
			if (!unescape(q + 13, len - 13, a->peer, sizeof(a->peer)))
				return broken;
		} else if (!strncmp(q, "tls-certificates=", 17)) {
			if (!unescape(q + 17, len - 17, a->dir, sizeof(a->dir)))
				return broken;
			if (*a->dir != '/')
				return "needs an absolute path after tls-certificates=, since it is used again to reconnect";
		} else {
			return "has something behind the '?' that is neither tls-hostname= nor tls-certificates=";
		}
		if (!q[len])
			return NULL;
	}
}

const char *parse_addr_tls(const char *s, struct addr_tls *a)
{
	const char *err, *p = s + 7, *end, *colon, *q;
	size_t len;

	if (strncasecmp(s, "nbds://", 7))
		return "does not begin with nbds://";
	err = check_authority(p);
	if (err)
		return err;
	memset(a, 0, sizeof(*a));
	end = p + strcspn(p, "/?#");
	if (*p == '[') {
		p++;
		len = (size_t)((const char *)memchr(p, ']', (size_t)(end - p)) - p);
		colon = p[len + 1] == ':' ? p + len + 1 : NULL;
	} else {
		colon = memchr(p, ':', (size_t)(end - p));
		len = (size_t)((colon ? colon : end) - p);
	}
	if (!unescape(p, len, a->host, sizeof(a->host)))
		return "has a host that is too long or has a broken %xx";
	if (colon)
		memcpy(a->port, colon + 1, (size_t)(end - colon - 1) < 6 ? (size_t)(end - colon - 1) : 5);
	else
		strcpy(a->port, "10809");
	strcpy(a->peer, a->host);
	q = end + strcspn(end, "?#");
	if (*end == '/' && !unescape(end + 1, (size_t)(q - end - 1), a->export, sizeof(a->export)))
		return "names an export that is too long or has a broken %xx";
	if (*q == '#' || (*q && strchr(q, '#')))
		return "has a '#', which means nothing here; write %23 for one in an export's name";
	err = *q ? parse_tls_query(q + 1, a) : NULL;
	if (err)
		return err;
	if (!*a->peer || strchr(a->peer, '/') || *a->peer == '.')
		return "has a tls-hostname= that is no name of a peer";
	return NULL;
}

const char *parse_addr(const char *s, enum addr_kind *kind, const char **rest)
{
	const char *err, *q;

	*rest = s;
	if (!strncmp(s, "bdev:", 5) || *s == '/') {
		if (*s != '/')
			*rest = s + 5;
		*kind = ADDR_BDEV;
		if (**rest != '/')
			return "needs an absolute path (bdev:/dev/sdb)";
		return NULL;
	}
	if (!strncasecmp(s, "nbds+unix:", 10))
		return "asks for TLS on a unix socket, which the kernel does not have; use nbds:// or nbd+unix://";
	if (strpbrk(s, " \t\r\n"))
		return "contains white space; write %20 for a blank in an export's name";
	if (!strncasecmp(s, "nbd://", 6)) {
		err = check_authority(s + 6);
		if (err)
			return err;
		*kind = ADDR_NBD_TCP;
		return NULL;
	}
	if (!strncasecmp(s, "nbds://", 7)) {
		struct addr_tls a;

		err = parse_addr_tls(s, &a);
		if (err)
			return err;
		*kind = ADDR_NBD_TLS;
		return NULL;
	}
	if (!strncasecmp(s, "nbd+unix://", 11)) {
		q = strchr(s, '?');
		while (q && strncmp(q + 1, "socket=", 7))
			q = strchr(q + 1, '&');
		if (!q)
			return "names no socket (nbd+unix:///EXPORT?socket=/PATH)";
		if (q[8] != '/' && strncasecmp(q + 8, "%2f", 3))
			return "needs an absolute path after socket=, since it is used again to reconnect";
		if (s[11] != '/' && s[11] != '?')
			return "has a host, which a unix socket does not (nbd+unix:/// with three slashes)";
		*kind = ADDR_NBD_UNIX;
		return NULL;
	}
	return "is not an address (bdev:/dev/sdb, nbd[s]://HOST[:PORT][/EXPORT] or nbd+unix:///EXPORT?socket=/PATH)";
}

const char *parse_identity(const char *s)
{
	const char *p, *scheme = s;

	while ((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s == '-')
		s++;
	if (s == scheme || *s != ':' || !s[1])
		return "is not an identity (SCHEME:TEXT, as in wwn:naa.5000c500a1b2c3d4 or id:vm1-data)";
	for (p = s + 1; *p; p++)
		if (*p <= ' ' || *p > '~')
			return "holds a character that is not printable ASCII, or a space";
	return p - scheme >= 128 ? "is longer than 127 characters" : NULL;
}
