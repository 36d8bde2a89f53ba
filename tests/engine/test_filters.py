"""Patterns of filters: Go's path.Match."""

from __future__ import annotations

import pytest

from wharfie.engine.filters import path_match
from wharfie.spi.errors import InvalidArgument


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("a*b?c*x", "abxbbxdbxebxczzy", False),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a?b", "a/b", False),
        (r"a\*b", "a*b", True),
        (r"a\*b", "axb", False),
        (r"[\-x]", "-", True),
        (r"[\]a]", "]", True),
        ("[z-a]", "m", False),
        ("[!a]", "!", True),
        ("*x", "xxx", True),
        ("", "", True),
        ("*" * 50 + "b", "a" * 200, False),
        ("*a" * 30, "a" * 200 + "b", False),
    ],
)
def test_patterns(pattern, text, fits) -> None:
    assert path_match(pattern, text) is fits


@pytest.mark.parametrize("pattern", ["[", "[]a]", "[^", "a[", "a\\", "[a"])
def test_what_is_no_pattern(pattern) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        path_match(pattern, "a")
