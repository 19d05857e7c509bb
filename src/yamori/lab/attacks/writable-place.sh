# title: A program runs from /tmp
# technique: T1036.005
# detector: writable-place
mkdir -p /tmp && cp /bin/busybox /tmp/sleep || exit 1
/tmp/sleep 7204 &
pid=$!
sleep 1
echo "subject: process $pid"
echo "proof: /proc/$pid/exe is $(readlink /proc/$pid/exe)"
# undo
kill $pid; rm /tmp/sleep
