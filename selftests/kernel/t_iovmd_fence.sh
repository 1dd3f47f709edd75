#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Who may write when a peer cannot be asked, on one host and a live kernel: the guest waits; a host that is gone is fenced, one that lives
# never is; nobody is waited for when the one that had the epoch hands it over; and no space where epochs are kept. The peers (iovmd_peer.py) are small programs.

top=$(cd "$(dirname "$0")/../.." && pwd)
ctl=$(command -v iovmctl || echo "$top/build/userland/iovmctl/iovmctl")
# shellcheck source=selftests/unit/iovmctl.sh
. "$top/selftests/unit/iovmctl.sh" || exit 1

echo "KTAP version 1"
# shellcheck source=selftests/kernel/iovmd.sh
. "$top/selftests/kernel/iovmd.sh"
iovmd_set_up "disk1 disk1.export disk2 disk2.export"
ip addr add 127.0.0.3/8 dev lo 2>/dev/null
echo "1..7"

cat >"$tmp/iovmd.conf" <<-END
	[host]
	name = a
	listen = 127.0.0.1
	transport = plain-tcp
	[peer b]
	address = 127.0.0.2
	fence-after = 4s
	fence-command = $tmp/fence off
	[peer c]
	address = 127.0.0.3
	[device disk1]
	disk = /dev/ram0
	peers = b
	identity = local:disk1
	no-path-timeout = 5min
	[device disk2]
	disk = /dev/ram1
	peers = c b
	identity = local:disk2
	no-path-timeout = 5min
END
cat >"$tmp/fence" <<-END
	#!/bin/sh
	[ -e $tmp/at ] || date +%s%3N >$tmp/at
	echo "\$IOVM_PEER \$IOVM_PEER_ADDRESS \$1" >>$tmp/fenced
	# it fails while that is there
	[ ! -e $tmp/says ] || { cat $tmp/says >&2; exit 3; }
END
chmod +x "$tmp/fence"

