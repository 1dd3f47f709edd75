#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmd on one host, on a live kernel: it makes what is configured, serves its peer and nobody else, answers iovmctl, and may be killed
# at any time. The peer is a small program (iovmd_peer.py). Guests and two hosts: selftests/e2e/test_agents.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
command -v qemu-io >/dev/null || { echo "1..0 # SKIP no qemu-io"; exit 4; }
# shellcheck source=selftests/kernel/iovmd.sh
. "$top/selftests/kernel/iovmd.sh"
iovmd_set_up "disk1 disk1.export disk2 disk2.export"
echo "1..11"

configure() { # EXTRA: what is appended
	cat >"$tmp/iovmd.conf" <<-END
		[host]
		name = a
		listen = 127.0.0.1
		transport = plain-tcp
		[peer b]
		address = 127.0.0.2
		[device disk1]
		disk = /dev/ram0
		peers = b
		identity = local:disk1
		[device disk2]
		disk = /dev/ram1
		identity = local:disk2
		no-path-timeout = 1min
	END
	printf '%b' "$1" >>"$tmp/iovmd.conf"
}

made='not dev["disk1"]["trouble"] and [p["state"] == "live" for p in dev["disk1"]["paths"]][:1] == [True] and len(dev["disk1"]["paths"]) == 2 and
	not dev["disk2"]["trouble"] and dev["disk2"]["route"] == "local" and len(dev["disk2"]["paths"]) == 1'

configure ''
start
soon status_is "$made"
json 'd["class"] == "target" and d["epoch_held"] is False' show disk1.export
"$ctl" show disk2.export >/dev/null 2>&1 && complain "disk2 has no peers and an export"
json 'd["no_path_timeout_ms"] == 60000' show disk2
status_is '[p["connected"] for p in d["peers"]] == [False] and "refused" in d["peers"][0]["why"]' ||
	complain "the peer that is not there: $(cat "$tmp/status")"
ok "devices, paths and exports are made as configured"

"${iovmd[@]}" >"$tmp/second" 2>&1 && complain "a second one runs"
grep -q "another iovmd runs" "$tmp/second" || complain "a second one: $(cat "$tmp/second")"
[ "$(stat -c '%a %U' "$sock")" = "600 root" ] || complain "its socket: $(stat -c '%a %U' "$sock")"
python3 "$here/iovmd_peer.py" control "$sock" >"$tmp/try" 2>&1 || complain "bad requests: $(cat "$tmp/try")"
status_is 'd["host"] == "a"' || complain "it does not answer any more"
ok "one on a host; its socket is root's; bad requests are answered"

