"""The report: a table per pair of engines, plots, and what it cost. Printed, and kept as files."""

from collections.abc import Sequence

from cheats import conduct, numbers, plot
from cheats.arms import BY_NAME, Arm, pairs
from cheats.numbers import Pool
from cheats.phases import TEST_HALF
from cheats.store import Store
from trunkline.audit import calibration

NAMED_TOGETHER = ("requantised-Q4_K", "requantised-Q8_0", "temperature-0.9", "kv-q8_0")
"""Arms that the nodes of ``conduct.many_nodes`` are made of."""
NAMED_SHARES = (1.0, 0.1)
SHARES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01)
"""Of answers that are an arm's, the others being honest."""


def write(store: Store, arms: Sequence[Arm], verifiers: Sequence[str]) -> None:
    """Print all tables; write ``report.md`` and one plot per pair into the store's folder."""
    lines: list[str] = []
    for node in ("embedded", "pytorch"):
        for verifier in verifiers:
            lines += _pair(store, arms, node, verifier)
    lines += _conduct(store)
    lines += _costs(store)
    text = "\n".join(lines) + "\n"
    (store.folder / "report.md").write_text(text, encoding="utf-8")
    print(text, end="")


def _pair(store: Store, arms: Sequence[Arm], node: str, verifier: str) -> list[str]:
    path = store.calibration(node, verifier)
    if not path.exists():
        return []
    frozen = calibration.decode(path.read_bytes())
    honest_arm = BY_NAME["honest" if node == "embedded" else "pytorch-honest"]
    pools = {
        arm.name: Pool(found, frozen)
        for arm in (honest_arm, *arms)
        if arm.node == node
        and verifier in pairs(arm)
        and (found := [s for s in store.scores(arm.name, verifier) if s.prompt % 2 == TEST_HALF])
    }
    honest = pools.pop(honest_arm.name, None)
    if honest is None:
        return []
    failures, tokens, largest = numbers.false_alarms(honest)
    lines = [
        f"## {node} node, {verifier} verifier: {frozen.regime}",
        "",
        f"Calibration {frozen.digest}: {frozen.source.answers} answers, {frozen.source.tokens}"
        f" tokens, mu0 {frozen.mu0:.3g}, alpha {frozen.alpha}.",
        f"Honest test answers: {failures} failed in {tokens} tokens of {len(honest.answers)}"
        f" answers; {numbers.mismatches(honest)} tokens differ; largest wealth {largest:.3g}"
        f" of {1 / float(frozen.alpha):g}.",
        "",
    ]
    if not pools:
        return lines
    lines += [
        "| arm | tokens | differ | "
        + " | ".join(f"AUC {size}" for size in numbers.WINDOWS)
        + " | first sign | "
        + " | ".join(f"verdict, {share:.0%}" for share in SHARES)
        + " |",
        "| --- |" + " --- |" * (3 + len(numbers.WINDOWS) + len(SHARES)),
    ]
    curves: list[plot.Series] = []
    for name, pool in pools.items():
        found = [numbers.auc_with_interval(honest, pool, size) for size in numbers.WINDOWS]
        curves.append(
            (name, [(size, value[0]) for size, value in zip(numbers.WINDOWS, found, strict=True)])
        )
        cells = [f"{mid:.3f} ({low:.3f}–{high:.3f})" for mid, low, high in found]
        verdicts = _verdicts(pool, honest)
        lines.append(
            f"| {name} | {pool.tokens} | {numbers.mismatches(pool) / pool.tokens:.1%} | "
            + " | ".join([*cells, _count(numbers.median_tokenwise(pool)), *map(_count, verdicts)])
            + " |"
        )
    plot.write(
        store.folder / f"auc-{node}-{verifier}.svg",
        f"{node} node, {verifier} verifier ({frozen.regime})",
        "tokens looked at",
        "AUC",
        curves,
    )
    return [*lines, "", *_many(honest, pools), ""]


def _many(honest: Pool, pools: dict[str, Pool]) -> list[str]:
    """What looking at all nodes together adds."""
    found = [
        one
        for name in NAMED_TOGETHER
        if name in pools
        for share in NAMED_SHARES
        for one in conduct.many_nodes(name, pools[name], honest, share)
    ]
    if not found:
        return []
    return [
        f"{conduct.CHEATS} of {conduct.NODES} nodes cheat; e-BH names them by all nodes' wealth, at"
        f" most {conduct.ALPHA_SHARE:.0%} of those named being honest on average.",
        "",
        "| arm | its share | audits of each node | cheats named | honest among the named |"
        " by the node's own test |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one.arm} | {one.share:.0%} | {one.audits} | {one.together:.0%} |"
            f" {one.wrongly:.1%} | {one.alone:.0%} |"
            for one in found
        ),
    ]


def _conduct(store: Store) -> list[str]:
    """Withholding and collusion."""
    path = store.calibration("embedded", "f16")
    if not path.exists():
        return []
    frozen = calibration.decode(path.read_bytes())
    return [
        "## Receipts that are not opened, and verifiers that lie (simulated)",
        "",
        "| a node that | drawn by each of 2 | its cheats | answers until one is demanded | then |"
        " verdict | standing |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {one.style} | {one.percent:g} % | {one.share:.0%} | {one.answers:.0f} |"
            f" {one.seconds:.0f} s | {one.verdict} | {one.standing} |"
            for one in conduct.withholding(frozen)
        ),
        "",
        "| verdicts on one answer, all in the log | the gateway's standing | disputes |",
        "| --- | --- | --- |",
        *(f"| {one.case} | {one.standing} | {one.disputes} |" for one in conduct.collusion()),
        "",
    ]


def _verdicts(pool: Pool, honest: Pool) -> list[float]:
    """Median tokens per share, from all to few; what a share does not show, a smaller will not."""
    found: list[float] = []
    for share in SHARES:
        hopeless = bool(found) and found[-1] == float("inf")
        found.append(float("inf") if hopeless else numbers.median_tokens(pool, honest, share))
    return found


def _count(tokens: float) -> str:
    return f"> {numbers.STREAM_TOKENS}" if tokens == float("inf") else f"{tokens:.0f}"


def _costs(store: Store) -> list[str]:
    """CPU per token of an answer, prompts included; and verifying over generating."""
    sums: dict[tuple[str, str], list[float]] = {}
    for one in store.cpu():
        total = sums.setdefault((one.phase, one.machine), [0.0, 0.0])
        total[0] += one.seconds
        total[1] += one.tokens
    each = {key: 1000 * seconds / max(tokens, 1) for key, (seconds, tokens) in sums.items()}
    lines = ["## CPU", "", "| what | machine | ms a token |", "| --- | --- | --- |"]
    lines += [f"| {phase} | {machine} | {ms:.1f} |" for (phase, machine), ms in each.items()]
    generating = each.get(("generate", "f16"))
    lines += [
        "",
        *(
            f"Verifying by {machine} over generating eight at once: {ms / generating:.2f}."
            for (phase, machine), ms in each.items()
            if phase == "score" and generating
        ),
    ]
    return lines
