"""Checks a log against itself: every entry, every tile, every checkpoint, the index.

Recomputes the whole tree from the entries, one bundle at a time, so memory stays flat. Reads only.
It says what is wrong by the file's name; it repairs nothing. Run beside a running log it is right
too: files beyond the size that it read first are counted, not judged.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.base.errors import ConfigError, CorruptStateError, Error, MalformedError
from trunkline.crypto import merkle
from trunkline.crypto.keys import VerifierKey
from trunkline.log.core.tree import Tree, grow
from trunkline.log.files import Folder
from trunkline.log.store import DATABASE_NAME, Current, find, read_current, read_recent
from trunkline.log.tiles import Tiles
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.tile import TILE_HEIGHT, TILE_WIDTH, Tile, decode_bundle, levels, tile_at

PROBLEMS_MAX = 1000


@dataclass(slots=True)
class Report:
    """What was found."""

    origin: str = ""
    size: int = 0
    """Entries in the log, all of which were checked."""
    files: int = 0
    """Tiles and bundles checked."""
    leftovers: int = 0
    """Files beyond the size: a round that crashed or is under way. Not served, not judged."""
    problems: list[str] = field(default_factory=list)
    """What is wrong, each naming its file. Empty: the log is sound."""

    @property
    def sound(self) -> bool:
        return not self.problems

    def problem(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


def fsck(data: Path, tiles: Tiles | None = None) -> Report:
    """Check the log in the folder ``data``. ConfigError if there is none. Blocks.

    ``tiles``: where its tiles are, if not there.
    """
    path = data / DATABASE_NAME
    if not path.exists():
        raise ConfigError(f"{path}: no such store")
    report = Report()
    try:
        with closing(_open(path)) as connection:
            _check(connection, data, tiles or Folder(data), report)
    except sqlite3.Error as error:
        report.problem(f"{DATABASE_NAME}: {error}")
    return report


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA query_only=ON")
    return connection


def _check(connection: sqlite3.Connection, data: Path, tiles: Tiles, report: Report) -> None:
    # One snapshot: a running log may go on growing meanwhile.
    connection.execute("BEGIN")
    for (line,) in connection.execute("PRAGMA quick_check"):
        if line != "ok":
            report.problem(f"{DATABASE_NAME}: {line}")
    current = read_current(connection, data / DATABASE_NAME)
    report.size = current.size
    checkpoint = _check_checkpoint(current, report)
    if checkpoint is None:
        return
    report.origin = checkpoint.origin
    key = VerifierKey.parse(current.vkey)
    checker = _Checker(connection, tiles, current.size, report)
    roots = checker.check_tree()
    if roots.get(current.size) != checkpoint.root:
        report.problem(f"{DATABASE_NAME}: the entries do not have the checkpoint's root")
    checker.check_index()
    checker.check_names()
    _check_published(tiles, key, current, roots, report)


def _check_checkpoint(current: Current, report: Report) -> Checkpoint | None:
    try:
        checkpoint = open_checkpoint(current.checkpoint, VerifierKey.parse(current.vkey))
    except Error as error:
        report.problem(f"{DATABASE_NAME}: its checkpoint: {error.message}")
        return None
    if checkpoint.size != current.size:
        report.problem(f"{DATABASE_NAME}: its size is not that of its checkpoint")
    return checkpoint


def _check_published(
    tiles: Tiles, key: VerifierKey, current: Current, roots: dict[int, bytes], report: Report
) -> None:
    """The published checkpoint is this log's, and of the tree on disk at its size."""
    note_bytes = tiles.read_checkpoint()
    if note_bytes is None:
        report.problem("checkpoint: missing")
        return
    try:
        published = open_checkpoint(note_bytes, key)
    except Error as error:
        report.problem(f"checkpoint: {error.message}")
        return
    if published.size > current.size:
        # It is written after the database: only an old copy of that explains it.
        report.problem(f"checkpoint: its size {published.size} is beyond the database's")
    elif published.size in roots and roots[published.size] != published.root:
        report.problem("checkpoint: its root is not that of the entries")


