"""A receipt's verdict by the first digits of its leaf: the one that is meant, or nothing."""

from pathlib import Path

import pytest
from tests.support.fake_verifier import RoutedApp
from tests.support.verifier_hand import VerifierHand

from trunkline.base.errors import UpstreamError
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.status import CONFLICT, NOT_FOUND
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.http import Router
from trunkline.runtime.server import serving
from trunkline.runtime.store import Connection
from trunkline.schema.audit import AskedAudit, AskedVerdict, RevealedVerdict, VerifierInfo
from trunkline.verifier import store
from trunkline.verifier.api import Api, reply_error

LEAVES = ("ab" * 32, "ab" * 20 + "cd" * 12, "12" * 32)
HIDDEN = "77" * 32


def insert(connection: Connection, leaf: str, number: int | None, *, picked: int = 0) -> None:
    columns = {
        name: b"" if kind == "BLOB" else 0 if kind == "INTEGER" else "x"
        for _, name, kind, needed, *_ in connection.execute("PRAGMA table_info(verdicts)")
        if needed
    }
    columns |= {"leaf": leaf, "number": number, "picked": picked, "note": b"%d" % (number or 0)}
    columns |= {"root": leaf.encode() + b"%d" % picked, "digest": f"{leaf} {picked}"}
    names, places = ", ".join(columns), ", ".join("?" * len(columns))
    statement = f"INSERT INTO verdicts ({names}) VALUES ({places})"  # noqa: S608 - of the schema
    connection.execute(statement, tuple(columns.values()))


@pytest.mark.parametrize(
    ("begins", "found"),
    [
        (LEAVES[0], 1),
        ("ab" * 21, 1),
        ("ab" * 20 + "c", 2),
        ("12" * 4, 3),
        ("12" * 32, 3),
        ("ab" * 4, CONFLICT),
        ("ab" * 20, CONFLICT),
        ("12" * 3, NOT_FOUND),
        ("99" * 4, NOT_FOUND),
        ("77" * 4, NOT_FOUND),
        ("12" * 3 + "1_", NOT_FOUND),
        ("12" * 33, NOT_FOUND),
    ],
)
async def test_the_one_that_is_meant(begins: str, found: int | str, tmp_path: Path) -> None:
    store.create_store(tmp_path)
    database = store.open_store(tmp_path)

    def fill(connection: Connection) -> None:
        for number, leaf in enumerate(LEAVES, 1):
            insert(connection, leaf, number)
        insert(connection, LEAVES[2], 9, picked=1)
        insert(connection, HIDDEN, None)

    await database.write(fill)
    api = Api(lambda: database, no_info, no_audit, VerifierHand("any").signer, asked_max=1)
    router = Router(reply_error)
    api.add_routes(router)
    transport = HttpTransport()
    try:
        async with serving(RoutedApp(router), shutdown_grace_s=0.05) as url:
            said = await asked(VerifierCaller(transport, url), begins)
    finally:
        await transport.aclose()
        await database.aclose()
    assert (said.number if isinstance(said, RevealedVerdict) else said) == found
    if isinstance(said, RevealedVerdict):
        assert said.receipt.startswith(begins)


async def asked(caller: VerifierCaller, begins: str) -> RevealedVerdict | str:
    try:
        return await caller.verdict(begins)
    except UpstreamError as error:
        return error.error_code


async def no_info() -> VerifierInfo:
    raise AssertionError("nobody asked for that")


async def no_audit(asked: AskedAudit) -> AskedVerdict:
    raise AssertionError(f"nobody asked for that: {asked.deadline_ms}")
