"""Generating, scoring and calibrating, each going on where it was ended."""

import sys
import time
from collections.abc import Sequence

from cheats import machines
from cheats.arms import BY_NAME, Arm, Claim, pairs, regime
from cheats.store import Answer, Cpu, Key, Run, Scores, Store, keys
from trunkline.audit import calibration
from trunkline.audit.trials import Trials, quantise
from trunkline.crypto.digest import digest
from trunkline.engine.scoring import Scoring
from trunkline.inference.ports import Score

BATCH = 32
CLIP = 0.03
"""Logit units. Where honest engines differ, margins stay below 0.013 (calibration half alone); a
larger clip would only make small cheats smaller."""
SEEDS = "SHA-256 of prompt number and repeat"
CALIBRATION_HALF, TEST_HALF = 0, 1
"""Prompts with even numbers, and with odd ones."""

EVERYTHING = slice(None)

END_TOKENS = frozenset({0, 2, 4})
"""Of the packaged model."""


def claims(run: Run, prompts: Sequence[str], half: int, answers: int) -> list[Claim]:
    """The first ``answers`` claims over the prompts of one half."""
    numbers = range(half, len(prompts), 2)
    return [
        Claim(
            prompt=numbers[at % len(numbers)], repeat=at // len(numbers), tokens_max=run.tokens_max
        )
        for at in range(answers)
    ]


def share(said: str) -> slice:
    """``I/N``, each from 1 on, as every Nth from the Ith on."""
    which, _, of = said.partition("/")
    if not (which.isdecimal() and of.isdecimal() and 1 <= int(which) <= int(of)):
        raise SystemExit(f"a share is I/N with I from 1 to N, not {said!r}")
    return slice(int(which) - 1, None, int(of))


def generate(store: Store, run: Run, arm: Arm, prompts: Sequence[str], wanted: list[Claim]) -> None:
    """Have ``arm`` answer what it has not answered yet."""
    there = keys(store.answers(arm.name))
    todo = [claim for claim in wanted if (claim.prompt, claim.repeat) not in there]
    begun = _begun(store, arm)
    if arm.begun:
        todo = [claim for claim in todo if (claim.prompt, claim.repeat) in begun]
    if not todo:
        return
    machine = machines.load(arm.machine, store.folder / "models")
    since = time.monotonic()
    for start in range(0, len(todo), BATCH):
        part = todo[start : start + BATCH]
        jobs = [
            arm.job(
                at,
                claim,
                machines.rendered(machine, arm.text(prompts, claim), arm.system),
                machine,
                begun.get((claim.prompt, claim.repeat), ()),
            )
            for at, claim in enumerate(part)
        ]

        def keep(id_: int, events: list, part: list[Claim] = part) -> None:
            claim = part[id_]
            first = begun.get((claim.prompt, claim.repeat), ())
            tokens = arm.after((*first, *(event.token for event in events)), machine)
            store.add_answer(
                arm.name, Answer(prompt=claim.prompt, repeat=claim.repeat, tokens=tokens)
            )

        seconds, tokens = machine.run(jobs, keep)
        store.add_cpu(
            Cpu(phase="generate", arm=arm.name, machine=arm.machine, tokens=tokens, seconds=seconds)
        )
    machine.close()
    print(f"{arm.name}: {len(todo)} answers in {time.monotonic() - since:.0f} s", flush=True)


def _begun(store: Store, arm: Arm) -> dict[Key, tuple[int, ...]]:
    """How the honest answers begin that ``arm`` goes on with: those that are longer."""
    if not arm.begun:
        return {}
    return {
        (one.prompt, one.repeat): one.tokens[: arm.begun]
        for one in store.answers("honest")
        if len(one.tokens) > arm.begun
    }


