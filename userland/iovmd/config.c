// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reads the configuration: files, lines, sections. See config.h and, for its parts, config_file.h.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_file.h"
#include "../common/json.h"
#include "../common/parse.h"

/* --- sections --- */

const char *const section_names[] = { "host", "peer", "device", "guest", NULL };

static const size_t section_sizes[] = {
	sizeof(struct config_host), sizeof(struct config_peer), sizeof(struct config_device), sizeof(struct config_guest),
};

static struct section *find_section(struct reader *r, enum section_kind kind, const char *name)
{
	struct section *s;

	for (s = r->sections; s; s = s->next)
		if (s->kind == kind && !strcmp(s->name, name))
			return s;
	return NULL;
}

/* The structs of a configuration begin alike: with at, and then with name. */
_Static_assert(!offsetof(struct config_host, at) && !offsetof(struct config_peer, at) && !offsetof(struct config_device, at) &&
	       !offsetof(struct config_guest, at), "at comes first");
_Static_assert(offsetof(struct config_host, name) == offsetof(struct config_peer, name) &&
	       offsetof(struct config_host, name) == offsetof(struct config_device, name) &&
	       offsetof(struct config_host, name) == offsetof(struct config_guest, name), "name is next");

static void link_section(struct reader *r, struct section *s)
{
	struct config_peer **p = &r->c->peers;
	struct config_device **d = &r->c->devices;
	struct config_guest **g = &r->c->guests;

	*r->end = s;
	r->end = &s->next;
	r->nr[s->kind]++;
	switch (s->kind) {
	case SECTION_PEER:
		while (*p)
			p = &(*p)->next;
		*p = s->what;
		break;
	case SECTION_DEVICE:
		while (*d)
			d = &(*d)->next;
		*d = s->what;
		break;
	case SECTION_GUEST:
		while (*g)
			g = &(*g)->next;
		*g = s->what;
		break;
	default:
		break;
	}
}

static void begin_section(struct reader *r, enum section_kind kind, const char *name)
{
	struct section *s, *first;
	char remedy[256];
	bool host;

	r->skip = true;
	if (r->nr[kind] == CONFIG_MAX_SECTIONS) {
		snprintf(remedy, sizeof(remedy), "%u at most", CONFIG_MAX_SECTIONS);
		config_wrong(r, r->at, remedy, "[%s %s] is one too many", section_names[kind], name);
		return;
	}
	first = find_section(r, kind, name);
	host = kind == SECTION_HOST && !first;
	s = config_alloc(r, sizeof(*s));
	if (!s)
		return;
	s->at = r->at;
	s->kind = kind;
	s->name = config_copy(r, name, strlen(name));
	s->what = host ? (void *)&r->c->host : config_alloc(r, section_sizes[kind]);
	if (!s->name || !s->what)
		return;
	if (!host)
		config_defaults(kind, s->what);
	memcpy(s->what, &s->at, sizeof(s->at));
	if (kind != SECTION_HOST)
		strcpy((char *)s->what + offsetof(struct config_peer, name), name);
	/* the keys of one that is there twice are looked at all the same */
	if (first) {
		snprintf(remedy, sizeof(remedy), "the first is at %s:%u; put its keys there, or give this one another name",
			 first->at.file, first->at.line);
		if (kind == SECTION_HOST)
			strcpy(strchr(remedy, ';'), "; put its keys there");
		config_wrong(r, r->at, remedy, "[%s%s%s] is there twice", section_names[kind], *name ? " " : "", name);
	} else {
		link_section(r, s);
	}
	r->now = s;
	r->skip = false;
}

