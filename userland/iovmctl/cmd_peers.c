// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peers, peers forget: the other hosts, and the certificates by which they are known.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peers.h"

const char *peers_config = CONFIG_FILE, *peers_dir = CONFIG_DIR;
const char *const peers_told_names[] = { "told", "restart", "not-running", NULL };

static const struct opt peers_opts[] = {
	OPT_PEERS_CONFIG,
	OPT_AGENT_SOCKET,
	{ 0 }
};

/* --- what the commands share --- */

struct config *peers_read_config(int *code)
{
	static struct config_errors errs;
	struct config *c;
	unsigned int i;

	c = config_read_rough(peers_config, *peers_dir ? peers_dir : NULL, &errs);
	if (!c) {
		*code = fail(EX_FAILED, NULL, "out of memory");
		return NULL;
	}
	/* one that is still to be written is no mistake here */
	for (i = 0; i < errs.nr && i < CONFIG_MAX_ERRORS; i++)
		if (errs.e[i].at.line || access(peers_config, F_OK) == 0) {
			warn("%s:%u: %s%s", errs.e[i].at.file, errs.e[i].at.line, errs.e[i].text,
			     errs.nr > 1 ? "; 'iovmctl config check' tells all mistakes" : "");
			break;
		}
	*code = EX_DONE;
	return c;
}

static const char *told_peer;
static bool told_forgotten;

static void rest(struct json *j)
{
	json_str(j, "peer", told_peer);
	json_bool(j, "forgotten", told_forgotten);
}

enum peers_told peers_tell(const char *name, bool forgotten)
{
	enum peers_told told = TOLD_NOT_RUNNING;
	struct agent_talk t;
	struct json_node *o;
	int code;

	if (!agent_runs())
		return told;
	told_peer = name;
	told_forgotten = forgotten;
	if (agent_ask(&t, "peer-again", rest))
		return told;
	o = agent_answer(&t, NULL, &code);
	if (o)
		told = member_bool(o, "ok") ? TOLD : TOLD_RESTART;
	json_free(o);
	agent_end(&t);
	return told;
}

void peers_cert_text(const struct tls_cert *c, char *buf, size_t n)
{
	const char *trouble = tls_cert_trouble(c);
	char day[16], from[16];

	tls_cert_day(c->until, day);
	tls_cert_day(c->from, from);
	if (c->is_ca)
		snprintf(buf, n, "that of the CA '%s', valid until %s%s%s", c->name, day, trouble ? ": it " : "", trouble ?: "");
	else if (trouble)
		snprintf(buf, n, "%s, valid from %s until %s: it %s", c->fingerprint, from, day, trouble);
	else
		snprintf(buf, n, "%s, valid until %s%s", c->fingerprint, day, c->until - time(NULL) < TLS_CERT_SOON ? ": it expires soon" : "");
}

void peers_cert_json(struct json *j, const char *key, const struct tls_cert *c)
{
	const char *trouble = tls_cert_trouble(c);

	json_open(j, key, '{');
	json_str(j, "name", c->name);
	json_str(j, "fingerprint", c->fingerprint);
	json_bool(j, "ca", c->is_ca);
	json_u64(j, "valid_from", (uint64_t)c->from);
	json_u64(j, "expires", (uint64_t)c->until);
	json_str(j, "trouble", trouble);
	json_close(j);
}

/* --- peers --- */

/**
 * struct row - a peer
 * @p: as it is configured; NULL: it is only known
 * @r: 0 there is a certificate, 1 there is none, -1 why
 * @o: what iovmd says of it; NULL: nothing
 */
struct row {
	char name[IOVM_NAME_MAX];
	const struct config_peer *p;
	struct tls_cert cert;
	int r;
	char why[256];
	const struct json_node *o;
};

static void look(struct row *row, const struct config *c, const char *name, const struct json_node *o)
{
	char file[512];

	snprintf(row->name, sizeof(row->name), "%s", name);
	row->p = config_peer(c, name);
	snprintf(file, sizeof(file), "%s/peers/%s.crt", c->host.tls_dir, name);
	row->r = tls_cert_read(file, &row->cert, row->why, sizeof(row->why));
	for (o = o ? o->first : NULL; o && strcmp(get_str(o, "name"), name); o = o->next)
		;
	row->o = o;
}

