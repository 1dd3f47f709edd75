#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# iovmctl config check and show, under ASan, and the examples of iovmd's configuration. The mistakes themselves are the matter of
# test_iovmd_config*.
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C
umask 022
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in
export IOVM_FAKE_LOG=$tmp/log
: >"$tmp/log"

echo "KTAP version 1"
echo "1..9"

cat >"$tmp/good" <<'END'
[host]
name = a
transport = plain-tcp
io-rate = 1.5mbit
[peer b]
address = fd00::1
[peer c]
address = c
data-port = 2000
fence-command = /usr/sbin/off c
[device d]
disk = "/dev/odd #1"
peers = b
queues = 4
readonly = off
write-zeroes = no
serial = " x # \" "
local.fence-command = /usr/sbin/fence
remote.dead = 2500
[device e]
peers = c b
[guest g]
devices = d
qmp = /run/g
destination = b
settle = 1.5s
flaps = 0
group = web
migrate = on-failure
command = exec /usr/bin/start "$IOVM_QMP"
[guest h]
devices = e
migrate-command = virsh migrate h
END
mkdir "$tmp/d"
printf '[device x]\npeers = c\n' >"$tmp/d/x.conf"

exits 0 config check "$tmp/good" --dir ""
[ "$out" = "host a: no mistake found, transport plain-tcp
  peers:    2: b, c
  devices:  2: d, e
  guests:   2: g, h" ] || complain "$out"
[ -z "$err" ] || complain "$err"
exits 0 config check "$tmp/good" --dir "$tmp/d"
says "devices:  3: d, e, x" "$out" config check
exits 0 config check -d "$tmp/nowhere" "$tmp/d/../good"
: >"$tmp/empty"
exits 0 config check "$tmp/empty" --dir ""
says "peers:    0$" "$out" config check
ok "check says what is configured"

json 'd == {"host": "a", "transport": "plain-tcp", "peers": ["b", "c"], "devices": ["d", "e", "x"], "guests": ["g", "h"]}' \
	config check "$tmp/good" --dir "$tmp/d"
ok "and as JSON"

printf '[host]\nname = a\nlitsen = b\n[device x]\n' >"$tmp/bad"
exits 4 config check "$tmp/bad" --dir "$tmp/d"
[ -z "$out" ] || complain "$out"
[ "$err" = "$tmp/bad:3: 'litsen' is not a key of [host]
  hint: did you mean 'listen'?
$tmp/d/x.conf:1: [device x] is there twice
  hint: the first is at $tmp/bad:4; put its keys there, or give this one another name
$tmp/bad:4: [device x] has neither 'disk' nor 'peers'
  hint: write 'disk = /dev/...', or 'peers = NAME', or both" ] || complain "$err"
{ echo '[host]'; yes x | head -30; } >"$tmp/many"
exits 4 config check "$tmp/many" --dir ""
says '^and 10 more$' "$err" config check
: >"$tmp/loose"
chmod 666 "$tmp/loose"
exits 4 config check "$tmp/loose" --dir ""
says "^$tmp/loose: the file can be written by others than its owner$" "$err" config check
exits 4 config show "$tmp/bad" --dir ""
[ -z "$out" ] || complain "$out"
ok "mistakes with file and line, and what to do"

run config check "$tmp/bad" --dir "" --json
[ "$rc" = 4 ] && [ -z "$out" ] || complain "exit $rc: $out"
python3 -c 'import json,sys
d = json.load(open(sys.argv[1]))
assert d["exit"] == 4 and d["mistakes_total"] == 2, d
assert d["mistakes"][0] == {"file": sys.argv[2], "line": 3, "text": "'"'litsen' is not a key of [host]"'",
    "hint": "did you mean '"'listen'"'?"}, d' "$tmp/err" "$tmp/bad" 2>"$tmp/why" || complain "$(cat "$tmp/why")"
run config check "$tmp/loose" --dir "" --json
python3 -c 'import json,sys
assert json.load(open(sys.argv[1]))["mistakes"][0]["line"] is None' "$tmp/err" 2>"$tmp/why" || complain "$(cat "$tmp/why")"
ok "and as JSON on standard error"

exits 3 config check "$tmp/nowhere"
says "there is no '$tmp/nowhere'" "$err" config check
says "hint: iovmd.conf\(5\)" "$err" config check
exits 2 config check a b
exits 2 config
says "'config' needs one of: check, show" "$err" config
exits 2 config frobnicate
run config --help
says "config check \[FILE\]" "$out" config --help
ok "no such file, no such command"

exits 0 config show "$tmp/good" --dir ""
printf '%s\n' "$out" >"$tmp/shown"
[ "$out" = '[host]
name = a
listen = *
peer-port = 10808
data-port = 10809
transport = plain-tcp
tls-dir = /etc/iovm/tls
io-rate = 1500000bit
check-interval = 600s
parallel-migrations = 1

[peer b]
address = fd00::1
peer-port = 10808
data-port = 10809
libvirt-uri = qemu+tls://[fd00::1]/system

[peer c]
address = c
peer-port = 10808
data-port = 2000
libvirt-uri = qemu+tls://c/system
fence-command = /usr/sbin/off c
fence-after = 30s

[device d]
disk = "/dev/odd #1"
peers = b
serial = " x # \" "
queues = 4
write-zeroes = no
local.fence-command = /usr/sbin/fence
remote.dead = 2500

[device e]
peers = c b

[guest g]
devices = d
qmp = /run/g
destination = b
migrate = on-failure
settle = 1500ms
flaps = 0
flap-window = 300s
group = web
command = exec /usr/bin/start "$IOVM_QMP"
auto-converge = yes
timeout = never

[guest h]
devices = e
migrate = on-request
settle = 10s
flaps = 3
flap-window = 300s
migrate-command = virsh migrate h
timeout = never' ] || complain "$out"
exits 0 config show "$tmp/shown" --dir ""
printf '%s\n' "$out" | cmp -s - "$tmp/shown" || complain "what was shown reads differently: $out"
ok "show prints all of it, as a file that can be read"

json 'd["host"]["io_rate_bits"] == 1500000 and d["host"]["class"] is None and d["host"]["listen"] == "*"' config show "$tmp/good" --dir ""
json '[p["data_port"] for p in d["peers"]] == [10809, 2000] and [p["name"] for p in d["peers"]] == ["b", "c"]' config show "$tmp/good" --dir ""
json 'd["devices"][0] == {"name": "d", "disk": "/dev/odd #1", "peers": ["b"], "options": {"serial": " x # \" ", "queues": "4",
	"write-zeroes": "no", "local.fence-command": "/usr/sbin/fence", "remote.dead": "2500"}}' config show "$tmp/good" --dir ""
json 'd["guests"][0] == {"name": "g", "devices": ["d"], "qmp": "/run/g", "destination": "b", "migrate": "on-failure",
	"settle_ms": 1500, "flaps": 0, "flap_window_ms": 300000, "group": "web", "command": "exec /usr/bin/start \"$IOVM_QMP\"", "unit": None, "libvirt": None, "libvirt_tls": False, "migrate_command": None, "max_downtime_ms": 0,
	"max_bandwidth_bytes": 0, "channels": 0, "auto_converge": True, "timeout_ms": 0}' config show "$tmp/good" --dir ""
