"""Rows of `GET /containers/json`. What a record says of a row is rendered once and kept until the record changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import to_json

from wharfie.api import versions
from wharfie.api.versions import Version
from wharfie.api.views import duration
from wharfie.api.views.container import Sizes, mount_view, status_words
from wharfie.api.views.endpoint import networks_view, port_list_view
from wharfie.engine.model.container import Container
from wharfie.spi.errors import WharfieError

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine


class Fragments(NamedTuple):
    """The JSON text of a row but for what is not the record's own: the image's name, sizes, and how long ago."""

    to_image: bytes
    to_sizes: bytes
    to_status: bytes
    to_end: bytes


def summary_list(engine: Engine, containers: Sequence[Container], version: Version, sizes: Mapping[str, Sizes]) -> bytes:
    """The JSON array of definition ContainerSummary, in this order. `sizes`: by id, where they are to be shown."""
    names: dict[tuple[str, str], bytes] = {}
    texts: list[bytes] = []
    for container in containers:
        fragments = _fragments(engine, container, version)
        meant = container.config.image, container.image_id
        if meant not in names:
            names[meant] = to_json(_image_name(engine, container))
        shown = b""
        if container.id in sizes and (own := _sizes(sizes[container.id])):
            shown = b"," + to_json(own)[1:-1]
        words = status_words(container.state).encode()  # plain words and numbers: nothing in them needs an escape
        row = (fragments.to_image, names[meant], fragments.to_sizes, shown, fragments.to_status, words, fragments.to_end)
        texts.append(b"".join(row))
    return b"[" + b",".join(texts) + b"]\n"


def summary_view(engine: Engine, container: Container, version: Version, sizes: Sizes) -> dict[str, Any]:
    """Definition ContainerSummary, where it is a part of something else."""
    return {
        **_who(container),
        "Image": _image_name(engine, container),
        **_what(container),
        **_sizes(sizes),
        **_state(container),
        "Status": status_words(container.state),
        **_where(container, version),
    }


def _fragments(engine: Engine, container: Container, version: Version) -> Fragments:
    rendered = engine.containers.rendered(container)
    # The state is in the key, for it moves on before the record does.
    key = version, container.state.status, bool(container.state.error)
    fragments = rendered.get(key)
    if fragments is None:
        fragments = rendered[key] = Fragments(
            to_json(_who(container))[:-1] + b',"Image":',
            b"," + to_json(_what(container))[1:-1],
            b"," + to_json(_state(container))[1:-1] + b',"Status":"',
            b'",' + to_json(_where(container, version))[1:],
        )
    return fragments


def _who(container: Container) -> dict[str, Any]:
    return {"Id": container.id, "Names": [f"/{container.name}"]}


def _what(container: Container) -> dict[str, Any]:
    return {
        "ImageID": container.image_id,
        "Command": _command(container),
        "Created": int(duration.parse(container.created)),
        "Ports": port_list_view(container),
    }


def _sizes(sizes: Sizes) -> dict[str, int]:
    """Docker leaves a size of 0 out."""
    return {name: size for name, size in zip(("SizeRw", "SizeRootFs"), sizes, strict=True) if size}


def _state(container: Container) -> dict[str, Any]:
    return {"Labels": container.config.labels, "State": container.state.status}


def _where(container: Container, version: Version) -> dict[str, Any]:
    host: dict[str, Any] = {"NetworkMode": container.host_config.network_mode}
    if version >= versions.ANNOTATIONS_IN_LISTS and container.host_config.annotations:
        host["Annotations"] = container.host_config.annotations
    return {
        "HostConfig": host,
        "NetworkSettings": {"Networks": networks_view(container, version)},
        "Mounts": [mount_view(mount) for mount in container.mounts],
    }


def _image_name(engine: Engine, container: Container) -> str:
    """What the user wrote, as long as it still means this image."""
    name = container.config.image
    try:
        return name if not name or engine.images.get(name).id == container.image_id else container.image_id
    except WharfieError:
        return container.image_id


def _command(container: Container) -> str:
    path, *arguments = container.command or [""]
    return " ".join([path, *(f"'{argument}'" if " " in argument else argument for argument in arguments)])
