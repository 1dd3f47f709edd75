#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What an operator asks of iovmd, and what it does around a migration, on one host and a live kernel: bandwidth. The peer (iovmd_peer.py)
# and the guests' QEMUs (iovmd_qemu.py) are small programs that answer as they are told, the server of the peer's path is qemu-nbd.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
# shellcheck source=selftests/kernel/iovmd.sh
. "$top/selftests/kernel/iovmd.sh"
for need in qemu-nbd tc ss; do
	command -v $need >/dev/null || { echo "1..0 # SKIP no $need"; exit 4; }
done
for module in sch_htb cls_flower act_gact; do
	modprobe $module 2>/dev/null || { echo "1..0 # SKIP no module $module"; exit 4; }
done
iovmd_set_up "disk1 disk1.export disk2 disk2.export"
echo "1..4"

host_keys=
guest_keys=

configure() {
	cat >"$tmp/iovmd.conf" <<-END
		[host]
		name = a
		listen = 127.0.0.1
		transport = plain-tcp
		$host_keys
		[peer b]
		address = 127.0.0.2
		[device disk1]
		disk = /dev/ram0
		peers = b
		identity = local:disk1
		no-path-timeout = 5min
		[guest vm1]
		devices = disk1
		qmp = $tmp/vm1.qmp
		destination = b
		command = exec python3 $here/iovmd_qemu.py "\$IOVM_QMP" $tmp/vm1.came
		$guest_keys
	END
}

peer() { # the peer's agent
	python3 "$here/iovmd_peer.py" peer "$tmp/asked" 127.0.0.2 b 2>>"$tmp/peer.log" &
	peer=$!
	bg+=("$peer")
}

peer_says() { # OP ANSWER
	echo "{\"$1\":$2}" >"$tmp/asked.answers.new"
	mv "$tmp/asked.answers.new" "$tmp/asked.answers"
}

say() { # REQUEST PATTERN: the peer says it, and is answered so
	python3 "$here/iovmd_peer.py" say 127.0.0.1 127.0.0.2 "$1" >"$tmp/try" 2>&1
	grep -Eq -- "$2" "$tmp/try" || complain "$1: not '$2' but $(cat "$tmp/try")"
}

qemu() { # GUEST
	rm -f "$tmp/$1.qmp"
	python3 "$here/iovmd_qemu.py" "$tmp/$1.qmp" "$tmp/$1.log" "$tmp/$1.answers" &
	bg+=("$!")
	listens "$tmp/$1.qmp" || complain "no QEMU for $1"
}

qemu_says() { # GUEST ANSWERS
	echo "$2" >"$tmp/$1.answers.new"
	mv "$tmp/$1.answers.new" "$tmp/$1.answers"
}


guest() { # DEVICE: a guest runs on it
	"$top/build/selftests/iovmd_guest" "$1" >"$tmp/guest.out" 2>&1 &
	guest=$!
	bg+=("$guest")
	soon grep -q running "$tmp/guest.out"
}

steps() { python3 -c 'import json, sys; print(" | ".join(s["what"] for s in json.load(open(sys.argv[1]))["status"]["guests"][0]["steps"]))' "$tmp/status"; }
reserved() { # CONDITION: of the list r of reservations
	"$ctl" reserve list --json | python3 -c 'import json, sys
r = json.load(sys.stdin)
sys.exit(0 if eval("(" + sys.argv[1] + ")") else 1)' "$1"
}
is_reserved() { reserved "$1" || complain "not $1 but $("$ctl" reserve list --json | tr -d ' \n')"; }

# the server behind the peer's path: it lets anybody write at any time
qemu-nbd -t -e 16 -f raw --cache=none -D iovm-id=local:disk1 -x disk1 -b 127.0.0.2 -p 10809 /dev/ram0 >"$tmp/nbd.log" 2>&1 &
bg+=("$!")
peer
peer_says prepare '{"uri":"tcp:127.0.0.2:4444"}'

# --- bandwidth ---

configure
start
soon status_is 'len(dev["disk1"]["paths"]) == 2'
"$ctl" epoch take disk1 1 >/dev/null || complain "epoch take"
soon status_is '"b" in a["peers_say"] and len(dev["disk1"]["paths"]) == 2 and all(p["state"] == "live" for p in dev["disk1"]["paths"])'
qemu vm1
"$ctl" migrate vm1 --socket "$sock" >"$tmp/try" 2>&1 || complain "migrate: $(cat "$tmp/try")"
status_is 'guest["vm1"]["state"] == "migrated" and guest["vm1"]["bandwidth"] == "[host] names no " + chr(39) + "class" + chr(39) + " to reserve it below"' ||
	complain "nothing to reserve with: $(cat "$tmp/status")"
