"""``trunkline receipts``: its commands as they are typed. What they do is in ``receipts``,
``export`` and ``prove``, which are loaded only when one runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trunkline.cli.options import Data, Json, Wait, answer_id, folder_of, group

if TYPE_CHECKING:
    from trunkline.gateway.store import Wanted

receipts = group()

AnswerId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        parser=answer_id,
        help="The answer's id: ans_…, or as an app has it, chatcmpl-…, msg_…, resp_….",
    ),
]
To = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write here. Default: standard output.")
]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="Of this model alone.")]
Node = Annotated[str, typer.Option(metavar="NAME", help="That this node gave.")]
Since = Annotated[
    str,
    typer.Option(
        metavar="TIME", help="From then on: 2026-11-21, 2026-11-21T13:05, or 90m ago as 90m."
    ),
]
Until = Annotated[str, typer.Option(metavar="TIME", help="Before then.")]
State = Annotated[
    Literal["provisional", "final"] | None,
    typer.Option(help="final: proved to be in the log; provisional: not yet."),
]


def _wanted(
    model: str, node: str, since: str, until: str, state: Literal["provisional", "final"] | None
) -> "Wanted":
    from datetime import UTC, datetime

    from trunkline.cli import moment
    from trunkline.gateway.store import Wanted

    now = datetime.now(UTC).astimezone()
    return Wanted(
        model=model,
        node=node,
        state=state,
        since_ms=moment.unix_ms(since, now) if since else None,
        until_ms=moment.unix_ms(until, now) if until else None,
    )


@receipts.command(
    "ls",
    epilog="\b\nExamples:\n  trunkline receipts ls --model gpt-5 --since 2h\n"
    "  trunkline receipts ls --state provisional --json | jq '.[].answer'\n",
)
def ls(
    data: Data = None,
    limit: Limit = 20,
    model: Model = "",
    node: Node = "",
    since: Since = "",
    until: Until = "",
    state: State = None,
    json: Json = False,
) -> None:
    """List the newest answers: id, time, model, node, state. No content."""
    from trunkline.cli import receipts as implementation

    wanted = _wanted(model, node, since, until, state)
    raise typer.Exit(implementation.ls(folder_of(data), wanted, limit=limit, as_program=json))


@receipts.command("show")
def show(answer: AnswerId, data: Data = None, json: Json = False) -> None:
    """Show what an answer's receipts say, and whether the log has them. With --json: their signed
    bytes."""
    from trunkline.cli import receipts as implementation

    raise typer.Exit(implementation.show(folder_of(data), answer, as_program=json))


@receipts.command(
    "export",
    epilog="\b\nExamples:\n  trunkline receipts export ans_… --to a.json\n"
    "  trunkline receipts export --folder evidence --since 7d --limit 1000\n",
)
def export(
    answers: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", parser=answer_id, help="Answers' ids, as of show."),
    ] = None,
    data: Data = None,
    to: To = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write ID.evidence.json here for each answer that is final. What is there stays.",
        ),
    ] = None,
    limit: Limit = 20,
    model: Model = "",
    node: Node = "",
    since: Since = "",
    until: Until = "",
    wait: Wait = 10,
) -> None:
    """Write the evidence of answers, to be verified anywhere: of one as one file, of many into a
    folder.

    Without an id, of the newest answers that the options name. What is not final when the time to
    wait is over is left out of a folder and named; run it again later. Exit 2: something was left.
    """
    from trunkline.cli import export as implementation

    wanted = _wanted(model, node, since, until, None)
    code = implementation.command(
        folder_of(data), answers or [], wanted, limit=limit, to=to, into=folder, wait_s=wait
    )
    raise typer.Exit(code)


@receipts.command(
    "open",
    epilog="\b\nExamples:\n  trunkline receipts open ans_… --only request --to shown.json\n",
)
def open_(
    answer: AnswerId,
    data: Data = None,
    to: To = None,
    only: Annotated[
        Literal["request", "response"] | None,
        typer.Option(help="Show this alone; the other can not be guessed from the file."),
    ] = None,
    wait: Wait = 10,
) -> None:
    """Write evidence that shows one side of an answer to somebody, and not the other."""
    from trunkline.cli import receipts as implementation

    raise typer.Exit(implementation.open_(folder_of(data), answer, only=only, to=to, wait_s=wait))


@receipts.command("prove")
def prove(answer: AnswerId, data: Data = None, wait: Wait = 10, json: Json = False) -> None:
    """Prove an answer's receipts against the log as it is now.

    Inclusion, and consistency of what the log showed then with what it shows now.
    """
    from trunkline.cli import prove as implementation

    raise typer.Exit(implementation.command(folder_of(data), answer, wait_s=wait, as_program=json))


@receipts.command("forget")
def forget(answer: AnswerId, data: Data = None) -> None:
    """Delete what was said in an answer from this gateway.

    What would open its receipts goes too. The receipts, the log and everybody else's evidence stay
    valid.
    """
    from trunkline.cli import receipts as implementation

    raise typer.Exit(implementation.forget(folder_of(data), answer))
