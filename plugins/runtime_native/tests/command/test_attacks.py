"""Attacks on the command line's own process, which every container's begins as."""

from __future__ import annotations

import platform

import pytest

from tests.attacker import LOADER, OVERWRITING, swap


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacker's program is written for it")
@pytest.mark.parametrize("how", ["exec", "create"])
def test_the_runtimes_program_cannot_be_overwritten(runtime, root, how):
    """CVE-2019-5736, as in the daemon's test of it; here the file is the interpreter that the script was started with."""
    folder = root / LOADER.parent.relative_to("/")
    folder.mkdir()
    swap(folder)
    tool = f"{LOADER.parent}/tool"
    name, _ = runtime.running(*([tool] if how == "create" else ["sleep", "300"]))
    if how == "exec":
        runtime.quietly(runtime.command("exec", "--detach", name, tool))
    out = runtime.ok("exec", name, "sh", "-c", OVERWRITING)
    assert out.split() == ["/memfd:wharfie-python", "(deleted)"] * 2, out
    assert runtime.ok("run", "--bundle", runtime.bundle, runtime.new("echo", "well")) == "well\n"
