/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The destination's side of a live migration: start the QEMU that receives the guest, have it listen, let the guest run, or end
 * that QEMU and be certain of it. It blocks: it runs in children of the agent, one for each call; what one has to know of the
 * other is in struct incoming, which the agent keeps, also over its own restart.
 *
 *	incoming_prepare()	QEMU waits for the guest, with -S; the source is told the uri
 *	incoming_accept()	the source has completed: the guest runs here
 *	incoming_abort()	or it does not: QEMU has ended
 *
 * Whoever has called incoming_accept() must not call incoming_abort() for the same guest: an agent writes down that it is going to
 * accept before it does.
 */
#ifndef IOVMD_INCOMING_H
#define IOVMD_INCOMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qemu.h"

/**
 * struct incoming_job - how. Times are in ms; 0 is the default in brackets
 * @guest: its name
 * @qmp: the monitor's socket of its QEMU here
 * @command: run by /bin/sh -c in a session of its own, with IOVM_GUEST, IOVM_INCOMING=defer and IOVM_QMP (@qmp) in its environment;
 *	it is to `exec` QEMU with -incoming "$IOVM_INCOMING" -S and the monitor on $IOVM_QMP. NULL: @unit
 * @unit: a service of systemd that is started, and stopped, for it; NULL, and @command too: somebody else has started QEMU
 * @env: the file of @unit's environment: the same variables, and IOVM_INCOMING_ARGS, the words "-incoming defer -S"; is there from before the
 *	start on, and the caller's to be removed; NULL none
 * @log: where the command's output goes, is appended to; NULL: nowhere
 * @listen: an address of this host: "192.0.2.7", "2001:db8::7"; or "unix:/run/x"
 * @port: the first port that may be used, 0 any free one
 * @last_port: the last one; 0 only @port
 * @multifd: connections for the memory, as the source has it
 * @key: of the stream, in place of @tls_creds; NULL none
 * @key_dir: for stream_key_give(), after which stream_key_drop() is the caller's
 * @tls_creds: id of the tls-creds object in this QEMU; NULL or "" no TLS
 * @tls_authz: id of the authz object that a source's certificate is shown to; NULL or "" none
 * @start_ms: the monitor is there [30 s]
 * @answer_ms: QEMU answers a command [10 s]
 * @accept_ms: the guest has come and runs [30 s]
 * @end_ms: for each step of ending it: quit, SIGTERM, SIGKILL [5 s]
 */
struct incoming_job {
	const char *guest;
	const char *qmp;
	const char *command;
	const char *unit, *env;
	const char *log;
	const char *listen;
	uint16_t port, last_port;
	unsigned int multifd;
	const char *key, *key_dir;
	const char *tls_creds, *tls_authz;
	unsigned int start_ms, answer_ms, accept_ms, end_ms;
};

/**
 * struct incoming - a QEMU that was prepared
 * @uri: for migrate_job.uri
 * @pid: QEMU's process, 0 unknown
 * @born: when that began, in the kernel's ticks since boot: it tells whether @pid is still that process
 */
struct incoming {
	char uri[QEMU_URI];
	pid_t pid;
	uint64_t born;
};

/*
 * 0, or -1 with a sentence in why: then what was started has been ended again, or the sentence says that it has not. A QEMU that is
 * on the monitor's socket already is not touched, unless it is the one that somebody else was to start.
 */
int incoming_prepare(const struct incoming_job *job, struct incoming *in, char *why, size_t n);

/* Let the guest run that has arrived; also good when it runs already. 0: it runs. -1, and why: it may have been told to run. */
int incoming_accept(const struct incoming_job *job, char *why, size_t n);

/*
 * End the QEMU that waits for the guest, or holds it since it has come. in may be NULL, when it is not known. 0: it has ended,
 * for certain. -1: it has not, or it is none that waits (its guest runs): why says what to do.
 */
int incoming_abort(const struct incoming_job *job, const struct incoming *in, char *why, size_t n);

/* In which state is the guest here? For an agent that was restarted. GUEST_SILENT: why says more. */
enum guest_at incoming_find(const struct incoming_job *job, char *why, size_t n);

#endif
