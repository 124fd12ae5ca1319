"""From an opening to a case: what the model says of it, and what its scores are held against.

Asks the engine of the weights that a receipt names, or the embedder; the node's own statement of
what its engine computes decides the regime. It judges nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec
from msgspec import UnsetType

from trunkline.audit import content as content_checks
from trunkline.audit import embedding, repeated, replay
from trunkline.audit.calibration import Calibration
from trunkline.audit.embedding import Remade
from trunkline.audit.judge import OTHER_RULES, Case, subject_of
from trunkline.audit.nonces import Origin
from trunkline.base.errors import MalformedError, UpstreamError, VerificationError
from trunkline.base.ports import Clock
from trunkline.crypto.digest import digest
from trunkline.inference.ports import ModelInfo
from trunkline.inference.rules import RULES
from trunkline.receipts import Receipt, VerifiedReceipt, open_nonces
from trunkline.remote.status import NOT_FOUND
from trunkline.runtime.store import Connection, Database
from trunkline.schema.audit import NonceProof, OpenedContent, ShownNonce
from trunkline.verdicts import SelfTest, Subject
from trunkline.verifier import calibrations, store
from trunkline.verifier.demanding import KnownNode
from trunkline.verifier.embedders import Embedders
from trunkline.verifier.engines import Engines, Measuring
from trunkline.verifier.judging import Judge, Place, known_subject

SELF_TEST_S: Final = 600.0
"""How long a node's statement of what its engine computes is believed to hold."""
ORIGINS_MAX: Final = 4
"""Earlier nodes of an answer that are asked whether its seed's nonce was theirs."""
UNLOGGED: Final = "not_logged"
"""Something that the log ought to have is not there, or not yet."""
NOT_EXACT: Final = "engine_not_exact"
"""What an engine says whose arithmetic is nobody else's."""


class _When(NamedTuple):
    """What tells which of a node's statements hold for a batch."""

    entry: int
    """The log's with the batch."""
    signed_ms: int | None = None
    """The batch's own date; None: as the log has it. A node that is asked could show a note with
    another date over the same receipts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What the verifier's model made of an opening."""

    calibration: Calibration
    measured: replay.Measured | None = None
    remade: Remade | None = None
    unmeasured: str = content_checks.NO_MODEL
    context_tokens: int = 0
    context_doubted: bool = False
    numerics: str | None = None
    """Whose numerics the subject has, where not the receipt's: those of a class."""


