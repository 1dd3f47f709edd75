// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration of devices as a file. See conf.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "conf.h"
#include "../common/json_read.h"

/* How a field's bytes are read, written and shown */
enum conf_kind {
	C_NAME,			/* char[IOVM_NAME_MAX]: a name */
	C_TEXT,			/* char[arg], NUL terminated; null when empty */
	C_SERIAL,		/* char[IOVM_SERIAL_MAX], perhaps without a NUL; null when empty */
	C_IDENTITY,		/* char[IOVM_IDENTITY_MAX]; null when empty */
	C_U32,
	C_U64,
	C_SECTORS,		/* __u64 sectors, written as bytes */
	C_SECTORS32,		/* __u32 sectors, written as bytes */
	C_FLAG,			/* bit arg of a __u32: true, false */
	C_ENUM,			/* __u32: one of names */
	C_MODE,			/* __u32: permission bits, written as an octal string */
	C_CACHE,		/* IOVM_PATH_F_CACHE_*: "survives", "dies" */
	C_OR_OFF,		/* __u32, 0 for CONF_OFF */
};

/**
 * struct conf_field - a field of the file
 * @key: its name there; NULL ends a table
 * @need: it may not be left out; else it is 0 then
 * @state: what something does at the moment: no part of a comparison
 */
struct conf_field {
	const char *key;
	enum conf_kind kind;
	size_t off;
	uint32_t arg;
	const char *const *names;
	bool need, state;
};

/* What takes the place of a number */
#define CONF_OFF	IOVM_NO_TIMEOUT
_Static_assert(IOVM_SLOW_OFF == CONF_OFF, "one kind of field for both");

static const char *const fence_names[] = { "default", "local-error", "none", "epoch", NULL };

#define D(m)	offsetof(struct conf_dev, m)
static const struct conf_field dev_table[] = {
	{ "name", C_NAME, D(name), .need = true },
	{ "class", C_ENUM, D(class), .names = class_names, .need = true },
	{ "size_bytes", C_SECTORS, D(blk.capacity), .need = true },
	{ "block_size", C_U32, D(blk.block_size), .need = true },
	{ "physical_block_size", C_U32, D(blk.physical_block_size) },
	{ "opt_io_size", C_U32, D(blk.opt_io_size) },
	{ "queues", C_U32, D(blk.num_queues), .need = true },
	{ "queue_size", C_U32, D(blk.queue_size) },
	{ "seg_max", C_U32, D(blk.seg_max) },
	{ "max_discard_bytes", C_SECTORS32, D(blk.max_discard_sectors) },
	{ "discard_granularity", C_U32, D(blk.discard_granularity) },
	{ "max_write_zeroes_bytes", C_SECTORS32, D(blk.max_write_zeroes_sectors) },
	{ "serial", C_SERIAL, D(blk.serial) },
	{ "read_only", C_FLAG, D(flags), .arg = IOVM_DEV_F_RDONLY },
	{ "bounce_reads", C_FLAG, D(flags), .arg = IOVM_DEV_F_BOUNCE_READS },
	{ "needs_epoch", C_FLAG, D(flags), .arg = IOVM_DEV_F_EPOCH },
	{ "epoch", C_U64, D(epoch), .state = true },
	{ "epoch_held_in_boot", C_TEXT, D(epoch_boot), .arg = CONF_BOOT_ID, .state = true },
	{ "identity", C_IDENTITY, D(identity) },
	{ "no_path_timeout_ms", C_U64, D(no_path_timeout_ms), .need = true },
	{ "no_space_timeout_ms", C_U64, D(no_space_timeout_ms) },
	{ "failback_after_ms", C_U64, D(failback_after_ms) },
	{ "slow_factor", C_OR_OFF, D(slow_factor) },
	{ "leave_slow_after_ms", C_U64, D(leave_slow_after_ms) },
	{ "iops", C_U64, D(iops) },
	{ "bps", C_U64, D(bps) },
	{ "node_mode", C_MODE, D(mode), .need = true },
	{ "node_uid", C_U32, D(uid), .need = true },
	{ "node_gid", C_U32, D(gid), .need = true },
	{ "features", C_U64, D(features), .state = true },
	{ "suspended", C_FLAG, D(suspended), .arg = 1, .state = true },
	{ "route", C_TEXT, D(route), .arg = IOVM_NAME_MAX, .state = true },
	{ "route_by_hand", C_FLAG, D(by_hand), .arg = 1, .state = true },
	{ 0 }
};

