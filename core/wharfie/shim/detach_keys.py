"""The keys by which a client leaves a terminal and lets the container go on: "ctrl-p,ctrl-q"."""

from __future__ import annotations

from wharfie.spi.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {f"ctrl-{chr(ord('a') + n)}": 1 + n for n in range(26)} | {
    "ctrl-@": 0,
    "ctrl-[": 27,
    "ctrl-\\": 28,
    "ctrl-]": 29,
    "ctrl-^": 30,
    "ctrl-_": 31,
}


def parse(text: str) -> bytes:
    """Docker's notation to bytes; empty means the default. Errors: InvalidArgument."""
    keys = bytearray()
    for key in (text or DEFAULT).split(","):
        if key in _CONTROL:
            keys.append(_CONTROL[key])
        elif len(key) == 1 and key.isascii():
            keys.append(ord(key))
        else:
            raise InvalidArgument(
                f"detach keys {text!r}: unknown character: '{key}'; use a character or ctrl-x, with commas between"
            )
    return bytes(keys)


def check(text: str, what: str) -> None:
    """`what`: how Docker calls them here. Errors: InvalidArgument with Docker's text."""
    try:
        parse(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid {what} ({text}) provided: {error.message}") from error


class Detector:
    """Finds the keys in a client's input, however it is cut into reads.

    A beginning of the keys is held back until the next byte tells.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys were pressed (what follows them is dropped)."""
        if not self._matched and self._keys[0] not in data:
            return data, False
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False
