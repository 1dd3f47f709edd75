#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmd takes up a changed configuration while it runs, on one host and a live kernel: what is new is made, what has gone is let go of, what
# cannot change stays and is named; mistakes, and what does not go together with what stays, change nothing. The peers (iovmd_peer.py) and the
# guest's QEMU (iovmd_qemu.py) are small programs.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
# shellcheck source=selftests/kernel/iovmd.sh
. "$top/selftests/kernel/iovmd.sh"
iovmd_set_up "disk1 disk1.export disk2 disk2.export disk3 disk3.export"
ip addr add 127.0.0.3/8 dev lo 2>/dev/null
ip addr add 127.0.0.4/8 dev lo 2>/dev/null
echo "1..9"

host='name = a
listen = 127.0.0.1
transport = plain-tcp'

write() { # SECTIONS: the configuration
	printf '[host]\n%s\n%s\n' "$host" "$1" >"$tmp/iovmd.conf"
}

peer() { # NAME ADDRESS [ANSWERS]: an agent, which answers so
	[ $# -lt 3 ] || echo "$3" >"$tmp/asked.$1.answers"
	python3 "$here/iovmd_peer.py" peer "$tmp/asked.$1" "$2" "$1" 2>>"$tmp/peer.log" &
	peer=$!
	bg+=("$peer")
}

reloads() { # RC: the answer is in $out and $err
	exits "$1" config reload --socket "$sock"
}

did() { # CONDITION: of what the answer says, as lists by "WHAT NAME": c["device disk1"] == ["kept", TEXT]
	run config reload --socket "$sock" --json
	python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
c = {" ".join(filter(None, (x["what"], x["name"]))): [x["did"], x["text"] or ""] for x in d["changes"] if x["did"] != "note"}
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$tmp/out" "$1" || complain "not $1 but $(cat "$tmp/out")"
}

id_of() { "$ctl" show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])'; }
path_is() { # DEVICE PATH CONDITION: of the path p
	"$ctl" path list "$1" --json >"$tmp/try" 2>/dev/null && python3 -c 'import json, sys
p = [p for p in json.load(open(sys.argv[1])) if p["name"] == sys.argv[2]]
p = p[0] if p else None
sys.exit(0 if eval("(" + sys.argv[3] + ")") else 1)' "$tmp/try" "$2" "$3"
}
device_is() { # DEVICE CONDITION: of what show says of it, d
	"$ctl" show "$1" --json >"$tmp/try" 2>/dev/null && python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
sys.exit(0 if eval("(" + sys.argv[2] + ")") else 1)' "$tmp/try" "$2"
}
is_gone() { ! "$ctl" show "$1" >/dev/null 2>&1; }

b='[peer b]
address = 127.0.0.2'
c='[peer c]
address = 127.0.0.3'
disk1='[device disk1]
disk = /dev/ram0
peers = b
identity = local:disk1'
disk2='[device disk2]
disk = /dev/ram1
identity = local:disk2
no-path-timeout = 5min'
vm1="[guest vm1]
devices = disk1
qmp = $tmp/vm1.qmp
destination = b"

# --- what is new ---

write "$disk2"		# no peers: it does not listen yet
start
soon status_is 'not dev["disk2"]["trouble"] and dev["disk2"]["route"] == "local"'
reloads 0
says '^nothing has changed$' "$out" reload
peer b 127.0.0.2
write "$b
$c
$disk1
$disk2
$vm1"
did 'd["ok"] and {k: v[0] for k, v in c.items()} == {"peer b": "added", "peer c": "added", "device disk1": "added", "guest vm1": "added"}'
soon status_is 'not dev["disk1"]["trouble"] and len(dev["disk1"]["paths"]) == 2'
soon status_is '[(p["name"], p["connected"]) for p in d["peers"]] == [("b", True), ("c", False)] and guest["vm1"]["state"] == "idle"'
device_is disk1.export 'd["class"] == "target"' || complain "no export: $(cat "$tmp/try")"
python3 "$here/iovmd_peer.py" say 127.0.0.1 127.0.0.2 '{"op":"status"}' >"$tmp/try" 2>&1
grep -q '"host": "a"' "$tmp/try" || complain "it does not listen for peers: $(cat "$tmp/try")"
ok "what is new is made: the first peers, a device, a guest"

