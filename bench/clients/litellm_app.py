"""An app of LiteLLM's library."""

import common
import litellm

TOOLS = [{"type": "function", "function": {"name": "forecast", "parameters": common.PARAMETERS}}]


def build(base_url: str, model: str) -> common.Ask:
    fixed = {
        "model": f"openai/{model}",
        "api_base": base_url,
        "api_key": "none",
        "num_retries": 0,
        "max_retries": 0,
    }

    async def ask(script: str, way: str) -> tuple[str, str]:
        messages = [{"role": "user", "content": script}]
        if way == "stream":
            stream = await litellm.acompletion(messages=messages, stream=True, **fixed)
            parts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            return "".join(parts), ""
        if way == "whole":
            answer = await litellm.acompletion(messages=messages, **fixed)
            return answer.choices[0].message.content, ""
        answer = await litellm.acompletion(messages=messages, tools=TOOLS, **fixed)
        function = answer.choices[0].message.tool_calls[0].function
        return function.arguments, function.name

    return ask


common.main(build)
