"""Writes the vectors of ``docs/spec/receipt.md``.

    python -m tests.unit.receipts.make_vectors     writes docs/spec/receipt-vectors.json

The expected values are computed here with ``rfc8785`` and ``hashlib`` straight from the text of the
specification, not with Trunkline's own code; a test holds both against the file.
"""

import hmac
import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import rfc8785
from nacl.signing import SigningKey

VECTORS = Path(__file__).parents[3] / "docs" / "spec" / "receipt-vectors.json"

NAME = "alpha.example/node"
SEED = bytes([1]) * 32
BLINDING = bytes([0xB1]) * 32
MATERIAL = b"\x01" + bytes(SigningKey(SEED).verify_key)
KEY_ID = sha256(NAME.encode() + b"\n" + MATERIAL).digest()[:4]
VKEY = f"{NAME}+{KEY_ID.hex()}+{b64encode(MATERIAL).decode()}"

REQUEST = '{"model":"tiny","messages":[]}'
CHUNKS = ['{"choices":[]}', '{"content":"né"}', "{}"]


def digest(data: bytes) -> str:
    return "sha256:" + sha256(data).hexdigest()


def u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def stream(request: str, attempt: str, chunks: Sequence[str]) -> str:
    head = b"trunkline.stream/v1\n" + len(attempt).to_bytes(2, "big") + attempt.encode()
    link = sha256(head + bytes.fromhex(request.removeprefix("sha256:"))).digest()
    for chunk in chunks:
        data = chunk.encode()
        link = sha256(b"\x01" + link + len(data).to_bytes(4, "big") + data).digest()
    return digest(b"\x02" + link + len(chunks).to_bytes(8, "big"))


def tokens(choices: Sequence[Sequence[int]]) -> str:
    data = b"trunkline.tokens/v1\n" + u32(len(choices))
    for ids in choices:
        data += u32(len(ids)) + b"".join(map(u32, ids))
    return digest(data)


def salt(item: str, scope: str) -> str:
    message = f"trunkline.salt/v1\n{item}\n{scope}".encode()
    return hmac.new(BLINDING, message, "sha256").hexdigest()


def commitment(item: str, plain: str, scope: str) -> str:
    data = f"trunkline.commitment/v1\n{item}\n".encode() + bytes.fromhex(salt(item, scope))
    return "salted:" + sha256(data + bytes.fromhex(plain.removeprefix("sha256:"))).hexdigest()


def salted() -> dict[str, object]:
    """The first receipt again, as it is where the gateway drew a blinding."""
    attempt, answer = "att_1", "ans_1"
    plain = digest(b"trunkline.request/v1\n" + REQUEST.encode())
    request = commitment("request.digest", plain, answer)
    stream_end = stream(request.replace("salted:", "sha256:"), attempt, CHUNKS)
    base = receipt(1)
    response = base["response"]
    assert isinstance(response, dict)
    item = base | {
        "request": {
            "client": commitment("request.client", plain, answer),
            "digest": request,
            "format": "openai.chat",
        },
        "response": response | {"digest": commitment("response.digest", stream_end, attempt)},
    }
    return {
        "blinding": BLINDING.hex(),
        "receipt": rfc8785.dumps(item).decode(),
        "items": [
            {"item": "request.client", "digest": plain, "salt": salt("request.client", answer)},
            {"item": "request.digest", "digest": plain, "salt": salt("request.digest", answer)},
            {
                "item": "response.digest",
                "digest": stream_end,
                "salt": salt("response.digest", attempt),
            },
        ],
    }


def cached() -> dict[str, object]:
    """An answer that the node had given before."""
    item = receipt(4, cached={"ended_ms": 3, "receipt": "0f" * 32})
    data = rfc8785.dumps(item)
    leaf = sha256(b"\x00trunkline.receipt/v1\n" + data).hexdigest()
    return {"receipt": data.decode(), "leaf": leaf}


def prefix(text: str) -> str:
    return digest(b"trunkline.prefix/v1\n" + text.encode())


def receipt(number: int, **changes: object) -> dict[str, object]:
    request = digest(b"trunkline.request/v1\n" + REQUEST.encode())
    attempt = f"att_{number}"
    return {
        "answer": f"ans_{number}",
        "attempt": attempt,
        "created_s": 1_780_000_000,
        "key": VKEY,
        "model": {"provider": "embedded", "requested": "tiny", "served": "tiny-1"},
        "node": NAME,
        "operator": "alpha.example",
        "policy": {"mode": "batched"},
        "previous": "",
        "request": {"client": request, "digest": request, "format": "openai.chat"},
        "response": {
            "chunks": len(CHUNKS),
            "digest": stream(request, attempt, CHUNKS),
            "finish": ["stop"],
            "status": 200,
        },
        "route": [],
        "salt": f"{number:02x}" * 32,
        "sampling": {"caller_nonce": "ca" * 32, "source": "none"},
        "times": {"arrived_ms": 1, "ended_ms": 3, "first_token_ms": 2},
        "type": "trunkline.receipt/v1",
        "usage": {"completion": 2, "counted": True, "prompt": 1},
    } | changes


