"""The ``trunkline`` command: what can be said to it. What each command does is in its own module.

Only the parser is imported here, so that help and completion come at once. Errors of ours are one
line on standard error; what the exit codes mean is in ``exits.py``, and in the help.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import typer

from trunkline.base.errors import ConfigError, Error
from trunkline.cli import audit_commands, operator_commands, receipts_commands
from trunkline.cli.exits import DONE, INTERRUPTED, NO, UNABLE
from trunkline.cli.network_options import (
    PortBase,
    ProviderOption,
    VerifiersOption,
    WitnessAlgorithmOption,
    WitnessesOption,
)
from trunkline.cli.options import SETTINGS, Data, Json, Wait, folder_of, group

EXIT_CODES: Final = (
    "Exit codes: 0 done or confirmed; 1 the answer is no (does not verify, differs, not healthy); "
    "2 could not be done or checked; 130 interrupted."
)

app = typer.Typer(
    name="trunkline",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=SETTINGS,
    epilog=EXIT_CODES,
)
drill = group()
keys = group()
route = group()
log = typer.Typer(invoke_without_command=True, rich_markup_mode=None, context_settings=SETTINGS)
app.add_typer(
    receipts_commands.receipts, name="receipts", help="List, show, export and prove receipts."
)
app.add_typer(
    operator_commands.operator, name="operator", help="An operator's key, and its nodes' keys."
)
app.add_typer(
    audit_commands.audit, name="audit", help="What verifiers found of answers, and their numbers."
)
app.add_typer(keys, name="keys", help="Make, list, revoke and rotate apps' virtual keys.")
app.add_typer(route, name="route", help="Where calls go, by the routing policy.")
app.add_typer(drill, name="drill", help="Break something on purpose, and see what the app sees.")
app.add_typer(log, name="log")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The role's configuration. Default: the one in the data folder.",
        show_default=False,
    ),
]
KeyName = Annotated[
    str, typer.Argument(metavar="NAME", help="The key's name, as in [keys.NAME] of routing.toml.")
]
GatewayConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The gateway's configuration. Default: the one in the data folder.",
        show_default=False,
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from trunkline import __version__

        typer.echo(f"trunkline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version.")
    ] = False,
) -> None:
    """Keeps AI calls working when a provider fails, and proves who answered.

    \b
    Start with:
      trunkline up                      a small network on this machine
      trunkline chat                    talk to it
      trunkline drill kill-node         kill the node that is answering
    """


@app.command(
    epilog="\b\nExamples:\n  trunkline up\n"
    '  trunkline up --once "Why is the sky blue?"\n'
    "  trunkline up --provider acme=https://api.acme.example/v1,key-env=ACME_API_KEY\n"
)
def up(
    data: Data = None,
    port_base: PortBase = None,
    provider: ProviderOption = None,
    ask: Annotated[
        str | None,
        typer.Option(metavar="PROMPT", help="Ask this first, verify the receipt, go on serving."),
    ] = None,
    once: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPT",
            help="Start, answer this, verify the receipt, stop. Uses the network that runs on the "
            "data folder, if one does. Exit 0 only if all of it happened.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model for --ask and --once.")
    ] = None,
) -> None:
    """Run the whole network in the foreground. Ctrl-C stops all of it.

    The first run makes the data folder. Roles that die are started again.
    """
    from trunkline.cli import up as implementation
    from trunkline.cli.providers import parse

    if ask is not None and once is not None:
        raise ConfigError("--ask goes on serving and --once does not: choose one")
    options = implementation.Options(
        folder=folder_of(data),
        port_base=port_base,
        providers=[parse(each) for each in provider or []],
        ask=ask,
        once=once,
        model=model,
    )
    raise typer.Exit(implementation.command(options))


@app.command(epilog="\b\nExamples:\n  trunkline init --data ./net --port-base 9480\n")
def init(
    data: Data = None,
    port_base: PortBase = None,
    provider: ProviderOption = None,
    witnesses: WitnessesOption = 1,
    witness_algorithm: WitnessAlgorithmOption = "ed25519",
    verifiers: VerifiersOption = 2,
) -> None:
    """Make a data folder: keys, a commented configuration for each role, policy, stores.

    Never overwrites anything.
    """
    from trunkline.cli.create import PORT_BASE, create
    from trunkline.cli.providers import parse

    folder = folder_of(data)
    providers = [parse(each) for each in provider or []]
    create(
        folder,
        port_base=PORT_BASE if port_base is None else port_base,
        providers=providers,
        witnesses=witnesses,
        witness_algorithm=witness_algorithm,
        verifiers=verifiers,
    )
    typer.echo(f"made {folder.path}; start it with `trunkline up`")


@app.command(
    epilog="\b\nExamples:\n  trunkline chat\n"
    '  echo "Name three rivers." | trunkline chat --data ./net\n'
)
def chat(
    data: Data = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Model to talk to.")] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep what is said beside the receipts, on this machine."),
    ] = False,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.0, max=2.0, help="How freely words are chosen.")
    ] = 0.3,
) -> None:
    """Talk to the running network. Each answer shows provisional, then final.

    In the chat: /help, /receipt, /verify, /new, /quit.
    """
    from trunkline.cli import chat as implementation

    folder = folder_of(data)
    code = implementation.command(folder, model=model, keep=keep, temperature=temperature)
    raise typer.Exit(code)


@app.command(
    epilog="\b\nExamples:\n  trunkline verify answer.json\n"
    "  trunkline verify answer.json --policy policy --keys keys.json --json\n"
    "  trunkline verify ans_abc… --wait 10\n"
)
def verify(
    what: Annotated[
        str, typer.Argument(metavar="FILE|ID", help="Evidence file (- for stdin), or an id.")
    ],
    data: Data = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Whom you trust (C2SP tlog-policy).", show_default=False),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Node keys you know (keys.json).", show_default=False),
    ] = None,
    request: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The request's body as your app sent it.")
    ] = None,
    response: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The response's body as it was received.")
    ] = None,
    trust_file: Annotated[
        bool,
        typer.Option("--trust-file", help="Take the keys and policy in the file at its word."),
    ] = False,
    wait: Wait = 0,
    json: Json = False,
) -> None:
    """Check the evidence of an answer, in numbered steps. Offline for a file.

    Policy and keys are those of the data folder unless named. Exit 0: it verifies; 1: it does
    not; 2: it could not be checked completely.
    """
    from trunkline.cli import verify as implementation

    code = implementation.command(
        what,
        folder_of(data),
        policy=policy,
        keys=keys,
        request=request,
        response=response,
        wait_s=wait,
        trust_file=trust_file,
        as_program=json,
    )
    raise typer.Exit(code)


@app.command(epilog="\b\nExamples:\n  trunkline status\n  trunkline status --json | jq .ready\n")
def status(data: Data = None, json: Json = False) -> None:
    """Roles, health, process ids, counts and the last checkpoint. Exit 1 unless all is well."""
    from trunkline.cli import status as implementation

    raise typer.Exit(implementation.command(folder_of(data), as_program=json))


@keys.command(
    "create",
    epilog="\b\nExamples:\n  trunkline keys create my-app\n"
    "  trunkline keys create nightly --days 90 > nightly.key\n",
)
def keys_create(
    name: KeyName,
    data: Data = None,
    config: GatewayConfigOption = None,
    days: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=36500, help="Expire after so many days."),
    ] = None,
    json: Json = False,
) -> None:
    """Make a key. Its secret is printed once, alone on standard output, and never kept.

    What it may use and spend is written in routing.toml, under [keys.NAME].
    """
    from trunkline.cli import keys as implementation

    path = _config("gateway", config, data)
    raise typer.Exit(implementation.create(path, name, days=days, as_program=json))


@keys.command("ls")
def keys_ls(data: Data = None, config: GatewayConfigOption = None, json: Json = False) -> None:
    """List keys: validity, and what those in force have spent, hold and have left, in dollars."""
    from trunkline.cli import keys as implementation

    raise typer.Exit(implementation.ls(_config("gateway", config, data), as_program=json))


@keys.command("revoke")
def keys_revoke(name: KeyName, data: Data = None, config: GatewayConfigOption = None) -> None:
    """End a key for good. A running gateway refuses it within a second."""
    from trunkline.cli import keys as implementation

    raise typer.Exit(implementation.revoke(_config("gateway", config, data), name))


@keys.command("rotate", epilog="\b\nExamples:\n  trunkline keys rotate my-app --overlap 86400\n")
def keys_rotate(
    name: KeyName,
    data: Data = None,
    config: GatewayConfigOption = None,
    overlap: Annotated[
        int,
        typer.Option(
            metavar="SECONDS", min=0, max=31_536_000, help="The old secret goes on for so long."
        ),
    ] = 0,
    json: Json = False,
) -> None:
    """Give a key a new secret. Its tenant, its limits and what it has spent stay."""
    from trunkline.cli import keys as implementation

    path = _config("gateway", config, data)
    raise typer.Exit(implementation.rotate(path, name, overlap_s=overlap, as_program=json))


@route.command(
    "explain",
    epilog="\b\nExamples:\n  trunkline route explain --model fast\n"
    "  trunkline route explain --model fast --key my-app --json | jq .outcome\n",
)
def route_explain(
    model: Annotated[str, typer.Option(metavar="NAME", help="The model, as an app asks for it.")],
    key: Annotated[
        str, typer.Option(metavar="NAME", help="As the holder of this virtual key.")
    ] = "",
    kind: Annotated[
        str,
        typer.Option(metavar="KIND", help="chat or embeddings. Default: what it is served for."),
    ] = "",
    data: Data = None,
    json: Json = False,
) -> None:
    """Say what would happen to a call for a model now, and why. Sends no call.

    Which models may serve it, which deployments would be asked in which order, and what keeps the
    others out. Exit 1 if the call would be refused.
    """
    from trunkline.cli import route as implementation

    code = implementation.command(folder_of(data), model=model, key=key, kind=kind, as_program=json)
    raise typer.Exit(code)


@drill.command("kill-node", epilog="\b\nExamples:\n  trunkline drill kill-node --seed 7\n")
def drill_kill_node(
    data: Data = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of both runs.")] = 1,
    tokens: Annotated[
        int, typer.Option(metavar="N", min=16, max=1000, help="Length of the answer, at most.")
    ] = 200,
    json: Json = False,
) -> None:
    """Kill the node that is answering, in the middle of a long answer.

    Asks once undisturbed and once with the node getting SIGKILL on the way, with the same seed.
    Exit 0 only if both texts are identical.
    """
    from trunkline.cli import drill as implementation

    code = implementation.kill_node(folder_of(data), seed=seed, tokens=tokens, as_program=json)
    raise typer.Exit(code)


@drill.command("swap-model", epilog="\b\nExamples:\n  trunkline drill swap-model\n")
def drill_swap_model(
    cheat: Annotated[Literal["weights", "sampler"], typer.Option(help="What it does.")] = "weights",
    rate: Annotated[float, typer.Option(help="Percent of answers checked.", min=1, max=100)] = 100,
    port_base: Annotated[int, typer.Option(help="First of the network's ports.")] = 28480,
    json: Json = False,
) -> None:
    """Have a node begin to cheat under live traffic, in a network of its own, until it is caught.

    Exit 0 only if it is quarantined, no call failed, and none went to it afterwards.
    """
    from trunkline.cli.swap_model import swap_model as run

    raise typer.Exit(run(cheat=cheat, rate_percent=rate, port_base=port_base, as_program=json))


@log.callback()
def log_role(context: typer.Context, config: ConfigOption = None, data: Data = None) -> None:
    """Run the log in the foreground, or check one (fsck)."""
    if context.invoked_subcommand is None:
        _role("log", config, data)


@log.command("fsck")
def log_fsck(
    data: Data = None,
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The log's own folder. Default: log/ in --data."),
    ] = None,
    json: Json = False,
) -> None:
    """Verify the log from its first entry: every tile, the index, the checkpoints."""
    from trunkline.cli import fsck

    raise typer.Exit(fsck.command(folder or folder_of(data).path / "log", as_program=json))


@log.command("upload", epilog="\b\nExamples:\n  trunkline log upload --config log/log.toml\n")
def log_upload(config: ConfigOption = None, data: Data = None) -> None:
    """Copy a stopped log's tiles into the bucket that its configuration names.

    Safe to repeat. The log's own folder is left as it is.
    """
    from trunkline.cli import upload

    upload.command(_config("log", config, data))


@app.command()
def gateway(config: ConfigOption = None, data: Data = None) -> None:
    """Run the gateway in the foreground."""
    _role("gateway", config, data)


@app.command()
def node(config: ConfigOption = None, data: Data = None) -> None:
    """Run one node in the foreground."""
    _role("node", config, data)


@app.command()
def witness(config: ConfigOption = None, data: Data = None) -> None:
    """Run the witness in the foreground."""
    _role("witness", config, data)


@app.command()
def verifier(config: ConfigOption = None, data: Data = None) -> None:
    """Run one verifier in the foreground."""
    _role("verifier", config, data)


def _role(role: str, config: Path | None, data: Path | None) -> None:
    from trunkline.cli.role import run

    run(role, _config(role, config, data))


def _config(role: str, config: Path | None, data: Path | None) -> Path:
    """The role's configuration file: the one named, or the only one in the data folder."""
    if config is not None:
        return config
    folder = folder_of(data)
    found = [entry for entry in folder.network().roles if entry.role == role]
    if len(found) != 1:
        names = ", ".join(str(folder.config(entry)) for entry in found)
        raise ConfigError(f"{role}: name one with --config: {names or 'none is listed'}")
    return folder.config(found[0])


def main() -> NoReturn:
    """The program: ours errors are one line, never a traceback."""
    try:
        app()
    except Error as error:
        sys.stderr.write(f"trunkline: {error.message}\n")
        sys.exit(NO if error.error_code in ("not_answered", "corrupt_state") else UNABLE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone: nothing is left to say, at exit least of all.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    sys.exit(DONE)


if __name__ == "__main__":
    main()
