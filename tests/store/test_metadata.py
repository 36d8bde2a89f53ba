"""The metadata store: durable, atomic, clear about a damaged file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from wharfie.spi.errors import DataLoss
from wharfie.store.metadata import Delete, Metadata, Put


def test_documents_survive_a_reopen(tmp_path):
    async def write():
        store = Metadata(tmp_path / "m.db")
        await store.put("containers", "a", "1")
        await store.commit([Put("containers", "b", "2"), Put("images", "a", "3"), Delete("containers", "a")])
        store.close()

    asyncio.run(write())
    store = Metadata(tmp_path / "m.db")
    assert store.all("containers") == {"b": "2"}
    assert store.all("images") == {"a": "3"}
    store.close()


def test_a_change_is_durable_when_its_call_returns(tmp_path):
    program = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        from pathlib import Path
        from wharfie.store.metadata import Metadata
        async def main():
            store = Metadata(Path(sys.argv[1]))
            await asyncio.gather(*(store.put("t", str(n), "x") for n in range(200)))
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "m.db"], check=False)
    store = Metadata(tmp_path / "m.db")
    assert len(store.all("t")) == 200
    store.close()


@pytest.mark.parametrize("damage", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 9000])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "m.db"
    path.write_bytes(damage)
    with pytest.raises(DataLoss, match=r"m\.db"):
        Metadata(path)
