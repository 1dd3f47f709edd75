#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# How iovmctl fences a path, by hand and from the watcher: which program is run with what, what the kernel is told of it, what its
# user reads. The kernel is played by a preloaded library (iovmctl_fake.c), in which path a of vm-2.data has failed with 3 writes.
#
# Writes KTAP. OUT= is where the programs are built.

export LC_ALL=C TZ=UTC
# shellcheck source=selftests/unit/iovmctl.sh
. "$(dirname "$0")/iovmctl.sh" || exit 1
on_stand_in
umask 022

export IOVM_FAKE_LOG=$tmp/log IOVM_FAKE_FENCE=$tmp/fence IOVM_FAKE_FENCED=$tmp/fenced
: >"$IOVM_FAKE_LOG"

# want RC [PATTERN in stdout [PATTERN in stderr]] ARGS...
want() {
	local code=$1 so=$2 se=$3
	shift 3
	exits "$code" "$@"
	[ -z "$so" ] || says "$so" "$out" "$@"
	[ -z "$se" ] || says "$se" "$err" "$@"
}
logged() {
	grep -Eq -- "$1" "$IOVM_FAKE_LOG" || complain "not asked /$1/: $(cat "$IOVM_FAKE_LOG")"
}
# The kernel was told this status of path a (id 2, generation 5), once
told() {
	logged "^path-ctl id=2 generation=5 status=$1$"
	[ "$(grep -c '^path-ctl id=' "$IOVM_FAKE_LOG")" = 1 ] || complain "told more than once: $(cat "$IOVM_FAKE_LOG")"
}
# program: the fence command is what comes on standard input
program() {
	rm -f "$tmp/fence" "$tmp/fenced" "$tmp/ran"
	: >"$IOVM_FAKE_LOG"
	{ echo '#!/bin/bash'; echo "tmp=$tmp"; cat; } >"$tmp/fence"
	chmod 0755 "$tmp/fence"
}
# until_true COMMAND...: it succeeds, or does soon
until_true() {
	local deadline=$((SECONDS + 40))
	until "$@"; do
		[ $SECONDS -lt $deadline ] || { complain "not in time: $*: $(cat "$tmp"/watch* 2>/dev/null)"; return 1; }
		sleep 0.1
	done
}
runs() { # PID: and is no zombie that nobody waits for
	[ -e "/proc/$1/stat" ] && [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -c1)" != Z ]
}
watch() { # FILE OPTIONS...: the watcher, with its output there; $watcher is its pid
	local file=$1
	shift
	LD_PRELOAD=$preload "$ctl" path watch vm-2.data "$@" >"$tmp/$file" 2>&1 </dev/null &
	watcher=$!
	bg+=("$watcher")
}
end_watch() { # its children too: not all of them may have ended
	kill "$watcher" 2>/dev/null
	wait "$watcher" 2>/dev/null
}

echo "KTAP version 1"
echo "1..10"

want 2 "" "none of hand, command, offline" path add vm1 p /dev/null --fence-by maybe
want 2 "" "belong together" path add vm1 p /dev/null --fence-by command
want 2 "" "belong together" path add vm1 p /dev/null --fence-by hand --fence-command /bin/true
want 2 "" "belong together" path add vm1 p /dev/null --fence-by reservation
want 2 "" "belong together" path add vm1 p /dev/null --fence-by hand --pr-key 1
for key in 0 -1 0x1g 0x10000000000000000 ''; do
	want 2 "" "'$key' is not a number" path add vm1 p /dev/null --pr-key "$key"
done
want 2 "" "at most 1h" path add vm1 p /dev/null --fence-command /bin/true --fence-after 2h
want 2 "" "is for what" path add vm1 p /dev/null --fence-after 2s
want 4 "" "'fence' is not an absolute file name" path add vm1 p /dev/null --fence-command fence
want 4 "" "does not exist" path add vm1 p /dev/null --fence-command "$tmp/none"
want 4 "" "not a program" path add vm1 p /dev/null --fence-command /etc/passwd
program </dev/null
chmod 0777 "$tmp/fence"
want 4 "" "can be changed by others than root" path add vm1 p /dev/null --fence-command "$tmp/fence"
chmod 0755 "$tmp/fence"
want 0 "" "" path add vm1 n "nbd+unix:///?socket=$tmp/none" --offline --fence-command "$tmp/fence" --fence-after 0
logged "^path-add fence-by=1 after=1 command=$tmp/fence$"
ok "path add: what is no fence command, and one that is"

