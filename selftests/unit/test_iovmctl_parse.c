// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of what people type to iovmctl (userland/common/parse.c).
 */
#define _GNU_SOURCE
#include <stdio.h>

#include "ktap.h"
#include "../../userland/common/parse.c"

/* What is stored where a parser fails: it must be left alone. */
#define UNTOUCHED	0x5555aaaa5555aaaaULL

struct number {
	const char *text;
	bool good;
	uint64_t value;
};

static void try_numbers(const struct number *n, const char *(*parse)(const char *, uint64_t *))
{
	const char *err;
	uint64_t v;

	for (; n->text; n++) {
		v = UNTOUCHED;
		err = parse(n->text, &v);
		CHECK(!err == n->good, "'%s': %s", n->text, err ? err : "taken");
		CHECK(v == (n->good ? n->value : UNTOUCHED), "'%s' gives %llu", n->text, (unsigned long long)v);
	}
}

static void sizes(void)
{
	static const struct number table[] = {
		{ "0", true, 0 }, { "512", true, 512 }, { "4096B", true, 4096 },
		{ "10G", true, 10ULL << 30 }, { "10g", true, 10ULL << 30 }, { "10GiB", true, 10ULL << 30 },
		{ "1.5T", true, 3ULL << 39 }, { "0.5K", true, 512 }, { "0.001K", false, 0 },
		{ "2P", true, 2ULL << 50 }, { "16383P", true, 16383ULL << 50 }, { "16384P", false, 0 },
		{ "18446744073709551615", true, UINT64_MAX }, { "18446744073709551616", false, 0 },
		{ "99999999999999999999999", false, 0 },
		{ "", false, 0 }, { "G", false, 0 }, { "-1", false, 0 }, { "+1", false, 0 }, { " 1", false, 0 },
		{ "1 ", false, 0 }, { "1 G", false, 0 }, { "1.", false, 0 }, { ".5G", false, 0 }, { "1.5.5G", false, 0 },
		{ "0x10", false, 0 }, { "1e3", false, 0 }, { "10GB", false, 0 }, { "10Q", false, 0 }, { "10GG", false, 0 },
		{ "1.0000000000G", false, 0 }, { "1.5", false, 0 },
		{ 0 }
	};

	try_numbers(table, parse_size);
}

static void counts(void)
{
	static const struct number table[] = {
		{ "0", true, 0 }, { "5", true, 5 }, { "10k", true, 10000 }, { "1.5k", true, 1500 }, { "2M", true, 2000000 },
		{ "10KiB", false, 0 }, { "", false, 0 }, { "k", false, 0 }, { "-5", false, 0 }, { "five", false, 0 },
		{ 0 }
	};

	try_numbers(table, parse_count);
}

static void rates(void)
{
	static const struct number table[] = {
		{ "0", true, 0 }, { "1500", true, 1500 }, { "800Mbit", true, 800000000 }, { "10G", true, 10000000000 },
		{ "10gbit", true, 10000000000 }, { "2.5Gbit", true, 2500000000 }, { "1kibit", true, 1024 }, { "1Mibit", true, 1 << 20 },
		{ "1bps", true, 8 }, { "100mbps", true, 800000000 }, { "1.5MiBps", true, 3 << 22 }, { "1t", true, 1000000000000 },
		{ "1tibps", true, 8ULL << 40 },
		{ "", false, 0 }, { "fast", false, 0 }, { "-1", false, 0 }, { "1 Gbit", false, 0 }, { "1GB", false, 0 }, { "1gb/s", false, 0 },
		{ "0.1bit", false, 0 }, { "99999999tbit", false, 0 }, { "10%", false, 0 },
		{ 0 }
	};
	static const struct {
		uint64_t bits;
		const char *text;
	} back[] = {
		{ 0, "0bit" }, { 999, "999bit" }, { 1000, "1kbit" }, { 1500, "1.5kbit" }, { 2500000000, "2.5gbit" },
		{ 123456789, "123.5mbit" }, { 999999999, "1gbit" }, { 5000000000000000, "5000tbit" },
	};
	char buf[32];
	unsigned int i;

	try_numbers(table, parse_rate);
	for (i = 0; i < sizeof(back) / sizeof(*back); i++) {
		format_rate(buf, sizeof(buf), back[i].bits);
		CHECK(!strcmp(buf, back[i].text), "%llu is %s, not %s", (unsigned long long)back[i].bits, buf, back[i].text);
	}
}

static const char *bare_s(const char *s, uint64_t *v)
{
	return parse_duration(s, 1000, v);
}

static const char *bare_ms(const char *s, uint64_t *v)
{
	return parse_duration(s, 1, v);
}

