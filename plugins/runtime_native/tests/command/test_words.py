"""Command lines, sorted as runc would."""

from __future__ import annotations

import pytest
from wharfie_runtime_native.command.words import Misuse, Option, sort

OPTIONS = (Option(("b", "bundle"), "", "FOLDER"), Option(("d", "detach"), ""), Option(("e", "env"), "", "NAME=VALUE"))


@pytest.mark.parametrize(
    "words",
    [
        ["--bundle", "/b", "-d", "x"],
        ["-bundle=/b", "x", "--detach"],
        ["-b=/b", "--detach=true", "--", "x"],
        ["x", "-b", "/a", "-b", "/b", "-detach"],
    ],
)
def test_one_dash_or_two_and_any_order(words):
    given = sort(words, OPTIONS)
    assert (given.text("bundle"), given.has("detach"), given.words) == ("/b", True, ["x"])


def test_values_that_look_like_flags_and_repeated_ones():
    given = sort(["--env", "-d", "-e=A=b=c", "--detach=false"], OPTIONS)
    assert (given.all("env"), given.has("detach"), given.words) == (["-d", "A=b=c"], False, [])


def test_what_trails_is_the_programs():
    given = sort(["-d", "box", "sh", "-c", "--", "-d"], OPTIONS, trailing=True)
    assert (given.has("detach"), given.words) == (True, ["box", "sh", "-c", "--", "-d"])
    assert sort(["--", "-d"], OPTIONS, trailing=True).words == ["-d"]


def test_numbers():
    options = (Option(("n",), "", "N"),)
    assert sort(["-n", "-1"], options).number("n") == -1
    assert sort([], options).number("n") is None
    for text in ("9" * 30, "\u00b2", "-", "1.5"):
        with pytest.raises(Misuse):
            sort(["-n", text], options).number("n")
