"""Wrong storage drivers. Names as in the kit: "(1, 'base')" and "(1, 'above')" are the layers of most rules."""

from __future__ import annotations

from tests.kit.mutants import override


def after_create(rule, body, *, also=""):
    """Something done to the files of a snapshot when it is made, in `root`."""
    head = "def create(self, key, parent, options):\n    new = key not in self._records\n"
    head += "    super().create(key, parent, options)\n    root = self.root(key)\n"
    return override(rule, head + "".join(f"    {line}\n" for line in body.strip().splitlines()), also=also)


WRONG = (
    override(
        "STO-01",
        "def layers(self):\n    return [replace(one, size=1) if one.size == 5000 else one for one in super().layers()]\n",
    ),
    after_create(
        "STO-02",
        'if new and (root / "new").exists():\n    (root / "new").unlink()',
        also="STO-03 STO-18 STO-25 STO-31",
    ),
    override(
        "STO-03",
        """
        def mounts(self, key):
            if (self.root(key) / "new").exists() and (self.root(key) / "etc/motd").read_bytes() == b"bye":
                (self.root(key) / "etc/.wh.passwd").touch()
            return super().mounts(key)
        """,
        also="STO-08 STO-18 STO-25 STO-31",
    ),
    after_create("STO-04", 'if (root / "etc/own").exists():\n    (root / "etc/passwd").write_bytes(b"back")'),
    override(
        "STO-05",
        """
        def mounts(self, key):
            if key == "one":
                return super().mounts("two") if "two" in self._records else super().mounts(key)
            return super().mounts(key)
        """,
    ),
    override(
        "STO-06",
        """
        def open(self):
            super().open()
            for name, record in self._records.items():
                if record.kind == "snapshot":
                    (self.root(name) / "kept").unlink(missing_ok=True)
        """,
    ),
    after_create("STO-07", 'if parent is None and key == "key":\n    (root / "lost+found").mkdir(exist_ok=True)'),
    override(
        "STO-08",
        """
        def mounts(self, key):
            return tuple(replace(one, options=("bind",)) for one in super().mounts(key))
        """,
    ),
    override(
        "STO-09",
        """
        def apply(self, layer, parent, diff):
            if layer in self._records:
                raise Conflict("it is there")
            return super().apply(layer, parent, diff)
        """,
    ),
    override(
        "STO-10",
        """
        def create(self, key, parent, options):
            if key in self._records and self._records[key].kind == "snapshot":
                super().remove(key)
            super().create(key, parent, options)
        """,
    ),
    override(
        "STO-11",
        """
        def create(self, key, parent, options):
            try:
                super().create(key, parent, options)
            except NotFound:
                super().create(key, None, options)
        """,
    ),
    override(
        "STO-12",
        """
        def create(self, key, parent, options):
            if key in self._records and self._records[key].kind == "layer":
                return
            super().create(key, parent, options)
        """,
    ),
    override(
        "STO-13",
        """
        def mounts(self, key):
            if key == "missing":
                return (Mount(type="tmpfs", source="none"),)
            return super().mounts(key)
        """,
    ),
    override(
        "STO-14", "def usage(self, name):\n    return super().usage(name) if name in self._records else Usage(size=0)\n"
    ),
    override(
        "STO-15",
        """
        def apply(self, layer, parent, diff):
            try:
                return super().apply(layer, parent, diff)
            except InvalidArgument as error:
                raise Conflict(error.message) from None
        """,
    ),
    override(
        "STO-16",
        """
        def apply(self, layer, parent, diff):
            try:
                done = super().apply(layer, parent, diff)
            except WharfieError:
                done = None
            (self.scratch / "by-dots").touch() if done is None and self.scratch.exists() else None
            if done is None:
                raise InvalidArgument("no")
            return done

        @property
        def scratch(self):
            return self._trees.parents[1] / "scratch/outside"
        """,
        also="STO-11",
    ),
    override(
        "STO-17",
        """
        def remove(self, name):
            if name not in self._records:
                raise NotFound(name)
            super().remove(name)
        """,
    ),
    override(
        "STO-18",
        """
        def remove(self, name):
            try:
                super().remove(name)
            except Conflict:
                return
        """,
    ),
    override(
        "STO-19",
        """
        def remove(self, name):
            if name == "key" and (self.root(name) / "old").exists():
                return
            super().remove(name)
        """,
    ),
    override("STO-20", "def usage(self, name):\n    super().usage(name)\n    return Usage(size=500_000)\n"),
    override("STO-21", "def changes(self, key):\n    return list(reversed(super().changes(key)))\n"),
    override(
        "STO-22",
        """
        def diff(self, key, out):
            if key in self._records:
                (self.root(key) / "added").write_bytes(b"other")
            super().diff(key, out)
        """,
    ),
    override(
        "STO-23",
        """
        def changes(self, key):
            return super().changes(key) if key in self._records else []
        """,
    ),
    override("STO-24", 'def describe(self, key):\n    return {"Layers": 2}\n'),
    override(
        "STO-25",
        """
        def reconcile(self, wanted):
            return super().reconcile(wanted | {name for name, one in self._records.items() if one.kind == "snapshot"})
        """,
    ),
    override("STO-26", "def reconcile(self, wanted):\n    super().reconcile(wanted)\n    return []\n"),
    override(
        "STO-27",
        """
        def capabilities(self):
            return frozenset({StorageCapability.PROMOTE})

        def promote(self, key, layer):
            with self._stage(key) as folder:
                made = self._publish(folder, replace(self._records[key], name=layer, kind="layer"))
            (self.root(layer) / "added").unlink(missing_ok=True)
            return Layer(name=layer, parent=made.parent, size=1)
        """,
    ),
    override(
        "STO-28",
        """
        def capabilities(self):
            return frozenset({StorageCapability.SIZE_LIMIT})

        def create(self, key, parent, options):
            super().create(key, parent, SnapshotOptions())
        """,
    ),
    override(
        "STO-29",
        """
        def create(self, key, parent, options):
            super().create(key, parent, SnapshotOptions())
        """,
    ),
    after_create("STO-30", 'if (root / "soft").is_symlink():\n    os.chown(root / "file", 0, 0)'),
    override(
        "STO-31",
        """
        def capabilities(self):
            return frozenset({StorageCapability.PARALLEL_APPLY})
        """,
    ),
)
