"""An app of the official OpenAI client."""

import common
import openai

TOOLS = [{"type": "function", "function": {"name": "forecast", "parameters": common.PARAMETERS}}]


def build(base_url: str, model: str) -> common.Ask:
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)

    async def ask(script: str, way: str) -> tuple[str, str]:
        messages = [{"role": "user", "content": script}]
        if way == "stream":
            stream = await client.chat.completions.create(
                model=model, messages=messages, stream=True
            )
            parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            return "".join(parts), ""
        if way == "whole":
            answer = await client.chat.completions.create(model=model, messages=messages)
            return answer.choices[0].message.content, ""
        answer = await client.chat.completions.create(model=model, messages=messages, tools=TOOLS)
        function = answer.choices[0].message.tool_calls[0].function
        return function.arguments, function.name

    return ask


common.main(build)
