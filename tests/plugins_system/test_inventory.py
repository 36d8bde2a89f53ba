"""What is installed, from metadata alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.strangers.hostile import Stranger, install
from wharfie.plugins import inventory as inventory_module
from wharfie.plugins.inventory import Entry, Inventory, core_version


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_an_entry_says_who_brought_it(site: Path):
    install(
        site,
        Stranger("Wharfie_Some.Thing", "some", "good:Good", version="2.5", requires="wharfie>=0.1; python_version>'3'"),
    )
    [entry] = Inventory().find("volume", "some")
    assert (entry.distribution, entry.version, entry.value) == ("Wharfie_Some.Thing", "2.5", "hostile_drivers.good:Good")
    assert entry.requirement.startswith("wharfie>=0.1")
    assert entry.title == 'volume driver "some" (Wharfie_Some.Thing 2.5)'
    assert "hostile_drivers" not in sys.modules


def test_two_distributions_with_one_name_are_both_seen(site: Path):
    install(
        site, Stranger("one", "some", "good:Good"), Stranger("two", "some", "good:Good"), Stranger("one-b", "other", "x:Y")
    )
    found = Inventory().find("volume", "some")
    assert sorted(entry.distribution for entry in found) == ["one", "two"]


def test_a_second_copy_of_a_distribution_further_down_the_path_does_not_count(site: Path, tmp_path: Path, monkeypatch):
    install(site, Stranger("some-one", "some", "good:Good", version="1.0"))
    other = tmp_path / "other"
    install(other, Stranger("Some_One", "some", "good:Good", version="2.0"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    assert [entry.version for entry in Inventory().find("volume", "some")] == ["1.0"]


def test_damaged_distributions_hide_nobody(site: Path):
    install(site, Stranger("fine", "some", "good:Good"))
    (site / "nometadata-1.0.dist-info").mkdir()
    (site / "nometadata-1.0.dist-info" / "entry_points.txt").write_text("[wharfie.volume]\nlost = a:B\n")
    for name, text in (("garbage", "\x00\x01 [[[\n= = =\n"), ("noname", "[wharfie.volume\nx")):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(text)
    assert "some" in Inventory().names("volume")
    assert "lost" not in Inventory().names("volume")


def test_an_installation_and_a_removal_are_seen(site: Path):
    inventory = Inventory()
    assert not inventory.find("volume", "some")
    install(site, Stranger("late", "some", "good:Good"))
    assert inventory.find("volume", "some")
    for file in (site / "late-1.0.dist-info").iterdir():
        file.unlink()
    (site / "late-1.0.dist-info").rmdir()
    assert not inventory.find("volume", "some")


def test_nothing_is_read_again_while_the_folders_stay_as_they_are(site: Path, monkeypatch):
    monkeypatch.setattr(inventory_module, "_SETTLED", -(10**18))  # as if all folders were old
    inventory = Inventory()
    first = inventory.entries()
    assert inventory.entries() is first
    install(site, Stranger("late", "some", "good:Good"))
    assert inventory.entries() is not first


@pytest.mark.parametrize(
    ("requires", "kept"),
    [
        ("wharfie>=0.1", "wharfie>=0.1"),
        ("Wharfie ~= 0.1", "Wharfie ~= 0.1"),
        ("wharfie-net-bridge>=0.1", ""),
        ("wharfie>=9; extra == 'test'", ""),
        ("wharfie>=9; python_version < '3'", ""),
        ("wharfie =>!! 1", "wharfie =>!! 1"),
        ("other =>!! 1", ""),
    ],
)
def test_the_requirement_on_the_core(site: Path, requires: str, kept: str):
    install(site, Stranger("some-one", "some", "good:Good", requires=requires))
    assert Inventory().find("volume", "some")[0].requirement == kept


def test_hooks_have_a_title_of_their_own():
    entry = Entry(kind="hook", name="gate", value="x", distribution="wharfie-gate", version="1")
    assert entry.title == 'plugin "gate" (wharfie-gate 1)'


def test_the_core_knows_its_version():
    assert core_version()[0].isdigit()


def test_the_inventory_imports_no_plugin():
    """In a process of its own: whatever plugins this environment has, reading the inventory loads none of them."""
    script = (
        "import sys; from wharfie.plugins.inventory import Inventory; Inventory().entries(); "
        "print([name for name in sys.modules if name.startswith('wharfie_')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
