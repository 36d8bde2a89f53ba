"""A storage driver that keeps every rule: our vfs under another name. Wrong ones override a method of it."""

from __future__ import annotations

import os
from dataclasses import replace

from wharfie_storage_vfs.driver import VfsDriver

from wharfie.spi.driver import Fault, Usage
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.storage import Layer, Mount, SnapshotOptions, StorageCapability


class Toy(VfsDriver):
    name = "toy"

    def root(self, key):
        """The folder of a snapshot's or layer's files."""
        return self.folder(key) / "files"

    # here
