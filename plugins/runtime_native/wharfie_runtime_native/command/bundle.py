"""A bundle, read: config.json and the root that it names (runtime-spec, bundle.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wharfie.spi.errors import InvalidArgument


def read_config(bundle: Path) -> Mapping[str, Any]:
    """Errors: InvalidArgument."""
    file = bundle / "config.json"
    try:
        config = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise InvalidArgument(f"JSON specification file {file} not found") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"cannot read {file}: {error}") from error
    if not isinstance(config, dict):
        raise InvalidArgument(f"{file} has no JSON object")
    version = str(config.get("ociVersion") or "")
    if not version.startswith("1."):
        raise InvalidArgument(f'{file}: ociVersion "{version}" is not supported; versions 1.x are')
    return config


def root_of(bundle: Path, config: Mapping[str, Any]) -> Path:
    """The container's root on the host. Errors: InvalidArgument."""
    path = str((config.get("root") or {}).get("path") or "")
    if not path:
        raise InvalidArgument("root.path is empty: a container needs a root")
    root = bundle / path
    if not root.is_dir():
        raise InvalidArgument(f"root.path: {root} is not a directory")
    return root.resolve()
