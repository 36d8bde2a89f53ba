"""The interpreter as a file that nobody can write: what becomes a container's process is executed from it.

The kernel executes /proc/self/exe for a program in a container that is a link to it, or a script that names it: then the
runtime's own file runs there, and is to be had as /proc/<pid>/exe (CVE-2019-5736). Of a sealed copy nothing can be changed.
"""

from __future__ import annotations

import fcntl
import os
import sys

NAME = "wharfie-python"
_BOOT = """
import sys
sys.path += sys.argv.pop(1).split(":")
from {module} import main
main()
"""
_MFD_EXEC = 0x10  # Linux 6.3 and later want to be told; earlier ones refuse the flag
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_interpreter() -> int:
    """A descriptor of a copy of this interpreter that nobody can write, root included."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        copy = os.memfd_create(NAME, flags | _MFD_EXEC)
    except OSError:
        copy = os.memfd_create(NAME, flags)
    try:
        with open(interpreter(), "rb") as original:
            size = os.fstat(original.fileno()).st_size
            while size > 0:
                size -= os.sendfile(copy, original.fileno(), None, size)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(copy)
        raise
    return copy


def interpreter() -> str:
    """The file behind `sys.executable`, which finds the standard library when it is argument zero."""
    return os.path.realpath(sys.executable)


def run_sealed(module: str, packages: tuple[str, ...]) -> None:
    """Begin this program anew from a sealed copy of its interpreter, a bare one that finds `packages` and calls `main` of
    `module`, with the same arguments; at once, before anything is done. Returns in the copy. Errors: OSError."""
    if os.readlink("/proc/self/exe").startswith(f"/memfd:{NAME}"):
        return
    folders = [os.path.dirname(sys.modules[name].__path__[0]) for name in packages]
    words = [interpreter(), "-I", "-S", "-X", "utf8", "-c", _BOOT.format(module=module), ":".join(folders)]
    os.execve(sealed_interpreter(), [*words, *sys.argv[1:]], os.environ)
