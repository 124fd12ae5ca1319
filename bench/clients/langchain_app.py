"""An app of LangChain's."""

import json

import common
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


def build(base_url: str, model: str) -> common.Ask:
    llm = ChatOpenAI(base_url=base_url, api_key="none", model=model, max_retries=0)
    with_tool = llm.bind_tools([tool(common.forecast)])

    async def ask(script: str, way: str) -> tuple[str, str]:
        if way == "stream":
            return "".join([str(chunk.content) async for chunk in llm.astream(script)]), ""
        if way == "whole":
            return str((await llm.ainvoke(script)).content), ""
        call = (await with_tool.ainvoke(script)).tool_calls[0]
        return json.dumps(call["args"]), call["name"]

    return ask


common.main(build)
