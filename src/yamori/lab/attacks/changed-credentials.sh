# title: A sleeping process of an ordinary user is made root's in its credentials
# technique: T1134
# detector: changed-credentials
# module: change_cred
su -s /bin/sh alice -c "exec sleep 7202" &
pid=$!
sleep 1
before=$(awk '/^Uid/ { print $2 }' /proc/$pid/status)
[ "$before" != 0 ] || exit 1
insmod "$module" pid=$pid || exit 1
[ "$(awk '/^Uid/ { print $2 }' /proc/$pid/status)" = 0 ] || exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid/status shows uid 0, and it was $before"
# undo
rmmod change_cred; kill $pid
