// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What there is to tell: this host's state as JSON, and as metrics in Prometheus' text format.
 */
#include <inttypes.h>
#include <string.h>

#include "iovmd.h"
#include "../iovmctl/iovmctl.h"

/* Sessions of an export, and what they have in flight */
static unsigned int sessions(const char *name)
{
	struct iovm_session_info s;
	unsigned int n = 0;
	uint32_t id = 0;

	for (;; n++) {
		IOVM_INIT(&s);
		snprintf(s.dev, sizeof(s.dev), "%s", name);
		s.id = id;
		if (mux_ioctl(IOVM_SESSION_GET, &s))
			return n;
		id = s.id + 1;
	}
}

static void path_json(struct json *j, const struct config_device *d, const struct path_view *v)
{
	json_open(j, NULL, '{');
	json_str(j, "name", v->i.name);
	json_str(j, "address", v->i.addr);
	json_str(j, "state", name_of(path_state_names, v->i.state));
	json_bool(j, "takes_requests", v->routed);
	json_u64(j, "since_ms", v->i.state_since_ms);
	json_u64(j, "held", v->i.held);
	json_str(j, "same_data", v->same_data);
	json_bool(j, "in_doubt", v->i.in_doubt);
	json_str(j, "in_doubt_why", doubt_why(d, v->i.name));
	if (v->i.type == IOVM_PATH_NBD)
		json_bool(j, "encrypted", v->i.tls);
	json_close(j);
}

static void device_json(struct json *j, const struct config_device *d)
{
	struct path_view paths[IOVM_MAX_PATHS];
	const char *trouble = apply_trouble(d);
	char name[IOVM_NAME_MAX];
	struct iovm_dev_info di;
	unsigned int nr = 0, i;
	struct dev_view v;

	json_open(j, NULL, '{');
	json_str(j, "name", d->name);
	json_str(j, "trouble", *trouble ? trouble : NULL);
	json_str(j, "kept", *d->kept ? d->kept : NULL);
	if (kernel_has_device(d->name, &di) && !load_dev(&di, &v, paths, &nr)) {
		json_str(j, "state", name_of(dev_state_names, v.i.state));
		json_str(j, "route", *v.route ? v.route : NULL);
		json_bool(j, "in_use", v.i.in_use);
		json_u64(j, "queues_running", v.i.queues_running);
		json_u64(j, "held", v.i.held);
		json_u64(j, "parked_ms", v.i.parked_ms);
		json_open(j, "paths", '[');
		for (i = 0; i < nr; i++)
			path_json(j, d, &paths[i]);
		json_close(j);
	} else {
		json_null(j, "state");
	}
	epoch_json(j, d);
	export_name(d, name);
	json_u64(j, "sessions_of_peers", sessions(name));
	json_close(j);
}

/* May a peer know of it? It is named for one of the guest's devices; NULL: of iovmctl. */
static bool may_see(const struct config_guest *g, const struct config_peer *from)
{
	unsigned int i;

	for (i = 0; i < g->nr_devices && from; i++)
		if (config_peer_of(g->devices[i], from) >= 0)
			return true;
	return !from;
}

void status_peers(struct json *j, const char *key)
{
	const struct config_peer *p;

	json_open(j, key, '[');
	for (p = agent.config->peers; p; p = p->next) {
		json_open(j, NULL, '{');
		json_str(j, "name", p->name);
		json_str(j, "address", p->address);
		json_bool(j, "libvirt_plain", strstr(p->libvirt_uri, "+tcp://"));
		peer_json(j, p);
		json_str(j, "kept", *p->kept ? p->kept : NULL);
		json_close(j);
	}
	json_close(j);
}

void status_json(struct json *j, const char *key, const struct config_peer *from)
{
	const struct config_device *d;
	const struct config_guest *g;

	json_open(j, key, '{');
	json_str(j, "host", agent.config->host.name);
	json_str(j, "release", IOVM_RELEASE);
	json_str(j, "kernel_release", mux_version.release);
	json_str(j, "transport", agent.config->host.plain_tcp ? "plain-tcp" : "tls");
	json_bool(j, "config_changed", config_sum(agent.config_file, agent.config_dir) != agent.config_sum);
	if (!from) {
		cert_json(j, NULL);
		status_peers(j, "peers");
		refusal_json(j, "last_refused");
	}
	json_open(j, "devices", '[');
	for (d = agent.config->devices; d; d = d->next)
		if (!from || config_peer_of(d, from) >= 0)
			device_json(j, d);
	json_close(j);
	json_open(j, "guests", '[');
	for (g = agent.config->guests; g; g = g->next)
		if (may_see(g, from))
			guest_json(j, NULL, g);
	json_close(j);
	json_close(j);
}

