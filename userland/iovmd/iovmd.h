/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iovmd, the agent. One process waits for events (sd-event); what blocks, or reads what strangers send, is done by child processes,
 * which talk to it by lines of JSON. What it knows is in the kernel, in QEMU and in the configuration: it may be killed at any time,
 * and a new one takes things up as it finds them. The map of its files:
 *
 *   main.c        options, start, end, the loop
 *   config.c      the configuration files; config_sum.c: have they been changed?
 *   reload.c      takes up what was changed in them
 *   log.c         messages
 *   mark.c        what is under way, for the next iovmd
 *   stable.c      files that must outlive the host
 *   line.c        sockets that carry a JSON object a line
 *   child.c       child processes: programs with their output, workers with a line socket
 *   kernel.c      devices, paths and events of /dev/iovm-mux
 *   apply.c       makes the devices, paths and exports that are configured and are not there; apply_change.c: and what was changed
 *   epoch.c       who may write a device's data; epoch_store.c: what of that may wait
 *   doubt.c       makes sure that nothing of what was sent to a peer can land there any more
 *   data.c        takes in the NBD connections of peers, and hands them to the kernel
 *   link.c        the channel to a peer and from it: one process each
 *   peer.c        what is asked of peers; peer_in.c: what they ask here
 *   certs.c       when certificates expire, and that they are renewed
 *   guest.c       a guest: how far is its migration
 *   policy.c      which guests are to be migrated, and when; draining the host
 *   check.c       is a guest ready to be migrated? check_here.c: what is looked at on a host
 *   disks.c       which devices share a disk
 *   command.c     the operator's migrate-command
 *   rules.c       decisions that need nothing but what they are told
 *   source.c      the worker that migrates a guest away
 *   libvirt.c     the same by libvirt
 *   bandwidth.c   what is reserved for it meanwhile
 *   arrival.c     the worker that takes in a guest
 *   qmp.c, migrate.c, incoming.c   how QEMU is talked to; stream_key.c: with which key its migrations are encrypted
 *   unit.c        services of systemd, of which a guest may be one
 *   control.c     what iovmctl asks, on a unix socket
 *   status.c      what there is to tell: status, metrics; exports.c: what is served to whom
 *
 * All of it runs in one thread: nothing is locked. A worker has its parent's memory as it was when it was forked.
 */
#ifndef IOVMD_H
#define IOVMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "config.h"
#include "../common/json.h"
#include "../common/json_read.h"
#include "../common/line_read.h"
#include "../common/tls_cert.h"

#ifndef IOVM_RELEASE
#define IOVM_RELEASE "0.1.0"
#endif

#define RUN_DIR		"/run/iovm"
#define STATE_DIR	"/var/lib/iovm"
#define LINE_MAX_BYTES	(1u << 20)	/* of a JSON line */
#define WHY_MAX		512		/* of a sentence that says why */

/**
 * struct agent - all that the main process knows
 * @config: never NULL once it runs
 * @config_file: where it was read from
 * @config_dir: likewise
 * @config_sum: config_sum() at that time
 * @loop: the event loop
 * @iovmctl: the program
 * @run_dir: where its sockets are
 * @state_dir: what must outlive the host
 */
struct agent {
	struct config *config;
	const char *config_file, *config_dir;
	uint64_t config_sum;
	sd_event *loop;
	const char *iovmctl;
	const char *run_dir;
	const char *state_dir;
	bool ending;
};

extern struct agent agent;

/* ---- messages (log.c) ---- */

/* To the journal, or stderr: one line each. A failure of something that is tried again is a warning once. */
void info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
uint64_t clock_ms(void);	/* CLOCK_MONOTONIC */
/* A connection was refused: told, unless there are many; the last one is kept for status. to: what it wanted, "peers" or "data". */
void refusal(const char *from, const char *why, const char *to);
void refusal_json(struct json *j, const char *key);

