// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peers renew: another certificate and key for this host. The peers are told of it before it is shown, by iovmd, over the channels
 * that the present one protects.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peers.h"

static bool opt_force;

static const struct opt renew_opts[] = {
	{ "force", 'f', OPT_FLAG, &opt_force, NULL, "Also when there are peers that cannot be told now: they have\nto be enrolled again.", 0, 0 },
	OPT_PEERS_CONFIG,
	OPT_AGENT_SOCKET,
	{ 0 }
};

static struct tls_pair pair;

static void rest(struct json *j)
{
	json_str(j, "certificate", pair.crt);
}

/* The peers as iovmd has told them: an object with "peers"; NULL: it does not run, or has not understood, why says so */
static struct json_node *tell(const char **why)
{
	struct json_node *o = NULL;
	struct agent_talk t;
	int code;

	*why = "iovmd does not run here";
	if (!agent_runs() || agent_ask(&t, "certificate", rest))
		return NULL;
	o = agent_answer(&t, NULL, &code);
	agent_end(&t);
	if (o && !json_member(o, "peers")) {
		*why = "the iovmd that runs here is of another release";
		json_free(o);
		o = NULL;
	}
	return o;
}

static const struct json_node *said_of(const struct json_node *o, const char *name)
{
	const struct json_node *p = o ? json_member(o, "peers") : NULL;

	for (p = p ? p->first : NULL; p && strcmp(get_str(p, "name"), name);)
		p = p->next;
	return p;
}

/* Is it known here by a certificate? Only then may it know this host. */
static bool is_known(const struct config *c, const char *name)
{
	char file[512];

	snprintf(file, sizeof(file), "%s/peers/%s.crt", c->host.tls_dir, name);
	return !access(file, F_OK);
}

/* Those that do not know the new certificate; report: say so */
static unsigned int untold(const struct config *c, const struct json_node *o, const char *why, bool report)
{
	const struct config_peer *p;
	unsigned int n = 0;

	for (p = c->peers; p; p = p->next) {
		const struct json_node *said = said_of(o, p->name);

		if (member_bool(said, "told") || !is_known(c, p->name))
			continue;
		n++;
		if (report)
			warn("%s was not told: %s", p->name, said ? get_str(said, "why") : o ? "iovmd has yet to read its [peer]" : why);
	}
	return n;
}

static void report_json(const struct config *c, const struct tls_cert *was, const struct json_node *o, const char *why)
{
	const struct config_peer *p;
	struct json j;

	json_init(&j, stdout, true);
	json_open(&j, NULL, '{');
	peers_cert_json(&j, "certificate", &pair.cert);
	peers_cert_json(&j, "was", was);
	json_open(&j, "peers", '[');
	for (p = c->peers; p; p = p->next) {
		const struct json_node *said = said_of(o, p->name);
		bool told = member_bool(said, "told");

		json_open(&j, NULL, '{');
		json_str(&j, "name", p->name);
		json_bool(&j, "known", is_known(c, p->name));
		json_bool(&j, "told", told);
		json_str(&j, "why", told ? NULL : said ? get_str(said, "why") : why);
		json_close(&j);
	}
	json_close(&j);
	json_close(&j);
}

static void report(const struct config *c, const struct tls_cert *was, const struct json_node *o, const char *why)
{
	const struct config_peer *p;
	char text[256];

	if (opt_json) {
		report_json(c, was, o, why);
		return;
	}
	for (p = c->peers; p; p = p->next)
		if (member_bool(said_of(o, p->name), "told"))
			printf("%s: knows the new certificate\n", p->name);
		else if (is_known(c, p->name))
			printf("%s: does not know it: 'iovmctl peers enrol %s'\n", p->name, p->name);
	peers_cert_text(&pair.cert, text, sizeof(text));
	printf("this host shows %s, from now on\n", text);
	printf("what is connected goes on as it is\n");
}

static int renew(const struct config *c)
{
	const struct config_host *h = &c->host;
	char why[512], *pem;
	const char *no_iovmd;
	struct json_node *o;
	struct tls_cert was;
	unsigned int n;
	bool made;
	int r;

	r = tls_cert_read_own(h->tls_dir, &was, why, sizeof(why));
	if (r > 0)
		return fail(EX_NOT_FOUND, "'iovmctl peers enrol' makes it", "this host has no certificate: %s", why);
	/* also puts in place what was interrupted */
	if (r < 0 || tls_cert_own(h->tls_dir, h->name, &made, &pem, &was, why, sizeof(why)))
		return fail(EX_NO_ACCESS, geteuid() ? "run it as root: sudo iovmctl ..." : NULL, "%s", why);
	free(pem);
	if (!was.self_signed)
		return fail(EX_REFUSED, "have a CA issue another one, and put it and its key there: they are read for each connection",
			    "'%s/host.crt' was not made by 'iovmctl peers enrol'", h->tls_dir);
	if (tls_pair_make(h->name, &pair, why, sizeof(why)))
		return fail(EX_FAILED, NULL, "%s", why);
	o = tell(&no_iovmd);
	n = untold(c, o, no_iovmd, true);
	if (n && !opt_force)
		r = fail(EX_REFUSED, "try again when they are connected; or use --force, and 'iovmctl peers enrol' with each of them again",
			 "nothing was changed: %u peer%s would not know this host any more", n, n == 1 ? "" : "s");
	else if (tls_pair_put(h->tls_dir, &pair, why, sizeof(why)))
		r = fail(EX_NO_ACCESS, geteuid() ? "run it as root: sudo iovmctl ..." : NULL, "%s", why);
	else
		report(c, &was, o, no_iovmd);
	json_free(o);
	tls_pair_free(&pair);
	return r;
}

static int run_renew(int argc, char **argv)
{
	struct config *c;
	int code;

	(void)argc;
	(void)argv;
	c = peers_read_config(&code);
	if (!c)
		return code;
	if (!*c->host.name)
		code = fail(EX_REFUSED, "write 'name = NAME' in [host]", "this host's name is not one that a host can have here");
	else
		code = renew(c);
	config_free(c);
	return code;
}

const struct cmd cmd_peers_renew = {
	.name = "peers renew", .args = "", .summary = "Make another certificate and key for this host, before the present one expires.",
	.detail =
	"iovmd tells the peers the new certificate, over the connections that the present one protects; then it is put in place. Nothing\n"
	"is to be done on the other hosts, nothing is restarted, and no connection is cut: new ones show the new certificate. Peers\n"
	"take both until they have seen it, and the new one alone then. Nothing is changed while a peer that is known here cannot be\n"
	"told, unless --force is given. If the present key may have been stolen, forget and enrol the host instead.\n",
	.opts = renew_opts, .run = run_renew,
};
