# title: A hidden module has the kernel call it again and again: by a kernel thread
# technique: T1014
# detector: deferred-code
# also: hidden-modules
# module: call_later
insmod "$module" way=0 || exit 1
grep -q '^call_later ' /proc/modules && exit 1
before=$(cat /sys/module/call_later/parameters/count)
sleep 1
after=$(cat /sys/module/call_later/parameters/count)
[ "$after" -gt "$before" ] || exit 1
printf 'subject: kernel thread 0x%x\n' "$(cat /sys/module/call_later/parameters/place)"
echo "proof: its loop ran $((after - before)) times, by a module that /proc/modules does not show"
# undo
echo 1 > /sys/module/call_later/parameters/show && rmmod call_later
