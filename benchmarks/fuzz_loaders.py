"""Loads thousands of mutated files with every loader: ``make fuzz``. Fails at the first without a clean error.

A file must be loaded, or refused with a one-line NLPMetaError; no other exception, no hang, bounded memory. With
``--signed`` the content of our own files is changed and every digest recomputed, and whatever loads is used as well: it
must answer with probabilities, and nothing may be written where it was read.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import save_encoder
from fuzzing import bounded, cases, outcome, prepare
from fuzzing_signed import prepare_signed, signed_cases

SHARES = {"model folder": 0.4, "model folder with adapters": 0.15, "table": 0.4, "encoder folder": 0.05}
SIGNED = {
    **{"signed model": 0.45, "signed checkpoint": 0.1, "signed stream": 0.2},
    **{"signed tasks": 0.05, "signed head": 0.1, "signed user": 0.1},
}
SHARES |= dict.fromkeys(("users, flipped", "embeddings, flipped"), 1.0)  # each has all numbers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--kind", choices=sorted(SHARES | SIGNED), help="only this loader")
    parser.add_argument("--signed", action="store_true", help="change contents and recompute every digest")
    asked = parser.parse_args()
    shares = SIGNED if asked.signed else SHARES
    warnings.simplefilter("ignore")
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ground = prepare(folder / "ground", save_encoder(folder / "saved"))
        if asked.signed:
            prepare_signed(ground)
        for kind, load in (signed_cases(ground) if asked.signed else cases(ground)).items():
            if asked.kind not in (None, kind):
                continue
            count, start = Counter[str](), time.perf_counter()
            slowest = 0.0
            for number in range(asked.start, asked.start + round(shares[kind] * asked.files)):
                begun = time.perf_counter()
                with bounded():
                    found = outcome(load, number, folder / "mutated")
                slowest = max(slowest, time.perf_counter() - begun)
                if found not in ("loaded", "refused"):
                    wrong += 1
                    print(f"{kind} {number}: {found}", flush=True)
                    found = "WRONG"
                count[found] += 1
            seconds = time.perf_counter() - start
            print(f"{kind}: {dict(count)} in {seconds:.0f} s, the slowest {slowest:.1f} s", flush=True)
    print(f"{wrong} files were neither loaded nor refused")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
