"""Runs the documents: every command and every Python block, in order, each document in a folder of its own.

    python tests/documents.py WORK_FOLDER [DOCUMENT ...]      # writes WORK_FOLDER/results.json

It is a process of its own, because documents define learners and sources that other tests must not see. What takes
minutes as written is run on less: see ``SMALLER``. Making a virtual environment, installing and training for hours are
not done; ``planned`` says what is checked instead, and the shipped checkpoint stands for one that was not trained.
"""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest
from hub_fixture import turn_client_to
from hub_server import running_hub

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SMALLER = {
    "adapt": ["--draws", "1"],
    "evaluate": ["--episodes", "2", "--max-query", "20", "--shots", "1"],
    "bench": ["--draws", "1", "--max-query", "10", "--shots", "1", "--methods", "logistic", "--peers", "none"],
    "train": ["steps=1", "warmup=1", "eval_every=1", "eval_episodes=1"],
}
"""Words that are put after a command, where the last one given counts."""
FEWER_LANGS, FEWER_WAYS = ["--lang", "sw"], ["--ways", "2"]
SHORT_RECIPES = {"protonet-tiny"}


@dataclass(frozen=True)
class Block:
    """One command or one Python block."""

    document: str
    line: int
    kind: str
    code: str

    @property
    def name(self):
        first = self.code.strip().splitlines()[0][:50]
        return f"{self.document}:{self.line} {first}"


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path):
    """The commands (one a prompt, with the lines that a backslash joins) and Python blocks of a document."""
    content = path.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(content):
        line = content[: match.start(2)].count("\n") + 1
        name = str(path.relative_to(ROOT))
        if match[1] == "python":
            found.append(Block(name, line, "python", match[2]))
        elif match[1] == "console":
            joined = match[2].replace("\\\n", " ")
            found += [Block(name, line, "command", row[2:]) for row in joined.splitlines() if row.startswith("$ ")]
    return found


def planned(command):
    """What is done about a command: ``run``, or what is checked instead."""
    words = shlex.split(command, comments=True)
    if words[0] == "nlpmeta" and words[1] == "train" and words[2] not in SHORT_RECIPES and "--online" not in words:
        return "read the recipe"
    return {"nlpmeta": "run", "make": "ask make", "pip": "look up extras"}.get(words[0], "unknown")


def needs_shared_data(block):
    """Whether it reads a dataset of the catalogue, which a reader gets from the Hub and a test from the mirror."""
    from nlpmeta.sources.catalogue import catalogue

    if block.kind != "command" or planned(block.code) != "run":
        return False
    words = shlex.split(block.code, comments=True)
    named = [after for word, after in zip(words, words[1:], strict=False) if word in ("--data", "export", "show")]
    return any(each.partition(":")[0] in catalogue() for name in named for each in name.split(","))


def run_command(command):
    words = shlex.split(command, comments=True)
    plan = planned(command)
    if plan == "ask make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif plan == "look up extras":
        content = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        for extra in (each for found in re.findall(r"\[([\w,]+)\]", command) for each in found.split(",")):
            assert re.search(rf"^{extra} = \[", content, re.MULTILINE), f"there is no extra {extra}"
    elif plan == "read the recipe":
        from nlpmeta.training.recipe_files import load_recipe

        load_recipe(words[2], [word for word in words[3:] if "=" in word])
    elif plan == "run":
        from nlpmeta.cli import main

        words = [each if not each.startswith("runs/") or Path(each).is_dir() else "default" for each in words]
        if "onnx" in words:  # of the whole encoder it takes a minute
            words[2] = str(small_model())
        more = ["steps=1"] if "--online" in words else SMALLER.get(words[1], [])
        more = more + (FEWER_LANGS if "--lang" in words and "all" in words else [])
        more = more + (FEWER_WAYS if words[1] == "adapt" and "--test-data" not in words else [])
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            code = main([*words[1:], *more])
        assert code == 0, f"exit code {code}: {said.getvalue()[-2000:]}"
    else:
        raise AssertionError(f"nothing is known about {words[0]!r}; write the command otherwise, or teach it here")


def run_document(path, work):
    """The error of each block, or None, and its seconds."""
    folder = work / path.stem
    folder.mkdir(parents=True)
    prepare(folder)
    os.chdir(folder)
    namespace, results = {"__name__": "__main__"}, {}
    for block in blocks(path):
        start, error = time.monotonic(), None
        try:
            if needs_shared_data(block) and not SHARED.is_dir():
                error = "skip: needs the public data sets"
            elif block.kind == "python":
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(block.code, block.name, "exec"), namespace)  # noqa: S102  # our own documents
            else:
                run_command(block.code)
        except (Exception, SystemExit):
            error = traceback.format_exc(limit=-4)
        results[block.name] = {"error": error, "seconds": round(time.monotonic() - start, 1)}
    return results


def small_model():
    """A model on the small encoder of the tests, in the folder that a document is run in."""
    from conftest import save_encoder

    from nlpmeta import FewShotClassifier

    texts, labels = ["ball goal", "match team", "rice soup", "bread salt"], ["sport", "sport", "food", "food"]
    classifier = FewShotClassifier(encoder=str(save_encoder(Path("small-encoder").resolve())))
    classifier.fit(texts, labels).save_pretrained("small-model", overwrite=True)
    return Path("small-model")


def prepare(folder):
    """The files that documents speak of as the reader's own."""
    from nlpmeta.sources.loading import load_source
    from nlpmeta.sources.tables import export

    swahili = load_source("starter").load("sw")
    rows = [i for i in range(len(swahili)) if i % 22 < 6]
    export(swahili.select(rows), folder / "mine.csv")
    export(swahili.select(rows[::2]), folder / "train.csv")
    export(swahili.select(rows[1::2]), folder / "test.csv")
    messages = [f"tukutane saa {i},ham" for i in range(1, 31)] + [
        f"umeshinda zawadi namba {i},spam" for i in range(1, 11)
    ]
    (folder / "messages.csv").write_text("\n".join(["text,label", *messages, ""]), encoding="utf-8")
    (folder / "tickets.csv").write_text("id,text\n1,weka kengele saa moja\n2,cheza muziki\n", encoding="utf-8")
    others = [i for i in range(len(swahili)) if i % 22 >= 6]
    lines = "\n".join(swahili.select(others).texts) + "\n"
    (folder / "unlabelled.txt").write_text(lines, encoding="utf-8")
    said = "label,text\nalarm_set,the user wants to be woken up\nweather,mtumiaji anauliza hali ya hewa\n"
    (folder / "labels.csv").write_text(said, encoding="utf-8")
    (folder / "refund.csv").write_text("label,text\nrefund,the customer wants money back\n", encoding="utf-8")


def main():
    work = Path(sys.argv[1]).resolve()
    wanted = [Path(each).resolve() for each in sys.argv[2:]] or documents()
    work.mkdir(parents=True, exist_ok=True)
    results = {}
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:  # a document pushes and loads what it pushed
        turn_client_to(hub.url, work / "caches", patch)
        if SHARED.is_dir():
            patch.setenv("NLPMETA_DATA_DIR", str(SHARED))  # what a reader has from the Hub
        for path in wanted:
            results |= run_document(path, work)
    (work / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
