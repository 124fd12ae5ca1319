"""Whose key a node may sign with: the pinned one, or what its pinned operator states for now."""

import msgspec
import pytest

from trunkline.base.errors import ConfigError, SignatureError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.gateway.core.pins import Pin
from trunkline.receipts.key_statement import KeyStatement, Revocation
from trunkline.schema.attempt import NodeInfo

OPERATOR = Signer.generate("alpha.example", bytes([1]) * 32)
STRANGER = Signer.generate("alpha.example", bytes([2]) * 32)
OLD = Signer.generate("alpha.example/node", bytes([3]) * 32)
NEW = Signer.generate("alpha.example/node", bytes([4]) * 32)
ELSE = Signer.generate("alpha.example/other", bytes([5]) * 32)
NOW_S = 1_000


def statement(
    node: Signer = NEW, by: Signer = OPERATOR, from_s: int = 900, to_s: int = 1_100
) -> str:
    said = KeyStatement(operator=by.name, key=str(node.vkey), from_s=from_s, to_s=to_s)
    return sign_note(said.text(), by).decode()


def revocation(from_s: int, node: Signer = NEW) -> str:
    said = Revocation(operator=OPERATOR.name, key=str(node.vkey), from_s=from_s)
    return sign_note(said.text(), OPERATOR).decode()


def info(key_of: Signer, *statements: str, **more: str) -> NodeInfo:
    made = NodeInfo(
        node=OLD.name, operator=OPERATOR.name, key=str(key_of.vkey), models=(), log=None,
        ready=True, running=0, queued=0, statements=statements,
    )  # fmt: skip
    return msgspec.structs.replace(made, **more)


def pin(*, vkey: str = "", operator_vkey: str = "", name: str = "") -> Pin:
    return Pin.of(url="http://node", vkey=vkey, operator_vkey=operator_vkey, name=name)


KEY_ONLY = pin(vkey=str(OLD.vkey))
BOTH = pin(vkey=str(OLD.vkey), operator_vkey=str(OPERATOR.vkey))
OPERATOR_ONLY = pin(operator_vkey=str(OPERATOR.vkey), name=OLD.name)


def test_the_pinned_key_counts() -> None:
    for one in (KEY_ONLY, BOTH):
        assert one.accept(info(OLD), NOW_S) == OLD.vkey


def test_a_stated_key_counts() -> None:
    for one in (BOTH, OPERATOR_ONLY):
        assert one.accept(info(NEW, "nonsense", statement()), NOW_S) == NEW.vkey
    assert OPERATOR_ONLY.accept(info(OLD, statement(OLD)), NOW_S) == OLD.vkey


@pytest.mark.parametrize(
    "shown",
    [
        info(NEW),
        info(NEW, statement(OLD)),
        info(NEW, statement(by=STRANGER)),
        info(NEW, statement(from_s=NOW_S + 1)),
        info(NEW, statement(to_s=NOW_S)),
        info(NEW, statement(), revocation(NOW_S)),
        info(NEW, statement(), operator="beta.example"),
        info(NEW, statement(), node="alpha.example/other"),
        info(ELSE, statement(ELSE)),
        info(NEW, statement(), key="nonsense"),
        info(NEW, statement().replace("1100", "9999")),
        info(NEW, "\ud800"),
    ],
    ids=[
        "unsaid", "another key", "another operator's key", "not yet", "no more", "revoked",
        "another operator", "another node", "another node's key", "no key", "altered", "no text",
    ],
)  # fmt: skip
def test_what_the_operator_does_not_state_does_not_count(shown: NodeInfo) -> None:
    for one in (BOTH, OPERATOR_ONLY):
        with pytest.raises(SignatureError) as caught:
            one.accept(shown, NOW_S)
        assert caught.value.error_code == "wrong_key"


def test_without_an_operator_no_statement_counts() -> None:
    with pytest.raises(SignatureError):
        KEY_ONLY.accept(info(NEW, statement()), NOW_S)


def test_a_revocation_to_come_and_one_of_another_key_change_nothing() -> None:
    shown = info(NEW, statement(), revocation(NOW_S + 1), revocation(0, OLD))
    assert BOTH.accept(shown, NOW_S) == NEW.vkey


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"name": OLD.name},
        {"operator_vkey": str(OPERATOR.vkey)},
        {"vkey": "nonsense"},
        {"vkey": str(OLD.vkey), "operator_vkey": "nonsense"},
        {"vkey": str(OLD.vkey), "name": "alpha.example/other"},
    ],
)
def test_a_node_that_is_not_pinned_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        pin(**given)
