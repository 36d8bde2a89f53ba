"""This plugin's part of daemon.json, `plugins.admission-policy`.

Rules are looked at in order; the first whose `images` fit the repository decides. Nothing fits: refused.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_PARTS = re.compile(r"\*\*|\*|\?")
_MEANING = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{path} is not an absolute path")
    return path


class Rule(BaseModel):
    """One rule. With `keys`, an image must carry a signature by one of them.

    `signed_for`: repositories that a signature may have been made for; empty: the image's own alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    effect: Literal["allow", "deny"] = "allow"
    keys: tuple[Annotated[Path, AfterValidator(_absolute)], ...] = ()
    signed_for: Annotated[tuple[str, ...], Field(alias="signed-for")] = ()

    @model_validator(mode="after")
    def _together(self) -> Rule:
        if self.keys and self.effect == "deny":
            raise ValueError("a rule that denies has no use for keys")
        if self.signed_for and not self.keys:
            raise ValueError("signed-for has no effect without keys")
        return self


class Settings(BaseModel):
    """`local`: may images come from elsewhere than a registry, by `docker load`, `import` and `commit`?"""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: tuple[Rule, ...] = ()
    local: Literal["allow", "deny"] = "deny"

    def rule_for(self, repository: str) -> Rule | None:
        """The rule that decides about a repository, named in full ("docker.io/library/busybox")."""
        return next((rule for rule in self.rules if matches(repository, rule.images)), None)


def matches(text: str, patterns: tuple[str, ...]) -> bool:
    """Does any pattern stand for all of `text`? `*`: anything within a segment, `**`: anything, `?`: one character."""
    return any(_compiled(pattern).fullmatch(text) is not None for pattern in patterns)


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    text, end = "", 0
    for part in _PARTS.finditer(pattern):
        text += re.escape(pattern[end : part.start()]) + _MEANING[part[0]]
        end = part.end()
    return re.compile(text + re.escape(pattern[end:]), re.DOTALL)
