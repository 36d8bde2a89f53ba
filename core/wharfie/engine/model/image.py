"""The record of an image. Docker Engine API, definitions ImageInspect, ImageSummary and HistoryResponseItem.

An image's id is the digest of its configuration document. The document itself, the manifest and the layers as they came
are blobs of the content store; what answers and containers need of them is copied here.
"""

from __future__ import annotations

from pydantic import Field

from wharfie.engine.model.base import NO_TIME, Model
from wharfie.engine.model.config import Config


class ImageLayer(Model):
    """One layer. `size`: bytes unpacked. `blob`: the digest under which the content store has it, as it came."""

    diff_id: str
    chain_id: str
    size: int
    blob: str
    blob_size: int
    media_type: str


class ImageHistory(Model):
    """One step of how the image was made (OCI image-spec, config.md "History")."""

    created: str = NO_TIME
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Image(Model):
    """`repo_tags` and `repo_digests` are familiar names, sorted; they follow the catalog's references."""

    id: str
    created: str = NO_TIME
    parent: str = ""
    comment: str = ""
    author: str = ""
    docker_version: str = ""
    architecture: str
    variant: str = ""
    os: str
    config: Config = Field(default_factory=Config)
    stack: list[ImageLayer] = Field(default_factory=list)
    history: list[ImageHistory] = Field(default_factory=list)
    manifest: str = ""
    manifest_type: str = ""
    manifest_size: int = 0
    last_tagged: str = NO_TIME
    repo_tags: list[str] = Field(default_factory=list)
    repo_digests: list[str] = Field(default_factory=list)

    @property
    def layers(self) -> list[str]:
        """Diff ids, the lowest layer first."""
        return [layer.diff_id for layer in self.stack]

    @property
    def chain_ids(self) -> list[str]:
        """Names of the layers in the storage driver, the lowest first."""
        return [layer.chain_id for layer in self.stack]

    @property
    def top_layer(self) -> str:
        """What a container's snapshot stands on; empty for an image without layers."""
        return self.stack[-1].chain_id if self.stack else ""

    @property
    def size(self) -> int:
        """Bytes of all layers unpacked."""
        return sum(layer.size for layer in self.stack)


class HistoryItem(Model):
    """One line of `docker history`. `id` is "<missing>" for steps that are no image here."""

    id: str
    created: int
    created_by: str
    size: int
    comment: str
    tags: list[str] | None = None
