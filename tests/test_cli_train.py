import json

import pytest

from nlpmeta.cli import main
from nlpmeta.learners.checkpoint import load_checkpoint
from nlpmeta.training.resume import _checksum

RECIPE = """\
encoder: {{name: {encoder}, max_length: 32}}
adapter: {{rank: 2}}
steps: 4
eval_every: 2
eval_episodes: 2
checkpoint_every: 2
data:
  - {{source: starter, langs: [en, de], n_way: 3, n_shot: 1, n_query: 1}}
heldout:
  - {{name: swahili, source: starter, langs: [sw], n_way: 3, n_shot: 1, n_query: 2}}
"""


@pytest.fixture
def recipe(tmp_path, encoder_folder):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE.format(encoder=encoder_folder))
    return str(path)


def test_train_writes_a_checkpoint_and_a_line_a_step(recipe, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", recipe, "steps=3", "seed=1", f"out={out}", "checkpoint_every=3"]) == 0
    captured = capsys.readouterr()
    assert "3 steps" in captured.out and "accuracy on held-out tasks" in captured.out and str(out) in captured.out
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    manifest = json.loads((out / "nlpmeta.json").read_text())
    assert manifest["training"]["sets"] == ["starter"]
    assert manifest["training"]["recipe"]["seed"] == 1
    load_checkpoint(out)


def test_json_is_one_object(recipe, tmp_path, capsys):
    assert main(["train", recipe, f"out={tmp_path / 'run'}", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] == 4
    assert found["out"] == str(tmp_path / "run")


def test_a_second_run_into_the_same_folder_is_refused_and_resume_is_not(recipe, tmp_path, capsys):
    out = f"out={tmp_path / 'run'}"
    assert main(["train", recipe, "steps=2", out]) == 0
    assert main(["train", recipe, "steps=2", out]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["train", recipe, "steps=4", out, "--resume"]) == 0
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_run_is_not_resumed_with_other_tasks(recipe, tmp_path, capsys):
    out = f"out={tmp_path / 'run'}"
    assert main(["train", recipe, "steps=2", out]) == 0
    assert main(["train", recipe, "steps=4", out, "data.0.n_way=2", "--resume"]) == 2
    assert "had another data" in capsys.readouterr().err


def test_a_run_of_an_older_release_without_the_newer_keys_is_resumed(recipe, tmp_path):
    folder = tmp_path / "run"
    assert main(["train", recipe, "steps=2", "checkpoint_every=2", f"out={folder}"]) == 0
    written = json.loads((folder / "recipe.json").read_text())
    for part in written["data"]:
        for key in ("file", "n_texts", "n_clusters", "merge_share"):
            del part[key]
    (folder / "recipe.json").write_text(json.dumps(written))
    state = next((folder / "checkpoints").glob("step-*")) / "state.json"
    facts = json.loads(state.read_text())
    del facts["checksum"], facts["settings"]["renew_every"], facts["settings"]["worst_group"]
    state.write_text(json.dumps({**facts, "checksum": _checksum(facts)}))
    assert main(["train", recipe, "steps=4", f"out={folder}", "--resume"]) == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "no recipe named 'nosuch'"),
        (["protonet", "stepz=1"], "Did you mean steps"),
        (["protonet", "learner=prototipical"], "Did you mean 'prototypical'"),
        (["protonet", "learner_options.metricc=1"], "learner_options do not fit"),
        (["protonet", "data.0.source=nosuch"], "no data set named 'nosuch'|nosuch"),
    ],
)
def test_mistakes_end_with_2_and_one_message(arguments, message, recipe, tmp_path, capsys):
    arguments = [recipe if argument == "protonet" else argument for argument in arguments]
    assert main(["train", *arguments, f"out={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert any(part in err for part in message.split("|")), err
    assert not (tmp_path / "run").exists()


def test_recipes_are_listed_copied_and_explained(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "list", "--json"]) == 0
    assert "protonet-tiny" in json.loads(capsys.readouterr().out)
    assert main(["recipes", "list"]) == 0
    assert "protonet-tiny" in capsys.readouterr().out
    assert main(["recipes", "cp", "protonet-tiny"]) == 0
    assert (tmp_path / "protonet-tiny.yaml").read_text().startswith("# nlpmeta train protonet-tiny")
    assert main(["recipes", "cp", "protonet-tiny"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["recipes", "cp", "protonett"]) == 2
    assert main(["recipes", "keys"]) == 0
    assert "checkpoint_every" in capsys.readouterr().out
