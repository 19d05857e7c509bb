# title: A module counts the calls of a kernel function by a kprobe
# technique: T1014
# detector: foreign-modules
# module: count_kprobe
insmod "$module" || exit 1
before=$(cat /sys/module/count_kprobe/parameters/count)
sync
after=$(cat /sys/module/count_kprobe/parameters/count)
[ "$after" -gt "$before" ] || exit 1
echo "subject: module count_kprobe"
echo "proof: $((after - before)) calls of iterate_supers() were counted"
# undo
rmmod count_kprobe