#define P(m)	offsetof(struct conf_path, m)
static const struct conf_field path_table[] = {
	{ "name", C_NAME, P(name), .need = true },
	{ "type", C_ENUM, P(type), .names = path_type_names, .need = true },
	{ "addr", C_TEXT, P(addr), .arg = IOVM_ADDR_MAX, .need = true },
	{ "cache", C_CACHE, P(flags), .need = true },
	{ "fence", C_ENUM, P(fence), .names = fence_names, .need = true },
	{ "fence_by", C_ENUM, P(fence_by), .names = fence_by_names },
	{ "fence_command", C_TEXT, P(fence_command), .arg = IOVM_ADDR_MAX },
	{ "fence_after_ms", C_U32, P(fence_after_ms) },
	{ "pr_key", C_U64, P(pr_key) },
	{ "identity", C_IDENTITY, P(identity) },
	{ "identity_given", C_FLAG, P(flags), .arg = IOVM_PATH_F_IDENTITY_GIVEN },
	{ "assume_same_data", C_FLAG, P(flags), .arg = IOVM_PATH_F_ASSUME_SAME },
	{ "shared", C_FLAG, P(flags), .arg = IOVM_PATH_F_SHARED },
	{ "io_timeout_ms", C_OR_OFF, P(io_timeout_ms), .need = true },
	{ "heartbeat_ms", C_U32, P(heartbeat_ms) },
	{ "dead_ms", C_U32, P(dead_ms) },
	{ "connections", C_U32, P(connections), .state = true },
	{ "failed_by_hand", C_FLAG, P(failed), .arg = 1, .state = true },
	{ 0 }
};

/* ---- from the kernel side ---- */

/* What is not told apart here would come back as something else. */
static int not_known(const char *dev, const char *path, const char *what)
{
	return fail(EX_NO_ACCESS, "use the iovmctl that belongs to the loaded module", "%s%s%s: this iovmctl does not know its %s",
		    dev, *path ? ": path " : "", path, what);
}

/* JSON has no other bytes. */
static bool is_utf8(const char *s, size_t n)
{
	size_t len;

	for (; n && *s; s += len, n -= len) {
		len = json_utf8_len(s, n);
		if (!len)
			return false;
	}
	return true;
}

static int not_text(const char *dev, const char *path, const char *what)
{
	return fail(EX_REFUSED, NULL, "%s%s%s: its %s is no UTF-8 and cannot be written", dev, *path ? ": path " : "", path, what);
}

static int load_conf_path(const struct iovm_path_info *pi, struct conf_path *p)
{
	memset(p, 0, sizeof(*p));
	strcpy(p->name, pi->name);
	strcpy(p->addr, pi->addr);
	strcpy(p->identity, pi->identity);
	p->type = pi->type;
	p->flags = pi->flags;
	p->fence = pi->fence;
	p->fence_by = pi->fence_by;
	strcpy(p->fence_command, pi->fence_command);
	p->fence_after_ms = pi->fence_after_ms;
	p->pr_key = pi->pr_key;
	p->heartbeat_ms = pi->heartbeat_ms;
	p->dead_ms = pi->dead_ms;
	p->io_timeout_ms = pi->io_timeout_ms;
	p->connections = pi->type == IOVM_PATH_NBD ? pi->nr_sockets : 0;
	p->failed = pi->by_hand;
	if (!name_of(path_type_names, p->type))
		return not_known(pi->dev, pi->name, "type");
	if (!name_of(fence_names, p->fence) || !name_of(fence_by_names, p->fence_by))
		return not_known(pi->dev, pi->name, "fence");
	if (p->flags & ~IOVM_PATH_F_ALL)
		return not_known(pi->dev, pi->name, "flags");
	if (!is_utf8(p->fence_command, sizeof(p->fence_command)))
		return not_text(pi->dev, pi->name, "fence command");
	return is_utf8(p->addr, sizeof(p->addr)) ? EX_DONE : not_text(pi->dev, pi->name, "address");
}

