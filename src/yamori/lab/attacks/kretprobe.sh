# title: A module counts the returns of a kernel function by a kretprobe
# technique: T1014
# detector: kprobes
# also: foreign-modules inline-hooks ftrace-hooks
# module: count_return
insmod "$module" || exit 1
before=$(cat /sys/module/count_return/parameters/count)
sync
after=$(cat /sys/module/count_return/parameters/count)
[ "$after" -gt "$before" ] || exit 1
printf 'subject: kprobe at 0x%x\n' "$(cat /sys/module/count_return/parameters/place)"
echo "proof: $((after - before)) returns of iterate_supers() were counted"
# undo
rmmod count_return
