"""The log's configuration: written, read back, and refused where it makes no sense."""

import pytest

from trunkline.base.errors import ConfigError
from trunkline.crypto.signer import Signer
from trunkline.log.app import build
from trunkline.log.config import (
    LogConfig,
    WitnessConfig,
    read,
    render,
    submitter_keys,
    witness_keys,
)

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
WITNESS = Signer.generate("w.example", b"\x02" * 32)
CONFIG = LogConfig(
    origin=LOG.name,
    witnesses=(WitnessConfig(url="http://127.0.0.1:8484", vkey=str(WITNESS.cosigner_vkey)),),
    quorum=1,
    submitters=(str(WITNESS.vkey),),
    crash_points=True,
)


def written(tmp_path, text):
    (tmp_path / "key").write_text(LOG.skey())
    (tmp_path / "key").chmod(0o600)
    path = tmp_path / "log.toml"
    path.write_text(text)
    return path


def test_it_reads_back(tmp_path):
    path = written(tmp_path, render(CONFIG))
    assert read(path) == CONFIG
    assert build(path)[1] == CONFIG
    assert witness_keys(CONFIG) == (WITNESS.cosigner_vkey,)
    assert submitter_keys(CONFIG) == (WITNESS.vkey,)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("quorum = 1", "quorum = 2"), "quorum"),
        (("quorum = 1", "quorum = -1"), "quorum"),
        (('"trunkline.key/v1", ', '"", '), "entry_types"),
        (("checkpoint_interval_ms = 200", "checkpoint_interval_ms = -1"), "checkpoint_interval"),
        (("quorum_window_s = 10.0", "quorum_window_s = 1e9"), "quorum_window_s"),
        (("pending_entries_max = 4096", "pending_entries_max = 0"), "bound"),
        (("shutdown_grace_s = 10.0", "shutdown_grace_s = -1"), "shutdown_grace_s"),
        (("listen =", "listne ="), "listne"),
        (('"gamma.example/log"', '"other.example/log"'), "key origin"),
        (('key_file = "key"', 'key_file = "log.toml"'), "others can read|private key"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, change, why):
    text = render(CONFIG)
    assert change[0] in text
    with pytest.raises(ConfigError, match=why):
        build(written(tmp_path, text.replace(*change)))


@pytest.mark.parametrize(
    "witnesses",
    [
        (WitnessConfig(url="http://w", vkey="nonsense"),),
        (WitnessConfig(url="http://w", vkey=str(WITNESS.vkey)),),
        (WitnessConfig(url="http://w", vkey=str(WITNESS.cosigner_vkey)),) * 2,
    ],
)
def test_wrong_witness_keys_are_named(witnesses):
    with pytest.raises(ConfigError, match="witnesses"):
        witness_keys(LogConfig(origin=LOG.name, witnesses=witnesses))
