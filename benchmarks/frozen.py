"""The baselines on the frozen encoder, the first line of every table: writes results/frozen.json.

    python benchmarks/frozen.py --data-dir ../shared/data              # everything
    python benchmarks/frozen.py --data-dir ../shared/data --only spam  # only commands that contain a word
    python benchmarks/frozen.py --dry-run                              # print the commands, to run them by hand

Machine, time and figures: docs/evaluation.md. Existing rows are replaced, the others stay.
"""

import sys
from pathlib import Path

from running import main

METHODS = "logistic,prototypical,ridge,knn"
QUICK = "prototypical,ridge,knn"  # thousands of episodes: choosing a penalty in each would take hours

RUNS = (
    f"{METHODS} --data injongo --lang swa --shots 1,5,10",
    f"{METHODS} --data massive --lang sw --shots 1,5,8",
    f"{METHODS} --data sib200 --lang swh_Latn --shots 1,5,10",
    f"{METHODS} --data banking77 --shots 1,5,10",
    f"{METHODS} --data clinc150 --shots 1,5,10",
    f"{METHODS} --data sms-spam --shots 4,8,16",
    f"{METHODS} --data spamassassin --shots 4,8,16",
    f"{METHODS} --data injongo --lang all --shots 1,5",
    f"{METHODS} --data sib200 --lang amh,arb,eng,hau,ibo,kin,lin,xho,yor,zho_Hans --shots 5",
    f"{METHODS} --data massive --lang all --shots 1,5",
    f"{METHODS} --data clinc150 --protocol clinc-oos",
    "logistic --data massive --lang sw --protocol mteb-8shot --no-prefix",
    "logistic --data massive --lang sw --protocol mteb-8shot",
    "logistic --data banking77 --protocol mteb-8shot --no-prefix",
    f"{QUICK} --data banking77 --protocol protaugment",
    f"{QUICK} --data hwu64 --protocol protaugment",
    f"{QUICK} --data liu --protocol protaugment",
    f"{QUICK} --data oos --protocol protaugment",
)

if __name__ == "__main__":
    sys.exit(main(RUNS, Path("results/frozen.json"), __doc__))
