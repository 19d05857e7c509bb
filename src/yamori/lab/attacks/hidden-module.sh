# title: A module takes itself off the list of modules
# technique: T1547.006
# detector: hidden-modules
# module: hide_module
insmod "$module" || exit 1
grep -q '^hide_module ' /proc/modules && exit 1
[ -d /sys/module/hide_module ] || exit 1
echo "subject: module hide_module"
echo "proof: /proc/modules does not show it, /sys/module does"
# undo
echo 1 > /sys/module/hide_module/parameters/show && rmmod hide_module
