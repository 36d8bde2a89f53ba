"""Exec instances: `GET /exec/{id}/json`."""

from __future__ import annotations

from typing import Any

from wharfie.engine.model.container import ExecRecord


def exec_view(record: ExecRecord) -> dict[str, Any]:
    """Definition ExecInspectResponse. The user is shown when one was asked for."""
    request = record.request
    program, *arguments = request.cmd or [""]
    process: dict[str, Any] = {
        "tty": request.tty,
        "entrypoint": program,
        "arguments": arguments,
        "privileged": request.privileged,
    }
    if request.user:
        process["user"] = request.user
    return {
        "ID": record.id,
        "Running": record.running,
        "ExitCode": record.exit_code,
        "ProcessConfig": process,
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": False,
        "ContainerID": record.container_id,
        "DetachKeys": request.detach_keys,
        "Pid": record.pid,
    }
