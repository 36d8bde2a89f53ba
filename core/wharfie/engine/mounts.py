"""User mounts of a container: from `Binds`, `Mounts`, `Volumes`, `VolumesFrom` and `Tmpfs` to mount points.

Later entries win over earlier ones for one destination, in this order: the image's volumes, --volumes-from, -v, --mount
(a destination named twice by the user is an error, as with Docker).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from wharfie.engine.identity import check_volume_name
from wharfie.engine.model.container import Container, MountPoint
from wharfie.engine.model.host import MountSpec, TmpfsOptions
from wharfie.spi.errors import InvalidArgument, NotFound, Unsupported, WharfieError

_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_MODES = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    frozenset({"nocopy"}),
    frozenset({"consistent", "cached", "delegated"}),  # of Docker Desktop; they say nothing here
    _PROPAGATIONS,
)
"""What a mode may say: one word at most of each."""


def parse_bind(text: str, default_driver: str) -> MountPoint:
    """`-v`: SOURCE:DESTINATION[:MODES] or a destination alone (an anonymous volume).

    Errors: WharfieError and InvalidArgument with Docker's texts (the daemon answers 500 for a bad specification).
    """
    parts = text.split(":")
    if not text or len(parts) > 3 or any(not part for part in parts):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return _volume("", _destination(text, parts[0], "volume"), "", default_driver)
    source, target = parts[0], parts[1]
    mode = parts[2] if len(parts) == 3 else ""
    if len(parts) == 2 and _is_mode(target):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if mode and not _is_mode(mode):
        raise InvalidArgument(f"invalid mode: {mode}")
    words = mode.split(",")
    propagation = next((word for word in words if word in _PROPAGATIONS), "")
    kind = "bind" if source.startswith("/") else "volume"
    destination = _destination(text, target, kind)
    if "nocopy" in words if kind == "bind" else propagation:
        extra = "VolumeOptions" if kind == "bind" else "BindOptions"
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": field {extra} must not be "
            "specified"
        )
    if kind == "bind":
        return MountPoint(
            type="bind",
            source=posixpath.normpath(source),
            destination=destination,
            mode=mode,
            rw="ro" not in words,
            propagation=propagation or "rprivate",
            options=["create"],
        )
    check_volume_name(source)
    mount = _volume(source, destination, mode, default_driver)
    mount.rw = "ro" not in words
    mount.copy_up = "nocopy" not in words
    return mount


def _is_mode(text: str) -> bool:
    words = text.split(",")
    known = all(any(word in group for group in _MODES) for word in words)
    return known and all(sum(word in group for word in words) <= 1 for group in _MODES)


def _volume(name: str, destination: str, mode: str, driver: str) -> MountPoint:
    return MountPoint(
        type="volume", name=name, destination=destination, mode=mode, driver=driver, anonymous=not name, copy_up=True
    )


def _destination(text: str, target: str, kind: str) -> str:
    if not target.startswith("/"):
        raise WharfieError(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": invalid mount path: "
            f"'{target}' mount path must be absolute"
        )
    cleaned = posixpath.normpath(target)
    if cleaned in ("/", "//"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount config for type \"{kind}\": invalid specification: "
            "destination can't be '/'"
        )
    return cleaned


def parse_mount(spec: MountSpec, default_driver: str) -> MountPoint:
    """`--mount`. Errors: InvalidArgument with Docker's texts."""
    wrong = f'invalid mount config for type "{spec.type}": '
    if spec.type not in ("bind", "volume", "tmpfs", "image"):
        if spec.type == "npipe":
            raise InvalidArgument(f"{wrong}named pipes are of Windows: on Linux bind the socket's folder or file")
        if spec.type == "cluster":
            raise InvalidArgument(f"{wrong}cluster volumes need a swarm, which this daemon is not part of")
        raise InvalidArgument(f"{wrong}mount type unknown")
    if not spec.target:
        raise InvalidArgument(f"{wrong}field Target must not be empty")
    if not spec.target.startswith("/"):
        raise InvalidArgument(f"{wrong}invalid mount path: '{spec.target}' mount path must be absolute")
    target = posixpath.normpath(spec.target)
    if target == "/":
        raise InvalidArgument(f"{wrong}invalid specification: destination can't be '/'")
    for kind, field, given in _options_of_kinds(spec):
        if given is not None and kind != spec.type:
            raise InvalidArgument(f"{wrong}field {field} must not be specified")
    if spec.type == "bind":
        return _parse_bind_mount(spec, target, wrong)
    if spec.type == "tmpfs":
        if spec.source:
            raise InvalidArgument(f"{wrong}field Source must not be specified")
        options = _tmpfs_options(spec.tmpfs_options or TmpfsOptions(), wrong)
        return MountPoint(type="tmpfs", destination=target, rw=not spec.read_only, options=options)
    if spec.type == "image":
        return _parse_image_mount(spec, target, wrong)
    own = spec.volume_options
    driver = own.driver_config.name if own and own.driver_config and own.driver_config.name else ""
    mount = _volume(spec.source, target, "", driver or default_driver)
    mount.rw = not spec.read_only
    mount.copy_up = not (own and own.no_copy)
    mount.subpath = _subpath(own.subpath if own else "", wrong)
    if mount.subpath and not spec.source:
        raise InvalidArgument(f"{wrong}must not set Subpath when using anonymous volumes")
    if spec.source:
        check_volume_name(spec.source)
    elif spec.read_only:
        raise InvalidArgument(f"{wrong}must not set ReadOnly mode when using anonymous volumes")
    return mount


