"""The command line as a user meets it: what it prints, what it leaves on disk, and its exit codes."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlpmeta.cli import main

ADAPT_KEYS = {"data", "lang", "method", "n_way", "n_shot", "draws", "accuracy", "macro_f1", "chance", "baseline"}
ADAPT_KEYS |= {"seconds", "out"}


@pytest.fixture
def run(encoder_folder, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder with the small encoder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        arguments = [str(a) for a in arguments]
        if arguments[0] == "adapt" and "--encoder" not in arguments:
            arguments += ["--encoder", str(encoder_folder)]
        if arguments[0] == "adapt" and "--draws" not in arguments:
            arguments += ["--draws", "2"]
        code = main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def made(encoder_folder, pool, tmp_path_factory):
    """A model that was adapted once; ``model`` is a copy that a test may change."""
    work = tmp_path_factory.mktemp("made")
    rows = "".join(f"{text},{name}\n" for text, name in zip(pool.texts, pool.names(), strict=True))
    (work / "topics.csv").write_text("text,label\n" + rows)
    command = ["adapt", "--data", work / "topics.csv", "--encoder", encoder_folder, "--shots", 5, "--draws", 2]
    assert main([*map(str, command), "--out", str(work / "model"), "--quiet"]) == 0
    return work / "model"


@pytest.fixture
def model(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "model"))


def failed(result, code, *said):
    """The command failed as it should: one line on standard error, nothing on standard output."""
    assert result[0] == code, result
    assert result[1] == ""
    line = [each for each in result[2].splitlines() if not each.startswith(("Note:", "Encoder "))]
    assert len(line) == 1, result[2]
    assert line[0].startswith("Error: ")
    for part in said:
        assert part in line[0], line[0]


def test_adapt_prints_one_json_object_with_the_promised_keys(run, table):
    code, out, err = run("adapt", "--data", table, "--shots", 5, "--draws", 3, "--json", "--out", "model")
    report = json.loads(out)
    assert code == 0
    assert set(report) >= ADAPT_KEYS
    assert (report["method"], report["n_way"], report["n_shot"], report["draws"]) == ("auto", 3, 5, 3)
    assert report["chance"] == pytest.approx(1 / 3)
    assert 0.8 < report["accuracy"]["mean"] <= 1
    assert report["accuracy"]["ci95"] >= 0
    assert report["baseline"]["method"] == "logistic"
    assert report["n_query"] == 3 * (48 - 15)
    assert set(report["seconds"]) >= {"data", "import_and_load", "encode", "adapt_and_score", "baseline", "total"}
    assert "Encoder" in err


def test_adapt_tells_a_person_what_matters(run, table):
    code, out, _ = run("adapt", "--data", table, "--shots", 2, "--out", "model")
    assert code == 0
    for part in ("3 classes, 6 support texts", "accuracy, %", "baseline: logistic regression", "33.3", "Saved: model"):
        assert part in out
    assert 'Next: nlpmeta predict model "' in out


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(run, table):
    def measured(seed):
        place = f"m{time.monotonic_ns()}"
        out = run("adapt", "--data", table, "--shots", 1, "--seed", seed, "--json", "--out", place)[1]
        return json.loads(out)["accuracy"], json.loads(out)["macro_f1"]

    assert measured(1) == measured(1)
    assert measured(1) != measured(2)


@pytest.mark.slow
def test_without_a_place_the_same_command_replaces_its_own_model_and_another_keeps_it(run, table, tmp_path):
    home = tmp_path / "nlpmeta-models"
    for _ in range(2):
        assert run("adapt", "--data", table, "--shots", 5)[0] == 0
    assert [folder.name for folder in home.iterdir()] == ["topics-all-5-shot"]
    assert run("adapt", "--data", table, "--shots", 5, "--seed", 3)[0] == 0
    assert sorted(folder.name for folder in home.iterdir()) == ["topics-all-5-shot", "topics-all-5-shot-2"]


@pytest.mark.slow
def test_test_data_is_scored_and_rows_without_support_are_counted_and_left_out(run, table, tmp_path):
    (tmp_path / "test.csv").write_text("text,label\nball rice,sport\nbank cash,money\nwhat now,other\nwho am,other\n")
    code, out, _ = run("adapt", "--data", table, "--test-data", "test.csv", "--shots", 5, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["left_out"] == {"other": 2}
    assert report["n_query"] == 2 * report["draws"]
    assert (
        "Left out: 2 test rows of classes without support (other)"
        in run("adapt", "--data", table, "--test-data", "test.csv", "--shots", 5)[1]
    )


def test_data_that_is_all_support_is_cross_validated_and_saved_whole(run, table, tmp_path):
    report = json.loads(run("adapt", "--data", table, "--shots", "all", "--json", "--out", "model")[1])
    assert report["n_support"] == 48
    assert "5-fold cross-validation" in report["scored_on"]
    assert report["n_query"] == 48


def test_a_class_with_one_example_does_not_keep_the_others_from_being_scored(run, tmp_path):
    rows = [("ball goal", "sport"), ("goal match", "sport"), ("ball match", "sport"), ("match goal ball", "sport")]
    rows += [("bank loan", "money"), ("loan bank", "money"), ("salt rice", "food")]
    (tmp_path / "uneven.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    code, out, _ = run("adapt", "--data", "uneven.csv", "--shots", "all", "--json", "--out", "model")
    report = json.loads(out)
    assert code == 0
    assert report["n_query"] == 6
    assert report["scored_on"].startswith("4-fold cross-validation")
    assert report["scored_on"].endswith("never scored, with one example: food")
    with (tmp_path / "uneven.csv").open("a") as file:
        file.writelines(f"cash {letter},rare_{letter}\n" for letter in "abcdef")
    many = json.loads(run("adapt", "--data", "uneven.csv", "--shots", "all", "--json", "--out", "other")[1])
    assert many["scored_on"].endswith("one example: food, rare_a, rare_b, rare_c, rare_d and 2 more")


def test_one_example_a_class_is_enough_for_a_model_without_a_score(run, tmp_path):
    (tmp_path / "tiny.csv").write_text("text,label\nball goal,sport\nbank loan,money\n")
    code, out, _ = run("adapt", "--data", "tiny.csv", "--shots", 1, "--json", "--out", "model")
    report = json.loads(out)
    assert code == 0
    assert report["accuracy"] == {"mean": None, "ci95": None}
    assert run("predict", "model", "ball match")[1].startswith("sport\t")


def test_a_file_without_a_language_column_is_in_the_language_that_the_user_names(run, table):
    report = json.loads(run("adapt", "--data", table, "--lang", "Swahili", "--shots", 5, "--json")[1])
    assert report["lang"] == "sw"
    failed(run("adapt", "--data", table, "--lang", "qqqq"), 2, "'qqqq' is not a language code or name")


def test_ways_takes_that_many_classes(run, table):
    report = json.loads(run("adapt", "--data", table, "--ways", 2, "--shots", 5, "--json")[1])
    assert report["n_way"] == 2


@pytest.mark.parametrize("rare", ["drop", "keep"])
def test_rare_classes_are_dropped_or_kept_as_asked(run, table, tmp_path, rare):
    path = tmp_path / "rare.csv"
    path.write_text(table.read_text() + "loan ball,odd\nrice loan,odd\n")
    failed(run("adapt", "--data", path, "--shots", 5), 2, "'odd' has 2", "5 examples of each class", "--rare drop")
    report = json.loads(run("adapt", "--data", path, "--shots", 5, "--rare", rare, "--json")[1])
    assert report["n_way"] == (3 if rare == "drop" else 4)


def test_predict_takes_texts_files_tables_and_standard_input(run, model, tmp_path):
    def labels(text):
        return [line.split("\t")[0] for line in text.splitlines()]

    assert labels(run("predict", model, "ball goal", "bank loan")[1]) == ["sport", "money"]
    (tmp_path / "texts.txt").write_text("rice soup\n\nball team\n")
    code, out, err = run("predict", model, "--file", "texts.txt")
    assert labels(out) == ["food", "", "sport"]
    assert "1 text is empty and got no label (the first: line 2)" in err
    (tmp_path / "texts.csv").write_text("n,text\n1,rice soup\n2,\n3,ball team\n")
    code, out, err = run("predict", model, "--file", "texts.csv")
    assert labels(out) == ["food", "", "sport"]
    assert "1 text is empty and got no label (the first: line 3)" in err


def test_predict_json_is_one_object_a_line(run, model):
    lines = run("predict", model, "--json", "ball goal", "rice salt")[1].splitlines()
    rows = [json.loads(line) for line in lines]
    assert [set(row) for row in rows] == [{"text", "label", "probability"}] * 2
    assert [row["label"] for row in rows] == ["sport", "food"]
    assert all(1 / 3 < row["probability"] <= 1 for row in rows)


def test_predictions_go_to_a_file_whole_or_not_at_all(run, model, tmp_path):
    assert run("predict", model, "--out", "out.tsv", "ball goal")[0] == 0
    before = (tmp_path / "out.tsv").read_text()
    assert before.startswith("sport\t")
    failed(run("predict", model, "--out", "out.tsv", "rice"), 2, "out.tsv already exists and was kept")
    (tmp_path / "bad.txt").write_bytes(b"fine\n\xff\n")
    failed(run("predict", model, "--file", "bad.txt", "--out", "out.tsv", "--overwrite"), 2, "bad.txt, line 2", "UTF-8")
    assert (tmp_path / "out.tsv").read_text() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_terminal_escapes_in_texts_and_labels_are_shown_not_obeyed(run, model):
    assert run("predict", model, "ball \x1b[2J goal")[1].endswith("\tball \\x1b[2J goal\n")


def test_info_says_what_a_model_is_without_loading_the_encoder(run, model):
    code, out, _ = run("info", model, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["labels"] == ["food", "money", "sport"]
    assert facts["method"] == "auto"
    assert 0 < facts["accuracy"]["mean"] <= 1
    shown = run("info", model)[1]
    assert "3: food, money, sport" in shown
    assert "chance     33.3 %" in shown
    assert f"accuracy   {100 * facts['accuracy']['mean']:.1f} % ± " in shown


def test_an_unknown_language_names_the_nearest_and_the_list(run):
    failed(run("adapt", "--lang", "swahilli"), 2, "'swahilli'", "Did you mean sw (Swahili)", "zh (Chinese)")
    failed(run("adapt", "--lang", "fi"), 2, "no texts in 'fi'", "sw (Swahili)")


def test_too_few_examples_say_which_classes_and_how_many(run, table):
    failed(run("adapt", "--data", table, "--shots", 17), 2, "17 examples", "'food' has 16", "'sport' has 16", "--rare")


def test_one_class_is_not_enough(run, tmp_path):
    (tmp_path / "one.csv").write_text("text,label\nball,sport\ngoal,sport\n")
    failed(run("adapt", "--data", "one.csv", "--shots", 1), 2, "at least two classes", "sport")


def test_a_missing_column_lists_the_columns_found(run, tmp_path):
    (tmp_path / "a.csv").write_text("words,kind\nball,sport\n")
    failed(run("adapt", "--data", "a.csv"), 2, "words, kind", "--text-column")
    failed(run("adapt", "--data", "a.csv", "--text-column", "words", "--label-column", "no"), 2, "'no'", "words, kind")


def test_empty_and_non_text_rows_are_skipped_with_a_note_unless_all_are(run, table, tmp_path):
    path = tmp_path / "holes.csv"
    path.write_text(table.read_text() + ",sport\n  ,food\n")
    code, _, err = run("adapt", "--data", path, "--shots", 5)
    assert code == 0
    assert "Note: " in err
    assert "2 rows with an empty text (first: line 50)" in err
    (tmp_path / "empty.csv").write_text("text,label\n,sport\n,food\n")
    failed(run("adapt", "--data", "empty.csv"), 2, "no row has both a text and a label", "first: line 2")


def test_a_file_that_is_not_utf8_is_named_with_its_line(run, tmp_path):
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,x\n".encode("latin-1"))
    failed(run("adapt", "--data", "latin.csv"), 2, "latin.csv, line 2", "not UTF-8", "--encoding cp1252")


def test_a_truncated_model_folder_is_named_and_exits_1(run, model, tmp_path):
    (model / "task.safetensors").write_bytes(b"short")
    failed(run("predict", model, "ball"), 1, "task.safetensors is damaged")
    failed(run("info", model), 1, "task.safetensors is damaged")
    (model / "nlpmeta.json").unlink()
    failed(run("info", model), 1, "has no nlpmeta.json")
    failed(run("info", tmp_path / "none"), 2, "There is no model folder")


def test_an_existing_folder_is_kept_unless_overwritten_and_that_is_said_before_the_work(run, model, table):
    before = sorted((file.name, file.read_bytes()) for file in model.iterdir())
    start = time.thread_time()
    failed(run("adapt", "--data", table, "--out", model), 2, "exists and was kept", "--overwrite")
    assert time.thread_time() - start < 2
    assert sorted((file.name, file.read_bytes()) for file in model.iterdir()) == before
    assert run("adapt", "--data", table, "--out", model, "--shots", 2, "--overwrite")[0] == 0
    assert sorted((file.name, file.read_bytes()) for file in model.iterdir()) != before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--method", "prototypic"], "Did you mean 'prototypical'"),
        (["--data", "nothing.csv"], "nothing.csv does not exist"),
        (["--data", "startr"], "Did you mean 'starter'"),
        (["--shots", "-1"], "--shots takes a whole number from 0, or 'all'; got '-1'"),
        (["--shots", "many"], "got 'many'"),
        (["--ways", "99"], "99 classes were requested"),
    ],
)
def test_other_mistakes_get_one_line_and_exit_code_2(run, arguments, said):
    failed(run("adapt", *arguments), 2, said)


def test_wrong_usage_exits_with_2(run, capsys):
    assert main(["adapt", "--draws", "0"]) == 2
    assert main(["nonsense"]) == 2
    assert main(["predict"]) == 2


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["adapt", "--seed", "-1"], "-1"), (["adapt", "--seed", "one"], "one"), (["serve", "--port", "99999"], "99999")],
)
def test_a_value_that_an_option_does_not_take_is_named(capsys, arguments, value):
    assert main(arguments) == 2
    assert f"got '{value}'" in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_place_that_holds_no_model_is_bad_usage_like_one_that_is_not_there(run, tmp_path):
    (tmp_path / "notes").mkdir()
    failed(run("predict", tmp_path / "notes", "a text"), 2, "is not a model folder")
    failed(run("predict", tmp_path / "nowhere", "a text"), 2, "There is no model folder")
    failed(run("adapt", "--encoder", tmp_path / "nowhere"), 2, "There is no folder")
    failed(run("adapt", "--encoder", __file__), 2, "is a file; name the folder")


def in_process(*arguments, **changes):
    environment = {**os.environ, **changes}
    command = [sys.executable, "-m", "nlpmeta", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280, check=False)


@pytest.mark.slow
def test_an_unknown_encoder_without_a_network_fails_with_one_sentence(table, tmp_path):
    # That it waits 5 seconds for the network at most is held in test_encoder_weights, without the imports.
    # The address is of this machine, where nothing listens: the real client gets a real refusal.
    changes = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    done = in_process("adapt", "--data", table, "--encoder", "nobody/nothing", "--out", tmp_path / "m", **changes)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "nobody/nothing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_full_disk_is_said_plainly_and_leaves_nothing(table, tmp_path, encoder_folder):
    mount = tmp_path / "small"
    mount.mkdir()
    inner = f"mount -t tmpfs -o size=8k tmpfs {mount} && {sys.executable} -m nlpmeta adapt --data {table} --shots 5"
    inner += f" --encoder {encoder_folder} --out {mount}/model; code=$?; ls -A {mount}; exit $code"
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "sh", "-c", inner]
    probe = [*command[: command.index("sh")], "true"]
    try:
        allowed = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("needs the right to mount a small file system (unshare)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_answers_within_half_a_second_and_shows_examples():
    in_process("--help")  # compiled once
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = in_process("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "nlpmeta adapt --lang sw --shots 5" in done.stdout
    heavy = "import sys, nlpmeta.cli; print([m for m in ('torch', 'sklearn', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime  # of CPU, whatever else runs
    assert seconds < 1.5  # half a second on a quiet machine; tests may share it


@pytest.mark.slow
def test_nothing_is_drawn_on_a_pipe(table, encoder_folder, tmp_path):
    place = ("--out", tmp_path / "m")
    done = in_process("adapt", "--data", table, "--encoder", encoder_folder, *place, "--json", "--quiet")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1
    assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(table, encoder_folder, tmp_path):
    assert in_process("adapt", "--data", table, "--encoder", encoder_folder, "--out", tmp_path / "m").returncode == 0
    (tmp_path / "many.txt").write_text("ball goal\n" * 9_000)
    command = f"{sys.executable} -m nlpmeta predict {tmp_path / 'm'} --file {tmp_path / 'many.txt'} | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("sport\t")
    assert done.stderr == ""


@pytest.mark.slow
def test_the_memory_of_predict_does_not_grow_with_the_file(table, encoder_folder, tmp_path):
    assert in_process("adapt", "--data", table, "--encoder", encoder_folder, "--out", tmp_path / "m").returncode == 0
    peaks = []
    for lines in (5_000, 30_000):
        (tmp_path / "many.txt").write_text("".join(f"ball goal {i}\n" for i in range(lines)))
        code = "import resource, sys; from nlpmeta.cli import main; main(sys.argv[1:]); "
        code += "sys.stderr.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
        command = [sys.executable, "-c", code, "predict", tmp_path / "m", "--quiet", "--file", tmp_path / "many.txt"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.count("\n") == lines
        peaks.append(int(done.stderr))
    assert peaks[1] < peaks[0] + 30_000  # kilobytes


@pytest.mark.slow
def test_interrupting_leaves_nothing_half_written(encoder_folder, table, tmp_path):
    import signal

    code = "import sys, signal; import nlpmeta.learners.checkpoint as c\nreal = c.write_manifest\n"
    code += "def slow(*a):\n    import os; os.kill(os.getpid(), signal.SIGINT); real(*a)\n"
    code += "import nlpmeta.classifier.persistence as k; k.write_manifest = slow\n"
    code += "from nlpmeta.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "adapt", "--data", table, "--encoder", encoder_folder]
    command += ["--out", tmp_path / "m"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode not in (0, -signal.SIGINT)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()
    assert not list(Path(tmp_path).glob(".m.*"))


@pytest.mark.slow
def test_it_is_said_which_examples_the_saved_model_has(run, table):
    assert "Saved: one (the model of the first draw)" in run("adapt", "--data", table, "--shots", 2, "--out", "one")[1]
    everything = run("adapt", "--data", table, "--shots", "all", "--out", "all")[1]
    assert "Saved: all (the model of all examples)" in everything
    assert "None" not in run("info", "all")[1]
