"""Memory-augmented networks: what they learn, and what holds for a stream whatever they learned."""

import time

import pytest
import torch
from conftest import make_encoder
from stream_tasks import recall, streams, train
from threadpoolctl import threadpool_limits

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.streams import SLOTS


def network(*, rows=16, max_way=8, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MemoryAugmentedNetwork(make_encoder(), rows=rows, max_way=max_way, **options)


def scattered(**options):
    """A network whose weights are away from their start, so that every part of it does something."""
    learner = network(**options).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in learner.named_parameters():
            if not name.startswith("encoder."):
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return learner


@pytest.fixture(scope="module")
def trained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train(network(dropout=0.0), steps=40, n_way=5, n_each=4, rate=3e-3)


@pytest.mark.slow
def test_learns_associative_recall_to_over_99_percent(trained):
    assert recall(network(), n_way=5, n_each=4) < 0.95
    assert recall(trained, n_way=5, n_each=4) > 0.99


@pytest.mark.slow
def test_without_a_memory_the_same_training_does_not_lead_there():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        forgetful = train(network(rows=0, dropout=0.0), steps=40, n_way=5, n_each=4, rate=3e-3)
    assert recall(forgetful, n_way=5, n_each=4) < 0.7


@pytest.mark.slow
def test_what_it_learned_carries_over_to_more_ways(trained):
    assert recall(trained, n_way=8, n_each=4) > 0.97


def test_results_do_not_depend_on_how_classes_are_numbered():
    learner = scattered()
    support, query = streams(1, n_way=5, n_each=6, seed=4)[0]
    new = torch.tensor([3, 0, 4, 1, 2])  # the new number of each class
    turned = Support(support.texts, support.features, new[support.labels], 5)
    stream = torch.randperm(len(support), generator=torch.Generator().manual_seed(0)).tolist()
    plain, moved = (learner.logits(written(learner, each, stream), query) for each in (support, turned))
    assert torch.equal(plain, moved[:, new])
    names = {order: FewShotClassifier(learner) for order in ("abc", "cab")}
    for text, topic in topics(12):
        for order, classifier in names.items():
            classifier.partial_fit(text, order[list(WORDS).index(topic)])
    one, two = (classifier.predict_proba(["ball goal", "rice cash"]) for classifier in names.values())
    assert (one == two[:, [2, 0, 1]]).all()


def written(learner, support, order):
    """The state after the support was written in this order, columns in the order of its labels."""
    state, numbers = learner.empty(), {}
    for row in order:
        number = numbers.setdefault(int(support.labels[row]), len(numbers))
        state = learner.write(state, support.features[row], number)
    return {**state, SLOTS: state[SLOTS][torch.tensor([numbers[label] for label in range(support.n_way)])]}


def test_codes_are_dealt_out_anew_in_training_and_fixed_afterwards():
    learner = network()
    tasks = streams(2, n_way=4, n_each=4, seed=1)
    learner.eval()
    assert learner.batch_loss(tasks).loss == learner.batch_loss(tasks).loss
    one, two = (learner.train()._dealt_codes(3, 4) for _ in range(2))
    assert not torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


def test_streams_side_by_side_lose_what_they_lose_one_by_one():
    learner = scattered()
    tasks = [streams(1, n_way=n_way, n_each=4, seed=n_way)[0] for n_way in (2, 3, 5)]
    alone = [learner.batch_loss([task]) for task in tasks]
    counts = [len(s.labels) + len(q.labels) - s.n_way for s, q in tasks]  # the first text of a class does not count
    expected = sum(count * each.loss for count, each in zip(counts, alone, strict=True)) / sum(counts)
    torch.testing.assert_close(learner.batch_loss(tasks).loss, expected)


def test_before_training_it_is_close_to_prototypes():
    learner = network(dropout=0.0).eval()
    support, query = streams(1, n_way=5, n_each=10, seed=2, noise=0.3)[0]
    prototypes = PrototypicalNetwork(learner.encoder, metric="cosine")
    ours = learner.logits(learner.adapt(support), query).argmax(1)
    assert (ours == prototypes.logits(prototypes.adapt(support), query).argmax(1)).float().mean() > 0.95


WORDS = {"sport": "ball goal match team", "food": "rice soup bread salt", "money": "bank loan cash rate"}


def topics(n):
    """A stream of texts of three topics, in turn."""
    pairs = [(topic, words.split()) for topic, words in WORDS.items()]
    for i in range(n):
        topic, words = pairs[i % 3]
        yield f"{words[i % 4]} {words[(i // 3) % 4]}", topic


def streaming(**options):
    return FewShotClassifier(scattered(**options))


def test_a_stream_starts_from_nothing_and_classes_come_at_any_time():
    classifier = streaming()
    seen = []
    for text, topic in topics(12):
        classifier.partial_fit(text, topic)
        seen.append(topic)
        assert classifier.classes_.tolist() == sorted(set(seen))
        assert classifier.predict_proba(["ball goal", "cash"]).shape == (2, len(set(seen)))
    assert classifier.predict(["ball goal match", "rice soup", "bank loan"]).tolist() == ["sport", "food", "money"]


def test_writing_one_by_one_or_many_at_once_is_the_same():
    one, many = streaming(), streaming()
    stream = list(topics(10))
    for text, topic in stream:
        one.partial_fit(text, topic)
    many.partial_fit([text for text, _ in stream], [topic for _, topic in stream])
    torch.testing.assert_close(many.state_, one.state_)


def test_predicting_does_not_change_the_stream():
    classifier = streaming().partial_fit(*map(list, zip(*topics(9), strict=True)))
    before = {name: value.clone() for name, value in classifier.state_.items()}
    classifier.predict(["ball goal", "rice"])
    torch.testing.assert_close(classifier.state_, before, rtol=0, atol=0)


def test_a_stream_saved_halfway_goes_on_identically(tmp_path, encoder_folder, capsys):
    learner = MemoryAugmentedNetwork(TextEncoder.from_pretrained(str(encoder_folder)), rows=5, max_way=4)
    with torch.no_grad():
        for weight in learner.parameters():
            if weight.requires_grad:
                weight.add_(0.05)
    classifier = FewShotClassifier(learner.eval())
    stream = list(topics(30))
    for text, topic in stream[:15]:
        classifier.partial_fit(text, topic)
    classifier.save_pretrained(tmp_path / "stream")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "stream")
    size = classifier.stream_memory().n_bytes
    assert main(["info", str(tmp_path / "stream")]) == 0
    assert f"memory {size:,} bytes: 80 bytes a row" in " ".join(capsys.readouterr().out.split())
    for text, topic in stream[15:]:
        assert (loaded.predict_proba([text]) == classifier.predict_proba([text])).all()
        classifier.partial_fit(text, topic)
        loaded.partial_fit(text, topic)
    torch.testing.assert_close(loaded.state_, classifier.state_, rtol=0, atol=0)


