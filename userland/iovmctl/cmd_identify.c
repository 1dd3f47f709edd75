// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * identify: what data is at an address.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "iovmctl.h"

static struct opt_u64 opt_timeout;

static const struct opt identify_opts[] = {
	{ "timeout", 0, OPT_TIME, &opt_timeout, "TIME", "Time limit for asking an NBD server. Default 10s.", 0, 0 },
	{ 0 }
};

static int run_identify(int argc, char **argv)
{
	char id[IOVM_IDENTITY_MAX] = "";
	struct nbd_export ex;
	enum addr_kind kind;
	const char *rest, *bad;
	struct json j;
	int code, fd;

	(void)argc;
	bad = parse_addr(argv[0], &kind, &rest);
	if (bad)
		return usage_error(&cmd_identify, "'%s' %s", argv[0], bad);
	if (kind == ADDR_BDEV) {
		fd = open(rest, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			return mux_fail(errno, NULL, NULL, "cannot open '%s'", rest);
		identity_of_bdev(fd, id);
		close(fd);
	} else {
		code = nbd_open_export(rest, 0, true, opt_timeout.v, &ex);
		if (code)
			return code;
		strcpy(id, ex.identity);
	}
	if (!*id)
		return fail(EX_NOT_FOUND, kind == ADDR_BDEV ? "an operator who knows what it is gives 'path add' an --identity" :
			    "the server says it by '" IDENTITY_TOKEN "IDENTITY' in the description of the export",
			    "%s shows no identity of its data", argv[0]);
	if (opt_json) {
		json_init(&j, stdout, true);
		json_open(&j, NULL, '{');
		json_str(&j, "identity", id);
		json_close(&j);
	} else {
		puts(id);
	}
	return EX_DONE;
}

const struct cmd cmd_identify = {
	.name = "identify", .args = "ADDR", .summary = "Print the identity of the data at an address.",
	.detail =
	"ADDR as in 'path add'. It is what 'path add' compares. Needs no kernel module. On the host of an NBD server, its\n"
	"output is for the description of the export: qemu-nbd -D \"" IDENTITY_TOKEN "$(iovmctl identify /dev/sdb)\" ...\n",
	.opts = identify_opts, .min_args = 1, .max_args = 1, .run = run_identify,
};