/* ---- time (log.c) ---- */

/* Calls fn(data) once, after ms and up to an eighth more; takes the place of what *source was. */
typedef void (*timer_fn)(void *data);
void timer_set(sd_event_source **source, uint64_t ms, timer_fn fn, void *data);
void timer_clear(sd_event_source **source);
/* first, 2 first, 4 first ... last, each up to a quarter shorter by chance. *pause begins at 0. */
uint64_t next_pause(uint64_t *pause, uint64_t first, uint64_t last);

/* ---- marks (mark.c) ---- */

/*
 * Files below run_dir: "something is under way for this guest", or has happened to this peer, for the next iovmd, should this one
 * be killed. A hint alone: how things are is asked of QEMU and the kernel. of: its name
 */
void mark_set(const char *what, const char *of, const char *text);
void mark_clear(const char *what, const char *of);
/* Its text, up to n - 1 bytes; false: there is none. */
bool mark_get(const char *what, const char *of, char *text, size_t n);
/* As if it had just been set; and how long ago that was, by the clock on the wall: it may be negative, as when there is none. */
void mark_refresh(const char *what, const char *of);
int64_t mark_age_s(const char *what, const char *of);

/* ---- stable storage (stable.c) ---- */

/* A directory below state_dir: 0, or -1 and why. */
int stable_dir(const char *dir, char why[WHY_MAX]);
/* A file of it, written or removed for good; read as text. 0 or a negative errno; there is none: -ENOENT for read, 0 for remove. */
int stable_write(const char *dir, const char *name, const char *text);
int stable_remove(const char *dir, const char *name);
int stable_read(const char *dir, const char *name, char *text, size_t n);

/* ---- lines (line.c) ---- */

struct line;

/* A whole line, without its end; NULL: the other side has gone, and the line is freed after this call. */
typedef void (*line_fn)(struct line *l, char *text, void *data);

/* Takes over the socket. */
struct line *line_new(int fd, line_fn fn, void *data);
void line_close(struct line *l);	/* no call after this; NULL is fine */
/* on_accept is called for connections to a port of the listen address; 0, or -1 and why. */
int listen_at(uint16_t port, sd_event_io_handler_t on_accept, char why[WHY_MAX]);

/**
 * struct msg - a line that is being written
 * @j: to be written to; the object is open
 */
struct msg {
	struct json j;
	FILE *f;
	char *text;
	size_t n;
};

void msg_begin(struct msg *m);
/* Sends it; false when the other side does not read what it gets (the line ends then, and its function hears of it). */
bool msg_send(struct msg *m, struct line *l);
/* Ends it: text, for free(), ends in a newline. */
char *msg_end(struct msg *m, size_t *n);

bool send_all(int fd, const char *text, size_t n);
/* For workers: blocking, on a plain descriptor; false: the other side has gone, or time (0: none) is up. */
bool msg_write(struct msg *m, int fd);
/* The next line of fd, for json_free(); NULL likewise, or it is no JSON. */
struct json_node *line_read(int fd, struct line_buf *b, uint64_t timeout_ms);

/* ---- children (child.c) ---- */

struct child;

/* It has ended: status as of waitpid(); output: the end of what a program wrote to stderr, "" for workers. Freed after this call. */
typedef void (*child_fn)(struct child *c, int status, const char *output, void *data);

/* A program; argv ends with NULL. It is told to end when we do, however that comes, when bound. NULL: could not be started, which was said. */
struct child *child_program(const char *const *argv, bool bound, child_fn ended, void *data);
/*
 * A worker: run(sock, arg) in a child whose other end of sock is *line here. It has no other descriptor of ours but sock, keep (or -1)
 * and the standard ones. Dies with us when bound.
 */
struct child *child_worker(int (*run)(int sock, void *arg), void *arg, int keep, bool bound, struct line **line, line_fn fn,
			   child_fn ended, void *data);
