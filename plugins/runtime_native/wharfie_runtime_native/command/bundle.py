"""A bundle, read: config.json and the root that it names (runtime-spec, bundle.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.command import fields


def read_config(bundle: str) -> Mapping[str, Any]:
    """Errors: InvalidArgument."""
    file = os.path.join(bundle, "config.json")
    try:
        with open(file, "rb") as text:
            config = json.loads(text.read())
    except FileNotFoundError:
        raise InvalidArgument(f"JSON specification file {file} not found") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"cannot read {file}: {error}") from error
    if not isinstance(config, dict):
        raise InvalidArgument(f"{file} has no JSON object")
    fields.check(config, fields.CONFIG, "")
    version = str(config.get("ociVersion") or "")
    if not version.startswith("1."):
        raise InvalidArgument(f'{file}: ociVersion "{version}" is not supported; versions 1.x are')
    return config


def root_of(bundle: str, config: Mapping[str, Any]) -> str:
    """The container's root on the host. Errors: InvalidArgument."""
    path = str((config.get("root") or {}).get("path") or "")
    if not path:
        raise InvalidArgument("root.path is empty: a container needs a root")
    root = os.path.join(bundle, path)
    if not os.path.isdir(root):
        raise InvalidArgument(f"root.path: {root} is not a directory")
    return os.path.realpath(root)
