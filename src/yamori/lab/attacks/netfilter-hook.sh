# title: A module counts the packets that are sent, in a netfilter hook
# technique: T1014
# detector: netfilter-hooks
# also: foreign-modules
# module: count_packets
insmod "$module" || exit 1
before=$(cat /sys/module/count_packets/parameters/count)
ip link set lo up; ping -c 1 127.0.0.1 > /dev/null
after=$(cat /sys/module/count_packets/parameters/count)
[ "$after" -gt "$before" ] || exit 1
printf 'subject: netfilter hook 0x%x\n' "$(cat /sys/module/count_packets/parameters/place)"
echo "proof: $((after - before)) packets were counted"
# undo
rmmod count_packets
