"""A real network's front door as plain HTTP, and its evidence: beside the official clients."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
from tests.support.network import RunningNetwork

import trunkline

MODEL = "smollm2-135m-instruct"
EMBEDDER = "multilingual-e5-small"
CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
EMBEDDINGS = "/v1/embeddings"
FINAL_S_MAX = 60
TIMEOUT_S = 90.0

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": WEATHER_SCHEMA,
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """The error's body, in either client's format."""
        return self.json()["error"]

    @property
    def answer(self) -> str:
        """Id of the answer, for its evidence."""
        return self.headers["trunkline-receipt"]


def send(
    network: RunningNetwork,
    path: str,
    body: bytes | None = None,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request, byte for byte as given."""
    connection = http.client.HTTPConnection(urlsplit(network.base_url).netloc, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(status=response.status, headers=found, body=response.read())
    finally:
        connection.close()


def chat(
    network: RunningNetwork, headers: Mapping[str, str] | None = None, **members: Any
) -> Reply:
    """One chat call; ``members`` of the body, over short defaults."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Say yes."}]}
    return send(
        network, CHAT, json.dumps(body | {"max_tokens": 4} | members).encode(), headers=headers
    )


def evidence(network: RunningNetwork, answer: str) -> bytes:
    """The answer's evidence file, final."""
    path = f"/trunkline/v1/receipts/{answer}?wait_s={FINAL_S_MAX}"
    reply = send(network, path, method="GET")
    assert (reply.status, reply.headers["trunkline-state"]) == (200, "final")
    return reply.body


def verify(
    network: RunningNetwork,
    answer: str,
    *,
    request: bytes | None = None,
    response: bytes | None = None,
) -> trunkline.Report:
    """Verify an answer offline, against the network's own policy and keys."""
    keys = msgspec.json.decode(
        (network.data / "keys.json").read_bytes(), type=list[trunkline.EvidenceKey]
    )
    report = trunkline.verify(
        evidence(network, answer),
        policy=(network.data / "policy").read_text(),
        trusted_keys=keys,
        request=request,
        response=response,
    )
    assert report.answer == answer
    return report


def results(report: trunkline.Report) -> dict[str, str]:
    """Result by title of each step."""
    return {step.title: step.result for step in report.steps}
