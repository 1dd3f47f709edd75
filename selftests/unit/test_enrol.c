// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of how hosts are made known to each other (userland/common/enrol.c), and of the certificates that are made and kept for
 * it (tls_cert.c, put_file.c), over TCP on the loopback.
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
#include "../../userland/common/enrol.h"
#include "../../userland/common/put_file.h"
#include "../../userland/common/tls_cert.h"

#define DAY	86400

static char top[] = "/tmp/iovm-enrol-XXXXXX";

static const char *in_top(const char *rest)
{
	static char bufs[4][256];
	static unsigned int turn;
	char *buf = bufs[turn++ % 4];

	snprintf(buf, sizeof(bufs[0]), "%s/%s", top, rest);
	return buf;
}

static mode_t mode_of(const char *rest)
{
	struct stat st;

	return stat(in_top(rest), &st) ? 0 : st.st_mode & 07777;
}

/* ---- codes ---- */

static void codes(void)
{
	char code[ENROL_CODE], other[ENROL_CODE], digits[ENROL_DIGITS], again[ENROL_DIGITS];
	const char *bad;

	CHECK(!enrol_new_code(code) && !enrol_new_code(other));
	CHECK(strlen(code) == ENROL_CODE - 1 && strcmp(code, other), "%s, %s", code, other);
	CHECK(!enrol_read_code(code, digits));
	/* as people type it */
	CHECK(!enrol_read_code("  0l1io-o0abc DEFGH\tjkmnp\n", again) && !memcmp(again, "01110" "00ABC" "DEFGH" "JKMNP", ENROL_DIGITS));
	bad = enrol_read_code("01234-56789-ABCDE-FGHJ", again);
	CHECK(bad && strstr(bad, "19 characters of 20"), "%s", bad);
	bad = enrol_read_code("01234-56789-ABCDE-FGHJKM", again);
	CHECK(bad && strstr(bad, "21 characters of 20"), "%s", bad);
	bad = enrol_read_code("01234-56789-ABCDE-FGHJU", again);
	CHECK(bad && strstr(bad, "no code has"), "%s", bad);
	CHECK(enrol_read_code("", again) && enrol_read_code("----", again));
}

/* ---- certificates ---- */

static void own(void)
{
	struct tls_cert c, d;
	char why[512] = "", *pem, *pem2;
	bool made;

	CHECK(!tls_cert_own(in_top("o/tls"), "host-1.x_y", &made, &pem, &c, why, sizeof(why)), "%s", why);
	CHECK(made && !strcmp(c.name, "host-1.x_y") && !c.is_ca && !tls_cert_trouble(&c));
	CHECK(strlen(c.fingerprint) == 71 && !strncmp(c.fingerprint, "sha256:", 7), "%s", c.fingerprint);
	CHECK(c.until - time(NULL) > TLS_CERT_YEARS * 365 * DAY - 60 && c.from <= time(NULL) - DAY + 60);
	CHECK(mode_of("o/tls/host.key") == 0600 && mode_of("o/tls/host.crt") == 0644 && mode_of("o/tls/peers") == 0755);
	/* it stays */
	CHECK(!tls_cert_own(in_top("o/tls"), "other", &made, &pem2, &d, why, sizeof(why)) && !made);
	CHECK(!strcmp(pem, pem2) && !strcmp(c.fingerprint, d.fingerprint));
	free(pem2);
	CHECK(!tls_cert_read(in_top("o/tls/host.crt"), &d, why, sizeof(why)) && !strcmp(c.fingerprint, d.fingerprint));
	/* a key without a certificate: interrupted */
	unlink(in_top("o/tls/host.crt"));
	CHECK(!tls_cert_own(in_top("o/tls"), "host", &made, &pem2, &d, why, sizeof(why)) && made && strcmp(c.fingerprint, d.fingerprint));
	free(pem2);
	/* the other way round it was somebody's */
	unlink(in_top("o/tls/host.key"));
	CHECK(tls_cert_own(in_top("o/tls"), "host", &made, &pem2, &d, why, sizeof(why)) && strstr(why, "bring the key"), "%s", why);
	CHECK(tls_cert_read(in_top("o/none"), &d, why, sizeof(why)) == 1);
	CHECK(tls_cert_read(in_top("o"), &d, why, sizeof(why)) == -1);
	CHECK(!put_file(in_top("o/junk"), 0644, "junk", 4) && tls_cert_read(in_top("o/junk"), &d, why, sizeof(why)) == -1 &&
	      strstr(why, "no certificate in PEM"), "%s", why);
	free(pem);
}

