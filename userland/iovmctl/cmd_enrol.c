// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * peers enrol: makes this host and another one known to each other, by a code that one shows and the other is told.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peers.h"
#include "../common/enrol.h"
#include "../common/net.h"
#include "../common/put_file.h"

#define STEP_MS		5000		/* for each step of the conversation */
#define WAIT_MS		600000

static struct {
	const char *at, *code, *listen;
	struct opt_u64 port, timeout;
} o;

static const struct opt enrol_opts[] = {
	{ "at", 'a', OPT_STR, &o.at, "ADDRESS", "Where the other host is, which shows a code. Without it,\nthis one shows one.", 0, 0 },
	{ "code", 0, OPT_STR, &o.code, "CODE", "The code that the other host shows. Default: it is asked for.", 0, 0 },
	{ "listen", 'l', OPT_STR, &o.listen, "ADDRESS", "Where to wait for the other host. Default: 'listen' of\n[host].", 0, 0 },
	{ "port", 'p', OPT_NUM, &o.port, "PORT", "TCP port, here or there. Default 10810.", 1, 65535 },
	{ "timeout", 't', OPT_TIME, &o.timeout, "TIME", "How long to wait for the other host. Default 10min.", 0, 0 },
	OPT_PEERS_CONFIG,
	OPT_AGENT_SOCKET,
	{ 0 }
};

/**
 * struct work - an enrolment
 * @self: this host
 * @other: the other one
 * @cert: by which that is known from now on
 */
struct work {
	struct config *c;
	struct enrol_side self, other;
	struct tls_cert own, cert;
	char *pem;
	char digits[ENROL_DIGITS];
};

static int port(void)
{
	return o.port.set ? (int)o.port.v : ENROL_PORT;
}

/* --- before --- */

static int take_self(struct work *w, const char *name)
{
	const struct config_host *h = &w->c->host;
	char why[512];
	bool made;

	if (!*h->name)
		return fail(EX_REFUSED, "write 'name = NAME' in [host]", "this host's name is not one that a host can have here");
	if (!strcmp(h->name, name))
		return usage_error(&cmd_peers_enrol, "'%s' is this host", name);
	if (h->plain_tcp)
		warn("'transport = plain-tcp' in [host]: certificates are of use once it is 'tls'");
	strcpy(w->self.name, h->name);
	/* "": all of them, the other takes the one that it sees */
	snprintf(w->self.address, sizeof(w->self.address), "%s", strcmp(h->listen, "0.0.0.0") && strcmp(h->listen, "::") ? h->listen : "");
	w->self.peer_port = h->peer_port;
	w->self.data_port = h->data_port;
	strcpy(w->other.name, name);
	if (tls_cert_own(h->tls_dir, h->name, &made, &w->pem, &w->own, why, sizeof(why)))
		return fail(EX_NO_ACCESS, geteuid() ? "run it as root: sudo iovmctl ..." : NULL, "%s", why);
	if (tls_cert_trouble(&w->own))
		return fail(EX_REFUSED, "remove it and its key to have both made anew, or bring another", "'%s/host.crt' %s", h->tls_dir,
			    tls_cert_trouble(&w->own));
	if (made && !opt_json)
		printf("made '%s/host.crt' and its key, valid for %u years\n", h->tls_dir, TLS_CERT_YEARS);
	return EX_DONE;
}

/* The code as it was given, or from the terminal. */
static int take_code(struct work *w)
{
	char line[128];
	const char *bad;

	if (!o.code) {
		if (isatty(STDIN_FILENO)) {
			fprintf(stderr, "The code that '%s' shows: ", w->other.name);
			fflush(stderr);
		}
		if (!fgets(line, sizeof(line), stdin))
			return usage_error(&cmd_peers_enrol, "no code was given");
	}
	bad = enrol_read_code(o.code ?: line, w->digits);
	if (bad)
		return usage_error(&cmd_peers_enrol, "the code %s", bad);
	return EX_DONE;
}

/* --- after --- */

/* "10.0.0.2" of the other side of a socket; "" not known */
static void address_of(int fd, char *buf, size_t n)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	*buf = 0;
	if (getpeername(fd, (void *)&a, &len))
		return;
	if (a.ss_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, buf, (socklen_t)n);
	else if (a.ss_family == AF_INET6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&a)->sin6_addr, buf, (socklen_t)n);
}

/* The lines of its section */
static void section(const struct work *w, char *buf, size_t n)
{
	char ports[64] = "", *at = ports;

	if (w->other.peer_port != CONFIG_PEER_PORT)
		at += sprintf(at, "peer-port = %u\n", w->other.peer_port);
	if (w->other.data_port != CONFIG_DATA_PORT)
		sprintf(at, "data-port = %u\n", w->other.data_port);
	snprintf(buf, n, "[peer %s]\naddress = %s\n%s", w->other.name, w->other.address, ports);
}

