"""Which containers `docker ps` and prune mean (Docker Engine API, filters of `GET /containers/json`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from wharfie.engine import digits
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.filters import Filters, boolean, check, labels_match, moment, text_match
from wharfie.engine.identity import parse_rfc3339
from wharfie.engine.images.images import Images
from wharfie.engine.model.container import Container
from wharfie.engine.networks.networks import Networks
from wharfie.spi.errors import InvalidArgument, NotFound

_FILTERS = frozenset(
    {"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!", "name", "network"}
    | {"publish", "since", "status", "volume"}
)
PRUNE_FILTERS = frozenset({"label", "label!", "until"})
_STATUSES = frozenset({"created", "restarting", "running", "removing", "paused", "exited", "dead"})
_HEALTH = frozenset({"starting", "healthy", "unhealthy", "none"})

Test = Callable[[Container], bool]


def select(
    catalog: Catalog, networks: Networks, images: Images, *, all: bool, limit: int, filters: Filters
) -> list[Container]:
    """Newest first. Errors: InvalidArgument."""
    tests = _tests(catalog, networks, images, filters)
    labelled = bool(filters.get("label") or filters.get("label!"))
    wide = all or limit > 0 or bool(filters.get("status") or filters.get("exited"))
    found = [
        container
        for container in catalog
        if (wide or container.state.running or container.state.status == "restarting")
        and (not tests or _any_of_all(tests, container))
        and (not labelled or labels_match(filters, container.config.labels))
    ]
    found.sort(key=lambda container: parse_rfc3339(container.created), reverse=True)
    if limit <= 0 and (filters.get("before") or filters.get("since")) and not all:
        found = [container for container in found if all or container.state.running]
    return found[:limit] if limit > 0 else found


def _any_of_all(tests: Iterable[list[Test]], container: Container) -> bool:
    return all(any(test(container) for test in alternatives) for alternatives in tests)


def _tests(catalog: Catalog, networks: Networks, images: Images, filters: Filters) -> list[list[Test]]:
    """One list of alternatives for each filter name that is given."""
    check(filters, _FILTERS)
    tests: list[list[Test]] = []
    for name, values in filters.items():
        if name in ("label", "label!", "isolation"):
            continue
        if name == "is-task":
            if boolean(filters, name, default=False):
                tests.append([])  # there are no tasks without a swarm
            continue
        if values:
            tests.append([_test(catalog, networks, images, name, value) for value in values])
    return tests


def _test(catalog: Catalog, networks: Networks, images: Images, name: str, value: str) -> Test:
    if name == "id":
        return lambda c: text_match([value], c.id)
    if name == "name":
        return lambda c: text_match([value], "/" + c.name) or text_match([value], c.name)
    if name == "status":
        return _status(value)
    if name == "exited":
        return _exited(value)
    if name == "health":
        if value not in _HEALTH:
            raise InvalidArgument(f"invalid filter 'health={value}'")
        return lambda c: (c.state.health.status if c.state.health else "none") == value
    if name == "ancestor":
        ids = descendants(images, value)
        return lambda c: c.image_id in ids
    if name in ("before", "since"):
        return _relative(catalog, name, value)
    if name == "network":
        return _in_network(networks, value)
    if name == "volume":
        return lambda c: any(value in (mount.name, mount.destination) for mount in c.mounts)
    _check_port(name, value)
    if name == "expose":
        return lambda c: any(_port_matches(value, port) for port in c.exposed)
    return lambda c: any(
        _port_matches(value, f"{port.host_port}/{port.protocol}") for entry in c.joined for port in entry.joined.ports
    )


def descendants(images: Images, ref: str) -> set[str]:
    """Ids of an image and of all that were made from it or stand on its layers; none for an unknown one."""
    try:
        image = images.get(ref)
    except (NotFound, InvalidArgument):
        return set()
    depth = len(image.chain_ids)
    others = images.list(all=True, filters={})
    # An image with the very same layers stands on this one only if it was made from it.
    found = {image.id}
    found |= {other.id for other in others if len(other.stack) > depth and other.chain_ids[:depth] == image.chain_ids}
    while more := {other.id for other in others if other.parent in found} - found:
        found |= more
    return found


def _status(value: str) -> Test:
    if value not in _STATUSES:
        raise InvalidArgument(f"invalid filter 'status={value}'")
    return lambda c: c.state.status == value


def _exited(value: str) -> Test:
    wanted = digits.number(value.removeprefix("-"))
    if wanted is None:
        raise InvalidArgument(f"invalid filter 'exited={value}'")
    code = -wanted if value.startswith("-") else wanted
    return lambda c: c.state.status == "exited" and c.state.exit_code == code


def _relative(catalog: Catalog, name: str, value: str) -> Test:
    pivot = parse_rfc3339(catalog.get(value).created)
    if name == "before":
        return lambda c: parse_rfc3339(c.created) < pivot
    return lambda c: parse_rfc3339(c.created) > pivot


def _in_network(networks: Networks, value: str) -> Test:
    try:
        record = networks.get(value)
    except NotFound:
        return lambda c: False
    return lambda c: record.name in c.networks


def _check_port(name: str, value: str) -> None:
    numbers, _, protocol = value.partition("/")
    first, _, last = numbers.partition("-")
    if digits.number(first) is None or digits.number(last or first) is None or protocol not in ("", "tcp", "udp", "sctp"):
        raise InvalidArgument(f"invalid filter '{name}={value}'")


def _port_matches(wanted: str, port: str) -> bool:
    """Docker's forms: 80, 80/tcp, 80-90/udp."""
    numbers, _, protocol = wanted.partition("/")
    number, _, own = port.partition("/")
    first, _, last = numbers.partition("-")
    if not (first.isdecimal() and number.isdecimal() and (last or first).isdecimal()):
        return False
    return int(first) <= int(number) <= int(last or first) and (protocol or "tcp") == (own or "tcp")


def prunable(catalog: Catalog, filters: Filters) -> list[Container]:
    """Containers that do not run and pass the filters of a prune."""
    check(filters, PRUNE_FILTERS)
    bounds = [moment(text, time.time_ns()) for text in filters.get("until", ())]
    return [
        container
        for container in catalog
        if container.state.status in ("created", "exited", "dead")
        and labels_match(filters, container.config.labels)
        and all(parse_rfc3339(container.created) < bound for bound in bounds)
    ]
