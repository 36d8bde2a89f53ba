"""Checkpoints by criu (criu.org), a program of the host's: processes with their memory, as files in a folder.

criu does what is the processes' own. What a container has from outside it is given anew at a restore, by name: its streams,
its network namespace, and every mount that is not the container's alone. All that is taken from the container that `create`
has made up to the moment before execve, so a restored one differs in nothing from one that was started: `restore` lets criu
bring the processes back beside that first process, which then goes.

    worker   the child of the shim that does it, and how it tells what went wrong
    criu     the program: where it is, what it is told, what its log means
    traits   what of a container criu cannot do, and what is from outside
    dump     writing
    restore  bringing back
"""
