"""The configuration: what is written is what is read, and mistakes are named."""

from pathlib import Path

import msgspec
import pytest

from trunkline.base.errors import ConfigError, RequestError
from trunkline.gateway.config import GatewayConfig, NodeConfig, read, read_policy, render
from trunkline.gateway.core.deadline import Timeouts, total_s

CONFIG = GatewayConfig(
    listen="127.0.0.1:1",
    data='fold"er\\',
    policy_file="policy",
    log_url="http://127.0.0.1:2",
    nodes=(NodeConfig(url="http://a", vkey="a+b+c"), NodeConfig(url="http://b", vkey="d")),
    timeouts=Timeouts(idle_s=3.5),
    keep_bodies=True,
    routing_file="routing.toml",
)


def test_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(render(CONFIG))
    assert read(path) == CONFIG
    without = msgspec.structs.replace(CONFIG, routing_file=None)
    path.write_text(render(without))
    assert read(path) == without


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("idle_s = 3.5", "idle_s = 0.0"),
        ("keep_bodies = true", "keep_body = true"),
        ("attempts_max = 6", "attempts_max = 0"),
        ('vkey = "d"', 'vkey = "a+b+c"'),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, change: str, says: str) -> None:
    path = tmp_path / "gateway.toml"
    text = render(CONFIG)
    assert change in text
    path.write_text(text.replace(change, says))
    with pytest.raises(ConfigError, match=r"gateway\.toml"):
        read(path)


def test_a_policy_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trunkline init"):
        read_policy(tmp_path / "policy")
    (tmp_path / "policy").write_text("nonsense here\n")
    with pytest.raises(ConfigError, match="policy"):
        read_policy(tmp_path / "policy")


def test_the_callers_deadline_stays_inside_ours() -> None:
    assert total_s(None, Timeouts(total_s=5.0)) == 5.0
    assert total_s("1500", Timeouts(total_s=5.0)) == 1.5
    assert total_s("999999", Timeouts(total_s=5.0)) == 5.0
    assert total_s("9" * 5000, Timeouts(total_s=5.0)) == 5.0
    for wrong in ("", "0", "-5", "1.5", "٣", "000"):
        with pytest.raises(RequestError):
            total_s(wrong, Timeouts())


def test_a_wait_has_a_bound_and_only_the_one_for_somebody_to_come_back_may_be_none() -> None:
    assert Timeouts(away_s=0.0).away_s == 0.0
    for name in Timeouts.__struct_fields__:
        for wrong in (-1.0, 86_401.0, float("nan"), *((0.0,) if name != "away_s" else ())):
            with pytest.raises(ValueError, match=name):
                Timeouts(**{name: wrong})


@pytest.mark.parametrize("listen", ["0.0.0.0:8480", "[::]:8480", "192.0.2.7:8480", "gw:8480"])
def test_other_machines_are_not_let_in_unasked(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "gateway.toml"
    for keys in ("off", "optional", "required"):
        text = render(CONFIG).replace('"127.0.0.1:1"', f'"{listen}"')
        path.write_text(text.replace('keys = "off"', f'keys = "{keys}"'))
        if keys == "required":
            assert read(path).listen == listen
            continue
        with pytest.raises(ConfigError, match="nobody asks who they are"):
            read(path)
        path.write_text(path.read_text().replace("loopback = false", "loopback = true"))
        assert read(path).keys == keys


def test_a_listen_address_from_the_environment_is_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(render(CONFIG))
    monkeypatch.setenv("TRUNKLINE_LISTEN", "0.0.0.0:8480")
    with pytest.raises(ConfigError, match="nobody asks who they are"):
        read(path)


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"])
def test_loopback_needs_no_keys(listen: str) -> None:
    assert msgspec.structs.replace(CONFIG, listen=listen).keys == "off"