def _options_of_kinds(spec: MountSpec) -> Iterator[tuple[str, str, object]]:
    yield "bind", "BindOptions", spec.bind_options
    yield "volume", "VolumeOptions", spec.volume_options
    yield "image", "ImageOptions", spec.image_options
    yield "tmpfs", "TmpfsOptions", spec.tmpfs_options


def _parse_image_mount(spec: MountSpec, target: str, wrong: str) -> MountPoint:
    """Read-only whatever was asked: an image's layers are shared by everybody who has it."""
    if not spec.source:
        raise InvalidArgument(f"{wrong}field Source must not be empty")
    subpath = _subpath(spec.image_options.subpath if spec.image_options else "", wrong)
    return MountPoint(type="image", name=spec.source, destination=target, rw=False, subpath=subpath)


def _subpath(text: str, wrong: str) -> str:
    """Relative, and not upwards. What its links say is found out at the start."""
    if not text:
        return ""
    cleaned = posixpath.normpath(text)
    if cleaned.startswith("/") or cleaned.split("/")[0] == ".." or "\0" in cleaned:
        raise InvalidArgument(f"{wrong}subpath must be a relative path within the volume")
    return cleaned


def _parse_bind_mount(spec: MountSpec, target: str, wrong: str) -> MountPoint:
    if not spec.source:
        raise InvalidArgument(f"{wrong}field Source must not be empty")
    if not spec.source.startswith("/"):
        raise InvalidArgument(f"{wrong}invalid mount path: '{spec.source}' mount path must be absolute")
    options = spec.bind_options
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in _PROPAGATIONS:
        raise InvalidArgument(f"{wrong}invalid propagation mode: {propagation}")
    below = _read_only_below(spec, propagation, wrong)
    create = bool(options and options.create_mountpoint)
    if not create:
        check_source(spec.source)
    return MountPoint(
        type="bind",
        source=posixpath.normpath(spec.source),
        destination=target,
        rw=not spec.read_only,
        propagation=propagation,
        recursive=not (options and options.non_recursive),
        read_only_below=below,
        options=["create"] if create else [],
    )


def check_source(source: str) -> None:
    """Whether a bind's source is there. Errors: InvalidArgument with Docker's texts."""
    wrong = 'invalid mount config for type "bind": '
    try:
        Path(source).stat()
    except FileNotFoundError:
        raise InvalidArgument(f"{wrong}bind source path does not exist: {source}") from None
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "invalid argument"
        raise InvalidArgument(f"{wrong}stat {source}: {reason}") from None


