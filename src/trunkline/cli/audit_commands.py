"""``trunkline audit``: what can be said to it. What it does is in ``audit.py``."""

from typing import Annotated

import typer

from trunkline.cli.options import Data, Json, answer_id, folder_of, group

audit = group()

What = Annotated[
    str,
    typer.Argument(
        metavar="ID|LEAF",
        parser=answer_id,
        help="An answer's id (ans_…, or as an app has it: chatcmpl-…, msg_…, resp_…), or a "
        "receipt's leaf, 8 digits or more.",
    ),
]


@audit.command("ls")
def ls(
    data: Data = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many.")] = 20,
    json: Json = False,
) -> None:
    """List the newest verdicts of this network's verifiers."""
    from trunkline.cli import audit as implementation

    raise typer.Exit(implementation.ls(folder_of(data), limit=limit, as_program=json))


@audit.command("show", epilog="\b\nExamples:\n  trunkline audit show ans_…\n")
def show(what: What, data: Data = None, json: Json = False) -> None:
    """Show every check that verifiers made of an answer.

    Exit 0: one passes, and none fails or is inconclusive; 1: one fails; 2: none yet, or one is
    inconclusive, or none says either. One that was withdrawn does not count.
    """
    from trunkline.cli import audit as implementation

    raise typer.Exit(implementation.show(folder_of(data), what, as_program=json))


@audit.command("recompute", epilog="\b\nExamples:\n  trunkline audit recompute ans_…\n")
def recompute(what: What, data: Data = None, json: Json = False) -> None:
    """Compute the numbers of an answer's verdicts again, from their bundles.

    Exit 0: every number comes out, to the last digit; 1: one does not; 2: there is no verdict.
    """
    from trunkline.cli import audit as implementation

    raise typer.Exit(implementation.recompute(folder_of(data), what, as_program=json))


@audit.command("alerts")
def alerts(data: Data = None, json: Json = False) -> None:
    """Show what needs a person: nodes that lost their standing, disputes, verifiers that lie.

    Exit 0: nothing does; 1: something stands against a node at the gateway, or a verifier has
    written something down; 2: neither, of those that answer, and not all do.
    """
    from trunkline.cli import audit as implementation

    raise typer.Exit(implementation.alerts(folder_of(data), as_program=json))


@audit.command("verifiers")
def verifiers(data: Data = None, json: Json = False) -> None:
    """Show how verifiers behaved, by the log alone: what they drew, kept back, said late or twice.

    Exit 0: nothing is found against any; 1: something is.
    """
    from trunkline.cli import conduct

    raise typer.Exit(conduct.verifiers(folder_of(data), as_program=json))


@audit.command("nodes")
def nodes(data: Data = None, json: Json = False) -> None:
    """Show what nodes are bound to, by the log alone: nonces beside receipts, self-tests, terms.

    Exit 0: nothing is found against any; 1: something is.
    """
    from trunkline.cli import conduct

    raise typer.Exit(conduct.nodes(folder_of(data), as_program=json))


@audit.command("plants")
def plants(
    data: Data = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Run each again here, by the installed model.")
    ] = False,
    json: Json = False,
) -> None:
    """Show the answers that verifiers planted to try each other, and what was said of them.

    Exit 0: all was found out; 1: a verdict, or the replay, says the contrary of a plant.
    """
    from trunkline.cli import plants as implementation

    raise typer.Exit(implementation.plants(folder_of(data), again=replay, as_program=json))
