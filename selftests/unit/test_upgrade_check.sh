#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovm-upgrade as far as it goes without touching anything, on iovmctl and the stand-in of the kernel (iovmctl_fake.c): what it
# refuses, and that nothing is left. The rest is selftests/kernel/t_upgrade.sh.
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in
cat >"$tmp/ctl" <<END
#!/bin/bash
LD_PRELOAD="$preload" exec "$ctl" "\$@"
END
cat >"$tmp/modinfo" <<'END'
#!/bin/bash
case $2 in
vermagic) [ "$3" = "${NO_MODULE:-}" ] || echo "${KERNEL:-$(uname -r)} SMP" ;;
iovm_abi) echo "${ABI:-1}" ;;
version) echo 9.9.10 ;;
filename) echo /somewhere/iovm_mux.ko ;;
esac
END
cat >"$tmp/never" <<END
#!/bin/bash
echo "\$0 \$*" >>"$tmp/called"
exit 1
END
chmod +x "$tmp/ctl" "$tmp/modinfo" "$tmp/never"
export IOVMCTL=$tmp/ctl MODINFO=$tmp/modinfo MODPROBE=$tmp/never

# upgrade RC PATTERN ARGS...
upgrade() {
	local code=$1 pattern=$2 rc
	shift 2
	"$top/userland/iovm-upgrade/iovm-upgrade" --state "$tmp/state" "$@" >"$tmp/up" 2>&1 </dev/null
	rc=$?
	[ $rc = "$code" ] || complain "iovm-upgrade $*: exit $rc, not $code: $(cat "$tmp/up")"
	grep -Eq -- "$pattern" "$tmp/up" || complain "iovm-upgrade $*: no /$pattern/ in: $(cat "$tmp/up")"
	! grep -q 'Sanitizer\|: line [0-9]' "$tmp/up" || complain "$(cat "$tmp/up")"
	[ ! -e "$tmp/called" ] || complain "called: $(cat "$tmp/called")"
	[ ! -e "$tmp/state" ] && [ ! -e "$tmp/state.new" ] && [ ! -e "$tmp/state.check.new" ] ||
		complain "something is left: $(ls "$tmp")"
}

echo "KTAP version 1"
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 4; }
echo "1..3"

upgrade 0 "^Usage: iovm-upgrade" --help
upgrade 2 "^Usage: iovm-upgrade" --frobnicate
upgrade 2 "^Usage: iovm-upgrade" --timeout 0
upgrade 2 "^Usage: iovm-upgrade" --timeout
upgrade 2 "^Usage: iovm-upgrade" --state here
ok "its command line"

upgrade 1 "^iovm-upgrade: nothing was touched$"
for what in "loaded: 9.9.9, installed: 9.9.10 \(/somewhere/iovm_mux.ko\)" "vm1: pid 4711 \(\) has its node open, and is no iovm-vhost-user" \
	"vm-2.data: 3 writes wait for a fence"; do
	grep -Eq "^iovm-upgrade: $what" "$tmp/up" || complain "no /$what/ in: $(cat "$tmp/up")"
done
ok "devices that cannot go are named, all of them"

export IOVM_FAKE_ONLY=vm1
ABI=2 upgrade 1 "the installed modules speak ABI 2, .* the loaded ones ABI 1" --check
KERNEL=5.0 upgrade 1 "the installed module vhost_iovm_blk is for kernel 5.0" --check
NO_MODULE=iovm_mux upgrade 1 "there is no module iovm_mux to load" --check
IOVM_FAKE_OPEN=2 upgrade 1 "iovmctl: " --check
ok "modules that do not fit are refused while the others are loaded"

conclude