class Cases:
    """Makes one process's cases."""

    def __init__(
        self,
        database: Database,
        engines: Engines,
        embedders: Embedders,
        judge: Judge,
        *,
        nodes: Mapping[str, KnownNode],
        known: tuple[Calibration, ...],
        clock: Clock,
    ) -> None:
        """``nodes`` by vkey; ``known``: the calibrations that there are."""
        self._database = database
        self._engines = engines
        self._embedders = embedders
        self._judge = judge
        self._nodes = nodes
        self._known = known
        self._clock = clock
        self._tests: dict[str, tuple[float, SelfTest | None]] = {}

    async def make(
        self,
        node: KnownNode,
        verified: VerifiedReceipt,
        content: OpenedContent | None,
        reason: str,
        place: Place,
        *,
        patient: bool = False,
        measurable: bool = True,
    ) -> Case:
        """The case of a receipt, opened or (``content`` None) for a ``reason`` not.

        ``patient``: a node that has no self-test yet is waited for, by an UpstreamError.
        ``measurable``: the model is asked; it has not failed too often. Raises the engines' errors.
        """
        # What there is to hold against the model: of an answer given again, its origin.
        made, opened = verified.receipt, content
        origin = None
        if repeated.is_repeated(made):
            origin = await self._origin(node, made, content, place)
            opened = None
        if origin is not None and repeated.fits(verified.receipt, origin):
            made, opened = origin.receipt, origin.content
        if origin is not None and origin.entry is not None:
            # What the node had said by when the answer was made.
            when = _When(origin.entry)
        elif place.drawn is not None:
            when = _When(place.drawn.entry)
        else:
            when = _When(store.NEWEST, verified.batch.unix_ms)
        vkey = str(node.key)
        terms = await self._database.read(lambda c: store.terms_at(c, vkey, *when))
        if terms is not None and terms.answer_rules != RULES:
            looked = _Looked(calibration=self._unmeasured(made), unmeasured=OTHER_RULES)
        else:
            looked = await self._look(
                node,
                made,
                opened if measurable else None,
                when,
                drawn=place.drawn is not None,
                patient=patient,
            )
        shown: NonceProof | ShownNonce | None = None if opened is None else opened.nonce
        began = None
        if opened is not None and place.drawn is not None:
            began = await self._nonce_origin(made)
        if began is not None:
            shown = began.shown
        nonces_entry, nonces_unlogged = None, False
        if shown is not None:
            noted = digest(shown.note.encode())
            nonces_entry = await self._database.read(lambda c: _entry_of(c, noted))
            if nonces_entry is None and began is None and place.drawn is not None:
                nonces_unlogged = await self._is_unlogged(node, shown.note)
                if nonces_unlogged and measurable:
                    raise UpstreamError("the node's nonces are not in the log", code=UNLOGGED)
        subject, calibration = await self._about(made, looked, opened)
        return Case(
            receipt=verified.receipt,
            leaf=verified.leaf,
            key=node.key,
            calibration=calibration,
            content=content,
            reason=reason,
            measured=looked.measured,
            remade=looked.remade,
            unmeasured=looked.unmeasured,
            context_tokens=looked.context_tokens,
            context_doubted=looked.context_doubted,
            nonces_entry=nonces_entry,
            nonces_unlogged=nonces_unlogged,
            nonce_origin=began,
            entry=None if place.drawn is None else place.drawn.entry,
            whole=terms is not None and terms.opens_whole,
            origin=origin,
            subject=subject,
        )

    async def _origin(
        self,
        node: KnownNode,
        receipt: Receipt,
        content: OpenedContent | None,
        place: Place,
    ) -> repeated.Origin | None:
        """What its node shows that an answer given again came from, looked for in the log before
        the answer's own ``place``: a node could else log it once the answer is drawn."""
        origin = repeated.shown(content, node.key)
        if origin is None or not repeated.fits(receipt, origin):
            return origin
        batch, vkey = origin.batch, str(node.key)
        entry = await self._database.read(lambda c: store.entry_of(c, vkey, batch.root))
        if entry is not None and (place.drawn is None or entry < place.drawn.entry):
            return replace(origin, logged="yes", entry=entry)
        seen = await self._database.read(lambda c: store.saw_all_since(c, vkey, batch.unix_ms))
        return replace(origin, logged="no") if seen or entry is not None else origin

    async def _is_unlogged(self, node: KnownNode, note: str) -> bool:
        """Whether the log lacks a commitment to nonces that would have been seen there."""
        try:
            made_ms = open_nonces(note.encode(), node.key).unix_ms
        except (MalformedError, VerificationError, UnicodeEncodeError):
            # What is no commitment of the node's is judged as such.
            return False
        return await self._database.read(lambda c: store.saw_all_since(c, str(node.key), made_ms))

    async def _about(
        self, made: Receipt, looked: _Looked, opened: OpenedContent | None
    ) -> tuple[Subject, Calibration]:
        """Whose standing it is evidence on. Where too little is shown to tell what an answer would
        be held against, that is what this node's answers were held against before: what is held
        against it could else never be won back."""
        chosen = looked.calibration
        if opened is None:
            model, numerics = made.model, made.model.numerics
            known = await self._database.read(
                lambda c: known_subject(
                    c, made.key, model.served, weights=model.weights, numerics=numerics
                )
            )
            if known is not None:
                return known
        subject = subject_of(made, chosen)
        if looked.numerics is not None:
            subject = msgspec.structs.replace(subject, numerics=looked.numerics)
        return subject, chosen

    async def _nonce_origin(self, receipt: Receipt) -> Origin | None:
        """What the node that began a taken-over answer shows of its nonce, if it can be asked."""
        said = receipt.sampling
        if said.source != "inherited" or not said.nonces:
            return None
        known = {node.key.name: node for node in self._nodes.values()}
        for name in list(dict.fromkeys(before.node for before in receipt.route))[:ORIGINS_MAX]:
            if name not in known:
                continue
            try:
                shown = await known[name].caller.nonce(said.nonces, said.nonce_index)
            except UpstreamError:
                continue
            return Origin(key=known[name].key, shown=shown)
        return None

    async def _look(
        self,
        node: KnownNode,
        receipt: Receipt,
        content: OpenedContent | None,
        when: _When,
        *,
        drawn: bool,
        patient: bool,
    ) -> _Looked:
        """Ask the model that the receipt names, where it is here and there is something to ask."""
        scored = content is not None and bool(receipt.model.weights) and receipt.policy.audit
        if content is None or not scored:
            return _Looked(calibration=self._unmeasured(receipt))
        if embedding.is_embedding(receipt):
            return await self._remake(receipt, content)
        async with self._engines.of(receipt.model.weights, drawn=drawn) as scorer:
            if scorer is None:
                return _Looked(calibration=self._unmeasured(receipt))
            info = await scorer.model()
            theirs = await self._their_test(node, patient=patient)
            stated = await self._stated(node, when, theirs, patient=patient)
            calibration = await self._calibration(stated, receipt, scorer, info)
            needed = len(content.prompt) + max(map(len, content.tokens), default=0)
            context = await self._context_tokens(stated, node, receipt, needed, patient=patient)
            measured = await replay.measure(receipt, content, scorer, context_tokens=context)
            doubted = False
            if measured.unreachable == replay.NOT_AN_ANSWER:
                for room in await self._rooms(node, receipt, needed, when, patient=patient):
                    again = await replay.measure(receipt, content, scorer, context_tokens=room)
                    if not again.unreachable:
                        measured, context, doubted = again, room, True
                        break
            return _Looked(
                measured=measured,
                calibration=calibration,
                context_tokens=context,
                # Nobody signed that there is less room than the answer took.
                context_doubted=doubted or 0 < context < needed,
                numerics=_class_of(calibration, receipt, stated),
            )

    async def _remake(self, receipt: Receipt, content: OpenedContent) -> _Looked:
        """Embed what the receipt's node has embedded. Exact where both compute the same bits."""
        remade = await self._embedders.remake(receipt, content)
        if remade is None or remade.model is None:
            return _Looked(calibration=self._unmeasured(receipt))
        theirs, ours = receipt.model.numerics, remade.model.numerics
        calibration = calibrations.choose(
            self._known,
            regime="exact" if theirs == ours else "noisy",
            weights=receipt.model.weights,
            model=receipt.model.served,
            node=theirs,
            verifier=ours,
        )
        numerics = _class_of(calibration, receipt, None)
        return _Looked(calibration=calibration, remade=remade, numerics=numerics)

    async def _calibration(
        self, theirs: SelfTest | None, receipt: Receipt, scorer: Measuring, info: ModelInfo
    ) -> Calibration:
        """What the scores are held against. Exact only where both engines say the same bits."""
        ours = await _bits(scorer)
        if ours:
            await self._judge.say_self_test(info, ours)
        exact = (
            theirs is not None
            and theirs.numerics == receipt.model.numerics == info.numerics
            and (theirs.weights, theirs.bits) == (info.weights_digest, ours)
        )
        return calibrations.choose(
            self._known,
            regime="exact" if exact else "noisy",
            weights=info.weights_digest,
            model=receipt.model.served,
            node=receipt.model.numerics,
            verifier=info.numerics,
        )

    async def _stated(
        self, node: KnownNode, when: _When, shown: SelfTest | None, *, patient: bool
    ) -> SelfTest | None:
        """What the node had stated in the log that its engine computes, for its batch of ``when``:
        the last before, or the first of all. What it shows once it is asked (``shown``) counts only
        where the log may have it from before it was followed: a node could else choose its regime
        for each answer that is looked at. Raises while it may still come."""
        vkey = str(node.key)
        logged = await self._database.read(lambda c: store.self_tests_at(c, vkey, *when))
        if logged:
            return SelfTest.open_note(logged[0][1], node.key)
        if shown is None:
            return None
        made_ms = shown.unix_ms
        if not await self._database.read(lambda c: store.saw_all_since(c, vkey, made_ms)):
            return shown
        if patient:
            raise UpstreamError("the node's self-test is not in the log", code=UNLOGGED)
        return None

    async def _rooms(
        self, node: KnownNode, receipt: Receipt, needed: int, when: _When, *, patient: bool
    ) -> list[int]:
        """What the node's engine may have had room for when it made an answer that the room which
        it had stated does not explain: what it stated later, in the log; prompt and answer
        (``needed``) where it had stated nothing, or does not say. The room that it says it has
        when it is asked, it may have chosen for this answer. Raises while a statement may come."""
        vkey = str(node.key)
        # What was kept may be an earlier process's.
        self._tests.pop(vkey, None)
        shown = await self._their_test(node, patient=patient)
        logged = await self._database.read(lambda c: store.self_tests_at(c, vkey, *when))
        if not logged:
            return [needed] if _is_later(shown, receipt) else []
        tests = [SelfTest.open_note(note, node.key) for _, note in logged]
        if patient and shown is not None and shown not in tests:
            raise UpstreamError("the node's self-test is not in the log", code=UNLOGGED)
        if logged[0][0] > when.entry:
            return [needed]
        later = [_stated_context(one, receipt) or needed for one in tests[1:]]
        if when.entry == store.NEWEST and shown not in tests:
            # Who asks does not wait for what the node may have queued for the log.
            later.append(_stated_context(shown, receipt) or needed)
        return list(dict.fromkeys(later))

    async def _their_test(self, node: KnownNode, *, patient: bool) -> SelfTest | None:
        """What the node says that its engine computes, signed by it; None: it does not say."""
        vkey = str(node.key)
        kept = self._tests.get(vkey)
        now_s = self._clock.monotonic_s()
        if kept is not None and kept[1] is not None and now_s - kept[0] < SELF_TEST_S:
            return kept[1]
        try:
            note = await node.caller.self_test()
            test = SelfTest.open_note(note, node.key)
        except UpstreamError as error:
            if patient and error.error_code != NOT_FOUND:
                raise
            test = None
        except (MalformedError, VerificationError):
            test = None
        self._tests[vkey] = (now_s, test)
        return test

    async def _context_tokens(
        self,
        theirs: SelfTest | None,
        node: KnownNode,
        receipt: Receipt,
        needed: int,
        *,
        patient: bool,
    ) -> int:
        """Of the node's engine: as it signed it, else as it says now; 0 where it does not, or
        signed less than prompt and answer ``needed``. Raises where it can not be asked and is to be
        asked again."""
        if stated := _stated_context(theirs, receipt):
            return stated if stated >= needed else 0
        try:
            served = (await node.caller.info()).models
        except UpstreamError:
            if patient:
                raise
            return 0
        sizes = [one.context_tokens for one in served if one.name == receipt.model.served]
        return (sizes[0] or 0) if sizes else 0

    def _unmeasured(self, receipt: Receipt) -> Calibration:
        return calibrations.choose(
            (),
            regime="noisy",
            weights=receipt.model.weights,
            model=receipt.model.served,
            node=receipt.model.numerics,
            verifier="",
        )

    async def with_prompt(self, receipt: Receipt, content: OpenedContent) -> OpenedContent:
        """A caller has no rendered prompt: the verifier's own, which the receipt binds or not."""
        if content.prompt or embedding.is_embedding(receipt):
            return content
        async with self._engines.of(receipt.model.weights) as scorer:
            if scorer is None:
                return content
            rendered = await replay.rendered(receipt, content, scorer)
        return content if rendered is None else msgspec.structs.replace(content, prompt=rendered)