/* "[kind name]", without blanks around it */
static void take_section(struct reader *r, char *text)
{
	char *end = strchr(text, ']'), *kind = text + 1, *name;
	char what[128], remedy[128] = "sections are [host], [peer NAME], [device NAME] and [guest NAME]";
	const char *bad, *near;
	unsigned int k;

	r->now = NULL;
	r->skip = true;
	if (!end) {
		config_wrong(r, r->at, "a section is [KIND NAME] alone on its line", "'%s' has no ']'", config_quote(text));
		return;
	}
	if (end[1]) {
		config_wrong(r, r->at, "a section is [KIND NAME] alone on its line; comments too have their own lines",
			     "'%s' follows the ']'", config_quote(end + 1 + strspn(end + 1, " \t")));
		return;
	}
	*end = 0;
	kind += strspn(kind, " \t");
	while (end > kind && strchr(" \t", end[-1]))
		*--end = 0;
	name = kind + strcspn(kind, " \t");
	if (*name) {
		*name++ = 0;
		name += strspn(name, " \t");
	}
	for (k = 0; k < NR_SECTION_KINDS && strcmp(kind, section_names[k]);)
		k++;
	if (k == NR_SECTION_KINDS) {
		near = config_nearest(kind, section_names);
		if (near)
			snprintf(remedy, sizeof(remedy), "did you mean [%s%s%s]?", near, *name ? " " : "", config_quote(name));
		config_wrong(r, r->at, remedy, "there is no section [%s]", config_quote(kind));
	} else if (k == SECTION_HOST && *name) {
		config_wrong(r, r->at, "write [host], and 'name = NAME' below it; another host is a [peer NAME]",
			     "[host] takes no name, but has '%s'", config_quote(name));
	} else if (k != SECTION_HOST && !*name) {
		snprintf(remedy, sizeof(remedy), "write [%s NAME]", section_names[k]);
		config_wrong(r, r->at, remedy, "[%s] has no name", section_names[k]);
	} else {
		bad = *name ? parse_name(name) : NULL;
		if (!bad) {
			begin_section(r, k, name);
			return;
		}
		snprintf(what, sizeof(what), "[%s]: '%s'", section_names[k], config_quote(name));
		config_bad(r, r->at, what, bad);
	}
}

/* --- lines --- */

/*
 * Takes the quotes from a value that has some, with what \" and \\ stand for. Returns NULL, or what is wrong.
 */
static const char *unquote(char *value, bool *quoted)
{
	char *from = value + 1, *to = value;

	*quoted = *value == '"';
	if (!*quoted)
		return NULL;
	for (; *from && *from != '"'; from++) {
		if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
			from++;
		*to++ = *from;
	}
	if (!*from)
		return "has no '\"' at its end (end it, or write \\\" for a '\"' at its beginning)";
	if (from[1])
		return "goes on after its '\"' (quote all of it, and write \\\" for a '\"' in it)";
	*to = 0;
	return NULL;
}

static void take_line(struct reader *r, char *text)
{
	char *eq = strchr(text, '='), *end;
	char what[96];
	const char *bad;
	bool quoted;

	if (*text == '[') {
		take_section(r, text);
		return;
	}
	if (!eq || eq == text) {
		if (!r->skip || r->now)
			config_wrong(r, r->at, "write 'key = value', or begin a comment with '#'", "'%s' is no 'key = value'",
				     config_quote(text));
		return;
	}
	for (end = eq; end > text && strchr(" \t", end[-1]);)
		end--;
	*eq++ = 0;
	*end = 0;
	eq += strspn(eq, " \t");
	if (!r->now) {
		if (!r->skip)
			config_wrong(r, r->at, "begin one before it, as [host] or [device NAME]", "'%s' is in no section",
				     config_quote(text));
		r->skip = true;		/* said once */
		return;
	}
	bad = unquote(eq, &quoted);
	if (bad) {
		snprintf(what, sizeof(what), "the value of '%s'", config_quote(text));
		config_bad(r, r->at, what, bad);
		return;
	}
	config_take(r, text, eq, quoted);
}

