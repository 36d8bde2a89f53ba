"""Records of the engine, durable: tables of JSON documents by key in one SQLite file.

A change is durable when its call returns (WAL, synchronous=FULL, so a power cut loses nothing that was acknowledged). One
thread owns the connection; changes that arrive while it waits for the disk share the next commit, so many callers pay for
one flush. Reading happens once, at start: the engine keeps its objects in memory and writes through.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wharfie.spi.errors import DataLoss, DriverError, OutOfSpace

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Put:
    """Set the document of a key."""

    table: str
    key: str
    document: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a key; nothing happens when it is absent."""

    table: str
    key: str


Change = Put | Delete


@dataclass(frozen=True, slots=True)
class _Batch:
    changes: Sequence[Change]
    done: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop


class Metadata:
    """The store. Construct, `all` for each table, then changes from the event loop; `close` at the end."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Errors: DataLoss (not a database, or damaged; the message names the file)."""
        self._path = path
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            raise DataLoss(
                f"the metadata file {path} cannot be read: {error}. Restore it from a backup, or move it away to start "
                "without the containers, images, networks and volumes that it records"
            ) from error
        self._thread = threading.Thread(target=self._run, name="metadata", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        if connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("the integrity check failed")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"written by a newer version (schema {version}, known {SCHEMA_VERSION})")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS documents ("
            "collection TEXT NOT NULL, key TEXT NOT NULL, document TEXT NOT NULL, PRIMARY KEY (collection, key)"
            ") WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        return connection

    def all(self, table: str) -> dict[str, str]:
        """Every document of a table by key. For the start, before changes are made."""
        rows = self._connection.execute("SELECT key, document FROM documents WHERE collection = ?", (table,))
        return dict(rows.fetchall())

    async def put(self, table: str, key: str, document: str) -> None:
        """Set one document; durable on return."""
        await self.commit([Put(table, key, document)])

    async def delete(self, table: str, key: str) -> None:
        """Remove one document; durable on return."""
        await self.commit([Delete(table, key)])

    async def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes or none; durable on return. Errors: OutOfSpace, DriverError (the disk failed)."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._queue.put(_Batch(changes, done, loop))
        await done

    def close(self) -> None:
        """Write what is queued and close the file. May be repeated."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
            self._connection.close()

    def _run(self) -> None:
        while True:
            batch = self._queue.get()
            batches: list[_Batch] = []
            while batch is not None:
                batches.append(batch)
                try:
                    batch = self._queue.get_nowait()
                except queue.Empty:
                    break
            if batches:
                self._write(batches)
            if batch is None:
                return

    def _write(self, batches: Sequence[_Batch]) -> None:
        error: Exception | None = None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for batch in batches:
                for change in batch.changes:
                    self._apply(change)
            self._connection.execute("COMMIT")
        except sqlite3.Error as failure:
            error = _explain(failure, self._path)
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        for batch in batches:
            _settle(batch, error)

    def _apply(self, change: Change) -> None:
        if isinstance(change, Put):
            self._connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?) "
                "ON CONFLICT (collection, key) DO UPDATE SET document = excluded.document",
                (change.table, change.key, change.document),
            )
        else:
            self._connection.execute("DELETE FROM documents WHERE collection = ? AND key = ?", (change.table, change.key))


def _explain(failure: sqlite3.Error, path: Path) -> Exception:
    if getattr(failure, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE"):
        return OutOfSpace(f"cannot record the change in {path}: no space left on device")
    return DriverError(f"cannot record the change in {path}: {failure}")


def _settle(batch: _Batch, error: Exception | None) -> None:
    def settle() -> None:
        if batch.done.done():
            return
        if error is None:
            batch.done.set_result(None)
        else:
            batch.done.set_exception(error)

    try:
        batch.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        return  # the loop has ended: nobody waits for this batch any more
