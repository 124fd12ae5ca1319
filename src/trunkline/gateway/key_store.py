"""The store of virtual keys: names, validity, and hashes of secrets. Never a secret.

One SQLite file beside the evidence, open in several processes at once: the gateway reads it, and
``trunkline keys`` changes it while the gateway runs, through no door but the file system's own
permissions. It is a file of its own so that an administrator's command, stopped half-way, can not
keep an answer's evidence from the disk.

A secret is 256 random bits, so its plain SHA-256 tells nobody anything: there is no guessing
through it, which slow hashes are for, and a call is not made to wait for one.
"""

from hashlib import sha256
from pathlib import Path
from sqlite3 import IntegrityError
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, CorruptStateError, Error
from trunkline.runtime.store import Connection, Database

FILE: Final = "keys.db"
KEYS_MAX: Final = 10_000

MIGRATIONS: Final = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        expires_ms INTEGER,
        revoked_ms INTEGER
    ) STRICT;
    CREATE UNIQUE INDEX keys_in_force ON keys (name) WHERE revoked_ms IS NULL;
    CREATE TABLE secrets (
        digest BLOB PRIMARY KEY,
        key TEXT NOT NULL REFERENCES keys (id),
        created_ms INTEGER NOT NULL,
        ends_ms INTEGER
    ) STRICT;
    CREATE TABLE revision (number INTEGER NOT NULL) STRICT;
    INSERT INTO revision VALUES (0);
    """,
)

_IN_FORCE: Final = "SELECT id FROM keys WHERE name = ? AND revoked_ms IS NULL"


class KeyConflictError(Error):
    """There is no such key, or there is one already."""

    code = "key_conflict"


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One virtual key."""

    id: str
    """The tenant's id: stable when the secret is rotated."""
    name: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """One secret that may be in force, and whose it is. Times are Unix milliseconds."""

    digest: bytes
    tenant: str
    name: str
    ends_ms: int | None
    """When it ends, by its key's expiry or its own rotation, whichever is first; None: never."""


def digest_of(secret: str) -> bytes:
    """What is stored of a secret, and looked up by."""
    return sha256(secret.encode("utf-8")).digest()


class KeyStore:
    """Typed access. Every change is durable when its call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, data: Path, *, create: bool = False) -> "KeyStore":
        """Open the store in the folder ``data``. ``create``: make it if it is missing, in a folder
        that exists. Raises :class:`ConfigError`."""
        path = data / FILE
        if create and not data.is_dir():
            raise ConfigError(f"{data}: no such folder; `trunkline init` creates it")
        if not create and not path.exists():
            raise ConfigError(f"{path}: there are no keys yet; `trunkline keys create` makes one")
        database = Database.open(path, must_exist=not create, migrations=MIGRATIONS, shared=True)
        return cls(database)

    async def close(self) -> None:
        await self._database.aclose()

    async def create(self, row: KeyRow, digest: bytes) -> None:
        """Add a key and its first secret. Raises :class:`KeyConflictError` if the name is taken."""

        def work(connection: Connection) -> None:
            if connection.execute("SELECT COUNT(*) FROM keys").fetchone()[0] >= KEYS_MAX:
                raise KeyConflictError(f"there are {KEYS_MAX} keys; that is all that fit")
            try:
                connection.execute(
                    "INSERT INTO keys VALUES (?, ?, ?, ?, ?)", msgspec.structs.astuple(row)
                )
            except IntegrityError:
                raise KeyConflictError(
                    f"a key named {row.name} is in force; rotate or revoke it"
                ) from None
            _add_secret(connection, row.id, digest, row.created_ms)

        await self._database.write(work)

    async def rotate(self, name: str, digest: bytes, now_ms: int, old_ends_ms: int) -> str:
        """Give a key a new secret; the old ones end at ``old_ends_ms``. Returns the key's id.
        Raises :class:`KeyConflictError` if no such key is in force."""

        def work(connection: Connection) -> str:
            key = _in_force(connection, name)
            connection.execute(
                "UPDATE secrets SET ends_ms = MIN(COALESCE(ends_ms, ?1), ?1) WHERE key = ?2",
                (old_ends_ms, key),
            )
            _add_secret(connection, key, digest, now_ms)
            return key

        return await self._database.write(work)

    async def revoke(self, name: str, now_ms: int) -> str:
        """End a key for good; its name is free again. Returns its id. Raises
        :class:`KeyConflictError` if no such key is in force."""

        def work(connection: Connection) -> str:
            key = _in_force(connection, name)
            connection.execute("UPDATE keys SET revoked_ms = ? WHERE id = ?", (now_ms, key))
            connection.execute("DELETE FROM secrets WHERE key = ?", (key,))
            _changed(connection)
            return key

        return await self._database.write(work)

    async def all(self) -> list[KeyRow]:
        """Every key there ever was, the oldest first."""

        def work(connection: Connection) -> list[KeyRow]:
            rows = connection.execute("SELECT * FROM keys ORDER BY created_ms, id").fetchall()
            return [_key_row(row) for row in rows]

        return await self._database.read(work)

    async def changed_since(self, revision: int) -> tuple[int, list[Credential]] | None:
        """The store's revision and all secrets not revoked; None if it is still at ``revision``."""

        def work(connection: Connection) -> tuple[int, list[Credential]] | None:
            number: int = connection.execute("SELECT number FROM revision").fetchone()[0]
            if number == revision:
                return None
            rows = connection.execute(
                "SELECT digest, keys.id, name, ends_ms, expires_ms FROM secrets"
                " JOIN keys ON keys.id = secrets.key WHERE revoked_ms IS NULL"
            ).fetchall()
            return number, [_credential(*row) for row in rows]

        return await self._database.read(work)


def _in_force(connection: Connection, name: str) -> str:
    row = connection.execute(_IN_FORCE, (name,)).fetchone()
    if row is None:
        raise KeyConflictError(f"no key named {name} is in force; see `trunkline keys ls`")
    return str(row[0])


def _add_secret(connection: Connection, key: str, digest: bytes, now_ms: int) -> None:
    # Secrets that ended are of no use to anybody: a key rotated every hour must not grow for ever.
    connection.execute("DELETE FROM secrets WHERE key = ? AND ends_ms <= ?", (key, now_ms))
    connection.execute("INSERT INTO secrets VALUES (?, ?, ?, NULL)", (digest, key, now_ms))
    _changed(connection)


def _changed(connection: Connection) -> None:
    connection.execute("UPDATE revision SET number = number + 1")


def _key_row(row: tuple[object, ...]) -> KeyRow:
    try:
        return msgspec.convert(dict(zip(KeyRow.__struct_fields__, row, strict=True)), KeyRow)
    except (msgspec.ValidationError, ValueError):
        raise CorruptStateError("a row in the store of keys is not readable") from None


def _credential(
    digest: bytes, tenant: str, name: str, ends_ms: int | None, expires_ms: int | None
) -> Credential:
    ends = [end for end in (ends_ms, expires_ms) if end is not None]
    return Credential(digest=digest, tenant=tenant, name=name, ends_ms=min(ends, default=None))
