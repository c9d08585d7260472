"""``nlpmeta data``: what each command prints, writes and refuses, through the entry point of the command line."""

import json
import subprocess
import sys

import pytest

from nlpmeta import cli
from nlpmeta.cli import data
from nlpmeta.sources.catalogue import DATA_DIR
from nlpmeta.sources.file import FileSource
from nlpmeta.sources.loading import known_names, load_source

if "data" not in {group.name for group in cli.app.registered_groups}:
    data.register(cli.app)


@pytest.fixture(autouse=True)
def no_mirror_of_the_user(monkeypatch):
    monkeypatch.delenv(DATA_DIR, raising=False)


@pytest.fixture
def run(capsys):
    """Runs a command and returns its exit code, standard output and standard error."""

    def call(*arguments):
        code = cli.main(["data", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def mirror(tmp_path):
    """A mirror with two languages of one set, one sentence torn between splits, and one set without languages."""
    rows = {
        "massive/sw-KE/train.jsonl": [("1", "niamshe saa tatu", "alarm_set"), ("2", "zima taa", "iot_hue_lightoff")],
        "massive/sw-KE/test.jsonl": [("3", "Zima  taa", "iot_hue_lightoff"), ("4", "washa taa", "iot_hue_lighton")],
        "massive/de-DE/train.jsonl": [("3", "mach das licht aus", "iot_hue_lightoff")],
    }
    for name, lines in rows.items():
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written = [json.dumps({"id": i, "text": text, "label": label}) + "\n" for i, text, label in lines]
        path.write_text("".join(written), "utf-8")
    return tmp_path / "mirror"


def test_list_names_every_data_set_and_where_it_would_be_read(run, mirror):
    code, out, err = run("list", "--json")
    found = {each["name"]: each for each in json.loads(out)}
    assert (code, err) == (0, "")
    assert set(found) == set(known_names())
    assert all(each["licence"] and each["citation"] for each in found.values())
    assert found["massive"]["read_from"].startswith("the Hub: mteb/amazon_massive_intent")
    assert found["spamassassin"]["read_from"] == "a mirror folder only"
    code, out, _ = run("list", "--json", "--data-dir", mirror)
    found = {each["name"]: each for each in json.loads(out)}
    assert found["massive"]["read_from"] == f"the mirror folder {mirror}"
    assert found["massive"]["languages"] == ["de-DE", "sw-KE"]


def test_list_prints_a_line_a_set_on_a_wide_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("list")
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1 : len(known_names()) + 1]] == list(known_names())
    assert "Hub: mteb/AfriSentiClassification" in out
    assert "…" not in out


def test_list_wraps_at_eighty_columns_where_nobody_looks_and_loses_nothing(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    wide = run("list")[1]
    monkeypatch.delenv("COLUMNS")
    out = run("list")[1]
    assert max(map(len, out.splitlines())) <= 80
    assert sorted(wide.replace("\n", "").replace(" ", "")) == sorted(out.replace("\n", "").replace(" ", ""))


def test_list_works_without_the_packages_of_an_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "home_assistant_intents", None)
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("list")
    assert code == 0
    assert "home-assistant" in out
    assert "not installed" in out


