"""Which images are listed, and how an image was made."""

from __future__ import annotations

import time
from collections.abc import Sequence

from wharfie.engine.filters import Filters, boolean, check, labels_match, moment, path_match
from wharfie.engine.identity import parse_rfc3339
from wharfie.engine.images.catalog import Catalog
from wharfie.engine.images.reference import Name
from wharfie.engine.model.image import HistoryItem, Image
from wharfie.spi.errors import WharfieError

_FILTERS = frozenset({"before", "dangling", "label", "label!", "reference", "since", "until"})


def select(catalog: Catalog, *, everything: bool, filters: Filters) -> list[Image]:
    """The newest first. `everything`: parents without a name too. Errors: InvalidArgument, NotFound (before, since)."""
    check(filters, _FILTERS)
    dangling = boolean(filters, "dangling", default=False) if "dangling" in filters else None
    earliest = max((_time(catalog.find(ref)) for ref in filters.get("since", ())), default=None)
    latest = min((_time(catalog.find(ref)) for ref in filters.get("before", ())), default=None)
    until = min((moment(text, time.time_ns()) for text in filters.get("until", ())), default=None)
    patterns = filters.get("reference", ())
    chosen: list[Image] = []
    for key, image in catalog.images.items():
        made = _time(image)
        if (earliest is not None and made <= earliest) or (latest is not None and made >= latest):
            continue
        if (until is not None and made > until) or not labels_match(filters, image.config.labels):
            continue
        names = catalog.names_of(key)
        if patterns:
            names = [name for name in names if _matches(name, patterns)]
            if not names:
                continue
        elif not names and (dangling is False or (not everything and catalog.children(key))):
            continue
        if dangling and names:
            continue
        tags = [name.familiar for name in names if not name.digest]
        digests = [name.familiar for name in names if name.digest]
        chosen.append(image.model_copy(update={"repo_tags": tags, "repo_digests": digests}))
    return sorted(chosen, key=_time, reverse=True)


def _time(image: Image) -> int:
    try:
        return parse_rfc3339(image.created)
    except ValueError:
        return 0


def _matches(name: Name, patterns: Sequence[str]) -> bool:
    """Against the familiar name, with or without its tag. Errors: InvalidArgument (a pattern)."""
    return any(path_match(pattern, text) for pattern in patterns for text in (name.familiar, name.familiar_repository))


def history(catalog: Catalog, image: Image) -> list[HistoryItem]:
    """The newest step first; parents that are images here have their id. Errors: WharfieError (more steps than layers)."""
    sizes = iter(layer.size for layer in image.stack)
    items: list[HistoryItem] = []
    for step in image.history:
        size = 0 if step.empty_layer else next(sizes, None)
        if size is None:
            raise WharfieError("too many non-empty layers in History section")
        items.append(
            HistoryItem(
                id="<missing>",
                created=_seconds(step.created),
                created_by=step.created_by,
                size=size,
                comment=step.comment,
            )
        )
    items.reverse()
    at: Image | None = image
    for item in items:
        if at is None:
            break
        item.id = at.id
        item.tags = list(at.repo_tags) or None
        at = catalog.images.get(at.parent)
    return items


def _seconds(text: str) -> int:
    try:
        return parse_rfc3339(text) // 10**9
    except ValueError:
        return 0