def batch() -> dict[str, object]:
    """Three receipts signed at once: the plain case, non-ASCII text in a part that goes on after
    text, and a resumed part."""
    resumed = receipt(3)
    response = resumed["response"]
    assert isinstance(response, dict)
    after = receipt(2)["response"]
    assert isinstance(after, dict)
    receipts = [
        receipt(1),
        receipt(
            2,
            operator="é\u2028 \x7f\x01😀/<",
            response=after | {"prefix": prefix("né😀"), "prefix_characters": 3},
            route=[
                {
                    "attempt": "att_0",
                    "characters": 3,
                    "error": "upstream_stalled",
                    "node": NAME,
                    "tokens": [],
                }
            ],
        ),
        receipt(
            3,
            response=response | {"resumed": [3], "resumed_digest": tokens([[5, 6, 7]])},
            route=[
                {"attempt": "att_0", "error": "upstream_truncated", "node": NAME, "tokens": [3]}
            ],
            sampling={"caller_nonce": "ca" * 32, "seed": "5e" * 32, "source": "inherited"},
        ),
    ]
    encoded = [rfc8785.dumps(item) for item in receipts]
    leaves = [sha256(b"\x00trunkline.receipt/v1\n" + data).digest() for data in encoded]
    pair = sha256(b"\x01" + leaves[0] + leaves[1]).digest()
    root = sha256(b"\x01" + pair + leaves[2]).digest()
    paths = [[leaves[1], leaves[2]], [leaves[0], leaves[2]], [pair]]
    text = f"trunkline.batch/v1\n{NAME}\n3\n{b64encode(root).decode()}\n-\n1780000001000\n"
    signature = SigningKey(SEED).sign(text.encode()).signature
    note = f"{text}\n— {NAME} {b64encode(KEY_ID + signature).decode()}\n"
    return {
        "vkey": VKEY,
        "note": note,
        "receipts": [
            {
                "receipt": data.decode(),
                "leaf": leaf.hex(),
                "path": [b64encode(item).decode() for item in path],
            }
            for data, leaf, path in zip(encoded, leaves, paths, strict=True)
        ],
    }


def counted() -> dict[str, object]:
    """Two receipts in a batch that says that the first may be audited."""
    policy = {"audit": True, "mode": "batched"}
    encoded = [rfc8785.dumps(receipt(5, policy=policy)), rfc8785.dumps(receipt(6))]
    leaves = [sha256(b"\x00trunkline.receipt/v1\n" + data).digest() for data in encoded]
    root = b64encode(sha256(b"\x01" + leaves[0] + leaves[1]).digest()).decode()

    def note(line: str) -> str:
        text = f"trunkline.batch/v1\n{NAME}\n2\n{root}\n-\n1780000001000\n{line}"
        signature = SigningKey(SEED).sign(text.encode()).signature
        return f"{text}\n— {NAME} {b64encode(KEY_ID + signature).decode()}\n"

    return {
        "note": note("1\n"),
        "audited": 1,
        "receipts": [
            {"receipt": data.decode(), "path": [b64encode(sibling).decode()]}
            for data, sibling in zip(encoded, reversed(leaves), strict=True)
        ],
        "contradicted": [note("0\n"), note("2\n")],
        "refused": [note(line) for line in ("3\n", "01\n", "-1\n", "\n", "1\n1\n", "1")],
    }


def document() -> str:
    request = digest(b"trunkline.request/v1\n" + REQUEST.encode())
    content = {
        "spec": "docs/spec/receipt.md",
        "request": {"body": REQUEST, "digest": request},
        "prompt": {
            "ids": [1, 70_000, 2**32 - 1],
            "digest": digest(b"trunkline.prompt/v1\n" + b"".join(map(u32, (1, 70_000, 2**32 - 1)))),
        },
        "tokens": [
            {"choices": choices, "digest": tokens(choices)}
            for choices in ([[5, 6, 7]], [[5], [6, 7]], [[], [5, 6, 7]], [[]])
        ],
        "prefix": [{"text": text, "digest": prefix(text)} for text in ("", "né😀", "a\n ")],
        "stream": [
            {"attempt": "att_1", "chunks": chunks, "digest": stream(request, "att_1", chunks)}
            for chunks in (CHUNKS, CHUNKS[:2], CHUNKS[::-1], [])
        ],
        "salted": salted(),
        "cached": cached(),
        "batch": batch(),
        "counted": counted(),
        "not_canonical": [
            '{"a": 1}',
            '{"b":1,"a":2}',
            '{"a":1,"a":1}',
            '{"a":1.0}',
            '{"a":1e2}',
            '{"a":-0}',
            '{"a":null}',
            '{"a":9007199254740992}',
            '{"a":"\\u0041"}',
            '{"a":"\\/"}',
            '{"é":1}',
            " 1",
        ],
    }
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(document())
