"""A command line, sorted by tables: flags, their values, and the words besides.

This program is started several times for each container, and a library for command lines takes longer to load than a
container to make (of a core: click 23 ms, argparse 3, this one 0.3). Flags are written as runc's are, which are Go's: with
one dash or two, values behind "=" or as the next word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from wharfie.spi.errors import InvalidArgument


class Misuse(InvalidArgument):
    """The command line itself is wrong."""


class Option(NamedTuple):
    """A flag. `names`: without dashes, the last one is its key. `value`: what its value is called; "" for a switch."""

    names: tuple[str, ...]
    help: str
    value: str = ""
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.names[-1]


class Given:
    """What was given. Options are asked for by key."""

    def __init__(self, values: dict[str, list[str]], words: list[str]) -> None:
        self._values = values
        self.words = words

    def has(self, key: str) -> bool:
        """Whether a switch is on."""
        return self.text(key) == "true"

    def text(self, key: str, default: str = "") -> str:
        """The last value."""
        return self._values.get(key, (default,))[-1]

    def all(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def number(self, key: str) -> int | None:
        """None when it was not given. Errors: Misuse."""
        if key not in self._values:
            return None
        return _number(key, self.text(key))

    def numbers(self, key: str) -> list[int]:
        """Errors: Misuse."""
        return [_number(key, text) for text in self.all(key)]


class Command(NamedTuple):
    """`run` is called with the session and what was given; its docstring is the help. `arguments`: names of the words that
    it takes, "[NAME]" for one that may be left out. "[NAME...]" takes all that follows the word before it, flags too."""

    run: Callable[..., int | None]
    arguments: tuple[str, ...] = ("ID",)
    options: tuple[Option, ...] = ()

    @property
    def trailing(self) -> bool:
        return bool(self.arguments) and self.arguments[-1].endswith("...]")


HELP = Option(("h", "help"), "Show this, and exit.")


def sort(words: Sequence[str], options: Sequence[Option], *, trailing: bool = False) -> Given:
    """`trailing`: flags end at the first word that is none. Errors: Misuse."""
    known = {name: option for option in options for name in option.names}
    values: dict[str, list[str]] = {}
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--" or not word.startswith("-") or word == "-":
            others += [word] if word != "--" else rest
            if trailing:
                others += rest
            continue
        name, separator, value = word.removeprefix("-").removeprefix("-").partition("=")
        option = known.get(name)
        if option is None:
            raise Misuse(f'No such option: "{word}"')
        if not separator:
            value = next(rest, "") if option.value else "true"
            if option.value and not value:
                raise Misuse(f"Option --{option.key} needs a value: {option.value}")
        choices = option.choices if option.value else ("true", "false")
        if choices and value not in choices:
            raise Misuse(f'Option --{option.key}: "{value}" is none of {", ".join(choices)}')
        values.setdefault(option.key, []).append(value)
    return Given(values, others)


def check_count(given: Given, command: Command) -> None:
    """Errors: Misuse (a word too few or too many)."""
    needed = [name for name in command.arguments if not name.startswith("[")]
    if len(given.words) < len(needed):
        raise Misuse(f"Missing argument {needed[len(given.words)]}")
    if len(given.words) > len(command.arguments) and not command.trailing:
        raise Misuse(f'Unexpected argument "{given.words[len(command.arguments)]}"')


def describe(usage: str, text: str, options: Sequence[Option]) -> str:
    """The help."""
    left = [
        ", ".join(f"-{name}" if len(name) == 1 else f"--{name}" for name in option.names)
        + (f" {option.value}" if option.value else "")
        for option in options
    ]
    width = max(map(len, left)) + 2
    lines = [
        f"  {flags.ljust(width)}{option.help}" + (f" One of {', '.join(option.choices)}." if option.choices else "")
        for flags, option in zip(left, options, strict=True)
    ]
    return "\n".join([f"Usage: wharfie-runtime {usage}", "", text, "", "Options:", *lines])


def _number(key: str, text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise Misuse(f'Option --{key}: "{text}" is not a number')
    return int(text)