/* Those that are configured, then those that are only known. */
static struct row *all_rows(const struct config *c, const struct json_node *o, unsigned int *nr)
{
	const struct config_peer *p;
	struct row *rows = NULL, *more;
	char dir[512], name[IOVM_NAME_MAX];
	struct dirent *e;
	DIR *d;

	*nr = 0;
	snprintf(dir, sizeof(dir), "%s/peers", c->host.tls_dir);
	d = opendir(dir);
	for (p = c->peers; p || d;) {
		if (p) {
			strcpy(name, p->name);
			p = p->next;
		} else {
			size_t len;

			e = readdir(d);
			if (!e)
				break;
			len = strlen(e->d_name);
			if (len <= 4 || len - 4 >= sizeof(name) || strcmp(e->d_name + len - 4, ".crt"))
				continue;
			snprintf(name, sizeof(name), "%.*s", (int)len - 4, e->d_name);
			if (parse_name(name) || config_peer(c, name))
				continue;
		}
		more = realloc(rows, (*nr + 1) * sizeof(*rows));
		if (!more)
			break;
		rows = more;
		memset(&rows[*nr], 0, sizeof(*rows));
		look(&rows[(*nr)++], c, name, o);
	}
	if (d)
		closedir(d);
	return rows;
}

static void row_json(struct json *j, const struct config *c, const struct row *row)
{
	bool up = member_bool(row->o, "connected");

	json_open(j, NULL, '{');
	json_str(j, "name", row->name);
	json_bool(j, "configured", row->p);
	json_str(j, "address", row->p ? row->p->address : NULL);
	json_str(j, "transport", c->host.plain_tcp ? "plain-tcp" : "tls");
	if (row->o)
		json_bool(j, "connected", up);
	else
		json_null(j, "connected");
	if (up)
		json_u64(j, "since_ms", member_u64(row->o, "since_ms"));
	else
		json_null(j, "since_ms");
	json_str(j, "why", *get_str(row->o, "why") ? get_str(row->o, "why") : NULL);
	if (row->r)
		json_null(j, "certificate");
	else
		peers_cert_json(j, "certificate", &row->cert);
	/* what it has shown last: another one when it is known by its CA */
	json_str(j, "shows", *get_str(row->o, "fingerprint") ? get_str(row->o, "fingerprint") : NULL);
	if (member_u64(row->o, "expires"))
		json_u64(j, "shows_expires", member_u64(row->o, "expires"));
	else
		json_null(j, "shows_expires");
	json_close(j);
}

/* It has shown another one than the one that is kept: its CA has issued it, or it is about to be renewed. */
static void shown_text(const struct row *row)
{
	const char *shows = get_str(row->o, "fingerprint");
	time_t until = (time_t)member_u64(row->o, "expires");
	char day[16];

	if (!*shows || row->r || !strcmp(shows, row->cert.fingerprint))
		return;
	tls_cert_day(until, day);
	printf("  %-16s has shown   %s, valid until %s%s\n", "", shows, day, until - time(NULL) < TLS_CERT_SOON ? ": it expires soon" : "");
}

static void row_text(const struct config *c, const struct row *row)
{
	char cert[256], t[32];

	printf("  %-16s %s  ", row->name, row->p ? row->p->address : "there is no [peer] of this name");
	if (member_bool(row->o, "connected")) {
		text_ms(t, sizeof(t), member_u64(row->o, "since_ms"));
		printf("connected for %s, %s\n", t, c->host.plain_tcp ? "plain TCP" : "TLS");
	} else if (row->o) {
		printf("not connected: %s\n", get_str(row->o, "why"));
	} else {
		printf("%s\n", row->p ? "not known to the iovmd that runs, if any" : "");
	}
	peers_cert_text(&row->cert, cert, sizeof(cert));
	if (row->r < 0)
		printf("  %-16s %s\n", "", row->why);
	else if (!row->r)
		printf("  %-16s certificate %s\n", "", cert);
	else if (!c->host.plain_tcp)
		printf("  %-16s no certificate: 'iovmctl peers enrol %s' makes the two hosts known to each other\n", "", row->name);
	shown_text(row);
}