/* Sees to it that there is a [peer]. file: the one that was written, "" none. */
static void configure(const struct work *w, char *file, size_t n)
{
	const struct config_peer *p = config_peer(w->c, w->other.name);
	char lines[512], text[640];
	int err = 0;

	*file = 0;
	if (p) {
		if (strcmp(p->address, w->other.address))
			warn("%s:%u: [peer %s] has the address '%s', and '%s' is at '%s' now", p->at.file, p->at.line, p->name, p->address,
			     p->name, w->other.address);
		return;
	}
	section(w, lines, sizeof(lines));
	if (*peers_dir) {
		snprintf(file, n, "%s/peer-%s.conf", peers_dir, w->other.name);
		snprintf(text, sizeof(text), "# Written by 'iovmctl peers enrol'.\n%s", lines);
		err = put_dir(peers_dir, 0755);
		if (!err)
			err = access(file, F_OK) ? put_file(file, 0644, text, strlen(text)) : EEXIST;
		if (!err)
			return;
	}
	if (err)
		warn("cannot write '%s': %s", file, strerror(err));
	*file = 0;
	if (!opt_json)
		printf("add this to iovmd's configuration:\n\n%s\n", lines);
}

static void report(struct work *w, bool certain)
{
	char cert[256], file[4096];
	enum peers_told told;
	struct json j;

	configure(w, file, sizeof(file));
	told = peers_tell(w->other.name, false);
	if (opt_json) {
		json_init(&j, stdout, false);
		json_open(&j, NULL, '{');
		json_str(&j, "peer", w->other.name);
		json_str(&j, "address", w->other.address);
		peers_cert_json(&j, "certificate", &w->cert);
		json_bool(&j, "certain", certain);
		json_str(&j, "config_file", *file ? file : NULL);
		json_str(&j, "iovmd", peers_told_names[told]);
		json_close(&j);
		return;
	}
	peers_cert_text(&w->cert, cert, sizeof(cert));
	printf("%s: is known from now on, its certificate is %s\n", w->other.name, cert);
	if (*file)
		printf("%s: written, with address = %s\n", file, w->other.address);
	if (told == TOLD)
		printf("iovmd connects to it now\n");
	else if (told == TOLD_RESTART)
		printf("iovmd has yet to read [peer %s]: iovmctl config reload\n", w->other.name);
}

/* --- the conversation --- */

static int keep(const struct enrol_side *other, const char *pem, void *data, char *why, size_t n)
{
	struct work *w = data;

	return tls_cert_keep(w->c->host.tls_dir, other->name, pem, &w->cert, why, n);
}

/* As enrol_talk() */
static int talk(struct work *w, int fd, bool listener, char *why, size_t n)
{
	const struct enrol_job j = {
		.digits = w->digits, .self = &w->self, .pem = w->pem, .other = &w->other, .keep = keep, .data = w,
	};

	*w->other.address = 0;
	return enrol_talk(fd, listener, &j, STEP_MS, why, n);
}

static int finish(struct work *w, int r, const char *why)
{
	report(w, !r);
	if (r)
		return fail(EX_FAILED, "it is known here; if this host is not known there, do it again",
			    "'%s' did not confirm that it knows this host: %s", w->other.name, why);
	return EX_DONE;
}

static int connect_to(struct work *w)
{
	unsigned int limit = (unsigned int)(o.timeout.set ? o.timeout.v : STEP_MS);
	char why[NET_WHY];
	int fd, r;

	fd = net_connect(o.at, (uint16_t)port(), limit, why);
	if (fd < 0)
		return fail(EX_FAILED, "does 'iovmctl peers enrol' wait there, and does a firewall let this port pass?", "%s", why);
	r = talk(w, fd, false, why, sizeof(why));
	close(fd);
	if (r < 0)
		return fail(EX_REFUSED, strstr(why, "another code") ? "type it as it is shown there now; each 'peers enrol' makes a new one" : NULL, "%s: %s", o.at,
			    why);
	/* what was typed leads there */
	snprintf(w->other.address, sizeof(w->other.address), "%s", o.at);
	return finish(w, r, why);
}

/* An address of this host that others may reach it by; "" there is none */
static void some_address(char *buf, size_t n)
{
	struct ifaddrs *all, *a;

	*buf = 0;
	if (getifaddrs(&all))
		return;
	for (a = all; a && !*buf; a = a->ifa_next)
		if (a->ifa_addr && a->ifa_addr->sa_family == AF_INET && !(a->ifa_flags & IFF_LOOPBACK))
			inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr, buf, (socklen_t)n);
	freeifaddrs(all);
}

