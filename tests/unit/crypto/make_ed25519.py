"""Makes signatures that Ed25519 libraries differ about, and writes the vectors of the spec.

    python -m tests.unit.crypto.make_ed25519     writes docs/spec/ed25519-vectors.json

The group's arithmetic is RFC 8032's, in plain integers: no library makes such signatures. All of it
is a function of counted bytes. The keys are test keys: never use them for anything else.
"""

import json
from collections.abc import Iterator
from hashlib import sha512
from itertools import count
from pathlib import Path

FILE = Path(__file__).resolve().parents[3] / "docs" / "spec" / "ed25519-vectors.json"
DESCRIPTION = (
    "Signatures, and whether a reader takes them by ed25519.md. Hex; messages are texts of notes."
)

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
ZERO: Point = (0, 1)
SIGN = 1 << 255


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(scalar: int, point: Point) -> Point:
    total = ZERO
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point, scalar = add(point, point), scalar >> 1
    return total


def at(y: int) -> Point | None:
    """The point with this y and an even x, if there is one."""
    squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(squared, (P + 3) // 8, P)
    if x * x % P != squared:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (P - x if x & 1 else x, y) if x * x % P == squared else None


def point_at(y: int) -> Point:
    found = at(y)
    assert found is not None
    return found


def torsion() -> list[Point]:
    """The eight points of small order, as multiples of one of order 8."""
    for y in count(2):
        candidate = at(y)
        if candidate is not None:
            generator = times(L, candidate)
            if times(4, generator) != ZERO:
                return [times(index, generator) for index in range(8)]
    raise AssertionError


def spell(point: Point) -> bytes:
    x, y = point
    return (y | SIGN * (x & 1)).to_bytes(32, "little")


BASE = point_at(4 * pow(5, -1, P) % P)
TORSION = torsion()
SECRET = int.from_bytes(sha512(b"secret").digest(), "little") % L
PUBLIC = times(SECRET, BASE)
Case = dict[str, str | bool]


def message(number: int) -> bytes:
    return b"message %d\n" % number


def challenge(nonce: bytes, public: bytes, text: bytes) -> int:
    return int.from_bytes(sha512(nonce + public + text).digest(), "little") % L


def case(comment: str, public: bytes, text: bytes, nonce: bytes, scalar: int, valid: bool) -> Case:
    signature = nonce + scalar.to_bytes(32, "little")
    return {
        "comment": comment,
        "public": public.hex(),
        "message": text.hex(),
        "signature": signature.hex(),
        "valid": valid,
    }


def search(
    key_part: Point, nonce_part: Point, *, exact: bool
) -> tuple[bytes, bytes, bytes, int] | None:
    """A signature by the key plus ``key_part`` with a nonce plus ``nonce_part``, both of small
    order, for which the equation holds ``exact``ly, or only once multiplied by eight."""
    public = spell(add(PUBLIC, key_part))
    for number in range(64):
        secret = int.from_bytes(sha512(b"nonce %d" % number).digest(), "little") % L
        nonce = spell(add(times(secret, BASE), nonce_part))
        h = challenge(nonce, public, message(number))
        holds = add(nonce_part, times(h, key_part)) == ZERO
        if holds == exact:
            return public, message(number), nonce, (secret + h * SECRET) % L
    return None


def mixed() -> Iterator[Case]:
    """Keys and nonces beyond the prime-order group, and of its own."""
    one, four = TORSION[1], TORSION[4]
    for comment, key_part, nonce_part, exact in (
        ("an ordinary signature", ZERO, ZERO, True),
        ("a nonce of mixed order, for readers that multiply by eight", ZERO, one, False),
        ("the same with a part of order 2", ZERO, four, False),
        ("a key of mixed order, for readers that multiply by eight", one, ZERO, False),
        ("a key of mixed order whose part the challenge removes", one, ZERO, True),
        ("key and nonce of mixed order that cancel out", one, one, True),
        ("key and nonce of mixed order that do not", one, one, False),
    ):
        found = search(key_part, nonce_part, exact=exact)
        assert found is not None
        public, text, nonce, scalar = found
        yield case(comment, public, text, nonce, scalar, exact)


def scalars() -> Iterator[Case]:
    """The same signature with its second half written otherwise."""
    found = search(ZERO, ZERO, exact=True)
    assert found is not None
    public, text, nonce, scalar = found
    yield case("S + L", public, text, nonce, scalar + L, False)
    yield case("S + 8 L", public, text, nonce, scalar + 8 * L, False)
    yield case("S with its highest bit set", public, text, nonce, scalar | SIGN, False)
    yield case("S = L", public, text, nonce, L, False)
    yield case("S = 0", public, text, nonce, 0, False)
    yield case("S with one bit flipped", public, text, nonce, scalar ^ 1, False)
    yield case("another message", public, text + b"\n", nonce, scalar, False)
    flipped = bytes((nonce[0] ^ 1,)) + nonce[1:]
    yield case("a nonce with one bit flipped", public, text, flipped, scalar, False)
    negated = spell((P - PUBLIC[0], PUBLIC[1]))
    yield case("the key's negative", negated, text, nonce, scalar, False)


def spellings() -> Iterator[tuple[str, bytes, Point]]:
    """All ways to spell the points of small order: 8 canonical ones, and 6 others."""
    for index, point in enumerate(TORSION):
        yield f"{index}/8 of the torsion", spell(point), point
    zero = TORSION[2]
    for comment, raw, point in (
        ("0, its x negative", 1 | SIGN, ZERO),
        ("0, y = p + 1", P + 1, ZERO),
        ("0, y = p + 1, its x negative", (P + 1) | SIGN, ZERO),
        ("order 2, its x negative", (P - 1) | SIGN, TORSION[4]),
        ("order 4, y = p", P, zero if zero[0] % 2 == 0 else TORSION[6]),
        ("order 4, y = p, x odd", P | SIGN, zero if zero[0] % 2 else TORSION[6]),
    ):
        yield comment, raw.to_bytes(32, "little"), point


def small() -> Iterator[Case]:
    """Keys under which a signature fits many messages, and nonces that are no secret."""
    for comment, raw, point in spellings():
        # As a key: S = 0 and R = −hA, for the first text whose challenge is a multiple of eight
        # away from R.
        for number, guess in ((number, guess) for number in range(64) for guess in TORSION):
            h = challenge(spell(guess), raw, message(number))
            if add(guess, times(h, point)) == ZERO:
                yield case(f"key: {comment}", raw, message(number), spell(guess), 0, False)
                break
        # As a key with an ordinary nonce.
        for number in range(64):
            secret = number + 7
            nonce = spell(times(secret, BASE))
            if times(challenge(nonce, raw, message(number)), point) == ZERO:
                yield case(
                    f"usual nonce, key: {comment}", raw, message(number), nonce, secret, False
                )
                break
        # As a nonce: S = ha, right but for the part of small order.
        text, public = message(0), spell(PUBLIC)
        scalar = challenge(raw, public, text) * SECRET % L
        yield case(f"nonce: {comment}", public, text, raw, scalar, False)


def off_curve() -> Iterator[Case]:
    found = search(ZERO, ZERO, exact=True)
    assert found is not None
    public, text, nonce, scalar = found
    y = next(y for y in count(2) if at(y) is None)
    yield case("a key off the curve", y.to_bytes(32, "little"), text, nonce, scalar, False)
    yield case("a nonce off the curve", public, text, y.to_bytes(32, "little"), scalar, False)
    y = next(y for y in count(2) if at(y) is not None)
    raw = (P + y).to_bytes(32, "little")
    yield case("a key of large order, y not reduced", raw, text, nonce, scalar, False)
    yield case("a nonce of large order, y not reduced", public, text, raw, scalar, False)


def document() -> dict[str, object]:
    cases = [*mixed(), *scalars(), *small(), *off_curve()]
    return {"description": DESCRIPTION, "cases": cases}


def render() -> str:
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(render())
