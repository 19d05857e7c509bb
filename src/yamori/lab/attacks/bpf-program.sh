# title: A BPF program sees every system call, and only counts them
# technique: T1014
# detector: bpf-programs
# program: trace
chmod +x "$program" || exit 1
"$program" > /run/trace.out &
pid=$!
sleep 3
if ! kill -0 $pid; then
    wait $pid
    [ $? = 77 ] && echo 'this kernel loads no such BPF program' && exit 77
    exit 1
fi
set -- $(cat /run/trace.out)
[ "$1" = counted ] && [ "$4" ] && [ $((0x$4)) -gt $((0x$2)) ] || exit 1
id=$(cat /proc/$pid/fdinfo/* | sed -n 's/^prog_id:[[:space:]]*//p' | head -n 1)
[ "$id" ] || exit 1
echo "subject: BPF program $id"
echo "proof: its map said $((0x$2)), and $((0x$4)) a second later"
# undo
kill $pid
