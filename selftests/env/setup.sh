#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sets a Debian machine up to build and test vhost-iovm.
#
#   selftests/env/setup.sh [component...]
#
#   packages     Debian packages needed to build and test (apt-get, as root or by sudo)
#   kernel-6.1   Debian's 6.1 kernel and headers in build/kernels/6.1
#   kernel-6.12  Debian's 6.12 kernel and headers in build/kernels/6.12
#   kernel-storage  the newest kernel for Debian 13, of its backports, in build/kernels/storage
#   vng          virtme-ng in build/vng
#   source       Debian's linux-source-6.12 in build/src (checkpatch, debug kernel)
#   qemu10       a Debian 13 tree with QEMU 10 in build/trixie
#   peers        Debian 13's tlshd and nbd-client in build/peers, which bench/remote compares with
#   libvirt      this release's libvirt daemon and AppArmor in build/libvirt, for virtual hosts
#   debug        a KASAN, lockdep, kmemleak kernel in build/kernels/debug (long)
#   kcsan        a KCSAN kernel in build/kernels/kcsan (long)
#   all          everything but kernel-storage, peers, debug and kcsan; the default
#
# Only "packages" changes the machine. The rest comes from a private apt root
# (own sources and lists, the machine's mirror and keyring) and is unpacked,
# never installed. What is there already is not touched: delete build/ or one
# of the directories above to have it again, with the newest version.
set -eu -o pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
build=$top/build

PACKAGES=(
	# building
	build-essential gcc-12 bc bison flex cpio kmod libdw-dev libelf-dev
	libssl-dev pahole pkg-config python3 rsync xz-utils zstd
	# checking
	clang libclang-rt-dev shellcheck sparse
	# user land
	libcap-dev libgnutls28-dev liburing-dev libmnl-dev libnbd-dev libnbd-bin libsystemd-dev libvirt-dev openssl
	# kernels in virtual machines
	busybox-static file grub-common grub-pc-bin mmdebstrap python3-argcomplete python3-pkg-resources
	qemu-block-extra qemu-system-x86 qemu-utils
	# tools used inside them
	debootstrap dkms dmsetup e2fsprogs fdisk fio iperf3 iproute2 iputils-ping jq
	nbd-client nbd-server nbdkit open-iscsi procps socat strace systemd udev util-linux xfsprogs
)

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }

# As root.
asroot() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -n "$@"
	else
		die "not root and no sudo: cannot run $*"
	fi
}

setup_packages() {
	local p missing=() have
	have=$(dpkg-query -W -f '${db:Status-Abbrev}${Package}\n' "${PACKAGES[@]}" 2>/dev/null | sed -n 's/^ii *//p') || true
	for p in "${PACKAGES[@]}"; do
		grep -qxF "$p" <<<"$have" || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	say "installing ${missing[*]}"
	# The NBD servers are tools here: do not start any as a service.
	asroot env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 sh -c '
		apt-get -q update &&
		apt-get -q -y --no-install-recommends install "$@"' sh "${missing[@]}" ||
		die "apt-get could not install: ${missing[*]}"
}

# apt_root SUITE: sets APT to the options of a private apt root for a suite
# and its security suite.
apt_root() {
	local suite=$1 root=$build/apt/$1 keyring main security
	APT=(-q -o "Dir::State=$root" -o "Dir::State::Lists=$root/lists"
		-o "Dir::State::status=$root/status" -o "Dir::Cache=$root/cache"
		-o "Dir::Etc::sourcelist=$root/sources.list"
		-o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
		-o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root
		-o Dir::State::extended_states=/dev/null -o Acquire::Retries=3
		-o Acquire::Languages=none -o APT::Get::List-Cleanup=0)
	[ ! -e "$root/ready" ] || return 0

	for keyring in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		[ ! -e "$keyring" ] || break
	done
	[ -e "$keyring" ] || die "no Debian archive keyring"
	# The mirrors that this machine uses.
	# shellcheck disable=SC2016 # apt expands these
	main=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
		awk '($2 == "Debian" || /debian/) && $NF !~ /security|backports|updates/ && !n++ { print $1 }') || true
	# shellcheck disable=SC2016
	security=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
		awk '$NF ~ /-security$/ && !n++ { print $1 }') || true
	: "${main:=http://deb.debian.org/debian}"
	: "${security:=http://deb.debian.org/debian-security}"
	mkdir -p "$root/lists/partial" "$root/cache/archives/partial"
	: >"$root/status"
	echo "deb [signed-by=$keyring] $main $suite main" >"$root/sources.list"
	case $suite in
	*-backports) ;;
	*) echo "deb [signed-by=$keyring] $security $suite-security main" >>"$root/sources.list" ;;
	esac
	apt-get "${APT[@]}" update >"$root/update.log" 2>&1 ||
		{ cat "$root/update.log" >&2; die "apt-get update failed for $suite"; }
	touch "$root/ready"
}

# The one package that a metapackage depends on and that matches a pattern.
apt_dep() { # METAPACKAGE PATTERN
	apt-cache "${APT[@]}" depends --no-recommends --no-suggests "$1" |
		awk -v p="$2" '$1 ~ /Depends:$/ && $2 ~ p && !n++ { print $2 }'
}

