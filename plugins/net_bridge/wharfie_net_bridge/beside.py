"""Living beside another engine or firewall that drops what it does not know.

In nftables "accept" ends one table only: a chain elsewhere with policy `drop` on the forward hook drops our packets
however we judge them, and dockerd leaves such a chain in iptables' filter table. So for each of our bridges it gets
two rules at its end, marked with our name: what our own table let pass and no rule there decided on is accepted.
Nobody else's rule is touched, moved or overruled; only the policy is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wharfie_net_bridge.nft import Nft


def accept_beside(nft: Nft, mark: str, own_table: str, bridges: Iterable[str]) -> frozenset[str]:
    """Bring the chains of others to: for each bridge two accepting rules marked `mark` where the policy drops, none
    elsewhere. The names of their tables. May be repeated. Errors: NftError."""
    wanted = {f'{side} "{bridge}"' for bridge in bridges for side in ("iifname", "oifname")}
    commands: list[str] = []
    tables: set[str] = set()
    for chain in _forward_chains(nft, own_table):
        tables.add(chain["table"])
        path = f"{chain['family']} {chain['table']} {chain['name']}"
        there = dict(_marked_rules(nft, path, mark))
        missing = wanted if chain.get("policy") == "drop" else set()
        commands += [f"delete rule {path} handle {handle}" for match, handle in there.items() if match not in missing]
        commands += [f'add rule {path} {match} counter accept comment "{mark}"' for match in sorted(missing - there.keys())]
    if commands:
        nft.run("\n".join(commands))
    return frozenset(tables)


def _forward_chains(nft: Nft, own_table: str) -> Iterator[dict[str, Any]]:
    for item in nft.list("list chains"):
        chain: dict[str, Any] = item.get("chain", {})
        on_our_way = (
            chain.get("hook") == "forward" and chain.get("type") == "filter" and chain["family"] in ("ip", "ip6", "inet")
        )
        if on_our_way and chain["table"] != own_table:
            yield chain


def _marked_rules(nft: Nft, path: str, mark: str) -> Iterator[tuple[str, int]]:
    """What the rules marked with `mark` in a chain match, and their handles."""
    for item in nft.list(f"list chain {path}"):
        rule = item.get("rule")
        if rule and rule.get("comment") == mark:
            match: dict[str, Any] = next((part["match"] for part in rule["expr"] if "match" in part), {})
            yield f'{match.get("left", {}).get("meta", {}).get("key")} "{match.get("right")}"', rule["handle"]
