# title: A module counts the calls of a kernel function by ftrace
# technique: T1014
# detector: foreign-modules
# module: count_ftrace
insmod "$module" || exit 1
before=$(cat /sys/module/count_ftrace/parameters/count)
sync
after=$(cat /sys/module/count_ftrace/parameters/count)
[ "$after" -gt "$before" ] || exit 1
echo "subject: module count_ftrace"
echo "proof: $((after - before)) calls of iterate_supers() were counted"
# undo
rmmod count_ftrace