/* What is wrong with a line's bytes, with its remedy in parentheses; NULL: nothing. */
static const char *bad_bytes(const char *s, size_t n)
{
	static char why[96];
	size_t i, len;

	if (n > CONFIG_MAX_LINE)
		return "is longer than 2048 bytes (shorten it)";
	if (memchr(s, 0, n))
		return "holds a NUL byte (this is no text file, or it was damaged)";
	for (i = 0; i < n; i += len) {
		len = json_utf8_len(s + i, n - i);
		if (!len) {
			snprintf(why, sizeof(why), "is not UTF-8, from its byte %zu on (convert the file, as by iconv)", i + 1);
			return why;
		}
		if (((unsigned char)s[i] < ' ' && s[i] != '\t') || s[i] == 0x7f) {
			snprintf(why, sizeof(why), "holds a control character, 0x%02x, as its byte %zu (remove it)",
				 (unsigned char)s[i], i + 1);
			return why;
		}
	}
	return NULL;
}
_Static_assert(CONFIG_MAX_LINE == 2048, "bad_bytes() says it");

/* A text with all its lines; it is changed. */
static void read_text(struct reader *r, const char *file, char *text, size_t n)
{
	char line[CONFIG_MAX_LINE + 1], *end = text + n, *next, *s;
	const char *bad;
	size_t len;

	r->at.file = file;
	r->at.line = 0;
	r->now = NULL;
	r->skip = false;
	if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3))
		text += 3;
	for (; text < end; text = next) {
		r->at.line++;
		next = memchr(text, '\n', (size_t)(end - text)) ?: end;
		len = (size_t)(next - text);
		if (next < end)
			next++;
		if (len && text[len - 1] == '\r')
			len--;
		bad = bad_bytes(text, len);
		if (bad) {
			config_bad(r, r->at, "the line", bad);
			continue;
		}
		memcpy(line, text, len);
		while (len && strchr(" \t", line[len - 1]))
			len--;
		line[len] = 0;
		s = line + strspn(line, " \t");
		if (*s && *s != '#')
			take_line(r, s);
	}
}

/* --- files --- */

/* Why something that has st may not be believed, or NULL: as with sshd, nobody but root and who runs this may write it. */
static const char *untrusted(const struct stat *st, bool dir)
{
	if (st->st_uid && st->st_uid != geteuid())
		return dir ? "the directory belongs to somebody else than root" : "the file belongs to somebody else than root";
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return dir ? "the directory can be written by others than its owner" :
			     "the file can be written by others than its owner";
	return NULL;
}

static bool is_trusted(struct reader *r, const char *file, const struct stat *st)
{
	const char *why = untrusted(st, S_ISDIR(st->st_mode));
	char remedy[256];

	if (!why)
		return true;
	snprintf(remedy, sizeof(remedy), "who can write it can run programs as root; 'chown root:root' and 'chmod go-w' it");
	config_wrong(r, (struct config_at){ .file = file }, remedy, "%s", why);
	return false;
}

/* All of a file, for free(); NULL, having said why. */
static char *slurp(struct reader *r, const char *file, int fd, size_t *n)
{
	char *text = malloc(CONFIG_MAX_BYTES + 1);
	ssize_t got = text ? 1 : -1;

	for (*n = 0; text && got > 0 && *n <= CONFIG_MAX_BYTES; *n += (size_t)got) {
		do
			got = read(fd, text + *n, CONFIG_MAX_BYTES + 1 - *n);
		while (got < 0 && errno == EINTR);
		if (got < 0)
			break;
	}
	if (got < 0)
		config_wrong(r, (struct config_at){ .file = file }, "", "the file cannot be read: %s", strerror(errno));
	else if (*n > CONFIG_MAX_BYTES)
		config_wrong(r, (struct config_at){ .file = file }, "split it into files of the directory, or is it another file?",
			     "the file is larger than %u bytes", CONFIG_MAX_BYTES);
	else
		return text;
	free(text);
	return NULL;
}

static void read_file(struct reader *r, const char *name)
{
	const char *file = config_copy(r, name, strlen(name));
	struct stat st;
	char *text;
	size_t n;
	int fd;

	if (!file)
		return;
	fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st)) {
		config_wrong(r, (struct config_at){ .file = file },
			     errno == ENOENT ? "write it, as in iovmd.conf(5), or name another file" : "",
			     "the file cannot be read: %s", strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		config_wrong(r, (struct config_at){ .file = file }, "name a text file, as in iovmd.conf(5)",
			     "it is no regular file");
	} else if (is_trusted(r, file, &st)) {
		text = slurp(r, file, fd, &n);
		if (text)
			read_text(r, file, text, n);
		free(text);
	}
	if (fd >= 0)
		close(fd);
}

