# title: A program has a library from /tmp in its memory
# technique: T1574.006
# detector: preloaded-libraries
# program: library
mkdir -p /tmp && cp "$program" /tmp/libnothing.so && chmod +x "$program" || exit 1
"$program" &
pid=$!
sleep 1
grep -q 'r-xp .* /tmp/libnothing.so$' /proc/$pid/maps || exit 1
echo "subject: process $pid"
echo "proof: /proc/$pid/maps has $(grep /tmp/libnothing.so /proc/$pid/maps)"
# undo
kill $pid; rm /tmp/libnothing.so
