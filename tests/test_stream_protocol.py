"""Streams as a protocol: what is counted, the rows, the picture, and the learners that do not read streams."""

import json

import pytest
import torch
from conftest import make_encoder

from nlpmeta.cli import main
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.episodes.pools import StreamSampler
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.evaluation import shapes_of
from nlpmeta.evaluation.protocols import STREAM
from nlpmeta.evaluation.runs import DataChoice, ProtocolRun
from nlpmeta.learners.checkpoint import save_checkpoint
from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.streams import score_stream

TEXTS = ("ball goal", "rice soup", "goal match", "bank loan", "bread salt", "loan cash", "team ball")
NAMES = ("sport", "food", "sport", "money", "food", "money", "sport")


@pytest.fixture
def episode():
    stream = LabeledTexts.from_names(TEXTS, NAMES)
    return Episode(stream, stream)


def by_hand(learner, episode):
    """The answer of prototypes to each text: all texts before it are the support."""
    found = []
    for row in range(len(episode.support)):
        before = list(range(row))
        labels = [episode.support.labels[i] for i in before]
        if len(set(labels)) < 2:
            found.append(labels[0] if labels else 0)
            continue
        vectors = learner.encoder.encode(episode.support.texts)
        means = {c: vectors[[i for i in before if episode.support.labels[i] == c]].mean(0) for c in set(labels)}
        found.append(min(means, key=lambda c: float((vectors[row] - means[c]).square().sum())))
    return found


def test_every_text_is_scored_on_the_texts_before_it_alone(episode):
    learner = PrototypicalNetwork(make_encoder()).eval()
    score = score_stream(learner, episode)
    assert score.probabilities.argmax(1).tolist() == by_hand(learner, episode)
    assert score.presentations.tolist() == [1, 1, 2, 1, 2, 2, 3]
    torch.testing.assert_close(score.probabilities.sum(1), torch.ones(7))


def test_a_class_that_did_not_come_up_has_no_probability(episode):
    score = score_stream(MemoryAugmentedNetwork(make_encoder(), rows=8, max_way=4).eval(), episode)
    first = {name: NAMES.index(name) for name in set(NAMES)}
    for row in range(1, 7):
        for label, name in enumerate(episode.support.label_names):
            assert (score.probabilities[row, label] > 0) == (first[name] < row)
    assert score.probabilities[0].tolist() == pytest.approx([1 / 3] * 3)


def test_a_stream_learner_writes_and_does_not_start_over(episode):
    learner = MemoryAugmentedNetwork(make_encoder(), rows=8, max_way=4).eval()
    written, given = [], learner.write
    learner.write = lambda state, features, label: (written.append(label), given(state, features, label))[1]
    learner.adapt = None
    score_stream(learner, episode)
    assert written == [0, 1, 0, 2, 1, 2, 0]  # classes in the order in which they came up


def test_streams_hold_the_texts_of_the_episode_in_an_order_of_their_own(pool):
    plain = EpisodeSampler([pool], n_way=3, n_shot=5, n_query=1, seed=0)
    streams = StreamSampler(plain, seed=0)
    one, two = streams.episode(1), streams.episode(2)
    pairs = [sorted(zip(e.support.texts, e.support.names(), strict=True)) for e in (one, plain.episode(1))]
    assert pairs[0] == pairs[1]
    assert one.support.labels != two.support.labels
    assert one.support.texts == streams.episode(1).support.texts
    assert list(one.support.labels) != sorted(one.support.labels)


def test_rows_say_how_accurate_each_presentation_was(table):
    encoder = make_encoder()
    methods = {"mann": MemoryAugmentedNetwork(encoder, rows=8, max_way=4), "prototypical": PrototypicalNetwork(encoder)}
    run = ProtocolRun(protocol=STREAM, methods=methods, choice=DataChoice(data=str(table)), folder=None)
    (shape,) = shapes_of(STREAM, n_shots=[4], n_ways=[3], n_episodes=6, max_query=None, seed=1)
    (rows,) = run.rows([None], [shape])
    assert [(row.setting.presentation, row.setting.method) for row in rows] == [
        (count, method) for count in (1, 2, 3, 4) for method in methods
    ]
    tasks = STREAM.draw(run.choice.material(STREAM, None), shape)
    scores = [score_stream(methods["prototypical"], tasks.sampler.episode(i)) for i in range(6)]
    for row in rows[1::2]:
        right = [
            float((s.probabilities.argmax(1) == s.labels)[s.presentations == row.setting.presentation].float().mean())
            for s in scores
        ]
        assert row.summary.accuracies == pytest.approx(right)
        assert row.json()["presentation"] == row.setting.presentation
        assert row.json()["difference"]["baseline"] == "mann"
    assert rows[0].summary.accuracy.mean < 0.34  # a class that was never shown is not named


@pytest.fixture(scope="module")
def checkpoint(encoder_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mann")
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    save_checkpoint(MemoryAugmentedNetwork(encoder, rows=8, max_way=6), folder, {"steps": 1})
    return folder


@pytest.mark.slow
def test_the_command_prints_rows_keyed_by_presentation_and_draws_them(checkpoint, table, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    shape = ["--data", str(table), "--protocol", "stream", "--ways", "3", "--shots", "4", "--episodes", "5"]
    picture = tmp_path / "curve.png"
    assert main(["evaluate", str(checkpoint), *shape, "--json", "--quiet", "--plot", str(picture)]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["presentation"] for row in rows] == [1, 2, 3, 4]
    assert all(0 <= row["accuracy"]["mean"] <= 1 and row["protocol"] == "stream" for row in rows)
    assert "--plot" not in rows[0]["command"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["evaluate", str(checkpoint), *shape, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "presentation" in shown
    assert "5 streams" in shown


def test_a_picture_that_cannot_be_drawn_is_refused_before_work(tmp_path, capsys):
    assert main(["evaluate", "prototypical", "--plot", str(tmp_path / "x.png")]) == 2
    assert "kshot-all has none" in capsys.readouterr().err
    assert main(["evaluate", "prototypical", "--protocol", "stream", "--plot", str(tmp_path / "x.svg")]) == 2
    assert "use that extension, not 'x.svg'" in capsys.readouterr().err


def test_a_fold_narrows_the_classes_and_is_refused_where_it_means_nothing(shared_data):
    choice = DataChoice(data="clinc150", data_dir=shared_data, fold=4)
    pool = choice.material(STREAM, None).pool
    assert pool.n_way == 50
    assert len(pool) == 50 * 30
    from nlpmeta.errors import DataError
    from nlpmeta.evaluation.protocols import KSHOT_ALL

    with pytest.raises(DataError, match="a fold is for n-way and stream"):
        choice.material(KSHOT_ALL, None)
    with pytest.raises(DataError, match="folds 0 to 4; fold 9"):
        DataChoice(data="clinc150", data_dir=shared_data, fold=9).material(STREAM, None)


def test_methods_without_meta_training_are_refused_by_the_commands(table, encoder_folder, capsys):
    assert (
        main(["evaluate", "rnn", "--protocol", "stream", "--data", str(table), "--encoder", str(encoder_folder)]) == 2
    )
    assert "rnn needs meta-training" in capsys.readouterr().err
    assert main(["adapt", "--method", "snail", "--data", str(table), "--encoder", str(encoder_folder)]) == 2
    assert "Train one with nlpmeta train snail" in capsys.readouterr().err
