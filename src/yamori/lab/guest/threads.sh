#!/bin/sh
# threads [N]: one process with N threads (8 unless given). Returns when all of them are there.
n=${1:-8}
/lab/threaded "$n" &
while [ "$(ls "/proc/$!/task" | wc -l)" -ne "$n" ]; do
    kill -0 $! || exit 1
    sleep 0.1
done
