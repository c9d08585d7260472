"""Streams of unseen classes, and of an unseen language: results/streams.json and two pictures.

    python benchmarks/streams.py --data-dir ../shared/data     # make bench-streams
    python benchmarks/streams.py --dry-run                     # print the commands, to run them by hand

On the frozen encoder: ``mann``, ``rnn`` and ``snail``, whose checkpoints come with the package; ``mann@none``, the
network before meta-training; ``prototypical``, the running mean of each class; ``matching``, attention over all
examples. ``prototypical@default`` is the running mean on the meta-trained encoder, which has seen CLINC150's classes.
"""

import sys
from pathlib import Path

from running import main

from nlpmeta.bench.drawing import draw_streams
from nlpmeta.evaluation.results import read_rows

OUT = Path("results/streams.json")
METHODS = ["mann,prototypical,mann@none", "rnn,snail,mann", "matching,prototypical@default"]
DATA = {"clinc150": "clinc150 --fold 4", "injongo": "injongo --lang swa"}
RUNS = [f"{methods} --protocol stream --data {data}" for data in DATA.values() for methods in METHODS]

if __name__ == "__main__":
    code = main(RUNS, OUT, __doc__)
    for data in DATA:
        rows = [row for row in read_rows(OUT) if row["data"] == data]
        if rows:
            draw_streams(rows, Path(f"docs/streams-{data}.png"))
    sys.exit(code)
