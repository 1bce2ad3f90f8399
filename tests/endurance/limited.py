"""Real training within a limit on memory: `python limited.py GIN FOLDER LEDGER`, and a line of JSON for each run.

Each line on stdin is [bindings, arguments of Memory]; each on stdout is how the run ended and what was said.
"""

import json
import sys
from pathlib import Path

from tlx import config
from tlx.events import Listener
from tlx.memory import Memory
from tlx.work import attempts


def main():
    gin, folder, attempts.LEDGER = map(Path, sys.argv[1:4])
    experiment = config.load([gin])
    for number, line in enumerate(sys.stdin):
        bindings, arguments = json.loads(line)
        said, listener = [], Listener()
        listener.say = said.append
        made = attempts.Attempts(experiment, Memory(**arguments), gin, folder / "worker.log")
        outcome = made.train(bindings, folder / f"{number}", [], listener)
        made.stop()
        died = [text for text in said if "were too many" in text]
        print(json.dumps({"kind": outcome.kind, "content": str(outcome.content), "died": died}), flush=True)


if __name__ == "__main__":
    main()
