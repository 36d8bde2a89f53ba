"""`make bench`, second part: an image of 150 MB, 8,000 files and four layers pulled, pushed, saved, loaded and removed, by
our engine beside dockerd in turns; and a list of 300 images.

Registries (Debian's docker-registry) run on each engine's own loopback: one with the image, one that is emptied before each
push, so that every push sends every byte.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from contest import OURS, THEIRS, BenchFailed, Contender, Figure, conduct, console, contenders, in_turns, options, report
from rich.progress import Progress

from wharfie.client.client import Client

LAYERS = 4
FILES = 2000
FILE_SIZES = (2_000, 35_500)
LISTED = 300
LISTS = 5
SETTLE_SECONDS = 1.0  # for what an engine still does after it has answered
NAME = "127.0.0.1:5000/bench"
COPY = "127.0.0.1:5001/copy"

FIGURES: Sequence[Figure] = (
    Figure("pull", "pull 150 MB, 8,000 files", "s", aim=0.6),
    Figure("push", "push of it", "s", aim=0.4),
    Figure("save", "save of it", "s", aim=0.4),
    Figure("remove", "its removal", "s", aim=0.8),
    Figure("load", "load of it, uncompressed", "s", aim=0.6),
    Figure("images", f"list of {LISTED} images", "ms"),
)


def write_archive(path: Path, files: int) -> None:
    """What `docker load` reads, with so many files a layer: half of each compresses well."""
    source = random.Random(8000)
    with tarfile.open(path, "w") as archive:
        diff_ids, names = [], []
        for number in range(LAYERS):
            layer = _layer(number, files, source)
            diff_ids.append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
            names.append(f"{number}/layer.tar")
            _add(archive, names[-1], layer)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        _add(archive, "config.json", json.dumps(config).encode())
        manifest = [{"Config": "config.json", "RepoTags": [f"{NAME}:1"], "Layers": names}]
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer(number: int, files: int, source: random.Random) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for at in range(files):
            size = source.randint(*FILE_SIZES)
            _add(tar, f"layer{number}/folder{at % 50}/file{at}", source.randbytes(size // 2) + b"text " * (size // 10))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


class Registries:
    """The two registries of an engine."""

    def __init__(self, engine: Contender, source: Path) -> None:
        assert engine.process is not None
        self._inside = ["nsenter", f"--net=/proc/{engine.process.pid}/ns/net"]
        self._sink = engine.root / "registry-sink"
        self._processes = [self._serve(engine.root, source, 5000), self._serve(engine.root, self._sink, 5001)]

    def _serve(self, folder: Path, store: Path, port: int) -> subprocess.Popen[bytes]:
        config = folder / f"registry-{port}.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {store}}}}}\n"
            f"http: {{addr: 127.0.0.1:{port}}}\n"
        )
        words = [*self._inside, "docker-registry", "serve", str(config)]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def fill(self, archive: Path) -> None:
        """The image into the first. Errors: BenchFailed."""
        words = [
            *self._inside,
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--retry-times=5",
            "--dest-tls-verify=false",
        ]
        result = subprocess.run(
            [*words, f"docker-archive:{archive}", f"docker://{NAME}:1"], capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise BenchFailed(f"the registry takes no image: {result.stderr}")

    def empty(self) -> None:
        """The second."""
        shutil.rmtree(self._sink, ignore_errors=True)

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()


def round_of(engine: Contender, registries: Registries, archive: Path) -> None:
    """Once through an image's life. Errors: ClientError."""
    registries.empty()
    with contextlib.closing(Client(engine.host)) as client:
        _ = client.version
        with _timed(engine, "pull"):
            _drain(client, "/images/create", {"fromImage": NAME, "tag": "1"})
        client.post(f"/images/{NAME}:1/tag", None, {"repo": COPY, "tag": "1"})
        with _timed(engine, "push"):
            _drain(client, f"/images/{COPY}/push", {"tag": "1"}, headers={"X-Registry-Auth": "e30="})
        client.delete(f"/images/{COPY}:1")
        with _timed(engine, "save"):
            response = client.open("GET", f"/images/{NAME}:1/get")
            with contextlib.closing(response.connection):
                for _piece in response.blocks():
                    pass
        with _timed(engine, "remove"):
            client.delete(f"/images/{NAME}:1")
        with _timed(engine, "load"):
            headers = {"Content-Type": "application/x-tar"}
            _drain(client, "/images/load", {"quiet": True}, body=_blocks(archive), headers=headers)
        client.delete(f"/images/{NAME}:1", {"force": True})


