"""The operator's chain: rules that somebody else wrote into our table, kept over everything that we do to it.

The chain is only ever read. Its text goes to a file whenever it has changed, and comes back from there when the table has
to be made anew: after `nft flush ruleset`, after the end of the last network, after a reboot. To take rules away, flush
the chain: an empty chain is kept as such.
"""

from __future__ import annotations

import errno
import logging
from pathlib import Path

from wharfie_net_bridge.nft import Nft, NftError

CHAIN = "operator"


class OperatorRules:
    """The chain `operator` of a table, and the file that remembers it."""

    def __init__(self, nft: Nft, table: str, file: Path, log: logging.Logger) -> None:
        self._nft = nft
        self._table = table
        self._file = file
        self._log = log

    def remember(self) -> None:
        """Look at the chain. One that is not there was not emptied by the operator. A failure is logged."""
        try:
            items = self._nft.list(f"list chain inet {self._table} {CHAIN}")
            rules = any("rule" in item for item in items)
            text = self._nft.text(f"list chain inet {self._table} {CHAIN}") if rules else ""
        except NftError as error:
            if error.number != errno.ENOENT:
                self._log.warning("cannot read the operator's chain of table inet %s: %s", self._table, error)
            return
        try:
            if text != self._remembered():
                temporary = self._file.with_suffix(".new")
                temporary.write_text(text)
                temporary.replace(self._file)
        except OSError as error:
            self._log.warning("cannot keep the rules of the operator's chain in %s: %s", self._file, error)

    def missing(self) -> str:
        """Commands that bring the rules back, where the chain is not there; else nothing."""
        try:
            self._nft.list(f"list chain inet {self._table} {CHAIN}")
        except NftError:
            return self._remembered()
        return ""

    def _remembered(self) -> str:
        try:
            return self._file.read_text()
        except OSError:
            return ""