void child_kill(struct child *c, int sig);
unsigned int child_nr(void);		/* those that have not ended yet, whether somebody waits for them or not */
void child_forget(struct child *c);	/* ended is not called any more; NULL is fine */
/* "it exited with status 3: last line", or the signal */
void child_reason(int status, const char *output, char why[WHY_MAX]);

/* ---- the kernel (kernel.c) ---- */

int kernel_open(char why[WHY_MAX]);
/* In a worker, before anything is asked of the kernel. */
bool kernel_in_child(void);
bool kernel_has_device(const char *name, struct iovm_dev_info *info);
bool kernel_has_path(const char *dev, const char *name, struct iovm_path_info *info);

/* ---- what is configured (apply.c) ---- */

#define EXPORT_SUFFIX	".export"

/* The target device through which peers reach a device's data */
void export_name(const struct config_device *d, char name[IOVM_NAME_MAX]);
void apply_start(void);
void apply_end(void);
/* The configuration is about to be what next says: what has to be done about a device that is not kept as it is. */
void apply_change(const struct config_device *d, const struct config *next);
/* It is; pace_anew: connections are paced otherwise from now on. */
void apply_reload(bool pace_anew);
/* Look again at what is there: at once, not only when a pause is over. */
void apply_look(void);
/* A peer admits us from now on: sooner than the watch would try. */
void apply_connect(const struct config_device *d, const struct config_peer *p);
/* Why a device is not as configured, "" when it is. */
const char *apply_trouble(const struct config_device *d);

/* ---- who may write (epoch.c) ---- */

int epoch_start(char why[WHY_MAX]);
void epoch_reload(void);
bool epoch_busy(const struct config_device *d);		/* it is being taken or given up */
void epoch_look(void);
bool epoch_needed(const struct config_device *d);
bool epoch_held(const struct config_device *d);		/* here, or it needs none */
/* With which epoch the connections of a peer are admitted; 0: not at all. */
uint64_t epoch_for_peer(const struct config_device *d, const struct config_peer *p);
bool epoch_giving(const struct config_device *d);	/* this host's kernel is just giving it up */
void epoch_peer_up(const struct config_peer *p);
void epoch_again(void);		/* try to have what a guest waits for, at once */
void epoch_unwatch(struct line *l);
void epoch_json(struct json *j, const struct config_device *d);
/* Requests of peers: epoch-give, epoch-raised; epoch-ready */
void epoch_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o);
void epoch_ready(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o);

/* ---- hosts that cannot be asked (fence_host.c) ---- */

void fence_host_reload(void);
/*
 * A guest waits for its epoch, and this peer, which is gone, may have it. Is it fenced? If not, why says what is done about that, "" nothing, for it
 * has no fence-command; ask again while the guest waits.
 */
bool fence_host(const struct config_peer *p, char why[WHY_MAX]);
bool fence_host_done(const struct config_peer *p);
/* "fenced" and since when, members of the open object */
void fence_host_json(struct json *j, const struct config_peer *p);
void fence_host_up(const struct config_peer *p);	/* it has shown that it lives */

/* ---- writes in doubt (doubt.c) ---- */

void doubt_reload(void);
void doubt_look(void);
void doubt_peer_up(const struct config_peer *p);
/* Why what was sent over a path may still land, and nothing can be done about it; NULL: nothing, or something can */
const char *doubt_why(const struct config_device *d, const char *path);
/* The peer's request: drain */
void drain_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o);
void drain_look(void);
void drain_unwatch(struct line *l);
/* No session of that peer is admitted to the device, for it is just being drained. */
bool drain_busy(const struct config_device *d);
bool drain_refuses(const struct config_device *d, const struct config_peer *from);

/* ---- data connections of peers (data.c) ---- */

