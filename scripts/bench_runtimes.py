"""`make bench`, fourth part: `wharfie-runtime` beside runc and crun, command by command, in turns; ratios are to runc.

Each is started as an engine would start it, so most of what is measured of ours is the start of a Python interpreter.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import busybox_image
from contest import BIN, OURS, BenchFailed, Contender, Figure, conduct, console, in_turns, options, report

BESIDE: Final = ("runc", "crun")
FIGURES: Sequence[Figure] = (
    Figure("run", "run of busybox true", "ms"),
    Figure("create", "create", "ms"),
    Figure("state", "state", "ms"),
    Figure("start", "start", "ms"),
    Figure("exec", "exec of busybox true", "ms"),
    Figure("delete", "delete --force", "ms"),
)


def contenders(wanted: Sequence[str]) -> list[Contender]:
    """The runtimes that are here, each with a bundle and a state folder."""
    programs = {OURS: str(BIN / "wharfie-runtime"), **{name: shutil.which(name) or "" for name in BESIDE}}
    found = []
    for name in wanted:
        if programs[name]:
            root = Path(tempfile.mkdtemp(prefix=f"wharfie-bench-{name}-"))
            found.append(Contender(name, root, [programs[name], "--root", str(root / "state")], ""))
    return found


def make_bundle(runtime: Contender) -> None:
    """Busybox, with the mounts, namespaces and limits of any container."""
    bundle = runtime.root / "bundle"
    with tarfile.open(fileobj=io.BytesIO(busybox_image.archive())) as image:
        layer = image.extractfile("layer.tar")
        assert layer is not None
        with tarfile.open(fileobj=layer) as content:
            content.extractall(bundle / "rootfs", filter="tar")
    subprocess.run([BIN / "wharfie-runtime", "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["ociVersion"] = "1.0.2"  # the one that all of them know
    config["process"]["terminal"] = False
    config["linux"]["cgroupsPath"] = f"{runtime.cgroup}/box"
    for name, args in (("true", ["true"]), ("sleep", ["sleep", "600"])):
        folder = runtime.root / name
        folder.mkdir()
        (folder / "rootfs").symlink_to(bundle / "rootfs")
        config["process"]["args"] = args
        config["root"]["path"] = str(bundle / "rootfs")
        (folder / "config.json").write_text(json.dumps(config))


def _call(runtime: Contender, *words: str, folder: str = "sleep") -> None:
    """Errors: BenchFailed."""
    with tempfile.TemporaryFile() as output:  # no pipe, which a container would keep open
        done = subprocess.run(
            [*runtime.command, *words],
            cwd=runtime.root / folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=60,
            check=False,
        )
        if done.returncode:
            output.seek(0)
            raise BenchFailed(f"{runtime.name} {words[0]}: {output.read().decode(errors='replace').strip()[-300:]}")


def life(runtime: Contender) -> None:
    """One container in one go, and one step by step."""
    with runtime.timed("run"):
        _call(runtime, "run", "box", folder="true")
    for key, words in (
        ("create", ("create", "box")),
        ("state", ("state", "box")),
        ("start", ("start", "box")),
        ("exec", ("exec", "box", "true")),
        ("delete", ("delete", "--force", "box")),
    ):
        with runtime.timed(key):
            _call(runtime, *words)


def able(runtime: Contender) -> bool:
    """Whether it runs anything on this host at all; the first time is nobody's measure."""
    try:
        make_bundle(runtime)
        life(runtime)
        runtime.samples.clear()
    except BenchFailed as error:
        if runtime.name == OURS:
            raise
        console.print(f"Left out: {error}")
        return False
    return True


def work(runtimes: Sequence[Contender], rounds: int, target: str | None) -> int:
    """All of it. Errors: BenchFailed."""
    try:
        running = [runtime for runtime in runtimes if able(runtime)]
        for runtime in in_turns(running, rounds):
            life(runtime)
        return report(running, FIGURES, client="none", rounds=rounds, target=target, beside=BESIDE[0])
    finally:
        for runtime in runtimes:
            with contextlib.suppress(BenchFailed, OSError):
                _call(runtime, "delete", "--force", "box", folder=".")


def main() -> int:
    names = (OURS, *BESIDE)
    parser = options("wharfie-runtime beside runc and crun, where they are installed.", rounds=15, names=names)
    arguments = parser.parse_args()
    return conduct(
        partial(contenders, arguments.engine or names), partial(work, rounds=arguments.rounds, target=arguments.json)
    )


if __name__ == "__main__":
    sys.exit(main())
