/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files that read the configuration share: config.c reads files and lines, config_keys.c knows the keys and their values,
 * config_check.c what must fit together, config_errors.c keeps what is wrong. config_text.c writes values, and says what differs;
 * config_merge.c takes up a configuration that was read anew.
 */
#ifndef IOVMD_CONFIG_FILE_H
#define IOVMD_CONFIG_FILE_H

#include "config.h"

#define CONFIG_MAX_LINE		2048	/* bytes, without the line's end */
#define CONFIG_MAX_KEYS		48	/* of a section */
#define CONFIG_MAX_SECTIONS	IOVM_MAX_DEVS	/* of a kind */

enum section_kind {
	SECTION_HOST,
	SECTION_PEER,
	SECTION_DEVICE,
	SECTION_GUEST,
	NR_SECTION_KINDS,
};

extern const char *const section_names[];	/* by kind; ends with NULL */

/* What a value is, and where it goes: struct config_key.off, of .size bytes */
enum value_kind {
	V_NAME,			/* char[] */
	V_HOST,			/* char[] */
	V_LISTEN,		/* char[]: a host, or "*" for all addresses, which is "" */
	V_FILE,			/* char[]: an absolute path */
	V_COMMAND,		/* char[]: a command of the shell */
	V_UNIT,			/* char[]: of a service of systemd */
	V_CLASS,		/* char[]: DEVICE/MAJOR:MINOR */
	V_TEXT,			/* of an option: at most max bytes */
	V_PORT,
	V_BOOL,
	V_CHOICE,		/* its index in names */
	V_NUM,			/* min to max */
	V_COUNT,
	V_SIZE,			/* bytes, min to max */
	V_RATE,			/* bits in a second */
	V_TIME,			/* ms, min to max; a bare number counts seconds */
	V_TIME_MS,		/* likewise; a bare number counts milliseconds */
	V_FACTOR,
	V_IDENTITY,
	V_OWNER,
	V_MODE,
	V_PEER,			/* a name; found by config_check() */
	V_PEERS,		/* names; likewise */
	V_DEVICES,
};

/* What it takes until a value that was changed is so, while iovmd runs */
enum config_taken {
	TAKEN_AT_ONCE,		/* nothing: it is looked at when it is needed */
	TAKEN_RESTART,		/* iovmd has to be started anew */
	TAKEN_SET,		/* 'iovmctl set' */
	TAKEN_PATH_SET,		/* 'iovmctl path set', for that side's paths */
	TAKEN_PATH_ANEW,	/* the paths to peers are made anew */
	TAKEN_DEVICE_ANEW,	/* the device is: no guest may use it */
};

/**
 * struct config_key - a key of a section
 * @name: NULL ends a table
 * @args: it is an option: @off is that of a struct config_args, to which "--option" and the value go
 * @option: without the dashes; of a V_BOOL what "yes" means, NULL: nothing
 * @option_no: of a V_BOOL: what "no" means, NULL: nothing
 * @max: 0: any; also of a V_TIME is 0 ("never") allowed unless @nonzero
 * @power: it must be a power of two
 * @ways: of a guest: a mask of 1 << enum config_way, where it does something; 0: with all
 * @taken: what a change takes
 * @fallback: what 'iovmctl set' is told when it is not there any more
 */
struct config_key {
	const char *name;
	enum value_kind kind;
	size_t off, size;
	bool args;
	const char *option, *option_no;
	uint64_t min, max;
	bool nonzero, power;
	unsigned int ways;
	const char *const *names;
	enum config_taken taken;
	const char *fallback;
};

extern const struct config_key *const config_keys[NR_SECTION_KINDS];

/**
 * struct section - a section as it was read
 * @name: "" of [host]
 * @what: the struct config_host, config_peer, ... that it fills
 * @line: of each key; 0: not given
 * @value: of each key; NULL: not given, or no good
 */
struct section {
	struct config_at at;
	enum section_kind kind;
	const char *name;
	void *what;
	unsigned int line[CONFIG_MAX_KEYS];
	const char *value[CONFIG_MAX_KEYS];
	struct section *next;
};

/**
 * struct reader - a reading under way
 * @root: the file, for what is wrong with none in particular
 * @sections: all of them, in order
 * @nr: of each kind
 * @at: the line that is read
 * @now: the section it is in; NULL none, or one of which nothing is taken
 * @skip: keys are not looked at: what is wrong with their section was said
 */
struct reader {
	struct config *c;
	struct config_errors *errs;
	const char *root;
	struct section *sections, **end;
	unsigned int nr[NR_SECTION_KINDS];
	struct config_at at;
	struct section *now;
	bool skip;
};

/* ---- config_errors.c ---- */

/* Some memory: a list of them is what struct config.memory is. */
struct config_chunk {
	struct config_chunk *next;
	bool stays;		/* config_merge.c */
	_Alignas(max_align_t) char data[];
};

/* Zeroed memory of a list; NULL: there is none. */
void *config_chunk(void **memory, size_t n);
/* Zeroed memory that lives as long as the configuration; NULL, having said so, when there is none. */
void *config_alloc(struct reader *r, size_t n);
char *config_copy(struct reader *r, const char *s, size_t n);
/* Adds an error; remedy may be "". */
void config_wrong(struct reader *r, struct config_at at, const char *remedy, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The same for a subject and the rest of its sentence, which may end in "(remedy)". */
void config_bad(struct reader *r, struct config_at at, const char *subject, const char *sentence);
/* A value for a message, cut where it is long; one of a few buffers that are used in turn. */
const char *config_quote(const char *s);
/* Which of names, a list that ends with NULL, is near s; NULL: none. */
const char *config_nearest(const char *s, const char *const *names);
unsigned int config_distance(const char *a, const char *b);

/* ---- config_keys.c ---- */

/* Puts what a new section says when it says nothing. */
void config_defaults(enum section_kind kind, void *what);
/* Of a section's kind by name, -1: none. */
int config_find_key(enum section_kind kind, const char *name);
/* "key = value" at r->at, in r->now. */
void config_take(struct reader *r, const char *name, const char *value, bool quoted);

/* ---- config_check.c ---- */

/* Names to what they name; what is missing, or does not go together. */
void config_check(struct reader *r);

/* ---- config_text.c ---- */

#define CONFIG_VALUE_MAX	4096

/* A key's value as it may stand in a file; false: it has none. */
bool config_value(const struct config_key *k, const void *what, char buf[CONFIG_VALUE_MAX]);
/* The value of a key that is a number, a choice or yes and no */
uint64_t config_number(const struct config_key *k, const void *at);
/* What is an option's value among these, "" it has none; NULL: it is not there. */
const char *config_arg(const struct config_args *a, const char *option);
/*
 * Calls fn for each key whose value is not the same, was and is NULL where there is none. Returns a mask of 1 << enum
 * config_taken. fn may be NULL. What may hold a password is not shown: both are NULL.
 */
unsigned int config_diff(enum section_kind kind, const void *a, const void *b,
			 void (*fn)(const struct config_key *k, const char *was, const char *is, void *data), void *data);

#endif /* IOVMD_CONFIG_FILE_H */
