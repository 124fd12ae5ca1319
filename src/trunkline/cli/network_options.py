"""The options of ``trunkline init`` and ``up`` that say what a new network is made of.

Only the parser is imported here, as in ``main``.
"""

from typing import Annotated, Literal

import typer

PortBase = Annotated[
    int | None,
    typer.Option(metavar="PORT", help="First of the network's ports on loopback. Default: 8480."),
]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME=BASE_URL|KEY_VARIABLE[,OPTION=VALUE…]",
        help="Add a node in front of a provider. NAME, or the option kind, may be one that is "
        "known: openai, anthropic, gemini, azure, bedrock, groq, mistral, ollama and others. "
        "Options: kind, key-env, key-file, models (a+b), region, auth, api-version. May be "
        "repeated; remembered.",
        show_default=False,
    ),
]
WitnessesOption = Annotated[
    int,
    typer.Option(
        "--witnesses",
        metavar="N",
        min=1,
        max=7,
        help="How many witnesses, each of an operator of its own. Of several, a majority must "
        "cosign.",
    ),
]
WitnessAlgorithmOption = Annotated[
    Literal["ed25519", "ml-dsa-44"],
    typer.Option(
        "--witness-algorithm",
        help="What the witnesses cosign with. ml-dsa-44 holds against quantum computers too.",
    ),
]
VerifiersOption = Annotated[
    int,
    typer.Option(
        "--verifiers",
        metavar="N",
        min=0,
        max=3,
        help="How many verifiers, each of an operator of its own. 0: answers are signed and "
        "logged, and nobody runs them again.",
    ),
]
