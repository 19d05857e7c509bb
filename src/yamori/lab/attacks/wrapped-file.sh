# title: A hidden module counts and forwards the lines of /proc/net/tcp
# technique: T1014
# detector: foreign-code
# also: hidden-modules
# module: wrap_seq
insmod "$module" || exit 1
cat /proc/net/tcp > /dev/null
count=$(cat /sys/module/wrap_seq/parameters/count)
[ "$count" -gt 0 ] || exit 1
printf 'subject: code at 0x%x\n' "$(cat /sys/module/wrap_seq/parameters/page)"
echo "proof: $count lines of /proc/net/tcp were counted"
# undo
echo 1 > /sys/module/wrap_seq/parameters/show && rmmod wrap_seq
