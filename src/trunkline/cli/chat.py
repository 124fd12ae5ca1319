"""``trunkline chat``: a terminal chat over the running network, through the ``openai`` client.

An answer is provisional when it ends; a thread waits for its final evidence, verifies it and says
so without getting in the way of typing. Keeps the conversation in memory only.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from trunkline.base.errors import Error
from trunkline.cli import api, verify
from trunkline.cli.ask import MODEL_HEADER, NO_KEY, RECEIPT_HEADER, AnswerError
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder
from trunkline.cli.report import show, summary
from trunkline.cli.terminal import console, harmless, stream

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

PROMPT: Final = "> "
FINAL_WAIT_S: Final = 30
HISTORY_MESSAGES_MAX: Final = 40
TIMEOUT_S: Final = 300.0
HELP: Final = """\
/help     this
/receipt  what the last answer's receipts say of it
/verify   check the last answer, step by step
/new      forget the conversation
/quit     leave (also Ctrl-D)"""


class Chat:
    """One conversation."""

    def __init__(
        self, folder: Folder, caller: "openai.OpenAI", model: str, *, keep: bool, temperature: float
    ) -> None:
        self._temperature = temperature
        self._folder = folder
        self._base_url = folder.network().one("gateway").url
        self._caller = caller
        self._model = model
        self._keep = keep
        self._messages: list[ChatCompletionMessageParam] = []
        self._last = ""
        self._waiters = ThreadPoolExecutor(max_workers=4, thread_name_prefix="final")
        self._interactive = sys.stdin.isatty()
        self.failed = False
        """An answer was not had, or did not verify."""

    def run(self) -> None:
        """Read and answer until the end of input."""
        commands: dict[str, Callable[[], None]] = {
            "/help": lambda: console().print(HELP, markup=False),
            "/receipt": self._receipt,
            "/verify": self._verify,
            "/new": self._messages.clear,
        }
        try:
            while (line := self._read()) is not None and line not in ("/quit", "/exit"):
                if not line:
                    continue
                if line in commands:
                    self._guarded(commands[line])
                elif line.startswith("/"):
                    console().print("no such command; /help lists them")
                else:
                    self._guarded(partial(self._answer, line))
        finally:
            # Not interactive: whoever pipes in wants to know how each answer ended.
            self._waiters.shutdown(wait=not self._interactive, cancel_futures=self._interactive)

    def _read(self) -> str | None:
        try:
            line = input(PROMPT if self._interactive else "")
        except EOFError:
            return None
        except KeyboardInterrupt:
            return None
        return line.strip()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Error as error:
            self.failed = True
            console().print(f"✗ {error.message}", style="red", markup=False)
        except KeyboardInterrupt:
            console().print("\n[dim]interrupted; the node has stopped its work[/dim]")

    def _answer(self, said: str) -> None:
        import openai

        messages: list[ChatCompletionMessageParam] = [
            *self._messages[-HISTORY_MESSAGES_MAX:],
            {"role": "user", "content": said},
        ]
        headers = {"trunkline-keep": "bodies"} if self._keep else {}
        text = ""
        try:
            with self._caller.chat.completions.create(
                model=self._model,
                messages=messages,
                stream=True,
                temperature=self._temperature,
                extra_headers=headers,
            ) as answer:
                given = answer.response.headers
                for chunk in answer:
                    piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
                    text += piece
                    stream(piece)
        except openai.OpenAIError as error:
            stream("\n")
            raise AnswerError(f"not answered: {_explain(error)}") from None
        stream("\n")
        self._messages = [*messages, {"role": "assistant", "content": text}]
        self._last = given.get(RECEIPT_HEADER, "")
        model = harmless(given.get(MODEL_HEADER, self._model))
        console().print(
            f"[yellow]◌ provisional[/yellow] [dim]{self._last} by {escape(model)}[/dim]"
        )
        self._waiters.submit(self._settle, self._last)

    def _settle(self, answer: str) -> None:
        """In a thread of its own: wait for the final evidence, verify it, say so."""
        try:
            evidence = asyncio.run(api.evidence(self._base_url, answer, wait_s=FINAL_WAIT_S))
            report = verify.check(evidence, verify.trust_of(self._folder))
        except Error as error:
            self.failed = True
            self._say(f"? {answer}: {error.message}", "yellow")
            return
        if report.outcome == "pass":
            self._say(f"● final {answer}, verified", "green")
        else:
            self.failed = True
            self._say(f"{answer}: {summary(report).plain}", "red")

    def _say(self, text: str, style: str) -> None:
        """A line above the one that is being typed, which is drawn again below it."""
        typed = ""
        if self._interactive:
            with contextlib.suppress(ImportError):
                import readline

                typed = PROMPT + readline.get_line_buffer()
        out = console()
        out.print(("\r\x1b[K" if typed else "") + text, style=style, markup=False)
        sys.stdout.write(typed)
        sys.stdout.flush()

    def _receipt(self) -> None:
        from trunkline.cli.receipts import show as show_receipts

        show_receipts(self._folder, self._known(), as_program=False)

    def _verify(self) -> None:
        evidence = asyncio.run(api.evidence(self._base_url, self._known(), wait_s=FINAL_WAIT_S))
        show(console(), verify.check(evidence, verify.trust_of(self._folder)))

    def _known(self) -> str:
        if not self._last:
            raise Error("there is no answer yet", code="no_answer")
        return self._last


def command(folder: Folder, *, model: str | None, keep: bool, temperature: float) -> int:
    """Chat until the end; DONE unless an answer failed in a conversation that was piped in."""
    base_url = folder.network().one("gateway").url
    chosen = asyncio.run(_model(base_url)) if model is None else model
    import openai

    with openai.OpenAI(
        base_url=base_url + "/v1", api_key=NO_KEY, max_retries=0, timeout=TIMEOUT_S
    ) as caller:
        chat = Chat(folder, caller, chosen, keep=keep, temperature=temperature)
        if sys.stdin.isatty():
            _greet(chosen, base_url)
        chat.run()
    return NO if chat.failed and not sys.stdin.isatty() else DONE


def _greet(model: str, base_url: str) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 -- line editing and history for input()
    console().print(f"[dim]{escape(model)} over {base_url}. /help lists the commands.[/dim]")


async def _model(base_url: str) -> str:
    await api.status(base_url)
    from trunkline.cli.ask import chat_model, client

    caller = await client(base_url)
    try:
        return await chat_model(caller)
    finally:
        await caller.close()


def _explain(error: "openai.OpenAIError") -> str:
    message = getattr(error, "message", "") or type(error).__name__
    return harmless(str(message).splitlines()[0][:200])
