# title: A module counts the calls of a kernel function by ftrace
# technique: T1014
# detector: ftrace-hooks
# also: foreign-modules inline-hooks
# module: count_ftrace
insmod "$module" || exit 1
before=$(cat /sys/module/count_ftrace/parameters/count)
sync
after=$(cat /sys/module/count_ftrace/parameters/count)
[ "$after" -gt "$before" ] || exit 1
printf 'subject: ftrace_ops at 0x%x\n' "$(cat /sys/module/count_ftrace/parameters/place)"
echo "proof: $((after - before)) calls of iterate_supers() were counted"
# undo
rmmod count_ftrace
