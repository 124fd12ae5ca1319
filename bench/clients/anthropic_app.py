"""An app of the official Anthropic client."""

import json

import anthropic
import common

TOOLS = [
    {
        "name": "forecast",
        "description": common.DESCRIPTION,
        "input_schema": common.PARAMETERS,
    }
]


def build(base_url: str, model: str) -> common.Ask:
    client = anthropic.AsyncAnthropic(
        base_url=base_url.removesuffix("/v1"), api_key="none", max_retries=0
    )

    async def ask(script: str, way: str) -> tuple[str, str]:
        asked = {
            "model": model,
            "max_tokens": 200,
            "messages": [{"role": "user", "content": script}],
        }
        if way == "stream":
            async with client.messages.stream(**asked) as stream:
                return await stream.get_final_text(), ""
        if way == "whole":
            return (await client.messages.create(**asked)).content[0].text, ""
        answer = await client.messages.create(**asked, tools=TOOLS)
        call = next(block for block in answer.content if block.type == "tool_use")
        return json.dumps(call.input), call.name

    return ask


common.main(build)
