# title: The first instructions of a kernel function are patched to call a module that counts
# technique: T1014
# detector: inline-hooks
# module: patch_function
place=$(awk '$3 == "ksys_sync" { print "0x" $1; exit }' /proc/kallsyms)
[ -n "$place" ] || { echo "this kernel does not name ksys_sync"; exit 77; }
insmod "$module" place=$place || { echo "there is no room for tracing at ksys_sync, or the module is too far"; exit 77; }
before=$(cat /sys/module/patch_function/parameters/count)
sync
after=$(cat /sys/module/patch_function/parameters/count)
[ "$after" -gt "$before" ] || exit 1
echo "subject: function ksys_sync"
echo "proof: $((after - before)) calls of ksys_sync() were counted"
# undo
rmmod patch_function
