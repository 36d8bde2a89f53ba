"""Seccomp: the rules of `linux.seccomp` as a classic BPF program (`program`), with system calls by number (`numbers`).

Compiling takes a few milliseconds and pulls in tables that nobody needs afterwards. So the child does it, which is
about to execute something else, and keeps the result in a file of the driver's own folder, with the rules.
"""

from __future__ import annotations

import json
import os
from binascii import crc32
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.process import ProcessSpec

_FORMAT: Final = "2"
"""Changes with the compiler: files made by another one are not found."""
FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
_WAIT_KILLABLE: Final = 32
_NOTIFY: Final = "SCMP_ACT_NOTIFY"


def with_filter(spec: ProcessSpec, rules: Mapping[str, Any] | None, cache: str) -> ProcessSpec:
    """The process with its filter. Errors: InvalidArgument (rules that make no sense)."""
    if rules is None:
        return spec
    flags = 0
    for name in rules.get("flags") or ():
        if name not in FLAGS:
            raise InvalidArgument(f'seccomp flag "{name}" is unknown; known are {", ".join(FLAGS)}')
        flags |= FLAGS[name]
    notify = _notifies(rules)
    if notify and not rules.get("listenerPath"):
        raise InvalidArgument(f"the seccomp action {_NOTIFY} needs linux.seccomp.listenerPath: a socket of who decides")
    if notify:
        from wharfie_runtime_native.seccomp import listener  # noqa: F401  # now: later there is no host to import it from
    else:
        flags &= ~_WAIT_KILLABLE  # of a listener's; the kernel refuses it without one
    return spec._replace(filter=_program(rules, cache), filter_flags=flags, notify=notify)


def _notifies(rules: Mapping[str, Any]) -> bool:
    return _NOTIFY in (rules.get("defaultAction"), *(entry.get("action") for entry in rules.get("syscalls") or ()))


def _program(rules: Mapping[str, Any], cache: str) -> bytes:
    if not cache:
        return _compile(rules)
    # The rules are in the file too, so its name need not be a cryptographic hash, whose library would be in every shim.
    text = f"{_FORMAT} {os.uname().machine} {json.dumps(rules, separators=(',', ':'))}".encode()
    head = len(text).to_bytes(4, "little") + text
    name = f"seccomp-{crc32(text):08x}"
    try:
        with open(f"{cache}/{name}", "rb") as file:
            kept = file.read()
    except OSError:
        kept = b""
    if kept.startswith(head):
        return kept[len(head) :]
    program = _compile(rules)
    temporary = f"{cache}/.{name}.{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(head + program)
        os.rename(temporary, f"{cache}/{name}")
    except OSError:  # no space, or no folder: the next container compiles again
        with suppress(OSError):
            os.unlink(temporary)
    return program


def _compile(rules: Mapping[str, Any]) -> bytes:
    from wharfie_runtime_native.seccomp.program import compile_rules  # not in the shim: only a child that compiles needs it

    return compile_rules(rules)
