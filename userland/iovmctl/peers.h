/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands about peers share: iovmd's configuration, the certificates, telling iovmd.
 */
#ifndef IOVMCTL_PEERS_H
#define IOVMCTL_PEERS_H

#include "agent.h"
#include "../common/tls_cert.h"
#include "../iovmd/config.h"

extern const char *peers_config, *peers_dir;	/* --config, --dir */

#define OPT_PEERS_CONFIG									\
	{ "config", 'c', OPT_STR, &peers_config, "FILE", "iovmd's configuration. Default\n" CONFIG_FILE ".", 0, 0 },	\
	{ "dir", 'd', OPT_STR, &peers_dir, "DIR", "Its *.conf are read too, by name; \"\": none. Default\n" CONFIG_DIR ".", 0, 0 }

/* What can be understood of the configuration; mistakes are warned of. NULL: an exit code in *code, explained. */
struct config *peers_read_config(int *code);
/* Has iovmd connect to a peer anew, by what is known of it now. */
enum peers_told { TOLD, TOLD_RESTART, TOLD_NOT_RUNNING };
enum peers_told peers_tell(const char *name, bool forgotten);
extern const char *const peers_told_names[];

/* "sha256:..., valid until 2036-11-27" */
void peers_cert_text(const struct tls_cert *c, char *buf, size_t n);
void peers_cert_json(struct json *j, const char *key, const struct tls_cert *c);

#endif
