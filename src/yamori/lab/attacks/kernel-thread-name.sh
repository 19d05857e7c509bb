# title: A program takes the name of a kernel thread
# technique: T1036.004
# detector: kernel-thread-names
sh -c 'printf kworker/0:1 > /proc/$$/comm; sleep 7205; :' &
pid=$!
sleep 1
[ "$(cat /proc/$pid/comm)" = kworker/0:1 ] || exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid/comm is $(cat /proc/$pid/comm)"
# undo
kill $pid
