"""The model's chat template: from messages to the text of a prompt, with who wrote what kept apart.

A prompt is control tokens written by the template and text written by people. They must never mix:
a message that spells out ``<|im_end|>`` is text about a control token, not one. So the template
never sees a word of the messages. It is rendered over placeholders, and its output is cut at them
into segments: its own, whose control tokens count, and messages, which are tokenised as text.

The template is the model file's own Jinja source, run in an immutable sandbox. It refuses: a
template that cuts, changes or leaves out a placeholder (then what it would do to the text is
unknown), and rendering beyond ``RENDERED_CHARS_MAX``. A template that looks *inside* messages sees
a placeholder there; that is the price of the separation.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NoReturn

import msgspec
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trunkline.base.errors import ConfigError, RequestError

TEMPLATE_CHARS_MAX: Final = 256 * 1024
RENDERED_CHARS_MAX: Final = 4 * 1024 * 1024
"""Of the template's own text, placeholders included."""
REASON_CHARS_MAX: Final = 200
COMPILED_MAX: Final = 4
"""Templates kept compiled: a model that is loaded again has the same one."""

# Two code points that Unicode guarantees are no characters. Message text never meets them: it is
# put in after the cut.
_OPEN: Final = "\ufdd0"
_CLOSE: Final = "\ufdd1"
_PLACEHOLDER: Final = re.compile(f"{_OPEN}([0-9]{{1,9}}){_CLOSE}")


class PromptMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as the template is told of it."""

    role: str
    """From a fixed set; it is the template's to spell."""
    text: str


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the rendered prompt."""

    text: str
    control: bool
    """True: the template wrote it, and control tokens in it are control tokens."""


class _RefusedError(Exception):
    """The template itself said no, by the ``raise_exception`` that templates expect to have."""


class ChatTemplate:
    """A compiled chat template."""

    __slots__ = ("_bos_text", "_eos_text", "_template")

    def __init__(self, source: str, *, bos_text: str = "", eos_text: str = "") -> None:
        """Compile ``source``. Raises :class:`ConfigError` if it is no template."""
        if not source.strip():
            raise ConfigError("the model has no chat template, so it can not serve chat requests")
        if len(source) > TEMPLATE_CHARS_MAX:
            raise ConfigError(f"the model's chat template exceeds {TEMPLATE_CHARS_MAX} characters")
        self._template = _compiled(source)
        self._bos_text = bos_text
        self._eos_text = eos_text

    def render(self, messages: Sequence[PromptMessage], *, created_s: int) -> tuple[Segment, ...]:
        """The prompt for ``messages``, up to where the assistant's answer begins.

        ``created_s`` (Unix seconds) is the only clock a template has, so that every node renders
        the same prompt for one answer. Raises :class:`RequestError` (``unsupported_messages``).
        """
        texts: list[str] = []
        given: list[dict[str, str]] = []
        for message in messages:
            content = ""
            if message.text:
                content = f"{_OPEN}{len(texts)}{_CLOSE}"
                texts.append(message.text)
            given.append({"role": message.role, "content": content})
        rendered = self._run(given, created_s)
        if len(rendered) > RENDERED_CHARS_MAX:
            _refuse("renders them into too long a prompt")
        return _cut(rendered, texts)

    def _run(self, messages: list[dict[str, str]], created_s: int) -> str:
        def strftime_now(form: str) -> str:
            return datetime.fromtimestamp(created_s, UTC).strftime(form)

        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self._bos_text,
                eos_token=self._eos_text,
                raise_exception=_raise_exception,
                strftime_now=strftime_now,
            )
        except _RefusedError as refusal:
            _refuse(f"refuses them: {refusal}")
        except Exception:  # noqa: BLE001 - a template may fail in any way that Python can
            _refuse("can not render them")


@lru_cache(maxsize=COMPILED_MAX)
def _compiled(source: str) -> Template:
    """Raises :class:`ConfigError` if ``source`` is no template."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=["jinja2.ext.loopcontrols"],
    )
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ConfigError(f"the model's chat template does not compile: {error}") from None


def _raise_exception(reason: object) -> NoReturn:
    # What a template says here may quote a placeholder, never a message.
    raise _RefusedError(str(reason)[:REASON_CHARS_MAX])


def _refuse(why: str) -> NoReturn:
    raise RequestError(
        f"messages: the model's chat template {why}",
        code="unsupported_messages",
        param="messages",
    ) from None


def _cut(rendered: str, texts: Sequence[str]) -> tuple[Segment, ...]:
    """Cut ``rendered`` at its placeholders and put the texts in."""
    pieces = _PLACEHOLDER.split(rendered)
    own, numbers = pieces[::2], [int(number) for number in pieces[1::2]]
    if any(_OPEN in piece or _CLOSE in piece for piece in own):
        _refuse("cuts a message in pieces")
    if max(numbers, default=-1) >= len(texts):
        _refuse("changes a message")
    if len(set(numbers)) != len(texts):
        _refuse("leaves a message out")
    segments: list[Segment] = []
    for index, piece in enumerate(own):
        if index:
            _append(segments, texts[numbers[index - 1]], control=False)
        if piece:
            _append(segments, piece, control=True)
    return tuple(segments)


def _append(segments: list[Segment], text: str, *, control: bool) -> None:
    if segments and segments[-1].control == control:
        text = segments.pop().text + text
    segments.append(Segment(text=text, control=control))
