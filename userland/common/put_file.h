/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small file that is there as a whole, or not at all, also after a power failure.
 */
#ifndef IOVM_PUT_FILE_H
#define IOVM_PUT_FILE_H

#include <stddef.h>
#include <sys/types.h>

/* Writes it beside its place and puts it there; what was there is gone then. Returns 0 or an errno. */
int put_file(const char *file, mode_t mode, const void *data, size_t n);
/* Removes it for good; 0, also when there is none, or an errno. */
int drop_file(const char *file);
/* Makes a directory, with those above it; 0 or an errno. */
int put_dir(const char *dir, mode_t mode);

#endif
