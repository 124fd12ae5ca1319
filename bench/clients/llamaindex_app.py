"""An app of LlamaIndex's."""

import json

import common
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def build(base_url: str, model: str) -> common.Ask:
    llm = OpenAILike(
        api_base=base_url,
        api_key="none",
        model=model,
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    offered = [FunctionTool.from_defaults(common.forecast)]

    async def ask(script: str, way: str) -> tuple[str, str]:
        if way == "stream":
            stream = await llm.astream_complete(script)
            return "".join([part.delta or "" async for part in stream]), ""
        if way == "whole":
            return (await llm.acomplete(script)).text, ""
        answer = await llm.achat_with_tools(offered, user_msg=script)
        call = llm.get_tool_calls_from_response(answer)[0]
        return json.dumps(call.tool_kwargs), call.tool_name

    return ask


common.main(build)
