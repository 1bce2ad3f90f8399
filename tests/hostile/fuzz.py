"""Fuzzes every parser of the data room: random damage to sound files, for as long as one likes.

    python tests/hostile/fuzz.py --minutes 10
    python tests/hostile/fuzz.py --minutes 2 --format coco --seed 7

The targets are the formats in seeds.py, in turn; what is a fault, judge.py tells. A fault is
printed with its seed, its input kept in --keep (by default fuzz-faults), and the exit code is then 1.
"""

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path

from corruptions import mutate
from judge import Judge
from seeds import SEEDS
from specials import put


def damage(file: str, rng: random.Random) -> Callable[[Path], None]:
    """Return what does one to six random things to a file."""

    def break_it(root: Path) -> None:
        content = (root / file).read_bytes()
        for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
            content = mutate(content, rng)
        put(root / file, content)

    return break_it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long")
    parser.add_argument("--cases", type=int, help="how many cases in all, instead of how long")
    parser.add_argument("--format", choices=SEEDS, action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="the first case's seed; each case counts one further")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="where the input of faults is kept")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (6_000_000_000, 6_000_000_000))
    end = time.monotonic() + 60 * options.minutes
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        judges = {name: Judge(name, Path(folder, name)) for name in options.format or SEEDS}
        files = cycle([(name, file) for name, judge in judges.items() for file in judge.seed.files])
        for number in count(options.seed):
            done = sum(verdicts.values())
            if done == options.cases or (options.cases is None and time.monotonic() > end):
                break
            name, file = next(files)
            verdict = judges[name].judge(damage(file, random.Random(number)))
            fault = verdict not in ("error", "finding", "sound")
            verdicts["FAULT" if fault else verdict] += 1
            if fault:
                kept = options.keep / f"{name} {number}"
                shutil.copytree(judges[name].root, kept, symlinks=True, dirs_exist_ok=True)
                print(f"FAULT {name} {file} seed {number}: {verdict}; kept in {kept}", flush=True)
    print(f"{sum(verdicts.values())} cases: {dict(verdicts)}; {'' if verdicts['FAULT'] else 'found nothing'}")
    return 1 if verdicts["FAULT"] else 0


if __name__ == "__main__":
    sys.exit(main())
