#!/bin/sh
# PID 1 of a lab device: makes the usual file systems, then keeps a root shell on the serial console.
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=vt100 HISTFILE=
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
chmod 1777 /tmp
dmesg -n 1                            # kernel messages would get between a command's output
echo 0 > /proc/sys/kernel/kptr_restrict   # /proc/kallsyms is the tests' ground truth
hostname "$(uname -m)"
cd /root
while :; do                           # the shell waits for any child, so orphans are reaped too
    setsid cttyhack sh
done
