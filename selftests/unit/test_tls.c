// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of TLS between hosts (userland/common/tls*.c) and of both ends of the NBD handshake over it (nbd_client.c,
 * nbd_server.c), over TCP on the loopback. The certificates are made here. Where this kernel has no TLS, what hands keys over to it
 * must say so; that it works is t_tls.sh's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ktap.h"
#include "../../userland/common/nbd_client.h"
#include "../../userland/common/nbd_io.h"
#include "../../userland/iovmctl/nbd_server.h"

#define DAY	86400

static char top[] = "/tmp/iovm-tls-XXXXXX";

/* ---- certificates ---- */

struct cert {
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;
};

static void must(int r, const char *what)
{
	if (r < 0) {
		printf("Bail out! %s: %s\n", what, gnutls_strerror(r));
		exit(1);
	}
}

/* Of a CA (NULL: self-signed), named cn, with a subject alternative name (may be NULL), valid from and to days from now */
static struct cert make(const struct cert *by, bool ca, const char *cn, const char *san, int from, int to)
{
	static unsigned char serial;
	struct cert c;

	must(gnutls_x509_privkey_init(&c.key), "key");
	must(gnutls_x509_privkey_generate(c.key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0), "generate");
	must(gnutls_x509_crt_init(&c.crt), "crt");
	serial++;
	gnutls_x509_crt_set_version(c.crt, 3);
	gnutls_x509_crt_set_serial(c.crt, &serial, 1);
	gnutls_x509_crt_set_activation_time(c.crt, time(NULL) + from * DAY);
	gnutls_x509_crt_set_expiration_time(c.crt, time(NULL) + to * DAY);
	gnutls_x509_crt_set_dn_by_oid(c.crt, GNUTLS_OID_X520_COMMON_NAME, 0, cn, (unsigned int)strlen(cn));
	if (san)
		gnutls_x509_crt_set_subject_alt_name(c.crt, GNUTLS_SAN_DNSNAME, san, (unsigned int)strlen(san), GNUTLS_FSAN_SET);
	gnutls_x509_crt_set_basic_constraints(c.crt, ca, -1);
	gnutls_x509_crt_set_key(c.crt, c.key);
	must(gnutls_x509_crt_sign2(c.crt, by ? by->crt : c.crt, by ? by->key : c.key, GNUTLS_DIG_SHA256, 0), "sign");
	return c;
}

static void save(const char *dir, const char *file, const gnutls_datum_t *d, mode_t mode)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s/%s", top, dir, file);
	f = fopen(path, "w");
	if (!f || fwrite(d->data, 1, d->size, f) != d->size || fclose(f) || chmod(path, mode)) {
		printf("Bail out! %s\n", path);
		exit(1);
	}
}

static void save_crt(const char *dir, const char *file, const struct cert *c)
{
	gnutls_datum_t d;

	must(gnutls_x509_crt_export2(c->crt, GNUTLS_X509_FMT_PEM, &d), "export");
	save(dir, file, &d, 0644);
	gnutls_free(d.data);
}

/* A directory of a host that shows own and knows peer by name (NULL: nobody) */
static void host(const char *dir, const struct cert *own, const char *name, const struct cert *peer)
{
	gnutls_datum_t d;
	char path[256];

	snprintf(path, sizeof(path), "rm -rf %s/%s; mkdir -p %s/%s/peers", top, dir, top, dir);
	CHECK(!system(path), "%s", path);
	must(gnutls_x509_privkey_export2(own->key, GNUTLS_X509_FMT_PEM, &d), "export");
	save(dir, "host.key", &d, 0600);
	gnutls_free(d.data);
	save_crt(dir, "host.crt", own);
	snprintf(path, sizeof(path), "peers/%s.crt", name);
	if (peer)
		save_crt(dir, path, peer);
}

static void drop(struct cert *c)
{
	gnutls_x509_crt_deinit(c->crt);
	gnutls_x509_privkey_deinit(c->key);
}

static struct tls_creds *creds(const char *dir)
{
	char path[256], why[512] = "";
	struct tls_creds *c;

	snprintf(path, sizeof(path), "%s/%s", top, dir);
	c = tls_load(path, why, sizeof(why));
	CHECK(c, "%s", why);
	return c;
}

/* ---- two ends ---- */

static void pair(int fd[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int l = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t len = sizeof(a);

	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (l < 0 || bind(l, (void *)&a, len) || listen(l, 1) || getsockname(l, (void *)&a, &len) ||
	    connect(fd[0], (void *)&a, len) || (fd[1] = accept(l, NULL, NULL)) < 0) {
		puts("Bail out! no TCP on the loopback");
		exit(1);
	}
	close(l);
}

/* What a child that is the other end has to say, in this process */
static struct { char text[512]; } *said;

static pid_t other_end(int fd[2], void (*run)(int fd, const void *arg), const void *arg)
{
	pid_t pid;

	memset(said, 0, sizeof(*said));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(20);
		close(fd[0]);
		run(fd[1], arg);
		_exit(0);
	}
	close(fd[1]);
	return pid;
}