# --- mistakes ---

ids="$(id_of disk1) $(id_of disk2)"
write "$b
$c
$disk1
queus = 4
$vm1"
reloads 4
says "iovmd.conf:13: 'queus' is not a key of \[device\]" "$err" reload
says "hint: did you mean 'queues'" "$err" reload
says 'nothing was taken up: it has mistakes' "$err" reload
kill -HUP "$pid"
soon logged "iovmd.conf:13: 'queus' is not a key"
status_is 'd["config_changed"] and len(dev) == 2' || complain "after a mistake: $(cat "$tmp/status")"
[ "$ids" = "$(id_of disk1) $(id_of disk2)" ] || complain "devices were made anew"
ok "a configuration with mistakes is not taken up, by iovmctl or SIGHUP"

# --- values ---

host+=$'\nio-rate = 80mbit'
write "$b
$c
$disk1
no-path-timeout = 90s
local.fence-by = command
local.fence-command = /bin/true
remote.dead = 2500
${disk2%no-path*}iops = 100
$vm1
max-downtime = 50"
kill -HUP "$pid"
soon device_is disk1 'd["no_path_timeout_ms"] == 90000'
soon device_is disk2 'd["no_path_timeout_ms"] == 300000 and d["iops"] == 100'
soon path_is disk1 local 'p["fence_by"] == "command"'
soon path_is disk1.export local 'p["fence_by"] == "command"'
soon path_is disk1 b 'p and p["dead_ms"] == 2500'
paced() { pgrep -f 'iovmctl path watch --pace 80000000' >/dev/null; }
soon paced
logged "'iovmctl path watch' has ended" && complain "the watch's end is a surprise: $(cat "$tmp/log")"
[ "$ids" = "$(id_of disk1) $(id_of disk2)" ] || complain "devices were made anew"
status_is 'd["config_changed"] is False' || complain "changed: $(cat "$tmp/status")"
logged "configuration: device 'disk1': changed" || complain "not said: $(tail "$tmp/log")"
write "$b
$c
$disk1
$disk2
$vm1"
did 'c["device disk1"] == ["changed", "no-path-timeout 90s -> (none), local.fence-by command -> (none), local.fence-command /bin/true -> (none), remote.dead 2500 -> (none)"]'
soon device_is disk1 'd["no_path_timeout_ms"] == 300000'
soon path_is disk1 local 'p["fence_by"] == "hand"'
soon path_is disk1 b 'p and p["dead_ms"] == 5000'
soon status_is 'not dev["disk1"]["trouble"]'
ok "values: limits, times, fences, a path's, the pace of connections; and what is so by default"

# --- what takes a restart ---

host=${host/listen = 127.0.0.1/listen = 127.0.0.9}
host=${host/80mbit/40mbit}$'\nparallel-migrations = 3'
write "$b
$c
$disk1
$disk2
$vm1"
reloads 0
says "^host: not taken up: listen 127.0.0.1 -> 127.0.0.9$" "$out" reload
says "hint: it is so after 'systemctl restart iovmd'" "$out" reload
says "^host: changed: io-rate 80000000bit -> 40000000bit, parallel-migrations 1 -> 3$" "$out" reload
host=${host/127.0.0.9/127.0.0.1}
ok "what takes a restart is named, the rest is taken up"

# --- another address ---