steps | grep -q 'the peer is ready | no bandwidth reserved |.* migrated$' || complain "steps: $(steps)"
[ "$(grep -c 'no bandwidth is reserved for migrations' "$tmp/log")" = 1 ] || complain "not said once: $(cat "$tmp/log")"
qemu vm1
"$ctl" migrate vm1 --socket "$sock" >"$tmp/try" 2>&1 || complain "migrate: $(cat "$tmp/try")"
[ "$(grep -c 'no bandwidth is reserved for migrations' "$tmp/log")" = 1 ] || complain "not said once: $(cat "$tmp/log")"
grep -q '"max-bandwidth":0[,}]' "$tmp/vm1.log" || complain "max-bandwidth: $(grep max-bandwidth "$tmp/vm1.log")"
ok "nothing to reserve bandwidth with: it says so once, and migrates"

tc qdisc add dev lo root handle 1: htb default 10
tc class add dev lo parent 1: classid 1:1 htb rate 1gbit
tc class add dev lo parent 1:1 classid 1:10 htb rate 500mbit ceil 1gbit
tc class add dev lo parent 1:1 classid 1:50 htb rate 500mbit ceil 1gbit
"$ctl" reserve add vm1 --class lo/1:50 --io 1mbit >/dev/null || complain "the operator's own reservation"
host_keys=$'class = lo/1:50\nio-rate = 80mbit\nmigration-rate = 160mbit'
configure
kill "$pid"
wait "$pid"
"$ctl" path fail disk1 b >/dev/null
start
"$ctl" path connect disk1 b --pace 80mbit >/dev/null || complain "path connect"
ss -Htni 'dst 127.0.0.2 and dport = 10809' | grep -q 'pacing_rate [^ ]*/80' || complain "not paced: $(ss -Htni 'dport = 10809')"
[ "$(ss -Htni 'dst 127.0.0.2 and dport = 10809' | grep -c 'pacing_rate [^ ]*/80')" = 4 ] || complain "not all are paced: $(ss -Htni 'dport = 10809')"
pgrep -f 'iovmctl path watch --pace 80000000' >/dev/null || complain "its watch does not pace"
qemu vm1
qemu_says vm1 '{"hold":true}'
"$ctl" migrate vm1 --socket "$sock" >"$tmp/migrate" 2>&1 &
migrate=$!
soon status_is 'any(s["what"] == "active" for s in guest["vm1"]["steps"])'
status_is 'guest["vm1"]["bandwidth"] == "80mbit for I/O, 160mbit for the migration below lo/1:50"' || complain "status: $(cat "$tmp/status")"
is_reserved '[(x["name"], x["io_bps"], x["migration_bps"], x["peer"], x["io_port"], x["migration_port"], x["serving"]) for x in r if x["name"] != "vm1"] ==
	[("iovmd.vm1", 80000000, 160000000, "127.0.0.2", 10809, 4444, False)]'
tail -n 40 "$tmp/vm1.log" | grep -q '"max-bandwidth":20000000[,}]' || complain "max-bandwidth: $(grep max-bandwidth "$tmp/vm1.log")"
"$ctl" status --socket "$sock" | grep -q 'bandwidth: 80mbit for I/O, 160mbit' || complain "status has no bandwidth"
qemu_says vm1 '{}'
wait "$migrate" || complain "migrate: $(cat "$tmp/migrate")"
soon status_is 'guest["vm1"]["state"] == "migrated" and not guest["vm1"]["bandwidth"]'
steps | grep -q 'the peer is ready | reserved |.*guest runs there.* released | migrated$' || complain "steps: $(steps)"
is_reserved '[x["name"] for x in r] == ["vm1"]'
# the other end: what the export sends back
say '{"op":"prepare","guest":"vm1"}' '"uri": "tcp:127.0.0.1:5555"'
is_reserved '[(x["name"], x["io_bps"], x["migration_bps"], x["peer"], x["io_port"], x["serving"]) for x in r if x["name"] != "vm1"] ==
	[("iovmd.vm1", 80000000, 0, "127.0.0.2", 10809, True)]'
kill_agent
start
is_reserved 'len(r) == 2'
say '{"op":"abort","guest":"vm1"}' '"ok": true'
is_reserved '[x["name"] for x in r] == ["vm1"]'
ok "a guest that migrates, or comes, has bandwidth reserved meanwhile; connections and QEMU keep to theirs"

