# title: A gate of x86-64's table of exceptions that nothing uses leads to a module that counts
# technique: T1014
# detector: exception-entries
# module: hook_gate
table=$(awk '$3 == "idt_table" { print "0x" $1; exit }' /proc/kallsyms)
[ -n "$table" ] || { echo "this kernel names no idt_table"; exit 77; }
insmod "$module" table=$table || exit 1
before=$(cat /sys/module/hook_gate/parameters/count)
echo 1 > /sys/module/hook_gate/parameters/raise
after=$(cat /sys/module/hook_gate/parameters/count)
[ "$after" -gt "$before" ] || exit 1
echo "subject: exception 0x16"
echo "proof: exception 22 was raised and counted $((after - before)) times"
# undo
rmmod hook_gate
