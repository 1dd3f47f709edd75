/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iovmctl: the command line of iovm_mux. The map of its files:
 *
 *   main.c        the table of commands, dispatch, --help
 *   opt.c         options: one table per command gives the parsing and the help text
 *   mux.c         /dev/iovm-mux: open, ioctl, errors turned into sentences and exit codes
 *   progress.c    what is shown while an ioctl waits
 *   out.c         field tables to aligned text or JSON
 *   report.c      what a command that changed something says at its end
 *   fields.c      the fields of devices and paths, each defined once
 *   hist.c        log2 histograms: percentiles and pictures
 *   identity.c    what data is behind an address
 *   nbd.c         NBD: connect and shake hands with libnbd, take the sockets
 *   nbd_tls.c     NBD over TLS: connect, shake hands, keys to the kernel
 *   nbd_server.c  NBD: the other side of the handshake
 *   offer.c       a target device as an export of such a server
 *   fence.c       make sure that nothing sent to a failed path lands any more
 *   offline.c     make the driver of a disk end what it has
 *   agent.c       asking iovmd
 *   peers.h       what the commands about peers share
 *   conf.c        the configuration of devices as a file
 *   cmd_*.c       the commands
 */
#ifndef IOVMCTL_H
#define IOVMCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "iovm.h"		/* uapi/ */
#include "../common/json.h"
#include "../common/parse.h"
#include "../common/tls.h"

#ifndef IOVM_RELEASE
#define IOVM_RELEASE "0.1.0"
#endif

#define MUX_NODE	"/dev/iovm-mux"
#define NODE_DIR	"/dev/vhost-iovm"

/**
 * enum exit_code - what iovmctl's exit status says; in the man page
 * @EX_DONE: done
 * @EX_FAILED: it was tried and failed: no connection, an I/O error, a time limit
 * @EX_USAGE_ERR: the command line is wrong; nothing was tried
 * @EX_NOT_FOUND: a device, path, export or file that was named does not exist
 * @EX_REFUSED: refused as things are: name taken, in use, does not fit, no live path, a file with mistakes
 * @EX_NO_ACCESS: the kernel side cannot be reached: module, permission or version
 */
enum exit_code {
	EX_DONE = 0,
	EX_FAILED = 1,
	EX_USAGE_ERR = 2,
	EX_NOT_FOUND = 3,
	EX_REFUSED = 4,
	EX_NO_ACCESS = 5,
};

/* ---- options (opt.c) ---- */

struct opt_u64 {
	uint64_t v;
	bool set;
};

/* What an option takes, and where its value goes */
enum opt_kind {
	OPT_FLAG,		/* bool *: true */
	OPT_STR,		/* const char ** */
	OPT_NUM,		/* struct opt_u64 *, opt.min..opt.max */
	OPT_COUNT,		/* struct opt_u64 *, 10k */
	OPT_SIZE,		/* struct opt_u64 *, bytes */
	OPT_RATE,		/* struct opt_u64 *, bits per second */
	OPT_TIME,		/* struct opt_u64 *, ms; a bare number counts seconds */
	OPT_TIME_MS,		/* struct opt_u64 *, ms; a bare number counts milliseconds */
	OPT_FACTOR,		/* struct opt_u64 *, a number of times, or "off" (UINT32_MAX) */
};

struct opt {
	const char *name;	/* without the dashes */
	char letter;		/* 0 when there is no short form */
	enum opt_kind kind;
	void *dst;
	const char *arg;	/* its name in the help text; NULL for OPT_FLAG */
	const char *help;	/* may hold several lines */
	uint64_t min, max;	/* OPT_NUM */
};

struct cmd {
	const char *name;	/* "create", "path add" */
	const char *args;	/* of the synopsis */
	const char *summary;	/* one line */
	const char *detail;	/* paragraphs for --help, each ends in a newline */
	const struct opt *opts;	/* ends with a NULL name; may be NULL */
	int min_args, max_args;
	int (*run)(int argc, char **argv);	/* the positional arguments; returns an exit code */
};

