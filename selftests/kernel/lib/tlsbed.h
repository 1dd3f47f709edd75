/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's device "kt-0" whose only path "n" leads to our target device "kt-t", over connections with TLS keys.
 */
#ifndef TLSBED_H
#define TLSBED_H

#include "fix.h"
#include "ktls.h"

#define BED_TGT		"kt-t"
#define BED_MB		8
#define BED_BYTES	(BED_MB * (u64)MiB)
#define BED_MAX_CONN	4

/* A call of ctl_*() fails with @want */
#define BED_REFUSED(call, want) do {							\
	int r_ = (call);								\
	T_CHECK(r_ == -(want), "%s, not %s: '%s'", strerror(-r_), strerror(want), ctl_msg);	\
} while (0)

struct bed {
	struct vload load;
	bool loading;
	struct ctl_events ev;		/* of all, from bed_target() on */
	int peer;			/* the test's own end of a connection, -1 none */
	const char *identity;		/* of the guest's device, NULL none */
	int buffer;			/* bytes, of the next sockets; 0 as they are */
};
extern struct bed B;

void bed_target(void);			/* on storage in memory, with its path; a session comes by bed_connect() */
void bed_guest(const char *identity);	/* no request is overdue: emulated, encryption is slow. NULL: ASSUME_SAME */
/* nr pairs of sockets with keys: fds are the path's, far the target's, which gets them as a session */
void bed_sockets(unsigned int nr, u16 cipher, int fds[], int far[]);
void bed_close(unsigned int nr, const int fds[], const int far[]);
void bed_connect(unsigned int nr, u16 cipher, u32 flags);	/* all of it; flags: IOVM_NBD_F_*, TLS besides */
void bed_load(u64 max_ios);
void bed_check(void);			/* ends the load: everything must have come out well, here and on the disk */
void bed_cleanup(void);			/* for ktap_set_cleanup() */

#endif /* TLSBED_H */
