"""A chat request's messages as the embedded model is told of them: roles and plain text.

Text only. What has no place in the model's prompt (a message's ``name``, images, audio, legacy
function messages) is refused by name rather than left out.
"""

from trunkline.base.errors import RequestError
from trunkline.inference import toolcalls
from trunkline.inference.template import PromptMessage
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import Message, RefusalPart, TextPart


def prompt_messages(request: ChatRequest) -> tuple[PromptMessage, ...]:
    """The conversation, with what the model must know of tools in its first system message.

    Raises :class:`RequestError` ``unsupported_parameter`` naming what can not be honoured.
    """
    messages = [
        _one(message, f"messages[{index}]") for index, message in enumerate(request.messages)
    ]
    if request.tools and request.tool_choice != "none":
        how = toolcalls.describe(request.tools)
        if messages[0].role == "system":
            how = f"{messages.pop(0).text}\n\n{how}"
        messages.insert(0, PromptMessage(role="system", text=how))
    return tuple(messages)


def _one(message: Message, param: str) -> PromptMessage:
    for name in ("name", "audio", "function_call", "reasoning_content"):
        # A tool message's name only repeats which call it answers.
        if getattr(message, name) is not None and not (message.role == "tool" and name == "name"):
            raise _unsupported(f"{param}.{name}")
    match message.role:
        case "system" | "developer":
            return PromptMessage(role="system", text=_text(message, param))
        case "user":
            return PromptMessage(role="user", text=_text(message, param))
        case "assistant":
            said = _text(message, param) + (message.refusal or "")
            calls = toolcalls.show(message.tool_calls or ())
            return PromptMessage(role="assistant", text=said + calls)
        case "tool":
            # The flag must reach the model, and the prompt has no other place for it.
            failed = "error: " if message.is_error else ""
            return PromptMessage(role="tool", text=failed + _text(message, param))
        case "function":
            raise _unsupported(f"{param}.role")


def _text(message: Message, param: str) -> str:
    texts = []
    for index, part in enumerate(message.parts):
        match part:
            case TextPart():
                texts.append(part.text)
            case RefusalPart():
                texts.append(part.refusal)
            case _:
                raise _unsupported(f"{param}.content[{index}]")
    return "".join(texts)


def _unsupported(param: str) -> RequestError:
    return RequestError(
        f"{param}: is not supported by this model", code="unsupported_parameter", param=param
    )
