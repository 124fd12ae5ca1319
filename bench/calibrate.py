"""Makes the calibrations that are shipped: honest answers, scored by honest verifiers.

    python bench/calibrate.py FOLDER [--answers N] [--pytorch-answers N] [--ship]

Goes on where it was ended, like ``bench/attacks.py``, whose prompts, honest arms and folder layout
it uses. ``--ship`` puts what it made beside the code that reads it. PyTorch takes about five times
as long to generate, and is the extra ``trunkline[torch]``; ``--pytorch-answers 0`` and
``--verifiers f16,other-kernels`` do without.
"""

import argparse
import os
import shutil
from pathlib import Path

from attacks import NICENESS, PROMPTS
from cheats import phases
from cheats.arms import BY_NAME
from cheats.machines import CLASSES
from cheats.store import Run, Store

from trunkline.crypto.digest import digest

SHIPPED = Path(__file__).parent.parent / "src" / "trunkline" / "audit" / "calibrations"


def main() -> None:
    arguments = _arguments()
    os.nice(NICENESS)
    prompts = PROMPTS.read_text(encoding="utf-8").splitlines()
    run = Run(prompts=digest(PROMPTS.read_bytes()), tokens_max=arguments.tokens)
    store = Store(arguments.folder, run)
    for name, answers in (
        ("honest", arguments.answers),
        ("pytorch-honest", arguments.pytorch_answers),
    ):
        wanted = phases.claims(run, prompts, phases.CALIBRATION_HALF, answers)
        phases.generate(store, run, BY_NAME[name], prompts, wanted)
    phases.calibrate(store, run, prompts, arguments.verifiers.split(","))
    if arguments.ship:
        SHIPPED.mkdir(exist_ok=True)
        for path in sorted((store.folder / "calibration").glob("*.json")):
            shutil.copyfile(path, SHIPPED / path.name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=int, default=3200)
    parser.add_argument("--pytorch-answers", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--verifiers", default=",".join(CLASSES))
    parser.add_argument("--ship", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
