"""Commands without a network: what needs none works, what does fails within five seconds with one line."""

import os
import socket
import subprocess
import sys
import time
from contextlib import closing

import pytest

TINY = ["--data", "{table}", "--encoder", "{encoder}", "-q"]
OURS = {
    "help": ["--help"],
    "adapt": [
        "adapt",
        "--data",
        "{table}",
        "--encoder",
        "{encoder}",
        "--shots",
        "3",
        "--draws",
        "2",
        "--out",
        "{work}/new",
        "-q",
    ],
    "predict": ["predict", "{model}", "ball goal"],
    "info": ["info", "{model}"],
    "dry run": ["push", "{hub_model}", "user/name", "--dry-run"],
    "export": ["export", "{model}", "{work}/out"],
    "evaluate": [
        "evaluate",
        "ridge",
        "--data",
        "{table}",
        "--encoder",
        "{encoder}",
        "--shots",
        "2",
        "--episodes",
        "2",
        "-q",
    ],
    "recipes": ["recipes", "list"],
    "data": ["data", "list"],
}
NETWORK = {
    "push": ["push", "{hub_model}", "user/name"],
    "predict by name": ["predict", "user/name", "ball"],
    "info by name": ["info", "user/name"],
    "an encoder": ["adapt", "--data", "{table}", "--encoder", "user/encoder", "--shots", "3"],
    "a data set": ["adapt", "--data", "user/data", "--shots", "3"],
}
RUN = """
import sys, time, json
from nlpmeta.cli import main
import torch, transformers, huggingface_hub, datasets, peft, accelerate
out = []
for arguments in json.loads(sys.argv[1]):
    start = time.perf_counter()
    code = main(arguments)
    sys.stderr.write("\\n")
    out.append([code, time.perf_counter() - start])
    sys.stderr.write("END\\n")
sys.stdout.write("RESULTS" + json.dumps(out))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory, encoder_folder, pool):
    from dataclasses import replace

    from nlpmeta import FewShotClassifier
    from nlpmeta.encoder.text_encoder import TextEncoder

    work = tmp_path_factory.mktemp("offline")
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    FewShotClassifier("ridge", encoder=encoder).fit(pool.texts, pool.names()).save_pretrained(work / "model")
    encoder.files = replace(encoder.files, name="user/encoder")
    FewShotClassifier("ridge", encoder=encoder).fit(pool.texts, pool.names()).save_pretrained(work / "hub_model")
    rows = "".join(f"{text},{name}\n" for text, name in zip(pool.texts, pool.names(), strict=True))
    (work / "table.csv").write_text("text,label\n" + rows)
    return {
        "work": work,
        "model": work / "model",
        "hub_model": work / "hub_model",
        "encoder": encoder_folder,
        "table": work / "table.csv",
    }


def run(commands, places, tmp_path, **variables):
    """All commands in one process: importing the libraries takes longer than the commands."""
    import json

    filled = [[part.format(**{**places, "work": tmp_path}) for part in command] for command in commands]
    settings = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_tokenOfTheTests", **variables}
    command = [sys.executable, "-W", "ignore", "-c", RUN, json.dumps(filled)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=settings, cwd=tmp_path)
    assert "RESULTS" in done.stdout, done.stderr[-2000:]
    results = json.loads(done.stdout.rpartition("RESULTS")[2])
    said = [part.strip() for part in done.stderr.split("END\n")]
    return [(code, seconds, text) for (code, seconds), text in zip(results, said, strict=False)]


def beside_notes(text):
    """The lines of what was said that are no notes: a push says in one what the card will lack."""
    return [line for line in text.splitlines() if not line.startswith("Note: ")]


@pytest.mark.slow
def test_with_the_network_forbidden_what_needs_none_works_and_the_rest_says_so(places, tmp_path):
    start = time.monotonic()
    found = run([*OURS.values(), *NETWORK.values()], places, tmp_path, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    for name, (code, _, text) in zip(OURS, found, strict=False):
        assert code == 0, (name, text)
    for name, (code, seconds, text) in zip(NETWORK, found[len(OURS) :], strict=True):
        assert code != 0 and seconds < 5 and len(beside_notes(text)) == 1, (name, seconds, text)
    assert time.monotonic() - start < 200


@pytest.mark.slow
def test_with_an_endpoint_out_of_reach_everything_fails_in_five_seconds_with_one_line(places, tmp_path):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        found = run(NETWORK.values(), places, tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=nowhere)
    for name, (code, seconds, text) in zip(NETWORK, found, strict=True):
        assert code == 1 and seconds < 5 and len(beside_notes(text)) == 1, (name, seconds, text)
