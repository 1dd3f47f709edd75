// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * status, metrics: what iovmd knows of guests, devices and peers.
 */
#include <string.h>
#include <time.h>

#include "agent.h"
#include "../common/tls_cert.h"

static const struct opt status_opts[] = {
	OPT_AGENT_SOCKET,
	{ 0 }
};

static const struct json_node *first_of(const struct json_node *o, const char *key)
{
	const struct json_node *m = o ? json_member(o, key) : NULL;

	return m ? m->first : NULL;
}

/* Why it is not as the configuration says */
static void show_kept(const struct json_node *o)
{
	if (*get_str(o, "kept"))
		printf("    not as it is configured now: %s: see 'iovmctl config reload'\n", get_str(o, "kept"));
}

/* Since when it counts as fenced */
static void show_fenced(const struct json_node *p)
{
	time_t at = (time_t)member_u64(p, "fenced_at");
	struct tm tm;
	char text[64];

	if (member_bool(p, "fenced") && localtime_r(&at, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
		printf(", fenced since %s", text);
}

/* Of this host, name NULL, or a peer */
static void show_expiry(const struct json_node *o, const char *name)
{
	time_t until = (time_t)member_u64(o, "certificate_expires");
	char day[16];

	if (!member_bool(o, "certificate_expires_soon"))
		return;
	tls_cert_day(until, day);
	printf("%s %s on %s: 'iovmctl peers renew'%s%s\n", name ? "    its certificate" : "the certificate of this host",
	       until < time(NULL) ? "has expired" : "expires", day, name ? " on " : "", name ?: "");
}

static void show_peers(const struct json_node *p)
{
	for (; p; p = p->next) {
		printf("  %-16s %s  ", get_str(p, "name"), get_str(p, "address"));
		if (member_bool(p, "connected")) {
			char t[32];

			text_ms(t, sizeof(t), member_u64(p, "since_ms"));
			printf("connected for %s%s\n", t, *get_str(p, "fingerprint") ? ", TLS" : ", plain TCP");
		} else {
			printf("not connected");
			show_fenced(p);
			printf(": %s\n", get_str(p, "why"));
		}
		if (member_bool(p, "libvirt_plain"))
			printf("    its libvirt is asked by plain TCP, as configured: neither encrypted nor, perhaps, authenticated\n");
		show_kept(p);
		show_expiry(p, get_str(p, "name"));
	}
}

static void show_path(const struct json_node *p)
{
	char t[32];

	text_ms(t, sizeof(t), member_u64(p, "since_ms"));
	printf("    %-14s %s for %s%s", get_str(p, "name"), get_str(p, "state"), t, member_bool(p, "takes_requests") ? ", takes the requests" : "");
	if (member_bool(p, "encrypted"))
		printf(", TLS");
	if (member_u64(p, "held"))
		printf(", %llu writes wait for its fence", (unsigned long long)member_u64(p, "held"));
	printf("\n");
	if (member_bool(p, "in_doubt"))
		printf("      what was sent over it before may still land%s%s\n", *get_str(p, "in_doubt_why") ? ": " : "", get_str(p, "in_doubt_why"));
}

static void show_epoch(const struct json_node *d)
{
	if (member_u64(d, "epoch"))
		printf("    epoch %llu is held by '%s'\n", (unsigned long long)member_u64(d, "epoch"),
		       *get_str(d, "epoch_holder") ? get_str(d, "epoch_holder") : "nobody");
	if (*get_str(d, "epoch_why"))
		printf("    its epoch cannot be had: %s\n", get_str(d, "epoch_why"));
}

static void show_devices(const struct json_node *d)
{
	const struct json_node *p;

	for (; d; d = d->next) {
		printf("  %-16s ", get_str(d, "name"));
		if (!*get_str(d, "state"))
			printf("is not there");
		else if (*get_str(d, "route"))
			printf("%s to '%s'", get_str(d, "state"), get_str(d, "route"));
		else
			printf("%s", get_str(d, "state"));
		if (member_u64(d, "queues_running"))
			printf(", a guest runs on it");
		if (member_u64(d, "sessions_of_peers"))
			printf(", %llu connections of peers", (unsigned long long)member_u64(d, "sessions_of_peers"));
		printf("\n");
		if (*get_str(d, "trouble"))
			printf("    not as configured: %s\n", get_str(d, "trouble"));
		show_kept(d);
		show_epoch(d);
		for (p = first_of(d, "paths"); p; p = p->next)
			show_path(p);
	}
}

static void show_findings(const struct json_node *g)
{
	const struct json_node *f = json_member(g, "findings");
	char t[32];

	if (!f)
		return;
	text_ms(t, sizeof(t), member_u64(g, "checked_ms_ago"));
	printf("    %s, as of %s ago\n", member_bool(g, "ready") ? "ready to be migrated" : "not ready to be migrated", t);
	for (f = f->first; f; f = f->next)
		if (member_bool(f, "bad"))
			printf("      %s: %s\n", get_str(f, "what"), get_str(f, "text"));
}

static void show_guests(const struct json_node *g)
{
	for (; g; g = g->next) {
		printf("  %-16s %s", get_str(g, "name"), get_str(g, "state"));
		if (*get_str(g, "to"))
			printf(" to '%s', by %s", get_str(g, "to"), get_str(g, "by"));
		if (*get_str(g, "why"))
			printf(": %s", get_str(g, "why"));
		if (*get_str(g, "arrival"))
			printf(" (%s)", get_str(g, "arrival"));
		printf("\n");
		show_kept(g);
		show_findings(g);
		if (json_member(g, "memory_encrypted") && !member_bool(g, "memory_encrypted"))
			printf("    its memory is not encrypted when it migrates, as configured\n");
		if (*get_str(g, "output"))
			printf("    its migrate-command: %s\n", get_str(g, "output"));
		if (*get_str(g, "bandwidth"))
			printf("    bandwidth: %s\n", get_str(g, "bandwidth"));
	}
}

/* The last connection that was refused here */
static void show_refused(const struct json_node *r)
{
	char t[32];

	if (!r || r->type != JSON_OBJECT)
		return;
	text_ms(t, sizeof(t), member_u64(r, "ago_ms"));
	printf("refused %llu connections, the last one %s ago, from %s (%s): %s\n", (unsigned long long)member_u64(r, "count"), t,
	       get_str(r, "from"), get_str(r, "to"), get_str(r, "why"));
}

static void show(const struct json_node *s)
{
	printf("host %s, release %s, connections between hosts: %s\n", get_str(s, "host"), get_str(s, "release"),
	       strcmp(get_str(s, "transport"), "tls") ? "plain TCP, as configured: neither encrypted nor authenticated" : "TLS");
	if (member_bool(s, "config_changed"))
		printf("the configuration was changed since iovmd has read it: 'iovmctl config check', then 'iovmctl config reload'\n");
	show_expiry(s, NULL);
	if (first_of(s, "peers"))
		printf("peers\n");
	show_peers(first_of(s, "peers"));
	show_refused(json_member(s, "last_refused"));
	if (first_of(s, "devices"))
		printf("devices\n");
	show_devices(first_of(s, "devices"));
	if (first_of(s, "guests"))
		printf("guests\n");
	show_guests(first_of(s, "guests"));
}

static int ask(const char *op, struct agent_talk *t, struct json_node **o, const char **text)
{
	int code = agent_ask(t, op, NULL);

	if (code)
		return code;
	*o = agent_answer(t, text, &code);
	if (*o && !member_bool(*o, "ok"))
		code = fail(EX_REFUSED, NULL, "%s", get_str(*o, "error"));
	return code;
}

static int run_status(int argc, char **argv)
{
	struct json_node *o = NULL;
	const struct json_node *p;
	struct agent_talk t;
	const char *text;
	int code;

	(void)argc;
	(void)argv;
	code = ask("status", &t, &o, &text);
	if (code)
		return code;
	if (opt_json) {
		puts(text);
	} else {
		show(json_member(o, "status"));
		for (p = first_of(o, "peers_say"); p; p = p->next) {
			printf("\nas '%s' sees it:\n", p->key);
			show(json_member(p, "status"));
		}
	}
	json_free(o);
	agent_end(&t);
	return EX_DONE;
}

const struct cmd cmd_status = {
	.name = "status", .args = "", .summary = "What iovmd knows of guests, devices and peers, here and there.",
	.detail = "Asks iovmd on this host, and through it those of its peers that are connected.\n",
	.opts = status_opts, .run = run_status,
};

static int run_metrics(int argc, char **argv)
{
	struct json_node *o = NULL;
	struct agent_talk t;
	int code;

	(void)argc;
	(void)argv;
	code = ask("metrics", &t, &o, NULL);
	if (code)
		return code;
	fputs(get_str(o, "text"), stdout);
	json_free(o);
	agent_end(&t);
	return EX_DONE;
}

const struct cmd cmd_metrics = {
	.name = "metrics", .args = "", .summary = "The same as numbers, in Prometheus' text format.",
	.detail = "For a textfile collector: iovmctl metrics >iovm.prom.tmp && mv iovm.prom.tmp iovm.prom\n",
	.opts = status_opts, .run = run_metrics,
};
