"""``trunkline operator``: its commands as they are typed. What they do is in ``operator``, which is
loaded only when one runs."""

from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.options import Data, group

operator = group()

OperatorKey = Annotated[
    Path, typer.Option("--key", metavar="FILE", help="The operator's own key: a secret.")
]
OperatorPublic = Annotated[
    Path, typer.Option("--public", metavar="FILE", help="What readers pin: `verify --keys FILE`.")
]
OperatorLog = Annotated[
    str | None, typer.Option("--log", metavar="URL", help="Put the statement into this log too.")
]
NodeKey = Annotated[str, typer.Argument(metavar="VKEY", help="The node's verifier key.")]


@operator.command("create")
def operator_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The operator, as its nodes say it.")],
    key: OperatorKey,
    public: OperatorPublic,
) -> None:
    """Make an operator's key, and the public file that readers pin."""
    from trunkline.cli import operator as implementation

    raise typer.Exit(implementation.create(name, key=key, public=public))


@operator.command("state")
def operator_state(
    vkey: NodeKey,
    key: OperatorKey,
    public: OperatorPublic,
    days: Annotated[int, typer.Option(metavar="N", min=1, max=3660, help="For how long.")] = 90,
    log: OperatorLog = None,
) -> None:
    """Say that a node's key counts, from now on for so many days."""
    from trunkline.cli import operator as implementation

    raise typer.Exit(implementation.state(vkey, key=key, public=public, days=days, log=log))


@operator.command("rotate")
def operator_rotate(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its name, such as node-alpha.")],
    data: Data = None,
    days: Annotated[int, typer.Option(metavar="N", min=1, max=3660, help="For how long.")] = 3650,
) -> None:
    """Give a node of this network a new key. Answers go on while it changes."""
    from trunkline.cli import operator as implementation

    raise typer.Exit(implementation.rotate(node, data=data, days=days))


@operator.command("revoke")
def operator_revoke(
    vkey: NodeKey, key: OperatorKey, public: OperatorPublic, log: OperatorLog = None
) -> None:
    """Say that a node's key counts no more. What was logged before stays verifiable."""
    from trunkline.cli import operator as implementation

    raise typer.Exit(implementation.revoke(vkey, key=key, public=public, log=log))
