#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What an operator asks of iovmd, and what it does around a migration, on one host and a live kernel: bandwidth,
# rehearsals, readiness, failures and flapping, groups, draining, the operator's own command. The peer (iovmd_peer.py) and the guests' QEMUs (iovmd_qemu.py) are small programs that answer as they are told, the server of the peer's path is qemu-nbd.

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
echo "1..11"

host_keys=
guest_keys=
vm2_keys=

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
		[device disk2]
		disk = /dev/ram1
		peers = b
		identity = local:disk2
		[guest vm2]
		devices = disk2
		destination = b
		${vm2_keys:-qmp = $tmp/vm2.qmp}
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

qemu() { # GUEST [PID]: of what runs on its device, and ends with it
	rm -f "$tmp/$1.qmp"
	python3 "$here/iovmd_qemu.py" "$tmp/$1.qmp" "$tmp/$1.log" "$tmp/$1.answers" "${@:2}" &
	qemu=$!
	bg+=("$qemu")
	listens "$tmp/$1.qmp" || complain "no QEMU for $1"
}

qemu_says() { # GUEST ANSWERS
	echo "$2" >"$tmp/$1.answers.new"
	mv "$tmp/$1.answers.new" "$tmp/$1.answers"
}


again() { # the agent, with another configuration
	configure
	kill "$pid"
	wait "$pid"
	start
	soon status_is 'd["peers"][0]["connected"]'
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
grep -Eq '^[0-9]{2,} requests, 0 errors' "$tmp/disk1.out" || complain "the guest: $(cat "$tmp/disk1.out")"
sed 's/^/# the guest: /' "$tmp/disk1.out"
ok "a rehearsal: there and back, never without a second path, and back when it is ended"

# --- is it ready? ---

tc qdisc del dev lo root
host_keys='check-interval = 2s'
guest disk1
vm1=$guest
qemu vm1
good='"query-cpus-fast":[{"qom-path":"/machine/unattached/device[0]"}],"qom-get":"host-x86_64-cpu","query-memory-size-summary":{"base-memory":1048576,"plugged-memory":0}'
qemu_says vm1 "{$good}"
again
soon status_is 'guest["vm1"]["ready"] is True'
logged "guest 'vm1': ready=yes" || complain "not said: $(tail "$tmp/log")"
status_is 'guest["vm2"]["ready"] is None' || complain "a guest that is not here: $(cat "$tmp/status")"
exits 0 check vm1 --socket "$sock"
says '^vm1: ready' "$out" check
exits 4 check vm2 --socket "$sock"
says "'vm2' does not run here" "$err" check
exits 4 check nobody --socket "$sock"
grep '"op":"ready"' "$tmp/asked" | tail -n 1 | grep -q '"memory":1048576,"cpu":"host-x86_64-cpu","flags":"fpu ' ||
	complain "the peer was asked: $(grep '"op":"ready"' "$tmp/asked" | tail -n 1)"
"$ctl" metrics --socket "$sock" | grep -q '^iovm_guest_ready{guest="vm1"} 1$' || complain "metrics"
qemu_says vm1 "{$good,\"query-migrate\":{\"blocked-reasons\":[\"disk x is a floppy\"]},\"qom-list\":[{\"name\":\"hostdev0\",\"type\":\"child<vfio-pci>\"}]}"
soon status_is 'guest["vm1"]["ready"] is False'
logged "guest 'vm1': ready=no, because QEMU would not migrate it: disk x is a floppy" || complain "not said: $(tail "$tmp/log")"
"$ctl" status --socket "$sock" | grep -q 'device: QEMU would not migrate it: disk x is a floppy' || complain "status: $("$ctl" status --socket "$sock")"
exits 1 check vm1 --socket "$sock"
says 'no   device: QEMU would not migrate it: disk x is a floppy' "$out" check
says 'note device: it has a device of this host: hostdev0 \(child<vfio-pci>\)' "$out" check
qemu_says vm1 "{$good}"
peer_says ready '{"findings":[{"what":"memory","bad":true,"text":"there is none"}]}'
exits 1 check vm1 --socket "$sock"
says 'no   memory: there is none' "$out" check
peer_says ready '{"ok":false,"error":"frobnicated"}'
exits 1 check vm1 --socket "$sock"
says "no   peer: 'b' says: frobnicated" "$out" check
peer_says prepare '{"uri":"tcp:127.0.0.2:4444"}'
"$ctl" path fail disk1 b >/dev/null
exits 1 check vm1 --socket "$sock"
says "no   data: device 'disk1' has one live path only" "$out" check
"$ctl" path connect disk1 b >/dev/null
exits 0 check vm1 --socket "$sock"
# and what this host says of a guest that may come
say '{"op":"ready","guest":"vm2","memory":4096,"cpu":"host-x86_64-cpu","flags":"fpu","kernel_release":"0.1.0"}' "has neither .unit. nor .command. there"
say '{"op":"ready","guest":"vm9"}' 'no \[guest vm9\]'
say '{"op":"ready","guest":"vm1","memory":99999999999999,"cpu":"host-x86_64-cpu","flags":"fpu frobs"}' \
	'a guest runs on device .disk1. there.*are available there.*lacks 1 of this one.s features: frobs.*modules on .a. are of release'
say '{"op":"ready","guest":"vm1","cpu":"Nehalem-x86_64-cpu","flags":"fpu frobs"}' '"bad": false, "text": "the CPU there lacks 1 .*Nehalem'
ok "readiness: paths, QEMU, the peer; asked for, and now and then"

# --- what is served, what was changed ---

exits 0 export --socket "$sock"
says '^disk1 \(/dev/ram0\)' "$out" export
says '^  b +127.0.0.2  granted, not admitted now, 0 connections' "$out" export
say '{"op":"epoch-raised","device":"disk2","epoch":7}' '"epoch": 7'
json '[(x["device"], [(g["peer"], g["admitted"], g["epoch"]) for g in x["granted"]]) for x in d["exports"]] ==
	[("disk1", [("b", False, 0)]), ("disk2", [("b", True, 7)])]' export --socket "$sock"
status_is 'd["config_changed"] is False' || complain "changed without a change"
echo '# more' >>"$tmp/iovmd.conf"
status_is 'd["config_changed"] is True' || complain "a change that is not seen"
"$ctl" status --socket "$sock" | grep -q 'the configuration was changed' || complain "status does not say it"
ok "what is served to whom; a configuration that was changed"

# --- a time limit for all of it ---

host_keys='check-interval = never'
guest_keys='timeout = 3s'
again
qemu_says vm1 '{"hold":true}'
"$ctl" migrate vm1 --socket "$sock" >"$tmp/try" 2>&1 && complain "migrated, though it did not converge"
grep -q "it was not done within 'timeout'" "$tmp/try" || complain "not for the time: $(cat "$tmp/try")"
qemu_says vm1 '{}'
ok "a migration that takes longer than it may is taken back"

# --- a disk that is lost ---

guest_keys=$'migrate = on-failure\nsettle = 8s\nflaps = 1\nflap-window = 90s\ngroup = g'
vm2_keys=$'qmp = '$tmp$'/vm2.qmp\nmigrate = on-failure\ngroup = g'
"$ctl" epoch take disk2 8 >/dev/null
guest disk2
kill "$qemu"
qemu vm1 "$vm1"
qemu vm2 "$guest"
again
soon status_is 'all(p["state"] == "live" for p in dev["disk1"]["paths"])'
"$ctl" path fail disk1 local >/dev/null
soon logged "guest 'vm1': waits: 'disk1' has lost its disk, for not long enough yet"
"$ctl" path retry disk1 local >/dev/null
soon status_is 'guest["vm1"]["state"] == "idle"'
"$ctl" path fail disk1 local >/dev/null
soon logged "waits: 'disk1' has lost its disk, 2 times within"
sleep 1
status_is 'guest["vm1"]["state"] == "waiting" and guest["vm2"]["state"] == "idle"' || complain "it flaps, and goes: $(cat "$tmp/status")"
soon logged "guest 'vm1': is being migrated to 'b', by policy"
ok "a disk that is lost and found again and again is not fled from"

soon logged "guest 'vm2': is being migrated to 'b', by policy"
soon status_is '[(g["state"], g["by"]) for g in d["guests"]] == [("migrated", "policy")] * 2'
logged "guest 'vm2': waits: guest 'vm1' of its group goes to 'b', and others are being migrated" || complain "not one after the other: $(tail -n 40 "$tmp/log")"
"$ctl" path retry disk1 local >/dev/null
ok "guests of a group go together"

# --- a host that is drained ---

exits 0 drain-host --socket "$sock"
says 'no guest runs here' "$out" drain-host
guest_keys='migrate = on-request'
vm2_keys='qmp = '$tmp'/vm2.qmp'
again
guest disk1
vm1=$guest
guest disk2
vm2=$guest
qemu vm1
qemu vm2
qemu_says vm1 '{"hold":true}'
"$ctl" drain-host --socket "$sock" --json >"$tmp/try" 2>&1 &
drain=$!
soon status_is '[(g["state"], g.get("drain")) for g in d["guests"]] == [("migrating", "moves"), ("idle", "waits")]'
exits 4 drain-host --socket "$sock"
says 'is being drained already' "$err" drain-host
qemu_says vm1 '{}'
wait "$drain" || complain "drain-host: $(tail -n 1 "$tmp/try")"
python3 -c 'import json, sys
o = json.loads(open(sys.argv[1]).read().splitlines()[-1])
assert o["ok"] and [(g["name"], g["drain"], g["drain_why"]) for g in o["drain"]] == [("vm1", "over", None), ("vm2", "over", None)], o' "$tmp/try" ||
	complain "drain-host: $(tail -n 1 "$tmp/try")"
qemu vm1
qemu vm2
qemu_says vm1 '{"hold":true}'
"$ctl" drain-host --to b --socket "$sock" >"$tmp/try" 2>&1 &
drain=$!
soon status_is '[g.get("drain") for g in d["guests"]] == ["moves", "waits"]'
exits 0 drain-host --cancel --socket "$sock"
wait "$drain"
[ $? = 1 ] || complain "a drain that was cancelled: $(cat "$tmp/try")"
[ "$(grep -c 'stays here: .*cancelled' "$tmp/try")" = 2 ] || complain "cancelled: $(cat "$tmp/try")"
grep -q '^0 of 2 have gone; vm1: ' "$tmp/try" || complain "no progress: $(cat "$tmp/try")"
ok "a host is drained, a guest at a time; and it is cancelled"

# --- the operator's own command ---

cat >"$tmp/command" <<-END
	#!/bin/sh
	echo "\$IOVM_GUEST to \$IOVM_TO at \$IOVM_TO_ADDRESS"
	. "$tmp/do"
END
chmod +x "$tmp/command"
vm2_keys="migrate-command = $tmp/command"$'\ntimeout = 5s'
again
echo 'echo it cannot be >&2; exit 3' >"$tmp/do"
"$ctl" migrate vm2 --socket "$sock" >"$tmp/try" 2>&1 && complain "a command that failed"
grep -q 'migrate-command exited with status 3; last output: it cannot be' "$tmp/try" || complain "status 3: $(cat "$tmp/try")"
logged "guest 'vm2': its migrate-command: vm2 to b at 127.0.0.2" || complain "its output: $(tail "$tmp/log")"
echo 'echo done' >"$tmp/do"
"$ctl" migrate vm2 --socket "$sock" >"$tmp/try" 2>&1 && complain "a command that did nothing"
grep -q 'exited with status 0, but the guest still runs here; last output: done' "$tmp/try" || complain "status 0: $(cat "$tmp/try")"
echo 'sleep 1000 & echo $! >'"$tmp/sleeper; wait" >"$tmp/do"
"$ctl" migrate vm2 --socket "$sock" >"$tmp/try" 2>&1 && complain "a command that does not end"
grep -q "migrate-command was ended, since it took longer than 'timeout'" "$tmp/try" || complain "time: $(cat "$tmp/try")"
kill -0 "$(cat "$tmp/sleeper")" 2>/dev/null && complain "what the command started goes on"
echo "echo switching; kill $vm2" >"$tmp/do"
"$ctl" migrate vm2 --socket "$sock" >"$tmp/try" 2>&1 || complain "by command: $(cat "$tmp/try")"
status_is '[s["what"] for s in guest["vm2"]["steps"]] == ["no bandwidth reserved", "the command runs", "migrated"] and guest["vm2"]["output"] == "switching"' ||
	complain "by command: $(cat "$tmp/status")"
kill "$vm1"
wait "$vm1"
ok "the operator's command migrates: believed when the guest has gone, ended when it takes too long"

conclude
