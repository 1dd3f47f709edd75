#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovm-libvirt on libvirt's test driver, which is part of its library: what it says when nothing can be begun, when libvirt refuses, and
# where the guest is afterwards. Migrations themselves: selftests/e2e/test_libvirt.
#
# Writes KTAP.

# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
top=$(cd "$(dirname "$0")/../.." && pwd)
OUT=${OUT:-$top/build/unit}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
make -s -C "$top/userland/iovm-libvirt" SAN=1 O="$OUT/iovm-libvirt" >"$tmp/build" 2>&1 ||
	{ sed 's/^/# /' "$tmp/build"; echo "Bail out! iovm-libvirt does not build"; exit 1; }
ctl=$OUT/iovm-libvirt/iovm-libvirt-san
# libvirt keeps what it has allocated for good
export ASAN_OPTIONS=detect_leaks=0

# A host with a guest 'vm1' that runs, one that is off, and one without
node() { # FILE DOMAIN...
	local file=$tmp/$1 d
	shift
	{
		echo "<node>"
		for d; do
			echo "<domain type='test'><name>${d%:*}</name><memory>1024</memory><os><type>hvm</type></os></domain>" >"$tmp/${d%:*}.xml"
			sed "s|<domain type='test'>|<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>|
				s|</domain>|<test:runstate>${d#*:}</test:runstate></domain>|" "$tmp/${d%:*}.xml"
		done
		echo "</node>"
	} >"$file"
}
node a.xml vm1:1 off:5 held:3
node b.xml other:1

echo "KTAP version 1"
echo "1..6"

# The last line is the outcome, and why.
outcome() { # OUTCOME PATTERN ARGS...
	local want=$1 why=$2
	shift 2
	run "$@"
	[ "$rc" = 0 ] && [[ $(tail -n 1 "$tmp/out") == '{"outcome":"'"$want"'","why":"'$why'"}' ]] || complain "$*: $rc: $out $err"
}
here="--connect test://$tmp/a.xml"
there="--to test://$tmp/b.xml"

# shellcheck disable=SC2086 # these are words
{
outcome refused "libvirt has no domain 'vm2' here: *" migrate $here $there --domain vm2
outcome refused "'off' does not run here, says libvirt" migrate $here $there --domain off
outcome refused "'held' does not run here, says libvirt" migrate $here $there --domain held
outcome refused "a guest 'vm1' runs there already" migrate $here --to "test://$tmp/a.xml" --domain vm1
outcome refused "libvirt at 'test:///nowhere' cannot be reached: *" migrate --connect test:///nowhere $there --domain vm1
outcome refused "libvirt at 'test:///nowhere' cannot be reached: *" migrate $here --to test:///nowhere --domain vm1
ok "nothing is begun, and it says why"

outcome rolled-back "*p2p migration is not supported*" migrate $here $there --domain vm1
[[ $out == *'{"phase":"libvirt migrates"}'* ]] || complain "$out"
ok "libvirt refuses: the guest runs here, and why"

outcome rolled-back "no migration is under way" settle $here $there --domain vm1
outcome migrated "" settle $here $there --domain other
outcome lost "it runs on neither host" settle $here $there --domain off
ok "settle: here, there, nowhere"

run migrate
[ $rc = 2 ] || complain "$rc"
run frobnicate --domain vm1 $there
[ $rc = 2 ] || complain "$rc"
run migrate --domain vm1 $there --channels 256
[ $rc = 2 ] && [[ $err == *"--channels: '256' is not from 1 to 255"* ]] || complain "$rc: $err"
run migrate --domain vm1 $there --bandwidth lots
[ $rc = 2 ] && [[ $err == *"--bandwidth: 'lots' "* ]] || complain "$rc: $err"
run --help
[ $rc = 0 ] && [[ $out == usage:* ]] || complain "$rc: $out"
ok "the command line"

# Nobody reads what it says: as when iovmd has ended.
printf 'cancel\nhold\ngo\nnonsense\n%0100d\n' 0 | "$ctl" settle $here $there --domain vm1 >"$tmp/out" 2>"$tmp/err" || complain "$(cat "$tmp/err")"
grep -q rolled-back "$tmp/out" || complain "$(cat "$tmp/out")"
( "$ctl" settle $here $there --domain vm1 2>"$tmp/err"; echo $? >"$tmp/rc" ) | :
[ "$(cat "$tmp/rc")" = 0 ] || complain "$(cat "$tmp/rc" "$tmp/err")"
ok "words on stdin, nobody at stdout"

# A guest that is stopped here, and not there: asked again for a while, then for a person to look at.
run settle $here $there --domain held
[[ $(tail -n 1 "$tmp/out") == '{"outcome":"unclear","why":"it is paused here and not there, and runs on neither host'* ]] || complain "$rc: $out"
ok "stopped on both: somebody has to look"
}
conclude