/* In PEM; a CA's, valid from and to days from now */
static char *pem_of(bool ca, int from, int to)
{
	gnutls_x509_privkey_t key;
	gnutls_x509_crt_t crt;
	unsigned char serial = 1;
	gnutls_datum_t d;
	char *pem;

	gnutls_x509_privkey_init(&key);
	gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
	gnutls_x509_crt_init(&crt);
	gnutls_x509_crt_set_version(crt, 3);
	gnutls_x509_crt_set_serial(crt, &serial, 1);
	gnutls_x509_crt_set_activation_time(crt, time(NULL) + from * DAY);
	gnutls_x509_crt_set_expiration_time(crt, time(NULL) + to * DAY);
	gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "b\001", 2);
	gnutls_x509_crt_set_basic_constraints(crt, ca, -1);
	gnutls_x509_crt_set_key(crt, key);
	if (gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0) < 0 || gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &d) < 0) {
		puts("Bail out! no certificate");
		exit(1);
	}
	pem = strdup((char *)d.data);
	gnutls_free(d.data);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(key);
	return pem;
}

static void kept(const char *text, const char *want)
{
	struct tls_cert c;
	char why[512] = "";
	int r = tls_cert_keep(in_top("k/tls"), "b", text, &c, why, sizeof(why));

	CHECK(!!r == !!want && (!want || strstr(why, want)), "%d '%s', not '%s'", r, why, want);
	CHECK(!r == !access(in_top("k/tls/peers/b.crt"), F_OK), "'%s': kept although not in order, or not kept", want);
	if (!r)
		CHECK(!tls_cert_forget(in_top("k/tls"), "b", why, sizeof(why)) && tls_cert_forget(in_top("k/tls"), "b", why, sizeof(why)) == 1);
}

static void peers(void)
{
	char *good = pem_of(false, -1, 30), *ca = pem_of(true, -1, 30), *old = pem_of(false, -30, -1), *early = pem_of(false, 2, 30);
	char *text = malloc(strlen(good) + TLS_CERT_MAX + 100);
	struct tls_cert c;
	char why[512] = "", file[256];
	FILE *f;

	kept(good, NULL);
	kept(ca, "it is a CA's");
	kept(old, "has expired");
	kept(early, "is not valid yet");
	kept("", "not one certificate in PEM");
	kept("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not one certificate in PEM");
	sprintf(text, "%s%s", good, good);
	kept(text, "not one certificate in PEM");
	sprintf(text, "%s%*s", good, TLS_CERT_MAX, "");
	kept(text, "not one certificate in PEM");
	/* what is kept is what was understood, not what came */
	sprintf(text, "[peer evil]\n%s# and more\n", good);
	CHECK(!tls_cert_keep(in_top("k/tls"), "b", text, &c, why, sizeof(why)) && !strcmp(c.name, "b?"), "%s: '%s'", why, c.name);
	snprintf(file, sizeof(file), "%s", in_top("k/tls/peers/b.crt"));
	f = fopen(file, "r");
	memset(text, 0, strlen(good) + 100);
	CHECK(f && fread(text, 1, strlen(good) + 50, f) == strlen(good) && !strcmp(text, good));
	if (f)
		fclose(f);
	free(text);
	free(good);
	free(ca);
	free(old);
	free(early);
}

/* ---- another certificate ---- */

