"""``nlpmeta evaluate`` as a user meets it."""

import json
import shutil

import pytest

from nlpmeta.cli import main
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.evaluation import evaluate
from nlpmeta.learners.prototypical import PrototypicalNetwork

ROW_KEYS = {"data", "lang", "method", "protocol", "n_way", "n_shot", "episodes", "accuracy", "macro_f1"}
ROW_KEYS |= {"calibration_error", "seed", "encoder", "command"}


@pytest.fixture
def run(encoder_folder, tmp_path, monkeypatch, capsys):
    """Run ``nlpmeta evaluate`` in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with_encoder = () if "--encoder" in arguments else ("--encoder", encoder_folder)
        code = main(["evaluate", *map(str, (*arguments, *with_encoder))])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def rows(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out)["rows"]


def test_json_is_one_object_with_the_promised_keys(run, table):
    result = run("prototypical", "--data", table, "--shots", "1,5", "--episodes", 3, "--json")
    found = rows(result)
    assert result[1].count("\n") == 1
    assert [(row["n_way"], row["n_shot"], row["episodes"]) for row in found] == [(3, 1, 3), (3, 5, 3)]
    for row in found:
        assert set(row) >= ROW_KEYS
        assert set(row["accuracy"]) == set(row["macro_f1"]) == {"mean", "ci95"}
        assert len(row["encoder"]["digest"]) == 64


def test_the_command_gives_the_figures_of_the_function(run, table, encoder_folder):
    (row,) = rows(run("prototypical", "--data", table, "--shots", 2, "--episodes", 4, "--seed", 3, "--json"))
    learner = PrototypicalNetwork(TextEncoder.from_pretrained(str(encoder_folder)))
    (same,) = evaluate({"prototypical": learner}, str(table), n_shots=[2], n_episodes=4, seed=3)
    assert row["accuracy"]["mean"] == pytest.approx(same.summary.accuracy.mean)


def test_a_person_gets_a_table_with_a_line_a_setting_and_method(run, table):
    code, out, _ = run("logistic,ridge", "--data", table, "--shots", "1,2", "--episodes", 3)
    assert code == 0
    lines = [line for line in out.splitlines() if line.strip().startswith(("logistic", "ridge"))]
    assert len(lines) == 4
    assert "over logistic" in out
    assert all("±" in line and "…" not in line for line in lines)


def test_a_number_of_ways_means_episodes_of_so_many_classes(run, table):
    (row,) = rows(run("knn", "--data", table, "--ways", 2, "--shots", 1, "--episodes", 6, "--json"))
    assert (row["protocol"], row["n_way"], row["n_query"], row["episodes"]) == ("n-way", 2, 10, 6)


def test_compare_puts_the_baseline_first(run, table):
    found = rows(run("ridge", "--compare", "logistic", "--data", table, "--shots", 2, "--episodes", 3, "--json"))
    assert [row["method"] for row in found] == ["logistic", "ridge"]
    assert found[1]["difference"]["baseline"] == "logistic"
    assert set(found[1]["difference"]["accuracy"]) == {"mean", "low", "high"}


def test_results_are_added_to_a_file_with_the_command_that_made_them(run, table, tmp_path):
    for method in ("ridge", "knn", "knn"):
        assert run(method, "--data", table, "--shots", 2, "--episodes", 2, "--out", "all.json", "--quiet")[0] == 0
    stored = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert [row["method"] for row in stored] == ["knn", "ridge"]
    assert stored[0]["command"].startswith(f"nlpmeta evaluate knn --data {table} --shots 2 --episodes 2")
    assert "all.json" not in stored[0]["command"]


def test_quiet_leaves_standard_error_empty_and_otherwise_the_encoder_is_named(run, table):
    options = ("ridge", "--data", table, "--shots", 1, "--episodes", 2)
    assert run(*options, "--quiet")[2] == ""
    assert "Encoder" in run(*options)[2]


def test_what_is_wrong_with_a_file_is_said_once(run, table):
    table.write_text(table.read_text() + ",sport\n")
    code, _, err = run("knn", "--data", table, "--shots", 1, "--episodes", 2)
    assert code == 0
    assert err.count("skipped 1 row") == 1


def test_no_prefix_reaches_the_encoder(run, table, encoder_folder, tmp_path):
    e5 = tmp_path / "tiny-e5"  # the name of a family that is trained with a prefix
    shutil.copytree(encoder_folder, e5)
    options = ("knn", "--data", table, "--shots", 1, "--episodes", 2, "--encoder", e5, "--json")
    (plain,), (bare,) = rows(run(*options)), rows(run(*options, "--no-prefix"))
    assert (plain["encoder"]["prefix"], bare["encoder"]["prefix"]) == ("query: ", "")
    assert bare["command"].count("--no-prefix") == 1


def test_each_language_gets_its_rows(run, tmp_path, pool):
    lines = [
        json.dumps({"text": f"{text} {lang}", "label": name, "lang": lang})
        for lang in ("sw", "en")
        for text, name in zip(pool.texts, pool.names(), strict=True)
    ]
    (tmp_path / "both.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = ("knn", "--data", "both.jsonl", "--shots", 1, "--episodes", 2, "--json")
    assert [row["lang"] for row in rows(run(*options, "--lang", "all"))] == ["en", "sw"]
    assert [row["lang"] for row in rows(run(*options, "--lang", "Swahili"))] == ["sw"]
    assert [row["lang"] for row in rows(run(*options))] == [None]


def test_a_second_run_encodes_nothing(run, table, monkeypatch):
    options = ("knn", "--data", table, "--shots", 1, "--episodes", 2, "--json")
    first = rows(run(*options))
    monkeypatch.setattr(TextEncoder, "embed_tokens", None)
    second = rows(run(*options))
    assert [row["accuracy"] for row in first] == [row["accuracy"] for row in second]


def test_a_model_folder_is_evaluated_like_a_method(run, table, encoder_folder, capsys):
    adapt = ["adapt", "--data", str(table), "--shots", "2", "--method", "ridge", "--out", "model", "--quiet"]
    assert main([*adapt, "--encoder", str(encoder_folder)]) == 0
    capsys.readouterr()
    found = rows(run("ridge,model", "--data", table, "--shots", 2, "--episodes", 3, "--json"))
    said = run("ridge,model", "--data", table, "--shots", 2, "--episodes", 3, "--quiet")[2]
    assert "model is re-adapted to each support set; nlpmeta score model" in said
    assert "ridge is adapted" not in said
    assert found[0]["accuracy"]["mean"] == pytest.approx(found[1]["accuracy"]["mean"])
    assert found[1]["method"] == "model"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prototypcal",), "prototypical"),
        (("knn", "--protocol", "protagment"), "protaugment"),
        (("knn", "--shots", "five"), "--shots"),
        (("knn", "--shots", "0"), "--shots"),
        (("knn", "--ways", "1"), "at least 2 ways"),
        (("knn", "--protocol", "mteb-8shot", "--shots", "3"), "--shots"),
        (("knn", "--protocol", "kshot-all", "--ways", "2"), "n-way"),
        (("knn", "--protocol", "protaugment"), "starter"),
        (("knn", "--protocol", "mteb-8shot"), "only one"),
        (("knn", "--lang", "xho"), "starter"),
        (("knn", "--data", "no-such-data"), "no-such-data"),
        ((",",), "method"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    errors = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert said.casefold() in errors[0].casefold()


def test_a_file_that_is_no_results_file_is_said_before_the_work(run, table, monkeypatch):
    monkeypatch.setattr(TextEncoder, "from_pretrained", None)
    code, _, err = run("knn", "--data", table, "--out", table)
    assert code == 2
    assert "not changed" in err


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_published_protocol_runs_on_published_data(run, shared_data):
    options = ("--protocol", "protaugment", "--data", "hwu64", "--data-dir", shared_data, "--episodes", 2, "--json")
    found = rows(run("prototypical", *options))
    assert [(row["n_way"], row["n_shot"], row["episodes"]) for row in found] == [
        (5, 1, 10),
        (5, 5, 10),
        ("19-29", 1, 10),
        ("19-29", 5, 10),
    ]
