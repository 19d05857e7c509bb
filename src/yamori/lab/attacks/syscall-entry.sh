# title: The entry of sync() in the system-call table leads to a module that counts and forwards
# technique: T1014
# detector: system-calls
# module: hook_syscall
table=$(awk '$3 == "sys_call_table" { print "0x" $1; exit }' /proc/kallsyms)
[ -n "$table" ] || { echo "this kernel does not name its sys_call_table"; exit 77; }
# Since 6.9, and in stable releases (1e3ad78334a6), x86-64 calls by a switch; the table is there for tracing only.
grep -q ' x64_sys_call$' /proc/kallsyms && { echo "this kernel does not call through its table"; exit 77; }
insmod "$module" table=$table || exit 1
before=$(cat /sys/module/hook_syscall/parameters/count)
sync
after=$(cat /sys/module/hook_syscall/parameters/count)
[ "$after" -gt "$before" ] || exit 1
echo "subject: system call $(cat /sys/module/hook_syscall/parameters/nr)"
echo "proof: $((after - before)) calls of sync() were counted"
# undo
rmmod hook_syscall
