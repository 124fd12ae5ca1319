"""A small model that can be audited: an engine, a scorer, and a node that signs or cheats.

Logits are a function of the last tokens and of the weights' seed. ``drift`` adds what another
engine's rounding would, ``bent`` what other weights would. Vocabulary: bytes, two control tokens,
and pairs of letters, which is what its tokeniser uses wherever it can.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

import msgspec
import numpy as np

from trunkline.audit import rerun
from trunkline.audit.calibration import Calibration, Parties, build
from trunkline.audit.judge import Case
from trunkline.audit.replay import Measured, measure
from trunkline.audit.trials import Trials, quantise
from trunkline.base.errors import UpstreamError
from trunkline.crypto import merkle
from trunkline.crypto.digest import digest
from trunkline.crypto.encoding import encode_base64
from trunkline.crypto.signer import Signer, sign_note
from trunkline.engine.sequence import beside
from trunkline.inference.answer import Answer, AnswerHead, Event, as_sent, token_logprob
from trunkline.inference.messages import prompt_messages
from trunkline.inference.plan import ChatPlan
from trunkline.inference.ports import Beside, ModelInfo, Sampling, Score, TokenScore
from trunkline.inference.template import ChatTemplate
from trunkline.inference.textpipe import ChoicePipe
from trunkline.receipts import (
    Hiding,
    NonceCommitment,
    Receipt,
    ReceiptAttempt,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    StreamDigest,
    bound_bytes,
    encode,
    prompt_digest,
    receipt_leaf,
    request_digest,
    salts,
    tokens_digest,
)
from trunkline.receipts.nonces import nonce_at, nonce_leaves
from trunkline.sampling import answer_seed, choice_seed, choose, score, seed_from_caller
from trunkline.schema.audit import NonceProof, OpenedContent, OpenedLogprob

NODE = Signer("alpha.example/node", b"\x21" * 32)
SECRET = b"\x33" * 32
NONCES = 64
COMMITTED_MS = 1_780_000_000_000
BOS, EOS = 256, 257
PAIRS = tuple(f"{a}{b}".encode() for a in "abcdefgh" for b in "aeiou ")
PIECES: tuple[bytes, ...] = (*(bytes((i,)) for i in range(256)), b"", b"", *PAIRS)
FIRST_PAIR = 258
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROLS = {"<|im_start|>": BOS, "<|im_end|>": EOS}


def tokenize(text: str, *, parse_special: bool) -> tuple[int, ...]:
    tokens: list[int] = []
    data = text.encode("utf-8", "replace")
    while data:
        control = next((c for c in CONTROLS if parse_special and data.startswith(c.encode())), None)
        if control is not None:
            tokens.append(CONTROLS[control])
            data = data[len(control) :]
        elif data[:2] in PAIRS:
            tokens.append(FIRST_PAIR + PAIRS.index(data[:2]))
            data = data[2:]
        else:
            tokens.append(data[0])
            data = data[1:]
    return tuple(tokens)


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Weights and an engine that computes with them."""

    weights: int = 1
    drift: float = 0.0
    bent: float = 0.0

    @cached_property
    def info(self) -> ModelInfo:
        weights = digest(f"toy {self.weights}".encode())
        return ModelInfo(
            name="toy",
            weights_digest=weights,
            source_digest=weights,
            numerics=f"toy-{self.drift}",
            context_tokens=512,
            vocabulary_size=len(PIECES),
            eos_token_ids=(EOS,),
            chat_template=TEMPLATE,
            bos_text="<|im_start|>",
            eos_text="<|im_end|>",
        )

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """After ``tokens``."""
        key = sha256(repr((self.weights, tuple(tokens[-2:]))).encode()).digest()
        # Half of the places are hard, half easy, as with words.
        spread = 2.0 if key[0] & 1 else 6.0
        generator = np.random.default_rng(int.from_bytes(key[:8], "big"))
        x = generator.standard_normal(len(PIECES)) * spread
        x[:FIRST_PAIR] -= 30.0
        x[EOS] = x.max() - 5.0
        for size, name in ((self.drift, b"drift"), (self.bent, b"bent")):
            if size:
                other = np.random.default_rng(
                    int.from_bytes(sha256(name + key).digest()[:8], "big")
                )
                x += size * other.standard_normal(len(PIECES))
        return x.astype(np.float32)

    def say(self, prompt: Sequence[int], sampling: Sampling, most: int) -> tuple[int, ...]:
        """An answer by the rule."""
        said: list[int] = []
        counts: dict[int, int] = {}
        while len(said) < most and EOS not in counts:
            logits = self.logits((*prompt, *said))
            token = choose(logits, sampling, seed=sampling.seed, position=len(said), counts=counts)
            said.append(token)
            counts[token] = counts.get(token, 0) + 1
        return tuple(said)

    def beside(self, before: Sequence[int], token: int, top: int) -> Beside:
        """What is to be said beside ``token`` after ``before``."""
        return beside(token, self.logits(before), top)

    def score(self, job: Score) -> tuple[TokenScore, ...]:
        found = []
        top = job.sampling.top_logprobs
        counts: dict[int, int] = {}
        for position, token in enumerate(job.tokens):
            before = (*job.prompt, *job.tokens[:position])
            logits = self.logits(before)
            held = score(
                logits, job.sampling, seed=job.sampling.seed, position=position, counts=counts,
                token=token, ends=(EOS,),
            )  # fmt: skip
            counts[token] = counts.get(token, 0) + 1
            found.append(
                TokenScore(
                    token=token, position=position, margin=held.margin, kept=held.kept,
                    decided=held.decided, entropy=held.entropy, end=held.end,
                    beside=None if top < 0 else self.beside(before, token, top),
                )
            )  # fmt: skip
        return tuple(found)


