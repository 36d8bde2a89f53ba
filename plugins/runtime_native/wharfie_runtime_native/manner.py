"""How processes are made, apart from what config.json says of them. The defaults are the shim's way; the command line
`wharfie-runtime` has another one, because it ends and what it made stays."""

from __future__ import annotations

from typing import NamedTuple


class Manner(NamedTuple):
    """The switches. Descriptors are -1 where there are none."""

    outlive: bool = False
    """Processes live on when their maker ends; a shim's die with it."""
    gate: int = -1
    """A listening socket (`gate`) at which a container's first process waits for its start; with `outlive` only."""
    lock: int = -1
    """A descriptor that a container's first process keeps open until it is wholly made, or dead."""
    pivot: bool = True
    """pivot_root(2). Without it the root is moved and chroot(2)ed into, for hosts whose own root is an initramfs."""
    keyring: bool = True
    """A session keyring of its own."""
    preserve: int = 0
    """How many descriptors from 3 on the program inherits."""
