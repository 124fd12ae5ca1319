"""An app of the official OpenAI client, asking by the Responses API."""

import common
import openai

TOOLS = [{"type": "function", "name": "forecast", "parameters": common.PARAMETERS, "strict": False}]


def build(base_url: str, model: str) -> common.Ask:
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0)

    async def ask(script: str, way: str) -> tuple[str, str]:
        if way == "stream":
            async with client.responses.stream(model=model, input=script) as stream:
                async for _ in stream:
                    pass
                return (await stream.get_final_response()).output_text, ""
        if way == "whole":
            return (await client.responses.create(model=model, input=script)).output_text, ""
        answer = await client.responses.create(model=model, input=script, tools=TOOLS)
        call = next(item for item in answer.output if item.type == "function_call")
        return call.arguments, call.name

    return ask


common.main(build)
