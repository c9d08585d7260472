"""Tasks that arrive one after another: what is measured, learned, kept, saved and taken back."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fuzzing_signed import sign
from meta_task import KEYS, noisy_learner, noisy_pool

from nlpmeta.cli import main
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.frozen_layers import FrozenLayerCache, frozen_layer_cache
from nlpmeta.encoder.lora import lowest_trained_layer
from nlpmeta.episodes import fingerprint
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.online import meta as meta_online
from nlpmeta.online.meta import OnlineMetaLearner
from nlpmeta.online.meta_files import OnlineTaskSettings

FAST = {"steps": 8, "learning_rate": 5e-3, "n_shot": 1, "n_query": 30}
TASKS = [KEYS[i : i + 4] for i in range(0, 24, 4)]


def online(**changes):
    return OnlineMetaLearner(noisy_learner(), OnlineTaskSettings(**{**FAST, **changes}))


def met(leader, tasks=TASKS, *, test=False):
    tests = [noisy_pool(keys, seed=1) if test else None for keys in tasks]
    return [leader.meet(noisy_pool(keys), name=keys[0], test=one) for keys, one in zip(tasks, tests, strict=True)]


def same_weights(one, two):
    return all(torch.equal(one._weights[name], two._weights[name]) for name in one._weights)


@pytest.mark.slow
def test_later_tasks_are_met_better_than_without_learning():
    sizes = {"learning_rate": 2e-3, "n_query": 80}
    arrivals, never = (met(online(steps=steps, **sizes), test=True) for steps in (20, 0))
    assert [each.on_arrival for each in never] == [each.after for each in never]
    gain = np.mean([a.on_arrival - b.on_arrival for a, b in zip(arrivals[1:], never[1:], strict=True)])
    assert gain > 0.15
    assert arrivals[0].on_arrival == never[0].on_arrival  # the first is met before anything was learned


def test_what_is_measured_on_is_not_learned_from():
    leader = online()
    met(leader, TASKS[:3])
    for each in leader._kept:
        learned = {fingerprint(text) for text in each.learn.texts}
        assert not learned & {fingerprint(text) for text in each.measure.query.texts}
        assert not {fingerprint(t) for t in each.measure.support.texts} & {
            fingerprint(t) for t in each.measure.query.texts
        }


def test_texts_to_measure_on_may_be_given():
    task, test = noisy_pool(TASKS[0]), noisy_pool(TASKS[0], seed=1)
    leader = online(n_query=1000)
    leader.meet(task, name="a", test=test)
    assert set(leader._kept[0].measure.query.texts) <= set(test.texts)
    assert not set(leader._kept[0].learn.texts) & set(test.texts)


@pytest.mark.slow
def test_the_same_tasks_and_seed_give_the_same_bits():
    one, two, other = online(), online(), online(seed=1)
    assert met(one, TASKS[:3]) == met(two, TASKS[:3])
    met(other, TASKS[:3])
    assert same_weights(one, two)
    assert not same_weights(one, other)


def test_the_buffer_is_bounded_and_the_newest_is_in_it():
    leader = online(buffer=2, steps=1)
    for keys in TASKS:
        met(leader, [keys])
        assert len(leader._kept) <= 2
        assert leader._kept[-1].arrival is leader.arrivals[-1]
    assert len(leader.arrivals) == len(TASKS)


def test_a_review_is_of_the_present_state():
    leader = online()
    arrivals = met(leader, TASKS[:3])
    found = leader.review()
    assert list(found.accuracies) == [keys[0] for keys in TASKS[:3]]
    assert found.accuracies[TASKS[2][0]] == arrivals[2].after
    now = np.asarray(list(found.accuracies.values()))
    assert found.forgetting == pytest.approx(np.mean([a.after for a in arrivals] - now))
    assert found.regret == pytest.approx(np.mean(now - [a.on_arrival for a in arrivals]))
    assert found.on_arrival == pytest.approx(np.mean([a.on_arrival for a in arrivals]))
    with pytest.raises(NLPMetaError, match="No task has arrived"):
        online().review()


@pytest.mark.slow
def test_what_was_learned_can_be_taken_back():
    one, two = online(), online()
    met(one, TASKS[:2])
    met(two, TASKS[:4])
    assert two.rollback(2) == [TASKS[2][0], TASKS[3][0]]
    assert same_weights(one, two)
    assert two.arrivals == one.arrivals
    assert met(one, TASKS[4:5]) == met(two, TASKS[4:5])
    assert same_weights(one, two)
    with pytest.raises(NLPMetaError, match="states are kept"):
        two.rollback(9)


def test_a_failure_leaves_the_state_as_it_was(monkeypatch):
    leader, whole = online(), online()
    met(leader, TASKS[:1])
    met(whole, TASKS[:1])

    def interrupted(*args, **kwargs):
        with torch.no_grad():
            next(iter(leader._weights.values())).add_(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(meta_online, "meta_train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        met(leader, TASKS[1:2])
    assert same_weights(leader, whole)
    assert leader.arrivals == whole.arrivals
    assert len(leader._versions) == len(whole._versions) == 1


@pytest.fixture
def saved(encoder_folder, tmp_path, pool):
    """A folder with a checkpoint on the small encoder, and its topics as a task."""
    from nlpmeta.encoder.lora import AdapterSettings, add_adapter
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.learners.checkpoint import save_checkpoint

    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    save_checkpoint(PrototypicalNetwork(encoder, metric="cosine"), tmp_path / "start", {})
    return tmp_path / "start", pool


@pytest.mark.slow
def test_saved_and_loaded_it_goes_on_with_the_same_bits(saved, tmp_path):
    start, pool = saved
    whole = OnlineMetaLearner.start(str(start), OnlineTaskSettings(steps=2, n_shot=2, buffer=2))
    for number in range(3):
        whole.meet(pool, name=f"task {number}")
    whole.save(tmp_path / "online")
    loaded = OnlineMetaLearner.load(tmp_path / "online")
    assert loaded.arrivals == whole.arrivals
    assert loaded.review() == whole.review()
    assert loaded.meet(pool, name="next") == whole.meet(pool, name="next")
    assert same_weights(loaded, whole)
    assert loaded.rollback(2) == whole.rollback(2)
    assert same_weights(loaded, whole)
    assert loaded.settings == whole.settings


def test_only_the_layers_named_learn_and_what_is_below_them_is_computed_once_a_text(monkeypatch, tmp_path):
    computed = []
    fill = FrozenLayerCache._fill

    def counted(self, missing):
        computed.extend(missing)
        fill(self, missing)

    monkeypatch.setattr(FrozenLayerCache, "_fill", counted)
    monkeypatch.setattr(
        meta_online, "frozen_layer_cache", lambda encoder, kind: frozen_layer_cache(encoder, kind, folder=tmp_path)
    )
    leader, never = online(layers=1), online(layers=1, steps=0)
    start = {name: weight.clone() for name, weight in leader._weights.items()}
    met(leader, TASKS[:2])
    met(never, TASKS[:2])
    moved = {name for name, weight in leader._weights.items() if not torch.equal(weight, start[name])}
    adapters = {name for name in leader._weights if "lora_" in name}
    assert any("layer.1." in name for name in moved)
    assert {name for name in adapters if "layer.0." in name} and not any("layer.0." in name for name in moved)
    assert len(computed) == len(set(computed))  # the second leader finds every text's states
    assert leader.learner.encoder.frozen_layers is None


def test_accuracies_by_the_cached_layers_are_those_of_the_whole_encoder():
    cached, whole = met(online(layers=1, steps=0, n_query=80)), met(online(steps=0, n_query=80))
    assert [a.on_arrival for a in cached] == pytest.approx([b.on_arrival for b in whole], abs=0.02)


def test_the_layers_may_change_between_days_and_no_more_than_there_are(saved, tmp_path):
    start, pool = saved
    leader = OnlineMetaLearner.start(str(start), OnlineTaskSettings(steps=1, n_shot=2, layers=1))
    leader.meet(pool, name="topics")
    leader.save(tmp_path / "online")
    assert OnlineMetaLearner.load(tmp_path / "online").settings.layers == 1
    assert lowest_trained_layer(OnlineMetaLearner.load(tmp_path / "online").learner.encoder) == 1
    all_layers = OnlineMetaLearner.load(tmp_path / "online", OnlineTaskSettings(steps=1, n_shot=2))
    assert lowest_trained_layer(all_layers.learner.encoder) == 0
    assert all_layers.rollback(1) == ["topics"]
    with pytest.raises(NLPMetaError, match="top 3 layers were requested; this encoder has 2"):
        OnlineMetaLearner.load(tmp_path / "online", OnlineTaskSettings(layers=3))


def test_the_folder_is_a_checkpoint(saved, tmp_path):
    from nlpmeta import FewShotClassifier

    start, pool = saved
    leader = OnlineMetaLearner.start(str(start), OnlineTaskSettings(steps=1, n_shot=2))
    leader.meet(pool, name="topics")
    leader.save(tmp_path / "online")
    classifier = FewShotClassifier(checkpoint=str(tmp_path / "online")).fit(pool.texts, pool.names())
    assert len(classifier.predict(["ball goal"])) == 1
    assert json.loads((tmp_path / "online" / "nlpmeta.json").read_text())["training"]["online_tasks"] == 1


def test_what_is_no_such_folder_or_is_damaged_is_said(saved, tmp_path):
    start, pool = saved
    with pytest.raises(NLPMetaError, match="no state of online meta-training"):
        OnlineMetaLearner.load(start)
    leader = OnlineMetaLearner.start(str(start), OnlineTaskSettings(steps=1, n_shot=2))
    leader.meet(pool, name="topics")
    leader.save(tmp_path / "online")
    facts = json.loads((tmp_path / "online" / "online.json").read_text())
    wrong = {**facts["settings"], "steps": "many", "n_way": 1}
    (tmp_path / "online" / "online.json").write_text(json.dumps({**facts, "settings": wrong}))
    sign(tmp_path / "online")
    with pytest.raises(NLPMetaError, match="2 settings are wrong: ") as refused:
        OnlineMetaLearner.load(tmp_path / "online")
    assert "\n" not in str(refused.value)
    (tmp_path / "online" / "online.json").write_text("{}")
    with pytest.raises(ModelFolderError):
        OnlineMetaLearner.load(tmp_path / "online")


def test_a_task_that_is_too_small_changes_nothing():
    leader = online()
    tiny = LabeledTexts.from_names(["keya noisea", "keyb noiseb", "keyb noisec"], ["a", "b", "b"])
    with pytest.raises(DataError, match="two classes with two texts|No text|no query|query"):
        leader.meet(tiny, name="tiny")
    assert leader.arrivals == []
    assert leader._versions == []


def test_repeated_texts_do_not_make_a_class_rich():
    pool = noisy_pool(TASKS[0])
    same = replace(
        pool, texts=tuple(t if label else pool.texts[0] for t, label in zip(pool.texts, pool.labels, strict=True))
    )
    arrival = online(steps=2).meet(same, name="one class has one text")
    assert arrival.n_way == 4


@pytest.fixture
def files(tmp_path, pool):
    """The topics in two CSV files."""
    for number in (1, 2):
        rows = [f"{text},{name}" for text, name in zip(pool.texts, pool.names(), strict=True)][:: 3 - number]
        (tmp_path / f"task-{number}.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return str(tmp_path / "task-1.csv"), str(tmp_path / "task-2.csv")


def test_the_command_meets_tasks_goes_on_and_takes_back(saved, files, tmp_path, capsys):
    out = f"out={tmp_path / 'mine'}"
    assert main(["train", "--online", files[0], files[1], out, f"start={saved[0]}", "steps=1", "n_shot=2"]) == 0
    printed = capsys.readouterr()
    assert "task-1" in printed.out
    assert "points forgotten" in printed.out
    assert main(["train", "--online", files[0], out]) == 2
    assert "Continue with --resume" in capsys.readouterr().err
    assert main(["train", "--online", files[0], out, "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["arrivals"]] == ["task-1", "task-2", "task-1 (2)"]
    assert main(["train", "--online", out, "--rollback", "2", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["arrivals"]] == ["task-1"]


def test_what_is_wrong_with_the_command_is_said_before_anything_is_learned(saved, files, tmp_path, capsys):
    out, start = f"out={tmp_path / 'mine'}", f"start={saved[0]}"
    assert main(["train", "--online", files[0], str(tmp_path / "nowhere.csv"), out, start]) == 2
    assert main(["train", "--online", files[0], out, start, "stepz=3"]) == 2
    assert "Did you mean steps" in capsys.readouterr().err
    assert main(["train", "protonet-tiny", "--rollback", "1"]) == 2
    assert main(["train", "--online", out, start]) == 2
    assert "No data set was given" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert main(["train", "--online", files[0], out, start, "steps=1", "n_shot=2"]) == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_nothing_of_the_user_is_lost_when_a_state_is_saved(saved, tmp_path):
    start, pool = saved
    leader = OnlineMetaLearner.start(str(start), OnlineTaskSettings(steps=1, n_shot=2))
    leader.meet(pool, name="topics")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(NLPMetaError, match=r"holds chapter\.txt, which is not of a saved model"):
        leader.save(tmp_path / "thesis")
    leader.save(tmp_path / "online")
    leader.save(tmp_path / "online")  # its own files are replaced
    (tmp_path / "online" / "notes.txt").write_text("what I saw")
    with pytest.raises(NLPMetaError, match=r"holds notes\.txt"):
        leader.save(tmp_path / "online")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "online" / "notes.txt").read_text() == "what I saw"


def test_tasks_of_one_name_are_told_apart(saved):
    start, pool = saved
    leader = OnlineMetaLearner.start(str(start), OnlineTaskSettings(steps=0, n_shot=2))
    names = [leader.meet(pool, name="topics").name for _ in range(3)]
    assert names == ["topics", "topics (2)", "topics (3)"]
    assert list(leader.review().accuracies) == names
