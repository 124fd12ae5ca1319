"""A reader of logs and evidence that shares nothing with Trunkline but the specifications.

Written from C2SP's texts, RFC 6962 and ``docs/spec/``, with the standard library and OpenSSL. It is
short because it checks what is there, and takes no trouble to say what is not: anything odd is an
AssertionError, KeyError or ValueError.
"""

import hashlib
import hmac
import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

REFUSALS = (AssertionError, KeyError, ValueError, IndexError, InvalidSignature)


def sha(*pieces: bytes) -> bytes:
    return hashlib.sha256(b"".join(pieces)).digest()


def leaf(*pieces: bytes) -> bytes:
    return sha(b"\0", *pieces)


def root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha(b"")
    k = 1
    while 2 * k < len(hashes):
        k *= 2
    return sha(b"\1", root(hashes[:k]), root(hashes[k:]))


def climb(hashed: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1.1, upwards: the root that a path leads to."""
    assert 0 <= index < size
    last, rest = size - 1, list(path)
    while last:
        if index % 2 or index < last:
            sibling = rest.pop(0)
            hashed = sha(b"\1", sibling, hashed) if index % 2 else sha(b"\1", hashed, sibling)
        index, last = index // 2, last // 2
    assert not rest
    return hashed


@dataclass(frozen=True)
class Key:
    name: str
    key_id: bytes
    kind: int
    public: bytes

    @classmethod
    def read(cls, vkey: str) -> "Key":
        name, key_id, material = vkey.split("+", 2)
        raw = b64decode(material, validate=True)
        assert sha(name.encode(), b"\n", raw)[:4].hex() == key_id
        return cls(name, bytes.fromhex(key_id), raw[0], raw[1:])

    def check(self, text: bytes, signature: bytes) -> int:
        """Verify, and give a cosignature's time (else 0). InvalidSignature."""
        if self.kind == 1:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
            return 0
        (seconds,) = struct.unpack(">Q", signature[:8])
        if self.kind == 4:
            text = b"cosignature/v1\ntime %d\n" % seconds + text
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature[8:], text)
        else:
            assert self.kind == 6
            origin, size, hashed, *_ = text.split(b"\n")
            name, tree = self.name.encode(), struct.pack(">QQ", 0, int(size)) + b64decode(hashed)
            text = b"subtree/v1\n\0%c%b%b%c%b%b" % (
                len(name), name, signature[:8], len(origin), origin, tree
            )  # fmt: skip
            MLDSA44PublicKey.from_public_bytes(self.public).verify(signature[8:], text)
        return seconds


def signed_by(note: str, keys: Mapping[str, Key]) -> tuple[str, dict[str, int]]:
    """The text of a signed note, and which of the keys signed it, when."""
    text, _, lines = note.rpartition("\n\n")
    text, found = text + "\n", {}
    for line in lines.removesuffix("\n").split("\n"):
        dash, name, material = line.split(" ")
        raw = b64decode(material, validate=True)
        assert dash == "—"
        for alias, key in keys.items():
            if (key.name, key.key_id) == (name, raw[:4]):
                found[alias] = key.check(text.encode(), raw[4:])
    return text, found


@dataclass(frozen=True)
class Policy:
    logs: dict[str, Key]
    witnesses: dict[str, Key]
    groups: list[tuple[str, int, list[str]]]
    quorum: str

    @classmethod
    def read(cls, text: str) -> "Policy":
        policy: dict[str, list[list[str]]] = {"log": [], "witness": [], "group": [], "quorum": []}
        for line in text.split("\n"):
            words = line.split()
            if words and not words[0].startswith("#"):
                policy[words[0]].append(words[1:])
        logs = {words[0]: Key.read(words[0]) for words in policy["log"]}
        witnesses = {words[0]: Key.read(words[1]) for words in policy["witness"]}
        count = {"any": lambda names: 1, "all": len}
        groups = [
            (name, count[k](names) if k in count else int(k), names)
            for name, k, *names in policy["group"]
        ]
        ((quorum,),) = policy["quorum"]
        return cls(logs, witnesses, groups, quorum)

    def open(self, checkpoint: str) -> tuple[int, bytes]:
        """Size and root of a checkpoint that a log signed and a quorum cosigned."""
        text, signers = signed_by(checkpoint, {**self.logs, **self.witnesses})
        origin, size, hashed, *_ = text.split("\n")
        assert any(name in signers and key.name == origin for name, key in self.logs.items())
        seen = signers.keys() & self.witnesses.keys()
        for name, threshold, members in self.groups:
            seen |= {name} if len(seen & set(members)) >= threshold else set()
        assert self.quorum == "none" or self.quorum in seen
        return int(size), b64decode(hashed, validate=True)

    def prove(self, proof: str, entry: bytes) -> None:
        """That a tlog-proof shows the entry in a log."""
        head, _, checkpoint = proof.partition("\n\n")
        first, index, *path = head.split("\n")
        assert (first, index[:6]) == ("c2sp.org/tlog-proof@v1", "index ")
        size, hashed = self.open(checkpoint)
        hashes = [b64decode(line, validate=True) for line in path]
        assert climb(leaf(entry), int(index[6:]), size, hashes) == hashed