static void over(pid_t pid, int fd)
{
	int status = 0;

	close(fd);
	waitpid(pid, &status, 0);
	CHECK(!status, "the other end: status 0x%x", (unsigned int)status);
}

static void serve(int fd, const void *dir)
{
	struct tls_creds *c = creds(dir);
	struct tls *t = tls_server(c, fd, 2000, said->text, sizeof(said->text));
	char buf[100];
	ssize_t r;

	if (!t)
		return;
	snprintf(said->text, sizeof(said->text), "is %s", tls_peer(t));
	while ((r = tls_read(t, buf, sizeof(buf), 2000)) > 0)
		if (tls_write(t, buf, (size_t)r, 2000))
			_exit(2);
	if (r < 0)
		_exit(3);
	tls_close(t);
}

/* The client "a" of dir a against the server of dir b that it calls name; what each end must say, NULL: nothing amiss */
static void meet(const char *name, const char *at_client, const char *at_server)
{
	char why[512] = "", buf[100] = "";
	struct tls_creds *c;
	struct tls *t;
	int fd[2];
	pid_t pid;

	pair(fd);
	pid = other_end(fd, serve, "b");
	c = creds("a");
	t = tls_client(c, fd[0], name, 2000, why, sizeof(why));
	if (t && (tls_write(t, "ping", 4, 2000) || tls_read(t, buf, sizeof(buf), 2000) != 4)) {
		snprintf(why, sizeof(why), "%s", tls_error(t));
		tls_close(t);
		t = NULL;
	}
	CHECK(!t == !!at_client, "client: '%s'", why);
	CHECK(!at_client || strstr(why, at_client), "client: '%s', not '%s'", why, at_client);
	if (t) {
		CHECK(!strcmp(buf, "ping"), "'%s'", buf);
		CHECK(!strcmp(tls_peer(t), name), "'%s'", tls_peer(t));
		CHECK(!tls_pending(t));
		CHECK(tls_read(t, buf, 1, 0) < 0 && errno == EAGAIN, "errno %d", errno);
		tls_close(t);
	}
	tls_unload(c);
	over(pid, fd[0]);
	CHECK(strstr(said->text, at_server), "server: '%s', not '%s'", said->text, at_server);
}

/* ---- cases ---- */

static void known(void)
{
	struct cert a = make(NULL, false, "anything", NULL, -1, 30), b = make(NULL, true, "else", NULL, -1, 30);

	host("a", &a, "hostb", &b);
	host("b", &b, "hosta", &a);
	meet("hostb", NULL, "is hosta");
	meet("hostc", "hostc.crt' to know it by", "hung up");
	drop(&a);
	drop(&b);
}

static void by_ca(void)
{
	struct cert ca = make(NULL, true, "our CA", NULL, -1, 30), a = make(&ca, false, "hosta", NULL, -1, 30),
		    b = make(&ca, false, "x", "hostb", -1, 30), c = make(&ca, false, "hostc", "hostd", -1, 30),
		    star = make(&ca, false, "x", "*.site", -1, 30);

	host("a", &a, "hostb", &ca);
	host("b", &b, "hosta", &ca);
	meet("hostb", NULL, "is hosta");
	host("b", &c, "hosta", &ca);
	meet("hostb", "for 'hostc', not for 'hostb'", "refused the certificate of this host: wrong name");
	host("b", &b, "hostz", &ca);
	meet("hostb", "refused the certificate of this host: wrong name", "for 'hosta', not for 'hostz'");
	host("b", &star, "hosta", &ca);
	host("a", &a, "b.site", &ca);
	meet("b.site", "not for 'b.site'", "wrong name");
	drop(&ca);
	drop(&a);
	drop(&b);
	drop(&c);
	drop(&star);
}

static void foreign(void)
{
	struct cert a = make(NULL, false, "a", NULL, -1, 30), b = make(NULL, false, "b", NULL, -1, 30),
		    x = make(NULL, true, "a", NULL, -1, 30);

	host("a", &x, "hostb", &b);
	host("b", &b, "hosta", &a);
	meet("hostb", "refused the certificate of this host: it does not know it", "('a') is of no peer that is known here");
	host("a", &a, "hostb", &x);
	meet("hostb", "('b') is not the one that is known for 'hostb'", "refused the certificate of this host: it does not know");
	drop(&a);
	drop(&b);
	drop(&x);
}

