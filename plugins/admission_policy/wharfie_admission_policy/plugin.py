"""The plugin: asks the rules of daemon.json about each image that is about to be used."""

from __future__ import annotations

import logging

from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.hooks import Denial, Repository, hookimpl
from wharfie_admission_policy.settings import Rule, Settings, matches
from wharfie_admission_policy.signatures import Statement, read_keys, signed_statements

_LOG = logging.getLogger("wharfie.plugins.admission-policy")
_KEY = "plugins.admission-policy in daemon.json"


class AdmissionPolicy:
    """Off until daemon.json has a part for it. Called from several threads; `configure` replaces all settings at once."""

    settings = "wharfie_admission_policy.settings:Settings"

    def __init__(self) -> None:
        self._settings: Settings | None = None

    @hookimpl
    def configure(self, settings: Settings | None) -> None:
        self._settings = settings

    @hookimpl
    def admit_image(self, reference: str, digest: str, index: str, repository: Repository | None) -> Denial | None:
        settings = self._settings
        if settings is None:
            return None
        reason = _objection(settings, reference, digest, index, repository)
        if reason:
            _LOG.warning("image %s (%s) is denied: %s", reference, index or digest, reason)
        return Denial(reason=reason) if reason else None


PLUGIN = AdmissionPolicy()


def _objection(settings: Settings, reference: str, digest: str, index: str, repository: Repository | None) -> str:
    """Why the image may not be used; empty: it may."""
    if repository is None:
        if settings.local == "allow":
            return ""
        return (
            "it comes from no registry, so neither its origin nor a signature can be checked: "
            f'push it to an allowed registry and pull it, or set "local": "allow" of {_KEY}'
        )
    name = repository_of(reference)
    rule = settings.rule_for(name)
    if rule is None:
        return f"no rule allows the repository {name}: pull it from an allowed one, or add it to the rules of {_KEY}"
    if rule.effect == "deny":
        return f"the rule for {', '.join(rule.images)} of {_KEY} denies it"
    return _unsigned(rule, name, [index, digest] if index else [digest], repository) if rule.keys else ""


def _unsigned(rule: Rule, name: str, digests: list[str], repository: Repository) -> str:
    """Why no signature of the image counts; empty: one does. An index that is signed vouches for what it lists."""
    try:
        keys = read_keys(rule.keys)
    except InvalidArgument as error:
        return f"its signature cannot be checked: {error.message}; correct the keys of {_KEY}"
    others: set[str] = set()
    found = False
    for digest in digests:
        try:
            for statement in signed_statements(repository, digest, keys):
                if _is_for(statement, name, rule):
                    return ""
                others.add(statement.name)
            found = True
        except NotFound:
            continue
        except WharfieError as error:
            return f"its signature cannot be fetched: {error.message}"
    if "" in others:
        return (
            "its signature is a bundle, which names no repository, so it may have been made for another one: "
            f'set "signed-for": ["**"] of {_KEY} to accept it, or sign with `cosign sign --new-bundle-format=false`'
        )
    if others:
        made_for = ", ".join(sorted(others))
        return f"its signature was made for {made_for}, not for {name}: sign it there, or name it in signed-for of {_KEY}"
    if found:
        return f"it is signed, but by none of the keys {', '.join(map(str, rule.keys))}: sign it with one of them"
    return f"it has no signature: `cosign sign --key KEY {name}@{digests[0]}` makes one"


def _is_for(statement: Statement, name: str, rule: Rule) -> bool:
    """A signature must not be carried over from another repository, whose readers trust it for something else."""
    signed = repository_of(statement.name)
    return matches(signed, rule.signed_for) if rule.signed_for else signed == name


def repository_of(reference: str) -> str:
    """The repository of a whole reference: without tag and digest, Docker Hub by its one name."""
    head, slash, last = reference.partition("@")[0].rpartition("/")
    bare = head + slash + last.partition(":")[0]
    domain, _, path = bare.partition("/")
    return f"docker.io/{path}" if domain in ("index.docker.io", "registry-1.docker.io") else bare
