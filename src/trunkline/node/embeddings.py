"""``/v1/embeddings`` by the embedded embedder.

The model was trained on texts that say whether they search or are to be found. OpenAI's format has
no field for that, so the extension ``input_type`` says it: ``query``, or ``passage`` (also spelled
``document``), which is the default, because what is stored outnumbers what is asked. Token arrays
are refused: their numbers are another tokeniser's. So is a number of ``dimensions`` that is not the
model's own.
"""

from typing import Final

from trunkline.base.errors import RequestError
from trunkline.inference.answer import Event
from trunkline.inference.ports import Embedder, EmbedderInfo
from trunkline.node.core.content import Made
from trunkline.node.core.statement import Identity, Outcome
from trunkline.node.work import Output, patiently
from trunkline.receipts import ReceiptModel, ReceiptSampling, ReceiptUsage
from trunkline.schema import openai_embeddings
from trunkline.schema.attempt import Accepted, Attempt, ServedModel
from trunkline.schema.openai_embeddings import EmbeddingsRequest

MODEL_NAME: Final = "multilingual-e5-small"
DIMENSIONS: Final = 384
PROVIDER: Final = "embedded"
HONOURED: Final = openai_embeddings.HINTS | {"dimensions", "encoding_format", "input_type"}


class EmbeddedEmbeddings:
    """Serves ``embeddings`` attempts."""

    def __init__(self, embedder: Embedder, identity: Identity) -> None:
        self._embedder = embedder
        self._identity = identity

    def models(self) -> tuple[ServedModel, ...]:
        return (ServedModel(name=MODEL_NAME, kind="embeddings", provider=PROVIDER),)

    def serves(self, attempt: Attempt) -> bool:
        return attempt.kind == "embeddings" and attempt.model == MODEL_NAME

    async def prepare(self, attempt: Attempt) -> "EmbeddingsWork":
        request = openai_embeddings.parse(bytes(attempt.request))
        check_supported(request)
        model = await self._embedder.model()
        return EmbeddingsWork(self._embedder, model, self._identity, attempt, request)


def check_supported(request: EmbeddingsRequest) -> None:
    """Raise :class:`RequestError` ``unsupported_parameter`` for the first thing not honoured."""
    asked = openai_embeddings.parameters_set(request)
    for name in sorted(asked - HONOURED):
        # The parser lets only plain names through.
        raise RequestError(
            f"{name}: is not supported by this model", code="unsupported_parameter", param=name
        )
    if request.dimensions not in (None, DIMENSIONS):
        raise RequestError(
            f"dimensions: this model has {DIMENSIONS} and no other number of them",
            code="unsupported_parameter",
            param="dimensions",
        )


class EmbeddingsWork:
    """One embeddings attempt."""

    places = 1

    def __init__(
        self,
        embedder: Embedder,
        model: EmbedderInfo,
        identity: Identity,
        attempt: Attempt,
        request: EmbeddingsRequest,
    ) -> None:
        self._embedder = embedder
        self._model = model
        self._attempt = attempt
        self._request = request
        self.accepted = Accepted(
            attempt=attempt.attempt,
            node=identity.node,
            operator=identity.operator,
            key=identity.key,
            model=MODEL_NAME,
            weights=model.weights_digest,
            numerics=model.numerics,
        )

    async def begin(self) -> None:
        """Nothing can fail yet."""

    async def run(self, output: Output) -> Outcome:
        texts = self._request.texts or ()
        embedding = self._embedder.embed(texts, query=self._request.input_type == "query")
        embedded = await patiently(embedding, output.alive)
        data = openai_embeddings.encode_response(
            embedded.vectors,
            model=MODEL_NAME,
            tokens=embedded.tokens,
            base64=self._request.base64,
        )
        await output.event(Event(id=0, data=data))
        return Outcome(
            model=ReceiptModel(
                numerics=self._model.numerics,
                provider=PROVIDER,
                requested=self._request.model,
                served=MODEL_NAME,
                weights=self._model.weights_digest,
            ),
            sampling=ReceiptSampling(caller_nonce=self._attempt.caller_nonce, source="none"),
            usage=ReceiptUsage(completion=0, counted=True, prompt=embedded.tokens),
            made=Made(vectors=tuple(embedded.vectors)),
        )

    async def close(self) -> None:
        """Nothing is held."""