static void out_of_date(void)
{
	struct cert ca = make(NULL, true, "our CA", NULL, -9, 30), a = make(NULL, false, "a", NULL, -1, 30),
		    old = make(NULL, false, "b", NULL, -9, -2), early = make(&ca, false, "hostb", NULL, 2, 9);

	host("a", &a, "hostb", &old);
	host("b", &old, "hosta", &a);
	meet("hostb", "its certificate has expired (2", "refused the certificate of this host: expired");
	host("a", &a, "hostb", &ca);
	host("b", &early, "hosta", &a);
	meet("hostb", "is not valid yet (from 2", "refused the certificate of this host: expired, or not valid yet");
	host("b", &a, "hosta", &old);
	host("a", &old, "hostb", &a);
	meet("hostb", "refused the certificate of this host: expired", "its certificate has expired (2");
	drop(&ca);
	drop(&a);
	drop(&old);
	drop(&early);
}

/* A client of its own, without a certificate or with TLS 1.2 only */
static void stranger(const char *priority, const char *want)
{
	gnutls_certificate_credentials_t cred;
	gnutls_session_t s;
	int fd[2], r;
	pid_t pid;
	char c;

	pair(fd);
	pid = other_end(fd, serve, "b");
	must(gnutls_certificate_allocate_credentials(&cred), "credentials");
	must(gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), "init");
	must(gnutls_priority_set_direct(s, priority, NULL), "priority");
	must(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred), "set");
	gnutls_transport_set_int(s, fd[0]);
	r = gnutls_handshake(s);
	if (r >= 0)
		r = (int)gnutls_record_recv(s, &c, 1);
	CHECK(r < 0, "served all the same");
	gnutls_deinit(s);
	gnutls_certificate_free_credentials(cred);
	over(pid, fd[0]);
	CHECK(strstr(said->text, want), "server: '%s', not '%s'", said->text, want);
}

static void no_certificate(void)
{
	struct cert a = make(NULL, false, "a", NULL, -1, 30), b = make(NULL, false, "b", NULL, -1, 30);

	host("b", &b, "hosta", &a);
	stranger("NORMAL:-VERS-ALL:+VERS-TLS1.3", "it showed no certificate");
	stranger("NORMAL:-VERS-ALL:+VERS-TLS1.2", "it does not speak TLS 1.3");
	drop(&a);
	drop(&b);
}

static void talk(int fd, const void *text)
{
	char buf[4096];
	size_t n = strlen(text);

	if (send(fd, text, n, MSG_NOSIGNAL) < 0 || shutdown(fd, SHUT_WR))
		_exit(1);
	while (recv(fd, buf, sizeof(buf), 0) > 0)
		;
}

static void quiet(int fd, const void *arg)
{
	(void)fd;
	(void)arg;
	usleep(600000);
}

static void no_tls(void)
{
	static const char *const texts[] = { "", "NBDMAGICIHAVEOPT", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x16\x03\x03\x40\x01xxxxxxx",
					     "\x15\x03\x03\x01\x01x" };
	struct cert a = make(NULL, false, "a", NULL, -1, 30);
	char why[512];
	struct tls_creds *c;
	unsigned int i;
	uint64_t start;
	int fd[2];
	pid_t pid;

	host("a", &a, "hostb", &a);
	c = creds("a");
	for (i = 0; i < 2 * sizeof(texts) / sizeof(*texts); i++) {
		pair(fd);
		pid = other_end(fd, talk, texts[i / 2]);
		*why = 0;
		CHECK(!(i & 1 ? tls_server(c, fd[0], 2000, why, sizeof(why)) : tls_client(c, fd[0], "hostb", 2000, why, sizeof(why))));
		CHECK(*why && !strstr(why, "slow"), "%u: '%s'", i, why);
		over(pid, fd[0]);
	}
	pair(fd);
	pid = other_end(fd, quiet, NULL);
	start = ms_now();
	CHECK(!tls_client(c, fd[0], "hostb", 200, why, sizeof(why)));
	CHECK(strstr(why, "too slow") && ms_now() - start < 500, "'%s' after %llu ms", why, (unsigned long long)(ms_now() - start));
	over(pid, fd[0]);
	tls_unload(c);
	drop(&a);
}

/* What tls_load() says of a directory from which a file was taken, or in which one was changed */
static void spoil(const char *cmd, const char *want)
{
	char path[512], why[512] = "";

	snprintf(path, sizeof(path), "cd %s/a && %s", top, cmd);
	CHECK(!system(path), "%s", path);
	snprintf(path, sizeof(path), "%s/a", top);
	CHECK(!tls_load(path, why, sizeof(why)));
	CHECK(strstr(why, want), "%s: '%s', not '%s'", cmd, why, want);
}

