# title: A module counts the calls of a kernel function by a kprobe
# technique: T1014
# detector: kprobes
# also: foreign-modules inline-hooks ftrace-hooks
# module: count_kprobe
insmod "$module" || exit 1
before=$(cat /sys/module/count_kprobe/parameters/count)
sync
after=$(cat /sys/module/count_kprobe/parameters/count)
[ "$after" -gt "$before" ] || exit 1
printf 'subject: kprobe at 0x%x\n' "$(cat /sys/module/count_kprobe/parameters/place)"
echo "proof: $((after - before)) calls of iterate_supers() were counted"
# undo
rmmod count_kprobe
