/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A configuration that is read anew, between the files that deal with it: reload.c takes it up, reload_tell.c says what that
 * changes.
 */
#ifndef IOVMD_RELOAD_H
#define IOVMD_RELOAD_H

#include "config_file.h"
#include "iovmd.h"

#define TEXT_MAX	1024

/* What there is to be told, of something or, what "", in general */
struct note {
	const char *did;		/* added, changed, removed, kept, restart, note; error: nothing was taken up */
	const char *what;
	char name[IOVM_NAME_MAX];
	struct config_at at;		/* line 0: nowhere in particular */
	char text[TEXT_MAX], hint[256];
	struct note *next;
};

/* What stays as it is */
struct stay {
	const void *item;
	char why[CONFIG_WHY_MAX];
	struct stay *next;
};

/**
 * struct reload - one reading
 * @now: the configuration in force
 * @next: what was read; NULL: it has mistakes
 * @errs: these
 * @notes: what there is to be told
 * @stays: what stays as it is
 */
struct reload {
	struct config *now, *next;
	struct config_errors errs;
	struct note *notes, **end;
	struct stay *stays;
};

/* ---- reload_tell.c ---- */

struct note *reload_note(struct reload *w, const char *did, const char *what, const char *name, const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
void reload_hint(struct note *n, const char *text);
/* Why something stays as it is; NULL: it does not. */
const struct stay *reload_stays(const struct reload *w, const void *item);
/* Notes of all that differs, while both are there; true: something that has to do with peers does. */
bool reload_tell(struct reload *w);
/* Answers l, if it is not NULL, tells the log, and frees what was noted. error: nothing was taken up. */
void reload_finish(struct reload *w, struct line *l, uint64_t id, const char *error);

#endif /* IOVMD_RELOAD_H */
