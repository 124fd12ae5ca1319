"""What ``trunkline audit show`` takes for the name of a receipt."""

from pathlib import Path

import pytest
from tests.support.audit_records import verdict

from trunkline.base.errors import ConfigError
from trunkline.cli import audit
from trunkline.cli.folder import Folder


@pytest.mark.parametrize(
    ("what", "leaf"), [("ab" * 32, "ab" * 32), ("ab" * 8 + "…", "ab" * 8), ("abcd1234", "abcd1234")]
)
def test_a_leaf_or_its_beginning(what: str, leaf: str, tmp_path: Path) -> None:
    assert audit._leaves(Folder(tmp_path), what) == [leaf]


@pytest.mark.parametrize("what", ["abcd123", "ABCD1234", "ab" * 33, "", "…", "abcd123g"])
def test_nothing_else(what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="8 or more digits"):
        audit._leaves(Folder(tmp_path), what)


def test_one_beginning_means_one_receipt() -> None:
    found = [
        audit.Found(verifier="v", entry=None, verdict=verdict(receipt=leaf), note="")
        for leaf in ("ab" * 32, "ab" * 31 + "cd")
    ]
    audit._check_one("abababab", found[:1] * 2)
    audit._check_one("ans_1", found)
    with pytest.raises(ConfigError, match="several"):
        audit._check_one("abababab", found)
