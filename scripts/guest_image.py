"""The disk of a virtual machine, made of this host's own programs and the work tree: nothing is installed.

Programs come with the shared libraries that `ldd` names, everything else that a shell knows is busybox, and the interpreter
and the work tree lie where they lie here, so that a virtual environment works in the machine as it does outside. Servers
that this host shall not get are taken out of their unpacked packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

PROGRAMS: Final = (
    *("bash", "cp", "criu", "curl", "docker", "ip", "losetup", "mkfs.ext4", "mount", "nft", "nsenter", "ps", "rm"),
    *("sysctl", "tar", "tini", "umount", "unshare"),
)
"""What the tests call by name and busybox has not, or not with these options."""

_FOLDERS: Final = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib", "var/run", "mnt")
_MERGED: Final = ("bin", "lib", "lib64", "sbin")
_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n_rpc:x:100:65534::/run/rpcbind:/bin/false\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/exports": "",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/hostname": "guest\n",
    "etc/resolv.conf": "",
}
# Of the interpreter and the virtual environment: what no test in the machine needs. Compiled modules stay, as compiling is
# what software emulation is worst at.
_NEEDLESS: Final = (
    *(".git", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", "ruff", "mypy", "mypyc", "pip", "grimp"),
    *("test", "idlelib", "tkinter", "ensurepip", "lib2to3", "config-3.11-*", "libpython*.a", "*.a"),
)


class Tree:
    """A root folder that is being filled."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._linked: list[Path] = []
        for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", *_FOLDERS):
            (root / name).mkdir(parents=True)
        for name in _MERGED:
            (root / name).symlink_to(f"usr/{name}")
        (root / "tmp").chmod(0o1777)
        for name, text in _FILES.items():
            (root / name).write_text(text)

    def add_file(self, path: Path) -> None:
        """A file at its own place, and what it links to at its place. Libraries follow in `add_libraries`."""
        target = self.inside(path)
        if target.is_symlink() or target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
            self.add_file(path.parent.resolve() / path.readlink())
            return
        shutil.copy2(path, target)
        self._note(path)

    def add_folder(self, folder: Path, ignore: Sequence[str] = ()) -> None:
        """A folder with everything in it but names that `ignore` fits."""
        wanted = shutil.ignore_patterns(*ignore)
        shutil.copytree(folder, self.inside(folder), symlinks=True, ignore=wanted, dirs_exist_ok=True)
        for path in self.inside(folder).rglob("*"):
            if ".so" in path.name and not path.is_symlink():
                self._note(Path("/", path.relative_to(self.root)))

    def add_programs(self, names: Iterable[str]) -> None:
        """Programs of this host. Errors: FileNotFoundError."""
        for name in names:
            found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:{Path(sys.executable).parent}")
            if found is None:
                raise FileNotFoundError(f"this host has no {name}, which the machine needs")
            self.add_file(Path(found))

    def add_busybox(self, busybox: Path) -> None:
        """busybox, under each of its names that nobody has yet."""
        (self.root / "usr/bin/busybox").unlink(missing_ok=True)
        shutil.copy2(busybox, self.root / "usr/bin/busybox")
        listed = subprocess.run([busybox, "--list-full"], capture_output=True, check=True, text=True).stdout.split()
        for place in listed:
            link = self.inside(Path("/", place))
            taken = any((self.root / folder / link.name).exists() for folder in ("usr/bin", "usr/sbin"))
            if not taken and link.parent.is_dir():
                link.symlink_to("/usr/bin/busybox")

    def add_unpacked(self, packages: Path) -> None:
        """Programs, libraries and what lies in /etc itself, of Debian packages that were unpacked into one folder."""
        for path in sorted(packages.rglob("*")):
            place = path.relative_to(packages)
            wanted = place.parent.name in ("bin", "sbin", "libexec", "etc") or ".so" in path.suffixes
            target = self.root / place
            if not wanted or path.is_dir() or target.is_symlink() or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
            if not path.is_symlink():
                self._note(path)

    def add_libraries(self) -> None:
        """The shared libraries of all that is in the tree, and the loader's cache of them."""
        for path in _libraries(self._linked):
            self.add_file(path)
        self.add_file(Path("/etc/ld.so.conf"))
        self.add_folder(Path("/etc/ld.so.conf.d"))
        subprocess.run(["ldconfig", "-r", self.root], check=True)

    def inside(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def _note(self, path: Path) -> None:
        with path.open("rb") as file:
            if file.read(4) == b"\x7fELF":
                self._linked.append(path)


def _libraries(paths: Sequence[Path]) -> list[Path]:
    found = subprocess.run(["ldd", *paths], capture_output=True, check=False, text=True).stdout
    names = (word for line in found.splitlines() if "=>" in line or "ld-linux" in line for word in line.split())
    return [Path(name) for name in dict.fromkeys(names) if name.startswith("/") and not name.endswith(":")]


def fill(root: Path, work: Path, modules: Path, packages: Path, *, programs: Sequence[str] = PROGRAMS) -> None:
    """A root with the interpreter that runs this, the work tree `work`, the kernel's modules (`lib/modules/VERSION`) and
    what is in the unpacked `packages`."""
    tree = Tree(root)
    tree.add_programs(programs)
    tree.add_unpacked(packages)
    tree.add_folder(work, _NEEDLESS)
    _add_interpreter(tree)
    tree.add_file(Path("/usr/lib/x86_64-linux-gnu/libnftables.so.1"))
    tree.add_libraries()
    tree.add_busybox(Path(shutil.which("busybox") or "/bin/busybox"))
    shutil.copytree(modules, root / "usr/lib/modules" / modules.name)
    subprocess.run(["depmod", "-b", root, modules.name], check=True)


def _add_interpreter(tree: Tree) -> None:
    """Where the virtual environment's interpreter lives: a Debian one shares its folders with others."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    tree.add_file(Path(sys.base_prefix, "bin", version))
    tree.add_file(Path(sys.base_prefix, "bin/python3"))
    tree.add_folder(Path(sys.base_prefix, "lib", version), (*_NEEDLESS, "site-packages", "dist-packages"))


def write_disk(root: Path, disk: Path, megabytes: int) -> None:
    """An ext4 file system of that size from a folder; the file has holes where nothing is."""
    with disk.open("wb") as file:
        file.truncate(megabytes << 20)
    # No journal: the machine is thrown away, and its disk with it.
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", root, disk], check=True)
