#!/bin/busybox sh
# The first program of the virtual machine that cgroup2.py starts: cgroup v2 alone, then the tests, whose status goes to the
# second serial line. /etc/tests.sh says what to test: it sets the work tree and pytest's arguments.

export PATH=/usr/local/bin:/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8 TERM=dumb WHARFIE_TEST_PATIENCE=10

mount -t proc -o nosuid,noexec,nodev proc /proc
mount -t sysfs -o nosuid,noexec,nodev sysfs /sys
mount -t devtmpfs -o nosuid devtmpfs /dev 2> /dev/null
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
hostname guest
ulimit -n 65536
for module in overlay tun loop; do modprobe $module; done

. /etc/tests.sh
cd "$work" || exit 1

# Processes in the root group, as after the boot of a host without an init that makes groups.
.venv/bin/python -m pytest "$@" > /dev/ttyS0 2>&1
echo "status $?" > /dev/ttyS1
sync
poweroff -f
