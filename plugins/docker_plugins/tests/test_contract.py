"""The contracts of the kit, with a legacy plugin behind the adapters. The plugin lives in each rule's room.

Log and network plugins cannot conform by their nature: the protocol has no word for "remove this log", options are the
plugin's alone, and a plugin remembers its networks itself (README, "Limits").
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from wharfie_docker_plugins import hooks

from wharfie.kit import AuthzContract, IpamContract, VolumeContract
from wharfie.kit.authz import api_request
from wharfie.spi.driver import Context

SERVER = Path(__file__).with_name("legacy_server.py")
IMPLEMENTS = {"volume": "VolumeDriver", "ipam": "IpamDriver", "authz": "authz"}


class Legacy:
    """`world` starts the plugin."""

    def world(self, rig: Any) -> None:
        folder = rig.folder / "plugins"
        folder.mkdir(exist_ok=True)
        os.environ["WHARFIE_DOCKER_PLUGIN_DIRS"] = str(folder)
        state = rig.folder / "legacy-state"
        state.mkdir(exist_ok=True)
        command = [sys.executable, str(SERVER), str(folder / "legacy.sock"), str(state)]
        process = subprocess.Popen([*command, "--implements", IMPLEMENTS[self.kind]], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()


class TestLegacyVolume(Legacy, VolumeContract):
    @staticmethod
    def driver(context: Context) -> Any:
        return hooks.find_driver("volume", "legacy")(context, None)


class TestLegacyIpam(Legacy, IpamContract):
    @staticmethod
    def driver(context: Context) -> Any:
        return hooks.find_driver("ipam", "legacy")(context, None)


class TestLegacyAuthz(Legacy, AuthzContract):
    @staticmethod
    def driver(context: Context) -> Any:
        return hooks.find_driver("authz", "legacy")(context, None)

    allowed = api_request("GET", "/info")
    refused = api_request("POST", "/containers/create", {"HostConfig": {"Privileged": True}})