/* Its owner may have changed it since it was created. */
static int load_node(const char *name, struct conf_dev *d)
{
	char node[sizeof(NODE_DIR) + IOVM_NAME_MAX];
	struct stat st;

	snprintf(node, sizeof(node), NODE_DIR "/%.*s", IOVM_NAME_MAX - 1, name);
	if (stat(node, &st))
		return mux_fail(errno, NULL, "is devtmpfs mounted on /dev?", "cannot see whose %s is", node);
	d->mode = st.st_mode & 0777;
	d->uid = st.st_uid;
	d->gid = st.st_gid;
	return EX_DONE;
}

void conf_boot_id(char id[CONF_BOOT_ID])
{
	if (!read_attr("/proc/sys/kernel/random", "boot_id", id, CONF_BOOT_ID))
		*id = 0;
}

int conf_load(const struct iovm_dev_info *info, struct conf_dev *d)
{
	struct iovm_path_info pi = { .id = 0 };
	struct conf_path *p;
	int err, code;

	memset(d, 0, sizeof(*d));
	strcpy(d->name, info->name);
	strcpy(d->identity, info->identity);
	d->class = info->class;
	d->flags = info->flags;
	d->by_hand = info->pinned;
	d->suspended = info->state == IOVM_DEV_SUSPENDED;
	d->no_path_timeout_ms = info->no_path_timeout_ms;
	d->no_space_timeout_ms = info->no_space_timeout_ms;
	d->failback_after_ms = info->failback_after_ms;
	d->slow_factor = info->slow_factor;
	d->leave_slow_after_ms = info->leave_slow_after_ms;
	d->epoch = info->epoch;
	if (info->epoch_held)
		conf_boot_id(d->epoch_boot);
	d->iops = info->iops;
	d->bps = info->bps;
	d->features = info->features;
	d->blk = info->blk;
	if (d->class != IOVM_CLASS_BLK && d->class != IOVM_CLASS_TARGET)
		return not_known(d->name, "", "class");
	if (d->flags & ~IOVM_DEV_F_ALL)
		return not_known(d->name, "", "flags");
	if (!is_utf8(d->blk.serial, sizeof(d->blk.serial)))
		return not_text(d->name, "", "serial");
	/* the clients of a target device need no node */
	code = d->class == IOVM_CLASS_TARGET ? EX_DONE : load_node(d->name, d);
	if (code)
		return code;
	/* ids grow in the order in which paths were added, which is that of preference */
	while (!(err = next_path(info->name, &pi))) {
		if (d->nr_paths == IOVM_MAX_PATHS)
			return not_known(d->name, "", "many paths");
		p = &d->paths[d->nr_paths++];
		code = load_conf_path(&pi, p);
		if (code)
			return code;
		if (pi.id == info->preferred_id)
			strcpy(d->route, p->name);
		if (pi.id++ == IOVM_NO_ID - 1)
			break;
	}
	if (err && err != ENOENT)
		return mux_fail(err, NULL, NULL, "cannot read the paths of '%s'", info->name);
	return EX_DONE;
}

int conf_load_name(const char *name, struct conf_dev *d)
{
	struct iovm_dev_info info;
	int err;

	IOVM_INIT(&info);
	snprintf(info.name, sizeof(info.name), "%s", name);
	err = mux_ioctl(IOVM_DEV_GET, &info);
	if (err == ENOENT)
		return -1;
	return err ? mux_fail(err, NULL, NULL, "cannot read device '%s'", name) : conf_load(&info, d);
}

