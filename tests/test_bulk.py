"""Many tables in, many tables out: the same labels as one by one, whatever is killed, damaged or in the way."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import TOPICS
from pyarrow import Table, parquet

import nlpmeta
from nlpmeta.bulk.partitions import Answered, Partition, partitions
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.errors import NLPMetaError, WorkFailedError

WORDS = " ".join(TOPICS.values()).split()
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'nlpmeta[ray]'")


@pytest.fixture(scope="module")
def model(tmp_path_factory, encoder_folder, pool):
    folder = tmp_path_factory.mktemp("models") / "model"
    FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(list(pool.texts), pool.names()).save_pretrained(folder)
    return folder


def a_part(path, n_rows=40, seed=0):
    """A table of texts of mixed length, with an id and a column of dates, in the format that ``path`` ends in."""
    draw = random.Random(f"{path.name} {seed}")
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(n_rows)]
    rows = [{"id": f"{path.stem}-{i}", "text": text, "date": "d,1"} for i, text in enumerate(texts)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture
def predict(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["predict", str(model), *map(str, arguments)])
        return code, capsys.readouterr().err

    return call


def contents(folder):
    """Every file with labels below a folder, by its name."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name[0] != "_")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_each_table_is_the_same_to_the_last_bit_as_predicted_alone(predict, tmp_path, suffix):
    parts = [a_part(tmp_path / "texts" / f"part-{i}{suffix}", n_rows=30 + i) for i in range(3)]
    assert predict("--file", f"texts/*{suffix}", "--out", "labels", "--top", 2) == (
        0,
        "96 predictions in 3 files of labels\n".replace("96", "93"),
    )
    for part in parts:
        assert predict("--file", part, "--out", f"alone/{part.name}", "--top", 2)[0] == 0
    assert contents("labels") == contents("alone")
    assert len(contents("labels")) == 3


def test_a_second_run_does_what_is_missing_and_nothing_else(predict, tmp_path):
    for i in range(3):
        a_part(tmp_path / "texts" / f"{i}.csv")
    predict("--file", "texts/*.csv", "--out", "labels")
    before = {path.name: path.stat().st_mtime_ns for path in Path("labels").glob("[0-9].csv")}
    whole = contents("labels")
    Path("labels/1.csv").unlink()
    assert (
        predict("--file", "texts/*.csv", "--out", "labels")[1] == "40 predictions in 1 file of labels; 2 were there\n"
    )
    assert contents("labels") == whole
    after = {path.name: path.stat().st_mtime_ns for path in Path("labels").glob("[0-9].csv")}
    assert {name for name in after if after[name] != before[name]} == {"1.csv"}


@pytest.mark.parametrize("what", ["model", "input", "setting", "file"])
def test_what_was_made_of_something_else_is_not_passed_over_in_silence(
    predict, tmp_path, what, encoder_folder, pool, capsys
):
    a_part(tmp_path / "texts" / "0.csv")
    predict("--file", "texts/*.csv", "--out", "labels")
    asked, command = ["--file", "texts/*.csv", "--out", "labels"], predict
    if what == "input":
        a_part(tmp_path / "texts" / "0.csv", seed=1, n_rows=41)
    elif what == "setting":
        asked += ["--top", 3]
    elif what == "file":
        Path("labels/0.csv").write_text("mine")
    else:
        other = FewShotClassifier("ridge", encoder=str(encoder_folder))
        other.fit([*pool.texts, "ball ball"], [*pool.names(), "food"]).save_pretrained(tmp_path / "other")

        def command(*arguments):
            return main(["predict", str(tmp_path / "other"), *map(str, arguments)]), capsys.readouterr().err

    old = contents("labels")
    code, err = command(*asked)
    said = "was changed after it was written" if what == "file" else f"was made with another {what}"
    assert code == 2 and err == f"Error: labels/0.csv {said}, and was kept. Pass --overwrite to replace it.\n"
    assert contents("labels") == old
    assert command(*asked, "--overwrite")[0] == 0
    assert contents("labels") != old
    assert command(*asked)[1].endswith("0 predictions in 0 files of labels; 1 were there\n")


