"""Wrong runtime drivers."""

from __future__ import annotations

from tests.kit.mutants import override


def failing(rule, method, wanted, instead, condition="True", *, also=""):
    """A refusal of another kind."""
    body = f"""
def {method}(self, *args, **kwargs):
    try:
        return super().{method}(*args, **kwargs)
    except {wanted} as error:
        if {condition}:
            raise {instead}(error.message) from None
        raise
"""
    return override(rule, body, also=also)


def succeeding(rule, method, wanted, *, also="", condition="True"):
    """Success where a refusal is due."""
    body = f"""
def {method}(self, *args, **kwargs):
    try:
        return super().{method}(*args, **kwargs)
    except {wanted}:
        if not ({condition}):
            raise
"""
    return override(rule, body, also=also)


CREATE = "def create(self, id, bundle, rootfs, io, preparation):\n    "

WRONG = (
    override("RUN-01", "def create(self, *args):\n    return replace(super().create(*args), netns=None)\n"),
    override(
        "RUN-02",
        """
        def state(self, id):
            found = super().state(id)
            return replace(found, exit=replace(found.exit, code=0)) if found.exit else found
        """,
    ),
    override(
        "RUN-03",
        """
        def __init__(self, context, settings):
            emit = context.emit

            def changed(event):
                killed = isinstance(event, Exited) and event.exit.code == 137
                emit(replace(event, exit=replace(event.exit, code=9)) if killed else event)

            super().__init__(replace(context, emit=changed), settings)
        """,
    ),
    succeeding("RUN-04", "start", "Conflict"),
    failing(
        "RUN-05",
        "create",
        "InvalidArgument",
        "NotFound",
        "'executable file' in error.message or 'no such' in error.message",
    ),
    failing("RUN-06", "create", "InvalidArgument", "NotFound", "'permission' in error.message"),
    override(
        "RUN-07",
        """
        def create(self, id, *args):
            try:
                return super().create(id, *args)
            except Conflict:
                super().delete(id, force=True)
                raise
        """,
    ),
    failing("RUN-08", "resize", "NotFound", "Conflict"),
    override(
        "RUN-09",
        """
        def delete(self, id, *, force=False):
            if not force and id not in {state.id for state in self.containers()}:
                raise NotFound(id)
            super().delete(id, force=force)
        """,
    ),
    override("RUN-10", "def delete(self, id, *, force=False):\n    super().delete(id, force=True)\n"),
    override(
        "RUN-11", 'def containers(self):\n    return [one for one in super().containers() if one.status != "created"]\n'
    ),
    override(
        "RUN-12",
        """
        def attach(self, id, exec_id, client, request):
            if not exec_id and not request.stdin:
                request = replace(request, stderr=False)
            super().attach(id, exec_id, client, request)
        """,
    ),
    override(
        "RUN-13",
        """
        def attach(self, id, exec_id, client, request):
            super().attach(id, exec_id, client, replace(request, initial=b""))
        """,
    ),
    override(
        "RUN-14",
        """
        closed = False

        def close_stdin(self, id, exec_id):
            if self.closed:
                raise Conflict("closed already")
            self.closed = True
            super().close_stdin(id, exec_id)
        """,
    ),
    override(
        "RUN-15",
        """
        def resize(self, id, exec_id, rows, columns):
            super().resize(id, exec_id, columns, rows)
        """,
    ),
    succeeding("RUN-16", "resize", "Conflict"),
    override(
        "RUN-17",
        """
        def attach(self, id, exec_id, client, request):
            super().attach(id, exec_id, client, replace(request, framed=request.framed and not exec_id))
        """,
    ),
    failing("RUN-18", "exec_start", "InvalidArgument", "Conflict"),
    override(
        "RUN-19",
        """
        def signal(self, id, signal, *, exec_id="", everyone=False):
            super().signal(id, 9 if exec_id else signal, exec_id=exec_id, everyone=everyone)
        """,
    ),
    succeeding("RUN-20", "signal", "Conflict"),
    override(
        "RUN-21",
        """
        def signal(self, id, signal, *, exec_id="", everyone=False):
            super().signal(id, 9 if everyone else signal, exec_id=exec_id, everyone=everyone)
        """,
    ),
    override("RUN-22", "def resume(self, id):\n    pass\n"),
    override("RUN-23", 'def update(self, id, resources):\n    super().update(id, {"pids": {"limit": 99}})\n'),
    override(
        "RUN-24",
        """
        def stats(self, id):
            found = dict(super().stats(id))
            return {**found, "memory": {**found["memory"], "usage": 0}}
        """,
    ),
    override("RUN-25", "def pids(self, id):\n    return [*super().pids(id), 1]\n"),
    override(
        "RUN-26",
        """
        def open(self):
            super().open()
            for state in self.containers():
                if state.status == "running" and not getattr(self, "opened", False):
                    super().signal(state.id, 9)
            self.opened = True
        """,
    ),
    override(
        "RUN-27",
        """
        def open(self):
            super().open()
            for state in super().containers():
                if state.status == "stopped":
                    super().delete(state.id)
        """,
    ),
    override(
        "RUN-28",
        """
        def create(self, id, bundle, rootfs, io, preparation):
            return super().create(id, bundle, rootfs, replace(io, log=None), preparation)
        """,
    ),
    override(
        "RUN-29",
        """
        def create(self, id, bundle, rootfs, io, preparation):
            return super().create(id, bundle, rootfs, io, replace(preparation, groups=()))
        """,
    ),
    override(
        "RUN-30",
        """
        def create(self, id, bundle, rootfs, io, preparation):
            made = super().create(id, bundle, rootfs, io, preparation)
            (bundle / "seen").mkdir()
            mount("tmpfs", str(bundle / "seen"), "tmpfs", 0)
            return made

        def delete(self, id, *, force=False):
            super().delete(id, force=force)
        """,
    ),
    override(
        "RUN-31",
        """
        def create(self, id, bundle, rootfs, io, preparation):
            return super().create(id, bundle, rootfs, io, replace(preparation, copy_up=()))
        """,
    ),
    override(
        "RUN-32",
        """
        def notify_exit(self, id, client, reply):
            super().notify_exit(id, client, replace(reply, after=b"!"))
        """,
    ),
    override("RUN-33", 'def features(self):\n    return {"hooks": []}\n'),
    override(
        "RUN-34",
        """
        def create(self, id, *args):
            try:
                return super().create(id, *args)
            except InvalidArgument:
                raise
            except Conflict:
                raise
            except WharfieError:
                (self.context.run / id).mkdir()
                raise
        """,
    ),
    override(
        "RUN-35",
        """
        def exec_delete(self, id, exec_id):
            if exec_id == "none":
                raise NotFound(exec_id)
            super().exec_delete(id, exec_id)
        """,
    ),
    override(
        "RUN-36",
        """
        def checkpoint(self, id, folder, **more):
            try:
                super().checkpoint(id, folder, **more)
            except Unsupported:
                folder.mkdir()
                raise
            for file in folder.iterdir():
                file.unlink()
        """,
    ),
    failing("RUN-37", "checkpoint", "NotFound", "Conflict"),
)
