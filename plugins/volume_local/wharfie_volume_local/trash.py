"""Deleting what was moved out of sight, however deep it is and whoever made it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path


class Trash:
    """A folder whose content is to be deleted. Moving in is one rename(2), so a volume is there or gone, never half."""

    def __init__(self, folder: Path, log: logging.Logger) -> None:
        self._folder = folder
        self._log = log

    def take(self, path: Path) -> None:
        """Move `path` in. Nothing when it is not there."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            path.rename(self._new_name())
        except FileNotFoundError:
            pass

    def empty(self, proceed: Callable[[], bool] = lambda: True) -> None:
        """Delete what is in it, as long as `proceed` says so. What cannot be deleted stays, with a word in the log.

        Folders inside of a folder are moved up here before it is removed: no recursion, so that no depth is too deep,
        and a mount that nobody expected is safe, because its mount point can be neither moved nor removed (EBUSY).
        """
        stuck: set[str] = set()
        while proceed() and (names := self._names() - stuck):
            for name in names:
                if not proceed():
                    return
                try:
                    self._delete(self._folder / name)
                except FileNotFoundError:  # another worker was faster
                    continue
                except OSError as error:
                    stuck.add(name)
                    self._log.warning("cannot delete the remains of a volume, %s: %s", self._folder / name, error)

    def _names(self) -> set[str]:
        try:
            return set(os.listdir(self._folder))  # noqa: PTH208  # names are what is wanted
        except FileNotFoundError:
            return set()

    def _delete(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rename(entry.path, self._new_name())  # noqa: PTH104  # one entry among many: no object for each
                else:
                    os.unlink(entry.path)  # noqa: PTH108
        path.rmdir()

    def _new_name(self) -> Path:
        return self._folder / secrets.token_hex(12)
