"""What is there before a driver works, and what is there when it has taken everything back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_NAMES = {
    "mounts": "mounts stay in mountinfo",
    "links": "network interfaces stay",
    "firewall": "the nftables ruleset is another one",
    "cgroups": "control groups stay",
    "descriptors": "file descriptors stay open",
    "threads": "threads go on",
    "processes": "child processes go on",
    "files": "files stay in the driver's folders",
}


def snapshot(*folders: Path, mark: str = "") -> Mapping[str, frozenset[str]]:
    """Everything that can leak. `mark` tells control groups of ours from those of others on this machine."""
    return {
        "mounts": _mounts(),
        "links": frozenset(name for _, name in socket.if_nameindex()),
        "firewall": _firewall(),
        "cgroups": _cgroups(mark) if mark else frozenset(),
        "descriptors": _descriptors(),
        "threads": frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate()),
        "processes": _children(),
        "files": frozenset(name for folder in folders for name in _files(folder)),
    }


def kernel(*folders: Path, mark: str = "") -> Mapping[str, frozenset[str]]:
    """Only what outlives a killed daemon: kernel objects and files."""
    full = snapshot(*folders, mark=mark)
    return {name: full[name] for name in ("mounts", "links", "firewall", "cgroups", "files")}


def anywhere(found: Mapping[str, frozenset[str]], **names: str) -> Mapping[str, frozenset[str]]:
    """The same with what differs from one folder to the next (`FOLDER`, `INSTANCE`) taken out."""
    changed = dict(found)
    for name, text in names.items():
        changed = {kind: frozenset(one.replace(text, name) for one in some) for kind, some in changed.items()}
    return changed


def more(before: Mapping[str, frozenset[str]], after: Mapping[str, frozenset[str]]) -> str:
    """What is new in `after`, in words; empty when nothing is."""
    found = []
    for name, had in before.items():
        new = after[name] - had
        if new:
            found.append(f"{_NAMES[name]}: {', '.join(sorted(new)[:8])}")
    return "; ".join(found)


def _files(top: Path) -> Iterator[str]:
    """What a driver's helpers take away meanwhile is no error (os.walk passes over it, Path.rglob does not)."""
    for place, folders, files in os.walk(top):
        for name in (*folders, *files):
            yield os.path.relpath(f"{place}/{name}", top)


def _mounts() -> frozenset[str]:
    """By mount point; a second mount at the same point counts."""
    with open("/proc/self/mountinfo") as table:
        points = [line.split()[4] for line in table]
    return frozenset(f"{point} (number {points[:index].count(point) + 1})" for index, point in enumerate(points))


def _firewall() -> frozenset[str]:
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return frozenset()
    listed = subprocess.run(["nft", "--stateless", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    return frozenset(line.strip() for line in listed.splitlines() if line.strip(" \t{}"))


def _cgroups(mark: str) -> frozenset[str]:
    root = Path("/sys/fs/cgroup")
    return frozenset(folder for folder, _, _ in os.walk(root) if mark in folder)


def _descriptors() -> frozenset[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} → {entry.readlink()}")
        except FileNotFoundError:  # the listing's own
            continue
    return frozenset(found)


def _children() -> frozenset[str]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update((task / "children").read_text().split())
        except OSError:
            continue
    return frozenset(found)


_FOLDER_CALLS = {"os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "os.mkfifo", "os.mknod"}
_watching: list[tuple[tuple[str, ...], set[str]]] = []
_hooked = False


@contextmanager
def files_outside(*allowed: Path) -> Iterator[set[str]]:
    """Files that this process makes or writes anywhere else, by Python's audit events, while this is active."""
    global _hooked
    found: set[str] = set()
    roots = (*(str(path.resolve()) for path in allowed), "/proc", "/sys", "/dev")
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    _watching.append((roots, found))
    try:
        yield found
    finally:
        _watching.remove((roots, found))


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event in _FOLDER_CALLS:
        path = arguments[1] if event in ("os.rename", "os.link", "os.symlink") else arguments[0]
    else:
        return
    if not isinstance(path, str | bytes | os.PathLike):
        return
    name = os.fsdecode(path)
    folder = next((one for one in reversed(arguments) if isinstance(one, int)), -1) if event in _FOLDER_CALLS else -1
    if not name.startswith("/"):
        if event == "open" or folder < 0:
            # The event of open() does not say below which descriptor: such a file is within a folder that was opened.
            return
        name = f"{Path(f'/proc/self/fd/{folder}').readlink()}/{name}"
    real = str(Path(name).parent.resolve())
    for roots, found in _watching:
        if not any(real == root or real.startswith(root + "/") for root in roots) and "__pycache__" not in name:
            found.add(name)
