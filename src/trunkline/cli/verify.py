"""``trunkline verify FILE|ID``: offline for a file; an id is first fetched from the gateway."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Final

import msgspec
import typer

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.cli import api
from trunkline.cli.create import read_keys
from trunkline.cli.folder import Folder
from trunkline.cli.options import answer_id
from trunkline.cli.report import EXITS, as_json, show, show_split_view
from trunkline.evidence import (
    EVIDENCE_BYTES_MAX,
    EvidenceKey,
    Report,
    decode,
    decode_keys,
    split_view,
    verify,
)
from trunkline.tlog.policy import Policy

POLICY_BYTES_MAX: Final = 1024 * 1024
BODY_BYTES_MAX: Final = 64 * 1024 * 1024
AT_ITS_WORD: Final = (
    "The keys and the policy were the file's own: this shows that the file is whole and agrees "
    "with itself, not who made it."
)
WHOM_TO_TRUST: Final = (
    "No keys or policy of yours here: give --keys and --policy, or take the file's own at its word "
    "with --trust-file."
)
ANSWER_ID: Final = re.compile(r"ans_[a-z2-7]{24}")


class Trust:
    """What the reader takes as given: a policy, and keys known by other means."""

    def __init__(self, policy: str | None, keys: tuple[EvidenceKey, ...] | None) -> None:
        self.policy = policy
        self.keys = keys


def trust_of(folder: Folder, policy: Path | None = None, keys: Path | None = None) -> Trust:
    """The files that were named, else those of the data folder, where there is one."""
    text = None
    if policy is not None:
        text = _text(policy)
    elif folder.policy_file.is_file():
        text = _text(folder.policy_file)
    if keys is not None:
        return Trust(text, decode_keys(_bytes(keys, POLICY_BYTES_MAX)))
    return Trust(text, read_keys(folder) if folder.keys_file.is_file() else None)


def trust_in_file(evidence: bytes) -> Trust:
    """The keys and the policy that the file brings itself, at its own word.

    Enough to show that the file is whole and agrees with itself; not who made it.
    """
    try:
        brought = decode(evidence)
    except MalformedError:
        return Trust(None, None)  # the check itself says what is wrong with the file
    return Trust(brought.policy, brought.keys)


def check(
    evidence: bytes, trust: Trust, request: bytes | None = None, response: bytes | None = None
) -> Report:
    """Verify evidence under what the reader trusts."""
    return verify(
        evidence,
        policy=trust.policy,
        trusted_keys=trust.keys,
        request=request,
        response=response,
    )


def command(
    what: str,
    folder: Folder,
    *,
    policy: Path | None,
    keys: Path | None,
    request: Path | None,
    response: Path | None,
    wait_s: int,
    trust_file: bool,
    as_program: bool,
) -> int:
    """Check, print, and return the exit code. Raises ConfigError for options that exclude each
    other."""
    if trust_file and (policy is not None or keys is not None):
        raise ConfigError("--trust-file: give it alone, without --policy and --keys")
    evidence = _evidence(what, folder, wait_s)
    if split_view.is_split_view(evidence):
        return _split_view(evidence, folder, policy, as_program=as_program)
    trust = trust_in_file(evidence) if trust_file else trust_of(folder, policy, keys)
    report = check(
        evidence,
        trust,
        None if request is None else _bytes(request, BODY_BYTES_MAX),
        None if response is None else _bytes(response, BODY_BYTES_MAX),
    )
    if as_program:
        typer.echo(as_json(report, trust="file" if trust_file else "reader"))
    else:
        from trunkline.cli.terminal import console

        show(console(), report)
        if trust_file:
            console().print(AT_ITS_WORD, style="yellow")
        elif trust.keys is None or trust.policy is None:
            console().print(WHOM_TO_TRUST, style="dim")
    return EXITS[report.outcome]


def _split_view(evidence: bytes, folder: Folder, policy: Path | None, *, as_program: bool) -> int:
    """Not about an answer: about a log that contradicted itself."""
    text = trust_of(folder, policy).policy
    report = split_view.verify(evidence, None if text is None else Policy.parse(text))
    if as_program:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        from trunkline.cli.terminal import console

        show_split_view(console(), report)
    return EXITS[report.outcome]


def _evidence(what: str, folder: Folder, wait_s: int) -> bytes:
    if what == "-":
        return sys.stdin.buffer.read(EVIDENCE_BYTES_MAX + 1)
    path = Path(what)
    answer = answer_id(what)
    if path.is_file() or ANSWER_ID.fullmatch(answer) is None:
        return _bytes(path, EVIDENCE_BYTES_MAX + 1)
    base_url = folder.network().one("gateway").url
    return asyncio.run(api.evidence(base_url, answer, wait_s=wait_s))


def _text(path: Path) -> str:
    try:
        return _bytes(path, POLICY_BYTES_MAX).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None


def _bytes(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(bytes_max)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, and not the id of an answer (ans_…)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