# apt_unpack DIR PACKAGE...: downloads packages and unpacks them into DIR.
apt_unpack() {
	local dir=$1 debs deb
	shift
	debs=$build/apt/debs.$$
	rm -rf "$debs"
	mkdir -p "$debs" "$dir"
	(cd "$debs" && apt-get "${APT[@]}" download "$@") >"$debs.log" 2>&1 || {
		# The lists are older than the archive.
		apt-get "${APT[@]}" update >/dev/null 2>&1 || true
		(cd "$debs" && apt-get "${APT[@]}" download "$@") >"$debs.log" 2>&1 ||
			{ cat "$debs.log" >&2; die "cannot download $*"; }
	}
	for deb in "$debs"/*.deb; do
		dpkg-deb -x "$deb" "$dir"
	done
	rm -rf "$debs" "$debs.log"
}

# Makes a kernel's packages, unpacked, what the tests look for: vmlinuz, modules, release.
kernel_tree() { # DIR RELEASE
	local dir=$1 rel=$2
	# Debian 13 packages have it there.
	if [ ! -d "$dir/lib/modules/$rel" ]; then
		mkdir -p "$dir/lib"
		ln -s ../usr/lib/modules "$dir/lib/modules"
	fi
	# in later packages it is beside the modules
	if [ -e "$dir/boot/vmlinuz-$rel" ]; then
		ln -s "boot/vmlinuz-$rel" "$dir/vmlinuz"
	else
		ln -s "lib/modules/$rel/vmlinuz" "$dir/vmlinuz"
	fi
	ln -s "lib/modules/$rel" "$dir/modules"
	rm -rf "${dir:?}/usr/share"
	depmod -b "$dir" "$rel"
	echo "$rel" >"$dir/release"
}

setup_kernel() { # VERSION
	local v=$1 dir=$build/kernels/$1 new meta image headers common kbuild rel
	[ ! -e "$dir/release" ] || return 0
	say "kernel $v"
	apt_root bookworm
	if [ "$v" = 6.1 ]; then meta=amd64; else meta=$v-amd64; fi
	image=$(apt_dep "linux-image-$meta" '^linux-image-[0-9]')
	headers=$(apt_dep "linux-headers-$meta" '^linux-headers-[0-9]')
	if [ -z "$image" ] || [ -z "$headers" ]; then
		die "no kernel $v in the archive"
	fi
	common=$(apt_dep "$headers" '^linux-headers-.*-common$')
	kbuild=$(apt_dep "$headers" '^linux-kbuild-')
	new=$dir.new
	rm -rf "$new" "$dir"
	apt_unpack "$new" "$image" "$headers" "$common" "$kbuild"
	rel=${image#linux-image-}
	kernel_tree "$new" "$rel"
	# The headers name each other by absolute paths.
	sed -i "s:/usr/src/:$dir/usr/src/:" "$new/usr/src/$headers/Makefile"
	ln -sfn "../../../usr/src/$headers" "$new/lib/modules/$rel/build"
	ln -sfn "../../../usr/src/$common" "$new/lib/modules/$rel/source"
	ln -s "usr/src/$headers" "$new/kdir"
	ln -s "boot/config-$rel" "$new/config"
	mv "$new" "$dir"
}

# A later kernel, to boot: for a storage host whose NVMe target knows reservations. Nothing is built for it.
setup_storage_kernel() {
	local dir=$build/kernels/storage new=$build/kernels/storage.new image rel
	[ ! -e "$dir/release" ] || return 0
	say "the newest kernel for Debian 13"
	apt_root trixie-backports
	image=$(apt_dep linux-image-amd64 '^linux-image-[0-9]')
	[ -n "$image" ] || die "no kernel in trixie-backports"
	rel=${image#linux-image-}
	rm -rf "$new" "$dir"
	# in one package, or in several
	# shellcheck disable=SC2046
	apt_unpack "$new" "$image" $(for p in base binary modules; do apt_dep "$image" "^linux-$p-"; done)
	kernel_tree "$new" "$rel"
	mv "$new" "$dir"
}

setup_vng() {
	[ ! -e "$build/vng/ready" ] || return 0
	say "virtme-ng"
	apt_root trixie
	rm -rf "$build/vng"
	apt_unpack "$build/vng" virtme-ng
	touch "$build/vng/ready"
}

setup_source() {
	local new=$build/src.new
	[ ! -e "$build/src/ready" ] || return 0
	say "linux-source-6.12"
	apt_root bookworm
	rm -rf "$new" "$build/src"
	apt_unpack "$new" linux-source-6.12
	tar -C "$new" -xJf "$new"/usr/src/linux-source-6.12.tar.xz
	mv "$new/linux-source-6.12" "$new/linux"
	rm -rf "${new:?}/usr"
	touch "$new/ready"
	mv "$new" "$build/src"
}

# Packages of Debian 13 with every library of theirs, for programs that are run by that release's loader.
trixie_tree() { # DIR PACKAGE...
	local new=$1 packages
	shift
	apt_root trixie
	# Nothing is installed in the private root: all dependencies are listed.
	packages=$(apt-get "${APT[@]}" -s --no-install-recommends install "$@" | awk '$1 == "Inst" { print $2 }')
	[ -n "$packages" ] || die "trixie lacks one of: $*"
	rm -rf "$new"
	# Debian 13 has its libraries in /usr/lib alone.
	mkdir -p "$new/usr/lib" "$new/usr/lib64" "$new/bin"
	ln -s usr/lib "$new/lib"
	ln -s usr/lib64 "$new/lib64"
	# shellcheck disable=SC2086
	apt_unpack "$new" $packages
	rm -rf "${new:?}"/usr/share/{doc,man,locale,info,lintian}
}

setup_qemu10() {
	local dir=$build/trixie new=$build/trixie.new prog name
	[ ! -e "$dir/ready" ] || return 0
	say "QEMU 10"
	trixie_tree "$new" qemu-system-x86 qemu-utils
	rm -rf "$dir"
	for prog in "$new"/usr/bin/qemu-*; do
		name=${prog##*/}
		cat >"$new/bin/$name" <<-END
			#!/bin/sh
			# $name of Debian 13
			d=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
			export QEMU_MODULE_DIR="\$d/usr/lib/x86_64-linux-gnu/qemu"
			exec "\$d/usr/lib64/ld-linux-x86-64.so.2" --argv0 "\$d/bin/$name" \\
				--library-path "\$d/usr/lib/x86_64-linux-gnu" "\$d/usr/bin/$name" \\
		END
		# shellcheck disable=SC2016 # expanded when it runs
		case $name in
		qemu-system-*) echo '	-L "$d/usr/share/qemu" -L "$d/usr/share/seabios" "$@"' ;;
		*) echo '	"$@"' ;;
		esac >>"$new/bin/$name"
		chmod +x "$new/bin/$name"
	done
	"$new/bin/qemu-system-x86_64" --version >/dev/null || die "QEMU 10 does not run"
	touch "$new/ready"
	mv "$new" "$dir"
}

