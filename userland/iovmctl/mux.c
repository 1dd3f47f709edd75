// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/iovm-mux: open, ioctl, and errors turned into sentences and exit codes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "iovmctl.h"

int mux_fd = -1;
struct iovm_version mux_version;

/* To a terminal, perhaps, which what an NBD server has said is not to control. */
static void put_text(const char *s)
{
	const unsigned char *c = (const unsigned char *)s;
	size_t n = strlen(s), len;

	for (; n; c += len, n -= len) {
		len = json_utf8_len((const char *)c, n);
		if (!len || *c < ' ' || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0)) {
			fputc('?', stderr);
			len = len ?: 1;
		} else {
			fwrite(c, 1, len, stderr);
		}
	}
}

static void report(enum exit_code code, const char *hint, const char *errname, const char *text)
{
	struct json j;

	fflush(stdout);
	if (!opt_json) {
		fputs("iovmctl: ", stderr);
		put_text(text);
		if (hint) {
			fputs("\n  hint: ", stderr);
			put_text(hint);
		}
		fputc('\n', stderr);
		return;
	}
	json_init(&j, stderr, false);
	json_open(&j, NULL, '{');
	json_str(&j, "error", text);
	json_str(&j, "errno", errname);
	json_str(&j, "hint", hint);
	json_u64(&j, "exit", code);
	json_close(&j);
}

int fail(enum exit_code code, const char *hint, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report(code, hint, NULL, text);
	return code;
}

