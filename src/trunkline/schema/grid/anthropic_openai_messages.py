"""The messages of a Messages request, as Chat Completions messages (part of ``anthropic_openai``).

One Anthropic message may become several: tool results are messages of their own in the OpenAI
format, and come before what else the user's turn holds, as Anthropic asks for. Text stays in the
parts it came in. What the other format has no place for is refused by name.
"""

from collections.abc import Iterator, Sequence

from trunkline.schema import anthropic_messages as src
from trunkline.schema.parsing import unsupported

Json = dict[str, object]


def translate(request: src.MessagesRequest) -> Iterator[Json]:
    """The messages, system prompt first. Raises :class:`RequestError` for what can not be said."""
    # An empty list of blocks says nothing, and the OpenAI format has no message for it.
    if request.system is not None and request.system != ():
        yield {"role": "system", "content": _texts(request.system, "system")}
    for index, message in enumerate(request.messages):
        param = f"messages[{index}].content"
        match message.role:
            case "system":
                yield {"role": "system", "content": _system(message, param)}
            case "user":
                yield from _user(message, param)
            case "assistant":
                yield _assistant(message, param)
    if request.messages[-1].role == "assistant":
        # Anthropic continues a last assistant turn; the OpenAI format would answer it.
        raise unsupported("messages", "a prefilled answer is not supported")


def _system(message: src.Message, param: str) -> str | list[Json]:
    if isinstance(message.content, str):
        return message.content
    blocks = [block for block in message.content if isinstance(block, src.TextBlock)]
    return _texts(blocks, param)


def _texts(content: str | Sequence[src.TextBlock], param: str) -> str | list[Json]:
    if isinstance(content, str):
        return content
    return [_text(block, f"{param}[{index}]") for index, block in enumerate(content)]


def _text(block: src.TextBlock, param: str) -> Json:
    # Citations on a text block quote earlier answers; null and an empty list say nothing.
    if bytes(block.citations) not in (b"", b"null", b"[]"):
        raise unsupported(f"{param}.citations")
    return {"type": "text", "text": block.text}


def _user(message: src.Message, param: str) -> Iterator[Json]:
    if isinstance(message.content, str):
        yield {"role": "user", "content": message.content}
        return
    parts: list[Json] = []
    for index, block in enumerate(message.content):
        here = f"{param}[{index}]"
        match block:
            case src.ToolResultBlock():
                if parts:
                    raise unsupported(here, "tool results must come first in their message")
                yield _tool_result(block, here)
            case src.TextBlock():
                parts.append(_text(block, here))
            case src.ImageBlock():
                parts.append(_image(block, here))
            case src.DocumentBlock():
                parts.append(_document(block, here))
            case _:
                raise unsupported(f"{here}.type")
    if parts:
        yield {"role": "user", "content": parts}


def _tool_result(block: src.ToolResultBlock, param: str) -> Json:
    content: str | list[Json]
    if block.content is None or isinstance(block.content, str):
        content = block.content or ""
    else:
        texts = [item for item in block.content if isinstance(item, src.TextBlock)]
        if len(texts) != len(block.content):
            raise unsupported(f"{param}.content", "only text is supported in a tool result")
        content = _texts(texts, f"{param}.content") if texts else ""
    message: Json = {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
    if block.is_error is not None:
        # No such field in the OpenAI format: an extension, which our nodes hand to the template.
        message["is_error"] = block.is_error
    return message


def _image(block: src.ImageBlock, param: str) -> Json:
    match block.source:
        case src.Base64Source(media_type=media_type, data=data):
            url = f"data:{media_type};base64,{data}"
        case src.UrlSource(url=given_url):
            url = given_url
        case _:
            raise unsupported(f"{param}.source", "a file id is not supported")
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: src.DocumentBlock, param: str) -> Json:
    if block.citations is not None and block.citations.enabled:
        raise unsupported(f"{param}.citations")
    if block.context is not None:
        raise unsupported(f"{param}.context")
    if not isinstance(block.source, src.Base64Source):
        raise unsupported(f"{param}.source", "only base64 is supported for documents")
    file: Json = {
        "file_data": f"data:{block.source.media_type};base64,{block.source.data}",
    }
    if block.title is not None:
        file["filename"] = block.title
    return {"type": "file", "file": file}


def _assistant(message: src.Message, param: str) -> Json:
    if isinstance(message.content, str):
        return {"role": "assistant", "content": message.content}
    texts: list[Json] = []
    calls: list[Json] = []
    thoughts: list[str] = []
    for index, block in enumerate(message.content):
        here = f"{param}[{index}]"
        match block:
            case src.TextBlock():
                if calls:
                    raise unsupported(here, "text after a tool call is not supported")
                texts.append(_text(block, here))
            case src.ToolUseBlock():
                calls.append(_tool_use(block, here))
            case src.ThinkingBlock():
                thoughts.append(block.thinking)
            case _:
                # Redacted thinking can be read by the provider that wrote it, and nobody else.
                raise unsupported(f"{here}.type")
    translated: Json = {"role": "assistant", "content": texts or ("" if not calls else None)}
    if thoughts:
        translated["reasoning_content"] = "".join(thoughts)
    if calls:
        translated["tool_calls"] = calls
    return translated


def _tool_use(block: src.ToolUseBlock, param: str) -> Json:
    if block.caller is not None and block.caller.type != "direct":
        raise unsupported(f"{param}.caller")
    # The input's own bytes become the arguments' text: nothing is written anew.
    arguments = bytes(block.input).decode("utf-8")
    return {
        "id": block.id,
        "type": "function",
        "function": {"name": block.name, "arguments": arguments},
    }
