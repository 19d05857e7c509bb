# title: The jump to sync() in the switch that x86-64 dispatches by leads to a module that counts and forwards
# technique: T1014
# detector: dispatched-calls
# module: hook_switch
place() { awk -v name="$1" '$3 == name { print "0x" $1; exit }' /proc/kallsyms; }
switch=$(place x64_sys_call)
target=$(place __x64_sys_sync)
[ -n "$switch" ] && [ -n "$target" ] || { echo "this kernel calls through its table"; exit 77; }
insmod "$module" switch=$switch target=$target || exit 1
before=$(cat /sys/module/hook_switch/parameters/count)
sync
after=$(cat /sys/module/hook_switch/parameters/count)
[ "$after" -gt "$before" ] || exit 1
echo "subject: system call $(cat /sys/module/hook_switch/parameters/nr)"
echo "proof: $((after - before)) calls of sync() were counted"
# undo
rmmod hook_switch
