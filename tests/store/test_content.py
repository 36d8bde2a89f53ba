"""The content store: what is left of downloads, and what comes another way."""

from __future__ import annotations

from pathlib import Path

from wharfie.store.content import ContentStore


def test_a_document_that_was_set_aside_and_comes_anew_leaves_nothing(tmp_path: Path) -> None:
    """A killed pull had stored the manifest; the next start sets it aside, the next pull has it from the registry again."""
    store = ContentStore(tmp_path)
    store.open()
    digest = store.put(b"{}")
    store.set_aside(digest)
    assert list(store.leftovers()) == [digest]
    assert store.put(b"{}") == digest
    assert store.leftovers() == {}
    assert store.read(digest, 10) == b"{}"
