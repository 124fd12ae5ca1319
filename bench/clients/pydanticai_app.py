"""An app of pydantic-ai's."""

import json

import common
from pydantic_ai import Agent, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


def build(base_url: str, model: str) -> common.Ask:
    llm = OpenAIChatModel(model, provider=OpenAIProvider(base_url=base_url, api_key="none"))
    agent = Agent(llm)

    def called(city: str, days: int, unit: str = "C") -> dict[str, object]:
        return {"city": city, "days": days, "unit": unit}

    with_tool = Agent(llm, output_type=ToolOutput(called, name="forecast"), retries=0)

    async def ask(script: str, way: str) -> tuple[str, str]:
        if way == "stream":
            async with agent.run_stream(script) as result:
                return "".join([part async for part in result.stream_text(delta=True)]), ""
        if way == "whole":
            return (await agent.run(script)).output, ""
        return json.dumps((await with_tool.run(script)).output), "forecast"

    return ask


common.main(build)