static void durations(void)
{
	static const struct number seconds[] = {
		{ "0", true, 0 }, { "5", true, 5000 }, { "0.5", true, 500 }, { "5min", true, 300000 }, { "5m", true, 300000 },
		{ "500ms", true, 500 }, { "1.5s", true, 1500 }, { "1h", true, 3600000 }, { "2d", true, 172800000 },
		{ "1min30s", true, 90000 }, { "1h1m1s1ms", true, 3661001 },
		{ "never", true, 0 }, { "forever", true, 0 }, { "infinity", true, 0 },
		{ "", false, 0 }, { "5x", false, 0 }, { "min", false, 0 }, { "1min30", false, 0 }, { "0.5ms", false, 0 },
		{ "-5s", false, 0 }, { "5 min", false, 0 }, { "1us", false, 0 }, { "18446744073709551615h", false, 0 },
		{ "18446744073709551615ms1ms", false, 0 }, { "0.0001", false, 0 },
		{ 0 }
	};
	static const struct number millis[] = {
		{ "250", true, 250 }, { "250ms", true, 250 }, { "2s", true, 2000 }, { "0.5", false, 0 },
		{ 0 }
	};

	try_numbers(seconds, bare_s);
	try_numbers(millis, bare_ms);
}

static void names(void)
{
	static const char *const good[] = { "a", "vm1", "vm-1.data_x", "A", "0", "_x", NULL };
	static const char *const bad[] = { "", ".", "..", ".x", "-x", "a/b", "a b", "a\n", "\xc3\xa4", "a:b", "*", NULL };
	char longest[65];
	int i;

	for (i = 0; good[i]; i++)
		CHECK(!parse_name(good[i]), "'%s'", good[i]);
	for (i = 0; bad[i]; i++)
		CHECK(parse_name(bad[i]), "'%s'", bad[i]);
	memset(longest, 'x', 64);
	longest[64] = 0;
	CHECK(parse_name(longest), "64 characters");
	longest[63] = 0;
	CHECK(!parse_name(longest), "63 characters");
}

static void modes(void)
{
	static const struct number table[] = {
		{ "0660", true, 0660 }, { "660", true, 0660 }, { "0", true, 0 }, { "777", true, 0777 },
		{ "1777", false, 0 }, { "8", false, 0 }, { "", false, 0 }, { "-1", false, 0 }, { " 600", false, 0 },
		{ "rw", false, 0 }, { "77777777777777777777777", false, 0 },
		{ 0 }
	};
	const struct number *n;
	uint32_t mode;

	for (n = table; n->text; n++) {
		mode = 1;
		CHECK(!parse_mode(n->text, &mode) == n->good, "'%s'", n->text);
		CHECK(mode == (n->good ? n->value : 1), "'%s' gives %o", n->text, mode);
	}
}

static void owners(void)
{
	static const struct {
		const char *text;
		bool good;
		uint32_t uid, gid;
	} *t, table[] = {
		{ "root", true, 0, 12 }, { "root:root", true, 0, 0 }, { ":root", true, 11, 0 }, { "1234", true, 1234, 12 },
		{ "1234:5678", true, 1234, 5678 }, { "root:", true, 0, 12 },
		{ "", false, 11, 12 }, { ":", false, 11, 12 }, { "nobody-has-this-name", false, 11, 12 },
		{ "root:nobody-has-this-name", false, 11, 12 }, { "4294967295", false, 11, 12 },
		{ "99999999999", false, 11, 12 }, { "-1", false, 11, 12 }, { "0.5", false, 11, 12 },
		{ 0 }
	};
	uint32_t uid, gid;

	for (t = table; t->text; t++) {
		uid = 11;
		gid = 12;
		CHECK(!parse_owner(t->text, &uid, &gid) == t->good, "'%s'", t->text);
		CHECK(uid == t->uid && gid == t->gid, "'%s' gives %u:%u", t->text, uid, gid);
	}
}