setup_peers() {
	local dir=$build/peers new=$build/peers.new name
	[ ! -e "$dir/ready" ] || return 0
	say "tlshd and nbd-client of Debian 13"
	trixie_tree "$new" ktls-utils nbd-client
	rm -rf "$dir"
	for name in tlshd nbd-client; do
		cat >"$new/bin/$name" <<-END
			#!/bin/sh
			# $name of Debian 13
			d=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
			exec "\$d/usr/lib64/ld-linux-x86-64.so.2" --library-path "\$d/usr/lib/x86_64-linux-gnu" "\$d/usr/sbin/$name" "\$@"
		END
		chmod +x "$new/bin/$name"
	done
	touch "$new/ready"
	mv "$new" "$dir"
}

# What this machine lacks of libvirt's daemon and AppArmor, for virtual hosts that have its tree as their root: they get it on top.
setup_libvirt() {
	local new=$build/libvirt.new suite dir packages
	[ ! -e "$build/libvirt/ready" ] || return 0
	say "libvirt for virtual hosts"
	suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	apt_root "$suite"
	APT+=(-o Dir::State::status=/var/lib/dpkg/status)
	packages=$(apt-get "${APT[@]}" -s --no-install-recommends install \
		libvirt-daemon-system libvirt-clients apparmor | awk '$1 == "Inst" { print $2 }')
	rm -rf "$new" "$build/libvirt"
	# Installed all of it already: nothing lacks.
	mkdir -p "$new/usr"
	# shellcheck disable=SC2086
	[ -z "$packages" ] || apt_unpack "$new" $packages
	# As the machine's own tree is, where these are links.
	for dir in bin sbin lib lib64; do
		[ -d "$new/$dir" ] || continue
		cp -a "$new/$dir" "$new/usr/"
		rm -rf "${new:?}/$dir"
	done
	rm -rf "${new:?}"/usr/share/{doc,man,locale,info,lintian}
	touch "$new/ready"
	mv "$new" "$build/libvirt"
}

setup_debug() { # debug or kcsan
	setup_source
	"$here/debug-kernel.sh" "$1"
}

[ $# -gt 0 ] || set -- all
mkdir -p "$build"
# One at a time: several tests may be started together.
exec 9>"$build/.setup.lock"
flock 9
for component; do
	case $component in
	packages) setup_packages ;;
	kernel-6.1 | kernel-6.12) setup_kernel "${component#kernel-}" ;;
	kernels) setup_kernel 6.1; setup_kernel 6.12 ;;
	kernel-storage) setup_storage_kernel ;;
	vng | source | qemu10 | peers | libvirt) "setup_$component" ;;
	debug | kcsan) setup_debug "$component" ;;
	all)
		setup_packages
		setup_kernel 6.1
		setup_kernel 6.12
		setup_vng
		setup_source
		setup_qemu10
		setup_libvirt
		;;
	*) die "no component $component (see the top of $0)" ;;
	esac
done