qemu vm1
qemu_says vm1 '{"hold":true}'
"$ctl" migrate vm1 --socket "$sock" >"$tmp/migrate" 2>&1 &
migrate=$!
soon status_is 'any(s["what"] == "active" for s in guest["vm1"]["steps"])'
# with its workers: nobody is left to release it
mapfile -t workers < <(pgrep -P "$pid")
kill -9 "$pid" "${workers[@]}"
wait "$migrate" && complain "migrate ended well"
is_reserved 'len(r) == 2'
start
is_reserved '[x["name"] for x in r] == ["vm1"]'
logged '1 reservation of an earlier iovmd removed' || complain "not said: $(tail -n 20 "$tmp/log")"
soon status_is 'guest["vm1"]["state"] == "rolled-back"'
# full: it goes on without
"$ctl" reserve remove vm1 >/dev/null
"$ctl" reserve add vm2 --class lo/1:50 --io 499mbit >/dev/null || complain "reserve add"
qemu_says vm1 '{}'
"$ctl" migrate vm1 --socket "$sock" >"$tmp/try" 2>&1 || complain "migrate: $(cat "$tmp/try")"
status_is '"240mbit do not fit in class 1:50 of lo" in guest["vm1"]["bandwidth"]' || complain "no room: $(cat "$tmp/status")"
logged 'no bandwidth is reserved for migrations: 240mbit do not fit' || complain "not said: $(tail -n 20 "$tmp/log")"
is_reserved '[x["name"] for x in r] == ["vm2"]'
"$ctl" reserve remove vm2 >/dev/null
ok "what a killed iovmd reserved, the next one releases; without room it goes on without"

# --- a rehearsal ---

guest disk1
"$ctl" rehearse disk1 --for 1s >"$tmp/try" 2>&1 || complain "rehearse: $(cat "$tmp/try")"
grep -q "^disk1: from 'local' to 'b' and back" "$tmp/try" || complain "rehearse: $(cat "$tmp/try")"
[ "$(grep -c 'until the first request .*[0-9][mun]*s$' "$tmp/try")" = 2 ] || complain "no figures: $(cat "$tmp/try")"
sed 's/^/# /' "$tmp/try"
"$ctl" rehearse vm1 --for 500ms --json --socket "$sock" >"$tmp/try" 2>&1 || complain "rehearse vm1: $(cat "$tmp/try")"
python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
assert (d["device"], d["from"], d["to"], d["errors"]) == ("disk1", "local", "b", 0) and d["away_ns"] and d["back_ns"] and d["requests"] > 5, d' "$tmp/try" ||
	complain "rehearse vm1: $(cat "$tmp/try")"
status_is 'dev["disk1"]["route"] == "local"' || complain "not back: $(cat "$tmp/status")"
exits 3 rehearse nobody --socket "$sock"
exits 4 rehearse disk1 --path local
exits 4 rehearse disk1 --path c
# ended half-way, it goes back
"$ctl" rehearse disk1 --for 60s >"$tmp/try" 2>&1 &
rehearsal=$!
soon status_is 'dev["disk1"]["route"] == "b"'
kill -INT "$rehearsal"
wait "$rehearsal" && complain "interrupted, and well"
grep -q "interrupted; its requests go to 'local' again" "$tmp/try" || complain "interrupted: $(cat "$tmp/try")"
status_is 'dev["disk1"]["route"] == "local"' || complain "interrupted, and not back: $(cat "$tmp/status")"
# the path fails meanwhile: the kernel goes back by itself
"$ctl" rehearse disk1 --for 60s >"$tmp/try" 2>&1 &
rehearsal=$!
soon status_is 'dev["disk1"]["route"] == "b"'
"$ctl" path fail disk1 b >/dev/null
wait "$rehearsal"
[ $? = 1 ] || complain "a path that fails meanwhile: $(cat "$tmp/try")"
grep -q "path 'b' failed in the rehearsal" "$tmp/try" || complain "a path that fails meanwhile: $(cat "$tmp/try")"
run rehearse disk1
[ "$rc" = 4 ] || complain "with one path: exit $rc"
says 'no other path is live' "$err" rehearse
"$ctl" path connect disk1 b >/dev/null || complain "path connect"
kill "$guest"
wait "$guest"
grep -Eq '^[0-9]{2,} requests, 0 errors' "$tmp/guest.out" || complain "the guest: $(cat "$tmp/guest.out")"
sed 's/^/# the guest: /' "$tmp/guest.out"
ok "a rehearsal: there and back, never without a second path, and back when it is ended"

conclude