static void addresses(void)
{
	static const struct {
		const char *text;
		enum addr_kind kind;
		const char *rest;	/* NULL: the text */
	} *t, table[] = {
		{ "bdev:/dev/sdb", ADDR_BDEV, "/dev/sdb" },
		{ "/dev/sdb", ADDR_BDEV, NULL },
		{ "nbd://host", ADDR_NBD_TCP, NULL },
		{ "nbd://host/export", ADDR_NBD_TCP, NULL },
		{ "nbd://host:10809/a/b", ADDR_NBD_TCP, NULL },
		{ "nbd://192.0.2.1:65535", ADDR_NBD_TCP, NULL },
		{ "nbd://[::1]/x", ADDR_NBD_TCP, NULL },
		{ "nbd://[2001:db8::1]:10809/x", ADDR_NBD_TCP, NULL },
		{ "NBD://host/x", ADDR_NBD_TCP, NULL },
		{ "nbds://host:10809/x", ADDR_NBD_TLS, NULL },
		{ "nbd+unix:///x?socket=/run/s", ADDR_NBD_UNIX, NULL },
		{ "nbd+unix://?socket=/run/s", ADDR_NBD_UNIX, NULL },
		{ "nbd+unix:///?socket=%2Frun%2Fs", ADDR_NBD_UNIX, NULL },
		{ "nbd+unix:///x?foo=1&socket=/run/s", ADDR_NBD_UNIX, NULL },
		{ 0 }
	};
	static const char *const bad[] = {
		"", "sdb", "dev/sdb", "bdev:sdb",
		"bdev:", "nbd:", "nbd:host:10809", "nbd://",
		"nbd:///x", "nbd://:10809", "nbd://host:", "nbd://host:0",
		"nbd://host:65536", "nbd://host:port", "nbd://host:99999999999999999999", "nbd://::1/x",
		"nbd://[::1/x", "nbd://[]/x", "nbd://[::1]x", "nbd://[::1]:",
		"nbd://user@host/x", "nbd://host/a b", "nbds://host/x#y", "nbds://host/x?y=z", "nbds://",
		"nbds+unix:///x?socket=/s",
		"nbd+unix:///x", "nbd+unix:///x?socket=s", "nbd+unix://host/x?socket=/s", "nbd+unix:///x?socket=",
		"nbd+vsock://2/x", "nbd+ssh://host/x", "http://host/", "file:/dev/sdb",
		NULL
	};
	enum addr_kind kind;
	const char *rest, *err;
	int i;

	for (t = table; t->text; t++) {
		err = parse_addr(t->text, &kind, &rest);
		CHECK(!err, "'%s': %s", t->text, err);
		if (err)
			continue;
		CHECK(kind == t->kind, "'%s' is of kind %d", t->text, kind);
		CHECK(!strcmp(rest, t->rest ? t->rest : t->text), "'%s' leads to '%s'", t->text, rest);
	}
	for (i = 0; bad[i]; i++)
		CHECK(parse_addr(bad[i], &kind, &rest), "'%s' is taken", bad[i]);
	err = parse_addr("nbds+unix:///x?socket=/s", &kind, &rest);
	CHECK(err && strstr(err, "TLS on a unix socket"), "nbds+unix: %s", err);
}

static void tls_addresses(void)
{
	struct addr_tls a;

	CHECK(!parse_addr_tls("nbds://host", &a) && !strcmp(a.host, "host") && !strcmp(a.port, "10809") && !*a.export &&
	      !strcmp(a.peer, "host") && !*a.dir, "host only");
	CHECK(!parse_addr_tls("nbds://[2001:db8::1]:99/a%20b/c?tls-hostname=b&tls-certificates=/x%2fy", &a) &&
	      !strcmp(a.host, "2001:db8::1") && !strcmp(a.port, "99") && !strcmp(a.export, "a b/c") && !strcmp(a.peer, "b") &&
	      !strcmp(a.dir, "/x/y"), "all of it");
	CHECK(parse_addr_tls("nbds://h/x?tls-hostname=../b", &a) && parse_addr_tls("nbds://h/x?tls-hostname=", &a) &&
	      parse_addr_tls("nbds://h/x?tls-hostname=%00", &a) && parse_addr_tls("nbds://h/x?tls-certificates=d", &a) &&
	      parse_addr_tls("nbds://h/%4", &a) && parse_addr_tls("nbds://h/x?", &a) && parse_addr_tls("nbd://h/x", &a), "taken");
}

/* Every string of four characters out of those that mean something: nothing may be read beyond the end (ASan). */
static void every_short_string(void)
{
	static const char set[] = "019.-:/[]?@=GkmsnB%";
	unsigned int n = sizeof(set) - 1, i, k, c;
	enum addr_kind kind;
	const char *rest;
	uint32_t uid = 0, gid = 0, mode;
	uint64_t v;
	char *s;

	for (i = 0; i < n * n * n * n; i++) {
		s = malloc(5);
		for (k = 0, c = i; k < 4; k++, c /= n)
			s[k] = set[c % n];
		s[4] = 0;
		parse_size(s, &v);
		parse_count(s, &v);
		parse_duration(s, 1000, &v);
		parse_name(s);
		parse_mode(s, &mode);
		parse_addr(s, &kind, &rest);
		if (i % 97 == 0)
			parse_owner(s, &uid, &gid);
		free(s);
	}
}

static const char *const prefixes[] = { "nbd://", "nbd+unix://", "bdev:", "nbd+unix:///x?socket=" };

static void every_short_address(void)
{
	static const char set[] = "a1:/[]?@=%";
	unsigned int n = sizeof(set) - 1, i, k, c, p;
	enum addr_kind kind;
	const char *rest;
	size_t len;
	char *s;

	for (p = 0; p < sizeof(prefixes) / sizeof(*prefixes); p++) {
		len = strlen(prefixes[p]);
		for (i = 0; i < n * n * n * n; i++) {
			s = malloc(len + 5);
			memcpy(s, prefixes[p], len);
			for (k = 0, c = i; k < 4; k++, c /= n)
				s[len + k] = set[c % n];
			s[len + 4] = 0;
			parse_addr(s, &kind, &rest);
			free(s);
		}
	}
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "sizes", sizes },
		{ "counts", counts },
		{ "rates", rates },
		{ "durations", durations },
		{ "names", names },
		{ "modes", modes },
		{ "owners", owners },
		{ "addresses", addresses },
		{ "addresses with TLS", tls_addresses },
		{ "every short string", every_short_string },
		{ "every short address", every_short_address },
	};

	return KTAP_RUN(cases);
}
