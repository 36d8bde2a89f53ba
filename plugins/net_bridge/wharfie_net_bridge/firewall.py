"""What the table must hold, and the keeping of it."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfie.spi.errors import Conflict, Unavailable
from wharfie_net_bridge.beside import accept_beside
from wharfie_net_bridge.nft import Nft, NftError
from wharfie_net_bridge.operator import CHAIN, OperatorRules
from wharfie_net_bridge.ruleset import Element, Segment, chains, change, render


def table_name(instance: str) -> str:
    return f"wharfie_{instance}"


def mark_of(instance: str) -> str:
    """The comment of our rules in chains of others."""
    return f"wharfie:{instance}"


def clear(instance: str, log: logging.Logger) -> None:
    """Remove what an earlier daemon, which had a firewall, left of it. A failure is logged."""
    try:
        with contextlib.closing(Nft()) as nft:
            table = table_name(instance)
            nft.run(f"add table inet {table}\ndelete table inet {table}")
            accept_beside(nft, mark_of(instance), table, ())
    except (NftError, OSError) as error:
        log.info("no firewall rules are removed: %s", error)


class Firewall:
    """This daemon's nftables table. Thread-safe.

    It remembers what should be there, so a table that somebody flushed is made again, whole, by the next change; a daemon
    that starts gets its memory from `reconcile`, through `replace`.
    """

    def __init__(
        self,
        nft: Nft,
        instance: str,
        state: Path,
        families: frozenset[int],
        mark: tuple[int, int] | None,
        log: logging.Logger,
    ) -> None:
        """`state`: a folder that lasts. `families`: the versions of IP that it has rules for. `mark`: value and mask of
        what comes in from outside; None: there is none."""
        self.table = table_name(instance)
        self.drop_strangers = False
        self.beside: frozenset[str] = frozenset()
        """Tables of others through which forwarded packets pass, when they were last looked at."""
        self._mark = mark_of(instance)
        self._nft = nft
        self._families = families
        self._accepted = mark
        self._operator = OperatorRules(nft, self.table, state / "operator.nft", log)
        self._log = log
        self._lock = threading.Lock()
        self._built: bool | None = None  # whether strangers are dropped by the table that we made; None: there is none
        self._segments: dict[str, Segment] = {}  # by network id
        self._ports: dict[tuple[str, str], tuple[Element, str]] = {}  # by set and key: the element and its endpoint

    def put(self, network_id: str, segment: Segment) -> None:
        """Let the table serve a network. May be repeated, with other options too. Errors: Unavailable."""
        with self._lock:
            known, self._segments[network_id] = self._segments.get(network_id), segment
            if known is not None or self._built != self.drop_strangers:
                self._build()
            else:
                self._change("add", list(segment.elements()))
                self._stand_beside()

    def drop(self, network_id: str) -> None:
        """Forget a network. It may be unknown; without networks there is no table. Errors: Unavailable."""
        with self._lock:
            known = self._segments.pop(network_id, None)
            if not self._segments:
                self._build()
            elif known is not None:
                self._change("delete", list(known.elements()))
                self._stand_beside()

    def publish(self, endpoint_id: str, elements: Sequence[Element]) -> None:
        """Add an endpoint's ports. May be repeated. Errors: Conflict (another endpoint has the port), Unavailable."""
        with self._lock:
            for element in elements:
                held = self._ports.get((element.set, element.key))
                if held is not None and held[1] != endpoint_id:
                    raise Conflict(f"port {element.key} is published already, by endpoint {held[1][:12]}")
            new = [element for element in elements if (element.set, element.key) not in self._ports]
            for element in elements:
                self._ports[element.set, element.key] = (element, endpoint_id)
            try:
                self._change("add", elements)
            except Unavailable:
                for element in new:
                    del self._ports[element.set, element.key]
                raise

    def unpublish(self, endpoint_id: str, elements: Sequence[Element]) -> None:
        """Take an endpoint's ports away, those that are its own. Errors: Unavailable."""
        with self._lock:
            own = [
                element for element in elements if self._ports.get((element.set, element.key), (None, ""))[1] == endpoint_id
            ]
            for element in own:
                del self._ports[element.set, element.key]
            if own:
                self._change("delete", own)

    def replace(self, segments: Mapping[str, Segment], published: Mapping[str, Sequence[Element]]) -> dict[str, str]:
        """Make the table from nothing but this. Returns, by endpoint, the reason why a port of it cannot be published."""
        refused: dict[str, str] = {}
        with self._lock:
            self._segments, self._ports = dict(segments), {}
            for endpoint_id, elements in published.items():
                for element in elements:
                    holder = self._ports.setdefault((element.set, element.key), (element, endpoint_id))[1]
                    if holder != endpoint_id:
                        refused[endpoint_id] = f"port {element.key} is published already, by endpoint {holder[:12]}"
            self._build()
        return refused

    def heal(self) -> None:
        """Somebody else has changed the host's nftables: see that our table is whole, and make it again if it is not.
        Errors: Unavailable."""
        with self._lock:
            if not self._segments:
                return
            items = self._listed()
            if items is not None and self._whole(items):
                self._operator.remember()
                self._stand_beside()
                return
            self._log.warning("nftables table inet %s was removed or changed by somebody else, making it again", self.table)
            if items is None and self._ports:
                self._close_networks()
            self._build()

    def _listed(self) -> list[dict[str, Any]] | None:
        """The table; None: there is none."""
        try:
            return self._nft.list(f"list table inet {self.table}")
        except NftError:
            return None

    def _close_networks(self) -> None:
        """Make the table without the ports, of which there may be thousands: meanwhile everything is open."""
        try:
            self._make(self._network_elements())
        except NftError as error:
            raise _unavailable(error) from error

    def _whole(self, items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the table has as many rules in each chain and elements in each set as it should."""
        found = Counter(item["rule"]["chain"] for item in items if "rule" in item)
        for item in items:
            for kind in ("set", "map"):
                if kind in item:
                    found[item[kind]["name"]] = len(item[kind].get("elem", ()))
        wanted = Counter({name: len(rules) for name, rules in self._chains().items()})
        wanted.update(name for name, _ in {(element.set, element.key) for element in self._elements()})
        del found[CHAIN]
        return +found == +wanted

    def _chains(self) -> dict[str, list[str]]:
        return chains(self._families, drop_strangers=self.drop_strangers, mark=self._accepted)

    def _elements(self) -> list[Element]:
        return self._network_elements() + [element for element, _ in self._ports.values()]

    def _network_elements(self) -> list[Element]:
        return [element for segment in self._segments.values() for element in segment.elements()]

    def stand_beside(self) -> None:
        """See that our traffic passes the chains of others. A failure is logged: they are not ours to depend on."""
        with self._lock:
            self._stand_beside()

    @property
    def bridges(self) -> frozenset[str]:
        """Those of the networks that the table serves."""
        with self._lock:
            return frozenset(segment.options.bridge for segment in self._segments.values())

    def _stand_beside(self) -> None:
        try:
            bridges = [segment.options.bridge for segment in self._segments.values()]
            self.beside = accept_beside(self._nft, self._mark, self.table, bridges)
        except NftError as error:
            self._log.warning("cannot add rules for wharfie's bridges to another firewall's chain: %s", error)

    def _change(self, verb: str, elements: Sequence[Element]) -> None:
        try:
            self._nft.run("\n".join(change(verb, self.table, elements)))
        except NftError as error:
            if error.number not in (errno.ENOENT, errno.EEXIST):
                raise _unavailable(error) from error
            # The kernel does not hold what it should: somebody flushed or edited the table.
            self._log.warning("nftables table inet %s was changed by somebody else, making it again", self.table)
            self._build()

    def _build(self) -> None:
        self._built = None
        try:
            self._operator.remember()
            if self._segments:
                self._make(self._elements())
                self._built = self.drop_strangers
            else:
                self._nft.run(f"add table inet {self.table}\ndelete table inet {self.table}")
        except NftError as error:
            raise _unavailable(error) from error
        self._stand_beside()

    def _make(self, elements: Sequence[Element]) -> None:
        text = render(self.table, elements, self._chains())
        rules = self._operator.missing()
        try:
            self._nft.run(f"{rules}\n{text}")
        except NftError:
            if not rules:
                raise
            self._nft.run(text)
            self._log.error("the operator's rules are not restored, for the kernel refuses them: %s", rules)


def _unavailable(error: NftError) -> Unavailable:
    return Unavailable(f"the kernel's nftables refused a transaction: {error}")
