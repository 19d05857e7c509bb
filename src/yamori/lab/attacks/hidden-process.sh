# title: A sleeping process is taken off the kernel's list of tasks
# technique: T1014
# detector: hidden-processes
# module: hide_task
sleep 7201 &
pid=$!
insmod "$module" pid=$pid || exit 1
echo "subject: process $pid"
echo "proof: it sleeps, and does the list of tasks lead to it? $(cat /sys/module/hide_task/parameters/listed)"
[ "$(cat /sys/module/hide_task/parameters/listed)" = N ] || exit 1
# undo
rmmod hide_task && kill $pid
