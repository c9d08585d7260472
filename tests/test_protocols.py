"""Each protocol draws what its publication says, and its rows can be stored and found again."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from conftest import make_encoder

from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.episodes.pools import InTurn, ShuffledDraws
from nlpmeta.errors import DataError, DataWarning, NLPMetaError, UnknownNameError
from nlpmeta.evaluation import evaluate, shapes_of
from nlpmeta.evaluation.protocols import (
    CLINC_OOS,
    KSHOT_ALL,
    MTEB_8SHOT,
    N_WAY,
    PROTAUGMENT,
    PROTOCOLS,
    Material,
    TaskSize,
    protocol,
)
from nlpmeta.evaluation.results import add_rows, read_rows
from nlpmeta.evaluation.runs import DataChoice
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork


def shape(n_shot=2, n_way="all", n_episodes=3, max_query=None, seed=0):
    return TaskSize(n_way=n_way, n_shot=n_shot, n_episodes=n_episodes, max_query=max_query, seed=seed)


def numbered(counts, prefix=""):
    """A class for each count, with so many different texts of letters."""
    pairs = [
        (f"{prefix}{chr(97 + c)} {chr(97 + i // 26)}{chr(97 + i % 26)}", f"class {c}")
        for c, count in enumerate(counts)
        for i in range(count)
    ]
    return LabeledTexts.from_names([text for text, _ in pairs], [name for _, name in pairs])


def halves(pool):
    rows = range(len(pool))
    return pool.select(rows[::2]), pool.select(rows[1::2])


def undersampled(labels, per_label, seed, n_draws):
    """MTEB's ``_undersample_data`` of release 1.12 and its later rewriting, from their description."""
    order, draws = list(range(len(labels))), []
    for _ in range(n_draws):
        np.random.RandomState(seed).shuffle(order)  # noqa: NPY002
        taken, rows = defaultdict(int), []
        for row in order:
            if taken[labels[row]] < per_label:
                taken[labels[row]] += 1
                rows.append(row)
        draws.append(rows)
    return draws


def test_mteb_draws_are_those_of_mteb_where_train_and_test_share_no_text():
    train, test = numbered([30, 5, 20, 12]), numbered([4, 4, 4, 4], prefix="q")
    sampler = ShuffledDraws(train, test, n_shot=8, seed=42)
    for index, rows in enumerate(undersampled(train.labels, 8, 42, 4)):
        assert sampler.episode(index).support.texts == tuple(train.texts[row] for row in rows)
        assert sampler.episode(index).query.texts == test.texts


def test_mteb_draws_do_not_depend_on_each_other():
    train, test = numbered([30, 20]), numbered([4, 4], prefix="q")
    late = ShuffledDraws(train, test, n_shot=8, seed=42).episode(7)
    sampler = ShuffledDraws(train, test, n_shot=8, seed=42)
    assert [sampler.episode(i) for i in range(8)][7].support.texts == late.support.texts


def test_mteb_draws_pass_over_texts_that_are_scored_on():
    train = numbered([12, 12])
    test = train.select([0, 1, 2, 12, 13])
    for index in range(6):
        episode = ShuffledDraws(train, test, n_shot=8, seed=42).episode(index)
        assert not set(episode.support.texts) & set(test.texts)
        assert set(episode.support.counts().values()) == {8}


def test_mteb_fixes_the_penalty_and_the_seed():
    assert MTEB_8SHOT.options["logistic"] == {"inverse_penalty": 1.0}
    (fixed,) = shapes_of(MTEB_8SHOT, n_shots=None, n_ways=None, n_episodes=None, max_query=None, seed=None)
    assert (fixed.n_shot, fixed.n_episodes, fixed.seed, fixed.max_query) == (8, 10, 42, None)


@pytest.mark.parametrize(("n_shots", "n_ways"), [([5], None), (None, [5])])
def test_mteb_cannot_be_had_with_other_sizes(n_shots, n_ways):
    with pytest.raises(NLPMetaError, match="leave --shots and --ways out"):
        shapes_of(MTEB_8SHOT, n_shots=n_shots, n_ways=n_ways, n_episodes=None, max_query=None, seed=None)


def test_kshot_all_scores_every_draw_on_the_same_test_texts(pool):
    train, test = halves(pool)
    tasks = KSHOT_ALL.draw(Material(pool=train, test=test), shape(max_query=10))
    episodes = [tasks.sampler.episode(i) for i in range(3)]
    assert len({episode.query.texts for episode in episodes}) == 1
    assert len(episodes[0].query) == 10
    assert len({episode.support.texts for episode in episodes}) == 3
    assert episodes[0].support.counts() == {"food": 2, "money": 2, "sport": 2}
    assert set(tasks.texts) == {text for episode in episodes for text in episode.texts()}


def test_kshot_all_picks_the_same_test_texts_for_every_number_of_shots(pool):
    train, test = halves(pool)
    one, five = (KSHOT_ALL.draw(Material(pool=train, test=test), shape(n, max_query=10)) for n in (1, 5))
    assert one.sampler.episode(0).query.texts == five.sampler.episode(2).query.texts


