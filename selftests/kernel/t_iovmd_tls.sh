#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# TLS between agents, on a live kernel: two of them on one host enrol each other; certificates that are wrong, expired or somebody
# else's; what is no TLS, and what stops in the middle of it; who is served what. Host b has no devices: both share a kernel here.
# Guests and two hosts: selftests/e2e/test_agents. The library: test_tls and test_enrol.

top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/selftests/kernel
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
agent=$(command -v iovmd || echo "$top/build/userland/iovmd/iovmd")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
for need in nbdinfo openssl python3; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
modprobe brd rd_nr=2 rd_size=65536 || { echo "1..0 # SKIP no brd"; exit 4; }
modprobe tls || { echo "1..0 # SKIP no tls"; exit 4; }
[ -e /dev/iovm-mux ] || modprobe vhost_iovm_blk
ip link set lo up
ip addr add 127.0.0.2/8 dev lo 2>/dev/null
echo "1..10"

finish() {
	for _ in 1 2; do
		for name in guest disk1 disk1.export disk2 disk2.export; do
			"$ctl" destroy $name --force >/dev/null 2>&1
		done
		tidy
	done
	rmmod brd
}
trap finish EXIT

declare -A address=([a]=127.0.0.1 [b]=127.0.0.2) pid

configure() { # HOST LINES...: of [host] and what follows
	local host=$1
	shift
	mkdir -p "$tmp/$host/run" "$tmp/$host/tls/peers"
	printf '%s\n' '[host]' "name = $host" "listen = ${address[$host]}" "tls-dir = $tmp/$host/tls" "$@" >"$tmp/$host/iovmd.conf"
}

start() { # HOST
	"$agent" -c "$tmp/$1/iovmd.conf" -d "$tmp/$1/conf.d" --run-dir "$tmp/$1/run" --state-dir "$tmp/$1/state" --iovmctl "$ctl" \
		>>"$tmp/$1/log" 2>&1 </dev/null &
	pid[$1]=$!
	bg+=("$!")
	soon status_is "$1" True
}

stop() { # HOST
	kill "${pid[$1]}"
	wait "${pid[$1]}" || complain "$1: SIGTERM: status $?"
}

on() { # HOST COMMAND...: of the host's iovmctl about peers
	local host=$1
	shift
	"$ctl" "$@" --config "$tmp/$host/iovmd.conf" --dir "$tmp/$host/conf.d" --socket "$tmp/$host/run/iovmd.sock"
}

holds() { # FILE CONDITION: of its JSON, as d
	python3 -c 'import json,sys
d = json.load(open(sys.argv[1]))
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$1" "$2" 2>"$tmp/python"
}

status_is() { # HOST CONDITION: of its status s and its first peer p
	"$ctl" status --socket "$tmp/$1/run/iovmd.sock" --json >"$tmp/status" 2>/dev/null &&
		holds "$tmp/status" "[$2 for s in [d['status']] for p in [(s['peers'] or [{}])[0]]
			for dev in [{x['name']: x for x in s['devices']}]][0]"
}

soon() { # COMMAND...: succeeds, or does within some seconds
	local deadline=$((SECONDS + 100))
	until "$@"; do
		[ $SECONDS -lt $deadline ] ||
			{ complain "not in time: $*: $(tail -n 12 "$tmp"/*/log "$tmp/status" "$tmp/python" 2>&1)"; return 1; }
		sleep 0.2
	done
}

logged() { grep -Eq -- "$2" "$tmp/$1/log"; }	# HOST PATTERN
# Of many refusals only some are told: COMMAND, which is refused, is tried until a tells it.
told() { "${@:2}" >/dev/null 2>&1; logged a "$1"; }	# PATTERN COMMAND...
forget_log() { : >"$tmp/a/log"; : >"$tmp/b/log"; }