int data_listen(char why[WHY_MAX]);
/* Ends the handshakes that are under way; once data_is_cut() none of them makes a session any more. */
uint64_t data_cut(void);
bool data_is_cut(uint64_t upto);
/* Sessions that a peer has with a device: the first from number *id on; and all of them are ended. */
bool data_next_session(const struct config_device *d, const struct config_peer *p, uint32_t *id);
void data_end(const struct config_device *d, const struct config_peer *p);

/* ---- peers (link.c, peer.c, peer_in.c) ---- */

/* Answer to a request, also as it came; o NULL: there is none, why says so. */
typedef void (*reply_fn)(const struct json_node *o, const char *text, const char *why, void *data);

int peer_listen(char why[WHY_MAX]);
void peer_reload(void);
bool peer_is_up(const struct config_peer *p, const char **why);
/* Neither side has a connection to the other. */
bool peer_is_gone(const struct config_peer *p);
/* Whether and since when, or why not: members of the open object. */
void peer_json(struct json *j, const struct config_peer *p);
/* Until when the certificate is valid that it has shown last, 0 not known */
uint64_t peer_cert_until(const struct config_peer *p);
/* What it is known by has changed: connections end, and are made anew. */
void peer_again(const struct config_peer *p);
/*
 * Sends an object, from { to }, without its "id", which is added; reply is called once, within timeout_ms. Returns a number for
 * peer_forget(), after which it is not.
 */
uint64_t peer_ask(const struct config_peer *p, const char *request, uint64_t timeout_ms, reply_fn reply, void *data);
void peer_forget(uint64_t number);

/* peer_in.c: has it a connection to us? All that it has end. */
bool incoming_from(const struct config_peer *p);
void incoming_end(const struct config_peer *p);
/* A connection from a peer brought a request. */
void peer_request(struct line *l, const struct config_peer *from, const struct json_node *o);
/* Answers */
void answer_error(struct line *l, uint64_t id, const char *why);
void answer_begin(struct msg *m, uint64_t id);

/* In a child: connects to a peer, or takes a connection of one, and carries lines to and fro; an exit status. */
int link_out(int sock, void *peer);
int link_in(int sock, void *fd);

/* ---- certificates (certs.c) ---- */

void certs_start(void);
/* Until when one is valid, members of the open object: this host's, or, p not NULL, a peer's. */
void cert_json(struct json *j, const struct config_peer *p);
void cert_metrics(FILE *f);
/* What a peer has shown. */
void cert_seen(const struct config_peer *p, const char *fingerprint);
/* A peer asks: "certificate"; it has shown the one with this fingerprint, "" none. */
void cert_request(struct line *l, uint64_t id, const struct config_peer *from, const char *fingerprint, const struct json_node *o);
/* Tells the peers which one this host is going to show, and l what they say. */
void cert_tell(struct line *l, uint64_t id, const char *certificate);
void cert_unwatch(struct line *l);

/* ---- guests (guest.c) ---- */

void guest_reload(void);
/* NULL and why: it cannot be. by: who wants it, for the log. */
bool guest_migrate(struct config_guest *g, struct config_peer *to, const char *by, char why[WHY_MAX]);
bool guest_cancel(struct config_guest *g, char why[WHY_MAX]);
/* Tell l of what the guest's migration does, until it has ended. */
void guest_watch(struct config_guest *g, struct line *l, uint64_t id);
void guest_unwatch(struct line *l);
/* A peer has a QEMU that waits to be told what became of the guest. */
void guest_settle(const char *name, const struct config_peer *at);
/* Does a queue of its devices run? Also in a worker. */
bool guest_is_here(const struct config_guest *g);
bool guest_is_migrating(const struct config_guest *g);
const struct config_peer *guest_goes_to(const struct config_guest *g);	/* NULL: it is not being migrated */
void guest_json(struct json *j, const char *key, const struct config_guest *g);

/* What a worker is started with */
struct source_job {
	const struct config_guest *guest;
	const struct config_peer *to;
	const char *what;		/* migrate; settle: find out what became of a migration that nobody looks after */
};
int source_run(int sock, void *job);

