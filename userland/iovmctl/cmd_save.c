// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * save: the configuration of devices, for restore.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf.h"

static const char *opt_output;

static const struct opt save_opts[] = {
	{ "output", 'o', OPT_STR, &opt_output, "FILE", "Write to FILE instead, which is replaced as a whole or not\nat all.",
	  0, 0 },
	{ 0 }
};

/* A device that is named twice is written once. */
static int load_named(int argc, char **argv, struct conf_dev *devs, size_t *nr)
{
	char name[IOVM_NAME_MAX];
	struct iovm_dev_info info;
	int i, k, err;

	for (i = 0; i < argc; i++) {
		for (k = 0; k < i && strcmp(argv[k], argv[i]);)
			k++;
		if (k < i)
			continue;
		err = take_name(&cmd_save, "device", name, argv[i]);
		if (!err)
			err = get_dev(name, &info);
		if (!err)
			err = conf_load(&info, &devs[*nr]);
		if (err)
			return err;
		++*nr;
	}
	return EX_DONE;
}

static int load_all(struct conf_dev *devs, size_t room, size_t *nr)
{
	struct iovm_dev_info info = { .id = 0 };
	int err, code;

	while (*nr < room && !(err = next_dev(&info))) {
		code = conf_load(&info, &devs[*nr]);
		if (code)
			return code;
		++*nr;
		if (info.id++ == IOVM_NO_ID - 1)
			return EX_DONE;
	}
	return *nr == room || err == ENOENT ? EX_DONE : mux_fail(err, NULL, NULL, "cannot list the devices");
}

/* The new file beside the old one, on stable storage before it takes its place */
static int write_file(const struct conf_dev *devs, size_t nr)
{
	char temp[4096];
	mode_t mask;
	int fd, err;
	FILE *f;

	if ((size_t)snprintf(temp, sizeof(temp), "%s.XXXXXX", opt_output) >= sizeof(temp))
		return usage_error(&cmd_save, "--output: the name is too long");
	fd = mkostemp(temp, O_CLOEXEC);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f)
		return mux_fail(errno, NULL, NULL, "cannot write '%s'", temp);
	mask = umask(0);
	umask(mask);
	conf_write(f, devs, nr);
	err = ferror(f) || fflush(f) || fchmod(fd, 0666 & ~mask) || fsync(fd) ? errno : 0;
	if (fclose(f) && !err)
		err = errno;
	if (!err && rename(temp, opt_output))
		err = errno;
	if (!err)
		return EX_DONE;
	unlink(temp);
	return mux_fail(err, NULL, NULL, "cannot write '%s'", opt_output);
}

static int run_save(int argc, char **argv)
{
	struct conf_dev *devs;
	size_t nr = 0;
	int err;

	err = mux_open();
	if (err)
		return err;
	devs = calloc(IOVM_MAX_DEVS, sizeof(*devs));
	if (!devs)
		return mux_fail(ENOMEM, NULL, NULL, "cannot read the devices");
	err = argc ? load_named(argc, argv, devs, &nr) : load_all(devs, IOVM_MAX_DEVS, &nr);
	if (!err && opt_output)
		err = write_file(devs, nr);
	else if (!err)
		conf_write(stdout, devs, nr);
	free(devs);
	return err;
}

const struct cmd cmd_save = {
	.name = "save", .args = "[NAME...]", .summary = "Write the configuration of devices and paths, for 'restore'.",
	.detail =
	"Of all devices, or of those named: as they were created and set, owner and mode of the nodes, the paths in their\n"
	"order, the path that takes requests, what was suspended or failed by hand. It is JSON, with --json or without.\n"
	"\n"
	"Example:\n"
	"  iovmctl save -o /etc/iovm/devices.json\n",
	.opts = save_opts, .min_args = 0, .max_args = IOVM_MAX_DEVS, .run = run_save,
};