def score(
    store: Store,
    run: Run,
    arms: Sequence[Arm],
    prompts: Sequence[str],
    verifier: str,
    half: int,
    part: slice = EVERYTHING,
) -> None:
    """Score the answers to one half of the prompts that have no scores yet; of them ``part``, by
    their numbers in the order of ``claims``.

    Those of the test half only against a calibration that is there already.
    """
    todo: list[tuple[Arm, Answer]] = []
    chosen = range(part.start or 0, sys.maxsize, part.step or 1)
    for arm in arms:
        if verifier not in pairs(arm):
            continue
        if half == TEST_HALF and not store.calibration(arm.node, verifier).exists():
            print(f"{arm.name} by {verifier}: no calibration yet, so not scored")
            continue
        there = keys(store.scores(arm.name, verifier))
        todo += [
            (arm, answer)
            for answer in store.answers(arm.name)
            if answer.prompt % 2 == half
            and (answer.prompt, answer.repeat) not in there
            and _number(answer, prompts) in chosen
        ]
    if not todo:
        return
    machine = machines.load(verifier, store.folder / "models")
    begun = time.monotonic()
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]

        def keep(id_: int, events: list, batch: list[tuple[Arm, Answer]] = batch) -> None:
            arm, answer = batch[id_]
            found = Scores(prompt=answer.prompt, repeat=answer.repeat, scores=events)
            store.add_scores(arm.name, verifier, found)

        jobs = [
            _scoring(at, arm, answer, run, prompts, machine)
            for at, (arm, answer) in enumerate(batch)
        ]
        seconds, tokens = machine.run(jobs, keep)
        store.add_cpu(Cpu(phase="score", arm="", machine=verifier, tokens=tokens, seconds=seconds))
    machine.close()
    took = time.monotonic() - begun
    print(f"{len(todo)} answers scored by {verifier} in {took:.0f} s", flush=True)


def _number(answer: Answer, prompts: Sequence[str]) -> int:
    """Where ``claims`` has it."""
    half = range(answer.prompt % 2, len(prompts), 2)
    return answer.repeat * len(half) + half.index(answer.prompt)


def _scoring(
    id_: int,
    arm: Arm,
    answer: Answer,
    run: Run,
    prompts: Sequence[str],
    machine: machines.Machine,
) -> Scoring:
    claim = Claim(prompt=answer.prompt, repeat=answer.repeat, tokens_max=run.tokens_max)
    told = Score(
        prompt=machines.rendered(machine, arm.text(prompts, claim)),
        tokens=answer.tokens,
        sampling=arm.claimed(claim),
        sharing=machines.SHARED,
    )
    return Scoring(id_, told, ends=machine.ends, constraint=None)


def calibrate(store: Store, run: Run, prompts: Sequence[str], verifiers: Sequence[str]) -> None:
    """Score the honest answers of the calibration half, and freeze what they say."""
    for arm in (BY_NAME["honest"], BY_NAME["pytorch-honest"]):
        for verifier in verifiers:
            answered = {answer.prompt % 2 for answer in store.answers(arm.name)}
            if verifier not in pairs(arm) or CALIBRATION_HALF not in answered:
                continue
            path = store.calibration(arm.node, verifier)
            if not path.exists():
                score(store, run, [arm], prompts, verifier, CALIBRATION_HALF)
                path.write_bytes(calibration.encode(_built(store, run, arm, verifier)))
            made = calibration.decode(path.read_bytes())
            print(
                f"{path.name}: {digest(path.read_bytes())}, {made.regime}, from"
                f" {made.source.answers} answers of {made.source.tokens} tokens,"
                f" mu0 {made.mu0:.3g}"
            )


def trials(scores: Scores) -> Trials:
    return quantise([scores.scores], clip=CLIP, end_tokens=END_TOKENS)


def _built(store: Store, run: Run, arm: Arm, verifier: str) -> calibration.Calibration:
    honest = [one for one in store.scores(arm.name, verifier) if one.prompt % 2 == CALIBRATION_HALF]
    spelled = [one for one in store.answers(arm.name) if one.prompt % 2 == CALIBRATION_HALF]
    return calibration.build(
        [trials(one) for one in honest],
        parties=calibration.Parties(
            configuration=f"{arm.node} node, {machines.CLASSES[verifier].configuration} verifier",
            model=machines.MODEL,
            node=machines.CLASSES[arm.machine].numerics,
            verifier=machines.CLASSES[verifier].numerics,
            weights=machines.weights_digest(store.folder / "models"),
        ),
        regime=regime(arm, verifier),
        prompts=run.prompts,
        seeds=SEEDS,
        surplus=machines.surplus((one.tokens for one in spelled), store.folder / "models"),
        clip=CLIP,
    )