program </dev/null
want 2 "" "nothing to set" path set vm-2.data a
want 2 "" "none of hand, command, offline" path set vm-2.data a --fence-by maybe
want 2 "" "belong together" path set vm-2.data a --fence-by hand --fence-command /bin/true
want 2 "" "is for what" path set vm-2.data a --fence-by hand --fence-after 2s
want 4 "" "does not exist" path set vm-2.data a --fence-command "$tmp/none"
want 4 "" "a reservation is made and given up" path set vm-2.data a --fence-by reservation
want 4 "" "is no whole, directly attached SCSI or NVMe disk" path set vm1 local --fence-by offline
! grep -q '^path-set' "$IOVM_FAKE_LOG" || complain "asked all the same: $(cat "$IOVM_FAKE_LOG")"
want 0 "" "" path set vm-2.data a --fence-after 7s
logged "^path-set fence-by=1 after=7000 command=$tmp/fence$"
want 0 "" "" path set vm-2.data a --fence-command /bin/true --fence-after 0
logged "^path-set fence-by=1 after=1 command=/bin/true$"
want 0 "" "" path set vm-2.data a --fence-by hand
logged "^path-set fence-by=0 after=0 command=$"
want 0 "" "" path set vm1 local --fence-command "$tmp/fence"
logged "^path-set fence-by=1 after=0 command=$tmp/fence$"
ok "path set: what is not given stays"

program <<-'END'
	env >$tmp/env
	echo "$#" "$(ls /proc/self/fd | wc -l)" "$(readlink /proc/self/fd/0)" >$tmp/ran
	echo said by the command
END
want 0 "^vm-2.data: path 'a' is fenced by $tmp/fence$" "^said by the command$" path fence vm-2.data a
told 0
logged "^path-ctl a op=3$"
[ "$(cat "$tmp/ran")" = "0 4 /dev/null" ] || complain "arguments, descriptors, standard input: $(cat "$tmp/ran")"
for v in IOVM_DEVICE=vm-2.data IOVM_PATH=a IOVM_PATH_KIND=nbd IOVM_PATH_ERROR=ECONNRESET IOVM_WAITING=3 IOVM_ATTEMPT=1 \
	'IOVM_PATH_ADDR=nbd://h/quote"back\slash'; do
	grep -qaF -- "$v" "$tmp/env" || complain "no $v in: $(cat "$tmp/env")"
done
! grep -q '^IOVM_FAKE\|^LD_PRELOAD' "$tmp/env" || complain "iovmctl's own environment: $(cat "$tmp/env")"
json 'd["paths"][0]["fence_command"] == "'"$tmp/fence"'" and d["paths"][0]["fence_by"] == "command" and d["paths"][0]["fenced"] and
	d["paths"][0]["unsettled"] == 0 and d["paths"][0]["fence_status"] is None' show vm-2.data
ok "the command: run without a shell, told what to fence, confirmed when it exits with 0"

program <<<'exit 3'
want 1 "" "path 'a' is not fenced: $tmp/fence: exit status 3 \(attempt 1\); 3 requests wait" path fence vm-2.data a
says "hint: .*'iovmctl path fenced vm-2.data a'" "$err" path fence
told 3
logged "^path-ctl a op=4$"
want 0 "^  last fence: +exit status 3$" "" show vm-2.data
want 0 "^  writes unsettled: +3$" "" show vm-2.data
program <<<'kill -9 $$'
want 1 "" "killed by SIGKILL" path fence vm-2.data a
told 265
program </dev/null
: >"$tmp/fence"
want 1 "" "ENOEXEC" path fence vm-2.data a
told -8
program </dev/null
rm "$tmp/fence"
want 1 "" "warning: the fence command $tmp/fence does not exist" path fence vm-2.data a
told -2
program </dev/null
chmod 0775 "$tmp/fence"
want 1 "" "can be changed by others" path fence vm-2.data a
told -1
ok "anything but 0: the kernel and the operator hear how it ended"

program <<-'END'
	trap 'date >$tmp/terminated' TERM
	sleep 1000 & echo $$ $! >$tmp/ran
	wait
	while :; do sleep 0.1; done
