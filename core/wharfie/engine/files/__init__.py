"""Files of containers, read and written from outside: `docker cp`, `export`, `diff`.

No path of a container is ever resolved by the daemon. A process of its own per operation puts the container's root
together in a mount namespace of its own, and works there by descriptors; it has imported all that it needs before, and runs
nothing that it finds.

launcher   the daemon's side: starts the process that forks these workers, and talks to a worker
template   that process: forks a worker in a millisecond
view       the container's root as a worker sees it: its root file system, volumes and binds, nothing of the kernel's
worker     what a worker does: look, read, write, export
mounting   the system calls for it
copying    the front: `Copying`
"""
