/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iovmd's configuration: /etc/iovm/iovmd.conf, then /etc/iovm/conf.d/ by name; see iovmd.conf(5). Sections [host], [peer NAME],
 * [device NAME], [guest NAME]; lines "key = value"; '#' begins a comment line. Host B's file looks like host A's: devices and guests that
 * may move have the same name on both.
 *
 * It needs nothing of the kernel and nothing of iovmd's other files: 'iovmctl config check' reads it too.
 */
#ifndef IOVMD_CONFIG_H
#define IOVMD_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iovm.h"		/* uapi/ */

#define CONFIG_FILE		"/etc/iovm/iovmd.conf"
#define CONFIG_DIR		"/etc/iovm/conf.d"
#define CONFIG_TLS_DIR		"/etc/iovm/tls"
#define CONFIG_MAX_BYTES	(1u << 20)	/* of a file */
#define CONFIG_MAX_ARGS		64
#define CONFIG_MAX_ERRORS	20		/* that are told of one reading */
#define CONFIG_PEER_PORT	10808
#define CONFIG_DATA_PORT	10809
#define CONFIG_HOST_MAX		256		/* of a host name or address, with the NUL */
#define CONFIG_URI_MAX		(CONFIG_HOST_MAX + 32)
#define CONFIG_UNIT_MAX		256		/* of the name of a unit, as systemd has it */
#define CONFIG_MAX_PEERS	7		/* of a device: its other paths */
#define CONFIG_MAX_GUESTS	IOVM_MAX_DEVS
#define CONFIG_MAX_DEVICES	16		/* of a guest */

#define CONFIG_WHY_MAX		192

/* Where something stands, for messages */
struct config_at {
	const char *file;
	unsigned int line;
};

/*
 * What the structs of peers, devices and guests have in common. Each stays where it is in memory while iovmd runs, whatever the
 * configuration says when it is read anew: see config_merge().
 *
 * @kept: why it is as it was before the configuration was read anew, or there although it is not in it; "" it is as that says
 * @used: it is not configured any more, and somebody still has a pointer to it
 */

/**
 * struct config_host - this host
 * @name: what peers call it; default: the host name up to the first dot
 * @listen: address for peers and their data connections; default: all
 * @peer_port: of the channel between agents
 * @data_port: of NBD
 * @plain_tcp: "transport = plain-tcp": nothing is encrypted or authenticated. Default: "transport = tls"
 * @tls_dir: certificates
 * @class: "eth0/1:50", the HTB class below which bandwidth is reserved; "" none
 * @io_rate: bits per second to be reserved for rerouted I/O of a guest that migrates; 0 none
 * @migration_rate: likewise for the migration; 0 not limited
 * @check_interval_ms: "check-interval": how often guests are looked at whether they could be migrated; 0 never
 * @parallel_migrations: "parallel-migrations": of their own accord, or when the host is drained
 */
struct config_host {
	struct config_at at;
	char name[IOVM_NAME_MAX];
	char listen[CONFIG_HOST_MAX];
	uint16_t peer_port;
	uint16_t data_port;
	bool plain_tcp;
	char tls_dir[IOVM_ADDR_MAX];
	char class[64];
	uint64_t io_rate;
	uint64_t migration_rate;
	uint64_t check_interval_ms;
	unsigned int parallel_migrations;
};

/**
 * struct config_peer - another host
 * @address: name or address
 * @libvirt_uri: its libvirt; default: "qemu+tls://ADDRESS/system"
 * @fence_command: makes sure that the host does nothing any more; "" none
 * @fence_after_ms: "fence-after": it is run when the host could not be asked for so long and a guest waits for that; 0 without it
 */
struct config_peer {
	struct config_at at;
	char name[IOVM_NAME_MAX];
	char kept[CONFIG_WHY_MAX];
	bool used;
	char address[CONFIG_HOST_MAX];
	uint16_t peer_port;
	uint16_t data_port;
	char libvirt_uri[CONFIG_URI_MAX];
	char fence_command[IOVM_ADDR_MAX];
	uint64_t fence_after_ms;
	struct config_peer *next;
};

/* Options for a command of iovmctl: "--queues", "4", ... Ends with NULL, as execv() wants it. */
struct config_args {
	const char *arg[CONFIG_MAX_ARGS + 1];
	unsigned int nr;
};

/**
 * struct config_device - a disk
 * @disk: the block device that is its data on this host: path "local"; "" none
 * @peers: hosts that reach the same data: a path each, called like the peer, in this order after "local"; and what the peer may be
 *	served: the same data by its connections
 * @create: from keys that are options of 'iovmctl create': queues, serial, owner, identity ...
 * @local: from keys "local.X", X an option of 'iovmctl path add' for block devices: local.io-timeout, local.fence-by ...
 * @remote: from keys "remote.X", likewise for NBD
 */
struct config_device {
	struct config_at at;
	char name[IOVM_NAME_MAX];
	char kept[CONFIG_WHY_MAX];
	bool used;
	char disk[IOVM_ADDR_MAX];
	struct config_peer *peers[CONFIG_MAX_PEERS];
	unsigned int nr_peers;
	struct config_args create, local, remote;
	struct config_device *next;
};

enum config_policy {
	POLICY_ON_REQUEST,	/* the default */
	POLICY_ON_FAILURE,
	POLICY_NEVER,
};