class _Checker:
    """Walks the tree bundle by bundle."""

    def __init__(
        self, connection: sqlite3.Connection, tiles: Tiles, size: int, report: Report
    ) -> None:
        self._connection = connection
        self._recent = read_recent(connection)
        self._tiles = tiles
        self._size = size
        self._report = report

    def check_tree(self) -> dict[int, bytes]:
        """Compare every file with what the entries make of it. Returns the final root, and that
        of the published size, by size."""
        wanted = self._published_size()
        roots = {0: merkle.EMPTY_ROOT}
        tree = Tree()
        for index in range(-(-self._size // TILE_WIDTH)):
            bundle = tile_at(None, index, self._size)
            entries = self._entries(bundle)
            if entries is None:
                # Without these entries nothing to the right of them can be computed.
                return roots
            leaves = [merkle.leaf_hash(entry) for entry in entries]
            self._check_indexed(bundle, leaves)
            offset = wanted - bundle.start
            if 0 < offset < bundle.width:
                roots[wanted] = grow(tree, entries[:offset], leaves[:offset]).tree.root()
            growth = grow(tree, entries, leaves)
            tree = growth.tree
            for tile, expected in growth.files:
                if tile == tile_at(tile.level, tile.index, self._size):
                    self._check_file(tile, expected)
            if tree.size in (wanted, self._size):
                roots[tree.size] = tree.root()
        return roots

    def _published_size(self) -> int:
        note_bytes = self._tiles.read_checkpoint()
        try:
            text = (note_bytes or b"").rpartition(b"\n\n")[0] + b"\n"
            return Checkpoint.parse(text).size
        except MalformedError:
            return 0

    def _entries(self, bundle: Tile) -> tuple[bytes, ...] | None:
        data = self._read(bundle)
        if data is None:
            return None
        try:
            return decode_bundle(data, bundle.width)
        except MalformedError as error:
            self._report.problem(f"{bundle.path}: {error.message}")
            return None

    def _check_file(self, tile: Tile, expected: bytes) -> None:
        self._report.files += 1
        data = expected if tile.level is None else self._read(tile)
        if data is not None and data != expected:
            self._report.problem(f"{tile.path}: not the hashes of its entries")
        for width in self._tiles.partial_widths(tile):
            if width < tile.width:
                self._check_partial(Tile(level=tile.level, index=tile.index, width=width), expected)

    def _check_partial(self, partial: Tile, expected: bytes) -> None:
        """A narrower file of the same tile, kept by a crash, must be its beginning."""
        self._report.files += 1
        data = self._read(partial)
        if data is not None and not (data and expected.startswith(data)):
            self._report.problem(f"{partial.path}: not the beginning of its tile")

    def _read(self, tile: Tile) -> bytes | None:
        try:
            return self._tiles.read_tile(tile)
        except FileNotFoundError:
            self._report.problem(f"{tile.path}: missing")
        except CorruptStateError as error:
            self._report.problem(error.message)
        except OSError as error:
            self._report.problem(f"{tile.path}: {error.strerror}")
        return None

    def _check_indexed(self, bundle: Tile, leaves: list[bytes]) -> None:
        """The index knows each entry by its place."""
        known = find(self._connection, self._recent, leaves)
        for number, leaf in enumerate(leaves):
            index = bundle.start + number
            if known.get(leaf) != index:
                self._report.problem(f"{DATABASE_NAME}: the index misplaces entry {index}")

    def check_index(self) -> None:
        """The index knows nothing else."""
        (count,) = self._connection.execute("SELECT count(*) FROM places").fetchone()
        count += len(self._recent)
        if count != self._size:
            self._report.problem(f"{DATABASE_NAME}: {count} indexed entries, not {self._size}")

    def check_names(self) -> None:
        """Every file under ``tile/`` is a tile of this tree, or beyond it."""
        for name in self._tiles.names():
            try:
                tile = Tile.parse(name)
            except MalformedError:
                self._report.problem(f"{name}: not a tile's name")
                continue
            if (tile.level or 0) >= max(levels(self._size), 1) or self._beyond(tile):
                self._report.leftovers += 1

    def _beyond(self, tile: Tile) -> bool:
        hashes = self._size >> TILE_HEIGHT * (tile.level or 0)
        return tile.index * TILE_WIDTH + tile.width > hashes