/* Does host from, a directory below top, get through to host to? Both show what they have now. */
static bool meets(const char *from, const char *to)
{
	struct tls_creds *c;
	struct tls *t = NULL;
	char why[256] = "", byte = 'x';
	bool good = false;
	int fd[2], status;
	pid_t pid;

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, fd));
	pid = fork();
	if (!pid) {
		c = tls_load(in_top(to), why, sizeof(why));
		t = c ? tls_server(c, fd[1], 5000, why, sizeof(why)) : NULL;
		_exit(t && !strcmp(tls_peer(t), from) && !tls_write(t, &byte, 1, 5000) ? 0 : 1);
	}
	close(fd[1]);
	c = tls_load(in_top(from), why, sizeof(why));
	if (c)
		t = tls_client(c, fd[0], to, 5000, why, sizeof(why));
	if (t) {
		good = tls_read(t, &byte, 1, 5000) == 1;
		tls_close(t);
	}
	tls_unload(c);
	close(fd[0]);
	waitpid(pid, &status, 0);
	return good && !status;
}

static unsigned int certificates_in(const char *file)
{
	char line[128];
	unsigned int n = 0;
	FILE *f = fopen(in_top(file), "r");

	while (f && fgets(line, sizeof(line), f))
		n += !strncmp(line, "-----BEGIN CERTIFICATE", 22);
	if (f)
		fclose(f);
	return n;
}

static void copy_of(const char *from, const char *to)
{
	char cmd[600];

	snprintf(cmd, sizeof(cmd), "cp -p %s %s", in_top(from), in_top(to));
	CHECK(!system(cmd));
}