/* ---- numbers and texts ---- */

static uint32_t get32(const struct conf_field *f, const void *base)
{
	uint32_t v;

	memcpy(&v, (const char *)base + f->off, sizeof(v));
	return v;
}

static uint64_t number(const struct conf_field *f, const void *base)
{
	uint64_t v;

	switch (f->kind) {
	case C_U64:
	case C_SECTORS:
		memcpy(&v, (const char *)base + f->off, sizeof(v));
		return f->kind == C_SECTORS ? v * 512 : v;
	case C_SECTORS32:
		return (uint64_t)get32(f, base) * 512;
	case C_OR_OFF:
		v = get32(f, base);
		return v == CONF_OFF ? 0 : v;
	default:
		return get32(f, base);
	}
}

static const char *cache_name(uint32_t flags)
{
	return flags & IOVM_PATH_F_CACHE_DIES ? "dies" : flags & IOVM_PATH_F_CACHE_SURVIVES ? "survives" : "";
}

/* As a string; NULL when it is written as something else. */
static const char *string(const struct conf_field *f, const void *base, char buf[CONF_TEXT])
{
	const char *p = (const char *)base + f->off;

	switch (f->kind) {
	case C_NAME:
	case C_TEXT:
	case C_IDENTITY:
		return p;
	case C_SERIAL:
		snprintf(buf, CONF_TEXT, "%.*s", IOVM_SERIAL_MAX, p);
		return buf;
	case C_MODE:
		snprintf(buf, CONF_TEXT, "%04o", get32(f, base));
		return buf;
	case C_CACHE:
		return cache_name(get32(f, base));
	case C_ENUM:
		return name_of(f->names, get32(f, base)) ?: "";
	default:
		return NULL;
	}
}

static void text_of(const struct conf_field *f, const void *base, char text[CONF_TEXT])
{
	char buf[CONF_TEXT];
	const char *s = string(f, base, buf);

	if (s)
		snprintf(text, CONF_TEXT, "%s", *s ? s : "nothing");
	else if (f->kind == C_FLAG)
		snprintf(text, CONF_TEXT, "%s", get32(f, base) & f->arg ? "true" : "false");
	else
		snprintf(text, CONF_TEXT, "%" PRIu64, number(f, base));
}

static const char *differs(const struct conf_field *table, const void *is, const void *file, unsigned int *at,
			   char is_text[CONF_TEXT], char file_text[CONF_TEXT])
{
	const struct conf_field *f;

	for (f = table + *at; f->key; f++) {
		++*at;
		if (f->state)
			continue;
		text_of(f, is, is_text);
		text_of(f, file, file_text);
		if (strcmp(is_text, file_text))
			return f->key;
	}
	return NULL;
}

const char *conf_dev_differs(const struct conf_dev *is, const struct conf_dev *file, unsigned int *at,
			     char is_text[CONF_TEXT], char file_text[CONF_TEXT])
{
	return differs(dev_table, is, file, at, is_text, file_text);
}

const char *conf_path_differs(const struct conf_path *is, const struct conf_path *file, unsigned int *at,
			      char is_text[CONF_TEXT], char file_text[CONF_TEXT])
{
	return differs(path_table, is, file, at, is_text, file_text);
}

/* ---- writing ---- */

static void write_fields(struct json *j, const struct conf_field *f, const void *base)
{
	char buf[CONF_TEXT];
	const char *s;

	for (; f->key; f++) {
		s = string(f, base, buf);
		if (s)
			json_str(j, f->key, *s ? s : NULL);
		else if (f->kind == C_FLAG)
			json_bool(j, f->key, get32(f, base) & f->arg);
		else
			json_u64(j, f->key, number(f, base));
	}
}

