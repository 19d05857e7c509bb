# title: The vector of system calls of 32-bit Arm leads to a module that counts and forwards
# technique: T1014
# detector: exception-entries
# module: hook_vector
case $(uname -m) in arm*) ;; *) echo "this is not 32-bit Arm"; exit 77 ;; esac
insmod "$module" || { echo "the vector does not lead through a pointer"; exit 77; }
before=$(cat /sys/module/hook_vector/parameters/count)
sync
after=$(cat /sys/module/hook_vector/parameters/count)
[ "$after" -gt "$before" ] || exit 1
printf 'subject: exception vectors, the word at 0x%x\n' "$(cat /sys/module/hook_vector/parameters/place)"
echo "proof: $((after - before)) system calls were counted"
# undo
rmmod hook_vector
