# SPDX-License-Identifier: GPL-2.0-or-later
#
#   make                 the modules for KDIR's kernel, and user land
#   make modules         the modules alone; ONLY="vhost_iovm iovm_mux" for some
#   make userland        user land alone
#   make W=1             with kbuild's extra warnings (all warnings are errors)
#   make sparse          the modules, checked by sparse
#   make lint            checkpatch, W=1 and sparse on all kernels, shellcheck, ...
#   make check           sets the machine up and runs all tests (.ci/run), JOBS=2 groups at once
#   make check-debug     the kselftests on a KASAN, lockdep and kmemleak kernel
#   make check-race      the kselftests on a KCSAN kernel
#   make fuzz            the fuzzers for FUZZ_SECONDS each (3600)
#   make torture         the fault campaign: FAULTS=100000 or SECONDS=, SEED=, KERNEL=6.12
#   make demo            a guest's disk is pulled; the guest goes on, and is migrated
#   make bench           measurements beside other back ends
#   make install         modules, user land, units, udev rule, man pages
#   make uninstall       takes these away again
#   make dkms-install    the modules by way of dkms, for this kernel or KVER=
#   make dkms-uninstall
#
#   KDIR=DIR      the kernel to build for: a build directory (default: the running
#                 kernel's, else the one that setup.sh unpacked), or 6.1, 6.12,
#                 debug or kcsan for one that setup.sh unpacked or built
#   DESTDIR=, PREFIX=/usr/local, INSTALL_MOD_DIR=updates/vhost-iovm
#
# The modules are built in build/mod/KERNEL, one copy of the tree a kernel.

MAKEFLAGS += --no-print-directory
top := $(CURDIR)
VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
PREFIX ?= /usr/local
INSTALL_MOD_DIR ?= updates/vhost-iovm
FUZZ_SECONDS ?= 3600
JOBS ?= 2
export PREFIX DESTDIR VERSION

ifeq ($(origin KDIR),undefined)
KDIR := $(firstword $(wildcard /lib/modules/$(shell uname -r)/build \
	$(top)/build/kernels/6.12/kdir))
else ifneq ($(wildcard build/kernels/$(KDIR)/release),)
override KDIR := $(top)/build/kernels/$(KDIR)/kdir
endif

# A name for what is built with this KDIR (and these flags).
kname := $(shell echo '$(KDIR)' | sed -nE \
	-e 's:^$(top)/build/kernels/([^/]+)/.*:\1:p;t' -e 's:.*/lib/modules/([^/]+)/build/?$$:\1:p;t' \
	-e 's:^/::;s:[^A-Za-z0-9._+-]+:-:gp')$(if $(W),-W$(W))
mdir := $(top)/build/mod/$(kname)
kbuild = $(MAKE) -C $(KDIR) M=$(mdir)/src
# What Debian overrides in some kernels, so that kernelrelease does not say it.
release = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)"/\1/p' $(KDIR)/include/generated/utsrelease.h)

.PHONY: all modules userland sparse lint check check-debug check-race fuzz demo bench setup \
	install modules-install uninstall modules-uninstall dkms-source dkms-install dkms-uninstall \
	clean distclean kdir torture

all: modules userland

kdir:
	@test -n '$(KDIR)' -a -e '$(KDIR)/Makefile' || { \
	echo 'No kernel headers in $(or $(KDIR),/lib/modules/$(shell uname -r)/build).' \
	'Install linux-headers-$$(uname -r), or give KDIR=, or run' \
	'"selftests/env/setup.sh kernels" for KDIR=6.1 and KDIR=6.12.' >&2; exit 2; }

modules: kdir
	@selftests/env/build-modules '$(KDIR)' '$(mdir)' $(ONLY)

sparse: kdir
	@selftests/env/build-modules --sparse '$(KDIR)' '$(mdir)' $(ONLY)

userland:
	$(MAKE) -C userland

setup:
	selftests/env/setup.sh

lint:
	selftests/env/setup.sh packages kernels source
	selftests/run lint

check:
	selftests/env/setup.sh all kernel-storage
	selftests/run -j $(JOBS)

check-debug:
	selftests/env/setup.sh all debug
	selftests/run debug

check-race:
	selftests/env/setup.sh all kcsan
	selftests/run kcsan

fuzz:
	$(MAKE) -C selftests/fuzz fuzz FUZZ_SECONDS=$(FUZZ_SECONDS)

torture:
	selftests/env/setup.sh packages kernels vng
	selftests/torture/run $(if $(FAULTS),--faults $(FAULTS)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(KERNEL),--kernel $(KERNEL))

demo:
	selftests/env/setup.sh
	selftests/e2e/demo

bench:
	selftests/env/setup.sh
	$(MAKE) -C bench

install: modules-install
	$(MAKE) -C userland install

# The kernel's own depmod wants a System.map, and its signing a key, which the
# headers do not bring.
modules-install: modules
	$(kbuild) modules_install INSTALL_MOD_DIR='$(INSTALL_MOD_DIR)' CONFIG_MODULE_SIG_ALL= \
		DEPMOD=true $(if $(DESTDIR),INSTALL_MOD_PATH='$(DESTDIR)')
	$(if $(DESTDIR),,depmod '$(release)')

uninstall: modules-uninstall
	$(MAKE) -C userland uninstall

modules-uninstall: kdir
	@test -n '$(release)'
	rm -rf '$(DESTDIR)/lib/modules/$(release)/$(INSTALL_MOD_DIR)'
	$(if $(DESTDIR),,depmod '$(release)')

dkms_src = $(DESTDIR)/usr/src/vhost-iovm-$(VERSION)
dkms = dkms $(1) -m vhost-iovm -v $(VERSION)

# The sources alone, where dkms looks for them.
dkms-source:
	rm -rf '$(dkms_src)'
	mkdir -p '$(dkms_src)'
	cp -r Kbuild dkms.conf compat uapi vhost_iovm iovm_mux vhost_iovm_blk vhost_iovm_net '$(dkms_src)'

dkms-install: dkms-source
	$(call dkms,add)
	$(call dkms,build) $(addprefix -k ,$(KVER))
	$(call dkms,install) $(addprefix -k ,$(KVER))

dkms-uninstall:
	$(call dkms,remove) --all
	rm -rf '$(dkms_src)'

# Leaves the kernels and other trees that setup.sh made.
clean:
	rm -rf build/mod build/userland build/selftests
	$(MAKE) -C userland clean

distclean: clean
	rm -rf build
