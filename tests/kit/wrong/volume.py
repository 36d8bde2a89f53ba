"""Wrong volume drivers, and with them the wrong ones for the rules of all kinds."""

from __future__ import annotations

from tests.kit.mutants import wrong

CLOSE = "    def close(self) -> None:\n        pass"
PROBE = "    def probe(self) -> None:\n        pass"
UNMOUNT = "    def unmount(self, name: str, mount_id: str) -> None:\n        pass"
NOT_THERE = 'if not self.folder(name).exists():\n            raise NotFound(f"no volume {name}")'
MOUNT = f"{NOT_THERE}\n        return self.data(name)"
USAGE = f"{NOT_THERE}\n        return Usage("
MOVE = "self.folder(name).rename(trash / name)"
DRAFT = "draft = Path(tempfile.mkdtemp(dir=self.work))"
INIT = 'self.work = context.state / "work"'
RECONCILE = 'return [Fault(object=name, reason="it is gone") for name in mounts if not self.folder(name).exists()]'
ABILITIES = "return frozenset({VolumeCapability.USAGE})"

WRONG = (
    wrong("DRV-01", 'spi = "1.0"', 'spi = "1.7"'),
    wrong("DRV-02", "def unmount(self, name: str, mount_id: str)", "def unmount(self, name: str, use: str)"),
    wrong("DRV-03", INIT, f'{INIT}\n        (context.state / "early").mkdir(exist_ok=True)'),
    wrong("DRV-04", 'fix="nothing"', 'fix=""'),
    wrong(
        "DRV-05",
        INIT,
        f"{INIT}\n        self.probed = 0",
        PROBE,
        f"{PROBE[:-4]}self.probed += 1\n        assert self.probed < 2",
    ),
    wrong("DRV-06", '("Toy", "yes")', '("Toy", True)'),
    wrong("DRV-07", CLOSE, f"{CLOSE[:-4]}self.work = None"),
    wrong(
        "DRV-08",
        "    def open(self) -> None:\n",
        '    def open(self) -> None:\n        (self.volumes_folder.parent / "lock").touch(exist_ok=False)\n',
        CLOSE,
        f'{CLOSE[:-4]}(self.volumes_folder.parent / "lock").unlink(missing_ok=True)',
    ),
    wrong("DRV-09", CLOSE, f"{CLOSE[:-4]}shutil.rmtree(self.work)"),
    wrong(
        "DRV-10",
        INIT,
        f"{INIT}\n        self.used = False",
        ABILITIES,
        "return frozenset() if self.used else frozenset({VolumeCapability.USAGE})",
        "folder = self.folder(name)\n",
        "folder = self.folder(name)\n        self.used = True\n",
    ),
    wrong("DRV-11", INIT, f"{INIT}\n        self.usage = self.measure", "def usage(", "def measure("),
    wrong("DRV-12", ABILITIES, "return frozenset()"),
    wrong("DRV-13", PROBE, f"{PROBE[:-4]}__import__('time').sleep(0.25)"),
    wrong("DRV-14", UNMOUNT, f'{UNMOUNT[:-4]}__import__("os").open("/", 0)'),
    wrong("DRV-15", UNMOUNT, f'{UNMOUNT[:-4]}Path("toy.log").write_text("unmounted")'),
    wrong(
        "DRV-16",
        "folder = self.folder(name)\n",
        "self.now = name\n        __import__('time').sleep(0.002)\n        folder = self.folder(name := self.now)\n",
    ),
    wrong(
        "DRV-17",
        DRAFT,
        f"__import__('time').sleep(0.01)\n            {DRAFT}",
        "            except OSError:\n                shutil.rmtree(draft)",
        "            except PermissionError:\n                shutil.rmtree(draft)",
    ),
    wrong("DRV-18", MOVE, '(self.folder(name) / "volume.json").unlink()\n            shutil.rmtree(self.folder(name))'),
    wrong(
        "DRV-19",
        MOVE,
        '(self.folder(name) / "volume.json").unlink(), __import__("time").sleep(0.05), shutil.rmtree(self.folder(name))',
    ),
    wrong(
        "VOL-01",
        "found.append(self.get(folder.name))",
        "found.append(__import__('dataclasses').replace(self.get(folder.name), options={}))",
    ),
    wrong("VOL-02", 'raise NotFound(f"no volume {name}") from None', 'raise Conflict(f"no volume {name}") from None'),
    wrong("VOL-03", MOUNT, "return self.data(name)"),
    wrong("VOL-04", 'OPTIONS = {"color", "size"}', 'OPTIONS = {"color", "size", "wharfie-kit-no-such-option"}'),
    wrong("VOL-05", ".isoformat()", ".ctime()"),
    wrong(
        "VOL-06",
        "        folder = self.folder(name)\n",
        "        folder = self.folder(name)\n        old = folder.exists()\n",
        "        return found\n\n    def remove",
        "        return __import__('dataclasses').replace(found, created='2000-01-01T00:00:00Z') if old else found\n\n"
        "    def remove",
    ),
    wrong("VOL-07", "if found.options != dict(options):", "if False:"),
    wrong(
        "VOL-08",
        INIT,
        f"{INIT}\n        self.removed = []",
        MOVE,
        f"gone = self.get(name)\n            {MOVE}\n            self.removed.append(gone)",
        "except FileNotFoundError:\n            pass",
        "except (FileNotFoundError, NotFound):\n            pass",
        "        return found\n\n    def mount",
        "        return found + self.removed if found else found\n\n    def mount",
    ),
    wrong(
        "VOL-09",
        "except FileNotFoundError:\n            pass",
        "except FileNotFoundError:\n            raise NotFound(name) from None",
    ),
    wrong("VOL-10", MOUNT, f"{NOT_THERE}\n        return Path(__import__('os').path.relpath(self.data(name)))"),
    wrong(
        "VOL-11",
        INIT,
        f"{INIT}\n        self.uses = set()",
        MOUNT,
        f"{NOT_THERE}\n        if (name, mount_id) in self.uses:\n            raise Conflict('mounted already')\n"
        "        self.uses.add((name, mount_id))\n        return self.data(name)",
        UNMOUNT,
        f"{UNMOUNT[:-4]}self.uses.discard((name, mount_id))",
    ),
    wrong(
        "VOL-12",
        MOUNT,
        f"{NOT_THERE}\n        if (self.folder(name) / 'off').exists():\n"
        "            (self.folder(name) / 'off').rename(self.data(name))\n        return self.data(name)",
        UNMOUNT,
        f"{UNMOUNT[:-4]}if self.data(name).exists():\n            self.data(name).rename(self.folder(name) / 'off')",
    ),
    wrong("VOL-13", UNMOUNT, f"{UNMOUNT[:-4]}self.get(name)"),
    wrong(
        "VOL-14",
        INIT,
        f"{INIT}\n        self.unmounts = 0",
        UNMOUNT,
        f"{UNMOUNT[:-4]}self.unmounts += 1\n        if self.unmounts == 5:\n"
        "            (self.data(name) / 'file').unlink(missing_ok=True)",
    ),
    wrong("VOL-15", 'return self.folder(name) / "data"', 'return self.folder("one" if name == "two" else name) / "data"'),
    wrong(
        "VOL-16",
        MOVE,
        "if any(self.data(name).iterdir()):\n                self.data(name).rename(self.work / f'kept-{name}')\n"
        f"            {MOVE}",
        '(draft / "data").mkdir()',
        '(self.work / f"kept-{name}").rename(draft / "data") if (self.work / f"kept-{name}").exists() '
        'else (draft / "data").mkdir()',
    ),
    wrong(
        "VOL-17",
        INIT,
        f"{INIT}\n        self.made = set()",
        "for folder in self.volumes_folder.iterdir()",
        "for folder in (self.folder(name) for name in tuple(self.made) if self.folder(name).exists())",
        "folder = self.folder(name)\n",
        "folder = self.folder(name)\n        self.made.add(name)\n",
    ),
    wrong(
        "VOL-18",
        INIT,
        f"{INIT}\n        self.reconciled = False",
        RECONCILE,
        f"if self.reconciled:\n            return [Fault(object=name, reason='twice') for name in mounts]\n"
        f"        self.reconciled = True\n        {RECONCILE}",
    ),
    wrong("VOL-19", RECONCILE, "for name in mounts:\n            self.get(name)\n        return []"),
    wrong(
        "VOL-20",
        RECONCILE,
        f"for name in [folder.name for folder in self.volumes_folder.iterdir()]:\n            if name not in mounts:\n"
        f"                self.remove(name)\n        {RECONCILE}",
    ),
    wrong("VOL-21", USAGE, f"{NOT_THERE}\n        return Usage(size=0) or Usage("),
    wrong("VOL-22", USAGE, "return Usage("),
    wrong("VOL-23", "return self.volumes_folder / name", "return self.volumes_folder / name.lower()"),
    wrong(
        "VOL-24",
        ABILITIES,
        "return frozenset({VolumeCapability.USAGE, VolumeCapability.SIZE_LIMIT})",
        sized_options={"size": "8m"},
    ),
)