@pytest.mark.slow
def test_memory_stays_flat_and_says_its_size():
    classifier = streaming(rows=8, max_way=4)
    first = None
    for text, topic in topics(200):
        classifier.partial_fit(text, topic)
        memory = classifier.stream_memory()
        if memory.n_way == 3 and first is None:
            first = memory
    assert memory.n_bytes == first.n_bytes == sum(value.nbytes for value in classifier.state_.values())
    assert memory.n_rows == 8
    assert memory.rows_in_use <= 8
    assert memory.bytes_per_row == 4 * 16 + 8 + 4 + 4
    assert classifier.examples_ is None
    learner, state = classifier.learner_, classifier.state_
    features = torch.nn.functional.normalize(torch.randn(1000, 16), dim=1)
    with torch.no_grad():
        for i, row in enumerate(features):
            state = learner.write(state, row, i % 3)
    assert learner.footprint(state).n_bytes == first.n_bytes
    assert all(value.isfinite().all() for value in state.values())


def test_a_write_takes_less_than_ten_milliseconds_at_full_size():
    learner = MemoryAugmentedNetwork(make_encoder()).eval()
    features = torch.nn.functional.normalize(torch.randn(300, 16), dim=1)
    state = learner.empty()
    with torch.no_grad():
        for i in range(100):
            state = learner.write(state, features[i], min(i, 99))
        with threadpool_limits(1):  # a second thread that waits for the first would be counted too
            start = time.thread_time()
            for i in range(100, 300):
                state = learner.write(state, features[i], i % 100)
            assert (time.thread_time() - start) / 200 < 0.010


def test_more_classes_than_there_is_room_for_are_refused_and_nothing_changes():
    classifier = streaming(rows=4, max_way=3).partial_fit(["ball", "rice", "bank"], ["sport", "food", "money"])
    before = classifier.state_
    with pytest.raises(DataError, match="room for 3 classes; it has 3 and 1 more arrived"):
        classifier.partial_fit(["goal", "team"], ["sport", "people"])
    assert classifier.state_ is before
    with pytest.raises(DataError, match="differs in type"):
        classifier.partial_fit("goal", 7)


def test_a_class_can_be_removed_and_its_room_used_again():
    classifier = streaming(rows=4, max_way=3).partial_fit(*map(list, zip(*topics(12), strict=True)))
    classifier.remove_class("food")
    assert classifier.classes_.tolist() == ["money", "sport"]
    assert "food" not in classifier.predict(["rice soup", "bread"])
    classifier.partial_fit("rice soup", "dinner")
    assert classifier.classes_.tolist() == ["dinner", "money", "sport"]
    assert classifier.predict(["rice soup"]).tolist() == ["dinner"]


def test_a_class_can_be_renamed_and_the_stream_reset():
    classifier = streaming().partial_fit(*map(list, zip(*topics(12), strict=True)))
    before = classifier.predict_proba(["bank loan", "rice"])
    classifier.rename_class("money", "zloty")
    assert classifier.classes_.tolist() == ["food", "sport", "zloty"]
    assert (classifier.predict_proba(["bank loan", "rice"])[:, [0, 2, 1]] == before).all()
    learner = classifier.learner_
    classifier.reset()
    assert not hasattr(classifier, "state_")
    classifier.partial_fit("rice", "food")
    assert classifier.learner_ is learner
    assert classifier.classes_.tolist() == ["food"]


def test_asking_other_methods_for_a_stream_is_said_plainly():
    classifier = FewShotClassifier(PrototypicalNetwork(make_encoder())).fit(["ball", "rice"], ["sport", "food"])
    with pytest.raises(NLPMetaError, match="no fixed-size memory"):
        classifier.stream_memory()
    with pytest.raises(NLPMetaError, match="needs as many rows"):
        MemoryAugmentedNetwork(make_encoder(), rows=3, max_way=4)


def test_the_texts_of_a_support_are_read_in_rounds():
    learner = scattered()
    support, query = streams(1, n_way=3, n_each=6, seed=9)[0]
    by_class = support.labels.argsort(stable=True)
    grouped = Support(support.texts, support.features[by_class], support.labels[by_class], 3)
    one, two = (learner.logits(learner.adapt(each), Texts(query.texts, query.features)) for each in (support, grouped))
    assert torch.equal(one, two)
