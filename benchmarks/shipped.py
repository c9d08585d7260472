"""The shipped checkpoint against the frozen encoder on the same episodes: writes results/shipped.json.

    python benchmarks/shipped.py --data-dir ../shared/data
    python benchmarks/shipped.py --dry-run                   # the commands, to run them by hand

Differences are to ``logistic``: logistic regression on the frozen encoder, its penalty chosen on the support. The card
of the checkpoint (nlpmeta/checkpoints/multilingual/README.md) says what it was trained on. Rows that are there already
are replaced, the others stay.
"""

import sys
from pathlib import Path

from running import main

METHODS = "logistic,ridge,prototypical@default,auto@default"

RUNS = (
    f"{METHODS} --data injongo --lang swa --shots 1,5,10",
    f"{METHODS} --data massive --lang sw --shots 1,5,8",
    f"{METHODS} --data sib200 --lang swh_Latn --shots 1,5,10",
    f"{METHODS} --data banking77 --shots 1,5,10",
    f"{METHODS} --data sms-spam --shots 4,8,16",
    f"{METHODS} --data injongo --lang kin,zul,yor --shots 1,5",
)

if __name__ == "__main__":
    sys.exit(main(RUNS, Path("results/shipped.json"), __doc__))