/* How a guest is migrated */
enum config_way {
	WAY_QMP,
	WAY_LIBVIRT,
	WAY_COMMAND,
};

/**
 * struct config_guest - a guest
 * @devices: what it has of the devices above
 * @qmp: its QEMU's QMP socket, for iovmd alone
 * @destination: where it goes; NULL: nowhere
 * @policy: "migrate = on-failure | on-request | never"
 * @settle_ms: "settle": a path must have been failed for so long before the guest is migrated for it
 * @flaps: it is not migrated for a path that failed more often than so within @flap_window_ms; 0 however often
 * @flap_window_ms: "flap-window"
 * @group: guests of the same one are migrated together; "" none but those that share a disk
 * @command: starts QEMU for a guest that comes (-incoming defer -S); "" none: the guest cannot come here
 * @unit: "iovm-guest@vm1.service", the service of systemd that its QEMU is: started, in place of @command, for a guest that comes, and
 *	stopped when it has gone; "" none
 * @libvirt: the name of its domain: libvirt migrates it, instead of QMP; "" it is not libvirt's
 * @libvirt_tls: then its memory is encrypted; default: what "transport" of [host] says
 * @migrate_command: is run instead of QMP; "" none
 * @max_downtime_ms: "max-downtime", QEMU's downtime-limit; 0 QEMU's default
 * @max_bandwidth: "max-bandwidth", bytes per second; 0 no limit
 * @channels: "channels", of multifd; 0: a single connection
 * @auto_converge: slow the guest as far as is needed
 * @timeout_ms: "timeout": after so long a migration is given up; 0 never
 */
struct config_guest {
	struct config_at at;
	char name[IOVM_NAME_MAX];
	char kept[CONFIG_WHY_MAX];
	bool used;
	struct config_device *devices[CONFIG_MAX_DEVICES];
	unsigned int nr_devices;
	char qmp[IOVM_ADDR_MAX];
	struct config_peer *destination;
	enum config_policy policy;
	uint64_t settle_ms;
	unsigned int flaps;
	uint64_t flap_window_ms;
	char group[IOVM_NAME_MAX];
	char command[IOVM_ADDR_MAX];
	char unit[CONFIG_UNIT_MAX];
	char libvirt[IOVM_NAME_MAX];
	bool libvirt_tls;
	char migrate_command[IOVM_ADDR_MAX];
	uint64_t max_downtime_ms;
	uint64_t max_bandwidth;
	unsigned int channels;
	bool auto_converge;
	uint64_t timeout_ms;
	struct config_guest *next;
};

/* All of it, in the order of the files */
struct config {
	struct config_host host;
	struct config_peer *peers;
	struct config_device *devices;
	struct config_guest *guests;
	/* not configured any more; private to config_merge.c */
	struct config_peer *old_peers;
	struct config_device *old_devices;
	struct config_guest *old_guests;
	void *memory;		/* what all of it points into; private to config*.c */
};

/**
 * struct config_error - what is wrong, and what to do about it
 * @at: where; line 0: the file as a whole
 * @text: "'queus' is not a key of [device]"
 * @remedy: "did you mean 'queues'?"; may be ""
 */
struct config_error {
	struct config_at at;
	char text[256];
	char remedy[256];
};

struct config_errors {
	struct config_error e[CONFIG_MAX_ERRORS];
	unsigned int nr;	/* may be more than are kept */
	void *memory;		/* private */
};

/*
 * Reads file and the directory's *.conf (either may be NULL; that file is missing is an error, that the directory is, is not). Returns the
 * configuration, or NULL when anything is wrong: then all errors that were found are in *errs. Both are freed by their functions.
 */
struct config *config_read(const char *file, const char *dir, struct config_errors *errs);
/* What of it could be understood, also when there are mistakes, which live as long as it does; NULL: no memory. */
struct config *config_read_rough(const char *file, const char *dir, struct config_errors *errs);
void config_free(struct config *c);
void config_errors_free(struct config_errors *errs);

/* Is a file of the directory read that is called so? */
bool config_is_file(const char *name);
/* Of all that would be read: another one when something was changed (config_sum.c). */
uint64_t config_sum(const char *file, const char *dir);

/*
 * Makes c what next says, and frees next (config_merge.c). What has the same name stays where it is, so that whoever has a pointer
 * to it sees what it says now; but for those that are ->kept: they stay as they are, also when next has them not. Any other that
 * next has not is named by no configuration any more, and stays in memory until config_sweep() finds that nobody has said
 * config_use_*() of it since the last one. Host: only what may change while iovmd runs.
 */
void config_merge(struct config *c, struct config *next);
void config_sweep(struct config *c);

static inline void config_use_peer(const struct config_peer *p)
{
	((struct config_peer *)(uintptr_t)p)->used = true;
}

static inline void config_use_device(const struct config_device *d)
{
	((struct config_device *)(uintptr_t)d)->used = true;
}

struct config_peer *config_peer(const struct config *c, const char *name);
struct config_device *config_device(const struct config *c, const char *name);
struct config_guest *config_guest(const struct config *c, const char *name);
/* The place of a host among a device's peers; -1 it is none. */
int config_peer_of(const struct config_device *d, const struct config_peer *p);

static inline enum config_way config_way(const struct config_guest *g)
{
	return *g->migrate_command ? WAY_COMMAND : *g->libvirt ? WAY_LIBVIRT : WAY_QMP;
}

#endif /* IOVMD_CONFIG_H */