static void renewed(void)
{
	struct tls_cert a, b, c, first;
	struct tls_pair p, other;
	char why[512] = "", *pem_a, *pem_b, *ca = pem_of(true, -1, 30), *text = NULL;
	bool made;
	FILE *f;

	CHECK(!tls_cert_own(in_top("a"), "a", &made, &pem_a, &a, why, sizeof(why)) && !tls_cert_own(in_top("b"), "b", &made, &pem_b, &b, why, sizeof(why)));
	CHECK(!tls_cert_keep(in_top("a"), "b", pem_b, &c, why, sizeof(why)) && !tls_cert_keep(in_top("b"), "a", pem_a, &c, why, sizeof(why)));
	CHECK(a.self_signed && meets("a", "b") && meets("b", "a"));
	/* b hears of it: it takes both */
	CHECK(!tls_pair_make("a", &p, why, sizeof(why)), "%s", why);
	CHECK(strcmp(p.cert.fingerprint, a.fingerprint) && !strcmp(p.cert.name, "a") && p.cert.self_signed);
	CHECK(!tls_cert_keep_next(in_top("b"), "a", p.crt, a.fingerprint, &c, why, sizeof(why)), "%s", why);
	CHECK(!strcmp(c.fingerprint, p.cert.fingerprint) && certificates_in("b/peers/a.crt") == 2);
	CHECK(!tls_cert_read(in_top("b/peers/a.crt"), &c, why, sizeof(why)) && !strcmp(c.fingerprint, p.cert.fingerprint));
	CHECK(meets("a", "b") && meets("b", "a"));
	/* the old one was shown: nothing changes */
	CHECK(!tls_cert_seen(in_top("b"), "a", a.fingerprint, why, sizeof(why)) && certificates_in("b/peers/a.crt") == 2);
	/* one that was told and then given up is forgotten with the next, the one that is shown is not */
	CHECK(!tls_pair_make("a", &other, why, sizeof(why)));
	CHECK(!tls_cert_keep_next(in_top("b"), "a", other.crt, a.fingerprint, &c, why, sizeof(why)) && certificates_in("b/peers/a.crt") == 2);
	CHECK(!tls_cert_keep_next(in_top("b"), "a", p.crt, a.fingerprint, &c, why, sizeof(why)) && certificates_in("b/peers/a.crt") == 2);
	CHECK(meets("a", "b"));
	copy_of("a/host.crt", "old.crt");
	copy_of("a/host.key", "old.key");
	/* in place: whole, and used */
	CHECK(!tls_pair_put(in_top("a"), &p, why, sizeof(why)), "%s", why);
	CHECK(!tls_cert_read_own(in_top("a"), &c, why, sizeof(why)) && !strcmp(c.fingerprint, p.cert.fingerprint));
	CHECK(mode_of("a/host.key") == 0600 && mode_of("a/host.crt") == 0644 && !mode_of("a/" TLS_NEXT));
	CHECK(meets("a", "b") && meets("b", "a"));
	CHECK(tls_cert_seen(in_top("b"), "a", p.cert.fingerprint, why, sizeof(why)) == 1 && certificates_in("b/peers/a.crt") == 1);
	CHECK(!tls_cert_seen(in_top("b"), "a", p.cert.fingerprint, why, sizeof(why)));
	CHECK(meets("a", "b") && meets("b", "a"));
	/* the old one is not taken any more */
	copy_of("a/host.crt", "new.crt");
	copy_of("a/host.key", "new.key");
	copy_of("old.crt", "a/host.crt");
	copy_of("old.key", "a/host.key");
	CHECK(!meets("a", "b") && !meets("b", "a"));
	/* interrupted anywhere: what is to be in place is used, whatever is there already, and put there by the next that looks */
	f = fopen(in_top("a/" TLS_NEXT), "w");
	CHECK(f && fprintf(f, "%s%s", p.crt, p.key) > 0 && !fclose(f) && !chmod(in_top("a/" TLS_NEXT), 0600));
	CHECK(meets("a", "b"));
	copy_of("new.key", "a/host.key");
	CHECK(meets("a", "b") && meets("b", "a"));
	CHECK(!tls_cert_own(in_top("a"), "a", &made, &text, &first, why, sizeof(why)) && !made && !strcmp(first.fingerprint, p.cert.fingerprint));
	CHECK(!mode_of("a/" TLS_NEXT) && meets("a", "b"));
	/* what a peer may not send, and who is not known by a certificate of his own */
	CHECK(tls_cert_keep_next(in_top("b"), "a", ca, p.cert.fingerprint, &c, why, sizeof(why)) && strstr(why, "it is a CA's"), "%s", why);
	CHECK(tls_cert_keep_next(in_top("b"), "a", other.crt, a.fingerprint, &c, why, sizeof(why)) && strstr(why, "by a CA's"), "%s", why);
	CHECK(tls_cert_keep_next(in_top("b"), "nobody", other.crt, a.fingerprint, &c, why, sizeof(why)) && strstr(why, "cannot read"), "%s", why);
	CHECK(certificates_in("b/peers/a.crt") == 1);
	CHECK(!put_file(in_top("b/peers/c.crt"), 0644, ca, strlen(ca)) && !tls_cert_read(in_top("b/peers/c.crt"), &c, why, sizeof(why)));
	CHECK(tls_cert_keep_next(in_top("b"), "c", other.crt, c.fingerprint, &c, why, sizeof(why)) && strstr(why, "by a CA's"), "%s", why);
	/* of several in a file a CA's is one only when it is the first */
	f = fopen(in_top("b/peers/a.crt"), "a");
	CHECK(f && fputs(ca, f) >= 0 && !fclose(f) && meets("a", "b"));
	tls_pair_free(&p);
	tls_pair_free(&other);
	free(text);
	free(pem_a);
	free(pem_b);
	free(ca);
}

