"""Random layers and random work in a container, really mounted, against a plain model of what OCI's image-spec says."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfie.spi.storage import SnapshotOptions

pytestmark = pytest.mark.root

Model = dict[str, tuple[int, bytes | None]]
"""path → mode and content, None for a folder."""

PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
FILES = st.tuples(PATHS, st.sampled_from([0o644, 0o600]), st.sampled_from([b"", b"1", b"22"]))
FOLDERS = st.tuples(PATHS, st.sampled_from([0o755, 0o700, 0o1777]), st.none())
HIDDEN = st.tuples(PATHS, st.just(0), st.just("whiteout"))
OPAQUE = st.tuples(PATHS, st.just(0), st.just("opaque"))
LAYER = st.lists(st.one_of(FILES, FOLDERS, HIDDEN, OPAQUE), max_size=7)


def above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def consistent(entries: list[tuple]) -> list[tuple]:
    """Without a file on the way to another entry, and with one entry a path: what those mean, no specification says."""
    kept: list[tuple] = []
    files, folders, seen = set(), set(), set()
    for path, mode, content in entries:
        is_file = isinstance(content, bytes)
        needed = {*above(path), *([] if content == "whiteout" or is_file else [path])}
        if (
            files & needed
            or (is_file and path in folders)
            or (content != "whiteout" and content != "opaque" and path in seen)
        ):
            continue
        folders |= needed
        if is_file:
            files.add(path)
        if content not in ("whiteout", "opaque"):
            seen.add(path)
        kept.append((path, mode, content))
    return kept


def drop(model: Model, path: str, *, itself: bool) -> None:
    for other in list(model):
        if other.startswith(path + "/") or (itself and other == path):
            del model[other]


def apply_to(model: Model, entries: list[tuple]) -> None:
    """Whiteouts first, for they concern the layers below only; then what the layer brings."""
    for path, _, content in entries:
        if content == "whiteout":
            drop(model, path, itself=True)
        elif content == "opaque":
            drop(model, path, itself=False)
    for path, mode, content in entries:
        needed = above(path) + ([path] if content == "opaque" else [])
        for folder in needed:
            if folder not in model or model[folder][1] is not None:
                model[folder] = (0o755, None)
        if content in ("whiteout", "opaque"):
            continue
        if content is None:
            if path in model and model[path][1] is not None:
                del model[path]
        else:
            drop(model, path, itself=True)
        model[path] = (mode, content)


def specs(entries: list[tuple], folder) -> list:
    made: list = []
    for path, mode, content in entries:
        parent, _, name = path.rpartition("/")
        if content == "whiteout":
            made.append((f"{parent}/.wh.{name}" if parent else f".wh.{name}", "file"))
        elif content == "opaque":
            made.append((f"{path}/.wh..wh..opq", "file"))
        else:
            info = folder(path, mode)
            if content is not None:
                info.type, info.size = b"0", len(content)
                made.append((info, content))
            else:
                made.append(info)
    return made


def pack(tar, entries: list) -> bytes:
    """The builder takes no content with a TarInfo, so it is put between."""
    out = b""
    for entry in entries:
        if isinstance(entry, tuple) and not isinstance(entry[0], str):
            info, content = entry
            out += tar(info)[:-1024] + content + bytes(-len(content) % 512)
        else:
            out += tar(entry)[:-1024]
    return out + bytes(1024)


def look(root: Path) -> Model:
    found: Model = {}
    for path in root.rglob("*"):
        facts = path.lstat()
        content = None if stat.S_ISDIR(facts.st_mode) else path.read_bytes()
        found[str(path.relative_to(root))] = (stat.S_IMODE(facts.st_mode), content)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(LAYER, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_merged_tree_is_what_the_specification_says(benches, tar, folder, layers: list[list[tuple]], chance) -> None:
    model: Model = {}
    numbered = []
    for number, entries in enumerate(map(consistent, layers)):
        apply_to(model, entries)
        numbered.append((f"sha256:{number}", f"sha256:{number - 1}" if number else None, pack(tar, specs(entries, folder))))
    top = numbered[-1][0]
    chance.shuffle(numbered)  # layers may come in any order
    with benches() as bench:
        for layer in numbered:
            bench.apply_bytes(*layer)
        bench.driver.create("k", top, SnapshotOptions())
        assert bench.inside("k", look) == model


def act(root: Path, steps: list[tuple[str, str, str]]) -> None:
    """A container at work; what makes no sense is left out."""
    for step, one, two in steps:
        first, second = root / one, root / two
        try:
            if step == "write":
                first.write_bytes(two.encode())
            elif step == "remove":
                shutil.rmtree(first) if first.is_dir() and not first.is_symlink() else first.unlink()
            elif step == "mkdir":
                first.mkdir()
            elif step == "rename":
                first.rename(second)
            elif step == "link":
                os.link(first, second)
            elif step == "chmod":
                first.chmod(0o700)
        except OSError:
            continue


STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "remove", "mkdir", "rename", "link", "chmod"]), PATHS, PATHS),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(LAYER, LAYER, STEPS)
def test_what_a_container_did_comes_back_as_a_layer(benches, tar, folder, first, second, steps) -> None:
    """The same tree from the snapshot, from its diff applied as a layer, and from the snapshot promoted; and `changes`
    says of each path what a comparison of the two whole trees says."""
    with benches() as bench:
        bench.apply_bytes("sha256:a", None, pack(tar, specs(consistent(first), folder)))
        bench.apply_bytes("sha256:b", "sha256:a", pack(tar, specs(consistent(second), folder)))
        before = bench.inside("sha256:b", look)
        bench.driver.create("k", "sha256:b", SnapshotOptions())
        bench.inside("k", lambda root: act(root, steps))
        after = bench.inside("k", look)
        bench.apply_bytes("sha256:c", "sha256:b", bench.diff("k"))
        assert bench.inside("sha256:c", look) == after
        changes = {change.path[1:]: int(change.kind) for change in bench.driver.changes("k")}
        for path in before.keys() | after.keys():
            if path not in before:
                assert changes.pop(path) == 1
            elif path not in after:
                gone_with_parent = any(parent not in after or after[parent][1] is not None for parent in above(path))
                assert changes.pop(path, None) == (None if gone_with_parent else 2)
            elif before[path] != after[path]:
                assert changes.pop(path) == 0
        # The rest was written again without becoming different, or is a folder in which something changed.
        assert set(changes.values()) <= {0}
        bench.driver.promote("k", "sha256:d")
        assert bench.inside("sha256:d", look) == after
