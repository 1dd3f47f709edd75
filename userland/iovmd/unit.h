/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Services of systemd, over the system bus: a guest's QEMU may be one. What asks systemd blocks, for at most
 * as long as is said: for workers.
 */
#ifndef IOVMD_UNIT_H
#define IOVMD_UNIT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Have a service started that does not run, and wait until systemd says that it is. 0, or -1 and a sentence: then it does not run, or the
 * sentence says so.
 */
int unit_start(const char *unit, unsigned int ms, char *why, size_t n);

/* Stop it, if it is not. 0: nothing of it runs any more. -1, and a sentence: that is not certain. */
int unit_stop(const char *unit, unsigned int ms, char *why, size_t n);

/* Has it ended since it was started? Then a sentence says how. If nobody can be asked it has not. */
bool unit_ended(const char *unit, char *why, size_t n);

/* Is there a file where systemd looks for it, or for its template? This one does not block. */
bool unit_has_file(const char *unit);

/* The end of what it has written since it was started, as one line: " | line | line", "" when it wrote nothing or that is not known. */
void unit_last_words(const char *unit, char *buf, size_t n);

/*
 * A file for its EnvironmentFile=: pairs of a name and a value, which may hold anything but a newline; the list ends with NULL. 0 or an
 * errno.
 */
int unit_environment(const char *file, const char *const *pairs);

#endif /* IOVMD_UNIT_H */