static void no_place(void)
{
	char *good = pem_of(false, -1, 30), why[512] = "", *pem;
	struct tls_cert c;
	bool made;

	CHECK(!put_file(in_top("file"), 0600, "x", 1) && mode_of("file") == 0600);
	CHECK(put_file(in_top("none/file"), 0600, "x", 1) == ENOENT);
	CHECK(put_dir(in_top("file/dir"), 0755) == ENOTDIR);
	CHECK(tls_cert_keep(in_top("file"), "b", good, &c, why, sizeof(why)) && strstr(why, "cannot make"), "%s", why);
	CHECK(tls_cert_own(in_top("file"), "a", &made, &pem, &c, why, sizeof(why)) && strstr(why, "cannot make"), "%s", why);
	free(good);
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

static struct ends {
	int r[2];
	bool kept[2];
	char why[2][512];
	struct enrol_side other[2];
} *ends;

struct keeper {
	int end;
	const char *refuse;
};

static int keep(const struct enrol_side *other, const char *pem, void *data, char *why, size_t n)
{
	const struct keeper *k = data;

	if (k->refuse) {
		snprintf(why, n, "%s", k->refuse);
		return -1;
	}
	ends->kept[k->end] = !strcmp(pem, other->name);		/* they send their names for certificates */
	return 0;
}

static void enrol(int fd, int end, const char *code, const char *self, const char *other, const char *refuse)
{
	struct enrol_side side = { .address = "10.0.0.1", .peer_port = 1000, .data_port = 2000 };
	struct keeper k = { .end = end, .refuse = refuse };
	char digits[ENROL_DIGITS];
	struct enrol_job j = { .digits = digits, .self = &side, .pem = self, .other = &ends->other[end], .keep = keep, .data = &k };

	if (end)
		*side.address = 0;
	strcpy(side.name, self);
	strcpy(ends->other[end].name, other);
	enrol_read_code(code, digits);
	ends->r[end] = enrol_talk(fd, end, &j, 2000, ends->why[end], sizeof(ends->why[end]));
}

#define CODE	"01234-56789-ABCDE-FGHJK"

/* A client against a listener; run(fd) is the client, if it is not one in order. */
static void meet(const char *code, const char *self, const char *want, const char *refuse_client, const char *refuse_listener,
		 void (*run)(int fd))
{
	int fd[2], status = 0;
	pid_t pid;

	memset(ends, 0, sizeof(*ends));
	pair(fd);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		alarm(20);
		close(fd[0]);
		enrol(fd[1], 1, CODE, "a", "b", refuse_listener);
		_exit(0);
	}
	close(fd[1]);
	if (run)
		run(fd[0]);
	else
		enrol(fd[0], 0, code, self, want, refuse_client);
	close(fd[0]);
	waitpid(pid, &status, 0);
	CHECK(!status, "the listener: status 0x%x", (unsigned int)status);
}

static void are(int client, bool kept_client, const char *why_client, int listener, bool kept_listener, const char *why_listener)
{
	CHECK(ends->r[0] == client && ends->kept[0] == kept_client && strstr(ends->why[0], why_client), "client: %d, %d, '%s'", ends->r[0],
	      ends->kept[0], ends->why[0]);
	CHECK(ends->r[1] == listener && ends->kept[1] == kept_listener && strstr(ends->why[1], why_listener), "listener: %d, %d, '%s'",
	      ends->r[1], ends->kept[1], ends->why[1]);
}

static void agreed(void)
{
	meet(CODE, "b", "a", NULL, NULL, NULL);
	are(0, true, "", 0, true, "");
	CHECK(ends->other[1].peer_port == 1000 && ends->other[1].data_port == 2000 && !strcmp(ends->other[1].address, "10.0.0.1"));
	CHECK(!*ends->other[0].address);
	meet(" 0l234 56789 abcde fghjk", "b", "a", NULL, NULL, NULL);
	are(0, true, "", 0, true, "");
}

static void refused(void)
{
	meet("01234-56789-ABCDE-FGHJM", "b", "a", NULL, NULL, NULL);
	are(-1, false, "it has another code", -1, false, "it has another code");
	meet(CODE, "c", "a", NULL, NULL, NULL);
	are(-1, false, "that host is called 'c', not 'b'", -1, false, "that host is called 'c', not 'b'");
	meet(CODE, "b", "x", NULL, NULL, NULL);
	are(-1, false, "wants to enrol 'x', and this is 'a'", -1, false, "wants to enrol 'x', and this is 'a'");
	/* what one does not keep the other does not, if it can still be helped */
	meet(CODE, "b", "a", "no room", NULL, NULL);
	are(-1, false, "no room", -1, false, "it refused: no room");
	meet(CODE, "b", "a", NULL, "no room", NULL);
	are(1, true, "it refused: no room", -1, false, "no room");
}