enrol() { # the two, by one command each
	rm -f "$tmp/enrol.a"
	on a peers enrol b --listen 127.0.0.1 --json >"$tmp/enrol.a" 2>"$tmp/enrol.err" &
	local first=$!
	soon test -s "$tmp/enrol.a"
	code=$(head -1 "$tmp/enrol.a" | python3 -c 'import json,sys; print(json.load(sys.stdin)["code"])')
	"$@" || return
	on b peers enrol a --at 127.0.0.1 --code "$code" --json >"$tmp/enrol.b" 2>&1 || complain "enrol on b: $(cat "$tmp/enrol.b")"
	wait "$first" || complain "enrol on a: $(cat "$tmp/enrol.err")"
	sed -i 1d "$tmp/enrol.a"
}

cert() { # DIR CN [END]: a certificate of its own, of the past when an end is given
	mkdir -p "$1/peers"
	rm -f "$1"/ca.*
	touch "$1/ca.db"
	echo 01 >"$1/ca.serial"
	printf '%s\n' '[ca]' 'default_ca = x' '[x]' "database = $1/ca.db" "serial = $1/ca.serial" 'policy = p' 'default_md = sha256' \
		"new_certs_dir = $1" '[p]' 'commonName = supplied' >"$1/ca.cnf"
	{ openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$1/host.key" -out "$1/ca.req" &&
		openssl ca -batch -selfsign -config "$1/ca.cnf" -keyfile "$1/host.key" -in "$1/ca.req" -startdate 20200101000000Z \
			-enddate "${3:-20500101000000Z}" -notext -out "$1/host.crt"; } >"$tmp/openssl" 2>&1 ||
		complain "openssl: $(cat "$tmp/openssl")"
	chmod 600 "$1/host.key"
}

show() { # HOST DIR: it shows that certificate from now on, and connects anew
	cp "$2"/host.* "$tmp/$1/tls/"
}

said() { # DIR REQUEST PATTERN: on a's channel, with that certificate, as host b
	IOVMD_PEER_TLS=$1 python3 "$here/iovmd_peer.py" say 127.0.0.1 127.0.0.2 "$2" >"$tmp/try" 2>&1
	grep -Eq -- "$3" "$tmp/try"
}
say() { said "$@" || complain "$2: not '$3' but $(cat "$tmp/try")"; }

disks=('[peer b]' 'address = 127.0.0.2' '[device disk1]' 'disk = /dev/ram0' 'peers = b' 'identity = local:disk1' '[device disk2]'
	'disk = /dev/ram1' 'identity = local:disk2')
configure a "${disks[@]}"
configure b
start a
soon status_is a 's["transport"] == "tls" and "iovmctl peers enrol b" in (p["why"] or "")'
on a peers >"$tmp/try" || complain "peers: $(cat "$tmp/try")"
grep -q "no certificate: 'iovmctl peers enrol b'" "$tmp/try" || complain "peers: $(cat "$tmp/try")"
wrong_code() {
	on b peers enrol a --at 127.0.0.1 --code 00000-11111-22222-33333 >"$tmp/try" 2>&1 && complain "a wrong code was taken"
	grep -q 'it has another code' "$tmp/try" || complain "a wrong code: $(cat "$tmp/try")"
	on b peers enrol c --at 127.0.0.1 --code "$code" >"$tmp/try" 2>&1 && complain "a wrong name was taken"
	grep -q "wants to enrol 'c', and this is 'a'" "$tmp/try" || complain "a wrong name: $(cat "$tmp/try")"
	[ -z "$(find "$tmp/a/tls/peers" "$tmp/b/tls/peers" -name '*.crt')" ] || complain "a certificate was kept"
}
enrol wrong_code
cmp "$tmp/a/tls/host.crt" "$tmp/b/tls/peers/a.crt" || complain "a is known by another certificate"
cmp "$tmp/b/tls/host.crt" "$tmp/a/tls/peers/b.crt" || complain "b is known by another certificate"
[ "$(stat -c %a "$tmp/a/tls/host.key" "$tmp/b/tls/host.key" | sort -u)" = 600 ] || complain "the modes of the keys"
holds "$tmp/enrol.a" 'd["certain"] and d["iovmd"] == "told" and d["config_file"] is None and d["peer"] == "b"' ||
	complain "enrol on a: $(cat "$tmp/enrol.a")"
