// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Certificates: when they expire, and how a host gets another one. Whoever renews its own ('iovmctl peers renew') tells every peer
 * the new one over the channel that the old one protects ("certificate"); a peer then takes both, and when it has seen the new one
 * that alone. The files are read for every connection: nothing is cut, and what is connected goes on.
 */
#include <stdlib.h>
#include <string.h>

#include "iovmd.h"
#include "../common/tls_cert.h"

#define LOOK_MS		(12 * 3600000ull)
#define ASK_MS		10000

static sd_event_source *timer;

static const char *dir(void)
{
	return agent.config->host.tls_dir;
}

/* --- when they expire --- */

/*
 * Until when a certificate is valid, seconds since 1970: this host's own, or, p not NULL, the one by which a peer is known, or
 * that it has shown last, when that is another one by the same CA. 0: there is none.
 */
static uint64_t until(const struct config_peer *p)
{
	char file[IOVM_ADDR_MAX + IOVM_NAME_MAX + 16], why[WHY_MAX];
	struct tls_cert c;
	int r;

	if (p)
		snprintf(file, sizeof(file), "%s/peers/%s.crt", dir(), p->name);
	r = p ? tls_cert_read(file, &c, why, sizeof(why)) : tls_cert_read_own(dir(), &c, why, sizeof(why));
	if (r)
		return 0;
	if (p && c.is_ca && peer_cert_until(p) && peer_cert_until(p) < (uint64_t)c.until)
		return peer_cert_until(p);
	return (uint64_t)c.until;
}

static bool is_soon(uint64_t when)
{
	return when && when < (uint64_t)time(NULL) + TLS_CERT_SOON;
}

static void warn(const struct config_peer *p)
{
	uint64_t when = until(p);
	bool over = when < (uint64_t)time(NULL);
	char day[16];

	if (!is_soon(when))
		return;
	tls_cert_day((time_t)when, day);
	warning("the certificate of %s%s%s %s on %s%s: 'iovmctl peers renew'%s%s makes another one", p ? "peer '" : "this host",
		p ? p->name : "", p ? "'" : "", over ? "has expired" : "expires", day, over ? ", connections are refused" : "",
		p ? " on " : "", p ? p->name : "");
}

static void look(void *data)
{
	const struct config_peer *p;

	(void)data;
	if (!agent.config->host.plain_tcp) {
		warn(NULL);
		for (p = agent.config->peers; p; p = p->next)
			warn(p);
	}
	timer_set(&timer, LOOK_MS, look, NULL);
}

void certs_start(void)
{
	look(NULL);
}

void cert_json(struct json *j, const struct config_peer *p)
{
	uint64_t when = agent.config->host.plain_tcp ? 0 : until(p);

	if (when)
		json_u64(j, "certificate_expires", when);
	else
		json_null(j, "certificate_expires");
	json_bool(j, "certificate_expires_soon", is_soon(when));
}

static void metric(FILE *f, const char *host, uint64_t when)
{
	if (when)
		fprintf(f, "iovm_certificate_expires_seconds{host=\"%s\"} %llu\n", host, (unsigned long long)when);
}

void cert_metrics(FILE *f)
{
	const struct config_peer *p;

	if (agent.config->host.plain_tcp)
		return;
	metric(f, agent.config->host.name, until(NULL));
	for (p = agent.config->peers; p; p = p->next)
		metric(f, p->name, until(p));
}

/* --- a peer has another one --- */

void cert_seen(const struct config_peer *p, const char *fingerprint)
{
	char why[WHY_MAX];

	if (!agent.config->host.plain_tcp && *fingerprint && tls_cert_seen(dir(), p->name, fingerprint, why, sizeof(why)) > 0)
		info("peer '%s': has shown its new certificate, %s, and is known by that alone from now on", p->name, fingerprint);
}

void cert_request(struct line *l, uint64_t id, const struct config_peer *from, const char *fingerprint, const struct json_node *o)
{
	const char *text = member_str(o, "certificate");
	struct tls_cert c;
	char why[WHY_MAX];
	struct msg m;

	if (agent.config->host.plain_tcp || !*fingerprint)
		snprintf(why, sizeof(why), "host '%s' knows nobody by a certificate: it has 'transport = plain-tcp'", agent.config->host.name);
	else if (!text)
		snprintf(why, sizeof(why), "a request without 'certificate'");
	else if (!tls_cert_keep_next(dir(), from->name, text, fingerprint, &c, why, sizeof(why)))
		goto good;
	warning("peer '%s': its new certificate is not taken: %s", from->name, why);
	answer_error(l, id, why);
	return;
good:
	info("peer '%s': is going to show another certificate, %s: both are taken until it does", from->name, c.fingerprint);
	answer_begin(&m, id);
	msg_send(&m, l);
}

/* --- this host has another one --- */

/**
 * struct telling - the peers are told of it
 * @line: who is answered; NULL he has gone
 * @waits: for so many of them
 */
struct telling {
	struct line *line;
	uint64_t id;
	unsigned int waits, nr;
	struct told {
		struct telling *t;
		char name[IOVM_NAME_MAX], why[WHY_MAX];
	} *told;
	struct telling *next;
};

static struct telling *tellings;

void cert_unwatch(struct line *l)
{
	struct telling *t;

	for (t = tellings; t; t = t->next)
		if (t->line == l)
			t->line = NULL;
}

static void all_told(struct telling *t)
{
	struct telling **at;
	unsigned int i;
	struct msg m;

	for (at = &tellings; *at != t; at = &(*at)->next)
		;
	*at = t->next;
	if (t->line) {
		answer_begin(&m, t->id);
		json_open(&m.j, "peers", '[');
		for (i = 0; i < t->nr; i++) {
			json_open(&m.j, NULL, '{');
			json_str(&m.j, "name", t->told[i].name);
			json_bool(&m.j, "told", !*t->told[i].why);
			json_str(&m.j, "why", *t->told[i].why ? t->told[i].why : NULL);
			json_close(&m.j);
		}
		json_close(&m.j);
		msg_send(&m, t->line);
	}
	free(t->told);
	free(t);
}

static void on_told(const struct json_node *o, const char *text, const char *why, void *data)
{
	struct told *told = data;

	(void)o;
	(void)text;
	snprintf(told->why, sizeof(told->why), "%s", why ?: "");
	if (!--told->t->waits)
		all_told(told->t);
}

void cert_tell(struct line *l, uint64_t id, const char *certificate)
{
	const struct config_peer *p;
	struct telling *t = calloc(1, sizeof(*t));
	char *request;
	struct msg m;
	size_t n;

	for (p = agent.config->peers; p && t; p = p->next)
		t->nr++;
	if (t)
		t->told = calloc(t->nr + 1, sizeof(*t->told));
	if (!t || !t->told)
		abort();
	t->line = l;
	t->id = id;
	t->next = tellings;
	tellings = t;
	msg_begin(&m);
	json_str(&m.j, "op", "certificate");
	json_str(&m.j, "certificate", certificate);
	request = msg_end(&m, &n);
	request[n - 1] = 0;
	t->waits = t->nr + 1;		/* so that the first answer is not the last */
	for (p = agent.config->peers, n = 0; p; p = p->next, n++) {
		t->told[n].t = t;
		strcpy(t->told[n].name, p->name);
		peer_ask(p, request, ASK_MS, on_told, &t->told[n]);
	}
	free(request);
	if (!--t->waits)
		all_told(t);
}
