"""Numbers of the kernel's interface, by the kernel's names.

Taken from the Linux kernel headers (include/uapi/linux/*.h); the same on every architecture that Wharfie runs on.
"""

from __future__ import annotations

from typing import Final

# sched.h: namespaces
CLONE_INTO_CGROUP: Final = 0x200000000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWNET: Final = 0x40000000
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWTIME: Final = 0x00000080
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWUTS: Final = 0x04000000

# fcntl.h, openat2.h, mount.h
AT_EMPTY_PATH: Final = 0x1000
AT_FDCWD: Final = -100
AT_RECURSIVE: Final = 0x8000
CLOSE_RANGE_CLOEXEC: Final = 0x4
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04
MOVE_MOUNT_T_EMPTY_PATH: Final = 0x40
OPEN_TREE_CLOEXEC: Final = 0o2000000
OPEN_TREE_CLONE: Final = 0x1
RESOLVE_IN_ROOT: Final = 0x10
RESOLVE_NO_MAGICLINKS: Final = 0x02

MNT_DETACH: Final = 0x2
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_NOEXEC: Final = 0x08
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x00200000
MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_RELATIME: Final = 0x00
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR__ATIME: Final = 0x70
MS_DIRSYNC: Final = 0x80
MS_I_VERSION: Final = 0x800000
MS_LAZYTIME: Final = 0x2000000
MS_MANDLOCK: Final = 0x40
MS_NOATIME: Final = 0x400
MS_NODEV: Final = 0x4
MS_NODIRATIME: Final = 0x800
MS_NOEXEC: Final = 0x8
MS_NOSUID: Final = 0x2
MS_NOSYMFOLLOW: Final = 0x100
MS_POSIXACL: Final = 0x10000
MS_PRIVATE: Final = 0x40000
MS_RDONLY: Final = 0x1
MS_REC: Final = 0x4000
MS_REMOUNT: Final = 0x20
MS_RELATIME: Final = 0x200000
MS_SHARED: Final = 0x100000
MS_SILENT: Final = 0x8000
MS_SLAVE: Final = 0x80000
MS_STRICTATIME: Final = 0x1000000
MS_SYNCHRONOUS: Final = 0x10
MS_UNBINDABLE: Final = 0x20000

# magic.h
DEVPTS_SUPER_MAGIC: Final = 0x1CD1
PROC_SUPER_MAGIC: Final = 0x9FA0

PROC_ROOT_INO: Final = 1  # the inode number of a procfs's own root (fs/proc/root.c)

# prctl.h, securebits.h, capability.h
LINUX_CAPABILITY_VERSION_3: Final = 0x20080522
PR_CAPBSET_DROP: Final = 24
PR_CAPBSET_READ: Final = 23
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
PR_CAP_AMBIENT_RAISE: Final = 2
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_NAME: Final = 15
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_PDEATHSIG: Final = 1

# keyctl.h
KEYCTL_JOIN_SESSION_KEYRING: Final = 1

# ioctls.h, sockios.h, if.h
IFF_UP: Final = 0x1
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
TIOCGPTPEER: Final = 0x5441
TIOCSCTTY: Final = 0x540E
TIOCSPTLCK: Final = 0x40045431
TIOCSWINSZ: Final = 0x5414
