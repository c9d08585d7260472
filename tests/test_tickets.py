"""Answers to a stream in every form that people have them in."""

import time

import numpy as np
import pytest

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.online import OnlineClassifier, checked_answers
from nlpmeta.online.stream import OnlineSettings


@pytest.fixture
def online(encoder, pool):
    classifier = FewShotClassifier(LogisticHead(encoder)).fit(list(pool.texts)[::4], list(pool.names())[::4])
    return OnlineClassifier(classifier, OnlineSettings(inner_steps=1))


@pytest.mark.parametrize(
    "form", [list, tuple, np.array, iter, lambda x: (each for each in x), lambda x: [np.int32(each) for each in x]]
)
def test_tickets_come_in_any_column(online, form):
    tickets = [answer.ticket for answer in online.receive(["ball goal", "rice soup", "bank loan"])]
    online.learn(form(tickets[:2]), np.array(["sport", "food"]))
    assert list(online.waiting) == tickets[2:] and online.stream.n_labels == 2
    online.learn(tickets[2:], iter(["money"]))
    assert online.stream.n_labels == 3


@pytest.mark.parametrize(
    "ticket", [0.0, "0", True, None, b"0", [0], float("nan"), np.float64(0), -1, 10**30, np.int64(99), "x" * 10**6]
)
def test_what_is_no_ticket_is_refused_and_nothing_is_learned(online, ticket):
    online.receive(["ball goal", "rice soup"])
    with pytest.raises(DataError, match="(?i)ticket") as caught:
        online.learn([1, ticket], ["sport", "sport"])
    assert len(str(caught.value)) <= 200
    assert online.stream.n_labels == 0 and len(online.waiting) == 2


@pytest.mark.parametrize(
    ("tickets", "labels"),
    [
        (0, ["sport"]),
        ([0], "sport"),
        ({0: 1}, ["sport"]),
        ([[0]], ["sport"]),
        (None, None),
        ([0], [["sport"]]),
        (np.zeros((1, 1), int), ["sport"]),
        ([0], {"sport"}),
        ("0", ["sport"]),
        ([0], [None]),
        ([0], [1.5]),
    ],
)
def test_what_is_no_column_is_refused(online, tickets, labels):
    online.receive(["ball goal"])
    with pytest.raises((DataError, UnknownNameError)):
        online.learn(tickets, labels)
    assert online.stream.n_labels == 0 and 0 in online.waiting


def test_checking_takes_time_in_proportion_to_the_tickets():
    times = []
    for n in (20_000, 80_000):
        awaited, tickets, labels = dict.fromkeys(range(n)), list(range(n)), ["b"] * n
        began = time.thread_time()
        assert checked_answers(tickets, labels, awaited=awaited, known=["a", "b"]) == [(t, 1) for t in tickets]
        times.append(time.thread_time() - began)
    assert times[1] < 12 * times[0] and times[1] < 5


def test_booleans_are_not_taken_for_numbers():
    with pytest.raises(UnknownNameError):
        checked_answers([0], [True], awaited={0}, known=[0, 1])
    assert checked_answers([0], [1.0], awaited={0}, known=[0, 1]) == [(0, 1)]


@pytest.mark.parametrize("n_labels", [None, "1", 1.5, True, float("nan"), [1], -1])
def test_a_rollback_takes_a_number_of_labels(online, n_labels):
    with pytest.raises(NLPMetaError):
        online.rollback(n_labels)
