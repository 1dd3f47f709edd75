// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzzes what a peer asks of iovmd: lines of any bytes come over a connection whose other side has said who it is, to peer.c, and from
 * there to epoch.c, epoch_take.c, fence_host.c, doubt.c, arrival.c and check.c. Each request has at most one answer, and that an object with its id. Workers, which are no
 * strangers, fail or succeed as a byte of the input says; the kernel, QEMU and the other parts of iovmd are played here.
 *
 * Unlike the others it is linked: see the Makefile.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../userland/iovmd/iovmd.h"
#include "../../userland/iovmd/epoch_store.h"
#include "../../userland/iovmd/incoming.h"
#include "../../userland/iovmctl/iovmctl.h"

#define ASSERT(cond) do { \
	if (!(cond)) \
		__builtin_trap(); \
} while (0)

struct agent agent;
static struct config config;
static struct config_peer peer = { .name = "b", .address = "192.0.2.2", .peer_port = 1, .data_port = 2,
				   .fence_command = "true" };
static struct config_device device = { .name = "disk1", .disk = "/dev/disk1", .nr_peers = 1, .peers = { &peer } };
static struct config_guest guest = { .name = "vm1", .nr_devices = 1, .devices = { &device }, .command = "x", .destination = &peer };
static bool device_there, epoch_there, running;

/* --- workers --- */

struct child {
	child_fn ended;
	line_fn fn;
	struct line *line;
	int far;
	void *data;
	struct child *next;
};

static struct child *children;

struct child *child_worker(int (*run)(int, void *), void *arg, int keep, bool bound, struct line **line, line_fn fn, child_fn ended, void *data)
{
	struct child *c = calloc(1, sizeof(*c));
	int pair[2];

