"""What the rules decide, and which signatures count: nothing that somebody else put into the registry does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError
from wharfie_admission_policy.plugin import AdmissionPolicy, repository_of
from wharfie_admission_policy.settings import Settings
from wharfie_admission_policy.signatures import tag_of

from wharfie.spi.errors import Unavailable

APP = "registry.example/team/app"
MANIFEST = "sha256:" + "a" * 64
INDEX = "sha256:" + "b" * 64


def policy(*rules, **more) -> AdmissionPolicy:
    made = AdmissionPolicy()
    made.configure(Settings.model_validate({"rules": rules, **more}))
    return made


def reason(plugin, reference, repository, *, index="") -> str:
    denial = plugin.admit_image(reference, MANIFEST, index, repository)
    return denial.reason if denial else ""


@pytest.fixture
def signed(signer) -> AdmissionPolicy:
    return policy({"images": ["registry.example/team/*"], "keys": [str(signer.file)]})


def test_without_settings_everything_is_admitted(repository):
    plugin = AdmissionPolicy()
    plugin.configure(None)
    assert reason(plugin, f"{APP}:1", repository) == reason(plugin, "x", None) == ""


def test_the_first_rule_that_fits_decides(repository):
    plugin = policy(
        {"images": ["registry.example/team/bad*"], "effect": "deny"},
        {"images": ["registry.example/**", "docker.io/library/*"]},
    )
    assert reason(plugin, f"{APP}:1", repository) == ""
    assert reason(plugin, "docker.io/library/busybox:latest", repository) == ""
    assert "denies it" in reason(plugin, "registry.example/team/bad-one:1", repository)
    assert "no rule allows the repository docker.io/other/x" in reason(plugin, "docker.io/other/x:1", repository)
    assert "no rule" in reason(plugin, "docker.io/library/a/b:1", repository)
    assert "no rule" in reason(policy(), f"{APP}:1", repository)


def test_local_images_are_denied_unless_allowed():
    assert 'set "local": "allow"' in reason(policy({"images": ["**"]}), "x:1", None)
    assert reason(policy(local="allow"), "x:1", None) == ""


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("docker.io/library/busybox:latest", "docker.io/library/busybox"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b"),
        ("localhost:5000/a", "localhost:5000/a"),
        (f"{APP}@{MANIFEST}", APP),
        ("index.docker.io/library/busybox", "docker.io/library/busybox"),
    ],
)
def test_repository_of_a_reference(reference, name):
    assert repository_of(reference) == name


def test_a_signature_by_the_key_admits(signed, signer, repository):
    assert f"cosign sign --key KEY {APP}@{MANIFEST}" in reason(signed, f"{APP}:1", repository)
    repository.sign(signer, MANIFEST, APP)
    assert reason(signed, f"{APP}:1", repository) == ""


def test_the_signature_of_the_index_admits(signed, signer, repository):
    repository.sign(signer, INDEX, f"{APP}:1")
    assert "no signature" in reason(signed, f"{APP}:1", repository)
    assert reason(signed, f"{APP}:1", repository, index=INDEX) == ""


def test_one_good_signature_among_bad_ones_is_enough(signed, signer, stranger, repository, make_statement):
    data = make_statement(MANIFEST, APP)
    repository.sign(stranger, MANIFEST, APP)
    repository.add(MANIFEST, data, "not base64!")
    repository.add(MANIFEST, data, signer.sign(b"something else"))
    repository.add(MANIFEST, data, signer.sign(data), mediaType="text/plain")
    repository.add(MANIFEST, data, signer.sign(data), size=1 << 30)
    repository.add(MANIFEST, data, signer.sign(data), annotations=[])
    repository.add(MANIFEST, data, signer.sign(data), digest="sha256:" + "0" * 64)
    assert "by none of the keys" in reason(signed, f"{APP}:1", repository)
    repository.sign(signer, MANIFEST, APP)
    assert reason(signed, f"{APP}:1", repository) == ""


def test_what_the_key_signed_for_something_else_counts_for_nothing(signed, signer, repository, make_statement):
    for data in (make_statement("sha256:" + "c" * 64, APP), make_statement(MANIFEST, APP, "a letter"), b"[]", b"{", b"{}"):
        repository.add(MANIFEST, data, signer.sign(data))
    assert "by none of the keys" in reason(signed, f"{APP}:1", repository)


def test_a_signature_is_not_carried_over_from_another_repository(signer, repository):
    rule = {"images": ["registry.example/**"], "keys": [str(signer.file)]}
    repository.sign(signer, MANIFEST, "registry.example/team/other")
    said = reason(policy(rule), f"{APP}:1", repository)
    assert said.startswith(f"its signature was made for registry.example/team/other, not for {APP}")
    assert reason(policy({**rule, "signed-for": ["registry.example/team/*"]}), f"{APP}:1", repository) == ""


def test_only_the_first_statements_are_looked_at(signed, signer, stranger, repository):
    for _ in range(64):
        repository.sign(stranger, MANIFEST, APP)
    repository.sign(signer, MANIFEST, APP)
    assert "by none of the keys" in reason(signed, f"{APP}:1", repository)


@pytest.mark.parametrize(
    "data", [b"no json", b"[]", b'{"layers": 5}', b"[" * 100_000], ids=["text", "list", "five", "deep"]
)
def test_a_manifest_that_is_none(signed, repository, data):
    repository.manifests[tag_of(MANIFEST)] = data
    assert "cannot be fetched: the manifest of the signatures" in reason(signed, f"{APP}:1", repository)


def test_a_registry_that_does_not_answer_denies(signed, repository, monkeypatch):
    def away(name):
        raise Unavailable("the registry is away")

    monkeypatch.setattr(repository, "manifest", away)
    assert reason(signed, f"{APP}:1", repository) == "its signature cannot be fetched: the registry is away"


def test_keys_that_are_no_keys_deny_and_are_read_again(signed, signer, repository):
    repository.sign(signer, MANIFEST, APP)
    good = signer.file.read_bytes()
    wrong = [
        b"no key",
        rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        ec.generate_private_key(ec.SECP384R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ]
    for data in wrong:
        signer.file.write_bytes(data)
        assert str(signer.file) in reason(signed, f"{APP}:1", repository)
    signer.file.unlink()
    assert "cannot be read: No such file" in reason(signed, f"{APP}:1", repository)
    signer.file.write_bytes(good)
    assert reason(signed, f"{APP}:1", repository) == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"rules": [{}]},
        {"rules": [{"images": []}]},
        {"rules": [{"images": [""]}]},
        {"rules": [{"images": ["x"], "keys": ["relative.pub"]}]},
        {"rules": [{"images": ["x"], "effect": "deny", "keys": ["/k"]}]},
        {"rules": [{"images": ["x"], "signed-for": ["y"]}]},
        {"rules": [{"images": ["x"], "key": "/k"}]},
        {"local": "maybe"},
        {"colour": "blue"},
    ],
)
def test_settings_that_are_wrong(settings):
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)


def test_the_example_of_the_readme():
    text = (Path(__file__).parents[1] / "README.md").read_text().partition("```json")[2].partition("```")[0]
    own = json.loads(text)["plugins"]["admission-policy"]
    assert [rule.effect for rule in Settings.model_validate(own).rules] == ["deny", "allow", "allow"]