/* --- metrics --- */

static void family(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Of each device or path that is configured, one line; names need no quoting: see parse_name(). */
static void each_device(FILE *f, const char *name, uint64_t (*value)(const struct iovm_dev_info *))
{
	const struct config_device *d;
	struct iovm_dev_info di;

	for (d = agent.config->devices; d; d = d->next)
		if (kernel_has_device(d->name, &di))
			fprintf(f, "%s{device=\"%s\"} %" PRIu64 "\n", name, d->name, value(&di));
}

static uint64_t is_routed(const struct iovm_dev_info *d)
{
	return d->state == IOVM_DEV_ROUTED;
}

static uint64_t runs(const struct iovm_dev_info *d)
{
	return d->queues_running;
}

static uint64_t held(const struct iovm_dev_info *d)
{
	return d->held;
}

static void path_metrics(FILE *f)
{
	const struct config_device *d;
	struct iovm_path_info pi;

	family(f, "iovm_path_live", "gauge", "1 when the path may take requests.");
	for (d = agent.config->devices; d; d = d->next) {
		pi.id = 0;
		while (!next_path(d->name, &pi)) {
			fprintf(f, "iovm_path_live{device=\"%s\",path=\"%s\"} %d\n", d->name, pi.name, pi.state == IOVM_PATH_LIVE);
			if (pi.id++ == IOVM_NO_ID - 1)
				break;
		}
	}
}

static void stats_metrics(FILE *f)
{
	static const struct {
		const char *name, *help;
		size_t off;
	} counters[] = {
		{ "iovm_requests_total", "Requests completed to the guest.", offsetof(struct iovm_dev_stats, requests) },
		{ "iovm_request_errors_total", "Of those, with an error.", offsetof(struct iovm_dev_stats, errors) },
		{ "iovm_requeues_total", "Requests sent elsewhere after their path had failed.", offsetof(struct iovm_dev_stats, requeues) },
		{ "iovm_reroutes_total", "Changes of the path that takes requests.", offsetof(struct iovm_dev_stats, reroutes) },
	};
	const struct config_device *d;
	struct iovm_dev_stats s;
	size_t i;

	for (i = 0; i < sizeof(counters) / sizeof(*counters); i++) {
		family(f, counters[i].name, "counter", counters[i].help);
		for (d = agent.config->devices; d; d = d->next) {
			IOVM_INIT(&s);
			snprintf(s.name, sizeof(s.name), "%s", d->name);
			if (!mux_ioctl(IOVM_DEV_STATS, &s))
				fprintf(f, "%s{device=\"%s\"} %" PRIu64 "\n", counters[i].name, d->name,
					*(const uint64_t *)((const char *)&s + counters[i].off));
		}
	}
}

void status_metrics(FILE *f)
{
	const struct config_guest *g;
	const struct config_peer *p;

	family(f, "iovm_peer_connected", "gauge", "1 when the peer's agent can be asked.");
	for (p = agent.config->peers; p; p = p->next)
		fprintf(f, "iovm_peer_connected{peer=\"%s\"} %d\n", p->name, peer_is_up(p, NULL));
	family(f, "iovm_peer_fenced", "gauge", "1 when the peer counts as fenced: it was, and was not connected since.");
	for (p = agent.config->peers; p; p = p->next)
		fprintf(f, "iovm_peer_fenced{peer=\"%s\"} %d\n", p->name, fence_host_done(p));
	family(f, "iovm_certificate_expires_seconds", "gauge", "When the certificate of this host, or the one a peer is known by, expires.");
	cert_metrics(f);
	family(f, "iovm_device_routed", "gauge", "1 when the device's requests have a path.");
	each_device(f, "iovm_device_routed", is_routed);
	family(f, "iovm_device_queues_running", "gauge", "Queues that a guest runs.");
	each_device(f, "iovm_device_queues_running", runs);
	family(f, "iovm_device_held", "gauge", "Writes that wait for a fence.");
	each_device(f, "iovm_device_held", held);
	path_metrics(f);
	stats_metrics(f);
	family(f, "iovm_guest_ready", "gauge", "1 when nothing was found that keeps it from being rerouted and migrated.");
	for (g = agent.config->guests; g; g = g->next)
		if (check_is_ready(g) >= 0)
			fprintf(f, "iovm_guest_ready{guest=\"%s\"} %d\n", g->name, check_is_ready(g));
	family(f, "iovm_guest_migrating", "gauge", "1 while the guest is being migrated away.");
	for (g = agent.config->guests; g; g = g->next)
		fprintf(f, "iovm_guest_migrating{guest=\"%s\"} %d\n", g->name, guest_is_migrating(g));
}