bool config_is_file(const char *name)
{
	size_t len = strlen(name);

	return *name != '.' && len > 5 && !strcmp(name + len - 5, ".conf");
}

static int is_conf(const struct dirent *d)
{
	return config_is_file(d->d_name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_dir(struct reader *r, const char *name)
{
	const char *dir = config_copy(r, name, strlen(name));
	struct config_at at = { .file = dir };
	struct dirent **names;
	char path[4096];
	struct stat st;
	int nr, i;

	if (!dir)
		return;
	if (stat(dir, &st)) {
		if (errno != ENOENT)
			config_wrong(r, at, "", "the directory cannot be read: %s", strerror(errno));
		return;
	}
	if (!S_ISDIR(st.st_mode)) {
		config_wrong(r, at, "its *.conf are read; name a directory", "it is no directory");
		return;
	}
	if (!is_trusted(r, dir, &st))
		return;
	nr = scandir(dir, &names, is_conf, by_name);
	if (nr < 0) {
		config_wrong(r, at, "", "the directory cannot be read: %s", strerror(errno));
		return;
	}
	for (i = 0; i < nr; i++) {
		if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name) < sizeof(path))
			read_file(r, path);
		else
			config_wrong(r, at, "", "the name of '%s' in it is too long", config_quote(names[i]->d_name));
		free(names[i]);
	}
	free(names);
}

/* --- all of it --- */

static bool begin(struct reader *r, const char *root, struct config_errors *errs)
{
	memset(r, 0, sizeof(*r));
	memset(errs, 0, sizeof(*errs));
	r->errs = errs;
	r->root = "";
	r->end = &r->sections;
	r->c = calloc(1, sizeof(*r->c));
	if (!r->c) {
		config_wrong(r, (struct config_at){ .file = root }, "", "there is not enough memory to read the configuration");
		return false;
	}
	config_defaults(SECTION_HOST, &r->c->host);
	r->root = config_copy(r, root, strlen(root)) ?: "";
	return true;
}

static struct config *finish(struct reader *r)
{
	config_check(r);
	if (!r->errs->nr)
		return r->c;
	r->errs->memory = r->c->memory;		/* the names of files */
	free(r->c);
	return NULL;
}

static bool read_all(struct reader *r, const char *file, const char *dir, struct config_errors *errs)
{
	if (!begin(r, file ?: dir ?: "", errs))
		return false;
	if (file)
		read_file(r, file);
	if (dir)
		read_dir(r, dir);
	return true;
}

struct config *config_read(const char *file, const char *dir, struct config_errors *errs)
{
	struct reader r;

	return read_all(&r, file, dir, errs) ? finish(&r) : NULL;
}

struct config *config_read_rough(const char *file, const char *dir, struct config_errors *errs)
{
	struct reader r;

	if (!read_all(&r, file, dir, errs))
		return NULL;
	config_check(&r);
	return r.c;
}

struct config_peer *config_peer(const struct config *c, const char *name)
{
	struct config_peer *p;

	for (p = c->peers; p && strcmp(p->name, name);)
		p = p->next;
	return p;
}

struct config_device *config_device(const struct config *c, const char *name)
{
	struct config_device *d;

	for (d = c->devices; d && strcmp(d->name, name);)
		d = d->next;
	return d;
}

struct config_guest *config_guest(const struct config *c, const char *name)
{
	struct config_guest *g;

	for (g = c->guests; g && strcmp(g->name, name);)
		g = g->next;
	return g;
}

int config_peer_of(const struct config_device *d, const struct config_peer *p)
{
	unsigned int i;

	for (i = 0; i < d->nr_peers; i++)
		if (d->peers[i] == p)
			return (int)i;
	return -1;
}
