"""Each cheat really done, and how soon an honest verifier's numbers show it.

    python bench/attacks.py FOLDER generate [--arms A,B] [--answers N] [--half H] [--share I/N]
    python bench/attacks.py FOLDER calibrate
    python bench/attacks.py FOLDER score [--arms A,B] [--half H] [--share I/N]
    python bench/attacks.py FOLDER report

Phases keep what they made in FOLDER line by line, so that each can be ended at any time and goes on
where it was. Prompts with even numbers are for calibration, with odd ones for the test: no prompt
is in both. ``score`` holds test answers only against calibrations that are there already, and
``report`` names them by their digests. ``score --half calibration`` only spares ``calibrate`` time.

Several processes may work in one FOLDER at once, each with its ``--share``: the second of three
does every third answer, ``2/3``.

Arms on the embedded engine are scored three times: by the embedded engine, which computes alike
(exact regime), by the same library's other kernels and by PyTorch, from the same weights (noisy).
Arms on PyTorch are scored by the embedded engine (noisy). PyTorch is the extra
``trunkline[torch]``; without it, name other ``--arms`` and ``--verifiers``.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from cheats import phases, report
from cheats.arms import ARMS, BY_NAME
from cheats.machines import CLASSES
from cheats.store import Run, Store

from trunkline.crypto.digest import digest

PROMPTS = Path(__file__).with_name("prompts.txt")
NICENESS = 15
HALVES = {
    "test": (phases.TEST_HALF,),
    "calibration": (phases.CALIBRATION_HALF,),
    "both": (phases.TEST_HALF, phases.CALIBRATION_HALF),
}


def main() -> None:
    arguments = _arguments()
    os.nice(NICENESS)
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    run = Run(prompts=digest(PROMPTS.read_bytes()), tokens_max=arguments.tokens)
    store = Store(arguments.folder, run)
    arms = [BY_NAME[name] for name in arguments.arms.split(",")] if arguments.arms else ARMS
    verifiers = arguments.verifiers.split(",")
    share = phases.share(arguments.share)
    match arguments.phase:
        case "generate":
            for arm in arms:
                for half in HALVES[arguments.half or "both"]:
                    if half == phases.TEST_HALF or arm.honest:
                        wanted = phases.claims(run, prompts, half, arguments.answers)
                        phases.generate(store, run, arm, prompts, wanted[share])
        case "calibrate":
            phases.calibrate(store, run, prompts, verifiers)
        case "score":
            for half in HALVES[arguments.half or "test"]:
                for verifier in verifiers:
                    phases.score(store, run, arms, prompts, verifier, half, share)
        case _:
            report.write(store, arms, verifiers)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("phase", choices=("generate", "calibrate", "score", "report"))
    parser.add_argument("--arms", default="", help="names, separated by commas; all by default")
    parser.add_argument("--answers", type=int, default=60, help="per arm and half of the prompts")
    parser.add_argument("--half", choices=tuple(HALVES), help="both to generate, test to score")
    parser.add_argument("--share", default="1/1", help="I/N: every Nth answer, from the Ith on")
    parser.add_argument("--tokens", type=int, default=48, help="most tokens of an answer")
    parser.add_argument("--verifiers", default=",".join(CLASSES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
