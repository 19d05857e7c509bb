# title: The kernel is told to start another program to load modules
# technique: T1547
# detector: helper-programs
before=$(cat /proc/sys/kernel/modprobe)
echo /tmp/yamori-no-such-file > /proc/sys/kernel/modprobe || exit 1
echo "subject: modprobe_path"
echo "proof: /proc/sys/kernel/modprobe is $(cat /proc/sys/kernel/modprobe)"
# undo
echo "$before" > /proc/sys/kernel/modprobe