class ToyScorer:
    """``ports.Scorer``."""

    def __init__(self, toy: Toy | None = None, *, down: bool = False) -> None:
        self.toy = toy or Toy()
        self.down = down

    async def model(self) -> ModelInfo:
        return self.toy.info

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return tokenize(text, parse_special=parse_special)

    def pieces(self) -> Sequence[bytes]:
        return PIECES

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        if self.down:
            raise UpstreamError("the engine's process is gone", code="engine_crashed")
        return self.toy.score(job)

    async def self_test(self) -> str:
        return digest(repr(self.toy).encode())

    async def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Made:
    """An answer with its receipt and what its node opens."""

    receipt: Receipt
    content: OpenedContent

    @property
    def leaf(self) -> bytes:
        return receipt_leaf(encode(self.receipt))

    async def case(self, calibration: Calibration, scorer: ToyScorer | None = None) -> Case:
        measured = await measure(self.receipt, self.content, scorer or ToyScorer())
        return self.case_of(calibration, measured)

    def case_of(self, calibration: Calibration, measured: Measured | None) -> Case:
        return Case(
            receipt=self.receipt, leaf=self.leaf, key=NODE.vkey, calibration=calibration,
            content=self.content, measured=measured, nonces_entry=3, entry=9,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ToyNode:
    """Answers as it says it does, unless a field makes it cheat."""

    toy: Toy = field(default_factory=Toy)
    hidden: str = ""
    """A system message that nobody sent."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    """Parameters used instead of the request's."""
    seed: bytes | None = None
    """Used instead of the one that the receipt names."""
    cut: int = 0
    """Ends every answer after so many tokens, as if the model had."""
    context_tokens: int = 0
    """Its engine has less room than the toy's."""
    reads: Mapping[str, object] = field(default_factory=dict)
    """Members that it takes for the request's own, and answers by."""
    tells: Callable[[Sequence[int], int, int], Beside] | None = None
    """Says, in place of its model, what stands beside a token: of the tokens before it, itself, and
    how many others are asked for."""

    def serve(
        self,
        number: int = 0,
        *,
        given: Sequence[int] | None = None,
        **request: object,
    ) -> Made:
        """Answer number ``number``. ``given``: tokens taken over, per choice."""
        raw = msgspec.json.encode(
            {"model": "toy", "messages": [{"role": "user", "content": f"say bada {number}"}]}
            | {"stream": True, "max_tokens": 40}
            | request
        )
        hiding = Hiding("7e" * 32, answer=f"ans_{number}", attempt=f"att_{number}")
        bound = hiding.bind("request.digest", request_digest(raw))
        read = msgspec.json.encode(msgspec.json.decode(raw) | dict(self.reads))
        asked = rerun.read_request(OpenedContent(request=msgspec.Raw(read), salts={}))
        prompt = self._prompt(raw, number)
        info = Toy(weights=self.toy.weights).info
        planned = rerun.plan(asked, prompt, info, self.context_tokens)
        nonce, caller = nonce_at(SECRET, number % NONCES), sha256(b"%d" % number).digest()
        seed = answer_seed(caller, nonce, bound_bytes(bound))
        own = None if asked.seed is None else seed_from_caller(asked.seed)
        source = "inherited" if given is not None else "nonces" if own is None else "caller"
        seed = own or seed
        tokens = tuple(
            self._tokens(planned, choice_seed(self.seed or seed, choice))
            for choice in range(planned.choices)
        )
        said = self._said(planned, tokens)
        receipt = self._receipt(number, raw, planned, tokens, said, given, hiding)
        receipt = msgspec.structs.replace(
            receipt,
            sampling=ReceiptSampling(
                caller_nonce=caller.hex(),
                min_p=repr(planned.sampling.min_p),
                node_nonce=nonce.hex() if own is None else "",
                nonce_index=number % NONCES if own is None else 0,
                nonces=commitment().root.hex() if own is None else "",
                seed=seed.hex(),
                source=source,
                temperature=repr(planned.sampling.temperature),
                top_k=planned.sampling.top_k,
                top_p=repr(planned.sampling.top_p),
            ),
        )
        return Made(
            receipt=receipt,
            content=OpenedContent(
                request=msgspec.Raw(raw),
                salts=salts(receipt, bytes.fromhex("7e" * 32)),
                prompt=prompt,
                tokens=tokens,
                logprobs=said,
                nonce=nonce_proof(number % NONCES) if own is None else None,
            ),
        )

    def _prompt(self, raw: bytes, number: int) -> tuple[int, ...]:
        shown = msgspec.json.decode(raw)
        if self.hidden:
            shown["messages"].insert(0, {"role": "system", "content": self.hidden})
        content = OpenedContent(request=msgspec.Raw(msgspec.json.encode(shown)), salts={})
        template = ChatTemplate(TEMPLATE, bos_text="<|im_start|>", eos_text="<|im_end|>")
        segments = template.render(
            prompt_messages(rerun.read_request(content)), created_s=1_780_000_000 + number
        )
        parts = (tokenize(part.text, parse_special=part.control) for part in segments)
        return tuple(token for part in parts for token in part)

    def _tokens(self, planned: ChatPlan, seed: bytes) -> tuple[int, ...]:
        sampling = msgspec.structs.replace(planned.sampling, seed=seed, **self.sampling)
        most = planned.pipe.tokens_max
        if self.cut:
            said = self.toy.say(planned.prompt, sampling, min(most, self.cut))
            return said if said[-1] == EOS else (*said[:-1], EOS)
        pipe = ChoicePipe(planned.pipe, PIECES)
        for token in self.toy.say(planned.prompt, sampling, most):
            if not pipe.finish:
                pipe.push(token)
        return tuple(pipe.tokens)

    def _said(
        self, planned: ChatPlan, tokens: tuple[tuple[int, ...], ...]
    ) -> tuple[tuple[OpenedLogprob, ...], ...]:
        if not planned.logprobs:
            return ()
        tell, top = self.tells or self.toy.beside, planned.sampling.top_logprobs
        said = [
            [
                tell((*planned.prompt, *choice[:at]), token, top)
                for at, token in enumerate(choice)
            ]
            for choice in tokens
        ]  # fmt: skip
        return tuple(tuple(as_sent(one.logprob, one.top) for one in choice) for choice in said)

    def _receipt(
        self,
        number: int,
        raw: bytes,
        planned: ChatPlan,
        tokens: tuple[tuple[int, ...], ...],
        said: tuple[tuple[OpenedLogprob, ...], ...],
        given: Sequence[int] | None,
        hiding: Hiding,
    ) -> Receipt:
        info = self.toy.info
        head = AnswerHead(
            answer=f"ans_{number}",
            created_s=1_780_000_000 + number,
            model="toy",
            fingerprint=AnswerHead.fingerprint_of(info.numerics),
        )
        answer, events = events_of(head, planned, tokens, given, said)
        bound = hiding.bind("request.digest", request_digest(raw))
        chain = StreamDigest(bound_bytes(bound), f"att_{number}")
        for event in events:
            if event.id is not None and event.data is not None:
                chain.update(event.data)
        taken = tuple(choice[:count] for choice, count in zip(tokens, given or (), strict=False))
        earlier = ReceiptAttempt(
            attempt="att_x",
            error="upstream_stalled",
            node="beta.example/node",
            tokens=tuple(given or ()),
        )
        return Receipt(
            answer=f"ans_{number}",
            attempt=f"att_{number}",
            created_s=1_780_000_000 + number,
            key=str(NODE.vkey),
            model=ReceiptModel(
                numerics=info.numerics,
                provider="embedded",
                requested="toy",
                served="toy",
                weights=info.weights_digest,
            ),
            node=NODE.vkey.name,
            operator="alpha.example",
            policy=ReceiptPolicy(audit=True, mode="batched"),
            previous="",
            request=ReceiptRequest(
                client=hiding.bind("request.client", request_digest(raw)),
                digest=bound,
                format="openai.chat",
                prompt=hiding.bind("request.prompt", prompt_digest(planned.prompt)),
            ),
            response=ReceiptResponse(
                chunks=chain.chunks,
                digest=hiding.bind("response.digest", chain.close()),
                finish=answer.finish,
                resumed=tuple(given or ()),
                resumed_digest=hiding.bind("response.resumed_digest", tokens_digest(taken))
                if given is not None
                else "",
                status=200,
                tokens=hiding.bind("response.tokens", tokens_digest(tokens)),
            ),
            route=() if given is None else (earlier,),
            salt="55" * 32,
            sampling=ReceiptSampling(caller_nonce="00" * 32, source="none"),
            times=ReceiptTimes(
                arrived_ms=COMMITTED_MS + 1000,
                ended_ms=COMMITTED_MS + 2000,
                first_token_ms=COMMITTED_MS + 1500,
            ),
            usage=ReceiptUsage(
                completion=sum(map(len, tokens)), counted=True, prompt=len(planned.prompt)
            ),
        )


def events_of(
    head: AnswerHead,
    planned: ChatPlan,
    tokens: Sequence[Sequence[int]],
    given: Sequence[int] | None,
    said: Sequence[Sequence[OpenedLogprob]] = (),
) -> tuple[Answer, list[Event]]:
    """The events that the attempt sends, written down as the attempt protocol says it."""
    answer = Answer(
        head,
        choices=planned.choices,
        pipe=planned.pipe,
        pieces=PIECES,
        prompt_tokens=len(planned.prompt),
        stream=planned.stream,
        include_usage=planned.include_usage,
    )
    every: list[Event] = list(answer.opening())
    sent_before = 0
    left = [list(choice) for choice in tokens]
    last_given = sum(given or ())
    taken = 0
    while (choice := answer.next_choice) is not None:
        at = len(tokens[choice]) - len(left[choice])
        token = left[choice].pop(0)
        one = said[choice][at] if said else None
        scored = None if one is None else token_logprob(PIECES, token, one.logprob, one.top)
        own, *after = answer.push(token, scored)
        every.append(own)
        taken += 1
        if taken == last_given:
            sent_before = len(every)
        every.extend(after)
    every.extend(answer.closing())
    return answer, every[sent_before:]


def commitment() -> NonceCommitment:
    root = merkle.root(nonce_leaves(SECRET, NONCES))
    return NonceCommitment(node=NODE.vkey.name, count=NONCES, root=root, unix_ms=COMMITTED_MS)


def nonce_proof(index: int, made: NonceCommitment | None = None) -> NonceProof:
    leaves = nonce_leaves(SECRET, NONCES)
    path = merkle.audit_path(leaves, index)
    note = sign_note((made or commitment()).text(), NODE)
    return NonceProof(
        note=note.decode(), index=index, path=tuple(encode_base64(hash_) for hash_ in path)
    )


PARTIES = Parties(
    configuration="toy/one",
    model="toy",
    node="toy-0.0",
    verifier="toy-0.0",
    weights=Toy().info.weights_digest,
)
PROMPTS = digest(b"prompts")


def scored(node: ToyNode, verifier: Toy, numbers: Sequence[int], **request: object) -> list[Trials]:
    """Trials of a node's answers under a verifier's engine, without anything around them."""
    found = []
    for number in numbers:
        made = node.serve(number, **request)
        asked = rerun.read_request(made.content)
        planned = rerun.plan(asked, made.content.prompt, verifier.info)
        seed = bytes.fromhex(made.receipt.sampling.seed)
        scores = [
            verifier.score(
                Score(
                    prompt=made.content.prompt,
                    tokens=tuple(tokens),
                    sampling=msgspec.structs.replace(
                        planned.sampling, seed=choice_seed(seed, index)
                    ),
                )
            )
            for index, tokens in enumerate(made.content.tokens)
        ]
        found.append(quantise(scores, clip=0.25, end_tokens={EOS}))
    return found


def exact(clean: int = 3_200) -> Calibration:
    """As if so many answers had been found clean."""
    one = Trials(bins=(1,), ends=(0,), margins=(0,), mismatches=0, tokens=1)
    return build([one] * clean, parties=PARTIES, regime="exact", prompts=PROMPTS, seeds="counted")


def but(made: Made, **content: object) -> Made:
    """The same receipt with another opening."""
    return replace(made, content=msgspec.structs.replace(made.content, **content))


def saying(made: Made, part: str, **members: object) -> Made:
    """The same opening with another receipt: ``part`` is one of its structs, or empty."""
    receipt = made.receipt
    if not part:
        return replace(made, receipt=msgspec.structs.replace(receipt, **members))
    changed = msgspec.structs.replace(getattr(receipt, part), **members)
    return replace(made, receipt=msgspec.structs.replace(receipt, **{part: changed}))