	(void)run, (void)arg, (void)keep, (void)bound;
	ASSERT(c && !socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
	c->far = pair[1];
	c->fn = fn;
	c->ended = ended;
	c->data = data;
	c->line = *line = line_new(pair[0], fn, data);
	ASSERT(c->line);
	c->next = children;
	children = c;
	return c;
}

/* No host is fenced for what another one asks: there is no program to start. */
struct child *child_program(const char *const *argv, bool bound, child_fn ended, void *data)
{
	(void)argv, (void)bound, (void)ended, (void)data;
	return NULL;
}

void child_forget(struct child *c)
{
	if (c)
		c->ended = NULL;
}

unsigned int child_nr(void)
{
	return 0;
}

void child_kill(struct child *c, int sig)
{
	(void)c, (void)sig;
}

void child_reason(int status, const char *output, char why[WHY_MAX])
{
	(void)output;
	snprintf(why, WHY_MAX, "status %d", status);
}

/* The worker that was started last is done: it says so, or ends without a word. */
static void end_worker(bool says, bool good)
{
	struct child *c = children;
	struct msg m;
	size_t n;
	char *text;

	if (!c)
		return;
	children = c->next;
	if (says) {
		msg_begin(&m);
		json_bool(&m.j, "ok", good);
		json_str(&m.j, "error", good ? NULL : "it does not");
		json_str(&m.j, "uri", "tcp:192.0.2.1:7");
		text = msg_end(&m, &n);
		ASSERT(write(c->far, text, n) == (ssize_t)n);
		free(text);
	}
	close(c->far);
	while (sd_event_run(agent.loop, 0) > 0)
		;
	if (c->ended)
		c->ended(c, 256, "", c->data);
	free(c);
}

/* --- time, which passes at the end of an input, and when that says so --- */

struct timer {
	sd_event_source **source;
	timer_fn fn;
	void *data;
	struct timer *next;
};

static struct timer *timers;

void timer_clear(sd_event_source **source)
{
	struct timer **at, *t;

	for (at = &timers; (t = *at); at = &t->next)
		if (t->source == source) {
			*at = t->next;
			free(t);
			break;
		}
	*source = NULL;
}

void timer_set(sd_event_source **source, uint64_t ms, timer_fn fn, void *data)
{
	struct timer *t = calloc(1, sizeof(*t));

	(void)ms;
	timer_clear(source);
	ASSERT(t);
	*t = (struct timer){ source, fn, data, timers };
	timers = t;
	/* is set; nobody looks into it */
	*source = (sd_event_source *)t;
}

static void pass_time(void)
{
	struct timer *t = timers;

	if (t)
		t->fn(t->data);
}

/* --- the rest of iovmd, and the kernel --- */

bool kernel_has_device(const char *name, struct iovm_dev_info *info)
{
	IOVM_INIT(info);
	snprintf(info->name, sizeof(info->name), "%s", name);
	info->epoch_held = epoch_there;
	info->epoch = 7;
	info->queues_running = running;
	return device_there;
}

bool kernel_has_path(const char *dev, const char *name, struct iovm_path_info *info)
{
	(void)dev, (void)name;
	IOVM_INIT(info);
	info->state = IOVM_PATH_LIVE;
	return device_there;
}

int mux_ioctl(unsigned long cmd, void *arg)
{
	(void)cmd, (void)arg;
	return ENOENT;
}

bool kernel_in_child(void) { return true; }
void info(const char *fmt, ...) { (void)fmt; }
void warning(const char *fmt, ...) { (void)fmt; }
uint64_t clock_ms(void) { return 0; }
uint64_t next_pause(uint64_t *p, uint64_t f, uint64_t l) { (void)p, (void)f; return l; }
void mark_set(const char *w, const char *g, const char *t) { (void)w, (void)g, (void)t; }
void mark_clear(const char *w, const char *g) { (void)w, (void)g; }
bool mark_get(const char *w, const char *g, char *t, size_t n) { (void)w, (void)g, (void)t, (void)n; return false; }
void mark_refresh(const char *w, const char *g) { (void)w, (void)g; }
int64_t mark_age_s(const char *w, const char *g) { (void)w, (void)g; return -1; }
int stable_dir(const char *d, char why[WHY_MAX]) { (void)d, (void)why; return 0; }
int stable_write(const char *d, const char *n, const char *t) { (void)d, (void)n, (void)t; return 0; }
int stable_remove(const char *d, const char *n) { (void)d, (void)n; return 0; }
int stable_read(const char *d, const char *n, char *t, size_t s) { (void)d, (void)n, (void)t, (void)s; return -ENOENT; }
int epoch_dir(char why[WHY_MAX]) { (void)why; return 0; }
void epoch_load(const struct config_device *d, struct epoch_record *r) { (void)d; memset(r, 0, sizeof(*r)); }
int epoch_work(int s, void *j) { (void)s, (void)j; return 0; }
void export_name(const struct config_device *d, char n[IOVM_NAME_MAX]) { snprintf(n, IOVM_NAME_MAX, "%.40s.export", d->name); }
void apply_connect(const struct config_device *d, const struct config_peer *p) { (void)d, (void)p; }
const char *apply_trouble(const struct config_device *d) { (void)d; return "none"; }
uint64_t data_cut(void) { return 0; }
bool data_is_cut(uint64_t u) { (void)u; return true; }
void data_end(const struct config_device *d, const struct config_peer *p) { (void)d, (void)p; }
bool data_next_session(const struct config_device *d, const struct config_peer *p, uint32_t *i) { (void)d, (void)p, (void)i; return false; }
void cert_json(struct json *j, const struct config_peer *p) { (void)j, (void)p; }
void cert_seen(const struct config_peer *p, const char *f) { (void)p, (void)f; }
void cert_request(struct line *l, uint64_t id, const struct config_peer *p, const char *f, const struct json_node *o)
{
	(void)p, (void)o;
	ASSERT(!*f);
	answer_error(l, id, "no certificate");
}
void guest_look(void) { }
void guest_settle(const char *n, const struct config_peer *p) { (void)n, (void)p; }
bool guest_is_migrating(const struct config_guest *g) { (void)g; return false; }
void guest_unwatch(struct line *l) { arrival_unwatch(l); epoch_unwatch(l); drain_unwatch(l); check_unwatch(l); }
void guest_json(struct json *j, const char *k, const struct config_guest *g) { (void)g; json_str(j, k, "guest"); }
bool guest_is_here(const struct config_guest *g) { (void)g; return true; }
void status_json(struct json *j, const char *k, const struct config_peer *p) { (void)p; json_str(j, k, "status"); }
void refusal(const char *f, const char *w, const char *t) { (void)f, (void)w, (void)t; }
int link_out(int s, void *p) { (void)s, (void)p; return 0; }
int link_in(int s, void *p) { (void)s, (void)p; return 0; }
unsigned int net_listen(const char *h, const char *p, int f[], int *e, char w[]) { (void)h, (void)p, (void)f, (void)e, (void)w; return 0; }
int incoming_prepare(const struct incoming_job *j, struct incoming *i, char *w, size_t n) { (void)j, (void)i, (void)w, (void)n; return 0; }
int incoming_accept(const struct incoming_job *j, char *w, size_t n) { (void)j, (void)w, (void)n; return 0; }
int incoming_abort(const struct incoming_job *j, const struct incoming *i, char *w, size_t n) { (void)j, (void)i, (void)w, (void)n; return 0; }
enum guest_at incoming_find(const struct incoming_job *j, char *w, size_t n) { (void)j, (void)w, (void)n; return GUEST_GONE; }
const char *const guest_at_text[16] = { "" };
bool bandwidth_reserve(const struct config_guest *g, const struct config_peer *p, const char *u, char t[WHY_MAX])
{
	(void)g, (void)p, (void)u, (void)t;
	return false;
}
bool bandwidth_release(const struct config_guest *g) { (void)g; return false; }

/* Of the worker that looks at a guest here, which a peer has no part in */
struct iovm_version mux_version;
const char *const dev_state_names[] = { NULL }, *const path_state_names[] = { NULL };
const char *name_of(const char *const *names, uint32_t v) { (void)names, (void)v; return NULL; }
void text_size(char *b, size_t n, uint64_t v) { snprintf(b, n, "%llu", (unsigned long long)v); }
int load_dev(const struct iovm_dev_info *i, struct dev_view *v, struct path_view *p, unsigned int *n) { (void)i, (void)v, (void)p, (void)n; return 1; }
enum guest_at qemu_guest_at(struct qmp *q, unsigned int m, char *w, size_t n) { (void)q, (void)m, (void)w, (void)n; return GUEST_GONE; }
struct config_peer *config_peer(const struct config *c, const char *n) { (void)c; return strcmp(n, peer.name) ? NULL : &peer; }
struct config_device *config_device(const struct config *c, const char *n) { (void)c; return strcmp(n, device.name) ? NULL : &device; }
struct config_guest *config_guest(const struct config *c, const char *n) { (void)c; return strcmp(n, guest.name) ? NULL : &guest; }
int config_peer_of(const struct config_device *d, const struct config_peer *p) { return d->peers[0] == p ? 0 : -1; }

/* --- a connection --- */

static unsigned int asked, answered;
static bool ended;

static void on_request(struct line *l, char *text, void *data)
{
	char error[JSON_READ_ERROR];
	struct json_node *o = text ? json_read(text, strlen(text), error) : NULL;

	(void)data;
	if (o && o->type == JSON_OBJECT) {
		asked++;
		peer_request(l, &peer, o);
	} else {
		guest_unwatch(l);
		ended = true;
		if (text)
			line_close(l);
	}
	json_free(o);
}

/* What was answered, whole lines as far as they go. */
static void take_answers(int fd)
{
	static char buf[1 << 20];
	static size_t have;
	char error[JSON_READ_ERROR], *eol;
	struct json_node *o;
	ssize_t n;

	while ((n = recv(fd, buf + have, sizeof(buf) - have, MSG_DONTWAIT)) > 0) {
		have += (size_t)n;
		while ((eol = memchr(buf, '\n', have))) {
			o = json_read(buf, (size_t)(eol - buf), error);
			ASSERT(o && o->type == JSON_OBJECT && json_member(o, "id") && json_member(o, "ok"));
			ASSERT(member_bool(o, "ok") || member_str(o, "error"));
			json_free(o);
			have -= (size_t)(eol + 1 - buf);
			memmove(buf, eol + 1, have);
			answered++;
		}
	}
	have = n ? have : 0;
}

static void begin(void)
{
	char why[WHY_MAX];

	if (agent.loop)
		return;
	config.peers = &peer;
	config.devices = &device;
	config.guests = &guest;
	snprintf(config.host.name, sizeof(config.host.name), "a");
	agent.config = &config;
	agent.run_dir = agent.state_dir = "/nowhere";
	ASSERT(sd_event_new(&agent.loop) >= 0 && !epoch_start(why) && !arrival_start(why));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	size_t at = 1, part;
	int pair[2];
	struct line *l;

	if (n < 2)
		return 0;
	begin();
	device_there = data[0] & 1;
	epoch_there = data[0] & 2;
	running = data[0] & 4;
	ended = false;
	asked = answered = 0;
	ASSERT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
	l = line_new(pair[0], on_request, NULL);
	ASSERT(l);
	while (at < n && !ended) {
		const uint8_t *eol = memchr(data + at, '\n', n - at);

		part = eol ? (size_t)(eol + 1 - (data + at)) : n - at;
		if (data[at] == '!')
			end_worker(true, part > 1 && data[at + 1] & 1);
		else if (data[at] == '~')
			end_worker(false, false);
		else if (data[at] == '+')
			pass_time();
		else
			ASSERT(send(pair[1], data + at, part, MSG_NOSIGNAL) >= 0 || errno == EPIPE || errno == EAGAIN);
		at += part;
		while (sd_event_run(agent.loop, 0) > 0)
			;
		take_answers(pair[1]);
	}
	if (!ended) {
		guest_unwatch(l);
		line_close(l);
	}
	take_answers(pair[1]);
	ASSERT(answered <= asked);
	close(pair[1]);
	/* as it was */
	while (children)
		end_worker(true, false);
	device_there = false;
	for (at = 0; timers && at < 100; at++)
		pass_time();
	return 0;
}
