# title: A program runs from a memfd, and never was on a disk
# technique: T1620
# detector: memfd-executable
# program: memfd
chmod +x "$program" || exit 1
"$program" &
pid=$!
sleep 1
readlink /proc/$pid/exe | grep -q '^/memfd:' || exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid/exe is $(readlink /proc/$pid/exe)"
# undo
kill $pid
