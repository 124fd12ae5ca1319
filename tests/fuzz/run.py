"""Fuzzes the parsers with atheris, one process per target, for a time that is shared among them.

    make fuzz SECONDS=600
    .venv/bin/python scripts/fuzz.py --seconds 600 [--only note,receipt] [--keep]

Coverage-guided: every branch of ``trunkline`` taken while parsing is seen. What a target finds new
goes to ``build/fuzz``; ``--keep`` puts some of it into ``corpus``, small, which the
ordinary tests replay with plain Python. It ends with 1 as soon as a target finds
something, and the input is then in ``build/fuzz``: add it to the corpus with the fix.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import seeds

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FOUND = HERE.parents[1] / "build" / "fuzz"
INPUT_BYTES_MAX = 16 * 1024
INPUT_S_MAX = 5
MEMORY_MIB_MAX = 1024
KEPT_MAX = 32
"""Inputs per target that are kept: the smallest."""
KEPT_BYTES_MAX = 4096


def fuzz(target: str, arguments: list[str]) -> None:
    """Become libFuzzer for one target. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["trunkline"]):
        from tests.fuzz import targets

    function = targets.one

    def feed(data: bytes) -> None:
        function(target, data)

    atheris.Setup([sys.argv[0], *arguments], feed)
    atheris.Fuzz()


def run(target: str, seconds: int) -> int:
    """Fuzz one target in a process of its own; its exit code."""
    found = FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds.write(target, Path(folder))
        kept = CORPUS / target
        command = [
            *_self(target), str(found), folder, *([str(kept)] if kept.is_dir() else []),
            f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_S_MAX}",
            f"-rss_limit_mb={MEMORY_MIB_MAX}", f"-artifact_prefix={FOUND}/{target}-",
            "-print_final_stats=1", "-verbosity=0",
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    executed = [line for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    count = int(executed[0].rpartition(":")[2]) if executed else 0
    print(f"{target:<16}{count:>12,} inputs, {len(list(found.iterdir()))} kept", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], file=sys.stderr)
    return done.returncode


def keep(target: str) -> None:
    """Put what was found into the corpus: the smallest inputs, and the largest that are small."""
    kept = CORPUS / target
    sources = [path for folder in (kept, FOUND / target) for path in sorted(folder.glob("*"))]
    found = {path.read_bytes() for path in sources}
    small = sorted(
        (data for data in found if len(data) <= KEPT_BYTES_MAX), key=lambda data: (len(data), data)
    )
    # As many small ones as large: the first refusals, and what came furthest.
    chosen = small if len(small) <= KEPT_MAX else small[: KEPT_MAX // 2] + small[-KEPT_MAX // 2 :]
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for data in chosen:
        (kept / f"{hashlib.sha256(data).hexdigest()[:16]}.bin").write_bytes(data)


def _self(target: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz.run", "--target", target]


def main() -> int:
    """0: nothing was found."""
    if "--target" in sys.argv:
        at = sys.argv.index("--target")
        fuzz(sys.argv[at + 1], sys.argv[at + 2 :])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=120, help="for all targets together")
    parser.add_argument("--only", default=",".join(seeds.NAMES))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    names = options.only.split(",")
    for target in names:
        if run(target, max(1, options.seconds // len(names))):
            return 1
        if options.keep:
            keep(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