extern bool opt_json;		/* --json */

/* Parse argv[1...] by cmd->opts; returns the number of positional arguments left at argv[0...], or -1 - exit code. */
int opt_parse(const struct cmd *cmd, int argc, char **argv);
void opt_help(const struct cmd *cmd, FILE *f);

/* ---- errors (mux.c) ---- */

/* Print "iovmctl: message" and "hint: ..." (hint may be NULL) to stderr, as JSON with --json. Returns code. */
int fail(enum exit_code code, const char *hint, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int usage_error(const struct cmd *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* ---- the kernel side (mux.c) ---- */

/* Open MUX_NODE once and check the version. Returns EX_DONE or, having said why, EX_NO_ACCESS. */
int mux_open(void);
extern int mux_fd;
extern struct iovm_version mux_version;

/* Zero a struct of the control ABI and set its size. */
#define IOVM_INIT(s)	do { memset((s), 0, sizeof(*(s))); (s)->size = sizeof(*(s)); } while (0)

/* ioctl() on mux_fd, again on EINTR. Returns 0 or a positive errno. */
int mux_ioctl(unsigned long req, void *arg);

/*
 * Explain a failed ioctl: what (a command and its object), the kernel's own sentence, the errno, a hint.
 * Returns the exit code that errno maps to.
 */
int mux_fail(int err, const char *msg, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Copy a checked device or path name into a field of the ABI; a usage error when it is none. */
int take_name(const struct cmd *cmd, const char *what, char *dst, const char *name);

/* IOVM_DEV_GET by name, IOVM_PATH_GET by names; a failure has been explained. */
int get_dev(const char *name, struct iovm_dev_info *info);
int get_path(const char *dev, const char *name, struct iovm_path_info *info);
/* The path that a command's arguments DEV and PATH name; opens the control node. A failure has been explained. */
int take_path(const struct cmd *cmd, char **argv, struct iovm_path_info *info);
/* The next one with id >= info->id (set it before). Returns 0, ENOENT at the end, or another errno. */
int next_dev(struct iovm_dev_info *info);
int next_path(const char *dev, struct iovm_path_info *info);

/* ---- waiting (progress.c) ---- */

uint64_t now_ms(void);		/* CLOCK_MONOTONIC */

/* Like mux_ioctl(), but says on stderr what is waited for when it takes long. path may be NULL. */
int mux_ioctl_wait(unsigned long req, void *arg, const char *what, const char *dev, const char *path);

/* ---- output (out.c) ---- */

/* How a field's bytes are to be read and shown: text / JSON */
enum field_kind {
	F_STR,			/* char[]: as it is, "-" when empty / string, null when empty */
	F_SERIAL,		/* char[IOVM_SERIAL_MAX], perhaps without a NUL: likewise */
	F_U32,
	F_U64,
	F_HEX64,		/* 0x... / number */
	F_BOOL32,		/* __u32: yes, no / true, false */
	F_ERR,			/* __s32, negative errno: "EIO (Input/output error)" / "EIO", null when 0 */
	F_SIZE,			/* __u64 bytes: 10G / number */
	F_SIZE32,		/* __u32 bytes: likewise */
	F_SECTORS,		/* __u64 sectors: 10G / bytes */
	F_SECTORS32,		/* __u32 sectors: likewise */
	F_RATE,			/* __u64 bits per second: 10gbit / number */
	F_MS,			/* __u64: 5min / number */
	F_MS32,
	F_NS,			/* __u64: 1.5ms / number */
	F_ENUM,			/* __u32: name from field.names / string, null outside of it */
};

/* One field of a struct, for text and JSON alike */
struct field {
	const char *key;	/* JSON; NULL: text only */
	const char *label;	/* text; NULL: JSON only */
	enum field_kind kind;
	size_t off;
	const char *zero;	/* text instead of 0 */
	const char *col;	/* header when it is a column of the table, else NULL */
	const char *const *names;	/* F_ENUM; ends with NULL */
};

void text_size(char *buf, size_t n, uint64_t bytes);
void text_ms(char *buf, size_t n, uint64_t ms);
void text_ns(char *buf, size_t n, uint64_t ns);
/* A field's text form. */
void field_text(const struct field *f, const void *base, char *buf, size_t n);
/* All fields as members of the open JSON object. */
void fields_json(struct json *j, const struct field *f, const void *base);
/* All fields as lines "label: value", indented. */
void fields_text(const struct field *f, const void *base, unsigned int indent);
/* The fields that are columns, as an aligned table with a header. */
void fields_table(const struct field *f, const void *rows, size_t nr, size_t stride);
/* A JSON array of objects. */
void fields_json_array(struct json *j, const char *key, const struct field *f, const void *rows, size_t nr,
		       size_t stride);
const char *name_of(const char *const *names, uint32_t v);

/* ---- what there is to show (fields.c) ---- */

/* A device with what is worked out from it */
struct dev_view {
	struct iovm_dev_info i;
	char route[IOVM_NAME_MAX];	/* path name, empty when none */
	char paths[32];			/* "1/2": live of all */
	char queues[32];		/* "2/4": running of all */
	char use[32];			/* "pid 1234", "no" */
	char node[sizeof(NODE_DIR) + IOVM_NAME_MAX];
	uint32_t live_paths;
	uint32_t rdonly, bounce_reads, needs_epoch;
};

struct path_view {
	struct iovm_path_info i;
	uint32_t routed;		/* the device's requests go here */
	char cache[16];
	uint32_t shared;		/* IOVM_PATH_F_SHARED */
	char same_data[16];		/* shown, stated, assumed, unknown */
	char fence_status[160];		/* how the last attempt to fence it went */
	char nbd_flags[160];
};

extern const struct field dev_fields[], path_fields[];
extern const char *const dev_state_names[], *const path_state_names[], *const path_type_names[];
extern const char *const class_names[], *const op_names[];

/* Fill a view; paths[] (IOVM_MAX_PATHS) and *nr may be NULL. Returns 0 or an errno. */
int load_dev(const struct iovm_dev_info *info, struct dev_view *v, struct path_view *paths, unsigned int *nr);
/* get_dev() and load_dev() with all paths; a failure has been explained. */
int load_paths(const char *name, struct dev_view *v, struct path_view *paths, unsigned int *nr);
/* The same for the argument of a command, after take_name() and mux_open(). */
int take_paths(const struct cmd *cmd, const char *arg, struct dev_view *v, struct path_view *paths, unsigned int *nr);

/* ---- what a command that changed something says (report.c) ---- */

/* The device as JSON, or "NAME: text"; text NULL: where its requests go. */
int report_dev(const char *name, const char *text);
int report_path(const char *dev, const char *name);

/* ---- adding a path (cmd_path.c) ---- */

/* Not O_EXCL: the kernel claims the device for itself and would find it taken. A failure has been explained. */
int open_bdev(const char *file, bool rdonly, int *fd);
const char *path_add_hint(int err);	/* NULL: none */

/* ---- histograms (hist.c) ---- */

uint64_t hist_total(const __u64 *h);
/* Upper bound in ns of the bucket that holds the permille-th sample: "below this"; 0 no sample, UINT64_MAX open. */
uint64_t hist_below(const __u64 *h, unsigned int permille);
void hist_json(struct json *j, const char *key, const __u64 *h);
void hist_text(const char *title, const __u64 *h, unsigned int indent);
/* "p50 <131us  p99 <524us  p99.9 <1.05ms" */
void hist_line(char *buf, size_t n, const __u64 *h);
void hist_bound(char *buf, size_t n, uint64_t below);

/* ---- NBD (nbd.c) ---- */

/* Transmission flags, by bit (the NBD protocol's numbers) */
enum {
	NBD_HAS_FLAGS,
	NBD_READ_ONLY,
	NBD_SEND_FLUSH,
	NBD_SEND_FUA,
	NBD_ROTATIONAL,
	NBD_SEND_TRIM,
	NBD_SEND_WRITE_ZEROES,
	NBD_SEND_DF,
	NBD_CAN_MULTI_CONN,
	NBD_SEND_RESIZE,
	NBD_SEND_CACHE,
	NBD_SEND_FAST_ZERO,
};

struct nbd_export {
	uint64_t bytes;
	uint32_t flags;			/* transmission flags */
	uint32_t min_block, pref_block, max_payload;	/* bytes, 0 not stated */
	bool structured;
	bool drained;			/* whoever connects knows that it has ended and drained the path's earlier sessions */
	bool replace;			/* of a path that is live: in place of its connections */
	bool tls;			/* encrypted by the kernel */
	char identity[IOVM_IDENTITY_MAX];	/* what the export says of its data; "" nothing */
	unsigned int nr;		/* connections; 0 when only asked about */
	int fds[IOVM_MAX_SOCKETS];
};

#define NBD_DEFAULT_CONNECTIONS	4
#define NBD_CONNECT_MS		10000

/*
 * Connect to uri and shake hands. want = connections (0 = default); only_ask: leave politely after the size is known.
 * Returns an exit code, having said why.
 */
extern struct opt_u64 nbd_pace;	/* --pace: bits per second that a connection may send */
int nbd_open_export(const char *uri, unsigned int want, bool only_ask, uint64_t timeout_ms, struct nbd_export *ex);
/* One connection to an address nbds:// (nbd_tls.c); *fd is -1 with only_ask. */
int nbd_connect_tls(const char *uri, bool only_ask, uint64_t timeout_ms, struct nbd_export *ex, int *fd);
/*
 * The address with TLS: nbd:// becomes nbds://, and dir and peer (may be NULL) are written into it, so that it can be used again. "" when
 * it does not fit into n bytes.
 */
void nbd_tls_addr(const char *addr, const char *dir, const char *peer, char *buf, size_t n);
#define TLS_HINT	"see 'Encrypted connections' in docs/operations.md on how to make certificates"
void nbd_close_export(struct nbd_export *ex);
extern const char *const nbd_flag_names[16];

/* Hand the sockets of an export with the data called id to the nbd path dev/name (cmd_connect.c). */
int connect_path(const char *dev, const char *name, const struct nbd_export *ex, const char *id);
/* The same again: a server that says nothing of its data is taken at the operator's word, if he gave one. */
int reconnect_path(const struct iovm_path_info *pi, const struct nbd_export *ex);

#define IDENTITY_TOKEN	"iovm-id="	/* in the description of an NBD export */

/* ---- what data it is (identity.c); id has IOVM_IDENTITY_MAX bytes and is "" when there is nothing to say ---- */

/* A line of a file, without spaces around; false when there is no file or nothing in it. */
bool read_attr(const char *dir, const char *name, char *buf, size_t n);
/* Of a directory /sys/dev/block/MAJOR:MINOR, of an open block device, of the description of an NBD export. */
void identity_of_sysfs(const char *dir, char *id);
void identity_of_bdev(int fd, char *id);
void identity_of_description(const char *text, char *id);
/* What was found, else what was given (may be NULL); an error, explained, when they contradict each other. */
int identity_settle(const struct cmd *cmd, const char *what, const char *given, const char *found, char *id);
/* A server that answers from its page cache, by its command line or by the socket to it: what it is, or NULL. */
const char *server_buffers(const char *const *argv);
const char *peer_buffers(int sock);

/* ---- fences (fence.c) ---- */

#define FENCE_LIMIT_MS	60000
extern const char *const fence_by_names[];
/* Of iovm_path_ctl.status; "" for 0. */
void fence_status_text(char *buf, size_t n, int status);
/* Is it fenced by fence_path(), not by the operator or the kernel? */
bool fence_is_ours(const struct iovm_path_info *pi);
/* How many requests wait for it to be fenced as it says. */
uint64_t fence_waits(const struct iovm_path_info *pi);
/* What is wrong with a file as a fence command, or NULL. */
const char *fence_program_bad(const char *file);
/*
 * Fence a failed path as it says, within limit_ms (0: the default), and tell the kernel. loud: also say why it failed. Returns an
 * exit code, or FENCE_BUSY: another process is at it.
 */
#define FENCE_BUSY	64
int fence_path(const struct iovm_path_info *pi, uint64_t limit_ms, bool loud);

/* ---- taking a disk from its driver (offline.c) ---- */

/* Is it a whole disk for which offline_disk() has a way? */
bool offline_knows(dev_t devt);
/* Make the driver of a bdev path's disk end what it has; may take long. 0 or a negative errno, explained. */
int offline_disk(const struct iovm_path_info *pi);

/* ---- commands ---- */

extern const struct cmd cmd_list, cmd_show, cmd_version;			/* cmd_list.c */
extern const struct cmd cmd_create, cmd_destroy;				/* cmd_create.c */
extern const struct cmd cmd_failover, cmd_failback, cmd_suspend, cmd_resume;	/* cmd_ctl.c */
extern const struct cmd cmd_fail_parked, cmd_set;			/* cmd_ctl.c */
extern const struct cmd cmd_epoch_take, cmd_epoch_give;			/* cmd_epoch.c */
extern const struct cmd cmd_resize;						/* cmd_resize.c */
extern const struct cmd cmd_path_add, cmd_path_remove, cmd_path_list;		/* cmd_path.c */
extern const struct cmd cmd_path_fail, cmd_path_retry, cmd_path_fenced;		/* cmd_path.c */
extern const struct cmd cmd_path_fence, cmd_path_set;				/* cmd_path.c */
extern const struct cmd cmd_path_connect;					/* cmd_connect.c */
extern const struct cmd cmd_path_watch;						/* cmd_watch.c */
extern const struct cmd cmd_serve;						/* cmd_serve.c */
extern const struct cmd cmd_session_list, cmd_session_end;			/* cmd_session.c */
extern const struct cmd cmd_reserve_list, cmd_reserve_add;			/* cmd_reserve.c */
extern const struct cmd cmd_reserve_remove, cmd_reserve_check;			/* cmd_reserve.c */
extern const struct cmd cmd_identify;						/* cmd_identify.c */
extern const struct cmd cmd_events;						/* cmd_events.c */
extern const struct cmd cmd_stats;						/* cmd_stats.c */
extern const struct cmd cmd_top;						/* cmd_top.c */
extern const struct cmd cmd_config_check, cmd_config_show;			/* cmd_config.c */
extern const struct cmd cmd_config_reload;					/* cmd_reload.c */
extern const struct cmd cmd_status, cmd_metrics;				/* cmd_status.c */
extern const struct cmd cmd_peers, cmd_peers_forget;				/* cmd_peers.c */
extern const struct cmd cmd_peers_enrol;					/* cmd_enrol.c */
extern const struct cmd cmd_peers_renew;					/* cmd_renew.c */
extern const struct cmd cmd_migrate;						/* cmd_migrate.c */
extern const struct cmd cmd_check, cmd_export;						/* cmd_check.c */
extern const struct cmd cmd_rehearse;						/* cmd_rehearse.c */
extern const struct cmd cmd_drain_host;						/* cmd_drain.c */
extern const struct cmd cmd_save;						/* cmd_save.c */
extern const struct cmd cmd_restore;						/* cmd_restore.c */

#endif