static void files(void)
{
	struct cert a = make(NULL, false, "a", NULL, -1, 30), b = make(NULL, false, "b", NULL, -1, 30);

	host("a", &a, "hostb", &b);
	spoil("mv host.key k", "host.key': No such file");
	spoil("cp k host.key; chmod 644 host.key", "everybody may read");
	spoil(": >host.key; chmod 600 host.key", "is empty");
	spoil("echo x >host.key", "is not in order");
	host("b", &b, "hosta", &a);
	spoil("cp ../b/host.key host.key", "do not belong together");
	spoil("cp k host.key; chmod 600 host.key; echo x >peers/hostc.crt", "hostc.crt' holds no certificate");
	spoil("rm -r peers", "peers': No such file");
	drop(&a);
	drop(&b);
}

/* ---- NBD ---- */

static const struct nbds_export disk = { .name = "disk", .description = "iovm-id=x:y", .bytes = 1 << 20, .min_block = 512,
					 .pref_block = 4096, .flags = 0x16d };

static void nbd_serve(int fd, const void *arg)
{
	const struct nbds_export *chosen = &disk;
	const char *how = arg;
	struct nbds_tls t = { .required = *how == 'r' };
	enum nbds_end end;

	t.creds = *how == 'p' ? NULL : creds("b");
	end = nbds_handshake_tls(fd, &chosen, t.creds ? &t : NULL, 2000, said->text, sizeof(said->text));
	if (end == NBDS_LEFT)
		snprintf(said->text, sizeof(said->text), "left, was '%s'", t.peer);
}

static void nbd_meet(const char *how, bool tls, bool only_ask, const char *name, enum nbdc_end want, const char *at_client,
		     const char *at_server)
{
	struct nbdc_ask ask = { .peer = "hostb", .name = name, .only_ask = only_ask, .timeout_ms = 2000 };
	static struct nbdc_export ex;
	struct tls_creds *c = tls ? creds("a") : NULL;
	enum nbdc_end end;
	char why[512];
	int fd[2];
	pid_t pid;

	ask.creds = c;
	pair(fd);
	pid = other_end(fd, nbd_serve, how);
	end = nbdc_handshake(fd[0], &ask, &ex, why, sizeof(why));
	CHECK(end == want, "%s: %d, not %d: '%s'", how, end, want, why);
	CHECK(strstr(why, at_client), "%s: '%s', not '%s'", how, why, at_client);
	if (end == NBDC_ASKED)
		CHECK(ex.bytes == disk.bytes && ex.flags == disk.flags && ex.min_block == 512 && ex.pref_block == 4096 &&
		      ex.max_payload == NBDS_MAX_PAYLOAD && !ex.structured && !strcmp(ex.description, disk.description));
	tls_unload(c);
	over(pid, fd[0]);
	CHECK(strstr(said->text, at_server), "%s: server: '%s', not '%s'", how, said->text, at_server);
}

static void nbd(void)
{
	struct cert a = make(NULL, false, "a", NULL, -1, 30), b = make(NULL, false, "b", NULL, -1, 30);
	char why[256];
	bool kernel = !tls_kernel_ready(why, sizeof(why));

	host("a", &a, "hostb", &b);
	host("b", &b, "hosta", &a);
	nbd_meet("required", true, true, "disk", NBDC_ASKED, "", "left, was 'hosta'");
	nbd_meet("offered", true, true, "", NBDC_ASKED, "", "left, was 'hosta'");
	nbd_meet("offered", false, true, "disk", NBDC_ASKED, "", "left, was ''");
	nbd_meet("required", false, true, "disk", NBDC_BAD, "insists on TLS", "did not start TLS, which is required here");
	nbd_meet("plain", true, true, "disk", NBDC_BAD, "does not offer TLS", "hung up");
	nbd_meet("required", true, true, "other", NBDC_NO_EXPORT, "there is no such export", "hung up");
	nbd_meet("required", true, false, "disk", kernel ? NBDC_GO : NBDC_BAD, kernel ? "" : "modprobe tls", kernel ? "" : "modprobe tls");
	host("a", &b, "hostb", &b);
	nbd_meet("required", true, true, "disk", NBDC_BAD, "it does not know it", "no peer that is known");
	drop(&a);
	drop(&b);
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "peers that are known by their own certificates", known },
		{ "peers that are known by a CA and a name", by_ca },
		{ "foreign certificates", foreign },
		{ "certificates out of date", out_of_date },
		{ "no certificate, no TLS 1.3", no_certificate },
		{ "peers that do not speak TLS", no_tls },
		{ "files that are not in order", files },
		{ "NBD: STARTTLS at both ends", nbd },
	};
	char cmd[64];
	int r;

	signal(SIGPIPE, SIG_IGN);
	said = mmap(NULL, sizeof(*said), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (said == MAP_FAILED || !mkdtemp(top))
		return 1;
	r = KTAP_RUN(cases);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	if (system(cmd))
		return 1;
	return r;
}
