# title: A sleeping process is taken off the list of tasks, the family tree and the lists of its id
# technique: T1014
# detector: carved-processes
# module: hide_all
sleep 7210 &
pid=$!
insmod "$module" pid=$pid || exit 1
[ -e /proc/$pid ] && exit 1
kill -0 $pid 2> /dev/null && exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid is not there, and kill does not find it"
# undo
rmmod hide_all && kill $pid
