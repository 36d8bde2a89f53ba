"""nftables in this process, through the system's libnftables.

An `nft` process takes 5 ms, a command here 0.2 ms. One run is one transaction: the kernel takes all of it or nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import threading
from typing import Any

LIBRARY = "libnftables.so.1"

_NFT_CTX_OUTPUT_JSON = 1 << 4
_NFT_CTX_OUTPUT_HANDLE = 1 << 3

# What libnftables appends to its messages, by the errno that the caller wants to know.
_REASONS = {
    errno.ENOENT: ("No such file or directory", "does not exist"),
    errno.EEXIST: ("File exists",),
    errno.EPERM: ("Operation not permitted",),
}


class NftError(Exception):
    """A transaction that the kernel or the parser refused. `number`: the errno where it could be told, else 0."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.number = next((number for number, words in _REASONS.items() if any(word in message for word in words)), 0)


class Nft:
    """One context of libnftables. It belongs to the network namespace of the thread that makes it, and may be used by
    any thread. Errors: OSError when the library is missing."""

    def __init__(self) -> None:
        self._library = _load()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise OSError(errno.EPERM, "nft_ctx_new: cannot open the kernel's nftables")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._lock = threading.Lock()

    def run(self, commands: str) -> None:
        """Run commands in nft's own language as one transaction. Errors: NftError."""
        self._call(commands, 0)

    def text(self, command: str) -> str:
        """What a `list` command tells, in nft's own language. Errors: NftError."""
        return self._call(command, 0)

    def list(self, command: str) -> list[dict[str, Any]]:
        """What a `list` command tells, as libnftables-json(5) has it. Errors: NftError."""
        text = self._call(command, _NFT_CTX_OUTPUT_JSON | _NFT_CTX_OUTPUT_HANDLE)
        items: list[dict[str, Any]] = json.loads(text)["nftables"]
        return items

    def close(self) -> None:
        """Give the library's memory and socket back. May be repeated."""
        with self._lock:
            context, self._context = self._context, None
            if context:  # the library does not bear being handed nothing
                self._library.nft_ctx_free(context)

    def _call(self, commands: str, flags: int) -> str:
        with self._lock:
            if not self._context:
                raise NftError("nftables: the driver is closed")
            self._library.nft_ctx_output_set_flags(self._context, flags)
            failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
            # Both buffers must be read: reading is what empties them.
            output = self._library.nft_ctx_get_output_buffer(self._context)
            errors = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(errors.decode(errors="replace").strip() or "nftables refused a transaction and gave no reason")
        return str(output.decode(errors="replace"))


def available() -> bool:
    """Is the library on this machine?"""
    try:
        _load()
    except OSError:
        return False
    return True


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    context = ctypes.c_void_p
    for name, result, arguments in (
        ("nft_ctx_new", context, (ctypes.c_uint32,)),
        ("nft_ctx_free", None, (context,)),
        ("nft_ctx_buffer_output", ctypes.c_int, (context,)),
        ("nft_ctx_buffer_error", ctypes.c_int, (context,)),
        ("nft_ctx_get_output_buffer", ctypes.c_char_p, (context,)),
        ("nft_ctx_get_error_buffer", ctypes.c_char_p, (context,)),
        ("nft_ctx_output_set_flags", None, (context, ctypes.c_uint)),
        ("nft_run_cmd_from_buffer", ctypes.c_int, (context, ctypes.c_char_p)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
