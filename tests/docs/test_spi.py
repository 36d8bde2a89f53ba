"""The contracts keep their promise (docs/compatibility.md): within a major, only additions."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import spi_dump  # noqa: E402  # a script, not a package

PROMISED = json.loads(spi_dump.DUMP.read_text())


def test_nothing_is_taken_away_that_the_dump_promises():
    assert spi_dump.losses(PROMISED, spi_dump.dump()) == []


def test_the_dump_is_fresh():
    assert spi_dump.dump() == PROMISED, (
        "the contracts have grown: run python scripts/spi_dump.py and commit docs/spi/1.json"
    )


def changed(change) -> list[str]:
    new = copy.deepcopy(PROMISED)
    change(new["modules"])
    return spi_dump.losses(PROMISED, new)


def method(modules, name="mount"):
    return modules["volume"]["VolumeDriver"]["methods"][name]


PARAMETER = {"name": "more", "kind": "keyword_only", "type": "str", "required": False}
METHOD = {"parameters": [], "returns": "None"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda modules: modules.pop("volume"), "wharfie.spi.volume.Volume is gone"),
        (lambda modules: modules["volume"].pop("Volume"), "Volume is gone"),
        (lambda modules: modules["volume"]["Volume"]["fields"].pop("created"), "Volume.created is gone"),
        (
            lambda modules: modules["volume"]["Volume"]["fields"].update(size={"type": "int", "required": True}),
            "size is new and has no default",
        ),
        (lambda modules: modules["volume"]["Volume"]["fields"]["options"].update(required=True), "Volume.options was"),
        (lambda modules: modules["volume"]["VolumeCapability"]["enumeration"].pop("USAGE"), "USAGE was 'usage'"),
        (lambda modules: method(modules)["parameters"][0].update(name="volume"), "its parameters were (name, mount_id)"),
        (lambda modules: method(modules)["parameters"].append(PARAMETER), "has new parameters: (more)"),
        (lambda modules: method(modules).update(returns="str"), "returned Path and returns str"),
        (lambda modules: method(modules, "usage").update(abstract=True), "has become abstract"),
        (lambda modules: method(modules)["deadline"].update(total=5), "was 60 and is 5 s"),
        (
            lambda modules: modules["volume"]["VolumeDriver"]["methods"].update(resize=METHOD | {"abstract": True}),
            "resize is new and abstract",
        ),
        (lambda modules: modules["errors"]["NotFound"].update(bases=["DriverError"]), "bases was"),
        (lambda modules: modules["call"]["progress"]["function"].append(PARAMETER | {"required": True}), "new parameters"),
    ],
)
def test_what_breaks_a_driver_is_found(change, text):
    [loss] = [loss for loss in changed(change) if text in loss][:1]
    assert text in loss


@pytest.mark.parametrize(
    "change",
    [
        lambda modules: modules["volume"]["Volume"]["fields"].update(size={"type": "int", "required": False}),
        lambda modules: modules["volume"]["VolumeCapability"]["enumeration"].update(CLONE="clone"),
        lambda modules: modules["volume"]["VolumeDriver"]["methods"].update(resize=METHOD),
        lambda modules: method(modules)["deadline"].update(total=90),
        lambda modules: method(modules).pop("abstract"),
        lambda modules: modules["call"]["progress"]["function"].append(PARAMETER),
        lambda modules: modules["hooks"]["HookSpecs"]["methods"]["on_event"]["parameters"].append(
            PARAMETER | {"required": True}
        ),
        lambda modules: modules.update(news={"Thing": {"constant": "int"}}),
    ],
)
def test_what_a_minor_may_add_passes(change):
    assert changed(change) == []
