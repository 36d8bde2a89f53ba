"""Real programs out of Debian's packages, put into images: nothing of them is installed or started on this host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

LIBRARIES = "usr/lib/x86_64-linux-gnu"
UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/postgresql/15/lib/bitcode")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\nworker:x:1000:1000::/home:/bin/sh\n"
GROUP = "root:x:0:\nadm:x:4:\nwww-data:x:33:\nworker:x:1000:\n"


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """The packages and what they need beyond what this host has, as files in `folder`, which keeps them."""
    simulated = subprocess.run(
        ["apt-get", "install", "--simulate", "--reinstall", "--no-install-recommends", *packages],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = re.findall(r"^Inst (\S+)", simulated.stdout, re.MULTILINE)
    missing = [name for name in wanted if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", "-qq", *missing], cwd=folder, check=True, capture_output=True)
    return [next(folder.glob(f"{name}_*.deb")) for name in wanted]


def make_root(root: Path, debs: Iterable[Path], programs: Sequence[str]) -> None:
    """A root file system: the packages' files, the libraries that `programs` (paths in it) need, busybox as shell."""
    for folder in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", LIBRARIES, "lib64"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for deb in debs:
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    for folder in UNWANTED:
        shutil.rmtree(root / folder, ignore_errors=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in ("sh", "cat", "sleep", "mkdir", "chown", "ls", "locale", "id"):
        if not (root / "bin" / applet).exists():
            (root / "bin" / applet).symlink_to("busybox")
    for library in needed(root, [root / program for program in programs]):
        shutil.copy(library, root / LIBRARIES / library.name)
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    shutil.copy(loader.resolve(), root / "lib64" / loader.name)


def needed(root: Path, programs: Iterable[Path]) -> list[Path]:
    """The host's libraries that the programs need and `root` lacks (ldd(1))."""
    own = root / LIBRARIES
    found: dict[str, Path] = {}
    for program in programs:
        listed = subprocess.run(
            ["ldd", program], env={"LD_LIBRARY_PATH": str(own)}, capture_output=True, text=True, check=True
        )
        for path in re.findall(r"=> (/\S+)", listed.stdout):
            if not Path(path).is_relative_to(root):
                found[Path(path).name] = Path(path)
    return list(found.values())
