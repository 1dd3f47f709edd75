#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl peers, peers enrol and peers forget, under ASan, without iovmd: two hosts are two directories, on two addresses of the
# loopback. What is said between them is test_enrol's; with iovmd: t_iovmd_tls.sh.
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C
umask 022
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in
export IOVM_FAKE_LOG=$tmp/log
: >"$tmp/log"
port=$((20000 + RANDOM % 20000))

echo "KTAP version 1"
echo "1..6"

host() { # NAME LINES...: a host with this configuration
	local name=$1
	shift
	mkdir -p "$tmp/$name"
	printf '%s\n' '[host]' "name = $name" "tls-dir = $tmp/$name/tls" "$@" >"$tmp/$name/iovmd.conf"
}

of() { # HOST: its options
	echo "--config $tmp/$1/iovmd.conf --dir $tmp/$1/conf.d --socket $tmp/$1/none"
}

waits() { # HOST ARGS...: peers enrol there, until it shows its code; sets $code and $first
	local name=$1 i
	shift
	rm -f "$tmp/first"
	# shellcheck disable=SC2046
	LD_PRELOAD=$preload "$ctl" peers enrol "$@" $(of "$name") --port $port --json >"$tmp/first" 2>"$tmp/first.err" </dev/null &
	first=$!
	bg+=("$first")
	for ((i = 0; i < 100; i++)); do
		code=$(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' "$tmp/first" 2>/dev/null)
		[ -z "$code" ] || return
		sleep 0.1
	done
	complain "it shows no code: $(cat "$tmp/first" "$tmp/first.err")"
}

first_ends() { # RC
	local got=0
	wait "$first" || got=$?
	[ $got = "$1" ] || complain "the first: exit $got, not $1: $(cat "$tmp/first" "$tmp/first.err")"
	! grep -q 'Sanitizer\|runtime error' "$tmp/first.err" || complain "sanitizer: $(cat "$tmp/first.err")"
}

# shellcheck disable=SC2046
on() { # HOST RC PATTERN ARGS...: with its options
	local name=$1 rc_=$2 pattern=$3
	shift 3
	exits "$rc_" "$@" $(of "$name")
	says "$pattern" "$out"$'\n'"$err" "$@"
}

host a 'listen = 127.0.0.1' 'data-port = 4000'
host b
on a 2 "peer 'x/y' is not a name" peers enrol x/y
on a 2 "'a' is this host" peers enrol a
on a 2 '--code goes with --at' peers enrol b --code 00000-00000-00000-00000
on a 2 'the code has 3 characters of 20' peers enrol b --at 127.0.0.1 --code 123
on a 2 'the code has a character that no code has' peers enrol b --at 127.0.0.1 --code '!'
on a 2 '--at and --listen' peers enrol b --at 127.0.0.1 --listen 127.0.0.1
on a 2 "'a b'" peers enrol b --at 'a b'
on a 1 "cannot connect to '127.0.0.1', port $port" peers enrol b --at 127.0.0.1 --code 00000-00000-00000-00000 --port $port
on a 1 "'b' did not come" peers enrol b --port $port --timeout 300ms
ok "what cannot be"

rm -rf "$tmp/a/tls"
on b 0 "none yet: 'iovmctl peers enrol' makes it" peers
waits a b
on b 4 'it has another code' peers enrol a --at 127.0.0.1 --port $port --code 00000-00000-00000-00000
says "made '.*/b/tls/host.crt'" "$out" peers enrol
on b 0 'is known from now on' peers enrol a --at 127.0.0.1 --port $port --code "$code"
first_ends 0
says 'peer-a.conf: written, with address = 127.0.0.1' "$out" peers enrol
grep -qx 'data-port = 4000' "$tmp/b/conf.d/peer-a.conf" || complain "$(cat "$tmp/b/conf.d/peer-a.conf")"
[ "$(grep -c . "$tmp/a/conf.d/peer-b.conf")" = 3 ] || complain "$(cat "$tmp/a/conf.d/peer-b.conf")"
grep -qx 'address = 127.0.0.1' "$tmp/a/conf.d/peer-b.conf" || complain "$(cat "$tmp/a/conf.d/peer-b.conf")"
cmp "$tmp/a/tls/host.crt" "$tmp/b/tls/peers/a.crt" || complain "a's certificate"
cmp "$tmp/b/tls/host.crt" "$tmp/a/tls/peers/b.crt" || complain "b's certificate"
[ "$(stat -c %a "$tmp"/*/tls/host.key | sort -u)" = 600 ] || complain "modes"
grep -q '"iovmd":"not-running"' "$tmp/first" || complain "$(cat "$tmp/first")"
exits 0 config check "$tmp/a/iovmd.conf" --dir "$tmp/a/conf.d"
exits 0 config check "$tmp/b/iovmd.conf" --dir "$tmp/b/conf.d"
ok "two hosts without any configuration of each other"

old=$(cat "$tmp/b/tls/host.crt")
rm "$tmp/b/tls/host.crt" "$tmp/b/tls/host.key"
sed -i 's/address = .*/address = 127.0.0.9/' "$tmp/a/conf.d/peer-b.conf"
waits a b
echo " ${code,,} " >"$tmp/typed"
# shellcheck disable=SC2046
LD_PRELOAD=$preload "$ctl" peers enrol a --at 127.0.0.1 --port $port $(of b) <"$tmp/typed" >"$tmp/second" 2>&1 ||
	complain "typed: $(cat "$tmp/second")"
first_ends 0
[ "$old" != "$(cat "$tmp/b/tls/host.crt")" ] || complain "b has its old certificate"
cmp "$tmp/b/tls/host.crt" "$tmp/a/tls/peers/b.crt" || complain "a knows b by another one"
grep -q "has the address '127.0.0.9', and 'b' is at '127.0.0.1' now" "$tmp/first.err" || complain "$(cat "$tmp/first.err")"
grep -qx 'address = 127.0.0.9' "$tmp/a/conf.d/peer-b.conf" || complain "what the operator wrote was changed"
ok "a host that has a new certificate; the code is typed"

# shellcheck disable=SC2046
json 'd["host"] == "a" and d["transport"] == "tls" and d["certificate"]["trouble"] is None and d["peers"][0]["name"] == "b" and
	d["peers"][0]["connected"] is None and d["peers"][0]["certificate"]["name"] == "b" and d["peers"][0]["configured"]' peers $(of a)
cp "$tmp/a/tls/peers/b.crt" "$tmp/a/tls/peers/left.crt"
echo junk >"$tmp/a/tls/peers/junk.crt"
on a 0 'left +there is no \[peer\] of this name' peers
says "'.*/junk.crt' holds no certificate in PEM" "$out" peers
rm "$tmp/a/tls/peers/junk.crt"
on a 0 '^b: is not known any more' peers forget b
says 'peer b\] is still there, .*/peer-b.conf:2' "$out" peers forget
on a 3 "there is no '.*/tls/peers/b.crt'" peers forget b
on a 2 "peer '../host' is not a name" peers forget ../host
on a 0 "no certificate: 'iovmctl peers enrol b'" peers
ok "peers, peers forget"

# a configuration that is not ready is no obstacle, and says so
host a 'listen = 127.0.0.1' '[device d]' 'disk = /dev/x' 'peers = b'
rm -r "$tmp/a/conf.d" "$tmp/b/conf.d"
waits a b
grep -q "iovmd.conf:[0-9]*: 'peers': there is no peer 'b'" "$tmp/first.err" || complain "$(cat "$tmp/first.err")"
on b 0 'is known from now on' peers enrol a --at 127.0.0.1 --port $port --code "$code"
first_ends 0
exits 0 config check "$tmp/a/iovmd.conf" --dir "$tmp/a/conf.d"
host b 'transport = plain-tcp'
on b 0 "plain TCP, as configured" peers
ok "a configuration that waits for the peer"

: >"$tmp/file"
host c "tls-dir-2 = x"
sed -i "s:^tls-dir = .*:tls-dir = $tmp/file:" "$tmp/c/iovmd.conf"
on c 5 "cannot make '.*/file/peers'" peers enrol b --at 127.0.0.1 --code "$code"
host d
on d 0 'none yet' peers
mkdir -p "$tmp/d/tls"
cp "$tmp/b/tls/host.crt" "$tmp/d/tls/"
on d 5 'bring the key' peers enrol b --at 127.0.0.1 --code "$code"
ok "no place for certificates; one without its key"

[ ! -s "$tmp/log" ] || { cat "$tmp/log"; echo "# it asked the kernel"; }
conclude