static void show_code(const struct work *w, const char *where, const char *code)
{
	char at[CONFIG_HOST_MAX];
	struct json j;

	some_address(at, sizeof(at));
	if (*where)
		snprintf(at, sizeof(at), "%s", where);
	if (opt_json) {
		json_init(&j, stdout, false);
		json_open(&j, NULL, '{');
		json_str(&j, "host", w->self.name);
		json_str(&j, "waits_for", w->other.name);
		json_str(&j, "at", at);
		json_u64(&j, "port", (uint64_t)port());
		json_str(&j, "code", code);
		json_close(&j);
	} else {
		printf("On host '%s', run\n\n    iovmctl peers enrol %s --at %s", w->other.name, w->self.name, *at ? at : "ADDRESS");
		if (port() != ENROL_PORT)
			printf(" --port %d", port());
		printf("\n\nand type this code when it asks:\n\n    %s\n\n", code);
		printf("Waiting for it. Ctrl-C ends this; the code is of no use then.\n");
	}
	fflush(stdout);
}

static int await(struct work *w)
{
	uint64_t end_ms = now_ms() + (o.timeout.set ? o.timeout.v : WAIT_MS), now;
	const char *where = o.listen ?: w->c->host.listen;
	int fds[NET_MAX_LISTEN], fd, r = -1;
	struct pollfd p[NET_MAX_LISTEN];
	char code[ENROL_CODE], why[NET_WHY], from[128], address[CONFIG_HOST_MAX], text[16];
	unsigned int nr, i;

	if (enrol_new_code(code))
		return fail(EX_FAILED, NULL, "there are no random numbers: %s", strerror(errno));
	enrol_read_code(code, w->digits);
	snprintf(text, sizeof(text), "%d", port());
	nr = net_listen(where, text, fds, NULL, why);
	if (!nr)
		return fail(EX_FAILED, "--listen and --port say where to wait", "%s", why);
	show_code(w, where, code);
	for (i = 0; i < nr; i++)
		p[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	while (r < 0) {
		now = now_ms();
		if (now >= end_ms)
			return fail(EX_FAILED, NULL, "'%s' did not come", w->other.name);
		if (poll(p, nr, end_ms - now > 60000 ? 60000 : (int)(end_ms - now)) <= 0)
			continue;
		for (i = 0; i < nr && r < 0; i++) {
			fd = p[i].revents ? accept4(fds[i], NULL, NULL, SOCK_CLOEXEC) : -1;
			if (fd < 0)
				continue;
			/* now: a socket whose other end has gone does not tell */
			net_peer_text(fd, from, sizeof(from));
			address_of(fd, address, sizeof(address));
			r = talk(w, fd, true, why, sizeof(why));
			if (r < 0)
				warn("%s: %s; waiting on", from, why);
			else if (!*w->other.address)
				strcpy(w->other.address, address);
			close(fd);
		}
	}
	for (i = 0; i < nr; i++)
		close(fds[i]);
	return finish(w, r, why);
}

static int run_enrol(int argc, char **argv)
{
	const char *bad = parse_name(argv[0]);
	struct work w = { 0 };
	int code;

	(void)argc;
	if (bad)
		return usage_error(&cmd_peers_enrol, "peer '%s' %s", argv[0], bad);
	if (o.code && !o.at)
		return usage_error(&cmd_peers_enrol, "--code goes with --at: without it, this host makes the code");
	if (o.at && o.listen)
		return usage_error(&cmd_peers_enrol, "--at and --listen do not go together");
	bad = o.at ? parse_host(o.at) : NULL;
	if (bad)
		return usage_error(&cmd_peers_enrol, "--at: '%s' %s", o.at, bad);
	signal(SIGPIPE, SIG_IGN);
	w.c = peers_read_config(&code);
	if (!w.c)
		return code;
	code = take_self(&w, argv[0]);
	if (!code && o.at)
		code = take_code(&w) ?: connect_to(&w);
	else if (!code)
		code = await(&w);
	free(w.pem);
	config_free(w.c);
	return code;
}

const struct cmd cmd_peers_enrol = {
	.name = "peers enrol", .args = "NAME", .summary = "Make this host and host NAME known to each other.",
	.detail =
	"Run it on both hosts: on one as it is, which shows a code and waits; on the other with --at, where the code is typed. The\n"
	"code is the secret that protects the exchange of the hosts' certificates; it is good for that once. Each host then knows\n"
	"the other by its certificate, and by nothing else. A certificate and its key are made where there are none, valid for\n"
	"10 years. [peer NAME] is written to the directory of iovmd's configuration, if there is none. To be run again when a host\n"
	"has a new certificate.\n"
	"\n"
	"Example, hosts a and b:\n"
	"  a# iovmctl peers enrol b\n"
	"  b# iovmctl peers enrol a --at 10.0.0.1\n",
	.opts = enrol_opts, .min_args = 1, .max_args = 1, .run = run_enrol,
};
