"""The `native` runtime: containers made by Linux system calls from Python.

Read in the order of a container's life: `engine` (the parent, in the shim: `container`, `creation`, `execution`) → `init`
(the child, up to execve) with `namespaces`, `rootfs`, `mounts`, `devices`, `process`, `seccomp` → `exec` for further
processes; `cgroups` beside it.
This file stays empty of imports: all of it but `driver` and `settings` runs in the shim's bare interpreter.
"""