peer() { # NAME ADDRESS [ANSWERS]: an agent, which answers so
	[ $# -lt 3 ] || echo "$3" >"$tmp/asked.$1.answers"
	python3 "$here/iovmd_peer.py" peer "$tmp/asked.$1" "$2" "$1" 2>>"$tmp/peer.log" &
	peer=$!
	bg+=("$peer")
	soon status_is "[p['connected'] for p in d['peers'] if p['name'] == '$1'] == [True]"
}

end() { # PID
	kill "$1"
	wait "$1" 2>/dev/null
}

fenced() { [ "$(cat "$tmp/fenced" 2>/dev/null | wc -l)" = "$1" ]; }
holds() { "$ctl" show "$1" --json | grep -q '"epoch_held": true'; }

echo "the power switch does not answer" >"$tmp/says"
start
soon status_is 'not dev["disk1"]["trouble"] and not dev["disk2"]["trouble"]'
peer b 127.0.0.2 '{"epoch-give": {"ok": false, "error": "a guest runs on it on b"}}'
guest disk1
soon status_is '"a guest runs on it on b" in (dev["disk1"]["epoch_why"] or "")'
sleep 7
fenced 0 || complain "a host that answers was fenced"
# it cannot be asked, but has a connection to us, before it ends the other one: nobody can say how long it takes to make one
python3 "$here/iovmd_peer.py" hold 127.0.0.1 127.0.0.2 b >"$tmp/held" &
held=$!
bg+=("$held")
soon grep -q held "$tmp/held"
end "$peer"
soon status_is 'not d["peers"][0]["connected"]'
sleep 7
fenced 0 || complain "a host that has a connection to us was fenced"
holds disk1 && complain "its epoch is held"
ok "a peer that lives is not fenced, and the guest waits"

gone=$(date +%s%3N)
end "$held"
soon status_is '"cannot be asked: its fence-command is run when that lasts longer than 4 s" in (dev["disk1"]["epoch_why"] or "")'
soon fenced 1
[ $(($(cat "$tmp/at") - gone)) -ge 3900 ] || complain "fenced after $(($(cat "$tmp/at") - gone)) ms"
soon status_is '"its fence-command failed: the power switch does not answer" in (dev["disk1"]["epoch_why"] or "")'
sleep 10
fenced 1 || complain "run again and again: $(cat "$tmp/fenced")"
holds disk1 && complain "the epoch is held after a fence that failed"
status_is '[p["fenced"] for p in d["peers"]] == [False, False]' || complain "it counts as fenced: $(cat "$tmp/status")"
ok "a fence-command that fails: the guest waits, and it is run again later"

rm "$tmp/says"
soon fenced 2
soon holds disk1
[ "$(sort -u "$tmp/fenced")" = "b 127.0.0.2 off" ] || complain "what it was told: $(cat "$tmp/fenced")"
status_is '[p["fenced"] for p in d["peers"]] == [True, False] and dev["disk1"]["epoch_why"] is None and dev["disk1"]["epoch"] > 65536' ||
	complain "after the fence: $(cat "$tmp/status")"
end "$guest"
grep -q ' 0 errors' "$tmp/disk1.out" || complain "the guest: $(cat "$tmp/disk1.out")"
ok "the host is fenced, and the guest goes on, under an epoch that is greater than all it may have had"

# what the next iovmd knows of it: not when nobody has looked for so long that the host may have come and gone
is_fenced() { status_is "[p['fenced'] for p in d['peers']] == [$1, False]"; }
[ "$(cat "$run_dir/b.fenced")" -gt 1700000000 ] || complain "no mark: $(ls "$run_dir")"
kill_agent
touch -d '11 minutes ago' "$run_dir/b.fenced"
start
is_fenced False || complain "an old mark is believed: $(cat "$tmp/status")"
[ ! -e "$run_dir/b.fenced" ] || complain "an old mark stays"
kill_agent
date +%s >"$run_dir/b.fenced"
touch -d '9 minutes ago' "$run_dir/b.fenced"
start
is_fenced True || complain "it is forgotten: $(cat "$tmp/status")"
logged "peer 'b': it was fenced before this iovmd was started" || complain "not said: $(tail "$tmp/log")"
[ "$(($(date +%s) - $(stat -c %Y "$run_dir/b.fenced")))" -lt 60 ] || complain "the mark is not kept fresh"
"$ctl" status --socket "$sock" | grep -q 'not connected, fenced since 2' || complain "status: $("$ctl" status --socket "$sock")"
"$ctl" metrics --socket "$sock" | grep -q '^iovm_peer_fenced{peer="b"} 1$' || complain "metrics: $("$ctl" metrics --socket "$sock" | grep fenced)"
soon status_is 'not dev["disk1"]["trouble"] and not dev["disk2"]["trouble"]'
ok "the next iovmd knows that it is fenced, unless nobody has looked for long"

# it is back, hears of it, and does not count as fenced any more
rm "$tmp/asked.b.answers"
peer b 127.0.0.2
soon grep -q '"op":"epoch-raised","device":"disk1","epoch":655' "$tmp/asked.b"
status_is '[p["fenced"] for p in d["peers"]] == [False, False]' || complain "it still counts as fenced: $(cat "$tmp/status")"
[ ! -e "$run_dir/b.fenced" ] || complain "the next iovmd would take it for fenced"
logged "peer 'b': it is there again, and does not count as fenced any more" || complain "not said: $(tail "$tmp/log")"
end "$peer"
soon status_is 'not d["peers"][0]["connected"]'
echo "the power switch does not answer" >"$tmp/says"
guest disk2
peer c 127.0.0.3 '{"epoch-give": {"epoch": 70000, "held": false}}'
# c never had it: b may
soon status_is '"b. may have it and cannot be asked" in (dev["disk2"]["epoch_why"] or "").replace(chr(39), ".")'
soon fenced 3
holds disk2 && complain "it is held without b"
ok "a host that was fenced and came back is asked again"

# c had it, and hands it over: b, which cannot be asked, cannot have it
soon status_is '"fence-command failed" in (dev["disk2"]["epoch_why"] or "")'
echo '{"epoch-give": {"epoch": 70000, "held": true}}' >"$tmp/asked.c.answers"
soon holds disk2
status_is 'dev["disk2"]["epoch"] == 70001 and [p["fenced"] for p in d["peers"]] == [False, False]' || complain "epoch: $(cat "$tmp/status")"
grep -q '"op":"epoch-raised","device":"disk2","epoch":70001' "$tmp/asked.c" || complain "c was not told: $(cat "$tmp/asked.c")"
end "$guest"
grep -q ' 0 errors' "$tmp/disk2.out" || complain "the guest: $(cat "$tmp/disk2.out")"
peer b 127.0.0.2
soon grep -q '"op":"epoch-raised","device":"disk2","epoch":70001' "$tmp/asked.b"
ok "the one that had it hands it over: a third host that is gone does not matter, and hears of it later"

# No space where epochs are kept: what cannot be written down is neither given up to others nor taken, and it goes on when there is some
says() { # REQUEST PATTERN: b says it, and is answered so
	python3 "$here/iovmd_peer.py" say 127.0.0.1 127.0.0.2 "$1" >"$tmp/try" 2>&1
	grep -Eq -- "$2" "$tmp/try" || complain "$1: $(cat "$tmp/try")"
}
cp -a "$state_dir/epochs" "$tmp/kept"
mount -t tmpfs -o size=64k none "$state_dir/epochs"
cp -a "$tmp/kept/." "$state_dir/epochs/"
dd if=/dev/zero of="$state_dir/epochs/fill" bs=4k 2>/dev/null
says '{"op":"epoch-give","device":"disk2"}' 'cannot be kept in .*/epochs.: No space left on device'
holds disk2 && complain "a guest could still write"
says '{"op":"epoch-raised","device":"disk2","epoch":80000}' 'cannot be kept in .*/epochs.: No space left on device'
[ "$(cat "$state_dir/epochs/disk2")" = "$(cat "$tmp/kept/disk2")" ] || complain "what is kept: $(cat "$state_dir/epochs/disk2")"
"$ctl" show disk2.export --json | grep -q '"epoch": 80000' && complain "what is not written down is admitted"
guest disk2
soon status_is '"No space left on device" in (dev["disk2"]["epoch_why"] or "")'
sleep 3
holds disk2 && complain "taken, and not written down"
rm "$state_dir/epochs/fill"
soon holds disk2
epoch=$(cat "$state_dir/epochs/disk2")
[ "${epoch#* }" = a ] && status_is "dev['disk2']['epoch'] == ${epoch% *} > 70001" || complain "epoch: $epoch"
end "$guest"
grep -q ' 0 errors' "$tmp/disk2.out" || complain "the guest: $(cat "$tmp/disk2.out")"
umount -l "$state_dir/epochs"
ok "no space where epochs are kept: nothing is given up or taken, and status says so; with space the guest goes on"

conclude
