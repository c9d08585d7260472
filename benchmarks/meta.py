"""The shipped checkpoint against the best frozen head on the same supports: writes results/meta.json, prints the table.

    python benchmarks/meta.py --data-dir ../shared/data                 # make bench-meta; about 40 minutes on 2 cores
    python benchmarks/meta.py --dry-run                                 # the commands, to run them by hand
    python benchmarks/table.py                                          # the table again, from the file

The card of the checkpoint (nlpmeta/checkpoints/multilingual/README.md) says what it was trained on. A second checkpoint
that never saw Injongo (recipes/without-injongo.yaml, made by hand: it takes 20 minutes) is measured where its folder is
there. Rows that are there already are replaced, the others stay.
"""

import sys
from pathlib import Path

from running import main
from table import show

FROZEN = "logistic,ridge,prototypical"
OURS = f"{FROZEN},prototypical@default,auto@default"
WITHOUT_INJONGO = Path("runs/without-injongo")
OTHERS = "amh,ewe,hau,ibo,kin,lin,lug,orm,sna,sot,twi,wol,xho,yor,zul"

RUNS = [
    f"{OURS} --data injongo --lang swa --shots 1,5,10",
    f"{OURS} --data massive --lang sw --shots 1,5,8",
    f"{OURS} --data sib200 --lang swh_Latn --shots 1,5,10",
    f"{OURS} --data banking77 --shots 1,5,10",
    f"{OURS} --data sms-spam --shots 4,8,16",
    f"{FROZEN},auto@default --data injongo --lang {OTHERS} --shots 5",
]
if WITHOUT_INJONGO.is_dir():
    RUNS += [
        f"{FROZEN},auto@{WITHOUT_INJONGO} --data injongo --lang swa --shots 1,5,10",
        f"{FROZEN},auto@{WITHOUT_INJONGO} --data injongo --lang {OTHERS} --shots 5",
    ]

if __name__ == "__main__":
    code = main(RUNS, Path("results/meta.json"), __doc__)
    if code == 0 and Path("results/meta.json").exists():
        show()
    sys.exit(code)
