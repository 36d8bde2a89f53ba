"""`disabled-plugins`, edited in a file that people write."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from wharfie.plugins.switch import edit, set_disabled
from wharfie.spi.errors import InvalidArgument

FILE = """{
    "log-driver":   "local",
    "log-opts": {"max-size": "10m", "x": ["}", "\\"disabled-plugins\\": [1]"]},

    "disabled-plugins": [
        "volume.old"
    ],
    "debug": true
}
"""


def test_only_the_list_changes():
    disabled = edit(FILE, "volume.acme", disabled=True, where="f")
    assert disabled == FILE.replace('[\n        "volume.old"\n    ]', '["volume.old", "volume.acme"]')
    assert edit(disabled, "volume.acme", disabled=True, where="f") == disabled
    enabled = edit(disabled, "volume.acme", disabled=False, where="f")
    assert json.loads(enabled) == json.loads(FILE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", '{\n  "disabled-plugins": ["gate"]\n}\n'),
        ("{}", '{\n  "disabled-plugins": ["gate"]\n}\n'),
        ('{"debug": true}', '{"debug": true, "disabled-plugins": ["gate"]}'),
        ('{\n\t"debug": true\n}\n', '{\n\t"debug": true,\n\t"disabled-plugins": ["gate"]\n}\n'),
        ('{"disabled-plugins": []}', '{"disabled-plugins": ["gate"]}'),
    ],
)
def test_a_file_without_the_list_gets_one(text, expected):
    assert edit(text, "gate", disabled=True, where="f") == expected
    assert edit(text, "gate", disabled=False, where="f") == text


@pytest.mark.parametrize("text", ["[]", "{", '{"disabled-plugins": "x"}', "{'a': 1}"])
def test_a_file_that_is_none_is_not_touched(text, tmp_path: Path):
    path = tmp_path / "daemon.json"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=r"daemon\.json"):
        set_disabled(path, "volume.acme", disabled=True)
    assert path.read_text() == text


def test_the_file_is_replaced_whole_with_its_mode_behind_a_link(tmp_path: Path):
    path, link = tmp_path / "real.json", tmp_path / "daemon.json"
    path.write_text(FILE)
    path.chmod(0o640)
    os.link(path, tmp_path / "old")
    link.symlink_to(path)
    assert set_disabled(link, "network.acme", disabled=True)
    assert not set_disabled(link, "network.acme", disabled=True)
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o640
    assert "network.acme" in path.read_text() and "network.acme" not in (tmp_path / "old").read_text()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["daemon.json", "old", "real.json"]


@pytest.mark.parametrize("key", ["", "volumes.acme", "volume.", ".acme"])
def test_a_key_that_cannot_be_one_is_refused(key, tmp_path: Path):
    with pytest.raises(InvalidArgument, match=r"KIND\.NAME"):
        set_disabled(tmp_path / "daemon.json", key, disabled=True)
