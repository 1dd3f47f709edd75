// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two hosts make each other known. See enrol.h.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "enrol.h"
#include "json.h"
#include "line_read.h"
#include "parse.h"

#define VERSION		1
#define MAX_LINE	(32u << 10)

/* Crockford's: no I, L, O and U, which are taken for others */
static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

int enrol_new_code(char code[ENROL_CODE])
{
	unsigned char raw[ENROL_DIGITS];
	unsigned int i;

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return -1;
	for (i = 0; i < ENROL_DIGITS; i++) {
		*code++ = alphabet[raw[i] & 31];
		if (i % 5 == 4)
			*code++ = i == ENROL_DIGITS - 1 ? 0 : '-';
	}
	return 0;
}

const char *enrol_read_code(const char *text, char digits[ENROL_DIGITS])
{
	static char why[96];
	unsigned int nr = 0;
	char c;

	for (; *text; text++) {
		c = (char)toupper((unsigned char)*text);
		if (c == '-' || isspace((unsigned char)c))
			continue;
		c = c == 'O' ? '0' : c == 'I' || c == 'L' ? '1' : c;
		if (!strchr(alphabet, c))
			return "has a character that no code has: it is digits and letters, without U";
		if (nr < ENROL_DIGITS)
			digits[nr] = c;
		nr++;
	}
	if (nr == ENROL_DIGITS)
		return NULL;
	snprintf(why, sizeof(why), "has %u characters of %u", nr, ENROL_DIGITS);
	return why;
}

/* --- lines over TLS --- */

static ssize_t get(void *from, void *buf, size_t n, uint64_t timeout_ms)
{
	return tls_read(from, buf, n, timeout_ms);
}

struct text {
	char *s;
	size_t n;
	FILE *f;
	struct json j;
};

static bool begin(struct text *x)
{
	memset(x, 0, sizeof(*x));
	x->f = open_memstream(&x->s, &x->n);
	if (!x->f)
		return false;
	json_init(&x->j, x->f, false);
	json_open(&x->j, NULL, '{');
	return true;
}

static int send_off(struct text *x, struct tls *t, uint64_t timeout_ms)
{
	int r;

	json_close(&x->j);
	r = fclose(x->f) ? -1 : tls_write(t, x->s, x->n, timeout_ms);
	free(x->s);
	return r;
}

/* --- the conversation --- */

struct talk {
	const struct enrol_job *j;
	struct tls *t;
	struct line_buf b;
	uint64_t timeout_ms;
	char *why;
	size_t n;
};

static int tell_self(struct talk *k)
{
	const struct enrol_side *self = k->j->self;
	struct text x;

	if (!begin(&x))
		return -1;
	json_u64(&x.j, "iovm-enrol", VERSION);
	json_str(&x.j, "host", self->name);
	json_str(&x.j, "to", k->j->other->name);
	json_str(&x.j, "certificate", k->j->pem);
	json_str(&x.j, "address", self->address);
	json_u64(&x.j, "peer_port", self->peer_port);
	json_u64(&x.j, "data_port", self->data_port);
	if (!send_off(&x, k->t, k->timeout_ms))
		return 0;
	snprintf(k->why, k->n, "%s", tls_error(k->t));
	return -1;
}

static void tell_error(struct talk *k)
{
	struct text x;

	if (!begin(&x))
		return;
	json_str(&x.j, "error", k->why);
	send_off(&x, k->t, k->timeout_ms);
}

static int tell_kept(struct talk *k)
{
	struct text x;

	if (!begin(&x))
		return -1;
	json_bool(&x.j, "kept", true);
	return send_off(&x, k->t, k->timeout_ms);
}

static struct json_node *hear(struct talk *k)
{
	struct json_node *o = line_get(get, k->t, &k->b, MAX_LINE, k->timeout_ms);
	const char *error;