static int show(const struct config *c, const struct json_node *o)
{
	char why[256], text[256];
	struct tls_cert own;
	struct row *rows;
	unsigned int nr, i;
	struct json j;
	int r;

	rows = all_rows(c, o, &nr);
	r = tls_cert_read_own(c->host.tls_dir, &own, why, sizeof(why));
	peers_cert_text(&own, text, sizeof(text));
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "host", c->host.name);
		json_str(&j, "transport", c->host.plain_tcp ? "plain-tcp" : "tls");
		if (r)
			json_null(&j, "certificate");
		else
			peers_cert_json(&j, "certificate", &own);
		json_open(&j, "peers", '[');
		for (i = 0; i < nr; i++)
			row_json(&j, c, &rows[i]);
		json_close(&j);
		json_close(&j);
	} else {
		printf("host %s, connections between hosts: %s\n", c->host.name, c->host.plain_tcp ? "plain TCP, as configured" : "TLS");
		if (r < 0 || !c->host.plain_tcp || !r)
			printf("  certificate %s\n", !r ? text : r < 0 ? why : "none yet: 'iovmctl peers enrol' makes it");
		if (nr)
			printf("peers\n");
		for (i = 0; i < nr; i++)
			row_text(c, &rows[i]);
	}
	free(rows);
	return EX_DONE;
}

static int run_peers(int argc, char **argv)
{
	struct json_node *o = NULL;
	struct agent_talk t;
	struct config *c;
	int code;

	(void)argc;
	(void)argv;
	c = peers_read_config(&code);
	if (!c)
		return code;
	if (agent_runs() && !agent_ask(&t, "peers", NULL)) {
		o = agent_answer(&t, NULL, &code);
		agent_end(&t);
	}
	code = show(c, o ? json_member(o, "peers") : NULL);
	json_free(o);
	config_free(c);
	return code;
}

const struct cmd cmd_peers = {
	.name = "peers", .args = "", .summary = "The other hosts: connected or not, and by which certificates they are known.",
	.detail = "Reads iovmd's configuration and the certificates; what is connected says iovmd, if it runs.\n",
	.opts = peers_opts, .run = run_peers,
};

/* --- peers forget --- */

static void report_forgotten(const struct config *c, const char *name, enum peers_told told)
{
	const struct config_peer *p = config_peer(c, name);
	struct json j;

	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "forgotten", name);
		json_str(&j, "iovmd", peers_told_names[told]);
		json_close(&j);
		return;
	}
	printf("%s: is not known any more%s\n", name, told == TOLD ? "; its connections to this host have been ended" : "");
	if (p)
		printf("[peer %s] is still there, %s:%u: remove it and its name from 'peers' of devices, then 'iovmctl config reload'\n", name,
		       p->at.file, p->at.line);
}

static int run_forget(int argc, char **argv)
{
	const char *name = argv[0], *bad = parse_name(name);
	struct config *c;
	char why[512];
	int code, r;

	(void)argc;
	if (bad)
		return usage_error(&cmd_peers_forget, "peer '%s' %s", name, bad);
	c = peers_read_config(&code);
	if (!c)
		return code;
	r = tls_cert_forget(c->host.tls_dir, name, why, sizeof(why));
	if (r < 0)
		code = fail(EX_NO_ACCESS, geteuid() ? "run it as root: sudo iovmctl ..." : NULL, "%s", why);
	else if (r)
		code = fail(EX_NOT_FOUND, "'iovmctl peers' shows them", "there is no '%s/peers/%s.crt'", c->host.tls_dir, name);
	else
		report_forgotten(c, name, peers_tell(name, true));
	config_free(c);
	return code;
}

const struct cmd cmd_peers_forget = {
	.name = "peers forget", .args = "NAME", .summary = "A host is not to be trusted any more.",
	.detail =
	"Removes the certificate by which the peer is known. iovmd ends the connections that it has here, and makes no new ones. The\n"
	"configuration stays as it is. Paths of this host to that one that are connected stay so: 'iovmctl path remove' ends them.\n",
	.opts = peers_opts, .min_args = 1, .max_args = 1, .run = run_forget,
};