END
want 1 "" "not done within the time limit" path fence vm-2.data a --timeout 500ms
told -110
[ -e "$tmp/terminated" ] || complain "it was not asked to end"
for p in $(cat "$tmp/ran"); do
	! runs "$p" || complain "$p still runs"
done
ok "a command that does not end: asked to, killed, with its children"

program </dev/null
IOVM_FAKE_FAIL=0x14:116:"path a has been live again since" \
	want 4 "" "the fence of path 'a' does not count: path a has been live again since" path fence vm-2.data a
want 4 "" "says of no way to fence it" path fence vm1 local
says "hint: .*'iovmctl path fenced vm1 local'" "$err" path fence
program <<<'echo >$tmp/ran; sleep 3'
LD_PRELOAD=$preload "$ctl" path fence vm-2.data a >"$tmp/first" 2>&1 &
first=$!
until_true [ -e "$tmp/ran" ]
want 4 "" "just being fenced by another process" path fence vm-2.data a
wait $first || complain "the first one: $(cat "$tmp/first")"
told 0
ok "not counted, no way to, one at a time"

program <<-'END'
	echo >>$tmp/ran
	[ $(wc -l <$tmp/ran) -ge 4 ] || exit 5
END
watch watch1
until_true grep -q "fenced by $tmp/fence" "$tmp/watch1"
grep -q 'path-ctl id=2 generation=5 status=0' "$IOVM_FAKE_LOG" || complain "not confirmed: $(cat "$IOVM_FAKE_LOG")"
[ "$(grep -c 'status=5$' "$IOVM_FAKE_LOG")" = 3 ] || complain "not told three times: $(cat "$IOVM_FAKE_LOG")"
[ "$(grep -c 'exit status 5 (attempt [12])' "$tmp/watch1")" = 2 ] && ! grep -q 'attempt 3' "$tmp/watch1" ||
	complain "it says: $(cat "$tmp/watch1")"
sleep 3
[ "$(wc -l <"$tmp/ran")" = 4 ] || complain "it is run again although the path is fenced"
end_watch
ok "path watch: tries again until it succeeds, and says less and less"

program <<<'[ $IOVM_ATTEMPT = 2 ] || exit 7'
watch watch2 --json
until_true grep -q '"fenced":true' "$tmp/watch2"
end_watch
grep '"attempt"' "$tmp/watch2" >"$tmp/objects"
python3 -c 'import json,sys
d = [json.loads(line) for line in open(sys.argv[1])]
assert len(d) == 2 and d[0]["device"] == "vm-2.data" and d[0]["path"] == "a" and d[0]["by"] == "command", d
assert d[0]["fenced"] is False and d[0]["status"] == "exit status 7" and d[0]["waiting"] == 3 and "path fenced" in d[0]["hint"], d
assert d[1]["fenced"] is True and d[1]["status"] is None and d[1]["attempt"] == 2, d' "$tmp/objects" || complain "$(cat "$tmp/watch2")"
ok "path watch --json"

# The watcher is killed: the attempt goes on, a new watcher waits for it. Then the attempt is: its command ends with it.
program <<-'END'
	echo $$ $PPID >>$tmp/ran
	while [ ! -e $tmp/go ]; do sleep 0.1; done
END
watch watch3
until_true [ -s "$tmp/ran" ]
kill -9 "$watcher"
wait "$watcher" 2>/dev/null
watch watch4
sleep 3
[ "$(wc -l <"$tmp/ran")" = 1 ] || complain "two at a time: $(cat "$tmp/ran")"
read -r command attempt <"$tmp/ran"
kill -9 "$attempt"
until_true eval '[ "$(wc -l <"$tmp/ran")" = 2 ]'
! runs "$command" || complain "the first command still runs"
touch "$tmp/go"
until_true grep -q "fenced by" "$tmp/watch4"
end_watch
told 0
ok "path watch: killed, and taken up by another one"

program <<<'echo >>$tmp/ran'
export IOVM_FAKE_FENCE_AFTER=3600000
watch watch5
sleep 2
[ ! -e "$tmp/ran" ] || complain "fenced at once"
end_watch
unset IOVM_FAKE_FENCE_AFTER
ok "path watch: not before --fence-after"

conclude
