"""Which flags of the docker command line a shell line uses, by the table of all flags (`tests/data/cli-flags.tsv`)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

# What is not between the flags of these commands is the container's own command line.
_WITH_COMMAND = {"container run", "container create", "container exec"}
_SHORTCUTS = {
    **{
        verb: f"container {verb}"
        for verb in (
            *("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename"),
            *("restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
        )
    },
    **{verb: f"image {verb}" for verb in ("history", "import", "load", "pull", "push", "save", "tag")},
    "ps": "container ls",
    "images": "image ls",
    "rmi": "image rm",
    "events": "system events",
    "info": "system info",
}
Flag = tuple[str, str]  # command without "docker", long name of the flag; "" is the command itself


class FlagTable:
    """The flags of the commands that Wharfie is compared in."""

    def __init__(self, path: Path) -> None:
        self.all: list[Flag] = []
        self._names: dict[Flag, str] = {}  # by any name, the long one
        self._takes_value: set[Flag] = set()
        for row in path.read_text().splitlines()[1:]:
            command, names, kind = row.split("\t")
            long = names.split(", ")[-1]
            self.all.append((command, long))
            for name in names.split(", ") if names else []:
                self._names[command, name] = long
                if kind != "bool":
                    self._takes_value.add((command, name))
        self._commands = {command for command, _ in self.all}

    def used(self, line: str) -> set[Flag]:
        """The commands and flags in one line of the shell, which may hold several commands."""
        found: set[Flag] = set()
        for words in _commands(line):
            command, arguments = self._command(words)
            if command:
                found |= {(command, ""), *self._flags(command, arguments)}
        return found & set(self.all)

    def _command(self, words: list[str]) -> tuple[str, list[str]]:
        if " ".join(words[:2]) in self._commands:
            return " ".join(words[:2]), words[2:]
        command = _SHORTCUTS.get(words[0], words[0]) if words else ""
        return (command, words[1:]) if command in self._commands else ("", [])

    def _flags(self, command: str, words: list[str]) -> Iterator[Flag]:
        rest = iter(words)
        for word in rest:
            if word.startswith("--") and len(word) > 2:
                name, equals, _ = word.partition("=")
                yield command, self._names.get((command, name), name)
                if not equals and (command, name) in self._takes_value:
                    next(rest, None)
            elif word.startswith("-") and len(word) > 1:
                for position, letter in enumerate(word[1:], 2):
                    yield command, self._names.get((command, f"-{letter}"), letter)
                    if (command, f"-{letter}") in self._takes_value:
                        if position == len(word):
                            next(rest, None)
                        break
            elif command in _WITH_COMMAND:
                return


def _commands(line: str) -> Iterator[list[str]]:
    """The words behind each `docker` of a line, also within quotes (`script -c "docker run -it ..."`)."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()\n`<>")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""
    current: list[str] | None = None
    for word in lexer:
        if "docker " in word:
            yield from _commands(word)
        if re.fullmatch(r"[;&|()\n`]+", word):
            if current is not None:
                yield current
            current = None
        elif current is not None:
            current.append(word)
        elif word == "docker":
            current = []
    if current is not None:
        yield current
