// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The key of a migration's stream. See stream_key.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stream_key.h"

#define KEYS		"keys.psk"	/* QEMU's names for them */
#define DH_PARAMS	"dh-params.pem"
#define USER		"qemu"		/* what QEMU looks for in the first */

int stream_key_new(char key[STREAM_KEY])
{
	unsigned char raw[(STREAM_KEY - 1) / 2];
	size_t i;

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return -1;
	for (i = 0; i < sizeof(raw); i++)
		sprintf(key + 2 * i, "%02x", raw[i]);
	explicit_bzero(raw, sizeof(raw));
	return 0;
}

bool stream_key_good(const char *key)
{
	return key && strlen(key) == STREAM_KEY - 1 && strspn(key, "0123456789abcdef") == STREAM_KEY - 1;
}

void stream_key_drop(const char *dir)
{
	static const char *const names[] = { KEYS, DH_PARAMS };
	char file[256];
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(file, sizeof(file), "%s/%s", dir, names[i]);
		unlink(file);
	}
	rmdir(dir);
}

/* Readable by one user alone, before there is anything in it */
static int write_file(const char *dir, const char *name, const void *data, size_t len, const struct ucred *user)
{
	char file[256];
	int fd, err = 0;

	snprintf(file, sizeof(file), "%s/%s", dir, name);
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return errno;
	if (fchown(fd, user->uid, user->gid))
		err = errno;
	else if (write(fd, data, len) != (ssize_t)len)
		err = ENOSPC;
	close(fd);
	return err;
}

/* A QEMU that listens makes Diffie-Hellman parameters if it finds none, which takes it seconds, and TLS 1.3 has no use for them. */
static int write_dh_params(const char *dir, const struct ucred *user)
{
	gnutls_datum_t pem = { NULL, 0 };
	gnutls_dh_params_t p;
	int err = ENOMEM;

	if (gnutls_dh_params_init(&p))
		return err;
	if (!gnutls_dh_params_import_raw2(p, &gnutls_ffdhe_2048_group_prime, &gnutls_ffdhe_2048_group_generator, gnutls_ffdhe_2048_key_bits) &&
	    !gnutls_dh_params_export2_pkcs3(p, GNUTLS_X509_FMT_PEM, &pem))
		err = write_file(dir, DH_PARAMS, pem.data, pem.size, user);
	gnutls_free(pem.data);
	gnutls_dh_params_deinit(p);
	return err;
}

static int write_files(const char *dir, const char *key, bool listens, const struct ucred *user)
{
	char line[sizeof(USER) + STREAM_KEY + 2];
	int len, err;

	stream_key_drop(dir);
	if (mkdir(dir, 0700) || lchown(dir, user->uid, user->gid))
		return errno;
	len = snprintf(line, sizeof(line), USER ":%s\n", key);
	err = write_file(dir, KEYS, line, (size_t)len, user);
	explicit_bzero(line, sizeof(line));
	return err ?: listens ? write_dh_params(dir, user) : 0;
}

int stream_key_give(struct qmp *q, unsigned int ms, const char *dir, const char *key, bool listens, char *why, size_t n)
{
	char last[QMP_WHY];
	struct ucred user;
	socklen_t len = sizeof(user);
	struct json *j;
	int err;

	if (getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &user, &len))
		return qmp_why(why, n, "as which user does QEMU run? %s", strerror(errno));
	err = write_files(dir, key, listens, &user);
	if (err) {
		stream_key_drop(dir);
		return qmp_why(why, n, "cannot write the key of the migration to '%s': %s", dir, strerror(err));
	}
	/* that of an earlier migration, if any */
	json_str(qmp_command(q, "object-del"), "id", STREAM_KEY_ID);
	qmp_run(q, ms, NULL, last, sizeof(last));
	j = qmp_command(q, "object-add");
	json_str(j, "qom-type", "tls-creds-psk");
	json_str(j, "id", STREAM_KEY_ID);
	json_str(j, "endpoint", listens ? "server" : "client");
	json_str(j, "dir", dir);
	err = qmp_run(q, ms, NULL, last, sizeof(last)) ? -1 : 0;
	if (err || !listens)
		stream_key_drop(dir);
	if (err)
		qmp_why(why, n, "QEMU does not take the key of the migration: %s", last);
	return err;
}
