"""A stand-in for a vLLM server with our logits processor: its wire, the embedded engine's numbers.

It speaks what ``engine/vllm.py`` asks for, in the shapes that vLLM 0.32.0 was seen to answer with
(``vllm/entrypoints/openai/completion/protocol.py``), and computes with the real small model. It is
no vLLM: nothing is said here about vLLM's kernels, its batches or its processors' interface. With
``keyed=False`` it is one without our processor: it passes over the argument and is greedy.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from trunkline.engine.client import TOP_LOGPROBS_MAX, EmbeddedEngine
from trunkline.engine.keyed import ARGUMENT, decode
from trunkline.inference.ports import Generate, Sampling, Token

MAX_LOGPROBS = TOP_LOGPROBS_MAX
"""vLLM's own default too."""


class Refused(Exception):
    """A 400, in vLLM's words."""


@dataclass
class VllmStandIn:
    """What one server is like, and what it was asked."""

    engine: EmbeddedEngine
    keyed: bool = True
    model: str = "smollm2-135m-instruct"
    max_model_len: int = 512
    version: str = "0.32.0"
    other_tokens: bool = False
    raw_logits: bool = False
    """``--logprobs-mode raw_logits``."""
    cut_after: int | None = None
    """Tokens after which a stream is cut."""
    idle: bool = False
    """Streams have events without tokens, and no end."""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, path: str, body: dict[str, Any], out: asyncio.StreamWriter) -> None:
        match path:
            case "/version":
                await _reply(out, {"version": self.version})
            case "/v1/models":
                served = {"id": self.model, "object": "model", "max_model_len": self.max_model_len}
                await _reply(out, {"object": "list", "data": [served]})
            case "/tokenize":
                tokens = list(await self.engine.tokenize(body["prompt"], parse_special=True))
                tokens = tokens[::-1] if self.other_tokens else tokens
                await _reply(out, {"count": len(tokens), "tokens": tokens, "token_strs": None})
            case "/v1/completions":
                self.asked.append(body)
                try:
                    job = self._job(body)
                except (Refused, ValueError) as refused:
                    error = {"message": str(refused), "type": "BadRequestError", "code": 400}
                    await _reply(out, {"error": error}, status="400 Bad Request")
                    return
                if body.get("stream"):
                    await self._stream(job, body, out)
                else:
                    await self._whole(job, body, out)

    def _job(self, body: dict[str, Any]) -> Generate:
        wanted = body.get("prompt_logprobs") or 0
        if wanted > MAX_LOGPROBS:
            raise Refused(f"Requested prompt logprobs of {wanted}, which is greater than max")
        if len(body["prompt"]) + body["max_tokens"] > self.max_model_len:
            raise Refused("This model's maximum context length is exceeded")
        value = (body.get("vllm_xargs") or {}).get(ARGUMENT)
        prompt = tuple(body["prompt"])
        rule, given = Sampling(temperature=0.0), 0
        if self.keyed and value is not None:
            keyed = decode(value)
            rule, given = keyed.sampling, keyed.given
            if body["temperature"] != 0.0:
                raise Refused("leave temperature as it is")
        fields = {name: getattr(rule, name) for name in rule.__struct_fields__}
        fields["top_logprobs"] = body["logprobs"] if body.get("logprobs") is not None else -1
        at = len(prompt) - given
        return Generate(
            prompt=prompt[:at],
            prefix=prompt[at:],
            max_tokens=body["max_tokens"] + given,
            sampling=Sampling(**fields),
        )

    async def _stream(self, job: Generate, body: dict[str, Any], out: asyncio.StreamWriter) -> None:
        out.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"connection: close\r\n\r\n"
        )
        while self.idle:
            out.write(b'data: {"choices": [{"token_ids": []}]}\n\n')
            await out.drain()
        sent = 0
        async for token in self.engine.generate(job):
            if token.replayed:
                continue
            choice = self._choice(token, job, body, first=not sent)
            out.write(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
            await out.drain()
            sent += 1
            if sent == self.cut_after:
                return
        out.write(b"data: [DONE]\n\n")

    def _choice(
        self, token: Token, job: Generate, body: dict[str, Any], *, first: bool
    ) -> dict[str, Any]:
        # What ends an answer is the request's to say.
        ending = token.token in body["stop_token_ids"]
        choice: dict[str, Any] = {
            "index": 0,
            "text": "",
            "logprobs": None,
            "finish_reason": "stop" if ending else token.finish or None,
            "stop_reason": token.token if ending else None,
            "prompt_token_ids": [*job.prompt, *job.prefix] if first else None,
            "token_ids": [token.token],
        }
        if job.sampling.top_logprobs >= 0:
            top = {f"token_id:{token.token}": token.logprob}
            top |= {f"token_id:{one.token}": one.logprob for one in token.top}
            choice["logprobs"] = {
                "text_offset": [0],
                "token_logprobs": [token.logprob],
                "tokens": [f"token_id:{token.token}"],
                "top_logprobs": [top],
            }
        return choice

    async def _whole(self, job: Generate, body: dict[str, Any], out: asyncio.StreamWriter) -> None:
        prompt = [*job.prompt, *job.prefix]
        choice: dict[str, Any] = {"index": 0, "text": "", "token_ids": [0], "prompt_logprobs": None}
        if (count := body.get("prompt_logprobs")) is not None:
            positions = [await self._position(prompt, at, count) for at in range(1, len(prompt))]
            choice["prompt_logprobs"] = [None, *positions]
        choice["prompt_token_ids"] = prompt
        await _reply(out, {"object": "text_completion", "choices": [choice]})

    async def _position(self, prompt: list[int], at: int, count: int) -> dict[str, Any]:
        """The likeliest tokens of a place in the prompt, and its own."""
        # A bias makes the engine choose the prompt's token; what it says of it is the model's.
        rule = Sampling(temperature=0.0, top_logprobs=count, logit_bias={prompt[at]: 100.0})
        job = Generate(prompt=tuple(prompt[:at]), max_tokens=1, sampling=rule)
        (token,) = [one async for one in self.engine.generate(job)]
        assert token.token == prompt[at]
        values = {token.token: token.logprob} | {one.token: one.logprob for one in token.top}
        if self.raw_logits:
            values = {one: value + 20.0 for one, value in values.items()}
        return {
            str(one): {"logprob": value, "rank": 1, "decoded_token": ""}
            for one, value in values.items()
        }

    async def serve(self, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            length = next(
                (int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0
            )
            body = json.loads(await reader.readexactly(length)) if length else {}
            await self.answer(head[0].split()[1], body, out)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            out.close()


async def _reply(
    out: asyncio.StreamWriter, body: dict[str, Any], *, status: str = "200 OK"
) -> None:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    out.write(head.encode() + f"content-length: {len(raw)}\r\n\r\n".encode() + raw)
    await out.drain()


@asynccontextmanager
async def serving(stand_in: VllmStandIn) -> AsyncIterator[str]:
    """Its address, while it serves."""
    server = await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