ids=$(for n in disk1 disk1.export disk2; do "$ctl" show $n --json; done | python3 -c '
import re,sys; print(re.findall(r"\"id\": (\d+)", sys.stdin.read()))')
kill_agent
start
soon status_is "$made"
[ "$ids" = "$(for n in disk1 disk1.export disk2; do "$ctl" show $n --json; done | python3 -c '
import re,sys; print(re.findall(r"\"id\": (\d+)", sys.stdin.read()))')" ] || complain "it made things anew: $ids"
"$ctl" path remove disk1 b >/dev/null || complain "path remove"
soon status_is "$made"
"$ctl" destroy disk2 >/dev/null || complain "destroy"
soon status_is "$made"
ok "killed and started: what is there stays, what is gone is made again"

nbdinfo --list nbd://127.0.0.1 >"$tmp/try" 2>&1 && complain "a stranger was served: $(cat "$tmp/try")"
soon logged 'a connection from 127.0.0.1:.* was refused: no \[peer\]'
python3 "$here/iovmd_peer.py" proxy 127.0.0.2 127.0.0.1 10809 "$tmp/nbd" &
bg+=("$!")
soon test -S "$tmp/nbd"
uri="nbd+unix:///disk1?socket=$tmp/nbd"
nbdinfo --list "nbd+unix:///?socket=$tmp/nbd" >"$tmp/try" 2>&1 && complain "a peer without an epoch was served: $(cat "$tmp/try")"
epoch() { # REQUEST PATTERN: the peer says it, and is answered so
	python3 "$here/iovmd_peer.py" say 127.0.0.1 127.0.0.2 "$1" >"$tmp/try" 2>&1
	grep -Eq -- "$2" "$tmp/try" || complain "$1: not '$2' but $(cat "$tmp/try")"
}
epoch '{"op":"epoch-give","device":"disk1"}' '"epoch": 0'
epoch '{"op":"epoch-give","device":"disk2"}' 'no \[device disk2\] with .b. among'
epoch '{"op":"epoch-raised","device":"disk1","epoch":7}' '"epoch": 7'
epoch '{"op":"epoch-raised","device":"disk1","epoch":6}' 'knows of epoch 7, held by .b.'
[ "$(cat "$state_dir/epochs/disk1")" = "7 b" ] || complain "what is kept: $(cat "$state_dir/epochs/disk1")"
json 'd["epoch"] == 7 and d["epoch_held"]' show disk1.export
nbdinfo --json --list "nbd+unix:///?socket=$tmp/nbd" >"$tmp/try" 2>&1 || complain "nbdinfo: $(cat "$tmp/try")"
python3 - "$tmp/try" <<'P' || complain "exports: $(cat "$tmp/try")"
import json, sys
e = json.load(open(sys.argv[1]))["exports"]
assert [x["export-name"] for x in e] == ["disk1"] and e[0]["description"] == "iovm-id=local:disk1", e
P
nbdinfo "nbd+unix:///disk2?socket=$tmp/nbd" >"$tmp/try" 2>&1 && complain "disk2 was not granted, and is served"
head -c 8M /dev/urandom >"$tmp/a"
nbdcopy "$tmp/a" "$uri" || complain "nbdcopy to the export"
dd if=/dev/ram0 iflag=direct bs=1M count=8 status=none | cmp -s - "$tmp/a" || complain "the disk has other data"
ok "a peer is served what names it while it holds the epoch, a stranger nothing"

# what it sent may be in doubt for it: it asks that nothing of that can land any more
sessions() { "$ctl" session list disk1.export --json | python3 -c 'import json,sys; sys.exit(len(json.load(sys.stdin)))'; }
has_sessions() { sessions; [ $? = "$1" ]; }
mkfifo "$tmp/idle"
for i in 1 2; do
	qemu-io -f raw "$uri" <"$tmp/idle" >>"$tmp/try" 2>&1 &
	bg+=("$!")
done
exec 7>"$tmp/idle"
soon has_sessions 2
epoch '{"op":"drain","device":"disk2"}' 'no \[device disk2\] with .b. among'
python3 "$here/iovmd_peer.py" drain 127.0.0.1 127.0.0.2 disk1 >"$tmp/try" 2>&1 || complain "drain: $(cat "$tmp/try")"
has_sessions 0 || complain "sessions are left after the drain"
exec 7>&-
soon nbdinfo "$uri" >/dev/null 2>&1
ok "a peer has its sessions ended and drained, handshakes cut short, and may come again"

# the operator takes it here, as he may: it is kept, and the peer is told when it is there, or there again
"$ctl" epoch take disk1 9 >/dev/null || complain "epoch take"
soon grep -qx '9 a' "$state_dir/epochs/disk1"
epoch '{"op":"epoch-raised","device":"disk1","epoch":12}' "'a' holds epoch 9 of it"
epoch '{"op":"epoch-give","device":"disk1"}' '"epoch": 9'
[ "$(cat "$state_dir/epochs/disk1")" = "9 b" ] || complain "what is kept: $(cat "$state_dir/epochs/disk1")"
json 'd["state"] == "no-epoch" and not d["epoch_held"]' show disk1
"$ctl" epoch take disk1 10 >/dev/null || complain "epoch take"
soon grep -qx '10 a' "$state_dir/epochs/disk1"
mv "$state_dir/epochs" "$state_dir/away"
epoch '{"op":"epoch-give","device":"disk1"}' 'cannot be kept'
mv "$state_dir/away" "$state_dir/epochs"
kill_agent
rm "$state_dir/epochs/disk1"
start
"$ctl" epoch take disk1 11 >/dev/null || complain "epoch take"
soon grep -qx '11 a' "$state_dir/epochs/disk1"
ok "epochs: given up, raised, kept; the operator's word"

python3 "$here/iovmd_peer.py" peer "$tmp/asked" 127.0.0.2 b &
peer=$!
bg+=("$peer")
soon status_is 'd["peers"][0]["connected"]'
soon grep -q '"op":"epoch-raised","device":"disk1","epoch":11' "$tmp/asked"
grep -q '"op":"arrivals"' "$tmp/asked" || complain "it does not ask who waits: $(cat "$tmp/asked")"
status_is '"b" in a["peers_say"] and a["peers_say"]["b"]["status"]["host"] == "b"' || complain "what the peer says: $(cat "$tmp/status")"
"$ctl" epoch take disk1 12 >/dev/null || complain "epoch take"
soon grep -q '"op":"epoch-raised","device":"disk1","epoch":12' "$tmp/asked"
kill "$peer"; wait "$peer" 2>/dev/null
soon status_is 'not d["peers"][0]["connected"]'
python3 "$here/iovmd_peer.py" peer "$tmp/asked" 127.0.0.2 wrong &
peer=$!
bg+=("$peer")
soon status_is '"is host .wrong., not .b." in (d["peers"][0]["why"] or "").replace(chr(39), ".")' || true
kill "$peer"; wait "$peer" 2>/dev/null
ok "the channel to a peer: comes, goes, and is somebody else"

python3 "$here/iovmd_peer.py" bad 127.0.0.1 127.0.0.2 >"$tmp/try" 2>&1 || complain "$(cat "$tmp/try")"
status_is 'd["host"] == "a"' || complain "it does not answer any more"
ok "what peers and strangers may send: refused, each with its reason"

"$ctl" metrics --socket "$sock" >"$tmp/try" 2>&1 || complain "metrics: $(cat "$tmp/try")"
grep -q '^iovm_path_live{device="disk1",path="local"} 1$' "$tmp/try" || complain "metrics: $(cat "$tmp/try")"
grep -q '^iovm_peer_connected{peer="b"} 0$' "$tmp/try" || complain "metrics: $(cat "$tmp/try")"
python3 - "$tmp/try" <<'P' || complain "not Prometheus' format: $(cat "$tmp/try")"
import re, sys
typed = set()
for line in open(sys.argv[1]):
    m = re.match(r"# TYPE (\w+) (gauge|counter)$", line)
    if m:
        assert m[1] not in typed, line
        typed.add(m[1])
    elif not line.startswith("# HELP "):
        m = re.fullmatch(r'(\w+)(\{\w+="[^"\n]*"(,\w+="[^"\n]*")*\})? \d+\n', line)
        assert m and m[1] in typed, line
P
"$ctl" status --socket "$sock" >"$tmp/try" || complain "status"
grep -q 'plain TCP, as configured: neither encrypted nor authenticated' "$tmp/try" || complain "status does not say plain TCP"
"$ctl" migrate nobody --socket "$sock" >"$tmp/try" 2>&1 && complain "nobody was migrated"
grep -q "guest 'nobody' is not configured" "$tmp/try" || complain "migrate: $(cat "$tmp/try")"
ok "status, metrics, migrate of a guest that is none"

# 2 s in which nothing happens; a peer that is not there is tried now and then
python3 "$here/iovmd_peer.py" peer "$tmp/asked" 127.0.0.2 b &
bg+=("$!")
soon status_is 'd["peers"][0]["connected"] and all(p["state"] == "live" or p["name"] == "b" for p in dev["disk1"]["paths"])'
sleep 1
switches() { awk '/ctxt_switches/ { n += $2 } END { print n }' "/proc/$pid/status"; }
before=$(switches)
sleep 2
[ $(($(switches) - before)) -le 1 ] || complain "it woke up $(($(switches) - before)) times in 2 s without a reason"
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
echo "# resident: $rss KiB"
[ "$rss" -lt 8192 ] || complain "it has $rss KiB resident"
ok "no wake-ups while nothing happens; small"

kill "$pid"; wait "$pid" || complain "SIGTERM: status $?"
json 'd["name"] == "disk1"' show disk1
pgrep -f "iovmctl path watch" >/dev/null && complain "its watch is left over"
configure 'nonsense\n'
"${iovmd[@]}" >"$tmp/try" 2>&1
[ $? = 2 ] || complain "a bad configuration: status is not 2"
grep -q "iovmd.conf:1[0-9]: " "$tmp/try" || complain "a bad configuration: $(cat "$tmp/try")"
ok "SIGTERM; a bad configuration"

conclude
