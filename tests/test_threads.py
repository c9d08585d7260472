"""Many threads on one model: every answer is the one that a single thread gets, to the last bit."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import TOPICS, make_encoder
from test_merged import adapted

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.learners.base import learners
from nlpmeta.online import OnlineClassifier
from nlpmeta.users import AdapterStore

THREADS, CALLS = 8, 30
WORDS = " ".join(TOPICS.values()).split()
QUERIES = [" ".join(WORDS[i : i + 1 + i % 4]) for i in range(9)]


def classifier(method, pool, **options):
    learner = learners[method](adapted(**options)).eval()
    return FewShotClassifier(learner).fit(pool.texts[::3], pool.names()[::3])


def same_in_threads(ask):
    """Ask in one thread, in many at once, and in one again."""
    before = ask(0)
    with ThreadPoolExecutor(THREADS) as threads:
        during = list(threads.map(ask, range(THREADS * CALLS)))
    assert all(np.array_equal(each, before) for each in [*during, ask(0)])


@pytest.mark.parametrize("method", ["auto", "prototypical", "maml", "logistic"])
def test_a_classifier_answers_threads_as_it_answers_one(method, pool):
    fitted = classifier(method, pool)
    weights = {name: weight.clone() for name, weight in fitted.learner_.state_dict().items()}
    same_in_threads(lambda _: fitted.predict_proba(QUERIES))
    after = fitted.learner_.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())


@pytest.mark.slow
def test_methods_that_share_an_encoder_do_not_see_one_another(pool):
    encoder = adapted()
    made = [
        FewShotClassifier(learners[name](encoder).eval()).fit(pool.texts[::3], pool.names()[::3])
        for name in ("auto", "prototypical", "maml")
    ]
    expected = [each.predict_proba(QUERIES) for each in made]
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(lambda i: made[i % 3].predict_proba(QUERIES), range(THREADS * CALLS)))
    assert all(np.array_equal(each, expected[i % 3]) for i, each in enumerate(found))


@pytest.mark.slow
def test_a_stream_answers_threads_as_it_answers_one(pool):
    online = OnlineClassifier(classifier("auto", pool))
    same_in_threads(lambda _: online.predict_proba(QUERIES))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["logistic", "maml"])
def test_a_store_of_users_answers_threads_as_it_answers_one(method, pool, tmp_path):
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=2, layers=1), seed=0)
    with torch.no_grad():
        for weight in adapter_weights(encoder).values():
            weight += 0.1
    store = AdapterStore(tmp_path / "users.sqlite", learners[method](encoder).eval())
    store.adapt_many({"asha": (pool.texts[::4], pool.names()[::4]), "juma": (pool.texts[1::5], pool.names()[1::5])})
    users = ["asha", "juma", "asha"] * 3
    same_in_threads(lambda _: np.array([each.probabilities for each in store.predict_proba(users, QUERIES)]))


@pytest.mark.parametrize("method", ["prototypical", "auto"])
def test_whoever_reads_while_another_teaches_gets_the_old_answer_or_the_new_one(method, pool):
    fitted = classifier(method, pool)
    steps = [("new one", ["loan loan"]), ("new two", ["goal goal"]), ("another", ["rice rice"])]
    answers, done = [], threading.Event()

    def read():
        while not done.is_set():
            answers.append(fitted.predict(QUERIES).tolist())
            scores = fitted.predict_proba(QUERIES)
            assert np.isfinite(scores).all()

    allowed = [fitted.predict(QUERIES).tolist()]
    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        try:
            for name, texts in steps:
                fitted.add_class(name, texts)
                allowed.append(fitted.predict(QUERIES).tolist())
            for name, _ in steps:
                fitted.remove_class(name)
                allowed.append(fitted.predict(QUERIES).tolist())
        finally:
            done.set()
        for each in readers:
            each.result()
    assert answers
    assert all(each in allowed for each in answers)


def test_nothing_is_lost_where_two_threads_teach_at_once(pool):
    fitted = classifier("prototypical", pool)
    names = [f"class {i}" for i in range(12)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda name: fitted.add_class(name, [f"ball {name}"]), names))
    assert set(names) < set(fitted.classes_.tolist())
    assert len(fitted.examples_.texts) == len(pool.texts[::3]) + len(names)


def test_a_classifier_that_follows_a_stream_is_not_moved_by_what_its_origin_learns(pool):
    origin = classifier("prototypical", pool)
    online = OnlineClassifier(origin)
    before = online.predict_proba(QUERIES)
    origin.add_class("new", ["ball"])
    assert np.array_equal(online.predict_proba(QUERIES), before)


def test_tickets_of_a_stream_are_given_once_and_a_refused_label_teaches_nothing(pool):
    online = OnlineClassifier(classifier("prototypical", pool))
    with ThreadPoolExecutor(THREADS) as threads:
        answers = [a for each in threads.map(lambda _: online.receive(["ball goal", "rice"]), range(20)) for a in each]
    tickets = [answer.ticket for answer in answers]
    assert sorted(tickets) == list(range(40))
    seen = online.stream
    with pytest.raises(ValueError, match="no class"):
        online.learn(tickets[:3], ["food", "food", "no such class"])
    assert online.stream is seen
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda ticket: online.learn([ticket], ["food"]), tickets))
    assert online.stream.n_labels == 40
    assert not online.waiting


@pytest.mark.parametrize("most_rows", [None, 7])
def test_a_table_of_embeddings_gives_every_thread_its_own_rows(most_rows):
    encoder = adapted()
    table = EmbeddingTable(encoder, most_bytes=None if most_rows is None else 4 * encoder.dim * most_rows)
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    expected = encoder.encode(texts)

    def ask(number):
        rows = np.random.default_rng(number).permutation(len(texts))[:20].tolist()
        return (table([texts[row] for row in rows]) - expected[rows]).abs().max() < 1e-5

    with ThreadPoolExecutor(THREADS) as threads:
        assert all(threads.map(ask, range(100)))
