"""Sockets and locks of the daemon."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wharfie.daemon import listeners
from wharfie.daemon.config import DaemonConfig
from wharfie.daemon.lock import Locks, instance_of
from wharfie.spi.errors import Conflict, InvalidArgument


def config_for(*hosts: str, **values: object) -> DaemonConfig:
    return DaemonConfig.model_validate({"hosts": list(hosts), **values})


def test_the_unix_socket_belongs_to_its_group(tmp_path: Path):
    path = tmp_path / "folder" / "api.sock"
    (listener,) = listeners.open_listeners(config_for(f"unix://{path}", group="daemon"))
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert (found.st_uid, found.st_gid) == (os.getuid(), 1)
    listener.close()
    assert not path.exists()


def test_an_unknown_group_is_refused(tmp_path: Path):
    with pytest.raises(InvalidArgument, match="groupadd nobody-at-all"):
        listeners.open_listeners(config_for(f"unix://{tmp_path}/api.sock", group="nobody-at-all"))


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (listener,) = listeners.open_listeners(config_for(f"unix://{path}"))
    with pytest.raises(Conflict, match="another daemon answers there"):
        listeners.open_listeners(config_for(f"unix://{path}"))
    listener.close()


def test_a_file_in_the_way_stays(tmp_path: Path):
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(Conflict, match="is no socket"):
        listeners.open_listeners(config_for(f"unix://{path}"))
    assert path.read_text() == "precious"


def test_all_or_none(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Conflict, match=f"cannot listen on tcp://127.0.0.1:{port}"):
            listeners.open_listeners(config_for(f"unix://{tmp_path}/api.sock", f"tcp://127.0.0.1:{port}"))
    assert not (tmp_path / "api.sock").exists()


def test_one_daemon_on_one_root(tmp_path: Path):
    pid = tmp_path / "run" / "pid"
    with Locks(tmp_path, pid):
        assert pid.read_text().strip() == str(os.getpid())
        with pytest.raises(Conflict, match=rf"data root {tmp_path} is in use by another daemon \(process {os.getpid()}"):
            Locks(tmp_path, tmp_path / "other")
        with pytest.raises(Conflict, match="pid file"):
            Locks(_folder(tmp_path / "second"), pid)
    assert not pid.exists()
    with Locks(tmp_path, pid):
        pass


def test_the_lock_of_a_killed_process_is_nobodys(tmp_path: Path):
    script = (
        "import os, sys; from pathlib import Path; from wharfie.daemon.lock import Locks\n"
        f"Locks(Path({str(tmp_path)!r}), Path({str(tmp_path / 'pid')!r})); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert (tmp_path / "pid").exists()
    with Locks(tmp_path, tmp_path / "pid"):
        pass


def test_a_pid_file_with_somebody_elses_pid_is_no_obstacle(tmp_path: Path):
    (tmp_path / "pid").write_text("1\n")
    with Locks(tmp_path, tmp_path / "pid"):
        assert (tmp_path / "pid").read_text().strip() == str(os.getpid())


def test_the_instance_is_stable(tmp_path: Path):
    instance = instance_of(tmp_path)
    assert len(instance) == 8
    assert int(instance, 16) >= 0
    assert instance_of(tmp_path) == instance
    (tmp_path / "instance").write_text("damaged")
    assert len(instance_of(tmp_path)) == 8


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