	if (!o || o->type != JSON_OBJECT) {
		snprintf(k->why, k->n, "%s", *tls_error(k->t) ? tls_error(k->t) : "it hung up, or sent something that is not of the protocol");
		goto bad;
	}
	error = member_str(o, "error");
	if (!error)
		return o;
	snprintf(k->why, k->n, "it refused: %.180s", error);
bad:
	json_free(o);
	return NULL;
}

/* Is it who it must be, and with values that can be used? Fills other. */
static int check(struct talk *k, const struct json_node *o)
{
	const char *name = member_str(o, "host"), *to = member_str(o, "to"), *address = member_str(o, "address") ?: "";
	struct enrol_side *other = k->j->other;
	uint64_t peer_port = member_u64(o, "peer_port"), data_port = member_u64(o, "data_port");

	if (member_u64(o, "iovm-enrol") != VERSION)
		snprintf(k->why, k->n, "it speaks version %llu of the protocol, this one %u: install the same release on both hosts",
			 (unsigned long long)member_u64(o, "iovm-enrol"), VERSION);
	else if (!name || !to || !member_str(o, "certificate") || !peer_port || peer_port > 65535 || !data_port || data_port > 65535)
		snprintf(k->why, k->n, "it sent something that is not of the protocol");
	else if (strcmp(to, k->j->self->name))
		snprintf(k->why, k->n, "host '%.64s' wants to enrol '%.64s', and this is '%s': see 'name' in [host]",
			 parse_name(name) ? "?" : name, parse_name(to) ? "?" : to, k->j->self->name);
	else if (strcmp(name, other->name))
		snprintf(k->why, k->n, "that host is called '%.64s', not '%s': see 'name' in its [host]", parse_name(name) ? "?" : name,
			 other->name);
	else if (*address && (strlen(address) >= sizeof(other->address) || parse_host(address)))
		snprintf(k->why, k->n, "the address that it says it has is none");
	else
		goto good;
	return -1;
good:
	if (*address)
		strcpy(other->address, address);
	other->peer_port = (uint16_t)peer_port;
	other->data_port = (uint16_t)data_port;
	return 0;
}

/* The other's line, when it is in order, for json_free() */
static struct json_node *hear_other(struct talk *k)
{
	struct json_node *o = hear(k);

	if (!o || !check(k, o))
		return o;
	tell_error(k);
	json_free(o);
	return NULL;
}

static int keep(struct talk *k, const struct json_node *o)
{
	int r = k->j->keep(k->j->other, member_str(o, "certificate"), k->j->data, k->why, k->n);

	if (r)
		tell_error(k);
	return r;
}

static bool hear_kept(struct talk *k)
{
	struct json_node *o = hear(k);
	bool yes = member_bool(o, "kept");

	json_free(o);
	return yes;
}

/* Who listens says nothing of itself before it has heard who that is, and keeps nothing before the other has. */
static int talk(struct talk *k, bool listener)
{
	struct json_node *o;
	int r = -1;

	if (!listener && tell_self(k))
		return -1;
	o = hear_other(k);
	if (!o)
		return -1;
	if (listener) {
		if (!tell_self(k) && hear_kept(k))
			r = keep(k, o) ? -1 : tell_kept(k) ? 1 : 0;
	} else if (!keep(k, o)) {
		r = tell_kept(k) || !hear_kept(k) ? 1 : 0;
	}
	json_free(o);
	return r;
}

int enrol_talk(int fd, bool listener, const struct enrol_job *j, uint64_t timeout_ms, char *why, size_t n)
{
	struct talk k = { .j = j, .timeout_ms = timeout_ms, .why = why, .n = n };
	struct tls_creds *c = tls_secret(j->digits, ENROL_DIGITS, why, n);
	int r = -1;

	if (!c)
		return -1;
	k.t = listener ? tls_server(c, fd, timeout_ms, why, n) : tls_client(c, fd, "", timeout_ms, why, n);
	if (!k.t && strstr(why, "another secret"))
		snprintf(why, n, "it has another code");
	if (k.t) {
		r = talk(&k, listener);
		tls_close(k.t);
	}
	free(k.b.text);
	tls_unload(c);
	return r;
}
