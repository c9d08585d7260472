"""The shipped checkpoint against the best frozen head on the same support sets: results/meta.json and its tables.

    python benchmarks/meta.py --data-dir ../shared/data                 # make bench-meta; about 70 minutes on 2 cores
    python benchmarks/meta.py --dry-run                                 # print the commands, to run them by hand
    python benchmarks/table.py                                          # reprint the tables from the file

The card of the checkpoint (nlpmeta/checkpoints/multilingual/README.md) says what it was trained on. Injongo is also
measured with two kinds of checkpoints that are trained by hand (10 to 20 minutes each) and used if their folders exist:
recipes/without-injongo.yaml never saw its text, leave-out-a and -b each never saw five of its languages, just as the
shipped one never saw six others. Existing rows are replaced, the others stay.
"""

import sys
from pathlib import Path

from running import main
from table import AFRICAN, DEFAULT, LEAVE_OUT, WITHOUT_INJONGO, show

FROZEN = "logistic,ridge,prototypical"
OURS = f"{FROZEN},prototypical@default,maml@default,auto@default"
RUNS = [
    f"{OURS} --data injongo --lang swa --shots 1,5,10",
    f"{OURS} --data massive --lang sw --shots 1,5,8",
    f"{OURS} --data sib200 --lang swh_Latn --shots 1,5,10",
    f"{OURS} --data banking77 --shots 1,5,10",
    f"{OURS} --data sms-spam --shots 4,8,16",
    f"{FROZEN} --data injongo --lang {','.join(AFRICAN)} --shots 5",
]
UNSEEN = {**LEAVE_OUT, WITHOUT_INJONGO: AFRICAN}
RUNS += [
    f"logistic,{method} --data injongo --lang {','.join(langs)} --shots 5"
    for method, langs in UNSEEN.items()
    if method == DEFAULT or Path(method.partition("@")[2]).is_dir()
]

if __name__ == "__main__":
    code = main(RUNS, Path("results/meta.json"), __doc__)
    if code == 0 and Path("results/meta.json").exists():
        show()
    sys.exit(code)
