/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration of devices as a file: what 'save' writes and 'restore' reads. A table of fields gives the writing, the
 * reading and the comparison.
 */
#ifndef IOVMCTL_CONF_H
#define IOVMCTL_CONF_H

#include "iovmctl.h"

#define CONF_FORMAT	"iovm-devices"
#define CONF_VERSION	1
#define CONF_MAX_BYTES	(16u << 20)
#define CONF_TEXT	300
#define CONF_BOOT_ID	64

/**
 * struct conf_path - a path as it was added
 * @connections: nbd: how many it had, 0 when it had none
 * @failed: by hand
 */
struct conf_path {
	char name[IOVM_NAME_MAX];
	char addr[IOVM_ADDR_MAX];
	char identity[IOVM_IDENTITY_MAX];
	char fence_command[IOVM_ADDR_MAX];
	uint32_t type, flags, fence, fence_by, fence_after_ms;
	uint64_t pr_key;
	uint32_t heartbeat_ms, dead_ms, io_timeout_ms;
	uint32_t connections;
	uint32_t failed;
};

/**
 * struct conf_dev - a device as it was created and set
 * @mode: of its node, as it is now; so are @uid and @gid
 * @route: the path that took its requests, or would have if it had been usable, "" none
 * @by_hand: it was chosen by the operator
 * @epoch: that it held, or had last, 0 none
 * @epoch_boot: the id of the boot in which it held it, "" when it did not
 * @features: the virtio feature bits it offered
 */
struct conf_dev {
	char name[IOVM_NAME_MAX];
	char identity[IOVM_IDENTITY_MAX];
	char route[IOVM_NAME_MAX];
	uint32_t class, flags, mode, uid, gid, suspended, by_hand;
	uint64_t no_path_timeout_ms, no_space_timeout_ms, failback_after_ms, leave_slow_after_ms, iops, bps;
	uint32_t slow_factor;
	uint64_t epoch;
	char epoch_boot[CONF_BOOT_ID];
	uint64_t features;
	struct iovm_blk_config blk;
	unsigned int nr_paths;
	struct conf_path paths[IOVM_MAX_PATHS];
};

/* How the kernel side has a device now. An exit code, explained. */
int conf_load(const struct iovm_dev_info *info, struct conf_dev *d);
/* The one of that name that is there, EX_DONE; -1 when there is none; else an exit code, explained. */
int conf_load_name(const char *name, struct conf_dev *d);

/* Of this boot of the host; "" when it cannot be told. */
void conf_boot_id(char id[CONF_BOOT_ID]);

void conf_write(FILE *f, const struct conf_dev *devs, size_t nr);

/* Devices of a text that claims to be what conf_write() wrote; free() *devs. An exit code, explained. what: its file name. */
int conf_read(const char *what, const char *text, size_t n, struct conf_dev **devs, size_t *nr);

/*
 * The next field in which two differ, from *at on, which begins at 0; NULL when there is no other. What a device or path does at
 * the moment (route, suspended, failed, connections) is not compared, nor are the paths of a device.
 */
const char *conf_dev_differs(const struct conf_dev *is, const struct conf_dev *file, unsigned int *at,
			     char is_text[CONF_TEXT], char file_text[CONF_TEXT]);
const char *conf_path_differs(const struct conf_path *is, const struct conf_path *file, unsigned int *at,
			      char is_text[CONF_TEXT], char file_text[CONF_TEXT]);

#endif
