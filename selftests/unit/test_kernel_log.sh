#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What selftests/env/kernel-log.* take for a report: KCSAN's in which one of our functions takes part, and no others.
#
# Writes KTAP.

export LC_ALL=C
env=$(cd "$(dirname "$0")/../env" && pwd)
number=0
fails=0

# As guest-kselftest does it.
reports() {
	awk -f "$env/kernel-log.races" | grep -Ef "$env/kernel-log.reports" | grep -vEf "$env/kernel-log.harmless"
}

race() { # TITLE FRAME...: a report
	echo '=================================================================='
	echo "BUG: KCSAN: data-race in $1"
	shift
	echo
	echo 'write to 0xffff888004a2c0a8 of 8 bytes by task 391 on cpu 1:'
	printf '%s\n' "$@"
	echo
	echo 'Reported by Kernel Concurrency Sanitizer on:'
	echo 'CPU: 1 UID: 0 PID: 391 Comm: iovm-380 Tainted: G           O       6.12.0-kcsan #1'
	echo '=================================================================='
}

# expect NAME REPORT...: these lines, of what is written to it, are reports
expect() {
	local name=$1 want got
	shift
	want=$(printf '%s\n' "$@")
	got=$(reports)
	number=$((number + 1))
	if [ "$want" = "$got" ]; then
		echo "ok $number $name"
	else
		fails=$((fails + 1))
		sed 's/^/# /' <<<"$got"
		echo "not ok $number $name"
	fi
}

ours='BUG: KCSAN: data-race in iovm_req_issue [iovm_mux] / viovm_blk_oldest [vhost_iovm_blk]'
below='BUG: KCSAN: data-race in bio_init / blk_account_io_done'
flags='__blk_flush_plug+0x23f/0x290'
warning='WARNING: CPU: 0 PID: 1 at vhost_iovm/vq.c:1'
theirs='tick_nohz_next_event / tick_do_update_jiffies64'

echo "KTAP version 1"
echo "1..11"
expect "a race of ours" "$ours" < <(
	race "${ours#*in }" 'iovm_req_issue+0x3c/0x1f0 [iovm_mux]' 'vhost_task_fn+0x80/0x120'
)
expect "one that we have led to" "$below" < <(
	race "${below#*in }" 'bio_init+0x1c/0xb0' 'viovm_bdev_submit+0x4f/0x70 [vhost_iovm_blk]'
)
expect "one of others" "" < <(race "$theirs" 'tick_nohz_next_event+0x40/0x90' 'do_idle+0x11/0x20')
expect "one of ours, and something else, among others" "$warning" "$ours" < <(
	race "$theirs" 'tick_nohz_next_event+0x40/0x90' "$warning"
	race "${ours#*in }" 'iovm_req_issue+0x3c/0x1f0 [iovm_mux]'
	race "$theirs" 'do_idle+0x11/0x20'
)
expect "one that is cut off" "$ours" < <(
	race "${ours#*in }" 'iovm_req_issue+0x3c/0x1f0 [iovm_mux]' 'vhost_task_fn+0x80/0x120' | head -5
)
expect "the scheduler's, in a task's flags, below one of ours" "" < <(
	race "$flags" '__blk_flush_plug+0x23f/0x290' 'viovm_bdev_send+0x14d/0x180 [vhost_iovm_blk]'
)
expect "one there with another function" "BUG: KCSAN: data-race in $flags / bio_init" < <(
	race "$flags / bio_init" '__blk_flush_plug+0x23f/0x290' 'viovm_bdev_send+0x14d/0x180 [vhost_iovm_blk]'
)
expect "an interrupt's look at a task's plug, below one of ours" "" < <(
	race "__blk_mq_end_request / blk_start_plug" 'blk_start_plug+0xef/0x110' 'viovm_blk_vq_run+0xb80/0x1340 [vhost_iovm_blk]'
	race "__submit_bio / __blk_mq_end_request" '__submit_bio+0x177/0x490' 'viovm_bdev_send+0x14d/0x180 [vhost_iovm_blk]'
)
expect "its race with one of ours" "BUG: KCSAN: data-race in __blk_mq_end_request / viovm_blk_vq_run [vhost_iovm_blk]" < <(
	race "__blk_mq_end_request / viovm_blk_vq_run [vhost_iovm_blk]" 'viovm_blk_vq_run+0xb80/0x1340 [vhost_iovm_blk]'
)
queue='blk_mq_delay_run_hw_queue / blk_mq_delay_run_hw_queue'
expect "the block layer's own, far below one of ours" "" < <(
	race "$queue" 'blk_mq_delay_run_hw_queue+0xbd/0x310' 'blk_mq_run_hw_queue+0x339/0x4c0' 'blk_mq_flush_plug_list+0xa43/0xb60' \
		'__blk_flush_plug+0x206/0x290' 'viovm_bdev_dwz_work+0x209/0x250 [vhost_iovm_blk]'
)
expect "one of ours in the second access" "BUG: KCSAN: data-race in $queue" < <(
	race "$queue" 'blk_mq_delay_run_hw_queue+0xbd/0x310' 'blk_mq_run_hw_queue+0x339/0x4c0' 'submit_bio+0xa4/0xb6' '' \
		'read to 0xffff888004a2c0a8 of 8 bytes by task 12 on cpu 0:' 'blk_mq_delay_run_hw_queue+0xbd/0x310' \
		'viovm_bdev_dwz_work+0x209/0x250 [vhost_iovm_blk]'
)
exit $((fails > 0))