async def _bits(scorer: Measuring) -> str:
    """What the verifier's own engine computes; empty where it can not say so."""
    try:
        return await scorer.self_test()
    except UpstreamError as error:
        if error.error_code == NOT_EXACT:
            return ""
        raise


def _stated_context(theirs: SelfTest | None, receipt: Receipt) -> int:
    """What the node's engine has room for, as the node signed it; 0: it did not."""
    if theirs is None or theirs.weights != receipt.model.weights:
        return 0
    return 0 if isinstance(theirs.context_tokens, UnsetType) else theirs.context_tokens


def _is_later(theirs: SelfTest | None, receipt: Receipt) -> bool:
    """Whether the node's statement came after the answer: of another process then, perhaps."""
    ended_ms = max(receipt.times.ended_ms, receipt.created_s * 1000)
    return theirs is not None and theirs.unix_ms > ended_ms


def _class_of(calibration: Calibration, receipt: Receipt, stated: SelfTest | None) -> str | None:
    """The numerics that the calibration is for, where nothing but the receipt says that the node's
    are others: with a name of its own for each answer, no two would be about one subject."""
    if calibration.regime != "noisy":
        return None
    if stated is not None and stated.numerics == receipt.model.numerics:
        return None
    return calibration.parties.node


def _entry_of(connection: Connection, noted: str) -> int | None:
    """Where the log has a commitment to nonces, by its digest."""
    row = connection.execute("SELECT entry FROM nonces WHERE digest = ?", (noted,)).fetchone()
    return None if row is None else int(row[0])
