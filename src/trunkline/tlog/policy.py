"""Trust policies (C2SP tlog-policy): which logs, which witnesses, and which sets are enough.

The file is octets, not characters: names and URLs outside ASCII are opaque and compared as bytes
(held here as surrogate-escaped strings). It refuses what it can not honour, key types included.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from re import compile as regex
from typing import Self

from trunkline.base.errors import MalformedError, QuorumError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.encoding import decode_decimal
from trunkline.crypto.keys import CHECKPOINT_SIGNING, COSIGNING, VerifierKey
from trunkline.tlog import cosignature
from trunkline.tlog.checkpoint import Checkpoint

POLICY_BYTES_MAX = 256 * 1024
DEFINITIONS_MAX = 256
"""Logs, witnesses and groups together; the specification asks for 32 of each."""
NO_QUORUM = "none"

_FORBIDDEN = regex(rb"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLog:
    key: VerifierKey
    """Its name is the log's origin."""
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWitness:
    name: str
    """The policy's own name for it."""
    key: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGroup:
    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A checkpoint that a policy accepts, and what for."""

    checkpoint: Checkpoint
    log_key: VerifierKey
    """The key that signed it."""
    witnesses: tuple[tuple[str, int], ...]
    """Policy name and Unix seconds of every known witness's cosignature, in the policy's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A parsed policy file."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    """Each after the groups it names."""
    quorum: str
    """A witness's or a group's name, or ``none``."""

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Read a policy file; MalformedError naming the line."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        if len(data) > POLICY_BYTES_MAX:
            raise MalformedError("policy too long")
        if _FORBIDDEN.search(data) is not None:
            raise MalformedError("a policy holds no control characters but tab and newline")
        reader = _Reader()
        for number, line in enumerate(data.split(b"\n"), start=1):
            try:
                reader.read_line(line)
            except MalformedError as error:
                raise MalformedError(f"policy line {number}: {error.message}") from error
        if reader.quorum is None:
            raise MalformedError("policy: no quorum line")
        return cls(
            logs=tuple(reader.logs),
            witnesses=tuple(reader.witnesses),
            groups=tuple(reader.groups),
            quorum=reader.quorum,
        )

    def is_quorum(self, witnesses: AbstractSet[str]) -> bool:
        """Whether cosignatures by these witnesses (policy names) are enough."""
        if self.quorum == NO_QUORUM:
            return True
        witnessed = set(witnesses)
        for group in self.groups:
            if len(witnessed.intersection(group.members)) >= group.threshold:
                witnessed.add(group.name)
        return self.quorum in witnessed

    def accepts(self, checkpoint_note: bytes, *, log_key: VerifierKey | None = None) -> Accepted:
        """The checkpoint, if one of the logs signed it and a quorum of witnesses cosigned it.

        ``log_key`` stands in for the policy's logs where the log is known from elsewhere.
        Raises MalformedError; SignatureError for an unknown log, or any bad signature by a key
        that the policy knows; QuorumError when the cosignatures are not enough.
        """
        parsed = note.parse(checkpoint_note)
        checkpoint = Checkpoint.parse(parsed.text)
        signer = self._verified_log(parsed, checkpoint.origin, log_key)
        return Accepted(checkpoint=checkpoint, log_key=signer, witnesses=self._quorum_of(parsed))

    def signed(self, checkpoint_note: bytes) -> Checkpoint:
        """The checkpoint, if one of the logs signed it: nothing is said of witnesses.

        Raises MalformedError or SignatureError as :meth:`accepts` does.
        """
        parsed = note.parse(checkpoint_note)
        checkpoint = Checkpoint.parse(parsed.text)
        self._verified_log(parsed, checkpoint.origin, None)
        return checkpoint

    def cosigned(self, checkpoint_note: bytes) -> tuple[tuple[str, int], ...]:
        """The witnesses that cosigned a checkpoint, as in :class:`Accepted`, if they are a quorum.
        Says nothing of logs: for a checkpoint that :meth:`signed` gave.

        Raises MalformedError, SignatureError or QuorumError as :meth:`accepts` does.
        """
        return self._quorum_of(note.parse(checkpoint_note))

    def _quorum_of(self, parsed: note.Note) -> tuple[tuple[str, int], ...]:
        found = tuple(
            (witness.name, cosignature.verify(parsed, witness.key))
            for witness in self.witnesses
            if any(line.is_by(witness.key) for line in parsed.signatures)
        )
        if not self.is_quorum({name for name, _ in found}):
            raise QuorumError(f"{len(found)} known witnesses cosigned: not a quorum")
        return found

    def _verified_log(
        self, parsed: note.Note, origin: str, log_key: VerifierKey | None
    ) -> VerifierKey:
        keys = [log.key for log in self.logs] if log_key is None else [log_key]
        signers = [
            key
            for key in keys
            if key.name == origin and any(line.is_by(key) for line in parsed.signatures)
        ]
        for key in signers:
            parsed.verify(key)
        if not signers:
            raise SignatureError("not signed by a log that the policy knows")
        return signers[0]


@dataclass(slots=True)
class _Reader:
    """What has been defined by the lines so far."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: list[PolicyGroup] = field(default_factory=list)
    quorum: str | None = None
    names: set[str] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)

    def read_line(self, line: bytes) -> None:
        words = [word.decode("utf-8", "surrogateescape") for word in line.split()]
        if not words or words[0].startswith("#"):
            return
        if len(self.logs) + len(self.names) >= DEFINITIONS_MAX:
            raise MalformedError(f"more than {DEFINITIONS_MAX} definitions")
        readers: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }
        reader = readers.get(words[0])
        if reader is None:
            raise MalformedError("a line is a log, a witness, a group or the quorum")
        reader(words[1:])

    def _log(self, words: list[str]) -> None:
        if len(words) not in (1, 2):
            raise MalformedError("log <vkey> [<url>]")
        key = _key(words[0], CHECKPOINT_SIGNING)
        if any(key.public == log.key.public for log in self.logs):
            raise MalformedError("this log's key is listed already")
        self.logs.append(PolicyLog(key=key, url=words[1] if len(words) == 2 else None))

    def _witness(self, words: list[str]) -> None:
        if len(words) not in (2, 3):
            raise MalformedError("witness <name> <vkey> [<url>]")
        key = _key(words[1], COSIGNING)
        if any(key.public == witness.key.public for witness in self.witnesses):
            raise MalformedError("this witness's key is listed already")
        self._define(words[0])
        url = words[2] if len(words) == 3 else None
        self.witnesses.append(PolicyWitness(name=words[0], key=key, url=url))

    def _group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise MalformedError("group <name> all|any|<k> <name>…")
        name, rule, *members = words
        for member in members:
            if member not in self.names:
                raise MalformedError("a group's members are defined above it")
            if member in self.grouped:
                raise MalformedError("a name is a member of one group, once")
            self.grouped.add(member)
        threshold = {"any": 1, "all": len(members)}.get(rule)
        if threshold is None:
            threshold = decode_decimal(rule.encode("utf-8", "surrogateescape"))
        if not 1 <= threshold <= len(members):
            raise MalformedError("a group's threshold is between 1 and its members' number")
        self._define(name)
        self.groups.append(PolicyGroup(name=name, threshold=threshold, members=tuple(members)))

    def _quorum(self, words: list[str]) -> None:
        if len(words) != 1:
            raise MalformedError("quorum <name>")
        if self.quorum is not None:
            raise MalformedError("a policy has one quorum line")
        if words[0] != NO_QUORUM and words[0] not in self.names:
            raise MalformedError("the quorum's name is defined above it")
        self.quorum = words[0]

    def _define(self, name: str) -> None:
        if name == NO_QUORUM or name in self.names:
            raise MalformedError("this name is taken")
        self.names.add(name)


def _key(vkey: str, algorithms: tuple[int, ...]) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.algorithm not in algorithms:
        names = " or ".join(f"0x{one:02x}" for one in algorithms)
        raise MalformedError(f"the key's type is not {names}")
    return key