peer c 127.0.0.4
write "$b
[peer c]
address = 127.0.0.4
data-port = 4444
${disk1/peers = b/peers = c b}
$disk2
$vm1"
did 'c["peer c"][0] == "changed" and c["device disk1"] == ["changed", "peers b -> c b"]'
soon status_is '[p["connected"] for p in d["peers"]] == [True, True]'
soon path_is disk1 c 'p and p["addr"] == "nbd://127.0.0.4:4444/disk1"'
write "$b
[peer c]
address = 127.0.0.4
${disk1/peers = b/peers = c b}
$disk2
$vm1"
reloads 0
soon path_is disk1 c 'p and p["addr"] == "nbd://127.0.0.4:10809/disk1"'
path_is disk1 b 'p' || complain "the other path has gone"
write "$b
$disk1
$disk2
$vm1"
did 'c["peer c"] == ["removed", ""] and c["device disk1"] == ["changed", "peers c b -> b"]'
soon path_is disk1 c 'not p'
status_is '[p["name"] for p in d["peers"]] == ["b"]' || complain "peers: $(cat "$tmp/status")"
kill "$peer"
wait "$peer" 2>/dev/null
ok "a peer at another address, a peer that goes: its connections and paths"

# --- in use ---

guest disk2
kept="$(id_of disk2)"
write "$b
$disk1
$disk2
queues = 2
bps = 1G
$vm1"
did 'c["device disk2"] == ["kept", "a guest uses it"]'
device_is disk2 'd["bps"] == 0' || complain "a part was taken up: $(cat "$tmp/try")"
write "$b
$disk1
$vm1"
reloads 0
says "^device 'disk2': stays as it is: a guest uses it$" "$out" reload
says "hint: stop the guest, then 'iovmctl config reload' again" "$out" reload
status_is 'dev["disk2"]["kept"] == "a guest uses it" and dev["disk2"]["route"] == "local"' || complain "status: $(cat "$tmp/status")"
"$ctl" status --socket "$sock" | grep -q 'not as it is configured now: a guest uses it' || complain "status does not say it"
# its disk for another device: nothing of that is taken up
write "$b
$disk1
no-path-timeout = 70s
${disk2//disk2/disk3}
$vm1"
reloads 4
says "iovmd.conf:[0-9]+: 'disk' is that of device 'disk2', which stays as it is: a guest uses it" "$err" reload
says 'nothing was taken up: it does not go together' "$err" reload
status_is '"disk3" not in dev and "disk2" in dev' || complain "status: $(cat "$tmp/status")"
device_is disk1 'd["no_path_timeout_ms"] == 300000' || complain "a part was taken up: $(cat "$tmp/try")"
[ "$(id_of disk2)" = "$kept" ] || complain "it was made anew under its guest"
kill "$guest"
wait "$guest"
grep -q ' 0 errors' "$tmp/disk2.out" || complain "the guest: $(cat "$tmp/disk2.out")"
reloads 0
says "^device 'disk2': removed$" "$out" reload
says "^device 'disk3': added$" "$out" reload
soon is_gone disk2
soon status_is 'not dev["disk3"]["trouble"] and dev["disk3"]["route"] == "local" and "disk2" not in dev'
write "$b
$disk1
${disk2//disk2/disk3}
queues = 3
$vm1"
reloads 0
says "^device 'disk3': changed: queues \(none\) -> 3$" "$out" reload
soon device_is disk3 'd["queues"] == 3'
ok "a device stays as it is while a guest uses it, and its disk is nobody else's"

# --- epochs ---

soon status_is 'not dev["disk3"]["trouble"]'
disk3="${disk2//disk2/disk3}
queues = 3"
write "$b
$disk1
${disk3/identity/peers = b
identity}
$vm1"
reloads 0
soon device_is disk3.export 'd["class"] == "target"'
guest disk3
device_is disk3 'd["epoch_held"]' || complain "no epoch: $(cat "$tmp/try")"
soon grep -q '"op":"epoch-raised","device":"disk3"' "$tmp/asked.b"
# one more, that has to hear of it
peer c 127.0.0.3
write "$b
$c
$disk1
${disk3/identity/peers = b c
identity}
$vm1"
reloads 0
says "^device 'disk3': changed: peers b -> b c$" "$out" reload
soon grep -q '"op":"epoch-raised","device":"disk3"' "$tmp/asked.c"
# without any it would need none
write "$b
$c
$disk1
$disk3
$vm1"
did 'c["device disk3"] == ["kept", "a guest uses it"]'
kill "$guest"
wait "$guest"
did 'c["device disk3"][0] == "changed"'
soon is_gone disk3.export
soon device_is disk3 'd["epoch_held"] is None or d["epoch_held"] is False'
soon status_is 'not dev["disk3"]["trouble"]'
ok "epochs: a peer that is new hears of it; none is needed without peers"

# --- a migration ---

echo '{"prepare":{"uri":"tcp:127.0.0.2:4444"}}' >"$tmp/asked.b.answers"
python3 "$here/iovmd_qemu.py" "$tmp/vm1.qmp" "$tmp/vm1.log" "$tmp/vm1.answers" &
bg+=("$!")
listens "$tmp/vm1.qmp" || complain "no QEMU"
"$ctl" epoch take disk1 1 >/dev/null || complain "epoch take"
echo '{"hold":true}' >"$tmp/vm1.answers"
"$ctl" migrate vm1 --socket "$sock" >"$tmp/migrate" 2>&1 &
migrate=$!
soon status_is 'any(s["what"] == "active" for s in guest["vm1"]["steps"])'
write "$c
$disk3
bps = 2G"
did 'all(c[k] == ["kept", "guest \x27vm1\x27 is being migrated"] for k in ("guest vm1", "device disk1", "peer b")) and c["device disk3"][0] == "changed"'
soon device_is disk3 'd["bps"] == 2 << 30'
status_is 'guest["vm1"]["state"] == "migrating" and guest["vm1"]["kept"]' || complain "status: $(cat "$tmp/status")"
echo '{}' >"$tmp/vm1.answers"
wait "$migrate" || complain "migrate: $(cat "$tmp/migrate")"
did 'c["guest vm1"][0] == c["device disk1"][0] == c["peer b"][0] == "removed"'
soon is_gone disk1
soon is_gone disk1.export
status_is 'not guest and list(dev) == ["disk3"] and [p["name"] for p in d["peers"]] == ["c"]' || complain "status: $(cat "$tmp/status")"
ok "a migration is not disturbed: its guest, device and peer stay until it has ended"

# --- again and again ---

rss() { awk '/^VmRSS/ { print $2 }' "/proc/$pid/status"; }
for ((i = 0; i < 30; i++)); do
	[ "$i" != 10 ] || before=$(rss)
	if [ $((i % 2)) = 0 ]; then
		write "$b
$c
$disk1
$disk3
$vm1"
	else
		write "$c
$disk3"
	fi
	# whatever is under way: steps, connections
	"$ctl" config reload --socket "$sock" >/dev/null 2>"$tmp/try" || complain "reload $i: $(cat "$tmp/try")"
done
# ASan keeps what was freed for a while
[ "$(rss)" -lt $((before + 256)) ] || grep -q __asan_init "$agent" || complain "its memory grew from $before to $(rss) KiB"
soon is_gone disk1
status_is 'list(dev) == ["disk3"]' || complain "status: $(cat "$tmp/status")"
write "$b
$disk1
$disk3
$vm1"
reloads 0
soon status_is 'not dev["disk1"]["trouble"] and not dev["disk3"]["trouble"] and d["peers"][0]["connected"]'
kill "$pid"
wait "$pid" || complain "SIGTERM: status $?: $(tail -n 40 "$tmp/log")"
grep -q 'Sanitizer\|runtime error' "$tmp/log" && complain "sanitizer: $(grep -A40 'Sanitizer\|runtime error' "$tmp/log")"
ok "again and again: whatever is under way, and without growing"

conclude