int usage_error(const struct cmd *cmd, const char *fmt, ...)
{
	char text[1024], hint[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(hint, sizeof(hint), "see 'iovmctl %s%s--help'", cmd ? cmd->name : "", cmd ? " " : "");
	report(EX_USAGE_ERR, hint, NULL, text);
	return EX_USAGE_ERR;
}

void warn(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("iovmctl: warning: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static enum exit_code exit_of(int err)
{
	switch (err) {
	case ENOENT:
	case ENXIO:
		return EX_NOT_FOUND;
	case EBUSY:
	case EEXIST:
	case EINVAL:
	case EMEDIUMTYPE:
	case ENOSPC:
	case ENOLINK:
	case ENOTBLK:
	case EOPNOTSUPP:
	case EROFS:
	case ERANGE:
	case ESTALE:
		return EX_REFUSED;
	case EPERM:
	case EACCES:
	case ENODEV:
	case ENOTTY:
	case E2BIG:
		return EX_NO_ACCESS;
	default:
		return EX_FAILED;
	}
}

/* What helps whatever the command was */
static const char *general_hint(int err)
{
	switch (err) {
	case EPERM:
	case EACCES:
		return "run it as root (CAP_NET_ADMIN is needed)";
	case ENODEV:
		return "load the module of the device class: modprobe vhost_iovm_blk";
	case ENOTTY:
	case E2BIG:
		return "the loaded module is older than this iovmctl: load the one that was built with it";
	case EINTR:
		return "it was interrupted; 'iovmctl show' tells what state things are in";
	default:
		return NULL;
	}
}

int mux_fail(int err, const char *msg, const char *hint, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		n = 0;
	if (msg && *msg)
		snprintf(text + n, sizeof(text) - (size_t)n, ": %.*s (%s)", IOVM_MSG_MAX, msg, strerror(err));
	else
		snprintf(text + n, sizeof(text) - (size_t)n, ": %s", strerror(err));
	report(exit_of(err), hint ? hint : general_hint(err), strerrorname_np(err), text);
	return exit_of(err);
}

static int open_failed(int err)
{
	if (err == EACCES || err == EPERM)
		return fail(EX_NO_ACCESS, "run it as root: sudo iovmctl ...", "cannot open %s: %s", MUX_NODE,
			    strerror(err));
	if (err != ENOENT && err != ENXIO && err != ENODEV)
		return fail(EX_NO_ACCESS, NULL, "cannot open %s: %s", MUX_NODE, strerror(err));
	if (access("/sys/module/iovm_mux", F_OK))
		return fail(EX_NO_ACCESS, "load it with: modprobe vhost_iovm_blk", "the module iovm_mux is not loaded (%s: %s)",
			    MUX_NODE, strerror(err));
	return fail(EX_NO_ACCESS, "is devtmpfs mounted on /dev? 'grep iovm-mux /proc/misc' gives the minor for mknod",
		    "the module iovm_mux is loaded, but %s is not there: %s", MUX_NODE, strerror(err));
}

int mux_open(void)
{
	int err;

	if (mux_fd >= 0)
		return EX_DONE;
	mux_fd = open(MUX_NODE, O_RDWR | O_CLOEXEC);
	if (mux_fd < 0)
		return open_failed(errno);
	IOVM_INIT(&mux_version);
	err = mux_ioctl(IOVM_GET_VERSION, &mux_version);
	if (err == ENOTTY)
		return fail(EX_NO_ACCESS, NULL, "%s is not the control node of iovm_mux", MUX_NODE);
	if (err)
		return mux_fail(err, NULL, NULL, "cannot ask %s for its version", MUX_NODE);
	if (mux_version.abi != IOVM_ABI_VERSION)
		return fail(EX_NO_ACCESS, "install the iovmctl that belongs to the loaded module",
			    "the module speaks ABI %u, this iovmctl %u", mux_version.abi, IOVM_ABI_VERSION);
	return EX_DONE;
}

int mux_ioctl(unsigned long req, void *arg)
{
	int ret;

	do {
		ret = ioctl(mux_fd, req, arg);
	} while (ret < 0 && errno == EINTR);
	return ret < 0 ? errno : 0;
}

int take_name(const struct cmd *cmd, const char *what, char *dst, const char *name)
{
	const char *err = parse_name(name);

	if (err)
		return usage_error(cmd, "%s: '%s' %s", what, name, err);
	strcpy(dst, name);
	return EX_DONE;
}

int get_dev(const char *name, struct iovm_dev_info *info)
{
	int err;

	IOVM_INIT(info);
	snprintf(info->name, sizeof(info->name), "%s", name);
	err = mux_ioctl(IOVM_DEV_GET, info);
	if (err == ENOENT)
		return fail(EX_NOT_FOUND, "'iovmctl list' shows the devices", "there is no device '%s'", name);
	if (err)
		return mux_fail(err, NULL, NULL, "cannot read device '%s'", name);
	return EX_DONE;
}

int get_path(const char *dev, const char *name, struct iovm_path_info *info)
{
	struct iovm_dev_info di;
	char hint[128];
	int err;

	IOVM_INIT(info);
	snprintf(info->dev, sizeof(info->dev), "%s", dev);
	snprintf(info->name, sizeof(info->name), "%s", name);
	err = mux_ioctl(IOVM_PATH_GET, info);
	if (err == ENOENT) {
		err = get_dev(dev, &di);
		if (err)
			return err;
		snprintf(hint, sizeof(hint), "'iovmctl path list %s' shows its paths", dev);
		return fail(EX_NOT_FOUND, hint, "device '%s' has no path '%s'", dev, name);
	}
	if (err)
		return mux_fail(err, NULL, NULL, "cannot read path '%s' of device '%s'", name, dev);
	return EX_DONE;
}

int take_path(const struct cmd *cmd, char **argv, struct iovm_path_info *info)
{
	char dev[IOVM_NAME_MAX], name[IOVM_NAME_MAX];
	int err;

	err = take_name(cmd, "device", dev, argv[0]);
	if (!err)
		err = take_name(cmd, "path", name, argv[1]);
	if (!err)
		err = mux_open();
	return err ?: get_path(dev, name, info);
}

int next_dev(struct iovm_dev_info *info)
{
	uint32_t id = info->id;

	IOVM_INIT(info);
	info->id = id;
	return mux_ioctl(IOVM_DEV_GET, info);
}

int next_path(const char *dev, struct iovm_path_info *info)
{
	uint32_t id = info->id;

	IOVM_INIT(info);
	info->id = id;
	snprintf(info->dev, sizeof(info->dev), "%s", dev);
	return mux_ioctl(IOVM_PATH_GET, info);
}