/* ---- which guests are to be migrated (policy.c) ---- */

/* Something has happened to a device, a peer or a migration: is a guest to be migrated? */
void guest_look(void);
/* All guests that run here go, to that peer or, NULL, to their destinations; l is told of it until it has ended. False: why not. */
bool policy_drain(const struct config_peer *to, struct line *l, uint64_t id, char why[WHY_MAX]);
bool policy_drain_cancel(char why[WHY_MAX]);
bool policy_drains(void);
void policy_unwatch(struct line *l);

/* ---- are guests ready? (check.c, check_here.c) ---- */

void check_reload(void);
/* Looks at it, and tells l. False: why not. */
bool check_guest(const struct config_guest *g, struct line *l, uint64_t id, char why[WHY_MAX]);
void check_unwatch(struct line *l);
/* Members of an open object */
void check_json(struct json *j, const struct config_guest *g);
/* 1, 0; -1 not known */
int check_is_ready(const struct config_guest *g);
/* A peer asks: "ready" */
void check_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o);

/* ---- disks (disks.c) ---- */

/* Look what its disk is, as long as it is there. */
void disk_look(const struct config_device *d);
void disk_forget(const struct config_device *d);	/* it has another one now, or is about to go */
bool disk_is_shared(const struct config_device *a, const struct config_device *b);

/* ---- bandwidth (bandwidth.c) ---- */

/* What an iovmd that was killed has reserved is released; after arrival_start(). */
void bandwidth_start(void);
/*
 * In a worker: for a guest that leaves for p, whose QEMU listens at uri, or, uri NULL, one that comes from there. False: nothing is
 * reserved. text: how much, or why nothing.
 */
bool bandwidth_reserve(const struct config_guest *g, const struct config_peer *p, const char *uri, char text[WHY_MAX]);
/* Whether there was something. */
bool bandwidth_release(const struct config_guest *g);
/* What QEMU may send, bytes per second; 0 no limit. */
uint64_t bandwidth_of_migration(const struct config_guest *g);

/* ---- guests that come (arrival.c) ---- */

/* Requests of the peer about a guest that comes: prepare, accept, abort. */
void arrival_request(struct line *l, uint64_t id, const struct config_peer *from, const struct json_node *o);
int arrival_start(char why[WHY_MAX]);
void arrival_reload(void);
/* Is it being prepared, or let run or ended? from: who asked last, NULL nobody. */
bool arrival_busy(const struct config_guest *g, const struct config_peer **from);
/* A peer has come or gone. */
void arrival_look(void);
void arrival_unwatch(struct line *l);
/* Is it being prepared, or waits to be told what to do? */
bool arrival_comes(const struct config_guest *g);
/* Could it come here, as far as can be seen? */
bool arrival_fits(const struct config_guest *g, const struct config_peer *from, char why[WHY_MAX]);
/* Those that wait to be told by this peer what becomes of them, as an array. */
void arrival_list(struct json *j, const char *key, const struct config_peer *from);
void arrival_json(struct json *j, const char *key, const struct config_guest *g);

/* ---- the configuration is read anew (reload.c) ---- */

/* Answers l, or NULL: tells the log alone. What is broken is not taken up. */
void reload(struct line *l, uint64_t id);
/* main.c: lets peers connect, if there are any, and that is not so yet. 0, or -1 and why */
int main_listen(char why[WHY_MAX]);

/* ---- iovmctl (control.c, status.c, exports.c) ---- */

int control_start(char why[WHY_MAX]);
/* from: what a peer may see; NULL: all of it. */
void status_json(struct json *j, const char *key, const struct config_peer *from);
void status_peers(struct json *j, const char *key);	/* an array of them */
void status_metrics(FILE *f);
/* exports.c */
void exports_json(struct json *j, const char *key);

#endif /* IOVMD_H */
