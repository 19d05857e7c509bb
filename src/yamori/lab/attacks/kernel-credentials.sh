# title: A sleeping process of an ordinary user is given the kernel's own credentials, init_cred
# technique: T1134
# detector: shared-credentials
# module: share_cred
su -s /bin/sh alice -c "exec sleep 7209" &
pid=$!
sleep 1
before=$(awk '/^Uid/ { print $2 }' /proc/$pid/status)
[ "$before" != 0 ] || exit 1
insmod "$module" pid=$pid from=0 || exit 1
[ "$(awk '/^Uid/ { print $2 }' /proc/$pid/status)" = 0 ] || exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid/status shows uid 0, and it was $before"
# undo
rmmod share_cred; kill $pid
