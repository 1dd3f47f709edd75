/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The whole of iovm-vhost-user, for tests that start it as a process: after vu_fake.h, its main() as vu_main(), on the
 * node in user space.
 */
#ifndef VU_PROGRAM_H
#define VU_PROGRAM_H

#define close(fd)	fake_close(fd)
#define open(...)	fake_open(__VA_ARGS__)
#include "../../userland/iovm-vhost-user/listen.c"
#include "../../userland/iovm-vhost-user/super.c"
#define main(...)	vu_main(__VA_ARGS__)
#include "../../userland/iovm-vhost-user/main.c"
#undef main
#undef close
#undef open

#endif