def test_show_counts_each_split_of_the_mirror(run, mirror):
    code, out, _ = run("show", "massive", "--data-dir", mirror, "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["licence"].startswith("CC BY 4.0")
    assert shown["n_labels"] == len(shown["labels"]) == 60
    assert [(each["lang"], each["split"], each["texts"], each["classes"]) for each in shown["counts"]] == [
        ("de-DE", "train", 1, 1),
        ("sw-KE", "train", 2, 2),
        ("sw-KE", "test", 2, 2),
    ]
    _, out, _ = run("show", "massive", "--data-dir", mirror, "--lang", "Swahili")
    assert "MASSIVE 1.1" in out
    assert "sw-KE" in out
    assert "de-DE  " not in out


def test_show_says_what_it_knows_without_a_download(run):
    for name in ("mtop", "spamassassin", "afrisenti"):
        code, out, _ = run("show", name, "--json")
        assert code == 0
        assert json.loads(out)["counts"] == []
    assert "arXiv:2302.08956" in run("show", "afrisenti")[1]


def test_show_reports_what_home_assistant_gives_a_language(run):
    pytest.importorskip("home_assistant_intents")
    code, out, _ = run("show", "home-assistant", "--lang", "sw", "--json")
    (found,) = json.loads(out)["yields"]
    assert code == 0
    assert (found["lang"], found["intents"]) == ("sw", 3)
    assert found["sentences"] == len(load_source("home-assistant").load("sw"))
    assert "Swahili" in run("show", "home-assistant", "--lang", "sw")[1]


def test_show_explains_a_file_too(run, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("text,label\nhello,greet\nbye,leave\n", "utf-8")
    code, out, _ = run("show", path, "--json")
    shown = json.loads(out)
    assert (code, shown["labels"]) == (0, ["greet", "leave"])
    assert shown["counts"] == [{"lang": None, "split": "train", "texts": 2, "classes": 2}]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_export_writes_what_reads_back_unchanged(run, mirror, tmp_path, ending):
    path = tmp_path / f"out{ending}"
    code, out, err = run("export", "massive", "--lang", "sw", "--split", "test", "--data-dir", mirror, "--out", path)
    assert code == 0
    assert out == f"{path}: 2 texts in 2 classes\n"
    assert "CC BY 4.0" in err
    assert FileSource(path).load() == load_source("massive", data_dir=mirror).load("sw", "test")


def test_export_keeps_a_file_that_is_there(run, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("mine", "utf-8")
    code, _, err = run("export", "starter", "--lang", "sw", "--out", path)
    assert (code, path.read_text("utf-8")) == (2, "mine")
    assert "--overwrite" in err
    code, out, _ = run("export", "starter", "--lang", "sw", "--out", path, "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["texts"] == len(FileSource(path).load())


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "split"), [
    ("injongo", "dev"), ("clinc150", "oos_test"), ("spamassassin", "train"), ("popquorn", "train"), ("sib200", "test"),
])  # fmt: skip
def test_real_data_sets_survive_an_export(run, tmp_path, shared_data, name, split):
    path = tmp_path / "out.csv"
    assert run("export", name, "--split", split, "--data-dir", shared_data, "--out", path)[0] == 0
    assert FileSource(path).load() == load_source(name, data_dir=shared_data).load(split=split)


def test_check_counts_within_and_across_splits_and_torn_translations(run, mirror):
    code, out, _ = run("check", "massive", "--data-dir", mirror, "--json")
    found = json.loads(out)
    assert code == 0
    assert [part["name"] for part in found["parts"]] == ["de-DE/train", "sw-KE/train", "sw-KE/test"]
    (overlap,) = found["overlaps"]
    assert overlap.pop("first_rows") == {"normalised": {"line": 1, "other": 2}}
    assert overlap == {"first": "sw-KE/train", "second": "sw-KE/test", "exact": 0, "normalised": 1, "label_differs": 0}
    assert found["split_ids"] == {"count": 1, "languages": 2, "examples": ["3"]}
    assert not found["clean"]
    _, out, _ = run("check", "massive", "--data-dir", mirror)
    assert "Ids in different splits in different languages: 1, such as 3." in out


def test_check_compares_files(run, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\nhello,greet\nHello,leave\nbye,leave\n", "utf-8")
    (tmp_path / "test.csv").write_text("text,label\nHELLO,greet\n", "utf-8")
    code, out, _ = run("check", tmp_path / "train.csv", tmp_path / "test.csv", "--few", 2, "--json")
    found = json.loads(out)
    assert code == 0
    assert [(part["exact"], part["normalised"], part["conflicting"]) for part in found["parts"]] == [
        (0, 1, 1),
        (0, 0, 0),
    ]
    assert found["overlaps"][0]["normalised"] == 1
    assert found["parts"][0]["small_classes"] == {"greet": 1}
    _, out, _ = run("check", tmp_path / "train.csv", tmp_path / "test.csv")
    assert "1 repeats within parts, 1 across parts (normalised)." in out


def test_check_says_when_nothing_is_wrong(run, tmp_path):
    (tmp_path / "mine.csv").write_text("text,label\nhello,greet\nbye,leave\n", "utf-8")
    assert "No text is repeated" in run("check", tmp_path / "mine.csv")[1]


@pytest.mark.shared_data
def test_check_finds_what_the_readme_of_the_mirror_found(run, shared_data):
    """../shared/data/README.md: 143 distinct test texts of massive/sw-KE recur in train."""
    _, out, _ = run("check", "massive", "--lang", "sw", "--data-dir", shared_data, "--json")
    found = {(each["first"], each["second"]): each for each in json.loads(out)["overlaps"]}
    source = load_source("massive", data_dir=shared_data)
    train, test = set(source.load("sw").texts), source.load("sw", "test").texts
    assert found["sw-KE/train", "sw-KE/test"]["exact"] == sum(text in train for text in test)
    assert len(train & set(test)) == 143


@pytest.mark.shared_data
def test_check_leaves_out_splits_that_repeat_others_by_design(run, shared_data):
    _, out, _ = run("check", "clinc150", "--data-dir", shared_data, "--json")
    names = [part["name"] for part in json.loads(out)["parts"]]
    assert names == [f"en/{split}" for split in ("train", "dev", "test", "oos_train", "oos_dev", "oos_test")]


WRONG = """
show massiv
check nowhere.csv
check
check starter --few 0
export starter --out out.xlsx
export starter --lang kl --out out.csv
export starter --split dev --out out.csv
list --data-dir nowhere
show massive --data-dir nowhere
"""


@pytest.mark.parametrize("arguments", WRONG.strip().splitlines())
def test_a_wrong_request_is_one_line_and_exit_code_2(run, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments.split())
    assert (code, out) == (2, "")
    assert err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_check_names_the_first_line_of_all_that_it_reports(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = ["text,label", '"hello\nthere",a', "bye,b", ",b", "bye,b", "Bye,a", "see 5,a", "see 7,a"]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "new.csv").write_text("text,label\nfresh,a\nBYE,b\nbye,b\n")
    code, out, err = run("check", "mine.csv", "new.csv")
    said = " ".join(out.split())
    assert code == 0
    assert "mine.csv/train: first repeat: line 6 (see line 4); first text with another label: line 7 (see" in said
    assert "new.csv/train: first normalised repeat: line 4 (see line 3)" in said
    assert "also in mine.csv/train: line 3 (line 4 there); line 3 (line 7 there), with another label" in said
    assert "mine.csv: skipped 1 row with an empty text (first: line 5)" in err
    found = json.loads(run("check", "mine.csv", "new.csv", "--json")[1])
    assert found["parts"][0]["first"]["conflicting"] == {"line": 7, "other": 4}
    assert found["overlaps"][0]["first_rows"]["exact"] == {"line": 4, "other": 4}
    assert found["notes"] == ["mine.csv: skipped 1 row with an empty text (first: line 5)."]


def test_control_characters_of_a_file_do_not_reach_the_terminal(run, tmp_path):
    (tmp_path / "mine.csv").write_text("text,label\nhello,\x1b[31mred\nbye,blue\n", "utf-8")
    for command in ("show", "check"):
        assert "\x1b" not in run(command, tmp_path / "mine.csv")[1]


@pytest.mark.parametrize("command", ["list", "show", "export", "check"])
def test_help_shows_examples(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "nlpmeta data check" in out


def test_the_module_brings_no_heavy_library_along():
    heavy = ("torch", "datasets", "numpy", "pyarrow", "pandas")
    script = f"import sys, nlpmeta.cli.data; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