def test_a_file_of_somebody_else_is_kept(predict, tmp_path):
    a_part(tmp_path / "texts" / "0.csv")
    Path("labels").mkdir()
    Path("labels/0.csv").write_text("mine")
    code, err = predict("--file", "texts/*.csv", "--out", "labels")
    assert (code, err) == (2, "Error: labels/0.csv is there already, and was kept. Pass --overwrite to replace it.\n")
    assert Path("labels/0.csv").read_text() == "mine"


def test_rows_without_a_label_are_kept_and_named_in_a_file_beside(predict, tmp_path):
    rows = [
        {"id": 1, "text": "ball goal"},
        {"id": 2, "text": ["rice"]},
        {"id": 3, "text": " "},
        {"id": 4, "text": "rice soup"},
    ]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, err = predict("--file", "*.jsonl", "--out", "labels")
    assert code == 0 and "2 of 4 rows got no label" in err
    written = [json.loads(line) for line in Path("labels/t.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == [1, 2, 3, 4]
    assert [row["label"] for row in written] == ["sport", None, None, "food"]
    failed = [json.loads(line) for line in Path("labels/_t.jsonl.failed.jsonl").read_text().splitlines()]
    assert failed == [
        {"line": 2, "reason": "a list or an object in the place of the text"},
        {"line": 3, "reason": "an empty text"},
    ]


def test_one_row_that_cannot_be_answered_does_not_keep_the_others_from_theirs(predict, tmp_path, monkeypatch):
    a_part(tmp_path / "texts" / "0.csv", n_rows=9)
    predict("--file", "texts/*.csv", "--out", "good")
    (tmp_path / "texts" / "0.csv").write_text((tmp_path / "texts" / "0.csv").read_text() + "bad,poison,\n")
    ask = FewShotClassifier.predict_proba

    def refusing(self, texts):
        if "poison" in list(texts):
            raise ValueError("this text cannot be read")
        return ask(self, texts)

    monkeypatch.setattr(FewShotClassifier, "predict_proba", refusing)
    assert predict("--file", "texts/*.csv", "--out", "labels")[0] == 0
    assert Path("labels/0.csv").read_text() == Path("good/0.csv").read_text() + "bad,poison,,,\n"
    assert "this text cannot be read" in Path("labels/_0.csv.failed.jsonl").read_text()
    rows = [{"text": text} for text in ("ball goal", ["rice"], "poison", "")]
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict("--file", "more.json[l]", "--out", "labels")[0] == 0
    failed = [json.loads(line) for line in Path("labels/_more.jsonl.failed.jsonl").read_text().splitlines()]
    assert [each["line"] for each in failed] == [2, 3, 4]
    assert [each["reason"].split()[0] for each in failed] == ["a", "this", "an"]
    Path("more.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert predict("--file", "more.json[l]", "--out", "labels", "--overwrite")[0] == 0
    assert not Path("labels/_more.jsonl.failed.jsonl").exists()


def test_a_damaged_table_and_one_without_texts_fail_alone_and_are_done_when_put_right(predict, tmp_path):
    for name in ("0.parquet", "1.parquet", "2.parquet"):
        a_part(tmp_path / "texts" / name)
    (tmp_path / "texts" / "1.parquet").write_bytes(b"PAR1 no more")
    parquet.write_table(Table.from_pylist([{"a": "ball", "b": "goal"}]), tmp_path / "texts" / "2.parquet")
    code, err = predict("--file", "texts/*.parquet", "--out", "labels")
    assert code == 1
    assert "40 predictions in 1 file of labels" in err and "Failed: texts/2.parquet" in err
    assert "Error: 2 of 3 files failed, the first: texts/1.parquet cannot be read as Parquet" in err
    assert set(contents("labels")) == {"0.parquet"}
    for name in ("1.parquet", "2.parquet"):
        a_part(tmp_path / "texts" / name)
    assert predict("--file", "texts/*.parquet", "--out", "labels") == (
        0, "80 predictions in 2 files of labels; 1 were there\n",
    )  # fmt: skip


def test_names_below_the_pattern_are_kept_so_that_equal_ones_do_not_meet(predict, tmp_path):
    for place in ("a", "b/c"):
        a_part(tmp_path / "texts" / place / "part.csv", seed=place)
    assert predict("--file", "texts/**/*.csv", "--out", "labels")[0] == 0
    assert set(contents("labels")) == {"a/part.csv", "b/c/part.csv"}
    (tmp_path / "texts" / "a" / "part.csv.gz").write_bytes(b"")
    code, err = predict("--file", "texts/**/*.csv*", "--out", "other")
    assert code == 2 and "texts/a/part.csv and texts/a/part.csv.gz would both be written to other/a/part.csv" in err
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--file", "nothing/*.csv", "--out", "labels"), "nothing matches 'nothing/*.csv'"),
        (("--file", "texts/*.csv", "--out", "texts/0.csv"), "--out: texts/0.csv is a file"),
        (("--file", "texts/*.csv", "--out", "texts"), "would be replaced by its own labels"),
        (("--file", "texts/*", "--out", "labels"), "texts/notes.txt: partitions are .csv"),
        (("--file", "texts/*.csv"), "go with --file and --out FOLDER"),
        (("--file", "texts/*.csv", "--out", "labels", "--json"), "go with --file and --out FOLDER"),
        (("--file", "texts/*.csv", "--out", "labels", "--why"), "--why goes with texts or one file"),
        (("--file", "texts/*.csv", "--out", "labels", "ball"), "go with --file and --out FOLDER"),
        (("--file", "texts/*.csv", "--out", "labels", "--engine", "steam"), "There is no engine named 'steam'"),
        (("--workers", "2", "ball"), "go with --file and --out FOLDER"),
        (("--file", "texts/*.csv", "--out", "labels", "--workers", "0"), "--workers"),
        (("--file", "texts/*.csv", "--out", "labels", "--keep", "nothing"), "has no column 'nothing' to keep"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(predict, tmp_path, asked, said):
    a_part(tmp_path / "texts" / "0.csv")
    (tmp_path / "texts" / "notes.txt").write_text("ball")
    code, err = predict(*asked)
    assert code == (1 if "--keep" in asked else 2)
    assert said in " ".join(err.split())
    assert not contents("labels")


def test_a_missing_model_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    a_part(tmp_path / "texts" / "0.csv")
    assert main(["predict", "no-model", "--file", "texts/*.csv", "--out", "labels", "--workers", "2"]) in (1, 2)
    assert "no-model" in capsys.readouterr().err
    assert not Path("labels").exists()


def test_a_claim_that_nobody_came_back_to_is_done_again(tmp_path):
    part = Partition(str(a_part(tmp_path / "0.csv")), str(tmp_path / "out" / "0.csv"), "1 2")

    def dies(source, out):
        out.parent.mkdir(exist_ok=True)
        out.write_text("half")
        raise WorkFailedError("killed")

    def works(source, out):
        out.write_text("whole")
        return Answered(40)

    with pytest.raises(WorkFailedError):
        part.done_by(dies, {"model": "a"})
    assert not part.is_done({"model": "a"}, overwrite=False)
    part.done_by(works, {"model": "a"})
    assert part.is_done({"model": "a"}, overwrite=False)


def test_urls_in_and_out(predict, tmp_path, model):
    import fsspec

    memory = fsspec.filesystem("memory")
    local = a_part(tmp_path / "0.csv")
    memory.pipe_file("/bucket/texts/0.csv", local.read_bytes())
    try:
        code, err = predict("--file", "memory://bucket/texts/*.csv", "--out", "memory://bucket/labels")
        assert code == 0, err
        assert predict("--file", "0.csv", "--out", "alone.csv")[0] == 0
        assert memory.cat_file("/bucket/labels/0.csv") == Path("alone.csv").read_bytes()
        again = predict("--file", "memory://bucket/texts/*.csv", "--out", "memory://bucket/labels")
        assert again[0] == 0 and "1 were there" in again[1]
        assert predict("--file", f"file://{tmp_path}/[0-9].csv", "--out", f"file://{tmp_path}/there")[0] == 0
        assert Path("there/0.csv").read_bytes() == Path("alone.csv").read_bytes()
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_place_that_cannot_be_reached_is_one_line(predict):
    code, err = predict("--file", "nowhere-known://bucket/*.csv", "--out", "labels")
    assert code == 1 and err.startswith("Error: nowhere-known://bucket/*.csv cannot be reached: ")
    assert err.count("\n") == 1


def test_partitions_are_listed_in_the_order_of_their_names_without_records_and_hidden_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", "_a.csv", ".b.csv"):
        a_part(tmp_path / "texts" / name, n_rows=1)
    assert [each.source for each in partitions("texts/*.csv", "out/")] == ["texts/a.csv", "texts/b.csv"]
    with pytest.raises(NLPMetaError, match="nothing matches"):
        partitions("texts/*.tsv", "out")


def started(model, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "nlpmeta", "predict", str(model), *map(str, arguments)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def workers_of(process, title=b"spawn_main"):
    """The processes with ``title`` in their command that ``process`` started, or that those started."""
    found, waiting = [], [process.pid]
    while waiting:
        one = waiting.pop()
        with suppress(FileNotFoundError, ProcessLookupError):  # it is gone
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
            found += [one] if title in Path(f"/proc/{one}/cmdline").read_bytes() else []
    return sorted(found)


def when(condition, seconds=120):
    """Wait for ``condition`` and return what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError


linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers in /proc")


def is_claimed(folder):
    """Whether somebody is at a file."""
    return any('"bytes": null' in path.read_text() for path in Path(folder).glob("_*.json"))


@pytest.mark.slow
@linux
@pytest.mark.parametrize("victim", ["worker", "all", "interrupted"])
def test_whatever_is_killed_in_the_middle_the_result_is_the_same(predict, model, tmp_path, victim):
    parts = [a_part(tmp_path / "texts" / f"{i}.csv", n_rows=4000) for i in range(6)]
    for part in parts:
        assert predict("--file", part, "--out", f"alone/{part.name}")[0] == 0
    asked = ("--file", "texts/*.csv", "--out", "labels", "--workers", 2)
    process = started(model, *asked)
    when(lambda: is_claimed("labels"))
    workers = workers_of(process)
    if victim == "worker":
        os.kill(workers[-1], signal.SIGKILL)
    elif victim == "interrupted":
        process.send_signal(signal.SIGINT)
    else:
        process.kill()
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=200)
    if victim == "worker":
        assert process.returncode == 0, err
    else:
        assert process.returncode in ((-9,) if victim == "all" else (130,)), err
        if victim == "interrupted":
            assert "Stopped; nothing half-written was left behind." in err
            assert not list(Path("labels").glob(".*.tmp"))
        assert all(contents("alone")[name] == content for name, content in contents("labels").items() if name[0] != ".")
        assert len(contents("labels")) < len(parts)
        again = started(model, *asked)
        _, err = again.communicate(timeout=200)
        assert again.returncode == 0, err
    assert contents("labels") == contents("alone")


@pytest.mark.slow
def test_workers_answer_as_one_process_does_and_a_table_fails_alone(predict, model, tmp_path):
    for i in range(4):
        a_part(tmp_path / "texts" / f"{i}.jsonl", n_rows=500)
    (tmp_path / "texts" / "4.jsonl").write_text("no json\n")
    assert predict("--file", "texts/*.jsonl", "--out", "one")[0] == 1
    several = started(model, "--file", "texts/*.jsonl", "--out", "two", "--workers", 3)
    _, err = several.communicate(timeout=200)
    assert (
        several.returncode == 1
        and "Error: 1 of 5 files failed, the first: texts/4.jsonl, line 1: not valid JSON" in err
    )
    assert contents("one") == contents("two") and len(contents("two")) == 4


@pytest.mark.slow
@needs_ray
def test_ray_workers_answer_as_one_process_does(predict, model, tmp_path):
    for i in range(4):
        a_part(tmp_path / "texts" / f"{i}.csv", n_rows=500)
    assert predict("--file", "texts/*.csv", "--out", "one")[0] == 0
    process = started(model, "--file", "texts/*.csv", "--out", "ray", "--workers", 2, "--ray", "local")
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert contents("one") == contents("ray") and len(contents("ray")) == 4


@pytest.mark.slow
@linux
@needs_ray
def test_a_worker_of_ray_that_is_killed_in_the_middle_changes_nothing(predict, model, tmp_path):
    for i in range(4):
        a_part(tmp_path / "texts" / f"{i}.csv", n_rows=4000)
    assert predict("--file", "texts/*.csv", "--out", "one")[0] == 0
    process = started(model, "--file", "texts/*.csv", "--out", "ray", "--workers", 2, "--ray", "local")
    when(lambda: is_claimed("ray"))
    os.kill(when(lambda: workers_of(process, b"ray::MapWorker"))[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    assert contents("one") == contents("ray")


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_its_option_says_how_to_install_it(predict, tmp_path):
    a_part(tmp_path / "texts" / "0.csv")
    code, err = predict("--file", "texts/*.csv", "--out", "labels", "--ray", "local")
    assert (code, err.count("\n")) == (2, 1) and "pip install 'nlpmeta[ray]'" in err


TEXTS = ["ball goal", "", "rice soup", None, "bank loan"]


def test_batches_get_the_labels_of_predict_and_stay_what_they_were(model):
    import numpy as np
    import pandas as pd

    add = nlpmeta.bulk.map_batches(str(model))
    labels = ["sport", None, "food", None, "money"]
    plain = add({"id": [1, 2, 3, 4, 5], "text": TEXTS})
    assert plain["label"] == labels and plain["id"] == [1, 2, 3, 4, 5]
    best = FewShotClassifier.from_pretrained(model).predict_proba(["ball goal", "rice soup", "bank loan"]).max(1)
    assert [each for each in plain["probability"] if each] == [round(float(each), 6) for each in best]
    assert add({"text": np.array(TEXTS, dtype=object)})["label"] == labels
    table = add(Table.from_pydict({"text": TEXTS, "label": list("abcde")}))
    assert table.column_names == ["text", "label", "predicted_label", "predicted_probability"]
    assert table["predicted_label"].to_pylist() == labels
    frame = add(pd.DataFrame({"text": TEXTS}))
    assert [each if isinstance(each, str) else None for each in frame["label"]] == labels
    with pytest.raises(NLPMetaError, match="the batch"):
        add({"a": ["ball"], "b": ["goal"]})


def test_a_dataset_is_mapped_over_in_batches(model):
    from datasets import Dataset

    mapped = Dataset.from_dict({"text": TEXTS}).map(nlpmeta.bulk.map_batches(str(model)), batched=True, batch_size=2)
    assert mapped["label"] == ["sport", None, "food", None, "money"]


@pytest.mark.slow
@needs_ray
def test_a_ray_dataset_is_mapped_over_in_batches(model):
    program = (
        "import sys, ray, nlpmeta; ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "rows = ray.data.from_items([{'text': text} for text in ('ball goal', 'rice soup')])\n"
        "print([row['label'] for row in rows.map_batches(nlpmeta.bulk.map_batches(sys.argv[1])).take_all()])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(model)], capture_output=True, text=True, check=False)
    assert done.stdout.strip().splitlines()[-1:] == ["['sport', 'food']"], done.stderr