def _drain(client: Client, path: str, query: dict[str, object], **more: object) -> None:
    for _message in client.messages("POST", path, query, **more):  # type: ignore[arg-type]  # passed on as they are
        pass


def _blocks(archive: Path) -> Iterator[bytes]:
    with archive.open("rb", buffering=0) as file:
        while block := file.read(1 << 20):
            yield block


def make_listed(engine: Contender, count: int) -> None:
    """Images of one file each."""
    with contextlib.closing(Client(engine.host)) as client:
        for number in range(count):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                _add(tar, "file", str(number).encode())
            _drain(client, "/images/create", {"fromSrc": "-", "repo": "listed", "tag": str(number)}, body=buffer.getvalue())


def lists(engine: Contender, count: int) -> None:
    with contextlib.closing(Client(engine.host)) as client:
        _ = client.version
        for _number in range(LISTS):
            began = time.perf_counter()
            found = client.get("/images/json")
            engine.add("images", (time.perf_counter() - began) * 1000)
            if len(found) != count:
                raise BenchFailed(f"{engine.name} lists {len(found)} images, not {count}")


@contextlib.contextmanager
def _timed(engine: Contender, key: str) -> Iterator[None]:
    """Seconds. What was written before is on the disk first: the engine's own writing is what is measured."""
    os.sync()
    began = time.perf_counter()
    yield
    engine.add(key, time.perf_counter() - began)
    time.sleep(SETTLE_SECONDS)


def measure(engines: Sequence[Contender], rounds: int, folder: Path, *, files: int, listed: int) -> None:
    """Every figure in turns. Errors: BenchFailed, ClientError."""
    archive = folder / "image.tar"
    write_archive(archive, files)
    with contextlib.ExitStack() as stack, Progress(console=console, transient=True) as progress:
        registries = {}
        for engine in engines:
            registries[engine.name] = Registries(engine, folder / "registry")
            stack.callback(registries[engine.name].close)
        registries[engines[0].name].fill(archive)
        task = progress.add_task("images", total=rounds * len(engines))
        for engine in in_turns(engines, rounds):
            round_of(engine, registries[engine.name], archive)
            progress.advance(task)
        for engine in engines:
            make_listed(engine, listed)
        for engine in engines:
            lists(engine, listed)


def work(engines: Sequence[Contender], arguments: argparse.Namespace) -> int:
    """All of it. Errors: BenchFailed, ClientError."""
    for engine in engines:
        engine.start()
    with tempfile.TemporaryDirectory(prefix="wharfie-bench-") as folder:
        measure(engines, arguments.rounds, Path(folder), files=arguments.files, listed=arguments.listed)
    return report(engines, FIGURES, client="the API", rounds=arguments.rounds, target=arguments.json)


def main() -> int:
    parser = options("Images: our engine beside dockerd, if one is installed.", rounds=3)
    parser.add_argument("--files", type=int, default=FILES, help=f"in each layer (default {FILES})")
    parser.add_argument("--listed", type=int, default=LISTED, help=f"images that are listed (default {LISTED})")
    arguments = parser.parse_args()
    return conduct(
        partial(contenders, arguments.engine or (OURS, THEIRS)),
        partial(work, arguments=arguments),
        needs=("docker-registry", "skopeo", "nsenter"),
    )


if __name__ == "__main__":
    sys.exit(main())