ok "show as JSON"

# the examples: of the manual, host A's and host B's; the one that is installed, also with all that is commented out
sed -n '/^\.SH EXAMPLES/,$p' "$top/docs/man/iovmd.conf.5" | sed 's/\\-/-/g' |
	awk -v to="$tmp/example" '/^\.nf/ { n++; on = 1; next } /^\.fi/ { on = 0 } on && !/^\./ { print > (to n) }'
exits 0 config check "$tmp/example1" --dir ""
says "host a: no mistake found, transport tls" "$out" config check
exits 0 config check "$tmp/example2" --dir ""
says "host b: no mistake found, transport tls" "$out" config check
exits 0 config check "$top/userland/iovmd/iovmd.conf.example" --dir ""
says "guests:   1: vm1" "$out" config check
sed 's/^#\([a-z]\)/\1/' "$top/userland/iovmd/iovmd.conf.example" >"$tmp/all"
exits 0 config check "$tmp/all" --dir ""
exits 0 config show "$tmp/all" --dir ""
says "^local.fence-by = offline" "$out" config show
ok "the examples have no mistakes"

[ ! -s "$IOVM_FAKE_LOG" ] || complain "the kernel was asked something: $(cat "$IOVM_FAKE_LOG")"
ok "the kernel is not asked"

conclude
