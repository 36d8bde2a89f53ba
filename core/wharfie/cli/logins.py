"""What `docker login` stored, as the docker command line reads it: in its config.json, or with a credential helper.

docker/docker-credential-helpers: `docker-credential-NAME get`, the server on standard input, JSON on standard output.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import click

_HUB, _HUB_KEY = "docker.io", "https://index.docker.io/v1/"
_NOT_FOUND = "credentials not found"
_TOKEN_USER = "<token>"
"""The user name for which the secret is an identity token."""
_SECONDS = 60.0


def stored(registry: str) -> dict[str, str]:
    """The header of a request that is for this registry, or none. Errors: click.ClickException (the helper fails)."""
    config = _config()
    server = _HUB_KEY if registry == _HUB else registry
    helpers = config.get("credHelpers")
    helper = (helpers.get(server) if isinstance(helpers, dict) else None) or config.get("credsStore")
    auth = _of_helper(helper, server) if isinstance(helper, str) and helper else None
    auth = auth or _of_file(config.get("auths"), server)
    if not auth:
        return {}
    text = json.dumps({**auth, "serveraddress": server})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


def _config() -> dict[str, Any]:
    try:
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RuntimeError):
        return {}
    return config if isinstance(config, dict) else {}


def _of_file(entries: Any, server: str) -> dict[str, str]:
    entry = entries.get(server) if isinstance(entries, dict) else None
    if not isinstance(entry, dict):
        return {}
    if isinstance(entry.get("identitytoken"), str) and entry["identitytoken"]:
        return {"identitytoken": entry["identitytoken"]}
    try:
        pair = base64.b64decode(str(entry.get("auth") or "")).decode("utf-8", "replace")
    except binascii.Error:
        return {}
    user, separator, password = pair.partition(":")
    return {"username": user, "password": password} if separator else {}


def _of_helper(helper: str, server: str) -> dict[str, str]:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, "get"], input=server, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise click.ClickException(f"error getting credentials: {program}: {error}") from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout:
            return {}
        said = (done.stderr or done.stdout).strip()
        raise click.ClickException(f"error getting credentials: {program} ended with {done.returncode}: {said}")
    try:
        found = json.loads(done.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise click.ClickException(
            f"error getting credentials: {program} did not answer with a user and a secret"
        ) from None
    return {"identitytoken": secret} if user == _TOKEN_USER else {"username": user, "password": secret}
