// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iovm-libvirt - has libvirt migrate a guest to another host, for iovmd.
 *
 * It is a program of its own, so that iovmd needs no libvirt, and is not held up by it. What it does is written to stdout, a JSON
 * object a line:
 *
 *	{"phase":...}					a step
 *	{"phase":...,"rate":...,...,"total_ms":...}	how far it is, as migrate.h of iovmd has it
 *	{"outcome":...,"why":...}			the end: migrated, rolled-back, refused (nothing was begun), lost, unclear
 *
 * On stdin it takes the lines cancel, hold (slow it down, so that it does not end) and go. When nobody is at the other end any more,
 * the migration goes on; "settle" later finds out what became of it.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iovm-libvirt.h"
#include "../common/parse.h"

static const char usage[] =
	"usage: iovm-libvirt migrate|settle --domain NAME --to URI [OPTION...]\n"
	"\n"
	"  --domain NAME        the guest\n"
	"  --to URI             libvirt of the other host: qemu+tls://HOST/system\n"
	"  --connect URI        libvirt of this one (qemu:///system)\n"
	"  --guest-uri URI      where the guest is sent: tcp://HOST; default: as libvirt there says\n"
	"  --tls                its memory is encrypted\n"
	"  --auto-converge      it is slowed down as far as is needed\n"
	"  --channels N         connections for its memory\n"
	"  --bandwidth SIZE     bytes in a second\n"
	"  --downtime TIME      for so long it may be stopped\n"
	"  --timeout TIME       after so long it is given up\n"
	"\n"
	"iovmd runs it: see iovmd.conf(5), 'libvirt'.\n";

static int wrong(const char *option, const char *value, const char *why)
{
	fprintf(stderr, "iovm-libvirt: --%s: '%s' %s\n", option, value, why);
	return 2;
}

/* libvirt writes errors to stderr by itself, if it is let. */
static void quiet(void *data, virErrorPtr e)
{
	(void)data;
	(void)e;
}

int main(int argc, char **argv)
{
	enum { DOMAIN = 1, TO, CONNECT, GUEST_URI, TLS, CONVERGE, CHANNELS, BANDWIDTH, DOWNTIME, TIMEOUT, HELP };
	static const struct option options[] = {
		{ "domain", required_argument, NULL, DOMAIN },		{ "to", required_argument, NULL, TO },
		{ "connect", required_argument, NULL, CONNECT },	{ "guest-uri", required_argument, NULL, GUEST_URI },
		{ "tls", no_argument, NULL, TLS },			{ "auto-converge", no_argument, NULL, CONVERGE },
		{ "channels", required_argument, NULL, CHANNELS },	{ "bandwidth", required_argument, NULL, BANDWIDTH },
		{ "downtime", required_argument, NULL, DOWNTIME },	{ "timeout", required_argument, NULL, TIMEOUT },
		{ "help", no_argument, NULL, HELP },			{ 0 }
	};
	struct job j = { .connect = "qemu:///system" };
	const char *why = NULL;
	uint64_t n = 0;
	int c, at;

	while ((c = getopt_long(argc, argv, "h", options, &at)) != -1) {
		switch (c) {
		case DOMAIN:
			j.domain = optarg;
			break;
		case TO:
			j.to = optarg;
			break;
		case CONNECT:
			j.connect = optarg;
			break;
		case GUEST_URI:
			j.guest_uri = optarg;
			break;
		case TLS:
			j.tls = true;
			break;
		case CONVERGE:
			j.converge = true;
			break;
		case CHANNELS:
			why = parse_count(optarg, &n);
			if (!why && (!n || n > 255))
				why = "is not from 1 to 255";
			j.channels = (unsigned int)n;
			break;
		case BANDWIDTH:
			why = parse_size(optarg, &n);
			/* libvirt counts MiB */
			j.bandwidth = (n + (1 << 20) - 1) >> 20;
			break;
		case DOWNTIME:
			why = parse_duration(optarg, 1, &j.downtime_ms);
			break;
		case TIMEOUT:
			why = parse_duration(optarg, 1000, &j.timeout_ms);
			break;
		case 'h':
		case HELP:
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
		if (why)
			return wrong(options[at].name, optarg, why);
	}
	if (optind != argc - 1 || !j.domain || !j.to || (strcmp(argv[optind], "migrate") && strcmp(argv[optind], "settle"))) {
		fputs(usage, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (virInitialize()) {
		fprintf(stderr, "iovm-libvirt: libvirt's library does not start\n");
		return 1;
	}
	virSetErrorFunc(NULL, quiet);
	return strcmp(argv[optind], "settle") ? migrate(&j) : settle(&j, NULL);
}
