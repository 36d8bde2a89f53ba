"""`make test-cgroup2`: the tests of control groups, version 2, on a kernel that has nothing else; and those of volumes from
NFS and SMB servers, for which few hosts of tests have a kernel.

Debian's cloud kernel is fetched and unpacked, not installed, and booted by QEMU in software emulation, with a disk made
of this host's programs and the work tree (`guest_image`). There the tests run as they do here, and find out by themselves
which version they are on. Their lines are shown as they come, their status is this program's: 0 all passed, 1 some failed,
2 the machine did not get that far. Everything lies in one scratch folder, which is removed in every case.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import guest_image

WORK: Final = Path(__file__).parents[1]
KERNEL: Final = "linux-image-cloud-amd64"
SERVERS: Final = (
    *("nfs-kernel-server", "nfs-common", "rpcbind", "libevent-core-2.1-7", "libnfsidmap1", "libwrap0", "libtirpc-common"),
    *(
        "netbase",
        "samba",
        "samba-common-bin",
        "samba-libs",
        "libldb2",
        "libtalloc2",
        "libtdb1",
        "libtevent0",
        "libwbclient0",
    ),
    *("libavahi-client3", "libavahi-common3", "libbsd0", "libdbus-1-3", "libicu72", "libjansson4", "libldap-2.5-0"),
    *("libpopt0", "libsasl2-2"),
)
"""Servers of NFS and SMB with their libraries, for volumes from the network: unpacked, as this host shall serve nothing."""

QEMU: Final = "qemu-system-x86_64"
DISK_MEGABYTES: Final = 2048
MEMORY_MEGABYTES: Final = 2048
SECONDS: Final = 3000
"""How long the machine may take, from the first instruction to the last test."""

# What is not about control groups, mounts or processes does not differ there. Of the command line only the limits are
# tried: each call of it is an interpreter's start, which emulation makes long.
_NATIVE: Final = "plugins/runtime_native/tests"
TESTS: Final = (
    *(f"{_NATIVE}/test_{name}.py" for name in ("cgroup2", "cgroups", "lifecycle", "exec", "root", "mounts", "namespaces")),
    f"{_NATIVE}/command/test_limits.py",
    f"{_NATIVE}/command/test_checkpoint.py",
    "tests/shim/test_native.py",
    "tests/acceptance/test_control_groups.py",
    "tests/acceptance/test_checkpoints.py",
    "tests/acceptance/test_run.py",
    "plugins/volume_local/tests/test_network_file_systems.py",
    "tests/acceptance/test_network_volumes.py",
)


class Failed(Exception):
    """There is no machine, or it did not come to the tests' end."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Run tests in a virtual machine whose control groups are version 2 alone.")
    parser.add_argument(
        "tests", nargs="*", default=TESTS, help="what pytest is given; the default is what matters for cgroups"
    )
    parser.add_argument("--seconds", type=int, default=SECONDS, help="how long the machine may take (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        with scratch_folder() as folder:
            return run(folder, options.tests, options.seconds)
    except Failed as error:
        print(f"cgroup2: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="wharfie-cgroup2-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run(folder: Path, tests: Sequence[str], seconds: int) -> int:
    """Make the machine in `folder`, let it run, and say how long each took."""
    if platform.machine() != "x86_64":
        raise Failed(f"the kernel package is for x86_64, this host is {platform.machine()}")
    started = time.monotonic()
    kernel = fetch_kernel(folder / "kernel")
    servers = unpack(SERVERS, folder / "servers")
    root = folder / "root"
    modules = next((kernel / "lib/modules").iterdir())
    guest_image.fill(root, WORK, modules, servers)
    shutil.copy2(WORK / "scripts/cgroup2_guest.sh", root / "init.sh")
    (root / "etc/tests.sh").write_text(f"work={WORK}\nset -- {shlex.join(pytest_arguments(tests))}\n")
    disk = folder / "disk"
    guest_image.write_disk(root, disk, DISK_MEGABYTES)
    shutil.rmtree(root)
    built = time.monotonic()
    print(f"cgroup2: Linux {modules.name}, made in {built - started:.0f} s; booting", flush=True)
    status = boot(next((kernel / "boot").glob("vmlinuz-*")), disk, folder / "status", seconds)
    print(f"cgroup2: Linux {modules.name}, {time.monotonic() - built:.0f} s in the machine, status {status}", flush=True)
    return status


def pytest_arguments(tests: Sequence[str]) -> list[str]:
    # Emulation takes ten times as long as the processor would, so a test may, too.
    return ["-v", "--color=no", "-p", "no:cacheprovider", "--timeout=600", "--durations=10", *tests]


def fetch_kernel(folder: Path) -> Path:
    """Debian's current cloud kernel, unpacked. Errors: Failed."""
    depends = output("apt-cache", "depends", KERNEL)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise Failed(f"the package {KERNEL} is not known to apt (apt-get update?)")
    return unpack([found[1]], folder)


def unpack(packages: Sequence[str], folder: Path) -> Path:
    """Debian packages, fetched and unpacked into one folder. Errors: Failed."""
    folder.mkdir()
    # apt fetches as a user of its own, who has to get in here.
    folder.parent.chmod(0o755)
    shutil.chown(folder, "_apt")
    output("apt-get", "download", "-qq", *packages, folder=folder)
    unpacked = folder / "unpacked"
    for package in folder.glob("*.deb"):
        output("dpkg", "-x", str(package), str(unpacked))
    return unpacked


def output(*command: str, folder: Path | None = None) -> str:
    result = subprocess.run(command, capture_output=True, check=False, text=True, cwd=folder)
    if result.returncode:
        raise Failed(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def boot(kernel: Path, disk: Path, status: Path, seconds: int) -> int:
    """Run the machine to its end; the tests' status. Errors: Failed."""
    words = "console=ttyS0 root=/dev/nvme0n1 rw init=/usr/bin/tini panic=-1 quiet loglevel=3"
    # What guards a processor's secrets, or memory's, has nothing to guard here, and emulation pays dearly for it.
    words += " mitigations=off init_on_alloc=0 apparmor=0 audit=0"
    command = [
        *(QEMU, "-accel", "tcg,thread=multi", "-smp", str(min(4, os.cpu_count() or 1)), "-m", str(MEMORY_MEGABYTES)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-kernel", str(kernel), "-append", f"{words} -- -s /init.sh"),
        *(
            "-drive",
            f"file={disk},format=raw,if=none,id=disk,cache=unsafe,discard=unmap",
            "-device",
            "nvme,drive=disk,serial=disk",
        ),
        *("-serial", "stdio", "-serial", f"file:{status}"),
    ]
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace")
    signal.signal(signal.SIGALRM, lambda *_: machine.kill())
    signal.alarm(seconds)
    started = time.monotonic()
    try:
        assert machine.stdout is not None
        for line in machine.stdout:
            print(line.rstrip("\r\n"), flush=True)
        machine.wait()
    finally:
        signal.alarm(0)
        machine.kill()
        machine.wait()
    said = re.search(r"status (\d+)", status.read_text() if status.exists() else "")
    if said is None:
        took = time.monotonic() - started
        how = f"was ended, as its {seconds} s were over," if took >= seconds else f"ended by itself after {took:.0f} s,"
        raise Failed(f"the machine {how} before the tests' status was known")
    return int(said[1])


if __name__ == "__main__":
    sys.exit(main())
