"""Wrong log drivers."""

from __future__ import annotations

from tests.kit.mutants import override


def reader(rule, body):
    """`body` of open_reader, with `reader` and `entries` of the right one at hand."""
    head = (
        "def open_reader(self, container, options, query):\n    reader = super().open_reader(container, options, query)\n"
    )
    return override(rule, head + "".join(f"    {line}\n" for line in body.strip().splitlines()))


WRONG = (
    override(
        "LOG-01",
        """
        def plan(self, container, options):
            return {**super().plan(container, options), "number": 1}
        """,
    ),
    override(
        "LOG-02",
        """
        def plan(self, container, options):
            return super().plan(container, {key: value for key, value in options.items() if "kit" not in key})
        """,
    ),
    override(
        "LOG-03",
        """
        def plan(self, container, options):
            self.count = getattr(self, "count", 0) + 1
            return {**super().plan(container, options), "count": str(self.count)}
        """,
    ),
    override("LOG-04", 'sink = "foreign_sink:Sink"\n'),
    override(
        "LOG-05",
        """
        def open_reader(self, container, options, query):
            reader = super().open_reader(container, options, query)
            return Changed(reader, read=lambda limit: [entry for entry in reader.read(limit) if len(entry.data) < 16384])
        """,
    ),
    reader("LOG-06", "return Changed(reader, read=lambda n: list(reversed(e)) if len(e := reader.read(n)) == 100 else e)"),
    override(
        "LOG-07",
        """
        def open_reader(self, container, options, query):
            tail = 3 if query.tail == 0 else query.tail
            return super().open_reader(container, options, replace(query, tail=tail))
        """,
    ),
    override(
        "LOG-08",
        """
        def open_reader(self, container, options, query):
            return super().open_reader(container, options, replace(query, until_ns=0))
        """,
    ),
    reader("LOG-09", "return Changed(reader, read=lambda n: reader.read(100 if n == 3 else n))"),
    reader(
        "LOG-10",
        """
if not query.follow or query.tail != -1:
    return reader
seen = []
def read(limit):
    if limit == 100 and len(seen) >= 5:
        return []
    some = reader.read(limit)
    seen.extend(some)
    return some
return Changed(reader, read=read)
""",
    ),
    override(
        "LOG-11",
        """
        def open_reader(self, container, options, query):
            tail = -1 if query.follow else query.tail
            return super().open_reader(container, options, replace(query, tail=tail))
        """,
    ),
    override(
        "LOG-12",
        """
        def open_reader(self, container, options, query):
            if not self.lines(options):
                raise NotFound("no log yet")
            return super().open_reader(container, options, query)
        """,
    ),
    reader(
        "LOG-13",
        """
closed = []
def close():
    if closed:
        raise ValueError("closed already")
    closed.append(1)
    reader.close()
return Changed(reader, close=close)
""",
    ),
    reader(
        "LOG-14",
        """
if self.lines(options) != 10 or query.follow or query.tail != -1:
    return reader
return Changed(reader, read=lambda limit: reader.read(limit)[:5] if limit == 100 else reader.read(limit))
""",
    ),
    override(
        "LOG-15",
        """
        def open_reader(self, container, options, query):
            reader = super().open_reader(container, options, query)
            if self.plans != 1 or self.lines(options) != 20 or query.since_ns:
                return reader
            return Changed(reader, read=lambda limit: reader.read(limit)[:-1])
        """,
    ),
    override(
        "LOG-16",
        """
        def plan(self, container, options):
            self.plans += 1
            planned = super().plan(container, options)
            self.first = getattr(self, "first", planned)
            return planned

        def open_reader(self, container, options, query):
            mixed = self.lines(options) == 3 and container.name == "kit-2"
            return super().open_reader(container, self.first if mixed else options, query)
        """,
    ),
    override(
        "LOG-17",
        """
        def open_reader(self, container, options, query):
            reader = super().open_reader(container, options, query)
            return reader if self.plans else Changed(reader, read=lambda limit: [])
        """,
    ),
    override(
        "LOG-18",
        """
        def remove(self, container, options):
            if container.id != "both" and self.lines(options) == 5:
                return
            super().remove(container, options)
        """,
    ),
    override(
        "LOG-19",
        """
        def remove(self, container, options):
            if self.lines(options) == 0:
                raise NotFound("no log")
            super().remove(container, options)
        """,
    ),
    override(
        "LOG-20",
        """
        def path(self, container, options):
            return options["path"] + ".missing"
        """,
    ),
    override("LOG-21", 'sink = "hasty_sink:Sink"\n'),
    reader("LOG-22", "return Changed(reader, read_runs=lambda: reader.read_runs()[:-1])"),
)