def evidence(data: str, policy: Policy, node_keys: set[str]) -> Iterator[dict[str, object]]:
    """The receipts of an evidence file, each signed, in its batch, and that in a log."""
    file = json.loads(data)
    assert file["type"] == "trunkline.evidence/v1"
    for part in file["parts"]:
        signed = part["signed"]
        receipt: dict[str, object] = json.loads(signed["receipt"])
        assert receipt["key"] in node_keys
        assert receipt["answer"] == file["answer"]
        key = Key.read(str(receipt["key"]))
        assert (key.name, key.kind) == (receipt["node"], 1)
        text, signers = signed_by(signed["batch"], {"node": key})
        assert signers
        kind, node, count, batch_root, _, _, *audited = text.removesuffix("\n").split("\n")
        assert (kind, node) == ("trunkline.batch/v1", key.name)
        for first in audited:
            assert 0 <= int(first) <= int(count)
            may = json.loads(signed["receipt"])["policy"].get("audit", False)
            assert may is (signed["index"] < int(first))
        path = [b64decode(item, validate=True) for item in signed["path"]]
        hashed = leaf(b"trunkline.receipt/v1\n", signed["receipt"].encode())
        climbed = climb(hashed, signed["index"], int(count), path)
        assert b64encode(climbed).decode() == batch_root
        assert part["proof"] is not None
        policy.prove(part["proof"], signed["batch"].encode())
        yield receipt


def request_digest(body: bytes) -> bytes:
    return sha(b"trunkline.request/v1\n", body)


def stream_digest(receipt_request: str, attempt: str, chunks: Sequence[str]) -> bytes:
    """Of the events' data; the request as the receipt says it, salted or not."""
    begun = bytes.fromhex(receipt_request.partition(":")[2])
    link = sha(b"trunkline.stream/v1\n", struct.pack(">H", len(attempt)), attempt.encode(), begun)
    for chunk in chunks:
        data = chunk.encode()
        link = sha(b"\1", link, struct.pack(">I", len(data)), data)
    return sha(b"\2", link, struct.pack(">Q", len(chunks)))


def binds(said: str, item: str, digest: bytes, salts: Mapping[str, str]) -> bool:
    """Whether a receipt's digest is this one, opened by the file's salt where it is salted."""
    kind, _, value = said.partition(":")
    if kind == "salted":
        salt = bytes.fromhex(salts[item])
        digest = sha(b"trunkline.commitment/v1\n", item.encode(), b"\n", salt, digest)
    return hmac.compare_digest(value, digest.hex())


def audit(fetch: Callable[[str], bytes], policy: Policy) -> list[bytes]:
    """All entries of a C2SP log, its tiles held against them and its checkpoint."""
    size, hashed = policy.open(fetch("/checkpoint").decode())
    entries: list[bytes] = []
    for index, width in widths(size):
        bundle = fetch(tile_path("entries", index, width))
        at, count = 0, len(entries)
        while at < len(bundle):
            (length,) = struct.unpack_from(">H", bundle, at)
            entries.append(bundle[at + 2 : at + 2 + length])
            at += 2 + length
        assert (at, len(entries) - count) == (len(bundle), width)
    level, hashes = 0, [leaf(entry) for entry in entries]
    assert root(hashes) == hashed
    while hashes:
        for index, width in widths(len(hashes)):
            tile = fetch(tile_path(str(level), index, width))
            assert tile == b"".join(hashes[256 * index : 256 * index + width])
        full = len(hashes) // 256
        hashes = [root(hashes[256 * index : 256 * index + 256]) for index in range(full)]
        level += 1
    return entries


def widths(size: int) -> Iterator[tuple[int, int]]:
    for index in range(-(-size // 256)):
        yield index, min(256, size - 256 * index)


def tile_path(level: str, index: int, width: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03}")
    partial = f".p/{width}" if width < 256 else ""
    return f"/tile/{level}/{'/'.join(groups)}{partial}"
