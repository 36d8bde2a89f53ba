"""The rules of volume drivers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, Violation, refused, require, rule, succeeds
from wharfie.spi.driver import Strings
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver

MISSING = "kit-no-such-volume"
UNKNOWN = "wharfie-kit-no-such-option"
_NOBODY = 65534


class VolumeContract(Contract[VolumeDriver]):
    """`options`: what every volume of the tests is made with. `other_options`: valid ones that mean something else.
    `sized_options`: options that limit a volume to at most 16 MiB."""

    kind: ClassVar[str] = "volume"
    abilities: ClassVar[Any] = {VolumeCapability.USAGE: ("usage",)}

    options: ClassVar[Strings] = {}
    other_options: ClassVar[Strings] = {}
    sized_options: ClassVar[Strings] = {}

    def make(self, driver: VolumeDriver, name: str) -> Volume:
        return driver.create(name, self.options, {"kit": "yes"})

    def life(self, rig: Rig[VolumeDriver], driver: VolumeDriver, number: int) -> None:
        name, use = f"life-{number}", f"use-{number}"
        self.make(driver, name)
        path = driver.mount(name, use)
        (path / "file").write_text(name)
        if VolumeCapability.USAGE in driver.capabilities():
            driver.usage(name)
        require(driver.get(name).name == name, f"get({name!r}) returned another volume")
        require(name in _names(driver), f"volume {name} is not among the volumes while other volumes come and go")
        require((path / "file").read_text() == name, f"volume {name} has the data of another one")
        (path / "file").unlink()
        driver.unmount(name, use)
        driver.remove(name)

    def shared(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> Callable[[], None]:
        def finish() -> None:
            require("both" in _names(driver), "the volume that two calls made at a time is not there")
            for use in ("0", "1"):
                driver.mount("both", use)
                driver.unmount("both", use)
            driver.remove("both")
            require("both" not in _names(driver), "the volume that two calls made at a time cannot be removed")

        return finish

    def share(self, rig: Rig[VolumeDriver], driver: VolumeDriver, number: int) -> None:
        self.make(driver, "both")
        driver.mount("both", str(number))
        driver.unmount("both", str(number))

    def operations(self, rig: Rig[VolumeDriver]) -> Sequence[Operation[VolumeDriver]]:
        def made(driver: VolumeDriver) -> None:
            self.make(driver, "v")
            path = driver.mount("v", "m0")
            (path / "file").write_text("kept")
            driver.unmount("v", "m0")

        def mounted(driver: VolumeDriver) -> None:
            made(driver)
            driver.mount("v", "m")

        def forget(driver: VolumeDriver, memo: None) -> None:
            # Whatever was made and not acknowledged is whole, so that the core can find it and take it away.
            for volume in driver.volumes():
                driver.get(volume.name)
            driver.reconcile({})

        def take_back(driver: VolumeDriver, memo: None) -> None:
            driver.unmount("v", "m")
            for name in _names(driver):
                driver.remove(name)
            require(not driver.volumes(), "a removed volume is still among the volumes")

        def kept(driver: VolumeDriver, memo: None) -> None:
            driver.get("v")
            require((driver.mount("v", "m2") / "file").read_text() == "kept", "the volume's data are gone")
            driver.unmount("v", "m2")

        def there(driver: VolumeDriver, memo: None) -> None:
            require(dict(driver.get("v").options) == dict(self.options), "the volume has other options")
            require(driver.mount("v", "m").is_dir(), "the volume has no folder")

        def gone(driver: VolumeDriver, memo: None) -> None:
            require(not driver.volumes(), "the removed volume is still among the volumes")

        return (
            Operation(
                name="create",
                before=lambda driver: None,
                run=lambda driver, memo: self.make(driver, "v"),
                repair=forget,
                verify=there,
                undo=take_back,
            ),
            Operation(
                name="mount",
                before=made,
                run=lambda driver, memo: driver.mount("v", "m"),
                repair=forget,
                verify=kept,
                undo=take_back,
            ),
            Operation(
                name="unmount",
                before=mounted,
                run=lambda driver, memo: driver.unmount("v", "m"),
                repair=lambda driver, memo: driver.reconcile({"v": frozenset({"m"})}),
                verify=kept,
                undo=take_back,
            ),
            Operation(
                name="remove",
                before=made,
                run=lambda driver, memo: driver.remove("v"),
                repair=forget,
                verify=gone,
                undo=take_back,
            ),
        )

    @rule(
        "A volume that was created is found by get and among volumes, with its name and options.",
        methods="create get volumes",
    )
    def test_vol_01(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        for seen in (self.make(driver, "one"), driver.get("one"), *(v for v in driver.volumes() if v.name == "one")):
            require(seen.name == "one", f"the volume one is shown with the name {seen.name!r}")
            require(dict(seen.options) == dict(self.options), f"the volume's options are shown as {dict(seen.options)}")
        require("one" in _names(driver), "the volume one is not among the volumes")

    @rule("get of a volume that is not there is NotFound.", methods="get", source=DOCKER)
    def test_vol_02(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        with refused(NotFound, "get of a missing volume"):
            driver.get(MISSING)

    @rule("mount of a volume that is not there is NotFound.", methods="mount")
    def test_vol_03(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        with refused(NotFound, "mount of a missing volume"):
            driver.mount(MISSING, "use")

    @rule(
        "create with an unknown option is InvalidArgument naming the option, and makes nothing.", methods="create volumes"
    )
    def test_vol_04(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        with refused(InvalidArgument, "create with an unknown option", naming=UNKNOWN):
            driver.create("bad", {**self.options, UNKNOWN: "1"}, {})
        require("bad" not in _names(driver), "create was refused and made a volume all the same")

    @rule("created is a time by RFC 3339, with its zone, and stays the same.", methods="create get", source=DOCKER)
    def test_vol_05(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        told = self.make(driver, "one").created
        try:
            when = datetime.fromisoformat(told)
        except ValueError:
            raise Violation(f"created is {told!r}, which is no time by RFC 3339") from None
        require("T" in told and when.tzinfo is not None, f"created is {told!r}, which lacks the zone or the T")
        require(driver.get("one").created == told, "created changes")

    @rule(
        "create with the same options may be repeated; the data stay.",
        group=Group.REPETITION,
        methods="create mount unmount",
    )
    def test_vol_06(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        first = self.make(driver, "one")
        (driver.mount("one", "a") / "file").write_text("kept")
        for _ in range(10):
            with succeeds("create of the same volume again"):
                again = self.make(driver, "one")
            require(again.created == first.created, "create made the volume anew")
        require((driver.mount("one", "b") / "file").read_text() == "kept", "create again lost the data")
        driver.unmount("one", "a")
        driver.unmount("one", "b")

    @rule(
        "create of a volume that exists with other options is Conflict.",
        methods="create",
        needs="other_options",
        source=DOCKER,
    )
    def test_vol_07(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        with refused(Conflict, "create with other options"):
            driver.create("one", self.other_options, {})
        require(dict(driver.get("one").options) == dict(self.options), "the refused create changed the options")

    @rule("A removed volume is no longer among volumes, and the others are.", methods="create remove volumes")
    def test_vol_08(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        for name in ("one", "two"):
            self.make(driver, name)
        driver.remove("one")
        require(_names(driver) == {"two"}, f"after the removal of one of two the volumes are {_names(driver)}")

    @rule(
        "remove succeeds when the volume is not there, as often as it is called.", group=Group.REPETITION, methods="remove"
    )
    def test_vol_09(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        for _ in range(10):
            with succeeds("remove, repeated"):
                driver.remove("one")
        with succeeds("remove of a volume that never was"):
            driver.remove(MISSING)

    @rule(
        "mount gives a folder of this host, by its absolute path, in which files can be made.",
        methods="create mount unmount",
    )
    def test_vol_10(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        path = driver.mount("one", "use")
        require(path.is_absolute(), f"mount returned {path}, which is no absolute path")
        require(path.is_dir(), f"mount returned {path}, which is no folder")
        (path / "file").write_text("text")
        driver.unmount("one", "use")

    @rule(
        "mount may be repeated with the same id, and gives the same folder.",
        group=Group.REPETITION,
        methods="mount unmount",
    )
    def test_vol_11(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        first = driver.mount("one", "use")
        (first / "file").write_text("kept")
        for _ in range(10):
            with succeeds("mount, repeated"):
                again = driver.mount("one", "use")
            require(again == first, f"mount gave {first}, then {again}")
        require((first / "file").read_text() == "kept", "mount again hid the data")
        driver.unmount("one", "use")

    @rule(
        "Every use sees one folder, and the end of one use takes nothing from the others.",
        group=Group.ORDER,
        methods="mount unmount",
    )
    def test_vol_12(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        first, second = driver.mount("one", "a"), driver.mount("one", "b")
        (first / "file").write_text("kept")
        require((second / "file").is_file(), "two uses of one volume see different folders")
        driver.unmount("one", "a")
        require((second / "file").is_file(), "the end of one use took the volume from the other")
        driver.unmount("one", "b")

    @rule(
        "unmount succeeds when nothing is mounted, and when the volume is gone.", group=Group.REPETITION, methods="unmount"
    )
    def test_vol_13(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        driver.mount("one", "use")
        for use in ("use", "use", "never"):
            with succeeds("unmount of what is not mounted"):
                driver.unmount("one", use)
        driver.remove("one")
        with succeeds("unmount of a volume that is gone"):
            driver.unmount("one", "use")
        with succeeds("unmount of a volume that never was"):
            driver.unmount(MISSING, "use")

    @rule("Data stay between uses.", methods="mount unmount")
    def test_vol_14(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        for number in range(10):
            path = driver.mount("one", str(number))
            require(number == 0 or (path / "file").is_file(), f"the data of {number} uses are gone in the next one")
            (path / "file").write_text("kept")
            driver.unmount("one", str(number))

    @rule("Volumes share nothing.", methods="create mount")
    def test_vol_15(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        for name in ("one", "two"):
            self.make(driver, name)
        (driver.mount("one", "a") / "file").write_text("one's")
        require(not (driver.mount("two", "b") / "file").exists(), "a file of one volume is seen in another")
        driver.unmount("one", "a")
        driver.unmount("two", "b")

    @rule("A volume is empty when it is made, also when one of its name was removed before.", methods="create remove mount")
    def test_vol_16(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        for _ in range(2):
            self.make(driver, "one")
            path = driver.mount("one", "use")
            left = {entry.name for entry in path.iterdir()} - {"lost+found"}
            require(not left, f"a new volume has files in it: {', '.join(sorted(left))}")
            (path / "file").write_text("first")
            driver.unmount("one", "use")
            driver.remove("one")

    @rule("Volumes and their data outlive the daemon.", group=Group.ORDER, methods="open volumes get mount")
    def test_vol_17(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        before = self._used(driver)
        driver.close()
        with rig.opened() as second:
            require(_names(second) == {"one"}, f"a new instance on the same folders has the volumes {_names(second)}")
            require(second.get("one") == before, "a new instance shows the volume differently")
            require((second.mount("one", "new") / "file").is_file(), "the data are gone after a restart")
            second.unmount("one", "new")

    @rule(
        "reconcile keeps the uses that it is told of, and may be repeated.",
        group=Group.REPETITION,
        methods="reconcile mount",
    )
    def test_vol_18(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self._used(driver)
        path = driver.mount("one", "use")
        driver.close()
        with rig.opened() as second:
            for _ in range(3):
                faults = second.reconcile({"one": frozenset({"use"})})
                require(not faults, f"reconcile reports a fault of a volume that is well: {list(faults)}")
            require((path / "file").is_file(), "reconcile took the folder from a use that it was told of")
            require(second.mount("one", "use") == path, "after reconcile the volume is mounted elsewhere")
            second.unmount("one", "use")

    @rule("reconcile reports a volume that is gone as a Fault with its name, and serves the others.", methods="reconcile")
    def test_vol_19(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self._used(driver)
        with succeeds("reconcile with a volume that is gone"):
            faults = driver.reconcile({MISSING: frozenset({"a"}), "one": frozenset({"b"})})
        require({fault.object for fault in faults} == {MISSING}, f"reconcile reports {list(faults)}")
        require(all(fault.reason.strip() for fault in faults), "a Fault without a reason")
        require((driver.mount("one", "b") / "file").is_file(), "one missing volume spoiled another one")
        driver.unmount("one", "b")

    @rule(
        "reconcile removes no volume: the core's wish is about uses only.", group=Group.ORDER, methods="reconcile volumes"
    )
    def test_vol_20(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self._used(driver)
        for _ in range(2):
            driver.reconcile({})
        require(_names(driver) == {"one"}, "reconcile removed a volume")
        require((driver.mount("one", "new") / "file").is_file(), "reconcile removed a volume's data")
        driver.unmount("one", "new")

    @rule("usage grows with what is written.", methods="usage", capability="usage", source=DOCKER)
    def test_vol_21(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        self.make(driver, "one")
        path = driver.mount("one", "use")
        empty = driver.usage("one")
        (path / "file").write_bytes(b"x" * 200_000)
        full = driver.usage("one")
        driver.unmount("one", "use")
        require(
            full.size >= empty.size + 200_000, f"200000 bytes were written and usage went from {empty.size} to {full.size}"
        )

    @rule("usage of a volume that is not there is NotFound.", methods="usage", capability="usage")
    def test_vol_22(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        with refused(NotFound, "usage of a missing volume"):
            driver.usage(MISSING)

    @rule(
        "Every name that Docker allows for a volume is a volume of its own.",
        methods="create get volumes remove",
        source=DOCKER,
    )
    def test_vol_23(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        names = {"a1", "A1", "0", "a.b", "a-b", "a_b", "a..b", "work", "volumes", "x" * 64, "n" * 200}
        for name in names:
            with succeeds(f"create of a volume with the name {name!r}"):
                self.make(driver, name)
        require(_names(driver) == names, f"of the volumes {sorted(names)} there are {sorted(_names(driver))}")
        for name in names:
            require(driver.get(name).name == name, f"get({name!r}) returned another volume")
            driver.remove(name)

    @rule(
        "A volume with a limit refuses what goes beyond it.",
        methods="create mount",
        capability="size-limit",
        needs="sized_options",
    )
    def test_vol_24(self, rig: Rig[VolumeDriver], driver: VolumeDriver) -> None:
        driver.create("small", self.sized_options, {})
        path = driver.mount("small", "use")
        try:
            with open(path / "file", "wb", buffering=0) as file, _without_privileges():
                file.writelines(b"x" * 2**20 for _ in range(32))
        except OSError as error:
            require(error.errno in (errno.ENOSPC, errno.EDQUOT), f"writing beyond the limit failed with {error}")
        else:
            raise Violation("32 MiB fitted into a volume with a limit of at most 16 MiB")
        finally:
            driver.unmount("small", "use")
            driver.remove("small")

    def _used(self, driver: VolumeDriver) -> Volume:
        """The volume `one`, with a file in it, not mounted."""
        volume = self.make(driver, "one")
        path: Path = driver.mount("one", "first")
        (path / "file").write_text("kept")
        driver.unmount("one", "first")
        return volume


@contextmanager
def _without_privileges() -> Iterator[None]:
    """As in a container: who has CAP_SYS_RESOURCE is above quotas (capabilities(7))."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _names(driver: VolumeDriver) -> set[str]:
    return {volume.name for volume in driver.volumes()}