holds "$tmp/enrol.b" 'd["certain"] and d["iovmd"] == "not-running" and d["config_file"]' || complain "enrol on b: $(cat "$tmp/enrol.b")"
start b
soon status_is a 'p["connected"] and p["expires"] > 2e9'
soon status_is b 'p["connected"]'
shown=$(openssl x509 -in "$tmp/b/tls/host.crt" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g' | tr A-F a-f)
status_is a "p['fingerprint'] == 'sha256:$shown'" || complain "another fingerprint than $shown: $(cat "$tmp/status")"
ok "two agents enrol each other, by one command each"

on a peers --json >"$tmp/try" || complain "peers"
holds "$tmp/try" 'd["transport"] == "tls" and d["certificate"]["name"] == "a" and
	[(p["name"], p["connected"], p["configured"]) for p in d["peers"]] == [("b", True, True)] and
	d["peers"][0]["certificate"]["fingerprint"] == d["peers"][0]["shows"]' || complain "peers: $(cat "$tmp/try")"
on a peers >"$tmp/try"
grep -Eq 'b +127.0.0.2  connected for .*, TLS' "$tmp/try" || complain "peers: $(cat "$tmp/try")"
"$ctl" status --socket "$tmp/a/run/iovmd.sock" >"$tmp/try"
grep -q 'connections between hosts: TLS' "$tmp/try" || complain "status: $(cat "$tmp/try")"
on a peers forget b >"$tmp/try" || complain "forget: $(cat "$tmp/try")"
soon status_is a 'not p["connected"] and "iovmctl peers enrol b" in p["why"]'
soon status_is b 'not p["connected"]'
soon logged b "it refused the certificate of this host: it does not know it"
soon logged a "a connection from 127.0.0.*: its certificate \('b'\) is of no peer that is known here"
status_is a '"no peer that is known" in s["last_refused"]["why"] and s["last_refused"]["to"] == "peers"' ||
	complain "status: $(cat "$tmp/status")"
on a peers forget b >"$tmp/try" 2>&1 && complain "forgotten twice"
enrol true
soon status_is a 'p["connected"]'
soon status_is b 'p["connected"]'
ok "peers: shown, forgotten, enrolled again"

# b has its certificate renewed, which expires soon
certificates() { grep -c BEGIN "$tmp/a/tls/peers/b.crt"; }
stop a
stop b
forget_log
cert "$tmp/soon" b "$(date -u -d '10 days' +%Y%m%d%H%M%SZ)"
show b "$tmp/soon"
cp "$tmp/soon/host.crt" "$tmp/a/tls/peers/b.crt"
start a
start b
soon status_is a 'p["connected"]'
soon status_is b 'p["connected"]'
logged a "the certificate of peer 'b' expires on 20.*'iovmctl peers renew' on b" || complain "not said: $(cat "$tmp/a/log")"
logged b "the certificate of this host expires on 20" || complain "not said: $(cat "$tmp/b/log")"
status_is a 'p["certificate_expires_soon"] and not s["certificate_expires_soon"]' || complain "status: $(cat "$tmp/status")"
"$ctl" status --socket "$tmp/a/run/iovmd.sock" | grep -q "its certificate expires on 20.*: 'iovmctl peers renew' on b" || complain "status does not say it"
"$ctl" metrics --socket "$tmp/b/run/iovmd.sock" | grep -q '^iovm_certificate_expires_seconds{host="b"} [0-9]*$' || complain "metrics"
on a peers | grep -q 'it expires soon' || complain "peers do not say it"
forget_log
on b peers renew --json >"$tmp/try" || complain "renew: $(cat "$tmp/try")"
holds "$tmp/try" 'd["peers"] == [{"name": "a", "known": True, "told": True, "why": None}] and d["was"]["expires"] < d["certificate"]["expires"]' ||
	complain "renew: $(cat "$tmp/try")"
logged a "peer 'b': is going to show another certificate" || complain "not said: $(cat "$tmp/a/log")"
[ "$(certificates)" = 2 ] || complain "a does not take both"
status_is a 'p["connected"] and not p["certificate_expires_soon"]' || complain "status: $(cat "$tmp/status")"
status_is b 'p["connected"] and not s["certificate_expires_soon"]' || complain "status: $(cat "$tmp/status")"
cmp -s "$tmp/soon/host.crt" "$tmp/b/tls/host.crt" && complain "it was not put in place"
{ logged a 'lost:' || logged b 'lost:'; } && complain "a connection was cut: $(cat "$tmp"/*/log)"
# a new connection shows the new one; then the old one is not taken any more
kill "${pid[b]}"
wait "${pid[b]}"
start b
soon logged a "peer 'b': has shown its new certificate"
soon status_is a 'p["connected"]'
cmp "$tmp/b/tls/host.crt" "$tmp/a/tls/peers/b.crt" || complain "a knows others"
say "$tmp/soon" '{"op":"status"}' '"error"|alert|closed|Error'
# nobody to be told: nothing is changed, unless that is wanted
stop a
soon status_is b 'not p["connected"]'
on b peers renew >"$tmp/try" 2>&1 && complain "renewed, and a does not know"
grep -q 'a was not told: ' "$tmp/try" || complain "renew: $(cat "$tmp/try")"
cmp "$tmp/b/tls/host.crt" "$tmp/a/tls/peers/b.crt" || complain "something was changed"
on b peers renew --force >"$tmp/try" 2>&1 || complain "renew: $(cat "$tmp/try")"
grep -q "a: does not know it: 'iovmctl peers enrol a'" "$tmp/try" || complain "renew: $(cat "$tmp/try")"
start a
soon logged a "its certificate \('b'\) is of no peer that is known here"
enrol true
soon status_is a 'p["connected"]'
soon status_is b 'p["connected"]'
ok "a certificate that expires soon is told of, and renewed: one command, nothing is cut"

# b shows other certificates; each is refused by its name at both ends
refused() { # DIR AT_A AT_B
	forget_log
	show b "$1"
	kill -9 "${pid[b]}"
	wait "${pid[b]}" 2>/dev/null
	start b
	soon logged a "$2"
	soon logged b "$3"
	soon status_is a 'not p["connected"]'
	status_is b 'not p["connected"]' || complain "$1: b is connected"
}
cp -r "$tmp/b/tls" "$tmp/good"
cert "$tmp/wrong" b
refused "$tmp/wrong" "its certificate \('b'\) is of no peer that is known here" \
	"it refused the certificate of this host: it does not know it"
soon logged a "its certificate \('b'\) is not the one that is known for 'b'"
cert "$tmp/old" b 20210101000000Z
cp "$tmp/old/host.crt" "$tmp/a/tls/peers/b.crt"
refused "$tmp/old" "its certificate has expired" "refused the certificate of this host: expired"
soon status_is a '"has expired" in p["why"] and "peers enrol b" in p["why"]'
on a peers >"$tmp/try"
grep -q 'it has expired' "$tmp/try" || complain "peers: $(cat "$tmp/try")"
cert "$tmp/ca" "some CA"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj "/CN=CA" -keyout "$tmp/ca/ca.key" \
	-out "$tmp/ca/ca.crt" 2>/dev/null
cert "$tmp/named" c
for name in b c; do
	mkdir -p "$tmp/by-ca-$name"
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$tmp/by-ca-$name/host.key" \
		-out "$tmp/ca/req" 2>/dev/null
	openssl x509 -req -in "$tmp/ca/req" -CA "$tmp/ca/ca.crt" -CAkey "$tmp/ca/ca.key" -CAcreateserial -days 3 \
		-out "$tmp/by-ca-$name/host.crt" 2>/dev/null || complain "openssl x509"
	chmod 600 "$tmp/by-ca-$name/host.key"
done
cp "$tmp/ca/ca.crt" "$tmp/a/tls/peers/b.crt"
refused "$tmp/by-ca-c" "its certificate is for 'c', not for 'b'" "refused the certificate of this host: wrong name"
show b "$tmp/by-ca-b"
soon status_is a 'p["connected"]'
soon status_is b 'p["connected"]'
on a peers >"$tmp/try"
grep -q "that of the CA 'CA'" "$tmp/try" || complain "peers: $(cat "$tmp/try")"
ok "certificates: wrong, expired, somebody else's by the same CA; an operator's CA"

show b "$tmp/good"
cp "$tmp/good/host.crt" "$tmp/a/tls/peers/b.crt"
cp "$tmp/named/host.crt" "$tmp/a/tls/peers/c.crt"
forget_log
say "$tmp/named" '{"op":"status"}' "says that it is host 'b', and shows the certificate that host 'a' knows 'c' by"
soon logged a "says that it is host 'b'"
say "$tmp/good" '{"op":"status"}' '"host": "a"'
grep -q 'disk2' "$tmp/try" && complain "b sees the status of what is not its: $(cat "$tmp/try")"
say "$tmp/good" '{"op":"epoch-give","device":"disk2"}' "no \[device disk2\] with .b. among"
ok "a peer is who its certificate says, and sees what it was granted"

forget_log
python3 "$here/iovmd_peer.py" garbage 127.0.0.1 127.0.0.2 10808 >"$tmp/try" 2>&1 || complain "garbage: $(cat "$tmp/try")"
grep -q "takes TLS only, and it has 'transport = plain-tcp'" "$tmp/try" || complain "a plain peer is not told: $(cat "$tmp/try")"
soon logged a "it does not speak TLS"
soon logged a "takes TLS only, and it has 'transport = plain-tcp'"
python3 "$here/iovmd_peer.py" garbage 127.0.0.1 127.0.0.2 10809 >"$tmp/try" 2>&1 || complain "garbage: $(cat "$tmp/try")"
before=$(awk '/^VmRSS/ { print $2 }' "/proc/${pid[a]}/status")
python3 "$here/iovmd_peer.py" stall 127.0.0.1 127.0.0.2 200 "$tmp/go" >"$tmp/try" 2>&1 &
stall=$!
bg+=("$stall")
sleep 2
nr=$(pgrep -c -P "${pid[a]}")
[ "$nr" -le 200 ] || complain "$nr processes for strangers"
few() { [ "$(pgrep -c -P "${pid[a]}")" -le 70 ]; }	# those that made room have ended
soon few
# as long as strangers come fast it may be one that makes room, and try again
soon said "$tmp/good" '{"op":"status"}' '"host": "a"'
status_is a True || complain "it does not answer while it is stalled"
soon logged a "was refused: it (was too slow|said nothing in 5 s)"
after=$(awk '/^VmRSS/ { print $2 }' "/proc/${pid[a]}/status")
[ "$after" -lt $((before + 512)) ] || complain "its memory grew from $before to $after KiB"
touch "$tmp/go"
wait "$stall" || complain "stall: $(cat "$tmp/try")"
[ "$(grep -c 'was refused' "$tmp/a/log")" -lt 100 ] || complain "the log is flooded"
ok "no TLS, and half of a handshake: refused cheaply, peers get in all the same"

forget_log
nbdinfo --list nbd://127.0.0.1 >"$tmp/try" 2>&1 && complain "a client without TLS was served: $(cat "$tmp/try")"
soon told "did not start TLS, which is required here" nbdinfo --list nbd://127.0.0.1
uri() { echo "nbds://127.0.0.1/$1?tls-hostname=a&tls-certificates=$2"; } # DEVICE DIR
identified() { # DEVICE DIR RC PATTERN
	"$ctl" identify "$(uri "$1" "$2")" >"$tmp/try" 2>&1
	[ $? = "$3" ] && grep -Eq -- "$4" "$tmp/try"
}
identify() { # the same, as soon as handshakes that came before have ended
	soon identified "$@" || complain "identify $1 with $2: not status $3 and '$4' but $(cat "$tmp/try")"
}
for dir in good wrong old named; do
	cp "$tmp/a/tls/host.crt" "$tmp/$dir/peers/a.crt"
done
soon status_is a 'not dev["disk1"]["trouble"]'
identify disk1 "$tmp/good" 3 'no such export'
say "$tmp/good" '{"op":"epoch-raised","device":"disk1","epoch":7}' '"epoch": 7'
python3 "$here/iovmd_peer.py" stall 127.0.0.1 127.0.0.2 150 "$tmp/go-on" 10809 >"$tmp/stalled" 2>&1 &
stall=$!
bg+=("$stall")
sleep 2
identify disk1 "$tmp/good" 0 'local:disk1'
touch "$tmp/go-on"
wait "$stall" || complain "stall: $(cat "$tmp/stalled")"
identify disk2 "$tmp/good" 3 'no such export'
soon told "from b, 127.0.0.1:.* 'disk2' is not granted to it: its \[device\] does not name it in 'peers'" \
	identified disk2 "$tmp/good" 3 'no such export'
in_status() {
	identified disk2 "$tmp/good" 3 'no such export'
	status_is a '"not granted" in s["last_refused"]["why"] and s["last_refused"]["to"] == "data"'
}
soon in_status
identify nothing "$tmp/good" 3 'no such export'
soon told "'nothing' is not granted to it: there is no such \[device\]" identified nothing "$tmp/good" 3 'no such export'
identify disk1 "$tmp/wrong" 1 'it refused the certificate of this host: it does not know it'
identify disk1 "$tmp/named" 3 'no such export'
soon told "its certificate is that of 'c', and there is no \[peer c\]" identified disk1 "$tmp/named" 3 'no such export'
cp "$tmp/old/host.crt" "$tmp/a/tls/peers/c.crt"
identify disk1 "$tmp/old" 1 'refused the certificate of this host: expired'
soon told "was refused: its certificate has expired" identified disk1 "$tmp/old" 1 'expired'
rm "$tmp/a/tls/peers/c.crt"
ok "data: no TLS, not granted, wrong, expired, no peer: refused, and said at both ends"

exits 0 create guest --size 64M --identity local:disk1
exits 0 path add guest a "$(uri disk1 "$tmp/good")" --connections 2
json 'd["paths"][0]["state"] == "live" and d["paths"][0]["encrypted"]' show guest
json '[(x["encrypted"], x["peer"].startswith("b, 127.0.0.1:")) for x in d] == [(True, True)] * 2' session list disk1.export
status_is a 'dev["disk1"]["sessions_of_peers"] == 2' || complain "status: $(cat "$tmp/status")"
on a peers forget b >"$tmp/try" || complain "forget: $(cat "$tmp/try")"
gone() { [ "$("$ctl" session list disk1.export --json | tr -d ' \n')" = "[]" ]; }
soon gone
cp "$tmp/good/host.crt" "$tmp/a/tls/peers/b.crt"
exits 0 destroy guest --force
ok "data: encrypted by the kernel, for whom its certificate names; ended when that is forgotten"

# what was made without TLS is made anew with it
stop a
configure a 'transport = plain-tcp' "${disks[@]}"
"$ctl" path remove disk1 b >/dev/null 2>&1
start a
has_path() {
	"$ctl" path list disk1 --json >"$tmp/try" 2>/dev/null && holds "$tmp/try" "[p['addr'] for p in d if p['name'] == 'b'] == ['$1']"
}
soon has_path "nbd://127.0.0.2:10809/disk1"
soon logged a "plain TCP, as configured"
soon logged b "peer 'a': it (hung up|does not speak TLS): does it have 'transport = plain-tcp'"
soon logged a "it uses TLS, and host 'a' has 'transport = plain-tcp'"
"$ctl" status --socket "$tmp/a/run/iovmd.sock" >"$tmp/try"
grep -q 'plain TCP, as configured: neither encrypted nor authenticated' "$tmp/try" || complain "status: $(cat "$tmp/try")"
stop a
configure a "${disks[@]}"
start a
soon has_path "nbds://127.0.0.2:10809/disk1?tls-hostname=b&tls-certificates=$tmp/a/tls"
soon status_is a 'p["connected"]'
ok "plain TCP in so many words; and back to TLS"

soon status_is b 'p["connected"]'
sleep 3
switches() { awk '/ctxt_switches/ { n += $2 } END { print n }' "/proc/${pid[a]}/status"; }
before=$(switches)
sleep 2
[ $(($(switches) - before)) -le 1 ] || complain "it woke up $(($(switches) - before)) times in 2 s without a reason"
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/${pid[a]}/status")
echo "# resident: $rss KiB"
[ "$rss" -lt 8192 ] || complain "it has $rss KiB resident"
grep -q Sanitizer "$tmp"/*/log && complain "sanitizer: $(grep -A20 Sanitizer "$tmp"/*/log)"
stop a
stop b
ok "no wake-ups while nothing happens; small"

conclude
