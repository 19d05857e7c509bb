#!/bin/sh
# busy N: N processes that run in user mode for ever and never make a system call. End them with `killall spinner`.
exec /lab/spinner "${1:?usage: busy N}"