def _read_only_below(spec: MountSpec, propagation: str, wrong: str) -> Literal["", "never", "always"]:
    options = spec.bind_options
    if options is None or not (options.read_only_non_recursive or options.read_only_force_recursive):
        return ""
    if options.read_only_non_recursive and options.read_only_force_recursive:
        raise InvalidArgument(f"{wrong}mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
    if not spec.read_only:
        raise InvalidArgument(f"{wrong}mount option ReadOnlyNonRecursive or ReadOnlyForceRecursive needs ReadOnly")
    if options.read_only_non_recursive:
        return "never"
    if propagation != "rprivate":
        raise InvalidArgument(f"{wrong}mount option ReadOnlyForceRecursive needs the propagation rprivate")
    return "always"


def _tmpfs_options(options: TmpfsOptions, wrong: str) -> list[str]:
    """As mount(8) has them. Errors: InvalidArgument."""
    words = []
    if options.size_bytes < 0:
        raise InvalidArgument(f"{wrong}a tmpfs cannot have {options.size_bytes} bytes")
    if options.size_bytes:
        words.append(f"size={options.size_bytes}")
    if options.mode:
        words.append(f"mode={options.mode:o}")
    for option in options.options or ():
        if len(option) not in (1, 2) or "," in "".join(option):
            raise InvalidArgument(f"{wrong}invalid tmpfs option {option}: want a word, or a name and a value")
        word = "=".join(option)
        _check_tmpfs(word)
        words.append(word)
    return words


_TMPFS_FLAGS = frozenset(
    {"async", "atime", "defaults", "dev", "diratime", "dirsync", "exec", "iversion", "loud", "mand", "noatime", "nodev"}
    | {
        "nodiratime",
        "noexec",
        "noiversion",
        "nomand",
        "norelatime",
        "nostrictatime",
        "nosuid",
        "rbind",
        "relatime",
        "remount",
    }
    | {"ro", "rw", "silent", "strictatime", "suid", "sync", "tmpcopyup", "unbindable", "runbindable", *_PROPAGATIONS}
)
_TMPFS_VALUES = frozenset({"gid", "huge", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"})


def _check_tmpfs(options: str) -> None:
    """`--tmpfs PATH:OPTIONS`. Errors: InvalidArgument with Docker's text."""
    for word in filter(None, options.split(",")):
        name, equals, value = word.partition("=")
        if (name not in _TMPFS_VALUES) if equals else (name not in _TMPFS_FLAGS):
            shown = f'"{name}" "{value}"' if equals else f'"{name}"'
            raise InvalidArgument(f"invalid tmpfs option [{shown}]")


def parse_volumes_from(text: str, find: Callable[[str], Container]) -> list[MountPoint]:
    """`--volumes-from CONTAINER[:ro|rw]`: the other container's volumes and binds."""
    name, _, mode = text.partition(":")
    words = mode.split(",") if mode else []
    if not name:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    if words and (not _is_mode(mode) or "nocopy" in words):
        raise InvalidArgument(f"invalid mode: {mode}")
    try:
        other = find(name)
    except NotFound as error:
        # As 404 it would be taken for a missing image, and clients would pull.
        raise InvalidArgument(error.message) from error
    mounts = []
    for mount in other.mounts:
        if mount.type in ("bind", "volume"):
            shared = mount.model_copy(update={"copy_up": False, "anonymous": False})
            shared.rw = mount.rw and "ro" not in words
            mounts.append(shared)
    return mounts


def plan_mounts(
    *,
    image_volumes: Iterable[str],
    volumes_from: Sequence[str],
    binds: Sequence[str],
    specs: Sequence[MountSpec],
    tmpfs: Mapping[str, str],
    default_driver: str,
    find: Callable[[str], Container],
) -> list[MountPoint]:
    """All mount points of a container, sorted by depth. Volumes have no folder yet, anonymous ones no name."""
    chosen: dict[str, MountPoint] = {}
    for text in volumes_from:
        chosen.update((mount.destination, mount) for mount in parse_volumes_from(text, find))
    explicit = [parse_bind(text, default_driver) for text in binds] + [parse_mount(spec, default_driver) for spec in specs]
    named: set[str] = set()
    for mount in explicit:
        if mount.destination in named:
            raise InvalidArgument(f"Duplicate mount point: {mount.destination}")
        named.add(mount.destination)
        chosen[mount.destination] = mount
    for destination in tmpfs:
        target = posixpath.normpath(destination)
        if not target.startswith("/"):
            raise InvalidArgument(f"invalid mount path: '{destination}' mount path must be absolute")
        if target == "/":
            raise InvalidArgument("invalid specification: destination can't be '/'")
        if target in named:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        _check_tmpfs(tmpfs[destination])
    shadowed = {posixpath.normpath(destination) for destination in tmpfs}
    for destination in image_volumes:
        target = posixpath.normpath("/" + destination.lstrip("/"))  # Docker takes a relative path from the root
        if target == "/":
            raise InvalidArgument(
                f"invalid volume specification: '{destination}': invalid mount config for type \"volume\": invalid "
                "specification: destination can't be '/'"
            )
        if target not in chosen and target not in shadowed:
            chosen[target] = _volume("", target, "", default_driver)
    return sorted(chosen.values(), key=lambda mount: (mount.destination.count("/"), mount.destination))


READ_ONLY_BELOW = (5, 12)
"""The first kernel that makes a mount and all below it read-only in one call (mount_setattr(2))."""


def oci_mounts(
    mounts: Sequence[tuple[MountPoint, str]], tmpfs: Mapping[str, str], *, kernel: tuple[int, int], map_ids: bool = False
) -> list[dict[str, Any]]:
    """OCI runtime-spec mounts for mount points and the folders that they resolved to.

    Read-only means everything below too, where the kernel can. `map_ids`: the container has users of its own, to whom its
    volumes belong; a folder of the host's stays the host's. Errors: Unsupported (it was demanded, and it cannot).
    """
    result: list[dict[str, Any]] = []
    for mount, source in mounts:
        if mount.type == "tmpfs":
            options = ["nosuid", "nodev", "noexec", *mount.options, *([] if mount.rw else ["ro"])]
            result.append(_entry(mount.destination, "tmpfs", "tmpfs", options))
        else:
            options = ["rbind" if mount.recursive else "bind", mount.propagation or "rprivate"]
            options.append("rw" if mount.rw else _read_only(mount, kernel))
            if map_ids and mount.type == "volume":
                options.append("idmap")
            result.append(_entry(mount.destination, "bind", source, options))
    for destination, text in tmpfs.items():
        words = [word for word in text.split(",") if word]
        options = [word for word in ("noexec", "nosuid", "nodev") if not _overridden(word, words)]
        result.append(_entry(posixpath.normpath(destination), "tmpfs", "tmpfs", [*options, *words]))
    return sorted(result, key=lambda entry: entry["destination"].count("/"))


def _read_only(mount: MountPoint, kernel: tuple[int, int]) -> str:
    if mount.read_only_below == "always" and kernel < READ_ONLY_BELOW:
        raise Unsupported(
            f"mount at {mount.destination}: read-only for what is mounted below needs Linux 5.12, this is "
            f"{kernel[0]}.{kernel[1]}; leave bind-recursive=readonly out to have only the folder itself read-only"
        )
    return "rro" if mount.recursive and mount.read_only_below != "never" and kernel >= READ_ONLY_BELOW else "ro"


def _overridden(word: str, words: Sequence[str]) -> bool:
    """ "exec" in the user's words takes the default "noexec" away."""
    return word.removeprefix("no") in words


def _entry(destination: str, type: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": destination, "type": type, "source": source, "options": list(options)}