def test_kshot_all_without_a_test_split_scores_on_the_rest(pool):
    tasks = KSHOT_ALL.draw(Material(pool=pool), shape())
    episode = tasks.sampler.episode(0)
    assert sorted(episode.support.texts + episode.query.texts) == sorted(pool.texts)


def test_classes_with_too_few_texts_give_all_they_have_and_it_is_said():
    tasks = KSHOT_ALL.draw(Material(pool=numbered([9, 2]), test=numbered([3, 3], "q")), shape(5))
    assert tasks.sampler.episode(0).support.counts() == {"class 0": 5, "class 1": 2}
    assert tasks.notes == ("1 class gives fewer than 5 support texts, all there are.",)


def test_test_texts_of_classes_without_support_are_counted_out_loud():
    tasks = KSHOT_ALL.draw(Material(pool=numbered([9, 9]), test=numbered([3, 3, 4], "q")), shape(2))
    assert len(tasks.sampler.episode(0).query) == 6
    assert "4 query texts" in tasks.notes[0]


def test_protaugment_gives_each_fold_its_turn_and_its_own_classes():
    folds = (numbered([12] * 6), numbered([12] * 7, "x"))
    tasks = PROTAUGMENT.draw(Material(folds=folds), shape(5, n_way=5, n_episodes=4))
    assert (tasks.n_episodes, tasks.n_way) == (8, 5)
    for index in range(8):
        episode = tasks.sampler.episode(index)
        assert set(episode.texts()) <= set(folds[index // 4].texts)
        assert (episode.n_way, len(episode.support), len(episode.query)) == (5, 25, 25)
    assert len({tasks.sampler.episode(index).support.texts for index in range(8)}) == 8
    assert set(tasks.texts) == set(folds[0].texts) | set(folds[1].texts)


def test_all_ways_of_a_fold_are_the_classes_that_have_enough_texts():
    folds = (numbered([12, 12, 12, 9]), numbered([12] * 5, "x"))
    tasks = PROTAUGMENT.draw(Material(folds=folds), shape(5, n_episodes=2))
    assert [tasks.sampler.episode(index).n_way for index in range(4)] == [3, 3, 5, 5]
    assert tasks.n_way == "3-5"


def test_n_way_episodes_come_from_one_pool(pool):
    tasks = N_WAY.draw(Material(pool=pool), shape(3, n_way=2, n_episodes=5))
    assert Counter(tasks.sampler.episode(0).query.labels) == {0: 5, 1: 5}


def test_out_of_scope_texts_are_in_every_draw_and_in_no_class(pool):
    train, test = halves(pool)
    tasks = CLINC_OOS.draw(Material(pool=train, test=test, out_of_scope=("a b", "c d")), shape())
    for index in range(3):
        assert tasks.sampler.episode(index).out_of_scope == ("a b", "c d")
    assert {"a b", "c d"} <= set(tasks.texts)


@pytest.mark.parametrize(
    ("chosen", "material", "missing"),
    [
        (PROTAUGMENT, Material(), "folds"),
        (CLINC_OOS, Material(pool=numbered([9, 9]), test=numbered([3, 3], "q")), "out of scope"),
        (MTEB_8SHOT, Material(pool=numbered([9, 9])), "only one"),
    ],
)
def test_what_the_data_lacks_is_said(chosen, material, missing):
    with pytest.raises(DataError, match=missing):
        chosen.draw(material, shape())


def test_fewer_classes_are_refused_where_all_are_meant():
    with pytest.raises(NLPMetaError, match="--protocol n-way"):
        KSHOT_ALL.check((5,), (1,))


@pytest.mark.parametrize("wrong", [{"n_shot": -1}, {"n_way": 1}, {"n_episodes": 0}, {"max_query": 0}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(NLPMetaError):
        shape(**wrong)


def test_an_unknown_protocol_is_said_with_those_that_there_are():
    with pytest.raises(UnknownNameError, match="protaugment"):
        protocol("protagment")
    assert all(protocol(name).name == name for name in PROTOCOLS)


def test_in_turn_never_draws_one_episode_twice(sampler):
    in_turn = InTurn([sampler, sampler], 3)
    assert len({in_turn.episode(index).support.texts for index in range(6)}) == 6


def test_in_turn_needs_samplers():
    with pytest.raises(NLPMetaError):
        InTurn([], 3)


@pytest.fixture
def table(tmp_path, pool):
    path = tmp_path / "topics.jsonl"
    lines = [json.dumps({"text": text, "label": name}) for text, name in zip(pool.texts, pool.names(), strict=True)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_rows_say_everything_that_decides_their_figures(encoder, table):
    methods = {"logistic": LogisticHead(encoder), "prototypical": PrototypicalNetwork(encoder)}
    first, second = evaluate(methods, str(table), n_shots=[2], n_episodes=3, seed=7)
    row = second.json()
    assert row["data"] == str(table)
    assert (row["method"], row["protocol"], row["n_way"], row["n_shot"]) == ("prototypical", "kshot-all", 3, 2)
    assert (row["episodes"], row["seed"], row["max_query"], row["n_query"]) == (3, 7, 500, 42)
    assert row["encoder"] == {"name": None, "digest": None, "prefix": "", "max_length": 32, "normalise": True}
    assert row["difference"]["baseline"] == "logistic"
    expected = row["accuracy"]["mean"] - first.json()["accuracy"]["mean"]
    assert row["difference"]["accuracy"]["mean"] == pytest.approx(expected, abs=1e-6)
    assert "difference" not in first.json()
    json.dumps(row)


def test_the_same_evaluation_gives_the_same_figures(encoder, table):
    def figures():
        (row,) = evaluate({"logistic": LogisticHead(encoder)}, str(table), n_shots=[2], n_episodes=3)
        return row.summary.accuracies, row.summary.macro_f1s

    assert figures() == figures()


def test_rows_on_trained_adapters_say_which(encoder, table):
    def encoder_of(value):
        add_adapter(trained := make_encoder(), AdapterSettings(rank=2), seed=0)
        for weight in adapter_weights(trained).values():
            weight.data += value
        (row,) = evaluate({"mine": PrototypicalNetwork(trained)}, str(table), n_shots=[2], n_episodes=2)
        return row.json()["encoder"]

    assert len(encoder_of(0.1)["adapter"]) == 12
    assert encoder_of(0.1) == encoder_of(0.1) != encoder_of(0.2)


def test_a_results_file_grows_and_replaces_equal_settings(encoder, table, tmp_path):
    out = tmp_path / "sub" / "results.json"
    methods = {"prototypical": PrototypicalNetwork(encoder)}
    for seed, shots in ((0, [1, 2]), (0, [2]), (1, [2])):
        add_rows(out, evaluate(methods, str(table), n_shots=shots, n_episodes=2, seed=seed))
    found = [(row["n_shot"], row["seed"]) for row in read_rows(out)]
    assert sorted(found) == [(1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize("content", ["[1, 2]", "{}", "not json", '{"rows": 3}'])
def test_a_file_that_holds_no_results_is_left_alone(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(DataError, match="not changed"):
        add_rows(path, [])
    assert path.read_text() == content


def test_data_that_is_scored_on_itself_has_no_support_left(table, encoder):
    choice = DataChoice(data=str(table), test_data=str(table))
    with pytest.raises(DataError, match="--test-data is the same as --data"):
        evaluate({"prototypical": PrototypicalNetwork(encoder)}, choice, n_shots=[1])


@pytest.mark.shared_data
def test_published_folds_are_disjoint_and_large_enough(shared_data):
    material = DataChoice(data="oos", data_dir=shared_data).material(PROTAUGMENT, None)
    assert [fold.n_way for fold in material.folds] == [50] * 5
    tasks = PROTAUGMENT.draw(material, shape(5, n_episodes=1))
    assert tasks.n_way == 50
    assert len(tasks.sampler.episode(3).query) == 250


@pytest.mark.shared_data
def test_massive_is_scored_on_its_whole_test_split(shared_data):
    material = DataChoice(data="massive", data_dir=shared_data).material(MTEB_8SHOT, "sw")
    tasks = MTEB_8SHOT.draw(material, shape(8, n_episodes=1, seed=42))
    episode = tasks.sampler.episode(0)
    assert (len(episode.query), episode.n_way) == (2974, 60)
    assert len(episode.support) == 476  # 59 classes of 8, and one that has 4


@pytest.mark.shared_data
def test_clinc_has_texts_out_of_scope(shared_data):
    material = DataChoice(data="clinc150", data_dir=shared_data).material(CLINC_OOS, None)
    assert (len(material.out_of_scope), len(material.test), material.pool.n_way) == (1000, 4500, 150)
    with pytest.raises(DataError, match="oos_test"):
        DataChoice(data="banking77", data_dir=shared_data).material(CLINC_OOS, None)


def test_test_data_whose_labels_are_written_otherwise_are_matched_and_those_of_another_task_refused(tmp_path):
    rows = [f"{word} {i},{label}" for label, word in ((1, "ball"), (2, "rice")) for i in "abcdef"]
    (tmp_path / "train.csv").write_text("text,label\n" + "\n".join(rows[:4] + rows[6:10]) + "\n")
    other = [row + ".0" for row in rows[4:6] + rows[10:]]
    (tmp_path / "test.csv").write_text("text,label\n" + "\n".join(other) + "\n")
    choice = DataChoice(data=str(tmp_path / "train.csv"), test_data=str(tmp_path / "test.csv"))
    with pytest.warns(DataWarning, match="writes labels otherwise"):
        material = choice.material(KSHOT_ALL, None)
    assert material.test.label_names == material.pool.label_names == ("1", "2")
    (tmp_path / "test.csv").write_text("text,label\n" + "\n".join(rows[4:6]).replace(",1", ",x") + "\nrice z,y\n")
    with pytest.raises(DataError, match="has no label of"):
        choice.material(KSHOT_ALL, None)
