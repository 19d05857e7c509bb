# title: A sleeping process is taken off the lists of its process id
# technique: T1014
# detector: hidden-processes
# module: hide_number
sleep 7207 &
pid=$!
insmod "$module" pid=$pid || exit 1
[ -e /proc/$pid ] && exit 1
kill -0 $pid 2> /dev/null && exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid is not there, and kill does not find it"
# undo
rmmod hide_number && kill $pid