/* ---- clients that are not in order ---- */

static const char *line;

static void says(int fd)
{
	char digits[ENROL_DIGITS], why[256], buf[4096];
	struct tls_creds *c;
	struct tls *t;

	enrol_read_code(CODE, digits);
	c = tls_secret(digits, ENROL_DIGITS, why, sizeof(why));
	t = c ? tls_client(c, fd, "", 2000, why, sizeof(why)) : NULL;
	CHECK(t, "%s", why);
	if (t && !tls_write(t, line, strlen(line), 2000))
		while (tls_read(t, buf, sizeof(buf), 2000) > 0)
			;
	tls_close(t);
	if (c)
		tls_unload(c);
}

static void hears(const char *text, const char *want)
{
	line = text;
	meet(NULL, NULL, NULL, NULL, NULL, says);
	CHECK(ends->r[1] == -1 && !ends->kept[1] && strstr(ends->why[1], want), "%.40s: %d, %d, '%s'", text, ends->r[1], ends->kept[1],
	      ends->why[1]);
}

static void stops(int fd)
{
	CHECK(send(fd, "\x16\x03\x01\x02\x00\x01\x00\x01", 8, 0) == 8);
	usleep(2500000);
}

static void shouts(int fd)
{
	CHECK(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0) == 18);
}

#define HELLO(more)	"{\"iovm-enrol\":1,\"host\":\"b\",\"to\":\"a\",\"certificate\":\"b\"" more "}\n"
#define PORTS		",\"peer_port\":1,\"data_port\":2"

static void out_of_order(void)
{
	static char longest[64 << 10];

	hears("no JSON\n", "not of the protocol");
	hears("[]\n", "not of the protocol");
	hears("{}\n", "version 0 of the protocol");
	hears("{\"iovm-enrol\":2}\n", "version 2 of the protocol");
	hears(HELLO(""), "not of the protocol");
	hears(HELLO(",\"peer_port\":65536,\"data_port\":1"), "not of the protocol");
	hears(HELLO(PORTS ",\"address\":\"a b\""), "address that it says it has is none");
	hears("{\"iovm-enrol\":1,\"host\":7,\"to\":\"a\",\"certificate\":\"b\"" PORTS "}\n", "not of the protocol");
	hears("{\"iovm-enrol\":1,\"host\":\"\\u001b[2J\",\"to\":\"a\",\"certificate\":\"b\"" PORTS "}\n", "is called '?'");
	hears("{\"error\":\"I will not\"}\n", "it refused: I will not");
	/* all in order, but it does not say that it has kept anything */
	hears(HELLO(PORTS) "{\"kept\":false}\n", "");
	memset(longest, 'x', sizeof(longest) - 1);
	hears(longest, "not of the protocol");
	meet(NULL, NULL, NULL, NULL, NULL, stops);
	CHECK(ends->r[1] == -1 && strstr(ends->why[1], "too slow"), "'%s'", ends->why[1]);
	meet(NULL, NULL, NULL, NULL, NULL, shouts);
	CHECK(ends->r[1] == -1 && strstr(ends->why[1], "does not speak TLS"), "'%s'", ends->why[1]);
}

int main(void)
{
	static const struct ktap_case cases[] = {
		{ "codes", codes },
		{ "a host's own certificate", own },
		{ "certificates of peers", peers },
		{ "a certificate is renewed", renewed },
		{ "no place to keep them", no_place },
		{ "two hosts agree", agreed },
		{ "a wrong code, a wrong name, nothing kept", refused },
		{ "who does not keep to the protocol", out_of_order },
	};
	char cmd[64];
	int r;

	signal(SIGPIPE, SIG_IGN);
	umask(022);
	ends = mmap(NULL, sizeof(*ends), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ends == MAP_FAILED || !mkdtemp(top) || mkdir(in_top("o"), 0755))
		return 1;
	r = KTAP_RUN(cases);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	if (system(cmd))
		return 1;
	return r;
}
