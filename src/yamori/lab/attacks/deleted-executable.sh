# title: A program deletes its own file and runs on
# technique: T1070.004
# detector: deleted-executable
mkdir -p /root && cp /bin/busybox /root/sleep || exit 1
/root/sleep 7203 &
pid=$!
sleep 1
rm /root/sleep
readlink /proc/$pid/exe | grep -q deleted || exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid/exe is $(readlink /proc/$pid/exe)"
# undo
kill $pid
