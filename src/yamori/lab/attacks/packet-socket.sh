# title: A program listens to all traffic with a packet socket whose filter drops every packet
# technique: T1040
# detector: packet-sockets
# program: sniff
chmod +x "$program" || exit 1
"$program" &
pid=$!
sleep 1
grep -q ' 3      3    0003 ' /proc/net/packet || exit 1
echo "subject: process $pid"
echo "proof: /proc/net/packet has a socket for protocol 0003"
# undo
kill $pid