void conf_write(FILE *f, const struct conf_dev *devs, size_t nr)
{
	unsigned int p;
	struct json j;
	size_t i;

	json_init(&j, f, true);
	json_open(&j, NULL, '{');
	json_str(&j, "format", CONF_FORMAT);
	json_u64(&j, "version", CONF_VERSION);
	json_str(&j, "release", IOVM_RELEASE);
	json_open(&j, "devices", '[');
	for (i = 0; i < nr; i++) {
		json_open(&j, NULL, '{');
		write_fields(&j, dev_table, &devs[i]);
		json_open(&j, "paths", '[');
		for (p = 0; p < devs[i].nr_paths; p++) {
			json_open(&j, NULL, '{');
			write_fields(&j, path_table, &devs[i].paths[p]);
			json_close(&j);
		}
		json_close(&j);
		json_close(&j);
	}
	json_close(&j);
	json_close(&j);
}

/* ---- reading ---- */

static int bad_field(const char *what, const struct json_node *node, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int bad_field(const char *what, const struct json_node *node, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return fail(EX_REFUSED, NULL, "%s: line %u: %s%s%s", what, node->line, node->key ?: "", node->key ? ": " : "", text);
}

static int bad_type(const char *what, const struct json_node *node, const char *want)
{
	return bad_field(what, node, "%s should be here, not %s", want, json_type_name(node->type));
}

/* A whole number up to max, in units of unit */
static int take_number(const char *what, const struct json_node *node, uint64_t unit, uint64_t max, uint64_t *v)
{
	if (node->type != JSON_NUMBER)
		return bad_type(what, node, "a number");
	if (!node->whole || node->u64 / unit > max)
		return bad_field(what, node, "a whole number from 0 to %" PRIu64 " should be here", max * unit);
	if (node->u64 % unit)
		return bad_field(what, node, "%" PRIu64 " is not a multiple of %" PRIu64, node->u64, unit);
	*v = node->u64 / unit;
	return EX_DONE;
}

static int take_chars(const char *what, const struct json_node *node, char *to, size_t n, bool with_nul)
{
	size_t len;

	if (node->type != JSON_STRING)
		return bad_type(what, node, "a string");
	len = strlen(node->str);
	if (len + with_nul > n)
		return bad_field(what, node, "a string of at most %zu bytes should be here", n - with_nul);
	memcpy(to, node->str, len);
	return EX_DONE;
}

static int take_text(const char *what, const struct json_node *node, const struct conf_field *f, char *to)
{
	const char *bad = NULL;
	int err;

	switch (f->kind) {
	case C_SERIAL:
		return take_chars(what, node, to, IOVM_SERIAL_MAX, false);
	case C_TEXT:
		return take_chars(what, node, to, f->arg, true);
	case C_NAME:
		err = take_chars(what, node, to, IOVM_NAME_MAX, true);
		if (!err)
			bad = parse_name(to);
		break;
	default:
		err = take_chars(what, node, to, IOVM_IDENTITY_MAX, true);
		if (!err)
			bad = parse_identity(to);
	}
	return bad ? bad_field(what, node, "'%s' %s", to, bad) : err;
}

static int take_enum(const char *what, const struct json_node *node, const struct conf_field *f, uint32_t *v)
{
	uint32_t i;

	if (node->type != JSON_STRING)
		return bad_type(what, node, "a string");
	/* where the field is needed 0 says that it was left out */
	for (i = f->need; f->names[i]; i++)
		if (!strcmp(f->names[i], node->str)) {
			*v = i;
			return EX_DONE;
		}
	return bad_field(what, node, "'%.64s' is not known", node->str);
}

static int take_cache(const char *what, const struct json_node *node, uint32_t *flags)
{
	if (node->type != JSON_STRING)
		return bad_type(what, node, "a string");
	if (!strcmp(node->str, "survives"))
		*flags |= IOVM_PATH_F_CACHE_SURVIVES;
	else if (!strcmp(node->str, "dies"))
		*flags |= IOVM_PATH_F_CACHE_DIES;
	else
		return bad_field(what, node, "'%.64s' is neither survives nor dies", node->str);
	return EX_DONE;
}

static int take_mode(const char *what, const struct json_node *node, uint32_t *mode)
{
	const char *bad;

	if (node->type != JSON_STRING)
		return bad_type(what, node, "a string");
	bad = parse_mode(node->str, mode);
	return bad ? bad_field(what, node, "'%.64s' %s", node->str, bad) : EX_DONE;
}

static int take_value(const char *what, const struct json_node *node, const struct conf_field *f, void *base)
{
	char *to = (char *)base + f->off;
	uint64_t v = 0;
	uint32_t v32;
	int err;

	memcpy(&v32, to, sizeof(v32));
	switch (f->kind) {
	case C_NAME:
	case C_TEXT:
	case C_SERIAL:
	case C_IDENTITY:
		if (node->type == JSON_NULL && !f->need)
			return EX_DONE;
		return take_text(what, node, f, to);
	case C_U64:
	case C_SECTORS:
		err = take_number(what, node, f->kind == C_U64 ? 1 : 512, f->kind == C_U64 ? UINT64_MAX : UINT64_MAX / 512, &v);
		if (!err)
			memcpy(to, &v, sizeof(v));
		return err;
	case C_FLAG:
		if (node->type != JSON_BOOL)
			return bad_type(what, node, "true or false");
		v32 |= node->b ? f->arg : 0;
		err = EX_DONE;
		break;
	case C_ENUM:
		err = take_enum(what, node, f, &v32);
		break;
	case C_MODE:
		err = take_mode(what, node, &v32);
		break;
	case C_CACHE:
		err = take_cache(what, node, &v32);
		break;
	default:
		err = take_number(what, node, f->kind == C_SECTORS32 ? 512 : 1, UINT32_MAX, &v);
		v32 = f->kind == C_OR_OFF && !v ? CONF_OFF : (uint32_t)v;
	}
	if (!err)
		memcpy(to, &v32, sizeof(v32));
	return err;
}

/* All members of an object but the one called more, which *rest is. */
static int take_object(const char *what, const struct json_node *object, const struct conf_field *table, void *base,
		       const char *more, const struct json_node **rest)
{
	const struct conf_field *f;
	const struct json_node *node;
	int err;

	if (object->type != JSON_OBJECT)
		return bad_type(what, object, "an object");
	for (f = table; f->key; f++)
		if (f->need && !json_member(object, f->key))
			return bad_field(what, object, "there is no %s", f->key);
	for (node = object->first; node; node = node->next) {
		if (more && !strcmp(node->key, more)) {
			*rest = node;
			continue;
		}
		for (f = table; f->key && strcmp(f->key, node->key); f++)
			;
		/* a setting that was dropped in silence could be one that data depend on */
		if (!f->key)
			return bad_field(what, node, "there is no such field");
		err = take_value(what, node, f, base);
		if (err)
			return err;
	}
	return EX_DONE;
}

static int check_path(const char *what, const struct json_node *node, const struct conf_path *p)
{
	enum addr_kind kind;
	const char *rest, *bad;

	bad = parse_addr(p->addr, &kind, &rest);
	if (bad)
		return bad_field(what, node, "path '%s': addr: '%s' %s", p->name, p->addr, bad);
	if ((kind == ADDR_BDEV) != (p->type == IOVM_PATH_BDEV) || rest != p->addr)
		return bad_field(what, node, "path '%s': addr: '%s' is not the address of a path of type %s", p->name, p->addr,
				 name_of(path_type_names, p->type));
	if (p->flags & IOVM_PATH_F_IDENTITY_GIVEN && !*p->identity)
		return bad_field(what, node, "path '%s': identity_given without an identity", p->name);
	if (p->flags & IOVM_PATH_F_SHARED && (p->type == IOVM_PATH_NBD || p->fence_by == IOVM_FENCE_BY_RESERVATION))
		return bad_field(what, node, "path '%s': shared is for bdev paths without a reservation", p->name);
	return EX_DONE;
}

static int read_dev(const char *what, const struct json_node *node, struct conf_dev *d)
{
	const struct json_node *paths = NULL, *path;
	struct conf_path *p;
	unsigned int i;
	int err;

	memset(d, 0, sizeof(*d));
	err = take_object(what, node, dev_table, d, "paths", &paths);
	if (err)
		return err;
	if (d->class != IOVM_CLASS_BLK && d->class != IOVM_CLASS_TARGET)
		return bad_field(what, node, "device '%s': only the classes blk and target are known", d->name);
	if (!paths)
		return bad_field(what, node, "there is no paths");
	if (paths->type != JSON_ARRAY)
		return bad_type(what, paths, "an array");
	for (path = paths->first; path; path = path->next) {
		if (d->nr_paths == IOVM_MAX_PATHS)
			return bad_field(what, path, "more than %d paths", IOVM_MAX_PATHS);
		p = &d->paths[d->nr_paths];
		err = take_object(what, path, path_table, p, NULL, NULL);
		if (!err)
			err = check_path(what, path, p);
		if (err)
			return err;
		for (i = 0; i < d->nr_paths; i++)
			if (!strcmp(d->paths[i].name, p->name))
				return bad_field(what, path, "a second path '%s'", p->name);
		d->nr_paths++;
	}
	for (i = 0; *d->route && i < d->nr_paths && strcmp(d->paths[i].name, d->route);)
		i++;
	if (*d->route && i == d->nr_paths)
		return bad_field(what, node, "device '%s': route: there is no path '%s'", d->name, d->route);
	return EX_DONE;
}

static int read_devs(const char *what, const struct json_node *list, struct conf_dev **devs, size_t *nr)
{
	const struct json_node *node;
	size_t n = 0, i;
	int err;

	for (node = list->first; node; node = node->next)
		n++;
	if (n > IOVM_MAX_DEVS)
		return bad_field(what, list, "more than %d devices", IOVM_MAX_DEVS);
	*devs = calloc(n + 1, sizeof(**devs));
	if (!*devs)
		return mux_fail(ENOMEM, NULL, NULL, "cannot read %s", what);
	for (node = list->first; node; node = node->next) {
		err = read_dev(what, node, &(*devs)[*nr]);
		if (err)
			return err;
		for (i = 0; i < *nr; i++)
			if (!strcmp((*devs)[i].name, (*devs)[*nr].name))
				return bad_field(what, node, "a second device '%s'", (*devs)[i].name);
		++*nr;
	}
	return EX_DONE;
}

static int read_root(const char *what, const struct json_node *root, struct conf_dev **devs, size_t *nr)
{
	const struct json_node *format, *version, *list;

	if (root->type != JSON_OBJECT)
		return bad_type(what, root, "an object");
	format = json_member(root, "format");
	version = json_member(root, "version");
	list = json_member(root, "devices");
	if (!format || format->type != JSON_STRING || strcmp(format->str, CONF_FORMAT))
		return fail(EX_REFUSED, "'iovmctl save' writes such files", "%s is not a file of devices: no format " CONF_FORMAT, what);
	if (!version || version->type != JSON_NUMBER || !version->whole || version->u64 != CONF_VERSION)
		return bad_field(what, version ?: root, "only version %d is known", CONF_VERSION);
	if (!list || list->type != JSON_ARRAY)
		return list ? bad_type(what, list, "an array") : bad_field(what, root, "there is no devices");
	return read_devs(what, list, devs, nr);
}

int conf_read(const char *what, const char *text, size_t n, struct conf_dev **devs, size_t *nr)
{
	char error[JSON_READ_ERROR];
	struct json_node *root;
	int err;

	*devs = NULL;
	*nr = 0;
	root = json_read(text, n, error);
	if (!root)
		return fail(EX_REFUSED, NULL, "%s: %s", what, error);
	err = read_root(what, root, devs, nr);
	json_free(root);
	if (err) {
		free(*devs);
		*devs = NULL;
		*nr = 0;
	}
	return err;
}
